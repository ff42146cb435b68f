//! The local server's own pages: the way in, the way back, and whatever keeps the browser from
//! Headlamp. Their buttons are plain forms, so they need no script.

use http::{HeaderValue, Response, StatusCode, header};

use crate::api_connection::{empty, full};
use crate::browser_session::{End, Situation};
use crate::error::{Error, Kind};
use crate::gateway_headers::own_page;
use crate::gateway_request::{OWN_PREFIX, Refusal};
use crate::http2_pool::Body;
use crate::page::{Lamp, escaped, html, html_that_goes_on, list, text};
use crate::secret::Secret;

/// The start address was used: on to Headlamp. The next request is this page's own and carries the
/// strict cookie, whoever opened the address; and no page is told what the address was.
pub(crate) fn opened(to: &str, cookie: HeaderValue) -> Response<Body> {
    let mut response = on_to("Headlamp opens", to);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// Back from the provider, whose redirects carried no strict cookie.
pub(crate) fn returned(to: &str) -> Response<Body> {
    on_to("Back to Headlamp", to)
}

fn on_to(title: &str, to: &str) -> Response<Body> {
    let content = format!("<p class=\"lead\"><a href=\"{}\">Go on</a> if nothing happens.</p>", escaped(to));
    let mut response = respond(StatusCode::OK, html_that_goes_on(Lamp::On, title, 0, Some(to), &content));
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The start address was only looked at.
pub(crate) fn not_yet() -> Response<Body> {
    let content = "<p class=\"lead\">The browser only looked ahead. Open the page to go on.</p>";
    respond(StatusCode::SERVICE_UNAVAILABLE, html(Lamp::Off, "Not yet", content))
}

/// The cluster wants a person. `to` is where the browser wanted to go.
pub(crate) fn sign_in_needed(error: &Error, can_sign_in: bool, to: &str) -> Response<Body> {
    let (title, button) = match (error.kind(), can_sign_in) {
        (Kind::SignInNeeded | Kind::SignInFailed, true) => ("Sign in to go on", "Sign in"),
        (_, true) => ("The cluster does not let you in", "Sign in again"),
        (_, false) => ("The cluster does not let you in", "Try again"),
    };
    let content = format!(
        "<p class=\"lead\">{}</p>{}{}{}",
        text(error.message()),
        list("Why", error.causes()),
        list("What helps", error.hints()),
        form("sign-in", button, to)
    );
    respond(StatusCode::OK, html(Lamp::Off, title, &content))
}

/// Somebody signs in; this page looks again by itself. The button joins in, where there is a tab to
/// be sent on.
pub(crate) fn sign_in_under_way(in_tab: bool, to: &str) -> Response<Body> {
    let content = if in_tab {
        format!(
            "<p class=\"lead\">It goes on in another tab. When it is done, this page goes on by itself.</p>{}",
            form("sign-in", "Sign in here instead", to)
        )
    } else {
        "<p class=\"lead\">Look at the terminal in which <code>kubectl headlamp open</code> runs: something may be \
         asked there. When it is done, this page goes on by itself.</p>"
            .to_owned()
    };
    let html = html_that_goes_on(Lamp::Off, "A sign-in is under way", LOOK_AGAIN, None, &content);
    respond(StatusCode::OK, html)
}

/// For the browser that logged out.
pub(crate) fn logged_out(to: &str) -> Response<Body> {
    let content = format!(
        "<p class=\"lead\">This browser can no longer reach the cluster.</p>{}\
         <p>kubectl is still signed in. <code>kubectl headlamp logout</code> ends that too.</p>",
        form("come-back", "Open Headlamp again", to)
    );
    respond(StatusCode::OK, html(Lamp::Off, "You are logged out", &content))
}

/// For every browser that is not the session's.
pub(crate) fn stranger(situation: Situation) -> Response<Body> {
    let (title, lead) = match situation {
        Situation::Waiting => (
            "Not opened yet",
            "Open the address that <code>kubectl headlamp open</code> gave: it can be used once, by one browser.",
        ),
        Situation::Open | Situation::LoggedOut => (
            "Another browser is served here",
            "Only the browser that <code>kubectl headlamp open</code> opened is. Go back to it, or end the command \
             and run it again.",
        ),
        Situation::Ended(End::StartedTwice) => (
            "This session has ended",
            "The address that opened it was used a second time, maybe by somebody else. Run \
             <code>kubectl headlamp open</code> again.",
        ),
        Situation::Ended(End::AnotherUser) => (
            "This session has ended",
            "Somebody else has signed in, and the page would have gone on with other rights than before. Run \
             <code>kubectl headlamp open</code> again.",
        ),
    };
    respond(StatusCode::FORBIDDEN, html(Lamp::Off, title, &format!("<p class=\"lead\">{lead}</p>")))
}

/// The start address of another run, or a damaged one.
pub(crate) fn wrong_start() -> Response<Body> {
    let content = "<p class=\"lead\">It belongs to a session that is over, or it was not copied whole. Use the one \
                   that <code>kubectl headlamp open</code> gave last.</p>";
    respond(StatusCode::FORBIDDEN, html(Lamp::Off, "This address opens nothing", content))
}

/// A refusal, for a person who sees it in a tab.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let instead = refusal.instead.map(|instead| format!("<h2>Instead</h2><p class=\"lead\">{}</p>", text(instead)));
    let content = format!("<p class=\"lead\">{}</p>{}", text(refusal.reason), instead.unwrap_or_default());
    respond(refusal.status, html(Lamp::Off, "Not from here", &content))
}

/// 303 to a path of ours: whatever the method was, the browser goes there with `GET`.
pub(crate) fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.headers_mut() = own_page();
    match HeaderValue::try_from(to) {
        Ok(location) => {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(header::LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
}

/// 303 to where the sign-in begins.
pub(crate) fn to_sign_in(address: &Secret) -> Response<Body> {
    redirect(address.expose())
}

fn form(action: &str, button: &str, to: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{OWN_PREFIX}/{action}\"><input type=\"hidden\" name=\"to\" value=\"{}\">\
         <button type=\"submit\">{button}</button></form>",
        escaped(to)
    )
}

fn respond(status: StatusCode, html: String) -> Response<Body> {
    let mut response = Response::new(full(html));
    *response.status_mut() = status;
    *response.headers_mut() = own_page();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// Seconds.
const LOOK_AGAIN: u32 = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use http_body_util::BodyExt;

    use super::*;

    fn shown(response: Response<Body>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn the_way_in_goes_on_without_telling_where_it_came_from() {
        let response = opened("/c/main/pods?a=b&c=d", HeaderValue::from_static("name=value"));
        assert_eq!(response.headers()["referrer-policy"], "no-referrer");
        assert_eq!(response.headers()["set-cookie"], "name=value");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let html = shown(response);
        assert!(html.contains("content=\"0; url=/c/main/pods?a=b&amp;c=d\""), "{html}");
        assert!(html.contains("<a href=\"/c/main/pods?a=b&amp;c=d\">"), "{html}");
    }

    #[test]
    fn what_the_cluster_says_and_where_one_wanted_to_go_are_text() {
        let error =
            Error::new(Kind::SignInNeeded, "<b>no</b>").cause("\"quoted\"").hint("run `kubectl headlamp login`");
        let html = shown(sign_in_needed(&error, true, "/c?x=\"><script>"));
        for part in [
            "&lt;b&gt;no&lt;/b&gt;",
            "&quot;quoted&quot;",
            "<code>kubectl headlamp login</code>",
            "value=\"/c?x=&quot;&gt;&lt;script&gt;\"",
            "<form method=\"post\" action=\"/.kubectl-headlamp/sign-in\">",
            ">Sign in</button>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("<script"));
    }

    #[test]
    fn where_no_sign_in_helps_the_button_tries_again() {
        let error = Error::new(Kind::Other, "the cluster refuses the token");
        assert!(shown(sign_in_needed(&error, false, "/")).contains(">Try again</button>"));
    }

    #[test]
    fn every_page_has_a_title_a_language_and_no_script() {
        let refusal = Refusal { status: StatusCode::NOT_FOUND, reason: "there is `nothing`", instead: Some("`this`") };
        let strangers = [
            Situation::Waiting,
            Situation::Open,
            Situation::LoggedOut,
            Situation::Ended(End::StartedTwice),
            Situation::Ended(End::AnotherUser),
        ];
        let pages = [
            returned("/"),
            not_yet(),
            sign_in_under_way(true, "/"),
            sign_in_under_way(false, "/"),
            logged_out("/"),
            wrong_start(),
            refused(&refusal),
        ];
        for page in pages.into_iter().chain(strangers.map(stranger)) {
            assert_eq!(page.headers()["x-content-type-options"], "nosniff");
            let html = shown(page);
            assert!(html.contains("<html lang=\"en\">") && html.contains("<title>") && html.contains("<h1>"), "{html}");
            assert!(!html.contains("<script") && !html.contains("style="), "{html}");
        }
    }
}
