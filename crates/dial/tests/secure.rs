//! Dialling over TLS.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use common::*;
use dial::{Connected, Failure, ProxyRules, ProxySettings, Stage, Target, TrustRoots, latency, relay};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use wire::derpmap::RelayNode;

/// A TLS node on loopback whose certificate is checked against the name it has.
fn secure(port: u16) -> RelayNode {
    RelayNode { force_http: false, cert_name: "relay.test".into(), ..node("a", port) }
}

fn trusting(authority: &Authority, node: RelayNode) -> Target {
    Target { roots: authority.roots(), ..target(vec![node]) }
}

/// Upgrades over TLS and echoes until the client closes.
fn echo(config: Arc<ServerConfig>) -> Script {
    Box::new(move |stream: TcpStream| {
        let mut stream = tls(&config, stream);
        read_head(&mut stream);
        assert_eq!(
            stream.conn.server_name(),
            Some("localhost"),
            "SNI is the host, whatever the certificate's name"
        );
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.write_all(UPGRADED.as_bytes()).unwrap();
        let mut buffer = [0; 3000];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).unwrap();
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// A handshake that is expected to fail.
fn attempt(config: Arc<ServerConfig>) -> Script {
    Box::new(move |stream| {
        let mut stream = tls(&config, stream);
        while let Ok(1..) = stream.read(&mut [0; 100]) {}
    })
}

/// Sends bytes to an echo in pieces, and asks for all of them back.
fn comes_back(connected: &mut Connected) {
    let sent: Vec<u8> = (0..400_000u32).map(|byte| (byte % 251) as u8).collect();
    let mut received = std::mem::take(&mut connected.leftover);
    for piece in sent.chunks(33_333) {
        write(&mut connected.stream, piece);
        received.extend(read(&mut connected.stream, piece.len()));
    }
    assert!(received == sent);
}

#[test]
fn bytes_go_both_ways() {
    let authority = Authority::new();
    let (port, server) = serve(vec![echo(authority.config(&["h2", "http/1.1"]))]);
    let mut connected = relay(&trusting(&authority, secure(port)), later()).unwrap();
    comes_back(&mut connected);
    connected.stream.close();
    assert_eq!(read(&mut connected.stream, 1), b"");
    server.join().unwrap();
}

#[test]
fn tls_1_2_will_do() {
    let authority = Authority::new();
    let mut target = trusting(&authority, secure(0));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (port, server) = serve(vec![echo(authority.config_of(&["http/1.1"], &[version]))]);
        target.region.nodes = vec![secure(port)];
        let mut connected = relay(&target, later()).unwrap();
        write(&mut connected.stream, b"hello");
        assert_eq!(read(&mut connected.stream, 5), b"hello");
        drop(connected);
        server.join().unwrap();
    }
}

#[test]
fn latency_over_tls() {
    let authority = Authority::new();
    let config = authority.config(&[]);
    let (port, server) = serve(vec![Box::new(move |stream| {
        let mut stream = tls(&config, stream);
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        drain(&mut stream);
    })]);
    assert!(latency(&trusting(&authority, secure(port)), later()).is_ok());
    server.join().unwrap();
}

#[test]
fn what_is_held_back_is_bounded() {
    let authority = Authority::new();
    let config = authority.config(&[]);
    let (port, server) = serve(vec![Box::new(move |stream| {
        let mut stream = tls(&config, stream);
        read_head(&mut stream);
        stream.write_all(UPGRADED.as_bytes()).unwrap();
        drain(&mut stream);
    })]);
    let mut connected = relay(&trusting(&authority, secure(port)), later()).unwrap();
    let block = vec![0; 1 << 20];
    let accepted = connected.stream.write_vectored(&[std::io::IoSlice::new(&block)]).unwrap();
    assert!(accepted <= 256 * 1024, "{accepted}");
    write(&mut connected.stream, &block);
    assert!(!connected.stream.wants_write());
    drop(connected);
    server.join().unwrap();
}

#[test]
fn certificates_of_strangers_and_for_others_are_refused() {
    let authority = Authority::new();
    let config = authority.config(&[]);
    let (port, server) = serve(vec![
        attempt(config.clone()),
        attempt(config.clone()),
        attempt(config.clone()),
        attempt(config),
    ]);
    let mut wrong_name = secure(port);
    wrong_name.cert_name = String::new();
    let mut wrong_pin = secure(port);
    wrong_pin.cert_name = format!("sha256-raw:{}", "00".repeat(32));
    let refused = [
        trusting(&authority, wrong_name),
        trusting(&authority, wrong_pin),
        trusting(&Authority::new(), secure(port)),
        target(vec![secure(port)]),
    ];
    for target in refused {
        let error = relay(&target, later()).unwrap_err();
        // A machine without any roots cannot even begin.
        assert!(matches!(error.failure, Failure::Tls(_) | Failure::Trust(_)), "{error}");
        if matches!(error.failure, Failure::Trust(_)) {
            drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        }
    }
    server.join().unwrap();
}

#[test]
fn a_pinned_certificate_needs_no_authority() {
    let authority = Authority::new();
    let (port, server) =
        serve(vec![echo(authority.config(&["http/1.1"])), echo(authority.config(&["http/1.1"]))]);
    let mut pinned = secure(port);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &authority.certificate);
    pinned.cert_name = format!("sha256-raw:{}", hex::encode(digest));
    assert!(relay(&target(vec![pinned]), later()).is_ok());
    let mut insecure = secure(port);
    insecure.insecure = true;
    assert!(relay(&target(vec![insecure]), later()).is_ok());
    server.join().unwrap();
}

#[test]
fn authorities_of_a_file_come_on_top_of_the_systems() {
    let authority = Authority::new();
    let (ca_file, _) = authority.files("more");
    let (port, server) = serve(vec![echo(authority.config(&["http/1.1"])), attempt(authority.config(&[]))]);
    let mut target = target(vec![secure(port)]);
    target.roots = TrustRoots::SystemAnd(ca_file);
    assert!(relay(&target, later()).is_ok());
    target.roots = TrustRoots::SystemAnd(Authority::new().files("strange").0);
    let error = relay(&target, later()).unwrap_err().to_string();
    assert!(error.contains("--ca-file") && !error.contains('\n'), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_asks_who_we_are() {
    let authority = Authority::new();
    let (_, identity) = authority.files("asked");
    let asking = authority.asking(&["http/1.1"]);
    let refused = asking.clone();
    let (port, server) = serve(vec![
        echo(asking),
        Box::new(move |stream| {
            let mut stream = tls(&refused, stream);
            assert!(stream.read(&mut [0; 1]).is_err());
            let _ = stream.flush();
            drain(&mut stream.sock);
        }),
    ]);
    let mut target = Target { identity: Some(identity), ..trusting(&authority, secure(port)) };
    assert!(relay(&target, later()).is_ok());
    target.identity = None;
    let error = relay(&target, later()).unwrap_err().to_string();
    assert!(error.contains("--client-tls-cert-file"), "{error}");
    server.join().unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let (ca_file, identity) = authority.files("unusable");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = secure(listener.local_addr().unwrap().port());
    let nowhere = std::path::PathBuf::from("/nowhere/key.pem");
    let mut no_authority = trusting(&authority, node.clone());
    no_authority.roots = TrustRoots::SystemAnd(nowhere.clone());
    let without = |certificates, key| Target {
        identity: Some(dial::Identity { certificates, key }),
        ..trusting(&authority, node.clone())
    };
    let wrong = [no_authority, without(identity.certificates, nowhere), without(ca_file.clone(), ca_file)];
    for (target, named) in wrong.iter().zip(["/nowhere/key.pem", "/nowhere/key.pem", "ca.pem"]) {
        let error = relay(target, later()).unwrap_err();
        assert!(matches!(error.failure, Failure::Files(_)), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn trust_that_makes_no_sense() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut short_pin = secure(port);
    short_pin.cert_name = "sha256-raw:00".into();
    let mut no_roots = target(vec![secure(port)]);
    no_roots.roots = TrustRoots::Pem(b"not a certificate".to_vec());
    for target in [target(vec![short_pin]), no_roots] {
        let error = relay(&target, later()).unwrap_err();
        assert!(matches!(error.failure, Failure::Trust(_)), "{error}");
        assert_eq!(error.failure.stage(), None);
    }
}

#[test]
fn a_server_without_tls_and_one_without_a_word() {
    let (port, server) = serve(vec![
        Box::new(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        Box::new(|mut stream| drain(&mut stream)),
    ]);
    let authority = Authority::new();
    let error = relay(&trusting(&authority, secure(port)), later()).unwrap_err();
    assert_eq!(error.failure.stage(), Some(Stage::Tls), "{error}");
    let error = relay(&trusting(&authority, secure(port)), soon()).unwrap_err();
    assert!(matches!(error.failure, Failure::TimedOut(Stage::Tls)), "{error}");
    server.join().unwrap();
}

#[test]
fn tls_within_the_tls_of_a_proxy() {
    let (authority, proxys) = (Authority::new(), Authority::named("localhost"));
    let (relays, outer) = (authority.config(&["http/1.1"]), proxys.config(&[]));
    let (port, server) = serve(vec![
        Box::new(move |stream: TcpStream| {
            let mut stream = tls(&outer, stream);
            let head = read_head(&mut stream);
            assert!(head.starts_with("CONNECT localhost:443 HTTP/1.1\r\n"), "{head}");
            assert_eq!(header(&head, "Proxy-Authorization"), "Basic dXNlcjpwYXNz");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let mut inner = StreamOwned::new(ServerConnection::new(relays).unwrap(), stream);
            read_head(&mut inner);
            inner.write_all(UPGRADED.as_bytes()).unwrap();
            let mut buffer = [0; 3000];
            while let Ok(count @ 1..) = inner.read(&mut buffer) {
                inner.write_all(&buffer[..count]).unwrap();
            }
        }),
        attempt(proxys.config(&[])),
    ]);
    let mut target = trusting(&authority, secure(443));
    target.roots = TrustRoots::Pem([authority.pem.as_bytes(), proxys.pem.as_bytes()].concat());
    let credentials = Some(("user".to_owned(), "pass".to_owned()));
    target.proxies =
        ProxyRules::always(ProxySettings { host: "localhost".into(), port, tls: true, credentials });
    let mut connected = relay(&target, later()).unwrap();
    comes_back(&mut connected);
    connected.stream.close();
    drop(connected.stream);
    target.roots = authority.roots();
    let failure = relay(&target, later()).unwrap_err().failure;
    assert!(matches!(&failure, Failure::Tls(reason) if reason.starts_with("with the proxy: ")), "{failure}");
    server.join().unwrap();
}
