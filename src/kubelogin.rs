//! Entries that were written for kubelogin (`kubectl oidc-login get-token`): its flags, and what
//! becomes of each. The table in the README is checked against this one.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// kubelogin's arguments in our spelling.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) arguments: Vec<OsString>,
    /// A flag that only kubelogin has was there, so its defaults hold.
    pub(crate) kubelogin: bool,
    /// What was accepted and is not honoured, one line each.
    pub(crate) notes: Vec<String>,
}

/// What becomes of a flag of kubelogin's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Treatment {
    /// Ours under another name.
    Renamed(&'static str),
    /// Ours under another name, and may hold several values, parted by commas.
    List(&'static str),
    /// A switch of ours under another name.
    Switch(&'static str),
    /// A value that is translated too.
    Translated(fn(&str) -> Result<Vec<String>>),
    /// Accepted and not honoured, with the reason; it takes a value.
    NotedValue(&'static str),
    /// Accepted and not honoured, with the reason; it is a switch.
    NotedSwitch(&'static str),
}

/// Every flag of kubelogin's `get-token` that is not ours under the same name.
pub(crate) const FLAGS: &[(&str, Treatment)] = &[
    ("oidc-issuer-url", Treatment::Renamed("issuer-url")),
    ("oidc-client-id", Treatment::Renamed("client-id")),
    ("oidc-client-secret", Treatment::Renamed("client-secret")),
    ("oidc-redirect-url", Treatment::Renamed("redirect-url")),
    ("oidc-extra-scope", Treatment::List("scope")),
    ("oidc-use-access-token", Treatment::Translated(use_access_token)),
    ("oidc-request-header", Treatment::List("request-header")),
    ("oidc-auth-request-extra-params", Treatment::List("auth-param")),
    ("oidc-pkce-method", Treatment::NotedValue("PKCE with S256 is always used")),
    ("oidc-use-pkce", Treatment::NotedSwitch("PKCE with S256 is always used")),
    ("grant-type", Treatment::Translated(grant_type)),
    ("skip-open-browser", Treatment::Switch("no-browser")),
    ("authentication-timeout-sec", Treatment::Renamed("timeout")),
    ("local-server-cert", Treatment::Renamed("callback-certificate")),
    ("local-server-key", Treatment::Renamed("callback-key")),
    ("token-cache-dir", Treatment::Renamed("cache-dir")),
    ("token-cache-storage", Treatment::Translated(token_cache_storage)),
    (
        "tls-renegotiation-once",
        Treatment::NotedSwitch("TLS renegotiation is not supported: it is gone from TLS 1.3 and was never safe before"),
    ),
    (
        "tls-renegotiation-freely",
        Treatment::NotedSwitch("TLS renegotiation is not supported: it is gone from TLS 1.3 and was never safe before"),
    ),
    ("v", Treatment::Renamed("verbose")),
    ("vmodule", Treatment::NotedValue(LOGGING)),
    ("log_backtrace_at", Treatment::NotedValue(LOGGING)),
    ("log_dir", Treatment::NotedValue(LOGGING)),
    ("log_file", Treatment::NotedValue(LOGGING)),
    ("log_file_max_size", Treatment::NotedValue(LOGGING)),
    ("stderrthreshold", Treatment::NotedValue(LOGGING)),
    ("add_dir_header", Treatment::NotedSwitch(LOGGING)),
    ("alsologtostderr", Treatment::NotedSwitch(LOGGING)),
    ("logtostderr", Treatment::NotedSwitch(LOGGING)),
    ("one_output", Treatment::NotedSwitch(LOGGING)),
    ("skip_headers", Treatment::NotedSwitch(LOGGING)),
    ("skip_log_headers", Treatment::NotedSwitch(LOGGING)),
];

/// Flags of kubelogin's that are ours too, but hold several values there, parted by commas.
const LISTS: &[&str] = &["listen-address", "certificate-authority", "certificate-authority-data"];

/// Puts the arguments of a `get-token` into our spelling. Without a flag of kubelogin's they stay
/// as they are.
pub(crate) fn translate(arguments: &[OsString]) -> Result<Translated> {
    let theirs = arguments.iter().any(|word| word.to_str().is_some_and(|word| lookup(word).is_some()));
    if !theirs {
        return Ok(Translated { arguments: arguments.to_vec(), ..Translated::default() });
    }
    let mut translated = Translated::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            translated.arguments.push(word.clone());
            continue;
        };
        // Its `-v` takes its level as the next word; ours wants `-v=LEVEL`.
        if text == "-v"
            && let Some(level) =
                words.clone().next().filter(|next| next.to_str().is_some_and(|next| next.parse::<u8>().is_ok()))
        {
            translated.arguments.push(format!("-v={}", level.to_string_lossy()).into());
            words.next();
            continue;
        }
        let Some((name, treatment, inline)) = lookup(text) else {
            let (flag, inline) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value)));
            let list = LISTS.contains(&flag.trim_start_matches('-'));
            match inline.or_else(|| words.clone().next().filter(|_| list)?.to_str()) {
                Some(values) if list => {
                    translated.arguments.extend(values.split(',').map(|value| format!("{flag}={value}").into()));
                    if inline.is_none() {
                        words.next();
                    }
                }
                _ => translated.arguments.push(word.clone()),
            }
            continue;
        };
        translated.kubelogin |= name.starts_with("oidc-");
        let value = match (treatment, inline) {
            (_, Some(value)) => value.to_owned(),
            (Treatment::Switch(_) | Treatment::NotedSwitch(_), None) => "true".to_owned(),
            (Treatment::Translated(_), None) if name == "oidc-use-access-token" => "true".to_owned(),
            (_, None) => words
                .next()
                .and_then(|value| value.to_str())
                .ok_or_else(|| Error::usage(format!("a value is required for `--{name}`")))?
                .to_owned(),
        };
        apply(&mut translated, name, treatment, &value)?;
    }
    Ok(translated)
}

fn apply(translated: &mut Translated, name: &str, treatment: Treatment, value: &str) -> Result<()> {
    let assigned = |flag: &str, value: &str| OsString::from(format!("--{flag}={value}"));
    match treatment {
        Treatment::Renamed(flag) | Treatment::Switch(flag) => translated.arguments.push(assigned(flag, value)),
        Treatment::List(flag) => translated.arguments.extend(value.split(',').map(|value| assigned(flag, value))),
        Treatment::Translated(translate) => {
            translated.arguments.extend(translate(value)?.into_iter().map(OsString::from));
        }
        Treatment::NotedValue(_) if name == "oidc-pkce-method" && matches!(value, "auto" | "S256") => {}
        Treatment::NotedSwitch(_) if name == "oidc-use-pkce" => {}
        Treatment::NotedValue(_) | Treatment::NotedSwitch(_) if value == "false" => {}
        Treatment::NotedValue(reason) | Treatment::NotedSwitch(reason) => {
            translated.notes.push(format!("`--{name}` has no effect: {reason}"));
        }
    }
    Ok(())
}

/// The flag of kubelogin's that this word is, with its value where the word holds it.
fn lookup(word: &str) -> Option<(&'static str, Treatment, Option<&str>)> {
    let (flag, value) = match word.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (word, None),
    };
    let name = flag.strip_prefix("--")?;
    FLAGS.iter().find(|(known, _)| *known == name).map(|(known, treatment)| (*known, *treatment, value))
}

fn use_access_token(value: &str) -> Result<Vec<String>> {
    match value {
        "true" => Ok(vec!["--token-type=access".to_owned()]),
        "false" => Ok(Vec::new()),
        _ => Err(Error::usage(format!("`--oidc-use-access-token` is true or false, not `{value}`"))),
    }
}

fn grant_type(value: &str) -> Result<Vec<String>> {
    let flow = match value {
        "auto" => "auto",
        "authcode" => "browser",
        "authcode-keyboard" => "paste",
        "password" => "password",
        "device-code" => "device",
        "client-credentials" => "client-credentials",
        _ => {
            return Err(Error::usage(format!(
                "`--grant-type` is auto, authcode, authcode-keyboard, password, device-code or client-credentials, not `{value}`"
            )));
        }
    };
    Ok(vec![format!("--flow={flow}")])
}

fn token_cache_storage(value: &str) -> Result<Vec<String>> {
    match value {
        "disk" => Ok(vec!["--token-storage=file".to_owned()]),
        "none" => Ok(vec!["--token-storage=none".to_owned()]),
        "keyring" => Err(Error::usage("`--token-cache-storage=keyring` is not supported yet")
            .hint("use `--token-storage=file`, which only you can read, or `--token-storage=none`")),
        _ => Err(Error::usage(format!("`--token-cache-storage` is disk, keyring or none, not `{value}`"))),
    }
}

const LOGGING: &str = "`-v` and `-v=2` tell what is done, on stderr";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(input: &str, expected: &str) {
        let arguments: Vec<OsString> = input.split(' ').map(OsString::from).collect();
        let translated = translate(&arguments).unwrap();
        let words: Vec<&str> = translated.arguments.iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn our_own_spelling_passes_untouched() {
        check(
            "--issuer-url=https://a --scope b,c --listen-address=a,b",
            "--issuer-url=https://a --scope b,c --listen-address=a,b",
        );
    }

    #[test]
    fn each_of_kubelogins_flags_becomes_ours() {
        check("--oidc-issuer-url=https://a --oidc-client-id b", "--issuer-url=https://a --client-id=b");
        check("--oidc-extra-scope=email,groups --oidc-extra-scope=x", "--scope=email --scope=groups --scope=x");
        check("--oidc-use-access-token --grant-type device-code", "--token-type=access --flow=device");
        check("--oidc-use-access-token=false --oidc-use-pkce", "");
        check("--authentication-timeout-sec=60 --skip-open-browser", "--timeout=60 --no-browser=true");
        check(
            "--oidc-client-id=a --listen-address=127.0.0.1:1,127.0.0.1:2",
            "--client-id=a --listen-address=127.0.0.1:1 --listen-address=127.0.0.1:2",
        );
        check(
            "--oidc-client-id=a --listen-address 127.0.0.1:1,127.0.0.1:2",
            "--client-id=a --listen-address=127.0.0.1:1 --listen-address=127.0.0.1:2",
        );
        check("--oidc-auth-request-extra-params=a=1,b=2", "--auth-param=a=1 --auth-param=b=2");
        check("--oidc-client-id=a -v 3 --v=1", "--client-id=a -v=3 --verbose=1");
        check("--token-cache-storage=none --token-cache-dir=~/x", "--token-storage=none --cache-dir=~/x");
    }

    #[test]
    fn only_its_own_spelling_switches_to_its_defaults() {
        assert!(translate(&["--oidc-client-id=a".into()]).unwrap().kubelogin);
        assert!(!translate(&["--grant-type=authcode".into()]).unwrap().kubelogin);
    }

    #[test]
    fn what_is_not_honoured_is_said() {
        let notes = |word: &str| translate(&[word.into()]).unwrap().notes;
        assert_eq!(
            notes("--oidc-pkce-method=no"),
            ["`--oidc-pkce-method` has no effect: PKCE with S256 is always used"]
        );
        assert!(notes("--oidc-pkce-method=S256").is_empty());
        assert_eq!(notes("--tls-renegotiation-once").len(), 1);
        assert!(notes("--tls-renegotiation-once=false").is_empty());
    }

    #[test]
    fn a_missing_value_and_an_unknown_grant_are_named() {
        assert!(translate(&["--oidc-client-id".into()]).unwrap_err().message().contains("--oidc-client-id"));
        assert!(translate(&["--grant-type=magic".into()]).unwrap_err().message().contains("magic"));
    }
}
