//! Headlamp in the cluster: the objects that its Helm chart makes, or the project's raw manifest.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Cluster;

/// How Headlamp is installed.
#[derive(Clone, Debug)]
pub struct HeadlampInstall {
    /// Whose objects they look like.
    pub layout: Layout,
    /// The release, and the name of its objects.
    pub release: String,
    /// The version, without `v`: of the image, and said in the labels.
    pub version: String,
    /// `-base-url`; empty: none.
    pub base_url: String,
    /// Whether the pod serves TLS.
    pub tls: bool,
    /// Further arguments, such as those of OIDC.
    pub arguments: Vec<String>,
    /// The port of the container.
    pub port: u16,
    /// The port of the Service; `None`: there is no Service.
    pub service_port: Option<u16>,
}

/// Whose objects they look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The Helm chart's: labels, named ports.
    Chart,
    /// `kubernetes-headlamp.yaml`: `k8s-app=headlamp` on the pods, and no labels elsewhere.
    Manifest,
}

impl Default for HeadlampInstall {
    fn default() -> Self {
        Self {
            layout: Layout::Chart,
            release: "headlamp".to_owned(),
            version: "0.45.0".to_owned(),
            base_url: String::new(),
            tls: false,
            arguments: Vec::new(),
            port: 4466,
            service_port: Some(80),
        }
    }
}

impl Cluster {
    /// Makes Service, Deployment, and one ready pod whose port leads to `address`. The pod's name.
    pub fn install_headlamp(&self, namespace: &str, install: &HeadlampInstall, address: SocketAddr) -> String {
        let name = &install.release;
        let metadata = json!({"name": name, "namespace": namespace, "labels": install.labels()});
        let selector = install.selector();
        if let Some(port) = install.service_port {
            let ports = json!([install.service_port_entry(port)]);
            let spec = json!({"type": "ClusterIP", "clusterIP": "10.96.0.80", "selector": selector, "ports": ports});
            self.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}));
        }
        let template = json!({"metadata": {"labels": selector}, "spec": {"containers": [install.container()]}});
        let spec = json!({"replicas": 1, "selector": {"matchLabels": selector}, "template": template});
        let status = json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1});
        self.put(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec, "status": status}));
        self.add_headlamp_pod(namespace, name, address)
    }

    /// A further ready pod of this Deployment. Its name.
    ///
    /// # Panics
    /// If there is no such Deployment.
    pub fn add_headlamp_pod(&self, namespace: &str, deployment: &str, address: SocketAddr) -> String {
        let template =
            self.get("deployments", namespace, deployment).expect("the Deployment")["spec"]["template"].clone();
        let name = format!("{deployment}-6c8f7d9b4c-{:05x}", self.revision());
        let port = template["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().unwrap_or_default();
        self.open_port(namespace, &name, u16::try_from(port).expect("a port"), address);
        let mut pod = template;
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!(namespace);
        self.run_pod(pod);
        name
    }

    /// Replaces the pods of this Deployment as a rollout does: first there is a new one, then the old
    /// ones go, and their connections end. The new one's name.
    pub fn replace_headlamp_pod(&self, namespace: &str, deployment: &str, address: SocketAddr) -> String {
        let old = self.headlamp_pods(namespace, deployment);
        let new = self.add_headlamp_pod(namespace, deployment, address);
        for name in old {
            self.delete("pods", namespace, &name);
        }
        new
    }

    /// The names of the pods of this Deployment.
    pub fn headlamp_pods(&self, namespace: &str, deployment: &str) -> Vec<String> {
        let prefix = format!("{deployment}-6c8f7d9b4c-");
        let pods = self.list("pods", namespace);
        let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        names.filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect()
    }
}

impl HeadlampInstall {
    fn selector(&self) -> Value {
        match self.layout {
            Layout::Chart => json!({"app.kubernetes.io/name": "headlamp", "app.kubernetes.io/instance": self.release}),
            Layout::Manifest => json!({"k8s-app": "headlamp"}),
        }
    }

    fn labels(&self) -> Value {
        if self.layout == Layout::Manifest {
            return Value::Null;
        }
        let mut labels = self.selector();
        labels["helm.sh/chart"] = json!(format!("headlamp-{}", self.version));
        labels["app.kubernetes.io/version"] = json!(self.version);
        labels["app.kubernetes.io/managed-by"] = json!("Helm");
        labels
    }

    fn service_port_entry(&self, port: u16) -> Value {
        match self.layout {
            Layout::Chart => json!({"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}),
            Layout::Manifest => json!({"port": port, "targetPort": self.port, "protocol": "TCP"}),
        }
    }

    fn container(&self) -> Value {
        let mut arguments = vec!["-in-cluster".to_owned(), "-plugins-dir=/headlamp/plugins".to_owned()];
        if self.layout == Layout::Chart {
            arguments.insert(1, "-in-cluster-context-name=main".to_owned());
        }
        if !self.base_url.is_empty() {
            arguments.push(format!("-base-url={}", self.base_url));
        }
        if self.tls {
            arguments.push("-tls-cert-path=/tls/tls.crt".to_owned());
            arguments.push("-tls-key-path=/tls/tls.key".to_owned());
        }
        arguments.extend(self.arguments.iter().cloned());
        let scheme = if self.tls { "HTTPS" } else { "HTTP" };
        let probe = json!({"httpGet": {"path": format!("{}/", self.base_url), "port": "http", "scheme": scheme}});
        let image = format!("ghcr.io/headlamp-k8s/headlamp:v{}", self.version);
        let ports = json!([{"name": "http", "containerPort": self.port, "protocol": "TCP"}]);
        json!({"name": "headlamp", "image": image, "args": arguments, "ports": ports, "readinessProbe": probe})
    }
}
