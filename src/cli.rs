//! The command line as a whole: its commands and its help. No logic.

use clap::{Parser, Subcommand};

use crate::commands::{get_token, login, logout, open, status};

/// Signs you in to your Kubernetes clusters, and opens Headlamp for you
///
/// kubectl runs `kubectl-headlamp get-token` when it needs a token: from the cache if there is a good one, renewed if it has run out,
/// and only if that fails with a sign-in in your browser. `kubectl headlamp open` shows you Headlamp, the Kubernetes web UI, as the same user.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-headlamp",
    bin_name = "kubectl headlamp",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = AFTER_HELP
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One file of `commands` each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    GetToken(Box<get_token::Arguments>),
    Login(Box<login::Arguments>),
    Logout(Box<logout::Arguments>),
    #[command(visible_alias = "dashboard")]
    Open(Box<open::Arguments>),
    #[command(alias = "whoami")]
    Status(Box<status::Arguments>),
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done                        4    sign-in refused, cancelled or timed out
  1  other failure               5    settings or kubeconfig wrong
  2  usage                       6    provider or cluster unreachable
  3  sign-in needed, and nobody  70   a bug of ours
     can be asked                130  interrupted

Every flag of a sign-in can be set by an environment variable: KUBECTL_HEADLAMP_ and the flag's
name in capitals with _ for -, such as KUBECTL_HEADLAMP_ISSUER_URL.";
