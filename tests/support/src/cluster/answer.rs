//! Answers as an API server words them.

use std::io;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::server;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer, or that there is none.
pub(crate) type Answered = io::Result<Response<Body>>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    of(server::Response::json(code, value).header("Cache-Control", "no-cache, private"))
}

pub(crate) fn text(code: u16, text: &str) -> Response<Body> {
    let mut response = server::Response::json(code, &Value::Null).body(text);
    response.headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
    of(response)
}

pub(crate) fn of(response: server::Response) -> Response<Body> {
    let mut answer = Response::builder().status(response.status);
    for (name, value) in &response.headers {
        answer = answer.header(name, value);
    }
    answer.body(full(response.body)).expect("an answer")
}

/// What a client gets that asks for what there is not, whatever it is.
pub(crate) fn no_such_path() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// A refusal.
pub(crate) fn refusal(code: u16, reason: &str, message: &str, details: Option<Value>) -> Response<Body> {
    json(code, &status(code, reason, message, details))
}

/// A refusal that needs no words of its own.
pub(crate) fn bad_request(message: &str) -> Response<Body> {
    refusal(400, "BadRequest", message, None)
}

/// A `Status` that tells of a failure.
pub(crate) fn status(code: u16, reason: &str, message: &str, details: Option<Value>) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code,
    });
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

/// The usual reason and message of a code.
pub(crate) fn reason(code: u16) -> (&'static str, &'static str) {
    match code {
        400 => ("BadRequest", "the server rejected our request for an unknown reason"),
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden"),
        404 => ("NotFound", "the server could not find the requested resource"),
        410 => ("Expired", "The provided continue parameter is too old to display a consistent list result."),
        429 => ("TooManyRequests", "too many requests, please try again later"),
        503 => ("ServiceUnavailable", "apiserver not ready"),
        504 => ("Timeout", "request did not complete within requested timeout"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    }
}
