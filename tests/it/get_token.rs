//! `get-token`, as kubectl runs it: from the cache, refreshed, by a sign-in, or not at all.

use headlamp_test_support::{Algorithm, Answer, Endpoint, Provider, Sandbox};
use insta::assert_snapshot;
use serde_json::Value;

use crate::BINARY;

/// A sandbox where somebody is signed in.
fn signed_in(provider: &Provider) -> Sandbox {
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(provider).run().succeeded();
    sandbox.visits();
    provider.forget_requests();
    sandbox
}

#[test]
fn a_sign_in_in_the_browser_answers_kubectl_with_the_id_token() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).exec_info("v1", false).run();
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]
    "#);
    assert_eq!(sandbox.opened().len(), 1);
    let page = sandbox.visit();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Jane Doe"), "{}", page.body);
    assert!(!page.url.contains("code="), "{}", page.url);
    let redeemed = provider.token_requests("authorization_code");
    assert_eq!(redeemed.len(), 1);
    let redirect = redeemed[0].parameter("redirect_uri").unwrap();
    assert_eq!(provider.requests(Endpoint::Authorize)[0].parameter("redirect_uri").unwrap(), redirect);
}

#[test]
fn the_answer_has_the_version_of_the_question() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    for version in ["v1", "v1beta1"] {
        let answer: Value = sandbox.get_token(&provider).exec_info(version, false).run().succeeded().json();
        assert_eq!(answer["apiVersion"], format!("client.authentication.k8s.io/{version}"));
    }
    for question in ["", "{}"] {
        let answer = sandbox.get_token(&provider).env("KUBERNETES_EXEC_INFO", question).run().succeeded().json();
        assert_eq!(answer["apiVersion"], "client.authentication.k8s.io/v1beta1");
    }
    provider.unused_is_fine();
}

#[test]
fn a_question_that_cannot_be_understood_is_an_error() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let unknown = sandbox.get_token(&provider).exec_info("v1alpha1", false).run();
    assert_snapshot!(unknown, @"
    exit 5
    stderr:
    kubectl-headlamp: error: `KUBERNETES_EXEC_INFO` asks for a version that is not known: `client.authentication.k8s.io/v1alpha1`

    hint: write `apiVersion: client.authentication.k8s.io/v1` in the user's `exec` entry of the kubeconfig
    ");
    let garbage = sandbox.get_token(&provider).env("KUBERNETES_EXEC_INFO", "kind: ExecCredential").run();
    assert_snapshot!(garbage, @"
    exit 5
    stderr:
    kubectl-headlamp: error: cannot understand `KUBERNETES_EXEC_INFO`
      caused by: not JSON at line 1, column 1

    hint: kubectl sets it; to run this by hand: `unset KUBERNETES_EXEC_INFO`
    ");
}

#[test]
fn a_second_run_is_silent_and_asks_nobody() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    let output = sandbox.get_token(&provider).exec_info("v1", false).run();
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    "#);
    assert_eq!(provider.all_requests().len(), 0);
    assert_eq!(sandbox.opened().len(), 1);
}

#[test]
fn a_token_that_runs_out_is_renewed_with_one_request_and_no_browser() {
    let provider = Provider::start();
    // Less than the 90 s that a token must have left to be handed out.
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
    let output = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(output.stderr, "");
    let requests: Vec<Endpoint> = provider.all_requests().iter().map(|(endpoint, _)| *endpoint).collect();
    assert_eq!(requests, [Endpoint::Token]);
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
    let again = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(again.token(), output.token());
    assert_eq!(provider.all_requests().len(), 1);
}

#[test]
fn a_refused_refresh_without_anybody_there_exits_3() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.revoke_everything();
    let output = sandbox.get_token(&provider).exec_info("v1", false).arg("--interactive=never").run();
    assert_eq!(output.code, 3, "{output}");
    assert_eq!(output.stdout, "");
    assert_snapshot!(output, @"
    exit 3
    stderr:
    kubectl-headlamp: note: you need to sign in again: the provider refused the refresh token: `invalid_grant`
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: `--interactive=never` is set

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn a_refused_refresh_leads_to_one_new_sign_in() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.revoke_everything();
    provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
    let output = sandbox.get_token(&provider).exec_info("v1", false).run();
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: note: you need to sign in again: the provider refused the refresh token: `invalid_grant`
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]
    "#);
    assert_eq!(sandbox.opened().len(), 2);
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(provider.grants_alive(), 1);
}

#[test]
fn a_provider_that_cannot_be_reached_is_no_reason_to_open_a_browser_or_to_forget_a_token() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.go_down();
    let meanwhile = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert!(meanwhile.stderr.contains("the token could not be renewed and is good for another"), "{meanwhile}");
    let output = sandbox.get_token(&provider).exec_info("v1", false).arg("--force-refresh").run();
    assert_eq!(output.code, 6, "{output}");
    assert_eq!(output.stdout, "");
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
    provider.come_up();
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn a_provider_in_trouble_is_asked_again_and_not_taken_for_a_refusal() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.script(Endpoint::Token, Answer::json(503, &serde_json::json!({"error": "temporarily_unavailable"})));
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 2);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn a_refresh_whose_answer_is_lost_is_repeated() {
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.id_token_lifetime = 60;
        behaviour.rotates = false;
    });
    let sandbox = signed_in(&provider);
    provider.script(Endpoint::Token, Answer::lost());
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 2);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn a_replaced_refresh_token_whose_answer_is_lost_costs_one_sign_in() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    provider.script(Endpoint::Token, Answer::lost());
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    // The provider takes the repetition for a theft: nobody has the token that it gave.
    assert_eq!(sandbox.opened().len(), 2);
    provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(sandbox.opened().len(), 2, "the new session is renewed as ever");
}

#[test]
fn id_tokens_of_every_usual_algorithm_are_accepted() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256] {
        let provider = Provider::start();
        provider.set(|behaviour| behaviour.algorithm = algorithm);
        let sandbox = Sandbox::new(BINARY);
        let output = sandbox.get_token(&provider).run();
        assert_eq!(output.code, 0, "{}: {output}", algorithm.name());
    }
}

#[test]
fn a_provider_with_tls_and_a_path_in_its_issuer_is_a_provider_like_any_other() {
    let provider = Provider::builder().https().path("/realms/dev").start();
    let sandbox = signed_in(&provider);
    assert!(provider.issuer().starts_with("https://") && provider.issuer().ends_with("/realms/dev"));
    let output = sandbox.get_token(&provider).arg("--force-refresh").exec_info("v1", false).run().succeeded();
    assert_eq!(output.stderr, "");
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
}
