//! The HTTP/1.1 server under both doubles: a thread for each connection, blocking I/O, loopback
//! only, ended by its drop.
//!
//! It is our own because it must be able to misbehave (stall, drip, reset), and because programs
//! that are killed reset their connections: `tiny_http` 0.12 aborts the whole process when that
//! happens while it reads a request.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query's parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body's parameters, decoded, in order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first parameter of this name, of the query or else of the form.
    pub fn parameter(&self, name: &str) -> Option<String> {
        find(&self.query, name).map(str::to_owned).or_else(|| find(&self.form(), name).map(str::to_owned))
    }

    /// The token of an `Authorization: Bearer` header.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A well-formed answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers beside the content's length.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Response {
    /// An empty answer with this status.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// A JSON answer that no cache keeps.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status)
            .header("Content-Type", "application/json")
            .header("Cache-Control", "no-store")
            .body(value.to_string())
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<String>) -> Self {
        Self::new(status).header("Content-Type", "text/html; charset=utf-8").body(body.into())
    }

    /// A redirect to be followed with `GET`.
    pub fn see_other(location: &str) -> Self {
        Self::new(303).header("Location", location)
    }

    /// The same with another header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| name == "Set-Cookie" || !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with another body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// What is done on the connection.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// An answer, then the next request.
    Whole(Response),
    /// An answer in pieces of this many bytes, with a pause before each.
    Dripped(Response, usize, Duration),
    /// The head of an answer and then its body again and again, for ever.
    Endless(Response),
    /// Nothing: the connection is closed.
    Close,
    /// Nothing: the connection is reset.
    Reset,
}

/// Whether the server is to end; handlers that wait, wait on it.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    fn set(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits so long, or until the server ends.
    pub(crate) fn wait(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut stopped = lock(&self.0.0);
        while !*stopped {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            stopped =
                self.0.1.wait_timeout(stopped, left).map_or_else(|broken| broken.into_inner().0, |(guard, _)| guard);
        }
    }
}

/// A server on a port of its own.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

type Handler = Box<dyn Fn(&Request, &Stop) -> Reply + Send + Sync>;

struct Shared {
    stop: Stop,
    tls: Option<Arc<ServerConfig>>,
    handler: Handler,
    connections: Mutex<HashMap<usize, TcpStream>>,
    /// What handlers panicked with: their tests must fail.
    panics: Mutex<Vec<String>>,
}

impl Server {
    /// Binds this port of 127.0.0.1, or with 0 a free one, so that the address is known before
    /// there is a handler.
    pub(crate) fn bind(port: u16) -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        (listener, port)
    }

    pub(crate) fn start(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request, &Stop) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            stop: Stop::default(),
            tls,
            handler: Box::new(handler),
            connections: Mutex::default(),
            panics: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { address, shared, acceptor: Some(acceptor) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.set();
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let panics = std::mem::take(&mut *lock(&self.shared.panics));
        assert!(
            panics.is_empty() || std::thread::panicking(),
            "a server double's handler panicked: {}",
            panics.join("; ")
        );
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for id in 0.. {
        let connection = listener.accept();
        if shared.stop.is_set() {
            break;
        }
        let Ok((stream, _)) = connection else { continue };
        let Ok(kept) = stream.try_clone() else { continue };
        lock(&shared.connections).insert(id, kept);
        let shared = Arc::clone(shared);
        threads.push(std::thread::spawn(move || {
            // A peer that is gone, or speaks no HTTP, ends its connection and nothing else.
            let _ = serve(id, stream, &shared);
            lock(&shared.connections).remove(&id);
        }));
    }
    for stream in lock(&shared.connections).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn serve(id: usize, stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let raw = stream.try_clone()?;
    let stream: Box<dyn Stream> = match &shared.tls {
        Some(config) => {
            Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?, stream))
        }
        None => Box::new(stream),
    };
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        let reply =
            catch_unwind(AssertUnwindSafe(|| (shared.handler)(&request, &shared.stop))).unwrap_or_else(|panic| {
                lock(&shared.panics).push(panic_text(panic.as_ref()));
                Reply::Close
            });
        let head_only = request.method == "HEAD";
        let out = stream.get_mut();
        match reply {
            Reply::Whole(response) => {
                let mut bytes = head(&response, true);
                if !head_only {
                    bytes.extend(&response.body);
                }
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Reply::Dripped(response, size, pause) => {
                let mut bytes = head(&response, true);
                bytes.extend(&response.body);
                for piece in bytes.chunks(size.max(1)) {
                    shared.stop.wait(pause);
                    out.write_all(piece)?;
                    out.flush()?;
                }
            }
            Reply::Endless(response) => {
                out.write_all(&head(&response, false))?;
                while !shared.stop.is_set() {
                    out.write_all(&response.body)?;
                }
                return Ok(());
            }
            Reply::Close => return Ok(()),
            Reply::Reset => {
                reset_on_close(&raw)?;
                lock(&shared.connections).remove(&id);
                return Ok(());
            }
        }
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

/// `None` when the peer has closed the connection between two requests.
fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(stream)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        ..Request::default()
    };
    while let Some(line) = read_line(stream)?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    request.body = vec![0; length.min(LARGEST_BODY)];
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// A line without its end; `None` at the end of the stream.
fn read_line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

fn head(response: &Response, with_length: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Double\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // A body in chunks has its end in itself.
    let chunked = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    if with_length && !chunked {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Lets the close that follows send a reset instead of an end.
#[cfg(unix)]
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

#[cfg(not(unix))]
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Both)
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown").to_owned()
}

/// A lock that a panic elsewhere does not take away.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes; nobody sends the doubles more.
const LARGEST_BODY: usize = 1024 * 1024;
