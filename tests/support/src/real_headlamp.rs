//! The stand-in Headlamp in pods of the real cluster, as the chart and the raw manifest deploy it.
//!
//! A pod runs `examples/headlamp.rs`, just built, from a folder of this machine, in an empty image: so
//! the cluster's node must be this machine. The pods' logs are files in that folder: no request of a
//! pod is lost when it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authority::Authority;
use crate::cluster::Layout;
use crate::headlamp::{Oidc, Version};
use crate::headlamp_flags::refuses;
use crate::real::when_this_process_ends;
use crate::real_cluster::RealCluster;
use crate::request_log;
use crate::sandbox::wait_until;
use crate::server::Request;

/// How it is deployed.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its namespace; one of its own, if there is none. A namespace that is named is removed at the
    /// end too: what is deployed at the same time must have different ones.
    pub namespace: Option<String>,
    /// The release; Deployment and Service are called so.
    pub name: String,
    /// Whose labels and ports it has.
    pub layout: Layout,
    /// What version the labels and its ways are of.
    pub version: Version,
    /// How many pods.
    pub replicas: u32,
    /// `config.baseURL`.
    pub base_url: String,
    /// `config.inClusterContextName`.
    pub context_name: String,
    /// `config.oidc`, in a Secret as the chart has it.
    pub oidc: Option<Oidc>,
    /// It speaks HTTPS, with a certificate that nobody trusts.
    pub tls: bool,
    /// A container beside it, before it, as the plugin manager may be.
    pub sidecar: bool,
    /// Without a Service there is only the Deployment.
    pub service: bool,
    /// The Service's port.
    pub service_port: u16,
    /// `config.extraArgs`.
    pub arguments: Vec<String>,
    /// `env`; also `STAND_IN_CHUNKS` and the like.
    pub environment: Vec<(String, String)>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            namespace: None,
            name: "headlamp".to_owned(),
            layout: Layout::Chart,
            version: Version(0, 45, 0),
            replicas: 1,
            base_url: String::new(),
            context_name: "main".to_owned(),
            oidc: None,
            tls: false,
            sidecar: false,
            service: true,
            service_port: 80,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A Headlamp in the cluster, until it is dropped.
pub struct DeployedHeadlamp<'a> {
    /// Where it is.
    pub namespace: String,
    /// What its Deployment and its Service are called.
    pub name: String,
    cluster: &'a RealCluster,
    selector: String,
    folder: TempDir,
}

impl RealCluster {
    /// Deploys a Headlamp and waits until its pods are ready; one whose version does not know its
    /// arguments, until they crash.
    pub fn deploy_headlamp(&self, deployment: &Deployment) -> DeployedHeadlamp<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = deployment.namespace.clone().unwrap_or_else(|| format!("{}-{number}", self.namespace));
        let folder = tempfile::Builder::new().prefix("headlamp-pods-").tempdir().expect("a folder");
        when_this_process_ends(&["rm", "-rf", text_of(folder.path())]);
        fs::copy(program(), folder.path().join("headlamp")).expect("a copy of the program");
        fs::create_dir(folder.path().join("log")).expect("a folder");

        let gone =
            || self.as_admin(&["get", "namespace", &namespace, "--ignore-not-found", "-o", "name"], "").is_empty();
        wait_until(PATIENCE, "an earlier namespace of this name to be gone", gone);
        self.remove_when_this_process_ends(&["namespace", &namespace]);
        let headlamp = DeployedHeadlamp {
            selector: selector(deployment)
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(","),
            name: deployment.name.clone(),
            namespace,
            cluster: self,
            folder,
        };
        let objects = headlamp.objects(deployment);
        self.as_admin(
            &["apply", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string(),
        );
        if refuses(arguments(deployment), deployment.version) {
            wait_until(PATIENCE, "a restart", || headlamp.pods().iter().any(|pod| restarts(pod) > 0));
        } else {
            headlamp.wait_until_ready();
        }
        headlamp
    }
}

impl DeployedHeadlamp<'_> {
    /// Waits until the Deployment is as it should be, with all its pods ready.
    pub fn wait_until_ready(&self) {
        self.kubectl(&["rollout", "status", &self.deployment(), "--timeout=120s"]);
        // What the Deployment says of itself may be older than what was just done to a pod.
        let wanted = self.kubectl(&["get", &self.deployment(), "--output=jsonpath={.spec.replicas}"]);
        wait_until(PATIENCE, "all pods to be ready", || self.ready_pods().len().to_string() == wanted.trim());
    }

    /// The names of the pods that are ready.
    pub fn ready_pods(&self) -> Vec<String> {
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            pod["metadata"]["deletionTimestamp"].is_null() && conditions.iter().any(is_ready)
        };
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.pods().iter().filter(ready).map(name).collect()
    }

    /// Deletes a ready pod, in the usual way, and returns its name; another one comes up.
    pub fn delete_pod(&self) -> String {
        let pod = self.ready_pods().into_iter().next().expect("a pod that is ready");
        self.kubectl(&["delete", "pod", &pod, "--wait=false"]);
        pod
    }

    /// Ends the container of a ready pod, and waits until the kubelet has started it again; the pod
    /// stays.
    pub fn kill_container(&self) -> String {
        let pod = self.ready_pods().into_iter().next().expect("a pod that is ready");
        let count = || self.pods().iter().filter(|known| known["metadata"]["name"] == *pod).map(restarts).sum::<u64>();
        let before = count();
        // Not `kubectl exec`'s own exit code: the connection ends with the container.
        let _ = self.cluster.try_as_admin(&[
            "--namespace",
            &self.namespace,
            "exec",
            &pod,
            "-c",
            CONTAINER,
            "--",
            "/usr/bin/sh",
            "-c",
            "kill -TERM 1",
        ]);
        wait_until(PATIENCE, "the container to be started again", || count() > before);
        pod
    }

    /// Rolls out another build of the page, and waits until only its pods are there.
    pub fn roll_out(&self, build: &str) {
        self.kubectl(&["set", "env", &self.deployment(), "-c", CONTAINER, &format!("STAND_IN_BUILD={build}")]);
        self.wait_until_ready();
    }

    /// From now on there are so many pods; waits until they are ready.
    pub fn scale(&self, replicas: u32) {
        self.kubectl(&["scale", &self.deployment(), &format!("--replicas={replicas}")]);
        self.wait_until_ready();
        if replicas == 0 {
            wait_until(PATIENCE, "all pods to be gone", || self.pods().is_empty());
        }
    }

    /// Every request that any of its pods ever got, but for the kubelet's probes: those of one start
    /// of a container together, in order.
    pub fn requests(&self) -> Vec<Request> {
        let files = fs::read_dir(self.folder.path().join("log")).expect("the log folder");
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a log file").path()).collect();
        files.sort();
        let text: String = files.iter().map(|file| fs::read_to_string(file).expect("a log file")).collect();
        let probe =
            |request: &Request| request.header("user-agent").is_some_and(|agent| agent.starts_with("kube-probe"));
        text.lines().filter_map(request_log::parse).filter(|request| !probe(request)).collect()
    }

    /// Fails if any of its pods ever got what could be a credential, or an API request; and if none
    /// ever got a request, for then that says nothing.
    pub fn assert_knows_nothing(&self) {
        let requests = self.requests();
        assert!(!requests.is_empty(), "no pod was ever asked anything");
        let credentials = request_log::credentials(&requests);
        assert!(credentials.is_empty(), "pods got credentials: {credentials:#?}");
        let api: Vec<&str> =
            requests.iter().map(|request| request.path.as_str()).filter(|path| path.contains("/clusters/")).collect();
        assert!(api.is_empty(), "pods got requests of the API: {api:?}");
    }

    fn pods(&self) -> Vec<Value> {
        let list = self.kubectl(&["get", "pods", "-l", &self.selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("a list");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    fn deployment(&self) -> String {
        format!("deployment/{}", self.name)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.as_admin(&[&["--namespace", &self.namespace], arguments].concat(), "")
    }

    fn objects(&self, deployment: &Deployment) -> Vec<Value> {
        let named = |name: &str| json!({"name": name, "namespace": self.namespace, "labels": labels(deployment)});
        let target = if deployment.layout == Layout::Chart { json!("http") } else { json!(4466) };
        let mut port = json!({"port": deployment.service_port, "targetPort": target});
        if deployment.layout == Layout::Chart {
            port["name"] = json!("http");
        }
        let selector: Value = selector(deployment).into_iter().map(|(name, value)| (name, json!(value))).collect();
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named(&self.name), "spec": {
                "replicas": deployment.replicas,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": selector}, "spec": self.pod(deployment)},
            }}),
        ];
        if deployment.service {
            objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": named(&self.name), "spec": {
                "ports": [port], "selector": selector,
            }}));
        }
        if deployment.layout == Layout::Chart {
            let oidc = deployment.oidc.as_ref().map(|oidc| {
                json!({"clientID": oidc.client, "issuerURL": oidc.issuer, "clientSecret": "not-so-secret", "scopes": "profile,email"})
            });
            objects.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "oidc", "namespace": self.namespace},
                "stringData": oidc.unwrap_or_else(|| json!({})),
            }));
        }
        if deployment.tls {
            let certificate = Authority::new("of Headlamp").server(&["headlamp.example"]);
            objects.push(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": self.namespace},
                "stringData": {"tls.crt": certificate.pem, "tls.key": certificate.key_pem},
            }));
        }
        objects
    }

    fn pod(&self, deployment: &Deployment) -> Value {
        let folder = text_of(self.folder.path());
        let mut environment = vec![
            json!({"name": "STAND_IN_VERSION", "value": deployment.version.to_string()}),
            json!({"name": "STAND_IN_LOG", "value": "/log"}),
        ];
        environment.extend(deployment.environment.iter().map(|(name, value)| json!({"name": name, "value": value})));
        if deployment.oidc.is_some() {
            for (name, key) in OIDC_VARIABLES {
                let source = json!({"secretKeyRef": {"name": "oidc", "key": key}});
                environment.push(json!({"name": name, "valueFrom": source}));
            }
        }
        let mut port = json!({"containerPort": 4466, "protocol": "TCP"});
        if deployment.layout == Layout::Chart || deployment.version >= Version(0, 31, 0) {
            port["name"] = json!("http");
        }
        let scheme = if deployment.tls { "HTTPS" } else { "HTTP" };
        let mut mounts = vec![
            json!({"name": "program", "mountPath": "/headlamp", "readOnly": true}),
            json!({"name": "log", "mountPath": "/log"}),
        ];
        let host = [("usr", "/usr"), ("lib", "/usr/lib"), ("lib64", "/usr/lib64")];
        let host_mounts: Vec<Value> = host
            .iter()
            .map(|(name, _)| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": true}))
            .collect();
        mounts.extend(host_mounts.clone());
        let mut volumes: Vec<Value> =
            host.iter().map(|(name, path)| json!({"name": name, "hostPath": {"path": path}})).collect();
        volumes.push(json!({"name": "program", "hostPath": {"path": folder}}));
        volumes.push(json!({"name": "log", "hostPath": {"path": format!("{folder}/log")}}));
        if deployment.tls {
            mounts.push(json!({"name": "tls", "mountPath": "/tls", "readOnly": true}));
            volumes.push(json!({"name": "tls", "secret": {"secretName": "tls"}}));
        }
        let mut containers = vec![json!({
            "name": CONTAINER, "image": IMAGE, "imagePullPolicy": "Never",
            "command": ["/headlamp/headlamp"], "args": arguments(deployment),
            "env": environment, "ports": [port], "volumeMounts": mounts,
            "readinessProbe": {
                "httpGet": {"path": format!("{}/", deployment.base_url), "port": 4466, "scheme": scheme}, "periodSeconds": 1,
            },
        })];
        if deployment.sidecar {
            containers.insert(
                0,
                json!({
                    "name": "headlamp-plugin", "image": IMAGE, "imagePullPolicy": "Never",
                    "command": ["/usr/bin/sleep", "infinity"], "volumeMounts": host_mounts,
                }),
            );
        }
        json!({
            "containers": containers, "volumes": volumes,
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 2,
        })
    }
}

impl Drop for DeployedHeadlamp<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.try_as_admin(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// The labels of the Deployment and the Service.
fn labels(deployment: &Deployment) -> Value {
    if deployment.layout == Layout::Manifest {
        return json!({});
    }
    let version = deployment.version;
    // The chart of 0.30.0 is called 0.30.1.
    let chart = if version == Version(0, 30, 0) { Version(0, 30, 1) } else { version };
    json!({
        "helm.sh/chart": format!("headlamp-{chart}"),
        "app.kubernetes.io/name": "headlamp",
        "app.kubernetes.io/instance": deployment.name,
        "app.kubernetes.io/version": version.to_string(),
        "app.kubernetes.io/managed-by": "Helm",
    })
}

/// The labels of the pods.
fn selector(deployment: &Deployment) -> Vec<(String, String)> {
    let labels: &[(&str, &str)] = match deployment.layout {
        Layout::Chart => &[("app.kubernetes.io/name", "headlamp"), ("app.kubernetes.io/instance", &deployment.name)],
        Layout::Manifest => &[("k8s-app", "headlamp")],
    };
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The arguments that the chart of this version gives.
fn arguments(deployment: &Deployment) -> Vec<String> {
    let version = deployment.version;
    let mut arguments = vec!["-in-cluster".to_owned()];
    if version >= Version(0, 40, 0) {
        arguments.push(format!("-in-cluster-context-name={}", deployment.context_name));
    }
    arguments.push("-plugins-dir=/headlamp/plugins".to_owned());
    // The chart of 0.40.1 had it, and its server did not know it.
    if version >= Version(0, 40, 1) && deployment.layout == Layout::Chart {
        arguments.push("-session-ttl=86400".to_owned());
    }
    if deployment.oidc.is_some() {
        for (flag, (name, _)) in ["client-id", "client-secret", "idp-issuer-url", "scopes"].iter().zip(OIDC_VARIABLES) {
            arguments.push(format!("-oidc-{flag}=$({name})"));
        }
    }
    if !deployment.base_url.is_empty() {
        arguments.push(format!("-base-url={}", deployment.base_url));
    }
    if deployment.tls {
        arguments.push("-tls-cert-path=/tls/tls.crt".to_owned());
        arguments.push("-tls-key-path=/tls/tls.key".to_owned());
    }
    arguments.extend(deployment.arguments.iter().cloned());
    arguments
}

fn restarts(pod: &Value) -> u64 {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    statuses
        .iter()
        .filter(|status| status["name"] == CONTAINER)
        .filter_map(|status| status["restartCount"].as_u64())
        .sum()
}

/// `examples/headlamp.rs`, built as this very program was.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let own = std::env::current_exe().expect("a path of this program");
        let folder = own.parent().and_then(Path::parent).and_then(Path::file_name).expect("a target folder");
        let profile = if folder == "debug" { "dev" } else { text_of(Path::new(folder)) };
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
        // What cargo tells a test of itself would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let told = name.to_string_lossy();
            if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        let mut child = command
            .args(["build", "--quiet", "--example", "headlamp", "--profile", profile])
            .args(["--message-format", "json-render-diagnostics", "--manifest-path", text_of(&manifest)])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo");
        let messages = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        let built = messages.filter_map(|line| {
            let message: Value = serde_json::from_str(&line).ok()?;
            (message["target"]["kind"][0] == "example").then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        let built = built.last();
        assert!(child.wait().expect("cargo").success(), "examples/headlamp.rs could not be built");
        built.expect("where the example is")
    })
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

const CONTAINER: &str = "headlamp";
/// Empty: what pods run is this machine's.
const IMAGE: &str = "localhost/host:1";
const OIDC_VARIABLES: [(&str, &str); 4] = [
    ("OIDC_CLIENT_ID", "clientID"),
    ("OIDC_CLIENT_SECRET", "clientSecret"),
    ("OIDC_ISSUER_URL", "issuerURL"),
    ("OIDC_SCOPES", "scopes"),
];
/// For a node that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
