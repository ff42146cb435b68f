#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headlamp_test_support::KeptPort;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::environment::Environment;
use crate::error::Kind;
use crate::proxy::Proxies;

/// A server that hands each request, with its number, to `answer`, and keeps those it has had.
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(usize, &str, &mut TcpStream) + Send + 'static) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn listening(listener: TcpListener, answer: impl Fn(usize, &str, &mut TcpStream) + Send + 'static) -> Self {
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                let mut requests = kept.lock().unwrap();
                requests.push(request.clone());
                let number = requests.len();
                drop(requests);
                answer(number, &request, &mut stream);
            }
        });
        Self { port, requests }
    }

    /// The n-th request gets the n-th answer, all further ones the last.
    pub(crate) fn answering(answers: Vec<Vec<u8>>) -> Self {
        Self::start(move |number, _, stream| {
            let answer = &answers[(number - 1).min(answers.len() - 1)];
            let _ = stream.write_all(answer);
        })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/path?secret=s3cret", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut impl Read) -> String {
    let mut request = read_head(stream);
    let length =
        request.to_lowercase().split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    request.push_str(&String::from_utf8(body).unwrap());
    request
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

pub(crate) fn noon() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// Nothing is tried again.
pub(crate) const HURRIED: Limits = Limits {
    connect: Duration::from_secs(5),
    exchange: Duration::from_secs(20),
    patience: Duration::ZERO,
    body: 1 << 20,
};

fn client(settings: &ConnectionSettings, limits: Limits) -> Http {
    Http::with_limits(settings, limits, Ui::new(), Clock::fixed(noon)).unwrap()
}

async fn get_with(http: &Http, url: &str, repeat: Repeat) -> Result<Response<Vec<u8>>> {
    http.send(Request::get(url).body(Vec::new()).unwrap(), repeat).await
}

/// One request with these settings, not repeated.
async fn get(settings: &ConnectionSettings, url: &str) -> Result<Response<Vec<u8>>> {
    get_with(&client(settings, HURRIED), url, Repeat::Freely).await
}

async fn refusal(settings: &ConnectionSettings, url: &str) -> String {
    let error = get(settings, url).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    error.to_string()
}

fn plain() -> ConnectionSettings {
    ConnectionSettings::default()
}

#[tokio::test]
async fn an_answer_comes_with_status_headers_and_body() {
    let server = Server::answering(vec![answer("400 Bad Request", "X-A: b\r\n", "{\"error\":1}")]);
    let response = get(&plain(), &server.url()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_slice()), (400, &b"{\"error\":1}"[..]));
    assert_eq!(response.headers()["x-a"], "b");
}

#[tokio::test]
async fn a_redirect_is_an_error_and_is_not_followed() {
    let server =
        Server::answering(vec![answer("302 Found", "Location: https://elsewhere.example/a?code=s3cret\r\n", "")]);
    let error = refusal(&plain(), &server.url()).await;
    assert!(error.contains("redirect to `https://elsewhere.example/a`"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_whether_its_length_is_told_or_not() {
    let server = Server::answering(vec![answer("200 OK", "", &"x".repeat(8 << 20))]);
    assert!(refusal(&plain(), &server.url()).await.contains("longer than 1024 KiB"));
    let server = Server::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 1 << 14]).is_ok() {}
    });
    assert!(refusal(&plain(), &server.url()).await.contains("longer than 1024 KiB"));
    let server = Server::answering(vec![answer("200 OK", "", &"x".repeat(1 << 20))]);
    assert_eq!(get(&plain(), &server.url()).await.unwrap().body().len(), 1 << 20);
}

#[tokio::test]
async fn a_compressed_body_is_not_asked_for_and_not_unpacked() {
    let server = Server::answering(vec![answer("200 OK", "Content-Encoding: gzip\r\n", "bomb")]);
    assert!(refusal(&plain(), &server.url()).await.contains("compressed"));
    assert!(!server.requests()[0].to_lowercase().contains("accept-encoding"));
}

#[tokio::test]
async fn an_answer_that_stalls_ends_at_the_limit() {
    let server = Server::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        // Holds the connection open until the client leaves.
        let _ = stream.read(&mut [0]);
    });
    let limits = Limits { exchange: Duration::from_millis(200), ..HURRIED };
    let error = get_with(&client(&plain(), limits), &server.url(), Repeat::Freely).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("the answer took too long"), "{error}");
}

#[tokio::test]
async fn a_provider_that_cannot_answer_now_is_asked_again() {
    for status in ["503 Service Unavailable", "500 Internal Server Error", "429 Too Many Requests"] {
        let server = Server::answering(vec![answer(status, "", ""), answer("200 OK", "", "")]);
        let response = get_with(&client(&plain(), Limits::USUAL), &server.url(), Repeat::Freely).await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests().len()), (200, 2), "{status}");
    }
}

#[tokio::test]
async fn what_is_good_for_one_use_is_sent_once() {
    let server = Server::answering(vec![answer("503 Service Unavailable", "", ""), answer("200 OK", "", "")]);
    let response = get_with(&client(&plain(), Limits::USUAL), &server.url(), Repeat::IfUnsent).await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests().len()), (503, 1));
    let server = Server::start(|_, _, _| {});
    assert!(get_with(&client(&plain(), Limits::USUAL), &server.url(), Repeat::IfUnsent).await.is_err());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_is_good_for_one_use_is_tried_again_if_nothing_was_sent() {
    let kept = KeptPort::new();
    let http = client(&plain(), Limits::USUAL);
    let url = format!("http://{}/", kept.address());
    let mut request = std::pin::pin!(get_with(&http, &url, Repeat::IfUnsent));
    // Long enough to be refused once, and less than the shortest pause.
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut request).await.is_err());
    let server = Server::listening(TcpListener::bind(kept.address()).unwrap(), |_, _, stream| {
        stream.write_all(&answer("200 OK", "", "")).unwrap();
    });
    assert_eq!(request.await.unwrap().status(), 200);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_where_that_does_no_harm() {
    let server = Server::start(|number, _, stream| {
        if number == 2 {
            let _ = stream.write_all(&answer("200 OK", "", ""));
        }
    });
    assert!(get_with(&client(&plain(), Limits::USUAL), &server.url(), Repeat::Freely).await.is_ok());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_provider_that_asks_to_be_left_alone_is() {
    let server = Server::answering(vec![answer("429 Too Many Requests", "Retry-After: 3600\r\n", "")]);
    let began = Instant::now();
    let response = get_with(&client(&plain(), Limits::USUAL), &server.url(), Repeat::Freely).await.unwrap();
    assert_eq!(server.requests().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    let error = unavailable(&Url::parse(&server.url()).unwrap(), &response, noon()).to_string();
    assert!(error.contains("left alone for 60 min") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_provider_that_can_be_asked_again_at_once_is_not_rushed() {
    let server = Server::answering(vec![answer("503 Service Unavailable", "Retry-After: 0\r\n", "")]);
    // Three pauses at most, of half to all of 250 ms, 500 ms and 1 s.
    let limits = Limits { patience: Duration::from_millis(1500), ..HURRIED };
    get_with(&client(&plain(), limits), &server.url(), Repeat::Freely).await.unwrap();
    assert!((2..=4).contains(&server.requests().len()), "{}", server.requests().len());
}

#[test]
fn retry_after_is_a_number_or_a_date() {
    let parsed = |text: &'static str| {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
        retry_after(&headers, noon()).map(|wait| wait.as_secs())
    };
    assert_eq!(parsed("7"), Some(7));
    assert_eq!(parsed("18446744073709551615"), Some(u64::MAX));
    assert_eq!(parsed("Tue, 24 Nov 2026 12:00:30 GMT"), Some(30));
    assert_eq!(parsed("Tue, 24 Nov 2026 11:00:00 GMT"), Some(0));
    assert_eq!(parsed("soon"), None);
}

#[tokio::test]
async fn configured_headers_are_on_every_request() {
    let server = Server::answering(vec![answer("200 OK", "", "")]);
    let headers = [("Origin", "https://app.example"), ("X-Team", "a"), ("X-Team", "b"), ("User-Agent", "mine")];
    let settings = ConnectionSettings {
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..plain()
    };
    get(&settings, &server.url()).await.unwrap();
    let head = &server.requests()[0].to_lowercase();
    for line in ["origin: https://app.example", "x-team: a", "x-team: b", "user-agent: mine"] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    get(&plain(), &server.url()).await.unwrap();
    assert!(server.requests()[1].contains("user-agent: kubectl-headlamp/"));
}

#[test]
fn a_header_that_http_does_not_allow_is_named_without_its_value() {
    for (name, value) in [("a b", "s3cret"), ("a", "s3cret\n")] {
        let settings = ConnectionSettings { headers: vec![(name.to_owned(), value.to_owned())], ..plain() };
        let error = Http::new(&settings, Ui::new(), Clock::fixed(noon)).err().unwrap();
        assert_eq!(error.kind(), Kind::Settings);
        assert!(error.message().contains(&format!("`{name}`")) && !error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn the_providers_clock_is_compared_with_ours() {
    let date = "Date: Tue, 24 Nov 2026 12:10:00 GMT\r\n";
    for (headers, skew) in [
        (date.to_owned(), Some(600)),
        (format!("{date}Age: 60\r\n"), Some(660)),
        (String::new(), None),
        ("Date: today\r\n".to_owned(), None),
    ] {
        let server = Server::answering(vec![answer("200 OK", &headers, "")]);
        let http = client(&plain(), HURRIED);
        get_with(&http, &server.url(), Repeat::Freely).await.unwrap();
        assert_eq!(http.clock_skew().map(|skew| skew.as_secs()), skew, "{headers}");
    }
}

#[tokio::test]
async fn nothing_goes_out_unencrypted() {
    let error = get(&plain(), "http://192.0.2.1/").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Bug);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_name_are_told_apart() {
    let closed = KeptPort::new();
    let port = closed.number();
    let error = refusal(&plain(), &format!("http://127.0.0.1:{port}/")).await;
    assert!(error.contains(&format!("nothing listens on port {port}")), "{error}");
    // The dot at its end keeps this machine's own domain out of it.
    let error = refusal(&insecure(), "https://no-such-host.invalid./").await;
    assert!(error.contains("`no-such-host.invalid.` cannot be resolved"), "{error}");
}

/// A folder of files for one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, as PEM.
    fn issue(&self, parameters: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn for_name(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A TLS server that says 200; with `clients`, only to those whom that authority has certified.
fn tls_server((certificate, key): (String, String), clients: Option<&Authority>) -> Server {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap(),
            )
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let config =
        Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
            if read_head(&mut stream).is_empty() {
                continue;
            }
            let _ = stream.write_all(&answer("200 OK", "", ""));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    Server { port, requests: Arc::default() }
}

fn trusting(authority: &Authority) -> ConnectionSettings {
    ConnectionSettings { certificate_authority_data: vec![STANDARD.encode(authority.0.pem())], ..plain() }
}

fn insecure() -> ConnectionSettings {
    ConnectionSettings { insecure_skip_tls_verify: true, ..plain() }
}

#[tokio::test]
async fn authorities_are_named_by_file_or_as_data_and_verification_can_be_switched_off() {
    let (authority, other, folder) = (Authority::new("one"), Authority::new("other"), Folder::new());
    let server = tls_server(authority.issue(&for_name("localhost")), None);
    let url = format!("https://localhost:{}/", server.port);
    let bundle = format!("a comment\n{}{}", other.0.pem(), authority.0.pem());
    let by_file = ConnectionSettings { certificate_authorities: vec![folder.file("ca.pem", &bundle)], ..plain() };
    for settings in [by_file, trusting(&authority), insecure()] {
        assert_eq!(get(&settings, &url).await.unwrap().status(), 200);
    }
    let error = refusal(&trusting(&other), &url).await;
    assert!(error.contains("does not trust") && error.contains("--certificate-authority <file>"), "{error}");
    let error = refusal(&trusting(&Authority::new("one")), &url).await;
    assert!(error.contains("has another key") && error.contains("--certificate-authority <file>"), "{error}");
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_own_words() {
    let authority = Authority::new("one");
    let mut old = for_name("localhost");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = for_name("localhost");
    early.not_before = rcgen::date_time_ymd(2999, 1, 1);
    let mut own = for_name("localhost");
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (parameters, words) in [
        (old, "has expired"),
        (early, "is not valid yet"),
        (for_name("other.example"), "is for another name"),
        (own, "the certificate of an authority as its own"),
    ] {
        let server = tls_server(authority.issue(&parameters), None);
        let error = refusal(&trusting(&authority), &format!("https://localhost:{}/", server.port)).await;
        assert!(error.contains(words) && error.contains("hint: "), "{words}: {error}");
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(&answer("400 Bad Request", "", "")));
    let error = refusal(&trusting(&Authority::new("other")), &format!("https://localhost:{port}/")).await;
    assert!(error.contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_certificate_fault_is_not_tried_again() {
    let authority = Authority::new("one");
    let server = tls_server(authority.issue(&for_name("localhost")), None);
    let http = client(&trusting(&Authority::new("other")), Limits { patience: Duration::from_secs(3600), ..HURRIED });
    let error = get_with(&http, &format!("https://localhost:{}/", server.port), Repeat::Freely).await.unwrap_err();
    assert!(error.to_string().contains("does not trust"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_provider_that_wants_one() {
    let (authority, folder) = (Authority::new("one"), Folder::new());
    let server = tls_server(authority.issue(&for_name("localhost")), Some(&authority));
    let url = format!("https://localhost:{}/", server.port);
    let (certificate, key) = authority.issue(&for_name("jane"));
    let files = (folder.file("jane.pem", &certificate), folder.file("jane.key", &key));
    let settings = ConnectionSettings { client_certificate: Some(files), ..trusting(&authority) };
    assert_eq!(get(&settings, &url).await.unwrap().status(), 200);
    let error = refusal(&trusting(&authority), &url).await;
    assert!(error.contains("--client-certificate <file>"), "{error}");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let (authority, folder) = (Authority::new("one"), Folder::new());
    let (certificate, key) = authority.issue(&for_name("jane"));
    let (_, foreign_key) = authority.issue(&for_name("john"));
    let junk = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let by_file = |path| ConnectionSettings { certificate_authorities: vec![path], ..plain() };
    let by_data = |data: &str| ConnectionSettings { certificate_authority_data: vec![data.to_owned()], ..plain() };
    let identity = |name: &str, certificate: &str, key: &str| {
        let files = (folder.file(&format!("{name}.crt"), certificate), folder.file(&format!("{name}.key"), key));
        ConnectionSettings { client_certificate: Some(files), ..plain() }
    };
    for (settings, named) in [
        (by_file(folder.0.path().join("absent.pem")), "absent.pem"),
        (by_file(folder.file("text.pem", "no certificate")), "text.pem"),
        (by_file(folder.file("junk.pem", junk)), "junk.pem"),
        (by_file(folder.file("empty.pem", empty)), "empty.pem"),
        (by_data("%"), "--certificate-authority-data"),
        (by_data(&STANDARD.encode("no certificate")), "--certificate-authority-data"),
        (identity("a", "", &key), "a.crt"),
        (identity("b", &certificate, ""), "b.key"),
        (identity("c", &certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "c.key"),
        (identity("d", &certificate, &foreign_key), "d.key"),
    ] {
        let error = get(&settings, "https://localhost:1/").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Settings, "{error}");
        assert!(error.message().contains(named), "{named}: {error}");
    }
}

/// A proxy that lets CONNECT through to `port`, wherever it was to go.
fn proxy_to(port: u16) -> Server {
    Server::start(move |_, _, client| {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let mut target = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), target.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut target, client);
        let _ = client.shutdown(std::net::Shutdown::Write);
    })
}

fn through(port: u16, settings: ConnectionSettings) -> ConnectionSettings {
    let value = format!("http://jane:s3cret@127.0.0.1:{port}");
    ConnectionSettings { proxies: Proxies::of(&Environment::from([("HTTPS_PROXY", value.as_str())])), ..settings }
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used() {
    let authority = Authority::new("one");
    let server = tls_server(authority.issue(&for_name("id.example.com")), None);
    let proxy = proxy_to(server.port);
    let response = get(&through(proxy.port, trusting(&authority)), "https://id.example.com/a?s3cret").await.unwrap();
    assert_eq!(response.status(), 200);
    let head = &proxy.requests()[0];
    assert!(
        head.starts_with("CONNECT id.example.com:443 ") && head.contains("proxy-authorization: Basic amFuZTpzM2NyZXQ="),
        "{head}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_in_the_way_is_named_with_its_variable() {
    let closed = KeptPort::new();
    let wants_password = Server::answering(vec![answer("407 Proxy Authentication Required", "", "")]);
    let refuses = Server::answering(vec![answer("403 Forbidden", "", "")]);
    for (port, words) in [
        (closed.number(), "cannot be reached"),
        (wants_password.port, "wants a user name"),
        (refuses.port, "refuses the connection"),
    ] {
        let error = refusal(&through(port, insecure()), "https://id.example.com/").await;
        assert!(error.contains(&format!("the proxy `http://127.0.0.1:{port}` of `HTTPS_PROXY` {words}")), "{error}");
    }
}

#[test]
fn an_address_is_shown_without_what_may_be_secret() {
    let url = Url::parse("https://jane:s3cret@[::1]:444/token?code=s3cret#s3cret").unwrap();
    assert_eq!(shown(&url), "https://[::1]:444/token");
}
