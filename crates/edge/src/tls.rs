//! One certificate and its key: read from files, or made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ED25519};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use wire::keys::NodePublic;

use crate::error::EdgeError;

/// How long before and after the start the certificate that tells the relay's key is valid. Nobody looks at it.
const TOLD_FOR: Duration = Duration::from_secs(30 * 86_400);

/// When each of the two files was last changed, and its size.
pub(crate) type Stamp = [Option<(SystemTime, u64)>; 2];

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then the others of its chain.
    pub certificates: PathBuf,
    /// PEM: its private key. May be the same file.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads both. `relay` is the key of the relay behind it, which clients are told with the certificate.
    pub(crate) fn load(&self, relay: Option<&NodePublic>) -> Result<CertifiedKey, EdgeError> {
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
    pub(crate) fn stamp(&self) -> Stamp {
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
