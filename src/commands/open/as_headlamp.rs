//! `--sign-in headlamp`: the tutorial's port-forward, which outlives pods, and Headlamp's own button.

use std::pin::pin;
use std::sync::Arc;

use super::{Open, RESERVED_PORT, connect};
use crate::error::Result;
use crate::open_state::{self, OpenState};
use crate::peer::Owners;
use crate::plain_forward;
use crate::port_forward::PortForward;
use crate::secret::Secret;
use crate::status_line::{Serving, Status};
use crate::wake::{self, SleeplessClock};

pub(super) async fn run(open: &Open<'_>) -> Result<()> {
    let port = open.arguments.port.unwrap_or(RESERVED_PORT);
    // A sign-in of ours may need the very port.
    open.review().await?;
    let listeners = plain_forward::listen(port).await?;
    let at = listeners.first().and_then(|listener| listener.local_addr().ok());
    let port = at.map_or(port, |at| at.port());
    let mut state = OpenState::load(open_state::folder(open.environment), open.client.server());
    let headlamp = open.headlamp(&mut state).await?;
    if let Err(error) = state.save() {
        open.ui.note(error.message());
    }
    let forward = PortForward::new(open.client.kube(), &headlamp);
    open.progress("connecting to Headlamp's pod");
    drop(forward.connect().await?);
    let ui = open.ui;
    let tell = Arc::new(move |error: &crate::error::Error| ui.note(error.message()));
    let scheme = if headlamp.tls { "https" } else { "http" };
    let path = open.arguments.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = Secret::new(format!("{scheme}://localhost:{port}{}{slash}{path}", headlamp.base));
    open.line.show(Status::Serving(Serving {
        clusters: vec![format!("localhost:{port} to {}/{}", headlamp.namespace, headlamp.name)],
        ..Serving::default()
    }));
    let showing = open.showing();
    let ports = [port];
    let mut wakes = wake::watch(SleeplessClock::system());
    let mut served = pin!(plain_forward::serve(listeners, connect(&forward), Owners::of_this_process(), tell));
    let mut shown = pin!(showing.show(&url, &ports));
    loop {
        tokio::select! {
            never = &mut served => match never {},
            failed = &mut shown => return failed.map(|never| match never {}),
            Ok(()) = wakes.changed() => {
                open.client.reset();
                forward.reset();
            }
        }
    }
}
