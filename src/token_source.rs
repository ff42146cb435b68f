//! Where new tokens come from: one provider and one client there, asked for a refresh or a sign-in.
//! What it brings is verified, and kept before it is handed on. A refresh token that the provider has
//! replaced is on disk before anything else is done with its reply. Only a process that is killed after the
//! provider has replaced it and before the reply is read loses it: most providers take the old one for
//! a while for that reason, and the others ask for a new sign-in.

use std::cell::Cell;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cache::{Cache, Entry, Found, Key, Person, Token};
use crate::callback::Page;
use crate::clock::{in_utc, in_words};
use crate::error::{Error, Result};
use crate::http::Http;
use crate::id_token::{self, Expectation, Verified};
use crate::oidc::{self, Client, GrantError, Provider, Refusal, Reply};
use crate::options::TokenType;
use crate::secret::Secret;
use crate::settings::{Settings, Subject};
use crate::sign_in::{self, Grant, Presence, SignIn, Way};
use crate::wish::{Session, Wish, ended, lasts, type_name, wanted};

/// A provider, a client there, and where the results go.
pub(crate) struct TokenSource<'a> {
    session: Session<'a>,
    place: Option<(&'a Cache, &'a Key)>,
    http: Http,
    provider: Provider,
    secret: Option<Secret>,
    /// Why the tokens could not be written to the cache.
    not_kept: Option<Error>,
}

/// What a refresh came to.
pub(crate) enum Refreshed {
    Entry(Box<Entry>),
    SignInNeeded { entry: Box<Entry>, claims: Option<String>, reason: String },
}

impl<'a> TokenSource<'a> {
    /// For a refresh: what is kept of the provider will do, so that it is one request.
    pub(crate) async fn begin(session: Session<'a>, place: Option<(&'a Cache, &'a Key)>) -> Result<Self> {
        let Session { settings, clock, .. } = session;
        let (http, secret) = Self::prepare(session).await?;
        let provider = oidc::discover(&http, settings, place.map(|(cache, _)| cache), clock.now()).await?;
        Ok(Self { session, place, http, provider, secret, not_kept: None })
    }

    /// For a sign-in: nobody is sent to a provider that is not there.
    pub(crate) async fn begin_anew(session: Session<'a>, place: Option<(&'a Cache, &'a Key)>) -> Result<Self> {
        let Session { settings, clock, .. } = session;
        let (http, secret) = Self::prepare(session).await?;
        let provider = oidc::discover_anew(&http, settings, place.map(|(cache, _)| cache), clock.now()).await?;
        Ok(Self { session, place, http, provider, secret, not_kept: None })
    }

    async fn prepare(session: Session<'a>) -> Result<(Http, Option<Secret>)> {
        let Session { settings, ui, clock, .. } = session;
        let http = Http::new(&settings.connection, ui, clock)?;
        let secret = tokio::time::timeout(settings.timeout, settings.client_secret.read("client secret"));
        Ok((http, secret.await.map_err(|_| sign_in::timed_out(settings))??))
    }

    fn client(&self) -> Client<'_> {
        Client {
            settings: self.session.settings,
            provider: &self.provider,
            http: &self.http,
            secret: self.secret.as_ref(),
        }
    }

    /// Why the tokens that it brought could not be kept, if so.
    pub(crate) fn not_kept(self) -> Option<Error> {
        self.not_kept
    }

    /// Keeps the entry. A folder that cannot be written to takes no token away from whoever waits
    /// for it; that it does, and the `loss` that comes of it, is told once.
    fn write(&mut self, entry: &Entry, loss: &str) {
        let Some((cache, key)) = self.place else { return };
        if let Err(error) = cache.write(key, entry) {
            if self.not_kept.is_none() {
                let why = [&[error.message().to_owned()], error.causes()].concat().join(": ");
                self.session.ui.warning(format!("{loss}: {why}"));
            }
            self.not_kept = Some(error);
        }
    }

    /// One refresh. `invalid_grant` may only mean that another program has refreshed meanwhile, so
    /// the cache is read once more before the refresh token is given up.
    pub(crate) async fn refresh(
        &mut self,
        mut entry: Entry,
        mut refresh_token: Secret,
        wish: Wish,
    ) -> Result<Refreshed> {
        let mut read_again = false;
        loop {
            self.session.ui.step("refreshing the token");
            let refusal = match oidc::refresh(&self.client(), &refresh_token).await {
                Ok(reply) => return self.take_refreshed(entry, reply, wish).await,
                Err(GrantError::Failed(error)) => return Err(error),
                Err(GrantError::Refused(refusal)) => *refusal,
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

    fn refused(&mut self, mut entry: Entry, refusal: Refusal) -> Result<Refreshed> {
        let reason = format!("the provider refused the refresh token: `{}`", refusal.error);
        match refusal.error.as_str() {
            "invalid_grant" if refusal.claims.is_none() => {
                entry.refresh_token = None;
                self.write(&entry, SIGN_IN_LOST);
            }
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {}
            _ => return Err(refusal.explained("the provider did not renew the token", self.session.settings)),
        }
        Ok(Refreshed::SignInNeeded { entry: Box::new(entry), claims: refusal.claims, reason })
    }

    async fn take_refreshed(&mut self, mut entry: Entry, reply: Reply, wish: Wish) -> Result<Refreshed> {
        if let Some(newer) = &reply.refresh_token {
            entry.refresh_token = Some(newer.clone());
            entry.refresh_expires = self.end_after(reply.refresh_expires_in);
            // Before anything can fail: the provider may have retired the old one.
            self.write(&entry, SIGN_IN_LOST);
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
        self.write(&renewed, if reply.refresh_token.is_some() { SIGN_IN_LOST } else { TOKEN_LOST });
        let settings = self.session.settings;
        let given = match settings.token_type {
            TokenType::Id => reply.id_token.is_some(),
            TokenType::Access => reply.access_token.is_some(),
        };
        let now = self.session.clock.now();
        let still_good = || wanted(settings, renewed.clone()).is_some_and(|token| lasts(settings, &token, now));
        if given || (wish == Wish::Valid && still_good()) {
            return Ok(Refreshed::Entry(Box::new(renewed)));
        }
        let kind = type_name(settings.token_type);
        let reason = format!("the provider renewed the session without {kind}");
        Ok(Refreshed::SignInNeeded { entry: Box::new(renewed), claims: None, reason })
    }

    /// A new sign-in. `before` is whose tokens these were, as far as is known; `asked` becomes true
    /// once a person is.
    pub(crate) async fn sign_in(
        &mut self,
        way: Way,
        before: Option<&Entry>,
        claims: Option<&str>,
        asked: &Cell<bool>,
    ) -> Result<Entry> {
        let Session { settings, ui, environment, interactive, tab, .. } = self.session;
        let presence = Presence::of(interactive, settings, ui);
        let (provider, client) = (&self.provider, &self.client());
        let context = SignIn { settings, provider, client, ui, environment, presence, tab, claims, asked };
        let Grant { reply, nonce, page } = sign_in::sign_in(context, way).await?;
        let result = self.take_signed_in(&reply, nonce.as_ref(), before).await;
        if let Some(page) = page {
            let shown = match &result {
                Ok(entry) => self.success_page(entry),
                Err(error) => Page::of_error(error, tab.map(|tab| &tab.back)),
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
        self.write(&entry, SIGN_IN_LOST);
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
        let back = self.session.tab.map(|tab| tab.back.clone());
        Page::Success {
            who: entry.person.as_ref().map(Person::name_to_show),
            cluster: self.session.cluster.map(str::to_owned),
            until,
            open_next: back.or_else(|| settings.callback.open_afterwards.clone()),
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
    person: Option<Person>,
}

/// An access token is the cluster's to judge; we read its end, from itself or from the reply.
fn access_token(
    settings: &Settings,
    value: &Secret,
    expires_in: Option<Duration>,
    now: Timestamp,
) -> Result<(Token, Option<Person>)> {
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
    let token = Token { value: value.clone(), expires, issuer: None, audience: Vec::new() };
    if settings.token_type == TokenType::Access && ended(&token, now) {
        return Err(Error::sign_in_failed("the provider gave an access token that has expired already")
            .cause(format!("it ended at {expires}"))
            .hint("check this machine's clock: `date -u`"));
    }
    let claims = claims.unwrap_or_default();
    Ok((Token { issuer: claims.issuer, audience: claims.audience, ..token }, claims.person))
}

/// What comes of a sign-in, or of a replaced refresh token, that cannot be kept.
const SIGN_IN_LOST: &str = "you will have to sign in again";
/// What comes of a renewed token that cannot be kept.
const TOKEN_LOST: &str = "the token will have to be renewed again";
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(90);
/// What is assumed of an access token that nothing is said about.
const UNKNOWN_LIFE: SignedDuration = SignedDuration::from_mins(5);
/// Longer lives than this are not believed.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use base64::Engine;

    use super::*;
    use crate::environment::Environment;
    use crate::{options, settings};

    /// Somebody's at a provider; nothing is kept.
    pub(crate) fn settings(token_type: &str) -> Settings {
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
        assert!(access_token(&settings("access"), &jwt(1_899_999_941), Some(Duration::from_secs(600)), now).is_ok());
        assert!(access_token(&settings("access"), &jwt(1_899_999_940), Some(Duration::from_secs(600)), now).is_err());
    }
}
