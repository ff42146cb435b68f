//! In a browser anywhere; what its address bar shows at the end is pasted here.

use super::{Grant, SignIn, failure};
use crate::callback::{self, Pasted};
use crate::error::{Error, Result};
use crate::oidc::{self, Attempt, AuthorizationExtra, Refusal};
use crate::secret::Secret;
use crate::terminal;

pub(crate) async fn sign_in(context: SignIn<'_>) -> Result<Grant> {
    let settings = context.settings;
    let Some(place) = settings.callback.places.first() else {
        return Err(Error::bug("there is no redirect"));
    };
    let extra = AuthorizationExtra { prompt: settings.prompt.as_deref(), claims: context.claims };
    let attempt = oidc::authorization(context.client, &place.redirect, &extra)?;
    context.asked.set(true);
    context.ui.prompt(
        &format!(
            "Open this address in a browser and sign in:\n\n  {}\n\nThe browser then goes to an address that begins with\n  {}\nand may say that it cannot be reached. Copy that whole address from the browser and paste it here:",
            attempt.url.expose(),
            place.redirect
        ),
        context.presence.terminal_too,
    );
    let code = pasted_code(context, &attempt).await?;
    redeem(context, &attempt, &code, &place.redirect).await
}

/// Reads lines until one holds the answer to this attempt. What cannot be it is said and asked for again.
pub(crate) async fn pasted_code(context: SignIn<'_>, attempt: &Attempt) -> Result<Secret> {
    loop {
        let Some(line) = terminal::read_line().await? else {
            return Err(Error::sign_in_failed("the sign-in was cancelled").cause("standard input was closed"));
        };
        if line.expose().trim().is_empty() {
            continue;
        }
        match callback::parse_pasted(line.expose(), &attempt.state) {
            Ok(Pasted::Code(code)) => return Ok(code),
            Ok(Pasted::Answer(answer)) => {
                oidc::check_callback_issuer(context.provider, answer.issuer.as_deref())?;
                return answer.result.map_err(|refusal| {
                    Refusal::from_callback(refusal, attempt)
                        .explained("the provider refused the sign-in", context.settings)
                });
            }
            Err(error) => context.ui.prompt(
                &format!("{}: paste the whole address that the browser went to", error.message()),
                context.presence.terminal_too,
            ),
        }
    }
}

/// Exchanges the code for tokens.
async fn redeem(context: SignIn<'_>, attempt: &Attempt, code: &Secret, redirect: &str) -> Result<Grant> {
    let reply = oidc::exchange(context.client, code, redirect, attempt)
        .await
        .map_err(|error| failure(error, "the provider gave no token for the code", context.settings))?;
    Ok(Grant { reply, nonce: Some(attempt.nonce.clone()), page: None })
}
