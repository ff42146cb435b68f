//! Questions of our own to an API server: whom it takes us for (`SelfSubjectReview`, KEP-3325).

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};

use crate::api_connection::{self, ApiConnection, Credential, VPN_OR_PROXY, unreachable};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::id_token;
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::Impersonation;
use crate::secret::Secret;

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

/// What a cluster makes of a credential.
#[derive(Debug)]
pub(crate) enum Review {
    /// It says whom it takes us for.
    Known(WhoAmI),
    /// It accepts the credential; why it does not say whose it is.
    Accepted(Error),
    /// It refuses the credential (401), explained.
    Refused(Error),
}

/// The whole exchange, all versions tried.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// The first is served since Kubernetes 1.28, the second from 1.27 on where it is switched on.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const GROUP: &str = "authentication.k8s.io";

/// Asks the cluster who the bearer of this token is.
pub(crate) async fn who_am_i(cluster: &ClusterEntry, token: &Secret, environment: &Environment) -> Result<WhoAmI> {
    let api = ApiConnection::new(cluster, environment)?;
    match self_subject_review(&api, &Credential::bearer(token.clone()), &Impersonation::default()).await? {
        Review::Known(who) => Ok(who),
        Review::Accepted(error) | Review::Refused(error) => Err(error),
    }
}

/// Asks the cluster whom it takes this credential for, impersonation included. An error means that
/// it could not be asked.
pub(crate) async fn self_subject_review(
    api: &ApiConnection,
    credential: &Credential,
    impersonation: &Impersonation,
) -> Result<Review> {
    match tokio::time::timeout(TIME_LIMIT, review(api, credential, impersonation)).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(api.cluster())
            .cause(format!("no answer within {} s", TIME_LIMIT.as_secs()))
            .hint(VPN_OR_PROXY)),
    }
}

async fn review(api: &ApiConnection, credential: &Credential, impersonation: &Impersonation) -> Result<Review> {
    let cluster = api.cluster();
    for version in VERSIONS {
        let path = format!("/apis/{GROUP}/{version}/selfsubjectreviews");
        let body = serde_json::json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "SelfSubjectReview"});
        let (status, body) = ask(api, credential, impersonation, Method::POST, &path, &body.to_string()).await?;
        match status {
            StatusCode::NOT_FOUND => {}
            StatusCode::UNAUTHORIZED => return Ok(Review::Refused(unauthorized(cluster, credential))),
            StatusCode::FORBIDDEN if credential.is_anonymous() => return Ok(Review::Refused(anonymous(cluster))),
            StatusCode::FORBIDDEN => return Ok(Review::Accepted(refused(cluster, status, &body))),
            status if status.is_success() => return Ok(Review::Known(user_info(cluster, &body)?)),
            status => return Err(refused(cluster, status, &body)),
        }
    }
    // Whoever is authenticated may ask for it, so it tells whether we are.
    let (status, body) = ask(api, credential, impersonation, Method::GET, "/version", "").await?;
    match status {
        StatusCode::UNAUTHORIZED => Ok(Review::Refused(unauthorized(cluster, credential))),
        status if status.is_server_error() => Err(refused(cluster, status, &body)),
        _ => Ok(Review::Accepted(
            Error::new(Kind::Other, format!("the cluster `{}` cannot say who one is", cluster.server))
                .cause("it does not serve SelfSubjectReview, which came with Kubernetes 1.28")
                .hint("`kubectl auth can-i --list` shows what the credential may do"),
        )),
    }
}

async fn ask(
    api: &ApiConnection,
    credential: &Credential,
    impersonation: &Impersonation,
    method: Method,
    path: &str,
    body: &str,
) -> Result<(StatusCode, Vec<u8>)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .header("User-Agent", concat!("kubectl-headlamp/", env!("CARGO_PKG_VERSION")))
        .body(if body.is_empty() { api_connection::empty() } else { api_connection::full(body.to_owned()) })
        .map_err(|error| Error::bug("cannot build a request to the cluster").caused_by(&error))?;
    let answer = api.send(credential, impersonation, request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| api.failed(error.as_ref()))?;
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

/// 401: the credential itself is refused. What stands in a token says why, most of the time.
fn unauthorized(cluster: &ClusterEntry, credential: &Credential) -> Error {
    let refused =
        |what: &str| Error::new(Kind::Other, format!("the cluster `{}` does not accept the {what}", cluster.server));
    let Some(token) = &credential.bearer else {
        let certificate = credential.certificate.is_some();
        return match (&credential.basic, certificate) {
            (Some(_), _) => refused("user name and password")
                .cause("401")
                .hint("Kubernetes dropped passwords with 1.19: use a token or a client certificate"),
            (None, true) => refused("client certificate")
                .cause("401: it is not from the cluster's client CA, or has run out")
                .hint("get a new kubeconfig from where this one came from"),
            (None, false) => anonymous(cluster),
        };
    };
    let error = refused("token");
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
        .hint("is it the token that the cluster wants? `--token-type id` or `--token-type access` chooses")
        .hint("the API server's log says why it refused the token")
}

/// 401 or 403 where nothing was shown.
fn anonymous(cluster: &ClusterEntry) -> Error {
    Error::new(Kind::Other, format!("the cluster `{}` does not know who you are", cluster.server))
        .cause("the kubeconfig's context names no user, or one without a credential")
        .hint("choose a context that has a user: `kubectl config get-contexts`")
}

/// 403 and the rest: the server's own words.
fn refused(cluster: &ClusterEntry, status: StatusCode, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let server = &cluster.server;
    let error = match status {
        StatusCode::FORBIDDEN => Error::new(
            Kind::Other,
            format!("the cluster `{server}` accepts the credential, but does not say whose it is"),
        )
        .hint("give the user the ClusterRole `system:basic-user`, which may create selfsubjectreviews"),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => unreachable(cluster),
        _ => Error::new(Kind::Other, format!("the cluster `{server}` does not answer who one is")),
    };
    match serde_json::from_slice::<Status>(body) {
        Ok(answer) => error.cause(format!("{}: {}", status.as_u16(), answer.message)),
        Err(_) => error.cause(format!("it answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server that gives these answers, one connection each, and what it is sent.
    async fn answering(answers: &'static [&'static str]) -> (ClusterEntry, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}/base", listener.local_addr().unwrap());
        let whole = |request: &str| {
            request.ends_with(if request.starts_with("GET ") { "\r\n\r\n" } else { "SelfSubjectReview\"}" })
        };
        let sent = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 4096];
                let mut request = String::new();
                while !whole(&request) {
                    let count = stream.read(&mut bytes).await.unwrap();
                    request += &String::from_utf8_lossy(bytes.get(..count).unwrap());
                }
                requests.push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (ClusterEntry { name: "test".into(), server, ..ClusterEntry::default() }, sent)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn ask(answers: &'static [&'static str]) -> (Result<WhoAmI>, Vec<String>) {
        block_on(async {
            let (cluster, sent) = answering(answers).await;
            let answer = who_am_i(&cluster, &Secret::new("opaque-token"), &Environment::default()).await;
            (answer, sent.await.unwrap())
        })
    }

    #[test]
    fn a_credential_that_is_refused_is_told_from_one_whose_owner_is_not_named() {
        const FORBIDDEN: &[&str] = &["HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{}"];
        const UNAUTHORIZED: &[&str] = &["HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{}"];
        let review = |answers, credential: Credential| {
            block_on(async {
                let (cluster, _) = answering(answers).await;
                let api = ApiConnection::new(&cluster, &Environment::default()).unwrap();
                self_subject_review(&api, &credential, &Impersonation::default()).await.unwrap()
            })
        };
        let basic = Credential { basic: Some(("jane".into(), Secret::new("hunter2"))), ..Credential::default() };
        for (answers, credential, refused, words) in [
            (FORBIDDEN, Credential::bearer(Secret::new("hunter2")), false, "accepts the credential"),
            (FORBIDDEN, Credential::default(), true, "does not know who you are"),
            (UNAUTHORIZED, Credential::default(), true, "does not know who you are"),
            (UNAUTHORIZED, basic, true, "dropped passwords"),
        ] {
            match (review(answers, credential), refused) {
                (Review::Refused(error), true) | (Review::Accepted(error), false) => {
                    assert!(error.to_string().contains(words) && !error.to_string().contains("hunter2"), "{error}");
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_cluster_says_who_one_is() {
        let (answer, requests) =
            ask(&["HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n{\"kind\":\"SelfSubjectReview\",\
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
            (&[GONE, GONE, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}"], Kind::Other, "1.28"),
            (&[GONE, GONE, "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{}"], Kind::Other, "does not accept"),
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
        let cluster = ClusterEntry { server: "https://127.0.0.1:1".into(), ..ClusterEntry::default() };
        let error = block_on(who_am_i(&cluster, &Secret::new("t"), &Environment::default())).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert_eq!(error.hints(), ["nothing listens there: is the cluster running?"]);
    }
}
