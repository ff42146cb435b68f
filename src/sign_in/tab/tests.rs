#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use headlamp_test_support::{Browser, Provider, SignIn, Visit};
use jiff::SignedDuration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::cache::{Cache, Entry, Key, Locked, Token};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::session::{self, Session, Wish};
use crate::ui::Ui;
use crate::{options, settings};

/// The page that the tab came from, and goes back to.
fn page() -> Url {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let back = format!("http://localhost:{}/back?to=%2Fc%2Fmain%2Fpods&then=it", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nOK");
        }
    });
    Url::parse(&back).unwrap()
}

fn tab(back: &Url) -> (Tab, UnboundedReceiver<Secret>) {
    let (address, told) = unbounded_channel();
    (Tab { address, back: back.clone() }, told)
}

/// Goes where the tab is sent.
async fn browse(mut browser: Browser, mut told: UnboundedReceiver<Secret>) -> Visit {
    let start = told.recv().await.unwrap();
    tokio::task::spawn_blocking(move || browser.open(start.expose()).unwrap()).await.unwrap()
}

/// A provider and somebody's settings there; a browser of ours that were started would leave a file.
struct Scene {
    provider: Provider,
    folder: tempfile::TempDir,
    settings: Settings,
    environment: Environment,
}

impl Scene {
    fn new(more: &[&str]) -> Self {
        let (provider, folder) = (Provider::start(), tempfile::tempdir().unwrap());
        let folder_name = folder.path().to_str().unwrap();
        let browser = format!("touch {folder_name}/started");
        let environment = Environment::from([("BROWSER", browser.as_str()), ("PATH", "/usr/bin:/bin")]);
        let listens = more.contains(&"--listen-address");
        let mut words =
            vec!["--issuer-url", provider.issuer(), "--client-id", "kubernetes", "--cache-dir", folder_name];
        words.extend(if listens { [].as_slice() } else { &["--listen-address", "localhost:0"] });
        words.extend(more);
        let words: Vec<_> = words.into_iter().map(Into::into).collect();
        let options = options::of_arguments(&words).unwrap_or_else(|error| panic!("{error}"));
        let settings = settings::resolve(&options, &environment).unwrap_or_else(|error| panic!("{error}"));
        Self { provider, folder, settings, environment }
    }

    async fn sign_in(&self, tab: &Tab) -> Result<(Token, Entry)> {
        let session = Session {
            settings: &self.settings,
            ui: Ui::new(),
            environment: &self.environment,
            clock: Clock::system(),
            interactive: None,
            cluster: None,
            tab: Some(tab),
        };
        session::token(session, Wish::SignedIn).await
    }

    fn no_browser_was_started(&self) -> bool {
        !self.folder.path().join("started").exists()
    }
}

#[tokio::test]
async fn the_tab_goes_to_the_provider_and_back_and_no_browser_is_started() {
    let (scene, back) = (Scene::new(&["--open-url-after-authentication", "http://localhost:1/elsewhere"]), page());
    let (tab, told) = tab(&back);
    let (signed_in, visit) = tokio::join!(scene.sign_in(&tab), browse(Browser::new(), told));
    let (_, entry) = signed_in.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(entry.person.unwrap().email.as_deref(), Some("jane@example.com"));
    assert_eq!((visit.url.as_str(), visit.status), (back.as_str(), 200), "{:?}", visit.history);
    assert!(visit.history[0].contains("/start/"), "{:?}", visit.history);
    assert!(visit.history[1].starts_with(scene.provider.issuer()), "{:?}", visit.history);
    assert!(scene.no_browser_was_started());
}

#[tokio::test]
async fn after_a_refusal_a_link_leads_back_to_where_one_can_try_again() {
    let (scene, back) = (Scene::new(&[]), page());
    scene.provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "not today"));
    for (browser, ends) in [(Browser::new(), 400), (Browser::new().clicking(), 200)] {
        let (tab, told) = tab(&back);
        let (signed_in, visit) = tokio::join!(scene.sign_in(&tab), browse(browser, told));
        assert_eq!(signed_in.err().unwrap().kind(), Kind::SignInFailed);
        assert_eq!(visit.status, ends, "{visit:?}");
        match ends {
            400 => assert!(visit.body.contains("Back to Headlamp") && !visit.body.contains("terminal"), "{visit:?}"),
            _ => assert_eq!(visit.url, back.as_str()),
        }
    }
}

#[tokio::test]
async fn a_reply_that_is_no_good_leads_back_too() {
    let (scene, back) = (Scene::new(&[]), page());
    scene.provider.edit_claims(|claims| drop(claims.insert("aud".to_owned(), "another".into())));
    let (tab, told) = tab(&back);
    let (signed_in, visit) = tokio::join!(scene.sign_in(&tab), browse(Browser::new().clicking(), told));
    assert!(signed_in.is_err());
    assert_eq!(visit.url, back.as_str());
}

#[tokio::test]
async fn a_port_that_another_program_has_ends_it_while_the_tab_is_still_there() {
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let scene = Scene::new(&["--listen-address", &format!("localhost:{}", holder.local_addr().unwrap().port())]);
    let (tab, mut told) = tab(&page());
    let error = scene.sign_in(&tab).await.err().unwrap();
    assert!(error.to_string().contains("is taken"), "{error}");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_sign_in_that_another_process_ends_meanwhile_counts_and_the_tab_stays() {
    let scene = Scene::new(&[]);
    scene.provider.unused_is_fine();
    let (cache, key) = (Cache::at(scene.folder.path().to_owned()), Key::of(&scene.settings.identity));
    let Locked::Mine(_lock) = cache.lock(&key, "sign-in", Clock::system().now()).unwrap() else { panic!("held") };
    let (tab, mut told) = tab(&page());
    let another = async {
        tokio::task::yield_now().await;
        let now = Clock::system().now();
        let expires = now.checked_add(SignedDuration::from_hours(1)).unwrap();
        cache.write(&key, &Entry::of(scene.settings.identity.clone(), "theirs", now, expires)).unwrap();
    };
    let (signed_in, ()) = tokio::join!(scene.sign_in(&tab), another);
    assert_eq!(signed_in.unwrap_or_else(|error| panic!("{error}")).0.value.expose(), "theirs");
    assert!(told.try_recv().is_err());
}

#[test]
fn a_tab_serves_only_sign_ins_in_a_browser_where_somebody_may_be_asked() {
    let with = |more: &[&str]| {
        let scene = Scene::new(more);
        scene.provider.unused_is_fine();
        serves(&scene.settings)
    };
    assert!(with(&[]));
    assert!(with(&["--flow", "browser", "--no-browser"]));
    for flow in ["device", "paste", "password", "client-credentials"] {
        assert!(!with(&["--flow", flow, "--username", "jane"]), "{flow}");
    }
    assert!(!with(&["--username", "jane"]));
    assert!(!with(&["--interactive", "never"]));
}
