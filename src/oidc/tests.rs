#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::error::Kind;
use crate::http::tests::{HURRIED, Server, answer, noon};
use crate::settings::ConnectionSettings;
use crate::ui::Ui;
use crate::{options, settings};

/// A provider on this machine that gives each of its endpoints one answer.
struct Bench {
    server: Server,
    settings: Settings,
    provider: Provider,
    http: Http,
    secret: Option<Secret>,
}

const TOKENS: &str = r#"{"access_token":"a","id_token":"i","refresh_token":"r","token_type":"Bearer"}"#;

impl Bench {
    fn new(flags: &str) -> Self {
        Self::answering(flags, &json!({}), "200 OK", TOKENS)
    }

    fn answering(flags: &str, metadata: &Value, status: &str, body: &str) -> Self {
        let server = Server::answering(vec![answer(status, "", body)]);
        let issuer = format!("http://127.0.0.1:{}", server.port);
        let named = if flags.contains("--issuer-url") || flags.contains("--tenant") {
            String::new()
        } else {
            format!("--issuer-url {issuer}")
        };
        let arguments: Vec<_> =
            format!("--client-id kubernetes {named} {flags}").split_whitespace().map(Into::into).collect();
        let settings = settings::resolve(
            &options::of_arguments(&arguments).unwrap(),
            &Environment::from([("HOME", "/home/jane")]),
        )
        .unwrap();
        let at = |path: &str| format!("{issuer}/{path}");
        let mut document = json!({
            "issuer": settings.identity.issuer,
            "authorization_endpoint": at("authorize?kept=1"),
            "token_endpoint": at("token"),
            "jwks_uri": at("keys"),
            "device_authorization_endpoint": at("device"),
            "revocation_endpoint": at("revoke"),
        });
        document.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        let secret = flags.contains("--client-secret").then(|| Secret::new("s3cret: ä"));
        let http = Http::with_limits(&ConnectionSettings::default(), HURRIED, Ui::new(), Clock::fixed(noon)).unwrap();
        Self { provider: Provider::of_test(&document), server, settings, http, secret }
    }

    fn client(&self) -> Client<'_> {
        Client { settings: &self.settings, provider: &self.provider, http: &self.http, secret: self.secret.as_ref() }
    }

    /// Path, Authorization header and form of the last request.
    fn sent(&self) -> (String, Option<String>, Vec<(String, String)>) {
        let request = self.server.requests().pop().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        assert_eq!(header("content-type: ").unwrap(), "application/x-www-form-urlencoded");
        assert_eq!(header("accept: ").unwrap(), "application/json");
        let path = head.split(' ').nth(1).unwrap().to_owned();
        (path, header("authorization: "), url::form_urlencoded::parse(body.as_bytes()).into_owned().collect())
    }

    fn form(&self) -> Vec<(String, String)> {
        self.sent().2
    }

    fn query(&self, extra: &AuthorizationExtra<'_>) -> (Attempt, Vec<(String, String)>) {
        let attempt = authorization(&self.client(), "http://localhost:8000/A/?b=%2F", extra).unwrap();
        let url = Url::parse(attempt.url.expose()).unwrap();
        let query = url.query_pairs().into_owned().collect();
        (attempt, query)
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const NOTHING: AuthorizationExtra<'static> = AuthorizationExtra { prompt: None, claims: None };

#[test]
fn an_authorization_request_holds_what_the_protocol_and_the_settings_say() {
    let flags = "--scope a --scope openid --resource urn:x --resource urn:y --login-hint jane@example.com --auth-param acr_values=2 --auth-param response_mode=form_post";
    let (attempt, query) = Bench::new(flags).query(&AuthorizationExtra { prompt: Some("consent"), claims: None });
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier.expose()));
    let expected = [
        ("kept", "1"),
        ("response_type", "code"),
        ("client_id", "kubernetes"),
        ("redirect_uri", "http://localhost:8000/A/?b=%2F"),
        ("scope", "openid a"),
        ("state", attempt.state.expose()),
        ("nonce", attempt.nonce.expose()),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("resource", "urn:x"),
        ("resource", "urn:y"),
        ("prompt", "consent"),
        ("login_hint", "jane@example.com"),
        ("acr_values", "2"),
        ("response_mode", "form_post"),
    ];
    assert_eq!(query, pairs(&expected));
}

#[test]
fn state_nonce_and_verifier_are_256_bits_and_new_each_time() {
    let bench = Bench::new("");
    let (one, other) = (bench.query(&NOTHING).0, bench.query(&NOTHING).0);
    let values = [&one.state, &one.nonce, &one.verifier, &other.state, &other.nonce, &other.verifier];
    for (index, value) in values.iter().enumerate() {
        assert_eq!(URL_SAFE_NO_PAD.decode(value.expose()).unwrap().len(), 32);
        assert!(values.iter().skip(index + 1).all(|next| next != value));
    }
}

#[test]
fn pkce_is_used_whatever_the_provider_lists() {
    for methods in [json!(null), json!([]), json!(["plain"])] {
        let bench = Bench::answering("", &json!({ "code_challenge_methods_supported": methods }), "200 OK", TOKENS);
        assert!(bench.query(&NOTHING).1.contains(&("code_challenge_method".to_owned(), "S256".to_owned())));
    }
}

#[test]
fn a_demand_of_the_provider_takes_the_place_of_a_configured_one() {
    let bench = Bench::new("--auth-param claims=mine");
    let claims = |claims| {
        let query = bench.query(&AuthorizationExtra { prompt: None, claims }).1;
        query.into_iter().filter(|(name, _)| name == "claims").map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(claims(None), ["mine"]);
    assert_eq!(claims(Some("theirs")), ["theirs"]);
}

#[test]
fn a_provider_without_sign_in_by_browser_is_a_settings_error() {
    let bench = Bench::answering("", &json!({ "authorization_endpoint": null }), "200 OK", TOKENS);
    let error = authorization(&bench.client(), "http://localhost", &NOTHING).err().unwrap();
    assert_eq!(error.kind(), Kind::Settings);
}

#[test]
fn a_refresh_token_is_asked_for_where_the_provider_knows_how() {
    let scope = |flags: &str, listed: Value| {
        Bench::answering(flags, &json!({ "scopes_supported": listed }), "200 OK", TOKENS).client().scope()
    };
    assert_eq!(scope("", json!(["openid"])), "openid");
    assert_eq!(scope("--scope b,a", json!(["openid", "offline_access"])), "openid a b offline_access");
    assert_eq!(scope("--scope offline_access", json!(null)), "openid offline_access");
    assert_eq!(scope("--provider entra --tenant common", json!([])), "openid offline_access");
    let client = "--flow client-credentials --scope a --scope offline_access";
    assert_eq!(scope(client, json!(["offline_access"])), "openid a");
    assert_eq!(scope(&format!("{client} --token-type access"), json!(["offline_access"])), "a");
}

#[tokio::test]
async fn a_code_is_exchanged_with_the_same_redirect_and_the_verifier() {
    let bench = Bench::new("--resource urn:x --auth-param a=b");
    let secret = Secret::new;
    let attempt = Attempt { url: secret("u"), state: secret("s"), nonce: secret("n"), verifier: secret("v") };
    let reply =
        exchange(&bench.client(), &Secret::new("c&d"), "http://localhost:8000/A/?b=%2F", &attempt).await.unwrap();
    assert_eq!(reply.refresh_token, Some(Secret::new("r")));
    let form = pairs(&[
        ("grant_type", "authorization_code"),
        ("code", "c&d"),
        ("redirect_uri", "http://localhost:8000/A/?b=%2F"),
        ("code_verifier", "v"),
        ("resource", "urn:x"),
        ("client_id", "kubernetes"),
    ]);
    assert_eq!(bench.sent(), ("/token".to_owned(), None, form));
}

#[tokio::test]
async fn the_client_proves_itself_as_the_provider_lists_or_as_it_is_told() {
    let header = "Basic a3ViZXJuZXRlczpzM2NyZXQlM0ErJUMzJUE0";
    for (flags, listed, by_header) in [
        ("--client-secret x", json!(null), true),
        ("--client-secret x", json!([]), true),
        ("--client-secret x", json!(["client_secret_post", "client_secret_basic"]), true),
        ("--client-secret x", json!(["client_secret_post"]), false),
        ("--client-secret x", json!(["private_key_jwt"]), false),
        ("--client-secret x --client-authentication post", json!(null), false),
        ("--client-secret x --client-authentication basic", json!(["client_secret_post"]), true),
    ] {
        let bench =
            Bench::answering(flags, &json!({ "token_endpoint_auth_methods_supported": listed }), "200 OK", TOKENS);
        refresh(&bench.client(), &Secret::new("r")).await.unwrap();
        let (_, authorization, form) = bench.sent();
        let form: BTreeMap<_, _> = form.into_iter().collect();
        let sent = (
            authorization.as_deref(),
            form.get("client_id").map(String::as_str),
            form.get("client_secret").map(String::as_str),
        );
        let expected =
            if by_header { (Some(header), None, None) } else { (None, Some("kubernetes"), Some("s3cret: ä")) };
        assert_eq!(sent, expected, "{flags} {listed}");
    }
}

#[tokio::test]
async fn a_public_client_is_named_in_the_body_even_where_that_is_not_listed() {
    let bench = Bench::answering(
        "",
        &json!({ "token_endpoint_auth_methods_supported": ["client_secret_basic"] }),
        "200 OK",
        TOKENS,
    );
    refresh(&bench.client(), &Secret::new("r")).await.unwrap();
    assert_eq!(
        bench.sent(),
        (
            "/token".to_owned(),
            None,
            pairs(&[("grant_type", "refresh_token"), ("refresh_token", "r"), ("client_id", "kubernetes")])
        )
    );
}

#[tokio::test]
async fn a_refresh_names_the_scopes_again_where_that_is_needed() {
    for (flags, expected) in [
        ("--scope a", None),
        ("--scope a --refresh-scopes always", Some("openid a")),
        ("--scope a --issuer-url https://dev-1.okta.com/oauth2/default", Some("openid a")),
        ("--scope a --issuer-url https://okta.com.evil.example", None),
        ("--scope a --tenant 11111111-2222-3333-4444-555555555555", Some("openid a offline_access")),
        ("--scope a --tenant 11111111-2222-3333-4444-555555555555 --refresh-scopes never", None),
    ] {
        let bench = Bench::new(flags);
        refresh(&bench.client(), &Secret::new("r")).await.unwrap();
        let scope = bench.form().into_iter().find(|(name, _)| name == "scope").map(|(_, value)| value);
        assert_eq!(scope.as_deref(), expected, "{flags}");
    }
}

#[tokio::test]
async fn password_and_client_credentials_send_scopes_resources_and_parameters() {
    let flags = "--scope a --resource urn:x --auth-param audience=b --auth-param response_mode=form_post";
    let bench = Bench::new(flags);
    password(&bench.client(), "jane", &Secret::new("p&w")).await.unwrap();
    let rest = [("scope", "openid a"), ("resource", "urn:x"), ("audience", "b"), ("client_id", "kubernetes")];
    assert_eq!(
        bench.form(),
        pairs(&[&[("grant_type", "password"), ("username", "jane"), ("password", "p&w")][..], &rest].concat())
    );
    let bench = Bench::new(&format!("{flags} --flow client-credentials"));
    client_credentials(&bench.client()).await.unwrap();
    assert_eq!(bench.form(), pairs(&[&[("grant_type", "client_credentials")][..], &rest].concat()));
}

#[tokio::test]
async fn a_device_code_is_asked_for_and_then_polled() {
    let answer =
        r#"{"device_code":"d","user_code":"AB","verification_uri":"https://id.example.com/device","expires_in":60}"#;
    let bench = Bench::answering("--resource urn:x --auth-param a=b", &json!({}), "200 OK", answer);
    let code = device_code(&bench.client()).await.unwrap();
    assert_eq!(
        bench.sent(),
        (
            "/device".to_owned(),
            None,
            pairs(&[("scope", "openid"), ("resource", "urn:x"), ("a", "b"), ("client_id", "kubernetes")])
        )
    );
    for (status, body, expected) in [
        ("400 Bad Request", r#"{"error":"authorization_pending"}"#, "pending"),
        ("403 Forbidden", r#"{"error":"slow_down"}"#, "slow down"),
        ("400 Bad Request", r#"{"error":"expired_token"}"#, "expired_token"),
        ("429 Too Many Requests", "", "unreachable"),
        ("200 OK", TOKENS, "done"),
    ] {
        let bench = Bench::answering("", &json!({}), status, body);
        let told = match device_token(&bench.client(), &code).await {
            Ok(DevicePoll::Pending) => "pending".to_owned(),
            Ok(DevicePoll::SlowDown) => "slow down".to_owned(),
            Ok(DevicePoll::Done(_)) => "done".to_owned(),
            Err(GrantError::Refused(refusal)) => refusal.error,
            Err(GrantError::Failed(error)) if error.kind() == Kind::Unreachable => "unreachable".to_owned(),
            Err(GrantError::Failed(error)) => error.to_string(),
        };
        assert_eq!(told, expected);
    }
    let without = Bench::answering("", &json!({ "device_authorization_endpoint": null }), "200 OK", answer);
    assert!(!without.provider.device_endpoint());
    assert!(
        matches!(device_code(&without.client()).await, Err(GrantError::Failed(error)) if error.kind() == Kind::Settings)
    );
}

#[tokio::test]
async fn a_token_is_revoked_where_the_provider_can() {
    let bench = Bench::answering("", &json!({}), "200 OK", "");
    assert!(revoke(&bench.client(), &Secret::new("r"), "refresh_token").await.unwrap());
    assert_eq!(
        bench.sent(),
        (
            "/revoke".to_owned(),
            None,
            pairs(&[("token", "r"), ("token_type_hint", "refresh_token"), ("client_id", "kubernetes")])
        )
    );
    let refusing = Bench::answering("", &json!({}), "400 Bad Request", r#"{"error":"unsupported_token_type"}"#);
    assert!(matches!(revoke(&refusing.client(), &Secret::new("r"), "access_token").await, Err(GrantError::Refused(_))));
    let without = Bench::answering("", &json!({ "revocation_endpoint": null }), "200 OK", "");
    assert!(!revoke(&without.client(), &Secret::new("r"), "refresh_token").await.unwrap());
    assert!(without.server.requests().is_empty());
}

#[tokio::test]
async fn a_provider_that_repeats_a_secret_does_not_get_it_shown() {
    let body = r#"{"error":"invalid_grant","error_description":"no such token: t0p-secret; client s3cret: ä"}"#;
    let bench = Bench::answering("--client-secret x", &json!({}), "400 Bad Request", body);
    let Err(GrantError::Refused(refusal)) = refresh(&bench.client(), &Secret::new("t0p-secret")).await else {
        unreachable!()
    };
    let error = refusal.explained("no token", &bench.settings).to_string();
    assert!(error.contains("no such token: …; client …") && !error.contains("s3cret"), "{error}");
}
