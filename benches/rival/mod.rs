//! `open` and a rival, both running, and how their times compare.

use std::path::PathBuf;
use std::time::Duration;

use headlamp_test_support::{PageClient, Run, Running, wait_until};

/// Our binary: the one that cargo built for this, or `--binary FILE`.
pub(crate) fn binary() -> PathBuf {
    let mut words = std::env::args().skip_while(|word| word != "--binary");
    words.nth(1).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kubectl-headlamp")), PathBuf::from)
}

/// `open`, and the start address that it printed.
pub(crate) fn opened(run: Run<'_>) -> (Running<'_>, String) {
    let running = run.spawn();
    wait_until(START, "the start address", || running.stdout().contains('\n'));
    let url = running.stdout();
    (running, url)
}

/// A kubectl that serves a port, which stands in its first line after this text.
pub(crate) fn served<'a>(run: Run<'a>, before: &str) -> (Running<'a>, PageClient) {
    let running = run.spawn();
    let mut port = None;
    wait_until(START, "kubectl's port", || {
        let said = running.stdout();
        let digits = said.split_once(before).and_then(|(_, rest)| rest.split_once(['\n', ' '])).map(|(port, _)| port);
        port = digits.and_then(|digits| digits.parse().ok());
        port.is_some()
    });
    (running, PageClient::of(port.unwrap()))
}

/// Prints a line; the ratio is ours to theirs.
pub(crate) fn compare(what: &str, theirs: f64, ours: f64, unit: &str, target: &str) {
    println!("  {what:34}  {theirs:9.2} {unit}  {ours:9.2} {unit}  {:5.2} x  ({target})", ours / theirs);
}

/// What half of them are at most, in milliseconds.
pub(crate) fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().expect("it was measured").as_secs_f64() * 1e3
}

const START: Duration = Duration::from_secs(30);
