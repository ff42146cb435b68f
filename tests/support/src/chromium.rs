//! Headless Chromium, driven by a test: pages that it opens, clicks in, asks and waits for.
//!
//! `tests/real/pages.mjs` is on the other end. A page's own policy does not get in the way of
//! [`Page::eval`], and nothing else of it is loosened.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::quiet_network;
use crate::real::{Node, chromium};
use crate::server::{Reply, Request, Response, Server, lock};

/// A browser, until it is dropped.
pub struct Chromium {
    process: Mutex<Process>,
}

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// A tab.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    browser: &'a Chromium,
    number: u64,
}

/// The answer that a page came from.
#[derive(Clone, Debug, Deserialize)]
pub struct Arrival {
    /// Its status; `None` if there was no request.
    pub status: Option<u16>,
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Where the page is, after redirects.
    pub url: String,
}

/// All that a page left behind or came by since it was opened.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Where it is.
    pub url: String,
    /// The tab's history.
    pub history: Vec<String>,
    /// Every cookie of the profile, as Playwright has them: `name`, `value`, `path`, `httpOnly`, ….
    pub cookies: Vec<Value>,
    /// `local`, `session`, `databases`, `caches`, `workers`; text, if the page has none of them.
    pub storage: Value,
    /// The console's, and uncaught exceptions.
    pub messages: Vec<Message>,
    /// Every request but websockets'.
    pub requests: Vec<Traffic>,
    /// Every websocket.
    pub sockets: Vec<Socket>,
}

/// A line of the console.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// `log`, `warning`, `error`, …; `exception` for one that nobody caught.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says.
    pub text: String,
}

/// A request of a page and what came of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// `GET`, …
    pub method: String,
    /// Where to.
    pub url: String,
    /// The body that was sent.
    pub sent: Option<String>,
    /// With all that the browser adds, names in lower case.
    pub request_headers: BTreeMap<String, String>,
    /// `None` without an answer.
    pub status: Option<u16>,
    /// The answer's, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The answer's body, if it has ended and the browser still has it.
    pub body: Option<String>,
    /// Why there is no answer.
    pub failure: Option<String>,
}

/// A websocket of a page.
#[derive(Clone, Debug, Deserialize)]
pub struct Socket {
    /// Where to.
    pub url: String,
    /// The frames that the page sent.
    pub sent: Vec<String>,
    /// The frames that it got.
    pub received: Vec<String>,
    /// Whether it is open.
    pub open: bool,
}

impl Chromium {
    /// A new browser, if Node.js and Chromium are found.
    pub fn start() -> Option<Self> {
        Self::launch(None)
    }

    /// The same, which trusts the certificates of the authority in this file.
    pub fn start_trusting(authority: &Path) -> Option<Self> {
        Self::launch(Some(authority))
    }

    fn launch(authority: Option<&Path>) -> Option<Self> {
        let (node, chromium) = (Node::found()?, chromium()?);
        let mut command = node.command("pages.mjs");
        command.args(authority).env("CHROMIUM", chromium).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = quiet_network::spawn(&mut command).expect("node");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let browser = Self { process: Mutex::new(Process { child, stdin, answers }) };
        lock(&browser.process).answer().expect("Chromium");
        Some(browser)
    }

    /// A new tab, with the cookies of the others.
    pub fn page(&self) -> Page<'_> {
        self.open(false)
    }

    /// A new tab of somebody else: no cookies, nothing stored.
    pub fn stranger(&self) -> Page<'_> {
        self.open(true)
    }

    fn open(&self, stranger: bool) -> Page<'_> {
        let number = self.ask(&json!({"do": "page", "stranger": stranger})).expect("a page");
        Page { browser: self, number: number.as_u64().expect("a number") }
    }

    fn ask(&self, command: &Value) -> Result<Value, String> {
        let mut process = lock(&self.process);
        let stdin = process.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{command}").expect("node reads");
        process.answer()
    }
}

impl Process {
    fn answer(&self) -> Result<Value, String> {
        let line = self.answers.recv_timeout(PATIENCE).expect("an answer of pages.mjs");
        let mut answer: Value = serde_json::from_str(&line).expect("JSON");
        match answer["error"].take() {
            Value::String(error) => Err(error),
            _ => Ok(answer["value"].take()),
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // It closes the browser and ends with its stdin.
        process.stdin = None;
        let _ = process.child.wait();
    }
}

impl Page<'_> {
    /// Opens an address; returns as soon as the answer began.
    ///
    /// # Panics
    /// If there was no answer.
    pub fn goto(&self, url: &str) -> Arrival {
        self.try_goto(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// The same, or why there was no answer.
    pub fn try_goto(&self, url: &str) -> Result<Arrival, String> {
        self.arrival("goto", json!({"url": url}))
    }

    /// Loads the page again.
    pub fn reload(&self) -> Arrival {
        self.arrival("reload", json!({})).expect("an answer")
    }

    /// The value of an expression in the page; `await` works in it.
    ///
    /// # Panics
    /// If it throws, or is something else.
    pub fn eval<T: DeserializeOwned>(&self, script: &str) -> T {
        self.try_eval(script).unwrap_or_else(|error| panic!("`{script}`: {error}, in {}", self.state()))
    }

    /// The same, or what was thrown.
    pub fn try_eval<T: DeserializeOwned>(&self, script: &str) -> Result<T, String> {
        let value = self.ask("evaluate", json!({"script": script}))?;
        serde_json::from_value(value.clone()).map_err(|error| format!("{value}: {error}"))
    }

    /// Waits until an expression is true; while the page loads, it is not.
    ///
    /// # Panics
    /// If it is not within a minute and a half, which is long even for a machine that does much
    /// else: then the page's text, its console and what its script has seen are told.
    pub fn wait_for(&self, script: &str) {
        let condition = format!("Boolean({script})");
        let end = Instant::now() + PATIENCE;
        while !self.try_eval::<bool>(&condition).unwrap_or_default() {
            assert!(Instant::now() <= end, "waited {PATIENCE:?} in vain for `{script}` in {}", self.state());
            std::thread::sleep(GLANCE);
        }
    }

    /// What a failed test has to tell: the page's text, its console and what its script has seen.
    fn state(&self) -> String {
        let page: Result<String, String> = self.try_eval("document.documentElement.outerHTML.slice(0, 4000)");
        let seen: Result<String, String> = self.try_eval("JSON.stringify(seen)");
        format!("{page:?}, with {:?} and {seen:?}", self.report().messages)
    }

    /// Clicks what this CSS selector finds, once it is there.
    pub fn click(&self, selector: &str) {
        self.ask("click", json!({"selector": selector})).unwrap_or_else(|error| panic!("`{selector}`: {error}"));
    }

    /// At the certified provider's pages: signs in as this person and agrees.
    pub fn sign_in(&self, person: &str) {
        self.ask("sign_in", json!({"person": person})).expect("the provider's pages");
    }

    /// Whether its profile has no network.
    pub fn set_offline(&self, offline: bool) {
        self.ask("offline", json!({"offline": offline})).expect("a page");
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.eval("location.href")
    }

    /// All that it left behind or came by.
    pub fn report(&self) -> Report {
        let report = self.ask("report", json!({})).expect("a report");
        serde_json::from_value(report).expect("a report")
    }

    /// Closes the tab.
    pub fn close(self) {
        self.ask("close", json!({})).expect("a page");
    }

    fn arrival(&self, command: &str, arguments: Value) -> Result<Arrival, String> {
        Ok(serde_json::from_value(self.ask(command, arguments)?).expect("an arrival"))
    }

    fn ask(&self, command: &str, mut arguments: Value) -> Result<Value, String> {
        arguments["do"] = json!(command);
        arguments["page"] = json!(self.number);
        self.browser.ask(&arguments)
    }
}

impl Report {
    /// Everywhere that this text is: `cookie session`, `body of http://…`, ….
    pub fn places_of(&self, text: &str) -> Vec<String> {
        let mut places = Vec::new();
        let mut look = |place: String, content: &str| {
            if content.contains(text) {
                places.push(place);
            }
        };
        for url in self.history.iter().chain([&self.url]) {
            look(format!("history {url}"), url);
        }
        for cookie in &self.cookies {
            look(format!("cookie {}", cookie["name"]), &cookie.to_string());
        }
        look("storage".to_owned(), &self.storage.to_string());
        for message in &self.messages {
            look(format!("console {}", message.kind), &message.text);
        }
        for request in &self.requests {
            let url = &request.url;
            look(format!("address {url}"), url);
            look(format!("sent to {url}"), request.sent.as_deref().unwrap_or_default());
            look(format!("headers to {url}"), &format!("{:?}", request.request_headers));
            look(format!("headers from {url}"), &format!("{:?}", request.headers));
            look(format!("body of {url}"), request.body.as_deref().unwrap_or_default());
        }
        for socket in &self.sockets {
            look(format!("address {}", socket.url), &socket.url);
            look(format!("frames to {}", socket.url), &socket.sent.join("\n"));
            look(format!("frames from {}", socket.url), &socket.received.join("\n"));
        }
        places
    }
}

/// A site of somebody else: one page, at every path of a port of its own on 127.0.0.1. Chromium
/// finds it at `localhost` and at every name under `.test` too.
pub struct Site {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    _server: Server,
}

impl Site {
    /// A site with this page.
    pub fn start(html: &str) -> Self {
        let html = html.to_owned();
        let (listener, port) = Server::bind(0);
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let server = Server::start(listener, None, move |request, _| {
            lock(&seen).push(request.clone());
            Reply::Whole(Response::html(200, html.clone()))
        });
        Self { port, requests, _server: server }
    }

    /// Every request that came, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// Its address under this name.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.port)
    }
}

/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(50);
/// For whatever the browser is told to do: more than it waits itself.
const PATIENCE: Duration = Duration::from_secs(90);
