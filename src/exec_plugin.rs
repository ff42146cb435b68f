//! Another program's exec credential: runs a plugin of the kubeconfig once and reads its answer
//! (KEP-541, `client.authentication.k8s.io`), as kubectl does.
//!
//! Its stderr is ours, because that is where it speaks to people; its stdin is ours only where it
//! may ask one. Nothing of its arguments, variables and answer stands in an error.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::kubeconfig::ClusterEntry;
use crate::kubeconfig_user::{InteractiveMode, PluginEntry};
use crate::secret::Secret;
use crate::tls::{self, ClientIdentity};

/// A token, a client certificate, or both. No `Debug`.
pub(crate) struct Answer {
    pub(crate) token: Option<Secret>,
    pub(crate) certificate: Option<ClientIdentity>,
    pub(crate) expires: Option<Timestamp>,
}

/// How long a plugin may take that can ask nobody.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of its answer.
const LARGEST_ANSWER: u64 = 1024 * 1024;
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
const VARIABLE: &str = "KUBERNETES_EXEC_INFO";

/// Runs the plugin; it is killed when this is dropped. `stdin` says whether ours may be read: it is
/// a terminal, and we are in its foreground. As long as a person may be asked there is no time
/// limit.
pub(crate) async fn run(
    entry: &PluginEntry,
    cluster: &ClusterEntry,
    environment: &Environment,
    stdin: bool,
) -> Result<Answer> {
    let interactive = match entry.interactive_mode {
        InteractiveMode::Never => false,
        InteractiveMode::IfAvailable => stdin,
        InteractiveMode::Always if stdin => true,
        InteractiveMode::Always => {
            return Err(Error::new(
                Kind::SignInNeeded,
                format!("`{}` must ask a person, and none can be asked", entry.command),
            )
            .cause("its `interactiveMode` is `Always`, and standard input is no terminal in the foreground"));
        }
    };
    let child = start(entry, cluster, environment, interactive)?;
    within(entry, child, if interactive { None } else { Some(TIME_LIMIT) }).await
}

fn start(entry: &PluginEntry, cluster: &ClusterEntry, environment: &Environment, interactive: bool) -> Result<Child> {
    if !VERSIONS.contains(&entry.api_version.as_str()) {
        return Err(Error::settings(format!(
            "`{}` cannot be asked in the version `{}`",
            entry.command, entry.api_version
        ))
        .hint(format!("write `apiVersion: {}` in the user's `exec` entry, if the program speaks it", VERSIONS[0])));
    }
    let question = question(entry, cluster, interactive)?;
    let variables = entry.variables.iter().cloned().chain([(VARIABLE.to_owned(), question)]);
    let relative = entry.command.contains(std::path::is_separator);
    let mut command =
        if relative { Command::new(entry.folder.join(&entry.command)) } else { Command::new(&entry.command) };
    command
        .args(&entry.arguments)
        .env_clear()
        .envs(environment.overlaid(variables).all())
        .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command.spawn().map_err(|error| {
        let cannot =
            Error::settings(format!("cannot run `{}`, which the kubeconfig's user signs in with", entry.command))
                .caused_by(&error);
        match &entry.install_hint {
            Some(hint) => cannot.hint(hint),
            None => cannot.hint("install it, or put its folder on `PATH`"),
        }
    })
}

/// What the plugin is told of us.
fn question(entry: &PluginEntry, cluster: &ClusterEntry, interactive: bool) -> Result<String> {
    let mut spec = Map::new();
    if entry.provide_cluster_info {
        spec.insert("cluster".to_owned(), cluster_info(cluster)?);
    }
    spec.insert("interactive".to_owned(), interactive.into());
    Ok(json!({"kind": "ExecCredential", "apiVersion": entry.api_version, "spec": spec}).to_string())
}

fn cluster_info(cluster: &ClusterEntry) -> Result<Value> {
    let authority = tls::authority_pem(cluster)?.map(|pem| STANDARD.encode(pem));
    let mut info = Map::new();
    info.insert("server".to_owned(), cluster.server.as_str().into());
    let mut given = |name: &str, value: Option<Value>| info.extend(value.map(|value| (name.to_owned(), value)));
    given("tls-server-name", cluster.tls_server_name.as_deref().map(Into::into));
    given("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify.then(|| true.into()));
    given("certificate-authority-data", authority.map(Into::into));
    given("proxy-url", cluster.proxy_url.as_deref().map(Into::into));
    given("disable-compression", cluster.disable_compression.then(|| true.into()));
    given("config", cluster.exec_config.clone());
    Ok(info.into())
}

async fn within(entry: &PluginEntry, child: Child, limit: Option<Duration>) -> Result<Answer> {
    let Some(limit) = limit else { return ended(entry, child).await };
    tokio::time::timeout(limit, ended(entry, child)).await.unwrap_or_else(|_| {
        Err(Error::sign_in_failed(format!("`{}` did not finish within {} s", entry.command, limit.as_secs()))
            .hint("run `kubectl get --raw /version` in a terminal, where it may ask you"))
    })
}

async fn ended(entry: &PluginEntry, mut child: Child) -> Result<Answer> {
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(LARGEST_ANSWER + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| bad_answer(entry, "it cannot be read").caused_by(&error))?;
    }
    if bytes.len() as u64 > LARGEST_ANSWER {
        return Err(bad_answer(entry, "it is longer than 1 MiB"));
    }
    let status = child.wait().await.map_err(|error| bad_answer(entry, "its end was missed").caused_by(&error))?;
    if !status.success() {
        return Err(Error::sign_in_failed(format!("`{}` {}", entry.command, how_it_ended(status)))
            .hint("what it said stands above; `kubectl get --raw /version` runs it too"));
    }
    answer(entry, &bytes)
}

fn how_it_ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    status.code().map_or_else(|| "failed".to_owned(), |code| format!("failed with exit code {code}"))
}

fn bad_answer(entry: &PluginEntry, what: &str) -> Error {
    Error::new(Kind::Other, format!("the answer of `{}` is no use", entry.command)).cause(what)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    kind: String,
    api_version: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<Secret>,
    client_certificate_data: Option<Secret>,
    client_key_data: Option<Secret>,
    expiration_timestamp: Option<String>,
}

fn answer(entry: &PluginEntry, bytes: &[u8]) -> Result<Answer> {
    let bad = |what: &str| bad_answer(entry, what);
    let credential: Credential = serde_json::from_slice(bytes).map_err(|error| {
        // The parser's own words would quote the answer.
        let what = if error.is_data() { "it is no `ExecCredential`" } else { "it is not JSON" };
        bad(&format!("{what} (line {}, column {})", error.line(), error.column()))
    })?;
    if credential.kind != "ExecCredential" {
        return Err(bad("its `kind` is not `ExecCredential`"));
    }
    if credential.api_version != entry.api_version {
        let version = format!("its version is `{}`, asked for was `{}`", credential.api_version, entry.api_version);
        return Err(bad(&version)
            .hint("the `apiVersion` of the user's `exec` entry must be the one that the program answers in"));
    }
    let status = credential.status.ok_or_else(|| bad("it has no `status`"))?;
    let given = |secret: Option<Secret>| secret.filter(|secret| !secret.is_empty());
    let token = given(status.token);
    let certificate = match (given(status.client_certificate_data), given(status.client_key_data)) {
        (Some(certificate), Some(key)) => Some(
            ClientIdentity::from_pem(certificate.expose().as_bytes(), &key)
                .map_err(|what| bad(&format!("of its client certificate: {what}")))?,
        ),
        (None, None) => None,
        _ => return Err(bad("it has a client certificate without its key, or the key alone")),
    };
    if token.is_none() && certificate.is_none() {
        return Err(bad("it has neither a token nor a client certificate"));
    }
    let expires = match status.expiration_timestamp.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| bad("its `expirationTimestamp` is no time in RFC 3339"))?),
    };
    Ok(Answer { token, certificate, expires })
}

#[cfg(all(test, unix))]
mod tests;
