//! The way to the provider: certificates, proxies, and what goes along on it.

use headlamp_test_support::{Authority, ConnectProxy, Output, Provider, Run, Sandbox};
use insta::assert_snapshot;

use crate::BINARY;

/// `get-token` by password, so that no browser is needed, with this certificate authority.
fn by_password<'a>(sandbox: &'a Sandbox, provider: &Provider) -> Run<'a> {
    sandbox.know(provider);
    let password = sandbox.write("password", "correct horse battery staple");
    let run =
        sandbox.command(["get-token", "--client-id=kubernetes", "--flow=password", "--username=jane@example.com"]);
    run.args(["--issuer-url", provider.issuer()]).arg("--password-file").arg(password)
}

#[test]
fn a_certificate_is_shown_to_a_provider_that_wants_one() {
    let provider = Provider::builder().mutual_tls().start();
    let sandbox = Sandbox::new(BINARY);
    let certificate = provider.client_certificate();
    let files = [
        ("certificate-authority", provider.ca_pem().unwrap()),
        ("client-certificate", certificate.pem.clone()),
        ("client-key", certificate.key_pem.clone()),
    ];
    let run = files.iter().fold(by_password(&sandbox, &provider), |run, (flag, pem)| {
        run.arg(format!("--{flag}={}", sandbox.write(flag, pem).display()))
    });
    let _ = run.run().succeeded();
}

#[test]
fn further_authorities_are_trusted_beside_the_systems() {
    let provider = Provider::builder().https().start();
    let sandbox = Sandbox::new(BINARY);
    let own = sandbox.write("own.pem", provider.ca_pem().unwrap());
    let other = sandbox.write("other.pem", Authority::new("another CA").pem());
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, provider.ca_pem().unwrap());
    let run =
        || by_password(&sandbox, &provider).arg("--token-storage=none").arg("--certificate-authority").arg(&other);
    assert_eq!(run().run().code, 6);
    let _ = run().arg("--certificate-authority").arg(&own).run().succeeded();
    let _ = run().arg("--certificate-authority-data").arg(&data).run().succeeded();
    // The system's roots are those of this variable, where there is one.
    if cfg!(target_os = "linux") {
        let _ = run().env("SSL_CERT_FILE", &own).run().succeeded();
    }
}

#[test]
fn trust_in_whoever_answers_is_warned_of_every_time() {
    let provider = Provider::builder().https().start();
    let sandbox = Sandbox::new(BINARY);
    let run = || by_password(&sandbox, &provider).arg("--insecure-skip-tls-verify").exec_info("v1", false).run();
    let warned = |output: &Output| {
        let warning = "warning: the provider's certificate is not verified: anyone on the way can take your tokens";
        output.code == 0 && output.stderr.contains(warning)
    };
    assert!(warned(&run()), "the sign-in");
    provider.forget_requests();
    let hit = run();
    assert_eq!(provider.all_requests().len(), 0);
    assert_snapshot!(hit, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: warning: the provider's certificate is not verified: anyone on the way can take your tokens (`--insecure-skip-tls-verify`)
    "#);
    // Tokens of an unverified provider are never handed to who verifies it.
    let verified = by_password(&sandbox, &provider).run();
    assert_eq!(verified.code, 6, "{verified}");
}

#[test]
fn a_proxy_is_used_for_other_machines_unless_it_is_told_not_to() {
    let provider = Provider::builder().known_as("https://id.example.com").start();
    let proxy = ConnectProxy::to(provider.port());
    let sandbox = Sandbox::new(BINARY);
    let authority = sandbox.write("ca.pem", provider.ca_pem().unwrap());
    let run =
        || by_password(&sandbox, &provider).arg("--token-storage=none").arg("--certificate-authority").arg(&authority);
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let before = proxy.tunnels().len();
        let _ = run().env(variable, proxy.url()).run().succeeded();
        assert!(proxy.tunnels().len() > before, "{variable}");
    }
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.target == "id.example.com:443"));
    let before = proxy.tunnels().len();
    let direct = run().env("HTTPS_PROXY", proxy.url()).env("NO_PROXY", "other.example.com,.example.com").run();
    assert_eq!((direct.code, proxy.tunnels().len()), (6, before), "{direct}");
    let with_password = proxy.url().replace("http://", "http://jane:hunter2-hunter2@");
    let output = run().env("HTTPS_PROXY", with_password).arg("-v=2").run().succeeded();
    assert!(!output.stderr.contains("hunter2"), "{output}");
    let shown = proxy.tunnels().pop().unwrap().authorization;
    assert_eq!(shown.as_deref(), Some("Basic amFuZTpodW50ZXIyLWh1bnRlcjI="));
}

#[test]
fn loopback_is_never_proxied() {
    let provider = Provider::builder().https().start();
    let proxy = ConnectProxy::refusing(403);
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider);
    let _ = run.env("HTTPS_PROXY", proxy.url()).env("HTTP_PROXY", proxy.url()).run().succeeded();
    assert_eq!(proxy.tunnels(), []);
}

#[test]
fn variables_that_hold_secrets_do_not_reach_the_browsers_program() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.client_secret = Some("a-secret-in-a-variable".into()));
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).env("KUBECTL_HEADLAMP_CLIENT_SECRET", "a-secret-in-a-variable");
    let _ = run.env("KUBECTL_HEADLAMP_TIMEOUT", "2m").env("LANG", "C").exec_info("v1", false).run().succeeded();
    let seen = std::fs::read_to_string(sandbox.path("browser/environment")).unwrap();
    assert!(seen.contains("LANG"), "{seen}");
    assert!(!seen.contains("KUBECTL_HEADLAMP_") && !seen.contains("KUBERNETES_EXEC_INFO"), "{seen}");
}
