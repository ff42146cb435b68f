//! How the browser gets to the page, or a person to its address.

use std::convert::Infallible;
use std::future::pending;

use crate::browser;
use crate::environment::Environment;
use crate::error::Result;
use crate::options::Interactive;
use crate::secret::Secret;
use crate::settings::BrowserSettings;
use crate::ui::Ui;

/// What there is to show an address with.
pub(super) struct Showing<'a> {
    pub(super) settings: BrowserSettings,
    pub(super) interactive: Interactive,
    pub(super) environment: &'a Environment,
    pub(super) ui: Ui,
}

impl Showing<'_> {
    /// Opens the address, or prints it to stdout where no browser opens, with the ports that a browser
    /// on another machine needs. An error is that it could not be printed; else it never ends.
    pub(super) async fn show(&self, url: &Secret, ports: &[u16]) -> Result<Infallible> {
        let reason = match self.opened(url).await {
            Ok(mut browser) => browser.failed().await,
            Err(reason) => reason,
        };
        if !self.settings.never {
            self.ui.note(format!("no browser was opened: {reason}"));
        }
        self.ui.note(match ssh_line(self.environment, ports) {
            Some(line) => format!("run this on the machine with your browser, then open the address there: `{line}`"),
            None => "open this address in a browser on this machine; it can be used once".to_owned(),
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
fn ssh_line(environment: &Environment, ports: &[u16]) -> Option<String> {
    let connection = environment.text("SSH_CONNECTION")?;
    let mut fields = connection.split_ascii_whitespace().skip(2);
    let (host, ssh_port) = (fields.next()?.parse::<std::net::IpAddr>().ok()?, fields.next()?.parse::<u16>().ok()?);
    let user = environment
        .text("USER")
        .filter(|user| user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let ssh_port = if ssh_port == 22 { String::new() } else { format!(" -p {ssh_port}") };
    let forwards: Vec<String> = ports.iter().map(|port| format!("-L {port}:localhost:{port}")).collect();
    Some(format!("ssh -N {}{ssh_port} {user}{host}", forwards.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ssh_line_leads_back_the_way_the_session_came() {
        let line = |connection: &str, user: &str| {
            ssh_line(&Environment::from([("SSH_CONNECTION", connection), ("USER", user)]), &[20123, 8000])
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(
            line("10.0.0.7 51234 10.0.0.9 22", "jane"),
            expected("ssh -N -L 20123:localhost:20123 -L 8000:localhost:8000 jane@10.0.0.9")
        );
        assert_eq!(
            line("fd00::7 51234 fd00::9 2222", "j;x"),
            expected("ssh -N -L 20123:localhost:20123 -L 8000:localhost:8000 -p 2222 fd00::9")
        );
        assert_eq!(line("10.0.0.7 51234 $(x) 22", "jane"), None);
        assert_eq!(line("", "jane"), None);
        assert_eq!(ssh_line(&Environment::default(), &[1]), None);
    }
}
