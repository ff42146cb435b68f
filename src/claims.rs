//! What a JSON Web Token says, read without asking whether it is true: for messages, for `status`,
//! and for the end of an access token, which is the cluster's to judge.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use crate::cache::Person;
use crate::json_object::JsonObject;
use crate::secret::Secret;

/// The claims of a token that we make use of. Each is absent where it is missing or makes no sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) expires: Option<Timestamp>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) person: Option<Person>,
}

/// The claims of a JWT, unverified; `None` if the token is none (an opaque or encrypted one).
pub(crate) fn read_untrusted(token: &Secret) -> Option<Claims> {
    let [_, payload, _] = parts(token.expose())?;
    object(payload).ok().map(|payload| Claims::of(&payload))
}

impl Claims {
    pub(crate) fn of(payload: &JsonObject) -> Self {
        Self {
            expires: payload.time("exp"),
            issuer: text(payload, "iss"),
            audience: texts(payload, "aud"),
            person: person(payload),
        }
    }
}

/// Whom the token is about; nobody without a subject.
fn person(payload: &JsonObject) -> Option<Person> {
    Some(Person {
        subject: text(payload, "sub")?,
        name: text(payload, "name"),
        email: text(payload, "email"),
        username: text(payload, "preferred_username").or_else(|| text(payload, "upn")),
        groups: texts(payload, "groups"),
        tenant: text(payload, "tid"),
    })
}

/// Header, payload and signature of a signed JWT (RFC 7515 §7.1), still encoded.
pub(crate) fn parts(token: &str) -> Option<[&str; 3]> {
    let mut parts = token.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

/// A JSON object, as header and payload of a JWT are, or what it is instead.
pub(crate) fn object(part: &str) -> Result<JsonObject, &'static str> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64url")?;
    JsonObject::parse(&json)
}

/// A text that is not empty and of a sensible length.
fn text(payload: &JsonObject, name: &str) -> Option<String> {
    sensible(payload.value(name)?)
}

/// One text, or a list of them. What is no text in a list is left out, and what is too much.
pub(crate) fn texts(payload: &JsonObject, name: &str) -> Vec<String> {
    match payload.value(name) {
        Some(Value::Array(values)) => values.iter().filter_map(sensible).take(LONGEST_LIST).collect(),
        Some(value) => sensible(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn sensible(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.is_empty() && text.len() <= LONGEST_TEXT).then(|| text.to_owned())
}

/// Bytes: longer names, issuers and groups are nobody's.
const LONGEST_TEXT: usize = 2048;
/// Groups and audiences: more cannot be shown, and the cache file has a size limit.
const LONGEST_LIST: usize = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(payload: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)))
    }

    fn read(payload: &str) -> Option<Claims> {
        read_untrusted(&token(payload))
    }

    #[test]
    fn the_claims_of_a_jwt_are_read_without_its_key() {
        let claims = read(
            r#"{"iss":"https://idp","aud":["a","b"],"exp":1900000000,"sub":"s","name":"Ada","email":"ada@x",
               "preferred_username":"ada","upn":"other","groups":["g1","g2",7],"tid":"t"}"#,
        );
        let person = Person {
            subject: "s".to_owned(),
            name: Some("Ada".to_owned()),
            email: Some("ada@x".to_owned()),
            username: Some("ada".to_owned()),
            groups: vec!["g1".to_owned(), "g2".to_owned()],
            tenant: Some("t".to_owned()),
        };
        let expected = Claims {
            expires: Timestamp::from_second(1_900_000_000).ok(),
            issuer: Some("https://idp".to_owned()),
            audience: vec!["a".to_owned(), "b".to_owned()],
            person: Some(person),
        };
        assert_eq!(claims, Some(expected));
    }

    #[test]
    fn an_end_is_read_in_every_spelling_that_makes_sense() {
        let seconds = |exp: &str| {
            let claims = read(&format!(r#"{{"exp":{exp}}}"#)).unwrap_or_default();
            claims.expires.map(Timestamp::as_second)
        };
        for exp in ["1900000000", "1900000000.9", "1.9e9", r#""1900000000""#, r#""1.9e9""#] {
            assert_eq!(seconds(exp), Some(1_900_000_000), "{exp}");
        }
        let absurd = [
            "0",
            "-1",
            "null",
            "true",
            "[1900000000]",
            "{}",
            "1e300",
            "-1e300",
            "9223372036854775808",
            "1900000000000000",
            r#""""#,
            r#""soon""#,
            r#""NaN""#,
            r#""inf""#,
            r#""2030-01-01T00:00:00Z""#,
        ];
        for exp in absurd {
            assert_eq!(seconds(exp), None, "{exp}");
        }
    }

    #[test]
    fn an_opaque_or_encrypted_token_says_nothing() {
        let opaque = ["", "abc", "a.b", "a.b.c", "a.b.c.d.e", "e30.e30.c2ln.", "e30.W10.c2ln", "e30.e30=.c2ln"];
        for text in opaque {
            assert_eq!(read_untrusted(&Secret::new(text)), None, "{text}");
        }
        assert_eq!(read("{\"exp\":1900000000"), None);
        assert_eq!(read(r#"{"exp":1900000000,"exp":1}"#), None);
        assert_eq!(read("{}"), Some(Claims::default()));
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let long = "x".repeat(LONGEST_TEXT + 1);
        let groups = vec!["g"; LONGEST_LIST + 1];
        let payload = serde_json::json!({"sub": "s", "name": long, "iss": long, "groups": groups, "aud": [long, "a"]});
        let claims = read(&payload.to_string()).unwrap_or_default();
        let person = claims.person.unwrap_or_default();
        assert_eq!((person.name, claims.issuer, person.groups.len()), (None, None, LONGEST_LIST));
        assert_eq!(claims.audience, ["a"]);
        assert_eq!(read(r#"{"name":"nobody"}"#).unwrap_or_default().person, None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,120}") {
            let _ = read_untrusted(&Secret::new(text));
        }

        #[test]
        fn any_claims_are_read_without_panic(
            names in proptest::collection::vec("exp|iss|aud|sub|name|email|upn|groups|tid|.{0,5}", 0..8),
            values in proptest::collection::vec(any_json(), 8),
        ) {
            let payload: serde_json::Map<String, Value> = names.into_iter().zip(values).collect();
            prop_assert!(read(&Value::from(payload).to_string()).is_some());
        }
    }
}
