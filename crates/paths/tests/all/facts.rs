//! What is told of the way to a peer, and which endpoints a router granted.

use paths::facts::{Source, Why};
use paths::{Event, Output, Path};
use sim::Kind;

use crate::alone::Alone;
use crate::world::{REGION, World, map_of, ms, node_key, relay_region};

#[test]
fn granted_endpoints_come_first_until_they_are_replaced() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9)]));
    for (granted, expected) in [
        (vec!["198.51.100.7:4000"], vec!["198.51.100.7:4000", "10.0.0.2:41641"]),
        (vec!["198.51.100.7:4001"], vec!["198.51.100.7:4001", "10.0.0.2:41641"]),
        (vec!["0.0.0.0:1", "224.0.0.1:5"], vec!["10.0.0.2:41641"]),
    ] {
        let granted: Vec<_> = granted.iter().map(|addr| addr.parse().unwrap()).collect();
        alone.paths.set_mapped(alone.now, &granted);
        let told = alone.drain().into_iter().rev().find_map(|output| match output {
            Output::Event(Event::Self_ { endpoints, .. }) => Some(endpoints),
            _ => None,
        });
        let told: Vec<String> = told.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_check_that_is_asked_for_joins_a_full_one_and_otherwise_starts_one() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9)]));
    alone.paths.check(alone.now);
    assert_eq!(alone.drain(), [], "one runs since the map came");
    alone.latency(9, 10);
    alone.paths.check(alone.now);
    assert_eq!(alone.drain(), [Output::MeasureRelay(9)]);
    let outputs = alone.latency(9, 10);
    assert!(matches!(outputs[..], [Output::Event(Event::Report(_))]));
}

#[test]
fn the_way_to_a_peer_is_explained() {
    let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted]);
    let peer = world.nodes[1].key;
    let facts = |world: &World| world.nodes[0].paths.facts(world.net.now(), &peer).unwrap();
    let before = facts(&world);
    assert_eq!((before.path, before.active, before.first_direct), (Some(Path::Relay(REGION)), None, None));
    assert!(before.endpoints.iter().all(|e| e.source == Source::Advertised && e.last_pong.is_none()));

    world.converse(0, 1, ms(100), ms(1000));
    let direct = facts(&world);
    let trusted = direct.endpoints.iter().find(|endpoint| endpoint.trusted).unwrap();
    assert_eq!(direct.path, Some(Path::Direct(trusted.addr)));
    assert!(trusted.best && trusted.latency == Some(ms(20)));
    assert_eq!(trusted.mtu, Some(1310 + 28), "padded pongs");
    assert_eq!(direct.changed.unwrap().1, Why::Proved);
    assert_eq!(direct.active, Some(ms(1000)));
    let first = direct.first_direct.unwrap();
    assert_eq!(direct.changed.unwrap().0 + first, ms(1000));
    assert!(first <= ms(60), "{first:?}");

    world.act(0, |paths, now| paths.set_block_direct(now, true));
    let blocked = facts(&world);
    assert_eq!((blocked.path, blocked.changed), (Some(Path::Relay(REGION)), Some((ms(0), Why::Forbidden))));
    assert!(blocked.block_direct && blocked.endpoints.is_empty());
    assert_eq!(world.nodes[0].paths.facts(world.net.now(), &node_key(77)), None);
}

#[test]
fn silence_and_roaming_are_named() {
    let mut world = World::new(&[Kind::Open, Kind::Open]);
    let peer = world.nodes[1].key;
    world.converse(0, 1, ms(100), ms(1000));
    let host = world.nodes[1].host;
    world.net.block_udp(host, true);
    world.converse(0, 1, ms(100), ms(3000));
    let why = |world: &World| world.nodes[0].paths.facts(world.net.now(), &peer).unwrap().changed.unwrap().1;
    assert_eq!(why(&world), Why::Silent);
    world.net.block_udp(host, false);
    world.converse(0, 1, ms(100), ms(6000));
    assert_eq!(why(&world), Why::Proved);
    world.roam(0);
    assert_eq!(why(&world), Why::Network);
}
