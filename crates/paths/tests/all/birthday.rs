//! Birthday probing: a hard NAT and a port-restricted one find each other by chance, within bounds.

use std::net::SocketAddr;
use std::time::Duration;

use paths::{Event, Path};
use sim::{Kind, Link};

use crate::world::{World, ms};

const EASY: usize = 0;
const HARD: usize = 1;

fn pair(seed: u64) -> World {
    World::seeded(&[Kind::PortRestricted, Kind::Symmetric], seed)
}

fn both_direct(world: &World) -> bool {
    world.is_direct(EASY, HARD) && world.is_direct(HARD, EASY)
}

/// 256 sockets and 1,024 guesses promise 98.3 %; 98.0 % of 150 pairs were direct, the slowest after 1.3 s.
#[test]
fn most_pairs_become_direct_within_three_seconds() {
    let runs = 100;
    let mut direct = 0;
    let mut slowest = Duration::ZERO;
    for seed in 0..runs {
        let mut world = pair(seed);
        let start = world.net.elapsed();
        world.converse(EASY, HARD, ms(100), ms(6000));
        if both_direct(&world) {
            direct += 1;
            let found = world.when(EASY, true, start).max(world.when(HARD, true, start)).unwrap();
            slowest = slowest.max(found - start);
        }
    }
    let rate = f64::from(direct) / runs as f64;
    assert!(rate > 0.9, "{rate}");
    assert!(slowest < ms(3000), "{slowest:?}");
}

#[test]
fn the_winning_socket_carries_traffic_and_the_others_close() {
    let mut world = pair(4);
    world.converse(EASY, HARD, ms(100), ms(3000));
    assert!(both_direct(&world));
    assert!(world.nodes[HARD].sockets.len() <= 256);
    let since = world.net.elapsed();
    world.converse(EASY, HARD, ms(100), ms(40_000));
    assert!(world.when(EASY, false, since).is_none() && world.when(HARD, false, since).is_none());
    let carried =
        |node: usize| world.nodes[node].data.iter().filter(|(at, direct)| *at > since && *direct).count();
    assert!(carried(EASY) >= 399 && carried(HARD) >= 399);
    let open = world.nodes[HARD].sockets.len();
    assert!((1..=2).contains(&open), "one for each side's choice, not {open}");
    assert!(world.nodes[EASY].sockets.is_empty());
}

/// Small packets only, as many as were promised, and once.
#[test]
fn probing_is_bounded_and_not_repeated() {
    let mut world = pair(4);
    // The hard side's pings never arrive, nor does any guess.
    let (easy, hard) = (world.nodes[EASY].host, world.nodes[HARD].host);
    world.net.set_link(easy, hard, Link { blocked: true, ..Link::default() });
    world.converse(EASY, HARD, ms(100), ms(90_000));
    let small = |from| world.sights.iter().filter(|s| s.from == from && s.kind == "small ping").count();
    assert_eq!((small(EASY), small(HARD)), (1024, 512));
    assert!(world.nodes[HARD].sockets.is_empty());
    let first = world.sights.iter().find(|s| s.kind == "small ping").unwrap().at;
    let last = world.sights.iter().rev().find(|s| s.kind == "small ping").unwrap().at;
    assert!(last - first < ms(3000));
    let padded = world.sights.iter().filter(|s| s.kind == "ping or pong" && s.from == EASY);
    assert!(padded.count() < 300);
}

#[test]
fn another_network_may_be_tried_again() {
    let mut world = pair(4);
    world.converse(EASY, HARD, ms(100), ms(3000));
    assert!(both_direct(&world));
    world.roam(HARD);
    assert!(world.nodes[HARD].sockets.is_empty(), "they belong to the old network");
    world.run(ms(500));
    world.introduce();
    let moved = world.net.elapsed();
    world.converse(EASY, HARD, ms(100), ms(90_000));
    assert!(both_direct(&world));
    assert!(world.when(EASY, true, moved).is_some());
}

#[test]
fn nothing_is_probed_where_direct_paths_are_forbidden() {
    for side in [EASY, HARD] {
        let mut world = pair(4);
        world.act(side, |paths, now| paths.set_block_direct(now, true));
        world.introduce();
        world.converse(EASY, HARD, ms(100), ms(10_000));
        assert!(world.sights.iter().all(|sight| sight.kind != "small ping"), "{side}");
        assert!(world.nodes[HARD].sockets.is_empty());
    }
}

/// A stranger to the session, one that only sends disco, is no reason to probe.
#[test]
fn nothing_is_probed_without_a_session() {
    let mut world = pair(4);
    for _ in 0..50 {
        let key = world.nodes[EASY].key;
        world.act(HARD, |paths, now| paths.ping(now, &key, 1));
        world.run(ms(200));
    }
    assert!(world.sights.iter().all(|sight| sight.kind != "small ping"));
}

#[test]
fn two_hard_sides_do_not_try() {
    let mut world = World::new(&[Kind::Symmetric, Kind::Symmetric]);
    world.converse(0, 1, ms(100), ms(10_000));
    assert!(world.sights.iter().all(|sight| sight.kind != "small ping"));
    assert!(matches!(world.path(0, 1), Some(Path::Relay(_))));
}

/// The announcement is a call-me-maybe like any other to whoever does not know better.
#[test]
fn an_announcement_names_no_new_address() {
    let mut world = pair(4);
    world.converse(EASY, HARD, ms(100), ms(1000));
    let facts = world.nodes[EASY].paths.facts(world.net.now(), &world.nodes[HARD].key).unwrap();
    let told: Vec<SocketAddr> = facts.endpoints.iter().map(|endpoint| endpoint.addr).collect();
    let own = world.nodes[HARD].events.iter().rev().find_map(|(_, event)| match event {
        Event::Self_ { endpoints, .. } => Some(endpoints.clone()),
        _ => None,
    });
    assert!(own.unwrap().iter().all(|addr| told.contains(addr)));
}
