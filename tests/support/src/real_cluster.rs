//! A real cluster, given by environment variables, that trusts the certified provider: one trust
//! and one namespace for all tests of a run.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    /// Bytes of the audit log that tell of earlier runs.
    audit_began: usize,
    pub(crate) cluster: Value,
}

impl RealCluster {
    /// The cluster of this run, prepared by whoever asks first. Until the test's thread ends, nobody
    /// restarts a part of it.
    pub fn shared() -> Option<&'static Self> {
        Use::begin(false);
        Self::of_this_run()
    }

    /// The same with no other test of this run at it until the test's thread ends, and a way to
    /// [restart](Self::restart) its parts.
    pub fn alone() -> Option<&'static Self> {
        let how = "needs HEADLAMP_TEST_RESTART, a command";
        part("a cluster whose parts can be restarted", how, env::var_os("HEADLAMP_TEST_RESTART"))?;
        Use::begin(true);
        Self::of_this_run()
    }

    fn of_this_run() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<RealCluster>> = OnceLock::new();
        SHARED.get_or_init(Self::prepare).as_ref()
    }

    /// Kills `kubelet`, `kube-apiserver` or another part, starts it again, and returns when the cluster
    /// is ready. An API server that is asked to end waits for its watches, for a minute.
    pub fn restart(&self, part: &str) {
        assert!(Use::is_alone(), "other tests need it: `RealCluster::alone`");
        let command = env::var("HEADLAMP_TEST_RESTART").expect("`alone` has looked");
        run_shell(&command, &["-9".to_owned(), part.to_owned()]);
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
        let cluster = view["clusters"][0]["cluster"].clone();
        let audit_began = audit_log().map_or(0, |log| log.len());
        let cluster = Self { namespace, provider, admin, kubectl, audit_began, cluster };
        cluster.make_namespace();
        Some(cluster)
    }

    fn make_namespace(&self) {
        self.remove_when_this_process_ends(&["namespace", &self.namespace]);
        let label = format!("--selector=headlamp-test={}", self.namespace);
        self.remove_when_this_process_ends(&["clusterroles,clusterrolebindings,certificatesigningrequests", &label]);
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

    /// Has objects removed when this process has ended, however it ends.
    pub(crate) fn remove_when_this_process_ends(&self, objects: &[&str]) {
        let delete = [
            text_of(&self.kubectl),
            "--kubeconfig",
            text_of(&self.admin),
            "delete",
            "--wait=false",
            "--ignore-not-found",
        ];
        when_this_process_ends(&[delete.as_slice(), objects].concat());
    }

    /// What kubectl says to the administrator; it must succeed.
    pub fn as_admin(&self, arguments: &[&str], stdin: &str) -> String {
        kubectl_as(&self.kubectl, &self.admin, arguments, stdin)
    }

    /// The same, where it may fail: then what kubectl complained of.
    pub fn try_as_admin(&self, arguments: &[&str]) -> Result<String, String> {
        try_kubectl_as(&self.kubectl, &self.admin, arguments, "")
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

    /// What the API server's audit log tells of this person's requests in this run, if there is a log.
    pub fn audit(&self, person: &str) -> Option<Vec<Value>> {
        self.audit_of(&format!("oidc:{person}"))
    }

    /// The same of whom the cluster knows under this name.
    pub fn audit_of(&self, name: &str) -> Option<Vec<Value>> {
        let log = part("an audit log", "needs its path in HEADLAMP_TEST_AUDIT_LOG", audit_log())?;
        // Shorter than it was, it is another file.
        let lines = log.get(self.audit_began..).unwrap_or(&log).lines().filter(|line| line.contains(name));
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Some(events.filter(|event| event["user"]["username"] == name).collect())
    }
}

fn audit_log() -> Option<String> {
    fs::read_to_string(env::var_os("HEADLAMP_TEST_AUDIT_LOG")?).ok()
}

/// The cluster for whoever needs no sign-in: the administrator, in a namespace that is made for this.
pub struct Workshop {
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Made anew, and removed when the process ends.
    pub namespace: String,
    kubectl: PathBuf,
}

impl Workshop {
    /// One in a namespace whose name ends like this, if there is a cluster.
    pub fn open(name: &str) -> Option<Self> {
        Use::begin(false);
        let how = "needs HEADLAMP_TEST_KUBECONFIG, an administrator's kubeconfig";
        let kubeconfig = PathBuf::from(part("a cluster", how, env::var_os("HEADLAMP_TEST_KUBECONFIG"))?);
        let kubectl = kubectls()?.pop()?;
        let namespace = format!("headlamp-test-{}-{name}", std::process::id());
        let workshop = Self { kubeconfig, namespace, kubectl };
        let (kubectl, admin) = (text_of(&workshop.kubectl), text_of(&workshop.kubeconfig));
        let remove = ["--kubeconfig", admin, "delete", "namespace", &workshop.namespace, "--wait=false"];
        when_this_process_ends(&[&[kubectl], remove.as_slice()].concat());
        workshop.kubectl(&["create", "namespace", &workshop.namespace], "");
        Some(workshop)
    }

    /// What kubectl says to the administrator; it must succeed.
    pub fn kubectl(&self, arguments: &[&str], stdin: &str) -> String {
        kubectl_as(&self.kubectl, &self.kubeconfig, arguments, stdin)
    }
}

/// How a test's thread uses the cluster, until it ends. Who waits for a thread must not be waited for
/// by it: threads of one test do not ask for the cluster each.
enum Use {
    WithOthers { _hold: RwLockReadGuard<'static, ()> },
    Alone { _hold: RwLockWriteGuard<'static, ()> },
}

static USED: RwLock<()> = RwLock::new(());

thread_local! {
    static USE: RefCell<Option<Use>> = const { RefCell::new(None) };
}

impl Use {
    fn begin(alone: bool) {
        USE.with_borrow_mut(|this| {
            if this.as_ref().is_some_and(|this| !alone || matches!(this, Self::Alone { .. })) {
                return;
            }
            // Given back first: nobody is alone while we hold it.
            *this = None;
            *this = Some(if alone {
                Self::Alone { _hold: USED.write().unwrap_or_else(PoisonError::into_inner) }
            } else {
                Self::WithOthers { _hold: USED.read().unwrap_or_else(PoisonError::into_inner) }
            });
        });
    }

    fn is_alone() -> bool {
        USE.with_borrow(|this| matches!(this, Some(Self::Alone { .. })))
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
    try_kubectl_as(kubectl, kubeconfig, arguments, stdin)
        .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

fn try_kubectl_as(kubectl: &Path, kubeconfig: &Path, arguments: &[&str], stdin: &str) -> Result<String, String> {
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
    // One that reads no stdin may have ended.
    let _ = child.stdin.take().expect("stdin").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("kubectl");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
