//! At a real cluster: `tests/README.md` says how to give one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use headlamp_test_support::real::{kubectls, part};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;
use crate::headlamp::find;
use crate::headlamp_search::Wanted;

/// A namespace of the test's own, gone when it ends.
struct Space {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Space {
    fn new(name: &str) -> Option<Self> {
        let how = "needs HEADLAMP_TEST_KUBECONFIG, an administrator's kubeconfig";
        let kubeconfig = part("a cluster", how, std::env::var_os("HEADLAMP_TEST_KUBECONFIG"))?.into();
        let kubectl = kubectls()?.pop()?;
        let space = Self { kubectl, kubeconfig, namespace: format!("headlamp-{name}-{}", std::process::id()) };
        space.kubectl(&["create", "namespace", &space.namespace], "");
        Some(space)
    }

    fn kubectl(&self, arguments: &[&str], stdin: &str) -> String {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn apply(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.namespace);
        self.kubectl(&["apply", "-f", "-"], &object.to_string());
    }

    /// A Headlamp, as far as a port-forward can tell, with this many pods.
    fn deploy(&self, name: &str, replicas: u32, container: &Value) {
        let labels = json!({"app.kubernetes.io/name": "headlamp", "app.kubernetes.io/instance": name});
        let mut whole = json!({
            "name": "headlamp", "image": "localhost/host:1", "imagePullPolicy": "Never",
            "command": ["/usr/bin/python3", "-c", SERVER],
            "ports": [{"name": "http", "containerPort": 4466}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "usr", "mountPath": "/usr", "readOnly": true},
                {"name": "lib", "mountPath": "/lib", "readOnly": true},
                {"name": "lib64", "mountPath": "/lib64", "readOnly": true},
            ],
        });
        whole.as_object_mut().unwrap().extend(container.as_object().cloned().unwrap_or_default());
        let folder = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path}});
        self.apply(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1, "containers": [whole],
                    "volumes": [folder("usr", "/usr"), folder("lib", "/usr/lib"), folder("lib64", "/usr/lib64")],
                },
            }},
        }));
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }));
    }

    fn wait_for(&self, name: &str) {
        let timeout = "--timeout=120s";
        self.kubectl(&["rollout", "status", &format!("deployment/{name}"), "-n", &self.namespace, timeout], "");
    }

    /// A role with these rules, for this user.
    fn allow(&self, user: &str, rules: &Value) {
        self.apply(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules}));
        self.apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }));
    }

    /// The administrator's client, or this user's.
    async fn client(&self, user: Option<&str>) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.auth_info.impersonate = user.map(str::to_owned);
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    async fn headlamp(&self, client: &Client, name: &str) -> Headlamp {
        let wanted = Wanted { namespace: Some(self.namespace.clone()), service: Some(name.into()), service_port: None };
        let found = find(client, &wanted, None).await.unwrap_or_else(|error| panic!("{error}"));
        found.headlamps.into_iter().next().expect("a Headlamp")
    }

    async fn forward(&self, name: &str) -> PortForward {
        let client = self.client(None).await;
        PortForward::new(client.clone(), &self.headlamp(&client, name).await)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut delete = Command::new(&self.kubectl);
        delete.arg("--kubeconfig").arg(&self.kubeconfig).args(["delete", "namespace", &self.namespace, "--wait=false"]);
        let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Answers `/` with its pod's name, `/count` with how many connections are open, and `/big` with 16 MiB.
const SERVER: &str = "
import http.server, os, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    open = 0
    lock = threading.Lock()
    def handle(self):
        with Handler.lock: Handler.open += 1
        try: super().handle()
        finally:
            with Handler.lock: Handler.open -= 1
    def do_GET(self):
        body = {'/': os.uname().nodename.encode(), '/count': str(Handler.open).encode()}.get(self.path, bytes(range(256)) * 65536)
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('', 4466), Handler).serve_forever()
";

/// What a `GET` over this stream brings; `close`: the server ends it.
async fn get(stream: &mut PodStream, path: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(answer.split_off(head + 4))
}

/// Asked until there is an answer; a pod that goes may take some requests with it.
async fn get_at_last(forward: &PortForward, path: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let got = match forward.connect().await {
            Ok(mut stream) => get(&mut stream, path).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match got {
            Ok(body) => return String::from_utf8(body).unwrap(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

async fn error(forward: &PortForward) -> Error {
    forward.connect().await.err().expect("an error")
}

#[tokio::test]
async fn a_pod_is_reached_by_its_ports_name_and_one_that_is_replaced_is_followed() {
    let Some(space) = Space::new("follow") else { return };
    space.deploy("ui", 1, &json!({}));
    space.wait_for("ui");
    let forward = space.forward("ui").await;
    let first = get_at_last(&forward, "/").await;
    let mut big = forward.connect().await.unwrap();
    let big = get(&mut big, "/big").await.unwrap();
    assert_eq!(big.len(), 16 * 1024 * 1024);
    assert!(big.iter().zip(0..).all(|(byte, index): (_, u32)| *byte == index.to_le_bytes()[0]), "the bytes differ");

    let mut open = forward.connect().await.unwrap();
    space.kubectl(&["delete", "pod", &first, "-n", &space.namespace], "");
    let ended = timeout(Duration::from_secs(30), open.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the stream outlives its pod");
    let second = get_at_last(&forward, "/").await;
    assert_ne!(first, second);

    // Without a trace of the pods, one is found again.
    forward.reset();
    assert_eq!(get_at_last(&forward, "/").await, second);
}

#[tokio::test]
async fn a_stream_that_is_dropped_or_reset_ends_at_the_pod() {
    let Some(space) = Space::new("drop") else { return };
    space.deploy("ui", 1, &json!({"readinessProbe": null}));
    space.wait_for("ui");
    let forward = space.forward("ui").await;
    let count = async |wanted: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let count = get_at_last(&forward, "/count").await;
            if count == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{count} are open, not {wanted}");
        }
    };
    count("1").await;
    let streams = [forward.connect().await.unwrap(), forward.connect().await.unwrap()];
    count("3").await;
    drop(streams);
    count("1").await;
    let mut stream = forward.connect().await.unwrap();
    count("2").await;
    forward.reset();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    drop(stream);
    count("1").await;
}

#[tokio::test]
async fn what_ails_the_pods_is_said() {
    let Some(space) = Space::new("ail") else { return };
    space.deploy("none", 0, &json!({}));
    space.deploy("missing", 1, &json!({"image": "nowhere.invalid/none:1"}));
    space.deploy("crash", 1, &json!({"command": ["/usr/bin/false"]}));
    space.deploy("unready", 1, &json!({"readinessProbe": {"exec": {"command": ["/usr/bin/false"]}}}));
    // Each has had its time once it has one pod that began, or none that is wanted.
    let wanted = [
        ("none", &["the Deployment `none` is scaled to 0 replicas"][..]),
        ("missing", &["does not run: ErrImageNeverPull"]),
        ("crash", &["CrashLoopBackOff in container `headlamp`", "Error in container `headlamp`"]),
        ("unready", &["runs, and is not ready"]),
    ];
    let space = &space;
    let tried = wanted.iter().map(|(name, words)| async move {
        let forward = space.forward(name).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let begun = Instant::now();
            let error = error(&forward).await;
            assert_eq!(error.kind(), Kind::Unreachable, "{error}");
            let took = begun.elapsed();
            assert!(took >= CONNECT_LIMIT && took < 3 * CONNECT_LIMIT, "{took:?}");
            if words.iter().any(|words| error.to_string().contains(words)) {
                return;
            }
            assert!(Instant::now() < deadline, "no {words:?}: {error}");
        }
    });
    futures_util::future::join_all(tried).await;
}

#[tokio::test]
async fn a_port_that_nothing_listens_on_is_an_error_of_the_stream_and_then_of_connect() {
    let Some(space) = Space::new("refuse") else { return };
    space.deploy("ui", 1, &json!({}));
    space.wait_for("ui");
    let client = space.client(None).await;
    let headlamp = Headlamp { port: Port::Number(4467), ..space.headlamp(&client, "ui").await };
    let forward = PortForward::new(client, &headlamp);
    let mut stream = forward.connect().await.unwrap();
    let failed = get(&mut stream, "/").await.unwrap_err();
    let error_of_stream = of_stream(&failed).expect("an error of ours");
    assert!(error_of_stream.message().contains("nothing listens on port 4467 of the pod `ui-"), "{error_of_stream}");
    let error = error(&forward).await;
    assert!(error.message().contains("nothing listens on port 4467"), "{error}");

    let unnamed = Headlamp { port: Port::Named("web".into()), ..headlamp };
    let unnamed = PortForward::new(space.client(None).await, &unnamed).connect().await.err().unwrap();
    assert!(unnamed.to_string().contains("has no port named `web`"), "{unnamed}");
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_the_commands_that_give_it() {
    let Some(space) = Space::new("rights") else { return };
    space.deploy("ui", 1, &json!({}));
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    let ports = |verbs: Value| json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": verbs});
    space.allow("neither", &json!([pods]));
    space.allow("getter", &json!([pods, ports(json!(["get"]))]));
    space.allow("creator", &json!([pods, ports(json!(["create"]))]));
    space.allow("both", &json!([pods, ports(json!(["get", "create"]))]));
    space.allow("blind", &json!([ports(json!(["get", "create"]))]));
    space.wait_for("ui");
    let headlamp = space.headlamp(&space.client(None).await, "ui").await;
    let forward = async |user: &str| PortForward::new(space.client(Some(user)).await, &headlamp);

    assert!(get_at_last(&forward("both").await, "/").await.starts_with("ui-"));
    for user in ["neither", "creator"] {
        let error = error(&forward(user).await).await;
        assert!(error.message().contains("you may not forward ports to pods in the namespace"), "{error}");
        assert!(error.to_string().contains("cannot get resource \"pods/portforward\""), "{error}");
        assert!(error.to_string().contains("`get` and `create` on `pods/portforward`"), "{error}");
    }
    let blind = error(&forward("blind").await).await;
    assert!(blind.to_string().contains("cannot list resource \"pods\""), "{blind}");
    assert!(blind.to_string().contains("`list` on `pods`"), "{blind}");

    // Since Kubernetes 1.35, `get` alone is not enough.
    if let Err(error) = forward("getter").await.connect().await {
        assert!(error.to_string().contains("the verb `get` alone is not enough"), "{error}");
        assert!(error.to_string().contains("`get` and `create` on `pods/portforward`"), "{error}");
    }

    let refused = error(&forward("neither").await).await;
    for hint in refused.hints() {
        let command = hint.split('`').rfind(|part| part.starts_with("kubectl ")).expect("a command");
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        space.kubectl(&words, "");
    }
    assert!(get_at_last(&forward("neither").await, "/").await.starts_with("ui-"));
}

#[tokio::test]
async fn several_are_found_with_rights_in_their_namespace_alone() {
    let Some(space) = Space::new("find") else { return };
    for name in ["one", "other"] {
        space.deploy(name, 1, &json!({"args": ["-base-url=/ui"]}));
    }
    space.allow("ada", &json!([{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]}]));
    let client = space.client(Some("ada")).await;
    let found = find(&client, &Wanted::default(), Some(&space.namespace)).await.unwrap();
    let names: Vec<_> = found.headlamps.iter().map(|one| (one.namespace.as_str(), one.name.as_str())).collect();
    assert_eq!(names, [(space.namespace.as_str(), "one"), (space.namespace.as_str(), "other")]);
    for headlamp in &found.headlamps {
        assert_eq!((&headlamp.port, headlamp.base.as_str()), (&Port::Named("http".into()), "/ui"));
    }
    let none = find(&client, &Wanted::default(), None).await.unwrap();
    assert_eq!(none.headlamps, []);
    let told = none.searched.nothing_found(&Wanted::default(), "kubectl headlamp open").to_string();
    assert!(told.contains("User \"ada\" cannot list resource"), "{told}");
    let everywhere = find(&space.client(None).await, &Wanted::default(), None).await.unwrap().headlamps;
    assert_eq!(everywhere.iter().filter(|one| one.namespace == space.namespace).count(), 2);
}
