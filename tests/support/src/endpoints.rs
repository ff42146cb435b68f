//! What the provider answers at each of its addresses.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use url::Url;

use crate::SecretKind;
use crate::provider::{AccessTokens, Approval, Behaviour, Endpoint, Person, RefreshTokens, Shared, SignIn, Signature};
use crate::server::{Request, Response, lock};
use crate::signing::{Algorithm, Key, encode, hmac, jwt, random, sha256};

type Edit = Box<dyn FnMut(&mut Map<String, Value>) + Send>;

/// What a test changes in what the provider says.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) discovery: Option<Edit>,
    pub(crate) keys: Option<Edit>,
    pub(crate) token_reply: Option<Edit>,
    pub(crate) claims: Option<Edit>,
    pub(crate) header: Option<Edit>,
    pub(crate) access_claims: Option<Edit>,
    pub(crate) id_token: Option<Box<dyn FnMut(String) -> String + Send>>,
}

/// Applies a hook to a JSON object.
fn edited(hook: &mut Option<Edit>, value: Value) -> Value {
    match (hook, value) {
        (Some(edit), Value::Object(mut object)) => {
            edit(&mut object);
            Value::Object(object)
        }
        (_, value) => value,
    }
}

/// What the provider knows.
pub(crate) struct State {
    pub(crate) behaviour: Behaviour,
    pub(crate) hooks: Hooks,
    pub(crate) key: Key,
    /// A key that no key set has.
    other_key: Key,
    requests_by_ticket: HashMap<String, Authorization>,
    codes: HashMap<String, Authorization>,
    used_codes: HashMap<String, usize>,
    devices: HashMap<String, DeviceState>,
    grants: Vec<Grant>,
    /// The grant of each refresh token.
    refresh_tokens: HashMap<String, usize>,
    replaced: HashSet<String>,
    /// Who each token that an API server may be shown belongs to, and until when.
    bearers: HashMap<String, (Person, i64)>,
}

/// An authorization request that was accepted.
#[derive(Clone)]
struct Authorization {
    redirect: String,
    state: Option<String>,
    challenge: String,
    form_post: bool,
    grant: Grant,
}

/// A sign-in.
#[derive(Clone)]
struct Grant {
    alive: bool,
    scope: String,
    nonce: Option<String>,
    consent: bool,
    since: i64,
}

struct DeviceState {
    scope: String,
    polls: u32,
    approved: bool,
    user_code: String,
}

impl State {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self {
            key: Key::new(behaviour.algorithm),
            other_key: Key::new(Algorithm::Es256),
            behaviour,
            hooks: Hooks::default(),
            requests_by_ticket: HashMap::new(),
            codes: HashMap::new(),
            used_codes: HashMap::new(),
            devices: HashMap::new(),
            grants: Vec::new(),
            refresh_tokens: HashMap::new(),
            replaced: HashSet::new(),
            bearers: HashMap::new(),
        }
    }

    pub(crate) fn revoke_everything(&mut self) {
        self.grants.iter_mut().for_each(|grant| grant.alive = false);
    }

    pub(crate) fn grants_alive(&self) -> usize {
        let ids: HashSet<usize> = self.refresh_tokens.values().copied().filter(|id| self.grants[*id].alive).collect();
        ids.len()
    }

    pub(crate) fn person_of(&self, token: &str) -> Option<Person> {
        self.bearers.get(token).filter(|(_, expires)| self.now() < *expires).map(|(person, _)| person.clone())
    }

    fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.behaviour.clock_ahead
    }
}

/// Which endpoint the request is for.
pub(crate) fn of(shared: &Shared, request: &Request) -> Endpoint {
    match request.path.strip_prefix(&shared.path) {
        Some("/.well-known/openid-configuration") => Endpoint::Discovery,
        Some("/keys") => Endpoint::Keys,
        Some("/authorize") => Endpoint::Authorize,
        Some("/token") => Endpoint::Token,
        Some("/device-authorization") => Endpoint::Device,
        Some("/revoke") => Endpoint::Revocation,
        Some("/continue" | "/device") => Endpoint::Page,
        _ => Endpoint::Other,
    }
}

/// Remembers the secrets that the client shows.
pub(crate) fn note_secrets(shared: &Shared, request: &Request) {
    let secrets = &shared.secrets;
    secrets.saw(SecretKind::State, request.parameter("state"));
    secrets.saw(SecretKind::Nonce, request.parameter("nonce"));
    secrets.saw(SecretKind::Verifier, request.parameter("code_verifier"));
    secrets.saw(SecretKind::ClientSecret, request.parameter("client_secret"));
    secrets.saw(SecretKind::Password, request.parameter("password"));
    secrets.saw(
        SecretKind::ClientSecret,
        request.header("authorization").and_then(|value| value.strip_prefix("Basic ")).map(str::to_owned),
    );
}

pub(crate) fn answer(shared: &Shared, endpoint: Endpoint, request: &Request) -> Response {
    let mut state = lock(&shared.state);
    let state = &mut *state;
    match (endpoint, request.method.as_str()) {
        (Endpoint::Discovery, "GET") => discovery(shared, state),
        (Endpoint::Keys, "GET") => keys(state),
        (Endpoint::Authorize, "GET" | "POST") => authorize(shared, state, request),
        (Endpoint::Token, "POST") => token(shared, state, request).unwrap_or_else(Refusal::response),
        (Endpoint::Device, "POST") => device_authorization(shared, state, request).unwrap_or_else(Refusal::response),
        (Endpoint::Revocation, "POST") => revocation(state, request).unwrap_or_else(Refusal::response),
        (Endpoint::Page, "GET") => page(shared, state, request),
        _ => Response::html(404, "<p>There is nothing here.</p>"),
    }
}

fn discovery(shared: &Shared, state: &mut State) -> Response {
    let Behaviour { scopes, client_authentication, algorithm, issuer_in_answer, .. } = &state.behaviour;
    let issuer = &shared.issuer;
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token", "password", "client_credentials", DEVICE_GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm.name()],
        "token_endpoint_auth_methods_supported": client_authentication,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": issuer_in_answer,
    });
    if state.behaviour.device.is_some() {
        document["device_authorization_endpoint"] = json!(format!("{issuer}/device-authorization"));
    }
    if state.behaviour.revocation {
        document["revocation_endpoint"] = json!(format!("{issuer}/revoke"));
    }
    let document = edited(&mut state.hooks.discovery, document);
    cacheable(&state.behaviour, Response::json(200, &document))
}

fn keys(state: &mut State) -> Response {
    let keys = edited(&mut state.hooks.keys, json!({"keys": [state.key.public()]}));
    cacheable(&state.behaviour, Response::json(200, &keys))
}

fn cacheable(behaviour: &Behaviour, mut response: Response) -> Response {
    response.headers.retain(|(name, _)| name != "Cache-Control");
    match behaviour.metadata_lifetime {
        Some(seconds) => response.header("Cache-Control", &format!("public, max-age={seconds}")),
        None => response,
    }
}

// The browser.

fn authorize(shared: &Shared, state: &mut State, request: &Request) -> Response {
    let parameter = |name: &str| request.parameter(name).filter(|value| !value.is_empty());
    let redirect = parameter("redirect_uri").unwrap_or_default();
    // Nobody is sent to an address that is not registered (RFC 6749 §4.1.2.1).
    if parameter("client_id").as_deref() != Some(&state.behaviour.client_id) {
        return Response::html(400, "<p>invalid_client: this client is not known</p>");
    }
    if !registered(&state.behaviour.redirects, &redirect) {
        return Response::html(400, "<p>invalid_redirect_uri: this redirect is not registered</p>");
    }
    let scope = parameter("scope").unwrap_or_default();
    let authorization = Authorization {
        redirect,
        state: parameter("state"),
        challenge: parameter("code_challenge").unwrap_or_default(),
        form_post: parameter("response_mode").as_deref() == Some("form_post"),
        grant: Grant {
            alive: true,
            nonce: parameter("nonce"),
            consent: parameter("prompt").is_some_and(|prompt| prompt.contains("consent")),
            since: state.now(),
            scope,
        },
    };
    let wrong = if parameter("response_type").as_deref() != Some("code") {
        Some(("unsupported_response_type", "only `code` is"))
    } else if !authorization.grant.scope.split(' ').any(|scope| scope == "openid") {
        Some(("invalid_scope", "`openid` is missing"))
    } else if authorization.challenge.len() != 43 || parameter("code_challenge_method").as_deref() != Some("S256") {
        Some(("invalid_request", "PKCE with S256 is required"))
    } else {
        None
    };
    if let Some((error, description)) = wrong {
        return refused(shared, state, &authorization, error, description);
    }
    match state.behaviour.sign_in {
        SignIn::AtOnce => signed_in(shared, state, &authorization),
        SignIn::Denied(error, description) => refused(shared, state, &authorization, error, description),
        SignIn::DeadEnd => Response::html(200, "<p>This account is locked.</p>"),
        SignIn::AfterClick if parameter("prompt").as_deref() == Some("none") => {
            refused(shared, state, &authorization, "login_required", "nobody is signed in")
        }
        SignIn::AfterClick => {
            let ticket = random(16);
            let name = state.behaviour.person.name.clone();
            state.requests_by_ticket.insert(ticket.clone(), authorization);
            Response::html(200, sign_in_page(&format!("{}/continue?ticket={ticket}", shared.path), &name))
        }
    }
}

fn signed_in(shared: &Shared, state: &mut State, authorization: &Authorization) -> Response {
    let code = random(24);
    shared.secrets.add(SecretKind::Code, &code);
    state.codes.insert(code.clone(), authorization.clone());
    answer_browser(shared, state, authorization, vec![("code", code)])
        .header("Set-Cookie", "provider-session=signed-in; Path=/; HttpOnly")
}

fn refused(shared: &Shared, state: &State, authorization: &Authorization, error: &str, description: &str) -> Response {
    let parameters = vec![("error", error.to_owned()), ("error_description", description.to_owned())];
    answer_browser(shared, state, authorization, parameters)
}

/// Sends the browser back, by redirect or by form.
fn answer_browser(
    shared: &Shared,
    state: &State,
    authorization: &Authorization,
    mut parameters: Vec<(&str, String)>,
) -> Response {
    parameters.extend(authorization.state.clone().map(|state| ("state", state)));
    if state.behaviour.issuer_in_answer {
        parameters.push(("iss", shared.issuer.clone()));
    }
    if authorization.form_post {
        return Response::html(200, form_page(&authorization.redirect, &parameters));
    }
    let mut url = Url::parse(&authorization.redirect).expect("a registered redirect");
    url.query_pairs_mut().extend_pairs(parameters);
    Response::see_other(url.as_str())
}

fn page(shared: &Shared, state: &mut State, request: &Request) -> Response {
    if let Some(ticket) = request.parameter("ticket") {
        return match state.requests_by_ticket.remove(&ticket) {
            Some(authorization) => signed_in(shared, state, &authorization),
            None => Response::html(400, "<p>This page was used before.</p>"),
        };
    }
    let code = request.parameter("user_code").unwrap_or_default();
    match state.devices.values_mut().find(|device| device.user_code == code) {
        Some(device) => {
            device.approved = true;
            Response::html(200, "<p>Your device is signed in.</p>")
        }
        None => Response::html(200, "<form><label>Code <input name=user_code></label><button>Continue</button></form>"),
    }
}

/// Whether the redirect is one of the registered ones; on loopback, of any port.
fn registered(redirects: &[String], redirect: &str) -> bool {
    let without_port = |text: &str| {
        let (scheme, rest) = text.split_once("://")?;
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        let host = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(authority, |(host, _)| host);
        let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        loopback.then(|| format!("{scheme}://{host}{}", &rest[authority.len()..]))
    };
    redirects.iter().any(|known| known == redirect || without_port(redirect).as_ref() == Some(known))
}

// Tokens.

/// An OAuth error (RFC 6749 §5.2).
struct Refusal(u16, &'static str, &'static str);

impl Refusal {
    fn response(self) -> Response {
        Response::json(self.0, &json!({"error": self.1, "error_description": self.2}))
    }
}

fn grant_refused(why: &'static str) -> Refusal {
    Refusal(400, "invalid_grant", why)
}

fn token(shared: &Shared, state: &mut State, request: &Request) -> Result<Response, Refusal> {
    authenticate(&state.behaviour, request)?;
    let parameter = |name: &str| request.parameter(name).unwrap_or_default();
    match parameter("grant_type").as_str() {
        "authorization_code" => {
            let code = parameter("code");
            if let Some(grant) = state.used_codes.get(&code) {
                state.grants[*grant].alive = false;
                return Err(grant_refused("the code was used before"));
            }
            let authorization = state.codes.remove(&code).ok_or(grant_refused("the code is not known"))?;
            if authorization.redirect != parameter("redirect_uri") {
                return Err(grant_refused("the redirect is not that of the authorization request"));
            }
            if encode(&sha256(&parameter("code_verifier"))) != authorization.challenge {
                return Err(grant_refused("the verifier does not fit"));
            }
            state.used_codes.insert(code, state.grants.len());
            Ok(begin(shared, state, authorization.grant))
        }
        "refresh_token" => refresh(shared, state, &parameter("refresh_token")),
        "password" => {
            let person = &state.behaviour.person;
            if parameter("username") != person.email || parameter("password") != person.password {
                return Err(grant_refused("user name or password is wrong"));
            }
            let grant =
                Grant { alive: true, scope: parameter("scope"), nonce: None, consent: false, since: state.now() };
            Ok(begin(shared, state, grant))
        }
        "client_credentials" if state.behaviour.client_secret.is_some() => {
            Ok(client_token(shared, state, &parameter("scope")))
        }
        "client_credentials" => Err(Refusal(400, "unauthorized_client", "a public client cannot act for itself")),
        DEVICE_GRANT => poll(shared, state, &parameter("device_code")),
        _ => Err(Refusal(400, "unsupported_grant_type", "this grant type is not known")),
    }
}

/// The client must be ours, and prove itself in a way that metadata lists, if it has a secret.
fn authenticate(behaviour: &Behaviour, request: &Request) -> Result<(), Refusal> {
    let basic = request.header("authorization").and_then(|value| value.strip_prefix("Basic ")).map(|value| {
        let decoded = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let (id, secret) = decoded.split_once(':').unwrap_or_default();
        // RFC 6749 §2.3.1: both are form-encoded before they are joined.
        let plain = |text: &str| {
            url::form_urlencoded::parse(format!("x={text}").as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        (plain(id), plain(secret))
    });
    let (method, (id, secret)) = match basic {
        Some(pair) => ("client_secret_basic", pair),
        None if request.parameter("client_secret").is_some() => {
            ("client_secret_post", (request.parameter("client_id"), request.parameter("client_secret")))
        }
        None => ("none", (request.parameter("client_id"), None)),
    };
    let listed = behaviour.client_authentication.contains(&method);
    if id.as_ref() == Some(&behaviour.client_id) && secret == behaviour.client_secret && (listed || method == "none") {
        return Ok(());
    }
    Err(Refusal(401, "invalid_client", "the client is not known, or its secret is wrong"))
}

/// A new grant, and its first tokens.
fn begin(shared: &Shared, state: &mut State, grant: Grant) -> Response {
    state.grants.push(grant);
    let id = state.grants.len() - 1;
    let refresh_token =
        wants_refresh_token(&state.behaviour, &state.grants[id]).then(|| new_refresh_token(shared, state, id));
    tokens(shared, state, id, refresh_token, true)
}

fn wants_refresh_token(behaviour: &Behaviour, grant: &Grant) -> bool {
    let offline = grant.scope.split(' ').any(|scope| scope == "offline_access");
    match behaviour.refresh_tokens {
        RefreshTokens::Never => false,
        RefreshTokens::WithOfflineAccess => offline,
        RefreshTokens::WithConsent => offline && grant.consent,
        RefreshTokens::Always => true,
    }
}

fn new_refresh_token(shared: &Shared, state: &mut State, grant: usize) -> String {
    let token = format!("rt-{}", random(32));
    shared.secrets.add(SecretKind::RefreshToken, &token);
    state.refresh_tokens.insert(token.clone(), grant);
    token
}

fn refresh(shared: &Shared, state: &mut State, token: &str) -> Result<Response, Refusal> {
    let id = *state.refresh_tokens.get(token).ok_or(grant_refused("the refresh token is not known"))?;
    if state.replaced.contains(token) {
        // RFC 9700 §4.14.2: somebody has stolen it, and nobody knows who of the two.
        state.grants[id].alive = false;
        return Err(grant_refused("the refresh token was used before"));
    }
    if !state.grants[id].alive {
        return Err(grant_refused("the session has ended"));
    }
    let newer = state.behaviour.rotates.then(|| {
        state.replaced.insert(token.to_owned());
        new_refresh_token(shared, state, id)
    });
    let with_id_token = state.behaviour.id_token_on_refresh;
    Ok(tokens(shared, state, id, newer, with_id_token))
}

/// A reply with new tokens for a grant.
fn tokens(
    shared: &Shared,
    state: &mut State,
    grant: usize,
    refresh_token: Option<String>,
    with_id_token: bool,
) -> Response {
    let grant = state.grants[grant].clone();
    let subject = state.behaviour.person.subject.clone();
    let access_token = access_token(shared, state, &subject, &grant.scope);
    let mut reply = json!({"access_token": access_token, "token_type": "Bearer", "scope": grant.scope});
    if let Some(seconds) = state.behaviour.expires_in {
        reply["expires_in"] = json!(seconds);
    }
    if let Some(token) = refresh_token {
        reply["refresh_token"] = json!(token);
    }
    if with_id_token && grant.scope.split(' ').any(|scope| scope == "openid") {
        reply["id_token"] = json!(id_token(shared, state, &grant, &access_token));
    }
    Response::json(200, &edited(&mut state.hooks.token_reply, reply))
}

/// A token for the client itself: there is no person, and so no ID token.
fn client_token(shared: &Shared, state: &mut State, scope: &str) -> Response {
    let subject = state.behaviour.client_id.clone();
    let access_token = access_token(shared, state, &subject, scope);
    let mut reply = json!({"access_token": access_token, "token_type": "Bearer"});
    if let Some(seconds) = state.behaviour.expires_in {
        reply["expires_in"] = json!(seconds);
    }
    Response::json(200, &edited(&mut state.hooks.token_reply, reply))
}

fn id_token(shared: &Shared, state: &mut State, grant: &Grant, access_token: &str) -> String {
    let now = state.now();
    let expires = now + state.behaviour.id_token_lifetime;
    let algorithm = state.behaviour.algorithm;
    let Person { subject, name, email, groups, .. } = state.behaviour.person.clone();
    let mut claims = json!({
        "iss": shared.issuer, "sub": subject, "aud": state.behaviour.client_id,
        "exp": expires, "iat": now, "auth_time": grant.since, "at_hash": half_hash(algorithm, access_token),
        "name": name, "email": email, "email_verified": true, "preferred_username": email, "groups": groups,
    });
    if let Some(nonce) = &grant.nonce {
        claims["nonce"] = json!(nonce);
    }
    let claims = edited(&mut state.hooks.claims, claims);
    let alg = match state.behaviour.signature {
        Signature::None => "none",
        Signature::HmacOfPublicKey => "HS256",
        _ => algorithm.name(),
    };
    let header = edited(&mut state.hooks.header, json!({"alg": alg, "kid": state.key.id, "typ": "JWT"}));
    let token = jwt(&header, &claims, |text| match state.behaviour.signature {
        Signature::Right => state.key.sign(text),
        Signature::Damaged => {
            let mut signature = state.key.sign(text);
            signature[9] ^= 1;
            signature
        }
        Signature::None => Vec::new(),
        Signature::HmacOfPublicKey => hmac(state.key.public().to_string().as_bytes(), text),
        Signature::OtherKey => state.other_key.sign(text),
    });
    let token = match &mut state.hooks.id_token {
        Some(edit) => edit(token),
        None => token,
    };
    shared.secrets.saw(SecretKind::IdToken, Some(token.clone()));
    state.bearers.insert(token.clone(), (state.behaviour.person.clone(), expires));
    token
}

fn access_token(shared: &Shared, state: &mut State, subject: &str, scope: &str) -> String {
    let now = state.now();
    let expires = now + state.behaviour.expires_in.unwrap_or(state.behaviour.id_token_lifetime);
    let token = match state.behaviour.access_tokens {
        AccessTokens::Opaque => format!("at-{}", random(32)),
        AccessTokens::Jwt => {
            let claims = json!({
                "iss": shared.issuer, "sub": subject, "aud": "https://kubernetes.example.com", "client_id": state.behaviour.client_id,
                "exp": expires, "iat": now, "jti": random(8), "scope": scope,
            });
            let claims = edited(&mut state.hooks.access_claims, claims);
            let header = json!({"alg": state.key.algorithm.name(), "kid": state.key.id, "typ": "at+jwt"});
            jwt(&header, &claims, |text| state.key.sign(text))
        }
    };
    shared.secrets.add(SecretKind::AccessToken, &token);
    let person = Person { subject: subject.to_owned(), ..state.behaviour.person.clone() };
    state.bearers.insert(token.clone(), (person, expires));
    token
}

/// `at_hash`: the left half of the hash that goes with the signature (`OpenID` Connect Core §3.1.3.6).
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = match algorithm {
        Algorithm::Es384 => &ring::digest::SHA384,
        Algorithm::EdDsa => &ring::digest::SHA512,
        Algorithm::Es256 | Algorithm::Rs256 | Algorithm::Ps256 => &ring::digest::SHA256,
    };
    let digest = ring::digest::digest(hash, text.as_bytes());
    encode(&digest.as_ref()[..digest.as_ref().len() / 2])
}

fn device_authorization(shared: &Shared, state: &mut State, request: &Request) -> Result<Response, Refusal> {
    authenticate(&state.behaviour, request)?;
    let Some(device) = state.behaviour.device.clone() else {
        return Err(Refusal(400, "unauthorized_client", "the device flow is not offered"));
    };
    let code = random(24);
    shared.secrets.add(SecretKind::DeviceCode, &code);
    // Letters and digits that nobody takes for one another (RFC 8628 §6.1).
    let letters: Vec<char> = ring::digest::digest(&ring::digest::SHA256, code.as_bytes())
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| USER_CODE_LETTERS[usize::from(*byte) % USER_CODE_LETTERS.len()])
        .collect();
    let user_code = format!("{}-{}", letters[..4].iter().collect::<String>(), letters[4..].iter().collect::<String>());
    let address = format!("{}/device", shared.issuer);
    let mut reply = json!({"device_code": code, "user_code": user_code, "verification_uri": address, "expires_in": device.expires_in});
    if device.complete_address {
        reply["verification_uri_complete"] = json!(format!("{address}?user_code={user_code}"));
    }
    if let Some(interval) = device.interval {
        reply["interval"] = json!(interval);
    }
    let scope = request.parameter("scope").unwrap_or_default();
    state.devices.insert(code, DeviceState { scope, polls: 0, approved: false, user_code });
    Ok(Response::json(200, &reply))
}

fn poll(shared: &Shared, state: &mut State, code: &str) -> Result<Response, Refusal> {
    let approval = state.behaviour.device.as_ref().map_or(Approval::Refused, |device| device.approval);
    let device = state.devices.get_mut(code).ok_or(grant_refused("the device code is not known"))?;
    device.polls += 1;
    let done = match approval {
        Approval::AfterPolls(polls) => device.polls > polls,
        Approval::WhenVisited => device.approved,
        Approval::Refused => return Err(Refusal(400, "access_denied", "the sign-in was refused on the other device")),
    };
    if !done {
        return Err(Refusal(400, "authorization_pending", "the sign-in is not done yet"));
    }
    let scope = device.scope.clone();
    state.devices.remove(code);
    let grant = Grant { alive: true, scope, nonce: None, consent: false, since: state.now() };
    Ok(begin(shared, state, grant))
}

fn revocation(state: &mut State, request: &Request) -> Result<Response, Refusal> {
    authenticate(&state.behaviour, request)?;
    let token = request.parameter("token").unwrap_or_default();
    if let Some(grant) = state.refresh_tokens.get(&token) {
        state.grants[*grant].alive = false;
    }
    state.bearers.remove(&token);
    Ok(Response::new(200))
}

// Pages.

fn sign_in_page(next: &str, name: &str) -> String {
    let next = escape(next);
    let name = escape(name);
    styled(
        "Sign in",
        &format!(
            "<h1>Example ID</h1><p>kubectl wants to know who you are.</p><p><a href=\"{next}\">Continue as {name}</a></p>"
        ),
    )
}

/// A form that sends itself, where the browser runs scripts.
fn form_page(action: &str, parameters: &[(&str, String)]) -> String {
    let inputs: String = parameters
        .iter()
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)))
        .collect();
    let action = escape(action);
    let form = format!("<form method=\"post\" action=\"{action}\">{inputs}<button>Continue</button></form>");
    styled("Signing in", &format!("{form}<script>document.forms[0].submit()</script>"))
}

fn styled(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><main>{body}</main></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh}\
main{text-align:center}a{display:inline-block;padding:.6em 1.4em;border-radius:.5em;background:#326ce5;color:#fff;text-decoration:none}";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const USER_CODE_LETTERS: &[char] =
    &['B', 'C', 'D', 'F', 'G', 'H', 'J', 'K', 'L', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Z'];
