//! The cache's key: which sign-ins are the same one.
//!
//! A key is the SHA-256, in lower-case hexadecimal, of these fields in this order:
//!
//! 1. the text `kubectl-headlamp identity 1`
//! 2. the issuer, as configured
//! 3. the client ID
//! 4. the scopes: their number, then each, sorted by their bytes, without duplicates
//! 5. the resources (RFC 8707), likewise
//! 6. the auth parameters: their number, then name and value of each, sorted by name
//! 7. the login hint: the number 0, or the number 1 and the hint
//! 8. who signs in: the text `person` or `client`
//! 9. whether the provider's TLS certificate was verified: the number 1 or 0
//!
//! A text is its length in bytes, as a number, and then its UTF-8 bytes. A number is eight bytes,
//! the most significant first. So no two identities share their bytes, and the order in which
//! somebody wrote scopes or parameters does not matter. Not among the fields: the CA, the client
//! secret, the redirect, the token type; the same person with the same rights is signed in
//! whatever they are.
//!
//! The key of a provider's metadata and keys is made likewise, of the text
//! `kubectl-headlamp provider 1`, the issuer, and the number of field 9.

use std::collections::BTreeSet;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::settings::{Identity, Subject};

/// The key of an identity: 64 lower-case hexadecimal digits, so it is a safe file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self(hash(&encoded(identity)))
    }

    /// The key of what was fetched from a provider.
    pub(crate) fn of_provider(issuer: &str, tls_verified: bool) -> Self {
        let mut bytes = Vec::new();
        text(&mut bytes, "kubectl-headlamp provider 1");
        text(&mut bytes, issuer);
        number(&mut bytes, tls_verified.into());
        Self(hash(&bytes))
    }

    /// The key that the text is, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 64 && digits).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The bytes that are hashed; the module's documentation says how they are made.
fn encoded(identity: &Identity) -> Vec<u8> {
    // All fields by name, so that a new one cannot be forgotten here.
    let Identity { issuer, client_id, scopes, resources, auth_params, login_hint, subject, tls_verified } = identity;
    let mut bytes = Vec::with_capacity(512);
    text(&mut bytes, "kubectl-headlamp identity 1");
    text(&mut bytes, issuer);
    text(&mut bytes, client_id);
    texts(&mut bytes, scopes);
    texts(&mut bytes, resources);
    number(&mut bytes, auth_params.len());
    for (name, value) in auth_params {
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    number(&mut bytes, usize::from(login_hint.is_some()));
    if let Some(hint) = login_hint {
        text(&mut bytes, hint);
    }
    text(
        &mut bytes,
        match subject {
            Subject::Person => "person",
            Subject::Client => "client",
        },
    );
    number(&mut bytes, usize::from(*tls_verified));
    bytes
}

fn texts(bytes: &mut Vec<u8>, all: &BTreeSet<String>) {
    number(bytes, all.len());
    for one in all {
        text(bytes, one);
    }
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    number(bytes, value.len());
    bytes.extend_from_slice(value.as_bytes());
}

/// Eight bytes on every machine: a key is the same wherever a home folder is mounted.
fn number(bytes: &mut Vec<u8>, value: usize) {
    bytes.extend_from_slice(&(value as u64).to_be_bytes());
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
