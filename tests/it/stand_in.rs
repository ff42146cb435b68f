//! The stand-in Headlamp itself: it must have the ways of the real one, or what is tested with it
//! proves nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use headlamp_test_support::headlamp_flags::Flags;
use headlamp_test_support::{Answer, Authority, Browser, Oidc, StandIn, StandInOptions, Version, browser, request_log};
use serde_json::{Value, json};
use url::Url;

const OLD: Version = Version(0, 30, 0);

fn ask(stand_in: &StandIn, method: &str, path: &str, headers: &[(&str, &str)]) -> browser::Page {
    let url = Url::parse(&format!("http://127.0.0.1:{}{path}", stand_in.port())).unwrap();
    Browser::new().request(method, &url, headers, "").unwrap()
}

fn get(stand_in: &StandIn, path: &str) -> browser::Page {
    ask(stand_in, "GET", path, &[])
}

fn header<'a>(page: &'a browser::Page, name: &str) -> Option<&'a str> {
    page.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn is_index(page: &browser::Page) -> bool {
    page.status == 200
        && header(page, "content-type") == Some("text/html; charset=utf-8")
        && page.body.contains("<title>Headlamp (stand-in)</title>")
}

#[test]
fn a_path_that_is_no_file_is_the_index_page_even_where_a_script_is_missing() {
    let stand_in = StandIn::start(StandInOptions::default());
    for path in ["/", "/c/main/pods", "/index.html", "/assets/index-AAAAAAAA.js", "/apis/apiextensions.k8s.io/v1/x"] {
        assert!(is_index(&get(&stand_in, path)), "{path}");
    }
    for path in stand_in.assets() {
        let script = get(&stand_in, &path);
        assert!(!is_index(&script) && script.status == 200, "{path}");
    }
    stand_in.roll_out("second");
    assert_eq!(stand_in.assets().len(), 3);
    let old = stand_in.requests().into_iter().find(|request| request.path.starts_with("/assets/index-")).unwrap().path;
    assert!(is_index(&get(&stand_in, &old)), "a file of the old build is gone");
}

#[test]
fn files_have_a_time_and_no_tag_and_nothing_says_how_long_they_keep() {
    let stand_in = StandIn::start(StandInOptions::default());
    for path in ["/", &stand_in.assets()[0]] {
        let page = get(&stand_in, path);
        assert_eq!((header(&page, "etag"), header(&page, "cache-control")), (None, None));
        let modified = header(&page, "last-modified").unwrap();
        let again = ask(&stand_in, "GET", path, &[("If-Modified-Since", modified)]);
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        let older = ask(&stand_in, "GET", path, &[("If-Modified-Since", "Thu, 01 Jan 2015 00:00:00 GMT")]);
        assert_eq!(older.status, 200);
    }
    let part = ask(&stand_in, "GET", "/favicon.svg", &[("Range", "bytes=1-3")]);
    assert_eq!((part.status, part.body.as_str()), (206, "svg"));
}

#[test]
fn files_but_for_the_index_page_come_with_brotli_since_0_44_and_never_with_gzip() {
    for (version, encoding) in [(Version(0, 45, 0), Some("br")), (OLD, None)] {
        let stand_in = StandIn::start(StandInOptions { version, chunks: 4, ..StandInOptions::default() });
        let asset = stand_in.assets().into_iter().find(|path| path.contains("chunk")).unwrap();
        let taken = |path: &str, accepted: &str| ask(&stand_in, "GET", path, &[("Accept-Encoding", accepted)]);
        let (all, gzip) = (taken(&asset, "gzip, deflate, br, zstd"), taken(&asset, "gzip"));
        assert_eq!((header(&all, "content-encoding"), header(&gzip, "content-encoding")), (encoding, None));
        assert_eq!(header(&all, "vary"), encoding.map(|_| "Accept-Encoding"));
        assert_eq!(header(&all, "transfer-encoding"), encoding.map(|_| "chunked"));
        let whole: usize = header(&gzip, "content-length").unwrap().parse().unwrap();
        assert!(encoding.is_none() || all.body.len() * 3 < whole, "{} of {whole}", all.body.len());
        assert_eq!(header(&taken("/", "br"), "content-encoding"), None);
    }
}

#[test]
fn a_path_that_is_not_clean_is_sent_to_the_clean_one_and_the_routes_that_act_want_more() {
    let stand_in = StandIn::start(StandInOptions::default());
    for path in ["/a//b", "/a/./b", "/a/x/../b", "/../a/b"] {
        // Not by the browser, which would clean the path itself.
        let mut stream = TcpStream::connect(("127.0.0.1", stand_in.port())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 301 ") && answer.contains("\r\nLocation: /a/b\r\n"), "{path}: {answer}");
    }
    assert_eq!((get(&stand_in, "/externalproxy").status, get(&stand_in, "/wsMultiplexer").status), (400, 400));
}

#[test]
fn with_a_base_url_everything_is_below_it_and_the_page_knows() {
    let stand_in = StandIn::start(StandInOptions { base_url: "/headlamp".to_owned(), ..StandInOptions::default() });
    for path in ["/headlamp", "/", "/config", "/assets/x.js"] {
        assert_eq!(get(&stand_in, path).status, 404, "{path}");
    }
    let page = get(&stand_in, "/headlamp/c/main/pods");
    assert!(is_index(&page) && page.body.contains("headlampBaseUrl = '/headlamp';"));
    for asset in stand_in.assets() {
        assert!(page.body.contains(&format!("=\"/headlamp{asset}\"")), "{asset} in {}", page.body);
    }
    assert_eq!(get(&stand_in, "/headlamp/plugins").body, "[]\n");
    assert_eq!(get(&stand_in, "/headlamp/clusters/main/api/v1/pods").status, 401);
}

#[test]
fn the_index_page_names_half_of_the_further_scripts() {
    let stand_in = StandIn::start(StandInOptions { chunks: 10, ..StandInOptions::default() });
    let (page, assets) = (get(&stand_in, "/").body, stand_in.assets());
    let (named, others) = assets.split_at(8);
    assert!(named.iter().all(|asset| page.contains(asset)));
    assert!(others.len() == 5 && others.iter().all(|asset| !page.contains(asset)));
    let script = get(&stand_in, named.iter().find(|asset| asset.contains("index") && asset.ends_with("js")).unwrap());
    assert!(others.iter().all(|asset| script.body.contains(asset.trim_start_matches("/assets/"))));
}

#[test]
fn the_configuration_names_the_own_cluster_and_how_it_signs_in() {
    let provider = Oidc { issuer: "https://login.example.com".to_owned(), client: "headlamp".to_owned() };
    for (version, oidc, name, auth_type) in [
        (Version(0, 45, 0), None, "prod", ""),
        (Version(0, 45, 0), Some(provider.clone()), "prod", "oidc"),
        (OLD, Some(provider), "main", "oidc"),
    ] {
        let options = StandInOptions { version, oidc, context_name: "prod".to_owned(), ..StandInOptions::default() };
        let stand_in = StandIn::start(options);
        let page = get(&stand_in, "/config");
        assert_eq!(header(&page, "content-type"), Some("application/json"));
        let config: Value = serde_json::from_str(&page.body).unwrap();
        let cluster = &config["clusters"][0];
        assert_eq!((&cluster["name"], &cluster["auth_type"]), (&json!(name), &json!(auth_type)));
        assert_eq!(cluster["meta_data"]["source"], "incluster");
        stand_in.edit_config(|config| config["clusters"] = json!([]));
        assert_eq!(get(&stand_in, "/config").body.find("incluster"), None);
    }
}

#[test]
fn its_own_sign_in_goes_by_the_host_that_it_is_asked_for() {
    let oidc = Oidc { issuer: "https://login.example.com".to_owned(), client: "headlamp".to_owned() };
    let stand_in = StandIn::start(StandInOptions { oidc: Some(oidc), ..StandInOptions::default() });
    let url = Url::parse(&format!("http://localhost:{}/oidc?cluster=main", stand_in.port())).unwrap();
    let answer = Browser::new().finding("localhost", stand_in.port()).request("GET", &url, &[], "").unwrap();
    assert_eq!(answer.status, 302);
    let location = Url::parse(header(&answer, "location").unwrap()).unwrap();
    let redirect = location.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(redirect, format!("http://localhost:{}/oidc-callback", stand_in.port()));
    let page = get(&stand_in, "/oidc-callback?code=a&state=b");
    assert!(page.body.contains("Headlamp's own callback") && page.body.contains("code: given, state: given"));
}

#[test]
fn what_should_never_come_to_it_is_refused_and_told() {
    let stand_in = StandIn::start(StandInOptions::default());
    assert!(stand_in.api_requests().is_empty());
    let answer = ask(&stand_in, "GET", "/clusters/main/api/v1/pods?limit=5", &[("Authorization", "Bearer abc")]);
    assert_eq!((answer.status, answer.body.as_str()), (401, "should never come here\n"));
    let requests = stand_in.api_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(request_log::credentials(&requests), ["/clusters/main/api/v1/pods: header `authorization: Bearer abc`"]);
    assert_eq!(ask(&stand_in, "POST", "/auth/set-token", &[]).status, 400);
    let old = StandIn::start(StandInOptions { version: OLD, ..StandInOptions::default() });
    assert!(is_index(&ask(&old, "POST", "/auth/set-token", &[])), "0.30 has no such route");
}

#[test]
fn a_logged_request_is_read_back_whole_and_its_credentials_are_found_wherever_they_are() {
    let stand_in = StandIn::start(StandInOptions::default());
    let _ = ask(
        &stand_in,
        "GET",
        "/?token=x&a=%22b%22",
        &[("Cookie", "a=b"), ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.YQ")],
    );
    let _ = ask(&stand_in, "POST", "/eyJhbGciOiJub25lIn0", &[("Impersonate-User", "jane")]);
    let _ = get(&stand_in, "/assets/index.js");
    let requests = stand_in.requests();
    let read: Vec<_> =
        requests.iter().map(|request| request_log::parse(&request_log::line(request)).unwrap()).collect();
    assert_eq!(format!("{read:?}"), format!("{requests:?}"));
    assert_eq!(request_log::credentials(&read[..1]).len(), 3);
    assert_eq!(request_log::credentials(&read[1..2]).len(), 2);
    assert_eq!(request_log::credentials(&read[2..]), [""; 0]);
    assert!(request_log::parse("listening on 4466").is_none());
}

#[test]
fn with_tls_it_speaks_nothing_else() {
    let authority = Authority::new("of Headlamp");
    let tls = Some(authority.server(&["127.0.0.1"]));
    let stand_in = StandIn::start(StandInOptions { tls, ..StandInOptions::default() });
    let url = Url::parse(&stand_in.url()).unwrap();
    assert_eq!(url.scheme(), "https");
    assert!(is_index(&Browser::new().trusting(authority.pem()).request("GET", &url, &[], "").unwrap()));
    Browser::new().request("GET", &url, &[], "").unwrap_err();
    let plain = Url::parse(&format!("http://127.0.0.1:{}/", stand_in.port())).unwrap();
    Browser::new().request("GET", &plain, &[], "").unwrap_err();
}

#[test]
fn a_version_ends_at_a_flag_that_it_does_not_have_yet() {
    let read = |version: &'static str, arguments: &[&str]| {
        let environment = move |name: &str| (name == "STAND_IN_VERSION").then(|| version.to_owned());
        Flags::read(arguments.iter().map(|argument| (*argument).to_owned()), environment)
    };
    let chart = ["-in-cluster", "-in-cluster-context-name=main", "-session-ttl=86400"];
    assert_eq!(read("0.40.1", &chart).err().unwrap(), "flag provided but not defined: -session-ttl");
    assert_eq!(read("0.30.0", &chart).err().unwrap(), "flag provided but not defined: -in-cluster-context-name");
    let flags = read("0.41.0", &[&chart, ["--base-url", "/x", "-port=4000"].as_slice()].concat()).ok().unwrap();
    assert_eq!((flags.options.base_url.as_str(), flags.port), ("/x", 4000));
    assert!(read("newest", &[]).is_err());
}

#[test]
fn an_answer_can_be_replaced_and_a_file_added() {
    let stand_in = StandIn::start(StandInOptions::default());
    stand_in.script("/plugins", Answer::json(500, &json!({})));
    assert_eq!((get(&stand_in, "/plugins").status, get(&stand_in, "/plugins").status), (500, 200));
    stand_in.put_file("/assets/index-BqP3k9aZ.js", "export {};");
    assert_eq!(get(&stand_in, "/assets/index-BqP3k9aZ.js").body, "export {};");
}
