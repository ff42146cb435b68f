//! The local server of `open`: Headlamp's page, and the clusters that it asks, for one browser.
//!
//! Who may ask what is decided in `gateway_request`; here each decision is carried out. The page's
//! files come from `ui_files`, the answers of clusters from `gateway_api`, our own pages from
//! `gateway_page`. Nothing outlives [`Gateway::serve`].

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::request::Parts as Head;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use url::{Url, form_urlencoded};

use crate::api_connection::{empty, full};
use crate::browser_session::{BrowserSession, End, Situation, Standing, Start};
use crate::cluster_client::{ClusterClient, Trouble};
use crate::error::{Error, Result};
use crate::gateway_answer::RELOAD;
use crate::gateway_api::ApiSide;
use crate::gateway_headers::{PagePolicy, own_page};
use crate::gateway_listener::{self, Caller, Limits};
use crate::gateway_page as page;
use crate::gateway_request::{Decision, Gate, NO_SESSION, OWN_PREFIX, Refusal, decide, is_document};
use crate::gateway_sign_in::{GatewaySignIn, Stage};
use crate::headlamp_config::{self, Listed};
use crate::http2_pool::Body;
use crate::peer::Owners;
use crate::random::Random;
use crate::secret::Secret;
use crate::sign_in::Tab;
use crate::ui_files::UiFiles;

/// What a local server is made of.
pub(crate) struct Parts {
    pub(crate) port: u16,
    /// Headlamp's base URL.
    pub(crate) base: String,
    /// By the names that they have in the page's list.
    pub(crate) clusters: Vec<(String, ClusterClient)>,
    pub(crate) files: UiFiles,
    pub(crate) session: BrowserSession,
    pub(crate) policy: PagePolicy,
    /// Values of `Host` besides this machine's own.
    pub(crate) hosts: Vec<String>,
    pub(crate) owners: Owners,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) random: Random,
}

/// What happened, for the terminal.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request got its answer's head.
    Request {
        method: Method,
        /// Without its query, and without secrets.
        path: String,
        status: StatusCode,
        took: Duration,
    },
    /// The start address was used.
    Opened,
    SignInNeeded(Error),
    SignedIn,
    LoggedOut,
    CameBack,
    /// The session is over; the browser needs a new start address.
    Ended(End),
}

/// The local server. Copies share it.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Shared>);

struct Shared {
    port: u16,
    gate: Gate,
    clusters: Vec<(String, ClusterClient)>,
    files: UiFiles,
    session: BrowserSession,
    policy: PagePolicy,
    owners: Owners,
    api: ApiSide,
    sign_in: GatewaySignIn,
    events: mpsc::UnboundedSender<Event>,
    limits: Limits,
}

impl Gateway {
    pub(crate) fn new(parts: Parts) -> Self {
        Self::within(parts, Limits::NORMAL)
    }

    fn within(parts: Parts, limits: Limits) -> Self {
        let Parts { port, base, clusters, files, session, policy, hosts, owners, events, random } = parts;
        let names = clusters.iter().map(|(name, _)| name.clone()).collect();
        let gate = Gate::new(port, &base, names).with_way_back(session.way_back().clone());
        let gate = hosts.into_iter().fold(gate, Gate::with_host);
        let api = ApiSide::new(clusters.clone(), random);
        let sign_in = GatewaySignIn::default();
        Self(Arc::new(Shared { port, gate, clusters, files, session, policy, owners, api, sign_in, events, limits }))
    }

    /// Where the browser is to begin; `path` is the page's that it is to end at.
    pub(crate) fn start_page(&self, path: Option<&str>) -> Result<StartPage> {
        let to = path.map(|path| self.0.gate.address(path)).transpose()?;
        Ok(StartPage { gateway: self.clone(), query: to.map(|to| query(&to)).unwrap_or_default() })
    }

    /// Where the session's browser is to look, whoever opens the address: Headlamp, or what keeps it
    /// from there.
    pub(crate) fn page_url(&self) -> String {
        format!("{}/return", self.own_pages())
    }

    fn own_pages(&self) -> String {
        format!("http://localhost:{}{OWN_PREFIX}", self.0.port)
    }

    /// Serves until it is dropped; then all that it began ends too.
    pub(crate) async fn serve(&self, listeners: Vec<TcpListener>) -> Result<()> {
        let _ending = Ending(&self.0);
        let shared = Arc::clone(&self.0);
        let handler = move |caller: Arc<Caller>, request| {
            let shared = Arc::clone(&shared);
            async move { shared.answer(&caller, request).await }
        };
        tokio::select! {
            () = gateway_listener::serve(listeners, self.0.limits, handler) => {}
            () = self.0.notice_troubles() => {}
        }
        Err(Error::bug("the local server ended by itself"))
    }

    pub(crate) fn api(&self) -> &ApiSide {
        &self.0.api
    }
}

/// The page that lets the browser in, once.
pub(crate) struct StartPage {
    gateway: Gateway,
    query: String,
}

impl StartPage {
    /// Its address; `None` once a browser has come to it.
    pub(crate) fn address(&self) -> Option<Secret> {
        self.gateway.0.session.start_secret().map(|secret| self.with(&secret))
    }

    /// Another address, in place of the one before.
    pub(crate) fn renewed_address(&self) -> Option<Secret> {
        self.gateway.0.session.renewed_start_secret().map(|secret| self.with(&secret))
    }

    fn with(&self, secret: &Secret) -> Secret {
        Secret::new(format!("{}/start/{}{}", self.gateway.own_pages(), secret.expose(), self.query))
    }
}

/// Ends what goes on beside the connections.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.sign_in.stop();
        self.0.api.cut();
    }
}

impl Shared {
    async fn answer(&self, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let (method, path) = (request.method().clone(), told(request.uri().path()));
        let mut response = self.respond(caller, request).await.unwrap_or_else(|error| failed(&error));
        let headers = response.headers_mut();
        headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        self.tell(Event::Request { method, path, status: response.status(), took: began.elapsed() });
        response
    }

    async fn respond(&self, caller: &Caller, request: Request<Incoming>) -> Result<Response<Body>> {
        let peer = caller.peer(&self.owners).await;
        let standing = self.session.standing(request.headers());
        if standing == Standing::Known && peer.may_come() {
            caller.is_known();
        }
        let (head, body) = request.into_parts();
        let request = |head, body| Request::from_parts(head, body);
        Ok(match decide(&self.gate, &head, peer, standing) {
            Decision::Start { looking: true, .. } => page::not_yet(),
            Decision::Start { secret, to, .. } => self.start(&secret, &to)?,
            Decision::SessionPage => self.session_page(&head, standing),
            Decision::SignIn => self.sign_in(&head, body).await?,
            Decision::ComeBack => self.come_back(&head, body).await?,
            Decision::Return { to } => page::returned(&to),
            Decision::File { .. } if is_document(&head.headers) && self.troubled().is_some() => {
                self.session_page(&head, standing)
            }
            Decision::File { path } => self.of_page(&head, self.files.file(&path, &head.headers).await),
            Decision::Plugins => self.of_page(&head, self.files.plugins().await),
            Decision::Config => self.of_page(&head, self.config().await?),
            Decision::Me { cluster } => self.api.me(&cluster),
            Decision::SetToken => self.set_token(body).await?,
            Decision::Api(target) => self.api.request(target, request(head, body)).await,
            Decision::Upgrade(target) => self.api.upgrade(target, request(head, body)).await,
            Decision::Watch { cluster, watch } => self.api.watch(&cluster, watch, request(head, body)).await,
            Decision::Redirect { to } => page::redirect(&to),
            Decision::Refuse(refusal) => refused(&head, &refusal),
        })
    }

    fn start(&self, secret: &Secret, to: &str) -> Result<Response<Body>> {
        let had_ended = matches!(self.session.situation(), Situation::Ended(_));
        Ok(match self.session.start(secret)? {
            Start::Opened(cookie) => {
                self.tell(Event::Opened);
                page::opened(to, cookie)
            }
            Start::UsedTwice => {
                if !had_ended {
                    self.ended(End::StartedTwice);
                }
                page::stranger(self.session.situation())
            }
            Start::Wrong => page::wrong_start(),
        })
    }

    /// What keeps this browser from Headlamp, and what it can do about it.
    fn session_page(&self, head: &Head, standing: Standing) -> Response<Body> {
        let uri = &head.uri;
        let to = if uri.path().starts_with(OWN_PREFIX) {
            self.gate.wanted(uri.query().unwrap_or_default())
        } else {
            self.gate.or_home(uri.path_and_query().map_or("/", |path| path.as_str()))
        };
        match standing {
            Standing::Stranger => return page::stranger(self.session.situation()),
            Standing::LoggedOut => return page::logged_out(&to),
            Standing::Known => {}
        }
        let Some((cluster, error)) = self.troubled() else { return page::redirect(&to) };
        match self.sign_in.stage() {
            // This tab pressed the button before there was an address.
            Some(Stage::InTab(address)) if uri.path().strip_prefix(OWN_PREFIX) == Some("/sign-in") => {
                page::to_sign_in(&address)
            }
            Some(stage) => page::sign_in_under_way(matches!(stage, Stage::InTab(_)), &to),
            None => {
                let error = self.sign_in.failure().unwrap_or(error);
                page::sign_in_needed(&error, cluster.can_sign_in(), &to)
            }
        }
    }

    /// The first cluster that wants a person, and why.
    fn troubled(&self) -> Option<(&ClusterClient, Error)> {
        self.clusters.iter().find_map(|(_, cluster)| match &*cluster.trouble().borrow() {
            Some(Trouble::SignIn(error)) => Some((cluster, error.clone())),
            Some(Trouble::AnotherUser(_)) | None => None,
        })
    }

    /// The tab goes to where the sign-in begins as soon as that is known; in a while at the latest to
    /// a page that waits for it.
    async fn sign_in(&self, head: &Head, body: Incoming) -> Result<Response<Body>> {
        let to = self.gate.wanted(&form(body).await);
        let Some((cluster, _)) = self.troubled() else { return Ok(page::redirect(&to)) };
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let pass = self.session.way_back().expose();
        let back = Url::parse(&format!("http://{host}{OWN_PREFIX}/return{}&pass={pass}", query(&to)))
            .map_err(|error| Error::bug("cannot build our own address").caused_by(&error))?;
        let cluster = cluster.clone();
        let mut stage = self.sign_in.begin(|address| async move { cluster.sign_in(Some(Tab { address, back })).await });
        let known = stage.wait_for(|stage| !matches!(stage, Stage::Begun));
        Ok(match timeout(ADDRESS_WITHIN, known).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::InTab(address) => page::to_sign_in(address),
                Stage::Begun | Stage::Ended => page::redirect(&to),
            },
            Ok(Err(_)) => page::redirect(&to),
            Err(_) => page::redirect(&format!("{OWN_PREFIX}/sign-in{}", query(&to))),
        })
    }

    async fn come_back(&self, head: &Head, body: Incoming) -> Result<Response<Body>> {
        let to = self.gate.wanted(&form(body).await);
        let Some(cookie) = self.session.come_back(&head.headers)? else {
            return Ok(page::stranger(self.session.situation()));
        };
        self.tell(Event::CameBack);
        let mut response = page::redirect(&to);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok(response)
    }

    /// The page's "Log out" sets no token; Headlamp answers 200 and nothing. The page would go to its own
    /// sign-in page without asking us for one: it is told to load itself anew, and gets ours.
    async fn set_token(&self, body: Incoming) -> Result<Response<Body>> {
        #[derive(Deserialize)]
        struct Asked {
            token: Option<Secret>,
        }
        let asked = whole(body).await.and_then(|body| serde_json::from_slice::<Asked>(&body).ok());
        let Some(asked) = asked else {
            return Ok(explained(StatusCode::BAD_REQUEST, "this is not JSON with a `token`"));
        };
        if asked.token.is_some_and(|token| !token.is_empty()) {
            return Ok(explained(StatusCode::FORBIDDEN, SIGN_IN_IS_KUBECTLS));
        }
        let mut response = Response::new(empty());
        *response.headers_mut() = own_page();
        if let Some(cookie) = self.session.log_out()? {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response.headers_mut().insert(RELOAD, HeaderValue::from_static("reload"));
            self.api.cut();
            self.tell(Event::LoggedOut);
        }
        Ok(response)
    }

    async fn config(&self) -> Result<Response<Body>> {
        let listed = self
            .clusters
            .iter()
            .map(|(name, cluster)| Listed { name: name.clone(), server: cluster.server().to_owned() });
        let config = headlamp_config::rewritten(&self.files.config().await?, &listed.collect::<Vec<_>>())?;
        let mut response = Response::new(full(config));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// With what keeps Headlamp's page to its own origin.
    fn of_page(&self, head: &Head, mut response: Response<Body>) -> Response<Body> {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        response.headers_mut().extend(self.policy.headers(host));
        response
    }

    /// Never returns.
    async fn notice_troubles(&self) {
        join_all(self.clusters.iter().map(|(_, cluster)| self.notice(cluster))).await;
        pending::<()>().await;
    }

    async fn notice(&self, cluster: &ClusterClient) {
        let mut trouble = cluster.trouble();
        let mut before = false;
        loop {
            let now = trouble.borrow_and_update().clone();
            let troubled = now.is_some();
            match now {
                Some(Trouble::AnotherUser(_)) => self.end(End::AnotherUser),
                Some(Trouble::SignIn(error)) if !before => self.tell(Event::SignInNeeded(error)),
                None if before => {
                    self.sign_in.forget_failure();
                    self.tell(Event::SignedIn);
                }
                _ => {}
            }
            before = troubled;
            if trouble.changed().await.is_err() {
                return;
            }
        }
    }

    fn end(&self, why: End) {
        if !matches!(self.session.situation(), Situation::Ended(_)) {
            self.session.end(why);
            self.ended(why);
        }
    }

    fn ended(&self, why: End) {
        self.api.cut();
        self.tell(Event::Ended(why));
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the command ends.
        let _ = self.events.send(event);
    }
}

/// The path for the terminal.
fn told(path: &str) -> String {
    let start = format!("{OWN_PREFIX}/start/");
    if path.starts_with(&start) { format!("{start}…") } else { path.to_owned() }
}

fn query(to: &str) -> String {
    format!("?to={}", form_urlencoded::byte_serialize(to.as_bytes()).collect::<String>())
}

/// A small body; `None` if it is longer or breaks off.
async fn whole(body: Incoming) -> Option<Bytes> {
    Limited::new(body, LONGEST_FORM).collect().await.ok().map(http_body_util::Collected::to_bytes)
}

/// The text of a form of ours; of what is none, nothing.
async fn form(body: Incoming) -> String {
    let body = whole(body).await.unwrap_or_default();
    String::from_utf8(body.into()).unwrap_or_default()
}

fn refused(head: &Head, refusal: &Refusal) -> Response<Body> {
    let mut response = if is_document(&head.headers) {
        page::refused(refusal)
    } else {
        let instead = refusal.instead.map(|instead| format!("; instead: {instead}")).unwrap_or_default();
        explained(refusal.status, &format!("{}{instead}", refusal.reason))
    };
    if *refusal == NO_SESSION {
        // The page of a session that is over, in any tab.
        response.headers_mut().insert(RELOAD, HeaderValue::from_static("reload"));
    }
    if refusal.status == StatusCode::BAD_REQUEST {
        // Whoever writes one thing that can be read in two ways gets no second try on this connection.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// 502, for a script: never what would send it to its sign-in page.
fn failed(error: &Error) -> Response<Body> {
    let parts = [error.message()].into_iter().chain(error.causes().iter().chain(error.hints()).map(String::as_str));
    explained(StatusCode::BAD_GATEWAY, &parts.collect::<Vec<_>>().join("; "))
}

/// Why not, as a Kubernetes `Status`, which the page shows.
fn explained(status: StatusCode, message: &str) -> Response<Body> {
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        _ => "InternalError",
    };
    let object = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("kubectl headlamp: {message}"),
        "reason": reason,
        "code": status.as_u16(),
    });
    let mut response = Response::new(full(object.to_string()));
    *response.status_mut() = status;
    *response.headers_mut() = own_page();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

const SIGN_IN_IS_KUBECTLS: &str = "the sign-in is kubectl's here, and no token is taken from the page";
/// Bytes of what our own pages and the page's "Log out" send.
const LONGEST_FORM: usize = 64 * 1024;
/// Until a tab is sent to the sign-in; a browser would wait longer, a person not.
const ADDRESS_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
