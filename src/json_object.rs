//! JSON objects that others send. They are read member by member, so that an odd one does not lose
//! the rest, and refused when one member stands twice, at any depth, because readers differ on which
//! of the two counts (RFC 8259 §4, RFC 7515 §4, RFC 7517 §4, RFC 7519 §4).

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct JsonObject(Map<String, Value>);

impl JsonObject {
    /// The object, or what the text is instead: the rest of a sentence that begins with "it is".
    /// Nothing of the text is quoted: it may be secret.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        match serde_json::from_slice(bytes) {
            Ok(Unique(Value::Object(members))) => Ok(Self(members)),
            Ok(Unique(_)) => Err("JSON, but not an object"),
            Err(_) if bytes.trim_ascii_start().starts_with(b"<") => Err("a web page"),
            Err(_) if bytes.is_empty() => Err("empty"),
            Err(error) if error.is_data() => Err("JSON in which a name stands twice"),
            Err(_) => Err("not JSON"),
        }
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// A member that is not `null`.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The strings of an array, if there is one.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.value(name)?.as_array()?.iter().filter_map(Value::as_str);
        Some(texts.map(str::to_owned).collect())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| *value == Value::Bool(true))
    }

    /// A number of seconds, which some providers send as a text; a negative one is none.
    pub(crate) fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds = self.number(name)?;
        Duration::try_from_secs_f64(f64::max(seconds, 0.0)).ok()
    }

    /// Seconds since 1970 (RFC 7519 §2): whole, with a fraction, or, against the RFC, as a text.
    /// What no calendar can hold is no time.
    pub(crate) fn time(&self, name: &str) -> Option<Timestamp> {
        let since_1970 = match self.value(name)?.as_i64() {
            Some(seconds) => SignedDuration::from_secs(seconds),
            None => SignedDuration::try_from_secs_f64(self.number(name)?).ok()?,
        };
        let seconds = since_1970.as_secs();
        Timestamp::from_second(seconds).ok().filter(|_| seconds > 0)
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Unique::deserialize(deserializer)? {
            Unique(Value::Object(members)) => Ok(Self(members)),
            Unique(_) => Err(D::Error::custom("not an object")),
        }
    }
}

impl From<Map<String, Value>> for JsonObject {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

/// A value in which no object has a member twice. The parser limits its depth.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_read_as_providers_write_them() {
        let object = JsonObject::parse(
            br#"{"a":"x","b":"","c":null,"d":["x",1,"y"],"e":"3600","f":3600,"g":-1,"h":1e300,"i":true,"j":"true"}"#,
        )
        .unwrap();
        assert_eq!(
            [object.text("a"), object.text("b"), object.text("c"), object.text("d")],
            [Some("x"), None, None, None]
        );
        assert_eq!(object.texts("d").unwrap(), ["x", "y"]);
        let seconds = ["e", "f", "g", "h", "i"].map(|name| object.seconds(name).map(|span| span.as_secs()));
        assert_eq!(seconds, [Some(3600), Some(3600), Some(0), None, None]);
        assert!(object.is_true("i") && !object.is_true("j"));
    }

    #[test]
    fn what_is_no_object_is_named_and_not_quoted() {
        let reason = |text: &str| JsonObject::parse(text.as_bytes()).unwrap_err();
        assert_eq!(reason("\n <html>s3cret"), "a web page");
        assert_eq!(reason("\"s3cret\""), "JSON, but not an object");
        assert_eq!(reason(""), "empty");
        assert_eq!(reason("{\"a\":s3cret}"), "not JSON");
        assert_eq!(reason("\u{feff}{}"), "not JSON");
        assert_eq!(reason("{\"a\":1,\"a\":1}"), "JSON in which a name stands twice");
        assert_eq!(reason("{\"a\":[{\"b\":1,\"b\":2}]}"), "JSON in which a name stands twice");
        assert_eq!(reason(&"[".repeat(5000)), "not JSON");
        assert_eq!(reason(&"{\"a\":".repeat(5000)), "not JSON");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = JsonObject::parse(&bytes);
        }

        #[test]
        fn a_text_comes_back_as_it_was_sent(name in "[a-z]{1,8}", text in ".{1,40}") {
            let bytes = serde_json::to_vec(&serde_json::json!({ (name.clone()): text })).unwrap();
            let object = JsonObject::parse(&bytes).unwrap();
            prop_assert_eq!(object.text(&name), Some(text.as_str()));
        }
    }
}
