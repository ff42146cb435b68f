//! The tokens that the provider gives, and what it asks for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::SecretKind;
use crate::endpoints::{DeviceState, Grant, State, edited};
use crate::provider::{AccessTokens, Approval, Behaviour, Person, RefreshTokens, Shared, Signature};
use crate::server::{Request, Response};
use crate::signing::{Algorithm, encode, hmac, jwt, random, sha256};

/// An OAuth error (RFC 6749 §5.2).
pub(crate) struct Refusal(u16, &'static str, &'static str);

impl Refusal {
    pub(crate) fn response(self) -> Response {
        Response::json(self.0, &json!({"error": self.1, "error_description": self.2}))
    }
}

fn grant_refused(why: &'static str) -> Refusal {
    Refusal(400, "invalid_grant", why)
}

pub(crate) fn token(shared: &Shared, state: &mut State, request: &Request) -> Result<Response, Refusal> {
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

pub(crate) fn device_authorization(shared: &Shared, state: &mut State, request: &Request) -> Result<Response, Refusal> {
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

pub(crate) fn revocation(state: &mut State, request: &Request) -> Result<Response, Refusal> {
    authenticate(&state.behaviour, request)?;
    let token = request.parameter("token").unwrap_or_default();
    if let Some(grant) = state.refresh_tokens.get(&token) {
        state.grants[*grant].alive = false;
    }
    state.bearers.remove(&token);
    Ok(Response::new(200))
}

/// The `grant_type` of the device flow (RFC 8628 §3.4).
pub(crate) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const USER_CODE_LETTERS: &[char] =
    &['B', 'C', 'D', 'F', 'G', 'H', 'J', 'K', 'L', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Z'];
