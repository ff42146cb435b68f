//! `--sign-in headlamp`: the tutorial's port-forward, which outlives pods, and Headlamp's own button.

use std::sync::Arc;

use super::{Open, RESERVED_PORT, connect};
use crate::error::Result;
use crate::open_state::{self, OpenState};
use crate::peer::Owners;
use crate::plain_forward;
use crate::port_forward::PortForward;
use crate::secret::Secret;
use crate::status_line::{Serving, Status};

pub(super) async fn run(open: &Open<'_>) -> Result<()> {
    let port = open.arguments.port.unwrap_or(RESERVED_PORT);
    let listeners = plain_forward::listen(port).await?;
    open.review().await?;
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
    tokio::select! {
        never = plain_forward::serve(listeners, connect(&forward), Owners::of_this_process(), tell) => match never {},
        failed = showing.show(&url, &ports) => failed.map(|never| match never {}),
    }
}
