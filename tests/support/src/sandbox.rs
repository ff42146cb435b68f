//! A home of its own for the binary, and the leak check after each of its runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::browser::{Browser, Visit};
use crate::provider::Provider;
use crate::run::Run;
use crate::secrets::{Search, SecretKind, Secrets};
use crate::server::lock;

/// A temporary home folder, an empty environment, a browser of its own, and nothing of the
/// machine's: every run of a test is a run here.
///
/// After every run, no secret of a provider that the sandbox knows may stand in stderr, in stdout
/// (except the one token of an `ExecCredential`), in any file but the cache's, or in what the
/// browser's program was given as arguments and environment.
pub struct Sandbox {
    folder: TempDir,
    binary: PathBuf,
    secrets: Mutex<Vec<Secrets>>,
    /// Files that the test wrote, and what: they are no leak as long as they stay so.
    written: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    names: Mutex<Vec<(String, String)>>,
    browser: Arc<BrowserSeat>,
    player: Option<JoinHandle<()>>,
}

/// What happens when the binary opens a browser.
pub enum Play {
    /// The address is opened, and the browser goes where it is sent.
    SignIn(Browser),
    /// Nobody looks.
    Ignore,
    /// This happens, with the address.
    With(Box<dyn FnMut(&str) + Send>),
}

/// What the browser's program does, beside noting how it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// It ends at once, as xdg-open does.
    Returns,
    /// It stays, as a browser does that was not running before.
    Stays,
    /// It fails with this code and opens nothing.
    Fails(u8),
}

/// What the thread that plays the browser shares with the sandbox.
struct BrowserSeat {
    log: PathBuf,
    play: Mutex<Play>,
    visits: Mutex<Vec<Result<Visit, String>>>,
    /// Openings that are not finished yet.
    busy: std::sync::atomic::AtomicUsize,
    over: AtomicBool,
}

impl Sandbox {
    /// A sandbox for this binary: in a test `env!("CARGO_BIN_EXE_kubectl-headlamp")`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("headlamp-test-").tempdir().expect("a temporary folder");
        for name in ["home", "bin", "tmp", "work", BROWSER_FOLDER] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let log = folder.path().join(BROWSER_FOLDER).join("opened");
        let browser = Arc::new(BrowserSeat {
            log,
            play: Mutex::new(Play::SignIn(Browser::new())),
            visits: Mutex::default(),
            busy: 0.into(),
            over: AtomicBool::new(false),
        });
        let player = {
            let seat = Arc::clone(&browser);
            std::thread::spawn(move || seat.play())
        };
        let sandbox = Self {
            folder,
            binary: binary.into(),
            secrets: Mutex::default(),
            written: Mutex::default(),
            names: Mutex::default(),
            browser,
            player: Some(player),
        };
        sandbox.launcher(Launcher::Returns);
        sandbox
    }

    /// Watches over this provider's secrets, calls its issuer `[ISSUER]` in snapshots, and lets the
    /// browser trust its authority. [`Sandbox::get_token`] and its kind do this by themselves.
    pub fn know(&self, provider: &Provider) {
        let name = (provider.issuer().to_owned(), "[ISSUER]".to_owned());
        let mut names = lock(&self.names);
        if names.contains(&name) {
            return;
        }
        names.push(name);
        lock(&self.secrets).push(provider.secrets());
        if let (Some(ca), Play::SignIn(browser)) = (provider.ca_pem(), &mut *lock(&self.browser.play)) {
            let host = url::Url::parse(provider.issuer()).ok().and_then(|url| url.host_str().map(str::to_owned));
            *browser = browser.clone().trusting(ca).finding(host.unwrap_or_default(), provider.port());
        }
    }

    /// Watches over further secrets, such as a client secret that no provider was shown.
    pub fn watch(&self, secrets: &Secrets) {
        lock(&self.secrets).push(secrets.clone());
    }

    /// Writes `shown` in snapshots where `text` stands.
    pub fn call(&self, text: &str, shown: &str) {
        lock(&self.names).push((text.to_owned(), shown.to_owned()));
    }

    // Runs.

    /// A run of the binary with these arguments.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Run<'_> {
        self.program(&self.binary, arguments)
    }

    /// A run of another program, such as kubectl, in the same surroundings.
    pub fn program<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, program: &Path, arguments: I) -> Run<'_> {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        Run::new(self, program.to_owned(), arguments, self.environment())
    }

    /// `get-token` for this provider, with a callback on any free port.
    pub fn get_token(&self, provider: &Provider) -> Run<'_> {
        self.command(["get-token"]).args(self.flags(provider))
    }

    /// `login`, likewise.
    pub fn login(&self, provider: &Provider) -> Run<'_> {
        self.command(["login"]).args(self.flags(provider))
    }

    /// The flags that name this provider and its client.
    pub fn flags(&self, provider: &Provider) -> Vec<String> {
        self.know(provider);
        let mut flags = vec![
            format!("--issuer-url={}", provider.issuer()),
            "--client-id=kubernetes".to_owned(),
            "--listen-address=localhost:0".to_owned(),
        ];
        if let Some(ca) = provider.ca_pem() {
            let file = self.write("provider-ca.pem", ca);
            flags.push(format!("--certificate-authority={}", file.display()));
        }
        flags
    }

    /// The environment of every run, before [`Run::env`] changes it.
    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let home = self.home();
        let variables = [
            ("HOME", home.clone()),
            ("XDG_STATE_HOME", home.join(".local/state")),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("TMPDIR", self.path("tmp")),
            ("PATH", self.path("bin")),
            ("KUBECONFIG", self.kubeconfig_path()),
            ("BROWSER", self.path(BROWSER_FOLDER).join("browser")),
        ];
        variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    // Files.

    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of something in the sandbox.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The home folder.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Where `KUBECONFIG` points; the file is there once it was written.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The folder of the cached tokens; it is there once something was cached.
    pub fn cache_folder(&self) -> PathBuf {
        self.home().join(".local/state/kubectl-headlamp")
    }

    /// The files of the cache, sorted by name.
    pub fn cache_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.cache_folder())
            .map(|files| files.map(|file| file.expect("a file").path()).collect())
            .unwrap_or_default();
        files.sort();
        files
    }

    /// The one entry of the cache: the file that holds the tokens of an identity.
    pub fn cache_entry(&self) -> PathBuf {
        let is_entry = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.strip_suffix(".json").is_some_and(|key| key.len() == 64 && !key.contains('.'))
        };
        let entries: Vec<PathBuf> = self.cache_files().into_iter().filter(is_entry).collect();
        assert_eq!(entries.len(), 1, "entries of the cache: {entries:?}");
        entries[0].clone()
    }

    /// Writes a file of the test's own; secrets in it are no leak.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(&path, &content).expect("a file");
        lock(&self.written).insert(path.clone(), content.as_ref().to_vec());
        path
    }

    /// Writes the kubeconfig: JSON is YAML too.
    pub fn write_kubeconfig(&self, content: &Value) -> PathBuf {
        self.write("kubeconfig", serde_json::to_vec_pretty(content).expect("JSON"))
    }

    /// Writes an executable shell script that is found on `PATH` under this name.
    pub fn write_program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.write(Path::new("bin").join(name), format!("#!/bin/sh\n{script}\n"));
        make_executable(&path);
        path
    }

    /// Lets a program of the machine be found on `PATH` under this name.
    #[cfg(unix)]
    pub fn link_program(&self, name: &str, target: &Path) {
        std::os::unix::fs::symlink(target, self.path("bin").join(name)).expect("a link");
    }

    // The browser.

    /// What happens when the binary opens a browser; until then: it signs in.
    pub fn play(&self, play: Play) {
        *lock(&self.browser.play) = play;
    }

    /// What the browser's program does.
    pub fn launcher(&self, launcher: Launcher) {
        let folder = self.path(BROWSER_FOLDER);
        let (log, environment, pids) = (folder.join("opened"), folder.join("environment"), folder.join("pids"));
        let note = format!(
            "export -p >> '{}'\necho $$ >> '{}'\necho this is no answer\necho a browser talks >&2\n",
            environment.display(),
            pids.display()
        );
        let open = format!("printf '%s\\n' \"$*\" >> '{}'\n", log.display());
        let script = match launcher {
            Launcher::Returns => format!("{note}{open}"),
            Launcher::Stays => format!("{note}{open}exec /bin/sleep 60\n"),
            Launcher::Fails(code) => format!("{note}exit {code}\n"),
        };
        let path = folder.join("browser");
        // Replaced as a whole: the old one may be running.
        let new = folder.join("browser.new");
        fs::write(&new, format!("#!/bin/sh\n{script}")).expect("a script");
        make_executable(&new);
        fs::rename(&new, &path).expect("a script");
    }

    /// The program that opens the browser, for `--browser-command`.
    pub fn browser_program(&self) -> PathBuf {
        self.path(BROWSER_FOLDER).join("browser")
    }

    /// Every address that a browser was opened with, in order.
    pub fn opened(&self) -> Vec<String> {
        fs::read_to_string(&self.browser.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until a browser was opened so often, and returns the last address.
    pub fn wait_for_browser(&self, count: usize) -> String {
        wait_until(DEADLINE, "the browser to be opened", || self.opened().len() >= count);
        self.opened().pop().unwrap_or_default()
    }

    /// Waits until the browser has come to its end everywhere, and returns where. Fails if an
    /// address could not be reached.
    pub fn visits(&self) -> Vec<Visit> {
        wait_until(DEADLINE, "the browser to come to an end", || {
            self.browser.busy.load(Ordering::SeqCst) == 0 && lock(&self.browser.visits).len() >= self.opened().len()
        });
        lock(&self.browser.visits)
            .iter()
            .map(|visit| visit.clone().unwrap_or_else(|error| panic!("the browser: {error}")))
            .collect()
    }

    /// The one page that the browser ended on.
    pub fn visit(&self) -> Visit {
        let mut visits = self.visits();
        assert_eq!(visits.len(), 1, "the browser was opened so often");
        visits.remove(0)
    }

    // Afterwards.

    /// Fails if a secret stands where none may. `shown` are kinds that this output may hold.
    pub(crate) fn check_leaks(&self, stdout: &str, stderr: &str, shown: &[SecretKind]) {
        let mut leaks = Vec::new();
        let searches: Vec<Search> = lock(&self.secrets).iter().map(Secrets::search).collect();
        let mut look = |place: &str, text: &[u8], allowed: &[SecretKind]| {
            let found = searches.iter().flat_map(|search| search.found_in(text));
            leaks.extend(found.filter(|kind| !allowed.contains(kind)).map(|kind| format!("{kind:?} in {place}")));
        };
        look("stdout", without_credential(stdout).as_bytes(), shown);
        look("stderr", stderr.as_bytes(), shown);
        for path in files_below(self.folder.path()) {
            if path.starts_with(self.cache_folder()) {
                continue;
            }
            let content = fs::read(&path).unwrap_or_default();
            if lock(&self.written).get(&path) != Some(&content) {
                look(&self.redact(&path.display().to_string()), &content, &[]);
            }
        }
        assert!(leaks.is_empty(), "secrets leaked: {}\nstdout: {stdout}\nstderr: {stderr}", leaks.join(", "));
    }

    /// The text without what differs from run to run: this folder, addresses, times, process ids,
    /// the browser's start address, and the token of an `ExecCredential`.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(token) = credential_token(&text) {
            text = text.replace(&token, "[TOKEN]");
        }
        for (from, to) in lock(&self.names).iter() {
            text = text.replace(from, to);
        }
        text = text.replace(&self.folder.path().display().to_string(), "[SANDBOX]");
        text = replace_run(&text, "localhost:", "[PORT]", |character| character.is_ascii_digit());
        text = replace_run(&text, "127.0.0.1:", "[PORT]", |character| character.is_ascii_digit());
        text = replace_run(&text, "/start/", "[START]", |character| {
            character.is_ascii_alphanumeric() || "-_".contains(character)
        });
        text = replace_run(&text, "process ", "[PID]", |character| character.is_ascii_digit());
        text = replace_run(&text, "kill ", "[PID]", |character| character.is_ascii_digit());
        replace_times(&text)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.browser.over.store(true, Ordering::SeqCst);
        if let Some(player) = self.player.take() {
            let _ = player.join();
        }
        self.end_launchers();
    }
}

impl Sandbox {
    /// Ends the browser programs that stayed.
    #[cfg(unix)]
    fn end_launchers(&self) {
        let Ok(pids) = fs::read_to_string(self.path(BROWSER_FOLDER).join("pids")) else { return };
        for pid in pids.lines().filter_map(|pid| pid.parse::<i32>().ok()) {
            // Another process may have the number by now: only what sleeps for us is ended.
            let ours = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"/bin/sleep\x0060\0");
            if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| ours) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }

    #[cfg(not(unix))]
    fn end_launchers(&self) {}
}

impl BrowserSeat {
    fn play(self: &Arc<Self>) {
        let mut seen = 0;
        let mut browsers = Vec::new();
        while !self.over.load(Ordering::SeqCst) {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            // A line without its end is still being written.
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            for line in lines.skip(seen) {
                seen += 1;
                let url = line.trim().to_owned();
                match &mut *lock(&self.play) {
                    Play::Ignore => {}
                    Play::With(act) => act(&url),
                    Play::SignIn(browser) => {
                        self.busy.fetch_add(1, Ordering::SeqCst);
                        let (seat, mut browser) = (Arc::clone(self), browser.clone());
                        browsers.push(std::thread::spawn(move || {
                            let visit = browser.open(&url).map_err(|error| error.to_string());
                            lock(&seat.visits).push(visit);
                            seat.busy.fetch_sub(1, Ordering::SeqCst);
                        }));
                    }
                }
            }
            std::thread::sleep(GLANCE);
        }
        for browser in browsers {
            let _ = browser.join();
        }
    }
}

/// Waits for a condition; fails, naming what was waited for, at the deadline.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(GLANCE);
    }
}

/// The token of an `ExecCredential`, if the text is one and nothing else.
pub(crate) fn credential_token(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value["kind"] == "ExecCredential").then(|| value["status"]["token"].as_str().map(str::to_owned))?
}

/// The one place where a token may stand is taken out.
fn without_credential(stdout: &str) -> String {
    match credential_token(stdout) {
        Some(token) => stdout.replacen(&token, "", 1),
        None => stdout.to_owned(),
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // A link, a socket or a fifo is not opened.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// Replaces the run of matching characters after each `lead`.
fn replace_run(text: &str, lead: &str, shown: &str, matches: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(lead);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&matches);
        result.push_str(lead);
        result.push_str(if rest.len() < part.len() { shown } else { "" });
        result.push_str(rest);
    }
    result
}

/// Replaces times as RFC 3339 writes them, in UTC.
fn replace_times(text: &str) -> String {
    const SHAPE: &str = "dddd-dd-ddTdd:dd:dd";
    let fits = |part: &str| {
        part.len() == SHAPE.len()
            && part
                .chars()
                .zip(SHAPE.chars())
                .all(|(character, shape)| if shape == 'd' { character.is_ascii_digit() } else { character == shape })
    };
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(part) = rest.get(..SHAPE.len()).filter(|part| fits(part)) {
            let fraction = |character: char| character == '.' || character.is_ascii_digit();
            rest = rest[part.len()..].trim_start_matches(fraction);
            rest = rest.strip_prefix('Z').unwrap_or(rest);
            result.push_str("[TIME]");
        } else {
            result.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    result
}

#[cfg(unix)]
fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

#[cfg(not(unix))]
fn make_executable(_: &Path) {}

const BROWSER_FOLDER: &str = "browser";
const GLANCE: Duration = Duration::from_millis(5);
/// How long a test waits for something that comes at once when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
