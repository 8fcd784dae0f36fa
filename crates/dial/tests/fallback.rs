//! WebSocket: forced, and as the way out.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};

use common::*;
use dial::{Failure, Target, relay};
use wire::derpmap::RelayNode;
use wire::ws::{Decoder, Event, Opcode, Role, encode};

/// Accepts a WebSocket, greets in two fragments around a ping, expects the pong and `hello`, closes.
fn converse(stream: &mut (impl Read + Write)) {
    let head = accept_websocket(stream);
    assert_eq!(header(&head, "Upgrade"), "websocket");
    assert_eq!(
        (header(&head, "Sec-WebSocket-Protocol"), header(&head, "Sec-WebSocket-Version")),
        ("derp", "13")
    );
    assert_eq!(header(&head, "X-Token"), "secret");
    stream.write_all(b"\x02\x05greet\x89\x04ping").unwrap();
    stream.write_all(b"\x80\x03ing").unwrap();
    let (mut decoder, mut received) = (Decoder::new(Role::Server), Vec::new());
    let (mut data, mut pongs) = (Vec::new(), Vec::new());
    while data != b"hello" || pongs != b"ping" {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
        let step = decoder.decode(&mut received).unwrap();
        match step.event {
            Some(Event::Data(range)) => data.extend_from_slice(&received[range]),
            Some(Event::Pong(range)) => pongs.extend_from_slice(&received[range]),
            None => {}
            Some(other) => panic!("{other:?}"),
        }
        received.drain(..step.consumed);
    }
    let mut close = Vec::new();
    encode(&mut close, Opcode::Close, &1000u16.to_be_bytes(), None);
    stream.write_all(&close).unwrap();
    drain(stream);
}

/// The client's side of [`converse`]. Returns the reason of the fallback.
fn talk(target: &Target) -> Option<String> {
    let mut connected = relay(target, later()).unwrap();
    assert!(connected.stream.is_websocket());
    assert_eq!(connected.leftover, b"");
    assert_eq!(read(&mut connected.stream, 8), b"greeting");
    write(&mut connected.stream, b"hello");
    assert_eq!(read(&mut connected.stream, 1), b"", "code 1000 is the end of the stream");
    connected.websocket
}

fn with_token(nodes: Vec<RelayNode>) -> Target {
    Target { headers: vec![("X-Token".into(), "secret".into())], ..target(nodes) }
}

#[test]
fn forced() {
    let (port, server) = serve(vec![Box::new(|mut stream| converse(&mut stream))]);
    let target = Target { force_websocket: true, ..with_token(vec![node("a", port)]) };
    assert_eq!(talk(&target), None);
    server.join().unwrap();
}

#[test]
fn after_every_status_of_the_client_error_class() {
    for status in [400, 403, 404, 426, 499] {
        let refusal = format!("HTTP/1.1 {status} No\r\nContent-Length: 14\r\n\r\nproxy says no\n");
        let (port, server) = serve(vec![answer(refusal), Box::new(|mut stream| converse(&mut stream))]);
        let reason = format!(
            "GET failed with status code {status} (a proxy could be disallowing the use of 'Upgrade: derp'): proxy says no"
        );
        assert_eq!(talk(&with_token(vec![node("a", port)])), Some(reason));
        server.join().unwrap();
    }
}

#[test]
fn not_after_other_statuses() {
    for status in [200, 302, 500, 502] {
        let (port, server) =
            serve(vec![answer(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"))]);
        let refused = relay(&target(vec![node("a", port)]), later()).unwrap_err().failure;
        assert!(matches!(refused, Failure::Status { status: told, .. } if told == status));
        server.join().unwrap();
    }
}

#[test]
fn after_http2() {
    let (port, server) = serve(vec![
        answer([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 250]),
        Box::new(|mut stream| converse(&mut stream)),
    ]);
    assert!(talk(&with_token(vec![node("a", port)])).unwrap().contains("HTTP/2"));
    server.join().unwrap();
}

#[test]
fn over_tls_after_a_server_that_knows_no_other_protocol() {
    let authority = Authority::new();
    let config = authority.config(&["h2"]);
    let (port, server) = serve(vec![
        Box::new({
            let config = config.clone();
            move |stream| assert!(tls(&config, stream).read(&mut [0]).is_err())
        }),
        Box::new(move |stream| converse(&mut tls(&config, stream))),
    ]);
    let node = RelayNode { force_http: false, cert_name: "relay.test".into(), ..node("a", port) };
    let target = Target { roots: authority.roots(), ..with_token(vec![node]) };
    assert!(talk(&target).unwrap().contains("HTTP/2"));
    server.join().unwrap();
}

#[test]
fn answers_that_agree_to_something_else_are_refused() {
    let answer_with = |lines: fn(&str) -> String| -> Script {
        Box::new(move |mut stream| {
            let head = read_head(&mut stream);
            let lines = lines(&accept_key(header(&head, "Sec-WebSocket-Key")));
            stream
                .write_all(format!("HTTP/1.1 101 ok\r\nConnection: Upgrade\r\n{lines}\r\n").as_bytes())
                .unwrap();
            drain(&mut stream);
        })
    };
    let (port, server) = serve(vec![
        answer_with(|key| {
            format!("Upgrade: DERP\r\nSec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: derp\r\n")
        }),
        answer_with(|_| {
            "Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: derp\r\n".into()
        }),
        answer_with(|key| format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n")),
        answer_with(|key| {
            format!(
                "Upgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: derp\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate\r\n"
            )
        }),
    ]);
    let target = Target { force_websocket: true, ..target(vec![node("a", port)]) };
    for word in ["upgrade", "Accept", "subprotocol", "extension"] {
        let refused = relay(&target, later()).unwrap_err().failure;
        assert!(matches!(refused, Failure::BadAnswer(why) if why.contains(word)), "{word}: {refused}");
    }
    server.join().unwrap();
}
