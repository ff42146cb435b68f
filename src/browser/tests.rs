#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::commands::block_on;

fn settings(command: Option<&str>) -> BrowserSettings {
    BrowserSettings { command: command.map(str::to_owned), never: false, hide_url: false }
}

/// A folder of programs that do nothing.
fn programs(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in names {
        script(&folder, name, "exit 0");
    }
    folder
}

/// A command that runs this script. The file itself is not run: a process that another test starts
/// just now may still have it open for writing.
fn script(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("/bin/sh {}", path.display())
}

/// What is found: the programs' names and arguments, or why there are none.
fn found(command: Option<&str>, path: &TempDir, variables: &[(&str, &str)], in_container: bool) -> String {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = Environment::from([("PATH", path.path().to_str().unwrap()), ("HOME", "/home/jane")])
        .overlaid(variables.iter().map(own));
    match launchers(&settings(command), Interactive::Auto, &environment, in_container) {
        Ok(launchers) => {
            let lines: Vec<String> = launchers.iter().map(|Launcher::Program(words)| words.join("|")).collect();
            lines.join(" then ").replace(&format!("{}/", path.path().display()), "")
        }
        Err(reason) => format!("no: {reason}"),
    }
}

#[test]
fn the_environment_decides_what_opens() {
    let all = programs(&["xdg-open", "x-www-browser", "sensible-browser", "wslview", "lynx", "www-browser"]);
    let none = programs(&["lynx", "w3m", "www-browser"]);
    let x11 = ("DISPLAY", ":0");
    let wayland = ("WAYLAND_DISPLAY", "wayland-0");
    let desktop = "xdg-open then x-www-browser then sensible-browser";
    let check = |variables: &[(&str, &str)], expected: &str| {
        assert_eq!(found(None, &all, variables, false), expected, "{variables:?}");
    };
    check(&[x11], desktop);
    check(&[wayland], desktop);
    check(&[("SSH_CONNECTION", "a"), x11], desktop);
    check(&[("CI", "false"), x11], desktop);
    check(&[], "no: there is no display: neither `DISPLAY` nor `WAYLAND_DISPLAY` is set");
    check(&[("DISPLAY", "")], "no: there is no display: neither `DISPLAY` nor `WAYLAND_DISPLAY` is set");
    check(&[("SSH_CONNECTION", "a")], "no: this is an SSH session without a display");
    check(&[("SSH_TTY", "/dev/pts/1")], "no: this is an SSH session without a display");
    check(&[("CI", "true"), x11], "no: this is a CI job (`CI` is set)");
    check(&[("WSL_DISTRO_NAME", "Debian")], "wslview");
    check(&[("WSL_INTEROP", "/run/a"), x11], &format!("wslview then {desktop}"));
    assert_eq!(
        found(None, &none, &[x11], false),
        "no: no program that opens a browser is on the `PATH`: install `xdg-utils`"
    );
    assert_eq!(
        found(None, &none, &[("WSL_INTEROP", "a")], false),
        "no: no program that opens a browser in Windows is on the `PATH`: install `wslu`"
    );
    assert_eq!(found(None, &all, &[], true), "no: this is a container");
    assert_eq!(found(None, &all, &[x11], true), desktop, "a container of the desktop's own");
}

#[test]
fn what_the_user_names_is_used_wherever_it_is() {
    let none = programs(&[]);
    let ci = ("CI", "true");
    let ssh = ("SSH_TTY", "/dev/pts/1");
    assert_eq!(
        found(Some("~/bin/open --new 'a b'"), &none, &[ci, ssh, ("BROWSER", "x")], true),
        "/home/jane/bin/open|--new|a b"
    );
    assert_eq!(
        found(None, &none, &[ci, ssh, ("BROWSER", "firefox -P work:lynx %s")], true),
        "firefox|-P|work then lynx|%s"
    );
    assert_eq!(found(None, &none, &[("BROWSER", ":")], false), "no: `BROWSER` is not a command");
    assert_eq!(found(Some("it's"), &none, &[("DISPLAY", ":0")], false), "no: `--browser-command` is not a command");
    assert_eq!(found(Some(" "), &none, &[("DISPLAY", ":0")], false), "no: `--browser-command` is not a command");
}

#[test]
fn a_program_in_a_path_with_spaces_needs_no_quotes() {
    let folder = programs(&["My Browser"]);
    let path = folder.path().join("My Browser").to_str().unwrap().to_owned();
    assert_eq!(found(Some(&path), &folder, &[], false), "My Browser");
    assert_eq!(found(None, &folder, &[("BROWSER", &path)], false), "My Browser");
}

#[test]
fn who_wants_no_browser_gets_none() {
    let environment = Environment::from([("BROWSER", "firefox"), ("DISPLAY", ":0")]);
    let never = BrowserSettings { never: true, ..settings(Some("firefox")) };
    assert_eq!(find(&never, Interactive::Auto, &environment).err().as_deref(), Some("`--no-browser` is set"));
    assert_eq!(
        find(&settings(None), Interactive::Never, &environment).err().as_deref(),
        Some("`--interactive=never` is set")
    );
}

const START: &str = "http://localhost:8000/start/0123456789abcdef";

fn opener(browser: &str) -> Opener {
    find(&settings(None), Interactive::Auto, &Environment::from([("BROWSER", browser)])).unwrap()
}

/// How opening ends: with words if it failed; `None` if it was still waiting when something was true.
fn outcome(opener: &Opener, url: &str, until: impl Fn() -> bool) -> Result<Option<String>> {
    block_on(async {
        let mut browser = opener.open(&Secret::new(url)).await?;
        let done = async {
            while !until() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = async {
            tokio::select! {
                reason = browser.failed(|| Some(Secret::new(url))) => Some(reason),
                () = done => None,
            }
        };
        Ok(tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap())
    })
}

#[test]
fn a_program_that_fails_is_noticed_at_once() {
    let folder = TempDir::new().unwrap();
    let failing = script(&folder, "failing", "exit 3");
    let killed = script(&folder, "killed", "kill -9 $$");
    let outcome = |program: &str| outcome(&opener(program), START, || false).unwrap().unwrap();
    assert_eq!(outcome(&failing), "`/bin/sh` failed (exit status: 3)");
    assert_eq!(outcome(&killed), "`/bin/sh` failed (signal: 9 (SIGKILL))");
}

#[test]
fn the_next_of_a_list_is_tried_and_all_that_failed_are_told_of() {
    let folder = TempDir::new().unwrap();
    let mark = folder.path().join("mark");
    let failing = script(&folder, "failing", "exit 1");
    let good = script(&folder, "good", &format!("echo \"$1\" > {0}.part; mv {0}.part {0}", mark.display()));
    let list = format!("/nowhere/browser:{failing}:{good}");
    assert_eq!(outcome(&opener(&list), START, || mark.exists()).unwrap(), None);
    assert_eq!(fs::read_to_string(&mark).unwrap().trim(), START);
    let list = format!("{failing}:/nowhere/browser");
    let told = "`/bin/sh` failed (exit status: 1), `/nowhere/browser`: No such file or directory (os error 2)";
    assert_eq!(outcome(&opener(&list), START, || false).unwrap().as_deref(), Some(told));
}

#[test]
fn the_next_of_a_list_gets_an_address_of_its_own_and_none_after_a_browser_has_come() {
    let folder = TempDir::new().unwrap();
    let mark = folder.path().join("mark");
    let log = |code: u8| format!("echo \"$1\" >> '{}'; exit {code}", mark.display());
    let list =
        [script(&folder, "first", &log(3)), script(&folder, "second", &log(3)), script(&folder, "third", &log(3))];
    let opened = |comes: usize| {
        let _ = fs::remove_file(&mark);
        let given = std::cell::Cell::new(1);
        let next = || {
            given.set(given.get() + 1);
            (given.get() <= comes).then(|| Secret::new(format!("{START}{}", given.get())))
        };
        let opener = opener(&list.join(":"));
        let ended = block_on(async {
            let mut browser = opener.open(&Secret::new(format!("{START}1"))).await?;
            let nothing_more = async {
                while given.get() <= comes {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                reason = browser.failed(next) => Ok(Some(reason)),
                () = nothing_more => Ok(None),
            }
        });
        let seen = fs::read_to_string(&mark).unwrap().replace(START, "");
        (seen, ended.unwrap().is_some())
    };
    assert_eq!(opened(9), ("1\n2\n3\n".to_owned(), true));
    assert_eq!(opened(1), ("1\n".to_owned(), false));
    assert_eq!(opened(2), ("1\n2\n".to_owned(), false));
}

#[test]
fn a_program_that_is_not_there_is_an_error_with_its_name() {
    let error = outcome(&opener("/nowhere/browser --new"), START, || false).unwrap_err();
    assert_eq!(error.message(), "no browser could be started");
    assert_eq!(error.causes(), ["`/nowhere/browser`: No such file or directory (os error 2)"]);
}

#[test]
fn only_web_addresses_are_opened() {
    for url in ["file:///etc/passwd", "javascript:alert(1)", "--help", "", "ms-settings:x"] {
        let error = outcome(&opener("/bin/true"), url, || false).unwrap_err();
        assert_eq!(error.causes(), ["what it is to open is not a web address"]);
    }
}

/// A browser says what it sees of us: its streams, its process group, its environment.
#[test]
fn a_browser_has_nothing_of_ours_and_is_not_waited_for() {
    let folder = TempDir::new().unwrap();
    let seen = folder.path().join("seen");
    let report = format!(
        "exec 3> '{0}.part'
        for fd in 0 1 2; do at=$(readlink /proc/$$/fd/$fd); echo \"$at\" >&3; done
        cut -d' ' -f5 /proc/$$/stat >&3
        echo $$ >&3
        printf '%s\\n' \"$@\" >&3
        env >&3
        echo this would spoil the answer
        mv '{0}.part' '{0}'
        while test -e '{0}'; do sleep 0.01; done",
        seen.display(),
    );
    let program = script(&folder, "browser", &report);
    let environment =
        Environment::from([("KUBECTL_HEADLAMP_CLIENT_SECRET", "s"), ("KUBECTL_HEADLAMP_NEW", "s"), ("DISPLAY", ":0")]);
    let opener = find(&settings(Some(&format!("{program} --at=%s --new"))), Interactive::Auto, &environment).unwrap();
    let hidden: Vec<&str> =
        opener.variables.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(hidden, ["KUBECTL_HEADLAMP_CLIENT_SECRET", "KUBECTL_HEADLAMP_NEW", "KUBERNETES_EXEC_INFO"]);
    // It hangs, and nobody waits: `outcome` returns while it runs.
    assert_eq!(outcome(&opener, START, || seen.exists()).unwrap(), None);
    let report = fs::read_to_string(&seen).unwrap();
    let lines: Vec<&str> = report.lines().collect();
    let [stdin, stdout, stderr, group, pid, first, second, ..] = lines.as_slice() else { panic!("{report}") };
    assert_eq!([*stdin, *stdout, *stderr], ["/dev/null"; 3]);
    assert_eq!(group, pid);
    assert_eq!([*first, *second], [format!("--at={START}").as_str(), "--new"]);
    assert!(lines.contains(&format!("BROWSER={GRAPHICAL_BROWSERS}").as_str()), "{report}");
}

proptest! {
    #[test]
    fn quoted_words_come_back_as_they_were(wanted in prop::collection::vec("[^\\x00]{0,20}", 1..6)) {
        let text = shlex::try_join(wanted.iter().map(String::as_str)).unwrap();
        prop_assert_eq!(words(&text), Some(wanted));
    }

    #[test]
    fn any_text_is_words_or_none(text in "\\PC{0,60}") {
        if let Some(words) = words(&text) {
            prop_assert!(words.len() <= text.len());
        }
    }
}
