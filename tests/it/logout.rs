//! `logout`: the provider is told, and nothing of the tokens stays.

use headlamp_test_support::{Answer, Endpoint, Provider, RefreshTokens, Sandbox};
use insta::assert_snapshot;

use crate::BINARY;
use crate::login::{kubeconfig, user};

/// A sandbox where somebody is signed in to each of these providers.
fn signed_in(providers: &[&Provider]) -> Sandbox {
    let sandbox = Sandbox::new(BINARY);
    let names = ["one", "two"];
    let users: Vec<_> =
        names.iter().zip(providers).map(|(name, provider)| (*name, user(&sandbox, provider, &[]))).collect();
    sandbox.write_kubeconfig(&kubeconfig(&users));
    for (name, provider) in names.iter().zip(providers) {
        let _ = sandbox.command(["login", "--context", name]).run().succeeded();
        provider.forget_requests();
    }
    sandbox
}

/// What was revoked, in order.
fn revoked(provider: &Provider) -> Vec<String> {
    let hint = |request: &headlamp_test_support::Request| request.parameter("token_type_hint").unwrap_or_default();
    provider.requests(Endpoint::Revocation).iter().map(hint).collect()
}

/// Files that hold tokens.
fn entries(sandbox: &Sandbox) -> usize {
    let is_entry = |path: &&std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.strip_suffix(".json").is_some_and(|key| key.len() == 64)
    };
    sandbox.cache_files().iter().filter(is_entry).count()
}

#[test]
fn the_refresh_token_is_revoked_then_the_access_token_and_the_files_go() {
    let provider = Provider::start();
    let sandbox = signed_in(&[&provider]);
    assert_eq!(provider.grants_alive(), 1);
    assert_snapshot!(sandbox.command(["logout"]).run(), @"
    exit 0
    stderr:
    signed out of [ISSUER] as Jane Doe (jane@example.com): tokens revoked and deleted
    ");
    assert_eq!(revoked(&provider), ["refresh_token", "access_token"]);
    assert_eq!((provider.grants_alive(), entries(&sandbox)), (0, 0));
    assert_snapshot!(sandbox.command(["logout"]).run(), @"
    exit 0
    stderr:
    no tokens of [ISSUER] were kept
    ");
    assert_eq!(sandbox.command(["status"]).run().code, 3);
}

#[test]
fn a_provider_that_cannot_revoke_is_told_of() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.revocation = false);
    let sandbox = signed_in(&[&provider]);
    assert_snapshot!(sandbox.command(["logout"]).run(), @"
    exit 0
    stderr:
    signed out of [ISSUER] as Jane Doe (jane@example.com): tokens deleted; the provider cannot revoke them, so a copy would be good until they end
    ");
    assert_eq!(entries(&sandbox), 0);
}

#[test]
fn a_revocation_that_fails_is_a_warning_and_the_files_go() {
    let provider = Provider::start();
    let sandbox = signed_in(&[&provider]);
    provider.script(Endpoint::Revocation, Answer::error("invalid_request", "not today"));
    assert_snapshot!(sandbox.command(["logout"]).run(), @"
    exit 0
    stderr:
    kubectl-headlamp: warning: the tokens could not be revoked, so a copy would be good until they end: the provider refused it: the provider says `invalid_request`: not today
    signed out of [ISSUER] as Jane Doe (jane@example.com): tokens deleted
    ");
    assert_eq!(entries(&sandbox), 0);
    let sandbox = signed_in(&[&provider]);
    provider.go_down();
    sandbox.call(&provider.port().to_string(), "[PORT]");
    assert_snapshot!(sandbox.command(["logout"]).run(), @"
    exit 0
    stderr:
    kubectl-headlamp: warning: the tokens could not be revoked, so a copy would be good until they end: no answer from `[ISSUER]/revoke`: connection refused: nothing listens on port [PORT] of `127.0.0.1`
    signed out of [ISSUER] as Jane Doe (jane@example.com): tokens deleted
    ");
    assert_eq!(entries(&sandbox), 0);
}

#[test]
fn an_access_token_that_nobody_keeps_track_of_is_no_failure() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.refresh_tokens = RefreshTokens::Never);
    let sandbox = signed_in(&[&provider]);
    provider.script(Endpoint::Revocation, Answer::error("unsupported_token_type", "not these"));
    let output = sandbox.command(["logout"]).run().succeeded();
    assert!(!output.stderr.contains("warning"), "{output}");
    assert_eq!(revoked(&provider), ["access_token"]);
}

#[test]
fn one_context_or_all_of_them_and_files_of_others_stay() {
    let [one, two] = [Provider::start(), Provider::start()];
    let sandbox = signed_in(&[&one, &two]);
    sandbox.call(two.issuer(), "[OTHER ISSUER]");
    let foreign = sandbox.write(sandbox.cache_folder().join("notes.txt"), "mine");
    let _ = sandbox.command(["logout", "--context=two"]).run().succeeded();
    assert_eq!((one.grants_alive(), two.grants_alive(), entries(&sandbox)), (1, 0, 1));
    let _ = sandbox.command(["login", "--context=two"]).run().succeeded();
    let output = sandbox.command(["logout", "--all"]).run().succeeded();
    assert_eq!(output.stderr.matches(": tokens revoked and deleted").count(), 2, "{output}");
    assert_eq!((one.grants_alive(), two.grants_alive(), entries(&sandbox)), (0, 0, 0));
    assert!(foreign.is_file());
    assert_snapshot!(sandbox.command(["logout", "--all"]).run(), @"
    exit 0
    stderr:
    no tokens were kept
    ");
}
