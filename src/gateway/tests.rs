//! The local server over real sockets: it runs in a thread of its own, with a cluster beside it, and
//! the browsers are plain sockets here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc as channel};
use std::thread::{self, JoinHandle};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use url::Url;

use super::*;
use crate::api_connection::test_server::at_once;
use crate::clock::Clock;
use crate::credential_source::Surroundings;
use crate::environment::Environment;
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::{BearerSource, Impersonation, InteractiveMode, PluginEntry, Target, UserEntry};
use crate::loopback::{self, Bound};
use crate::ui::Ui;

const PATIENCE: Duration = Duration::from_secs(30);

/// A local server with a cluster and a browser's view of it. Dropped, it ends.
struct Open {
    port: u16,
    gateway: Gateway,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
    cluster: Cluster,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is out of the ordinary.
#[derive(Clone)]
struct Setting {
    base: &'static str,
    owners: Owners,
    limits: Limits,
    /// A script that prints the credential; a file holds the token otherwise.
    plugin: Option<&'static str>,
}

impl Default for Setting {
    fn default() -> Self {
        Self { base: "", owners: Owners::of_this_process(), limits: Limits::NORMAL, plugin: None }
    }
}

/// An API server that takes one token, whoever's it is.
#[derive(Clone, Default)]
struct Cluster {
    token: Arc<Mutex<String>>,
    /// Paths and queries.
    came: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn takes(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap());
    }

    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let cluster = self.clone();
            let service = service_fn(move |request| {
                let answer = cluster.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().to_string();
        let token = self.token.lock().unwrap().clone();
        let mut response = Response::new(full(json!({"path": path}).to_string()));
        if request.headers()[header::AUTHORIZATION] != format!("Bearer {token}") {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        } else if path.ends_with("/selfsubjectreviews") {
            let review = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "SelfSubjectReview",
                "status": {"userInfo": {"username": token}},
            });
            *response.status_mut() = StatusCode::CREATED;
            *response.body_mut() = full(review.to_string());
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.came.lock().unwrap().push(path);
        response
    }
}

fn jwt(subject: &str) -> String {
    let payload = json!({"iss": "https://id.example", "sub": subject, "exp": 4_000_000_000_u32});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
}

fn bearer(setting: &Setting, folder: &Path) -> BearerSource {
    let Some(script) = setting.plugin else { return BearerSource::File(folder.join("token")) };
    BearerSource::Plugin(Box::new(PluginEntry {
        command: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        variables: vec![("FOLDER".to_owned(), folder.display().to_string())],
        api_version: "client.authentication.k8s.io/v1".to_owned(),
        interactive_mode: InteractiveMode::Never,
        provide_cluster_info: false,
        install_hint: None,
        folder: PathBuf::from("/"),
    }))
}

fn client(server: String, bearer: BearerSource) -> ClusterClient {
    let target = Target {
        context: None,
        cluster: ClusterEntry { name: "test".to_owned(), server, ..ClusterEntry::default() },
        user: UserEntry {
            name: Some("u".to_owned()),
            bearer,
            certificate: None,
            impersonate: Impersonation::default(),
        },
        namespace: None,
    };
    let environment = Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin")]);
    let surroundings = Surroundings { environment, ui: Ui::new(), clock: Clock::system() };
    ClusterClient::new(&target, surroundings, Arc::new(|| Box::new(())), None).unwrap()
}

fn open() -> Open {
    open_with(Setting::default())
}

fn open_with(setting: Setting) -> Open {
    let folder = tempfile::tempdir().unwrap();
    let ui = folder.path().join("ui");
    std::fs::create_dir_all(ui.join("assets")).unwrap();
    std::fs::write(ui.join("index.html"), "<!doctype html><title>Headlamp</title>").unwrap();
    std::fs::write(ui.join("assets/index-3f2a1b4c.js"), "page()").unwrap();
    std::fs::write(folder.path().join("token"), jwt("jane")).unwrap();
    let cluster = Cluster::default();
    cluster.takes(&jwt("jane"));
    let (events, received) = mpsc::unbounded_channel();
    let (ready, is_ready) = channel::channel();
    let (stop, stopped) = oneshot::channel();
    let bearer = bearer(&setting, folder.path());
    let beside = cluster.clone();
    let thread = thread::spawn(move || {
        block_on(async {
            let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let client = client(format!("http://{}", api.local_addr().unwrap()), bearer);
            tokio::spawn(beside.serve(api));
            // Whose the credential is counts from here on.
            let _ = client.review().await;
            let Bound::Listening(listeners) = loopback::bind(0).await else { panic!("no free port") };
            let port = listeners[0].local_addr().unwrap().port();
            let parts = Parts {
                port,
                base: setting.base.to_owned(),
                clusters: vec![("main".to_owned(), client)],
                files: UiFiles::from_folder(&ui, setting.base).unwrap(),
                session: BrowserSession::new(port, Random::system()).unwrap(),
                policy: PagePolicy::default(),
                hosts: Vec::new(),
                owners: setting.owners,
                events,
                random: Random::system(),
            };
            let gateway = Gateway::within(parts, setting.limits);
            ready.send((port, gateway.clone())).unwrap();
            tokio::select! {
                ended = gateway.serve(listeners) => ended.unwrap(),
                _ = stopped => {}
            }
        });
    });
    let (port, gateway) = is_ready.recv_timeout(PATIENCE).unwrap();
    let open =
        Open { port, gateway, events: Mutex::new(received), cluster, folder, stop: Some(stop), thread: Some(thread) };
    open.cluster.came.lock().unwrap().clear();
    open
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Open {
    /// The start address's path.
    fn start(&self, path: Option<&str>) -> String {
        let url = self.gateway.start_page(path).unwrap().address().unwrap();
        let start = format!("http://localhost:{}", self.port);
        url.expose().strip_prefix(&start).unwrap().to_owned()
    }

    /// The browser's cookie.
    fn opened(&self) -> String {
        let answer = self.ask(&self.visit(&self.start(None)));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.cookie()
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn get(&self, path: &str) -> Sent {
        Sent {
            method: "GET",
            path: path.to_owned(),
            headers: vec![("Host".to_owned(), self.host())],
            body: String::new(),
        }
    }

    /// What the address bar sends.
    fn visit(&self, path: &str) -> Sent {
        self.get(path).with("Sec-Fetch-Site", "none").with("Sec-Fetch-Dest", "document").with("Accept", "text/html")
    }

    /// What our page's script sends.
    fn fetch(&self, path: &str) -> Sent {
        self.get(path).with("Sec-Fetch-Site", "same-origin").with("Sec-Fetch-Dest", "empty")
    }

    fn post(&self, path: &str, body: &str) -> Sent {
        let origin = format!("http://{}", self.host());
        Sent { method: "POST", body: body.to_owned(), ..self.fetch(path).with("Origin", &origin) }
    }

    /// What a button of our page sends.
    fn press(&self, button: &str, to: &str) -> Sent {
        let body = query(to).split_off(1);
        self.post(&format!("{OWN_PREFIX}/{button}"), &body).but("Sec-Fetch-Dest", "document")
    }

    fn ask(&self, sent: &Sent) -> Answer {
        self.say(&sent.text())
    }

    fn say(&self, text: &str) -> Answer {
        let text = self.say_raw(text.as_bytes());
        Answer::read(&text).unwrap_or_else(|| panic!("no answer: {text:?}"))
    }

    /// Everything that comes until the connection ends, in whatever way it ends.
    fn say_raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        connect((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Waits for an event that fits; those before it are skipped.
    fn event<T>(&self, fits: impl Fn(Event) -> Option<T>) -> T {
        let events = &mut *self.events.lock().unwrap();
        let find = async {
            loop {
                if let Some(found) = fits(events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        block_on(async { timeout(PATIENCE, find).await.unwrap() })
    }

    fn token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).unwrap();
    }

    fn no_token(&self) {
        std::fs::remove_file(self.folder.path().join("token")).unwrap();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "the local server panicked");
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Clone)]
struct Sent {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Sent {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn but(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        if value.is_empty() { self } else { self.with(name, value) }
    }

    fn cookie(self, cookie: &str) -> Self {
        self.with("Cookie", cookie)
    }

    fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn text(&self) -> String {
        self.clone().with("Connection", "close").text_kept()
    }

    /// Without an end to the connection.
    fn text_kept(&self) -> String {
        let headers =
            self.headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + value + "\r\n");
        let length =
            if self.method == "POST" { format!("Content-Length: {}\r\n", self.body.len()) } else { String::new() };
        format!("{} {} HTTP/1.1\r\n{headers}{length}\r\n{}", self.method, self.path, self.body)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// What a browser sends after this.
    fn cookie(&self) -> String {
        self.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header("location").unwrap()
    }

    /// Where the page goes on to by itself, and after how many seconds.
    fn refresh(&self) -> Option<&str> {
        self.body.split_once("http-equiv=\"refresh\" content=\"")?.1.split('"').next()
    }

    #[track_caller]
    fn says(&self, status: u16, part: &str) {
        assert!(self.status == status && self.body.contains(part), "{part}: {self:?}");
    }
}

fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(address.into()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn rest(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection was never ended"),
        _ => String::from_utf8_lossy(&response).into_owned(),
    }
}

/// One answer with a length on a connection that stays.
fn one_answer(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    let mut answer = Answer::read(&String::from_utf8(text).unwrap()).unwrap();
    let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    answer.body = String::from_utf8(body).unwrap();
    answer
}

#[test]
fn the_start_address_leads_one_browser_to_the_page() {
    let open = open();
    let start = open.ask(&open.visit(&open.start(Some("/c/main/pods?namespace=a&x=y"))));
    assert_eq!(start.status, 200);
    assert_eq!(start.refresh(), Some("0; url=/c/main/pods?namespace=a&amp;x=y"));
    assert_eq!(start.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(start.header("cache-control"), Some("no-store"));
    assert!(start.header("set-cookie").unwrap().ends_with("; Path=/; HttpOnly; SameSite=Strict"));
    let cookie = start.cookie();
    let next = open.visit("/c/main/pods?namespace=a&x=y").but("Sec-Fetch-Site", "same-origin").cookie(&cookie);
    let page = open.ask(&next);
    page.says(200, "<title>Headlamp</title>");
    assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    let script = open.fetch("/assets/index-3f2a1b4c.js").but("Sec-Fetch-Dest", "script").cookie(&cookie);
    open.ask(&script).says(200, "page()");
    let pods = open.ask(&open.fetch("/clusters/main/api/v1/pods?limit=1").cookie(&cookie));
    pods.says(200, "/api/v1/pods?limit=1");
    assert_eq!(open.cluster.came(), ["/api/v1/pods?limit=1"]);
    assert!(pods.header("content-security-policy").unwrap().starts_with("sandbox"));
    open.event(|event| matches!(event, Event::Opened).then_some(()));
}

#[test]
fn a_deep_link_that_leads_elsewhere_is_an_error_of_usage() {
    let open = open();
    for path in ["//evil.example", "https://evil.example", "/../x", "/.kubectl-headlamp/session"] {
        assert_eq!(open.gateway.start_page(Some(path)).err().unwrap().kind(), crate::error::Kind::Usage, "{path}");
    }
}

#[test]
fn looking_at_the_start_address_opens_nothing() {
    let open = open();
    let start = open.visit(&open.start(None));
    for looking in [start.clone().method("HEAD"), start.clone().with("Sec-Purpose", "prefetch;prerender")] {
        let answer = open.ask(&looking);
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("set-cookie"), None);
    }
    open.ask(&start).says(200, "Headlamp opens");
}

#[test]
fn a_second_use_of_the_start_address_ends_the_session_and_says_so() {
    let open = open();
    let start = open.start(None);
    let cookie = open.ask(&open.visit(&start)).cookie();
    let page = open.visit("/").cookie(&cookie);
    open.ask(&page).says(200, "<title>Headlamp</title>");
    open.ask(&open.visit(&start)).says(403, "used a second time");
    open.ask(&page).says(403, "used a second time");
    open.ask(&open.fetch("/clusters/main/version").cookie(&cookie)).says(403, "kubectl headlamp open");
    open.event(|event| matches!(event, Event::Ended(End::StartedTwice)).then_some(()));
    open.ask(&open.visit(&start)).says(403, "used a second time");
    assert!(open.cluster.came().is_empty());
}

#[test]
fn both_families_answer_and_their_ports_are_free_at_once() {
    let mut open = open();
    let request = open.visit("/").text();
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, open.port)), (Ipv6Addr::LOCALHOST, open.port).into()] {
        // Where this machine has only one family, the other one refuses the connection.
        let Ok(mut stream) = TcpStream::connect(address) else {
            assert!(address.is_ipv6() && std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err());
            continue;
        };
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&rest(&mut stream)).unwrap().says(403, "Not opened yet");
    }
    let mut idle = open.connect();
    open.end();
    assert_eq!(rest(&mut idle), "");
    at_once("the port is free", || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, open.port)).ok());
}

#[test]
fn nobody_else_gets_in_and_no_cluster_is_asked() {
    let open = open();
    let cookie = open.opened();
    let pods = open.fetch("/clusters/main/api/v1/pods").cookie(&cookie);
    let change = open.post("/clusters/main/api/v1/pods", "{}").cookie(&cookie);
    let other_port = cookie.replace(&open.port.to_string(), "7001");
    let rows = [
        ("no cookie", pods.clone().but("Cookie", ""), 403),
        ("a wrong cookie", pods.clone().but("Cookie", &format!("{cookie}x")), 403),
        ("another port's cookie", pods.clone().but("Cookie", &other_port), 403),
        ("another name of this machine", pods.clone().but("Host", &format!("evil.example:{}", open.port)), 403),
        ("another port", pods.clone().but("Host", "localhost:1"), 403),
        ("no host", pods.clone().but("Host", ""), 400),
        ("two hosts", pods.clone().with("Host", "evil.example"), 400),
        ("the same host twice", pods.clone().with("Host", &open.host()), 400),
        ("another site", pods.clone().but("Sec-Fetch-Site", "cross-site"), 403),
        ("another port of localhost", pods.clone().but("Sec-Fetch-Site", "same-site"), 403),
        ("the address bar", pods.clone().but("Sec-Fetch-Dest", "document"), 403),
        ("a frame", pods.clone().but("Sec-Fetch-Dest", "iframe"), 403),
        ("a script", pods.clone().but("Sec-Fetch-Dest", "script"), 403),
        ("a worker", pods.clone().with("Service-Worker", "script"), 403),
        ("another origin's change", change.clone().but("Origin", "http://localhost:1"), 403),
        ("a change from nowhere", change.clone().but("Origin", ""), 403),
        ("a change with a null origin", change.clone().but("Origin", "null"), 403),
        ("a method of none", pods.clone().method("TRACE"), 405),
        ("CONNECT", pods.clone().method("CONNECT"), 405),
        ("two slashes", Sent { path: "/clusters//main/api/v1/pods".to_owned(), ..pods.clone() }, 400),
        ("a step up", Sent { path: "/clusters/main/api/../healthz".to_owned(), ..pods.clone() }, 400),
        ("an encoded step up", Sent { path: "/clusters/main/api/%2e%2e/healthz".to_owned(), ..pods.clone() }, 400),
        ("a step up with a parameter", Sent { path: "/clusters/main/api/..;/healthz".to_owned(), ..pods.clone() }, 400),
        ("an encoded slash", Sent { path: "/clusters/main/api%2fv1/pods".to_owned(), ..pods.clone() }, 400),
        ("another cluster", Sent { path: "/clusters/other/api/v1/pods".to_owned(), ..pods.clone() }, 404),
        ("the proxy", Sent { path: "/externalproxy".to_owned(), ..pods.clone() }, 403),
        ("the multiplexer", Sent { path: "/wsMultiplexer".to_owned(), ..pods.clone() }, 403),
        ("absolute form", Sent { path: format!("http://{}/clusters/main/version", open.host()), ..pods.clone() }, 400),
        ("absolute form elsewhere", Sent { path: "http://evil.example/".to_owned(), ..pods.clone() }, 400),
        ("a session of strangers", open.press("sign-in", "/"), 403),
        ("coming back without leaving", open.press("come-back", "/").cookie(&cookie), 403),
        ("a wrong start", open.visit("/.kubectl-headlamp/start/x"), 403),
    ];
    for (what, sent, status) in rows {
        let answer = open.ask(&sent);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}: {answer:?}");
        assert!(!answer.head.contains("access-control"), "{what}: {answer:?}");
    }
    assert!(open.cluster.came().is_empty(), "{:?}", open.cluster.came());
    open.ask(&pods).says(200, "/api/v1/pods");
}

#[test]
fn no_second_request_hides_in_the_first() {
    let open = open();
    let cookie = open.opened();
    let hidden = open.fetch("/clusters/main/version").cookie(&cookie).text();
    let get = open.fetch("/clusters/main/api/v1/pods").cookie(&cookie);
    let post = |headers: &str| {
        let head = open.post("/clusters/main/api/v1/pods", "").cookie(&cookie).method("PUT").text_kept();
        format!("{}{headers}\r\n\r\n", head.strip_suffix("\r\n").unwrap())
    };
    let with_body = get.clone().with("Content-Length", &hidden.len().to_string()).text_kept() + &hidden;
    let rows = [
        ("a body on GET", with_body, 400),
        ("an encoded body on GET", get.with("Transfer-Encoding", "chunked").text_kept() + "0\r\n\r\n", 400),
        ("two lengths", post(&format!("Content-Length: 0\r\nContent-Length: {}", hidden.len())) + &hidden, 400),
        ("a length that is a list", post(&format!("Content-Length: 0, {}", hidden.len())) + &hidden, 400),
        ("a length with a sign", post("Content-Length: +0") + &hidden, 400),
        ("an unknown encoding", post("Transfer-Encoding: gzip") + &hidden, 400),
        ("an encoding before chunked", post("Transfer-Encoding: gzip, chunked") + "0\r\n\r\n" + &hidden, 400),
        ("a folded header", post("X: y\r\n Transfer-Encoding: chunked") + &hidden, 400),
        ("a space before the colon", post("Transfer-Encoding : chunked") + &hidden, 400),
        ("a chunk without a size", post("Transfer-Encoding: chunked") + "x\r\n\r\n" + &hidden, 0),
    ];
    for (what, text, status) in rows {
        let answers = open.say_raw(text.as_bytes());
        assert!(answers.matches("HTTP/1.").count() <= 1, "{what}: {answers}");
        if status != 0 {
            assert_eq!(Answer::read(&answers).map(|answer| answer.status), Some(status), "{what}: {answers}");
        }
    }
    assert!(!open.cluster.came().contains(&"/version".to_owned()), "{:?}", open.cluster.came());
    // hyper takes the encoding and drops the length, and the connection ends: RFC 9112 §6.3.
    let length = format!("Content-Length: {}\r\nTransfer-Encoding: chunked", hidden.len());
    let answers = open.say_raw((post(&length) + "0\r\n\r\n" + &hidden).as_bytes());
    assert_eq!(answers.matches("HTTP/1.").count(), 1, "{answers}");
    assert!(!open.cluster.came().contains(&"/version".to_owned()), "{:?}", open.cluster.came());
}

#[test]
fn what_is_no_request_is_answered_or_cut_and_the_next_one_is_served() {
    let open = open();
    let cookie = open.opened();
    let old = format!("GET / HTTP/1.0\r\nHost: {}\r\nCookie: {cookie}\r\nAccept: text/html\r\n\r\n", open.host());
    open.say(&old).says(200, "<title>Headlamp</title>");
    assert_eq!(open.say("GET / HTTP/1.0\r\n\r\n").status, 400);
    for garbage in [
        "\x16\x03\x01\x02\x00\x01\x00",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = open.say_raw(garbage.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
    }
    open.ask(&open.visit("/").cookie(&cookie)).says(200, "<title>Headlamp</title>");
}

#[test]
fn the_cookies_of_many_other_ports_pass_and_endless_heads_do_not() {
    let open = open();
    let cookie = open.opened();
    let others = "other=value; ".repeat(4000);
    open.ask(&open.visit("/").cookie(&format!("{others}{cookie}"))).says(200, "<title>Headlamp</title>");
    let endless = "other=value; ".repeat(6000);
    assert_eq!(open.ask(&open.visit("/").cookie(&format!("{endless}{cookie}"))).status, 431);
    let many = (0..200).fold(open.visit("/").cookie(&cookie), |sent, number| sent.with(&format!("X-{number}"), "y"));
    assert_eq!(open.ask(&many).status, 431);
}

#[test]
fn a_slow_head_is_cut_and_holds_up_nobody() {
    let limits = Limits { head_time: Duration::from_millis(300), ..Limits::NORMAL };
    let open = open_with(Setting { limits, ..Setting::default() });
    let cookie = open.opened();
    let mut slow = open.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let silent = open.connect();
    open.ask(&open.visit("/").cookie(&cookie)).says(200, "<title>Headlamp</title>");
    for mut stream in [slow, silent] {
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}

#[test]
fn two_hundred_idle_connections_do_not_lock_the_browser_out() {
    let open = open();
    let cookie = open.opened();
    let page = open.visit("/").cookie(&cookie);
    // The browser's connection is older than all of theirs.
    let mut browser = open.connect();
    browser.write_all(page.text_kept().as_bytes()).unwrap();
    assert_eq!(one_answer(&mut browser).status, 200);
    let mut idle: Vec<TcpStream> = (0..200).map(|_| open.connect()).collect();
    open.ask(&page).says(200, "<title>Headlamp</title>");
    browser.write_all(page.text_kept().as_bytes()).unwrap();
    assert_eq!(one_answer(&mut browser).status, 200);
    assert_eq!(rest(&mut idle[0]), "", "the oldest of theirs ended");
}

#[test]
fn another_user_of_this_machine_is_told_so_and_gets_nothing() {
    let owners = Owners::these(&[u32::MAX - 1]);
    let open = open_with(Setting { owners, ..Setting::default() });
    if cfg!(target_os = "linux") {
        open.ask(&open.visit(&open.start(None))).says(403, "another user");
        open.ask(&open.fetch("/clusters/main/version")).says(403, "another user");
        assert_eq!(open.gateway.0.session.situation(), Situation::Waiting);
    }
}

#[test]
fn a_refusal_explains_itself_to_scripts_and_to_people() {
    let open = open();
    let cookie = open.opened();
    let answer = open.ask(&open.post("/clusters/main/portforward", "{}").cookie(&cookie));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["code"], 403);
    assert!(status["message"].as_str().unwrap().contains("kubectl port-forward"), "{status}");
    let page = open.ask(&open.visit("/externalproxy").cookie(&cookie));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    page.says(403, "requests to other sites are not passed on");
    let stranger = open.ask(&open.fetch("/config"));
    assert!(!stranger.body.contains(&cookie) && !stranger.body.contains("start/"), "{stranger:?}");
}

#[test]
fn logging_out_ends_the_session_until_the_browser_comes_back() {
    let open = open();
    let before = open.opened();
    let out = open.ask(&open.post("/clusters/main/set-token", "{\"token\":null}").cookie(&before));
    out.says(200, "");
    assert_eq!((out.body.as_str(), out.header("x-reload")), ("", Some("reload")));
    let cookie = out.cookie();
    open.event(|event| matches!(event, Event::LoggedOut).then_some(()));
    let pods = open.fetch("/clusters/main/api/v1/pods");
    for cookie in [&before, &cookie] {
        let refused = open.ask(&pods.clone().cookie(cookie));
        assert_eq!((refused.status, refused.header("x-reload")), (403, Some("reload")));
    }
    let page = open.ask(&open.visit("/c/main/pods?namespace=a").cookie(&cookie));
    page.says(200, "You are logged out");
    page.says(200, "name=\"to\" value=\"/c/main/pods?namespace=a\"");
    open.ask(&open.visit("/").cookie(&before)).says(403, "Another browser");
    assert_eq!(open.ask(&open.press("come-back", "/").cookie(&before)).status, 403);
    let back = open.ask(&open.press("come-back", "/c/main/pods?namespace=a").cookie(&cookie));
    assert_eq!(back.location(), "/c/main/pods?namespace=a");
    open.event(|event| matches!(event, Event::CameBack).then_some(()));
    open.ask(&pods.cookie(&back.cookie())).says(200, "/api/v1/pods");
    assert_eq!(open.cluster.came(), ["/api/v1/pods"]);
}

#[test]
fn a_token_of_the_pages_is_not_taken() {
    let open = open();
    let cookie = open.opened();
    let post = |body: &str| open.ask(&open.post("/clusters/main/set-token", body).cookie(&cookie));
    let refused = post("{\"token\":\"s3cret\"}");
    refused.says(403, "no token is taken");
    assert!(!refused.body.contains("s3cret"));
    for body in ["", "x", "[]", "{\"token\":1}"] {
        assert_eq!(post(body).status, 400, "{body}");
    }
    assert_eq!(open.ask(&open.visit("/").cookie(&cookie)).status, 200);
    assert_eq!(post("{\"token\":\"\"}").status, 200);
    assert_eq!(open.ask(&open.visit("/").cookie(&cookie)).status, 403);
}

#[test]
fn the_page_is_found_below_its_base_and_off_its_sign_in_pages() {
    let open = open_with(Setting { base: "/headlamp", ..Setting::default() });
    let start = open.ask(&open.visit(&open.start(Some("c/main/pods"))));
    assert_eq!(start.refresh(), Some("0; url=/headlamp/c/main/pods"));
    let cookie = start.cookie();
    let visit = |path: &str| open.ask(&open.visit(path).cookie(&cookie));
    assert_eq!(visit("/").location(), "/headlamp/");
    assert_eq!(visit("/headlamp").location(), "/headlamp/");
    assert_eq!(visit("/headlamp/c/main/token").location(), "/headlamp/c/main/");
    assert_eq!(visit("/.kubectl-headlamp/session").location(), "/headlamp/");
    visit("/headlamp/").says(200, "<title>Headlamp</title>");
    open.ask(&open.fetch("/headlamp/clusters/main/version").cookie(&cookie)).says(200, "/version");
}

#[test]
fn the_pages_list_of_clusters_is_ours() {
    let open = open();
    let cookie = open.opened();
    let config = open.ask(&open.fetch("/config").cookie(&cookie));
    assert_eq!(config.header("content-type"), Some("application/json"));
    let config: Value = serde_json::from_str(&config.body).unwrap();
    assert_eq!(config["clusters"][0]["name"], "main");
    assert_eq!(config["clusters"][0]["auth_type"], "");
    let head = open.ask(&open.fetch("/config").cookie(&cookie).method("HEAD"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(open.ask(&open.fetch("/plugins").cookie(&cookie)).status, 200);
}

#[test]
fn the_way_back_from_the_provider_needs_no_cookie() {
    let open = open();
    let pass = open.gateway.0.session.way_back().expose();
    let back = |pass: &str| {
        let path = format!("/.kubectl-headlamp/return?to=%2Fc%2Fmain%2Fpods&pass={pass}");
        open.ask(&open.visit(&path).but("Sec-Fetch-Site", "cross-site"))
    };
    back("guessed").says(403, "nor lead here by a link");
    let page = back(pass);
    page.says(200, "Back to Headlamp");
    assert_eq!(page.refresh(), Some("0; url=/c/main/pods"));
    let url = Url::parse(&open.gateway.page_url()).unwrap();
    assert_eq!(open.ask(&open.visit(url.path())).refresh(), Some("0; url=/"));
}

#[test]
fn while_a_person_is_needed_the_browser_gets_the_reason_and_a_button_back_to_where_it_was() {
    let open = open();
    let cookie = open.opened();
    let wanted = open.visit("/c/main/pods?namespace=a").cookie(&cookie);
    open.no_token();
    open.cluster.takes("another");
    let failed = open.ask(&open.fetch("/clusters/main/version").cookie(&cookie));
    assert!(![401, 503].contains(&failed.status) && failed.status >= 500, "{failed:?}");
    let error = open.event(|event| match event {
        Event::SignInNeeded(error) => Some(error),
        _ => None,
    });
    assert!(error.message().starts_with("cannot read"), "{error}");
    let page = open.ask(&wanted);
    page.says(200, "cannot read");
    page.says(200, "name=\"to\" value=\"/c/main/pods?namespace=a\"");
    page.says(200, "action=\"/.kubectl-headlamp/sign-in\"");
    // The page's own requests are none of a person's.
    let script = open.fetch("/assets/index-3f2a1b4c.js").but("Sec-Fetch-Dest", "script").cookie(&cookie);
    open.ask(&script).says(200, "page()");
    let press = open.press("sign-in", "/c/main/pods?namespace=a").cookie(&cookie);
    assert_eq!(open.ask(&press).location(), "/c/main/pods?namespace=a");
    open.ask(&wanted).says(200, "cannot read");
    open.token(&jwt("jane"));
    open.cluster.takes(&jwt("jane"));
    assert_eq!(open.ask(&press).location(), "/c/main/pods?namespace=a");
    open.event(|event| matches!(event, Event::SignedIn).then_some(()));
    open.ask(&wanted).says(200, "<title>Headlamp</title>");
    assert_eq!(open.ask(&press).location(), "/c/main/pods?namespace=a");
    open.ask(&open.press("sign-in", "//evil.example").cookie(&cookie)).location();
}

/// Answers a token once the file `go` is there; until then, when `asks` is there, it waits.
const ASKING: &str = r#"
while [ -e "$FOLDER/asks" ]; do sleep 0.05; done
[ -e "$FOLDER/token" ] || exit 1
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' "$(cat "$FOLDER/token")"
"#;

#[cfg(unix)]
#[test]
fn a_sign_in_that_asks_in_the_terminal_is_pointed_to_until_it_is_done() {
    let open = open_with(Setting { plugin: Some(ASKING), ..Setting::default() });
    let cookie = open.opened();
    open.no_token();
    open.cluster.takes("another");
    open.ask(&open.fetch("/clusters/main/version").cookie(&cookie));
    open.event(|event| matches!(event, Event::SignInNeeded(_)).then_some(()));
    std::fs::write(open.folder.path().join("asks"), "").unwrap();
    let press = open.press("sign-in", "/c/main/pods").cookie(&cookie);
    let waiting = open.ask(&press).location().to_owned();
    assert_eq!(waiting, "/.kubectl-headlamp/sign-in?to=%2Fc%2Fmain%2Fpods");
    let page = open.ask(&open.visit(&waiting).cookie(&cookie));
    page.says(200, "Look at the terminal");
    assert_eq!(page.refresh(), Some("2"));
    open.ask(&open.visit("/c/main/nodes").cookie(&cookie)).says(200, "under way");
    assert_eq!(open.ask(&press).location(), waiting, "a second press joins the first");
    open.token(&jwt("jane"));
    open.cluster.takes(&jwt("jane"));
    std::fs::remove_file(open.folder.path().join("asks")).unwrap();
    open.event(|event| matches!(event, Event::SignedIn).then_some(()));
    assert_eq!(open.ask(&open.visit(&waiting).cookie(&cookie)).location(), "/c/main/pods");
}

#[test]
fn another_person_who_signs_in_ends_the_session() {
    let open = open();
    let cookie = open.opened();
    open.token(&jwt("joe"));
    open.cluster.takes(&jwt("joe"));
    let failed = open.ask(&open.fetch("/clusters/main/version").cookie(&cookie));
    assert!(failed.status >= 500, "{failed:?}");
    open.event(|event| matches!(event, Event::Ended(End::AnotherUser)).then_some(()));
    open.ask(&open.visit("/").cookie(&cookie)).says(403, "Somebody else has signed in");
    open.ask(&open.fetch("/clusters/main/version").cookie(&cookie)).says(403, "kubectl headlamp open");
}

#[test]
fn events_tell_each_request_and_no_secret() {
    let open = open();
    let start = open.start(Some("/c/main"));
    open.ask(&open.visit(&start));
    open.ask(&open.fetch("/clusters/main/api/v1/secrets?fieldSelector=metadata.name=x"));
    let request = || {
        open.event(|event| match event {
            Event::Request { method, path, status, .. } => Some(format!("{method} {path} {}", status.as_u16())),
            _ => None,
        })
    };
    assert_eq!(request(), "GET /.kubectl-headlamp/start/… 200");
    assert_eq!(request(), "GET /clusters/main/api/v1/secrets 403");
}
