//! What the cluster holds: objects with one version number for all of them, and their history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::kind::Kind;
use crate::server::lock;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    /// Empty where there is none.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Which objects of one kind are meant.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) kind: &'static Kind,
    /// Empty: in all namespaces.
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
}

/// A change that was.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// With the version of this change, also where it was deleted.
    pub(crate) object: Arc<Value>,
    pub(crate) deleted: bool,
    pub(crate) previous: Option<Arc<Value>>,
}

/// Why an object was not stored or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotFound,
    Exists,
    Conflict,
    NoNamespace,
}

/// The version that was asked for is forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired;

/// An object where it is.
pub(crate) type Object = (Key, Arc<Value>);

#[derive(Default)]
pub(crate) struct Store {
    state: Mutex<State>,
    /// The newest version.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Change>,
}

impl Store {
    /// Tells when there is something new.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn revision(&self) -> u64 {
        lock(&self.state).revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        lock(&self.state).objects.get(key).cloned()
    }

    /// Changes an object under its key, or makes it, or removes it: whatever `edit` makes of what is
    /// there. What is stored has metadata as a server gives it.
    pub(crate) fn edit(
        &self,
        key: &Key,
        edit: impl FnOnce(Option<&Value>) -> Result<Option<Value>, Refused>,
    ) -> Result<Arc<Value>, Refused> {
        let mut state = lock(&self.state);
        let previous = state.objects.get(key).cloned();
        let edited = edit(previous.as_deref())?;
        let deleted = edited.is_none();
        let mut object = edited.or_else(|| previous.as_deref().cloned()).ok_or(Refused::NotFound)?;
        let revision = state.revision + 1;
        finish(&mut object, key, previous.as_deref(), revision);
        let object = Arc::new(object);
        state.revision = revision;
        if deleted {
            state.objects.remove(key);
        } else {
            state.objects.insert(key.clone(), Arc::clone(&object));
        }
        state.history.push(Change { revision, key: key.clone(), object: Arc::clone(&object), deleted, previous });
        drop(state);
        self.changed.send_replace(revision);
        Ok(object)
    }

    /// The keys of all objects in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> Vec<Key> {
        lock(&self.state).objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// The objects as they are now, or were at a version, by key, and the version.
    pub(crate) fn list(&self, selection: &Selection, version: Option<u64>) -> Result<(u64, Vec<Object>), Expired> {
        let state = lock(&self.state);
        let version = version.unwrap_or(state.revision);
        if version < state.compacted {
            return Err(Expired);
        }
        let mut objects: BTreeMap<Key, Arc<Value>> = state
            .objects
            .iter()
            .filter(|(key, _)| selection.has_place(key))
            .map(|(k, o)| (k.clone(), o.clone()))
            .collect();
        for change in state.since(version).iter().rev().filter(|change| selection.has_place(&change.key)) {
            match &change.previous {
                Some(previous) => objects.insert(change.key.clone(), Arc::clone(previous)),
                None => objects.remove(&change.key),
            };
        }
        Ok((version, objects.into_iter().filter(|(_, object)| selection.has(object)).collect()))
    }

    /// What happened after a version to what is selected, as events, and the version that this
    /// brings a watch to.
    pub(crate) fn events(&self, selection: &Selection, after: u64) -> Result<(u64, Vec<Event>), Expired> {
        let state = lock(&self.state);
        if after < state.compacted {
            return Err(Expired);
        }
        let changes = state.since(after).iter().filter(|change| selection.has_place(&change.key));
        let events = changes.filter_map(|change| change.as_seen_by(selection)).collect();
        Ok((state.revision.max(after), events))
    }

    /// Other things happen in the cluster.
    pub(crate) fn pass(&self, revisions: u64) {
        let revision = {
            let mut state = lock(&self.state);
            state.revision += revisions;
            state.revision
        };
        self.changed.send_replace(revision);
    }

    /// Forgets everything before now.
    pub(crate) fn compact(&self) {
        let mut state = lock(&self.state);
        state.compacted = state.revision;
        state.history.clear();
    }
}

impl State {
    fn since(&self, version: u64) -> &[Change] {
        let first = self.history.partition_point(|change| change.revision <= version);
        &self.history[first..]
    }
}

/// What a watch is told: `ADDED`, `MODIFIED` or `DELETED`, and the object.
pub(crate) type Event = (&'static str, Arc<Value>);

impl Change {
    /// An object that begins to fit the selection is new to its watch; one that ends to is gone.
    fn as_seen_by(&self, selection: &Selection) -> Option<Event> {
        let before = self.previous.as_ref().is_some_and(|object| selection.has(object));
        let now = !self.deleted && selection.has(&self.object);
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some((kind, Arc::clone(&self.object)))
    }
}

impl Selection {
    fn has_place(&self, key: &Key) -> bool {
        (key.group, key.resource) == (self.kind.group, self.kind.resource)
            && (self.namespace.is_empty() || key.namespace == self.namespace)
    }

    fn has(&self, object: &Value) -> bool {
        requirements(&self.labels).all(|requirement| label_fits(requirement, &object["metadata"]["labels"]))
            && requirements(&self.fields).all(|requirement| field_fits(requirement, object))
    }
}

/// Parts between commas that stand outside parentheses.
fn requirements(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = selector.split(move |character| {
        depth += match character {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        character == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

fn label_fits(requirement: &str, labels: &Value) -> bool {
    let label = |name: &str| labels[name.trim()].as_str();
    let among =
        |list: &str, value: &str| list.trim_matches(['(', ')', ' ']).split(',').any(|item| item.trim() == value);
    if let Some((name, list)) = requirement.split_once(" notin ") {
        return label(name).is_none_or(|value| !among(list, value));
    }
    if let Some((name, list)) = requirement.split_once(" in ") {
        return label(name).is_some_and(|value| among(list, value));
    }
    if let Some((name, value)) = requirement.split_once("!=") {
        return label(name) != Some(value.trim());
    }
    if let Some((name, value)) = requirement.split_once("==").or_else(|| requirement.split_once('=')) {
        return label(name) == Some(value.trim());
    }
    match requirement.strip_prefix('!') {
        Some(name) => label(name).is_none(),
        None => label(requirement).is_some(),
    }
}

fn field_fits(requirement: &str, object: &Value) -> bool {
    let field = |path: &str| {
        let found = path.trim().split('.').fold(object, |value, name| &value[name]);
        found.as_str().unwrap_or_default().to_owned()
    };
    if let Some((path, value)) = requirement.split_once("!=") {
        return field(path) != value;
    }
    let (path, value) =
        requirement.split_once("==").or_else(|| requirement.split_once('=')).unwrap_or((requirement, ""));
    field(path) == value
}

/// Gives an object what a server gives it.
fn finish(object: &mut Value, key: &Key, previous: Option<&Value>, revision: u64) {
    let kept =
        |name: &str| previous.map(|previous| previous["metadata"][name].clone()).filter(|value| !value.is_null());
    let now = || json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let uid = kept("uid").unwrap_or_else(|| json!(format!("{revision:08x}-0000-4000-8000-{:012x}", revision)));
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    let created = kept("creationTimestamp")
        .or_else(|| Some(object["metadata"]["creationTimestamp"].clone()).filter(Value::is_string))
        .unwrap_or_else(now);
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(key.name);
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(key.namespace);
    }
    metadata["uid"] = uid;
    metadata["creationTimestamp"] = created;
    metadata["resourceVersion"] = json!(revision.to_string());
}
