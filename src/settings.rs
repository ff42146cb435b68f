//! What the flags, the kubeconfig and the environment come to: resolved once, nothing left open.
//! Resolving reads no file and asks nobody, so that a cache hit can afford it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::entra::preset as entra;
use crate::environment::Environment;
use crate::error::{Error, Result, printable};
use crate::loopback::is_loopback;
use crate::options::{
    ClientAuthentication, Flow, Interactive, Options, ProviderKind, RefreshScopes, TokenStorage, TokenType,
};
use crate::proxy::Proxies;
use crate::secret::Secret;

/// Whose tokens these are: everything that makes two sign-ins different ones, and nothing else.
/// It is the cache's key (documented in the README), so two configurations with equal identities
/// share their tokens. Not in it: CA, client secret, redirect, token type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// As configured, character for character (`OpenID` Connect Discovery §4.3 compares strings).
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
    /// How much is told of what is done.
    pub(crate) verbosity: u8,
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
    pub(crate) proxies: Proxies,
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

/// Decides every setting that the options leave open. Reads no file.
pub(crate) fn resolve(options: &Options, environment: &Environment) -> Result<Settings> {
    let provider = provider_kind(options);
    let aks = options.aks.unwrap_or(false);
    let issuer = issuer(options, provider)?;
    let client_id = options.client_id.clone().ok_or_else(|| {
        Error::usage("no client: `--client-id` is missing")
            .hint("name the client that is registered with the provider: `--client-id <id>`")
    })?;
    let parameters = Parameters::of(options)?;
    let flow = options.flow.unwrap_or(Flow::Auto);
    let username = options.username.clone().or_else(|| options.login_hint.clone().filter(|_| flow == Flow::Password));
    let insecure = options.insecure_skip_tls_verify.unwrap_or(false);
    let expand = |path: &PathBuf| environment.expand(path);
    let identity = Identity {
        issuer,
        client_id,
        scopes: scopes(options, aks),
        resources: options.resource.iter().cloned().chain(parameters.resource).collect(),
        auth_params: parameters.rest,
        login_hint: options.login_hint.clone().or(parameters.login_hint).or_else(|| username.clone()),
        subject: if flow == Flow::ClientCredentials { Subject::Client } else { Subject::Person },
        tls_verified: !insecure,
    };
    let tenant = options.tenant.as_deref();
    Ok(Settings {
        identity,
        provider,
        token_type: options.token_type.unwrap_or(if aks { TokenType::Access } else { TokenType::Id }),
        token_issuer: options.token_issuer.clone().or_else(|| tenant.filter(|_| aks).and_then(entra::token_issuer)),
        token_audience: options.token_audience.clone().or_else(|| aks.then(|| entra::AKS_SERVER.to_owned())),
        client_secret: client_secret(options, environment)?,
        client_authentication: options.client_authentication.unwrap_or(ClientAuthentication::Auto),
        refresh_scopes: options.refresh_scopes.unwrap_or(RefreshScopes::Auto),
        flow,
        prompt: options.prompt.clone().or(parameters.prompt),
        callback: callback(options, environment)?,
        browser: BrowserSettings {
            command: options.browser_command.clone(),
            never: options.no_browser.unwrap_or(false),
            hide_url: options.hide_url.unwrap_or(false),
        },
        interactive: options.interactive.unwrap_or(Interactive::Auto),
        timeout: span("timeout", options.timeout.as_deref(), DEFAULT_TIMEOUT)?,
        username,
        password: password(options, environment)?,
        connection: ConnectionSettings {
            certificate_authorities: options.certificate_authority.iter().map(expand).collect(),
            certificate_authority_data: options.certificate_authority_data.clone(),
            insecure_skip_tls_verify: insecure,
            client_certificate: pair(
                "client-certificate",
                options.client_certificate.as_ref(),
                "client-key",
                options.client_key.as_ref(),
                environment,
            )?,
            headers: options
                .request_header
                .iter()
                .map(|header| key_value("request-header", header))
                .collect::<Result<_>>()?,
            proxies: Proxies::of(environment),
        },
        cache: CacheSettings {
            folder: cache_folder(options, environment)?,
            minimum_validity: minimum_validity(options)?,
            force_refresh: options.force_refresh.unwrap_or(false),
        },
        verbosity: options.verbose.unwrap_or(0),
        notes: options.notes.clone(),
        origin: None,
    })
}

/// Entra ID, if it is named, or its preset is used, or the issuer is one of its hosts.
fn provider_kind(options: &Options) -> ProviderKind {
    let host = options.issuer_url.as_deref().is_some_and(entra::is_entra);
    match options.provider {
        Some(kind) => kind,
        None if options.tenant.is_some() || options.aks == Some(true) || host => ProviderKind::Entra,
        None => ProviderKind::Oidc,
    }
}

fn issuer(options: &Options, provider: ProviderKind) -> Result<String> {
    match (&options.issuer_url, provider, &options.tenant) {
        (Some(issuer), _, _) => {
            check_provider_url("issuer-url", issuer)?;
            Ok(issuer.clone())
        }
        (None, ProviderKind::Entra, Some(tenant)) => entra::issuer(tenant),
        (None, ProviderKind::Entra, None) => Err(Error::usage("no tenant: `--tenant` is missing")
            .hint("the directory (tenant) ID stands on the overview page of the app registration: `--tenant <id>`")),
        (None, ProviderKind::Oidc, _) => Err(Error::usage("no issuer: `--issuer-url` is missing")
            .hint("name the provider's issuer: `--issuer-url https://…`")),
    }
}

/// A URL that prompts show as it is written: so it has nothing in it that a terminal could act on.
fn shown_url(flag: &str, text: &str) -> Result<Url> {
    let wrong = || Error::usage(format!("`--{flag}` is not a URL: `{text}`"));
    if printable(text) != text {
        return Err(wrong().cause("it is too long, or has characters that cannot be seen"));
    }
    Url::parse(text).map_err(|error| wrong().cause(error))
}

/// https, or http on loopback; no user name, query or fragment (`OpenID` Connect Discovery §3).
fn check_provider_url(flag: &str, text: &str) -> Result<()> {
    let url = shown_url(flag, text)?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !plain {
        return Err(Error::usage(format!("`--{flag}` has a user name, a query or a fragment: an issuer has none")));
    }
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) {
        return Ok(());
    }
    Err(Error::usage(format!("`--{flag}` is not https: `{text}`"))
        .hint("tokens that travel unencrypted can be taken; http is accepted on loopback only"))
}

fn scopes(options: &Options, aks: bool) -> BTreeSet<String> {
    let given = options.scope.iter().flat_map(|scopes| scopes.split([' ', ','])).filter(|scope| !scope.is_empty());
    let preset = if aks && options.scope.is_empty() { entra::AKS_SCOPES } else { &[] };
    given.chain(preset.iter().copied()).chain(["openid"]).map(str::to_owned).collect()
}

/// `--auth-param`, sorted out: what has a flag of its own goes there, what the protocol needs is refused.
#[derive(Default)]
struct Parameters {
    prompt: Option<String>,
    login_hint: Option<String>,
    resource: Option<String>,
    rest: BTreeMap<String, String>,
}

impl Parameters {
    fn of(options: &Options) -> Result<Self> {
        let mut parameters = Self::default();
        for parameter in &options.auth_param {
            let (key, value) = key_value("auth-param", parameter)?;
            match key.as_str() {
                "prompt" => parameters.prompt = Some(value),
                "login_hint" => parameters.login_hint = Some(value),
                "resource" => parameters.resource = Some(value),
                "response_mode" if value == "query" || value == "form_post" => drop(parameters.rest.insert(key, value)),
                reserved if RESERVED_PARAMETERS.contains(&reserved) => {
                    return Err(Error::usage(format!(
                        "`--auth-param` cannot set `{reserved}`: the sign-in itself needs it"
                    )));
                }
                _ => drop(parameters.rest.insert(key, value)),
            }
        }
        Ok(parameters)
    }
}

fn key_value(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("`--{flag}` takes KEY=VALUE"))),
    }
}

fn client_secret(options: &Options, environment: &Environment) -> Result<SecretSource> {
    match (&options.client_secret, &options.client_secret_file, &options.client_secret_command) {
        (None, None, None) => Ok(SecretSource::None),
        (Some(text), None, None) if text.is_empty() => Ok(SecretSource::None),
        (Some(text), None, None) => Ok(SecretSource::Value(text.clone())),
        (None, Some(file), None) => Ok(SecretSource::File(environment.expand(file))),
        (None, None, Some(command)) => Ok(SecretSource::Command(command.clone())),
        _ => Err(Error::usage("the client's secret is given more than once")
            .hint("use one of `--client-secret-file`, `--client-secret-command` and `--client-secret`")),
    }
}

fn password(options: &Options, environment: &Environment) -> Result<SecretSource> {
    match (&options.password, &options.password_file) {
        (None, None) => Ok(SecretSource::None),
        (Some(text), None) if text.is_empty() => Ok(SecretSource::None),
        (Some(text), None) => Ok(SecretSource::Value(text.clone())),
        (None, Some(file)) => Ok(SecretSource::File(environment.expand(file))),
        (Some(_), Some(_)) => {
            Err(Error::usage("the password is given more than once")
                .hint("use one of `--password-file` and `--password`"))
        }
    }
}

/// Both or neither of two files.
fn pair(
    one: &str,
    first: Option<&PathBuf>,
    other: &str,
    second: Option<&PathBuf>,
    environment: &Environment,
) -> Result<Option<(PathBuf, PathBuf)>> {
    match (first, second) {
        (Some(first), Some(second)) => Ok(Some((environment.expand(first), environment.expand(second)))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::usage(format!("`--{one}` needs `--{other}` beside it"))),
        (None, Some(_)) => Err(Error::usage(format!("`--{other}` needs `--{one}` beside it"))),
    }
}

fn callback(options: &Options, environment: &Environment) -> Result<CallbackSettings> {
    let tls = pair(
        "callback-certificate",
        options.callback_certificate.as_ref(),
        "callback-key",
        options.callback_key.as_ref(),
        environment,
    )?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let path = if options.kubelogin { "" } else { "/oidc-callback" };
    let ports = options.listen_address.iter().map(|address| listen_port(address)).collect::<Result<Vec<u16>>>()?;
    let places = if let Some(redirect) = &options.redirect_url {
        let own = redirect_port(redirect, scheme, ports.is_empty() && options.flow != Some(Flow::Paste))?;
        let ports = if ports.is_empty() { vec![own] } else { ports };
        ports.into_iter().map(|port| CallbackPlace { redirect: redirect.clone(), port }).collect()
    } else {
        let ports = match (ports.is_empty(), options.kubelogin) {
            (false, _) => ports,
            (true, false) => vec![8000],
            (true, true) => vec![8000, 18000],
        };
        ports
            .into_iter()
            .map(|port| CallbackPlace { redirect: format!("{scheme}://localhost:{port}{path}"), port })
            .collect()
    };
    let open_afterwards = options.open_url_after_authentication.as_deref().map(|text| {
        Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Error::usage(format!("`--open-url-after-authentication` is not a web address: `{text}`")))
    });
    Ok(CallbackSettings { places, tls, open_afterwards: open_afterwards.transpose()? })
}

/// The port of a redirect that we are to answer ourselves.
fn redirect_port(text: &str, scheme: &str, must_be_local: bool) -> Result<u16> {
    let url = shown_url("redirect-url", text)?;
    if must_be_local && !is_loopback(&url) {
        return Err(Error::usage(format!("`--redirect-url` leads to another machine: `{text}`"))
            .hint("if that machine forwards to this one, say where to listen: `--listen-address localhost:8000`")
            .hint("or finish the sign-in by pasting: `--flow paste`"));
    }
    if must_be_local && url.scheme() != scheme {
        let mend = if scheme == "http" {
            "an https redirect needs `--callback-certificate` and `--callback-key`"
        } else {
            "with `--callback-certificate` the redirect must begin with `https:`"
        };
        return Err(Error::usage(format!("`--redirect-url` is not {scheme}: `{text}`")).hint(mend));
    }
    Ok(url.port_or_known_default().unwrap_or(80))
}

/// `localhost:8000`, `127.0.0.1:8000`, `[::1]:8000`, `:8000` or `8000`: both loopback families of that port.
fn listen_port(text: &str) -> Result<u16> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().map_err(|_| {
        Error::usage(format!("`--listen-address` has no port: `{text}`")).hint("write it as `localhost:8000`")
    })?;
    match host {
        "" | "localhost" | "127.0.0.1" | "[::1]" => Ok(port),
        _ => Err(Error::usage(format!("`--listen-address` is not this machine's loopback: `{text}`"))
            .hint("others could answer or read the sign-in there; for containers and SSH use `--flow paste` or `--flow device`")),
    }
}

/// The folder of the cached tokens; `None` where none are to be kept.
pub(crate) fn cache_folder(options: &Options, environment: &Environment) -> Result<Option<PathBuf>> {
    if options.token_storage == Some(TokenStorage::None) {
        return Ok(None);
    }
    let folder =
        options.cache_dir.as_ref().map(|folder| environment.expand(folder)).or_else(|| environment.state_folder());
    folder.map(Some).ok_or_else(|| {
        Error::settings("there is no folder to keep tokens in: the home folder is not known")
            .hint("set `HOME`, name one with `--cache-dir`, or keep none with `--token-storage none`")
    })
}

fn minimum_validity(options: &Options) -> Result<SignedDuration> {
    let seconds = match options.minimum_validity.as_deref() {
        Some("0" | "0s") => 0,
        given => span("minimum-validity", given, DEFAULT_MINIMUM_VALIDITY)?.as_secs(),
    };
    Ok(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

/// A span as people write it: `180`, `90s`, `5m`, `1h`; a second to a day.
fn span(flag: &str, text: Option<&str>, default: Duration) -> Result<Duration> {
    let Some(text) = text else { return Ok(default) };
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) if text.ends_with('m') => (digits, 60),
        Some(digits) if text.ends_with('h') => (digits, 3_600),
        Some(digits) => (digits, 1),
        None => (text, 1),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::usage(format!("`--{flag}` is not a time between 1s and 24h: `{text}`"))),
    }
}

/// What the protocol itself sets in an authorization request.
const RESERVED_PARAMETERS: &[&str] = &[
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_type",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
const DEFAULT_MINIMUM_VALIDITY: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::options;

    fn settings(line: &str) -> Result<Settings> {
        let arguments: Vec<_> = line.split_whitespace().map(Into::into).collect();
        resolve(&options::of_arguments(&arguments)?, &Environment::from([("HOME", "/home/jane")]))
    }

    fn refused(line: &str) -> String {
        settings(&format!("--client-id c {line}")).unwrap_err().message().to_owned()
    }

    const PLAIN: &str = "--issuer-url https://id.example.com --client-id c";

    #[test]
    fn what_prompts_show_as_it_is_holds_nothing_that_a_terminal_acts_on() {
        let settings = |flag: &str, url: &str| {
            let issuer = if flag == "issuer-url" { url } else { "https://id.example.com" };
            let options = Options {
                client_id: Some("c".to_owned()),
                issuer_url: Some(issuer.to_owned()),
                redirect_url: (flag == "redirect-url").then(|| url.to_owned()),
                ..Options::default()
            };
            resolve(&options, &Environment::from([("HOME", "/home/jane")]))
        };
        for flag in ["issuer-url", "redirect-url"] {
            assert!(settings(flag, "http://localhost/a").is_ok(), "{flag}");
            for url in ["http://localhost/\u{1b}[31m", "http://localhost/\u{202e}", "http://localhost/a\nb"] {
                let message = settings(flag, url).unwrap_err().message().to_owned();
                assert!(message.starts_with(&format!("`--{flag}` is not a URL")), "{message}");
            }
        }
    }

    #[test]
    fn the_defaults_are_the_tutorials() {
        let settings = settings(PLAIN).unwrap();
        assert_eq!(
            settings.callback.places,
            [CallbackPlace { redirect: "http://localhost:8000/oidc-callback".to_owned(), port: 8000 }]
        );
        assert_eq!(settings.cache.minimum_validity, SignedDuration::from_secs(90));
        assert_eq!(settings.cache.folder, Some(PathBuf::from("/home/jane/.local/state/kubectl-headlamp")));
        assert_eq!(settings.timeout, Duration::from_secs(180));
        assert_eq!(settings.identity.scopes, BTreeSet::from(["openid".to_owned()]));
    }

    #[test]
    fn kubelogins_spelling_brings_its_redirects() {
        let settings = settings("--oidc-issuer-url=https://id.example.com --oidc-client-id=c").unwrap();
        let redirects: Vec<_> = settings.callback.places.iter().map(|place| place.redirect.as_str()).collect();
        assert_eq!(redirects, ["http://localhost:8000", "http://localhost:18000"]);
    }

    #[test]
    fn a_redirect_is_kept_character_for_character() {
        let settings =
            settings(&format!("{PLAIN} --redirect-url http://127.0.0.1:9/A/?b=%2F --listen-address localhost:10"))
                .unwrap();
        assert_eq!(
            settings.callback.places,
            [CallbackPlace { redirect: "http://127.0.0.1:9/A/?b=%2F".to_owned(), port: 10 }]
        );
    }

    #[test]
    fn the_aks_preset_fills_in_the_tutorial() {
        let settings =
            settings("--provider entra --tenant 11111111-2222-3333-4444-555555555555 --aks --client-id c").unwrap();
        assert_eq!(
            settings.identity.issuer,
            "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
        );
        assert_eq!(
            settings.token_issuer.as_deref(),
            Some("https://sts.windows.net/11111111-2222-3333-4444-555555555555/")
        );
        assert_eq!(settings.token_audience.as_deref(), Some("6dae42f8-4368-4678-94ff-3960e28e3630"));
        assert_eq!(settings.token_type, TokenType::Access);
        assert!(settings.identity.scopes.contains("6dae42f8-4368-4678-94ff-3960e28e3630/user.read"));
        assert!(settings.identity.scopes.contains("offline_access"));
    }

    #[test]
    fn bad_settings_are_named() {
        assert!(refused("--issuer-url http://id.example.com").contains("not https"));
        assert!(refused("--issuer-url nonsense").contains("--issuer-url"));
        assert!(refused("--issuer-url https://u:p@id.example.com").contains("user name"));
        assert!(refused("").contains("--issuer-url"));
        assert!(refused("--provider entra").contains("--tenant"));
        for reserved in RESERVED_PARAMETERS {
            assert!(refused(&format!("--issuer-url https://a --auth-param {reserved}=x")).contains(reserved));
        }
        assert!(refused("--issuer-url https://a --listen-address 0.0.0.0:8000").contains("loopback"));
        assert!(refused("--issuer-url https://a --redirect-url https://other.example/cb").contains("another machine"));
        assert!(refused("--issuer-url https://a --client-key k").contains("--client-certificate"));
        assert!(refused("--issuer-url https://a --timeout 0").contains("--timeout"));
        assert!(refused("--issuer-url https://a --client-secret a --client-secret-file b").contains("more than once"));
    }

    #[test]
    fn parameters_with_a_flag_of_their_own_become_that_flag() {
        let settings = settings(&format!(
            "{PLAIN} --auth-param prompt=consent --auth-param resource=urn:a --auth-param access_type=offline"
        ))
        .unwrap();
        assert_eq!(settings.prompt.as_deref(), Some("consent"));
        assert_eq!(settings.identity.resources, BTreeSet::from(["urn:a".to_owned()]));
        assert_eq!(settings.identity.auth_params, BTreeMap::from([("access_type".to_owned(), "offline".to_owned())]));
    }
}
