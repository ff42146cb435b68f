//! An API server with TLS that knows as much of Kubernetes as `kubectl get pods`, `kubectl auth
//! whoami` and `kubectl version` ask for.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::authority::{Authority, server_config};
use crate::provider::Person;
use crate::script::{Answer, Scripts};
use crate::server::{Reply, Request, Response, Server, lock};

/// Which version of `SelfSubjectReview` it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfSubjectReview {
    /// v1, since Kubernetes 1.28.
    V1,
    /// v1beta1 only, as 1.27 has it.
    V1beta1,
    /// None, as before.
    Absent,
}

/// An API server that listens until it is dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Authority,
    url: String,
    _server: Server,
}

/// Who a bearer token belongs to.
type Authenticate = Box<dyn Fn(&str) -> Option<Person> + Send + Sync>;

struct Shared {
    authenticate: Authenticate,
    self_subject_review: Mutex<SelfSubjectReview>,
    scripts: Scripts<String>,
    requests: Mutex<Vec<Request>>,
}

impl ApiServer {
    /// Takes the tokens that `authenticate` says belong to somebody, such as
    /// [`crate::Provider::authenticator`]; all others get a 401.
    pub fn start(authenticate: impl Fn(&str) -> Option<Person> + Send + Sync + 'static) -> Self {
        let authority = Authority::new("the cluster's CA");
        let tls = server_config(&authority.server(&["localhost", "127.0.0.1", "::1"]), None);
        let (listener, port) = Server::bind(0);
        let shared = Arc::new(Shared {
            authenticate: Box::new(authenticate),
            self_subject_review: Mutex::new(SelfSubjectReview::V1),
            scripts: Scripts::default(),
            requests: Mutex::default(),
        });
        let server = {
            let shared = Arc::clone(&shared);
            Server::start(listener, Some(tls), move |request, stop| -> Reply {
                lock(&shared.requests).push(request.clone());
                shared.scripts.next(&request.path).play(stop, || shared.answer(request))
            })
        };
        Self { shared, authority, url: format!("https://127.0.0.1:{port}"), _server: server }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of its authority.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Which version of `SelfSubjectReview` it serves from now on.
    pub fn serve_self_subject_review(&self, version: SelfSubjectReview) {
        *lock(&self.shared.self_subject_review) = version;
    }

    /// The next request to this path gets this answer.
    pub fn script(&self, path: &str, answer: Answer) {
        self.shared.scripts.add(path.to_owned(), answer);
    }

    /// Every request, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Every bearer token that it was shown, in order, without repetitions.
    pub fn bearer_tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> =
            self.requests().iter().filter_map(|request| request.bearer().map(str::to_owned)).collect();
        tokens.dedup();
        tokens
    }

    /// A kubeconfig whose one context, `dev`, is this server with the user `jane`, who has this
    /// `exec` entry.
    pub fn kubeconfig(&self, exec: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "dev",
            "clusters": [{"name": "dev", "cluster": {
                "server": self.url,
                "certificate-authority-data": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.ca_pem()),
            }}],
            "users": [{"name": "jane", "user": {"exec": exec}}],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "jane"}}],
        })
    }
}

/// The `exec` entry of a kubeconfig: this command with these arguments.
pub fn exec_entry(command: &str, arguments: &[String]) -> Value {
    json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "args": arguments,
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": false,
    })
}

impl Shared {
    fn answer(&self, request: &Request) -> Response {
        // Anybody may ask for the version, as RBAC's defaults have it.
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/version") {
            return Response::json(
                200,
                &json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0", "platform": "linux/amd64"}),
            );
        }
        let Some(person) = request.bearer().and_then(|token| (self.authenticate)(token)) else {
            return status(401, "Unauthorized", "Unauthorized");
        };
        let review = *lock(&self.self_subject_review);
        let review_version = match review {
            SelfSubjectReview::V1 => "v1",
            SelfSubjectReview::V1beta1 => "v1beta1",
            SelfSubjectReview::Absent => "",
        };
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), path.as_slice()) {
            ("GET", ["api"]) => Response::json(200, &json!({"kind": "APIVersions", "versions": ["v1"]})),
            ("GET", ["apis"]) => Response::json(200, &groups(review_version)),
            ("GET", ["api", "v1"]) => {
                Response::json(200, &resources("v1", &[("pods", "Pod", true), ("namespaces", "Namespace", false)]))
            }
            ("GET", ["apis", "authentication.k8s.io", version]) if *version == review_version => {
                let version = format!("authentication.k8s.io/{version}");
                Response::json(200, &resources(&version, &[("selfsubjectreviews", "SelfSubjectReview", false)]))
            }
            ("POST", ["apis", "authentication.k8s.io", version, "selfsubjectreviews"])
                if *version == review_version =>
            {
                let groups = [person.groups.as_slice(), &["system:authenticated".to_owned()]].concat();
                let review = json!({
                    "apiVersion": format!("authentication.k8s.io/{version}"),
                    "kind": "SelfSubjectReview",
                    "metadata": {},
                    "status": {"userInfo": {"username": person.email, "groups": groups}},
                });
                Response::json(201, &review)
            }
            ("GET", ["api", "v1", "pods"] | ["api", "v1", "namespaces", _, "pods"]) => {
                Response::json(200, &pods(request))
            }
            _ => status(404, "NotFound", "the server could not find the requested resource"),
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    Response::json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}),
    )
}

fn groups(review_version: &str) -> Value {
    let mut groups = Vec::new();
    if !review_version.is_empty() {
        let version =
            json!({"groupVersion": format!("authentication.k8s.io/{review_version}"), "version": review_version});
        groups.push(json!({"name": "authentication.k8s.io", "versions": [version], "preferredVersion": version}));
    }
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(group_version: &str, resources: &[(&str, &str, bool)]) -> Value {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(name, kind, namespaced)| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list", "create"]}))
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// One pod; as the table that kubectl asks for, or as a list.
fn pods(request: &Request) -> Value {
    let name = "hello-6c8f7d9b4c-x2x8q";
    let created =
        (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(72)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let metadata = json!({"name": name, "namespace": "default", "creationTimestamp": created});
    if !request.header("accept").is_some_and(|accept| accept.contains("as=Table")) {
        let pod = json!({"metadata": metadata, "status": {"phase": "Running"}});
        return json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [pod]});
    }
    let columns = ["Name", "Ready", "Status", "Restarts", "Age"]
        .map(|name| json!({"name": name, "type": "string", "format": "", "description": "", "priority": 0}));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "1"},
        "columnDefinitions": columns,
        "rows": [{
            "cells": [name, "1/1", "Running", "0", "3d"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata},
        }],
    })
}
