//! Test doubles and a sandbox for the binary; the playground is built of them too.

pub mod api_server;
pub mod authority;
pub mod browser;
mod endpoints;
pub mod provider;
pub mod run;
pub mod sandbox;
pub mod script;
pub mod secrets;
pub mod server;
pub mod signing;
#[cfg(unix)]
pub mod terminal;

pub use api_server::{ApiServer, SelfSubjectReview, exec_entry};
pub use authority::{Authority, Certificate};
pub use browser::{Browser, Visit};
pub use provider::{
    AccessTokens, Approval, Behaviour, Device, Endpoint, Person, Provider, RefreshTokens, SignIn, Signature,
};
pub use run::{Output, Run, Running};
pub use sandbox::{Launcher, Play, Sandbox, wait_until};
pub use script::{Answer, Gate};
pub use secrets::{Secret, SecretKind, Secrets};
pub use server::{Request, Response};
pub use signing::Algorithm;
#[cfg(unix)]
pub use terminal::Terminal;
