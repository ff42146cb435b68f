//! As whom `open` asks the cluster: with whatever credential kubectl has, which the cluster alone sees.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use headlamp_test_support::api_server::exec_entry;
use headlamp_test_support::{
    Cluster, HeadlampInstall, Provider, StandInOptions, with_certificate, with_token, with_token_file,
};
use serde_json::{Value, json};

use crate::open_desk::{Desk, PODS, Tab, UPSTREAM_PODS, error, interrupted};

#[test]
fn every_kind_of_credential_is_the_clusters_alone() {
    let desk = Desk::taken();
    let certificate = desk.cluster.client_certificate("carl", &["operators"]);
    let (jane, boss) = (desk.token("jane", &["developers"]), desk.token("boss", &[]));
    let impersonating = json!({"token": boss, "as": "ivan", "as-groups": ["testers"], "as-uid": "7"});
    // Paths are relative to the kubeconfig's folder.
    desk.sandbox.write("carl.crt", &certificate.pem);
    desk.sandbox.write("carl.key", certificate.key_pem.as_bytes());
    let files = json!({"client-certificate": "carl.crt", "client-key": "carl.key"});
    let flags = ["--as=lena", "--as-group=a", "--as-group=b", "--as-uid=9"];
    for (user, flags, expected) in [
        (with_token(&jane), &[][..], r#"jane/ ["developers", "system:authenticated"]"#),
        (with_token("of-nobody"), &[&format!("--token={jane}")], r#"jane/ ["developers", "system:authenticated"]"#),
        (with_certificate(&certificate), &[], r#"carl/ ["operators", "system:authenticated"]"#),
        (files, &[], r#"carl/ ["operators", "system:authenticated"]"#),
        (impersonating, &[], r#"ivan/7 ["testers", "system:authenticated"]"#),
        (with_token(&boss), &flags.map(str::to_owned).each_ref(), r#"lena/9 ["a", "b", "system:authenticated"]"#),
    ] {
        desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
        let mut open = desk.open([]).args(flags).spawn();
        let tab = Tab::of(&mut open);
        let answers = [tab.get(PODS), tab.get("/clusters/main/me"), tab.get("/config"), tab.go("/c/main/pods")];
        for answer in &answers {
            let all = format!("{:?} {}", answer.headers, answer.text());
            assert!(answer.status == 200 && !all.contains(&jane) && !all.contains(&boss), "{expected}: {all}");
        }
        assert_eq!(desk.asked_as(UPSTREAM_PODS), expected);
        assert_eq!(answers[1].json()["username"], expected.split('/').next().unwrap());
        let _ = interrupted(open);
    }
    desk.assert_pod_knows_nothing();
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_refused() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("jane", &[]), desk.token("jane", &["admins"]));
    let file = desk.sandbox.write("token", &first);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    desk.sandbox.write("token", format!("{second}\n"));
    desk.cluster.refuse_token(&first, usize::MAX);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"jane/ ["admins", "system:authenticated"]"#);
    let _ = interrupted(open);
}

#[test]
fn our_own_exec_entry_is_resolved_without_a_child_a_browser_or_the_provider() {
    let provider = Provider::start();
    let desk = Desk::at(Cluster::start(provider.authenticator()), StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    let _ = desk.sandbox.get_token(&provider).run().succeeded();
    desk.sandbox.visits();
    provider.forget_requests();
    let ran = desk.sandbox.path("ran");
    desk.sandbox.write_program("kubectl-headlamp", &format!("echo ran >> '{}'; exit 1", ran.display()));
    let arguments = [vec!["get-token".to_owned()], desk.sandbox.flags(&provider)].concat();
    let user = json!({"exec": exec_entry("kubectl-headlamp", &arguments)});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"jane@example.com/ ["developers", "system:authenticated"]"#);
    let _ = interrupted(open);
    assert!(!ran.exists(), "the exec entry's program was run");
    assert_eq!(desk.sandbox.opened().len(), 1, "only the sign-in before");
    assert_eq!(provider.all_requests().len(), 0);
    desk.assert_pod_knows_nothing();
}

#[test]
fn another_exec_plugin_is_run_once_and_again_when_its_token_is_refused() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("paula", &["first"]), desk.token("paula", &["second"]));
    let answer = |token: &str| {
        let status = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
        json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status}).to_string()
    };
    desk.sandbox.write("answer", answer(&first));
    let (runs, file) = (desk.sandbox.path("runs"), desk.sandbox.path("answer"));
    let script = format!("echo run >> '{}'\n/bin/cat '{}'", runs.display(), file.display());
    let plugin = desk.sandbox.write_program("cloud-plugin", &script);
    let user = json!({"exec": exec_entry(&plugin.display().to_string(), &[])});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    for _ in 0..3 {
        assert_eq!(tab.get(PODS).status, 200);
    }
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"paula/ ["first", "system:authenticated"]"#);
    let count = || fs::read_to_string(&runs).unwrap().lines().count();
    assert_eq!(count(), 1, "its answer is good until 2099");
    desk.sandbox.write("answer", answer(&second));
    desk.cluster.refuse_token(&first, usize::MAX);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"paula/ ["second", "system:authenticated"]"#);
    assert_eq!(count(), 2);
    let _ = interrupted(open);
    desk.assert_pod_knows_nothing();
}

#[test]
fn an_exec_plugins_client_certificate_is_used() {
    let desk = Desk::taken();
    let certificate = desk.cluster.client_certificate("cora", &["cloud"]);
    let status = json!({"clientCertificateData": certificate.pem, "clientKeyData": certificate.key_pem});
    let answer = json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status});
    let answer = desk.sandbox.write("answer", answer.to_string());
    let plugin = desk.sandbox.write_program("cloud-plugin", &format!("/bin/cat '{}'", answer.display()));
    let user = json!({"exec": exec_entry(&plugin.display().to_string(), &[])});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"cora/ ["cloud", "system:authenticated"]"#);
    let _ = interrupted(open);
}

#[test]
fn a_refused_token_is_explained_by_what_stands_in_it() {
    let desk = Desk::taken();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "https://id.example.com", "aud": ["grafana"], "sub": "jane", "exp": 4_000_000_000_u64});
    let token = format!("{}.{}.{}", part(json!({"alg": "ES256"})), part(claims), "c2lnbmF0dXJl");
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token(&token)));
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    the cluster `[CLUSTER]` does not accept the token
      caused by: 401: its issuer is `https://id.example.com`, its audience `grafana`, it is valid until [TIME]

    hint: compare issuer and audience, character for character, with the API server's `--oidc-issuer-url` and `--oidc-client-id`
    hint: is it the token that the cluster wants? `--token-type id` or `--token-type access` chooses
    hint: the API server's log says why it refused the token
    ");
    assert!(desk.sandbox.opened().is_empty() && desk.headlamp.requests().is_empty());
}
