//! Which pod is taken, and what ails those that cannot be.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::headlamp_container::Port;

/// The pod that is to be used: ready, not on its way out, the newest; `avoid` only if it is the only one.
pub(crate) fn newest_ready<'a>(pods: &'a [Pod], avoid: Option<&str>) -> Option<&'a Pod> {
    let ready = pods.iter().filter(|pod| is_ready(pod));
    ready.max_by_key(|pod| {
        let metadata = &pod.metadata;
        (metadata.name.as_deref() != avoid, metadata.creation_timestamp.as_ref().map(|time| time.0))
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The number of a pod's port, if it has one of that name.
pub(crate) fn port_number(pod: &Pod, port: &Port) -> Option<u16> {
    let name = match port {
        Port::Number(number) => return Some(*number),
        Port::Named(name) => name,
    };
    let spec = pod.spec.as_ref()?;
    // Init containers that are restarted always run beside the others.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut ports = ports.filter(|port| port.name.as_deref() == Some(name));
    ports.find_map(|port| u16::try_from(port.container_port).ok())
}

/// Why none of these pods is ready, told of the newest.
pub(crate) fn what_ails(pods: &[Pod]) -> Option<String> {
    let leaving = |pod: &&Pod| pod.metadata.deletion_timestamp.is_some();
    let created = |pod: &&Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let pod = pods.iter().filter(|pod| !leaving(pod)).max_by_key(created).or(pods.first())?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    if leaving(&pod) {
        return Some(format!("the pod `{name}` is being deleted"));
    }
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    if let Some(ailment) = containers.into_iter().find_map(container_ailment) {
        return Some(format!("the pod `{name}` does not run: {ailment}"));
    }
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.message.is_some()
    });
    if let Some(message) = unscheduled.and_then(|condition| condition.message.as_ref()) {
        return Some(format!("the pod `{name}` has no node: {message}"));
    }
    match (status.phase.as_deref(), &status.reason) {
        (Some("Running"), _) => Some(format!("the pod `{name}` runs, and is not ready")),
        (phase, Some(reason)) => Some(format!("the pod `{name}` is {}: {reason}", phase.unwrap_or("Unknown"))),
        (phase, None) => Some(format!("the pod `{name}` is {}", phase.unwrap_or("Unknown"))),
    }
}

/// `CrashLoopBackOff` and its like.
fn container_ailment(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let (reason, message) = match (&state.waiting, &state.terminated) {
        // Every pod goes through these.
        (Some(waiting), _) if matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing")) => {
            return None;
        }
        (Some(waiting), _) => (waiting.reason.as_deref(), waiting.message.as_deref()),
        (None, Some(ended)) if ended.exit_code != 0 => (ended.reason.as_deref(), ended.message.as_deref()),
        _ => return None,
    };
    let name = &status.name;
    Some(match message {
        Some(message) => format!("{} in container `{name}`: {message}", reason.unwrap_or("waiting")),
        None => format!("{} in container `{name}`", reason.unwrap_or("waiting")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    /// `age`: seconds before noon that it was made.
    fn pod(name: &str, age: u32, ready: bool, more: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T11:59:{:02}Z", 59 - age)},
            "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (name, value) in more.as_object().unwrap() {
            pod[name].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        }
        serde_json::from_value(pod).unwrap()
    }

    fn leaving() -> Value {
        json!({"metadata": {"deletionTimestamp": "2026-01-01T12:00:00Z"}})
    }

    #[test]
    fn the_newest_that_is_ready_and_stays_is_taken() {
        let chosen = |pods: &[Pod], avoid| newest_ready(pods, avoid).and_then(|pod| pod.metadata.name.clone());
        let none = json!({});
        let pods = [
            pod("old", 30, true, &none),
            pod("new", 20, true, &none),
            pod("unready", 10, false, &none),
            pod("gone", 0, true, &leaving()),
        ];
        assert_eq!(chosen(&pods, None).as_deref(), Some("new"));
        assert_eq!(chosen(&pods, Some("new")).as_deref(), Some("old"));
        assert_eq!(chosen(&pods[1..], Some("new")).as_deref(), Some("new"));
        assert_eq!(chosen(&pods[2..], None), None);
    }

    #[test]
    fn a_ports_name_is_looked_up_in_the_pod_itself_sidecars_included() {
        let web = json!([{"name": "web", "containerPort": 8080}]);
        let containers = json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b", "ports": [{"name": "http", "containerPort": 4466}]}],
            "initContainers": [{"name": "c", "ports": [{"name": "once", "containerPort": 1}]}, {"name": "d", "restartPolicy": "Always", "ports": web}],
        }});
        let pod = pod("x", 0, true, &containers);
        let number = |name: &str| port_number(&pod, &Port::Named(name.to_owned()));
        assert_eq!(
            [number("http"), number("web"), number("once"), number("none")],
            [Some(4466), Some(8080), None, None]
        );
        assert_eq!(port_number(&pod, &Port::Number(80)), Some(80));
    }

    #[test]
    fn what_ails_the_newest_is_told() {
        let waiting = |reason: &str, message: Option<&str>| {
            json!({"status": {"containerStatuses": [{"name": "ui", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": reason, "message": message}}}]}})
        };
        let told = |more: &Value| what_ails(&[pod("old", 9, false, &leaving()), pod("x", 0, false, more)]).unwrap();
        assert_eq!(
            told(&waiting("CrashLoopBackOff", Some("back-off 5m0s"))),
            "the pod `x` does not run: CrashLoopBackOff in container `ui`: back-off 5m0s"
        );
        assert_eq!(
            told(&waiting("ImagePullBackOff", None)),
            "the pod `x` does not run: ImagePullBackOff in container `ui`"
        );
        assert_eq!(told(&json!({})), "the pod `x` runs, and is not ready");
        let unscheduled = json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}});
        assert_eq!(told(&unscheduled), "the pod `x` has no node: 0/1 nodes are available");
        let mut starting = waiting("ContainerCreating", None);
        starting["status"]["phase"] = json!("Pending");
        assert_eq!(told(&starting), "the pod `x` is Pending");
        assert_eq!(what_ails(&[pod("x", 0, true, &leaving())]).unwrap(), "the pod `x` is being deleted");
        assert_eq!(what_ails(&[]), None);
    }
}
