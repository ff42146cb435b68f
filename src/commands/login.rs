//! `login`: sign in now, whatever the cache says.

use clap::Args;

use super::{block_on, shell_word, tell_notes};
use crate::clock::{Clock, in_words};
use crate::configured::{self, Target};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::kubeconfig::{self, KubeconfigArguments};
use crate::options::Options;
use crate::session::{self, Session, Wish};
use crate::ui::Ui;

/// Signs in now, whatever the cache says
///
/// The provider and the client are those of the current context's user, if that user runs `kubectl-headlamp` or kubelogin; flags override
/// them. With flags alone, the line that adds such a user to the kubeconfig is printed too.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl headlamp login
  kubectl headlamp login --context staging --prompt select_account
  kubectl headlamp login --issuer-url https://id.example.com --client-id kubernetes
  kubectl headlamp login --provider entra --tenant <tenant id> --aks --client-id <application id>")]
pub(crate) struct Arguments {
    #[command(flatten)]
    kubeconfig: KubeconfigArguments,
    #[command(flatten)]
    options: Options,
}

/// `given` are the sign-in's flags as they were typed.
pub(crate) fn run(
    arguments: &Arguments,
    given: &[String],
    ui: Ui,
    environment: &Environment,
    clock: Clock,
) -> Result<()> {
    let flags = &arguments.options;
    let kubeconfig = kubeconfig::load(arguments.kubeconfig.kubeconfig.as_deref(), environment)?;
    let Target { settings, user } =
        configured::target(&kubeconfig, &arguments.kubeconfig, flags, "login", environment)?;
    let ui = ui.at(settings.verbosity);
    tell_notes(&settings, ui);
    if settings.cache.folder.is_none() {
        return Err(Error::settings("signing in would come to nothing: `--token-storage none` keeps no token"));
    }
    let cluster = user.as_ref().and_then(|user| user.cluster.as_ref()).map(|cluster| cluster.name.as_str());
    let session = Session { settings: &settings, ui, environment, clock, interactive: None, cluster, tab: None };
    let (token, entry) = block_on(session::token(session, Wish::SignedIn)).map_err(|error| match error.kind() {
        Kind::SignInNeeded => error.hint(NOBODY),
        _ => error,
    })?;
    let who = entry.person.as_ref().map(|person| format!(" as {}", person.name_to_show())).unwrap_or_default();
    let left = in_words(token.expires.duration_since(clock.now()));
    let renewed = if entry.refresh_token.is_some() { ", and renewed by itself" } else { "" };
    ui.say(format!("signed in to {}{who}: the token is good for {left}{renewed}", settings.identity.issuer));
    if user.is_none() {
        ui.data(&credentials_command(flags, given))?;
    }
    Ok(())
}

/// The line that gives the kubeconfig a user with these flags. A secret's text is never repeated.
fn credentials_command(flags: &Options, given: &[String]) -> String {
    let secret = flags.client_secret.as_ref().map(|_| "--client-secret-file=<file>".to_owned());
    let words = CREDENTIALS.iter().map(|word| (*word).to_owned());
    let arguments =
        given.iter().cloned().chain(secret).map(|word| format!("--exec-arg={}", shell_word(&csv_field(&word))));
    let mut line = words.chain(arguments).collect::<Vec<_>>().join(" ");
    line.push('\n');
    line
}

/// A value of `--exec-arg` as kubectl reads it back: as a line of CSV (RFC 4180 §2), whose fields are
/// arguments of their own.
fn csv_field(word: &str) -> String {
    if word.contains([',', '"', '\r', '\n']) { format!("\"{}\"", word.replace('"', "\"\"")) } else { word.to_owned() }
}

const NOBODY: &str =
    "run this in a terminal; a client that signs in as itself needs nobody: `--flow client-credentials`";

const CREDENTIALS: &[&str] = &[
    "kubectl config set-credentials oidc",
    "--exec-api-version=client.authentication.k8s.io/v1",
    "--exec-interactive-mode=IfAvailable",
    "--exec-command=kubectl-headlamp",
    "--exec-arg=get-token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_with_commas_or_quotes_stays_one_where_kubectl_reads_it() {
        let given = ["--scope=email,groups", r#"--auth-param=claims={"a":1}"#, "--login-hint=jane"].map(str::to_owned);
        let line = credentials_command(&Options::default(), &given);
        let arguments = r#" --exec-arg='"--scope=email,groups"' --exec-arg='"--auth-param=claims={""a"":1}"' --exec-arg=--login-hint=jane"#;
        assert_eq!(line.trim_end().strip_prefix(&CREDENTIALS.join(" ")), Some(arguments));
    }
}
