//! A token endpoint's answer (RFC 6749 §5.1, `OpenID` Connect Core §3.1.3.3). Only what cannot be used
//! makes it worthless: a provider that has rotated a refresh token will not send it twice.

use std::time::Duration;

use url::Url;

use crate::error::{Error, Kind};
use crate::http;
use crate::json_object::JsonObject;
use crate::refusal::GrantError;
use crate::secret::Secret;

/// What a grant brought. Nothing of it is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id_token: Option<Secret>,
    pub(crate) access_token: Option<Secret>,
    pub(crate) refresh_token: Option<Secret>,
    /// Of the access token.
    pub(crate) expires_in: Option<Duration>,
    /// What was granted, where the provider says it.
    pub(crate) scope: Option<String>,
    /// Of the refresh token (Keycloak, and others under another name).
    pub(crate) refresh_expires_in: Option<Duration>,
}

impl Reply {
    pub(crate) fn of(url: &Url, object: &JsonObject) -> Result<Self, GrantError> {
        let unusable = |reason: String| {
            let error = Error::new(Kind::Other, format!("the tokens of `{}` cannot be used", http::shown(url)));
            GrantError::Failed(error.cause(reason))
        };
        // RFC 6749 §7.1: a client must not use a token of a type that it does not understand.
        if let Some(kind) = object.text("token_type").filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(unusable(format!("they are of the type `{kind}`, and Kubernetes takes bearer tokens only")));
        }
        let token = |name: &str| match object.text(name) {
            // RFC 6749 appendix A.12; anything else would break the header that it is sent in.
            Some(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(unusable(format!("`{name}` has characters that no token has")))
            }
            text => Ok(text.map(Secret::new)),
        };
        let refresh_expires_in =
            object.seconds("refresh_expires_in").or_else(|| object.seconds("refresh_token_expires_in"));
        Ok(Self {
            id_token: token("id_token")?,
            access_token: token("access_token")?,
            refresh_token: token("refresh_token")?,
            expires_in: object.seconds("expires_in"),
            scope: object.text("scope").map(str::to_owned),
            // Keycloak writes 0 for one that never ends.
            refresh_expires_in: refresh_expires_in.filter(|span| !span.is_zero()),
        })
    }

    /// The scopes that were asked for and not granted. Those that bring tokens, not rights, are
    /// often left out of the list.
    pub(crate) fn scopes_missing<'a>(&self, asked: &'a str) -> Vec<&'a str> {
        let Some(granted) = &self.scope else { return Vec::new() };
        let granted: Vec<&str> = granted.split([' ', ',']).collect();
        asked
            .split(' ')
            .filter(|scope| !["openid", "offline_access"].contains(scope) && !granted.contains(scope))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn reply(value: &Value) -> Result<Reply, String> {
        let object = JsonObject::parse(value.to_string().as_bytes()).unwrap();
        Reply::of(&Url::parse("https://id.example.com/token").unwrap(), &object).map_err(|error| match error {
            GrantError::Failed(error) => error.to_string(),
            GrantError::Refused(refusal) => unreachable!("{refusal:?}"),
        })
    }

    #[test]
    fn a_whole_reply_is_read() {
        let read = reply(&json!({ "access_token": "a", "id_token": "i", "refresh_token": "r", "token_type": "bearer",
            "expires_in": "3600", "refresh_expires_in": 0, "refresh_token_expires_in": 1, "scope": "openid a" }));
        let secret = |text: &str| Some(Secret::new(text));
        assert_eq!(
            read.unwrap(),
            Reply {
                id_token: secret("i"),
                access_token: secret("a"),
                refresh_token: secret("r"),
                expires_in: Some(Duration::from_secs(3600)),
                scope: Some("openid a".to_owned()),
                refresh_expires_in: None,
            }
        );
    }

    #[test]
    fn an_odd_member_does_not_lose_the_rest() {
        for odd in [
            json!({ "expires_in": [] }),
            json!({ "scope": ["a"] }),
            json!({ "token_type": 1 }),
            json!({ "id_token": null }),
            json!({ "x": { "y": 1 } }),
            json!({ "access_token": 7 }),
        ] {
            let mut value = json!({ "refresh_token": "r", "token_type": "BEARER" });
            value.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            assert_eq!(reply(&value).unwrap().refresh_token, Some(Secret::new("r")), "{odd}");
        }
    }

    #[test]
    fn tokens_that_kubernetes_cannot_take_are_refused() {
        for kind in ["DPoP", "mac", "N_A"] {
            assert!(
                reply(&json!({ "access_token": "a", "token_type": kind })).unwrap_err().contains(&format!("`{kind}`"))
            );
        }
        for text in ["s3cret\r\nX: y", "s3cret token", "s3cret\u{e9}", "\u{0}s3cret"] {
            let error = reply(&json!({ "id_token": text })).unwrap_err();
            assert!(error.contains("`id_token`") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn scopes_that_were_not_granted_are_found() {
        let granted = |scope: Value| reply(&json!({ "scope": scope })).unwrap();
        assert_eq!(granted(json!("openid a")).scopes_missing("openid a b offline_access"), ["b"]);
        assert_eq!(granted(json!("a,b")).scopes_missing("openid a b"), Vec::<&str>::new());
        assert_eq!(granted(Value::Null).scopes_missing("openid a"), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn no_reply_panics(member in "access_token|id_token|expires_in|refresh_expires_in|scope|token_type", text in ".*", number: f64) {
            let _ = reply(&json!({ member.as_str(): text })).map(|reply| reply.scopes_missing("openid a").len());
            let _ = reply(&json!({ member.as_str(): number }));
        }
    }
}
