//! kubectl, in every version that is found, on a real cluster that trusts the certified provider.
//! `tests/README.md` says what it needs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use headlamp_test_support::real::kubectls;
use headlamp_test_support::real_provider::{CLIENT, GROUP, RealProvider};
use headlamp_test_support::{Output, RealCluster, Run, Running, Sandbox, wait_until};
use serde_json::{Value, json};

use crate::BINARY;

/// A person with a kubeconfig for the cluster.
struct Seat {
    cluster: &'static RealCluster,
    provider: &'static RealProvider,
    sandbox: Sandbox,
    person: &'static str,
    kubectl: PathBuf,
}

impl Seat {
    /// A person who appears in no other test, at a simple browser.
    fn taken(person: &'static str) -> Option<Self> {
        let cluster = RealCluster::shared()?;
        let provider = cluster.provider;
        let sandbox = Sandbox::new(BINARY);
        sandbox.watch(provider.secrets());
        let seat = Self { cluster, provider, sandbox, person, kubectl: kubectls()?.pop()? };
        seat.use_browser(&provider.node.visitor(person, &provider.authority));
        Some(seat)
    }

    /// From now on the kubeconfig's entry names this browser.
    fn use_browser(&self, command: &str) {
        self.use_entry(&[&format!("--browser-command={command}")]);
    }

    /// From now on the kubeconfig's entry has these arguments too.
    fn use_entry(&self, more: &[&str]) {
        let mut arguments = vec!["get-token".to_owned()];
        arguments.extend(self.provider.flags(CLIENT));
        let scopes = ["--scope=profile", "--scope=email", "--scope=groups", "--prompt=consent"];
        arguments.push(format!("--login-hint={}", self.person));
        arguments.extend(scopes.iter().chain(more).map(|word| (*word).to_owned()));
        self.sandbox.write_kubeconfig(&self.cluster.kubeconfig(BINARY, &arguments));
    }

    fn kubectl<const N: usize>(&self, arguments: [&str; N]) -> Run<'_> {
        self.sandbox.program(&self.kubectl, arguments)
    }

    /// Signs in, for tokens that end so soon that the next command needs others; those live long.
    fn sign_in_for(&self, lifetime: Duration) {
        self.provider.set_lifetime(self.person, lifetime);
        let _ = self.sandbox.command(["login"]).run().succeeded();
        let end = Instant::now() + lifetime;
        self.provider.set_lifetime(self.person, Duration::from_secs(3600));
        wait_until(lifetime * 2 + Duration::from_secs(1), "the token to end", || Instant::now() > end);
    }

    fn grants(&self, grant: &str) -> usize {
        self.provider.grants(self.person, grant)
    }

    /// How often a browser came to the provider.
    fn browsers(&self) -> usize {
        self.provider.asked(self.person).iter().filter(|asked| asked.route == "authorization").count()
    }
}

/// Who the cluster says that we are.
fn assert_is(whoami: &Output, person: &str) {
    let user = &whoami.json()["status"]["userInfo"];
    assert_eq!(user["username"], format!("oidc:{person}"));
    assert!(user["groups"].as_array().unwrap().contains(&json!(format!("oidc:{GROUP}"))), "{user}");
}

const WHOAMI: [&str; 4] = ["auth", "whoami", "-o", "json"];

#[test]
fn chromium_signs_in_once_and_kubectl_works_from_then_on() {
    let Some(seat) = Seat::taken("emmy") else { return };
    let report = seat.sandbox.path("chromium.json");
    let Some(chromium) = seat.provider.node.chromium("emmy", &seat.provider.authority, &report, "") else { return };
    seat.use_browser(&chromium);
    let pods = seat.kubectl(["get", "pods"]).starts_chromium().run().succeeded();
    assert!(pods.stderr.contains(&format!("No resources found in {}", seat.cluster.namespace)), "{pods:?}");

    let asked = seat.provider.asked("emmy");
    assert_is(&seat.kubectl(WHOAMI).run().succeeded(), "emmy");
    assert_eq!(seat.provider.asked("emmy"), asked, "the second command needed the provider");
    wait_until(Duration::from_secs(90), "Chromium to end", || report.is_file());

    let Some(events) = seat.cluster.audit("emmy") else { return };
    let path = format!("/api/v1/namespaces/{}/pods", seat.cluster.namespace);
    let listed = |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.starts_with(&path));
    let event = events.iter().find(|event| listed(event)).expect("the list of pods in the audit log");
    assert_eq!((&event["verb"], &event["responseStatus"]["code"]), (&json!("list"), &json!(200)));
}

#[test]
fn every_kubectl_takes_our_credential() {
    let Some(mut seat) = Seat::taken("maryam") else { return };
    for kubectl in kubectls().unwrap_or_default() {
        seat.kubectl = kubectl;
        let version = seat.kubectl(["version", "--client", "-o", "json"]).run().succeeded().json();
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default().trim_end_matches('+').to_owned();
        let _ = seat.kubectl(["get", "pods"]).run().succeeded();
        // Older ones ask in a version of the API that newer servers have no more.
        if minor.parse::<u32>().is_ok_and(|minor| minor >= 28) {
            assert_is(&seat.kubectl(WHOAMI).run().succeeded(), "maryam");
        }
    }
    assert_eq!(seat.browsers(), 1);
}

#[test]
fn a_token_that_has_ended_is_refreshed_in_silence() {
    let Some(seat) = Seat::taken("lise") else { return };
    seat.sign_in_for(Duration::from_secs(2));
    let whoami = seat.kubectl(WHOAMI).run().succeeded();
    assert_is(&whoami, "lise");
    assert_eq!(whoami.stderr, "");
    assert_eq!((seat.grants("authorization_code"), seat.grants("refresh_token")), (1, 1));
}

#[test]
fn after_a_revocation_one_is_asked_again() {
    let Some(seat) = Seat::taken("rosalind") else { return };
    seat.sign_in_for(Duration::from_secs(2));
    seat.provider.forget("rosalind");
    let whoami = seat.kubectl(WHOAMI).run().succeeded();
    assert_is(&whoami, "rosalind");
    assert!(whoami.stderr.contains("you need to sign in again"), "{whoami:?}");
    assert_eq!((seat.grants("authorization_code"), seat.grants("refresh_token")), (2, 1));
}

#[test]
fn after_a_revocation_with_nobody_there_kubectl_shows_what_to_run() {
    let Some(seat) = Seat::taken("chien") else { return };
    seat.sign_in_for(Duration::from_secs(2));
    seat.provider.forget("chien");
    seat.use_entry(&["--interactive=never"]);
    let output = seat.kubectl(WHOAMI).run();
    assert_eq!(output.code, 1, "{output:?}");
    let told = ["nobody can be asked", "kubectl headlamp login --context real", "failed with exit code 3"];
    for text in told {
        assert!(output.stderr.contains(text), "no `{text}`: {output:?}");
    }
}

#[test]
fn status_tells_whom_the_cluster_takes_us_for() {
    let Some(seat) = Seat::taken("jane") else { return };
    let unsigned = seat.sandbox.command(["status", "--verify"]).run();
    assert_eq!(unsigned.code, 3, "{unsigned:?}");
    let _ = seat.sandbox.command(["login"]).run().succeeded();
    let status = seat.sandbox.command(["status", "--verify", "-o", "json"]).run().succeeded().json();
    let user = &status["cluster"];
    assert_eq!(user["username"], "oidc:jane");
    assert!(user["groups"].as_array().unwrap().contains(&json!(format!("oidc:{GROUP}"))), "{user}");
    assert_eq!(status["sessions"][0]["person"]["subject"], "jane");
}

#[test]
fn a_logout_in_a_context_ends_the_session_that_kubectl_had() {
    let Some(seat) = Seat::taken("wu") else { return };
    assert_is(&seat.kubectl(WHOAMI).run().succeeded(), "wu");
    let _ = seat.sandbox.command(["logout", "--context=real"]).run().succeeded();
    seat.use_entry(&["--interactive=never"]);
    let output = seat.kubectl(WHOAMI).run();
    assert!(output.stderr.contains("failed with exit code 3"), "{output:?}");
}

#[test]
fn what_is_piped_to_kubectl_arrives_although_a_browser_opens() {
    let Some(seat) = Seat::taken("ida") else { return };
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "piped"}, "data": {"said": "hello"},
    });
    let applied = seat.kubectl(["apply", "-f", "-"]).stdin(object.to_string()).run().succeeded();
    assert_eq!(applied.stdout, "configmap/piped created\n");
    assert_eq!(seat.browsers(), 1);
    let stored = seat.kubectl(["get", "configmap", "piped", "-o", "jsonpath={.data.said}"]).run().succeeded();
    assert_eq!(stored.stdout, "hello");
}

#[test]
fn fifty_kubectl_at_the_token_s_end_refresh_once() {
    let Some(seat) = Seat::taken("mary") else { return };
    seat.sign_in_for(Duration::from_secs(2));
    fifty(&seat);
    assert_eq!((seat.browsers(), seat.grants("refresh_token")), (1, 1));
}

#[test]
fn fifty_kubectl_with_nothing_cached_open_one_browser() {
    let Some(seat) = Seat::taken("annie") else { return };
    fifty(&seat);
    assert_eq!((seat.browsers(), seat.grants("authorization_code"), seat.grants("refresh_token")), (1, 1, 0));
}

/// Each of them works.
fn fifty(seat: &Seat) {
    let running: Vec<Running<'_>> = (0..50).map(|_| seat.kubectl(WHOAMI).spawn()).collect();
    for kubectl in running {
        assert_is(&kubectl.wait().succeeded(), seat.person);
    }
}

#[test]
fn an_entry_of_kubelogin_s_works_when_its_command_is_changed() {
    let Some(seat) = Seat::taken("valentina") else { return };
    let browser = seat.provider.node.visitor("valentina", &seat.provider.authority);
    let arguments = [
        "oidc-login".to_owned(),
        "get-token".to_owned(),
        format!("--oidc-issuer-url={}", seat.provider.issuer),
        format!("--oidc-client-id={CLIENT}"),
        "--oidc-extra-scope=groups".to_owned(),
        format!("--certificate-authority={}", seat.provider.authority.display()),
        "--listen-address=127.0.0.1:0".to_owned(),
        format!("--browser-command={browser}"),
    ];
    seat.sandbox.write_kubeconfig(&seat.cluster.kubeconfig(BINARY, &arguments));
    assert_is(&seat.kubectl(WHOAMI).run().succeeded(), "valentina");
}

#[test]
fn the_cluster_says_whom_it_takes_us_for_and_refuses_a_token_that_is_none() {
    let Some(seat) = Seat::taken("edith") else { return };
    let _ = seat.sandbox.command(["login"]).run().succeeded();
    let status = seat.sandbox.command(["status", "--verify"]).run().succeeded();
    assert!(status.stdout.contains("knows you as `oidc:edith`"), "{status}");
    assert!(status.stdout.contains(&format!("`oidc:{GROUP}`")), "{status}");
    // A token of a kind that this cluster does not take: opaque, for no audience of its.
    seat.use_entry(&["--token-type=access"]);
    let status = seat.sandbox.command(["status", "--verify"]).run();
    assert_eq!(status.code, 1, "{status}");
    assert!(status.stderr.contains("does not accept the token"), "{status}");
}
