//! HTTP/1.1 on loopback sockets for one browser, within limits: slow heads, endless heads and idle
//! connections by the hundred cost the one browser nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::http2_pool::Body;
use crate::peer::{Owners, Peer};

/// What one client may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At once; with one more, a stranger's oldest ends, or else the oldest.
    pub(crate) connections: usize,
    /// Until a request's head is complete, from the connection's start or from the answer before it.
    pub(crate) head_time: Duration,
    /// Bytes of a request's head. Browsers send the cookies of every other program on `localhost` along.
    pub(crate) longest_head: usize,
}

impl Limits {
    pub(crate) const NORMAL: Self =
        Self { connections: 128, head_time: Duration::from_secs(30), longest_head: 64 * 1024 };
}

/// A connection, as its requests see it.
pub(crate) struct Caller {
    ours: SocketAddr,
    theirs: SocketAddr,
    peer: OnceCell<Peer>,
    known: AtomicBool,
}

impl Caller {
    /// Who is at the other end; looked up once.
    pub(crate) async fn peer(&self, owners: &Owners) -> Peer {
        *self.peer.get_or_init(async || owners.peer(self.ours, self.theirs).await).await
    }

    /// It has proved to be the browser's: it outlives strangers' connections.
    pub(crate) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

/// A connection, which ends when this is dropped.
struct Connection {
    task: JoinHandle<()>,
    caller: Arc<Caller>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers requests for ever. Dropped, it stops to listen and ends every connection; those that
/// were upgraded belong to whoever took them over.
pub(crate) async fn serve<H, F>(listeners: Vec<TcpListener>, limits: Limits, handler: H)
where
    H: Fn(Arc<Caller>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections: VecDeque<Connection> = VecDeque::new();
    loop {
        let accepted = accept(&listeners).await.and_then(|(stream, theirs)| {
            // An answer's last packet is not held back.
            stream.set_nodelay(true)?;
            Ok((stream.local_addr()?, theirs, stream))
        });
        connections.retain(|connection| !connection.task.is_finished());
        match accepted {
            Ok((ours, theirs, stream)) => {
                if connections.len() >= limits.connections {
                    drop_oldest(&mut connections, 1);
                }
                let caller = Arc::new(Caller { ours, theirs, peer: OnceCell::new(), known: AtomicBool::new(false) });
                let task = tokio::spawn(converse(stream, limits, Arc::clone(&caller), handler.clone()));
                connections.push_back(Connection { task, caller });
            }
            Err(error) if of_the_connection(&error) => {}
            // Most likely no descriptor is left.
            Err(_) => {
                let half = connections.len().div_ceil(2);
                drop_oldest(&mut connections, half);
                sleep(PAUSE).await;
            }
        }
        // A connection gets to say who it is before others can push it out.
        yield_now().await;
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let ready = listeners.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
        ready.unwrap_or(Poll::Pending)
    })
    .await
}

/// Whether it was gone before it was taken.
fn of_the_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

/// Strangers' first.
fn drop_oldest(connections: &mut VecDeque<Connection>, count: usize) {
    for _ in 0..count {
        let stranger = connections.iter().position(|connection| !connection.caller.known.load(Ordering::Relaxed));
        drop(connections.remove(stranger.unwrap_or_default()));
    }
}

/// Requests one after the other. Errors are the peer's: it gets what hyper answers, or a closed
/// connection.
async fn converse<H, F>(stream: TcpStream, limits: Limits, caller: Arc<Caller>, handler: H)
where
    H: Fn(Arc<Caller>, Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(|request| {
        let answer = handler(Arc::clone(&caller), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.longest_head)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// After an error that says that the system is short of something.
const PAUSE: Duration = Duration::from_millis(50);
