//! `open` as whoever types it sees it: its ports, what it shows, how it ends, and its other mode.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use headlamp_test_support::{
    Fault, Gate, HeadlampInstall, KeptPort, Launcher, Oidc, Play, Provider, StandIn, StandInOptions, wait_until,
};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::open_desk::{
    DEADLINE, Desk, PODS, Tab, UPSTREAM_PODS, address, connect, error, event, exchange, interrupted, port_of, visit,
};

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
    open.wait_for_stderr(&said);
    open.wait_for_stderr(&format!(": using port {other}"));
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
fn two_headlamps_of_a_cluster_have_ports_of_their_own() {
    let desk = Desk::taken();
    desk.install("team", &HeadlampInstall::default());
    let port = |flags: &[&str]| {
        let mut open = desk.open([]).args(flags).spawn();
        let port = port_of(&address(&mut open));
        let _ = interrupted(open);
        port
    };
    let (first, second) = (port(&["-n", "headlamp"]), port(&["-n", "team"]));
    assert_ne!(first, second);
    assert_eq!((port(&["-n", "headlamp"]), port(&["-n", "team"])), (first, second));
    // Where that is chosen all the same, it is said.
    let mut open = desk.open(["-n", "team", "--port"]).arg(first.to_string()).spawn();
    assert_eq!(port_of(&address(&mut open)), first);
    let said = format!("this port was used for another page, headlamp/headlamp at {}/", desk.cluster.url());
    assert!(interrupted(open).stderr.contains(&said));
}

#[test]
fn a_sign_in_does_not_wait_for_the_port_of_a_page() {
    let provider = Provider::start();
    let desk = Desk::taken();
    for mode in ["headlamp", "kubectl"] {
        let free = KeptPort::new();
        let mut open = desk.open(["--sign-in", mode, "--port"]).arg(free.number().to_string()).spawn();
        let port = port_of(&address(&mut open));
        let began = Instant::now();
        let flags = desk.sandbox.flags(&provider).into_iter().filter(|flag| !flag.starts_with("--listen"));
        let output = desk.sandbox.command(["get-token"]).args(flags).arg(format!("--listen-address=:{port}")).run();
        assert_eq!(output.code, 4, "{output}");
        let holder = format!("port {port} is taken: `kubectl headlamp open` (process {}) serves there", open.id());
        assert!(output.stderr.contains(&holder) && !output.stderr.contains("waiting for the sign-in"), "{output}");
        assert!(began.elapsed() < Duration::from_secs(20), "it waited");
        let _ = interrupted(open);
    }
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
    assert!(desk.headlamp.requests().is_empty());
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

/// An address of this machine that others can reach. Nothing is sent: the system only says which it
/// would send from.
fn outer_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("203.0.113.1:9").expect("this test needs a machine with an address beyond loopback");
    socket.local_addr().unwrap().ip()
}

#[test]
fn with_consent_it_listens_beyond_loopback_for_its_one_browser_there() {
    let desk = Desk::taken();
    let outer = outer_address();
    let mut open = desk.open(["--expose-to-network", "--address"]).arg(outer.to_string()).spawn();
    let start = url::Url::parse(&address(&mut open)).unwrap();
    let port = start.port().unwrap();
    let host = format!("{outer}:{port}");
    let said = format!("warning: whoever can read what is sent to `{host}` can act as you: it is not encrypted");
    open.wait_for_stderr(&said);
    // What a browser says of where it is, and of where a request comes from.
    let ask = |path: &str, at: &str, headers: &[(&str, &str)]| {
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = std::net::TcpStream::connect(&host).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{}\r\n", lines.concat());
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let cookie = answer.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
        (answer[9..12].parse::<u16>().unwrap(), cookie.to_owned())
    };
    let (status, cookie) = ask(start.path(), &host, &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Dest", "document")]);
    assert_eq!(status, 200);
    let cookie = ("Cookie", cookie.as_str());
    let script = [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "empty")];
    let from_script = |at: &str, headers: &[(&str, &str)]| ask(PODS, at, &[&script, headers].concat()).0;
    assert_eq!(from_script(&host, &[cookie]), 200);
    let asked = desk.cluster.requests_to(UPSTREAM_PODS).len();
    assert_eq!(from_script(&host, &[]), 403);
    assert_eq!(from_script(&format!("evil.example:{port}"), &[cookie]), 403);
    assert_eq!(from_script(&format!("{outer}:{}", port + 1), &[cookie]), 403);
    assert_eq!(from_script(&host, &[cookie, ("Origin", "http://evil.example")]), 403);
    assert_eq!(from_script(&host, &[cookie, ("Origin", &format!("http://localhost:{port}"))]), 403);
    assert_eq!(ask(PODS, &host, &[cookie, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Dest", "empty")]).0, 403);
    assert_eq!(desk.cluster.requests_to(UPSTREAM_PODS).len(), asked, "the cluster was asked");
    let _ = interrupted(open);
    std::net::TcpStream::connect(&host).unwrap_err();
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
    desk.cluster.forget_requests();
    let output = desk.open(["--path=//evil.example"]).run();
    insta::assert_snapshot!(output, @r"
    exit 2
    stderr:
    kubectl-headlamp: error: `//evil.example` is no path of Headlamp's page

    hint: write it as in the browser's address bar, such as `/c/main/pods`
    ");
    assert!(desk.cluster.requests().is_empty());
}

#[test]
fn a_browser_gets_the_address_and_the_terminal_does_not() {
    let desk = Desk::taken();
    desk.sandbox.play(Play::Ignore);
    let program = desk.sandbox.browser_program();
    let run = desk.sandbox.command(["open", "-v=2", "--browser-command"]).arg(&program).without_env("BROWSER");
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
    open.wait_for_stderr("no browser was opened");
    let _ = interrupted(open);
}

#[test]
fn a_launcher_that_opens_the_page_and_then_fails_costs_no_session() {
    let desk = Desk::taken();
    let open_of = |name: &str, rest: &str| {
        let script = format!("echo \"$1\" >> '{}'\n{rest}", desk.sandbox.path(name).display());
        desk.sandbox.write_program(name, &script).display().to_string()
    };
    let opened = |name: &str| fs::read_to_string(desk.sandbox.path(name)).unwrap_or_default().trim().to_owned();
    // It comes first and its program fails later: the second is not tried.
    let gate = desk.sandbox.path("gate");
    let late = open_of("late", &format!("while ! test -e '{}'; do /bin/sleep 0.01; done; exit 3", gate.display()));
    let second = open_of("second", "exit 0");
    let open = desk.sandbox.command(["open"]).env("BROWSER", format!("{late}:{second}")).spawn();
    wait_until(DEADLINE, "the first", || !opened("late").is_empty());
    let tab = Tab::at(&opened("late"));
    desk.sandbox.write("gate", "");
    for _ in 0..20 {
        assert_eq!(tab.get(PODS).status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(opened("second"), "");
    let output = interrupted(open);
    assert_eq!(output.stdout, "");
    // Its program fails first, and it comes later than the second: that has an address of its own.
    let failing = open_of("failing", "exit 3");
    let open = desk.sandbox.command(["open"]).env("BROWSER", format!("{failing}:{second}")).spawn();
    wait_until(DEADLINE, "the second", || !opened("second").is_empty());
    let tab = Tab::at(&opened("second"));
    let slow = visit(&opened("failing"));
    assert!(slow.status == 403 && slow.text().contains("This address opens nothing"), "{}", slow.text());
    assert_eq!(tab.get(PODS).status, 200, "its session goes on");
    let _ = interrupted(open);
}

#[test]
fn where_a_browser_was_opened_and_none_comes_the_address_is_printed_and_stays_good() {
    let desk = Desk::taken();
    desk.sandbox.play(Play::Ignore);
    let mut open = desk.sandbox.command(["open"]).spawn();
    let given = desk.sandbox.wait_for_browser(1);
    let began = Instant::now();
    assert_eq!(address(&mut open), given);
    assert!(began.elapsed() > Duration::from_secs(5), "a browser needs some time");
    open.wait_for_stderr("no browser has come yet");
    assert_eq!(Tab::at(&given).get(PODS).status, 200);
    let _ = interrupted(open);
}

#[test]
fn an_origin_that_is_allowed_may_be_loaded_from_and_runs_no_script() {
    let desk = Desk::taken();
    let mut open = desk.open(["--allow-origin=https://icons.example"]).spawn();
    let page = Tab::of(&mut open).go("/");
    let policy = page.header("content-security-policy");
    let directive = |name: &str| policy.split(';').find(|directive| directive.trim().starts_with(name)).unwrap();
    for name in ["img-src", "connect-src", "frame-src", "form-action"] {
        assert!(directive(name).contains(" https://icons.example"), "{policy}");
    }
    assert!(!directive("script-src").contains("icons") && !directive("frame-ancestors").contains("icons"), "{policy}");
    let _ = interrupted(open);
    let output = desk.open(["--allow-origin=https://icons.example/; script-src *"]).run();
    assert_eq!(output.code, 2, "{output}");
}

#[test]
fn an_interrupt_ends_it_within_a_second_whatever_is_open() {
    let desk = Desk::taken();
    desk.cluster.add_pod("default", "web", &[], &[]);
    desk.cluster.write_log("default", "web", "first\n");
    // A machine that does much else may be late once; what waits for something is late each time.
    let took: Vec<Duration> = (0..3).map(|_| time_to_end_all(&desk)).collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "it took {took:?}");
}

/// How long an interrupt takes with a watch, a log, a request without an answer and an idle connection.
fn time_to_end_all(desk: &Desk) -> Duration {
    let mut open = desk.open([]).spawn();
    let tab = Tab::of(&mut open);
    let gate = Gate::new();
    desk.cluster.script("/api/v1/nodes", Fault::none().held_by(&gate));
    let mut watch = tab.socket(&format!("{PODS}?watch=true"));
    assert_eq!(event(&mut watch)["type"], "ADDED");
    let mut log = connect(tab.port);
    log.write_all(tab.request("GET", &format!("{PODS}/web/log?follow=true"), &[], "").as_bytes()).unwrap();
    let mut first = [0; 9];
    log.read_exact(&mut first).unwrap();
    let mut held = connect(tab.port);
    held.write_all(tab.request("GET", "/clusters/main/api/v1/nodes", &[], "").as_bytes()).unwrap();
    gate.wait_for(1);
    let idle = connect(tab.port);
    let began = Instant::now();
    let _ = interrupted(open);
    let took = began.elapsed();
    drop(TcpListener::bind(("127.0.0.1", tab.port)).expect("the port"));
    drop((idle, held, log, watch));
    took
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
    let mut open = desk.open(["--sign-in=headlamp", "--path=/c/main", "--port=0"]).spawn();
    let shown = address(&mut open);
    let port = port_of(&shown);
    assert_eq!(shown, format!("http://localhost:{port}/c/main"));
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
    let stream = connect(port);
    let (mut socket, _) = tungstenite::client(format!("ws://localhost:{port}/wsMultiplexer"), stream).unwrap();
    socket.send(Message::text("over and back")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("over and back"));
    let _ = interrupted(open);
    drop(TcpListener::bind(("127.0.0.1", port)).expect("the port"));
}
