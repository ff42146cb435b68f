//! The client signs in as itself (RFC 6749 §4.4).

use super::{Grant, SignIn, failure};
use crate::error::Result;
use crate::oidc;

pub(crate) async fn sign_in(context: SignIn<'_>) -> Result<Grant> {
    let reply = oidc::client_credentials(context.client)
        .await
        .map_err(|error| failure(error, "the provider gave the client no token", context.settings))?;
    Ok(Grant { reply, nonce: None, page: None })
}
