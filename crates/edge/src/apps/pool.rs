//! Connections to apps, kept for the next request.

use std::collections::BTreeMap;
use std::net::SocketAddrV6;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::dialling::{self, Dial, DialError};

/// Idle connections are used again for this long; some servers close theirs after 5 s.
const IDLE: Duration = Duration::from_secs(4);
/// HTTP/2 connections live as long after their last request began, and until their requests end.
const SHARED_IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept for one port …
const MAX_IDLE: usize = 64;
/// … and for all.
const MAX_IDLE_IN_ALL: usize = 1024;
/// What one HTTP/2 request may have on its way down, and all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Time between signs of life of an HTTP/2 connection in use.
const PING: Duration = Duration::from_secs(30);
/// Most time that a TLS handshake with an app takes.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What an app is sent.
pub(super) type Sent = Either<Incoming, Full<Bytes>>;
/// A connection that takes the next request.
pub(super) type Connection = SendRequest<Sent>;
/// A connection for many requests at once.
pub(super) type Shared = http2::SendRequest<Sent>;
/// A port inside the tunnel, and whether TLS is spoken there.
pub(super) type Place = (SocketAddrV6, bool);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
    /// When it was last taken into use, and the connection.
    shared: Mutex<BTreeMap<Place, (Instant, Shared)>>,
}

#[derive(Default)]
struct Idle {
    /// Since when, and the connection.
    kept: BTreeMap<Place, Vec<(Instant, Connection)>>,
    /// A task looks at them again.
    watched: bool,
}

impl Pool {
    /// Takes an idle connection.
    pub(super) fn take(&self, place: Place) -> Option<Connection> {
        let mut idle = self.idle();
        let these = idle.kept.get_mut(&place)?;
        loop {
            let Some((since, connection)) = these.pop() else {
                idle.kept.remove(&place);
                return None;
            };
            if since.elapsed() < IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection once it is ready for another request.
    pub(super) fn give_back(self: &Arc<Self>, place: Place, mut connection: Connection) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if connection.ready().await.is_ok() && pool.keep(place, connection) {
                // One task for all of them, until none is left.
                while !pool.sweep() {
                    tokio::time::sleep(IDLE).await;
                }
            }
        });
    }

    /// Answers whether the caller has to see to it that they are closed in time.
    fn keep(&self, place: Place, connection: Connection) -> bool {
        let mut idle = self.idle();
        if idle.kept.values().map(Vec::len).sum::<usize>() < MAX_IDLE_IN_ALL {
            let these = idle.kept.entry(place).or_default();
            if these.len() < MAX_IDLE {
                these.push((Instant::now(), connection));
            }
        }
        !std::mem::replace(&mut idle.watched, true)
    }

    /// Closes what was not used for a while; answers whether nothing is left to be watched.
    fn sweep(&self) -> bool {
        let mut idle = self.idle();
        idle.kept.retain(|_, these| {
            these.retain(|(since, _)| since.elapsed() < IDLE);
            !these.is_empty()
        });
        idle.watched = !idle.kept.is_empty();
        !idle.watched
    }

    pub(super) fn clear(&self) {
        self.idle().kept.clear();
        self.shared().clear();
    }

    /// The HTTP/2 connection to a port, if there is one.
    pub(super) fn take_shared(&self, place: Place) -> Option<Shared> {
        let mut shared = self.shared();
        shared.retain(|_, (since, connection)| since.elapsed() < SHARED_IDLE && !connection.is_closed());
        let (since, connection) = shared.get_mut(&place)?;
        *since = Instant::now();
        Some(connection.clone())
    }

    /// Lets others use an HTTP/2 connection too.
    pub(super) fn share(&self, place: Place, connection: Shared) {
        self.shared().insert(place, (Instant::now(), connection));
    }

    fn shared(&self) -> MutexGuard<'_, BTreeMap<Place, (Instant, Shared)>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection.
pub(super) async fn connect(dial: Arc<dyn Dial>, place: Place) -> Result<Connection, DialError> {
    let stream = stream(dial, place, b"http/1.1").await?;
    let made = Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await;
    let (connection, driver) = made.map_err(|error| DialError::Other(error.to_string()))?;
    // Its errors reach the request that is being answered.
    tokio::spawn(async move { driver.with_upgrades().await.ok() });
    Ok(connection)
}

/// Opens an HTTP/2 connection, without asking first whether the app speaks it.
pub(super) async fn connect_shared(dial: Arc<dyn Dial>, place: Place) -> Result<Shared, DialError> {
    let stream = stream(dial, place, b"h2").await?;
    let made = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .keep_alive_interval(PING)
        .handshake(TokioIo::new(stream))
        .await;
    let (connection, driver) = made.map_err(|error| DialError::Other(error.to_string()))?;
    tokio::spawn(async move { driver.await.ok() });
    Ok(connection)
}

async fn stream(
    dial: Arc<dyn Dial>,
    (to, tls): Place,
    protocol: &'static [u8],
) -> Result<Box<dyn Stream>, DialError> {
    let stream = dialling::open(dial, to).await?;
    Ok(if tls { Box::new(secured(stream, protocol).await?) } else { Box::new(stream) })
}

async fn secured(
    stream: tokio::net::UnixStream,
    protocol: &'static [u8],
) -> Result<impl Stream + 'static, DialError> {
    let failed = |error: String| DialError::Other(format!("TLS: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anyone = Arc::new(Anyone(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").map_err(|error| failed(error.to_string()))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(stream) => stream.map_err(|error| failed(error.to_string())),
        Err(_) => Err(DialError::Timeout),
    }
}

/// Believes any certificate: it is one of the workspace's loopback, and the tunnel has proved who the workspace is.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
