//! What is wanted of an identity's tokens, and whether one serves.

use jiff::Timestamp;

use crate::cache::{Entry, Token};
use crate::clock::Clock;
use crate::environment::Environment;
use crate::id_token::LEEWAY;
use crate::options::TokenType;
use crate::settings::Settings;
use crate::sign_in::Tab;
use crate::ui::Ui;

/// What every step is handed.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) ui: Ui,
    pub(crate) environment: &'a Environment,
    pub(crate) clock: Clock,
    /// kubectl's word on stdin (`spec.interactive`), `None` where a person runs us.
    pub(crate) interactive: Option<bool>,
    /// The cluster that the token is for, for the page that the browser shows.
    pub(crate) cluster: Option<&'a str>,
    /// The browser tab that a sign-in takes place in, where [`crate::sign_in::tab::serves`] says that it can.
    pub(crate) tab: Option<&'a Tab>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A token that is good for a while, from wherever.
    Valid,
    /// A token newer than the cached one.
    Refreshed,
    /// A new sign-in, whatever the cache says.
    SignedIn,
}

/// The entry's token of the type that the cluster is given.
pub(crate) fn wanted(settings: &Settings, entry: Entry) -> Option<Token> {
    match settings.token_type {
        TokenType::Id => entry.id_token,
        TokenType::Access => entry.access_token,
    }
}

/// Whether the token has enough time left to be handed out from the cache.
pub(crate) fn lasts(settings: &Settings, token: &Token, now: Timestamp) -> bool {
    token.expires.duration_since(now) > settings.cache.minimum_validity
}

pub(crate) fn type_name(token_type: TokenType) -> &'static str {
    match token_type {
        TokenType::Id => "an ID token",
        TokenType::Access => "an access token",
    }
}

/// Whether the token has ended, for a clock that may be as wrong as that of an ID token's reader.
pub(crate) fn ended(token: &Token, now: Timestamp) -> bool {
    token.expires.saturating_add(LEEWAY).unwrap_or(token.expires) <= now
}
