//! The terminal: whether a person can be asked, and the lines that a person types or pastes.
//!
//! A line may be longer than a terminal's own line buffer (4095 bytes on Linux; the codes of some
//! providers are longer), so the terminal hands over each byte as it comes, and editing is done
//! here. Nothing is read beyond the line, and no read blocks: whoever stops waiting leaves the
//! terminal as it was, with what was typed since for the next reader.

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod line;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
use elsewhere as system;
#[cfg(unix)]
use unix as system;

use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::ui::Ui;

/// Whether a line may be asked for on stdin: kubectl allows it (`interactive`), it is a terminal,
/// and our process group is its foreground's. A background job that reads would be stopped.
pub(crate) fn stdin_may_be_read(interactive: bool) -> bool {
    interactive && system::stdin_is_ours()
}

/// Whether somebody can see what we write: on stderr, or on the terminal itself if stderr leads
/// elsewhere.
pub(crate) fn can_be_seen(ui: Ui) -> bool {
    ui.stderr_is_terminal() || system::screen().is_some()
}

/// How wide stderr's terminal is, if it says so.
pub(crate) fn columns() -> Option<usize> {
    system::columns().filter(|columns| *columns > 0)
}

/// The next line, without its end; `None` when there will be none. What goes beyond 64 KiB is
/// dropped. `stdin_may_be_read` must have said yes.
pub(crate) async fn read_line() -> Result<Option<Secret>> {
    let _only = READER.lock().await;
    system::read_line().await
}

/// A line that is not shown while it is typed. The prompt is written to the terminal itself.
pub(crate) async fn read_password(prompt: &str) -> Result<Secret> {
    let _only = READER.lock().await;
    let typed = system::read_password(prompt).await?;
    typed.ok_or_else(|| Error::sign_in_failed("no password was typed in").cause("standard input was closed"))
}

/// Two readers would get half of a line each.
static READER: Mutex<()> = Mutex::const_new(());
