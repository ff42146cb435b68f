//! Every secret that a double issued or was shown, and the search for them where they must not be.

use std::sync::{Arc, Mutex};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::server::lock;

/// What kind of secret it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// An ID token.
    IdToken,
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
    /// An authorization code.
    Code,
    /// A device code; the user code is for people to see.
    DeviceCode,
    /// The state of an authorization request.
    State,
    /// The nonce of an authorization request.
    Nonce,
    /// A PKCE verifier.
    Verifier,
    /// The client's secret.
    ClientSecret,
    /// A person's password.
    Password,
}

/// A secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    /// Its kind.
    pub kind: SecretKind,
    /// Its text.
    pub value: String,
}

/// The secrets of one double; clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<Vec<Secret>>>);

impl Secrets {
    /// Adds a secret. One shorter than 8 bytes is refused: it would be found by chance.
    pub fn add(&self, kind: SecretKind, value: &str) {
        assert!(value.len() >= SHORTEST, "a secret of a test has at least {SHORTEST} bytes: {kind:?}");
        let secret = Secret { kind, value: value.to_owned() };
        let mut secrets = lock(&self.0);
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }

    /// Adds a secret that may be empty or too short, as what a peer sends may be.
    pub(crate) fn saw(&self, kind: SecretKind, value: Option<String>) {
        if let Some(value) = value.filter(|value| value.len() >= SHORTEST) {
            self.add(kind, &value);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Secret> {
        lock(&self.0).clone()
    }

    /// A search for all that there are now. It takes one pass over a text, however many they are.
    pub fn search(&self) -> Search {
        let secrets = self.all();
        let traces =
            secrets.iter().flat_map(|secret| traces(&secret.value).into_iter().map(|trace| (trace, secret.kind)));
        let (traces, kinds): (Vec<String>, Vec<SecretKind>) = traces.unzip();
        Search { automaton: AhoCorasick::new(traces).expect("few enough secrets"), kinds }
    }
}

/// A search for secrets.
pub struct Search {
    automaton: AhoCorasick,
    /// Of what kind each of the automaton's patterns gives a secret away.
    kinds: Vec<SecretKind>,
}

impl Search {
    /// The kinds of those that occur in the text, whole or in part, as they are or encoded.
    pub fn found_in(&self, text: &[u8]) -> Vec<SecretKind> {
        let found = self
            .automaton
            .find_overlapping_iter(text)
            .filter_map(|found| self.kinds.get(found.pattern().as_usize()).copied());
        let mut kinds: Vec<SecretKind> = found.collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// What gives a secret away: its beginning and its end, for a line may be cut, likewise those of
/// its percent-encoded and base64 forms, and of each part of a JWT.
fn traces(secret: &str) -> Vec<String> {
    let escaped: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), escaped, STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    if secret.starts_with("ey") {
        forms.extend(secret.split('.').skip(1).filter(|part| part.len() >= TRACE).map(str::to_owned));
    }
    let ends = forms.iter().flat_map(|form| {
        let from = form.len().saturating_sub(TRACE);
        [form.get(..TRACE).unwrap_or(form).to_owned(), form.get(from..).unwrap_or(form).to_owned()]
    });
    ends.collect()
}

const SHORTEST: usize = 8;
/// Bytes; fewer might be there by chance.
const TRACE: usize = 20;
