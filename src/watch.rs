//! A watch of the page that never ends.
//!
//! API servers end every watch sooner or later, and Headlamp's page never opens one again. So the
//! page's websocket is ours, and the watch behind it is resumed from the last version that it
//! showed. When the server no longer remembers that version (`410 Gone`) the objects are listed
//! again, and the page is told the difference (`watch_difference`). For that we must know what the
//! page has. Its own list did not come through here, so soon after the watch began, when the page
//! has loaded, the metadata of the objects is listed at the very version that the page began with.
//! Where the server has forgotten even that, nobody knows what the page shows of what is gone: it is
//! told what there is, and has to be loaded anew.
//!
//! A browser opens one websocket to a host at a time, so a server that is slow to answer must not
//! hold up the others: after some seconds the page has its watch, in hope.
//!
//! What the page asked for is kept, selectors and all; bookmarks are for us unless it wants them.
//! In memory is no more than each object's name, uid and version (of a watch of one object, that object).

use std::collections::HashSet;
use std::error::Error as Cause;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::Response;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::{Body, Bytes};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use url::form_urlencoded;

use crate::error::Result;
use crate::random::Random;
use crate::resource_list::{self, About, Ask, METADATA, Metadata, Stop, WHOLE, Wanted, sort};
use crate::watch_difference::{Difference, Known, Objects, is_above, with_kind};

/// A page's request for a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchRequest {
    path: String,
    /// What is asked of the objects: the selectors, and whatever else is not ours to decide.
    query: String,
    /// Where the page's own list ended; `None` if the page has none and begins with all objects.
    from: Option<String>,
    bookmarks: bool,
    /// One object by its name.
    single: bool,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two attempts, after the first failure and at most.
    pub(crate) pauses: (Duration, Duration),
    /// From the watch's start until what the page has is listed.
    pub(crate) inventory_after: Duration,
    /// For the server's word, before the page has its watch in hope.
    pub(crate) start: Duration,
    /// For the beginning of an answer, and for a page of a list.
    pub(crate) patience: Duration,
    /// What is refused for so long to a page that has its watch in hope is refused: a server that has
    /// just been started refuses everything for some seconds.
    pub(crate) refusals: Duration,
    /// Of one watch upstream: the server is asked to end it then, so that a connection that is
    /// dead without a sign goes unnoticed no longer.
    pub(crate) lifetime: Duration,
}

impl Pace {
    pub(crate) const NORMAL: Self = Self {
        pauses: (Duration::from_millis(100), Duration::from_secs(30)),
        inventory_after: Duration::from_secs(3),
        start: Duration::from_secs(3),
        patience: Duration::from_secs(60),
        refusals: Duration::from_secs(20),
        lifetime: Duration::from_secs(300),
    };
}

/// What a request for a watch came to.
pub(crate) enum Start<B> {
    /// The page may be told that it has its watch.
    Running(Box<Watch>),
    /// The server's own answer, for the page.
    Refused(Response<B>),
}

/// A watch behind a page's websocket.
pub(crate) struct Watch {
    request: WatchRequest,
    pace: Pace,
    random: Random,
    /// What the page has or is being told. Before it is complete, only what events said of it.
    objects: Objects,
    complete: bool,
    /// `objects` lacks what was gone at this version, of which the page may not have been told yet.
    ahead: Option<String>,
    /// What events said is deleted, until `objects` is complete.
    deleted: HashSet<String>,
    /// The page has everything up to this version, and the next watch begins with it.
    version: String,
    /// The server no longer remembers it, or there is none: only a list can tell how to go on.
    relist: bool,
    begun: Begun,
    /// Told before anything else.
    waiting: Vec<String>,
    /// The server has not said yet that the page may have it.
    hoped: bool,
    /// Since when it says that it may not.
    refused_since: Option<Instant>,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// When the server last began to answer a watch.
    since: Option<Instant>,
}

/// What the request for a watch has already brought.
enum Begun {
    Nothing,
    Lines(Lines),
    /// The server does not remember the version.
    Expired,
}

type Lines = BoxStream<'static, Result<String, LinesCodecError>>;

/// Why a stretch of the watch ended.
enum End {
    PageGone,
    /// The server does not remember the version.
    Expired,
    /// The server's refusal, as an event.
    Refused(String),
    /// Anything else, and how long the server says to wait.
    Cut(Option<Duration>),
}

/// What the page had when it began, or a little later.
struct Inventory {
    objects: Objects,
    version: String,
}

/// Bytes of one event; objects have at most some 1.5 MiB.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;
/// Bytes of an answer that says why not.
const LONGEST_STATUS: usize = 64 * 1024;
/// A watch that held so long was a good one: the next begins at once.
const GOOD: Duration = Duration::from_secs(1);
/// Watches that are woken together do not all come in the same instant.
const SPREAD: Duration = Duration::from_millis(100);

impl WatchRequest {
    /// `None` for anything but a watch of a collection, which alone can be resumed. The path is the
    /// API server's.
    pub(crate) fn of(path: &str, query: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (["api", _, rest @ ..] | ["apis", _, _, rest @ ..]) = segments.as_slice() else { return None };
        match rest {
            ["namespaces", _, "status" | "finalize"] => return None,
            [resource] | ["namespaces", _, resource] if !resource.is_empty() => {}
            _ => return None,
        }
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let value = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| &**value);
        // As API servers read it: anything but these is true.
        let is_set =
            |wanted: &str| value(wanted).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
        if !is_set("watch") || is_set("sendInitialEvents") {
            return None;
        }
        let mut kept = form_urlencoded::Serializer::new(String::new());
        kept.extend_pairs(parameters.iter().filter(|(name, _)| !OURS.contains(&&**name)));
        Some(Self {
            path: path.to_owned(),
            query: kept.finish(),
            from: value("resourceVersion").filter(|version| !matches!(*version, "" | "0")).map(str::to_owned),
            bookmarks: is_set("allowWatchBookmarks"),
            single: value("fieldSelector")
                .is_some_and(|selector| selector.split(',').any(|part| part.starts_with("metadata.name="))),
        })
    }

    /// Begins the watch: with the server's word that it may be had, or in hope where that is only
    /// a matter of time.
    pub(crate) async fn start<S, F, B>(self, send: &S, pace: Pace, random: Random) -> Start<B>
    where
        S: Fn(Ask) -> F,
        F: Future<Output = Result<Response<B>>>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        let mut watch = Watch::new(self, pace, random);
        match timeout(pace.start, watch.begin(send)).await {
            Ok(Err(Stop::Refused(answer))) => return Start::Refused(answer),
            Ok(Err(Stop::Expired(_))) if !watch.relist => watch.begun = Begun::Expired,
            Ok(_) | Err(_) => {}
        }
        Start::Running(Box::new(watch))
    }

    fn list<'a>(&'a self, accept: &'static str, exactly: Option<&'a str>) -> Wanted<'a> {
        Wanted { path: &self.path, query: &self.query, accept, exactly }
    }
}

/// Parameters that are for us to set. A watch has no pages, whatever the page's list had.
const OURS: [&str; 9] = [
    "watch",
    "resourceVersion",
    "resourceVersionMatch",
    "allowWatchBookmarks",
    "sendInitialEvents",
    "timeoutSeconds",
    "limit",
    "continue",
    "pretty",
];

impl Watch {
    fn new(request: WatchRequest, pace: Pace, random: Random) -> Self {
        let from = request.from.clone();
        Self {
            // Without a version the page has nothing, and we know it.
            complete: from.is_none(),
            relist: from.is_none(),
            version: from.unwrap_or_default(),
            request,
            pace,
            random,
            objects: Objects::new(),
            ahead: None,
            deleted: HashSet::new(),
            begun: Begun::Nothing,
            waiting: Vec::new(),
            hoped: true,
            refused_since: None,
            failures: 0,
            since: None,
        }
    }

    /// The server's first word.
    async fn begin<S, F, B>(&mut self, send: &S) -> Result<(), Stop<B>>
    where
        S: Fn(Ask) -> F,
        F: Future<Output = Result<Response<B>>>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        if self.relist {
            self.waiting = self.list(send).await?;
        }
        self.begun = Begun::Lines(connect(send, self.ask(), self.pace.patience).await?);
        Ok(())
    }

    /// Tells the page, one text an event, until it is gone, or is refused what it was given in hope.
    /// A page that does not read holds up this watch alone. `wake` ends a pause: what it was made for
    /// may be over. `stale` is set when only loading it anew can show the page all that is gone.
    pub(crate) async fn run<S, F, B>(mut self, send: &S, page: &mpsc::Sender<String>, wake: &Notify, stale: &AtomicBool)
    where
        S: Fn(Ask) -> F,
        F: Future<Output = Result<Response<B>>>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        let waiting = std::mem::take(&mut self.waiting);
        if tell(page, waiting).await.is_err() {
            return;
        }
        let request = self.request.clone();
        let mut inventory = pin!(inventory(send, &request, self.pace, self.random));
        loop {
            let after = match self.stretch(send, page, inventory.as_mut()).await {
                End::PageGone => return,
                End::Expired => {
                    if !self.recall(inventory.as_mut()).await {
                        stale.store(true, Ordering::Relaxed);
                    }
                    self.relist = true;
                    None
                }
                End::Refused(words) => {
                    let since = *self.refused_since.get_or_insert_with(Instant::now);
                    if self.hoped && since.elapsed() >= self.pace.refusals {
                        let _ = page.send(words).await;
                        return;
                    }
                    // Rights may come back, and so may a resource that is being replaced.
                    None
                }
                End::Cut(after) => after,
            };
            if timeout(self.pause(after), wake.notified()).await.is_ok() {
                self.failures = 0;
                sleep(SPREAD.mul_f64(self.random.fraction())).await;
            }
        }
    }

    /// One watch upstream, from wherever the last one ended.
    async fn stretch<S, F, B>(
        &mut self,
        send: &S,
        page: &mpsc::Sender<String>,
        inventory: Pin<&mut impl Future<Output = Inventory>>,
    ) -> End
    where
        S: Fn(Ask) -> F,
        F: Future<Output = Result<Response<B>>>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        if self.relist {
            let events = match self.list(send).await {
                Ok(events) => events,
                Err(stop) => return end(stop, self.pace).await,
            };
            if tell(page, events).await.is_err() {
                return End::PageGone;
            }
        }
        let lines = match std::mem::replace(&mut self.begun, Begun::Nothing) {
            Begun::Lines(lines) => lines,
            Begun::Expired => return End::Expired,
            Begun::Nothing => match connect(send, self.ask(), self.pace.patience).await {
                Ok(lines) => lines,
                Err(stop) => return end(stop, self.pace).await,
            },
        };
        self.since = Some(Instant::now());
        (self.hoped, self.refused_since) = (false, None);
        self.follow(lines, page, inventory).await
    }

    /// Passes on what a watch tells.
    async fn follow(
        &mut self,
        mut lines: Lines,
        page: &mpsc::Sender<String>,
        mut inventory: Pin<&mut impl Future<Output = Inventory>>,
    ) -> End {
        let longest = self.pace.lifetime * 2 + self.pace.patience;
        let mut dead = pin!(sleep(longest));
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                found = inventory.as_mut(), if !self.complete => {
                    self.adopt(found);
                    continue;
                }
                () = &mut dead => return End::Cut(None),
            };
            let Some(Ok(line)) = line else { return End::Cut(None) };
            match self.take(line) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    if page.send(line).await.is_err() {
                        return End::PageGone;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Notes what an event says, and returns it if it is for the page.
    fn take(&mut self, line: String) -> Result<Option<String>, End> {
        // What cannot be read may be half an event: the next watch tells it again.
        let Ok(event) = serde_json::from_str::<Event<'_>>(&line) else { return Err(End::Cut(None)) };
        let Ok(Kind { metadata, code }) = event.read() else { return Err(End::Cut(None)) };
        match event.kind {
            "ERROR" if code == Some(410) => return Err(End::Expired),
            "ERROR" => return Err(End::Cut(None)),
            "BOOKMARK" => {}
            "DELETED" => {
                let identity = metadata.identity();
                self.objects.remove(&identity);
                if !self.complete {
                    self.deleted.insert(identity);
                }
            }
            _ => {
                let identity = metadata.identity();
                let text = self.request.single.then_some(event.object.get());
                self.objects.insert(identity, Known::of(&metadata, text));
            }
        }
        if !metadata.version().is_empty() {
            metadata.version().clone_into(&mut self.version);
        }
        if event.kind == "BOOKMARK" {
            return Ok(self.request.bookmarks.then_some(line));
        }
        self.failures = 0;
        Ok(Some(line))
    }

    /// Adds what the page had before the first event.
    fn adopt(&mut self, found: Inventory) {
        for (identity, known) in found.objects {
            // What is newer than the page's version is not what it has: the event is still to come.
            let to_come = is_above(&known.resource_version, &self.version);
            if !to_come && !self.deleted.contains(&identity) {
                self.objects.entry(identity).or_insert(known);
            }
        }
        self.deleted = HashSet::new();
        self.complete = true;
        self.ahead = Some(found.version).filter(|version| Some(version) != self.request.from.as_ref());
    }

    /// Whether it is certain what the page has, now that it must be known. A server may remember for
    /// a list what it no longer remembers for a watch.
    async fn recall(&mut self, inventory: Pin<&mut impl Future<Output = Inventory>>) -> bool {
        if !self.complete {
            let Ok(found) = timeout(self.pace.patience, inventory).await else { return false };
            self.adopt(found);
        }
        self.ahead.as_ref().is_none_or(|ahead| *ahead == self.version || is_above(&self.version, ahead))
    }

    /// Lists the objects anew, and returns what the page must be told.
    async fn list<S, F, B>(&mut self, send: &S) -> Result<Vec<String>, Stop<B>>
    where
        S: Fn(Ask) -> F,
        F: Future<Output = Result<Response<B>>>,
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        let mut difference = Difference::default();
        let unless_above = (!self.complete).then_some(self.version.as_str());
        let add = |about: &About, object: resource_list::Object<'_>| {
            difference.add(&self.objects, unless_above, about, &object, self.request.single);
        };
        let about = resource_list::read(send, &self.request.list(WHOLE, None), self.pace.patience, add).await?;
        let (events, objects) = difference.finish(&self.objects, &about, &self.version);
        self.objects = objects;
        self.deleted = HashSet::new();
        self.complete = true;
        self.ahead = None;
        self.version = about.resource_version;
        self.relist = false;
        Ok(events)
    }

    /// The watch from where the last one ended.
    fn ask(&self) -> Ask {
        // Watches that began together do not end together.
        let lifetime = self.pace.lifetime.mul_f64(1.0 + self.random.fraction()).as_secs().max(1);
        let mut query = form_urlencoded::Serializer::new(self.request.query.clone());
        query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
        query.append_pair("timeoutSeconds", &lifetime.to_string());
        if !self.version.is_empty() {
            query.append_pair("resourceVersion", &self.version);
        }
        Ask { path_and_query: format!("{}?{}", self.request.path, query.finish()), accept: WHOLE, endless: true }
    }

    /// How long to wait before the next attempt.
    fn pause(&mut self, after: Option<Duration>) -> Duration {
        let held = self.since.take().is_some_and(|since| since.elapsed() >= GOOD);
        self.failures = if held { 0 } else { self.failures.saturating_add(1) };
        match after {
            None if held => Duration::ZERO,
            after => pause(self.pace, self.random, self.failures, after),
        }
    }
}

async fn connect<S, F, B>(send: &S, ask: Ask, patience: Duration) -> Result<Lines, Stop<B>>
where
    S: Fn(Ask) -> F,
    F: Future<Output = Result<Response<B>>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    match timeout(patience, send(ask)).await {
        Ok(Ok(answer)) => Ok(lines(sort(answer)?)),
        Ok(Err(_)) | Err(_) => Err(Stop::Failed(None)),
    }
}

async fn end<B>(stop: Stop<B>, pace: Pace) -> End
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    match stop {
        Stop::Expired(_) => End::Expired,
        Stop::Refused(answer) => End::Refused(refusal(answer, pace.patience).await),
        Stop::Failed(after) => End::Cut(after),
    }
}

/// Doubles with each failure, and is spread so that many watches do not come back at once.
fn pause(pace: Pace, random: Random, failures: u32, after: Option<Duration>) -> Duration {
    let (shortest, longest) = pace.pauses;
    let doubled = shortest.saturating_mul(1 << failures.min(16)).min(longest);
    let asked = after.unwrap_or_default().min(longest.saturating_mul(2));
    doubled.max(asked).mul_f64(1.0 + random.fraction() / 2.0)
}

/// Lists what the page has: at the version that it began with, as long as the server remembers it.
async fn inventory<S, F, B>(send: &S, request: &WatchRequest, pace: Pace, random: Random) -> Inventory
where
    S: Fn(Ask) -> F,
    F: Future<Output = Result<Response<B>>>,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    sleep(pace.inventory_after).await;
    let accept = if request.single { WHOLE } else { METADATA };
    let mut exactly = request.from.as_deref();
    let mut failures = 0;
    loop {
        let mut objects = Objects::new();
        let add = |about: &About, object: resource_list::Object<'_>| {
            let text = request.single.then(|| with_kind(about, &object));
            objects.insert(object.metadata.identity(), Known::of(&object.metadata, text.as_deref()));
        };
        match resource_list::read(send, &request.list(accept, exactly), pace.patience, add).await {
            Ok(about) => return Inventory { objects, version: about.resource_version },
            Err(Stop::Expired(_) | Stop::Refused(_)) if exactly.is_some() => exactly = None,
            Err(stop) => {
                failures += 1;
                let after = if let Stop::Failed(after) = stop { after } else { Some(pace.pauses.1) };
                sleep(pause(pace, random, failures, after)).await;
            }
        }
    }
}

/// An event of a watch.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What an event is about: an object, or the `code` of a `Status`.
struct Kind {
    metadata: Metadata,
    code: Option<u16>,
}

impl Event<'_> {
    fn read(&self) -> serde_json::Result<Kind> {
        #[derive(Deserialize)]
        struct Status {
            code: Option<u16>,
        }
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            metadata: Option<Metadata>,
        }
        if self.kind == "ERROR" {
            let status: Status = serde_json::from_str(self.object.get())?;
            return Ok(Kind { metadata: Metadata::default(), code: status.code });
        }
        let object: Object = serde_json::from_str(self.object.get())?;
        Ok(Kind { metadata: object.metadata.unwrap_or_default(), code: None })
    }
}

/// A refusal, as a watch that had already begun would say it.
async fn refusal<B>(answer: Response<B>, patience: Duration) -> String
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    let code = answer.status().as_u16();
    let body = timeout(patience, Limited::new(answer.into_body(), LONGEST_STATUS).collect()).await;
    let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    match serde_json::from_slice::<&RawValue>(&body) {
        Ok(status) => format!(r#"{{"type":"ERROR","object":{status}}}"#),
        Err(_) => format!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","code":{code}}}}}"#
        ),
    }
}

fn lines<B>(answer: Response<B>) -> Lines
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    let chunks = answer.into_body().into_data_stream().map_err(io::Error::other);
    FramedRead::new(StreamReader::new(chunks), LinesCodec::new_with_max_length(LONGEST_EVENT)).boxed()
}

/// `Err` if the page is gone.
async fn tell(page: &mpsc::Sender<String>, events: Vec<String>) -> Result<(), mpsc::error::SendError<String>> {
    for event in events {
        page.send(event).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
