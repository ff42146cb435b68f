//! `open` in a real browser: what somebody sees who is signed in, and what nobody else gets.

use std::time::Duration;

use headlamp_test_support::chromium::Report;
use headlamp_test_support::real_people::{rule, rules_to_open};
use headlamp_test_support::{
    Answer, Chromium, Cluster, Deployment, Endpoint, Fault, HeadlampInstall, Page, Play, Provider, RealCluster,
    Response, Running, Sandbox, SecretKind, Site, StandIn, StandInOptions, exec_entry, wait_until, with_token,
};
use serde_json::{Value, json};
use url::Url;

use crate::BINARY;

/// A cluster with a pod that writes a log, a Headlamp in it, and somebody with a kubeconfig.
struct Stage {
    headlamp: StandIn,
    cluster: Cluster,
    pod: String,
    sandbox: Sandbox,
    token: String,
}

impl Stage {
    fn set() -> Self {
        let cluster = Cluster::start(|_| None);
        let token = cluster.token("jane", &["developers"]);
        Self::with(cluster, Sandbox::new(BINARY), &with_token(&token), token)
    }

    fn with(cluster: Cluster, sandbox: Sandbox, user: &Value, token: String) -> Self {
        let headlamp = StandIn::start(StandInOptions { chunks: 2, ..StandInOptions::default() });
        let address = ([127, 0, 0, 1], headlamp.port()).into();
        let pod = cluster.install_headlamp("headlamp", &HeadlampInstall::default(), address);
        cluster.add_pod("default", "web", &[], &[]);
        sandbox.write_kubeconfig(&cluster.kubeconfig(user));
        Self { headlamp, cluster, pod, sandbox, token }
    }

    fn put(&self, name: &str) {
        self.cluster.put(config_map(name));
    }
}

fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}})
}

/// `open`, which has said where the browser is to begin.
struct Opened<'a> {
    running: Running<'a>,
    start: String,
    /// `http://localhost:<port>`
    origin: String,
}

impl<'a> Opened<'a> {
    fn by(sandbox: &'a Sandbox, arguments: &[&str]) -> Self {
        let running = sandbox.command(["open", "--no-browser", "-v"]).args(arguments).spawn();
        wait_until(Duration::from_secs(60), "the start address", || running.stdout().ends_with('\n'));
        let start = running.stdout().trim().to_owned();
        Self { running, origin: origin(&start), start }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// The page asks for its configuration until this stands in stderr after `before`: it does so by
    /// itself, every 10 s.
    fn asks_until(&self, page: &Page<'_>, text: &str, before: usize) {
        wait_until(Duration::from_secs(60), text, || {
            let _ = page.try_eval::<u16>("(await fetch('/config')).status");
            self.running.stderr()[before..].contains(text)
        });
    }

    /// Opens the page, and waits until it shows what there is.
    fn page<'b>(&self, chromium: &'b Chromium) -> Page<'b> {
        let page = chromium.page();
        assert_eq!(page.goto(&self.start).status, Some(200));
        page.wait_for(LISTED);
        page
    }
}

fn origin(address: &str) -> String {
    Url::parse(address).unwrap().origin().ascii_serialization()
}

fn port(address: &str) -> u16 {
    Url::parse(address).unwrap().port().unwrap()
}

/// Signed in, with lists in the DOM and all websockets open.
const LISTED: &str = "document.body.dataset.state === 'signed-in' && document.body.dataset.listed \
     && Object.values(seen.watches).every((watch) => watch === 'open')";

/// The row of an object in the DOM.
fn row(resource: &str, name: &str) -> String {
    format!("document.querySelector('#objects [data-resource={resource}][data-name={name}]')")
}

fn heading(text: &str) -> String {
    format!("document.querySelector('h1')?.textContent === '{text}'")
}

fn violations(report: &Report) -> Vec<&str> {
    let texts = report.messages.iter().map(|message| message.text.as_str());
    texts.filter(|text| text.contains("Content Security Policy")).collect()
}

/// Tries things in the page, each with a name; what came of them, by this name.
fn attempt(page: &Page<'_>, helpers: &str, attempts: &[(&str, String)]) -> Value {
    let attempts: Vec<String> =
        attempts.iter().map(|(name, attempt)| format!("{}: await ({attempt})", json!(name))).collect();
    page.eval(&format!("{helpers}\n({{ {} }})", attempts.join(", ")))
}

/// What scripts use to try things: each tells how it went, within some seconds.
const HELPERS: &str = "
    window.limited = (promise) =>
        Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve('nothing'), 10_000))]);
    window.tried = (url, options) =>
        fetch(url, options).then(async (answer) => `${answer.type} ${(await answer.text()).length}`, () => 'failed');
    window.socket = (url) => limited(new Promise((resolve) => {
        try {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve('open');
            socket.onclose = socket.onerror = () => resolve('closed');
        } catch (error) {
            resolve('closed');
        }
    }));
    window.loaded = (name, properties) => limited(new Promise((resolve) => {
        const element = Object.assign(document.createElement(name), properties);
        element.onload = () => resolve('loaded');
        element.onerror = () => resolve('failed');
        document.body.append(element);
    }));
    window.worker = (url) =>
        limited(navigator.serviceWorker.register(url).then(() => 'registered', () => 'failed'));
    window.post = (url) => {
        const form = Object.assign(document.createElement('form'), { method: 'post', action: url });
        form.enctype = 'text/plain';
        form.append(Object.assign(document.createElement('input'), { name: '{\"kind\":\"Pod\",\"x\":\"', value: '\"}' }));
        document.body.append(form);
        form.submit();
    };
    window.follow = (url) => {
        const link = Object.assign(document.createElement('a'), { href: url });
        document.body.append(link);
        link.click();
    };
";

#[test]
fn the_page_opens_signed_in_follows_the_cluster_and_keeps_no_secret() {
    let Some(chromium) = Chromium::start() else { return };
    let stage = Stage::set();
    stage.cluster.write_log("default", "web", "one\n");
    let open = Opened::by(&stage.sandbox, &["--path", "/c/main/pods?filter=web"]);
    let page = open.page(&chromium);
    assert_eq!(page.url(), open.at("/c/main/pods?filter=web"));
    page.wait_for("document.body.dataset.user === 'jane' && document.body.dataset.chunks === '2'");
    assert_eq!(page.eval::<String>(&format!("{}.dataset.phase", row("pods", "web"))), "Running");

    stage.put("live");
    page.wait_for(&row("configmaps", "live"));
    let edited = stage.cluster.edit("configmaps", "default", "live", |map| map["data"] = json!({"a": "b"}));
    let version = edited["metadata"]["resourceVersion"].as_str().unwrap();
    page.wait_for(&format!("{}.dataset.version === '{version}'", row("configmaps", "live")));
    stage.cluster.delete("configmaps", "default", "live");
    page.wait_for(&format!("!{}", row("configmaps", "live")));

    page.click("#objects [data-name=web] button.log");
    page.wait_for("log === 'one\\n'");
    stage.cluster.write_log("default", "web", "two\n");
    page.wait_for("document.getElementById('log').textContent === 'one\\ntwo\\n'");

    let report = page.report();
    assert_eq!(page.eval::<String>("document.cookie"), "");
    assert_eq!(report.cookies.len(), 1, "{:?}", report.cookies);
    let cookie = &report.cookies[0];
    assert_eq!(cookie["name"], format!("kubectl-headlamp-{}", port(&open.start)));
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Strict")));
    let nothing = json!({"local": {}, "session": {}, "databases": [], "caches": [], "workers": []});
    assert_eq!(report.storage, nothing);
    assert_eq!(report.history.iter().filter(|url| url.contains("/start/")).count(), 0, "{:?}", report.history);
    assert_eq!(violations(&report), [""; 0]);

    assert_eq!(report.places_of(&stage.token), [""; 0]);
    // The cookie goes to and fro in headers, which no script can read, and is nowhere else.
    let value = cookie["value"].as_str().unwrap();
    let places = report.places_of(value);
    let expected = |place: &String| place.starts_with("cookie ") || place.starts_with("headers ");
    assert!(!places.is_empty() && places.iter().all(expected), "{places:?}");
    let set: Vec<&String> = places.iter().filter(|place| place.starts_with("headers from")).collect();
    assert_eq!(set, [&format!("headers from {}", open.start)]);
    let (address, _) = open.start.split_once('?').unwrap();
    let secret = address.rsplit('/').next().unwrap();
    assert!(secret.len() > 40);
    // Told to nobody after it was used: only to where it leads.
    assert_eq!(report.places_of(secret), [format!("address {}", open.start)]);

    let asked = stage.headlamp.requests();
    assert!(!asked.is_empty() && stage.headlamp.api_requests().is_empty());
    for request in &asked {
        let told = format!("{request:?}");
        assert!(request.header("cookie").is_none() && request.bearer().is_none(), "{told}");
        assert!([stage.token.as_str(), value, secret].iter().all(|secret| !told.contains(secret)), "{told}");
    }

    // The pod goes: what was fetched is still there, and the API never needed it.
    let before = open.running.stderr().len();
    let mark: Value = page.eval("window.mark = true");
    assert_eq!(mark, json!(true));
    assert!(stage.cluster.delete("pods", "headlamp", &stage.pod));
    stage.put("without-pod");
    page.wait_for(&format!("window.mark && {}", row("configmaps", "without-pod")));
    assert_eq!(page.reload().status, Some(200));
    page.wait_for(&format!("!window.mark && {LISTED} && document.body.dataset.chunks === '2'"));
    stage.put("from-the-cache");
    page.wait_for(&row("configmaps", "from-the-cache"));
    open.asks_until(&page, "the page comes from the cache", before);
    let before = open.running.stderr().len();
    stage.headlamp.roll_out("second");
    let address = ([127, 0, 0, 1], stage.headlamp.port()).into();
    stage.cluster.add_headlamp_pod("headlamp", "headlamp", address);
    open.asks_until(&page, "Headlamp's pod answers", before);
    wait_until(Duration::from_secs(60), "the new build", || {
        page.reload();
        page.wait_for("document.body.dataset.build");
        page.eval::<String>("document.body.dataset.build") == "second"
    });
    page.wait_for(LISTED);
    assert_eq!(violations(&page.report()), [""; 0]);

    open.running.interrupt();
    let output = open.running.wait();
    assert_eq!(output.code, 130, "{output}");
    assert!(!output.stderr.contains(&stage.token) && !output.stderr.contains(secret), "{output}");
}

#[test]
fn a_script_in_the_page_reaches_nobody_but_the_cluster() {
    let Some(chromium) = Chromium::start() else { return };
    let stage = Stage::set();
    let open = Opened::by(&stage.sandbox, &[]);
    let page = open.page(&chromium);
    let elsewhere = Site::start("<p>elsewhere</p>");
    page.eval::<Value>(
        "window.refused = []; document.addEventListener('securitypolicyviolation',
            ({ effectiveDirective }) => refused.push(effectiveDirective)); true",
    );
    let (site, named) = (elsewhere.url("localhost"), elsewhere.url("elsewhere.test"));
    let of_socket = site.replacen("http", "ws", 1);
    let came_of_it = attempt(
        &page,
        HELPERS,
        &[
            ("fetch", format!("tried('{site}')")),
            ("fetch by name", format!("tried('{named}', {{ mode: 'no-cors' }})")),
            ("fetch by post", format!("tried('{site}', {{ method: 'POST', mode: 'no-cors', body: 'x' }})")),
            ("websocket", format!("socket('{of_socket}')")),
            ("image", format!("loaded('img', {{ src: '{site}' }})")),
            ("script", format!("loaded('script', {{ src: '{site}' }})")),
            ("style", format!("loaded('link', {{ rel: 'stylesheet', href: '{site}' }})")),
            ("object", format!("loaded('object', {{ data: '{site}' }})")),
            // Only the page's own policy keeps beacons; the call itself says nothing of it.
            ("beacon", format!("navigator.sendBeacon('{site}', 'x') && ''")),
            ("event source", format!("new EventSource('{site}') && ''")),
            ("post", format!("post('{site}')")),
            ("frame", format!("void loaded('iframe', {{ src: '{site}' }})")),
            ("base", "loaded('img', { src: 'data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=' })".to_owned()),
        ],
    );
    for name in ["fetch", "fetch by name", "fetch by post", "image", "script", "style", "object"] {
        assert_eq!(came_of_it[name], "failed", "{name}: {came_of_it}");
    }
    assert_eq!((&came_of_it["websocket"], &came_of_it["base"]), (&json!("closed"), &json!("loaded")));
    for directive in
        ["connect-src", "img-src", "script-src-elem", "style-src-elem", "object-src", "form-action", "frame-src"]
    {
        page.wait_for(&format!("refused.includes('{directive}')"));
    }
    // Three fetches, a websocket, a beacon, an event source.
    page.wait_for("refused.filter((directive) => directive === 'connect-src').length === 6");
    assert_eq!(elsewhere.requests().len(), 0, "{:?}", elsewhere.requests());
    chromium.page().goto(&site);
    assert_eq!(elsewhere.requests()[0].path, "/", "who goes there is seen");
    assert_eq!(page.url(), open.at("/c/main/"));

    // What a pod answers is text for a script that asks, and never a page, a frame, a script or a worker.
    let path = "/api/v1/namespaces/default/pods/web/proxy/";
    let hostile = "<script>top.postMessage('ran', '*'); opener?.postMessage('ran', '*'); window.ran = true</script>";
    stage.cluster.fail(
        usize::MAX,
        Fault::answer(Response::html(200, hostile).header("Service-Worker-Allowed", "/")),
        move |asked| asked.path == path,
    );
    let pods = format!("/clusters/main{path}");
    let script = stage.headlamp.assets().into_iter().find(|path| path.contains("/cluster-")).unwrap();
    page.eval::<Value>("window.ran = false; addEventListener('message', () => { window.ran = true; }); true");
    let came_of_it = attempt(
        &page,
        "",
        &[
            ("fetch", format!("tried('{pods}')")),
            ("script", format!("loaded('script', {{ src: '{pods}' }})")),
            ("module", format!("import('{pods}').then(() => 'loaded', () => 'failed')")),
            ("frame", format!("loaded('iframe', {{ src: '{pods}' }})")),
            ("worker of the page", format!("worker('{script}')")),
            ("worker of a pod", format!("worker('{pods}')")),
            ("workers", "navigator.serviceWorker.getRegistrations().then((all) => all.length)".to_owned()),
        ],
    );
    assert_eq!(came_of_it["fetch"], format!("basic {}", hostile.len()));
    for name in ["script", "module", "worker of the page", "worker of a pod"] {
        assert_eq!(came_of_it[name], "failed", "{name}: {came_of_it}");
    }
    assert_eq!(came_of_it["workers"], 0);
    assert!(!page.eval::<bool>("ran"));
    let tab = chromium.page();
    let arrival = tab.goto(&open.at(&pods));
    assert_eq!(arrival.status, Some(403));
    tab.wait_for(&heading("Not from here"));
    page.eval::<Value>(&format!("follow('{pods}')"));
    page.wait_for(&heading("Not from here"));
    assert_eq!(stage.cluster.requests_to(path).len(), 1, "the fetch alone");
    assert!(!page.eval::<bool>("window.ran ?? false"));
}

#[test]
fn a_page_of_another_origin_gets_nothing_and_the_cluster_is_not_asked() {
    let Some(chromium) = Chromium::start() else { return };
    let stage = Stage::set();
    let open = Opened::by(&stage.sandbox, &[]);
    let page = open.page(&chromium);
    let site = Site::start("<p>somebody else</p>");
    // Paths that only the attacks ask for.
    let target = open.at("/clusters/main/api/v1/namespaces/attack/pods");
    let watch = format!("{}?watch=1", target.replacen("http", "ws", 1));
    for host in ["localhost", "127.0.0.1", "elsewhere.test"] {
        let attacker = chromium.page();
        attacker.goto(&site.url(host));
        attacker.wait_for("document.body");
        let came_of_it = attempt(
            &attacker,
            HELPERS,
            &[
                ("read", format!("tried('{target}', {{ credentials: 'include' }})")),
                ("read blindly", format!("tried('{target}', {{ credentials: 'include', mode: 'no-cors' }})")),
                (
                    "write",
                    format!(
                        "tried('{target}', {{ method: 'POST', credentials: 'include', mode: 'no-cors', body: '{{}}' }})"
                    ),
                ),
                ("read the page", format!("tried('{}', {{ credentials: 'include', mode: 'no-cors' }})", open.at("/"))),
                ("watch", format!("socket('{watch}')")),
                ("script", format!("loaded('script', {{ src: '{target}' }})")),
                ("image", format!("loaded('img', {{ src: '{}' }})", open.at("/favicon.svg"))),
                ("worker", format!("navigator.serviceWorker ? worker('{}') : 'failed'", open.at("/assets/x.js"))),
                ("frame", format!("loaded('iframe', {{ src: '{}' }})", open.at("/c/main/"))),
            ],
        );
        for name in ["read", "script", "image", "worker"] {
            assert_eq!(came_of_it[name], "failed", "{host}: {name}: {came_of_it}");
        }
        for name in ["read blindly", "write", "read the page"] {
            let came = came_of_it[name].as_str().unwrap();
            assert!(["failed", "opaque 0"].contains(&came), "{host}: {name}: {came_of_it}");
        }
        assert_eq!(came_of_it["watch"], "closed", "{host}");
        // Nothing of ours is in the frame: the browser's own error page is no page of ours, nor ours to read.
        let framed = attacker.report().messages;
        let refused = |text: &str| text.contains("X-Frame-Options") || text.contains("frame-ancestors");
        assert!(framed.iter().any(|message| refused(&message.text)), "{host}: {framed:?}");

        attacker.eval::<Value>(&format!("post('{target}')"));
        attacker.wait_for(&format!("location.href === '{target}' && {}", heading("Not from here")));
        let back = open.at("/.kubectl-headlamp/return?to=/c/main/pods");
        for path in [&target, &open.at("/c/main/pods"), &back, &open.at("/")] {
            attacker.goto(&site.url(host));
            attacker.wait_for("document.body");
            attacker.eval::<Value>(&format!("{HELPERS} follow('{path}')"));
            attacker.wait_for(&format!("location.href === '{path}' && {}", heading("Not from here")));
        }
        assert!(attacker.eval::<bool>("document.body.textContent.includes('type the address')"));
    }
    let attacks = |path: &str| path.contains("attack");
    let asked: Vec<_> = stage.cluster.requests().into_iter().filter(|asked| attacks(&asked.path)).collect();
    assert!(asked.is_empty(), "{asked:?}");
    // None of this harmed the page: what it asks itself is answered.
    let fetched = "tried('/clusters/main/api/v1/namespaces/attack/pods')";
    let came_of_it = attempt(&page, HELPERS, &[("fetch", fetched.to_owned())]);
    assert!(came_of_it["fetch"].as_str().unwrap().starts_with("basic "), "{came_of_it}");
    assert_eq!(stage.cluster.requests().iter().filter(|asked| attacks(&asked.path)).count(), 1);
}

#[test]
fn a_session_that_ended_is_renewed_in_a_tab_and_the_other_tabs_go_on() {
    let Some(chromium) = Chromium::start() else { return };
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let arguments = [vec!["get-token".to_owned()], sandbox.flags(&provider)].concat();
    let user = json!({"exec": exec_entry("kubectl-headlamp", &arguments)});
    let stage = Stage::with(Cluster::start(provider.authenticator()), sandbox, &user, String::new());
    let _ = stage.sandbox.login(&provider).run().succeeded();
    stage.sandbox.play(Play::Ignore);
    let running = stage.sandbox.command(["open"]).spawn();
    let start = stage.sandbox.wait_for_browser(2);
    let page = chromium.page();
    page.goto(&start);
    page.wait_for(LISTED);
    page.eval::<Value>("window.mark = true");

    let old = stage.cluster.requests().iter().rev().find_map(|asked| asked.bearer().map(str::to_owned)).unwrap();
    stage.cluster.refuse_token(&old, usize::MAX);
    provider.script(Endpoint::Token, Answer::error("invalid_grant", "the session was ended"));
    stage.cluster.end_watches();
    let asked = stage.sandbox.wait_for_browser(3);
    assert_eq!(origin(&asked), origin(&start));
    running.wait_for_stderr("the page waits for a credential that the cluster takes");

    // The tab that was opened, and one that somebody looks at, show our page and its reason.
    let opened = chromium.page();
    opened.goto(&asked);
    opened.wait_for(&heading("Sign in to go on"));
    let tab = chromium.page();
    let deep = format!("{}/c/main/pods?filter=web", origin(&start));
    tab.goto(&deep);
    tab.wait_for(&heading("Sign in to go on"));
    tab.click("button");
    tab.wait_for(LISTED);
    assert_eq!(tab.url(), deep);
    assert_eq!(provider.token_requests("authorization_code").len(), 2);
    running.wait_for_stderr("signed in again");
    opened.click("button");
    opened.wait_for(LISTED);

    stage.put("after-the-sign-in");
    page.wait_for(&format!("window.mark && {}", row("configmaps", "after-the-sign-in")));
    let watched = stage.cluster.requests_to("/api/v1/configmaps");
    assert!(watched.last().unwrap().bearer().is_some_and(|bearer| bearer != old));
    // The code was in the browser, on its way from the provider; what it is exchanged for never was.
    let kept = [SecretKind::IdToken, SecretKind::AccessToken, SecretKind::RefreshToken, SecretKind::Verifier];
    for page in [page, opened, tab] {
        let report = page.report();
        for secret in provider.issued().iter().filter(|secret| kept.contains(&secret.kind)) {
            assert_eq!(report.places_of(&secret.value), [""; 0], "{:?}", secret.kind);
        }
        assert_eq!(violations(&report), [""; 0]);
    }
    running.interrupt();
    assert_eq!(running.wait().code, 130);
}

#[test]
fn after_logging_out_a_button_leads_back_and_a_start_address_used_again_ends_it_all() {
    let Some(chromium) = Chromium::start() else { return };
    let stage = Stage::set();
    let open = Opened::by(&stage.sandbox, &[]);
    let page = open.page(&chromium);
    let other = chromium.page();
    other.goto(&open.at("/c/main/pods"));
    other.wait_for(LISTED);

    page.click("#log-out");
    page.wait_for(&heading("You are logged out"));
    open.running.wait_for_stderr("logged out in the browser");
    // The other tab finds out with what it asks next, every 10 s at the latest.
    let _ = other.try_eval::<Value>("void headlamp.ask('GET', '/config')");
    other.wait_for(&heading("You are logged out"));
    other.click("button");
    other.wait_for(LISTED);
    assert_eq!(other.url(), open.at("/c/main/pods"));
    page.goto(&open.at("/"));
    page.wait_for(LISTED);

    let stranger = chromium.stranger();
    stranger.goto(&open.at("/"));
    stranger.wait_for(&heading("Another browser is served here"));
    let arrival = stranger.goto(&open.start);
    assert_eq!((arrival.status, arrival.headers.get("set-cookie")), (Some(403), None));
    stranger.wait_for(&heading("This session has ended"));
    let output = open.running.wait();
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.contains("the start address was used a second time"), "{output}");
}

#[test]
fn two_clusters_in_one_browser_do_not_disturb_each_other() {
    let Some(chromium) = Chromium::start() else { return };
    let stages = [Stage::set(), Stage::set()];
    for (stage, name) in stages.iter().zip(["first", "second"]) {
        stage.put(name);
    }
    let opens = [Opened::by(&stages[0].sandbox, &[]), Opened::by(&stages[1].sandbox, &[])];
    let pages = [opens[0].page(&chromium), opens[1].page(&chromium)];
    assert_eq!(pages[0].report().cookies.len(), 2);
    for (page, open) in pages.iter().zip(&opens) {
        page.reload();
        page.wait_for(LISTED);
        assert!(page.url().starts_with(&open.origin));
    }
    assert!(pages[0].eval::<bool>(&format!("{} && !{}", row("configmaps", "first"), row("configmaps", "second"))));
    assert!(pages[1].eval::<bool>(&format!("{} && !{}", row("configmaps", "second"), row("configmaps", "first"))));
    // Each page is another origin to the other, whatever cookies go along.
    let across = format!("tried('{}', {{ credentials: 'include' }})", opens[1].at("/clusters/main/api/v1/secrets"));
    assert_eq!(attempt(&pages[0], HELPERS, &[("across", across)])["across"], "failed");
    assert!(stages[1].cluster.requests_to("/api/v1/secrets").is_empty());
    pages[0].click("#log-out");
    pages[0].wait_for(&heading("You are logged out"));
    stages[1].put("later");
    pages[1].wait_for(&row("configmaps", "later"));
    pages[1].reload();
    pages[1].wait_for(LISTED);
}

#[test]
fn a_real_cluster_is_shown_followed_and_never_told_to_the_pod() {
    let Some(cluster) = RealCluster::shared() else { return };
    let Some(chromium) = Chromium::start() else { return };
    let headlamp = cluster.deploy_headlamp(&Deployment::default());
    let person = cluster.service_account("onlooker");
    cluster.grant(&person.name, Some(&headlamp.namespace), &rules_to_open());
    let rights = [rule("", &["pods", "configmaps"], &["get", "list", "watch"]), rule("", &["pods/log"], &["get"])];
    cluster.grant(&person.name, Some(&headlamp.namespace), &rights);
    let sandbox = Sandbox::new(BINARY);
    sandbox.write_kubeconfig(&cluster.kubeconfig_of(&person.entry, Some(&headlamp.namespace)));
    let path = format!("/c/main/?namespace={}", headlamp.namespace);
    let open = Opened::by(&sandbox, &["-n", &headlamp.namespace, "--path", &path]);
    let page = open.page(&chromium);
    page.wait_for(&format!("document.body.dataset.user === '{}'", person.name));
    let in_namespace = |arguments: &[&str]| {
        cluster.as_admin(&[&["--namespace", &headlamp.namespace], arguments].concat(), "");
    };
    in_namespace(&["create", "configmap", "live"]);
    page.wait_for(&row("configmaps", "live"));
    let pod = headlamp.ready_pods().pop().unwrap();
    page.wait_for(&row("pods", &pod));

    let deleted = headlamp.delete_pod();
    in_namespace(&["delete", "configmap", "live"]);
    page.wait_for(&format!("!{}", row("configmaps", "live")));
    page.wait_for(&format!("!{}", row("pods", &deleted)));
    headlamp.wait_until_ready();
    page.reload();
    page.wait_for(LISTED);
    let report = page.report();
    assert_eq!(violations(&report), [""; 0]);
    assert_eq!(report.places_of(person.entry["token"].as_str().unwrap()), [""; 0]);
    drop(open);
    headlamp.assert_knows_nothing();
}
