//! Small relays on loopback: each connection is answered by the next script.
#![allow(clippy::unwrap_used, dead_code)]

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dial::{Deadline, Identity, Stream, Target, TrustRoots};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use wire::derpmap::{Region, RelayNode};

pub type Script = Box<dyn FnOnce(TcpStream) + Send>;

/// Runs one script per connection, in order. Join it to see its panics.
pub fn serve(scripts: Vec<Script>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = move || scripts.into_iter().for_each(|script| script(listener.accept().unwrap().0));
    (port, thread::spawn(run))
}

/// A script that reads a request and sends these bytes, then waits for the client to close. Returns nothing.
pub fn answer(bytes: impl Into<Vec<u8>>) -> Script {
    let bytes = bytes.into();
    Box::new(move |mut stream| {
        read_head(&mut stream);
        // A client that has seen enough may be gone already.
        let _ = stream.write_all(&bytes);
        drain(&mut stream);
    })
}

/// Reads until the client closes.
pub fn drain(stream: &mut impl Read) {
    let _ = io::copy(stream, &mut io::sink());
}

/// Reads a request's head and nothing behind it.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The value of a request's header.
pub fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found =
        head.lines().filter_map(|line| line.split_once(": ")).find(|line| line.0.eq_ignore_ascii_case(name));
    found.map_or("", |line| line.1)
}

pub const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
                            Derp-Version: 2\r\n\r\n";

/// Answers a WebSocket request and returns its head.
pub fn accept_websocket(stream: &mut (impl Read + Write)) -> String {
    let head = read_head(stream);
    let accept = accept_key(header(&head, "Sec-WebSocket-Key"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-Websocket-Accept: {accept}\r\nSec-Websocket-Protocol: derp\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    head
}

pub fn accept_key(key: &str) -> String {
    use base64::Engine;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// A plain HTTP node on loopback.
pub fn node(name: &str, port: u16) -> RelayNode {
    RelayNode {
        name: name.into(),
        host: "localhost".into(),
        ipv4: "127.0.0.1".into(),
        ipv6: "none".into(),
        derp_port: port.into(),
        force_http: true,
        ..RelayNode::default()
    }
}

pub fn target(nodes: Vec<RelayNode>) -> Target {
    Target::new(Region { id: 999, code: "test".into(), nodes, ..Region::default() })
}

/// Far away: tests that succeed never reach it.
pub fn later() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A deadline for tests that want to see it pass.
pub fn soon() -> Deadline {
    Deadline::at(Instant::now() + Duration::from_millis(200))
}

/// Reads exactly this many bytes, or what there is before the end.
pub fn read(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut length = 0;
    while length < count {
        match stream.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(stream),
            Err(error) => panic!("{error}"),
        }
    }
    bytes.truncate(length);
    bytes
}

/// Writes and sends everything.
pub fn write(stream: &mut Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() || stream.wants_write() {
        match stream.write_vectored(&[IoSlice::new(bytes)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(stream),
            Err(error) => panic!("{error}"),
        }
        stream.flush_pending().unwrap();
    }
}

fn wait(stream: &Stream) {
    use rustix::event::{PollFd, PollFlags, poll};
    let out = if stream.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
    poll(&mut [PollFd::new(stream, PollFlags::IN | out)], None).unwrap();
}

/// An authority, and a server with a certificate of it for `relay.test`.
pub struct Authority {
    pub pem: String,
    pub certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("relay.test")
    }

    /// With a server of another name.
    pub fn named(server: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![server.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &issuer).unwrap();
        Self { pem, certificate: signed.der().clone(), certificate_pem: signed.pem(), key }
    }

    pub fn roots(&self) -> TrustRoots {
        TrustRoots::Pem(self.pem.clone().into_bytes())
    }

    /// A server that wants a certificate of this authority.
    pub fn asking(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(self.pem.as_bytes()).map(Result::unwrap),
        );
        let provider = Arc::new(aws_lc_rs::default_provider());
        let asking = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(asking.build().unwrap())
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Files with the authority, and with a certificate of it and its key.
    pub fn files(&self, name: &str) -> (PathBuf, Identity) {
        let directory = std::env::temp_dir().join(format!("dial-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (authority, both) = (directory.join("ca.pem"), directory.join("own.pem"));
        std::fs::write(&authority, &self.pem).unwrap();
        std::fs::write(&both, format!("{}{}", self.certificate_pem, self.key.serialize_pem())).unwrap();
        (authority, Identity { certificates: both.clone(), key: both })
    }

    pub fn config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        self.config_of(alpn, rustls::DEFAULT_VERSIONS)
    }

    pub fn config_of(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

pub type TlsServer = StreamOwned<ServerConnection, TcpStream>;

pub fn tls(config: &Arc<ServerConfig>, stream: TcpStream) -> TlsServer {
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
}
