//! Which proxy a request takes, by the variables that kubectl reads: `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY`, in upper or lower case. On macOS and Windows the system's own setting counts where no
//! variable is set. Loopback is never proxied.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::loopback::is_loopback;
use crate::secret::Secret;

/// What an environment says of proxies. Nothing is parsed before a request is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    https: Option<Variable>,
    http: Option<Variable>,
    /// Hosts that are reached directly: `NO_PROXY`.
    exceptions: String,
}

/// A variable and its value, which may hold a password.
#[derive(Clone, Debug)]
struct Variable {
    name: &'static str,
    value: Secret,
}

/// The proxy that a request takes.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// Who names it, for messages: a variable, or the system.
    pub(crate) named_by: String,
    /// User name and password included.
    url: Url,
}

impl Proxies {
    pub(crate) fn of(environment: &Environment) -> Self {
        let first = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, environment.text(name)?)));
            found.map(|(name, value)| Variable { name, value: Secret::new(value) })
        };
        Self {
            https: first(["HTTPS_PROXY", "https_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy"]),
            exceptions: environment
                .text("NO_PROXY")
                .or_else(|| environment.text("no_proxy"))
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// The proxy on the way to this address, if one is.
    pub(crate) fn on_the_way_to(&self, url: &Url) -> Result<Option<Proxy>> {
        match self.by_variable(url)? {
            None if self.https.is_none() && self.http.is_none() && !self.excepts(url) => Ok(of_system(url)),
            proxy => Ok(proxy),
        }
    }

    /// Likewise, by the variables alone: kubectl asks no system on the way to a cluster.
    pub(crate) fn by_variable(&self, url: &Url) -> Result<Option<Proxy>> {
        match if url.scheme() == "https" { &self.https } else { &self.http } {
            Some(variable) if !self.excepts(url) => {
                Proxy::named(&format!("`{}`", variable.name), variable.value.expose()).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    fn excepts(&self, url: &Url) -> bool {
        if is_loopback(url) {
            return true;
        }
        let exceptions = exceptions_for(url, &self.exceptions);
        let matcher = Matcher::builder().all("http://proxy.invalid").no(exceptions).build();
        url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none())
    }
}

/// The entries of `NO_PROXY` that hold for the address's port, without ports and `*.`, which the
/// matcher does not know.
fn exceptions_for(url: &Url, exceptions: &str) -> String {
    let here = |entry: &str| {
        let entry = entry.trim();
        let host = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        match host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                (url.port_or_known_default() == Some(port)).then_some(host)
            }
            _ => Some(host.to_owned()),
        }
    };
    exceptions.split(',').filter_map(here).collect::<Vec<String>>().join(",")
}

const SCHEMES: &[&str] = &["http", "https", "socks5", "socks5h"];

fn of_system(url: &Url) -> Option<Proxy> {
    if !cfg!(any(target_os = "macos", windows)) {
        return None;
    }
    let proxy = Matcher::from_system().intercept(&url.as_str().parse().ok()?)?;
    let url = Url::parse(&proxy.uri().to_string()).ok()?;
    Some(Proxy { named_by: "the system's network settings".to_owned(), url })
}

impl Proxy {
    /// `named_by` is whose setting it is. The text may hold a password: it is not repeated.
    pub(crate) fn named(named_by: &str, text: &str) -> Result<Self> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        match Url::parse(&text) {
            Ok(url) if SCHEMES.contains(&url.scheme()) && url.has_host() => {
                Ok(Self { named_by: named_by.to_owned(), url })
            }
            _ => Err(Error::settings(format!("{named_by} is not the address of a proxy"))
                .hint("write it as `http://host:port`, `https://host:port` or `socks5://host:port`, or leave it out")),
        }
    }

    /// For the connection only: it may hold a password.
    pub(crate) fn url_with_password(&self) -> Url {
        self.url.clone()
    }

    /// The address without user name and password.
    pub(crate) fn address(&self) -> String {
        let port = self.url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let proxies = Proxies::of(&Environment::default().overlaid(variables));
        let proxy = proxies.on_the_way_to(&Url::parse(url).unwrap()).unwrap();
        proxy.map(|proxy| format!("{} by {}", proxy.address(), proxy.named_by))
    }

    #[test]
    fn the_variables_are_read_as_kubectl_does() {
        for (variables, expected) in [
            (&[][..], None),
            (&[("HTTP_PROXY", "http://a:1")], None),
            (&[("ALL_PROXY", "http://a:1")], None),
            (&[("https_proxy", "a:1")], Some("http://a:1 by `https_proxy`")),
            (&[("HTTPS_PROXY", "https://a"), ("https_proxy", "b:1")], Some("https://a:443 by `HTTPS_PROXY`")),
            (&[("HTTPS_PROXY", "socks5h://a:1080")], Some("socks5h://a:1080 by `HTTPS_PROXY`")),
        ] {
            assert_eq!(proxy(variables, "https://id.example.com/realm").as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn exceptions_and_loopback_are_reached_directly() {
        for (url, exceptions, proxied) in [
            ("https://api.example", "", true),
            ("https://api.example", "example,", false),
            ("https://api.example", ".example", false),
            ("https://api.example", "*.example", false),
            ("https://api.example", "*", false),
            ("https://api.example", "other.example, pi.example", true),
            ("https://api.example:6443", "api.example:6443", false),
            ("https://api.example:6443", "api.example:443", true),
            ("https://10.1.2.3:6443", "10.0.0.0/8", false),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", false),
            ("https://[fd00::1]:6443", "[fd00::1]:6443", false),
            ("https://[fd00::1]:6443", "fd00::1", false),
            ("https://[fd00::1]:6443", "fd00::/8", false),
            ("https://localhost:1/", "", false),
            ("https://127.0.0.7/", "", false),
            ("https://[::1]/", "", false),
            ("https://x.localhost/", "", false),
        ] {
            for name in ["NO_PROXY", "no_proxy"] {
                assert_eq!(
                    proxy(&[("HTTPS_PROXY", "a:1"), (name, exceptions)], url).is_some(),
                    proxied,
                    "{url} {exceptions}"
                );
            }
        }
    }

    #[test]
    fn a_bad_address_is_named_and_its_password_is_not_shown() {
        for value in ["ftp://jane:hunter2@a", "http://", "://hunter2"] {
            let proxies = Proxies::of(&Environment::from([("HTTPS_PROXY", value)]));
            let error = proxies.on_the_way_to(&Url::parse("https://id.example.com").unwrap()).err().unwrap();
            assert_eq!(error.message(), "`HTTPS_PROXY` is not the address of a proxy");
            assert!(!format!("{error}{proxies:?}").contains("hunter2"));
        }
        let address = proxy(&[("HTTPS_PROXY", "http://jane:hunter2@a:1")], "https://id.example.com").unwrap();
        assert_eq!(address, "http://a:1 by `HTTPS_PROXY`");
    }
}
