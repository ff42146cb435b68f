//! `cargo bench --bench kubectl_get`: what `kubectl get --raw /version` costs with our exec entry,
//! whose token is cached, against a static token, in the same run. Read the ratios.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for developers"
)]

mod measure;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use headlamp_test_support::api_server::{ApiServer, exec_entry};
use headlamp_test_support::provider::Provider;
use measure::{Contestant, on_path, race};

const ROUNDS: usize = 200;

fn main() {
    let Some(kubectl) = on_path("kubectl") else {
        println!("kubectl get --raw: kubectl not found on PATH");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start();
    let api_server = ApiServer::start(provider.authenticator());
    let mut binaries =
        vec![("exec entry, cargo build --release", PathBuf::from(env!("CARGO_BIN_EXE_kubectl-headlamp")))];
    #[cfg(target_os = "linux")]
    binaries.insert(0, ("exec entry, as released (static)", measure::released_binary()));

    let arguments = arguments(&provider);
    let mut contestants = Vec::new();
    for (number, (name, binary)) in binaries.iter().enumerate() {
        let entry = exec_entry(&binary.display().to_string(), &arguments);
        let kubeconfig = folder.path().join(format!("exec-{number}"));
        std::fs::write(&kubeconfig, api_server.kubeconfig(&entry).to_string()).unwrap();
        let get = get(&kubectl, &kubeconfig, folder.path());
        contestants.push(Contestant::new(*name, get));
    }
    // The first run signs in.
    let signed_in = get(&kubectl, &folder.path().join("exec-0"), folder.path()).stdout(Stdio::null()).status().unwrap();
    assert!(signed_in.success(), "kubectl could not use the exec entry");

    let token = api_server.bearer_tokens().pop().expect("kubectl sent a token");
    let mut static_token = api_server.kubeconfig(&exec_entry("none", &[]));
    let user = static_token.pointer_mut("/users/0/user").expect("a kubeconfig has a user");
    *user = serde_json::json!({ "token": token });
    let kubeconfig = folder.path().join("static");
    std::fs::write(&kubeconfig, static_token.to_string()).unwrap();
    contestants.insert(0, Contestant::new("static token", get(&kubectl, &kubeconfig, folder.path())));

    println!("kubectl get --raw /version:");
    race(&mut contestants, ROUNDS);
    assert_eq!(provider.token_requests("password").len(), 1, "a run asked the provider");
}

fn arguments(provider: &Provider) -> Vec<String> {
    let mut arguments = Vec::new();
    provider.set(|behaviour| {
        arguments = vec![
            "get-token".to_owned(),
            format!("--issuer-url={}", provider.issuer()),
            format!("--client-id={}", behaviour.client_id),
            "--flow=password".to_owned(),
            format!("--username={}", behaviour.person.email),
            format!("--password={}", behaviour.person.password),
        ];
    });
    arguments
}

fn get(kubectl: &Path, kubeconfig: &Path, home: &Path) -> Command {
    let mut command = Command::new(kubectl);
    command.args(["get", "--raw", "/version"]).env_clear();
    command.env("HOME", home).env("PATH", "/usr/bin:/bin").env("KUBECONFIG", kubeconfig);
    command
}
