//! How `open` reaches the cluster, and what of the cluster's ways the page never notices.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headlamp_test_support::api_server::SelfSubjectReview;
use headlamp_test_support::{
    Cluster, ClusterOptions, ConnectProxy, Fault, HeadlampInstall, StandInOptions, wait_until, with_token,
    with_token_file,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::open_desk::{DEADLINE, Desk, PODS, Tab, UPSTREAM_PODS, error, event, interrupted};

#[test]
fn a_cluster_that_is_not_there_is_exit_6() {
    let desk = Desk::taken();
    desk.cluster.go_down();
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 6
    cannot reach the cluster `[CLUSTER]`
      caused by: Connection refused (os error 111)

    hint: nothing listens there: is the cluster running?
    ");
    assert!(desk.sandbox.opened().is_empty());
}

#[test]
fn a_cluster_that_speaks_http_1_alone_will_do() {
    let cluster = Cluster::start_with(ClusterOptions { http1_only: true, ..ClusterOptions::default() }, |_| None);
    let desk = Desk::at(cluster, StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    desk.cluster.add_pod("default", "web", &[], &[]);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.pods(), ["web"]);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "web");
    desk.cluster.add_pod("default", "new", &[], &[]);
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "new");
    let _ = interrupted(open);
    assert!(desk.cluster.requests().iter().all(|asked| !asked.http2));
}

#[test]
fn an_older_cluster_is_opened_even_if_it_cannot_say_who_one_is() {
    for (served, status) in [(SelfSubjectReview::V1beta1, 200), (SelfSubjectReview::Absent, 404)] {
        let desk = Desk::taken();
        desk.cluster.set(|behaviour| behaviour.self_subject_review = served);
        let mut open = desk.open([]).spawn();
        let tab = Tab::of(&mut open);
        assert_eq!((tab.get(PODS).status, tab.get("/clusters/main/me").status), (200, status), "{served:?}");
        let _ = interrupted(open);
    }
}

#[test]
fn a_kubeconfigs_proxy_is_used_for_all_that_goes_to_the_cluster() {
    let desk = Desk::taken();
    let proxy = ConnectProxy::to(desk.cluster.address().port());
    let user = with_token(&desk.token("jane", &[]));
    let mut kubeconfig = desk.cluster.kubeconfig_at("https://cluster.test:6443", &user);
    kubeconfig["clusters"][0]["cluster"]["proxy-url"] = json!(proxy.url());
    desk.sandbox.write_kubeconfig(&kubeconfig);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!((tab.go("/").status, tab.get(PODS).status), (200, 200));
    let _ = tab.socket(&format!("{PODS}?watch=true"));
    let _ = interrupted(open);
    let connections = desk.cluster.connections();
    let tunnels = proxy.tunnels();
    assert!(tunnels.len() >= 2 && tunnels.iter().all(|tunnel| tunnel.target == "cluster.test:6443"), "{tunnels:?}");
    assert!(tunnels.len() >= connections, "{tunnels:?}");
}

#[test]
fn the_environments_proxy_is_used_unless_the_cluster_is_excepted() {
    let desk = Desk::taken();
    let proxy = ConnectProxy::to(desk.cluster.address().port());
    let user = with_token(&desk.token("jane", &[]));
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig_at("https://cluster.test:6443", &user));
    let run = |proxy: &ConnectProxy| desk.open([]).env("HTTPS_PROXY", proxy.url());
    let mut open = run(&proxy).env("NO_PROXY", "other.test,10.0.0.0/8").spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    let _ = interrupted(open);
    assert!(!proxy.tunnels().is_empty());
    // Nobody knows the name but the proxy.
    let unused = ConnectProxy::to(desk.cluster.address().port());
    let output = run(&unused).env("NO_PROXY", ".test").run();
    assert_eq!((output.code, unused.tunnels().len()), (6, 0), "{output}");
    assert!(desk.sandbox.opened().is_empty());
}

#[test]
fn what_the_cluster_says_reaches_the_page_and_what_broke_is_asked_again_once() {
    let desk = Desk::taken();
    desk.cluster.add_pod("default", "web", &[], &[]);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    // The server's own word is the page's to understand.
    desk.cluster.script(UPSTREAM_PODS, Fault::too_many_requests(7));
    let busy = tab.get(PODS);
    assert_eq!((busy.status, busy.header("retry-after")), (429, "7"));
    for status in [403, 404, 500] {
        desk.cluster.script(UPSTREAM_PODS, Fault::status(status));
        let answer = tab.get(PODS);
        assert_eq!((answer.status, &answer.json()["kind"]), (status, &json!("Status")));
    }
    // Whatever ends a connection, a `GET` has its answer.
    for (what, fault) in [
        ("it is asked to leave", Fault::go_away()),
        ("it is closed", Fault::close()),
        ("it is reset", Fault::reset()),
        ("the answer breaks off", Fault::none().broken_after(10)),
        ("it is reset within the answer", Fault::none().reset_after(10)),
    ] {
        desk.cluster.forget_requests();
        desk.cluster.script(UPSTREAM_PODS, fault);
        assert_eq!(tab.pods(), ["web"], "{what}");
        let asked = desk.cluster.requests_to(UPSTREAM_PODS).len();
        assert!(asked <= 2, "{what}: it was asked {asked} times");
        assert_eq!(tab.pods(), ["web"], "after: {what}");
    }
    // Once: then it is told. And what changes something is never asked twice.
    desk.cluster.forget_requests();
    desk.cluster.fail(2, Fault::close(), |asked| asked.path == UPSTREAM_PODS);
    let broken = tab.get(PODS);
    assert_eq!((broken.status, &broken.json()["kind"]), (502, &json!("Status")));
    assert_eq!(desk.cluster.requests_to(UPSTREAM_PODS).len(), 2);
    desk.cluster.forget_requests();
    desk.cluster.script(UPSTREAM_PODS, Fault::close());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": {"containers": []}});
    assert_eq!(tab.ask("POST", PODS, &[], &pod.to_string()).status, 502);
    assert_eq!(desk.cluster.requests_to(UPSTREAM_PODS).len(), 1);
    assert_eq!(tab.pods(), ["web"]);
    let _ = interrupted(open);
}

#[test]
fn a_cluster_that_falls_silent_is_found_out_within_half_a_minute_and_holds_up_no_websocket() {
    let desk = Desk::taken();
    desk.cluster.add_pod("default", "web", &[], &[]);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "web");
    desk.cluster.silence_connections();
    desk.cluster.add_pod("default", "new", &[], &[]);
    let began = Instant::now();
    assert_eq!(tab.pods(), ["new", "web"]);
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "new");
    assert!(began.elapsed() < DEADLINE);
    desk.cluster.go_silent();
    let began = Instant::now();
    let mut late = tab.socket(&format!("{PODS}?watch=true"));
    assert!(began.elapsed() < DEADLINE / 3);
    desk.cluster.speak();
    let mut told = [event(&mut late), event(&mut late)].map(|event| event["object"]["metadata"]["name"].clone());
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["new", "web"]);
    let _ = interrupted(open);
}

#[test]
fn logs_and_commands_go_through_with_the_subprotocol_that_the_page_offers() {
    let desk = Desk::taken();
    desk.cluster.add_pod("default", "web", &[], &[]);
    desk.cluster.write_log("default", "web", "hello\n");
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let offered = |protocols| [("Sec-WebSocket-Protocol", protocols)];
    for (path, protocols, expected) in [
        ("log?follow=true", "base64.binary.k8s.io", "text aGVsbG8K"),
        ("log?follow=true", "binary.k8s.io", "binary hello\\n"),
        ("exec?command=echo&command=hello&stdout=true", "v4.channel.k8s.io", "binary \\x01hello\\n"),
        ("exec?command=echo&command=hello&stdout=true", "v5.channel.k8s.io, v4.channel.k8s.io", "binary \\x01hello\\n"),
    ] {
        let mut socket = tab.upgrade(&format!("{PODS}/web/{path}"), &offered(protocols)).unwrap();
        let mut said = Vec::new();
        while !said.iter().any(|line: &String| line == expected) {
            said.push(match socket.read().unwrap_or_else(|error| panic!("{path}: {error} after {said:?}")) {
                Message::Text(text) => format!("text {text}"),
                Message::Binary(bytes) => format!("binary {}", bytes.escape_ascii()),
                other => panic!("{path}: {other:?} after {said:?}"),
            });
        }
    }
    let refused = tab.upgrade(&format!("{PODS}/web/exec?command=echo"), &offered("v9.channel.k8s.io"));
    assert_eq!(refused.unwrap_err().status, 403, "the server's own refusal");
    let _ = interrupted(open);
}

#[test]
fn a_401_is_never_the_pages() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("jane", &[]), desk.token("jane", &[]));
    let file = desk.sandbox.write("token", &first);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    desk.sandbox.write("token", &second);
    desk.cluster.refuse_token(&first, usize::MAX);
    desk.cluster.refuse_token(&second, usize::MAX);
    for _ in 0..4 {
        let answer = tab.get(PODS);
        assert_eq!((answer.status, answer.json()["kind"].as_str()), (502, Some("Status")), "{}", answer.text());
    }
    let refused = tab.upgrade(&format!("{PODS}?watch=true&resourceVersion=1"), &[]);
    assert!(refused.map_or_else(|reply| reply.status != 401, |_| true));
    assert_eq!(tab.go("/c/main/").status, 200);
    desk.cluster.refuse_token(&second, 0);
    assert_eq!(tab.get(PODS).status, 200);
    let _ = interrupted(open);
}

/// What a page knows of the pods in `default` that follows a watch: name and version.
fn follow(watch: &mut tungstenite::WebSocket<std::net::TcpStream>, known: &mut BTreeMap<String, String>) {
    let event = event(watch);
    let metadata = &event["object"]["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    match event["type"].as_str().unwrap() {
        "DELETED" => drop(known.remove(&name)),
        "ADDED" | "MODIFIED" => drop(known.insert(name, metadata["resourceVersion"].as_str().unwrap().to_owned())),
        other => panic!("{other}: {event}"),
    }
}

#[test]
fn a_pages_watch_stays_open_and_ends_with_what_the_cluster_holds() {
    let desk = Desk::taken();
    for name in ["stays", "goes", "changes"] {
        desk.cluster.add_pod("default", name, &[], &[]);
    }
    let held = || -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pods = desk.cluster.list("pods", "default");
        pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["resourceVersion"]))).collect()
    };
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let version = tab.get(PODS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut known = held();
    desk.cluster.set(|behaviour| behaviour.watch_lifetime = Some(Duration::from_secs(1)));
    let mut watch = tab.socket(&format!("{PODS}?watch=true&resourceVersion={version}"));
    let watches = || {
        let asked = desk.cluster.requests_to(UPSTREAM_PODS);
        asked.iter().filter(|asked| asked.query.contains(&("watch".to_owned(), "true".to_owned()))).count()
    };
    for round in 0..3 {
        wait_until(DEADLINE, "the watch to be resumed", || watches() > round);
        desk.cluster.add_pod("default", &format!("new-{round}"), &[], &[]);
        while known != held() {
            follow(&mut watch, &mut known);
        }
    }
    // What the page had at first is listed behind it, once it has had time to load.
    let lists = || desk.cluster.requests_to(UPSTREAM_PODS).len() - watches();
    wait_until(DEADLINE, "the list of what the page has", || lists() >= 2);
    // While it is gone, so much happens that the server no longer knows where it ended.
    desk.cluster.fail(usize::MAX, Fault::status(500), |asked| {
        asked.path == UPSTREAM_PODS && asked.query.iter().any(|(name, _)| name == "watch")
    });
    let before = watches();
    desk.cluster.end_watches();
    wait_until(DEADLINE, "an attempt that fails", || watches() > before);
    desk.cluster.delete("pods", "default", "goes");
    desk.cluster.edit("pods", "default", "changes", |pod| pod["metadata"]["labels"] = json!({"changed": "yes"}));
    desk.cluster.add_pod("default", "late", &[], &[]);
    desk.cluster.compact();
    desk.cluster.heal();
    while known != held() {
        follow(&mut watch, &mut known);
    }
    assert!(known.contains_key("late") && !known.contains_key("goes"));
    // And once more within a watch.
    desk.cluster.expire_watches();
    desk.cluster.delete("pods", "default", "stays");
    while known != held() {
        follow(&mut watch, &mut known);
    }
    let _ = interrupted(open);
}
