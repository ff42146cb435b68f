//! The cached tokens: one file per identity.
