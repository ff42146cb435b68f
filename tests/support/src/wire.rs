//! A TCP connection that fails when it is told to: it is reset, or does nothing any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// What it should.
    Open,
    /// Nothing is read or written, and nothing is closed: the other side hears no more.
    Silent,
    /// It is reset.
    Reset,
    /// It is gone.
    Closed,
}

/// The end of a connection; [`WireControl`] decides what it does.
pub(crate) struct Wire {
    stream: TcpStream,
    control: Arc<WireControl>,
}

/// Decides what a [`Wire`] does.
pub(crate) struct WireControl {
    state: watch::Sender<State>,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl WireControl {
    pub(crate) fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(state), reader: AtomicWaker::new(), writer: AtomicWaker::new() })
    }

    /// From now on it does this. What was reset or is gone stays so.
    pub(crate) fn set(&self, state: State) {
        let goes_on = |now: State| matches!(now, State::Open | State::Silent);
        self.state.send_if_modified(|now| goes_on(*now) && std::mem::replace(now, state) != state);
        self.reader.wake();
        self.writer.wake();
    }

    /// Waits until it is reset.
    pub(crate) async fn reset(&self) {
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Reset | State::Closed)).await;
    }

    /// Waits until it is gone.
    pub(crate) async fn closed(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state == State::Closed).await;
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, control: &Arc<WireControl>) -> Self {
        Self { stream, control: Arc::clone(control) }
    }

    /// Ready if bytes may flow.
    fn poll_open(&self, waker: &AtomicWaker, context: &Context<'_>) -> Poll<io::Result<()>> {
        waker.register(context.waker());
        match *self.control.state.borrow() {
            State::Open => Poll::Ready(Ok(())),
            State::Silent => Poll::Pending,
            State::Reset | State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Without lingering, the close that follows sends a reset.
        if self.control.state.send_replace(State::Closed) == State::Reset {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(&self.control.reader, context))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(&self.control.writer, context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(&self.control.writer, context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(&self.control.writer, context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
