//! `open` (`dashboard`): Headlamp in the browser, signed in as kubectl is.

mod as_headlamp;
mod as_kubectl;
mod showing;

use std::iter;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, ValueEnum};
use url::Url;

use super::{block_on, shell_word};
use crate::api_server::Review;
use crate::clock::Clock;
use crate::cluster_client::ClusterClient;
use crate::configured::settings_of_entry;
use crate::credential_source::Surroundings;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::gateway_request;
use crate::headlamp::Headlamp;
use crate::headlamp_choice::{self, Person};
use crate::headlamp_search::Wanted;
use crate::kubeconfig;
use crate::kubeconfig_flags::{ClusterArguments, duration};
use crate::kubeconfig_user::{BearerSource, Target};
use crate::loopback::is_loopback;
use crate::open_state::{Choice, OpenState};
use crate::options::{self, Interactive, Options};
use crate::pod_http::Connect;
use crate::port_forward::PortForward;
use crate::settings::{BrowserSettings, CallbackPlace, Settings};
use crate::status_line::{Status, StatusLine};
use crate::ui::Ui;
use showing::Showing;

/// Opens Headlamp, the Kubernetes web UI, signed in as kubectl is
///
/// Finds the Headlamp that runs in the cluster and opens it in your browser. The page's files come from its pod through a port-forward; what
/// the page asks of the Kubernetes API is answered from here, with the credential that kubectl would use. Neither the pod nor the browser
/// ever sees that credential. Stays until Ctrl-C, renews the credential, and reconnects by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl headlamp open
  kubectl headlamp open --context staging --path /c/main/pods
  kubectl headlamp open -n tools --service my-headlamp
  kubectl headlamp open --as jane --as-group developers
  kubectl headlamp open --no-browser
  kubectl headlamp open --sign-in headlamp

What the page cannot do here, and what to type instead:
  drain a node        kubectl drain NODE --ignore-daemonsets
  forward a port      kubectl port-forward POD LOCAL:REMOTE
  Helm releases       helm")]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The Service that leads to Headlamp [default: found by its labels, asked for once, and remembered]
    #[arg(long, value_name = "NAME", help_heading = "Headlamp")]
    service: Option<String>,
    /// The Service's port, by name or number [default: `http`, or the only one]
    #[arg(long, value_name = "PORT", help_heading = "Headlamp")]
    service_port: Option<String>,
    /// Take the page's files from this folder, a built Headlamp frontend, and not from the cluster
    #[arg(long, value_name = "DIR", help_heading = "Headlamp")]
    ui: Option<PathBuf>,
    /// Who signs in: kubectl's credential, or Headlamp itself by its own button, on port 8000
    #[arg(long, value_enum, value_name = "WHO", default_value = "kubectl", help_heading = "Headlamp")]
    sign_in: Who,
    /// An origin that the page may load from and speak to besides its own (repeatable)
    #[arg(long, value_name = "ORIGIN", help_heading = "Headlamp")]
    allow_origin: Vec<String>,
    /// The local port [default: one that stays the same for each Headlamp]
    #[arg(long, value_name = "PORT", help_heading = "Local server")]
    port: Option<u16>,
    /// Listen at this address too; beyond loopback only with `--expose-to-network`
    #[arg(long, value_name = "ADDRESS", help_heading = "Local server")]
    address: Option<IpAddr>,
    /// Let other machines reach the page at `--address`, unencrypted
    #[arg(long, help_heading = "Local server")]
    expose_to_network: bool,
    /// Where in the page to begin, such as /c/main/pods
    #[arg(long, value_name = "PATH", help_heading = "Browser")]
    path: Option<String>,
    /// Open no browser: print the address
    #[arg(long, help_heading = "Browser")]
    no_browser: bool,
    /// The command that opens a browser; the address is its last argument, or stands where `%s` does
    #[arg(long, value_name = "COMMAND", help_heading = "Browser")]
    browser_command: Option<String>,
    /// How long until the page must be there, in seconds or as 90s, 5m; a sign-in has a time of its own
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: String,
    /// Tell more: each request; never a secret
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "1", value_name = "LEVEL")]
    verbose: Option<u8>,
}

/// Who signs in to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// The user of the kubeconfig, as for kubectl.
    Kubectl,
    /// Headlamp, by its own `Sign In` button: a plain port-forward on port 8000.
    Headlamp,
}

/// The flags as they were typed, for hints: without a token.
pub(crate) fn given(matches: &ArgMatches) -> Vec<String> {
    let command = Arguments::augment_args(Command::new("open"));
    options::words(&command, matches, &["token", "verbose"])
}

/// `given` are the flags as they were typed.
pub(crate) fn run(
    arguments: &Arguments,
    given: &[String],
    ui: Ui,
    environment: &Environment,
    clock: Clock,
) -> Result<()> {
    let ui = ui.at(arguments.verbose.unwrap_or_default());
    arguments.check()?;
    let flags = &arguments.cluster;
    let kubeconfig = kubeconfig::load(flags.kubeconfig.kubeconfig.as_deref(), environment)?;
    let target = kubeconfig.target(&flags.kubeconfig.selection(), &flags.overrides())?;
    let own_entry = own_entry(&target, environment)?;
    let callbacks = own_entry.as_ref().map(callbacks).unwrap_or_default();
    arguments.check_port(&callbacks)?;
    let question_limit = flags.request_timeout()?;
    let limit = duration("--timeout", &arguments.timeout)?;
    block_on(async {
        let line = StatusLine::start(ui);
        let surroundings = Surroundings { environment: arguments.over(environment), ui, clock };
        let client = ClusterClient::new(&target, surroundings, line.step_aside(), question_limit)?;
        let (again, elsewhere) = (command(given.iter()), command(given.iter().filter(|word| !chooses(word))));
        let open = Open {
            arguments,
            again,
            elsewhere,
            target: &target,
            own_entry,
            callbacks,
            client,
            line,
            limit,
            ui,
            environment,
            clock,
        };
        match arguments.sign_in {
            Who::Kubectl => Box::pin(as_kubectl::run(&open)).await,
            Who::Headlamp => as_headlamp::run(&open).await,
        }
    })
}

/// This command with these flags, for a shell.
fn command<'a>(given: impl Iterator<Item = &'a String>) -> String {
    let words = iter::once("kubectl headlamp open".to_owned()).chain(given.map(|word| shell_word(word)));
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a flag says which Headlamp is meant.
fn chooses(word: &str) -> bool {
    ["--namespace=", "--service="].iter().any(|flag| word.starts_with(flag))
}

impl Arguments {
    fn check(&self) -> Result<()> {
        if self.address.is_some_and(|address| address.is_unspecified()) {
            return Err(Error::usage("`--address` stands for every address of this machine")
                .hint("name one of them: the browser has to say which it came to"));
        }
        if self.address.is_some_and(|address| !address.is_loopback()) && !self.expose_to_network {
            return Err(Error::usage("`--address` is not an address of this machine alone")
                .cause("what is sent there is not encrypted: whoever reads it can act as you")
                .hint("add `--expose-to-network` if that is what you want"));
        }
        if let Some(path) = &self.path {
            gateway_request::check_page_path(path)?;
        }
        if self.sign_in == Who::Kubectl {
            return Ok(());
        }
        let alone = [("ui", self.ui.is_some()), ("address", self.address.is_some())];
        match alone.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::usage(format!("`--{flag}` does not go with `--sign-in headlamp`"))
                .cause("there everything comes from the pod, to this machine alone")),
            None => Ok(()),
        }
    }

    fn check_port(&self, callbacks: &[Callback]) -> Result<()> {
        match self.port {
            Some(port) if self.sign_in == Who::Kubectl && is_reserved(port, callbacks) => {
                Err(Error::usage(format!("`--port {port}` is the port of sign-ins"))
                    .cause("a page that was once served there could read the answers of later sign-ins")
                    .hint("take another one, or none: `open` finds one"))
            }
            _ => Ok(()),
        }
    }

    /// What is said of the browser holds for a sign-in too, unless the kubeconfig's entry says otherwise.
    fn over(&self, environment: &Environment) -> Environment {
        let never = self.no_browser.then(|| ("KUBECTL_HEADLAMP_NO_BROWSER".to_owned(), "true".to_owned()));
        let command =
            self.browser_command.clone().map(|command| ("KUBECTL_HEADLAMP_BROWSER_COMMAND".to_owned(), command));
        environment.overlaid(never.into_iter().chain(command))
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            namespace: self.cluster.namespace.clone().filter(|namespace| !namespace.is_empty()),
            service: self.service.clone(),
            service_port: self.service_port.clone(),
        }
    }
}

/// The usual port of sign-ins, and the tutorial's port-forward's.
const SIGN_IN_PORT: u16 = 8000;

/// How often the status line looks.
const LOOK: Duration = Duration::from_millis(500);

/// Where a sign-in of the kubeconfig's user comes back to: the port that the browser goes to, and the one
/// that we listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Callback {
    redirect: u16,
    listen: u16,
}

/// How the kubeconfig's user signs in, if with an entry of ours.
fn own_entry(target: &Target, environment: &Environment) -> Result<Option<Settings>> {
    let BearerSource::Headlamp(user) = &target.user.bearer else { return Ok(None) };
    settings_of_entry(user, &Options::default(), environment).map(Some)
}

/// One at any port that is free is not known yet.
fn callbacks(settings: &Settings) -> Vec<Callback> {
    let callback = |place: &CallbackPlace| {
        let local = Url::parse(&place.redirect).ok().filter(is_loopback);
        let redirect = local.and_then(|redirect| redirect.port_or_known_default()).unwrap_or(place.port);
        Callback { redirect, listen: place.port }
    };
    settings.callback.places.iter().filter(|place| place.port != 0).map(callback).collect()
}

/// Whether no page of a cluster may ever have this port: it is a sign-in's.
fn is_reserved(port: u16, callbacks: &[Callback]) -> bool {
    port == SIGN_IN_PORT || callbacks.iter().any(|callback| [callback.redirect, callback.listen].contains(&port))
}

/// One run.
struct Open<'a> {
    arguments: &'a Arguments,
    /// The command that does the same again.
    again: String,
    /// The same but for the choice of a Headlamp, which is to follow.
    elsewhere: String,
    target: &'a Target,
    own_entry: Option<Settings>,
    callbacks: Vec<Callback>,
    client: ClusterClient,
    line: StatusLine,
    /// For everything that must be there before the page is.
    limit: Duration,
    ui: Ui,
    environment: &'a Environment,
    clock: Clock,
}

impl Open<'_> {
    fn progress(&self, what: &str) {
        self.line.show(Status::Progress(what.to_owned()));
    }

    /// Knows whom the cluster takes us for, or why it refuses us. A person may be asked.
    async fn review(&self) -> Result<()> {
        self.progress("asking the cluster who you are");
        let review = match self.client.review().await {
            Err(error) if error.kind() == Kind::SignInNeeded && self.client.can_sign_in() => {
                self.progress("waiting for you to sign in");
                self.client.sign_in(None).await?;
                self.client.review().await?
            }
            review => review?,
        };
        match review {
            Review::Known(_) => Ok(()),
            Review::Accepted(why) => {
                self.ui.detail(1, why);
                Ok(())
            }
            Review::Refused(error) => Err(error),
        }
    }

    /// Finds the Headlamp that is meant, and remembers it.
    async fn headlamp(&self, state: &mut OpenState) -> Result<Headlamp> {
        self.progress("looking for Headlamp");
        let remembered = state.choice.clone().map(|choice| Wanted {
            namespace: Some(choice.namespace),
            service: Some(choice.name),
            service_port: choice.port,
        });
        let chosen = headlamp_choice::choose(
            &self.client.kube(),
            &self.arguments.wanted(),
            remembered.as_ref(),
            self.target.namespace.as_deref(),
            Person::at_the_terminal(self.ui, self.line.step_aside()),
            &self.elsewhere,
            self.limit,
        )
        .await?;
        if let Some(Wanted { namespace: Some(namespace), service: Some(name), service_port: port }) = chosen.remember {
            state.choice = Some(Choice { namespace, name, port });
        }
        for warning in &chosen.headlamp.warnings {
            self.ui.warning(warning);
        }
        Ok(chosen.headlamp)
    }

    fn showing(&self) -> Showing<'_> {
        let settings = BrowserSettings {
            command: self.arguments.browser_command.clone(),
            never: self.arguments.no_browser,
            hide_url: true,
        };
        Showing { settings, interactive: Interactive::Auto, environment: self.environment, ui: self.ui }
    }
}

/// Makes streams to the pods.
fn connect(forward: &PortForward) -> Connect {
    let forward = forward.clone();
    Arc::new(move || {
        let forward = forward.clone();
        Box::pin(async move { forward.connect().await })
    })
}

#[cfg(test)]
mod tests;
