#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use http::StatusCode;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::Error;

const PACE: Pace = Pace {
    pauses: (Duration::from_millis(1), Duration::from_millis(5)),
    inventory_after: Duration::from_millis(2),
    start: Duration::from_secs(20),
    patience: Duration::from_secs(20),
    refusals: DEADLINE,
    lifetime: Duration::from_secs(60),
};
const DEADLINE: Duration = Duration::from_secs(60);

type TestBody = UnsyncBoxBody<Bytes, io::Error>;
type Chunk = io::Result<Frame<Bytes>>;

/// An API server of one collection, with a history that can be compacted.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<String, Value>,
    snapshots: BTreeMap<u64, BTreeMap<String, Value>>,
    history: Vec<(u64, String)>,
    streams: Vec<mpsc::UnboundedSender<Chunk>>,
    faults: VecDeque<Fault>,
    asked: Vec<Ask>,
    /// The page's own version was listed; a real server remembers it for minutes.
    exact_listed: bool,
    refuses_exact: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// None: this request is answered.
    Fine,
    Status(u16),
    Unreachable,
    /// No answer ever.
    Silence,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn with(names: &[&str]) -> Self {
        let server = Self::default();
        for name in names {
            server.put(name, "first");
        }
        server
    }

    /// Creates the object, or changes it.
    fn put(&self, name: &str, value: &str) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        let known = state.objects.get(name).cloned();
        let uid = known.as_ref().map_or_else(
            || format!("{name}-{revision}"),
            |known| known["metadata"]["uid"].as_str().unwrap().to_owned(),
        );
        let object = json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "a", "uid": uid, "resourceVersion": revision.to_string()},
            "spec": {"value": value},
        });
        state.objects.insert(name.to_owned(), object.clone());
        state.record(if known.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    fn delete(&self, name: &str) {
        let mut state = self.state();
        let Some(mut object) = state.objects.remove(name) else { return };
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.record("DELETED", &object);
    }

    /// Something else in the cluster changes.
    fn pass(&self, revisions: u64) {
        let mut state = self.state();
        state.revision += revisions;
        state.snapshot();
    }

    fn bookmark(&self) {
        let mut state = self.state();
        let line = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": state.revision.to_string()}}});
        state.push(&format!("{line}\n"));
    }

    /// Sends this on the open watches as it is.
    fn push(&self, text: &str) {
        self.state().push(text);
    }

    fn end_watches(&self) {
        self.state().streams.clear();
    }

    fn cut_watches(&self) {
        for stream in self.state().streams.drain(..) {
            let _ = stream.send(Err(io::ErrorKind::ConnectionReset.into()));
        }
    }

    /// Forgets everything before now.
    fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.revision;
    }

    fn gone_in_stream(&self) {
        self.compact();
        self.push(&format!("{GONE}\n"));
        self.end_watches();
    }

    fn fail(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }

    /// The `resourceVersion` of each watch that was asked for, and of each list.
    fn asked(&self, endless: bool) -> Vec<Option<String>> {
        let asked = self.state().asked.clone();
        asked.iter().filter(|ask| ask.endless == endless).map(|ask| parameter(ask, "resourceVersion")).collect()
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        timeout(DEADLINE, async {
            while !holds(&self.state()) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }

    /// `None`: it keeps silent.
    fn answer(&self, ask: &Ask) -> Option<Result<Response<TestBody>>> {
        let mut state = self.state();
        state.asked.push(ask.clone());
        match state.faults.pop_front() {
            Some(Fault::Unreachable) => return Some(Err(Error::unreachable("no way"))),
            Some(Fault::Status(status)) => return Some(Ok(answered(status, "{}"))),
            Some(Fault::Silence) => return None,
            Some(Fault::Fine) | None => {}
        }
        Some(Ok(if ask.endless { state.watch(ask) } else { state.list(ask) }))
    }

    fn send(&self) -> impl Fn(Ask) -> BoxFuture<'static, Result<Response<TestBody>>> + Send + Sync + 'static {
        let server = self.clone();
        move |ask| {
            let answer = server.answer(&ask);
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn revision(&self) -> u64 {
        self.state().revision
    }
}

impl State {
    fn record(&mut self, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.push(&line);
        self.history.push((self.revision, line));
        self.snapshot();
    }

    fn snapshot(&mut self) {
        self.snapshots.insert(self.revision, self.objects.clone());
    }

    fn push(&mut self, text: &str) {
        self.streams.retain(|stream| stream.send(Ok(Frame::data(Bytes::from(text.to_owned())))).is_ok());
    }

    fn watch(&mut self, ask: &Ask) -> Response<TestBody> {
        let from: u64 = parameter(ask, "resourceVersion").unwrap().parse().unwrap();
        if from < self.compacted {
            return answered(200, &format!("{GONE}\n"));
        }
        let (sender, chunks) = mpsc::unbounded_channel();
        for (_, line) in self.history.iter().filter(|(revision, _)| *revision > from) {
            sender.send(Ok(Frame::data(Bytes::from(line.clone())))).unwrap();
        }
        self.streams.push(sender);
        let chunks = unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) });
        Response::new(StreamBody::new(chunks).boxed_unsync())
    }

    /// In pages of three, typed, so without each object's kind.
    fn list(&mut self, ask: &Ask) -> Response<TestBody> {
        let exactly = parameter(ask, "resourceVersionMatch").map(|_| parameter(ask, "resourceVersion").unwrap());
        if exactly.is_some() && self.refuses_exact {
            return answered(400, "{}");
        }
        let rest: Option<(u64, usize, bool)> =
            parameter(ask, "continue").map(|rest| serde_json::from_str(&rest).unwrap());
        let newest = self.revision;
        let beginning = (exactly.as_ref().map_or(newest, |version| version.parse().unwrap()), 0, exactly.is_some());
        let (version, offset, exact) = rest.unwrap_or(beginning);
        if version < self.compacted {
            return answered(410, "{}");
        }
        let objects =
            self.snapshots.range(..=version).next_back().map(|(_, objects)| objects.clone()).unwrap_or_default();
        let mut items: Vec<Value> = objects.values().skip(offset).take(3).cloned().collect();
        for item in &mut items {
            item.as_object_mut().unwrap().remove("kind");
            item.as_object_mut().unwrap().remove("apiVersion");
        }
        let done = offset + 3 >= objects.len();
        self.exact_listed |= exact && done;
        let more = if done { String::new() } else { json!([version, offset + 3, exact]).to_string() };
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string(), "continue": more}, "items": items});
        answered(200, &list.to_string())
    }
}

const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}"#;

fn answered(status: u16, body: &str) -> Response<TestBody> {
    let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn parameter(ask: &Ask, wanted: &str) -> Option<String> {
    let (_, query) = ask.path_and_query.split_once('?').unwrap();
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// A page, as newer Headlamps do it: an event that is not above the last version is ignored.
struct Page {
    /// Every event must fit what it has, unless it is stale: nothing is added, changed or deleted in vain.
    strict: bool,
    version: u64,
    objects: BTreeMap<String, Value>,
    told: Vec<Value>,
    events: mpsc::Receiver<String>,
    /// It has to be loaded anew.
    stale: Arc<AtomicBool>,
}

/// Runs a watch; the events for its page, and whether that is stale.
fn run(watch: Watch, server: &Server) -> (mpsc::Receiver<String>, Arc<AtomicBool>) {
    let (sender, events) = mpsc::channel(2);
    let (send, stale) = (server.send(), Arc::<AtomicBool>::default());
    let told = stale.clone();
    tokio::spawn(async move { watch.run(&send, &sender, &Notify::new(), &told).await });
    (events, stale)
}

impl Page {
    /// Lists, then watches from there.
    async fn open(server: &Server, query: &str) -> Self {
        let (version, objects) = {
            let state = server.state();
            (state.revision, state.objects.values().map(|object| (uid(object), object.clone())).collect())
        };
        Self { version, objects, ..Self::watching(server, &format!("{query}&resourceVersion={version}")).await }
    }

    /// Watches from nothing.
    async fn watching(server: &Server, query: &str) -> Self {
        let request = WatchRequest::of("/api/v1/pods", query).unwrap();
        let started = request.start(&server.send(), PACE, Random::system()).await;
        let Start::Running(watch) = started else { panic!("refused") };
        let (events, stale) = run(*watch, server);
        Self { strict: false, version: 0, objects: BTreeMap::new(), told: Vec::new(), events, stale }
    }

    async fn read(&mut self) -> Option<Value> {
        let text = timeout(DEADLINE, self.events.recv()).await.unwrap()?;
        let event: Value = serde_json::from_str(&text).unwrap();
        self.told.push(event.clone());
        let object = &event["object"];
        let version = object["metadata"]["resourceVersion"].as_str().map(|version| version.parse::<u64>().unwrap());
        if version.is_some_and(|version| version <= self.version) {
            return Some(event);
        }
        let kind = event["type"].as_str().unwrap();
        let had = match kind {
            "ADDED" | "MODIFIED" => self.objects.insert(uid(object), object.clone()),
            "DELETED" => self.objects.remove(&uid(object)),
            _ => None,
        };
        let strict = self.strict && !self.stale.load(Ordering::SeqCst);
        assert!(!strict || had.is_some() == (kind != "ADDED"), "{event} though the page had {had:?}");
        self.version = version.unwrap_or(self.version);
        Some(event)
    }

    /// Reads until the event of this object, which must be the newest.
    async fn read_to(&mut self, name: &str) {
        while self.read().await.unwrap()["object"]["metadata"]["name"] != name {}
    }

    /// What it was told: kind, name, version.
    fn story(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let told = self.told.iter().map(|event| {
            let metadata = &event["object"]["metadata"];
            format!("{} {} {}", text(&event["type"]), text(&metadata["name"]), text(&metadata["resourceVersion"]))
        });
        told.collect()
    }

    #[track_caller]
    fn assert_shows(&self, server: &Server) {
        let held: BTreeMap<_, _> =
            server.state().objects.values().map(|object| (uid(object), object.clone())).collect();
        assert_eq!(self.objects, held, "told: {:#?}", self.story());
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn events_reach_the_page_as_the_server_wrote_them() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    let line = r#"{"type":"MODIFIED", "object":{"metadata":{"uid":"a-1","name":"a","resourceVersion":"9"},"x":1e400,"y":"\u00e4"}}"#;
    server.push(&format!("{line}\n"));
    assert_eq!(page.events.recv().await.unwrap(), line);
    // However it is cut into pieces.
    for byte in line.bytes() {
        server.push(str::from_utf8(&[byte]).unwrap());
    }
    server.push("\n");
    assert_eq!(page.events.recv().await.unwrap(), line);
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_behind_the_page_from_the_last_version() {
    let server = Server::with(&["a"]);
    let mut page =
        Page::open(&server, "watch=1&labelSelector=app%3Dx&fieldSelector=spec.nodeName%3Dn&limit=5&timeoutSeconds=9")
            .await;
    for round in 0..5 {
        server.put(&format!("b{round}"), "x");
        page.read_to(&format!("b{round}")).await;
        server.end_watches();
        server.until(|state| state.streams.len() == 1).await;
    }
    page.assert_shows(&server);
    assert_eq!(server.asked(true), ["1", "2", "3", "4", "5", "6"].map(|version| Some(version.to_owned())));
    for ask in &server.state().asked {
        assert_eq!(parameter(ask, "labelSelector").unwrap(), "app=x");
        assert_eq!(parameter(ask, "fieldSelector").unwrap(), "spec.nodeName=n");
        assert!(ask.path_and_query.starts_with("/api/v1/pods?"));
        assert_eq!(parameter(ask, "limit").as_deref(), (!ask.endless).then_some("500"));
        let seconds = parameter(ask, "timeoutSeconds").map(|seconds| seconds.parse::<u64>().unwrap());
        assert!(seconds.is_none_or(|seconds| (60..=120).contains(&seconds)));
    }
}

#[tokio::test]
async fn bookmarks_are_for_us_unless_the_page_wants_them() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    server.pass(6);
    server.bookmark();
    server.end_watches();
    server.until(|state| state.asked.iter().filter(|ask| ask.endless).count() == 2).await;
    assert_eq!(server.asked(true), [Some("1".to_owned()), Some("7".to_owned())]);
    server.put("b", "x");
    page.read_to("b").await;
    assert_eq!(page.story(), ["ADDED b 8"]);

    let mut page = Page::open(&server, "watch=1&allowWatchBookmarks=true").await;
    server.bookmark();
    assert_eq!(page.read().await.unwrap()["type"], "BOOKMARK");
}

#[tokio::test]
async fn an_event_that_was_cut_in_the_middle_is_told_once_and_whole() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    server.push(r#"{"type":"ADDED","object":{"metadata":{"uid":"b-2","na"#);
    server.cut_watches();
    server.put("b", "x");
    page.read_to("b").await;
    server.push(r#"{"type":"ADDED","object":{"metadata":{"uid":"c-3","na"#);
    server.end_watches();
    server.put("c", "x");
    page.read_to("c").await;
    assert_eq!(page.story(), ["ADDED b 2", "ADDED c 3"]);
}

#[tokio::test]
async fn after_410_the_page_is_told_the_difference_in_ascending_order() {
    // Said on the watch, when it is opened again, and instead of one.
    for said in ["in the stream", "at its beginning", "as a status"] {
        let server = Server::with(&["changed", "deleted", "replaced", "same"]);
        let mut page = Page::open(&server, "watch=1").await;
        server.until(|state| state.exact_listed).await;
        let unheard = std::mem::take(&mut server.state().streams);
        server.put("changed", "second");
        server.delete("deleted");
        server.delete("replaced");
        server.put("replaced", "second");
        server.put("new", "first");
        server.pass(10);
        server.compact();
        match said {
            "in the stream" => unheard[0].send(Ok(Frame::data(Bytes::from(format!("{GONE}\n"))))).unwrap(),
            "as a status" => server.fail(&[Fault::Status(410)]),
            _ => {}
        }
        drop(unheard);
        server.put("last", "first");
        page.read_to("last").await;
        page.assert_shows(&server);
        let mut story = page.story();
        let versions: Vec<u64> = story.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(versions.is_sorted_by(|one, next| one < next), "{story:?}");
        assert!(
            page.told.iter().all(|event| event["object"]["kind"] == "Pod" && event["object"]["apiVersion"] == "v1")
        );
        story.retain(|line| !line.starts_with("DELETED"));
        assert_eq!(story, ["MODIFIED changed 5", "ADDED replaced 8", "ADDED new 9", "ADDED last 20"]);
        assert_eq!(versions.len(), 6);
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    server.until(|state| state.exact_listed).await;
    for faults in [&[401][..], &[500, 500, 503, 502], &[429], &[403, 404], &[408]] {
        server.fail(&faults.iter().map(|status| Fault::Status(*status)).collect::<Vec<_>>());
        server.cut_watches();
        server.put("b", &format!("{faults:?}"));
        page.read_to("b").await;
        page.assert_shows(&server);
    }
    server.fail(&[Fault::Unreachable; 10]);
    server.cut_watches();
    server.put("c", "x");
    page.read_to("c").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn a_list_that_fails_or_runs_out_on_its_way_begins_anew() {
    let server = Server::with(&["a", "b", "c", "d", "e", "f", "g"]);
    let mut page = Page::open(&server, "watch=1").await;
    server.until(|state| state.exact_listed && state.asked.iter().filter(|ask| !ask.endless).count() == 3).await;
    server.delete("a");
    page.read_to("a").await;
    // No watch; then the list's second page has run out; then its first fails.
    server.fail(&[Fault::Status(410), Fault::Fine, Fault::Status(410), Fault::Status(500)]);
    server.cut_watches();
    server.put("h", "x");
    server.delete("b");
    page.read_to("b").await;
    server.put("z", "x");
    page.read_to("z").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn an_endless_line_is_given_up() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    let mebibyte = "x".repeat(1024 * 1024);
    for _ in 0..17 {
        server.push(&mebibyte);
    }
    server.until(|state| state.asked.iter().filter(|ask| ask.endless).count() == 2).await;
    server.put("b", "x");
    page.read_to("b").await;
}

#[tokio::test]
async fn nonsense_from_the_server_is_a_cut() {
    let server = Server::with(&["a"]);
    let mut page = Page::open(&server, "watch=1").await;
    server.until(|state| state.exact_listed).await;
    for nonsense in [
        "\n",
        "null\n",
        "[]\n",
        "{\"type\":\"ADDED\"}\n",
        "{\"type\":\"ADDED\",\"object\":null}\n",
        "\u{fffd}\n",
        "{\"type\":\"ERROR\",\"object\":{\"code\":500}}\n",
        "{\"type\":1,\"object\":{}}\n",
    ] {
        server.push(nonsense);
        server.put("b", nonsense);
        page.read_to("b").await;
        page.assert_shows(&server);
    }
}

#[tokio::test]
async fn a_watch_that_the_server_refuses_is_refused_to_the_page() {
    for (query, status) in
        [("watch=1&resourceVersion=1", 403), ("watch=1&resourceVersion=1", 404), ("watch=1", 403), ("watch=1", 405)]
    {
        let server = Server::with(&["a"]);
        server.fail(&[Fault::Status(status)]);
        let request = WatchRequest::of("/api/v1/pods", query).unwrap();
        match request.start(&server.send(), PACE, Random::system()).await {
            Start::Refused(answer) => assert_eq!(answer.status(), status),
            Start::Running(_) => panic!("{query} {status}"),
        }
    }
}

#[tokio::test]
async fn a_watch_that_cannot_begin_yet_begins_later() {
    for (query, fault) in [
        ("watch=1&resourceVersion=1", Fault::Status(401)),
        ("watch=1&resourceVersion=1", Fault::Unreachable),
        ("watch=1", Fault::Status(503)),
        ("watch=1&resourceVersion=0", Fault::Status(429)),
    ] {
        let server = Server::with(&["a"]);
        server.fail(&[fault; 4]);
        let mut page = Page::watching(&server, query).await;
        server.put("b", "x");
        page.read_to("b").await;
    }
}

#[tokio::test]
async fn a_page_of_whose_beginning_nobody_knows_is_live_and_has_to_be_loaded_anew() {
    for refuses_exact in [false, true] {
        let server = Server::with(&["a", "b"]);
        server.delete("a");
        server.compact();
        server.state().refuses_exact = refuses_exact;
        let mut page = Page::watching(&server, "watch=1&resourceVersion=2").await;
        server.put("c", "x");
        page.read_to("c").await;
        assert!(page.stale.load(Ordering::SeqCst), "it may show `a` for good");
        server.cut_watches();
        server.put("d", "x");
        page.read_to("d").await;
        assert_eq!(page.story(), ["ADDED c 4", "ADDED d 5"]);
    }
}

#[tokio::test]
async fn a_server_that_is_slow_to_answer_holds_up_no_page() {
    let pace = Pace { start: Duration::from_millis(5), patience: Duration::from_millis(50), ..PACE };
    for (query, faults) in [
        ("watch=1&resourceVersion=1", &[Fault::Silence][..]),
        ("watch=1", &[Fault::Silence]),
        ("watch=1", &[Fault::Fine, Fault::Silence]),
    ] {
        let server = Server::with(&["a"]);
        server.fail(faults);
        let request = WatchRequest::of("/api/v1/pods", query).unwrap();
        let started = timeout(PACE.patience, request.start(&server.send(), pace, Random::system())).await.unwrap();
        let Start::Running(watch) = started else { panic!("refused") };
        let (mut events, _) = run(*watch, &server);
        server.put("b", "x");
        let mut told = String::new();
        while !told.contains("\"b\"") {
            told = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_watch_that_was_given_in_hope_and_is_refused_for_good_ends_with_the_refusal() {
    let start = Duration::from_millis(5);
    for (query, status) in [("watch=1&resourceVersion=1", 403), ("watch=1", 404)] {
        let server = Server::with(&["a"]);
        server.fail(&[Fault::Silence]);
        server.fail(&[Fault::Status(status); 100]);
        let request = WatchRequest::of("/api/v1/pods", query).unwrap();
        let pace = Pace { start, refusals: Duration::from_millis(20), ..PACE };
        let started = request.start(&server.send(), pace, Random::system()).await;
        let Start::Running(watch) = started else { panic!("refused") };
        let (mut events, _) = run(*watch, &server);
        let told = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
        assert_eq!(told, r#"{"type":"ERROR","object":{}}"#);
        assert!(timeout(DEADLINE, events.recv()).await.unwrap().is_none());
        assert!(server.state().asked.len() > 2, "it was tried again");
    }
}

#[tokio::test]
async fn a_server_that_refuses_everything_at_first_is_no_refusal() {
    let server = Server::with(&["a"]);
    server.fail(&[Fault::Unreachable]);
    server.fail(&[Fault::Status(403); 8]);
    let mut page = Page::watching(&server, "watch=1&resourceVersion=1").await;
    server.put("b", "x");
    page.read_to("b").await;
    // Nor is one that is started anew behind a page.
    server.fail(&[Fault::Unreachable, Fault::Status(403), Fault::Status(404)]);
    server.cut_watches();
    server.put("c", "x");
    page.read_to("c").await;
}

#[tokio::test]
async fn a_version_that_can_still_be_listed_is_not_too_old() {
    let server = Server::with(&["a", "b"]);
    server.fail(&[Fault::Status(410)]);
    let mut page = Page::open(&server, "watch=1").await;
    server.delete("a");
    server.put("c", "x");
    page.read_to("c").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn without_a_version_a_watch_begins_with_every_object() {
    let server = Server::with(&["d", "c", "b", "a"]);
    for query in ["watch=1", "watch=true&resourceVersion=0", "watch=1&resourceVersion="] {
        let mut page = Page::watching(&server, query).await;
        page.read_to("a").await;
        assert_eq!(page.story(), ["ADDED d 1", "ADDED c 2", "ADDED b 3", "ADDED a 4"]);
        page.assert_shows(&server);
    }
    let mut page = Page::watching(&server, "watch=1").await;
    page.read_to("a").await;
    server.delete("d");
    server.gone_in_stream();
    server.put("e", "x");
    page.read_to("e").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn the_page_of_one_object_is_told_all_of_it_when_it_is_deleted() {
    let server = Server::with(&["a"]);
    let mut page = Page::watching(&server, "watch=1&fieldSelector=metadata.name%3Da").await;
    page.read_to("a").await;
    server.put("a", "second");
    page.read_to("a").await;
    server.until(|state| state.streams.len() == 1).await;
    server.state().streams.clear();
    server.delete("a");
    server.pass(5);
    server.compact();
    let event = page.read().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["spec"]["value"], "second");
    assert_eq!(event["object"]["kind"], "Pod");
    page.assert_shows(&server);
}

#[tokio::test]
async fn a_server_that_lists_no_version_but_the_newest_is_enough() {
    let server = Server::with(&["a", "b"]);
    server.state().refuses_exact = true;
    let mut page = Page::open(&server, "watch=1").await;
    server.put("c", "x");
    page.read_to("c").await;
    server.until(|state| state.asked.iter().filter(|ask| !ask.endless).count() == 2).await;
    server.delete("a");
    page.read_to("a").await;
    server.state().streams.clear();
    server.delete("b");
    server.delete("c");
    server.put("d", "x");
    server.compact();
    page.read_to("d").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn a_page_that_does_not_read_loses_nothing() {
    let server = Server::with(&[]);
    let mut page = Page::open(&server, "watch=1").await;
    for number in 0..500 {
        server.put(&format!("{number:03}"), "x");
        if number % 100 == 50 {
            server.cut_watches();
        }
    }
    tokio::task::yield_now().await;
    page.read_to("499").await;
    page.assert_shows(&server);
}

#[tokio::test]
async fn a_page_that_left_ends_its_watch() {
    let server = Server::with(&["a"]);
    let request = WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=1").unwrap();
    let send = server.send();
    let Start::Running(watch) = request.start(&send, PACE, Random::system()).await else { panic!() };
    let (sender, events) = mpsc::channel(1);
    let running = tokio::spawn(async move { watch.run(&send, &sender, &Notify::new(), &AtomicBool::default()).await });
    drop(events);
    server.put("b", "x");
    timeout(DEADLINE, running).await.unwrap().unwrap();
    server.put("c", "x");
    assert_eq!(server.state().streams.len(), 0);
}

#[tokio::test]
async fn a_connection_that_died_without_a_sign_is_left() {
    let server = Server::with(&["a"]);
    let pace = Pace { lifetime: Duration::from_millis(5), patience: Duration::from_millis(50), ..PACE };
    let request = WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=1").unwrap();
    let Start::Running(watch) = request.start(&server.send(), pace, Random::system()).await else { panic!() };
    // The server holds the connection open and says nothing on it.
    let _silent = std::mem::take(&mut server.state().streams);
    let (mut events, _) = run(*watch, &server);
    server.put("b", "x");
    assert!(timeout(DEADLINE, events.recv()).await.unwrap().unwrap().contains("\"b\""));
}

#[tokio::test]
async fn a_watch_that_is_woken_does_not_wait_any_longer() {
    let server = Server::with(&["a"]);
    let pace = Pace { pauses: (Duration::from_secs(3600), Duration::from_secs(3600)), ..PACE };
    let request = WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=1").unwrap();
    let send = server.send();
    server.state().faults.extend([Fault::Unreachable, Fault::Unreachable]);
    let Start::Running(watch) = request.start(&send, pace, Random::system()).await else { panic!() };
    let (sender, mut events) = mpsc::channel(1);
    let wake = Arc::new(Notify::new());
    let woken = wake.clone();
    tokio::spawn(async move { watch.run(&send, &sender, &woken, &AtomicBool::default()).await });
    server.put("b", "x");
    assert!(timeout(Duration::from_millis(50), events.recv()).await.is_err(), "it waits");
    wake.notify_one();
    assert!(timeout(DEADLINE, events.recv()).await.unwrap().unwrap().contains("\"b\""));
}

#[test]
fn a_list_that_is_newer_than_the_page_does_not_pass_for_what_it_has() {
    let known = |name: &str, version: &str| {
        let metadata =
            Metadata { name: Some(name.to_owned()), resource_version: Some(version.to_owned()), ..Metadata::default() };
        (name.to_owned(), Known::of(&metadata, None))
    };
    let request = WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=7").unwrap();
    let mut watch = Watch::new(request, PACE, Random::system());
    let event = |kind: &str, name: &str| {
        format!(r#"{{"type":"{kind}","object":{{"metadata":{{"uid":"{name}","resourceVersion":"8"}}}}}}"#)
    };
    for (kind, name) in [("MODIFIED", "changed"), ("DELETED", "deleted")] {
        assert!(watch.take(event(kind, name)).is_ok_and(|line| line.is_some()));
    }
    let objects = [known("old", "3"), known("new", "9"), known("changed", "2"), known("deleted", "1")].into();
    watch.adopt(Inventory { objects, version: "10".into() });
    let mut told: Vec<_> =
        watch.objects.iter().map(|(name, known)| format!("{name} {}", known.resource_version)).collect();
    told.sort_unstable();
    assert_eq!(told, ["changed 8", "old 3"]);
    assert!(watch.complete && watch.deleted.is_empty());
}

#[tokio::test]
async fn what_a_newer_list_lacks_the_page_may_still_have() {
    let mut nobody = pin!(std::future::pending());
    for (listed, seen, certain) in [("7", "7", true), ("10", "9", false), ("10", "10", true), ("10", "11", true)] {
        let request = WatchRequest::of("/api/v1/pods", "watch=1&resourceVersion=7").unwrap();
        let mut watch = Watch::new(request, PACE, Random::system());
        watch.adopt(Inventory { objects: Objects::new(), version: listed.into() });
        watch.version = seen.into();
        assert_eq!(watch.recall(nobody.as_mut()).await, certain, "{listed} {seen}");
    }
}

#[test]
fn pauses_grow_and_heed_the_server() {
    let pause = |failures, after| pause(Pace::NORMAL, Random::system(), failures, after);
    assert!((Duration::from_millis(100)..Duration::from_millis(150)).contains(&pause(0, None)));
    assert!((Duration::from_millis(800)..Duration::from_millis(1200)).contains(&pause(3, None)));
    assert!((Duration::from_secs(30)..Duration::from_secs(45)).contains(&pause(u32::MAX, None)));
    assert!(pause(0, Some(Duration::from_secs(7))) >= Duration::from_secs(7));
    assert!(pause(0, Some(Duration::from_secs(u64::MAX))) <= Duration::from_secs(90));
}

#[test]
fn only_watches_of_collections_are_taken() {
    let taken = |path: &str, query: &str| WatchRequest::of(path, query).is_some();
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/api/v1/namespaces/a/pods",
        "/apis/apps/v1/deployments",
        "/apis/example.com/v1/namespaces/a/things",
    ] {
        for query in ["watch=1", "watch=true", "a=b&watch=", "watch=yes&limit=5"] {
            assert!(taken(path, query), "{path}?{query}");
        }
        for query in ["", "watch=0", "watch=false", "watch=False", "xwatch=1", "watch=1&sendInitialEvents=true"] {
            assert!(!taken(path, query), "{path}?{query}");
        }
    }
    for path in [
        "/api/v1",
        "/api/v1/",
        "/version",
        "/api/v1/namespaces/a",
        "/api/v1/namespaces/a/status",
        "/api/v1/namespaces/a/pods/b",
        "/api/v1/nodes/a",
        "/api/v1/namespaces/a/pods/b/log",
        "/api/v1/watch/pods",
        "/apis/apps/v1/watch/deployments",
        "/apis/apps/v1/namespaces/a/deployments/b",
        "/openapi/v1/pods",
    ] {
        assert!(!taken(path, "watch=1"), "{path}");
    }
}

/// What happens while a page is open.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    Pass(u64),
    Bookmark,
    End,
    Cut,
    CutInTheMiddle,
    Compact,
    Gone,
    Fail(Vec<Fault>),
    /// The watch gets time.
    Wait,
    /// The page reads what there is.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Unreachable),
        prop::sample::select(vec![401, 403, 410, 429, 500, 503]).prop_map(Fault::Status)
    ];
    prop_oneof![
        6 => (0..8u8).prop_map(Step::Put),
        4 => (0..8u8).prop_map(Step::Delete),
        1 => (1..50u64).prop_map(Step::Pass),
        1 => Just(Step::Bookmark),
        2 => Just(Step::End),
        2 => Just(Step::Cut),
        1 => Just(Step::CutInTheMiddle),
        2 => Just(Step::Compact),
        1 => Just(Step::Gone),
        1 => prop::collection::vec(fault, 1..4).prop_map(Step::Fail),
        5 => Just(Step::Wait),
        3 => Just(Step::Read),
    ]
}

async fn live_through(before: Vec<u8>, steps: Vec<Step>, listed: bool) {
    let server = Server::default();
    for name in before {
        server.put(&name.to_string(), "before");
    }
    let mut page = if listed { Page::open(&server, "watch=1").await } else { Page::watching(&server, "watch=1").await };
    page.strict = true;
    for step in steps {
        match step {
            Step::Put(name) => server.put(&name.to_string(), &format!("at {}", server.revision())),
            Step::Delete(name) => server.delete(&name.to_string()),
            Step::Pass(revisions) => server.pass(revisions),
            Step::Bookmark => server.bookmark(),
            Step::End => server.end_watches(),
            Step::Cut => server.cut_watches(),
            Step::CutInTheMiddle => {
                server.push(r#"{"type":"ADDED","object":{"metadata":{"uid":"half"#);
                server.end_watches();
            }
            Step::Compact => server.compact(),
            Step::Gone => server.gone_in_stream(),
            Step::Fail(faults) => server.fail(&faults),
            Step::Wait => sleep(Duration::from_millis(3)).await,
            Step::Read => while let Ok(Some(_)) = timeout(Duration::from_millis(1), page.read()).await {},
        }
    }
    server.put("last", "x");
    page.read_to("last").await;
    // What a server forgets is minutes old; by then the page's own version was listed.
    if page.stale.load(Ordering::SeqCst) {
        assert!(listed && !server.state().exact_listed);
        page = Page::open(&server, "watch=1").await;
        server.put("last", "y");
        page.read_to("last").await;
    }
    page.assert_shows(&server);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn in_the_end_the_page_shows_what_the_cluster_holds(
        before in prop::collection::vec(0..8u8, 0..8),
        steps in prop::collection::vec(step(), 0..60),
        listed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live_through(before, steps, listed));
    }
}
