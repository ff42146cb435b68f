//! The flags that say how to sign in, the same for every command, and their environment variables.
//!
//! Order of precedence: a flag, then the exec entry's arguments (for commands that read the
//! kubeconfig), then the entry's `env`, then the process's environment, then the defaults of
//! `settings`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::kubelogin;
use crate::secret::Secret;

/// Which token the cluster is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenType {
    /// The ID token.
    Id,
    /// The access token.
    Access,
}

/// How to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flow {
    /// Whatever fits this machine: browser, else device, else paste.
    Auto,
    /// In a browser on this machine.
    Browser,
    /// With a code typed in on another device (RFC 8628).
    Device,
    /// In a browser anywhere; the address it ends at is pasted here.
    Paste,
    /// With user name and password (deprecated: neither works with a second factor).
    Password,
    /// As the client itself, without a person.
    ClientCredentials,
}

/// Whether a person may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Interactive {
    /// When one can be seen to be there.
    Auto,
    /// Fail with exit code 3 instead.
    Never,
    /// Even where nobody seems to be there.
    Always,
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenStorage {
    /// In files that only you can read.
    File,
    /// Nowhere: every run signs in.
    None,
}

/// What is known of the provider beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProviderKind {
    #[value(help = "Any OpenID provider")]
    Oidc,
    /// Microsoft Entra ID: fills in the issuer from `--tenant`.
    Entra,
}

/// How the client proves itself with its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAuthentication {
    /// What discovery offers, `basic` first.
    Auto,
    /// In the Authorization header.
    Basic,
    /// In the request's body.
    Post,
}

/// Whether a refresh asks for the scopes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RefreshScopes {
    /// Where the provider is known to need it (Entra ID, Okta).
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to sign in. Every value is optional here; `settings` decides.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// The provider: `entra` fills in what the tutorial has you type
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Provider")]
    pub(crate) provider: Option<ProviderKind>,
    /// Entra ID: directory (tenant) ID
    #[arg(long, value_name = "TENANT", help_heading = "Provider")]
    pub(crate) tenant: Option<String>,
    /// Entra ID: ask for the token that AKS wants
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Provider")]
    pub(crate) aks: Option<bool>,
    /// The issuer, as its discovery document names it
    #[arg(long, value_name = "URL", help_heading = "Provider")]
    pub(crate) issuer_url: Option<String>,
    /// The client that is registered with the provider
    #[arg(long, value_name = "ID", help_heading = "Provider")]
    pub(crate) client_id: Option<String>,
    /// The client's secret; better in a file, a command or the environment: arguments can be seen
    #[arg(long, value_name = "SECRET", help_heading = "Provider")]
    pub(crate) client_secret: Option<Secret>,
    /// A file that holds the client's secret
    #[arg(long, value_name = "FILE", help_heading = "Provider")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// A command that prints the client's secret
    #[arg(long, value_name = "COMMAND", help_heading = "Provider")]
    pub(crate) client_secret_command: Option<String>,
    /// How the client proves itself
    #[arg(long, value_enum, value_name = "METHOD", help_heading = "Provider")]
    pub(crate) client_authentication: Option<ClientAuthentication>,
    /// A scope to ask for; `openid` always is. Can be repeated
    #[arg(long, value_name = "SCOPE", help_heading = "Provider")]
    pub(crate) scope: Vec<String>,
    /// A resource that the token is for (RFC 8707). Can be repeated
    #[arg(long, value_name = "URL", help_heading = "Provider")]
    pub(crate) resource: Vec<String>,
    /// Which token the cluster is given [default: id]
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Provider")]
    pub(crate) token_type: Option<TokenType>,
    /// The issuer that an access token names, where it is another than the provider
    #[arg(long, value_name = "URL", help_heading = "Provider")]
    pub(crate) token_issuer: Option<String>,
    /// The audience that an access token names
    #[arg(long, value_name = "AUDIENCE", help_heading = "Provider")]
    pub(crate) token_audience: Option<String>,
    /// A further parameter of the authorization request. Can be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Provider")]
    pub(crate) auth_param: Vec<String>,
    /// A further header of every request to the provider. Can be repeated
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Provider")]
    pub(crate) request_header: Vec<String>,
    /// Whether a refresh asks for the scopes again [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Provider")]
    pub(crate) refresh_scopes: Option<RefreshScopes>,

    /// How to sign in [default: auto]
    #[arg(long, value_enum, value_name = "FLOW", help_heading = "Sign-in")]
    pub(crate) flow: Option<Flow>,
    /// The account to sign in with
    #[arg(long, value_name = "USER", help_heading = "Sign-in")]
    pub(crate) login_hint: Option<String>,
    #[arg(
        long,
        help = "What the provider shall show: login, consent, select_account, none",
        value_name = "PROMPT",
        help_heading = "Sign-in"
    )]
    pub(crate) prompt: Option<String>,
    #[arg(
        long,
        help = "The address that is registered with the provider [default: http://localhost:8000/oidc-callback]",
        value_name = "URL",
        help_heading = "Sign-in"
    )]
    pub(crate) redirect_url: Option<String>,
    /// Where to listen for the answer, if not at the redirect's own port. Can be repeated: the first free one is used
    #[arg(long, value_name = "ADDRESS", help_heading = "Sign-in")]
    pub(crate) listen_address: Vec<String>,
    /// A certificate to serve the callback over TLS
    #[arg(long, value_name = "FILE", help_heading = "Sign-in")]
    pub(crate) callback_certificate: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "Sign-in")]
    pub(crate) callback_key: Option<PathBuf>,
    /// Where the browser goes when it is done
    #[arg(long, value_name = "URL", help_heading = "Sign-in")]
    pub(crate) open_url_after_authentication: Option<String>,
    /// The command that opens a browser; the address is its last argument, or stands where `%s` does
    #[arg(long, value_name = "COMMAND", help_heading = "Sign-in")]
    pub(crate) browser_command: Option<String>,
    /// Do not open a browser: print the address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Sign-in")]
    pub(crate) no_browser: Option<bool>,
    /// Print no address while the browser that was opened waits (for full-screen programs)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Sign-in")]
    pub(crate) hide_url: Option<bool>,
    /// Whether a person may be asked [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Sign-in")]
    pub(crate) interactive: Option<Interactive>,
    /// How long a sign-in may take, in seconds or as 90s, 5m, 1h [default: 3m]
    #[arg(long, value_name = "TIME", help_heading = "Sign-in")]
    pub(crate) timeout: Option<String>,
    /// The user name of the password flow
    #[arg(long, value_name = "NAME", help_heading = "Sign-in")]
    pub(crate) username: Option<String>,
    /// The password of the password flow; better in a file or the environment: arguments can be seen
    #[arg(long, value_name = "PASSWORD", help_heading = "Sign-in")]
    pub(crate) password: Option<Secret>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE", help_heading = "Sign-in")]
    pub(crate) password_file: Option<PathBuf>,

    /// A file of CA certificates to trust besides the system's. Can be repeated
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) certificate_authority: Vec<PathBuf>,
    /// CA certificates to trust besides the system's, as base64 of PEM. Can be repeated
    #[arg(long, value_name = "BASE64", help_heading = "Connection")]
    pub(crate) certificate_authority_data: Vec<String>,
    /// Trust whoever answers: anyone on the way can take your tokens
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Connection")]
    pub(crate) insecure_skip_tls_verify: Option<bool>,
    /// A certificate to show the provider (mutual TLS)
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) client_key: Option<PathBuf>,

    /// The folder of the cached tokens
    #[arg(long, value_name = "FOLDER", help_heading = "Cache")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Where tokens are kept [default: file]
    #[arg(long, value_enum, value_name = "WHERE", help_heading = "Cache")]
    pub(crate) token_storage: Option<TokenStorage>,
    /// A cached token with less time left is renewed first [default: 90s]
    #[arg(long, value_name = "TIME", help_heading = "Cache")]
    pub(crate) minimum_validity: Option<String>,
    /// Renew the token even if it is still valid
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Cache")]
    pub(crate) force_refresh: Option<bool>,

    /// Tell what is done: 1 the steps, 2 each request; never a secret
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "1", value_name = "LEVEL", help_heading = "Other")]
    pub(crate) verbose: Option<u8>,

    /// kubelogin's defaults hold, because its spelling was used.
    #[arg(skip)]
    pub(crate) kubelogin: bool,
    /// What was given and is not honoured, one line each.
    #[arg(skip)]
    pub(crate) notes: Vec<String>,
}

impl Options {
    /// These, and where they say nothing, `lower`.
    pub(crate) fn over(self, lower: Self) -> Self {
        let secret =
            self.client_secret.is_some() || self.client_secret_file.is_some() || self.client_secret_command.is_some();
        let password = self.password.is_some() || self.password_file.is_some();
        let callback = self.callback_certificate.is_some() || self.callback_key.is_some();
        let identity = self.client_certificate.is_some() || self.client_key.is_some();
        // Ways to say one thing go together: a secret's file here hides a secret's text below.
        let unless = |hidden: bool| move |value: &PathBuf| (!hidden).then(|| value.clone());
        Self {
            provider: self.provider.or(lower.provider),
            tenant: self.tenant.or(lower.tenant),
            aks: self.aks.or(lower.aks),
            issuer_url: self.issuer_url.or(lower.issuer_url),
            client_id: self.client_id.or(lower.client_id),
            client_secret: self.client_secret.or(lower.client_secret.filter(|_| !secret)),
            client_secret_file: self.client_secret_file.or(lower.client_secret_file.as_ref().and_then(unless(secret))),
            client_secret_command: self.client_secret_command.or(lower.client_secret_command.filter(|_| !secret)),
            client_authentication: self.client_authentication.or(lower.client_authentication),
            scope: first(self.scope, lower.scope),
            resource: first(self.resource, lower.resource),
            token_type: self.token_type.or(lower.token_type),
            token_issuer: self.token_issuer.or(lower.token_issuer),
            token_audience: self.token_audience.or(lower.token_audience),
            auth_param: first(self.auth_param, lower.auth_param),
            request_header: first(self.request_header, lower.request_header),
            refresh_scopes: self.refresh_scopes.or(lower.refresh_scopes),
            flow: self.flow.or(lower.flow),
            login_hint: self.login_hint.or(lower.login_hint),
            prompt: self.prompt.or(lower.prompt),
            redirect_url: self.redirect_url.or(lower.redirect_url),
            listen_address: first(self.listen_address, lower.listen_address),
            callback_certificate: self
                .callback_certificate
                .or(lower.callback_certificate.as_ref().and_then(unless(callback))),
            callback_key: self.callback_key.or(lower.callback_key.as_ref().and_then(unless(callback))),
            open_url_after_authentication: self.open_url_after_authentication.or(lower.open_url_after_authentication),
            browser_command: self.browser_command.or(lower.browser_command),
            no_browser: self.no_browser.or(lower.no_browser),
            hide_url: self.hide_url.or(lower.hide_url),
            interactive: self.interactive.or(lower.interactive),
            timeout: self.timeout.or(lower.timeout),
            username: self.username.or(lower.username),
            password: self.password.or(lower.password.filter(|_| !password)),
            password_file: self.password_file.or(lower.password_file.as_ref().and_then(unless(password))),
            certificate_authority: first(self.certificate_authority, lower.certificate_authority),
            certificate_authority_data: first(self.certificate_authority_data, lower.certificate_authority_data),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify.or(lower.insecure_skip_tls_verify),
            client_certificate: self
                .client_certificate
                .or(lower.client_certificate.as_ref().and_then(unless(identity))),
            client_key: self.client_key.or(lower.client_key.as_ref().and_then(unless(identity))),
            cache_dir: self.cache_dir.or(lower.cache_dir),
            token_storage: self.token_storage.or(lower.token_storage),
            minimum_validity: self.minimum_validity.or(lower.minimum_validity),
            force_refresh: self.force_refresh.or(lower.force_refresh),
            verbose: self.verbose.or(lower.verbose),
            kubelogin: self.kubelogin || lower.kubelogin,
            notes: [self.notes, lower.notes].concat(),
        }
    }
}

/// `upper`, or where it is empty, `lower`.
fn first<T>(upper: Vec<T>, lower: Vec<T>) -> Vec<T> {
    if upper.is_empty() { lower } else { upper }
}

/// The options among the arguments that follow `get-token`; kubelogin's spellings are understood.
pub(crate) fn of_arguments(arguments: &[OsString]) -> Result<Options> {
    let translated = kubelogin::translate(arguments)?;
    let command = get_token_command();
    let matches = command
        .no_binary_name(true)
        .try_get_matches_from(translated.arguments)
        .map_err(|error| usage_error(&error, "kubectl headlamp get-token --help"))?;
    let options = Options::from_arg_matches(&matches)
        .map_err(|error| usage_error(&error, "kubectl headlamp get-token --help"))?;
    Ok(Options { kubelogin: translated.kubelogin, notes: translated.notes, ..options })
}

/// The options of a kubeconfig's exec entry: its arguments (from `get-token` on), over its `env`,
/// over this process's environment.
pub(crate) fn of_entry(
    arguments: &[String],
    variables: &[(String, String)],
    environment: &Environment,
) -> Result<Options> {
    let arguments: Vec<OsString> = arguments
        .iter()
        .skip_while(|word| *word == "oidc-login")
        .skip_while(|word| *word == "get-token")
        .map(OsString::from)
        .collect();
    let environment = environment.overlaid(variables.iter().cloned());
    Ok(of_arguments(&arguments)?.over(of_environment(&environment)?))
}

/// The options among the variables `KUBECTL_HEADLAMP_…`: a flag's name in upper case, `_` for `-`.
/// Where a flag can be repeated, the variable's words are its values (paths: as in `PATH`).
pub(crate) fn of_environment(environment: &Environment) -> Result<Options> {
    let mut variables = environment.with_prefix(VARIABLE_PREFIX).peekable();
    if variables.peek().is_none() {
        return Ok(Options::default());
    }
    let command = get_token_command().no_binary_name(true);
    let mut arguments = Vec::new();
    for (name, value) in variables {
        let flag = name.to_ascii_lowercase().replace('_', "-");
        let Some(argument) = command.get_arguments().find(|argument| argument.get_long() == Some(flag.as_str())) else {
            continue;
        };
        let repeatable = matches!(argument.get_action(), clap::ArgAction::Append);
        let values: Vec<OsString> = match (repeatable, value.to_str()) {
            (true, _) if flag == "certificate-authority" => std::env::split_paths(value).map(OsString::from).collect(),
            (true, Some(words)) => words.split_whitespace().map(OsString::from).collect(),
            _ => vec![value.to_owned()],
        };
        arguments.extend(values.iter().map(|value| assignment(&flag, value)));
    }
    let matches = command.try_get_matches_from(arguments).map_err(|error| {
        let error = usage_error(&error, "kubectl headlamp get-token --help");
        Error::new(Kind::Usage, "the environment's `KUBECTL_HEADLAMP_…` variables cannot be understood").because(error)
    })?;
    Options::from_arg_matches(&matches).map_err(|error| usage_error(&error, "kubectl headlamp get-token --help"))
}

fn assignment(flag: &str, value: &OsStr) -> OsString {
    let mut argument = OsString::from(format!("--{flag}="));
    argument.push(value);
    argument
}

/// The options among a command's arguments as they were given, to be repeated elsewhere: without
/// secrets, and without those that matter to one run only. `--prompt=consent` stays: some providers
/// give a refresh token only with it.
pub(crate) fn given(matches: &ArgMatches) -> Vec<String> {
    let mut words = words(&get_token_command(), matches, NOT_REPEATED);
    words.retain(|word| !word.starts_with("--prompt=") || word == "--prompt=consent");
    words
}

/// This command's flags as they were given, but for some.
pub(crate) fn words(command: &Command, matches: &ArgMatches, without: &[&str]) -> Vec<String> {
    let mut words = Vec::new();
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        let long = argument.get_long().unwrap_or(id);
        let values = matches.try_get_raw(id).ok().flatten().filter(|_| !without.contains(&id));
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let Some(values) = values.filter(|_| typed(id)) else { continue };
        if argument.get_action().takes_values() {
            words.extend(values.map(|value| format!("--{long}={}", value.to_string_lossy())));
        } else {
            words.push(format!("--{long}"));
        }
    }
    words
}

/// The parser of `get-token`, alone: building those of all commands would cost a cache hit more than
/// the rest of its work. Of a flag that is given twice the last one counts, as everywhere in kubectl.
pub(crate) fn get_token_command() -> Command {
    Options::augment_args(Command::new("kubectl headlamp get-token").args_override_self(true))
}

/// clap's words as an error of ours: the first line, and its tips as hints.
pub(crate) fn usage_error(error: &clap::Error, help: &str) -> Error {
    // clap quotes what it cites with apostrophes.
    let text = error.render().to_string().replace('\'', "`");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message =
        lines.next().map_or("the command line cannot be understood", |line| line.trim_start_matches("error: "));
    let missing: Vec<&str> = lines.clone().take_while(|line| line.starts_with("--") || line.starts_with('<')).collect();
    let message = if missing.is_empty() { message.to_owned() } else { format!("{message} {}", missing.join(" ")) };
    let known = Error::usage(message.trim_end_matches('.'));
    let hint = |line: &str| {
        let values = line.strip_prefix("[possible values: ").and_then(|values| values.strip_suffix(']'));
        let tip = line.strip_prefix("tip: ").map(str::to_owned);
        tip.or_else(|| values.map(|values| format!("choose one of `{}`", values.replace(", ", "`, `"))))
    };
    let known = lines.filter_map(hint).fold(known, Error::hint);
    known.hint(format!("`{help}` lists what there is"))
}

const NOT_REPEATED: &[&str] = &["client_secret", "password", "force_refresh", "verbose"];
const VARIABLE_PREFIX: &str = "KUBECTL_HEADLAMP_";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_over_nothing_else() {
        let environment = Environment::from([
            ("KUBECTL_HEADLAMP_CLIENT_ID", "from-variable"),
            ("KUBECTL_HEADLAMP_SCOPE", "email groups"),
            ("KUBECTL_HEADLAMP_NO_BROWSER", "true"),
            ("KUBECTL_HEADLAMP_CERTIFICATE_AUTHORITY", "/a b:/c"),
        ]);
        let flags = of_arguments(&arguments(&["--client-id", "from-flag"])).unwrap();
        let options = flags.over(of_environment(&environment).unwrap());
        assert_eq!(options.client_id.as_deref(), Some("from-flag"));
        assert_eq!(options.scope, ["email", "groups"]);
        assert_eq!(options.no_browser, Some(true));
        assert_eq!(options.certificate_authority, [PathBuf::from("/a b"), PathBuf::from("/c")]);
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts_and_lists_keep_all() {
        let words = ["--client-id=a", "--client-id=b", "--no-browser", "--no-browser=false", "--scope=x", "--scope=y"];
        let options = of_arguments(&arguments(&words)).unwrap();
        assert_eq!(options.client_id.as_deref(), Some("b"));
        assert_eq!(options.no_browser, Some(false));
        assert_eq!(options.scope, ["x", "y"]);
    }

    #[test]
    fn what_matters_to_one_run_only_and_secrets_are_not_repeated() {
        let given = |words: &[&str]| given(&get_token_command().no_binary_name(true).get_matches_from(words));
        let words = ["--client-id=a", "--client-secret=b", "--password=c", "--force-refresh", "-v", "--prompt=login"];
        assert_eq!(given(&words), ["--client-id=a"]);
        assert_eq!(given(&["--prompt=consent", "--scope=x"]), ["--scope=x", "--prompt=consent"]);
    }

    #[test]
    fn a_variable_that_cannot_be_understood_is_named() {
        let environment = Environment::from([("KUBECTL_HEADLAMP_FLOW", "carrier-pigeon")]);
        let error = of_environment(&environment).unwrap_err();
        assert!(error.to_string().contains("KUBECTL_HEADLAMP_"), "{error}");
        assert!(error.to_string().contains("carrier-pigeon"), "{error}");
    }

    #[test]
    fn a_secret_file_above_hides_a_secret_below() {
        let upper = of_arguments(&arguments(&["--client-secret-file", "/run/secret"])).unwrap();
        let lower = of_arguments(&arguments(&["--client-secret", "text"])).unwrap();
        let options = upper.over(lower);
        assert_eq!(options.client_secret, None);
        assert_eq!(options.client_secret_file, Some(PathBuf::from("/run/secret")));
    }

    #[test]
    fn every_flag_has_one_line_of_help() {
        for argument in get_token_command().get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !help.is_empty() && !help.contains('\n') && !help.ends_with('.'),
                "{:?}: {help}",
                argument.get_long()
            );
        }
    }
}
