//! How long a session of `open` lasts: a credential that ends is renewed in silence or in the tab, a
//! stranger's ends it, and who logged out may come back.

use std::time::{Duration, Instant};

use headlamp_test_support::api_server::exec_entry;
use headlamp_test_support::{
    Browser, Cluster, HeadlampInstall, Person, Play, Provider, Running, StandInOptions, Visit, wait_until,
    with_token_file,
};
use serde_json::json;

use crate::open_desk::{DEADLINE, Desk, PODS, Reply, Tab, UPSTREAM_PODS, address, exchange, interrupted, port_of};

/// Somebody who is signed in at the provider, by an exec entry of ours.
fn signed_in(provider: &Provider) -> Desk {
    let desk = Desk::at(Cluster::start(provider.authenticator()), StandInOptions::default());
    desk.install("headlamp", &HeadlampInstall::default());
    let _ = desk.sandbox.get_token(provider).run().succeeded();
    desk.sandbox.visits();
    desk.sandbox.play(Play::Ignore);
    let arguments = [vec!["get-token".to_owned()], desk.sandbox.flags(provider)].concat();
    let user = json!({"exec": exec_entry("kubectl-headlamp", &arguments)});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    provider.forget_requests();
    desk
}

#[test]
fn over_ssh_the_line_forwards_where_the_sign_in_comes_back_to_as_well() {
    let provider = Provider::start();
    let desk = signed_in(&provider);
    let arguments = [vec!["get-token".to_owned()], desk.sandbox.flags(&provider)].concat();
    let apart = ["--redirect-url=http://localhost:19000/back".to_owned(), "--listen-address=:19001".to_owned()];
    let arguments = arguments.into_iter().filter(|flag| !flag.starts_with("--listen")).chain(apart);
    let user = json!({"exec": exec_entry("kubectl-headlamp", &arguments.collect::<Vec<_>>())});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let output = desk.open(["--port=19001"]).run();
    assert!(output.code == 2 && output.stderr.contains("`--port 19001` is the port of sign-ins"), "{output}");
    let mut open = desk.open([]).env("SSH_CONNECTION", "10.0.0.7 51234 10.0.0.9 22").spawn();
    let port = port_of(&address(&mut open));
    let line = format!("`ssh -N -L {port}:localhost:{port} -L 19000:localhost:19001 10.0.0.9`");
    let output = interrupted(open);
    assert!(output.stderr.contains(&line), "{output}");
}

#[test]
fn a_plain_forward_tells_once_what_keeps_it_from_its_pod_and_uses_what_is_signed_in_elsewhere() {
    let provider = Provider::start();
    let desk = signed_in(&provider);
    let mut open = desk.open(["--sign-in=headlamp", "--port=0"]).spawn();
    let port = port_of(&address(&mut open));
    let ask = || {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        exchange(port, request.as_bytes()).unwrap()
    };
    assert_eq!(ask().status, 200);
    provider.revoke_everything();
    for asked in desk.cluster.requests() {
        desk.cluster.refuse_token(asked.bearer().unwrap(), usize::MAX);
    }
    for _ in 0..3 {
        let answer = ask();
        assert!(answer.status == 502 && answer.text().contains("you need to sign in to"), "{}", answer.text());
    }
    open.wait_for_stderr("hint: `kubectl headlamp login --context dev` mends it");
    let trouble = "the port-forward needs you to sign in again";
    open.wait_for_stderr(trouble);
    desk.sandbox.play(Play::SignIn(Browser::new()));
    let _ = desk.sandbox.command(["login", "--context=dev"]).run().succeeded();
    wait_until(DEADLINE, "the pod", || ask().status == 200);
    open.wait_for_stderr("note: Headlamp's pod answers again");
    let line = format!("\nlocalhost:{port} to headlamp/headlamp\n");
    wait_until(DEADLINE, "the line without trouble", || {
        open.stderr().rsplit(trouble).next().is_some_and(|after| after.contains(&line))
    });
    let output = interrupted(open);
    assert_eq!(output.stderr.matches("you need to sign in to").count(), 1, "{output}");
}

/// `open` with a browser; the first tab of this session is the second that the sandbox saw.
fn opened(desk: &Desk) -> (Running<'_>, Tab) {
    let open = desk.sandbox.command(["open"]).spawn();
    let tab = Tab::at(&desk.sandbox.wait_for_browser(2));
    assert_eq!(tab.get(PODS).status, 200);
    (open, tab)
}

/// The credential in use is good no longer.
fn end_credential(desk: &Desk) -> String {
    let token = desk.cluster.requests_to(UPSTREAM_PODS).last().unwrap().bearer().unwrap().to_owned();
    desk.cluster.refuse_token(&token, usize::MAX);
    token
}

/// Presses the session page's button, and signs in at the provider.
fn sign_in(tab: &Tab) -> Visit {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let mut reply = tab.ask("POST", "/.kubectl-headlamp/sign-in", &[form], "to=%2Fc%2Fmain%2Fpods");
    assert_eq!(reply.status, 303, "{}", reply.text());
    // What takes more than two seconds is waited for at a page of ours.
    wait_until(DEADLINE, "the provider's address", || {
        let known = reply.header("location").starts_with("http");
        if !known {
            reply = tab.go("/.kubectl-headlamp/sign-in?to=%2Fc%2Fmain%2Fpods");
        }
        known
    });
    Browser::new().open(reply.header("location")).unwrap()
}

fn words(reply: &Reply) -> String {
    reply.json()["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_credential_with_a_refresh_token_is_renewed_in_silence() {
    let provider = Provider::start();
    let desk = signed_in(&provider);
    let (open, tab) = opened(&desk);
    let first = end_credential(&desk);
    assert_eq!(tab.get(PODS).status, 200);
    assert_ne!(desk.cluster.requests_to(UPSTREAM_PODS).last().unwrap().bearer().unwrap(), first);
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    let output = interrupted(open);
    assert!(!output.stderr.contains("sign in"), "{output}");
    assert_eq!(desk.sandbox.opened().len(), 2);
    desk.assert_pod_knows_nothing();
}

#[test]
fn a_credential_that_ends_soon_is_renewed_before_it_does() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 12);
    let desk = signed_in(&provider);
    let (open, tab) = opened(&desk);
    let asked = || provider.token_requests("refresh_token").len();
    let before = asked();
    wait_until(DEADLINE, "a renewal", || {
        assert_eq!(tab.get(PODS).status, 200);
        asked() > before
    });
    assert_eq!(tab.get(PODS).status, 200);
    let refused = desk.cluster.requests_to(UPSTREAM_PODS).into_iter().filter(|asked| asked.user.is_none()).count();
    assert_eq!(refused, 0, "no request was made with a token that had ended");
    let _ = interrupted(open);
}

#[test]
fn a_sign_in_that_is_needed_is_asked_for_in_one_tab_and_leads_back_to_where_it_was() {
    let provider = Provider::start();
    let desk = signed_in(&provider);
    let (open, tab) = opened(&desk);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    provider.revoke_everything();
    end_credential(&desk);
    // Held a while, in case the sign-in comes soon, then a refusal that Headlamp's page gets over.
    let began = Instant::now();
    let refused = tab.get(PODS);
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(
        words(&refused).contains("you need to sign in") && words(&refused).contains("reload this page"),
        "{refused:?}"
    );
    let held = began.elapsed();
    assert!(held >= Duration::from_secs(2) && held < DEADLINE, "{held:?}");
    assert_eq!(desk.sandbox.wait_for_browser(3), format!("http://localhost:{}/.kubectl-headlamp/return", tab.port));
    open.wait_for_stderr("the page waits for a credential that the cluster takes: ");
    // Any navigation gets the page that says why, with a button.
    for path in ["/c/main/pods", "/.kubectl-headlamp/session?to=%2Fc%2Fmain%2Fpods"] {
        let page = tab.go(path);
        let text = page.text();
        assert!(page.status == 200 && text.contains("you need to sign in to"), "{text}");
        assert!(text.contains(r#"<form method="post" action="/.kubectl-headlamp/sign-in">"#), "{text}");
        assert!(text.contains(r#"name="to" value="/c/main/pods""#), "{text}");
    }
    // Nobody else can press it.
    for (header, value) in [("Cookie", ""), ("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(tab.ask("POST", "/.kubectl-headlamp/sign-in", &[(header, value)], "").status, 403, "{header}");
    }
    assert!(provider.requests(headlamp_test_support::Endpoint::Authorize).is_empty());
    let visit = sign_in(&tab);
    let way_back = format!("http://localhost:{}/.kubectl-headlamp/return?to=%2Fc%2Fmain%2Fpods", tab.port);
    let back = visit.history.iter().find(|url| url.starts_with(&way_back));
    let back = back.unwrap_or_else(|| panic!("{visit:?}")).clone();
    // Without its cookie, which does not survive the way, the tab is sent on by the page: from the
    // provider's site, but from no other's.
    let path = |url: &str| url.split_once(&tab.port.to_string()).unwrap().1.to_owned();
    for (url, status) in [(&back, 200), (&way_back, 403)] {
        let headers = [("Cookie", ""), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Dest", "document")];
        let reply = tab.ask("GET", &path(url), &headers, "");
        assert_eq!((reply.status, reply.text().contains("url=/c/main/pods\"")), (status, status == 200), "{url}");
    }
    wait_until(DEADLINE, "the page to go on", || tab.get(PODS).status == 200);
    open.wait_for_stderr("signed in again: the page goes on");
    assert!(tab.go("/c/main/pods").text().contains("Headlamp (stand-in)"));
    // Live updates go on in the websocket that was open before.
    desk.cluster.add_pod("default", "late", &[], &[]);
    while crate::open_desk::event(&mut watch)["object"]["metadata"]["name"] != "late" {}
    let _ = interrupted(open);
    assert_eq!(desk.sandbox.opened().len(), 3, "one tab alone");
    desk.assert_pod_knows_nothing();
}

#[test]
fn somebody_else_who_signs_in_ends_the_session() {
    let provider = Provider::start();
    let desk = signed_in(&provider);
    let (open, tab) = opened(&desk);
    provider.revoke_everything();
    end_credential(&desk);
    assert_eq!(tab.get(PODS).status, 502);
    provider.set(|behaviour| {
        behaviour.person = Person {
            subject: "b2d4e6".to_owned(),
            name: "Olga Other".to_owned(),
            email: "olga@example.com".to_owned(),
            groups: vec!["admins".to_owned()],
            password: "another horse battery staple".to_owned(),
        }
    });
    let before = desk.cluster.requests_to(UPSTREAM_PODS).len();
    sign_in(&tab);
    let output = open.wait();
    assert!(output.stderr.contains("somebody else than before signed in, so the page was closed"), "{output}");
    assert_eq!(output.code, 4, "{output}");
    let after = desk.cluster.requests_to(UPSTREAM_PODS);
    assert!(after.iter().skip(before).all(|asked| asked.user.is_none()), "it went on with other rights");
}

#[test]
fn a_token_file_that_becomes_somebody_elses_ends_the_session() {
    let desk = Desk::taken();
    let (jane, olga) = (desk.token("jane", &[]), desk.token("olga", &["admins"]));
    let file = desk.sandbox.write("token", &jane);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    assert_eq!(tab.get(PODS).status, 200);
    desk.sandbox.write("token", &olga);
    desk.cluster.refuse_token(&jane, usize::MAX);
    let refused = tab.get(PODS);
    assert_ne!(refused.status, 200);
    let page = tab.go("/");
    assert!(page.status == 403 && page.text().contains("Somebody else has signed in"), "{}", page.text());
    let output = open.wait();
    assert_eq!(output.code, 4, "{output}");
    let by_olga = desk.cluster.requests_to(UPSTREAM_PODS).into_iter().filter_map(|asked| asked.user);
    assert!(by_olga.into_iter().all(|user| user.name == "jane"));
}

#[test]
fn who_logs_out_is_out_until_the_button_is_pressed() {
    let desk = Desk::taken();
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    let out = tab.ask("POST", "/clusters/main/set-token", &[], r#"{"token":null}"#);
    assert_eq!(out.status, 200, "{}", out.text());
    while watch.read().is_ok() {}
    let logged_out = Tab { port: tab.port, cookie: out.cookie().unwrap() };
    desk.cluster.forget_requests();
    for tab in [&tab, &logged_out] {
        assert_eq!(tab.get(PODS).status, 403);
        assert_eq!(tab.upgrade(&format!("{PODS}?watch=true"), &[]).unwrap_err().status, 403);
    }
    assert!(desk.cluster.requests_to(UPSTREAM_PODS).is_empty());
    let page = logged_out.go("/c/main/pods").text();
    assert!(page.contains("You are logged out") && page.contains(r#"action="/.kubectl-headlamp/come-back""#), "{page}");
    assert!(tab.go("/").text().contains("Another browser is served here"));
    open.wait_for_stderr("logged out in the browser, where a button leads back");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let press = |tab: &Tab| tab.ask("POST", "/.kubectl-headlamp/come-back", &[form], "to=%2Fc%2Fmain%2Fpods");
    assert_eq!(press(&tab).status, 403, "the old cookie is worth nothing");
    let back = press(&logged_out);
    assert_eq!((back.status, back.header("location")), (303, "/c/main/pods"));
    let tab = Tab { port: tab.port, cookie: back.cookie().unwrap() };
    assert_eq!(tab.get(PODS).status, 200);
    assert_eq!(logged_out.get(PODS).status, 403);
    let _ = interrupted(open);
}
