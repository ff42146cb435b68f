//! A browser without a window: it opens an address, goes where it is sent, keeps cookies, sends
//! forms that send themselves, and remembers what it saw.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use url::Url;

use crate::authority::client_config;

/// A browser with its cookies.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    roots: Vec<String>,
    /// By host, whatever the port: so do real browsers.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    clicks: bool,
    /// Hosts that are on this machine, and their ports.
    here: BTreeMap<String, u16>,
}

/// Where a browser ended.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// What stands in the address bar.
    pub url: String,
    /// The last page's status.
    pub status: u16,
    /// The last page's headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The last page's text.
    pub body: String,
    /// Every address on the way, the last one too.
    pub history: Vec<String>,
}

impl Visit {
    /// The first header of this name (in lower case) of the last page.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// One request's answer, as it came.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Page {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

impl Browser {
    /// A browser that was never used.
    pub fn new() -> Self {
        Self::default()
    }

    /// It trusts this certificate authority (PEM), too.
    #[must_use]
    pub fn trusting(mut self, ca_pem: impl Into<String>) -> Self {
        self.roots.push(ca_pem.into());
        self
    }

    /// It finds this host at this port of 127.0.0.1.
    #[must_use]
    pub fn finding(mut self, host: impl Into<String>, port: u16) -> Self {
        self.here.insert(host.into(), port);
        self
    }

    /// It follows the first link of the first page that it is not sent on from: it signs in.
    #[must_use]
    pub fn clicking(self) -> Self {
        Self { clicks: true, ..self }
    }

    /// Opens the address and goes where it is sent. An error when an address on the way cannot be
    /// reached: a real browser shows a page of its own then.
    pub fn open(&mut self, url: &str) -> io::Result<Visit> {
        let mut next = Url::parse(url).map_err(io::Error::other)?;
        let mut form: Option<String> = None;
        let mut history = Vec::new();
        let mut clicks = self.clicks;
        for _ in 0..MOST_STEPS {
            history.push(next.to_string());
            let method = if form.is_some() { "POST" } else { "GET" };
            let page = self.request(method, &next, &[], form.take().as_deref().unwrap_or(""))?;
            let location = header(&page.headers, "location").filter(|_| (300..400).contains(&page.status));
            let (step, body) = match (location, self_sending_form(&page.body)) {
                (Some(location), _) => (Some(location.to_owned()), None),
                (None, Some((action, body))) => (Some(action), Some(body)),
                (None, None) => (first_link(&page.body).filter(|_| std::mem::take(&mut clicks)), None),
            };
            let Some(step) = step else {
                return Ok(Visit {
                    url: next.to_string(),
                    status: page.status,
                    headers: page.headers,
                    body: page.body,
                    history,
                });
            };
            next = next.join(&step).map_err(io::Error::other)?;
            form = body;
        }
        Err(io::Error::other(format!("sent on more than {MOST_STEPS} times: {}", history.join(" "))))
    }

    /// One request, without going anywhere from there.
    pub fn request(&mut self, method: &str, url: &Url, headers: &[(&str, &str)], body: &str) -> io::Result<Page> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut text = format!("{method} {}{query} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n", url.path());
        if let Some(cookies) = self.cookies.get(host) {
            let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            text.push_str(&format!("Cookie: {}\r\n", pairs.join("; ")));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" {
            text.push_str(&format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        text.push_str("\r\n");
        text.push_str(body);
        let stream = match self.here.get(host) {
            Some(port) => connect("127.0.0.1", *port)?,
            None => connect(host, port)?,
        };
        let page = if url.scheme() == "https" {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
            let client = ClientConnection::new(client_config(&self.roots), name).map_err(io::Error::other)?;
            exchange(StreamOwned::new(client, stream), &text)?
        } else {
            exchange(stream, &text)?
        };
        for (_, cookie) in page.headers.iter().filter(|(name, _)| name == "set-cookie") {
            if let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.cookies
                    .entry(host.to_owned())
                    .or_default()
                    .insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Ok(page)
    }
}

/// Tries every address of the host in turn, as browsers do with `localhost`.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in (host.trim_matches(['[', ']']), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(io::Error::new(failure.kind(), format!("cannot reach {host}:{port}: {failure}")))
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Page> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut body = Vec::new();
    match header(&headers, "content-length").and_then(|length| length.parse::<u64>().ok()) {
        Some(length) => drop(reader.take(length).read_to_end(&mut body)?),
        // The peer's TLS may end without a farewell.
        None => match reader.read_to_end(&mut body) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        },
    }
    let body = match header(&headers, "transfer-encoding") {
        Some("chunked") => unchunked(&body),
        _ => body,
    };
    Ok(Page { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
            .unwrap_or(0);
        let from = end + 2;
        let Some(chunk) = bytes.get(from..from + size).filter(|_| size > 0) else { break };
        whole.extend(chunk);
        bytes = bytes.get(from + size + 2..).unwrap_or_default();
    }
    whole
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Action and body of a form that a script sends at once.
fn self_sending_form(html: &str) -> Option<(String, String)> {
    if !html.contains(".submit()") {
        return None;
    }
    let action = attribute(html.split("<form").nth(1)?, "action")?;
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    for input in html.split("<input").skip(1) {
        body.append_pair(&attribute(input, "name")?, &attribute(input, "value")?);
    }
    Some((action, body.finish()))
}

fn first_link(html: &str) -> Option<String> {
    attribute(html.split("<a ").nth(1)?, "href")
}

/// The value of an attribute in double quotes.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let tag = tag.split('>').next()?;
    let value = tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

const MOST_STEPS: usize = 20;
const TIMEOUT: Duration = Duration::from_secs(30);
