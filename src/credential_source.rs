//! Where a credential comes from: read, run, or signed in for, each time anew.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::api_connection::Credential;
use crate::cache::{Entry, Token};
use crate::clock::Clock;
use crate::configured::settings_of_entry;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::exec_plugin;
use crate::id_token;
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::{BearerSource, CertificateSource, InteractiveMode, Pem, PluginEntry, Target, UserEntry};
use crate::options::{Interactive, Options};
use crate::secret::Secret;
use crate::session::{self, Session, Wish};
use crate::settings::Settings;
use crate::sign_in::tab::{self, Tab};
use crate::terminal;
use crate::tls::ClientIdentity;
use crate::ui::{StepAside, Ui};

/// Why a credential is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There is none, or it ends soon.
    Due,
    /// The cluster refuses the one with this serial.
    Refused(u64),
    /// A person asks for it, and may be asked.
    Asked,
}

/// The browser tab that a sign-in takes place in, and its end before that of the sign-in.
pub(crate) struct InTab {
    pub(crate) tab: Tab,
    /// Frees the callback's port and the identity's lock at once.
    pub(crate) left: CancellationToken,
}

/// What a source is handed.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) environment: Environment,
    pub(crate) ui: Ui,
    pub(crate) clock: Clock,
}

/// A user's source.
pub(crate) struct Source {
    /// The user's name, for messages.
    user: String,
    cluster: ClusterEntry,
    bearer: Bearer,
    certificate: Option<CertificateSource>,
    surroundings: Surroundings,
    step_aside: StepAside,
}

enum Bearer {
    Fixed(Credential),
    File(PathBuf),
    Headlamp(Box<Settings>),
    Plugin(Box<PluginEntry>),
}

/// A credential, just obtained.
pub(crate) struct Obtained {
    pub(crate) credential: Credential,
    /// The end that its source names.
    pub(crate) ends: Option<Timestamp>,
    /// Its source is a file, to be looked at again after this long.
    pub(crate) look_again: Option<SignedDuration>,
}

/// client-go reads token files this often.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// Between tries, at the most: ours ask nobody, plugins may, and somebody may be away.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(15);
const LONGEST_PLUGIN_PAUSE: SignedDuration = SignedDuration::from_mins(10);

impl Source {
    pub(crate) fn new(target: &Target, surroundings: Surroundings, step_aside: StepAside) -> Result<Self> {
        let UserEntry { name, bearer, certificate, .. } = target.user.clone();
        let user = name.map_or_else(|| "the anonymous user".to_owned(), |name| format!("the user `{name}`"));
        let bearer = match bearer {
            BearerSource::None => Bearer::Fixed(Credential::default()),
            BearerSource::Token(token) => Bearer::Fixed(of_token(token)),
            BearerSource::Basic { username, password } => Bearer::Fixed(Credential {
                subject: Some(format!("basic {username}")),
                basic: Some((username, password)),
                ..Credential::default()
            }),
            BearerSource::File(path) => Bearer::File(path),
            BearerSource::Headlamp(user) => {
                Bearer::Headlamp(Box::new(settings_of_entry(&user, &Options::default(), &surroundings.environment)?))
            }
            BearerSource::Plugin(entry) => Bearer::Plugin(entry),
            BearerSource::Unsupported(way) => {
                return Err(Error::settings(format!("{user} signs in with {way}"))
                    .hint("give the user an `exec` entry: `kubectl headlamp login --help` shows one"));
            }
        };
        Ok(Self { user, cluster: target.cluster.clone(), bearer, certificate, surroundings, step_aside })
    }

    /// Whether it costs no more than reading a file.
    pub(crate) fn is_quick(&self) -> bool {
        matches!(self.bearer, Bearer::Fixed(_) | Bearer::File(_))
    }

    pub(crate) fn can_sign_in(&self) -> bool {
        !self.is_quick()
    }

    /// Whether a person signs in by way of a browser tab that there is already.
    pub(crate) fn signs_in_in_a_tab(&self) -> bool {
        matches!(&self.bearer, Bearer::Headlamp(settings) if tab::serves(settings))
    }

    pub(crate) fn longest_pause(&self) -> SignedDuration {
        if matches!(self.bearer, Bearer::Plugin(_)) { LONGEST_PLUGIN_PAUSE } else { LONGEST_PAUSE }
    }

    /// The error where whoever has to be asked has not answered yet.
    pub(crate) fn not_finished(&self) -> Error {
        let (message, hint) = match &self.bearer {
            Bearer::Plugin(entry) => (
                format!("`{}`, which signs you in, has not finished", entry.command),
                "look at the terminal of `kubectl headlamp open`, or for a tab of your browser",
            ),
            _ => ("the sign-in has not finished".to_owned(), "finish it in the browser"),
        };
        Error::new(Kind::SignInNeeded, message).hint(hint)
    }

    /// The error where the cluster refuses what there is, and there is nothing else.
    pub(crate) fn refused(&self) -> Error {
        let (what, hint) = match &self.bearer {
            Bearer::Plugin(entry) => (
                format!("whatever `{}` gives", entry.command),
                "is it meant for this cluster? `kubectl auth whoami` shows what the cluster makes of it",
            ),
            Bearer::Headlamp(_) => ("the token".to_owned(), "`kubectl headlamp status` shows it"),
            Bearer::File(path) => {
                (format!("the token in `{}`", path.display()), "whatever writes it has not renewed it")
            }
            Bearer::Fixed(_) => (
                format!("the credential of {}", self.user),
                "get a new kubeconfig from where this one came from, and start again",
            ),
        };
        Error::new(Kind::Other, format!("the cluster refuses {what}")).hint(hint)
    }

    /// A credential; `held` is the one that there is. `in_tab` only where [`Source::signs_in_in_a_tab`].
    pub(crate) async fn obtain(&self, why: Why, held: Option<&Credential>, in_tab: Option<InTab>) -> Result<Obtained> {
        match &self.bearer {
            Bearer::Fixed(fixed) => self.read(fixed.clone(), self.certificate_is_a_file()),
            Bearer::File(path) => {
                let token = std::fs::read_to_string(path).map_err(|error| self.unreadable(path).caused_by(&error))?;
                let token = token.trim();
                if token.is_empty() {
                    return Err(self.unreadable(path).cause("it is empty"));
                }
                self.read(of_token(Secret::new(token)), true)
            }
            Bearer::Plugin(entry) => self.run(entry).await,
            Bearer::Headlamp(settings) => self.token(settings, why, held, in_tab).await,
        }
    }

    fn read(&self, credential: Credential, look_again: bool) -> Result<Obtained> {
        let certificate = self.certificate.as_ref().map(|source| self.identity(source)).transpose()?;
        let credential = with_certificate(credential, certificate);
        Ok(Obtained { credential, ends: None, look_again: look_again.then_some(LOOK_AGAIN) })
    }

    fn certificate_is_a_file(&self) -> bool {
        let file = |pem: &Pem| matches!(pem, Pem::File(_));
        self.certificate.as_ref().is_some_and(|source| file(&source.certificate) || file(&source.key))
    }

    fn identity(&self, source: &CertificateSource) -> Result<ClientIdentity> {
        let (certificate, key) = (self.pem(&source.certificate)?, self.pem(&source.key)?);
        let wrong =
            |what: &str| Error::settings(format!("the client certificate of {} cannot be used", self.user)).cause(what);
        ClientIdentity::from_pem(certificate.expose().as_bytes(), &key).map_err(wrong)
    }

    fn pem(&self, pem: &Pem) -> Result<Secret> {
        let wrong = || Error::settings(format!("the client certificate of {} cannot be used", self.user));
        match pem {
            Pem::File(path) => {
                std::fs::read_to_string(path).map(Secret::new).map_err(|error| self.unreadable(path).caused_by(&error))
            }
            Pem::Data(data) => {
                let bytes =
                    STANDARD.decode(data.expose().trim()).map_err(|_| wrong().cause("its data is not base64"))?;
                String::from_utf8(bytes).map(Secret::new).map_err(|_| wrong().cause("its data is not in PEM format"))
            }
        }
    }

    fn unreadable(&self, path: &Path) -> Error {
        Error::settings(format!("cannot read `{}`, which {} is known by", path.display(), self.user))
    }

    async fn run(&self, entry: &PluginEntry) -> Result<Obtained> {
        let Surroundings { environment, ui, .. } = &self.surroundings;
        let stdin = entry.interactive_mode != InteractiveMode::Never && terminal::stdin_may_be_read(true);
        ui.step(format!("running `{}`", entry.command));
        let aside = (self.step_aside)();
        let answer = exec_plugin::run(entry, &self.cluster, environment, stdin).await;
        drop(aside);
        let exec_plugin::Answer { token, certificate, expires } = answer?;
        let credential = with_certificate(token.map(of_token).unwrap_or_default(), certificate);
        let credential = Credential { expires: expires.or(credential.expires), ..credential };
        Ok(Obtained { credential, ends: expires, look_again: None })
    }

    /// A token of our own. What another process has obtained meanwhile is taken first.
    async fn token(
        &self,
        settings: &Settings,
        why: Why,
        held: Option<&Credential>,
        in_tab: Option<InTab>,
    ) -> Result<Obtained> {
        let now = self.surroundings.clock.now();
        let known = held.and_then(|held| held.bearer.as_ref());
        if let Some(token) = session::cached(settings, now)?.filter(|token| Some(&token.value) != known) {
            return Ok(ours(token));
        }
        let (settings, wish) = match why {
            Why::Asked => (settings.clone(), Wish::SignedIn),
            _ if held.is_none() => (asking_nobody(settings), Wish::Valid),
            _ => (asking_nobody(settings), Wish::Refreshed),
        };
        let issuer = settings.identity.issuer.clone();
        let asked_nobody = settings.interactive == Interactive::Never;
        // Without a tab whoever is asked reads and types in the terminal.
        let _aside = (why == Why::Asked && in_tab.is_none()).then(|| (self.step_aside)());
        match signed_in(settings, self.cluster.name.clone(), self.surroundings.clone(), wish, in_tab).await {
            Ok((token, _)) => Ok(ours(token)),
            Err(error) if error.kind() == Kind::SignInNeeded && asked_nobody => {
                Err(Error::new(Kind::SignInNeeded, format!("you need to sign in to `{issuer}` again")))
            }
            Err(error) => Err(error),
        }
    }
}

fn asking_nobody(settings: &Settings) -> Settings {
    Settings { interactive: Interactive::Never, ..settings.clone() }
}

/// Runs a session on a thread of its own: its parts are made for one thread, and what they compute
/// does not hold up the requests of others.
async fn signed_in(
    settings: Settings,
    cluster: String,
    surroundings: Surroundings,
    wish: Wish,
    in_tab: Option<InTab>,
) -> Result<(Token, Entry)> {
    let (tab, left) = in_tab.map(|in_tab| (in_tab.tab, in_tab.left)).unzip();
    let left = left.unwrap_or_default();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Error::new(Kind::Other, "cannot wait for the network").caused_by(&error))?;
        let Surroundings { environment, ui, clock } = surroundings;
        let session = Session {
            settings: &settings,
            ui,
            environment: &environment,
            clock,
            interactive: None,
            cluster: Some(&cluster),
            tab: tab.as_ref(),
        };
        let result = runtime.block_on(async {
            tokio::select! {
                result = session::token(session, wish) => result,
                () = left.cancelled() => Err(tab::left()),
            }
        });
        // Closes the sockets that the listener's tasks hold.
        runtime.shutdown_background();
        result
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::bug("a sign-in ended without a result")))
}

fn ours(token: Token) -> Obtained {
    let ends = Some(token.expires);
    let credential = Credential { expires: ends, ..of_token(token.value) };
    Obtained { credential, ends, look_again: None }
}

/// A bearer token and what it says of itself, if it is a JWT.
fn of_token(token: Secret) -> Credential {
    let expires = id_token::read_untrusted(&token).and_then(|claims| claims.expires);
    Credential { subject: subject_of_jwt(&token), expires, ..Credential::bearer(token) }
}

fn subject_of_jwt(token: &Secret) -> Option<String> {
    let claims = id_token::read_untrusted(token)?;
    Some(format!("{} {}", claims.issuer?, claims.person?.subject))
}

/// A certificate is asked first by API servers, so its subject counts.
fn with_certificate(credential: Credential, certificate: Option<ClientIdentity>) -> Credential {
    let Some(certificate) = certificate else { return credential };
    let subject = certificate.subject();
    Credential { subject, certificate: Some(certificate), ..credential }
}
