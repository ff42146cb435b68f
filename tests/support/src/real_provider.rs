//! The certified `OpenID` provider from npm: one process for all tests of a run.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::authority::Authority;
use crate::real::{Node, when_this_process_ends};
use crate::sandbox::DEADLINE;
use crate::secrets::{SecretKind, Secrets};
use crate::server::lock;

/// A public client, as people have it.
pub const CLIENT: &str = "kubernetes";
/// A client whose refresh tokens do not rotate.
pub const STEADY_CLIENT: &str = "steady";
/// Clients with [`CLIENT_SECRET`]: it is shown in the header, in the body.
pub const BASIC_CLIENT: &str = "basic";
/// See [`BASIC_CLIENT`].
pub const POST_CLIENT: &str = "post";
/// A client that signs in as itself, with [`CLIENT_SECRET`].
pub const MACHINE_CLIENT: &str = "machine";
/// The secret of the clients that have one.
pub const CLIENT_SECRET: &str = "the-secret-of-the-clients-0123456789";
/// What access tokens may be for; then they are JWTs.
pub const RESOURCE: &str = "https://kubernetes.example.com";
/// Whose member everybody is.
pub const GROUP: &str = "developers";

/// The provider, running.
pub struct RealProvider {
    /// Its issuer, `https://localhost:<port>` or on the host of `HEADLAMP_TEST_PROVIDER_HOST`.
    pub issuer: String,
    /// The file of the authority that signed its certificate.
    pub authority: PathBuf,
    /// What drives its browsers.
    pub node: Node,
    secrets: Secrets,
    process: Mutex<(Child, Receiver<Value>)>,
}

/// A request that the provider answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `authorization`, `token`, `revocation` or `device_authorization`.
    pub route: String,
    /// For `token`: the grant type.
    pub grant: Option<String>,
    /// The OAuth error, if it was refused.
    pub error: Option<String>,
}

impl RealProvider {
    /// The provider of this run, started by whoever asks first.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<RealProvider>> = OnceLock::new();
        SHARED.get_or_init(|| Node::found().map(Self::start)).as_ref()
    }

    fn start(node: Node) -> Self {
        let authority = Authority::new("real parts");
        let host = env::var("HEADLAMP_TEST_PROVIDER_HOST").unwrap_or_else(|_| "localhost".to_owned());
        let certificate = authority.server(&[&host]);
        let folder = tempfile::tempdir().expect("a folder").keep();
        when_this_process_ends(&["rm", "-r", folder.to_str().expect("a path in UTF-8")]);
        let file = folder.join("authority.pem");
        std::fs::write(&file, authority.pem()).expect("a file");

        let mut child =
            node.command("provider.mjs").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node");
        let secrets = Secrets::default();
        secrets.add(SecretKind::ClientSecret, CLIENT_SECRET);
        let (stdout, (sender, answers)) = (child.stdout.take().expect("stdout"), channel());
        std::thread::spawn({
            let secrets = secrets.clone();
            move || listen(stdout, &secrets, &sender)
        });
        let process = Mutex::new((child, answers));
        let mut provider = Self { issuer: String::new(), authority: file, node, secrets, process };
        let ready = provider.ask(&json!({
            "host": host,
            "key": certificate.key_pem,
            "certificate": certificate.pem + &authority.pem(),
            "groups": [GROUP],
            "resource": RESOURCE,
            "steady": [STEADY_CLIENT],
            "clients": clients(),
        }));
        provider.issuer.push_str(ready["issuer"].as_str().expect("an issuer"));
        provider
    }

    /// From now on this person's tokens live so long.
    pub fn set_lifetime(&self, person: &str, lifetime: Duration) {
        self.ask(&json!({"do": "lifetime", "account": person, "seconds": lifetime.as_secs()}));
    }

    /// Revokes all that this person agreed to, as an administrator would.
    pub fn forget(&self, person: &str) {
        self.ask(&json!({"do": "forget", "account": person}));
    }

    /// What was asked for in this person's name, in order. An authorization request is in nobody's.
    pub fn asked(&self, person: &str) -> Vec<Asked> {
        let report = self.ask(&json!({"do": "report"}));
        let requests = report["requests"].as_array().expect("requests").clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let own = requests.iter().filter(|request| request["account"] == person);
        own.map(|request| Asked {
            route: text(&request["route"]).unwrap_or_default(),
            grant: text(&request["grant"]),
            error: text(&request["error"]),
        })
        .collect()
    }

    /// How often a grant type was asked for in this person's name.
    pub fn grants(&self, person: &str, grant: &str) -> usize {
        self.asked(person).iter().filter(|asked| asked.grant.as_deref() == Some(grant)).count()
    }

    /// Every secret that it was shown or issued, for a sandbox to watch over.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The flags that name it and a client there, with a callback on any free port.
    pub fn flags(&self, client: &str) -> Vec<String> {
        vec![
            format!("--issuer-url={}", self.issuer),
            format!("--client-id={client}"),
            format!("--certificate-authority={}", self.authority.display()),
            "--listen-address=localhost:0".to_owned(),
        ]
    }

    fn ask(&self, command: &Value) -> Value {
        let (child, answers) = &mut *lock(&self.process);
        writeln!(child.stdin.as_mut().expect("stdin"), "{command}").expect("the provider reads");
        answers.recv_timeout(DEADLINE).expect("the provider answers")
    }
}

/// Keeps the secrets that the provider tells of, and hands on its answers.
fn listen(stdout: impl Read, secrets: &Secrets, answers: &Sender<Value>) {
    for line in BufReader::new(stdout).lines() {
        let line: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        match (line["kind"].as_str(), line["secret"].as_str()) {
            (Some(kind), Some(secret)) => secrets.add(kind_of(kind), secret),
            _ => answers.send(line).unwrap_or(()),
        }
    }
}

fn kind_of(parameter: &str) -> SecretKind {
    match parameter {
        "id_token" => SecretKind::IdToken,
        "access_token" => SecretKind::AccessToken,
        "refresh_token" => SecretKind::RefreshToken,
        "code" => SecretKind::Code,
        "device_code" => SecretKind::DeviceCode,
        "state" => SecretKind::State,
        "nonce" => SecretKind::Nonce,
        "code_verifier" => SecretKind::Verifier,
        _ => panic!("a secret of an unknown kind: {parameter}"),
    }
}

/// As RFC 7591 has them. A native client's loopback redirect is good for every port (RFC 8252 §7.3).
fn clients() -> Value {
    let grants = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"];
    let public = |id: &str| {
        json!({
            "client_id": id,
            "token_endpoint_auth_method": "none",
            "application_type": "native",
            "grant_types": grants,
            "redirect_uris": ["http://localhost:8000/oidc-callback", "http://localhost:8000"],
        })
    };
    let confidential = |id: &str, method: &str| {
        let mut client = public(id);
        client["token_endpoint_auth_method"] = method.into();
        client["client_secret"] = CLIENT_SECRET.into();
        client
    };
    json!([
        public(CLIENT),
        public(STEADY_CLIENT),
        confidential(BASIC_CLIENT, "client_secret_basic"),
        confidential(POST_CLIENT, "client_secret_post"),
        {
            "client_id": MACHINE_CLIENT,
            "client_secret": CLIENT_SECRET,
            "grant_types": ["client_credentials"],
            "response_types": [],
            "redirect_uris": [],
        },
    ])
}
