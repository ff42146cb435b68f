//! The stand-in Headlamp of the tests as a program, for pods of a test cluster.
//!
//! It takes Headlamp's own flags (`-in-cluster`, `-base-url=/x`, `-port`, …), and from the
//! environment what no flag of Headlamp's says: `STAND_IN_VERSION`, `STAND_IN_BUILD`,
//! `STAND_IN_CHUNKS`, `STAND_IN_CHUNK_SIZE`, `STAND_IN_DELAY_MS`. Every request is a line of JSON on
//! stdout, and in a file of its own in the folder `STAND_IN_LOG`, if that is given, where it outlives
//! the pod. SIGTERM and SIGINT end it at once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is its log")]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use headlamp_test_support::headlamp_flags::Flags;
use headlamp_test_support::{StandIn, request_log};

fn main() -> ExitCode {
    let flags = match Flags::read(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(flags: Flags) -> Result<(), Box<dyn Error>> {
    let file = std::env::var_os("STAND_IN_LOG").map(|folder| log_file(Path::new(&folder))).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _runtime = runtime.enter();
    let ends = runtime.block_on(async { Ends::listen() })?;
    let stand_in = StandIn::start_in_pod(flags.options, flags.port, move |request| {
        let line = request_log::line(request) + "\n";
        // One write a line: a line is whole, or not there.
        let _ = std::io::stdout().write_all(line.as_bytes());
        let _ = file.as_ref().map(|mut file| file.write_all(line.as_bytes()));
    });
    runtime.block_on(ends.wait());
    // Not dropped: open connections are cut, not waited for.
    std::mem::forget(stand_in);
    Ok(())
}

/// A new file for each start, called after the pod.
fn log_file(folder: &Path) -> Result<File, std::io::Error> {
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    OpenOptions::new().create(true).append(true).open(folder.join(format!("{now}-{pod}.jsonl")))
}

#[cfg(unix)]
struct Ends(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Ends {
    /// From now on; the first program of a pod gets no signal that it does not ask for.
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Ends;

#[cfg(not(unix))]
impl Ends {
    #[allow(clippy::unnecessary_wraps, reason = "as elsewhere")]
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn wait(self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
