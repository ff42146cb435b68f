//! Every flow, told of as much as there is to tell, gives no secret away.

use headlamp_test_support::{
    AccessTokens, Answer, Browser, Endpoint, Play, Provider, Run, Sandbox, SecretKind, SignIn,
};
use serde_json::json;

use crate::BINARY;
use crate::by_hand::{self, parameter, sent_on, visited, with_parameter};

/// All that makes programs talk.
fn talkative(run: Run<'_>) -> Run<'_> {
    run.arg("-v=2")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
        .env("RUST_LIB_BACKTRACE", "1")
        .env("DEBUG", "*")
        .env("HTTP_DEBUG", "1")
}

/// A refusal that repeats a secret of the request, as some providers do.
fn repeating(secret: &str) -> Answer {
    Answer::error("invalid_grant", &format!("I do not know {secret}, sent as \"{secret}\""))
}

fn last(provider: &Provider, kind: SecretKind) -> String {
    provider.issued().into_iter().rev().find(|secret| secret.kind == kind).unwrap().value
}

/// The sandbox looks for the secrets after every run, in all that was written and in what the browser's
/// program was given. Here it is given every kind of them to look for, in what succeeds and what fails.
#[test]
fn no_flow_gives_a_secret_away_however_much_it_tells() {
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.client_secret = Some("the client's own secret".to_owned());
        behaviour.access_tokens = AccessTokens::Jwt;
        // Less than a token must have left: every run has something to do.
        behaviour.id_token_lifetime = 60;
        behaviour.expires_in = Some(60);
    });
    in_the_browser(&provider);
    in_the_browser_in_vain(&provider);
    refreshed(&provider);
    without_a_browser(&provider);
    by_hand_at_the_terminal(&provider);
    let kinds = [
        SecretKind::IdToken,
        SecretKind::AccessToken,
        SecretKind::RefreshToken,
        SecretKind::Code,
        SecretKind::DeviceCode,
        SecretKind::State,
        SecretKind::Nonce,
        SecretKind::Verifier,
        SecretKind::ClientSecret,
        SecretKind::Password,
    ];
    let issued = provider.issued();
    for kind in kinds {
        assert!(issued.iter().any(|secret| secret.kind == kind), "there was no {kind:?} to look for");
    }
    assert!(issued.len() > 50, "{}", issued.len());
}

/// With the client's secret from everywhere that it may come from.
fn in_the_browser(provider: &Provider) {
    let sandbox = Sandbox::new(BINARY);
    let file = sandbox.write("client-secret", "the client's own secret\n");
    let secret = "KUBECTL_HEADLAMP_CLIENT_SECRET";
    let output = talkative(sandbox.get_token(provider)).env(secret, "the client's own secret").run().succeeded();
    assert!(output.stderr.contains("/token") && output.stderr.contains("kubectl-headlamp: "), "{output}");
    let output = talkative(sandbox.login(provider)).env(secret, "the client's own secret").run().succeeded();
    assert!(output.stdout.contains("kubectl config set-credentials"), "{output}");
    let file = format!("--client-secret-file={}", file.display());
    let command = format!("--client-secret-command=/bin/cat '{}'", sandbox.path("client-secret").display());
    for (from, flag) in [(&file, "--auth-param=response_mode=form_post"), (&command, "--token-type=access")] {
        let _ = talkative(sandbox.login(provider)).args([from, flag]).run().succeeded();
    }
    for flags in [vec!["--token-storage=none"], vec!["--client-authentication=post", "--force-refresh"]] {
        let _ = talkative(sandbox.get_token(provider)).arg(&file).args(flags).run().succeeded();
    }
    sandbox.visits();
    let status = talkative(sandbox.command(["status", "--output=json"])).run().succeeded();
    assert!(status.stdout.contains("Jane Doe"), "{status}");
    let _ = talkative(sandbox.command(["status"])).run().succeeded();
    let _ = talkative(sandbox.command(["logout", "--all"])).env(secret, "the client's own secret").run();
}

/// Providers that refuse, repeat what they were sent, answer nonsense, or give what is none.
fn in_the_browser_in_vain(provider: &Provider) {
    let secret = ("KUBECTL_HEADLAMP_CLIENT_SECRET", "the client's own secret");
    let run_in_vain = |prepare: &dyn Fn()| {
        let sandbox = Sandbox::new(BINARY);
        prepare();
        let output = talkative(sandbox.get_token(provider)).env(secret.0, secret.1).run();
        assert_ne!(output.code, 0, "{output}");
        provider.unscript();
        provider.unedit();
    };
    run_in_vain(&|| provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "no")));
    provider.set(|behaviour| behaviour.sign_in = SignIn::AtOnce);
    run_in_vain(&|| provider.edit_claims(|claims| drop(claims.insert("aud".to_owned(), json!("another")))));
    run_in_vain(&|| provider.edit_id_token(|token| token.replace('.', "..")));
    run_in_vain(&|| provider.edit_token_reply(|reply| drop(reply.insert("token_type".to_owned(), json!("mac")))));
    run_in_vain(&|| provider.edit_token_reply(|reply| drop(reply.insert("id_token".to_owned(), json!([1])))));
    let sandbox = Sandbox::new(BINARY);
    let pending = by_hand::pending(&sandbox, talkative(sandbox.get_token(provider)).env(secret.0, secret.1));
    let answer = with_parameter(&pending.answer(), "code", None);
    let state = parameter(&answer, "state");
    let refusal = with_parameter(&answer, "error", Some("server_error"));
    let refusal = with_parameter(&refusal, "error_description", Some(&format!("what of {state}?")));
    assert_eq!(Browser::new().open(refusal.as_str()).unwrap().status, 400);
    assert_ne!(pending.running.wait().code, 0);
    for status in [400, 401, 500] {
        let sandbox = Sandbox::new(BINARY);
        let pending = by_hand::pending(&sandbox, talkative(sandbox.get_token(provider)).env(secret.0, secret.1));
        assert_eq!(visited(&with_parameter(&pending.answer(), "state", Some("another-state"))), 400);
        let answer = pending.answer();
        let code = parameter(&answer, "code");
        let all = format!("{code} {} {}", secret.1, parameter(&sent_on(&pending.start), "state"));
        // A provider in trouble is asked once: a code serves once.
        provider.script(
            Endpoint::Token,
            match status {
                400 => repeating(&code),
                401 => Answer::json(
                    401,
                    &json!({"error": "invalid_client", "error_description": format!("not {}", secret.1)}),
                ),
                _ => Answer::json(500, &json!({"error": all})),
            },
        );
        assert_eq!(Browser::new().open(answer.as_str()).unwrap().status, 400);
        assert_ne!(pending.running.wait().code, 0);
        provider.unscript();
    }
}

fn refreshed(provider: &Provider) {
    let sandbox = Sandbox::new(BINARY);
    let run =
        || talkative(sandbox.get_token(provider)).env("KUBECTL_HEADLAMP_CLIENT_SECRET", "the client's own secret");
    let _ = run().run().succeeded();
    let _ = run().run().succeeded();
    provider.script(Endpoint::Token, Answer::json(503, &json!({})));
    let _ = run().run().succeeded();
    provider.script(Endpoint::Token, repeating(&last(provider, SecretKind::RefreshToken)));
    let output = run().arg("--interactive=never").run();
    assert_eq!(output.code, 3, "{output}");
    let _ = run().run().succeeded();
    for entry in sandbox.cache_files() {
        // What is found damaged is told of, and replaced.
        let content = std::fs::read(&entry).unwrap();
        std::fs::write(&entry, &content[..content.len() / 2]).unwrap();
    }
    let _ = run().run().succeeded();
}

fn without_a_browser(provider: &Provider) {
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let secret = sandbox.write("client-secret", "the client's own secret");
    let password = sandbox.write("password", "correct horse battery staple");
    let secret = format!("--client-secret-file={}", secret.display());
    let password = format!("--password-file={}", password.display());
    let run = |flags: &[&str]| talkative(sandbox.get_token(provider)).arg(&secret).args(flags);
    let _ = run(&["--flow=device", "--interactive=always"]).run().succeeded();
    provider.script(Endpoint::Token, Answer::error("slow_down", "not so fast"));
    provider.script(Endpoint::Token, repeating("what you sent"));
    assert_eq!(run(&["--flow=device", "--interactive=always", "--login-hint=joe"]).run().code, 4);
    let by_password = ["--flow=password", "--username=jane@example.com", password.as_str()];
    let _ = run(&by_password).run().succeeded();
    provider.script(Endpoint::Token, repeating("correct horse battery staple"));
    let output = run(&by_password).args(["--token-storage=none"]).run();
    assert_eq!(output.code, 4, "{output}");
    let environment = ("KUBECTL_HEADLAMP_PASSWORD", "correct horse battery staple");
    let _ = run(&by_password[..2]).env(environment.0, environment.1).arg("--token-storage=none").run().succeeded();
    for authentication in ["basic", "post"] {
        let itself = ["--flow=client-credentials", "--token-type=access", "--token-storage=none"];
        let _ = run(&itself).arg(format!("--client-authentication={authentication}")).run().succeeded();
    }
}

fn by_hand_at_the_terminal(provider: &Provider) {
    let sandbox = Sandbox::new(BINARY);
    let secret = sandbox.write("client-secret", "the client's own secret");
    let secret = format!("--client-secret-file={}", secret.display());
    let run = |flow: &str| talkative(sandbox.get_token(provider)).arg(&secret).arg(format!("--flow={flow}"));
    let mut terminal = run("password").terminal();
    terminal.expect("User name: ");
    terminal.send_line("jane@example.com");
    terminal.expect("Password of ");
    terminal.wait_for_hidden_input();
    terminal.send_line("correct horse battery staple");
    let _ = terminal.wait().succeeded();
    // The address that is shown must hold these two, and what is pasted is seen.
    let shown = [SecretKind::State, SecretKind::Nonce, SecretKind::Code];
    let mut terminal = shown.into_iter().fold(run("paste").arg("--login-hint=ann"), Run::may_show).terminal();
    let screen = terminal.expect("paste it here:");
    let address = screen.split_whitespace().find(|word| word.contains("code_challenge=")).unwrap();
    terminal.send_line(sent_on(&address.parse().unwrap()).as_str());
    let _ = terminal.wait().succeeded();
}
