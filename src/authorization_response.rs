//! The provider's answer to an authorization request (RFC 6749 §4.1.2), as the browser carries it
//! home: in a query, in a form, or in what a person has copied from the address bar.

use std::collections::BTreeMap;

use oauth2::CsrfToken;
use url::form_urlencoded;

use crate::error::{self, Error};
use crate::secret::Secret;

/// A code or a refusal. It answers this very sign-in: its `state` is the one that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorizationResponse {
    pub(crate) result: Result<Secret, CallbackRefusal>,
    /// Who claims to answer (RFC 9207), not yet compared with anything.
    pub(crate) issuer: Option<String>,
}

/// The provider's refusal in its own words (RFC 6749 §4.1.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallbackRefusal {
    pub(crate) error: String,
    pub(crate) description: Option<String>,
    pub(crate) uri: Option<String>,
}

/// Why parameters are not the answer that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Neither a code nor an error.
    Neither,
    CodeAndError,
    /// RFC 6749 §3.1: no parameter may come twice.
    Repeated(&'static str),
    WithoutState,
    OtherSignIn,
}

impl AuthorizationResponse {
    /// Reads `application/x-www-form-urlencoded` text: a query without its `?`, or a form.
    pub(crate) fn read(text: &[u8], state: &Secret) -> Result<Self, NoAnswer> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text) {
            let Some(name) = PARAMETERS.iter().copied().find(|known| *known == name) else { continue };
            if found.insert(name, value.into_owned()).is_some() {
                return Err(NoAnswer::Repeated(name));
            }
        }
        // RFC 6749 §3.1: a parameter without a value counts as omitted.
        found.retain(|_, value| !value.is_empty());
        let (code, error) = (found.remove("code"), found.remove("error"));
        if code.is_none() && error.is_none() {
            return Err(NoAnswer::Neither);
        }
        let claimed = Secret::new(found.remove("state").ok_or(NoAnswer::WithoutState)?);
        if !same(&claimed, state) {
            return Err(NoAnswer::OtherSignIn);
        }
        let result = match (code, error) {
            (Some(code), None) => Ok(Secret::new(code)),
            (None, Some(error)) => {
                let (description, uri) = (found.remove("error_description"), found.remove("error_uri"));
                Err(CallbackRefusal { error, description, uri })
            }
            _ => return Err(NoAnswer::CodeAndError),
        };
        Ok(Self { result, issuer: found.remove("iss") })
    }
}

/// Compares secrets in a time that tells nothing of where they differ.
pub(crate) fn same(one: &Secret, other: &Secret) -> bool {
    CsrfToken::new(one.expose().to_owned()) == CsrfToken::new(other.expose().to_owned())
}

/// What a person has pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pasted {
    /// The address that the browser went to holds the whole answer.
    Answer(AuthorizationResponse),
    /// A code alone. It cannot say whose it is (RFC 9207 speaks of whole answers).
    Code(Secret),
}

/// Reads what a person has pasted: the whole address that the browser ended at (of any host, for
/// whoever forwards ports), its query or fragment alone, or the bare code. An address must hold
/// this sign-in's `state`.
///
/// A bare code has none, and is taken all the same: a code that somebody slipped to the person was
/// made for another code challenge and nonce, so it yields nothing (RFC 7636; OIDC Core §3.1.3.7).
pub(crate) fn parse_pasted(text: &str, state: &Secret) -> error::Result<Pasted> {
    let text = unwrapped(text);
    if text.is_empty() {
        return Err(Error::sign_in_failed("nothing was pasted"));
    }
    let (front, fragment) = text.split_once('#').unwrap_or((&text, ""));
    for part in [front, fragment] {
        let query = part.split_once('?').map_or(part, |(_, query)| query);
        match AuthorizationResponse::read(query.replace(' ', "").as_bytes(), state) {
            Err(NoAnswer::Neither) => {}
            Err(reason) => return Err(not_pasted(reason)),
            Ok(response) => return Ok(Pasted::Answer(response)),
        }
    }
    bare_code(&text).map(Pasted::Code)
}

/// What was copied, without what terminals, mails and chats add: line breaks with the space around
/// them, quotes, angle brackets, invisible characters.
fn unwrapped(text: &str) -> String {
    let text: String = text.lines().map(str::trim).collect();
    let text: String = text
        .chars()
        .filter(|character| *character == ' ' || character.is_ascii_graphic() || character.is_alphanumeric())
        .collect();
    text.trim_matches([' ', '"', '\'', '`', '<', '>']).to_owned()
}

/// A code that stands alone. Copied from an address it is percent-encoded, from a page it is not.
fn bare_code(text: &str) -> error::Result<Secret> {
    let address = ["http:", "https:", "localhost", "127.0.0.1", "[::1]"].iter().any(|start| text.starts_with(start));
    if address || text.contains("://") || text.contains(['?', '&']) {
        return Err(not_pasted(NoAnswer::Neither));
    }
    if text.len() < SHORTEST_CODE || !text.chars().all(|character| character.is_ascii_graphic()) {
        return Err(Error::sign_in_failed("this is neither an address nor a code"));
    }
    let encoded = format!("code={}", text.replace('+', "%2B"));
    let code = form_urlencoded::parse(encoded.as_bytes()).next().map(|(_, code)| Secret::new(code));
    code.ok_or_else(|| Error::bug("a code was lost"))
}

fn not_pasted(reason: NoAnswer) -> Error {
    Error::sign_in_failed(match reason {
        NoAnswer::Neither => "this is not the address where the sign-in ended, it has no code".to_owned(),
        NoAnswer::CodeAndError => "this address has both a code and an error".to_owned(),
        NoAnswer::Repeated(name) => format!("this address has `{name}` more than once"),
        NoAnswer::WithoutState => "this address is not complete, its `state` is missing".to_owned(),
        NoAnswer::OtherSignIn => "this is the answer to another sign-in".to_owned(),
    })
}

/// All that is read; the rest (`session_state` and the like) is ignored, as RFC 6749 §4.1.2 demands.
const PARAMETERS: [&str; 6] = ["code", "state", "iss", "error", "error_description", "error_uri"];

/// Codes hold 128 random bits or more (RFC 6749 §10.10): what is shorter was typed by mistake.
const SHORTEST_CODE: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<AuthorizationResponse, NoAnswer> {
        AuthorizationResponse::read(text.as_bytes(), &Secret::new("s-1+"))
    }

    fn pasted(text: &str) -> Result<String, String> {
        match parse_pasted(text, &Secret::new("s-1+")) {
            Ok(Pasted::Code(code)) => Ok(code.expose().to_owned()),
            Ok(Pasted::Answer(response)) => Ok(response.result.unwrap().expose().to_owned()),
            Err(error) => Err(error.message().to_owned()),
        }
    }

    /// The answer of an address.
    fn answer(text: &str) -> AuthorizationResponse {
        match parse_pasted(text, &Secret::new("s")).unwrap() {
            Pasted::Answer(response) => response,
            Pasted::Code(_) => unreachable!("{text}"),
        }
    }

    #[test]
    fn a_code_with_the_right_state_is_the_answer() {
        let response = read("code=a%2Fb+c&state=s-1%2B&iss=https%3A%2F%2Fid&session_state=x&scope=openid").unwrap();
        assert_eq!(response.result.unwrap().expose(), "a/b c");
        assert_eq!(response.issuer.as_deref(), Some("https://id"));
    }

    #[test]
    fn a_refusal_keeps_the_providers_words() {
        let refusal = read("error=access_denied&error_description=no+%1b%5B31m&state=s-1%2B&error_uri=u")
            .unwrap()
            .result
            .unwrap_err();
        assert_eq!(refusal.error, "access_denied");
        assert_eq!(refusal.description.as_deref(), Some("no \u{1b}[31m"));
        assert_eq!(refusal.uri.as_deref(), Some("u"));
    }

    #[test]
    fn what_is_not_the_answer_is_told_apart() {
        let cases = [
            ("", NoAnswer::Neither),
            ("state=s-1%2B", NoAnswer::Neither),
            ("CODE=a&state=s-1%2B", NoAnswer::Neither),
            ("code=&error=&state=s-1%2B", NoAnswer::Neither),
            ("code=a", NoAnswer::WithoutState),
            ("error=access_denied", NoAnswer::WithoutState),
            ("code=a&state=", NoAnswer::WithoutState),
            ("code=a&state=s-1", NoAnswer::OtherSignIn),
            ("code=a&state=s-1+", NoAnswer::OtherSignIn),
            ("code=a&state=S-1%2B", NoAnswer::OtherSignIn),
            ("code=a&state=s-1%2B%00", NoAnswer::OtherSignIn),
            ("code=a&state=x&state=s-1%2B", NoAnswer::Repeated("state")),
            ("code=a&state=s-1%2B&state=s-1%2B", NoAnswer::Repeated("state")),
            ("code=a&code=a&state=s-1%2B", NoAnswer::Repeated("code")),
            ("code=a&%63ode=b&state=s-1%2B", NoAnswer::Repeated("code")),
            ("code=a&code=&state=s-1%2B", NoAnswer::Repeated("code")),
            ("code=a&state=s-1%2B&iss=x&iss=y", NoAnswer::Repeated("iss")),
            ("code=a&error=b&state=s-1%2B", NoAnswer::CodeAndError),
        ];
        for (text, reason) in cases {
            assert_eq!(read(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn an_address_can_be_pasted_however_it_was_copied() {
        let cases = [
            "http://localhost:8000/oidc-callback?code=abc/d%2B&state=s-1%2B",
            "https://elsewhere.example/x?a=b&state=s-1%2B&code=abc/d%2B#_=_",
            "  'http://localhost:8000/?code=abc/d%2B&state=s-1%2B'\r\n",
            "<http://localhost:8000/?code=abc/d%2B&state=s-1%2B>",
            "\u{201c}http://localhost:8000/?code=abc/d%2B&state=s-1%2B\u{201d}\u{200b}",
            "http://localhost:8000/oidc-callback?co\n   de=abc/d%\r\n2B&state=s-1%2B",
            "http://localhost:8000/oidc-callback?code=abc/ d%2B&state=s-1%2B",
            "localhost:8000/oidc-callback?code=abc/d%2B&state=s-1%2B",
            "http://localhost:8000/oidc-callback#code=abc/d%2B&state=s-1%2B",
            "http://localhost:8000/?b=c#/home?code=abc/d%2B&state=s-1%2B",
            "?code=abc/d%2B&state=s-1%2B",
            "#code=abc/d%2B&state=s-1%2B",
            "state=s-1%2B&code=abc/d%2B",
        ];
        for text in cases {
            assert_eq!(pasted(text).as_deref(), Ok("abc/d+"), "{text}");
        }
    }

    #[test]
    fn a_bare_code_can_be_pasted_encoded_or_not() {
        assert_eq!(pasted("4/0AbCd-ef_g").as_deref(), Ok("4/0AbCd-ef_g"));
        assert_eq!(pasted("4%2F0AbCd-ef_g\n").as_deref(), Ok("4/0AbCd-ef_g"));
        assert_eq!(pasted("abcde+gh==").as_deref(), Ok("abcde+gh=="));
        assert_eq!(pasted("0.AXoA\n  qwert").as_deref(), Ok("0.AXoAqwert"));
    }

    #[test]
    fn what_cannot_be_the_answer_is_said() {
        let cases = [
            ("", "nothing was pasted"),
            (" \n\"\" ", "nothing was pasted"),
            ("http://localhost:8000/start/0123456789abcdef", "no code"),
            ("localhost:8000/oidc-callback", "no code"),
            ("https://id.example.com/authorize?response_type=code&client_id=c&state=s-1%2B", "no code"),
            ("id.example.com/authorize?client_id=c", "no code"),
            ("http://localhost:8000/?code=abc", "`state` is missing"),
            ("code=abc", "`state` is missing"),
            ("http://localhost:8000/?code=abc&state=other", "another sign-in"),
            ("http://localhost:8000/?code=a&code=b&state=s-1%2B", "more than once"),
            ("http://localhost:8000/?code=a&error=b&state=s-1%2B", "both"),
            ("y", "neither"),
            ("kubectl get pods", "neither"),
            ("пароль-пароль", "neither"),
        ];
        for (text, part) in cases {
            let message = pasted(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_pasted_refusal_is_a_refusal() {
        let response = answer("http://localhost/?error=access_denied&state=s");
        assert_eq!(response.result.unwrap_err().error, "access_denied");
    }

    #[test]
    fn neither_debug_nor_errors_show_a_code() {
        assert!(!format!("{:?}", read("code=hunter2&state=s-1%2B")).contains("hunter2"));
        for text in ["http://localhost/?code=hunter2&state=x", "hunter2 hunter2", "code=hunter2"] {
            let error = parse_pasted(text, &Secret::new("s")).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_pasted_is_answered(text in any::<String>()) {
            let _ = parse_pasted(&text, &Secret::new("s"));
        }

        #[test]
        fn only_the_state_that_was_sent_is_accepted(text in "[ -~]{0,40}", state in "[ -~]{1,12}") {
            let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("code", "abc").append_pair("state", &text).finish();
            let accepted = AuthorizationResponse::read(query.as_bytes(), &Secret::new(state.clone())).is_ok();
            prop_assert_eq!(accepted, text == state);
        }

        #[test]
        fn every_code_survives_the_way_through_an_address(code in "[ -~]{1,80}") {
            let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("code", &code).append_pair("state", "s").finish();
            let response = answer(&format!("http://localhost:8000/?{query}"));
            let got = response.result.unwrap();
            prop_assert_eq!(got.expose(), code);
        }
    }
}
