//! What the flags, the kubeconfig and the environment come to: resolved once, nothing left open.
//! Resolving reads no file and asks nobody, so that a cache hit can afford it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::options::{ClientAuthentication, Flow, Interactive, ProviderKind, RefreshScopes, TokenType};
use crate::secret::Secret;

/// Whose tokens these are: everything that makes two sign-ins different ones, and nothing else.
/// It is the cache's key (documented in the README), so two configurations with equal identities
/// share their tokens. Not in it: CA, client secret, redirect, token type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// As configured, character for character (OpenID Connect Discovery §4.3 compares strings).
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// All scopes that are asked for by configuration, `openid` included.
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) resources: BTreeSet<String>,
    pub(crate) auth_params: BTreeMap<String, String>,
    /// The account, where one is named (`--login-hint`, or the user name of the password flow).
    pub(crate) login_hint: Option<String>,
    /// Who signs in: a person, or the client itself (client credentials).
    pub(crate) subject: Subject,
    /// Whether the provider's TLS certificate was verified.
    pub(crate) tls_verified: bool,
}

/// Who signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    Person,
    Client,
}

/// Everything that a sign-in, a refresh or a cache hit needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) identity: Identity,
    pub(crate) provider: ProviderKind,
    pub(crate) token_type: TokenType,
    /// The `iss` and `aud` that a JWT access token must have, where configured.
    pub(crate) token_issuer: Option<String>,
    pub(crate) token_audience: Option<String>,
    pub(crate) client_secret: SecretSource,
    pub(crate) client_authentication: ClientAuthentication,
    pub(crate) refresh_scopes: RefreshScopes,
    pub(crate) flow: Flow,
    pub(crate) prompt: Option<String>,
    pub(crate) callback: CallbackSettings,
    pub(crate) browser: BrowserSettings,
    pub(crate) interactive: Interactive,
    /// How long a sign-in may take.
    pub(crate) timeout: Duration,
    pub(crate) username: Option<String>,
    pub(crate) password: SecretSource,
    pub(crate) connection: ConnectionSettings,
    pub(crate) cache: CacheSettings,
    /// What was configured and is not honoured, one line each.
    pub(crate) notes: Vec<String>,
    /// Where the settings come from, for messages: `context `dev`, user `oidc` in ~/.kube/config`.
    pub(crate) origin: Option<String>,
}

/// Where a secret is to be had when it is needed.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    None,
    Value(Secret),
    File(PathBuf),
    /// Run by the shell; what it prints is the secret, line end removed.
    Command(String),
}

/// Where the provider sends the browser back to.
#[derive(Clone, Debug)]
pub(crate) struct CallbackSettings {
    /// In order of preference; the first that can be listened on is used.
    pub(crate) places: Vec<CallbackPlace>,
    /// Certificate and key files of an https redirect.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// Where the browser goes when it is done.
    pub(crate) open_afterwards: Option<Url>,
}

/// One redirect and the port to listen on for it. Port 0: any; then `redirect` gets its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallbackPlace {
    /// Sent in both legs, character for character.
    pub(crate) redirect: String,
    pub(crate) port: u16,
}

/// How a browser is opened.
#[derive(Clone, Debug)]
pub(crate) struct BrowserSettings {
    pub(crate) command: Option<String>,
    pub(crate) never: bool,
    pub(crate) hide_url: bool,
}

/// How the provider is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionSettings {
    /// PEM files of CAs to trust besides the system's.
    pub(crate) certificate_authorities: Vec<PathBuf>,
    /// Base64 of PEM, likewise.
    pub(crate) certificate_authority_data: Vec<String>,
    pub(crate) insecure_skip_tls_verify: bool,
    /// Certificate and key files for mutual TLS.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    /// Further headers of every request.
    pub(crate) headers: Vec<(String, String)>,
}

/// Where tokens are kept.
#[derive(Clone, Debug)]
pub(crate) struct CacheSettings {
    /// `None`: nowhere.
    pub(crate) folder: Option<PathBuf>,
    /// A cached token with less time left is not handed out.
    pub(crate) minimum_validity: SignedDuration,
    pub(crate) force_refresh: bool,
}
