//! Requests to the provider: one way out, with the limits that every one of them needs.
//!
//! No redirect is followed (the answer to another question, RFC 9700 §4.12), bodies end at a cap,
//! connecting and the whole exchange have time-outs, and what may pass by itself is tried again
//! for a while. The TLS client is built by the first request, because reading the system's roots
//! is what costs.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Request, Response, StatusCode};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use url::Url;

use crate::clock::{Clock, in_words};
use crate::error::{Error, Result};
use crate::http_client;
pub(crate) use crate::http_client::Limits;
pub(crate) use crate::http_fault::shown;
use crate::http_fault::{self, Fault};
use crate::loopback::is_loopback;
use crate::settings::ConnectionSettings;
use crate::ui::Ui;

/// Whether a request may be made more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing when it is made twice.
    Freely,
    /// Only if it cannot have reached the provider: a code is good for one use.
    IfUnsent,
}

/// The client of a provider.
pub(crate) struct Http {
    settings: ConnectionSettings,
    headers: HeaderMap,
    limits: Limits,
    /// With TLS, and without it for loopback, where no roots need to be read.
    secured: OnceCell<reqwest::Client>,
    plain: OnceCell<reqwest::Client>,
    skew: Cell<Option<SignedDuration>>,
    ui: Ui,
    clock: Clock,
}

impl Http {
    /// Opens nothing yet.
    pub(crate) fn new(settings: &ConnectionSettings, ui: Ui, clock: Clock) -> Result<Self> {
        Self::with_limits(settings, Limits::USUAL, ui, clock)
    }

    pub(crate) fn with_limits(settings: &ConnectionSettings, limits: Limits, ui: Ui, clock: Clock) -> Result<Self> {
        Ok(Self {
            settings: settings.clone(),
            headers: headers(settings)?,
            limits,
            secured: OnceCell::new(),
            plain: OnceCell::new(),
            skew: Cell::new(None),
            ui,
            clock,
        })
    }

    /// How far the provider's clock is ahead of ours, by the last answer that told the time.
    pub(crate) fn clock_skew(&self) -> Option<SignedDuration> {
        self.skew.get()
    }

    /// The time by our own clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tells a step of the protocol, with `-v`.
    pub(crate) fn step(&self, text: impl std::fmt::Display) {
        self.ui.step(text);
    }

    /// The answer, whatever its status, unless it is a redirect. A provider that cannot answer now
    /// ([`is_unavailable`]) or be reached is asked again as far as `repeat` and patience allow.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>, repeat: Repeat) -> Result<Response<Vec<u8>>> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.attempt(&request).await;
            let wait = match &outcome {
                Ok(response) if !is_unavailable(response.status()) || repeat == Repeat::IfUnsent => None,
                Ok(response) => retry_after(response.headers(), self.clock.now()).max(Some(jittered(pause))),
                Err(fault) if fault.lasting || (fault.sent && repeat == Repeat::IfUnsent) => None,
                Err(_) => Some(jittered(pause)),
            };
            let within = |wait: &Duration| began.elapsed().saturating_add(*wait) <= self.limits.patience;
            let Some(wait) = wait.filter(within) else { return outcome.map_err(|fault| fault.error) };
            let reason = match &outcome {
                Ok(response) => format!("the provider answers `{}`", response.status()),
                Err(fault) => fault.error.message().to_owned(),
            };
            self.ui.step(format!("{reason}: asking again"));
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, request: &Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Fault> {
        let sent = reqwest::Request::try_from(request.clone()).map_err(|error| http_fault::unusable(&error))?;
        let url = sent.url().clone();
        let proxy = self.settings.proxies.on_the_way_to(&url).map_err(Fault::lasting)?;
        let fault = |error: &reqwest::Error| http_fault::explain(error, &url, proxy.as_ref(), self.clock.now());
        let client = self.client(&url)?;
        self.ui.detail(2, format!("{} {}", request.method(), shown(&url)));
        let response = client.execute(self.dressed(sent)).await.map_err(|error| fault(&error))?;
        self.note_date(response.headers());
        self.ui.detail(2, format!("{} from {}", response.status(), shown(&url)));
        if response.status().is_redirection() {
            return Err(Fault::lasting(redirected(&url, response.headers())));
        }
        self.read(response, &url, fault).await
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Fault> {
        let tls = match url.scheme() {
            "https" => true,
            "http" if is_loopback(url) => false,
            _ => return Err(Fault::lasting(Error::bug(format!("an unencrypted request to {}", shown(url))))),
        };
        let cell = if tls { &self.secured } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = http_client::build(&self.settings, &self.limits, tls).map_err(Fault::lasting)?;
        Ok(cell.get_or_init(|| client))
    }

    /// The request with the configured headers in place of its own.
    fn dressed(&self, mut request: reqwest::Request) -> reqwest::Request {
        for name in self.headers.keys() {
            request.headers_mut().remove(name);
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name.clone(), value.clone());
        }
        request
    }

    /// Reads the body up to the cap. We ask for no compression, so none is unpacked.
    async fn read(
        &self,
        mut response: reqwest::Response,
        url: &Url,
        fault: impl Fn(&reqwest::Error) -> Fault,
    ) -> Result<Response<Vec<u8>>, Fault> {
        let unusable = |cause: String| {
            Fault::lasting(Error::unreachable(format!("the answer of `{}` is unusable", shown(url))).cause(cause))
        };
        if let Some(encoding) =
            response.headers().get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity")
        {
            return Err(unusable(format!(
                "it is compressed, which was not asked for: `{}`",
                String::from_utf8_lossy(encoding.as_bytes())
            )));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error))? {
            if body.len() + chunk.len() > self.limits.body {
                return Err(unusable(format!("it is longer than {} KiB", self.limits.body / 1024)));
            }
            body.extend_from_slice(&chunk);
        }
        let mut read = Response::new(body);
        *read.status_mut() = response.status();
        *read.headers_mut() = std::mem::take(response.headers_mut());
        Ok(read)
    }

    /// An answer from a cache on the way is as old as its `Age` says (RFC 9111 §5.1).
    fn note_date(&self, headers: &HeaderMap) {
        let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse::<u32>().ok()).unwrap_or(0);
        let date = headers.get(header::DATE).and_then(date);
        let then = date.and_then(|date| date.checked_add(SignedDuration::from_secs(age.into())).ok());
        if let Some(then) = then {
            self.skew.set(Some(then.duration_since(self.clock.now())));
        }
    }
}

/// Whether the provider says that it cannot answer just now: 5xx, or 429.
pub(crate) fn is_unavailable(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// The error for such an answer.
pub(crate) fn unavailable(url: &Url, response: &Response<Vec<u8>>, now: Timestamp) -> Error {
    let error =
        Error::unreachable(format!("the provider cannot answer now: `{}` from `{}`", response.status(), shown(url)));
    match retry_after(response.headers(), now) {
        Some(wait) => {
            let wait = in_words(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
            error.cause(format!("it asks to be left alone for {wait}")).hint(format!("try again in {wait}"))
        }
        None => error.hint("try again in a while; if it lasts, whoever runs the provider must look"),
    }
}

/// The configured headers. Their values may be secret.
fn headers(settings: &ConnectionSettings) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let bad =
            |what: &str| Error::settings(format!("`--request-header` has {what} that HTTP does not allow: `{name}`"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("a name"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| bad("a value"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

fn redirected(url: &Url, headers: &HeaderMap) -> Error {
    let target =
        headers.get(header::LOCATION).and_then(|target| target.to_str().ok()).and_then(|target| url.join(target).ok());
    let target = target.map(|target| format!(" to `{}`", shown(&target))).unwrap_or_default();
    Error::unreachable(format!("`{}` answers with a redirect{target}, which is not followed", shown(url)))
        .hint("if the provider has moved, name its new address with `--issuer-url`")
        .hint("if a network's own sign-in page answers in its place (hotel, company), open any page in a browser and sign in there first")
}

/// How long the provider asks to be left alone (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    if let Some(seconds) = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::try_from(date(value)?.duration_since(now)).unwrap_or_default())
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    rfc2822::parse(value.to_str().ok()?).ok().map(|date| date.timestamp())
}

/// Half to all of the pause: processes that failed together must not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
pub(crate) mod tests;
