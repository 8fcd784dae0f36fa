//! Datagrams, echo and TSMP.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::*;
use netstack::{Event, SendError, Stack};

const PING: &str =
    "6000000000096340fd7a115ca1e041118222333344445555fd7a115ca1e04b0f9be32a1d7e5c9f1070deadbeef01020304";
const PONG: &str =
    "60000000000b6340fd7a115ca1e04b0f9be32a1d7e5c9f10fd7a115ca1e0411182223333444455556fdeadbeef010203040000";
const REJECTED: &str =
    "6000000000076340fd7a115ca1e04b0f9be32a1d7e5c9f10fd7a115ca1e041118222333344445555210641c3500016";
const ECHO: &str = "60000000000d3a40fd7a115ca1e041118222333344445555fd7a115ca1e04b0f9be32a1d7e5c9f10\
                    800038bbba4f120568656c6c6f";

fn answers(to: &str, packet: &str) -> (Vec<String>, Vec<Event>) {
    let now = Instant::now();
    let mut stack = Stack::new(config(to), 1, now);
    stack.inject(now, &hex::decode(packet).unwrap());
    let packets = drain(&mut stack, now).iter().map(hex::encode).collect();
    (packets, events(&mut stack))
}

#[test]
fn the_reference_pings_are_answered() {
    assert_eq!(answers(B, PING), (vec![PONG.to_owned()], vec![]));
    let (reply, _) = answers(B, ECHO);
    let reply = hex::decode(&reply[0]).unwrap();
    assert_eq!(reply[8..24], address(B).octets());
    assert_eq!(reply[24..40], address(A).octets());
    assert_eq!(reply[40..42], [129, 0]);
    assert_eq!(reply[44..], *b"\xba\x4f\x12\x05hello");
}

#[test]
fn the_reference_pong_is_recognised_and_its_rejection_harmless() {
    let data = [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
    assert_eq!(answers(A, PONG), (vec![], vec![Event::TsmpPong { from: address(B), data }]));
    assert_eq!(answers(A, REJECTED), (vec![], vec![]));
}

#[test]
fn pings_between_two_stacks() {
    let mut net = Net::new(1);
    net.a.tsmp_ping(address(B), [7; 8]).unwrap();
    net.a.echo(address(B), 0xba4f, 3).unwrap();
    net.pass(net.delay * 4);
    let pong = Event::TsmpPong { from: address(B), data: [7; 8] };
    assert_eq!(events(&mut net.a), [pong, Event::EchoReply { from: address(B), id: 0xba4f, seq: 3 }]);
}

#[test]
fn datagrams_go_both_ways() {
    let mut net = Net::new(1);
    let bytes = pattern(1232);
    net.a.send_datagram(at("::", 5353), at(B, 53), &bytes).unwrap();
    net.b.send_datagram(at(B, 53), at(A, 5353), b"").unwrap();
    net.pass(net.delay * 4);
    assert_eq!(events(&mut net.b), [Event::Datagram { from: at(A, 5353), to: at(B, 53), bytes }]);
    assert_eq!(events(&mut net.a), [Event::Datagram { from: at(B, 53), to: at(A, 5353), bytes: vec![] }]);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut net = Net::new(1);
    assert_eq!(net.a.send_datagram(at(A, 1), at(B, 2), &[0; 1233]), Err(SendError::TooLarge));
    assert_eq!(net.a.send_datagram(at(B, 1), at(A, 2), b"x"), Err(SendError::NoSource));
    assert_eq!(net.a.send_datagram(at(A, 1), at(B, 0), b"x"), Err(SendError::BadDestination));
    assert_eq!(net.a.connect(net.now, at(B, 0)), Err(SendError::BadDestination));
    assert_eq!(net.a.connect(net.now, at("ff02::1", 1)), Err(SendError::BadDestination));
    let mut nobody = Stack::new(netstack::Config::new(vec![]), 1, net.now);
    assert_eq!(nobody.tsmp_ping(address(B), [0; 8]), Err(SendError::NoSource));
    let queued = (0..10_000).take_while(|_| net.a.echo(address(B), 1, 1).is_ok()).count();
    assert_eq!((queued, net.a.echo(address(B), 1, 1)), (4096, Err(SendError::Full)));
}

#[test]
fn waiting_datagrams_are_bounded() {
    let mut net = Net::new(1);
    (0..1030).for_each(|_| net.a.send_datagram(at(A, 1), at(B, 2), b"x").unwrap());
    net.pass(net.delay * 2);
    assert_eq!((events(&mut net.b).len(), net.b.counters().datagram_overflow), (1024, 6));
    net.a.send_datagram(at(A, 1), at(B, 2), b"x").unwrap();
    net.pass(net.delay * 2);
    assert_eq!(events(&mut net.b).len(), 1);
}
