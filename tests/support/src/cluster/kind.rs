//! The kinds of objects that the cluster knows, and how kubectl wants to see them.

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// As it stands in paths.
    pub(crate) resource: &'static str,
    pub(crate) name: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) short: &'static [&'static str],
}

macro_rules! kinds {
    ($($group:literal $version:literal $resource:literal $kind:literal $namespaced:literal $short:expr;)*) => {
        &[$(Kind { group: $group, version: $version, resource: $resource, name: $kind, namespaced: $namespaced, short: &$short },)*]
    };
}

/// All of them.
pub(crate) const KINDS: &[Kind] = kinds! {
    "" "v1" "namespaces" "Namespace" false ["ns"];
    "" "v1" "nodes" "Node" false ["no"];
    "" "v1" "persistentvolumes" "PersistentVolume" false ["pv"];
    "" "v1" "pods" "Pod" true ["po"];
    "" "v1" "configmaps" "ConfigMap" true ["cm"];
    "" "v1" "secrets" "Secret" true [];
    "" "v1" "services" "Service" true ["svc"];
    "" "v1" "endpoints" "Endpoints" true ["ep"];
    "" "v1" "events" "Event" true ["ev"];
    "" "v1" "serviceaccounts" "ServiceAccount" true ["sa"];
    "" "v1" "persistentvolumeclaims" "PersistentVolumeClaim" true ["pvc"];
    "apps" "v1" "deployments" "Deployment" true ["deploy"];
    "apps" "v1" "replicasets" "ReplicaSet" true ["rs"];
    "apps" "v1" "statefulsets" "StatefulSet" true ["sts"];
    "apps" "v1" "daemonsets" "DaemonSet" true ["ds"];
    "batch" "v1" "jobs" "Job" true [];
    "batch" "v1" "cronjobs" "CronJob" true ["cj"];
    "discovery.k8s.io" "v1" "endpointslices" "EndpointSlice" true [];
    "networking.k8s.io" "v1" "ingresses" "Ingress" true ["ing"];
    "rbac.authorization.k8s.io" "v1" "roles" "Role" true [];
    "rbac.authorization.k8s.io" "v1" "rolebindings" "RoleBinding" true [];
    "rbac.authorization.k8s.io" "v1" "clusterroles" "ClusterRole" false [];
    "rbac.authorization.k8s.io" "v1" "clusterrolebindings" "ClusterRoleBinding" false [];
    "apiextensions.k8s.io" "v1" "customresourcedefinitions" "CustomResourceDefinition" false ["crd"];
};

impl Kind {
    /// The kind that stands at this place of the API.
    pub(crate) fn at(group: &str, version: &str, resource: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| (kind.group, kind.version, kind.resource) == (group, version, resource))
    }

    /// The kind that an object says it is of.
    pub(crate) fn of(object: &Value) -> Option<&'static Self> {
        KINDS.iter().find(|kind| object["kind"] == kind.name && object["apiVersion"] == kind.group_version())
    }

    /// `v1`, `apps/v1`
    pub(crate) fn group_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The head of the table that `kubectl get` prints.
    pub(crate) fn columns(&self) -> Value {
        let names: &[&str] = match self.resource {
            "pods" => &["Name", "Ready", "Status", "Restarts", "Age"],
            "namespaces" => &["Name", "Status", "Age"],
            _ => &["Name", "Age"],
        };
        let column = |name: &&str| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": "string", "format": format, "description": name, "priority": 0})
        };
        names.iter().map(column).collect()
    }

    /// The object's row in that table.
    pub(crate) fn row(&self, object: &Value) -> Value {
        let metadata = &object["metadata"];
        let (name, age, phase) = (&metadata["name"], json!(age(metadata)), &object["status"]["phase"]);
        let cells = match self.resource {
            "pods" => {
                let statuses = object["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
                let ready = statuses.iter().filter(|status| status["ready"] == true).count();
                let restarts: u64 = statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum();
                let phase = if metadata["deletionTimestamp"].is_string() { &json!("Terminating") } else { phase };
                json!([name, format!("{ready}/{}", statuses.len()), phase, restarts.to_string(), age])
            }
            "namespaces" => json!([name, phase, age]),
            _ => json!([name, age]),
        };
        json!({"cells": cells, "object": partial(object)})
    }
}

/// The object with nothing but its metadata.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn age(metadata: &Value) -> String {
    let created = metadata["creationTimestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let seconds = created.map_or(0, |created| (jiff::Timestamp::now() - created).get_seconds().max(0));
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
