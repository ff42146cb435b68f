//! What a page must be told after its watch was interrupted for longer than the server remembers:
//! the difference between what it has and what a new list says, as events of a watch.
//!
//! Newer pages ignore an event whose `resourceVersion` is not above the last one's. So the events
//! go out in ascending order, and a deletion, whose own number nobody knows any more, is given one
//! that no object has, above what the page saw last and not above the list's. There nearly always
//! is one: deletions took numbers of their own from the same sequence. Objects that ran out
//! together (events do) shared one; those left over go first and without a number, which pages
//! let through.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::resource_list::{About, Metadata, Object};

/// What the page has, by [`Metadata::identity`].
pub(crate) type Objects = HashMap<String, Known>;

/// An object that the page has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) resource_version: String,
    /// Its JSON, where the page shows this one object and so needs all of it when it is deleted.
    pub(crate) text: Option<String>,
}

impl Known {
    pub(crate) fn of(metadata: &Metadata, text: Option<&str>) -> Self {
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            resource_version: metadata.version().to_owned(),
            text: text.map(str::to_owned),
        }
    }
}

/// The difference, as it is collected from a new list.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    changed: Vec<(Option<u64>, String)>,
    taken: BTreeSet<u64>,
    objects: Objects,
}

impl Difference {
    /// Takes an object of the list. `had` is what the page has; where that is not known for sure,
    /// `unless_above` is the version up to which it has everything. `keep` keeps the object's text.
    pub(crate) fn add(
        &mut self,
        had: &Objects,
        unless_above: Option<&str>,
        about: &About,
        object: &Object<'_>,
        keep: bool,
    ) {
        let identity = object.metadata.identity();
        let version = object.metadata.version();
        let number = number(version);
        let kind = match had.get(&identity) {
            Some(known) if known.resource_version == version => None,
            Some(_) => Some("MODIFIED"),
            None if unless_above.is_some_and(|seen| !is_above(version, seen)) => None,
            None => Some("ADDED"),
        };
        let text = with_kind(about, object);
        let known = Known::of(&object.metadata, keep.then_some(text.as_str()));
        if let Some(kind) = kind {
            self.changed.push((number, format!(r#"{{"type":"{kind}","object":{text}}}"#)));
        }
        self.taken.extend(number);
        self.objects.insert(identity, known);
    }

    /// The events for the page, which has everything up to the version `seen`; and what it has then.
    pub(crate) fn finish(mut self, had: &Objects, about: &About, seen: &str) -> (Vec<String>, Objects) {
        let gone: Vec<_> = had.iter().filter(|(identity, _)| !self.objects.contains_key(*identity)).collect();
        let between = number(seen).zip(number(&about.resource_version));
        let mut free = between
            .into_iter()
            .flat_map(|(seen, now)| seen.saturating_add(1)..=now)
            .filter(|number| !self.taken.contains(number));
        let mut events: Vec<(Option<u64>, String)> = Vec::with_capacity(gone.len() + self.changed.len());
        for (identity, known) in gone {
            let number = free.next();
            let version = match (number, between) {
                (Some(number), _) => Some(number.to_string()),
                (None, Some(_)) => None,
                // Versions that are no numbers are compared by nobody.
                (None, None) => Some(about.resource_version.clone()),
            };
            events.push((number, deleted(about, identity, known, version)));
        }
        events.append(&mut self.changed);
        // A stable sort: what has no number stays in front.
        events.sort_by_key(|(number, _)| *number);
        (events.into_iter().map(|(_, text)| text).collect(), self.objects)
    }
}

/// A version as the number that it nearly always is (KEP-5504); other servers' may be any text.
pub(crate) fn number(version: &str) -> Option<u64> {
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| version.parse().ok()).flatten()
}

/// Whether the version is newer than the other; `false` where nobody can say.
pub(crate) fn is_above(version: &str, other: &str) -> bool {
    number(version).zip(number(other)).is_some_and(|(version, other)| version > other)
}

/// The object as a watch shows it: with its kind.
pub(crate) fn with_kind(about: &About, object: &Object<'_>) -> String {
    match object.text.strip_prefix('{') {
        Some(rest) if !object.typed && !about.kind.is_empty() => {
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            format!(
                r#"{{"kind":{},"apiVersion":{}{comma}{rest}"#,
                Value::from(&*about.kind),
                Value::from(&*about.api_version)
            )
        }
        _ => object.text.to_owned(),
    }
}

/// A deletion that we saw no event of.
fn deleted(about: &About, identity: &str, known: &Known, version: Option<String>) -> String {
    let whole = known.text.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut object: Value = whole.unwrap_or_else(|| {
        let mut metadata = BTreeMap::from([("name", &*known.name), ("uid", identity)]);
        if !known.namespace.is_empty() {
            metadata.insert("namespace", &known.namespace);
        }
        json!({"kind": about.kind, "apiVersion": about.api_version, "metadata": metadata})
    });
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        match version {
            Some(version) => metadata.insert("resourceVersion".to_owned(), Value::from(version)),
            None => metadata.remove("resourceVersion"),
        };
    }
    json!({"type": "DELETED", "object": object}).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn metadata(uid: &str, version: &str) -> Metadata {
        Metadata {
            uid: Some(uid.to_owned()),
            name: Some(uid.to_owned()),
            namespace: Some("a".to_owned()),
            resource_version: Some(version.to_owned()),
        }
    }

    fn objects(objects: &[(&str, &str)]) -> Objects {
        objects.iter().map(|(uid, version)| ((*uid).to_owned(), Known::of(&metadata(uid, version), None))).collect()
    }

    fn about(version: &str) -> About {
        About { kind: "Pod".to_owned(), api_version: "v1".to_owned(), resource_version: version.to_owned() }
    }

    fn difference(
        had: &Objects,
        seen: &str,
        list: &[(&str, &str)],
        version: &str,
        sure: bool,
    ) -> (Vec<String>, Objects) {
        let mut difference = Difference::default();
        for (uid, version) in list {
            let text = format!(r#"{{"metadata":{{"uid":"{uid}","name":"{uid}","resourceVersion":"{version}"}}}}"#);
            let object = Object { metadata: metadata(uid, version), text: &text, typed: false };
            difference.add(had, (!sure).then_some(seen), &about(version), &object, false);
        }
        difference.finish(had, &about(version), seen)
    }

    fn story((events, _): &(Vec<String>, Objects)) -> Vec<String> {
        let told = events.iter().map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            let metadata = &event["object"]["metadata"];
            format!(
                "{} {} {}",
                event["type"].as_str().unwrap(),
                metadata["uid"].as_str().unwrap(),
                metadata["resourceVersion"].as_str().unwrap_or("-")
            )
        });
        told.collect()
    }

    #[test]
    fn deletions_take_numbers_that_no_object_has() {
        let had = objects(&[("gone", "1"), ("stays", "2"), ("changes", "3")]);
        let told = difference(&had, "3", &[("new", "5"), ("changes", "4"), ("stays", "2")], "9", true);
        assert_eq!(story(&told), ["MODIFIED changes 4", "ADDED new 5", "DELETED gone 6"]);
        assert_eq!(told.1, objects(&[("stays", "2"), ("changes", "4"), ("new", "5")]));
    }

    #[test]
    fn deletions_that_shared_a_number_go_first_and_without_one() {
        let had = objects(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let told = difference(&had, "3", &[("d", "4")], "5", true);
        let story = story(&told);
        assert!(story[0].starts_with("DELETED") && story[0].ends_with(" -"), "{story:?}");
        assert!(story[1].starts_with("DELETED") && story[1].ends_with(" -"), "{story:?}");
        assert_eq!(story[2], "ADDED d 4");
        assert!(story[3].starts_with("DELETED") && story[3].ends_with(" 5"), "{story:?}");
    }

    #[test]
    fn versions_that_are_no_numbers_are_told_as_they_are() {
        let had = objects(&[("a", "x"), ("b", "y")]);
        let told = difference(&had, "y", &[("b", "z"), ("c", "q")], "end", true);
        assert_eq!(story(&told), ["DELETED a end", "MODIFIED b z", "ADDED c q"]);
    }

    #[test]
    fn nothing_changed_is_nothing_told() {
        let had = objects(&[("a", "1"), ("b", "2")]);
        let told = difference(&had, "2", &[("b", "2"), ("a", "1")], "900", true);
        assert!(told.0.is_empty());
    }

    #[test]
    fn what_the_page_had_is_not_told_again_even_if_we_never_saw_it() {
        let told = difference(&objects(&[]), "7", &[("old", "5"), ("new", "8")], "9", false);
        assert_eq!(story(&told), ["ADDED new 8"]);
        assert_eq!(told.1.len(), 2);
    }

    #[test]
    fn an_object_is_told_with_its_kind() {
        let with_kind =
            |text: &str, typed| with_kind(&about("1"), &Object { metadata: Metadata::default(), text, typed });
        assert_eq!(with_kind(r#"{"a":1}"#, false), r#"{"kind":"Pod","apiVersion":"v1","a":1}"#);
        assert_eq!(with_kind("{ }", false), r#"{"kind":"Pod","apiVersion":"v1" }"#);
        assert_eq!(with_kind(r#"{"kind":"X"}"#, true), r#"{"kind":"X"}"#);
    }

    proptest! {
        /// Of a history in which every change and deletion took a number of its own.
        #[test]
        fn a_page_that_heeds_only_ascending_versions_ends_with_the_list(
            changes in prop::collection::vec((0..6usize, any::<bool>()), 0..40),
            cut in 0..40usize,
        ) {
            let mut state: BTreeMap<String, u64> = BTreeMap::new();
            let mut had = None;
            let mut version = 0u64;
            for (index, (name, delete)) in changes.iter().enumerate() {
                if index == cut.min(changes.len() - 1) {
                    had = Some((state.clone(), version));
                }
                version += 1;
                let found = state.keys().find(|uid| uid.starts_with(&format!("{name}-"))).cloned();
                match (found, delete) {
                    (Some(uid), true) => { state.remove(&uid); }
                    (Some(uid), false) => { state.insert(uid, version); }
                    (None, _) => { state.insert(format!("{name}-{version}"), version); }
                }
            }
            let (mut page, seen) = had.unwrap_or_default();
            let known: Objects = page.iter().map(|(uid, version)| (uid.clone(), Known::of(&metadata(uid, &version.to_string()), None))).collect();
            let list: Vec<(String, String)> = state.iter().map(|(uid, version)| (uid.clone(), version.to_string())).collect();
            let list: Vec<(&str, &str)> = list.iter().map(|(uid, version)| (&**uid, &**version)).collect();
            let told = difference(&known, &seen.to_string(), &list, &version.to_string(), true);
            let mut last = seen;
            for line in story(&told) {
                let [kind, uid, number] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let number: u64 = number.parse().unwrap();
                prop_assert!(number > last && number <= version, "{line} after {last}");
                last = number;
                if kind == "DELETED" { page.remove(uid); } else { page.insert(uid.to_owned(), number); }
            }
            prop_assert_eq!(page, state);
        }
    }
}
