//! A browser that the test plays itself, step by step, and connections that no browser makes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use headlamp_test_support::{Browser, Play, Provider, Run, Running, Sandbox};
use url::Url;

/// A sign-in that waits for its browser.
pub(crate) struct Pending<'a> {
    pub(crate) running: Running<'a>,
    /// What the browser was opened with.
    pub(crate) start: Url,
}

/// Starts it and waits until it has opened the browser, which then does nothing by itself.
pub(crate) fn pending<'a>(sandbox: &Sandbox, run: Run<'a>) -> Pending<'a> {
    sandbox.play(Play::Ignore);
    let opened = sandbox.opened().len();
    let running = run.spawn();
    let start = Url::parse(&sandbox.wait_for_browser(opened + 1)).unwrap();
    Pending { running, start }
}

impl Pending<'_> {
    pub(crate) fn port(&self) -> u16 {
        self.start.port().unwrap()
    }

    /// Where the provider sends the browser: the whole answer.
    pub(crate) fn answer(&self) -> Url {
        sent_on(&sent_on(&self.start))
    }
}

/// Where this page sends a browser on to.
pub(crate) fn sent_on(url: &Url) -> Url {
    let page = Browser::new().request("GET", url, &[], "").unwrap();
    let location = page.headers.iter().find(|(name, _)| name == "location");
    url.join(&location.unwrap_or_else(|| panic!("{url}: {page:?}")).1).unwrap()
}

/// The value of a parameter of the query.
pub(crate) fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap_or_else(|| panic!("{name}: {url}")).1.into_owned()
}

/// The URL with another value of this parameter; `None`: without it.
pub(crate) fn with_parameter(url: &Url, name: &str, value: Option<&str>) -> Url {
    let kept: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(value.map(|value| (name, value)));
    changed
}

/// A GET, as a browser makes it that goes nowhere from there. Its status.
pub(crate) fn visited(url: &Url) -> u16 {
    Browser::new().request("GET", url, &[], "").unwrap().status
}

pub(crate) fn connected(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends these bytes, and returns what comes back until the other side closes.
pub(crate) fn sent(port: u16, bytes: &[u8]) -> String {
    let mut stream = connected(port);
    // Whoever has had enough of it closes before its end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// `get-token` for this provider, with this redirect.
pub(crate) fn with_redirect<'a>(sandbox: &'a Sandbox, provider: &Provider, redirect: &str) -> Run<'a> {
    sandbox.know(provider);
    sandbox.command([
        "get-token",
        &format!("--issuer-url={}", provider.issuer()),
        "--client-id=kubernetes",
        &format!("--redirect-url={redirect}"),
    ])
}
