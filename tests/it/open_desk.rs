//! What the tests of `open` begin with: a fake cluster with the stand-in Headlamp in it, a sandbox with
//! a kubeconfig, and the one browser of a running `open`, as plain sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use headlamp_test_support::{
    Cluster, HeadlampInstall, Output, Run, Running, Sandbox, SecretKind, Secrets, StandIn, StandInOptions, request_log,
    wait_until, with_token,
};
use http::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::BINARY;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PODS: &str = "/clusters/main/api/v1/namespaces/default/pods";
pub(crate) const UPSTREAM_PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster with Headlamp, and somebody with a kubeconfig for it.
pub(crate) struct Desk {
    pub(crate) cluster: Cluster,
    pub(crate) headlamp: StandIn,
    pub(crate) sandbox: Sandbox,
    secrets: Secrets,
}

impl Desk {
    /// Headlamp is in its usual place, and the kubeconfig has a token of `jane`'s.
    pub(crate) fn taken() -> Self {
        Self::with(StandInOptions::default(), &HeadlampInstall::default())
    }

    pub(crate) fn with(options: StandInOptions, install: &HeadlampInstall) -> Self {
        let desk = Self::at(Cluster::start(|_| None), options);
        desk.cluster.install_headlamp("headlamp", install, ([127, 0, 0, 1], desk.headlamp.port()).into());
        desk
    }

    /// At this cluster, in which there is no Headlamp yet.
    pub(crate) fn at(cluster: Cluster, options: StandInOptions) -> Self {
        let desk = Self {
            cluster,
            headlamp: StandIn::start(options),
            sandbox: Sandbox::new(BINARY),
            secrets: Secrets::default(),
        };
        desk.sandbox.watch(&desk.secrets);
        desk.sandbox.call(&desk.cluster.url(), "[CLUSTER]");
        desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token(&desk.token("jane", &["developers"]))));
        desk
    }

    pub(crate) fn install(&self, namespace: &str, install: &HeadlampInstall) -> String {
        self.cluster.install_headlamp(namespace, install, ([127, 0, 0, 1], self.headlamp.port()).into())
    }

    /// A token that must not come to light.
    pub(crate) fn token(&self, name: &str, groups: &[&str]) -> String {
        let token = self.cluster.token(name, groups);
        self.secrets.add(SecretKind::AccessToken, &token);
        token
    }

    /// `open` that prints its address.
    pub(crate) fn open<const N: usize>(&self, arguments: [&str; N]) -> Run<'_> {
        self.sandbox.command(["open", "--no-browser"]).args(arguments)
    }

    /// As whom the cluster was last asked for this, as `name/uid [groups]`.
    pub(crate) fn asked_as(&self, path: &str) -> String {
        let user = self.cluster.requests_to(path).last().unwrap().user.clone().unwrap();
        format!("{}/{} {:?}", user.name, user.uid, user.groups)
    }

    /// The pod saw neither a credential nor our cookie, and nothing that was for the API server.
    pub(crate) fn assert_pod_knows_nothing(&self) {
        let requests = self.headlamp.requests();
        assert!(!requests.is_empty(), "the pod was asked nothing at all");
        assert_eq!(request_log::credentials(&requests), [""; 0]);
        assert!(self.headlamp.api_requests().is_empty());
        let told = format!("{requests:?}");
        assert!(!told.contains("kubectl-headlamp-") && !told.contains("/start/"), "{told}");
    }
}

/// The exit code and the error. How much of the progress before it is shown is a matter of time.
pub(crate) fn error(output: &Output) -> String {
    let shown = output.to_string();
    let (before, error) = shown.split_once("kubectl-headlamp: error: ").unwrap_or_else(|| panic!("no error: {shown}"));
    format!("{}\n{error}", before.lines().next().unwrap())
}

/// Ctrl-C, and what the run came to.
pub(crate) fn interrupted(open: Running) -> Output {
    open.interrupt();
    let output = open.wait();
    assert_eq!(output.code, 130, "{output}");
    output
}

/// The address that `open` printed.
pub(crate) fn address(open: &mut Running) -> String {
    wait_until(DEADLINE, "an address on stdout", || {
        assert!(!open.has_ended(), "it ended:\n{}", open.stderr());
        open.stdout().ends_with('\n')
    });
    open.stdout().trim_end().to_owned()
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?} {}", self.text()))
    }

    /// The cookie that it sets.
    pub(crate) fn cookie(&self) -> Option<String> {
        let cookie = self.headers.iter().find(|(name, _)| name == "set-cookie")?;
        Some(cookie.1.split(';').next().unwrap().to_owned())
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { unchunked(bytes) } else { bytes.to_vec() };
        Some(Self { status, headers, body })
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + size).filter(|_| size > 0) else { break };
        whole.extend_from_slice(chunk);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends these bytes, and reads until the server closes; `None` if it closed without an answer.
pub(crate) fn exchange(port: u16, request: &[u8]) -> Option<Reply> {
    Reply::read(&everything(port, request))
}

/// The same, but all that came.
pub(crate) fn everything(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // A server that has refused the beginning need not read the rest.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let began = Instant::now();
    let mut buffer = [0; 16 * 1024];
    // A reset is an end too.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    assert!(began.elapsed() < DEADLINE, "the server did not close: {}", String::from_utf8_lossy(&bytes));
    bytes
}

/// The browser that an `open` serves: its page's scripts.
#[derive(Clone, Debug)]
pub(crate) struct Tab {
    pub(crate) port: u16,
    /// `name=value`
    pub(crate) cookie: String,
}

impl Tab {
    /// Opens the address that this `open` prints.
    pub(crate) fn of(open: &mut Running) -> Self {
        Self::at(&address(open))
    }

    /// Opens an address.
    pub(crate) fn at(address: &str) -> Self {
        let reply = visit(address);
        assert_eq!(reply.status, 200, "{}", reply.text());
        Self { port: port_of(address), cookie: reply.cookie().expect("a cookie") }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }

    /// A navigation of the tab itself.
    pub(crate) fn go(&self, path: &str) -> Reply {
        self.ask("GET", path, &[("Sec-Fetch-Dest", "document"), ("Accept", "text/html")], "")
    }

    /// A request as a browser would send it for its page's script, but for these headers; an empty value
    /// leaves one out.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let request = self.request(method, path, headers, body);
        exchange(self.port, request.as_bytes()).unwrap_or_else(|| panic!("no answer to {request}"))
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let (host, length) = (format!("localhost:{}", self.port), body.len().to_string());
        let origin = format!("http://{host}");
        let mut all = vec![
            ("Host", host.as_str()),
            ("Cookie", &self.cookie),
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Mode", "cors"),
            ("Sec-Fetch-Dest", "empty"),
            ("Connection", "close"),
        ];
        if method != "GET" && method != "HEAD" {
            all.extend([
                ("Origin", origin.as_str()),
                ("Content-Length", &length),
                ("Content-Type", "application/json"),
            ]);
        }
        for (name, value) in headers {
            all.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            all.push((name, value));
        }
        let lines = all.iter().filter(|(_, value)| !value.is_empty());
        let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\n{}\r\n{body}", lines.concat())
    }

    /// A websocket, or the answer that there is none.
    pub(crate) fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> Result<WebSocket<TcpStream>, Reply> {
        let host = format!("localhost:{}", self.port);
        let mut request = format!("ws://{host}{path}").into_client_request().unwrap();
        let origin = format!("http://{host}");
        let all = [("Origin", origin.as_str()), ("Cookie", &self.cookie), ("Sec-Fetch-Site", "same-origin")];
        let all = all.iter().filter(|(name, _)| !headers.iter().any(|(other, _)| other == name)).chain(headers);
        for (name, value) in all.filter(|(_, value)| !value.is_empty()) {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        match tungstenite::client(request, connect(self.port)) {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => Err(Reply {
                status: answer.status().as_u16(),
                headers: Vec::new(),
                body: answer.into_body().unwrap_or_default(),
            }),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(crate) fn socket(&self, path: &str) -> WebSocket<TcpStream> {
        self.upgrade(path, &[]).unwrap_or_else(|reply| panic!("{path}: {} {}", reply.status, reply.text()))
    }

    /// The names of the pods in `default`, as the page sees them.
    pub(crate) fn pods(&self) -> Vec<String> {
        let list = self.get(PODS);
        assert_eq!(list.status, 200, "{}", list.text());
        let list = list.json();
        let names = list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }
}

/// A person opens an address in a browser that has no cookie.
pub(crate) fn visit(address: &str) -> Reply {
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n\
         Sec-Fetch-Dest: document\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    );
    exchange(port_of(address), request.as_bytes()).unwrap()
}

pub(crate) fn port_of(address: &str) -> u16 {
    url::Url::parse(address).unwrap().port().unwrap()
}

/// The next event of a watch.
pub(crate) fn event(socket: &mut WebSocket<TcpStream>) -> Value {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < DEADLINE, "no event came");
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
