//! Authorization code with PKCE in a browser on this machine (RFC 8252): the provider sends the
//! browser back to a listener of ours, or its last address is pasted here.

use std::time::Duration;

use super::{Grant, SignIn, failure, nobody, paste};
use crate::browser::Opener;
use crate::callback::{self, Answer, Bind, Listener, Page, Taken};
use crate::error::{Error, Result};
use crate::oidc::{self, Attempt, AuthorizationExtra, Refusal};
use crate::open_state;
use crate::secret::Secret;

/// `opener` is `None` where a person is to open the address that is printed.
pub(crate) async fn sign_in(context: SignIn<'_>, opener: Option<Opener>) -> Result<Grant> {
    let listener = listen(context).await?;
    in_browser(context, opener, &listener).await
}

/// How the answer came.
enum Came {
    ByCallback(Box<Answer>),
    Pasted(Secret),
}

async fn in_browser(context: SignIn<'_>, opener: Option<Opener>, listener: &Listener) -> Result<Grant> {
    let settings = context.settings;
    let extra = AuthorizationExtra { prompt: settings.prompt.as_deref(), claims: context.claims };
    let attempt = oidc::authorization(context.client, listener.redirect(), &extra)?;
    let start = listener.start_url();
    let came = tokio::select! {
        answer = listener.answer(&attempt.url, &attempt.state) => Came::ByCallback(Box::new(answer?)),
        error = open(context, opener, &start) => return Err(error),
        code = paste::pasted_code(context, &attempt), if context.presence.stdin => Came::Pasted(code?),
    };
    match came {
        Came::ByCallback(answer) => answered(context, listener, &attempt, *answer).await,
        Came::Pasted(code) => redeem(context, &attempt, &code, listener.redirect()).await,
    }
}

/// Opens the browser and tells where it went. Comes to an end only if nobody can sign in: the
/// browser did not start, and nobody sees the address.
async fn open(context: SignIn<'_>, opener: Option<Opener>, start: &Secret) -> Error {
    let SignIn { settings, ui, presence, .. } = context;
    context.asked.set(true);
    let issuer = &settings.identity.issuer;
    let tell = |how: &str| {
        let paste = if presence.stdin { "\nor paste here the address that your browser ends at" } else { "" };
        ui.prompt(&format!("{how} to sign in to {issuer}:\n\n  {}\n{paste}", start.expose()), presence.terminal_too);
    };
    let Some(opener) = opener else {
        tell("Open this address in a browser on this machine");
        return std::future::pending().await;
    };
    let reason = match opener.open(start).await {
        Err(error) => error.causes().first().cloned().unwrap_or_else(|| error.message().to_owned()),
        Ok(mut browser) => {
            if !settings.browser.hide_url {
                tell("A browser was opened; if you do not see it, open this address");
            }
            // The address may be opened as often as it takes.
            browser.failed(|| Some(start.clone())).await
        }
    };
    if presence.sees {
        ui.note(format!("no browser could be started: {reason}"));
        tell("Open this address in a browser on this machine");
        return std::future::pending().await;
    }
    nobody(settings, &format!("no browser could be started: {reason}"))
}

pub(super) async fn answered(
    context: SignIn<'_>,
    listener: &Listener,
    attempt: &Attempt,
    answer: Answer,
) -> Result<Grant> {
    let result = async {
        oidc::check_callback_issuer(context.provider, answer.issuer.as_deref())?;
        let code = answer.result.map_err(|refusal| {
            Refusal::from_callback(refusal, attempt).explained("the provider refused the sign-in", context.settings)
        })?;
        redeem(context, attempt, &code, listener.redirect()).await
    };
    match result.await {
        Ok(grant) => Ok(Grant { page: Some(answer.reply), ..grant }),
        Err(error) => {
            answer.reply.show(&Page::of_error(&error, context.tab.map(|tab| &tab.back))).await;
            Err(error)
        }
    }
}

async fn redeem(context: SignIn<'_>, attempt: &Attempt, code: &Secret, redirect: &str) -> Result<Grant> {
    let reply = oidc::exchange(context.client, code, redirect, attempt)
        .await
        .map_err(|error| failure(error, "the provider gave no token for the code", context.settings))?;
    Ok(Grant { reply, nonce: Some(attempt.nonce.clone()), page: None })
}

/// Listens at the first place that is free. A place where another sign-in of ours waits is waited for.
pub(super) async fn listen(context: SignIn<'_>) -> Result<Listener> {
    let mut told = false;
    loop {
        let taken = match callback::bind(&context.settings.callback).await? {
            Bind::Listening(listener) => return Ok(listener),
            Bind::Taken(taken) => taken,
        };
        let Some(ours) = taken.iter().find(|taken| signs_in(context, taken)) else {
            return Err(port_taken(&taken));
        };
        if !told {
            let process = ours.by.as_ref().map(|holder| format!(" of process {}", holder.pid)).unwrap_or_default();
            context.ui.note(format!("waiting for the sign-in{process}, which uses port {}", ours.port));
            told = true;
        }
        tokio::time::sleep(PORT_POLL).await;
    }
}

/// Whether another process of ours waits there for its own sign-in, and so not for ever.
fn signs_in(context: SignIn<'_>, taken: &Taken) -> bool {
    let serves = |pid| open_state::serves(open_state::folder(context.environment), pid, taken.port);
    let holder = taken.by.as_ref();
    holder.is_some_and(|holder| holder.ours && holder.pid != std::process::id() && !serves(holder.pid))
}

fn port_taken(taken: &[Taken]) -> Error {
    let ports: Vec<String> = taken.iter().map(|taken| taken.port.to_string()).collect();
    let error = Error::sign_in_failed(format!("cannot wait for the browser's answer on port {}", ports.join(", ")));
    let error = taken.iter().fold(error, |error, taken| {
        let by = match &taken.by {
            Some(holder) if holder.ours => format!(": `kubectl headlamp open` (process {}) serves there", holder.pid),
            Some(holder) => format!(": `{}` (process {}) listens there", holder.name, holder.pid),
            None => ": another program listens there".to_owned(),
        };
        error.cause(format!("port {} is taken{by}", taken.port))
    });
    error
        .hint("end that program, then try again")
        .hint("or register another redirect with the provider and name it, such as `--redirect-url http://localhost:18000/oidc-callback`")
}

/// How often a port that another sign-in holds is tried again.
const PORT_POLL: Duration = Duration::from_millis(200);
