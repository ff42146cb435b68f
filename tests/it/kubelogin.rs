//! An entry that was written for kubelogin works when only its command changes.

use std::net::TcpListener;

use headlamp_test_support::{Endpoint, Play, Provider, Run, Sandbox};
use insta::assert_snapshot;

use crate::BINARY;

/// An entry of kubelogin's for this provider, with these arguments, run by our command.
fn entry<'a>(sandbox: &'a Sandbox, provider: &Provider, more: &[&str]) -> Run<'a> {
    sandbox.know(provider);
    let issuer = format!("--oidc-issuer-url={}", provider.issuer());
    let words = ["oidc-login", "get-token", &issuer, "--oidc-client-id=kubernetes", "--listen-address=127.0.0.1:0"];
    sandbox.command(words).args(more).exec_info("v1", false)
}

/// The authorization request that this entry comes to, with its value joined and apart.
fn asked(more: &[&str], check: impl Fn(&headlamp_test_support::Request)) {
    let apart: Vec<&str> = more.iter().flat_map(|word| word.splitn(2, '=')).collect();
    for arguments in [more, &apart] {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        let _ = entry(&sandbox, &provider, arguments).run().succeeded();
        check(&provider.requests(Endpoint::Authorize)[0]);
    }
}

#[test]
fn scopes_parameters_and_the_redirect_are_honoured() {
    asked(&["--oidc-extra-scope=email,groups", "--oidc-extra-scope=profile"], |request| {
        let scope = request.parameter("scope").unwrap();
        for scope_name in ["openid", "email", "groups", "profile"] {
            assert!(scope.split(' ').any(|scope| scope == scope_name), "{scope}");
        }
    });
    asked(&["--oidc-auth-request-extra-params=ttl=86400,reauth=false"], |request| {
        assert_eq!(request.parameter("ttl").as_deref(), Some("86400"));
        assert_eq!(request.parameter("reauth").as_deref(), Some("false"));
    });
    asked(&["--oidc-request-header=x-team=blue"], |_| {});
    asked(&["--oidc-redirect-url=http://127.0.0.1:0/oidc-callback"], |request| {
        assert!(request.parameter("redirect_uri").unwrap().starts_with("http://127.0.0.1:"));
    });
    asked(&[], |request| {
        let redirect = request.parameter("redirect_uri").unwrap();
        let port = redirect.strip_prefix("http://localhost:").unwrap();
        assert!(port.parse::<u16>().is_ok(), "no path: {redirect}");
    });
}

#[test]
fn headers_secret_token_type_and_folder_are_honoured() {
    let secret = "a-secret-of-kubelogins";
    for joined in [true, false] {
        let provider = Provider::start();
        provider.set(|behaviour| behaviour.client_secret = Some(secret.into()));
        let sandbox = Sandbox::new(BINARY);
        let cache = sandbox.cache_folder().join("theirs");
        let folder = format!("--token-cache-dir={}", cache.display());
        let secret = format!("--oidc-client-secret={secret}");
        let values = [
            secret.as_str(),
            "--oidc-request-header=x-team=blue,x-place=here",
            &folder,
            "--token-cache-storage=disk",
            "--v=1",
        ];
        let words: Vec<&str> = values.iter().flat_map(|word| word.splitn(if joined { 1 } else { 2 }, '=')).collect();
        let output = entry(&sandbox, &provider, &words).arg("--oidc-use-access-token").run().succeeded();
        let request = &provider.token_requests("authorization_code")[0];
        assert_eq!((request.header("x-team"), request.header("x-place")), (Some("blue"), Some("here")));
        let access = headlamp_test_support::SecretKind::AccessToken;
        assert!(provider.issued().iter().any(|issued| issued.kind == access && issued.value == output.token()));
        assert!(output.stderr.contains("discovering"), "steps are told: {output}");
        assert!(cache.is_dir());
    }
}

#[test]
fn password_device_and_client_credentials_are_chosen_by_their_names() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.client_secret = Some("a-secret-of-kubelogins".into()));
    let run = |words: &[&str]| {
        let sandbox = Sandbox::new(BINARY);
        provider.forget_requests();
        let _ = entry(&sandbox, &provider, words).arg("--oidc-client-secret=a-secret-of-kubelogins").run().succeeded();
        provider.requests(Endpoint::Token)[0].parameter("grant_type").unwrap()
    };
    let person = ["--username=jane@example.com", "--password=correct horse battery staple"];
    assert_eq!(run(&person), "password");
    assert_eq!(run(&[&person[..], &["--grant-type=password"]].concat()), "password");
    assert_eq!(run(&["--grant-type=client-credentials", "--oidc-use-access-token"]), "client_credentials");
    let device = ["--grant-type=device-code", "--interactive=always"];
    assert_eq!(run(&device), "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!(run(&["--grant-type=authcode"]), "authorization_code");
    assert_eq!(run(&["--grant-type", "auto"]), "authorization_code");
}

#[test]
fn storage_none_leaves_no_file() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    for _ in 0..2 {
        let _ = entry(&sandbox, &provider, &["--token-cache-storage", "none"]).run().succeeded();
    }
    assert_eq!(provider.token_requests("authorization_code").len(), 2);
    assert_eq!(sandbox.cache_files(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn the_time_limit_and_no_browser_are_honoured() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let output =
        entry(&sandbox, &provider, &["--authentication-timeout-sec=1", "--skip-open-browser", "--interactive=always"]);
    let output = output.run();
    assert_eq!(output.code, 4, "{output}");
    assert!(output.stderr.starts_with("Open this address in a browser on this machine to sign in to"), "{output}");
    assert!(output.stderr.contains("not finished within 1 s"), "{output}");
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn where_no_address_is_named_kubelogins_two_ports_are_tried_and_without_a_path() {
    // Whoever has the ports on this machine, the sign-in does not leave these two.
    let holders = [8000, 18000].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&provider);
    let issuer = format!("--oidc-issuer-url={}", provider.issuer());
    let run = || sandbox.command(["get-token", &issuer, "--oidc-client-id=kubernetes"]).run();
    let output = run();
    assert_eq!(output.code, 4, "{output}");
    assert!(
        output.stderr.starts_with("kubectl-headlamp: error: cannot wait for the browser's answer on port 8000, 18000")
    );
    let [_, second] = holders;
    let Ok(second) = second else { return };
    drop(second);
    let output = sandbox.command(["login", &format!("--issuer-url={}", provider.issuer()), "--client-id=kubernetes"]);
    let output = output.run();
    assert!(output.stderr.contains("on port 8000\n"), "ours is one port: {output}");
    let words = ["get-token", &issuer, "--oidc-client-id=kubernetes", "--oidc-extra-scope=email", "--hide-url"];
    let _ = sandbox.command(words).run().succeeded();
    let redirect = provider.requests(Endpoint::Authorize)[0].parameter("redirect_uri").unwrap();
    assert_eq!(redirect, "http://localhost:18000");
}

#[test]
fn what_has_no_effect_is_said_and_the_sign_in_goes_on() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let words = [
        "--oidc-pkce-method=no",
        "--oidc-use-pkce",
        "--tls-renegotiation-once",
        "--tls-renegotiation-freely=false",
        "--vmodule=a=1",
        "--log_file",
        "/nowhere",
        "--logtostderr",
        "--hide-url",
    ];
    assert_snapshot!(entry(&sandbox, &provider, &words).run(), @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: note: `--oidc-pkce-method` has no effect: PKCE with S256 is always used
    kubectl-headlamp: note: `--tls-renegotiation-once` has no effect: TLS renegotiation is not supported: it is gone from TLS 1.3 and was never safe before
    kubectl-headlamp: note: `--vmodule` has no effect: `-v` and `-v=2` tell what is done, on stderr
    kubectl-headlamp: note: `--log_file` has no effect: `-v` and `-v=2` tell what is done, on stderr
    kubectl-headlamp: note: `--logtostderr` has no effect: `-v` and `-v=2` tell what is done, on stderr
    "#);
    let request = &provider.requests(Endpoint::Authorize)[0];
    assert_eq!(request.parameter("code_challenge_method").as_deref(), Some("S256"));
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(entry(&sandbox, &provider, &["--token-cache-storage=keyring"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--token-cache-storage=keyring` is not supported yet

    hint: use `--token-storage=file`, which only you can read, or `--token-storage=none`
    ");
    assert_snapshot!(entry(&sandbox, &provider, &["--listen-address=0.0.0.0:8000"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--listen-address` is not this machine's loopback: `0.0.0.0:8000`

    hint: others could answer or read the sign-in there; for containers and SSH use `--flow paste` or `--flow device`
    ");
    assert_snapshot!(entry(&sandbox, &provider, &["--grant-type=magic"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--grant-type` is auto, authcode, authcode-keyboard, password, device-code or client-credentials, not `magic`
    ");
    assert_snapshot!(entry(&sandbox, &provider, &["--oidc-auth-request-extra-params=state=x"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--auth-param` cannot set `state`: the sign-in itself needs it
    ");
    assert_snapshot!(entry(&sandbox, &provider, &["--local-server-cert=/a.pem"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--callback-certificate` needs `--callback-key` beside it
    ");
}

#[test]
fn files_and_data_of_authorities_may_be_lists() {
    let provider = Provider::builder().https().start();
    let sandbox = Sandbox::new(BINARY);
    let other = headlamp_test_support::Authority::new("another CA");
    let [one, two] =
        [("one.pem", other.pem()), ("two.pem", provider.ca_pem().unwrap())].map(|(name, pem)| sandbox.write(name, pem));
    let list = format!("{},{}", one.display(), two.display());
    for words in [vec![format!("--certificate-authority={list}")], vec!["--certificate-authority".into(), list]] {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--force-refresh"]).collect();
        let _ = entry(&sandbox, &provider, &words).run().succeeded();
    }
}
