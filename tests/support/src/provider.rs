//! An `OpenID` provider that signs people in by itself, or does whatever else a test has it do.
//!
//! It checks what a strict provider checks (the redirect, PKCE with S256, codes that work once,
//! the client's secret, refresh tokens that were replaced), so that a test that passes here proves
//! something. What it does is [`Behaviour`], and may be changed at any time; [`Provider::script`]
//! replaces single answers; the `edit_…` hooks change what it says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::authority::{Authority, Certificate, server_config};
use crate::endpoints::{self, State};
use crate::kept_port::KeptPort;
use crate::script::{Answer, Scripts};
use crate::secrets::{Secret, Secrets};
use crate::server::{Reply, Request, Response, Server, lock};
use crate::signing::{Algorithm, Key};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The discovery document.
    Discovery,
    /// The keys.
    Keys,
    /// Where the browser begins.
    Authorize,
    /// Where tokens are given.
    Token,
    /// Where device codes are given (RFC 8628).
    Device,
    /// Where tokens are revoked (RFC 7009).
    Revocation,
    /// Pages that only a browser asks for.
    Page,
    /// Anything else.
    Other,
}

/// What the provider does. [`Provider::set`] changes it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Behaviour {
    /// The one client.
    pub client_id: String,
    /// Its secret; `None`: a public client.
    pub client_secret: Option<String>,
    /// How the client may prove itself, as metadata lists it.
    pub client_authentication: Vec<&'static str>,
    /// The redirects that are registered; one on loopback without a port fits any port (RFC 8252 §7.3).
    pub redirects: Vec<String>,
    /// Who signs in.
    pub person: Person,
    /// What happens when a browser comes to sign in.
    pub sign_in: SignIn,
    /// Whether the answer to the browser names the issuer (RFC 9207).
    pub issuer_in_answer: bool,
    /// How ID tokens are signed. Another one means another key.
    pub algorithm: Algorithm,
    /// What is done to the signature of ID tokens.
    pub signature: Signature,
    /// Seconds that an ID token is good for.
    pub id_token_lifetime: i64,
    /// Seconds that the token reply promises; `None`: it says nothing.
    pub expires_in: Option<i64>,
    /// What access tokens are.
    pub access_tokens: AccessTokens,
    /// When a refresh token is given.
    pub refresh_tokens: RefreshTokens,
    /// Whether each refresh replaces the refresh token; then the use of a replaced one ends its grant.
    pub rotates: bool,
    /// Whether a refresh brings an ID token.
    pub id_token_on_refresh: bool,
    /// The scopes that metadata lists.
    pub scopes: Vec<&'static str>,
    /// The device flow; `None`: not offered.
    pub device: Option<Device>,
    /// Whether tokens can be revoked.
    pub revocation: bool,
    /// Seconds that metadata and keys may be kept; `None`: nothing is said.
    pub metadata_lifetime: Option<u32>,
    /// Seconds that the provider's clock is ahead.
    pub clock_ahead: i64,
}

/// Who signs in.
#[derive(Clone, Debug)]
pub struct Person {
    /// `sub`
    pub subject: String,
    /// `name`
    pub name: String,
    /// `email`, and the name that goes with the password.
    pub email: String,
    /// `groups`
    pub groups: Vec<String>,
    /// For the password flow.
    pub password: String,
}

/// What happens when a browser comes to sign in.
#[derive(Clone, Debug)]
pub enum SignIn {
    /// It is sent back with a code.
    AtOnce,
    /// It gets a page, whose link sends it back with a code.
    AfterClick,
    /// It is sent back with an error and its description.
    Denied(&'static str, &'static str),
    /// It gets a page without a way on.
    DeadEnd,
}

/// What is done to the signature of ID tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// It is right.
    Right,
    /// One bit is wrong.
    Damaged,
    /// There is none, and the header says so.
    None,
    /// An HMAC whose key is the public key, as JSON.
    HmacOfPublicKey,
    /// Another key's, under the id of the right one.
    OtherKey,
}

/// What access tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTokens {
    /// A random text.
    Opaque,
    /// A JWT; `edit_access_claims` changes what it says.
    Jwt,
}

/// When a refresh token is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshTokens {
    /// Never.
    Never,
    /// When `offline_access` is asked for.
    WithOfflineAccess,
    /// When `offline_access` is asked for with `prompt=consent`.
    WithConsent,
    /// Always.
    Always,
}

/// The device flow.
#[derive(Clone, Debug)]
pub struct Device {
    /// Seconds to wait between two polls; `None`: nothing is said.
    pub interval: Option<u64>,
    /// Seconds that the code is good for.
    pub expires_in: u64,
    /// Whether an address with the code in it is given.
    pub complete_address: bool,
    /// When the sign-in on the other device is done.
    pub approval: Approval,
}

/// When the sign-in on the other device is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// After so many polls that came too early.
    AfterPolls(u32),
    /// When somebody opens the address.
    WhenVisited,
    /// Never: it is refused.
    Refused,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            client_id: "kubernetes".to_owned(),
            client_secret: None,
            client_authentication: vec!["none", "client_secret_basic", "client_secret_post"],
            redirects: [
                "http://localhost/oidc-callback",
                "http://127.0.0.1/oidc-callback",
                "https://localhost/oidc-callback",
                "http://localhost",
            ]
            .map(str::to_owned)
            .to_vec(),
            person: Person {
                subject: "f3a1c9".to_owned(),
                name: "Jane Doe".to_owned(),
                email: "jane@example.com".to_owned(),
                groups: vec!["developers".to_owned()],
                password: "correct horse battery staple".to_owned(),
            },
            sign_in: SignIn::AtOnce,
            issuer_in_answer: true,
            algorithm: Algorithm::Es256,
            signature: Signature::Right,
            id_token_lifetime: 3600,
            expires_in: Some(3600),
            access_tokens: AccessTokens::Opaque,
            refresh_tokens: RefreshTokens::WithOfflineAccess,
            rotates: true,
            id_token_on_refresh: true,
            scopes: vec!["openid", "profile", "email", "groups", "offline_access"],
            device: Some(Device {
                interval: Some(1),
                expires_in: 300,
                complete_address: true,
                approval: Approval::AfterPolls(1),
            }),
            revocation: true,
            metadata_lifetime: Some(3600),
            clock_ahead: 0,
        }
    }
}

/// Where and how a provider listens.
pub struct Builder {
    path: String,
    tls: bool,
    wants_client_certificate: bool,
    issuer: Option<String>,
    certificate: Option<Certificate>,
}

impl Builder {
    /// The path of the issuer, such as `/realms/dev`.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// TLS, with a certificate of the provider's own authority.
    #[must_use]
    pub fn https(self) -> Self {
        Self { tls: true, ..self }
    }

    /// TLS, and clients must show a certificate: [`Provider::client_certificate`].
    #[must_use]
    pub fn mutual_tls(self) -> Self {
        Self { tls: true, wants_client_certificate: true, ..self }
    }

    /// TLS, with this certificate; then nothing says by itself which authority to trust.
    #[must_use]
    pub fn certificate(self, certificate: Certificate) -> Self {
        Self { tls: true, certificate: Some(certificate), ..self }
    }

    /// TLS, and this https issuer, whose host is another machine's: only a [`ConnectProxy`] leads
    /// here.
    ///
    /// [`ConnectProxy`]: crate::ConnectProxy
    #[must_use]
    pub fn known_as(self, issuer: &str) -> Self {
        let path = url::Url::parse(issuer).expect("an issuer").path().trim_end_matches('/').to_owned();
        Self { tls: true, path, issuer: Some(issuer.to_owned()), ..self }
    }

    /// Starts it on a free port.
    pub fn start(self) -> Provider {
        let kept = KeptPort::new();
        let (listener, port) = Server::bind(kept.number());
        let scheme = if self.tls { "https" } else { "http" };
        let issuer = self.issuer.unwrap_or_else(|| format!("{scheme}://127.0.0.1:{port}{}", self.path));
        let host = url::Url::parse(&issuer).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let authority = (self.tls && self.certificate.is_none()).then(|| Authority::new("the provider's CA"));
        let certificate = self.certificate.or_else(|| {
            authority.as_ref().map(|authority| authority.server(&["localhost", "127.0.0.1", "::1", &host]))
        });
        let clients = authority.as_ref().filter(|_| self.wants_client_certificate);
        let behaviour = Behaviour::default();
        let provider = Provider {
            shared: Arc::new(Shared {
                issuer,
                path: self.path,
                scripts: Scripts::default(),
                requests: Mutex::default(),
                secrets: Secrets::default(),
                state: Mutex::new(State::new(behaviour)),
            }),
            port: kept,
            tls: certificate.map(|certificate| server_config(&certificate, clients)),
            authority,
            server: Mutex::default(),
            unused_is_fine: AtomicBool::new(false),
        };
        provider.serve(listener);
        provider
    }
}

/// A provider that listens until it is dropped. A provider that was never asked anything fails
/// its test then, unless [`Provider::unused_is_fine`].
pub struct Provider {
    shared: Arc<Shared>,
    port: KeptPort,
    tls: Option<Arc<rustls::ServerConfig>>,
    authority: Option<Authority>,
    server: Mutex<Option<Server>>,
    unused_is_fine: AtomicBool,
}

pub(crate) struct Shared {
    pub(crate) issuer: String,
    pub(crate) path: String,
    pub(crate) secrets: Secrets,
    pub(crate) state: Mutex<State>,
    scripts: Scripts<Endpoint>,
    requests: Mutex<Vec<(Endpoint, Request)>>,
}

impl Provider {
    /// A provider with plain http on loopback and an issuer without a path.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A provider that is to listen otherwise.
    pub fn builder() -> Builder {
        Builder { path: String::new(), tls: false, wants_client_certificate: false, issuer: None, certificate: None }
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// The certificate of its authority, if it speaks TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// A certificate that it takes from clients.
    pub fn client_certificate(&self) -> Certificate {
        self.authority.as_ref().expect("a provider with TLS").client("the client")
    }

    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut state = lock(&self.shared.state);
        change(&mut state.behaviour);
        if state.key.algorithm != state.behaviour.algorithm {
            state.key = Key::new(state.behaviour.algorithm);
        }
        self.note_secrets(&state);
    }

    /// The next request to this endpoint gets this answer; those after it the ones scripted after it,
    /// then the usual ones.
    pub fn script(&self, endpoint: Endpoint, answer: Answer) {
        self.shared.scripts.add(endpoint, answer);
    }

    /// Forgets all scripted answers that are left.
    pub fn unscript(&self) {
        self.shared.scripts.clear();
    }

    /// Changes the discovery document.
    pub fn edit_discovery(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.discovery = Some(Box::new(edit));
    }

    /// Changes the key set.
    pub fn edit_keys(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.keys = Some(Box::new(edit));
    }

    /// Changes token replies that succeed.
    pub fn edit_token_reply(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.token_reply = Some(Box::new(edit));
    }

    /// Changes the claims of ID tokens before they are signed.
    pub fn edit_claims(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.claims = Some(Box::new(edit));
    }

    /// Changes the header of ID tokens before they are signed.
    pub fn edit_header(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.header = Some(Box::new(edit));
    }

    /// Changes the claims of access tokens that are JWTs before they are signed.
    pub fn edit_access_claims(&self, edit: impl FnMut(&mut Map<String, Value>) + Send + 'static) {
        lock(&self.shared.state).hooks.access_claims = Some(Box::new(edit));
    }

    /// Changes ID tokens after they were signed.
    pub fn edit_id_token(&self, edit: impl FnMut(String) -> String + Send + 'static) {
        lock(&self.shared.state).hooks.id_token = Some(Box::new(edit));
    }

    /// Takes all `edit_…` hooks away.
    pub fn unedit(&self) {
        lock(&self.shared.state).hooks = endpoints::Hooks::default();
    }

    /// Signs with a new key from now on; the old one is gone from the key set.
    pub fn rotate_keys(&self) {
        let mut state = lock(&self.shared.state);
        state.key = Key::new(state.behaviour.algorithm);
    }

    /// Likewise, and the new key has the id of the old one.
    pub fn rotate_keys_under_the_same_id(&self) {
        let mut state = lock(&self.shared.state);
        let id = state.key.id.clone();
        state.key = Key::with_id(state.behaviour.algorithm, id);
    }

    /// Ends every grant: no refresh token works any more.
    pub fn revoke_everything(&self) {
        lock(&self.shared.state).revoke_everything();
    }

    /// How many grants are alive: sign-ins whose refresh token still works.
    pub fn grants_alive(&self) -> usize {
        lock(&self.shared.state).grants_alive()
    }

    /// Every request to this endpoint, in order.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<Request> {
        let requests = lock(&self.shared.requests);
        requests.iter().filter(|(of, _)| *of == endpoint).map(|(_, request)| request.clone()).collect()
    }

    /// The token requests with this `grant_type`, in order.
    pub fn token_requests(&self, grant_type: &str) -> Vec<Request> {
        let of_type = |request: &Request| request.parameter("grant_type").as_deref() == Some(grant_type);
        self.requests(Endpoint::Token).into_iter().filter(of_type).collect()
    }

    /// The requests to all endpoints, in order.
    pub fn all_requests(&self) -> Vec<(Endpoint, Request)> {
        lock(&self.shared.requests).clone()
    }

    /// Forgets the requests so far; that there were some is remembered.
    pub fn forget_requests(&self) {
        let mut requests = lock(&self.shared.requests);
        if !requests.is_empty() {
            self.unused_is_fine();
        }
        requests.clear();
    }

    /// Every secret that it issued or was shown, for leak checks.
    pub fn secrets(&self) -> Secrets {
        self.shared.secrets.clone()
    }

    /// The same as a list.
    pub fn issued(&self) -> Vec<Secret> {
        self.shared.secrets.all()
    }

    /// Who a token that an API server is shown belongs to: an ID token or access token of this
    /// provider that has not run out.
    pub fn authenticator(&self) -> impl Fn(&str) -> Option<Person> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |token| lock(&shared.state).person_of(token)
    }

    /// Refuses connections from now on.
    pub fn go_down(&self) {
        drop(lock(&self.server).take());
    }

    /// Listens again, where it did before.
    pub fn come_up(&self) {
        self.serve(Server::bind(self.port.number()).0);
    }

    /// A test that never asks it anything is none of its business.
    pub fn unused_is_fine(&self) {
        self.unused_is_fine.store(true, Ordering::Relaxed);
    }

    fn serve(&self, listener: std::net::TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.note_secrets(&lock(&self.shared.state));
        let server = Server::start(listener, self.tls.clone(), move |request, stop| {
            let endpoint = endpoints::of(&shared, request);
            lock(&shared.requests).push((endpoint, request.clone()));
            endpoints::note_secrets(&shared, request);
            let reply = shared.scripts.next(&endpoint).play(stop, || endpoints::answer(&shared, endpoint, request));
            let ahead = lock(&shared.state).behaviour.clock_ahead;
            match reply {
                Reply::Whole(response) => Reply::Whole(dated(response, ahead)),
                Reply::Dripped(response, size, pause) => Reply::Dripped(dated(response, ahead), size, pause),
                other => other,
            }
        });
        *lock(&self.server) = Some(server);
    }

    fn note_secrets(&self, state: &State) {
        self.shared.secrets.saw(crate::SecretKind::Password, Some(state.behaviour.person.password.clone()));
        self.shared.secrets.saw(crate::SecretKind::ClientSecret, state.behaviour.client_secret.clone());
    }
}

fn dated(response: Response, ahead: i64) -> Response {
    if response.headers.iter().any(|(name, _)| name == "Date") {
        return response;
    }
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).expect("a date");
    response.header("Date", &date)
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.go_down();
        let unused = lock(&self.shared.requests).is_empty() && !self.unused_is_fine.load(Ordering::Relaxed);
        assert!(!unused || std::thread::panicking(), "the provider was never asked: does the test test anything?");
    }
}
