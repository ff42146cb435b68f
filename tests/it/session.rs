//! Cached, refreshed or new: what becomes of each reply and each failure of a provider.

use std::fs;

use headlamp_test_support::{
    AccessTokens, Answer, Endpoint, Gate, KeptPort, Play, Provider, RefreshTokens, Run, Sandbox, SignIn,
};
use serde_json::json;

use crate::BINARY;

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

/// As kubectl runs it, with nobody to ask.
fn alone<'a>(sandbox: &'a Sandbox, provider: &Provider) -> Run<'a> {
    sandbox.get_token(provider).exec_info("v1", false).arg("--interactive=never")
}

fn refresh_tokens_sent(provider: &Provider) -> Vec<String> {
    let requests = provider.token_requests("refresh_token");
    requests.iter().map(|request| request.parameter("refresh_token").expect("a refresh token")).collect()
}

#[test]
fn each_refresh_uses_the_token_that_the_one_before_brought() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    for _ in 0..3 {
        let _ = alone(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    }
    let mut sent = refresh_tokens_sent(&provider);
    sent.dedup();
    assert_eq!(sent.len(), 3);
    assert_eq!(provider.grants_alive(), 1);
}

#[test]
fn a_refresh_without_a_new_refresh_token_keeps_the_old_one() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.rotates = false);
    let sandbox = signed_in_a_while_ago(&provider);
    for _ in 0..2 {
        provider.edit_token_reply(|reply| drop(reply.remove("refresh_token")));
        let _ = alone(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    }
    let mut sent = refresh_tokens_sent(&provider);
    sent.dedup();
    assert_eq!(sent.len(), 1);
}

#[test]
fn a_refresh_without_an_id_token_keeps_the_old_one_while_it_lasts() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let first = sandbox.get_token(&provider).run().succeeded().token();
    provider.set(|behaviour| behaviour.id_token_on_refresh = false);
    // The access token is renewed for it; the ID token is as good as before.
    provider.set(|behaviour| behaviour.expires_in = Some(60));
    let access = alone(&sandbox, &provider).args(["--token-type=access", "--force-refresh"]).run().succeeded().token();
    assert_ne!(access, first);
    assert_eq!(alone(&sandbox, &provider).run().succeeded().token(), first);
}

#[test]
fn a_refresh_that_brings_no_wanted_token_leads_to_a_sign_in() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    provider.set(|behaviour| behaviour.id_token_on_refresh = false);
    let output = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
    assert!(output.stderr.contains("the provider renewed the session without an ID token"), "{output}");
    assert_eq!(sandbox.opened().len(), 2);
    // A refresh by force wants a new one, too.
    let output = alone(&sandbox, &provider).arg("--force-refresh").run();
    assert_eq!(output.code, 3, "{output}");
}

#[test]
fn a_refused_refresh_reads_the_cache_once_more_before_it_gives_up() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    let old = fs::read(sandbox.cache_entry()).unwrap();
    let _ = alone(&sandbox, &provider).arg("--force-refresh").run().succeeded();
    let newer = fs::read(sandbox.cache_entry()).unwrap();
    // A program that knows nothing of our lock has refreshed while our own refresh was under way.
    fs::write(sandbox.cache_entry(), old).unwrap();
    let gate = Gate::new();
    provider.script(Endpoint::Token, Answer::error("invalid_grant", "it was replaced").held_by(&gate));
    let run = alone(&sandbox, &provider).spawn();
    gate.wait_for(1);
    fs::write(sandbox.cache_entry(), newer).unwrap();
    gate.open();
    let _ = run.wait().succeeded();
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}

#[test]
fn a_token_with_little_time_left_is_renewed_and_one_just_obtained_is_handed_out_all_the_same() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.id_token_lifetime = 80);
    let sandbox = Sandbox::new(BINARY);
    let first = sandbox.get_token(&provider).run().succeeded().token();
    let second = alone(&sandbox, &provider).run().succeeded().token();
    assert_ne!(first, second, "a token with 80 s left came from the cache");
    assert_eq!(alone(&sandbox, &provider).arg("--minimum-validity=10s").run().succeeded().token(), second);
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
}

#[test]
fn an_opaque_access_token_is_good_for_as_long_as_the_reply_says() {
    let provider = Provider::start();
    provider.set(|behaviour| {
        behaviour.access_tokens = AccessTokens::Opaque;
        behaviour.expires_in = Some(600);
    });
    let sandbox = Sandbox::new(BINARY);
    let first = sandbox.get_token(&provider).arg("--token-type=access").run().succeeded();
    let expires: jiff::Timestamp = first.json()["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((500..=600).contains(&left), "{left} s");
    let again = alone(&sandbox, &provider).arg("--token-type=access").run().succeeded();
    assert_eq!(again.token(), first.token());
}

#[test]
fn both_kinds_of_token_come_from_one_sign_in_and_never_in_each_other_s_place() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let id = sandbox.get_token(&provider).run().succeeded().token();
    let access = alone(&sandbox, &provider).arg("--token-type=access").run().succeeded().token();
    assert_ne!(id, access);
    assert_eq!(alone(&sandbox, &provider).run().succeeded().token(), id);
    assert_eq!(sandbox.opened().len(), 1);
}

#[test]
fn without_storage_every_run_signs_in_and_no_file_is_left() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    for _ in 0..2 {
        let _ = sandbox.get_token(&provider).arg("--token-storage=none").run().succeeded();
        sandbox.visits();
    }
    assert_eq!(provider.token_requests("authorization_code").len(), 2);
    assert!(!sandbox.cache_folder().exists(), "{:?}", sandbox.cache_files());
}

#[test]
fn offline_access_is_asked_for_where_the_provider_lists_it_and_nowhere_else() {
    for (lists, scopes) in [(true, vec!["openid", "offline_access"]), (false, vec!["openid"])] {
        let provider = Provider::start();
        provider.set(|behaviour| behaviour.scopes = scopes);
        let sandbox = Sandbox::new(BINARY);
        let _ = sandbox.get_token(&provider).run().succeeded();
        let scope = provider.requests(Endpoint::Authorize)[0].parameter("scope").unwrap();
        assert_eq!(scope.split(' ').any(|scope| scope == "offline_access"), lists, "{scope}");
    }
}

#[test]
fn a_note_says_why_there_is_no_refresh_token() {
    let provider = Provider::start();
    provider.set(|behaviour| behaviour.refresh_tokens = RefreshTokens::WithConsent);
    let sandbox = Sandbox::new(BINARY);
    let output = sandbox.get_token(&provider).run().succeeded();
    assert!(output.stderr.contains("gave no refresh token") && output.stderr.contains("--prompt consent"), "{output}");
    let output = sandbox.login(&provider).arg("--prompt=consent").run().succeeded();
    assert!(!output.stderr.contains("refresh token"), "{output}");
}

#[test]
fn a_failure_of_a_moment_ago_holds_no_refresh_up() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    provider.set(|behaviour| behaviour.sign_in = SignIn::Denied("access_denied", "not today"));
    assert_eq!(sandbox.login(&provider).run().code, 4);
    let _ = alone(&sandbox, &provider).run().succeeded();
    assert_eq!(provider.token_requests("refresh_token").len(), 1);
}

#[test]
fn whoever_was_asked_in_vain_is_left_alone_whatever_it_was_that_failed() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    for _ in 0..20 {
        provider.script(Endpoint::Token, Answer::json(500, &json!({})));
    }
    assert_eq!(sandbox.get_token(&provider).exec_info("v1", false).run().code, 6);
    sandbox.visits();
    let next = sandbox.get_token(&provider).exec_info("v1", false).run();
    assert!(next.stderr.contains("nobody is asked again"), "{next}");
    assert_eq!(sandbox.opened().len(), 1);
}

#[test]
fn that_nobody_is_there_needs_no_network_to_know() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    sandbox.play(Play::Ignore);
    provider.go_down();
    let output = alone(&sandbox, &provider).run();
    assert_eq!(output.code, 3, "{output}");
}

#[test]
fn a_token_that_cannot_be_kept_is_handed_out_with_a_warning() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).run().succeeded();
    sandbox.visits();
    let gate = Gate::new();
    provider.script(Endpoint::Token, Answer::usual().held_by(&gate));
    let run = alone(&sandbox, &provider).arg("--force-refresh").spawn();
    gate.wait_for(1);
    gone(&sandbox);
    gate.open();
    let output = run.wait().succeeded();
    assert_ne!(output.token(), "");
    assert!(output.stderr.contains("warning: you will have to sign in again: cannot keep tokens in"), "{output}");
}

/// As if the disk were gone: where the folder was, nothing can be written any more.
fn gone(sandbox: &Sandbox) {
    fs::remove_dir_all(sandbox.cache_folder()).unwrap();
    fs::write(sandbox.cache_folder(), "").unwrap();
}

#[test]
fn a_renewed_token_that_cannot_be_kept_costs_no_session_where_the_refresh_token_stays() {
    let provider = Provider::start();
    let sandbox = signed_in_a_while_ago(&provider);
    provider.edit_token_reply(|reply| drop(reply.remove("refresh_token")));
    let gate = Gate::new();
    provider.script(Endpoint::Token, Answer::usual().held_by(&gate));
    let run = alone(&sandbox, &provider).spawn();
    gate.wait_for(1);
    gone(&sandbox);
    gate.open();
    let output = run.wait().succeeded();
    assert!(output.stderr.contains("the token will have to be renewed again: cannot keep tokens in"), "{output}");
}

/// A provider that is in trouble, resets or closes the connection, or never answers: each is asked again
/// while that makes sense, and leaves the tokens as they were.
#[test]
fn no_fault_of_the_network_is_taken_for_a_refusal() {
    let answers: [fn() -> (Answer, usize); 4] = [
        || (Answer::json(503, &json!({"error": "temporarily_unavailable"})), 2),
        || (Answer::reset(), 2),
        || (Answer::close(), 2),
        || (Answer::usual().held_by(&Gate::new()), 1),
    ];
    std::thread::scope(|scope| {
        for answer in answers {
            scope.spawn(move || {
                let provider = Provider::start();
                let sandbox = Sandbox::new(BINARY);
                // Over already, by less than clocks may differ: a token with time left would serve meanwhile.
                provider.set(|behaviour| behaviour.id_token_lifetime = -10);
                let _ = sandbox.get_token(&provider).run().succeeded();
                sandbox.visits();
                provider.set(|behaviour| behaviour.id_token_lifetime = 3600);
                let before = fs::read(sandbox.cache_entry()).unwrap();
                let (answer, least) = answer();
                for _ in 0..40 {
                    provider.script(Endpoint::Token, answer.clone());
                }
                let output = sandbox.get_token(&provider).exec_info("v1", false).run();
                assert_eq!((output.code, output.stdout.as_str()), (6, ""), "{output}");
                assert!(refresh_tokens_sent(&provider).len() >= least, "{output}");
                assert_eq!(fs::read(sandbox.cache_entry()).unwrap(), before);
                provider.unscript();
                let _ = alone(&sandbox, &provider).run().succeeded();
                let mut sent = refresh_tokens_sent(&provider);
                sent.dedup();
                assert_eq!(sent.len(), 1);
                assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
            });
        }
    });
}

#[test]
fn a_port_that_was_taken_holds_nobody_off_once_it_is_free() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let kept = KeptPort::new();
    let other = std::net::TcpListener::bind(kept.address()).unwrap();
    let redirect = format!("--redirect-url=http://localhost:{}/oidc-callback", kept.number());
    let run = || {
        let issuer = format!("--issuer-url={}", provider.issuer());
        sandbox.command(["get-token", "--client-id=kubernetes"]).args([issuer.as_str(), redirect.as_str()]).run()
    };
    sandbox.know(&provider);
    let output = run();
    assert!(output.code == 4 && output.stderr.contains("is taken"), "{output}");
    drop(other);
    let _ = run().succeeded();
}

#[test]
fn nobody_is_sent_to_a_provider_that_is_not_there() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    let _ = sandbox.get_token(&provider).run().succeeded();
    sandbox.visits();
    provider.go_down();
    for run in [sandbox.login(&provider), sandbox.get_token(&provider).arg("--scope=email")] {
        let output = run.run();
        assert_eq!(output.code, 6, "{output}");
    }
    assert_eq!(sandbox.opened().len(), 1, "a browser was opened on a dead end");
}

#[test]
fn the_command_that_signs_in_uses_the_folder_that_was_looked_in() {
    let provider = Provider::start();
    provider.unused_is_fine();
    let sandbox = Sandbox::new(BINARY);
    let folder = sandbox.path("tokens of mine");
    let output = alone(&sandbox, &provider).arg(format!("--cache-dir={}", folder.display())).run();
    assert!(output.stderr.contains(&format!(" --cache-dir '{}'` in a terminal", folder.display())), "{output}");
}
