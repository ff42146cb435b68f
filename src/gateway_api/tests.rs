#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use http::Uri;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::api_connection::full;
use crate::api_connection::test_server::{Authority, until};
use crate::browser_session::Standing;
use crate::clock::Clock;
use crate::credential_source::Surroundings;
use crate::environment::Environment;
use crate::gateway_request::{Decision, Gate, decide};
use crate::kubeconfig_user::{BearerSource, Impersonation, InteractiveMode, PluginEntry, Target, UserEntry};
use crate::peer::Peer;
use crate::ui::Ui;

const DEADLINE: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);
/// Nothing happens by itself.
const PACE: Pace = Pace {
    sign_in: NEVER,
    answer: NEVER,
    again: NEVER,
    body: NEVER,
    watch: watches::Pace { pauses: (NEVER, NEVER), inventory_after: NEVER, ..watches::Pace::NORMAL },
};
const LARGE: usize = 64 * 1024 * 1024;

type TestBody = UnsyncBoxBody<Bytes, io::Error>;

/// An API server that accepts one token.
struct Cluster {
    authority: Authority,
    port: u16,
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: String,
    came: Vec<Came>,
    /// This many watches get no answer.
    silent: usize,
    /// Everything is answered with a 503.
    away: bool,
    /// What is told on the next watches, each of which then ends, or stays if it is the last one.
    watches: Vec<Vec<String>>,
    /// Bodies without an end, as long as anybody reads them.
    open: Arc<AtomicUsize>,
    /// Bytes of `/large` that were asked for.
    pulled: Arc<AtomicUsize>,
}

struct Came {
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Cluster {
    async fn start() -> Self {
        Self::speaking(&["h2", "http/1.1"]).await
    }

    async fn speaking(protocols: &[&str]) -> Self {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["localhost"], protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let all = state.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), all.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(answer(request, state).await) }
                    });
                    if http2 {
                        let server = http2::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(TokioIo::new(tls), service).await;
                    } else {
                        let server = http1::Builder::new();
                        let _ = server.serve_connection(TokioIo::new(tls), service).with_upgrades().await;
                    }
                });
            }
        });
        let cluster = Self { authority, port, folder: tempfile::tempdir().unwrap(), state };
        cluster.accepts("first");
        cluster.token("first");
        cluster
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accepts(&self, token: &str) {
        token.clone_into(&mut self.state().accepted);
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn token(&self, token: &str) {
        std::fs::write(self.token_file(), token).unwrap();
    }

    fn client(&self) -> ClusterClient {
        self.client_by(BearerSource::File(self.token_file()))
    }

    fn client_by(&self, bearer: BearerSource) -> ClusterClient {
        let target = Target {
            context: Some("dev".into()),
            cluster: self.authority.cluster(format!("https://localhost:{}", self.port)),
            user: UserEntry {
                name: Some("jane".into()),
                bearer,
                certificate: None,
                impersonate: Impersonation::default(),
            },
            namespace: None,
        };
        let environment = Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin")]);
        let surroundings = Surroundings { environment, ui: Ui::new(), clock: Clock::system() };
        ok(ClusterClient::new(&target, surroundings, Arc::new(|| Box::new(())), None))
    }

    fn lines(&self) -> Vec<String> {
        self.state().came.iter().map(|came| came.line.clone()).collect()
    }
}

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn body(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn chunks(texts: Vec<String>) -> TestBody {
    StreamBody::new(futures_util::stream::iter(texts.into_iter().map(data).map(Ok))).boxed_unsync()
}

/// These bytes, and when they are on their way, the end of the connection or stream.
fn broken(begin: impl Into<Bytes>) -> TestBody {
    let end = futures_util::stream::once(async {
        tokio::time::sleep(SHORT).await;
        Err(io::Error::other("cut"))
    });
    StreamBody::new(futures_util::stream::iter([Ok(data(begin))]).chain(end)).boxed_unsync()
}

fn data(text: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(text.into())
}

/// These lines, and then silence.
fn endless(lines: Vec<String>, open: &Arc<AtomicUsize>) -> TestBody {
    open.fetch_add(1, Ordering::SeqCst);
    let open = Open(open.clone());
    let lines = futures_util::stream::iter(lines.into_iter().map(data).map(Ok));
    StreamBody::new(lines.chain(futures_util::stream::once(async move {
        let _open = open;
        pending().await
    })))
    .boxed_unsync()
}

/// 64 MiB, in order.
fn large(pulled: Arc<AtomicUsize>) -> TestBody {
    StreamBody::new(futures_util::stream::iter((0..LARGE / 65536).map(move |number| {
        pulled.fetch_add(65536, Ordering::SeqCst);
        Ok(data(pattern(number * 65536, 65536)))
    })))
    .boxed_unsync()
}

/// What stands at this place of something long.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let (start, count) = (from % 251, length / 251 + 2);
    period.repeat(count)[start..start + length].to_vec()
}

async fn answer(mut request: Request<Incoming>, state: Arc<Mutex<State>>) -> Response<TestBody> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, incoming) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().to_string();
    let line = format!("{} {path}", head.method);
    let sent = incoming.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let came = Came { line: line.clone(), headers: head.headers.clone(), body: sent.clone() };
    let (times, authorized, open, pulled) = {
        let mut state = state.lock().unwrap();
        state.came.push(came);
        let times = state.came.iter().filter(|came| came.line == line).count();
        let authorized =
            head.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {}", state.accepted));
        (times, authorized, state.open.clone(), state.pulled.clone())
    };
    let mut answer = Response::builder().header("set-cookie", "planted=1").header("content-type", "application/json");
    if state.lock().unwrap().away {
        return answer.status(503).body(body("{}")).unwrap();
    }
    if !authorized {
        return answer.status(401).body(body(r#"{"kind":"Status","message":"Unauthorized"}"#)).unwrap();
    }
    if let Some(code) = head.uri.path().strip_prefix("/api/v1/status/") {
        answer = answer.status(code.parse::<u16>().unwrap()).header("retry-after", "7");
        return answer.body(body(r#"{"kind":"Status","message":"the server\u001b[31m is busy"}"#)).unwrap();
    }
    let body = match path.as_str() {
        "/api/v1/cut" if times == 1 => {
            answer = answer.header("content-length", "8");
            broken("half")
        }
        "/api/v1/cut" => body("half and"),
        "/api/v1/cut-without-length" | "/api/v1/cut-then-silence" if times == 1 => broken("half"),
        "/api/v1/cut-without-length" => chunks(vec!["half".into(), " and".into()]),
        "/api/v1/cut-then-silence" => return pending().await,
        "/api/v1/stalls" => {
            answer = answer.header("content-length", "8");
            endless(vec!["half".into()], &open)
        }
        "/api/v1/cut-always" => broken("half"),
        "/api/v1/cut-large" => broken(vec![b'x'; 200_000]),
        "/api/v1/large" => large(pulled),
        "/api/v1/slow" | "/api/v1/namespaces/n/pods/p/log?follow=true" => endless(vec!["line".into()], &open),
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            body(json!({"status": {"userInfo": {"username": "jane", "groups": ["dev"]}}}).to_string())
        }
        path if path.starts_with("/api/v1/secrets?") => {
            answer = answer.status(403);
            body("forbidden")
        }
        path if path.starts_with("/api/v1/pods?") => {
            let silent = {
                let mut state = state.lock().unwrap();
                let silent = state.silent > 0;
                state.silent = state.silent.saturating_sub(1);
                silent
            };
            if silent {
                return pending().await;
            }
            let mut state = state.lock().unwrap();
            let told = state.watches.remove(0);
            if state.watches.is_empty() { endless(told, &open) } else { chunks(told) }
        }
        path if path.contains("/exec") => {
            if head.headers.get("origin").is_none() {
                return answer.status(403).body(body("no origin")).unwrap();
            }
            tokio::spawn(echo(upgrade, open));
            answer = Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-protocol", "v4.channel.k8s.io")
                .header("set-cookie", "planted=1");
            let accepted = websocket::accept(&head.headers).unwrap();
            answer = answer.header("sec-websocket-accept", &accepted["sec-websocket-accept"]);
            body("")
        }
        _ => body(format!("{} {}", head.method, sent.len())),
    };
    answer.body(body).unwrap()
}

/// Sends back what it gets, until the end or the word `leave`.
async fn echo(upgrade: hyper::upgrade::OnUpgrade, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(open);
    let socket = TokioIo::new(upgrade.await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
    let mut socket = WebSocketStream::from_raw_socket(socket, role, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("leave") || socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A local server with the policy in front and the API side behind.
struct Page {
    side: ApiSide,
    address: SocketAddr,
}

impl Page {
    async fn open(cluster: &Cluster, pace: Pace) -> (Self, ClusterClient) {
        Self::open_as(cluster.client(), pace).await
    }

    async fn open_as(client: ClusterClient, pace: Pace) -> (Self, ClusterClient) {
        let side = ApiSide::at(pace, vec![("dev".into(), client.clone())], Random::system());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate::new(address.port(), "", vec!["dev".into()]);
        // It holds no copy of its own, so that the test's is the last one.
        let weak = Arc::downgrade(&side.0);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (weak, gate) = (weak.clone(), gate.clone());
                let service = service_fn(move |request| {
                    let (side, gate) = (ApiSide(weak.upgrade().unwrap()), gate.clone());
                    async move { Ok::<_, Infallible>(route(side, &gate, request).await) }
                });
                let server = http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(tcp), service).with_upgrades());
            }
        });
        (Self { side, address }, client)
    }

    async fn send(&self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let host = self.address.to_string();
        let path = format!("/clusters/dev{}", request.uri());
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        request.headers_mut().insert("origin", format!("http://{host}").parse().unwrap());
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        timeout(DEADLINE, sender.send_request(request)).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(Request::get(path).body(empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), text(answer).await)
    }

    /// Opens a websocket, or says what was answered instead.
    async fn socket(&self, path: &str, protocols: &str) -> Result<WebSocketStream<TcpStream>, u16> {
        let address = format!("ws://{}/clusters/dev{path}", self.address);
        let mut request = address.parse::<Uri>().unwrap().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("origin", format!("http://{}", self.address).parse().unwrap());
        headers.insert("sec-websocket-extensions", HeaderValue::from_static("permessage-deflate"));
        headers.insert("impersonate-user", HeaderValue::from_static("admin"));
        headers.insert("cookie", HeaderValue::from_static("secret=1"));
        if !protocols.is_empty() {
            headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        let tcp = TcpStream::connect(self.address).await.unwrap();
        match timeout(DEADLINE, client_async(request, tcp)).await.unwrap() {
            Ok((socket, answer)) => {
                assert!(answer.headers().get("set-cookie").is_none());
                Ok(socket)
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn watch(&self) -> WebSocketStream<TcpStream> {
        self.socket("/api/v1/pods?watch=true&resourceVersion=1", "base64.binary.k8s.io").await.unwrap()
    }
}

async fn route(side: ApiSide, gate: &Gate, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let decision = decide(gate, &head, Peer::SameUser, Standing::Known);
    let request = Request::from_parts(head, body);
    match decision {
        Decision::Api(target) => side.request(target, request).await,
        Decision::Upgrade(target) => side.upgrade(target, request).await,
        Decision::Watch { cluster, watch } => side.watch(&cluster, watch, request).await,
        Decision::Me { cluster } => side.me(&cluster),
        other => panic!("{other:?}"),
    }
}

async fn text(answer: Response<Incoming>) -> String {
    let body = timeout(DEADLINE, answer.into_body().collect()).await.unwrap().unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    timeout(DEADLINE, socket.next()).await.unwrap().and_then(std::result::Result::ok)
}

fn event(name: &str, version: u32) -> String {
    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()}});
    format!("{}\n", json!({"type": "ADDED", "object": object}))
}

fn shows(message: Option<Message>, name: &str) {
    let Some(Message::Text(text)) = message else { panic!("{message:?}") };
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["object"]["metadata"]["name"], name, "{text}");
}

#[tokio::test]
async fn a_request_goes_up_with_the_clusters_credential_and_nothing_that_says_who_one_is() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    let request = Request::get("/api/v1/nodes?limit=1")
        .header("accept", "application/json")
        .header("user-agent", "browser")
        .header("cookie", "secret=1")
        .header("authorization", "Bearer other")
        .header("impersonate-user", "admin")
        .header("impersonate-group", "system:masters")
        .header("impersonate-extra-scopes", "all")
        .header("x-remote-user", "admin")
        .header("x-forwarded-for", "10.0.0.1")
        .header("kubeconfig", "x");
    let answer = page.send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    assert!(!answer.headers().contains_key("set-cookie"));
    assert_eq!(text(answer).await, "GET 0");
    let state = cluster.state();
    let came = state.came.last().unwrap();
    assert_eq!(came.line, "GET /api/v1/nodes?limit=1");
    let mut names: Vec<&str> = came.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "authorization", "user-agent"]);
    assert_eq!(came.headers["authorization"], "Bearer first");
    assert_eq!(page.side.counts(), Counts { requests: 1, streams: 0 });
}

#[tokio::test]
async fn a_refused_request_is_repeated_with_its_body_as_the_renewed_user() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    assert_eq!(page.get("/api/v1/nodes").await.0, 200);
    cluster.accepts("second");
    cluster.token("second");
    let sent = pattern(0, 60_000);
    let answer = page.send(Request::post("/api/v1/pods").body(full(sent.clone())).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), text(answer).await), (200, "POST 60000".to_owned()));
    let state = cluster.state();
    let posts: Vec<_> = state.came.iter().filter(|came| came.line.starts_with("POST")).collect();
    assert_eq!(posts.len(), 2);
    assert!(posts.iter().all(|came| came.body == sent));
    assert_eq!(posts[1].headers["authorization"], "Bearer second");
}

#[tokio::test]
async fn what_is_refused_for_good_is_a_502_that_says_why() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    cluster.accepts("other");
    for request in [
        Request::get("/api/v1/nodes").body(empty()),
        Request::post("/api/v1/pods").body(full("{}")),
        Request::post("/api/v1/pods").body(full(vec![b'x'; 100_000])),
    ] {
        let answer = page.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let told = text(answer).await;
        let status: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(502)));
        assert!(status["message"].as_str().unwrap().contains("refuse") && !told.contains("first"), "{told}");
    }
    assert_eq!(page.socket("/api/v1/namespaces/n/pods/p/exec", "v4.channel.k8s.io").await.unwrap_err(), 502);
}

#[tokio::test]
async fn of_the_servers_refusals_503_alone_does_not_reach_the_page() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    for code in [400, 403, 404, 409, 410, 429, 500, 502, 504] {
        let answer = page.send(Request::get(format!("/api/v1/status/{code}")).body(empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), code);
        assert_eq!(answer.headers()["retry-after"], "7");
    }
    for path in ["/api/v1/status/503", "/api/v1/status/503?follow=true"] {
        let answer = page.send(Request::get(path).body(empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()["retry-after"], "7");
        let status: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(status["message"], "the API server answered 503: the server[31m is busy");
    }
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_is_a_502_with_a_hint() {
    let mut cluster = Cluster::start().await;
    cluster.port = 1;
    let (page, _) = Page::open(&cluster, PACE).await;
    let (code, told) = page.get("/api/v1/nodes").await;
    let status: Value = serde_json::from_str(&told).unwrap();
    let message = status["message"].as_str().unwrap();
    assert_eq!(code, 502);
    assert!(message.contains("cannot reach the cluster `https://localhost:1`"), "{message}");
    assert!(message.ends_with("; nothing listens there: is the cluster running?"), "{message}");
}

#[tokio::test]
async fn large_bodies_arrive_byte_for_byte_both_ways() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let cluster = Cluster::speaking(protocols).await;
        let (page, _) = Page::open(&cluster, PACE).await;
        let mut body = page.send(Request::get("/api/v1/large").body(empty()).unwrap()).await.unwrap().into_body();
        let mut received = 0;
        while let Some(frame) = timeout(DEADLINE, body.frame()).await.unwrap() {
            let bytes = frame.unwrap().into_data().unwrap();
            assert!(bytes == pattern(received, bytes.len()));
            received += bytes.len();
        }
        assert_eq!(received, LARGE);
        let sent = pattern(7, 16 * 1024 * 1024);
        let answer = page.send(Request::put("/api/v1/pods").body(full(sent.clone())).unwrap()).await.unwrap();
        assert_eq!(text(answer).await, format!("PUT {}", sent.len()));
        assert!(cluster.state().came.last().unwrap().body == sent);
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_not_read_for_and_stops_nobody_else() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    let mut stopped = Vec::new();
    for _ in 0..5 {
        stopped.push(page.send(Request::get("/api/v1/large").body(empty()).unwrap()).await.unwrap());
    }
    assert_eq!(page.get("/api/v1/nodes").await, (200, "GET 0".to_owned()));
    let pulled = cluster.state().pulled.clone();
    let mut seen = 0;
    // What fits into windows and sockets, however long it is given.
    while seen < pulled.load(Ordering::SeqCst) {
        seen = pulled.load(Ordering::SeqCst);
        tokio::time::sleep(4 * SHORT).await;
    }
    assert!(seen < 5 * LARGE / 2, "{seen}");
    let mut first = stopped.remove(0).into_body();
    let mut received = 0;
    while let Some(frame) = timeout(DEADLINE, first.frame()).await.unwrap() {
        received += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(received, LARGE);
}

#[tokio::test]
async fn a_small_answer_that_broke_off_is_had_again_once() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let cluster = Cluster::speaking(protocols).await;
        let (page, _) = Page::open(&cluster, PACE).await;
        for path in ["/api/v1/cut", "/api/v1/cut-without-length"] {
            assert_eq!(page.get(path).await, (200, "half and".to_owned()));
            assert_eq!(cluster.lines().iter().filter(|line| line.ends_with(path)).count(), 2);
        }
        let (code, told) = page.get("/api/v1/cut-always").await;
        assert_eq!(code, 502);
        assert!(told.contains("broke off: twice"), "{told}");
        assert_eq!(cluster.lines().len(), 6, "{:?}", cluster.lines());
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_passed_on_as_far_as_it_came_and_a_second_one_not_waited_for_long() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, Pace { answer: SHORT, again: SHORT, ..PACE }).await;
    let answer = page.send(Request::get("/api/v1/stalls").body(empty()).unwrap()).await.unwrap();
    let first = timeout(DEADLINE, answer.into_body().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "half");
    let (page, _) = Page::open(&cluster, Pace { again: SHORT, ..PACE }).await;
    let (code, told) = page.get("/api/v1/cut-then-silence").await;
    assert_eq!(code, 502);
    assert!(told.contains("did not come a second time"), "{told}");
}

#[tokio::test]
async fn what_is_large_or_changes_something_is_not_repeated_and_its_break_is_seen() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let cluster = Cluster::speaking(protocols).await;
        let (page, _) = Page::open(&cluster, PACE).await;
        for request in [
            Request::get("/api/v1/cut-large").body(empty()),
            Request::post("/api/v1/cut").body(full("{}")),
            Request::delete("/api/v1/cut-without-length").body(empty()),
        ] {
            let answer = page.send(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(timeout(DEADLINE, answer.into_body().collect()).await.unwrap().is_err());
        }
        assert_eq!(cluster.lines().len(), 3);
    }
}

#[tokio::test]
async fn what_goes_on_for_long_reaches_the_page_as_it_comes() {
    let cluster = Cluster::start().await;
    let open = cluster.state().open.clone();
    for (pace, path, streams) in
        [(PACE, "/api/v1/namespaces/n/pods/p/log?follow=true", 1), (Pace { answer: SHORT, ..PACE }, "/api/v1/slow", 0)]
    {
        let (page, _) = Page::open(&cluster, pace).await;
        let answer = page.send(Request::get(path).body(empty()).unwrap()).await.unwrap();
        let mut body = answer.into_body();
        let first = timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "line");
        assert_eq!(page.side.counts().streams, streams);
        drop(body);
        until("the stream is closed", || page.side.counts().streams == 0 && open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn three_requests_wait_for_a_sign_in_and_the_others_are_told_at_once() {
    let cluster = Cluster::start().await;
    let (page, client) = Page::open(&cluster, PACE).await;
    std::fs::remove_file(cluster.token_file()).unwrap();
    let page = Arc::new(page);
    let mut asking: futures_util::stream::FuturesUnordered<_> = (0..6)
        .map(|number| {
            let page = page.clone();
            async move { page.get(&format!("/api/v1/nodes?limit={number}")).await }
        })
        .collect();
    for _ in 0..3 {
        let (code, told) = timeout(DEADLINE, asking.next()).await.unwrap().unwrap();
        assert_eq!(code, 502);
        assert!(told.contains("which the user `jane` is known by"), "{told}");
    }
    assert!(timeout(SHORT, asking.next()).await.is_err(), "the others wait");
    let large = Request::post("/api/v1/pods").body(full(vec![b'x'; 100_000])).unwrap();
    assert_eq!(page.send(large).await.unwrap().status(), 502);
    assert!(cluster.lines().is_empty());
    cluster.token("first");
    ok(client.sign_in(None).await);
    for _ in 0..3 {
        assert_eq!(timeout(DEADLINE, asking.next()).await.unwrap().unwrap(), (200, "GET 0".to_owned()));
    }
    assert!(asking.next().await.is_none());
}

#[tokio::test]
async fn what_is_asked_while_somebody_signs_in_is_answered_when_they_have() {
    let cluster = Cluster::start().await;
    let folder = cluster.folder.path();
    // It waits for a person, who is quick with the next one.
    let script = "echo x >> $1/runs; until [ -e $1/go ]; do sleep 0.02; done; cat $1/answer";
    let plugin = BearerSource::Plugin(Box::new(PluginEntry {
        command: "sh".into(),
        arguments: ["-c", script, "plugin", folder.to_str().unwrap()].map(str::to_owned).to_vec(),
        variables: Vec::new(),
        api_version: "client.authentication.k8s.io/v1".into(),
        interactive_mode: InteractiveMode::Never,
        provide_cluster_info: false,
        install_hint: None,
        folder: "/".into(),
    }));
    let answer = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "first"}});
    std::fs::write(folder.join("answer"), answer.to_string()).unwrap();
    let (page, client) = Page::open_as(cluster.client_by(plugin), PACE).await;
    let signing_in = tokio::spawn(async move { client.sign_in(None).await });
    until("the plugin runs", || folder.join("runs").exists()).await;
    let post = Request::post("/api/v1/pods").body(full("{}")).unwrap();
    let asking = async { tokio::join!(page.get("/api/v1/nodes"), page.send(post)) };
    let person = async {
        until("both wait", || page.side.0.waiting.available_permits() == MOST_WAITING - 2).await;
        assert!(cluster.lines().is_empty());
        std::fs::write(folder.join("go"), "").unwrap();
    };
    let ((answered, posted), ()) = timeout(DEADLINE, async { tokio::join!(asking, person) }).await.unwrap();
    assert_eq!(answered, (200, "GET 0".to_owned()));
    assert_eq!(text(posted.unwrap()).await, "POST 2");
    ok(signing_in.await.unwrap());
    assert_eq!(std::fs::read_to_string(folder.join("runs")).unwrap(), "x\n", "one sign-in for all");
}

#[tokio::test]
async fn a_request_waits_for_a_sign_in_no_longer_than_it_may() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, Pace { sign_in: SHORT, ..PACE }).await;
    std::fs::remove_file(cluster.token_file()).unwrap();
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(page.get("/api/v1/nodes").await.0, 502);
        assert!(began.elapsed() >= SHORT);
    }
}

#[tokio::test]
async fn a_websocket_passes_through_with_its_subprotocol() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let cluster = Cluster::speaking(protocols).await;
        let (page, _) = Page::open(&cluster, PACE).await;
        let path = "/api/v1/namespaces/n/pods/p/exec?command=sh&stdin=true";
        let offered = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.eHg";
        let mut socket = page.socket(path, offered).await.unwrap();
        for text in ["ls", "exit"] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(next(&mut socket).await, Some(Message::text(text)));
        }
        assert_eq!(page.side.counts(), Counts { requests: 1, streams: 1 });
        let headers = cluster.state().came.last().unwrap().headers.clone();
        assert_eq!(headers["origin"], format!("http://{}", page.address).as_str());
        assert_eq!(headers["sec-websocket-protocol"], "v4.channel.k8s.io");
        assert_eq!(headers["authorization"], "Bearer first");
        for name in ["cookie", "impersonate-user", "sec-websocket-extensions"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        socket.close(None).await.unwrap();
        while next(&mut socket).await.is_some() {}
        until("both ends are gone", || page.side.counts().streams == 0).await;
        assert_eq!(page.socket("/api/v1/status/403", "v4.channel.k8s.io").await.unwrap_err(), 403);
        assert_eq!(page.socket("/api/v1/status/503", "v4.channel.k8s.io").await.unwrap_err(), 502);
    }
}

#[tokio::test]
async fn whichever_end_of_a_websocket_goes_takes_the_other_with_it() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    let open = cluster.state().open.clone();
    let path = "/api/v1/namespaces/n/pods/p/exec";
    let mut left_by_server = page.socket(path, "v4.channel.k8s.io").await.unwrap();
    left_by_server.send(Message::text("leave")).await.unwrap();
    assert_eq!(next(&mut left_by_server).await, None);
    let mut aborted = page.socket(path, "v4.channel.k8s.io").await.unwrap();
    aborted.send(Message::text("x")).await.unwrap();
    next(&mut aborted).await.unwrap();
    // Closed with something unread, a socket is reset.
    aborted.send(Message::text("y")).await.unwrap();
    timeout(DEADLINE, aborted.get_ref().readable()).await.unwrap().unwrap();
    drop((aborted, left_by_server));
    until("nothing is left", || page.side.counts().streams == 0 && open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_same_websocket_when_the_server_ends_it() {
    let cluster = Cluster::start().await;
    let pauses = (Duration::from_millis(1), SHORT);
    let quick = Pace { watch: watches::Pace { pauses, ..PACE.watch }, ..PACE };
    let (page, _) = Page::open(&cluster, quick).await;
    cluster.state().watches = vec![vec![event("a", 2)], vec![], vec![event("b", 3)]];
    let mut watch = page.watch().await;
    shows(next(&mut watch).await, "a");
    shows(next(&mut watch).await, "b");
    let lines = cluster.lines();
    let from: Vec<bool> = ["1", "2", "2"]
        .iter()
        .zip(&lines)
        .map(|(from, line)| line.ends_with(&format!("resourceVersion={from}")))
        .collect();
    assert_eq!(from, [true; 3], "{lines:?}");
    assert_eq!(page.side.counts(), Counts { requests: 1, streams: 1 });
    drop(watch);
    until("the watch is closed", || page.side.counts().streams == 0).await;
}

#[tokio::test]
async fn a_watch_goes_on_as_soon_as_somebody_has_signed_in() {
    let cluster = Cluster::start().await;
    let (page, client) = Page::open(&cluster, PACE).await;
    std::fs::remove_file(cluster.token_file()).unwrap();
    let mut watch = page.watch().await;
    assert!(timeout(SHORT, watch.next()).await.is_err());
    assert!(cluster.lines().is_empty());
    cluster.state().watches = vec![vec![event("a", 2)]];
    cluster.token("first");
    ok(client.sign_in(None).await);
    shows(next(&mut watch).await, "a");
}

#[tokio::test]
async fn a_watch_goes_on_as_soon_as_anything_shows_that_the_cluster_is_there_again() {
    for asks in [true, false] {
        let cluster = Cluster::start().await;
        let (page, client) = Page::open(&cluster, PACE).await;
        cluster.state().away = true;
        let mut watch = page.watch().await;
        // The cluster has been heard to be away by now.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1100) {
            assert_eq!(page.get("/api/v1/nodes").await.0, 502);
            assert!(timeout(SHORT, watch.next()).await.is_err());
        }
        cluster.state().watches = vec![vec![event("a", 2)]];
        cluster.state().away = false;
        assert!(timeout(SHORT, watch.next()).await.is_err(), "nothing shows it yet");
        if asks {
            assert_eq!(page.get("/api/v1/nodes").await.0, 200);
        } else {
            client.reset();
        }
        shows(next(&mut watch).await, "a");
    }
}

#[tokio::test]
async fn a_cluster_that_fails_now_and_then_has_no_watch_begun_anew_each_time() {
    let cluster = Cluster::start().await;
    let (page, client) = Page::open(&cluster, PACE).await;
    let mut returns = client.returns();
    for _ in 0..2 {
        let began = Instant::now();
        for away in [true, false] {
            cluster.state().away = away;
            assert_eq!(page.get("/api/v1/nodes").await.0, if away { 502 } else { 200 });
        }
        // On a machine that stood still it was away.
        assert!(!returns.has_changed().unwrap() || began.elapsed() >= Duration::from_secs(1));
        returns.mark_unchanged();
    }
}

#[tokio::test]
async fn after_a_sleep_nothing_that_was_open_is_held_on_to() {
    let cluster = Cluster::start().await;
    let open = cluster.state().open.clone();
    let (page, client) = Page::open(&cluster, PACE).await;
    let mut exec = page.socket("/api/v1/namespaces/n/pods/p/exec", "v4.channel.k8s.io").await.unwrap();
    exec.send(Message::text("x")).await.unwrap();
    assert_eq!(next(&mut exec).await, Some(Message::text("x")));
    cluster.state().watches = vec![vec![event("a", 2)]];
    let mut watch = page.watch().await;
    shows(next(&mut watch).await, "a");
    let log = Request::get("/api/v1/namespaces/n/pods/p/log?follow=true").body(empty()).unwrap();
    let mut log = page.send(log).await.unwrap().into_body();
    assert!(log.frame().await.unwrap().is_ok());
    cluster.state().watches = vec![vec![event("b", 3)]];
    client.reset();
    assert_eq!(next(&mut exec).await, None);
    assert!(timeout(DEADLINE, log.frame()).await.unwrap().unwrap().is_err());
    shows(next(&mut watch).await, "b");
    until("the watch alone is open", || (page.side.counts().streams, open.load(Ordering::SeqCst)) == (1, 1)).await;
    let mut again = page.socket("/api/v1/namespaces/n/pods/p/exec", "v4.channel.k8s.io").await.unwrap();
    again.send(Message::text("y")).await.unwrap();
    assert_eq!(next(&mut again).await, Some(Message::text("y")));
}

#[tokio::test]
async fn a_server_that_does_not_answer_a_watch_keeps_no_websocket_waiting() {
    let cluster = Cluster::start().await;
    let pauses = (Duration::from_millis(1), SHORT);
    // An answer that comes takes less, the first one's connection and all.
    let patience = 40 * SHORT;
    let hasty = Pace { watch: watches::Pace { pauses, start: SHORT, patience, ..PACE.watch }, ..PACE };
    let (page, _) = Page::open(&cluster, hasty).await;
    cluster.state().silent = 2;
    cluster.state().watches = vec![vec![event("a", 2)]];
    let mut watch = page.watch().await;
    shows(next(&mut watch).await, "a");
    assert_eq!(cluster.lines().len(), 3);
    // What turns out to be forbidden is told as a watch tells it.
    let hasty = Pace { watch: watches::Pace { refusals: Duration::ZERO, ..hasty.watch }, ..hasty };
    let (page, _) = Page::open(&cluster, hasty).await;
    cluster.state().away = true;
    let mut watch = page.socket("/api/v1/secrets?watch=1&resourceVersion=1", "").await.unwrap();
    cluster.state().away = false;
    let Some(Message::Text(told)) = next(&mut watch).await else { panic!() };
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["type"], &told["object"]["code"]), (&json!("ERROR"), &json!(403)));
    let Some(Message::Close(Some(close))) = next(&mut watch).await else { panic!() };
    assert_eq!(u16::from(close.code), 1000);
}

#[tokio::test]
async fn a_page_that_shows_what_is_gone_is_told_to_load_anew_once() {
    let cluster = Cluster::start().await;
    let pauses = (Duration::from_millis(1), SHORT);
    let quick = Pace { watch: watches::Pace { pauses, inventory_after: Duration::ZERO, ..PACE.watch }, ..PACE };
    let (page, _) = Page::open(&cluster, quick).await;
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}});
    let list = |version: u32| {
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": []}).to_string()
    };
    // The watch; what the page had; the list anew; the watch from there.
    cluster.state().watches = vec![vec![format!("{gone}\n")], vec![list(8)], vec![list(9)], vec![event("a", 10)]];
    let mut watch = page.watch().await;
    shows(next(&mut watch).await, "a");
    let reload = async |method: Method| {
        let request = Request::builder().method(method).uri("/api/v1/nodes").body(empty()).unwrap();
        page.send(request).await.unwrap().headers().get(RELOAD).cloned()
    };
    assert_eq!(reload(Method::DELETE).await, None);
    assert_eq!(reload(Method::GET).await.unwrap(), "reload");
    assert_eq!(reload(Method::GET).await, None);
}

#[tokio::test]
async fn a_watch_that_the_server_refuses_is_refused() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    let refused = page.socket("/api/v1/pods?watch=1&resourceVersion=1", "a, b").await.unwrap_err();
    assert_eq!(refused, 400);
    assert!(cluster.lines().is_empty());
    assert_eq!(page.socket("/api/v1/secrets?watch=1&resourceVersion=1", "").await.unwrap_err(), 403);
}

#[tokio::test]
async fn a_cut_ends_all_that_is_open_and_nothing_after_it() {
    let cluster = Cluster::start().await;
    let open = cluster.state().open.clone();
    let (page, _) = Page::open(&cluster, PACE).await;
    for drops in [false, true] {
        cluster.state().watches = vec![vec![event("a", 2)]];
        let mut watch = page.watch().await;
        shows(next(&mut watch).await, "a");
        let mut exec = page.socket("/api/v1/namespaces/n/pods/p/exec", "v4.channel.k8s.io").await.unwrap();
        let log = Request::get("/api/v1/namespaces/n/pods/p/log?follow=true").body(empty()).unwrap();
        let mut log = page.send(log).await.unwrap().into_body();
        assert!(log.frame().await.unwrap().is_ok());
        let mut large = page.send(Request::get("/api/v1/large").body(empty()).unwrap()).await.unwrap().into_body();
        assert!(large.frame().await.unwrap().is_ok());
        assert_eq!((page.side.counts().streams, open.load(Ordering::SeqCst)), (3, 3));
        if drops {
            let streams = page.side.0.streams.clone();
            drop(page);
            until("all is closed", || streams.load(Ordering::SeqCst) == 0 && open.load(Ordering::SeqCst) == 0).await;
            return;
        }
        page.side.cut();
        assert_eq!(next(&mut watch).await, None);
        assert_eq!(next(&mut exec).await, None);
        assert!(timeout(DEADLINE, log.frame()).await.unwrap().unwrap().is_err());
        let mut rest = Ok(());
        while rest.is_ok() {
            rest = timeout(DEADLINE, large.frame()).await.unwrap().unwrap().map(|_| ());
        }
        until("all is closed", || page.side.counts().streams == 0 && open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn a_cut_answers_those_who_wait() {
    let cluster = Cluster::start().await;
    let (page, _) = Page::open(&cluster, PACE).await;
    std::fs::remove_file(cluster.token_file()).unwrap();
    let side = page.side.clone();
    let asking = tokio::spawn(async move { page.get("/api/v1/nodes").await });
    until("it waits", || side.0.waiting.available_permits() == MOST_WAITING - 1).await;
    side.cut();
    let (code, told) = asking.await.unwrap();
    assert_eq!(code, 502);
    assert!(told.contains("this session has ended"), "{told}");
}

#[tokio::test]
async fn the_page_is_told_who_one_is() {
    let cluster = Cluster::start().await;
    let client = cluster.client();
    let side = ApiSide::new(vec![("dev".into(), client.clone())], Random::system());
    assert_eq!(side.me("dev").status(), 404);
    ok(client.review().await);
    let answer = side.me("dev");
    assert_eq!(answer.status(), 200);
    let told = answer.into_body().collect().await.unwrap().to_bytes();
    let me: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(me, json!({"username": "jane", "email": "", "groups": ["dev"], "userInfoURL": ""}));
    assert_eq!(side.me("another").status(), 404);
}
