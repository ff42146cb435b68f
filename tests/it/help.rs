//! The help, and that README and program say the same.

#![allow(clippy::too_many_lines, reason = "helps are long")]

use std::collections::BTreeSet;

use headlamp_test_support::{Output, Sandbox};
use insta::assert_snapshot;

use crate::BINARY;

const README: &str = include_str!("../../README.md");

/// What the program prints for these arguments, on no terminal.
fn printed(arguments: &[&str]) -> Output {
    let sandbox = Sandbox::new(BINARY);
    sandbox.command(arguments).run()
}

/// The rows of README's table whose head begins with this cell: the text of each cell.
fn table(head: &str) -> Vec<Vec<String>> {
    let rows = README.lines().skip_while(|line| !line.starts_with(&format!("| {head} |"))).skip(2);
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_version_is_told() {
    let version = format!("kubectl-headlamp {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["--version"]).succeeded().stdout, version);
}

#[test]
fn the_help_of_open() {
    assert_snapshot!(printed(&["open", "--help"]), @r"
    exit 0
    stdout:
    Opens Headlamp, the Kubernetes web UI, signed in as kubectl is

    Finds the Headlamp that runs in the cluster and opens it in your browser. The page's files come from
    its pod through a port-forward; what the page asks of the Kubernetes API is answered from here, with
    the credential that kubectl would use. Neither the pod nor the browser ever sees that credential.
    Stays until Ctrl-C, renews the credential, and reconnects by itself.

    Usage: kubectl headlamp open [OPTIONS]

    Options:
          --timeout <TIME>
              How long until the page must be there, in seconds or as 90s, 5m; a sign-in has a time of
              its own
              
              [default: 60s]

      -v, --verbose[=<LEVEL>]
              Tell more: each request; never a secret

      -h, --help
              Print help (see a summary with '-h')

    Kubeconfig:
          --kubeconfig <FILE>
              The kubeconfig file [default: the files in KUBECONFIG, else ~/.kube/config]

          --context <NAME>
              The context to use [default: the current one]

          --user <NAME>
              The user to use, in place of the context's

          --cluster <NAME>
              The cluster to use, in place of the context's

      -s, --server <URL>
              The API server's address, in place of the cluster entry's

          --token <TOKEN>
              The bearer token for the API server, in place of the user's credential

          --certificate-authority <FILE>
              The file with the CA of the API server's certificate

          --insecure-skip-tls-verify[=<BOOL>]
              Trust whoever answers as the API server: anyone on the way can take your credential
              
              [possible values: true, false]

          --tls-server-name <NAME>
              The name that the API server's certificate is for, where it is not the address's

          --as <USER>
              The user to act as

          --as-group <GROUP>
              A group to act as a member of (repeatable)

          --as-uid <UID>
              The uid to act as

      -n, --namespace <NAME>
              The namespace that Headlamp is in [default: wherever it is found]

          --request-timeout <TIME>
              How long one question to the API server may take, in seconds or as 90s, 5m; 0 is for ever

    Headlamp:
          --service <NAME>
              The Service that leads to Headlamp [default: found by its labels, asked for once, and
              remembered]

          --service-port <PORT>
              The Service's port, by name or number [default: `http`, or the only one]

          --ui <DIR>
              Take the page's files from this folder, a built Headlamp frontend, and not from the
              cluster

          --sign-in <WHO>
              Who signs in: kubectl's credential, or Headlamp itself by its own button, on port 8000

              Possible values:
              - kubectl:  The user of the kubeconfig, as for kubectl
              - headlamp: Headlamp, by its own `Sign In` button: a plain port-forward on port 8000
              
              [default: kubectl]

          --allow-origin <ORIGIN>
              An origin that the page may load from and speak to besides its own (repeatable)

    Local server:
          --port <PORT>
              The local port [default: one that stays the same for each Headlamp]

          --address <ADDRESS>
              Listen at this address too; beyond loopback only with `--expose-to-network`

          --expose-to-network
              Let other machines reach the page at `--address`, unencrypted

    Browser:
          --path <PATH>
              Where in the page to begin, such as /c/main/pods

          --no-browser
              Open no browser: print the address

          --browser-command <COMMAND>
              The command that opens a browser; the address is its last argument, or stands where `%s`
              does

    Examples:
      kubectl headlamp open
      kubectl headlamp open --context staging --path /c/main/pods
      kubectl headlamp open -n tools --service my-headlamp
      kubectl headlamp open --as jane --as-group developers
      kubectl headlamp open --no-browser
      kubectl headlamp open --sign-in headlamp

    What the page cannot do here, and what to type instead:
      drain a node        kubectl drain NODE --ignore-daemonsets
      forward a port      kubectl port-forward POD LOCAL:REMOTE
      Helm releases       helm
    ");
}

#[test]
fn the_help_of_the_whole() {
    assert_snapshot!(printed(&["--help"]), @r"
    exit 0
    stdout:
    Signs you in to your Kubernetes clusters, and opens Headlamp for you

    kubectl runs `kubectl-headlamp get-token` when it needs a token: from the cache if there is a good
    one, renewed if it has run out, and only if that fails with a sign-in in your browser. `kubectl
    headlamp open` shows you Headlamp, the Kubernetes web UI, as the same user.

    Usage: kubectl headlamp <COMMAND>

    Commands:
      get-token  Prints a token for kubectl, which runs this by itself
      login      Signs in now, whatever the cache says
      logout     Revokes and deletes your tokens
      open       Opens Headlamp, the Kubernetes web UI, signed in as kubectl is [alias: dashboard]
      status     Shows who you are signed in as, where, and until when
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Exit codes:
      0  done                        4    sign-in refused, cancelled or timed out
      1  other failure               5    settings or kubeconfig wrong
      2  usage                       6    provider or cluster unreachable
      3  sign-in needed, and nobody  70   a bug of ours
         can be asked                130  interrupted

    Every flag of a sign-in can be set by an environment variable: KUBECTL_HEADLAMP_ and the flag's
    name in capitals with _ for -, such as KUBECTL_HEADLAMP_ISSUER_URL.
    ");
    assert_eq!(printed(&[]).stdout, printed(&["-h"]).stdout, "without a command the short help is shown");
}

#[test]
fn the_help_of_get_token() {
    assert_snapshot!(printed(&["get-token", "--help"]), @r"
    exit 0
    stdout:
    Prints a token for kubectl, which runs this by itself

    kubectl runs this command when a user of the kubeconfig has an `exec` entry for it. The answer is
    one `ExecCredential` object (JSON) on stdout; everything else goes to stderr. A cached token is
    handed out as it is, one that has run out is renewed, and only if that fails a sign-in begins.

    Usage: kubectl headlamp get-token [OPTIONS]

    Options:
      -h, --help
              Print help (see a summary with '-h')

    Provider:
          --provider <KIND>
              The provider: `entra` fills in what the tutorial has you type

              Possible values:
              - oidc:  Any OpenID provider
              - entra: Microsoft Entra ID: fills in the issuer from `--tenant`

          --tenant <TENANT>
              Entra ID: directory (tenant) ID

          --aks[=<BOOL>]
              Entra ID: ask for the token that AKS wants
              
              [possible values: true, false]

          --issuer-url <URL>
              The issuer, as its discovery document names it

          --client-id <ID>
              The client that is registered with the provider

          --client-secret <SECRET>
              The client's secret; better in a file, a command or the environment: arguments can be seen

          --client-secret-file <FILE>
              A file that holds the client's secret

          --client-secret-command <COMMAND>
              A command that prints the client's secret

          --client-authentication <METHOD>
              How the client proves itself

              Possible values:
              - auto:  What discovery offers, `basic` first
              - basic: In the Authorization header
              - post:  In the request's body

          --scope <SCOPE>
              A scope to ask for; `openid` always is. Can be repeated

          --resource <URL>
              A resource that the token is for (RFC 8707). Can be repeated

          --token-type <TYPE>
              Which token the cluster is given [default: id]

              Possible values:
              - id:     The ID token
              - access: The access token

          --token-issuer <URL>
              The issuer that an access token names, where it is another than the provider

          --token-audience <AUDIENCE>
              The audience that an access token names

          --auth-param <KEY=VALUE>
              A further parameter of the authorization request. Can be repeated

          --request-header <NAME=VALUE>
              A further header of every request to the provider. Can be repeated

          --refresh-scopes <WHEN>
              Whether a refresh asks for the scopes again [default: auto]

              Possible values:
              - auto:   Where the provider is known to need it (Entra ID, Okta)
              - always: Always
              - never:  Never

    Sign-in:
          --flow <FLOW>
              How to sign in [default: auto]

              Possible values:
              - auto:               Whatever fits this machine: browser, else device, else paste
              - browser:            In a browser on this machine
              - device:             With a code typed in on another device (RFC 8628)
              - paste:              In a browser anywhere; the address it ends at is pasted here
              - password:           With user name and password (deprecated: neither works with a second
                factor)
              - client-credentials: As the client itself, without a person

          --login-hint <USER>
              The account to sign in with

          --prompt <PROMPT>
              What the provider shall show: login, consent, select_account, none

          --redirect-url <URL>
              The address that is registered with the provider [default:
              http://localhost:[PORT]/oidc-callback]

          --listen-address <ADDRESS>
              Where to listen for the answer, if not at the redirect's own port. Can be repeated: the
              first free one is used

          --callback-certificate <FILE>
              A certificate to serve the callback over TLS

          --callback-key <FILE>
              The key of that certificate

          --open-url-after-authentication <URL>
              Where the browser goes when it is done

          --browser-command <COMMAND>
              The command that opens a browser; the address is its last argument, or stands where `%s`
              does

          --no-browser[=<BOOL>]
              Do not open a browser: print the address
              
              [possible values: true, false]

          --hide-url[=<BOOL>]
              Print no address while the browser that was opened waits (for full-screen programs)
              
              [possible values: true, false]

          --interactive <WHEN>
              Whether a person may be asked [default: auto]

              Possible values:
              - auto:   When one can be seen to be there
              - never:  Fail with exit code 3 instead
              - always: Even where nobody seems to be there

          --timeout <TIME>
              How long a sign-in may take, in seconds or as 90s, 5m, 1h [default: 3m]

          --username <NAME>
              The user name of the password flow

          --password <PASSWORD>
              The password of the password flow; better in a file or the environment: arguments can be
              seen

          --password-file <FILE>
              A file that holds the password

    Connection:
          --certificate-authority <FILE>
              A file of CA certificates to trust besides the system's. Can be repeated

          --certificate-authority-data <BASE64>
              CA certificates to trust besides the system's, as base64 of PEM. Can be repeated

          --insecure-skip-tls-verify[=<BOOL>]
              Trust whoever answers: anyone on the way can take your tokens
              
              [possible values: true, false]

          --client-certificate <FILE>
              A certificate to show the provider (mutual TLS)

          --client-key <FILE>
              The key of that certificate

    Cache:
          --cache-dir <FOLDER>
              The folder of the cached tokens

          --token-storage <WHERE>
              Where tokens are kept [default: file]

              Possible values:
              - file: In files that only you can read
              - none: Nowhere: every run signs in

          --minimum-validity <TIME>
              A cached token with less time left is renewed first [default: 90s]

          --force-refresh[=<BOOL>]
              Renew the token even if it is still valid
              
              [possible values: true, false]

    Other:
      -v, --verbose[=<LEVEL>]
              Tell what is done: 1 the steps, 2 each request; never a secret

    Example:
      kubectl config set-credentials me --exec-api-version=client.authentication.k8s.io/v1 \
        --exec-interactive-mode=IfAvailable --exec-command=kubectl-headlamp --exec-arg=get-token \
        --exec-arg=--issuer-url=https://id.example.com --exec-arg=--client-id=kubernetes

    An entry that was written for kubelogin is understood too.
    ");
}

#[test]
fn the_help_of_login() {
    assert_snapshot!(printed(&["login", "-h"]), @"
    exit 0
    stdout:
    Signs in now, whatever the cache says

    Usage: kubectl headlamp login [OPTIONS]

    Options:
      -h, --help  Print help (see more with '--help')

    Kubeconfig:
          --kubeconfig <FILE>  The kubeconfig file [default: the files in KUBECONFIG, else
                               ~/.kube/config]
          --context <NAME>     The context to use [default: the current one]
          --user <NAME>        The user to use, in place of the context's
          --cluster <NAME>     The cluster to use, in place of the context's

    Provider:
          --provider <KIND>
              The provider: `entra` fills in what the tutorial has you type [possible values: oidc,
              entra]
          --tenant <TENANT>
              Entra ID: directory (tenant) ID
          --aks[=<BOOL>]
              Entra ID: ask for the token that AKS wants [possible values: true, false]
          --issuer-url <URL>
              The issuer, as its discovery document names it
          --client-id <ID>
              The client that is registered with the provider
          --client-secret <SECRET>
              The client's secret; better in a file, a command or the environment: arguments can be seen
          --client-secret-file <FILE>
              A file that holds the client's secret
          --client-secret-command <COMMAND>
              A command that prints the client's secret
          --client-authentication <METHOD>
              How the client proves itself [possible values: auto, basic, post]
          --scope <SCOPE>
              A scope to ask for; `openid` always is. Can be repeated
          --resource <URL>
              A resource that the token is for (RFC 8707). Can be repeated
          --token-type <TYPE>
              Which token the cluster is given [default: id] [possible values: id, access]
          --token-issuer <URL>
              The issuer that an access token names, where it is another than the provider
          --token-audience <AUDIENCE>
              The audience that an access token names
          --auth-param <KEY=VALUE>
              A further parameter of the authorization request. Can be repeated
          --request-header <NAME=VALUE>
              A further header of every request to the provider. Can be repeated
          --refresh-scopes <WHEN>
              Whether a refresh asks for the scopes again [default: auto] [possible values: auto,
              always, never]

    Sign-in:
          --flow <FLOW>
              How to sign in [default: auto] [possible values: auto, browser, device, paste, password,
              client-credentials]
          --login-hint <USER>
              The account to sign in with
          --prompt <PROMPT>
              What the provider shall show: login, consent, select_account, none
          --redirect-url <URL>
              The address that is registered with the provider [default:
              http://localhost:[PORT]/oidc-callback]
          --listen-address <ADDRESS>
              Where to listen for the answer, if not at the redirect's own port. Can be repeated: the
              first free one is used
          --callback-certificate <FILE>
              A certificate to serve the callback over TLS
          --callback-key <FILE>
              The key of that certificate
          --open-url-after-authentication <URL>
              Where the browser goes when it is done
          --browser-command <COMMAND>
              The command that opens a browser; the address is its last argument, or stands where `%s`
              does
          --no-browser[=<BOOL>]
              Do not open a browser: print the address [possible values: true, false]
          --hide-url[=<BOOL>]
              Print no address while the browser that was opened waits (for full-screen programs)
              [possible values: true, false]
          --interactive <WHEN>
              Whether a person may be asked [default: auto] [possible values: auto, never, always]
          --timeout <TIME>
              How long a sign-in may take, in seconds or as 90s, 5m, 1h [default: 3m]
          --username <NAME>
              The user name of the password flow
          --password <PASSWORD>
              The password of the password flow; better in a file or the environment: arguments can be
              seen
          --password-file <FILE>
              A file that holds the password

    Connection:
          --certificate-authority <FILE>
              A file of CA certificates to trust besides the system's. Can be repeated
          --certificate-authority-data <BASE64>
              CA certificates to trust besides the system's, as base64 of PEM. Can be repeated
          --insecure-skip-tls-verify[=<BOOL>]
              Trust whoever answers: anyone on the way can take your tokens [possible values: true,
              false]
          --client-certificate <FILE>
              A certificate to show the provider (mutual TLS)
          --client-key <FILE>
              The key of that certificate

    Cache:
          --cache-dir <FOLDER>       The folder of the cached tokens
          --token-storage <WHERE>    Where tokens are kept [default: file] [possible values: file, none]
          --minimum-validity <TIME>  A cached token with less time left is renewed first [default: 90s]
          --force-refresh[=<BOOL>]   Renew the token even if it is still valid [possible values: true,
                                     false]

    Other:
      -v, --verbose[=<LEVEL>]  Tell what is done: 1 the steps, 2 each request; never a secret

    Examples:
      kubectl headlamp login
      kubectl headlamp login --context staging --prompt select_account
      kubectl headlamp login --issuer-url https://id.example.com --client-id kubernetes
      kubectl headlamp login --provider entra --tenant <tenant id> --aks --client-id <application id>
    ");
}

#[test]
fn the_help_of_logout() {
    assert_snapshot!(printed(&["logout", "-h"]), @"
    exit 0
    stdout:
    Revokes and deletes your tokens

    Usage: kubectl headlamp logout [OPTIONS]

    Options:
          --all   Every identity that has tokens here, configured or not
      -h, --help  Print help (see more with '--help')

    Kubeconfig:
          --kubeconfig <FILE>  The kubeconfig file [default: the files in KUBECONFIG, else
                               ~/.kube/config]
          --context <NAME>     The context to use [default: the current one]
          --user <NAME>        The user to use, in place of the context's
          --cluster <NAME>     The cluster to use, in place of the context's

    Provider:
          --provider <KIND>
              The provider: `entra` fills in what the tutorial has you type [possible values: oidc,
              entra]
          --tenant <TENANT>
              Entra ID: directory (tenant) ID
          --aks[=<BOOL>]
              Entra ID: ask for the token that AKS wants [possible values: true, false]
          --issuer-url <URL>
              The issuer, as its discovery document names it
          --client-id <ID>
              The client that is registered with the provider
          --client-secret <SECRET>
              The client's secret; better in a file, a command or the environment: arguments can be seen
          --client-secret-file <FILE>
              A file that holds the client's secret
          --client-secret-command <COMMAND>
              A command that prints the client's secret
          --client-authentication <METHOD>
              How the client proves itself [possible values: auto, basic, post]
          --scope <SCOPE>
              A scope to ask for; `openid` always is. Can be repeated
          --resource <URL>
              A resource that the token is for (RFC 8707). Can be repeated
          --token-type <TYPE>
              Which token the cluster is given [default: id] [possible values: id, access]
          --token-issuer <URL>
              The issuer that an access token names, where it is another than the provider
          --token-audience <AUDIENCE>
              The audience that an access token names
          --auth-param <KEY=VALUE>
              A further parameter of the authorization request. Can be repeated
          --request-header <NAME=VALUE>
              A further header of every request to the provider. Can be repeated
          --refresh-scopes <WHEN>
              Whether a refresh asks for the scopes again [default: auto] [possible values: auto,
              always, never]

    Sign-in:
          --flow <FLOW>
              How to sign in [default: auto] [possible values: auto, browser, device, paste, password,
              client-credentials]
          --login-hint <USER>
              The account to sign in with
          --prompt <PROMPT>
              What the provider shall show: login, consent, select_account, none
          --redirect-url <URL>
              The address that is registered with the provider [default:
              http://localhost:[PORT]/oidc-callback]
          --listen-address <ADDRESS>
              Where to listen for the answer, if not at the redirect's own port. Can be repeated: the
              first free one is used
          --callback-certificate <FILE>
              A certificate to serve the callback over TLS
          --callback-key <FILE>
              The key of that certificate
          --open-url-after-authentication <URL>
              Where the browser goes when it is done
          --browser-command <COMMAND>
              The command that opens a browser; the address is its last argument, or stands where `%s`
              does
          --no-browser[=<BOOL>]
              Do not open a browser: print the address [possible values: true, false]
          --hide-url[=<BOOL>]
              Print no address while the browser that was opened waits (for full-screen programs)
              [possible values: true, false]
          --interactive <WHEN>
              Whether a person may be asked [default: auto] [possible values: auto, never, always]
          --timeout <TIME>
              How long a sign-in may take, in seconds or as 90s, 5m, 1h [default: 3m]
          --username <NAME>
              The user name of the password flow
          --password <PASSWORD>
              The password of the password flow; better in a file or the environment: arguments can be
              seen
          --password-file <FILE>
              A file that holds the password

    Connection:
          --certificate-authority <FILE>
              A file of CA certificates to trust besides the system's. Can be repeated
          --certificate-authority-data <BASE64>
              CA certificates to trust besides the system's, as base64 of PEM. Can be repeated
          --insecure-skip-tls-verify[=<BOOL>]
              Trust whoever answers: anyone on the way can take your tokens [possible values: true,
              false]
          --client-certificate <FILE>
              A certificate to show the provider (mutual TLS)
          --client-key <FILE>
              The key of that certificate

    Cache:
          --cache-dir <FOLDER>       The folder of the cached tokens
          --token-storage <WHERE>    Where tokens are kept [default: file] [possible values: file, none]
          --minimum-validity <TIME>  A cached token with less time left is renewed first [default: 90s]
          --force-refresh[=<BOOL>]   Renew the token even if it is still valid [possible values: true,
                                     false]

    Other:
      -v, --verbose[=<LEVEL>]  Tell what is done: 1 the steps, 2 each request; never a secret

    Examples:
      kubectl headlamp logout
      kubectl headlamp logout --context staging
      kubectl headlamp logout --all
    ");
}

#[test]
fn the_help_of_status() {
    assert_snapshot!(printed(&["status", "-h"]), @"
    exit 0
    stdout:
    Shows who you are signed in as, where, and until when

    Usage: kubectl headlamp status [OPTIONS]

    Options:
      -o, --output <FORMAT>  How to print it [default: text] [possible values: text, json, yaml]
          --verify           Ask the cluster whom it takes you for; renews the token if it has run out,
                             and never signs in
      -h, --help             Print help (see more with '--help')

    Kubeconfig:
          --kubeconfig <FILE>  The kubeconfig file [default: the files in KUBECONFIG, else
                               ~/.kube/config]
          --context <NAME>     The context to use [default: the current one]
          --user <NAME>        The user to use, in place of the context's
          --cluster <NAME>     The cluster to use, in place of the context's

    Provider:
          --provider <KIND>
              The provider: `entra` fills in what the tutorial has you type [possible values: oidc,
              entra]
          --tenant <TENANT>
              Entra ID: directory (tenant) ID
          --aks[=<BOOL>]
              Entra ID: ask for the token that AKS wants [possible values: true, false]
          --issuer-url <URL>
              The issuer, as its discovery document names it
          --client-id <ID>
              The client that is registered with the provider
          --client-secret <SECRET>
              The client's secret; better in a file, a command or the environment: arguments can be seen
          --client-secret-file <FILE>
              A file that holds the client's secret
          --client-secret-command <COMMAND>
              A command that prints the client's secret
          --client-authentication <METHOD>
              How the client proves itself [possible values: auto, basic, post]
          --scope <SCOPE>
              A scope to ask for; `openid` always is. Can be repeated
          --resource <URL>
              A resource that the token is for (RFC 8707). Can be repeated
          --token-type <TYPE>
              Which token the cluster is given [default: id] [possible values: id, access]
          --token-issuer <URL>
              The issuer that an access token names, where it is another than the provider
          --token-audience <AUDIENCE>
              The audience that an access token names
          --auth-param <KEY=VALUE>
              A further parameter of the authorization request. Can be repeated
          --request-header <NAME=VALUE>
              A further header of every request to the provider. Can be repeated
          --refresh-scopes <WHEN>
              Whether a refresh asks for the scopes again [default: auto] [possible values: auto,
              always, never]

    Sign-in:
          --flow <FLOW>
              How to sign in [default: auto] [possible values: auto, browser, device, paste, password,
              client-credentials]
          --login-hint <USER>
              The account to sign in with
          --prompt <PROMPT>
              What the provider shall show: login, consent, select_account, none
          --redirect-url <URL>
              The address that is registered with the provider [default:
              http://localhost:[PORT]/oidc-callback]
          --listen-address <ADDRESS>
              Where to listen for the answer, if not at the redirect's own port. Can be repeated: the
              first free one is used
          --callback-certificate <FILE>
              A certificate to serve the callback over TLS
          --callback-key <FILE>
              The key of that certificate
          --open-url-after-authentication <URL>
              Where the browser goes when it is done
          --browser-command <COMMAND>
              The command that opens a browser; the address is its last argument, or stands where `%s`
              does
          --no-browser[=<BOOL>]
              Do not open a browser: print the address [possible values: true, false]
          --hide-url[=<BOOL>]
              Print no address while the browser that was opened waits (for full-screen programs)
              [possible values: true, false]
          --interactive <WHEN>
              Whether a person may be asked [default: auto] [possible values: auto, never, always]
          --timeout <TIME>
              How long a sign-in may take, in seconds or as 90s, 5m, 1h [default: 3m]
          --username <NAME>
              The user name of the password flow
          --password <PASSWORD>
              The password of the password flow; better in a file or the environment: arguments can be
              seen
          --password-file <FILE>
              A file that holds the password

    Connection:
          --certificate-authority <FILE>
              A file of CA certificates to trust besides the system's. Can be repeated
          --certificate-authority-data <BASE64>
              CA certificates to trust besides the system's, as base64 of PEM. Can be repeated
          --insecure-skip-tls-verify[=<BOOL>]
              Trust whoever answers: anyone on the way can take your tokens [possible values: true,
              false]
          --client-certificate <FILE>
              A certificate to show the provider (mutual TLS)
          --client-key <FILE>
              The key of that certificate

    Cache:
          --cache-dir <FOLDER>       The folder of the cached tokens
          --token-storage <WHERE>    Where tokens are kept [default: file] [possible values: file, none]
          --minimum-validity <TIME>  A cached token with less time left is renewed first [default: 90s]
          --force-refresh[=<BOOL>]   Renew the token even if it is still valid [possible values: true,
                                     false]

    Other:
      -v, --verbose[=<LEVEL>]  Tell what is done: 1 the steps, 2 each request; never a secret

    Examples:
      kubectl headlamp status
      kubectl headlamp status --verify
      kubectl headlamp status -o json | jq '.sessions[0].person'
    ");
}

#[test]
fn no_help_spells_a_flag_as_kubelogin_does() {
    let theirs: Vec<String> = table("kubelogin's flag").into_iter().map(|row| row[0].replace('`', "")).collect();
    assert!(theirs.len() > 30);
    for command in ["get-token", "login", "logout", "status"] {
        let help = printed(&[command, "--help"]).succeeded().stdout;
        let words: BTreeSet<&str> = help.split([' ', '\n', ',', '[', '=', '(']).collect();
        for flag in &theirs {
            assert!(!words.contains(flag.as_str()), "{command}: {flag}");
        }
    }
}

#[test]
fn readme_and_help_name_the_same_commands() {
    let named: BTreeSet<String> = table("command")
        .into_iter()
        .map(|row| row[0].split('`').nth(1).unwrap().rsplit(' ').next().unwrap().to_owned())
        .collect();
    let help = printed(&["--help"]).succeeded().stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut listed: BTreeSet<String> = listed.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    listed.remove("help");
    assert_eq!(named, listed);
}

#[test]
fn readme_and_help_tell_the_same_exit_codes() {
    let help = printed(&["--help"]).succeeded().stdout;
    let codes = help.split("Exit codes:").nth(1).unwrap().split("\n\n").next().unwrap();
    let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = table("code");
    assert_eq!(rows.len(), 9);
    for row in rows {
        // The help is shorter, and wraps this one beside another column.
        let said = match row[1].as_str() {
            "a sign-in is needed, and nobody can be asked" => "sign-in needed, and nobody",
            "the sign-in was refused, cancelled or timed out" => "sign-in refused, cancelled or timed out",
            same => same,
        };
        assert!(codes.contains(&format!("{} {said}", row[0])), "{row:?}: {codes}");
    }
}

#[test]
fn what_readme_says_of_kubelogins_flags_is_what_they_do() {
    let sandbox = Sandbox::new(BINARY);
    let help = printed(&["get-token", "-h"]).succeeded().stdout;
    let rows = table("kubelogin's flag");
    for row in &rows {
        let (flag, says) = (row[0].replace('`', ""), &row[1]);
        // Without an issuer and a client each run ends soon, but not before its flags are read.
        let output = sandbox.command(["get-token", &format!("{flag}=true")]).run();
        assert!(output.code == 2 && !output.stderr.contains("unexpected argument"), "{flag}: {output}");
        match says.split_once("as `").map(|(_, ours)| ours.split(['`', ' ']).next().unwrap()) {
            Some(ours) => assert!(help.contains(&format!(" {ours}")), "{flag}: {ours}"),
            None => assert!(says.starts_with("accepted"), "{flag}: {says}"),
        }
        if says.starts_with("accepted") {
            assert!(output.stderr.contains("no issuer: `--issuer-url` is missing"), "{flag}: {output}");
        }
    }
    // README's rows are the program's, and in its order.
    let flags = include_str!("../../src/kubelogin.rs").split("const FLAGS").nth(1).unwrap().split("];").next().unwrap();
    let flags = flags.lines().filter_map(|line| line.trim().trim_start_matches('(').strip_prefix('"'));
    let flags: Vec<String> = flags.map(|rest| format!("`--{}`", rest.split('"').next().unwrap())).collect();
    assert_eq!(rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>(), flags);
}
