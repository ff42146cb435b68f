//! Test doubles and a sandbox for the whole binary. The tests in `tests/it`, the benches and the
//! playground are built of them; the binary never is.
//!
//! | double | stands for |
//! |---|---|
//! | [`Provider`] | an `OpenID` provider: strict, scripted, and able to misbehave |
//! | [`StandIn`] | Headlamp's server and page, 0.30 to 0.45 |
//! | [`ApiServer`] | a Kubernetes API server, for `kubectl get pods` and `kubectl auth whoami` |
//! | [`Browser`] | a browser without a window |
//! | [`Sandbox`] | a home folder, an environment and a desktop that are the test's own |
//! | [`Terminal`] | a terminal with somebody who types |
//!
//! Everything binds a free port of loopback and ends when it is dropped.
//!
//! # How to write a test
//! ```no_run
//! # const BINARY: &str = "";
//! use headlamp_test_support::{Answer, Endpoint, Provider, Sandbox};
//!
//! // In a file of `tests/it`, whose `main.rs` has `BINARY`. The name is the claim.
//! fn a_refresh_asks_once_more_when_the_provider_was_in_trouble() {
//!     let provider = Provider::start();
//!     let sandbox = Sandbox::new(BINARY);
//!     // Less than the 90 s that a token must have left: the next run renews it.
//!     provider.set(|behaviour| behaviour.id_token_lifetime = 60);
//!     let _ = sandbox.get_token(&provider).run().succeeded(); // a browser opens, and signs in
//!     provider.script(Endpoint::Token, Answer::json(503, &serde_json::json!({})));
//!     let output = sandbox.get_token(&provider).exec_info("v1", false).run();
//!     assert_eq!(output.code, 0, "{output}"); // or insta::assert_snapshot!(output, @"…")
//!     assert_eq!(provider.token_requests("refresh_token").len(), 2);
//!     assert_eq!(sandbox.opened().len(), 1);
//! }
//! ```
//!
//! **What the provider does** is [`Behaviour`]: lifetimes, rotation, when it gives refresh tokens,
//! the algorithm, the device flow; [`Provider::set`] changes it at any time. [`Provider::script`]
//! puts an [`Answer`] in the place of the next usual one: a status, a delay, a [`Gate`] that holds
//! it back, a reset, a drip, bytes without an end, or a request that is acted on while its answer
//! is lost. The `edit_…` hooks change what it says and signs, for instance
//! `provider.edit_claims(|claims| { claims.remove("exp"); })`. [`Provider::go_down`] refuses
//! connections. Afterwards [`Provider::requests`] has all that it was asked; a provider that was
//! asked nothing fails its test.
//!
//! **What the binary gets**: [`Sandbox::command`], or [`Sandbox::get_token`] and
//! [`Sandbox::login`] with the flags that name a provider; then [`Run`]'s arguments, variables,
//! `exec_info` and stdin; then [`Run::run`], [`Run::spawn`] (to kill it, interrupt it, or run fifty
//! at once) or [`Run::terminal`]. A run that takes a minute is killed and fails.
//!
//! **The browser** is `$BROWSER`, a script that notes how it was called; a thread of the sandbox
//! opens what it was called with. [`Sandbox::play`] has nobody look, or something else happen;
//! [`Sandbox::launcher`] has the script fail or stay. [`Sandbox::visit`] waits for the page that it
//! ended on.
//!
//! **Headlamp** is [`StandIn`] in process, and [`RealCluster::deploy_headlamp`] in real pods:
//! [`DeployedHeadlamp`] deletes pods, kills containers, rolls out and scales, and keeps what its pods
//! were asked; [`DeployedHeadlamp::assert_knows_nothing`] is the proof that none saw a credential.
//! Its page tells tests what it sees: `tests/support/page/index.js` begins with the list.
//!
//! **Real people** of the real cluster: [`RealCluster::certificate_user`],
//! [`RealCluster::service_account`], [`RealCluster::grant`], [`RealCluster::kubeconfig_of`]; what the
//! API server says of them is [`RealCluster::audit_of`].
//!
//! **Chromium**: [`Chromium::page`] is a tab, [`Chromium::stranger`] one without its cookies; a
//! [`Page`] goes, clicks, evaluates, waits ([`Page::wait_for`]) and reports all that it left behind or
//! came by. A [`Site`] is somebody else's page, on another port and, if wanted, under another name.
//!
//! **Secrets**: after every run the sandbox searches stdout (but for the one token of an
//! `ExecCredential`), stderr, its files (but for the cache's), and what the browser was given, for
//! every secret that its providers issued or saw. What is meant to be shown is allowed by
//! [`Run::may_show`]. Further secrets: [`Sandbox::watch`].
//!
//! **Snapshots**: an [`Output`] shows exit code, stdout and stderr without what differs from run
//! to run: `[ISSUER]`, `[PORT]`, `[START]`, `[TIME]`, `[PID]`, `[TOKEN]`, `[SANDBOX]`.
//!
//! Nothing here sleeps for a fixed time: [`wait_until`] waits for a condition, with a deadline.

pub mod api_server;
pub mod authority;
pub mod browser;
#[cfg(unix)]
pub mod chromium;
pub mod connect_proxy;
mod endpoints;
pub mod headlamp;
pub mod headlamp_flags;
pub mod provider;
#[cfg(unix)]
pub mod real;
#[cfg(unix)]
pub mod real_cluster;
#[cfg(unix)]
pub mod real_headlamp;
#[cfg(unix)]
pub mod real_people;
#[cfg(unix)]
pub mod real_provider;
pub mod request_log;
pub mod run;
pub mod sandbox;
pub mod script;
pub mod secrets;
pub mod server;
pub mod signing;
#[cfg(unix)]
pub mod terminal;
mod tokens;

pub use api_server::{ApiServer, SelfSubjectReview, exec_entry};
pub use authority::{Authority, Certificate};
pub use browser::{Browser, Visit};
#[cfg(unix)]
pub use chromium::{Chromium, Page, Site};
pub use connect_proxy::ConnectProxy;
pub use headlamp::{Oidc, StandIn, StandInOptions, Version};
pub use provider::{
    AccessTokens, Approval, Behaviour, Device, Endpoint, Person, Provider, RefreshTokens, SignIn, Signature,
};
#[cfg(unix)]
pub use real_cluster::RealCluster;
#[cfg(unix)]
pub use real_headlamp::{DeployedHeadlamp, Deployment, Layout};
#[cfg(unix)]
pub use real_people::KnownUser;
#[cfg(unix)]
pub use real_provider::RealProvider;
pub use run::{Output, Run, Running};
pub use sandbox::{Launcher, Play, Sandbox, wait_until};
pub use script::{Answer, Gate};
pub use secrets::{Secret, SecretKind, Secrets};
pub use server::{Request, Response};
pub use signing::Algorithm;
#[cfg(unix)]
pub use terminal::Terminal;
