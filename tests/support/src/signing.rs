//! The provider's keys and what they sign.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};

/// How ID tokens are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256: its keys are made in no time.
    #[default]
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSA, as most providers have it. Making a key takes up to a second.
    Rs256,
    /// RSA-PSS.
    Ps256,
}

impl Algorithm {
    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }
}

enum Private {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A key made for this run.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    private: Private,
    /// The public half, as it stands in the key set.
    public: Value,
}

impl Key {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self::with_id(algorithm, random(8))
    }

    pub(crate) fn with_id(algorithm: Algorithm, id: String) -> Self {
        let (private, mut public) = match algorithm {
            Algorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            Algorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            Algorithm::EdDsa => ed25519(),
            Algorithm::Rs256 | Algorithm::Ps256 => rsa(),
        };
        public["kid"] = json!(id);
        public["alg"] = json!(algorithm.name());
        public["use"] = json!("sig");
        Self { id, algorithm, private, public }
    }

    pub(crate) fn public(&self) -> Value {
        self.public.clone()
    }

    pub(crate) fn sign(&self, text: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ecdsa(key) => key.sign(&random, text.as_bytes()).expect("a signature").as_ref().to_vec(),
            Private::Ed25519(key) => key.sign(text.as_bytes()).as_ref().to_vec(),
            Private::Rsa(key) => {
                let padding: &dyn ring::signature::RsaEncoding =
                    if self.algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, text.as_bytes(), &mut signature).expect("a signature");
                signature
            }
        }
    }
}

fn ecdsa(algorithm: &'static ring::signature::EcdsaSigningAlgorithm, curve: &str) -> (Private, Value) {
    let random = SystemRandom::new();
    let bytes = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(algorithm, bytes.as_ref(), &random).expect("a key");
    // An uncompressed point: 4, x, y.
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let public = json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)});
    (Private::Ecdsa(key), public)
}

fn ed25519() -> (Private, Value) {
    let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let key = Ed25519KeyPair::from_pkcs8(bytes.as_ref()).expect("a key");
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())});
    (Private::Ed25519(key), public)
}

fn rsa() -> (Private, Value) {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key");
    let public = json!({"kty": "RSA", "n": encode(&key.n().to_bytes_be()), "e": encode(&key.e().to_bytes_be())});
    let bytes = key.to_pkcs8_der().expect("a key");
    (Private::Rsa(RsaKeyPair::from_pkcs8(bytes.as_bytes()).expect("a key")), public)
}

/// A JWT of this header and these claims, signed by whatever `sign` does.
pub(crate) fn jwt(header: &Value, claims: &Value, sign: impl FnOnce(&str) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = encode(&sign(&signed));
    format!("{signed}.{signature}")
}

/// HMAC-SHA-256.
pub(crate) fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// The SHA-256 of the text.
pub(crate) fn sha256(text: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

/// base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// So many random bytes as base64url.
pub(crate) fn random(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    SystemRandom::new().fill(&mut buffer).expect("random bytes");
    encode(&buffer)
}
