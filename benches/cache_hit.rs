//! `cargo bench --bench cache_hit`: what a cache hit of `get-token` costs, against `/bin/true` and
//! others in the same run, and what a refresh costs in requests and time. The machine's own speed
//! does not matter: read the ratios.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for developers"
)]

mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headlamp_test_support::provider::{Endpoint, Provider, RefreshTokens};
use measure::{Contestant, on_path, race};

const ROUNDS: usize = 400;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.refresh_tokens = RefreshTokens::Always;
        behaviour.person.groups =
            (0..40).map(|number| format!("6f6d0f2c-group-of-the-directory-{number:04}")).collect();
    });
    let plain = PathBuf::from(env!("CARGO_BIN_EXE_kubectl-headlamp"));
    let helper = Helper { issuer: provider.issuer().to_owned(), password: password(&provider), folder: folder.path() };
    let answer = helper.command(&plain).stderr(Stdio::inherit()).output().unwrap();
    assert!(answer.status.success(), "the sign-in failed");
    let entry = entry_in(folder.path());
    println!("cache hit: the entry has {} bytes", fs::metadata(&entry).unwrap().len());

    let mut contestants = vec![Contestant::new("/bin/true", Command::new("/bin/true"))];
    let binaries = binaries(&plain);
    for (name, binary) in &binaries {
        contestants.push(Contestant::new(*name, helper.command(binary)));
    }
    let mut cat = Command::new("/bin/sh");
    cat.arg("-c").arg(format!("cat '{}'", entry.display()));
    contestants.push(Contestant::new("/bin/sh -c 'cat FILE'", cat));
    for peer in ["kubelogin", "kubectl-oidc_login"] {
        match on_path(peer) {
            Some(path) if helper.peer_signs_in(&path) => contestants.push(Contestant::new(peer, helper.peer(&path))),
            Some(_) => println!("  {peer}: found, and could not sign in here"),
            None => println!("  {peer}: not found on PATH"),
        }
    }
    let requests = provider.all_requests().len();
    race(&mut contestants, ROUNDS);
    assert_eq!(provider.all_requests().len(), requests, "a hit asked the provider");
    for (name, binary) in &binaries {
        println!("  {name}: {}, {} bytes", weight(&helper, binary), fs::metadata(binary).unwrap().len());
    }

    refresh(&provider, &helper, &plain);
}

/// The static build first: it is what Linux users get.
fn binaries(plain: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut binaries = vec![("get-token, cargo build --release", plain.to_owned())];
    #[cfg(target_os = "linux")]
    binaries.insert(0, ("get-token, as released (static)", measure::released_binary()));
    binaries
}

fn password(provider: &Provider) -> (String, String) {
    let mut account = (String::new(), String::new());
    provider.set(|behaviour| account = (behaviour.person.email.clone(), behaviour.person.password.clone()));
    account
}

/// `get-token` of one identity in a folder of its own.
struct Helper<'a> {
    issuer: String,
    password: (String, String),
    folder: &'a Path,
}

impl Helper<'_> {
    fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        let account = format!("--username={}", self.password.0);
        command.args(["get-token", "--client-id=kubernetes", "--flow=password", &account]);
        command.arg(format!("--issuer-url={}", self.issuer));
        command.env_clear().env("HOME", self.folder).env("PATH", "/usr/bin:/bin");
        // As kubectl runs it: with its question.
        command.env(
            "KUBERNETES_EXEC_INFO",
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}"#,
        );
        command.env("KUBECTL_HEADLAMP_PASSWORD", &self.password.1);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn peer(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.args(["get-token", "--oidc-client-id=kubernetes", "--grant-type=password"]);
        command.arg(format!("--username={}", self.password.0)).arg(format!("--password={}", self.password.1));
        command.arg(format!("--oidc-issuer-url={}", self.issuer));
        command.env_clear().env("HOME", self.folder).env("PATH", "/usr/bin:/bin");
        command
    }

    fn peer_signs_in(&self, binary: &Path) -> bool {
        self.peer(binary).stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

fn entry_in(home: &Path) -> PathBuf {
    let state = home.join(".local/state/kubectl-headlamp");
    let folder = if state.is_dir() { state } else { home.join("Library/Application Support/kubectl-headlamp") };
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_entry = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        let rest = name.strip_suffix(".json").unwrap_or(".");
        !rest.contains('.') && !rest.starts_with("provider-")
    };
    entries.into_iter().find(is_entry).expect("the sign-in left an entry")
}

/// System calls, counted by strace, and peak memory.
fn weight(helper: &Helper, binary: &Path) -> String {
    let calls = match on_path("strace") {
        Some(strace) => format!("{} system calls", system_calls(helper, binary, &strace)),
        None => "system calls not counted (no strace on PATH)".to_owned(),
    };
    #[cfg(target_os = "linux")]
    return format!("{calls}, {} KiB of memory at most", peak_memory(helper, binary));
    #[cfg(not(target_os = "linux"))]
    calls
}

fn system_calls(helper: &Helper, binary: &Path, strace: &Path) -> usize {
    let trace = helper.folder.join("strace");
    let traced = helper.command(binary);
    let mut command = Command::new(strace);
    command.arg("-f").arg("-o").arg(&trace).arg(binary).args(traced.get_args()).env_clear();
    for (name, value) in traced.get_envs() {
        command.env(name, value.unwrap());
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let text = fs::read_to_string(trace).unwrap();
    text.lines().filter(|line| line.contains('(')).count()
}

/// Holds the program up in its last act, the answer, by a pipe that is full, and looks at it then.
#[cfg(target_os = "linux")]
fn peak_memory(helper: &Helper, binary: &Path) -> u64 {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    while writer.write(&[0]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut child = helper.command(binary).stdout(writer).spawn().unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let deadline = Instant::now() + Duration::from_secs(10);
    // Its first system call that does not return is the write to the pipe.
    while !fs::read_to_string(process.join("wchan")).is_ok_and(|place| place.contains("pipe")) {
        let writing = fs::read_to_string(process.join("syscall")).is_ok_and(|call| call.starts_with("1 0x1 "));
        if writing {
            break;
        }
        assert!(Instant::now() < deadline, "the program did not come to its answer");
        std::thread::yield_now();
    }
    let status = fs::read_to_string(process.join("status")).unwrap();
    let mut rest = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| reader.read_to_end(&mut rest));
        child.wait().unwrap();
    });
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A refresh is one request: the provider's documents are cached.
fn refresh(provider: &Provider, helper: &Helper, binary: &Path) {
    const TIMES: usize = 20;
    provider.forget_requests();
    let start = Instant::now();
    for _ in 0..TIMES {
        let status = helper.command(binary).arg("--force-refresh").stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "a refresh failed");
    }
    let time = start.elapsed() / u32::try_from(TIMES).unwrap();
    let all = provider.all_requests();
    let tokens = all.iter().filter(|(endpoint, _)| *endpoint == Endpoint::Token).count();
    println!("refresh: {} requests for {TIMES}, {tokens} of them to the token endpoint, {time:.1?} each", all.len());
}
