//! Websockets (RFC 6455): the server's end of a page's watch, and passing others through.
//!
//! What a watch looks like is what Kubernetes' API servers make of it: one text frame an event, and
//! at the end a close with code 1000.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// Keeps what stands between the browser and us from taking the connection for dead.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
/// Bytes of a message from the page, which has nothing to say on a watch.
const LARGEST_MESSAGE: usize = 64 * 1024;
/// Events that wait for a page that reads slowly; the rest waits at the server.
const WAITING: usize = 4;
/// For the page's half of the goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// The headers of our `101`, or why there is none. A subprotocol is echoed, as API servers do;
/// they take no more than one.
pub(crate) fn accept(headers: &HeaderMap) -> Result<HeaderMap, &'static str> {
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("the websocket's version is not 13");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err("the websocket's key is not 16 bytes");
    }
    let accepted =
        HeaderValue::try_from(derive_accept_key(key)).map_err(|_| "the websocket's key cannot be answered")?;
    let mut answer = HeaderMap::new();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    let mut offered = offered(headers);
    match (offered.next(), offered.next()) {
        (None, _) => {}
        (Some(protocol), None) => {
            let protocol = HeaderValue::from_str(protocol).map_err(|_| "the websocket's subprotocol is not text")?;
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        _ => return Err("a watch has one subprotocol at most"),
    }
    Ok(answer)
}

/// The subprotocols that a request offers, without those that are there to carry a credential:
/// Kubernetes' bearer token, Headlamp's user.
pub(crate) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let protocols = lines.flat_map(|line| line.split(',')).map(str::trim);
    protocols.filter(|protocol| !protocol.is_empty() && !protocol.starts_with("base64url."))
}

/// Serves a page its events until it leaves, or until `produce` has no more; `produce` is dropped
/// when the page has left.
pub(crate) async fn serve<T, F>(socket: T, ping_every: Duration, produce: impl FnOnce(mpsc::Sender<String>) -> F)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (sender, events) = mpsc::channel(WAITING);
    let producing = pin!(async {
        produce(sender).await;
        pending::<Infallible>().await
    });
    tokio::select! {
        () = deliver(socket, ping_every, events) => {}
        never = producing => match never {},
    }
}

async fn deliver<T: AsyncRead + AsyncWrite + Unpin>(
    socket: T,
    ping_every: Duration,
    mut events: mpsc::Receiver<String>,
) {
    let limits =
        WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(limits)).await;
    let (mut to_page, mut from_page) = socket.split();
    let mut ping = interval_at(Instant::now() + ping_every, ping_every);
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Some(event) => Message::text(event),
                None => break,
            },
            said = from_page.next() => match said {
                Some(Ok(said)) if !said.is_close() => continue,
                // The answer to its goodbye stands ready.
                Some(Ok(_)) => {
                    let _ = timeout(GOODBYE, to_page.close()).await;
                    return;
                }
                _ => return,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if to_page.send(message).await.is_err() {
            return;
        }
    }
    let goodbye = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
    let _ = timeout(GOODBYE, async {
        to_page.send(goodbye).await?;
        while from_page.next().await.transpose()?.is_some() {}
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    })
    .await;
}

/// Passes everything both ways until both ends are done, or one breaks. It returns the bytes that
/// went to the cluster and to the page.
pub(crate) async fn pass_through(page: OnUpgrade, cluster: OnUpgrade) -> io::Result<(u64, u64)> {
    let (page, cluster) = tokio::try_join!(page, cluster).map_err(io::Error::other)?;
    copy_bidirectional(&mut TokioIo::new(page), &mut TokioIo::new(cluster)).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use http::{HeaderName, Request, Response, StatusCode};
    use http_body_util::Empty;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn asked(protocols: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // The example of RFC 6455 §1.3.
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        for protocol in protocols {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).unwrap());
        }
        headers
    }

    fn with(mut headers: HeaderMap, name: HeaderName, value: &'static str) -> HeaderMap {
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn the_offered_subprotocol_is_echoed() {
        let answered = accept(&asked(&["base64.binary.k8s.io"])).unwrap();
        assert_eq!(answered["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answered["sec-websocket-protocol"], "base64.binary.k8s.io");
        assert_eq!(answered["connection"], "Upgrade");
        assert_eq!(answered["upgrade"], "websocket");
        let bearer = accept(&asked(&["base64url.bearer.authorization.k8s.io.eHg, base64.binary.k8s.io"])).unwrap();
        assert_eq!(bearer["sec-websocket-protocol"], "base64.binary.k8s.io");
        assert!(!accept(&asked(&[])).unwrap().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        assert!(accept(&asked(&["base64.binary.k8s.io", "binary.k8s.io"])).is_err());
        assert!(accept(&asked(&["base64.binary.k8s.io,binary.k8s.io"])).is_err());
        assert!(accept(&with(asked(&[]), header::SEC_WEBSOCKET_VERSION, "8")).is_err());
        assert!(accept(&with(asked(&[]), header::SEC_WEBSOCKET_KEY, "")).is_err());
        assert!(accept(&with(asked(&[]), header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZQ==")).is_err());
        assert!(accept(&with(asked(&[]), header::SEC_WEBSOCKET_KEY, "no base64!")).is_err());
        assert!(accept(&HeaderMap::new()).is_err());
    }

    async fn browser(socket: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(socket, Role::Client, None).await
    }

    #[tokio::test]
    async fn events_are_text_frames_and_the_end_is_a_close_with_1000() {
        let (ours, theirs) = duplex(1024);
        let serving = tokio::spawn(serve(ours, PING_EVERY, async |events: mpsc::Sender<String>| {
            for text in ["{}", "{\"a\":\"\u{e4}\"}"] {
                events.send(text.to_owned()).await.unwrap();
            }
        }));
        let mut browser = browser(theirs).await;
        assert_eq!(browser.next().await.unwrap().unwrap(), Message::text("{}"));
        assert_eq!(browser.next().await.unwrap().unwrap(), Message::text("{\"a\":\"\u{e4}\"}"));
        match browser.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("{other:?}"),
        }
        assert!(browser.next().await.is_none());
        timeout(DEADLINE, serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_page_that_leaves_ends_what_is_behind_it() {
        for politely in [true, false] {
            let (ours, theirs) = duplex(1024);
            let serving = tokio::spawn(serve(ours, PING_EVERY, async |events: mpsc::Sender<String>| {
                events.send("{}".to_owned()).await.unwrap();
                pending::<()>().await;
            }));
            let mut browser = browser(theirs).await;
            browser.next().await.unwrap().unwrap();
            if politely {
                browser.send(Message::text("ignored")).await.unwrap();
                browser.close(None).await.unwrap();
                assert!(browser.next().await.unwrap().unwrap().is_close());
                assert!(browser.next().await.is_none());
            }
            drop(browser);
            timeout(DEADLINE, serving).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_quiet_page_is_pinged() {
        let (ours, theirs) = duplex(1024);
        let _serving = tokio::spawn(serve(ours, Duration::from_millis(1), async |_events| pending().await));
        let mut browser = browser(theirs).await;
        for _ in 0..3 {
            assert!(timeout(DEADLINE, browser.next()).await.unwrap().unwrap().unwrap().is_ping());
        }
    }

    #[tokio::test]
    async fn a_page_that_does_not_read_holds_up_what_is_behind_it() {
        let (ours, mut theirs) = duplex(1024);
        let (told, mut count) = mpsc::unbounded_channel();
        let _serving = tokio::spawn(serve(ours, PING_EVERY, async move |events: mpsc::Sender<String>| {
            for number in 0.. {
                events.send("x".repeat(500)).await.unwrap();
                told.send(number).unwrap();
            }
        }));
        // What fits into the pipe and the queue, and no more, however long it is given.
        let mut sent = 0;
        while let Ok(Some(number)) = timeout(Duration::from_millis(50), count.recv()).await {
            sent = number;
            assert!(sent < 20);
        }
        let mut read = vec![0; 504 * 40];
        theirs.read_exact(&mut read).await.unwrap();
        assert!(timeout(DEADLINE, count.recv()).await.unwrap().unwrap() > sent);
    }

    #[tokio::test]
    async fn a_message_too_large_ends_it() {
        let (ours, theirs) = duplex(1024);
        let serving = tokio::spawn(serve(ours, PING_EVERY, async |_events| pending().await));
        let mut browser = browser(theirs).await;
        let _ = browser.send(Message::text("x".repeat(LARGEST_MESSAGE + 1))).await;
        timeout(DEADLINE, serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nonsense_instead_of_frames_ends_it() {
        let (ours, mut theirs) = duplex(1024);
        let serving = tokio::spawn(serve(ours, PING_EVERY, async |_events| pending().await));
        theirs.write_all(&[0xff; 100]).await.unwrap();
        timeout(DEADLINE, serving).await.unwrap().unwrap();
    }

    type Switched = Response<Empty<Bytes>>;

    fn switching() -> Switched {
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        answer.header("connection", "upgrade").header("upgrade", "websocket").body(Empty::new()).unwrap()
    }

    /// Serves one connection: each request is handed what becomes of it once it is upgraded.
    async fn switch<F>(then: impl Fn(OnUpgrade) -> F + Clone + Send + 'static) -> std::net::SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                tokio::spawn(then(hyper::upgrade::on(&mut request)));
                async { Ok::<Switched, Infallible>(switching()) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.with_upgrades().await.unwrap();
        });
        address
    }

    async fn upgraded_client(address: std::net::SocketAddr) -> OnUpgrade {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
        let mut answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        hyper::upgrade::on(&mut answer)
    }

    #[tokio::test]
    async fn what_is_passed_through_arrives_byte_for_byte_both_ways_and_its_end_too() {
        const LENGTH: usize = 8 * 1024 * 1024;
        let cluster = switch(|cluster| async {
            let mut cluster = TokioIo::new(cluster.await.unwrap());
            let mut heard = Vec::new();
            cluster.read_to_end(&mut heard).await.unwrap();
            heard.reverse();
            cluster.write_all(&heard).await.unwrap();
            cluster.shutdown().await.unwrap();
        })
        .await;
        let (counted, mut counts) = mpsc::channel(1);
        let between = switch(move |page| {
            let counted = counted.clone();
            async move {
                let cluster = upgraded_client(cluster).await;
                counted.send(pass_through(page, cluster).await.unwrap()).await.unwrap();
            }
        })
        .await;
        let page = upgraded_client(between).await.await.unwrap();
        let (mut from_page, mut to_page) = tokio::io::split(TokioIo::new(page));
        let sent: Vec<u8> = (0..LENGTH).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let mut heard = Vec::new();
        let exchange = async {
            tokio::join!(
                async {
                    to_page.write_all(&sent).await.unwrap();
                    to_page.shutdown().await.unwrap();
                },
                async { from_page.read_to_end(&mut heard).await.unwrap() },
            )
        };
        timeout(DEADLINE, exchange).await.unwrap();
        heard.reverse();
        assert!(heard == sent);
        let length = u64::try_from(LENGTH).unwrap();
        assert_eq!(timeout(DEADLINE, counts.recv()).await.unwrap().unwrap(), (length, length));
    }
}
