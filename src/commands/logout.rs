//! `logout`
