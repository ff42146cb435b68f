//! How the browser gets to the page, or a person to its address.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use tokio::time::sleep;

use crate::browser;
use crate::environment::Environment;
use crate::error::Result;
use crate::gateway::StartPage;
use crate::options::Interactive;
use crate::secret::Secret;
use crate::settings::BrowserSettings;
use crate::ui::Ui;

/// A port of the machine with the browser that is to lead to one of this machine's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded {
    pub(super) there: u16,
    pub(super) here: u16,
}

impl Forwarded {
    pub(super) fn same(port: u16) -> Self {
        Self { there: port, here: port }
    }
}

/// What there is to show an address with.
pub(super) struct Showing<'a> {
    pub(super) settings: BrowserSettings,
    pub(super) interactive: Interactive,
    pub(super) environment: &'a Environment,
    pub(super) ui: Ui,
}

/// What is shown: something at an address that waits for its browser.
pub(super) trait Shown {
    /// Whether it lets in the first who comes, and nobody else.
    const ONCE: bool;

    /// Where it is; `None` once a browser has come.
    fn address(&self) -> Option<Secret>;
    /// The same, for another try: what was given before need open nothing any more.
    fn renewed_address(&self) -> Option<Secret>;
}

impl Shown for StartPage {
    const ONCE: bool = true;

    fn address(&self) -> Option<Secret> {
        Self::address(self)
    }

    fn renewed_address(&self) -> Option<Secret> {
        Self::renewed_address(self)
    }
}

impl Showing<'_> {
    /// Opens the address, or prints it to stdout where no browser opens or comes, with the ports that a
    /// browser on another machine needs. An error is that it could not be printed; else it never ends.
    pub(super) async fn show<S: Shown>(&self, shown: &S, ports: &[Forwarded]) -> Result<Infallible> {
        let Some(url) = shown.address() else { return pending().await };
        let failed = |reason: String| (format!("no browser was opened: {reason}"), shown.renewed_address());
        let (reason, url) = match self.opened(&url).await {
            Err(reason) => failed(reason),
            Ok(mut browser) => tokio::select! {
                reason = browser.failed(|| shown.renewed_address()) => failed(reason),
                // Its launcher says nothing of it. It may still come, so the address stays the same.
                () = sleep(COMES_WITHIN) => ("no browser has come yet".to_owned(), shown.address()),
            },
        };
        let Some(url) = url else { return pending().await };
        if !self.settings.never {
            self.ui.note(reason);
        }
        self.ui.note(match (ssh_line(self.environment, ports), S::ONCE) {
            (Some(line), _) => {
                format!("run this on the machine with your browser, then open the address there: `{line}`")
            }
            (None, true) => "open this address in a browser on this machine; it can be used once".to_owned(),
            (None, false) => "open this address in a browser on this machine".to_owned(),
        });
        self.ui.data(&format!("{}\n", url.expose()))?;
        pending().await
    }

    /// Opens a further tab of the browser that has the page. Where none opens, a line says what to open there.
    pub(super) async fn show_again(&self, url: &str) {
        if let Err(reason) = self.opened(&Secret::new(url)).await {
            let reason = if self.settings.never { String::new() } else { format!("no browser was opened: {reason}; ") };
            self.ui.note(format!("{reason}open this in the browser that has the page: {url}"));
        }
    }

    async fn opened(&self, url: &Secret) -> std::result::Result<browser::Opened, String> {
        let opener = browser::find(&self.settings, self.interactive, self.environment)?;
        opener
            .open(url)
            .await
            .map_err(|error| error.causes().first().cloned().unwrap_or_else(|| error.message().to_owned()))
    }
}

/// The line that makes the ports reachable from where the SSH session came from (`SSH_CONNECTION` is
/// the client's address and port, then this machine's).
fn ssh_line(environment: &Environment, ports: &[Forwarded]) -> Option<String> {
    let connection = environment.text("SSH_CONNECTION")?;
    let mut fields = connection.split_ascii_whitespace().skip(2);
    let (host, ssh_port) = (fields.next()?.parse::<std::net::IpAddr>().ok()?, fields.next()?.parse::<u16>().ok()?);
    let user = environment
        .text("USER")
        .filter(|user| user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let ssh_port = if ssh_port == 22 { String::new() } else { format!(" -p {ssh_port}") };
    let forwards: Vec<String> =
        ports.iter().map(|Forwarded { there, here }| format!("-L {there}:localhost:{here}")).collect();
    Some(format!("ssh -N {}{ssh_port} {user}{host}", forwards.join(" ")))
}

/// For a browser that has to be started first.
const COMES_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ssh_line_leads_back_the_way_the_session_came() {
        let line = |connection: &str, user: &str| {
            let ports = [Forwarded::same(20123), Forwarded { there: 9000, here: 9001 }];
            ssh_line(&Environment::from([("SSH_CONNECTION", connection), ("USER", user)]), &ports)
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(
            line("10.0.0.7 51234 10.0.0.9 22", "jane"),
            expected("ssh -N -L 20123:localhost:20123 -L 9000:localhost:9001 jane@10.0.0.9")
        );
        assert_eq!(
            line("fd00::7 51234 fd00::9 2222", "j;x"),
            expected("ssh -N -L 20123:localhost:20123 -L 9000:localhost:9001 -p 2222 fd00::9")
        );
        assert_eq!(line("10.0.0.7 51234 $(x) 22", "jane"), None);
        assert_eq!(line("", "jane"), None);
        assert_eq!(ssh_line(&Environment::default(), &[Forwarded::same(1)]), None);
    }
}
