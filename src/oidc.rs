//! The sign-in protocol: `OpenID` Connect Core on OAuth 2.0 (RFC 6749), PKCE (RFC 7636), device codes
//! (RFC 8628), revocation (RFC 7009), resources (RFC 8707). Each function is one request of ours.
//!
//! Requests are forms of a few lines, written here: `oauth2` asks for device codes in a loop of its
//! own, which nobody can interrupt or tell apart from being offline, and loses a whole reply, with
//! the refresh token in it, for one odd member.

use ::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

pub(crate) use crate::attempt::Attempt;
pub(crate) use crate::device_code::DeviceCode;
use crate::error::{Error, Result};
use crate::http::{Http, Repeat};
use crate::json_object::JsonObject;
use crate::options::{ClientAuthentication, ProviderKind, RefreshScopes, TokenType};
use crate::provider::OFFLINE_ACCESS;
pub(crate) use crate::provider::{Provider, check_callback_issuer, discover, discover_anew, no_refresh_token_reason};
use crate::refusal;
pub(crate) use crate::refusal::{GrantError, Refusal};
use crate::secret::Secret;
use crate::settings::{Settings, Subject};
pub(crate) use crate::token_reply::Reply;

/// A client at a provider.
pub(crate) struct Client<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) provider: &'a Provider,
    pub(crate) http: &'a Http,
    /// A public client has none.
    pub(crate) secret: Option<&'a Secret>,
}

/// What only some sign-ins ask for.
pub(crate) struct AuthorizationExtra<'a> {
    pub(crate) prompt: Option<&'a str>,
    /// What the provider demanded when it refused a refresh.
    pub(crate) claims: Option<&'a str>,
}

/// The authorization request (Core §3.1.2.1): code and PKCE S256, always. `redirect` is sent
/// character for character.
pub(crate) fn authorization(client: &Client<'_>, redirect: &str, extra: &AuthorizationExtra<'_>) -> Result<Attempt> {
    let Client { settings, provider, http, .. } = client;
    let identity = &settings.identity;
    let Some(endpoint) = &provider.metadata().authorization_endpoint else {
        return Err(Error::settings(format!("the provider `{}` offers no sign-in with a browser", identity.issuer))
            .hint("choose another way: `--flow device` or `--flow client-credentials`"));
    };
    if let Some(methods) = &provider.metadata().code_challenge_methods_supported
        && !methods.iter().any(|method| method == "S256")
    {
        http.step("the provider does not list PKCE with S256; it is used all the same");
    }
    let (state, nonce, verifier) = (random()?, random()?, random()?);
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.expose().to_owned()));
    let mut url = endpoint.clone();
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("response_type", "code");
        query.append_pair("client_id", &identity.client_id);
        query.append_pair("redirect_uri", redirect);
        query.append_pair("scope", &client.scope());
        query.append_pair("state", state.expose());
        query.append_pair("nonce", nonce.expose());
        query.append_pair("code_challenge", challenge.as_str());
        query.append_pair("code_challenge_method", "S256");
        query.extend_pairs(identity.resources.iter().map(|resource| ("resource", resource)));
        let optional =
            [("prompt", extra.prompt), ("login_hint", identity.login_hint.as_deref()), ("claims", extra.claims)];
        query.extend_pairs(optional.iter().filter_map(|(name, value)| Some((name, (*value)?))));
        let own = identity.auth_params.iter().filter(|(name, _)| extra.claims.is_none() || *name != "claims");
        query.extend_pairs(own);
    }
    Ok(Attempt { url: Secret::new(String::from(url)), state, nonce, verifier })
}

/// 256 bits of randomness, as 43 characters that a URL may hold and PKCE asks for (RFC 7636 §4.1).
fn random() -> Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::bug("the system gives no random numbers").caused_by(&error))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// A code for tokens (RFC 6749 §4.1.3). A code serves once, so this is tried again only if nothing
/// was sent. The provider knows the whole attempt's secrets, and may repeat any of them.
pub(crate) async fn exchange(
    client: &Client<'_>,
    code: &Secret,
    redirect: &str,
    attempt: &Attempt,
) -> Result<Reply, GrantError> {
    let form = Form::of("authorization_code")
        .secret("code", code)
        .text("redirect_uri", redirect)
        .secret("code_verifier", &attempt.verifier)
        .hidden(&attempt.state)
        .hidden(&attempt.nonce)
        .resources(client.settings);
    client.tokens(form, &client.scope(), Repeat::IfUnsent).await
}

/// A refresh token for new ones (RFC 6749 §6).
pub(crate) async fn refresh(client: &Client<'_>, token: &Secret) -> Result<Reply, GrantError> {
    let form = Form::of("refresh_token").secret("refresh_token", token).resources(client.settings);
    let scope = client.scope();
    let form = if client.repeats_scopes() { form.text("scope", &scope) } else { form };
    client.tokens(form, &scope, Repeat::Freely).await
}

/// User name and password for tokens (RFC 6749 §4.3).
pub(crate) async fn password(client: &Client<'_>, username: &str, password: &Secret) -> Result<Reply, GrantError> {
    let form = Form::of("password").text("username", username).secret("password", password);
    let scope = client.scope();
    client
        .tokens(
            form.text("scope", &scope).resources(client.settings).parameters(client.settings),
            &scope,
            Repeat::IfUnsent,
        )
        .await
}

/// The client's own tokens (RFC 6749 §4.4).
pub(crate) async fn client_credentials(client: &Client<'_>) -> Result<Reply, GrantError> {
    let scope = client.scope();
    let form = Form::of("client_credentials");
    let form = if scope.is_empty() { form } else { form.text("scope", &scope) };
    client.tokens(form.resources(client.settings).parameters(client.settings), &scope, Repeat::Freely).await
}

/// A code to be typed in on another device (RFC 8628 §3.1).
pub(crate) async fn device_code(client: &Client<'_>) -> Result<DeviceCode, GrantError> {
    let issuer = &client.settings.identity.issuer;
    let Some(endpoint) = &client.provider.metadata().device_authorization_endpoint else {
        let error = Error::settings(format!("the provider `{issuer}` offers no sign-in by a code on another device"));
        return Err(GrantError::Failed(error.hint("choose another way: `--flow browser` or `--flow paste`")));
    };
    let form = Form::default().text("scope", &client.scope()).resources(client.settings).parameters(client.settings);
    let answer = client.post(endpoint, form, Repeat::Freely).await?;
    DeviceCode::of(endpoint, &answer)
}

/// What became of a device code.
pub(crate) enum DevicePoll {
    /// The person is not done yet.
    Pending,
    /// Neither, and it was asked too soon (RFC 8628 §3.5).
    SlowDown,
    Done(Box<Reply>),
}

/// Asks once (RFC 8628 §3.4). The caller waits and asks again.
pub(crate) async fn device_token(client: &Client<'_>, code: &DeviceCode) -> Result<DevicePoll, GrantError> {
    let form = Form::of("urn:ietf:params:oauth:grant-type:device_code")
        .secret("device_code", &code.device_code)
        .resources(client.settings);
    match client.tokens(form, &client.scope(), Repeat::IfUnsent).await {
        Ok(reply) => Ok(DevicePoll::Done(Box::new(reply))),
        Err(GrantError::Refused(refusal)) if refusal.error == "authorization_pending" => Ok(DevicePoll::Pending),
        Err(GrantError::Refused(refusal)) if refusal.error == "slow_down" => Ok(DevicePoll::SlowDown),
        Err(error) => Err(error),
    }
}

/// Ends a token at the provider (RFC 7009); `false` where the provider has no way to. `hint` is
/// `refresh_token` or `access_token`. A token that is unknown there counts as ended.
pub(crate) async fn revoke(client: &Client<'_>, token: &Secret, hint: &str) -> Result<bool, GrantError> {
    let Some(endpoint) = &client.provider.metadata().revocation_endpoint else { return Ok(false) };
    let form = Form::default().secret("token", token).text("token_type_hint", hint);
    let (request, secrets) = client.request(endpoint, form).map_err(GrantError::Failed)?;
    let response = client.http.send(request, Repeat::Freely).await.map_err(GrantError::Failed)?;
    if response.status().is_success() {
        return Ok(true);
    }
    refusal::answer(endpoint, &response, &secrets, client.http.now()).map(|_| true)
}

impl Client<'_> {
    /// The scopes to ask for, `openid` first. A person's session asks for a refresh token where the
    /// provider knows how; a client that signs in as itself gets none (RFC 6749 §4.4.3), and asks
    /// for `openid` only if it wants an ID token, because many providers refuse it there.
    fn scope(&self) -> String {
        let identity = &self.settings.identity;
        let person = identity.subject == Subject::Person;
        let openid = person || self.settings.token_type == TokenType::Id;
        let entra = self.settings.provider == ProviderKind::Entra;
        let offline =
            identity.scopes.contains(OFFLINE_ACCESS) || entra || self.provider.metadata().lists_scope(OFFLINE_ACCESS);
        let named =
            identity.scopes.iter().map(String::as_str).filter(|scope| !["openid", OFFLINE_ACCESS].contains(scope));
        let first = openid.then_some("openid");
        let last = (person && offline).then_some(OFFLINE_ACCESS);
        first.into_iter().chain(named).chain(last).collect::<Vec<_>>().join(" ")
    }

    /// Whether a refresh names the scopes again: Entra ID and Okta give less, or other tokens, without.
    fn repeats_scopes(&self) -> bool {
        match self.settings.refresh_scopes {
            RefreshScopes::Always => true,
            RefreshScopes::Never => false,
            RefreshScopes::Auto => {
                self.settings.provider == ProviderKind::Entra || is_okta(&self.settings.identity.issuer)
            }
        }
    }

    async fn tokens(&self, form: Form, scope: &str, repeat: Repeat) -> Result<Reply, GrantError> {
        let endpoint = &self.provider.metadata().token_endpoint;
        let reply = Reply::of(endpoint, &self.post(endpoint, form, repeat).await?)?;
        let missing = reply.scopes_missing(scope);
        if !missing.is_empty() {
            self.http
                .step(format!("the provider did not grant all that was asked for; missing: `{}`", missing.join(" ")));
        }
        Ok(reply)
    }

    async fn post(&self, endpoint: &Url, form: Form, repeat: Repeat) -> Result<JsonObject, GrantError> {
        let (request, secrets) = self.request(endpoint, form).map_err(GrantError::Failed)?;
        let response = self.http.send(request, repeat).await.map_err(GrantError::Failed)?;
        refusal::answer(endpoint, &response, &secrets, self.http.now())
    }

    /// The request, and the secrets in it. The client says who it is as RFC 6749 §2.3.1 has it: by
    /// its secret, or without one by its name alone.
    fn request(&self, endpoint: &Url, form: Form) -> Result<(Request<Vec<u8>>, Vec<Secret>)> {
        let id = &self.settings.identity.client_id;
        let mut builder = Request::post(endpoint.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        let form = match self.secret {
            None => form.text("client_id", id),
            Some(secret) if self.authenticates_by_header() => {
                builder = builder.header(header::AUTHORIZATION, basic(id, secret));
                form.hidden(secret)
            }
            Some(secret) => form.text("client_id", id).secret("client_secret", secret),
        };
        let Form { mut body, secrets } = form;
        let request = builder.body(body.finish().into_bytes());
        Ok((request.map_err(|error| Error::bug("a request cannot be made").caused_by(&error))?, secrets))
    }

    fn authenticates_by_header(&self) -> bool {
        match self.settings.client_authentication {
            ClientAuthentication::Basic => true,
            ClientAuthentication::Post => false,
            ClientAuthentication::Auto => {
                let listed = &self.provider.metadata().token_endpoint_auth_methods_supported;
                // The method of those who list none (RFC 8414 §2).
                listed.as_ref().is_none_or(|methods| {
                    methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic")
                })
            }
        }
    }
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(id: &str, secret: &Secret) -> String {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret.expose()))))
}

fn is_okta(issuer: &str) -> bool {
    const DOMAINS: &[&str] = &[".okta.com", ".oktapreview.com", ".okta-emea.com", ".okta-gov.com"];
    let url = Url::parse(issuer).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// A form that knows which of its values are secret.
struct Form {
    body: Serializer<'static, String>,
    secrets: Vec<Secret>,
}

impl Default for Form {
    fn default() -> Self {
        Self { body: Serializer::new(String::new()), secrets: Vec::new() }
    }
}

impl Form {
    fn of(grant: &str) -> Self {
        Self::default().text("grant_type", grant)
    }

    fn text(mut self, name: &str, value: &str) -> Self {
        self.body.append_pair(name, value);
        self
    }

    fn secret(self, name: &str, value: &Secret) -> Self {
        self.text(name, value.expose()).hidden(value)
    }

    /// Sent elsewhere in this request, or in one before it.
    fn hidden(mut self, value: &Secret) -> Self {
        self.secrets.push(value.clone());
        self
    }

    fn resources(mut self, settings: &Settings) -> Self {
        self.body.extend_pairs(settings.identity.resources.iter().map(|resource| ("resource", resource)));
        self
    }

    /// What the settings add, where no browser brings it to the provider.
    fn parameters(mut self, settings: &Settings) -> Self {
        let parameters = settings.identity.auth_params.iter().filter(|(name, _)| *name != "response_mode");
        self.body.extend_pairs(parameters);
        self
    }
}

#[cfg(test)]
mod tests;
