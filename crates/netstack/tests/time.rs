//! Outages, silence and timers.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use netstack::{Event, Stack};

const SECOND: Duration = Duration::from_secs(1);

fn quiet() -> Net {
    let calm = |text| {
        let mut config = config(text);
        config.keepalive = None;
        config
    };
    Net::with(1, calm(A), calm(B))
}

#[test]
fn an_idle_stack_wants_nothing() {
    let mut net = quiet();
    assert_eq!(net.a.poll_at(net.now), None);
    let (out, _) = net.connect(3);
    send(&mut net.a, net.now, out, b"hello");
    net.pass(SECOND);
    assert_eq!((net.a.poll_at(net.now), net.b.poll_at(net.now)), (None, None));
}

/// Sends through an outage; how long after its end the data arrived, and how many packets were sent into the void.
fn outage(net: &mut Net, span: Duration, kick: bool) -> Duration {
    let (out, into) = net.connect(3);
    net.weather.down = true;
    send(&mut net.a, net.now, out, b"into the void");
    net.pass(span);
    assert_eq!((events(&mut net.a), events(&mut net.b)), (vec![], vec![]));
    net.weather.down = false;
    let back = net.now;
    if kick {
        net.a.kick(net.now);
    }
    net.run(|net| events(&mut net.b) == [Event::Readable(into)]);
    net.now - back
}

#[test]
fn after_an_outage_data_flows_within_seconds() {
    assert!(outage(&mut quiet(), 60 * SECOND, false) <= 5 * SECOND);
    assert!(outage(&mut quiet(), 800 * SECOND, false) <= 5 * SECOND);
}

#[test]
fn a_kick_makes_it_at_once() {
    let mut net = quiet();
    assert!(outage(&mut net, 61 * SECOND, true) <= net.delay);
}

#[test]
fn an_outage_costs_few_packets() {
    let mut net = quiet();
    outage(&mut net, 60 * SECOND, false);
    assert!(net.sent < 25, "{}", net.sent);
}

#[test]
fn bulk_goes_on_after_an_outage() {
    let mut net = quiet();
    let (out, into) = net.connect(3);
    let data = pattern(8 << 20);
    let (mut sent, mut got) = (0, Vec::new());
    let mut end = None;
    net.run(|net| {
        sent += send(&mut net.a, net.now, out, &data[sent..]);
        recv(&mut net.b, into, &mut got);
        if got.len() > 1 << 20 && end.is_none() {
            net.weather.down = true;
            net.pass(60 * SECOND);
            net.weather.down = false;
            end = Some(net.now);
        }
        got.len() == data.len()
    });
    assert!(got == data && net.now - end.unwrap() < 10 * SECOND);
}

#[test]
fn silence_has_an_end() {
    let mut net = quiet();
    let (out, _) = net.connect(3);
    net.weather.down = true;
    send(&mut net.a, net.now, out, b"anybody?");
    net.pass(899 * SECOND);
    assert_eq!(events(&mut net.a), []);
    net.pass(2 * SECOND);
    assert_eq!(events(&mut net.a), [Event::TimedOut(out)]);
    net.a.close(net.now, out);
    net.pass(SECOND);
    assert_eq!(net.a.flows(), 0);
}

#[test]
fn a_connection_attempt_has_an_end() {
    let mut net = quiet();
    net.weather.down = true;
    let out = net.a.connect(net.now, at(B, 3)).unwrap();
    net.pass(61 * SECOND);
    assert_eq!(events(&mut net.a), [Event::TimedOut(out)]);
}

#[test]
fn keepalive_notices_a_dead_peer_and_leaves_a_living_one() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    net.a.set_keepalive(out, Some(3600 * SECOND));
    net.b.set_keepalive(into, None);
    net.pass(100 * 3600 * SECOND);
    assert_eq!(events(&mut net.a), []);
    let living = net.sent;
    assert!((190..210).contains(&living), "a probe and an answer every hour: {living}");
    net.weather.down = true;
    // The next probe is due: nine of them, 75 seconds each.
    net.pass(9 * 75 * SECOND);
    assert_eq!(events(&mut net.a), []);
    net.pass(5 * SECOND);
    assert_eq!(events(&mut net.a), [Event::TimedOut(out)]);
    assert!(net.sent < living + 12);
}

#[test]
fn a_peer_that_never_finishes_is_left_after_a_minute() {
    let mut net = quiet();
    let (out, _) = net.connect(3);
    net.a.close(net.now, out);
    net.pass(59 * SECOND);
    assert_eq!(net.a.flows(), 1);
    net.pass(2 * SECOND);
    assert_eq!(net.a.flows(), 0);
}

#[test]
fn held_attempts_are_merged_bounded_and_forgotten() {
    let mut net = quiet();
    let connect = |net: &mut Net| net.a.connect(net.now, at(B, 3)).unwrap();
    (0..1100).for_each(|_| {
        connect(&mut net);
    });
    net.pass(5 * SECOND);
    let incoming = events(&mut net.b);
    assert_eq!(incoming.len(), 1024);
    assert!(net.b.counters().held_overflow >= 76);
    let Event::Incoming { id, .. } = incoming[0] else { panic!("{:?}", incoming[0]) };
    net.weather.down = true;
    net.pass(6 * SECOND);
    assert_eq!(net.b.counters().held_expired, 1024);
    assert_eq!(net.b.accept(net.now, id), None);
    assert_eq!((net.b.flows(), net.b.poll_at(net.now)), (0, None));
}

#[test]
fn a_withdrawn_attempt_cannot_be_accepted() {
    let mut net = quiet();
    let out = net.a.connect(net.now, at(B, 3)).unwrap();
    net.pass(net.delay * 2);
    let [Event::Incoming { id, .. }] = events(&mut net.b)[..] else { panic!("no attempt") };
    net.a.close(net.now, out);
    net.pass(SECOND);
    assert_eq!(net.b.accept(net.now, id), None);
    assert_eq!(net.a.flows(), 0);
}

#[test]
fn the_address_to_send_from_is_the_one_closest_to_the_destination() {
    let mut net = quiet();
    let mut config = config(A);
    config.addresses.push(address("fd60:627a:a42b::1"));
    let mut stack = Stack::new(config, 1, net.now);
    stack.connect(net.now, at("fd60:627a:a42b::2", 1)).unwrap();
    let packet = &drain(&mut stack, net.now)[0];
    assert_eq!(packet[8..24], address("fd60:627a:a42b::1").octets());
    net.step();
}
