//! A TLS server at the other end of a socket pair, its records cut as one likes.
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use wire::derpmap::{Region, RelayNode};

use super::*;
use crate::target::Target;
use crate::tls;

const WOULD_BLOCK: io::ErrorKind = io::ErrorKind::WouldBlock;

static CONFIG: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["relay.test".into()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap())
});

/// A client past its handshake, and the server's session and socket.
fn pair() -> (Box<Tls>, ServerConnection, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let server = thread::spawn(move || {
        let mut session = ServerConnection::new(CONFIG.clone()).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut theirs).unwrap();
        }
        (session, theirs)
    });
    let node = RelayNode { host: "relay.test".into(), insecure: true, ..RelayNode::default() };
    let below = Transport::Plain(Socket::from(OwnedFd::from(ours)));
    let deadline = Deadline::after(Duration::from_secs(30));
    let opened = tls::open(below, &node, &Target::new(Region::default()), true, deadline).unwrap();
    let Transport::Tls(tls) = opened else { panic!("no TLS") };
    let (session, theirs) = server.join().unwrap();
    (tls, session, theirs)
}

fn read_all(tls: &mut Tls, into: &mut Vec<u8>, size: usize) -> io::Result<bool> {
    let mut buffer = vec![0; size];
    loop {
        match tls.read(&mut buffer, Take::All) {
            Ok(0) => return Ok(true),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == WOULD_BLOCK => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// The server's ciphertext for these writes.
fn records(session: &mut ServerConnection, writes: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let (mut plain, mut cipher) = (Vec::new(), Vec::new());
    for (place, &length) in writes.iter().enumerate() {
        let written: Vec<u8> = (0..length).map(|byte| (byte * 7 + place) as u8).collect();
        session.writer().write_all(&written).unwrap();
        while session.wants_write() {
            session.write_tls(&mut cipher).unwrap();
        }
        plain.extend(written);
    }
    (plain, cipher)
}

#[test]
fn the_end_is_the_end_with_and_without_a_goodbye() {
    for goodbye in [true, false] {
        let (mut tls, mut session, mut peer) = pair();
        if goodbye {
            session.send_close_notify();
        }
        let (_, cipher) = records(&mut session, &[5]);
        peer.write_all(&cipher).unwrap();
        drop(peer);
        let mut data = Vec::new();
        assert!(read_all(&mut tls, &mut data, 100).unwrap());
        assert_eq!(data.len(), if goodbye { 0 } else { 5 }, "nothing counts behind a goodbye");
        assert_eq!(tls.read(&mut [0; 3], Take::All).unwrap(), 0, "and it stays at its end");
    }
}

#[test]
fn a_changed_record_is_an_error() {
    let (mut tls, mut session, mut peer) = pair();
    let (_, mut cipher) = records(&mut session, &[100]);
    let last = cipher.len() - 1;
    cipher[last] ^= 1;
    peer.write_all(&cipher).unwrap();
    assert_eq!(read_all(&mut tls, &mut Vec::new(), 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn many_buffers_are_taken_in_order() {
    let (mut tls, mut session, mut peer) = pair();
    let pieces: Vec<Vec<u8>> = (0..1500u32).map(|piece| piece.to_be_bytes().to_vec()).collect();
    let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    assert_eq!(tls.write_vectored(&slices).unwrap(), 6000);
    let mut received = Vec::new();
    while received.len() < 6000 {
        session.read_tls(&mut peer).unwrap();
        session.process_new_packets().unwrap();
        let mut buffer = [0; 6000];
        if let Ok(count) = session.reader().read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
        }
    }
    assert_eq!(received, pieces.concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_chunks_the_stream_is_the_same(
        writes in prop::collection::vec(0usize..30_000, 1..6),
        cuts in prop::collection::vec(1usize..20_000, 1..20),
        size in 1usize..40_000,
    ) {
        let (mut tls, mut session, mut peer) = pair();
        let (plain, cipher) = records(&mut session, &writes);
        let mut data = Vec::new();
        let mut left = cipher.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, after) = left.split_at(left.len().min(*cut));
            peer.write_all(piece).unwrap();
            left = after;
            prop_assert!(!read_all(&mut tls, &mut data, size).unwrap());
            if left.is_empty() {
                break;
            }
        }
        prop_assert!(data == plain);
    }
}

#[test]
fn what_one_receive_brought_is_read_without_the_socket() {
    let (mut tls, mut session, mut theirs) = pair();
    let sent: Vec<u8> = (0..30_000_u32).map(|number| number as u8).collect();
    for piece in sent.chunks(10_000) {
        session.writer().write_all(piece).unwrap();
    }
    while session.wants_write() {
        session.write_tls(&mut theirs).unwrap();
    }
    let mut got = vec![0; 100];
    let first = tls.read(&mut got, Take::All).unwrap();
    got.truncate(first);
    let mut buffer = [0; 4096];
    loop {
        match tls.read(&mut buffer, Take::Held) {
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert_eq!(error.kind(), WOULD_BLOCK);
                break;
            }
        }
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn the_relays_key_is_read_from_the_certificate_of_a_real_one() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../vectors/derp_http_tailscale.json")).unwrap();
    let certificates = vectors["exchanges"][1]["certificates"].as_array().unwrap();
    let der = |number: usize| hex::decode(certificates[number]["der"].as_str().unwrap()).unwrap();
    let name = certificates[1]["subject_cn"].as_str().unwrap().to_owned();
    assert_eq!(told_by(&der(0)), None);
    let told = der(1);
    assert_eq!(told_by(&told).map(|key| format!("derpkey{}", key.to_hex())), Some(name));
    for end in 0..told.len() {
        let _ = told_by(&told[..end]);
    }
    let mut other = told.clone();
    let serial = other.windows(3).position(|bytes| bytes == [2, 1, 2]).unwrap();
    other[serial + 2] = 3;
    assert_eq!(told_by(&other), None, "another version of the protocol");
}
