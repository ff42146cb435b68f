//! One run of a program in the sandbox.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::quiet_network;
use crate::sandbox::{DEADLINE, Sandbox, credential_token};
use crate::secrets::SecretKind;
use crate::server::lock;

/// A program, its arguments and its surroundings, before it runs.
#[must_use = "nothing runs before `run`, `spawn` or `terminal`"]
pub struct Run<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    folder: PathBuf,
    stdin: Stdin,
    stderr_inherited: bool,
    quiet_network: bool,
    shown: Vec<SecretKind>,
}

enum Stdin {
    Null,
    Bytes(Vec<u8>),
    /// A pipe that nobody writes to and nobody closes.
    Silent,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        sandbox: &'a Sandbox,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: BTreeMap<OsString, OsString>,
    ) -> Self {
        let folder = sandbox.path("work");
        Self {
            sandbox,
            program,
            arguments,
            environment,
            folder,
            stdin: Stdin::Null,
            stderr_inherited: false,
            quiet_network: false,
            shown: Vec::new(),
        }
    }

    /// One more argument.
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// The variable is not set.
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.remove(name.as_ref());
        self
    }

    /// As kubectl runs it: with a question of this version (`v1`, `v1beta1`), which says whether
    /// stdin may be read.
    pub fn exec_info(self, version: &str, interactive: bool) -> Self {
        let info = json!({
            "apiVersion": format!("client.authentication.k8s.io/{version}"),
            "kind": "ExecCredential",
            "spec": {"interactive": interactive},
        });
        self.env("KUBERNETES_EXEC_INFO", info.to_string())
    }

    /// The working folder.
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        folder.as_ref().clone_into(&mut self.folder);
        self
    }

    /// stdin is a pipe with these bytes. Otherwise it is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// stdin is a pipe that nobody writes to and that does not end: who reads it waits for ever.
    pub fn silent_stdin(mut self) -> Self {
        self.stdin = Stdin::Silent;
        self
    }

    /// stderr is that of this process, for a person to read as it comes; the output is without it.
    pub fn inherit_stderr(self) -> Self {
        Self { stderr_inherited: true, ..self }
    }

    /// It starts Chromium, which must not hear that pods come and go on this machine.
    pub fn starts_chromium(self) -> Self {
        Self { quiet_network: true, ..self }
    }

    /// Secrets of this kind are meant to be shown by this run, such as the state in the address
    /// that the paste flow prints.
    pub fn may_show(mut self, kind: SecretKind) -> Self {
        self.shown.push(kind);
        self
    }

    /// Runs it to its end. Killed, and the test fails, after a minute.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it.
    pub fn spawn(self) -> Running<'a> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(&self.environment).current_dir(&self.folder);
        command.stdout(Stdio::piped()).stderr(if self.stderr_inherited { Stdio::inherit() } else { Stdio::piped() });
        command.stdin(if matches!(self.stdin, Stdin::Null) { Stdio::null() } else { Stdio::piped() });
        let child = if self.quiet_network { quiet_network::spawn(&mut command) } else { command.spawn() };
        let mut child = child.unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
        let stdin = child.stdin.take();
        let kept = match (self.stdin, stdin) {
            (Stdin::Bytes(bytes), Some(mut stdin)) => {
                // Who does not read it breaks the pipe, which is their right.
                std::thread::spawn(move || drop(stdin.write_all(&bytes)));
                None
            }
            (_, stdin) => stdin,
        };
        let stdout = Stream::read(child.stdout.take().expect("a pipe"));
        let stderr = child.stderr.take().map(Stream::read).unwrap_or_default();
        Running { sandbox: self.sandbox, child, stdout, stderr, shown: self.shown, _stdin: kept, ended: false }
    }

    #[cfg(unix)]
    pub(crate) fn into_terminal(self) -> (&'a Sandbox, pty_process::blocking::Command, Vec<SecretKind>) {
        let command = pty_process::blocking::Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.folder);
        (self.sandbox, command, self.shown)
    }
}

/// What is read from a program, as it comes.
#[derive(Default)]
pub(crate) struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            // A terminal whose program has ended fails to be read: that is its end.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                lock(&sink).extend(&buffer[..count]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }

    /// Everything, once the other end is closed. A child that keeps it open is not waited for.
    pub(crate) fn whole(&self) -> String {
        let end = Instant::now() + Duration::from_secs(2);
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.so_far()
    }
}

/// A program that runs. Dropped before its end, it is killed.
#[must_use = "wait for it"]
pub struct Running<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    stdout: Stream,
    stderr: Stream,
    shown: Vec<SecretKind>,
    _stdin: Option<std::process::ChildStdin>,
    ended: bool,
}

impl Running<'_> {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until this text stands in stderr, and returns stderr so far.
    pub fn wait_for_stderr(&self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while !self.stderr().contains(text) {
            assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for `{text}` in stderr:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stderr()
    }

    /// Sends it a signal.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a process to send a signal to");
    }

    /// Asks it to end, as Ctrl-C does.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for its end. Killed, and the test fails, after a minute.
    pub fn wait(mut self) -> Output {
        let code = wait_for_end(&mut self.child, || {
            format!("stdout: {}\nstderr: {}", self.stdout.so_far(), self.stderr.so_far())
        });
        self.ended = true;
        Output::checked(self.sandbox, code, self.stdout.whole(), self.stderr.whole(), &self.shown)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            if std::thread::panicking() {
                // Why the test failed is often told here.
                eprintln!("stderr of {}:\n{}", self.child.id(), self.sandbox.redact(&self.stderr.whole()));
            }
        }
    }
}

/// The exit code, or 128 and the number of the signal that ended it.
pub(crate) fn wait_for_end(child: &mut Child, so_far: impl Fn() -> String) -> i32 {
    let end = Instant::now() + LONGEST_RUN;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            #[cfg(unix)]
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            #[cfg(not(unix))]
            let signal = None;
            return status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0));
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("killed after {LONGEST_RUN:?}\n{}", so_far());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a run came to. Shown (in a snapshot), it is without what differs from run to run.
#[derive(Clone, Debug)]
#[must_use = "compare it with a snapshot, or look at its code"]
pub struct Output {
    /// The exit code; 128 and more: ended by a signal.
    pub code: i32,
    /// stdout, as it was.
    pub stdout: String,
    /// stderr, as it was; of a terminal, all that it showed.
    pub stderr: String,
    shown: String,
}

impl Output {
    pub(crate) fn checked(sandbox: &Sandbox, code: i32, stdout: String, stderr: String, shown: &[SecretKind]) -> Self {
        sandbox.check_leaks(&stdout, &stderr, shown);
        let part = |name: &str, text: &str| {
            if text.is_empty() { String::new() } else { format!("\n{name}:\n{}", sandbox.redact(text).trim_end()) }
        };
        let shown = format!("exit {code}{}{}", part("stdout", &stdout), part("stderr", &stderr));
        Self { code, stdout, stderr, shown }
    }

    /// Fails unless it ended well.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "it failed:\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The token of the `ExecCredential` on stdout.
    pub fn token(&self) -> String {
        credential_token(&self.stdout).unwrap_or_else(|| panic!("no ExecCredential: {self:?}"))
    }

    /// stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

const LONGEST_RUN: Duration = Duration::from_secs(60);
