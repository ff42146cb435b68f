//! The proxy on the way to an API server, chosen as kubectl does: the cluster entry's, else the
//! environment's (Go's rules, which know no `ALL_PROXY`), and that never for this machine itself.

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::loopback::is_loopback;
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
        if let Some(proxy) = configured {
            return Self::parse("proxy-url", proxy).map(Some);
        }
        let variables =
            if server.scheme() == "https" { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
        let found = variables.into_iter().find_map(|name| Some((name, environment.text(name)?)));
        let Some((name, proxy)) = found.filter(|_| !is_loopback(server)) else { return Ok(None) };
        let exceptions = environment.text("NO_PROXY").or_else(|| environment.text("no_proxy")).unwrap_or_default();
        let matcher = Matcher::builder().all("http://proxy").no(exceptions_for(server, exceptions)).build();
        let uri: Uri = server.as_str().parse().map_err(|error| Error::settings("not an address").caused_by(&error))?;
        match matcher.intercept(&uri) {
            Some(_) => Self::parse(name, proxy).map(Some),
            None => Ok(None),
        }
    }

    /// `source` says where the text stands; the text itself may hold a password and is not repeated.
    fn parse(source: &str, text: &str) -> Result<Self> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // Names are resolved by the proxy under either spelling.
        let text = text.replacen("socks5h://", "socks5://", 1);
        let url = Url::parse(&text).ok().filter(|url| SCHEMES.contains(&url.scheme()) && url.has_host());
        let address = url.as_ref().and_then(|url| {
            let port = url.port().or_else(|| (url.scheme() == "socks5").then_some(1080)).map(|port| format!(":{port}"));
            format!("{}://{}{}", url.scheme(), url.host_str()?, port.unwrap_or_default()).parse().ok()
        });
        let (Some(url), Some(address)) = (url, address) else {
            return Err(Error::settings(format!("`{source}` is not the address of a proxy"))
                .hint("write it as `http://host:port`, `https://host:port` or `socks5://host:port`"));
        };
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

const SCHEMES: [&str; 3] = ["http", "https", "socks5"];

/// The entries of `NO_PROXY` that hold for the server's port, without ports and `*.`, which the
/// matcher does not know.
fn exceptions_for(server: &Url, exceptions: &str) -> String {
    let here = |entry: &str| {
        let entry = entry.trim();
        let host = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        match host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                (server.port_or_known_default() == Some(port)).then_some(host)
            }
            _ => Some(host.to_owned()),
        }
    };
    exceptions.split(',').filter_map(here).collect::<Vec<String>>().join(",")
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
        let proxy =
            Proxy::parse("proxy-url", "http://jane:p%40ss%3Aword@p:3128").unwrap_or_else(|error| panic!("{error}"));
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
