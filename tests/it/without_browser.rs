//! The sign-ins without a browser on this machine: a code on another device, an address that is pasted,
//! a password, the client itself; and which of them is chosen where.

use std::time::{Duration, Instant};

use headlamp_test_support::{
    Answer, Approval, Device, Endpoint, Launcher, Play, Provider, Run, Sandbox, SecretKind, Terminal,
};
use insta::assert_snapshot;
use serde_json::{Value, json};
use url::Url;

use crate::BINARY;
use crate::by_hand::{parameter, sent_on, with_parameter};

/// Changes the provider's device flow.
fn device(provider: &Provider, change: impl FnOnce(&mut Device)) {
    provider.set(|behaviour| change(behaviour.device.as_mut().unwrap()));
}

/// `get-token` by a code on another device; whoever runs it sees what is written.
fn by_device<'a>(sandbox: &'a Sandbox, provider: &Provider) -> Run<'a> {
    sandbox.get_token(provider).args(["--flow=device", "--interactive=always", "--no-browser"])
}

fn polls(provider: &Provider) -> usize {
    provider.token_requests("urn:ietf:params:oauth:grant-type:device_code").len()
}

// A code on another device (RFC 8628).

#[test]
fn a_terminal_shows_the_code_its_address_a_picture_of_both_and_the_time_left() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let output = by_device(&sandbox, &provider).env("TERM", "xterm").terminal().wait().succeeded();
    assert!(
        output.stderr.contains(&format!("open this address on any device:\n\n  {}/device\n", provider.issuer())),
        "{output}"
    );
    let code = output.stderr.split("enter the code:\n\n  ").nth(1).unwrap().lines().next().unwrap();
    assert!(code.len() == 9 && code.as_bytes()[4] == b'-', "{code}");
    assert!(output.stderr.contains("scan this, and check that it shows the same code"), "{output}");
    assert!(output.stderr.contains('█') && output.stderr.contains('▄'), "{output}");
    assert!(output.stderr.contains("Enter it only if you started this sign-in yourself."), "{output}");
    // The code would be good for five minutes, and a sign-in may take three.
    let left = |time: &str| output.stderr.contains(&format!("waiting for you to sign in: {time} left"));
    assert!(left("3:00") || left("2:59"), "{output}");
    assert_eq!(polls(&provider), 2, "the first was too early");
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn where_nobody_sees_it_change_no_time_is_counted_down() {
    let provider = Provider::start();
    device(&provider, |device| device.complete_address = false);
    let sandbox = Sandbox::new(BINARY);
    let output = by_device(&sandbox, &provider).run().succeeded();
    assert!(!output.stderr.contains("waiting for you") && !output.stderr.contains('█'), "{output}");
}

#[test]
fn a_browser_at_hand_opens_the_address_with_the_code_in_it() {
    let provider = Provider::start();
    device(&provider, |device| device.approval = Approval::WhenVisited);
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).args(["--flow=device", "--interactive=always"]);
    let _ = run.run().succeeded();
    let opened = sandbox.opened();
    assert_eq!(opened.len(), 1);
    assert!(opened[0].starts_with(&format!("{}/device?user_code=", provider.issuer())), "{opened:?}");
}

#[test]
fn a_browser_at_hand_opens_the_address_alone_where_there_is_no_other() {
    let provider = Provider::start();
    device(&provider, |device| device.complete_address = false);
    let sandbox = Sandbox::new(BINARY);
    let command = format!("--browser-command={}", sandbox.browser_program().display());
    let run = sandbox.get_token(&provider).without_env("BROWSER");
    let _ = run.args(["--flow=device", "--interactive=always", &command]).run().succeeded();
    sandbox.wait_for_browser(1);
    assert_eq!(sandbox.opened(), [format!("{}/device", provider.issuer())]);
}

#[test]
fn a_browser_that_fails_does_not_end_the_device_flow() {
    let provider = Provider::start();
    for browser in [None, Some("/nowhere/browser")] {
        let sandbox = Sandbox::new(BINARY);
        sandbox.launcher(Launcher::Fails(1));
        let run = sandbox.get_token(&provider).args(["--flow=device", "--interactive=always"]);
        let run = if let Some(browser) = browser { run.env("BROWSER", browser) } else { run };
        let _ = run.run().succeeded();
    }
}

#[test]
fn slow_down_adds_five_seconds() {
    let provider = Provider::start();
    device(&provider, |device| device.approval = Approval::AfterPolls(0));
    provider.script(Endpoint::Token, Answer::error("slow_down", "not so fast"));
    let sandbox = Sandbox::new(BINARY);
    let before = Instant::now();
    let _ = by_device(&sandbox, &provider).run().succeeded();
    // One second, and then one and five.
    assert!(before.elapsed() >= Duration::from_secs(7), "{:?}", before.elapsed());
    assert_eq!(polls(&provider), 2);
}

#[test]
fn without_a_word_on_it_five_seconds_pass_between_two_questions() {
    let provider = Provider::start();
    device(&provider, |device| {
        *device = Device { interval: None, approval: Approval::AfterPolls(0), ..device.clone() }
    });
    let sandbox = Sandbox::new(BINARY);
    let before = Instant::now();
    let _ = by_device(&sandbox, &provider).run().succeeded();
    assert!(before.elapsed() >= Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(polls(&provider), 1);
}

#[test]
fn a_provider_cannot_make_us_ask_without_a_pause() {
    let provider = Provider::start();
    device(&provider, |device| {
        *device = Device { interval: Some(0), approval: Approval::AfterPolls(1), ..device.clone() }
    });
    let sandbox = Sandbox::new(BINARY);
    let before = Instant::now();
    let _ = by_device(&sandbox, &provider).run().succeeded();
    assert!(before.elapsed() >= Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(polls(&provider), 2);
}

#[test]
fn a_network_that_stumbles_costs_a_device_flow_only_time() {
    let provider = Provider::start();
    provider.script(Endpoint::Token, Answer::reset());
    provider.script(Endpoint::Token, Answer::json(503, &json!({})));
    provider.script(Endpoint::Token, Answer::close());
    let sandbox = Sandbox::new(BINARY);
    let _ = by_device(&sandbox, &provider).run().succeeded();
    assert!(polls(&provider) >= 4, "{}", polls(&provider));
}

#[test]
fn a_refused_device_is_told() {
    let provider = Provider::start();
    device(&provider, |device| {
        *device = Device { approval: Approval::Refused, complete_address: false, ..device.clone() }
    });
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(end_of(by_device(&sandbox, &provider)), @"
    exit 4
    kubectl-headlamp: error: the provider refused the sign-in
      caused by: the provider says `access_denied`: the sign-in was refused on the other device

    hint: sign in again and agree to what is asked; if you did, whoever runs the provider must let you use this client
    ");
}

#[test]
fn a_code_that_ran_out_is_told() {
    let provider = Provider::start();
    provider.script(Endpoint::Token, Answer::error("expired_token", "too late"));
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(end_of(by_device(&sandbox, &provider)), @"
    exit 4
    kubectl-headlamp: error: the device code was not entered in time

    hint: try again for a new code
    ");
    // Nor is a code asked for for ever, whatever the provider answers.
    device(&provider, |device| {
        *device = Device { expires_in: 1, approval: Approval::AfterPolls(1000), ..device.clone() }
    });
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(end_of(by_device(&sandbox, &provider)), @"
    exit 4
    kubectl-headlamp: error: the device code was not entered in time

    hint: try again for a new code
    ");
}

#[test]
fn a_device_flow_and_a_question_for_a_password_end_by_the_time_limit_too() {
    let provider = Provider::start();
    device(&provider, |device| device.approval = Approval::AfterPolls(1000));
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(end_of(by_device(&sandbox, &provider).arg("--timeout=2s")), @"
    exit 4
    kubectl-headlamp: error: the sign-in to `[ISSUER]` was not finished within 2 s

    hint: try again; `--timeout 10m` leaves more time
    ");
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = sandbox.get_token(&provider).args(["--username=jane@example.com", "--timeout=1s"]).terminal();
    terminal.expect("Password of jane@example.com: ");
    let output = terminal.wait();
    assert_eq!(output.code, 4, "{output}");
    assert!(output.stderr.contains("was not finished within 1 s"), "{output}");
}

#[test]
fn a_command_that_never_prints_the_clients_secret_ends_by_the_time_limit() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).args(["--client-secret-command=exec /bin/sleep 50", "--timeout=1s"]);
    let output = run.run();
    assert_eq!(output.code, 4, "{output}");
    assert!(output.stderr.contains("was not finished within 1 s"), "{output}");
}

/// Exit code and error of a run.
fn end_of(run: Run<'_>) -> String {
    let output = run.run();
    let shown = output.to_string();
    let error = shown.find("kubectl-headlamp: error:").unwrap_or_else(|| panic!("{shown}"));
    format!("exit {}\n{}", output.code, &shown[error..])
}

/// A device flow whose codes come in this reply, up to its end by refusal.
fn with_device_reply(changes: &Value) -> (String, Sandbox) {
    let provider = Provider::start();
    let mut reply = json!({
        "device_code": "a-device-code-of-a-test", "user_code": "ABCD-EFGH", "expires_in": 60, "interval": 1,
        "verification_uri": "https://id.example.com/device",
    });
    reply.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    reply.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    provider.script(Endpoint::Device, Answer::json(200, &reply));
    provider.script(Endpoint::Token, Answer::error("access_denied", "no"));
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let run = sandbox.get_token(&provider).args(["--flow=device", "--interactive=always"]);
    let output = run.run();
    (output.to_string(), sandbox)
}

#[test]
fn googles_older_name_of_the_address_is_understood() {
    let google = json!({"verification_uri": null, "verification_url": "https://www.google.com/device"});
    let (shown, sandbox) = with_device_reply(&google);
    assert!(shown.contains("https://www.google.com/device"), "{shown}");
    sandbox.wait_for_browser(1);
    assert_eq!(sandbox.opened(), ["https://www.google.com/device"]);
}

#[test]
fn a_device_flow_shows_and_opens_nothing_that_could_harm() {
    for (name, value) in [
        ("verification_uri", json!("http://id.example.com/device")),
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("file:///etc/passwd")),
        ("verification_uri", json!("https://id.example.com@evil.example/")),
        ("verification_uri", Value::Null),
        ("verification_uri_complete", json!("http://evil.example/?user_code=ABCD-EFGH")),
        ("user_code", json!("ABCD\u{1b}[2J")),
        ("user_code", json!("ABCD\u{202e}EFGH")),
        ("user_code", json!("")),
        ("device_code", Value::Null),
    ] {
        let (shown, sandbox) = with_device_reply(&json!({name: value.clone()}));
        assert!(shown.starts_with("exit 1\n"), "{name} {value}: {shown}");
        assert!(
            shown.contains("the device code of ") && shown.contains(&format!("`{name}`")),
            "{name} {value}: {shown}"
        );
        assert!(!shown.contains("enter the code") && !shown.contains('\u{1b}'), "{name} {value}: {shown}");
        assert_eq!(sandbox.opened().len(), 0, "{name} {value}");
    }
    let (shown, sandbox) = with_device_reply(&json!({"verification_uri": "https://id.example.com/\u{1b}[2J'; x"}));
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(sandbox.opened().iter().all(|url| !url.contains('\'')), "{:?}", sandbox.opened());
}

#[test]
fn a_provider_without_the_device_flow_is_told() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.device = None);
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(end_of(by_device(&sandbox, &provider)), @"
    exit 5
    kubectl-headlamp: error: the provider `[ISSUER]` offers no sign-in by a code on another device

    hint: choose another way: `--flow browser` or `--flow paste`
    ");
}

// An address that is pasted.

/// A run that waits for what is pasted; the address that it shows holds state and nonce, and what is
/// pasted is seen.
fn pasting(run: Run<'_>) -> Terminal<'_> {
    let shown = [SecretKind::State, SecretKind::Nonce, SecretKind::Code];
    shown.into_iter().fold(run, Run::may_show).terminal()
}

/// The provider's address, once it is shown.
fn shown_address(terminal: &mut Terminal<'_>) -> Url {
    let shown = terminal.expect("paste it here:");
    let word = shown.split_whitespace().find(|word| word.contains("code_challenge=")).unwrap();
    Url::parse(word).unwrap()
}

#[test]
fn the_address_that_the_browser_ended_at_is_pasted() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&provider);
    let issuer = format!("--issuer-url={}", provider.issuer());
    let mut terminal = pasting(sandbox.command(["get-token", &issuer, "--client-id=kubernetes", "--flow=paste"]));
    let address = shown_address(&mut terminal);
    assert_eq!(parameter(&address, "redirect_uri"), "http://localhost:8000/oidc-callback", "the default");
    terminal.send_line(sent_on(&address).as_str());
    let output = terminal.wait().succeeded();
    let _ = output.token();
    assert_eq!(sandbox.opened().len(), 0);
    let redeemed = &provider.token_requests("authorization_code")[0];
    assert_eq!(redeemed.parameter("redirect_uri").as_deref(), Some("http://localhost:8000/oidc-callback"));
    assert_eq!(redeemed.parameter("code_verifier").unwrap().len(), 43);
}

#[test]
fn the_bare_code_is_pasted_with_whatever_stands_around_it() {
    let provider = Provider::start();
    for (before, after) in [("", "\n"), ("  ", "  \r"), ("\"", "\"\r\n"), ("\u{1b}[200~", "\u{1b}[201~\n")] {
        let sandbox = Sandbox::new(BINARY);
        let mut terminal = pasting(sandbox.get_token(&provider).arg("--flow=paste"));
        let code = parameter(&sent_on(&shown_address(&mut terminal)), "code");
        terminal.send(&format!("{before}{code}{after}"));
        let _ = terminal.wait().succeeded();
    }
}

#[test]
fn a_code_of_8_kib_comes_through_whole() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = pasting(sandbox.get_token(&provider).arg("--flow=paste"));
    let answer = sent_on(&shown_address(&mut terminal));
    // Longer than the line that a terminal keeps.
    let code = "0123456789abcdef".repeat(512);
    terminal.send_line(with_parameter(&answer, "code", Some(&code)).as_str());
    assert_eq!(terminal.wait().code, 4, "no provider of ours gave this code");
    assert_eq!(provider.token_requests("authorization_code")[0].parameter("code"), Some(code));
}

#[test]
fn what_cannot_be_the_answer_is_asked_for_again() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = pasting(sandbox.get_token(&provider).arg("--flow=paste"));
    let answer = sent_on(&shown_address(&mut terminal));
    let again = "paste the whole address that the browser went to";
    for wrong in [
        with_parameter(&answer, "state", Some("another-sign-ins-state")).to_string(),
        with_parameter(&answer, "state", None).to_string(),
        format!("{answer}&state=twice"),
        "https://www.example.com/".to_owned(),
        "y".to_owned(),
    ] {
        terminal.send_line(&wrong);
        terminal.expect(again);
    }
    assert_eq!(provider.requests(Endpoint::Token).len(), 0);
    terminal.send_line("");
    terminal.send_line(answer.as_str());
    let _ = terminal.wait().succeeded();
}

#[test]
fn a_pasted_answer_in_another_providers_name_is_refused() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = pasting(sandbox.get_token(&provider).arg("--flow=paste"));
    let answer = sent_on(&shown_address(&mut terminal));
    terminal.send_line(with_parameter(&answer, "iss", Some("https://evil.example")).as_str());
    let output = terminal.wait();
    assert_eq!(output.code, 4, "{output}");
    assert!(output.stderr.contains("another provider"), "{output}");
    assert_eq!(provider.requests(Endpoint::Token).len(), 0);
}

#[test]
fn ctrl_d_cancels_and_ctrl_c_interrupts() {
    let provider = Provider::start();
    for (key, code, words) in [("\u{4}", 4, "the sign-in was cancelled"), ("\u{3}", 130, "interrupted")] {
        let sandbox = Sandbox::new(BINARY);
        let mut terminal = pasting(sandbox.get_token(&provider).arg("--flow=paste"));
        shown_address(&mut terminal);
        terminal.send(key);
        let output = terminal.wait();
        assert_eq!(output.code, code, "{output}");
        assert!(output.stderr.contains(&format!("kubectl-headlamp: error: {words}")), "{output}");
    }
}

#[test]
fn pasting_beside_the_waiting_listener_finishes_the_sign_in() {
    let provider = Provider::start();
    for whole in [true, false] {
        let sandbox = Sandbox::new(BINARY);
        sandbox.play(Play::Ignore);
        let mut terminal = pasting(sandbox.get_token(&provider));
        terminal.expect("or paste here the address that your browser ends at");
        let answer = sent_on(&sent_on(&Url::parse(&sandbox.wait_for_browser(1)).unwrap()));
        terminal.send_line(if whole { answer.as_str().to_owned() } else { parameter(&answer, "code") }.as_str());
        let _ = terminal.wait().succeeded().token();
    }
}

// User name and password.

#[test]
fn a_user_name_and_a_password_that_are_given_are_asked_of_nobody() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let password = sandbox.write("password", "correct horse battery staple\n");
    let output = sandbox
        .get_token(&provider)
        .args(["--flow=password", "--username=jane@example.com"])
        .arg(format!("--password-file={}", password.display()))
        .silent_stdin()
        .run();
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: warning: the password flow shows your password to this program, and no second factor works with it: use `--flow browser` where you can
    "#);
    assert_eq!(sandbox.opened().len(), 0);
    assert_eq!(provider.token_requests("password").len(), 1);
    // From the environment, and the flow chosen by the user name alone.
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).env("KUBECTL_HEADLAMP_USERNAME", "jane@example.com");
    let _ = run.env("KUBECTL_HEADLAMP_PASSWORD", "correct horse battery staple").run().succeeded();
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn a_user_name_and_a_password_are_asked_for_and_the_password_is_not_shown() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = sandbox.get_token(&provider).arg("--flow=password").terminal();
    terminal.expect("User name: ");
    terminal.send_line("jane@example.com");
    terminal.expect("Password of jane@example.com: ");
    terminal.wait_for_hidden_input();
    terminal.send_line("correct horse battery staple");
    // That the password stands nowhere is what the sandbox looks for.
    assert_snapshot!(terminal.wait(), @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: warning: the password flow shows your password to this program, and no second factor works with it: use `--flow browser` where you can
    User name: 
    jane@example.com
    Password of jane@example.com:
    "#);
    assert!(provider.issued().iter().any(|secret| secret.kind == SecretKind::Password));
}

#[test]
fn with_a_user_name_only_the_password_is_asked_for() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let mut terminal = sandbox.get_token(&provider).arg("--username=jane@example.com").terminal();
    let before = terminal.expect("Password of jane@example.com: ");
    assert!(!before.contains("User name"), "{before}");
    terminal.wait_for_hidden_input();
    terminal.send_line("correct horse battery staple");
    let _ = terminal.wait().succeeded();
}

#[test]
fn a_wrong_password_is_told_and_a_missing_terminal_too() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).args(["--flow=password", "--username=jane@example.com"]);
    let run = run.env("KUBECTL_HEADLAMP_PASSWORD", "a wrong password");
    assert_snapshot!(run.run(), @"
    exit 4
    stderr:
    kubectl-headlamp: warning: the password flow shows your password to this program, and no second factor works with it: use `--flow browser` where you can
    kubectl-headlamp: error: the provider did not accept user name and password
      caused by: the provider says `invalid_grant`: user name or password is wrong

    hint: check user name and password
    ");
    let again = sandbox.get_token(&provider).args(["--flow=password", "--username=jane@example.com"]);
    let again = again.env("KUBECTL_HEADLAMP_PASSWORD", "a wrong password").run();
    assert!(again.code == 4 && again.stderr.contains("nobody is asked again"), "{again}");
    assert_eq!(provider.token_requests("password").len(), 1, "an account could be locked");
    provider.go_down();
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).args(["--flow=password", "--username=jane@example.com"]);
    assert_snapshot!(run.silent_stdin().run(), @"
    exit 3
    stderr:
    kubectl-headlamp: error: the password is not known, and nobody can be asked
      caused by: standard input may not be read, or is no terminal in the foreground

    hint: give it with `--password-file`
    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes --login-hint jane@example.com` in a terminal, then repeat your command
    ");
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).arg("--flow=password").silent_stdin().run();
    assert_eq!(output.code, 3, "{output}");
    assert!(output.stderr.contains("the user name is not known") && output.stderr.contains("`--username`"), "{output}");
}

// The client itself.

#[test]
fn a_client_signs_in_as_itself_by_header_and_by_form() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.client_secret = Some("the client's own secret".to_owned()));
    for (authentication, listed, by_header) in [
        ("basic", vec!["client_secret_post", "client_secret_basic"], true),
        ("post", vec!["client_secret_post", "client_secret_basic"], false),
        ("auto", vec!["client_secret_basic"], true),
        ("auto", vec!["client_secret_post"], false),
    ] {
        provider.set(|behaviour| behaviour.client_authentication = listed);
        provider.forget_requests();
        let sandbox = Sandbox::new(BINARY);
        let secret = sandbox.write("client-secret", "the client's own secret\n");
        let output = sandbox
            .get_token(&provider)
            .args(["--flow=client-credentials", "--token-type=access", "--auth-param=audience=kubernetes"])
            .arg(format!("--client-secret-file={}", secret.display()))
            .arg(format!("--client-authentication={authentication}"))
            .exec_info("v1", false)
            .run()
            .succeeded();
        assert_eq!((output.stderr.as_str(), sandbox.opened().len()), ("", 0), "{authentication}");
        let asked = &provider.token_requests("client_credentials")[0];
        assert_eq!(asked.header("authorization").is_some(), by_header, "{authentication}");
        assert_eq!(asked.parameter("client_secret").is_some(), !by_header, "{authentication}");
        assert_eq!(asked.parameter("audience").as_deref(), Some("kubernetes"));
    }
}

// Which way is chosen.

#[test]
fn without_a_browser_the_way_is_chosen_by_the_surroundings_and_the_reason_is_told() {
    let with = Provider::start();
    let without = Provider::start();
    without.set(|behaviour| behaviour.device = None);
    let (code, address) = ("and enter the code", "paste it here:");
    let ssh: &[(&str, &str)] = &[("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")];
    let ci: &[(&str, &str)] = &[("CI", "true")];
    let container: &[(&str, &str)] = &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
    let wsl: &[(&str, &str)] = &[("WSL_DISTRO_NAME", "Debian")];
    let display: &[(&str, &str)] = &[("DISPLAY", ":0")];
    for (provider, variables, flags, way, reason) in [
        (&with, ssh, vec![], code, "this is an SSH session without a display"),
        (&without, ssh, vec![], address, "this is an SSH session without a display"),
        (&with, ssh, vec!["--provider=entra"], address, "this is an SSH session without a display"),
        (&with, container, vec![], code, "this is a container"),
        (&without, container, vec![], address, "this is a container"),
        (&with, ci, vec![], code, "this is a CI job (`CI` is set)"),
        (&with, wsl, vec![], code, "no program that opens a browser in Windows is on the `PATH`: install `wslu`"),
        (&without, display, vec![], address, "no program that opens a browser is on the `PATH`: install `xdg-utils`"),
    ] {
        let sandbox = Sandbox::new(BINARY);
        let run = sandbox.get_token(provider).without_env("BROWSER").args(&flags).exec_info("v1", true);
        let run = variables.iter().fold(run, |run, (name, value)| run.env(name, value));
        let mut terminal = pasting(run);
        let shown = terminal.expect(way);
        let note = format!("kubectl-headlamp: note: signing in without a browser on this machine: {reason}\r\n");
        assert!(shown.contains(&note), "{reason}: {shown}");
        assert!(!shown.contains(if way == code { address } else { code }), "{reason}: {shown}");
        terminal.send_interrupt();
        assert_eq!(terminal.wait().code, 130);
    }
}
