//! Who else may use the local server of `open`: nobody. Other programs of the machine, other origins and
//! whoever writes requests by hand get an explaining refusal, and the cluster hears nothing of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use headlamp_test_support::real::part;
use headlamp_test_support::{Running, wait_until};

use crate::open_desk::{DEADLINE, Desk, PODS, Reply, Tab, address, connect, everything, exchange, interrupted, visit};

/// What attackers are after; the cluster must never be asked for it.
const SECRETS: &str = "/clusters/main/api/v1/namespaces/attacked/secrets";

/// An `open` that is served to its browser.
struct Served<'a> {
    desk: &'a Desk,
    open: Running<'a>,
    tab: Tab,
}

impl<'a> Served<'a> {
    fn by(desk: &'a Desk) -> Self {
        let mut open = desk.open([]).spawn();
        let tab = Tab::of(&mut open);
        Self { desk, open, tab }
    }

    /// The cluster was not asked, and the one browser is served as before.
    fn end(self) {
        let asked: Vec<String> = self.desk.cluster.requests().iter().map(|asked| asked.path.clone()).collect();
        assert!(!asked.iter().any(|path| path.contains("attacked")), "{asked:?}");
        assert_eq!(self.tab.get(PODS).status, 200, "the page itself");
        let _ = interrupted(self.open);
        self.desk.assert_pod_knows_nothing();
    }
}

fn assert_refused(what: &str, reply: &Reply, status: u16, words: &str) {
    let text = reply.text();
    assert!(reply.status == status && text.contains(words), "{what}: {} {text}", reply.status);
    assert_eq!(reply.header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(reply.header("access-control-allow-origin"), "", "{what}");
}

#[test]
fn other_hosts_origins_sites_and_destinations_are_refused() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let tab = &served.tab;
    let port = tab.port;
    let (local, other) = (format!("localhost:{port}"), format!("localhost:{}", port + 1));
    let page = "only this server's own page";
    let site = "another site's page";
    let frame = "nothing here is shown inside another page";
    let data = "answers of the cluster are for the page";
    let name = "answers to no other name";
    for (method, changed, status, words) in [
        // DNS rebinding.
        ("GET", &[("Host", format!("evil.example:{port}"))][..], 403, name),
        ("GET", &[("Host", "localhost".to_owned())], 403, name),
        ("GET", &[("Host", other.clone())], 403, name),
        ("GET", &[("Host", format!("localhost.:{port}"))], 403, name),
        ("GET", &[("Host", format!("{local}.evil.example"))], 403, name),
        ("GET", &[("Host", format!("evil@{local}"))], 403, name),
        ("GET", &[("Host", format!("127.0.0.2:{port}"))], 403, name),
        ("GET", &[("Host", format!("[::ffff:127.0.0.1]:{port}"))], 403, name),
        ("GET", &[("Host", String::new())], 400, "names no `Host`"),
        // Other origins, other ports of this machine too.
        ("GET", &[("Origin", format!("http://{other}"))], 403, page),
        ("GET", &[("Origin", format!("https://{local}"))], 403, page),
        ("GET", &[("Origin", format!("http://127.0.0.1:{port}"))], 403, page),
        ("GET", &[("Origin", "null".to_owned())], 403, page),
        ("GET", &[("Origin", format!("http://{local}/"))], 403, page),
        ("POST", &[("Origin", "https://evil.example".to_owned())], 403, page),
        ("POST", &[("Origin", String::new())], 403, page),
        ("DELETE", &[("Origin", String::new())], 403, page),
        ("PATCH", &[("Origin", "null".to_owned())], 403, page),
        // Without an `Origin`, as images and links are.
        ("GET", &[("Sec-Fetch-Site", "cross-site".to_owned())], 403, site),
        ("GET", &[("Sec-Fetch-Site", "same-site".to_owned())], 403, site),
        ("GET", &[("Sec-Fetch-Site", "whatever".to_owned())], 403, site),
        ("POST", &[("Sec-Fetch-Site", "none".to_owned())], 403, site),
        ("PUT", &[("Sec-Fetch-Site", "same-site".to_owned())], 403, site),
        // As what would run on our origin, or lie under another page.
        ("GET", &[("Sec-Fetch-Dest", "document".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "script".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "style".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "image".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "worker".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "sharedworker".to_owned())], 403, data),
        ("GET", &[("Sec-Fetch-Dest", "iframe".to_owned())], 403, frame),
        ("GET", &[("Sec-Fetch-Dest", "frame".to_owned())], 403, frame),
        ("GET", &[("Sec-Fetch-Dest", "object".to_owned())], 403, frame),
        ("GET", &[("Sec-Fetch-Dest", "embed".to_owned())], 403, frame),
        ("GET", &[("Sec-Fetch-Dest", "serviceworker".to_owned())], 403, "service workers"),
        ("GET", &[("Service-Worker", "script".to_owned())], 403, "service workers"),
        // An older browser tells a navigation by what it accepts.
        ("GET", &[("Sec-Fetch-Dest", String::new()), ("Accept", "text/html,*/*".to_owned())], 403, data),
    ] {
        let headers: Vec<(&str, &str)> = changed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = tab.ask(method, SECRETS, &headers, if method == "GET" { "" } else { "{}" });
        assert_refused(&format!("{method} {headers:?}"), &reply, status, words);
    }
    // The page's own files are no frame and no worker either, and other sites cannot load them.
    for (path, header, value) in [
        ("/", "Sec-Fetch-Dest", "iframe"),
        ("/index.js", "Service-Worker", "script"),
        ("/", "Sec-Fetch-Site", "cross-site"),
    ] {
        let reply = tab.ask("GET", path, &[(header, value)], "");
        assert_eq!(reply.status, 403, "{header}: {value}");
    }
    let page = tab.go("/");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("connect-src 'self' ws://"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");
    let answer = tab.get(PODS);
    assert_eq!(answer.header("content-security-policy"), "sandbox; default-src 'none'; frame-ancestors 'none'");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    served.end();
}

#[test]
fn who_has_no_cookie_or_another_ports_is_refused() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let mut other = desk.open(["--as=lena"]).spawn();
    let lena = Tab::of(&mut other);
    let tab = &served.tab;
    let (name, value) = tab.cookie.split_once('=').unwrap();
    let words = "only the browser that `kubectl headlamp open` opened";
    for cookie in [
        "",
        "theme=dark",
        &lena.cookie,
        &format!("{name}={}", lena.cookie.split_once('=').unwrap().1),
        &format!("{name}={}", &value[1..]),
        &format!("{name}={value}x"),
        &format!("{name}=\"{value}\""),
        &format!("{}={value}", name.to_uppercase()),
        &format!("{name}x={value}"),
        value,
    ] {
        for (method, body) in [("GET", ""), ("POST", "{}")] {
            let reply = tab.ask(method, SECRETS, &[("Cookie", cookie)], body);
            assert_refused(cookie, &reply, 403, words);
        }
        for path in ["/config", "/plugins", "/assets/index.js"] {
            assert_refused(cookie, &tab.ask("GET", path, &[("Cookie", cookie)], ""), 403, words);
        }
        let page = [("Cookie", cookie), ("Sec-Fetch-Dest", "document")];
        assert_refused(cookie, &tab.ask("GET", "/", &page, ""), 403, "Another browser is served here");
        let refused = tab.upgrade(&format!("{SECRETS}?watch=true"), &[("Cookie", cookie)]).unwrap_err();
        assert_eq!(refused.status, 403, "{cookie}");
        let out = tab.ask("POST", "/clusters/main/set-token", &[("Cookie", cookie)], "{}");
        assert_eq!(out.status, 403, "{cookie}");
    }
    // What another program sets beside it locks nobody out.
    let planted = format!("{name}=planted; {}", tab.cookie);
    assert_eq!(tab.ask("GET", PODS, &[("Cookie", &planted)], "").status, 200);
    let _ = interrupted(other);
    served.end();
}

#[test]
fn another_user_of_the_machine_gets_nothing_whatever_it_knows() {
    let root = rustix::process::geteuid().is_root();
    let Some(nobody) = part("another user of this machine", "needs root", root.then_some(65_534)) else { return };
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let address = address(&mut open);
    let url = url::Url::parse(&address).unwrap();
    let by_nobody = |request: &str| {
        let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$0" && printf %s "$1" >&3 && cat <&3"#;
        let mut bash = Command::new("/bin/bash");
        bash.args(["-c", script, &url.port().unwrap().to_string(), request]).current_dir("/").uid(nobody).gid(nobody);
        String::from_utf8_lossy(&bash.output().unwrap().stdout).into_owned()
    };
    let stranger = Tab { port: url.port().unwrap(), cookie: String::new() };
    let navigation = [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Dest", "document")];
    let told = by_nobody(&stranger.request("GET", url.path(), &navigation, ""));
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("another user"), "{told}");
    let tab = Tab::at(&address);
    let told = by_nobody(&tab.request("GET", SECRETS, &[], ""));
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("another user"), "{told}");
    Served { desk: &desk, open, tab }.end();
}

#[test]
fn a_start_address_is_not_used_up_by_looking_and_its_second_use_ends_it_all() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let address = address(&mut open);
    let url = url::Url::parse(&address).unwrap();
    let (port, path) = (url.port().unwrap(), url.path().to_owned());
    let stranger = Tab { port, cookie: String::new() };
    let looks: [(&str, &[(&str, &str)]); 5] = [
        ("HEAD", &[]),
        ("GET", &[("Sec-Purpose", "prefetch")]),
        ("GET", &[("Sec-Purpose", "prefetch;prerender")]),
        ("GET", &[("Purpose", "prefetch")]),
        ("GET", &[("X-Moz", "prefetch")]),
    ];
    for (method, headers) in looks {
        let headers = [headers, &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Dest", "document")]].concat();
        let reply = stranger.ask(method, &path, &headers, "");
        assert_eq!((reply.status, reply.cookie()), (503, None), "{method} {headers:?}");
    }
    // Another site's link or frame, a wrong name and a guess use up nothing.
    for (path, header, value, status) in [
        (path.as_str(), "Sec-Fetch-Site", "cross-site", 403),
        (&path, "Sec-Fetch-Dest", "iframe", 403),
        (&path, "Host", "evil.example", 403),
        (&path, "Origin", "https://evil.example", 403),
        ("/.kubectl-headlamp/start/guessed", "Sec-Fetch-Dest", "document", 403),
        (&path[..path.len() - 1], "Sec-Fetch-Dest", "document", 403),
    ] {
        let reply = stranger.ask("GET", path, &[(header, value)], "");
        assert_eq!((reply.status, reply.cookie()), (status, None), "{header}: {value}");
    }
    let tab = Tab::at(&address);
    assert_eq!(tab.get(PODS).status, 200);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    // Who has seen the address comes too late, and is noticed.
    let thief = visit(&address);
    assert_refused("second use", &thief, 403, "used a second time, maybe by somebody else");
    assert_eq!(thief.cookie(), None);
    while watch.read().is_ok() {}
    let output = open.wait();
    insta::assert_snapshot!(output.code, @"1");
    assert!(output.stderr.contains("the start address was used a second time, so the page was closed"), "{output}");
    assert!(output.stderr.contains("hint: `kubectl headlamp open --no-browser` opens it again"), "{output}");
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

#[test]
fn what_headlamps_server_does_with_rights_of_its_own_is_refused() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let tab = &served.tab;
    for (method, path, status, words) in [
        ("GET", "/externalproxy?url=https://evil.example/attacked", 403, "other sites are not passed on"),
        ("POST", "/externalproxy", 403, "other sites are not passed on"),
        ("GET", "/wsMultiplexer", 403, "not over the multiplexer"),
        ("POST", "/drain-node", 403, "kubectl drain NODE"),
        ("GET", "/drain-node-status?cluster=main", 403, "kubectl drain NODE"),
        ("POST", "/clusters/main/portforward", 403, "kubectl port-forward POD"),
        ("GET", "/portforward", 403, "kubectl port-forward POD"),
        ("POST", "/clusters/main/helm/release/install", 403, "Helm releases"),
        ("GET", "/clusters/main/serviceproxy/attacked/web", 403, "kubectl port-forward service/NAME"),
        ("POST", "/cluster", 403, "kubectl config"),
        ("POST", "/parseKubeConfig", 403, "kubectl config"),
        ("DELETE", "/plugins/app-catalog", 403, "where Headlamp is installed"),
        ("GET", "/oidc?cluster=main", 403, "kubectl's here"),
        ("GET", "/oidc-callback?code=a&state=b", 403, "kubectl's here"),
        ("POST", "/auth/set-token", 403, "kubectl's here"),
        ("GET", "/clusters/other/api/v1/namespaces/attacked/secrets", 404, "this cluster is not served here"),
        ("GET", "/clusters/main/metrics", 404, "no path of the Kubernetes API"),
        ("GET", "/clusters/main/logs/attacked", 404, "no path of the Kubernetes API"),
        ("GET", "/clusters/main/debug/pprof", 404, "no path of the Kubernetes API"),
        ("POST", "/", 405, "does not take this method"),
        ("OPTIONS", SECRETS, 405, "does not take this method"),
        ("TRACE", SECRETS, 405, "does not take this method"),
        ("PROPFIND", SECRETS, 405, "does not take this method"),
    ] {
        let body = if matches!(method, "GET" | "TRACE") { "" } else { "{}" };
        let headers: &[(&str, &str)] = if method == "TRACE" { &[("Content-Length", "")] } else { &[] };
        assert_refused(&format!("{method} {path}"), &tab.ask(method, path, headers, body), status, words);
    }
    assert_eq!(tab.upgrade("/wsMultiplexer", &[]).unwrap_err().status, 403);
    // Headlamp's page gives us no token of its own.
    let token = tab.ask("POST", "/clusters/main/set-token", &[], r#"{"token":"attacked"}"#);
    assert_refused("set-token", &token, 403, "no token is taken from the page");
    let asked = desk.headlamp.requests();
    assert!(asked.iter().all(|asked| asked.method == "GET" && !asked.path.contains("proxy")), "{asked:?}");
    served.end();
}

#[test]
fn paths_that_can_be_read_in_two_ways_are_refused() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    for path in [
        "//clusters/main/api/v1/namespaces/attacked/secrets",
        "/clusters//main/api/v1/namespaces/attacked/secrets",
        "/clusters/main//api/v1/namespaces/attacked/secrets",
        "/clusters/main/api/v1/namespaces/default/../attacked/secrets",
        "/clusters/main/api/v1/namespaces/default/%2e%2e/attacked/secrets",
        "/clusters/main/api/v1/namespaces/default/.%2E/attacked/secrets",
        "/clusters/main/api/v1/namespaces/default/..;/attacked/secrets",
        "/clusters/main/api/v1/namespaces/default;x=y/attacked/secrets",
        "/clusters/main/api/v1/namespaces/default/.%3b/attacked/secrets",
        "/clusters/main/api/v1/namespaces/./attacked/secrets",
        "/clusters/main/api/v1%2fnamespaces/attacked/secrets",
        "/clusters/main/api/v1%2Fnamespaces%2Fattacked/secrets",
        "/clusters/main/api/v1/namespaces%5cattacked/secrets",
        "/clusters/main/api/v1\\namespaces\\attacked/secrets",
        "/clusters/main/api/v1/namespaces/attacked%00/secrets",
        "/clusters/main/api/v1/namespaces/attacked%0d%0aX:%20y/secrets",
        "/clusters/main/api/v1/namespaces/attacked/%252e%252e/secrets",
        "/clusters/main/api/v1/namespaces/attacked/%252fsecrets",
        "/clusters/main/api/v1/namespaces/attacked/%c0%ae%c0%ae/secrets",
        "/clusters/main/api/v1/namespaces/attacked/%zz/secrets",
        "/clusters/main/api/v1/namespaces/attacked/%2",
        "/clusters/main%2fapi/v1/namespaces/attacked/secrets",
        "/clusters/%6dain/../main/api/v1/namespaces/attacked/secrets",
        "/c/main/../../clusters/main/api/v1/namespaces/attacked/secrets",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/.kubectl-headlamp/../clusters/main/api/v1/namespaces/attacked/secrets",
    ] {
        assert_refused(path, &served.tab.get(path), 400, "can be read in two ways");
    }
    served.end();
}

#[test]
fn a_request_that_hides_another_is_refused_or_read_in_one_way() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let tab = &served.tab;
    let hidden = tab.request("GET", SECRETS, &[], "");
    let post = "/clusters/main/api/v1/namespaces/default/pods";
    let chunked = |coding: &str| {
        tab.request("POST", post, &[("Transfer-Encoding", coding), ("Content-Length", ""), ("Connection", "")], "")
    };
    let sized = |length: &str| tab.request("POST", post, &[("Content-Length", length), ("Connection", "")], "");
    let with_line = |line: &str| {
        tab.request("GET", SECRETS, &[("Connection", "")], "").replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
    };
    let both = chunked("chunked").replacen("\r\n", "\r\nContent-Length: 4\r\n", 1);
    for (what, request) in [
        ("two codings", format!("{}0\r\n\r\n{hidden}", chunked("gzip, chunked"))),
        ("an unknown coding", format!("{}0\r\n\r\n{hidden}", chunked("xchunked"))),
        ("chunked twice", format!("{}0\r\n\r\n{hidden}", chunked("chunked, chunked"))),
        ("chunked not last", format!("{}0\r\n\r\n{hidden}", chunked("chunked, identity"))),
        ("both a length and a coding", format!("{both}0\r\n\r\n{hidden}")),
        ("two lengths", format!("{}{hidden}", sized("0").replacen("\r\n", "\r\nContent-Length: 44\r\n", 1))),
        ("a list of lengths", format!("{}{hidden}", sized("0, 44"))),
        ("a signed length", format!("{}{hidden}", sized("+0"))),
        ("a length in hex", format!("{}{hidden}", sized("0x0"))),
        ("a body on GET", tab.request("GET", SECRETS, &[("Content-Length", "5"), ("Connection", "")], "hello")),
        ("a chunked GET", format!("{}0\r\n\r\n{hidden}", with_line("Transfer-Encoding: chunked"))),
        ("a folded header", with_line("X-Folded: a\r\n b")),
        ("a blank before the colon", with_line("Content-Length : 0")),
        ("a header without a colon", with_line("nonsense")),
        ("a bare CR", with_line("X-A: b\rX-B: c")),
        ("two Hosts", with_line("Host: evil.example")),
        ("two Origins", with_line("Origin: http://evil.example\r\nOrigin: http://evil.example")),
        ("an absolute form", hidden.replacen("GET /", &format!("GET http://localhost:{}/", tab.port), 1)),
        ("another absolute form", hidden.replacen("GET /", "GET http://evil.example/", 1)),
        ("an authority form", hidden.replacen(SECRETS, "kubernetes.default.svc:443", 1).replacen("GET", "CONNECT", 1)),
        (
            "an upgrade to HTTP/2",
            with_line("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
        ),
        ("HTTP/2 itself", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("an asterisk", hidden.replacen(SECRETS, "*", 1)),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}".to_owned()),
    ] {
        let all = everything(tab.port, request.as_bytes());
        let text = String::from_utf8_lossy(&all);
        let answers = text.matches("HTTP/1.1 ").count();
        // A length beside a coding is dropped and the connection closed (RFC 9112 §6.3); the API server
        // then finds no object in the empty body.
        let refused = text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 405 ") || text.is_empty();
        assert!(refused && answers <= 1, "{what}: {text}");
    }
    // Chunks that lie about their size are no way round either.
    for body in
        ["ffffffffffffffff0\r\n", "-1\r\n", "0x1\r\na\r\n0\r\n\r\n", "1;\rx\r\na\r\n0\r\n\r\n", "2\r\nabc\r\n0\r\n\r\n"]
    {
        let text = everything(tab.port, format!("{}{body}{hidden}", chunked("chunked")).as_bytes());
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.starts_with("HTTP/1.1 2") && text.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {text}");
    }
    served.end();
}

#[test]
fn what_a_page_says_of_who_it_is_never_reaches_the_cluster() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let claims = [
        ("Impersonate-User", "admin"),
        ("Impersonate-Group", "system:masters"),
        ("Impersonate-Uid", "0"),
        ("Impersonate-Extra-Scopes", "all"),
        ("Authorization", "Bearer of-somebody-else"),
        ("X-Remote-User", "admin"),
        ("X-Remote-Group", "system:masters"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-User", "admin"),
        ("X-HEADLAMP-USER-ID", "admin"),
        ("KUBECONFIG", "YXBpVmVyc2lvbjogdjE="),
        ("Forwarded", "for=10.0.0.1"),
        ("Connection", "close, Authorization"),
    ];
    assert_eq!(served.tab.ask("GET", PODS, &claims, "").status, 200);
    let protocols =
        ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.b2Ytc29tZWJvZHk, base64.binary.k8s.io");
    let socket = served.tab.upgrade(&format!("{PODS}?watch=true"), &[&claims[..4], &[protocols]].concat());
    drop(socket.unwrap_or_else(|reply| panic!("{} {}", reply.status, reply.text())));
    let path = "/api/v1/namespaces/default/pods";
    wait_until(DEADLINE, "the watch", || desk.cluster.requests_to(path).len() >= 2);
    for asked in desk.cluster.requests_to(path) {
        let user = asked.user.as_ref().unwrap();
        assert_eq!((user.name.as_str(), user, &asked.signed_in), ("jane", user, &asked.user));
        let names: Vec<&str> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
        let told = format!("{:?}", asked.headers);
        assert!(!names.iter().any(|name| name.starts_with("impersonate-") || name.starts_with("x-")), "{told}");
        assert!(
            !names.contains(&"cookie") && !names.contains(&"kubeconfig") && !names.contains(&"forwarded"),
            "{told}"
        );
        assert!(!told.contains("of-somebody-else") && !told.contains("b2Ytc29tZWJvZHk"), "{told}");
    }
    served.end();
}

#[test]
fn websockets_of_other_pages_are_refused() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let tab = &served.tab;
    let other = format!("http://localhost:{}", tab.port + 1);
    for origin in ["", "null", "http://evil.example", &other, &format!("https://localhost:{}", tab.port)] {
        for path in [
            "/clusters/main/api/v1/namespaces/attacked/pods?watch=true",
            "/clusters/main/api/v1/namespaces/attacked/pods/web/exec?command=sh&stdin=true",
            "/clusters/main/api/v1/namespaces/attacked/pods/web/log?follow=true",
        ] {
            let refused = tab.upgrade(path, &[("Origin", origin)]).unwrap_err();
            let text = refused.text();
            assert!(refused.status == 403 && text.contains("only this server's own page"), "{origin} {path}: {text}");
        }
    }
    for (path, status) in
        [("/clusters/main/metrics?watch=true", 404), ("/assets/index.js", 404), ("/.kubectl-headlamp/session", 404)]
    {
        assert_eq!(tab.upgrade(path, &[]).unwrap_err().status, status, "{path}");
    }
    served.end();
}

#[test]
fn idle_slow_and_oversized_clients_cost_the_one_browser_nothing() {
    let desk = Desk::taken();
    let served = Served::by(&desk);
    let tab = &served.tab;
    let huge = format!("X-Huge: {}\r\n", "x".repeat(80 * 1024));
    let request = tab.request("GET", SECRETS, &[], "").replacen("\r\n", &format!("\r\n{huge}"), 1);
    let refused = exchange(tab.port, request.as_bytes());
    assert!(refused.is_none_or(|reply| reply.status == 431));
    let many: Vec<String> = (0..2000).map(|number| format!("X-{number}: x\r\n")).collect();
    let request = tab.request("GET", SECRETS, &[], "").replacen("\r\n", &format!("\r\n{}", many.concat()), 1);
    let refused = exchange(tab.port, request.as_bytes());
    assert!(refused.is_none_or(|reply| reply.status == 431));
    let long = format!("{SECRETS}?{}", "x".repeat(100 * 1024));
    let refused = exchange(tab.port, tab.request("GET", &long, &[], "").as_bytes());
    assert!(refused.is_none_or(|reply| matches!(reply.status, 414 | 431)));
    // A browser that many programs on this host have given cookies is served all the same.
    let cookies = format!("{}; others={}", tab.cookie, "x".repeat(30 * 1024));
    assert_eq!(tab.ask("GET", PODS, &[("Cookie", &cookies)], "").status, 200);

    let mut kept = connect(tab.port);
    let lasting = tab.request("GET", PODS, &[("Connection", "keep-alive")], "");
    let mut again = || {
        kept.write_all(lasting.as_bytes()).unwrap();
        let mut answer = String::new();
        // As long as a brace is open, more of the list is to come.
        while !answer.contains('{') || answer.matches('{').count() > answer.matches('}').count() {
            let mut buffer = [0; 4096];
            let count = kept.read(&mut buffer).unwrap();
            assert!(count > 0, "it was closed: {answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    };
    again();
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    let idle: Vec<TcpStream> = (0..200).map(|_| connect(tab.port)).collect();
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = connect(tab.port);
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localh");
            stream
        })
        .collect();
    assert_eq!((tab.go("/").status, tab.get(PODS).status), (200, 200));
    // What the browser had open before is not pushed out.
    again();
    desk.cluster.add_pod("default", "new", &[], &[]);
    assert_eq!(crate::open_desk::event(&mut watch)["object"]["metadata"]["name"], "new");
    drop((idle, slow));
    served.end();
}
