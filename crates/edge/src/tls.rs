//! The server's certificate: read from files, read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ED25519};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use wire::keys::NodePublic;

use crate::counters::Tally;
use crate::error::EdgeError;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long before and after the start the certificate that tells the relay's key is valid. Nobody looks at it.
const TOLD_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then the others of its chain.
    pub certificates: PathBuf,
    /// PEM: its private key. May be the same file.
    pub key: PathBuf,
}

impl TlsFiles {
    fn load(&self, relay: Option<&NodePublic>) -> Result<CertifiedKey, EdgeError> {
        let mut chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&self.certificates)?)
            .collect::<Result<_, _>>()
            .map_err(|error| fault(&self.certificates, format!("it is no PEM file: {error}")))?;
        if chain.is_empty() {
            return Err(fault(&self.certificates, "it has no certificate".to_owned()));
        }
        if let Some(relay) = relay {
            chain.push(telling(relay).map_err(|error| fault(&self.certificates, error.to_string()))?);
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|error| fault(&self.key, format!("it has no usable private key: {error}")))?;
        CertifiedKey::from_der(chain, key, &provider::default_provider())
            .map_err(|error| fault(&self.key, format!("it does not fit the certificate: {error}")))
    }

    /// What changes when the files do.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.certificates, &self.key].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EdgeError> {
    fs::read(path).map_err(|error| fault(path, error.to_string()))
}

fn fault(path: &Path, reason: String) -> EdgeError {
    EdgeError::Tls { path: path.to_owned(), reason }
}

/// The certificate in force.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    /// The key of the relay behind it, which clients are told with the certificate.
    relay: Option<NodePublic>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles, relay: Option<NodePublic>) -> Result<Arc<Self>, EdgeError> {
        let current = RwLock::new(Arc::new(files.load(relay.as_ref())?));
        Ok(Arc::new(Self { files, relay, current }))
    }

    /// What TLS servers need: TLS 1.2 and up, or only 1.3; HTTP/1.1, or HTTP/2 where the client prefers it.
    pub(crate) fn config(
        self: &Arc<Self>,
        only_13: bool,
        http2: bool,
    ) -> Result<Arc<ServerConfig>, EdgeError> {
        let versions = if only_13 { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| fault(&self.files.certificates, error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        let http2 = http2.then(|| b"h2".to_vec());
        config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
        Ok(Arc::new(config))
    }

    /// Reads the files again. What is in force stays in force if they are of no use.
    fn reload(&self) -> Result<(), EdgeError> {
        let fresh = Arc::new(self.files.load(self.relay.as_ref())?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Looks at the files for ever. New connections get what they hold now.
    pub(crate) async fn watch(self: Arc<Self>, tally: Arc<Tally>) {
        let mut seen = self.files.stamp();
        loop {
            tokio::time::sleep(LOOK).await;
            let stamp = self.files.stamp();
            if stamp == seen {
                continue;
            }
            // The two files are seldom replaced at once: a pair that does not fit is tried again until it does.
            match self.reload() {
                Ok(()) => {
                    seen = stamp;
                    Tally::add(&tally.tls_reloads);
                }
                Err(_) => Tally::add(&tally.tls_reload_failures),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The last certificate of the chain: it vouches for nothing, but tells DERP clients the relay's key, so that they can log
/// in without waiting for its greeting (`derpkey<hex>`, serial number = version of the protocol).
fn telling(relay: &NodePublic) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("derpkey{}", relay.to_hex()));
    params.serial_number = Some(wire::derp::VERSION.unsigned_abs().into());
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = (SystemTime::now() - TOLD_FOR).into();
    params.not_after = (SystemTime::now() + TOLD_FOR).into();
    Ok(params.self_signed(&KeyPair::generate_for(&PKCS_ED25519)?)?.der().clone())
}

/// A certificate that vouches for itself, and its key, both in PEM. Clients trust it by its [`pin`].
///
/// # Errors
/// [`EdgeError::Name`] for a name that no certificate can have.
pub fn self_signed(names: Vec<String>) -> Result<(String, String), EdgeError> {
    let name = |error: rcgen::Error| EdgeError::Name(error.to_string());
    let common = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).map_err(name)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    let key = KeyPair::generate().map_err(name)?;
    let certificate = params.self_signed(&key).map_err(name)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// What a DERP map's `CertName` is to be so that exactly this certificate is trusted: the first one of a PEM text.
///
/// # Errors
/// [`EdgeError::Name`] if there is none.
pub fn pin(pem: &[u8]) -> Result<String, EdgeError> {
    let first = CertificateDer::from_pem_slice(pem).map_err(|error| EdgeError::Name(error.to_string()))?;
    Ok(format!("sha256-raw:{}", hex::encode(digest(&SHA256, &first))))
}
