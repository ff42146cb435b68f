#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::kubeconfig_user::{BearerSource, CertificateSource, Impersonation, InteractiveMode, Pem};
use crate::secret::Secret;

const TEAM: &str = "
apiVersion: v1
kind: Config
current-context: dev
clusters:
- name: one
  cluster: {server: 'https://one.example', certificate-authority: ca.pem, tls-server-name: api, proxy-url: 'socks5://p'}
- name: two
  cluster: {server: 'https://two.example', certificate-authority-data: QUJD, certificate-authority: ca.pem}
contexts:
- {name: dev, context: {cluster: one, user: oidc}}
- {name: production, context: {cluster: two, user: oidc}}
- {name: admin, context: {cluster: one, user: certificate}}
- {name: dangling, context: {cluster: gone, user: gone}}
- {name: nobody, context: {cluster: one}}
users:
- name: certificate
  user: {client-certificate-data: QUJD, client-key-data: S0VZ}
- name: oidc
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: /opt/bin/kubectl-headlamp
      args: [get-token, --issuer-url=https://issuer.example]
      env: [{name: A, value: b}]
      interactiveMode: IfAvailable
- name: other
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token]}}
";

/// A folder with these files; the environment's KUBECONFIG lists them in this order.
fn on_disk(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Environment) {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, bytes)) in paths.iter().zip(files) {
        std::fs::write(path, bytes).unwrap();
    }
    let list = std::env::join_paths(&paths).unwrap();
    let home = folder.path().to_str().unwrap();
    let environment = Environment::from([("KUBECONFIG", list.to_str().unwrap()), ("HOME", home)]);
    (folder, environment)
}

fn team() -> Kubeconfig {
    let mut kubeconfig = Kubeconfig::default();
    kubeconfig.add(TEAM, Path::new("/k/config")).unwrap();
    kubeconfig
}

fn exec(kubeconfig: &Kubeconfig, selection: Selection) -> ExecUser {
    match kubeconfig.user(&selection).unwrap() {
        Selected::Exec(user) => *user,
        _ => panic!("no exec entry"),
    }
}

fn other(kubeconfig: &Kubeconfig, selection: Selection) -> OtherUser {
    match kubeconfig.user(&selection).unwrap_or_else(|error| panic!("{error}")) {
        Selected::Other(user) => *user,
        _ => panic!("an exec entry, or nothing"),
    }
}

fn refusal(kubeconfig: &Kubeconfig, selection: Selection) -> Error {
    kubeconfig.user(&selection).err().unwrap()
}

#[test]
fn the_current_context_says_user_and_cluster() {
    let user = exec(&team(), Selection::default());
    assert_eq!((user.name.as_str(), user.context.as_deref()), ("oidc", Some("dev")));
    assert_eq!(user.program, Program::Headlamp);
    assert_eq!(user.arguments, ["get-token", "--issuer-url=https://issuer.example"]);
    assert_eq!(user.variables, [("A".to_owned(), "b".to_owned())]);
    let cluster = user.cluster.unwrap();
    assert_eq!(cluster.server, "https://one.example");
    assert_eq!(cluster.certificate_authority, Some(CertificateAuthority::File("/k/ca.pem".into())));
    assert_eq!(cluster.tls_server_name.as_deref(), Some("api"));
    assert_eq!(cluster.proxy_url.as_deref(), Some("socks5://p"));
}

#[test]
fn names_that_are_given_win_over_the_context() {
    let kubeconfig = team();
    let user = exec(&kubeconfig, Selection { context: Some("admin"), user: Some("oidc"), cluster: Some("two") });
    assert_eq!((user.name.as_str(), user.context.as_deref()), ("oidc", Some("admin")));
    assert_eq!(user.cluster.unwrap().certificate_authority, Some(CertificateAuthority::Data("QUJD".into())));
}

#[test]
fn a_user_without_an_exec_entry_says_how_it_signs_in() {
    let kubeconfig = team();
    let admin = other(&kubeconfig, Selection { context: Some("admin"), ..Selection::default() });
    assert_eq!((admin.name.as_deref(), admin.way.as_str()), (Some("certificate"), "a client certificate"));
    let nobody = other(&kubeconfig, Selection { context: Some("nobody"), ..Selection::default() });
    assert_eq!((nobody.name, nobody.way.as_str()), (None, "nothing: the context names no user"));
}

#[test]
fn an_unknown_name_is_answered_with_the_one_that_was_meant_or_all() {
    let kubeconfig = team();
    let typo = refusal(&kubeconfig, Selection { context: Some("prodution"), ..Selection::default() });
    assert_eq!(typo.message(), "no context `prodution` in `/k/config`");
    assert_eq!(typo.hints(), ["did you mean `--context=production`?"]);
    let far = refusal(&kubeconfig, Selection { user: Some("zzz"), ..Selection::default() });
    assert_eq!(far.hints(), ["users that are there: `certificate`, `oidc`, `other`"]);
    let cluster = refusal(&kubeconfig, Selection { cluster: Some("tow"), ..Selection::default() });
    assert_eq!(cluster.kind(), crate::error::Kind::Settings);
    let dangling = refusal(&kubeconfig, Selection { context: Some("dangling"), ..Selection::default() });
    assert_eq!(dangling.message(), "no user `gone` in `/k/config`");
}

#[test]
fn a_named_user_does_without_a_current_context() {
    let mut kubeconfig = team();
    kubeconfig.current = Some("deleted".into());
    let user = exec(&kubeconfig, Selection { user: Some("oidc"), ..Selection::default() });
    assert_eq!((user.context, user.cluster), (None, None));
    assert_eq!(refusal(&kubeconfig, Selection::default()).message(), "no context `deleted` in `/k/config`");
}

#[test]
fn only_our_and_kubelogins_entries_are_listed() {
    let users = team().exec_users();
    assert_eq!(users.len(), 1);
    assert_eq!((users[0].name.as_str(), users[0].context.as_deref()), ("oidc", Some("dev")));
    assert_eq!(team().contexts_of("oidc"), ["dev", "production"]);
}

/// What a user of this YAML comes to, in a kubeconfig `/k/config`.
fn target_of(user: &str, overrides: &Overrides) -> Result<Target> {
    let text = format!(
        "current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u, namespace: team}}}}]
clusters:
- name: k
  cluster:
    server: https://k.example
    disable-compression: true
    extensions: [{{name: client.authentication.k8s.io/exec, extension: {{audience: k}}}}]
users: [{{name: u, user: {user}}}]"
    );
    let mut kubeconfig = Kubeconfig::default();
    kubeconfig.add(&text, Path::new("/k/config")).unwrap();
    kubeconfig.target(&Selection::default(), overrides)
}

fn user_of(user: &str) -> UserEntry {
    target_of(user, &Overrides::default()).unwrap_or_else(|error| panic!("{error}")).user
}

fn told(bearer: &BearerSource) -> String {
    match bearer {
        BearerSource::None => "none".to_owned(),
        BearerSource::Token(token) => format!("token {}", token.expose()),
        BearerSource::File(path) => format!("file {}", path.display()),
        BearerSource::Basic { username, password } => format!("basic {username}:{}", password.expose()),
        BearerSource::Headlamp(user) => format!("ours {}", user.arguments.join(" ")),
        BearerSource::Plugin(plugin) => format!("plugin {}", plugin.command),
        BearerSource::Unsupported(way) => format!("unsupported {way}"),
    }
}

#[test]
fn each_way_to_be_somebody_is_found_and_the_entrys_own_wins_over_its_program() {
    const EXEC: &str = "exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}";
    for (user, expected) in [
        ("{}", "none"),
        ("{token: t}", "token t"),
        ("{tokenFile: run/token}", "file /k/run/token"),
        ("{token: t, tokenFile: /run/token}", "file /run/token"),
        ("{token: '', tokenFile: ''}", "none"),
        ("{username: jane, password: p}", "basic jane:p"),
        ("{exec: {command: kubectl-headlamp, args: [get-token, -v]}}", "ours get-token -v"),
        (
            "{exec: {command: kubectl, args: [oidc-login, get-token, --oidc-client-id=a]}}",
            "ours get-token --oidc-client-id=a",
        ),
        (&format!("{{{EXEC}}}"), "plugin aws"),
        (&format!("{{token: t, {EXEC}}}"), "token t"),
        (&format!("{{client-certificate-data: QQ==, client-key-data: QQ==, {EXEC}}}"), "none"),
        ("{auth-provider: {name: azure}}", "unsupported the legacy auth provider `azure`, which kubectl dropped"),
        (&format!("{{auth-provider: {{name: azure}}, {EXEC}}}"), "plugin aws"),
    ] {
        assert_eq!(told(&user_of(user).bearer), expected, "{user}");
    }
}

#[test]
fn an_exec_entry_of_another_program_is_read_whole() {
    let user = user_of(
        "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./bin/plugin, args: [a, b], env: [{name: A, value: b}],
          interactiveMode: Always, provideClusterInfo: true, installHint: brew install plugin}}",
    );
    let BearerSource::Plugin(plugin) = user.bearer else { panic!("another source") };
    assert_eq!((plugin.command.as_str(), plugin.folder.as_path()), ("./bin/plugin", Path::new("/k")));
    assert_eq!(
        (plugin.arguments, plugin.variables),
        (vec!["a".to_owned(), "b".into()], vec![("A".to_owned(), "b".to_owned())])
    );
    assert_eq!(
        (plugin.api_version.as_str(), plugin.interactive_mode),
        ("client.authentication.k8s.io/v1beta1", InteractiveMode::Always)
    );
    assert_eq!((plugin.provide_cluster_info, plugin.install_hint.as_deref()), (true, Some("brew install plugin")));
}

#[test]
fn a_client_certificate_comes_from_data_or_from_files_beside_the_kubeconfig() {
    let source = |user| user_of(user).certificate.map(|CertificateSource { certificate, key }| (certificate, key));
    let data = |text: &str| Pem::Data(Secret::new(text));
    assert_eq!(source("{token: t}"), None);
    assert_eq!(source("{client-certificate-data: QQ==, client-key-data: Qg==}"), Some((data("QQ=="), data("Qg=="))));
    let files = Some((Pem::File("/k/me.crt".into()), Pem::File("/keys/me".into())));
    assert_eq!(source("{client-certificate: me.crt, client-key: /keys/me}"), files);
    assert_eq!(
        source("{client-certificate: me.crt, client-key-data: Qg==, token: t}"),
        Some((Pem::File("/k/me.crt".into()), data("Qg==")))
    );
}

#[test]
fn a_user_that_kubectl_would_refuse_is_named_without_its_secrets() {
    for user in [
        "{token: hunter2, username: jane}",
        "{client-certificate-data: hunter2}",
        "{exec: {command: aws, args: [hunter2]}}",
        "{exec: {apiVersion: client.authentication.k8s.io/v1, env: [{name: A, value: hunter2}]}}",
        "{token: hunter2, as-groups: [dev]}",
        "{token: hunter2, as-uid: '7'}",
    ] {
        let error = target_of(user, &Overrides::default()).err().unwrap();
        assert_eq!(error.kind(), crate::error::Kind::Settings, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn the_target_holds_what_the_context_says_with_the_flags_over_it() {
    let user = "{token: t, as: jane, as-groups: [dev], as-user-extra: {scopes: [view]}}";
    let plain = target_of(user, &Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((plain.context.as_deref(), plain.namespace.as_deref()), (Some("c"), Some("team")));
    assert_eq!((plain.cluster.server.as_str(), plain.cluster.disable_compression), ("https://k.example", true));
    assert_eq!(plain.cluster.exec_config, Some(serde_json::json!({"audience": "k"})));
    assert_eq!(plain.user.name.as_deref(), Some("u"));
    let Impersonation { user: who, groups, extra, .. } = plain.user.impersonate;
    assert_eq!((who.as_deref(), groups.as_slice()), (Some("jane"), &["dev".to_owned()][..]));
    assert_eq!(extra.into_iter().collect::<Vec<_>>(), [("scopes".to_owned(), vec!["view".to_owned()])]);
    let overrides = Overrides {
        server: Some("https://other.example".into()),
        token: Some(Secret::new("flag")),
        namespace: Some("mine".into()),
        impersonate: Impersonation { user: Some("joe".into()), ..Impersonation::default() },
        ..Overrides::default()
    };
    let over =
        target_of("{tokenFile: f, as: jane, as-groups: [dev]}", &overrides).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((over.cluster.server.as_str(), over.namespace.as_deref()), ("https://other.example", Some("mine")));
    assert_eq!(told(&over.user.bearer), "token flag");
    assert_eq!(
        (over.user.impersonate.user.as_deref(), over.user.impersonate.groups.as_slice()),
        (Some("joe"), &["dev".to_owned()][..])
    );
}

#[test]
fn flags_alone_are_enough_and_without_a_cluster_it_is_said_what_to_do() {
    let nothing = Kubeconfig::default();
    let overrides =
        Overrides { server: Some("https://a.example".into()), token: Some(Secret::new("t")), ..Overrides::default() };
    let target = nothing.target(&Selection::default(), &overrides).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((target.context, target.namespace, target.cluster.name.as_str()), (None, None, "https://a.example"));
    let refusal = |kubeconfig: &Kubeconfig, selection: &Selection| {
        kubeconfig.target(selection, &Overrides::default()).err().unwrap()
    };
    let none = refusal(&nothing, &Selection::default());
    assert!(none.to_string().contains("service account") && none.to_string().contains("KUBECONFIG"), "{none}");
    let mut kubeconfig = team();
    let dangling = Selection { context: Some("dangling"), ..Selection::default() };
    let gone = refusal(&kubeconfig, &dangling);
    assert!(
        gone.message().starts_with("no cluster `gone`") && gone.causes() == ["the context `dangling` names it"],
        "{gone}"
    );
    let token = kubeconfig.target(&dangling, &overrides).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(told(&token.user.bearer), "token t");
    let nobody =
        kubeconfig.target(&Selection { context: Some("nobody"), ..Selection::default() }, &Overrides::default());
    assert_eq!(nobody.map(|target| told(&target.user.bearer)).ok().as_deref(), Some("none"));
    kubeconfig.current = None;
    assert!(refusal(&kubeconfig, &Selection::default()).hints().concat().contains("`dev`, `production`"));
}

#[test]
fn programs_are_known_by_their_names_and_arguments() {
    for (command, words, expected, rest) in [
        ("kubectl-headlamp", "get-token", Program::Headlamp, "get-token"),
        ("C:\\krew\\kubectl-headlamp.EXE", "get-token", Program::Headlamp, "get-token"),
        (
            "kubectl-headlamp",
            "oidc-login get-token --oidc-issuer-url=x",
            Program::Headlamp,
            "get-token --oidc-issuer-url=x",
        ),
        ("kubectl", "headlamp get-token -v", Program::Headlamp, "get-token -v"),
        ("/usr/bin/kubectl", "oidc-login get-token", Program::Kubelogin, "get-token"),
        ("kubectl", "get pods", Program::Other("kubectl".into()), "get pods"),
        ("kubectl-oidc_login", "get-token", Program::Kubelogin, "get-token"),
        ("kubelogin", "get-token --oidc-client-id x", Program::Kubelogin, "get-token --oidc-client-id x"),
        ("kubelogin", "get-token --server-id x", Program::AzureKubelogin, "get-token --server-id x"),
        ("aws", "eks get-token", Program::Other("aws".into()), "eks get-token"),
        ("", "", Program::Other(String::new()), ""),
    ] {
        let words = words.split_whitespace().map(str::to_owned).collect();
        let (found, arguments) = program(command, words);
        assert_eq!((found, arguments.join(" ")), (expected, rest.to_owned()), "{command}");
    }
}

#[test]
fn the_first_file_wins_and_missing_ones_are_skipped() {
    let first = "users: [{name: u, user: {exec: {command: first}}}]";
    let second = "current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
users: [{name: u, user: {exec: {command: second}}}]
clusters: [{name: k, cluster: {server: s, certificate-authority: ca.pem}}]";
    let (folder, environment) = on_disk(&[("a", first.as_bytes()), ("missing", b""), ("b", second.as_bytes())]);
    std::fs::remove_file(folder.path().join("missing")).unwrap();
    let kubeconfig = load(None, &environment).unwrap_or_else(|error| panic!("{error}"));
    let user = exec(&kubeconfig, Selection::default());
    assert_eq!((user.program, user.file), (Program::Other("first".into()), folder.path().join("a")));
    let authority = CertificateAuthority::File(folder.path().join("ca.pem"));
    assert_eq!(user.cluster.unwrap().certificate_authority, Some(authority));
}

#[test]
fn without_any_file_there_is_nothing_and_a_named_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::from([("HOME", folder.path().to_str().unwrap())]);
    let kubeconfig = load(None, &environment).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(kubeconfig.user(&Selection::default()), Ok(Selected::Nothing)));
    let error = load(Some(&folder.path().join("typo")), &environment).err().unwrap();
    assert!(error.message().ends_with("typo`"), "{error}");
    std::fs::create_dir(folder.path().join(".kube")).unwrap();
    std::fs::write(folder.path().join(".kube/config"), TEAM).unwrap();
    let kubeconfig = load(None, &environment).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kubeconfig.current_context(), Some("dev"));
    let named = load(Some(Path::new("~/.kube/config")), &environment).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(named.users.len(), 3);
}

#[test]
fn what_windows_editors_write_is_read() {
    let units = |unit: fn(u16) -> [u8; 2]| TEAM.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    for bytes in [
        [&[0xff, 0xfe], units(u16::to_le_bytes).as_slice()].concat(),
        [&[0xfe, 0xff], units(u16::to_be_bytes).as_slice()].concat(),
        [&[0xef, 0xbb, 0xbf], TEAM.as_bytes()].concat(),
        TEAM.replace('\n', "\r\n").into_bytes(),
    ] {
        let (_folder, environment) = on_disk(&[("config", &bytes)]);
        let kubeconfig = load(None, &environment).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(kubeconfig.contexts.len(), 5);
    }
}

#[test]
fn documents_of_one_file_merge_and_empty_ones_are_fine() {
    let text = format!("---\n---\n{TEAM}\n---\nusers: [{{name: late, user: {{token: t}}}}]\ncontexts: null\n");
    let mut kubeconfig = Kubeconfig::default();
    kubeconfig.add(&text, Path::new("/k/config")).unwrap();
    kubeconfig.add("", Path::new("/k/empty")).unwrap();
    kubeconfig.add("# nothing\n", Path::new("/k/comment")).unwrap();
    let late = other(&kubeconfig, Selection { user: Some("late"), ..Selection::default() });
    assert_eq!(late.way, "a token in the kubeconfig");
}

#[test]
fn a_damaged_file_is_an_error_that_shows_nothing_of_it() {
    for text in ["users: [{name: u, user: {token: [hunter2]}}]", "users: hunter2", "users: [\nhunter2", "hunter2"] {
        let error = Kubeconfig::default().add(text, Path::new("/k/config")).err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("(line "), "{error}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let (_folder, environment) = on_disk(&[("config", &vec![b'#'; 8 * 1024 * 1024 + 1])]);
    let error = load(None, &environment).err().unwrap();
    assert_eq!(error.causes(), ["it is larger than 8 MiB"]);
}

#[test]
fn deep_nesting_and_alias_bombs_end_in_an_error() {
    let deep = format!("preferences: {}{}", "[".repeat(50_000), "]".repeat(50_000));
    let mut bomb = "x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let _ = writeln!(bomb, "x{level}: &x{level} [{}]", vec![format!("*x{before}"); 10].join(","));
    }
    for text in [deep, bomb] {
        assert!(Kubeconfig::default().add(&text, Path::new("/k/config")).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Some(text) = text(&bytes) {
            let _ = Kubeconfig::default().add(&text, Path::new("/k/config"));
        }
    }

    #[test]
    fn a_kubeconfig_with_one_part_replaced_is_read_or_refused(
        at in 0usize..TEAM.len(), length in 0usize..40, with in "[-a-z:{}\\[\\]&*!|>'\"#, \n\t%@`0-9]{0,12}"
    ) {
        let end = (at + length).min(TEAM.len());
        let text = format!("{}{with}{}", &TEAM[..at], &TEAM[end..]);
        let mut kubeconfig = Kubeconfig::default();
        if kubeconfig.add(&text, Path::new("/k/config")).is_ok() {
            let _ = kubeconfig.user(&Selection::default());
            let _ = kubeconfig.exec_users();
        }
    }

    #[test]
    fn every_name_is_found_again_and_is_its_own_closest(names in proptest::collection::hash_set("\\PC{1,20}", 1..6)) {
        let users: Vec<serde_json::Value> = names
            .iter()
            .map(|name| serde_json::json!({"name": name, "user": {"exec": {"command": "kubectl-headlamp", "args": [name]}}}))
            .collect();
        let mut kubeconfig = Kubeconfig::default();
        kubeconfig.add(&serde_json::json!({"users": users}).to_string(), Path::new("/k/config")).unwrap();
        prop_assert_eq!(kubeconfig.exec_users().len(), names.len());
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in &known {
            let user = exec(&kubeconfig, Selection { user: Some(name), ..Selection::default() });
            prop_assert_eq!(&user.arguments, &[(*name).to_owned()]);
            prop_assert_eq!(closest(name, &known), Some(*name));
        }
    }

    #[test]
    fn the_distance_is_one_per_mistake(word in "[a-z]{1,12}", at in 0usize..12, character in "[A-Z]") {
        let at = at.min(word.len() - 1);
        let replaced = format!("{}{character}{}", &word[..at], &word[at + 1..]);
        let longer = format!("{}{character}{}", &word[..at], &word[at..]);
        prop_assert_eq!([distance(&word, &replaced), distance(&word, &longer), distance(&longer, &word)], [1, 1, 1]);
    }
}
