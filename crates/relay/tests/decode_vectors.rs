//! Single frames and greetings as real relays and clients judged them.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{Relay, frames, private, unhex, vectors};
use relay::{ClientOptions, ClientSession, Event};
use serde_json::Value;
use wire::derp::encode;
use wire::keys::NodePrivate;

const FILES: [&str; 2] = ["derp_decode_tailscale.json", "derp_decode_coder.json"];

/// Whether this relay judges a mesh key as coder's does: any text is allowed, a wrong one gives no right.
fn differs(file: &str, name: &str) -> bool {
    file.contains("tailscale")
        && ["mesh key of 32 letters (coder's form)", "mesh key empty string"].contains(&name)
}

#[test]
fn what_a_relay_makes_of_a_client() {
    for file in FILES {
        let vectors = vectors(file);
        for case in vectors["server_reads_client"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let Some(bytes) = client_bytes(case, &vectors) else { continue };
            if differs(file, name) {
                continue;
            }
            for chunk in [1, 7, usize::MAX] {
                // A whole 64 KiB packet byte by byte teaches nothing more.
                if bytes.len() > 10_000 && chunk < 10 {
                    continue;
                }
                judge(file, case, &vectors, &bytes, chunk);
            }
        }
    }
}

fn judge(file: &str, case: &Value, vectors: &Value, bytes: &[u8], chunk: usize) {
    let name = format!("{file}: {} in chunks of {chunk}", case["name"]);
    let mesh_key = case["mesh_key_of_server"].as_str().filter(|key| !key.is_empty());
    let mut relay = Relay::new(private(&vectors["server_private"]), mesh_key);
    let id = relay.accept();
    for part in bytes.chunks(chunk) {
        relay.feed(id, part);
    }
    let sent = frames(&relay.take(id));
    let expected = case["answers"].as_array().unwrap();
    assert_eq!(sent.len(), expected.len(), "{name}");
    for (sent, expected) in sent.iter().zip(expected) {
        let Some(frame) = expected.get("frame") else { continue };
        let mut sent = sent.clone();
        if unhex(frame).len() < sent.len() && expected["name"] == "PeerPresent" {
            sent.truncate(unhex(frame).len());
            sent[4] = 32;
        }
        assert_eq!(sent, unhex(frame), "{name}");
    }
    assert_eq!(relay.closed(id), case["server_closed_connection"].as_bool().unwrap(), "{name}");
}

/// Long inputs were recorded by their first bytes; the rest is zeros.
fn client_bytes(case: &Value, vectors: &Value) -> Option<Vec<u8>> {
    if let Some(bytes) = case.get("client_bytes") {
        return Some(unhex(bytes));
    }
    let mut bytes = unhex(&case["client_bytes_first_64"]);
    let len = case["client_bytes_len"].as_u64()? as usize;
    let login =
        vectors["server_reads_client"][0]["client_bytes"].as_str().map(|hex| hex::decode(hex).unwrap())?;
    assert!(login.starts_with(&bytes));
    bytes = login.clone();
    let rest = len - login.len();
    let name = case["name"].as_str()?;
    let peer: [u8; 32] = unhex(&vectors["peer_public"]).try_into().unwrap();
    let peer = wire::keys::NodePublic::from_bytes(peer);
    if let Some(size) = number(name, "ping of ") {
        encode::frame(&mut bytes, wire::derp::FrameType::Ping, &[&vec![0; size]]);
    } else if let Some(size) = number(name, "SendPacket of ") {
        encode::send_packet(&mut bytes, &peer, &vec![0; size]);
        if bytes.len() < len {
            encode::ping(&mut bytes, b"ABCDEFGH");
        }
    }
    assert_eq!(bytes.len() - login.len(), rest, "{name}");
    Some(bytes)
}

fn number(name: &str, before: &str) -> Option<usize> {
    name.strip_prefix(before)?.split(' ').next()?.parse().ok()
}

#[test]
fn what_a_client_makes_of_a_greeting() {
    for file in FILES {
        let vectors = vectors(file);
        for case in vectors["client_reads_greeting"].as_array().unwrap() {
            let bytes = unhex(&case["greeting"]);
            for chunk in [1, 3, bytes.len()] {
                let (mut client, mut out, mut failed) = (client(&vectors), Vec::new(), false);
                for part in bytes.chunks(chunk) {
                    let mut part = part.to_vec();
                    failed |= client.feed(Instant::now(), &mut part, &mut out, &mut |_| {}).is_err();
                    if failed {
                        break;
                    }
                }
                let ok = case["ok"].as_bool().unwrap();
                assert_eq!(!failed && client.can_send(), ok, "{file}: {}", case["name"]);
                assert_eq!(!out.is_empty(), ok);
            }
        }
    }
}

#[test]
fn what_a_client_makes_of_frames() {
    for file in FILES {
        let vectors = vectors(file);
        for case in vectors["client_receives"].as_array().unwrap() {
            let mut bytes = unhex(&case["frames"]);
            if let Some(len) = case.get("frames_truncated_to_64_of") {
                bytes.resize(len.as_u64().unwrap() as usize, 0);
            }
            for chunk in [1, 5, usize::MAX] {
                if bytes.len() > 10_000 && chunk < 10 {
                    continue;
                }
                let (messages, failed) = receive(&vectors, &bytes, chunk);
                let name = format!("{file}: {} in chunks of {chunk}", case["name"]);
                assert_eq!(failed, case.get("error").is_some(), "{name}");
                let mut expected: Vec<String> =
                    case["messages"].as_array().unwrap_or(&vec![]).iter().map(describe).collect();
                // Pings are answered, not reported.
                expected.retain(|text| !text.starts_with("PingMessage"));
                assert_eq!(messages, expected, "{name}");
            }
        }
    }
}

fn client(vectors: &Value) -> ClientSession {
    let key: NodePrivate = private(&vectors["client_private"]);
    ClientSession::new(Instant::now(), key, ClientOptions::default())
}

fn receive(vectors: &Value, bytes: &[u8], chunk: usize) -> (Vec<String>, bool) {
    let (mut client, mut out, mut messages) = (client(vectors), Vec::new(), Vec::new());
    let mut greeting = Vec::new();
    encode::server_key(&mut greeting, &private(&vectors["server_private"]).public());
    client.feed(Instant::now(), &mut greeting, &mut out, &mut |_| {}).unwrap();
    for part in bytes.chunks(chunk) {
        let mut part = part.to_vec();
        let mut report = |event: Event<'_>| messages.push(report(event));
        if client.feed(Instant::now(), &mut part, &mut out, &mut report).is_err() {
            return (messages, true);
        }
    }
    (messages, false)
}

fn report(event: Event<'_>) -> String {
    match event {
        Event::Ready(info) => {
            format!("ServerInfoMessage {} {}", info.bytes_per_second, info.bytes_burst)
        }
        Event::Packet { from, payload } => {
            format!("ReceivedPacket {} {}", hex::encode(from.as_bytes()), payload.len())
        }
        Event::PeerGone { peer, reason } => {
            format!("PeerGoneMessage {} {}", hex::encode(peer.as_bytes()), reason.to_u8())
        }
        Event::PeerPresent { peer } => format!("PeerPresentMessage {}", hex::encode(peer.as_bytes())),
        Event::KeepAlive => "KeepAliveMessage".to_owned(),
        Event::Pong(data) => format!("PongMessage {}", hex::encode(data)),
        Event::Health(text) => format!("HealthMessage {text}"),
        Event::Restarting { reconnect_in, try_for } => {
            format!("ServerRestartingMessage {} {}", reconnect_in.as_millis(), try_for.as_millis())
        }
    }
}

/// A recorded message in the form of [`report`].
fn describe(message: &Value) -> String {
    let text = |key: &str| match &message[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields: &[&str] = match message["message"].as_str().unwrap() {
        "ServerInfoMessage" => &["TokenBucketBytesPerSecond", "TokenBucketBytesBurst"],
        "ReceivedPacket" => &["src", "data_len"],
        "PeerGoneMessage" => &["peer", "reason"],
        "PeerPresentMessage" => &["peer"],
        "PongMessage" => &["data"],
        "HealthMessage" => &["problem"],
        "ServerRestartingMessage" => &["reconnect_in_ms", "try_for_ms"],
        _ => &[],
    };
    let mut words = vec![text("message")];
    // The Go type that stands for a ping is printed by a name of its own.
    words.extend(fields.iter().map(|field| text(field)));
    words.join(" ")
}
