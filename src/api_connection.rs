//! The connections to one API server, and the only place where a credential is put on a request.
//!
//! Requests go over HTTP/2 where the server offers it; watches too, on connections of their own;
//! upgrades over HTTP/1.1. The connections of a client certificate are used by no other.

use std::error::Error as Cause;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Bytes};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustls::CertificateError;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api_proxy::Proxy;
use crate::dialer::{BoxError, CONNECT_LIMIT, Dialer, Way};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::http2_pool::{AnswerBody, Body, Habits, Http2Pool, Sent, TiedExecutor};
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::Impersonation;
use crate::loopback::is_loopback;
use crate::secret::Secret;
use crate::tls::{self, ClientIdentity};

/// Whom a request comes from. The empty one is anonymous. No `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Credential {
    pub(crate) bearer: Option<Secret>,
    /// User name and password, where there is no bearer.
    pub(crate) basic: Option<(String, Secret)>,
    pub(crate) certificate: Option<ClientIdentity>,
    /// When it ends, as far as is known.
    pub(crate) expires: Option<Timestamp>,
    /// Something that is equal as long as it is the same person or program; `None`: not known.
    pub(crate) subject: Option<String>,
    /// Counts up with each renewal.
    pub(crate) serial: u64,
}

impl Credential {
    /// A token of which nothing more is known.
    pub(crate) fn bearer(token: Secret) -> Self {
        Self { bearer: Some(token), ..Self::default() }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.bearer.is_none() && self.basic.is_none() && self.certificate.is_none()
    }

    /// Whether the cluster is shown the same thing.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let certificates = match (&self.certificate, &other.certificate) {
            (None, None) => true,
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        };
        certificates && self.bearer == other.bearer && self.basic == other.basic
    }
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// One API server. Nothing is opened before the first request. Its parts share the connections.
#[derive(Clone)]
pub(crate) struct ApiConnection(Arc<Shared>);

struct Shared {
    cluster: ClusterEntry,
    limits: Limits,
    server: Server,
    proxy: Option<Proxy>,
    lines: Mutex<Option<Arc<Lines>>>,
}

/// How long a server may keep silent.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Before a connection stands, TLS included.
    connect: Duration,
    /// Before an answer begins, once all of the request is on its way.
    answer: Duration,
    /// The same for an upgrade.
    upgrade: Duration,
    /// The same for what is sent again after a silence.
    again: Duration,
    /// On HTTP/2 connections before it is asked whether it is there, and then before it says so.
    ping: (Duration, Duration),
}

impl Limits {
    const NORMAL: Self = Self {
        connect: CONNECT_LIMIT,
        // Headlamp's page gives up then too; API servers do after half of it.
        answer: Duration::from_secs(120),
        // A browser opens one websocket to a host at a time.
        upgrade: Duration::from_secs(30),
        again: Duration::from_secs(10),
        ping: (Duration::from_secs(10), Duration::from_secs(10)),
    };
}

/// What goes before the path of each request.
struct Server {
    scheme: Scheme,
    authority: Authority,
    /// Of a server behind another one's path (Rancher); without a slash at its end.
    prefix: String,
}

/// All connections, for one client certificate or none.
struct Lines {
    certificate: Option<ClientIdentity>,
    requests: Http2Pool,
    watches: Http2Pool,
    http1: Client<Dialer, Body>,
    http1_only: AtomicBool,
    ended: CancellationToken,
}

/// Which of the connections a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Requests,
    Watches,
    Http1,
}

impl ApiConnection {
    /// Checks the cluster entry; files are read when the first connection is made.
    pub(crate) fn new(cluster: &ClusterEntry, environment: &Environment) -> Result<Self> {
        Self::within(Limits::NORMAL, cluster, environment)
    }

    fn within(limits: Limits, cluster: &ClusterEntry, environment: &Environment) -> Result<Self> {
        let url = server(cluster)?;
        let proxy = Proxy::on_the_way_to(&url, cluster.proxy_url.as_deref(), environment)?;
        tls::server_name(cluster)?;
        Ok(Self(Arc::new(Shared {
            cluster: cluster.clone(),
            limits,
            server: Server::of(&url).map_err(|error| wrong_server(cluster).caused_by(&error))?,
            proxy,
            lines: Mutex::default(),
        })))
    }

    /// The answer's head, whatever its status. `request` has the path and query alone for an
    /// address. A `GET` without a body whose connection breaks before the answer is repeated once; if
    /// the server does not answer then either, that is known half a minute after it fell silent.
    pub(crate) async fn send(
        &self,
        credential: &Credential,
        impersonation: &Impersonation,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>> {
        self.exchange(Line::Requests, credential, impersonation, request).await
    }

    /// The same for an answer that goes on for long, such as a watch: it stands in nobody's way.
    pub(crate) async fn stream(
        &self,
        credential: &Credential,
        impersonation: &Impersonation,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>> {
        self.exchange(Line::Watches, credential, impersonation, request).await
    }

    /// The same over HTTP/1.1, never repeated: a `101` can be taken over with `hyper::upgrade::on`.
    pub(crate) async fn upgrade(
        &self,
        credential: &Credential,
        impersonation: &Impersonation,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>> {
        self.exchange(Line::Http1, credential, impersonation, request).await
    }

    /// Ends every connection and all that is under way on them, except for upgraded ones. For after
    /// a sleep: the other end has forgotten them.
    pub(crate) fn reset(&self) {
        if let Some(lines) = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).take() {
            lines.ended.cancel();
        }
    }

    async fn exchange(
        &self,
        line: Line,
        credential: &Credential,
        impersonation: &Impersonation,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>> {
        let request = self.0.dressed(credential, impersonation, request)?;
        let again = Some(&request).filter(|request| line != Line::Http1 && repeatable(request)).map(copy);
        let Limits { answer, upgrade, again: after_silence, .. } = self.0.limits;
        let limit = if line == Line::Http1 { upgrade } else { answer };
        // How long a large body takes, nobody can say; where it stalls, the connection ends.
        let limit = Some(limit).filter(|_| request.body().size_hint().exact().is_some_and(|length| length <= SMALL));
        let began = Instant::now();
        let error = match in_time(limit, Box::pin(self.0.lines(credential)?.send(line, request))).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(again) = again.filter(|_| passes(error.as_ref())) else { return Err(self.failed(error.as_ref())) };
        let limit = if began.elapsed() < after_silence / 2 { answer } else { after_silence };
        tokio::time::sleep(pause()).await;
        let sent = in_time(Some(limit), Box::pin(self.0.lines(credential)?.send(line, again))).await;
        sent.map_err(|error| self.failed(error.as_ref()))
    }

    pub(crate) fn cluster(&self) -> &ClusterEntry {
        &self.0.cluster
    }

    /// Why the cluster could not be asked, with what can be done about it.
    pub(crate) fn failed(&self, error: &(dyn Cause + 'static)) -> Error {
        failed(&self.0.cluster, error)
    }
}

impl Shared {
    /// The connections of this certificate. Those of another one go on as long as they are used.
    fn lines(&self, credential: &Credential) -> Result<Arc<Lines>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |lines: &&Arc<Lines>| match (&lines.certificate, &credential.certificate) {
            (None, None) => true,
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        };
        if let Some(lines) = lines.as_ref().filter(same) {
            return Ok(lines.clone());
        }
        let new = Arc::new(self.new_lines(credential.certificate.as_ref())?);
        *lines = Some(new.clone());
        Ok(new)
    }

    fn new_lines(&self, certificate: Option<&ClientIdentity>) -> Result<Lines> {
        let tls = tls::configuration(&self.cluster, certificate)?;
        let name = tls::server_name(&self.cluster)?;
        let offering = |protocols: &[&str]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            tls
        };
        // The proxy is trusted by the same rules as the server, as for kubectl, but told nothing of
        // who we are.
        let mut proxy_tls = tls::configuration(&self.cluster, None)?;
        proxy_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let way = Way::new(self.proxy.as_ref(), proxy_tls);
        let ended = CancellationToken::new();
        let Limits { connect, ping: (ping_after, ping_limit), .. } = self.limits;
        let either = Dialer::new(offering(&["h2", "http/1.1"]), name.clone(), way.clone(), connect);
        let pool = |stream_window| {
            let habits = Habits { stream_window, ping_after, ping_limit };
            Http2Pool::new(either.clone(), self.server.root(), habits, ended.clone())
        };
        Ok(Lines {
            certificate: certificate.cloned(),
            requests: pool(REQUEST_WINDOW),
            watches: pool(WATCH_WINDOW),
            http1: Client::builder(TiedExecutor(ended.clone()))
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_LIMIT)
                .pool_max_idle_per_host(MOST_IDLE)
                .build(Dialer::new(offering(&["http/1.1"]), name, way, connect)),
            http1_only: AtomicBool::new(self.server.scheme == Scheme::HTTP),
            ended,
        })
    }

    /// The request with the server's address and with this credential, and no other.
    fn dressed(
        &self,
        credential: &Credential,
        impersonation: &Impersonation,
        mut request: Request<Body>,
    ) -> Result<Request<Body>> {
        *request.uri_mut() = self.server.address(request.uri())?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        let foreign: Vec<HeaderName> = headers.keys().filter(|name| says_who(name)).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
        if let Some(authorization) = authorization(credential)? {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        impersonate(headers, impersonation)?;
        Ok(request)
    }
}

impl Lines {
    async fn send(&self, line: Line, mut request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let pool = match line {
            Line::Requests => Some(&self.requests),
            Line::Watches => Some(&self.watches),
            Line::Http1 => None,
        };
        if let Some(pool) = pool.filter(|_| !self.http1_only.load(Ordering::Relaxed)) {
            match pool.send(request).await? {
                Sent::Answered(answer) => return Ok(answer),
                Sent::Http1(unsent) => {
                    self.http1_only.store(true, Ordering::Relaxed);
                    request = unsent;
                }
            }
        }
        Ok(self.http1.request(request).await?.map(AnswerBody::from))
    }
}

/// What comes in within 50 ms at 80 MB/s.
const REQUEST_WINDOW: u32 = 4 << 20;
/// There are many watches, and they are small.
const WATCH_WINDOW: u32 = 1 << 20;
/// Bytes of a body that is on its way at once.
const SMALL: u64 = 64 * 1024;
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const MOST_IDLE: usize = 8;

impl Server {
    fn of(url: &Url) -> Result<Self, http::Error> {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            scheme: url.scheme().parse()?,
            authority: format!("{}{port}", url.host_str().unwrap_or_default()).parse()?,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }

    fn address(&self, request: &Uri) -> Result<Uri> {
        let path = request.path_and_query().map_or("/", PathAndQuery::as_str);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let address = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        let address = address.path_and_query(format!("{}{slash}{path}", self.prefix)).build();
        address.map_err(|error| Error::bug("cannot build an address at the cluster").caused_by(&error))
    }

    /// What is dialed.
    fn root(&self) -> Uri {
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        parts.path_and_query("/").build().unwrap_or_default()
    }
}

/// The server's address; without a scheme it is http, as for kubectl.
fn server(cluster: &ClusterEntry) -> Result<Url> {
    let server = &cluster.server;
    let text = if server.contains("://") { server.clone() } else { format!("http://{server}") };
    let wrong = || wrong_server(cluster);
    let url = Url::parse(&text).map_err(|error| wrong().caused_by(&error))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(wrong().cause("the credential would travel unencrypted").hint("write it with `https://`")),
        _ => Err(wrong().hint("write it with `https://`")),
    }
}

fn wrong_server(cluster: &ClusterEntry) -> Error {
    Error::settings(format!("the cluster entry `{}` has no usable `server`: `{}`", cluster.name, cluster.server))
}

/// Header fields that only this module may set, and those that belong to another connection.
fn says_who(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("impersonate-") || ["authorization", "proxy-authorization", "cookie", "host"].contains(&name)
}

fn authorization(credential: &Credential) -> Result<Option<HeaderValue>> {
    let text = match (&credential.bearer, &credential.basic) {
        (Some(token), _) => format!("Bearer {}", token.expose().trim()),
        (None, Some((name, password))) => format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.expose()))),
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Error::new(Kind::Other, "the token cannot be sent: it has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The header fields of user impersonation, as client-go spells them.
fn impersonate(headers: &mut HeaderMap, impersonation: &Impersonation) -> Result<()> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| cannot_impersonate(text));
    if let Some(user) = &impersonation.user {
        headers.insert("impersonate-user", value(user)?);
    }
    if let Some(uid) = &impersonation.uid {
        headers.insert("impersonate-uid", value(uid)?);
    }
    for group in &impersonation.groups {
        headers.append("impersonate-group", value(group)?);
    }
    for (key, values) in &impersonation.extra {
        let name = format!("impersonate-extra-{}", percent_encode(key.to_lowercase().as_bytes(), EXTRA_KEY));
        let name: HeaderName = name.parse().map_err(|_| cannot_impersonate(key))?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

fn cannot_impersonate(text: &str) -> Error {
    Error::settings(format!("`{text}` cannot be impersonated: it has characters that no header field may have"))
}

/// Everything but what a field's name may hold (RFC 9110 §5.6.2); `%` is escaped too.
const EXTRA_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

fn repeatable(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream()
}

fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// The answer, unless there is none for so long. What sends it is boxed: it is large, and would stand
/// here twice.
async fn in_time(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<Response<AnswerBody>, BoxError>>,
) -> Result<Response<AnswerBody>, BoxError> {
    let Some(limit) = limit else { return answer.await };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late().into()))
}

/// Whether the next attempt may go better: not where nobody answered for long, nor for a
/// certificate that is not trusted.
fn passes(error: &(dyn Cause + 'static)) -> bool {
    chain(error).all(|error| {
        let late = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
        !late && !error.is::<rustls::Error>()
    })
}

/// Requests that failed together must not come back together.
fn pause() -> Duration {
    Duration::from_millis(50 + u64::from(getrandom::u32().unwrap_or_default() % 200))
}

/// The error and its causes. What an `io::Error` wraps is not its source, but its source's.
fn chain<'a>(error: &'a (dyn Cause + 'static)) -> impl Iterator<Item = &'a (dyn Cause + 'static)> {
    std::iter::successors(Some(error), |error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Cause + 'static)).or_else(|| (*error).source())
    })
}

/// hyper and others each wrap the cause in words of their own; the innermost says it.
fn failed(cluster: &ClusterEntry, error: &(dyn Cause + 'static)) -> Error {
    let innermost = chain(error).last().map(ToString::to_string).unwrap_or_default();
    let told = unreachable(cluster).cause(innermost);
    match chain(error).find_map(hint) {
        Some(hint) => told.hint(hint),
        None => told.hint("`kubectl cluster-info` shows whether kubectl can reach it"),
    }
}

pub(crate) fn unreachable(cluster: &ClusterEntry) -> Error {
    Error::unreachable(format!("cannot reach the cluster `{}`", cluster.server))
}

fn hint(error: &(dyn Cause + 'static)) -> Option<&'static str> {
    let text = error.to_string();
    match (error.downcast_ref::<rustls::Error>(), error.downcast_ref().map(io::Error::kind)) {
        (Some(rustls::Error::InvalidCertificate(certificate)), _) => Some(certificate_hint(certificate)),
        (Some(_), _) => Some("does the address of the cluster begin with `https:` where it should?"),
        (None, Some(io::ErrorKind::ConnectionRefused)) => Some("nothing listens there: is the cluster running?"),
        (None, Some(io::ErrorKind::TimedOut)) => Some(VPN_OR_PROXY),
        (None, _) if text.contains("dns error") => {
            Some("the name is unknown here: is a VPN needed to reach the cluster?")
        }
        (None, _) if text.contains("tunnel") || text.contains("SOCKS") => Some(
            "the proxy did not let the connection through: see the cluster's `proxy-url`, `HTTPS_PROXY` and `NO_PROXY`",
        ),
        _ => None,
    }
}

/// What helps where nobody answers.
pub(crate) const VPN_OR_PROXY: &str =
    "is a VPN or proxy needed to reach it? `HTTPS_PROXY` and the cluster's `proxy-url` are honoured";

fn certificate_hint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the API server's certificate is not from the CA in the kubeconfig's cluster entry: get a new kubeconfig if the cluster was made anew"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the API server's certificate has run out, or this machine's clock is wrong: `date` shows it"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "this machine's clock is wrong: `date` shows it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the API server's certificate is for another name: the cluster entry's `tls-server-name` can say which"
        }
        _ => {
            "`certificate-authority` in the kubeconfig's cluster entry must be the CA, not the server's own certificate"
        }
    }
}

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
