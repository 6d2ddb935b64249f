//! How two ends know each other: TLS 1.3 with mutual raw public keys (RFC 7250), pinned. No certificates, no authorities.
//!
//! *In*: our own key, and the set of keys that we accept. *Out*: rustls configurations for QUIC. *Trusts*: the pinned keys.
//! *Refuses*: any other key, any other signature scheme than Ed25519, TLS 1.2, 0-RTT and session tickets: a key that was
//! taken out of the set cannot come back on a ticket, and no message can be replayed.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::key::{PublicKey, SecretKey};

/// The protocol's name and major version.
pub const ALPN: &[u8] = b"vestibule/1";
/// The same, of the tunnel that carries it where a network lets no UDP through: neither is taken for the other.
pub const TUNNEL_ALPN: &[u8] = b"vestibule-tunnel/1";

/// The keys that are accepted. Shared: a change holds from the next handshake on.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<RwLock<HashSet<PublicKey>>>);

impl Pins {
    /// These keys.
    #[must_use]
    pub fn of(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }

    /// From now on, exactly these keys.
    pub fn replace(&self, keys: impl IntoIterator<Item = PublicKey>) {
        let keys = keys.into_iter().collect();
        // A poisoned lock means a panic while the set was held; the set is replaced whole, so it is sound again.
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
    }

    fn check(&self, spki: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let key = PublicKey::from_spki(spki).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        match self.0.read() {
            Ok(keys) if keys.contains(&key) => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

#[derive(Debug)]
struct Verifier {
    pins: Pins,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signed, &self.algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.3 only".to_owned()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.pins.check(key, intermediates).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.pins.check(key, intermediates).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    // By reference: what is given away is dropped as it is, and this is wiped.
    let der = key.to_der();
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice()))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(key.public().to_spki())], signer)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The coordinator's end.
///
/// # Errors
/// The TLS library's own refusal of the key.
pub fn server(key: &SecretKey, sites: Pins) -> Result<rustls::ServerConfig, Error> {
    let provider = provider();
    let verifier = Verifier { pins: sites, algorithms: provider.signature_verification_algorithms };
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A site's end.
///
/// # Errors
/// The TLS library's own refusal of the key.
pub fn client(key: &SecretKey, coordinator: Pins) -> Result<rustls::ClientConfig, Error> {
    let provider = provider();
    let verifier = Verifier { pins: coordinator, algorithms: provider.signature_verification_algorithms };
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
