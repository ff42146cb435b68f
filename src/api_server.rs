//! The API server: whom it takes the bearer of a token for (SelfSubjectReview, KEP-3325).
//!
//! kube's client does the asking, with a configuration filled by hand: its own would run exec
//! entries, and chooses proxies otherwise than kubectl does.

use std::collections::BTreeMap;
use std::error::Error as Cause;
use std::io;
use std::time::Duration;

use base64::Engine;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use kube::client::Body;
use kube::{Client, Config};
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::id_token;
use crate::kubeconfig::{CertificateAuthority, ClusterEntry};
use crate::secret::Secret;
use crate::settings::is_loopback;

/// Who the cluster says one is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WhoAmI {
    pub(crate) username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    pub(crate) groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// The whole exchange, both versions tried.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// The first is served since Kubernetes 1.28, the second from 1.27 on where it is switched on.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Asks the cluster who the bearer of this token is.
pub(crate) async fn who_am_i(cluster: &ClusterEntry, token: &Secret, environment: &Environment) -> Result<WhoAmI> {
    let client = client(cluster, token, environment)?;
    match tokio::time::timeout(TIME_LIMIT, review(&client, cluster, token)).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(cluster)
            .cause(format!("no answer within {} s", TIME_LIMIT.as_secs()))
            .hint("is a VPN or proxy needed to reach it? `HTTPS_PROXY` and the cluster's `proxy-url` are honoured")),
    }
}

async fn review(client: &Client, cluster: &ClusterEntry, token: &Secret) -> Result<WhoAmI> {
    for version in VERSIONS {
        let (status, body) = post(client, cluster, version).await?;
        match status {
            StatusCode::NOT_FOUND => {}
            StatusCode::UNAUTHORIZED => return Err(unauthorized(cluster, token)),
            status if status.is_success() => return user_info(cluster, &body),
            status => return Err(refused(cluster, status, &body)),
        }
    }
    Err(Error::new(Kind::Other, format!("the cluster `{}` cannot say who one is", cluster.server))
        .cause("it does not serve SelfSubjectReview, which came with Kubernetes 1.28")
        .hint("`kubectl auth can-i --list` shows what the token may do"))
}

async fn post(client: &Client, cluster: &ClusterEntry, version: &str) -> Result<(StatusCode, Vec<u8>)> {
    let group = "authentication.k8s.io";
    let body = serde_json::json!({"apiVersion": format!("{group}/{version}"), "kind": "SelfSubjectReview"});
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/apis/{group}/{version}/selfsubjectreviews"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .header("User-Agent", concat!("kubectl-headlamp/", env!("CARGO_PKG_VERSION")))
        .body(Body::from(body.to_string().into_bytes()))
        .map_err(|error| Error::bug("cannot build a request to the cluster").caused_by(&error))?;
    let response = client.send(request).await.map_err(|error| failed(cluster, &error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| failed(cluster, error.as_ref()))?;
    Ok((status, body.to_bytes().to_vec()))
}

fn user_info(cluster: &ClusterEntry, body: &[u8]) -> Result<WhoAmI> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(rename = "userInfo")]
        user_info: WhoAmI,
    }
    match serde_json::from_slice::<Review>(body) {
        Ok(review) => Ok(review.status.user_info),
        Err(error) => Err(Error::new(Kind::Other, format!("the answer of `{}` cannot be understood", cluster.server))
            .caused_by(&error)
            .hint("is that the address of an API server?")),
    }
}

/// 401: the token itself is refused. What stands in it says why, most of the time.
fn unauthorized(cluster: &ClusterEntry, token: &Secret) -> Error {
    let error = Error::new(Kind::Other, format!("the cluster `{}` does not accept the token", cluster.server));
    let Some(claims) = id_token::read_untrusted(token) else {
        return error
            .cause("401: the token is opaque, not a JWT")
            .hint("most clusters want the ID token: `--token-type id`");
    };
    let audience = claims.audience.join("`, `");
    error
        .cause(format!(
            "401: its issuer is `{}`, its audience `{audience}`, it is valid until {}",
            claims.issuer.as_deref().unwrap_or_default(),
            claims.expires.map_or_else(|| "an unknown time".to_owned(), |expires| expires.to_string()),
        ))
        .hint("compare issuer and audience, character for character, with the API server's `--oidc-issuer-url` and `--oidc-client-id`")
        .hint("the API server's log says why it refused the token")
}

/// 403 and the rest: the server's own words.
fn refused(cluster: &ClusterEntry, status: StatusCode, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let server = &cluster.server;
    let error = match status {
        StatusCode::FORBIDDEN => {
            Error::new(Kind::Other, format!("the cluster `{server}` accepts the token, but does not say whose it is"))
                .hint("give the user the ClusterRole `system:basic-user`, which may create selfsubjectreviews")
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => unreachable(cluster),
        _ => Error::new(Kind::Other, format!("the cluster `{server}` does not answer who one is")),
    };
    match serde_json::from_slice::<Status>(body) {
        Ok(answer) => error.cause(format!("{}: {}", status.as_u16(), answer.message)),
        Err(_) => error.cause(format!("it answered {status}")),
    }
}

fn unreachable(cluster: &ClusterEntry) -> Error {
    Error::unreachable(format!("cannot reach the cluster `{}`", cluster.server))
}

/// kube, hyper and tower each wrap the cause in words of their own; the innermost says it.
fn failed(cluster: &ClusterEntry, error: &(dyn Cause + 'static)) -> Error {
    let chain: Vec<_> = std::iter::successors(Some(error), |error| (*error).source()).collect();
    let innermost = chain.last().map(ToString::to_string).unwrap_or_default();
    let told = unreachable(cluster).cause(innermost);
    match chain.iter().find_map(|error| hint(*error)) {
        Some(hint) => told.hint(hint),
        None => told.hint("`kubectl cluster-info` shows whether kubectl can reach it"),
    }
}

fn hint(error: &(dyn Cause + 'static)) -> Option<&'static str> {
    let io = error.downcast_ref::<io::Error>();
    let inner = io.and_then(io::Error::get_ref);
    let tls = error.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
    let text = error.to_string();
    match (tls, io.map(io::Error::kind)) {
        (Some(rustls::Error::InvalidCertificate(certificate)), _) => Some(certificate_hint(certificate)),
        (Some(_), _) => Some("does the address of the cluster begin with `https:` where it should?"),
        (None, Some(io::ErrorKind::ConnectionRefused)) => Some("nothing listens there: is the cluster running?"),
        (None, _) if text.contains("dns error") => Some("the name is unknown here: is a VPN needed to reach the cluster?"),
        (None, _) if text.contains("tunnel") || text.contains("SOCKS") => {
            Some("the proxy did not let the connection through: see the cluster's `proxy-url`, `HTTPS_PROXY` and `NO_PROXY`")
        }
        _ => None,
    }
}

fn certificate_hint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the API server's certificate is not from the CA in the kubeconfig's cluster entry: get a new kubeconfig if the cluster was made anew"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the API server's certificate has run out, or this machine's clock is wrong: `date` shows it"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "this machine's clock is wrong: `date` shows it"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the API server's certificate is for another name: the cluster entry's `tls-server-name` can say which"
        }
        _ => "`certificate-authority` in the kubeconfig's cluster entry must be the CA, not the server's own certificate",
    }
}

fn client(cluster: &ClusterEntry, token: &Secret, environment: &Environment) -> Result<Client> {
    // Two libraries below look for the process's provider when they are given none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if HeaderValue::from_str(token.expose()).is_err() {
        return Err(Error::new(Kind::Other, "the token cannot be sent: it has characters that no token has"));
    }
    let server = server(cluster)?;
    let proxy = proxy(&server, cluster.proxy_url.as_deref(), environment)?;
    let mut config = Config::new(uri(server.as_str())?);
    config.root_cert = authorities(cluster)?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify;
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.proxy_url = proxy;
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.default_retry = false;
    config.auth_info.token = Some(token.expose().into());
    Client::try_from(config).map_err(|error| {
        Error::settings(format!("the cluster entry `{}` cannot be used", cluster.name)).caused_by(&error)
    })
}

/// The server's address; without a scheme it is http, as for kubectl.
fn server(cluster: &ClusterEntry) -> Result<Url> {
    let server = &cluster.server;
    let text = if server.contains("://") { server.clone() } else { format!("http://{server}") };
    let wrong = || Error::settings(format!("the cluster entry `{}` has no usable `server`: `{server}`", cluster.name));
    let url = Url::parse(&text).map_err(|error| wrong().caused_by(&error))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(wrong().cause("the token would travel unencrypted").hint("write it with `https://`")),
        _ => Err(wrong().hint("write it with `https://`")),
    }
}

fn uri(text: &str) -> Result<Uri> {
    text.parse().map_err(|error: http::uri::InvalidUri| Error::settings("not an address").caused_by(&error))
}

/// The entry's CAs in DER; none: the system's hold.
fn authorities(cluster: &ClusterEntry) -> Result<Option<Vec<Vec<u8>>>> {
    let unusable = |field: &str| Error::settings(format!("`{field}` of the cluster entry `{}` is no use", cluster.name));
    let (field, pem) = match &cluster.certificate_authority {
        None => return Ok(None),
        Some(CertificateAuthority::Data(data)) => {
            let field = "certificate-authority-data";
            let pem = base64::engine::general_purpose::STANDARD.decode(data.trim());
            (field, pem.map_err(|error| unusable(field).cause("it is not base64").caused_by(&error))?)
        }
        Some(CertificateAuthority::File(path)) => {
            let field = "certificate-authority";
            let pem = std::fs::read(path);
            (field, pem.map_err(|error| unusable(field).cause(path.display()).caused_by(&error))?)
        }
    };
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            Ok(Some(certificates.iter().map(|certificate| certificate.to_vec()).collect()))
        }
        _ => Err(unusable(field).cause("it holds no certificate in PEM format")),
    }
}

/// The proxy that kubectl would use: the entry's, else the environment's, and that never for this
/// machine itself.
fn proxy(server: &Url, configured: Option<&str>, environment: &Environment) -> Result<Option<Uri>> {
    if let Some(proxy) = configured {
        return proxy_uri("proxy-url", proxy).map(Some);
    }
    let variables = if server.scheme() == "https" { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let found = variables.into_iter().find_map(|name| Some((name, environment.text(name)?)));
    let Some((name, proxy)) = found.filter(|_| !is_loopback(server)) else { return Ok(None) };
    let exceptions = environment.text("NO_PROXY").or_else(|| environment.text("no_proxy")).unwrap_or_default();
    let matcher = Matcher::builder().all("http://proxy").no(exceptions_for(server, exceptions)).build();
    match matcher.intercept(&uri(server.as_str())?) {
        Some(_) => proxy_uri(name, proxy).map(Some),
        None => Ok(None),
    }
}

/// The entries of NO_PROXY that hold for the server's port, without ports and `*.`, which the
/// matcher does not know.
fn exceptions_for(server: &Url, exceptions: &str) -> String {
    let here = |entry: &str| {
        let entry = entry.trim();
        let host = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        match host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                (server.port_or_known_default() == Some(port)).then_some(host)
            }
            _ => Some(host.to_owned()),
        }
    };
    exceptions.split(',').filter_map(here).collect::<Vec<String>>().join(",")
}

/// A proxy's address may hold a password: it is not repeated.
fn proxy_uri(source: &str, text: &str) -> Result<Uri> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // kube knows one name for both; names are resolved by the proxy under either.
    let text = text.replacen("socks5h://", "socks5://", 1);
    let known = ["http://", "https://", "socks5://"].iter().any(|scheme| text.starts_with(scheme));
    let parsed = text.parse::<Uri>().ok().filter(|uri| known && uri.authority().is_some());
    parsed.ok_or_else(|| {
        Error::settings(format!("`{source}` is not the address of a proxy"))
            .hint("write it as `http://host:port`, `https://host:port` or `socks5://host:port`")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn chosen(server: &str, configured: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment::default().overlaid(variables);
        let proxy = proxy(&Url::parse(server).unwrap(), configured, &environment);
        proxy.unwrap_or_else(|error| panic!("{error}")).map(|uri| uri.to_string())
    }

    #[test]
    fn proxies_are_chosen_as_kubectl_does() {
        let http = ("HTTPS_PROXY", "http://p:3128");
        let used = Some("http://p:3128/".to_owned());
        let no = |list| [http, ("NO_PROXY", list)];
        for (server, configured, variables, expected) in [
            ("https://api.example", None, &[][..], None),
            ("https://api.example", None, &[http], used.clone()),
            ("https://api.example", None, &[("https_proxy", "p:3128")], used.clone()),
            ("https://api.example", None, &[("HTTP_PROXY", "http://p:3128")], None),
            ("https://api.example", None, &[("ALL_PROXY", "http://p:3128")], None),
            ("https://api.example", Some("socks5h://s:1080"), &[http], Some("socks5://s:1080/".into())),
            ("https://localhost:6443", None, &[http], None),
            ("https://127.0.0.1:6443", None, &[http], None),
            ("https://[::1]:6443", None, &[http], None),
            ("https://localhost:6443", Some("http://p:3128"), &[], used.clone()),
            ("https://api.example", None, &no("example,"), None),
            ("https://api.example", None, &no(".example"), None),
            ("https://api.example", None, &no("*.example"), None),
            ("https://api.example", None, &no("*"), None),
            ("https://api.example:6443", None, &no("api.example:6443"), None),
            ("https://api.example:6443", None, &no("api.example:443"), used.clone()),
            ("https://api.example", None, &no("other.example, pi.example"), used.clone()),
            ("https://10.1.2.3:6443", None, &no("10.0.0.0/8"), None),
            ("https://10.1.2.3:6443", None, &no("10.1.2.3:6443"), None),
            ("https://[fd00::1]:6443", None, &no("[fd00::1]:6443"), None),
            ("https://[fd00::1]:6443", None, &no("fd00::1"), None),
            ("https://[fd00::1]:6443", None, &no("fd00::/8"), None),
        ] {
            assert_eq!(chosen(server, configured, variables), expected, "{server} {configured:?} {variables:?}");
        }
    }

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        let server = Url::parse("https://api.example").unwrap();
        let environment = Environment::from([("HTTPS_PROXY", "ftp://me:hunter2@p")]);
        let error = proxy(&server, None, &environment).unwrap_err();
        assert!(error.to_string().contains("`HTTPS_PROXY`") && !error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_server_needs_https_except_on_this_machine() {
        for (text, expected) in [
            ("https://api.example:6443/k8s/c", true),
            ("http://127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("http://api.example", false),
            ("api.example:8080", false),
            ("unix:///run/api", false),
            ("", false),
        ] {
            let cluster = ClusterEntry { server: text.into(), ..ClusterEntry::default() };
            assert_eq!(server(&cluster).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_authority_that_is_none_is_a_settings_error() {
        for authority in [
            CertificateAuthority::Data("not base64!".into()),
            CertificateAuthority::Data("QUJD".into()),
            CertificateAuthority::File("/nonexistent/ca.pem".into()),
        ] {
            let cluster = ClusterEntry { certificate_authority: Some(authority), ..ClusterEntry::default() };
            assert_eq!(authorities(&cluster).unwrap_err().kind(), Kind::Settings);
        }
    }

    /// Asks a server that gives these answers, one connection each, and tells what it was sent.
    fn ask(answers: &'static [&'static str]) -> (Result<WhoAmI>, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let cluster = ClusterEntry {
                name: "test".into(),
                server: format!("http://{}/base", listener.local_addr().unwrap()),
                ..ClusterEntry::default()
            };
            let served = tokio::spawn(async move {
                let mut requests = Vec::new();
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut bytes = vec![0; 4096];
                    let mut request = String::new();
                    while !request.contains("SelfSubjectReview\"}") {
                        let count = stream.read(&mut bytes).await.unwrap();
                        request += &String::from_utf8_lossy(bytes.get(..count).unwrap());
                    }
                    requests.push(request);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                requests
            });
            let answer = who_am_i(&cluster, &Secret::new("opaque-token"), &Environment::default()).await;
            (answer, served.await.unwrap())
        })
    }

    #[test]
    fn the_cluster_says_who_one_is() {
        let (answer, requests) = ask(&["HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n{\"kind\":\"SelfSubjectReview\",\
            \"status\":{\"userInfo\":{\"username\":\"jane\",\"groups\":[\"dev\"],\"extra\":{\"k\":[\"v\"]}}}}"]);
        let who = answer.unwrap();
        assert_eq!((who.username.as_str(), who.groups, who.uid), ("jane", vec!["dev".to_owned()], None));
        let request = requests.first().unwrap();
        assert!(request.starts_with("POST /base/apis/authentication.k8s.io/v1/selfsubjectreviews "), "{request}");
        assert!(request.contains("authorization: Bearer opaque-token"), "{request}");
    }

    #[test]
    fn an_older_cluster_is_asked_in_the_older_version() {
        let (answer, requests) = ask(&[
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n{\"status\":{\"userInfo\":{\"username\":\"jane\"}}}",
        ]);
        assert_eq!(answer.unwrap().username, "jane");
        assert!(requests.last().unwrap().contains("\"authentication.k8s.io/v1beta1\""));
    }

    #[test]
    fn each_refusal_is_explained() {
        const GONE: &str = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        for (answers, kind, words) in [
            (&["HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{}"][..], Kind::Other, "--token-type id"),
            (
                &["HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"message\":\"User \\\"jane\\\" cannot\"}"],
                Kind::Other,
                "403: User \"jane\" cannot",
            ),
            (&["HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\noops"], Kind::Unreachable, "503"),
            (&[GONE, GONE], Kind::Other, "1.28"),
            (&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>"], Kind::Other, "address of an API server"),
        ] {
            let error = ask(answers).0.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(!error.to_string().contains("opaque-token"), "{error}");
        }
    }

    #[test]
    fn a_closed_port_is_unreachable_with_its_own_hint() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cluster = ClusterEntry { server: "https://127.0.0.1:1".into(), ..ClusterEntry::default() };
        let error = runtime.block_on(who_am_i(&cluster, &Secret::new("t"), &Environment::default())).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert_eq!(error.hints(), ["nothing listens there: is the cluster running?"]);
    }
}
