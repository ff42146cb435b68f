//! The flags of Headlamp's server, as far as a chart sets them, and the environment of the stand-in.
//!
//! Flags are as Go's `flag` package has them (`-flag=value`, `--flag value`, switches), each beats
//! its variable `HEADLAMP_CONFIG_…`, and one that the version does not have yet ends the program, as
//! the chart 0.40.1 with its `-session-ttl` made 0.40.1 end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::authority::Certificate;
use crate::headlamp::{Oidc, StandInOptions, Version};

/// What the program was started with.
pub struct Flags {
    /// What it stands for.
    pub options: StandInOptions,
    /// Where it listens.
    pub port: u16,
}

impl Flags {
    /// From the arguments, without the program's name, and the environment.
    ///
    /// # Errors
    /// What Headlamp would print before it ends with 1.
    pub fn read(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut options = StandInOptions::default();
        if let Some(version) = environment("STAND_IN_VERSION") {
            options.version = version.parse()?;
        }
        options.build = environment("STAND_IN_BUILD").unwrap_or(options.build);
        options.chunks = number(&environment, "STAND_IN_CHUNKS", options.chunks)?;
        options.chunk_size = number(&environment, "STAND_IN_CHUNK_SIZE", options.chunk_size)?;
        options.delay = Duration::from_millis(number(&environment, "STAND_IN_DELAY_MS", 0)?);

        let given = given(arguments, options.version)?;
        let value = |name: &str| {
            let variable = format!("HEADLAMP_CONFIG_{}", name.to_ascii_uppercase().replace('-', "_"));
            given.get(name).cloned().or_else(|| environment(&variable)).filter(|value| !value.is_empty())
        };
        options.base_url = value("base-url").unwrap_or_default();
        options.context_name = value("in-cluster-context-name").unwrap_or(options.context_name);
        options.oidc =
            value("oidc-idp-issuer-url").zip(value("oidc-client-id")).map(|(issuer, client)| Oidc { issuer, client });
        let read = |path: String| std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
        if let Some((certificate, key)) = value("tls-cert-path").zip(value("tls-key-path")) {
            options.tls = Some(Certificate::from_pem(&read(certificate)?, &read(key)?));
        }
        let port = value("port").map_or(Ok(4466), |port| port.parse().map_err(|_| format!("`{port}` is no port")))?;
        Ok(Self { options, port })
    }
}

/// Whether this version ends at once with these arguments.
pub fn refuses(arguments: impl IntoIterator<Item = String>, version: Version) -> bool {
    given(arguments, version).is_err()
}

fn number<T: std::str::FromStr>(
    environment: &impl Fn(&str) -> Option<String>,
    name: &str,
    usual: T,
) -> Result<T, String> {
    environment(name).map_or(Ok(usual), |text| text.parse().map_err(|_| format!("{name}: `{text}` is no number")))
}

fn given(arguments: impl IntoIterator<Item = String>, version: Version) -> Result<BTreeMap<String, String>, String> {
    let mut given = BTreeMap::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { break };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        let known = FLAGS.iter().find(|(known, since, _)| *known == name && version >= Version(0, *since, 0));
        let (_, _, kind) = known.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match (value, kind) {
            (Some(value), _) => value,
            (None, Kind::Switch) => "true".to_owned(),
            (None, Kind::Value) => arguments.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        given.insert(name.to_owned(), value);
    }
    Ok(given)
}

enum Kind {
    Switch,
    Value,
}

/// Each flag, and the minor version that brought it.
const FLAGS: &[(&str, u16, Kind)] = &[
    ("in-cluster", 0, Kind::Switch),
    ("in-cluster-context-name", 40, Kind::Value),
    ("base-url", 0, Kind::Value),
    ("port", 0, Kind::Value),
    ("listen-addr", 0, Kind::Value),
    ("html-static-dir", 0, Kind::Value),
    ("plugins-dir", 0, Kind::Value),
    ("watch-plugins-changes", 31, Kind::Switch),
    ("enable-helm", 37, Kind::Switch),
    ("log-level", 40, Kind::Value),
    ("session-ttl", 41, Kind::Value),
    ("oidc-client-id", 0, Kind::Value),
    ("oidc-client-secret", 0, Kind::Value),
    ("oidc-idp-issuer-url", 0, Kind::Value),
    ("oidc-scopes", 0, Kind::Value),
    ("oidc-validator-client-id", 31, Kind::Value),
    ("oidc-validator-idp-issuer-url", 31, Kind::Value),
    ("oidc-use-access-token", 31, Kind::Switch),
    ("oidc-callback-url", 35, Kind::Value),
    ("oidc-use-pkce", 37, Kind::Switch),
    ("oidc-use-cookie", 41, Kind::Switch),
    ("tls-cert-path", 36, Kind::Value),
    ("tls-key-path", 36, Kind::Value),
];
