//! `open` on a terminal: what it asks, and the line that it keeps at the end of the screen.

use std::fs;
use std::time::Duration;

use headlamp_test_support::api_server::exec_entry;
use headlamp_test_support::{Cluster, HeadlampInstall, StandIn, StandInOptions, Terminal, wait_until, with_token_file};
use serde_json::json;

use crate::open_desk::{DEADLINE, Desk, PODS, Tab};

/// `open` on a terminal that lines can be erased on.
fn on_terminal<'a, const N: usize>(desk: &'a Desk, arguments: [&str; N]) -> Terminal<'a> {
    desk.open(arguments).env("TERM", "xterm").terminal()
}

/// Waits for the address that it prints.
fn address(terminal: &Terminal<'_>) -> String {
    wait_until(DEADLINE, "an address", || terminal.stdout().ends_with('\n'));
    terminal.stdout().trim_end().to_owned()
}

/// Ctrl-C, and its end.
#[track_caller]
fn interrupted(terminal: Terminal<'_>) {
    terminal.send_interrupt();
    let output = terminal.wait();
    assert_eq!(output.code, 130, "{output}");
}

/// A cluster with two Headlamps, of which neither is meant more than the other.
fn with_two() -> (Desk, StandIn) {
    let desk = Desk::taken();
    let second = StandIn::start(StandInOptions::default());
    let install = HeadlampInstall { release: "second".to_owned(), ..HeadlampInstall::default() };
    desk.cluster.install_headlamp("kube-system", &install, ([127, 0, 0, 1], second.port()).into());
    (desk, second)
}

#[test]
fn of_several_headlamps_a_person_chooses_one_which_is_remembered() {
    let (desk, second) = with_two();
    let mut terminal = on_terminal(&desk, []);
    let question = terminal.expect("Which one? [1-2]");
    for line in ["  1  headlamp/headlamp, version", "  2  kube-system/second, version", "acts in the cluster as you"] {
        assert!(question.contains(line), "{question}");
    }
    // What is no answer is asked again.
    for answer in ["3", "0", "second", "-1"] {
        terminal.send_line(answer);
        terminal.expect("Which one? [1-2]");
    }
    terminal.send_line(" 2 ");
    assert_eq!(Tab::at(&address(&terminal)).go("/").status, 200);
    assert!(!second.requests().is_empty() && desk.headlamp.requests().is_empty());
    interrupted(terminal);
    let terminal = on_terminal(&desk, []);
    address(&terminal);
    assert!(!terminal.screen().contains("Which one?"), "{}", terminal.screen());
    interrupted(terminal);
}

#[test]
fn a_question_that_gets_no_answer_opens_nothing() {
    let (desk, _second) = with_two();
    let mut terminal = on_terminal(&desk, []);
    terminal.expect("Which one? [1-2]");
    terminal.send_line("");
    let output = terminal.wait();
    assert!(output.code == 1 && output.stderr.contains("nothing was opened"), "{output}");
    let mut terminal = on_terminal(&desk, []);
    terminal.expect("Which one? [1-2]");
    interrupted(terminal);

    let desk = Desk::at(Cluster::start(|_| None), StandInOptions::default());
    desk.install("team", &HeadlampInstall::default());
    let mut terminal = on_terminal(&desk, []);
    terminal.expect("Open it? [y/N]");
    terminal.send_line("what");
    terminal.expect("Open it? [y/N]");
    terminal.send("y");
    interrupted(terminal);
    assert!(desk.headlamp.requests().is_empty());
    assert!(desk.open([]).run().stderr.contains("is not opened unasked"), "nothing was remembered");
}

#[test]
fn the_line_at_the_end_tells_how_it_goes_and_everything_else_is_written_above_it() {
    let desk = Desk::taken();
    let (first, second) = (desk.token("jane", &[]), desk.token("jane", &[]));
    let file = desk.sandbox.write("token", &first);
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&with_token_file(&file)));
    let terminal = on_terminal(&desk, ["-v"]);
    let tab = Tab::at(&address(&terminal));
    let last = |start: &str| {
        let what = format!("`{start}` at the end");
        wait_until(DEADLINE, &what, || terminal.rows().last().is_some_and(|row| row.starts_with(start)));
    };
    for _ in 0..3 {
        assert_eq!(tab.get(PODS).status, 200);
    }
    last("dev · jane · 3 requests · 0 live");
    let watch = tab.socket(&format!("{PODS}?watch=true"));
    last("dev · jane · 4 requests · 1 live");
    drop(watch);
    last("dev · jane · 4 requests · 0 live");
    // A refused credential is told of above the line, and in it for as long as that is so.
    desk.sandbox.write("token", &second);
    desk.cluster.refuse_token(&first, usize::MAX);
    fs::remove_file(&file).unwrap();
    assert_eq!(tab.get(PODS).status, 502);
    last("the cluster refuses the credential · dev · jane · ");
    desk.sandbox.write("token", &second);
    wait_until(DEADLINE, "the page to go on", || tab.get(PODS).status == 200);
    let notes = ["kubectl-headlamp: note: the page waits for", "kubectl-headlamp: note: signed in again"];
    let count = |rows: &[String], note: &str| rows.iter().filter(|row| row.starts_with(note)).count();
    wait_until(DEADLINE, "the line below both notes", || {
        let rows = terminal.rows();
        let last = rows.last().is_some_and(|row| row.starts_with("dev · jane · "));
        last && notes.iter().all(|note| count(&rows, note) > 0)
    });
    let rows = terminal.rows();
    let (_, above) = rows.split_last().unwrap();
    for note in notes {
        assert_eq!(count(above, note), 1, "{note}: {rows:#?}");
    }
    // Nothing of the line is left between the others.
    assert!(!above.iter().any(|row| row.contains("live") || row.contains("looking")), "{rows:#?}");
    interrupted(terminal);
}

#[test]
fn it_is_gone_when_the_command_has_ended() {
    let desk = Desk::taken();
    let terminal = on_terminal(&desk, []);
    address(&terminal);
    wait_until(DEADLINE, "the line", || terminal.screen().contains("0 live"));
    terminal.send_interrupt();
    wait_until(DEADLINE, "the end", || terminal.screen().contains("interrupted"));
    let rows = terminal.rows();
    assert!(!rows.iter().any(|row| row.contains("live")), "{rows:#?}");
    assert_eq!(terminal.wait().code, 130);
}

#[test]
fn another_exec_plugin_that_asks_for_a_person_gets_the_terminal() {
    let desk = Desk::taken();
    let tokens = [desk.token("paula", &[]), desk.token("paula", &[])];
    for (code, token) in ["one", "two"].iter().zip(&tokens) {
        let status = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
        let answer =
            json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": status});
        desk.sandbox.write(format!("answer-{code}"), answer.to_string());
    }
    let script = format!("printf 'Code? ' >&2\nread code\n/bin/cat '{}'-$code", desk.sandbox.path("answer").display());
    let plugin = desk.sandbox.write_program("asking-plugin", &script);
    let user = json!({"exec": exec_entry(&plugin.display().to_string(), &[])});
    desk.sandbox.write_kubeconfig(&desk.cluster.kubeconfig(&user));
    let mut terminal = on_terminal(&desk, []);
    // While it waits nothing is drawn over its question; the line would be, four times a second.
    let asked = |terminal: &mut Terminal<'_>| {
        terminal.expect("Code? ");
        let before = terminal.screen();
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(terminal.screen(), before);
        assert_eq!(terminal.rows().last().unwrap(), "Code? ");
    };
    asked(&mut terminal);
    interrupted(terminal);
    let mut terminal = on_terminal(&desk, []);
    asked(&mut terminal);
    terminal.send_line("one");
    let tab = Tab::at(&address(&terminal));
    assert_eq!(tab.get(PODS).status, 200);
    let drawn = |terminal: &Terminal<'_>| {
        let line = || terminal.rows().last().is_some_and(|row| row.starts_with("dev · paula · "));
        wait_until(DEADLINE, "the line", line);
    };
    drawn(&terminal);
    // And once more while the page is open.
    desk.cluster.refuse_token(&tokens[0], usize::MAX);
    let waiting = std::thread::spawn({
        let tab = tab.clone();
        move || tab.get(PODS).status
    });
    asked(&mut terminal);
    terminal.send_line("two");
    wait_until(DEADLINE, "the page to go on", || tab.get(PODS).status == 200);
    let _ = waiting.join().unwrap();
    drawn(&terminal);
    interrupted(terminal);
}
