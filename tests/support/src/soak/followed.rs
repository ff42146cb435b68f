//! A list that is kept up to date as Headlamp's page keeps it: by one watch, which it never opens
//! again, and whose events it ignores unless they are newer than the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::page_client::PageClient;
use crate::server::lock;

/// Name and version.
pub(super) type Identity = (String, String);

pub(super) struct Followed {
    pub(super) resource: &'static str,
    pub(super) namespace: &'static str,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// By uid.
    objects: Mutex<BTreeMap<String, Identity>>,
    events: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Followed {
    pub(super) fn start(page: &PageClient, resource: &'static str, namespace: &'static str) -> Self {
        let seen = Arc::new(Seen::default());
        let task = {
            let (seen, page) = (Arc::clone(&seen), page.clone());
            let path = format!("/clusters/main/api/v1/namespaces/{namespace}/{resource}");
            tokio::spawn(async move {
                if let Err(error) = seen.follow(&page, &path).await {
                    lock(&seen.failures).push(error);
                }
            })
        };
        Self { resource, namespace, seen, task }
    }

    /// What the page shows now.
    pub(super) fn objects(&self) -> BTreeSet<Identity> {
        lock(&self.seen.objects).values().cloned().collect()
    }

    pub(super) fn events(&self) -> usize {
        self.seen.events.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> Vec<String> {
        lock(&self.seen.failures).clone()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// An error whatever ends it: the watch must not end.
    async fn follow(&self, page: &PageClient, path: &str) -> Result<(), String> {
        let list = page.connect().await?.get(path).await?;
        let list: Value = serde_json::from_slice(&list).map_err(|error| error.to_string())?;
        let mut newest = version(&list["metadata"]).unwrap_or_default();
        for object in list["items"].as_array().into_iter().flatten() {
            self.keep(object);
        }
        let mut socket =
            page.socket(&format!("{path}?watch=1&resourceVersion={newest}"), "base64.binary.k8s.io").await?;
        while let Some(told) = socket.next().await? {
            let event: Value = serde_json::from_slice(&told).map_err(|error| error.to_string())?;
            self.events.fetch_add(1, Ordering::Relaxed);
            let object = &event["object"];
            match (version(&object["metadata"]), event["type"].as_str()) {
                (Some(version), _) if version <= newest => {}
                (Some(version), Some("ADDED" | "MODIFIED")) => {
                    self.keep(object);
                    newest = version;
                }
                (Some(version), Some("DELETED")) => {
                    lock(&self.objects).remove(uid(object));
                    newest = version;
                }
                _ => return Err(format!("an event that is none: {event}")),
            }
        }
        Err("the watch's websocket was closed".to_owned())
    }

    fn keep(&self, object: &Value) {
        if let Some(identity) = identity(object) {
            lock(&self.objects).insert(uid(object).to_owned(), identity);
        }
    }
}

pub(super) fn identity(object: &Value) -> Option<Identity> {
    let field = |name: &str| object["metadata"][name].as_str().map(str::to_owned);
    Some((field("name")?, field("resourceVersion")?))
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn version(metadata: &Value) -> Option<u64> {
    metadata["resourceVersion"].as_str()?.parse().ok()
}
