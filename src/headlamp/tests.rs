#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower_service::Service as TowerService;

use super::*;
use crate::error::Kind;

/// An API server that has these objects and lets one list only what it is told to.
#[derive(Clone)]
pub(crate) struct Cluster {
    objects: Vec<Value>,
    /// `None`: everything.
    allowed: Option<Vec<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub(crate) fn of(objects: Vec<Value>) -> Self {
        Self { objects, allowed: None, asked: Arc::default() }
    }

    /// One may see `services` of the whole cluster, `headlamp/pods` of a namespace.
    pub(crate) fn allowing(mut self, allowed: &[&str]) -> Self {
        self.allowed = Some(allowed.iter().map(ToString::to_string).collect());
        self
    }

    fn find(&self, wanted: &Wanted, context_namespace: Option<&str>) -> Result<Found> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new(self.clone(), "default");
            find(&client, wanted, context_namespace).await
        })
    }

    fn found(&self, wanted: &Wanted) -> Vec<Headlamp> {
        self.find(wanted, None).unwrap_or_else(|error| panic!("{error}")).headlamps
    }

    /// The only one.
    fn only(&self, wanted: &Wanted) -> Headlamp {
        let [headlamp] = self.found(wanted).try_into().unwrap();
        headlamp
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answer(&self, uri: &http::Uri) -> (u16, Value) {
        let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        let from = if parts[0] == "api" { 2 } else { 3 };
        let (namespace, kind, name) = match parts[from..] {
            ["namespaces", namespace, kind] => (Some(namespace), kind, None),
            ["namespaces", namespace, kind, name] => (Some(namespace), kind, Some(name)),
            [kind] => (None, kind, None),
            _ => panic!("unknown path: {uri}"),
        };
        let place = namespace.map_or_else(|| kind.to_owned(), |namespace| format!("{namespace}/{kind}"));
        self.asked.lock().unwrap().push(place.clone());
        let allowed = |place: &str| self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == place));
        if !allowed(&place) && !allowed(kind) {
            return (403, status(403, &format!("{kind} is forbidden: User \"ada\" cannot list resource \"{kind}\"")));
        }
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let mut items = self.objects.iter().filter(|object| {
            let metadata = &object["metadata"];
            let wanted = |name: &str, value: &str| match value.split_once('=') {
                Some((label, value)) => metadata["labels"][label] == value,
                None => name == "labelSelector" && metadata["labels"].get(value).is_some(),
            };
            let labels = query
                .get("labelSelector")
                .is_none_or(|labels| labels.split(',').all(|one| wanted("labelSelector", one)));
            let named = query
                .get("fieldSelector")
                .is_none_or(|field| field == &format!("metadata.name={}", metadata["name"].as_str().unwrap()));
            object["kind"].as_str().unwrap().to_lowercase() + "s" == kind
                && namespace.is_none_or(|namespace| metadata["namespace"] == namespace)
                && name.is_none_or(|name| metadata["name"] == name)
                && labels
                && named
        });
        if let Some(name) = name {
            return items
                .next()
                .map_or_else(|| (404, status(404, &format!("{name} not found"))), |item| (200, item.clone()));
        }
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items.collect::<Vec<_>>()}))
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": if code == 404 { "NotFound" } else { "Forbidden" }, "code": code})
}

impl TowerService<Request<Body>> for Cluster {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (code, answer) = self.answer(request.uri());
        let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
        ready(Ok(answer.unwrap()))
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the chart's release makes (without its Deployment).
pub(crate) fn chart(namespace: &str, release: &str, container: &Value) -> Vec<Value> {
    let selector = json!({NAME: "headlamp", INSTANCE: release});
    let mut service_labels = selector.clone();
    service_labels[CHART] = json!("headlamp-0.45.0");
    service_labels[VERSION] = json!("0.45.0");
    let container = container_with(container);
    vec![
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": namespace, "name": release, "labels": service_labels},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": namespace, "name": format!("{release}-7d4-x"), "labels": selector},
            "spec": {"containers": [container]}}),
    ]
}

fn container_with(more: &Value) -> Value {
    let mut container = json!({
        "name": "headlamp", "image": "ghcr.io/headlamp-k8s/headlamp:v0.45.0",
        "ports": [{"containerPort": 4466, "name": "http"}],
    });
    container.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    container
}

/// What the plain manifest makes.
fn plain() -> Vec<Value> {
    let selector = json!({APP: "headlamp"});
    vec![
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "kube-system", "name": "headlamp"},
            "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": 4466}]}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "kube-system", "name": "headlamp-1-x", "labels": selector},
            "spec": {"containers": [container_with(&json!({"image": "ghcr.io/headlamp-k8s/headlamp:latest"}))]}}),
    ]
}

fn wanted(namespace: Option<&str>, service: Option<&str>, port: Option<&str>) -> Wanted {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Wanted { namespace: owned(namespace), service: owned(service), service_port: owned(port) }
}

#[test]
fn a_chart_is_found_by_its_labels_in_one_round_trip() {
    let cluster = Cluster::of(chart("headlamp", "my-headlamp", &json!({"args": ["-in-cluster", "-base-url=/ui"]})));
    let headlamp = cluster.only(&Wanted::default());
    assert_eq!((headlamp.namespace.as_str(), headlamp.name.as_str()), ("headlamp", "my-headlamp"));
    assert_eq!(headlamp.pods, Pods::Labelled(labels(&[(NAME, "headlamp"), (INSTANCE, "my-headlamp")])));
    assert_eq!(headlamp.port, Port::Named("http".into()));
    assert_eq!((headlamp.base.as_str(), headlamp.tls), ("/ui", false));
    assert_eq!(headlamp.version.as_deref(), Some("0.45.0"));
    assert_eq!(headlamp.warnings, Vec::<String>::new());
    assert_eq!(cluster.asked().len(), 4, "{:?}", cluster.asked());
}

#[test]
fn the_plain_manifest_is_found_by_its_services_name() {
    let cluster = Cluster::of(plain());
    let headlamp = cluster.only(&Wanted::default());
    assert_eq!((headlamp.namespace.as_str(), headlamp.name.as_str()), ("kube-system", "headlamp"));
    assert_eq!(headlamp.pods, Pods::Labelled(labels(&[(APP, "headlamp")])));
    assert_eq!((headlamp.port, headlamp.version), (Port::Number(4466), None));
}

#[test]
fn several_are_found_trusted_namespaces_first_and_each_once() {
    let mut objects = chart("a-team", "headlamp", &json!({}));
    objects.extend(plain());
    objects.extend(chart("headlamp", "headlamp", &json!({})));
    let mut metrics = objects[0].clone();
    metrics["metadata"]["name"] = json!("a-metrics");
    metrics["spec"]["ports"] = json!([{"name": "metrics", "port": 9090}]);
    objects.push(metrics);
    let found = Cluster::of(objects).found(&Wanted::default());
    let places: Vec<_> = found.iter().map(|one| (one.namespace.as_str(), one.name.as_str())).collect();
    assert_eq!(places, [("headlamp", "headlamp"), ("kube-system", "headlamp"), ("a-team", "headlamp")]);
}

#[test]
fn pods_without_a_service_are_found_under_the_service_that_selects_them_or_by_their_own_labels() {
    let mut pod = plain().remove(1);
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "headlamp-1", "uid": "1", "controller": true}]);
    let headlamp = Cluster::of(vec![pod.clone()]).only(&Wanted::default());
    assert_eq!((headlamp.name.as_str(), headlamp.port), ("headlamp", Port::Number(4466)));
    assert_eq!(headlamp.pods, Pods::Labelled(labels(&[(APP, "headlamp")])));

    let mut service = plain().remove(0);
    service["metadata"]["name"] = json!("dashboard");
    let headlamp = Cluster::of(vec![pod.clone(), service]).only(&Wanted::default());
    assert_eq!(headlamp.name, "dashboard");

    pod["metadata"]["ownerReferences"] = json!([]);
    let headlamp = Cluster::of(vec![pod]).only(&Wanted::default());
    assert_eq!(headlamp.pods, Pods::Named("headlamp-1-x".into()));
}

#[test]
fn a_chart_with_other_names_is_found_by_helms_label() {
    let mut objects = chart("tools", "ui", &json!({}));
    for object in &mut objects {
        object["metadata"]["labels"][NAME] = json!("ui");
    }
    objects[0]["spec"]["selector"][NAME] = json!("ui");
    let mut other = objects[0].clone();
    other["metadata"]["name"] = json!("other");
    other["metadata"]["labels"][CHART] = json!("headlamp-operator-1.0.0");
    other["spec"]["selector"] = json!({"app": "other"});
    objects.push(other);
    assert_eq!(Cluster::of(objects).only(&Wanted::default()).name, "ui");
}

fn deployment(namespace: &str, name: &str, image: &str) -> Value {
    let labels = json!({"app": name});
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": image, "args": ["--base-url", "/x"]}]}}}})
}

#[test]
fn a_deployment_is_found_by_its_image() {
    let ours = deployment("tools", "ui", "mirror/headlamp-k8s/headlamp:v0.31.1");
    let others = deployment("tools", "web", "nginx:1");
    let headlamp = Cluster::of(vec![others.clone(), ours.clone()]).only(&Wanted::default());
    assert_eq!((headlamp.name.as_str(), headlamp.base.as_str()), ("ui", "/x"));
    assert_eq!((headlamp.pods, headlamp.port), (Pods::Labelled(labels(&[("app", "ui")])), Port::Number(4466)));
    assert!(headlamp.warnings.concat().contains("live updates"), "{:?}", headlamp.warnings);

    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "tools", "name": "svc"},
        "spec": {"selector": {"app": "ui"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    let headlamp = Cluster::of(vec![others, ours, service]).only(&Wanted::default());
    assert_eq!((headlamp.name.as_str(), headlamp.port), ("svc", Port::Number(8080)));
}

#[test]
fn without_pods_the_deployment_tells_the_base_url() {
    let mut objects = chart("headlamp", "headlamp", &json!({}));
    objects.pop();
    let mut deployment = deployment("headlamp", "headlamp", "ghcr.io/headlamp-k8s/headlamp:v0.44.0");
    deployment["spec"]["template"]["metadata"]["labels"] = objects[0]["spec"]["selector"].clone();
    objects.push(deployment);
    let headlamp = Cluster::of(objects).only(&Wanted::default());
    assert_eq!((headlamp.base.as_str(), headlamp.version.as_deref()), ("/x", Some("0.44.0")));
}

#[test]
fn where_the_cluster_may_not_be_listed_likely_namespaces_are() {
    let mut objects = chart("headlamp", "headlamp", &json!({}));
    objects.extend(chart("mine", "headlamp", &json!({})));
    objects.extend(chart("others", "headlamp", &json!({})));
    let cluster = Cluster::of(objects).allowing(&["headlamp/services", "headlamp/pods", "mine/services", "mine/pods"]);
    let found = cluster.find(&Wanted::default(), Some("mine")).unwrap().headlamps;
    let namespaces: Vec<_> = found.iter().map(|one| one.namespace.as_str()).collect();
    assert_eq!(namespaces, ["headlamp", "mine"]);
}

#[test]
fn what_was_searched_is_said_where_nothing_is_found() {
    let told = |cluster: Cluster, wanted: &Wanted| {
        let found = cluster.find(wanted, Some("mine")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.headlamps, []);
        found.searched.nothing_found(wanted, "kubectl headlamp open").to_string()
    };
    let everywhere = told(Cluster::of(vec![]), &Wanted::default());
    assert!(everywhere.contains("no Headlamp was found in the cluster\n"), "{everywhere}");
    assert!(everywhere.contains("helm repo add headlamp https://kubernetes-sigs.github.io/headlamp/"), "{everywhere}");
    assert!(everywhere.contains("--namespace NAMESPACE --service NAME"), "{everywhere}");

    let few = Cluster::of(vec![]).allowing(&["mine/services", "mine/pods", "kube-system/services"]);
    let few = told(few, &Wanted::default());
    assert!(few.contains("in the namespaces `kube-system`, `mine`\n"), "{few}");
    assert!(few.contains("User \"ada\" cannot list resource"), "{few}");

    let nothing = told(Cluster::of(vec![]).allowing(&[]), &Wanted::default());
    assert!(nothing.contains("in the little of the cluster that you may see"), "{nothing}");

    let service = told(Cluster::of(vec![]), &wanted(Some("team"), Some("ui"), None));
    assert!(service.contains("there is no Service, Deployment or pod `ui` in the namespace `team`"), "{service}");
}

#[test]
fn a_service_that_is_named_is_taken_whatever_it_is() {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "team", "name": "ui"},
        "spec": {"selector": {"app": "x"}, "ports": [{"name": "admin", "port": 81, "targetPort": 9000}, {"name": "http", "port": 80}]}});
    let cluster = Cluster::of(vec![service, deployment("team", "ui", "x:1"), deployment("team", "only", "x:1")]);
    let port = |wanted: &Wanted| cluster.only(wanted).port;
    assert_eq!(port(&wanted(Some("team"), Some("ui"), None)), Port::Number(80));
    assert_eq!(port(&wanted(None, Some("ui"), Some("admin"))), Port::Number(9000));
    assert_eq!(port(&wanted(None, Some("ui"), Some("81"))), Port::Number(9000));
    let none = cluster.find(&wanted(None, Some("ui"), Some("82")), None).unwrap_err();
    assert_eq!(none.kind(), Kind::Usage);
    assert!(none.to_string().contains("it has `admin` (81), `http` (80)"), "{none}");
    let deployment = cluster.only(&wanted(Some("team"), Some("only"), Some("web")));
    assert_eq!((deployment.base.as_str(), deployment.port), ("/x", Port::Named("web".into())));
}

#[test]
fn a_service_without_pods_of_its_own_cannot_be_named() {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "team", "name": "ui"},
        "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let error = Cluster::of(vec![service]).find(&wanted(Some("team"), Some("ui"), None), None).unwrap_err();
    assert!(error.to_string().contains("it has no selector"), "{error}");
}

#[test]
fn names_that_would_lead_elsewhere_are_refused() {
    for name in ["", "../secrets", "a/b", "A", "a?b", "a b", "."] {
        let cluster = Cluster::of(vec![]);
        let error = cluster.find(&wanted(Some("x"), Some(name), None), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{name}");
        assert_eq!(cluster.asked(), Vec::<String>::new());
    }
}

#[test]
fn an_api_server_that_fails_is_an_error_and_not_an_empty_cluster() {
    #[derive(Clone)]
    struct Failing;
    impl TowerService<Request<Body>> for Failing {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let body = Body::from(status(500, "etcd is gone").to_string().into_bytes());
            ready(Ok(Response::builder().status(500).body(body).unwrap()))
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error =
        runtime.block_on(async { find(&Client::new(Failing, "x"), &Wanted::default(), None).await }).unwrap_err();
    assert!(error.to_string().contains("etcd is gone"), "{error}");
}
