//! `kubectl-headlamp` signs people in to their Kubernetes clusters. This page is the map.
//!
//! # The problem
//! kubectl knows no `OpenID` Connect: it runs a helper for each command and takes the token that the
//! helper prints. The helper must answer in a millisecond when it has a token, renew it in silence
//! when it has run out, open one browser when it must, and never hang, never open fifty, and
//! never lose or show what it holds.
//!
//! Headlamp, the web UI, wants that token in its pod, and loses it every hour. `open` leaves it at
//! home: the page's files come from the pod, and what the page asks of the Kubernetes API a local
//! server asks the API server itself, as the user that kubectl is. It must serve one browser and
//! nobody else, and keep the page alive over renewals, rollouts and sleep.
//!
//! # The map
//! A file uses only what stands below it. Files in brackets are parts of the one before them.
//!
//! | what | files |
//! |---|---|
//! | parse, dispatch, print the error, exit | `main` `cli` |
//! | one file per verb | `commands/*` |
//! | **policy**: it decides | |
//! | who may talk to the local server of `open`, and which request goes where | `gateway` (`gateway_listener` `gateway_page` `gateway_sign_in`), `gateway_request` (`gateway_headers` `browser_session`), `gateway_api` (`gateway_answer`) |
//! | which Headlamp is opened | `headlamp_choice` |
//! | a cluster as one user; any kubeconfig user's credential | `cluster_client`, `credential` (`credential_source`) |
//! | whose tokens are meant; cached, refreshed or new? | `configured`, `session` (`waiting` `token_source` `wish`) |
//! | one readable function per flow | `sign_in/*` |
//! | **mechanism**: one outside thing each, never prints | |
//! | tokens: kubectl's protocol, files, the provider, signatures | `exec_credential`, `cache` (`cache_key` `cache_lock` `private_file`), `oidc` (`attempt` `provider` `provider_metadata` `token_reply` `device_code` `refusal`), `id_token` (`claims` `signing_key` `rejection`) |
//! | the browser's way back from the provider | `callback` (`callback_request` `callback_page` `authorization_response`) |
//! | Headlamp: where it is, its pods, its page | `headlamp` (`headlamp_search` `headlamp_container` `headlamp_version`), `port_forward` (`ready_pod` `pod_stream` `kube_fault`), `plain_forward`, `ui_files` (`ui_file` `ui_cache` `ui_folder` `index_page` `pod_http`), `headlamp_config` |
//! | live updates | `watch` (`watch_difference` `resource_list`), `websocket` |
//! | the API server | `api_server`, `api_connection` (`dialer` `http2_pool` `tls` `api_proxy` `resolver`) |
//! | kubeconfigs and other exec plugins | `kubeconfig` (`kubeconfig_user` `kubeconfig_flags`), `exec_plugin` |
//! | this machine | `browser`, `terminal`, `status_line`, `open_state`, `wake`, `port_holder`, `peer` (`socket_owner`, `tcp_table`) |
//! | **what all of them use** | `settings` `options` `kubelogin` `entra` `http` (`http_client` `http_fault` `proxy`) `page` `ui` `clock` `random` `environment` |
//! | | `loopback` `json_object` `error` `secret` |
//!
//! Start reading at [`commands::get_token`], then [`session`]; for `open` at [`commands::open`], then
//! [`gateway_request`], which says what is served to whom, and [`cluster_client`].
//!
//! # What always holds
//! 1. stdout is a protocol: [`ui::Ui::data`] is its one writer; children never inherit it.
//! 2. A cache hit opens one file and writes one answer: no lock, no network, no thread, no child.
//! 3. A token never stands in a URL, an argument, a log line, an error, a `Debug` output or the browser.
//! 4. One sign-in per identity at a time, across processes; those who wait share its result and its failure.
//! 5. A refresh token is on disk before the one that it replaces is dropped.
//! 6. A network fault is never taken for a refusal: it opens no browser and deletes no token.
//! 7. Listeners bind loopback only unless a flag consents to more, check Host, and die on time.
//! 8. The page of `open` has a port of its own, never the sign-in's; only the browser that was opened
//!    is served; the credential goes to the API server and to nobody else.
//! 9. Nothing that a provider, a cluster, a browser, another user or a file says can make it panic,
//!    hang past its deadline, or print terminal escapes.
//! 10. stdin is read only where kubectl and the terminal allow it.
//!
//! The callback listener is hyper's and not `tiny_http`'s: there a connection that is reset while
//! its request is read aborts the process, and idle ones end the accept loop for good.

mod api_connection;
mod api_proxy;
mod api_server;
mod attempt;
mod authorization_response;
mod browser;
mod browser_session;
mod cache;
mod cache_key;
mod cache_lock;
mod callback;
mod callback_page;
mod callback_request;
mod claims;
mod cli;
mod clock;
mod cluster_client;
mod commands;
mod configured;
mod credential;
mod credential_source;
mod device_code;
mod dialer;
mod entra;
mod environment;
mod error;
mod exec_credential;
mod exec_plugin;
mod gateway;
mod gateway_answer;
mod gateway_api;
mod gateway_headers;
mod gateway_listener;
mod gateway_page;
mod gateway_request;
mod gateway_sign_in;
mod headlamp;
mod headlamp_choice;
mod headlamp_config;
mod headlamp_container;
mod headlamp_search;
mod headlamp_version;
mod http;
mod http2_pool;
mod http_client;
mod http_fault;
mod id_token;
mod index_page;
mod json_object;
mod kube_fault;
mod kubeconfig;
mod kubeconfig_flags;
mod kubeconfig_user;
mod kubelogin;
mod loopback;
mod oidc;
mod open_state;
mod options;
mod page;
mod peer;
mod plain_forward;
mod pod_http;
mod pod_stream;
mod port_forward;
mod port_holder;
mod private_file;
mod provider;
mod provider_metadata;
mod proxy;
mod random;
mod ready_pod;
mod refusal;
mod rejection;
mod resolver;
mod resource_list;
mod secret;
mod session;
mod settings;
mod sign_in;
mod signing_key;
#[cfg(target_os = "linux")]
mod socket_owner;
mod status_line;
#[cfg(target_os = "linux")]
mod tcp_table;
mod terminal;
mod tls;
mod token_reply;
mod token_source;
mod ui;
mod ui_cache;
mod ui_file;
mod ui_files;
mod ui_folder;
mod waiting;
mod wake;
mod watch;
mod watch_difference;
mod websocket;
mod wish;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::cli::{Command, CommandLine};
use crate::clock::Clock;
use crate::commands::{get_token, login, logout, open, status};
use crate::environment::Environment;
use crate::error::Result;
use crate::ui::Ui;

fn main() -> ExitCode {
    let ui = Ui::new();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&words, ui, &Environment::of_this_process(), Clock::system()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run(words: &[OsString], ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    // An entry of kubelogin's begins with its name as a plugin.
    let words = words.strip_prefix(&[OsString::from("oidc-login")]).unwrap_or(words);
    let help = |word: &OsString| word == "--help" || word == "-h";
    match words.split_first() {
        Some((verb, rest)) if verb == "get-token" && !rest.iter().any(help) => {
            get_token::run(rest, ui, environment, clock)
        }
        _ => run_parsed(words, ui, environment, clock),
    }
}

fn run_parsed(words: &[OsString], ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    let parsed = CommandLine::command().no_binary_name(true).try_get_matches_from(words);
    let parsed = parsed.and_then(|matches| Ok((CommandLine::from_arg_matches(&matches)?, matches)));
    let (command_line, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if !error.use_stderr() || words.is_empty() => return ui.data(&error.render().to_string()),
        Err(error) => return Err(options::usage_error(&error, "kubectl headlamp --help")),
    };
    let given = matches.subcommand().map(|(verb, matches)| match verb {
        "open" => open::given(matches),
        _ => options::given(matches),
    });
    let given = given.unwrap_or_default();
    match command_line.command {
        Command::GetToken(_) => get_token::run(words, ui, environment, clock),
        Command::Login(arguments) => login::run(&arguments, &given, ui, environment, clock),
        Command::Logout(arguments) => logout::run(&arguments, ui, environment, clock),
        Command::Open(arguments) => open::run(&arguments, &given, ui, environment, clock),
        Command::Status(arguments) => status::run(&arguments, ui, environment, clock),
    }
}
