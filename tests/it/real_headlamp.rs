//! The stand-in Headlamp in pods of a real cluster, and the people there: what later tests rely on.

use headlamp_test_support::real_people::{rule, rules_to_open};
use headlamp_test_support::{DeployedHeadlamp, Deployment, Layout, RealCluster, Version};
use serde_json::{Value, json};

/// What a pod answers, through the API server's proxy.
fn ask(cluster: &RealCluster, headlamp: &DeployedHeadlamp<'_>, path: &str) -> String {
    let pod = headlamp.ready_pods().into_iter().next().unwrap();
    let url = format!("/api/v1/namespaces/{}/pods/{pod}:4466/proxy{path}", headlamp.namespace);
    cluster.as_admin(&["get", "--raw", &url], "")
}

fn get(cluster: &RealCluster, headlamp: &DeployedHeadlamp<'_>, kind: &str) -> Value {
    let text = cluster.as_admin(&["-n", &headlamp.namespace, "get", kind, &headlamp.name, "-o", "json"], "");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn pods_come_and_go_and_what_they_were_asked_is_kept() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment { replicas: 2, ..Deployment::default() });
    let labels = &get(cluster, &headlamp, "service")["metadata"]["labels"];
    assert_eq!(labels["helm.sh/chart"], "headlamp-0.45.0");
    assert!(ask(cluster, &headlamp, "/config?1").contains("incluster"));
    let killed = headlamp.kill_container();
    assert!(ask(cluster, &headlamp, "/?2").contains("stand-in"));
    let deleted = headlamp.delete_pod();
    headlamp.wait_until_ready();
    let before = headlamp.ready_pods();
    assert!(before.len() == 2 && !before.contains(&deleted), "{deleted} {killed} {before:?}");
    headlamp.roll_out("second");
    assert!(headlamp.ready_pods().iter().all(|pod| !before.contains(pod)));
    let page = ask(cluster, &headlamp, "/?3");
    // The proxy rewrites links.
    let script = page.split("src=\"").nth(1).unwrap().split('"').next().unwrap().split("/proxy").nth(1).unwrap();
    assert!(ask(cluster, &headlamp, script).contains(r#""build":"second""#), "{script}");
    headlamp.scale(0);

    let asked = headlamp.requests();
    for number in ["1", "2", "3"] {
        let times = asked.iter().filter(|request| request.query.iter().any(|(name, _)| name == number)).count();
        assert_eq!(times, 1, "{number}");
    }
    // The API server's proxy says for whom it asks.
    assert!(asked.iter().all(|request| request.header("x-forwarded-for").is_some()));
}

#[test]
fn what_a_pod_should_not_know_is_found_in_its_log() {
    let Some(cluster) = RealCluster::shared() else { return };
    let layout = Layout::Manifest;
    let headlamp = cluster.deploy_headlamp(&Deployment {
        layout,
        base_url: "/headlamp".to_owned(),
        tls: true,
        sidecar: true,
        ..Deployment::default()
    });
    assert_eq!(get(cluster, &headlamp, "service")["metadata"]["labels"], Value::Null);
    let nothing = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| headlamp.assert_knows_nothing()));
    nothing().expect_err("it was never asked");
    let pod = headlamp.ready_pods().pop().unwrap();
    let url =
        format!("/api/v1/namespaces/{}/pods/https:{pod}:4466/proxy/headlamp/?token=eyJhbGciOi", headlamp.namespace);
    assert!(cluster.as_admin(&["get", "--raw", &url], "").contains("headlampBaseUrl = '/headlamp'"));
    let found = *nothing().expect_err("it got a token").downcast::<String>().unwrap();
    assert!(found.contains("parameter `token=eyJhbGciOi`"), "{found}");
}

#[test]
fn the_broken_version_crashes_as_it_did() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment { version: Version(0, 40, 1), ..Deployment::default() });
    assert_eq!(headlamp.ready_pods(), [""; 0]);
    let deployment = format!("deployment/{}", headlamp.name);
    let logs = cluster.as_admin(&["-n", &headlamp.namespace, "logs", &deployment, "-c", "headlamp"], "");
    assert_eq!(logs, "flag provided but not defined: -session-ttl\n");
}

#[test]
fn people_are_known_by_certificate_and_token_and_may_do_what_is_granted() {
    let Some(cluster) = RealCluster::shared() else { return };
    let people = [cluster.certificate_user("hypatia", &["readers"]), cluster.service_account("robot")];
    for person in people {
        let kubeconfig = cluster.kubeconfig_of(&person.entry, Some(&cluster.namespace));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let as_them = |arguments: &[&str]| {
            let file = file.to_str().unwrap();
            // The last of two `--kubeconfig` counts.
            cluster.try_as_admin(&[arguments, &["--kubeconfig", file]].concat())
        };
        let who: Value = serde_json::from_str(&as_them(&["auth", "whoami", "-o", "json"]).unwrap()).unwrap();
        assert_eq!(who["status"]["userInfo"]["username"], json!(person.name));
        assert!(as_them(&["get", "pods"]).unwrap_err().contains("forbidden"));
        cluster.grant(&person.name, Some(&cluster.namespace), &rules_to_open());
        cluster.grant(&person.name, None, &[rule("", &["nodes"], &["list"])]);
        as_them(&["get", "pods"]).unwrap();
        as_them(&["get", "nodes"]).unwrap();
        assert!(as_them(&["get", "secrets"]).unwrap_err().contains("forbidden"));
        let Some(events) = cluster.audit_of(&person.name) else { return };
        assert!(events.iter().any(|event| event["verb"] == "list" && event["objectRef"]["resource"] == "nodes"));
    }
}
