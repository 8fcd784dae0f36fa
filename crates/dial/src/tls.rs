//! TLS towards a relay: whom to trust, and for which name.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as aws, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    PeerMisbehaved, RootCertStore, SignatureScheme,
};
use wire::derpmap::RelayNode;

use crate::deadline::Deadline;
use crate::error::{Failure, Stage};
use crate::target::{Identity, Target, TrustRoots};
use crate::transport::{Tls, Transport};

/// In front of a certificate name: the SHA-256 of the server's own certificate (DER), in hex, is to match.
const PIN_PREFIX: &str = "sha256-raw:";

/// Opens a TLS session over `below`. TLS 1.2 and up, ALPN `http/1.1` if `alpn` is set.
pub(crate) fn open(
    below: Transport,
    node: &RelayNode,
    target: &Target,
    alpn: bool,
    deadline: Deadline,
) -> Result<Transport, Failure> {
    let provider = Arc::new(aws::default_provider());
    let verifier = Verifier { trust: Trust::of(node, &target.roots, &provider)?, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &target.identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = load(identity)?;
            config.with_client_auth_cert(chain, key).map_err(|error| unusable(&identity.key, &error))?
        }
    };
    if alpn {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    let session = ClientConnection::new(Arc::new(config), server_name(&node.host)?)
        .map_err(|error| Failure::Tls(error.to_string()))?;
    let mut tls = Tls::new(below, session);
    tls.handshake(deadline).map_err(failure)?;
    Ok(Transport::Tls(Box::new(tls)))
}

/// Reads a client certificate and its key.
fn load(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let chain = certificates(&identity.certificates)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| unusable(&identity.key, &error))?;
    Ok((chain, key))
}

/// Reads the certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() { Err(unusable(path, &"it has no certificate")) } else { Ok(found) }
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::Files(format!("{}: {reason}", path.display()))
}

fn server_name(name: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| Failure::Trust(format!("{name:?} is no name a certificate can have")))
}

/// What is said of a certificate that no known authority vouches for, with what to do about it.
const UNKNOWN_AUTHORITY: &str =
    "nobody we know vouches for its certificate; --ca-file (CODER_CA_FILE) names further authorities";

fn is_stranger(reason: &CertificateError) -> bool {
    // A certificate that vouches for itself is checked as an authority's, and is none.
    let other = |error: &rustls::OtherError| error.to_string().contains("CaUsedAsEndEntity");
    matches!(reason, CertificateError::UnknownIssuer | CertificateError::BadSignature)
        || matches!(reason, CertificateError::Other(error) if other(error))
}

fn failure(error: std::io::Error) -> Failure {
    use rustls::Error::{AlertReceived, PeerMisbehaved as Misbehaved};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(
            Misbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)
            | AlertReceived(AlertDescription::NoApplicationProtocol),
        ) => Failure::WantsHttp2,
        Some(rustls::Error::InvalidCertificate(reason)) if is_stranger(reason) => {
            Failure::Tls(format!("{UNKNOWN_AUTHORITY} ({reason})"))
        }
        Some(inner) => Failure::Tls(inner.to_string()),
        None => Failure::io(Stage::Tls)(error),
    }
}

/// What makes a certificate acceptable.
#[derive(Debug)]
enum Trust {
    /// Everything is (`InsecureForTests`).
    Anything,
    /// It is this one.
    Pinned([u8; 32]),
    /// An authority vouches for it, for this name if given, else for the host's.
    Authority(Arc<WebPkiServerVerifier>, Option<ServerName<'static>>),
}

impl Trust {
    fn of(node: &RelayNode, roots: &TrustRoots, provider: &Arc<CryptoProvider>) -> Result<Self, Failure> {
        if node.insecure {
            return Ok(Self::Anything);
        }
        if let Some(pin) = node.cert_name.strip_prefix(PIN_PREFIX) {
            let mut digest = [0; 32];
            hex::decode_to_slice(pin, &mut digest)
                .map_err(|_| Failure::Trust(format!("{PIN_PREFIX} needs 64 hex digits")))?;
            return Ok(Self::Pinned(digest));
        }
        let name = if node.cert_name.is_empty() { None } else { Some(server_name(&node.cert_name)?) };
        let authorities = match roots {
            TrustRoots::System => system_authorities(provider)?,
            TrustRoots::SystemAnd(path) => {
                let mut roots = system_roots().clone();
                roots.add_parsable_certificates(certificates(path)?);
                authorities(roots, provider)?
            }
            TrustRoots::Pem(pem) => {
                let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(
                    certificates.map_err(|error| Failure::Trust(error.to_string()))?,
                );
                authorities(roots, provider)?
            }
        };
        Ok(Self::Authority(authorities, name))
    }
}

/// The system's authorities, kept for the life of the process once they were read.
fn system_roots() -> &'static RootCertStore {
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

/// What checks with them, kept likewise.
fn system_authorities(provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Failure> {
    static SYSTEM: OnceLock<Arc<WebPkiServerVerifier>> = OnceLock::new();
    if let Some(verifier) = SYSTEM.get() {
        return Ok(verifier.clone());
    }
    let verifier = authorities(system_roots().clone(), provider)?;
    Ok(SYSTEM.get_or_init(|| verifier).clone())
}

fn authorities(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Failure> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Failure::Trust(error.to_string()))
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anything => Ok(ServerCertVerified::assertion()),
            Trust::Pinned(pin) if digest(&SHA256, end_entity).as_ref() == pin => {
                Ok(ServerCertVerified::assertion())
            }
            Trust::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Trust::Authority(authority, name) => {
                let name = name.as_ref().unwrap_or(server_name);
                authority.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
