//! The user's browser: which program opens it here, why none can, and whether it failed to.
//!
//! A command that the user names (`--browser-command`, `BROWSER`) is run as it is, without a
//! shell. Without one the system's own opener is used, if what it opens can be shown: text browsers
//! want a terminal, which is kubectl's, so they are not looked for. Programs run in a process group
//! of their own, see none of our streams or secrets, are never waited for, and live on when we end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::vec;

use tokio::process::{Child, Command};
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::options::Interactive;
use crate::secret::Secret;
use crate::settings::BrowserSettings;

/// A way to open a browser: programs, of which the next is tried when one fails.
pub(crate) struct Opener {
    launchers: Vec<Launcher>,
    variables: Variables,
}

/// What is different in a browser's environment: the value, or that it is not set.
type Variables = Vec<(String, Option<&'static str>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Launcher {
    /// A program and its arguments. The address stands where `%s` does, or last.
    Program(Vec<String>),
    /// The system's own call.
    #[cfg(any(target_os = "macos", windows))]
    System,
}

/// A browser that was told to open, as far as we can see.
pub(crate) struct Opened {
    /// `None` where there is nothing to watch.
    running: Option<(String, Child)>,
    rest: vec::IntoIter<Launcher>,
    variables: Variables,
    /// Why those before did not do.
    reasons: Vec<String>,
}

/// The way to open a browser here, or in a few words why there is none.
pub(crate) fn find(
    settings: &BrowserSettings,
    interactive: Interactive,
    environment: &Environment,
) -> Result<Opener, String> {
    let launchers = launchers(settings, interactive, environment, in_container(environment))?;
    Ok(Opener { launchers, variables: variables(environment) })
}

/// Ours hold secrets. `BROWSER` is what xdg-open falls back to, and without it to text browsers.
fn variables(environment: &Environment) -> Variables {
    let ours = environment.with_prefix(OUR_VARIABLES).map(|(name, _)| (format!("{OUR_VARIABLES}{name}"), None));
    let browser = (!environment.has("BROWSER")).then(|| ("BROWSER".to_owned(), Some(GRAPHICAL_BROWSERS)));
    ours.chain([("KUBERNETES_EXEC_INFO".to_owned(), None)]).chain(browser).collect()
}

fn launchers(
    settings: &BrowserSettings,
    interactive: Interactive,
    environment: &Environment,
    in_container: bool,
) -> Result<Vec<Launcher>, String> {
    if interactive == Interactive::Never {
        return Err("`--interactive=never` is set".to_owned());
    }
    if settings.never {
        return Err("`--no-browser` is set".to_owned());
    }
    if let Some(command) = &settings.command {
        let command = named(command, environment).ok_or("`--browser-command` is not a command")?;
        return Ok(vec![command]);
    }
    if let Some(list) = environment.text("BROWSER") {
        let commands: Vec<Launcher> = list.split(LIST_SEPARATOR).filter_map(|one| named(one, environment)).collect();
        return if commands.is_empty() { Err("`BROWSER` is not a command".to_owned()) } else { Ok(commands) };
    }
    system(environment, in_container)
}

/// A command as the user wrote it: words as a shell would part them, or the path of a program, which
/// may hold spaces.
fn named(text: &str, environment: &Environment) -> Option<Launcher> {
    let expanded = |word: &str| environment.expand(Path::new(word)).to_string_lossy().into_owned();
    let whole = expanded(text.trim());
    let words = if is_program(Path::new(&whole)) { vec![whole] } else { words(text)? };
    let words: Vec<String> = words.iter().map(|word| expanded(word)).collect();
    (!words.is_empty()).then_some(Launcher::Program(words))
}

/// Words as a POSIX shell parts them: at blanks, but for quotes and backslashes (on Windows a
/// backslash is a part of a path). `None` where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    if cfg!(windows) { shlex::split(&text.replace('\\', r"\\")) } else { shlex::split(text) }
}

/// What the system has, where it can show a browser to whoever runs us.
#[cfg(any(target_os = "macos", windows))]
fn system(environment: &Environment, _: bool) -> Result<Vec<Launcher>, String> {
    if is_ci(environment) {
        return Err(CI.to_owned());
    }
    if is_ssh(environment) {
        return Err("this is an SSH session".to_owned());
    }
    Ok(vec![Launcher::System])
}

/// What the system has, where it can show a browser to whoever runs us.
#[cfg(not(any(target_os = "macos", windows)))]
fn system(environment: &Environment, in_container: bool) -> Result<Vec<Launcher>, String> {
    let display = environment.has("DISPLAY") || environment.has("WAYLAND_DISPLAY");
    if is_ci(environment) {
        return Err(CI.to_owned());
    }
    if is_ssh(environment) && !display {
        return Err("this is an SSH session without a display".to_owned());
    }
    let wsl = environment.has("WSL_DISTRO_NAME") || environment.has("WSL_INTEROP");
    let windows = if wsl { WINDOWS_OPENERS } else { &[] };
    let desktop = if display { DESKTOP_OPENERS } else { &[] };
    let found: Vec<Launcher> = [windows, desktop]
        .concat()
        .iter()
        .filter_map(|words| {
            let (name, arguments) = words.split_first()?;
            let program = on_path(name, environment)?.to_string_lossy().into_owned();
            Some(Launcher::Program([program].into_iter().chain(arguments.iter().map(ToString::to_string)).collect()))
        })
        .collect();
    match (found.is_empty(), display) {
        (false, _) => Ok(found),
        (true, _) if wsl => {
            Err("no program that opens a browser in Windows is on the `PATH`: install `wslu`".to_owned())
        }
        (true, true) => Err("no program that opens a browser is on the `PATH`: install `xdg-utils`".to_owned()),
        (true, false) if in_container => Err("this is a container".to_owned()),
        (true, false) => Err("there is no display: neither `DISPLAY` nor `WAYLAND_DISPLAY` is set".to_owned()),
    }
}

fn is_ci(environment: &Environment) -> bool {
    environment.text("CI").is_some_and(|value| !matches!(value, "0" | "false"))
}

fn is_ssh(environment: &Environment) -> bool {
    environment.has("SSH_CONNECTION") || environment.has("SSH_TTY")
}

fn in_container(environment: &Environment) -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    marked || environment.has("KUBERNETES_SERVICE_HOST")
}

#[cfg(not(any(target_os = "macos", windows)))]
fn on_path(name: &str, environment: &Environment) -> Option<PathBuf> {
    let folders = environment.value("PATH")?;
    std::env::split_paths(folders).map(|folder| folder.join(name)).find(|path| path.is_absolute() && is_program(path))
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    let may_run = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    #[cfg(not(unix))]
    let may_run = true;
    path.is_file() && may_run
}

impl Opener {
    /// Starts the first program that can be started. The address must be a web address: a provider
    /// may have sent it. It stands in the program's arguments, where other users can read it.
    #[expect(clippy::unused_async, reason = "programs can be started only where tokio runs")]
    pub(crate) async fn open(&self, url: &Secret) -> Result<Opened> {
        let url = argument(url).ok_or_else(|| cannot_open().cause("what it is to open is not a web address"))?;
        let mut opened = Opened {
            running: None,
            rest: self.launchers.clone().into_iter(),
            variables: self.variables.clone(),
            reasons: Vec::new(),
        };
        if !opened.start_next(&url) {
            return Err(cannot_open().cause(opened.reasons.join(", ")));
        }
        Ok(opened)
    }
}

/// The address as an argument, if it is a web address.
fn argument(url: &Secret) -> Option<String> {
    let url = Url::parse(url.expose()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    // A quote could end the text that holds it.
    Some(url.as_str().replace('\'', "%27"))
}

fn cannot_open() -> Error {
    Error::new(Kind::Other, "no browser could be started")
}

impl Opened {
    /// Comes to an end only if no browser opened: the program failed, and so did those after it. Then
    /// it says how. One that ends well, or not at all, has done what it can. `next` is the address for
    /// the next program; `None`: a browser has come to it, whatever the program says of itself.
    pub(crate) async fn failed(&mut self, next: impl Fn() -> Option<Secret>) -> String {
        while let Some((program, child)) = &mut self.running {
            let reason = match child.wait().await {
                Ok(status) if status.success() => break,
                Ok(status) => format!("`{program}` failed ({status})"),
                Err(error) => format!("`{program}` cannot be watched: {error}"),
            };
            self.reasons.push(reason);
            let Some(url) = next() else { break };
            if !argument(&url).is_some_and(|url| self.start_next(&url)) {
                return self.reasons.join(", ");
            }
        }
        std::future::pending().await
    }

    /// Starts the next program that can be started, if there is one.
    fn start_next(&mut self, url: &str) -> bool {
        for launcher in self.rest.by_ref() {
            match launcher.start(url, &self.variables) {
                Ok(running) => {
                    self.running = running;
                    return true;
                }
                Err(reason) => self.reasons.push(reason),
            }
        }
        false
    }
}

impl Launcher {
    fn start(&self, url: &str, variables: &Variables) -> Result<Option<(String, Child)>, String> {
        match self {
            Self::Program(words) => {
                let (program, mut command) = command(words, url).ok_or("the command is empty")?;
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                for (name, value) in variables {
                    match value {
                        Some(value) => command.env(name, value),
                        None => command.env_remove(name),
                    };
                }
                // Ctrl-C in the terminal is for us, not for a browser that lives on.
                #[cfg(unix)]
                command.process_group(0);
                let child = command.spawn().map_err(|error| format!("`{program}`: {error}"))?;
                Ok(Some((program, child)))
            }
            #[cfg(any(target_os = "macos", windows))]
            Self::System => webbrowser::open(url).map(|()| None).map_err(|error| error.to_string()),
        }
    }
}

/// The command, with the program's name for messages.
fn command(words: &[String], url: &str) -> Option<(String, Command)> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| argument.replace("%s", url)));
    if !arguments.iter().any(|argument| argument.contains("%s")) {
        command.arg(url);
    }
    Some((program.clone(), command))
}

const OUR_VARIABLES: &str = "KUBECTL_HEADLAMP_";
const LIST_SEPARATOR: char = if cfg!(windows) { ';' } else { ':' };
/// What opens a browser on a desktop: the user's own choice first.
#[cfg(not(any(target_os = "macos", windows)))]
const DESKTOP_OPENERS: &[&[&str]] = &[&["xdg-open"], &["x-www-browser"], &["sensible-browser"]];
/// What opens one in Windows from WSL; the last for those who keep the `PATH` of Windows out of theirs.
#[cfg(not(any(target_os = "macos", windows)))]
const WINDOWS_OPENERS: &[&[&str]] = &[
    &["wslview"],
    &["powershell.exe", "-NoProfile", "-NonInteractive", "-Command", "Start-Process '%s'"],
    &[
        "/mnt/c/Windows/System32/WindowsPowerShell/v1.0/powershell.exe",
        "-NoProfile",
        "-NonInteractive",
        "-Command",
        "Start-Process '%s'",
    ],
];
const GRAPHICAL_BROWSERS: &str =
    "x-www-browser:firefox:firefox-esr:google-chrome:chromium:chromium-browser:epiphany:konqueror";
const CI: &str = "this is a CI job (`CI` is set)";

#[cfg(all(test, target_os = "linux"))]
mod tests;
