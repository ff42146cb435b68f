//! What an API server's answers become on their way to the page.
//!
//! Headlamp's page takes a 401 or a 503 for a sign-in that is missing, goes to its own sign-in page
//! and stays there; a 502 it shows, and gets over. So a server that says 503, and whatever keeps it
//! from being asked, is a 502 with a Kubernetes `Status` that says why.
//!
//! A small answer is held back until it is whole, so that it can be had again if its connection
//! breaks. Everything else passes as it comes: nothing is kept, and a page that does not read is
//! not read for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::api_connection::full;
use crate::dialer::BoxError;
use crate::error::{Error, printable};
use crate::gateway_headers::from_api;
use crate::http2_pool::{AnswerBody, Body};

/// Bytes of a body that is kept as a whole.
pub(crate) const SMALL: usize = 64 * 1024;
/// Headlamp's page loads itself anew when an answer to one of its scripts has this; its server does so
/// when plugins changed.
pub(crate) const RELOAD: HeaderName = HeaderName::from_static("x-reload");
/// For the words of a refusal.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer of our own, as an API server would put it.
pub(crate) fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let state = if code.is_success() { "Success" } else { "Failure" };
    json(
        code,
        &serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": state,
            "message": message,
            "reason": reason,
            "code": code.as_u16(),
        }),
    )
}

pub(crate) fn json(code: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(full(value.to_string()));
    *answer.status_mut() = code;
    *answer.headers_mut() = from_api(&HeaderMap::new());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The cluster could not be asked. `first` is what helps before the error's own hints.
pub(crate) fn unanswered(error: &Error, first: Option<&str>) -> Response<Body> {
    let mut message = error.message().to_owned();
    for cause in error.causes() {
        message = format!("{message}: {cause}");
    }
    for hint in first.into_iter().chain(error.hints().iter().map(String::as_str)) {
        message = format!("{message}; {hint}");
    }
    status(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &message)
}

/// The server's own 503, in its own words.
async fn unavailable(answer: Response<Passing>) -> Response<Body> {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let after = answer.headers().get(header::RETRY_AFTER).cloned();
    let body = timeout(PATIENCE, Limited::new(answer.into_body(), SMALL).collect()).await;
    let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    let words = match serde_json::from_slice::<Status>(&body) {
        Ok(status) if !status.message.is_empty() => printable(&status.message),
        _ => "it is not ready".to_owned(),
    };
    let message = format!("the API server answered 503: {words}");
    let mut answer = status(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &message);
    if let Some(after) = after {
        answer.headers_mut().insert(header::RETRY_AFTER, after);
    }
    answer
}

/// The body of an answer: what has been held back, and what is still to come.
pub(crate) struct Passing {
    held: Bytes,
    rest: Option<AnswerBody>,
}

impl From<AnswerBody> for Passing {
    fn from(rest: AnswerBody) -> Self {
        Self { held: Bytes::new(), rest: Some(rest) }
    }
}

/// Holds an answer back until it is whole, if it is small. One that does not say how long it is may
/// be a stream: it is given `patience` to end, and goes on its way; one that does is given more. An
/// error: it broke off, and the page knows nothing of it yet.
pub(crate) async fn hold_back(
    answer: Response<AnswerBody>,
    patience: Duration,
) -> Result<Response<Passing>, hyper::Error> {
    let (parts, mut body) = answer.into_parts();
    let length = body.size_hint().exact();
    let large = length.is_some_and(|length| length > SMALL as u64);
    let mut held = Vec::new();
    let mut late = std::pin::pin!(sleep(if length.is_none() { patience } else { patience.saturating_mul(20) }));
    while !large && !body.is_end_stream() && held.len() <= SMALL {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut late => break,
        };
        match frame {
            Some(frame) => held.extend_from_slice(&frame?.into_data().unwrap_or_default()),
            None => return Ok(Response::from_parts(parts, Passing { held: held.into(), rest: None })),
        }
    }
    Ok(Response::from_parts(parts, Passing { held: held.into(), rest: Some(body) }))
}

/// The answer as the page gets it. It breaks off when `ended` says so; `kept` is dropped with it.
pub(crate) async fn passed_on<T: Send + Unpin + 'static>(
    answer: Response<Passing>,
    ended: CancellationToken,
    kept: T,
) -> Response<Body> {
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        return unavailable(answer).await;
    }
    let (head, passing) = answer.into_parts();
    let body = Tied { passing, ended: Box::pin(ended.cancelled_owned()), _kept: kept };
    let mut passed = Response::new(body.boxed_unsync());
    *passed.status_mut() = head.status;
    *passed.headers_mut() = from_api(&head.headers);
    passed
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.held.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.held)))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(held.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(held.saturating_add(upper));
        }
        hint
    }
}

/// A body that breaks off when the session ends.
struct Tied<T> {
    passing: Passing,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _kept: T,
}

impl<T: Unpin> HttpBody for Tied<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err("the session has ended".into())));
        }
        Pin::new(&mut self.passing).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.passing.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.passing.size_hint()
    }
}
