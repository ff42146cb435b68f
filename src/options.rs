//! The flags that say how to sign in, the same for every command, and their environment variables.
//!
//! Order of precedence: a flag, then the exec entry's arguments (for commands that read the
//! kubeconfig), then the entry's `env`, then the process's environment, then the defaults of
//! `settings`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
    /// Any `OpenID` provider.
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
    pub(crate) client_secret: Option<String>,
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
    /// What the provider shall show: login, consent, select_account, none
    #[arg(long, value_name = "PROMPT", help_heading = "Sign-in")]
    pub(crate) prompt: Option<String>,
    /// The address that is registered with the provider [default: http://localhost:8000/oidc-callback]
    #[arg(long, value_name = "URL", help_heading = "Sign-in")]
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
    pub(crate) password: Option<String>,
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
}
