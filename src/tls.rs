//! TLS to an API server: whom we trust, and which certificate we show.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::Config;
use kube::client::ConfigExt;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::kubeconfig::{CertificateAuthority, ClusterEntry};
use crate::secret::Secret;

/// A client certificate with its key, ready to sign with. No `Debug`.
#[derive(Clone)]
pub(crate) struct ClientIdentity(Arc<CertifiedKey>);

impl ClientIdentity {
    /// From text in PEM format; the key may be PKCS #8, PKCS #1 or SEC 1, not encrypted. The error
    /// says what is wrong with it and shows nothing of it.
    pub(crate) fn from_pem(certificate: &[u8], key: &Secret) -> Result<Self, &'static str> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or("it holds no certificate in PEM format")?;
        let key = key.expose();
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| {
            if key.contains("ENCRYPTED") {
                "its key is encrypted, which kubectl does not know"
            } else {
                "it holds no private key in PEM format"
            }
        })?;
        match CertifiedKey::from_der(chain, der, &ring::default_provider()) {
            Ok(certified) => Ok(Self(Arc::new(certified))),
            Err(rustls::Error::InconsistentKeys(_)) => Err("certificate and key do not belong together"),
            Err(_) => Err("its key is of a kind that is not supported, or damaged"),
        }
    }

    /// Whether both show the same certificate.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }

    /// Something that is equal for certificates of the same subject: API servers take the common
    /// name for the user and the organizations for the groups.
    pub(crate) fn subject(&self) -> Option<String> {
        let certificate = webpki::EndEntityCert::try_from(self.0.cert.first()?).ok()?;
        Some(STANDARD.encode(Sha256::digest(certificate.subject())))
    }
}

/// The configuration for a cluster, without ALPN. kube builds it; what would make kube run programs
/// or read files is not handed to it.
pub(crate) fn configuration(cluster: &ClusterEntry, identity: Option<&ClientIdentity>) -> Result<ClientConfig> {
    // Two libraries below look for the process's provider when they are given none.
    let _ = ring::default_provider().install_default();
    let mut config = Config::new(Uri::from_static("https://cluster.invalid"));
    config.root_cert = authorities(cluster)?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify;
    let mut tls = config.rustls_client_config().map_err(|error| {
        Error::settings(format!("no TLS connection to the cluster `{}` can be prepared", cluster.name))
            .caused_by(&error)
    })?;
    if let Some(identity) = identity {
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.0.clone()));
    }
    Ok(tls)
}

/// The name that the server's certificate must be for, where it is not the address's.
pub(crate) fn server_name(cluster: &ClusterEntry) -> Result<Option<ServerName<'static>>> {
    let Some(name) = cluster.tls_server_name.clone() else { return Ok(None) };
    ServerName::try_from(name).map(Some).map_err(|error| {
        Error::settings(format!("`tls-server-name` of the cluster entry `{}` is no host name", cluster.name))
            .caused_by(&error)
    })
}

/// The entry's CAs in DER; none: the system's hold.
fn authorities(cluster: &ClusterEntry) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(pem) = authority_pem(cluster)? else { return Ok(None) };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            Ok(Some(certificates.iter().map(|certificate| certificate.to_vec()).collect()))
        }
        _ => Err(unusable_authority(cluster).cause("it holds no certificate in PEM format")),
    }
}

/// The text of the entry's CAs.
pub(crate) fn authority_pem(cluster: &ClusterEntry) -> Result<Option<Vec<u8>>> {
    let unusable = || unusable_authority(cluster);
    match &cluster.certificate_authority {
        None => Ok(None),
        Some(CertificateAuthority::Data(data)) => {
            let pem = STANDARD.decode(data.trim());
            pem.map(Some).map_err(|error| unusable().cause("it is not base64").caused_by(&error))
        }
        Some(CertificateAuthority::File(path)) => {
            let pem = std::fs::read(path);
            pem.map(Some).map_err(|error| unusable().cause(path.display()).caused_by(&error))
        }
    }
}

fn unusable_authority(cluster: &ClusterEntry) -> Error {
    let field = match cluster.certificate_authority {
        Some(CertificateAuthority::File(_)) => "certificate-authority",
        _ => "certificate-authority-data",
    };
    Error::settings(format!("`{field}` of the cluster entry `{}` is no use", cluster.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;
    use crate::error::Kind;

    /// A self-signed certificate for this common name, and its key.
    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn identity(certificate: &str, key: &str) -> Result<ClientIdentity, &'static str> {
        ClientIdentity::from_pem(certificate.as_bytes(), &Secret::new(key))
    }

    #[test]
    fn a_certificate_and_key_that_do_not_fit_are_refused_without_being_shown() {
        let (certificate, key) = pair("jane");
        let (_, other) = pair("joe");
        assert!(identity(&certificate, &key).is_ok());
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert!(identity(&certificate, &format!("{parameters}{key}")).is_ok());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQUJD\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let broken = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";
        for (certificate, key, expected) in [
            ("", key.as_str(), "no certificate"),
            (&certificate, "hunter2", "no private key"),
            (&certificate, &other, "do not belong together"),
            (&certificate, encrypted, "encrypted"),
            (&certificate, broken, "damaged"),
        ] {
            let error = identity(certificate, key).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_renewed_certificate_is_another_one_of_the_same_subject() {
        let identity = |name| {
            let (certificate, key) = pair(name);
            identity(&certificate, &key).unwrap_or_else(|error| panic!("{error}"))
        };
        let (one, renewed, other) = (identity("jane"), identity("jane"), identity("joe"));
        assert!(one.same_as(&one.clone()) && !one.same_as(&renewed));
        assert!(one.subject().is_some());
        assert_eq!(one.subject(), renewed.subject());
        assert_ne!(one.subject(), other.subject());
    }

    #[test]
    fn a_certificate_authority_or_server_name_that_is_none_is_a_settings_error() {
        for authority in [
            CertificateAuthority::Data("not base64!".into()),
            CertificateAuthority::Data("QUJD".into()),
            CertificateAuthority::File("/nonexistent/ca.pem".into()),
        ] {
            let cluster = ClusterEntry { certificate_authority: Some(authority), ..ClusterEntry::default() };
            assert_eq!(configuration(&cluster, None).unwrap_err().kind(), Kind::Settings);
        }
        let cluster = ClusterEntry { tls_server_name: Some("no name".into()), ..ClusterEntry::default() };
        assert_eq!(server_name(&cluster).unwrap_err().kind(), Kind::Settings);
    }
}
