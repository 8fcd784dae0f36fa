//! Dialling over plain HTTP.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use common::*;
use dial::{DialError, Failure, ProxyRules, ProxySettings, Stage, Stream, captive_portal, latency, relay};
use serde_json::Value;

fn failure(result: Result<dial::Connected, DialError>) -> Failure {
    result.unwrap_err().failure
}

#[test]
fn upgrades_and_keeps_what_follows_the_answer() {
    let (port, server) = serve(vec![Box::new(|mut stream| {
        let head = read_head(&mut stream);
        assert!(head.starts_with("GET /derp HTTP/1.1\r\nHost: localhost:"), "{head}");
        assert_eq!((header(&head, "Upgrade"), header(&head, "Connection")), ("DERP", "Upgrade"));
        assert_eq!((header(&head, "X-Token"), header(&head, "Ideal-Node")), ("secret", ""));
        stream.write_all(format!("{UPGRADED}greeting").as_bytes()).unwrap();
        let mut sent = [0; 5];
        stream.read_exact(&mut sent).unwrap();
        stream.write_all(&sent).unwrap();
    })]);
    let mut target = target(vec![node("a", port)]);
    target.headers = vec![("X-Token".into(), "secret".into())];
    let mut connected = relay(&target, later()).unwrap();
    assert_eq!(connected.websocket, None);
    assert_eq!(connected.peer.port(), port);
    write(&mut connected.stream, b"hello");
    let mut all = connected.leftover;
    all.extend(read(&mut connected.stream, 100));
    assert_eq!(all, b"greetinghello");
    server.join().unwrap();
}

#[test]
fn recorded_answers_upgrade() {
    let mut seen = 0;
    for file in ["derp_http_coder.json", "derp_http_tailscale.json"] {
        let path = format!("{}/../../vectors/{file}", env!("CARGO_MANIFEST_DIR"));
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for exchange in vectors["exchanges"].as_array().unwrap() {
            let Some(chunks) = exchange["chunks"].as_array() else { continue };
            let bytes = |chunk: &Value| hex::decode(chunk["hex"].as_str().unwrap()).unwrap();
            let of = |dir: &str| chunks.iter().find(|chunk| chunk["dir"] == dir).map(bytes);
            let (Some(asked), Some(answered)) = (of("c2s"), of("s2c")) else { continue };
            if !asked.windows(13).any(|text| text.eq_ignore_ascii_case(b"Upgrade: DERP"))
                || !answered.starts_with(b"HTTP/1.1 101")
            {
                continue;
            }
            let (port, server) = serve(vec![answer(answered.clone())]);
            let connected = relay(&target(vec![node("a", port)]), later()).unwrap();
            let head = answered.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let mut stream = connected.stream;
            let mut greeting = connected.leftover;
            greeting.extend(read(&mut stream, answered.len() - head - greeting.len()));
            assert_eq!(greeting, &answered[head..]);
            drop(stream);
            server.join().unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn the_next_node_is_tried_and_the_ideal_one_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, server) = serve(vec![Box::new(|mut stream| {
        assert_eq!(header(&read_head(&mut stream), "Ideal-Node"), "first");
        stream.write_all(UPGRADED.as_bytes()).unwrap();
    })]);
    let mut only_stun = node("first", port);
    only_stun.stun_only = true;
    let target = target(vec![only_stun, node("closed", closed), node("open", port)]);
    assert_eq!(relay(&target, later()).unwrap().peer.port(), port);
    server.join().unwrap();
}

#[test]
fn refusals_carry_status_and_body() {
    let chunked = "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n";
    for (sent, expected) in [
        ("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", (302, "")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n", (200, "hello")),
        (chunked, (503, "busy")),
    ] {
        let (port, server) = serve(vec![answer(sent)]);
        let error = relay(&target(vec![node("a", port)]), later()).unwrap_err();
        let text = format!("relay region 999 (test), node a: status {}: {}", expected.0, expected.1);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.failure.stage(), Some(Stage::Http));
        server.join().unwrap();
    }
}

#[test]
fn answers_that_are_none() {
    let long = format!("HTTP/1.1 101 ok\r\nA: {}\r\n\r\n", "x".repeat(20_000));
    for sent in [long.as_str(), "220 mail ready\r\n\r\n"] {
        let (port, server) = serve(vec![answer(sent)]);
        assert!(matches!(failure(relay(&target(vec![node("a", port)]), later())), Failure::BadAnswer(_)));
        server.join().unwrap();
    }
    let (port, server) = serve(vec![Box::new(|mut stream| drop(read_head(&mut stream)))]);
    let lost = failure(relay(&target(vec![node("a", port)]), later()));
    assert!(matches!(lost, Failure::Lost { stage: Stage::Http, .. }), "{lost}");
    server.join().unwrap();
}

#[test]
fn silence_ends_at_the_deadline() {
    let (port, server) = serve(vec![Box::new(|mut stream| drain(&mut stream))]);
    let silent = failure(relay(&target(vec![node("a", port)]), soon()));
    assert!(matches!(silent, Failure::TimedOut(Stage::Http)), "{silent}");
    server.join().unwrap();
}

#[test]
fn headers_that_http_forbids_reach_nobody() {
    let mut target = target(vec![node("a", 1)]);
    target.headers = vec![("X".into(), "a\r\nEvil: b".into())];
    assert!(matches!(failure(relay(&target, later())), Failure::Header(name) if name == "X"));
}

#[test]
fn a_portal_is_told_from_a_relay() {
    let (port, server) = serve(vec![
        Box::new(|mut stream| {
            let head = read_head(&mut stream);
            assert!(head.starts_with("GET /generate_204 HTTP/1.1\r\n"), "{head}");
            assert_eq!(header(&head, "X-Token"), "");
            let proof = format!("response {}", header(&head, "X-Tailscale-Challenge"));
            write!(stream, "HTTP/1.1 204 No Content\r\nX-Tailscale-Response: {proof}\r\n\r\n").unwrap();
        }),
        answer("HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\nContent-Length: 0\r\n\r\n"),
        answer("HTTP/1.1 204 No Content\r\n\r\n"),
    ]);
    let mut target = target(vec![node("a", port)]);
    target.headers = vec![("X-Token".into(), "secret".into())];
    let found: Vec<_> = (0..3).map(|_| captive_portal(&target, later())).collect();
    assert_eq!(found, [Some(false), Some(true), Some(true)]);
    server.join().unwrap();
    assert_eq!(captive_portal(&target, later()), None, "nobody is there");
    let mut secure = target;
    secure.region.nodes[0].force_http = false;
    assert_eq!(captive_portal(&secure, later()), None, "nobody may be asked");
}

#[test]
fn latency_is_measured_by_http() {
    let (port, server) = serve(vec![
        Box::new(|mut stream| {
            let head = read_head(&mut stream);
            assert!(head.starts_with("GET /derp/latency-check HTTP/1.1\r\n"), "{head}");
            assert_eq!(header(&head, "X-Token"), "secret");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }),
        answer("HTTP/1.1 300 Choose\r\nContent-Length: 2\r\n\r\nno"),
    ]);
    let mut target = target(vec![node("a", port)]);
    target.headers = vec![("X-Token".into(), "secret".into())];
    assert_eq!(latency(&target, later()).unwrap().peer.port(), port);
    let refused = latency(&target, later()).unwrap_err().failure;
    assert!(matches!(refused, Failure::Status { status: 300, body } if body == "no"));
    server.join().unwrap();
}

#[test]
fn through_a_proxy() {
    let (port, server) = serve(vec![
        Box::new(|mut stream| {
            let head = read_head(&mut stream);
            assert!(
                head.starts_with("CONNECT localhost:3340 HTTP/1.1\r\nHost: localhost:3340\r\n"),
                "{head}"
            );
            assert_eq!(header(&head, "Proxy-Authorization"), "Basic dXNlcjpwYXNz");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            assert!(read_head(&mut stream).starts_with("GET /derp "));
            stream.write_all(UPGRADED.as_bytes()).unwrap();
        }),
        answer("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\n\r\ntoo early"),
    ]);
    let mut target = target(vec![node("a", 3340)]);
    let credentials = Some(("user".into(), "pass".into()));
    target.proxies =
        ProxyRules::always(ProxySettings { host: "127.0.0.1".into(), port, tls: false, credentials });
    assert_eq!(relay(&target, later()).unwrap().peer.port(), port);
    assert!(matches!(failure(relay(&target, later())), Failure::Proxy(407)));
    assert!(matches!(failure(relay(&target, later())), Failure::BadAnswer(_)));
    server.join().unwrap();
}

#[test]
fn a_socket_that_is_connected_already() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut stream = Stream::from_fd(OwnedFd::from(ours)).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    theirs.write_all(b"in").unwrap();
    assert_eq!(read(&mut stream, 2), b"in");
    write(&mut stream, b"out");
    stream.close();
    drop(stream);
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"out");
}
