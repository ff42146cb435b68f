//! What a user can see, through the whole binary. One file per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it did not expect fails"
)]

mod doubles;
mod get_token;
#[cfg(unix)]
mod real_cluster;
#[cfg(unix)]
mod real_provider;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_kubectl-headlamp");
