//! The real parts of the tests: taken where they are found, told on stderr where not, and required
//! with `HEADLAMP_TEST_REQUIRE_ALL=1`. `tests/README.md` says how to give each.

use std::collections::BTreeSet;
use std::env;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::server::lock;

/// Node.js with the packages of `tests/real`.
pub struct Node {
    program: PathBuf,
}

impl Node {
    /// Node.js, if its packages are installed too.
    pub fn found() -> Option<Self> {
        let installed =
            script("node_modules/oidc-provider").is_dir() && script("node_modules/playwright-core").is_dir();
        let program = on_path("node").filter(|_| installed);
        let how = "needs Node.js 20 or newer, and `npm ci --prefix tests/real`";
        part("the certified provider", how, program).map(|program| Self { program })
    }

    /// One of the programs in `tests/real`, to be run.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(script(name));
        command
    }

    /// A browser that needs no screen and no Chromium: a value for `--browser-command`.
    pub fn visitor(&self, person: &str, authority: &Path) -> String {
        let program = words([&self.program, &script("visitor.mjs")]);
        format!("{ENV} NODE_EXTRA_CA_CERTS={} {program} --as {person} %s", words([authority]))
    }

    /// Headless Chromium, which leaves its report in that file: a value for `--browser-command`.
    ///
    /// `more` are further arguments of `chromium.mjs`.
    pub fn chromium(&self, person: &str, authority: &Path, report: &Path, more: &str) -> Option<String> {
        let chromium = chromium()?;
        let program = words([&self.program, &script("chromium.mjs")]);
        let [chromium, authority, report] = [&chromium, authority, report].map(|path| words([path]));
        Some(format!("{ENV} CHROMIUM={chromium} {program} --as {person} --ca {authority} --report {report} {more} %s"))
    }
}

/// Chromium's path.
pub(crate) fn chromium() -> Option<PathBuf> {
    let chromium = env::var_os("CHROMIUM").map(PathBuf::from).or_else(|| on_path("chromium"));
    let how = "needs Debian's package chromium, or any Chromium's path in CHROMIUM";
    part("Chromium", how, chromium.filter(|path| path.is_file()))
}

/// Every kubectl on PATH or beside one that is, and those in `HEADLAMP_TEST_KUBECTL`, each once.
pub fn kubectls() -> Option<Vec<PathBuf>> {
    let given = env::var_os("HEADLAMP_TEST_KUBECTL").unwrap_or_default();
    let mut found: BTreeSet<PathBuf> = env::split_paths(&given).filter_map(|path| path.canonicalize().ok()).collect();
    let installed: Vec<PathBuf> = on_path("kubectl").into_iter().filter_map(|path| path.canonicalize().ok()).collect();
    for folder in installed.iter().filter_map(|path| path.parent()) {
        let beside = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(beside.filter(|path| is_versioned_kubectl(path)));
    }
    found.extend(installed);
    let found: Vec<PathBuf> = found.into_iter().collect();
    let how = "needs one on PATH; further ones in HEADLAMP_TEST_KUBECTL, separated as in PATH";
    part("kubectl", how, (!found.is_empty()).then_some(found))
}

/// `kubectl.1.31`, but no plugin such as `kubectl-headlamp`.
fn is_versioned_kubectl(path: &Path) -> bool {
    let rest = path.file_name().and_then(|name| name.to_str()?.strip_prefix("kubectl."));
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// The part, if it was found; else says so once.
///
/// # Panics
/// If all parts are required and this one is not there.
pub fn part<T>(name: &'static str, how: &str, found: Option<T>) -> Option<T> {
    static TOLD: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if found.is_some() {
        return found;
    }
    let text = format!("real part not found: {name} ({how})");
    assert!(env::var_os("HEADLAMP_TEST_REQUIRE_ALL").is_none_or(|value| value != "1"), "{text}");
    if lock(&TOLD).insert(name) {
        // Not by `eprintln!`: of a test that passes, that is not shown.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    None
}

/// Has a command run when this process has ended, however it ends.
pub(crate) fn when_this_process_ends(command: &[&str]) {
    static WAITING: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let child = Command::new("sh")
        .args(["-c", "read -r nothing; exec \"$@\"", "sh"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell");
    // It reads until our end of the pipe is gone.
    lock(&WAITING).push(child);
}

/// In a sandbox nothing of the machine's is on PATH, and Chromium may be a shell script.
const ENV: &str = "/usr/bin/env PATH=/usr/bin:/bin";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../real").join(name)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Paths as words of a command; none of them may need quotes.
fn words<const N: usize>(paths: [&Path; N]) -> String {
    paths.map(|path| path.to_str().expect("a path in UTF-8")).join(" ")
}
