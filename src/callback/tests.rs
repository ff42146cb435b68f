//! The listener over real sockets: the sign-in runs in a thread of its own, the browsers are plain
//! sockets here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::api_connection::test_server::at_once;

const PROVIDER: &str = "https://id.example.com/authorize?client_id=c&state=st-1";

/// A sign-in that waits for its answer. Dropped, it is cancelled.
struct Waiting {
    redirect: Url,
    start: Url,
    answered: mpsc::Receiver<Result<String, CallbackRefusal>>,
    tell: Option<oneshot::Sender<Option<Page>>>,
    /// How long showing took.
    shown: mpsc::Receiver<Duration>,
    thread: Option<JoinHandle<()>>,
}

fn settings(redirect: &str, port: u16) -> CallbackSettings {
    CallbackSettings {
        places: vec![CallbackPlace { redirect: redirect.to_owned(), port }],
        tls: None,
        open_afterwards: None,
    }
}

fn begin() -> Waiting {
    begin_with(settings("http://localhost:0/oidc-callback", 0))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn listen(settings: &CallbackSettings) -> Listener {
    match bind(settings).await.unwrap() {
        Bind::Listening(listener) => listener,
        Bind::Taken(taken) => panic!("{} is taken", taken[0].port),
    }
}

fn begin_with(settings: CallbackSettings) -> Waiting {
    let (ready, is_ready) = mpsc::channel();
    let (answered, is_answered) = mpsc::channel();
    let (shown, is_shown) = mpsc::channel();
    let (tell, mut told) = oneshot::channel::<Option<Page>>();
    let thread = thread::spawn(move || {
        block_on(async {
            let listener = listen(&settings).await;
            ready
                .send((Url::parse(listener.redirect()).unwrap(), Url::parse(listener.start_url().expose()).unwrap()))
                .unwrap();
            let (provider, state) = (Secret::new(PROVIDER), Secret::new("st-1"));
            let answer = tokio::select! {
                answer = listener.answer(&provider, &state) => answer.unwrap(),
                _ = &mut told => return,
            };
            drop(listener);
            answered.send(answer.result.map(|code| code.expose().to_owned())).unwrap();
            if let Ok(Some(page)) = told.await {
                let began = Instant::now();
                answer.reply.show(&page).await;
                shown.send(began.elapsed()).unwrap();
            }
        });
    });
    let (redirect, start) = is_ready.recv_timeout(PATIENCE).unwrap();
    Waiting { redirect, start, answered: is_answered, tell: Some(tell), shown: is_shown, thread: Some(thread) }
}

impl Waiting {
    fn port(&self) -> u16 {
        self.start.port().unwrap()
    }

    fn get(&self, target: &str) -> String {
        ask(self.port(), &self.request("GET", target, ""))
    }

    fn request(&self, method: &str, target: &str, rest: &str) -> String {
        format!("{method} {target} HTTP/1.1\r\nHost: localhost:{}\r\n{rest}\r\n", self.port())
    }

    /// A browser that brings the answer, and what it is sent at last.
    fn browser(&self, target: &str) -> JoinHandle<Vec<String>> {
        let (port, request) = (self.port(), self.request("GET", target, ""));
        thread::spawn(move || {
            let mut responses = vec![ask(port, &request)];
            if let Some(next) = header(&responses[0], "location").filter(|next| next.starts_with('/')) {
                responses.push(ask(port, &format!("GET {next} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n")));
            }
            responses
        })
    }

    fn answer(&self) -> Result<String, CallbackRefusal> {
        self.answered.recv_timeout(PATIENCE).unwrap()
    }

    fn show(&mut self, page: Page) {
        assert!(self.tell.take().unwrap().send(Some(page)).is_ok());
    }

    fn shown(&self) -> Duration {
        self.shown.recv_timeout(PATIENCE).unwrap()
    }

    /// The sign-in still works: a good answer is accepted, and its page delivered.
    fn ends_well(mut self) {
        let browser = self.browser(GOOD);
        assert_eq!(self.answer().unwrap(), "c0de");
        self.show(success());
        let responses = browser.join().unwrap();
        assert_eq!(status(&responses[0]), 303, "{}", responses[0]);
        assert_eq!(status(&responses[1]), 200, "{}", responses[1]);
        assert!(self.shown() < SHOWN_WITHIN);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.tell.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the sign-in panicked");
    }
}

const GOOD: &str = "/oidc-callback?code=c0de&state=st-1&session_state=x";
const PATIENCE: Duration = Duration::from_secs(30);

fn success() -> Page {
    Page::Success {
        who: Some("jane@example.com".to_owned()),
        cluster: None,
        until: "today".to_owned(),
        open_next: None,
    }
}

fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(address.into()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(port: u16, request: &str) -> String {
    ask_at((Ipv4Addr::LOCALHOST, port), request.as_bytes())
}

/// Everything that comes until the connection ends, in whatever way it ends.
fn ask_at(address: impl Into<SocketAddr>, request: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(request);
    rest(&mut stream)
}

fn rest(stream: &mut impl Read) -> String {
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection was never ended"),
        _ => String::from_utf8_lossy(&response).into_owned(),
    }
}

fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn header(response: &str, name: &str) -> Option<String> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    })
}

#[test]
fn the_browser_is_answered_when_the_answer_has_been_used() {
    let mut waiting = begin();
    let browser = waiting.browser(GOOD);
    assert_eq!(waiting.answer().unwrap(), "c0de");
    assert!(!browser.is_finished());
    waiting.show(success());
    let responses = browser.join().unwrap();
    let location = header(&responses[0], "location").unwrap();
    assert!(location.starts_with("/done/") && !location.contains("c0de"), "{location}");
    for response in &responses {
        assert_eq!(header(response, "referrer-policy").as_deref(), Some("no-referrer"));
        assert_eq!(header(response, "cache-control").as_deref(), Some("no-store"));
        assert!(!response.contains("c0de") && !response.contains("st-1"));
    }
    assert!(responses[1].contains("jane@example.com"));
    assert_eq!(header(&responses[1], "x-frame-options").as_deref(), Some("DENY"));
    assert!(waiting.shown() < SHOWN_WITHIN);
}

#[test]
fn a_refusal_and_a_failure_reach_the_terminal_and_the_page() {
    let mut waiting = begin();
    let browser = waiting.browser("/oidc-callback?error=access_denied&error_description=%3Cb%3E&state=st-1");
    let refusal = waiting.answer().unwrap_err();
    assert_eq!((refusal.error.as_str(), refusal.description.as_deref()), ("access_denied", Some("<b>")));
    let error = Error::sign_in_failed("the provider refused the sign-in").cause("<b>").hint("ask somebody");
    waiting.show(Page::of_error(&error, None));
    let responses = browser.join().unwrap();
    assert_eq!(status(&responses[1]), 400);
    for part in ["the provider refused the sign-in", "&lt;b&gt;", "ask somebody"] {
        assert!(responses[1].contains(part), "{part}");
    }
}

#[test]
fn the_start_address_leads_to_the_provider_as_often_as_it_is_opened() {
    let waiting = begin();
    assert!(waiting.start.path().len() >= "/start/".len() + 22);
    for _ in 0..2 {
        let response = waiting.get(waiting.start.path());
        assert_eq!(status(&response), 303);
        assert_eq!(header(&response, "location").as_deref(), Some(PROVIDER));
        assert_eq!(header(&response, "referrer-policy").as_deref(), Some("no-referrer"));
        assert_eq!(header(&response, "cache-control").as_deref(), Some("no-store"));
    }
    assert_ne!(waiting.start.path(), begin().start.path());
    waiting.ends_well();
}

#[test]
fn both_loopback_families_answer_on_one_port() {
    let waiting = begin();
    let port = waiting.port();
    assert_eq!(waiting.redirect.port(), Some(port), "port 0 becomes its number in the redirect");
    let request = format!("GET {} HTTP/1.1\r\nHost: [::1]:{port}\r\n\r\n", waiting.start.path());
    assert_eq!(status(&ask_at((Ipv6Addr::LOCALHOST, port), request.as_bytes())), 303);
    waiting.ends_well();
}

#[test]
fn an_answer_by_form_is_accepted() {
    let mut waiting = begin();
    let body = "code=c0de&state=st-1";
    let headers = format!(
        "Origin: https://id.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        body.len()
    );
    let request = waiting.request("POST", "/oidc-callback", &headers) + body;
    let port = waiting.port();
    let browser = thread::spawn(move || ask(port, &request));
    assert_eq!(waiting.answer().unwrap(), "c0de");
    waiting.show(success());
    let response = browser.join().unwrap();
    assert_eq!(status(&response), 303);
    assert_eq!(status(&waiting.get(&header(&response, "location").unwrap())), 200);
}

#[test]
fn strays_and_forgeries_do_not_end_the_sign_in() {
    let waiting = begin();
    let asked =
        |method: &str, target: &str, rest: &str| status(&ask(waiting.port(), &waiting.request(method, target, rest)));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(asked("GET", "/favicon.ico", ""), 404);
    assert_eq!(asked("GET", "/oidc-callback?code=c0de&state=other", ""), 400);
    assert_eq!(asked("GET", "/oidc-callback?error=access_denied&state=other", ""), 400);
    assert_eq!(asked("GET", "/oidc-callback?code=c0de", ""), 400);
    assert_eq!(asked("HEAD", GOOD, ""), 405);
    assert_eq!(asked("OPTIONS", GOOD, "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n"), 405);
    assert_eq!(asked("GET", GOOD, "Sec-Purpose: prefetch;prerender\r\n"), 503);
    assert_eq!(asked("GET", GOOD, "Host: localhost\r\n"), 400);
    assert_eq!(asked("GET", &format!("{GOOD}{}", "x".repeat(9_000)), ""), 414);
    assert_eq!(asked("GET", &format!("{GOOD}{}", "x".repeat(70_000)), ""), 431);
    assert_eq!(asked("POST", "/oidc-callback", &format!("{form}Content-Length: 10000000\r\n")), 413);
    assert_eq!(asked("POST", "/oidc-callback", &format!("{form}Content-Length: 3\r\n\r\na=b")), 400);
    assert_eq!(asked("GET", &format!("http://localhost:{}{GOOD}", waiting.port()), ""), 400);
    assert_eq!(asked("GET", "/done/", ""), 404);
    for raw in [
        format!("GET {GOOD} HTTP/1.1\r\nHost: evil.example:{}\r\n\r\n", waiting.port()),
        format!("GET {GOOD} HTTP/1.1\r\n\r\n"),
        format!("GET {GOOD} HTTP/1.0\r\n\r\n"),
        format!("GET {GOOD}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}".to_owned(),
        "\r\n\r\n\0\0\0".to_owned(),
    ] {
        let status = status(&ask(waiting.port(), &raw));
        assert!(status == 0 || (400..500).contains(&status), "{raw}: {status}");
    }
    assert!(waiting.answered.try_recv().is_err());
    waiting.ends_well();
}

#[test]
fn an_endless_form_is_cut() {
    let waiting = begin();
    let head = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n";
    let sent = pour(
        waiting.port(),
        &waiting.request("POST", "/oidc-callback", head),
        &format!("1000\r\n{}\r\n", "a".repeat(0x1000)),
    );
    assert!(sent < PLENTY, "{sent} bytes were taken");
    waiting.ends_well();
}

#[test]
fn an_endless_head_is_cut() {
    let waiting = begin();
    let head = format!("GET {GOOD} HTTP/1.1\r\nHost: localhost:{}\r\nX: ", waiting.port());
    let sent = pour(waiting.port(), &head, &"a".repeat(0x1000));
    assert!(sent < PLENTY, "{sent} bytes were taken");
    waiting.ends_well();
}

/// The bytes that could be sent, of which most lie in the system's buffers.
fn pour(port: u16, begin: &str, again: &str) -> usize {
    let mut stream = connect((Ipv4Addr::LOCALHOST, port));
    let mut sent = stream.write(begin.as_bytes()).unwrap();
    while sent < 128 << 20 {
        match stream.write(again.as_bytes()) {
            Ok(length) => sent += length,
            Err(_) => break,
        }
    }
    sent
}

/// More than the buffers of a loopback connection, much less than what is poured.
const PLENTY: usize = 32 << 20;

#[test]
fn the_cookies_of_other_local_servers_are_no_obstacle() {
    let waiting = begin();
    let cookies = format!("Cookie: {}\r\n", "a=b; ".repeat(4_000));
    assert_eq!(status(&ask(waiting.port(), &waiting.request("GET", waiting.start.path(), &cookies))), 303);
}

#[test]
fn idle_connections_do_not_keep_the_browser_out() {
    let waiting = begin();
    let request = waiting.request("GET", GOOD, "");
    let idle: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = connect((Ipv4Addr::LOCALHOST, waiting.port()));
            let part = if number % 2 == 0 { "" } else { &request[..number % request.len()] };
            stream.write_all(part.as_bytes()).unwrap();
            stream
        })
        .collect();
    let port = waiting.port();
    waiting.ends_well();
    at_once("the port is free when it is over", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).err());
    drop(idle);
}

#[test]
fn the_oldest_connections_are_given_up_but_not_the_browser_that_waits() {
    let mut waiting = begin();
    let browser = waiting.browser(GOOD);
    assert_eq!(waiting.answer().unwrap(), "c0de");
    let idle: Vec<TcpStream> = (0..200).map(|_| connect((Ipv4Addr::LOCALHOST, waiting.port()))).collect();
    // All of them have been accepted when one that came later is answered.
    assert_eq!(status(&waiting.get("/favicon.ico")), 404);
    let open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).is_ok()
            && stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert!(idle.iter().filter(open).count() < MOST_CONNECTIONS);
    waiting.show(success());
    assert_eq!(status(&browser.join().unwrap()[1]), 200);
}

#[test]
fn a_head_that_does_not_come_to_an_end_is_given_up() {
    let waiting = begin();
    let mut stream = connect((Ipv4Addr::LOCALHOST, waiting.port()));
    stream.write_all(b"GET /oidc-callback?code=").unwrap();
    let began = Instant::now();
    rest(&mut stream);
    assert!(began.elapsed() < CONNECTION_TIME, "{:?}", began.elapsed());
    waiting.ends_well();
}

#[test]
fn connections_that_are_reset_do_no_harm() {
    let waiting = begin();
    let requests = [
        "",
        "GET /oidc",
        &waiting.request("GET", "/oidc-callback?code=c0de&state=x", ""),
        &waiting.request("GET", waiting.start.path(), ""),
    ];
    block_on(async {
        for number in 0..1_000 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_zero_linger().unwrap();
            let stream = socket.connect((Ipv4Addr::LOCALHOST, waiting.port()).into()).await.unwrap();
            // A reset may be faster than this.
            let _ = stream.try_write(requests[number % requests.len()].as_bytes());
        }
    });
    waiting.ends_well();
}

#[test]
fn a_repeat_of_the_answer_waits_for_the_same_and_another_one_is_too_late() {
    let mut waiting = begin();
    let first = waiting.browser(GOOD);
    assert_eq!(waiting.answer().unwrap(), "c0de");
    let mut reload = connect((Ipv4Addr::LOCALHOST, waiting.port()));
    reload.write_all(waiting.request("GET", GOOD, "").as_bytes()).unwrap();
    assert_eq!(status(&waiting.get("/oidc-callback?code=other&state=st-1")), 409);
    assert_eq!(status(&waiting.get("/oidc-callback?error=access_denied&state=st-1")), 409);
    waiting.show(success());
    assert_eq!(status(&first.join().unwrap()[0]), 303);
    assert_eq!(status(&rest(&mut reload)), 303);
    assert!(waiting.answered.try_recv().is_err());
}

#[test]
fn a_browser_that_does_not_take_its_page_is_waited_for_a_second() {
    let mut waiting = begin();
    let mut stream = connect((Ipv4Addr::LOCALHOST, waiting.port()));
    stream.write_all(waiting.request("GET", GOOD, "").as_bytes()).unwrap();
    assert_eq!(waiting.answer().unwrap(), "c0de");
    waiting.show(success());
    let took = waiting.shown();
    assert!(took >= SHOWN_WITHIN && took < CONNECTION_TIME, "{took:?}");
    assert_eq!(status(&rest(&mut stream)), 303);
}

#[test]
fn a_browser_that_has_gone_is_not_waited_for() {
    let mut waiting = begin();
    let mut stream = connect((Ipv4Addr::LOCALHOST, waiting.port()));
    stream.write_all(waiting.request("GET", GOOD, "").as_bytes()).unwrap();
    assert_eq!(waiting.answer().unwrap(), "c0de");
    drop(stream);
    // Our side has seen the end of that connection when it has answered one that came later.
    assert_eq!(status(&waiting.get("/favicon.ico")), 404);
    waiting.show(success());
    assert!(waiting.shown() < SHOWN_WITHIN);
}

#[test]
fn a_browser_that_is_told_nothing_is_not_left_waiting() {
    let mut waiting = begin();
    let browser = waiting.browser(GOOD);
    assert_eq!(waiting.answer().unwrap(), "c0de");
    drop(waiting.tell.take());
    assert_eq!(browser.join().unwrap(), [""]);
}

#[test]
fn the_browser_is_sent_on_where_the_settings_say() {
    let mut waiting = begin();
    let browser = waiting.browser(GOOD);
    assert_eq!(waiting.answer().unwrap(), "c0de");
    let next = "https://headlamp.example.com/?a=b";
    waiting.show(Page::Success {
        who: None,
        cluster: None,
        until: String::new(),
        open_next: Some(Url::parse(next).unwrap()),
    });
    let responses = browser.join().unwrap();
    assert_eq!((status(&responses[0]), header(&responses[0], "location").as_deref()), (303, Some(next)));
    assert!(waiting.shown() < SHOWN_WITHIN);
}

#[test]
fn places_are_tried_in_order_and_taken_ones_name_their_holder() {
    let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let mut two = settings(&format!("http://localhost:{port}/cb"), port);
    block_on(async {
        let Bind::Taken(taken) = bind(&two).await.unwrap() else { panic!("port {port} was taken twice") };
        assert_eq!(taken[0].port, port);
        if cfg!(target_os = "linux") {
            let holder = taken[0].by.as_ref().unwrap();
            assert_eq!((holder.pid, holder.ours), (std::process::id(), false));
        }
        two.places.push(CallbackPlace { redirect: "http://localhost:0".to_owned(), port: 0 });
        let listener = listen(&two).await;
        assert!(listener.redirect().starts_with("http://localhost:") && !listener.redirect().ends_with('/'));
        assert_ne!(listener.redirect(), "http://localhost:0");
    });
}

#[test]
fn a_port_that_is_taken_on_the_other_family_alone_is_taken() {
    let held = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    assert!(matches!(block_on(bind(&settings("http://localhost/cb", port))).unwrap(), Bind::Taken(_)));
}

#[test]
fn a_listener_answers_once() {
    block_on(async {
        let listener = listen(&settings("http://localhost:0/cb", 0)).await;
        let (url, state) = (Secret::new(PROVIDER), Secret::new("st-1"));
        assert!(timeout(Duration::from_millis(1), listener.answer(&url, &state)).await.is_err());
        assert!(listener.answer(&url, &state).await.is_err());
    });
}

#[test]
fn the_redirect_of_another_port_or_host_is_served_too() {
    let start = |redirect: &str| {
        block_on(async {
            let listener = listen(&settings(redirect, 0)).await;
            (listener.start_url().expose().split("/start").next().unwrap().to_owned(), listener.hosts.clone())
        })
    };
    let hosts = |redirect: &str| hosts(&Url::parse(redirect).unwrap(), 8000);
    assert!(hosts("http://localhost:9000/cb").contains(&"127.0.0.1:9000".to_owned()));
    assert!(hosts("http://app.localhost:8000/cb").contains(&"app.localhost:8000".to_owned()));
    assert!(hosts("http://localhost/cb").contains(&"localhost".to_owned()));
    let public = hosts("https://sign-in.example.com/cb");
    assert!(public.contains(&"sign-in.example.com".to_owned()) && public.contains(&"localhost:8000".to_owned()));
    assert!(!public.contains(&"example.com".to_owned()));
    assert!(start("https://sign-in.example.com/cb").0.starts_with("http://localhost:"));
    assert!(start("http://127.0.0.1/cb").0.starts_with("http://127.0.0.1:"));
}

#[test]
fn a_port_is_put_into_a_redirect_and_nothing_else_changes() {
    let cases = [
        ("http://localhost:0/A/?b=%2F:0", "http://localhost:9/A/?b=%2F:0"),
        ("http://localhost", "http://localhost:9"),
        ("http://[::1]/cb", "http://[::1]:9/cb"),
        ("http://[::1]:0?x", "http://[::1]:9?x"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:9"),
    ];
    for (redirect, expected) in cases {
        assert_eq!(with_port(redirect, 9), expected);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no PEM").unwrap();
    let refused = |certificate: &PathBuf| {
        let files = Some((certificate.clone(), empty.clone()));
        block_on(bind(&CallbackSettings { tls: files, ..settings("https://localhost:0/cb", 0) })).err().unwrap()
    };
    let absent = refused(&folder.path().join("absent.pem"));
    assert!(absent.message().contains("absent.pem") && absent.causes()[0].contains("No such file"), "{absent}");
    assert_eq!(refused(&empty).causes(), ["the file holds no certificate in PEM form"]);
}

/// A certificate for `localhost` and its key, as files of a folder.
fn certificate(folder: &Path) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key, made.cert.der().clone())
}

#[test]
fn an_https_redirect_is_served_with_the_given_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key, trusted) = certificate(folder.path());
    let mut waiting =
        begin_with(CallbackSettings { tls: Some((file, key)), ..settings("https://localhost:0/oidc-callback", 0) });
    assert_eq!((waiting.redirect.scheme(), waiting.start.scheme()), ("https", "https"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
    let port = waiting.port();
    let ask_securely = move |request: &str| {
        let connection = rustls::ClientConnection::new(Arc::clone(&client), "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, connect((Ipv4Addr::LOCALHOST, port)));
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("an end that is not a truncation");
        response
    };
    assert_eq!(status(&ask(port, &waiting.request("GET", GOOD, ""))), 0, "no TLS, no answer");
    assert_eq!(status(&ask_securely(&waiting.request("GET", waiting.start.path(), ""))), 303);
    let request = waiting.request("GET", GOOD, "");
    let browser = thread::spawn(move || {
        let location = header(&ask_securely(&request), "location").unwrap();
        ask_securely(&format!("GET {location} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"))
    });
    assert_eq!(waiting.answer().unwrap(), "c0de");
    waiting.show(success());
    assert_eq!(status(&browser.join().unwrap()), 200);
    assert!(waiting.shown() < SHOWN_WITHIN);
}

#[test]
fn a_key_of_another_certificate_is_a_clear_error() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ((file, _, _), (_, key, _)) = (certificate(one.path()), certificate(other.path()));
    let settings = CallbackSettings { tls: Some((file, key)), ..settings("https://localhost:0/cb", 0) };
    let error = block_on(bind(&settings)).err().unwrap();
    assert!(error.message().contains("key.pem") && error.hints()[0].contains("--callback-key"), "{error}");
}

/// Sixty-four connections do not fit into forty descriptors, so accepting fails.
#[cfg(unix)]
#[test]
fn a_shortage_of_descriptors_does_not_end_the_sign_in() {
    use std::process::{Command, Stdio};
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" --exact --ignored --nocapture --test-threads=1 callback::tests::sign_in_of_a_child"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port: u16 = output.find_map(|line| line.split_once("port ").and_then(|(_, port)| port.parse().ok())).unwrap();
    let idle: Vec<TcpStream> = (0..100).map(|_| connect((Ipv4Addr::LOCALHOST, port))).collect();
    let response = ask(port, &format!("GET {GOOD} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"));
    assert_eq!(status(&response), 303, "{response}");
    let said: Vec<String> = output.collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    drop(idle);
}

#[cfg(unix)]
const CHILD: &str = "HEADLAMP_CALLBACK_CHILD";

/// Shows its page at once and then ends.
#[cfg(unix)]
#[test]
#[ignore = "run by the test above, with few descriptors"]
#[allow(clippy::print_stdout, reason = "the parent reads the port")]
fn sign_in_of_a_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut waiting = begin();
    println!("port {}", waiting.port());
    assert_eq!(waiting.answer().unwrap(), "c0de");
    waiting.show(success());
    waiting.shown();
}
