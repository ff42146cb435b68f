//! kubectl's own flags on where a cluster is and whom it is reached as, laid over the kubeconfig by
//! client-go's rules.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use crate::error::{Error, Result};
use crate::kubeconfig::{CertificateAuthority, ClusterEntry, KubeconfigArguments};
use crate::kubeconfig_user::{BearerSource, Impersonation, UserEntry};
use crate::secret::Secret;

/// Which cluster, and as whom, in kubectl's own words. An empty value is none.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArguments {
    #[command(flatten)]
    pub(crate) kubeconfig: KubeconfigArguments,
    /// The API server's address, in place of the cluster entry's
    #[arg(short, long, value_name = "URL", help_heading = "Kubeconfig")]
    server: Option<String>,
    /// The bearer token for the API server, in place of the user's credential
    #[arg(long, value_name = "TOKEN", help_heading = "Kubeconfig")]
    token: Option<Secret>,
    /// The file with the CA of the API server's certificate
    #[arg(long, value_name = "FILE", help_heading = "Kubeconfig")]
    certificate_authority: Option<PathBuf>,
    /// Trust whoever answers as the API server: anyone on the way can take your credential
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Kubeconfig")]
    insecure_skip_tls_verify: Option<bool>,
    /// The name that the API server's certificate is for, where it is not the address's
    #[arg(long, value_name = "NAME", help_heading = "Kubeconfig")]
    tls_server_name: Option<String>,
    /// The user to act as
    #[arg(long = "as", value_name = "USER", help_heading = "Kubeconfig")]
    impersonate: Option<String>,
    /// A group to act as a member of (repeatable)
    #[arg(long = "as-group", value_name = "GROUP", help_heading = "Kubeconfig")]
    impersonate_groups: Vec<String>,
    /// The uid to act as
    #[arg(long = "as-uid", value_name = "UID", help_heading = "Kubeconfig")]
    impersonate_uid: Option<String>,
    /// The namespace that Headlamp is in [default: wherever it is found]
    #[arg(short, long, value_name = "NAME", help_heading = "Kubeconfig")]
    pub(crate) namespace: Option<String>,
    /// How long one question to the API server may take, in seconds or as 90s, 5m; 0 is for ever
    #[arg(long, value_name = "TIME", help_heading = "Kubeconfig")]
    request_timeout: Option<String>,
}

/// What is laid over a kubeconfig's cluster and user.
#[derive(Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) server: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) certificate_authority: Option<PathBuf>,
    pub(crate) insecure_skip_tls_verify: bool,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) impersonate: Impersonation,
    pub(crate) namespace: Option<String>,
}

impl ClusterArguments {
    pub(crate) fn overrides(&self) -> Overrides {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let path = self.certificate_authority.clone();
        Overrides {
            server: given(&self.server),
            token: self.token.clone().filter(|token| !token.is_empty()),
            certificate_authority: path.map(|path| std::path::absolute(&path).unwrap_or(path)),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify.unwrap_or_default(),
            tls_server_name: given(&self.tls_server_name),
            impersonate: Impersonation {
                user: given(&self.impersonate),
                groups: self.impersonate_groups.iter().filter(|group| !group.is_empty()).cloned().collect(),
                uid: given(&self.impersonate_uid),
                extra: BTreeMap::new(),
            },
            namespace: given(&self.namespace),
        }
    }

    /// `None`: as long as it takes.
    pub(crate) fn request_timeout(&self) -> Result<Option<Duration>> {
        let text = self.request_timeout.as_deref().filter(|text| !text.is_empty());
        let span = text.map(|text| duration("--request-timeout", text)).transpose()?;
        Ok(span.filter(|span| !span.is_zero()))
    }
}

/// A flag's length of time, as kubectl takes it: seconds, or a number with its unit.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration> {
    let seconds = text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let unit = text.ends_with(|last: char| last.is_ascii_lowercase());
    let spelled =
        || text.parse::<SignedDuration>().ok().filter(|_| unit).and_then(|span| Duration::try_from(span).ok());
    seconds.or_else(spelled).ok_or_else(|| {
        Error::usage(format!("`{flag}` is no length of time: `{text}`"))
            .hint("write seconds, or a number with its unit: `30`, `30s`, `2m`, `1h`")
    })
}

impl Overrides {
    /// `--certificate-authority` and `--insecure-skip-tls-verify` replace whatever the entry says of
    /// trust; a new server does not keep the old one's TLS name.
    pub(crate) fn over_cluster(&self, mut cluster: ClusterEntry) -> ClusterEntry {
        if let Some(server) = &self.server {
            cluster.server.clone_from(server);
            if cluster.name.is_empty() {
                cluster.name.clone_from(server);
            }
        }
        if self.server.is_some() || self.tls_server_name.is_some() {
            cluster.tls_server_name.clone_from(&self.tls_server_name);
        }
        if self.certificate_authority.is_some() || self.insecure_skip_tls_verify {
            cluster.certificate_authority = self.certificate_authority.clone().map(CertificateAuthority::File);
            cluster.insecure_skip_tls_verify = self.insecure_skip_tls_verify;
        }
        cluster
    }

    /// `--token` takes the place of every other bearer; a client certificate stays beside it.
    pub(crate) fn over_user(&self, mut user: UserEntry) -> Result<UserEntry> {
        if let Some(token) = &self.token {
            user.bearer = BearerSource::Token(token.clone());
        }
        user.impersonate = self.impersonate.clone().over(user.impersonate);
        user.impersonate.check()?;
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use clap::{Command, FromArgMatches};

    use super::*;

    fn arguments(words: &str) -> ClusterArguments {
        let command = ClusterArguments::augment_args(Command::new("open")).no_binary_name(true);
        let matches = command.try_get_matches_from(words.split_whitespace()).unwrap();
        ClusterArguments::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn every_flag_has_one_line_of_help() {
        for argument in ClusterArguments::augment_args(Command::new("open")).get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !help.is_empty() && !help.contains('\n') && !help.ends_with('.'),
                "{:?}: {help}",
                argument.get_long()
            );
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_not_in_its_debug_output() {
        let arguments = arguments("--token hunter2");
        assert!(!format!("{arguments:?}").contains("hunter2"));
        assert_eq!(arguments.overrides().token, Some(Secret::new("hunter2")));
    }

    #[test]
    fn empty_values_are_none() {
        let overrides = arguments("--server= --token= --as= --as-group= --namespace= --request-timeout=");
        let overrides = overrides.overrides();
        assert_eq!((overrides.server, overrides.token), (None, None));
        assert_eq!((overrides.impersonate, overrides.namespace), (Impersonation::default(), None));
    }

    #[test]
    fn trust_that_a_flag_gives_replaces_the_entrys() {
        let entry = ClusterEntry {
            server: "https://a".into(),
            certificate_authority: Some(CertificateAuthority::Data("QUJD".into())),
            tls_server_name: Some("a.internal".into()),
            ..ClusterEntry::default()
        };
        let insecure = arguments("--insecure-skip-tls-verify").overrides().over_cluster(entry.clone());
        assert_eq!((insecure.certificate_authority, insecure.insecure_skip_tls_verify), (None, true));
        assert_eq!(insecure.tls_server_name.as_deref(), Some("a.internal"));
        let file = arguments("--certificate-authority /ca").overrides();
        let file = file.over_cluster(ClusterEntry { insecure_skip_tls_verify: true, ..entry.clone() });
        assert_eq!(file.certificate_authority, Some(CertificateAuthority::File("/ca".into())));
        assert!(!file.insecure_skip_tls_verify);
        let moved = arguments("-s https://b").overrides().over_cluster(entry.clone());
        assert_eq!((moved.server.as_str(), moved.tls_server_name), ("https://b", None));
        assert_eq!(arguments("").overrides().over_cluster(entry.clone()), entry);
    }

    #[test]
    fn a_group_needs_a_user() {
        let over = |words: &str| arguments(words).overrides().over_user(UserEntry::anonymous());
        assert!(over("--as-group dev").is_err_and(|error| error.to_string().contains("--as <user>")));
        let user = over("--as jane --as-group dev --as-group ops --as-uid 7").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((user.impersonate.user.as_deref(), user.impersonate.uid.as_deref()), (Some("jane"), Some("7")));
        assert_eq!(user.impersonate.groups, ["dev", "ops"]);
    }

    #[test]
    fn time_outs_are_spelled_as_for_kubectl() {
        let timeout = |text: &str| arguments(&format!("--request-timeout={text}")).request_timeout();
        let seconds = |text: &str| timeout(text).unwrap().map(|span| span.as_secs());
        for (text, expected) in [
            ("", None),
            ("0", None),
            ("0s", None),
            ("30", Some(30)),
            ("2m", Some(120)),
            ("1m30s", Some(90)),
            ("1h", Some(3600)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["-1", "-1s", "soon", "PT5S", "1d"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
