//! `open --no-browser`, running, and the one browser of its page: what a page sends, and what comes.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headlamp_test_support::browser::Page;
use headlamp_test_support::{Browser, Run, Running, wait_until};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};
use url::Url;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A page that is open.
pub(crate) struct Opened<'a> {
    pub(crate) running: Running<'a>,
    /// Where the page begins.
    pub(crate) home: Url,
    /// Its cluster, as `/config` calls it.
    pub(crate) cluster: String,
    /// What the browser shows to prove itself, `name=value`.
    pub(crate) cookie: String,
    browser: Browser,
}

impl<'a> Opened<'a> {
    /// Runs it, and uses its start address.
    pub(crate) fn by(run: Run<'a>) -> Self {
        let mut running = run.args(["--no-browser", "--port", "0"]).spawn();
        let start = address(&mut running);
        let mut browser = Browser::new();
        let page = browser.request("GET", &start, &[("Accept", "text/html")], "").unwrap();
        let cookie = page.headers.iter().find(|(name, _)| name == "set-cookie").map(|(_, cookie)| cookie.as_str());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).unwrap_or_else(|| panic!("{page:?}"));
        let link = page.body.split("href=\"/").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let home = start.join(&format!("/{link}")).unwrap();
        let mut opened = Self { running, home, cluster: String::new(), cookie: cookie.to_owned(), browser };
        let config: Value = serde_json::from_str(&opened.get("config").body).unwrap();
        config["clusters"][0]["name"].as_str().unwrap().clone_into(&mut opened.cluster);
        opened
    }

    /// A GET of the page's, below where it begins.
    pub(crate) fn get(&self, path: &str) -> Page {
        self.browser.clone().request("GET", &self.url(path), &FROM_THE_PAGE, "").unwrap()
    }

    /// The page itself, as the address bar asks for it.
    pub(crate) fn index(&self) -> Page {
        let page = self.browser.clone().request("GET", &self.home, &[("Accept", "text/html")], "").unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        page
    }

    /// The script that the index page names.
    pub(crate) fn script(&self) -> Page {
        let index = self.index().body;
        let source =
            index.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{index}"));
        self.browser.clone().request("GET", &self.home.join(source).unwrap(), &FROM_THE_PAGE, "").unwrap()
    }

    /// A path of the cluster's API, below where the page begins.
    pub(crate) fn api(&self, path: &str) -> String {
        format!("clusters/{}{path}", self.cluster)
    }

    /// A GET of the cluster's API that must succeed.
    pub(crate) fn object(&self, path: &str) -> Value {
        let page = self.get(&self.api(path));
        assert_eq!(page.status, 200, "{path}: {page:?}");
        serde_json::from_str(&page.body).unwrap()
    }

    /// A websocket to the cluster's API.
    pub(crate) fn socket(&self, path: &str, protocol: Option<&str>) -> Socket {
        let address = self.home.socket_addrs(|| None).unwrap()[0];
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let url = self.url(&self.api(path)).as_str().replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        let origin = self.home.origin().ascii_serialization();
        let headers = request.headers_mut();
        headers.insert("origin", origin.parse().unwrap());
        headers.insert("cookie", self.cookie.parse().unwrap());
        if let Some(protocol) = protocol {
            headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        match tungstenite::client::client(request, stream) {
            Ok((socket, _)) => Socket(socket),
            Err(HandshakeError::Failure(error)) => panic!("{path}: {error:?}"),
            Err(HandshakeError::Interrupted(_)) => panic!("{path}: no answer within {DEADLINE:?}"),
        }
    }

    /// Lists objects and watches them from there, as the page does.
    pub(crate) fn live(&self, path: &str) -> Live {
        let list = self.object(path);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let separator = if path.contains('?') { '&' } else { '?' };
        let socket = self.socket(&format!("{path}{separator}watch=1&resourceVersion={version}"), None);
        Live { socket, objects: versions(&list) }
    }

    /// Asks for each of these again and again, side by side with whatever happens.
    pub(crate) fn poll(&self, paths: &[String]) -> Polls {
        let (stop, stopped) = channel();
        let urls: Vec<Url> = paths.iter().map(|path| self.url(path)).collect();
        let browser = self.browser.clone();
        let thread = std::thread::spawn(move || {
            let mut polled = Polled::default();
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                for url in &urls {
                    let at = Instant::now();
                    polled.count += 1;
                    let what = match browser.clone().request("GET", url, &FROM_THE_PAGE, "") {
                        Ok(page) if page.status == 200 => continue,
                        Ok(page) => format!("{} {}", page.status, page.body),
                        Err(error) => error.to_string(),
                    };
                    polled.failures.push(Failure { at, path: url.path().to_owned(), what });
                }
            }
            polled
        });
        Polls { stop, thread }
    }

    fn url(&self, path: &str) -> Url {
        self.home.join(path).unwrap()
    }
}

/// The address that it prints.
pub(crate) fn address(running: &mut Running<'_>) -> Url {
    wait_until(DEADLINE, "an address", || {
        assert!(!running.has_ended(), "it ended: {}{}", running.stdout(), running.stderr());
        running.stdout().ends_with('\n')
    });
    Url::parse(running.stdout().trim()).unwrap()
}

/// The version of each object of a list, by its name.
pub(crate) fn versions(list: &Value) -> BTreeMap<String, String> {
    list["items"].as_array().unwrap().iter().map(name_and_version).collect()
}

fn name_and_version(object: &Value) -> (String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_else(|| panic!("{object}")).to_owned();
    (text("name"), text("resourceVersion"))
}

/// A websocket.
pub(crate) struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// The next message with bytes in it; `None` at its end.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Some(text.as_bytes().to_vec()),
                Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return None,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// All that comes until the end, as text.
    pub(crate) fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        while let Some(more) = self.next() {
            bytes.extend(more);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until this text has come.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let (end, mut seen) = (Instant::now() + DEADLINE, String::new());
        while !seen.contains(text) {
            let more = self.next().unwrap_or_else(|| panic!("it ended without `{text}`: {seen}"));
            seen.push_str(&String::from_utf8_lossy(&more));
            assert!(Instant::now() < end, "no `{text}`: {seen}");
        }
    }
}

/// What a page shows that watches.
pub(crate) struct Live {
    socket: Socket,
    /// The version of each object, by its name.
    objects: BTreeMap<String, String>,
}

impl Live {
    /// Takes in events until the page shows that.
    pub(crate) fn wait_for(&mut self, what: &str, shows: impl Fn(&BTreeMap<String, String>) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !shows(&self.objects) {
            assert!(Instant::now() < end, "waited in vain for {what}: {:?}", self.objects);
            let event = self.socket.next().unwrap_or_else(|| panic!("the watch ended without {what}"));
            let event: Value = serde_json::from_slice(&event).unwrap();
            let (name, version) = name_and_version(&event["object"]);
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => drop(self.objects.insert(name, version)),
                Some("DELETED") => drop(self.objects.remove(&name)),
                _ => panic!("{event}"),
            }
        }
    }
}

/// GETs that go on.
pub(crate) struct Polls {
    stop: Sender<()>,
    thread: JoinHandle<Polled>,
}

/// What they came to.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    pub(crate) count: usize,
    pub(crate) failures: Vec<Failure>,
}

#[derive(Debug)]
#[allow(dead_code, reason = "shown by a test that fails")]
pub(crate) struct Failure {
    /// When it was asked.
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) what: String,
}

impl Polls {
    pub(crate) fn stop(self) -> Polled {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

/// As a browser says of what a script of the page asks for.
const FROM_THE_PAGE: [(&str, &str); 3] =
    [("Accept", "application/json, */*"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "empty")];
/// Between two rounds of GETs.
const PACE: Duration = Duration::from_millis(50);
