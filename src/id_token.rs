//! Is an ID token the provider's, for us, and of this sign-in?
//!
//! `openidconnect` checks signature, issuer, audience, end and nonce (`OpenID` Connect Core §3.1.3.7),
//! for a public client and a fixed list of algorithms: a token that was signed with the client's
//! secret, which every holder of a kubeconfig may know, is never believed. What it leaves open is
//! checked around it here: authorized party, times of issue and beginning, access token hash,
//! subject, tenant, and what `signing_key` says of keys.
//!
//! Keys that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use openidconnect::core::{CoreIdToken, CoreIdTokenClaims, CoreJwsSigningAlgorithm as Algorithm};
use openidconnect::{
    AccessToken, AccessTokenHash, ClaimsVerificationError, ClientId, IdTokenVerifier, IssuerUrl, Nonce,
    SignatureVerificationError,
};
use serde_json::{Value, json};

use crate::cache::{Person, Token};
use crate::claims;
pub(crate) use crate::claims::{Claims, read_untrusted};
use crate::entra::preset as entra;
use crate::error::{Error, Result};
use crate::json_object::JsonObject;
use crate::oidc::Provider;
pub(crate) use crate::rejection::Rejection;
use crate::secret::Secret;
use crate::settings::Settings;
use crate::signing_key::{KeySet, SigningKey};

/// What an ID token has to fit, besides the provider.
pub(crate) struct Expectation<'a> {
    pub(crate) client_id: &'a str,
    /// The one that was sent. `None`: none was, and one in the token means nothing; so at a refresh,
    /// where many providers repeat the first.
    pub(crate) nonce: Option<&'a Secret>,
    /// The access token that came with it.
    pub(crate) access_token: Option<&'a Secret>,
    /// Whose token it has to be (Core §12.2).
    pub(crate) subject: Option<&'a str>,
}

/// What a good ID token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// At most [`LONGEST_LIFE`] from now.
    pub(crate) expires: Timestamp,
    pub(crate) subject: String,
    pub(crate) person: Person,
    pub(crate) issuer: String,
    pub(crate) audience: Vec<String>,
}

/// The algorithms of a signature that is believed, by their names (RFC 7518 §3.1, RFC 8037 §3.1).
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RsaSsaPkcs1V15Sha256),
    ("RS384", Algorithm::RsaSsaPkcs1V15Sha384),
    ("RS512", Algorithm::RsaSsaPkcs1V15Sha512),
    ("PS256", Algorithm::RsaSsaPssSha256),
    ("PS384", Algorithm::RsaSsaPssSha384),
    ("PS512", Algorithm::RsaSsaPssSha512),
    ("ES256", Algorithm::EcdsaP256Sha256),
    ("ES384", Algorithm::EcdsaP384Sha384),
    ("EdDSA", Algorithm::EdDsa),
];
/// Clocks differ: by so much a token may have ended already, or not have begun.
pub(crate) const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// A later end is not told: kubectl and the cache would hold on to the token for ever.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A token of a new sign-in was made just now. The day is for clocks that are set to a wrong time
/// zone, with which all else works.
const OLDEST_AT_SIGN_IN: SignedDuration = SignedDuration::from_hours(24);
/// Characters of a subject (Core §2).
const LONGEST_SUBJECT: usize = 255;
/// Where the issuer of a provider for several tenants has the tenant.
const TENANT: &str = "{tenantid}";

/// Verifies an ID token. Discovery has compared the provider's issuer with the configured one.
pub(crate) fn verify(
    provider: &Provider,
    token: &Secret,
    expectation: &Expectation<'_>,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    verify_with(provider.issuer(), provider.keys(), token, expectation, now)
}

fn verify_with(
    template: &str,
    keys: &KeySet,
    token: &Secret,
    expectation: &Expectation<'_>,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    let unverified = Unverified::read(token)?;
    let issuer = unverified.expected_issuer(template)?;
    let parsed: CoreIdToken = token.expose().parse().map_err(|_| unverified.unreadable())?;
    let verifier = verifier(&issuer, template, keys, expectation.client_id, now)?;
    let claims = match expectation.nonce {
        Some(nonce) => parsed.claims(&verifier, &Nonce::new(nonce.expose().to_owned())),
        None => parsed.claims(&verifier, |_: Option<&Nonce>| Ok(())),
    };
    let claims = claims.map_err(|error| unverified.rejection(error, &issuer, expectation.client_id, now))?;
    // From here on the payload is the provider's word.
    check_authorized_party(claims, expectation.client_id)?;
    check_times(claims, &unverified.payload, expectation, now)?;
    check_access_token_hash(&parsed, &verifier, claims, expectation.access_token)?;
    let subject = checked_subject(claims, expectation.subject)?;
    let said = Claims::of(&unverified.payload);
    let expires = Timestamp::from_second(claims.expiration().timestamp()).unwrap_or(Timestamp::MAX);
    Ok(Verified {
        expires: expires.min(now.saturating_add(LONGEST_LIFE).unwrap_or(expires)),
        subject,
        person: said.person.unwrap_or_default(),
        issuer,
        audience: said.audience,
    })
}

/// A public client's, so that no shared secret can sign; without the provider's word on algorithms.
fn verifier<'a>(
    issuer: &str,
    template: &str,
    keys: &KeySet,
    client_id: &str,
    now: Timestamp,
) -> Result<IdTokenVerifier<'a, SigningKey>, Rejection> {
    let one_tenant = issuer == template;
    let keys = keys.keys().iter().filter(|key| one_tenant || key.is_for(issuer, template)).cloned().collect();
    let issuer =
        IssuerUrl::new(issuer.to_owned()).map_err(|_| Rejection::Malformed("the issuer is no URL".to_owned()))?;
    let latest_end = SystemTime::from(now.saturating_sub(LEEWAY).unwrap_or(now));
    Ok(IdTokenVerifier::new_public_client(ClientId::new(client_id.to_owned()), issuer, KeySet::new(keys))
        .set_allowed_algs(ALGORITHMS.map(|(_, algorithm)| algorithm))
        .set_time_fn(move || latest_end.into())
        // The authorized party decides: `check_authorized_party`.
        .set_other_audience_verifier_fn(|_| true))
}

/// A token for several clients is ours if it says that it was issued to us: Core §3.1.3.7 has us
/// refuse audiences that we do not trust, and the one that we trust is the provider that names us.
/// An authorized party that is named has to be us in any case.
fn check_authorized_party(claims: &CoreIdTokenClaims, client_id: &str) -> Result<(), Rejection> {
    let others = claims.audiences().iter().any(|audience| audience.as_str() != client_id);
    let found = claims.authorized_party().map(|party| party.as_str());
    match found {
        Some(party) if party == client_id => Ok(()),
        None if !others => Ok(()),
        _ => Err(Rejection::AuthorizedParty { expected: client_id.to_owned(), found: found.map(str::to_owned) }),
    }
}

fn check_times(
    claims: &CoreIdTokenClaims,
    payload: &JsonObject,
    expectation: &Expectation<'_>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let latest = now.saturating_add(LEEWAY).unwrap_or(now);
    let issued = Timestamp::from_second(claims.issue_time().timestamp()).unwrap_or(Timestamp::MAX);
    if issued > latest {
        return Err(Rejection::NotYet { claim: "iat", from: issued, now });
    }
    if issued < Timestamp::UNIX_EPOCH {
        return Err(Rejection::Malformed("its time of issue (`iat`) is negative".to_owned()));
    }
    if expectation.nonce.is_some() && now.duration_since(issued) > OLDEST_AT_SIGN_IN {
        return Err(Rejection::Old { issued, now });
    }
    let positive = payload.value("nbf").and_then(Value::as_f64).is_some_and(|seconds| seconds > 0.0);
    let from = payload.time("nbf").unwrap_or(Timestamp::MAX);
    if positive && from > latest {
        return Err(Rejection::NotYet { claim: "nbf", from, now });
    }
    Ok(())
}

/// Whether both tokens are of one sign-in (Core §3.1.3.8).
fn check_access_token_hash(
    token: &CoreIdToken,
    verifier: &IdTokenVerifier<'_, SigningKey>,
    claims: &CoreIdTokenClaims,
    access_token: Option<&Secret>,
) -> Result<(), Rejection> {
    let Some((found, access_token)) = claims.access_token_hash().zip(access_token) else { return Ok(()) };
    let access_token = AccessToken::new(access_token.expose().to_owned());
    let expected = token.signing_alg().and_then(|algorithm| {
        let key = token.signing_key(verifier)?;
        AccessTokenHash::from_token(&access_token, algorithm, key)
            .map_err(|error| SignatureVerificationError::Other(error.to_string()))
    });
    if expected.is_ok_and(|expected| expected == *found) { Ok(()) } else { Err(Rejection::AccessTokenHash) }
}

fn checked_subject(claims: &CoreIdTokenClaims, expected: Option<&str>) -> Result<String, Rejection> {
    let subject = claims.subject().as_str();
    let wrong = |how: &str| Err(Rejection::Malformed(format!("its subject (`sub`) {how}")));
    match subject.chars().count() {
        0 => return wrong("is empty"),
        1..=LONGEST_SUBJECT => {}
        _ => return wrong("is longer than 255 characters"),
    }
    if subject.chars().any(char::is_control) {
        return wrong("has control characters");
    }
    match expected {
        Some(expected) if expected != subject => Err(Rejection::OtherSubject),
        _ => Ok(subject.to_owned()),
    }
}

/// A token before it is verified: for what the library has to be told, and for messages.
struct Unverified {
    header: JsonObject,
    payload: JsonObject,
}

impl Unverified {
    /// Reads a signed token, and refuses early what is told better here than by the library.
    fn read(token: &Secret) -> Result<Self, Rejection> {
        let malformed = |what: &str, how: &str| Rejection::Malformed(format!("its {what} is {how}"));
        let Some([header, payload, _]) = claims::parts(token.expose()) else {
            return Err(Rejection::Malformed(match token.expose().split('.').count() {
                5 => "it is encrypted, which is not supported".to_owned(),
                count => format!("it has {count} parts, and a signed token has 3"),
            }));
        };
        let header = claims::object(header).map_err(|how| malformed("header", how))?;
        let payload = claims::object(payload).map_err(|how| malformed("payload", how))?;
        let algorithm = header.value("alg").and_then(Value::as_str);
        if !ALGORITHMS.iter().any(|(name, _)| Some(*name) == algorithm) {
            return Err(Rejection::Algorithm(algorithm.unwrap_or_default().to_owned()));
        }
        let text = |name| payload.value(name).is_some_and(Value::is_string);
        let number = |name| payload.value(name).is_some_and(Value::is_number);
        for (name, good) in [("iss", text("iss")), ("sub", text("sub")), ("exp", number("exp")), ("iat", number("iat"))]
        {
            if !good {
                let how = if payload.value(name).is_some() { "of the wrong type" } else { "missing" };
                return Err(malformed(&format!("claim `{name}`"), how));
            }
        }
        if payload.value("nbf").is_some_and(|from| !from.is_number() && !from.is_null()) {
            return Err(malformed("claim `nbf`", "of the wrong type"));
        }
        Ok(Self { header, payload })
    }

    /// The provider's issuer; of Entra ID's for several tenants, the one of the token's tenant.
    fn expected_issuer(&self, template: &str) -> Result<String, Rejection> {
        if !template.contains(TENANT) {
            return Ok(template.to_owned());
        }
        match self.payload.text("tid").filter(|tenant| entra::is_guid(tenant)) {
            Some(tenant) => Ok(template.replace(TENANT, tenant)),
            None => Err(Rejection::NoTenant),
        }
    }

    /// Which claim the library cannot read, found by trying each one alone.
    fn unreadable(&self) -> Rejection {
        let alone = |(name, value): &(&String, &Value)| {
            let mut claims = json!({"iss": "https://localhost", "sub": "", "exp": 0, "iat": 0});
            if let Some(claims) = claims.as_object_mut() {
                claims.insert((*name).clone(), (*value).clone());
            }
            serde_json::from_value::<CoreIdTokenClaims>(claims).is_err()
        };
        match self.payload.iter().find(alone) {
            Some((name, _)) => Rejection::Malformed(format!("its claim `{name}` cannot be read")),
            None => Rejection::Malformed("its header or signature cannot be read".to_owned()),
        }
    }

    fn rejection(&self, error: ClaimsVerificationError, issuer: &str, client_id: &str, now: Timestamp) -> Rejection {
        match error {
            ClaimsVerificationError::InvalidIssuer(_) => Rejection::Issuer {
                expected: issuer.to_owned(),
                found: self.payload.text("iss").unwrap_or_default().to_owned(),
            },
            ClaimsVerificationError::InvalidAudience(_) => {
                Rejection::Audience { expected: client_id.to_owned(), found: claims::texts(&self.payload, "aud") }
            }
            ClaimsVerificationError::Expired(_) => {
                Rejection::Expired { at: self.payload.time("exp").unwrap_or_default(), now }
            }
            ClaimsVerificationError::InvalidNonce(_) => Rejection::Nonce,
            ClaimsVerificationError::SignatureVerification(error) => match error {
                SignatureVerificationError::NoMatchingKey => {
                    Rejection::NoMatchingKey(self.header.text("kid").map(str::to_owned))
                }
                SignatureVerificationError::AmbiguousKeyId(_) => Rejection::AmbiguousKey,
                SignatureVerificationError::CryptoError(_) => Rejection::BadSignature,
                SignatureVerificationError::InvalidKey(how) => Rejection::UnusableKey(how),
                other => Rejection::UnusableKey(other.to_string()),
            },
            ClaimsVerificationError::Unsupported(how) => Rejection::Malformed(how),
            other => Rejection::Malformed(other.to_string()),
        }
    }
}

/// Where it is configured which access tokens the cluster takes: whether this is one. What a token
/// does not say cannot be compared, so an opaque one passes.
pub(crate) fn check_access_token(token: &Token, settings: &Settings) -> Result<()> {
    let refused = |claim: &str, expected: &str, found: &str| {
        Error::sign_in_failed("the access token is not one that the cluster takes")
            .cause(format!("its {claim} is not `{expected}` but `{found}`"))
    };
    if let (Some(expected), Some(found)) = (&settings.token_issuer, &token.issuer)
        && expected != found
    {
        return Err(refused("issuer", expected, found).hint(token_issuer_hint(expected, found)));
    }
    if let Some(expected) = &settings.token_audience
        && !token.audience.is_empty()
        && !token.audience.contains(expected)
    {
        let found = token.audience.join("`, `");
        return Err(refused("audience", expected, &found).hint(token_audience_hint(expected)));
    }
    Ok(())
}

fn token_issuer_hint(expected: &str, found: &str) -> String {
    match (entra::tenant_of(expected), entra::tenant_of(found)) {
        (Some(one), Some(other)) if one == other => format!(
            "that is Entra ID's other version of tokens, and which it gives is for the API to say: AKS wants version 1, for its own scope, `--scope {}/user.read`",
            entra::AKS_SERVER
        ),
        (Some(_), Some(other)) => format!(
            "you signed in to the tenant `{other}`: take an account of the cluster's, `kubectl headlamp login --prompt select_account`, or name that tenant, `--tenant {other}`"
        ),
        _ => format!("if the cluster takes tokens of that issuer: `--token-issuer {found}`"),
    }
}

fn token_audience_hint(expected: &str) -> String {
    if expected == entra::AKS_SERVER {
        return format!("ask for a scope of the AKS server, and of no other API: `--scope {expected}/user.read`");
    }
    "ask for that audience (`--scope`, `--resource` or `--auth-param audience=…`, as the provider wants it), or name the one that the cluster takes: `--token-audience <audience>`".to_owned()
}

#[cfg(test)]
mod tests;
