//! Connections: TLS, HTTP/2 or HTTP/1.1, one task each.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Answered};
use super::{Asked, Shared, api};
use crate::server::{self, lock};
use crate::wire::{State, Wire, WireControl};

/// One connection.
pub(crate) struct Connection {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) control: Arc<WireControl>,
    /// Asks it to end when what is under way is done.
    pub(crate) leave: Notify,
    certificate: Option<Vec<u8>>,
    http2: bool,
}

/// All that are open.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    counted: usize,
    /// New ones are not answered.
    silent: bool,
    controls: HashMap<usize, Arc<WireControl>>,
    served: HashMap<usize, Arc<Connection>>,
}

impl Connections {
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).counted
    }

    pub(crate) fn open(&self) -> usize {
        lock(&self.0).controls.len()
    }

    /// All that are open do this from now on.
    pub(crate) fn set(&self, state: State) {
        lock(&self.0).controls.values().for_each(|control| control.set(state));
    }

    /// So do those to come.
    pub(crate) fn set_for_good(&self, state: State) {
        lock(&self.0).silent = state == State::Silent;
        self.set(state);
    }

    pub(crate) fn leave(&self) {
        lock(&self.0).served.values().for_each(|connection| connection.leave.notify_one());
    }

    fn begin(&self) -> (usize, Arc<WireControl>) {
        let mut open = lock(&self.0);
        open.counted += 1;
        let control = WireControl::new(if open.silent { State::Silent } else { State::Open });
        let number = open.counted;
        open.controls.insert(number, Arc::clone(&control));
        (number, control)
    }

    fn served(&self, connection: &Arc<Connection>) {
        lock(&self.0).served.insert(connection.number, Arc::clone(connection));
    }

    fn end(&self, number: usize) {
        let mut open = lock(&self.0);
        open.served.remove(&number);
        open.controls.remove(&number);
    }
}

/// Accepts until the task is dropped.
pub(crate) async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let (number, control) = shared.connections.begin();
            tokio::select! {
                // A peer that is gone, or speaks no TLS, ends its connection and nothing else.
                _ = serve(stream, number, &control, &tls, &shared) => {}
                () = control.reset() => {}
            }
            // A websocket goes on without us.
            control.closed().await;
            shared.connections.end(number);
        });
    }
}

async fn serve(
    stream: TcpStream,
    number: usize,
    control: &Arc<WireControl>,
    tls: &TlsAcceptor,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(Wire::new(stream, control)).await?;
    let session = stream.get_ref().1;
    let certificate =
        session.peer_certificates().and_then(|chain| chain.first()).map(|certificate| certificate.to_vec());
    let http2 = session.alpn_protocol() == Some(b"h2");
    let connection =
        Arc::new(Connection { number, control: Arc::clone(control), leave: Notify::new(), certificate, http2 });
    shared.connections.served(&connection);
    let service = {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
        service_fn(move |request| answer(request, Arc::clone(&connection), Arc::clone(&shared)))
    };
    let io = TokioIo::new(stream);
    if http2 {
        let mut serving = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                // As API servers have it.
                .max_concurrent_streams(STREAMS)
                .initial_stream_window_size(WINDOW)
                .serve_connection(io, service)
        );
        loop {
            tokio::select! {
                // The word first: an answer that is ready by then says so too.
                biased;
                () = connection.leave.notified() => serving.as_mut().graceful_shutdown(),
                result = &mut serving => return result.map_err(io::Error::other),
            }
        }
    }
    let mut serving =
        pin!(http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).with_upgrades());
    loop {
        tokio::select! {
            // The word first: an answer that is ready by then says so too.
            biased;
            () = connection.leave.notified() => serving.as_mut().graceful_shutdown(),
            result = &mut serving => return result.map_err(io::Error::other),
        }
    }
}

async fn answer(request: Request<Incoming>, connection: Arc<Connection>, shared: Arc<Shared>) -> Answered {
    let panics = shared.panics.clone();
    let answered = panics.caught(answer_or_fail(request, connection, shared)).await;
    answered.unwrap_or_else(|| Err(io::ErrorKind::ConnectionAborted.into()))
}

async fn answer_or_fail(request: Request<Incoming>, connection: Arc<Connection>, shared: Arc<Shared>) -> Answered {
    let Some(request) = below(shared.path, request) else { return Ok(answer::no_such_path()) };
    let noted = noted(&request);
    let anonymous = lock(&shared.behaviour).anonymous;
    let asking = shared.access.asking(&noted, connection.certificate.as_deref(), anonymous);
    let asked = Asked {
        user: asking.as_ref().ok().map(|asking| asking.user.clone()),
        signed_in: asking.as_ref().ok().map(|asking| asking.signed_in.clone()),
        http2: connection.http2,
        connection: connection.number,
        request: noted,
    };
    let fault = shared.faults.next(&asked);
    lock(&shared.requests).push(asked.clone());
    let usual = |request| async {
        match asking {
            Ok(asking) => api::answer(request, asked, asking.user, &connection, shared).await,
            Err(refusal) => *refusal,
        }
    };
    fault.play(request, &connection, usual).await
}

/// The request without what comes before every path.
fn below(path: &str, mut request: Request<Incoming>) -> Option<Request<Incoming>> {
    let mut parts = request.uri().clone().into_parts();
    let rest = parts.path_and_query?.as_str().strip_prefix(path)?.parse().ok()?;
    parts.path_and_query = Some(rest);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}

fn noted(request: &Request<Incoming>) -> server::Request {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: Vec<(String, String)> =
        request.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    // HTTP/2 has it elsewhere.
    if let (Some(authority), false) = (request.uri().authority(), request.headers().contains_key(header::HOST)) {
        headers.push(("host".to_owned(), authority.to_string()));
    }
    let query = request.uri().query().unwrap_or_default();
    server::Request {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers,
        body: Vec::new(),
    }
}

/// Counts watches for as long as they live.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.watches.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::SeqCst);
    }
}

const STREAMS: u32 = 100;
/// Bytes.
const WINDOW: u32 = 256 * 1024;
