#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::http::tests::{HURRIED, Server, answer, noon};
use crate::settings::ConnectionSettings;
use crate::ui::Ui;
use crate::{options, settings};

fn settings_of(line: &str) -> Settings {
    let arguments: Vec<_> = line.split_whitespace().map(Into::into).collect();
    settings::resolve(&options::of_arguments(&arguments).unwrap(), &Environment::from([("HOME", "/home/jane")]))
        .unwrap()
}

fn http() -> Http {
    Http::with_limits(&ConnectionSettings::default(), HURRIED, Ui::new(), Clock::fixed(noon)).unwrap()
}

fn key(name: &str) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "kid": name, "x": "AAAA", "y": "AAAA" })
}

/// A provider on this machine. Its n-th key set has the n-th names, all further ones the last.
fn provider(cache_control: &'static str, key_names: Vec<&'static str>) -> (Server, Settings) {
    let sets = std::sync::Mutex::new(key_names.into_iter().peekable());
    let server = Server::start(move |_, request, stream| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let body = if request.starts_with("GET /keys ") {
            let mut sets = sets.lock().unwrap();
            let name = sets.next().unwrap();
            if sets.peek().is_none() {
                *sets = vec![name].into_iter().peekable();
            }
            json!({ "keys": [key(name)] })
        } else {
            let at = |path: &str| format!("http://{host}/{path}");
            json!({ "issuer": format!("http://{host}"), "authorization_endpoint": at("authorize"), "token_endpoint": at("token"), "jwks_uri": at("keys") })
        };
        stream.write_all(&answer("200 OK", cache_control, &body.to_string())).unwrap();
    });
    let settings = settings_of(&format!("--issuer-url http://127.0.0.1:{} --client-id c", server.port));
    (server, settings)
}

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache"));
    (folder, cache)
}

fn later(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn discovery_is_two_requests_and_then_none_until_its_lifetime_ends() {
    let (server, settings) = provider("Cache-Control: public, max-age=600\r\n", vec!["a"]);
    let (_folder, cache) = cache();
    let http = http();
    for (now, requests) in [(noon(), 2), (later(599), 2), (later(600), 4), (noon(), 6)] {
        let provider = discover(&http, &settings, Some(&cache), now).await.unwrap();
        assert_eq!(provider.issuer(), settings.identity.issuer);
        assert_eq!(provider.keys().keys().len(), 1);
        assert_eq!(server.requests().len(), requests, "{now}");
    }
    discover(&http, &settings, None, noon()).await.unwrap();
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn keys_are_fetched_again_once_a_minute_across_processes() {
    let (server, settings) = provider("", vec!["a", "b"]);
    let (_folder, cache) = cache();
    let http = http();
    let mut provider = discover(&http, &settings, Some(&cache), noon()).await.unwrap();
    assert!(provider.keys_again(&http, Some(&cache), later(1)).await.unwrap());
    assert!(!provider.keys_again(&http, Some(&cache), later(2)).await.unwrap());
    let mut other = discover(&http, &settings, Some(&cache), later(30)).await.unwrap();
    assert_eq!(other.keys(), provider.keys());
    assert!(!other.keys_again(&http, Some(&cache), later(30)).await.unwrap());
    assert_eq!(server.requests().len(), 3);
    // Asked, and told the same as before.
    assert!(!other.keys_again(&http, Some(&cache), later(61)).await.unwrap());
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn what_is_no_provider_is_told_apart() {
    for (status, body, kind, words) in [
        ("200 OK", "<html>", Kind::Settings, "it is a web page"),
        ("200 OK", "{", Kind::Settings, "it is not JSON"),
        ("200 OK", "{}", Kind::Settings, "no `issuer`"),
        ("404 Not Found", "", Kind::Settings, "`404 Not Found` from `http://127.0.0.1:"),
        ("503 Service Unavailable", "", Kind::Unreachable, "503"),
        ("301 Moved Permanently", "", Kind::Unreachable, "redirect"),
    ] {
        let server = Server::answering(vec![answer(status, "", body)]);
        let settings = settings_of(&format!("--issuer-url http://127.0.0.1:{} --client-id c", server.port));
        let error = discover(&http(), &settings, None, noon()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("hint: "), "{error}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_the_providers_fault() {
    for (status, body) in [("200 OK", "<html>"), ("200 OK", "{}"), ("404 Not Found", "")] {
        let server = Server::answering(vec![answer(status, "", body)]);
        let location = Url::parse(&format!("http://127.0.0.1:{}/keys", server.port)).unwrap();
        let error = fetch_keys(&http(), &location, noon()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Other, "{error}");
        assert!(error.to_string().contains("jwks_uri"), "{error}");
    }
}

#[test]
fn lifetimes_are_capped_both_ways() {
    let seconds = |text: &'static str| {
        let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, ::http::HeaderValue::from_static(text))]);
        lifetime(&headers).as_secs()
    };
    assert_eq!(seconds("max-age=3000"), 3000);
    assert_eq!(seconds("public, Max-Age=\"7200\""), 7200);
    assert_eq!(seconds("max-age=1"), 300);
    assert_eq!(seconds("max-age=31536000, immutable"), 86_400);
    assert_eq!(seconds("max-age=99999999999999999999"), 3600);
    assert_eq!(seconds("max-age=3000, no-store"), 300);
    assert_eq!(seconds("private"), 3600);
    assert_eq!(lifetime(&HeaderMap::new()).as_secs(), 3600);
}

#[test]
fn a_cached_provider_is_checked_like_an_answer() {
    let (_folder, cache) = cache();
    let place = Place { issuer: "https://id.example.com".to_owned(), tls_verified: true };
    let metadata = json!({ "issuer": place.issuer, "token_endpoint": "https://id.example.com/t", "jwks_uri": "https://id.example.com/k" });
    let good = json!({ "fetched": noon(), "lifetime": 600, "metadata": metadata, "keys": { "keys": [] } });
    let kept = |changes: &Value| {
        let mut value = good.clone();
        value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        cache.write_provider(&place.issuer, true, &value).unwrap();
        Provider::kept(&cache, &place, later(1)).is_some()
    };
    assert!(kept(&json!({})));
    for bad in [
        json!({ "fetched": "x" }),
        json!({ "fetched": later(2) }),
        json!({ "lifetime": -1 }),
        json!({ "lifetime": 1 }),
        json!({ "metadata": [] }),
        json!({ "metadata": { "issuer": "https://id.example.com" } }),
        json!({ "metadata": { "issuer": "https://evil.example", "token_endpoint": "https://a", "jwks_uri": "https://b" } }),
        json!({ "metadata": { "issuer": "https://id.example.com", "token_endpoint": "http://a", "jwks_uri": "https://b" } }),
        json!({ "keys": null }),
    ] {
        assert!(!kept(&bad), "{bad}");
    }
    assert!(kept(&json!({ "lifetime": u64::MAX })));
    assert!(Provider::kept(&cache, &place, later(86_400)).is_none());
}

#[test]
fn the_callback_must_come_from_the_provider() {
    let provider = |issuer: &str, promises: bool| {
        Provider::of_test(&json!({ "issuer": issuer, "token_endpoint": "https://a/t", "jwks_uri": "https://a/k",
            "authorization_response_iss_parameter_supported": promises }))
    };
    let issuer = "https://id.example.com";
    assert!(check_callback_issuer(&provider(issuer, false), None).is_ok());
    assert!(check_callback_issuer(&provider(issuer, true), Some(issuer)).is_ok());
    assert!(check_callback_issuer(&provider(issuer, true), None).is_err());
    for other in ["https://id.example.com/", "https://evil.example", ""] {
        let error = check_callback_issuer(&provider(issuer, false), Some(other)).unwrap_err();
        assert_eq!(error.kind(), Kind::SignInFailed);
    }
    let entra = provider("https://login.microsoftonline.com/{tenantid}/v2.0", false);
    let tenant = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0";
    assert!(check_callback_issuer(&entra, Some(tenant)).is_ok());
    assert!(
        check_callback_issuer(&entra, Some("https://evil.example/11111111-2222-3333-4444-555555555555/v2.0")).is_err()
    );
}

#[test]
fn a_missing_refresh_token_is_explained_by_what_is_known() {
    let reason = |line: &str, scopes: Value| {
        let settings = settings_of(&format!("--client-id c {line}"));
        let document = json!({ "issuer": settings.identity.issuer, "token_endpoint": "https://a/t", "jwks_uri": "https://a/k", "scopes_supported": scopes });
        no_refresh_token_reason(&Provider::of_test(&document), &settings)
    };
    let plain = "--issuer-url https://id.example.com";
    let tenant = "--provider entra --tenant 11111111-2222-3333-4444-555555555555";
    assert!(reason(tenant, json!([])).contains("API permissions"));
    assert!(reason("--issuer-url https://accounts.google.com", json!([])).contains("access_type=offline"));
    assert!(reason(plain, json!(["openid", "offline_access"])).contains("--prompt consent"));
    assert!(reason(&format!("{plain} --scope offline_access"), json!([])).contains("--prompt consent"));
    assert!(reason(&format!("{plain} --prompt consent"), json!(["offline_access"])).contains("`refresh_token`"));
    assert!(reason(plain, json!(["openid"])).contains("does not list"));
}

proptest! {
    #[test]
    fn no_cached_provider_panics(name in "fetched|lifetime|metadata|keys|keys_asked_again", text in ".*", number: i64) {
        let (_folder, cache) = cache();
        let place = Place { issuer: "https://id.example.com".to_owned(), tls_verified: true };
        for odd in [json!(text.as_str()), json!(number), json!([text.as_str()]), json!({ text.as_str(): number })] {
            cache.write_provider(&place.issuer, true, &json!({ name.as_str(): odd })).unwrap();
            prop_assert!(Provider::kept(&cache, &place, noon()).is_none());
        }
    }
}
