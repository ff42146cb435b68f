//! The cached tokens: one file per identity, which a cache hit reads with one open and no lock.
//!
//! | file | holds |
//! |---|---|
//! | `<key>.json` | the tokens of an identity and what is known of it: [`Entry`] |
//! | `<key>.lock` | who signs in or refreshes just now: [`Holder`] |
//! | `<key>.failed.json` | why the last sign-in failed, and until when none is tried: [`Failure`] |
//! | `provider-<key>.json` | a provider's metadata and keys |
//! | `.<name>.<random>.tmp` | one of the above, being written; a later write removes what a killed writer left |
//!
//! `cache_key` says how a key is made. The folder has mode 0700 and the files 0600 from their
//! creation. Each JSON file is an object with `"version": 1` among its members; members that are
//! not known are skipped. What a file says is never believed to be well formed: whatever is not
//! our format, or of another version, counts as [`Found::Damaged`] and is replaced by the next
//! sign-in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use crate::cache_key::Key;
use crate::cache_lock;
#[allow(unused_imports, reason = "parts of what this module returns")]
pub(crate) use crate::cache_lock::{Holder, Lock, Locked};
use crate::error::{Error, Kind, Result, printable};
use crate::private_file::{self, Content};
use crate::secret::Secret;
use crate::settings::Identity;

/// The version of every file's format.
const VERSION: u64 = 1;

/// A token as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    pub(crate) expires: Timestamp,
    /// What the token itself says, for `status`; nothing where it cannot be read.
    pub(crate) issuer: Option<String>,
    #[serde(default)]
    pub(crate) audience: Vec<String>,
}

/// Who is signed in, as the provider says it. All of it is the provider's text: it is shown only
/// through `error::printable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) subject: String,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    /// `preferred_username`, or Entra's `upn`.
    pub(crate) username: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// Entra's `tid`.
    pub(crate) tenant: Option<String>,
}

impl Person {
    /// The name and the address, or whatever else tells a person who this is.
    pub(crate) fn name_to_show(&self) -> String {
        let account = self.email.as_deref().or(self.username.as_deref());
        printable(&match (&self.name, account) {
            (Some(name), Some(account)) if name != account => format!("{name} ({account})"),
            (Some(name), _) => name.clone(),
            (None, Some(account)) => account.to_owned(),
            (None, None) => self.subject.clone(),
        })
    }
}

/// All that is kept of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    pub(crate) id_token: Option<Token>,
    pub(crate) access_token: Option<Token>,
    pub(crate) refresh_token: Option<Secret>,
    /// When the provider said that the refresh token ends.
    pub(crate) refresh_expires: Option<Timestamp>,
    pub(crate) person: Option<Person>,
    /// When a person last signed in.
    pub(crate) signed_in: Timestamp,
    /// When the tokens were last obtained.
    pub(crate) refreshed: Timestamp,
    /// The `sub` that a refresh must keep (`OpenID` Connect Core §12.2).
    pub(crate) subject: Option<String>,
}

/// Why a sign-in failed. It is shared with those who waited for it, and ends a loop of callers
/// that would open one browser tab after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) at: Timestamp,
    /// Runs before this fail at once.
    pub(crate) until: Timestamp,
    pub(crate) error: Error,
}

/// What the cache knows of an identity.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Entry(Box<Entry>),
    Absent,
    /// Not to be used, for this reason, which holds nothing of the content. The next write heals it.
    Damaged(String),
}

/// A folder of cached tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Touches nothing: the folder is made by the first write.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The entry, as it was when it was last written whole. Needs no lock.
    pub(crate) fn read(&self, key: &Key) -> Result<Found> {
        let bytes = match private_file::read(&self.entry_path(key))? {
            Content::Absent => return Ok(Found::Absent),
            Content::Unusable(reason) => return Ok(Found::Damaged(reason)),
            Content::Bytes(bytes) => bytes,
        };
        Ok(match parse::<Entry>(&bytes) {
            Ok(entry) if Key::of(&entry.identity) == *key => Found::Entry(Box::new(entry)),
            Ok(_) => Found::Damaged("it belongs to another identity".to_owned()),
            Err(reason) => Found::Damaged(reason),
        })
    }

    /// Replaces the entry. Once this returns it outlives a loss of power; until then the old one
    /// stands.
    pub(crate) fn write(&self, key: &Key, entry: &Entry) -> Result<()> {
        if Key::of(&entry.identity) != *key {
            return Err(Error::bug("an entry under the key of another identity"));
        }
        self.save(&self.entry_path(key), entry)
    }

    /// Removes the entry and what belongs to it; whether there was an entry. A lock file that
    /// somebody holds stays.
    pub(crate) fn delete(&self, key: &Key) -> Result<bool> {
        self.delete_under(key, cache_lock::acquire_existing(&self.lock_path(key)))
    }

    /// Likewise, for who holds the lock of this key and is done with it: then nobody can write
    /// the entry again meanwhile, and the lock file goes too.
    pub(crate) fn delete_locked(&self, key: &Key, lock: Lock) -> Result<bool> {
        self.delete_under(key, Some(lock))
    }

    fn delete_under(&self, key: &Key, lock: Option<Lock>) -> Result<bool> {
        let existed = private_file::remove(&self.entry_path(key))?;
        private_file::remove(&self.failure_path(key))?;
        for name in self.names()? {
            if written_file(&name).and_then(key_in).as_ref() == Some(key) {
                private_file::remove(&self.folder.join(name))?;
            }
        }
        if let Some(lock) = lock {
            lock.remove()?;
        }
        Ok(existed)
    }

    /// Every entry of the folder, by key. What cannot be read is among them as damaged.
    pub(crate) fn entries(&self) -> Result<Vec<(Key, Found)>> {
        let mut keys: Vec<Key> =
            self.names()?.iter().filter_map(|name| name.strip_suffix(ENTRY)).filter_map(Key::parse).collect();
        keys.sort();
        let found = |key: Key| {
            let found = self.read(&key).unwrap_or_else(|error| {
                Found::Damaged([&[error.message().to_owned()], error.causes()].concat().join(": "))
            });
            (key, found)
        };
        Ok(keys.into_iter().map(found).collect())
    }

    /// Takes the lock of this identity if it is free; who waits for it asks again.
    pub(crate) fn lock(&self, key: &Key, purpose: &str, now: Timestamp) -> Result<Locked> {
        private_file::prepare_folder(&self.folder)?;
        cache_lock::acquire(&self.lock_path(key), purpose, now)
    }

    pub(crate) fn remember_failure(&self, key: &Key, failure: &Failure) -> Result<()> {
        self.save(&self.failure_path(key), failure)
    }

    /// The last failure, if one is remembered. Whether it still counts is the caller's decision.
    pub(crate) fn failure(&self, key: &Key) -> Option<Failure> {
        let failure: Failure = load(&self.failure_path(key))?;
        Some(Failure { error: fit_to_show(&failure.error), ..failure })
    }

    /// A failure that cannot be forgotten ends by itself.
    pub(crate) fn forget_failure(&self, key: &Key) {
        let _ = private_file::remove(&self.failure_path(key));
    }

    /// What was last kept of a provider; nothing when it cannot be read.
    pub(crate) fn read_provider(&self, issuer: &str, tls_verified: bool) -> Option<serde_json::Value> {
        let file: ProviderFile = load(&self.provider_path(issuer, tls_verified))?;
        (file.issuer == issuer && file.tls_verified == tls_verified).then_some(file.value)
    }

    pub(crate) fn write_provider(&self, issuer: &str, tls_verified: bool, value: &serde_json::Value) -> Result<()> {
        let file = ProviderFile { issuer: issuer.to_owned(), tls_verified, value: value.clone() };
        self.save(&self.provider_path(issuer, tls_verified), &file)
    }

    fn save(&self, path: &Path, content: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(&Versioned { version: VERSION, content })
            .map_err(|error| Error::bug("the cache's content cannot be written as JSON").caused_by(&error))?;
        if bytes.len() as u64 > private_file::LARGEST {
            let message = format!("what the provider sent is too large to be kept: {} bytes", bytes.len());
            return Err(Error::new(Kind::Other, message));
        }
        private_file::prepare_folder(&self.folder)?;
        private_file::replace(path, &bytes)?;
        self.remove_leftovers(path);
        Ok(())
    }

    /// Removes what killed writers left. A writer needs no hour, measured by the file system's own
    /// clock: the time of the file just written.
    fn remove_leftovers(&self, written: &Path) {
        let Some(now) = modified(written) else { return };
        for name in self.names().unwrap_or_default() {
            let path = self.folder.join(&name);
            let old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > Duration::from_secs(3600));
            if written_file(&name).is_some() && modified(&path).is_some_and(old) {
                let _ = private_file::remove(&path);
            }
        }
    }

    /// The names in the folder that are text, as ours are; none when there is no folder.
    fn names(&self) -> Result<Vec<String>> {
        let unreadable = |error: std::io::Error| {
            Error::new(Kind::Other, format!("cannot read the folder `{}`", self.folder.display())).caused_by(&error)
        };
        match fs::read_dir(&self.folder) {
            Ok(files) => {
                let names: std::io::Result<Vec<_>> =
                    files.map(|file| Ok(file?.file_name().into_string().ok())).collect();
                Ok(names.map_err(unreadable)?.into_iter().flatten().collect())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable(error)),
        }
    }

    fn entry_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}{ENTRY}", key.as_str()))
    }

    fn failure_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}{FAILURE}", key.as_str()))
    }

    fn lock_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.lock", key.as_str()))
    }

    fn provider_path(&self, issuer: &str, tls_verified: bool) -> PathBuf {
        self.folder.join(format!("{PROVIDER}{}{ENTRY}", Key::of_provider(issuer, tls_verified).as_str()))
    }
}

const ENTRY: &str = ".json";
const FAILURE: &str = ".failed.json";
const PROVIDER: &str = "provider-";

/// The name of the file that a temporary file of ours was to become.
fn written_file(name: &str) -> Option<&str> {
    let name = name.strip_prefix('.')?.strip_suffix(private_file::TEMPORARY)?;
    let (name, _random) = name.rsplit_once('.')?;
    key_in(name).or_else(|| key_in(name.strip_prefix(PROVIDER)?)).map(|_| name)
}

/// The key of the identity whose file has this name.
fn key_in(name: &str) -> Option<Key> {
    Key::parse(name.strip_suffix(FAILURE).or_else(|| name.strip_suffix(ENTRY))?)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

/// A file as it is written: the content's members beside the version.
#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u64,
    #[serde(flatten)]
    content: &'a T,
}

/// Only the version of a file.
#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct ProviderFile {
    issuer: String,
    tls_verified: bool,
    value: serde_json::Value,
}

/// The error with texts that a terminal can be shown, whatever the file says.
fn fit_to_show(error: &Error) -> Error {
    let shown = Error::new(error.kind(), error.message());
    let shown = error.causes().iter().fold(shown, Error::cause);
    error.hints().iter().fold(shown, Error::hint)
}

/// The content of a small file that may as well be missing.
fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match private_file::read(path) {
        Ok(Content::Bytes(bytes)) => parse(&bytes).ok(),
        _ => None,
    }
}

/// The content, or why it is not to be used. The version is looked at first: of another one
/// nothing else is known.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, String> {
    let VersionOnly { version } = serde_json::from_slice(bytes).map_err(|error| place(&error))?;
    if version != VERSION {
        return Err(format!("its format is version {version}, not {VERSION}"));
    }
    serde_json::from_slice(bytes).map_err(|error| place(&error))
}

/// Where it is wrong. The parser's own words may quote the content, and so a token.
fn place(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "not our format" } else { "not JSON" };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests;
