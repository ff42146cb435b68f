//! What the browser shows at the end of a sign-in.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use sha2::{Digest, Sha256};
use url::Url;

use crate::authorization_response::NoAnswer;
use crate::callback_request::Rejection;
use crate::error::Error;
use crate::page::{Lamp, STYLE, escaped, html, list, text};

/// How a sign-in ended.
#[derive(Debug)]
pub(crate) enum Page {
    Success {
        who: Option<String>,
        cluster: Option<String>,
        /// In words.
        until: String,
        /// Where the browser goes instead of showing this.
        open_next: Option<Url>,
    },
    Failure {
        message: String,
        causes: Vec<String>,
        hints: Vec<String>,
        /// Where the person can try again.
        back: Option<Url>,
    },
}

impl Page {
    pub(crate) fn of_error(error: &Error, back: Option<&Url>) -> Self {
        Self::Failure {
            message: error.message().to_owned(),
            causes: error.causes().to_vec(),
            hints: error.hints().to_vec(),
            back: back.cloned(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Success { .. } => StatusCode::OK,
            Self::Failure { .. } => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn html(&self) -> String {
        match self {
            Self::Success { who, cluster, until, .. } => success(who.as_deref(), cluster.as_deref(), until),
            Self::Failure { message, causes, hints, back } => failure(message, causes, hints, back.as_ref()),
        }
    }
}

/// A page as a response. It may be neither kept, nor framed, nor told to anybody by a referrer.
pub(crate) fn respond(status: StatusCode, html: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(html));
    *response.status_mut() = status;
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        BASE64_STANDARD.encode(Sha256::digest(STYLE))
    );
    let headers = response.headers_mut();
    keep_private(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.extend(HeaderValue::try_from(policy).map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}

/// 303: whatever the method was, the browser goes there with `GET`.
pub(crate) fn redirect(location: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    keep_private(response.headers_mut());
    match HeaderValue::try_from(location) {
        Ok(location) => {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(header::LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

pub(crate) fn reject(rejection: Rejection) -> Response<Full<Bytes>> {
    let (title, text) = words(rejection);
    let mut response = respond(rejection.status(), html(Lamp::Off, title, &format!("<p>{text}</p>")));
    if let Rejection::Method(allowed) = rejection {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

fn keep_private(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn words(rejection: Rejection) -> (&'static str, &'static str) {
    match rejection {
        Rejection::NoAnswer(NoAnswer::OtherSignIn | NoAnswer::WithoutState) => (
            "Not the answer to this sign-in",
            "It may belong to an earlier one. The sign-in that is under way still waits: finish it in the tab that was opened for it. You can close this one.",
        ),
        Rejection::NoAnswer(_) => (
            "Not an answer to a sign-in",
            "The provider sent the browser back without a usable answer. The sign-in still waits.",
        ),
        Rejection::AlreadyAnswered => {
            ("This sign-in is already answered", "Its answer came before this one. You can close this tab.")
        }
        Rejection::NotFound => ("Nothing is here", "A sign-in waits on this port, and it has no such page."),
        Rejection::OtherHost => (
            "Not for this address",
            "A sign-in waits on this port. It answers only to the name that it was registered under.",
        ),
        Rejection::Prefetch => ("Not yet", "The browser only looked ahead. Open the page to go on."),
        Rejection::TargetTooLong | Rejection::FormTooLong => {
            ("Too long", "No answer to a sign-in is as long as this. The sign-in still waits.")
        }
        Rejection::Malformed | Rejection::Method(_) | Rejection::NoForm => (
            "Not understood",
            "This is no request of a browser that comes back from a sign-in. The sign-in still waits.",
        ),
    }
}

fn success(who: Option<&str>, cluster: Option<&str>, until: &str) -> String {
    let rows =
        [("Signed in as", who), ("Cluster", cluster), ("Valid until", Some(until).filter(|until| !until.is_empty()))];
    let row = |(name, value): (&str, Option<&str>)| {
        value.map(|value| format!("<div><dt>{name}</dt><dd>{}</dd></div>", text(value)))
    };
    let rows: String = rows.into_iter().filter_map(row).collect();
    html(
        Lamp::On,
        "You are signed in",
        &format!("<dl>{rows}</dl><p>You can close this tab and go back to your terminal.</p>"),
    )
}

fn failure(message: &str, causes: &[String], hints: &[String], back: Option<&Url>) -> String {
    let end = match back {
        Some(back) => format!("<a href=\"{}\">Back to Headlamp</a>, where you can try again.", escaped(back.as_str())),
        None => "Your terminal says the same. You can close this tab.".to_owned(),
    };
    html(
        Lamp::Off,
        "You are not signed in",
        &format!(
            "<p class=\"lead\">{}</p>{}{}<p>{end}</p>",
            text(message),
            list("Why", causes),
            list("What helps", hints)
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn failed(message: &str) -> String {
        let error = Error::sign_in_failed(message).cause("because `a` < `b`").hint("run `kubectl headlamp login`");
        Page::of_error(&error, None).html()
    }

    #[test]
    fn a_success_says_who_where_and_until_when() {
        let page = Page::Success {
            who: Some("jane@example.com".to_owned()),
            cluster: Some("<dev> & co".to_owned()),
            until: "24 November 2026, 23:17 UTC".to_owned(),
            open_next: None,
        };
        let html = page.html();
        for part in [
            "jane@example.com",
            "&lt;dev&gt; &amp; co",
            "24 November 2026, 23:17 UTC",
            "close this tab",
            "lang=\"en\"",
            "<title>You are signed in",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert_eq!(page.status(), 200);
    }

    #[test]
    fn a_failure_says_what_the_terminal_says() {
        let html = failed("the provider said `<script>`");
        for part in [
            "the provider said <code>&lt;script&gt;</code>",
            "because <code>a</code> &lt; <code>b</code>",
            "run <code>kubectl headlamp login</code>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("signed in</h1>") || html.contains("not signed in</h1>"));
    }

    #[test]
    fn a_failure_in_a_tab_of_ours_leads_back_to_where_it_came_from() {
        let back = Url::parse("http://localhost:23456/return?to=/c&x=<'\"").unwrap();
        let html = Page::of_error(&Error::sign_in_failed("no"), Some(&back)).html();
        assert!(html.contains("<a href=\"http://localhost:23456/return?to=/c&amp;x=%3C%27%22\">Back"), "{html}");
        assert!(!html.contains("terminal"), "{html}");
    }

    #[test]
    fn the_policy_allows_our_style_and_nothing_else() {
        let response = respond(StatusCode::OK, failed("x"));
        let policy = response.headers().get("content-security-policy").unwrap().to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
        let html = failed("x");
        let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        assert!(policy.contains(&BASE64_STANDARD.encode(Sha256::digest(style))));
        assert!(!html.contains("style=") && !html.contains("src=") && !html.contains("http"));
    }
}
