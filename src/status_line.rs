//! The one line that tells what `open` is doing: on a terminal the last row of stderr, redrawn in
//! place; elsewhere a line of its own whenever something changes that a reader of logs wants to know.
//!
//! Whatever else is written to stderr through [`Ui`] goes above it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::in_words;
use crate::error::printable;
use crate::terminal;
use crate::ui::{StepAside, Ui};

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// What is waited for: `looking for Headlamp`.
    Progress(String),
    Serving(Serving),
}

/// How it goes with the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) clusters: Vec<String>,
    pub(crate) who: Option<String>,
    pub(crate) counted: Counted,
    /// How many of them there were.
    pub(crate) count: u64,
    /// Streams that stay open: watches, logs, shells.
    pub(crate) live: usize,
    /// How long the credential still lasts: clear in any time zone.
    pub(crate) left: Option<SignedDuration>,
    /// What is not as it should be: `sign in again in the browser`.
    pub(crate) trouble: Option<String>,
}

/// What a browser makes many of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Counted {
    #[default]
    Requests,
    Connections,
}

impl Status {
    /// All of it, on one line.
    fn line(&self) -> String {
        match self {
            Self::Progress(text) => printable(text),
            Self::Serving(serving) => {
                let one = match serving.counted {
                    Counted::Requests => "request",
                    Counted::Connections => "connection",
                };
                let plural = if serving.count == 1 { "" } else { "s" };
                let end = serving.left.map(|left| format!("credential good for {}", in_words(left)));
                let counts = [format!("{} {one}{plural}", serving.count), format!("{} live", serving.live)];
                joined(serving.lasting().into_iter().chain(counts).chain(end))
            }
        }
    }

    /// What does not change all the time.
    fn lasting(&self) -> String {
        match self {
            Self::Progress(text) => printable(text),
            Self::Serving(serving) => joined(serving.lasting()),
        }
    }
}

impl Serving {
    /// The most important first: the end is cut off on a narrow terminal.
    fn lasting(&self) -> Vec<String> {
        let clusters = Some(self.clusters.join(", ")).filter(|clusters| !clusters.is_empty());
        [self.trouble.clone(), clusters, self.who.clone()].into_iter().flatten().collect()
    }
}

fn joined(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().map(|part| printable(&part)).collect::<Vec<_>>().join(" · ")
}

/// The text in no more columns than these. A character of which it is not sure that it is narrow
/// counts as wide: a line that wraps could not be taken back.
fn cut(text: &str, columns: usize) -> String {
    let width = |character: char| if character < '\u{1100}' || "…·".contains(character) { 1 } else { 2 };
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fitting = text.chars().take_while(|character| {
        let fits = width(*character) <= left;
        left = left.saturating_sub(width(*character));
        fits
    });
    let fitting: String = fitting.collect();
    format!("{}{}", fitting.trim_end_matches([' ', '·']), if columns > 0 { "…" } else { "" })
}

/// The line, for as long as this lives.
pub(crate) struct StatusLine {
    wanted: watch::Sender<Option<Status>>,
    row: Arc<Row>,
    drawing: JoinHandle<()>,
}

impl StatusLine {
    /// Nothing is shown yet.
    pub(crate) fn start(ui: Ui) -> Self {
        let place = if ui.stderr_is_terminal() {
            let columns = Box::new(|| terminal::columns().unwrap_or(80));
            Place::Row { target: Box::new(ProgressDrawTarget::stderr), columns }
        } else {
            Place::Lines(Box::new(move |line| ui.say(line)))
        };
        Self::on(place, ui)
    }

    fn on(place: Place, ui: Ui) -> Self {
        let (wanted, mut changes) = watch::channel(None::<Status>);
        let row = Arc::new(Row { place, ui, shown: Mutex::default() });
        let drawn = row.clone();
        let drawing = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let status = changes.borrow_and_update().clone();
                drawn.show(status);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { wanted, row, drawing }
    }

    /// Shows this instead, soon: no more often than a person can read.
    pub(crate) fn show(&self, status: Status) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&status);
            *wanted = Some(status);
            changed
        });
    }

    /// Leaves the terminal to another program.
    pub(crate) fn step_aside(&self) -> StepAside {
        let row = self.row.clone();
        Arc::new(move || Box::new(Aside::of(row.clone())))
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.drawing.abort();
        self.row.show(None);
    }
}

/// The row is not drawn while one of these lives.
struct Aside(Arc<Row>);

impl Aside {
    fn of(row: Arc<Row>) -> Self {
        row.change(|shown| shown.aside += 1);
        Self(row)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.change(|shown| shown.aside -= 1);
    }
}

/// Where there is something to be read.
enum Place {
    /// A terminal's last row, and how wide it is just now.
    Row { target: Box<dyn Fn() -> ProgressDrawTarget + Send + Sync>, columns: Box<dyn Fn() -> usize + Send + Sync> },
    /// A file or a pipe.
    Lines(Box<dyn Fn(&str) + Send + Sync>),
}

struct Row {
    place: Place,
    ui: Ui,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    status: Option<Status>,
    /// How many have the terminal instead.
    aside: usize,
    bar: Option<ProgressBar>,
    /// The last line that was written where there is no row.
    written: String,
}

impl Row {
    fn show(&self, status: Option<Status>) {
        self.change(|shown| shown.status = status);
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut shown);
        match &self.place {
            Place::Row { target, columns } => self.draw(target, columns(), shown),
            Place::Lines(write) => write_changed(write, shown),
        }
    }

    fn draw(&self, target: &dyn Fn() -> ProgressDrawTarget, columns: usize, mut shown: MutexGuard<'_, Shown>) {
        let Some(status) = shown.status.clone().filter(|_| shown.aside == 0) else {
            if let Some(bar) = shown.bar.take() {
                self.ui.keep_last_row(None);
                bar.finish_and_clear();
            }
            return;
        };
        let bar = shown.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, target());
            self.ui.keep_last_row(Some(bar.clone()));
            bar
        });
        let waits = matches!(status, Status::Progress(_));
        let (template, taken) = if waits { ("{spinner} {msg}", 2) } else { ("{msg}", 0) };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        // The last column stays free: some terminals wrap when it is written to.
        bar.set_message(cut(&status.line(), columns.saturating_sub(taken + 1)));
        if waits {
            bar.enable_steady_tick(PAUSE);
        } else {
            bar.disable_steady_tick();
        }
        bar.force_draw();
    }
}

fn write_changed(write: &dyn Fn(&str), mut shown: MutexGuard<'_, Shown>) {
    let Some(line) = shown.status.as_ref().map(Status::lasting) else { return };
    if shown.aside == 0 && !line.is_empty() && line != shown.written {
        write(&line);
        shown.written = line;
    }
}

/// Between two changes of the line.
const PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
