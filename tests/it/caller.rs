//! A client of API servers that sends what it is told and shows what comes.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Somebody with a kubeconfig.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) kube::Client);

impl Caller {
    pub(crate) async fn of(kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.proxy_url = None;
        config.default_retry = false;
        Self(kube::Client::try_from(config).unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        timeout(DEADLINE, self.0.send(request.body(Body::from(body)).unwrap())).await.unwrap().unwrap()
    }

    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.send(Method::GET, path, &[], Vec::new()).await;
        let status = response.status();
        let body = timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn get(&self, path: &str, accept: &str) -> Value {
        let response = self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await;
        json_of(response).await
    }

    pub(crate) async fn write(&self, method: Method, path: &str, body: &Value) -> Value {
        let merge = "application/merge-patch+json";
        let kind = if method == Method::PATCH { merge } else { "application/json" };
        json_of(self.send(method, path, &[("content-type", kind)], body.to_string().into_bytes()).await).await
    }

    /// The answer to a websocket's handshake.
    pub(crate) async fn handshake(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut all = vec![
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        all.extend(headers);
        self.send(Method::GET, path, &all, Vec::new()).await
    }

    pub(crate) async fn socket(&self, path: &str, headers: &[(&str, &str)]) -> Socket {
        let response = self.handshake(path, headers).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
        let protocol = response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap().to_owned());
        let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        Socket { protocol, stream: WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await }
    }
}

pub(crate) async fn json_of(response: Response<Body>) -> Value {
    let body = timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)))
}

/// A websocket.
pub(crate) struct Socket {
    pub(crate) protocol: Option<String>,
    stream: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
}

impl Socket {
    pub(crate) async fn next(&mut self) -> Option<Message> {
        timeout(DEADLINE, self.stream.next()).await.unwrap()?.ok()
    }

    pub(crate) async fn send(&mut self, data: &[u8]) {
        self.stream.send(Message::binary(data.to_vec())).await.unwrap();
    }

    /// All that comes, in words.
    pub(crate) async fn story(mut self) -> Vec<String> {
        let mut story = Vec::new();
        while let Some(message) = self.next().await {
            story.push(words(&message));
        }
        story
    }
}

pub(crate) fn words(message: &Message) -> String {
    match message {
        Message::Text(text) => format!("text {:?}", text.as_str()),
        Message::Binary(data) => format!("binary {}", data.escape_ascii()),
        Message::Close(frame) => {
            format!("close {}", frame.as_ref().map_or(0, |frame| u16::from(frame.code)))
        }
        other => format!("{other:?}"),
    }
}

/// `ADDED name`, or what else an event says.
pub(crate) fn event(text: &str) -> String {
    let event: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let object = &event["object"];
    let kind = event["type"].as_str().unwrap();
    match kind {
        "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap()),
        _ => format!(
            "{kind} {} {}",
            object["kind"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap_or("-")
        ),
    }
}

/// Lines of an endless body.
pub(crate) struct Lines {
    pub(crate) body: Body,
    read: Vec<u8>,
}

impl Lines {
    pub(crate) fn of(body: Body) -> Self {
        Self { body, read: Vec::new() }
    }

    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(event(std::str::from_utf8(&line).unwrap()));
            }
            let frame = timeout(DEADLINE, self.body.frame()).await.unwrap()?.ok()?;
            self.read.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}
