//! Whose tokens a command is about: the kubeconfig's user that was selected, or the flags alone;
//! and every identity that is configured or has tokens here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cache::{Cache, Found, Key};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::kubeconfig::{ExecUser, Kubeconfig, KubeconfigArguments, OtherUser, Program, Selected};
use crate::options::{self, Options, ProviderKind};
use crate::settings::{self, Identity, Settings};

/// An identity with all that is set for it.
pub(crate) struct Target {
    pub(crate) settings: Settings,
    /// The kubeconfig's user that the settings come from; `None` where flags say it all.
    pub(crate) user: Option<ExecUser>,
}

/// What a command line means.
pub(crate) enum Meant {
    Target(Box<Target>),
    /// A user of the kubeconfig who signs in without us, in words that go on after "signs in with ".
    Other(Box<OtherUser>),
    /// There is no current context, and nothing names another one or a provider.
    Nothing,
}

/// What is meant. Flags that name a provider stand alone: the current context may be another
/// cluster's.
pub(crate) fn meant(
    kubeconfig: &Kubeconfig,
    arguments: &KubeconfigArguments,
    flags: &Options,
    environment: &Environment,
) -> Result<Meant> {
    let selected = if names_a_provider(flags) && !arguments.names_an_entry() {
        Selected::Nothing
    } else {
        kubeconfig.user(&arguments.selection())?
    };
    let other = match selected {
        Selected::Exec(user) if user.is_ours() => {
            let settings = settings_of_entry(&user, flags, environment)?;
            return Ok(Meant::Target(Box::new(Target { settings, user: Some(*user) })));
        }
        Selected::Exec(user) => Some(without_us(*user)),
        Selected::Other(user) => Some(*user),
        Selected::Nothing => None,
    };
    let options = flags.clone().over(options::of_environment(environment)?);
    match other {
        _ if names_a_provider(&options) => {
            let settings = settings::resolve(&options, environment)?;
            Ok(Meant::Target(Box::new(Target { settings, user: None })))
        }
        Some(other) => Ok(Meant::Other(Box::new(other))),
        None => Ok(Meant::Nothing),
    }
}

/// Whether a provider is named, if not in full: that `--tenant` is missing is told then, and no other
/// provider is asked instead.
fn names_a_provider(options: &Options) -> bool {
    options.issuer_url.is_some() || options.tenant.is_some() || options.provider == Some(ProviderKind::Entra)
}

/// What is meant, for a command that is about one identity. `verb` is the command's.
pub(crate) fn target(
    kubeconfig: &Kubeconfig,
    arguments: &KubeconfigArguments,
    flags: &Options,
    verb: &str,
    environment: &Environment,
) -> Result<Target> {
    let error = match meant(kubeconfig, arguments, flags, environment)? {
        Meant::Target(target) => return Ok(*target),
        Meant::Other(user) => {
            Error::settings(format!("{} signs in with {}, not through a provider", told(&user), user.way))
        }
        Meant::Nothing => Error::settings("no provider is named, and the kubeconfig has no current context"),
    };
    let contexts: Vec<String> = kubeconfig.exec_users().into_iter().filter_map(|user| user.context).collect();
    let named = format!("`kubectl headlamp {verb} --issuer-url <url> --client-id <id>`");
    Err(match contexts.first().and_then(|context| shlex::try_quote(context).ok()) {
        Some(context) => error
            .hint(format!("choose a context with a provider: `kubectl headlamp {verb} --context {context}`"))
            .hint(format!("or name the provider: {named}")),
        None => error.hint(format!("name the provider: {named}")),
    })
}

/// The user and the context, for messages.
pub(crate) fn told(user: &OtherUser) -> String {
    let name = user.name.as_ref().map(|name| format!("the user `{name}`"));
    let context = user.context.as_ref().map(|context| format!("the context `{context}`"));
    match (name, context) {
        (Some(name), Some(context)) => format!("{name} of {context}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "the user".to_owned(),
    }
}

/// A user whose credential comes from a program that is not ours to understand.
fn without_us(user: ExecUser) -> OtherUser {
    let program = match &user.program {
        Program::Other(command) => format!("the program `{command}`"),
        Program::AzureKubelogin => "Azure's `kubelogin`".to_owned(),
        Program::Headlamp | Program::Kubelogin => "this program".to_owned(),
    };
    OtherUser { name: Some(user.name), context: user.context, file: user.file, way: program, cluster: user.cluster }
}

/// The settings of an exec entry, with the options of the command line over them.
pub(crate) fn settings_of_entry(user: &ExecUser, over: &Options, environment: &Environment) -> Result<Settings> {
    let entry = options::of_entry(&user.arguments, &user.variables, environment)?;
    let environment = environment.overlaid(user.variables.iter().cloned());
    let mut settings = settings::resolve(&over.clone().over(entry), &environment)?;
    let context = user.context.as_ref().map(|context| format!("context `{context}`, ")).unwrap_or_default();
    settings.origin = Some(format!("{context}user `{}` in `{}`", user.name, user.file.display()));
    Ok(settings)
}

/// An identity that is configured, has tokens here, or both.
pub(crate) struct Known {
    pub(crate) key: Key,
    /// `None` where a damaged file does not say whose it is.
    pub(crate) identity: Option<Identity>,
    /// Where its tokens are; `None` where none are kept.
    pub(crate) cache: Option<Cache>,
    pub(crate) found: Found,
    /// The kubeconfig's users that use it.
    pub(crate) users: Vec<Target>,
}

/// Every identity, and the users whose settings are wrong.
pub(crate) struct All {
    pub(crate) known: Vec<Known>,
    pub(crate) wrong: Vec<(ExecUser, Error)>,
}

/// Every identity of the kubeconfig, of the folder that `flags` mean, and of those that entries name
/// for themselves. Of `flags` only the folder counts.
pub(crate) fn all(kubeconfig: &Kubeconfig, flags: &Options, environment: &Environment) -> Result<All> {
    let over = Options { cache_dir: flags.cache_dir.clone(), token_storage: flags.token_storage, ..Options::default() };
    let (mut users, mut wrong) = (Vec::new(), Vec::new());
    for user in kubeconfig.exec_users() {
        match settings_of_entry(&user, &over, environment) {
            Ok(settings) => users.push(Target { settings, user: Some(user) }),
            Err(error) => wrong.push((user, error)),
        }
    }
    let own = settings::cache_folder(&over.over(options::of_environment(environment)?), environment)?;
    let folders: BTreeSet<PathBuf> =
        users.iter().filter_map(|user| user.settings.cache.folder.clone()).chain(own).collect();
    let mut known = Vec::new();
    for folder in folders {
        let cache = Cache::at(folder);
        for (key, found) in cache.entries()? {
            let identity = match &found {
                Found::Entry(entry) => Some(entry.identity.clone()),
                Found::Absent | Found::Damaged(_) => None,
            };
            known.push(Known { key, identity, cache: Some(cache.clone()), found, users: Vec::new() });
        }
    }
    let mut all = All { known, wrong };
    for user in users {
        let at = all.place(&user.settings);
        if let Some(known) = all.known.get_mut(at) {
            known.users.push(user);
        }
    }
    Ok(all)
}

impl All {
    /// Where in `known` the identity of these settings is; it is added if it is not there.
    pub(crate) fn place(&mut self, settings: &Settings) -> usize {
        let key = Key::of(&settings.identity);
        let cache = settings.cache.folder.clone().map(Cache::at);
        let at =
            self.known.iter().position(|known| known.key == key && known.cache == cache).unwrap_or(self.known.len());
        if let Some(known) = self.known.get_mut(at) {
            // A damaged file does not say whose it is; whoever uses it does.
            known.identity = Some(settings.identity.clone());
        } else {
            let found = cache.as_ref().map_or(Found::Absent, |cache| cache.read(&key).unwrap_or(Found::Absent));
            let identity = Some(settings.identity.clone());
            self.known.push(Known { key, identity, cache, found, users: Vec::new() });
        }
        at
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tempfile::TempDir;

    use super::*;
    use crate::kubeconfig;

    fn asked(kubeconfig: &str, words: &str) -> Result<Target> {
        use clap::Parser;
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Line {
            #[command(flatten)]
            kubeconfig: KubeconfigArguments,
            #[command(flatten)]
            options: Options,
        }
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, kubeconfig).unwrap();
        let environment = Environment::from([("HOME", "/home/jane")]);
        let line = Line::parse_from(words.split_whitespace());
        let kubeconfig = kubeconfig::load(Some(&file), &environment).unwrap();
        target(&kubeconfig, &line.kubeconfig, &line.options, "login", &environment)
    }

    fn issuer(words: &str) -> String {
        asked(KUBECONFIG, words)
            .map_or_else(|error| error.message().to_owned(), |target| target.settings.identity.issuer)
    }

    const KUBECONFIG: &str = r#"
current-context: kind
contexts:
- { name: kind, context: { cluster: a, user: certificate } }
- { name: "the cloud", context: { cluster: a, user: cloud } }
- { name: "the lab", context: { cluster: a, user: lab } }
users:
- { name: certificate, user: { client-certificate: a.crt } }
- { name: cloud, user: { exec: { command: kubelogin, args: [get-token, --server-id, x] } } }
- { name: lab, user: { exec: { command: kubectl, args: [oidc-login, get-token, "--oidc-issuer-url=https://lab", --oidc-client-id=c] } } }
"#;

    #[test]
    fn flags_lie_over_the_entry_and_stand_alone_where_they_name_a_provider() {
        assert_eq!(issuer("--user lab"), "https://lab");
        assert_eq!(issuer("--user lab --issuer-url https://other"), "https://other");
        assert_eq!(issuer("--issuer-url https://alone --client-id c"), "https://alone");
        assert_eq!(issuer("--context kind --issuer-url https://alone --client-id c"), "https://alone");
        assert!(asked(KUBECONFIG, "--issuer-url https://alone --client-id c").unwrap().user.is_none());
        let in_lab = KUBECONFIG.replace("current-context: kind", "current-context: the lab");
        let error = asked(&in_lab, "--provider entra --aks --client-id c").err().unwrap();
        assert_eq!(error.message(), "no tenant: `--tenant` is missing");
        assert!(asked(KUBECONFIG, "--user lab --login-hint jane").unwrap().user.is_some());
    }

    #[test]
    fn who_signs_in_otherwise_is_told_how_and_what_to_choose() {
        let error = asked(KUBECONFIG, "").err().unwrap();
        assert_eq!(
            error.message(),
            "the user `certificate` of the context `kind` signs in with a client certificate, not through a provider"
        );
        assert_eq!(
            error.hints().first().unwrap(),
            "choose a context with a provider: `kubectl headlamp login --context 'the lab'`"
        );
        assert_eq!(
            issuer("--user cloud"),
            "the user `cloud` of the context `kind` signs in with Azure's `kubelogin`, not through a provider"
        );
        let error = asked("{}", "").err().unwrap();
        assert_eq!(error.message(), "no provider is named, and the kubeconfig has no current context");
        assert_eq!(error.hints(), ["name the provider: `kubectl headlamp login --issuer-url <url> --client-id <id>`"]);
    }
}
