//! Which headers pass the local server, and which it adds.
//!
//! Both ways go by a list of what may pass. Up, because an API server acts on `Impersonate-*` and
//! `Authorization`, and `Cookie` is ours. Down, because whatever a pod answers behind `…/proxy/`
//! would set cookies, workers and policies for our origin.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use crate::error::{Error, Result};
use crate::websocket;

const TO_API: [HeaderName; 11] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::USER_AGENT,
];

/// API servers refuse a websocket without an `Origin`. `Sec-WebSocket-Extensions` does not pass:
/// both ends would compress, and we look at frames.
const TO_API_WEBSOCKET: [HeaderName; 6] = [
    header::CONNECTION,
    header::ORIGIN,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::UPGRADE,
    header::USER_AGENT,
];

/// Nothing of how long it may be kept: it is not.
const FROM_API: [HeaderName; 14] = [
    header::ACCEPT_RANGES,
    header::ALLOW,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
    header::VARY,
    header::WARNING,
];

const FROM_API_WEBSOCKET: [HeaderName; 4] =
    [header::CONNECTION, header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL, header::UPGRADE];

/// What of a request goes to the API server; the credential is added by the connection.
pub(crate) fn to_api(headers: &HeaderMap) -> HeaderMap {
    only(headers, &TO_API)
}

/// What of a request for a websocket goes to the API server.
pub(crate) fn to_api_websocket(headers: &HeaderMap) -> HeaderMap {
    let mut passed = only(headers, &TO_API_WEBSOCKET);
    let offered: Vec<&str> = websocket::offered(headers).collect();
    if let (false, Ok(offered)) = (offered.is_empty(), HeaderValue::try_from(offered.join(", "))) {
        passed.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    }
    passed
}

/// What of an API server's answer reaches the page, and what keeps it from being taken for a page and
/// from the browser's disk, where it would outlive the session.
pub(crate) fn from_api(headers: &HeaderMap) -> HeaderMap {
    let mut passed = only(headers, &FROM_API);
    protect(&mut passed, HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"));
    passed.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    passed
}

/// What of an API server's `101` reaches the page.
pub(crate) fn from_api_websocket(headers: &HeaderMap) -> HeaderMap {
    only(headers, &FROM_API_WEBSOCKET)
}

/// For our own pages: nothing is loaded, nothing is kept. Their buttons may lead on to the
/// provider, so forms are left free.
pub(crate) fn own_page() -> HeaderMap {
    let mut headers = HeaderMap::new();
    protect(
        &mut headers,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

/// What Headlamp's page may load and whom it may speak to.
#[derive(Clone, Debug, Default)]
pub(crate) struct PagePolicy {
    /// Other origins that it may use, each with a space before it.
    others: String,
}

impl PagePolicy {
    /// The page's own origin, and these.
    pub(crate) fn allowing(origins: &[String]) -> Result<Self> {
        let mut others = String::new();
        for origin in origins {
            let Some(plain) = Url::parse(origin).ok().as_ref().and_then(plain_origin) else {
                return Err(Error::usage(format!("`{origin}` is not an origin"))
                    .hint("write it as `https://icons.example.com`, without a path"));
            };
            others.push(' ');
            others.push_str(&plain);
        }
        Ok(Self { others })
    }

    /// The headers of the page's files, at this value of `Host`. Scripts come from the cluster's
    /// Headlamp alone; it and its plugins need inline ones and `eval`.
    pub(crate) fn headers(&self, host: &str) -> HeaderMap {
        let others = &self.others;
        let policy = format!(
            "default-src 'self'; \
             script-src 'self' 'unsafe-inline' 'unsafe-eval'; \
             worker-src 'self' blob:; \
             style-src 'self' 'unsafe-inline'{others}; \
             font-src 'self' data:{others}; \
             img-src 'self' data: blob:{others}; \
             media-src 'self' data: blob:{others}; \
             connect-src 'self' ws://{host}{others}; \
             frame-src 'self'{others}; \
             form-action 'self'{others}; \
             object-src 'none'; \
             base-uri 'self'; \
             frame-ancestors 'none'"
        );
        let mut headers = HeaderMap::new();
        let strictest = HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'");
        protect(&mut headers, HeaderValue::try_from(policy).unwrap_or(strictest));
        headers
    }
}

/// The origin of a URL that is nothing more than one. A policy's own separators are legal in URLs.
fn plain_origin(url: &Url) -> Option<String> {
    let plain = matches!(url.scheme(), "http" | "https" | "ws" | "wss")
        && matches!((url.path(), url.query(), url.fragment()), ("/", None, None))
        && matches!((url.username(), url.password()), ("", None));
    let origin = url.origin().ascii_serialization();
    (plain && !origin.contains([';', ',', '\'', '*'])).then_some(origin)
}

/// A browser takes the answer for what it says it is, lends it to no other page and tells no other
/// site where it was. The referrer stays within the origin rather than away: without one, browsers
/// send a form of ours with `Origin: null`.
fn protect(headers: &mut HeaderMap, policy: HeaderValue) {
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let passed = headers.iter().filter(|(name, _)| names.contains(name));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn nothing_that_says_who_one_is_goes_up() {
        let sent = headers(&[
            ("accept", "application/json"),
            ("authorization", "Bearer x"),
            ("cookie", "kubectl-headlamp-7001=x"),
            ("impersonate-user", "admin"),
            ("impersonate-group", "system:masters"),
            ("impersonate-uid", "1"),
            ("impersonate-extra-scopes", "all"),
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-headlamp-user-id", "x"),
            ("kubeconfig", "x"),
            ("connection", "close, accept"),
            ("host", "localhost:7001"),
            ("origin", "http://localhost:7001"),
            ("content-type", "application/json"),
            ("user-agent", "browser"),
        ]);
        assert_eq!(names(&to_api(&sent)), ["accept", "content-type", "user-agent"]);
    }

    #[test]
    fn a_websocket_goes_up_without_extensions_and_credentials() {
        let sent = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("origin", "http://localhost:7001"),
            ("sec-websocket-key", "x"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.eHg"),
            ("sec-websocket-protocol", "base64url.headlamp.authorization.k8s.io.u,base64.binary.k8s.io"),
            ("cookie", "x"),
            ("impersonate-user", "admin"),
        ]);
        let passed = to_api_websocket(&sent);
        assert_eq!(
            names(&passed),
            ["connection", "origin", "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version", "upgrade"]
        );
        assert_eq!(passed["sec-websocket-protocol"], "v4.channel.k8s.io, base64.binary.k8s.io");
        let none = headers(&[("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.eHg")]);
        assert!(to_api_websocket(&none).is_empty());
    }

    #[test]
    fn an_answer_cannot_act_on_our_origin() {
        let answered = headers(&[
            ("content-type", "text/html"),
            ("set-cookie", "kubectl-headlamp-7001=planted"),
            ("service-worker-allowed", "/"),
            ("location", "https://other.example"),
            ("refresh", "0;url=https://other.example"),
            ("access-control-allow-origin", "*"),
            ("clear-site-data", "*"),
            ("link", "</x>; rel=preload"),
            ("content-security-policy", "default-src *"),
            ("www-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
            ("alt-svc", "h3=\":443\""),
        ]);
        let passed = from_api(&answered);
        assert_eq!(
            names(&passed),
            [
                "cache-control",
                "content-security-policy",
                "content-type",
                "cross-origin-opener-policy",
                "cross-origin-resource-policy",
                "referrer-policy",
                "x-content-type-options",
                "x-frame-options",
            ]
        );
        assert!(passed["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
        assert_eq!(passed["x-content-type-options"], "nosniff");
        assert_eq!(passed["cache-control"], "no-store");
    }

    #[test]
    fn a_switch_of_protocols_brings_no_more_than_that() {
        let answered = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "x"),
            ("sec-websocket-protocol", "v4.channel.k8s.io"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("set-cookie", "x=y"),
        ]);
        let passed = from_api_websocket(&answered);
        assert_eq!(names(&passed), ["connection", "sec-websocket-accept", "sec-websocket-protocol", "upgrade"]);
    }

    #[test]
    fn our_own_pages_load_nothing_and_their_forms_keep_their_origin() {
        let headers = own_page();
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none';"));
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["referrer-policy"], "same-origin");
    }

    #[test]
    fn no_answer_of_the_api_server_is_kept_by_the_browser_whatever_it_says() {
        let answered = headers(&[
            ("cache-control", "public, immutable"),
            ("age", "1"),
            ("expires", "Tue, 01 Jan 2030 00:00:00 GMT"),
            ("etag", "\"a\""),
        ]);
        let passed = from_api(&answered);
        assert_eq!(passed.get_all("cache-control").iter().collect::<Vec<_>>(), ["no-store"]);
        assert_eq!((passed.get("age"), passed.get("expires")), (None, None));
        // The page's scripts may ask with it again.
        assert_eq!(passed["etag"], "\"a\"");
    }

    #[test]
    fn the_page_speaks_to_its_own_origin_alone() {
        let headers = PagePolicy::default().headers("localhost:7001");
        let policy = headers["content-security-policy"].to_str().unwrap();
        let directive =
            |name: &str| policy.split("; ").find_map(|part| part.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(directive("default-src"), "'self'");
        assert_eq!(directive("connect-src"), "'self' ws://localhost:7001");
        assert_eq!(directive("img-src"), "'self' data: blob:");
        assert_eq!(directive("form-action"), "'self'");
        assert_eq!(directive("frame-src"), "'self'");
        assert_eq!(directive("frame-ancestors"), "'none'");
        assert_eq!(directive("object-src"), "'none'");
    }

    #[test]
    fn other_origins_are_added_on_request_but_not_for_scripts() {
        let policy =
            PagePolicy::allowing(&["https://icons.example".to_owned(), "http://127.0.0.1:8080/".to_owned()]).unwrap();
        let headers = policy.headers("localhost:7001");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("connect-src 'self' ws://localhost:7001 https://icons.example http://127.0.0.1:8080;"));
        assert!(policy.contains("script-src 'self' 'unsafe-inline' 'unsafe-eval';"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for wrong in [
            "*",
            "icons.example",
            "https://icons.example/path",
            "https://a.example?b",
            "ftp://a.example",
            "'unsafe-eval'",
            "https://u:p@a.example",
        ] {
            assert!(PagePolicy::allowing(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_origin_ends_its_directive(text in "\\PC{0,30}") {
            if let Ok(policy) = PagePolicy::allowing(&[format!("https://{text}")]) {
                let headers = policy.headers("localhost:7001");
                let plain = PagePolicy::default().headers("localhost:7001");
                let count = |headers: &HeaderMap| headers["content-security-policy"].to_str().unwrap().matches([';', ',']).count();
                prop_assert_eq!(count(&headers), count(&plain));
            }
        }

        #[test]
        fn only_listed_headers_go_up(name in "[a-z][a-z-]{0,20}", value in "[ -~]{0,20}") {
            let sent = headers(&[(&name, value.trim())]);
            for name in to_api(&sent).keys() {
                prop_assert!(TO_API.contains(name));
            }
        }
    }
}
