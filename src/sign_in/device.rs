//! A code typed in on another device (RFC 8628).

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::{Grant, SignIn, failure};
use crate::browser;
use crate::error::{Error, Kind, Result};
use crate::oidc::{self, DeviceCode, DevicePoll, GrantError, Reply};
use crate::options::Flow;
use crate::secret::Secret;

pub(crate) async fn sign_in(context: SignIn<'_>) -> Result<Grant> {
    let code = oidc::device_code(context.client)
        .await
        .map_err(|error| failure(error, "the provider gave no device code", context.settings))?;
    context.asked.set(true);
    context.ui.prompt(&instructions(&code), context.presence.terminal_too);
    show_browser(context, &code).await;
    let reply = poll(context, &code).await?;
    Ok(Grant { reply, nonce: None, page: None })
}

/// What to do, with the code to compare, so that nobody confirms a sign-in that another began (§5.4).
fn instructions(code: &DeviceCode) -> String {
    let mut text = format!(
        "To sign in, open this address on any device:\n\n  {}\n\nand enter the code:\n\n  {}\n",
        code.verification_uri, code.user_code
    );
    if let Some(complete) = &code.verification_uri_complete
        && let Ok(picture) = QrCode::new(complete.as_bytes())
    {
        let picture = picture.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        text.push_str("\nor scan this, and check that it shows the same code:\n\n");
        text.push_str(&picture);
        text.push('\n');
    }
    text.push_str("\nEnter it only if you started this sign-in yourself.");
    text
}

/// Where the flow was chosen by name and a browser is at hand, it is opened too. A browser that
/// does not start is no failure here.
async fn show_browser(context: SignIn<'_>, code: &DeviceCode) {
    let settings = context.settings;
    if settings.flow != Flow::Device {
        return;
    }
    if let Ok(opener) = browser::find(&settings.browser, settings.interactive, context.environment) {
        let address = code.verification_uri_complete.as_ref().unwrap_or(&code.verification_uri);
        if let Err(error) = opener.open(&Secret::new(address.as_str())).await {
            context.ui.step(error.message());
        }
    }
}

/// Asks until it is done, refused or too late. A fault of the network only costs time.
async fn poll(context: SignIn<'_>, code: &DeviceCode) -> Result<Reply> {
    let refused = |error| match error {
        GrantError::Refused(refusal) if refusal.error == "expired_token" => expired(),
        error => failure(error, "the provider refused the sign-in", context.settings),
    };
    let countdown = Countdown::start(code.expires_in.min(context.settings.timeout), context.ui.stderr_is_terminal());
    let deadline = tokio::time::Instant::now() + code.expires_in;
    let mut interval = code.interval;
    loop {
        countdown.wait(interval).await;
        if tokio::time::Instant::now() >= deadline {
            return Err(expired());
        }
        match oidc::device_token(context.client, code).await {
            Ok(DevicePoll::Done(reply)) => return Ok(*reply),
            Ok(DevicePoll::Pending) => {}
            Ok(DevicePoll::SlowDown) => interval = (interval + SLOWER).min(SLOWEST),
            Err(GrantError::Failed(error)) if error.kind() == Kind::Unreachable => {
                context.ui.step(format!("the provider could not be asked, and is asked again: {}", error.message()));
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

fn expired() -> Error {
    Error::sign_in_failed("the device code was not entered in time").hint("try again for a new code")
}

/// The time that is left, on a terminal.
struct Countdown(ProgressBar);

impl Countdown {
    fn start(lifetime: Duration, terminal: bool) -> Self {
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(lifetime.as_secs()), target);
        if let Ok(style) = ProgressStyle::with_template("waiting for you to sign in: {msg} left") {
            bar.set_style(style);
        }
        let bar = Self(bar);
        bar.tick();
        bar
    }

    fn tick(&self) {
        let left = self.0.length().unwrap_or_default().saturating_sub(self.0.elapsed().as_secs());
        self.0.set_message(format!("{}:{:02}", left / 60, left % 60));
    }

    async fn wait(&self, span: Duration) {
        let end = tokio::time::Instant::now() + span;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep_until((tokio::time::Instant::now() + Duration::from_secs(1)).min(end)).await;
            self.tick();
        }
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What `slow_down` adds (§3.5), and the longest pause that a provider can make us take.
const SLOWER: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(60);
