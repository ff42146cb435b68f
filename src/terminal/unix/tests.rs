#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;
use crate::commands::block_on;

/// A terminal and the end of it where a person would sit.
struct Terminal {
    program: File,
    person: File,
    /// All that was shown.
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new() -> Self {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let person = File::from(person);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut eyes, memory) = (person.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = eyes.read(&mut bytes) {
                memory.lock().unwrap().extend(bytes.iter().take(length));
            }
        });
        Self { program, person, shown }
    }

    /// Types, from a thread of its own: a terminal takes only so much at once.
    fn type_in(&self, text: impl Into<Vec<u8>>) {
        let (mut person, text) = (self.person.try_clone().unwrap(), text.into());
        std::thread::spawn(move || person.write_all(&text));
    }

    fn screen(&self) -> Screen {
        Screen::new(Some(self.program.try_clone().unwrap()))
    }

    fn read(&self, shown: Shown) -> Result<Option<String>> {
        let line = block_on(read(self.program.as_fd(), self.screen(), shown))?;
        Ok(line.map(|line| line.expose().to_owned()))
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait_for_shown(&self, text: &str) {
        wait_for(text, || self.shown().contains(text));
    }

    fn takes_whole_lines(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// A test of this file in a process of its own, in the foreground of this terminal.
    fn run(&self, test: &str) -> Child {
        let stream = || Stdio::from(self.program.try_clone().unwrap());
        let program = std::env::current_exe().unwrap();
        let name = format!("terminal::unix::tests::{test}");
        Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(["--exact", &name, "--ignored", "--nocapture", "--quiet"])
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap()
    }
}

/// Waits for something that must come.
fn wait_for(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !come() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_line_far_longer_than_the_terminals_own_arrives_whole() {
    let terminal = Terminal::new();
    let address = format!("http://localhost:8000/oidc-callback?code={}&state=s", "0123456789abcdef".repeat(512));
    // Before the mode is set the terminal itself would show it, and cut it.
    let mode = ByteMode::begin(terminal.program.as_fd()).unwrap();
    terminal.type_in(format!("{address}\n"));
    assert_eq!(terminal.read(Shown::Yes).unwrap(), Some(address.clone()));
    wait_for("the echo", || terminal.shown() == format!("{address}\r\n"));
    drop(mode);
    assert!(terminal.takes_whole_lines());
}

#[test]
fn what_follows_the_line_is_left_to_the_next_reader() {
    let terminal = Terminal::new();
    terminal.type_in("one\ntwo\nthree\n");
    assert_eq!(terminal.read(Shown::Yes).unwrap().as_deref(), Some("one"));
    assert_eq!(terminal.read(Shown::Yes).unwrap().as_deref(), Some("two"));
    let mut rest = [0; 100];
    let length = (&terminal.program).read(&mut rest).unwrap();
    assert_eq!(rest.get(..length), Some(&b"three\n"[..]));
}

#[test]
fn a_password_is_not_shown() {
    let terminal = Terminal::new();
    let mode = ByteMode::begin(terminal.program.as_fd()).unwrap();
    terminal.type_in("hunter2\x7f3\n");
    assert_eq!(terminal.read(Shown::No).unwrap().as_deref(), Some("hunter3"));
    wait_for("the end of the line", || terminal.shown() == "\r\n");
    drop(mode);
    assert!(terminal.takes_whole_lines());
}

#[test]
fn a_reader_that_is_dropped_leaves_the_terminal_as_it_was() {
    let terminal = Terminal::new();
    let result = block_on(async {
        tokio::select! {
            biased;
            line = read(terminal.program.as_fd(), terminal.screen(), Shown::Yes) => line.map(|_| false),
            own = async { !terminal.takes_whole_lines() } => Ok(own),
        }
    });
    assert!(result.unwrap(), "it was not waiting in its own mode");
    assert!(terminal.takes_whole_lines());
}

#[test]
fn a_terminal_that_is_gone_is_the_end_of_input() {
    let (program, person) = {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        (File::open(name.to_str().unwrap()).unwrap(), person)
    };
    let line = block_on(async {
        let (line, ()) = tokio::join!(read(program.as_fd(), Screen::new(None), Shown::Yes), async { drop(person) });
        line
    });
    assert_eq!(line.unwrap(), None);
}

#[test]
fn what_is_no_terminal_is_an_error() {
    let file = File::open("/dev/null").unwrap();
    let error = block_on(read(file.as_fd(), Screen::new(None), Shown::Yes)).unwrap_err();
    assert_eq!(error.message(), "cannot read from the terminal");
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_a_reader_and_the_terminal_is_as_before() {
    let terminal = Terminal::new();
    let mut process = terminal.run("read_lines_until_interrupted");
    wait_for("the reader", || !terminal.takes_whole_lines());
    terminal.type_in("half a line");
    terminal.wait_for_shown("half a line");
    terminal.type_in("\x03");
    wait_for("the end", || process.try_wait().unwrap().is_some());
    terminal.wait_for_shown("half a line\r\nit ended: interrupted");
    assert!(terminal.takes_whole_lines());
}

#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_was_stopped_and_goes_on_takes_its_mode_again() {
    let terminal = Terminal::new();
    let shells_mode = tcgetattr(&terminal.program).unwrap();
    let mut process = terminal.run("read_lines_until_interrupted");
    wait_for("the reader", || !terminal.takes_whole_lines());
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    tcsetattr(&terminal.program, OptionalActions::Now, &shells_mode).unwrap();
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    wait_for("the reader", || !terminal.takes_whole_lines());
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_for("the end", || process.try_wait().unwrap().is_some());
    terminal.wait_for_shown("it ended: interrupted");
    assert!(terminal.takes_whole_lines());
}

#[test]
#[ignore = "a part of the tests before, run by them in a process of its own"]
fn read_lines_until_interrupted() {
    let error = block_on(crate::terminal::read_line()).unwrap_err();
    Screen::new(screen()).write(&format!("it ended: {}\n", error.message()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_background_job_may_not_read() {
    let terminal = Terminal::new();
    let mut process = terminal.run("tell_whose_turn_it_is");
    wait_for("the end", || process.try_wait().unwrap().is_some());
    terminal.wait_for_shown("foreground true false\r\nbackground false\r\n");
}

#[test]
#[ignore = "a part of the test before, run by it in a process of its own"]
fn tell_whose_turn_it_is() {
    use std::os::unix::process::CommandExt;
    let (allowed, refused) = (crate::terminal::stdin_may_be_read(true), crate::terminal::stdin_may_be_read(false));
    let mut screen = Screen::new(screen());
    if !allowed {
        return screen.write("background false\n");
    }
    screen.write(&format!("foreground {allowed} {refused}\n"));
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "terminal::unix::tests::tell_whose_turn_it_is", "--ignored", "--quiet"];
    Command::new(program).args(arguments).process_group(0).stdout(Stdio::null()).status().unwrap();
}
