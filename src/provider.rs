//! A provider as discovery shows it: its metadata and keys. Both are kept together for as long as
//! the provider allows, so that a refresh needs no other request than its own.

use std::time::Duration;

use ::http::{HeaderMap, Request, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::Url;

use crate::cache::Cache;
use crate::entra::preset as entra;
use crate::error::{Error, Kind, Result};
use crate::http::{self, Http, Repeat};
use crate::json_object::JsonObject;
use crate::options::ProviderKind;
use crate::provider_metadata::{self, Metadata, no_provider};
use crate::settings::Settings;
use crate::signing_key::{self, KeySet};

/// A discovered provider.
#[derive(Debug)]
pub(crate) struct Provider {
    metadata: Metadata,
    keys: KeySet,
    place: Place,
    fetched: Timestamp,
    /// How long after `fetched` it may be used from the cache.
    lifetime: Duration,
    /// When the keys were last fetched anew because they did not fit a token.
    keys_asked_again: Option<Timestamp>,
}

/// Where a provider is kept: the cache's own key of it.
#[derive(Clone, Debug)]
struct Place {
    issuer: String,
    tls_verified: bool,
}

impl Place {
    fn of(settings: &Settings) -> Self {
        Self { issuer: settings.identity.issuer.clone(), tls_verified: settings.identity.tls_verified }
    }
}

/// The provider of the settings, from the cache while it may be used, else by two requests.
pub(crate) async fn discover(
    http: &Http,
    settings: &Settings,
    cache: Option<&Cache>,
    now: Timestamp,
) -> Result<Provider> {
    if let Some(provider) = cache.and_then(|cache| Provider::kept(cache, &Place::of(settings), now)) {
        http.step("the provider is known from the cache");
        return Ok(provider);
    }
    discover_anew(http, settings, cache, now).await
}

/// Likewise, asked now: before a person is sent to a provider, it must be there.
pub(crate) async fn discover_anew(
    http: &Http,
    settings: &Settings,
    cache: Option<&Cache>,
    now: Timestamp,
) -> Result<Provider> {
    let place = Place::of(settings);
    http.step(format!("discovering `{}`", place.issuer));
    let (metadata, one) = fetch_metadata(http, &place.issuer, now).await?;
    let (keys, other) = fetch_keys(http, &metadata.jwks_uri, now).await?;
    // A provider whose tokens never fit its keys is not asked for them ever faster.
    let keys_asked_again = cache.and_then(|cache| Provider::kept(cache, &place, now)?.keys_asked_again);
    let provider = Provider { metadata, keys, place, fetched: now, lifetime: one.min(other), keys_asked_again };
    provider.keep(http, cache);
    Ok(provider)
}

async fn fetch_metadata(http: &Http, issuer: &str, now: Timestamp) -> Result<(Metadata, Duration)> {
    let location =
        Url::parse(&provider_metadata::location(issuer)).map_err(|error| no_provider(issuer).cause(error))?;
    let response = fetch(http, &location).await?;
    if http::is_unavailable(response.status()) {
        return Err(http::unavailable(&location, &response, now));
    }
    if response.status() != StatusCode::OK {
        return Err(no_provider(issuer).cause(format!("`{}` from `{}`", response.status(), http::shown(&location))));
    }
    let document = JsonObject::parse(response.body()).map_err(|reason| {
        no_provider(issuer).cause(format!("what `{}` answers cannot be read: it is {reason}", http::shown(&location)))
    })?;
    Ok((Metadata::of(&document, issuer)?, lifetime(response.headers())))
}

async fn fetch_keys(http: &Http, location: &Url, now: Timestamp) -> Result<(KeySet, Duration)> {
    let response = fetch(http, location).await?;
    if http::is_unavailable(response.status()) {
        return Err(http::unavailable(location, &response, now));
    }
    let no_keys = |reason: &str| {
        Error::new(Kind::Other, format!("the provider's keys at `{}` cannot be used", http::shown(location)))
            .cause(reason)
            .hint("whoever runs the provider must look: the address is the `jwks_uri` of its metadata")
    };
    if response.status() != StatusCode::OK {
        return Err(no_keys(&format!("the answer is `{}`", response.status())));
    }
    let document = JsonObject::parse(response.body()).map_err(|reason| no_keys(&format!("the answer is {reason}")))?;
    let keys = signing_key::key_set(&document);
    Ok((keys.map_err(|reason| no_keys(&reason))?, lifetime(response.headers())))
}

async fn fetch(http: &Http, location: &Url) -> Result<Response<Vec<u8>>> {
    let request = Request::get(location.as_str())
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .body(Vec::new())
        .map_err(|error| Error::bug("a request cannot be made").caused_by(&error))?;
    http.send(request, Repeat::Freely).await
}

impl Provider {
    /// The issuer as the provider writes it. Entra ID's documents for several tenants have the
    /// literal `{tenantid}` in it.
    pub(crate) fn issuer(&self) -> &str {
        &self.metadata.issuer
    }

    /// Those that could be read; `signing_key` says which may verify a signature.
    pub(crate) fn keys(&self) -> &KeySet {
        &self.keys
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether codes can be typed in on another device (RFC 8628).
    pub(crate) fn device_endpoint(&self) -> bool {
        self.metadata.device_authorization_endpoint.is_some()
    }

    /// Fetches the keys anew, because they do not fit a token, and says whether they are others
    /// now. Once a minute at most, across processes, whatever tokens come.
    pub(crate) async fn keys_again(&mut self, http: &Http, cache: Option<&Cache>, now: Timestamp) -> Result<bool> {
        if self.keys_asked_again.is_some_and(|before| now.duration_since(before).abs() < KEYS_AGAIN) {
            return Ok(false);
        }
        http.step("the provider's keys do not fit: fetching them anew");
        let (keys, _) = fetch_keys(http, &self.metadata.jwks_uri, now).await?;
        let changed = keys != self.keys;
        self.keys = keys;
        self.keys_asked_again = Some(now);
        self.keep(http, cache);
        Ok(changed)
    }

    fn keep(&self, http: &Http, cache: Option<&Cache>) {
        let Some(cache) = cache else { return };
        let value = json!({
            "fetched": self.fetched,
            "lifetime": self.lifetime.as_secs(),
            "keys_asked_again": self.keys_asked_again,
            "metadata": self.metadata.to_document(),
            "keys": self.keys,
        });
        if let Err(error) = cache.write_provider(&self.place.issuer, self.place.tls_verified, &value) {
            http.step(format!("the provider is not kept in the cache: {}", error.message()));
        }
    }

    /// What the cache has of a provider, if it may still be used. It is checked like an answer.
    fn kept(cache: &Cache, place: &Place, now: Timestamp) -> Option<Self> {
        let value = cache.read_provider(&place.issuer, place.tls_verified)?;
        let object = |name: &str| value.get(name)?.as_object().cloned().map(JsonObject::from);
        let time = |name: &str| value.get(name).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
        let fetched = time("fetched")?;
        let lifetime = Duration::from_secs(value.get("lifetime")?.as_u64()?).min(LONGEST_LIFETIME);
        let age = now.duration_since(fetched);
        if age.is_negative() || age >= SignedDuration::try_from(lifetime).ok()? {
            return None;
        }
        Some(Self {
            metadata: Metadata::of(&object("metadata")?, &place.issuer).ok()?,
            keys: signing_key::key_set(&object("keys")?).ok()?,
            place: place.clone(),
            fetched,
            lifetime,
            keys_asked_again: time("keys_asked_again"),
        })
    }
}

/// How long an answer may be kept (RFC 9111 §5.2.2), within bounds: a provider that forbids keeping
/// it would make every refresh three requests, and none may keep its keys for ever.
fn lifetime(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        directives.flat_map(|text| text.split(',')).map(|text| text.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| matches!(directive.as_str(), "no-store" | "no-cache")) {
        return SHORTEST_LIFETIME;
    }
    let age =
        directives.iter().find_map(|directive| directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    age.map_or(USUAL_LIFETIME, |seconds| Duration::from_secs(seconds).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME))
}

/// Who answered the callback (RFC 9207 §2.4). A provider that promises to say so must, and one that
/// is another must not have its code sent to ours.
pub(crate) fn check_callback_issuer(provider: &Provider, named: Option<&str>) -> Result<()> {
    let issuer = provider.issuer();
    match named {
        Some(named) if named == issuer || entra::stands_for(issuer, named) => Ok(()),
        Some(named) => Err(Error::sign_in_failed("the answer to the sign-in came from another provider")
            .cause(format!("it names `{named}`, and `{issuer}` was asked"))),
        None if provider.metadata.authorization_response_iss_parameter_supported => {
            Err(Error::sign_in_failed("the answer to the sign-in does not say which provider it is from")
                .cause(format!("`{issuer}` promises to name itself (`iss`), and the answer does not")))
        }
        None => Ok(()),
    }
}

/// Why the provider gave no refresh token, as far as that is known, with the way to one.
pub(crate) fn no_refresh_token_reason(provider: &Provider, settings: &Settings) -> &'static str {
    let google =
        Url::parse(&settings.identity.issuer).is_ok_and(|issuer| issuer.host_str() == Some("accounts.google.com"));
    let consent = settings.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|word| word == "consent"));
    let listed = provider.metadata.lists_scope(OFFLINE_ACCESS);
    let asked = listed || settings.identity.scopes.contains(OFFLINE_ACCESS);
    if settings.provider == ProviderKind::Entra {
        "Entra ID gives one once `offline_access` is consented to (API permissions of the app registration)"
    } else if google {
        "Google gives one with `--auth-param access_type=offline --prompt consent`"
    } else if asked && !consent {
        "some providers give one only after asking you for consent, which `--prompt consent` has them do"
    } else if asked {
        "the client may lack the grant `refresh_token` at the provider"
    } else {
        "the provider does not list the scope `offline_access`; if it knows another one for this, name it with `--scope`"
    }
}

/// The scope that asks for a refresh token (`OpenID` Connect Core §11).
pub(crate) const OFFLINE_ACCESS: &str = "offline_access";

const KEYS_AGAIN: SignedDuration = SignedDuration::from_mins(1);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5 * 60);
const USUAL_LIFETIME: Duration = Duration::from_secs(60 * 60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
impl Provider {
    /// A provider whose metadata a test makes up, and which was never asked.
    #[expect(clippy::unwrap_used, reason = "test")]
    pub(crate) fn of_test(document: &Value) -> Self {
        let document = JsonObject::from(document.as_object().unwrap().clone());
        let place = Place { issuer: document.text("issuer").unwrap().to_owned(), tls_verified: true };
        let metadata = Metadata::of(&document, &place.issuer).unwrap();
        let keys = KeySet::new(Vec::new());
        Self { metadata, keys, place, fetched: Timestamp::UNIX_EPOCH, lifetime: USUAL_LIFETIME, keys_asked_again: None }
    }
}

#[cfg(test)]
mod tests;
