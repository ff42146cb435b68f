#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::clock::Clock;
use crate::environment::Environment;
use crate::token_source::tests::settings;
use crate::ui::Ui;

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// What a process that began now makes of an entry refreshed and ending so many seconds from now.
fn is_shared(wish: Wish, refreshed: i64, expires: i64) -> bool {
    let clock = Clock::fixed(|| Timestamp::from_second(1_900_000_000).unwrap());
    let (settings, environment) = (settings("id"), Environment::default());
    let session = Session {
        settings: &settings,
        ui: Ui::new(),
        environment: &environment,
        clock,
        interactive: None,
        cluster: None,
        tab: None,
    };
    let now = clock.now();
    let entry = Entry::of(settings.identity.clone(), "t", now, after(now, expires));
    let entry = Entry { refreshed: after(now, refreshed), ..entry };
    shared(session, &entry, wish, now).is_some()
}

#[test]
fn a_token_just_obtained_is_shared_even_if_it_ends_soon() {
    for wish in [Wish::Valid, Wish::Refreshed] {
        assert!(is_shared(wish, 0, 30), "{wish:?}");
        assert!(is_shared(wish, 0, -59), "clocks differ: {wish:?}");
        assert!(!is_shared(wish, 0, -60), "{wish:?}");
        assert!(!is_shared(wish, -10, 30), "{wish:?}");
    }
    assert!(is_shared(Wish::Valid, -10, 300));
    assert!(!is_shared(Wish::Refreshed, -10, 300));
    assert!(!is_shared(Wish::SignedIn, 0, 300));
}

#[test]
fn what_happened_before_the_clock_was_set_back_is_not_taken_for_news() {
    assert!(!is_shared(Wish::Refreshed, 3600, 7200));
    let began = Timestamp::from_second(1_900_000_000).unwrap();
    assert!(meanwhile(began, began, began));
    assert!(!meanwhile(after(began, -1), began, began));
    assert!(!meanwhile(after(began, 3600), began, after(began, 5)));
}

#[test]
fn nobody_is_asked_again_soon_whatever_the_end_was() {
    for kind in [Kind::SignInFailed, Kind::Unreachable, Kind::Other, Kind::Settings, Kind::Bug] {
        assert_eq!(back_off(kind, true), Some(BACK_OFF), "{kind:?}");
    }
    for kind in [Kind::SignInFailed, Kind::Unreachable, Kind::Other, Kind::Bug] {
        assert_eq!(back_off(kind, false), Some(SignedDuration::ZERO), "only those who waited share it: {kind:?}");
    }
    for kind in [Kind::SignInNeeded, Kind::Interrupted] {
        assert_eq!(back_off(kind, true), None, "{kind:?}");
    }
    assert_eq!(back_off(Kind::Settings, false), None);
}

#[test]
fn a_failed_sign_in_is_told_again_until_its_back_off_ends() {
    let at = Timestamp::from_second(1_900_000_000).unwrap();
    let told = |began: i64, now: i64| {
        let failure = Failure { at, until: after(at, 30), error: Error::sign_in_failed("no") };
        backed_off(failure, after(at, began), after(at, now)).map(|error| error.causes().to_vec())
    };
    assert_eq!(told(-5, 0), Some(Vec::new()), "who waited shares it as it is");
    assert_eq!(told(-5, 60), Some(Vec::new()), "however long it waited");
    assert_eq!(told(10, 10), Some(vec!["that was 10 s ago; nobody is asked again for another 20 s".to_owned()]));
    assert_eq!(told(30, 30), None);
    assert_eq!(told(-5, -5), None, "the clock was set back");
}
