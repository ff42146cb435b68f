//! `open` on the real cluster: whom it is asked as, what the pod learns, what a page lives through,
//! what is said where a right is missing. `tests/README.md` says what it needs.

use std::time::Instant;

use headlamp_test_support::browser::Page;
use headlamp_test_support::real_people::{rule, rules_to_open};
use headlamp_test_support::real_provider::CLIENT;
use headlamp_test_support::{
    Browser, DeployedHeadlamp, Deployment, KnownUser, Layout, Output, RealCluster, Run, Running, Sandbox, wait_until,
};
use serde_json::{Value, json};

use crate::BINARY;
use crate::opened::{DEADLINE, Failure, Opened, address, versions};

/// Somebody with a kubeconfig, who has Headlamp opened with these flags.
struct Seat {
    sandbox: Sandbox,
    flags: Vec<String>,
}

impl Seat {
    fn of(kubeconfig: &Value) -> Self {
        let sandbox = Sandbox::new(BINARY);
        sandbox.write_kubeconfig(kubeconfig);
        Self { sandbox, flags: Vec::new() }
    }

    /// With this user's entry, and this namespace as the context's.
    fn known(cluster: &RealCluster, user: &KnownUser, namespace: Option<&str>) -> Self {
        Self::of(&cluster.kubeconfig_of(&user.entry, namespace))
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    fn run(&self) -> Run<'_> {
        self.sandbox.command(["open"]).args(&self.flags)
    }

    fn open(&self) -> Opened<'_> {
        Opened::by(self.run())
    }

    /// It is refused at once, or in a while where there is hope.
    fn refused(&self) -> Output {
        self.run().args(["--no-browser", "--port=0", "--timeout=20s"]).run()
    }
}

/// What a page needs here beside its files.
fn rules_to_see() -> Vec<Value> {
    let mut rules = rules_to_open();
    rules.push(rule("", &["configmaps"], &["get", "list", "watch"]));
    rules.push(rule("", &["pods/log"], &["get"]));
    rules.push(rule("", &["pods/exec"], &["create", "get"]));
    rules
}

fn make_config_map(cluster: &RealCluster, namespace: &str, name: &str) {
    cluster.as_admin(&["--namespace", namespace, "create", "configmap", name], "");
}

fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// An exec entry of ours, for this person of the provider, who has signed in.
fn signed_in_at_the_provider(cluster: &RealCluster, person: &str) -> Seat {
    let provider = cluster.provider;
    let mut arguments = vec!["get-token".to_owned()];
    arguments.extend(provider.flags(CLIENT));
    arguments.extend(["profile", "email", "groups"].map(|scope| format!("--scope={scope}")));
    arguments.push(format!("--login-hint={person}"));
    arguments.push("--prompt=consent".to_owned());
    arguments.push(format!("--browser-command={}", provider.node.visitor(person, &provider.authority)));
    let seat = Seat::of(&cluster.kubeconfig(BINARY, &arguments));
    seat.sandbox.watch(provider.secrets());
    let _ = seat.sandbox.command(["login"]).run().succeeded();
    seat
}

/// Another program's exec entry, which hands out this token.
fn with_another_plugin(cluster: &RealCluster, token: &str) -> Seat {
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token},
    });
    let seat = Seat::of(&json!({}));
    let plugin = seat.sandbox.write_program("some-plugin", &format!("echo '{credential}'"));
    let kubeconfig = cluster.kubeconfig(plugin.to_str().unwrap(), &[]);
    seat.sandbox.write_kubeconfig(&kubeconfig);
    seat
}

/// How the audit log knows a request's user: by name, as whom they act, and by which credential.
struct Known<'a> {
    name: &'a str,
    acts_as: Option<&'a str>,
    credential: &'a str,
}

/// All that this user asked is in the audit log as theirs, what the page asked too.
fn assert_asked_as(cluster: &RealCluster, known: &Known<'_>, mark: &str) {
    let Some(mut events) = cluster.audit_of(known.name) else { return };
    if known.acts_as.is_some() {
        // Who it is that acts as another is asked too, and nothing else as oneself.
        events.retain(|event| {
            event.get("impersonatedUser").is_some() || event["objectRef"]["resource"] != "selfsubjectreviews"
        });
    }
    for event in &events {
        assert_eq!(event["impersonatedUser"]["username"].as_str(), known.acts_as, "{event}");
        let agent = event["userAgent"].as_str().unwrap_or_default();
        assert!(!agent.contains("kubectl/"), "{event}");
        let by = event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap_or_default();
        assert!(by.starts_with(known.credential), "{event}");
    }
    let asked = |verb: &str, part: &str, code: u16| {
        let fits = |event: &&Value| {
            event["verb"] == verb
                && event["requestURI"].as_str().is_some_and(|uri| uri.contains(part))
                && event["responseStatus"]["code"] == code
        };
        assert!(events.iter().any(|event| fits(&event)), "no {verb} of {part} with {code} by {}", known.name);
    };
    asked("list", mark, 200);
    asked("watch", mark, 200);
    asked("create", "selfsubjectreviews", 201);
    asked("get", "/portforward", 101);
}

#[test]
fn each_request_is_made_as_the_user_whatever_the_credential_and_the_pod_learns_none() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let certificate = cluster.certificate_user("grace", &["programmers"]);
    let account = cluster.service_account("static-token");
    let plugin = cluster.service_account("of-a-plugin");
    let secretary = cluster.certificate_user("secretary", &[]);
    let rules = [rule("", &["users"], &["impersonate"])];
    cluster.grant(&secretary.name, None, &rules);
    for name in ["oidc:sofya", &certificate.name, &account.name, &plugin.name, "ada"] {
        cluster.grant(name, Some(namespace), &rules_to_see());
    }

    let seats = [
        (signed_in_at_the_provider(cluster, "sofya"), "oidc:sofya", None, ""),
        (Seat::known(cluster, &certificate, None), &certificate.name, None, "X509SHA256="),
        (Seat::known(cluster, &account, None), &account.name, None, "JTI="),
        (with_another_plugin(cluster, plugin.entry["token"].as_str().unwrap()), &plugin.name, None, "JTI="),
        (Seat::known(cluster, &secretary, None).flags(&["--as=ada"]), &secretary.name, Some("ada"), "X509SHA256="),
    ];
    let mut cookies = Vec::new();
    for (number, (seat, name, acts_as, credential)) in seats.into_iter().enumerate() {
        let seat = seat.flags(&["--namespace", namespace]);
        let page = seat.open();
        assert_eq!(page.script().status, 200);
        let who: Value = serde_json::from_str(&page.get(&page.api("/me")).body).unwrap();
        assert_eq!(who["username"], json!(acts_as.unwrap_or(name)));
        let mark = format!("mark%3D{number}");
        let path = format!("{}?labelSelector={mark}", config_maps(namespace));
        assert_eq!(page.object(&path)["kind"], "ConfigMapList");
        drop(page.live(&path));
        assert_eq!(page.get(&page.api("/api/v1/namespaces/kube-system/secrets")).status, 403);
        let cookie = page.cookie.split_once('=').unwrap().1.to_owned();
        page.running.interrupt();
        assert_eq!(page.running.wait().code, 130);
        assert_asked_as(cluster, &Known { name, acts_as, credential }, &mark);
        cookies.push(cookie);
    }
    headlamp.assert_knows_nothing();
    for request in headlamp.requests() {
        let text = format!("{request:?}");
        let tokens = [&account, &plugin].map(|user| user.entry["token"].as_str().unwrap());
        let mut secrets = cookies.iter().map(String::as_str).chain(tokens);
        assert!(!secrets.any(|secret| text.contains(secret)), "{text}");
    }
}

#[test]
fn a_page_shows_changes_as_they_happen_follows_logs_and_runs_commands() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("hedy", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_see());
    let seat = Seat::known(cluster, &user, Some(namespace)).flags(&["--namespace", namespace]);
    let page = seat.open();

    let mut live = page.live(&config_maps(namespace));
    make_config_map(cluster, namespace, "made-by-kubectl");
    live.wait_for("what kubectl made", |objects| objects.contains_key("made-by-kubectl"));
    cluster.as_admin(&["--namespace", namespace, "delete", "configmap", "made-by-kubectl"], "");
    live.wait_for("what kubectl deleted to be gone", |objects| !objects.contains_key("made-by-kubectl"));

    let pod = headlamp.ready_pods().pop().unwrap();
    let pod = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let log = format!("{pod}/log?container=headlamp&follow=true&tailLines=1");
    let mut logs = page.socket(&log, Some("binary.k8s.io"));
    let said = run(&page, &pod, &["/usr/bin/sh", "-c", "echo heard | /usr/bin/tee /proc/1/fd/1"]);
    assert_eq!(said, "\u{1}\u{1}heard\n\u{3}{\"metadata\":{},\"status\":\"Success\"}");
    logs.wait_for("heard\n");
    let mut shell = page.socket(&exec(&pod, &["/usr/bin/cat"], "&stdin=true"), Some("v4.channel.k8s.io"));
    shell.send(b"\0over and back\n");
    shell.wait_for("over and back");
    headlamp.assert_knows_nothing();
}

fn exec(pod: &str, command: &[&str], more: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(command.iter().map(|word| ("command", word)))
        .finish();
    format!("{pod}/exec?container=headlamp&{query}&stdout=true{more}")
}

/// Runs a command in the pod, as the page's terminal does.
fn run(page: &Opened<'_>, pod: &str, command: &[&str]) -> String {
    page.socket(&exec(pod, command, ""), Some("v4.channel.k8s.io")).rest()
}

/// What is asked for again and again: the index page and `/config`, which come from the pod each
/// time, and the API.
fn polled(page: &Opened<'_>, namespace: &str) -> [String; 3] {
    [String::new(), "config".to_owned(), page.api(&format!("{}?limit=5", config_maps(namespace)))]
}

/// Waits until the page's files are another build's.
fn wait_for_build(page: &Opened<'_>, build: &str) {
    let text = format!("\"build\":\"{build}\"");
    wait_until(DEADLINE, build, || page.script().body.contains(&text));
}

#[test]
fn an_open_page_does_not_notice_that_its_pods_come_and_go() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("annie", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_see());
    let seat = Seat::known(cluster, &user, None).flags(&["--namespace", namespace]);
    let page = seat.open();
    let mut live = page.live(&config_maps(namespace));
    let polls = page.poll(&polled(&page, namespace));

    headlamp.delete_pod();
    headlamp.wait_until_ready();
    headlamp.roll_out("second");
    wait_for_build(&page, "second");
    headlamp.kill_container();
    headlamp.wait_until_ready();
    headlamp.roll_out("third");
    wait_for_build(&page, "third");

    let polled = polls.stop();
    assert!(polled.failures.is_empty() && polled.count > 30, "{polled:#?}");
    make_config_map(cluster, namespace, "at-the-end");
    live.wait_for("what was made at the end", |objects| objects.contains_key("at-the-end"));
    headlamp.assert_knows_nothing();
}

#[test]
fn an_open_page_outlives_restarts_of_the_node_s_kubelet_and_of_the_api_server() {
    let Some(cluster) = RealCluster::alone() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("radia", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_see());
    let seat = Seat::known(cluster, &user, None).flags(&["--namespace", namespace]);
    let page = seat.open();
    let mut live = page.live(&config_maps(namespace));
    let paths = polled(&page, namespace);

    let polls = page.poll(&paths);
    cluster.restart("kubelet");
    headlamp.roll_out("second");
    wait_for_build(&page, "second");
    let polled = polls.stop();
    assert!(polled.failures.is_empty() && polled.count > 10, "{polled:#?}");

    let polls = page.poll(&paths);
    cluster.restart("kube-apiserver");
    let up = Instant::now();
    make_config_map(cluster, namespace, "after-the-restart");
    live.wait_for("what was made after the restart", |objects| objects.contains_key("after-the-restart"));
    headlamp.roll_out("third");
    wait_for_build(&page, "third");
    let polled = polls.stop();
    // An API server that has just begun to listen knows nobody's rights yet, and says 403.
    let told = |failure: &Failure| ["502 ", "403 "].iter().any(|status| failure.what.starts_with(status));
    let fits = |failure: &Failure| failure.at < up && told(failure) && failure.path.contains("/clusters/");
    assert!(polled.failures.iter().all(fits), "up at {up:?}: {polled:#?}");
    let list = cluster.as_admin(&["--namespace", namespace, "get", "configmaps", "-o", "json"], "");
    let held = versions(&serde_json::from_str(&list).unwrap());
    live.wait_for("what the cluster holds", |objects| *objects == held);
    headlamp.assert_knows_nothing();
}

#[test]
fn where_a_right_is_missing_it_is_named_with_the_namespace_and_what_gives_it() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let rights =
        [("nothing", None), ("neither", Some(vec![])), ("create", Some(vec!["create"])), ("get", Some(vec!["get"]))];
    let mut told = Vec::new();
    for (name, verbs) in rights {
        let user = cluster.service_account(&format!("may-{name}"));
        if let Some(verbs) = verbs {
            let mut rules = vec![rule("", &["pods", "services"], &["get", "list"])];
            if !verbs.is_empty() {
                rules.push(rule("", &["pods/portforward"], &verbs));
            }
            cluster.grant(&user.name, Some(namespace), &rules);
        }
        let seat = Seat::known(cluster, &user, Some(namespace)).flags(&["--namespace", namespace]);
        seat.sandbox.call(namespace, "[NAMESPACE]");
        seat.sandbox.call(&cluster.namespace, "[TESTS]");
        for pod in headlamp.ready_pods() {
            seat.sandbox.call(&pod, "[POD]");
        }
        told.push(format!("may {name}: {}", error_of(&seat.refused())));
        if name == "nothing" {
            told.push(format!(
                "may {name}, names nothing: {}",
                error_of(&Seat { flags: Vec::new(), ..seat }.refused())
            ));
        }
    }
    insta::assert_snapshot!(told.join("\n\n"), @r#"
    may nothing: exit 1, no Headlamp was found in the namespace `[NAMESPACE]`
      caused by: looked for Services and pods labelled `app.kubernetes.io/name=headlamp` or `k8s-app=headlamp`, for a Service `headlamp`, for Headlamp's chart and for Deployments of its image
      caused by: not all could be searched: services is forbidden: User "system:serviceaccount:[TESTS]:may-nothing" cannot list resource "services" in API group "" in the namespace "[NAMESPACE]"

    hint: if it is there, say where: `kubectl headlamp open --port=0 --no-browser --timeout=20s --namespace NAMESPACE --service NAME`
    hint: if it is not, install it: `helm repo add headlamp https://kubernetes-sigs.github.io/headlamp/`, then `helm install headlamp headlamp/headlamp --namespace headlamp --create-namespace`

    may nothing, names nothing: exit 1, no Headlamp was found in the little of the cluster that you may see
      caused by: looked for Services and pods labelled `app.kubernetes.io/name=headlamp` or `k8s-app=headlamp`, for a Service `headlamp`, for Headlamp's chart and for Deployments of its image
      caused by: not all could be searched: services is forbidden: User "system:serviceaccount:[TESTS]:may-nothing" cannot list resource "services" in API group "" in the namespace "kube-system"

    hint: if it is there, say where: `kubectl headlamp open --port=0 --no-browser --timeout=20s --namespace NAMESPACE --service NAME`
    hint: if it is not, install it: `helm repo add headlamp https://kubernetes-sigs.github.io/headlamp/`, then `helm install headlamp headlamp/headlamp --namespace headlamp --create-namespace`

    may neither: exit 1, you may not forward ports to pods in the namespace `[NAMESPACE]`
      caused by: pods "[POD]" is forbidden: User "system:serviceaccount:[TESTS]:may-neither" cannot get resource "pods/portforward" in API group "" in the namespace "[NAMESPACE]"

    hint: that takes `get` and `create` on `pods/portforward`; who runs the cluster can give it: `kubectl create role kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --verb=get,create --resource=pods/portforward`
    hint: and `kubectl create rolebinding kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --role=kubectl-headlamp-pods-portforward --user=system:serviceaccount:[TESTS]:may-neither`

    may create: exit 1, you may not forward ports to pods in the namespace `[NAMESPACE]`
      caused by: pods "[POD]" is forbidden: User "system:serviceaccount:[TESTS]:may-create" cannot get resource "pods/portforward" in API group "" in the namespace "[NAMESPACE]"

    hint: that takes `get` and `create` on `pods/portforward`; who runs the cluster can give it: `kubectl create role kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --verb=get,create --resource=pods/portforward`
    hint: and `kubectl create rolebinding kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --role=kubectl-headlamp-pods-portforward --user=system:serviceaccount:[TESTS]:may-create`

    may get: exit 1, you may not forward ports to pods in the namespace `[NAMESPACE]`
      caused by: pods "[POD]" is forbidden: no reason is given; since Kubernetes 1.35 the verb `get` alone is not enough

    hint: that takes `get` and `create` on `pods/portforward`; who runs the cluster can give it: `kubectl create role kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --verb=get,create --resource=pods/portforward`
    hint: and `kubectl create rolebinding kubectl-headlamp-pods-portforward --namespace [NAMESPACE] --role=kubectl-headlamp-pods-portforward --user=NAME`
    "#);
}

/// Without what was told on the way there.
fn error_of(output: &Output) -> String {
    let shown = output.to_string();
    let error = shown.split("kubectl-headlamp: error: ").nth(1).unwrap_or_else(|| panic!("{output}"));
    format!("exit {}, {error}", output.code)
}

#[test]
fn it_is_found_by_its_labels_and_behind_a_named_port_a_base_url_and_two_pods() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment {
        name: "panel".to_owned(),
        replicas: 2,
        base_url: "/headlamp".to_owned(),
        service_port: 8080,
        sidecar: true,
        ..Deployment::default()
    });
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("mary", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_see());
    let seat = Seat::known(cluster, &user, Some(namespace));
    // One may not list everywhere; the context's namespace is looked at, and what is there is not
    // opened without a word from its user.
    let output = seat.refused();
    assert_eq!(output.code, 1, "{output}");
    let command = format!(" --namespace {namespace} --service panel`");
    assert!(output.stderr.contains(&command), "{output}");
    for flags in [&["--service", "panel", "--service-port", "http"][..], &["--service-port", "8080"], &[]] {
        let seat = Seat::known(cluster, &user, Some(namespace)).flags(&["--namespace", namespace]).flags(flags);
        assert_works(&seat, &headlamp, "/headlamp/");
    }
}

#[test]
fn it_is_found_by_the_layout_of_the_plain_manifest_and_behind_tls() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp =
        cluster.deploy_headlamp(&Deployment { layout: Layout::Manifest, tls: true, ..Deployment::default() });
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("barbara", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_see());
    assert_works(&Seat::known(cluster, &user, None).flags(&["--namespace", namespace]), &headlamp, "/");
}

fn assert_works(seat: &Seat, headlamp: &DeployedHeadlamp<'_>, home: &str) {
    let page = seat.open();
    assert_eq!(page.home.path(), home);
    assert!(page.index().body.contains("stand-in"));
    assert!(page.script().body.contains("\"build\":"));
    assert_eq!(page.object(&config_maps(&headlamp.namespace))["kind"], "ConfigMapList");
    headlamp.assert_knows_nothing();
}

#[test]
fn headlamp_s_own_sign_in_has_its_port_through_a_replacement_of_the_pod() {
    let Some(cluster) = RealCluster::shared() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let namespace = headlamp.namespace.as_str();
    let user = cluster.certificate_user("dorothy", &[]);
    cluster.grant(&user.name, Some(namespace), &rules_to_open());
    let seat = Seat::known(cluster, &user, None).flags(&["--namespace", namespace, "--sign-in=headlamp", "--port=0"]);
    let mut running: Running<'_> = seat.run().arg("--no-browser").spawn();
    let url = address(&mut running);
    let home = || Browser::new().request("GET", &url, &[("Cookie", "of=headlamp")], "");
    let before = home().unwrap();
    assert_eq!(before.status, 200, "{before:?}");
    // A connection ends with the pod it leads to, or is told that there is none; the next one goes on.
    let wait_for = |what: &str, fits: &dyn Fn(&Page) -> bool| {
        wait_until(DEADLINE, what, || match home() {
            Ok(page) if page.status == 200 => fits(&page),
            Ok(page) => {
                assert!(page.status == 502 && page.body.contains("pod"), "{page:?}");
                false
            }
            Err(_) => false,
        });
    };
    headlamp.delete_pod();
    headlamp.wait_until_ready();
    wait_for("the pod after the first", &|page| page.body == before.body);
    headlamp.roll_out("second");
    wait_for("another build's page", &|page| page.body != before.body);
    // It is Headlamp's own port: its cookies are its.
    assert!(headlamp.requests().iter().any(|request| request.header("cookie") == Some("of=headlamp")));
    running.interrupt();
    assert_eq!(running.wait().code, 130);
}
