//! Test doubles and a sandbox for the whole binary. The tests in `tests/it`, the benches and the
//! playground are built of them; the binary never is.
//!
//! | double | stands for |
//! |---|---|
//! | [`Provider`] | an `OpenID` provider: strict, scripted, and able to misbehave |
//! | [`StandIn`] | Headlamp's server and page, 0.30 to 0.45 |
//! | [`ApiServer`] | a Kubernetes API server, for `kubectl get pods` and `kubectl auth whoami` |
//! | [`Cluster`] | a Kubernetes API server with objects, watches, pods, HTTP/2, and faults |
//! | [`DelayLine`] | a long way to any server |
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
//! API server says of them is [`RealCluster::audit_of`]. Who restarts parts of it asks for
//! [`RealCluster::alone`].
//!
//! **Chromium**: [`Chromium::page`] is a tab, [`Chromium::stranger`] one without its cookies; a
//! [`Page`] goes, clicks, evaluates, waits ([`Page::wait_for`]) and reports all that it left behind or
//! came by. A [`Site`] is somebody else's page, on another port and, if wanted, under another name.
//!
//! **The cluster** holds objects with versions and a history; lists, watches (plain and through
//! websockets), logs, exec and port-forward are those of a real one, and a test holds both against
//! the same words. Everybody but `system:anonymous` may do everything until [`Cluster::authorize`].
//! ```no_run
//! # const BINARY: &str = "";
//! use std::time::Duration;
//!
//! use headlamp_test_support::{Cluster, DelayLine, Fault, HeadlampInstall, Sandbox, StandIn, StandInOptions, with_token};
//!
//! let page = StandIn::start(StandInOptions::default());
//! let headlamp = ([127, 0, 0, 1], page.port()).into();
//! let cluster = Cluster::start(|_| None); // or `provider.authenticator()`; HTTP/1.1 only: `start_with`
//! let pod = cluster.install_headlamp("headlamp", &HeadlampInstall::default(), headlamp);
//! let sandbox = Sandbox::new(BINARY);
//! let token = cluster.token("jane", &["developers"]);
//! sandbox.write_kubeconfig(&cluster.kubeconfig(&with_token(&token))); // with_certificate, with_token_file, exec
//! // 50 ms away: cluster.kubeconfig_at(&format!("https://{}", line.address()), …)
//! let line = DelayLine::to(cluster.address(), Duration::from_millis(25));
//!
//! cluster.script("/api/v1/pods", Fault::too_many_requests(1)); // the next request to this path
//! cluster.fail(usize::MAX, Fault::status(503), |asked| asked.path.starts_with("/apis/")); // all that fit
//! cluster.heal();
//! cluster.refuse_token(&token, 1); // one 401
//! cluster.set(|behaviour| behaviour.watch_lifetime = Some(Duration::from_secs(1)));
//! cluster.expire_watches(); // 410 in all that are open; also end_watches, cut_watches
//! cluster.cut_all(); // resets; also go_away, go_silent and speak, go_down and come_up
//! let new = cluster.replace_headlamp_pod("headlamp", "headlamp", headlamp);
//! for asked in cluster.requests() {
//!     let _as_whom = (asked.user, asked.signed_in, asked.http2, asked.connection);
//! }
//! ```
//! A [`Fault`] is what happens to one request: an answer, none, gigabytes of [`pattern()`], a slow
//! reader, a reset, GOAWAY; `after`, `held_by`, `dripped`, `stalled_after`, `broken_after`,
//! `reset_after` and `silent_after` make the usual answer, or any, a bad one. [`Cluster::put`],
//! [`Cluster::edit`] and [`Cluster::delete`] change what there is; [`Cluster::add_pod`] has ports that
//! lead to addresses of this machine.
//!
//! **A page without a browser** is [`PageClient`]: what `open` serves, over plain connections and
//! websockets. [`soak()`] is hours of it in a few minutes; [`Weight`] is what a process holds.
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
pub mod cluster;
pub mod connect_proxy;
pub mod delay_line;
mod endpoints;
pub mod headlamp;
pub mod headlamp_flags;
pub mod kept_port;
pub mod page_client;
pub mod pattern;
pub mod provider;
mod quiet_network;
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
mod runner;
pub mod sandbox;
pub mod script;
pub mod secrets;
pub mod server;
pub mod signing;
#[cfg(unix)]
pub mod soak;
#[cfg(unix)]
pub mod terminal;
mod tokens;
pub mod weight;
mod wire;

pub use api_server::{ApiServer, SelfSubjectReview, exec_entry};
pub use authority::{Authority, Certificate};
pub use browser::{Browser, Visit};
#[cfg(unix)]
pub use chromium::{Chromium, Page, Site};
pub use cluster::{
    Asked, Attempt, Cluster, ClusterBehaviour, ClusterOptions, Fault, HeadlampInstall, Layout, User, with_certificate,
    with_token, with_token_file,
};
pub use connect_proxy::ConnectProxy;
pub use delay_line::DelayLine;
pub use headlamp::{Oidc, StandIn, StandInOptions, Version};
pub use kept_port::KeptPort;
pub use page_client::PageClient;
pub use pattern::{PatternCheck, pattern};
pub use provider::{
    AccessTokens, Approval, Behaviour, Device, Endpoint, Person, Provider, RefreshTokens, SignIn, Signature,
};
#[cfg(unix)]
pub use real_cluster::{RealCluster, Workshop};
#[cfg(unix)]
pub use real_headlamp::{DeployedHeadlamp, Deployment};
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
pub use soak::{Amount, soak};
#[cfg(unix)]
pub use terminal::Terminal;
pub use weight::Weight;
