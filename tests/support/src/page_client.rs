//! What a page of `open` asks of its server, without a browser: requests over connections that stay
//! open, and websockets, each with the cookie that the start address gave. Without one it is a client
//! of any HTTP/1.1 server of this machine.
//!
//! Everything that goes wrong is an error in words; nothing takes longer than [`PATIENCE`] to begin.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use url::Url;

/// For a connection, an answer's head, the next piece of an answer, a message.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A request's body.
pub type PageBody = UnsyncBoxBody<Bytes, io::Error>;

/// A page's way to its server.
#[derive(Clone, Debug)]
pub struct PageClient {
    address: SocketAddr,
    host: String,
    cookie: Option<String>,
}

/// A connection that stays open between requests, one of a browser's six.
pub struct PageConnection {
    client: PageClient,
    sender: SendRequest<PageBody>,
}

/// A page's websocket.
pub struct PageSocket(pub WebSocketStream<TcpStream>);

impl PageClient {
    /// Of a server on 127.0.0.1 that lets everybody in.
    pub fn of(port: u16) -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), host: format!("localhost:{port}"), cookie: None }
    }

    /// Uses the start address that `open` gave.
    pub async fn enter(start_url: &str) -> Result<Self, String> {
        let url = Url::parse(start_url.trim()).map_err(|error| format!("`{start_url}`: {error}"))?;
        let mut client = Self::of(url.port().ok_or("the start address has no port")?);
        let mut connection = client.connect().await?;
        let request = Request::get(url.path())
            .header(header::HOST, &client.host)
            .header(header::ACCEPT, "text/html")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "none");
        let response = connection.send(request.body(empty()).map_err(text)?).await?;
        let cookie = response.headers().get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next());
        client.cookie = Some(cookie.ok_or_else(|| format!("no cookie: {}", response.status()))?.to_owned());
        Ok(client)
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<PageConnection, String> {
        let stream = self.stream().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        tokio::spawn(connection);
        Ok(PageConnection { client: self.clone(), sender })
    }

    /// A connection on which nothing has been said.
    pub async fn stream(&self) -> Result<TcpStream, String> {
        let stream = in_time("a connection", TcpStream::connect(self.address)).await?;
        stream.set_nodelay(true).map_err(text)?;
        Ok(stream)
    }

    /// The head of a `GET`, as it stands on the wire.
    pub fn head(&self, path: &str) -> String {
        let cookie = self.cookie.as_deref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n{cookie}\r\n", self.host)
    }

    /// A websocket; `protocol` is the subprotocol that it offers.
    pub async fn socket(&self, path: &str, protocol: &str) -> Result<PageSocket, String> {
        let mut request = format!("ws://{}{path}", self.host).into_client_request().map_err(text)?;
        let headers = request.headers_mut();
        headers.insert(header::ORIGIN, format!("http://{}", self.host).parse().map_err(text)?);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.parse().map_err(text)?);
        if let Some(cookie) = &self.cookie {
            headers.insert(header::COOKIE, cookie.parse().map_err(text)?);
        }
        let stream = self.stream().await?;
        let (socket, _) =
            in_time(&format!("websocket {path}"), tokio_tungstenite::client_async(request, stream)).await?;
        Ok(PageSocket(socket))
    }

    fn request(&self, method: &Method, path: &str, body: PageBody) -> Result<Request<PageBody>, String> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        request = request.header(header::ACCEPT, "*/*").header("sec-fetch-dest", "empty");
        request = request.header("sec-fetch-site", "same-origin");
        if *method != Method::GET {
            request = request.header(header::ORIGIN, format!("http://{}", self.host));
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        request.body(body).map_err(text)
    }
}

impl PageConnection {
    /// The whole answer to a `GET`; anything but a 200 is an error.
    pub async fn get(&mut self, path: &str) -> Result<Bytes, String> {
        let response = self.ask(&Method::GET, path, empty()).await?;
        let status = response.status();
        let body = in_time(path, response.into_body().collect()).await?.to_bytes();
        if status == 200 {
            return Ok(body);
        }
        let start = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default()).into_owned();
        Err(format!("GET {path}: {status} {start}"))
    }

    /// The answer's head.
    pub async fn ask(&mut self, method: &Method, path: &str, body: PageBody) -> Result<Response<Incoming>, String> {
        let request = self.client.request(method, path, body)?;
        self.send(request).await
    }

    /// The same for a body of this length, which the request says.
    pub async fn upload(&mut self, path: &str, length: u64, body: PageBody) -> Result<Response<Incoming>, String> {
        let mut request = self.client.request(&Method::POST, path, body)?;
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        self.sender.ready().await.map_err(text)?;
        // However long it is.
        self.sender.send_request(request).await.map_err(|error| format!("POST {path}: {error}"))
    }

    async fn send(&mut self, request: Request<PageBody>) -> Result<Response<Incoming>, String> {
        let what = format!("{} {}", request.method(), request.uri());
        in_time(&what, self.sender.ready()).await?;
        in_time(&what, self.sender.send_request(request)).await
    }
}

impl PageSocket {
    /// The next text or bytes; `None`: it was closed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.0.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Text(told))) => return Ok(Some(told.into())),
                Some(Ok(Message::Binary(told))) => return Ok(Some(told)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}

/// A body without bytes.
pub fn empty() -> PageBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> PageBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The result within [`PATIENCE`].
pub async fn in_time<T, E: std::fmt::Display>(
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(PATIENCE, future).await {
        Ok(result) => result.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing within {PATIENCE:?}")),
    }
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
