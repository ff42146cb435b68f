//! `cargo bench --bench open_api`: requests to the API through `open` against the same through
//! `kubectl proxy`, in turns, to the same API server. Read the ratios.
//!
//! `-- --binary FILE` measures another build of ours.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for developers"
)]

mod rival;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use headlamp_test_support::page_client::PageConnection;
use headlamp_test_support::real::kubectls;
use headlamp_test_support::{
    Cluster, Fault, HeadlampInstall, PageClient, Response, Sandbox, StandIn, StandInOptions, Weight, with_token,
};
use rival::{binary, compare, median, opened, served};
use tokio::sync::Mutex;

const ROUNDS: usize = 20;
const IN_A_ROW: usize = 50;
const PARALLEL: usize = 100;
const LISTS: usize = 5;
const LIST: &str = "/api/v1/secrets";
const LIST_SIZE: usize = 50 << 20;

fn main() {
    let Some(kubectl) = kubectls().and_then(|mut found| found.pop()) else {
        println!("open_api: needs kubectl on PATH");
        return;
    };
    let cluster = Cluster::start(|_| None);
    let headlamp = StandIn::start(StandInOptions::default());
    cluster.install_headlamp("headlamp", &HeadlampInstall::default(), ([127, 0, 0, 1], headlamp.port()).into());
    let list = Response::new(200).header("Content-Type", "application/json").body(list());
    cluster.fail(usize::MAX, Fault::answer(list), |asked| asked.path == LIST);
    let sandbox = Sandbox::new(binary());
    sandbox.write_kubeconfig(&cluster.kubeconfig(&with_token(&cluster.token("jane", &[]))));
    let (theirs, proxy) = served(sandbox.program(&kubectl, ["proxy", "--port=0"]), "127.0.0.1:");
    let (ours, url) = opened(sandbox.command(["open", "--no-browser"]));

    println!("requests to the API:                  kubectl proxy            open");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let page = PageClient::enter(&url).await.unwrap();
        let rivals = [Rival::new(proxy, "").await, Rival::new(page, "/clusters/main").await];
        let started = [&theirs, &ours].map(|running| weight(running.id()));
        let [theirs_alone, ours_alone] = in_turns(&rivals, ROUNDS, Rival::one_after_another).await;
        compare("one after another", theirs_alone, ours_alone, "ms", "target: 1.00 x");
        let [theirs_parallel, ours_parallel] = in_turns(&rivals, ROUNDS, Rival::parallel).await;
        compare(&format!("{PARALLEL} at once, all of them"), theirs_parallel, ours_parallel, "ms", "target: 1.00 x");
        let [theirs_list, ours_list] = in_turns(&rivals, LISTS, Rival::list).await;
        compare("a list of 50 MiB", theirs_list, ours_list, "ms", "target: 1.00 x");
        let after = [&theirs, &ours].map(|running| weight(running.id()));
        let mebibytes = |kibibytes: u64| f64::from(u32::try_from(kibibytes).unwrap()) / 1024.0;
        compare("memory at the start", mebibytes(started[0].memory), mebibytes(started[1].memory), "MB", "reported");
        compare(
            "memory after all of it",
            mebibytes(after[0].memory),
            mebibytes(after[1].memory),
            "MB",
            "target: 0.70 x",
        );
        compare("the most memory", mebibytes(after[0].peak), mebibytes(after[1].peak), "MB", "reported");
    });
    println!("  our binary: {} bytes", std::fs::metadata(binary()).unwrap().len());
}

/// One way to the API server.
struct Rival {
    client: PageClient,
    /// What stands before a path of the API server.
    base: &'static str,
    /// For requests at once; made once, for a new one costs more than a request.
    connections: Mutex<Vec<PageConnection>>,
}

impl Rival {
    async fn new(client: PageClient, base: &'static str) -> Self {
        let rival = Self { client, base, connections: Mutex::default() };
        for _ in 0..PARALLEL {
            let mut connection = rival.client.connect().await.unwrap();
            let _ = rival.get(&mut connection, "/version").await;
            rival.connections.lock().await.push(connection);
        }
        rival
    }

    async fn get(&self, connection: &mut PageConnection, path: &str) -> usize {
        connection.get(&format!("{}{path}", self.base)).await.unwrap().len()
    }

    async fn one_after_another(&self) -> Vec<Duration> {
        let mut connection = self.client.connect().await.unwrap();
        let mut times = Vec::new();
        for _ in 0..IN_A_ROW {
            times.push(timed(self.get(&mut connection, "/version")).await.0);
        }
        times
    }

    /// Until the last is there, on connections that are there already.
    async fn parallel(&self) -> Vec<Duration> {
        let mut connections = self.connections.lock().await;
        let all = join_all(connections.iter_mut().map(|connection| self.get(connection, "/api/v1/namespaces")));
        vec![timed(all).await.0]
    }

    async fn list(&self) -> Vec<Duration> {
        let mut connection = self.client.connect().await.unwrap();
        let (time, length) = timed(self.get(&mut connection, LIST)).await;
        assert!(length >= LIST_SIZE, "only {length} bytes");
        vec![time]
    }
}

/// The medians of both; the first round is not counted.
async fn in_turns(rivals: &[Rival; 2], rounds: usize, measure: impl AsyncFn(&Rival) -> Vec<Duration>) -> [f64; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (rival, times) in rivals.iter().zip(&mut times) {
            let measured = measure(rival).await;
            if round > 0 {
                times.extend(measured);
            }
        }
    }
    times.map(|mut times| median(&mut times))
}

/// How long it takes.
async fn timed<T>(future: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let result = future.await;
    (began.elapsed(), result)
}

fn weight(process: u32) -> Weight {
    Weight::of(process).expect("only Linux tells what a process holds")
}

fn list() -> String {
    let item = format!(
        "{{\"metadata\":{{\"name\":\"secret\",\"namespace\":\"default\",\"resourceVersion\":\"1\"}},\"data\":{{\"text\":\"{}\"}}}}",
        "0123456789abcdef".repeat(640)
    );
    let items = vec![item.as_str(); LIST_SIZE / item.len() + 1].join(",");
    format!(
        "{{\"kind\":\"SecretList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"1\"}},\"items\":[{items}]}}"
    )
}
