//! Whether anybody is there: what is offered to whom, and that stdin is nobody's but its owner's.
//!
//! kubectl says with `spec.interactive` only whether stdin may be read. `kubectl apply -f -` says no,
//! with a person in front of it; some clients always say yes, with nobody in front of them.

use std::path::Path;

use headlamp_test_support::{Browser, Launcher, Play, Provider, Run, Sandbox, SecretKind};
use insta::assert_snapshot;

use crate::BINARY;

/// A run that no terminal belongs to, even where the tests themselves run in one.
fn away_from_any_terminal<'a>(sandbox: &'a Sandbox, provider: &Provider) -> Run<'a> {
    let setsid = Path::new("/usr/bin/setsid");
    let run =
        if setsid.is_file() { sandbox.program(setsid, [BINARY, "get-token"]) } else { sandbox.command(["get-token"]) };
    run.args(sandbox.flags(provider))
}

/// A shell on a terminal that runs this, with `$HEADLAMP` being `get-token` for this provider.
fn shell<'a>(sandbox: &'a Sandbox, provider: &Provider, script: &str) -> Run<'a> {
    let words: Vec<String> = sandbox.flags(provider).iter().map(|flag| format!("'{flag}'")).collect();
    let script = script.replace("$HEADLAMP", &format!("'{BINARY}' get-token {}", words.join(" ")));
    sandbox.program(Path::new("/bin/sh"), ["-c", &script])
}

/// A provider without the flow for other devices.
fn without_device_flow() -> Provider {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.device = None);
    provider
}

type Variables = &'static [(&'static str, &'static str)];

/// The reason in an error of exit code 3.
fn reason(stderr: &str) -> &str {
    stderr.split("caused by: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default()
}

#[test]
fn a_browser_is_opened_wherever_one_can_be_shown_and_whatever_stdin_is() {
    let provider = Provider::start();
    // (what, spec.interactive, further variables, without BROWSER)
    let situations: &[(&str, Option<bool>, Variables, bool)] = &[
        ("stdin may be read, and is a pipe", Some(true), &[], false),
        ("stdin may not be read", Some(false), &[], false),
        ("no word on stdin", None, &[], false),
        ("CI with a browser of its own", Some(false), &[("CI", "true")], false),
        ("SSH with a browser of its own", Some(false), &[("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")], false),
        ("a display", Some(false), &[("DISPLAY", ":0")], true),
        ("a Wayland display", Some(false), &[("WAYLAND_DISPLAY", "wayland-0")], true),
        ("a display of SSH's", Some(false), &[("SSH_TTY", "/dev/pts/1"), ("DISPLAY", "localhost:10")], true),
        ("no CI after all", Some(false), &[("CI", "false"), ("DISPLAY", ":0")], true),
        ("always", Some(true), &[("KUBECTL_HEADLAMP_INTERACTIVE", "always")], false),
    ];
    for (what, interactive, variables, without) in situations {
        let sandbox = Sandbox::new(BINARY);
        if *without {
            std::os::unix::fs::symlink(sandbox.browser_program(), sandbox.path("bin/xdg-open")).unwrap();
        }
        let run = away_from_any_terminal(&sandbox, &provider).silent_stdin();
        let run = if let Some(may_read) = interactive { run.exec_info("v1", *may_read) } else { run };
        let run = variables.iter().fold(run, |run, (name, value)| run.env(name, value));
        let run = if *without { run.without_env("BROWSER") } else { run };
        let output = run.run();
        assert_eq!((output.code, sandbox.opened().len()), (0, 1), "{what}: {output}");
    }
}

#[test]
fn with_nobody_there_it_ends_at_once_with_the_command_to_run() {
    let provider = Provider::start();
    // That nobody is there takes no network to know.
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let run = away_from_any_terminal(&sandbox, &provider).without_env("BROWSER").silent_stdin();
    // So that it is a container everywhere.
    let run = run.env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    assert_snapshot!(run.exec_info("v1", true).run(), @"
    exit 3
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: this is a container

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
    let situations: &[(&str, Variables, &[&str])] = &[
        ("this is a CI job (`CI` is set)", &[("CI", "true"), ("DISPLAY", ":0")], &[]),
        ("this is an SSH session without a display", &[("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")], &[]),
        ("no program that opens a browser is on the `PATH`: install `xdg-utils`", &[("DISPLAY", ":0")], &[]),
        ("`--interactive=never` is set", &[("DISPLAY", ":0"), ("BROWSER", "/bin/true")], &["--interactive=never"]),
        ("`--no-browser` is set", &[("BROWSER", "/bin/true")], &["--no-browser"]),
        ("nobody can see the code that is to be typed in elsewhere", &[("BROWSER", "/bin/true")], &["--flow=device"]),
        (
            "nobody can paste the answer: standard input may not be read, or is no terminal in the foreground",
            &[("BROWSER", "/bin/true")],
            &["--flow=paste"],
        ),
        (
            "nobody can paste the answer: standard input may not be read, or is no terminal in the foreground",
            &[],
            &["--flow=paste", "--interactive=always"],
        ),
    ];
    for (expected, variables, flags) in situations {
        for interactive in [true, false] {
            let run = away_from_any_terminal(&sandbox, &provider).without_env("BROWSER").silent_stdin().args(*flags);
            let run = variables.iter().fold(run, |run, (name, value)| run.env(name, value));
            let output = run.exec_info("v1", interactive).run();
            assert_eq!((output.code, output.stdout.as_str()), (3, ""), "{expected}: {output}");
            assert_eq!(reason(&output.stderr), *expected, "{output}");
            assert!(output.stderr.contains("hint: run `kubectl headlamp login "), "{output}");
        }
    }
    assert_eq!(sandbox.opened().len(), 0);
}

#[test]
fn a_browser_that_fails_at_once_with_nobody_there_is_exit_3() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.launcher(Launcher::Fails(7));
    assert_snapshot!(away_from_any_terminal(&sandbox, &provider).exec_info("v1", false).run(), @"
    exit 3
    stderr:
    A browser was opened; if you do not see it, open this address to sign in to [ISSUER]:

      http://localhost:[PORT]/start/[START]

    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: no browser could be started: `[SANDBOX]/browser/browser` failed (exit status: 7)

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
    let missing = away_from_any_terminal(&sandbox, &provider).env("BROWSER", "/nowhere/browser").run();
    assert_snapshot!(missing, @"
    exit 3
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: no browser could be started: `/nowhere/browser`: No such file or directory (os error 2)

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
}

#[test]
fn whoever_says_that_somebody_is_there_is_believed() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let run = away_from_any_terminal(&sandbox, &provider).without_env("BROWSER").silent_stdin();
    let output = run.exec_info("v1", false).arg("--interactive=always").run().succeeded();
    assert!(output.stderr.contains("and enter the code"), "{output}");
}

#[test]
fn a_code_to_type_elsewhere_is_offered_where_it_can_be_seen() {
    let provider = Provider::start();
    for interactive in [true, false] {
        let sandbox = Sandbox::new(BINARY);
        let run = sandbox.get_token(&provider).without_env("BROWSER").exec_info("v1", interactive);
        let output = run.terminal().wait().succeeded();
        assert!(output.stderr.contains("and enter the code"), "{output}");
    }
}

#[test]
fn what_stderr_hides_is_shown_on_the_terminal_itself() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let script = "$HEADLAMP 2>stderr; code=$?; /bin/cat stderr >/dev/null; exit $code";
    let output = shell(&sandbox, &provider, script).without_env("BROWSER").exec_info("v1", false).terminal().wait();
    assert!(output.stderr.contains("and enter the code"), "{output}");
    let logged = std::fs::read_to_string(sandbox.path("work/stderr")).unwrap();
    assert!(logged.contains("and enter the code"), "{logged}");
    let _ = output.succeeded().token();
}

#[test]
fn pasting_is_offered_only_where_stdin_may_be_read() {
    let provider = without_device_flow();
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).without_env("BROWSER").exec_info("v1", true);
    let mut terminal = run.may_show(SecretKind::State).may_show(SecretKind::Nonce).terminal();
    terminal.expect("paste it here:");
    terminal.send("\u{4}");
    assert_eq!(terminal.wait().code, 4);
    let sandbox = Sandbox::new(BINARY);
    let run = sandbox.get_token(&provider).without_env("BROWSER").exec_info("v1", false);
    assert_snapshot!(run.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").terminal().wait(), @"
    exit 3
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: this is a container

    hint: run `kubectl headlamp login --issuer-url [ISSUER] --client-id kubernetes` in a terminal, then repeat your command
    ");
}

#[test]
fn beside_a_browser_pasting_is_offered_only_where_stdin_may_be_read() {
    let provider = Provider::start();
    for interactive in [Some(true), None, Some(false)] {
        let sandbox = Sandbox::new(BINARY);
        let run = sandbox.get_token(&provider);
        let run = if let Some(may_read) = interactive { run.exec_info("v1", may_read) } else { run };
        let output = run.terminal().wait().succeeded();
        assert_eq!(output.stderr.contains("or paste here the address"), interactive != Some(false), "{output}");
    }
}

#[test]
fn what_is_piped_to_kubectl_is_left_to_kubectl() {
    let provider = Provider::start();
    for interactive in [false, true] {
        let sandbox = Sandbox::new(BINARY);
        let script = "printf 'kind: Pod\\n' | { $HEADLAMP >/dev/null || exit 9; read line; echo \"left: $line\"; }";
        let output = shell(&sandbox, &provider, script).exec_info("v1", interactive).terminal().wait();
        assert_eq!(output.stdout, "left: kind: Pod\n", "spec.interactive {interactive}: {output}");
        assert_eq!(sandbox.opened().len(), 1);
    }
}

#[test]
fn what_is_typed_while_a_sign_in_waits_is_left_to_the_reader_that_it_is_for() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let script = "$HEADLAMP >/dev/null || exit 9; read line; echo \"left: $line\"";
    let terminal = shell(&sandbox, &provider, script).exec_info("v1", false).terminal();
    let start = sandbox.wait_for_browser(1);
    terminal.send_line("yes, delete it");
    assert_eq!(Browser::new().open(&start).unwrap().status, 200);
    assert_eq!(terminal.wait().stdout, "left: yes, delete it\n");
}

#[test]
fn a_job_in_the_background_signs_in_without_being_stopped() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    // A job that reads the terminal, or changes its mode, is stopped there and waited for in vain.
    let script = "set -m; $HEADLAMP >/dev/null & wait $!; echo \"ended with $?\"";
    let output = shell(&sandbox, &provider, script).exec_info("v1", true).terminal().wait();
    assert_eq!(output.stdout, "ended with 0\n", "{output}");
    assert_eq!(sandbox.opened().len(), 1);
}
