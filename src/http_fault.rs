//! What went wrong on the way to the provider, in words, with the step that mends it.

use std::error::Error as StdError;
use std::io;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use url::Url;

use crate::error::Error;
use crate::proxy::Proxy;

/// A request that brought no answer.
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// It will be the same again.
    pub(crate) lasting: bool,
    /// The provider may have had the request.
    pub(crate) sent: bool,
}

impl Fault {
    pub(crate) fn lasting(error: Error) -> Self {
        Self { error, lasting: true, sent: false }
    }
}

/// A request that cannot even be written.
pub(crate) fn unusable(error: &reqwest::Error) -> Fault {
    Fault::lasting(Error::bug("a request cannot be made").cause(root(error)))
}

/// The reason and the way out, found in what the libraries say.
pub(crate) fn explain(error: &reqwest::Error, url: &Url, proxy: Option<&Proxy>, now: Timestamp) -> Fault {
    let no_answer = Error::unreachable(format!("no answer from `{}`", shown(url)));
    let sent = !error.is_connect();
    if let Some(tls) = find::<rustls::Error>(error) {
        let lasting = matches!(tls, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_));
        return Fault { error: of_tls(no_answer, tls, url, now), lasting, sent };
    }
    if let Some(tunnel) =
        chain(error).map(ToString::to_string).find_map(|text| text.strip_prefix("tunnel error: ").map(str::to_owned))
        && let Some(proxy) = proxy
        && let Some(error) = of_tunnel(&no_answer, &tunnel, proxy, url)
    {
        return Fault::lasting(error);
    }
    let error = match proxy {
        Some(proxy) if !sent => of_proxy(no_answer, error, proxy, url),
        _ => of_connection(no_answer, error, url),
    };
    Fault { error, lasting: false, sent }
}

fn of_connection(no_answer: Error, error: &reqwest::Error, url: &Url) -> Error {
    let host = url.host_str().unwrap_or_default();
    if error.is_dns() {
        return no_answer
            .cause(format!("the name `{host}` cannot be resolved{}", unresolved(error)))
            .hint("check the name in `--issuer-url`, and that your network and VPN are connected");
    }
    if error.is_timeout() {
        let what = if error.is_connect() { "connecting took too long" } else { "the answer took too long" };
        return no_answer
            .cause(what)
            .hint(format!("check that your network and VPN are connected and that `{host}` answers"));
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            let port = url.port_or_known_default().unwrap_or_default();
            no_answer
                .cause(format!("connection refused: nothing listens on port {port} of `{host}`"))
                .hint("check host and port of `--issuer-url`, and that the provider runs")
        }
        _ => no_answer
            .cause(root(error))
            .hint(format!("check that your network and VPN are connected and that `{host}` answers")),
    }
}

/// The connection to the proxy failed.
fn of_proxy(no_answer: Error, error: &reqwest::Error, proxy: &Proxy, url: &Url) -> Error {
    let reason = if error.is_dns() {
        format!("its name cannot be resolved{}", unresolved(error))
    } else if error.is_timeout() {
        "connecting took too long".to_owned()
    } else {
        root(error)
    };
    no_answer
        .cause(format!("the proxy `{}` of {} cannot be reached: {reason}", proxy.address(), proxy.named_by))
        .hint(correct_proxy(proxy, url))
}

/// The proxy answered, and not with a way through.
fn of_tunnel(no_answer: &Error, text: &str, proxy: &Proxy, url: &Url) -> Option<Error> {
    let (reason, hint) = match text {
        "proxy authorization required" => (
            "wants a user name and a password",
            format!("give them in {}: `http://<user>:<password>@<host>:<port>`", proxy.named_by),
        ),
        "unsuccessful" | "unexpected end of file" | "proxy response headers too long" => {
            ("refuses the connection", correct_proxy(proxy, url))
        }
        _ => return None,
    };
    let error = no_answer.clone().cause(format!("the proxy `{}` of {} {reason}", proxy.address(), proxy.named_by));
    Some(error.hint(hint))
}

fn correct_proxy(proxy: &Proxy, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("correct {}, or reach `{host}` without it: add `{host}` to `NO_PROXY`", proxy.named_by)
}

fn of_tls(no_answer: Error, error: &rustls::Error, url: &Url, now: Timestamp) -> Error {
    match error {
        rustls::Error::InvalidCertificate(reason) => of_certificate(no_answer, reason, url, now),
        rustls::Error::InvalidMessage(_) => no_answer
            .cause("what answers there does not speak TLS")
            .hint("check the port in `--issuer-url`: it may be the one for `http`"),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => no_answer
            .cause(format!("the provider did not accept our certificate: {error}"))
            .hint("give the certificate that it wants: `--client-certificate <file> --client-key <file>`"),
        _ => no_answer.cause(error).hint("check that the host in `--issuer-url` is the provider"),
    }
}

fn of_certificate(no_answer: Error, reason: &CertificateError, url: &Url, now: Timestamp) -> Error {
    let clock = "check this machine's clock: `date -u`";
    match reason {
        CertificateError::UnknownIssuer => no_answer
            .cause("the provider's certificate is signed by an authority that this machine does not trust")
            .hint("if you know that authority, name its certificate: `--certificate-authority <file>`"),
        CertificateError::BadSignature => no_answer
            .cause("the authority that signed the provider's certificate has another key than the one of that name which is trusted here")
            .hint("if it was made anew, name its new certificate: `--certificate-authority <file>`"),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => no_answer
            .cause(format!("the provider's certificate has expired: {}", of_times(reason)))
            .hint(format!("{clock}; it says {now:.0}"))
            .hint("if that is right, whoever runs the provider must renew its certificate"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => no_answer
            .cause(format!("the provider's certificate is not valid yet: {}", of_times(reason)))
            .hint(format!("{clock}; it says {now:.0}")),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => no_answer
            .cause(format!("the provider's certificate is for another name: {reason}"))
            .hint(format!("use a name of the certificate in `--issuer-url`, or give the provider a certificate for `{}`", url.host_str().unwrap_or_default())),
        _ if format!("{reason:?}").contains("CaUsedAsEndEntity") => no_answer
            .cause("the provider shows the certificate of an authority as its own: a self-signed one, which TLS clients refuse")
            .hint("give the provider a certificate that an authority has signed, and trust that authority: `--certificate-authority <file>`")
            .hint("only to try things out: `--insecure-skip-tls-verify`"),
        _ => no_answer.cause(format!("the provider's certificate cannot be trusted: {reason}")),
    }
}

/// The library tells times in seconds since 1970.
fn of_times(reason: &CertificateError) -> String {
    let told = |time: UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| "a time too far away".to_owned(), |time| time.to_string())
    };
    match reason {
        CertificateError::ExpiredContext { not_after, .. } => format!("it was good until {}", told(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => format!("it is good from {} on", told(*not_before)),
        _ => reason.to_string(),
    }
}

/// What is to be said beyond that nobody knows the name.
fn unresolved(error: &reqwest::Error) -> String {
    let reason = root(error);
    if reason.starts_with("no records found") { String::new() } else { format!(": {reason}") }
}

/// An address without user name, query and fragment, which may hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// A client that could not be built. The settings' own files have been checked before.
pub(crate) fn client_not_built(error: &reqwest::Error) -> Error {
    let unprepared = Error::unreachable("cannot prepare TLS");
    let reason = root(error);
    if !reason.contains("No CA certificates") {
        return unprepared.cause(reason);
    }
    unprepared
        .cause("this system has no CA certificates to know a server by")
        .hint("install them (package `ca-certificates`), or name one: `--certificate-authority <file>`")
}

/// What an error is about in the end.
fn root(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn find<T: StdError + 'static>(error: &reqwest::Error) -> Option<&T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

/// The error and its sources. An `io::Error` hands out the source of what it wraps; here comes
/// what it wraps itself.
fn chain<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> + 'a {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}
