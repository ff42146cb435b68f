#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::settings::Subject;

impl Entry {
    /// An ID token that was obtained now and ends then, and nothing else.
    pub(crate) fn of(identity: Identity, token: &str, now: Timestamp, expires: Timestamp) -> Self {
        Self {
            identity,
            id_token: Some(Token { value: Secret::new(token), expires, issuer: None, audience: Vec::new() }),
            access_token: None,
            refresh_token: None,
            refresh_expires: None,
            person: None,
            signed_in: now,
            refreshed: now,
            subject: None,
        }
    }
}

fn entry(scopes: &[&str], token: &str) -> Entry {
    let now = Timestamp::from_second(1_900_000_000).unwrap();
    let identity = Identity {
        issuer: "https://id.example.com".to_owned(),
        client_id: "kubernetes".to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        resources: BTreeSet::new(),
        auth_params: BTreeMap::new(),
        login_hint: None,
        subject: Subject::Person,
        tls_verified: true,
    };
    Entry {
        refresh_token: Some(Secret::new("refresh")),
        subject: Some("jane".to_owned()),
        ..Entry::of(identity, token, now, now)
    }
}

fn empty() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache"));
    (folder, cache)
}

fn found(cache: &Cache, key: &Key) -> Option<Entry> {
    match cache.read(key).unwrap() {
        Found::Entry(entry) => Some(*entry),
        Found::Absent | Found::Damaged(_) => None,
    }
}

#[test]
fn what_is_written_is_read_and_no_other_identity_s() {
    let (_folder, cache) = empty();
    let (one, other) = (entry(&["openid"], "one"), entry(&["openid", "email"], "other"));
    let keys = [&one, &other].map(|entry| Key::of(&entry.identity));
    cache.write(&keys[0], &one).unwrap();
    assert!(matches!(cache.read(&keys[1]).unwrap(), Found::Absent));
    cache.write(&keys[1], &other).unwrap();
    assert_eq!((found(&cache, &keys[0]), found(&cache, &keys[1])), (Some(one.clone()), Some(other)));
    // One identity's file under another's name is not taken for it.
    fs::copy(cache.entry_path(&keys[0]), cache.entry_path(&keys[1])).unwrap();
    assert!(matches!(cache.read(&keys[1]).unwrap(), Found::Damaged(_)));
    assert!(cache.write(&keys[1], &one).is_err());
}

#[test]
fn members_of_later_versions_are_skipped_and_later_formats_are_not_read() {
    let (_folder, cache) = empty();
    let entry = entry(&["openid"], "token");
    let key = Key::of(&entry.identity);
    cache.write(&key, &entry).unwrap();
    let path = cache.entry_path(&key);
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value.as_object_mut().unwrap().insert("later".to_owned(), serde_json::json!([1]));
    fs::write(&path, value.to_string()).unwrap();
    assert_eq!(found(&cache, &key), Some(entry));
    value.as_object_mut().unwrap().insert("version".to_owned(), serde_json::json!(2));
    fs::write(&path, value.to_string()).unwrap();
    let Found::Damaged(reason) = cache.read(&key).unwrap() else { panic!("a later format was read") };
    assert!(reason.contains("version"), "{reason}");
}

proptest! {
    #[test]
    fn no_file_is_a_reason_to_panic_and_its_content_is_never_told(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        let (_folder, cache) = empty();
        let entry = entry(&["openid"], "secret-token");
        let key = Key::of(&entry.identity);
        cache.write(&key, &entry).unwrap();
        let path = cache.entry_path(&key);
        let whole = fs::read(&path).unwrap();
        for content in [bytes, whole.iter().copied().take(cut.index(whole.len())).collect()] {
            fs::write(&path, content).unwrap();
            match cache.read(&key).unwrap() {
                Found::Damaged(reason) => prop_assert!(!reason.contains("secret-token")),
                Found::Absent | Found::Entry(_) => prop_assert!(false, "it was believed"),
            }
            let _ = cache.failure(&key);
            prop_assert_eq!(cache.entries().unwrap().len(), 1);
        }
        // One write heals it.
        cache.write(&key, &entry).unwrap();
        prop_assert_eq!(found(&cache, &key), Some(entry));
    }

    #[test]
    fn no_name_is_taken_for_a_key_that_is_none(name in "\\PC*") {
        prop_assert!(Key::parse(&name).is_none_or(|key| key.as_str() == name));
    }
}
