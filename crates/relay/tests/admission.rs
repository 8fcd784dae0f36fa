//! Clients whose keys nobody has announced.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Relay, key, kinds, send, server_key};
use relay::server::{ANNOUNCE_TIMEOUT, CloseReason, Request, TRICKLE};
use wire::derp::FrameType;

fn strict() -> Relay {
    let mut relay = Relay::new(server_key(), None);
    relay.router.require_announced(relay.now, true);
    relay
}

#[test]
fn an_unknown_key_may_send_a_trickle_and_is_cut_off() {
    let mut relay = strict();
    let unknown = relay.client(&key(1));
    let remote = "192.0.2.1:1".parse().unwrap();
    assert_eq!(relay.requests(), [Request::Unannounced { key: key(1).public(), remote }]);
    relay.router.announce(key(2).public());
    let known = relay.client(&key(2));
    let burst = TRICKLE.burst as usize;
    relay.feed(unknown, &send(&key(2).public(), b"x").repeat(burst + 8));
    assert_eq!(kinds(&relay.take(known)).len(), burst);
    assert_eq!(relay.router.counters().dropped.unannounced, 8);
    relay.advance(Duration::from_secs(1));
    relay.feed(unknown, &send(&key(2).public(), b"x").repeat(100));
    assert_eq!(kinds(&relay.take(known)).len(), TRICKLE.per_second as usize);
    relay.advance(ANNOUNCE_TIMEOUT - Duration::from_millis(1001));
    assert!(!relay.closed(unknown));
    relay.advance(Duration::from_millis(1));
    assert_eq!(relay.requests(), [Request::Close { id: unknown, reason: CloseReason::Unannounced }]);
    assert_eq!(relay.router.counters().unannounced, 1);
    assert!(!relay.closed(known));
}

#[test]
fn a_key_that_is_announced_in_time_is_free() {
    let mut relay = strict();
    let (a, b) = (relay.client(&key(1)), relay.client(&key(2)));
    relay.router.announce(key(1).public());
    relay.feed(a, &send(&key(2).public(), b"x").repeat(100));
    assert_eq!(kinds(&relay.take(b)), [FrameType::RecvPacket; 100]);
    relay.advance(ANNOUNCE_TIMEOUT);
    assert!(!relay.closed(a) && relay.closed(b));
}

#[test]
fn a_withdrawn_key_gets_the_same_time_as_an_unknown_one() {
    let mut relay = strict();
    relay.router.announce(key(1).public());
    let a = relay.client(&key(1));
    relay.advance(Duration::from_secs(100));
    relay.router.withdraw(relay.now, &key(1).public());
    relay.advance(ANNOUNCE_TIMEOUT - Duration::from_nanos(1));
    assert!(!relay.closed(a));
    relay.advance(Duration::from_nanos(1));
    assert!(relay.closed(a));
}

#[test]
fn switching_it_off_lets_everyone_stay_and_switching_it_on_judges_all() {
    let mut relay = strict();
    let a = relay.client(&key(1));
    relay.router.require_announced(relay.now, false);
    relay.advance(ANNOUNCE_TIMEOUT);
    assert!(!relay.closed(a));
    relay.router.require_announced(relay.now, true);
    relay.advance(ANNOUNCE_TIMEOUT);
    assert!(relay.closed(a));
}
