//! Whom a cluster is reached as: everything in a kubeconfig's user that kubectl makes a credential
//! from.
//!
//! The order is client-go's: what stands in the entry itself (token, token file, user name and
//! password, client certificate) wins, and an `exec` entry beside it is not run. A token file wins
//! over a token. Nothing is read or run here, and no value stands in an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};
use crate::kubeconfig::{ClusterEntry, ExecUser, Program, beside};
use crate::secret::Secret;

/// A cluster, and whom it is reached as. No `Debug`: an exec entry's arguments may be secret.
#[derive(Clone)]
pub(crate) struct Target {
    /// `None` where flags alone name the cluster.
    pub(crate) context: Option<String>,
    pub(crate) cluster: ClusterEntry,
    pub(crate) user: UserEntry,
    /// The flag's, else the context's.
    pub(crate) namespace: Option<String>,
}

/// A user. Without any source it is the anonymous one.
#[derive(Clone)]
pub(crate) struct UserEntry {
    /// `None` where the context names no user.
    pub(crate) name: Option<String>,
    pub(crate) bearer: BearerSource,
    /// Used beside the bearer, as kubectl does.
    pub(crate) certificate: Option<CertificateSource>,
    pub(crate) impersonate: Impersonation,
}

/// Where the `Authorization` header comes from.
#[derive(Clone)]
pub(crate) enum BearerSource {
    /// Nowhere: a client certificate does without, or the user is anonymous.
    None,
    Token(Secret),
    /// A file that is rewritten when its token is renewed.
    File(PathBuf),
    Basic {
        username: String,
        password: Secret,
    },
    /// This program, or kubelogin, whose flags it understands: no child is started.
    Headlamp(Box<ExecUser>),
    /// Another exec plugin; its answer may be a client certificate too.
    Plugin(Box<PluginEntry>),
    /// A way that is gone, as words that go on after "signs in with ".
    Unsupported(String),
}

/// An exec entry that runs another program. No `Debug`: arguments and variables may be secret.
#[derive(Clone)]
pub(crate) struct PluginEntry {
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) api_version: String,
    pub(crate) interactive_mode: InteractiveMode,
    pub(crate) provide_cluster_info: bool,
    pub(crate) install_hint: Option<String>,
    /// Of the kubeconfig: a command with a slash is relative to it.
    pub(crate) folder: PathBuf,
}

/// Whether a plugin reads its stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InteractiveMode {
    Never,
    IfAvailable,
    Always,
}

/// A client certificate and its key.
#[derive(Clone)]
pub(crate) struct CertificateSource {
    pub(crate) certificate: Pem,
    pub(crate) key: Pem,
}

/// Text in PEM format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pem {
    /// Base64 of it.
    Data(Secret),
    /// The path is absolute.
    File(PathBuf),
}

/// Whom to act as, for those who may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Impersonation {
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) uid: Option<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl UserEntry {
    /// The anonymous user.
    pub(crate) fn anonymous() -> Self {
        Self { name: None, bearer: BearerSource::None, certificate: None, impersonate: Impersonation::default() }
    }

    /// `exec` is the entry's, already read, if it has one.
    pub(crate) fn of(name: &str, file: &Path, info: &AuthInfo, exec: Option<ExecUser>) -> Result<Self> {
        let wrong = |what: &'static str| {
            Error::settings(format!("the user `{name}` in `{}` cannot be used", file.display())).cause(what)
        };
        let certificate = certificate(file, info).map_err(wrong)?;
        Ok(Self {
            name: Some(name.to_owned()),
            bearer: bearer(file, info, exec, certificate.is_some()).map_err(wrong)?,
            certificate,
            impersonate: Impersonation {
                user: given(info.impersonate.as_deref()),
                groups: info.impersonate_groups.clone().unwrap_or_default(),
                uid: given(info.impersonate_uid.as_deref()),
                extra: info.impersonate_user_extra.clone().unwrap_or_default().into_iter().collect(),
            },
        })
    }
}

impl Impersonation {
    /// Each part of this one, or where it has none, of the lower one.
    pub(crate) fn over(self, lower: Self) -> Self {
        Self {
            user: self.user.or(lower.user),
            groups: if self.groups.is_empty() { lower.groups } else { self.groups },
            uid: self.uid.or(lower.uid),
            extra: if self.extra.is_empty() { lower.extra } else { self.extra },
        }
    }

    /// An API server refuses groups, uid and extra without a user; kubectl does so before it asks.
    pub(crate) fn check(&self) -> Result<()> {
        let more = !self.groups.is_empty() || self.uid.is_some() || !self.extra.is_empty();
        if self.user.is_none() && more {
            return Err(Error::settings("a group, uid or extra is to be impersonated, but no user")
                .hint("say as whom: `--as <user>`"));
        }
        Ok(())
    }
}

/// What stands in the entry itself comes first: with it, kubectl runs no program.
fn bearer(
    file: &Path,
    info: &AuthInfo,
    exec: Option<ExecUser>,
    certificate: bool,
) -> Result<BearerSource, &'static str> {
    let username = given(info.username.as_deref());
    let token = secret(info.token.as_ref());
    if token.is_some() && username.is_some() {
        return Err("it has both a token and a user name");
    }
    if let Some(path) = given(info.token_file.as_deref()) {
        return Ok(BearerSource::File(beside(file, &path)));
    }
    if let Some(token) = token {
        return Ok(BearerSource::Token(token));
    }
    if let Some(username) = username {
        let password = secret(info.password.as_ref()).unwrap_or_else(|| Secret::new(""));
        return Ok(BearerSource::Basic { username, password });
    }
    match (exec, &info.exec, &info.auth_provider) {
        _ if certificate => Ok(BearerSource::None),
        (Some(user), _, _) if matches!(user.program, Program::Headlamp | Program::Kubelogin) => {
            Ok(BearerSource::Headlamp(Box::new(user)))
        }
        (Some(user), Some(exec), _) => plugin(file, exec, user.variables),
        (_, _, Some(provider)) => Ok(BearerSource::Unsupported(legacy_provider(&provider.name))),
        _ => Ok(BearerSource::None),
    }
}

fn plugin(file: &Path, exec: &ExecConfig, variables: Vec<(String, String)>) -> Result<BearerSource, &'static str> {
    let command = given(exec.command.as_deref()).ok_or("its `exec` entry names no command")?;
    let api_version = given(exec.api_version.as_deref()).ok_or("its `exec` entry has no `apiVersion`")?;
    Ok(BearerSource::Plugin(Box::new(PluginEntry {
        command,
        arguments: exec.args.clone().unwrap_or_default(),
        variables,
        api_version,
        interactive_mode: match exec.interactive_mode {
            Some(ExecInteractiveMode::Never) => InteractiveMode::Never,
            Some(ExecInteractiveMode::Always) => InteractiveMode::Always,
            Some(ExecInteractiveMode::IfAvailable) | None => InteractiveMode::IfAvailable,
        },
        provide_cluster_info: exec.provide_cluster_info,
        install_hint: given(exec.install_hint.as_deref()),
        folder: file.parent().map(Path::to_owned).unwrap_or_default(),
    })))
}

fn certificate(file: &Path, info: &AuthInfo) -> Result<Option<CertificateSource>, &'static str> {
    let pem = |data: Option<Secret>, path: Option<&str>| {
        data.map(Pem::Data).or_else(|| given(path).map(|path| Pem::File(beside(file, &path))))
    };
    let data = given(info.client_certificate_data.as_deref()).map(Secret::new);
    let Some(certificate) = pem(data, info.client_certificate.as_deref()) else { return Ok(None) };
    match pem(secret(info.client_key_data.as_ref()), info.client_key.as_deref()) {
        Some(key) => Ok(Some(CertificateSource { certificate, key })),
        None => Err("it has a client certificate without its key"),
    }
}

/// How an `auth-provider` entry signs in, as words that go on after "signs in with ".
pub(crate) fn legacy_provider(name: &str) -> String {
    format!("the legacy auth provider `{name}`, which kubectl dropped")
}

fn given(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn secret(text: Option<&SecretString>) -> Option<Secret> {
    text.map(|text| Secret::new(text.expose_secret())).filter(|secret| !secret.is_empty())
}
