//! What people and kubectl see. stdout is a protocol: `data` is its only writer. Everything else
//! goes to stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;

use crate::error::{Error, Kind, Result, printable};

/// Called before another program, or a question of ours, gets the terminal; what it returns is dropped
/// when that has ended.
pub(crate) type StepAside = Arc<dyn Fn() -> Box<dyn Send> + Send + Sync>;

/// The two streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    verbosity: u8,
    stderr_is_terminal: bool,
}

#[expect(clippy::unused_self, reason = "whoever may print holds a `Ui`")]
impl Ui {
    /// Verbosity 0 tells only what a person must know, 1 the steps, 2 each request.
    pub(crate) fn new() -> Self {
        Self { verbosity: 0, stderr_is_terminal: io::stderr().is_terminal() }
    }

    /// These streams, told more or less of what is done.
    pub(crate) fn at(self, verbosity: u8) -> Self {
        Self { verbosity, ..self }
    }

    /// Whether a person reads stderr as it is written.
    pub(crate) fn stderr_is_terminal(self) -> bool {
        self.stderr_is_terminal
    }

    /// Writes the command's answer to stdout. A reader that is gone is no failure.
    pub(crate) fn data(self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::new(Kind::Other, "cannot write the answer to stdout").caused_by(&error))
            }
            _ => Ok(()),
        }
    }

    /// Something that the reader should know and need not act on.
    pub(crate) fn note(self, text: impl Display) {
        line(&format!("kubectl-headlamp: note: {}", printable(&text)));
    }

    /// What the command has done.
    pub(crate) fn say(self, text: impl Display) {
        line(&printable(&text));
    }

    /// Something that will go wrong later, or is unsafe.
    pub(crate) fn warning(self, text: impl Display) {
        line(&format!("kubectl-headlamp: warning: {}", printable(&text)));
    }

    /// A step, told with `-v`.
    pub(crate) fn step(self, text: impl Display) {
        self.detail(1, text);
    }

    /// A detail, told from this verbosity on. Never a secret.
    pub(crate) fn detail(self, verbosity: u8, text: impl Display) {
        if self.verbosity >= verbosity {
            line(&format!("kubectl-headlamp: {}", printable(&text)));
        }
    }

    /// Something that a person must see to go on: written as it is (lines and all) to stderr and,
    /// when that is not a terminal, to the controlling terminal if there is one and
    /// `terminal_too` is set.
    pub(crate) fn prompt(self, text: &str, terminal_too: bool) {
        line(text);
        if terminal_too && let Ok(mut terminal) = std::fs::OpenOptions::new().write(true).open("/dev/tty") {
            let _ = writeln!(terminal, "{text}");
        }
    }

    /// From now on every other line is written above this row, or, with `None`, at the end as usual.
    pub(crate) fn keep_last_row(self, row: Option<ProgressBar>) {
        *LAST_ROW.lock().unwrap_or_else(PoisonError::into_inner) = row;
    }

    /// The end of a run that failed. Only `main` calls it.
    pub(crate) fn error(self, error: &Error) {
        line(&error.to_string());
    }
}

/// stderr that cannot be written to is no reason to fail.
fn line(text: &str) {
    let write = || {
        let _ = writeln!(io::stderr().lock(), "{text}");
    };
    match &*LAST_ROW.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(row) => row.suspend(write),
        None => write(),
    }
}

/// What is drawn at the end of stderr. There is one stderr, whoever writes to it.
static LAST_ROW: Mutex<Option<ProgressBar>> = Mutex::new(None);
