//! `status` (`whoami`): every identity, and whether kubectl can work with the current one.

mod report;
mod text;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::{block_on, tell_notes};
use crate::api_server;
use crate::cache::{Cache, Found, Key};
use crate::clock::Clock;
use crate::configured::{self, Meant, Target};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::kubeconfig::{self, KubeconfigArguments};
use crate::options::{Interactive, Options};
use crate::session::{self, Session, Wish};
use crate::settings::{CacheSettings, Settings, Subject};
use crate::ui::Ui;

use report::{ClusterReport, Context, Report, Source, State};

/// Shows who you are signed in as, where, and until when
///
/// Every identity that has tokens here or is configured in the kubeconfig; the current context's first, marked with `*`. Ends with exit code
/// 3 if that one is not signed in.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl headlamp status
  kubectl headlamp status --verify
  kubectl headlamp status -o json | jq '.sessions[0].person'")]
pub(crate) struct Arguments {
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// Ask the cluster whom it takes you for; renews the token if it has run out, and never signs in
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    kubeconfig: KubeconfigArguments,
    #[command(flatten)]
    options: Options,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs; version 1 of the shape may gain members, and loses none.
    Json,
    /// Likewise.
    Yaml,
}

pub(crate) fn run(arguments: &Arguments, ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    let kubeconfig = kubeconfig::load(arguments.kubeconfig.kubeconfig.as_deref(), environment)?;
    let flags = &arguments.options;
    let meant = configured::meant(&kubeconfig, &arguments.kubeconfig, flags, environment);
    if meant.is_err() && arguments.kubeconfig.names_an_entry() {
        return meant.map(drop);
    }
    let ui = ui.at(flags.verbose.unwrap_or(0));
    // The cluster is asked first: that may renew the tokens that are then reported.
    let verified = match &meant {
        Ok(meant) if arguments.verify => verify(meant, ui, environment, clock).map(Some),
        _ => Ok(None),
    };
    let (cluster, unverified) = match verified {
        Ok(cluster) => (cluster, None),
        Err(error) => (None, Some(error)),
    };
    let source = Source { kubeconfig: &kubeconfig, named: arguments.kubeconfig.kubeconfig.as_deref() };
    let report = report(meant.as_ref().ok(), cluster, source, flags, environment, clock.now())?;
    ui.data(&rendered(&report, arguments.output, clock.now())?)?;
    signed_in(&meant?, &report)?;
    unverified.map_or(Ok(()), Err)
}

fn report(
    meant: Option<&Meant>,
    cluster: Option<ClusterReport>,
    source: Source<'_>,
    flags: &Options,
    environment: &Environment,
    now: Timestamp,
) -> Result<Report> {
    let all = configured::all(source.kubeconfig, flags, environment)?;
    let (context, target) = match meant {
        Some(Meant::Target(target)) => (target.user.as_ref().map(Context::of), Some(&**target)),
        Some(Meant::Other(user)) => (Some(Context::of_other(user)), None),
        Some(Meant::Nothing) | None => (None, None),
    };
    Ok(Report { version: 1, context, sessions: report::sessions(all, target, source, now), cluster })
}

fn rendered(report: &Report, format: Format, now: Timestamp) -> Result<String> {
    let failed =
        |error: &(dyn std::error::Error + 'static)| Error::bug("the status cannot be written").caused_by(error);
    match format {
        Format::Text => Ok(text::text(report, now)),
        Format::Json => serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| failed(&error)),
        Format::Yaml => serde_saphyr::to_string(report).map_err(|error| failed(&error)),
    }
}

/// Exit code 3 where the current identity needs a person before kubectl can work.
fn signed_in(meant: &Meant, report: &Report) -> Result<()> {
    let needed =
        |message: String, command: &str| Err(Error::new(Kind::SignInNeeded, message).hint(format!("run `{command}`")));
    let current = report.sessions.iter().find(|session| session.current);
    match (meant, current) {
        (Meant::Target(target), Some(session)) if session.state != State::SignedIn => {
            needed(format!("you are not signed in to `{}`", target.settings.identity.issuer), &session.login)
        }
        (Meant::Nothing, None) if report.sessions.is_empty() => needed(
            "you are not signed in anywhere".to_owned(),
            "kubectl headlamp login --issuer-url <url> --client-id <id>",
        ),
        _ => Ok(()),
    }
}

/// Asks the cluster with the cached token, or one that was renewed in silence.
fn verify(meant: &Meant, ui: Ui, environment: &Environment, clock: Clock) -> Result<ClusterReport> {
    let Meant::Target(target) = meant else {
        return Err(Error::settings("there is no token to ask the cluster with")
            .hint("`kubectl auth whoami` asks it as kubectl does"));
    };
    let Target { settings, user } = &**target;
    let Some(cluster) = user.as_ref().and_then(|user| user.cluster.as_ref()) else {
        return Err(Error::settings("there is no cluster to ask")
            .hint("name a context, or a cluster: `--context <name>`, `--cluster <name>`"));
    };
    // Whoever asks for the status is not to be shown a browser, and a token's last minute is good enough.
    let cache = CacheSettings { minimum_validity: SignedDuration::ZERO, ..settings.cache.clone() };
    let settings = Settings { interactive: Interactive::Never, cache, ..settings.clone() };
    let ui = ui.at(settings.verbosity);
    tell_notes(&settings, ui);
    let session =
        Session { settings: &settings, ui, environment, clock, interactive: Some(false), cluster: None, tab: None };
    block_on(async {
        let token = match session::cached(&settings, clock.now())? {
            Some(token) => token,
            None if may_renew(&settings)? => session::token(session, Wish::Valid).await?.0,
            None => return Err(Error::new(Kind::SignInNeeded, "there is no token to ask the cluster with")),
        };
        let user = api_server::who_am_i(cluster, &token.value, environment).await?;
        Ok(ClusterReport { name: cluster.name.clone(), server: cluster.server.clone(), user })
    })
}

/// Whether there is anything to get a token with; a client has its own secret.
fn may_renew(settings: &Settings) -> Result<bool> {
    let Some(folder) = &settings.cache.folder else { return Ok(false) };
    let refresh = match Cache::at(folder.clone()).read(&Key::of(&settings.identity))? {
        Found::Entry(entry) => entry.refresh_token.is_some(),
        Found::Absent | Found::Damaged(_) => false,
    };
    Ok(refresh || settings.identity.subject == Subject::Client)
}

#[cfg(test)]
mod tests;
