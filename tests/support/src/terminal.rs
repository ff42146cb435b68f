//! A run on a terminal of its own, with somebody who types.

use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::Arc;

use pty_process::blocking::Pty;

use crate::run::{Output, Run, Stream, wait_for_end};
use crate::sandbox::{DEADLINE, Sandbox, wait_until};
use crate::secrets::SecretKind;

/// A program whose stdin and stderr are a terminal, in whose foreground it is; stdout is a pipe,
/// as kubectl has it. Dropped before its end, it is killed.
pub struct Terminal<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    pty: Arc<Pty>,
    screen: Stream,
    stdout: Stream,
    shown: Vec<SecretKind>,
    /// How much of the screen was looked at.
    seen: usize,
    ended: bool,
}

/// The terminal as the reader's own: it ends when its program does.
struct Screen(Arc<Pty>);

impl std::io::Read for Screen {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl<'a> Run<'a> {
    /// Starts it on a terminal of 24 lines and 100 columns.
    pub fn terminal(self) -> Terminal<'a> {
        let (sandbox, command, shown) = self.into_terminal();
        let (pty, pts) = pty_process::blocking::open().expect("a terminal");
        pty.resize(pty_process::Size::new(24, 100)).expect("a size");
        let mut child = command.stdout(Stdio::piped()).spawn(pts).expect("a program");
        let stdout = Stream::read(child.stdout.take().expect("a pipe"));
        let pty = Arc::new(pty);
        let screen = Stream::read(Screen(Arc::clone(&pty)));
        Terminal { sandbox, child, pty, screen, stdout, shown, seen: 0, ended: false }
    }
}

impl Terminal<'_> {
    /// All that the terminal has shown, what was typed in too unless the program hid it.
    pub fn screen(&self) -> String {
        self.screen.so_far()
    }

    /// What stands on the screen now, row by row, the cursor's last: of a terminal that is as long as it
    /// takes.
    pub fn rows(&self) -> Vec<String> {
        rows(&self.screen())
    }

    /// Waits until this text is shown after what was expected before, and returns what came up to
    /// its end.
    pub fn expect(&mut self, text: &str) -> String {
        let mut found = None;
        let what = format!("`{text}` on the terminal");
        let end = std::time::Instant::now() + DEADLINE;
        while found.is_none() {
            let screen = self.screen();
            found = screen.get(self.seen..).and_then(|rest| rest.find(text)).map(|at| self.seen + at + text.len());
            assert!(
                found.is_some() || std::time::Instant::now() < end,
                "waited {DEADLINE:?} in vain for {what}; it shows:\n{screen}"
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let from = std::mem::replace(&mut self.seen, found.unwrap_or_default());
        self.screen()[from..self.seen].to_owned()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// Types this.
    pub fn send(&self, text: &str) {
        (&*self.pty).write_all(text.as_bytes()).expect("a terminal that takes keys");
    }

    /// Types this and Enter.
    pub fn send_line(&self, line: &str) {
        self.send(&format!("{line}\n"));
    }

    /// Types Ctrl-C.
    pub fn send_interrupt(&self) {
        self.send("\u{3}");
    }

    /// Waits until the program reads without showing what is typed in, as for a password.
    pub fn wait_for_hidden_input(&self) {
        wait_until(DEADLINE, "hidden input", || {
            let modes = rustix::termios::tcgetattr(&*self.pty).expect("a terminal").local_modes;
            !modes.contains(rustix::termios::LocalModes::ECHO)
        });
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; stderr is all that the terminal showed.
    pub fn wait(mut self) -> Output {
        let code = wait_for_end(&mut self.child, || self.screen.so_far());
        self.ended = true;
        let screen = self.screen.whole().replace("\r\n", "\n");
        Output::checked(self.sandbox, code, self.stdout.whole(), screen, &self.shown)
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What bytes come to on a terminal that knows returns, newlines and the sequences that erase a line or
/// move up and down.
fn rows(bytes: &str) -> Vec<String> {
    let mut rows = vec![String::new()];
    let (mut row, mut column) = (0, 0);
    let mut characters = bytes.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let mut count = String::new();
                let last = characters.by_ref().skip(1).find(|character| {
                    count.push(*character);
                    character.is_ascii_alphabetic()
                });
                count.pop();
                match last {
                    Some('A') => row -= count.parse().unwrap_or(1),
                    Some('B') => row += count.parse().unwrap_or(1),
                    Some('K') => rows[row].clear(),
                    _ => {}
                }
            }
            character => {
                let text = &mut rows[row];
                let kept: String = text.chars().chain(std::iter::repeat(' ')).take(column).collect();
                let rest: String = text.chars().skip(column + 1).collect();
                *text = format!("{kept}{character}{rest}");
                column += 1;
            }
        }
        while rows.len() <= row {
            rows.push(String::new());
        }
    }
    rows.truncate(row + 1);
    rows
}
