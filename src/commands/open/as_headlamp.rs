//! `--sign-in headlamp`: the tutorial's port-forward, which outlives pods, and Headlamp's own button.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use super::showing::{Forwarded, Shown};
use super::{LOOK, Open, SIGN_IN_PORT, connect};
use crate::commands::login_command;
use crate::error::{Error, Kind, Result};
use crate::headlamp::Headlamp;
use crate::open_state::{self, Holder, OpenState, Running};
use crate::peer::Owners;
use crate::plain_forward::{self, Traffic};
use crate::port_forward::PortForward;
use crate::secret::Secret;
use crate::status_line::{Counted, Serving, Status};
use crate::wake::{self, SleeplessClock};

pub(super) async fn run(open: &Open<'_>) -> Result<()> {
    let port = open.arguments.port.unwrap_or(SIGN_IN_PORT);
    // A sign-in of ours may need the very port.
    open.review().await?;
    let listeners = plain_forward::listen(port).await?;
    let at = listeners.first().and_then(|listener| listener.local_addr().ok());
    let port = at.map_or(port, |at| at.port());
    let mut state = OpenState::load(open_state::folder(open.environment), open.client.server());
    // Sign-ins that need this port are told so, and do not wait.
    let _running = Running::take(&state, &Holder::this(port, None, open.target.context.as_deref()))?;
    let headlamp = open.headlamp(&mut state).await?;
    if let Err(error) = state.save() {
        open.ui.note(error.message());
    }
    let forward = PortForward::new(open.client.kube(), &headlamp);
    open.progress("connecting to Headlamp's pod");
    drop(forward.connect().await?);
    let traffic = Arc::<Traffic>::default();
    let page = Page { url: url(open, &headlamp, port), traffic: traffic.clone() };
    let showing = open.showing();
    let ports = [Forwarded::same(port)];
    let mut wakes = wake::watch(SleeplessClock::system());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut trouble = traffic.trouble();
    let served = plain_forward::serve(listeners, connect(&forward), Owners::of_this_process(), traffic.clone());
    let mut served = pin!(served);
    let mut shown = pin!(showing.show(&page, &ports));
    loop {
        tokio::select! {
            never = &mut served => match never {},
            failed = &mut shown => return failed.map(|never| match never {}),
            Ok(()) = wakes.changed() => {
                open.client.reset();
                forward.reset();
            }
            Ok(()) = trouble.changed() => tell(open, trouble.borrow_and_update().as_ref()),
            _ = look.tick() => open.line.show(status(open, &headlamp, port, &traffic)),
        }
    }
}

fn url(open: &Open<'_>, headlamp: &Headlamp, port: u16) -> Secret {
    let scheme = if headlamp.tls { "https" } else { "http" };
    let path = open.arguments.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Secret::new(format!("{scheme}://localhost:{port}{}{slash}{path}", headlamp.base))
}

/// Headlamp, for whoever comes.
struct Page {
    url: Secret,
    traffic: Arc<Traffic>,
}

impl Shown for Page {
    const ONCE: bool = false;

    fn address(&self) -> Option<Secret> {
        (self.traffic.connections() == 0).then(|| self.url.clone())
    }

    fn renewed_address(&self) -> Option<Secret> {
        self.address()
    }
}

/// Tells why the pod cannot be reached, or that it can be again.
fn tell(open: &Open<'_>, trouble: Option<&Error>) {
    let Some(error) = trouble else { return open.ui.note("Headlamp's pod answers again") };
    let words: Vec<&str> = [error.message()].into_iter().chain(error.causes().iter().map(String::as_str)).collect();
    open.ui.note(words.join(": "));
    for hint in error.hints() {
        open.ui.note(format!("hint: {hint}"));
    }
    // Nobody signs in here, but what another process signs in to is used at once.
    if let Some(entry) = open.own_entry.as_ref().filter(|_| error.kind() == Kind::SignInNeeded) {
        open.ui.note(format!("hint: `{}` mends it", login_command(entry, open.environment)));
    }
}

fn status(open: &Open<'_>, headlamp: &Headlamp, port: u16, traffic: &Traffic) -> Status {
    let trouble = traffic.trouble().borrow().as_ref().map(|error| match error.kind() {
        Kind::SignInNeeded => "the port-forward needs you to sign in again",
        _ => "Headlamp's pod cannot be reached",
    });
    Status::Serving(Serving {
        clusters: vec![format!("localhost:{port} to {}/{}", headlamp.namespace, headlamp.name)],
        // Whoever that is signs in there.
        who: None,
        counted: Counted::Connections,
        count: traffic.connections(),
        live: traffic.live(),
        left: open.client.expires().map(|end| end.duration_since(open.clock.now())),
        trouble: trouble.map(str::to_owned),
    })
}
