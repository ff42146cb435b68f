//! One readable function per flow. This file decides which one, and whether anybody is there for it.

pub(crate) mod client_credentials;
pub(crate) mod device;
pub(crate) mod in_browser;
pub(crate) mod password;
pub(crate) mod paste;
pub(crate) mod tab;

use std::cell::Cell;

use crate::browser::{self, Opener};
use crate::callback;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::oidc::{Client, GrantError, Provider, Reply};
use crate::options::{Flow, Interactive, ProviderKind};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::terminal;
use crate::ui::Ui;

pub(crate) use tab::Tab;

/// What every flow is handed.
#[derive(Clone, Copy)]
pub(crate) struct SignIn<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) provider: &'a Provider,
    pub(crate) client: &'a Client<'a>,
    pub(crate) ui: Ui,
    pub(crate) environment: &'a Environment,
    pub(crate) presence: Presence,
    /// The tab that the person waits in, if that is where to sign in.
    pub(crate) tab: Option<&'a Tab>,
    /// What the provider demands of the next sign-in (its `claims` challenge), if it does.
    pub(crate) claims: Option<&'a str>,
    /// Becomes true once a person is asked for something, or a password is refused: accounts are locked
    /// for that. Neither is repeated at once.
    pub(crate) asked: &'a Cell<bool>,
}

/// What a flow brings: the provider's reply, not verified yet.
pub(crate) struct Grant {
    pub(crate) reply: Reply,
    /// The nonce that the ID token must hold.
    pub(crate) nonce: Option<Secret>,
    /// The browser that waits to be told how it ended.
    pub(crate) page: Option<callback::Reply>,
}

/// Who can be asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    /// stdin may be read: kubectl allows it, it is a terminal, and we are in its foreground.
    pub(crate) stdin: bool,
    /// What we write can be seen.
    pub(crate) sees: bool,
    /// It is seen only when written to the terminal itself: stderr leads elsewhere.
    pub(crate) terminal_too: bool,
}

impl Presence {
    /// `interactive` is kubectl's word on stdin; `None` where nobody but a person runs us.
    pub(crate) fn of(interactive: Option<bool>, settings: &Settings, ui: Ui) -> Self {
        let seen = terminal::can_be_seen(ui);
        match settings.interactive {
            Interactive::Never => Self { stdin: false, sees: false, terminal_too: false },
            wanted => Self {
                stdin: terminal::stdin_may_be_read(interactive.unwrap_or(true)),
                sees: seen || wanted == Interactive::Always,
                terminal_too: seen && !ui.stderr_is_terminal(),
            },
        }
    }
}

/// A flow that can be gone through here and now.
pub(crate) enum Way {
    Tab(Tab),
    /// `None`: a person opens the address that is printed.
    Browser(Option<Opener>),
    Device,
    /// No browser can be shown here, for this reason: the provider decides between the two above and below.
    WithoutBrowser(String),
    Paste,
    Password,
    ClientCredentials,
}

/// Signs in this way, within the settings' time limit: those who wait for us count on it.
pub(crate) async fn sign_in(context: SignIn<'_>, way: Way) -> Result<Grant> {
    tokio::time::timeout(context.settings.timeout, go(context, way)).await.map_err(|_| timed_out(context.settings))?
}

async fn go(context: SignIn<'_>, way: Way) -> Result<Grant> {
    match way {
        Way::Tab(tab) => tab::sign_in(context, &tab).await,
        Way::WithoutBrowser(reason) if without_browser(context, &reason)? => device::sign_in(context).await,
        Way::Browser(opener) => in_browser::sign_in(context, opener).await,
        Way::Device => device::sign_in(context).await,
        Way::WithoutBrowser(_) | Way::Paste => paste::sign_in(context).await,
        Way::Password => password::sign_in(context).await,
        Way::ClientCredentials => client_credentials::sign_in(context).await,
    }
}

/// Which flow can be gone through here, as far as that can be told without the provider.
pub(crate) fn way(
    settings: &Settings,
    environment: &Environment,
    presence: Presence,
    tab: Option<&Tab>,
) -> Result<Way> {
    if let Some(tab) = tab {
        return Ok(Way::Tab(tab.clone()));
    }
    let opener = || browser::find(&settings.browser, settings.interactive, environment);
    let printed = settings.browser.never && presence.sees;
    let password = || password::check(settings, presence).map(|()| Way::Password);
    match settings.flow {
        Flow::ClientCredentials => Ok(Way::ClientCredentials),
        Flow::Password => password(),
        Flow::Browser if printed => Ok(Way::Browser(None)),
        Flow::Browser => match opener() {
            Ok(opener) => Ok(Way::Browser(Some(opener))),
            Err(_) if presence.sees => Ok(Way::Browser(None)),
            Err(reason) => Err(nobody(settings, &reason)),
        },
        Flow::Device if presence.sees => Ok(Way::Device),
        Flow::Device => Err(nobody(settings, "nobody can see the code that is to be typed in elsewhere")),
        Flow::Paste if presence.sees && presence.stdin => Ok(Way::Paste),
        Flow::Paste => Err(nobody(
            settings,
            "nobody can paste the answer: standard input may not be read, or is no terminal in the foreground",
        )),
        Flow::Auto if settings.username.is_some() => password(),
        Flow::Auto if settings.interactive == Interactive::Never => {
            Err(nobody(settings, "`--interactive=never` is set"))
        }
        Flow::Auto if printed => Ok(Way::Browser(None)),
        Flow::Auto => match opener() {
            Ok(opener) => Ok(Way::Browser(Some(opener))),
            Err(reason) if presence.sees => Ok(Way::WithoutBrowser(reason)),
            Err(reason) => Err(nobody(settings, &reason)),
        },
    }
}

/// Whether it is the device flow, where discovery offers it, and not paste. Entra ID: paste first,
/// because many tenants block device codes and the tutorial's registration is refused them.
fn without_browser(context: SignIn<'_>, reason: &str) -> Result<bool> {
    let SignIn { settings, presence, .. } = context;
    let entra = settings.provider == ProviderKind::Entra;
    let device = match (context.provider.device_endpoint(), presence.stdin) {
        (true, paste) => !(paste && entra),
        (false, true) => false,
        (false, false) => return Err(nobody(settings, reason)),
    };
    context.ui.note(format!("signing in without a browser on this machine: {reason}"));
    Ok(device)
}

/// Exit code 3: a person is needed, and none can be asked.
fn nobody(settings: &Settings, reason: &str) -> Error {
    Error::new(
        Kind::SignInNeeded,
        format!("you are not signed in to `{}`, and nobody can be asked", settings.identity.issuer),
    )
    .cause(reason)
}

/// A grant that failed, as an error.
pub(crate) fn failure(error: GrantError, what: &str, settings: &Settings) -> Error {
    match error {
        GrantError::Refused(refusal) => refusal.explained(what, settings),
        GrantError::Failed(error) => error,
    }
}

/// The end of a sign-in that took too long.
pub(crate) fn timed_out(settings: &Settings) -> Error {
    let seconds = settings.timeout.as_secs();
    Error::sign_in_failed(format!("the sign-in to `{}` was not finished within {seconds} s", settings.identity.issuer))
        .hint("try again; `--timeout 10m` leaves more time")
}
