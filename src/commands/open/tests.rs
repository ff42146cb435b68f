#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use clap::{Command, FromArgMatches};
use serde_json::json;

use super::*;

fn arguments(words: &str) -> Result<Arguments> {
    let command = Arguments::augment_args(Command::new("open")).no_binary_name(true);
    let matches = command.try_get_matches_from(words.split_whitespace()).unwrap();
    let arguments = Arguments::from_arg_matches(&matches).unwrap();
    arguments.check().map(|()| arguments)
}

/// As whoever signs in with this entry of ours.
fn callbacks_of(flags: &str) -> Vec<Callback> {
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "kubectl-headlamp",
        "interactiveMode": "IfAvailable", "args": format!(
            "get-token --issuer-url=https://id.example --client-id=c {flags}"
        ).split_whitespace().collect::<Vec<_>>()}});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "https://a.example"}}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let environment = Environment::from([("HOME", "/home/jane"), ("PATH", "/usr/bin")]);
    let arguments = arguments("").unwrap().cluster;
    let kubeconfig = kubeconfig::load(Some(&file), &environment).unwrap();
    let target = kubeconfig.target(&arguments.kubeconfig.selection(), &arguments.overrides()).unwrap();
    callbacks(&own_entry(&target, &environment).unwrap().unwrap())
}

#[test]
fn the_page_never_has_a_port_that_a_sign_in_comes_back_to() {
    let refused = |port: &str, entry: &str| {
        let checked = arguments(&format!("--port {port}")).unwrap().check_port(&callbacks_of(entry));
        checked.is_err_and(|error| error.kind() == Kind::Usage)
    };
    assert!(refused("8000", "") && !refused("20001", ""));
    assert!(refused("18000", "--redirect-url=http://localhost:18000/oidc-callback"));
    assert!(refused("8000", "--redirect-url=http://localhost:18000/oidc-callback"), "other clusters' sign-ins");
    assert!(refused("18000", "--listen-address=localhost:18000"));
    let apart = "--redirect-url=http://localhost:9000/a --listen-address=localhost:9001";
    assert!(refused("9000", apart) && refused("9001", apart) && !refused("9002", apart));
    assert!(refused("18000", "--oidc-issuer-url=https://id.example --oidc-client-id=c"), "kubelogin's second");
    let forwarded = arguments("--port 8000 --sign-in headlamp").unwrap();
    assert!(forwarded.check_port(&callbacks_of("")).is_ok());
}

#[test]
fn where_a_sign_in_comes_back_to_is_what_its_entry_says() {
    let callback = |redirect, listen| Callback { redirect, listen };
    assert_eq!(callbacks_of(""), [callback(8000, 8000)]);
    assert_eq!(callbacks_of("--listen-address=:0"), []);
    let apart = "--redirect-url=http://localhost:9000/a --listen-address=localhost:9001";
    assert_eq!(callbacks_of(apart), [callback(9000, 9001)]);
    let elsewhere = "--redirect-url=https://desk.example/a --listen-address=localhost:9001";
    assert_eq!(callbacks_of(elsewhere), [callback(9001, 9001)]);
}

#[test]
fn other_machines_are_let_in_only_when_that_is_said() {
    assert_eq!(arguments("--address 0.0.0.0 --expose-to-network").unwrap_err().kind(), Kind::Usage);
    assert_eq!(arguments("--address 10.0.0.1").unwrap_err().kind(), Kind::Usage);
    assert!(arguments("--address 127.0.0.2").is_ok());
    assert!(arguments("--address ::1").is_ok());
    assert!(arguments("--address 10.0.0.1 --expose-to-network").is_ok());
}

#[test]
fn a_hint_repeats_what_was_typed_but_the_token() {
    let words = |words: &str| {
        let command = Arguments::augment_args(Command::new("open")).no_binary_name(true);
        given(&command.try_get_matches_from(words.split_whitespace()).unwrap())
    };
    let given = |typed: &str| words(typed).join(" ");
    assert_eq!(given("--token s3cret -v"), "");
    let all = words("--service ui --context dev -n team --service-port http");
    let elsewhere = command(all.iter().filter(|word| !chooses(word)));
    assert_eq!(elsewhere, "kubectl headlamp open --context=dev --service-port=http");
    assert_eq!(command(["--path=/a b".to_owned()].iter()), "kubectl headlamp open '--path=/a b'");
    assert_eq!(
        given("--context dev --kubeconfig=/k --as jane --as-group a --as-group b --insecure-skip-tls-verify"),
        "--kubeconfig=/k --context=dev --insecure-skip-tls-verify=true --as=jane --as-group=a --as-group=b"
    );
    assert_eq!(
        given("--no-browser --path /c/main --sign-in headlamp --timeout 5m"),
        "--sign-in=headlamp --path=/c/main --no-browser --timeout=5m"
    );
}

#[test]
fn a_path_that_leads_elsewhere_is_refused_before_anything_is_asked() {
    for path in ["//evil.example", "/../x", "/.kubectl-headlamp/start/x", "/c%2fx"] {
        for mode in ["", " --sign-in headlamp"] {
            let error = arguments(&format!("--path {path}{mode}")).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.message().contains(path), "{error}");
        }
    }
    assert!(arguments("--path c/main/pods?namespace=a").is_ok());
}

#[test]
fn what_a_plain_forward_cannot_do_is_refused() {
    assert_eq!(arguments("--sign-in headlamp --ui /tmp").unwrap_err().kind(), Kind::Usage);
    assert_eq!(arguments("--sign-in headlamp --address 127.0.0.2").unwrap_err().kind(), Kind::Usage);
}
