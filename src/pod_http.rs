//! HTTP to Headlamp's pod, for the files of its page: `GET` alone, with no credential, no cookie
//! and no header of the browser's.
//!
//! To dial costs four round trips, so a few connections are kept and used again. Whatever breaks
//! is repeated once on a fresh one, for what is asked changes nothing there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::api_connection::empty;
use crate::error::{Error, Kind, Result};
use crate::http2_pool::{Body, TiedExecutor};
use crate::kubeconfig::ClusterEntry;
use crate::port_forward::PodStream;
use crate::tls;
use crate::ui_file;

/// Opens a byte stream to the pod's port.
pub(crate) type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<PodStream>> + Send + Sync>;

/// Connections at once: a browser's six, and those of what is fetched ahead.
pub(crate) const MOST_CONNECTIONS: usize = 6 + AHEAD;
/// Files that nobody has asked for yet, at once: what the browser waits for comes first.
pub(crate) const AHEAD: usize = 4;

/// How long what may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Until a connection stands, TLS included.
    pub(crate) connect: Duration,
    /// Until an answer begins.
    pub(crate) head: Duration,
    /// Between two pieces of an answer.
    pub(crate) progress: Duration,
    /// For an answer as a whole, however slowly it comes.
    pub(crate) whole: Duration,
    /// Headlamp closes a connection that has been idle for 120 s.
    pub(crate) idle: Duration,
    /// And one that has never been used after 10 s.
    pub(crate) unused: Duration,
}

pub(crate) const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    head: Duration::from_secs(15),
    progress: Duration::from_secs(20),
    whole: Duration::from_secs(300),
    idle: Duration::from_secs(60),
    unused: Duration::from_secs(8),
};

/// An answer that has come whole.
#[derive(Debug)]
pub(crate) struct PodAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone)]
pub(crate) struct PodHttp(Arc<Shared>);

struct Shared {
    connect: Connect,
    tls: Option<TlsConnector>,
    limits: Limits,
    /// One for each connection that is in use or being dialed.
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    /// Ends the connections that were made so far.
    ended: Mutex<CancellationToken>,
}

struct Idle {
    sender: SendRequest<Body>,
    until: Instant,
}

impl PodHttp {
    /// With `tls` the pod speaks HTTPS. Its certificate is not looked at: it is rarely for
    /// `localhost`, and it is the API server that vouches for whose port the stream leads to.
    pub(crate) fn new(connect: Connect, tls: bool, limits: Limits) -> Result<Self> {
        let tls = if tls { Some(unverified()?) } else { None };
        Ok(Self(Arc::new(Shared {
            connect,
            tls,
            limits,
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            idle: Mutex::default(),
            ended: Mutex::default(),
        })))
    }

    /// Asks for a path, base included; `since` is for `If-Modified-Since`.
    pub(crate) async fn get(&self, path: &str, since: Option<&str>) -> Result<PodAnswer> {
        let _place = self.0.place().await?;
        let request = || request(path, since);
        if let Some(sender) = self.0.take_idle() {
            match self.exchange(sender, request()?).await {
                Ok(answer) => return Ok(answer),
                // What killed this one has killed the others.
                Err(_) => self.0.idle().clear(),
            }
        }
        match self.exchange(self.0.dial().await?, request()?).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == Kind::Unreachable => self.exchange(self.0.dial().await?, request()?).await,
            Err(error) => Err(error),
        }
    }

    /// Opens this many connections, for requests that are about to come.
    pub(crate) fn warm(&self, count: usize) {
        for _ in 0..count {
            let Ok(place) = self.0.places.clone().try_acquire_owned() else { return };
            let this = self.clone();
            tokio::spawn(async move {
                // Whoever asks for something says what is wrong.
                if let Ok(sender) = this.0.dial().await {
                    this.keep(sender, this.0.limits.unused);
                }
                drop(place);
            });
        }
    }

    /// Ends every connection. What is being asked is asked again.
    pub(crate) fn reset(&self) {
        self.0.idle().clear();
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ended).cancel();
    }

    async fn exchange(&self, mut sender: SendRequest<Body>, request: Request<Body>) -> Result<PodAnswer> {
        let limits = self.0.limits;
        let sending = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answer = timeout(limits.head, sending)
            .await
            .map_err(|_| no_answer().cause(format!("nothing came within {} s", limits.head.as_secs())))?
            .map_err(|error| no_answer().caused_by(&error))?;
        let (head, body) = answer.into_parts();
        let body = timeout(limits.whole, collected(body, limits.progress))
            .await
            .unwrap_or_else(|_| Err(no_answer().cause(format!("it took more than {} s", limits.whole.as_secs()))))?;
        self.keep(sender, limits.idle);
        Ok(PodAnswer { status: head.status, headers: head.headers, body })
    }

    /// Until it has been idle for so long.
    fn keep(&self, sender: SendRequest<Body>, limit: Duration) {
        self.0.idle().push(Idle { sender, until: Instant::now() + limit });
        let pool = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            sleep(limit).await;
            if let Some(pool) = pool.upgrade() {
                pool.idle().retain(|one| one.until > Instant::now());
            }
        });
    }
}

impl Shared {
    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.places.acquire().await.map_err(|error| Error::bug("no connection can be made any more").caused_by(&error))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last.
    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        while let Some(one) = idle.pop() {
            if !one.sender.is_closed() && one.until > Instant::now() {
                return Some(one.sender);
            }
        }
        None
    }

    async fn dial(&self) -> Result<SendRequest<Body>> {
        let limit = self.limits.connect;
        let late = || no_connection().cause(format!("none stood within {} s", limit.as_secs()));
        timeout(limit, self.dial_without_limit()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn dial_without_limit(&self) -> Result<SendRequest<Body>> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = (self.connect)().await?;
        let tied = TiedExecutor(ended);
        let failed = |error: hyper::Error| no_connection().caused_by(&error);
        // The connection's own end is told to whoever has a request on it.
        let Some(tls) = &self.tls else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            tied.execute(async move { drop(connection.await) });
            return Ok(sender);
        };
        let stream = tls.connect(name()?, stream).await.map_err(|error| no_connection().caused_by(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tied.execute(async move { drop(connection.await) });
        Ok(sender)
    }
}

fn unverified() -> Result<TlsConnector> {
    let anyone = ClusterEntry { insecure_skip_tls_verify: true, ..ClusterEntry::default() };
    let mut config = tls::configuration(&anyone, None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn name() -> Result<ServerName<'static>> {
    ServerName::try_from(HOST).map_err(|error| Error::bug("a host name that is none").caused_by(&error))
}

const HOST: &str = "localhost";

fn request(path: &str, since: Option<&str>) -> Result<Request<Body>> {
    let request = Request::get(path)
        .header(header::HOST, HOST)
        .header(header::ACCEPT, "*/*")
        .header(header::ACCEPT_ENCODING, "br")
        .header(header::USER_AGENT, "kubectl-headlamp");
    let request = since.into_iter().fold(request, |request, since| request.header(header::IF_MODIFIED_SINCE, since));
    request
        .body(empty())
        .map_err(|error| Error::new(Kind::Other, format!("`{path}` cannot be asked for")).caused_by(&error))
}

async fn collected(mut body: hyper::body::Incoming, limit: Duration) -> Result<Bytes> {
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(limit, body.frame())
            .await
            .map_err(|_| broken().cause(format!("nothing more came within {} s", limit.as_secs())))?;
        let Some(frame) = frame else { return Ok(Bytes::from(bytes)) };
        if let Ok(data) = frame.map_err(|error| broken().caused_by(&error))?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ui_file::LARGEST {
            let message = format!("a file of Headlamp's page has more than {} bytes", ui_file::LARGEST);
            return Err(Error::new(Kind::Other, message));
        }
    }
}

fn no_connection() -> Error {
    Error::unreachable("no connection to Headlamp's pod can be made")
}

fn no_answer() -> Error {
    Error::unreachable("Headlamp's pod does not answer")
}

fn broken() -> Error {
    Error::unreachable("an answer of Headlamp's pod broke off")
}
