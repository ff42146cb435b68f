#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::test_server::{Authority, Seen, start, until};
use super::*;

const BOTH: &[&str] = &["h2", "http/1.1"];
const HTTP1: &[&str] = &["http/1.1"];

/// A server for `localhost` and an unopened connection to it.
async fn connected(protocols: &[&str]) -> (ApiConnection, Arc<Seen>, Authority) {
    let authority = Authority::new();
    let (port, seen) = start(authority.acceptor(&["localhost"], protocols)).await;
    let cluster = authority.cluster(format!("https://localhost:{port}/k8s/c/"));
    (api(&cluster), seen, authority)
}

fn api(cluster: &ClusterEntry) -> ApiConnection {
    ApiConnection::new(cluster, &Environment::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

async fn send(api: &ApiConnection, credential: &Credential, request: Request<Body>) -> String {
    let answer =
        api.send(credential, &Impersonation::default(), request).await.unwrap_or_else(|error| panic!("{error}"));
    text(answer).await
}

async fn text(answer: Response<AnswerBody>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// This many watches, each with its first line read.
async fn watch(api: &ApiConnection, count: usize) -> Vec<AnswerBody> {
    let opening = (0..count).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let answer =
                api.stream(&Credential::default(), &Impersonation::default(), get("/api/v1/pods?watch=true")).await;
            let mut body = answer.unwrap_or_else(|error| panic!("{error}")).into_body();
            assert!(body.frame().await.unwrap().is_ok());
            body
        })
    });
    let opening: Vec<_> = opening.collect();
    let mut watches = Vec::new();
    for task in opening {
        watches.push(task.await.unwrap());
    }
    watches
}

#[tokio::test]
async fn requests_go_over_http2_to_the_servers_path_with_the_credential() {
    let (api, seen, _) = connected(BOTH).await;
    let credential = Credential::bearer(Secret::new("hunter2\n"));
    let answers = [send(&api, &credential, get("/api?x=%2F")).await, send(&api, &credential, get("/version")).await];
    assert_eq!(answers, ["ok", "ok"]);
    assert_eq!(seen.paths(), ["/k8s/c/api?x=%2F", "/k8s/c/version"]);
    assert_eq!(seen.last_headers()["authorization"], "Bearer hunter2");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    let basic = Credential { basic: Some(("jane".into(), Secret::new("p"))), ..Credential::default() };
    send(&api, &basic, get("/api")).await;
    assert_eq!(seen.last_headers()["authorization"], "Basic amFuZTpw");
}

#[tokio::test]
async fn what_the_caller_says_of_who_it_is_does_not_pass() {
    let (api, seen, _) = connected(BOTH).await;
    let request = Request::get("/api")
        .header("Authorization", "Bearer other")
        .header("Impersonate-User", "admin")
        .header("Impersonate-Extra-scopes", "all")
        .header("Cookie", "a=b")
        .header("Host", "elsewhere")
        .header("Accept", "text/plain");
    send(&api, &Credential::default(), request.body(empty()).unwrap()).await;
    let headers = seen.last_headers();
    assert!(headers["host"].to_str().unwrap().starts_with("localhost:"));
    assert_eq!(headers["accept"], "text/plain");
    let rest: Vec<&str> =
        headers.keys().map(HeaderName::as_str).filter(|name| !["host", "accept"].contains(name)).collect();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn impersonation_is_spelled_as_client_go_does() {
    let (api, seen, _) = connected(BOTH).await;
    let impersonation = Impersonation {
        user: Some("Jané".into()),
        groups: vec!["dev".into(), "ops".into()],
        uid: Some("7".into()),
        extra: BTreeMap::from([("Example.com/scope".into(), vec!["a".into(), "b".into()])]),
    };
    let answer = api.send(&Credential::default(), &impersonation, get("/api")).await;
    assert!(answer.is_ok());
    let headers = seen.last_headers();
    let all = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!((all("impersonate-user"), all("impersonate-uid")), (vec!["Jané".to_owned()], vec!["7".to_owned()]));
    assert_eq!(all("impersonate-group"), ["dev", "ops"]);
    assert_eq!(all("impersonate-extra-example.com%2fscope"), ["a", "b"]);
    let broken = Impersonation { user: Some("a\nb".into()), ..Impersonation::default() };
    assert!(api.send(&Credential::default(), &broken, get("/api")).await.is_err());
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_not_shown() {
    let (api, seen, _) = connected(BOTH).await;
    let credential = Credential::bearer(Secret::new("hunter2\u{1}"));
    let error = api.send(&credential, &Impersonation::default(), get("/api")).await.err().unwrap();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_hundred_and_fifty_watches_leave_room_for_requests_and_open_few_connections() {
    let (api, seen, _) = connected(BOTH).await;
    let watches = watch(&api, 150).await;
    assert_eq!(seen.watches.load(Ordering::SeqCst), 150);
    for _ in 0..20 {
        assert_eq!(send(&api, &Credential::default(), get("/version")).await, "ok");
    }
    assert_eq!(seen.most_watches.load(Ordering::SeqCst), 90);
    assert_eq!(seen.connections.load(Ordering::SeqCst), 3);
    drop(watches);
    until("the watches are closed", || seen.watches.load(Ordering::SeqCst) == 0).await;
    let again = watch(&api, 10).await;
    assert_eq!(seen.connections.load(Ordering::SeqCst), 3, "a connection is used again");
    drop(again);
}

#[tokio::test]
async fn more_requests_at_once_than_one_connection_takes_are_all_answered() {
    let (api, seen, _) = connected(BOTH).await;
    let asking: Vec<_> = (0..250)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move { send(&api, &Credential::default(), get("/version")).await })
        })
        .collect();
    for task in asking {
        assert_eq!(task.await.unwrap(), "ok");
    }
    assert!(seen.connections.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn a_reader_that_stops_stalls_only_itself() {
    let (api, _seen, _) = connected(BOTH).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(
            api.send(&Credential::default(), &Impersonation::default(), get("/large"))
                .await
                .unwrap_or_else(|error| panic!("{error}")),
        );
    }
    assert_eq!(send(&api, &Credential::default(), get("/large")).await.len(), 16 << 20);
    let first = text(stalled.remove(0)).await;
    assert_eq!(first.len(), 16 << 20);
}

#[tokio::test]
async fn a_server_without_http2_is_served_just_as_well() {
    let (api, seen, _) = connected(HTTP1).await;
    let watches = watch(&api, 20).await;
    assert_eq!(send(&api, &Credential::default(), get("/version")).await, "ok");
    let post = Request::post("/upload").body(full(vec![0; 100_000])).unwrap();
    assert_eq!(send(&api, &Credential::default(), post).await, "100000 bytes");
    assert_eq!(seen.watches.load(Ordering::SeqCst), 20);
    drop(watches);
}

#[tokio::test]
async fn an_upgrade_passes_through() {
    for protocols in [BOTH, HTTP1] {
        let (api, seen, _) = connected(protocols).await;
        send(&api, &Credential::default(), get("/version")).await;
        let request =
            Request::get("/upgrade").header("Connection", "Upgrade").header("Upgrade", "echo").body(empty()).unwrap();
        let mut answer = api
            .upgrade(&Credential::bearer(Secret::new("t")), &Impersonation::default(), request)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(answer.status(), 101);
        assert_eq!(seen.last_headers()["authorization"], "Bearer t");
        let mut echo = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
        for word in ["one", "two"] {
            echo.write_all(word.as_bytes()).await.unwrap();
            let mut bytes = [0; 3];
            echo.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, word.as_bytes());
        }
        api.reset();
        echo.write_all(b"end").await.unwrap();
        let mut bytes = [0; 3];
        assert!(echo.read_exact(&mut bytes).await.is_ok(), "a reset ends no upgraded connection");
    }
}

#[tokio::test]
async fn a_reset_ends_what_is_under_way_at_once_and_the_next_request_is_answered() {
    for protocols in [BOTH, HTTP1] {
        let (api, seen, _) = connected(protocols).await;
        let mut watches = watch(&api, 3).await;
        let before = seen.connections.load(Ordering::SeqCst);
        api.reset();
        for watch in &mut watches {
            let ended = tokio::time::timeout(Duration::from_secs(10), watch.frame()).await.unwrap();
            assert!(ended.unwrap().is_err());
        }
        assert_eq!(send(&api, &Credential::default(), get("/version")).await, "ok");
        assert!(seen.connections.load(Ordering::SeqCst) > before);
    }
}

#[tokio::test]
async fn each_client_certificate_has_connections_of_its_own() {
    let (api, seen, authority) = connected(BOTH).await;
    let of = |name| Credential { certificate: Some(authority.client(name)), ..Credential::default() };
    let (jane, renewed) = (of("jane"), of("jane"));
    for credential in [&jane, &jane, &renewed, &Credential::default()] {
        assert_eq!(send(&api, credential, get("/version")).await, "ok");
    }
    assert_eq!(*seen.certificates.lock().unwrap(), [true, true, false]);
}

#[tokio::test]
async fn what_runs_on_an_old_certificate_goes_on() {
    let (api, seen, authority) = connected(BOTH).await;
    let watches = watch(&api, 2).await;
    let jane = Credential { certificate: Some(authority.client("jane")), ..Credential::default() };
    assert_eq!(send(&api, &jane, get("/version")).await, "ok");
    assert_eq!(seen.watches.load(Ordering::SeqCst), 2);
    drop(watches);
    until("the old connection is closed", || seen.watches.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_tls_server_name_stands_in_for_the_address() {
    let authority = Authority::new();
    let (port, _) = start(authority.acceptor(&["api.internal"], BOTH)).await;
    let cluster = authority.cluster(format!("https://127.0.0.1:{port}"));
    let refused = api(&cluster).send(&Credential::default(), &Impersonation::default(), get("/")).await.err().unwrap();
    assert!(refused.to_string().contains("`tls-server-name`"), "{refused}");
    let named = api(&ClusterEntry { tls_server_name: Some("api.internal".into()), ..cluster.clone() });
    assert_eq!(send(&named, &Credential::default(), get("/")).await, "ok");
    let insecure = api(&ClusterEntry { certificate_authority: None, insecure_skip_tls_verify: true, ..cluster });
    assert_eq!(send(&insecure, &Credential::default(), get("/")).await, "ok");
}

#[tokio::test]
async fn a_foreign_ca_is_refused_with_a_hint_and_without_a_second_try() {
    let (port, seen) = start(Authority::new().acceptor(&["localhost"], BOTH)).await;
    let cluster = Authority::new().cluster(format!("https://localhost:{port}"));
    let credential = Credential::bearer(Secret::new("hunter2"));
    let error = api(&cluster).send(&credential, &Impersonation::default(), get("/")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.hints().concat().contains("not from the CA"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 0);
}

/// A server that cuts this many connections after it has read a request, then answers.
async fn cutting(cuts: usize) -> (ClusterEntry, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let all = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = head(&mut stream).await;
            let count = {
                all.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                all.lock().unwrap().len()
            };
            if count > cuts {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
            }
        }
    });
    (ClusterEntry { server, ..ClusterEntry::default() }, requests)
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head
}

#[tokio::test]
async fn a_get_that_broke_before_its_answer_is_repeated_once_and_a_post_never() {
    let (cluster, requests) = cutting(1).await;
    assert_eq!(send(&api(&cluster), &Credential::default(), get("/a")).await, "ok");
    assert_eq!(*requests.lock().unwrap(), ["GET /a HTTP/1.1", "GET /a HTTP/1.1"]);
    let (cluster, requests) = cutting(2).await;
    let failed = api(&cluster).send(&Credential::default(), &Impersonation::default(), get("/a")).await;
    assert_eq!((failed.err().unwrap().kind(), requests.lock().unwrap().len()), (Kind::Unreachable, 2));
    for request in [Request::post("/a").body(full("x")).unwrap(), Request::get("/a").body(full("x")).unwrap()] {
        let (cluster, requests) = cutting(1).await;
        let failed = api(&cluster).send(&Credential::default(), &Impersonation::default(), request).await;
        assert_eq!((failed.is_err(), requests.lock().unwrap().len()), (true, 1));
    }
}

/// Quick to give up. A slow test machine still answers within these.
const HASTY: Limits = Limits {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(3),
    upgrade: Duration::from_secs(1),
    again: Duration::from_secs(1),
    ping: (Duration::from_millis(500), Duration::from_millis(500)),
};

/// How a server keeps silent.
#[derive(Clone, Copy, Debug)]
enum Silent {
    /// Nobody takes the connection.
    #[cfg(target_os = "linux")]
    ToTcp,
    ToTls,
    /// Nothing comes on HTTP/2, not even an answer to a ping.
    ToHttp2,
    ToHttp1,
    /// It answers pings, and nothing else.
    ToRequests,
}

/// A server that keeps silent, and what keeps it so.
async fn silent(how: Silent) -> (ApiConnection, Box<dyn std::any::Any>) {
    let authority = Authority::new();
    let hasty = |port: u16| {
        let cluster = authority.cluster(format!("https://localhost:{port}"));
        ApiConnection::within(HASTY, &cluster, &Environment::default()).unwrap_or_else(|error| panic!("{error}"))
    };
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let queue = match how {
        // The first connection fills it.
        #[cfg(target_os = "linux")]
        Silent::ToTcp => 0,
        _ => 64,
    };
    let listener = socket.listen(queue).unwrap();
    let address = listener.local_addr().unwrap();
    match how {
        #[cfg(target_os = "linux")]
        Silent::ToTcp => {
            let first = TcpStream::connect(address).await.unwrap();
            (hasty(address.port()), Box::new((listener, first)))
        }
        Silent::ToTls => (hasty(address.port()), Box::new(listener)),
        Silent::ToHttp2 | Silent::ToHttp1 => {
            let http2 = matches!(how, Silent::ToHttp2);
            let acceptor = authority.acceptor(&["localhost"], if http2 { BOTH } else { HTTP1 });
            tokio::spawn(async move {
                let mut open = Vec::new();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    open.push(acceptor.accept(tcp).await);
                }
            });
            (hasty(address.port()), Box::new(()))
        }
        Silent::ToRequests => {
            let (port, seen) = start(authority.acceptor(&["localhost"], BOTH)).await;
            (hasty(port), Box::new(seen))
        }
    }
}

#[tokio::test]
async fn a_server_that_keeps_silent_is_given_up_whatever_it_is_silent_to() {
    for how in [
        #[cfg(target_os = "linux")]
        Silent::ToTcp,
        Silent::ToTls,
        Silent::ToHttp2,
        Silent::ToHttp1,
        Silent::ToRequests,
    ] {
        let (api, _kept) = silent(how).await;
        let (credential, nobody) = (Credential::default(), Impersonation::default());
        let post = Request::post("/never").body(full("x")).unwrap();
        let upgrade = Request::get("/never").header("connection", "upgrade").header("upgrade", "echo");
        let all = async {
            tokio::join!(
                api.send(&credential, &nobody, get("/never")),
                api.send(&credential, &nobody, post),
                api.stream(&credential, &nobody, get("/never?watch=true")),
                api.upgrade(&credential, &nobody, upgrade.body(empty()).unwrap()),
            )
        };
        let (get, post, watch, upgrade) = tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        for given_up in [get, post, watch, upgrade] {
            assert_eq!(given_up.err().unwrap().kind(), Kind::Unreachable, "{how:?}");
        }
    }
}

#[tokio::test]
async fn what_was_sent_into_silence_is_sent_again_over_a_new_connection_and_not_waited_for_as_long() {
    let authority = Authority::new();
    let (port, seen) = start(authority.acceptor(&["localhost"], BOTH)).await;
    let cluster = authority.cluster(format!("https://localhost:{port}"));
    // A silence is found out after more than half of `again`, which is far below `answer`.
    let limits = Limits {
        answer: Duration::from_secs(60),
        connect: Duration::from_secs(5),
        again: Duration::from_secs(3),
        ping: (Duration::from_millis(500), Duration::from_secs(2)),
        ..HASTY
    };
    let api =
        ApiConnection::within(limits, &cluster, &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
    for (path, answered) in [("/x", true), ("/never", false)] {
        assert_eq!(send(&api, &Credential::default(), get("/x")).await, "ok");
        seen.silent.notify_waiters();
        let (credential, nobody) = (Credential::default(), Impersonation::default());
        let sent = api.send(&credential, &nobody, get(path));
        let sent = tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
        assert_eq!(sent.is_ok(), answered, "{path}");
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 3);
}

/// What a proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy that understands CONNECT and leads everything to this port.
async fn connect_proxy(target: u16, tls: Option<tokio_rustls::TlsAcceptor>) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let all = asked.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, all) = (tls.clone(), all.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        let stream = tls.accept(tcp).await.unwrap();
                        let (_, session) = stream.get_ref();
                        let protocol =
                            session.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
                        let shown = session.peer_certificates().is_some();
                        all.lock().unwrap().push(format!("{} certificate {shown}", protocol.unwrap_or_default()));
                        tunnel(stream, target, all).await;
                    }
                    None => tunnel(tcp, target, all).await,
                }
            });
        }
    });
    (port, asked)
}

async fn tunnel(mut stream: impl AsyncRead + AsyncWrite + Unpin, target: u16, asked: Asked) {
    let head = head(&mut stream).await;
    asked
        .lock()
        .unwrap()
        .extend(head.lines().filter(|line| !line.is_empty() && !line.starts_with("Host")).map(str::to_owned));
    let mut server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut server).await;
}

/// A SOCKS5 proxy (RFC 1928, and 1929 for its login) that leads everything to this port.
async fn socks_proxy(target: u16, login: bool) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let all = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let all = all.clone();
            tokio::spawn(async move {
                let text = async |stream: &mut TcpStream| {
                    let mut bytes = vec![0; usize::from(stream.read_u8().await.unwrap())];
                    stream.read_exact(&mut bytes).await.unwrap();
                    bytes
                };
                assert_eq!(stream.read_u8().await.unwrap(), 5);
                let wanted = if login { 2 } else { 0 };
                assert!(text(&mut stream).await.contains(&wanted));
                stream.write_all(&[5, wanted]).await.unwrap();
                if login {
                    assert_eq!(stream.read_u8().await.unwrap(), 1);
                    let (name, password) = (text(&mut stream).await, text(&mut stream).await);
                    all.lock().unwrap().push(format!(
                        "{}:{}",
                        String::from_utf8_lossy(&name),
                        String::from_utf8_lossy(&password)
                    ));
                    stream.write_all(&[1, 0]).await.unwrap();
                }
                let mut request = [0; 4];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, [5, 1, 0, 3], "a connection to a name");
                let host = String::from_utf8(text(&mut stream).await).unwrap();
                let port = stream.read_u16().await.unwrap();
                all.lock().unwrap().push(format!("{host}:{port}"));
                let mut server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await.unwrap();
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn every_kind_of_proxy_is_gone_through_and_resolves_the_name() {
    let authority = Authority::new();
    let (port, seen) = start(authority.acceptor(&["api.test"], BOTH)).await;
    let jane = Credential { certificate: Some(authority.client("jane")), ..Credential::bearer(Secret::new("hunter2")) };
    let (http, plain_asked) = connect_proxy(port, None).await;
    let (https, tls_asked) = connect_proxy(port, Some(authority.acceptor(&["localhost"], BOTH))).await;
    let (socks, socks_asked) = socks_proxy(port, false).await;
    let (login, login_asked) = socks_proxy(port, true).await;
    for proxy in [
        format!("http://me:p%40ss@127.0.0.1:{http}"),
        format!("https://localhost:{https}"),
        format!("socks5://127.0.0.1:{socks}"),
        format!("socks5h://me:p%40ss@127.0.0.1:{login}"),
    ] {
        let cluster =
            ClusterEntry { proxy_url: Some(proxy.clone()), ..authority.cluster("https://api.test:6443".into()) };
        let api = api(&cluster);
        assert_eq!(send(&api, &jane, get("/version")).await, "ok", "{proxy}");
        let request =
            Request::get("/upgrade").header("Connection", "Upgrade").header("Upgrade", "echo").body(empty()).unwrap();
        let answer = api
            .upgrade(&jane, &Impersonation::default(), request)
            .await
            .unwrap_or_else(|error| panic!("{proxy} {error}"));
        assert_eq!(answer.status(), 101, "{proxy}");
    }
    let connect = ["CONNECT api.test:6443 HTTP/1.1", "Proxy-Authorization: Basic bWU6cEBzcw=="];
    assert_eq!(*plain_asked.lock().unwrap(), [connect, connect].concat());
    let connect = ["http/1.1 certificate false", "CONNECT api.test:6443 HTTP/1.1"];
    assert_eq!(*tls_asked.lock().unwrap(), [connect, connect].concat());
    assert_eq!(*socks_asked.lock().unwrap(), ["api.test:6443"; 2]);
    assert_eq!(*login_asked.lock().unwrap(), ["me:p@ss", "api.test:6443", "me:p@ss", "api.test:6443"]);
    assert!(seen.certificates.lock().unwrap().iter().all(|shown| *shown));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_the_cluster() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://me:hunter2@{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
        }
    });
    let cluster = ClusterEntry { proxy_url: Some(proxy), ..Authority::new().cluster("https://api.test".into()) };
    let error = api(&cluster).send(&Credential::default(), &Impersonation::default(), get("/")).await.err().unwrap();
    assert!(error.hints().concat().contains("proxy did not let") && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn those_who_wait_for_a_connection_share_its_failure() {
    let cluster = ClusterEntry { server: "https://127.0.0.1:1".into(), ..ClusterEntry::default() };
    let api = api(&cluster);
    let began = Instant::now();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move {
                api.send(&Credential::default(), &Impersonation::default(), get("/")).await.err().unwrap()
            })
        })
        .collect();
    for task in asking {
        assert_eq!(task.await.unwrap().hints(), ["nothing listens there: is the cluster running?"]);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_needs_https_except_on_this_machine() {
    for (text, expected) in [
        ("https://api.example:6443/k8s/c", true),
        ("http://127.0.0.1:8080", true),
        ("localhost:8080", true),
        ("http://api.example", false),
        ("api.example:8080", false),
        ("unix:///run/api", false),
        ("", false),
    ] {
        let cluster = ClusterEntry { server: text.into(), ..ClusterEntry::default() };
        assert_eq!(ApiConnection::new(&cluster, &Environment::default()).is_ok(), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn an_address_keeps_the_callers_path_as_it_is(path in "/[a-z0-9/%._~:=-]{0,20}", query in "(\\?[a-z0-9%&=]{0,10})?") {
        let server = Server::of(&Url::parse("https://jane@api.example:443/base/?q#f").unwrap()).unwrap();
        let address = server.address(&format!("{path}{query}").parse().unwrap()).unwrap_or_else(|error| panic!("{error}"));
        prop_assert_eq!(address.to_string(), format!("https://api.example/base{path}{query}"));
    }
}
