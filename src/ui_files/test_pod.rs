//! A Headlamp for tests: files over HTTP on a real socket, and what can go wrong with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::error::Error;
use crate::http2_pool::Body;
use crate::pod_http::Connect;
use crate::port_forward::PodStream;

/// What the pod does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Answer,
    /// It never answers.
    Stall,
    /// It answers with half a body and goes silent.
    StallWithin,
    /// It closes the connection on this many requests, then answers.
    Cut(usize),
    /// It answers with this status.
    Status(u16),
}

/// Headers and body.
type File = (Vec<(&'static str, String)>, Bytes);

pub(crate) struct Pod {
    port: u16,
    tls: Option<TlsAcceptor>,
    pub(crate) base: String,
    pub(crate) mood: Mutex<Mood>,
    /// Requests wait while it is true.
    pub(crate) held: watch::Sender<bool>,
    /// Of these paths alone.
    pub(crate) held_below: Mutex<String>,
    pub(crate) files: Mutex<HashMap<String, File>>,
    pub(crate) requests: Mutex<Vec<(String, HeaderMap)>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
    /// Ends all connections.
    pub(crate) cut: watch::Sender<()>,
    /// Whether streams to it can be had at all.
    pub(crate) reachable: watch::Sender<bool>,
}

pub(crate) const SCRIPT: &str = "/assets/index-CqULmv_h.js";
pub(crate) const STYLE: &str = "/assets/index-Boxy6_9z.css";
pub(crate) const LAZY: &str = "/assets/Details-C5rspVtY.js";

impl Pod {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_with("", None).await
    }

    pub(crate) async fn start_with(base: &str, tls: Option<TlsAcceptor>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            tls,
            base: base.to_owned(),
            mood: Mutex::new(Mood::Answer),
            held: watch::Sender::new(false),
            held_below: Mutex::default(),
            files: Mutex::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            cut: watch::Sender::new(()),
            reachable: watch::Sender::new(true),
        });
        pod.put_page(&[SCRIPT, STYLE]);
        pod.put(SCRIPT, "text/javascript; charset=utf-8", "script");
        pod.put(STYLE, "text/css; charset=utf-8", "style");
        pod.put(LAZY, "text/javascript; charset=utf-8", "lazy");
        pod.put("/config", "application/json", r#"{"clusters":[]}"#);
        pod.put("/plugins", "text/plain; charset=utf-8", "[]");
        let this = pod.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(this.clone().serve(stream));
            }
        });
        pod
    }

    pub(crate) fn connect(self: &Arc<Self>) -> Connect {
        let pod = self.clone();
        Arc::new(move || {
            let pod = pod.clone();
            async move {
                if !*pod.reachable.borrow() {
                    return Err(Error::unreachable("no pod is ready"));
                }
                let stream = TcpStream::connect(("127.0.0.1", pod.port)).await;
                let stream = stream.map_err(|error| Error::unreachable("no pod").caused_by(&error))?;
                Ok(Box::new(stream) as PodStream)
            }
            .boxed()
        })
    }

    pub(crate) fn put(&self, path: &str, content_type: &str, body: &str) {
        self.put_with(path, &[("content-type", content_type)], Bytes::from(body.to_owned()));
    }

    pub(crate) fn put_with(&self, path: &str, headers: &[(&'static str, &str)], body: Bytes) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.files.lock().unwrap().insert(path.to_owned(), (headers, body));
    }

    /// An index page that names these.
    pub(crate) fn put_page(&self, names: &[&str]) {
        let page = names.iter().fold("<!DOCTYPE html>".to_owned(), |page, name| {
            if *name == STYLE {
                page + &format!("<link rel=\"stylesheet\" href=\"{}{name}\">", self.base)
            } else {
                page + &format!("<script type=\"module\" src=\"{}{name}\"></script>", self.base)
            }
        });
        self.put("/", "text/html; charset=utf-8", &page);
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// How often this path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let path = format!("{}{path}", self.base);
        self.requests.lock().unwrap().iter().filter(|(asked, _)| *asked == path).count()
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        let mut cut = self.cut.subscribe();
        let serving = async {
            let this = self.clone();
            let service = service_fn(move |request| this.clone().answer(request));
            match &self.tls {
                None => drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                }
            }
        };
        tokio::select! {
            () = serving => {}
            _ = cut.changed() => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        self.requests.lock().unwrap().push((path.clone(), request.headers().clone()));
        if path.starts_with(&*self.held_below.lock().unwrap()) {
            let mut held = self.held.subscribe();
            held.wait_for(|held| !held).await.unwrap();
        }
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Answer | Mood::StallWithin => {}
            Mood::Stall => std::future::pending().await,
            Mood::Cut(0) => self.set(Mood::Answer),
            Mood::Cut(left) => {
                self.set(Mood::Cut(left - 1));
                return Err(io::Error::other("cut"));
            }
            Mood::Status(status) => {
                let mut answer = Response::new(crate::api_connection::full("odd"));
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                return Ok(answer);
            }
        }
        let files = self.files.lock().unwrap();
        let file = path.strip_prefix(&self.base).and_then(|path| files.get(path));
        // What is not there is the index page, as Headlamp has it.
        let (headers, body) = file.or_else(|| files.get("/")).cloned().unwrap();
        let since = request.headers().get("if-modified-since").and_then(|since| since.to_str().ok());
        let modified = headers.iter().find(|(name, _)| *name == "last-modified").map(|(_, time)| time.as_str());
        // Go compares times; text of one day is enough here.
        let not_modified = since.zip(modified).is_some_and(|(since, modified)| modified <= since);
        let mut answer = Response::builder().header("set-cookie", "planted=1").header("x-of-the-pod", "1");
        for (name, value) in &headers {
            answer = answer.header(*name, value);
        }
        if not_modified {
            return Ok(answer.status(304).body(crate::api_connection::empty()).unwrap());
        }
        if mood == Mood::StallWithin {
            let half = futures_util::stream::iter([Ok(Frame::data(body.slice(..body.len() / 2)))]);
            let body = StreamBody::new(futures_util::StreamExt::chain(half, futures_util::stream::pending()));
            return Ok(answer.body(BodyExt::boxed_unsync(body)).unwrap());
        }
        Ok(answer.body(crate::api_connection::full(body)).unwrap())
    }
}
