#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::cache::{Entry, Person, Token};
use crate::configured::settings_of_entry;
use crate::http::tests::{Server, answer};
use crate::secret::Secret;

const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: dev
clusters:
- { name: one, cluster: { server: "https://one.example.com" } }
contexts:
- { name: dev, context: { cluster: one, user: jane } }
- { name: dev-admin, context: { cluster: one, user: jane } }
- { name: aks, context: { cluster: one, user: azure } }
- { name: kind, context: { cluster: one, user: certificate } }
- { name: cloud, context: { cluster: one, user: cloud } }
- { name: robot, context: { cluster: one, user: robot } }
- { name: bad, context: { cluster: one, user: bad } }
users:
- name: jane
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: kubectl-headlamp
      args: [get-token, --issuer-url=https://id.example.com, --client-id=kubernetes]
- name: azure
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: kubectl-headlamp
      args: [get-token, --provider=entra, --tenant=11111111-2222-3333-4444-555555555555, --aks, --client-id=app]
- name: robot
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: kubectl-headlamp
      args: [get-token, --issuer-url=https://id.example.com, --client-id=robot, --flow=client-credentials]
- name: bad
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: kubectl-headlamp
      args: [get-token, --issuer-url=http://id.example.com, --client-id=x]
- { name: certificate, user: { client-certificate: a.crt, client-key: a.key } }
- name: cloud
  user:
    exec: { apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token] }
"#;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

/// A home folder with a kubeconfig.
struct Home {
    folder: TempDir,
    environment: Environment,
}

impl Home {
    fn new() -> Self {
        Self::with(KUBECONFIG)
    }

    fn with(kubeconfig: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join(".kube")).unwrap();
        fs::write(folder.path().join(".kube/config"), kubeconfig).unwrap();
        let environment = Environment::from([("HOME", folder.path().to_str().unwrap())]);
        Self { folder, environment }
    }

    fn kubeconfig(&self) -> kubeconfig::Kubeconfig {
        kubeconfig::load(None, &self.environment).unwrap()
    }

    fn settings(&self, user: &str) -> Settings {
        let user = self.kubeconfig().exec_users().into_iter().find(|one| one.name == user).unwrap();
        settings_of_entry(&user, &Options::default(), &self.environment).unwrap()
    }

    /// Signs in a user of the kubeconfig, or another one.
    fn keep(settings: &Settings, change: impl FnOnce(&mut Entry)) {
        let token = |audience: &str, issuer: &str| Token {
            value: Secret::new("eyJ.secret.token"),
            expires: at("2026-11-24T12:42:00.7Z"),
            issuer: Some(issuer.to_owned()),
            audience: vec![audience.to_owned()],
        };
        let mut entry = Entry {
            identity: settings.identity.clone(),
            id_token: Some(token("kubernetes", &settings.identity.issuer)),
            access_token: Some(token("api", "https://sts.example.com/")),
            refresh_token: Some(Secret::new("refresh.secret")),
            refresh_expires: None,
            person: Some(Person {
                subject: "248289761001".to_owned(),
                name: Some("Jane\u{1b}[31m Doe".to_owned()),
                email: Some("jane@example.com".to_owned()),
                groups: vec!["dev".to_owned(), "ops\nteam".to_owned()],
                ..Person::default()
            }),
            signed_in: at("2026-11-24T09:00:00Z"),
            refreshed: at("2026-11-24T11:42:00Z"),
            subject: Some("248289761001".to_owned()),
        };
        change(&mut entry);
        Cache::at(settings.cache.folder.clone().unwrap()).write(&Key::of(&settings.identity), &entry).unwrap();
    }

    fn meant(&self, words: &[&str]) -> Result<Meant> {
        let context = words.first().map(|context| (*context).to_owned());
        let arguments = KubeconfigArguments { context, ..KubeconfigArguments::default() };
        configured::meant(&self.kubeconfig(), &arguments, &Options::default(), &self.environment)
    }

    fn report(&self, context: &[&str]) -> Report {
        let kubeconfig = self.kubeconfig();
        let source = Source { kubeconfig: &kubeconfig, named: None };
        let meant = self.meant(context).unwrap();
        report(Some(&meant), None, source, &Options::default(), &self.environment, at("2026-11-24T12:00:00Z")).unwrap()
    }

    /// As it is printed, with the home folder's name taken out.
    fn printed(&self, report: &Report, format: Format) -> String {
        let text = rendered(report, format, at("2026-11-24T12:00:00Z")).unwrap();
        assert!(!text.contains("secret"), "{text}");
        text.replace(self.folder.path().to_str().unwrap(), "/home/jane")
    }

    fn outcome(&self, context: &[&str]) -> Result<()> {
        signed_in(&self.meant(context)?, &self.report(context))
    }
}

#[test]
fn a_person_reads_who_where_and_until_when() {
    let home = Home::new();
    Home::keep(&home.settings("jane"), |_| {});
    Home::keep(&home.settings("azure"), |entry| {
        entry.id_token = None;
        entry.refresh_expires = Some(at("2026-11-24T11:00:00Z"));
        entry.access_token.as_mut().unwrap().expires = at("2026-11-24T10:00:00Z");
    });
    insta::assert_snapshot!(home.printed(&home.report(&[]), Format::Text));
}

#[test]
fn programs_read_the_same_as_json_and_yaml() {
    let home = Home::new();
    Home::keep(&home.settings("jane"), |_| {});
    let report = home.report(&["kind"]);
    insta::assert_snapshot!("json", home.printed(&report, Format::Json));
    insta::assert_snapshot!("yaml", home.printed(&report, Format::Yaml));
}

#[test]
fn the_context_that_was_named_comes_first() {
    let home = Home::new();
    Home::keep(&home.settings("jane"), |_| {});
    let report = home.report(&["aks"]);
    let order: Vec<(bool, State)> = report.sessions.iter().map(|session| (session.current, session.state)).collect();
    let rest = [State::SignedIn, State::SignedIn, State::Misconfigured].map(|state| (false, state));
    assert_eq!(order.first(), Some(&(true, State::NotSignedIn)));
    assert_eq!(order.get(1..), Some(&rest[..]));
}

#[test]
fn the_exit_code_is_the_current_contexts() {
    let home = Home::new();
    let error = home.outcome(&[]).unwrap_err();
    assert_eq!(error.kind(), Kind::SignInNeeded);
    assert_eq!(error.message(), "you are not signed in to `https://id.example.com`");
    assert_eq!(error.hints(), ["run `kubectl headlamp login --context dev`"]);
    Home::keep(&home.settings("jane"), |_| {});
    home.outcome(&[]).unwrap();
    assert_eq!(home.outcome(&["aks"]).unwrap_err().kind(), Kind::SignInNeeded);
    home.outcome(&["kind"]).unwrap();
    home.outcome(&["cloud"]).unwrap();
    home.outcome(&["robot"]).unwrap();
}

#[test]
fn what_kubectl_can_still_work_with_counts_as_signed_in() {
    let home = Home::new();
    let (now, gone) = (at("2026-11-24T12:00:00Z"), Some(at("2026-11-24T11:00:00Z")));
    let state = |change: &dyn Fn(&mut Entry)| {
        Home::keep(&home.settings("jane"), change);
        home.report(&[]).sessions.first().unwrap().state
    };
    let end = |token: &mut Option<Token>| token.as_mut().unwrap().expires = now;
    assert_eq!(state(&|_| {}), State::SignedIn);
    assert_eq!(state(&|entry| entry.refresh_token = None), State::SignedIn);
    assert_eq!(state(&|entry| end(&mut entry.id_token)), State::SignedIn);
    assert_eq!(state(&|entry| (end(&mut entry.id_token), entry.refresh_expires = gone).1), State::Expired);
    assert_eq!(state(&|entry| (entry.id_token = None, entry.refresh_token = None).1), State::Expired);
    let folder = home.settings("jane").cache.folder.unwrap();
    fs::write(folder.join(format!("{}.json", Key::of(&home.settings("jane").identity).as_str())), "{").unwrap();
    let report = home.report(&[]);
    let damaged = report.sessions.first().unwrap();
    assert_eq!(
        (damaged.state, damaged.current, damaged.issuer.as_deref()),
        (State::Damaged, true, Some("https://id.example.com"))
    );
}

#[test]
fn contexts_of_others_are_told_of_plainly() {
    let home = Home::new();
    let told = |context| home.printed(&home.report(&[context]), Format::Text).lines().next().unwrap().to_owned();
    assert_eq!(
        told("kind"),
        "the user `certificate` of the context `kind` (in /home/jane/.kube/config) signs in with a client certificate: there is nothing to sign in to here"
    );
    assert_eq!(
        told("cloud"),
        "the user `cloud` of the context `cloud` (in /home/jane/.kube/config) signs in with the program `aws`: there is nothing to sign in to here"
    );
    assert_eq!(home.meant(&["bad"]).err().unwrap().message(), "`--issuer-url` is not https: `http://id.example.com`");
}

#[test]
fn a_session_that_nothing_configures_is_listed_with_the_flags_to_renew_it() {
    let home = Home::new();
    let mut settings = home.settings("jane");
    settings.identity.client_id = "other client".to_owned();
    Home::keep(&settings, |entry| (entry.refresh_token, entry.id_token, entry.access_token) = (None, None, None));
    let report = home.report(&[]);
    let other = report.sessions.iter().find(|session| session.client_id.as_deref() == Some("other client")).unwrap();
    assert_eq!(other.login, "kubectl headlamp login --issuer-url https://id.example.com --client-id 'other client'");
    assert_eq!((other.state, other.configured_by.len()), (State::Expired, 0));
}

/// A cluster that answers so, and a home folder whose contexts lead there.
fn cluster(status: &str, body: &str) -> (Server, Home) {
    let server = Server::answering(vec![answer(status, "Content-Type: application/json\r\n", body)]);
    let home = Home::with(&KUBECONFIG.replace("https://one.example.com", &format!("http://127.0.0.1:{}", server.port)));
    (server, home)
}

fn verified(home: &Home, context: &[&str]) -> Result<ClusterReport> {
    verify(&home.meant(context)?, Ui::new(), &home.environment, Clock::fixed(|| at("2026-11-24T12:00:00Z")))
}

#[test]
fn the_cluster_is_asked_with_the_cached_token() {
    let review = r#"{"status":{"userInfo":{"username":"oidc:jane","groups":["dev","system:authenticated"]}}}"#;
    let (server, home) = cluster("201 Created", review);
    Home::keep(&home.settings("jane"), |entry| {
        entry.refresh_token = None;
        entry.id_token.as_mut().unwrap().expires = at("2026-11-24T12:00:30Z");
    });
    let cluster = verified(&home, &[]).unwrap();
    assert!(server.requests().concat().to_lowercase().contains("authorization: bearer eyj.secret.token"));
    let report = Report { cluster: Some(cluster), ..home.report(&[]) };
    let text = home.printed(&report, Format::Text);
    let expected = format!(
        "the cluster `one` (http://127.0.0.1:{}) knows you as `oidc:jane`, in the groups `dev`, `system:authenticated`",
        server.port
    );
    assert_eq!(text.lines().next(), Some(expected.as_str()));
    let json: serde_json::Value = serde_json::from_str(&home.printed(&report, Format::Json)).unwrap();
    assert_eq!(json.pointer("/cluster/username"), Some(&"oidc:jane".into()));
}

#[test]
fn a_cluster_that_refuses_the_token_is_an_error_with_what_the_token_says() {
    let (_server, home) = cluster("401 Unauthorized", "{}");
    Home::keep(&home.settings("jane"), |_| {});
    let error = verified(&home, &[]).unwrap_err();
    assert!(error.message().contains("does not accept the token"), "{error}");
    assert!(!error.hints().is_empty());
}

#[test]
fn without_a_token_nobody_is_asked_anything() {
    let (server, home) = cluster("201 Created", "{}");
    assert_eq!(verified(&home, &[]).unwrap_err().kind(), Kind::SignInNeeded);
    Home::keep(&home.settings("jane"), |entry| {
        entry.refresh_token = None;
        entry.id_token.as_mut().unwrap().expires = at("2026-11-24T12:00:00Z");
    });
    assert_eq!(verified(&home, &[]).unwrap_err().kind(), Kind::SignInNeeded);
    assert_eq!(verified(&home, &["kind"]).unwrap_err().message(), "there is no token to ask the cluster with");
    assert!(server.requests().is_empty());
}
