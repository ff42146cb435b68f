//! What an error says: each kind, its code, and the hint that mends it. stdout stays empty.

use std::net::TcpListener;

use headlamp_test_support::{
    AccessTokens, Answer, Authority, ConnectProxy, Endpoint, KeptPort, Output, Play, Provider, Response, Run, Sandbox,
    SignIn,
};
use insta::assert_snapshot;
use serde_json::json;

use crate::BINARY;

/// `get-token` with these arguments, where nobody is signed in.
fn get_token<'a>(sandbox: &'a Sandbox, arguments: &str) -> Run<'a> {
    sandbox.command(["get-token"]).args(arguments.split_whitespace())
}

/// The same, run.
fn failed(arguments: &str) -> Output {
    let sandbox = Sandbox::new(BINARY);
    get_token(&sandbox, arguments).run()
}

/// A sign-in with a provider that shows this certificate; the sandbox trusts that authority.
fn against(certificate: headlamp_test_support::Certificate, trusted: &str) -> Output {
    let provider = Provider::builder().certificate(certificate).start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let file = sandbox.write("trusted.pem", trusted);
    sandbox.get_token(&provider).arg("--certificate-authority").arg(file).run()
}

/// A provider that is told of in a browser, and what `get-token` says then.
fn signing_in(change: impl FnOnce(&Provider), more: &[&str]) -> Output {
    let provider = Provider::start();
    change(&provider);
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).args(more).run();
    assert_eq!(output.stdout, "");
    output
}

// Usage: 2.

#[test]
fn a_missing_issuer_is_named() {
    assert_snapshot!(failed("--client-id=c"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: no issuer: `--issuer-url` is missing

    hint: name the provider's issuer: `--issuer-url https://…`
    ");
}

#[test]
fn a_missing_client_is_named() {
    assert_snapshot!(failed("--issuer-url=https://id.example.com"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: no client: `--client-id` is missing

    hint: name the client that is registered with the provider: `--client-id <id>`
    ");
}

#[test]
fn a_missing_tenant_is_named() {
    assert_snapshot!(failed("--provider=entra --client-id=c"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: no tenant: `--tenant` is missing

    hint: the directory (tenant) ID stands on the overview page of the app registration: `--tenant <id>`
    ");
}

#[test]
fn an_unknown_flow_is_answered_with_those_that_are_known() {
    assert_snapshot!(failed("--flow=carrier-pigeon"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: invalid value `carrier-pigeon` for `--flow <FLOW>`

    hint: choose one of `auto`, `browser`, `device`, `paste`, `password`, `client-credentials`
    hint: `kubectl headlamp get-token --help` lists what there is
    ");
}

#[test]
fn a_stray_argument_is_named() {
    assert_snapshot!(failed("--client-id=c stray"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: unexpected argument `stray` found

    hint: `kubectl headlamp get-token --help` lists what there is
    ");
}

#[test]
fn an_unknown_flag_is_answered_with_the_one_that_was_meant() {
    assert_snapshot!(failed("--isuer-url=https://id.example.com"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: unexpected argument `--isuer-url` found

    hint: a similar argument exists: `--issuer-url`
    hint: `kubectl headlamp get-token --help` lists what there is
    ");
}

#[test]
fn an_unknown_command_is_named() {
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(sandbox.command(["lgoin"]).run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: unrecognized subcommand `lgoin`

    hint: a similar subcommand exists: `login`
    hint: `kubectl headlamp --help` lists what there is
    ");
}

#[test]
fn an_issuer_without_tls_is_accepted_on_loopback_only() {
    assert_snapshot!(failed("--issuer-url=http://id.example.com --client-id=c"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--issuer-url` is not https: `http://id.example.com`

    hint: tokens that travel unencrypted can be taken; http is accepted on loopback only
    ");
}

#[test]
fn a_redirect_to_another_machine_is_refused() {
    assert_snapshot!(failed("--issuer-url=https://id.example.com --client-id=c --redirect-url=https://other.example.com/cb"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--redirect-url` leads to another machine: `https://other.example.com/cb`

    hint: if that machine forwards to this one, say where to listen: `--listen-address localhost:[PORT]`
    hint: or finish the sign-in by pasting: `--flow paste`
    ");
}

#[test]
fn a_parameter_of_the_protocol_itself_cannot_be_set() {
    assert_snapshot!(failed("--issuer-url=https://id.example.com --client-id=c --auth-param=state=mine"), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--auth-param` cannot set `state`: the sign-in itself needs it
    ");
}

#[test]
fn one_file_of_a_certificate_and_its_key_is_not_enough() {
    for (one, other) in [
        ("client-certificate", "client-key"),
        ("client-key", "client-certificate"),
        ("callback-certificate", "callback-key"),
        ("callback-key", "callback-certificate"),
    ] {
        let output = failed(&format!("--issuer-url=https://id.example.com --client-id=c --{one}=/a.pem"));
        let expected = format!("kubectl-headlamp: error: `--{one}` needs `--{other}` beside it\n");
        assert_eq!((output.code, output.stderr, output.stdout), (2, expected, String::new()));
    }
}

// Settings: 5.

#[test]
fn a_certificate_authority_that_cannot_be_read_is_named() {
    let sandbox = Sandbox::new(BINARY);
    let line = "--issuer-url=https://id.example.com --client-id=c --certificate-authority";
    let missing = get_token(&sandbox, line).arg(sandbox.path("missing.pem")).run();
    assert_snapshot!(missing, @"
    exit 5
    stderr:
    kubectl-headlamp: error: cannot read the CA certificates in `[SANDBOX]/missing.pem`
      caused by: No such file or directory (os error 2)
    ");
    let garbage = get_token(&sandbox, line).arg(sandbox.write("garbage.pem", "not a certificate")).run();
    assert_snapshot!(garbage, @"
    exit 5
    stderr:
    kubectl-headlamp: error: there is no certificate in `[SANDBOX]/garbage.pem`
      caused by: nothing in it begins with `-----BEGIN CERTIFICATE-----`

    hint: a binary certificate becomes text with `openssl x509 -inform der -in <file> -out <file>.pem`
    ");
}

#[test]
fn certificate_data_that_is_no_base64_is_named() {
    let line = "--issuer-url=https://id.example.com --client-id=c --certificate-authority-data=@@@";
    assert_snapshot!(failed(line), @"
    exit 5
    stderr:
    kubectl-headlamp: error: `--certificate-authority-data` is not base64
      caused by: Invalid symbol 64, offset 0.

    hint: make it with `base64 -w0 <file>`, or name the file: `--certificate-authority <file>`
    ");
}

#[test]
fn a_kubeconfig_that_cannot_be_understood_is_named() {
    let sandbox = Sandbox::new(BINARY);
    sandbox.write("kubeconfig", "users: {");
    assert_snapshot!(sandbox.command(["login"]).run(), @"
    exit 5
    stderr:
    kubectl-headlamp: error: cannot read the kubeconfig `[SANDBOX]/kubeconfig`
      caused by: it is not what a kubeconfig looks like (line 1)

    hint: `kubectl config view --kubeconfig [SANDBOX]/kubeconfig` says what kubectl makes of it
    ");
}

#[test]
fn an_issuer_that_the_provider_does_not_have_is_compared() {
    let output = signing_in(
        |provider| {
            provider
                .edit_discovery(|document| drop(document.insert("issuer".into(), json!("https://other.example.com"))));
        },
        &[],
    );
    assert_snapshot!(output, @"
    exit 5
    stderr:
    kubectl-headlamp: error: the provider at `[ISSUER]` says that it is another one: `https://other.example.com`

    hint: if that is your provider, write its issuer as it does: `--issuer-url https://other.example.com`
    ");
}

#[test]
fn a_page_in_the_place_of_discovery_is_told() {
    let output = signing_in(
        |provider| {
            let page = Response::html(200, "<!doctype html><title>Welcome</title>");
            provider.script(Endpoint::Discovery, Answer::of(page));
        },
        &[],
    );
    assert_snapshot!(output, @"
    exit 5
    stderr:
    kubectl-headlamp: error: `[ISSUER]` does not answer as an OpenID provider
      caused by: what `[ISSUER]/.well-known/openid-configuration` answers cannot be read: it is a web page

    hint: check `--issuer-url`: `[ISSUER]/.well-known/openid-configuration` must show a JSON document
    ");
}

#[test]
fn an_issuer_without_discovery_is_told() {
    let missing = |provider: &Provider| provider.script(Endpoint::Discovery, Answer::of(Response::html(404, "no")));
    assert_snapshot!(signing_in(missing, &[]), @"
    exit 5
    stderr:
    kubectl-headlamp: error: `[ISSUER]` does not answer as an OpenID provider
      caused by: `404 Not Found` from `[ISSUER]/.well-known/openid-configuration`

    hint: check `--issuer-url`: `[ISSUER]/.well-known/openid-configuration` must show a JSON document
    ");
}

// Unreachable: 6.

#[test]
fn a_closed_port_is_told() {
    let provider = Provider::start();
    provider.unused_is_fine();
    provider.go_down();
    let sandbox = Sandbox::new(BINARY);
    sandbox.call(&provider.port().to_string(), "[PORT]");
    assert_snapshot!(sandbox.get_token(&provider).run(), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `http://127.0.0.1:[PORT]/.well-known/openid-configuration`
      caused by: connection refused: nothing listens on port [PORT] of `127.0.0.1`

    hint: check host and port of `--issuer-url`, and that the provider runs
    ");
}

#[test]
fn an_unknown_authority_is_told_with_the_flag_that_names_it() {
    let authority = Authority::new("the company's CA");
    let other = Authority::new("another CA");
    assert_snapshot!(against(authority.server(&["127.0.0.1"]), &other.pem()), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `[ISSUER]/.well-known/openid-configuration`
      caused by: the provider's certificate is signed by an authority that this machine does not trust

    hint: if you know that authority, name its certificate: `--certificate-authority <file>`
    ");
}

#[test]
fn a_certificate_that_signed_itself_is_told() {
    let certificate = Authority::self_signed_server(&["127.0.0.1"]);
    let pem = certificate.pem.clone();
    assert_snapshot!(against(certificate, &pem), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `[ISSUER]/.well-known/openid-configuration`
      caused by: the provider shows the certificate of an authority as its own: a self-signed one, which TLS clients refuse

    hint: give the provider a certificate that an authority has signed, and trust that authority: `--certificate-authority <file>`
    hint: only to try things out: `--insecure-skip-tls-verify`
    ");
}

#[test]
fn an_expired_certificate_is_told_with_both_clocks() {
    let authority = Authority::new("the company's CA");
    let output = against(authority.expired_server(&["127.0.0.1"]), &authority.pem());
    assert_eq!((output.code, output.stdout.as_str()), (6, ""));
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines[1], "  caused by: the provider's certificate has expired: it was good until 2001-12-31T00:00:00Z");
    assert!(lines[3].starts_with("hint: check this machine's clock: `date -u`; it says 2"), "{output}");
    assert_eq!(lines[4], "hint: if that is right, whoever runs the provider must renew its certificate");
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let authority = Authority::new("the company's CA");
    assert_snapshot!(against(authority.server(&["id.example.com"]), &authority.pem()), @r#"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `[ISSUER]/.well-known/openid-configuration`
      caused by: the provider's certificate is for another name: certificate not valid for name "127.0.0.1"; certificate is only valid for DnsName("id.example.com")

    hint: use a name of the certificate in `--issuer-url`, or give the provider a certificate for `127.0.0.1`
    "#);
}

#[test]
fn a_provider_that_wants_a_certificate_of_ours_is_told() {
    let provider = Provider::builder().mutual_tls().start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(sandbox.get_token(&provider).run(), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `[ISSUER]/.well-known/openid-configuration`
      caused by: the provider did not accept our certificate: received fatal alert: CertificateRequired

    hint: give the certificate that it wants: `--client-certificate <file> --client-key <file>`
    ");
}

#[test]
fn a_name_that_nobody_knows_is_told() {
    let output = failed("--issuer-url=https://id.invalid --client-id=c");
    assert_eq!((output.code, output.stdout.as_str()), (6, ""), "{output}");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(
        lines[0],
        "kubectl-headlamp: error: no answer from `https://id.invalid/.well-known/openid-configuration`"
    );
    // Without a network the reason is longer.
    assert!(lines[1].starts_with("  caused by: the name `id.invalid` cannot be resolved"), "{output}");
    assert_eq!(lines[3], "hint: check the name in `--issuer-url`, and that your network and VPN are connected");
}

#[test]
fn a_proxy_that_is_not_there_refuses_or_wants_a_password_is_told() {
    let sandbox = Sandbox::new(BINARY);
    let kept = KeptPort::new();
    let closed = kept.address();
    let through = |proxy: &str| {
        get_token(&sandbox, "--issuer-url=https://id.example.com --client-id=c").env("HTTPS_PROXY", proxy).run()
    };
    assert_snapshot!(through(&format!("http://{closed}")), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `https://id.example.com/.well-known/openid-configuration`
      caused by: the proxy `http://127.0.0.1:[PORT]` of `HTTPS_PROXY` cannot be reached: Connection refused (os error 111)

    hint: correct `HTTPS_PROXY`, or reach `id.example.com` without it: add `id.example.com` to `NO_PROXY`
    ");
    assert_snapshot!(through(&ConnectProxy::refusing(403).url()), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `https://id.example.com/.well-known/openid-configuration`
      caused by: the proxy `http://127.0.0.1:[PORT]` of `HTTPS_PROXY` refuses the connection

    hint: correct `HTTPS_PROXY`, or reach `id.example.com` without it: add `id.example.com` to `NO_PROXY`
    ");
    assert_snapshot!(through(&ConnectProxy::refusing(407).url()), @"
    exit 6
    stderr:
    kubectl-headlamp: error: no answer from `https://id.example.com/.well-known/openid-configuration`
      caused by: the proxy `http://127.0.0.1:[PORT]` of `HTTPS_PROXY` wants a user name and a password

    hint: give them in `HTTPS_PROXY`: `http://<user>:<password>@<host>:<port>`
    ");
    assert_snapshot!(through("ftp://id.example.com"), @"
    exit 5
    stderr:
    kubectl-headlamp: error: `HTTPS_PROXY` is not the address of a proxy

    hint: write it as `http://host:port`, `https://host:port` or `socks5://host:port`, or leave it out
    ");
}

#[test]
fn a_provider_in_trouble_is_told_with_when_to_come_back() {
    let busy = |provider: &Provider| {
        let answer = Response::json(503, &json!({})).header("Retry-After", "120");
        provider.script(Endpoint::Discovery, Answer::of(answer));
    };
    assert_snapshot!(signing_in(busy, &[]), @"
    exit 6
    stderr:
    kubectl-headlamp: error: the provider cannot answer now: `503 Service Unavailable` from `[ISSUER]/.well-known/openid-configuration`
      caused by: it asks to be left alone for 2 min

    hint: try again in 2 min
    ");
}

// The sign-in: 3, 4 and 130.

#[test]
fn a_port_that_is_taken_is_told_with_the_program_that_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&provider);
    let redirect = format!("http://localhost:{port}/oidc-callback");
    let output = sandbox.command([
        "get-token",
        "--issuer-url",
        provider.issuer(),
        "--client-id=kubernetes",
        "--redirect-url",
        &redirect,
    ]);
    let output = output.run();
    assert_eq!((output.code, output.stdout.as_str()), (4, ""), "{output}");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines[0], format!("kubectl-headlamp: error: cannot wait for the browser's answer on port {port}"));
    let process = format!("(process {}) listens there", std::process::id());
    let named = !cfg!(target_os = "linux") || lines[1].contains(&process);
    assert!(lines[1].starts_with(&format!("  caused by: port {port} is taken: ")) && named, "{output}");
    assert_eq!(lines[3], "hint: end that program, then try again");
    assert!(lines[4].contains("`--redirect-url http://localhost:18000/oidc-callback`"), "{output}");
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn a_refusal_in_the_browser_is_told_in_the_providers_words() {
    let denied = |provider: &Provider| {
        provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "the person said no"));
    };
    assert_snapshot!(signing_in(denied, &["--hide-url"]), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider refused the sign-in
      caused by: the provider says `access_denied`: the person said no

    hint: sign in again and agree to what is asked; if you did, whoever runs the provider must let you use this client
    ");
}

#[test]
fn a_sign_in_that_nobody_finishes_ends_on_time() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let output = sandbox.get_token(&provider).args(["--timeout=1s", "--hide-url"]).run();
    assert_snapshot!(output, @"
    exit 4
    stderr:
    kubectl-headlamp: error: the sign-in to `[ISSUER]` was not finished within 1 s

    hint: try again; `--timeout 10m` leaves more time
    ");
    let again = sandbox.get_token(&provider).args(["--timeout=1s", "--hide-url"]).run();
    assert_eq!((again.code, again.stdout.as_str()), (4, ""));
    assert!(again.stderr.contains("nobody is asked again for another"), "{again}");
    assert_eq!(sandbox.opened().len(), 1, "one tab, not two");
}

#[test]
fn where_nobody_is_there_the_command_to_run_is_told() {
    let provider = Provider::start();
    // That nobody is there takes no network to know.
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let ci = sandbox.get_token(&provider).without_env("BROWSER").env("CI", "true").run();
    assert_snapshot!(ci, @"
    exit 3
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: this is a CI job (`CI` is set)

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
    // As cron has it: hardly a variable, and no display.
    let cron = sandbox.get_token(&provider).without_env("BROWSER").run();
    assert_eq!((cron.code, cron.stdout.as_str()), (3, ""), "{cron}");
    assert!(cron.stderr.contains("hint: run `kubectl headlamp login --issuer-url "), "{cron}");
    let never = sandbox.get_token(&provider).arg("--interactive=never").run();
    assert_eq!((never.code, never.stdout.as_str()), (3, ""), "{never}");
    assert_eq!(sandbox.opened().len(), 0);
}

#[cfg(unix)]
#[test]
fn an_interruption_has_its_own_code() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let run = sandbox.get_token(&provider).arg("--hide-url").spawn();
    sandbox.wait_for_browser(1);
    run.interrupt();
    assert_snapshot!(run.wait(), @"
    exit 130
    stderr:
    kubectl-headlamp: error: interrupted
    ");
}

#[test]
fn a_client_that_the_provider_does_not_know_is_told() {
    let secret = |provider: &Provider| {
        provider.set(|behaviour| behaviour.client_secret = Some("the-secret-of-the-client".into()));
    };
    assert_snapshot!(signing_in(secret, &["--hide-url"]), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_client`: the client is not known, or its secret is wrong

    hint: check that `kubernetes` is the client's ID; if the client has a secret, give it with `--client-secret-file <file>`
    ");
    assert_snapshot!(signing_in(secret, &["--hide-url", "--client-secret=another-secret"]), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_client`: the client is not known, or its secret is wrong

    hint: check the client's secret, and how it is sent: `--client-authentication basic` or `post`
    ");
}

#[test]
fn a_token_that_does_not_hold_is_told_with_what_was_compared() {
    let other = |provider: &Provider| {
        provider.edit_claims(|claims| drop(claims.insert("aud".into(), json!("another-client"))));
    };
    assert_snapshot!(signing_in(other, &["--hide-url"]), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider's ID token is not accepted
      caused by: it is not for this client, `kubernetes`, but for `another-client`

    hint: compare `--client-id` with the client that is registered with the provider
    ");
}

// Entra ID.

/// What a sign-in with Entra ID says when its token endpoint answers with this error.
fn entra(error: &'static str, description: &str, number: u32) -> Output {
    let answer = json!({"error": error, "error_description": description, "error_codes": [number]});
    signing_in(
        |provider| provider.script(Endpoint::Token, Answer::json(400, &answer)),
        &["--hide-url", "--provider=entra"],
    )
}

#[test]
fn entras_codes_are_decoded_with_the_step_that_was_skipped() {
    let wrong = "AADSTS7000215: Invalid client secret provided. Trace ID: 0";
    assert_snapshot!(entra("invalid_client", wrong, 7_000_215), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_client`: AADSTS7000215: Invalid client secret provided. Trace ID: 0
      caused by: the client secret is wrong

    hint: step: copy the secret's Value, not its Secret ID, without a line end; or make a new one: `az ad app credential reset --id kubernetes --append --query password -o tsv`
    ");
    let none = "AADSTS7000218: The request body must contain 'client_assertion' or 'client_secret'.";
    assert_snapshot!(entra("invalid_client", none, 7_000_218), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_client`: AADSTS7000218: The request body must contain 'client_assertion' or 'client_secret'.
      caused by: the app registration wants a client secret, and none was sent

    hint: give it one: `--client-secret-file <file>`; or register an address for clients without: `az ad app update --id kubernetes --public-client-redirect-uris http://localhost/kubectl-headlamp --is-fallback-public-client true`
    ");
    let consent = "AADSTS65001: The user or administrator has not consented to use the application.";
    assert_snapshot!(entra("invalid_grant", consent, 65_001), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_grant`: AADSTS65001: The user or administrator has not consented to use the application.
      caused by: nobody has consented to what is asked for, or a scope was added since

    hint: step: grant admin consent: `az ad app permission grant --id kubernetes --api 6dae42f8-4368-4678-94ff-3960e28e3630 --scope user.read`, or open `https://login.microsoftonline.com/<tenant-id>/adminconsent?client_id=kubernetes` as an administrator
    ");
}

#[test]
fn entras_refusals_in_the_browser_are_decoded_too() {
    let blocked = |provider: &Provider| {
        let description = "AADSTS53003: Access has been blocked by Conditional Access policies.";
        provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", description));
    };
    assert_snapshot!(signing_in(blocked, &["--hide-url", "--provider=entra"]), @"
    exit 4
    stderr:
    kubectl-headlamp: error: the provider refused the sign-in
      caused by: the provider says `access_denied`: AADSTS53003: Access has been blocked by Conditional Access policies.
      caused by: Conditional Access forbids this sign-in, often because it is by device code

    hint: use the browser of this machine: `kubectl headlamp login --flow browser`; if that is refused too, Entra ID's sign-in log names the policy (look for Azure Kubernetes Service AAD Server)
    ");
}

#[test]
fn an_access_token_for_another_audience_is_told() {
    let output = signing_in(
        |provider| provider.set(|behaviour| behaviour.access_tokens = AccessTokens::Jwt),
        &["--hide-url", "--token-type=access", "--token-audience=6dae42f8-4368-4678-94ff-3960e28e3630"],
    );
    assert_snapshot!(output, @"
    exit 4
    stderr:
    kubectl-headlamp: error: the access token is not one that the cluster takes
      caused by: its audience is not `6dae42f8-4368-4678-94ff-3960e28e3630` but `https://kubernetes.example.com`

    hint: ask for a scope of the AKS server, and of no other API: `--scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read`
    ");
}

// The clock.

#[test]
fn a_clock_that_is_wrong_is_told_before_what_comes_of_it() {
    let behind = |provider: &Provider| provider.set(|behaviour| behaviour.clock_ahead = -7260);
    assert_snapshot!(signing_in(behind, &["--hide-url"]), @"
    exit 4
    stderr:
    kubectl-headlamp: warning: this machine's clock is 2 h ahead of the provider's: tokens may be refused until it is set
    kubectl-headlamp: error: the provider's ID token is not accepted
      caused by: it ended at [TIME], and this machine's clock says [TIME]

    hint: set this machine's clock if that is not the time: `date -u` shows it
    ");
    let ahead = |provider: &Provider| provider.set(|behaviour| behaviour.clock_ahead = 7260);
    assert_snapshot!(signing_in(ahead, &["--hide-url"]), @"
    exit 4
    stderr:
    kubectl-headlamp: warning: this machine's clock is 2 h behind the provider's: tokens may be refused until it is set
    kubectl-headlamp: error: the provider's ID token is not accepted
      caused by: it is good only from [TIME] on (`iat`), and this machine's clock says [TIME]

    hint: set this machine's clock if that is not the time: `date -u` shows it
    ");
}
