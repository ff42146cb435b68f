//! Cached, refreshed or new? The policy of every identity's tokens, and the only holder of their lock.
//!
//! Check, lock, check again, act, write. What a network fault interrupts stays as it was; only the
//! provider's own refusal leads to a new sign-in. A refresh token that the provider has replaced is
//! on disk before anything else is done with its reply.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cache::{Cache, Entry, Failure, Found, Holder, Key, Lock, Locked, Token};
use crate::callback::Page;
use crate::clock::{Clock, in_utc, in_words};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::http::Http;
use crate::id_token::{self, Expectation, Verified};
use crate::oidc::{self, Client, GrantError, Provider, Refusal, Reply};
use crate::options::TokenType;
use crate::secret::Secret;
use crate::settings::{Settings, Subject};
use crate::sign_in::{self, Grant, Presence, SignIn};
use crate::ui::Ui;

/// What every step is handed.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) ui: Ui,
    pub(crate) environment: &'a Environment,
    pub(crate) clock: Clock,
    /// kubectl's word on stdin (`spec.interactive`), `None` where a person runs us.
    pub(crate) interactive: Option<bool>,
    /// The cluster that the token is for, for the page that the browser shows.
    pub(crate) cluster: Option<&'a str>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A token that is good for a while, from wherever.
    Valid,
    /// A token newer than the cached one.
    Refreshed,
    /// A new sign-in, whatever the cache says.
    SignedIn,
}

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
        let entry = Work::begin(session, None).await?.sign_in(None, None).await?;
        return obtained(settings, entry);
    };
    let cache = Cache::at(folder.clone());
    let key = Key::of(&settings.identity);
    let began = clock.now();
    if wish != Wish::SignedIn
        && let Some(failure) = cache.failure(&key).filter(|failure| began < failure.until && failure.at <= began)
    {
        return Err(backed_off(failure, began));
    }
    // The holder may have written already and only be showing its page.
    let done = || match cache.read(&key)? {
        Found::Entry(entry) => Ok(shared(session, &entry, wish, began)),
        Found::Absent | Found::Damaged(_) => Ok(None),
    };
    let lock = match wait_for_lock(session, &cache, &key, "sign-in", done).await? {
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
    if wish != Wish::SignedIn
        && let Some(failure) = cache.failure(&key).filter(|failure| meanwhile(failure.at, began, clock.now()))
    {
        return Err(failure.error);
    }
    let result = renew(session, &cache, &key, wish, entry).await;
    match &result {
        Ok(_) => cache.forget_failure(&key),
        Err(error) => remember(session, &cache, &key, error),
    }
    drop(lock);
    obtained(settings, result?)
}

/// The entry's token if it serves this wish: one that lasts, or one that another process has just
/// obtained, even if it ends soon: else each of those who waited would ask the provider anew.
fn shared(session: Session<'_>, entry: &Entry, wish: Wish, began: Timestamp) -> Option<(Token, Entry)> {
    let Session { settings, clock, .. } = session;
    let now = clock.now();
    let token = wanted(settings, entry.clone())?;
    let just_obtained = meanwhile(entry.refreshed, began, now) && token.expires > now;
    let serves = match wish {
        Wish::Valid => just_obtained || lasts(settings, &token, now),
        Wish::Refreshed => just_obtained,
        Wish::SignedIn => false,
    };
    serves.then(|| (token, entry.clone()))
}

/// Whether this was since we began. What lies in the future was before the clock was set back.
fn meanwhile(at: Timestamp, began: Timestamp, now: Timestamp) -> bool {
    began <= at && at <= now
}

/// What waiting for the lock ended with.
pub(crate) enum Waited<T> {
    Lock(Lock),
    /// Another process has done what it was wanted for.
    Done(T),
}

/// Takes the lock of an identity, for this purpose: `sign-in`. A holder is waited for no longer than
/// its sign-in may take, and `done` is asked meanwhile whether that is still needed.
pub(crate) async fn wait_for_lock<T>(
    session: Session<'_>,
    cache: &Cache,
    key: &Key,
    purpose: &str,
    done: impl Fn() -> Result<Option<T>>,
) -> Result<Waited<T>> {
    let Session { settings, ui, clock, .. } = session;
    let deadline = tokio::time::Instant::now() + settings.timeout + LOCK_GRACE;
    let mut tell_at = tokio::time::Instant::now() + LOCK_SILENCE;
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
            return Err(gave_up_waiting(settings, holder.as_ref(), clock.now()));
        }
        if now >= tell_at {
            ui.note(format!("waiting for {}", told_holder(holder.as_ref(), clock.now())));
            tell_at = now + LOCK_REMINDER;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

fn told_holder(holder: Option<&Holder>, now: Timestamp) -> String {
    match holder {
        Some(holder) => {
            let ago = in_words(now.duration_since(holder.since));
            format!("the {} of process {}, begun {ago} ago", holder.purpose, holder.pid)
        }
        None => "another process's sign-in".to_owned(),
    }
}

fn gave_up_waiting(settings: &Settings, holder: Option<&Holder>, now: Timestamp) -> Error {
    let issuer = &settings.identity.issuer;
    let error = Error::sign_in_failed(format!("the tokens of `{issuer}` are in use: another process did not finish"))
        .cause(format!("waited for {}", told_holder(holder, now)));
    match holder {
        Some(holder) => error.hint(format!("finish that sign-in in its browser tab, or end it: `kill {}`", holder.pid)),
        None => error.hint("finish that sign-in in its browser tab, then repeat your command"),
    }
}

/// The failure of a moment ago, told again without asking anybody anew.
fn backed_off(failure: Failure, now: Timestamp) -> Error {
    let ago = in_words(now.duration_since(failure.at));
    let wait = in_words(failure.until.duration_since(now));
    failure.error.cause(format!("that was {ago} ago; nobody is asked again for another {wait}"))
}

/// Lets those who wait share the failure, and if a person had been asked, those who come soon.
fn remember(session: Session<'_>, cache: &Cache, key: &Key, error: &Error) {
    let back_off = match error.kind() {
        Kind::SignInFailed => BACK_OFF,
        // Another process may have what this one lacked: somebody to ask, or better settings.
        Kind::SignInNeeded | Kind::Interrupted | Kind::Usage | Kind::Settings => return,
        Kind::Other | Kind::Unreachable | Kind::Bug => SignedDuration::ZERO,
    };
    let at = session.clock.now();
    let until = at.saturating_add(back_off).unwrap_or(at);
    if let Err(error) = cache.remember_failure(key, &Failure { at, until, error: error.clone() }) {
        session.ui.step(error.message());
    }
}

/// Under the lock: refreshes if that can serve, signs in if it cannot.
async fn renew(session: Session<'_>, cache: &Cache, key: &Key, wish: Wish, entry: Option<Entry>) -> Result<Entry> {
    let mut work = Work::begin(session, Some((cache, key))).await?;
    let Some(entry) = entry else { return work.sign_in(None, None).await };
    let Some(refresh_token) = entry.refresh_token.clone().filter(|_| wish != Wish::SignedIn) else {
        return work.sign_in(Some(&entry), None).await;
    };
    match work.refresh(entry, refresh_token).await? {
        Refreshed::Entry(entry) => Ok(*entry),
        Refreshed::SignInNeeded { entry, claims, reason } => {
            session.ui.note(format!("you need to sign in again: {reason}"));
            work.sign_in(Some(&entry), claims.as_deref()).await
        }
    }
}

/// A provider, a client there, and where the results go.
struct Work<'a> {
    session: Session<'a>,
    place: Option<(&'a Cache, &'a Key)>,
    http: Http,
    provider: Provider,
    secret: Option<Secret>,
}

/// What a refresh came to.
enum Refreshed {
    Entry(Box<Entry>),
    SignInNeeded { entry: Box<Entry>, claims: Option<String>, reason: String },
}

impl<'a> Work<'a> {
    async fn begin(session: Session<'a>, place: Option<(&'a Cache, &'a Key)>) -> Result<Self> {
        let Session { settings, ui, clock, .. } = session;
        let http = Http::new(&settings.connection, ui, clock)?;
        let secret = settings.client_secret.read("client secret").await?;
        let provider = oidc::discover(&http, settings, place.map(|(cache, _)| cache), clock.now()).await?;
        Ok(Self { session, place, http, provider, secret })
    }

    fn client(&self) -> Client<'_> {
        Client {
            settings: self.session.settings,
            provider: &self.provider,
            http: &self.http,
            secret: self.secret.as_ref(),
        }
    }

    fn write(&self, entry: &Entry) -> Result<()> {
        match self.place {
            Some((cache, key)) => cache.write(key, entry),
            None => Ok(()),
        }
    }

    /// One refresh. `invalid_grant` may only mean that another program has refreshed meanwhile, so
    /// the cache is read once more before the refresh token is given up.
    async fn refresh(&mut self, mut entry: Entry, mut refresh_token: Secret) -> Result<Refreshed> {
        let mut read_again = false;
        loop {
            self.session.ui.step("refreshing the token");
            let refusal = match oidc::refresh(&self.client(), &refresh_token).await {
                Ok(reply) => return self.take_refreshed(entry, reply).await,
                Err(GrantError::Failed(error)) => return Err(error),
                Err(GrantError::Refused(refusal)) => refusal,
            };
            if refusal.error == "invalid_grant" && !read_again {
                read_again = true;
                if let Some((newer, token)) = self.newer_refresh_token(&refresh_token)? {
                    (entry, refresh_token) = (newer, token);
                    continue;
                }
            }
            return self.refused(entry, refusal);
        }
    }

    fn newer_refresh_token(&self, tried: &Secret) -> Result<Option<(Entry, Secret)>> {
        let Some((cache, key)) = self.place else { return Ok(None) };
        match cache.read(key)? {
            Found::Entry(entry) => {
                Ok(entry.refresh_token.clone().filter(|token| token != tried).map(|token| (*entry, token)))
            }
            Found::Absent | Found::Damaged(_) => Ok(None),
        }
    }

    fn refused(&self, mut entry: Entry, refusal: Refusal) -> Result<Refreshed> {
        let reason = format!("the provider refused the refresh token: `{}`", refusal.error);
        match refusal.error.as_str() {
            "invalid_grant" if refusal.claims.is_none() => {
                entry.refresh_token = None;
                self.write(&entry)?;
            }
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {}
            _ => return Err(refusal.explained("the provider did not renew the token", self.session.settings)),
        }
        Ok(Refreshed::SignInNeeded { entry: Box::new(entry), claims: refusal.claims, reason })
    }

    async fn take_refreshed(&mut self, mut entry: Entry, reply: Reply) -> Result<Refreshed> {
        if let Some(newer) = &reply.refresh_token {
            entry.refresh_token = Some(newer.clone());
            entry.refresh_expires = self.end_after(reply.refresh_expires_in);
            // Before anything can fail: the provider may have retired the old one.
            self.write(&entry)?;
        }
        let subject = entry.subject.clone();
        let fresh = self.verified(&reply, None, subject.as_deref()).await?;
        let renewed = Entry {
            refreshed: self.session.clock.now(),
            id_token: fresh.id_token.or(entry.id_token),
            access_token: fresh.access_token.or(entry.access_token),
            person: fresh.person.or(entry.person),
            subject: fresh.subject.or(entry.subject),
            ..entry
        };
        self.write(&renewed)?;
        let settings = self.session.settings;
        let given = match settings.token_type {
            TokenType::Id => reply.id_token.is_some(),
            TokenType::Access => reply.access_token.is_some(),
        };
        let now = self.session.clock.now();
        if given || wanted(settings, renewed.clone()).is_some_and(|token| lasts(settings, &token, now)) {
            return Ok(Refreshed::Entry(Box::new(renewed)));
        }
        let kind = type_name(settings.token_type);
        let reason = format!("the provider renewed the session without {kind}");
        Ok(Refreshed::SignInNeeded { entry: Box::new(renewed), claims: None, reason })
    }

    /// A new sign-in. `before` is whose tokens these were, as far as is known.
    async fn sign_in(&mut self, before: Option<&Entry>, claims: Option<&str>) -> Result<Entry> {
        let Session { settings, ui, environment, clock: _, interactive, .. } = self.session;
        let presence = Presence::of(interactive, settings, ui);
        let client = self.client();
        let context = SignIn { settings, provider: &self.provider, client: &client, ui, environment, presence, claims };
        let Grant { reply, nonce, page } = sign_in::sign_in(context).await?;
        let result = self.take_signed_in(&reply, nonce.as_ref(), before).await;
        if let Some(page) = page {
            let shown = match &result {
                Ok(entry) => self.success_page(entry),
                Err(error) => Page::of_error(error),
            };
            page.show(&shown).await;
        }
        result
    }

    async fn take_signed_in(&mut self, reply: &Reply, nonce: Option<&Secret>, before: Option<&Entry>) -> Result<Entry> {
        let Session { settings, ui, clock, .. } = self.session;
        let fresh = self.verified(reply, nonce, None).await?;
        let now = clock.now();
        let entry = Entry {
            identity: settings.identity.clone(),
            id_token: fresh.id_token,
            access_token: fresh.access_token,
            refresh_token: reply.refresh_token.clone(),
            refresh_expires: self.end_after(reply.refresh_expires_in),
            person: fresh.person,
            signed_in: now,
            refreshed: now,
            subject: fresh.subject,
        };
        if wanted(settings, entry.clone()).is_none() {
            let kind = type_name(settings.token_type);
            return Err(Error::sign_in_failed(format!(
                "the provider gave no token for the cluster: its reply is without {kind}"
            ))
            .hint("if the cluster takes the other one: `--token-type id` or `--token-type access`"));
        }
        if let Some((old, new)) = before.and_then(|before| before.subject.as_deref()).zip(entry.subject.as_deref())
            && old != new
        {
            ui.note("this is another account than before");
        }
        self.write(&entry)?;
        if entry.refresh_token.is_none() && settings.identity.subject == Subject::Person {
            let reason = oidc::no_refresh_token_reason(&self.provider, settings);
            ui.note(format!(
                "the provider gave no refresh token, so you will be asked again when this one ends: {reason}"
            ));
        }
        Ok(entry)
    }

    fn end_after(&self, span: Option<Duration>) -> Option<Timestamp> {
        let now = self.session.clock.now();
        span.and_then(|span| SignedDuration::try_from(span).ok()).and_then(|span| now.checked_add(span).ok())
    }

    fn success_page(&self, entry: &Entry) -> Page {
        let settings = self.session.settings;
        let until = wanted(settings, entry.clone()).map(|token| in_utc(token.expires)).unwrap_or_default();
        let until = match (&entry.refresh_token, entry.refresh_expires) {
            (Some(_), Some(end)) => format!("{until}, renewed by itself until {}", in_utc(end)),
            (Some(_), None) => format!("{until}, and renewed by itself"),
            (None, _) => until,
        };
        Page::Success {
            who: entry.person.as_ref().map(crate::cache::Person::name_to_show),
            cluster: self.session.cluster.map(str::to_owned),
            until,
            open_next: settings.callback.open_afterwards.clone(),
        }
    }

    /// Everything in a reply that may be believed.
    async fn verified(&mut self, reply: &Reply, nonce: Option<&Secret>, subject: Option<&str>) -> Result<Fresh> {
        let Session { settings, ui, clock, .. } = self.session;
        self.warn_of_clock();
        let mut fresh = Fresh::default();
        if let Some(token) = &reply.id_token {
            let verified = self.verified_id_token(token, reply, nonce, subject).await?;
            fresh.id_token = Some(Token {
                value: token.clone(),
                expires: verified.expires,
                issuer: Some(verified.issuer),
                audience: verified.audience,
            });
            fresh.subject = Some(verified.subject);
            fresh.person = Some(verified.person);
        }
        if let Some(token) = &reply.access_token {
            let (access, person) = access_token(settings, token, reply.expires_in, clock.now())?;
            fresh.access_token = Some(access);
            fresh.person = fresh.person.or(person);
        }
        if let Some(token) = &fresh.access_token
            && settings.token_type == TokenType::Access
        {
            id_token::check_access_token(token, settings)?;
        }
        ui.step("the provider's reply is verified");
        Ok(fresh)
    }

    /// The keys are fetched again once if they do not fit: the provider may have new ones.
    async fn verified_id_token(
        &mut self,
        token: &Secret,
        reply: &Reply,
        nonce: Option<&Secret>,
        subject: Option<&str>,
    ) -> Result<Verified> {
        let Session { settings, clock, .. } = self.session;
        let expectation = Expectation {
            client_id: &settings.identity.client_id,
            nonce,
            access_token: reply.access_token.as_ref(),
            subject,
        };
        let rejection = match id_token::verify(&self.provider, token, &expectation, clock.now()) {
            Ok(verified) => return Ok(verified),
            Err(rejection) => rejection,
        };
        let cache = self.place.map(|(cache, _)| cache);
        if rejection.newer_keys_may_help() && self.provider.keys_again(&self.http, cache, clock.now()).await? {
            return id_token::verify(&self.provider, token, &expectation, clock.now()).map_err(Into::into);
        }
        Err(rejection.into())
    }

    fn warn_of_clock(&self) {
        if let Some(skew) = self.http.clock_skew().filter(|skew| skew.abs() > CLOCK_TOLERANCE) {
            let (by, way) = (in_words(skew.abs()), if skew.is_positive() { "behind" } else { "ahead of" });
            self.session.ui.warning(format!(
                "this machine's clock is {by} {way} the provider's: tokens may be refused until it is set"
            ));
        }
    }
}

/// What a reply brought.
#[derive(Default)]
struct Fresh {
    id_token: Option<Token>,
    access_token: Option<Token>,
    subject: Option<String>,
    person: Option<crate::cache::Person>,
}

/// An access token is the cluster's to judge; we read its end, from itself or from the reply.
fn access_token(
    settings: &Settings,
    value: &Secret,
    expires_in: Option<Duration>,
    now: Timestamp,
) -> Result<(Token, Option<crate::cache::Person>)> {
    let claims = id_token::read_untrusted(value);
    let by_reply = expires_in.and_then(|span| SignedDuration::try_from(span).ok());
    let by_reply = by_reply.and_then(|span| now.saturating_add(span.min(LONGEST_LIFE)).ok());
    let by_itself = claims.as_ref().and_then(|claims| claims.expires);
    let expires = match (by_itself, by_reply) {
        (Some(one), Some(other)) => one.min(other),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => now.saturating_add(UNKNOWN_LIFE).unwrap_or(now),
    };
    let expires = expires.min(now.saturating_add(LONGEST_LIFE).unwrap_or(expires));
    if settings.token_type == TokenType::Access && expires <= now {
        return Err(Error::sign_in_failed("the provider gave an access token that has expired already")
            .cause(format!("it ended at {expires}"))
            .hint("check this machine's clock: `date -u`"));
    }
    let claims = claims.unwrap_or_default();
    Ok((Token { value: value.clone(), expires, issuer: claims.issuer, audience: claims.audience }, claims.person))
}

fn obtained(settings: &Settings, entry: Entry) -> Result<(Token, Entry)> {
    match wanted(settings, entry.clone()) {
        Some(token) => Ok((token, entry)),
        None => Err(Error::bug("a sign-in ended well without the wanted token")),
    }
}

/// The entry's token of the type that the cluster is given.
fn wanted(settings: &Settings, entry: Entry) -> Option<Token> {
    match settings.token_type {
        TokenType::Id => entry.id_token,
        TokenType::Access => entry.access_token,
    }
}

/// Whether the token has enough time left to be handed out from the cache.
fn lasts(settings: &Settings, token: &Token, now: Timestamp) -> bool {
    token.expires.duration_since(now) > settings.cache.minimum_validity
}

fn type_name(token_type: TokenType) -> &'static str {
    match token_type {
        TokenType::Id => "an ID token",
        TokenType::Access => "an access token",
    }
}

/// kubectl asks again this long before the token's end.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(15);
/// How long after a failed sign-in nobody is asked again: callers that retry in a loop must not open
/// tab after tab.
const BACK_OFF: SignedDuration = SignedDuration::from_secs(30);
/// How long waiting goes on after the holder's own time limit.
const LOCK_GRACE: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Most refreshes end sooner: nothing is said of them.
const LOCK_SILENCE: Duration = Duration::from_secs(1);
const LOCK_REMINDER: Duration = Duration::from_secs(15);
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(90);
/// What is assumed of an access token that nothing is said about.
const UNKNOWN_LIFE: SignedDuration = SignedDuration::from_mins(5);
/// Longer lives than this are not believed.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use base64::Engine;

    use super::*;
    use crate::{options, settings};

    fn settings(token_type: &str) -> Settings {
        let words = [
            "--issuer-url",
            "https://id.example.com",
            "--client-id",
            "c",
            "--token-storage",
            "none",
            "--token-type",
            token_type,
        ];
        let options = options::of_arguments(&words.map(Into::into)).unwrap();
        settings::resolve(&options, &Environment::default()).unwrap()
    }

    fn after(time: Timestamp, seconds: i64) -> Timestamp {
        time.checked_add(SignedDuration::from_secs(seconds)).unwrap()
    }

    /// What a process that began now makes of an entry refreshed and ending so many seconds from now.
    fn is_shared(wish: Wish, refreshed: i64, expires: i64) -> bool {
        let (settings, environment, clock) = (settings("id"), Environment::default(), Clock::system());
        let session = Session {
            settings: &settings,
            ui: Ui::new(),
            environment: &environment,
            clock,
            interactive: None,
            cluster: None,
        };
        let now = clock.now();
        let token = Token { value: Secret::new("t"), expires: after(now, expires), issuer: None, audience: Vec::new() };
        let entry = Entry {
            identity: settings.identity.clone(),
            id_token: Some(token),
            access_token: None,
            refresh_token: None,
            refresh_expires: None,
            person: None,
            signed_in: now,
            refreshed: after(now, refreshed),
            subject: None,
        };
        shared(session, &entry, wish, now).is_some()
    }

    #[test]
    fn a_token_just_obtained_is_shared_even_if_it_ends_soon() {
        for wish in [Wish::Valid, Wish::Refreshed] {
            assert!(is_shared(wish, 0, 30), "{wish:?}");
            assert!(!is_shared(wish, 0, 0), "{wish:?}");
            assert!(!is_shared(wish, -10, 30), "{wish:?}");
        }
        assert!(is_shared(Wish::Valid, -10, 300));
        assert!(!is_shared(Wish::Refreshed, -10, 300));
        assert!(!is_shared(Wish::SignedIn, 0, 300));
    }

    #[test]
    fn what_happened_before_the_clock_was_set_back_is_not_taken_for_news() {
        assert!(!is_shared(Wish::Refreshed, 3600, 7200));
        let began = Timestamp::from_second(1_900_000_000).unwrap();
        assert!(meanwhile(began, began, began));
        assert!(!meanwhile(after(began, -1), began, began));
        assert!(!meanwhile(after(began, 3600), began, after(began, 5)));
    }

    #[test]
    fn an_access_token_is_not_believed_to_live_longer_than_thirty_days() {
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        let jwt = |exp: i64| {
            let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp}}}"));
            Secret::new(format!("e30.{payload}.c2ln"))
        };
        let expires = |token: &Secret, expires_in: Option<u64>| {
            let (token, _) =
                access_token(&settings("access"), token, expires_in.map(Duration::from_secs), now).unwrap();
            token.expires.duration_since(now).as_secs()
        };
        assert_eq!(expires(&jwt(253_370_764_800), None), 30 * 86_400);
        assert_eq!(expires(&Secret::new("opaque"), Some(u64::MAX)), 300);
        assert_eq!(expires(&Secret::new("opaque"), Some(400_000_000)), 30 * 86_400);
        assert_eq!(expires(&jwt(1_900_000_600), Some(300)), 300);
        assert_eq!(expires(&jwt(1_900_000_300), Some(600)), 300);
        assert_eq!(expires(&Secret::new("opaque"), None), 300);
        assert!(access_token(&settings("access"), &jwt(1_899_999_999), Some(Duration::from_secs(600)), now).is_err());
    }
}
