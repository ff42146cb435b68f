//! Hours of `open` in a few minutes: pods are replaced and connections cut under a steady load, watches
//! are opened by the hundred, gigabytes go both ways, streams end badly. Everything is done in two
//! halves; what the process holds after the second must be what it held after the first.
//!
//! `examples/soak.rs` is the command, `tests/it/open_soak.rs` the short form.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::{Cluster, HeadlampInstall, with_token};
use crate::headlamp::{StandIn, StandInOptions};
use crate::page_client::PageClient;
use crate::run::Running;
use crate::sandbox::{Sandbox, wait_until};
use crate::weight::Weight;

mod bytes;
mod churn;
mod followed;
mod load;
mod streams;
mod unrest;
mod watches;

use churn::Churn;
use followed::Followed;
use load::Load;

/// How much happens.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Pods of Headlamp that are replaced.
    pub replacements: usize,
    /// Cuts of all connections to the API server.
    pub cuts: usize,
    /// MiB each way.
    pub megabytes: u64,
    /// Watches at once.
    pub watches: usize,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    seen: String,
    /// What is not to be.
    failure: Option<String>,
}

impl Report {
    /// What should not have been; nothing, if all was well.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.0.iter().filter_map(|row| Some(format!("{}: {}", row.what, row.failure.as_ref()?)));
        failed.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|row| row.what.len()).max().unwrap_or_default();
        for Row { what, seen, failure } in &self.0 {
            write!(formatter, "{what:width$}  {seen}")?;
            match failure {
                Some(failure) => writeln!(formatter, "  FAILED: {failure}")?,
                None => writeln!(formatter)?,
            }
        }
        Ok(())
    }
}

/// Runs `kubectl-headlamp open`, this binary, through all of it; `tell` hears how far it is.
pub fn soak(binary: &Path, amount: Amount, tell: &dyn Fn(&str)) -> Report {
    let cluster = Arc::new(Cluster::start(|_| None));
    let headlamp = StandIn::start(StandInOptions { chunks: 4, ..StandInOptions::default() });
    cluster.install_headlamp(HEADLAMP, &HeadlampInstall::default(), ([127, 0, 0, 1], headlamp.port()).into());
    cluster.add_pod(BUSY, "web", &[], &[]);
    cluster.add_namespace(QUIET);
    let sandbox = Sandbox::new(binary);
    sandbox.write_kubeconfig(&cluster.kubeconfig(&with_token(&cluster.token("jane", &[]))));
    let running = sandbox.command(["open", "--no-browser", "--port", "0"]).spawn();
    wait_until(START, "the start address", || running.stdout().contains('\n'));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    let soak = Soak { amount, cluster, headlamp, running, report: RefCell::default(), tell };
    runtime.block_on(soak.run())
}

struct Soak<'a> {
    amount: Amount,
    cluster: Arc<Cluster>,
    headlamp: StandIn,
    running: Running<'a>,
    report: RefCell<Report>,
    tell: &'a dyn Fn(&str),
}

impl Soak<'_> {
    async fn run(self) -> Report {
        let page = match PageClient::enter(&self.running.stdout()).await {
            Ok(page) => page,
            Err(error) => {
                self.row("start", "", Err(error));
                return self.report.into_inner();
            }
        };
        let load = Load::start(&page, &self.headlamp.assets());
        let churn = Churn::start(&self.cluster);
        let followed = [Followed::start(&page, "configmaps", BUSY), Followed::start(&page, "pods", HEADLAMP)];
        // Until then a page is told to list anew when its version is forgotten, as by an API server.
        self.until("the lists that watches are resumed from", || {
            ["configmaps", "pods"].into_iter().all(|resource| self.listed_exactly(resource))
        })
        .await;
        let Amount { replacements, cuts, megabytes, watches } = self.amount;
        let first = Amount {
            replacements: replacements.div_ceil(2),
            cuts: cuts.div_ceil(2),
            megabytes: megabytes.div_ceil(2),
            watches,
        };
        let second = Amount { replacements: replacements / 2, cuts: cuts / 2, megabytes: megabytes / 2, watches };
        self.half("first half", first, &page, &load, &churn, &followed).await;
        let middle = self.settled(None).await;
        self.half("second half", second, &page, &load, &churn, &followed).await;
        let end = self.settled(middle).await;
        drop(churn);
        for one in followed {
            self.equality(&one).await;
        }
        let (requests, slowest, failures) = load.stop().await;
        self.row("steady load", &format!("{requests} GETs, the slowest {slowest:.0?}"), none(&failures));
        self.growth(middle, end);
        self.farewell()
    }

    async fn half(
        &self,
        name: &str,
        amount: Amount,
        page: &PageClient,
        load: &Load,
        churn: &Churn,
        followed: &[Followed],
    ) {
        (self.tell)(&format!("{name}: {} replacements, {} cuts", amount.replacements, amount.cuts));
        self.unrest(name, amount, load, churn, followed).await;
        (self.tell)(&format!("{name}: {} watches", amount.watches));
        self.many_watches(name, amount.watches, page).await;
        (self.tell)(&format!("{name}: {} MiB each way", amount.megabytes));
        self.both_ways(name, amount.megabytes, page).await;
        (self.tell)(&format!("{name}: streams that end badly"));
        self.bad_ends(name, page).await;
    }

    fn listed_exactly(&self, resource: &str) -> bool {
        let end = format!("/{resource}");
        let exact = |asked: &crate::cluster::Asked| asked.parameter("resourceVersionMatch").is_some();
        self.cluster.requests().iter().any(|asked| asked.path.ends_with(&end) && exact(asked))
    }

    /// The set of objects that a page shows is the cluster's.
    async fn equality(&self, followed: &Followed) {
        let held = || -> BTreeSet<followed::Identity> {
            let objects = self.cluster.list(followed.resource, followed.namespace);
            objects.iter().filter_map(followed::identity).collect()
        };
        let end = Instant::now() + PATIENCE;
        while followed.objects() != held() && Instant::now() < end {
            sleep(GLANCE).await;
        }
        let (shown, held) = (followed.objects(), held());
        let mut failures = followed.failures();
        if shown != held {
            let odd: Vec<_> = shown.symmetric_difference(&held).take(4).collect();
            failures.push(format!("{} shown, {} in the cluster; these differ: {odd:?}", shown.len(), held.len()));
        }
        let seen = format!("{} events, {} objects", followed.events(), held.len());
        self.row(&format!("{} as a page shows them", followed.resource), &seen, none(&failures));
    }

    /// What the process holds, once nothing is going on.
    async fn settled(&self, before: Option<Weight>) -> Option<Weight> {
        let calm = |weight: &Weight| before.is_none_or(|before| weight.descriptors <= before.descriptors);
        let end = Instant::now() + SETTLED_WITHIN;
        loop {
            let weight = Weight::of(self.running.id());
            let quiet = self.cluster.watches() == FOLLOWED;
            if Instant::now() > end || quiet && weight.as_ref().is_none_or(calm) {
                return weight;
            }
            sleep(GLANCE).await;
        }
    }

    fn growth(&self, middle: Option<Weight>, end: Option<Weight>) {
        let (Some(middle), Some(end)) = (middle, end) else { return };
        let memory = end.memory <= middle.memory + MEMORY_GROWTH;
        let seen =
            format!("{} KiB in the middle, {} KiB at the end, {} KiB at most", middle.memory, end.memory, end.peak);
        self.row("memory", &seen, memory.then_some(()).ok_or(format!("more than {MEMORY_GROWTH} KiB of growth")));
        let descriptors = end.descriptors <= middle.descriptors + DESCRIPTOR_GROWTH;
        let seen = format!("{} in the middle, {} at the end", middle.descriptors, end.descriptors);
        let failure = format!("more than {DESCRIPTOR_GROWTH} further ones");
        self.row("descriptors", &seen, descriptors.then_some(()).ok_or(failure));
    }

    fn farewell(self) -> Report {
        let began = Instant::now();
        self.running.interrupt();
        let output = self.running.wait();
        let seen = format!("exit {} after {:.1?}", output.code, began.elapsed());
        let result = if output.code == 130 { Ok(()) } else { Err(output.stderr) };
        let mut report = self.report.into_inner();
        report.0.push(Row { what: "interrupted".to_owned(), seen, failure: result.err() });
        report
    }

    fn row(&self, what: &str, seen: &str, result: Result<(), String>) {
        self.report.borrow_mut().0.push(Row { what: what.to_owned(), seen: seen.to_owned(), failure: result.err() });
    }

    /// Waits; what does not happen is a failure. Whether it did.
    async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() > end {
                self.row(what, "", Err(format!("not within {PATIENCE:?}")));
                return false;
            }
            sleep(GLANCE).await;
        }
        true
    }
}

/// Failures as a row has them.
fn none(failures: &[String]) -> Result<(), String> {
    match failures {
        [] => Ok(()),
        [first, ..] => Err(format!("{} failures, first: {first}", failures.len())),
    }
}

/// An object of the cluster's that is nothing but there.
fn configmap(namespace: &str, name: &str, text: &str) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}})
}

const HEADLAMP: &str = "headlamp";
/// Where objects come and go.
const BUSY: &str = "busy";
/// Where nothing happens but what a step does.
const QUIET: &str = "quiet";
/// Watches that are always there.
const FOLLOWED: usize = 2;
const START: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(20);
/// KiB. An allocator keeps what it may need again, and not always the same.
const MEMORY_GROWTH: u64 = 8 * 1024;
/// Pools keep some connections and not others.
const DESCRIPTOR_GROWTH: usize = 8;
