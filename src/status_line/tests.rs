#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::TermLike;
use proptest::prelude::*;

use super::*;
use crate::api_connection::test_server::until;

fn serving() -> Serving {
    Serving {
        clusters: vec!["main".into()],
        who: Some("jane@example.com".into()),
        counted: Counted::Requests,
        count: 12,
        live: 5,
        left: Some(SignedDuration::from_mins(45)),
        trouble: None,
    }
}

#[test]
fn the_line_tells_whom_it_serves_how_much_and_until_when() {
    let line = |serving: Serving| Status::Serving(serving).line();
    assert_eq!(line(serving()), "main · jane@example.com · 12 requests · 5 live · credential good for 45 min");
    let several = Serving { clusters: vec!["main".into(), "dev".into()], count: 1, live: 0, ..Serving::default() };
    assert_eq!(line(several.clone()), "main, dev · 1 request · 0 live");
    let forwarded = Serving { counted: Counted::Connections, ..several };
    assert_eq!(line(forwarded), "main, dev · 1 connection · 0 live");
    let trouble = Serving { trouble: Some("sign in again in the browser".into()), left: None, ..serving() };
    assert_eq!(line(trouble), "sign in again in the browser · main · jane@example.com · 12 requests · 5 live");
}

#[test]
fn names_of_others_cannot_reach_the_terminal_raw() {
    let hostile = Serving {
        clusters: vec!["a\u{1b}[2Jb\r\nc".into()],
        who: Some("\u{202e}x\u{7}".into()),
        trouble: Some("\u{9b}31m".into()),
        ..Serving::default()
    };
    assert_eq!(Status::Serving(hostile).line(), "31m · a[2Jb c · x · 0 requests · 0 live");
    assert_eq!(Status::Progress("looking in\u{1b}]0;x\u{7} a".into()).line(), "looking in]0;x a");
}

#[test]
fn what_does_not_fit_is_cut_off() {
    assert_eq!(cut("main · jane", 11), "main · jane");
    assert_eq!(cut("main · jane", 10), "main · ja…");
    assert_eq!(cut("主要集群", 8), "主要集群");
    assert_eq!(cut("主要集群", 7), "主要集…");
    assert_eq!(cut("主要集群", 6), "主要…");
    assert_eq!((cut("ab", 1).as_str(), cut("ab", 0).as_str()), ("…", ""));
}

/// A terminal of one row, and all that was to be read on it, one after the other.
#[derive(Clone, Debug, Default)]
struct Paper(Arc<Mutex<(String, Vec<String>)>>);

impl Paper {
    fn row(&self) -> String {
        self.0.lock().unwrap().0.trim_end().to_owned()
    }

    fn history(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

impl TermLike for Paper {
    fn width(&self) -> u16 {
        40
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().0.push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.lock().unwrap().0.clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let (row, history) = &mut *self.0.lock().unwrap();
        if history.last() != Some(row) && !row.is_empty() {
            history.push(row.clone());
        }
        Ok(())
    }
}

fn on(paper: &Paper) -> StatusLine {
    let paper = paper.clone();
    let target = move || ProgressDrawTarget::term_like(Box::new(paper.clone()));
    StatusLine::on(Place::Row { target: Box::new(target), columns: Box::new(|| 40) }, Ui::new())
}

#[tokio::test]
async fn it_is_redrawn_in_place_and_cut_to_the_terminal() {
    let paper = Paper::default();
    let line = on(&paper);
    line.show(Status::Progress("looking for Headlamp".into()));
    until("it is shown", || paper.row().ends_with("looking for Headlamp")).await;
    line.show(Status::Serving(serving()));
    until("it is replaced", || paper.row() == "main · jane@example.com · 12 requests…").await;
    drop(line);
    assert_eq!(paper.row(), "");
}

#[tokio::test]
async fn many_changes_are_few_redraws_and_the_last_one_is_shown() {
    let paper = Paper::default();
    let line = on(&paper);
    let began = tokio::time::Instant::now();
    for count in 0..=1_000 {
        line.show(Status::Serving(Serving { count, ..Serving::default() }));
        tokio::time::sleep(Duration::from_millis(u64::from(count % 10 == 0))).await;
    }
    until("the last one", || paper.row() == "1000 requests · 0 live").await;
    let pauses = began.elapsed().as_millis() / PAUSE.as_millis() + 2;
    assert!(paper.history().len() as u128 <= pauses, "{:?} in {pauses} pauses", paper.history());
}

#[tokio::test]
async fn it_leaves_the_terminal_to_others_and_comes_back() {
    let paper = Paper::default();
    let line = on(&paper);
    let step_aside = line.step_aside();
    line.show(Status::Serving(serving()));
    until("it is shown", || !paper.row().is_empty()).await;
    let guards = [step_aside(), step_aside()];
    assert_eq!(paper.row(), "");
    let history = paper.history();
    line.show(Status::Serving(Serving { who: None, ..serving() }));
    until("the change is seen", || {
        let shown = line.row.shown.lock().unwrap();
        matches!(&shown.status, Some(Status::Serving(serving)) if serving.who.is_none())
    })
    .await;
    let [one, other] = guards;
    drop(one);
    assert_eq!((paper.row().as_str(), paper.history()), ("", history));
    drop(other);
    assert!(paper.row().starts_with("main · 12 requests"), "{}", paper.row());
}

#[tokio::test]
async fn what_is_written_meanwhile_goes_above() {
    let paper = Paper::default();
    let line = on(&paper);
    line.show(Status::Serving(serving()));
    until("it is shown", || !paper.row().is_empty()).await;
    let bar = line.row.shown.lock().unwrap().bar.clone().unwrap();
    let seen = AtomicUsize::new(0);
    bar.suspend(|| seen.store(1 + paper.row().len(), Ordering::SeqCst));
    assert_eq!(seen.load(Ordering::SeqCst), 1, "the row is empty while a line is written");
    assert!(paper.row().starts_with("main"));
}

#[tokio::test]
async fn a_file_gets_a_line_when_something_lasting_changes() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let file = written.clone();
    let line =
        StatusLine::on(Place::Lines(Box::new(move |line| file.lock().unwrap().push(line.to_owned()))), Ui::new());
    let shows = |status: Status| {
        line.show(status.clone());
        let row = line.row.clone();
        async move { until("it is seen", || row.shown.lock().unwrap().status.as_ref() == Some(&status)).await }
    };
    shows(Status::Progress("looking for Headlamp".into())).await;
    shows(Status::Serving(serving())).await;
    shows(Status::Serving(Serving { count: 13, live: 0, left: None, ..serving() })).await;
    let aside = line.step_aside()();
    shows(Status::Serving(Serving { trouble: Some("sign in again".into()), ..serving() })).await;
    assert_eq!(*written.lock().unwrap(), ["looking for Headlamp", "main · jane@example.com"]);
    drop(aside);
    assert_eq!(written.lock().unwrap().last().unwrap(), "sign in again · main · jane@example.com");
}

#[tokio::test]
async fn it_starts_wherever_stderr_leads() {
    let line = StatusLine::start(Ui::new());
    line.show(Status::Progress("a test of the status line".into()));
    until("it is shown", || line.row.shown.lock().unwrap().status.is_some()).await;
    assert_eq!(matches!(line.row.place, Place::Row { .. }), Ui::new().stderr_is_terminal());
}

proptest! {
    #[test]
    fn no_line_is_wider_than_its_terminal(text in any::<String>(), columns in 0..100_usize) {
        let wide = |character: char| if character < '\u{1100}' || "…·".contains(character) { 1 } else { 2 };
        prop_assert!(cut(&printable(&text), columns).chars().map(wide).sum::<usize>() <= columns);
    }
}
