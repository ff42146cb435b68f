//! Tokens are made and signed here, with keys that are made here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING};
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, Pss, RsaPrivateKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::*;
use crate::error::Kind;

const ISSUER: &str = "https://idp.example/realm";
const CLIENT: &str = "headlamp";
const NOW: i64 = 1_900_000_000;
const ACCESS_TOKEN: &str = "an access token";

static RSA: LazyLock<RsaPrivateKey> = LazyLock::new(|| rsa_key(2048));
static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(p256_key);
static P384: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.as_ref(), &random).unwrap()
});
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap()
});

fn rsa_key(bits: usize) -> RsaPrivateKey {
    RsaPrivateKey::new(&mut OsRng, bits).unwrap()
}

fn p256_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A signature as a provider makes it.
fn signature(algorithm: &str, input: &str) -> Vec<u8> {
    let input = input.as_bytes();
    let random = SystemRandom::new();
    match algorithm {
        "RS256" => RSA.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(input)).unwrap(),
        "RS384" => RSA.sign(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(input)).unwrap(),
        "RS512" => RSA.sign(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(input)).unwrap(),
        "PS256" => RSA.sign_with_rng(&mut OsRng, Pss::new::<Sha256>(), &Sha256::digest(input)).unwrap(),
        "PS384" => RSA.sign_with_rng(&mut OsRng, Pss::new::<Sha384>(), &Sha384::digest(input)).unwrap(),
        "PS512" => RSA.sign_with_rng(&mut OsRng, Pss::new::<Sha512>(), &Sha512::digest(input)).unwrap(),
        "ES256" => P256.sign(&random, input).unwrap().as_ref().to_vec(),
        "ES384" => P384.sign(&random, input).unwrap().as_ref().to_vec(),
        "EdDSA" => ED25519.sign(input).as_ref().to_vec(),
        other => panic!("no key for {other}"),
    }
}

fn rsa_jwk(key: &RsaPrivateKey) -> Value {
    json!({"kty": "RSA", "kid": "rsa", "n": encoded(key.n().to_bytes_be()), "e": encoded(key.e().to_bytes_be())})
}

fn ec_jwk(curve: &str, name: &str, key: &EcdsaKeyPair) -> Value {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "kid": name, "use": "sig", "crv": curve, "x": encoded(x), "y": encoded(y)})
}

fn jwk_of(algorithm: &str) -> Value {
    match algorithm {
        "ES256" => ec_jwk("P-256", "p256", &P256),
        "ES384" => ec_jwk("P-384", "p384", &P384),
        "EdDSA" => {
            json!({"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": encoded(ED25519.public_key().as_ref())})
        }
        _ => rsa_jwk(&RSA),
    }
}

fn key_set(keys: &[Value]) -> KeySet {
    serde_json::from_value(json!({ "keys": keys })).unwrap()
}

/// The change made to the original: a member that is `null` there is taken away.
fn changed(mut original: Value, change: &Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => original.as_object_mut().unwrap().remove(name),
            value => original.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    original
}

fn good_claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "ada", "aud": CLIENT, "exp": NOW + 3600, "iat": NOW, "nonce": "n-1",
        "name": "Ada", "email": "ada@example.org", "groups": ["dev"],
    })
}

fn good_header() -> Value {
    json!({"alg": "ES256", "kid": "p256", "typ": "JWT"})
}

fn signed(header: &Value, payload: &str) -> Secret {
    let input = format!("{}.{}", encoded(header.to_string()), encoded(payload));
    let algorithm = header.get("alg").and_then(Value::as_str).filter(|name| *name != "EdDSA");
    let algorithm = match algorithm {
        Some(name) if ALGORITHMS.iter().any(|(known, _)| *known == name) => name,
        None if header.get("alg") == Some(&json!("EdDSA")) => "EdDSA",
        _ => "ES256",
    };
    Secret::new(format!("{input}.{}", encoded(signature(algorithm, &input))))
}

fn with_claims(change: &Value) -> Secret {
    signed(&good_header(), &changed(good_claims(), change).to_string())
}

fn with_header(change: &Value) -> Secret {
    signed(&changed(good_header(), change), &good_claims().to_string())
}

/// What a sign-in expects; `nonce` and `access_token` were sent and came.
fn verified_by(keys: &KeySet, token: &Secret) -> Result<Verified, Rejection> {
    let (nonce, access_token) = (Secret::new("n-1"), Secret::new(ACCESS_TOKEN));
    let expectation =
        Expectation { client_id: CLIENT, nonce: Some(&nonce), access_token: Some(&access_token), subject: None };
    verify_with(ISSUER, keys, token, &expectation, now())
}

fn verified(token: &Secret) -> Result<Verified, Rejection> {
    verified_by(&key_set(&[jwk_of("ES256")]), token)
}

/// Why it is refused, as the person is told; empty if it is not.
fn cause(result: Result<Verified, Rejection>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(rejection) => {
            let error = Error::from(rejection);
            assert_eq!(error.kind(), Kind::SignInFailed);
            assert_eq!(error.message(), "the provider's ID token is not accepted");
            assert!(error.hints().len() <= 1);
            error.causes().join("; ")
        }
    }
}

const ACCEPTED: &str = "";

#[test]
fn a_good_token_tells_who_until_when_and_for_whom() {
    let person = Person {
        subject: "ada".to_owned(),
        name: Some("Ada".to_owned()),
        email: Some("ada@example.org".to_owned()),
        groups: vec!["dev".to_owned()],
        ..Person::default()
    };
    let expected = Verified {
        expires: Timestamp::from_second(NOW + 3600).unwrap(),
        subject: "ada".to_owned(),
        person,
        issuer: ISSUER.to_owned(),
        audience: vec![CLIENT.to_owned()],
    };
    assert_eq!(verified(&with_claims(&json!({}))), Ok(expected));
}

#[test]
fn every_listed_algorithm_is_accepted() {
    for (algorithm, _) in ALGORITHMS {
        let jwk = jwk_of(algorithm);
        let header = json!({"alg": algorithm, "kid": jwk["kid"]});
        let token = signed(&header, &good_claims().to_string());
        assert_eq!(cause(verified_by(&key_set(&[jwk]), &token)), ACCEPTED, "{algorithm}");
    }
}

#[test]
fn each_wrong_claim_is_refused_and_told() {
    let issuer = |found: &str| format!("its issuer is not `{ISSUER}` but `{found}`");
    let audience = |found: &str| format!("it is not for this client, `{CLIENT}`, but for `{found}`");
    let wrong_type = |claim: &str| format!("its claim `{claim}` is of the wrong type");
    let missing = |claim: &str| format!("its claim `{claim}` is missing");
    let unreadable = |claim: &str| format!("its claim `{claim}` cannot be read");
    let ended = |at: &str| format!("it ended at {at}, and this machine's clock says 2030-03-17T17:46:40Z");
    let not_yet = |claim: &str, from: &str| {
        format!("it is good only from {from} on (`{claim}`), and this machine's clock says 2030-03-17T17:46:40Z")
    };
    let nonce = "it is not of this sign-in: its `nonce` is missing or another".to_owned();
    let cases: Vec<(Value, String)> = vec![
        (json!({"iss": "https://evil.example"}), issuer("https://evil.example")),
        (json!({"iss": format!("{ISSUER}/")}), issuer("https://idp.example/realm/")),
        (json!({"iss": "https://IDP.example/realm"}), issuer("https://IDP.example/realm")),
        (json!({"iss": "https://idp.example:443/realm"}), issuer("https://idp.example:443/realm")),
        (json!({"iss": [ISSUER]}), wrong_type("iss")),
        (json!({"iss": null}), missing("iss")),
        (json!({"iss": "no URL"}), unreadable("iss")),
        (json!({"aud": "other"}), audience("other")),
        (json!({"aud": ["a", "b"]}), audience("a`, `b")),
        (json!({"aud": "Headlamp"}), audience("Headlamp")),
        (json!({"aud": ""}), audience("")),
        (json!({"aud": []}), audience("")),
        (json!({"aud": null}), audience("")),
        (json!({"aud": 7}), unreadable("aud")),
        (json!({"aud": {"headlamp": true}}), unreadable("aud")),
        (json!({"aud": [CLIENT, CLIENT]}), ACCEPTED.to_owned()),
        (
            json!({"aud": [CLIENT, "other"]}),
            "it is for several clients, and does not say that it was issued to `headlamp` (`azp`)".to_owned(),
        ),
        (
            json!({"aud": [CLIENT, "other"], "azp": "other"}),
            "it was not issued to this client, `headlamp`, but to `other` (`azp`)".to_owned(),
        ),
        (json!({"aud": [CLIENT, "other"], "azp": CLIENT}), ACCEPTED.to_owned()),
        (json!({"aud": ["other"], "azp": CLIENT}), audience("other")),
        (json!({"azp": "other"}), "it was not issued to this client, `headlamp`, but to `other` (`azp`)".to_owned()),
        (json!({"azp": CLIENT}), ACCEPTED.to_owned()),
        (json!({"azp": 7}), unreadable("azp")),
        (json!({"exp": NOW - 59}), ACCEPTED.to_owned()),
        (json!({"exp": NOW - 60}), ended("2030-03-17T17:45:40Z")),
        (json!({"exp": 1}), ended("1970-01-01T00:00:01Z")),
        (json!({"exp": -1}), ended("1970-01-01T00:00:00Z")),
        (json!({"exp": 1_900_003_600.5}), ACCEPTED.to_owned()),
        (json!({"exp": null}), missing("exp")),
        (json!({"exp": "1900003600"}), wrong_type("exp")),
        (json!({"exp": "2031-01-01T00:00:00Z"}), wrong_type("exp")),
        (json!({"exp": 1e300}), unreadable("exp")),
        (json!({"exp": u64::MAX}), unreadable("exp")),
        (json!({"iat": NOW + 60}), ACCEPTED.to_owned()),
        (json!({"iat": NOW + 61}), not_yet("iat", "2030-03-17T17:47:41Z")),
        (json!({"iat": NOW + 86_400}), not_yet("iat", "2030-03-18T17:46:40Z")),
        (json!({"iat": 253_402_300_800_i64}), not_yet("iat", "9999-12-30T22:00:00.999999999Z")),
        (json!({"iat": NOW - 86_400}), ACCEPTED.to_owned()),
        (
            json!({"iat": NOW - 86_401}),
            "it was issued at 2030-03-16T17:46:39Z (`iat`), long before this sign-in, and this machine's clock says 2030-03-17T17:46:40Z".to_owned(),
        ),
        (json!({"iat": -1}), "its time of issue (`iat`) is negative".to_owned()),
        (json!({"iat": null}), missing("iat")),
        (json!({"iat": "now"}), wrong_type("iat")),
        (json!({"nbf": NOW + 60}), ACCEPTED.to_owned()),
        (json!({"nbf": NOW + 61}), not_yet("nbf", "2030-03-17T17:47:41Z")),
        (json!({"nbf": 1e300}), not_yet("nbf", "9999-12-30T22:00:00.999999999Z")),
        (json!({"nbf": u64::MAX}), not_yet("nbf", "9999-12-30T22:00:00.999999999Z")),
        (json!({"nbf": -1}), ACCEPTED.to_owned()),
        (json!({"nbf": "never"}), wrong_type("nbf")),
        (json!({"nonce": null}), nonce.clone()),
        (json!({"nonce": "n-2"}), nonce.clone()),
        (json!({"nonce": ""}), nonce),
        (json!({"nonce": ["n-1"]}), unreadable("nonce")),
        (json!({"sub": null}), missing("sub")),
        (json!({"sub": 7}), wrong_type("sub")),
        (json!({"sub": ""}), "its subject (`sub`) is empty".to_owned()),
        (json!({"sub": "x".repeat(255)}), ACCEPTED.to_owned()),
        (json!({"sub": "x".repeat(256)}), "its subject (`sub`) is longer than 255 characters".to_owned()),
        (json!({"sub": "x".repeat(10_000)}), "its subject (`sub`) is longer than 255 characters".to_owned()),
        (json!({"sub": "a\u{0}b"}), "its subject (`sub`) has control characters".to_owned()),
        (json!({"sub": "a\nb"}), "its subject (`sub`) has control characters".to_owned()),
        (json!({"at_hash": "AAAA"}), "it does not belong to the access token that came with it (`at_hash`)".to_owned()),
        (json!({"address": "a street"}), unreadable("address")),
        // What providers are known to send otherwise than the specification has it.
        (json!({"email_verified": "true", "updated_at": "2029-01-01T00:00:00.000Z"}), ACCEPTED.to_owned()),
    ];
    for (change, expected) in cases {
        assert_eq!(cause(verified(&with_claims(&change))), expected, "{change}");
    }
}

#[test]
fn each_wrong_header_is_refused_and_told() {
    let algorithm = |name: &str| format!("it is signed with `{name}`, which is not accepted");
    let cases: Vec<(Value, String)> = vec![
        (json!({"alg": "none"}), "it is not signed".to_owned()),
        (json!({"alg": "None"}), "it is not signed".to_owned()),
        (json!({"alg": "NONE"}), "it is not signed".to_owned()),
        (json!({"alg": ""}), "it does not say how it is signed".to_owned()),
        (json!({"alg": null}), "it does not say how it is signed".to_owned()),
        (json!({"alg": ["ES256"]}), "it does not say how it is signed".to_owned()),
        (json!({"alg": "HS256"}), algorithm("HS256")),
        (json!({"alg": "ES512"}), algorithm("ES512")),
        (json!({"alg": "ES256K"}), algorithm("ES256K")),
        (json!({"alg": "Ed25519"}), algorithm("Ed25519")),
        (json!({"alg": "es256"}), algorithm("es256")),
        (json!({"alg": "RSA-OAEP"}), algorithm("RSA-OAEP")),
        (json!({"typ": null}), ACCEPTED.to_owned()),
        (json!({"typ": "application/jwt"}), ACCEPTED.to_owned()),
        (json!({"typ": "at+jwt"}), "unexpected or unsupported JWT type `at+jwt`".to_owned()),
        (json!({"typ": "logout+jwt"}), "unexpected or unsupported JWT type `logout+jwt`".to_owned()),
        (json!({"cty": "JWT"}), "nested JWT's are not currently supported".to_owned()),
        (json!({"crit": ["exp"]}), "critical JWT header fields are unsupported".to_owned()),
        (json!({"crit": ["b64"], "b64": false}), "critical JWT header fields are unsupported".to_owned()),
        (json!({"crit": []}), "critical JWT header fields are unsupported".to_owned()),
        (json!({"kid": "other"}), "the provider lists no key `other` that fits".to_owned()),
        (json!({"kid": ""}), "the provider lists no key that fits".to_owned()),
        (json!({"kid": 7}), "its header or signature cannot be read".to_owned()),
        (json!({"kid": null}), ACCEPTED.to_owned()),
        // Pointers to keys are not followed.
        (
            json!({"jku": "https://evil.example/keys", "x5u": "https://evil.example", "x5c": ["AAAA"]}),
            ACCEPTED.to_owned(),
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(cause(verified(&with_header(&change))), expected, "{change}");
    }
}

#[test]
fn a_key_that_comes_with_the_token_is_not_believed() {
    let stranger = p256_key();
    for kid in [json!("p256"), json!("mine"), Value::Null] {
        let mut header = changed(good_header(), &json!({"jwk": ec_jwk("P-256", "mine", &stranger)}));
        header["kid"] = kid;
        let header = changed(header.clone(), &json!({"kid": header["kid"]}));
        let input = format!("{}.{}", encoded(header.to_string()), encoded(good_claims().to_string()));
        let signature = stranger.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        let token = Secret::new(format!("{input}.{}", encoded(signature)));
        let rejection = verified(&token).unwrap_err();
        assert!(rejection.newer_keys_may_help(), "{rejection:?}");
    }
}

#[test]
fn a_token_signed_with_a_shared_secret_is_not_believed() {
    let public_key = P256.public_key().as_ref().to_vec();
    for secret in [public_key, b"the client's secret".to_vec()] {
        let input = format!("{}.{}", encoded(r#"{"alg":"HS256","kid":"p256"}"#), encoded(good_claims().to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let token = Secret::new(format!("{input}.{}", encoded(ring::hmac::sign(&key, input.as_bytes()))));
        let shared = json!({"kty": "oct", "kid": "p256", "alg": "HS256", "k": encoded(&secret)});
        let keys = key_set(&[shared, jwk_of("ES256")]);
        assert_eq!(verified_by(&keys, &token), Err(Rejection::Algorithm("HS256".to_owned())));
    }
}

#[test]
fn what_is_no_signed_token_is_refused_and_told() {
    let good = with_claims(&json!({}));
    let [header, payload, signature] = claims::parts(good.expose()).unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[10] ^= 1;
    let not_text = encoded([0xff, 0xfe, b'{']);
    let twice = |name: &str| {
        let payload = good_claims().to_string().replacen('{', &format!("{{\"{name}\":\"first\","), 1);
        signed(&good_header(), &payload).expose().to_owned()
    };
    let deep = signed(&good_header(), &format!("{{\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000)));
    let not_json = "its payload is not JSON".to_owned();
    let named_twice = "its payload is JSON in which a name stands twice".to_owned();
    let cases = [
        (String::new(), "it has 1 parts, and a signed token has 3".to_owned()),
        (format!("{header}.{payload}"), "it has 2 parts, and a signed token has 3".to_owned()),
        (format!("{header}.{payload}.{signature}.x"), "it has 4 parts, and a signed token has 3".to_owned()),
        (format!("{header}.{payload}.x.y.z"), "it is encrypted, which is not supported".to_owned()),
        (format!("{header}.{payload}."), "it is not signed with the provider's key".to_owned()),
        (format!("{header}.{payload}.{}", encoded(&flipped)), "it is not signed with the provider's key".to_owned()),
        (format!("{header}.{payload}.{}", encoded([0; 64])), "it is not signed with the provider's key".to_owned()),
        (format!("{header}.{payload}.{signature}="), "its header or signature cannot be read".to_owned()),
        (format!("{header}.{payload}.+/{signature}"), "its header or signature cannot be read".to_owned()),
        (format!("{header}.{payload}=.{signature}"), "its payload is not base64url".to_owned()),
        (format!("{header}.{not_text}.{signature}"), not_json.clone()),
        (format!("{header}.{}.{signature}", encoded("\u{feff}{}")), not_json.clone()),
        (format!("{header}.{}.{signature}", encoded("[]")), "its payload is JSON, but not an object".to_owned()),
        (format!("x.{payload}.{signature}"), "its header is not base64url".to_owned()),
        (format!("{}.{payload}.{signature}", encoded("7")), "its header is JSON, but not an object".to_owned()),
        (twice("sub"), named_twice.clone()),
        (twice("nonce"), named_twice.clone()),
        (twice("groups"), named_twice),
        (deep.expose().to_owned(), not_json),
        (format!("{header} .{payload}.{signature}"), "its header is not base64url".to_owned()),
    ];
    for (token, expected) in cases {
        assert_eq!(cause(verified(&Secret::new(token.as_str()))), expected, "{token}");
    }
}

#[test]
fn each_unfit_key_is_refused_and_told() {
    let good = || jwk_of("ES256");
    let with = |change: Value| changed(good(), &change);
    let no_key = "the provider lists no key `p256` that fits";
    let cases = [
        (vec![], no_key.to_owned()),
        (vec![with(json!({"use": "enc"}))], no_key.to_owned()),
        (vec![with(json!({"use": null, "key_ops": ["encrypt"]}))], no_key.to_owned()),
        (vec![with(json!({"key_ops": "verify"}))], no_key.to_owned()),
        (vec![with(json!({"use": null, "key_ops": ["verify"]}))], ACCEPTED.to_owned()),
        (vec![with(json!({"use": null}))], ACCEPTED.to_owned()),
        (vec![with(json!({"alg": "ES384"}))], no_key.to_owned()),
        (vec![with(json!({"alg": "Ed25519"}))], no_key.to_owned()),
        (vec![with(json!({"kid": "other"}))], no_key.to_owned()),
        (vec![with(json!({"kid": null}))], no_key.to_owned()),
        (vec![with(json!({"d": "AAAA"}))], "the provider's key cannot be used: its secret part is public".to_owned()),
        (
            vec![with(json!({"crv": "P-384"}))],
            "the provider's key cannot be used: Key uses different CRV than JWT".to_owned(),
        ),
        (vec![with(json!({"y": null}))], "the provider's key cannot be used: EC `y` part is missing".to_owned()),
        (vec![good(), good()], "several of the provider's keys fit, and it does not say which it is".to_owned()),
        (vec![good(), with(json!({"kid": "other"}))], ACCEPTED.to_owned()),
        (vec![json!("no key"), json!({"kty": "new", "kid": "p256"}), good()], ACCEPTED.to_owned()),
        (vec![with(json!({"issuer": "https://elsewhere.example"}))], ACCEPTED.to_owned()),
        (vec![ec_jwk("P-256", "p256", &p256_key())], "it is not signed with the provider's key".to_owned()),
    ];
    for (keys, expected) in cases {
        let shown = json!(keys);
        assert_eq!(cause(verified_by(&key_set(&keys), &with_claims(&json!({})))), expected, "{shown}");
    }
    let off_curve = with(json!({"x": encoded([1; 32]), "y": encoded([1; 32])}));
    let told = cause(verified_by(&key_set(&[off_curve]), &with_claims(&json!({}))));
    assert!(told.starts_with("the provider's key cannot be used: "), "{told}");
}

#[test]
fn no_key_named_is_fine_with_one_that_fits_and_refused_with_several() {
    let token = with_header(&json!({"kid": null}));
    let other = ec_jwk("P-256", "other", &p256_key());
    assert_eq!(cause(verified_by(&key_set(&[jwk_of("ES256"), jwk_of("EdDSA")]), &token)), ACCEPTED);
    assert_eq!(verified_by(&key_set(&[jwk_of("ES256"), other]), &token), Err(Rejection::AmbiguousKey));
}

#[test]
fn a_member_that_stands_twice_in_a_key_makes_it_unfit() {
    let key = jwk_of("ES256").to_string().replacen('{', r#"{"kid":"first","#, 1);
    let keys: KeySet = serde_json::from_str(&format!("{{\"keys\":[{key}]}}")).unwrap();
    assert_eq!(keys.keys().len(), 0);
}

#[test]
fn short_rsa_keys_are_refused() {
    let key = rsa_key(1024);
    let input = format!("{}.{}", encoded(r#"{"alg":"RS256","kid":"rsa"}"#), encoded(good_claims().to_string()));
    let signature = key.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(&input)).unwrap();
    let token = Secret::new(format!("{input}.{}", encoded(signature)));
    let mut padded = vec![0; 200];
    padded.extend(key.n().to_bytes_be());
    for modulus in [key.n().to_bytes_be(), padded] {
        let keys = key_set(&[changed(rsa_jwk(&key), &json!({"n": encoded(modulus)}))]);
        assert_eq!(
            cause(verified_by(&keys, &token)),
            "the provider's key cannot be used: RSA of 1024 bits, and less than 2048 is not safe"
        );
    }
    for (n, e) in [(vec![0x80; 256], vec![1]), (vec![], vec![1, 0, 1]), (vec![0xff; 1024], vec![1, 0, 1])] {
        let keys = key_set(&[changed(rsa_jwk(&key), &json!({"n": encoded(n), "e": encoded(e)}))]);
        let told = cause(verified_by(&keys, &token));
        assert!(told.starts_with("the provider's key cannot be used: "), "{told}");
    }
}

#[test]
fn keys_are_written_as_they_were_read() {
    let key = changed(jwk_of("ES256"), &json!({"key_ops": ["verify"], "issuer": "https://a", "x5t": "AAAA"}));
    let keys = serde_json::to_value(key_set(std::slice::from_ref(&key))).unwrap();
    assert_eq!(keys, json!({"keys": [key]}));
}

#[test]
fn the_access_token_hash_is_of_the_signature_s_kind() {
    for (algorithm, digest) in [
        ("RS256", Sha256::digest(ACCESS_TOKEN).to_vec()),
        ("ES384", Sha384::digest(ACCESS_TOKEN).to_vec()),
        ("PS512", Sha512::digest(ACCESS_TOKEN).to_vec()),
        ("EdDSA", Sha512::digest(ACCESS_TOKEN).to_vec()),
    ] {
        let jwk = jwk_of(algorithm);
        let header = json!({"alg": algorithm, "kid": jwk["kid"]});
        let half = encoded(&digest[..digest.len() / 2]);
        let token = signed(&header, &changed(good_claims(), &json!({"at_hash": half})).to_string());
        assert_eq!(cause(verified_by(&key_set(&[jwk]), &token)), ACCEPTED, "{algorithm}");
    }
    let token = with_claims(&json!({"at_hash": "AAAA", "nonce": null}));
    let alone = Expectation { client_id: CLIENT, nonce: None, access_token: None, subject: None };
    assert_eq!(cause(verify_with(ISSUER, &key_set(&[jwk_of("ES256")]), &token, &alone, now())), ACCEPTED);
}

#[test]
fn a_refresh_keeps_the_subject_and_need_not_keep_the_nonce() {
    let keys = key_set(&[jwk_of("ES256")]);
    let expectation = Expectation { client_id: CLIENT, nonce: None, access_token: None, subject: Some("ada") };
    let refreshed = |change: &Value| cause(verify_with(ISSUER, &keys, &with_claims(change), &expectation, now()));
    assert_eq!(refreshed(&json!({})), ACCEPTED);
    assert_eq!(refreshed(&json!({"nonce": null})), ACCEPTED);
    assert_eq!(refreshed(&json!({"iat": NOW - 200_000})), ACCEPTED);
    assert_eq!(refreshed(&json!({"sub": "eve"})), "it is another account's than before (`sub`)");
    assert!(refreshed(&json!({"iss": "https://evil.example"})).starts_with("its issuer is not"));
    assert!(refreshed(&json!({"aud": "other"})).starts_with("it is not for this client"));
}

#[test]
fn no_end_is_told_that_is_more_than_thirty_days_away() {
    let month = Timestamp::from_second(NOW + 30 * 86_400).unwrap();
    for exp in [NOW + 30 * 86_400, NOW + 30 * 86_400 + 1, 32_503_680_000, 253_402_300_800] {
        let verified = verified(&with_claims(&json!({"exp": exp}))).unwrap();
        assert_eq!(verified.expires, month, "{exp}");
    }
}

#[test]
fn only_a_missing_key_and_a_wrong_signature_have_the_keys_fetched_again() {
    assert!(Rejection::BadSignature.newer_keys_may_help());
    assert!(Rejection::NoMatchingKey(Some("kid".to_owned())).newer_keys_may_help());
    let others = [
        Rejection::Nonce,
        Rejection::AmbiguousKey,
        Rejection::OtherSubject,
        Rejection::Expired { at: now(), now: now() },
        Rejection::UnusableKey("short".to_owned()),
        Rejection::Algorithm("HS256".to_owned()),
    ];
    assert!(others.iter().all(|rejection| !rejection.newer_keys_may_help()));
}

const TENANT_ID: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT_ID: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
const TEMPLATE: &str = "https://login.microsoftonline.com/{tenantid}/v2.0";

fn version_2(tenant: &str) -> String {
    TEMPLATE.replace("{tenantid}", tenant)
}

#[test]
fn a_template_takes_the_issuer_of_the_token_s_tenant_and_no_other() {
    let expectation = Expectation { client_id: CLIENT, nonce: None, access_token: None, subject: None };
    let verify = |keys: &[Value], change: &Value| {
        verify_with(TEMPLATE, &key_set(keys), &with_claims(change), &expectation, now())
    };
    let keys = [jwk_of("ES256")];
    let own = version_2(TENANT_ID);
    let verified = verify(&keys, &json!({"iss": own, "tid": TENANT_ID})).unwrap();
    assert_eq!((verified.issuer.as_str(), verified.person.tenant.as_deref()), (own.as_str(), Some(TENANT_ID)));

    let no_tenant = "it does not say of which tenant it is (`tid`)";
    let other = format!("its issuer is not `{}` but `{own}`", version_2(OTHER_TENANT_ID));
    let literal = format!("its issuer is not `{own}` but `{TEMPLATE}`");
    let cases = [
        (json!({"iss": own}), no_tenant),
        (json!({"iss": own, "tid": "common"}), no_tenant),
        (json!({"iss": own, "tid": [TENANT_ID]}), no_tenant),
        (json!({"iss": own, "tid": format!("{TENANT_ID}/../x")}), no_tenant),
        (json!({"iss": own, "tid": OTHER_TENANT_ID}), other.as_str()),
        (json!({"iss": TEMPLATE, "tid": TENANT_ID}), literal.as_str()),
    ];
    for (change, expected) in cases {
        assert_eq!(cause(verify(&keys, &change)), expected, "{change}");
    }

    let key_of = |issuer: &str| [changed(jwk_of("ES256"), &json!({"issuer": issuer}))];
    let change = json!({"iss": own, "tid": TENANT_ID});
    assert_eq!(cause(verify(&key_of(TEMPLATE), &change)), ACCEPTED);
    assert_eq!(cause(verify(&key_of(&own), &change)), ACCEPTED);
    assert_eq!(
        cause(verify(&key_of(&version_2(OTHER_TENANT_ID)), &change)),
        "the provider lists no key `p256` that fits"
    );
}

#[test]
fn the_error_shows_what_can_be_compared_and_what_to_do() {
    let told = |change: &Value| Error::from(verified(&with_claims(change)).unwrap_err()).to_string();
    assert_eq!(
        told(&json!({"aud": "other"})),
        "kubectl-headlamp: error: the provider's ID token is not accepted\n  \
         caused by: it is not for this client, `headlamp`, but for `other`\n\n\
         hint: compare `--client-id` with the client that is registered with the provider"
    );
    assert_eq!(
        told(&json!({"exp": NOW - 3600})),
        "kubectl-headlamp: error: the provider's ID token is not accepted\n  \
         caused by: it ended at 2030-03-17T16:46:40Z, and this machine's clock says 2030-03-17T17:46:40Z\n\n\
         hint: set this machine's clock if that is not the time: `date -u` shows it"
    );
    assert_eq!(
        told(&json!({"iss": "https://idp.example/realm/"})),
        "kubectl-headlamp: error: the provider's ID token is not accepted\n  \
         caused by: its issuer is not `https://idp.example/realm` but `https://idp.example/realm/`\n\n\
         hint: write the issuer exactly as the provider does: `--issuer-url https://idp.example/realm/`"
    );
    let hostile = told(&json!({"iss": format!("https://evil.example/\u{1b}[2J\u{202e}{}", "x".repeat(1500))}));
    assert!(!hostile.contains(['\u{1b}', '\u{202e}']) && hostile.len() < 1000, "{hostile}");
}

#[test]
fn entra_s_two_versions_and_another_tenant_are_told_apart() {
    let hint = |expected: &str, found: &str| {
        let rejection = Rejection::Issuer { expected: expected.to_owned(), found: found.to_owned() };
        Error::from(rejection).hints().join("; ")
    };
    let version_1 = format!("https://sts.windows.net/{TENANT_ID}/");
    assert_eq!(
        hint(&version_2(TENANT_ID), &version_1),
        "`https://sts.windows.net/<tenant-id>/` is Entra ID's version 1, `https://login.microsoftonline.com/<tenant-id>/v2.0` its version 2: \
         `--issuer-url https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/`, or `--tenant 72f988bf-86f1-41af-91ab-2d7cd011db47` for version 2"
    );
    assert!(
        hint(&version_2(TENANT_ID), &version_2(OTHER_TENANT_ID))
            .starts_with("you signed in to the tenant `9188040d-6c67-4c5b-b112-36a304b66dad`")
    );
    for (expected, found) in [("https://a", "https://b"), (version_1.as_str(), &version_2("common"))] {
        assert!(hint(expected, found).starts_with("compare `--issuer-url`"), "{found}");
    }
}

fn settings(issuer: Option<&str>, audience: Option<&str>) -> Settings {
    let words = ["--issuer-url", "https://idp.example", "--client-id", CLIENT, "--token-storage", "none"];
    let options = crate::options::of_arguments(&words.map(Into::into)).unwrap();
    let mut settings = crate::settings::resolve(&options, &crate::environment::Environment::default()).unwrap();
    settings.token_issuer = issuer.map(str::to_owned);
    settings.token_audience = audience.map(str::to_owned);
    settings
}

#[test]
fn an_access_token_for_another_cluster_is_told_before_the_cluster_refuses_it() {
    let version_1 = format!("https://sts.windows.net/{TENANT_ID}/");
    let other_version_1 = format!("https://sts.windows.net/{OTHER_TENANT_ID}/");
    let check = |issuer: Option<&str>, audience: &[&str], configured: (Option<&str>, Option<&str>)| {
        let token = Token {
            value: Secret::new("secret"),
            expires: now(),
            issuer: issuer.map(str::to_owned),
            audience: audience.iter().map(|&one| one.to_owned()).collect(),
        };
        match check_access_token(&token, &settings(configured.0, configured.1)) {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!(error.kind(), Kind::SignInFailed);
                [error.causes(), error.hints()].concat().join(" | ")
            }
        }
    };
    let aks = (Some(version_1.as_str()), Some(entra::AKS_SERVER));
    assert_eq!(check(Some(&version_1), &[entra::AKS_SERVER], aks), "");
    assert_eq!(check(None, &[], aks), "");
    assert_eq!(check(Some("https://any"), &["any"], (None, None)), "");
    assert_eq!(
        check(Some(&version_1), &["00000003-0000-0000-c000-000000000000"], aks),
        "its audience is not `6dae42f8-4368-4678-94ff-3960e28e3630` but `00000003-0000-0000-c000-000000000000` | \
         ask for a scope of the AKS server, and of no other API: `--scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read`"
    );
    assert_eq!(
        check(Some(&version_2(TENANT_ID)), &[entra::AKS_SERVER], aks),
        "its issuer is not `https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/` but \
         `https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0` | \
         that is Entra ID's other version of tokens, and which it gives is for the API to say: AKS wants version 1, \
         for its own scope, `--scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read`"
    );
    assert!(check(Some(&other_version_1), &[entra::AKS_SERVER], aks).contains("`--tenant 9188040d"));
    assert!(check(Some("https://a"), &["b"], (Some("https://c"), None)).contains("`--token-issuer https://a`"));
    assert!(check(None, &["b"], (None, Some("c"))).contains("`--token-audience <audience>`"));
}

fn any_claim() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!(CLIENT)),
        Just(json!(NOW)),
    ];
    prop_oneof![
        leaf.clone(),
        proptest::collection::vec(leaf.clone(), 0..4).prop_map(Value::from),
        proptest::collection::btree_map(".{0,6}", leaf, 0..4).prop_map(|map| map.into_iter().collect()),
    ]
}

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(text in ".{0,200}") {
        prop_assert!(verified(&Secret::new(text)).is_err());
    }

    #[test]
    fn any_three_parts_are_refused_without_panic(parts in proptest::array::uniform3(".{0,60}")) {
        let token = parts.map(encoded).join(".");
        prop_assert!(verified(&Secret::new(token)).is_err());
    }

    #[test]
    fn any_signed_claims_and_header_are_judged_without_panic(
        claims in proptest::collection::btree_map(
            "iss|sub|aud|exp|iat|nbf|nonce|azp|at_hash|amr|acr|auth_time|name|address|tid|groups|.{0,5}", any_claim(), 0..4),
        header in proptest::collection::btree_map("alg|kid|typ|cty|crit|.{0,5}", any_claim(), 0..2),
    ) {
        let (claims, header): (Value, Value) = (claims.into_iter().collect(), header.into_iter().collect());
        let token = signed(&changed(good_header(), &header), &changed(good_claims(), &claims).to_string());
        if let Err(rejection) = verified(&token) {
            let told = Error::from(rejection).to_string();
            prop_assert!(!told.contains(token.expose()));
            prop_assert!(!told.contains(char::from(0x1b)));
        }
    }

    #[test]
    fn any_key_is_judged_without_panic(
        change in proptest::collection::btree_map("kty|kid|use|key_ops|crv|x|y|n|e|alg|d|issuer", any_claim(), 0..4),
    ) {
        let change: Value = change.into_iter().collect();
        for jwk in [jwk_of("ES256"), jwk_of("EdDSA"), json!({"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"})] {
            let keys = key_set(&[changed(jwk, &change)]);
            let _ = verified_by(&keys, &with_claims(&json!({})));
        }
    }
}
