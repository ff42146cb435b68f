//! The report as a person reads it.

use std::fmt::Write;

use jiff::Timestamp;

use super::report::{ClusterReport, Configured, Context, Report, SessionReport, State, TokenReport};
use crate::clock::{in_utc, in_words};
use crate::settings::Subject;

/// One paragraph for each identity; `*` marks the current one.
pub(super) fn text(report: &Report, now: Timestamp) -> String {
    let mut paragraphs: Vec<String> = Vec::new();
    paragraphs.extend(report.context.as_ref().and_then(other_way));
    paragraphs.extend(report.cluster.as_ref().map(cluster));
    paragraphs.extend(report.sessions.iter().map(|one| session(one, now)));
    if paragraphs.is_empty() {
        paragraphs.push("no tokens are kept, and no user of the kubeconfig gets any here\n".to_owned());
    }
    paragraphs.join("\n")
}

/// For a context that is none of ours.
fn other_way(context: &Context) -> Option<String> {
    let way = context.signs_in_with.as_ref()?;
    let of = context.name.as_ref().map(|name| format!("the context `{name}`")).unwrap_or_default();
    let user = context.user.as_ref().map(|user| format!("the user `{user}`")).unwrap_or_default();
    let who = [user, of].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" of ");
    Some(format!("{who} (in {}) signs in with {way}: there is nothing to sign in to here\n", context.file))
}

fn cluster(cluster: &ClusterReport) -> String {
    let ClusterReport { name, server, user } = cluster;
    let groups =
        if user.groups.is_empty() { "no group".to_owned() } else { format!("the groups {}", quoted(&user.groups)) };
    format!("the cluster `{name}` ({server}) knows you as `{}`, in {groups}\n", user.username)
}

fn session(session: &SessionReport, now: Timestamp) -> String {
    let mut lines = Lines(String::new());
    lines.head(session);
    if let Some(person) = &session.person {
        lines.line("signed in as", &person.shown);
    }
    if let Some(time) = session.signed_in {
        lines.line("since", &format!("{} ({} ago)", in_utc(time), in_words(now.duration_since(time))));
    }
    lines.state(session);
    for (name, kind, token) in
        [("ID token", "id", &session.id_token), ("access token", "access", &session.access_token)]
    {
        if let Some(token) = token {
            let given = session.configured_by.iter().any(|configured| configured.token_type == Some(kind));
            lines.line(name, &told_token(token, given, session, now));
        }
    }
    if let Some(token) = &session.refresh_token {
        let end = token.expires.map_or_else(|| "good until the provider ends it".to_owned(), |end| told_end(end, now));
        lines.line("refresh token", &end);
    }
    if let Some(person) = session.person.as_ref().filter(|person| !person.groups.is_empty()) {
        lines.line("groups", &quoted(&person.groups));
    }
    for configured in &session.configured_by {
        lines.line("used by", &used_by(configured));
    }
    if session.configured_by.is_empty() && session.state != State::NotSignedIn {
        lines.line("used by", "no user of the kubeconfig");
    }
    lines.0
}

/// Names in a column, what is said of them beside it.
struct Lines(String);

impl Lines {
    fn head(&mut self, session: &SessionReport) {
        let mark = if session.current { '*' } else { ' ' };
        let what = match (&session.issuer, &session.client_id) {
            (Some(issuer), Some(client)) => format!("{issuer}, client `{client}`"),
            _ if session.state == State::Misconfigured => "a user whose settings are wrong".to_owned(),
            _ => "tokens that cannot be read".to_owned(),
        };
        let _ = writeln!(self.0, "{mark} {what}");
    }

    fn line(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.0, "    {name:<15}{text}");
    }

    /// What is to be done, where something is.
    fn state(&mut self, session: &SessionReport) {
        let problem = session.problem.as_deref().unwrap_or_default();
        match session.state {
            State::SignedIn if session.signs_in_as == Some(Subject::Client) => {
                self.line("signs in", "by itself, as the client");
            }
            State::SignedIn => {}
            State::Expired => self.line("expired", &format!("sign in again: `{}`", session.login)),
            State::NotSignedIn => self.line("not signed in", &format!("`{}`", session.login)),
            State::Damaged => {
                self.line("damaged", &format!("{problem}; the next sign-in replaces it: `{}`", session.login));
            }
            State::Misconfigured => self.line("wrong", problem),
        }
    }
}

fn told_token(token: &TokenReport, given: bool, session: &SessionReport, now: Timestamp) -> String {
    let mut told = told_end(token.expires, now);
    if !token.audience.is_empty() {
        let _ = write!(told, ", for {}", quoted(&token.audience));
    }
    if let Some(issuer) = token.issuer.as_ref().filter(|issuer| Some(*issuer) != session.issuer.as_ref()) {
        let _ = write!(told, ", issued by `{issuer}`");
    }
    if given {
        told.push_str("; the cluster is given this one");
    }
    told
}

fn told_end(end: Timestamp, now: Timestamp) -> String {
    if end > now {
        format!("good for {} (until {})", in_words(end.duration_since(now)), in_utc(end))
    } else {
        format!("ended {} ago ({})", in_words(now.duration_since(end)), in_utc(end))
    }
}

fn used_by(configured: &Configured) -> String {
    let Configured { user, contexts, file, .. } = configured;
    match contexts.as_slice() {
        [] => format!("user `{user}` in {file}, which no context uses"),
        [context] => format!("context `{context}`, user `{user}` in {file}"),
        contexts => format!("contexts {}, user `{user}` in {file}", quoted(contexts)),
    }
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
}
