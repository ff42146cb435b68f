//! Websockets as API servers accept and end them.

use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::answer::{self, Body};
use crate::runner::Panics;

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Which subprotocols there are.
#[derive(Clone, Copy)]
pub(crate) enum Protocols {
    /// Whichever is offered, but one at most; a page must say where it comes from.
    Any,
    /// The first of those offered that is one of these; the empty one: none was offered.
    Known(&'static [&'static str]),
}

/// Whether a websocket is asked for.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// Accepts a websocket and has it served by a task; or refuses it.
pub(crate) fn accept<F>(
    mut request: Request<Incoming>,
    protocols: Protocols,
    panics: &Panics,
    serve: impl FnOnce(Socket, String) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send,
{
    let headers = request.headers();
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let chosen = match protocols {
        Protocols::Any if offered.len() > 1 => return answer::text(400, "bad protocol"),
        Protocols::Any if !headers.contains_key(header::ORIGIN) => return answer::text(403, "null origin"),
        Protocols::Any => Some(offered.first().copied().unwrap_or_default()),
        Protocols::Known(known) if offered.is_empty() => known.contains(&"").then_some(""),
        Protocols::Known(known) => offered.iter().find(|offer| known.contains(offer)).copied(),
    };
    let Some(chosen) = chosen.map(str::to_owned) else {
        return answer::text(403, "unable to upgrade: none of the requested protocols is supported");
    };
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_wanted(headers)) else {
        return answer::bad_request("Upgrade request required");
    };
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    if !chosen.is_empty() {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, &chosen);
    }
    let panics = panics.clone();
    tokio::spawn(async move {
        // A client that does not wait for the answer ends this and nothing else.
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        // API servers take frames of up to 32 MiB.
        let limits = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
        panics.caught(serve(socket, chosen)).await;
    });
    response.body(answer::full("")).expect("an answer")
}

/// Says goodbye with code 1000, and waits a moment for the other's.
pub(crate) async fn close(mut socket: Socket) {
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    if socket.send(Message::Close(Some(goodbye))).await.is_ok() {
        let _ = timeout(GOODBYE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    }
}

/// Bytes.
const LARGEST: usize = 32 * 1024 * 1024;
const GOODBYE: Duration = Duration::from_secs(1);
