//! `get-token`: kubectl's question in, one JSON object out.

use std::ffi::OsString;

use clap::Args;

use super::{block_on, login_command, tell_notes};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::exec_credential::{self, Request};
use crate::options::{self, Options};
use crate::session::{self, Session, Wish};
use crate::settings::{self, Settings};
use crate::ui::Ui;

/// Prints a token for kubectl, which runs this by itself
///
/// kubectl runs this command when a user of the kubeconfig has an `exec` entry for it. The answer is one `ExecCredential` object (JSON) on
/// stdout; everything else goes to stderr. A cached token is handed out as it is, one that has run out is renewed, and only if that fails a
/// sign-in begins.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  kubectl config set-credentials me --exec-api-version=client.authentication.k8s.io/v1 \\
    --exec-interactive-mode=IfAvailable --exec-command=kubectl-headlamp --exec-arg=get-token \\
    --exec-arg=--issuer-url=https://id.example.com --exec-arg=--client-id=kubernetes

An entry that was written for kubelogin is understood too.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
}

/// `words` are the arguments after `get-token`.
pub(crate) fn run(words: &[OsString], ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    let options = options::of_arguments(words)?.over(options::of_environment(environment)?);
    let settings = settings::resolve(&options, environment)?;
    let request = Request::from_environment(environment)?;
    let ui = ui.at(settings.verbosity);
    tell_notes(&settings, ui);
    if !settings.cache.force_refresh
        && let Some(token) = session::cached(&settings, clock.now())?
    {
        ui.step("the cached token is good");
        let expires = session::told_expiry(&token, clock.now());
        return ui.data(&exec_credential::answer(request.version, &token.value, expires));
    }
    let session = Session {
        settings: &settings,
        ui,
        environment,
        clock,
        interactive: Some(request.interactive.unwrap_or(true)),
        cluster: request.cluster_server.as_deref(),
        tab: None,
    };
    let wish = if settings.cache.force_refresh { Wish::Refreshed } else { Wish::Valid };
    let (token, _) = block_on(session::token(session, wish)).map_err(|error| advised(error, &settings, environment))?;
    ui.data(&exec_credential::answer(request.version, &token.value, session::told_expiry(&token, clock.now())))
}

/// Whoever was not signed in is told how to be.
fn advised(error: Error, settings: &Settings, environment: &Environment) -> Error {
    match error.kind() {
        Kind::SignInNeeded => {
            let command = login_command(settings, environment);
            error.hint(format!("run `{command}` in a terminal, then repeat your command"))
        }
        Kind::SignInFailed if error.hints().is_empty() => {
            let command = login_command(settings, environment);
            error.hint(format!("to try again, run `{command}`"))
        }
        _ => error,
    }
}
