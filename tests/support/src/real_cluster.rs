//! A real cluster, given by environment variables, that trusts the certified provider: one trust
//! and one namespace for all tests of a run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::real::{kubectls, part, when_this_process_ends};
use crate::real_provider::{BASIC_CLIENT, CLIENT, GROUP, POST_CLIENT, RESOURCE, RealProvider, STEADY_CLIENT};

/// The cluster, ready for people who sign in at the provider.
pub struct RealCluster {
    /// Where members of the group may edit.
    pub namespace: String,
    /// Who signs its people in.
    pub provider: &'static RealProvider,
    admin: PathBuf,
    kubectl: PathBuf,
    cluster: Value,
}

impl RealCluster {
    /// The cluster of this run, prepared by whoever asks first.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<RealCluster>> = OnceLock::new();
        SHARED.get_or_init(Self::prepare).as_ref()
    }

    fn prepare() -> Option<Self> {
        let given = env::var_os("HEADLAMP_TEST_KUBECONFIG").zip(env::var("HEADLAMP_TEST_TRUST").ok());
        let how = "needs HEADLAMP_TEST_KUBECONFIG, an administrator's kubeconfig, and HEADLAMP_TEST_TRUST, a command";
        let (admin, trust) = part("a cluster", how, given)?;
        let (admin, provider) = (PathBuf::from(admin), RealProvider::shared()?);
        let kubectl = kubectls()?.pop()?;
        run_shell(&trust, &trust_arguments(provider));
        when_this_process_ends(&["sh", "-c", &format!("{trust} \"$@\""), "sh", "remove", &provider.issuer]);

        let text =
            kubectl_as(&kubectl, &admin, &["config", "view", "--raw", "--minify", "--flatten", "-o", "json"], "");
        let view: Value = serde_json::from_str(&text).expect("a kubeconfig");
        let namespace = format!("headlamp-test-{}", std::process::id());
        let cluster = Self { namespace, provider, admin, kubectl, cluster: view["clusters"][0]["cluster"].clone() };
        cluster.make_namespace();
        Some(cluster)
    }

    fn make_namespace(&self) {
        let (kubectl, admin) = (text_of(&self.kubectl), text_of(&self.admin));
        let remove = ["--kubeconfig", admin, "delete", "namespace", &self.namespace, "--wait=false"];
        when_this_process_ends(&[&[kubectl], remove.as_slice()].concat());
        let (name, group) = (&self.namespace, format!("oidc:{GROUP}"));
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "edit", "namespace": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        });
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        for object in [space, binding] {
            self.as_admin(&["apply", "-f", "-"], &object.to_string());
        }
    }

    /// What kubectl says to the administrator; it must succeed.
    pub fn as_admin(&self, arguments: &[&str], stdin: &str) -> String {
        kubectl_as(&self.kubectl, &self.admin, arguments, stdin)
    }

    /// A kubeconfig for this cluster whose one user runs a command for its credential.
    pub fn kubeconfig(&self, command: &str, arguments: &[String]) -> Value {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": arguments,
            "interactiveMode": "IfAvailable", "provideClusterInfo": true,
        });
        let context = json!({"cluster": "real", "user": "oidc", "namespace": self.namespace});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "real",
            "clusters": [{"name": "real", "cluster": self.cluster}],
            "users": [{"name": "oidc", "user": {"exec": exec}}],
            "contexts": [{"name": "real", "context": context}],
        })
    }

    /// What the API server's audit log tells of this person's requests, if there is a log.
    pub fn audit(&self, person: &str) -> Option<Vec<Value>> {
        let file = env::var_os("HEADLAMP_TEST_AUDIT_LOG").filter(|file| Path::new(file).is_file());
        let file = part("an audit log", "needs its path in HEADLAMP_TEST_AUDIT_LOG", file)?;
        let log = fs::read_to_string(file).expect("the audit log");
        let name = format!("oidc:{person}");
        let lines = log.lines().filter(|line| line.contains(&name));
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Some(events.filter(|event| event["user"]["username"] == *name).collect())
    }
}

fn trust_arguments(provider: &RealProvider) -> [String; 6] {
    let audiences = [CLIENT, STEADY_CLIENT, BASIC_CLIENT, POST_CLIENT, RESOURCE].join(",");
    let authority = text_of(&provider.authority).to_owned();
    ["add".to_owned(), provider.issuer.clone(), audiences, authority, "sub".to_owned(), "groups".to_owned()]
}

fn run_shell(command: &str, arguments: &[String]) {
    let script = format!("{command} \"$@\"");
    let output = Command::new("sh").args(["-c", &script, "sh"]).args(arguments).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn kubectl_as(kubectl: &Path, kubeconfig: &Path, arguments: &[&str], stdin: &str) -> String {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl");
    assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
