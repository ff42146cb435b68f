//! What is known of every identity, in the shape that `-o json` and `-o yaml` print.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::api_server::WhoAmI;
use crate::cache::{Entry, Found, Person, Token};
use crate::commands::{identity_flags, shell_word};
use crate::configured::{All, Known, Target};
use crate::error::{Error, printable};
use crate::kubeconfig::{ClusterEntry, ExecUser, Kubeconfig, OtherUser};
use crate::options::TokenType;
use crate::settings::Subject;

/// The whole answer. Version 1 of this shape may gain members, and loses none. Names are in camel case,
/// times in RFC 3339; what is not known is left out. No token stands in it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// 1.
    pub(super) version: u32,
    /// The context that is meant, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Context>,
    /// The one that is meant first, then those that are signed in, then the rest.
    pub(super) sessions: Vec<SessionReport>,
    /// What the cluster says of us; with `--verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    /// The kubeconfig file that the user stands in.
    pub(super) file: String,
    /// Where the user signs in without this program: `a client certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signs_in_with: Option<String>,
}

/// One identity.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionReport {
    /// Whether it is the one that is meant: the current context's, or that of the flags.
    pub(super) current: bool,
    pub(super) state: State,
    /// Why the state is what it is, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<String>,
    /// `person`, or `client` where the client signs in as itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signs_in_as: Option<Subject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) person: Option<PersonReport>,
    /// When a person last signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signed_in: Option<Timestamp>,
    /// When the tokens were last obtained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refreshed: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<TokenReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access_token: Option<TokenReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<RefreshTokenReport>,
    /// The kubeconfig's users that use it.
    pub(super) configured_by: Vec<Configured>,
    /// The command that signs in, as short as the kubeconfig allows.
    #[serde(skip)]
    pub(super) login: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// kubectl gets a token, and nobody is asked.
    SignedIn,
    /// Tokens are there, and none is of use any more.
    Expired,
    NotSignedIn,
    /// The file cannot be used.
    Damaged,
    /// The kubeconfig's entry cannot be used.
    Misconfigured,
}

/// Who is signed in, as the provider says it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PersonReport {
    pub(super) subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    pub(super) groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    /// The name to call them by.
    #[serde(skip)]
    pub(super) shown: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenReport {
    pub(super) expires: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefreshTokenReport {
    /// Where the provider has said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Timestamp>,
}

/// A user of the kubeconfig.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configured {
    pub(super) user: String,
    pub(super) contexts: Vec<String>,
    pub(super) file: String,
    /// Which token the cluster is given: `id` or `access`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_type: Option<&'static str>,
}

/// The cluster's word on who we are.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterReport {
    pub(super) name: String,
    pub(super) server: String,
    #[serde(flatten)]
    pub(super) user: WhoAmI,
}

impl Context {
    pub(super) fn of(user: &ExecUser) -> Self {
        let ExecUser { name, context, file, cluster, .. } = user;
        Self::named(Some(name), context.as_ref(), cluster.as_ref(), file, None)
    }

    pub(super) fn of_other(user: &OtherUser) -> Self {
        let OtherUser { name, context, file, way, cluster } = user;
        Self::named(name.as_ref(), context.as_ref(), cluster.as_ref(), file, Some(way))
    }

    fn named(
        user: Option<&String>,
        context: Option<&String>,
        cluster: Option<&ClusterEntry>,
        file: &Path,
        way: Option<&String>,
    ) -> Self {
        Self {
            name: context.map(printable),
            user: user.map(printable),
            cluster: cluster.map(|cluster| printable(&cluster.name)),
            file: printable(&file.display()),
            signs_in_with: way.map(printable),
        }
    }
}

/// The kubeconfig, and the file of it that was named.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) kubeconfig: &'a Kubeconfig,
    pub(super) named: Option<&'a Path>,
}

/// Every identity. `meant` is the one that the command line means, or the current context.
pub(super) fn sessions(mut all: All, meant: Option<&Target>, source: Source<'_>, now: Timestamp) -> Vec<SessionReport> {
    let current = meant.map(|target| all.place(&target.settings));
    let known = all.known.iter().enumerate().map(|(at, known)| {
        let meant = meant.filter(|_| Some(at) == current);
        session(known, meant, source, now)
    });
    let wrong = all.wrong.iter().map(|(user, error)| misconfigured(user, error, source));
    let mut sessions: Vec<SessionReport> = known.chain(wrong).collect();
    let order = |session: &SessionReport| (!session.current, session.state, session.issuer.clone());
    sessions.sort_by_key(order);
    sessions
}

fn session(known: &Known, meant: Option<&Target>, source: Source<'_>, now: Timestamp) -> SessionReport {
    let entry = match &known.found {
        Found::Entry(entry) => Some(&**entry),
        Found::Absent | Found::Damaged(_) => None,
    };
    let wanted: Vec<TokenType> = match meant {
        Some(target) => vec![target.settings.token_type],
        None => known.users.iter().map(|user| user.settings.token_type).collect(),
    };
    let identity = known.identity.as_ref();
    let by_itself = identity.is_some_and(|identity| identity.subject == Subject::Client);
    let (state, problem) = match &known.found {
        // A client needs nobody to be asked.
        _ if by_itself && !known.users.is_empty() => (State::SignedIn, None),
        Found::Entry(entry) if is_usable(entry, &wanted, now) => (State::SignedIn, None),
        Found::Entry(_) => (State::Expired, None),
        Found::Absent => (State::NotSignedIn, None),
        Found::Damaged(reason) => (State::Damaged, Some(reason.clone())),
    };
    let refresh_token = entry.and_then(|entry| entry.refresh_token.as_ref().map(|_| entry.refresh_expires));
    SessionReport {
        current: meant.is_some(),
        state,
        problem,
        issuer: identity.map(|identity| printable(&identity.issuer)),
        client_id: identity.map(|identity| printable(&identity.client_id)),
        scopes: identity.map(|identity| identity.scopes.iter().map(printable).collect()).unwrap_or_default(),
        signs_in_as: identity.map(|identity| identity.subject),
        person: entry.and_then(|entry| entry.person.as_ref()).map(person),
        signed_in: entry.map(|entry| seconds(entry.signed_in)),
        refreshed: entry.map(|entry| seconds(entry.refreshed)),
        id_token: entry.and_then(|entry| entry.id_token.as_ref()).map(token),
        access_token: entry.and_then(|entry| entry.access_token.as_ref()).map(token),
        refresh_token: refresh_token.map(|end| RefreshTokenReport { expires: end.map(seconds) }),
        configured_by: known.users.iter().filter_map(|target| configured(target, source)).collect(),
        login: login(known, source),
    }
}

fn login(known: &Known, source: Source<'_>) -> String {
    let user = known.users.iter().find_map(|target| target.user.as_ref());
    let which = match (user, &known.identity) {
        (Some(ExecUser { context: Some(context), .. }), _) => format!(" --context {}", shell_word(context)),
        (Some(user), _) => format!(" --user {}", shell_word(&user.name)),
        (None, Some(identity)) => identity_flags(identity),
        (None, None) => String::new(),
    };
    let file = source.named.filter(|_| user.is_some()).map(|file| shell_word(&file.to_string_lossy()));
    let file = file.map(|file| format!(" --kubeconfig {file}")).unwrap_or_default();
    printable(&format!("kubectl headlamp login{file}{which}"))
}

/// Whether kubectl gets a token of each wanted type (of any, if none is known to be wanted) without
/// anybody being asked.
fn is_usable(entry: &Entry, wanted: &[TokenType], now: Timestamp) -> bool {
    let renewable = entry.refresh_token.is_some() && entry.refresh_expires.is_none_or(|end| end > now);
    let good = |token: &Option<Token>| token.as_ref().is_some_and(|token| token.expires > now);
    let (id, access) = (good(&entry.id_token), good(&entry.access_token));
    let good = wanted.iter().all(|wanted| match wanted {
        TokenType::Id => id,
        TokenType::Access => access,
    });
    renewable || (good && (id || access))
}

fn misconfigured(user: &ExecUser, error: &Error, source: Source<'_>) -> SessionReport {
    SessionReport {
        current: false,
        state: State::Misconfigured,
        problem: Some(error.message().to_owned()),
        issuer: None,
        client_id: None,
        scopes: Vec::new(),
        signs_in_as: None,
        person: None,
        signed_in: None,
        refreshed: None,
        id_token: None,
        access_token: None,
        refresh_token: None,
        configured_by: vec![used_by(user, None, source)],
        login: String::new(),
    }
}

fn configured(target: &Target, source: Source<'_>) -> Option<Configured> {
    Some(used_by(target.user.as_ref()?, Some(target.settings.token_type), source))
}

fn used_by(user: &ExecUser, token_type: Option<TokenType>, source: Source<'_>) -> Configured {
    Configured {
        user: printable(&user.name),
        contexts: source.kubeconfig.contexts_of(&user.name).into_iter().map(printable).collect(),
        file: printable(&user.file.display()),
        token_type: token_type.map(|token_type| match token_type {
            TokenType::Id => "id",
            TokenType::Access => "access",
        }),
    }
}

fn person(person: &Person) -> PersonReport {
    let shown = |text: &Option<String>| text.as_ref().map(printable);
    PersonReport {
        subject: printable(&person.subject),
        name: shown(&person.name),
        email: shown(&person.email),
        username: shown(&person.username),
        groups: person.groups.iter().map(printable).collect(),
        tenant: shown(&person.tenant),
        shown: person.name_to_show(),
    }
}

fn token(token: &Token) -> TokenReport {
    TokenReport {
        expires: seconds(token.expires),
        issuer: token.issuer.as_ref().map(printable),
        audience: token.audience.iter().map(printable).collect(),
    }
}

/// Nobody wants to read fractions of a second.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
