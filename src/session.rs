//! Cached, refreshed or new? The policy of every identity's tokens, and the only holder of their lock.
//!
//! Check, lock, check again, act, write. What a network fault interrupts stays as it was; only the
//! provider's own refusal leads to a new sign-in. A person who was asked to no end is not asked again
//! for a while, whatever the end was; what needs no person is tried all the same.

use std::cell::Cell;

use jiff::{SignedDuration, Timestamp};

use crate::cache::{Cache, Entry, Failure, Found, Key, Lock, Token};
use crate::clock::in_words;
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;
use crate::sign_in::{self, Presence};
use crate::token_source::{Refreshed, TokenSource};
use crate::waiting::{REFRESH, SIGN_IN, Waited, wait_for_lock};
pub(crate) use crate::wish::{Session, Wish};
use crate::wish::{ended, lasts, wanted};

/// The cached token of the wanted type, if it has enough time left. Opens one file.
pub(crate) fn cached(settings: &Settings, now: Timestamp) -> Result<Option<Token>> {
    let Some(folder) = &settings.cache.folder else { return Ok(None) };
    match Cache::at(folder.clone()).read(&Key::of(&settings.identity))? {
        Found::Entry(entry) => Ok(wanted(settings, *entry).filter(|token| lasts(settings, token, now))),
        Found::Absent | Found::Damaged(_) => Ok(None),
    }
}

/// When kubectl is told to ask again: a little before the token's end, for clocks that differ.
pub(crate) fn told_expiry(token: &Token, now: Timestamp) -> Timestamp {
    let early = token.expires.saturating_sub(EXPIRY_MARGIN).unwrap_or(token.expires);
    if early > now { early } else { token.expires }
}

/// A token by whatever it takes. The session's other processes wait, and share what comes of it.
pub(crate) async fn token(session: Session<'_>, wish: Wish) -> Result<(Token, Entry)> {
    let Session { settings, clock, .. } = session;
    let Some(folder) = &settings.cache.folder else {
        return obtained(settings, unshared(session).await?);
    };
    let cache = Cache::at(folder.clone());
    let key = Key::of(&settings.identity);
    let began = clock.now();
    // The holder may have written already and only be showing its page.
    let done = || match cache.read(&key)? {
        Found::Entry(entry) => Ok(shared(session, &entry, wish, began)),
        Found::Absent | Found::Damaged(_) => Ok(None),
    };
    let purpose = if wish == Wish::SignedIn { SIGN_IN } else { REFRESH };
    let lock = match wait_for_lock(session, &cache, &key, purpose, done).await? {
        Waited::Lock(lock) => lock,
        Waited::Done(found) => return Ok(found),
    };
    let entry = match cache.read(&key)? {
        Found::Entry(entry) => Some(*entry),
        Found::Absent => None,
        Found::Damaged(reason) => {
            session.ui.step(format!("the cached tokens cannot be used and will be replaced: {reason}"));
            None
        }
    };
    if let Some(found) = entry.as_ref().and_then(|entry| shared(session, entry, wish, began)) {
        return Ok(found);
    }
    let turn = Turn { session, cache: &cache, key: &key, lock: &lock, wish, began };
    match turn.renew(entry.clone()).await {
        Ok(entry) => obtained(settings, entry),
        Err(error) => turn.tided_over(entry, error),
    }
}

/// A sign-in whose tokens are kept nowhere.
async fn unshared(session: Session<'_>) -> Result<Entry> {
    let way = sign_in::way(session.settings, session.environment, presence(session), session.tab)?;
    TokenSource::begin_anew(session, None).await?.sign_in(way, None, None, &Cell::new(false)).await
}

fn presence(session: Session<'_>) -> Presence {
    Presence::of(session.interactive, session.settings, session.ui)
}

/// The entry's token if it serves this wish: one that lasts, or one that another process has just
/// obtained, even if it ends soon: else each of those who waited would ask the provider anew.
fn shared(session: Session<'_>, entry: &Entry, wish: Wish, began: Timestamp) -> Option<(Token, Entry)> {
    let Session { settings, clock, .. } = session;
    let now = clock.now();
    let token = wanted(settings, entry.clone())?;
    let just_obtained = meanwhile(entry.refreshed, began, now) && !ended(&token, now);
    let serves = match wish {
        Wish::Valid => just_obtained || lasts(settings, &token, now),
        Wish::Refreshed => just_obtained,
        // A tab that waits is content with whoever signs in.
        Wish::SignedIn => session.tab.is_some() && meanwhile(entry.signed_in, began, now) && !ended(&token, now),
    };
    serves.then(|| (token, entry.clone()))
}

/// Whether this was since we began. What lies in the future was before the clock was set back.
fn meanwhile(at: Timestamp, began: Timestamp, now: Timestamp) -> bool {
    began <= at && at <= now
}

/// One process's turn with an identity's tokens, for as long as it holds their lock.
struct Turn<'a> {
    session: Session<'a>,
    cache: &'a Cache,
    key: &'a Key,
    lock: &'a Lock,
    wish: Wish,
    /// When this process began to wait for its turn.
    began: Timestamp,
}

impl<'a> Turn<'a> {
    /// Refreshes if that can serve, signs in if it cannot.
    async fn renew(&self, entry: Option<Entry>) -> Result<Entry> {
        let now = self.session.clock.now();
        let failure = self.cache.failure(self.key).filter(|_| self.wish != Wish::SignedIn);
        if let Some(failure) =
            failure.as_ref().filter(|failure| was_silent(failure) && meanwhile(failure.at, self.began, now))
        {
            return Err(failure.error.clone());
        }
        let refreshable = |entry: &Entry| entry.refresh_token.clone().filter(|_| self.wish != Wish::SignedIn);
        let (entry, refresh_token) = match entry.map(|entry| (refreshable(&entry), entry)) {
            Some((Some(refresh_token), entry)) => (entry, refresh_token),
            Some((None, entry)) => return self.sign_in(None, Some(&entry), None, failure).await,
            None => return self.sign_in(None, None, None, failure).await,
        };
        let refresh = async {
            let mut source = TokenSource::begin(self.session, Some((self.cache, self.key))).await?;
            let refreshed = source.refresh(entry, refresh_token, self.wish).await?;
            Ok((source, refreshed))
        };
        match refresh.await {
            Err(error) => {
                self.remember(&error, false);
                Err(error)
            }
            Ok((_, Refreshed::Entry(entry))) => {
                self.cache.forget_failure(self.key);
                Ok(*entry)
            }
            Ok((source, Refreshed::SignInNeeded { entry, claims, reason })) => {
                self.session.ui.note(format!("you need to sign in again: {reason}"));
                self.sign_in(Some(source), Some(&entry), claims.as_deref(), failure).await
            }
        }
    }

    /// A new sign-in, unless somebody was asked to no end a moment ago. That is only told again: to
    /// remember it anew would make it last for ever.
    async fn sign_in(
        &self,
        source: Option<TokenSource<'a>>,
        before: Option<&Entry>,
        claims: Option<&str>,
        failure: Option<Failure>,
    ) -> Result<Entry> {
        let Session { settings, environment, clock, .. } = self.session;
        if let Some(error) = failure.and_then(|failure| backed_off(failure, self.began, clock.now())) {
            return Err(error);
        }
        // Before the network is needed: nobody there is nobody there, without it too.
        let way = sign_in::way(settings, environment, presence(self.session), self.session.tab)?;
        self.lock.tell(SIGN_IN, clock.now());
        let asked = Cell::new(false);
        let signed_in = async {
            let mut source = match source {
                Some(source) => source,
                None => TokenSource::begin_anew(self.session, Some((self.cache, self.key))).await?,
            };
            let entry = source.sign_in(way, before, claims, &asked).await?;
            Ok((entry, source.not_kept()))
        };
        match signed_in.await {
            Ok((entry, None)) => {
                self.cache.forget_failure(self.key);
                Ok(entry)
            }
            Ok((entry, Some(error))) => {
                self.remember(&error, asked.get());
                Ok(entry)
            }
            Err(error) => {
                self.remember(&error, asked.get());
                Err(error)
            }
        }
    }

    /// Lets those who wait share the failure, and if a person had been asked, those who come soon.
    fn remember(&self, error: &Error, asked: bool) {
        let Some(back_off) = back_off(error.kind(), asked) else { return };
        let at = self.session.clock.now();
        let until = at.saturating_add(back_off).unwrap_or(at);
        if let Err(error) = self.cache.remember_failure(self.key, &Failure { at, until, error: error.clone() }) {
            self.session.ui.step(error.message());
        }
    }

    /// While the provider cannot be reached, the old token serves to its end.
    fn tided_over(&self, entry: Option<Entry>, error: Error) -> Result<(Token, Entry)> {
        let Session { settings, ui, clock, .. } = self.session;
        let now = clock.now();
        let token =
            entry.as_ref().and_then(|entry| wanted(settings, entry.clone())).filter(|token| token.expires > now);
        match (token, entry) {
            (Some(token), Some(entry)) if self.wish == Wish::Valid && error.kind() == Kind::Unreachable => {
                let left = in_words(token.expires.duration_since(now));
                ui.note(format!("the token could not be renewed and is good for another {left}: {}", error.message()));
                Ok((token, entry))
            }
            _ => Err(error),
        }
    }
}

/// For how long after this failure nobody is asked; `None`: it is not even told to those who wait.
fn back_off(kind: Kind, asked: bool) -> Option<SignedDuration> {
    match kind {
        // Another process may have what this one lacked: somebody to ask, or better settings.
        Kind::SignInNeeded | Kind::Interrupted => None,
        _ if asked => Some(BACK_OFF),
        Kind::Usage | Kind::Settings => None,
        Kind::SignInFailed | Kind::Other | Kind::Unreachable | Kind::Bug => Some(SignedDuration::ZERO),
    }
}

/// Whether nobody had been asked.
fn was_silent(failure: &Failure) -> bool {
    failure.until <= failure.at
}

/// The failure of a person's sign-in, told again without asking anybody anew: to those who waited for
/// it, and to those who come before its back-off ends.
fn backed_off(failure: Failure, began: Timestamp, now: Timestamp) -> Option<Error> {
    if meanwhile(failure.at, began, now) {
        return Some(failure.error);
    }
    if now < failure.at || failure.until <= now {
        return None;
    }
    let ago = in_words(now.duration_since(failure.at));
    let wait = in_words(failure.until.duration_since(now));
    Some(failure.error.without_hints().cause(format!("that was {ago} ago; nobody is asked again for another {wait}")))
}

fn obtained(settings: &Settings, entry: Entry) -> Result<(Token, Entry)> {
    match wanted(settings, entry.clone()) {
        Some(token) => Ok((token, entry)),
        None => Err(Error::bug("a sign-in ended well without the wanted token")),
    }
}

/// kubectl asks again this long before the token's end.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(15);
/// How long after a failed sign-in nobody is asked again: callers that retry in a loop must not open
/// tab after tab.
const BACK_OFF: SignedDuration = SignedDuration::from_secs(30);

#[cfg(test)]
mod tests;
