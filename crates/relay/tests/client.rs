//! A client session, from the greeting to silence.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{kinds, server_key};
use relay::{ClientError, ClientOptions, ClientSession, Event};
use wire::derp::login::{ServerInfo, open_client_info, seal_server_info};
use wire::derp::{FrameType, HEADER_LEN, Header, encode};
use wire::keys::NodePrivate;

fn key() -> NodePrivate {
    NodePrivate::from_bytes([3; 32])
}

fn greeting() -> Vec<u8> {
    let mut out = Vec::new();
    encode::server_key(&mut out, &server_key().public());
    out
}

/// A session that is logged in, and what it wrote for that.
fn logged_in(now: Instant, options: ClientOptions) -> (ClientSession, Vec<u8>) {
    let (mut client, mut out) = (ClientSession::new(now, key(), options), Vec::new());
    client.feed(now, &mut greeting(), &mut out, &mut |event| panic!("{event:?}")).unwrap();
    (client, out)
}

#[test]
fn the_login_follows_the_greeting_and_says_what_was_asked_for() {
    let now = Instant::now();
    let mesh_key = relay::MeshKey::new("secret");
    let options = ClientOptions { home: true, watch: true, mesh_key, ..ClientOptions::default() };
    let (mut client, out) = logged_in(now, options);
    assert_eq!(kinds(&out), [FrameType::ClientInfo, FrameType::NotePreferred, FrameType::WatchConns]);
    let (_, len) = Header::parse(&out).unwrap();
    let (from, info, shared) = open_client_info(&server_key(), &out[HEADER_LEN..HEADER_LEN + len]).unwrap();
    assert_eq!(from, key().public());
    assert_eq!((info.version, info.can_ack_pings), (2, true));
    assert_eq!(info.mesh_key.unwrap().as_str(), "secret");
    assert!(client.can_send() && !client.is_ready());

    let (mut answer, mut events) = (Vec::new(), Vec::new());
    seal_server_info(&mut answer, &shared, [1; 24], &ServerInfo { version: 2, ..ServerInfo::default() });
    client
        .feed(now, &mut answer, &mut Vec::new(), &mut |event| events.push(matches!(event, Event::Ready(_))))
        .unwrap();
    assert_eq!(events, [true]);
    assert!(client.is_ready());
}

#[test]
fn a_fast_start_logs_in_at_once_and_skips_the_late_greeting() {
    let now = Instant::now();
    let server_key = Some(server_key().public());
    let mut client = ClientSession::new(now, key(), ClientOptions { server_key, ..ClientOptions::default() });
    let mut out = Vec::new();
    client.start(&mut out);
    client.start(&mut out);
    assert_eq!(kinds(&out), [FrameType::ClientInfo]);
    out.clear();
    client.feed(now, &mut greeting(), &mut out, &mut |event| panic!("{event:?}")).unwrap();
    assert!(out.is_empty());
}

#[test]
fn pings_are_answered_and_changes_of_home_told_once() {
    let now = Instant::now();
    let (mut client, _) = logged_in(now, ClientOptions::default());
    let (mut ping, mut out) = (Vec::new(), Vec::new());
    encode::ping(&mut ping, b"12345678");
    client.feed(now, &mut ping, &mut out, &mut |event| panic!("{event:?}")).unwrap();
    client.note_preferred(false, &mut out);
    client.note_preferred(true, &mut out);
    client.note_preferred(true, &mut out);
    let mut expected = Vec::new();
    encode::pong(&mut expected, b"12345678");
    encode::note_preferred(&mut expected, true);
    assert_eq!(out, expected);
}

#[test]
fn packets_are_limited_and_received_in_the_buffer_that_was_fed() {
    let now = Instant::now();
    let (mut client, mut out) = logged_in(now, ClientOptions::default());
    let peer = NodePrivate::from_bytes([4; 32]).public();
    assert_eq!(client.send(&peer, &[0; 65537], &mut out), Err(ClientError::PacketTooLarge(65537)));
    out.clear();
    client.send(&peer, b"packet", &mut out).unwrap();
    assert_eq!(out, common::send(&peer, b"packet"));

    let mut bytes = common::recv(&peer, b"answer");
    let range = bytes.as_ptr_range();
    let mut seen = false;
    client
        .feed(now, &mut bytes, &mut out, &mut |event| {
            let Event::Packet { from, payload } = event else { panic!("{event:?}") };
            assert_eq!((from, &*payload), (peer, &b"answer"[..]));
            seen = range.contains(&payload.as_ptr());
        })
        .unwrap();
    assert!(seen);
}

#[test]
fn two_minutes_of_silence_are_the_end() {
    let start = Instant::now();
    let (mut client, mut out) = logged_in(start, ClientOptions::default());
    let minute = Duration::from_secs(60);
    let mut keepalive = Vec::new();
    encode::keep_alive(&mut keepalive);
    client.feed(start + minute, &mut keepalive, &mut out, &mut |_| {}).unwrap();
    assert_eq!(client.next_timeout(), start + 3 * minute);
    assert_eq!(client.handle_timeout(start + 3 * minute - Duration::from_nanos(1)), Ok(()));
    assert_eq!(client.handle_timeout(start + 3 * minute), Err(ClientError::Silent));
}
