//! A provider that says, signs and sends what none should. Each table is one class of input, through
//! the whole binary; `src/id_token/tests.rs`, `src/http/tests.rs` and their kind go through the rest
//! one by one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headlamp_test_support::{
    AccessTokens, Answer, Behaviour, Endpoint, Output, Provider, Response, Sandbox, Signature,
};
use serde_json::{Map, Value, json};

use crate::BINARY;

type Arrange = Box<dyn Fn(&Provider)>;

/// An input, how it comes about, the exit code, and what the person is told.
type Case = (&'static str, Arrange, i32, &'static str);

fn metadata(name: &'static str, value: Value) -> Arrange {
    Box::new(move |provider| provider.edit_discovery(member(name, value.clone())))
}

/// The issuer as it is written in the metadata, made of the right one.
fn issuer(edit: fn(&str) -> String) -> Arrange {
    Box::new(move |provider| {
        let other = edit(provider.issuer());
        provider.edit_discovery(member("issuer", json!(other)));
    })
}

fn answer(endpoint: Endpoint, answer: fn() -> Answer) -> Arrange {
    Box::new(move |provider| provider.script(endpoint, answer()))
}

fn redirect(endpoint: Endpoint, status: u16) -> Arrange {
    Box::new(move |provider| {
        let target = format!("{}/elsewhere", provider.issuer());
        provider.script(endpoint, Answer::of(Response::new(status).header("Location", &target)));
    })
}

fn keys(edit: fn(&mut Map<String, Value>)) -> Arrange {
    Box::new(move |provider| provider.edit_keys(edit))
}

/// The one key, changed.
fn key(name: &'static str, value: Value) -> Arrange {
    Box::new(move |provider| {
        let value = value.clone();
        provider.edit_keys(move |set| set["keys"][0][name] = value.clone());
    })
}

/// An RSA key in place of the right one, and a token that says to be signed with it.
fn rsa_key(modulus: String, exponent: &'static str) -> Arrange {
    Box::new(move |provider| {
        let modulus = modulus.clone();
        provider.edit_header(member("alg", json!("RS256")));
        provider.edit_keys(move |set| {
            let name = set["keys"][0]["kid"].clone();
            set["keys"] = json!([{"kty": "RSA", "kid": name, "n": modulus, "e": exponent}]);
        });
    })
}

fn claim(name: &'static str, value: Value) -> Arrange {
    Box::new(move |provider| provider.edit_claims(member(name, value.clone())))
}

fn header(name: &'static str, value: Value) -> Arrange {
    Box::new(move |provider| provider.edit_header(member(name, value.clone())))
}

fn id_token(edit: fn(String) -> String) -> Arrange {
    Box::new(move |provider| provider.edit_id_token(edit))
}

fn reply(name: &'static str, value: Value) -> Arrange {
    Box::new(move |provider| provider.edit_token_reply(member(name, value.clone())))
}

fn behaviour(change: fn(&mut Behaviour)) -> Arrange {
    Box::new(move |provider| provider.set(change))
}

/// Sets the member of an object; `null` takes it away.
fn member(name: &'static str, value: Value) -> impl FnMut(&mut Map<String, Value>) + Send + 'static {
    move |object| {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.to_owned(), value.clone());
        }
    }
}

fn in_seconds(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() + seconds
}

/// The token with another payload, under the old signature.
fn with_payload(token: &str, payload: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(payload), parts[2])
}

/// Tries each of them with a provider and a home of its own.
fn all_refused(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (what, arrange, code, told) in cases {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        arrange(&provider);
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        if output.code != code || !output.stderr.contains(told) {
            wrong.push(format!("{what}: {output}"));
        }
        nothing_came_of_it(what, &provider, &sandbox, &output);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// No token is handed out or kept, no secret is kept elsewhere, and the terminal is left alone.
fn nothing_came_of_it(what: &str, provider: &Provider, sandbox: &Sandbox, output: &Output) {
    assert_eq!(output.stdout, "", "{what}");
    nothing_moves_the_terminal(what, output);
    for file in sandbox.cache_files() {
        let found = provider.secrets().search().found_in(&std::fs::read(&file).unwrap());
        assert!(found.is_empty(), "{what}: {found:?} in {}", file.display());
    }
}

fn nothing_moves_the_terminal(what: &str, output: &Output) {
    let moves = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(!text.contains(moves), "{what}: {text:?}");
    assert!(!text.contains("panicked") && output.code != 70 && output.code != 101, "{what}: {text}");
    assert!(output.stderr.len() < 4096, "{what}: {} bytes for a person to read", output.stderr.len());
}

#[test]
fn metadata_that_is_another_providers_or_leads_astray_is_refused() {
    const OTHER: &str = "says that it is another one";
    all_refused(vec![
        ("another issuer", metadata("issuer", json!("https://evil.example")), 5, OTHER),
        ("a slash at its end", issuer(|issuer| format!("{issuer}/")), 5, "slash"),
        ("upper case", issuer(str::to_uppercase), 5, OTHER),
        ("no port", issuer(|issuer| issuer.rsplit_once(':').unwrap().0.to_owned()), 5, OTHER),
        ("a tenant to fill in", metadata("issuer", json!("https://login.example/{tenantid}/v2.0")), 5, OTHER),
        ("an issuer that moves the cursor", metadata("issuer", json!("\u{1b}[2J\u{202e}\r\nx")), 5, OTHER),
        ("an issuer of 100 kB", metadata("issuer", json!("x".repeat(100_000))), 5, OTHER),
        ("no issuer", metadata("issuer", Value::Null), 5, "no `issuer`"),
        ("unencrypted keys", metadata("jwks_uri", json!("http://id.example/keys")), 5, "`jwks_uri`"),
        (
            "an unencrypted token endpoint",
            metadata("token_endpoint", json!("http://id.example/t")),
            5,
            "`token_endpoint`",
        ),
        (
            "a script to open",
            metadata("authorization_endpoint", json!("javascript:alert(1)")),
            5,
            "`authorization_endpoint`",
        ),
        (
            "a file to open",
            metadata("authorization_endpoint", json!("file:///etc/passwd")),
            5,
            "`authorization_endpoint`",
        ),
        ("no keys", metadata("jwks_uri", Value::Null), 5, "no `jwks_uri`"),
        ("no token endpoint", metadata("token_endpoint", Value::Null), 5, "no `token_endpoint`"),
    ]);
}

#[test]
fn what_is_no_metadata_is_refused_whatever_its_size_and_shape() {
    use Endpoint::Discovery;
    const NONE: &str = "does not answer as an OpenID provider";
    let body = |body: fn() -> Vec<u8>| -> Arrange {
        Box::new(move |provider| provider.script(Discovery, Answer::of(Response::new(200).body(body()))))
    };
    all_refused(vec![
        ("a web page", answer(Discovery, || Answer::of(Response::html(200, "<p>Welcome!</p>"))), 5, NONE),
        ("nothing there", answer(Discovery, || Answer::of(Response::html(404, "no"))), 5, "404"),
        ("nothing at all", body(Vec::new), 5, NONE),
        ("half of it", body(|| b"{\"issuer\": \"https://".to_vec()), 5, NONE),
        ("a list", body(|| b"[]".to_vec()), 5, NONE),
        ("a member twice", body(|| b"{\"issuer\": \"a\", \"issuer\": \"b\"}".to_vec()), 5, NONE),
        ("5000 levels", body(|| ["{\"a\":".repeat(5000), "}".repeat(5000)].concat().into()), 5, NONE),
        ("5000 lists", body(|| ["[".repeat(5000), "]".repeat(5000)].concat().into()), 5, NONE),
        ("UTF-16", body(|| "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect()), 5, NONE),
        ("8 MiB", body(|| vec![b' '; 8 << 20]), 6, "longer than"),
        ("no end", answer(Discovery, || Answer::endless(Response::new(200).body(vec![b' '; 65536]))), 6, "longer than"),
        (
            "compressed",
            answer(Discovery, || Answer::of(Response::new(200).header("Content-Encoding", "gzip").body(vec![31, 139]))),
            6,
            "compressed",
        ),
    ]);
}

#[test]
fn no_redirect_is_followed() {
    let mut cases: Vec<Case> = Vec::new();
    for endpoint in [Endpoint::Discovery, Endpoint::Keys, Endpoint::Token] {
        for status in [301, 302, 303, 307, 308] {
            cases.push(("a redirect", redirect(endpoint, status), 6, "which is not followed"));
        }
    }
    cases.push((
        "a redirect that moves the cursor",
        answer(Endpoint::Discovery, || {
            Answer::of(Response::new(302).header("Location", "https://evil.example/%1b[2J\u{9b}"))
        }),
        6,
        "which is not followed",
    ));
    all_refused(cases);
}

#[test]
fn keys_that_are_unfit_sign_nothing() {
    const NONE: &str = "the provider lists no key";
    const UNUSABLE: &str = "cannot be used";
    all_refused(vec![
        ("no keys", keys(|set| set["keys"] = json!([])), 4, NONE),
        ("no list", keys(|set| set["keys"] = json!("all")), 1, UNUSABLE),
        ("20 000 keys", keys(|set| set["keys"] = json!(vec![json!({"kty": "EC"}); 20_000])), 1, "20000"),
        ("a web page", answer(Endpoint::Keys, || Answer::of(Response::html(200, "<p>"))), 1, UNUSABLE),
        ("nothing there", answer(Endpoint::Keys, || Answer::of(Response::new(404))), 1, "404"),
        (
            "no end",
            answer(Endpoint::Keys, || Answer::endless(Response::new(200).body(vec![b' '; 65536]))),
            6,
            "longer than",
        ),
        ("its secret part is public", key("d", json!("AAAA")), 4, "its secret part is public"),
        ("a shared secret", keys(|set| set["keys"] = json!([{"kty": "oct", "k": "AAAA", "alg": "HS256"}])), 4, NONE),
        ("a point off the curve", key("x", json!("A".repeat(43))), 4, UNUSABLE),
        ("a short coordinate", key("x", json!("AA")), 4, UNUSABLE),
        ("for encryption", key("use", json!("enc")), 4, NONE),
        ("for other operations", key("key_ops", json!(["encrypt"])), 4, NONE),
        ("for another algorithm", key("alg", json!("RS256")), 4, NONE),
        ("of another curve", key("crv", json!("P-384")), 4, UNUSABLE),
        ("RSA of 512 bits", rsa_key("w".repeat(86), "AQAB"), 4, "RSA of 512 bits"),
        ("RSA of 1024 bits", rsa_key("w".repeat(171), "AQAB"), 4, "RSA of 10"),
        ("RSA of 16384 bits", rsa_key("w".repeat(2731), "AQAB"), 4, UNUSABLE),
        ("RSA whose exponent is 1", rsa_key("w".repeat(342), "AQ"), 4, UNUSABLE),
        ("RSA whose modulus is even", rsa_key(format!("{}A", "w".repeat(341)), "AQAB"), 4, UNUSABLE),
    ]);
}

#[test]
fn an_id_token_that_is_not_signed_by_the_provider_is_refused() {
    const SIGNATURE: &str = "it is not signed with the provider's key";
    const UNREADABLE: &str = "the provider's ID token is not accepted";
    all_refused(vec![
        ("one bit", behaviour(|behaviour| behaviour.signature = Signature::Damaged), 4, SIGNATURE),
        ("another key", behaviour(|behaviour| behaviour.signature = Signature::OtherKey), 4, SIGNATURE),
        ("alg none", behaviour(|behaviour| behaviour.signature = Signature::None), 4, "it is not signed"),
        (
            "the public key as a secret",
            behaviour(|behaviour| behaviour.signature = Signature::HmacOfPublicKey),
            4,
            "`HS256`",
        ),
        ("alg NONE", header("alg", json!("NONE")), 4, "it is not signed"),
        ("no alg", header("alg", Value::Null), 4, "how it is signed"),
        ("alg is a list", header("alg", json!(["ES256"])), 4, "how it is signed"),
        ("an unknown alg", header("alg", json!("Ed25519")), 4, "`Ed25519`"),
        ("an alg that moves the cursor", header("alg", json!("\u{1b}[2J\u{7}")), 4, "which is not accepted"),
        ("another key's name", header("kid", json!("other")), 4, "no key `other`"),
        ("a name that moves the cursor", header("kid", json!("\u{1b}]0;owned\u{7}\n")), 4, "no key"),
        ("what must be understood", header("crit", json!(["exp"])), 4, "critical"),
        ("an access token by its type", header("typ", json!("at+jwt")), 4, "at+jwt"),
        ("a logout token", header("typ", json!("logout+jwt")), 4, "logout+jwt"),
        ("a token in a token", header("cty", json!("JWT")), 4, "nested"),
        ("no signature", id_token(|token| format!("{}.", token.rsplit_once('.').unwrap().0)), 4, UNREADABLE),
        ("two parts", id_token(|token| token.rsplit_once('.').unwrap().0.to_owned()), 4, "2 parts"),
        ("four parts", id_token(|token| format!("{token}.AAAA")), 4, "4 parts"),
        ("encrypted", id_token(|token| format!("{token}.AAAA.AAAA")), 4, "encrypted"),
        ("padding", id_token(|token| format!("{token}=")), 4, UNREADABLE),
        ("a further bit", id_token(|token| format!("{token}A")), 4, UNREADABLE),
        ("the other alphabet", id_token(|token| token.replacen('.', "+/.", 1)), 4, UNREADABLE),
        ("a claim twice", id_token(|token| with_payload(&token, r#"{"sub":"a","sub":"b"}"#)), 4, "payload"),
        ("5000 levels", id_token(|token| with_payload(&token, &"[".repeat(5000))), 4, "payload"),
        (
            "its own key",
            Box::new(|provider| {
                provider.set(|behaviour| behaviour.signature = Signature::OtherKey);
                provider.edit_header(|header| {
                    header.insert("jwk".to_owned(), json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}));
                    header.insert("jku".to_owned(), json!("https://evil.example/keys"));
                });
            }),
            4,
            SIGNATURE,
        ),
        (
            "several keys and no name",
            Box::new(|provider| {
                provider.edit_header(member("kid", Value::Null));
                provider.edit_keys(|set| {
                    let key = set["keys"][0].clone();
                    set["keys"] = json!([key, key]);
                    set["keys"][1]["kid"] = json!("second");
                });
            }),
            4,
            "several of the provider's keys fit",
        ),
    ]);
}

#[test]
fn an_id_token_of_another_issuer_client_or_time_is_refused() {
    const AUDIENCE: &str = "it is not for this client, `kubernetes`";
    const PARTY: &str = "(`azp`)";
    all_refused(vec![
        ("another issuer", claim("iss", json!("https://evil.example")), 4, "its issuer is not"),
        ("issuers", claim("iss", json!(["https://evil.example"])), 4, "`iss`"),
        ("no issuer", claim("iss", Value::Null), 4, "`iss`"),
        ("an issuer that moves the cursor", claim("iss", json!("https://a/\u{1b}[2J\u{202e}\n")), 4, "is not accepted"),
        ("another client of the same provider", claim("aud", json!("dashboard")), 4, AUDIENCE),
        ("other case", claim("aud", json!("Kubernetes")), 4, AUDIENCE),
        ("nobody", claim("aud", json!([])), 4, AUDIENCE),
        ("no audience", claim("aud", Value::Null), 4, AUDIENCE),
        ("a number", claim("aud", json!(7)), 4, "`aud`"),
        ("an object", claim("aud", json!({"kubernetes": true})), 4, "`aud`"),
        ("somebody else too", claim("aud", json!(["kubernetes", "other"])), 4, PARTY),
        ("issued to another", claim("azp", json!("other")), 4, PARTY),
        ("ended", claim("exp", json!(in_seconds(-61))), 4, "it ended at"),
        ("no end", claim("exp", Value::Null), 4, "`exp`"),
        ("an end in words", claim("exp", json!("tomorrow")), 4, "`exp`"),
        ("before all time", claim("exp", json!(-1)), 4, "it ended at"),
        ("an end beyond all numbers", claim("exp", json!(1e300)), 4, "`exp`"),
        ("an end of 64 bits", claim("exp", json!(u64::MAX)), 4, "`exp`"),
        ("issued at no time", claim("iat", Value::Null), 4, "`iat`"),
        ("issued tomorrow", claim("iat", json!(in_seconds(86_400))), 4, "`iat`"),
        ("issued before 1970", claim("iat", json!(-1)), 4, "`iat`"),
        ("good from tomorrow", claim("nbf", json!(in_seconds(86_400))), 4, "`nbf`"),
        ("another sign-in's", claim("nonce", json!("another")), 4, "`nonce`"),
        ("no sign-in's", claim("nonce", Value::Null), 4, "`nonce`"),
        ("nobody", claim("sub", Value::Null), 4, "`sub`"),
        ("an empty subject", claim("sub", json!("")), 4, "`sub`"),
        ("a number for a subject", claim("sub", json!(7)), 4, "`sub`"),
        ("NUL in the subject", claim("sub", json!("a\0b")), 4, "`sub`"),
        ("a subject of 10 kB", claim("sub", json!("x".repeat(10_000))), 4, "`sub`"),
        ("another access token's", claim("at_hash", json!("AAAA")), 4, "`at_hash`"),
        (
            "the access token in its place",
            Box::new(|provider| {
                provider.set(|behaviour| behaviour.access_tokens = AccessTokens::Jwt);
                provider.edit_token_reply(|reply| reply["id_token"] = reply["access_token"].clone());
            }),
            4,
            "the provider's ID token is not accepted",
        ),
    ]);
}

#[test]
fn a_token_reply_that_cannot_be_used_is_told_and_comes_to_nothing() {
    use Endpoint::Token;
    let rude = || Answer::error("access_denied", "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}no\r\nway");
    all_refused(vec![
        ("a web page", answer(Token, || Answer::of(Response::html(400, "<h1>Bad</h1>"))), 1, "it is a web page"),
        (
            "a web page that says yes",
            answer(Token, || Answer::of(Response::html(200, "<h1>Good</h1>"))),
            1,
            "it is a web page",
        ),
        ("nothing", answer(Token, || Answer::of(Response::new(200))), 1, "it is empty"),
        ("no end", answer(Token, || Answer::endless(Response::new(200).body(vec![b' '; 65536]))), 6, "longer than"),
        ("no ID token", reply("id_token", Value::Null), 4, "its reply is without an ID token"),
        ("a number for a token", reply("id_token", json!(7)), 4, "its reply is without an ID token"),
        ("a header in a token", reply("id_token", json!("eyJ\r\nX-Evil: yes")), 1, "characters that no token has"),
        ("mac", reply("token_type", json!("mac")), 1, "`mac`"),
        ("DPoP", reply("token_type", json!("DPoP")), 1, "`DPoP`"),
        ("a type that moves the cursor", reply("token_type", json!("\u{1b}[2J")), 1, "bearer tokens only"),
        ("a description that moves the cursor", answer(Token, rude), 4, "access_denied"),
        (
            "a description of 200 kB",
            answer(Token, || Answer::error("access_denied", &"no ".repeat(70_000))),
            4,
            "access_denied",
        ),
        (
            "a description of 2 MB",
            answer(Token, || Answer::error("access_denied", &"no ".repeat(700_000))),
            6,
            "longer than",
        ),
        (
            "an error that moves the cursor",
            answer(Token, || Answer::error("\u{1b}[2J\n", "no")),
            4,
            "the provider gave no token for the code",
        ),
        (
            "busy for an hour",
            answer(Token, || Answer::of(Response::json(429, &json!({})).header("Retry-After", "3600"))),
            6,
            "asks to be left alone",
        ),
        (
            "down for an hour",
            answer(Token, || Answer::of(Response::json(503, &json!({})).header("Retry-After", "3600"))),
            6,
            "asks to be left alone",
        ),
        ("the line goes dead", answer(Token, Answer::lost), 6, "no answer from"),
    ]);
}

#[test]
fn a_device_code_that_leads_astray_or_has_ended_is_refused() {
    let cases: Vec<(&str, Value, i32, &str)> = vec![
        ("an unencrypted address", json!({"verification_uri": "http://id.example/device"}), 1, "`verification_uri`"),
        ("a script", json!({"verification_uri": "javascript:alert(1)"}), 1, "`verification_uri`"),
        (
            "a file to open",
            json!({"verification_uri_complete": "file:///etc/passwd"}),
            1,
            "`verification_uri_complete`",
        ),
        ("a code that moves the cursor", json!({"user_code": "\u{1b}[2JABCD"}), 1, "none that a person could type"),
        ("a code of 10 kB", json!({"user_code": "A".repeat(10_000)}), 1, "none that a person could type"),
        ("an end that has come", json!({"expires_in": 0}), 4, "was not entered in time"),
        ("no address", json!({"verification_uri": null}), 1, "`verification_uri` is missing"),
    ];
    for (what, changes, code, told) in cases {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        provider.edit_discovery(|document| {
            let endpoint = document["token_endpoint"].as_str().unwrap().replace("/token", "/device-authorization");
            document.insert("device_authorization_endpoint".to_owned(), json!(endpoint));
        });
        let mut answer = json!({
            "device_code": "a-device-code-of-a-test", "user_code": "ABCD-EFGH",
            "verification_uri": format!("{}/device", provider.issuer()), "expires_in": 600, "interval": 1,
        });
        for (name, value) in changes.as_object().unwrap() {
            answer[name.as_str()] = value.clone();
        }
        provider.script(Endpoint::Device, Answer::json(200, &answer));
        let output =
            sandbox.get_token(&provider).args(["--flow=device", "--interactive=always"]).exec_info("v1", true).run();
        assert!(output.code == code && output.stderr.contains(told), "{what}: {output}");
        nothing_came_of_it(what, &provider, &sandbox, &output);
        assert_eq!(sandbox.opened().is_empty(), code == 1, "{what}");
    }
}

#[test]
fn oddities_of_real_providers_are_accepted() {
    let cases: Vec<(&str, Arrange)> = vec![
        ("bearer in lower case", reply("token_type", json!("bearer"))),
        ("bearer in upper case", reply("token_type", json!("BEARER"))),
        ("no token type", reply("token_type", Value::Null)),
        ("no access token", reply("access_token", Value::Null)),
        ("fewer scopes than asked for", reply("scope", json!("openid"))),
        ("no refresh token", reply("refresh_token", Value::Null)),
        ("email_verified is a text", claim("email_verified", json!("true"))),
        ("updated_at is a date", claim("updated_at", json!("2026-01-01T00:00:00.000Z"))),
        ("a fraction of a second", claim("exp", json!(3600.5 + f64::from(u32::try_from(in_seconds(0)).unwrap())))),
        ("the audience twice", claim("aud", json!(["kubernetes", "kubernetes"]))),
        ("a further audience, issued to us", {
            Box::new(|provider| {
                provider.edit_claims(|claims| {
                    claims.insert("aud".to_owned(), json!(["kubernetes", "other"]));
                    claims.insert("azp".to_owned(), json!("kubernetes"));
                });
            })
        }),
        ("good from in half a minute, by a clock that is ahead", claim("nbf", json!(in_seconds(30)))),
        ("no name of the key, and one key", header("kid", Value::Null)),
        ("no type", header("typ", Value::Null)),
        ("where keys are said to be", header("x5u", json!("https://evil.example/keys"))),
        ("PKCE is not listed", metadata("code_challenge_methods_supported", Value::Null)),
        ("only plain PKCE is listed", metadata("code_challenge_methods_supported", json!(["plain"]))),
        ("algorithms are not listed", metadata("id_token_signing_alg_values_supported", Value::Null)),
        ("odd members", metadata("scopes_supported", json!({"openid": [1, null]}))),
        (
            "an odd key among the keys",
            keys(|set| {
                let key = set["keys"][0].clone();
                set["keys"] = json!([{"kty": "unknown"}, 7, key]);
            }),
        ),
        ("an odd type of content", {
            Box::new(|provider| {
                let keep = json!({
                    "issuer": provider.issuer(),
                    "authorization_endpoint": format!("{}/authorize", provider.issuer()),
                    "token_endpoint": format!("{}/token", provider.issuer()),
                    "jwks_uri": format!("{}/keys", provider.issuer()),
                });
                provider.script(Endpoint::Discovery, Answer::of(Response::html(200, keep.to_string())));
            })
        }),
    ];
    let mut wrong = Vec::new();
    for (what, arrange) in cases {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        arrange(&provider);
        let output = sandbox.get_token(&provider).exec_info("v1", true).run();
        if output.code != 0 {
            wrong.push(format!("{what}: {output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn an_end_in_ten_thousand_years_is_told_as_thirty_days() {
    for end in [json!(32_503_680_000_i64), json!(253_402_300_800_i64)] {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        claim("exp", end)(&provider);
        let answer = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded().json();
        let told: jiff::Timestamp = answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
        assert!(told.as_second() <= in_seconds(30 * 86_400), "{told}");
    }
}

#[test]
fn what_a_person_is_called_moves_no_terminal_and_no_page() {
    const RUDE: &str = "Jane\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\r\n<script>alert(1)</script>";
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    provider.edit_claims(|claims| {
        for name in ["name", "email", "preferred_username"] {
            claims.insert(name.to_owned(), json!(RUDE));
        }
        claims.insert("groups".to_owned(), json!([RUDE, RUDE]));
    });
    let signed_in = sandbox.login(&provider).run().succeeded();
    assert!(signed_in.stderr.contains("Jane"), "{signed_in}");
    nothing_moves_the_terminal("login", &signed_in);
    let page = sandbox.visit();
    assert!(page.body.contains("Jane") && !page.body.contains("<script>alert"), "{}", page.body);
    let status = sandbox.command(["status"]).args(sandbox.flags(&provider)).run().succeeded();
    assert!(status.stdout.contains("Jane"), "{status}");
    nothing_moves_the_terminal("status", &status);
}

#[test]
fn keys_that_were_changed_are_fetched_once_more_also_under_the_same_name() {
    let changes: [fn(&Provider); 2] = [Provider::rotate_keys, Provider::rotate_keys_under_the_same_id];
    for change in changes {
        let provider = Provider::start();
        let sandbox = Sandbox::new(BINARY);
        provider.set(|behaviour| behaviour.id_token_lifetime = 60);
        let _ = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded();
        sandbox.visits();
        provider.forget_requests();
        change(&provider);
        let _ = sandbox.get_token(&provider).exec_info("v1", false).run().succeeded();
        assert_eq!(provider.requests(Endpoint::Keys).len(), 1);
        assert_eq!(provider.requests(Endpoint::Discovery).len(), 0);
        assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
    }
}

#[test]
fn a_provider_that_signs_with_a_key_it_never_lists_has_its_keys_fetched_no_more_than_once_more() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    provider.set(|behaviour| behaviour.signature = Signature::OtherKey);
    // Each sign-in asks the provider anew; only the first fetches the keys again for the token's sake.
    for fetched in [2, 3] {
        assert_eq!(sandbox.login(&provider).run().code, 4);
        assert_eq!(provider.requests(Endpoint::Keys).len(), fetched);
    }
}

#[test]
fn a_refresh_that_brings_another_persons_token_is_refused_and_opens_no_browser() {
    let provider = Provider::start();
    let sandbox = Sandbox::new(BINARY);
    provider.set(|behaviour| behaviour.id_token_lifetime = 60);
    let _ = sandbox.get_token(&provider).exec_info("v1", true).run().succeeded();
    provider.edit_claims(member("sub", json!("somebody-else")));
    let output = sandbox.get_token(&provider).exec_info("v1", true).run();
    assert_eq!(output.code, 4, "{output}");
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("it is another account's than before"), "{output}");
    assert_eq!(sandbox.opened().len(), 1, "only the first sign-in");
}
