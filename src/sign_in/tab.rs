//! Authorization code in a browser tab that is there already: the page of `open` asked for the
//! sign-in, so no browser is started and nothing is printed. The tab goes to the provider by way of
//! the callback listener, and comes back to where it was.

use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use super::{Grant, SignIn, in_browser};
use crate::error::{Error, Kind, Result};
use crate::oidc::{self, AuthorizationExtra};
use crate::options::{Flow, Interactive};
use crate::secret::Secret;
use crate::settings::Settings;

/// A browser tab that waits to be sent to the provider.
#[derive(Clone)]
pub(crate) struct Tab {
    /// Takes where it is to go: the callback listener's start address. Nothing is sent where another
    /// process signs in meanwhile, or where the sign-in fails before.
    pub(crate) address: UnboundedSender<Secret>,
    /// Where it goes when the person is signed in, and may go when not.
    pub(crate) back: Url,
}

/// Whether these settings sign in where a tab can be: in a browser on this machine.
pub(crate) fn serves(settings: &Settings) -> bool {
    let in_browser = match settings.flow {
        Flow::Browser => true,
        Flow::Auto => settings.username.is_none(),
        Flow::Device | Flow::Paste | Flow::Password | Flow::ClientCredentials => false,
    };
    in_browser && settings.interactive != Interactive::Never
}

pub(crate) async fn sign_in(context: SignIn<'_>, tab: &Tab) -> Result<Grant> {
    let listener = in_browser::listen(context).await?;
    let extra = AuthorizationExtra { prompt: context.settings.prompt.as_deref(), claims: context.claims };
    let attempt = oidc::authorization(context.client, listener.redirect(), &extra)?;
    tab.address.send(listener.start_url()).map_err(|_| left())?;
    context.asked.set(true);
    let answer = listener.answer(&attempt.url, &attempt.state).await?;
    in_browser::answered(context, &listener, &attempt, answer).await
}

/// The end of a sign-in whose tab is gone, or after which another tab asked.
pub(crate) fn left() -> Error {
    Error::new(Kind::Interrupted, "the sign-in was left, or goes on in another tab")
}

#[cfg(test)]
mod tests;
