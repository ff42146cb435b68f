//! Against the certified provider from npm, with and without Chromium. `tests/README.md` says what it needs.

use std::fs;
use std::time::Duration;

use headlamp_test_support::real_provider::{
    BASIC_CLIENT, CLIENT, CLIENT_SECRET, MACHINE_CLIENT, POST_CLIENT, RESOURCE, STEADY_CLIENT,
};
use headlamp_test_support::{RealProvider, Run, Sandbox, wait_until};
use serde_json::Value;

use crate::BINARY;

/// A person with a machine of their own and a client at the provider.
struct Seat {
    provider: &'static RealProvider,
    sandbox: Sandbox,
    person: &'static str,
    flags: Vec<String>,
}

impl Seat {
    /// A person who appears in no other test.
    fn taken(person: &'static str, client: &str) -> Option<Self> {
        let provider = RealProvider::shared()?;
        let sandbox = Sandbox::new(BINARY);
        sandbox.watch(provider.secrets());
        let mut flags = provider.flags(client);
        flags.push(format!("--login-hint={person}"));
        Some(Self { provider, sandbox, person, flags })
    }

    fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// `get-token`, by someone at a simple browser who agrees when asked: the provider gives a
    /// refresh token to nobody else.
    fn get_token(&self) -> Run<'_> {
        self.get_token_unasked().arg("--prompt=consent")
    }

    /// `get-token`, by someone at a simple browser.
    fn get_token_unasked(&self) -> Run<'_> {
        let browser = self.provider.node.visitor(self.person, &self.provider.authority);
        self.sandbox.command(["get-token"]).args(&self.flags).arg(format!("--browser-command={browser}"))
    }

    /// `get-token`, with a browser that is Chromium.
    fn get_token_in(&self, chromium: &str) -> Run<'_> {
        let browser = format!("--browser-command={chromium}");
        self.sandbox.command(["get-token"]).args(&self.flags).arg(browser).starts_chromium()
    }

    /// `get-token`, with nobody there.
    fn get_token_alone(&self) -> Run<'_> {
        self.sandbox.command(["get-token", "--interactive=never"]).args(&self.flags)
    }

    fn grants(&self, grant: &str) -> usize {
        self.provider.grants(self.person, grant)
    }
}

/// The claims of a JWT, unverified.
fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).expect("a JWT");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What Chromium reported once it was done.
fn report(sandbox: &Sandbox) -> Value {
    let file = sandbox.path(REPORT);
    wait_until(Duration::from_secs(90), "Chromium's report", || file.is_file());
    serde_json::from_slice(&fs::read(file).expect("a report")).expect("JSON")
}

#[test]
fn chromium_signs_in_and_ends_on_a_page_that_says_so() {
    let Some(seat) = Seat::taken("ada", CLIENT) else { return };
    let seat = seat.with(&["--scope=profile", "--scope=email"]);
    let file = seat.sandbox.path(REPORT);
    let Some(chromium) = seat.provider.node.chromium(seat.person, &seat.provider.authority, &file, "") else { return };
    let token = seat.get_token_in(&chromium).run().succeeded().token();
    assert_eq!(claims(&token)["sub"], "ada");

    let page = report(&seat.sandbox);
    assert_eq!(page["steps"], serde_json::json!(["Sign-in", "Continue"]));
    let text = page["text"].as_str().unwrap();
    assert!(text.contains("ada@example.com"), "the page does not say who signed in: {page}");
    let address = page["url"].as_str().unwrap();
    assert!(
        address.starts_with("http://localhost:") && !address.contains("code="),
        "left in the address bar: {address}"
    );
}

#[test]
fn a_sign_in_that_is_cancelled_in_chromium_ends_with_code_4_and_a_page_that_says_so() {
    let Some(seat) = Seat::taken("barbara", CLIENT) else { return };
    let file = seat.sandbox.path(REPORT);
    let chromium = seat.provider.node.chromium(seat.person, &seat.provider.authority, &file, "--cancel");
    let Some(chromium) = chromium else { return };
    let output = seat.get_token_in(&chromium).run();
    assert_eq!(output.code, 4, "{output:?}");
    assert!(output.stderr.contains("access_denied"), "{output:?}");
    let page = report(&seat.sandbox);
    assert!(page["text"].as_str().unwrap().contains("access_denied"), "{page}");
}

#[test]
fn every_refresh_uses_the_token_that_the_one_before_brought() {
    for (person, client) in [("radia", CLIENT), ("sophie", STEADY_CLIENT)] {
        let Some(seat) = Seat::taken(person, client) else { return };
        let seat = seat.with(&["--token-type=access"]);
        let mut tokens = vec![seat.get_token().run().succeeded().token()];
        for _ in 0..3 {
            tokens.push(seat.get_token_alone().arg("--force-refresh").run().succeeded().token());
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 4, "a refresh brought the token that was there");
        assert_eq!((seat.grants("authorization_code"), seat.grants("refresh_token")), (1, 3));
        let refused = seat.provider.asked(person).into_iter().find(|asked| asked.error.is_some());
        assert_eq!(refused, None);
    }
}

#[test]
fn a_refresh_token_used_twice_ends_the_session_for_good() {
    let Some(seat) = Seat::taken("mallory", CLIENT) else { return };
    let _ = seat.get_token().run().succeeded();
    let stolen = fs::read(seat.sandbox.cache_entry()).unwrap();
    let _ = seat.get_token_alone().arg("--force-refresh").run().succeeded();
    let newest = fs::read(seat.sandbox.cache_entry()).unwrap();
    for entry in [stolen, newest] {
        fs::write(seat.sandbox.cache_entry(), entry).unwrap();
        let output = seat.get_token_alone().arg("--force-refresh").run();
        assert_eq!(output.code, 3, "{output:?}");
        assert!(output.stderr.contains("invalid_grant"), "{output:?}");
    }
    assert_eq!(seat.grants("authorization_code"), 1);
}

#[test]
fn after_a_logout_a_copy_of_the_tokens_is_worth_nothing() {
    let Some(seat) = Seat::taken("dorothy", CLIENT) else { return };
    let _ = seat.get_token().run().succeeded();
    let entry = seat.sandbox.cache_entry();
    let copy = fs::read(&entry).unwrap();
    let output = seat.sandbox.command(["logout"]).args(&seat.flags).run().succeeded();
    assert!(output.stderr.contains("tokens revoked and deleted"), "{output:?}");
    assert!(!entry.exists());
    let revoked = seat.provider.asked("dorothy").into_iter().filter(|asked| asked.route == "revocation");
    assert_eq!(revoked.map(|asked| asked.error).collect::<Vec<_>>(), [None, None]);

    fs::write(&entry, copy).unwrap();
    let output = seat.get_token_alone().arg("--force-refresh").run();
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains("invalid_grant"), "{output:?}");
}

#[test]
fn without_consent_there_is_no_refresh_token_and_a_note_says_so() {
    let Some(seat) = Seat::taken("frances", CLIENT) else { return };
    let output = seat.get_token_unasked().run().succeeded();
    assert!(output.stderr.contains("no refresh token") && output.stderr.contains("--prompt consent"), "{output:?}");
}

#[test]
fn a_client_with_a_secret_proves_itself_either_way() {
    for (person, client, method) in [("hedy", BASIC_CLIENT, "basic"), ("joan", POST_CLIENT, "post")] {
        let Some(seat) = Seat::taken(person, client) else { return };
        let file = seat.sandbox.write("client-secret", CLIENT_SECRET);
        let secret = format!("--client-secret-file={}", file.display());
        let seat = seat.with(&[&secret, &format!("--client-authentication={method}")]);
        let _ = seat.get_token().run().succeeded();
        let _ = seat.get_token_alone().arg("--force-refresh").run().succeeded();
        assert_eq!(seat.grants("refresh_token"), 1);
    }
}

#[test]
fn the_device_flow_signs_in_at_the_provider_s_pages() {
    let Some(seat) = Seat::taken("grace", CLIENT) else { return };
    let output = seat.get_token().args(["--flow=device", "--interactive=always"]).run().succeeded();
    assert_eq!(claims(&output.token())["sub"], "grace");
    assert_eq!(seat.grants("authorization_code"), 0);
    let _ = seat.get_token_alone().arg("--force-refresh").run().succeeded();
}

#[test]
fn a_client_signs_in_as_itself() {
    let Some(seat) = Seat::taken("nobody", MACHINE_CLIENT) else { return };
    let file = seat.sandbox.write("client-secret", CLIENT_SECRET);
    let run = seat.sandbox.command(["get-token", "--flow=client-credentials", "--token-type=access"]);
    let run = run.args(seat.provider.flags(MACHINE_CLIENT)).arg(format!("--resource={RESOURCE}"));
    let output = run.arg(format!("--client-secret-file={}", file.display())).run().succeeded();
    let claims = claims(&output.token());
    assert_eq!((&claims["aud"], &claims["client_id"]), (&RESOURCE.into(), &MACHINE_CLIENT.into()));
}

#[test]
fn an_access_token_is_handed_out_whether_or_not_it_can_be_read() {
    let Some(seat) = Seat::taken("katherine", CLIENT) else { return };
    let seat = seat.with(&["--token-type=access"]);
    let opaque = seat.get_token().run().succeeded();
    assert_eq!(opaque.token().split('.').count(), 1);
    assert!(opaque.json()["status"]["expirationTimestamp"].is_string());
    let resource = format!("--resource={RESOURCE}");
    let readable = seat.get_token().arg(&resource).run().succeeded().token();
    assert_eq!(claims(&readable)["aud"], RESOURCE);
    let refreshed = seat.get_token_alone().args([&resource, "--force-refresh"]).run().succeeded().token();
    assert_eq!(claims(&refreshed)["aud"], RESOURCE);
}

#[test]
fn a_provider_without_the_password_grant_is_told_apart_from_a_wrong_password() {
    let Some(seat) = Seat::taken("nancy", CLIENT) else { return };
    let file = seat.sandbox.write("password", "a password of nobody's");
    let run = seat.sandbox.command(["get-token", "--flow=password", "--username=nancy"]);
    let run = run.args(seat.provider.flags(CLIENT)).arg(format!("--password-file={}", file.display()));
    let output = run.run();
    assert_eq!(output.code, 4, "{output:?}");
    assert!(output.stderr.contains("unsupported_grant_type"), "{output:?}");
}

#[test]
fn after_a_logout_the_provider_takes_the_refresh_token_no_more() {
    let Some(seat) = Seat::taken("chieko", CLIENT) else { return };
    let _ = seat.get_token().run().succeeded();
    let entry = seat.sandbox.cache_entry();
    let kept = fs::read(&entry).unwrap();
    let logout = seat.sandbox.command(["logout"]).args(&seat.flags).run().succeeded();
    assert!(logout.stderr.contains("tokens revoked and deleted"), "{logout}");
    assert!(!entry.exists());
    // Whoever had made a copy before has nothing of it.
    fs::write(&entry, kept).unwrap();
    let output = seat.get_token_alone().arg("--force-refresh").run();
    assert_eq!(output.code, 3, "{output}");
    assert!(output.stderr.contains("invalid_grant"), "{output}");
}

/// Chromium's report, in the sandbox: a secret in it would be found there.
const REPORT: &str = "chromium.json";
