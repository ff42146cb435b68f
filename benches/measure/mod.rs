//! Whole programs against each other, in turns, so that what disturbs the machine disturbs all of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program, run anew each time.
pub(crate) struct Contestant {
    name: String,
    command: Command,
    times: Vec<Duration>,
}

impl Contestant {
    pub(crate) fn new(name: impl Into<String>, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { name: name.into(), command, times: Vec::new() }
    }

    fn run(&mut self) -> Duration {
        let start = Instant::now();
        let status = self.command.status().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        let time = start.elapsed();
        assert!(status.success(), "{} failed: {status}", self.name);
        time
    }

    /// The time that half of the runs took at most.
    pub(crate) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied().expect("it was run")
    }
}

/// Runs each in turn, that many times, and prints the medians and how they compare with the first.
pub(crate) fn race(contestants: &mut [Contestant], rounds: usize) {
    for contestant in &mut *contestants {
        for _ in 0..rounds.div_ceil(10) {
            contestant.run();
        }
    }
    for _ in 0..rounds {
        for contestant in &mut *contestants {
            let time = contestant.run();
            contestant.times.push(time);
        }
    }
    let width = contestants.iter().map(|contestant| contestant.name.len()).max().unwrap_or_default();
    let first = contestants.first().map(Contestant::median).expect("somebody runs");
    for contestant in contestants {
        let median = contestant.median();
        let ratio = median.as_secs_f64() / first.as_secs_f64();
        println!("  {:width$}  {:8.3} ms  {ratio:5.2} x", contestant.name, median.as_secs_f64() * 1e3);
    }
}

/// The first program of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Our binary, for Linux as it is released: `cargo` makes it with the command of the README.
#[cfg(target_os = "linux")]
pub(crate) fn released_binary() -> std::path::PathBuf {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--bin", "kubectl-headlamp", "--target", &target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the static binary could not be built");
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_kubectl-headlamp"));
    let targets = own.ancestors().nth(2).expect("target/release/kubectl-headlamp");
    targets.join(target).join("release/kubectl-headlamp")
}
