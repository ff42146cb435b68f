//! kubectl's own flags of `open`, which mean what they mean to kubectl, and its limits of time.

use std::time::{Duration, Instant};

use headlamp_test_support::{
    Answer, Authority, Cluster, ClusterOptions, Fault, Gate, HeadlampInstall, KeptPort, StandInOptions, with_token,
};
use serde_json::json;

use crate::open_desk::{DEADLINE, Desk, PODS, Tab, UPSTREAM_PODS, address, error, event, interrupted, port_of};

#[test]
fn flags_alone_say_where_and_as_whom() {
    let desk = Desk::taken();
    desk.sandbox.write_kubeconfig(&json!({}));
    let output = desk.open([]).run();
    assert!(output.code == 5 && output.stderr.contains("--server"), "{output}");
    let token = desk.token("olga", &["admins"]);
    let authority = desk.sandbox.write("ca.pem", desk.cluster.ca_pem());
    let flags = [format!("--server={}", desk.cluster.url()), format!("--token={token}")];
    let mut open = desk.open([]).args(&flags).arg("--certificate-authority").arg(&authority).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"olga/ ["admins", "system:authenticated"]"#);
    let _ = interrupted(open);
    desk.assert_pod_knows_nothing();
}

#[test]
fn cluster_and_user_are_chosen_apart_from_the_context_in_a_file_that_is_named() {
    let desk = Desk::taken();
    let other = Cluster::start(|_| None);
    let mut kubeconfig = other.kubeconfig(&with_token("of-nobody"));
    let ours = desk.cluster.kubeconfig(&with_token(&desk.token("olga", &[])));
    for (list, name) in [("clusters", "ours"), ("users", "olga")] {
        let mut entry = ours[list][0].clone();
        entry["name"] = json!(name);
        kubeconfig[list].as_array_mut().unwrap().push(entry);
    }
    let file = desk.sandbox.write("another-kubeconfig", kubeconfig.to_string());
    let run = desk.open(["--cluster=ours", "--user=olga"]).arg("--kubeconfig").arg(&file);
    let mut open = run.spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"olga/ ["system:authenticated"]"#);
    assert!(other.requests().is_empty());
    let _ = interrupted(open);
}

#[test]
fn trust_in_the_cluster_is_what_the_flags_say() {
    let desk = Desk::taken();
    let user = with_token(&desk.token("jane", &[]));
    let mut kubeconfig = desk.cluster.kubeconfig(&user);
    let stranger = desk.sandbox.write("stranger.pem", Authority::new("a stranger's").pem());
    let refused = desk.open(["--certificate-authority"]).arg(&stranger).run();
    assert_eq!(refused.code, 6, "{refused}");
    // A name that the certificate does not have, and one that it has.
    let refused = desk.open(["--tls-server-name=other.test"]).run();
    assert!(refused.code == 6 && desk.cluster.requests().is_empty(), "{refused}");
    let mut open = desk.open(["--tls-server-name=cluster.test"]).spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    let _ = interrupted(open);
    kubeconfig["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data");
    desk.sandbox.write_kubeconfig(&kubeconfig);
    let refused = desk.open([]).run();
    assert_eq!(refused.code, 6, "{refused}");
    let mut open = desk.open(["--insecure-skip-tls-verify"]).spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    let _ = interrupted(open);
}

#[test]
fn a_server_below_a_path_is_asked_there_for_all_of_it() {
    let options = ClusterOptions { path: "/k8s/clusters/c-1", ..ClusterOptions::default() };
    let desk = Desk::at(Cluster::start_with(options, |_| None), StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    desk.cluster.add_pod("default", "web", &[], &[]);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!((tab.pods(), tab.go("/").status), (vec!["web".to_owned()], 200));
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "web");
    let shell = format!("{PODS}/web/exec?command=cat&stdin=true&stdout=true");
    let _ = tab.upgrade(&shell, &[("Sec-WebSocket-Protocol", "v5.channel.k8s.io")]).unwrap();
    let _ = interrupted(open);
    desk.assert_pod_knows_nothing();
}

#[test]
fn a_port_that_is_chosen_is_taken_and_remembered() {
    let desk = Desk::taken();
    let kept = KeptPort::new();
    let port = kept.number();
    let mut open = desk.open(["--port"]).arg(port.to_string()).spawn();
    assert_eq!(port_of(&address(&mut open)), port);
    let _ = interrupted(open);
    let mut open = desk.open([]).spawn();
    assert_eq!(port_of(&address(&mut open)), port);
    let _ = interrupted(open);
    let output = desk.open(["--port=8000"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 2
    `--port 8000` is the port of sign-ins
      caused by: a page that was once served there could read the answers of later sign-ins

    hint: take another one, or none: `open` finds one
    ");
}

#[test]
fn a_question_to_the_cluster_takes_no_longer_than_the_flag_allows() {
    let desk = Desk::taken();
    for path in ["/apis/authentication.k8s.io/v1/selfsubjectreviews", "/api/v1/services"] {
        desk.cluster.fail(usize::MAX, Fault::never(), move |asked| asked.path == path);
        let output = desk.open(["--request-timeout=500ms"]).run();
        assert!(output.code == 6 && output.stderr.contains("(`--request-timeout`)"), "{path}: {output}");
        desk.cluster.heal();
    }
    // Nothing that the page asks has this limit.
    let mut open = desk.open(["--request-timeout=10s"]).spawn();
    let tab = Tab::of(&mut open);
    desk.cluster.script(UPSTREAM_PODS, Fault::none().after(Duration::from_secs(11)));
    assert_eq!(tab.get(PODS).status, 200);
    let _ = interrupted(open);
}

#[test]
fn a_page_that_does_not_come_in_time_is_exit_6() {
    let desk = Desk::taken();
    let gate = Gate::new();
    desk.headlamp.script("/config", Answer::usual().held_by(&gate));
    let output = desk.open(["--timeout=6s"]).run();
    gate.open();
    insta::assert_snapshot!(error(&output), @r"
    exit 6
    Headlamp's page was not there in time
      caused by: waited for 6s (`--timeout`)

    hint: is its pod well? `kubectl logs` and `kubectl describe pod` of it say more
    hint: `--timeout 5m` waits longer
    ");
    assert!(desk.sandbox.opened().is_empty());
}

#[test]
fn an_interrupt_ends_it_while_it_still_looks_for_headlamp() {
    let desk = Desk::taken();
    let gate = Gate::new();
    desk.cluster.fail(usize::MAX, Fault::none().held_by(&gate), |asked| asked.path == "/api/v1/services");
    let open = desk.open([]).spawn();
    gate.wait_for(1);
    let began = Instant::now();
    let output = interrupted(open);
    assert!(began.elapsed() < DEADLINE && output.stdout.is_empty(), "{output}");
}
