//! Watches: what happened, event by event, as a body of lines or through a websocket.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use super::answer::{self, Body};
use super::form::Form;
use super::serve::{Connection, Counted};
use super::socket::{self, Protocols};
use super::store::Selection;
use super::{Asked, Shared};
use crate::server::lock;
use crate::wire::State;

/// What all open watches are told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// The server ends them.
    End,
    /// They break.
    Cut,
    /// Their version is too old.
    Expire,
}

/// What a client is sent.
enum Piece {
    Event(Value),
    Cut,
}

struct Watch {
    selection: Selection,
    form: Form,
    /// `None`: with all that is there.
    from: Option<u64>,
    /// With a bookmark after all that is there.
    initial_bookmark: bool,
    bookmarks: bool,
    end: Instant,
    bookmark_every: Duration,
    orders: broadcast::Receiver<Order>,
    shared: Arc<Shared>,
}

/// Answers a watch.
pub(crate) fn answer(
    request: Request<Incoming>,
    asked: &Asked,
    selection: Selection,
    connection: &Arc<Connection>,
    shared: &Arc<Shared>,
) -> Response<Body> {
    let parameter = |name: &str| asked.parameter(name).unwrap_or_default();
    let is_set = |name: &str| is_true(&parameter(name));
    let version = parameter("resourceVersion");
    let initial = is_set("sendInitialEvents");
    let from = match version.as_str() {
        _ if initial => None,
        "" | "0" => None,
        version => match version.parse() {
            Ok(version) => Some(version),
            Err(_) => return answer::bad_request(&format!("Invalid value: {version:?}: resourceVersion")),
        },
    };
    let behaviour = lock(&shared.behaviour).clone();
    let seconds = parameter("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
    let lifetime = behaviour.watch_lifetime.or(seconds.map(Duration::from_secs)).unwrap_or(LIFETIME);
    let plan = Watch {
        selection,
        form: Form::of(asked),
        from,
        bookmarks: is_set("allowWatchBookmarks"),
        initial_bookmark: initial,
        end: Instant::now() + lifetime,
        bookmark_every: behaviour.bookmark_every,
        orders: shared.orders.subscribe(),
        shared: Arc::clone(shared),
    };
    let (sender, told) = mpsc::channel(WAITING);
    let counted = Counted::new(shared);
    let panics = shared.panics.clone();
    tokio::spawn(async move {
        panics.caught(plan.run(&sender)).await;
        drop(counted);
    });
    if socket::is_wanted(request.headers()) {
        let connection = Arc::clone(connection);
        return socket::accept(request, Protocols::Any, &shared.panics, move |socket, _| {
            through_websocket(socket, told, connection)
        });
    }
    let lines = unfold(told, |mut told| async {
        let line = match told.recv().await? {
            Piece::Event(event) => Ok(Frame::data(Bytes::from(format!("{event}\n")))),
            Piece::Cut => Err(io::ErrorKind::ConnectionReset.into()),
        };
        Some((line, told))
    });
    let response =
        Response::builder().header("Content-Type", "application/json").header("Cache-Control", "no-cache, private");
    response.body(StreamBody::new(lines).boxed_unsync()).expect("an answer")
}

async fn through_websocket(socket: socket::Socket, mut pieces: mpsc::Receiver<Piece>, connection: Arc<Connection>) {
    let (mut to_client, mut from_client) = socket.split();
    loop {
        tokio::select! {
            piece = pieces.recv() => match piece {
                Some(Piece::Event(event)) => {
                    if to_client.send(Message::text(event.to_string())).await.is_err() {
                        return;
                    }
                }
                Some(Piece::Cut) => return connection.control.set(State::Reset),
                None => break,
            },
            // It has nothing to say but goodbye.
            said = from_client.next() => if !matches!(said, Some(Ok(message)) if !message.is_close()) { break },
        }
    }
    if let Ok(socket) = to_client.reunite(from_client) {
        socket::close(socket).await;
    }
}

impl Watch {
    /// Until its end, or until nobody listens.
    async fn run(mut self, sender: &mpsc::Sender<Piece>) {
        tokio::select! {
            _ = self.produce(sender) => {}
            () = sender.closed() => {}
        }
    }

    /// `None`: nobody listens.
    async fn produce(&mut self, sender: &mpsc::Sender<Piece>) -> Option<()> {
        let shared = Arc::clone(&self.shared);
        let mut changed = shared.store.subscribe();
        let mut first = true;
        let mut at = if let Some(version) = self.from {
            version
        } else {
            let (version, objects) = shared.store.list(&self.selection, None).unwrap_or_default();
            for (_, object) in objects {
                self.send(sender, "ADDED", &object, &mut first).await?;
            }
            if self.initial_bookmark {
                self.send_bookmark(sender, version, true).await?;
            }
            version
        };
        let mut bookmark = Instant::now() + self.bookmark_every;
        let mut order = None;
        loop {
            changed.mark_unchanged();
            let Ok((version, events)) = shared.store.events(&self.selection, at) else {
                return sender.send(Piece::Event(expired(at, shared.store.revision()))).await.ok();
            };
            for (kind, object) in events {
                self.send(sender, kind, &object, &mut first).await?;
            }
            at = version;
            // Only now: what happened before the order was given has been told.
            match order {
                None => {}
                Some(Order::End) => return Some(()),
                Some(Order::Cut) => return sender.send(Piece::Cut).await.ok(),
                Some(Order::Expire) => {
                    return sender.send(Piece::Event(expired(at, shared.store.revision()))).await.ok();
                }
            }
            let next_bookmark = if self.bookmarks { bookmark } else { Instant::now() + LIFETIME };
            tokio::select! {
                result = changed.changed() => if result.is_err() { pending::<()>().await },
                () = sleep_until(next_bookmark) => {
                    self.send_bookmark(sender, at, false).await?;
                    bookmark = Instant::now() + self.bookmark_every;
                }
                () = sleep_until(self.end) => {
                    return if self.bookmarks { self.send_bookmark(sender, at, false).await } else { Some(()) };
                }
                given = self.orders.recv() => order = given.ok(),
            }
        }
    }

    async fn send(&self, sender: &mpsc::Sender<Piece>, kind: &str, object: &Value, first: &mut bool) -> Option<()> {
        let object = self.form.event(self.selection.kind, object, std::mem::take(first));
        sender.send(Piece::Event(json!({"type": kind, "object": object}))).await.ok()
    }

    async fn send_bookmark(&self, sender: &mpsc::Sender<Piece>, version: u64, initial: bool) -> Option<()> {
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let kind = self.selection.kind;
        let object = json!({"kind": kind.name, "apiVersion": kind.group_version(), "metadata": metadata});
        let object = self.form.event(kind, &object, false);
        sender.send(Piece::Event(json!({"type": "BOOKMARK", "object": object}))).await.ok()
    }
}

/// How a query says yes.
pub(crate) fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn expired(version: u64, newest: u64) -> Value {
    let message = format!("too old resource version: {version} ({newest})");
    json!({"type": "ERROR", "object": answer::status(410, "Expired", &message, None)})
}

/// Of a watch that names no end; API servers take half an hour to a whole.
const LIFETIME: Duration = Duration::from_secs(45 * 60);
/// Events that wait for a client that reads slowly; the rest waits in the history.
const WAITING: usize = 4;
