#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use headlamp_test_support::{Browser, KeptPort, Provider};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use url::Url;

use super::*;
use crate::api_connection::test_server::{Authority, until};
use crate::cache::{Cache, Entry, Key, Locked};
use crate::configured::settings_of_entry;
use crate::environment::Environment;
use crate::kubeconfig::{ClusterEntry, ExecUser, Program};
use crate::kubeconfig_user::{
    BearerSource, CertificateSource, Impersonation, InteractiveMode, Pem, PluginEntry, UserEntry,
};
use crate::options::Options;
use crate::secret::Secret;
use crate::ui::Ui;

fn credentials(bearer: BearerSource, certificate: Option<CertificateSource>) -> Credentials {
    stepping_aside(bearer, certificate, Arc::new(|| Box::new(())))
}

fn stepping_aside(bearer: BearerSource, certificate: Option<CertificateSource>, step_aside: StepAside) -> Credentials {
    by_clock(bearer, certificate, step_aside, Clock::system())
}

thread_local! {
    static NOW: std::cell::Cell<Timestamp> = const { std::cell::Cell::new(Timestamp::UNIX_EPOCH) };
}

/// Credentials by a clock that stands still, so that no pause ends by itself, and that tests set back.
fn by_a_standing_clock(bearer: BearerSource) -> Credentials {
    NOW.set(Clock::system().now());
    by_clock(bearer, None, Arc::new(|| Box::new(())), Clock::fixed(|| NOW.get()))
}

fn set_back_an_hour() {
    NOW.set(NOW.get() - SignedDuration::from_hours(1));
}

fn by_clock(
    bearer: BearerSource,
    certificate: Option<CertificateSource>,
    step_aside: StepAside,
    clock: Clock,
) -> Credentials {
    let target = Target {
        context: None,
        cluster: ClusterEntry::default(),
        user: UserEntry { name: Some("u".into()), bearer, certificate, impersonate: Impersonation::default() },
        namespace: None,
    };
    let environment = Environment::from([("PATH", "/usr/local/bin:/usr/bin:/bin")]);
    let surroundings = Surroundings { environment, ui: Ui::new(), clock };
    Credentials::new(&target, surroundings, step_aside).unwrap_or_else(|error| panic!("{error}"))
}

async fn current(credentials: &Credentials) -> Credential {
    credentials.current().await.unwrap_or_else(|error| panic!("{error}"))
}

fn bearer(credential: &Credential) -> &str {
    credential.bearer.as_ref().unwrap().expose()
}

/// Makes the time pass after which the credential is looked at again.
fn make_due(credentials: &Credentials) {
    credentials.0.held.lock().unwrap().as_mut().unwrap().due = Some(Timestamp::UNIX_EPOCH);
}

fn make_expired(credentials: &Credentials) {
    make_due(credentials);
    let mut held = credentials.0.held.lock().unwrap();
    let held = held.as_mut().unwrap();
    held.credential.expires = held.due;
}

fn jwt(subject: &str) -> String {
    let payload = json!({"iss": "https://id.example", "sub": subject, "aud": "c", "exp": 4_000_000_000_u32});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
}

/// A plugin that answers what stands in a file and counts its runs in another one.
struct Plugin(tempfile::TempDir);

impl Plugin {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn answers(&self, token: &str, ends: Option<&str>) {
        let status = json!({"token": token, "expirationTimestamp": ends});
        let answer =
            json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
        std::fs::write(self.path("new"), answer.to_string()).unwrap();
        std::fs::rename(self.path("new"), self.path("answer")).unwrap();
    }

    fn fails(&self) {
        let _ = std::fs::remove_file(self.path("answer"));
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().len()
    }

    fn entry(&self) -> BearerSource {
        // It takes a while, so that those who come together meet.
        self.running("printf x >> \"$1/runs\"; sleep 0.1; cat \"$1/answer\" 2>/dev/null")
    }

    /// It waits for [`Plugin::person_answers`].
    fn asking_entry(&self) -> BearerSource {
        self.running("until [ -e \"$1/go\" ]; do sleep 0.02; done; cat \"$1/answer\"")
    }

    fn person_answers(&self) {
        std::fs::write(self.path("go"), "").unwrap();
    }

    fn running(&self, script: &str) -> BearerSource {
        BearerSource::Plugin(Box::new(PluginEntry {
            command: "sh".into(),
            arguments: ["-c", script, "plugin", self.0.path().to_str().unwrap()].map(str::to_owned).to_vec(),
            variables: Vec::new(),
            api_version: "client.authentication.k8s.io/v1".into(),
            interactive_mode: InteractiveMode::Never,
            provide_cluster_info: false,
            install_hint: None,
            folder: "/".into(),
        }))
    }
}

#[tokio::test]
async fn a_plugin_runs_once_for_all_who_wait_and_not_again_before_its_end() {
    let plugin = Plugin::new();
    plugin.answers("one", Some("2100-01-01T00:00:00Z"));
    let credentials = credentials(plugin.entry(), None);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let credentials = credentials.clone();
            tokio::spawn(async move { current(&credentials).await.serial })
        })
        .collect();
    for task in waiting {
        assert_eq!(task.await.unwrap(), 1);
    }
    assert_eq!(bearer(&current(&credentials).await), "one");
    assert_eq!(current(&credentials).await.expires, Some("2100-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(plugin.runs(), 1);
}

#[tokio::test]
async fn a_plugin_without_an_end_runs_again_only_after_a_refusal_and_once_for_all() {
    let plugin = Plugin::new();
    plugin.answers("one", None);
    let credentials = credentials(plugin.entry(), None);
    let first = current(&credentials).await;
    assert_eq!((current(&credentials).await.serial, plugin.runs()), (1, 1));
    plugin.answers("two", None);
    let refused: Vec<_> = (0..10)
        .map(|_| {
            let (credentials, first) = (credentials.clone(), first.clone());
            tokio::spawn(async move {
                bearer(&credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"))).to_owned()
            })
        })
        .collect();
    for task in refused {
        assert_eq!(task.await.unwrap(), "two");
    }
    let late = credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((bearer(&late), late.serial, plugin.runs()), ("two", 2, 2));
}

#[tokio::test]
async fn a_cluster_that_refuses_what_was_just_renewed_is_not_offered_one_after_the_other() {
    let plugin = Plugin::new();
    plugin.answers("one", None);
    let credentials = credentials(plugin.entry(), None);
    let first = current(&credentials).await;
    plugin.answers("two", None);
    let second = credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"));
    plugin.answers("three", None);
    for _ in 0..5 {
        assert!(credentials.renewed(&second).await.is_err_and(|error| error.message().contains("just renewed")));
    }
    assert_eq!((plugin.runs(), bearer(&current(&credentials).await)), (2, "two"));
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_pause_longer() {
    // After a failure,
    let plugin = Plugin::new();
    let credentials = by_a_standing_clock(plugin.entry());
    assert!(credentials.current().await.is_err());
    plugin.answers("one", None);
    assert!(credentials.current().await.is_err(), "not at once");
    set_back_an_hour();
    let first = current(&credentials).await;
    assert_eq!((bearer(&first), plugin.runs()), ("one", 2));
    // after a refusal,
    plugin.answers("two", None);
    let second = credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"));
    plugin.answers("three", None);
    assert!(credentials.renewed(&second).await.is_err(), "not at once");
    set_back_an_hour();
    let third = credentials.renewed(&second).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((bearer(&third), plugin.runs()), ("three", 4));
    // and between two looks at a file.
    let path = plugin.path("token");
    std::fs::write(&path, "one").unwrap();
    let credentials = by_a_standing_clock(BearerSource::File(path.clone()));
    current(&credentials).await;
    std::fs::write(&path, "two").unwrap();
    assert_eq!(bearer(&current(&credentials).await), "one", "not at once");
    set_back_an_hour();
    assert_eq!(bearer(&current(&credentials).await), "two");
    std::fs::write(&path, "three").unwrap();
    assert_eq!(bearer(&current(&credentials).await), "two", "once");
}

#[tokio::test]
async fn a_credential_whose_end_comes_late_by_a_clock_that_was_set_back_is_renewed_when_it_is_refused() {
    let plugin = Plugin::new();
    let ends = Clock::system().now() + SignedDuration::from_secs(600);
    plugin.answers("one", Some(&ends.to_string()));
    let credentials = by_a_standing_clock(plugin.entry());
    let first = current(&credentials).await;
    set_back_an_hour();
    for _ in 0..5 {
        assert_eq!(bearer(&current(&credentials).await), "one");
    }
    assert_eq!(plugin.runs(), 1);
    plugin.answers("two", Some(&(ends + SignedDuration::from_secs(600)).to_string()));
    let second = credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((bearer(&second), bearer(&current(&credentials).await), plugin.runs()), ("two", "two", 2));
}

#[tokio::test]
async fn a_plugin_that_gives_the_refused_token_again_is_an_error_without_the_token() {
    let plugin = Plugin::new();
    plugin.answers("hunter2", None);
    let credentials = credentials(plugin.entry(), None);
    let first = current(&credentials).await;
    let error = credentials.renewed(&first).await.err().unwrap();
    assert!(error.message().contains("`sh`") && !error.to_string().contains("hunter2"), "{error}");
    assert_eq!((current(&credentials).await.serial, plugin.runs()), (1, 2));
}

#[tokio::test]
async fn a_credential_that_ends_soon_is_renewed_behind_those_who_use_it() {
    let plugin = Plugin::new();
    plugin.answers("one", Some("2100-01-01T00:00:00Z"));
    let credentials = credentials(plugin.entry(), None);
    current(&credentials).await;
    make_due(&credentials);
    plugin.answers("two", Some("2100-01-01T00:00:00Z"));
    for _ in 0..5 {
        assert_eq!(bearer(&current(&credentials).await), "one");
    }
    until("it is renewed", || credentials.0.held().unwrap().credential.serial == 2).await;
    assert_eq!((bearer(&current(&credentials).await), plugin.runs()), ("two", 2));
}

#[tokio::test]
async fn a_renewal_goes_on_when_whoever_wanted_it_goes_away() {
    let plugin = Plugin::new();
    plugin.answers("one", None);
    let credentials = credentials(plugin.entry(), None);
    let impatient = credentials.clone();
    let task = tokio::spawn(async move { impatient.current().await.is_ok() });
    until("the plugin runs", || plugin.runs() == 1).await;
    task.abort();
    assert_eq!((bearer(&current(&credentials).await), plugin.runs()), ("one", 1));
}

#[tokio::test]
async fn a_failure_keeps_what_is_good_is_not_repeated_at_once_and_a_person_may_try_again() {
    let plugin = Plugin::new();
    plugin.answers("one", Some("2100-01-01T00:00:00Z"));
    let credentials = by_a_standing_clock(plugin.entry());
    current(&credentials).await;
    plugin.fails();
    make_due(&credentials);
    assert_eq!(bearer(&current(&credentials).await), "one");
    until("it has failed", || credentials.0.ended.load(Ordering::SeqCst) == 2).await;
    assert_eq!(bearer(&current(&credentials).await), "one");
    make_expired(&credentials);
    for _ in 0..3 {
        assert_eq!(credentials.current().await.err().unwrap().kind(), Kind::SignInFailed);
    }
    assert_eq!(plugin.runs(), 2);
    plugin.answers("two", None);
    let again = credentials.sign_in(None).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((bearer(&again), plugin.runs()), ("two", 3));
    assert_eq!(bearer(&current(&credentials).await), "two");
}

#[tokio::test]
async fn the_status_line_steps_aside_as_long_as_a_plugin_runs() {
    struct Back(Arc<AtomicUsize>);
    impl Drop for Back {
        fn drop(&mut self) {
            self.0.fetch_add(10, Ordering::SeqCst);
        }
    }
    let plugin = Plugin::new();
    plugin.answers("one", None);
    let moves = Arc::new(AtomicUsize::new(0));
    let counted = moves.clone();
    let step_aside: StepAside = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::new(Back(counted.clone()))
    });
    let credentials = stepping_aside(plugin.entry(), None, step_aside);
    let waiting = credentials.clone();
    let task = tokio::spawn(async move { current(&waiting).await.serial });
    until("it runs", || plugin.runs() == 1).await;
    assert_eq!(moves.load(Ordering::SeqCst), 1);
    task.await.unwrap();
    assert_eq!(moves.load(Ordering::SeqCst), 11);
}

#[tokio::test]
async fn a_token_file_is_read_again_and_only_another_token_helps_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "hunter2\n").unwrap();
    let credentials = credentials(BearerSource::File(path.clone()), None);
    let first = current(&credentials).await;
    assert_eq!((bearer(&first), first.serial), ("hunter2", 1));
    make_due(&credentials);
    assert_eq!(current(&credentials).await.serial, 1, "the same token is the same credential");
    std::fs::write(&path, "two").unwrap();
    assert_eq!(bearer(&current(&credentials).await), "hunter2");
    make_due(&credentials);
    let second = current(&credentials).await;
    assert_eq!((bearer(&second), second.serial), ("two", 2));
    std::fs::write(&path, "three").unwrap();
    let third = credentials.renewed(&second).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bearer(&third), "three");
    assert_eq!(bearer(&credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"))), "three");
    let error = credentials.renewed(&third).await.err().unwrap();
    assert!(!error.to_string().contains("three"), "{error}");
    std::fs::remove_file(&path).unwrap();
    make_due(&credentials);
    assert_eq!(bearer(&current(&credentials).await), "three", "what there is goes on");
    assert!(!credentials.can_sign_in());
}

#[tokio::test]
async fn what_stands_in_the_kubeconfig_is_handed_out_and_cannot_be_renewed() {
    let token = credentials(BearerSource::Token(Secret::new("hunter2")), None);
    let basic = BearerSource::Basic { username: "jane".into(), password: Secret::new("hunter2") };
    let basic = credentials(basic, None);
    let anonymous = credentials(BearerSource::None, None);
    assert_eq!(bearer(&current(&token).await), "hunter2");
    assert_eq!(current(&basic).await.basic, Some(("jane".into(), Secret::new("hunter2"))));
    assert!(current(&anonymous).await.same_as(&Credential::default()));
    for credentials in [token, basic, anonymous] {
        let error = credentials.renewed(&current(&credentials).await).await.err().unwrap();
        assert!(error.message().contains("refuses the credential of the user `u`"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!credentials.can_sign_in());
    }
}

#[tokio::test]
async fn a_client_certificate_comes_from_data_or_from_files_that_are_read_again() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str| {
        let (certificate, key) = authority.pair(&[], name);
        std::fs::write(path("crt"), certificate).unwrap();
        std::fs::write(path("key"), key).unwrap();
    };
    write("jane");
    let source = CertificateSource { certificate: Pem::File(path("crt")), key: Pem::File(path("key")) };
    let files = credentials(BearerSource::None, Some(source));
    let first = current(&files).await;
    write("jane");
    let renewed = files.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((renewed.serial, first.subject.is_some()), (2, true));
    assert_eq!(first.subject, renewed.subject);
    write("joe");
    make_due(&files);
    assert_ne!(current(&files).await.subject, first.subject);
    let (certificate, key) = authority.pair(&[], "jane");
    let data = |text: &str| Pem::Data(Secret::new(STANDARD.encode(text)));
    let source = CertificateSource { certificate: data(&certificate), key: data(&key) };
    let beside = credentials(BearerSource::Token(Secret::new("t")), Some(source));
    let both = current(&beside).await;
    assert!(both.certificate.is_some() && both.bearer.is_some());
    for (certificate, key) in [
        (data(&certificate), data("hunter2")),
        (data("hunter2"), data(&key)),
        (Pem::Data(Secret::new("hunter2!")), data(&key)),
    ] {
        let broken = credentials(BearerSource::None, Some(CertificateSource { certificate, key }));
        let error = broken.current().await.err().unwrap();
        assert_eq!(error.kind(), Kind::Settings);
        assert!(error.to_string().contains("`u`") && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn another_subject_is_told_from_a_renewed_token() {
    let plugin = Plugin::new();
    let credentials = credentials(plugin.entry(), None);
    let mut subjects = Vec::new();
    for (token, ends) in [
        (jwt("jane"), None),
        (jwt("jane") + "x", None),
        (jwt("joe"), Some("2100-01-01T00:00:00Z")),
        ("opaque".into(), None),
    ] {
        plugin.answers(&token, ends);
        subjects.push(credentials.sign_in(None).await.unwrap_or_else(|error| panic!("{error}")).subject);
    }
    assert_eq!(subjects[0].as_deref(), Some("https://id.example jane"));
    assert_eq!((&subjects[0], &subjects[3]), (&subjects[1], &None));
    assert_ne!(subjects[0], subjects[2]);
}

#[test]
fn a_way_that_is_gone_is_refused_in_words() {
    let target = Target {
        context: None,
        cluster: ClusterEntry::default(),
        user: UserEntry { bearer: BearerSource::Unsupported("magic".into()), ..UserEntry::anonymous() },
        namespace: None,
    };
    let surroundings = Surroundings { environment: Environment::default(), ui: Ui::new(), clock: Clock::system() };
    let error = Credentials::new(&target, surroundings, Arc::new(|| Box::new(()))).err().unwrap();
    assert_eq!(error.message(), "the anonymous user signs in with magic");
}

/// Our own entry with this issuer, caching in this folder.
fn our_own(issuer: &str, folder: &Path) -> ExecUser {
    our_own_with(issuer, folder, &["--client-id", "c"])
}

fn our_own_with(issuer: &str, folder: &Path, more: &[&str]) -> ExecUser {
    let arguments = [&["get-token", "--issuer-url", issuer, "--cache-dir", folder.to_str().unwrap()], more].concat();
    ExecUser {
        name: "u".into(),
        context: None,
        file: "/k/config".into(),
        program: Program::Headlamp,
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        variables: Vec::new(),
        cluster: None,
    }
}

/// Writes an ID token for this identity into the cache, as another process does.
fn cache(user: &ExecUser, token: &str, seconds: i64) {
    let settings = settings_of_entry(user, &Options::default(), &Environment::default());
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let now = Clock::system().now();
    let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    let entry = Entry::of(settings.identity.clone(), token, now, expires);
    let cache = Cache::at(settings.cache.folder.clone().unwrap());
    cache.write(&Key::of(&settings.identity), &entry).unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn our_own_entry_is_answered_from_the_cache_and_by_what_others_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _) = provider().await;
    let user = our_own(&issuer, folder.path());
    cache(&user, &jwt("jane"), 3_600);
    let credentials = credentials(BearerSource::Headlamp(Box::new(user.clone())), None);
    let first = current(&credentials).await;
    assert_eq!((bearer(&first), first.subject.as_deref()), (jwt("jane").as_str(), Some("https://id.example jane")));
    assert!(first.expires.is_some() && credentials.can_sign_in());
    cache(&user, "renewed by kubectl", 3_600);
    assert_eq!(
        bearer(&credentials.renewed(&first).await.unwrap_or_else(|error| panic!("{error}"))),
        "renewed by kubectl"
    );
    make_expired(&credentials);
    let error = credentials.current().await.err().unwrap();
    assert_eq!(error.kind(), Kind::SignInNeeded, "{error}");
    cache(&user, "renewed again", 3_600);
    let paused = || credentials.0.history.try_lock().unwrap().quiet.clone().unwrap().end;
    until("the pause is over", || paused() <= Clock::system().now()).await;
    assert_eq!(bearer(&current(&credentials).await), "renewed again");
}

/// A provider that can be discovered, and no more; it counts what it is asked.
async fn provider() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (of_server, counted) = (issuer.clone(), count.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let issuer = &of_server;
            let body = json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/keys"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "keys": [],
            });
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    (issuer, count)
}

#[tokio::test]
async fn nobody_is_asked_until_a_person_wishes_to_sign_in() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, asked) = provider().await;
    let user = our_own(&issuer, folder.path());
    let credentials = by_a_standing_clock(BearerSource::Headlamp(Box::new(user.clone())));
    for _ in 0..5 {
        let error = credentials.current().await.err().unwrap();
        assert_eq!(error.kind(), Kind::SignInNeeded, "{error}");
        assert_eq!(error.message(), format!("you need to sign in to `{issuer}` again"));
    }
    assert!(asked.load(Ordering::SeqCst) <= 2, "failures are not repeated at once");
    cache(&user, "signed in elsewhere", 3_600);
    assert_eq!(
        bearer(&credentials.sign_in(None).await.unwrap_or_else(|error| panic!("{error}"))),
        "signed in elsewhere"
    );
}

/// A tab, and what it is told.
fn tab() -> (Tab, UnboundedReceiver<Secret>) {
    let (address, told) = unbounded_channel();
    (Tab { address, back: Url::parse("http://localhost:1/back").unwrap() }, told)
}

/// Somebody whose sign-in comes back to a port of its own, and that port.
fn who_signs_in_in_tabs(provider: &Provider, folder: &Path) -> (Credentials, ExecUser, KeptPort) {
    let port = KeptPort::new();
    let redirect = format!("http://localhost:{}/oidc-callback", port.number());
    let user = our_own_with(provider.issuer(), folder, &["--client-id", "kubernetes", "--redirect-url", &redirect]);
    let credentials = credentials(BearerSource::Headlamp(Box::new(user.clone())), None);
    assert!(credentials.signs_in_in_a_tab());
    (credentials, user, port)
}

async fn sent_to(told: &mut UnboundedReceiver<Secret>) -> Secret {
    let told = timeout(Duration::from_secs(20), told.recv()).await;
    told.unwrap_or_else(|_| panic!("the tab waits too long")).unwrap()
}

#[tokio::test]
async fn a_tab_that_asks_later_takes_over_and_the_one_before_is_told() {
    let (provider, folder) = (Provider::start(), tempfile::tempdir().unwrap());
    let (credentials, _, port) = who_signs_in_in_tabs(&provider, folder.path());
    let (first, mut first_told) = tab();
    let abandoned = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.sign_in(Some(first)).await.err().map(|error| error.kind()) }
    });
    let start = sent_to(&mut first_told).await;
    let (second, mut second_told) = tab();
    let taking_over = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.sign_in(Some(second)).await.map(|credential| credential.subject) }
    });
    let newer = sent_to(&mut second_told).await;
    assert_eq!(abandoned.await.unwrap(), Some(Kind::Interrupted));
    assert!(newer != start && newer.expose().starts_with(&format!("http://localhost:{}/start/", port.number())));
    // The page that it goes back to is not there, and need not be.
    let browser = tokio::task::spawn_blocking(move || Browser::new().open(newer.expose()).is_err());
    let subject = taking_over.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(subject, Some(format!("{} f3a1c9", provider.issuer())));
    assert!(browser.await.unwrap());
    assert_eq!(current(&credentials).await.subject, subject);
}

#[tokio::test]
async fn a_sign_in_that_nobody_waits_for_any_more_frees_port_and_lock_and_is_no_failure() {
    let (provider, folder) = (Provider::start(), tempfile::tempdir().unwrap());
    let (credentials, user, port) = who_signs_in_in_tabs(&provider, folder.path());
    let (first, mut told) = tab();
    let waiting = credentials.clone();
    let task = tokio::spawn(async move { waiting.sign_in(Some(first)).await.is_ok() });
    sent_to(&mut told).await;
    assert!(std::net::TcpListener::bind(port.address()).is_err());
    task.abort();
    let settings = settings_of_entry(&user, &Options::default(), &Environment::default()).unwrap();
    let (cache, key) = (Cache::at(folder.path().to_owned()), Key::of(&settings.identity));
    until("port and lock are free", || {
        let lock = cache.lock(&key, "test", Clock::system().now()).unwrap();
        matches!(lock, Locked::Mine(_)) && std::net::TcpListener::bind(port.address()).is_ok()
    })
    .await;
    assert_eq!(credentials.0.ended.load(Ordering::SeqCst), 0);
    assert!(cache.failure(&key).is_none());
}

#[tokio::test]
async fn a_sign_in_elsewhere_than_in_a_browser_leaves_the_tab_alone() {
    let folder = tempfile::tempdir().unwrap();
    let user = our_own_with("http://127.0.0.1:1", folder.path(), &["--client-id", "c", "--flow", "client-credentials"]);
    let plugin = Plugin::new();
    plugin.answers("one", None);
    for bearer in [BearerSource::Headlamp(Box::new(user)), plugin.entry()] {
        let credentials = credentials(bearer, None);
        assert!(!credentials.signs_in_in_a_tab() && credentials.can_sign_in());
        let (tab, mut told) = tab();
        let _ = credentials.sign_in(Some(tab)).await;
        assert!(told.try_recv().is_err());
    }
    assert_eq!(plugin.runs(), 1);
}

#[test]
fn a_credential_is_renewed_a_minute_before_its_end_but_not_over_and_over() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let in_seconds = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    for (ends, expected) in [(3_600, 3_540), (120, 60), (60, 30), (20, 10), (6, 5), (0, 5), (-600, 5)] {
        assert_eq!(due(in_seconds(ends), now), in_seconds(expected), "{ends}");
    }
}

#[tokio::test]
async fn whoever_did_not_ask_waits_for_no_person() {
    let plugin = Plugin::new();
    plugin.answers("first", None);
    let credentials = credentials(plugin.asking_entry(), None);
    let asking = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.sign_in(None).await }
    });
    until("the person is asked", || credentials.0.under_way.lock().unwrap().is_some()).await;
    let told = credentials.current().await.err().unwrap();
    assert_eq!(told.kind(), Kind::SignInNeeded);
    assert!(told.to_string().contains("`sh`, which signs you in, has not finished"), "{told}");
    plugin.person_answers();
    assert!(asking.await.unwrap().is_ok());
    assert_eq!(bearer(&current(&credentials).await), "first");
}
