//! `logout`: the provider is told to forget the tokens, and their files are deleted.

use std::time::Duration;

use clap::Args;

use super::{block_on, tell_notes};
use crate::cache::{Cache, Entry, Found, Key, Person};
use crate::clock::Clock;
use crate::configured::{self, Known, Target};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::http::{Http, Limits};
use crate::kubeconfig::{self, KubeconfigArguments};
use crate::oidc::{self, Client, GrantError};
use crate::options::{self, Options};
use crate::secret::Secret;
use crate::session::Session;
use crate::settings::{self, Identity, Settings};
use crate::ui::Ui;
use crate::waiting::{Waited, wait_for_lock};

/// Revokes and deletes your tokens
///
/// Those of the current context's user, of the user that flags choose, or of the provider that they name. The provider is asked to revoke
/// them, if it can (RFC 7009); the files are deleted whatever it answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl headlamp logout
  kubectl headlamp logout --context staging
  kubectl headlamp logout --all")]
pub(crate) struct Arguments {
    /// Every identity that has tokens here, configured or not
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    kubeconfig: KubeconfigArguments,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(arguments: &Arguments, ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    let kubeconfig = kubeconfig::load(arguments.kubeconfig.kubeconfig.as_deref(), environment)?;
    let flags = &arguments.options;
    if arguments.all {
        let known = configured::all(&kubeconfig, flags, environment)?.known;
        return all(known, flags, ui.at(flags.verbose.unwrap_or(0)), environment, clock);
    }
    let Target { settings, .. } = configured::target(&kubeconfig, &arguments.kubeconfig, flags, "logout", environment)?;
    let ui = ui.at(settings.verbosity);
    tell_notes(&settings, ui);
    let nothing = format!("no tokens of {} were kept", settings.identity.issuer);
    let Some(folder) = settings.cache.folder.clone() else {
        ui.say(nothing);
        return Ok(());
    };
    let (cache, key) = (Cache::at(folder), Key::of(&settings.identity));
    if matches!(cache.read(&key)?, Found::Absent) {
        cache.delete(&key)?;
        ui.say(nothing);
        return Ok(());
    }
    block_on(sign_out(
        Session { settings: &settings, ui, environment, clock, interactive: None, cluster: None, tab: None },
        &cache,
        &key,
    ))
}

/// One after the other. One that cannot be deleted does not keep the others from it.
fn all(known: Vec<Known>, flags: &Options, ui: Ui, environment: &Environment, clock: Clock) -> Result<()> {
    let kept: Vec<Known> = known.into_iter().filter(|known| !matches!(known.found, Found::Absent)).collect();
    if kept.is_empty() {
        ui.say("no tokens were kept");
        return Ok(());
    }
    block_on(async {
        let mut failed: Option<Error> = None;
        for Known { key, identity, cache, users, .. } in kept {
            let Some(cache) = cache else { continue };
            let settings = match users.into_iter().next() {
                Some(user) => Some(user.settings),
                None => identity.as_ref().and_then(|identity| settings_of(identity, flags, environment).ok()),
            };
            let result = match &settings {
                Some(settings) => {
                    tell_notes(settings, ui);
                    let session =
                        Session { settings, ui, environment, clock, interactive: None, cluster: None, tab: None };
                    sign_out(session, &cache, &key).await
                }
                None => delete_unread(&cache, &key, ui),
            };
            if let Err(error) = result {
                if failed.is_some() {
                    ui.warning(error.message());
                }
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

/// The settings that an identity alone comes to: those of a public client.
fn settings_of(identity: &Identity, flags: &Options, environment: &Environment) -> Result<Settings> {
    let named = Options {
        issuer_url: Some(identity.issuer.clone()),
        client_id: Some(identity.client_id.clone()),
        insecure_skip_tls_verify: Some(!identity.tls_verified),
        ..Options::default()
    };
    let options = named.over(flags.clone()).over(options::of_environment(environment)?);
    settings::resolve(&options, environment)
}

/// Tokens that nobody can say whose they are.
fn delete_unread(cache: &Cache, key: &Key, ui: Ui) -> Result<()> {
    cache.delete(key)?;
    ui.say("tokens that could not be read: deleted");
    Ok(())
}

async fn sign_out(session: Session<'_>, cache: &Cache, key: &Key) -> Result<()> {
    let Session { settings, ui, .. } = session;
    let lock = match wait_for_lock(session, cache, key, "sign-out", || Ok(None::<std::convert::Infallible>)).await? {
        Waited::Lock(lock) => lock,
        Waited::Done(never) => match never {},
    };
    let issuer = &settings.identity.issuer;
    let told = match cache.read(key)? {
        Found::Absent => format!("no tokens of {issuer} were kept"),
        Found::Damaged(_) => format!("the tokens of {issuer} could not be read: deleted"),
        Found::Entry(entry) => {
            let who =
                entry.person.as_ref().map(Person::name_to_show).map(|name| format!(" as {name}")).unwrap_or_default();
            let done = match revoke(session, cache, &entry).await {
                Ok(Revoked::Yes) => "tokens revoked and deleted",
                Ok(Revoked::CannotBe) => {
                    "tokens deleted; the provider cannot revoke them, so a copy would be good until they end"
                }
                Err(error) => {
                    warn(ui, &error);
                    "tokens deleted"
                }
            };
            format!("signed out of {issuer}{who}: {done}")
        }
    };
    cache.delete_locked(key, lock)?;
    ui.say(told);
    Ok(())
}

/// What came of revoking an identity's tokens.
enum Revoked {
    Yes,
    /// The provider does not offer it.
    CannotBe,
}

/// The refresh token first: where the provider keeps track, that ends the others too (RFC 7009 §2.1).
async fn revoke(session: Session<'_>, cache: &Cache, entry: &Entry) -> Result<Revoked> {
    let Session { settings, ui, clock, .. } = session;
    let tokens = [
        ("refresh_token", entry.refresh_token.as_ref()),
        ("access_token", entry.access_token.as_ref().map(|token| &token.value)),
    ];
    let tokens: Vec<(&str, &Secret)> = tokens.into_iter().filter_map(|(hint, token)| Some((hint, token?))).collect();
    if tokens.is_empty() {
        return Ok(Revoked::CannotBe);
    }
    let http = Http::with_limits(&settings.connection, LIMITS, ui, clock)?;
    let secret = settings.client_secret.read("client secret").await?;
    let provider = oidc::discover(&http, settings, Some(cache), clock.now()).await?;
    let client = Client { settings, provider: &provider, http: &http, secret: secret.as_ref() };
    let mut revoked = Revoked::CannotBe;
    for (hint, token) in tokens {
        match oidc::revoke(&client, token, hint).await {
            Ok(true) => revoked = Revoked::Yes,
            Ok(false) => {}
            // Access tokens that nobody keeps track of cannot be revoked (§2.2.1).
            Err(GrantError::Refused(refusal)) if refusal.error == "unsupported_token_type" => {}
            Err(GrantError::Refused(refusal)) => {
                return Err(refusal.explained("the provider refused it", settings));
            }
            Err(GrantError::Failed(error)) => return Err(error),
        }
    }
    Ok(revoked)
}

/// A failed revocation is no reason to keep the tokens.
fn warn(ui: Ui, error: &Error) {
    let why = [&[error.message().to_owned()], error.causes()].concat().join(": ");
    ui.warning(format!("the tokens could not be revoked, so a copy would be good until they end: {why}"));
}

/// Nobody wants to wait long for leaving.
const LIMITS: Limits = Limits { exchange: Duration::from_secs(10), patience: Duration::from_secs(2), ..Limits::USUAL };

#[cfg(test)]
mod tests;
