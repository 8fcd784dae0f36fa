//! Relay clients through a real edge.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::net::Shutdown;

use common::{Derp, How, config, edge, received, wait_until};
use edge::Edge;
use relay::server::QUEUE_LIMIT;
use wire::derp::{FrameType, encode};
use wire::keys::NodePrivate;
use wire::ws;

const EVERY_WAY: [How; 3] = [How::Plain, How::FastStart, How::WebSocket];

#[test]
fn packets_pass_between_clients_however_they_connect() {
    let edge = edge();
    for from in EVERY_WAY {
        for to in EVERY_WAY {
            let mut a = Derp::connect(&edge, NodePrivate::generate(), from);
            let mut b = Derp::connect(&edge, NodePrivate::generate(), to);
            let (key_a, key_b) = (a.key.public(), b.key.public());
            for len in [0, 1, 1200, 65536] {
                a.send_packet(&key_b, &vec![7; len]);
                assert_eq!(b.next(), received(&key_a, &vec![7; len]), "{from:?} to {to:?}");
                b.send_packet(&key_a, &vec![8; len]);
                assert_eq!(a.next(), received(&key_b, &vec![8; len]), "{to:?} to {from:?}");
            }
        }
    }
    wait_until(|| edge.counters().relay.packets == 9 * 8);
    assert_eq!(edge.counters().upgraded, 18);
    assert_eq!(edge.counters().relay.logins, 18);
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let edge = edge();
    for how in EVERY_WAY {
        let mut a = Derp::connect(&edge, NodePrivate::generate(), how);
        let mut b = Derp::connect(&edge, NodePrivate::generate(), how);
        let key_b = b.key.public();
        let mut frames = Vec::new();
        for number in 0..500u32 {
            encode::send_packet(&mut frames, &key_b, &[&number.to_be_bytes()[..], &[0; 1000]].concat());
        }
        a.send(&frames);
        for number in 0..500u32 {
            assert_eq!(b.next().1[32..36], number.to_be_bytes());
        }
    }
    wait_until(|| edge.counters().relay.packets == 3 * 500);
    assert_eq!(edge.counters().relay.dropped, relay::server::Dropped::default());
}

#[test]
fn a_reader_that_does_not_read_blocks_nobody_else() {
    let edge = edge();
    let mut sender = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let lazy = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let mut other = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let (lazy_key, other_key, from) = (lazy.key.public(), other.key.public(), sender.key.public());
    let mut burst = Vec::new();
    for _ in 0..100 {
        encode::send_packet(&mut burst, &lazy_key, &[0; 10_000]);
    }
    // Until the kernel's buffers and the queue are full and packets are lost.
    while edge.counters().relay.dropped.queue_full == 0 {
        sender.send(&burst);
        sender.send_packet(&other_key, b"still here");
        assert_eq!(other.next(), received(&from, b"still here"));
    }
    let counters = edge.counters().relay;
    assert!(counters.pauses > 0, "the sender was slowed down before anything was lost");
    assert!(counters.queued_bytes <= QUEUE_LIMIT as u64 + 1000);
    drop(lazy);
    assert_eq!(other_ping(&mut other), FrameType::Pong);
}

fn other_ping(client: &mut Derp) -> FrameType {
    let mut ping = Vec::new();
    encode::ping(&mut ping, &[1; 8]);
    client.send(&ping);
    client.next().0
}

#[test]
fn frames_cut_short_at_every_length_end_their_connection_only() {
    let edge = edge();
    let mut steady = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let mut frame = Vec::new();
    encode::send_packet(&mut frame, &steady.key.public(), b"never");
    for cut in 0..frame.len() {
        let mut broken = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
        broken.stream.write_all(&frame[..cut]).unwrap();
        broken.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(broken.try_next(), None);
        steady.ping();
    }
}

#[test]
fn oversized_and_malformed_frames_are_refused_and_counted() {
    let edge = edge();
    let mut steady = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let header = |kind: FrameType, len: u32| [&[kind.to_u8()][..], &len.to_be_bytes()].concat();
    // Only headers: what is too large is refused before any of it has arrived.
    let malformed = [
        header(FrameType::SendPacket, 32 + 65537),
        header(FrameType::SendPacket, u32::MAX),
        header(FrameType::Ping, 1001),
        header(FrameType::NotePreferred, 2),
        [header(FrameType::Ping, 7), vec![0; 7]].concat(),
        [header(FrameType::SendPacket, 31), vec![0; 31]].concat(),
        header(FrameType::WatchConns, 0),
        header(FrameType::ForwardPacket, 64),
        header(FrameType::ClosePeer, 32),
    ];
    for (number, bytes) in malformed.iter().enumerate() {
        let mut broken = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
        broken.send(bytes);
        assert_eq!(broken.try_next(), None, "{bytes:?}");
        steady.ping();
        wait_until(|| edge.counters().relay.malformed == number as u64 + 1);
    }
    let refused = [
        header(FrameType::ClientInfo, 262_145),
        header(FrameType::ClientInfo, 55),
        header(FrameType::SendPacket, 40),
        [header(FrameType::ClientInfo, 100), vec![9; 100]].concat(),
    ];
    for (number, bytes) in refused.iter().enumerate() {
        let mut broken = Derp::upgrade(&edge, NodePrivate::generate(), How::Plain);
        assert_eq!(broken.next().0, FrameType::ServerKey);
        broken.send(bytes);
        assert_eq!(broken.try_next(), None, "{bytes:?}");
        steady.ping();
        wait_until(|| edge.counters().relay.refused == number as u64 + 1);
    }
}

#[test]
fn websocket_pings_are_answered_and_a_close_is_returned() {
    let edge = edge();
    let mut client = Derp::connect(&edge, NodePrivate::generate(), How::WebSocket);
    let mut raw = Vec::new();
    ws::encode(&mut raw, ws::Opcode::Ping, b"hello", Some([5, 6, 7, 8]));
    ws::encode(&mut raw, ws::Opcode::Close, &1000u16.to_be_bytes(), Some([0; 4]));
    client.stream.write_all(&raw).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut answer).unwrap();
    assert_eq!(answer, [&b"\x8a\x05hello"[..], b"\x88\x02\x03\xe8"].concat());
}

#[test]
fn an_unmasked_websocket_message_ends_the_connection() {
    let edge = edge();
    let mut client = Derp::connect(&edge, NodePrivate::generate(), How::WebSocket);
    client.stream.write_all(b"\x82\x01x").unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut answer).unwrap();
    assert_eq!(answer, b"\x88\x02\x03\xea");
    wait_until(|| edge.counters().relay.malformed == 1);
}

#[test]
fn stopping_tells_every_client_and_closes_it() {
    let edge = edge();
    let mut clients = EVERY_WAY.map(|how| Derp::connect(&edge, NodePrivate::generate(), how));
    edge.stop();
    let mut waits = Vec::new();
    for client in &mut clients {
        let (kind, times) = client.next();
        assert_eq!(kind, FrameType::Restarting);
        waits.push(times);
        assert_eq!(client.try_next(), None);
    }
    waits.dedup();
    assert_eq!(waits.len(), clients.len(), "each comes back at a time of its own");
}

#[test]
fn a_client_that_is_sending_hears_of_the_end_too() {
    for _ in 0..5 {
        let edge = edge();
        let mut client = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
        let other = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
        let mut sending = client.stream.try_clone().unwrap();
        let mut frames = Vec::new();
        encode::send_packet(&mut frames, &NodePrivate::generate().public(), &[0; 1000]);
        encode::send_packet(&mut frames, &other.key.public(), &[0; 1000]);
        let sender = std::thread::spawn(move || while sending.write_all(&frames).is_ok() {});
        wait_until(|| edge.counters().relay.packets > 10);
        let stopping = std::thread::spawn(move || edge.stop());
        assert_eq!(client.next().0, FrameType::Restarting);
        assert_eq!(client.try_next(), None);
        // Ends the sender; the relay may have been quicker.
        let _ = client.stream.shutdown(Shutdown::Both);
        drop((client, other));
        sender.join().unwrap();
        stopping.join().unwrap();
    }
}

#[test]
fn too_many_connections_are_closed_at_once() {
    let mut config = config();
    config.max_connections = 2;
    let edge = Edge::start(config).unwrap();
    let mut first = Derp::connect(&edge, NodePrivate::generate(), How::Plain);
    let _second = Derp::connect(&edge, NodePrivate::generate(), How::WebSocket);
    let mut third = common::connect(&edge);
    let mut answer = Vec::new();
    // Closed, or reset if the request arrived first: in any case there is no answer.
    let _ = third.write_all(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = std::io::Read::read_to_end(&mut third, &mut answer);
    assert!(answer.is_empty());
    wait_until(|| edge.counters().refused == 1);
    first.ping();
}
