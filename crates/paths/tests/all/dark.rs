//! Direct paths that die, and come back.

use std::time::Duration;

use paths::Path;
use sim::{Kind, Link};

use crate::world::{REGION, World, ms};

const DEAD: Link = Link { latency: Duration::from_millis(10), loss_permille: 0, blocked: true, mtu: 1500 };

fn connected() -> World {
    let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted]);
    world.converse(0, 1, ms(100), ms(5000));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    world
}

fn hosts(world: &World) -> (usize, usize) {
    (world.nodes[0].host, world.nodes[1].host)
}

#[test]
fn a_dark_path_falls_back_within_three_seconds_and_returns() {
    let mut world = connected();
    let (a, b) = hosts(&world);
    let dark = world.net.elapsed();
    world.net.set_link(a, b, DEAD);
    world.converse(0, 1, ms(100), ms(12_000));
    for node in 0..2 {
        let fell_back = world.when(node, false, dark).unwrap() - dark;
        assert!(fell_back < ms(2200), "{fell_back:?}");
        let gap = world.nodes[node].data.iter().find(|(at, _)| *at > dark + ms(20)).unwrap().0 - dark;
        assert!(gap < ms(1300), "a suspect path is doubled: {gap:?}");
        assert!(!world.is_direct(node, 1 - node));
    }
    let light = world.net.elapsed();
    world.net.set_link(a, b, Link::default());
    world.converse(0, 1, ms(100), ms(9000));
    for node in 0..2 {
        let back = world.when(node, true, light).unwrap() - light;
        assert!(back <= ms(6100), "{back:?}");
    }
}

/// An idle session is watched by its heartbeats alone.
#[test]
fn a_heartbeat_notices_a_dark_path_of_a_quiet_session() {
    let mut world = connected();
    let (a, b) = hosts(&world);
    world.run(ms(1500));
    let dark = world.net.elapsed();
    world.net.set_link(a, b, DEAD);
    world.run(ms(5000));
    let noticed = world.when(0, false, dark).unwrap() - dark;
    assert!(noticed < ms(3000 + 1900 + 20), "{noticed:?}");
    let route = world.send(0, 1);
    assert_eq!(route.relay, Some(REGION));
}

/// Only our direction dies, and the peer goes on sending: its packets are signs of life, so the pong's trust decides.
#[test]
fn one_way_death_is_bounded_by_trust() {
    let mut world = connected();
    let (a, b) = hosts(&world);
    let dark = world.net.elapsed();
    world.net.set_one_way(a, b, DEAD);
    world.converse(0, 1, ms(100), ms(9000));
    let fell_back = world.when(0, false, dark).unwrap() - dark;
    assert!(fell_back <= ms(6500), "{fell_back:?}");
    assert!(world.when(1, false, dark).unwrap() - dark < ms(2200));
}

/// Loss is not darkness.
#[test]
fn a_lossy_path_stays_in_use() {
    let mut world = connected();
    let (a, b) = hosts(&world);
    world.net.set_link(a, b, Link { loss_permille: 100, ..Link::default() });
    let since = world.net.elapsed();
    world.converse(0, 1, ms(100), ms(60_000));
    assert_eq!(world.when(0, false, since), None);
    assert_eq!(world.when(1, false, since), None);
}

/// Nor is a round trip slower than the watch's own pace.
#[test]
fn a_slow_path_stays_in_use() {
    let mut world = World::new(&[Kind::Open, Kind::Open]);
    let (a, b) = hosts(&world);
    world.net.set_link(a, b, Link { latency: ms(700), ..Link::default() });
    world.converse(0, 1, ms(100), ms(5000));
    let since = world.net.elapsed();
    world.converse(0, 1, ms(100), ms(30_000));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    assert_eq!(world.when(0, false, since), None);
}

#[test]
fn blocked_udp_is_relayed_from_the_first_packet() {
    let mut world = World::strangers(&[Kind::PortRestricted, Kind::Open], true);
    let host = world.nodes[0].host;
    world.net.block_udp(host, true);
    world.run(ms(500));
    world.introduce();
    world.converse(0, 1, ms(100), ms(5000));
    assert_eq!(world.path(0, 1), Some(Path::Relay(REGION)));
    assert_eq!(world.nodes[1].data.len(), 50);
    assert!(world.nodes[1].data.iter().all(|(_, direct)| !direct));
}

#[test]
fn forbidding_direct_paths_moves_both_ends_to_the_relay_and_allowing_moves_them_back() {
    let mut world = connected();
    let blocked = world.net.elapsed();
    world.act(1, |paths, now| paths.set_block_direct(now, true));
    assert_eq!(world.path(1, 0), Some(Path::Relay(REGION)));
    assert!(world.nodes[1].endpoints.is_empty());
    world.introduce();
    world.converse(0, 1, ms(100), ms(8000));
    assert!(world.when(0, false, blocked).unwrap() - blocked < ms(3000));
    assert!(!world.is_direct(0, 1));
    world.act(1, |paths, now| paths.set_block_direct(now, false));
    world.introduce();
    world.converse(0, 1, ms(100), ms(4000));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
}

#[test]
fn roaming_finds_a_new_direct_path() {
    let mut world = connected();
    let before = world.path(1, 0);
    world.roam(0);
    let moved = world.net.elapsed();
    world.converse(0, 1, ms(100), ms(4000));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    assert_ne!(world.path(1, 0), before);
    let resumed = world.nodes[1].data.iter().find(|(at, _)| *at > moved + ms(10)).unwrap().0 - moved;
    assert!(resumed < ms(50), "{resumed:?}");
    // The other end still trusts the path that is gone, until we call.
    let answered = world.nodes[0].data.iter().find(|(at, _)| *at > moved + ms(10)).unwrap().0 - moved;
    assert!(answered < ms(250), "{answered:?}");
}

/// The NAT forgets its mapping: the peer sees another source, learns it from our pings, and answers there.
#[test]
fn a_rebooted_nat_is_survived() {
    let mut world = connected();
    let host = world.nodes[0].host;
    world.net.reboot_nat(host);
    world.converse(0, 1, ms(100), ms(12_000));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    let end = world.net.elapsed();
    let last = world.nodes[1].data.iter().rev().take(10);
    assert!(last.clone().all(|(at, direct)| *direct && *at + ms(2000) > end));
}
