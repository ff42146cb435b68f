//! Many processes of one identity at once, and processes that are killed under way: real processes,
//! one provider that replaces refresh tokens and ends a session whose old one is used again.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use headlamp_test_support::{
    Answer, Endpoint, Gate, KeptPort, Output, Play, Provider, Run, Running, Sandbox, SignIn, wait_until,
};

use crate::BINARY;

const MANY: usize = 50;
const DEADLINE: Duration = Duration::from_secs(30);
/// At how many moments of a refresh it is killed.
const MOMENTS: u32 = 24;

/// Somebody is signed in, and the token needs to be renewed before it is handed out again.
fn signed_in_a_while_ago(provider: &Provider) -> Sandbox {
    let sandbox = Sandbox::new(BINARY);
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let _ = sandbox.get_token(provider).run().succeeded();
    sandbox.visits();
    provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
    provider.forget_requests();
    sandbox
}

/// As kubectl runs it, with nobody at a terminal.
fn kubectl_s<'a>(sandbox: &'a Sandbox, provider: &Provider) -> Run<'a> {
    sandbox.get_token(provider).exec_info("v1", false)
}

fn all_at_once(sandbox: &Sandbox, provider: &Provider, more: &[&str]) -> Vec<Output> {
    let running: Vec<Running<'_>> = (0..MANY).map(|_| kubectl_s(sandbox, provider).args(more).spawn()).collect();
    running.into_iter().map(Running::wait).collect()
}

/// They all hand out one token.
fn assert_one_token(outputs: Vec<Output>) {
    let tokens: BTreeSet<String> = outputs.into_iter().map(|output| output.succeeded().token()).collect();
    assert_eq!(tokens.len(), 1, "they handed out different tokens");
}

/// Whether anybody holds the lock of the one identity.
fn is_locked(sandbox: &Sandbox) -> bool {
    sandbox.cache_files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "lock")).any(
        |path| {
            let file = fs::File::open(path).expect("a lock file");
            file.try_lock().is_err()
        },
    )
}

#[test]
fn fifty_processes_at_the_token_s_end_make_one_refresh() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    assert_one_token(all_at_once(&sandbox, &provider, &[]));
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
    assert_eq!(provider.all_requests().len(), 1);
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn fifty_processes_with_nothing_cached_open_one_browser() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    assert_one_token(all_at_once(&sandbox, &provider, &[]));
    sandbox.visits();
    assert_eq!(sandbox.opened().len(), 1);
    assert_eq!(provider.token_requests("authorization_code").len(), 1);
    assert_eq!(provider.token_requests("refresh_token").len(), 0);
}

#[test]
fn when_nobody_signs_in_all_fail_together_and_the_next_ones_at_once() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let began = Instant::now();
    for output in all_at_once(&sandbox, &provider, &["--timeout=3s"]) {
        assert_eq!((output.code, output.stdout.as_str()), (4, ""), "{output}");
    }
    assert!(began.elapsed() < DEADLINE, "they waited one after the other: {:?}", began.elapsed());
    assert_eq!(sandbox.opened().len(), 1, "one browser was opened for all of them");

    let next = kubectl_s(&sandbox, &provider).run();
    assert_eq!(next.code, 4, "{next}");
    assert!(next.stderr.contains("nobody is asked again"), "{next}");
    assert!(next.stderr.contains("kubectl headlamp login"), "{next}");
    assert_eq!(sandbox.opened().len(), 1, "a run within the back-off opened a browser");
}

#[test]
fn when_the_provider_is_down_all_fail_together_and_nobody_is_held_off() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    // Over already, by less than clocks may differ: a token with time left would serve meanwhile.
    provider.set(|behaviour| behaviour.id_token_lifetime = -10);
    let _ = kubectl_s(&sandbox, &provider).run().succeeded();
    sandbox.visits();
    provider.go_down();
    let began = Instant::now();
    for output in all_at_once(&sandbox, &provider, &[]) {
        assert_eq!((output.code, output.stdout.as_str()), (6, ""), "{output}");
    }
    assert!(began.elapsed() < DEADLINE, "they waited one after the other: {:?}", began.elapsed());
    provider.come_up();
    let _ = kubectl_s(&sandbox, &provider).run().succeeded();
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn who_comes_after_a_failed_sign_in_waits_for_the_one_in_progress() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "not today"));
    let sandbox = Sandbox::new(BINARY);
    assert_eq!(kubectl_s(&sandbox, &provider).run().code, 4);
    sandbox.visits();
    provider.set(|behaviour| behaviour.sign_in = SignIn::AtOnce);
    sandbox.play(Play::Ignore);
    let login = sandbox.login(&provider).spawn();
    let address = sandbox.wait_for_browser(2);
    let waiter = kubectl_s(&sandbox, &provider).spawn();
    waiter.wait_for_stderr(&format!("waiting for the sign-in of process {}", login.id()));
    headlamp_test_support::Browser::new().open(&address).unwrap();
    let _ = login.wait().succeeded();
    let _ = waiter.wait().succeeded();
    assert_eq!(sandbox.opened().len(), 2);
}

#[test]
fn who_waits_for_a_refresh_is_not_told_of_a_sign_in() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    let gate = Gate::new();
    provider.script(Endpoint::Token, Answer::usual().held_by(&gate));
    let holder = kubectl_s(&sandbox, &provider).spawn();
    gate.wait_for(1);
    let waiter = kubectl_s(&sandbox, &provider).spawn();
    waiter.wait_for_stderr(&format!("waiting for the refresh of process {}, begun", holder.id()));
    gate.open();
    assert_one_token(vec![holder.wait(), waiter.wait()]);
}

#[test]
fn a_login_tries_whatever_failed_a_moment_ago() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "not today"));
    let sandbox = Sandbox::new(BINARY);
    assert_eq!(kubectl_s(&sandbox, &provider).run().code, 4);
    provider.set(|behaviour| behaviour.sign_in = SignIn::AtOnce);
    let _ = sandbox.login(&provider).run().succeeded();
    let _ = kubectl_s(&sandbox, &provider).run().succeeded();
    assert_eq!(sandbox.opened().len(), 2);
}

#[test]
fn who_waits_says_for_whom_and_ends_on_ctrl_c_within_a_second() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let holder = kubectl_s(&sandbox, &provider).spawn();
    sandbox.wait_for_browser(1);
    // A machine that does much else may be late once; what waits for something is late each time.
    let took: Vec<Duration> = (0..3)
        .map(|_| {
            let waiter = kubectl_s(&sandbox, &provider).spawn();
            let told = waiter.wait_for_stderr(&format!("of process {}", holder.id()));
            assert!(told.contains("waiting for"), "{told}");
            let interrupted = Instant::now();
            waiter.interrupt();
            let output = waiter.wait();
            assert_eq!(output.code, 130, "{output}");
            interrupted.elapsed()
        })
        .collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "it took {took:?}");
    holder.interrupt();
    assert_eq!(holder.wait().code, 130);
    assert_eq!(sandbox.opened().len(), 1);
}

#[test]
fn a_holder_that_is_killed_frees_its_lock() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    let mut holder = kubectl_s(&sandbox, &provider).spawn();
    sandbox.wait_for_browser(1);
    let waiter = kubectl_s(&sandbox, &provider).spawn();
    waiter.wait_for_stderr("waiting for");
    sandbox.play(Play::SignIn(headlamp_test_support::Browser::new()));
    holder.kill();
    let _ = waiter.wait().succeeded();
    assert_eq!(sandbox.opened().len(), 2);
}

#[test]
fn a_cache_hit_waits_for_nobody() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let token = kubectl_s(&sandbox, &provider).run().succeeded().token();
    sandbox.visits();
    sandbox.play(Play::Ignore);
    let login = sandbox.login(&provider).spawn();
    sandbox.wait_for_browser(2);
    assert!(is_locked(&sandbox));
    assert_eq!(kubectl_s(&sandbox, &provider).run().succeeded().token(), token);
    login.interrupt();
    assert_eq!(login.wait().code, 130);
}

/// Before the request arrives, and with the answer held back, nothing is lost: the provider has not
/// replaced anything.
#[test]
fn a_refresh_that_is_killed_before_its_answer_loses_nothing() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    let gate = Gate::new();
    provider.script(Endpoint::Token, Answer::json(503, &serde_json::json!({})).held_by(&gate));
    let mut killed = kubectl_s(&sandbox, &provider).spawn();
    gate.wait_for(1);
    killed.kill();
    drop(killed);
    gate.open();
    let _ = kubectl_s(&sandbox, &provider).run().succeeded();
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

/// At any moment of a refresh: a provider that forgives the use of a replaced token, as Entra ID
/// does, never needs a new sign-in; what is stored is always whole.
#[test]
fn a_refresh_that_is_killed_at_any_moment_needs_no_new_sign_in() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.rotates = false);
    let sandbox = signed_in_a_while_ago(&provider);
    let began = Instant::now();
    let _ = kubectl_s(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    let whole = began.elapsed();
    for moment in 0..MOMENTS {
        let mut killed = kubectl_s(&sandbox, &provider).arg("--force-refresh").spawn();
        let end = Instant::now() + whole * moment / MOMENTS;
        wait_until(DEADLINE, "the moment to come", || Instant::now() >= end);
        killed.kill();
        drop(killed);
        let next = kubectl_s(&sandbox, &provider).arg("--interactive=never").run();
        assert_eq!(next.code, 0, "after a kill at {moment}/{MOMENTS}: {next}");
        assert!(!is_locked(&sandbox), "a dead process holds the lock");
    }
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
    // What killed writers left goes with a write that comes an hour later.
    let leftovers = || {
        let files = sandbox.cache_files().into_iter();
        files.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect::<Vec<_>>()
    };
    let two_hours_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    for path in leftovers() {
        fs::File::options().write(true).open(path).unwrap().set_modified(two_hours_ago).unwrap();
    }
    let _ = kubectl_s(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    assert_eq!(leftovers(), Vec::<std::path::PathBuf>::new());
}

/// At any moment of a refresh, at a provider that ends a session whose old token is used again: the
/// session outlives it unless the provider was asked and the process did not live to store the answer.
#[test]
fn a_refresh_token_that_is_stored_is_never_lost_to_a_kill() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    let began = Instant::now();
    let _ = kubectl_s(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    let whole = began.elapsed();
    let mut kept = 0;
    for moment in 0..MOMENTS {
        let mut killed = kubectl_s(&sandbox, &provider).arg("--force-refresh").spawn();
        let end = Instant::now() + whole * moment / MOMENTS;
        wait_until(DEADLINE, "the moment to come", || Instant::now() >= end);
        killed.kill();
        drop(killed);
        let entry: serde_json::Value = serde_json::from_slice(&fs::read(sandbox.cache_entry()).unwrap()).unwrap();
        let stored = entry["refresh_token"].as_str().unwrap().to_owned();
        let next = kubectl_s(&sandbox, &provider).args(["--force-refresh", "--interactive=never"]).run();
        let sent = provider.token_requests("refresh_token");
        let sent = sent.iter().filter(|request| request.parameter("refresh_token").as_ref() == Some(&stored)).count();
        match (next.code, sent) {
            (0, 1..) => kept += 1,
            (3, 2..) => drop(sandbox.login(&provider).run().succeeded()),
            _ => panic!("after a kill at {moment}/{MOMENTS} the stored token, sent {sent} times, is lost: {next}"),
        }
    }
    assert!(kept > 0);
}

/// The new refresh token is on disk before anything else is done with the reply: killed while it
/// fetches keys, a process has it stored.
#[test]
fn a_replaced_refresh_token_is_stored_before_the_reply_is_looked_at() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    // The reply's ID token has a key that is not known, so the keys are fetched, and that is held up.
    provider.rotate_keys();
    let gate = Gate::new();
    provider.script(Endpoint::Keys, Answer::usual().held_by(&gate));
    let before = fs::read(sandbox.cache_entry()).unwrap();
    let mut killed = kubectl_s(&sandbox, &provider).spawn();
    gate.wait_for(1);
    assert_ne!(fs::read(sandbox.cache_entry()).unwrap(), before, "the new refresh token is not stored yet");
    killed.kill();
    drop(killed);
    gate.open();
    let _ = kubectl_s(&sandbox, &provider).arg("--interactive=never").run().succeeded();
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
    assert_eq!(provider.grants_alive(), 1);
}

#[test]
fn sign_ins_of_two_identities_queue_for_the_port() {
    let one = Provider::start();
    let other = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    sandbox.know(&one);
    sandbox.know(&other);
    sandbox.play(Play::Ignore);
    let kept = KeptPort::new();
    let port = kept.number();
    let listen = format!("--listen-address=localhost:{port}");
    let run = |provider: &Provider| {
        let issuer = format!("--issuer-url={}", provider.issuer());
        sandbox.command(["get-token", "--client-id=kubernetes"]).args([issuer.as_str(), listen.as_str()])
    };
    let first = run(&one).spawn();
    let address = sandbox.wait_for_browser(1);
    let second = run(&other).spawn();
    second.wait_for_stderr(&format!("waiting for the sign-in of process {}, which uses port {port}", first.id()));
    headlamp_test_support::Browser::new().open(&address).unwrap();
    let _ = first.wait().succeeded();
    let address = sandbox.wait_for_browser(2);
    headlamp_test_support::Browser::new().open(&address).unwrap();
    let _ = second.wait().succeeded();
}
