//! The playground, a newcomer's first command: it must work, and leave nothing behind.

use std::path::Path;
use std::time::Duration;

use headlamp_test_support::{Run, Sandbox, wait_until};

use crate::BINARY;

/// `cargo run --example playground`, as the README has it, with a temporary folder of the test's.
fn playground(sandbox: &Sandbox) -> Run<'_> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").to_owned());
    let release = cfg!(not(debug_assertions)).then_some("--release");
    let run = sandbox.program(Path::new(&cargo), ["run", "--quiet", "--example", "playground"]).args(release);
    // What cargo tells a test of itself would make build scripts run again.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    let variables = std::env::vars_os().filter(|(name, _)| !told(&name.to_string_lossy()));
    let run = variables.fold(run, |run, (name, value)| run.env(name, value));
    run.args(["--", "--no-browser"]).folder(env!("CARGO_MANIFEST_DIR")).env("TMPDIR", sandbox.path("tmp"))
}

fn left_behind(sandbox: &Sandbox) -> Vec<String> {
    let files = std::fs::read_dir(sandbox.path("tmp")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("headlamp-test-")).collect()
}

#[test]
fn the_playground_signs_in_renews_and_signs_out_and_ends_by_itself() {
    let sandbox = Sandbox::new(BINARY);
    let mut running = playground(&sandbox).spawn();
    wait_until(PATIENCE, "the playground to end", || running.has_ended());
    let output = running.wait().succeeded();
    for line in [
        "the playground plays the browser",
        "and ended on a page with the title \"You are signed in",
        "Nobody asked the provider anything, and no browser opened.",
        "One request to the provider, and no browser: the refresh token did it.",
        "The page comes from the pod: Headlamp",
        "the cluster answers as to kubectl: hello-6c8f7d9b4c-x2x8q",
        "Another program that asks the same port gets 403.",
        "neither it nor the browser saw a token",
        "signed in as   Jane Doe (jane@example.com)",
        "knows you as `jane@example.com`",
        "no session is left there",
    ] {
        assert!(output.stdout.contains(line), "`{line}` is missing: {}", output.stdout);
    }
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

#[cfg(unix)]
#[test]
fn the_playground_cleans_up_when_it_is_interrupted() {
    let sandbox = Sandbox::new(BINARY);
    let terminal = playground(&sandbox).terminal();
    wait_until(PATIENCE, "the first command", || terminal.stdout().contains("\n3. "));
    assert_eq!(left_behind(&sandbox).len(), 1);
    terminal.send_interrupt();
    let output = terminal.wait();
    assert_eq!(output.code, 130, "{output}");
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

/// It may have to be built first.
const PATIENCE: Duration = Duration::from_secs(300);
