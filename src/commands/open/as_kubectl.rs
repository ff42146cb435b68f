//! `--sign-in kubectl`, the usual way: the page's files from the pod, the API from here.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use url::form_urlencoded;

use super::showing::Forwarded;
use super::{LOOK, Open, connect, is_reserved};
use crate::browser_session::{BrowserSession, End};
use crate::cluster_client::Trouble;
use crate::error::{Error, Kind, Result};
use crate::gateway::{Event, Gateway, Parts};
use crate::gateway_headers::PagePolicy;
use crate::gateway_request::OWN_PREFIX;
use crate::headlamp::Headlamp;
use crate::headlamp_config;
use crate::kubeconfig_user::Impersonation;
use crate::loopback::{self, Bound};
use crate::open_state::{self, Claim, Holder, OpenState, Running};
use crate::peer::Owners;
use crate::port_forward::PortForward;
use crate::port_holder::PortHolder;
use crate::random::Random;
use crate::status_line::{Counted, Serving, Status};
use crate::ui_cache::UiCache;
use crate::ui_files::{Situation, UiFiles};
use crate::wake::{self, SleeplessClock};

/// Before a pod that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Tabs that ask a person to sign in are not opened more often.
const TAB_PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn run(open: &Open<'_>) -> Result<()> {
    let policy = PagePolicy::allowing(&open.arguments.allow_origin)?;
    let mut state = OpenState::load(open_state::folder(open.environment), open.client.server());
    open.review().await?;
    let page = Page::of(open, &mut state).await?;
    let place = match listen(open, &mut state, &page.name).await? {
        Place::Ours(place) => place,
        Place::Running(holder) => return show_running(open, &holder).await,
    };
    if let Err(error) = state.save() {
        open.ui.note(format!("{}: {}", error.message(), error.causes().join(": ")));
    }
    open.progress("fetching Headlamp's page");
    // What fails here is told when the browser asks for it, and by `situation`.
    let prefetched = page.files.clone();
    tokio::spawn(async move { prefetched.prefetch().await });
    let config = config(open, &page.files).await?;
    let name = headlamp_config::in_cluster_name(&config)?;
    let random = Random::system();
    let (events, mut told) = mpsc::unbounded_channel();
    let gateway = Gateway::new(Parts {
        port: place.port,
        base: page.base.clone(),
        clusters: vec![(name, open.client.clone())],
        files: page.files.clone(),
        session: BrowserSession::new(place.port, random)?,
        policy,
        hosts: place.hosts.clone(),
        owners: Owners::of_this_process(),
        events,
        random,
    });
    let start = gateway.start_page(open.arguments.path.as_deref())?;
    let showing = open.showing();
    // A later sign-in comes back to the browser's own machine too.
    let callbacks = open.callbacks.iter().filter(|_| open.client.signs_in_in_a_tab());
    let callbacks = callbacks.map(|callback| Forwarded { there: callback.redirect, here: callback.listen });
    let ports: Vec<Forwarded> = Some(Forwarded::same(place.port)).into_iter().chain(callbacks).collect();
    let mut serving = std::pin::pin!(gateway.serve(place.listeners));
    let mut shown = std::pin::pin!(showing.show(&start, &ports));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut wakes = wake::watch(SleeplessClock::system());
    let mut situation = page.files.situation();
    // It may have changed before anybody looked.
    situation.mark_changed();
    let mut told_so_far = Told { open, gateway: &gateway, last_tab: None, ended: None };
    loop {
        tokio::select! {
            result = &mut serving => return result,
            failed = &mut shown => return failed.map(|never| match never {}),
            Some(event) = told.recv() => {
                if let Some(page) = told_so_far.event(event) {
                    showing.show_again(&page).await;
                }
            }
            Ok(()) = wakes.changed() => {
                open.ui.detail(1, "this machine was asleep: connecting anew");
                open.client.reset();
                page.reset();
            }
            Ok(()) = situation.changed() => told_so_far.situation(&situation.borrow_and_update()),
            _ = look.tick() => told_so_far.look(&situation.borrow()),
        }
        if let Some((end, at)) = told_so_far.ended
            && at.elapsed() >= GOODBYE
        {
            return Err(over(end).hint(format!("`{}` opens it again", open.again)));
        }
    }
}

/// Headlamp's configuration, as soon as one of its pods answers.
async fn config(open: &Open<'_>, files: &UiFiles) -> Result<Bytes> {
    let until = Instant::now() + open.limit;
    loop {
        match timeout_at(until, files.config()).await {
            Err(_) => return Err(late(open)),
            Ok(Err(error)) if error.kind() == Kind::Unreachable && Instant::now() + AGAIN < until => {
                let cause = error.causes().first().map(|cause| format!(": {cause}")).unwrap_or_default();
                open.progress(&format!("{}{cause}", error.message()));
                sleep(AGAIN).await;
            }
            Ok(result) => return result,
        }
    }
}

/// Where the page is served.
enum Place {
    Ours(Listening),
    /// Another `open` shows the same.
    Running(Holder),
}

struct Listening {
    port: u16,
    listeners: Vec<TcpListener>,
    /// Values of `Host` beyond this machine's own.
    hosts: Vec<String>,
    _running: Running,
}

/// Takes the first port that is free, or finds that the page is open already.
async fn listen(open: &Open<'_>, state: &mut OpenState, page: &str) -> Result<Place> {
    let chosen = open.arguments.port;
    if let Some(other) = chosen.and_then(|port| state.port_of_another(page, port)) {
        open.ui.note(format!("this port was used for another page, {other}: the browser may still keep things of it"));
    }
    let ports = chosen.map_or_else(|| state.ports_to_try(page), |port| vec![port]);
    // One that was remembered may have become a sign-in's since.
    let ports = ports.into_iter().filter(|port| !is_reserved(*port, &open.callbacks));
    let user = as_whom(open, page);
    let mut error = Error::settings("no port is free for the page");
    for port in ports {
        let port = if port == 0 { any_port().await? } else { port };
        let this = Holder::this(port, Some(&user), open.target.context.as_deref());
        let running = match Running::take(state, &this)? {
            Claim::Mine(running) => running,
            Claim::Held(Some(holder)) if holder.shows_the_same_as(&this) => return Ok(Place::Running(holder)),
            Claim::Held(holder) => {
                let pid = holder.map(|holder| format!(" (process {})", holder.pid)).unwrap_or_default();
                error = error.cause(format!("port {port} is where this cluster is open as another user{pid}"));
                continue;
            }
        };
        match loopback::bind(port).await {
            Bound::Listening(listeners) => {
                state.use_port(page, port, chosen.is_some_and(|chosen| chosen != 0));
                for taken in error.causes() {
                    open.ui.note(format!("{taken}: using port {port}"));
                }
                return listen_further(open, Listening { port, listeners, hosts: Vec::new(), _running: running }).await;
            }
            Bound::Taken => {
                let by = PortHolder::of(port).map(|by| format!("`{}` (process {})", by.name, by.pid));
                let by = by.unwrap_or_else(|| "another program".to_owned());
                error = error.cause(format!("port {port} is taken by {by}"));
            }
            Bound::Failed(failure) => error = error.cause(format!("port {port}: {failure}")),
        }
    }
    Err(error.hint("`--port` chooses another one"))
}

/// A port that is free now.
async fn any_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| Error::settings("no port is free for the page").caused_by(&error))
}

/// `--address`.
async fn listen_further(open: &Open<'_>, mut place: Listening) -> Result<Place> {
    let Some(address) = open.arguments.address else { return Ok(Place::Ours(place)) };
    let at = SocketAddr::new(address, place.port);
    let have = place.listeners.iter().any(|listener| listener.local_addr().is_ok_and(|have| have == at));
    if !have {
        let listener = TcpListener::bind(at).await.map_err(|error| {
            Error::settings(format!("cannot listen at `{at}`"))
                .caused_by(&error)
                .hint("`--address` takes an address that this machine has")
        })?;
        place.listeners.push(listener);
        place.hosts.push(at.to_string());
    }
    if !address.is_loopback() {
        open.ui.warning(format!("whoever can read what is sent to `{at}` can act as you: it is not encrypted"));
    }
    Ok(Place::Ours(place))
}

/// Which page it is, and as whom: two that differ in this are two pages. A token or server that was typed
/// makes it one of its own.
fn as_whom(open: &Open<'_>, page: &str) -> String {
    let user = &open.target.user;
    let name = user.name.as_deref().unwrap_or_default();
    let arguments = open.arguments;
    let typed = arguments.cluster.overrides();
    let own = typed.token.is_some()
        || typed.server.is_some()
        || typed.certificate_authority.is_some()
        || typed.tls_server_name.is_some()
        || typed.insecure_skip_tls_verify
        || arguments.address.is_some()
        || !arguments.allow_origin.is_empty();
    let own = if own { format!(" of process {}", std::process::id()) } else { String::new() };
    let impersonate = &user.impersonate;
    let acted = impersonate.user.as_deref().map(|acted| {
        let Impersonation { groups, uid, extra, .. } = impersonate;
        format!(" as {acted} {groups:?} {uid:?} {extra:?}")
    });
    let file = arguments.cluster.kubeconfig.kubeconfig.as_deref().map(|file| file.display().to_string());
    let file = file.or_else(|| open.environment.text("KUBECONFIG").map(str::to_owned)).unwrap_or_default();
    let port = arguments.service_port.as_deref().unwrap_or_default();
    format!("{name}{} {page} {port} {file}{own}", acted.unwrap_or_default())
}

/// Another `open` serves it: its browser is let in by its cookie.
async fn show_running(open: &Open<'_>, holder: &Holder) -> Result<()> {
    let to = open
        .arguments
        .path
        .as_deref()
        .map(|path| form_urlencoded::Serializer::for_suffix("?".to_owned(), 1).append_pair("to", path).finish());
    let url = format!("http://localhost:{}{OWN_PREFIX}/return{}", holder.port, to.unwrap_or_default());
    open.ui.say(format!("Headlamp is open already, on port {} (process {})", holder.port, holder.pid));
    if open.arguments.no_browser {
        return open.ui.data(&format!("{url}\n"));
    }
    open.showing().show_again(&url).await;
    Ok(())
}

/// Where the page's files come from.
struct Page {
    /// Its own in the cluster: a Headlamp's namespace and name, or the folder.
    name: String,
    files: UiFiles,
    base: String,
    pod: Option<PortForward>,
}

impl Page {
    async fn of(open: &Open<'_>, state: &mut OpenState) -> Result<Self> {
        if let Some(folder) = &open.arguments.ui {
            let files = UiFiles::from_folder(folder, "")?;
            let name = folder.canonicalize().unwrap_or_else(|_| folder.clone()).display().to_string();
            return Ok(Self { name, files, base: String::new(), pod: None });
        }
        let headlamp = open.headlamp(state).await?;
        let pod = PortForward::new(open.client.kube(), &headlamp);
        let folder = open.environment.state_folder().map(|folder| folder.join("ui").join(state.key()));
        let Headlamp { namespace, name, tls, base, .. } = &headlamp;
        let name = format!("{namespace}/{name}");
        let cache = folder.map(|folder| UiCache::at(folder, &name, open.clock));
        let files = UiFiles::from_pod(connect(&pod), *tls, base, cache)?;
        Ok(Self { name, files, base: base.clone(), pod: Some(pod) })
    }

    fn reset(&self) {
        if let Some(pod) = &self.pod {
            pod.reset();
        }
        self.files.reset();
    }
}

/// What the terminal has been told.
struct Told<'a> {
    open: &'a Open<'a>,
    gateway: &'a Gateway,
    /// When a tab was last opened to sign in.
    last_tab: Option<Instant>,
    ended: Option<(End, Instant)>,
}

impl Told<'_> {
    /// Tells what happened. A page that the browser is to be shown.
    fn event(&mut self, event: Event) -> Option<String> {
        let ui = self.open.ui;
        match event {
            Event::Request { method, path, status, took } => {
                ui.detail(1, format!("{method} {path} {} {} ms", status.as_u16(), took.as_millis()));
            }
            Event::Opened => ui.step("the browser has the page"),
            Event::SignInNeeded(error) => {
                ui.note(format!("the page waits for a credential that the cluster takes: {}", error.message()));
                for hint in error.hints() {
                    ui.note(format!("hint: {hint}"));
                }
                if self.last_tab.is_none_or(|last| last.elapsed() >= TAB_PAUSE) {
                    self.last_tab = Some(Instant::now());
                    return Some(self.gateway.page_url());
                }
            }
            Event::SignedIn => ui.note("signed in again: the page goes on"),
            Event::LoggedOut => ui.note("logged out in the browser, where a button leads back; Ctrl-C ends it here"),
            Event::CameBack => ui.step("the browser came back"),
            Event::Ended(end) => self.ended = self.ended.or(Some((end, Instant::now()))),
        }
        None
    }

    fn situation(&self, situation: &Situation) {
        let ui = self.open.ui;
        match situation {
            Situation::NotAsked => {}
            Situation::Reached => ui.step("Headlamp's pod answers"),
            Situation::FromCache(error) => {
                ui.note(format!("the page comes from the cache: {}", error.message()));
            }
            Situation::Unreachable(error) => ui.note(format!("the page cannot be fetched: {}", error.message())),
        }
    }

    /// Draws the status line.
    fn look(&self, situation: &Situation) {
        let Open { client, target, line, clock, .. } = self.open;
        let trouble = match (&*client.trouble().borrow(), situation) {
            (Some(Trouble::SignIn(_)), _) if client.can_sign_in() => Some("sign in again in the browser"),
            (Some(_), _) => Some("the cluster refuses the credential"),
            (None, Situation::FromCache(_)) => Some("page from the cache"),
            (None, Situation::Unreachable(_)) => Some("Headlamp's pod cannot be reached"),
            (None, Situation::NotAsked | Situation::Reached) => None,
        };
        let counts = self.gateway.api().counts();
        line.show(Status::Serving(Serving {
            clusters: vec![target.context.clone().unwrap_or_else(|| client.server().to_owned())],
            who: client.who().map(|who| who.username),
            counted: Counted::Requests,
            count: counts.requests,
            live: counts.streams,
            left: client.expires().map(|end| end.duration_since(clock.now())),
            trouble: trouble.map(str::to_owned),
        }));
    }
}

fn over(end: End) -> Error {
    match end {
        End::StartedTwice => {
            Error::new(Kind::Other, "the start address was used a second time, so the page was closed")
                .cause("somebody else may have seen it")
        }
        End::AnotherUser => {
            Error::new(Kind::SignInFailed, "somebody else than before signed in, so the page was closed")
        }
    }
}

fn late(open: &Open<'_>) -> Error {
    Error::unreachable("Headlamp's page was not there in time")
        .cause(format!("waited for {:?} (`--timeout`)", open.limit))
        .hint("is its pod well? `kubectl logs` and `kubectl describe pod` of it say more")
        .hint("`--timeout 5m` waits longer")
}

/// For the browser to get the page that says so.
const GOODBYE: Duration = Duration::from_secs(2);
