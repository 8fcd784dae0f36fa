//! The edge behind TLS: HTTP, the relay in all its forms, and a certificate that is replaced.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use common::dialled::{Dialled, target};
use common::{PATIENCE, config, wait_until};
use edge::{Config, Edge, EdgeError, TlsFiles};
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
    let (certificate, key) = edge::self_signed(vec!["relay.example".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(&files.certificates, &certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    edge::pin(certificate.as_bytes()).unwrap()
}

fn secure(files: &TlsFiles) -> Config {
    let mut config = config();
    config.listen.clear();
    config.listen_tls = vec!["127.0.0.1:0".parse().unwrap()];
    config.tls = Some(files.clone());
    config.upstream = None;
    config
}

#[test]
fn packets_of_all_sizes_cross_a_relay_behind_tls_in_both_forms() {
    let (files, pin) = certificate("sizes");
    let edge = Edge::start(secure(&files)).unwrap();
    for force_websocket in [false, true] {
        let mut target = target(edge.addresses()[0], Some(&pin));
        target.force_websocket = force_websocket;
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
    wait_until(|| edge.counters().tls_reload_failures > 0);
    drop(Dialled::connect(&target(address, Some(&pin)), &NodePrivate::generate()));
    let fresh = renew(&files);
    wait_until(|| edge.counters().tls_reloads > 0);
    let mut late = Dialled::connect(&target(address, Some(&fresh)), &NodePrivate::generate());
    late.send(&key.public(), b"hello");
    assert_eq!(steady.next_packet().1, b"hello");
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
