#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

use http::Request;
use proptest::prelude::*;

use super::*;
use crate::error::Kind;

const HOST: &str = "localhost:7001";
const OURS: &str = "http://localhost:7001";

/// A request as our own page's script sends it.
#[derive(Clone, Debug)]
struct Sent {
    method: Method,
    uri: String,
    headers: Vec<(String, String)>,
    peer: Peer,
    standing: Standing,
}

fn sent(method: Method, uri: &str, headers: &[(&str, &str)]) -> Sent {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let headers = [("host".to_owned(), HOST.to_owned())].into_iter().chain(headers).collect();
    Sent { method, uri: uri.to_owned(), headers, peer: Peer::SameUser, standing: Standing::Known }
}

fn fetch(uri: &str) -> Sent {
    sent(
        Method::GET,
        uri,
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "empty"), ("accept", "application/json")],
    )
}

fn change(method: Method, uri: &str) -> Sent {
    sent(
        method,
        uri,
        &[("origin", OURS), ("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "empty"), ("content-length", "2")],
    )
}

/// What the address bar sends.
fn visit(uri: &str) -> Sent {
    sent(Method::GET, uri, &[("sec-fetch-site", "none"), ("sec-fetch-dest", "document"), ("accept", "text/html,*/*")])
}

fn websocket(uri: &str) -> Sent {
    sent(Method::GET, uri, &[("origin", OURS), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])
}

impl Sent {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    fn but(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    fn from(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    fn peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    fn decide(&self, gate: &Gate) -> Decision {
        let mut request = Request::builder().method(&self.method).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        decide(gate, &head, self.peer, self.standing)
    }
}

fn gate() -> Gate {
    Gate::new(7001, "", vec!["main".to_owned(), "my cluster".to_owned()]).with_way_back(Secret::new("way-back"))
}

/// The decision in a word or two.
fn told(decision: Decision) -> String {
    match decision {
        Decision::Start { secret, looking, to } => format!("start {} {looking} {to}", secret.expose()),
        Decision::SessionPage => "session page".to_owned(),
        Decision::SignIn => "sign in".to_owned(),
        Decision::ComeBack => "come back".to_owned(),
        Decision::Return { to } => format!("return {to}"),
        Decision::File { path } => format!("file {path}"),
        Decision::Config => "config".to_owned(),
        Decision::Plugins => "plugins".to_owned(),
        Decision::Me { cluster } => format!("me {cluster}"),
        Decision::SetToken => "set-token".to_owned(),
        Decision::Api(target) => format!("api {} {}", target.cluster, target.path_and_query()),
        Decision::Upgrade(target) => format!("upgrade {} {}", target.cluster, target.path_and_query()),
        Decision::Watch { cluster, watch } => {
            assert_eq!(Some(watch), WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=7"));
            format!("watch {cluster}")
        }
        Decision::Redirect { to } => format!("redirect {to}"),
        Decision::Refuse(refusal) => format!("{}", refusal.status.as_u16()),
    }
}

#[track_caller]
fn check(sent: Sent, expected: &str) {
    let decision = told(sent.decide(&gate()));
    assert_eq!(decision, expected, "{sent:?}");
}

#[track_caller]
fn check_reason(sent: Sent, expected: &str) {
    match sent.decide(&gate()) {
        Decision::Refuse(refusal) => {
            let reason = format!("{} {}", refusal.reason, refusal.instead.unwrap_or_default());
            assert!(reason.contains(expected), "{reason} for {sent:?}");
        }
        other => panic!("{other:?} for {sent:?}"),
    }
}

#[test]
fn the_pages_requests_go_where_they_belong() {
    check(visit("/"), "file /");
    check(visit("/c/main/pods?namespace=a"), "file /c/main/pods");
    check(fetch("/assets/index-3f2a.js").but("sec-fetch-dest", "script"), "file /assets/index-3f2a.js");
    check(fetch("/plugins/one/main.js"), "file /plugins/one/main.js");
    check(fetch("/config"), "config");
    check(fetch("/plugins"), "plugins");
    check(fetch("/clusters/main/me"), "me main");
    check(change(Method::POST, "/clusters/main/set-token"), "set-token");
    check(fetch("/clusters/main/api/v1/pods?limit=1"), "api main /api/v1/pods?limit=1");
    check(fetch("/clusters/main/apis/"), "api main /apis/");
    check(fetch("/clusters/my%20cluster/version"), "api my cluster /version");
    for root in ["api", "apis", "version", "healthz", "livez", "readyz", "openapi/v3"] {
        check(fetch(&format!("/clusters/main/{root}")), &format!("api main /{root}"));
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        check(change(method, "/clusters/main/api/v1/namespaces/a/pods"), "api main /api/v1/namespaces/a/pods");
    }
    check(websocket("/clusters/main/api/v1/pods?watch=1&resourceVersion=7"), "watch main");
    check(
        websocket("/clusters/main/api/v1/namespaces/a/pods/b/log?follow=true"),
        "upgrade main /api/v1/namespaces/a/pods/b/log?follow=true",
    );
    check(
        fetch("/clusters/main/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"),
        "api main /apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
    );
}

#[test]
fn only_the_exact_host_is_answered() {
    for host in ["localhost:7001", "127.0.0.1:7001", "[::1]:7001"] {
        check(visit("/").but("host", host), "file /");
    }
    for host in [
        "evil.example",
        "evil.example:7001",
        "localhost",
        "localhost:7002",
        "localhost:70010",
        "LOCALHOST:7001",
        "localhost.:7001",
        "127.0.0.1",
        "127.0.0.2:7001",
        "0.0.0.0:7001",
        "[::]:7001",
        "::1:7001",
        "a@localhost:7001",
        "localhost:7001.evil.example",
        "",
    ] {
        check(visit("/").but("host", host), "403");
    }
    check(visit("/").without("host"), "400");
    check(visit("/").with("host", HOST), "400");
    check(visit("/").with("host", "evil.example"), "400");
    let wider = gate().with_host("10.0.0.5:7001".to_owned());
    assert_eq!(told(visit("/").but("host", "10.0.0.5:7001").decide(&wider)), "file /");
}

#[test]
fn a_proxys_request_is_refused() {
    check(fetch("http://localhost:7001/clusters/main/api"), "400");
    check(fetch("http://evil.example/clusters/main/api"), "400");
    check(sent(Method::CONNECT, "localhost:7001", &[]), "400");
    check(sent(Method::OPTIONS, "*", &[]), "400");
}

#[test]
fn another_user_of_the_machine_is_refused_whatever_he_knows() {
    check(fetch("/config").peer(Peer::AnotherUser), "403");
    check(visit("/.kubectl-headlamp/start/secret").peer(Peer::AnotherUser), "403");
    check(fetch("/config").peer(Peer::Unknown), "config");
    check(visit("/.kubectl-headlamp/start/secret").peer(Peer::Nobody), "403");
    check_reason(fetch("/config").peer(Peer::Nobody), "does not say whose connection this is");
}

#[test]
fn nothing_goes_without_the_cookie() {
    for standing in [Standing::Stranger, Standing::LoggedOut] {
        check(fetch("/clusters/main/api/v1/secrets").from(standing), "403");
        check(fetch("/config").from(standing), "403");
        check(fetch("/assets/index.js").but("sec-fetch-dest", "script").from(standing), "403");
        check(change(Method::POST, "/clusters/main/api/v1/namespaces").from(standing), "403");
        check(websocket("/clusters/main/api/v1/pods?watch=1").from(standing), "403");
        check(websocket("/wsMultiplexer").from(standing), "403");
        check(fetch("/externalproxy").from(standing), "403");
        check(visit("/").from(standing), "session page");
        check(visit("/clusters/main/api/v1/secrets").from(standing), "session page");
    }
}

#[test]
fn another_origin_reads_nothing() {
    for site in ["cross-site", "same-site", "anything", ""] {
        check(fetch("/clusters/main/api/v1/secrets").but("sec-fetch-site", site), "403");
        check(fetch("/config").but("sec-fetch-site", site), "403");
        check(visit("/").but("sec-fetch-site", site), "403");
    }
    for origin in [
        "http://localhost:7002",
        "https://localhost:7001",
        "http://127.0.0.1:7001",
        "http://evil.example",
        "null",
        "http://localhost:7001/",
    ] {
        check(fetch("/clusters/main/api/v1/secrets").with("origin", origin), "403");
        check(fetch("/clusters/main/api/v1/secrets").without("sec-fetch-site").with("origin", origin), "403");
    }
    check(fetch("/config").with("origin", OURS), "config");
    check(fetch("/config").with("sec-fetch-site", "same-origin"), "400");
}

#[test]
fn an_old_browser_that_says_nothing_of_sites_is_served_by_its_cookie() {
    let old = sent(Method::GET, "/clusters/main/api/v1/pods", &[("accept", "application/json")]);
    check(old.clone(), "api main /api/v1/pods");
    check(old.from(Standing::Stranger), "403");
}

#[test]
fn only_our_own_page_changes_anything() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let asked = change(method, "/clusters/main/api/v1/namespaces/a/pods/b");
        check(asked.clone().without("origin"), "403");
        check(asked.clone().but("origin", "http://localhost:7002"), "403");
        check(asked.clone().but("origin", "http://127.0.0.1:7001"), "403");
        check(asked.clone().but("origin", "null"), "403");
        check(asked.clone().with("origin", OURS), "400");
        for site in ["none", "same-site", "cross-site"] {
            check(asked.clone().but("sec-fetch-site", site), "403");
        }
        check(asked.without("sec-fetch-site"), "api main /api/v1/namespaces/a/pods/b");
    }
    let at = change(Method::POST, "/clusters/main/api/v1/namespaces").but("host", "127.0.0.1:7001");
    check(at.clone(), "403");
    check(at.but("origin", "http://127.0.0.1:7001"), "api main /api/v1/namespaces");
}

#[test]
fn websockets_need_our_origin() {
    let asked = websocket("/clusters/main/api/v1/namespaces/a/pods/b/exec?command=sh");
    check(asked.clone(), "upgrade main /api/v1/namespaces/a/pods/b/exec?command=sh");
    check(asked.clone().without("origin"), "403");
    for origin in
        ["http://localhost:7002", "https://localhost:7001", "ws://localhost:7001", "http://evil.example", "null"]
    {
        check(asked.clone().but("origin", origin), "403");
    }
    check(
        asked.with("sec-fetch-site", "same-origin").with("sec-fetch-dest", "websocket"),
        "upgrade main /api/v1/namespaces/a/pods/b/exec?command=sh",
    );
}

#[test]
fn other_upgrades_are_refused() {
    let path = "/clusters/main/api/v1/namespaces/a/pods/b/exec";
    check(websocket(path).but("upgrade", "SPDY/3.1"), "400");
    check(websocket(path).but("upgrade", "h2c"), "400");
    check(websocket(path).but("upgrade", "websocket, h2c"), "400");
    check(websocket(path).but("connection", "keep-alive"), "400");
    check(websocket(path).without("upgrade"), "400");
    check(websocket(path).with("upgrade", "websocket"), "400");
    check(Sent { method: Method::POST, ..websocket(path) }, "405");
    check(websocket("/"), "404");
    check(websocket("/config"), "404");
    check(websocket("/clusters/main/me"), "404");
    check(websocket("/.kubectl-headlamp/start/x"), "404");
}

#[test]
fn answers_of_the_cluster_are_for_scripts_alone() {
    let path = "/clusters/main/api/v1/namespaces/a/services/b/proxy/page.html";
    for destination in [
        "document",
        "iframe",
        "frame",
        "embed",
        "object",
        "script",
        "worker",
        "sharedworker",
        "serviceworker",
        "style",
        "audioworklet",
        "image",
        "font",
        "manifest",
        "xslt",
    ] {
        check(fetch(path).but("sec-fetch-dest", destination), "403");
        check(fetch("/clusters/main/me").but("sec-fetch-dest", destination), "403");
    }
    check(visit(path), "403");
    check(sent(Method::GET, path, &[("accept", "text/html,application/xhtml+xml")]), "403");
    check(sent(Method::GET, path, &[("service-worker", "script")]), "403");
    check(fetch(path), "api main /api/v1/namespaces/a/services/b/proxy/page.html");
}

#[test]
fn no_worker_is_registered_and_nothing_is_framed() {
    for path in ["/", "/assets/sw.js", "/.kubectl-headlamp/session", "/clusters/main/api"] {
        check(fetch(path).with("service-worker", "script"), "403");
        check(fetch(path).but("sec-fetch-dest", "serviceworker"), "403");
        for destination in ["iframe", "frame", "embed", "object", "fencedframe"] {
            check(fetch(path).but("sec-fetch-dest", destination), "403");
        }
    }
}

#[test]
fn paths_with_two_readings_are_refused() {
    for path in [
        "/clusters/main//api/v1/pods",
        "//clusters/main/api",
        "/clusters//main/api",
        "/clusters/main/api/v1/../v1/pods",
        "/clusters/main/api/./v1",
        "/clusters/main/api/v1/%2e%2e/pods",
        "/clusters/main/api/v1/%2E%2E",
        "/clusters/main/api/.%2e/x",
        "/clusters/main/api/v1/..;/pods",
        "/clusters/main/api/v1/pods;x=1",
        "/clusters/main/api%2fv1",
        "/clusters/main/api/v1%2Fpods",
        "/clusters/main/api/v1%5cpods",
        "/clusters/main/api/v1\\pods",
        "/clusters/main/api/v1/%00",
        "/clusters/main/api/v1/%0d%0aImpersonate-User:%20admin",
        "/clusters/main/api/v1/%252e%252e",
        "/clusters/main/api/v1/%3b",
        "/clusters/main/api/v1/%zz",
        "/clusters/main/api/v1/%2",
        "/clusters/main/api/v1/%",
        "/clusters/main/api/v1/%ff",
        "/clusters/main/api/v1/%c0%af",
        "/clusters/main/api/v1/%7f",
        "/../etc/passwd",
        "/assets/..%2f..%2fetc/passwd",
        "/assets//x.js",
        "/..",
        "/.",
        "/clusters/main/../../externalproxy",
        "/clusters/..%2fexternalproxy/api",
    ] {
        check(fetch(path), "400");
        check(change(Method::POST, path), "400");
        check(websocket(path), "400");
    }
    let raw = Request::builder()
        .uri(&b"/clusters/main/api/\xc3\xa4"[..])
        .header("host", HOST)
        .body(())
        .unwrap()
        .into_parts()
        .0;
    assert_eq!(told(decide(&gate(), &raw, Peer::SameUser, Standing::Known)), "400");
}

#[test]
fn lengths_with_two_readings_are_refused() {
    let asked = change(Method::POST, "/clusters/main/api/v1/namespaces");
    check(asked.clone().with("transfer-encoding", "chunked"), "400");
    check(asked.clone().with("content-length", "2"), "400");
    check(asked.clone().with("content-length", "7"), "400");
    let asked = asked.without("content-length");
    check(asked.clone().with("transfer-encoding", "chunked"), "api main /api/v1/namespaces");
    check(asked.clone().with("transfer-encoding", "gzip, chunked"), "400");
    check(asked.clone().with("transfer-encoding", "identity"), "400");
    check(asked.clone().with("transfer-encoding", "chunked").with("transfer-encoding", "chunked"), "400");
    check(fetch("/config").with("content-length", "5"), "400");
    check(fetch("/config").with("transfer-encoding", "chunked"), "400");
    check(fetch("/config").with("content-length", "0"), "config");
    check(websocket("/clusters/main/api/v1/pods?watch=1").with("content-length", "5"), "400");
}

#[test]
fn methods_that_nobody_needs_are_refused() {
    for method in ["OPTIONS", "TRACE", "PROPFIND", "get"] {
        check(Sent { method: method.parse().unwrap(), ..change(Method::POST, "/clusters/main/api") }, "405");
    }
    check(change(Method::POST, "/"), "405");
    check(change(Method::DELETE, "/config"), "405");
    check(change(Method::POST, "/clusters/main/me"), "405");
    check(fetch("/clusters/main/set-token"), "405");
}

#[test]
fn what_headlamps_own_server_does_is_refused_with_what_does_the_same() {
    check_reason(fetch("/externalproxy"), "not passed on");
    check_reason(change(Method::POST, "/externalproxy"), "not passed on");
    check_reason(websocket("/wsMultiplexer"), "update Headlamp");
    check_reason(change(Method::POST, "/drain-node"), "kubectl drain");
    check_reason(fetch("/drain-node-status?node=a"), "kubectl drain");
    check_reason(change(Method::POST, "/clusters/main/portforward"), "kubectl port-forward");
    check_reason(fetch("/clusters/main/portforward/list"), "kubectl port-forward");
    check_reason(fetch("/clusters/main/helm/releases/list"), "helm");
    check_reason(fetch("/clusters/main/serviceproxy/a/b?request=/"), "kubectl port-forward");
    check_reason(change(Method::DELETE, "/plugins/one"), "plugins are managed");
    check_reason(change(Method::POST, "/cluster"), "kubectl config");
    check_reason(change(Method::POST, "/parseKubeConfig"), "kubectl config");
    check_reason(change(Method::POST, "/auth/set-token"), "no token is taken");
    check_reason(visit("/oidc?cluster=main"), "kubectl's");
    check_reason(visit("/oidc-callback?code=x&state=y"), "kubectl's");
}

#[test]
fn only_listed_clusters_and_the_roots_of_the_api_are_served() {
    for path in ["/clusters/other/api/v1/pods", "/clusters/MAIN/api", "/clusters/main%20/api", "/clusters/mai/api"] {
        check(fetch(path), "404");
        check(websocket(path), "404");
    }
    for path in [
        "/clusters/main/metrics",
        "/clusters/main/logs/",
        "/clusters/main/debug/pprof",
        "/clusters/main/",
        "/clusters/main/apix/v1",
        "/clusters/main/API/v1",
    ] {
        check(fetch(path), "404");
        check(websocket(path), "404");
    }
}

#[test]
fn the_pages_own_sign_in_leads_back_to_the_cluster() {
    check(visit("/c/main/token"), "redirect /c/main/");
    check(visit("/c/main/login"), "redirect /c/main/");
    check(fetch("/c/main/token"), "file /c/main/token");
    check(visit("/c/main/pods"), "file /c/main/pods");
}

#[test]
fn a_base_url_is_honoured() {
    let gate = Gate::new(7001, "/ui/headlamp/", vec!["main".to_owned()]);
    let check = |sent: Sent, expected: &str| assert_eq!(told(sent.decide(&gate)), expected, "{sent:?}");
    assert_eq!(gate.home(), "/ui/headlamp/");
    check(visit("/"), "redirect /ui/headlamp/");
    check(visit("/ui/headlamp"), "redirect /ui/headlamp/");
    check(visit("/ui/headlamp/"), "file /");
    check(visit("/ui/headlamp/c/main/login"), "redirect /ui/headlamp/c/main/");
    check(fetch("/ui/headlamp/clusters/main/api/v1/pods"), "api main /api/v1/pods");
    check(fetch("/ui/headlamp/config"), "config");
    check(fetch("/clusters/main/api/v1/pods"), "404");
    check(fetch("/ui/headlampx/config"), "404");
    check(fetch("/ui"), "404");
    check(visit("/.kubectl-headlamp/start/x"), "start x false /ui/headlamp/");
    check(visit("/.kubectl-headlamp/start/x?to=/ui/headlamp/c/main"), "start x false /ui/headlamp/c/main");
    assert_eq!(gate.address("/c/main/pods?namespace=a").unwrap(), "/ui/headlamp/c/main/pods?namespace=a");
    check(visit("/.kubectl-headlamp/return?to=%2Fother"), "return /ui/headlamp/");
    check_reason(websocket("/wsMultiplexer").from(Standing::Stranger), "kubectl headlamp open");
}

#[test]
fn looking_at_the_start_address_does_not_use_it_up() {
    let start = visit("/.kubectl-headlamp/start/secret").from(Standing::Stranger);
    check(start.clone(), "start secret false /");
    check(Sent { method: Method::HEAD, ..start.clone() }, "start secret true /");
    for (name, value) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "prefetch"),
        ("x-moz", "prefetch"),
        ("x-purpose", "preview"),
    ] {
        check(start.clone().with(name, value), "start secret true /");
    }
    check(start.clone().but("sec-fetch-site", "cross-site"), "403");
    check(start.clone().with("origin", "http://localhost:7002"), "403");
    check(Sent { method: Method::POST, ..start.clone() }, "403");
    check(Sent { method: Method::POST, ..start.with("origin", OURS).but("sec-fetch-site", "same-origin") }, "404");
}

#[test]
fn our_own_buttons_need_our_own_page() {
    let press =
        |name: &str| change(Method::POST, &format!("/.kubectl-headlamp/{name}")).but("sec-fetch-dest", "document");
    check(press("sign-in"), "sign in");
    check(press("sign-in").from(Standing::Stranger), "403");
    check(press("sign-in").but("origin", "http://localhost:7002"), "403");
    check(press("sign-in").without("origin"), "403");
    check(press("come-back").from(Standing::LoggedOut), "come back");
    check(press("come-back").from(Standing::Stranger), "403");
    check(press("come-back").from(Standing::LoggedOut).but("origin", "null"), "403");
    check(visit("/.kubectl-headlamp/come-back").from(Standing::LoggedOut), "session page");
    check(visit("/.kubectl-headlamp/session").from(Standing::Stranger), "session page");
    check(visit("/.kubectl-headlamp/other"), "404");
}

#[test]
fn the_way_back_from_the_provider_leads_into_the_page_alone() {
    let back = |to: &str| {
        let to: String = form_urlencoded::byte_serialize(to.as_bytes()).collect();
        visit(&format!("/.kubectl-headlamp/return?to={to}&pass=way-back"))
            .from(Standing::Stranger)
            .but("sec-fetch-site", "cross-site")
    };
    check(back("/c/main/pods?namespace=a"), "return /c/main/pods?namespace=a");
    for elsewhere in [
        "//evil.example/",
        "/\\evil.example",
        "https://evil.example/",
        "c/main",
        "",
        "/c/../..//evil.example",
        "/%2fevil.example",
        "/.kubectl-headlamp/start/x",
        "/c#\u{e4}",
        "/c\r\n",
    ] {
        check(back(elsewhere), "return /");
    }
    for site in ["cross-site", "same-site", "anything"] {
        let linked =
            |pass: &str| visit(&format!("/.kubectl-headlamp/return?to=/c/main/pods{pass}")).but("sec-fetch-site", site);
        check(linked("&pass=way-back"), "return /c/main/pods");
        for pass in ["", "&pass=", "&pass=way-bac", "&pass=way-backx", "&pass=x&pass=way-back"] {
            check_reason(linked(pass), "nor lead here by a link");
        }
    }
    // A person opened it, or a browser that says nothing of sites.
    check(visit("/.kubectl-headlamp/return").from(Standing::Stranger), "return /");
    check(visit("/.kubectl-headlamp/return").without("sec-fetch-site"), "return /");
    check(visit("/.kubectl-headlamp/start/x?to=//evil.example/"), "start x false /");
    check(
        visit("/.kubectl-headlamp/start/x?to=/c/main/pods%3Fnamespace%3Da"),
        "start x false /c/main/pods?namespace=a",
    );
    check(change(Method::POST, "/.kubectl-headlamp/return"), "405");
}

#[test]
fn a_deep_link_is_a_path_of_the_page() {
    let address = |path: &str| gate().address(path);
    assert_eq!(address("/c/main/pods?namespace=a").unwrap(), "/c/main/pods?namespace=a");
    assert_eq!(address("c/main").unwrap(), "/c/main");
    assert_eq!(address("").unwrap(), "/");
    for elsewhere in
        ["//evil.example/", "https://evil.example/", "/c/../x", "/.kubectl-headlamp/session", "/c\r\n", "/a b"]
    {
        assert_eq!(address(elsewhere).unwrap_err().kind(), Kind::Usage, "{elsewhere}");
        assert!(check_page_path(elsewhere).is_err(), "{elsewhere}");
    }
}

#[test]
fn endless_answers_are_known_ahead() {
    let endless = |uri: &str| match fetch(uri).decide(&gate()) {
        Decision::Api(target) => target.endless(),
        other => panic!("{other:?}"),
    };
    assert!(endless("/clusters/main/api/v1/pods?watch=true"));
    assert!(endless("/clusters/main/api/v1/namespaces/a/pods/b/log?follow=1"));
    assert!(!endless("/clusters/main/api/v1/pods?watch=0"));
    assert!(!endless("/clusters/main/api/v1/pods?watch=False"));
    assert!(!endless("/clusters/main/api/v1/pods"));
}

/// Paths of pieces that servers have disagreed on.
fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        prop::sample::select(vec![
            "clusters",
            "main",
            "api",
            "apis",
            "v1",
            "..",
            ".",
            "%2e",
            "%2f",
            "%5c",
            "\\",
            ";",
            "%",
            "externalproxy",
            "%00",
            "pods",
            "config"
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9:@_~!$&'()*+,=-]{0,6}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn whatever_reaches_the_api_server_begins_with_its_root_and_goes_no_step_up(path in prop_oneof![path(), path().prop_map(|path| format!("/clusters/main/api{path}"))]) {
        for sent in [fetch(&path), change(Method::POST, &path), websocket(&path)] {
            let (Decision::Api(target) | Decision::Upgrade(target)) = sent.decide(&gate()) else { continue };
            prop_assert!(path.ends_with(&target.path));
            let segments: Vec<String> = target.path.split('/').skip(1).map(|segment| percent_decode_str(segment).decode_utf8().unwrap().into_owned()).collect();
            prop_assert!(API_ROOTS.contains(&segments[0].as_str()));
            prop_assert!(segments.iter().all(|segment| segment != "." && segment != ".." && !segment.contains(['/', '\\', ';', '%', '\0'])));
            prop_assert!(!target.path.contains("//"));
        }
    }

    #[test]
    fn a_stranger_gets_our_own_pages_and_nothing_else(path in path(), method in prop::sample::select(vec!["GET", "HEAD", "POST", "DELETE", "OPTIONS"]), shape in 0..4) {
        let sent = match shape { 0 => fetch(&path), 1 => change(method.parse().unwrap(), &path), 2 => websocket(&path), _ => visit(&path) };
        let decision = sent.from(Standing::Stranger).decide(&gate());
        prop_assert!(matches!(decision, Decision::SessionPage | Decision::Refuse(_)), "{decision:?}");
    }

    #[test]
    fn no_other_host_or_origin_is_ever_ours(host in "[a-z0-9.:\\[\\]@-]{0,20}", origin in "(http|https|null|ws)?(://)?[a-z0-9.:-]{0,20}") {
        prop_assume!(!gate().hosts.contains(&host) && origin != OURS);
        let decision = fetch("/config").but("host", &host).decide(&gate());
        prop_assert!(matches!(decision, Decision::Refuse(_)));
        let decision = change(Method::POST, "/clusters/main/api").but("origin", &origin).decide(&gate());
        prop_assert!(matches!(decision, Decision::Refuse(_)));
    }
}
