//! The steady load: small `GET`s, one after another on each of a few connections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::page_client::{PageClient, PageConnection};
use crate::server::lock;

pub(super) struct Load {
    seen: Arc<Seen>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    api: AtomicUsize,
    files: AtomicUsize,
    slowest: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// A path, and what stands in its answer.
type Expected = (String, &'static str);

impl Load {
    pub(super) fn start(page: &PageClient, assets: &[String]) -> Self {
        let seen = Arc::new(Seen::default());
        let expected = |pairs: &[(&str, &'static str)]| -> Vec<Expected> {
            pairs.iter().map(|(path, within)| ((*path).to_owned(), *within)).collect()
        };
        let api = expected(&[
            ("/clusters/main/version", "gitVersion"),
            ("/clusters/main/api/v1/namespaces/busy/pods/web", "\"web\""),
            ("/clusters/main/api/v1/namespaces", "kube-system"),
            ("/clusters/main/apis/apps/v1/namespaces/headlamp/deployments", "headlamp"),
        ]);
        let mut files = expected(&[("/config", "\"main\""), ("/", "<html"), ("/plugins", "[]")]);
        files.extend(assets.iter().take(2).map(|path| (path.clone(), "")));
        let task = |paths: &[Expected], files: bool| {
            tokio::spawn(ask_on(page.clone(), paths.to_vec(), files, Arc::clone(&seen)))
        };
        let tasks = vec![task(&api, false), task(&api, false), task(&files, true)];
        Self { seen, tasks }
    }

    /// How many requests to the API were answered.
    pub(super) fn api(&self) -> usize {
        self.seen.api.load(Ordering::Relaxed)
    }

    /// How many files were.
    pub(super) fn files(&self) -> usize {
        self.seen.files.load(Ordering::Relaxed)
    }

    /// How many requests there were, how long the slowest took, and what failed.
    pub(super) async fn stop(self) -> (usize, Duration, Vec<String>) {
        self.seen.over.store(true, Ordering::Relaxed);
        let requests = self.api() + self.files();
        for task in self.tasks {
            if let Err(error) = task.await {
                lock(&self.seen.failures).push(error.to_string());
            }
        }
        let failures = lock(&self.seen.failures).clone();
        (requests, *lock(&self.seen.slowest), failures)
    }
}

async fn ask_on(page: PageClient, paths: Vec<Expected>, files: bool, seen: Arc<Seen>) {
    let mut connection = None;
    for (path, within) in paths.iter().cycle() {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        match ask(&page, &mut connection, path, within).await {
            Ok(()) => {
                let count = if files { &seen.files } else { &seen.api };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                connection = None;
                lock(&seen.failures).push(error);
            }
        }
        {
            let mut slowest = lock(&seen.slowest);
            *slowest = began.elapsed().max(*slowest);
        }
        sleep(PAUSE).await;
    }
}

async fn ask(
    page: &PageClient,
    connection: &mut Option<PageConnection>,
    path: &str,
    within: &str,
) -> Result<(), String> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(page.connect().await?),
    };
    let body = connection.get(path).await?;
    if String::from_utf8_lossy(&body).contains(within) {
        Ok(())
    } else {
        Err(format!("GET {path}: `{within}` is not in the answer"))
    }
}

/// Between two requests of a connection.
const PAUSE: Duration = Duration::from_millis(20);
