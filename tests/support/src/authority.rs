//! A certificate authority made for one run, and what it certifies.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority that only this run knows.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// Its private key.
    pub key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new authority of this name.
    pub fn new(name: &str) -> Self {
        let mut parameters = parameters(&[], name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(parameters, key).expect("a certificate"))
    }

    /// The authority's own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for servers of these names and addresses.
    pub fn server(&self, names: &[&str]) -> Certificate {
        self.issue(parameters(names, "server"), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for servers of these names and addresses that has run out.
    pub fn expired_server(&self, names: &[&str]) -> Certificate {
        let mut parameters = parameters(names, "server");
        parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2001, 12, 31);
        self.issue(parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate that is an authority, signed by itself, and shown by a server of these names.
    pub fn self_signed_server(names: &[&str]) -> Certificate {
        let mut parameters = parameters(names, "server");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Certificate::new(&certificate, &key)
    }

    /// A certificate for clients (mutual TLS).
    pub fn client(&self, name: &str) -> Certificate {
        self.issue(parameters(&[], name), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a client of a cluster: the name is `CN`, each group an `O`.
    pub fn client_in(&self, name: &str, groups: &[&str]) -> Certificate {
        let mut parameters = parameters(&[], name);
        for group in groups {
            parameters.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.issue(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Certificate {
        parameters.extended_key_usages = vec![usage];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate");
        Certificate::new(&certificate, &key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }
}

impl Certificate {
    /// From PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        use rustls::pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a PEM certificate");
        let key_der = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).expect("a PEM key, as PKCS #8");
        Self { pem: certificate.to_owned(), key_pem: key.to_owned(), der, key_der: key_der.secret_pkcs8_der().to_vec() }
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

fn parameters(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("names of a certificate");
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

/// TLS with this certificate; clients must show one of `clients`, if that is given.
pub(crate) fn server_config(certificate: &Certificate, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().expect("TLS");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider)
                .build()
                .expect("a verifier"),
        ),
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.key_der.clone()));
    Arc::new(builder.with_single_cert(vec![certificate.der.clone()], key).expect("a certificate and its key"))
}

/// TLS with this certificate; clients may show one of `clients`. `protocols` are those of ALPN.
pub(crate) fn server_config_for_anybody(
    certificate: &Certificate,
    clients: &Authority,
    protocols: &[&str],
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), Arc::clone(&provider));
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    let builder = builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.key_der.clone()));
    let mut config = builder.with_single_cert(vec![certificate.der.clone()], key).expect("a certificate and its key");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// TLS that trusts these PEM certificates and nobody else.
pub(crate) fn client_config(roots: &[String]) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let mut store = RootCertStore::empty();
    for pem in roots {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a PEM certificate");
        store.add(certificate).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(builder.with_root_certificates(store).with_no_client_auth())
}
