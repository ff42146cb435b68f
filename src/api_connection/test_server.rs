//! An API server for tests: real sockets, TLS with a CA of its own, HTTP/2 or not, and a count of what
//! came in on which connection.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::kubeconfig::{CertificateAuthority, ClusterEntry};
use crate::secret::Secret;
use crate::tls::ClientIdentity;

/// A certificate authority, for servers and clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// PEM of a certificate for these names, and of its key.
    pub(crate) fn pair(&self, names: &[&str], common_name: &str) -> (String, String) {
        let (certificate, key) = self.issue(names, common_name);
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self, name: &str) -> ClientIdentity {
        let (certificate, key) = self.pair(&[], name);
        ClientIdentity::from_pem(certificate.as_bytes(), &Secret::new(key)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// TLS for a server of these names, with a client certificate asked for and not insisted on.
    pub(crate) fn acceptor(&self, names: &[&str], protocols: &[&str]) -> TlsAcceptor {
        let (certificate, key) = self.issue(names, "server");
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A cluster entry that trusts this authority.
    pub(crate) fn cluster(&self, server: String) -> ClusterEntry {
        let pem = STANDARD.encode(self.0.pem());
        let certificate_authority = Some(CertificateAuthority::Data(pem));
        ClusterEntry { name: "test".into(), server, certificate_authority, ..ClusterEntry::default() }
    }

    fn issue(&self, names: &[&str], common_name: &str) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// TCP connections with TLS.
    pub(crate) connections: AtomicUsize,
    /// The most watches at once on any connection.
    pub(crate) most_watches: AtomicUsize,
    /// All watches that are open now.
    pub(crate) watches: AtomicUsize,
    pub(crate) requests: Mutex<Vec<(String, HeaderMap)>>,
    /// Whether a client certificate was shown, by connection.
    pub(crate) certificates: Mutex<Vec<bool>>,
    /// No connection does anything any more.
    pub(crate) silent: Notify,
}

impl Seen {
    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    pub(crate) fn last_headers(&self) -> HeaderMap {
        self.requests.lock().unwrap().last().unwrap().1.clone()
    }
}

/// Waits for a condition, for at most 60 s.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is there at once when something has been closed, but for a program that another test starts
/// just then: until it runs, it has copies of all that was open here.
pub(crate) fn at_once<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not at once: {what}");
        std::thread::yield_now();
    }
}

/// Starts a server on a loopback port; `protocols` are those of ALPN. Its port, and what it sees.
pub(crate) async fn start(acceptor: TlsAcceptor) -> (u16, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let all = seen.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), all.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let shown = tls.get_ref().1.peer_certificates().is_some();
                seen.certificates.lock().unwrap().push(shown);
                let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(tls, http2, seen).await;
            });
        }
    });
    (port, seen)
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http2: bool, seen: Arc<Seen>) {
    let own = Arc::new(AtomicUsize::new(0));
    let silent = seen.clone();
    let service = service_fn(move |request| answer(request, seen.clone(), own.clone()));
    let io = TokioIo::new(stream);
    if http2 {
        let connection =
            http2::Builder::new(TokioExecutor::new()).max_concurrent_streams(100).serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = &mut connection => {}
            () = silent.silent.notified() => std::future::pending().await,
        }
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(mut request: Request<Incoming>, seen: Arc<Seen>, own: Arc<AtomicUsize>) -> Result<Answer, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let mut headers = request.headers().clone();
    if let Some(authority) = request.uri().authority() {
        headers.insert(header::HOST, authority.as_str().parse().unwrap());
    }
    seen.requests.lock().unwrap().push((path.clone(), headers));
    let full = |text: &str| Full::new(Bytes::from(text.to_owned())).boxed_unsync();
    if path.contains("never") {
        return std::future::pending().await;
    }
    if path.contains("watch") {
        return Ok(Response::new(Watch::new(seen, own).boxed_unsync()));
    }
    if path.contains("upgrade") {
        tokio::spawn(async move {
            let mut echo = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = echo.read(&mut bytes).await {
                echo.write_all(bytes.get(..count).unwrap()).await.unwrap();
            }
        });
        let answer = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        return Ok(answer.body(full("")).unwrap());
    }
    if path.contains("large") {
        return Ok(Response::new(full(&"x".repeat(16 << 20))));
    }
    if path.contains("upload") {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        return Ok(Response::new(full(&format!("{} bytes", body.len()))));
    }
    Ok(Response::new(full("ok")))
}

/// A body that sends one line and then nothing, for as long as anybody listens.
struct Watch {
    line: Option<Bytes>,
    seen: Arc<Seen>,
    own: Arc<AtomicUsize>,
}

impl Watch {
    fn new(seen: Arc<Seen>, own: Arc<AtomicUsize>) -> Self {
        let now = own.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_watches.fetch_max(now, Ordering::SeqCst);
        seen.watches.fetch_add(1, Ordering::SeqCst);
        Self { line: Some(Bytes::from_static(b"{}\n")), seen, own }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.own.fetch_sub(1, Ordering::SeqCst);
        self.seen.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Watch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.line.take() {
            Some(line) => Poll::Ready(Some(Ok(Frame::data(line)))),
            None => Poll::Pending,
        }
    }
}
