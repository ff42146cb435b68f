//! kubectl's question and our answer: the `client.authentication.k8s.io` exec credential
//! (KEP-541). The question comes in the variable `KUBERNETES_EXEC_INFO`, the answer goes to stdout.

use jiff::Timestamp;
use serde::Deserialize;

use crate::environment::Environment;
use crate::error::{Error, Result, printable};
use crate::secret::Secret;

const VARIABLE: &str = "KUBERNETES_EXEC_INFO";

/// Bytes. The variable may hold a CA bundle; systems end it far below this anyway.
const LONGEST: usize = 1024 * 1024;

/// The version of question and answer; kubectl insists on getting the one it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V1beta1,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "client.authentication.k8s.io/v1",
            Self::V1beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::V1, Self::V1beta1].into_iter().find(|version| version.name() == name)
    }
}

/// What kubectl asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) version: Version,
    /// Whether stdin may be read; `None` when no client asked: somebody typed the command.
    pub(crate) interactive: Option<bool>,
    /// The API server's URL, where the kubeconfig has `provideClusterInfo`: a name for messages.
    pub(crate) cluster_server: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Spec {
    interactive: Option<bool>,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    server: Option<String>,
}

impl Request {
    /// Without the variable, or with an empty one or `{}`, the answer is v1beta1, as kubelogin's.
    pub(crate) fn from_environment(environment: &Environment) -> Result<Self> {
        let Some(value) = environment.value(VARIABLE) else { return Self::parse("{}") };
        match value.to_str() {
            Some(text) if text.len() > LONGEST => {
                Err(unreadable().cause(format!("it is longer than {LONGEST} bytes: {}", text.len())))
            }
            Some(text) => Self::parse(text),
            None => Err(unreadable().cause("it is not UTF-8")),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        // The parser's own words may quote what other programs put there.
        let info: Info = serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "not an `ExecCredential`" } else { "not JSON" };
            unreadable().cause(format!("{what} at line {}, column {}", error.line(), error.column()))
        })?;
        let version = match info.api_version.as_deref() {
            None | Some("") => Version::V1beta1,
            Some(name) => Version::parse(name).ok_or_else(|| unknown(name))?,
        };
        let (interactive, cluster) = info.spec.map_or((None, None), |spec| (spec.interactive, spec.cluster));
        Ok(Self { version, interactive, cluster_server: cluster.and_then(|cluster| cluster.server) })
    }
}

fn unreadable() -> Error {
    Error::settings(format!("cannot understand `{VARIABLE}`"))
        .hint(format!("kubectl sets it; to run this by hand: `unset {VARIABLE}`"))
}

fn unknown(name: &str) -> Error {
    Error::settings(format!("`{VARIABLE}` asks for a version that is not known: `{}`", printable(name)))
        .hint(format!("write `apiVersion: {}` in the user's `exec` entry of the kubeconfig", Version::V1.name()))
}

/// The answer, one line of JSON with its end. `expires` is what stands in it, cut to the second:
/// the caller has made it earlier than the token's own.
pub(crate) fn answer(version: Version, token: &Secret, expires: Timestamp) -> String {
    // Whole seconds are always in range, and nothing expires before 1970.
    let expires = Timestamp::from_second(expires.as_second().max(0)).unwrap_or(expires);
    let token = serde_json::Value::from(token.expose());
    format!(
        r#"{{"kind":"ExecCredential","apiVersion":"{}","status":{{"expirationTimestamp":"{expires}","token":{token}}}}}{}"#,
        version.name(),
        '\n'
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_versions_are_answered_in_kind_and_others_refused() {
        for (text, expected) in [
            (r#"{"apiVersion":"client.authentication.k8s.io/v1"}"#, Some(Version::V1)),
            (r#"{"apiVersion":"client.authentication.k8s.io/v1beta1","spec":{}}"#, Some(Version::V1beta1)),
            ("{}", Some(Version::V1beta1)),
            (r#"{"apiVersion":"client.authentication.k8s.io/v2","later":[1]}"#, None),
            (r#"{"apiVersion":1}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(Request::parse(text).ok().map(|request| request.version), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_question_is_a_reason_to_panic(text in "\\PC*", key in "apiVersion|spec|kind", value in any::<Option<i64>>()) {
            let _ = Request::parse(&text);
            let _ = Request::parse(&serde_json::json!({ key: value }).to_string());
        }

        #[test]
        fn an_answer_is_one_line_of_json_whatever_the_token_is(token in any::<String>(), second in -1i64..4_000_000_000) {
            let expires = Timestamp::from_second(second).unwrap();
            let text = answer(Version::V1, &Secret::new(token.clone()), expires);
            prop_assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["status"]["token"].as_str(), Some(token.as_str()));
            let told: Timestamp = value["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
            prop_assert_eq!(told.as_second(), second.max(0));
        }
    }
}
