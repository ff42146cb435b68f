//! Which Headlamp `open` opens, and where its page comes from.

use std::fs;

use headlamp_test_support::{
    Authority, Cluster, HeadlampInstall, KeptPort, Layout, StandIn, StandInOptions, wait_until, with_token,
};
use serde_json::json;

use crate::open_desk::{DEADLINE, Desk, PODS, Tab, UPSTREAM_PODS, address, error, interrupted, port_of, visit};

#[test]
fn a_cluster_without_headlamp_is_told_with_the_commands_that_install_it() {
    let desk = Desk::at(Cluster::start(|_| None), StandInOptions::default());
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    no Headlamp was found in the cluster
      caused by: looked for Services and pods labelled `app.kubernetes.io/name=headlamp` or `k8s-app=headlamp`, for a Service `headlamp`, for Headlamp's chart and for Deployments of its image

    hint: if it is there, say where: `kubectl headlamp open --namespace NAMESPACE --service NAME`
    hint: if it is not, install it: `helm repo add headlamp https://kubernetes-sigs.github.io/headlamp/`, then `helm install headlamp headlamp/headlamp --namespace headlamp --create-namespace`
    ");
    let output = desk.sandbox.command(["open", "-n", "tools", "--service", "ui"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    there is no Service, Deployment or pod `ui` in the namespace `tools`

    hint: `kubectl get services --all-namespaces` shows what there is
    ");
    assert!(desk.sandbox.opened().is_empty());
}

#[test]
fn with_several_headlamps_and_nobody_to_ask_the_error_has_the_command_for_each() {
    let desk = Desk::taken();
    desk.install("kube-system", &HeadlampInstall { release: "second".to_owned(), ..HeadlampInstall::default() });
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    2 Headlamps were found, and nobody can be asked which

    hint: `kubectl headlamp open --namespace headlamp --service headlamp`: headlamp/headlamp, version 0.45.0, image ghcr.io/headlamp-k8s/headlamp:v0.45.0
    hint: `kubectl headlamp open --namespace kube-system --service second`: kube-system/second, version 0.45.0, image ghcr.io/headlamp-k8s/headlamp:v0.45.0
    ");
    let mut open = desk.open(["-n", "kube-system"]).spawn();
    assert_eq!(Tab::of(&mut open).get("/config").status, 200);
    let _ = interrupted(open);
}

#[test]
fn a_headlamp_elsewhere_is_opened_only_after_consent_which_is_remembered() {
    let desk = Desk::at(Cluster::start(|_| None), StandInOptions::default());
    desk.install("team", &HeadlampInstall::default());
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    the Headlamp in the namespace `team` is not opened unasked
      caused by: whoever has rights in the namespace `team` may have put it there, and its page acts in the cluster as you
      caused by: it is team/headlamp, version 0.45.0, image ghcr.io/headlamp-k8s/headlamp:v0.45.0

    hint: if you trust it: `kubectl headlamp open --namespace team --service headlamp`
    ");
    assert!(desk.headlamp.requests().is_empty(), "its page was fetched all the same");
    let output = desk.open(["--context", "dev", "--path=/c/main/pods?x=y", "--as=jane"]).run();
    let command = "kubectl headlamp open --context=dev --as=jane '--path=/c/main/pods?x=y' --no-browser";
    let hint = format!("hint: if you trust it: `{command} --namespace team --service headlamp`");
    assert!(output.stderr.contains(&hint), "{output}");

    let mut terminal = desk.open([]).terminal();
    let question = terminal.expect("[y/N]");
    assert!(question.contains("team/headlamp, version 0.45.0") && question.contains("acts in the cluster as you"));
    terminal.send_line("n");
    assert_eq!(terminal.wait().code, 1);
    assert!(desk.headlamp.requests().is_empty());

    let mut terminal = desk.open([]).terminal();
    terminal.expect("[y/N]");
    terminal.send_line("y");
    wait_until(DEADLINE, "an address", || terminal.stdout().ends_with('\n'));
    let first = terminal.stdout();
    terminal.send_interrupt();
    assert_eq!(terminal.wait().code, 130);

    // The second time nobody is asked, and the port is the same.
    let mut open = desk.open([]).spawn();
    assert_eq!(port_of(&address(&mut open)), port_of(first.trim_end()));
    let _ = interrupted(open);
}

#[test]
fn who_may_not_list_the_cluster_is_led_to_the_likely_namespaces() {
    let desk = Desk::taken();
    desk.cluster.authorize(|attempt| attempt.verb != "list" || !attempt.namespace.is_empty());
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!((tab.go("/").status, tab.get(PODS).status), (200, 200));
    let asked = desk.cluster.requests();
    let in_namespace = |namespace: &str| format!("/api/v1/namespaces/{namespace}/services");
    for path in [in_namespace("headlamp"), in_namespace("kube-system"), "/api/v1/services".to_owned()] {
        assert!(asked.iter().any(|asked| asked.path == path), "{path}");
    }
    let _ = interrupted(open);
}

#[test]
fn a_pod_that_is_ready_and_does_not_answer_is_left_for_another() {
    let desk = Desk::taken();
    let nobody = KeptPort::new();
    let dead = desk.cluster.add_headlamp_pod("headlamp", "headlamp", nobody.address());
    desk.cluster.edit("pods", "headlamp", &dead, |pod| {
        pod["metadata"]["creationTimestamp"] = json!("2099-01-01T00:00:00Z");
    });
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!((tab.go("/").status, tab.get("/config").status), (200, 200));
    let tried = desk.cluster.requests_to(&format!("/api/v1/namespaces/headlamp/pods/{dead}/portforward"));
    assert!(!tried.is_empty(), "the newest is tried first");
    let _ = interrupted(open);
}

#[test]
fn who_may_not_forward_ports_is_told_the_right_that_is_missing() {
    let desk = Desk::taken();
    desk.cluster.authorize(|attempt| attempt.subresource != "portforward");
    let output = desk.open([]).run();
    let error = error(&output);
    assert!(error.starts_with("exit 1\nyou may not forward ports to pods in the namespace `headlamp`"), "{error}");
    assert!(error.contains("--verb=get,create --resource=pods/portforward`"), "{error}");
    assert!(error.contains("--user=jane`"), "{error}");
    assert!(desk.headlamp.requests().is_empty());
}

#[test]
fn a_version_that_is_known_not_to_work_is_warned_of() {
    for (version, arguments, warning) in [
        ("0.31.0", &[][..], "Headlamp 0.31.0 gets no live updates here"),
        ("0.40.1", &["-session-ttl=86400"], "update the chart to 0.41.0 or newer"),
        ("0.29.0", &[], "older than 0.30.0"),
    ] {
        let install = HeadlampInstall {
            version: version.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            ..HeadlampInstall::default()
        };
        let desk = Desk::with(StandInOptions::default(), &install);
        let open = desk.open([]).spawn();
        open.wait_for_stderr(warning);
        let _ = interrupted(open);
    }
}

#[test]
fn context_namespace_service_and_its_port_are_chosen_by_flags() {
    let desk = Desk::at(Cluster::start(|_| None), StandInOptions::default());
    let other = Cluster::start(|_| None);
    let install = HeadlampInstall {
        layout: Layout::Manifest,
        release: "ui".to_owned(),
        port: 8123,
        service_port: Some(8080),
        ..HeadlampInstall::default()
    };
    let page = StandIn::start(StandInOptions::default());
    other.install_headlamp("tools", &install, ([127, 0, 0, 1], page.port()).into());
    other.edit("services", "tools", "ui", |service| {
        let metrics = json!({"name": "metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"});
        service["spec"]["ports"][0]["name"] = json!("web");
        service["spec"]["ports"].as_array_mut().unwrap().insert(0, metrics);
    });
    let mut kubeconfig = desk.cluster.kubeconfig(&with_token(&desk.token("jane", &[])));
    let further = other.kubeconfig(&with_token(&other.token("olga", &[])));
    for list in ["clusters", "users", "contexts"] {
        let mut entry = further[list][0].clone();
        entry["name"] = json!("other");
        if list == "contexts" {
            entry["context"] = json!({"cluster": "other", "user": "other"});
        }
        kubeconfig[list].as_array_mut().unwrap().push(entry);
    }
    desk.sandbox.write_kubeconfig(&kubeconfig);
    let flags = ["--context=other", "-n", "tools", "--service", "ui"];
    let mut open = desk.open(flags).arg("--service-port=web").spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(other.requests_to(UPSTREAM_PODS).last().unwrap().user.as_ref().unwrap().name, "olga");
    assert!(page.requests().iter().any(|request| request.path == "/config"));
    assert!(desk.cluster.requests().is_empty());
    let _ = interrupted(open);
    let output = desk.open(flags).arg("--service-port=admin").run();
    insta::assert_snapshot!(error(&output), @r"
    exit 2
    the Service `ui` has no port `admin`

    hint: it has `metrics` (9090), `web` (8080)
    ");
}

#[test]
fn a_headlamp_with_a_base_url_and_tls_is_served_below_it() {
    let authority = Authority::new("of Headlamp");
    let options = StandInOptions {
        base_url: "/headlamp".to_owned(),
        tls: Some(authority.server(&["headlamp"])),
        ..StandInOptions::default()
    };
    let install = HeadlampInstall { base_url: "/headlamp".to_owned(), tls: true, ..HeadlampInstall::default() };
    let desk = Desk::with(options, &install);
    let mut open = desk.open(["--path=/c/main/pods"]).spawn();
    let address = address(&mut open);
    let reply = visit(&address);
    assert!(reply.text().contains("url=/headlamp/c/main/pods\""), "{}", reply.text());
    let tab = Tab { port: port_of(&address), cookie: reply.cookie().unwrap() };
    assert!(tab.go("/headlamp/c/main/pods").text().contains("headlampBaseUrl = '/headlamp'"));
    for asset in desk.headlamp.assets() {
        let answer = tab.ask("GET", &format!("/headlamp{asset}"), &[("Sec-Fetch-Dest", "script")], "");
        assert_eq!((answer.status, answer.header("cache-control")), (200, "public, max-age=31536000, immutable"));
    }
    assert_eq!(tab.get(&format!("/headlamp{PODS}")).status, 200);
    assert_eq!((tab.go("/").status, tab.go("/").header("location")), (303, "/headlamp/"));
    assert_eq!(tab.get(PODS).status, 404);
    let _ = interrupted(open);
    desk.assert_pod_knows_nothing();
}

#[test]
fn the_page_may_come_from_a_folder_and_the_cluster_needs_no_headlamp() {
    let desk = Desk::at(Cluster::start(|_| None), StandInOptions::default());
    desk.sandbox.write("ui/index.html", "<!DOCTYPE html><title>of the folder</title>");
    desk.sandbox.write("ui/assets/a-CqULmv_h.js", "export {};");
    let folder = desk.sandbox.path("ui");
    let mut open = desk.open(["--ui"]).arg(&folder).spawn();
    let tab = Tab::of(&mut open);
    assert!(tab.go("/c/main/pods").text().contains("of the folder"));
    assert_eq!(tab.get("/assets/a-CqULmv_h.js").text(), "export {};");
    assert_eq!(tab.get("/config").json()["clusters"][0]["name"], "main");
    assert_eq!(tab.get(PODS).status, 200);
    let _ = interrupted(open);
    let asked: Vec<String> = desk.cluster.requests().iter().map(|asked| asked.path.clone()).collect();
    assert!(asked.iter().all(|path| path == UPSTREAM_PODS || path.ends_with("/selfsubjectreviews")), "{asked:?}");
    let output = desk.open(["--ui=nowhere"]).run();
    assert_eq!(output.code, 2, "{output}");
}

#[test]
fn the_page_comes_from_the_cache_when_the_pod_is_gone() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let first = Tab::of(&mut open).go("/").text();
    // What is still being written has a name with a dot before it.
    let is_whole = |file: &fs::DirEntry| !file.file_name().to_string_lossy().starts_with('.');
    let kept = || {
        fs::read_dir(desk.sandbox.cache_folder().join("ui"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten().filter(is_whole).count())
    };
    // The page itself, `/config` and `/plugins`.
    wait_until(DEADLINE, "all of the page on disk", || kept().sum::<usize>() >= desk.headlamp.assets().len() + 3);
    let _ = interrupted(open);
    for pod in desk.cluster.headlamp_pods("headlamp", "headlamp") {
        desk.cluster.delete("pods", "headlamp", &pod);
    }
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.go("/c/main/").text(), first);
    for asset in desk.headlamp.assets() {
        assert_eq!(tab.get(&asset).status, 200, "{asset}");
    }
    assert_eq!((tab.get("/config").status, tab.get(PODS).status), (200, 200));
    open.wait_for_stderr("the page comes from the cache: ");
    let _ = interrupted(open);
}
