//! Systems other than Unix: their own line editor, which has no narrow limit.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

pub(super) fn stdin_is_ours() -> bool {
    io::stdin().is_terminal()
}

pub(super) fn screen() -> Option<File> {
    File::options().write(true).open("CONOUT$").ok()
}

/// It is not asked.
pub(super) fn columns() -> Option<usize> {
    None
}

/// The thread stays in its read when nobody waits any more; the process ends without it.
pub(super) async fn read_line() -> Result<Option<Secret>> {
    let read = || {
        let mut line = String::new();
        io::stdin().lock().take(LONGEST).read_line(&mut line)?;
        Ok::<_, io::Error>((!line.is_empty()).then_some(line))
    };
    let failed = || Error::new(Kind::Other, "cannot read what is typed");
    let line = tokio::task::spawn_blocking(read).await.map_err(|error| failed().caused_by(&error))?;
    let line = line.map_err(|error| failed().caused_by(&error))?;
    Ok(line.map(|line| Secret::new(line.trim_end_matches(['\r', '\n']))))
}

#[expect(clippy::unused_async, reason = "the same as on Unix")]
pub(super) async fn read_password(_: &str) -> Result<Option<Secret>> {
    Err(Error::new(Kind::SignInNeeded, "a password cannot be typed in unseen on this system")
        .hint("give it with `--password-file`, or sign in with `--flow browser`"))
}

/// Bytes.
const LONGEST: u64 = 64 * 1024;
