//! The stand-in's page in a real browser, and what drives the browser: what they do not show, no test
//! of `open` would see.

use headlamp_test_support::{Answer, Chromium, Oidc, Site, StandIn, StandInOptions, Version};
use serde_json::{Value, json};

const REVIEW: &str = "/clusters/main/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";

/// A stand-in that once answers what the page asks a cluster when it starts.
fn with_a_cluster(options: StandInOptions) -> StandIn {
    let stand_in = StandIn::start(options);
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "1", "resourceVersion": "7"},
        "spec": {"containers": [{"name": "web"}]}, "status": {"phase": "Running"},
    });
    let list = |items: &[&Value]| json!({"metadata": {"resourceVersion": "9"}, "items": items});
    for (path, answer) in [
        (REVIEW, json!({})),
        ("/clusters/main/me", json!({"username": "jane"})),
        ("/clusters/main/version", json!({})),
        ("/clusters/main/api/v1/namespaces", list(&[])),
        ("/clusters/main/api/v1/configmaps", list(&[])),
        ("/clusters/main/api/v1/pods", list(&[&pod])),
    ] {
        stand_in.script(path, Answer::json(200, &answer));
    }
    stand_in
}

#[test]
fn the_page_shows_who_it_is_what_there_is_and_what_failed() {
    let Some(chromium) = Chromium::start() else { return };
    let stand_in = with_a_cluster(StandInOptions { chunks: 4, ..StandInOptions::default() });
    let page = chromium.page();
    let arrival = page.goto(&stand_in.url());
    assert_eq!(arrival.status, Some(200));
    page.wait_for("document.body.dataset.state === 'signed-in' && document.body.dataset.chunks === '4'");
    page.wait_for("document.body.dataset.user === 'jane' && document.body.dataset.listed");
    assert_eq!(page.url(), format!("{}c/main/", stand_in.url()));
    assert_eq!(page.eval::<Value>("objects"), json!({"pods default/web": "7"}));
    let row = "document.querySelector('#objects [data-resource=pods][data-namespace=default][data-name=web]')";
    assert_eq!(page.eval::<String>(&format!("{row}.dataset.phase")), "Running");

    // There is nobody to answer its three watches, and they are never opened again.
    page.wait_for("Object.values(seen.watches).filter((state) => state === 'closed').length === 3");
    page.wait_for("seen.failures.some(({ method }) => method === 'WEBSOCKET')");
    let watches = |requests: Vec<headlamp_test_support::Request>| {
        requests.iter().filter(|request| request.header("upgrade").is_some()).cloned().collect::<Vec<_>>()
    };
    let sent = watches(stand_in.requests());
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0].header("sec-websocket-protocol"), Some("base64.binary.k8s.io"));
    assert_eq!(
        sent[0].query,
        [("watch", "1"), ("resourceVersion", "9")].map(|(name, value)| (name.into(), value.into()))
    );
    page.wait_for("configs >= 2");
    assert_eq!(watches(stand_in.requests()).len(), 3);
    assert!(page.report().sockets.iter().all(|socket| !socket.open));
}

#[test]
fn events_that_are_not_newer_are_ignored_by_newer_pages() {
    let Some(chromium) = Chromium::start() else { return };
    for (version, left, ignored) in
        [(Version(0, 45, 0), json!({"pods default/web": "7"}), 1), (Version(0, 30, 0), json!({}), 0)]
    {
        let stand_in = with_a_cluster(StandInOptions { version, ..StandInOptions::default() });
        let page = chromium.page();
        page.goto(&stand_in.url());
        page.wait_for("document.body.dataset.listed");
        let event = "{type: 'DELETED', object: {metadata: {uid: '1', resourceVersion: '9'}}}";
        page.eval::<Value>(&format!(
            "const {{ cluster }} = headlamp; cluster.apply(cluster.lists.get('pods'), {event}); headlamp.draw()"
        ));
        assert_eq!(page.eval::<Value>("objects"), left);
        assert_eq!(page.eval::<u32>("seen.ignored"), ignored);
    }
}

#[test]
fn a_refused_sign_in_test_ends_on_the_token_page_and_stays_there() {
    let Some(chromium) = Chromium::start() else { return };
    let page = chromium.page();
    for (status, auth_type) in [(401, ""), (503, ""), (401, "oidc")] {
        let oidc = (!auth_type.is_empty())
            .then(|| Oidc { issuer: "https://login.example.com".to_owned(), client: "headlamp".to_owned() });
        let stand_in = StandIn::start(StandInOptions { oidc, ..StandInOptions::default() });
        stand_in.script(REVIEW, Answer::json(status, &json!({})));
        let state = if auth_type.is_empty() { "token" } else { "login" };
        page.goto(&stand_in.url());
        for _ in 0..2 {
            page.wait_for(&format!("document.body.dataset.state === '{state}'"));
            assert_eq!(page.url(), format!("{}c/main/{state}", stand_in.url()));
            page.reload();
        }
    }
}

#[test]
fn a_502_can_be_tried_again() {
    let Some(chromium) = Chromium::start() else { return };
    let stand_in = StandIn::start(StandInOptions::default());
    stand_in.script(REVIEW, Answer::json(502, &json!({})));
    stand_in.script(REVIEW, Answer::json(201, &json!({})));
    let page = chromium.page();
    page.goto(&format!("{}c/main/pods", stand_in.url()));
    page.click("#try-again");
    page.wait_for("document.body.dataset.state === 'signed-in'");
    let failure = page.eval::<Value>("seen.failures[0]");
    assert_eq!((&failure["method"], &failure["status"]), (&json!("POST"), &json!(502)));
}

#[test]
fn before_0_35_a_page_with_a_provider_asks_nobody_and_shows_its_button() {
    let Some(chromium) = Chromium::start() else { return };
    let oidc = Some(Oidc { issuer: "https://login.example.com".to_owned(), client: "headlamp".to_owned() });
    let stand_in = StandIn::start(StandInOptions { oidc, version: Version(0, 30, 0), ..StandInOptions::default() });
    let page = chromium.page();
    page.goto(&stand_in.url());
    page.wait_for("document.body.dataset.state === 'login'");
    assert!(stand_in.api_requests().is_empty());
}

#[test]
fn the_page_works_below_a_base_url_and_logs_out_by_the_servers_route() {
    let Some(chromium) = Chromium::start() else { return };
    let stand_in = StandIn::start(StandInOptions { base_url: "/headlamp".to_owned(), ..StandInOptions::default() });
    let below = |path: &str| format!("/headlamp/clusters/main/{path}");
    stand_in.script(&format!("/headlamp{REVIEW}"), Answer::json(201, &json!({})));
    let page = chromium.page();
    page.goto(&stand_in.url());
    page.wait_for("document.body.dataset.state === 'signed-in'");
    stand_in.script(&below("set-token"), Answer::json(200, &json!({})));
    page.click("#log-out");
    page.wait_for("document.body.dataset.state === 'token'");
    let told = stand_in.requests().into_iter().find(|request| request.path == below("set-token")).unwrap();
    assert_eq!(String::from_utf8(told.body).unwrap(), r#"{"token":null}"#);
}

#[test]
fn a_report_finds_what_a_page_left_wherever_it_is_and_a_stranger_has_nothing() {
    let Some(chromium) = Chromium::start() else { return };
    let site = Site::start(
        "<script>localStorage.a = 'needle-1'; document.cookie = 'b=needle-2'; console.error('needle-3')</script>needle-4",
    );
    let page = chromium.page();
    page.goto(&format!("{}#needle-5", site.url("localhost")));
    let url = site.url("localhost");
    page.wait_for("document.cookie");
    page.eval::<Value>("(await fetch('/?needle-6', { method: 'POST', body: 'needle-7' })).status");
    for (needle, place) in [
        ("needle-1", "storage".to_owned()),
        ("needle-2", "cookie \"b\"".to_owned()),
        ("needle-3", "console error".to_owned()),
        ("needle-4", format!("body of {url}")),
        ("needle-5", format!("history {url}#needle-5")),
        ("needle-6", format!("address {url}?needle-6")),
        ("needle-7", format!("sent to {url}?needle-6")),
    ] {
        let places = page.report().places_of(needle);
        assert!(places.contains(&place), "{needle}: {place} is not in {places:?}");
    }
    assert_eq!(page.report().places_of("needle-8"), [""; 0]);
    let stranger = chromium.stranger();
    stranger.goto(&site.url("elsewhere.test"));
    stranger.wait_for("document.cookie");
    assert_eq!(stranger.report().cookies.len(), 1, "its own, and no other");
    assert!(page.try_eval::<Value>("nothing.there").unwrap_err().contains("ReferenceError"));
    assert!(chromium.page().try_goto("http://127.0.0.1:1/").is_err());
}
