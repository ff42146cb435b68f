//! What a user can see, through the whole binary. One file per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it did not expect fails"
)]

mod browser_sign_in;
mod by_hand;
#[cfg(unix)]
mod caller;
#[cfg(unix)]
mod chromium;
#[cfg(unix)]
mod cluster_double;
#[cfg(unix)]
mod cluster_story;
mod concurrency;
mod connection;
mod documents;
mod doubles;
mod entra;
mod errors;
mod get_token;
mod help;
#[cfg(unix)]
mod hostile_files;
mod hostile_provider;
mod kubelogin;
mod login;
mod logout;
#[cfg(unix)]
mod open;
#[cfg(unix)]
mod open_attacks;
#[cfg(unix)]
mod open_cluster;
#[cfg(unix)]
mod open_credentials;
#[cfg(unix)]
mod open_desk;
#[cfg(unix)]
mod open_flags;
#[cfg(unix)]
mod open_headlamp;
#[cfg(unix)]
mod open_in_chromium;
#[cfg(unix)]
mod open_real_cluster;
#[cfg(unix)]
mod open_session;
#[cfg(unix)]
mod open_soak;
#[cfg(unix)]
mod open_terminal;
#[cfg(unix)]
mod opened;
mod playground;
#[cfg(unix)]
mod presence;
#[cfg(unix)]
mod real_cluster;
#[cfg(unix)]
mod real_headlamp;
#[cfg(unix)]
mod real_provider;
#[cfg(unix)]
mod secrets;
mod session;
mod stand_in;
mod status;
#[cfg(unix)]
mod without_browser;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_kubectl-headlamp");
