//! `login`: nothing is typed twice, and what is typed wins.

use headlamp_test_support::{Endpoint, Provider, Sandbox, exec_entry};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::BINARY;

/// A kubeconfig with these users, each with a context of the same name; the first is current.
pub(crate) fn kubeconfig(users: &[(&str, Value)]) -> Value {
    let named = |kind: &str, name: &str, value: Value| {
        let mut entry = json!({"name": name});
        entry[kind] = value;
        entry
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": users[0].0,
        "clusters": [named("cluster", "dev", json!({"server": "https://127.0.0.1:1"}))],
        "users": users.iter().map(|(name, user)| named("user", name, user.clone())).collect::<Vec<_>>(),
        "contexts": users
            .iter()
            .map(|(name, _)| named("context", name, json!({"cluster": "dev", "user": name})))
            .collect::<Vec<_>>(),
    })
}

/// A user with an exec entry of ours for this provider.
pub(crate) fn user(sandbox: &Sandbox, provider: &Provider, more: &[&str]) -> Value {
    let words = ["get-token".to_owned()].into_iter().chain(sandbox.flags(provider));
    let arguments: Vec<String> = words.chain(more.iter().map(|&word| word.to_owned())).collect();
    json!({"exec": exec_entry("kubectl-headlamp", &arguments)})
}

/// The scopes that the last sign-in asked for, sorted.
fn scopes(provider: &Provider) -> Vec<String> {
    let request = provider.requests(Endpoint::Authorize).pop().unwrap();
    let mut scopes: Vec<String> = request.parameter("scope").unwrap().split(' ').map(str::to_owned).collect();
    scopes.sort();
    scopes
}

#[test]
fn a_login_takes_everything_from_the_current_contexts_entry_whoever_it_was_written_for() {
    let provider = Provider::start();
    let theirs = |words: &[&str]| {
        let issuer = format!("--oidc-issuer-url={}", provider.issuer());
        let flags = ["get-token", &issuer, "--oidc-client-id=kubernetes", "--listen-address=127.0.0.1:0"];
        [words, &flags[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = |words: &[&str]| {
        let issuer = format!("--issuer-url={}", provider.issuer());
        let flags = ["get-token", &issuer, "--client-id=kubernetes", "--listen-address=localhost:0"];
        [words, &flags[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (command, arguments) in [
        ("kubectl-headlamp", ours(&[])),
        ("/opt/bin/kubectl-headlamp", ours(&[])),
        ("kubectl", ours(&["headlamp"])),
        ("kubectl", theirs(&["oidc-login"])),
        ("kubelogin", theirs(&[])),
        ("kubectl-oidc_login", theirs(&[])),
    ] {
        let sandbox = Sandbox::new(BINARY);
        sandbox.know(&provider);
        sandbox.write_kubeconfig(&kubeconfig(&[("dev", json!({"exec": exec_entry(command, &arguments)}))]));
        let output = sandbox.command(["login", "--hide-url"]).run();
        assert_eq!(output.to_string(), SIGNED_IN, "{command} {arguments:?}");
        assert!(sandbox.visit().body.contains("dev"), "the page names the cluster");
    }
}

const SIGNED_IN: &str = "exit 0\nstderr:\n\
    signed in to [ISSUER] as Jane Doe (jane@example.com): the token is good for 59 min, and renewed by itself";

#[test]
fn a_login_signs_in_whatever_the_cache_says() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&kubeconfig(&[("dev", user(&sandbox, &provider, &[]))]));
    for count in 1..=2 {
        let _ = sandbox.command(["login"]).run().succeeded();
        assert_eq!(provider.token_requests("authorization_code").len(), count);
    }
    provider.forget_requests();
    let _ = sandbox.get_token(&provider).run().succeeded();
    assert_eq!(provider.all_requests().len(), 0, "kubectl finds the token that `login` left");
}

#[test]
fn contexts_users_files_and_lists_of_files_choose_the_entry() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&kubeconfig(&[("certificate", json!({"client-certificate-data": "QQ=="}))]));
    let second = kubeconfig(&[
        ("plain", user(&sandbox, &provider, &[])),
        ("wide", user(&sandbox, &provider, &["--scope=email"])),
    ]);
    let second = sandbox.write("second", second.to_string()).display().to_string();
    let list = format!("{}:{}:{second}", sandbox.path("missing").display(), sandbox.kubeconfig_path().display());
    let login = |words: &[&str]| sandbox.command(["login"]).args(words).env("KUBECONFIG", &list);
    let wide = ["email", "offline_access", "openid"];
    for (words, expected) in [
        (&["--context=plain"][..], &wide[1..]),
        (&["--context=wide"], &wide[..]),
        (&["--user=wide"], &wide[..]),
        (&["--kubeconfig", &second], &wide[1..]),
        (&["--kubeconfig", &second, "--user", "wide"], &wide[..]),
        (&["--context=plain", "--scope=email"], &wide[..]),
    ] {
        let _ = login(words).run().succeeded();
        assert_eq!(scopes(&provider), expected, "{words:?}");
    }
    assert_snapshot!(login(&[]).run(), @"
    exit 5
    stderr:
    kubectl-headlamp: error: the user `certificate` of the context `certificate` signs in with a client certificate, not through a provider

    hint: choose a context with a provider: `kubectl headlamp login --context plain`
    hint: or name the provider: `kubectl headlamp login --issuer-url <url> --client-id <id>`
    ");
    assert_snapshot!(login(&["--context=nowhere"]).run(), @"
    exit 5
    stderr:
    kubectl-headlamp: error: no context `nowhere` in `[SANDBOX]/kubeconfig`, `[SANDBOX]/second`

    hint: contexts that are there: `certificate`, `plain`, `wide`
    ");
    assert_snapshot!(sandbox.command(["login", "--kubeconfig=nowhere"]).run(), @"
    exit 5
    stderr:
    kubectl-headlamp: error: cannot read the kubeconfig `[SANDBOX]/work/nowhere`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn a_login_that_nobody_sees_says_where_to_run_it() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.login(&provider).args(["--interactive=never"]).run();
    assert_snapshot!(output, @"
    exit 3
    stderr:
    kubectl-headlamp: error: you are not signed in to `[ISSUER]`, and nobody can be asked
      caused by: `--interactive=never` is set

    hint: run this in a terminal; a client that signs in as itself needs nobody: `--flow client-credentials`
    ");
}

#[test]
fn flags_lie_over_the_entry() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&kubeconfig(&[("dev", user(&sandbox, &provider, &["--prompt=login", "--scope=email"]))]));
    let _ =
        sandbox.command(["login", "--login-hint=jane", "--prompt=select_account", "--scope=groups"]).run().succeeded();
    let request = provider.requests(Endpoint::Authorize).pop().unwrap();
    assert_eq!(request.parameter("login_hint").as_deref(), Some("jane"));
    assert_eq!(request.parameter("prompt").as_deref(), Some("select_account"));
    assert_eq!(scopes(&provider), ["groups", "offline_access", "openid"]);
}

#[test]
fn a_login_with_flags_alone_prints_the_line_that_makes_the_kubeconfigs_user() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.login(&provider).args(["--hide-url", "--scope=a b", "--prompt=login", "-v"]).run();
    assert_eq!(output.code, 0, "{output}");
    let line = output.stdout.replace(provider.issuer(), "[ISSUER]");
    assert_snapshot!(line, @"kubectl config set-credentials oidc --exec-api-version=client.authentication.k8s.io/v1 --exec-interactive-mode=IfAvailable --exec-command=kubectl-headlamp --exec-arg=get-token --exec-arg=--issuer-url=[ISSUER] --exec-arg=--client-id=kubernetes --exec-arg='--scope=a b' --exec-arg=--listen-address=localhost:0 --exec-arg=--hide-url=true");
    assert_eq!(output.stdout.lines().count(), 1);
}

#[cfg(unix)]
#[test]
fn the_printed_line_makes_a_kubeconfig_that_kubectl_works_with() {
    use headlamp_test_support::ApiServer;
    use headlamp_test_support::real::kubectls;

    let Some(kubectl) = kubectls().and_then(|mut found| found.pop()) else { return };
    let provider = Provider::start();
    let api_server = ApiServer::start(provider.authenticator());
    let sandbox = Sandbox::new(BINARY);
    sandbox.link_program("kubectl", &kubectl);
    sandbox.link_program("kubectl-headlamp", BINARY.as_ref());
    let line = sandbox.login(&provider).run().succeeded().stdout;
    sandbox.write_kubeconfig(&api_server.kubeconfig(&json!({"command": "none"})));
    let script = format!("{} && kubectl config set-context --current --user=oidc && kubectl get pods", line.trim_end());
    let output = sandbox.program("/bin/sh".as_ref(), ["-c", &script]).run().succeeded();
    assert!(output.stdout.contains("hello-6c8f7d9b4c-x2x8q"), "{output}");
    assert_eq!(sandbox.opened().len(), 1, "the login's own browser");
}

#[test]
fn a_login_that_would_come_to_nothing_is_refused() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    assert_snapshot!(sandbox.login(&provider).arg("--token-storage=none").run(), @"
    exit 5
    stderr:
    kubectl-headlamp: error: signing in would come to nothing: `--token-storage none` keeps no token
    ");
}

#[test]
fn a_flag_has_a_variable_and_wins_over_it() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.client_secret = Some("a-secret-in-a-variable".into()));
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&provider);
    let cache = sandbox.cache_folder().join("elsewhere");
    let run = |arguments: &[&str]| {
        let variables = [
            ("ISSUER_URL", provider.issuer()),
            ("CLIENT_ID", "kubernetes"),
            ("CLIENT_SECRET", "a-secret-in-a-variable"),
            ("LISTEN_ADDRESS", "localhost:0"),
            ("SCOPE", "email groups"),
            ("AUTH_PARAM", "one=1 two=2"),
            ("REQUEST_HEADER", "x-team=blue"),
            ("LOGIN_HINT", "jane"),
            ("PROMPT", "consent"),
            ("HIDE_URL", "true"),
            ("CACHE_DIR", cache.to_str().unwrap()),
        ];
        let run = sandbox.command(["get-token"]).args(arguments);
        variables.iter().fold(run, |run, (name, value)| run.env(format!("KUBECTL_HEADLAMP_{name}"), value)).run()
    };
    let output = run(&[]).succeeded();
    assert_eq!(output.stderr, "");
    let request = provider.requests(Endpoint::Authorize).pop().unwrap();
    for (name, value) in [("one", "1"), ("two", "2"), ("login_hint", "jane"), ("prompt", "consent")] {
        assert_eq!(request.parameter(name).as_deref(), Some(value));
    }
    assert_eq!(scopes(&provider), ["email", "groups", "offline_access", "openid"]);
    assert!(provider.token_requests("authorization_code")[0].header("x-team") == Some("blue"));
    assert!(cache.is_dir() && sandbox.cache_files() == [cache.clone()]);
    let _ = run(&["--login-hint=john", "--scope=profile"]).succeeded();
    let request = provider.requests(Endpoint::Authorize).pop().unwrap();
    assert_eq!(request.parameter("login_hint").as_deref(), Some("john"));
    assert_eq!(scopes(&provider), ["offline_access", "openid", "profile"]);
}

#[test]
fn no_variable_of_a_choice_a_switch_or_a_time_is_overlooked() {
    let sandbox = Sandbox::new(BINARY);
    let help = sandbox.command(["get-token", "--help"]).run().succeeded().stdout;
    let mut tried = 0;
    for line in help.lines().map(|line| line.trim().trim_start_matches("-v, ")).filter(|line| line.starts_with("--")) {
        let (flag, value) = line[2..].split_once([' ', '[']).unwrap_or((&line[2..], ""));
        let kind = value.trim_matches(['<', '>', '[', ']', '=']);
        if !["BOOL", "KIND", "METHOD", "TYPE", "WHEN", "FLOW", "WHERE", "LEVEL", "TIME"].contains(&kind) {
            continue;
        }
        let variable = format!("KUBECTL_HEADLAMP_{}", flag.to_uppercase().replace('-', "_"));
        let run = sandbox.command(["get-token", "--issuer-url=https://id.invalid", "--client-id=c"]);
        let output = run.env(variable, "no-such-value").run();
        assert_eq!(output.code, 2, "{flag}: {output}");
        assert!(output.stderr.contains("no-such-value") && output.stderr.contains(&format!("--{flag}")), "{output}");
        tried += 1;
    }
    assert!(tried >= 15, "{tried}: {help}");
}

#[test]
fn a_client_secret_comes_from_a_file_a_command_or_a_variable() {
    let secret = "a-secret-that-nobody-sees";
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.client_secret = Some(secret.into()));
    let sandbox = Sandbox::new(BINARY);
    let file = sandbox.write("secret", format!("{secret}\n")).display().to_string();
    let from_file = format!("--client-secret-file={file}");
    let from_command = format!("--client-secret-command=/bin/cat '{file}'");
    for method in ["basic", "post"] {
        let authentication = format!("--client-authentication={method}");
        for source in [&from_file, &from_command] {
            let output = sandbox.login(&provider).args([&authentication, source]).run().succeeded();
            assert!(!output.stdout.contains(secret));
            let request = provider.token_requests("authorization_code").pop().unwrap();
            assert_eq!(request.header("authorization").is_some(), method == "basic");
        }
    }
    let output = sandbox.login(&provider).env("KUBECTL_HEADLAMP_CLIENT_SECRET", secret).run().succeeded();
    assert!(!output.stdout.contains("secret"), "{output}");
    let output = sandbox.login(&provider).arg(format!("--client-secret={secret}")).run().succeeded();
    assert!(output.stdout.contains("--exec-arg='--client-secret-file=<file>'"), "{output}");
}
