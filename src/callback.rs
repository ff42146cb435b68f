//! The loopback listener that waits for one sign-in's answer (RFC 8252 §7.3), and answers the
//! browser once the answer has been used.
//!
//! The browser is told to start at an address of ours, so that the provider's, with this sign-in's
//! `state`, stands in no argument list. It comes back with a code, waits while that is exchanged, and
//! is then sent on to a page of its own: its history keeps the page's address and not the code's.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use url::Url;

pub(crate) use crate::authorization_response::{CallbackRefusal, Pasted, parse_pasted};
pub(crate) use crate::callback_page::Page;

use crate::authorization_response::AuthorizationResponse;
use crate::callback_page;
use crate::callback_request::{self, Action, Rejection, Routes};
use crate::error::{Error, Result};
use crate::loopback::{self, Bound, is_loopback};
use crate::port_holder::PortHolder;
use crate::secret::Secret;
use crate::settings::{CallbackPlace, CallbackSettings};

/// What came of the places that the settings name.
pub(crate) enum Bind {
    Listening(Listener),
    /// Every place is taken.
    Taken(Vec<Taken>),
}

/// A port that another program listens on.
pub(crate) struct Taken {
    pub(crate) port: u16,
    pub(crate) by: Option<PortHolder>,
}

/// Listens on the first place that is free.
pub(crate) async fn bind(settings: &CallbackSettings) -> Result<Bind> {
    let tls = settings.tls.as_ref().map(|(certificate, key)| tls(certificate, key)).transpose()?;
    let mut taken = Vec::new();
    let mut failed = None;
    for place in &settings.places {
        match loopback::bind(place.port).await {
            Bound::Listening(sockets) => return Listener::new(place, sockets, tls).map(Bind::Listening),
            Bound::Taken => taken.push(Taken { port: place.port, by: PortHolder::of(place.port) }),
            Bound::Failed(error) => failed = failed.or(Some((place.port, error))),
        }
    }
    match failed {
        Some((port, error)) if taken.is_empty() => Err(Error::settings(format!("cannot listen on port {port} of this machine"))
            .caused_by(&error)
            .hint("register another redirect with the provider and name it, such as `--redirect-url http://localhost:18000/oidc-callback`")),
        _ => Ok(Bind::Taken(taken)),
    }
}

fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let cannot = |what: &str, file: &Path| {
        Error::settings(format!("the callback's {what} cannot be used: `{}`", file.display()))
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| cannot("certificate", certificate).caused_by(&error))?;
    if chain.is_empty() {
        return Err(cannot("certificate", certificate).cause("the file holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot("key", key).caused_by(&error))?;
    let configuration = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            cannot("key", key).caused_by(&error).hint("check that `--callback-key` belongs to `--callback-certificate`")
        })?;
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}

/// Waits for one sign-in's answer. The ports are free again when it, and what it returned, is dropped.
pub(crate) struct Listener {
    sockets: Cell<Vec<TcpListener>>,
    tls: Option<TlsAcceptor>,
    redirect: String,
    /// Scheme, host and port at which a browser finds us.
    origin: String,
    hosts: Vec<String>,
    callback: String,
    start: Secret,
    done: Secret,
}

impl Listener {
    fn new(place: &CallbackPlace, sockets: Vec<TcpListener>, tls: Option<TlsAcceptor>) -> Result<Self> {
        let address = sockets.first().map(TcpListener::local_addr).transpose().ok().flatten();
        let port = address.map_or(place.port, |address| address.port());
        let redirect = if place.port == 0 { with_port(&place.redirect, port) } else { place.redirect.clone() };
        let url = Url::parse(&redirect)
            .map_err(|error| Error::settings(format!("the redirect is not a URL: `{redirect}`")).caused_by(&error))?;
        // A redirect of another machine leads here by some forwarding that may know the one path only.
        let origin = if is_loopback(&url) {
            url.origin().ascii_serialization()
        } else {
            format!("{}://localhost:{port}", if tls.is_some() { "https" } else { "http" })
        };
        Ok(Self {
            sockets: Cell::new(sockets),
            tls,
            origin,
            hosts: hosts(&url, port),
            callback: url.path().to_owned(),
            start: Secret::new(format!("/start/{}", random()?)),
            done: Secret::new(format!("/done/{}", random()?)),
            redirect,
        })
    }

    /// The redirect, as it is to be sent to the provider in both legs.
    pub(crate) fn redirect(&self) -> &str {
        &self.redirect
    }

    /// Where the browser is to begin. Served while [`Listener::answer`] waits.
    pub(crate) fn start_url(&self) -> Secret {
        Secret::new(format!("{}{}", self.origin, self.start.expose()))
    }

    /// Sends browsers on to `provider_url`, and waits for the answer that has this `state`. Whatever
    /// else comes is turned away. One sign-in has one answer: this can be called once.
    pub(crate) async fn answer(&self, provider_url: &Secret, state: &Secret) -> Result<Answer> {
        let routes = Routes {
            hosts: self.hosts.clone(),
            callback: self.callback.clone(),
            start: self.start.clone(),
            done: self.done.clone(),
            state: state.clone(),
        };
        let sign_in = Arc::new(SignIn {
            routes,
            provider_url: provider_url.clone(),
            accepted: watch::Sender::new(None),
            end: watch::Sender::new(None),
            shown: Notify::new(),
        });
        let mut accepted = sign_in.accepted.subscribe();
        let mut tasks = JoinSet::new();
        for socket in self.sockets.take() {
            tasks.spawn(accept(socket, self.tls.clone(), Arc::clone(&sign_in)));
        }
        let response = tokio::select! {
            response = accepted.wait_for(Option::is_some) => response.ok().and_then(|response| response.clone()),
            _ = tasks.join_next() => None,
        };
        let Some(AuthorizationResponse { result, issuer }) = response else {
            return Err(Error::bug("the callback listener ended before the sign-in"));
        };
        Ok(Answer { result, issuer, reply: Reply { sign_in, tasks } })
    }
}

/// The provider's answer, and the browser that brought it and waits.
pub(crate) struct Answer {
    pub(crate) result: std::result::Result<Secret, CallbackRefusal>,
    pub(crate) issuer: Option<String>,
    pub(crate) reply: Reply,
}

/// A browser that waits to be told how the sign-in ended. Dropped untold, its connection is closed.
pub(crate) struct Reply {
    sign_in: Arc<SignIn>,
    /// Serves until this is dropped.
    tasks: JoinSet<()>,
}

impl Reply {
    /// Shows how it ended. Returns when the browser has it, or has gone, or takes too long: kubectl
    /// waits for us.
    pub(crate) async fn show(self, page: &Page) {
        let Self { sign_in, tasks } = self;
        if sign_in.end.receiver_count() > 0 {
            sign_in.end.send_replace(Some(End::of(page)));
            let _ = timeout(SHOWN_WITHIN, sign_in.shown.notified()).await;
        }
        drop(tasks);
    }
}

/// What all connections of one sign-in share.
struct SignIn {
    routes: Routes,
    provider_url: Secret,
    accepted: watch::Sender<Option<AuthorizationResponse>>,
    end: watch::Sender<Option<End>>,
    /// The browser has received the last that it is sent.
    shown: Notify,
}

/// What the waiting browser is sent.
enum End {
    Page(Response<Full<Bytes>>),
    Elsewhere(Url),
}

impl End {
    fn of(page: &Page) -> Self {
        match page {
            Page::Success { open_next: Some(url), .. } => Self::Elsewhere(url.clone()),
            page => Self::Page(callback_page::respond(page.status(), page.html())),
        }
    }
}

/// How far a connection has come. Its task and its request share it.
#[derive(Default)]
struct Progress {
    /// It has brought the answer and waits for the end.
    waits: AtomicBool,
    /// It carries the last that the browser is sent.
    last: AtomicBool,
}

/// A connection, which ends when this is dropped.
struct Connection {
    task: JoinHandle<()>,
    progress: Arc<Progress>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes connections for ever. With too many at once, the oldest goes that has not brought the
/// answer: a browser's is young when it speaks.
async fn accept(socket: TcpListener, tls: Option<TlsAcceptor>, sign_in: Arc<SignIn>) {
    let mut connections: VecDeque<Connection> = VecDeque::new();
    loop {
        let accepted = socket.accept().await;
        connections.retain(|connection| !connection.task.is_finished());
        match accepted {
            Ok((stream, _)) => {
                if connections.len() >= MOST_CONNECTIONS {
                    drop_oldest(&mut connections, 1);
                }
                let progress = Arc::<Progress>::default();
                let task = tokio::spawn(limited(stream, tls.clone(), Arc::clone(&sign_in), Arc::clone(&progress)));
                connections.push_back(Connection { task, progress });
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            // Most likely no descriptor is left.
            Err(_) => {
                let half = connections.len().div_ceil(2);
                drop_oldest(&mut connections, half);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn drop_oldest(connections: &mut VecDeque<Connection>, mut count: usize) {
    connections.retain(|connection| {
        let goes = count > 0 && !connection.progress.waits.load(Ordering::Relaxed);
        count -= usize::from(goes);
        !goes
    });
}

/// One connection within its time. Only the one that waits for the end may last longer.
async fn limited(stream: TcpStream, tls: Option<TlsAcceptor>, sign_in: Arc<SignIn>, progress: Arc<Progress>) {
    let served = async {
        match tls {
            None => serve(stream, &sign_in, &progress).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, &sign_in, &progress).await;
                }
            }
        }
    };
    tokio::pin!(served);
    if timeout(CONNECTION_TIME, &mut served).await.is_err() && progress.waits.load(Ordering::Relaxed) {
        served.await;
    }
}

/// One request. Errors are the peer's: it gets what hyper answers, or a closed connection.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, sign_in: &Arc<SignIn>, progress: &Arc<Progress>) {
    let service = service_fn(|request: Request<Incoming>| async {
        let (head, body) = request.into_parts();
        Ok::<_, Infallible>(respond(&head, body, sign_in, progress).await.unwrap_or_else(callback_page::reject))
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // The connection is over when the response has been handed to the system and our side is closed.
    if progress.last.load(Ordering::Relaxed) {
        sign_in.shown.notify_one();
    }
}

async fn respond(
    head: &Parts,
    body: Incoming,
    sign_in: &SignIn,
    progress: &Progress,
) -> Result<Response<Full<Bytes>>, Rejection> {
    let routes = &sign_in.routes;
    let response = match callback_request::decide(head, routes)? {
        Action::Start => return Ok(callback_page::redirect(sign_in.provider_url.expose())),
        Action::Done => return done(sign_in, progress),
        Action::Accept(response) => response,
        Action::ReadForm => callback_request::form(&read_form(head, body).await?, routes)?,
    };
    end_of(response, sign_in, progress).await
}

/// Hands the first answer on, and waits for what comes of it. A browser that repeats the very same
/// request (a reload, a broken connection) waits for the same.
async fn end_of(
    response: AuthorizationResponse,
    sign_in: &SignIn,
    progress: &Progress,
) -> Result<Response<Full<Bytes>>, Rejection> {
    let mut end = sign_in.end.subscribe();
    let first = |accepted: &mut Option<_>| accepted.is_none() && accepted.replace(response.clone()).is_none();
    if !sign_in.accepted.send_if_modified(first) && sign_in.accepted.borrow().as_ref() != Some(&response) {
        return Err(Rejection::AlreadyAnswered);
    }
    progress.waits.store(true, Ordering::Relaxed);
    let end = end.wait_for(Option::is_some).await.map_err(|_| Rejection::AlreadyAnswered)?;
    let location = match end.as_ref() {
        Some(End::Elsewhere(url)) => {
            progress.last.store(true, Ordering::Relaxed);
            url.as_str()
        }
        _ => sign_in.routes.done.expose(),
    };
    Ok(callback_page::redirect(location))
}

fn done(sign_in: &SignIn, progress: &Progress) -> Result<Response<Full<Bytes>>, Rejection> {
    let end = sign_in.end.borrow();
    let Some(End::Page(page)) = end.as_ref() else { return Err(Rejection::NotFound) };
    progress.last.store(true, Ordering::Relaxed);
    Ok(page.clone())
}

async fn read_form(head: &Parts, body: Incoming) -> Result<Bytes, Rejection> {
    let told = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > LONGEST_FORM) {
        return Err(Rejection::FormTooLong);
    }
    let read = Limited::new(body, LONGEST_FORM).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|_| Rejection::FormTooLong)
}

/// Every `Host` that a browser may send. The redirect's own port is another than ours where a
/// container or SSH forwards one to the other.
fn hosts(redirect: &Url, port: u16) -> Vec<String> {
    let default = if redirect.scheme() == "https" { 443 } else { 80 };
    let ports = [port, redirect.port().unwrap_or(default)];
    let names = ["localhost", "127.0.0.1", "[::1]", redirect.host_str().unwrap_or("localhost")];
    let with_ports =
        |name: &str| ports.map(|port| if port == default { name.to_owned() } else { format!("{name}:{port}") });
    names.iter().flat_map(|name| with_ports(name)).collect()
}

/// The redirect with this port and otherwise character for character.
fn with_port(redirect: &str, port: u16) -> String {
    let Some((scheme, rest)) = redirect.split_once("://") else { return redirect.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = match authority.rsplit_once(':') {
        Some((host, digits)) if digits.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    };
    format!("{scheme}://{host}:{port}{path}")
}

/// 128 random bits.
fn random() -> Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)
        .map_err(|error| Error::bug("the system gives no random numbers").caused_by(&io::Error::from(error)))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bits))
}

/// At once, for each family.
const MOST_CONNECTIONS: usize = 64;
/// From a connection's start until it is closed.
const CONNECTION_TIME: Duration = Duration::from_secs(15);
/// Until a request's head is complete.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Bytes of a request's head. Browsers send the cookies of every other program on `localhost` along.
const LONGEST_HEAD: usize = 32 * 1024;
const LONGEST_FORM: usize = 64 * 1024;
/// After an error that says that the system is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a browser may take to show how the sign-in ended.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
