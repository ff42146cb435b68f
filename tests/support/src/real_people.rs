//! People of the real cluster who are nobody's at a provider: client certificates, service accounts,
//! what they may do, and their kubeconfigs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::real_cluster::RealCluster;
use crate::sandbox::wait_until;

/// Somebody whom the cluster knows.
#[derive(Clone, Debug)]
pub struct KnownUser {
    /// What the cluster calls them, in its audit log too.
    pub name: String,
    /// Their entry in a kubeconfig, `users[].user`.
    pub entry: Value,
}

impl RealCluster {
    /// Somebody with a client certificate of the cluster's authority, valid for an hour.
    pub fn certificate_user(&self, name: &str, groups: &[&str]) -> KnownUser {
        let mut parameters = CertificateParams::new([]).expect("no names");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for group in groups {
            parameters.distinguished_name.push(DnType::OrganizationName, *group);
        }
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let request = parameters.serialize_request(&key).expect("a request").pem().expect("PEM");
        let object = self.own_name();
        let csr = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": self.owned(&object),
            "spec": {
                "request": STANDARD.encode(request), "signerName": "kubernetes.io/kube-apiserver-client",
                "expirationSeconds": 3600, "usages": ["client auth"],
            },
        });
        self.as_admin(&["apply", "-f", "-"], &csr.to_string());
        self.as_admin(&["certificate", "approve", &object], "");
        let mut certificate = String::new();
        wait_until(Duration::from_secs(60), "a certificate", || {
            certificate = self.as_admin(&["get", "csr", &object, "-o", "jsonpath={.status.certificate}"], "");
            !certificate.is_empty()
        });
        let entry = json!({
            "client-certificate-data": certificate, "client-key-data": STANDARD.encode(key.serialize_pem()),
        });
        KnownUser { name: name.to_owned(), entry }
    }

    /// A service account of the tests' namespace, with a token for an hour.
    pub fn service_account(&self, name: &str) -> KnownUser {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": self.namespace},
        });
        self.as_admin(&["apply", "-f", "-"], &account.to_string());
        let token = self.token(name, Duration::from_secs(3600));
        let name = format!("system:serviceaccount:{}:{name}", self.namespace);
        KnownUser { name, entry: json!({"token": token}) }
    }

    /// A new token of a service account of the tests' namespace; ten minutes are the least.
    pub fn token(&self, account: &str, lifetime: Duration) -> String {
        let lifetime = format!("--duration={}s", lifetime.as_secs());
        self.as_admin(&["--namespace", &self.namespace, "create", "token", account, &lifetime], "").trim().to_owned()
    }

    /// Lets a user do this, in one namespace or in all: rules as a Role has them, see [`rule`]. Returns
    /// when the cluster's authorizer knows.
    pub fn grant(&self, user: &str, namespace: Option<&str>, rules: &[Value]) {
        let name = self.own_name();
        let (role, binding) =
            if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
        let mut metadata = self.owned(&name);
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let group = "rbac.authorization.k8s.io";
        let api = format!("{group}/v1");
        let objects = [
            json!({"apiVersion": api, "kind": role, "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": api, "kind": binding, "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": role, "name": name},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            }),
        ];
        self.as_admin(
            &["apply", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string(),
        );
        let Some(first) = rules.first() else { return };
        let asked = |part: &str| first[part][0].as_str().unwrap_or_default();
        let (verb, resource) = (asked("verbs").replace('*', "get"), asked("resources").replace('*', "pods"));
        let mut can = vec!["auth", "can-i", &verb, &resource, "--as", user];
        can.extend(namespace.map_or_else(Vec::new, |namespace| vec!["--namespace", namespace]));
        wait_until(Duration::from_secs(30), "the rights", || self.try_as_admin(&can).is_ok());
    }

    /// A kubeconfig for this cluster whose one user has this entry.
    pub fn kubeconfig_of(&self, entry: &Value, namespace: Option<&str>) -> Value {
        let mut context = json!({"cluster": "real", "user": "known"});
        if let Some(namespace) = namespace {
            context["namespace"] = json!(namespace);
        }
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "real",
            "clusters": [{"name": "real", "cluster": self.cluster}],
            "users": [{"name": "known", "user": entry}],
            "contexts": [{"name": "real", "context": context}],
        })
    }

    /// A name that no other object of these tests has.
    fn own_name(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        format!("{}-of-{}", self.namespace, NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// The metadata of an object that is removed at the end.
    fn owned(&self, name: &str) -> Value {
        json!({"name": name, "labels": {"headlamp-test": self.namespace}})
    }
}

/// A rule of a Role: these verbs on these resources (`pods/portforward` and the like) of this API group.
pub fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// What `open` needs in Headlamp's namespace.
pub fn rules_to_open() -> Vec<Value> {
    vec![
        rule("", &["pods", "services"], &["get", "list", "watch"]),
        rule("apps", &["deployments"], &["get", "list"]),
        rule("", &["pods/portforward"], &["create", "get"]),
    ]
}
