//! What goes wrong with a request instead of, or after, its usual answer.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use serde_json::json;
use tokio::time::{Sleep, sleep};

use super::Asked;
use super::answer::{self, Answered, Body};
use super::serve::Connection;
use crate::pattern::{PatternCheck, pattern_body};
use crate::script::Gate;
use crate::server::{self, lock};
use crate::wire::State;

/// What happens to one request.
#[derive(Clone, Debug)]
pub struct Fault {
    what: What,
    delay: Duration,
    gate: Option<Gate>,
    after: Option<(u64, Then)>,
    drip: Option<(usize, Duration)>,
}

#[derive(Clone, Debug)]
enum What {
    Usual,
    Answer(server::Response),
    Pattern(Option<u64>),
    Check(usize, Duration),
    Never,
    Close,
    Reset,
    Silence,
    GoAway,
}

/// What happens after so many bytes of an answer's body.
#[derive(Clone, Copy, Debug)]
enum Then {
    Stall,
    Break,
    Reset,
    Silence,
}

impl Fault {
    /// No fault: the usual answer. With what the other methods add, a bad one.
    pub fn none() -> Self {
        Self::of(What::Usual)
    }

    /// This answer.
    pub fn answer(response: server::Response) -> Self {
        Self::of(What::Answer(response))
    }

    /// A `Status` with this code, as an API server says it.
    pub fn status(code: u16) -> Self {
        let (reason, message) = answer::reason(code);
        Self::answer(server::Response::json(code, &answer::status(code, reason, message, None)))
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(seconds: u32) -> Self {
        let status = answer::status(429, "TooManyRequests", "too many requests, please try again later", None);
        Self::answer(server::Response::json(429, &status).header("Retry-After", &seconds.to_string()))
    }

    /// So many bytes of [`crate::pattern()`]; `None`: for ever. Nothing is held in memory.
    pub fn bytes(length: Option<u64>) -> Self {
        Self::of(What::Pattern(length))
    }

    /// The request's body is read in pieces with a pause after each, and compared with [`crate::pattern()`]:
    /// the answer is JSON with `length` and `wrongAt`, which is `null` if all was right.
    pub fn check_body(piece: usize, pause: Duration) -> Self {
        Self::of(What::Check(piece, pause))
    }

    /// There is no answer, ever.
    pub fn never() -> Self {
        Self::of(What::Never)
    }

    /// The connection (with HTTP/2: the stream) is closed without an answer.
    pub fn close() -> Self {
        Self::of(What::Close)
    }

    /// The connection is reset, with all that is on it.
    pub fn reset() -> Self {
        Self::of(What::Reset)
    }

    /// The connection does nothing any more, and is not closed.
    pub fn silence() -> Self {
        Self::of(What::Silence)
    }

    /// The usual answer, and GOAWAY: what is under way on the connection is finished and nothing
    /// else begun. With HTTP/1.1: `Connection: close`.
    pub fn go_away() -> Self {
        Self::of(What::GoAway)
    }

    /// The same, so much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, once the gate is open.
    #[must_use]
    pub fn held_by(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// The same, but nothing comes after so many bytes of the body.
    #[must_use]
    pub fn stalled_after(self, bytes: u64) -> Self {
        Self { after: Some((bytes, Then::Stall)), ..self }
    }

    /// The same, but after so many bytes of the body the stream is broken off: with HTTP/2 by
    /// `RST_STREAM`, with HTTP/1.1 by closing the connection in the middle of a chunk.
    #[must_use]
    pub fn broken_after(self, bytes: u64) -> Self {
        Self { after: Some((bytes, Then::Break)), ..self }
    }

    /// The same, but the connection is reset after so many bytes of the body.
    #[must_use]
    pub fn reset_after(self, bytes: u64) -> Self {
        Self { after: Some((bytes, Then::Reset)), ..self }
    }

    /// The same, but the connection does nothing any more after so many bytes of the body.
    #[must_use]
    pub fn silent_after(self, bytes: u64) -> Self {
        Self { after: Some((bytes, Then::Silence)), ..self }
    }

    /// The same in pieces of this size, with a pause before each.
    #[must_use]
    pub fn dripped(self, size: usize, pause: Duration) -> Self {
        Self { drip: Some((size.max(1), pause)), ..self }
    }

    fn of(what: What) -> Self {
        Self { what, delay: Duration::ZERO, gate: None, after: None, drip: None }
    }

    pub(crate) async fn play<F>(
        self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        usual: impl FnOnce(Request<Incoming>) -> F,
    ) -> Answered
    where
        F: Future<Output = Response<Body>>,
    {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        let mut response = match self.what {
            What::Usual => usual(request).await,
            What::Answer(response) => answer::of(response),
            What::Pattern(length) => Response::new(pattern_body(length)),
            What::Check(piece, pause) => check(request, piece, pause).await,
            What::Never => pending().await,
            What::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
            What::Reset => {
                connection.control.set(State::Reset);
                pending().await
            }
            What::Silence => {
                connection.control.set(State::Silent);
                pending().await
            }
            What::GoAway => {
                connection.leave.notify_one();
                // The connection hears of it before there is an answer.
                tokio::task::yield_now().await;
                usual(request).await
            }
        };
        if let Some((left, then)) = self.after {
            let connection = Arc::clone(connection);
            response = response.map(|inner| Failing { inner, left, then, connection, pause: None }.boxed_unsync());
        }
        if let Some((size, pause)) = self.drip {
            response = response.map(|body| dripped(body, size, pause));
        }
        Ok(response)
    }
}

/// A body that fails after some bytes.
struct Failing {
    inner: Body,
    left: u64,
    then: Then,
    connection: Arc<Connection>,
    /// What came before has time to be sent.
    pause: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Failing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(SENT_WITHIN)));
            std::task::ready!(pause.as_mut().poll(context));
            match self.then {
                Then::Stall => {}
                Then::Break => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
                Then::Reset => self.connection.control.set(State::Reset),
                Then::Silence => self.connection.control.set(State::Silent),
            }
            return Poll::Pending;
        }
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

fn dripped(body: Body, size: usize, pause: Duration) -> Body {
    let pieces = unfold((body, Bytes::new()), move |(mut body, mut rest)| async move {
        while rest.is_empty() {
            match body.frame().await? {
                Ok(frame) => rest = frame.into_data().ok()?,
                Err(error) => return Some((Err(error), (body, rest))),
            }
        }
        sleep(pause).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(Frame::data(piece)), (body, rest)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn check(request: Request<Incoming>, piece: usize, pause: Duration) -> Response<Body> {
    let mut body = request.into_body();
    let mut seen = PatternCheck::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for part in data.chunks(piece.max(1)) {
            seen.take(part);
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }
    answer::json(200, &json!({"length": seen.length, "wrongAt": seen.wrong_at}))
}

const SENT_WITHIN: Duration = Duration::from_millis(20);

/// The faults that wait for their requests.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<Rule>>);

struct Rule {
    fits: Box<dyn Fn(&Asked) -> bool + Send + Sync>,
    left: usize,
    fault: Fault,
}

impl Faults {
    pub(crate) fn add(&self, times: usize, fault: Fault, fits: impl Fn(&Asked) -> bool + Send + Sync + 'static) {
        lock(&self.0).push(Rule { fits: Box::new(fits), left: times, fault });
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(crate) fn next(&self, asked: &Asked) -> Fault {
        let mut rules = lock(&self.0);
        let Some(index) = rules.iter().position(|rule| (rule.fits)(asked)) else { return Fault::none() };
        let rule = &mut rules[index];
        rule.left = rule.left.saturating_sub(1);
        let fault = rule.fault.clone();
        if rule.left == 0 {
            rules.remove(index);
        }
        fault
    }
}
