//! What the network below does to path choice: local networks, hairpin, narrow links.

use paths::{Event, Path};
use sim::{Kind, Link};

use crate::world::{REGION, World, ms};

fn hair_pinning(world: &World, node: usize) -> Option<bool> {
    let events = world.nodes[node].events.iter().rev();
    events
        .filter_map(|(_, event)| if let Event::Report(report) = event { Some(report) } else { None })
        .next()?
        .hair_pinning
}

/// Whatever the router does, two hosts behind it use the addresses of their own network.
#[test]
fn neighbours_use_local_addresses() {
    for kind in [Kind::FullCone, Kind::PortRestricted, Kind::Symmetric] {
        for hairpin in [false, true] {
            let mut world = World::neighbours(kind, hairpin);
            world.converse(0, 1, ms(100), ms(3000));
            for (node, peer) in [(0, 1), (1, 0)] {
                let local = world.net.address(world.nodes[peer].host);
                assert_eq!(world.path(node, peer), Some(Path::Direct(local)), "{kind:?} {hairpin}");
            }
        }
    }
}

#[test]
fn hairpin_is_found_out() {
    for hairpin in [false, true] {
        let mut world = World::neighbours(Kind::FullCone, hairpin);
        world.act(1, |paths, now| paths.check(now));
        world.run(ms(500));
        assert_eq!(hair_pinning(&world, 1), Some(hairpin));
        assert!(world.nodes[1].sockets.is_empty());
    }
    let mut world = World::new(&[Kind::Open]);
    world.act(0, |paths, now| paths.check(now));
    world.run(ms(500));
    assert_eq!(hair_pinning(&world, 0), None, "there is no router in between");
}

/// A padded ping has 1,338 bytes with its headers over IPv4: what it does not fit through is no path.
#[test]
fn a_link_too_narrow_for_full_packets_is_no_path() {
    for (mtu, direct) in [(1280, false), (1337, false), (1338, true), (1500, true)] {
        let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted]);
        let (a, b) = (world.nodes[0].host, world.nodes[1].host);
        world.net.set_link(a, b, Link { mtu, ..Link::default() });
        world.converse(0, 1, ms(100), ms(8000));
        assert_eq!((world.is_direct(0, 1), world.is_direct(1, 0)), (direct, direct), "{mtu}");
        if !direct {
            assert_eq!(world.path(0, 1), Some(Path::Relay(REGION)));
            assert!(
                world.nodes[1].data.iter().all(|(_, direct)| !direct),
                "nothing is sent where it may be lost"
            );
        }
    }
}

/// The same where only a hole found by chance is narrow: small probes get through, traffic would not.
#[test]
fn birthday_probing_proves_the_mtu_too() {
    let mut world = World::seeded(&[Kind::PortRestricted, Kind::Symmetric], 4);
    let (a, b) = (world.nodes[0].host, world.nodes[1].host);
    world.net.set_link(a, b, Link { mtu: 1280, ..Link::default() });
    world.converse(0, 1, ms(100), ms(8000));
    assert!(!world.is_direct(0, 1) && !world.is_direct(1, 0));
}

/// A path that narrows under way (another route) goes dark for padded pings and full packets alike.
#[test]
fn a_path_that_narrows_is_left() {
    let mut world = World::new(&[Kind::Open, Kind::Open]);
    world.converse(0, 1, ms(100), ms(3000));
    assert!(world.is_direct(0, 1));
    let narrowed = world.net.elapsed();
    let (a, b) = (world.nodes[0].host, world.nodes[1].host);
    world.net.set_link(a, b, Link { mtu: 1280, ..Link::default() });
    // Small packets still pass both ways, so there is no silence; but no pong prolongs the trust.
    world.converse(0, 1, ms(100), ms(10_000));
    assert!(world.when(0, false, narrowed).unwrap() - narrowed <= ms(6500));
    assert!(!world.is_direct(0, 1) && !world.is_direct(1, 0));
}
