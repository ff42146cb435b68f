//! A provider's public keys (RFC 7517), and which of them may verify a signature.
//!
//! `openidconnect` knows keys, but not all that may be wrong with one; what it accepts and we do
//! not is refused here: an RSA modulus under 2048 bits (RFC 7518 §3.3), `key_ops` without `verify`,
//! a private or shared key in public.

use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeyType, CoreJsonWebKeyUse, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeySet, SignatureVerificationError};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::json_object::JsonObject;

/// The keys of a provider, as its `jwks_uri` lists them. A key that cannot be read is left out.
pub(crate) type KeySet = JsonWebKeySet<SigningKey>;

/// The keys in a document. The error is a reason in words.
pub(crate) fn key_set(document: &JsonObject) -> Result<KeySet, String> {
    let keys = document.value("keys").and_then(Value::as_array).ok_or("it has no list of `keys`")?;
    if keys.len() > MOST_KEYS {
        return Err(format!("it has {} keys, and {MOST_KEYS} are enough", keys.len()));
    }
    Ok(KeySet::new(keys.iter().filter_map(|key| SigningKey::deserialize(key).ok()).collect()))
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SigningKey {
    key: CoreJsonWebKey,
    /// All that the provider says of the key; it is written as it was read.
    source: JsonObject,
}

impl SigningKey {
    /// Whether a token of this issuer may be signed with the key, where the provider's issuer is a
    /// template: Entra ID's keys for several tenants say for which one each is, or for all.
    pub(crate) fn is_for(&self, issuer: &str, template: &str) -> bool {
        match self.source.value("issuer") {
            None => true,
            Some(named) => named == issuer || named == template,
        }
    }

    /// Why the key is not to be used, if so.
    fn defect(&self) -> Option<String> {
        if ["d", "p", "k"].iter().any(|part| self.source.value(part).is_some()) {
            return Some("its secret part is public".to_owned());
        }
        let bits = modulus_bits(&self.source).filter(|_| *self.key.key_type() == CoreJsonWebKeyType::RSA)?;
        (bits < SMALLEST_MODULUS).then(|| format!("RSA of {bits} bits, and less than {SMALLEST_MODULUS} is not safe"))
    }

    fn may_verify(&self) -> bool {
        match self.source.value("key_ops") {
            None => true,
            Some(operations) => operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify")),
        }
    }
}

const MOST_KEYS: usize = 100;
/// Bits.
const SMALLEST_MODULUS: usize = 2048;

/// The length of an RSA modulus in bits, leading zeros not counted; nothing where it cannot be read.
fn modulus_bits(key: &JsonObject) -> Option<usize> {
    use base64::Engine;
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(key.text("n")?).ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = JsonObject::deserialize(deserializer)?;
        let mut read = source.clone().into_value();
        // RFC 9864's name for what the library knows as EdDSA.
        if let Some(algorithm) = read.get_mut("alg").filter(|algorithm| *algorithm == "Ed25519") {
            *algorithm = "EdDSA".into();
        }
        let key = serde_json::from_value(read).map_err(D::Error::custom)?;
        Ok(Self { key, source })
    }
}

impl Serialize for SigningKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl JsonWebKey for SigningKey {
    type KeyUse = CoreJsonWebKeyUse;
    type SigningAlgorithm = CoreJwsSigningAlgorithm;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.key.key_id()
    }

    fn key_type(&self) -> &CoreJsonWebKeyType {
        self.key.key_type()
    }

    fn key_use(&self) -> Option<&CoreJsonWebKeyUse> {
        if self.may_verify() { self.key.key_use() } else { Some(&CoreJsonWebKeyUse::Encryption) }
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&CoreJwsSigningAlgorithm> {
        self.key.signing_alg()
    }

    fn new_symmetric(key: Vec<u8>) -> Self {
        Self { key: CoreJsonWebKey::new_symmetric(key), source: JsonObject::default() }
    }

    fn verify_signature(
        &self,
        algorithm: &CoreJwsSigningAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureVerificationError> {
        match self.defect() {
            Some(defect) => Err(SignatureVerificationError::InvalidKey(defect)),
            None => self.key.verify_signature(algorithm, message, signature),
        }
    }

    fn hash_bytes(&self, bytes: &[u8], algorithm: &CoreJwsSigningAlgorithm) -> Result<Vec<u8>, String> {
        self.key.hash_bytes(bytes, algorithm)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> Result<KeySet, String> {
        key_set(&JsonObject::parse(document.to_string().as_bytes()).unwrap())
    }

    fn key(changes: &Value) -> Value {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" });
        key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key
    }

    #[test]
    fn one_odd_key_does_not_spoil_the_set() {
        for odd in [
            json!({}),
            json!("key"),
            json!(null),
            json!({ "kty": "new" }),
            key(&json!({ "alg": "none-such" })),
            key(&json!({ "use": 1 })),
        ] {
            let keys = read(&json!({ "keys": [odd, key(&json!({}))] })).unwrap();
            assert_eq!(keys.keys().len(), 1, "{odd}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for document in [json!({}), json!({ "keys": {} }), json!({ "keys": null })] {
            assert!(read(&document).is_err(), "{document}");
        }
        assert_eq!(read(&json!({ "keys": [] })).unwrap().keys().len(), 0);
        assert!(read(&json!({ "keys": vec![json!({}); 20_000] })).unwrap_err().contains("20000"));
    }

    #[test]
    fn the_set_that_is_kept_reads_back_the_same() {
        let keys =
            read(&json!({ "keys": [key(&json!({ "alg": "Ed25519", "issuer": "https://a/{tenantid}", "kid": "k" }))] }))
                .unwrap();
        assert_eq!(keys.keys().len(), 1);
        assert_eq!(read(&serde_json::to_value(&keys).unwrap()).unwrap(), keys);
    }

    proptest! {
        #[test]
        fn no_key_panics(kind in "RSA|EC|OKP|oct|.*", member in "n|e|x|y|crv|alg|use|kid|key_ops|.*", text in ".*") {
            let keys = read(&json!({ "keys": [{ "kty": kind.as_str(), member.as_str(): text.as_str() }, { "kty": kind.as_str(), member.as_str(): [text.as_str()] }] })).unwrap();
            for key in keys.keys() {
                let _ = key.verify_signature(&CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256, b"message", b"signature");
            }
        }
    }
}
