//! Files, folders and variables that are not what they should be: the cache, the kubeconfig and
//! kubectl's question, as another user, a full disk or an accident may leave them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use headlamp_test_support::{Endpoint, Output, Provider, Run, Sandbox};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::BINARY;

/// A sandbox where somebody is signed in.
fn signed_in(provider: &Provider) -> Sandbox {
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(provider).exec_info("v1", true).run().succeeded();
    sandbox.visits();
    provider.forget_requests();
    sandbox
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// Whether what was done can only be undone by the person: nobody is signed in, nothing is asked of
/// the provider, nothing is handed out, and the way out is told.
fn is_told_and_left_alone(what: &str, provider: &Provider, output: &Output, told: &str) {
    assert_eq!(output.code, 1, "{what}: {output}");
    assert_eq!(output.stdout, "", "{what}");
    assert!(output.stderr.contains(told) && output.stderr.contains("hint: "), "{what}: {output}");
    assert_eq!(provider.all_requests().len(), 0, "{what}");
}

#[test]
fn folder_and_files_of_the_cache_are_the_users_alone_from_their_creation() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    // A shell that would let all of them be read and written.
    let script = sandbox.write_program("open-to-all", "umask 0; exec \"$@\"");
    let flags = sandbox.flags(&provider);
    let _ = sandbox.program(&script, [BINARY, "get-token"]).args(flags).run().succeeded();
    assert_eq!(mode(&sandbox.cache_folder()), 0o700);
    let files = sandbox.cache_files();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn what_is_no_file_of_this_users_in_the_place_of_the_cached_tokens_is_told_and_left_alone() {
    type Replace = fn(&Path, &Path);
    let cases: [(&str, Replace, &str); 4] = [
        ("a link", |entry, aside| symlink(aside, entry).unwrap(), "it is a symbolic link"),
        (
            "a pipe",
            |entry, _| assert!(Command::new("mkfifo").arg(entry).status().unwrap().success()),
            "it is not a regular file",
        ),
        ("a folder", |entry, _| fs::create_dir(entry).unwrap(), "it is a folder"),
        (
            "a file of another user",
            |entry, aside| {
                fs::copy(aside, entry).unwrap();
                std::os::unix::fs::chown(entry, Some(OTHER_USER), None).unwrap();
            },
            "it belongs to another user",
        ),
    ];
    for (what, replace, told) in cases {
        if what == "a file of another user" && !is_root() {
            not_tried("another user's file: only root can give files away");
            continue;
        }
        let provider = Provider::start();
        let sandbox = signed_in(&provider);
        let entry = sandbox.cache_entry();
        // Good tokens, as another user might place them to have somebody act in their name.
        let aside = sandbox.cache_folder().join("aside");
        fs::rename(&entry, &aside).unwrap();
        replace(&entry, &aside);
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        is_told_and_left_alone(what, &provider, &output, told);
        assert!(fs::symlink_metadata(&entry).is_ok(), "{what} is gone");
        assert_eq!(sandbox.opened().len(), 1, "{what}: only the first sign-in");
    }
}

#[test]
fn a_damaged_file_counts_as_none_and_heals() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 12] = [
        ("0 bytes", |entry| fs::write(entry, "").unwrap()),
        ("half of it", |entry| {
            let bytes = fs::read(entry).unwrap();
            fs::write(entry, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("1 GB, most of it a hole", |entry| {
            fs::File::options().write(true).open(entry).unwrap().set_len(1 << 30).unwrap();
        }),
        ("zeros", |entry| fs::write(entry, [0; 4096]).unwrap()),
        ("a list", |entry| fs::write(entry, "[]").unwrap()),
        ("deep nesting", |entry| fs::write(entry, "[".repeat(100_000)).unwrap()),
        ("not text", |entry| fs::write(entry, [0xff, 0xfe, 0x00, 0xd8]).unwrap()),
        ("another format", |entry| fs::write(entry, r#"{"version":1,"id_token":"opaque"}"#).unwrap()),
        ("a later version", |entry| edit(entry, |content| content["version"] = json!(2))),
        ("no version", |entry| edit(entry, |content| drop(content.as_object_mut().unwrap().remove("version")))),
        ("writable by the group", |entry| set_mode(entry, 0o660)),
        ("writable by all", |entry| set_mode(entry, 0o666)),
    ];
    for (what, damage) in cases {
        let provider = Provider::start();
        let sandbox = signed_in(&provider);
        let entry = sandbox.cache_entry();
        damage(&entry);
        let alone = sandbox.get_token(&provider).arg("--interactive=never").exec_info("v1", false).run();
        assert_eq!((alone.code, alone.stdout.as_str()), (3, ""), "{what}: {alone}");
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        assert_eq!(output.code, 0, "{what}: {output}");
        assert_eq!(provider.requests(Endpoint::Authorize).len(), 1, "{what}");
        assert_eq!((mode(&entry), sandbox.cache_entry()), (0o600, entry), "{what}");
        let again = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
        assert_eq!(again.token(), output.token(), "{what}");
    }
}

/// Changes a JSON file in its place.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut content: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut content);
    fs::write(path, content.to_string()).unwrap();
}

#[test]
fn a_file_that_others_can_read_but_not_write_is_still_the_users() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    set_mode(&sandbox.cache_entry(), 0o644);
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(provider.all_requests().len(), 0);
}

#[test]
fn tokens_of_another_identity_are_not_handed_out_wherever_their_file_is_copied_to() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    let stranger = sandbox.cache_entry();
    let tokens = fs::read(&stranger).unwrap();
    fs::remove_file(&stranger).unwrap();
    let other = |sandbox| Run::arg(Sandbox::get_token(sandbox, &provider), "--login-hint=jane@example.com");
    let _ = other(&sandbox).exec_info("v1", true).run().succeeded();
    let entry = sandbox.cache_entry();
    assert_ne!(entry, stranger);
    fs::write(&entry, tokens).unwrap();
    let output = other(&sandbox).exec_info("v1", false).args(["--interactive=never", "-v=1"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (3, ""), "{output}");
    assert!(output.stderr.contains("it belongs to another identity"), "{output}");
}

#[test]
fn damaged_files_beside_the_tokens_do_no_harm() {
    for content in
        ["", "{", "[]", r#"{"version":1}"#, r#"{"version":1,"issuer":7,"value":{"issuer":"https://evil.example"}}"#]
    {
        let provider = Provider::start();
        provider.set(|behaviour| behaviour.id_token_lifetime = 60);
        let sandbox = signed_in(&provider);
        let entry = sandbox.cache_entry();
        let key = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        for file in sandbox.cache_files() {
            if file != entry {
                fs::write(file, content).unwrap();
            }
        }
        fs::write(sandbox.cache_folder().join(format!("{key}.failed.json")), content).unwrap();
        let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
        assert_eq!(provider.token_requests("refresh_token").len(), 1, "{content}");
        assert_eq!(sandbox.opened().len(), 1, "{content}: only the first sign-in");
    }
}

#[test]
fn a_cache_folder_that_others_could_put_files_in_is_refused() {
    for (what, bits) in [("the group", 0o770), ("all", 0o777), ("all, each their own", 0o1777)] {
        let provider = Provider::start();
        provider.unused_is_fine();
        let sandbox = Sandbox::new(BINARY);
        fs::create_dir_all(sandbox.cache_folder()).unwrap();
        set_mode(&sandbox.cache_folder(), bits);
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        is_told_and_left_alone(what, &provider, &output, "others may write to it");
        assert!(output.stderr.contains("chmod go-w"), "{what}: {output}");
        assert_eq!(sandbox.cache_files(), Vec::<PathBuf>::new(), "{what}");
    }
}

#[test]
fn a_cache_folder_that_is_none_is_told_with_the_ways_around_it() {
    type Make = fn(&Path);
    let cases: [(&str, Make); 3] = [
        ("a file", |folder| fs::write(folder, "").unwrap()),
        ("a link to nothing", |folder| symlink("/nonexistent/folder", folder).unwrap()),
        ("a link to itself", |folder| symlink(folder, folder).unwrap()),
    ];
    for (what, make) in cases {
        let provider = Provider::start();
        provider.unused_is_fine();
        let sandbox = Sandbox::new(BINARY);
        fs::create_dir_all(sandbox.cache_folder().parent().unwrap()).unwrap();
        make(&sandbox.cache_folder());
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        is_told_and_left_alone(what, &provider, &output, "--cache-dir");
        assert!(output.stderr.contains("--token-storage none"), "{what}: {output}");
    }
}

#[test]
fn a_cache_folder_that_is_a_link_to_a_folder_of_the_users_is_used() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir_all(sandbox.cache_folder().parent().unwrap()).unwrap();
    symlink(elsewhere.path(), sandbox.cache_folder()).unwrap();
    let _ = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded();
    assert!(sandbox.cache_entry().is_file());
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_told_before_anybody_is_asked() {
    if !is_root() {
        return without_write_permission(|command| command);
    }
    let Some(setpriv) = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new).into_iter().find(|path| path.exists())
    else {
        not_tried("a folder that cannot be written: root can write to all, and `setpriv` is missing");
        return;
    };
    let user = OTHER_USER.to_string();
    let words = [setpriv.to_str().unwrap(), "--reuid", &user, "--regid", &user, "--clear-groups"];
    without_write_permission(move |line| [words.map(str::to_owned).to_vec(), line].concat());
}

/// Runs the binary as `dressed` has it, where it may not write.
fn without_write_permission(dressed: impl Fn(Vec<String>) -> Vec<String>) {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    // The binary where another user can reach it, and the home closed to writing.
    let binary = sandbox.path("bin/kubectl-headlamp");
    fs::copy(BINARY, &binary).unwrap();
    set_mode(&sandbox.path(""), 0o755);
    set_mode(&sandbox.home(), 0o555);
    let line = dressed(vec![binary.display().to_string(), "get-token".to_owned()]);
    let output =
        sandbox.program(Path::new(&line[0]), &line[1..]).args(sandbox.flags(&provider)).exec_info("v1", true).run();
    set_mode(&sandbox.home(), 0o755);
    is_told_and_left_alone("a folder without the right to write", &provider, &output, "cannot keep tokens in");
    assert!(output.stderr.contains("ermission denied"), "{output}");
    assert_eq!(sandbox.opened(), Vec::<String>::new());
}

#[test]
fn on_a_full_disk_the_old_file_stays_whole_and_the_new_token_is_handed_out() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let sandbox = signed_in(&provider);
    let before = fs::read(sandbox.cache_entry()).unwrap();
    // No file may grow: what a write to a full disk comes to, without a disk. The signal is ignored,
    // as a disk sends none.
    let script = sandbox.write_program("full", "trap '' XFSZ; ulimit -f 0; exec \"$@\"");
    let flags = sandbox.flags(&provider);
    let output = sandbox.program(&script, [BINARY, "get-token"]).args(flags).exec_info("v1", false).run();
    // The token is good, so kubectl gets it.
    assert_snapshot!(output, @r#"
    exit 0
    stdout:
    {"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"[TIME]","token":"[TOKEN]"}}
    stderr:
    kubectl-headlamp: warning: you will have to sign in again: cannot keep tokens in `[SANDBOX]/home/.local/state/kubectl-headlamp`: File too large (os error 27)
    "#);
    assert_eq!(fs::read(sandbox.cache_entry()).unwrap(), before);
    assert!(!sandbox.cache_files().iter().any(|file| file.extension().is_some_and(|end| end == "tmp")));
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    let script = sandbox.write_program("nowhere", "exec \"$@\" > /dev/full");
    let flags = sandbox.flags(&provider);
    let output = sandbox.program(&script, [BINARY, "get-token"]).args(flags).exec_info("v1", false).run();
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.starts_with("kubectl-headlamp: error: "), "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
}

#[test]
fn without_a_home_it_works_with_a_named_folder_or_none() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let homeless = |arguments: &[&str]| {
        let run = sandbox.get_token(&provider).exec_info("v1", true).args(arguments);
        ["HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]
            .into_iter()
            .fold(run, Run::without_env)
            .run()
    };
    let _ = homeless(&["--token-storage=none"]).succeeded();
    assert_eq!(sandbox.cache_files(), Vec::<PathBuf>::new());
    // Below the folder of the sandbox's cache, so that the tokens in it are no leak.
    let folder = sandbox.cache_folder().join("named");
    let _ = homeless(&[&format!("--cache-dir={}", folder.display())]).succeeded();
    assert!(fs::read_dir(folder).unwrap().count() >= 2);
}

#[test]
fn without_token_storage_no_file_is_left() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let before = files_below(&sandbox.home());
    for _ in 0..2 {
        let _ = sandbox.get_token(&provider).arg("--token-storage=none").exec_info("v1", true).run().succeeded();
    }
    assert_eq!(files_below(&sandbox.home()), before);
    assert_eq!(files_below(&sandbox.path("tmp")), Vec::<PathBuf>::new());
    assert_eq!(sandbox.opened().len(), 2);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn the_folder_of_the_cache_can_be_named_in_each_usual_way() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    // All below the folder that the leak check knows as the cache's.
    let below = sandbox.cache_folder();
    fs::create_dir_all(&below).unwrap();
    set_mode(&below, 0o700);
    let state = ".local/state/kubectl-headlamp";
    let run = || sandbox.get_token(&provider).exec_info("v1", true).folder(&below);
    let cases: Vec<(&str, Run<'_>, PathBuf)> = vec![
        ("the flag", run().arg(format!("--cache-dir={}/a", below.display())), below.join("a")),
        ("~ in the flag", run().arg(format!("--cache-dir=~/{state}/b")), below.join("b")),
        ("a relative path", run().arg("--cache-dir=c/d"), below.join("c/d")),
        ("our variable", run().env("KUBECTL_HEADLAMP_CACHE_DIR", below.join("e")), below.join("e")),
        ("kubectl's variable", run().env("KUBECACHEDIR", below.join("f")), below.join("f/kubectl-headlamp")),
        (
            "~ in kubectl's variable",
            run().env("KUBECACHEDIR", format!("~/{state}/g")),
            below.join("g/kubectl-headlamp"),
        ),
        ("the system's variable", run().env("XDG_STATE_HOME", below.join("h")), below.join("h/kubectl-headlamp")),
    ];
    for (what, run, folder) in cases {
        let _ = run.run().succeeded();
        assert!(folder.is_dir() && fs::read_dir(&folder).unwrap().count() >= 2, "{what}: {}", folder.display());
        assert_eq!(mode(&folder), 0o700, "{what}");
    }
}

#[test]
fn whoever_signs_in_to_the_same_identity_shares_its_tokens() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let run = || sandbox.get_token(&provider).exec_info("v1", true);
    let token = run().arg("--scope=email,groups").run().succeeded().token();
    sandbox.visits();
    provider.forget_requests();
    let authority = sandbox.write("another-ca.pem", headlamp_test_support::Authority::new("another").pem());
    for same in [
        vec!["--scope=groups email".to_owned()],
        vec!["--scope=groups".to_owned(), "--scope=openid".to_owned(), "--scope=email".to_owned()],
        vec![format!("--certificate-authority={}", authority.display()), "--scope=email,groups".to_owned()],
        vec!["--client-secret=a-secret-of-a-test".to_owned(), "--scope=email,groups".to_owned()],
        vec!["--redirect-url=http://127.0.0.1:8000/oidc-callback".to_owned(), "--scope=email,groups".to_owned()],
        vec!["--request-header=X-Team: a".replace(": ", "="), "--scope=email,groups".to_owned()],
        vec!["--flow=paste".to_owned(), "--scope=email,groups".to_owned()],
        vec!["--timeout=10s".to_owned(), "--scope=email,groups".to_owned()],
    ] {
        let output = run().args(&same).run();
        assert_eq!(output.code, 0, "{same:?}: {output}");
        assert_eq!(output.token(), token, "{same:?}");
    }
    // The other type is in the same entry.
    let access = run().args(["--scope=email,groups", "--token-type=access"]).run().succeeded().token();
    assert_ne!(access, token);
    assert_eq!(provider.all_requests().len(), 0);
    assert!(sandbox.cache_entry().is_file());
}

#[test]
fn two_identities_never_share_a_token() {
    let provider = Provider::start();
    let other_issuer = Provider::start();
    other_issuer.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded();
    sandbox.visits();
    provider.forget_requests();
    let not_signed_in = |flags: &[String]| {
        let run = sandbox.command(["get-token", "--interactive=never"]).args(flags);
        let output = run.exec_info("v1", false).run();
        assert_eq!((output.code, output.stdout.as_str()), (3, ""), "{flags:?}: {output}");
    };
    not_signed_in(&sandbox.flags(&other_issuer));
    let flags = sandbox.flags(&provider);
    not_signed_in(&flags.iter().map(|flag| flag.replace("=kubernetes", "=dashboard")).collect::<Vec<_>>());
    for difference in [
        "--scope=email",
        "--resource=https://api.example",
        "--auth-param=access_type=offline",
        "--login-hint=jane@example.com",
        "--username=jane@example.com",
        "--insecure-skip-tls-verify",
    ] {
        not_signed_in(&[flags.as_slice(), &[difference.to_owned()]].concat());
    }
    // The client itself needs nobody: it may sign in, but with no person's token.
    let client = sandbox.get_token(&provider).args(["--flow=client-credentials", "--token-type=access"]).run();
    assert_eq!((client.code, client.stdout.as_str()), (4, ""), "{client}");
    assert_eq!(provider.token_requests("client_credentials").len(), 1);
}

#[test]
fn a_question_of_kubectls_that_is_huge_deep_or_garbage_is_an_error() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    // Linux takes at most 128 KiB in one variable.
    let huge = format!(r#"{{"kind":"{}"}}"#, "x".repeat(120_000));
    assert_eq!(sandbox.get_token(&provider).env(QUESTION, huge).run().code, 0, "odd members are skipped");
    let deep = ["[".repeat(60_000), "]".repeat(60_000)].concat();
    let rude = r#"{"apiVersion":"\u001b[2J\u202e\n"}"#.to_owned();
    for question in [
        deep,
        rude,
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "7".to_owned(),
        r#"{"apiVersion":7}"#.to_owned(),
        r#"{"spec":{"interactive":"yes"}}"#.to_owned(),
        "\u{feff}{}".to_owned(),
        "s3cret-of-another-program".to_owned(),
    ] {
        let output = sandbox.get_token(&provider).env(QUESTION, &question).run();
        assert_eq!((output.code, output.stdout.as_str()), (5, ""), "{question:.80}: {output}");
        assert!(output.stderr.contains(QUESTION) && !output.stderr.contains("s3cret"), "{output}");
        assert!(!output.stderr.contains(|character: char| character.is_control() && character != '\n'), "{output:?}");
    }
    assert_eq!(provider.all_requests().len(), 0);
}

#[test]
fn a_question_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    let output = sandbox.get_token(&provider).env(QUESTION, std::ffi::OsStr::from_bytes(b"{\xff}")).run();
    assert_eq!((output.code, output.stdout.as_str()), (5, ""), "{output}");
    assert!(output.stderr.contains("it is not UTF-8"), "{output}");
}

#[test]
fn a_kubeconfig_that_is_huge_binary_or_a_bomb_is_told_and_nothing_of_it_is_shown() {
    let level = |level: usize| format!("l{level}: &l{level} [{}]", vec![format!("*l{}", level - 1); 10].join(","));
    let levels: Vec<String> = (1..40).map(level).collect();
    let bomb = format!("l0: &l0 [s3cret]\n{}\nusers: *l39\n", levels.join("\n"));
    let cases: [(&str, Vec<u8>); 8] = [
        ("9 MiB", "#\n".repeat(9 << 19).into()),
        ("9 MiB of a text", format!("users: s3cret{}", "x".repeat(9 << 20)).into()),
        ("not text", vec![0xc3, 0x28, 0, 0xff, 0xfe, 0x80]),
        ("a program", fs::read(BINARY).unwrap().into_iter().take(1 << 20).collect()),
        ("aliases of aliases", bomb.into()),
        ("100 000 levels", "[".repeat(100_000).into()),
        ("50 000 levels of objects", "{a: ".repeat(50_000).into()),
        ("another shape", b"users: s3cret\ncontexts: {a: s3cret}\n".to_vec()),
    ];
    for (what, content) in cases {
        let sandbox = Sandbox::new(BINARY);
        sandbox.write("kubeconfig", content);
        for command in [["login"].as_slice(), &["status"], &["logout"]] {
            let output = sandbox.command(command).run();
            assert_eq!((output.code, output.stdout.as_str()), (5, ""), "{what}, {command:?}: {output}");
            assert!(output.stderr.contains("cannot read the kubeconfig"), "{what}, {command:?}: {output}");
            assert!(!output.stderr.contains("s3cret") && output.stderr.len() < 4096, "{what}, {command:?}: {output}");
        }
    }
}

#[test]
fn a_kubeconfig_that_is_damaged_does_not_keep_kubectl_from_its_token() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write("kubeconfig", "[".repeat(100_000));
    let _ = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded();
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let alone = sandbox.get_token(&provider).args(["--interactive=never", "--scope=email"]).run();
    assert_eq!(alone.code, 3, "{alone}");
    assert!(alone.stderr.contains("kubectl headlamp login --issuer-url"), "{alone}");
}

#[test]
fn the_program_of_another_exec_entry_is_never_run() {
    let sandbox = Sandbox::new(BINARY);
    let trace = sandbox.path("ran");
    let program = sandbox.write_program("other-helper", &format!("echo ran >> '{}'", trace.display()));
    let user = |name: &str, command: String| {
        json!({"name": name, "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never",
            "args": ["get-token", "--issuer-url=https://id.example", "--client-id=kubernetes"],
        }}})
    };
    // By its path, by its name, and under a name that begins like ours.
    let impostor = sandbox.write_program("kubectl-headlamp-evil", &format!("echo ran >> '{}'", trace.display()));
    let names = ["path", "name", "impostor"];
    sandbox.write_kubeconfig(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "path",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [
            user("path", program.display().to_string()),
            user("name", "other-helper".to_owned()),
            user("impostor", impostor.display().to_string()),
        ],
        "contexts": names.map(|name| json!({"name": name, "context": {"cluster": "c", "user": name}})),
    }));
    for name in names {
        for command in ["login", "status", "logout"] {
            let output = sandbox.command([command, "--context", name]).run();
            assert!(matches!(output.code, 0..=6), "{command} {name}: {output}");
            assert!(!trace.exists(), "{command} {name} ran it: {output}");
        }
    }
}

#[test]
fn tokens_that_are_taken_out_of_the_cache_are_renewed_without_a_sign_in() {
    let provider = Provider::start();
    let sandbox = signed_in(&provider);
    edit(&sandbox.cache_entry(), |content| {
        for name in ["id_token", "access_token"] {
            drop(content.as_object_mut().unwrap().remove(name));
        }
    });
    let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn tokens_of_somebody_in_a_thousand_groups_are_kept_whole() {
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.person.groups = (0..1000).map(|number| format!("a-group-of-some-length-{number}")).collect();
    });
    let sandbox = Sandbox::new(BINARY);
    let first = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded().token();
    assert!(first.len() > 32 * 1024, "{}", first.len());
    assert_eq!(sandbox.get_token(&provider).exec_info("v1", false).run().succeeded().token(), first);
    assert_eq!(provider.token_requests("authorization_code").len(), 1);
}

#[test]
fn a_path_that_begins_with_the_home_folder_is_found() {
    let provider = Provider::builder().https().start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.write("home/ca.pem", provider.ca_pem().unwrap());
    let flags = sandbox.flags(&provider).into_iter().filter(|flag| !flag.contains("authority"));
    let run = sandbox.command(["get-token", "--certificate-authority=~/ca.pem"]).args(flags);
    let _ = run.exec_info("v1", true).run().succeeded();
}

#[test]
fn a_client_whose_name_is_a_command_is_quoted_and_never_run() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let trace = sandbox.path("ran");
    let client = format!("it's $(touch {trace}); `touch {trace}`", trace = trace.display());
    provider.set(|behaviour| behaviour.client_id.clone_from(&client));
    let run = || {
        let flags = sandbox.flags(&provider).into_iter().filter(|flag| !flag.contains("client-id"));
        sandbox.command(["get-token".to_owned(), format!("--client-id={client}")]).args(flags).exec_info("v1", true)
    };
    let alone = run().arg("--interactive=never").run();
    assert_eq!(alone.code, 3, "{alone}");
    let quoted = format!("--client-id '{}'", client.replace('\'', r"'\''"));
    assert!(alone.stderr.contains(&quoted), "{alone}");
    let _ = run().run().succeeded();
    assert!(sandbox.opened()[0].starts_with("http://localhost:"), "{:?}", sandbox.opened());
    assert!(!trace.exists());
}

/// Not by `eprintln!`: of a test that passes, that is not shown.
fn not_tried(what: &str) {
    let _ = writeln!(std::io::stderr(), "not tried: {what}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const QUESTION: &str = "KUBERNETES_EXEC_INFO";
/// `nobody`, or whoever has this number.
const OTHER_USER: u32 = 65534;
