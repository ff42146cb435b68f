//! The proxy on the way to an API server, chosen as kubectl does: the cluster entry's, else the
//! environment's (Go's rules, which know no `ALL_PROXY`), and that never for this machine itself.

use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::proxy::{self, Proxies};
use crate::secret::Secret;

/// A proxy. Its address holds neither user name nor password.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// Its scheme is `http`, `https` or `socks5`.
    pub(crate) address: Uri,
    pub(crate) login: Option<(String, Secret)>,
}

impl Proxy {
    /// The proxy for this server, if any.
    pub(crate) fn on_the_way_to(
        server: &Url,
        configured: Option<&str>,
        environment: &Environment,
    ) -> Result<Option<Self>> {
        let chosen = match configured {
            Some(text) => Some(proxy::Proxy::named("`proxy-url`", text)?),
            None => Proxies::of(environment).by_variable(server)?,
        };
        chosen.map(|proxy| Self::of(&proxy.url_with_password())).transpose()
    }

    fn of(url: &Url) -> Result<Self> {
        // Names are resolved by the proxy under either spelling.
        let scheme = if url.scheme() == "socks5h" { "socks5" } else { url.scheme() };
        let port = url.port().or_else(|| (scheme == "socks5").then_some(1080)).map(|port| format!(":{port}"));
        let address = format!("{scheme}://{}{}", url.host_str().unwrap_or_default(), port.unwrap_or_default());
        let address = address.parse().map_err(|error: http::uri::InvalidUri| {
            Error::settings("the proxy has no usable address").caused_by(&error)
        })?;
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let named = !url.username().is_empty() || url.password().is_some();
        let login = named.then(|| (plain(url.username()), Secret::new(plain(url.password().unwrap_or_default()))));
        Ok(Self { address, login })
    }

    /// The login in the form that a `Proxy-Authorization` header has.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        use base64::Engine;
        let (name, password) = self.login.as_ref()?;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{}", password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn chosen(server: &str, configured: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment::default().overlaid(variables);
        let proxy = Proxy::on_the_way_to(&Url::parse(server).unwrap(), configured, &environment);
        proxy.unwrap_or_else(|error| panic!("{error}")).map(|proxy| proxy.address.to_string())
    }

    #[test]
    fn proxies_are_chosen_as_kubectl_does() {
        let http = ("HTTPS_PROXY", "http://p:3128");
        let used = Some("http://p:3128/".to_owned());
        let no = |list| [http, ("NO_PROXY", list)];
        for (server, configured, variables, expected) in [
            ("https://api.example", None, &[][..], None),
            ("https://api.example", None, &[http], used.clone()),
            ("https://api.example", None, &[("https_proxy", "p:3128")], used.clone()),
            ("https://api.example", None, &[("HTTP_PROXY", "http://p:3128")], None),
            ("https://api.example", None, &[("ALL_PROXY", "http://p:3128")], None),
            ("https://api.example", Some("socks5h://s"), &[http], Some("socks5://s:1080/".into())),
            ("https://api.example", Some("https://p"), &[http], Some("https://p/".into())),
            ("https://localhost:6443", None, &[http], None),
            ("https://127.0.0.1:6443", None, &[http], None),
            ("https://[::1]:6443", None, &[http], None),
            ("https://localhost:6443", Some("http://p:3128"), &[], used.clone()),
            ("https://api.example", None, &no("example,"), None),
            ("https://api.example", None, &no(".example"), None),
            ("https://api.example", None, &no("*.example"), None),
            ("https://api.example", None, &no("*"), None),
            ("https://api.example:6443", None, &no("api.example:6443"), None),
            ("https://api.example:6443", None, &no("api.example:443"), used.clone()),
            ("https://api.example", None, &no("other.example, pi.example"), used.clone()),
            ("https://10.1.2.3:6443", None, &no("10.0.0.0/8"), None),
            ("https://10.1.2.3:6443", None, &no("10.1.2.3:6443"), None),
            ("https://[fd00::1]:6443", None, &no("[fd00::1]:6443"), None),
            ("https://[fd00::1]:6443", None, &no("fd00::1"), None),
            ("https://[fd00::1]:6443", None, &no("fd00::/8"), None),
        ] {
            assert_eq!(chosen(server, configured, variables), expected, "{server} {configured:?} {variables:?}");
        }
    }

    #[test]
    fn a_login_is_taken_out_of_the_address_and_decoded() {
        let (server, text) = (Url::parse("https://api.example").unwrap(), "http://jane:p%40ss%3Aword@p:3128");
        let proxy = Proxy::on_the_way_to(&server, Some(text), &Environment::default()).unwrap().unwrap();
        assert_eq!(proxy.address.to_string(), "http://p:3128/");
        assert_eq!(proxy.login, Some(("jane".to_owned(), Secret::new("p@ss:word"))));
        assert_eq!(proxy.authorization().unwrap(), "Basic amFuZTpwQHNzOndvcmQ=");
        assert!(!format!("{proxy:?}").contains("word"));
    }

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        let server = Url::parse("https://api.example").unwrap();
        for value in ["ftp://me:hunter2@p", "http://", "me:hunter2@"] {
            let environment = Environment::from([("HTTPS_PROXY", value)]);
            let error = Proxy::on_the_way_to(&server, None, &environment).unwrap_err();
            assert!(error.to_string().contains("`HTTPS_PROXY`") && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
