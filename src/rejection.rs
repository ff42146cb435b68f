//! Why an ID token is refused, in words that help.

use jiff::Timestamp;

use crate::entra::preset as entra;
use crate::error::Error;

/// Why an ID token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It is no signed ID token as `OpenID` Connect has them, for this reason.
    Malformed(String),
    /// It is signed with an algorithm of this name (none: it does not say), which is not believed.
    Algorithm(String),
    /// The provider has no key of this name (no name: none that fits).
    NoMatchingKey(Option<String>),
    /// It names no key, and several fit.
    AmbiguousKey,
    /// The provider's key is unfit, for this reason.
    UnusableKey(String),
    BadSignature,
    Issuer {
        expected: String,
        found: String,
    },
    /// The issuer is for several tenants, and the token names none.
    NoTenant,
    Audience {
        expected: String,
        found: Vec<String>,
    },
    /// It was issued to another client, or does not say that it was to this one of several.
    AuthorizedParty {
        expected: String,
        found: Option<String>,
    },
    /// It is not of this sign-in.
    Nonce,
    Expired {
        at: Timestamp,
        now: Timestamp,
    },
    /// One of its times is in the future.
    NotYet {
        claim: &'static str,
        from: Timestamp,
        now: Timestamp,
    },
    /// It was not made for this sign-in.
    Old {
        issued: Timestamp,
        now: Timestamp,
    },
    /// It does not belong to the access token that came with it.
    AccessTokenHash,
    /// A refresh brought another account's.
    OtherSubject,
}

impl Rejection {
    /// Whether the provider may have changed its keys since they were fetched. Some keep the name
    /// of the old key, so a wrong signature counts too.
    pub(crate) fn newer_keys_may_help(&self) -> bool {
        matches!(self, Self::NoMatchingKey(_) | Self::BadSignature)
    }

    fn cause(&self) -> String {
        match self {
            Self::Malformed(how) => how.clone(),
            Self::Algorithm(name) => match name.as_str() {
                "" => "it does not say how it is signed".to_owned(),
                name if name.eq_ignore_ascii_case("none") => "it is not signed".to_owned(),
                name => format!("it is signed with `{name}`, which is not accepted"),
            },
            Self::NoMatchingKey(Some(name)) => format!("the provider lists no key `{name}` that fits"),
            Self::NoMatchingKey(None) => "the provider lists no key that fits".to_owned(),
            Self::AmbiguousKey => "several of the provider's keys fit, and it does not say which it is".to_owned(),
            Self::UnusableKey(how) => format!("the provider's key cannot be used: {how}"),
            Self::BadSignature => "it is not signed with the provider's key".to_owned(),
            Self::Issuer { expected, found } => format!("its issuer is not `{expected}` but `{found}`"),
            Self::NoTenant => "it does not say of which tenant it is (`tid`)".to_owned(),
            Self::Audience { expected, found } => {
                format!("it is not for this client, `{expected}`, but for `{}`", found.join("`, `"))
            }
            Self::AuthorizedParty { expected, found: Some(found) } => {
                format!("it was not issued to this client, `{expected}`, but to `{found}` (`azp`)")
            }
            Self::AuthorizedParty { expected, found: None } => {
                format!("it is for several clients, and does not say that it was issued to `{expected}` (`azp`)")
            }
            Self::Nonce => "it is not of this sign-in: its `nonce` is missing or another".to_owned(),
            Self::Expired { at, now } => format!("it ended at {at}, and {}", clock_says(*now)),
            Self::NotYet { claim, from, now } => {
                format!("it is good only from {from} on (`{claim}`), and {}", clock_says(*now))
            }
            Self::Old { issued, now } => {
                format!("it was issued at {issued} (`iat`), long before this sign-in, and {}", clock_says(*now))
            }
            Self::AccessTokenHash => "it does not belong to the access token that came with it (`at_hash`)".to_owned(),
            Self::OtherSubject => "it is another account's than before (`sub`)".to_owned(),
        }
    }

    /// What helps, where something is known to.
    fn hint(&self) -> Option<String> {
        const KEYS: &str = "the provider may be changing its keys just now: try again in a minute";
        const AGAIN: &str = "sign in again: `kubectl headlamp login`";
        const CLOCK: &str = "set this machine's clock if that is not the time: `date -u` shows it";
        const CLIENT: &str = "compare `--client-id` with the client that is registered with the provider";
        Some(match self {
            Self::Algorithm(_) => "have the provider sign this client's ID tokens with RS256 (or PS256, ES256, ES384, EdDSA), mostly called `id_token_signed_response_alg`".to_owned(),
            Self::NoMatchingKey(_) | Self::BadSignature => KEYS.to_owned(),
            Self::AmbiguousKey => "the provider has to name the key in each token (`kid`)".to_owned(),
            Self::UnusableKey(_) => "the provider needs a new signing key: RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519".to_owned(),
            Self::Issuer { expected, found } => issuer_hint(expected, found),
            Self::NoTenant => "name the tenant: `--tenant <tenant-id>`".to_owned(),
            Self::Audience { .. } | Self::AuthorizedParty { .. } => CLIENT.to_owned(),
            Self::Nonce | Self::AccessTokenHash | Self::OtherSubject => AGAIN.to_owned(),
            Self::Expired { .. } | Self::NotYet { .. } | Self::Old { .. } => CLOCK.to_owned(),
            Self::Malformed(_) => return None,
        })
    }
}

fn clock_says(now: Timestamp) -> String {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    format!("this machine's clock says {now}")
}

fn issuer_hint(expected: &str, found: &str) -> String {
    let loose = |issuer: &str| issuer.trim_end_matches('/').to_ascii_lowercase();
    match (entra::tenant_of(expected), entra::tenant_of(found)) {
        (Some(one), Some(other)) if one == other => format!(
            "`https://sts.windows.net/<tenant-id>/` is Entra ID's version 1, `https://login.microsoftonline.com/<tenant-id>/v2.0` its version 2: `--issuer-url {found}`, or `--tenant {other}` for version 2"
        ),
        (_, Some(other)) if entra::is_entra(expected) => format!(
            "you signed in to the tenant `{other}`: take an account of the configured one, `kubectl headlamp login --prompt select_account`, or name that tenant, `--tenant {other}`"
        ),
        _ if loose(expected) == loose(found) => {
            format!("write the issuer exactly as the provider does: `--issuer-url {found}`")
        }
        _ => "compare `--issuer-url` with the provider that you signed in to".to_owned(),
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let error = Self::sign_in_failed("the provider's ID token is not accepted").cause(rejection.cause());
        match rejection.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
