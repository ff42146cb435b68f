//! Entra ID and AKS, at their real addresses: a proxy leads to a double.

use std::collections::BTreeSet;

use headlamp_test_support::{AccessTokens, ConnectProxy, Endpoint, Provider, Run, Sandbox};
use insta::assert_snapshot;
use serde_json::json;

use crate::BINARY;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const AKS: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// Entra ID for this tenant (or word), whose access tokens are version 1's.
fn entra(tenant: &str) -> Provider {
    let provider = Provider::builder().known_as(&format!("https://login.microsoftonline.com/{tenant}/v2.0")).start();
    provider.set(|behaviour| {
        behaviour.access_tokens = AccessTokens::Jwt;
        behaviour.issuer_in_answer = false;
    });
    provider.edit_access_claims(|claims| {
        claims.insert("iss".into(), json!(format!("https://sts.windows.net/{TENANT}/")));
        claims.insert("aud".into(), json!(AKS));
    });
    provider
}

/// `get-token` with the preset and these arguments.
fn get_token<'a>(sandbox: &'a Sandbox, provider: &Provider, proxy: &ConnectProxy, arguments: &[&str]) -> Run<'a> {
    sandbox.know(provider);
    let authority = sandbox.write("entra.pem", provider.ca_pem().unwrap());
    let flags =
        ["get-token", "--provider=entra", "--client-id=kubernetes", "--listen-address=localhost:0", "--hide-url"];
    let run = sandbox.command(flags).arg("--certificate-authority").arg(authority);
    run.args(arguments).env("HTTPS_PROXY", proxy.url())
}

#[test]
fn the_preset_asks_for_the_token_that_aks_takes_and_hands_it_out() {
    let provider = entra(TENANT);
    let proxy = ConnectProxy::to(provider.port());
    let sandbox = Sandbox::new(BINARY);
    let tenant = format!("--tenant={TENANT}");
    let output = get_token(&sandbox, &provider, &proxy, &[&tenant, "--aks"]).run().succeeded();
    assert_eq!(output.stderr, "");
    let access = |token: &headlamp_test_support::Secret| token.kind == headlamp_test_support::SecretKind::AccessToken;
    let issued = provider.issued().into_iter().find(access).unwrap();
    assert_eq!(output.token(), issued.value, "the access token, not the ID token");
    let scope = provider.requests(Endpoint::Authorize)[0].parameter("scope").unwrap();
    let scopes: BTreeSet<&str> = scope.split(' ').collect();
    let expected = BTreeSet::from(
        [&*format!("{AKS}/user.read"), "email", "offline_access", "openid", "profile"].map(str::to_owned),
    );
    assert_eq!(scopes.iter().map(|&scope| scope.to_owned()).collect::<BTreeSet<_>>(), expected);
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.target == "login.microsoftonline.com:443"));
    provider.forget_requests();
    let again = get_token(&sandbox, &provider, &proxy, &[&tenant, "--aks"]).run().succeeded();
    assert_eq!((again.token(), provider.all_requests().len()), (output.token(), 0));
    let renewed = get_token(&sandbox, &provider, &proxy, &[&tenant, "--aks", "--force-refresh"]).run().succeeded();
    assert_ne!(renewed.token(), output.token());
    let refresh = provider.token_requests("refresh_token").pop().unwrap();
    assert!(refresh.parameter("scope").is_some(), "Entra ID wants the scopes again");
}

#[test]
fn without_aks_the_id_token_is_handed_out() {
    let provider = entra(TENANT);
    let proxy = ConnectProxy::to(provider.port());
    let sandbox = Sandbox::new(BINARY);
    let tenant = format!("--tenant={TENANT}");
    let output = get_token(&sandbox, &provider, &proxy, &[&tenant]).run().succeeded();
    let id = |token: &headlamp_test_support::Secret| token.kind == headlamp_test_support::SecretKind::IdToken;
    assert_eq!(output.token(), provider.issued().into_iter().find(id).unwrap().value);
}

#[test]
fn an_access_token_that_aks_would_refuse_is_explained() {
    let tenant = format!("--tenant={TENANT}");
    for (claim, value) in [("aud", "00000003-0000-0000-c000-000000000000"), ("iss", "https://sts.windows.net/other/")] {
        let provider = entra(TENANT);
        provider.edit_access_claims(move |claims| {
            claims.insert("iss".into(), json!(format!("https://sts.windows.net/{TENANT}/")));
            claims.insert("aud".into(), json!(AKS));
            claims.insert(claim.into(), json!(value));
        });
        let proxy = ConnectProxy::to(provider.port());
        let sandbox = Sandbox::new(BINARY);
        let output = get_token(&sandbox, &provider, &proxy, &[&tenant, "--aks"]).run();
        assert_eq!((output.code, output.stdout.as_str()), (4, ""));
        if claim == "aud" {
            assert_snapshot!(output, @"
            exit 4
            stderr:
            kubectl-headlamp: error: the access token is not one that the cluster takes
              caused by: its audience is not `6dae42f8-4368-4678-94ff-3960e28e3630` but `00000003-0000-0000-c000-000000000000`

            hint: ask for a scope of the AKS server, and of no other API: `--scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read`
            hint: to try again at once, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes --scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read,email,offline_access,profile`
            ");
        } else {
            assert_snapshot!(output, @"
            exit 4
            stderr:
            kubectl-headlamp: error: the access token is not one that the cluster takes
              caused by: its issuer is not `https://sts.windows.net/11111111-2222-3333-4444-555555555555/` but `https://sts.windows.net/other/`

            hint: if the cluster takes tokens of that issuer: `--token-issuer https://sts.windows.net/other/`
            hint: to try again at once, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes --scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read,email,offline_access,profile`
            ");
        }
        let name = |file: &std::path::PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(sandbox.cache_files().iter().all(|file| name(file).len() != 64 || file.extension().unwrap() == "lock"));
    }
}

#[test]
fn a_word_for_all_tenants_is_answered_by_one_whose_number_is_checked() {
    for (number, expected) in [(TENANT, 0), ("99999999-2222-3333-4444-555555555555", 4)] {
        let sandbox = Sandbox::new(BINARY);
        let provider = entra("common");
        let proxy = ConnectProxy::to(provider.port());
        provider.edit_discovery(|document| {
            let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
            document.insert("issuer".into(), json!(template));
        });
        provider.edit_claims(move |claims| {
            claims.insert("iss".into(), json!(format!("https://login.microsoftonline.com/{TENANT}/v2.0")));
            claims.insert("tid".into(), json!(number));
        });
        let output = get_token(&sandbox, &provider, &proxy, &["--tenant=common"]).run();
        assert_eq!(output.code, expected, "{output}");
        if expected == 4 {
            assert_snapshot!(output, @"
            exit 4
            stderr:
            kubectl-headlamp: error: the provider's ID token is not accepted
              caused by: its issuer is not `https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0` but `https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0`

            hint: you signed in to the tenant `11111111-2222-3333-4444-555555555555`: take an account of the configured one, `kubectl headlamp login --prompt select_account`, or name that tenant, `--tenant 11111111-2222-3333-4444-555555555555`
            hint: to try again at once, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes`
            ");
        }
    }
}
