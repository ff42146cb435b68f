#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use headlamp_test_support::KeptPort;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::cache::{Locked, Token};
use crate::http::tests::{Server, answer, noon};

/// A provider whose revocation endpoint, if it has one, gives this answer.
fn provider(revocation: Option<(&'static str, &'static str)>) -> Server {
    Server::start(move |_, request, stream| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let at = |path: &str| format!("http://{host}/{path}");
        let mut document = json!({ "issuer": format!("http://{host}"), "authorization_endpoint": at("authorize"), "token_endpoint": at("token"), "jwks_uri": at("keys") });
        if revocation.is_some() {
            document.as_object_mut().unwrap().insert("revocation_endpoint".to_owned(), at("revoke").into());
        }
        let (status, body) = match (revocation, request.split_whitespace().nth(1).unwrap_or_default()) {
            (Some((status, body)), "/revoke") => (status, body.to_owned()),
            (_, "/keys") => {
                ("200 OK", json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" }] }).to_string())
            }
            _ => ("200 OK", document.to_string()),
        };
        let _ = stream.write_all(&answer(status, "", &body));
    })
}

const REVOKED: Option<(&str, &str)> = Some(("200 OK", ""));

/// A home folder whose kubeconfig's user signs in there.
struct Home {
    folder: TempDir,
    issuer: String,
}

impl Home {
    fn new(port: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = format!("http://127.0.0.1:{port}");
        fs::create_dir(folder.path().join(".kube")).unwrap();
        let text = format!(
            "current-context: dev\ncontexts:\n- {{ name: dev, context: {{ cluster: a, user: jane }} }}\nusers:\n- name: jane\n  user:\n    exec:\n      \
             command: kubectl-headlamp\n      args: [get-token, --issuer-url={issuer}, --client-id=kubernetes, --client-secret=s3cret]\n"
        );
        fs::write(folder.path().join(".kube/config"), text).unwrap();
        Self { folder, issuer }
    }

    fn environment(&self) -> Environment {
        Environment::from([("HOME", self.folder.path().to_str().unwrap())])
    }

    fn cache_folder(&self) -> PathBuf {
        self.environment().state_folder().unwrap()
    }

    fn identity(&self, client: &str) -> Identity {
        let options =
            Options { issuer_url: Some(self.issuer.clone()), client_id: Some(client.to_owned()), ..Options::default() };
        settings::resolve(&options, &self.environment()).unwrap().identity
    }

    /// Signs in a client, and says where its tokens are.
    fn keep(&self, client: &str) -> PathBuf {
        let identity = self.identity(client);
        let key = Key::of(&identity);
        let entry = Entry::of(identity, "the-id-token", noon(), noon());
        let access = entry.id_token.clone().map(|token| Token { value: Secret::new("the-access-token"), ..token });
        let refresh = Some(Secret::new("the-refresh-token"));
        let entry = Entry { access_token: access, refresh_token: refresh, ..entry };
        Cache::at(self.cache_folder()).write(&key, &entry).unwrap();
        self.cache_folder().join(format!("{}.json", key.as_str()))
    }

    fn logout(&self, words: &str) -> Result<()> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let line = Line::parse_from(words.split_whitespace());
        run(&line.arguments, Ui::new(), &self.environment(), Clock::fixed(noon))
    }
}

/// What was asked to be revoked: the token, its hint, and whether the client proved itself.
fn revoked(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter().filter(|request| request.starts_with("POST /revoke "));
    let told = |request: String| {
        let body = request.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        let value = |name: &str| {
            let found = url::form_urlencoded::parse(body.as_bytes()).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let proof = if request.contains("authorization: Basic ") { "with its secret" } else { "as a public client" };
        format!("{} {} {proof}", value("token_type_hint"), value("token"))
    };
    requests.map(told).collect()
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[test]
fn the_refresh_token_is_revoked_first_and_only_our_files_are_deleted() {
    let server = provider(REVOKED);
    let home = Home::new(server.port);
    let (tokens, another) = (home.keep("kubernetes"), home.keep("another"));
    let stray = home.cache_folder().join("notes.txt");
    fs::write(&stray, "mine").unwrap();
    home.logout("").unwrap();
    let expected = ["refresh_token the-refresh-token with its secret", "access_token the-access-token with its secret"];
    assert_eq!(revoked(&server), expected);
    assert_eq!([exists(&tokens), exists(&another), exists(&stray)], [false, true, true]);
    assert!(!exists(&tokens.with_extension("lock")));
}

#[test]
fn tokens_that_cannot_be_revoked_are_deleted_all_the_same() {
    let refused = provider(Some(("503 Service Unavailable", "")));
    let nobody = KeptPort::new();
    for port in [
        refused.port,
        provider(None).port,
        provider(Some(("400 Bad Request", r#"{"error":"invalid_client"}"#))).port,
        nobody.number(),
    ] {
        let home = Home::new(port);
        let tokens = home.keep("kubernetes");
        home.logout("").unwrap();
        assert!(!exists(&tokens), "port {port}");
    }
}

#[test]
fn an_access_token_that_nobody_keeps_track_of_is_no_failure() {
    let server = provider(Some(("400 Bad Request", r#"{"error":"unsupported_token_type"}"#)));
    let home = Home::new(server.port);
    home.keep("kubernetes");
    home.logout("").unwrap();
    assert_eq!(revoked(&server).len(), 2);
}

#[test]
fn all_means_every_identity_configured_or_not_and_damaged_ones() {
    let server = provider(REVOKED);
    let home = Home::new(server.port);
    let kept = [home.keep("kubernetes"), home.keep("another"), home.keep("third")];
    let [_, _, third] = &kept;
    fs::write(third, "{").unwrap();
    home.logout("--all").unwrap();
    assert_eq!(kept.map(|path| exists(&path)), [false; 3]);
    let mut revoked = revoked(&server);
    revoked.sort();
    let expected =
        ["access_token the-access-token as a public client", "access_token the-access-token with its secret"];
    assert_eq!(revoked.get(..2).unwrap(), expected);
    assert_eq!(revoked.len(), 4);
}

#[test]
fn where_nothing_is_kept_nothing_is_made() {
    let home = Home::new(1);
    home.logout("").unwrap();
    home.logout("--all").unwrap();
    assert!(!exists(&home.cache_folder()));
}

#[test]
fn another_folder_can_be_named() {
    let server = provider(REVOKED);
    let home = Home::new(server.port);
    let tokens = home.keep("kubernetes");
    let elsewhere = home.folder.path().join("elsewhere");
    fs::rename(home.cache_folder(), &elsewhere).unwrap();
    let moved = elsewhere.join(tokens.file_name().unwrap());
    home.logout("").unwrap();
    assert!(exists(&moved));
    home.logout(&format!("--cache-dir {}", elsewhere.display())).unwrap();
    assert!(!exists(&moved));
}

#[test]
fn a_sign_in_that_goes_on_is_waited_for() {
    let server = provider(REVOKED);
    let home = Home::new(server.port);
    let tokens = home.keep("kubernetes");
    let key = Key::of(&home.identity("kubernetes"));
    let Locked::Mine(lock) = Cache::at(home.cache_folder()).lock(&key, "sign-in", noon()).unwrap() else {
        unreachable!()
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let logout = scope.spawn(|| home.logout(""));
        while began.elapsed() < Duration::from_millis(200) {
            assert!(exists(&tokens) && !logout.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(lock);
        logout.join().unwrap().unwrap();
    });
    assert!(!exists(&tokens));
}
