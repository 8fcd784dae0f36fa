//! The edge behind TLS: HTTP, the relay in all its forms, and a certificate that is replaced.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use common::dialled::{Dialled, target};
use common::{PATIENCE, config, wait_until};
use dial::Deadline;
use edge::{Config, Edge, EdgeError, TlsFiles};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use wire::keys::NodePrivate;

/// A certificate of its own in a directory of its own, and its pin.
fn certificate(name: &str) -> (TlsFiles, String) {
    let directory = std::env::temp_dir().join(format!("edge-tls-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let files = TlsFiles { certificates: directory.join("cert.pem"), key: directory.join("key.pem") };
    let pin = renew(&files);
    (files, pin)
}

fn renew(files: &TlsFiles) -> String {
    renew_for(files, &["relay.example", "127.0.0.1"])
}

fn renew_for(files: &TlsFiles, names: &[&str]) -> String {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let (certificate, key) = edge::self_signed(names).unwrap();
    std::fs::write(&files.certificates, &certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    edge::pin(certificate.as_bytes()).unwrap()
}

fn secure(files: &TlsFiles) -> Config {
    let mut config = config();
    config.listen.clear();
    config.listen_tls = vec!["127.0.0.1:0".parse().unwrap()];
    config.tls = vec![files.clone()];
    config.upstream = None;
    config
}

#[test]
fn packets_of_all_sizes_cross_a_relay_behind_tls_in_all_forms() {
    let (files, pin) = certificate("sizes");
    let edge = Edge::start(secure(&files)).unwrap();
    for (force_websocket, fast_start) in [(false, false), (false, true), (true, true)] {
        let mut target = target(edge.addresses()[0], Some(&pin));
        target.force_websocket = force_websocket;
        target.fast_start = fast_start;
        let told = dial::relay(&target, Deadline::after(PATIENCE)).unwrap().server_key;
        assert_eq!(told, (fast_start && !force_websocket).then(|| edge.relay_public_key()));
        let (key_a, key_b) = (NodePrivate::generate(), NodePrivate::generate());
        let mut a = Dialled::connect(&target, &key_a);
        let mut b = Dialled::connect(&target, &key_b);
        for len in [0, 1, 1200, 16_384, 16_385, 65_536] {
            let packet: Vec<u8> = (0..len).map(|n| n as u8).collect();
            a.send(&key_b.public(), &packet);
            assert_eq!(b.next_packet(), (key_a.public(), packet));
        }
        // More than any one read or record holds.
        for number in 0..600u32 {
            a.send(&key_b.public(), &[&number.to_be_bytes()[..], &[7; 1000]].concat());
        }
        for number in 0..600u32 {
            assert_eq!(b.next_packet().1[..4], number.to_be_bytes());
        }
    }
    assert_eq!(edge.counters().tls_failures, 0);
}

#[test]
fn a_reader_that_does_not_read_blocks_nobody_else_behind_tls() {
    let (files, pin) = certificate("lazy");
    let edge = Edge::start(secure(&files)).unwrap();
    let target = target(edge.addresses()[0], Some(&pin));
    let keys = [(); 3].map(|()| NodePrivate::generate());
    let mut sender = Dialled::connect(&target, &keys[0]);
    let _lazy = Dialled::connect(&target, &keys[1]);
    let mut other = Dialled::connect(&target, &keys[2]);
    while edge.counters().relay.dropped.queue_full == 0 {
        for _ in 0..50 {
            sender.send(&keys[1].public(), &[0; 20_000]);
        }
        sender.send(&keys[2].public(), b"still here");
        assert_eq!(other.next_packet().1, b"still here");
    }
    assert!(edge.counters().relay.pauses > 0);
}

#[test]
fn a_replaced_certificate_is_taken_into_use_and_a_broken_one_is_not() {
    let (files, pin) = certificate("replaced");
    let edge = Edge::start(secure(&files)).unwrap();
    let address = edge.addresses()[0];
    let key = NodePrivate::generate();
    let mut steady = Dialled::connect(&target(address, Some(&pin)), &key);
    std::fs::write(&files.key, "no key at all").unwrap();
    wait_until(|| edge.certificate_problem().is_some_and(|told| told.contains("key.pem")));
    assert!(edge.counters().tls_reload_failures > 0);
    drop(Dialled::connect(&target(address, Some(&pin)), &NodePrivate::generate()));
    let fresh = renew(&files);
    wait_until(|| edge.counters().tls_reloads > 0);
    wait_until(|| edge.certificate_problem().is_none());
    let mut late = Dialled::connect(&target(address, Some(&fresh)), &NodePrivate::generate());
    late.send(&key.public(), b"hello");
    assert_eq!(steady.next_packet().1, b"hello");
}

/// Takes any certificate: these tests are about versions and headers.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The first answer to a request over TLS of these versions; nothing if there is no common one.
fn ask(edge: &Edge, versions: &[&'static rustls::SupportedProtocolVersion]) -> Option<String> {
    let mut stream = connect(edge, "relay.example", versions);
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http\r\n\r\n").ok()?;
    let mut answer = [0; 1000];
    let count = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..count]).into_owned())
}

fn connect(
    edge: &Edge,
    name: &'static str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let session = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let stream = rustls::StreamOwned::new(session, TcpStream::connect(edge.addresses()[0]).unwrap());
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn each_name_is_shown_its_certificate_and_no_name_the_first() {
    let pairs = [&["relay.example"], &["*.apps.example"]].map(|names| {
        let (files, _) = certificate(names[0].trim_start_matches('*'));
        (renew_for(&files, names), files)
    });
    let mut config = secure(&pairs[0].1);
    config.tls = pairs.iter().map(|(_, files)| files.clone()).collect();
    let edge = Edge::start(config).unwrap();
    for (name, expected) in
        [("relay.example", 0), ("code.apps.example", 1), ("other.example", 0), ("127.0.0.1", 0)]
    {
        let mut stream = connect(&edge, name, &[&rustls::version::TLS13]);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let shown = &stream.conn.peer_certificates().unwrap()[0];
        let pin = format!(
            "sha256-raw:{}",
            hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, shown))
        );
        assert_eq!(pin, pairs[expected].0, "{name}");
    }
}

#[test]
fn the_application_is_told_that_a_request_came_over_tls() {
    let (files, _) = certificate("told");
    let mut config = secure(&files);
    config.tls_13_only = true;
    config.upstream = Some(common::socket_path());
    common::application(config.upstream.as_ref().unwrap(), |mut stream| {
        let head = String::from_utf8(common::read_head(&mut stream)).unwrap().to_lowercase();
        let told = if head.contains("x-forwarded-proto: https") { "encrypted" } else { "plain" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Told: {told}\r\n\r\n").unwrap();
    });
    let edge = Edge::start(config).unwrap();
    let answer = ask(&edge, &[&rustls::version::TLS13]).unwrap();
    assert!(answer.to_lowercase().contains("x-told: encrypted"), "{answer}");
    assert_eq!(ask(&edge, &[&rustls::version::TLS12]), None);
}

#[test]
fn what_is_no_tls_is_counted_and_closed() {
    let (files, _) = certificate("garbage");
    let edge = Edge::start(secure(&files)).unwrap();
    for (number, bytes) in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[]].into_iter().enumerate()
    {
        let mut stream = TcpStream::connect(edge.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        wait_until(|| edge.counters().tls_failures == number as u64 + 1);
    }
    wait_until(|| edge.counters().connections == 0);
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let (files, _) = certificate("slow");
    let mut config = secure(&files);
    config.head_timeout = std::time::Duration::from_millis(50);
    let edge = Edge::start(config).unwrap();
    // The first bytes of a record with a greeting, and no more.
    for (number, bytes) in [&[][..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]].into_iter().enumerate() {
        let mut stream = TcpStream::connect(edge.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        wait_until(|| edge.counters().tls_failures == number as u64 + 1);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (files, _) = certificate("named");
    let missing = TlsFiles { key: PathBuf::from("/nonexistent/key.pem"), ..files.clone() };
    let (other, _) = certificate("named-other");
    let mixed = TlsFiles { key: other.key, ..files };
    for files in [missing, mixed] {
        let path = files.key.clone();
        match Edge::start(secure(&files)) {
            Err(EdgeError::Tls { path: named, .. }) => assert_eq!(named, path),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it started"),
        }
    }
}
