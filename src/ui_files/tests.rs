#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use jiff::Timestamp;

use super::test_pod::{LAZY, Mood, Pod, SCRIPT, STYLE};
use super::*;
use crate::api_connection::test_server::{Authority, until};
use crate::clock::Clock;

/// Short where a test waits for the end of it, long everywhere else.
const QUICK: Patience = Patience {
    http: pod_http::Limits {
        connect: Duration::from_secs(5),
        head: Duration::from_secs(5),
        progress: Duration::from_secs(5),
        whole: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        unused: Duration::from_secs(60),
    },
    short: Duration::from_secs(5),
    shorter: Duration::from_secs(5),
    fresh: Duration::ZERO,
    memory: 1024 * 1024,
};

/// The cache stands in soon.
const HASTY: Patience = Patience { short: Duration::from_millis(200), shorter: Duration::from_millis(50), ..QUICK };

struct Setting {
    folder: tempfile::TempDir,
    pod: Arc<Pod>,
}

impl Setting {
    async fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), pod: Pod::start().await }
    }

    fn cache(&self, headlamp: &str) -> UiCache {
        UiCache::at(self.folder.path().join("ui"), headlamp, Clock::fixed(Timestamp::now))
    }

    /// As a new process would have it.
    fn files(&self) -> UiFiles {
        self.files_with(QUICK)
    }

    fn files_with(&self, patience: Patience) -> UiFiles {
        UiFiles::with_patience(self.pod.connect(), false, "", Some(self.cache("headlamp/one")), patience).unwrap()
    }

    async fn on_disk(&self, paths: &[&str]) {
        let cache = self.cache("headlamp/one");
        until("the files are on disk", || paths.iter().all(|path| cache.read(path).is_some())).await;
    }
}

async fn text(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

async fn get(files: &UiFiles, path: &str) -> (StatusCode, HeaderMap, Bytes) {
    get_with(files, path, &[]).await
}

async fn get_with(files: &UiFiles, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
    let asked: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let answer = files.file(path, &asked).await;
    (answer.status(), answer.headers().clone(), text(answer).await)
}

#[tokio::test]
async fn what_the_page_needs_is_fetched_once_over_few_connections_before_anyone_asks() {
    let setting = Setting::new().await;
    let names: Vec<String> = (0..40).map(|number| format!("/assets/part-CqULmv{number:02}.js")).collect();
    for name in &names {
        setting.pod.put(name, "text/javascript", name);
    }
    setting.pod.put_page(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let files = setting.files();
    files.prefetch().await.unwrap();
    assert_eq!(setting.pod.requests.lock().unwrap().len(), 43);
    let most = setting.pod.most_open.load(Ordering::SeqCst);
    assert!((2..=MOST_CONNECTIONS).contains(&most), "{most}");
    assert_eq!(setting.pod.connections.load(Ordering::SeqCst), most, "connections are used again");
    for name in &names {
        let (status, headers, body) = get(&files, name).await;
        assert_eq!((status, &*body), (StatusCode::OK, name.as_bytes()));
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(setting.pod.asked(name), 1);
    }
    assert_eq!(*files.situation().borrow(), Situation::Reached);
}

#[tokio::test]
async fn what_the_scripts_load_later_is_fetched_ahead_a_few_at_a_time_and_once() {
    let setting = Setting::new().await;
    let names: Vec<String> = (0..20).map(|number| format!("Later-CqULmv{number:02}.js")).collect();
    let gone = "Gone-CqULmv_h.js".to_owned();
    let script = names.iter().chain([&gone]).map(|name| format!("import('./{name}');")).collect::<Vec<_>>().concat();
    setting.pod.put(SCRIPT, "text/javascript", &script);
    let paths: Vec<String> = names.iter().map(|name| format!("/assets/{name}")).collect();
    for path in &paths {
        setting.pod.put(path, "text/javascript", path);
    }
    let wanted: Vec<&str> = paths.iter().map(String::as_str).collect();
    setting.files().prefetch().await.unwrap();
    setting.on_disk(&wanted).await;
    setting.on_disk(&["/"]).await;

    let next = setting.files();
    next.prefetch().await.unwrap();
    until("the missing one is asked for again", || setting.pod.asked("/assets/Gone-CqULmv_h.js") == 2).await;
    setting.pod.set(Mood::Stall);
    setting.pod.cut.send_replace(());
    for path in &paths {
        assert_eq!(get(&next, path).await.2, path.as_bytes());
        assert_eq!(setting.pod.asked(path), 1);
    }
}

#[tokio::test]
async fn what_is_fetched_ahead_leaves_the_browser_its_connections() {
    let setting = Setting::new().await;
    let script = (0..20).map(|number| format!("import('./Later-CqULmv{number:02}.js');")).collect::<Vec<_>>().concat();
    setting.pod.put(SCRIPT, "text/javascript", &script);
    *setting.pod.held_below.lock().unwrap() = "/assets/Later-".to_owned();
    setting.pod.held.send_replace(true);
    let files = setting.files();
    files.prefetch().await.unwrap();
    let later = || {
        let requests = setting.pod.requests.lock().unwrap();
        requests.iter().filter(|(path, _)| path.starts_with("/assets/Later-")).count()
    };
    until("some are asked for", || later() == AHEAD).await;
    let browsers: Vec<String> = (0..6).map(|number| format!("/assets/Now-CqULmv{number:02}.js")).collect();
    for path in &browsers {
        setting.pod.put(path, "text/javascript", path);
    }
    for (path, (status, _, body)) in browsers.iter().zip(join_all(browsers.iter().map(|path| get(&files, path))).await)
    {
        assert_eq!((status, &*body), (StatusCode::OK, path.as_bytes()));
    }
    assert_eq!(later(), AHEAD);
    setting.pod.held.send_replace(false);
    until("the others are asked for", || later() == 20).await;
}

#[tokio::test]
async fn what_several_ask_for_at_once_is_fetched_once() {
    let setting = Setting::new().await;
    setting.pod.held.send_replace(true);
    let files = setting.files();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let files = files.clone();
            tokio::spawn(async move { get(&files, LAZY).await })
        })
        .collect();
    until("the pod is asked", || setting.pod.asked(LAZY) == 1).await;
    // Whoever does not wait any more does not stop it for the others.
    asking[0].abort();
    setting.pod.held.send_replace(false);
    for one in asking.into_iter().skip(1) {
        assert_eq!(one.await.unwrap().2, "lazy");
    }
    assert_eq!(setting.pod.asked(LAZY), 1);
}

#[tokio::test]
async fn the_pod_sees_nothing_of_the_browser_and_the_browser_little_of_the_pod() {
    let setting = Setting::new().await;
    let files = setting.files();
    let secret = [("cookie", "session=1"), ("authorization", "Bearer x"), ("accept-encoding", "gzip"), ("x-y", "z")];
    let (_, headers, _) = get_with(&files, LAZY, &secret).await;
    let mut names: Vec<_> = headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "content-type", "etag", "vary"]);
    let requests = setting.pod.requests.lock().unwrap();
    let mut names: Vec<_> = requests[0].1.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
    assert_eq!(requests[0].1["host"], "localhost");
    assert_eq!(requests[0].1["accept-encoding"], "br");
}

#[tokio::test]
async fn a_request_whose_connection_breaks_is_repeated_once() {
    let setting = Setting::new().await;
    let files = setting.files();
    setting.pod.set(Mood::Cut(1));
    assert_eq!(get(&files, LAZY).await.2, "lazy");
    assert_eq!(setting.pod.asked(LAZY), 2);
    setting.pod.set(Mood::Cut(usize::MAX));
    let asked = setting.pod.asked(SCRIPT);
    let answer = files.file(SCRIPT, &HeaderMap::new()).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.extensions().get::<Error>().is_some());
    // Once on the connection that was there, twice on fresh ones.
    assert_eq!(setting.pod.asked(SCRIPT) - asked, 3);
}

#[tokio::test]
async fn connections_that_the_pod_has_closed_are_replaced_unnoticed() {
    let setting = Setting::new().await;
    let files = setting.files();
    files.prefetch().await.unwrap();
    let before = setting.pod.connections.load(Ordering::SeqCst);
    setting.pod.cut.send_replace(());
    until("all are closed", || setting.pod.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(get(&files, LAZY).await.2, "lazy");
    files.reset();
    until("all are closed again", || setting.pod.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(get(&files, "/favicon.ico").await.0, StatusCode::NOT_FOUND);
    assert_eq!(setting.pod.connections.load(Ordering::SeqCst), before + 2);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let setting = Setting::new().await;
    let http = pod_http::Limits { idle: Duration::from_millis(50), unused: Duration::from_millis(50), ..QUICK.http };
    let files = setting.files_with(Patience { http, ..QUICK });
    files.prefetch().await.unwrap();
    until("none is open", || setting.pod.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn an_answer_that_stops_half_way_ends_in_time_and_is_not_kept() {
    let setting = Setting::new().await;
    let http = pod_http::Limits { progress: Duration::from_millis(50), ..QUICK.http };
    let files = setting.files_with(Patience { http, ..QUICK });
    setting.pod.set(Mood::StallWithin);
    assert_eq!(get(&files, LAZY).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(setting.pod.asked(LAZY), 2);
    assert!(setting.cache("headlamp/one").read(LAZY).is_none());
    setting.pod.set(Mood::Answer);
    assert_eq!(get(&files, LAZY).await.2, "lazy");
}

#[tokio::test]
async fn a_pod_that_never_answers_ends_in_time() {
    let setting = Setting::new().await;
    let http = pod_http::Limits { head: Duration::from_millis(50), ..QUICK.http };
    let files = setting.files_with(Patience { http, ..QUICK });
    setting.pod.set(Mood::Stall);
    let error = files.prefetch().await.unwrap_err();
    assert!(matches!(&*files.situation().borrow(), Situation::Unreachable(_)), "{error}");
    assert!(files.config().await.is_err());
    assert_eq!(files.plugins().await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_cache_stands_in_for_a_pod_that_stalls_or_is_away_until_it_is_back() {
    let setting = Setting::new().await;
    setting.files().prefetch().await.unwrap();
    setting.on_disk(&["/", "/config", "/plugins", SCRIPT, STYLE]).await;
    for mood in [Mood::Stall, Mood::Cut(usize::MAX), Mood::Status(503)] {
        setting.pod.set(mood);
        let files = setting.files_with(HASTY);
        let before = Instant::now();
        files.prefetch().await.unwrap();
        // Not for as long as a pod may take that nothing stands in for.
        assert!(before.elapsed() < QUICK.http.head, "{mood:?}");
        assert!(matches!(*files.situation().borrow(), Situation::FromCache(_)), "{mood:?}");
        assert!(get(&files, "/c/main/pods").await.2.starts_with(b"<!DOCTYPE html>"));
        assert_eq!(get(&files, SCRIPT).await.2, "script");
        assert_eq!(files.config().await.unwrap(), r#"{"clusters":[]}"#);
        assert_eq!(text(files.plugins().await).await, "[]");
        setting.pod.set(Mood::Answer);
        files.reset();
        let back = async {
            while *files.situation().borrow() != Situation::Reached {
                let _ = get(&files, "/").await;
            }
        };
        timeout(Duration::from_secs(10), back).await.unwrap();
    }
    setting.pod.reachable.send_replace(false);
    let files = setting.files();
    files.prefetch().await.unwrap();
    assert!(
        matches!(&*files.situation().borrow(), Situation::FromCache(error) if error.message() == "no pod is ready")
    );
    // What the cache does not have cannot be had.
    assert_eq!(get(&files, LAZY).await.0, StatusCode::BAD_GATEWAY);
    assert!(matches!(*files.situation().borrow(), Situation::FromCache(_)));
}

#[tokio::test]
async fn a_pod_that_is_always_late_has_not_recovered_until_it_answers_in_time() {
    let setting = Setting::new().await;
    setting.files().prefetch().await.unwrap();
    setting.on_disk(&["/", "/config", "/plugins", SCRIPT, STYLE]).await;
    let files = setting.files_with(HASTY);
    let mut changes = files.situation();
    for round in 1..=3 {
        setting.pod.held.send_replace(true);
        assert!(files.config().await.is_ok());
        assert!(matches!(*changes.borrow_and_update(), Situation::FromCache(_)), "round {round}");
        // Its answer comes, but the cache had to be asked first.
        until("the pod is asked", || setting.pod.asked("/config") == 1 + round).await;
        tokio::time::sleep(HASTY.short).await;
        setting.pod.held.send_replace(false);
        let Source::Pod(pod) = &files.0 else { panic!("a folder") };
        until("its answer has come", || pod.flights().is_empty()).await;
        assert!(!changes.has_changed().unwrap(), "round {round}: {:?}", *files.situation().borrow());
    }
    let back = async {
        while *files.situation().borrow() != Situation::Reached {
            assert!(files.config().await.is_ok());
        }
    };
    timeout(Duration::from_secs(10), back).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_does_not_answer_is_not_waited_for_where_the_cache_lacks_a_file() {
    let setting = Setting::new().await;
    setting.files().prefetch().await.unwrap();
    setting.on_disk(&["/", "/config", "/plugins", SCRIPT, STYLE]).await;
    let cache = setting.cache("headlamp/one");
    std::fs::remove_file(cache.place(STYLE)).unwrap();
    setting.pod.set(Mood::Stall);
    let files = setting.files_with(HASTY);
    let limit = QUICK.http.head;
    timeout(limit, files.prefetch()).await.unwrap().unwrap();
    assert_eq!(get(&files, SCRIPT).await.2, "script");
}

#[tokio::test]
async fn hashed_files_come_from_the_disk_without_asking_and_others_are_asked_anew() {
    let setting = Setting::new().await;
    setting.pod.put("/manifest.json", "application/json", "{}");
    let files = setting.files();
    files.prefetch().await.unwrap();
    let _ = get(&files, "/manifest.json").await;
    setting.on_disk(&["/", SCRIPT, STYLE, "/manifest.json"]).await;
    setting.pod.put("/manifest.json", "application/json", r#"{"new":1}"#);
    setting.pod.put("/config", "application/json", r#"{"clusters":null}"#);
    let files = setting.files();
    files.prefetch().await.unwrap();
    assert_eq!((setting.pod.asked(SCRIPT), setting.pod.asked(STYLE)), (1, 1));
    assert_eq!(files.config().await.unwrap(), r#"{"clusters":null}"#);
    let (_, headers, body) = get(&files, "/manifest.json").await;
    assert_eq!(body, r#"{"new":1}"#);
    assert_eq!(headers["cache-control"], "no-cache");
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let setting = Setting::new().await;
    assert_eq!(get(&setting.files(), LAZY).await.2, "lazy");
    setting.on_disk(&[LAZY]).await;
    for file in std::fs::read_dir(setting.folder.path().join("ui")).unwrap() {
        std::fs::write(file.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(get(&setting.files(), LAZY).await.2, "lazy");
    assert_eq!(setting.pod.asked(LAZY), 2);
    setting.on_disk(&[LAZY]).await;
}

#[tokio::test]
async fn two_headlamps_share_no_file() {
    let setting = Setting::new().await;
    assert_eq!(get(&setting.files(), LAZY).await.2, "lazy");
    setting.on_disk(&[LAZY]).await;
    let other = Pod::start().await;
    other.put(LAZY, "text/javascript", "another");
    let cache = Some(setting.cache("headlamp/two"));
    let files = UiFiles::with_patience(other.connect(), false, "", cache, QUICK).unwrap();
    assert_eq!(get(&files, LAZY).await.2, "another");
}

#[tokio::test]
async fn a_missing_file_that_comes_as_the_index_page_is_absent_and_not_kept() {
    let setting = Setting::new().await;
    let files = setting.files();
    let missing = "/assets/gone-CqULmv_h.js";
    for path in [missing, "/gone.png", "/plugins/gone/main.js"] {
        let (status, headers, _) = get(&files, path).await;
        assert_eq!(
            (status, &headers["cache-control"]),
            (StatusCode::NOT_FOUND, &header::HeaderValue::from_static("no-store")),
            "{path}"
        );
    }
    setting.pod.put(missing, "text/javascript", "back");
    assert_eq!(get(&files, missing).await.2, "back");
}

#[tokio::test]
async fn places_in_the_application_get_the_index_page() {
    let setting = Setting::new().await;
    let files = setting.files();
    for path in ["/", "/c/main/pods", "/c/main/pods/default/nginx-1.27.0", "/index.html"] {
        let (status, headers, body) = get(&files, path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.starts_with(b"<!DOCTYPE html>"), "{path}");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    }
    // A resource may be called like a file.
    let place = "/c/main/configmaps/default/settings.json";
    assert_eq!(get(&files, place).await.0, StatusCode::NOT_FOUND);
    let (status, headers, _) = get_with(&files, place, &[("sec-fetch-dest", "document")]).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &header::HeaderValue::from_static("text/html; charset=utf-8"))
    );
}

#[tokio::test]
async fn the_browsers_copy_is_confirmed_only_while_the_content_is_the_same() {
    let setting = Setting::new().await;
    let files = setting.files();
    let tag = get(&files, "/").await.1["etag"].to_str().unwrap().to_owned();
    let (status, _, body) = get_with(&files, "/", &[("if-none-match", &tag)]).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    setting.pod.put_page(&[LAZY]);
    assert_eq!(get_with(&files, "/", &[("if-none-match", &tag)]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_unchanged_plugin_is_not_sent_again_and_an_older_one_is() {
    let setting = Setting::new().await;
    let files = setting.files();
    let plugin = "/plugins/flux/main.js";
    let put = |day: &str, body: &str| {
        let headers = [("content-type", "text/javascript"), ("last-modified", day)];
        setting.pod.put_with(plugin, &headers, Bytes::from(body.to_owned()));
    };
    put("day 2", "new");
    assert_eq!(get(&files, plugin).await.2, "new");
    let (_, headers, body) = get(&files, plugin).await;
    assert_eq!((&*body, setting.pod.asked(plugin)), (b"new".as_slice(), 2));
    assert_eq!(headers["cache-control"], "no-cache");
    // Headlamp answers 304 for whatever is not newer.
    put("day 1", "old");
    assert_eq!(get(&files, plugin).await.2, "old");
    assert_eq!(setting.pod.asked(plugin), 4);
}

#[tokio::test]
async fn an_index_page_is_kept_only_with_all_that_it_names() {
    let setting = Setting::new().await;
    setting.files().prefetch().await.unwrap();
    setting.on_disk(&["/", SCRIPT, STYLE]).await;
    let whole = setting.cache("headlamp/one").read("/");
    setting.pod.put_page(&[LAZY, "/assets/gone-CqULmv_h.js"]);
    let files = setting.files();
    files.prefetch().await.unwrap();
    setting.on_disk(&[LAZY]).await;
    let shown = get(&files, "/").await.2;
    assert!(String::from_utf8_lossy(&shown).contains("gone"), "the page itself is the pod's");
    assert_eq!(setting.cache("headlamp/one").read("/"), whole);
    setting.pod.put("/assets/gone-CqULmv_h.js", "text/javascript", "there");
    let _ = get(&files, "/").await;
    until("the new page is kept", || setting.cache("headlamp/one").read("/") != whole).await;
}

#[tokio::test]
async fn files_stand_below_the_base_and_come_over_tls_from_whomever() {
    let authority = Authority::new();
    let pod = Pod::start_with("/headlamp", Some(authority.acceptor(&["elsewhere.example"], &["http/1.1"]))).await;
    let files = UiFiles::from_pod(pod.connect(), true, "/headlamp/", None).unwrap();
    files.prefetch().await.unwrap();
    assert_eq!((pod.asked("/"), pod.asked(SCRIPT), pod.asked(STYLE)), (1, 1, 1));
    assert_eq!(get(&files, SCRIPT).await.2, "script");
    assert_eq!(pod.asked(SCRIPT), 1, "memory is enough");
}

#[tokio::test]
async fn what_was_just_fetched_ahead_is_not_asked_for_again() {
    let setting = Setting::new().await;
    let files = setting.files_with(Patience { fresh: Duration::from_secs(60), ..QUICK });
    files.prefetch().await.unwrap();
    let _ = (get(&files, "/").await, files.config().await, files.plugins().await);
    assert_eq!((setting.pod.asked("/"), setting.pod.asked("/config"), setting.pod.asked("/plugins")), (1, 1, 1));
    files.reset();
    let _ = get(&files, "/").await;
    assert_eq!(setting.pod.asked("/"), 2, "after a sleep nothing is fresh");
}

#[tokio::test]
async fn what_is_no_configuration_and_no_list_of_plugins_is_not_taken_for_one() {
    let setting = Setting::new().await;
    setting.pod.put("/config", "text/html", "<!DOCTYPE html>");
    setting.pod.put("/plugins", "text/html", "<!DOCTYPE html>");
    let files = setting.files();
    assert!(files.config().await.is_err());
    let plugins = files.plugins().await;
    assert_eq!(plugins.headers()["content-type"], "application/json");
    assert_eq!(text(plugins).await, "[]");
    setting.pod.put_with("/config", &[("content-encoding", "gzip")], Bytes::from("{}"));
    assert!(files.config().await.is_err());
}

#[tokio::test]
async fn a_folder_serves_its_page_its_files_and_a_configuration_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join("index.html"), "headlampBaseUrl = './';").unwrap();
    std::fs::write(folder.path().join(&SCRIPT[1..]), "script").unwrap();
    let files = UiFiles::from_folder(folder.path(), "").unwrap();
    files.prefetch().await.unwrap();
    assert_eq!(get(&files, "/c/main").await.2, "headlampBaseUrl = '/';");
    let (_, headers, body) = get(&files, SCRIPT).await;
    assert_eq!(
        (&*body, &headers["cache-control"]),
        (b"script".as_slice(), &header::HeaderValue::from_static("public, max-age=31536000, immutable"))
    );
    assert_eq!(get(&files, "/assets/gone-CqULmv_h.js").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&files, "/%2e%2e/etc/passwd.txt").await.0, StatusCode::NOT_FOUND);
    assert_eq!(headlamp_config::in_cluster_name(&files.config().await.unwrap()).unwrap(), "main");
    assert_eq!(text(files.plugins().await).await, "[]");
    assert_eq!(*files.situation().borrow(), Situation::Reached);
}

#[test]
fn memory_holds_what_was_used_last() {
    let file = |size: usize| Arc::new(UiFile::new(String::new(), Encoding::Plain, None, Bytes::from(vec![0; size])));
    let mut memory = Memory::default();
    for path in ["a", "b", "c"] {
        memory.put(path, &file(40), None, 130);
    }
    assert!(memory.get("a").is_some());
    memory.put("d", &file(40), None, 130);
    let held = ["a", "b", "c", "d"].map(|path| memory.get(path).is_some());
    assert_eq!(held, [true, false, true, true]);
    memory.put("huge", &file(200), None, 130);
    memory.put("a", &file(1), None, 130);
    assert_eq!((memory.files.len(), memory.bytes), (3, 81));
}
