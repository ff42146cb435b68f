//! A port of this machine that is Headlamp's own, bytes for bytes: for Headlamp's own sign-in, whose
//! redirect leads to this port. Each connection gets a stream of its own to whichever pod is there.
//!
//! Nothing is read or changed, so a browser talks to Headlamp itself: where Headlamp's port speaks
//! TLS, its address is `https://localhost:…`, with Headlamp's certificate.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::loopback::{self, Bound};
use crate::peer::Owners;
use crate::pod_http::Connect;
use crate::port_forward::{PodStream, of_stream};
use crate::port_holder::PortHolder;

/// What goes on.
#[derive(Default)]
pub(crate) struct Traffic {
    connections: AtomicU64,
    live: AtomicUsize,
    trouble: watch::Sender<Option<Error>>,
}

impl Traffic {
    /// Of browsers, since the start.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Those that are open now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Why a connection did not get to the pod, until the pod answers on one again.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<Error>> {
        self.trouble.subscribe()
    }

    /// A browser opens several connections at once, and tries again: their failure is one piece of news.
    fn failed(&self, error: Error) {
        self.trouble.send_if_modified(|trouble| trouble.replace(error).is_none());
    }

    fn answered(&self) {
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    fn begin(self: &Arc<Self>) -> Live {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Live(self.clone())
    }
}

/// A connection, as long as it is there.
struct Live(Arc<Traffic>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections at a time; further ones wait.
const MOST: usize = 256;
/// After one side has ended, the other one has this long to end too: browsers do not half-close.
const GOODBYE: Duration = Duration::from_secs(5);
/// Before the next try, when the system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes at a time.
const CHUNK: usize = 64 * 1024;

/// Listens on this port, on both families: a browser that goes to `localhost` takes either.
pub(crate) async fn listen(port: u16) -> Result<Vec<TcpListener>> {
    match loopback::bind(port).await {
        Bound::Listening(listeners) => Ok(listeners),
        Bound::Taken => {
            let error = Error::settings(format!("port {port} of this machine is taken"));
            Err(match PortHolder::of(port) {
                Some(holder) => error
                    .cause(format!("`{}` (process {}) listens there", holder.name, holder.pid))
                    .hint(format!("end it, then repeat your command: `kill {}`", holder.pid)),
                None => error.hint("end the program that listens there, then repeat your command"),
            })
        }
        Bound::Failed(error) => {
            Err(Error::settings(format!("cannot listen on port {port} of this machine")).caused_by(&error))
        }
    }
}

/// Serves until it is dropped, and with it every connection ends. Who is none of the owners gets
/// nothing.
pub(crate) async fn serve(
    listeners: Vec<TcpListener>,
    connect: Connect,
    owners: Owners,
    traffic: Arc<Traffic>,
) -> Infallible {
    let places = Arc::new(Semaphore::new(MOST));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let (places, connect) = (places.clone(), connect.clone());
        let (owners, traffic) = (owners.clone(), traffic.clone());
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok(place) = places.clone().acquire_owned().await else { continue };
                // A connection that is gone before it is taken is no reason to stop.
                let Ok((browser, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                let (connect, owners, traffic) = (connect.clone(), owners.clone(), traffic.clone());
                connections.spawn(async move {
                    if is_ours(&browser, owners).await {
                        let _live = traffic.begin();
                        if let Err(error) = forward(browser, connect().await, &traffic).await {
                            traffic.failed(error);
                        }
                    }
                    drop(place);
                });
            }
        });
    }
    loop {
        accepting.join_next().await;
        sleep(PAUSE).await;
    }
}

async fn is_ours(browser: &TcpStream, owners: Owners) -> bool {
    let (Ok(ours), Ok(theirs)) = (browser.local_addr(), browser.peer_addr()) else { return false };
    owners.peer(ours, theirs).await.may_come()
}

/// Copies both ways. An error before the pod has answered is told to the browser.
async fn forward(mut browser: TcpStream, pod: Result<PodStream>, traffic: &Traffic) -> Result<()> {
    let _ = browser.set_nodelay(true);
    let mut answered = false;
    let error = match pod {
        Ok(pod) => match copy(&mut browser, pod, &mut answered, traffic).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if !answered {
        let _ = timeout(GOODBYE, explain(&mut browser, &error)).await;
    }
    Err(error)
}

/// Until both sides have ended, or one has and the other does not follow.
async fn copy(browser: &mut TcpStream, pod: PodStream, answered: &mut bool, traffic: &Traffic) -> Result<()> {
    let (mut from_browser, mut to_browser) = browser.split();
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    // What the browser's side meets with is not the pod's fault, and nobody's news.
    let up = async {
        match pass(&mut from_browser, &mut to_pod, || ()).await {
            Passed::End | Passed::Unreadable(_) => {
                let _ = to_pod.shutdown().await;
                Ok(())
            }
            Passed::Unwritable(error) => Err(error),
        }
    };
    let down = async {
        let from_pod = pass(&mut from_pod, &mut to_browser, || {
            *answered = true;
            traffic.answered();
        });
        match from_pod.await {
            Passed::End => {
                let _ = to_browser.shutdown().await;
                Ok(())
            }
            Passed::Unwritable(_) => Ok(()),
            Passed::Unreadable(error) => Err(error),
        }
    };
    tokio::pin!(up, down);
    let ended = tokio::select! {
        ended = &mut down => match ended {
            Ok(()) => timeout(GOODBYE, up).await.map(|_| ()).or(Ok(())),
            Err(error) => Err(error),
        },
        ended = &mut up => match (ended, timeout(GOODBYE, down).await) {
            // The pod may have said why.
            (Err(_) | Ok(()), Ok(Err(error))) | (Err(error), _) => Err(error),
            (Ok(()), _) => Ok(()),
        },
    };
    ended.map_err(|error| {
        let unnamed = || Error::unreachable("the connection to Headlamp's pod broke off").caused_by(&error);
        of_stream(&error).cloned().unwrap_or_else(unnamed)
    })
}

enum Passed {
    End,
    Unreadable(io::Error),
    Unwritable(io::Error),
}

/// `came` is called with each piece, before it is handed on.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut came: impl FnMut(),
) -> Passed {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) => return Passed::End,
            Ok(length) => length,
            Err(error) => return Passed::Unreadable(error),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        came();
        let written = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return Passed::Unwritable(error);
        }
    }
}

/// Whatever the browser asked for. It is read to its end first, since a connection that is closed
/// on unread bytes may take the answer with it.
async fn explain(browser: &mut TcpStream, error: &Error) -> io::Result<()> {
    let text = format!("{error}\n");
    let head = format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    browser.write_all(head.as_bytes()).await?;
    browser.write_all(text.as_bytes()).await?;
    browser.shutdown().await?;
    tokio::io::copy(browser, &mut tokio::io::sink()).await.map(|_| ())
}

#[cfg(test)]
mod tests;
