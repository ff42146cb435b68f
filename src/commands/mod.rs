//! One file per verb: its arguments, whose doc comments are its help, and its `run`.

pub(crate) mod get_token;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod open;
pub(crate) mod status;

use std::future::Future;

use crate::cache::Key;
use crate::configured::settings_of_entry;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::kubeconfig::{self, ExecUser};
use crate::options::Options;
use crate::settings::{Identity, Settings, Subject};
use crate::ui::Ui;

/// Runs what needs the network to its end, or until Ctrl-C, SIGTERM or SIGHUP: then it is dropped where
/// it stands, which frees its ports and locks.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Other, "cannot wait for the network").caused_by(&error))?;
    let result = runtime.block_on(async {
        // Signals first: work begins when Ctrl-C can no longer end us with the terminal in its mode.
        tokio::select! {
            biased;
            error = interrupted() => Err(error),
            result = work => result,
        }
    });
    // A look-up of a name that still runs must not hold up the end.
    runtime.shutdown_background();
    result
}

#[cfg(unix)]
async fn interrupted() -> Error {
    use tokio::signal::unix::{SignalKind, signal};
    let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Error::new(Kind::Interrupted, "interrupted")
}

#[cfg(not(unix))]
async fn interrupted() -> Error {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Error::new(Kind::Interrupted, "interrupted"),
        Err(_) => std::future::pending().await,
    }
}

/// Tells what was configured and is not honoured, and what is dangerous.
pub(crate) fn tell_notes(settings: &Settings, ui: Ui) {
    for note in &settings.notes {
        ui.note(note);
    }
    if settings.connection.insecure_skip_tls_verify {
        ui.warning("the provider's certificate is not verified: anyone on the way can take your tokens (`--insecure-skip-tls-verify`)");
    }
}

/// The command that signs in to this identity, as short as the kubeconfig allows.
pub(crate) fn login_command(settings: &Settings, environment: &Environment) -> String {
    let same = |entry: &Settings| {
        Key::of(&entry.identity) == Key::of(&settings.identity) && entry.cache.folder == settings.cache.folder
    };
    let configured = kubeconfig::load(None, environment).ok().and_then(|kubeconfig| {
        let mut users = kubeconfig.exec_users().into_iter();
        users.find(|user| settings_of_entry(user, &Options::default(), environment).is_ok_and(|entry| same(&entry)))
    });
    match configured {
        Some(ExecUser { context: Some(context), .. }) => {
            format!("kubectl headlamp login --context {}", shell_word(&context))
        }
        Some(user) => format!("kubectl headlamp login --user {}", shell_word(&user.name)),
        None => {
            let elsewhere =
                settings.cache.folder.as_ref().filter(|folder| Some(*folder) != environment.state_folder().as_ref());
            let folder = elsewhere.map(|folder| format!(" --cache-dir {}", shell_word(&folder.display().to_string())));
            format!("kubectl headlamp login{}{}", identity_flags(&settings.identity), folder.unwrap_or_default())
        }
    }
}

/// The flags that mean this identity and no other, each after a space.
fn identity_flags(identity: &Identity) -> String {
    let Identity { issuer, client_id, scopes, resources, auth_params, login_hint, subject, tls_verified } = identity;
    let mut flags = vec![("issuer-url", issuer.clone()), ("client-id", client_id.clone())];
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).filter(|scope| *scope != "openid").collect();
    flags.extend((!scopes.is_empty()).then(|| ("scope", scopes.join(","))));
    flags.extend(resources.iter().map(|resource| ("resource", resource.clone())));
    flags.extend(auth_params.iter().map(|(name, value)| ("auth-param", format!("{name}={value}"))));
    flags.extend(login_hint.clone().map(|hint| ("login-hint", hint)));
    flags.extend((*subject == Subject::Client).then(|| ("flow", "client-credentials".to_owned())));
    let mut words: Vec<String> = flags.iter().map(|(flag, value)| format!(" --{flag} {}", shell_word(value))).collect();
    words.extend((!tls_verified).then(|| " --insecure-skip-tls-verify".to_owned()));
    words.concat()
}

/// A word as a POSIX shell reads it back.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:@=,+%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_the_shell_needs_it() {
        assert_eq!(shell_word("https://id.example.com/realms/dev"), "https://id.example.com/realms/dev");
        assert_eq!(shell_word("a b'c"), r"'a b'\''c'");
        assert_eq!(shell_word(""), "''");
    }
}
