//! Two nodes that hand each other datagrams.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use tunnel::{PeerConfig, PeerId, Refused, Tunnel};
use wire::keys::{NodePrivate, NodePublic};

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, last)
}

/// An IPv6 packet with `next header 59` (none) and a payload.
fn packet(from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::from(&wire::ip::header(from, to, 59, payload.len() as u16)[..]);
    bytes.extend_from_slice(payload);
    bytes
}

struct End {
    tunnel: Tunnel,
    key: NodePublic,
    address: Ipv6Addr,
    out: VecDeque<Vec<u8>>,
    got: Vec<Vec<u8>>,
}

impl End {
    fn new(last: u16) -> Self {
        let private = NodePrivate::generate();
        let tunnel = Tunnel::new(&private);
        Self { tunnel, key: private.public(), address: address(last), out: VecDeque::new(), got: Vec::new() }
    }

    fn meet(&mut self, now: Instant, peer: &End, keepalive: bool) {
        let config = PeerConfig { key: peer.key, addresses: vec![peer.address], keepalive };
        let out = &mut self.out;
        self.tunnel.set_peers(now, &[config], &mut |_, bytes| out.push_back(bytes.to_vec()));
    }

    fn only(&self, peer: &NodePublic) -> PeerId {
        self.tunnel.peer(peer).unwrap()
    }

    fn send(&mut self, now: Instant, peer: &NodePublic, bytes: BytesMut) {
        let (id, out) = (self.only(peer), &mut self.out);
        self.tunnel.encapsulate(now, id, bytes, &mut |_, bytes| out.push_back(bytes.to_vec()));
    }

    fn take(&mut self, now: Instant, from: Option<PeerId>, bytes: &[u8]) -> Result<(), Refused> {
        let out = &mut self.out;
        let taken = self
            .tunnel
            .handle(now, from, BytesMut::from(bytes), &mut |_, bytes| out.push_back(bytes.to_vec()))?;
        if let Some(mut decrypted) = taken {
            self.got.push(decrypted.bytes_mut().to_vec());
        }
        Ok(())
    }
}

/// Carries everything both have to say; answers what crossed.
fn converse(now: Instant, a: &mut End, b: &mut End) -> Vec<Vec<u8>> {
    let mut crossed = Vec::new();
    loop {
        let (bytes, from, to) = match (a.out.pop_front(), b.out.pop_front()) {
            (Some(bytes), other) => {
                other.into_iter().for_each(|bytes| b.out.push_front(bytes));
                (bytes, a.key, &mut *b)
            }
            (None, Some(bytes)) => (bytes, b.key, &mut *a),
            (None, None) => return crossed,
        };
        let peer = to.tunnel.peer(&from);
        to.take(now, peer, &bytes).unwrap();
        crossed.push(bytes);
    }
}

fn acquainted(now: Instant) -> (End, End) {
    let (mut a, mut b) = (End::new(1), End::new(2));
    b.meet(now, &a, false);
    a.meet(now, &b, true);
    (a, b)
}

#[test]
fn a_peer_with_keepalives_is_called_at_once() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    let sizes: Vec<usize> = converse(now, &mut a, &mut b).iter().map(Vec::len).collect();
    assert_eq!(sizes[..3], [148, 92, 32], "initiation, response, keep-alive");
    assert!(a.tunnel.last_handshake(&b.key).is_some());
}

#[test]
fn packets_that_wait_for_the_session_arrive_in_order_and_padded() {
    let now = Instant::now();
    let (mut a, mut b) = (End::new(1), End::new(2));
    b.meet(now, &a, false);
    a.meet(now, &b, false);
    for text in [b"one".as_slice(), b"two", b"three"] {
        let bytes = packet(a.address, b.address, text);
        a.send(now, &b.key.clone(), bytes);
    }
    converse(now, &mut a, &mut b);
    let texts: Vec<&[u8]> =
        b.got.iter().map(|bytes| wire::ip::Ipv6::parse(bytes).unwrap().payload()).collect();
    assert_eq!(texts, [b"one".as_slice(), b"two", b"three"]);
    assert!(b.got.iter().all(|bytes| bytes.len().is_multiple_of(16)));
}

#[test]
fn the_responder_may_answer_and_a_full_packet_keeps_its_size() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    converse(now, &mut a, &mut b);
    let full = packet(b.address, a.address, &[7; 1240]);
    b.send(now, &a.key.clone(), full.clone());
    let crossed = converse(now, &mut a, &mut b);
    assert_eq!(crossed[0].len(), tunnel::MTU + tunnel::OVERHEAD);
    assert_eq!(a.got, [full.to_vec()]);
}

#[test]
fn a_foreign_source_address_is_refused() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    converse(now, &mut a, &mut b);
    a.send(now, &b.key.clone(), packet(address(3), b.address, b"not mine"));
    let bytes = a.out.pop_front().unwrap();
    assert_eq!(b.take(now, None, &bytes), Err(Refused::ForeignAddress));
    assert_eq!(b.tunnel.counters().foreign_address, 1);
    assert!(b.got.is_empty());
}

#[test]
fn a_repeated_datagram_is_refused() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    converse(now, &mut a, &mut b);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"once"));
    let bytes = a.out.pop_front().unwrap();
    b.take(now, None, &bytes).unwrap();
    assert_eq!(b.take(now, None, &bytes), Err(Refused::NotAuthentic));
    assert_eq!(b.got.len(), 1);
}

#[test]
fn a_stranger_is_refused_however_it_comes() {
    let now = Instant::now();
    let (mut a, mut b) = (End::new(1), End::new(2));
    a.meet(now, &b, true);
    let initiation = a.out.pop_front().unwrap();
    assert_eq!(b.take(now, None, &initiation), Err(Refused::UnknownPeer));
    let mut data = vec![0; 64];
    data[0] = 4;
    assert_eq!(b.take(now, None, &data), Err(Refused::UnknownPeer));
}

#[test]
fn an_initiation_is_known_by_its_key_where_the_way_tells_nothing() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    let initiation = a.out.pop_front().unwrap();
    b.take(now, None, &initiation).unwrap();
    assert_eq!(b.out.pop_front().map(|response| response.len()), Some(92));
}

#[test]
fn every_bit_of_a_datagram_is_protected() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    converse(now, &mut a, &mut b);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"sealed"));
    let bytes = a.out.pop_front().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let reserved = (8..32).contains(&bit);
        let outcome = b.take(now, None, &bent);
        assert!(outcome.is_err() || reserved, "bit {bit}: {outcome:?}");
    }
    assert!(b.got.len() <= 1, "at most the copy whose reserved bits differ");
}

#[test]
fn every_truncation_is_refused() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    let initiation = a.out[0].clone();
    for length in 0..initiation.len() {
        assert!(b.take(now, None, &initiation[..length]).is_err());
    }
    converse(now, &mut a, &mut b);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"whole"));
    let bytes = a.out.pop_front().unwrap();
    for length in 0..bytes.len() {
        assert!(b.take(now, None, &bytes[..length]).is_err());
    }
    b.take(now, None, &bytes).unwrap();
}

#[test]
fn unchanged_peers_keep_their_session_and_removed_ones_lose_it() {
    let now = Instant::now();
    let (mut a, mut b) = acquainted(now);
    converse(now, &mut a, &mut b);
    b.meet(now, &a, false);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"still there"));
    converse(now, &mut a, &mut b);
    assert_eq!(b.got.len(), 1);
    b.tunnel.set_peers(now, &[], &mut |_, _| {});
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"gone"));
    let bytes = a.out.pop_front().unwrap();
    assert_eq!(b.take(now, None, &bytes), Err(Refused::UnknownPeer));
}

#[test]
fn a_node_without_sessions_needs_no_timer() {
    let now = Instant::now();
    let (mut a, mut b) = (End::new(1), End::new(2));
    assert_eq!(a.tunnel.next_tick(), None);
    a.meet(now, &b, false);
    b.meet(now, &a, false);
    assert_eq!(a.tunnel.next_tick(), None);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"wake"));
    assert!(a.tunnel.next_tick().is_some_and(|at| at > now && at <= now + Duration::from_secs(1)));
}

/// Lets time pass at `a`; how often it calls, and when.
fn calls(a: &mut End, start: Instant, end: Duration) -> Vec<Duration> {
    let mut calls = Vec::new();
    while let Some(now) = a.tunnel.next_tick().filter(|at| *at <= start + end) {
        let out = &mut a.out;
        a.tunnel.tick(now, &mut |_, bytes| out.push_back(bytes.to_vec()));
        if a.out.drain(..).any(|bytes| bytes.len() == 148) {
            calls.push(now - start);
        }
    }
    calls
}

#[test]
fn a_first_handshake_without_answer_is_repeated_soon_and_then_seldom() {
    let now = Instant::now();
    let (mut a, mut b) = (End::new(1), End::new(2));
    a.meet(now, &b, false);
    b.meet(now, &a, false);
    a.send(now, &b.key.clone(), packet(a.address, b.address, b"wake"));
    a.out.clear();
    let repeats = calls(&mut a, now, Duration::from_millis(4900));
    assert_eq!(repeats, [500, 1500, 3500].map(Duration::from_millis));

    a.tunnel.retry(now + Duration::from_secs(4), &b.key, &mut |_, bytes| b.out.push_back(bytes.to_vec()));
    assert_eq!(b.out.len(), 1, "a way that was found is used at once");
    let initiation = b.out.pop_front().unwrap();
    let from = b.tunnel.peer(&a.key);
    b.take(now, from, &initiation).unwrap();
    converse(now, &mut a, &mut b);
    assert_eq!(b.got.len(), 1);
    a.tunnel.retry(now + Duration::from_secs(9), &b.key, &mut |_, bytes| b.out.push_back(bytes.to_vec()));
    assert!(b.out.is_empty(), "a session needs no other");
}

#[test]
fn the_address_of_two_peers_belongs_to_the_first() {
    let now = Instant::now();
    let (mut a, b, c) = (End::new(1), End::new(2), End::new(3));
    let both = [b.key, c.key].map(|key| PeerConfig { key, addresses: vec![address(9)], keepalive: false });
    a.tunnel.set_peers(now, &both, &mut |_, _| {});
    assert_eq!(a.tunnel.peer_at(&address(9)), a.tunnel.peer(&b.key));
}

#[test]
fn the_reference_devices_initiation_is_answered() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/wireguard.json");
    let vector: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let key = |name: &str| -> [u8; 32] { bytes(&vector[name]).try_into().unwrap() };
    let now = Instant::now();
    let private = NodePrivate::from_bytes(key("responder_static_private"));
    let mut responder = Tunnel::new(&private);
    let initiator = NodePublic::from_bytes(key("initiator_static_public"));
    let config = PeerConfig { key: initiator, addresses: vec![address(1)], keepalive: false };
    responder.set_peers(now, &[config], &mut |_, _| {});
    let initiation = bytes(&vector["packets"][0]["packet"]);
    let mut answer = Vec::new();
    let taken =
        responder.handle(now, None, BytesMut::from(&initiation[..]), &mut |_, out| answer = out.to_vec());
    assert!(matches!(taken, Ok(None)));
    assert_eq!((answer.len(), answer[0]), (92, 2));
    assert_eq!(answer[8..12], initiation[4..8], "it names the initiator's index");
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6) {
        let now = Instant::now();
        let (mut a, mut b) = acquainted(now);
        converse(now, &mut a, &mut b);
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let peer = Some(b.only(&a.key));
        prop_assert!(b.take(now, peer, &bytes).is_err());
        prop_assert!(b.take(now, None, &bytes).is_err());
    }
}
