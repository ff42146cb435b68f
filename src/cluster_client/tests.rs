#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::cell::Cell;
use std::convert::Infallible;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::{BearerSource, UserEntry};
use crate::ui::Ui;

/// What came: method and path, the token, the body.
type Came = (String, String, Bytes);

/// A cluster of whose tokens those that name a user are accepted: `jane-1` is jane's, and so is a
/// JWT whose subject is `jane`.
struct Cluster {
    url: String,
    came: Arc<Mutex<Vec<Came>>>,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let came = Arc::<Mutex<Vec<Came>>>::default();
        let all = came.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let service = service_fn({
                    let came = all.clone();
                    move |request| answer(request, came.clone())
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { url, came, folder: tempfile::tempdir().unwrap() }
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn token(&self, token: &str) {
        std::fs::write(self.token_file(), token).unwrap();
    }

    fn client(&self, impersonation: Impersonation) -> ClusterClient {
        let target = Target {
            context: Some("dev".into()),
            cluster: ClusterEntry { name: "dev".into(), server: self.url.clone(), ..ClusterEntry::default() },
            user: UserEntry {
                name: Some("u".into()),
                bearer: BearerSource::File(self.token_file()),
                certificate: None,
                impersonate: impersonation,
            },
            namespace: Some("team".into()),
        };
        let surroundings =
            Surroundings { environment: Environment::default(), ui: Ui::new(), clock: Clock::fixed(now) };
        ClusterClient::new(&target, surroundings, Arc::new(|| Box::new(())), None)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }
}

async fn answer(request: Request<Incoming>, came: Arc<Mutex<Vec<Came>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let token = text("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    let user = text("impersonate-user").or_else(|| user(&token));
    came.lock().unwrap().push((format!("{} {}", head.method, head.uri), token, body));
    let (status, answer) = match (user, head.uri.path()) {
        (Some(_), "/api/v1/namespaces/team/services/app/proxy/") => (401, json!({"from": "the application"})),
        (None, _) => (401, json!({"kind": "Status", "message": "Unauthorized"})),
        (Some(user), "/apis/authentication.k8s.io/v1/selfsubjectreviews") => {
            (201, json!({"status": {"userInfo": {"username": user, "groups": []}}}))
        }
        (Some(_), "/api/v1/namespaces/team/pods") => (
            200,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{"metadata": {"name": "a"}}]}),
        ),
        (Some(_), _) => (200, json!({})),
    };
    Ok(Response::builder().status(status).body(Full::from(answer.to_string())).unwrap())
}

fn user(token: &str) -> Option<String> {
    let known = |user: &str| ["jane", "joe"].contains(&user).then(|| user.to_owned());
    let Some(payload) = token.split('.').nth(1) else { return known(token.split('-').next().unwrap()) };
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    if claims["good"] == true { known(claims["sub"].as_str().unwrap()) } else { None }
}

fn jwt(subject: &str, number: u8, good: bool) -> String {
    jwt_from("https://id.example", subject, number, good)
}

fn jwt_from(issuer: &str, subject: &str, number: u8, good: bool) -> String {
    let payload = json!({"iss": issuer, "sub": subject, "jti": number, "good": good, "exp": 4_000_000_000_u32});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
}

thread_local! {
    static AHEAD: Cell<i64> = const { Cell::new(0) };
}

fn now() -> jiff::Timestamp {
    Clock::system().now() + jiff::SignedDuration::from_secs(AHEAD.get())
}

/// Renewals are held off for some seconds after one that failed, or was of no use.
fn time_passes() {
    AHEAD.set(AHEAD.get() + 30);
}

fn request(method: Method) -> Request<()> {
    Request::builder().method(method).uri("/api/v1/x").body(()).unwrap()
}

async fn status(client: &ClusterClient) -> Result<StatusCode> {
    client.send(Line::Request, request(Method::GET), Payload::None).await.map(|answer| answer.status())
}

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_refused_request_is_repeated_with_a_renewed_credential_and_its_body() {
    let cluster = Cluster::start().await;
    cluster.token("ended");
    let client = cluster.client(Impersonation::default());
    let refused = status(&client).await;
    assert!(refused.unwrap_err().to_string().contains("refuses the token"));
    assert_eq!(*client.trouble().borrow(), None, "a refusal may pass");
    time_passes();
    cluster.token("jane-1");
    let answer = client.send(Line::Request, request(Method::POST), Payload::Whole(Bytes::from_static(b"{}"))).await;
    assert_eq!(ok(answer).status(), 200);
    assert_eq!(ok(status(&client).await), 200);
    let posts: Vec<Came> = cluster.came().into_iter().filter(|(line, ..)| line.starts_with("POST")).collect();
    let all = |token: &str| ("POST /api/v1/x".to_owned(), token.to_owned(), Bytes::from_static(b"{}"));
    assert_eq!(posts, [all("ended"), all("jane-1")]);
}

#[tokio::test]
async fn a_401_of_an_application_behind_the_clusters_proxy_is_the_applications() {
    let cluster = Cluster::start().await;
    cluster.token("jane-1");
    let client = cluster.client(Impersonation::default());
    let ask = async |client: &ClusterClient| {
        let request = Request::get("/api/v1/namespaces/team/services/app/proxy/").body(()).unwrap();
        client.send(Line::Request, request, Payload::None).await
    };
    assert_eq!(ok(ask(&client).await).status(), 401);
    assert_eq!(ok(status(&client).await), 200, "nothing is held against the credential");
    // The cluster's own 401 has the credential renewed there too.
    cluster.token("ended");
    let client = cluster.client(Impersonation::default());
    ok(client.0.credentials.current().await);
    cluster.token("jane-2");
    assert_eq!(ok(ask(&client).await).status(), 401);
    assert_eq!(cluster.came().last().unwrap().1, "jane-2");
}

#[tokio::test]
async fn a_body_that_cannot_be_repeated_is_told_and_the_next_request_goes_through() {
    let cluster = Cluster::start().await;
    cluster.token("ended");
    let client = cluster.client(Impersonation::default());
    let credential = ok(client.0.credentials.current().await);
    cluster.token("jane-1");
    assert!(credential.bearer.is_some());
    let answer = client.send(Line::Request, request(Method::POST), Payload::Stream(full("large"))).await;
    assert_eq!(answer.err().unwrap().kind(), Kind::Unreachable);
    assert_eq!(ok(status(&client).await), 200);
}

#[tokio::test]
async fn another_persons_credential_is_never_used() {
    let cluster = Cluster::start().await;
    cluster.token(&jwt("jane", 1, true));
    let client = cluster.client(Impersonation::default());
    ok(client.review().await);
    assert_eq!(client.who().unwrap().username, "jane");
    // The cluster refuses jane's next token, and then joe's is in the file.
    cluster.token(&jwt("jane", 2, false));
    let refused = ok(client.0.credentials.current().await);
    cluster.token(&jwt("jane", 3, true));
    let renewed = ok(client.0.credentials.renewed(&refused).await);
    assert_eq!(ok(status(&client).await), 200);
    cluster.token(&jwt("joe", 4, true));
    time_passes();
    ok(client.0.credentials.renewed(&renewed).await);
    assert!(status(&client).await.is_err());
    assert!(matches!(*client.trouble().borrow(), Some(Trouble::AnotherUser(_))));
    cluster.token(&jwt("jane", 5, true));
    assert!(status(&client).await.is_err(), "this does not pass");
    let by_joe = cluster.came().into_iter().filter(|(_, token, _)| *token == jwt("joe", 4, true));
    let lines: Vec<String> = by_joe.map(|(line, ..)| line).collect();
    assert_eq!(lines, ["POST /apis/authentication.k8s.io/v1/selfsubjectreviews"], "he was asked about, and no more");
}

#[tokio::test]
async fn who_is_the_same_to_the_cluster_is_the_same_whatever_the_credential_says_of_it() {
    for impersonation in
        [Impersonation::default(), Impersonation { user: Some("bob".into()), ..Impersonation::default() }]
    {
        let cluster = Cluster::start().await;
        cluster.token(&jwt("jane", 1, true));
        let client = cluster.client(impersonation);
        ok(client.review().await);
        let first = ok(client.0.credentials.current().await);
        cluster.token(&jwt_from("https://new.example", "jane", 2, true));
        let second = ok(client.0.credentials.renewed(&first).await);
        assert_ne!(first.subject, second.subject);
        assert_eq!(ok(status(&client).await), 200);
        assert_eq!(cluster.came().last().unwrap().1, jwt_from("https://new.example", "jane", 2, true));
        let asked = cluster.came().len();
        assert_eq!(ok(status(&client).await), 200);
        assert_eq!(cluster.came().len(), asked + 1, "it is asked about once");
        time_passes();
        cluster.token(&jwt_from("https://new.example", "joe", 3, true));
        ok(client.0.credentials.renewed(&second).await);
        assert!(status(&client).await.is_err());
        assert!(matches!(*client.trouble().borrow(), Some(Trouble::AnotherUser(_))));
    }
}

#[tokio::test]
async fn whoever_asks_whose_a_credential_is_is_not_waited_for_for_ever() {
    let cluster = Cluster::start().await;
    cluster.token("jane-1");
    let client = cluster.client(Impersonation::default());
    ok(client.review().await);
    let first = ok(client.0.credentials.current().await);
    cluster.token("jane-2");
    ok(client.0.credentials.renewed(&first).await);
    let _asking = client.0.asking.lock().await;
    let told = timeout(2 * PERSON_LIMIT, status(&client)).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), Kind::Unreachable);
}

#[tokio::test]
async fn opaque_tokens_are_told_apart_by_the_cluster() {
    let cluster = Cluster::start().await;
    cluster.token("jane-1");
    let client = cluster.client(Impersonation::default());
    ok(client.review().await);
    let first = ok(client.0.credentials.current().await);
    cluster.token("jane-2");
    let second = ok(client.0.credentials.renewed(&first).await);
    assert_eq!(ok(status(&client).await), 200);
    cluster.token("joe-1");
    time_passes();
    ok(client.0.credentials.renewed(&second).await);
    assert!(status(&client).await.is_err());
    let used: Vec<String> =
        cluster.came().into_iter().filter(|(line, ..)| line.contains("/x")).map(|came| came.1).collect();
    assert_eq!(used, ["jane-2"]);
}

#[tokio::test]
async fn impersonation_is_shown_and_the_person_behind_it_is_who_must_stay() {
    let cluster = Cluster::start().await;
    cluster.token("jane-1");
    let client = cluster.client(Impersonation { user: Some("bob".into()), ..Impersonation::default() });
    ok(client.review().await);
    assert_eq!(client.who().unwrap().username, "bob");
    let first = ok(client.0.credentials.current().await);
    cluster.token("joe-1");
    time_passes();
    ok(client.0.credentials.renewed(&first).await);
    assert!(status(&client).await.is_err());
}

#[tokio::test]
async fn trouble_is_told_when_a_refusal_lasts_and_passes_with_the_next_answer() {
    let cluster = Cluster::start().await;
    cluster.token("ended");
    let client = cluster.client(Impersonation::default());
    assert!(status(&client).await.is_err());
    *locked(&client.0.refused_since) = Instant::now().checked_sub(REFUSALS_PASS);
    assert!(status(&client).await.is_err());
    assert!(matches!(*client.trouble().borrow(), Some(Trouble::SignIn(_))));
    time_passes();
    cluster.token("jane-1");
    assert_eq!(ok(status(&client).await), 200);
    assert_eq!(*client.trouble().borrow(), None);
}

#[tokio::test]
async fn kube_asks_over_the_same_connections_and_as_the_same_user() {
    let cluster = Cluster::start().await;
    cluster.token("ended");
    let client = cluster.client(Impersonation::default());
    ok(client.0.credentials.current().await);
    cluster.token("jane-1");
    let pods = Api::<Pod>::default_namespaced(client.kube()).list(&ListParams::default()).await.unwrap();
    assert_eq!(pods.items[0].metadata.name.as_deref(), Some("a"));
    assert_eq!(cluster.came().last().unwrap().1, "jane-1");
}
