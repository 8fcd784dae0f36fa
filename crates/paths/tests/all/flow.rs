//! The shape of a conversation, as two nodes of another implementation have it.

use std::time::Duration;

use serde_json::Value;
use sim::Kind;

use crate::world::{Sight, World, ms};

/// Kind and size of every disco message the recorded nodes sent within the first 16 s, before direct paths were forbidden.
fn recorded(via: &str, kind: &str) -> Vec<(Duration, usize)> {
    let file = format!("{}/../../vectors/flow_coder.json", env!("CARGO_MANIFEST_DIR"));
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let events = trace["events"].as_array().unwrap().iter();
    let ours = events.filter(|e| e["via"] == via && e["kind"].as_str().unwrap().ends_with(kind));
    let timed = ours.map(|e| (e["t_ms"].as_f64().unwrap(), e["size"].as_u64().unwrap()));
    timed
        .filter(|(at, _)| *at < 16_000.0)
        .map(|(at, size)| (Duration::from_secs_f64(at / 1000.0), usize::try_from(size).unwrap()))
        .collect()
}

fn sizes(list: &[(Duration, usize)]) -> Vec<usize> {
    list.iter().map(|(_, size)| *size).collect()
}

fn seen<'a>(sights: &'a [Sight], by: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Sight> {
    sights.iter().filter(move |sight| sight.by == by && sight.kind == kind)
}

#[test]
fn order_and_sizes_are_those_of_the_recorded_conversation() {
    let mut world = World::strangers(&[Kind::Open, Kind::Open], false);
    world.run(ms(203));
    world.introduce();
    world.sights.clear();
    let start = world.net.elapsed();
    world.send(0, 1);
    world.run(ms(21));
    world.send(1, 0);
    world.run(ms(15_700));

    // The first packet and a call-me-maybe go by relay, in this order; every call-me-maybe has the recorded size.
    let relayed: Vec<_> = world.sights.iter().filter(|s| s.by == "derp").map(|s| (s.from, s.kind)).collect();
    assert_eq!(relayed[..2], [(0, "data"), (0, "call-me-maybe")]);
    let calls: Vec<usize> = seen(&world.sights, "derp", "call-me-maybe").map(|sight| sight.size).collect();
    assert!(calls.iter().all(|size| sizes(&recorded("derp", "call-me-maybe")).contains(size)));

    // Every ping and pong has the recorded size.
    let pings = recorded("udp", "ping");
    assert!(pings.iter().chain(&recorded("udp", "pong")).all(|(_, size)| *size == 1310));
    assert!(seen(&world.sights, "udp", "ping or pong").all(|sight| sight.size == 1310));

    // After the exchange a ping from each side every 3 s, as many as recorded.
    let steady = |at: Duration| at > ms(1000);
    let theirs = pings.iter().filter(|(at, _)| steady(at.saturating_sub(ms(203)))).count();
    let both: Vec<_> = seen(&world.sights, "udp", "ping or pong").filter(|s| steady(s.at - start)).collect();
    assert_eq!(both.len(), 2 * theirs);
    let from_first: Vec<Duration> = both.iter().filter(|s| s.from == 0).map(|s| s.at - start).collect();
    for beat in 1..=5 {
        assert!(from_first.contains(&ms(3000 * beat)), "{from_first:?}");
    }
}

/// Without endpoints of the peer nothing is pinged and nobody is called.
#[test]
fn without_endpoints_there_is_no_disco() {
    let mut world = World::strangers(&[Kind::Open, Kind::Open], false);
    world.run(ms(200));
    world.nodes.iter_mut().for_each(|node| node.endpoints.clear());
    world.introduce();
    world.sights.clear();
    world.converse(0, 1, ms(500), ms(10_000));
    assert!(world.sights.iter().all(|sight| sight.kind == "data" && sight.by == "derp"));
}

/// Heartbeats end with the session, 45 s after the last send.
#[test]
fn a_sleeping_session_is_silent() {
    let mut world = World::strangers(&[Kind::Open, Kind::Open], false);
    world.run(ms(200));
    world.introduce();
    world.send(0, 1);
    world.run(ms(1000));
    world.run(Duration::from_secs(46));
    world.sights.clear();
    world.run(Duration::from_secs(600));
    assert_eq!(world.sights, []);
    assert!(!world.is_direct(0, 1));
    world.send(0, 1);
    world.run(ms(100));
    assert!(world.is_direct(0, 1));
}
