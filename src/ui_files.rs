//! The files of Headlamp's page: from its pod, by way of the cache, or from a folder.
//!
//! | file | comes from |
//! |---|---|
//! | hashed, and in the cache | the cache; the pod is not asked |
//! | anything else | the pod; where that does not answer within a short time, the cache |
//!
//! What several ask for at once is fetched once, and a fetch that nobody waits for any more goes on:
//! the next one finds it in the cache. An index page is kept on disk only once all that it names
//! is, so that the page from the cache is always a whole one. What its scripts load later is fetched
//! ahead too, a few at a time: an open page lives on when the pod is gone, or is another build's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Response, StatusCode, header};
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::error::{Error, Result};
use crate::headlamp_config;
use crate::http2_pool::Body;
use crate::index_page;
use crate::pod_http::{self, AHEAD, Connect, MOST_CONNECTIONS, PodAnswer, PodHttp};
use crate::ui_cache::UiCache;
use crate::ui_file::{self, Encoding, Role, UiFile, navigates, role};
use crate::ui_folder::UiFolder;

/// Where the page comes from just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    /// Nothing has been asked yet.
    NotAsked,
    /// The pod answers, or the folder is there.
    Reached,
    /// The pod does not answer, and the cache stands in for it.
    FromCache(Error),
    /// It does not answer, and nothing has stood in for it yet.
    Unreachable(Error),
}

/// The files of one Headlamp.
#[derive(Clone)]
pub(crate) struct UiFiles(Source);

#[derive(Clone)]
enum Source {
    Pod(Arc<PodFiles>),
    Folder(Arc<UiFolder>, watch::Sender<Situation>),
}

/// Why there is no file.
#[derive(Clone, Debug)]
enum Missing {
    /// Headlamp has none.
    Absent,
    /// It answers with something else, which says nothing of other files.
    Odd(Error),
    /// It does not answer.
    Unreached(Error),
}

impl Missing {
    fn answer(self) -> Response<Body> {
        match self {
            Self::Absent => ui_file::absent(),
            Self::Odd(error) | Self::Unreached(error) => ui_file::failure(error),
        }
    }

    fn error(self, path: &str) -> Error {
        match self {
            Self::Absent => no_headlamp(path),
            Self::Odd(error) | Self::Unreached(error) => error,
        }
    }
}

type Got = Result<Arc<UiFile>, Missing>;
type Flight = Shared<BoxFuture<'static, Got>>;

/// Where these are, below the base.
const PAGE: &str = "/";
const CONFIG: &str = "/config";
const PLUGINS: &str = "/plugins";

/// How long what may take, and how much may be held.
#[derive(Clone, Copy)]
struct Patience {
    http: pod_http::Limits,
    /// For the pod, where the cache could answer.
    short: Duration,
    /// The same once the pod is known not to answer.
    shorter: Duration,
    /// What the pod said so recently still holds: between fetching ahead and the browser's asking.
    fresh: Duration,
    /// Bytes in memory.
    memory: usize,
}

const PATIENCE: Patience = Patience {
    http: pod_http::LIMITS,
    short: Duration::from_secs(2),
    shorter: Duration::from_millis(300),
    fresh: Duration::from_secs(5),
    memory: 32 * 1024 * 1024,
};

impl UiFiles {
    /// `connect` opens a stream to the pod's port, where `tls` is spoken or not; `base` is
    /// Headlamp's base URL. Without a cache its files are kept in memory alone.
    pub(crate) fn from_pod(connect: Connect, tls: bool, base: &str, cache: Option<UiCache>) -> Result<Self> {
        Self::with_patience(connect, tls, base, cache, PATIENCE)
    }

    fn with_patience(
        connect: Connect,
        tls: bool,
        base: &str,
        cache: Option<UiCache>,
        patience: Patience,
    ) -> Result<Self> {
        Ok(Self(Source::Pod(Arc::new(PodFiles {
            http: PodHttp::new(connect, tls, patience.http)?,
            base: base.trim_end_matches('/').to_owned(),
            cache,
            patience,
            memory: Mutex::default(),
            flights: Mutex::default(),
            page_on_disk: Mutex::default(),
            situation: watch::Sender::new(Situation::NotAsked),
        }))))
    }

    /// From a folder that Headlamp's build made.
    pub(crate) fn from_folder(folder: &Path, base: &str) -> Result<Self> {
        let folder = UiFolder::new(folder, base)?;
        Ok(Self(Source::Folder(Arc::new(folder), watch::Sender::new(Situation::Reached))))
    }

    /// Fetches the index page, `/config`, `/plugins` and what the page names, side by side. A
    /// page that only the cache has is no error: see [`UiFiles::situation`].
    pub(crate) async fn prefetch(&self) -> Result<()> {
        match &self.0 {
            Source::Pod(pod) => pod.prefetch().await,
            Source::Folder(..) => Ok(()),
        }
    }

    /// The answer to a `GET` or `HEAD` of a path without the base, with its headers of content and
    /// caching. Where Headlamp cannot be reached it is a 502 with the error in its extensions.
    pub(crate) async fn file(&self, path: &str, headers: &HeaderMap) -> Response<Body> {
        let role = role(path);
        let got = if role == Role::Page { self.get(PAGE).await } else { self.get(path).await };
        match got {
            Ok(file) => file.answer(headers, role == Role::Hashed && file.fits(path)).await,
            // An address of the application may end like a file's name.
            Err(Missing::Absent) if role == Role::Named && navigates(headers) => match self.get(PAGE).await {
                Ok(page) => page.answer(headers, false).await,
                Err(missing) => missing.answer(),
            },
            Err(missing) => missing.answer(),
        }
    }

    /// The answer to `GET /plugins`: which plugins the page loads.
    pub(crate) async fn plugins(&self) -> Response<Body> {
        match self.get(PLUGINS).await {
            Ok(list) => list.answer(&HeaderMap::new(), false).await,
            Err(Missing::Absent) => no_plugins().answer(&HeaderMap::new(), false).await,
            Err(missing) => missing.answer(),
        }
    }

    /// Headlamp's own `/config`; the cache's where the pod cannot be reached.
    pub(crate) async fn config(&self) -> Result<Bytes> {
        self.get(CONFIG).await.map_err(|missing| missing.error(CONFIG))?.plain()
    }

    /// Where the page comes from, as it changes.
    pub(crate) fn situation(&self) -> watch::Receiver<Situation> {
        match &self.0 {
            Source::Pod(pod) => pod.situation.subscribe(),
            Source::Folder(_, situation) => situation.subscribe(),
        }
    }

    /// After a sleep: the other ends of the connections have forgotten them, and what was fresh is
    /// so no more.
    pub(crate) fn reset(&self) {
        if let Source::Pod(pod) = &self.0 {
            pod.http.reset();
            pod.memory().forget_times();
        }
    }

    async fn get(&self, path: &str) -> Got {
        match &self.0 {
            Source::Pod(pod) => pod.get(path).await,
            Source::Folder(folder, _) => from_folder(folder, path).map_err(Missing::Odd)?.ok_or(Missing::Absent),
        }
    }
}

fn from_folder(folder: &UiFolder, path: &str) -> Result<Option<Arc<UiFile>>> {
    Ok(match path {
        PAGE => folder.page(),
        CONFIG => Some(Arc::new(json(headlamp_config::without_pod()?))),
        PLUGINS => Some(no_plugins()),
        path => folder.file(path),
    })
}

fn no_plugins() -> Arc<UiFile> {
    Arc::new(json("[]"))
}

fn json(text: impl Into<Bytes>) -> UiFile {
    UiFile::new("application/json".to_owned(), Encoding::Plain, None, text.into())
}

struct PodFiles {
    http: PodHttp,
    base: String,
    cache: Option<UiCache>,
    patience: Patience,
    memory: Mutex<Memory>,
    /// What is being fetched, by path.
    flights: Mutex<HashMap<String, Flight>>,
    /// The digest of the index page that is on disk, as far as is known.
    page_on_disk: Mutex<Option<String>>,
    situation: watch::Sender<Situation>,
}

impl PodFiles {
    async fn prefetch(self: &Arc<Self>) -> Result<()> {
        if self.kept(PAGE).await.is_none() {
            // What the page names will want connections of its own.
            self.http.warm(MOST_CONNECTIONS.saturating_sub(3));
        }
        // A page without its plugins is still a page.
        let (page, config, _) = tokio::join!(self.get(PAGE), self.get(CONFIG), self.get(PLUGINS));
        let page = page.map_err(|missing| missing.error(PAGE))?;
        // A pod that does not answer is not waited for again.
        let reached = *self.situation.borrow() == Situation::Reached;
        if reached {
            self.get_named(&page).await;
        }
        config.map(drop).map_err(|missing| missing.error(CONFIG))
    }

    /// All that the index page names; whether all of it is there.
    async fn get_named(self: &Arc<Self>, page: &UiFile) -> bool {
        let Ok(plain) = page.plain() else { return false };
        let paths = index_page::named_files(&plain, &self.base);
        if let Some(cache) = &self.cache {
            let needed: Vec<String> = paths.iter().map(|path| self.key(path)).collect();
            let always = [PAGE, CONFIG, PLUGINS].map(|path| self.key(path));
            cache.need(needed.iter().chain(&always).map(String::as_str));
        }
        join_all(paths.iter().map(|path| self.get(path))).await.iter().all(Result::is_ok)
    }

    async fn get(self: &Arc<Self>, path: &str) -> Got {
        if role(path) == Role::Hashed {
            if let Some(kept) = self.kept(path).await.filter(|kept| kept.fits(path)) {
                return Ok(kept);
            }
            return self.fetch(path).await;
        }
        if let Some(file) = self.memory().fresh(path, self.patience.fresh) {
            return Ok(file);
        }
        let Some(kept) = self.kept(path).await else { return self.fetch(path).await };
        let out = matches!(*self.situation.borrow(), Situation::FromCache(_) | Situation::Unreachable(_));
        let limit = if out { self.patience.shorter } else { self.patience.short };
        match timeout(limit, self.fetch(path)).await {
            Ok(Ok(file)) => return Ok(file),
            Ok(Err(Missing::Absent)) => return Err(Missing::Absent),
            Ok(Err(Missing::Odd(_))) => {}
            Ok(Err(Missing::Unreached(error))) => self.tell(Situation::FromCache(error)),
            Err(_) => self.tell(Situation::FromCache(slow())),
        }
        Ok(kept)
    }

    /// Joins the fetch of this path that is under way, or begins one.
    fn fetch(self: &Arc<Self>, path: &str) -> Flight {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(path) {
            return flight.clone();
        }
        let (this, asked) = (self.clone(), path.to_owned());
        let task = tokio::spawn(async move {
            let got = this.ask(&asked).await;
            this.flights().remove(&asked);
            got
        });
        let ended = |error: tokio::task::JoinError| {
            Missing::Odd(Error::bug("the fetch of a file ended early").caused_by(&error))
        };
        let flight = async move { task.await.unwrap_or_else(|error| Err(ended(error))) }.boxed().shared();
        flights.insert(path.to_owned(), flight.clone());
        flight
    }

    /// Asks the pod, and keeps what it says.
    async fn ask(self: &Arc<Self>, path: &str) -> Got {
        let kept = self.kept(path).await;
        let began = Instant::now();
        let got = self.ask_pod(path, kept.as_ref()).await;
        match &got {
            Ok(file) => {
                self.answered(began.elapsed());
                self.memory().put(path, file, Some(Instant::now()), self.patience.memory);
                if path == PAGE {
                    self.follow(file.clone());
                } else if kept.as_ref() != Some(file) {
                    self.write(path, file);
                }
            }
            Err(Missing::Absent) => {
                self.answered(began.elapsed());
                self.memory().remove(path);
            }
            Err(Missing::Odd(_)) => {}
            Err(Missing::Unreached(_)) if matches!(*self.situation.borrow(), Situation::FromCache(_)) => {}
            Err(Missing::Unreached(error)) => self.tell(Situation::Unreachable(error.clone())),
        }
        got
    }

    async fn ask_pod(&self, path: &str, kept: Option<&Arc<UiFile>>) -> Got {
        let address = format!("{}{path}", self.base);
        // These are small, and their times say nothing.
        let since =
            kept.filter(|_| ![PAGE, CONFIG, PLUGINS].contains(&path)).and_then(|kept| kept.last_modified.as_deref());
        let answer = self.http.get(&address, since).await.map_err(Missing::Unreached)?;
        if answer.status != StatusCode::NOT_MODIFIED {
            return read(path, answer);
        }
        // A server says so of older files too, as after a return to an older image.
        match kept {
            Some(kept) if text(&answer.headers, header::LAST_MODIFIED) == kept.last_modified => Ok(kept.clone()),
            _ => read(path, self.http.get(&address, None).await.map_err(Missing::Unreached)?),
        }
    }

    /// Keeps a new index page, once all that it names is kept.
    fn follow(self: &Arc<Self>, page: Arc<UiFile>) {
        if self.page_on_disk().as_ref() == Some(&page.digest) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let named = async {
                if this.get_named(&page).await {
                    this.write(PAGE, &page);
                    *this.page_on_disk() = Some(page.digest.clone());
                }
            };
            tokio::join!(named, this.get_later(&page));
        });
    }

    /// What the page's scripts load when they need it.
    async fn get_later(self: &Arc<Self>, page: &UiFile) {
        let Ok(page) = page.plain() else { return };
        let is_script = |path: &String| ui_file::type_of(path).is_some_and(|named| named.contains("javascript"));
        let scripts = index_page::named_files(&page, &self.base).into_iter().filter(is_script);
        let later = stream::iter(scripts).then(|script| self.named_in(script)).flat_map(stream::iter);
        later.for_each_concurrent(AHEAD, async |path| drop(self.get(&path).await)).await;
    }

    /// What this script names and nobody has kept.
    async fn named_in(self: &Arc<Self>, script: String) -> Vec<String> {
        let Ok(file) = self.get(&script).await else { return Vec::new() };
        let this = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let Ok(plain) = file.plain() else { return Vec::new() };
            let mut paths = index_page::named_in_script(&plain, &script);
            paths.retain(|path| {
                let on_disk = || this.cache.as_ref().is_some_and(|cache| cache.has(&this.key(path)));
                this.memory().get(path).is_none() && !on_disk()
            });
            paths
        });
        reading.await.unwrap_or_default()
    }

    /// What memory or disk has, however old.
    async fn kept(&self, path: &str) -> Option<Arc<UiFile>> {
        if let Some(file) = self.memory().get(path) {
            return Some(file);
        }
        let (cache, key) = (self.cache.clone()?, self.key(path));
        let read = tokio::task::spawn_blocking(move || cache.read(&key)).await.ok().flatten();
        // Meanwhile the pod may have answered.
        let mut memory = self.memory();
        if let Some(newer) = memory.get(path) {
            return Some(newer);
        }
        let file = Arc::new(read?);
        memory.put(path, &file, None, self.patience.memory);
        Some(file)
    }

    fn write(&self, path: &str, file: &Arc<UiFile>) {
        if let Some(cache) = self.cache.clone() {
            let (key, file) = (self.key(path), file.clone());
            tokio::task::spawn_blocking(move || cache.write(&key, &file));
        }
    }

    /// A page at another base is another page.
    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A pod for which the cache had to stand in has not recovered while it would have to again.
    fn answered(&self, after: Duration) {
        let late = after > self.patience.short;
        if !(late && matches!(*self.situation.borrow(), Situation::FromCache(_))) {
            self.tell(Situation::Reached);
        }
    }

    fn tell(&self, now: Situation) {
        self.situation.send_if_modified(|situation| {
            let changed = std::mem::discriminant(situation) != std::mem::discriminant(&now);
            if changed {
                *situation = now;
            }
            changed
        });
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_on_disk(&self) -> MutexGuard<'_, Option<String>> {
        self.page_on_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of the pod comes to.
fn read(path: &str, answer: PodAnswer) -> Got {
    let unusual = |cause: String| {
        let error = no_headlamp(path).cause(cause);
        if [PAGE, CONFIG].contains(&path) { Missing::Unreached(error) } else { Missing::Odd(error) }
    };
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if path != PAGE && path != CONFIG => return Err(Missing::Absent),
        status => return Err(unusual(format!("it answered `{status}`"))),
    }
    let encoding = match text(&answer.headers, header::CONTENT_ENCODING).as_deref() {
        None | Some("" | "identity") => Encoding::Plain,
        Some("br") => Encoding::Brotli,
        Some(other) => return Err(unusual(format!("it is encoded as `{other}`, which nobody asked for"))),
    };
    let content_type = text(&answer.headers, header::CONTENT_TYPE).unwrap_or_default();
    let file = UiFile::new(content_type, encoding, text(&answer.headers, header::LAST_MODIFIED), answer.body);
    let fits = match path {
        PAGE => file.is_html(),
        CONFIG => file.plain().is_ok_and(|plain| headlamp_config::is_config(&plain)),
        PLUGINS => {
            let list =
                file.plain().ok().filter(|plain| serde_json::from_slice::<Vec<serde_json::Value>>(plain).is_ok());
            // It says that this is text.
            return list.map(|list| Arc::new(json(list))).ok_or(Missing::Absent);
        }
        // The index page stands in for what is not there.
        _ if !file.fits(path) => return Err(Missing::Absent),
        _ => true,
    };
    if fits { Ok(Arc::new(file)) } else { Err(unusual("it is something else".to_owned())) }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn no_headlamp(path: &str) -> Error {
    Error::unreachable(format!("Headlamp's pod has no usable `{path}`"))
        .hint("is this Headlamp, and is its `-base-url` the one that its Deployment says?")
}

fn slow() -> Error {
    Error::unreachable("Headlamp's pod does not answer in time")
}

/// The files that were used last, up to a bound on their bytes.
#[derive(Default)]
struct Memory {
    files: HashMap<String, Held>,
    bytes: usize,
    uses: u64,
}

struct Held {
    file: Arc<UiFile>,
    /// When the pod said so; `None`: it comes from the disk.
    said: Option<Instant>,
    used: u64,
}

impl Memory {
    fn get(&mut self, path: &str) -> Option<Arc<UiFile>> {
        self.uses += 1;
        let held = self.files.get_mut(path)?;
        held.used = self.uses;
        Some(held.file.clone())
    }

    /// What the pod said not longer ago than this.
    fn fresh(&self, path: &str, limit: Duration) -> Option<Arc<UiFile>> {
        self.files
            .get(path)
            .filter(|held| held.said.is_some_and(|said| said.elapsed() < limit))
            .map(|held| held.file.clone())
    }

    fn put(&mut self, path: &str, file: &Arc<UiFile>, said: Option<Instant>, limit: usize) {
        self.remove(path);
        if file.body.len() > limit {
            return;
        }
        self.uses += 1;
        self.bytes += file.body.len();
        self.files.insert(path.to_owned(), Held { file: file.clone(), said, used: self.uses });
        while self.bytes > limit {
            let oldest = self.files.iter().min_by_key(|(_, held)| held.used).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, path: &str) {
        if let Some(held) = self.files.remove(path) {
            self.bytes -= held.file.body.len();
        }
    }

    fn forget_times(&mut self) {
        for held in self.files.values_mut() {
            held.said = None;
        }
    }
}

#[cfg(test)]
mod test_pod;
#[cfg(test)]
mod tests;
