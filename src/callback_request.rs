//! What the callback listener does with a request: a pure function, because everything that can
//! reach a loopback port may send one (each web page, each local user).

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use crate::authorization_response::{AuthorizationResponse, NoAnswer, same};
use crate::secret::Secret;

/// What one sign-in answers to.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Every `Host` that a browser sends when it means us, in lower case.
    pub(crate) hosts: Vec<String>,
    /// The redirect's path, as a browser writes it. It wins over the other two.
    pub(crate) callback: String,
    /// Leads to the provider; whoever knows it can read this sign-in's `state`.
    pub(crate) start: Secret,
    /// Shows how the sign-in ended.
    pub(crate) done: Secret,
    pub(crate) state: Secret,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Done,
    Accept(AuthorizationResponse),
    /// Read the body and hand it to [`form`].
    ReadForm,
}

/// Why a request is turned away. The sign-in goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Not a request that a browser sends to a server (RFC 9112 §3.2, §6.1).
    Malformed,
    /// Meant for another name: a page elsewhere has its name point here (DNS rebinding).
    OtherHost,
    TargetTooLong,
    NotFound,
    /// With the methods that are served there.
    Method(&'static str),
    /// A browser that only looks ahead. It asks again when the person goes there.
    Prefetch,
    NoForm,
    FormTooLong,
    NoAnswer(NoAnswer),
    AlreadyAnswered,
}

impl Rejection {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::NoAnswer(_) => StatusCode::BAD_REQUEST,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Prefetch => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::FormTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::AlreadyAnswered => StatusCode::CONFLICT,
        }
    }
}

/// There is no cookie that ties the answer to the browser that began: the answer may rightly come
/// from another one (the start address opened by hand), a `form_post` carries no cookie that is
/// worth having, and cookies of `localhost` go to every other port. `state` is what ties them, and
/// PKCE and the nonce make a foreign code worthless.
pub(crate) fn decide(head: &Parts, routes: &Routes) -> Result<Action, Rejection> {
    well_formed(head)?;
    addressed_to(&head.headers, &routes.hosts)?;
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > LONGEST_TARGET) {
        return Err(Rejection::TargetTooLong);
    }
    if ["sec-purpose", "purpose", "x-moz"].iter().any(|name| looks_ahead(&head.headers, name)) {
        return Err(Rejection::Prefetch);
    }
    let path = head.uri.path();
    if path == routes.callback {
        return callback(head, routes);
    }
    let path = Secret::new(path);
    let action = match () {
        () if same(&path, &routes.start) => Action::Start,
        () if same(&path, &routes.done) => Action::Done,
        () => return Err(Rejection::NotFound),
    };
    if head.method == Method::GET { Ok(action) } else { Err(Rejection::Method("GET")) }
}

/// Reads the form that `response_mode=form_post` sends.
pub(crate) fn form(body: &[u8], routes: &Routes) -> Result<AuthorizationResponse, Rejection> {
    AuthorizationResponse::read(body, &routes.state).map_err(Rejection::NoAnswer)
}

fn callback(head: &Parts, routes: &Routes) -> Result<Action, Rejection> {
    match head.method {
        Method::GET => {
            match AuthorizationResponse::read(head.uri.query().unwrap_or_default().as_bytes(), &routes.state) {
                Ok(response) => Ok(Action::Accept(response)),
                // A redirect without a path: this is somebody who looks at the port, no answer.
                Err(NoAnswer::Neither) if routes.callback == "/" => Err(Rejection::NotFound),
                Err(reason) => Err(Rejection::NoAnswer(reason)),
            }
        }
        Method::POST if is_form(&head.headers) => Ok(Action::ReadForm),
        Method::POST => Err(Rejection::NoForm),
        _ => Err(Rejection::Method("GET, POST")),
    }
}

/// hyper lets through: the forms of a target that are for proxies, and two lengths of one body.
fn well_formed(head: &Parts) -> Result<(), Rejection> {
    let for_a_server = head.uri.scheme().is_none() && head.uri.authority().is_none() && head.method != Method::CONNECT;
    let two_lengths =
        head.headers.contains_key(header::TRANSFER_ENCODING) && head.headers.contains_key(header::CONTENT_LENGTH);
    if for_a_server && !two_lengths { Ok(()) } else { Err(Rejection::Malformed) }
}

fn addressed_to(headers: &HeaderMap, hosts: &[String]) -> Result<(), Rejection> {
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else { return Err(Rejection::Malformed) };
    let known = hosts.iter().any(|known| host.as_bytes().eq_ignore_ascii_case(known.as_bytes()));
    if known { Ok(()) } else { Err(Rejection::OtherHost) }
}

/// `Sec-Purpose: prefetch;prerender` and its forerunners.
fn looks_ahead(headers: &HeaderMap, name: &str) -> bool {
    let begins = |value: &[u8]| value.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"prefetch"));
    headers.get_all(name).iter().any(|value| begins(value.as_bytes()))
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

/// Bytes. The longest real codes have some 3,000.
const LONGEST_TARGET: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn routes(callback: &str) -> Routes {
        Routes {
            hosts: ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"].map(str::to_owned).to_vec(),
            callback: callback.to_owned(),
            start: Secret::new("/start/s"),
            done: Secret::new("/done/d"),
            state: Secret::new("st"),
        }
    }

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Action, Rejection> {
        decide(&head(method, target, headers), &routes("/cb"))
    }

    type Header = (&'static str, &'static str);
    const US: Header = ("host", "localhost:8000");
    const FORM: Header = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

    #[test]
    fn the_answer_is_accepted_by_get_and_by_form() {
        let Ok(Action::Accept(response)) = asked("GET", "/cb?code=c&state=st", &[US]) else { panic!() };
        assert_eq!(response.result.unwrap().expose(), "c");
        assert_eq!(asked("POST", "/cb", &[US, FORM]), Ok(Action::ReadForm));
        assert!(form(b"code=c&state=st", &routes("/cb")).is_ok());
        assert_eq!(form(b"\xff\x00=&&&", &routes("/cb")), Err(Rejection::NoAnswer(NoAnswer::Neither)));
    }

    #[test]
    fn our_own_pages_are_known_by_their_secrets() {
        assert_eq!(asked("GET", "/start/s", &[US]), Ok(Action::Start));
        assert_eq!(asked("GET", "/done/d?x", &[US]), Ok(Action::Done));
        for target in ["/start/", "/start/S", "/start/s/", "//start/s", "/start/%73", "/done/s", "/done"] {
            assert_eq!(asked("GET", target, &[US]), Err(Rejection::NotFound), "{target}");
        }
    }

    #[test]
    fn what_is_not_the_answer_is_turned_away_with_its_status() {
        let query = "/cb?code=c&state=st";
        let form_type = ("content-type", "multipart/form-data");
        let long = format!("/cb?code={}&state=st", "c".repeat(LONGEST_TARGET));
        let cases: &[(&str, &str, &[Header], u16)] = &[
            ("GET", "/cb?code=c&state=x", &[US], 400),
            ("GET", "/cb?code=c", &[US], 400),
            ("GET", "/cb", &[US], 400),
            ("GET", "/cb?code=c&code=d&state=st", &[US], 400),
            ("GET", "/cb?code=c&error=e&state=st", &[US], 400),
            ("GET", &long, &[US], 414),
            ("GET", "//cb?code=c&state=st", &[US], 404),
            ("GET", "/%63b?code=c&state=st", &[US], 404),
            ("GET", "/cb/?code=c&state=st", &[US], 404),
            ("GET", "/CB?code=c&state=st", &[US], 404),
            ("GET", "/favicon.ico", &[US], 404),
            ("GET", "/", &[US], 404),
            ("POST", "/", &[US], 404),
            ("OPTIONS", "*", &[US], 404),
            ("HEAD", query, &[US], 405),
            ("PUT", query, &[US], 405),
            ("OPTIONS", query, &[US], 405),
            ("POST", "/start/s", &[US], 405),
            ("HEAD", "/start/s", &[US], 405),
            ("POST", query, &[US, form_type], 415),
            ("POST", query, &[US], 415),
            ("GET", query, &[], 400),
            ("GET", query, &[US, US], 400),
            ("GET", query, &[("host", "")], 421),
            ("GET", query, &[("host", "evil.example")], 421),
            ("GET", query, &[("host", "evil.example:8000")], 421),
            ("GET", query, &[("host", "localhost")], 421),
            ("GET", query, &[("host", "localhost:8001")], 421),
            ("GET", query, &[("host", "localhost:8000:8000")], 421),
            ("GET", query, &[("host", "localhost.:8000")], 421),
            ("GET", query, &[("host", "127.0.0.1.nip.io:8000")], 421),
            ("GET", query, &[US, ("transfer-encoding", "chunked"), ("content-length", "1")], 400),
            ("GET", "http://localhost:8000/cb?code=c&state=st", &[US], 400),
            ("CONNECT", "localhost:8000", &[US], 400),
            ("GET", query, &[US, ("sec-purpose", "prefetch;prerender")], 503),
            ("GET", query, &[US, ("purpose", "Prefetch")], 503),
        ];
        for (method, target, headers, status) in cases {
            let rejection = asked(method, target, headers).unwrap_err();
            assert_eq!(rejection.status().as_u16(), *status, "{method} {target} {headers:?}: {rejection:?}");
        }
    }

    #[test]
    fn every_loopback_name_is_ours() {
        for host in ["localhost:8000", "LocalHost:8000", "127.0.0.1:8000", "[::1]:8000"] {
            assert!(asked("GET", "/cb?code=c&state=st", &[("host", host)]).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_redirect_without_a_path_shows_nothing_to_who_looks_at_the_port() {
        let asked = |target| decide(&head("GET", target, &[US]), &routes("/"));
        assert_eq!(asked("/"), Err(Rejection::NotFound));
        assert_eq!(asked("/?state=st"), Err(Rejection::NotFound));
        assert_eq!(asked("/?code=c&state=x"), Err(Rejection::NoAnswer(NoAnswer::OtherSignIn)));
        assert!(matches!(asked("/?code=c&state=st"), Ok(Action::Accept(_))));
    }

    #[test]
    fn a_redirect_that_looks_like_our_start_page_is_the_redirect() {
        let routes = routes("/start/s");
        assert_eq!(decide(&head("GET", "/start/s", &[US]), &routes), Err(Rejection::NoAnswer(NoAnswer::Neither)));
        assert!(matches!(decide(&head("GET", "/start/s?code=c&state=st", &[US]), &routes), Ok(Action::Accept(_))));
    }

    proptest! {
        #[test]
        fn nothing_but_the_right_state_is_accepted(query in "[ -~&&[^#]]{0,60}", callback in "/[a-z]{0,3}") {
            let target = format!("{callback}?{}", query.replace(' ', "+"));
            if let Ok(request) = Request::builder().uri(target).header("host", "localhost:8000").body(()) {
                let decision = decide(&request.into_parts().0, &routes(&callback));
                prop_assert!(decision.is_err() || query.contains("st"), "{:?}", decision);
            }
        }

        #[test]
        fn any_form_and_any_header_is_answered(body in any::<Vec<u8>>(), host in any::<Vec<u8>>(), kind in any::<Vec<u8>>()) {
            let _ = form(&body, &routes("/cb"));
            let request = Request::builder().method("POST").uri("/cb").header("host", host).header("content-type", kind.clone()).header("purpose", kind);
            if let Ok(request) = request.body(()) {
                prop_assert!(decide(&request.into_parts().0, &routes("/cb")).is_err());
            }
        }
    }
}
