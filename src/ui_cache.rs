//! The files of Headlamp's page on disk, one folder for each cluster.
//!
//! A file's name there is the SHA-256 of the Headlamp that it came from and its path. Its first
//! line is a JSON object that says what it is, the rest is its body. A file that is not wholly what
//! it says it is counts as none, and the next write replaces it. Nothing here is ever run; the
//! folder has mode 0700 and its files 0600, so nobody else puts scripts into the page.
//!
//! The time of a file is when it was last used. When all have grown too large together, those go
//! that have not been used for longest, but what the index page names goes last.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::private_file::{self, Content};
use crate::ui_file::{self, Encoding, UiFile};

/// The version of the files' format.
const VERSION: u64 = 1;
/// Bytes of all files of a cluster.
const LARGEST: u64 = 200 * 1024 * 1024;
/// A killed writer's file is removed after this time.
const LEFT_OVER: Duration = Duration::from_secs(3600);
/// Bytes before the body.
const LONGEST_HEAD: usize = 16 * 1024;

/// The cached files of one Headlamp. Failing to keep something is no error.
#[derive(Clone)]
pub(crate) struct UiCache(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    headlamp: String,
    largest: u64,
    clock: Clock,
    /// Names of the files that the current index page needs.
    needed: Mutex<HashSet<String>>,
}

/// The first line of a file.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Head {
    version: u64,
    headlamp: String,
    path: String,
    content_type: String,
    brotli: bool,
    last_modified: Option<String>,
    digest: String,
}

impl UiCache {
    /// In this cluster's folder, which the first write makes. `headlamp` tells apart the Headlamps
    /// of a cluster.
    pub(crate) fn at(folder: PathBuf, headlamp: &str, clock: Clock) -> Self {
        Self::within(folder, headlamp, clock, LARGEST)
    }

    fn within(folder: PathBuf, headlamp: &str, clock: Clock, largest: u64) -> Self {
        Self(Arc::new(Shared { folder, headlamp: headlamp.to_owned(), largest, clock, needed: Mutex::default() }))
    }

    /// The file as it was when it was written. Blocks.
    pub(crate) fn read(&self, path: &str) -> Option<UiFile> {
        let place = self.place(path);
        let Ok(Content::Bytes(bytes)) = private_file::read_within(&place, largest_file()) else { return None };
        let end = bytes.iter().take(LONGEST_HEAD).position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(bytes.get(..end)?).ok()?;
        let encoding = if head.brotli { Encoding::Brotli } else { Encoding::Plain };
        let body = Bytes::from(bytes).slice(end + 1..);
        let file = UiFile::new(head.content_type.clone(), encoding, head.last_modified.clone(), body);
        if self.head(path, &file) != head {
            return None;
        }
        let now = SystemTime::from(self.0.clock.now());
        // A time that cannot be set only makes the file look unused.
        let _ = OpenOptions::new().write(true).open(&place).and_then(|opened| opened.set_modified(now));
        Some(file)
    }

    /// Whether there is something, whole or not. Blocks.
    pub(crate) fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.place(path)).is_ok()
    }

    /// Replaces the file, and makes room. Blocks.
    pub(crate) fn write(&self, path: &str, file: &UiFile) {
        if file.body.len() > ui_file::LARGEST || self.keep(path, file).is_none() {
            return;
        }
        self.make_room(&self.place(path));
    }

    fn keep(&self, path: &str, file: &UiFile) -> Option<()> {
        let mut bytes = serde_json::to_vec(&self.head(path, file)).ok().filter(|head| head.len() < LONGEST_HEAD)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&file.body);
        private_file::prepare_folder(&self.0.folder).ok()?;
        private_file::replace_for_now(&self.place(path), &bytes).ok()
    }

    /// What the current index page needs.
    pub(crate) fn need<'a>(&self, paths: impl Iterator<Item = &'a str>) {
        let names = paths.map(|path| self.name(path)).collect();
        *self.0.needed.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    fn head(&self, path: &str, file: &UiFile) -> Head {
        Head {
            version: VERSION,
            headlamp: self.0.headlamp.clone(),
            path: path.to_owned(),
            content_type: file.content_type.clone(),
            brotli: file.encoding == Encoding::Brotli,
            last_modified: file.last_modified.clone(),
            digest: file.digest.clone(),
        }
    }

    fn name(&self, path: &str) -> String {
        ui_file::digest(format!("{}\0{path}", self.0.headlamp).as_bytes())
    }

    /// Where the file is, or would be.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.0.folder.join(self.name(path))
    }

    fn make_room(&self, written: &PathBuf) {
        let Ok(now) = fs::symlink_metadata(written).and_then(|file| file.modified()) else { return };
        let mut files: Vec<(bool, SystemTime, u64, PathBuf)> = Vec::new();
        let needed = self.0.needed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for file in fs::read_dir(&self.0.folder).into_iter().flatten().flatten() {
            let (Ok(name), Ok(metadata)) = (file.file_name().into_string(), file.metadata()) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if is_ours(&name) {
                files.push((needed.contains(&name) || file.path() == *written, used, metadata.len(), file.path()));
            } else if left_over(&name) && now.duration_since(used).is_ok_and(|age| age > LEFT_OVER) {
                let _ = private_file::remove(&file.path());
            }
        }
        let mut total: u64 = files.iter().map(|(_, _, size, _)| size).sum();
        if total <= self.0.largest {
            return;
        }
        files.sort();
        for (_, _, size, path) in files {
            if total <= self.0.largest / 10 * 9 {
                return;
            }
            if private_file::remove(&path).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }
}

fn largest_file() -> u64 {
    (ui_file::LARGEST + LONGEST_HEAD) as u64
}

fn is_ours(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A file of ours that was being written.
fn left_over(name: &str) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(private_file::TEMPORARY));
    name.and_then(|name| name.split_once('.')).is_some_and(|(name, _)| is_ours(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use jiff::Timestamp;

    use super::*;

    fn cache(folder: &tempfile::TempDir, headlamp: &str, largest: u64) -> UiCache {
        UiCache::within(folder.path().join("ui"), headlamp, Clock::fixed(Timestamp::now), largest)
    }

    fn file(body: &str) -> UiFile {
        UiFile::new("text/javascript".into(), Encoding::Plain, Some("yesterday".into()), Bytes::from(body.to_owned()))
    }

    fn used(cache: &UiCache, path: &str, seconds_ago: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds_ago);
        OpenOptions::new().write(true).open(cache.place(path)).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_by_the_same_headlamp_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ours = cache(&folder, "headlamp/one", LARGEST);
        assert_eq!(ours.read("/a.js"), None);
        ours.write("/a.js", &file("one"));
        assert_eq!(ours.read("/a.js"), Some(file("one")));
        assert_eq!(cache(&folder, "headlamp/two", LARGEST).read("/a.js"), None);
        ours.write("/a.js", &file("two"));
        assert_eq!(ours.read("/a.js"), Some(file("two")));
    }

    #[test]
    fn a_damaged_or_foreign_file_counts_as_none_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, "headlamp/one", LARGEST);
        cache.write("/a.js", &file("content"));
        cache.write("/b.js", &file("other"));
        let whole = fs::read(cache.place("/a.js")).unwrap();
        let other = fs::read(cache.place("/b.js")).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cut = whole.get(..whole.len() - 1).unwrap().to_vec();
        for damaged in [flipped, cut, other, Vec::new(), b"{}\n".to_vec(), vec![b'x'; 100_000]] {
            fs::write(cache.place("/a.js"), damaged).unwrap();
            assert_eq!(cache.read("/a.js"), None);
            cache.write("/a.js", &file("content"));
            assert_eq!(cache.read("/a.js"), Some(file("content")));
        }
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_files_are_the_users_alone_and_links_are_not_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, "headlamp/one", LARGEST);
        cache.write("/a.js", &file("content"));
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.0.folder), mode(&cache.place("/a.js"))), (0o700, 0o600));
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(cache.place("/a.js"), &elsewhere).unwrap();
        symlink(&elsewhere, cache.place("/a.js")).unwrap();
        assert_eq!(cache.read("/a.js"), None);
        cache.write("/a.js", &file("new"));
        assert_eq!(cache.read("/a.js"), Some(file("new")));
        fs::set_permissions(cache.place("/a.js"), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.read("/a.js"), None);
    }

    #[test]
    fn what_has_not_been_used_for_longest_goes_first_and_what_the_page_needs_last() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, "headlamp/one", 25_000);
        let large = file(&"x".repeat(5_000));
        cache.need(["/needed.js"].into_iter());
        for (path, age) in [("/needed.js", 400), ("/oldest.js", 300), ("/older.js", 200), ("/used.js", 350)] {
            cache.write(path, &large);
            used(&cache, path, age);
        }
        assert!(cache.read("/used.js").is_some(), "and is now the last that was used");
        cache.write("/newest.js", &large);
        let left =
            ["/needed.js", "/oldest.js", "/older.js", "/used.js", "/newest.js"].map(|path| cache.read(path).is_some());
        assert_eq!(left, [true, false, true, true, true]);
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder, "headlamp/one", LARGEST);
        cache.write("/a.js", &file("a"));
        let left = cache.0.folder.join(format!(".{}.abcdef.tmp", cache.name("/a.js")));
        let foreign = cache.0.folder.join("notes.tmp");
        for path in [&left, &foreign] {
            fs::write(path, "x").unwrap();
            let old = SystemTime::now() - 2 * LEFT_OVER;
            OpenOptions::new().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
        cache.write("/b.js", &file("b"));
        assert!(!left.exists() && foreign.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ui"), "a file").unwrap();
        let cache = cache(&folder, "headlamp/one", LARGEST);
        cache.write("/a.js", &file("a"));
        assert_eq!(cache.read("/a.js"), None);
    }
}
