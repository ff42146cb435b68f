//! HTTP/2 connections to one server, as many as its limit on streams makes needed.
//!
//! API servers allow 100 streams on a connection and let a 101st wait: with 100 watches open on the
//! one connection that hyper-util's pool would keep, everything else stands still.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioTimer;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::dialer::{BoxError, Dialer};

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Streams on a connection.
const MOST_STREAMS: usize = 90;
/// How often a request moves on from a connection that closes before it is sent.
const ATTEMPTS: usize = 3;
/// Bytes of an answer's header fields; applications behind the API server's proxy send many.
const LARGEST_HEADER: u32 = 256 * 1024;

/// How connections behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How many bytes a reader may lag behind. A connection's own window leaves room for all of
    /// them, so that a reader that stops stalls only itself.
    pub(crate) stream_window: u32,
    /// After this long without a word the server is asked whether it is there, busy or not,
    pub(crate) ping_after: Duration,
    /// and has this long to answer; otherwise the connection is given up.
    pub(crate) ping_limit: Duration,
}

/// The connections.
pub(crate) struct Http2Pool {
    dialer: Dialer,
    server: Uri,
    habits: Habits,
    connections: Mutex<Connections>,
    ended: CancellationToken,
}

#[derive(Default)]
struct Connections {
    open: Vec<Connection>,
    /// The last time that none could be opened, for those who waited meanwhile.
    failure: Option<(Instant, SharedError)>,
}

struct Connection {
    sender: SendRequest<Body>,
    /// Held once here, and once by each stream.
    place: Place,
}

impl Connection {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.place.0) - 1
    }
}

/// A stream's place on its connection, free again when it is dropped.
#[derive(Clone)]
struct Place(Arc<()>);

/// What became of a request.
pub(crate) enum Sent {
    Answered(Response<AnswerBody>),
    /// Nothing: the server speaks HTTP/1.1 only.
    Http1(Request<Body>),
}

impl Http2Pool {
    /// `dialer` offers HTTP/2. The connections end, with all that is on them, when `ended` says so.
    pub(crate) fn new(dialer: Dialer, server: Uri, habits: Habits, ended: CancellationToken) -> Self {
        Self { dialer, server, habits, connections: Mutex::default(), ended }
    }

    /// The answer's head. A request that was not sent because its connection closed goes by another
    /// one, whatever its method.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<Sent, BoxError> {
        for _ in 0..ATTEMPTS {
            let Some((mut sender, place)) = self.place().await? else { return Ok(Sent::Http1(request)) };
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    return Ok(Sent::Answered(answer.map(|incoming| AnswerBody { incoming, _place: Some(place) })));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
            self.connections.lock().await.open.retain(|connection| !Arc::ptr_eq(&connection.place.0, &place.0));
        }
        Err("its connections close before anything can be sent".into())
    }

    /// A place on the fullest connection that has one, so that others can run empty; else on a new
    /// connection. Whoever waits for a connection that fails shares the failure; no wait is longer
    /// than the dialer's limit.
    async fn place(&self) -> Result<Option<(SendRequest<Body>, Place)>, BoxError> {
        let began = Instant::now();
        let mut connections = self.connections.lock().await;
        let mut spare = false;
        connections.open.retain(|connection| {
            let idle = connection.streams() == 0;
            if connection.sender.is_closed() || (idle && spare) {
                return false;
            }
            spare |= idle;
            true
        });
        let free = connections.open.iter().filter(|connection| connection.streams() < MOST_STREAMS);
        if let Some(connection) = free.max_by_key(|connection| connection.streams()) {
            return Ok(Some((connection.sender.clone(), connection.place.clone())));
        }
        if let Some((at, error)) = &connections.failure
            && *at >= began
        {
            return Err(error.clone().into());
        }
        match self.connect().await {
            Ok(Some(connection)) => {
                let taken = (connection.sender.clone(), connection.place.clone());
                connections.open.push(connection);
                Ok(Some(taken))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                let error = SharedError(error.into());
                connections.failure = Some((Instant::now(), error.clone()));
                Err(error.into())
            }
        }
    }

    async fn connect(&self) -> Result<Option<Connection>, BoxError> {
        let stream = self.dialer.clone().call(self.server.clone()).await?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(None);
        }
        let tied = TiedExecutor(self.ended.clone());
        let Habits { stream_window, ping_after, ping_limit } = self.habits;
        let connection_window = stream_window.saturating_mul(u32::try_from(MOST_STREAMS)? + 1).min(LARGEST_WINDOW);
        let (sender, connection) = http2::Builder::new(tied.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .max_header_list_size(LARGEST_HEADER)
            .keep_alive_interval(ping_after)
            .keep_alive_timeout(ping_limit)
            .keep_alive_while_idle(true)
            .handshake(stream)
            .await?;
        tied.execute(async move {
            // Whoever has a request on it is told by the request.
            let _ = connection.await;
        });
        Ok(Some(Connection { sender, place: Place(Arc::new(())) }))
    }
}

/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Runs tasks until they end, or the connections do.
#[derive(Clone)]
pub(crate) struct TiedExecutor(pub(crate) CancellationToken);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for TiedExecutor {
    fn execute(&self, task: F) {
        let ended = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = task => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

/// An answer's body. While it is there, its stream is counted.
pub(crate) struct AnswerBody {
    incoming: Incoming,
    _place: Option<Place>,
}

impl From<Incoming> for AnswerBody {
    fn from(incoming: Incoming) -> Self {
        Self { incoming, _place: None }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// An error for several who waited for the same thing.
#[derive(Clone, Debug)]
struct SharedError(Arc<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for SharedError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::sync::atomic::Ordering;

    use http_body_util::BodyExt;

    use super::*;
    use crate::api_connection::empty;
    use crate::api_connection::test_server::{Authority, start, until};
    use crate::dialer::{CONNECT_LIMIT, Way};
    use crate::tls;

    #[tokio::test]
    async fn a_server_that_falls_silent_is_given_up_and_dialed_anew() {
        let authority = Authority::new();
        let (port, seen) = start(authority.acceptor(&["localhost"], &["h2"])).await;
        let cluster = authority.cluster(String::new());
        let mut config = tls::configuration(&cluster, None).unwrap_or_else(|error| panic!("{error}"));
        let way = Way::new(None, config.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server: Uri = format!("https://localhost:{port}/").parse().unwrap();
        let short = Duration::from_millis(50);
        let habits = Habits { stream_window: 1 << 16, ping_after: short, ping_limit: Duration::from_millis(500) };
        let pool =
            Http2Pool::new(Dialer::new(config, None, way, CONNECT_LIMIT), server, habits, CancellationToken::new());
        let get = |path: &str| Request::get(format!("https://localhost:{port}{path}")).body(empty()).unwrap();
        let answer = async |request| match pool.send(request).await.unwrap() {
            Sent::Answered(answer) => answer.into_body(),
            Sent::Http1(_) => panic!("HTTP/1.1"),
        };
        let mut watch = answer(get("/watch")).await;
        assert!(watch.frame().await.unwrap().is_ok());
        assert!(tokio::time::timeout(4 * short, watch.frame()).await.is_err(), "an idle connection is kept");
        seen.silent.notify_waiters();
        let ended = tokio::time::timeout(Duration::from_secs(5), watch.frame()).await.unwrap();
        assert!(ended.unwrap().is_err());
        until("the connection is closed", || {
            pool.connections.try_lock().unwrap().open.iter().all(|one| one.sender.is_closed())
        })
        .await;
        assert_eq!(answer(get("/version")).await.collect().await.unwrap().to_bytes(), "ok");
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    }
}
