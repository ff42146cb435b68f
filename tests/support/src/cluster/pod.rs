//! What can be done with a pod: its log, programs in it, connections to its ports. What each sends,
//! byte by byte, is what the kubelet and containerd send.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream::{SplitSink, SplitStream, unfold};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use super::answer::{self, Body};
use super::socket::{self, Protocols, Socket};
use super::store::Key;
use super::watch::is_true;
use super::{Asked, Shared};
use crate::server::lock;

/// What pods are beside objects.
#[derive(Default)]
pub(crate) struct Insides(Mutex<HashMap<(String, String), Inside>>);

#[derive(Clone, Default)]
struct Inside {
    ports: BTreeMap<u16, SocketAddr>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    text: Mutex<Vec<u8>>,
    length: watch::Sender<usize>,
}

impl Insides {
    /// Where the port of a pod leads.
    pub(crate) fn open(&self, namespace: &str, name: &str, port: u16, address: SocketAddr) {
        let mut insides = lock(&self.0);
        insides.entry((namespace.to_owned(), name.to_owned())).or_default().ports.insert(port, address);
    }

    /// The port refuses connections from now on.
    pub(crate) fn close(&self, namespace: &str, name: &str, port: u16) {
        let mut insides = lock(&self.0);
        insides.entry((namespace.to_owned(), name.to_owned())).or_default().ports.remove(&port);
    }

    pub(crate) fn write_log(&self, namespace: &str, name: &str, text: &str) {
        let log = self.of(namespace, name).log;
        let mut written = lock(&log.text);
        written.extend_from_slice(text.as_bytes());
        log.length.send_replace(written.len());
    }

    fn of(&self, namespace: &str, name: &str) -> Inside {
        lock(&self.0).entry((namespace.to_owned(), name.to_owned())).or_default().clone()
    }
}

/// A pod that a request is about, as long as it lives.
pub(crate) struct Pod {
    key: Key,
    uid: String,
    inside: Inside,
    shared: Arc<Shared>,
}

impl Pod {
    pub(crate) fn new(key: Key, shared: &Arc<Shared>) -> Option<Self> {
        let object = shared.store.get(&key)?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let inside = shared.insides.of(&key.namespace, &key.name);
        Some(Self { key, uid, inside, shared: Arc::clone(shared) })
    }

    fn lives(&self) -> bool {
        self.shared.store.get(&self.key).is_some_and(|object| object["metadata"]["uid"] == *self.uid)
    }

    /// Waits until it is gone.
    async fn gone(&self) {
        let mut changed = self.shared.store.subscribe();
        while self.lives() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Its log, plain or through a websocket.
    pub(crate) fn log(self, request: Request<Incoming>, asked: &Asked) -> Response<Body> {
        let follow = is_true(&asked.parameter("follow").unwrap_or_default());
        let tail = asked.parameter("tailLines").and_then(|lines| lines.parse().ok());
        let start = beginning(&lock(&self.inside.log.text), tail);
        let panics = self.shared.panics.clone();
        let length = self.inside.log.length.subscribe();
        let mut reading = Reading { pod: self, at: start, follow, length };
        if socket::is_wanted(request.headers()) {
            let known = Protocols::Known(&["", "binary.k8s.io", BASE64]);
            return socket::accept(request, known, &panics, |socket, protocol| async move {
                reading.through_websocket(socket, protocol == BASE64).await;
            });
        }
        let pieces = unfold(reading, |mut reading| async {
            let piece = reading.next().await?;
            Some((Ok(Frame::data(piece)), reading))
        });
        let response = Response::builder().header("Content-Type", "text/plain");
        response.body(StreamBody::new(pieces).boxed_unsync()).expect("an answer")
    }

    /// A program that says what it is told; without stdin it is `echo`, whatever it is called.
    pub(crate) fn exec(self, request: Request<Incoming>, asked: &Asked) -> Response<Body> {
        let words: Vec<String> =
            asked.query.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect();
        let wants = |name: &str| is_true(&asked.parameter(name).unwrap_or_default());
        let (stdin, stdout) = (wants("stdin"), wants("stdout"));
        let panics = self.shared.panics.clone();
        let known = Protocols::Known(&["", "channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"]);
        socket::accept(request, known, &panics, move |mut socket, _| async move {
            let greeted = if stdout { STDOUT } else { ERROR };
            let _ = socket.send(on(greeted, b"")).await;
            if stdin {
                tokio::select! {
                    () = echo(&mut socket) => {}
                    () = self.gone() => {}
                }
            } else {
                let _ = socket
                    .send(on(STDOUT, format!("{}\n", words.get(1..).unwrap_or_default().join(" ")).as_bytes()))
                    .await;
            }
            let status = json!({"metadata": {}, "status": "Success"}).to_string();
            let _ = socket.send(on(ERROR, status.as_bytes())).await;
            socket::close(socket).await;
        })
    }

    /// Connections to its ports, one each, dialled now.
    pub(crate) fn port_forward(self, request: Request<Incoming>, asked: &Asked) -> Response<Body> {
        let named = asked.query.iter().filter(|(name, _)| name == "ports" || name == "port");
        let ports: Result<Vec<u16>, _> = named.flat_map(|(_, list)| list.split(',')).map(str::parse).collect();
        let Some(ports) = ports.ok().filter(|ports| !ports.is_empty() && !ports.contains(&0)) else {
            return answer::bad_request("query parameter \"port\" is required");
        };
        let panics = self.shared.panics.clone();
        let known = Protocols::Known(&["", "v4.channel.k8s.io"]);
        socket::accept(request, known, &panics, move |socket, _| async move { self.forward(socket, ports).await })
    }

    async fn forward(self, socket: Socket, ports: Vec<u16>) {
        let (mut to_client, mut from_client) = socket.split();
        for (index, port) in ports.iter().enumerate() {
            for channel in [2 * index, 2 * index + 1] {
                if to_client.send(on(channel, &port.to_le_bytes())).await.is_err() {
                    return;
                }
            }
        }
        let (sender, frames) = mpsc::channel(1);
        let mut inputs = Vec::new();
        let mut forwards = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let (input, inputs_end) = mpsc::channel(1);
            inputs.push(Some(input));
            forwards.push(self.forward_port(index, *port, inputs_end, sender.clone()));
        }
        drop(sender);
        tokio::select! {
            _ = async { tokio::join!(futures_util::future::join_all(forwards), send_all(&mut to_client, frames)) } => {}
            () = receive_all(&mut from_client, inputs) => {}
        }
        if let Ok(socket) = to_client.reunite(from_client) {
            socket::close(socket).await;
        }
    }

    /// One port; ends when the pod's side of the connection does.
    async fn forward_port(
        &self,
        index: usize,
        port: u16,
        mut input: mpsc::Receiver<Bytes>,
        frames: mpsc::Sender<Message>,
    ) {
        let connected = match self.inside.ports.get(&port) {
            Some(address) => TcpStream::connect(address).await.map_err(drop),
            None => Err(()),
        };
        let Ok(stream) = connected else {
            let _ = frames.send(on(2 * index + 1, self.refusal(port).as_bytes())).await;
            return;
        };
        let _ = stream.set_nodelay(true);
        let (mut from_pod, mut to_pod) = stream.into_split();
        let up = async {
            while let Some(bytes) = input.recv().await {
                if to_pod.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let down = async {
            let mut buffer = vec![0; PIECE];
            while let Ok(count @ 1..) = from_pod.read(&mut buffer).await {
                if frames.send(on(2 * index, &buffer[..count])).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            () = self.gone() => {}
        }
    }

    fn refusal(&self, port: u16) -> String {
        let sandbox = format!("{:0>64}", self.uid.replace('-', ""));
        format!(
            "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network namespace \
             \"/var/run/netns/cni-{}\": failed to connect to localhost:{port} inside namespace {sandbox:?}, IPv4: dial \
             tcp4 127.0.0.1:{port}: connect: connection refused IPv6 dial tcp6 [::1]:{port}: connect: connection refused ",
            self.uid
        )
    }
}

/// Until the last of the forwards has ended.
async fn send_all(to_client: &mut SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(frame) = frames.recv().await {
        if to_client.send(frame).await.is_err() {
            return;
        }
    }
}

/// Until the client has left.
async fn receive_all(from_client: &mut SplitStream<Socket>, mut inputs: Vec<Option<mpsc::Sender<Bytes>>>) {
    while let Some(Ok(message)) = from_client.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return,
            _ => continue,
        };
        // The first byte is the channel; an empty message keeps the connection alive.
        let Some(channel) = data.first().map(|channel| usize::from(*channel)) else { continue };
        let Some(input) = inputs.get_mut(channel / 2).filter(|_| channel % 2 == 0) else { continue };
        if let Some(sender) = input
            && data.len() > 1
            && sender.send(data.slice(1..)).await.is_err()
        {
            *input = None;
        }
    }
}

async fn echo(socket: &mut Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { continue };
        match data.first() {
            Some(0) if socket.send(on(STDOUT, &data[1..])).await.is_err() => return,
            // v5: this channel is closed.
            Some(255) if data.get(1) == Some(&0) => return,
            _ => {}
        }
        if data.starts_with(b"\0exit") {
            return;
        }
    }
}

/// A log that is being read.
struct Reading {
    pod: Pod,
    at: usize,
    follow: bool,
    length: watch::Receiver<usize>,
}

impl Reading {
    /// What was written since; `None`: that was all.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.length.mark_unchanged();
            let rest = lock(&self.pod.inside.log.text).get(self.at..).map(Bytes::copy_from_slice).unwrap_or_default();
            if !rest.is_empty() {
                self.at += rest.len();
                return Some(rest);
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                changed = self.length.changed() => changed.ok()?,
                () = self.pod.gone() => return None,
            }
        }
    }

    async fn through_websocket(&mut self, mut socket: Socket, base64: bool) {
        let message = |piece: &[u8]| {
            if base64 { Message::text(BASE64_STANDARD.encode(piece)) } else { Message::binary(piece.to_vec()) }
        };
        // The first one is empty: it is there.
        let mut piece = Some(Bytes::new());
        while let Some(bytes) = piece {
            if socket.send(message(&bytes)).await.is_err() {
                return;
            }
            piece = tokio::select! {
                piece = self.next() => piece,
                () = said_goodbye(&mut socket) => None,
            };
        }
        socket::close(socket).await;
    }
}

async fn said_goodbye(socket: &mut Socket) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            return;
        }
    }
}

/// Where the last so many lines begin.
fn beginning(text: &[u8], lines: Option<usize>) -> usize {
    let Some(lines) = lines else { return 0 };
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    let ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(index, _)| index + 1).nth(lines - 1).unwrap_or(0)
}

/// A message on a channel.
fn on(channel: usize, data: &[u8]) -> Message {
    let mut message = vec![u8::try_from(channel).expect("few channels")];
    message.extend_from_slice(data);
    Message::binary(message)
}

const STDOUT: usize = 1;
const ERROR: usize = 3;
const BASE64: &str = "base64.binary.k8s.io";
/// Bytes of a frame, as containerd copies them.
const PIECE: usize = 32 * 1024;
