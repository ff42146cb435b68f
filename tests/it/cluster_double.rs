//! The double of a cluster, and the long way to it. That it says what a real one says is in
//! `cluster_story`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use headlamp_test_support::real::kubectls;
use headlamp_test_support::{
    Cluster, DelayLine, Fault, HeadlampInstall, PatternCheck, Sandbox, pattern, wait_until, with_token,
};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::BINARY;
use crate::caller::{Caller, DEADLINE, Lines, event, json_of};

/// A server that sends back one message and closes.
pub(crate) fn echo_once() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = vec![0; 65_536];
            let Ok(count) = stream.read(&mut buffer) else { continue };
            let _ = stream.write_all(&buffer[..count]);
        }
    });
    address
}

/// The newest kubectl in a sandbox with a kubeconfig for a cluster.
struct Desk {
    cluster: Cluster,
    sandbox: Sandbox,
    kubectl: PathBuf,
}

impl Desk {
    fn taken() -> Option<Self> {
        let kubectl = kubectls()?.pop()?;
        let (cluster, sandbox) = (Cluster::start(|_| None), Sandbox::new(BINARY));
        sandbox.write_kubeconfig(&cluster.kubeconfig(&with_token(&cluster.token("jane", &["developers"]))));
        Some(Self { cluster, sandbox, kubectl })
    }

    fn says<const N: usize>(&self, arguments: [&str; N]) -> String {
        self.sandbox.program(&self.kubectl, arguments).run().succeeded().stdout
    }
}

#[test]
fn kubectl_works_with_the_double_by_http2() {
    let Some(desk) = Desk::taken() else { return };
    desk.cluster.add_pod("default", "web", &[("app", "web")], &[]);
    desk.cluster.write_log("default", "web", "first\nsecond\n");
    let pods = desk.says(["get", "pods"]);
    assert!(pods.starts_with("NAME") && pods.contains("web    1/1     Running   0"), "{pods}");
    assert_eq!(desk.says(["get", "pods", "-A", "-l", "app=web", "-o", "name"]), "pod/web\n");
    assert_eq!(desk.says(["logs", "web", "--tail=1"]), "second\n");
    let who: Value = serde_json::from_str(&desk.says(["auth", "whoami", "-o", "json"])).unwrap();
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "jane", "groups": ["developers", "system:authenticated"]})
    );
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}, "data": {"a": "1"}});
    let create = desk.sandbox.program(&desk.kubectl, ["create", "--validate=false", "-f", "-"]);
    let _ = create.stdin(object.to_string()).run().succeeded();
    assert_eq!(desk.cluster.get("configmaps", "default", "made").unwrap()["data"], json!({"a": "1"}));
    desk.says(["delete", "configmap", "made"]);
    assert_eq!(desk.says(["get", "configmaps"]), "");
    assert_eq!(desk.says(["exec", "web", "--", "echo", "hello"]), "hello\n");
    let by_http2 = desk.cluster.requests_to("/api/v1/namespaces/default/pods");
    assert!(by_http2.iter().all(|asked| asked.http2), "{by_http2:?}");
}

#[test]
fn kubectl_sees_live_what_happens_in_the_double() {
    let Some(desk) = Desk::taken() else { return };
    desk.cluster.add_pod("default", "first", &[], &[]);
    let watching = desk.sandbox.program(&desk.kubectl, ["get", "pods", "--watch", "-o", "name"]).spawn();
    wait_until(DEADLINE, "the watch", || desk.cluster.watches() == 1);
    desk.cluster.add_pod("default", "second", &[], &[]);
    desk.cluster.delete("pods", "default", "first");
    desk.cluster.end_watches();
    assert_eq!(watching.wait().succeeded().stdout, "pod/first\npod/second\npod/first\n");
}

#[test]
fn the_double_honours_impersonation_and_denial() {
    let Some(desk) = Desk::taken() else { return };
    desk.cluster.authorize(|attempt| attempt.user.name == "jane" || attempt.verb == "get");
    let _ = desk.says(["get", "pods", "--as=max", "--as-group=guests", "-o", "name", "--ignore-not-found", "web"]);
    let asked = desk.cluster.requests().pop().unwrap();
    let (user, by) = (asked.user.unwrap(), asked.signed_in.unwrap());
    assert_eq!((user.name.as_str(), by.name.as_str()), ("max", "jane"));
    assert_eq!(user.groups, ["guests", "system:authenticated"]);
    let denied = desk.sandbox.program(&desk.kubectl, ["get", "pods", "--as=max"]).run();
    let told =
        "pods is forbidden: User \"max\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert!(denied.stderr.contains(told), "{denied}");
}

#[tokio::test]
async fn each_fault_of_the_double_is_one() {
    let cluster = Cluster::start(|_| None);
    cluster.add_pod("here", "web", &[], &[]);
    let token = cluster.token("jane", &[]);
    let caller = Caller::of(&cluster.kubeconfig(&with_token(&token)).to_string()).await;
    let path = "/api/v1/namespaces/here/pods";
    let body_of = |response: Response<Body>| async {
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes)
    };
    let get = || caller.send(Method::GET, path, &[], Vec::new());

    cluster.refuse_token(&token, 1);
    assert_eq!(get().await.status(), 401);
    assert_eq!(get().await.status(), 200);
    cluster.script(path, Fault::too_many_requests(7));
    let response = get().await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    cluster.fail(2, Fault::status(503), |asked| asked.path.contains("/here/"));
    assert_eq!(
        (get().await.status().as_u16(), get().await.status().as_u16(), get().await.status().as_u16()),
        (503, 503, 200)
    );

    cluster.script(path, Fault::bytes(Some(5_000_000)));
    let mut check = PatternCheck::default();
    check.take(&body_of(get().await).await.unwrap());
    assert_eq!(check, PatternCheck { length: 5_000_000, wrong_at: None });
    cluster.script(path, Fault::check_body(100_000, Duration::ZERO));
    let sent = [pattern(0, 1_000_000), pattern(1_000_000, 1_000_000)].concat();
    let seen = json_of(caller.send(Method::POST, path, &[], sent).await).await;
    assert_eq!(seen, json!({"length": 2_000_000, "wrongAt": null}));
    check.take(b"wrong");
    assert!(check.wrong_at.is_some_and(|at| at >= 5_000_000));

    cluster.script(path, Fault::bytes(None).broken_after(100));
    body_of(get().await).await.unwrap_err();
    let nothing = Duration::from_millis(200);
    for fault in [Fault::none().stalled_after(10), Fault::none().silent_after(10), Fault::never(), Fault::silence()] {
        let before = cluster.requests_to(path).len();
        cluster.script(path, fault);
        let asked = async {
            while cluster.requests_to(path).len() == before {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(nothing).await;
        };
        tokio::select! {
            came = async { body_of(get().await).await } => panic!("{came:?}"),
            () = asked => {}
        }
    }
    body_of(get().await).await.unwrap();
    cluster.script(path, Fault::go_away());
    body_of(get().await).await.unwrap();
    body_of(get().await).await.unwrap();
    let asked = cluster.requests_to(path);
    let [.., left, next] = asked.as_slice() else { panic!("{asked:?}") };
    assert_ne!(left.connection, next.connection, "nothing goes on a connection that was asked to end");
    for fault in [Fault::reset(), Fault::close()] {
        cluster.script(path, fault);
        let request = Request::get(path).body(Body::empty()).unwrap();
        timeout(DEADLINE, caller.0.send(request)).await.unwrap().unwrap_err();
    }
    cluster.go_silent();
    let request = Request::get(path).body(Body::empty()).unwrap();
    timeout(nothing, caller.0.send(request)).await.unwrap_err();
    cluster.speak();
    assert_eq!(get().await.status(), 200);
    cluster.go_down();
    let request = Request::get(path).body(Body::empty()).unwrap();
    caller.0.send(request).await.unwrap_err();
    cluster.come_up();
    assert_eq!(get().await.status(), 200);
}

#[tokio::test]
async fn watches_of_the_double_end_break_and_expire_when_told() {
    let cluster = Cluster::start(|_| None);
    cluster.add_pod("here", "web", &[], &[]);
    let caller = Caller::of(&cluster.kubeconfig(&with_token(&cluster.token("jane", &[]))).to_string()).await;
    let open = |query: &str| {
        let (caller, path) = (caller.clone(), format!("/api/v1/pods?watch=true&{query}"));
        async move { Lines::of(caller.send(Method::GET, &path, &[], Vec::new()).await.into_body()) }
    };
    let mut watch = open("").await;
    assert_eq!(watch.next().await.unwrap(), "ADDED Pod web");
    cluster.expire_watches();
    assert_eq!(watch.next().await.unwrap(), "ERROR 410 Expired");
    assert_eq!(watch.next().await, None);
    let old = cluster.revision();
    cluster.pass(10);
    cluster.compact();
    assert_eq!(open(&format!("resourceVersion={old}")).await.next().await.unwrap(), "ERROR 410 Expired");
    let path = format!("/api/v1/pods?watch=true&resourceVersion={old}");
    let mut socket = caller.socket(&path, &[("origin", "http://localhost")]).await;
    let Some(Message::Text(text)) = socket.next().await else { panic!("no event") };
    assert_eq!(event(&text), "ERROR 410 Expired");
    assert_eq!(socket.story().await, ["close 1000"]);
    let mut watch = open("").await;
    let _ = watch.next().await;
    cluster.end_watches();
    assert_eq!(watch.next().await, None);
    let mut watch = open("").await;
    let _ = watch.next().await;
    cluster.cut_watches();
    assert!(watch.body.frame().await.unwrap().is_err());
    cluster.set(|behaviour| behaviour.bookmark_every = Duration::from_millis(10));
    let mut watch = open("allowWatchBookmarks=true").await;
    assert_eq!(watch.next().await.unwrap(), "ADDED Pod web");
    assert_eq!(watch.next().await.unwrap(), "BOOKMARK Pod -");
    cluster.set(|behaviour| behaviour.watch_lifetime = Some(Duration::from_millis(10)));
    let mut watch = open("").await;
    assert_eq!((watch.next().await.is_some(), watch.next().await), (true, None));
    wait_until(DEADLINE, "one watch", || cluster.watches() == 1);
}

#[tokio::test]
async fn connections_to_a_pod_end_with_the_pod() {
    let cluster = Cluster::start(|_| None);
    let pod = cluster.install_headlamp("headlamp", &HeadlampInstall::default(), echo_once());
    let caller = Caller::of(&cluster.kubeconfig(&with_token(&cluster.token("jane", &[]))).to_string()).await;
    let path = format!("/api/v1/namespaces/headlamp/pods/{pod}/portforward?ports=4466");
    let mut socket = caller.socket(&path, &[("sec-websocket-protocol", "v4.channel.k8s.io")]).await;
    let _ = (socket.next().await, socket.next().await);
    let new = cluster.replace_headlamp_pod("headlamp", "headlamp", echo_once());
    assert_eq!(socket.story().await, ["close 1000"]);
    assert_eq!(cluster.headlamp_pods("headlamp", "headlamp"), [new]);
    assert_eq!(caller.handshake(&path, &[]).await.status(), 404);
}

#[test]
fn a_delay_line_delays_each_way_and_keeps_ends() {
    let address = echo_once();
    let line = DelayLine::to(address, Duration::from_millis(25));
    let began = std::time::Instant::now();
    let mut stream = std::net::TcpStream::connect(line.address()).unwrap();
    stream.write_all(b"over and back").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let took = began.elapsed();
    assert_eq!(answer, "over and back");
    assert!(took >= Duration::from_millis(100), "{took:?} for two round trips of 50 ms");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = DelayLine::to(nobody.local_addr().unwrap(), Duration::ZERO);
    let mut stream = std::net::TcpStream::connect(line.address()).unwrap();
    wait_until(DEADLINE, "the line", || line.connections() == 1);
    line.cut();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn silence_of_a_delay_line_is_heard_by_nobody() {
    let line = DelayLine::to(echo_once(), Duration::ZERO);
    let mut stream = std::net::TcpStream::connect(line.address()).unwrap();
    line.go_silent();
    stream.write_all(b"later").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.read(&mut [0]).unwrap_err();
    line.speak();
    stream.set_read_timeout(None).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "later");
}
