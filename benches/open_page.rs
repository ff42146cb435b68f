//! `cargo bench --bench open_page`: a load of the page, 100 files and 50 requests to the API over the
//! six connections of a browser, with the cluster 50 ms away (round trip): through `open` against
//! `kubectl port-forward` to the same pod. Read the ratios.
//!
//! It needs a real cluster, as the tests do (`tests/README.md`). The rival's 50 requests go to the pod
//! at the same paths, where the stand-in answers at once with a few words: nothing lies behind it, so
//! the comparison is in the rival's favour. Nor does either browser keep anything; a real one asks for
//! a hashed file of ours once. `-- --binary FILE` measures another build of ours.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for developers"
)]

mod rival;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use headlamp_test_support::page_client::{PageConnection, empty};
use headlamp_test_support::real::kubectls;
use headlamp_test_support::real_people::rule;
use headlamp_test_support::{DelayLine, Deployment, PageClient, RealCluster, Sandbox};
use http::Method;
use http_body_util::BodyExt;
use rival::{binary, compare, median, opened, served};
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const FILES: usize = 100;
/// The index page, three that every page has, `/config`, `/plugins`.
const BESIDE_CHUNKS: usize = 6;
const REQUESTS: usize = 50;
/// Of a browser to one server.
const CONNECTIONS: usize = 6;
/// Half of the round trip.
const ONE_WAY: Duration = Duration::from_millis(25);

fn main() {
    let Some((cluster, kubectl)) = RealCluster::shared().zip(kubectls().and_then(|mut found| found.pop())) else {
        return;
    };
    let chunks = ("STAND_IN_CHUNKS".to_owned(), (FILES - BESIDE_CHUNKS).to_string());
    let headlamp = cluster.deploy_headlamp(&Deployment { environment: vec![chunks], ..Deployment::default() });
    let user = cluster.service_account("bench");
    cluster.grant(&user.name, None, &[rule("*", &["*"], &["*"])]);
    let mut kubeconfig = cluster.kubeconfig_of(&user.entry, Some(&headlamp.namespace));
    let server = url_of(&kubeconfig);
    let line = DelayLine::to(server, ONE_WAY);
    kubeconfig["clusters"][0]["cluster"]["server"] = json!(format!("https://{}", line.address()));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let new_sandbox = || {
        let sandbox = Sandbox::new(binary());
        sandbox.write_kubeconfig(&kubeconfig);
        sandbox
    };
    let mut times = Times::default();
    for round in 0..=ROUNDS {
        let sandbox = new_sandbox();
        let forward = ["port-forward", "service/headlamp", ":80"];
        let began = Instant::now();
        let (running, pod) = served(sandbox.program(&kubectl, forward), "127.0.0.1:");
        let theirs = runtime.block_on(load(&pod, began));
        drop(running);
        // The second start has what the first one kept.
        let mut ours = Vec::new();
        for _ in ["cold", "warm"] {
            let began = Instant::now();
            let arguments = sandbox.command(["open", "--no-browser", "-n", headlamp.namespace.as_str()]);
            let (running, url) = opened(arguments);
            ours.push(runtime.block_on(async {
                let entered = Instant::now();
                let page = PageClient::enter(&url).await.unwrap();
                let mut loaded = load(&page, began).await;
                loaded.page = entered.elapsed();
                loaded
            }));
            running.interrupt();
            let _ = running.wait();
        }
        if round > 0 {
            times.take(&theirs, &ours[0], &ours[1]);
        }
    }
    println!("a load of the page at 50 ms:      kubectl port-forward            open");
    times.print();
}

fn url_of(kubeconfig: &Value) -> SocketAddr {
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap();
    server.trim_start_matches("https://").trim_end_matches('/').parse().expect("an address of this machine")
}

/// One load.
struct Loaded {
    /// From the command to the first byte of the page.
    first_byte: Duration,
    /// From the address bar to the last answer.
    page: Duration,
}

#[derive(Default)]
struct Times {
    first_byte: [Vec<Duration>; 3],
    page: [Vec<Duration>; 3],
}

impl Times {
    fn take(&mut self, theirs: &Loaded, cold: &Loaded, warm: &Loaded) {
        for (index, loaded) in [theirs, cold, warm].into_iter().enumerate() {
            self.first_byte[index].push(loaded.first_byte);
            self.page[index].push(loaded.page);
        }
    }

    fn print(mut self) {
        let [theirs, cold, warm] = self.page.each_mut().map(|times| median(times));
        compare("cold", theirs, cold, "ms", "target: 0.80 x");
        compare("warm", theirs, warm, "ms", "target: 0.35 x");
        let [theirs, cold, warm] = self.first_byte.each_mut().map(|times| median(times));
        compare("command to first byte, cold", theirs, cold, "ms", "reported");
        compare("command to first byte, warm", theirs, warm, "ms", "reported");
    }
}

/// The index page, then what it comes to, then what that asks of the API.
async fn load(page: &PageClient, command: Instant) -> Loaded {
    let began = Instant::now();
    let mut first = page.connect().await.unwrap();
    let index = first.ask(&Method::GET, "/", empty()).await.unwrap();
    let first_byte = command.elapsed();
    let index = index.into_body().collect().await.unwrap().to_bytes();
    let index = String::from_utf8_lossy(&index).into_owned();
    let mut connections = vec![first];
    for _ in 1..CONNECTIONS {
        connections.push(page.connect().await.unwrap());
    }
    let named = assets(&index);
    let scripts = all(&mut connections, &named).await;
    let mut later: Vec<String> = scripts.iter().flat_map(|script| assets(script)).collect();
    later.retain(|path| !named.contains(path));
    later.extend(["/config", "/plugins"].map(str::to_owned));
    assert_eq!(1 + named.len() + later.len(), FILES, "{named:?} {later:?}");
    all(&mut connections, &later).await;
    let api: Vec<String> = (0..REQUESTS).map(|number| format!("/clusters/main/version?number={number}")).collect();
    all(&mut connections, &api).await;
    Loaded { first_byte, page: began.elapsed() }
}

/// The hashed files that a text names.
fn assets(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for piece in text.split(['"', '\'']) {
        let name = piece.rsplit('/').next().unwrap_or_default();
        let is_file = matches!(name.rsplit('.').next(), Some("js" | "css"));
        if is_file && name.contains('-') && (piece.starts_with("./") || piece.contains("/assets/")) {
            found.push(format!("/assets/{name}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Each connection takes the next path when it is free. The texts that came.
async fn all(connections: &mut [PageConnection], paths: &[String]) -> Vec<String> {
    let left = &RefCell::new(paths.iter());
    let texts = join_all(connections.iter_mut().map(|connection| async move {
        let mut texts = Vec::new();
        loop {
            let Some(path) = left.borrow_mut().next() else { return texts };
            let answer = connection.ask(&Method::GET, path, empty()).await.unwrap();
            // The rival's requests to the API are refused, in a few words.
            assert!(answer.status() == 200 || path.starts_with("/clusters/"), "{path}: {}", answer.status());
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            if path.starts_with("/assets/index-") {
                texts.push(String::from_utf8_lossy(&body).into_owned());
            }
        }
    }));
    texts.await.concat()
}
