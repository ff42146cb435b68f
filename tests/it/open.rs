//! `open`: from a command line to Headlamp in the browser, as the kubeconfig's user, whoever that is
//! and whatever happens on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use headlamp_test_support::api_server::exec_entry;
use headlamp_test_support::{
    Authority, Cluster, ClusterOptions, ConnectProxy, Fault, Gate, HeadlampInstall, Launcher, Layout, Oidc, Play,
    Provider, StandIn, StandInOptions, wait_until, with_certificate, with_token, with_token_file,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::open_desk::{DEADLINE, Desk, PODS, Tab, address, error, event, exchange, interrupted, port_of, visit};

const UPSTREAM_PODS: &str = "/api/v1/namespaces/default/pods";

// As whom.

#[test]
fn every_kind_of_credential_is_the_clusters_alone() {
    let desk = Desk::taken();
    let certificate = desk.cluster.client_certificate("carl", &["operators"]);
    let (jane, boss) = (desk.token("jane", &["developers"]), desk.token("boss", &[]));
    let impersonating = json!({"token": boss, "as": "ivan", "as-groups": ["testers"], "as-uid": "7"});
    let flags = ["--as=lena", "--as-group=a", "--as-group=b", "--as-uid=9"];
    for (user, flags, expected) in [
        (with_token(&jane), &[][..], r#"jane/ ["developers", "system:authenticated"]"#),
        (with_token("of-nobody"), &[&format!("--token={jane}")], r#"jane/ ["developers", "system:authenticated"]"#),
        (with_certificate(&certificate), &[], r#"carl/ ["operators", "system:authenticated"]"#),
        (impersonating, &[], r#"ivan/7 ["testers", "system:authenticated"]"#),
        (with_token(&boss), &flags.map(str::to_owned).each_ref(), r#"lena/9 ["a", "b", "system:authenticated"]"#),
    ] {
        desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
        let mut open = desk.open([]).args(flags).spawn();
        let tab = Tab::of(&mut open);
        let answers = [tab.get(PODS), tab.get("/clusters/main/me"), tab.get("/config"), tab.go("/c/main/pods")];
        for answer in &answers {
            let all = format!("{:?} {}", answer.headers, answer.text());
            assert!(answer.status == 200 && !all.contains(&jane) && !all.contains(&boss), "{expected}: {all}");
        }
        assert_eq!(desk.asked_as(UPSTREAM_PODS), expected);
        assert_eq!(answers[1].json()["username"], expected.split('/').next().unwrap());
        let _ = interrupted(open);
    }
    desk.assert_pod_knows_nothing();
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_refused() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("jane", &[]), desk.token("jane", &["admins"]));
    let file = desk.sandbox.write("token", &first);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    desk.sandbox.write("token", format!("{second}\n"));
    desk.cluster.refuse_token(&first, usize::MAX);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"jane/ ["admins", "system:authenticated"]"#);
    let _ = interrupted(open);
}

#[test]
fn our_own_exec_entry_is_resolved_without_a_child_a_browser_or_the_provider() {
    let provider = Provider::start();
    let desk = Desk::at(Cluster::start(provider.authenticator()), StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    let _ = desk.sandbox.get_token(&provider).run().succeeded();
    desk.sandbox.visits();
    provider.forget_requests();
    let ran = desk.sandbox.path("ran");
    desk.sandbox.write_program("kubectl-headlamp", &format!("echo ran >> '{}'; exit 1", ran.display()));
    let arguments = [vec!["get-token".to_owned()], desk.sandbox.flags(&provider)].concat();
    let user = json!({"exec": exec_entry("kubectl-headlamp", &arguments)});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"jane@example.com/ ["developers", "system:authenticated"]"#);
    let _ = interrupted(open);
    assert!(!ran.exists(), "the exec entry's program was run");
    assert_eq!(desk.sandbox.opened().len(), 1, "only the sign-in before");
    assert_eq!(provider.all_requests().len(), 0);
    desk.assert_pod_knows_nothing();
}

#[test]
fn another_exec_plugin_is_run_once_and_again_when_its_token_is_refused() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("paula", &["first"]), desk.token("paula", &["second"]));
    let answer = |token: &str| {
        let status = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
        json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status}).to_string()
    };
    desk.sandbox.write("answer", answer(&first));
    let (runs, file) = (desk.sandbox.path("runs"), desk.sandbox.path("answer"));
    let script = format!("echo run >> '{}'\n/bin/cat '{}'", runs.display(), file.display());
    let plugin = desk.sandbox.write_program("cloud-plugin", &script);
    let user = json!({"exec": exec_entry(&plugin.display().to_string(), &[])});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    for _ in 0..3 {
        assert_eq!(tab.get(PODS).status, 200);
    }
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"paula/ ["first", "system:authenticated"]"#);
    let count = || fs::read_to_string(&runs).unwrap().lines().count();
    assert_eq!(count(), 1, "its answer is good until 2099");
    desk.sandbox.write("answer", answer(&second));
    desk.cluster.refuse_token(&first, usize::MAX);
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"paula/ ["second", "system:authenticated"]"#);
    assert_eq!(count(), 2);
    let _ = interrupted(open);
    desk.assert_pod_knows_nothing();
}

#[test]
fn an_exec_plugins_client_certificate_is_used() {
    let desk = Desk::taken();
    let certificate = desk.cluster.client_certificate("cora", &["cloud"]);
    let status = json!({"clientCertificateData": certificate.pem, "clientKeyData": certificate.key_pem});
    let answer = json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status});
    let answer = desk.sandbox.write("answer", answer.to_string());
    let plugin = desk.sandbox.write_program("cloud-plugin", &format!("/bin/cat '{}'", answer.display()));
    let user = json!({"exec": exec_entry(&plugin.display().to_string(), &[])});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut open = desk.open([]).spawn();
    assert_eq!(Tab::of(&mut open).get(PODS).status, 200);
    assert_eq!(desk.asked_as(UPSTREAM_PODS), r#"cora/ ["cloud", "system:authenticated"]"#);
    let _ = interrupted(open);
}

// Before anything is opened.

#[test]
fn a_refused_token_is_explained_by_what_stands_in_it() {
    let desk = Desk::taken();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "https://id.example.com", "aud": ["grafana"], "sub": "jane", "exp": 4_000_000_000_u64});
    let token = format!("{}.{}.{}", part(json!({"alg": "ES256"})), part(claims), "c2lnbmF0dXJl");
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token(&token)));
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 1
    the cluster `[CLUSTER]` does not accept the token
      caused by: 401: its issuer is `https://id.example.com`, its audience `grafana`, it is valid until [TIME]

    hint: compare issuer and audience, character for character, with the API server's `--oidc-issuer-url` and `--oidc-client-id`
    hint: is it the token that the cluster wants? `--token-type id` or `--token-type access` chooses
    hint: the API server's log says why it refused the token
    ");
    assert!(desk.sandbox.opened().is_empty() && desk.headlamp.requests().is_empty());
}

#[test]
fn a_cluster_that_is_not_there_is_exit_6() {
    let desk = Desk::taken();
    desk.cluster.go_down();
    let output = desk.sandbox.command(["open"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 6
    cannot reach the cluster `[CLUSTER]`
      caused by: Connection refused (os error 111)

    hint: nothing listens there: is the cluster running?
    ");
    assert!(desk.sandbox.opened().is_empty());
}

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

// Where.

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

// Ports, and who is there already.

#[test]
fn a_port_that_another_program_has_is_not_used_and_stays_the_clusters_own() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let own = port_of(&address(&mut open));
    let _ = interrupted(open);
    let foreign = TcpListener::bind(("127.0.0.1", own)).unwrap();
    let mut open = desk.open([]).spawn();
    let other = port_of(&address(&mut open));
    assert_ne!(own, other);
    let said = format!("port {own} is taken by `");
    assert!(
        open.stderr().contains(&said) && open.stderr().contains(&format!(": using port {other}")),
        "{}",
        open.stderr()
    );
    let _ = interrupted(open);
    let output = desk.open(["--port"]).arg(own.to_string()).run();
    assert!(output.code == 5 && output.stderr.contains(&said), "{output}");
    drop(foreign);
    let mut open = desk.open([]).spawn();
    assert_eq!(port_of(&address(&mut open)), own);
    let _ = interrupted(open);
}

#[test]
fn a_second_open_of_the_same_cluster_shows_the_first_one() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let output = desk.open(["--path=/c/main/pods"]).run().succeeded();
    assert_eq!(
        output.stdout,
        format!("http://localhost:{}/.kubectl-headlamp/return?to=%2Fc%2Fmain%2Fpods\n", tab.port)
    );
    let process = format!("Headlamp is open already, on port {} (process {})", tab.port, open.id());
    assert!(output.stderr.contains(&process), "{output}");
    // The page that it leads to takes the tab back to the session.
    assert!(visit(output.stdout.trim_end()).text().contains("url=/c/main/pods\""));
    desk.sandbox.play(Play::Ignore);
    let output = desk.sandbox.command(["open"]).run().succeeded();
    assert_eq!(output.stdout, "");
    assert_eq!(desk.sandbox.wait_for_browser(1), format!("http://localhost:{}/.kubectl-headlamp/return", tab.port));
    // As another user it is another page, at another port, with a cookie of its own.
    let mut second = desk.open(["--as=lena"]).spawn();
    let lena = Tab::of(&mut second);
    assert_ne!(lena.port, tab.port);
    let both = format!("{}; {}", tab.cookie, lena.cookie);
    for (tab, name) in [(&tab, "jane"), (&lena, "lena")] {
        let me = tab.ask("GET", "/clusters/main/me", &[("Cookie", &both)], "");
        assert_eq!(me.json()["username"], name);
    }
    let (_, _) = (interrupted(second), interrupted(open));
}

#[test]
fn an_address_beyond_loopback_needs_consent() {
    let desk = Desk::taken();
    // Of nobody (RFC 5737).
    let output = desk.open(["--address=192.0.2.7"]).run();
    insta::assert_snapshot!(error(&output), @r"
    exit 2
    `--address` is not an address of this machine alone
      caused by: what is sent there is not encrypted: whoever reads it can act as you

    hint: add `--expose-to-network` if that is what you want
    ");
    let output = desk.open(["--address=192.0.2.7", "--expose-to-network"]).run();
    assert!(output.code == 5 && output.stderr.contains("cannot listen at `192.0.2.7:"), "{output}");
    assert!(desk.cluster.requests().is_empty());
    let mut open = desk.open(["--address=127.0.0.2"]).spawn();
    let tab = Tab::of(&mut open);
    let host = format!("127.0.0.2:{}", tab.port);
    let mut stream = std::net::TcpStream::connect(&host).unwrap();
    stream.write_all(tab.request("GET", "/config", &[("Host", &host)], "").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let _ = interrupted(open);
}

// What is shown.

#[test]
fn without_a_browser_one_address_is_printed_and_nothing_else() {
    let desk = Desk::taken();
    let mut open = desk.open(["--path=c/main/pods?namespace=a"]).spawn();
    let address = address(&mut open);
    let output = interrupted(open);
    assert_eq!(output.stdout, format!("{address}\n"));
    let start = format!("http://localhost:{}/.kubectl-headlamp/start/", port_of(&address));
    assert!(address.starts_with(&start) && address.ends_with("?to=%2Fc%2Fmain%2Fpods%3Fnamespace%3Da"), "{address}");
    assert!(output.stderr.contains("open this address in a browser on this machine; it can be used once"), "{output}");
    assert!(!output.stderr.contains("/start/"), "{output}");
    for path in ["//evil.example", "/../x", "/.kubectl-headlamp/start/x", "/c%2fx"] {
        let output = desk.open(["--path", path]).run();
        assert_eq!(output.code, 2, "{path}: {output}");
    }
}

#[test]
fn a_browser_gets_the_address_and_the_terminal_does_not() {
    let desk = Desk::taken();
    desk.sandbox.play(Play::Ignore);
    let program = desk.sandbox.browser_program();
    let run = desk.sandbox.command(["open", "-v", "--browser-command"]).arg(&program).without_env("BROWSER");
    let open = run.spawn();
    let address = desk.sandbox.wait_for_browser(1);
    let tab = Tab::at(&address);
    assert_eq!(tab.get("/config").status, 200);
    open.wait_for_stderr("GET /config 200");
    let secret = address.rsplit('/').next().unwrap().to_owned();
    let cookie = tab.cookie.split('=').nth(1).unwrap().to_owned();
    let output = interrupted(open);
    assert!(
        output.stdout.is_empty() && !output.stderr.contains(&secret) && !output.stderr.contains(&cookie),
        "{output}"
    );
    assert!(output.stderr.contains("GET /.kubectl-headlamp/start/… 200"), "{output}");
}

#[test]
fn over_ssh_the_line_that_forwards_the_port_is_printed() {
    let desk = Desk::taken();
    let run = desk.sandbox.command(["open"]).without_env("BROWSER");
    let mut open = run.env("SSH_CONNECTION", "10.0.0.7 51234 10.0.0.9 2222").env("USER", "jane").spawn();
    let port = port_of(&address(&mut open));
    let line = format!("`ssh -N -L {port}:localhost:{port} -p 2222 jane@10.0.0.9`");
    let output = interrupted(open);
    assert!(output.stderr.contains(&line), "{output}");
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
}

#[test]
fn where_the_browser_fails_the_address_is_printed() {
    let desk = Desk::taken();
    desk.sandbox.launcher(Launcher::Fails(3));
    let mut open = desk.sandbox.command(["open"]).spawn();
    assert_eq!(Tab::of(&mut open).get("/config").status, 200);
    assert!(open.stderr().contains("no browser was opened"), "{}", open.stderr());
    let _ = interrupted(open);
}

// How the cluster is reached.

#[test]
fn a_cluster_that_speaks_http_1_alone_will_do() {
    let cluster = Cluster::start_with(ClusterOptions { http1_only: true }, |_| None);
    let desk = Desk::at(cluster, StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    desk.cluster.add_pod("default", "web", &[], &[]);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.pods(), ["web"]);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "web");
    desk.cluster.add_pod("default", "new", &[], &[]);
    assert_eq!(event(&mut watch)["object"]["metadata"]["name"], "new");
    let _ = interrupted(open);
    assert!(desk.cluster.requests().iter().all(|asked| !asked.http2));
}

#[test]
fn a_kubeconfigs_proxy_is_used_for_all_that_goes_to_the_cluster() {
    let desk = Desk::taken();
    let proxy = ConnectProxy::to(desk.cluster.address().port());
    let user = with_token(&desk.token("jane", &[]));
    let mut kubeconfig = desk.cluster.kubeconfig_at("https://cluster.test:6443", &user);
    kubeconfig["clusters"][0]["cluster"]["proxy-url"] = json!(proxy.url());
    desk.sandbox.write_kubeconfig(&kubeconfig);
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!((tab.go("/").status, tab.get(PODS).status), (200, 200));
    let _ = tab.socket(&format!("{PODS}?watch=true"));
    let _ = interrupted(open);
    let tunnels = proxy.tunnels();
    assert!(tunnels.len() >= 2 && tunnels.iter().all(|tunnel| tunnel.target == "cluster.test:6443"), "{tunnels:?}");
    assert!(tunnels.len() >= desk.cluster.connections(), "{tunnels:?}");
}

#[test]
fn the_page_comes_from_the_cache_when_the_pod_is_gone() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let first = Tab::of(&mut open).go("/").text();
    let kept = || {
        fs::read_dir(desk.sandbox.cache_folder().join("ui"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|folder| fs::read_dir(folder.path()).map_or(0, Iterator::count))
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

// While it runs.

#[test]
fn a_401_is_never_the_pages() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("jane", &[]), desk.token("jane", &[]));
    let file = desk.sandbox.write("token", &first);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    desk.sandbox.write("token", &second);
    desk.cluster.refuse_token(&first, usize::MAX);
    desk.cluster.refuse_token(&second, usize::MAX);
    for _ in 0..4 {
        let answer = tab.get(PODS);
        assert_eq!((answer.status, answer.json()["kind"].as_str()), (502, Some("Status")), "{}", answer.text());
    }
    let refused = tab.upgrade(&format!("{PODS}?watch=true&resourceVersion=1"), &[]);
    assert!(refused.map_or_else(|reply| reply.status != 401, |_| true));
    assert_eq!(tab.go("/c/main/").status, 200);
    desk.cluster.refuse_token(&second, 0);
    assert_eq!(tab.get(PODS).status, 200);
    let _ = interrupted(open);
}

/// What a page knows of the pods in `default` that follows a watch: name and version.
fn follow(watch: &mut tungstenite::WebSocket<std::net::TcpStream>, known: &mut BTreeMap<String, String>) {
    let event = event(watch);
    let metadata = &event["object"]["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    match event["type"].as_str().unwrap() {
        "DELETED" => drop(known.remove(&name)),
        "ADDED" | "MODIFIED" => drop(known.insert(name, metadata["resourceVersion"].as_str().unwrap().to_owned())),
        other => panic!("{other}: {event}"),
    }
}

#[test]
fn a_pages_watch_stays_open_and_ends_with_what_the_cluster_holds() {
    let desk = Desk::taken();
    for name in ["stays", "goes", "changes"] {
        desk.cluster.add_pod("default", name, &[], &[]);
    }
    let held = || -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pods = desk.cluster.list("pods", "default");
        pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["resourceVersion"]))).collect()
    };
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let version = tab.get(PODS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut known = held();
    desk.cluster.set(|behaviour| behaviour.watch_lifetime = Some(Duration::from_secs(1)));
    let mut watch = tab.socket(&format!("{PODS}?watch=true&resourceVersion={version}"));
    let watches = || {
        let asked = desk.cluster.requests_to(UPSTREAM_PODS);
        asked.iter().filter(|asked| asked.query.contains(&("watch".to_owned(), "true".to_owned()))).count()
    };
    for round in 0..3 {
        wait_until(DEADLINE, "the watch to be resumed", || watches() > round);
        desk.cluster.add_pod("default", &format!("new-{round}"), &[], &[]);
        while known != held() {
            follow(&mut watch, &mut known);
        }
    }
    // What the page had at first is listed behind it, once it has had time to load.
    let lists = || desk.cluster.requests_to(UPSTREAM_PODS).len() - watches();
    wait_until(DEADLINE, "the list of what the page has", || lists() >= 2);
    // While it is gone, so much happens that the server no longer knows where it ended.
    desk.cluster.fail(usize::MAX, Fault::status(500), |asked| {
        asked.path == UPSTREAM_PODS && asked.query.iter().any(|(name, _)| name == "watch")
    });
    let before = watches();
    desk.cluster.end_watches();
    wait_until(DEADLINE, "an attempt that fails", || watches() > before);
    desk.cluster.delete("pods", "default", "goes");
    desk.cluster.edit("pods", "default", "changes", |pod| pod["metadata"]["labels"] = json!({"changed": "yes"}));
    desk.cluster.add_pod("default", "late", &[], &[]);
    desk.cluster.compact();
    desk.cluster.heal();
    while known != held() {
        follow(&mut watch, &mut known);
    }
    assert!(known.contains_key("late") && !known.contains_key("goes"));
    // And once more within a watch.
    desk.cluster.expire_watches();
    desk.cluster.delete("pods", "default", "stays");
    while known != held() {
        follow(&mut watch, &mut known);
    }
    let _ = interrupted(open);
}

#[test]
fn an_interrupt_ends_it_within_a_second_whatever_is_open() {
    let desk = Desk::taken();
    desk.cluster.add_pod("default", "web", &[], &[]);
    desk.cluster.write_log("default", "web", "first\n");
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let gate = Gate::new();
    desk.cluster.script("/api/v1/nodes", Fault::none().held_by(&gate));
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["type"], "ADDED");
    let mut log = crate::open_desk::connect(tab.port);
    log.write_all(tab.request("GET", &format!("{PODS}/web/log?follow=true"), &[], "").as_bytes()).unwrap();
    let mut first = [0; 9];
    log.read_exact(&mut first).unwrap();
    let mut held = crate::open_desk::connect(tab.port);
    held.write_all(tab.request("GET", "/clusters/main/api/v1/nodes", &[], "").as_bytes()).unwrap();
    gate.wait_for(1);
    let idle = crate::open_desk::connect(tab.port);
    let began = Instant::now();
    let _ = interrupted(open);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    drop(TcpListener::bind(("127.0.0.1", tab.port)).expect("the port"));
    drop((idle, held, log, watch));
}

// The other mode.

/// A server of websockets that sends back what it gets.
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A connection that is only tried out is no websocket.
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message @ (Message::Text(_) | Message::Binary(_))) = socket.read() {
                    let _ = socket.send(message);
                }
            });
        }
    });
    address
}

#[test]
fn a_plain_forward_leads_to_headlamps_own_sign_in_and_outlives_its_pods() {
    let oidc = Oidc { issuer: "https://login.example.com".to_owned(), client: "headlamp".to_owned() };
    let desk =
        Desk::with(StandInOptions { oidc: Some(oidc), ..StandInOptions::default() }, &HeadlampInstall::default());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut open = desk.open(["--sign-in=headlamp", "--path=/c/main", "--port"]).arg(port.to_string()).spawn();
    assert_eq!(address(&mut open), format!("http://localhost:{port}/c/main"));
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        exchange(port, request.as_bytes()).unwrap()
    };
    assert!(ask("/c/main").text().contains("Headlamp (stand-in)"));
    // Its button leads to its provider, and the provider back here.
    let sign_in = ask("/oidc?cluster=main");
    let redirect = format!("redirect_uri=http%3A%2F%2Flocalhost%3A{port}%2Foidc-callback");
    assert!(sign_in.status == 302 && sign_in.header("location").contains(&redirect), "{sign_in:?}");
    assert!(ask("/oidc-callback?code=a&state=b").text().contains("code: given, state: given"));
    // Nothing of it is asked here: it is Headlamp that signs in.
    assert_eq!(ask(PODS).status, 401);
    let next = StandIn::start(StandInOptions::default());
    desk.cluster.replace_headlamp_pod("headlamp", "headlamp", ([127, 0, 0, 1], next.port()).into());
    assert!(ask("/").text().contains("Headlamp (stand-in)"));
    assert!(!next.requests().is_empty());
    // Websockets go through as they are.
    desk.cluster.replace_headlamp_pod("headlamp", "headlamp", echo());
    let stream = crate::open_desk::connect(port);
    let (mut socket, _) = tungstenite::client(format!("ws://localhost:{port}/wsMultiplexer"), stream).unwrap();
    socket.send(Message::text("over and back")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("over and back"));
    let _ = interrupted(open);
    drop(TcpListener::bind(("127.0.0.1", port)).expect("the port"));
}
