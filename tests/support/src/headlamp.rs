//! A stand-in for Headlamp's server and its page, which behaves as the real ones of 0.30 to 0.45 do
//! in all that a launcher meets.
//!
//! The page (`tests/support/page`) starts as Headlamp's does and shows what it sees in the DOM; it
//! is ours, and small. The server serves it as Headlamp serves its own, notes every request with all
//! its headers, and is itself never asked for the Kubernetes API: that a launcher answers.
//! `examples/headlamp.rs` is the same as a program, for pods.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Value, json};

use crate::authority::{Certificate, server_config};
use crate::script::{Answer, Scripts};
use crate::server::{Reply, Request, Response, Server, Stop, lock};

/// What kind of Headlamp it stands for.
#[derive(Clone)]
pub struct StandInOptions {
    /// The version whose ways it has.
    pub version: Version,
    /// `-base-url`: empty, or such as `/headlamp`.
    pub base_url: String,
    /// The name of its own cluster (`-in-cluster-context-name`; always `main` before 0.40).
    pub context_name: String,
    /// The provider of Headlamp's own sign-in; with one, `/config` says `"auth_type":"oidc"`.
    pub oidc: Option<Oidc>,
    /// Speaks HTTPS only, with this certificate.
    pub tls: Option<Certificate>,
    /// How many further scripts the page has: the index page names half of them, and the others are
    /// known to who runs the page's script.
    pub chunks: usize,
    /// Bytes of each of them, before compression.
    pub chunk_size: usize,
    /// Which build of the page: another one has other names for its files.
    pub build: String,
    /// How long each answer takes.
    pub delay: Duration,
}

impl Default for StandInOptions {
    fn default() -> Self {
        Self {
            version: Version(0, 45, 0),
            base_url: String::new(),
            context_name: "main".to_owned(),
            oidc: None,
            tls: None,
            chunks: 0,
            chunk_size: 40 * 1024,
            build: "first".to_owned(),
            delay: Duration::ZERO,
        }
    }
}

/// A version of Headlamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u16> = text.split('.').filter_map(|number| number.parse().ok()).collect();
        match numbers.as_slice() {
            [major, minor, patch] => Ok(Self(*major, *minor, *patch)),
            _ => Err(format!("`{text}` is no version")),
        }
    }
}

/// Headlamp's own sign-in.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// Such as `https://login.example.com`; its authorization endpoint is taken to be `/authorize`.
    pub issuer: String,
    /// The client that Headlamp is.
    pub client: String,
}

/// A Headlamp that listens until it is dropped.
pub struct StandIn {
    shared: Arc<Shared>,
    port: u16,
    _server: Server,
}

struct Shared {
    options: StandInOptions,
    started: Timestamp,
    page: Mutex<Page>,
    config_edit: Mutex<Option<ConfigEdit>>,
    scripts: Scripts<String>,
    requests: Mutex<Vec<Request>>,
}

type Note = Box<dyn Fn(&Request) + Send + Sync>;
type ConfigEdit = Box<dyn Fn(&mut Value) + Send + Sync>;

impl StandIn {
    /// On a free port of loopback.
    pub fn start(options: StandInOptions) -> Self {
        let (listener, _) = Server::bind(0);
        Self::serve(listener, options, None)
    }

    /// On this port of all interfaces; each request is told as it comes, and not kept.
    pub fn start_in_pod(options: StandInOptions, port: u16, note: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .expect("the port");
        Self::serve(listener, options, Some(Box::new(note)))
    }

    fn serve(listener: TcpListener, options: StandInOptions, note: Option<Note>) -> Self {
        let port = listener.local_addr().expect("a bound address").port();
        let tls = options.tls.as_ref().map(|certificate| server_config(certificate, None));
        let page = Page::built(&options);
        let shared = Arc::new(Shared {
            options,
            started: Timestamp::now(),
            page: Mutex::new(page),
            config_edit: Mutex::default(),
            scripts: Scripts::default(),
            requests: Mutex::default(),
        });
        let server = {
            let shared = Arc::clone(&shared);
            Server::start(listener, tls, move |request, stop| -> Reply {
                match &note {
                    Some(note) => note(request),
                    None => lock(&shared.requests).push(request.clone()),
                }
                shared.reply(request, stop)
            })
        };
        Self { shared, port, _server: server }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its page, with the slash at the end that it wants.
    pub fn url(&self) -> String {
        let options = &self.shared.options;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{}/", self.port, options.base_url)
    }

    /// From now on it has another build of the page: files of the old one are gone, as after a
    /// rollout.
    pub fn roll_out(&self, build: &str) {
        *lock(&self.shared.page) =
            Page::built(&StandInOptions { build: build.to_owned(), ..self.shared.options.clone() });
    }

    /// What `/config` says is changed so, from now on.
    pub fn edit_config(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        *lock(&self.shared.config_edit) = Some(Box::new(edit));
    }

    /// Another file beside the page's, or in the place of one; the path is without the base URL.
    pub fn put_file(&self, path: &str, content: impl Into<Vec<u8>>) {
        lock(&self.shared.page).put(path, content.into());
    }

    /// The next request to this path, base URL and all, gets this answer.
    pub fn script(&self, path: &str, answer: Answer) {
        self.shared.scripts.add(path.to_owned(), answer);
    }

    /// The paths of all hashed files, without the base URL, those first that the index page names.
    pub fn assets(&self) -> Vec<String> {
        lock(&self.shared.page).assets.clone()
    }

    /// Every request, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Those of them that should have gone to the API server.
    pub fn api_requests(&self) -> Vec<Request> {
        let prefix = format!("{}/clusters/", self.shared.options.base_url);
        self.requests().into_iter().filter(|request| request.path.starts_with(&prefix)).collect()
    }
}

/// The page's files by their path, which begins with a slash.
struct Page {
    files: BTreeMap<String, File>,
    assets: Vec<String>,
}

struct File {
    content: Vec<u8>,
    /// Only where the version has compressed files.
    brotli: Option<Vec<u8>>,
}

impl Page {
    fn built(options: &StandInOptions) -> Self {
        let mut page = Self { files: BTreeMap::new(), assets: Vec::new() };
        let compressed = options.version >= COMPRESSED_SINCE;
        let chunks: Vec<String> = (0..options.chunks)
            .map(|number| page.asset("chunk", "js", chunk(options, number).into_bytes(), compressed))
            .collect();
        let cluster = page.asset("cluster", "js", marked(options, include_str!("../page/cluster.js")), compressed);
        let style = page.asset("index", "css", include_bytes!("../page/index.css").to_vec(), compressed);
        let settings = json!({
            "minor": options.version.1, "version": options.version.to_string(), "build": options.build,
            "chunks": chunks.iter().map(|chunk| format!("./{chunk}")).collect::<Vec<_>>(),
        });
        let script = include_str!("../page/index.js")
            .replace("const settings = {};", &format!("const settings = {settings};"))
            .replace("./cluster.js", &format!("./{cluster}"));
        let script = page.asset("index", "js", script.into_bytes(), compressed);

        let (named, _) = chunks.split_at(chunks.len() / 2);
        let preload =
            |chunk: &String| format!("\n    <link rel=\"modulepreload\" crossorigin href=\"./assets/{chunk}\">");
        let index = include_str!("../page/index.html")
            .replace("assets/index.js", &format!("assets/{script}"))
            .replace("assets/index.css", &format!("assets/{style}"))
            .replace(
                "assets/cluster.js\">",
                &format!("assets/{cluster}\">{}", named.iter().map(preload).collect::<String>()),
            );
        // As Headlamp does it when it starts.
        let own = if options.base_url.is_empty() { "/" } else { &options.base_url };
        let index = index
            .replace("headlampBaseUrl = __baseUrl__", &format!("headlampBaseUrl = '{own}'"))
            .replace("./", &format!("{}/", options.base_url));
        page.assets.sort_by_key(|path| !index.contains(path.as_str()));
        // The index page is never compressed: its compressed form would be the unchanged file's.
        page.files.insert("/index.html".to_owned(), File { content: index.into_bytes(), brotli: None });
        page.put("/favicon.svg", include_bytes!("../page/favicon.svg").to_vec());
        page.put("/manifest.json", include_bytes!("../page/manifest.json").to_vec());
        page
    }

    fn put(&mut self, path: &str, content: Vec<u8>) {
        self.files.insert(path.to_owned(), File { content, brotli: None });
    }

    /// Adds a file that is called after its content, and returns its name.
    fn asset(&mut self, name: &str, extension: &str, content: Vec<u8>, compressed: bool) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &content);
        let hash = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..6]);
        let name = format!("{name}-{hash}.{extension}");
        let path = format!("/assets/{name}");
        let brotli = compressed.then(|| brotli(&content));
        self.assets.push(path.clone());
        self.files.insert(path, File { content, brotli });
        name
    }
}

fn marked(options: &StandInOptions, script: &str) -> Vec<u8> {
    format!("// build {}\n{script}", options.build).into_bytes()
}

/// A script that compresses about as well as minified ones do.
fn chunk(options: &StandInOptions, number: usize) -> String {
    let mut text = format!("// build {}\nexport const number = {number};\n", options.build);
    let mut state = number as u64;
    for line in 0.. {
        if text.len() >= options.chunk_size {
            break;
        }
        // Knuth's MMIX generator: the same bytes in each run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("export const name{line} = {}; // a comment\n", state >> 40));
    }
    text
}

fn brotli(content: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
    brotli::BrotliCompress(&mut &*content, &mut compressed, &parameters).expect("a Vec takes all");
    compressed
}

impl Shared {
    fn reply(&self, request: &Request, stop: &Stop) -> Reply {
        stop.wait(self.options.delay);
        self.scripts.next(&request.path).play(stop, || self.answer(request))
    }

    fn answer(&self, request: &Request) -> Response {
        let options = &self.options;
        // Without its slash, the base URL itself is not found either.
        let Some(path) = request.path.strip_prefix(&options.base_url).filter(|path| path.starts_with('/')) else {
            return text(404, "404 page not found\n");
        };
        let newer = options.version >= COOKIES_SINCE;
        match (request.method.as_str(), path) {
            ("GET", "/config") => json_text(&self.config()),
            ("GET", "/plugins") => json_text(&json!([])),
            ("GET", "/oidc") => self.sign_in(request),
            ("GET", "/oidc-callback") => callback(request),
            ("POST", "/auth/set-token") if newer => text(400, "Cluster name is required\n"),
            _ if path.starts_with("/clusters/") => text(401, "should never come here\n"),
            (_, "/wsMultiplexer" | "/externalproxy") => text(400, "Bad Request\n"),
            _ if UNCLEAN.iter().any(|part| path.contains(part)) => {
                Response::new(301).header("Location", &format!("{}{}", options.base_url, cleaned(path)))
            }
            _ => self.file(path, request),
        }
    }

    fn config(&self) -> Value {
        let options = &self.options;
        let mut meta_data = json!({"source": "incluster", "namespace": "", "extensions": null});
        if options.version >= COOKIES_SINCE {
            meta_data["origin"] = json!({"kubeconfig": ""});
            meta_data["originalName"] = json!(options.context_name);
            meta_data["clusterID"] = json!("");
        }
        let name = if options.version < CONTEXT_NAME_SINCE { "main" } else { &options.context_name };
        let mut config = json!({
            "clusters": [{
                "name": name,
                "server": "https://10.222.0.1:443",
                "auth_type": if options.oidc.is_some() { "oidc" } else { "" },
                "meta_data": meta_data,
            }],
            "isDynamicClusterEnabled": false,
        });
        if options.version >= COMPRESSED_SINCE {
            config["allowKubeconfigChanges"] = json!(false);
            for name in ["defaultPodDebugImage", "defaultNodeShellImage", "defaultNodeShellNamespace"] {
                config[name] = json!("");
            }
        }
        if let Some(edit) = &*lock(&self.config_edit) {
            edit(&mut config);
        }
        config
    }

    /// Where Headlamp's own "Sign In" leads.
    fn sign_in(&self, request: &Request) -> Response {
        let Some(oidc) = &self.options.oidc else { return text(404, "no provider\n") };
        let host = request.header("host").unwrap_or_default();
        let redirect = format!("http://{host}{}/oidc-callback", self.options.base_url);
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", oidc.client.as_str()),
                ("redirect_uri", &redirect),
                ("response_type", "code"),
                ("scope", "openid profile email"),
                ("state", "the-state-of-the-stand-in"),
            ])
            .finish();
        Response::new(302).header("Location", &format!("{}/authorize?{query}", oidc.issuer))
    }

    /// A file as Go's `http.ServeContent` serves it; all that is none is the index page.
    fn file(&self, path: &str, request: &Request) -> Response {
        let page = lock(&self.page);
        let (path, file) = page
            .files
            .get_key_value(path)
            .or_else(|| page.files.get_key_value("/index.html"))
            .expect("there is an index page");
        let modified =
            if path == "/index.html" { self.started } else { Timestamp::from_second(BUILT).expect("a time") };
        let response = Response::new(200)
            .header("Content-Type", content_type(path))
            .header("Last-Modified", &http_date(modified))
            .header("Accept-Ranges", "bytes");
        let varies = self.options.version >= COMPRESSED_SINCE;
        let response = if varies { response.header("Vary", "Accept-Encoding") } else { response };
        let since = request.header("if-modified-since").and_then(|date| rfc2822::parse(date).ok());
        if since.is_some_and(|since| modified.as_second() <= since.timestamp().as_second()) {
            return Response { status: 304, ..response };
        }
        match &file.brotli {
            Some(brotli) if takes_brotli(request) => {
                // Go tells no length of what it sends encoded.
                response.header("Content-Encoding", "br").header("Transfer-Encoding", "chunked").body(chunked(brotli))
            }
            _ => ranged(response, &file.content, request),
        }
    }
}

/// In chunks, as HTTP/1.1 sends a body whose length it does not tell.
fn chunked(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in content.chunks(2048) {
        body.extend(format!("{:x}\r\n", chunk.len()).bytes());
        body.extend(chunk);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    body
}

/// The path as it should have been asked for.
fn cleaned(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The part that is asked for; all, if that is not a single plain range.
fn ranged(response: Response, content: &[u8], request: &Request) -> Response {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let ends = range.and_then(|(first, last)| {
        let last = if last.is_empty() { content.len() - 1 } else { last.parse().ok()? };
        Some((first.parse::<usize>().ok()?, last.min(content.len() - 1)))
    });
    match ends.and_then(|(first, last)| Some((first, last, content.get(first..=last)?))) {
        Some((first, last, part)) => Response { status: 206, ..response }
            .header("Content-Range", &format!("bytes {first}-{last}/{}", content.len()))
            .body(part),
        None => response.body(content),
    }
}

fn takes_brotli(request: &Request) -> bool {
    let accepted = request.header("accept-encoding").unwrap_or_default();
    accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "br"))
}

/// What Headlamp's provider would come back to, as a page that tests recognise.
fn callback(request: &Request) -> Response {
    let shown = |name: &str| if request.parameter(name).is_some() { "given" } else { "missing" };
    Response::html(
        200,
        format!(
            "<!DOCTYPE html><title>Headlamp's own callback</title><p>code: {}, state: {}</p>",
            shown("code"),
            shown("state")
        ),
    )
}

fn json_text(value: &Value) -> Response {
    // Go's encoder ends with a line's end.
    Response::new(200).header("Content-Type", "application/json").body(format!("{value}\n"))
}

fn text(status: u16, text: &str) -> Response {
    Response::new(status)
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("X-Content-Type-Options", "nosniff")
        .body(text)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Since then the token is in a cookie, and the page asks the API server whether it is signed in.
const COOKIES_SINCE: Version = Version(0, 35, 0);
const CONTEXT_NAME_SINCE: Version = Version(0, 40, 0);
/// Since then files come with brotli.
const COMPRESSED_SINCE: Version = Version(0, 44, 0);
/// What makes the server send to the clean path.
const UNCLEAN: [&str; 3] = ["//", "/./", "/../"];
/// When the page was built: 2026-01-01, in seconds.
const BUILT: i64 = 1_767_225_600;
