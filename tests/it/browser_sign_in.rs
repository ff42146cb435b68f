//! The sign-in in the browser, as the browser, the provider and everybody else on this machine meet it.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headlamp_test_support::{
    Answer, Authority, Browser, Endpoint, Gate, KeptPort, Launcher, Play, Provider, Request, Sandbox, SignIn,
    wait_until,
};
use insta::assert_snapshot;
use url::Url;

use crate::BINARY;
use crate::by_hand::{Pending, connected, parameter, pending, sent, sent_on, visited, with_parameter, with_redirect};

/// A pending sign-in's browser comes to its end, and so does the sign-in.
fn finish(pending: Pending<'_>) {
    let visit = Browser::new().open(pending.start.as_str()).unwrap();
    assert_eq!(visit.status, 200, "{visit:?}");
    let output = pending.running.wait().succeeded();
    assert!(output.token().starts_with("ey"), "{output}");
}

// What comes to the callback.

#[test]
fn stray_forged_and_malformed_requests_are_turned_away_and_the_sign_in_goes_on() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let (port, state) = (pending.port(), parameter(&sent_on(&pending.start), "state"));
    let callback = format!("/oidc-callback?code=stolen-code&state={state}");
    let wrong = "/oidc-callback?code=stolen-code&state=wrong";
    let host = format!("Host: localhost:{port}\r\n");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let cases: &[(&str, String, u16)] = &[
        ("no state", format!("GET /oidc-callback?code=c HTTP/1.1\r\n{host}"), 400),
        ("a wrong state", format!("GET {wrong} HTTP/1.1\r\n{host}"), 400),
        ("an empty state", format!("GET /oidc-callback?code=c&state= HTTP/1.1\r\n{host}"), 400),
        ("two states", format!("GET {callback}&state={state} HTTP/1.1\r\n{host}"), 400),
        ("two codes", format!("GET {callback}&code=d HTTP/1.1\r\n{host}"), 400),
        ("two issuers", format!("GET {callback}&iss=a&iss=b HTTP/1.1\r\n{host}"), 400),
        ("a code and an error", format!("GET {callback}&error=access_denied HTTP/1.1\r\n{host}"), 400),
        ("a forged refusal", format!("GET /oidc-callback?error=access_denied&state=x HTTP/1.1\r\n{host}"), 400),
        ("nothing", format!("GET /oidc-callback HTTP/1.1\r\n{host}"), 400),
        ("the favicon", format!("GET /favicon.ico HTTP/1.1\r\n{host}"), 404),
        ("the root", format!("GET / HTTP/1.1\r\n{host}"), 404),
        ("two slashes", format!("GET /{callback} HTTP/1.1\r\n{host}"), 404),
        ("a longer path", format!("GET {} HTTP/1.1\r\n{host}", callback.replace('?', "/?")), 404),
        ("an encoded path", format!("GET {} HTTP/1.1\r\n{host}", callback.replace("/o", "/%6F")), 404),
        ("another start", format!("GET /start/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n{host}"), 404),
        ("another end", format!("GET /done/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n{host}"), 404),
        ("HEAD", format!("HEAD {callback} HTTP/1.1\r\n{host}"), 405),
        ("PUT", format!("PUT {callback} HTTP/1.1\r\n{host}Content-Length: 0\r\n"), 405),
        ("DELETE", format!("DELETE {callback} HTTP/1.1\r\n{host}"), 405),
        ("OPTIONS", format!("OPTIONS {callback} HTTP/1.1\r\n{host}Origin: https://evil.example\r\n"), 405),
        ("CONNECT", format!("CONNECT localhost:{port} HTTP/1.1\r\n{host}"), 400),
        ("another host", format!("GET {callback} HTTP/1.1\r\nHost: evil.example\r\n"), 421),
        ("another host at our port", format!("GET {callback} HTTP/1.1\r\nHost: evil.example:{port}\r\n"), 421),
        ("a host of another port", format!("GET {callback} HTTP/1.1\r\nHost: localhost:1\r\n"), 421),
        ("no host", format!("GET {callback} HTTP/1.1\r\n"), 400),
        ("two hosts", format!("GET {callback} HTTP/1.1\r\n{host}Host: evil.example\r\n"), 400),
        ("an absolute form", format!("GET http://localhost:{port}{callback} HTTP/1.1\r\n{host}"), 400),
        ("HTTP/1.0 without a host", format!("GET {callback} HTTP/1.0\r\n"), 400),
        ("a prefetch", format!("GET {callback} HTTP/1.1\r\n{host}Sec-Purpose: prefetch;prerender\r\n"), 503),
        ("an old prefetch", format!("GET {callback} HTTP/1.1\r\n{host}Purpose: prefetch\r\n"), 503),
        ("a page's fetch", format!("GET {wrong} HTTP/1.1\r\n{host}Origin: https://evil.example\r\n"), 400),
        (
            "JSON",
            format!(
                "POST /oidc-callback HTTP/1.1\r\n{host}Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{{}}"
            ),
            415,
        ),
        ("a form of 10 MB", format!("POST /oidc-callback HTTP/1.1\r\n{host}{form}Content-Length: 10000000\r\n"), 413),
        (
            "a form of 99 GB",
            format!("POST /oidc-callback HTTP/1.1\r\n{host}{form}Content-Length: 99999999999\r\n"),
            413,
        ),
        (
            "a form without a state",
            format!("POST /oidc-callback HTTP/1.1\r\n{host}{form}Content-Length: 6\r\n\r\ncode=c"),
            400,
        ),
        ("a long target", format!("GET {callback}&x={} HTTP/1.1\r\n{host}", "x".repeat(10_000)), 414),
        ("a long header", format!("GET {callback} HTTP/1.1\r\n{host}X-Long: {}\r\n", "x".repeat(1_000_000)), 431),
    ];
    for (what, request, status) in cases {
        let request = if request.contains("\r\n\r\n") { request.clone() } else { format!("{request}\r\n") };
        let answer = sent(port, request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{what}: {answer}"
        );
        assert!(!answer.contains(&state), "{what}: {answer}");
    }
    // No HTTP, or none of ours: the connection may just be closed.
    let two_lengths = format!(
        "POST /oidc-callback HTTP/1.1\r\n{host}{form}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    for (what, bytes) in [
        ("two lengths", two_lengths.as_bytes()),
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice()),
        ("a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n".as_slice()),
        ("bytes", b"\0\xff\0\xff\r\n\r\n".as_slice()),
    ] {
        let answer = sent(port, bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    assert_eq!(provider.requests(Endpoint::Token).len(), 0, "no forged code was redeemed");
    assert_eq!(visited(&pending.start), 303, "the start address works until the sign-in ends");
    finish(pending);
    assert_eq!(provider.token_requests("authorization_code").len(), 1);
}

#[test]
fn idle_half_and_endless_connections_do_not_hold_up_a_sign_in() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let port = pending.port();
    let idle: Vec<_> = (0..200).map(|_| connected(port)).collect();
    let half: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connected(port);
            let _ = stream.write_all(b"GET /oidc-callback?code=");
            stream
        })
        .collect();
    let mut endless = connected(port);
    let _ = endless.write_all(format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nX-Endless: ").as_bytes());
    let header = vec![b'x'; 64 * 1024];
    let taken = (0..2048).take_while(|_| endless.write_all(&header).is_ok()).count();
    assert!(taken < 2048, "a header of 128 MiB was read to its end");
    finish(pending);
    drop((idle, half));
}

#[test]
fn a_browser_that_repeats_its_answer_waits_for_the_same_end_and_another_code_comes_too_late() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let answer = pending.answer();
    let gate = Gate::default();
    provider.script(Endpoint::Token, Answer::usual().held_by(&gate));
    let visits: Vec<_> = (0..2)
        .map(|_| {
            let answer = answer.clone();
            std::thread::spawn(move || Browser::new().request("GET", &answer, &[], "").unwrap())
        })
        .collect();
    wait_until(Duration::from_secs(30), "the code to be redeemed", || !provider.requests(Endpoint::Token).is_empty());
    let late = with_parameter(&answer, "code", Some("another-code"));
    assert_eq!(visited(&late), 409);
    gate.open();
    for visit in visits {
        let page = visit.join().unwrap();
        let location = page.headers.iter().find(|(name, _)| name == "location").unwrap();
        assert!(page.status == 303 && location.1.starts_with("/done/"), "{page:?}");
    }
    let _ = pending.running.wait().succeeded();
    assert_eq!(provider.requests(Endpoint::Token).len(), 1);
}

#[test]
fn a_tab_that_is_closed_too_soon_does_not_spoil_the_sign_in() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let answer = pending.answer();
    let gate = Gate::default();
    provider.script(Endpoint::Token, Answer::usual().held_by(&gate));
    let mut tab = connected(pending.port());
    let target = &answer[url::Position::BeforePath..];
    tab.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", pending.port()).as_bytes()).unwrap();
    wait_until(Duration::from_secs(30), "the code to be redeemed", || !provider.requests(Endpoint::Token).is_empty());
    drop(tab);
    gate.open();
    let _ = pending.running.wait().succeeded();
}

#[test]
fn a_code_that_somebody_else_asked_for_is_worth_nothing() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    // Of RFC 7636, appendix B: its verifier is another's.
    let others =
        with_parameter(&sent_on(&pending.start), "code_challenge", Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
    let page = Browser::new().open(sent_on(&others).as_str()).unwrap();
    assert_eq!(page.status, 400);
    assert!(page.body.contains("You are not signed in"), "{}", page.body);
    assert_snapshot!(pending.running.wait(), @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_grant`: the verifier does not fit

    hint: to try again, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes`
    ");
    let entry = |file: &PathBuf| {
        file.extension().is_some_and(|kind| kind == "json") && file.file_stem().is_some_and(|key| key.len() == 64)
    };
    assert!(!sandbox.cache_files().iter().any(entry), "{:?}", sandbox.cache_files());
}

#[test]
fn an_answer_by_form_is_accepted() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).arg("--auth-param=response_mode=form_post").run().succeeded();
    let page = sandbox.visit();
    assert_eq!(page.status, 200);
    assert!(page.url.contains("/done/"), "{}", page.url);
    assert!(page.history.iter().all(|url| !url.contains("code=")), "{:?}", page.history);
    assert_eq!(provider.requests(Endpoint::Authorize)[0].parameter("response_mode").as_deref(), Some("form_post"));
}

// Who answers (RFC 9207).

#[test]
fn an_answer_in_another_providers_name_is_refused() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let answer = with_parameter(&pending.answer(), "iss", Some("https://evil.example"));
    let page = Browser::new().open(answer.as_str()).unwrap();
    assert_eq!(page.status, 400);
    assert!(page.body.contains("another provider"), "{}", page.body);
    assert_snapshot!(pending.running.wait(), @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the answer to the sign-in came from another provider
      caused by: it names `https://evil.example`, and `[ISSUER]` was asked

    hint: to try again, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes`
    ");
    assert_eq!(provider.requests(Endpoint::Token).len(), 0);
}

#[test]
fn an_answer_without_the_name_that_was_promised_is_refused() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider));
    let answer = with_parameter(&pending.answer(), "iss", None);
    assert_eq!(Browser::new().open(answer.as_str()).unwrap().status, 400);
    assert_snapshot!(pending.running.wait(), @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the answer to the sign-in does not say which provider it is from
      caused by: `[ISSUER]` promises to name itself (`iss`), and the answer does not

    hint: to try again, run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes`
    ");
    assert_eq!(provider.requests(Endpoint::Token).len(), 0);
}

#[test]
fn a_provider_that_promises_no_name_needs_none() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.issuer_in_answer = false);
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).run().succeeded();
    assert!(sandbox.visit().history.iter().all(|url| !url.contains("iss=")));
}

// What the browser is shown.

#[test]
fn a_refused_sign_in_says_the_same_in_the_browser_and_in_the_terminal() {
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.sign_in = SignIn::Denied("access_denied", "<b>Jane</b>\u{1b}[2J said no");
    });
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).run();
    assert_snapshot!(output, @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the provider refused the sign-in
      caused by: the provider says `access_denied`: <b>Jane</b>[2J said no

    hint: sign in again and agree to what is asked; if you did, whoever runs the provider must let you use this client
    ");
    let page = sandbox.visit();
    assert_eq!(page.status, 400);
    for part in ["You are not signed in", "the provider refused the sign-in", "&lt;b&gt;Jane&lt;/b&gt;"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(!page.body.contains(['\u{1b}']) && !page.body.contains("<b>"), "{}", page.body);
    assert_eq!(provider.requests(Endpoint::Token).len(), 0);
}

#[test]
fn a_code_that_the_provider_does_not_take_is_shown_as_a_failure() {
    let provider = Provider::start();
    provider.script(Endpoint::Token, Answer::error("invalid_client", "the secret is wrong"));
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).run();
    assert_snapshot!(output, @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the provider gave no token for the code
      caused by: the provider says `invalid_client`: the secret is wrong

    hint: check that `kubernetes` is the client's ID; if the client has a secret, give it with `--client-secret-file <file>`
    ");
    let page = sandbox.visit();
    assert_eq!(page.status, 400);
    assert!(page.body.contains("You are not signed in"), "{}", page.body);
}

#[test]
fn the_page_keeps_the_code_to_itself() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).run().succeeded();
    let page = sandbox.visit();
    assert!(Url::parse(&page.url).unwrap().path().starts_with("/done/"), "{}", page.url);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none';"), "{page:?}");
    assert_eq!(page.header("access-control-allow-origin"), None);
    for secret in provider.issued() {
        assert!(!page.body.contains(&secret.value) && !page.url.contains(&secret.value), "{:?}", secret.kind);
    }
    // Whoever lists processes reads the browser's arguments.
    let opened = Url::parse(&sandbox.opened()[0]).unwrap();
    assert_eq!(opened.host_str(), Some("localhost"));
    assert!(opened.path().starts_with("/start/") && opened.query().is_none(), "{opened}");
}

#[test]
fn the_browser_goes_on_to_the_page_that_was_named() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let next = format!("{}/device", provider.issuer());
    let _ = sandbox.get_token(&provider).arg(format!("--open-url-after-authentication={next}")).run().succeeded();
    assert_eq!(sandbox.visit().url, next);
}

// Where the browser comes back to.

#[test]
fn a_redirect_is_used_character_for_character_in_both_legs() {
    let provider = Provider::start();
    for redirect in [
        "http://localhost:PORT/cb",
        "http://127.0.0.1:PORT",
        "http://localhost:PORT/a/b?x=%41&y",
        "http://[::1]:PORT/oidc-callback",
    ] {
        if redirect.contains("::1") && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            continue;
        }
        let free = KeptPort::new();
        let redirect = redirect.replace("PORT", &free.number().to_string());
        provider.set(|behaviour| behaviour.redirects = vec![redirect.clone()]);
        provider.forget_requests();
        let sandbox = Sandbox::new(BINARY);
        let _ = with_redirect(&sandbox, &provider, &redirect).run().succeeded();
        assert_eq!(sandbox.visit().status, 200);
        assert_eq!(provider.requests(Endpoint::Authorize)[0].parameter("redirect_uri").as_ref(), Some(&redirect));
        assert_eq!(provider.requests(Endpoint::Token)[0].parameter("redirect_uri").as_ref(), Some(&redirect));
    }
}

#[test]
fn the_callback_is_served_over_tls_with_the_given_certificate() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let authority = Authority::new("the company's CA");
    let certificate = authority.server(&["localhost"]);
    let chain = sandbox.write("callback.pem", &certificate.pem);
    let key = sandbox.write("callback.key", &certificate.key_pem);
    sandbox.play(Play::SignIn(Browser::new().trusting(authority.pem())));
    let run = || sandbox.get_token(&provider).arg(format!("--callback-certificate={}", chain.display()));
    let _ = run().arg(format!("--callback-key={}", key.display())).run().succeeded();
    let page = sandbox.visit();
    assert_eq!(page.status, 200);
    assert!(page.history.iter().any(|url| url.starts_with("https://localhost:") && url.contains("/oidc-callback?")));
    let redirect = provider.requests(Endpoint::Token)[0].parameter("redirect_uri").unwrap();
    assert!(redirect.starts_with("https://localhost:"), "{redirect}");
    assert_snapshot!(run().arg("--force-refresh").run(), @"
    exit 2
    stderr:
    kubectl-headlamp: error: `--callback-certificate` needs `--callback-key` beside it
    ");
}

#[test]
fn a_port_that_another_program_has_is_named_with_the_program() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let others = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = others.local_addr().unwrap().port();
    sandbox.call(&port.to_string(), "[TAKEN]");
    let test = std::env::current_exe().unwrap();
    sandbox.call(test.file_name().unwrap().to_str().unwrap(), "[PROGRAM]");
    let redirect = format!("http://localhost:{port}/oidc-callback");
    let output = with_redirect(&sandbox, &provider, &redirect).run();
    assert_snapshot!(output, @"
    exit 4
    stderr:
    kubectl-headlamp: error: cannot wait for the browser's answer on port [TAKEN]
      caused by: port [TAKEN] is taken: `[PROGRAM]` (process [PID]) listens there

    hint: end that program, then try again
    hint: or register another redirect with the provider and name it, such as `--redirect-url http://localhost:[PORT]/oidc-callback`
    ");
    assert_eq!(sandbox.opened().len(), 0);
    assert_eq!(provider.requests(Endpoint::Authorize).len(), 0);
}

#[test]
fn a_port_that_is_taken_on_one_family_is_taken() {
    // A browser that goes to localhost might reach the other program.
    let Ok(others) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let redirect = format!("http://localhost:{}/oidc-callback", others.local_addr().unwrap().port());
    let output = with_redirect(&sandbox, &provider, &redirect).run();
    assert_eq!(output.code, 4, "{output}");
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn a_further_address_is_used_only_if_it_was_given() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&provider);
    let others = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let kept = KeptPort::new();
    let (taken, free) = (others.local_addr().unwrap().port(), kept.number());
    let issuer = format!("--issuer-url={}", provider.issuer());
    let run = sandbox.command(["get-token", &issuer, "--client-id=kubernetes"]);
    let run = run.args([format!("--listen-address=localhost:{taken}"), format!("--listen-address=localhost:{free}")]);
    let _ = run.run().succeeded();
    let redirect = provider.requests(Endpoint::Token)[0].parameter("redirect_uri").unwrap();
    assert_eq!(redirect, format!("http://localhost:{free}/oidc-callback"));
}

#[test]
fn sign_ins_of_two_identities_at_once_queue_for_the_port() {
    let provider = Provider::start();
    let free = KeptPort::new();
    let redirect = format!("http://localhost:{}/oidc-callback", free.number());
    let (one, other) = (Sandbox::new(BINARY), Sandbox::new(BINARY));
    let first = pending(&one, with_redirect(&one, &provider, &redirect));
    let second = with_redirect(&other, &provider, &redirect).arg("--login-hint=joe").spawn();
    second.wait_for_stderr("waiting for the sign-in of process");
    assert_eq!(other.opened().len(), 0);
    finish(first);
    let _ = second.wait().succeeded();
    assert_eq!(other.visit().status, 200);
}

// The browser's program.

#[test]
fn a_browser_that_stays_is_not_waited_for_and_its_words_reach_nobody() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.launcher(Launcher::Stays);
    let output = sandbox.get_token(&provider).run();
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]
    "#);
    let pid = std::fs::read_to_string(sandbox.path("browser/pids")).unwrap();
    assert!(cfg!(not(target_os = "linux")) || Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn a_browser_command_is_run_with_the_start_address_and_its_words_reach_nobody() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let command = format!("--browser-command={} --new-window", sandbox.browser_program().display());
    // The browser double opens lines, and this one is no address.
    sandbox.play(Play::Ignore);
    let running = sandbox.get_token(&provider).without_env("BROWSER").arg(command).spawn();
    let opened = sandbox.wait_for_browser(1);
    let start = opened.strip_prefix("--new-window ").unwrap();
    assert_eq!(Browser::new().open(start).unwrap().status, 200);
    let output = running.wait().succeeded();
    assert!(!output.stderr.contains("a browser talks"), "{output}");
    let _ = output.token();
}

#[test]
fn without_a_browser_of_ours_the_address_is_printed() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = sandbox.get_token(&provider).exec_info("v1", false).arg("--no-browser").terminal();
    let shown = terminal.expect("/start/") + &terminal.expect("\n");
    let start = shown.split_whitespace().find(|word| word.starts_with("http://localhost")).unwrap();
    assert_eq!(Browser::new().open(start).unwrap().status, 200);
    assert_snapshot!(terminal.wait(), @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    Open this address in a browser on this machine to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]
    "#);
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn a_hidden_address_is_hidden_unless_no_browser_could_be_started() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).arg("--hide-url").run().succeeded();
    assert_eq!(output.stderr, "");
    let sandbox = Sandbox::new(BINARY);
    sandbox.launcher(Launcher::Fails(3));
    let mut terminal = sandbox.get_token(&provider).exec_info("v1", false).arg("--hide-url").terminal();
    let shown = terminal.expect("/start/") + &terminal.expect("\n");
    let start = shown.split_whitespace().find(|word| word.starts_with("http://localhost")).unwrap();
    assert_eq!(Browser::new().open(start).unwrap().status, 200);
    assert_snapshot!(terminal.wait(), @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: note: no browser could be started: `[SANDBOX]/browser/browser` failed (exit status: 3)
    Open this address in a browser on this machine to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]
    "#);
}

// How long.

#[test]
fn a_sign_in_that_nobody_finishes_ends_and_frees_the_port() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let pending = pending(&sandbox, sandbox.get_token(&provider).arg("--timeout=1s"));
    let port = pending.port();
    assert_snapshot!(pending.running.wait(), @"
    exit 4
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: the sign-in to `[ISSUER]` was not finished within 1 s

    hint: try again; `--timeout 10m` leaves more time
    ");
    // Neither an answer nor a page is served any more.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
}

#[test]
fn a_signal_ends_a_sign_in_at_once_and_frees_port_and_lock() {
    let provider = Provider::start();
    let free = KeptPort::new();
    let redirect = format!("http://localhost:{}/oidc-callback", free.number());
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        let sandbox = Sandbox::new(BINARY);
        let pending = pending(&sandbox, with_redirect(&sandbox, &provider, &redirect));
        let before = std::time::Instant::now();
        pending.running.signal(signal);
        let output = pending.running.wait();
        // It takes some milliseconds; the rest is for a machine that does much else.
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        assert_eq!((output.code, output.stdout.as_str()), (130, ""), "{output}");
        assert!(output.stderr.ends_with("kubectl-headlamp: error: interrupted\n"), "{output}");
        sandbox.play(Play::SignIn(Browser::new()));
        let _ = with_redirect(&sandbox, &provider, &redirect).arg("--timeout=20s").run().succeeded();
    }
}

// What is asked of the provider.

#[test]
fn parameters_of_ones_own_reach_the_provider_and_cannot_override_the_protocols() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let own = ["--auth-param=access_type=offline", "--auth-param=domain_hint=example.com"];
    let _ = sandbox.get_token(&provider).args(own).run().succeeded();
    let asked = &provider.requests(Endpoint::Authorize)[0];
    assert_eq!(asked.parameter("access_type").as_deref(), Some("offline"));
    assert_eq!(asked.parameter("domain_hint").as_deref(), Some("example.com"));
    for name in [
        "state",
        "nonce",
        "redirect_uri",
        "code_challenge",
        "code_challenge_method",
        "client_id",
        "response_type",
        "scope",
        "request",
    ] {
        let output = sandbox.get_token(&provider).arg(format!("--auth-param={name}=mine")).run();
        assert_eq!(output.code, 2, "{name}: {output}");
        assert!(output.stderr.contains(&format!("`--auth-param` cannot set `{name}`")), "{output}");
    }
    let names = |request: &Request| request.query.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let mut once = names(asked);
    once.sort();
    once.dedup();
    assert_eq!(once.len(), names(asked).len(), "a parameter is sent twice: {:?}", names(asked));
}

#[test]
fn pkce_with_s256_is_used_whatever_the_provider_lists() {
    for listed in [None, Some(serde_json::json!([])), Some(serde_json::json!(["plain"]))] {
        let provider = Provider::start();
        let what = format!("{listed:?}");
        provider.edit_discovery(move |document| match &listed {
            None => drop(document.remove("code_challenge_methods_supported")),
            Some(listed) => drop(document.insert("code_challenge_methods_supported".to_owned(), listed.clone())),
        });
        let sandbox = Sandbox::new(BINARY);
        let _ = sandbox.get_token(&provider).run().succeeded();
        let asked = &provider.requests(Endpoint::Authorize)[0];
        assert_eq!(asked.parameter("code_challenge_method").as_deref(), Some("S256"), "{what}");
        let verifier = provider.requests(Endpoint::Token)[0].parameter("code_verifier").unwrap();
        assert!(verifier.len() >= 43, "{what}");
    }
}

#[test]
fn state_nonce_and_challenge_are_new_for_every_sign_in() {
    let provider = Provider::start();
    for _ in 0..2 {
        let sandbox = Sandbox::new(BINARY);
        let _ = sandbox.get_token(&provider).run().succeeded();
    }
    let asked = provider.requests(Endpoint::Authorize);
    let mut values: Vec<String> = asked
        .iter()
        .flat_map(|request| ["state", "nonce", "code_challenge"].map(|name| request.parameter(name).unwrap()))
        .collect();
    // 256 bits each.
    assert!(values.iter().all(|value| value.len() == 43), "{values:?}");
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 6);
}

#[test]
fn an_id_token_of_another_sign_in_is_refused() {
    for nonce in [Some("another-sign-ins-nonce"), None] {
        let provider = Provider::start();
        provider.edit_claims(move |claims| match nonce {
            Some(nonce) => drop(claims.insert("nonce".to_owned(), nonce.into())),
            None => drop(claims.remove("nonce")),
        });
        let sandbox = Sandbox::new(BINARY);
        let output = sandbox.get_token(&provider).run();
        assert_eq!((output.code, output.stdout.as_str()), (4, ""), "{output}");
        assert!(output.stderr.contains("its `nonce` is missing or another"), "{output}");
        assert_eq!(sandbox.visit().status, 400);
    }
}
