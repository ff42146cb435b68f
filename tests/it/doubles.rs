//! The doubles themselves: a leak check that finds nothing, or a provider that takes everything,
//! would let every other test pass.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use headlamp_test_support::{
    AccessTokens, Answer, ApiServer, Browser, Endpoint, Play, Provider, RefreshTokens, Sandbox, SecretKind,
    SelfSubjectReview, SignIn,
};
use serde_json::{Value, json};
use url::Url;

use crate::BINARY;

fn shell(sandbox: &Sandbox, script: &str) -> Result<(), String> {
    let run = || sandbox.program(Path::new("/bin/sh"), ["-c", script]).run().succeeded();
    let panic = |panic: Box<dyn std::any::Any + Send>| panic.downcast_ref::<String>().cloned().unwrap_or_default();
    catch_unwind(AssertUnwindSafe(run)).map(drop).map_err(panic)
}

/// A provider that has issued a code, and the code.
fn provider_with_a_code(sandbox: &Sandbox) -> (Provider, String) {
    let provider = Provider::start();
    sandbox.know(&provider);
    let page = Browser::new().request("GET", &authorization_url(&provider), &[], "").unwrap();
    let location = page.headers.iter().find(|(name, _)| name == "location").unwrap().1.clone();
    let code = Url::parse(&location).unwrap().query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    (provider, code)
}

fn authorization_url(provider: &Provider) -> Url {
    let mut url = Url::parse(&format!("{}/authorize", provider.issuer())).unwrap();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", "kubernetes")
        .append_pair("redirect_uri", "http://localhost:8000/oidc-callback")
        .append_pair("scope", "openid offline_access")
        .append_pair("state", "a-state-of-a-test")
        // RFC 7636, appendix B.
        .append_pair("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
        .append_pair("code_challenge_method", "S256");
    url
}

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

#[test]
fn the_leak_check_finds_a_secret_wherever_it_is_written() {
    let sandbox = Sandbox::new(BINARY);
    let (provider, code) = provider_with_a_code(&sandbox);
    let half = &code[..24];
    for (script, place) in [
        (format!("echo {code}"), "stdout"),
        (format!("echo 'the code is {code}' >&2"), "stderr"),
        (format!("echo 'a line that was cut: {half}' >&2"), "stderr"),
        (format!("echo {code} > \"$HOME/notes\""), "notes"),
        (format!("$BROWSER http://localhost/?code={code}"), "opened"),
        (format!("export CODE={code}; $BROWSER http://localhost/"), "environment"),
    ] {
        let sandbox = Sandbox::new(BINARY);
        sandbox.play(Play::Ignore);
        sandbox.know(&provider);
        let leak = shell(&sandbox, &script).expect_err(&script);
        assert!(leak.contains("Code in ") && leak.contains(place), "{script}: {leak}");
    }
}

#[test]
fn the_leak_check_lets_the_answer_to_kubectl_and_the_cache_pass() {
    let sandbox = Sandbox::new(BINARY);
    let (_provider, code) = provider_with_a_code(&sandbox);
    let credential = format!(r#"{{"kind":"ExecCredential","status":{{"token":"{code}"}}}}"#);
    shell(&sandbox, &format!("echo '{credential}'")).unwrap();
    shell(&sandbox, &format!("echo '{credential}'; echo '{credential}'")).unwrap_err();
    std::fs::create_dir_all(sandbox.cache_folder()).unwrap();
    shell(&sandbox, &format!("echo {code} > '{}/entry.json'", sandbox.cache_folder().display())).unwrap();
}

#[test]
fn the_provider_takes_a_code_once_and_only_with_its_verifier_and_redirect() {
    let sandbox = Sandbox::new(BINARY);
    let redeem = |provider: &Provider, code: &str, redirect: &str, verifier: &str| {
        let body = format!(
            "grant_type=authorization_code&client_id=kubernetes&code={code}&redirect_uri={redirect}&code_verifier={verifier}"
        );
        let url = Url::parse(&format!("{}/token", provider.issuer())).unwrap();
        Browser::new().request("POST", &url, &[], &body).unwrap().status
    };
    let redirect = "http://localhost:8000/oidc-callback";
    let (provider, code) = provider_with_a_code(&sandbox);
    assert_eq!(redeem(&provider, &code, redirect, &VERIFIER.replace('d', "e")), 400);
    let (provider, code) = provider_with_a_code(&sandbox);
    assert_eq!(redeem(&provider, &code, "http://localhost:8001/oidc-callback", VERIFIER), 400);
    let (provider, code) = provider_with_a_code(&sandbox);
    assert_eq!(redeem(&provider, &code, redirect, VERIFIER), 200);
    assert_eq!(provider.grants_alive(), 1);
    assert_eq!(redeem(&provider, &code, redirect, VERIFIER), 400);
    assert_eq!(provider.grants_alive(), 0, "a code that is used twice ends what came of it");
}

#[test]
fn the_use_of_a_replaced_refresh_token_ends_the_grant() {
    let sandbox = Sandbox::new(BINARY);
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.access_tokens = AccessTokens::Jwt);
    sandbox.know(&provider);
    let token = Url::parse(&format!("{}/token", provider.issuer())).unwrap();
    let request = |body: &str| {
        let page = Browser::new().request("POST", &token, &[], body).unwrap();
        let reply: Value = serde_json::from_str(&page.body).unwrap();
        (page.status, reply["refresh_token"].as_str().unwrap_or_default().to_owned())
    };
    let refresh = |old: &str| request(&format!("grant_type=refresh_token&client_id=kubernetes&refresh_token={old}"));
    let password = "username=jane@example.com&password=correct+horse+battery+staple";
    let (_, first) =
        request(&format!("grant_type=password&client_id=kubernetes&scope=openid+offline_access&{password}"));
    let (status, second) = refresh(&first);
    assert_eq!(status, 200);
    assert_eq!(refresh(&first).0, 400);
    assert_eq!(refresh(&second).0, 400, "nobody knows which of the two was stolen");
    assert_eq!(provider.token_requests("refresh_token").len(), 3);
    let kinds: Vec<SecretKind> = provider.issued().iter().map(|secret| secret.kind).collect();
    for kind in [SecretKind::IdToken, SecretKind::AccessToken, SecretKind::RefreshToken, SecretKind::Password] {
        assert!(kinds.contains(&kind), "{kind:?} is not among the issued: {kinds:?}");
    }
}

#[test]
fn the_browser_signs_in_by_a_page_and_by_a_form() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.sign_in = SignIn::AfterClick);
    let mut url = authorization_url(&provider);
    let page = Browser::new().open(url.as_str()).unwrap();
    assert_eq!((page.status, page.history.len()), (200, 1), "nobody clicked");
    let receiver = Provider::start();
    provider.set(|behaviour| behaviour.redirects.push(format!("{}/nowhere", receiver.issuer())));
    for mode in ["query", "form_post"] {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != "redirect_uri" && name != "response_mode")
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs)
            .append_pair("redirect_uri", &format!("{}/nowhere", receiver.issuer()))
            .append_pair("response_mode", mode);
        let page = Browser::new().clicking().open(url.as_str()).unwrap();
        assert_eq!(page.status, 404);
    }
    let came: Vec<(String, Option<String>)> = receiver
        .requests(Endpoint::Other)
        .iter()
        .map(|request| (request.method.clone(), request.parameter("state")))
        .collect();
    let state = Some("a-state-of-a-test".to_owned());
    assert_eq!(came, [("GET".to_owned(), state.clone()), ("POST".to_owned(), state)]);
}

#[test]
fn a_scripted_answer_takes_the_place_of_one_usual_one() {
    let provider = Provider::start();
    let keys = Url::parse(&format!("{}/keys", provider.issuer())).unwrap();
    let ask = || Browser::new().request("GET", &keys, &[], "");
    let usual = ask().unwrap();
    provider.script(Endpoint::Keys, Answer::json(503, &json!({})));
    provider.script(Endpoint::Keys, Answer::close());
    provider.script(Endpoint::Keys, Answer::reset());
    provider.script(Endpoint::Keys, Answer::usual().dripped(50, Duration::from_millis(1)));
    assert_eq!(ask().unwrap().status, 503);
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask().unwrap().body, usual.body);
    provider.go_down();
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    provider.come_up();
    assert_eq!(ask().unwrap().body, usual.body);
}

#[test]
fn an_answer_that_is_lost_was_acted_on() {
    let provider = Provider::start();
    let token = Url::parse(&format!("{}/token", provider.issuer())).unwrap();
    let password = "grant_type=password&client_id=kubernetes&scope=openid+offline_access&username=jane@example.com\
                    &password=correct+horse+battery+staple";
    provider.script(Endpoint::Token, Answer::lost());
    assert_eq!(Browser::new().request("POST", &token, &[], password).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(provider.grants_alive(), 1);
}

#[test]
fn the_api_server_takes_only_the_tokens_of_its_provider_until_they_run_out() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.refresh_tokens = RefreshTokens::Never);
    let api_server = ApiServer::start(provider.authenticator());
    let token = Url::parse(&format!("{}/token", provider.issuer())).unwrap();
    let sign_in = || {
        let body = "grant_type=password&client_id=kubernetes&scope=openid&username=jane@example.com\
                    &password=correct+horse+battery+staple";
        let page = Browser::new().request("POST", &token, &[], body).unwrap();
        let reply: Value = serde_json::from_str(&page.body).unwrap();
        reply["id_token"].as_str().unwrap().to_owned()
    };
    let mut browser = Browser::new().trusting(api_server.ca_pem());
    let mut ask = |method: &str, path: &str, token: &str| {
        let url = Url::parse(&format!("{}{path}", api_server.url())).unwrap();
        let page = browser.request(method, &url, &[("Authorization", &format!("Bearer {token}"))], "").unwrap();
        (page.status, serde_json::from_str::<Value>(&page.body).unwrap())
    };
    let good = sign_in();
    provider.set(|behaviour| behaviour.id_token_lifetime = -1);
    let expired = sign_in();
    assert_eq!(ask("GET", "/api/v1/pods", &good).1["items"][0]["status"]["phase"], "Running");
    assert_eq!(ask("GET", "/api/v1/pods", &expired).0, 401);
    assert_eq!(ask("GET", "/api/v1/pods", "nobody's").0, 401);
    let review = |version: &str| format!("/apis/authentication.k8s.io/{version}/selfsubjectreviews");
    assert_eq!(ask("POST", &review("v1"), &good).1["status"]["userInfo"]["username"], "jane@example.com");
    api_server.serve_self_subject_review(SelfSubjectReview::V1beta1);
    assert_eq!(ask("POST", &review("v1"), &good).0, 404);
    assert_eq!(ask("POST", &review("v1beta1"), &good).0, 201);
    assert_eq!(api_server.bearer_tokens(), [good.clone(), expired, "nobody's".to_owned(), good]);
}

#[test]
fn what_a_terminal_shows_is_searched_too() {
    let sandbox = Sandbox::new(BINARY);
    let (_provider, code) = provider_with_a_code(&sandbox);
    let panics = |script: &str| {
        let shell = |script: &str| sandbox.program(Path::new("/bin/sh"), ["-c", script]).terminal().wait();
        catch_unwind(AssertUnwindSafe(|| shell(script).succeeded())).is_err()
    };
    assert!(!panics("test -t 0 && test -t 2 && : > /dev/tty && echo nothing >&2"));
    assert!(panics(&format!("echo {code} > /dev/tty")));
}
