//! Which proxy a request takes, by the variables that curl, Go and so kubectl read: `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case. On macOS and Windows the
//! system's own setting counts where no variable is set. Loopback is never proxied.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::settings::is_loopback;

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
        let first = |names: &[&'static str]| {
            names.iter().find_map(|&name| {
                let value = environment.value(name)?.to_string_lossy().into_owned();
                Some(Variable { name, value: Secret::new(value) })
            })
        };
        let exceptions = first(&["NO_PROXY", "no_proxy"]).map(|variable| variable.value.expose().to_owned());
        Self {
            https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            exceptions: exceptions.unwrap_or_default(),
        }
    }

    /// The proxy on the way to this address, if one is.
    pub(crate) fn on_the_way_to(&self, url: &Url) -> Result<Option<Proxy>> {
        if is_loopback(url) || self.excepts(url) {
            return Ok(None);
        }
        match if url.scheme() == "https" { &self.https } else { &self.http } {
            Some(variable) => variable.proxy().map(Some),
            None if self.https.is_none() && self.http.is_none() => Ok(of_system(url)),
            None => Ok(None),
        }
    }

    fn excepts(&self, url: &Url) -> bool {
        let matcher = Matcher::builder().all("http://proxy.invalid").no(&self.exceptions).build();
        url.as_str().parse().is_ok_and(|uri| matcher.intercept(&uri).is_none())
    }
}

impl Variable {
    fn proxy(&self) -> Result<Proxy> {
        let named_by = format!("`{}`", self.name);
        let text = self.value.expose();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        match Url::parse(&text) {
            Ok(url) if SCHEMES.contains(&url.scheme()) && url.has_host() => Ok(Proxy { named_by, url }),
            _ => Err(Error::settings(format!("{named_by} is not the address of a proxy")).hint(format!(
                "set it to an address such as `{}=http://proxy.example.com:3128`, or unset it",
                self.name
            ))),
        }
    }
}

const SCHEMES: &[&str] = &["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

fn of_system(url: &Url) -> Option<Proxy> {
    if !cfg!(any(target_os = "macos", windows)) {
        return None;
    }
    let proxy = Matcher::from_system().intercept(&url.as_str().parse().ok()?)?;
    let url = Url::parse(&proxy.uri().to_string()).ok()?;
    Some(Proxy { named_by: "the system's network settings".to_owned(), url })
}

impl Proxy {
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

    fn proxy<const N: usize>(variables: [(&str, &str); N], url: &str) -> Option<String> {
        let proxies = Proxies::of(&Environment::from(variables));
        let proxy = proxies.on_the_way_to(&Url::parse(url).unwrap()).unwrap();
        proxy.map(|proxy| format!("{} by {}", proxy.address(), proxy.named_by))
    }

    const ISSUER: &str = "https://id.example.com/realm";

    #[test]
    fn the_variables_are_read_in_curls_order() {
        assert_eq!(proxy([], ISSUER), None);
        assert_eq!(proxy([("HTTP_PROXY", "http://a:1")], ISSUER), None);
        assert_eq!(proxy([("https_proxy", "a:1")], ISSUER).unwrap(), "http://a:1 by `https_proxy`");
        assert_eq!(
            proxy([("HTTPS_PROXY", "https://a"), ("ALL_PROXY", "b:1")], ISSUER).unwrap(),
            "https://a:443 by `HTTPS_PROXY`"
        );
        assert_eq!(proxy([("all_proxy", "socks5://a:1080")], ISSUER).unwrap(), "socks5://a:1080 by `all_proxy`");
    }

    #[test]
    fn exceptions_and_loopback_are_reached_directly() {
        for exceptions in ["id.example.com", ".example.com", "example.com,", " x , example.com", "*"] {
            assert_eq!(proxy([("HTTPS_PROXY", "a:1"), ("NO_PROXY", exceptions)], ISSUER), None, "{exceptions}");
        }
        assert!(proxy([("HTTPS_PROXY", "a:1"), ("NO_PROXY", "example.org,ample.com")], ISSUER).is_some());
        assert_eq!(proxy([("HTTPS_PROXY", "a:1"), ("no_proxy", "10.0.0.0/8")], "https://10.1.2.3/"), None);
        for loopback in ["https://localhost:1/", "https://127.0.0.7/", "https://[::1]/", "https://x.localhost/"] {
            assert_eq!(proxy([("HTTPS_PROXY", "a:1")], loopback), None, "{loopback}");
        }
    }

    #[test]
    fn a_bad_address_is_named_and_its_password_is_not_shown() {
        for value in ["ftp://jane:hunter2@a", "http://", "://hunter2"] {
            let proxies = Proxies::of(&Environment::from([("HTTPS_PROXY", value)]));
            let error = proxies.on_the_way_to(&Url::parse(ISSUER).unwrap()).err().unwrap();
            assert_eq!(error.message(), "`HTTPS_PROXY` is not the address of a proxy");
            assert!(!format!("{error}{proxies:?}").contains("hunter2"));
        }
        let address = proxy([("HTTPS_PROXY", "http://jane:hunter2@a:1")], ISSUER).unwrap();
        assert_eq!(address, "http://a:1 by `HTTPS_PROXY`");
    }
}
