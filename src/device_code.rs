//! The device authorization endpoint's answer (RFC 8628 §3.2).

use std::time::Duration;

use url::Url;

use crate::error::{Error, Kind, printable};
use crate::http;
use crate::json_object::JsonObject;
use crate::provider_metadata::endpoint;
use crate::refusal::GrantError;
use crate::secret::Secret;

/// A code to be typed in on another device. What a person is shown is safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the RFC's name")]
pub(crate) struct DeviceCode {
    pub(crate) device_code: Secret,
    pub(crate) user_code: String,
    pub(crate) verification_uri: String,
    /// The same with the code in it.
    pub(crate) verification_uri_complete: Option<String>,
    pub(crate) expires_in: Duration,
    /// Between two questions.
    pub(crate) interval: Duration,
}

impl DeviceCode {
    pub(crate) fn of(url: &Url, object: &JsonObject) -> Result<Self, GrantError> {
        let unusable = |reason: &str| {
            let error = Error::new(Kind::Other, format!("the device code of `{}` cannot be used", http::shown(url)));
            GrantError::Failed(error.cause(reason))
        };
        // Google's name for it is older than the RFC.
        let address = object.text("verification_uri").or_else(|| object.text("verification_url"));
        let address = address.ok_or_else(|| unusable("`verification_uri` is missing"))?;
        let complete = object.text("verification_uri_complete").or_else(|| object.text("verification_url_complete"));
        let user_code = object.text("user_code").ok_or_else(|| unusable("`user_code` is missing"))?;
        if printable(user_code) != user_code || user_code.len() > LONGEST_USER_CODE {
            return Err(unusable("its `user_code` is none that a person could type"));
        }
        // What is shown is the parsed address: ASCII, whatever was sent.
        let shown = |name: &str, text: &str| {
            endpoint(text).map(String::from).map_err(|reason| unusable(&format!("`{name}`: {reason}")))
        };
        Ok(Self {
            device_code: object
                .text("device_code")
                .map(Secret::new)
                .ok_or_else(|| unusable("`device_code` is missing"))?,
            user_code: user_code.to_owned(),
            verification_uri: shown("verification_uri", address)?,
            verification_uri_complete: complete.map(|text| shown("verification_uri_complete", text)).transpose()?,
            expires_in: object.seconds("expires_in").unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE),
            interval: object.seconds("interval").unwrap_or(USUAL_INTERVAL).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL),
        })
    }
}

const LONGEST_USER_CODE: usize = 64;
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn code(changes: &Value) -> Result<DeviceCode, String> {
        let mut value = json!({ "device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://id.example.com/device", "expires_in": 600 });
        value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let object = JsonObject::parse(value.to_string().as_bytes()).unwrap();
        DeviceCode::of(&Url::parse("https://id.example.com/device_authorization").unwrap(), &object).map_err(|error| {
            match error {
                GrantError::Failed(error) => error.to_string(),
                GrantError::Refused(refusal) => unreachable!("{refusal:?}"),
            }
        })
    }

    #[test]
    fn times_are_capped_both_ways() {
        let times = |expires: Value, interval: Value| {
            let code = code(&json!({ "expires_in": expires, "interval": interval })).unwrap();
            (code.expires_in.as_secs(), code.interval.as_secs())
        };
        assert_eq!(times(json!(600), Value::Null), (600, 5));
        assert_eq!(times(json!("900"), json!(0)), (900, 1));
        assert_eq!(times(json!(1e9), json!(1e9)), (1800, 60));
        assert_eq!(times(Value::Null, json!(-5)), (1800, 1));
    }

    #[test]
    fn googles_older_name_is_understood() {
        let google = json!({ "verification_uri": null, "verification_url": "https://www.google.com/device" });
        assert_eq!(code(&google).unwrap().verification_uri, "https://www.google.com/device");
    }

    #[test]
    fn what_a_person_is_shown_can_lead_nowhere_else() {
        for bad in [
            "http://id.example.com/device",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://login.example@evil.example/",
            "nonsense",
        ] {
            for name in ["verification_uri", "verification_uri_complete"] {
                assert!(code(&json!({ name: bad })).unwrap_err().contains(&format!("`{name}`")), "{bad}");
            }
        }
        let odd = code(&json!({ "verification_uri": "https://p\u{430}ypal.com/\u{1b}[2J\u{202e}a" })).unwrap();
        assert_eq!(odd.verification_uri, "https://xn--pypal-4ve.com/%1B[2J%E2%80%AEa");
        for bad in ["A\u{1b}[2J", "A\nB", "A\u{202e}B", "  A", &"A".repeat(65), ""] {
            assert!(code(&json!({ "user_code": bad })).unwrap_err().contains("`user_code`"), "{bad}");
        }
        assert!(code(&json!({ "device_code": "" })).unwrap_err().contains("`device_code`"));
        assert!(code(&json!({ "verification_uri": 1 })).unwrap_err().contains("`verification_uri`"));
    }

    proptest! {
        #[test]
        fn no_answer_panics_and_what_is_shown_is_printable(user_code in ".*", address in ".*", seconds: f64) {
            let changes = json!({ "user_code": user_code, "verification_uri": format!("https://{address}"), "interval": seconds });
            if let Ok(code) = code(&changes) {
                prop_assert_eq!(printable(&code.user_code), code.user_code);
                prop_assert!(code.verification_uri.is_ascii());
            }
        }
    }
}
