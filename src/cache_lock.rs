//! One sign-in or refresh per identity at a time, across processes: an exclusive lock on a file
//! of its own, which the system frees when its holder dies. The holder writes into it who it is.
//!
//! A lock file is removed only by whoever holds its lock, as the last thing done under it. A
//! process that has opened the file before and gets the lock after then holds a file without a
//! name, where another process may have made and locked a new one: so whoever gets a lock looks
//! whether the path still names the locked file, and starts again if it does not.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::private_file;

/// What came of asking for a lock.
#[derive(Debug)]
pub(crate) enum Locked {
    Mine(Lock),
    /// Who holds it, if that can be told: a holder may not have said so yet, and Windows lets
    /// nobody read a locked file.
    Held(Option<Holder>),
}

/// A process that signs in or refreshes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) since: Timestamp,
    pub(crate) purpose: String,
}

/// The right to sign in or refresh. It ends when this is dropped, and with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Takes the lock if it is free; the folder must have been prepared.
pub(crate) fn acquire(path: &Path, purpose: &str, now: Timestamp) -> Result<Locked> {
    for _ in 0..MOST_REMOVALS {
        // `None` cannot be, the file was asked for; it would only mean one more round.
        let Some(file) = private_file::open_to_lock(path, true)? else { continue };
        match file.try_lock() {
            Ok(()) if private_file::is_at(&file, path) => {
                let lock = Lock { file, path: path.to_owned() };
                lock.tell(purpose, now);
                return Ok(Locked::Mine(lock));
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Locked::Held(holder(&file))),
            Err(TryLockError::Error(error)) => return Err(cannot_lock(path).caused_by(&error)),
        }
    }
    Err(cannot_lock(path).cause("it is removed again and again"))
}

/// Takes the lock if there is a lock file that nobody holds.
pub(crate) fn acquire_existing(path: &Path) -> Option<Lock> {
    let file = private_file::open_to_lock(path, false).ok()??;
    file.try_lock().ok()?;
    private_file::is_at(&file, path).then(|| Lock { file, path: path.to_owned() })
}

impl Lock {
    /// Removes the lock file and frees the lock. On Windows the file stays: it cannot be told
    /// there whether an open file still has its name.
    pub(crate) fn remove(self) -> Result<()> {
        if cfg!(unix) {
            private_file::remove(&self.path)?;
        }
        Ok(())
    }

    /// Says who holds the lock, and what for. It is a courtesy to those who wait, so a failure is none.
    pub(crate) fn tell(&self, purpose: &str, since: Timestamp) {
        let holder = Holder { pid: std::process::id(), since, purpose: purpose.to_owned() };
        let text = serde_json::to_string(&holder).unwrap_or_default();
        let rewritten = self.file.set_len(0).and_then(|()| (&self.file).rewind());
        let _ = rewritten.and_then(|()| (&self.file).write_all(text.as_bytes()));
    }
}

impl Drop for Lock {
    /// The next holder is not taken for this one; closing the file frees the lock.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Who says to hold the lock; `None` while it is being written.
fn holder(file: &File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(LONGEST_HOLDER).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn cannot_lock(path: &Path) -> Error {
    Error::new(Kind::Other, format!("cannot lock `{}`", path.display()))
        .hint("keep tokens on a file system with locks: `--cache-dir FOLDER`, or set `KUBECTL_HEADLAMP_CACHE_DIR`")
}

/// How often a lock file may vanish in our hands before we give up.
const MOST_REMOVALS: usize = 100;

/// Bytes.
const LONGEST_HOLDER: u64 = 4096;
