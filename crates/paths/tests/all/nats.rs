//! Every pair of NAT kinds: direct or relayed.

use paths::Path;
use sim::Kind;

use crate::world::{REGION, World, ms};

const KINDS: [Kind; 6] = [
    Kind::Open,
    Kind::Firewall,
    Kind::FullCone,
    Kind::AddressRestricted,
    Kind::PortRestricted,
    Kind::Symmetric,
];

/// A row per kind in front of the initiator, a column per kind in front of the other: D direct, r relay. A symmetric NAT and
/// one restricted by port are direct by birthday probing, so but for chance.
const VERDICTS: [&str; 6] = ["DDDDDD", "DDDDDD", "DDDDDD", "DDDDDD", "DDDDDD", "DDDDDr"];

#[test]
fn verdicts() {
    let mut found = Vec::new();
    for a in KINDS {
        let row = KINDS.iter().map(|b| if both_direct(a, *b) { 'D' } else { 'r' });
        found.push(row.collect::<String>());
    }
    assert_eq!(found, VERDICTS);
}

fn both_direct(a: Kind, b: Kind) -> bool {
    let mut world = World::new(&[a, b]);
    world.converse(0, 1, ms(200), ms(8000));
    let direct = world.is_direct(0, 1) && world.is_direct(1, 0);
    if !direct {
        assert_eq!(world.path(0, 1), Some(Path::Relay(REGION)));
        assert_eq!(world.path(1, 0), Some(Path::Relay(REGION)));
    }
    assert!(world.nodes.iter().all(|node| node.data.len() >= 40), "{a:?} {b:?} lost data");
    direct
}

/// Two easy NATs: the first ping of each side opens its own, the call-me-maybe brings the other's.
#[test]
fn two_easy_nats_are_direct_after_one_exchange() {
    let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted]);
    let start = world.net.elapsed();
    world.send(0, 1);
    world.run(ms(100));
    // 20 ms call-me-maybe by relay, 10 ms ping, 10 ms pong.
    assert_eq!(world.when(1, true, start), Some(start + ms(40)));
    assert!(world.when(0, true, start).is_some());
}

#[test]
fn several_nodes_find_each_other() {
    let mut world = World::new(&[Kind::PortRestricted, Kind::AddressRestricted, Kind::Open, Kind::Firewall]);
    for _ in 0..20 {
        for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)] {
            world.send(a, b);
            world.send(b, a);
        }
        world.run(ms(200));
    }
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            assert!(world.is_direct(a, b), "{a} to {b}");
        }
    }
}
