//! The bytes of one port of a pod, out of the websocket that an API server carries them in
//! (`v4.channel.k8s.io`: the first byte of a message is its channel, 0 for data, 1 for an error; the
//! first message on each repeats the port).
//!
//! kube has a reader of its own for this. There a websocket that is cut reads like a clean end, and
//! what was on its way is dropped; nothing asks whether the other end is still there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How often the other end is asked whether it is there; it has until the next time to say anything.
/// Balancers forget connections after a minute and more of silence.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// Bytes of a message to the pod; servers take far more.
const LARGEST_MESSAGE: usize = 64 * 1024;

const DATA: u8 = 0;
const ERROR: u8 = 1;

/// What a stream is the first to know of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The first bytes have come from it.
    Alive,
    /// The node's own words on why it hands on no bytes, or no more.
    Failed(String),
    /// The way to it was cut, or is silent.
    Cut,
}

/// Told the news. Of what went wrong it makes the error that the stream ends with.
pub(crate) trait Listener: Send + Unpin {
    fn hear(&mut self, news: News) -> Option<io::Error>;
}

/// Reads and writes one port. It has no half-close, because the protocol has none: after
/// `shutdown` it can still be read. Dropping it ends the websocket.
pub(crate) struct PodBytes<S, L> {
    socket: WebSocketStream<S>,
    listener: L,
    /// Read, and not asked for yet.
    pending: Bytes,
    greeted: [bool; 2],
    alive: bool,
    end: Option<End>,
    ping: Interval,
    /// Nothing has come since the last ping.
    silent: bool,
    /// Woken when writing finds out that it is over.
    reader: Option<Waker>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Broken,
}

impl<S: AsyncRead + AsyncWrite + Unpin, L: Listener> PodBytes<S, L> {
    /// The stream breaks when `cancel` is cancelled.
    pub(crate) fn new(
        socket: WebSocketStream<S>,
        listener: L,
        ping_every: Duration,
        cancel: CancellationToken,
    ) -> Self {
        let mut ping = interval_at(Instant::now() + ping_every, ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            listener,
            pending: Bytes::new(),
            greeted: [false; 2],
            alive: false,
            end: None,
            ping,
            silent: false,
            reader: None,
            cancelled: Box::pin(cancel.cancelled_owned()),
        }
    }

    /// Waits for the first bytes or the end, whichever comes first. The pod's node says within
    /// moments if it cannot reach the port; that it can, it does not say.
    pub(crate) async fn first_word(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_pending(context)).await
    }

    /// Ready when there are bytes to be read, or a clean end.
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.pending.is_empty() || self.end == Some(End::Clean) {
                return Poll::Ready(Ok(()));
            }
            self.check(context)?;
            let message = match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(message) => message,
                Poll::Pending => {
                    ready!(self.poll_ping(context))?;
                    continue;
                }
            };
            self.silent = false;
            match message {
                Some(Ok(Message::Binary(bytes))) => self.take(bytes)?,
                Some(Ok(Message::Close(_))) => self.end = Some(End::Clean),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(self.broken(News::Cut))),
            }
        }
    }

    /// Ready when a ping is on its way; the socket is to be asked again then.
    fn poll_ping(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.ping.poll_tick(context));
        if self.silent {
            return Poll::Ready(Err(self.broken(News::Cut)));
        }
        self.silent = true;
        let mut socket = Pin::new(&mut self.socket);
        let sent = socket.as_mut().start_send(Message::Ping(Bytes::new()));
        // What the socket does not take at once goes with the next flush.
        let sent = sent.and_then(|()| match socket.poll_flush(context) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        });
        Poll::Ready(sent.map_err(|_| self.broken(News::Cut)))
    }

    fn take(&mut self, mut bytes: Bytes) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let channel = bytes.split_to(1).first().copied().unwrap_or_default();
        let Some(greeted) = self.greeted.get_mut(usize::from(channel)) else {
            return Err(self.broken(News::Cut));
        };
        if !std::mem::replace(greeted, true) {
            return Ok(());
        }
        match channel {
            DATA if !bytes.is_empty() => {
                if !std::mem::replace(&mut self.alive, true) {
                    self.listener.hear(News::Alive);
                }
                self.pending = bytes;
                Ok(())
            }
            ERROR => Err(self.broken(News::Failed(String::from_utf8_lossy(&bytes).into_owned()))),
            _ => Ok(()),
        }
    }

    /// Why nothing more can be read or written, if so.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.end == Some(End::Broken) || self.cancelled.as_mut().poll(context).is_ready() {
            self.give_up();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn broken(&mut self, news: News) -> io::Error {
        self.give_up();
        self.listener.hear(news).unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    fn give_up(&mut self) {
        self.end = Some(End::Broken);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Nothing can be written any more. What the node had to say of it may have come already.
    fn unwritable(&mut self, context: &mut Context<'_>) -> io::Error {
        match self.poll_pending(context) {
            Poll::Ready(Err(error)) => error,
            _ => self.broken(News::Cut),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, L: Listener> AsyncRead for PodBytes<S, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_pending(context)?.is_pending() {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = self.pending.len().min(buffer.remaining());
        buffer.put_slice(&self.pending.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, L: Listener> AsyncWrite for PodBytes<S, L> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        if self.end == Some(End::Clean) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let ready = ready!(Pin::new(&mut self.socket).poll_ready(context));
        let length = bytes.len().min(LARGEST_MESSAGE);
        let mut message = Vec::with_capacity(length + 1);
        message.push(DATA);
        message.extend(bytes.iter().take(length));
        let sent = ready.and_then(|()| Pin::new(&mut self.socket).start_send(Message::binary(message)));
        Poll::Ready(match sent {
            Ok(()) => Ok(length),
            Err(_) => Err(self.unwritable(context)),
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.end == Some(End::Clean) {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(context));
        Poll::Ready(flushed.map_err(|_| self.unwritable(context)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests;
