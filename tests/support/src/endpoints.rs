//! What the provider answers at each of its addresses.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};
use url::Url;

use crate::SecretKind;
use crate::provider::{Behaviour, Endpoint, Person, Shared, SignIn};
use crate::server::{Request, Response, lock};
use crate::signing::{Algorithm, Key, random};
use crate::tokens::{self, DEVICE_GRANT, Refusal};

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
pub(crate) fn edited(hook: &mut Option<Edit>, value: Value) -> Value {
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
    pub(crate) other_key: Key,
    requests_by_ticket: HashMap<String, Authorization>,
    pub(crate) codes: HashMap<String, Authorization>,
    pub(crate) used_codes: HashMap<String, usize>,
    pub(crate) devices: HashMap<String, DeviceState>,
    pub(crate) grants: Vec<Grant>,
    /// The grant of each refresh token.
    pub(crate) refresh_tokens: HashMap<String, usize>,
    pub(crate) replaced: HashSet<String>,
    /// Who each token that an API server may be shown belongs to, and until when.
    pub(crate) bearers: HashMap<String, (Person, i64)>,
}

/// An authorization request that was accepted.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) redirect: String,
    state: Option<String>,
    pub(crate) challenge: String,
    form_post: bool,
    pub(crate) grant: Grant,
}

/// A sign-in.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) alive: bool,
    pub(crate) scope: String,
    pub(crate) nonce: Option<String>,
    pub(crate) consent: bool,
    pub(crate) since: i64,
}

pub(crate) struct DeviceState {
    pub(crate) scope: String,
    pub(crate) polls: u32,
    pub(crate) approved: bool,
    pub(crate) user_code: String,
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

    pub(crate) fn now(&self) -> i64 {
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
        (Endpoint::Token, "POST") => tokens::token(shared, state, request).unwrap_or_else(Refusal::response),
        (Endpoint::Device, "POST") => {
            tokens::device_authorization(shared, state, request).unwrap_or_else(Refusal::response)
        }
        (Endpoint::Revocation, "POST") => tokens::revocation(state, request).unwrap_or_else(Refusal::response),
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
