#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use rustix::process::{Pid, test_kill_process};

use super::*;
use crate::api_connection::test_server::{Authority, until};
use crate::kubeconfig::CertificateAuthority;

/// An entry that runs this shell script.
fn script(text: &str) -> PluginEntry {
    PluginEntry {
        command: "sh".into(),
        arguments: vec!["-c".into(), text.into(), "plugin".into()],
        variables: Vec::new(),
        api_version: VERSIONS[0].into(),
        interactive_mode: InteractiveMode::IfAvailable,
        provide_cluster_info: false,
        install_hint: None,
        folder: "/k".into(),
    }
}

/// An entry whose program answers this.
fn answering(answer: &Value) -> PluginEntry {
    let mut entry = script("printf %s \"$1\"");
    entry.arguments.push(answer.to_string());
    entry
}

fn token(token: &str) -> Value {
    json!({"kind": "ExecCredential", "apiVersion": VERSIONS[0], "status": {"token": token}})
}

fn environment() -> Environment {
    Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("OURS", "ours"), ("BOTH", "ours")])
}

async fn run_it(entry: &PluginEntry) -> Result<Answer> {
    run(entry, &ClusterEntry::default(), &environment(), false).await
}

async fn refusal(entry: &PluginEntry) -> Error {
    run_it(entry).await.err().unwrap()
}

/// What a plugin with this entry is told, by writing it into a file.
async fn told(mut entry: PluginEntry, cluster: &ClusterEntry) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    entry.arguments[1] = format!("printf %s \"$KUBERNETES_EXEC_INFO\" > '{}'; printf %s \"$1\"", file.display());
    entry.arguments.push(token("t").to_string());
    run(&entry, cluster, &environment(), false).await.unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_and_its_end_are_read() {
    let mut credential = token("secret");
    credential["status"]["expirationTimestamp"] = "2030-01-02T03:04:05+01:00".into();
    let answer = run_it(&answering(&credential)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer.token, Some(Secret::new("secret")));
    assert_eq!(answer.expires, Some("2030-01-02T02:04:05Z".parse().unwrap()));
    for none in [Value::Null, "".into()] {
        credential["status"]["expirationTimestamp"] = none;
        assert_eq!(run_it(&answering(&credential)).await.map(|answer| answer.expires).ok(), Some(None));
    }
}

#[tokio::test]
async fn a_client_certificate_is_read_with_its_key_or_refused() {
    let (certificate, key) = Authority::new().pair(&[], "jane");
    let mut credential = token("");
    credential["status"]["clientCertificateData"] = certificate.into();
    assert!(refusal(&answering(&credential)).await.to_string().contains("without its key"));
    credential["status"]["clientKeyData"] = "hunter2".into();
    let error = refusal(&answering(&credential)).await.to_string();
    assert!(error.contains("no private key") && !error.contains("hunter2"), "{error}");
    credential["status"]["clientKeyData"] = key.into();
    let answer = run_it(&answering(&credential)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((answer.token, answer.certificate.is_some()), (None, true));
}

#[tokio::test]
async fn answers_that_are_no_use_are_told_apart_and_never_shown() {
    let status =
        |status: Value| json!({"kind": "ExecCredential", "apiVersion": VERSIONS[0], "status": status, "x": "hunter2"});
    for (answer, expected) in [
        (json!({"kind": "ExecCredential", "apiVersion": VERSIONS[1], "status": {"token": "hunter2"}}), "v1beta1"),
        (json!({"kind": "Hunter", "apiVersion": VERSIONS[0], "status": {"token": "hunter2"}}), "kind"),
        (json!({"kind": "ExecCredential", "apiVersion": VERSIONS[0], "x": "hunter2"}), "no `status`"),
        (json!({"status": {"token": "hunter2"}}), "no `ExecCredential`"),
        (json!(["hunter2"]), "no `ExecCredential`"),
        (status(json!({})), "neither"),
        (status(json!({"token": ""})), "neither"),
        (status(json!({"token": ["hunter2"]})), "no `ExecCredential`"),
        (status(json!({"token": "hunter2", "expirationTimestamp": "tomorrow"})), "RFC 3339"),
    ] {
        let error = refusal(&answering(&answer)).await.to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
    assert!(refusal(&script("echo hunter2")).await.to_string().contains("not JSON"));
    assert!(refusal(&script("true")).await.to_string().contains("not JSON"));
    assert!(refusal(&script("head -c 2000000 /dev/zero")).await.to_string().contains("longer than 1 MiB"));
}

#[tokio::test]
async fn a_program_that_fails_or_is_missing_is_named_with_its_hint_and_not_with_its_arguments() {
    let failed = refusal(&script("exit 7 # hunter2")).await;
    assert_eq!((failed.kind(), failed.message()), (Kind::SignInFailed, "`sh` failed with exit code 7"));
    assert!(!failed.to_string().contains("hunter2"));
    assert_eq!(refusal(&script("kill -9 $$")).await.message(), "`sh` was ended by signal 9");
    let hint = Some("brew install\n  plugin".into());
    let missing =
        refusal(&PluginEntry { command: "no-such-plugin".into(), install_hint: hint, ..script("hunter2") }).await;
    assert_eq!((missing.kind(), missing.hints()), (Kind::Settings, &["brew install plugin".to_owned()][..]));
    assert!(missing.message().contains("`no-such-plugin`") && !missing.to_string().contains("hunter2"), "{missing}");
    let old = refusal(&PluginEntry { api_version: "client.authentication.k8s.io/v1alpha1".into(), ..script("") }).await;
    assert!(old.to_string().contains("v1alpha1"), "{old}");
}

#[tokio::test]
async fn a_command_with_a_slash_is_relative_to_the_kubeconfigs_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("bin/plugin")).unwrap();
    let mut entry =
        PluginEntry { command: "./bin/plugin".into(), folder: folder.path().into(), ..answering(&token("t")) };
    assert!(run_it(&entry).await.is_ok());
    entry.folder = Path::new("/k").into();
    assert!(run_it(&entry).await.is_err());
    entry.command = "/bin/sh".into();
    assert!(run_it(&entry).await.is_ok());
}

#[tokio::test]
async fn a_plugin_has_our_environment_with_its_entrys_over_it() {
    let mut entry = script("[ \"$OURS$BOTH$THEIRS\" = ourstheirstheirs ] && printf %s \"$1\"");
    entry.arguments.push(token("t").to_string());
    entry.variables = vec![("BOTH".into(), "theirs".into()), ("THEIRS".into(), "theirs".into())];
    assert!(run_it(&entry).await.is_ok());
}

#[tokio::test]
async fn the_question_names_the_cluster_only_where_it_is_asked_for() {
    let cluster = ClusterEntry {
        name: "k".into(),
        server: "https://k.example".into(),
        certificate_authority: Some(CertificateAuthority::Data("QUJD".into())),
        insecure_skip_tls_verify: true,
        tls_server_name: Some("api".into()),
        proxy_url: Some("socks5://p".into()),
        disable_compression: true,
        exec_config: Some(json!({"audience": "k"})),
    };
    let plain = told(script(""), &cluster).await;
    assert_eq!(plain, json!({"kind": "ExecCredential", "apiVersion": VERSIONS[0], "spec": {"interactive": false}}));
    let info = told(PluginEntry { provide_cluster_info: true, ..script("") }, &cluster).await;
    let expected = json!({
        "server": "https://k.example",
        "tls-server-name": "api",
        "insecure-skip-tls-verify": true,
        "certificate-authority-data": "QUJD",
        "proxy-url": "socks5://p",
        "disable-compression": true,
        "config": {"audience": "k"},
    });
    assert_eq!(info["spec"]["cluster"], expected);
    let least = ClusterEntry { server: "https://k.example".into(), ..ClusterEntry::default() };
    let info = told(PluginEntry { provide_cluster_info: true, ..script("") }, &least).await;
    assert_eq!(info["spec"]["cluster"], json!({"server": "https://k.example"}));
}

#[tokio::test]
async fn a_plugin_that_may_ask_nobody_reads_an_empty_stdin() {
    for mode in [InteractiveMode::Never, InteractiveMode::IfAvailable] {
        let mut entry = script("cat >/dev/null; printf %s \"$1\"");
        entry.arguments.push(token("t").to_string());
        assert!(run_it(&PluginEntry { interactive_mode: mode, ..entry }).await.is_ok());
    }
    let always = refusal(&PluginEntry { interactive_mode: InteractiveMode::Always, ..script("") }).await;
    assert_eq!(always.kind(), Kind::SignInNeeded);
    let never = PluginEntry { interactive_mode: InteractiveMode::Never, ..script("") };
    let question =
        |entry, stdin| question(entry, &ClusterEntry::default(), stdin).unwrap_or_else(|error| panic!("{error}"));
    assert!(question(&never, true).contains("\"interactive\":true"));
}

#[tokio::test]
async fn a_plugin_is_killed_at_its_deadline_and_when_nobody_waits_any_more() {
    let gone = |pid: i32| test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
    let entry = script("exec sleep 600");
    let child =
        start(&entry, &ClusterEntry::default(), &environment(), false).unwrap_or_else(|error| panic!("{error}"));
    let pid = child.id().unwrap().try_into().unwrap();
    assert!(!gone(pid));
    let began = Instant::now();
    let late = within(&entry, child, Some(Duration::from_millis(300))).await.err().unwrap();
    assert_eq!(late.kind(), Kind::SignInFailed);
    assert!(began.elapsed() < Duration::from_secs(10), "{late}");
    until("the late one is gone", || gone(pid)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let entry = script(&format!("echo $$ > '{}'; exec sleep 600", file.display()));
    let waiting = tokio::spawn(async move { run_it(&entry).await.is_ok() });
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    // The file is there before anything stands in it.
    until("it runs", || written().ends_with('\n')).await;
    let pid = written().trim().parse().unwrap();
    waiting.abort();
    until("the dropped one is gone", || gone(pid)).await;
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused_without_being_shown(secret in "[a-z]{20}", cut in 0usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let entry = script("");
        let whole = token(&secret).to_string();
        prop_assert!(answer(&entry, whole.as_bytes()).is_ok());
        let mut broken = whole.as_bytes()[..cut.min(whole.len() - 1)].to_vec();
        broken.extend(bytes);
        if let Err(error) = answer(&entry, &broken) {
            prop_assert!(!error.to_string().contains(&secret));
        }
    }
}
