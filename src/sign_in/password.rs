//! User name and password, handed to the provider by us (RFC 6749 §4.3). Deprecated (RFC 9700 §2.4):
//! there for those whose kubeconfig uses it today.

use super::{Grant, Presence, SignIn, failure};
use crate::error::{Error, Kind, Result};
use crate::oidc::{self, GrantError};
use crate::secret::Secret;
use crate::settings::{SecretSource, Settings};
use crate::terminal;

pub(crate) async fn sign_in(context: SignIn<'_>) -> Result<Grant> {
    let settings = context.settings;
    context.ui.warning("the password flow shows your password to this program, and no second factor works with it: use `--flow browser` where you can");
    let username = if let Some(username) = &settings.username {
        username.clone()
    } else {
        context.asked.set(true);
        context.ui.prompt("User name: ", context.presence.terminal_too);
        let line = terminal::read_line().await?.ok_or_else(|| Error::sign_in_failed("no user name was typed in"))?;
        line.expose().trim().to_owned()
    };
    let password = if let Some(password) = settings.password.read("password").await? {
        password
    } else {
        context.asked.set(true);
        terminal::read_password(&format!("Password of {username}: ")).await?
    };
    let reply = oidc::password(context.client, &username, &password).await.map_err(|error| {
        if matches!(error, GrantError::Refused(_)) {
            context.asked.set(true);
        }
        failure(error, "the provider did not accept user name and password", settings)
    })?;
    Ok(Grant { reply, nonce: None, page: None })
}

/// Whether the settings name both, or somebody is there to be asked. Needs no network.
pub(crate) fn check(settings: &Settings, presence: Presence) -> Result<()> {
    let (what, flag) = match (&settings.username, &settings.password) {
        (None, _) => ("user name", "--username"),
        (Some(_), SecretSource::None) => ("password", "--password-file"),
        (Some(_), _) => return Ok(()),
    };
    if presence.stdin && presence.sees {
        return Ok(());
    }
    Err(Error::new(Kind::SignInNeeded, format!("the {what} is not known, and nobody can be asked"))
        .cause("standard input may not be read, or is no terminal in the foreground")
        .hint(format!("give it with `{flag}`")))
}

impl SecretSource {
    /// The secret, if one is configured. `what` names it in errors.
    pub(crate) async fn read(&self, what: &str) -> Result<Option<Secret>> {
        match self {
            Self::None => Ok(None),
            Self::Value(secret) => Ok(Some(secret.clone())),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => non_empty(what, &text).map(Some),
                Err(error) => {
                    Err(Error::settings(format!("cannot read the {what} in `{}`", path.display())).caused_by(&error))
                }
            },
            Self::Command(command) => run(what, command).await.map(Some),
        }
    }
}

/// What a command prints, line end removed. Its stderr is the user's.
async fn run(what: &str, command: &str) -> Result<Secret> {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let output = tokio::process::Command::new(shell)
        .args([flag, command])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            Error::settings(format!("cannot run the command that prints the {what}: `{command}`")).caused_by(&error)
        })?;
    if !output.status.success() {
        return Err(
            Error::settings(format!("the command that prints the {what} failed: `{command}`")).cause(output.status)
        );
    }
    non_empty(what, &String::from_utf8_lossy(&output.stdout))
}

fn non_empty(what: &str, text: &str) -> Result<Secret> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Error::settings(format!("the {what} is empty")));
    }
    Ok(Secret::new(text))
}
