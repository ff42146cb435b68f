//! What a provider says when it does not give what was asked for (RFC 6749 §4.1.2.1 and §5.2).

use ::http::{Response, StatusCode};
use jiff::Timestamp;
use url::Url;

use crate::attempt::Attempt;
use crate::callback::CallbackRefusal;
use crate::entra::{aadsts, preset};
use crate::error::{Error, Kind};
use crate::http;
use crate::json_object::JsonObject;
use crate::options::Flow;
use crate::secret::Secret;
use crate::settings::{SecretSource, Settings};

/// Why a grant brought no tokens.
#[derive(Debug)]
pub(crate) enum GrantError {
    /// By the provider's own decision.
    Refused(Box<Refusal>),
    /// The provider could not be asked, or its answer means nothing.
    Failed(Error),
}

/// A provider's refusal, in its own words. They are shown only through [`Refusal::explained`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A code such as `invalid_grant`.
    pub(crate) error: String,
    pub(crate) description: Option<String>,
    /// A page about it.
    pub(crate) uri: Option<String>,
    /// What the next sign-in must satisfy: the value of its `claims` parameter (Entra ID).
    pub(crate) claims: Option<String>,
    /// Entra ID's narrower code.
    pub(crate) suberror: Option<String>,
    /// Entra ID's numbers, the first known of which counts.
    pub(crate) codes: Vec<u32>,
}

/// The members of a good answer, or why it is none. `secrets` are those of the request: providers
/// have been seen to repeat them in what they say.
pub(crate) fn answer(
    url: &Url,
    response: &Response<Vec<u8>>,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<JsonObject, GrantError> {
    let status = response.status();
    let object = JsonObject::parse(response.body());
    let refusal = object.as_ref().ok().and_then(|object| Refusal::of(object, secrets));
    if http::is_unavailable(status) {
        let error = http::unavailable(url, response, now);
        return Err(GrantError::Failed(match refusal {
            Some(refusal) => error.cause(refusal.quoted()),
            None => error,
        }));
    }
    if let Some(refusal) = refusal {
        // RFC 6749 §4.1.2.1: what 503 and 500 would say, where they cannot be said.
        if matches!(refusal.error.as_str(), "temporarily_unavailable" | "server_error") {
            let error = Error::unreachable("the provider cannot answer now").cause(refusal.quoted());
            return Err(GrantError::Failed(error.hint("try again in a while")));
        }
        return Err(GrantError::Refused(Box::new(refusal)));
    }
    match object {
        Ok(object) if status.is_success() => Ok(object),
        Ok(_) => Err(meaningless(url, status, "it does not say why")),
        Err(reason) => Err(meaningless(url, status, &format!("it is {reason}"))),
    }
}

fn meaningless(url: &Url, status: StatusCode, reason: &str) -> GrantError {
    let error =
        Error::new(Kind::Other, format!("the answer `{status}` of `{}` means nothing", http::shown(url))).cause(reason);
    GrantError::Failed(match status {
        StatusCode::UNAUTHORIZED => error.hint("check the client's ID and its secret"),
        _ => error.hint(
            "a proxy or firewall may have answered in the provider's place; else whoever runs the provider must look",
        ),
    })
}

impl Refusal {
    /// The refusal in an answer, if it is one.
    fn of(object: &JsonObject, secrets: &[Secret]) -> Option<Self> {
        let text = |name: &str| object.text(name).map(|text| without(text, secrets));
        let codes = object.value("error_codes").and_then(|codes| codes.as_array());
        let codes = codes.into_iter().flatten().filter_map(|code| u32::try_from(code.as_u64()?).ok()).collect();
        Some(Self {
            error: text("error")?,
            description: text("error_description"),
            uri: text("error_uri"),
            claims: object.text("claims").map(str::to_owned),
            suberror: text("suberror"),
            codes,
        })
    }

    /// What the browser brought back at the end of this attempt.
    pub(crate) fn from_callback(refusal: CallbackRefusal, attempt: &Attempt) -> Self {
        let secrets = [attempt.state.clone(), attempt.nonce.clone()];
        let text = |text: Option<String>| text.map(|text| without(&text, &secrets));
        Self {
            error: without(&refusal.error, &secrets),
            description: text(refusal.description),
            uri: text(refusal.uri),
            ..Self::default()
        }
    }

    /// The error to show: `what` did not happen, the provider's words, and the way out.
    pub(crate) fn explained(&self, what: &str, settings: &Settings) -> Error {
        let error = Error::sign_in_failed(what).cause(self.quoted());
        let code = self.codes.iter().copied().chain(self.description.as_deref().and_then(aadsts::code_in));
        if let Some(entra) = code.into_iter().find_map(aadsts::explain) {
            return error.cause(entra.meaning).hint(filled_in(entra.fix, settings));
        }
        match (self.hint(settings), &self.uri) {
            (Some(hint), _) => error.hint(hint),
            (None, Some(uri)) => error.hint(format!("the provider explains it at `{uri}`")),
            (None, None) => error,
        }
    }

    fn quoted(&self) -> String {
        let narrower = self.suberror.as_ref().map(|code| format!(" (`{code}`)")).unwrap_or_default();
        let description = self.description.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        format!("the provider says `{}`{narrower}{description}", self.error)
    }

    /// The way out, by the code (RFC 6749 §4.1.2.1 and §5.2, `OpenID` Connect Core §3.1.2.6, RFC 8707 §2).
    fn hint(&self, settings: &Settings) -> Option<String> {
        let identity = &settings.identity;
        let names_redirect =
            self.description.as_deref().is_some_and(|text| text.to_ascii_lowercase().contains("redirect"));
        Some(match self.error.as_str() {
            "redirect_uri_mismatch" => register_redirect(settings),
            "invalid_request" | "unauthorized_client" if names_redirect => register_redirect(settings),
            "invalid_client" if matches!(settings.client_secret, SecretSource::None) => {
                format!("check that `{}` is the client's ID; if the client has a secret, give it with `--client-secret-file <file>`", identity.client_id)
            }
            "invalid_client" => "check the client's secret, and how it is sent: `--client-authentication basic` or `post`".to_owned(),
            "unauthorized_client" | "unsupported_grant_type" => {
                format!("let the client `{}` use this flow at the provider, or choose another one with `--flow`", identity.client_id)
            }
            "invalid_scope" => {
                let scopes: Vec<&str> = identity.scopes.iter().map(String::as_str).collect();
                format!("ask for scopes that the provider knows, with `--scope`; these were asked for: `{}`", scopes.join(" "))
            }
            "invalid_target" => "check `--resource`: the provider does not know it, or the client may not use it".to_owned(),
            "access_denied" => "sign in again and agree to what is asked; if you did, whoever runs the provider must let you use this client".to_owned(),
            "login_required" | "interaction_required" | "consent_required" | "account_selection_required"
                if settings.prompt.as_deref() == Some("none") =>
            {
                "without `--prompt none` the provider can ask you".to_owned()
            }
            "invalid_grant" if settings.flow == Flow::Password || settings.username.is_some() => "check user name and password".to_owned(),
            _ => return None,
        })
    }
}

fn register_redirect(settings: &Settings) -> String {
    let redirects: Vec<String> = settings.callback.places.iter().map(|place| format!("`{}`", place.redirect)).collect();
    format!("register this redirect for the client, character for character: {}", redirects.join(" or "))
}

/// The reader's own client and tenant in the place of the table's.
fn filled_in(fix: &str, settings: &Settings) -> String {
    let fix = fix.replace("<client-id>", &settings.identity.client_id);
    match settings.identity.issuer.split('/').find(|part| preset::is_guid(part)) {
        Some(tenant) => fix.replace("<tenant-id>", tenant),
        None => fix,
    }
}

/// The text without the secrets that it repeats. Shorter ones would take words out of any text.
fn without(text: &str, secrets: &[Secret]) -> String {
    let long = secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= 6);
    long.fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::environment::Environment;
    use crate::{options, settings};

    fn settings_of(line: &str) -> Settings {
        let arguments: Vec<_> = line.split_whitespace().map(Into::into).collect();
        settings::resolve(&options::of_arguments(&arguments).unwrap(), &Environment::from([("HOME", "/home/jane")]))
            .unwrap()
    }

    fn plain() -> Settings {
        settings_of("--issuer-url https://id.example.com --client-id kubernetes")
    }

    fn answered(status: u16, body: &str) -> Result<JsonObject, GrantError> {
        let mut response = Response::new(body.as_bytes().to_vec());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        answer(
            &Url::parse("https://id.example.com/token").unwrap(),
            &response,
            &[Secret::new("s3cret-code")],
            Timestamp::UNIX_EPOCH,
        )
    }

    fn refused(status: u16, body: &str) -> Refusal {
        match answered(status, body) {
            Err(GrantError::Refused(refusal)) => *refusal,
            other => unreachable!("{other:?}"),
        }
    }

    fn failed(status: u16, body: &str) -> Error {
        match answered(status, body) {
            Err(GrantError::Failed(error)) => error,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn only_the_providers_own_words_are_a_refusal() {
        assert_eq!(refused(400, r#"{"error":"invalid_grant"}"#).error, "invalid_grant");
        // Some say it with 200 or 403.
        assert_eq!(refused(200, r#"{"error":"invalid_grant"}"#).error, "invalid_grant");
        assert_eq!(refused(403, r#"{"error":"authorization_pending"}"#).error, "authorization_pending");
        for (status, body) in [
            (503, r#"{"error":"invalid_grant"}"#),
            (500, "<html>"),
            (429, ""),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"error":"server_error"}"#),
        ] {
            assert_eq!(failed(status, body).kind(), Kind::Unreachable, "{status} {body}");
        }
        for (status, body) in [
            (400, "<html>"),
            (400, "{}"),
            (403, ""),
            (401, "no"),
            (200, "<html>"),
            (200, "[]"),
            (400, r#"{"error":{"code":1}}"#),
            (400, r#"{"error":""}"#),
        ] {
            assert_eq!(failed(status, body).kind(), Kind::Other, "{status} {body}");
        }
        assert!(answered(200, r#"{"access_token":"a"}"#).is_ok());
    }

    #[test]
    fn entras_members_are_kept_and_secrets_are_taken_out() {
        let body = r#"{"error":"interaction_required","error_description":"AADSTS50076: no s3cret-code here","error_codes":[50076,"x",-1],
            "claims":"{\"access_token\":{}}","suberror":"basic_action","error_uri":"https://login.microsoftonline.com/error?code=50076"}"#;
        let refusal = refused(400, body);
        assert_eq!(refusal.description.as_deref(), Some("AADSTS50076: no … here"));
        assert_eq!(
            (refusal.claims.as_deref(), refusal.codes.as_slice()),
            (Some(r#"{"access_token":{}}"#), &[50076][..])
        );
    }

    #[test]
    fn each_code_has_its_way_out() {
        let hint = |error: &str, description: Option<&str>, settings: &Settings| {
            let refusal =
                Refusal { error: error.to_owned(), description: description.map(str::to_owned), ..Refusal::default() };
            let error = refusal.explained("no token", settings);
            assert_eq!((error.kind(), error.message()), (Kind::SignInFailed, "no token"));
            error.hints().join("; ")
        };
        let with_secret = settings_of("--issuer-url https://id.example.com --client-id kubernetes --client-secret x");
        for (error, description, settings, expected) in [
            ("invalid_client", None, plain(), "--client-secret-file"),
            ("invalid_client", None, with_secret, "--client-authentication"),
            ("unauthorized_client", None, plain(), "`kubernetes`"),
            ("unsupported_grant_type", None, plain(), "--flow"),
            ("invalid_scope", None, plain(), "`openid`"),
            ("invalid_target", None, plain(), "--resource"),
            ("access_denied", None, plain(), "agree"),
            ("redirect_uri_mismatch", None, plain(), "`http://localhost:8000/oidc-callback`"),
            ("invalid_request", Some("Invalid Redirect_URI"), plain(), "`http://localhost:8000/oidc-callback`"),
            (
                "login_required",
                None,
                settings_of("--issuer-url https://a --client-id c --prompt none"),
                "--prompt none",
            ),
            ("invalid_grant", None, settings_of("--issuer-url https://a --client-id c --username jane"), "password"),
        ] {
            let hint = hint(error, description, &settings);
            assert!(hint.contains(expected), "{error}: {hint}");
        }
        assert_eq!(hint("new_code", None, &plain()), "");
    }

    #[test]
    fn entras_numbers_are_explained_with_the_readers_own_values() {
        let line = "--provider entra --tenant 11111111-2222-3333-4444-555555555555 --aks --client-id my-client";
        let by_text = Refusal {
            error: "invalid_request".to_owned(),
            description: Some("AADSTS50011: The redirect".to_owned()),
            ..Refusal::default()
        };
        let by_number = Refusal { error: "invalid_request".to_owned(), codes: vec![50011], ..Refusal::default() };
        for refusal in [by_text, by_number] {
            let error = refusal.explained("no token", &settings_of(line)).to_string();
            assert!(error.contains("is not registered") && error.contains("--id my-client "), "{error}");
        }
    }

    #[test]
    fn a_providers_text_cannot_move_the_terminal() {
        let body =
            "{\"error\":\"a\\u001b[2Jb\",\"error_description\":\"c\\nd\\u202e\",\"error_uri\":\"https://e\\u0007\"}";
        let error = refused(400, body).explained("no token", &plain()).to_string();
        assert_eq!(
            error,
            "kubectl-headlamp: error: no token\n  caused by: the provider says `a[2Jb`: c d\n\nhint: the provider explains it at `https://e`"
        );
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100..600u16, error in ".*", description in ".*", codes: Vec<i64>) {
            let body = serde_json::json!({ "error": error, "error_description": description, "error_codes": codes });
            if let Err(GrantError::Refused(refusal)) = answered(status, &body.to_string()) {
                refusal.explained("no token", &plain());
            }
            let _ = answered(status, &description);
        }
    }
}
