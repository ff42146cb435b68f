//! Waiting for an identity's lock while another process signs in or refreshes.

use std::time::Duration;

use jiff::Timestamp;

use crate::cache::{Cache, Holder, Key, Lock, Locked};
use crate::clock::in_words;
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;
use crate::wish::Session;

/// What the lock of a sign-in is for; those who wait are told.
pub(crate) const SIGN_IN: &str = "sign-in";
/// Likewise, where no person is needed.
pub(crate) const REFRESH: &str = "refresh";

/// What waiting ended with.
pub(crate) enum Waited<T> {
    Lock(Lock),
    /// Another process has done what the lock was wanted for.
    Done(T),
}

/// Takes the lock of an identity, for this purpose. A holder is waited for no longer than its sign-in
/// may take, and `done` is asked meanwhile whether that is still needed.
pub(crate) async fn wait_for_lock<T>(
    session: Session<'_>,
    cache: &Cache,
    key: &Key,
    purpose: &str,
    done: impl Fn() -> Result<Option<T>>,
) -> Result<Waited<T>> {
    let Session { settings, ui, clock, .. } = session;
    let deadline = tokio::time::Instant::now() + settings.timeout + GRACE;
    let mut tell_at = tokio::time::Instant::now() + SILENCE;
    loop {
        let holder = match cache.lock(key, purpose, clock.now())? {
            Locked::Mine(lock) => return Ok(Waited::Lock(lock)),
            Locked::Held(holder) => holder,
        };
        if let Some(done) = done()? {
            return Ok(Waited::Done(done));
        }
        let now = tokio::time::Instant::now();
        if now >= deadline {
            return Err(gave_up(settings, holder.as_ref(), clock.now()));
        }
        if now >= tell_at {
            ui.note(format!("waiting for {}", told(holder.as_ref(), clock.now())));
            tell_at = now + REMINDER;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn told(holder: Option<&Holder>, now: Timestamp) -> String {
    match holder {
        Some(holder) => {
            let ago = in_words(now.duration_since(holder.since));
            format!("the {} of process {}, begun {ago} ago", holder.purpose, holder.pid)
        }
        None => "another process".to_owned(),
    }
}

fn gave_up(settings: &Settings, holder: Option<&Holder>, now: Timestamp) -> Error {
    let issuer = &settings.identity.issuer;
    let error = Error::new(Kind::Other, format!("the tokens of `{issuer}` are in use: another process did not finish"))
        .cause(format!("waited for {}", told(holder, now)));
    match holder {
        Some(holder) if holder.purpose == SIGN_IN => {
            error.hint(format!("finish that sign-in in its browser tab, or end it: `kill {}`", holder.pid))
        }
        Some(holder) => error.hint(format!("end it, then repeat your command: `kill {}`", holder.pid)),
        None => error.hint("end the other `kubectl-headlamp`, then repeat your command"),
    }
}

/// How long waiting goes on after a sign-in's time limit: a holder may have to refresh first, and each
/// of its requests has a limit of its own.
const GRACE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Most refreshes end sooner: nothing is said of them.
const SILENCE: Duration = Duration::from_secs(1);
const REMINDER: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::environment::Environment;
    use crate::{options, settings};

    #[test]
    fn only_a_sign_in_is_said_to_have_a_browser_tab() {
        let words = ["--issuer-url", "https://id.example.com", "--client-id", "c", "--token-storage", "none"];
        let options = options::of_arguments(&words.map(Into::into)).unwrap();
        let settings = settings::resolve(&options, &Environment::default()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let text = |purpose: &str| {
            gave_up(&settings, Some(&Holder { pid: 7, since: now, purpose: purpose.to_owned() }), now).to_string()
        };
        assert!(text(SIGN_IN).contains("waited for the sign-in of process 7, begun 0 s ago"), "{}", text(SIGN_IN));
        assert!(text(SIGN_IN).contains("browser tab"));
        assert!(text(REFRESH).contains("waited for the refresh of process 7"), "{}", text(REFRESH));
        assert!(!text(REFRESH).contains("browser"), "{}", text(REFRESH));
    }
}
