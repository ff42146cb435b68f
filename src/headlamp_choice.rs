//! Which Headlamp is opened: the one that the user names, the one that was opened before, the only
//! one in a trusted namespace. Its page acts as the user, and anywhere else whoever has rights in
//! the namespace could have put it there: so that is confirmed once, or chosen from a list.

use std::fmt::Write;
use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

use crate::error::{Error, Kind, Result, printable};
use crate::headlamp::{self, Found, Headlamp};
use crate::headlamp_search::{TRUSTED, Wanted};
use crate::terminal;
use crate::ui::{StepAside, Ui};

/// The one that is opened.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) headlamp: Headlamp,
    /// What is to be remembered for the next time, as `remembered`; nothing where flags decided.
    pub(crate) remember: Option<Wanted>,
}

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) ui: Ui,
    /// Called before a question; what it returns is dropped with the answer.
    pub(crate) step_aside: StepAside,
    /// There is somebody: stdin may be read, and what we write is seen.
    pub(crate) there: bool,
}

impl Person {
    /// Whoever sits at our terminal.
    pub(crate) fn at_the_terminal(ui: Ui, step_aside: StepAside) -> Self {
        Self { ui, step_aside, there: terminal::stdin_may_be_read(true) && terminal::can_be_seen(ui) }
    }
}

/// What is to be done about what was found.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Take(Headlamp),
    Confirm(Headlamp),
    Ask(Vec<Headlamp>),
}

/// Finds the Headlamp to open. Each search may take as long as `limit`; a person is waited for. Hints
/// go on from `command`.
pub(crate) async fn choose(
    client: &Client,
    wanted: &Wanted,
    remembered: Option<&Wanted>,
    context_namespace: Option<&str>,
    person: Person,
    command: &str,
    limit: Duration,
) -> Result<Chosen> {
    let search = async |wanted: &Wanted| {
        let found = timeout(limit, headlamp::find(client, wanted, context_namespace)).await;
        found.unwrap_or_else(|_| Err(late(command, limit)))
    };
    let decided_by_flags = wanted.namespace.is_some() && wanted.service.is_some();
    if wanted.namespace.is_none()
        && wanted.service.is_none()
        && let Some(remembered) = remembered
    {
        let service_port = wanted.service_port.clone().or(remembered.service_port.clone());
        let remembered = Wanted { service_port, ..remembered.clone() };
        match search(&remembered).await {
            Ok(Found { headlamps, .. }) => {
                if let Some(headlamp) = headlamps.into_iter().next() {
                    return Ok(Chosen { headlamp, remember: Some(remembered) });
                }
            }
            Err(error) if error.kind() == Kind::Unreachable => return Err(error),
            // It is another thing now: looked for anew.
            Err(_) => {}
        }
    }
    let Found { headlamps, searched } = search(wanted).await?;
    let headlamp = match decide(headlamps, wanted) {
        None => return Err(searched.nothing_found(wanted, command)),
        Some(Decision::Take(headlamp)) => headlamp,
        Some(Decision::Confirm(headlamp)) => confirmed(headlamp, person, command).await?,
        Some(Decision::Ask(headlamps)) => one_of(headlamps, person, command).await?,
    };
    let remember = (!decided_by_flags).then(|| place_of(&headlamp, wanted));
    Ok(Chosen { headlamp, remember })
}

/// `None`: nothing was found.
fn decide(mut found: Vec<Headlamp>, wanted: &Wanted) -> Option<Decision> {
    let is_trusted = |headlamp: &Headlamp| TRUSTED.contains(&headlamp.namespace.as_str());
    let trusted = found.iter().filter(|headlamp| is_trusted(headlamp)).count();
    // Who names the namespace trusts it.
    if found.len() == 1 && (wanted.namespace.is_some() || trusted == 1) {
        return found.pop().map(Decision::Take);
    }
    if wanted.namespace.is_none() && trusted == 1 {
        return found.into_iter().find(is_trusted).map(Decision::Take);
    }
    match found.len() {
        0 => None,
        1 => found.pop().map(Decision::Confirm),
        _ => Some(Decision::Ask(found)),
    }
}

async fn confirmed(headlamp: Headlamp, person: Person, command: &str) -> Result<Headlamp> {
    let namespace = &headlamp.namespace;
    let why = format!(
        "whoever has rights in the namespace `{namespace}` may have put it there, and its page acts in the cluster as you"
    );
    if !person.there {
        return Err(Error::new(
            Kind::Other,
            format!("the Headlamp in the namespace `{namespace}` is not opened unasked"),
        )
        .cause(why)
        .cause(format!("it is {}", line_of(&headlamp)))
        .hint(format!("if you trust it: `{}`", opening(command, &headlamp))));
    }
    let question =
        format!("Headlamp was found here:\n\n  {}\n\nBeware: {}.\nOpen it? [y/N]", line_of(&headlamp), printable(&why));
    let _aside = (person.step_aside)();
    loop {
        person.ui.prompt(&question, !person.ui.stderr_is_terminal());
        let line = terminal::read_line().await?;
        match line.as_ref().map(|line| line.expose().trim().to_ascii_lowercase()).as_deref() {
            Some("y" | "yes") => return Ok(headlamp),
            None | Some("" | "n" | "no") => {
                return Err(Error::new(Kind::Other, "nothing was opened").cause("it was not confirmed"));
            }
            Some(_) => {}
        }
    }
}

async fn one_of(mut headlamps: Vec<Headlamp>, person: Person, command: &str) -> Result<Headlamp> {
    if !person.there {
        let error =
            Error::new(Kind::Other, format!("{} Headlamps were found, and nobody can be asked which", headlamps.len()));
        return Err(headlamps.iter().take(MOST_SHOWN).fold(error, |error, headlamp| {
            error.hint(format!("`{}`: {}", opening(command, headlamp), line_of(headlamp)))
        }));
    }
    let mut question =
        "Several Headlamps were found. The page of the one that you open acts in the cluster as you.\n\n".to_owned();
    for (index, headlamp) in headlamps.iter().enumerate() {
        let _ = writeln!(question, "  {}  {}", index + 1, line_of(headlamp));
    }
    let _ = write!(question, "\nWhich one? [1-{}]", headlamps.len());
    let _aside = (person.step_aside)();
    loop {
        person.ui.prompt(&question, !person.ui.stderr_is_terminal());
        let line = terminal::read_line().await?;
        match line.as_ref().map(|line| line.expose().trim()) {
            None | Some("") => return Err(Error::new(Kind::Other, "nothing was opened").cause("none was chosen")),
            Some(text) => {
                let index = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                if let Some(index) = index.filter(|index| *index < headlamps.len()) {
                    return Ok(headlamps.swap_remove(index));
                }
            }
        }
    }
}

/// For a person to tell it from others; on one line, and nothing in it steers a terminal.
fn line_of(headlamp: &Headlamp) -> String {
    let Headlamp { namespace, name, image, version, .. } = headlamp;
    let version = version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
    let image = image.as_ref().map_or("no image known".to_owned(), |image| format!("image {image}"));
    printable(&format!("{namespace}/{name}{version}, {image}"))
}

/// What opens it without a question.
fn opening(command: &str, headlamp: &Headlamp) -> String {
    format!("{command} --namespace {} --service {}", headlamp.namespace, headlamp.name)
}

fn place_of(headlamp: &Headlamp, wanted: &Wanted) -> Wanted {
    Wanted {
        namespace: Some(headlamp.namespace.clone()),
        service: Some(headlamp.name.clone()),
        service_port: wanted.service_port.clone(),
    }
}

fn late(command: &str, limit: Duration) -> Error {
    Error::unreachable("Headlamp was not found in time")
        .cause(format!("the cluster did not answer within {} s", limit.as_secs()))
        .hint(format!("say where it is: `{command} --namespace NAMESPACE --service NAME`"))
}

/// Hints of an error.
const MOST_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use serde_json::json;

    use std::sync::Arc;

    use super::*;
    use crate::headlamp::Pods;
    use crate::headlamp::tests::{Cluster, chart};
    use crate::headlamp_container::Port;

    fn headlamp(namespace: &str, name: &str) -> Headlamp {
        Headlamp {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pods: Pods::Named(name.to_owned()),
            port: Port::Number(4466),
            base: String::new(),
            tls: false,
            image: Some("ghcr.io/headlamp-k8s/headlamp:v0.45.0".to_owned()),
            version: Some("0.45.0".to_owned()),
            warnings: Vec::new(),
        }
    }

    const COMMAND: &str = "kubectl headlamp open --context=dev";

    fn wanted(namespace: Option<&str>, service: Option<&str>) -> Wanted {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Wanted { namespace: owned(namespace), service: owned(service), service_port: None }
    }

    fn decision(found: &[&str], wanted: &Wanted) -> String {
        let found = found.iter().map(|namespace| headlamp(namespace, "headlamp")).collect();
        match decide(found, wanted) {
            None => "nothing".to_owned(),
            Some(Decision::Take(headlamp)) => format!("take {}", headlamp.namespace),
            Some(Decision::Confirm(headlamp)) => format!("confirm {}", headlamp.namespace),
            Some(Decision::Ask(headlamps)) => format!("ask {}", headlamps.len()),
        }
    }

    #[test]
    fn only_one_in_a_trusted_namespace_is_taken_unasked() {
        let any = Wanted::default();
        assert_eq!(decision(&[], &any), "nothing");
        assert_eq!(decision(&["headlamp"], &any), "take headlamp");
        assert_eq!(decision(&["kube-system"], &any), "take kube-system");
        assert_eq!(decision(&["kube-system", "team"], &any), "take kube-system");
        assert_eq!(decision(&["team"], &any), "confirm team");
        assert_eq!(decision(&["headlamp", "kube-system"], &any), "ask 2");
        assert_eq!(decision(&["headlamp-2", "headlamps"], &any), "ask 2");
    }

    #[test]
    fn a_namespace_that_is_named_is_trusted_and_a_service_alone_is_not() {
        assert_eq!(decision(&["team"], &wanted(Some("team"), None)), "take team");
        assert_eq!(decision(&["team"], &wanted(Some("team"), Some("headlamp"))), "take team");
        assert_eq!(decision(&["team", "team"], &wanted(Some("team"), None)), "ask 2");
        assert_eq!(decision(&["kube-system", "kube-system"], &wanted(Some("kube-system"), None)), "ask 2");
        assert_eq!(decision(&["team"], &wanted(None, Some("headlamp"))), "confirm team");
        assert_eq!(decision(&["team", "headlamp"], &wanted(None, Some("headlamp"))), "take headlamp");
    }

    fn with_nobody<T: std::fmt::Debug>(asking: impl Future<Output = Result<T>>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(asking).unwrap_err().to_string()
    }

    fn nobody() -> Person {
        Person { ui: Ui::new(), step_aside: Arc::new(|| Box::new(())), there: false }
    }

    #[test]
    fn with_nobody_to_ask_the_error_has_the_command_that_means_consent() {
        let text = with_nobody(confirmed(headlamp("team", "ui"), nobody(), COMMAND));
        for part in [
            "`kubectl headlamp open --context=dev --namespace team --service ui`",
            "headlamp:v0.45.0",
            "acts in the cluster as you",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        let several = vec![headlamp("team", "ui"), headlamp("other", "headlamp")];
        let text = with_nobody(one_of(several, nobody(), COMMAND));
        for part in
            ["2 Headlamps", "--context=dev --namespace team --service ui`", "dev --namespace other --service headlamp`"]
        {
            assert!(text.contains(part), "no {part}: {text}");
        }
    }

    fn chosen(cluster: &Cluster, remembered: Option<&Wanted>) -> Result<Chosen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new(cluster.clone(), "default");
            choose(&client, &Wanted::default(), remembered, None, nobody(), COMMAND, Duration::from_secs(30)).await
        })
    }

    #[test]
    fn the_one_that_was_opened_before_is_taken_unasked_and_nothing_else_is_looked_at() {
        let cluster = Cluster::of([chart("team", "ui", &json!({})), chart("headlamp", "ui", &json!({}))].concat());
        let remembered = wanted(Some("team"), Some("ui"));
        let chosen = chosen(&cluster, Some(&remembered)).unwrap();
        assert_eq!((chosen.headlamp.namespace.as_str(), chosen.remember), ("team", Some(remembered)));
        assert!(cluster.asked().iter().all(|place| place.starts_with("team/")), "{:?}", cluster.asked());
    }

    #[test]
    fn one_that_was_opened_before_and_is_gone_is_looked_for_anew() {
        let remembered = wanted(Some("team"), Some("old"));
        let cluster = Cluster::of(chart("headlamp", "ui", &json!({})));
        let headlamp = chosen(&cluster, Some(&remembered)).unwrap();
        assert_eq!(headlamp.headlamp.namespace, "headlamp");
        assert_eq!(headlamp.remember, Some(wanted(Some("headlamp"), Some("ui"))));

        let planted = Cluster::of(chart("elsewhere", "ui", &json!({})));
        let refused = chosen(&planted, Some(&remembered)).unwrap_err();
        assert!(refused.message().contains("is not opened unasked"), "{refused}");
        let none = chosen(&Cluster::of(vec![]), None).unwrap_err();
        assert!(none.message().contains("no Headlamp was found"), "{none}");
    }

    #[test]
    fn nothing_from_the_cluster_steers_the_terminal() {
        let mut hostile = headlamp("te\u{1b}[2Jam", "a\nb");
        hostile.image = Some("x\u{202e}y".to_owned());
        assert_eq!(line_of(&hostile), "te[2Jam/a b, version 0.45.0, image xy");
    }
}
