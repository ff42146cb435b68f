#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::api_connection::test_server::at_once;

const MAIN: &str = "https://main.example:6443";
const OTHER: &str = "https://other.example:6443";
const PAGE: &str = "headlamp/headlamp";

struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("open")
    }

    fn load(&self, server: &str) -> OpenState {
        OpenState::load(Some(self.folder()), server)
    }

    fn file(&self, server: &str) -> PathBuf {
        self.folder().join(file_name(&self.load(server).server))
    }

    fn own_port(&self, server: &str) -> Option<u16> {
        self.load(server).pages.get(PAGE)?.own
    }

    /// As if the cluster had been opened at this port.
    fn open(&self, server: &str, port: u16, own: bool) {
        let mut state = self.load(server);
        state.use_port(PAGE, port, own);
        state.save().unwrap_or_else(|error| panic!("{error}"));
    }
}

fn choice() -> Choice {
    Choice { namespace: "tools".into(), name: "headlamp".into(), port: Some("http".into()) }
}

fn holder(port: u16, user: &str) -> Holder {
    Holder::this(port, Some(user), Some("main"))
}

fn take(state: &OpenState, holder: &Holder) -> Claim {
    Running::take(state, holder).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_was_chosen_is_there_again_for_this_cluster_and_no_other() {
    let scene = Scene::new();
    let mut state = scene.load(MAIN);
    assert!(state.pages.is_empty() && state.choice.is_none());
    state.choice = Some(choice());
    state.use_port(PAGE, 23_456, true);
    state.save().unwrap();
    for spelling in [MAIN, "https://main.example:6443/", "https://MAIN.example:6443"] {
        assert_eq!(scene.own_port(spelling), Some(23_456), "{spelling}");
        assert_eq!(scene.load(spelling).choice, Some(choice()), "{spelling}");
    }
    assert_eq!(scene.load(OTHER).choice, None);
    assert_eq!(scene.load("no url").choice, None);
}

#[test]
fn it_lies_beside_the_tokens() {
    let environment = Environment::from([("KUBECACHEDIR", "/k")]);
    assert_eq!(folder(&environment), Some(PathBuf::from("/k/kubectl-headlamp/open")));
}

#[cfg(unix)]
#[test]
fn only_this_user_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    scene.open(MAIN, 20_000, true);
    let Claim::Mine(_running) = take(&scene.load(MAIN), &holder(20_000, "jane")) else { panic!("held") };
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scene.folder()), 0o700);
    let files: Vec<_> = std::fs::read_dir(scene.folder()).unwrap().map(|file| mode(&file.unwrap().path())).collect();
    assert_eq!(files, [0o600, 0o600]);
}

#[test]
fn a_damaged_file_counts_as_none_and_heals() {
    let scene = Scene::new();
    scene.open(MAIN, 23_456, true);
    let whole = std::fs::read_to_string(scene.file(MAIN)).unwrap();
    let damaged = [
        String::new(),
        "null".into(),
        whole.replace("\"version\": 2", "\"version\": 1"),
        whole.replace("23456", "99999"),
        whole[..whole.len() / 2].into(),
        whole.replace(&scene.load(MAIN).server, OTHER),
    ];
    for text in damaged {
        std::fs::write(scene.file(MAIN), &text).unwrap();
        assert_eq!(scene.own_port(MAIN), None, "{text}");
        assert!(!scene.load(OTHER).ports_to_try(PAGE).is_empty());
    }
    scene.open(MAIN, 23_456, true);
    assert_eq!(scene.own_port(MAIN), Some(23_456));
}

#[cfg(unix)]
#[test]
fn what_others_could_have_written_confirms_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    let mut state = scene.load(MAIN);
    state.choice = Some(choice());
    state.save().unwrap();
    std::fs::set_permissions(scene.file(MAIN), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(scene.load(MAIN).choice, None);
    let elsewhere = scene.0.path().join("elsewhere");
    std::fs::rename(scene.file(MAIN), &elsewhere).unwrap();
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, scene.file(MAIN)).unwrap();
    assert_eq!(scene.load(MAIN).choice, None);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_without_the_advice_for_tokens() {
    let scene = Scene::new();
    std::fs::write(scene.folder(), "a file").unwrap();
    let state = scene.load(MAIN);
    let errors = [state.save().unwrap_err(), Running::take(&state, &holder(20_000, "jane")).unwrap_err()];
    for error in errors {
        assert!(!error.to_string().contains("token") && !error.causes().is_empty(), "{error}");
    }
    let nowhere = OpenState::load(None, MAIN);
    nowhere.save().unwrap();
    assert!(matches!(take(&nowhere, &holder(20_000, "jane")), Claim::Mine(_)));
    assert_eq!(nowhere.ports_to_try(PAGE).len(), NEW_PORTS);
}

#[test]
fn a_cluster_keeps_its_port_and_never_gets_that_of_another() {
    let scene = Scene::new();
    let first = scene.load(MAIN).ports_to_try(PAGE)[0];
    assert_eq!(first, scene.load(MAIN).ports_to_try(PAGE)[0], "without anything remembered");
    // Another cluster has been there, and at the next one for once.
    scene.open(OTHER, first, true);
    scene.open(OTHER, first + 1, false);
    let ports = scene.load(MAIN).ports_to_try(PAGE);
    assert!(!ports.contains(&first) && !ports.contains(&(first + 1)), "{ports:?}");
    assert_eq!(ports[0], first + 2);
    assert_eq!(
        scene.load(MAIN).port_of_another(PAGE, first + 1).as_deref(),
        Some("headlamp/headlamp at https://other.example:6443/")
    );
    assert_eq!(scene.load(OTHER).port_of_another(PAGE, first + 1), None);
    assert_eq!(scene.own_port(OTHER), Some(first));
}

#[test]
fn another_headlamp_of_the_same_cluster_gets_another_port() {
    let scene = Scene::new();
    scene.open(MAIN, 23_456, true);
    let mut state = scene.load(MAIN);
    assert_eq!(
        state.port_of_another("team/ui", 23_456).as_deref(),
        Some("headlamp/headlamp at https://main.example:6443/")
    );
    assert_eq!(state.port_of_another(PAGE, 23_456), None);
    // The ports that it would take, one after the other, are the first one's.
    let wanted = state.ports_to_try("team/ui");
    state.use_port(PAGE, wanted[0], false);
    assert_eq!(state.ports_to_try("team/ui")[0], wanted[1]);
    state.use_port("team/ui", wanted[1], false);
    assert_eq!(state.ports_to_try("team/ui")[0], wanted[1]);
    assert_eq!(state.ports_to_try(PAGE)[..2], [23_456, wanted[0]]);
    assert!(!state.ports_to_try(PAGE).contains(&wanted[1]));
}

#[test]
fn two_that_are_opened_at_once_both_keep_their_ports() {
    let scene = Scene::new();
    let (mut one, mut other) = (scene.load(MAIN), scene.load(MAIN));
    one.use_port(PAGE, 23_456, false);
    other.use_port("team/ui", 23_457, false);
    one.save().unwrap();
    other.save().unwrap();
    assert_eq!(scene.own_port(MAIN), Some(23_456));
    assert!(scene.load(MAIN).port_of_another(PAGE, 23_457).is_some());
}

#[test]
fn a_port_that_stood_in_once_does_so_again_and_does_not_replace_the_clusters_own() {
    let scene = Scene::new();
    scene.open(MAIN, 23_456, true);
    scene.open(MAIN, 23_999, false);
    scene.open(MAIN, 23_111, false);
    assert_eq!(scene.load(MAIN).ports_to_try(PAGE)[..3], [23_456, 23_111, 23_999]);
    // `--port` is remembered.
    scene.open(MAIN, 9_999, true);
    assert_eq!(scene.load(MAIN).ports_to_try(PAGE)[..4], [9_999, 23_456, 23_111, 23_999]);
    assert_eq!(scene.own_port(MAIN), Some(9_999));
}

#[test]
fn a_second_open_learns_who_serves_and_the_end_of_a_process_frees_the_port() {
    let scene = Scene::new();
    let state = scene.load(MAIN);
    let Claim::Mine(running) = take(&state, &holder(20_000, "jane")) else { panic!("held") };
    let Claim::Held(Some(who)) = take(&state, &holder(20_000, "joe")) else { panic!("free") };
    assert_eq!((who.pid, who.port), (std::process::id(), 20_000));
    let serves = |pid, port| serves(Some(scene.folder()), pid, port);
    let this = std::process::id();
    assert!(serves(this, 20_000) && !serves(this + 1, 20_000) && !serves(this, 20_001) && !serves(this, 0));
    assert!(who.shows_the_same_as(&holder(20_000, "jane")) && !who.shows_the_same_as(&holder(20_000, "joe")));
    assert!(!who.shows_the_same_as(&Holder { context: Some("other".into()), ..holder(20_000, "jane") }));
    // At another port, and for another cluster, nobody is in the way.
    assert!(matches!(take(&state, &holder(20_001, "joe")), Claim::Mine(_)));
    assert!(matches!(take(&scene.load(OTHER), &holder(20_000, "jane")), Claim::Mine(_)));
    drop(running);
    at_once("nobody serves it", || (!serves(this, 20_000)).then_some(()));
    // Killed, a process leaves its text and no lock.
    let lock = scene.folder().join(format!("{}.20000.lock", key(&state.server)));
    std::fs::write(lock, serde_json::to_vec(&holder(20_000, "killed")).unwrap()).unwrap();
    let _running = at_once("the port may be taken", || match take(&state, &holder(20_000, "joe")) {
        Claim::Mine(running) => Some(running),
        Claim::Held(_) => None,
    });
    let Claim::Held(Some(who)) = take(&state, &holder(20_000, "jane")) else { panic!("free") };
    assert_eq!(who.user.as_deref(), Some("joe"));
}

proptest! {
    #[test]
    fn any_cluster_gets_a_port_that_browsers_allow(server in any::<String>()) {
        let port = preferred_port(&server, PAGE);
        prop_assert!((20_000..=29_999).contains(&port), "{}", port);
        prop_assert!(OpenState::load(None, &server).ports_to_try(PAGE).iter().all(|port| (20_000..=29_999).contains(port)));
    }

    #[test]
    fn any_file_is_read(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}:,\"a-z0-9 ]{0,80}") {
        let scene = Scene::new();
        scene.open(MAIN, 20_000, true);
        for content in [bytes, text.into_bytes()] {
            std::fs::write(scene.file(MAIN), content).unwrap();
            prop_assert_eq!(scene.own_port(MAIN), None);
        }
    }
}
