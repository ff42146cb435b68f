//! Lines from a Unix terminal (POSIX.1-2024, chapter 11).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpgrp};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::line::{Line, State};
use crate::error::{Error, Kind, Result, printable};
use crate::secret::Secret;

pub(super) fn stdin_is_ours() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp())
}

/// The controlling terminal, to write to.
pub(super) fn screen() -> Option<File> {
    File::options().write(true).open("/dev/tty").ok()
}

pub(super) fn columns() -> Option<usize> {
    tcgetwinsize(io::stderr()).ok().map(|size| size.ws_col.into())
}

pub(super) async fn read_line() -> Result<Option<Secret>> {
    read(io::stdin().as_fd(), Screen::new(screen()), Shown::Yes).await
}

pub(super) async fn read_password(prompt: &str) -> Result<Option<Secret>> {
    let mut screen = Screen::new(screen());
    screen.write(&printable(prompt));
    screen.write(" ");
    read(io::stdin().as_fd(), screen, Shown::No).await
}

/// Whether what is typed can be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Yes,
    No,
}

async fn read(terminal: BorrowedFd<'_>, mut screen: Screen, shown: Shown) -> Result<Option<Secret>> {
    let failed = |error: &io::Error| Error::new(Kind::Other, "cannot read from the terminal").caused_by(error);
    // Before the mode is set, so that no stop in between goes unnoticed.
    let continued = signal(SignalKind::from_raw(Signal::CONT.as_raw())).map_err(|error| failed(&error))?;
    let mode = ByteMode::begin(terminal).map_err(|error| failed(&error))?;
    let typed = typed(terminal, &mode, continued, &mut screen, shown).await.map_err(|error| failed(&error))?;
    screen.write("\n");
    Ok(typed.map(Secret::new))
}

/// The line, once it has ended.
async fn typed(
    terminal: BorrowedFd<'_>,
    mode: &ByteMode<'_>,
    mut continued: tokio::signal::unix::Signal,
    screen: &mut Screen,
    shown: Shown,
) -> io::Result<Option<String>> {
    #[expect(deprecated, reason = "its successor is unsafe; this descriptor is our own, as both demand")]
    let source = AsyncFd::with_interest(terminal.try_clone_to_owned()?, Interest::READABLE)?;
    let mut line = Line::default();
    loop {
        let mut echo = String::new();
        let mut state = State::Unfinished;
        while state == State::Unfinished {
            match next_byte(terminal)? {
                Next::Byte(byte) => state = line.take(byte, &mut echo),
                Next::Nothing => break,
                Next::Closed => state = State::Closed,
            }
        }
        if shown == Shown::Yes {
            screen.write(&echo);
        }
        match state {
            State::Unfinished => {}
            State::Finished => return Ok(Some(line.into_text())),
            State::Closed => return Ok(None),
        }
        tokio::select! {
            ready = source.readable() => ready?.clear_ready(),
            // A shell that has stopped us and goes on with us has had the terminal in its own mode.
            _ = continued.recv() => mode.enter()?,
        }
    }
}

/// What the terminal has for us now.
enum Next {
    Byte(u8),
    Nothing,
    Closed,
}

/// Never blocks, and never reads in the background. One byte, so that what follows the line is
/// left to the next reader.
fn next_byte(terminal: BorrowedFd<'_>) -> io::Result<Next> {
    let mut asked = [PollFd::new(&terminal, PollFlags::IN)];
    if in_background(terminal) || rustix::io::retry_on_intr(|| poll(&mut asked, Some(&Timespec::default())))? == 0 {
        return Ok(Next::Nothing);
    }
    let mut byte = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(terminal, &mut byte)) {
        Ok(0) | Err(rustix::io::Errno::IO) => Ok(Next::Closed),
        Ok(_) => Ok(Next::Byte(u8::from_ne_bytes(byte))),
        Err(error) => Err(error.into()),
    }
}

/// Whether it is our controlling terminal and another process group's turn.
fn in_background(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

/// The terminal hands over each byte as it comes and shows none, but still knows Ctrl-C. It is as
/// before when this is dropped.
struct ByteMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> ByteMode<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let mode = Self { terminal, before: tcgetattr(terminal)? };
        mode.enter()?;
        Ok(mode)
    }

    fn enter(&self) -> io::Result<()> {
        let mut bytes = self.before.clone();
        bytes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        bytes.special_codes[SpecialCodeIndex::VMIN] = 1;
        bytes.special_codes[SpecialCodeIndex::VTIME] = 0;
        self.set(&bytes)
    }

    /// In the background it is the shell's terminal, which would stop us for touching it.
    fn set(&self, mode: &Termios) -> io::Result<()> {
        if in_background(self.terminal) {
            return Ok(());
        }
        Ok(rustix::io::retry_on_intr(|| tcsetattr(self.terminal, OptionalActions::Now, mode))?)
    }
}

impl Drop for ByteMode<'_> {
    fn drop(&mut self) {
        let _ = self.set(&self.before);
    }
}

/// What is shown on the terminal; nothing where there is none to write to. A line that is left
/// unfinished is ended, so that what is written next begins on its own.
struct Screen {
    file: Option<File>,
    unfinished: bool,
}

impl Screen {
    fn new(file: Option<File>) -> Self {
        Self { file, unfinished: false }
    }

    fn write(&mut self, text: &str) {
        if let Some(file) = &mut self.file
            && !text.is_empty()
        {
            let _ = file.write_all(text.as_bytes());
            self.unfinished = !text.ends_with('\n');
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.unfinished {
            self.write("\n");
        }
    }
}

#[cfg(test)]
mod tests;
