//! HTTP exchanges with real relays, replayed against the edge.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{connect, edge, parse};
use serde_json::Value;

fn exchanges(file: &str) -> Vec<Value> {
    let path = format!("{}/../../vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    file["exchanges"].as_array().unwrap().clone()
}

#[test]
fn the_edge_answers_as_real_relays_do() {
    let edge = edge();
    for file in ["derp_http_tailscale.json", "derp_http_coder.json"] {
        let mut replayed = 0;
        for exchange in exchanges(file) {
            let name = exchange["name"].as_str().unwrap();
            // The others show how the client takes answers that are no relay's.
            if name.contains("first answer is") {
                continue;
            }
            replayed += 1;
            replay(&mut connect(&edge), name, exchange["chunks"].as_array().unwrap());
        }
        assert!(replayed >= 2, "{file}");
    }
}

fn replay(stream: &mut TcpStream, name: &str, chunks: &[Value]) {
    for (number, chunk) in chunks.iter().enumerate() {
        let bytes = hex::decode(chunk["hex"].as_str().unwrap()).unwrap();
        let name = format!("{name}, chunk {number}");
        if chunk["dir"] == "c2s" {
            stream.write_all(&bytes).unwrap();
        } else if bytes.starts_with(b"HTTP/") {
            compare_http(stream, &name, &bytes);
        } else {
            let mut answer = vec![0; bytes.len()];
            stream.read_exact(&mut answer).unwrap();
            compare_frames(&name, &answer, &bytes);
        }
    }
}

fn compare_http(stream: &mut TcpStream, name: &str, expected: &[u8]) {
    let head = common::read_head(stream);
    let (first, headers, body) = parse(expected);
    let mut answer = vec![0; body.len()];
    stream.read_exact(&mut answer).unwrap();
    if expected.windows(12).any(|window| window == b"Derp-Version") {
        assert_eq!([head, answer].concat(), expected, "{name}: to the byte");
        return;
    }
    let (answer_first, answer_headers, _) = parse(&head);
    assert_eq!((answer_first, answer_headers, answer), (first, headers, body), "{name}");
}

/// A ServerInfo's nonce is new each time; everything else is the same.
fn compare_frames(name: &str, answer: &[u8], expected: &[u8]) {
    const SERVER_INFO: [u8; 5] = [3, 0, 0, 0, 53];
    match expected.windows(5).position(|window| window == SERVER_INFO) {
        Some(start) => {
            assert_eq!(answer[..start + 5], expected[..start + 5], "{name}");
            assert_eq!(answer[start + 58..], expected[start + 58..], "{name}");
        }
        None => assert_eq!(answer, expected, "{name}"),
    }
}
