//! The one browser that the local server of `open` serves.
//!
//! It proves itself once with a secret in the start address and from then on with a cookie. Cookies
//! are shared by all ports of a host, so the cookie's name carries the port. A start address that
//! is used a second time has been seen by somebody else, or may have been: that ends the session.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue, header};

use crate::error::{Error, Result};
use crate::random::Random;
use crate::secret::Secret;

/// The session, shared by all connections.
#[derive(Debug)]
pub(crate) struct BrowserSession {
    cookie_name: String,
    random: Random,
    /// Stands in the addresses that sign-ins lead back to.
    way_back: Secret,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Stands in the start address, used or not.
    start: Secret,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The start address has not been used.
    Waiting,
    Open {
        cookie: Secret,
    },
    /// The browser may come back with this cookie, and with nothing else.
    LoggedOut {
        cookie: Secret,
    },
    Ended(End),
}

/// Why a session ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The start address was used a second time.
    StartedTwice,
    /// Whoever signed in again is somebody else than before.
    AnotherUser,
}

/// What a request's cookie says of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The browser that opened the session.
    Known,
    /// The same browser, after it logged out: it may come back.
    LoggedOut,
    Stranger,
}

/// What a stranger is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    /// The start address waits for its browser.
    Waiting,
    /// Another browser has the session, or this one has lost its cookie.
    Open,
    LoggedOut,
    Ended(End),
}

/// What the use of a start address came to.
#[derive(Debug)]
pub(crate) enum Start {
    /// The session is this browser's: the value of `Set-Cookie` says so to it.
    Opened(HeaderValue),
    /// It has been used before; now the session has ended.
    UsedTwice,
    /// Not this session's.
    Wrong,
}

impl BrowserSession {
    /// A session of the server on this port that waits for its browser.
    pub(crate) fn new(port: u16, random: Random) -> Result<Self> {
        let state = State { start: random.secret()?, stage: Stage::Waiting };
        let (cookie_name, way_back) = (format!("kubectl-headlamp-{port}"), random.secret()?);
        Ok(Self { cookie_name, random, way_back, state: Mutex::new(state) })
    }

    /// What an address that a sign-in leads back to is known by. It opens nothing.
    pub(crate) fn way_back(&self) -> &Secret {
        &self.way_back
    }

    /// What the start address ends with; `None` once it was used.
    pub(crate) fn start_secret(&self) -> Option<Secret> {
        let state = self.state();
        matches!(state.stage, Stage::Waiting).then(|| state.start.clone())
    }

    /// The same for a start address that takes the place of the one before, which opens nothing any more.
    pub(crate) fn renewed_start_secret(&self) -> Option<Secret> {
        let renewed = self.random.secret();
        let mut state = self.state();
        if let (Stage::Waiting, Ok(renewed)) = (&state.stage, renewed) {
            state.start = renewed;
        }
        matches!(state.stage, Stage::Waiting).then(|| state.start.clone())
    }

    /// Somebody asks for the start address. Looking at it ahead of time is not using it: whoever
    /// calls this has told prefetches and `HEAD` apart.
    pub(crate) fn start(&self, secret: &Secret) -> Result<Start> {
        let mut state = self.state();
        if !state.start.is(secret.expose().as_bytes()) {
            return Ok(Start::Wrong);
        }
        if !matches!(state.stage, Stage::Waiting) {
            if !matches!(state.stage, Stage::Ended(_)) {
                state.stage = Stage::Ended(End::StartedTwice);
            }
            return Ok(Start::UsedTwice);
        }
        let cookie = self.random.secret()?;
        let header = self.set_cookie(&cookie)?;
        state.stage = Stage::Open { cookie };
        Ok(Start::Opened(header))
    }

    /// Whose request this is.
    pub(crate) fn standing(&self, headers: &HeaderMap) -> Standing {
        let state = self.state();
        let (cookie, standing) = match &state.stage {
            Stage::Open { cookie } => (cookie, Standing::Known),
            Stage::LoggedOut { cookie } => (cookie, Standing::LoggedOut),
            Stage::Waiting | Stage::Ended(_) => return Standing::Stranger,
        };
        // Another program on this host can set a cookie of the same name beside ours.
        if self.values(headers).any(|value| cookie.is(value)) { standing } else { Standing::Stranger }
    }

    pub(crate) fn situation(&self) -> Situation {
        match self.state().stage {
            Stage::Waiting => Situation::Waiting,
            Stage::Open { .. } => Situation::Open,
            Stage::LoggedOut { .. } => Situation::LoggedOut,
            Stage::Ended(end) => Situation::Ended(end),
        }
    }

    /// Ends what the browser's cookie allows. It returns the value of `Set-Cookie` for the cookie
    /// that allows coming back; `None` where nothing was open.
    pub(crate) fn log_out(&self) -> Result<Option<HeaderValue>> {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Open { .. }) {
            return Ok(None);
        }
        let cookie = self.random.secret()?;
        let header = self.set_cookie(&cookie)?;
        state.stage = Stage::LoggedOut { cookie };
        Ok(Some(header))
    }

    /// Opens the session again for the browser that logged out; `None` for any other.
    pub(crate) fn come_back(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>> {
        let mut state = self.state();
        let Stage::LoggedOut { cookie } = &state.stage else { return Ok(None) };
        if !self.values(headers).any(|value| cookie.is(value)) {
            return Ok(None);
        }
        let cookie = self.random.secret()?;
        let header = self.set_cookie(&cookie)?;
        state.stage = Stage::Open { cookie };
        Ok(Some(header))
    }

    /// Ends the session; the first reason stays.
    pub(crate) fn end(&self, why: End) {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Ended(_)) {
            state.stage = Stage::Ended(why);
        }
    }

    /// The values of our cookie that came with the request.
    fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(self.cookie_name.as_bytes())?.strip_prefix(b"="))
    }

    fn set_cookie(&self, value: &Secret) -> Result<HeaderValue> {
        let text = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name, value.expose());
        let mut header =
            HeaderValue::try_from(text).map_err(|error| Error::bug("cannot write a cookie").caused_by(&error))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Every change is one assignment, so a thread that died within leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn session() -> BrowserSession {
        BrowserSession::new(7001, Random::system()).unwrap()
    }

    fn opened(session: &BrowserSession) -> HeaderMap {
        match session.start(&session.start_secret().unwrap()).unwrap() {
            Start::Opened(cookie) => sent(&cookie),
            other => panic!("{other:?}"),
        }
    }

    /// What a browser sends after this `Set-Cookie`.
    fn sent(set_cookie: &HeaderValue) -> HeaderMap {
        let pair = set_cookie.to_str().unwrap().split(';').next().unwrap();
        cookies(&[&format!("theme=dark; {pair}; x=y")])
    }

    fn cookies(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn the_start_address_makes_its_browser_known() {
        let session = session();
        assert_eq!(session.standing(&HeaderMap::new()), Standing::Stranger);
        let browser = opened(&session);
        assert_eq!(session.standing(&browser), Standing::Known);
        assert_eq!(session.standing(&HeaderMap::new()), Standing::Stranger);
        assert_eq!(session.situation(), Situation::Open);
    }

    #[test]
    fn the_cookie_stays_with_its_host_and_out_of_scripts_and_logs() {
        let session = session();
        let Start::Opened(cookie) = session.start(&session.start_secret().unwrap()).unwrap() else { panic!() };
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("kubectl-headlamp-7001="));
        assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Strict"));
        assert_eq!(format!("{cookie:?}"), "Sensitive");
        let secret = text.split(['=', ';']).nth(1).unwrap();
        assert!(!format!("{session:?}").contains(secret));
    }

    #[test]
    fn a_second_use_of_the_start_address_ends_the_session() {
        let session = session();
        let start = session.start_secret().unwrap();
        let browser = opened(&session);
        assert_eq!((session.start_secret(), session.renewed_start_secret()), (None, None));
        assert!(matches!(session.start(&start).unwrap(), Start::UsedTwice));
        assert_eq!(session.standing(&browser), Standing::Stranger);
        assert_eq!(session.situation(), Situation::Ended(End::StartedTwice));
        assert!(matches!(session.start(&start).unwrap(), Start::UsedTwice));
    }

    #[test]
    fn a_start_address_that_was_replaced_opens_nothing_and_ends_nothing() {
        let session = session();
        let first = session.start_secret().unwrap();
        let second = session.renewed_start_secret().unwrap();
        assert_eq!(session.start_secret(), Some(second.clone()));
        assert!(matches!(session.start(&first).unwrap(), Start::Wrong));
        assert!(matches!(session.start(&second).unwrap(), Start::Opened(_)));
        assert!(matches!(session.start(&first).unwrap(), Start::Wrong));
        assert_eq!(session.situation(), Situation::Open);
    }

    #[test]
    fn a_wrong_secret_changes_nothing() {
        let session = session();
        for wrong in ["", "x", &session.start_secret().unwrap().expose()[1..]] {
            assert!(matches!(session.start(&Secret::new(wrong)).unwrap(), Start::Wrong));
        }
        let browser = opened(&session);
        assert!(matches!(session.start(&Secret::new("x")).unwrap(), Start::Wrong));
        assert_eq!(session.standing(&browser), Standing::Known);
    }

    #[test]
    fn the_cookie_of_another_port_or_a_guess_is_a_strangers() {
        let session = session();
        let browser = opened(&session);
        let pair = browser[header::COOKIE].to_str().unwrap().split("; ").nth(1).unwrap();
        let value = pair.split_once('=').unwrap().1;
        for line in [
            format!("kubectl-headlamp-7002={value}"),
            format!("kubectl-headlamp-7001={}", &value[1..]),
            format!("kubectl-headlamp-7001={value}x"),
            format!("kubectl-headlamp-70010={value}"),
            "kubectl-headlamp-7001=".to_owned(),
            "kubectl-headlamp-7001".to_owned(),
            value.to_owned(),
        ] {
            assert_eq!(session.standing(&cookies(&[&line])), Standing::Stranger, "{line}");
        }
    }

    #[test]
    fn a_cookie_of_our_name_that_another_program_set_does_not_lock_the_browser_out() {
        let session = session();
        let browser = opened(&session);
        let ours = browser[header::COOKIE].to_str().unwrap();
        assert_eq!(session.standing(&cookies(&["kubectl-headlamp-7001=planted", ours])), Standing::Known);
    }

    #[test]
    fn after_logging_out_the_browser_may_come_back_and_do_nothing_else() {
        let session = session();
        let before = opened(&session);
        let logged_out = sent(&session.log_out().unwrap().unwrap());
        assert_eq!(session.standing(&before), Standing::Stranger);
        assert_eq!(session.standing(&logged_out), Standing::LoggedOut);
        assert!(session.come_back(&before).unwrap().is_none());
        let back = sent(&session.come_back(&logged_out).unwrap().unwrap());
        assert_eq!(session.standing(&back), Standing::Known);
        assert_eq!(session.standing(&logged_out), Standing::Stranger);
        assert!(session.come_back(&logged_out).unwrap().is_none());
    }

    #[test]
    fn the_start_address_is_spent_even_after_logging_out() {
        let session = session();
        let start = session.start_secret().unwrap();
        opened(&session);
        let logged_out = sent(&session.log_out().unwrap().unwrap());
        assert!(matches!(session.start(&start).unwrap(), Start::UsedTwice));
        assert!(session.come_back(&logged_out).unwrap().is_none());
    }

    #[test]
    fn an_ended_session_says_its_first_reason() {
        let session = session();
        let browser = opened(&session);
        session.end(End::AnotherUser);
        session.end(End::StartedTwice);
        assert_eq!(session.situation(), Situation::Ended(End::AnotherUser));
        assert!(session.log_out().unwrap().is_none());
        assert_eq!(session.standing(&browser), Standing::Stranger);
    }
}
