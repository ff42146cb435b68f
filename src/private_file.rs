//! Files that only this user reads and writes: opened without following links or waiting, and
//! replaced whole, so that a reader needs no lock and a killed writer leaves the old file.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Bytes; nothing that we write is longer, so nothing longer is read.
pub(crate) const LARGEST: u64 = 1024 * 1024;

/// What stands at a path.
pub(crate) enum Content {
    Absent,
    Bytes(Vec<u8>),
    /// A file of this user that must not be believed, and why.
    Unusable(String),
}

/// Reads the file: one open, one stat of what was opened (and whose process this is), one read.
/// A link, a foreign owner and whatever is no regular file are errors, because they are no
/// accident; a file that others may write to could hold another person's tokens.
pub(crate) fn read(path: &Path) -> Result<Content> {
    read_within(path, LARGEST)
}

/// The same with another bound on its bytes.
pub(crate) fn read_within(path: &Path, largest: u64) -> Result<Content> {
    let mut file = match private().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Err(not_opened(path, &error)),
    };
    let metadata = file.metadata().map_err(|error| not_opened(path, &error))?;
    check_file(path, &metadata)?;
    if let Some(mode) = writable_by_others(&metadata) {
        return Ok(Content::Unusable(format!("others may write to it: mode {mode:o}")));
    }
    let size = match usize::try_from(metadata.len()) {
        Ok(size) if metadata.len() <= largest => size,
        _ => return Ok(Content::Unusable(format!("it is larger than {largest} bytes: {}", metadata.len()))),
    };
    let mut bytes = vec![0; size];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Content::Bytes(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Ok(Content::Unusable("it was cut short while it was read".to_owned()))
        }
        Err(error) => Err(not_opened(path, &error)),
    }
}

/// Puts the bytes at the path, wholly or not at all, in a file that only this user can read from
/// the moment it exists. The folder must have been prepared. Temporary files are named
/// `.<name>.<random>.tmp`.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, Written::ForGood)
}

/// The same for what can be had again: after a loss of power it may be missing or cut short.
pub(crate) fn replace_for_now(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, Written::ForNow)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    ForGood,
    ForNow,
}

fn put(path: &Path, bytes: &[u8], written: Written) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::bug(format!("a file without a folder or a name: `{}`", path.display())));
    };
    let prefix = format!(".{}.", name.display());
    // The crate's own message would name the random file: only the kind of failure is kept.
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(TEMPORARY)
        .tempfile_in(folder)
        .map_err(|error| elsewhere(cannot_keep(folder).cause(error.kind())))?;
    let file = temporary.as_file_mut();
    file.write_all(bytes)
        .and_then(|()| if written == Written::ForGood { file.sync_all() } else { Ok(()) })
        .map_err(|error| elsewhere(cannot_keep(folder).caused_by(&error)))?;
    temporary.persist(path).map_err(|error| elsewhere(cannot_keep(folder).caused_by(&error.error)))?;
    if written == Written::ForGood {
        sync_folder(folder);
    }
    Ok(())
}

/// How the names of temporary files end.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Makes what is missing of the folder, open to this user alone, and refuses one in which others
/// could put files. A link to a folder is followed: what counts is whose the folder is.
pub(crate) fn prepare_folder(folder: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| elsewhere(cannot_keep(folder).caused_by(&error)))?;
    let metadata = fs::metadata(folder).map_err(|error| elsewhere(cannot_keep(folder).caused_by(&error)))?;
    if let Some(owner) = foreign_owner(&metadata) {
        return Err(elsewhere(cannot_keep(folder).cause(format!("it belongs to another user: uid {owner}"))));
    }
    if let Some(mode) = writable_by_others(&metadata) {
        let error = cannot_keep(folder).cause(format!("others may write to it: mode {mode:o}"));
        return Err(elsewhere(error.hint(format!("close it to them: `chmod go-w {}`", quoted(folder)))));
    }
    Ok(())
}

/// Opens the file to lock it, and makes it if it is missing and `create` is set. `None`: it is
/// missing.
pub(crate) fn open_to_lock(path: &Path, create: bool) -> Result<Option<File>> {
    let file = match private().read(true).write(true).create(create).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(None),
        Err(error) => return Err(not_opened(path, &error)),
    };
    let metadata = file.metadata().map_err(|error| not_opened(path, &error))?;
    check_file(path, &metadata)?;
    Ok(Some(file))
}

/// Whether the open file is still the one that the path names.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match (file.metadata(), fs::symlink_metadata(path)) {
            (Ok(opened), Ok(named)) => identity(opened) == identity(named),
            _ => false,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}

/// Removes the file, a link itself and not its target; whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::new(Kind::Other, format!("cannot remove `{}`", path.display())).caused_by(&error)),
    }
}

/// Opens no link, waits for nobody (a named pipe without a writer would block), and makes files
/// that only this user can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    }
    #[cfg(windows)]
    {
        // FILE_FLAG_OPEN_REPARSE_POINT: a link is opened itself, and is no regular file.
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0020_0000);
    }
    options
}

/// Refuses what is not a regular file of this user.
fn check_file(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_dir() {
        return Err(cannot_open(path).cause("it is a folder").hint(format!("`rmdir {}`", quoted(path))));
    }
    if !metadata.is_file() {
        return Err(cannot_open(path).cause("it is not a regular file").hint(format!("`rm {}`", quoted(path))));
    }
    match foreign_owner(metadata) {
        Some(owner) => {
            let error = cannot_open(path).cause(format!("it belongs to another user: uid {owner}"));
            Err(elsewhere(error.hint(format!("`rm {}`", quoted(path)))))
        }
        None => Ok(()),
    }
}

/// Whose it is, if it is not ours.
#[cfg(unix)]
fn foreign_owner(metadata: &Metadata) -> Option<u32> {
    let owner = std::os::unix::fs::MetadataExt::uid(metadata);
    (owner != rustix::process::geteuid().as_raw()).then_some(owner)
}

/// Windows: the folders of a profile are closed to others by their access lists.
#[cfg(not(unix))]
fn foreign_owner(_: &Metadata) -> Option<u32> {
    None
}

/// The permission bits, if they let anyone else write.
#[cfg(unix)]
fn writable_by_others(metadata: &Metadata) -> Option<u32> {
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o777;
    (mode & 0o022 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn writable_by_others(_: &Metadata) -> Option<u32> {
    None
}

/// So that the new name outlives a loss of power. Some file systems cannot; the file stands anyway.
fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

fn not_opened(path: &Path, error: &io::Error) -> Error {
    // The system's words for a link here and for links above that lead in a circle are the same.
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
        && fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    {
        return cannot_open(path).cause("it is a symbolic link").hint(format!("`rm {}`", quoted(path)));
    }
    elsewhere(cannot_open(path).caused_by(error))
}

fn cannot_open(path: &Path) -> Error {
    Error::new(Kind::Other, format!("cannot open `{}`", path.display()))
}

fn cannot_keep(folder: &Path) -> Error {
    Error::new(Kind::Other, format!("cannot keep tokens in `{}`", folder.display()))
}

/// Adds the two ways around a folder that cannot be used.
fn elsewhere(error: Error) -> Error {
    error
        .hint("keep tokens in a folder of your own: `--cache-dir FOLDER`, or set `KUBECTL_HEADLAMP_CACHE_DIR`")
        .hint("keep none: `--token-storage none`, or set `KUBECTL_HEADLAMP_TOKEN_STORAGE=none`")
}

/// The path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |character: char| character.is_alphanumeric() || "/._-+,:@%=".contains(character);
    if !path.is_empty() && path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}
