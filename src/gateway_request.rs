//! May this request come in, and where does it go? The policy of the local server, without any
//! input or output: from a request's head to a [`Decision`].
//!
//! Whoever gets through acts as the user, so everything that is not plainly the one browser's own
//! page is refused with its reason: other names of this machine (DNS rebinding), other origins
//! (other ports of `localhost` too), other users, and paths that two readers could take for
//! different things. hyper refuses what is no HTTP: several lengths that differ, a last coding
//! other than `chunked`, folded headers; where both a length and `chunked` are given it drops the
//! length and closes the connection (RFC 9112 §6.3), and every body is framed anew on its way up.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use crate::browser_session::Standing;
use crate::error::{Error, Result};
use crate::peer::Peer;
use crate::secret::Secret;
use crate::watch::WatchRequest;

/// What the local server knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// The values of `Host` that it answers to.
    hosts: Vec<String>,
    /// Headlamp's base URL: empty, or a path without a slash at its end.
    base: String,
    /// The clusters of `/config`, by the names they have there.
    clusters: Vec<String>,
    /// What the way back from a sign-in proves itself with.
    way_back: Option<Secret>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Our start page, which leads on to this path of ours; `looking` for a prefetch or `HEAD`, which
    /// must not use it up.
    Start {
        secret: Secret,
        looking: bool,
        to: String,
    },
    /// Our page for a browser without a session, for one whose session ended, and for whoever asks.
    SessionPage,
    /// The button of our session page: sign in again.
    SignIn,
    /// The button of our logged-out page.
    ComeBack,
    /// Our page that takes a tab from the provider back into the session, to this path of ours: a
    /// strict cookie does not survive redirects that come from another site.
    Return {
        to: String,
    },
    /// A file of the page, or its index page; the path is without the base.
    File {
        path: String,
    },
    Config,
    Plugins,
    Me {
        cluster: String,
    },
    /// The page's own "Log out".
    SetToken,
    Api(ApiTarget),
    /// A websocket that is passed through: logs, exec, attach.
    Upgrade(ApiTarget),
    /// A websocket that we hold, with a watch behind it.
    Watch {
        cluster: String,
        watch: WatchRequest,
    },
    Redirect {
        to: String,
    },
    Refuse(Refusal),
}

/// A path of a cluster's API server, as the browser wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiTarget {
    pub(crate) cluster: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
}

/// Why not, for the person who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: &'static str,
    /// What does the same.
    pub(crate) instead: Option<&'static str>,
}

/// Where our own pages are. No application route begins so.
pub(crate) const OWN_PREFIX: &str = "/.kubectl-headlamp";

/// The roots of the API that the page may ask for.
const API_ROOTS: [&str; 7] = ["api", "apis", "version", "healthz", "livez", "readyz", "openapi"];

type Outcome = Result<Decision, Refusal>;

impl Gate {
    /// Of a server on a loopback port. `base` is Headlamp's base URL, with or without a slash at its end.
    pub(crate) fn new(port: u16, base: &str, clusters: Vec<String>) -> Self {
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}"));
        Self { hosts: hosts.into(), base: base.trim_end_matches('/').to_owned(), clusters, way_back: None }
    }

    /// Answers to this `Host` too.
    pub(crate) fn with_host(mut self, host: String) -> Self {
        self.hosts.push(host);
        self
    }

    /// Lets a tab back from the provider that has this as `pass`.
    pub(crate) fn with_way_back(self, way_back: Secret) -> Self {
        Self { way_back: Some(way_back), ..self }
    }

    /// Where the page begins.
    pub(crate) fn home(&self) -> String {
        format!("{}/", self.base)
    }

    /// The address of a path of the page, as a person writes it; an error if it leads elsewhere.
    pub(crate) fn address(&self, path: &str) -> Result<String> {
        let address = format!("{}{}", self.home(), path.strip_prefix('/').unwrap_or(path));
        if stays_here(self, &address) {
            return Ok(address);
        }
        Err(Error::usage(format!("`{path}` is no path of Headlamp's page"))
            .hint("write it as in the browser's address bar, such as `/c/main/pods`"))
    }

    /// The path, where it stays with the page; else where the page begins.
    pub(crate) fn or_home(&self, path: &str) -> String {
        if stays_here(self, path) { path.to_owned() } else { self.home() }
    }

    /// Where a browser is to go that comes with this query or form: it stands there as `to`.
    pub(crate) fn wanted(&self, query: &str) -> String {
        let to = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "to");
        self.or_home(&to.map(|(_, to)| to).unwrap_or_default())
    }
}

impl Gate {
    fn lets_back(&self, query: &str) -> bool {
        let pass = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "pass");
        let pair = pass.as_ref().zip(self.way_back.as_ref());
        pair.is_some_and(|((_, pass), way_back)| way_back.is(pass.as_bytes()))
    }
}

/// Whether a person has written a path of the page, wherever that begins.
pub(crate) fn check_page_path(path: &str) -> Result<()> {
    Gate::new(0, "", Vec::new()).address(path).map(drop)
}

impl ApiTarget {
    pub(crate) fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Whether the answer may never end: it wants a connection of its own.
    pub(crate) fn endless(&self) -> bool {
        let query = self.query.as_deref().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
            matches!(&*name, "watch" | "follow") && !matches!(&*value.to_ascii_lowercase(), "false" | "0")
        })
    }
}

impl Refusal {
    const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, instead: None }
    }

    const fn malformed(reason: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    const fn forbidden(reason: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }

    const fn method(reason: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, reason)
    }

    const fn instead(self, instead: &'static str) -> Self {
        Self { instead: Some(instead), ..self }
    }
}

/// Whether a person will see the answer, in a tab. Old browsers say so only by what they accept.
pub(crate) fn is_document(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-dest") {
        Some(destination) => destination == "document",
        None => headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html"))),
    }
}

/// Judges a request. `standing` is what its cookie says.
pub(crate) fn decide(gate: &Gate, head: &Parts, peer: Peer, standing: Standing) -> Decision {
    judge(gate, head, peer, standing).unwrap_or_else(Decision::Refuse)
}

fn judge(gate: &Gate, head: &Parts, peer: Peer, standing: Standing) -> Outcome {
    match peer {
        Peer::AnotherUser => return Err(Refusal::forbidden("this server belongs to another user of this machine")),
        Peer::Nobody => return Err(UNTOLD),
        Peer::SameUser | Peer::Unknown => {}
    }
    let asked = Asked::read(gate, head)?;
    asked.check_destination()?;
    if let Some(own) = asked.path.strip_prefix(OWN_PREFIX).and_then(|rest| rest.strip_prefix('/')) {
        return own_page(gate, &asked, own, standing);
    }
    asked.check_origin()?;
    if standing != Standing::Known {
        return if asked.document() { Ok(Decision::SessionPage) } else { Err(NO_SESSION) };
    }
    page(gate, &asked)
}

/// For what is no tab of the browser that has the session.
pub(crate) const NO_SESSION: Refusal =
    Refusal::forbidden("only the browser that `kubectl headlamp open` opened is served here")
        .instead("run `kubectl headlamp open`");
const UNTOLD: Refusal =
    Refusal::forbidden("this system does not say whose connection this is, and other users of it are not served")
        .instead("reload this page, or open it in a browser that runs on this system");
const WRONG_METHOD: Refusal = Refusal::method("this address does not take this method");

/// A request whose form is beyond doubt.
struct Asked<'a> {
    method: &'a Method,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    origin: Option<&'a str>,
    /// `Sec-Fetch-Site` and `Sec-Fetch-Dest`: every browser sends them since 2023, to `localhost` too.
    site: Option<&'a str>,
    destination: Option<&'a str>,
    upgrade: bool,
    headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    fn read(gate: &Gate, head: &'a Parts) -> Result<Self, Refusal> {
        let headers = &head.headers;
        if head.uri.scheme().is_some() || head.uri.authority().is_some() || !head.uri.path().starts_with('/') {
            return Err(Refusal::malformed("this is a server, not a proxy: ask for a path"));
        }
        let host = one(headers, header::HOST)?.ok_or(Refusal::malformed("the request names no `Host`"))?;
        if !gate.hosts.iter().any(|ours| ours == host) {
            return Err(Refusal::forbidden("this server is `localhost` and answers to no other name"));
        }
        let asked = Self {
            method: &head.method,
            host,
            path: head.uri.path(),
            query: head.uri.query(),
            origin: one(headers, header::ORIGIN)?,
            site: one(headers, HeaderName::from_static("sec-fetch-site"))?,
            destination: one(headers, HeaderName::from_static("sec-fetch-dest"))?,
            upgrade: upgrade(headers)?,
            headers,
        };
        asked.check_method()?;
        asked.check_framing()?;
        check_path(asked.path)?;
        if !asked.query.unwrap_or_default().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refusal::malformed("the address has characters that must be encoded"));
        }
        Ok(asked)
    }

    fn check_method(&self) -> Result<(), Refusal> {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        if !known.contains(self.method) || self.upgrade && self.method != Method::GET {
            return Err(WRONG_METHOD);
        }
        Ok(())
    }

    /// One reading of where the body ends.
    fn check_framing(&self) -> Result<(), Refusal> {
        let coding = one(self.headers, header::TRANSFER_ENCODING)?;
        let length = one(self.headers, header::CONTENT_LENGTH)?;
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) || coding.is_some() && length.is_some()
        {
            return Err(Refusal::malformed("the length of the request is not clear"));
        }
        if self.reads() && (coding.is_some() || length.is_some_and(|length| length != "0")) {
            return Err(Refusal::malformed("a request that only reads has no body"));
        }
        Ok(())
    }

    /// `GET` and `HEAD`.
    fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// A person sees the answer, in a tab.
    fn document(&self) -> bool {
        self.reads() && !self.upgrade && is_document(self.headers)
    }

    /// What is refused whatever is asked for. A service worker would answer later pages of this
    /// port in our place; a frame would let another page borrow clicks.
    fn check_destination(&self) -> Result<(), Refusal> {
        if self.headers.contains_key("service-worker") || self.destination == Some("serviceworker") {
            return Err(Refusal::forbidden("service workers cannot be registered here"));
        }
        match self.destination {
            Some("iframe" | "frame" | "embed" | "object" | "fencedframe") => {
                Err(Refusal::forbidden("nothing here is shown inside another page"))
            }
            _ => Ok(()),
        }
    }

    /// The request comes from our own page, or from nowhere: the address bar, a program that
    /// opened it. Where `Sec-Fetch-Site` is missing, the cookie decides: it is `SameSite=Strict`.
    fn check_origin(&self) -> Result<(), Refusal> {
        let ours = self.origin.map(|origin| origin.strip_prefix("http://") == Some(self.host));
        let needed = self.upgrade || !self.reads();
        if ours == Some(false) || needed && ours.is_none() {
            return Err(Refusal::forbidden("only this server's own page may ask this"));
        }
        let site_fits = match self.site {
            None | Some("same-origin") => true,
            Some("none") => !needed,
            // Browsers disagree on what a websocket's site is; its origin has just been checked.
            Some(_) => self.upgrade,
        };
        if site_fits { Ok(()) } else { Err(CROSS_SITE) }
    }

    /// An answer for the page's scripts. As a document, frame or script it would run on our origin,
    /// and a pod can answer with anything behind `…/proxy/`.
    fn check_data(&self) -> Result<(), Refusal> {
        let fits = match self.destination {
            Some(destination) => destination == "empty" || self.upgrade,
            None => !self.document(),
        };
        if fits {
            Ok(())
        } else {
            Err(Refusal::forbidden("answers of the cluster are for the page, not for the address bar"))
        }
    }
}

const CROSS_SITE: Refusal = Refusal::forbidden("another site's page may not ask this, nor lead here by a link")
    .instead("type the address, or copy it into the address bar");

/// The header's value; `None` if it is missing. What comes twice has two readings.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str()).transpose();
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        _ => Err(Refusal::malformed("a header of the request comes twice or is not text")),
    }
}

/// Whether a websocket is asked for; no other upgrade is known here.
fn upgrade(headers: &HeaderMap) -> Result<bool, Refusal> {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let connection =
        connection.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    match one(headers, header::UPGRADE)? {
        None if !connection => Ok(false),
        Some(protocol) if connection && protocol.eq_ignore_ascii_case("websocket") => Ok(true),
        _ => Err(Refusal::malformed("the only upgrade here is to a websocket")),
    }
}

/// A path with one reading: what one server takes for a name, no other must take for a separator
/// or a step up.
fn check_path(path: &str) -> Result<(), Refusal> {
    const AMBIGUOUS: Refusal = Refusal::malformed("the path can be read in two ways");
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let plain = segment.bytes().all(|byte| byte.is_ascii_graphic());
        let decoded = decoded(segment).ok_or(AMBIGUOUS)?;
        let empty_within = segment.is_empty() && segments.peek().is_some();
        let separators = |character: char| character.is_control() || matches!(character, '/' | '\\' | ';' | '%');
        if !plain || empty_within || matches!(&*decoded, "." | "..") || decoded.contains(separators) {
            return Err(AMBIGUOUS);
        }
    }
    Ok(())
}

/// The segment's text; `None` where an encoding is cut short or the text is not UTF-8.
fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    // What does not decode stays as it is, with its percent sign, which is refused.
    Some(decoded)
}

/// Our own pages, each with its own rule of who may ask.
fn own_page(gate: &Gate, asked: &Asked<'_>, rest: &str, standing: Standing) -> Outcome {
    if asked.upgrade {
        return Err(NOT_FOUND);
    }
    if rest == "return" {
        // From the provider it is another site's request, without the cookie. It holds nothing, but no
        // other site's link is to lead about in the page.
        let query = asked.query.unwrap_or_default();
        return match asked.site {
            _ if !asked.reads() => Err(WRONG_METHOD),
            Some(site) if !matches!(site, "none" | "same-origin") && !gate.lets_back(query) => Err(CROSS_SITE),
            _ => Ok(Decision::Return { to: gate.wanted(query) }),
        };
    }
    asked.check_origin()?;
    let reads = asked.reads();
    match rest.split_once('/').unwrap_or((rest, "")) {
        ("start", secret) if reads => Ok(Decision::Start {
            secret: Secret::new(secret),
            looking: asked.method == Method::HEAD || prefetch(asked.headers),
            to: gate.wanted(asked.query.unwrap_or_default()),
        }),
        ("session" | "sign-in" | "come-back", "") if reads => Ok(Decision::SessionPage),
        ("sign-in", "") if *asked.method == Method::POST && standing == Standing::Known => Ok(Decision::SignIn),
        ("come-back", "") if *asked.method == Method::POST && standing == Standing::LoggedOut => Ok(Decision::ComeBack),
        ("sign-in" | "come-back", "") => Err(NO_SESSION),
        _ => Err(NOT_FOUND),
    }
}

/// Whether a browser that is sent to it stays with the page.
fn stays_here(gate: &Gate, to: &str) -> bool {
    let (path, query) = to.split_once('?').unwrap_or((to, ""));
    path.starts_with(&gate.home())
        && !path.starts_with(OWN_PREFIX)
        && check_path(path).is_ok()
        && query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// The browser looks ahead, for itself: nobody has opened the address yet.
fn prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().flat_map(|name| headers.get_all(*name)).any(|value| {
        value
            .to_str()
            .is_ok_and(|value| ["prefetch", "preview", "prerender"].iter().any(|purpose| value.contains(purpose)))
    })
}

const NOT_FOUND: Refusal = Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this address");

/// A request of the one browser.
fn page(gate: &Gate, asked: &Asked<'_>) -> Outcome {
    let path = match asked.path.strip_prefix(gate.base.as_str()) {
        Some("") => return Ok(Decision::Redirect { to: gate.home() }),
        Some(path) if path.starts_with('/') => path,
        _ if asked.path == "/" => return Ok(Decision::Redirect { to: gate.home() }),
        _ => return Err(NOT_FOUND),
    };
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if let Some(refusal) = segments.first().and_then(|first| headlamps_own(first)) {
        return Err(refusal);
    }
    match segments.as_slice() {
        ["clusters", name, rest @ ..] if !rest.is_empty() => cluster(gate, asked, name, rest),
        _ if asked.upgrade => Err(NOT_FOUND),
        ["plugins", ..] if !asked.reads() => {
            Err(Refusal::forbidden("plugins are managed where Headlamp is installed, not from here"))
        }
        ["auth", "set-token"] if !asked.reads() => Err(Refusal::forbidden(SIGN_IN_IS_OURS)),
        _ if !asked.reads() => Err(WRONG_METHOD),
        ["config"] => asked.check_data().map(|()| Decision::Config),
        ["plugins"] => asked.check_data().map(|()| Decision::Plugins),
        // The page's own sign-in pages, where it would stay.
        ["c", name, "token" | "login"] if asked.document() => {
            Ok(Decision::Redirect { to: format!("{}/c/{name}/", gate.base) })
        }
        _ => Ok(Decision::File { path: path.to_owned() }),
    }
}

const SIGN_IN_IS_OURS: &str = "the sign-in is kubectl's here, and no token is taken from the page";

/// What Headlamp's own server does for its page, with rights or a reach of its own. It is not asked.
fn headlamps_own(first: &str) -> Option<Refusal> {
    let refusal = match first {
        "externalproxy" => Refusal::forbidden("requests to other sites are not passed on"),
        "wsMultiplexer" => Refusal::forbidden(
            "live updates come over one websocket each here, not over the multiplexer that some versions of Headlamp use",
        )
        .instead("update Headlamp to 0.39 or later"),
        "drain-node" | "drain-node-status" => Refusal::forbidden("nodes are not drained by the page here")
            .instead("kubectl drain NODE --ignore-daemonsets"),
        "portforward" => PORT_FORWARD,
        "cluster" | "parseKubeConfig" => {
            Refusal::forbidden("clusters are not added or removed by the page here").instead("kubectl config")
        }
        "oidc" | "oidc-callback" => Refusal::forbidden(SIGN_IN_IS_OURS),
        _ => return None,
    };
    Some(refusal)
}

const PORT_FORWARD: Refusal =
    Refusal::forbidden("the page does not forward ports here").instead("kubectl port-forward POD LOCAL:REMOTE");

/// `/clusters/<name>/…`
fn cluster(gate: &Gate, asked: &Asked<'_>, name: &str, rest: &[&str]) -> Outcome {
    let name = decoded(name).unwrap_or_default();
    let Some(cluster) = gate.clusters.iter().find(|cluster| **cluster == name).cloned() else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "this cluster is not served here"));
    };
    match rest {
        [root, ..] if API_ROOTS.contains(root) => api(asked, cluster, rest),
        ["portforward", ..] => Err(PORT_FORWARD),
        ["helm", ..] => Err(Refusal::forbidden("the page does not manage Helm releases here").instead("helm")),
        ["serviceproxy", ..] => Err(Refusal::forbidden("services are not reached through Headlamp here")
            .instead("kubectl port-forward service/NAME LOCAL:REMOTE")),
        _ if asked.upgrade => Err(NOT_FOUND),
        ["me"] if asked.reads() => asked.check_data().map(|()| Decision::Me { cluster }),
        ["set-token"] if *asked.method == Method::POST => asked.check_data().map(|()| Decision::SetToken),
        ["me" | "set-token"] => Err(WRONG_METHOD),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "this is no path of the Kubernetes API that the page needs")),
    }
}

fn api(asked: &Asked<'_>, cluster: String, rest: &[&str]) -> Outcome {
    asked.check_data()?;
    let path = format!("/{}", rest.join("/"));
    if let Some(watch) = WatchRequest::of(&path, asked.query.unwrap_or_default()).filter(|_| asked.upgrade) {
        return Ok(Decision::Watch { cluster, watch });
    }
    let target = ApiTarget { cluster, path, query: asked.query.map(str::to_owned) };
    Ok(if asked.upgrade { Decision::Upgrade(target) } else { Decision::Api(target) })
}

#[cfg(test)]
mod tests;
