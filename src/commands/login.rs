//! `login`
