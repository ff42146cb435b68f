//! The TLS client that `http` sends with: whom it trusts, who it says it is, and by which way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Proxy};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::error::{Error, Result};
use crate::http_fault;
use crate::settings::ConnectionSettings;

/// Times and sizes that no answer may pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Looking up the name, connecting and TLS.
    pub(crate) connect: Duration,
    /// One exchange, from connecting to the last byte.
    pub(crate) exchange: Duration,
    /// No further attempt begins later than this after the first.
    pub(crate) patience: Duration,
    /// Bytes of a body.
    pub(crate) body: usize,
}

impl Limits {
    pub(crate) const USUAL: Self = Self {
        connect: Duration::from_secs(5),
        exchange: Duration::from_secs(20),
        patience: Duration::from_secs(5),
        body: 1 << 20,
    };
}

/// Reads the files that the settings name, and for `tls` the system's roots, which is slow.
pub(crate) fn build(settings: &ConnectionSettings, limits: &Limits, tls: bool) -> Result<Client> {
    // One provider for the whole process; kube may have chosen the same one before.
    let _ = ring::default_provider().install_default();
    let authorities = authorities(settings)?;
    let proxies = Arc::new(settings.proxies.clone());
    let proxy = Proxy::custom(move |url| {
        let proxy = proxies.on_the_way_to(url).ok().flatten()?;
        Some(proxy.url_with_password())
    });
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(limits.connect)
        .timeout(limits.exchange)
        .pool_idle_timeout(IDLE)
        .no_proxy()
        .proxy(proxy)
        .tls_danger_accept_invalid_certs(settings.insecure_skip_tls_verify);
    // A static C library on Linux looks no names up; elsewhere only the system knows a VPN's names.
    if cfg!(any(target_os = "macos", windows)) {
        builder = builder.no_hickory_dns();
    }
    builder = if tls { builder.tls_certs_merge(authorities) } else { builder.tls_certs_only(authorities) };
    if let Some((certificate, key)) = &settings.client_certificate {
        builder = builder.identity(identity(certificate, key)?);
    }
    builder.build().map_err(|error| http_fault::client_not_built(&error))
}

/// The authorities to trust besides the system's.
fn authorities(settings: &ConnectionSettings) -> Result<Vec<Certificate>> {
    let mut authorities = Vec::new();
    for path in &settings.certificate_authorities {
        let place = format!("`{}`", path.display());
        authorities.extend(trusted(&place, &read("the CA certificates", path)?)?);
    }
    for data in &settings.certificate_authority_data {
        let place = "`--certificate-authority-data`";
        let compact: String = data.split_whitespace().collect();
        let pem = STANDARD.decode(compact).map_err(|error| {
            Error::settings(format!("{place} is not base64"))
                .caused_by(&error)
                .hint("make it with `base64 -w0 <file>`, or name the file: `--certificate-authority <file>`")
        })?;
        authorities.extend(trusted(place, &pem)?);
    }
    Ok(authorities)
}

fn trusted(place: &str, pem: &[u8]) -> Result<Vec<Certificate>> {
    let mut trusted = Vec::new();
    for der in certificates(place, pem)? {
        let unusable = |error: &dyn std::fmt::Display| {
            Error::settings(format!("a CA certificate in {place} cannot be used")).cause(error)
        };
        RootCertStore::empty().add(der.clone()).map_err(|error| unusable(&error))?;
        trusted.push(Certificate::from_der(&der).map_err(|error| unusable(&error))?);
    }
    Ok(trusted)
}

fn certificates(place: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::settings(format!("the certificates in {place} are damaged")).caused_by(&error))?;
    if found.is_empty() {
        return Err(Error::settings(format!("there is no certificate in {place}"))
            .cause("nothing in it begins with `-----BEGIN CERTIFICATE-----`")
            .hint("a binary certificate becomes text with `openssl x509 -inform der -in <file> -out <file>.pem`"));
    }
    Ok(found)
}

/// The certificate that we show to a provider that wants one, and its key.
fn identity(certificate: &Path, key: &Path) -> Result<Identity> {
    let place = format!("`{}`", certificate.display());
    let certificate_pem = read("the client certificate", certificate)?;
    let chain = certificates(&place, &certificate_pem)?;
    let key_pem = read("the client key", key)?;
    let key_error = |error: &dyn std::fmt::Display| {
        Error::settings(format!("the client key in `{}` cannot be used", key.display()))
            .cause(error)
            .hint("it must be an unencrypted key in PEM form that belongs to the certificate of `--client-certificate`")
    };
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| key_error(&error))?;
    // The TLS library would tell this only while connecting, and not of which file.
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| key_error(&error))?;
    let mut both = certificate_pem;
    both.push(b'\n');
    both.extend_from_slice(&key_pem);
    Identity::from_pem(&both).map_err(|error| key_error(&error))
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::settings(format!("cannot read {what} in `{}`", path.display())).caused_by(&error))
}

/// While a person signs in, something on the way may forget a connection in silence; the code must
/// not be sent into it.
const IDLE: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
