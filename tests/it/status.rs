//! `status`: who is signed in where, until when, and what the cluster makes of it.

use headlamp_test_support::{Answer, ApiServer, Output, Provider, Response, Sandbox, SelfSubjectReview, exec_entry};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::BINARY;
use crate::login::{kubeconfig, user};

/// The output without times: spans count from now.
fn timeless(output: &Output) -> String {
    let text = output.to_string();
    let mut shown: Vec<String> = Vec::new();
    for word in text.split(' ') {
        // `25 November 2026, 10:00 UTC`
        let Some(rest) = word.strip_prefix("UTC") else {
            shown.push(word.to_owned());
            continue;
        };
        let date = shown.split_off(shown.len() - 4);
        let opened = if date[0].starts_with('(') { "(" } else { "" };
        shown.push(format!("{opened}[DATE]{rest}"));
    }
    let text = shown.join(" ");
    (0..60).fold(text, |text, second| text.replace(&format!("({second} s ago)"), "([SPAN] ago)"))
}

/// A sandbox where somebody is signed in to the cluster of the current context.
fn signed_in(provider: &Provider, api_server: &ApiServer, more: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new(BINARY);
    sandbox.call(api_server.url(), "[SERVER]");
    let words = ["get-token".to_owned()].into_iter().chain(sandbox.flags(provider));
    let arguments: Vec<String> = words.chain(more.iter().map(|&word| word.to_owned())).collect();
    sandbox.write_kubeconfig(&api_server.kubeconfig(&exec_entry("kubectl-headlamp", &arguments)));
    let _ = sandbox.command(["login"]).run().succeeded();
    sandbox.visits();
    sandbox
}

#[test]
fn whoever_is_not_signed_in_is_told_how_to_be() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(sandbox.command(["status"]).run(), @"
    exit 3
    stdout:
    no tokens are kept, and no user of the kubeconfig gets any here
    stderr:
    kubectl-headlamp: error: you are not signed in anywhere

    hint: run `kubectl headlamp login --issuer-url <url> --client-id <id>`
    ");
    sandbox.write_kubeconfig(&kubeconfig(&[("dev", user(&sandbox, &provider, &[]))]));
    assert_snapshot!(sandbox.command(["status"]).run(), @"
    exit 3
    stdout:
    * [ISSUER], client `kubernetes`
        not signed in  `kubectl headlamp login --context dev`
        used by        context `dev`, user `dev` in [SANDBOX]/kubeconfig
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`

    hint: run `kubectl headlamp login --context dev`
    ");
}

#[test]
fn a_session_is_told_to_people_and_to_programs() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&kubeconfig(&[("dev", user(&sandbox, &provider, &[]))]));
    let _ = sandbox.command(["login"]).run().succeeded();
    provider.forget_requests();
    let text = sandbox.command(["status"]).run();
    assert_snapshot!(timeless(&text), @"
    exit 0
    stdout:
    * [ISSUER], client `kubernetes`
        signed in as   Jane Doe (jane@example.com)
        since          [DATE] ([SPAN] ago)
        ID token       good for 59 min (until [DATE]), for `kubernetes`; the cluster is given this one
        access token   good for 59 min (until [DATE])
        refresh token  good until the provider ends it
        groups         `developers`
        used by        context `dev`, user `dev` in [SANDBOX]/kubeconfig
    ");
    assert_eq!(timeless(&sandbox.command(["whoami"]).run()), timeless(&text));
    assert_snapshot!(sandbox.command(["status", "-o", "json"]).run(), @r#"
    exit 0
    stdout:
    {
      "version": 1,
      "context": {
        "name": "dev",
        "user": "dev",
        "cluster": "dev",
        "file": "[SANDBOX]/kubeconfig"
      },
      "sessions": [
        {
          "current": true,
          "state": "signedIn",
          "issuer": "[ISSUER]",
          "clientId": "kubernetes",
          "scopes": [
            "openid"
          ],
          "signsInAs": "person",
          "person": {
            "subject": "f3a1c9",
            "name": "Jane Doe",
            "email": "jane@example.com",
            "username": "jane@example.com",
            "groups": [
              "developers"
            ]
          },
          "signedIn": "[TIME]",
          "refreshed": "[TIME]",
          "idToken": {
            "expires": "[TIME]",
            "issuer": "[ISSUER]",
            "audience": [
              "kubernetes"
            ]
          },
          "accessToken": {
            "expires": "[TIME]",
            "audience": []
          },
          "refreshToken": {},
          "configuredBy": [
            {
              "user": "dev",
              "contexts": [
                "dev"
              ],
              "file": "[SANDBOX]/kubeconfig",
              "tokenType": "id"
            }
          ]
        }
      ]
    }
    "#);
    assert_eq!(provider.all_requests().len(), 0, "nobody is asked");
}

#[test]
fn a_session_is_told_in_yaml_too() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&kubeconfig(&[("dev", user(&sandbox, &provider, &[]))]));
    let _ = sandbox.command(["login"]).run().succeeded();
    assert_snapshot!(sandbox.command(["whoami", "-o=yaml"]).run(), @r#"
    exit 0
    stdout:
    version: 1
    context:
      name: dev
      user: dev
      cluster: dev
      file: [SANDBOX]/kubeconfig
    sessions:
    - current: true
      state: signedIn
      issuer: [ISSUER]
      clientId: kubernetes
      scopes:
      - openid
      signsInAs: person
      person:
        subject: f3a1c9
        name: Jane Doe
        email: jane@example.com
        username: jane@example.com
        groups:
        - developers
      signedIn: "[TIME]"
      refreshed: "[TIME]"
      idToken:
        expires: "[TIME]"
        issuer: [ISSUER]
        audience:
        - kubernetes
      accessToken:
        expires: "[TIME]"
        audience: []
      refreshToken: {}
      configuredBy:
      - user: dev
        contexts:
        - dev
        file: [SANDBOX]/kubeconfig
        tokenType: id
    "#);
}

#[test]
fn every_session_is_told_the_current_one_first() {
    let [one, other] = [Provider::start(), Provider::start()];
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&one);
    sandbox.call(other.issuer(), "[OTHER ISSUER]");
    let users = [
        ("one", user(&sandbox, &one, &[])),
        ("other", user(&sandbox, &other, &[])),
        ("idle", user(&sandbox, &one, &["--scope=email"])),
    ];
    sandbox.write_kubeconfig(&kubeconfig(&users));
    for context in ["one", "other"] {
        let _ = sandbox.command(["login", "--context", context]).run().succeeded();
    }
    let status = sandbox.command(["status", "-o=json"]).run().succeeded().json();
    let told: Vec<_> = status["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["issuer"].clone(), one["current"].clone(), one["state"].clone()))
        .collect();
    let (one, other) = (one.issuer(), other.issuer());
    assert_eq!(
        told,
        [
            (json!(one), json!(true), json!("signedIn")),
            (json!(other), json!(false), json!("signedIn")),
            (json!(one), json!(false), json!("notSignedIn")),
        ]
    );
}

#[test]
fn a_user_who_signs_in_without_us_is_told_of() {
    let sandbox = Sandbox::new(BINARY);
    for (way, user) in [
        ("a client certificate", json!({"client-certificate": "a.crt", "client-key": "a.key"})),
        (
            "Azure's `kubelogin`",
            json!({"exec": exec_entry("kubelogin", &["get-token".into(), "--server-id".into(), "x".into()])}),
        ),
        ("the program `aws`", json!({"exec": exec_entry("aws", &["eks".into(), "get-token".into()])})),
    ] {
        sandbox.write_kubeconfig(&kubeconfig(&[("dev", user)]));
        let output = sandbox.command(["status"]).run().succeeded();
        let expected = format!("the user `dev` of the context `dev` (in [SANDBOX]/kubeconfig) signs in with {way}");
        assert!(output.to_string().contains(&expected), "{output}");
    }
}

// The cluster's word.

#[test]
fn the_cluster_says_whom_it_takes_us_for() {
    let provider = Provider::start();
    let api_server = ApiServer::start(provider.authenticator());
    let sandbox = signed_in(&provider, &api_server, &[]);
    for version in [SelfSubjectReview::V1, SelfSubjectReview::V1beta1] {
        api_server.serve_self_subject_review(version);
        let output = sandbox.command(["status", "--verify"]).run().succeeded();
        let first = output.to_string().lines().nth(2).unwrap_or_default().to_owned();
        assert_eq!(
            first,
            "the cluster `dev` ([SERVER]) knows you as `jane@example.com`, in the groups `developers`, `system:authenticated`"
        );
    }
    let cluster: Value = sandbox.command(["status", "--verify", "-o=json"]).run().succeeded().json()["cluster"].clone();
    assert_eq!(cluster["username"], "jane@example.com");
    api_server.serve_self_subject_review(SelfSubjectReview::Absent);
    let output = sandbox.command(["status", "--verify"]).run();
    assert_eq!(output.code, 1);
    assert_snapshot!(output.to_string().split("stderr:\n").nth(1).unwrap(), @"
    kubectl-headlamp: error: the cluster `[SERVER]` cannot say who one is
      caused by: it does not serve SelfSubjectReview, which came with Kubernetes 1.28

    hint: `kubectl auth can-i --list` shows what the credential may do
    ");
}

#[test]
fn a_cluster_that_refuses_the_token_is_explained() {
    let provider = Provider::start();
    let api_server = ApiServer::start(|_| None);
    let sandbox = signed_in(&provider, &api_server, &[]);
    let output = sandbox.command(["status", "--verify"]).run();
    assert_snapshot!(output.to_string().split("stderr:\n").nth(1).unwrap(), @"
    kubectl-headlamp: error: the cluster `[SERVER]` does not accept the token
      caused by: 401: its issuer is `[ISSUER]`, its audience `kubernetes`, it is valid until [TIME]

    hint: compare issuer and audience, character for character, with the API server's `--oidc-issuer-url` and `--oidc-client-id`
    hint: is it the token that the cluster wants? `--token-type id` or `--token-type access` chooses
    hint: the API server's log says why it refused the token
    ");
    let trouble = Answer::of(Response::json(503, &json!({"message": "etcd is away"})));
    api_server.script("/apis/authentication.k8s.io/v1/selfsubjectreviews", trouble);
    assert_eq!(sandbox.command(["status", "--verify"]).run().code, 6);
}

#[test]
fn a_token_that_has_run_out_is_renewed_before_the_cluster_is_asked_and_nobody_signs_in() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 1);
    let api_server = ApiServer::start(provider.authenticator());
    let sandbox = signed_in(&provider, &api_server, &[]);
    provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
    headlamp_test_support::wait_until(std::time::Duration::from_secs(60), "the token's end", || {
        let status = sandbox.command(["status", "-o=json"]).run().json();
        let expires: jiff::Timestamp = status["sessions"][0]["idToken"]["expires"].as_str().unwrap().parse().unwrap();
        expires < jiff::Timestamp::now()
    });
    let _ = sandbox.command(["status", "--verify"]).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(sandbox.opened().len(), 1, "the login's own browser");
}
