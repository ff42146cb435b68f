//! What a cluster says to a list of requests, byte for byte where it matters: written down once, and
//! held against the double of a cluster and, where there is one, a real cluster.

use headlamp_test_support::{Cluster, Workshop, with_certificate};
use http::Method;
use serde_json::{Value, json};

use crate::caller::{Caller, Lines, event, words};
use crate::cluster_double::echo_once;

/// A pod `echo` with a log of one line, port 7000 that sends back one message and closes, and
/// port 7001 that nobody listens on.
struct Seat {
    caller: Caller,
    namespace: String,
}

impl Seat {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// A real cluster, if there is one.
    async fn real() -> Option<Self> {
        let cluster = Workshop::open("story")?;
        let namespace = cluster.namespace.clone();
        let program = "import socket\nprint('hello from the pod', flush=True)\ns = socket.create_server(('127.0.0.1', 7000))\n\
                       while True:\n c, _ = s.accept()\n c.sendall(c.recv(65536))\n c.close()\n";
        let folders = [("usr", "/usr", "/usr"), ("lib", "/lib", "/usr/lib"), ("lib64", "/lib64", "/usr/lib64")];
        let mounts: Vec<Value> =
            folders.iter().map(|(name, at, _)| json!({"name": name, "mountPath": at, "readOnly": true})).collect();
        let volumes: Vec<Value> =
            folders.iter().map(|(name, _, of)| json!({"name": name, "hostPath": {"path": of}})).collect();
        let container = json!({
            "name": "main", "image": "localhost/host:1", "imagePullPolicy": "Never",
            "command": ["/usr/bin/python3", "-c", program], "volumeMounts": mounts,
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "echo", "labels": {"app": "echo"}},
            "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0},
        });
        cluster.kubectl(&["apply", "-n", &namespace, "-f", "-"], &pod.to_string());
        cluster.kubectl(&["wait", "-n", &namespace, "--for=condition=Ready", "--timeout=120s", "pod/echo"], "");
        let kubeconfig = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
        Some(Self { caller: Caller::of(&kubeconfig).await, namespace })
    }

    async fn double(cluster: &Cluster) -> Self {
        cluster.add_namespace("here");
        cluster.add_pod("here", "echo", &[("app", "echo")], &[(7000, echo_once())]);
        cluster.write_log("here", "echo", "hello from the pod\n");
        cluster.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "here"}}));
        let certificate = cluster.client_certificate("admin", &["system:masters"]);
        let kubeconfig = cluster.kubeconfig(&with_certificate(&certificate)).to_string();
        Self { caller: Caller::of(&kubeconfig).await, namespace: "here".to_owned() }
    }
}

/// What a cluster says, step by step, without what differs from run to run.
async fn story(seat: &Seat) -> String {
    let mut told = Vec::new();
    lists(seat, &mut told).await;
    watches(seat, &mut told).await;
    websocket_watches(seat, &mut told).await;
    pods(seat, &mut told).await;
    told.join("\n")
}

fn keys(value: &Value) -> String {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys.join(",")
}

async fn lists(seat: &Seat, told: &mut Vec<String>) {
    let caller = &seat.caller;
    for name in ["one", "two", "three"] {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "listed"}}});
        let made = caller.write(Method::POST, &seat.path("configmaps"), &object).await;
        assert_eq!(made["metadata"]["name"], name, "{made}");
    }
    let path = seat.path("configmaps?labelSelector=app%3Dlisted");
    let list = caller.get(&path, "application/json").await;
    told.push(format!(
        "list: {} of {} with {}",
        list["kind"],
        list["items"].as_array().unwrap().len(),
        keys(&list["metadata"])
    ));
    told.push(format!("an item: {}", keys(&list["items"][0])));
    let page = caller.get(&format!("{path}&limit=2"), "application/json").await;
    told.push(format!("a page: {} items, {}", page["items"].as_array().unwrap().len(), keys(&page["metadata"])));
    let rest = page["metadata"]["continue"].as_str().unwrap();
    let rest = caller.get(&format!("{path}&limit=2&continue={}", rest.replace('=', "%3D")), "application/json").await;
    told.push(format!("the rest: {} {}", rest["items"][0]["metadata"]["name"], keys(&rest["metadata"])));
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = caller.get(&path, partial).await;
    told.push(format!("metadata: {} of {} with {}", list["kind"], list["items"][0]["kind"], keys(&list["items"][0])));
    let mut status = caller.get(&seat.path("configmaps/none"), "application/json").await;
    told.push(format!("not there: {}", status.take()));
    let again = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}});
    told.push(format!("again: {}", caller.write(Method::POST, &seat.path("configmaps"), &again).await));
    let (status, text) = caller.text("/apis/nobody.example.com/v1/things").await;
    told.push(format!("no such API: {status} {text:?}"));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let review = caller.write(Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
    let authenticated =
        review["status"]["userInfo"]["groups"].as_array().unwrap().contains(&json!("system:authenticated"));
    told.push(format!("review: {} authenticated: {authenticated}", keys(&review)));
    let (group, resource, verb) = ("", "pods", "list");
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"group": group, "resource": resource, "verb": verb}},
    });
    let review = caller.write(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await;
    told.push(format!("may list pods: {}", review["status"]["allowed"]));
}

async fn watches(seat: &Seat, told: &mut Vec<String>) {
    let caller = &seat.caller;
    let path = seat.path("configmaps?labelSelector=app%3Dwatched");
    let version =
        caller.get(&path, "application/json").await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let response =
        caller.send(Method::GET, &format!("{path}&watch=true&resourceVersion={version}"), &[], Vec::new()).await;
    told.push(format!("watch: {} {}", response.status(), response.headers()["content-type"].to_str().unwrap()));
    let mut lines = Lines::of(response.into_body());
    let one = seat.path("configmaps/watched");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched", "labels": {"app": "watched"}}});
    caller.write(Method::POST, &seat.path("configmaps"), &object).await;
    told.push(lines.next().await.unwrap());
    for change in [
        json!({"data": {"a": "1"}}),
        json!({"metadata": {"labels": {"app": "other"}}}),
        json!({"metadata": {"labels": {"app": "watched"}}}),
    ] {
        caller.write(Method::PATCH, &one, &change).await;
        told.push(lines.next().await.unwrap());
    }
    caller.write(Method::DELETE, &one, &json!({})).await;
    told.push(lines.next().await.unwrap());
    drop(lines);
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    for (what, accept) in [("for a second", "application/json"), ("in part", partial)] {
        let path = seat.path("configmaps?labelSelector=app%3Dlisted&watch=1&timeoutSeconds=1");
        let response = caller.send(Method::GET, &path, &[("accept", accept)], Vec::new()).await;
        told.push(format!("watch {what}: {}", response.status()));
        let mut lines = Lines::of(response.into_body());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await {
            seen.push(line);
        }
        seen.sort();
        told.append(&mut seen);
        told.push("the end".to_owned());
    }
}

async fn websocket_watches(seat: &Seat, told: &mut Vec<String>) {
    let caller = &seat.caller;
    let path = seat.path("pods?watch=true&fieldSelector=metadata.name%3Decho&timeoutSeconds=1");
    let origin = ("origin", "http://localhost");
    let (one, two) = ("base64.binary.k8s.io", "base64.binary.k8s.io, v4.channel.k8s.io");
    let headers = [vec![origin, ("sec-websocket-protocol", one)], vec![origin]];
    for headers in headers {
        let socket = caller.socket(&path, &headers).await;
        told.push(format!("websocket watch: {:?}", socket.protocol));
        for line in socket.story().await {
            let kind = line.split(' ').next().unwrap().to_owned();
            let shown = match line.strip_prefix("text ") {
                Some(text) => event(&serde_json::from_str::<String>(&unescaped(text)).unwrap()),
                None => line,
            };
            told.push(format!("{kind}: {shown}"));
        }
    }
    for (what, headers) in [("two protocols", vec![origin, ("sec-websocket-protocol", two)]), ("no origin", vec![])] {
        told.push(format!("{what}: {}", caller.handshake(&path, &headers).await.status()));
    }
}

/// What `{:?}` wrote, for a JSON parser.
fn unescaped(text: &str) -> String {
    text.replace("\\'", "'")
}

async fn pods(seat: &Seat, told: &mut Vec<String>) {
    let caller = &seat.caller;
    let (status, log) = caller.text(&seat.path("pods/echo/log")).await;
    told.push(format!("log: {status} {log:?}"));
    for protocol in ["base64.binary.k8s.io", "binary.k8s.io"] {
        let socket = caller.socket(&seat.path("pods/echo/log"), &[("sec-websocket-protocol", protocol)]).await;
        told.push(format!("websocket log: {:?}", socket.protocol));
        told.append(&mut socket.story().await);
    }
    let exec = seat.path("pods/echo/exec?command=/usr/bin/echo&command=hello&stdout=true");
    let socket = caller.socket(&exec, &[("sec-websocket-protocol", "v4.channel.k8s.io")]).await;
    told.push(format!("exec: {:?}", socket.protocol));
    told.append(&mut socket.story().await);

    let v4 = [("sec-websocket-protocol", "v4.channel.k8s.io")];
    let mut socket = caller.socket(&seat.path("pods/echo/portforward?ports=7000"), &v4).await;
    told.push(format!("port-forward: {:?}", socket.protocol));
    for _ in 0..2 {
        told.push(words(&socket.next().await.unwrap()));
    }
    socket.send(b"\0").await;
    socket.send(b"\0over and back").await;
    told.append(&mut socket.story().await);
    let socket = caller.socket(&seat.path("pods/echo/portforward?ports=7001"), &v4).await;
    told.push("port-forward to a closed port".to_owned());
    for line in socket.story().await {
        let refused = line.contains("error forwarding port 7001 to pod") && line.contains("connection refused");
        told.push(if refused { "binary on channel 1: error forwarding …".to_owned() } else { line });
    }
    let mut socket = caller.socket(&seat.path("pods/echo/portforward?ports=7001,7000"), &v4).await;
    told.push("port-forward to two ports".to_owned());
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(words(&socket.next().await.unwrap()));
    }
    told.append(&mut frames);
    drop(socket);
    for (what, path, protocol) in [
        ("of no pod", "pods/none/portforward?ports=7000", "v4.channel.k8s.io"),
        ("without a port", "pods/echo/portforward", "v4.channel.k8s.io"),
        ("of another protocol", "pods/echo/portforward?ports=7000", "v9.channel.k8s.io"),
    ] {
        let status = caller.handshake(&seat.path(path), &[("sec-websocket-protocol", protocol)]).await.status();
        told.push(format!("port-forward {what}: {status}"));
    }
}

fn assert_as_told(story: &str) {
    // Both clusters are held against the same words.
    insta::allow_duplicates! {
        insta::assert_snapshot!(story, @r#"
        list: "ConfigMapList" of 3 with resourceVersion
        an item: metadata
        a page: 2 items, continue,resourceVersion
        the rest: "two" resourceVersion
        metadata: "PartialObjectMetadataList" of "PartialObjectMetadata" with apiVersion,kind,metadata
        not there: {"apiVersion":"v1","code":404,"details":{"kind":"configmaps","name":"none"},"kind":"Status","message":"configmaps \"none\" not found","metadata":{},"reason":"NotFound","status":"Failure"}
        again: {"apiVersion":"v1","code":409,"details":{"kind":"configmaps","name":"one"},"kind":"Status","message":"configmaps \"one\" already exists","metadata":{},"reason":"AlreadyExists","status":"Failure"}
        no such API: 404 Not Found "404 page not found\n"
        review: apiVersion,kind,metadata,status authenticated: true
        may list pods: true
        watch: 200 OK application/json
        ADDED ConfigMap watched
        MODIFIED ConfigMap watched
        DELETED ConfigMap watched
        ADDED ConfigMap watched
        DELETED ConfigMap watched
        watch for a second: 200 OK
        ADDED ConfigMap one
        ADDED ConfigMap three
        ADDED ConfigMap two
        the end
        watch in part: 200 OK
        ADDED PartialObjectMetadata one
        ADDED PartialObjectMetadata three
        ADDED PartialObjectMetadata two
        the end
        websocket watch: Some("base64.binary.k8s.io")
        text: ADDED Pod echo
        close: close 1000
        websocket watch: None
        text: ADDED Pod echo
        close: close 1000
        two protocols: 400 Bad Request
        no origin: 403 Forbidden
        log: 200 OK "hello from the pod\n"
        websocket log: Some("base64.binary.k8s.io")
        text ""
        text "aGVsbG8gZnJvbSB0aGUgcG9kCg=="
        close 1000
        websocket log: Some("binary.k8s.io")
        binary 
        binary hello from the pod\n
        close 1000
        exec: Some("v4.channel.k8s.io")
        binary \x01
        binary \x01hello\n
        binary \x03{\"metadata\":{},\"status\":\"Success\"}
        close 1000
        port-forward: Some("v4.channel.k8s.io")
        binary \x00X\x1b
        binary \x01X\x1b
        binary \x00over and back
        close 1000
        port-forward to a closed port
        binary \x00Y\x1b
        binary \x01Y\x1b
        binary on channel 1: error forwarding …
        close 1000
        port-forward to two ports
        binary \x00Y\x1b
        binary \x01Y\x1b
        binary \x02X\x1b
        binary \x03X\x1b
        port-forward of no pod: 404 Not Found
        port-forward without a port: 400 Bad Request
        port-forward of another protocol: 403 Forbidden
        "#);
    }
}

#[tokio::test]
async fn the_double_says_what_a_cluster_says() {
    let cluster = Cluster::start(|_| None);
    assert_as_told(&story(&Seat::double(&cluster).await).await);
}

#[tokio::test]
async fn a_real_cluster_says_it_too() {
    let Some(seat) = Seat::real().await else { return };
    assert_as_told(&story(&seat).await);
}
