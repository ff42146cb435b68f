//! `kubectl-headlamp` signs people in to their Kubernetes clusters.
#![allow(dead_code, reason = "the parts come before the whole")]

mod api_server;
mod browser;
mod cache;
mod callback;
mod clock;
mod commands;
mod entra;
mod environment;
mod error;
mod exec_credential;
mod http;
mod id_token;
mod kubeconfig;
mod kubelogin;
mod oidc;
mod options;
mod secret;
mod session;
mod settings;
mod sign_in;
mod terminal;
mod ui;

fn main() {}
