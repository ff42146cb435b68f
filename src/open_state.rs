//! What `open` remembers of each cluster, and which `open` runs for it just now.
//!
//! | file, in `open` in the state folder | holds |
//! |---|---|
//! | `<cluster>.json` | the Headlamp that was chosen, and the ports of its pages: [`OpenState`] |
//! | `<cluster>.<port>.lock` | who runs there: [`Holder`]; locked as long as it does |
//!
//! A browser keeps what a page left at a port (scripts that it need not ask for again, cookies), so a
//! port that was one page's is never given to another, be it of another cluster or of another Headlamp
//! of the same one. What a damaged file says counts as nothing: a Headlamp in an unusual place is then
//! confirmed anew.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::cache_key::hash;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::private_file::{self, Content};

/// What is remembered of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct OpenState {
    /// Where it is kept; `None`: nowhere, for want of a home folder.
    folder: Option<PathBuf>,
    /// The API server, as a URL.
    server: String,
    /// By the page's name: a Headlamp's namespace and name, or a folder.
    pages: BTreeMap<String, Ports>,
    pub(crate) choice: Option<Choice>,
}

/// Where one page was opened before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ports {
    /// The page's own port.
    #[serde(default)]
    own: Option<u16>,
    /// Others, the latest first.
    #[serde(default)]
    used: Vec<u16>,
}

/// The Headlamp that was chosen, and whose page may therefore act as the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) namespace: String,
    /// Of its Service, or of what stands in for one.
    pub(crate) name: String,
    /// Number or name.
    pub(crate) port: Option<String>,
}

/// A file's content.
#[derive(Serialize, Deserialize)]
struct Remembered {
    version: u64,
    server: String,
    #[serde(default)]
    pages: BTreeMap<String, Ports>,
    #[serde(default)]
    choice: Option<Choice>,
}

/// Where the states are kept, if anywhere.
pub(crate) fn folder(environment: &Environment) -> Option<PathBuf> {
    environment.state_folder().map(|folder| folder.join("open"))
}

impl OpenState {
    /// What is known of the cluster with this API server. Nothing, where nothing can be read.
    pub(crate) fn load(folder: Option<PathBuf>, server: &str) -> Self {
        let server = Url::parse(server).map_or_else(|_| server.to_owned(), String::from);
        let remembered = folder.as_ref().and_then(|folder| read(&folder.join(file_name(&server))));
        let remembered = remembered.filter(|remembered| remembered.server == server);
        let (pages, choice) = remembered.map(|remembered| (remembered.pages, remembered.choice)).unwrap_or_default();
        Self { folder, server, pages, choice }
    }

    /// The cluster's part of its files' names.
    pub(crate) fn key(&self) -> String {
        key(&self.server)
    }

    /// Keeps it.
    pub(crate) fn save(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let Self { server, mut pages, choice, .. } = self.clone();
        // Another `open` may have noted a page of its own meanwhile.
        for (name, ports) in read(&folder.join(file_name(&server))).map(|now| now.pages).unwrap_or_default() {
            pages.entry(name).or_insert(ports);
        }
        let remembered = Remembered { version: VERSION, server, pages, choice };
        let text = serde_json::to_vec_pretty(&remembered)
            .map_err(|error| Error::bug("what is to be remembered cannot be written down").caused_by(&error))?;
        private_file::prepare_folder(folder)
            .and_then(|()| private_file::replace(&folder.join(file_name(&self.server)), &text))
            .map_err(|error| not_here("remember what was chosen", folder, &error))
    }

    /// The page is served at this port: no other page is given it. It becomes the page's own if that is
    /// wished, or if there is none yet.
    pub(crate) fn use_port(&mut self, page: &str, port: u16, own: bool) {
        let ports = self.pages.entry(page.to_owned()).or_default();
        let before = ports.own;
        if own || before.is_none() {
            ports.own = Some(port);
        }
        let used = std::mem::take(&mut ports.used);
        let all = Some(port).into_iter().chain(before).chain(used);
        for other in all.filter(|other| Some(*other) != ports.own) {
            if !ports.used.contains(&other) {
                ports.used.push(other);
            }
        }
        ports.used.truncate(MOST_USED);
    }

    /// Where the page may be served, best first: its own port, then those that it had to make do with,
    /// then new ones.
    pub(crate) fn ports_to_try(&self, page: &str) -> Vec<u16> {
        let others = self.others(page);
        let taken = |port: &u16| others.iter().any(|(_, other)| other.has(*port));
        let first = preferred_port(&self.server, page);
        let new = (0..PORTS).map(|step| FIRST_PORT + (first - FIRST_PORT + step) % PORTS).filter(|port| !taken(port));
        let known = self.pages.get(page).cloned().unwrap_or_default();
        let mut ports: Vec<u16> = known.own.into_iter().chain(known.used).collect();
        for port in new.take(NEW_PORTS) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// The other page that this port belongs to, by its API server and name: a browser may still keep
    /// that page's scripts there.
    pub(crate) fn port_of_another(&self, page: &str, port: u16) -> Option<String> {
        self.others(page).into_iter().find(|(_, other)| other.has(port)).map(|(name, _)| name)
    }

    /// All pages but this one.
    fn others(&self, page: &str) -> Vec<(String, Ports)> {
        let files = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
        let paths = files.into_iter().flatten().flatten().map(|file| file.path());
        let states = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let elsewhere = states.filter_map(|path| read(&path)).filter(|other| other.server != self.server);
        let here = self.pages.iter().filter(|(name, _)| *name != page);
        let named = |server: &str, name: &str, ports: &Ports| (format!("{name} at {server}"), ports.clone());
        let elsewhere = elsewhere.flat_map(|other| {
            other.pages.iter().map(|(name, ports)| named(&other.server, name, ports)).collect::<Vec<_>>()
        });
        here.map(|(name, ports)| named(&self.server, name, ports)).chain(elsewhere).collect()
    }
}

impl Ports {
    fn has(&self, port: u16) -> bool {
        self.own == Some(port) || self.used.contains(&port)
    }
}

/// The port that a page gets first: the same one wherever this user opens it.
fn preferred_port(server: &str, page: &str) -> u16 {
    let number = Sha256::digest(format!("{server} {page}"))
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    u16::try_from(number % u64::from(PORTS)).map_or(FIRST_PORT, |step| FIRST_PORT + step)
}

/// The cluster's part of its files' names.
fn key(server: &str) -> String {
    hash(server.as_bytes())
}

fn file_name(server: &str) -> String {
    format!("{}.json", key(server))
}

fn read(path: &Path) -> Option<Remembered> {
    let Ok(Content::Bytes(bytes)) = private_file::read(path) else { return None };
    serde_json::from_slice(&bytes).ok().filter(|remembered: &Remembered| remembered.version == VERSION)
}

/// An error about `open`'s own files: the advice that goes with the tokens' does not fit it.
fn not_here(what: &str, folder: &Path, error: &Error) -> Error {
    let start = Error::new(Kind::Other, format!("cannot {what} in `{}`", folder.display()));
    error.causes().iter().fold(start, Error::cause)
}

/// Whether this process serves a page at this port, and does not only wait there for a sign-in.
pub(crate) fn serves(folder: Option<PathBuf>, pid: u32, port: u16) -> bool {
    let files = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let end = format!(".{port}.lock");
    let locks = files.into_iter().flatten().flatten().map(|file| file.path());
    let locks = locks.filter(|path| path.to_str().is_some_and(|path| path.ends_with(&end)));
    let mut holders = locks.filter_map(|path| holder(private_file::open_to_lock(&path, false).ok()??));
    holders.any(|holder| (holder.pid, holder.port) == (pid, port))
}

/// Who wrote into a lock file.
fn holder(file: File) -> Option<Holder> {
    let mut text = Vec::new();
    let _ = file.take(LONGEST_HOLDER).read_to_end(&mut text);
    serde_json::from_slice(&text).ok()
}

/// The right to serve one cluster at one port. It ends when this is dropped, and with the process.
#[derive(Debug)]
pub(crate) struct Running {
    /// Holds the lock.
    file: Option<File>,
}

/// An `open` that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    /// The kubeconfig's names of the user and the context.
    pub(crate) user: Option<String>,
    pub(crate) context: Option<String>,
}

/// What came of asking for a port.
#[derive(Debug)]
pub(crate) enum Claim {
    Mine(Running),
    /// Another `open` serves this cluster there; who, if that can be told: it may not have said so
    /// yet, and Windows lets nobody read a locked file.
    Held(Option<Holder>),
}

impl Holder {
    /// This process, serving this user of this context.
    pub(crate) fn this(port: u16, user: Option<&str>, context: Option<&str>) -> Self {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        Self { pid: std::process::id(), port, user: owned(user), context: owned(context) }
    }

    /// Whether it shows what this one would show.
    pub(crate) fn shows_the_same_as(&self, other: &Self) -> bool {
        (&self.user, &self.context) == (&other.user, &other.context)
    }
}

impl Running {
    /// Takes the port for this cluster, before a socket is bound to it: a port that is taken then is
    /// another program's.
    pub(crate) fn take(state: &OpenState, this: &Holder) -> Result<Claim> {
        let Some(folder) = &state.folder else { return Ok(Claim::Mine(Self { file: None })) };
        let cannot = |error: &Error| not_here("note which `open` runs", folder, error);
        private_file::prepare_folder(folder).map_err(|error| cannot(&error))?;
        let path = folder.join(format!("{}.{}.lock", key(&state.server), this.port));
        let file = private_file::open_to_lock(&path, true).map_err(|error| cannot(&error))?;
        let Some(file) = file else { return Err(Error::bug("a lock file that was made is missing")) };
        match file.try_lock() {
            Ok(()) => {
                let text = serde_json::to_vec(this).unwrap_or_default();
                // A courtesy to those who come later, so a failure is none.
                let rewritten = file.set_len(0).and_then(|()| (&file).rewind());
                let _ = rewritten.and_then(|()| (&file).write_all(&text));
                Ok(Claim::Mine(Self { file: Some(file) }))
            }
            Err(TryLockError::WouldBlock) => Ok(Claim::Held(holder(file))),
            Err(TryLockError::Error(error)) => Err(cannot(&Error::new(Kind::Other, "cannot lock").caused_by(&error))),
        }
    }
}

impl Drop for Running {
    /// The next holder is not taken for this one; closing the file frees the lock.
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = file.set_len(0);
        }
    }
}

const VERSION: u64 = 2;
/// Ports that no browser blocks, no system hands out, and no sign-in comes back to unless told to.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// How many ports that were never used are tried.
const NEW_PORTS: usize = 20;
/// How many ports are remembered besides the page's own.
const MOST_USED: usize = 100;
/// Bytes.
const LONGEST_HOLDER: u64 = 4096;

#[cfg(test)]
mod tests;
