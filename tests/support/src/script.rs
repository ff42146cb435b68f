//! Answers that a test puts in the place of the usual ones, and gates that hold an answer back.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Reply, Response, Stop, lock};

/// What one request gets.
#[derive(Clone, Debug)]
pub struct Answer {
    what: What,
    delay: Duration,
    gate: Option<Gate>,
    drip: Option<(usize, Duration)>,
}

#[derive(Clone, Debug)]
enum What {
    Usual,
    Fixed(Response),
    Endless(Response),
    /// The request is acted on, and nobody hears of it.
    Lost,
    Close,
    Reset,
}

impl Answer {
    /// The usual answer; with a delay or a gate, a slow one.
    pub fn usual() -> Self {
        Self::with(What::Usual)
    }

    /// This answer.
    pub fn of(response: Response) -> Self {
        Self::with(What::Fixed(response))
    }

    /// This status and JSON.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::of(Response::json(status, value))
    }

    /// An OAuth error (RFC 6749 §5.2) with status 400.
    pub fn error(error: &str, description: &str) -> Self {
        Self::json(400, &json!({"error": error, "error_description": description}))
    }

    /// Bytes without an end: this answer's body, repeated.
    pub fn endless(response: Response) -> Self {
        Self::with(What::Endless(response))
    }

    /// The request is acted on, but the connection is reset before the answer.
    pub fn lost() -> Self {
        Self::with(What::Lost)
    }

    /// The connection is closed without an answer.
    pub fn close() -> Self {
        Self::with(What::Close)
    }

    /// The connection is reset without an answer.
    pub fn reset() -> Self {
        Self::with(What::Reset)
    }

    /// The same, so much later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, once the gate is open. The request is acted on only then.
    #[must_use]
    pub fn held_by(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// The same in pieces of `size` bytes, with a pause before each.
    #[must_use]
    pub fn dripped(self, size: usize, pause: Duration) -> Self {
        Self { drip: Some((size, pause)), ..self }
    }

    fn with(what: What) -> Self {
        Self { what, delay: Duration::ZERO, gate: None, drip: None }
    }

    pub(crate) fn play(self, stop: &Stop, usual: impl FnOnce() -> Response) -> Reply {
        stop.wait(self.delay);
        if let Some(gate) = &self.gate {
            gate.wait(stop);
        }
        let response = match self.what {
            What::Usual => usual(),
            What::Fixed(response) => response,
            What::Endless(response) => return Reply::Endless(response),
            What::Lost => {
                usual();
                return Reply::Reset;
            }
            What::Close => return Reply::Close,
            What::Reset => return Reply::Reset,
        };
        match self.drip {
            Some((size, pause)) => Reply::Dripped(response, size, pause),
            None => Reply::Whole(response),
        }
    }
}

/// The answers that wait for their requests, a queue for each endpoint.
pub(crate) struct Scripts<K>(Mutex<HashMap<K, VecDeque<Answer>>>);

impl<K> Default for Scripts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Scripts<K> {
    pub(crate) fn add(&self, endpoint: K, answer: Answer) {
        lock(&self.0).entry(endpoint).or_default().push_back(answer);
    }

    /// The next answer, or the usual one.
    pub(crate) fn next(&self, endpoint: &K) -> Answer {
        lock(&self.0).get_mut(endpoint).and_then(VecDeque::pop_front).unwrap_or_else(Answer::usual)
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// Holds answers back until it is opened. Clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all through, now and later.
    pub fn open(&self) {
        lock(&self.0.0).open = true;
        self.0.1.notify_all();
    }

    /// How many requests have come to it.
    pub fn arrived(&self) -> usize {
        lock(&self.0.0).arrived
    }

    /// Waits until so many requests have come to it.
    pub fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + ARRIVAL_DEADLINE;
        let mut state = lock(&self.0.0);
        while state.arrived < count {
            assert!(Instant::now() < deadline, "only {} of {count} requests came to the gate", state.arrived);
            state =
                self.0.1.wait_timeout(state, GLANCE).map_or_else(|broken| broken.into_inner().0, |(guard, _)| guard);
        }
    }

    /// Waits until it is open, without holding up the thread.
    pub(crate) async fn pass(&self) {
        lock(&self.0.0).arrived += 1;
        self.0.1.notify_all();
        while !lock(&self.0.0).open {
            tokio::time::sleep(GLANCE / 4).await;
        }
    }

    fn wait(&self, stop: &Stop) {
        let mut state = lock(&self.0.0);
        state.arrived += 1;
        self.0.1.notify_all();
        while !state.open && !stop.is_set() {
            state =
                self.0.1.wait_timeout(state, GLANCE).map_or_else(|broken| broken.into_inner().0, |(guard, _)| guard);
        }
    }
}

const ARRIVAL_DEADLINE: Duration = Duration::from_secs(30);
/// How often a wait looks up to see whether it is over for another reason.
const GLANCE: Duration = Duration::from_millis(20);
