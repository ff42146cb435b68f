//! The kubeconfig: which files there are, how they merge, and which exec entry a context uses.
//!
//! The rules are kubectl's: `--kubeconfig` names one file; else `KUBECONFIG` lists them, and those
//! that are missing are skipped; else `~/.kube/config`. The first file that names a cluster, user
//! or context decides it, and relative paths are relative to the file they stand in. Each entry
//! remembers its file. Nothing that a file says is run, and no value of it stands in an error:
//! kubeconfigs hold keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use kube::config::{AuthInfo, Cluster, Context};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::kubeconfig_flags::Overrides;
use crate::kubeconfig_user::{Target, UserEntry, legacy_provider};

/// Which entry of the kubeconfig is meant, in kubectl's own words.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KubeconfigArguments {
    /// The kubeconfig file [default: the files in KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Kubeconfig")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context to use [default: the current one]
    #[arg(long, value_name = "NAME", help_heading = "Kubeconfig")]
    pub(crate) context: Option<String>,
    /// The user to use, in place of the context's
    #[arg(long, value_name = "NAME", help_heading = "Kubeconfig")]
    pub(crate) user: Option<String>,
    /// The cluster to use, in place of the context's
    #[arg(long, value_name = "NAME", help_heading = "Kubeconfig")]
    pub(crate) cluster: Option<String>,
}

impl KubeconfigArguments {
    /// An empty name is none, as for kubectl.
    pub(crate) fn selection(&self) -> Selection<'_> {
        fn given(name: Option<&str>) -> Option<&str> {
            name.filter(|name| !name.is_empty())
        }
        Selection {
            context: given(self.context.as_deref()),
            user: given(self.user.as_deref()),
            cluster: self.cluster.as_deref(),
        }
    }

    /// Whether one entry is named, rather than the current context meant.
    pub(crate) fn names_an_entry(&self) -> bool {
        let selection = self.selection();
        selection.context.is_some() || selection.user.is_some()
    }
}

/// Names that were given; what is not, the current context says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selection<'a> {
    pub(crate) context: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) cluster: Option<&'a str>,
}

/// All files, merged. It has no `Debug`: it holds keys.
#[derive(Default)]
pub(crate) struct Kubeconfig {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<AuthInfo>>,
    contexts: Vec<Named<Context>>,
    current: Option<String>,
    /// The files that were read, for messages.
    files: Vec<PathBuf>,
}

/// An entry and the file it stands in.
struct Named<T> {
    name: String,
    value: T,
    file: PathBuf,
}

/// What a selection comes to.
pub(crate) enum Selected {
    /// No kubeconfig, or no context is current and none was named.
    Nothing,
    /// A user with an exec entry.
    Exec(Box<ExecUser>),
    /// A user who signs in otherwise, or not at all.
    Other(Box<OtherUser>),
}

/// A user whose credential comes from a program. No `Debug`: arguments may hold a client secret.
#[derive(Clone)]
pub(crate) struct ExecUser {
    pub(crate) name: String,
    /// The context through which it was found: the selected one, else the current one if that
    /// uses this user, else the first that does.
    pub(crate) context: Option<String>,
    /// The kubeconfig file that the user stands in.
    pub(crate) file: PathBuf,
    pub(crate) program: Program,
    /// As written, without the words that only name the plugin (`headlamp`, `oidc-login`): they
    /// start with `get-token`.
    pub(crate) arguments: Vec<String>,
    /// The entry's `env`.
    pub(crate) variables: Vec<(String, String)>,
    /// The cluster that goes with it, if the kubeconfig has it.
    pub(crate) cluster: Option<ClusterEntry>,
}

/// A user without an exec entry.
#[derive(Clone, Debug)]
pub(crate) struct OtherUser {
    pub(crate) name: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) file: PathBuf,
    /// How this user signs in, as words that go on after "signs in with ": `a client certificate`.
    pub(crate) way: String,
    pub(crate) cluster: Option<ClusterEntry>,
}

/// Which program an exec entry runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This one.
    Headlamp,
    /// kubelogin by int128, alias `kubectl oidc-login`: its flags are understood.
    Kubelogin,
    /// kubelogin by Azure: named in messages, not interpreted.
    AzureKubelogin,
    /// Another one: its command.
    Other(String),
}

impl ExecUser {
    /// Whether its arguments are understood here.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.program, Program::Headlamp | Program::Kubelogin)
    }
}

/// How a cluster's API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterEntry {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) certificate_authority: Option<CertificateAuthority>,
    pub(crate) insecure_skip_tls_verify: bool,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) proxy_url: Option<String>,
    pub(crate) disable_compression: bool,
    /// What the entry says to exec plugins that ask for the cluster (`provideClusterInfo`).
    pub(crate) exec_config: Option<serde_json::Value>,
}

/// The CAs that the API server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateAuthority {
    /// A PEM file; the path is absolute.
    File(PathBuf),
    /// Base64 of PEM.
    Data(String),
}

/// Reads the kubeconfig. A file that was named must exist; that there is none at all is no error.
pub(crate) fn load(flag: Option<&Path>, environment: &Environment) -> Result<Kubeconfig> {
    let mut merged = Kubeconfig::default();
    for path in files(flag, environment) {
        match read(&path) {
            Ok(text) => merged.add(&text, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && flag.is_none() => {}
            Err(error) => return Err(unreadable(&path).caused_by(&error)),
        }
    }
    Ok(merged)
}

/// The files that may hold a part of the kubeconfig, absolute, each once.
fn files(flag: Option<&Path>, environment: &Environment) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = match flag {
        Some(path) => vec![environment.expand(path)],
        None => environment.value("KUBECONFIG").map(|list| std::env::split_paths(list).collect()).unwrap_or_default(),
    };
    paths.retain(|path| !path.as_os_str().is_empty());
    if paths.is_empty() {
        paths.extend(environment.home().map(|home| home.join(".kube").join("config")));
    }
    let mut files = Vec::new();
    for path in paths {
        let absolute = std::path::absolute(&path).unwrap_or(path);
        if !files.contains(&absolute) {
            files.push(absolute);
        }
    }
    files
}

/// Bytes; more than this is not a kubeconfig.
const LARGEST_FILE: u64 = 8 * 1024 * 1024;

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 8 MiB"));
    }
    text(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is neither UTF-8 nor UTF-16 text"))
}

/// Windows editors write UTF-16, or UTF-8 with a byte-order mark.
fn text(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn unreadable(path: &Path) -> Error {
    Error::settings(format!("cannot read the kubeconfig `{}`", path.display()))
}

/// The documents of one file. kubectl takes the last of two equal keys; so do we. The parser's own
/// message quotes the text, which may be a key: only the place is told.
fn documents(text: &str, path: &Path) -> Result<Vec<kube::config::Kubeconfig>> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location().map_or_else(String::new, |place| format!(" (line {})", place.line()));
        unreadable(path)
            .cause(format!("it is not what a kubeconfig looks like{place}"))
            .hint(format!("`kubectl config view --kubeconfig {}` says what kubectl makes of it", path.display()))
    })
}

impl Kubeconfig {
    /// Adds a file's entries; those that are there already stay.
    fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        for document in documents(text, path)? {
            for cluster in document.clusters {
                append(&mut self.clusters, cluster.name, cluster.cluster, path);
            }
            for user in document.auth_infos {
                append(&mut self.users, user.name, user.auth_info, path);
            }
            for context in document.contexts {
                append(&mut self.contexts, context.name, context.context, path);
            }
            let current = document.current_context.filter(|name| !name.is_empty());
            self.current = self.current.take().or(current);
        }
        self.files.push(path.to_owned());
        Ok(())
    }

    /// The name of the current context, whether or not there is one of that name.
    pub(crate) fn current_context(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// The contexts that use this user, the current one first.
    pub(crate) fn contexts_of(&self, user: &str) -> Vec<&str> {
        let mut contexts: Vec<&str> = self
            .contexts
            .iter()
            .filter(|context| context.value.user.as_deref() == Some(user))
            .map(|context| context.name.as_str())
            .collect();
        contexts.sort_by_key(|name| Some(*name) != self.current_context());
        contexts
    }

    /// The user that is meant. Unknown names are errors that list the known ones.
    pub(crate) fn user(&self, selection: &Selection) -> Result<Selected> {
        let context = self.context(selection)?;
        let cluster = self.cluster(selection, context)?;
        let context_name = context.map(|context| context.name.clone());
        let name = selection.user.or(context.and_then(|context| context.value.user.as_deref()));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(context.map_or(Selected::Nothing, |context| {
                Selected::Other(Box::new(OtherUser {
                    name: None,
                    context: context_name,
                    file: context.file.clone(),
                    way: "nothing: the context names no user".to_owned(),
                    cluster,
                }))
            }));
        };
        let user = self.users.iter().find(|user| user.name == name).ok_or_else(|| self.unknown("user", name))?;
        Ok(match exec_user(user, context_name.clone(), cluster.clone()) {
            Some(user) => Selected::Exec(Box::new(user)),
            None => Selected::Other(Box::new(OtherUser {
                name: Some(user.name.clone()),
                context: context_name,
                file: user.file.clone(),
                way: way(&user.value),
                cluster,
            })),
        })
    }

    /// The cluster and the user that kubectl would choose, with its flags laid over them.
    pub(crate) fn target(&self, selection: &Selection, overrides: &Overrides) -> Result<Target> {
        let context = self.context(selection)?;
        let entry = self.cluster(selection, context)?;
        if entry.is_none() && overrides.server.is_none() {
            return Err(self.no_cluster(context));
        }
        let cluster = overrides.over_cluster(entry.unwrap_or_default());
        if cluster.server.is_empty() {
            return Err(Error::settings(format!("the cluster entry `{}` has no `server`", cluster.name))
                .hint("name it with `--server https://<host>:<port>`"));
        }
        let namespace = context.and_then(|context| context.value.namespace.clone());
        let namespace = overrides.namespace.clone().or(namespace).filter(|namespace| !namespace.is_empty());
        let name = context.map(|context| context.name.clone());
        let user = overrides.over_user(self.user_entry(selection, context, &cluster, overrides)?)?;
        Ok(Target { context: name, cluster, user, namespace })
    }

    /// A user that was named must be there; one that a context names need not be where a token is
    /// given.
    fn user_entry(
        &self,
        selection: &Selection,
        context: Option<&Named<Context>>,
        cluster: &ClusterEntry,
        overrides: &Overrides,
    ) -> Result<UserEntry> {
        let of_context = context.and_then(|context| context.value.user.as_deref());
        let Some(name) = selection.user.or(of_context).filter(|name| !name.is_empty()) else {
            return Ok(UserEntry::anonymous());
        };
        match self.users.iter().find(|user| user.name == name) {
            Some(user) => {
                let exec = exec_user(user, context.map(|context| context.name.clone()), Some(cluster.clone()));
                UserEntry::of(name, &user.file, &user.value, exec)
            }
            None if selection.user.is_none() && overrides.token.is_some() => Ok(UserEntry::anonymous()),
            None => Err(self.unknown("user", name)),
        }
    }

    fn no_cluster(&self, context: Option<&Named<Context>>) -> Error {
        if let Some(context) = context {
            return self
                .unknown("cluster", &context.value.cluster)
                .cause(format!("the context `{}` names it", context.name));
        }
        let error = Error::settings("no cluster is chosen");
        if self.contexts.is_empty() {
            return error
                .cause("there is no kubeconfig with a context (a pod's own service account is not used)")
                .hint("set `KUBECONFIG`, or name the cluster: `--server <url> --token <token>`");
        }
        let known: Vec<&str> = self.contexts.iter().map(|context| context.name.as_str()).collect();
        error.cause("no context is current").hint(format!("name one with `--context`: {}", listed(&known)))
    }

    /// Every user whose exec entry runs this program or int128's kubelogin, in the files' order.
    pub(crate) fn exec_users(&self) -> Vec<ExecUser> {
        self.users
            .iter()
            .filter_map(|user| {
                let name = self.contexts_of(&user.name).first().copied();
                let context = self.contexts.iter().find(|context| Some(context.name.as_str()) == name);
                let cluster = context.and_then(|context| self.cluster_named(&context.value.cluster));
                exec_user(user, name.map(str::to_owned), cluster)
            })
            .filter(ExecUser::is_ours)
            .collect()
    }

    fn context(&self, selection: &Selection) -> Result<Option<&Named<Context>>> {
        let Some(name) = selection.context.or(self.current_context()) else { return Ok(None) };
        match self.contexts.iter().find(|context| context.name == name) {
            Some(context) => Ok(Some(context)),
            None if selection.context.is_none() && selection.user.is_some() => Ok(None),
            None => Err(self.unknown("context", name)),
        }
    }

    /// A cluster that was named must be there; one that a context names need not be, because
    /// signing in does without.
    fn cluster(&self, selection: &Selection, context: Option<&Named<Context>>) -> Result<Option<ClusterEntry>> {
        match (selection.cluster, context) {
            (Some(name), _) => self.cluster_named(name).map(Some).ok_or_else(|| self.unknown("cluster", name)),
            (None, Some(context)) => Ok(self.cluster_named(&context.value.cluster)),
            (None, None) => Ok(None),
        }
    }

    fn cluster_named(&self, name: &str) -> Option<ClusterEntry> {
        self.clusters.iter().find(|cluster| cluster.name == name).map(cluster_entry)
    }

    fn unknown(&self, kind: &str, name: &str) -> Error {
        let known: Vec<&str> = match kind {
            "context" => self.contexts.iter().map(|context| context.name.as_str()).collect(),
            "user" => self.users.iter().map(|user| user.name.as_str()).collect(),
            _ => self.clusters.iter().map(|cluster| cluster.name.as_str()).collect(),
        };
        let files: Vec<String> = self.files.iter().map(|file| format!("`{}`", file.display())).collect();
        let places = if files.is_empty() { "the kubeconfig: there is none".to_owned() } else { files.join(", ") };
        let error = Error::settings(format!("no {kind} `{name}` in {places}"));
        match closest(name, &known) {
            Some(closest) => error.hint(format!("did you mean `--{kind}={closest}`?")),
            None if known.is_empty() => error.hint("`kubectl config view` shows what kubectl finds"),
            None => error.hint(format!("{kind}s that are there: {}", listed(&known))),
        }
    }
}

fn append<T: Default>(all: &mut Vec<Named<T>>, name: String, value: Option<T>, file: &Path) {
    if !all.iter().any(|entry| entry.name == name) {
        all.push(Named { name, value: value.unwrap_or_default(), file: file.to_owned() });
    }
}

/// A path that a kubeconfig file names: relative to the file's folder.
pub(crate) fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
}

fn cluster_entry(named: &Named<Cluster>) -> ClusterEntry {
    let cluster = named.value.clone();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let data = given(cluster.certificate_authority_data).map(CertificateAuthority::Data);
    let file = || {
        let path = given(cluster.certificate_authority)?;
        Some(CertificateAuthority::File(beside(&named.file, &path)))
    };
    ClusterEntry {
        name: named.name.clone(),
        server: cluster.server.unwrap_or_default(),
        certificate_authority: data.or_else(file),
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify.unwrap_or_default(),
        tls_server_name: given(cluster.tls_server_name),
        proxy_url: given(cluster.proxy_url),
        disable_compression: cluster.disable_compression.unwrap_or_default(),
        exec_config: cluster
            .extensions
            .into_iter()
            .flatten()
            .find(|extension| extension.name == EXEC_EXTENSION)
            .map(|extension| extension.extension),
    }
}

/// The name of a cluster's extension that exec plugins are handed (KEP-541).
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

fn exec_user(named: &Named<AuthInfo>, context: Option<String>, cluster: Option<ClusterEntry>) -> Option<ExecUser> {
    let exec = named.value.exec.clone()?;
    let (program, arguments) = program(exec.command.as_deref().unwrap_or_default(), exec.args.unwrap_or_default());
    let variables = exec.env.unwrap_or_default().into_iter();
    Some(ExecUser {
        name: named.name.clone(),
        context,
        file: named.file.clone(),
        program,
        arguments,
        variables: variables
            .filter_map(|mut variable| Some((variable.remove("name")?, variable.remove("value")?)))
            .collect(),
        cluster,
    })
}

/// Which program it is, and what it is asked. Only the name counts, not the folder: plugin
/// managers and packages install to different ones.
fn program(command: &str, mut arguments: Vec<String>) -> (Program, Vec<String>) {
    let file = command.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    let name = file.strip_suffix(".exe").unwrap_or(&file);
    let mut drop_first = |word: &str| {
        let found = arguments.first().is_some_and(|first| first == word);
        if found {
            arguments.remove(0);
        }
        found
    };
    let program = match name {
        "kubectl-headlamp" => Program::Headlamp,
        "kubectl" if drop_first("headlamp") => Program::Headlamp,
        "kubectl" if drop_first("oidc-login") => Program::Kubelogin,
        "kubectl-oidc_login" => Program::Kubelogin,
        _ if name.contains("kubelogin") && arguments.iter().any(|word| word.starts_with("--oidc-")) => {
            Program::Kubelogin
        }
        _ if name.contains("kubelogin") => Program::AzureKubelogin,
        _ => Program::Other(command.to_owned()),
    };
    if program == Program::Headlamp && arguments.first().is_some_and(|first| first == "oidc-login") {
        arguments.remove(0);
    }
    (program, arguments)
}

/// How a user without an exec entry signs in.
fn way(user: &AuthInfo) -> String {
    if let Some(provider) = &user.auth_provider {
        return legacy_provider(&provider.name);
    }
    let certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
    let way = match user {
        _ if user.token.is_some() || user.token_file.is_some() => "a token in the kubeconfig",
        _ if certificate => "a client certificate",
        _ if user.username.is_some() => "a user name and password",
        _ => "nothing",
    };
    way.to_owned()
}

/// At most this many names are listed, or compared character by character.
const MOST_NAMES: usize = 12;
const LONGEST_NAME: usize = 100;

fn listed(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(MOST_NAMES).map(|name| format!("`{name}`")).collect();
    if names.len() > MOST_NAMES {
        shown.push(format!("and {} more", names.len() - MOST_NAMES));
    }
    shown.join(", ")
}

/// The name that was probably meant: within a third of its length of typing mistakes.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .filter(|other| name.len() <= LONGEST_NAME && other.len() <= LONGEST_NAME)
        .map(|other| (distance(name, other), *other))
        .filter(|(distance, other)| *distance <= (other.chars().count() / 3).max(1))
        .min()
        .map(|(_, other)| other)
}

/// How many characters must be put in, left out or replaced (Levenshtein), one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, character) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(to.chars()) {
            let replaced = diagonal + usize::from(character != other);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
