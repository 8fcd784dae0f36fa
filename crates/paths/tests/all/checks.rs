//! Home, STUN, our own record: one node alone, with exact times.

use std::net::SocketAddr;
use std::time::Duration;

use paths::{Event, Local, Output, Report, Route};
use wire::derpmap::{DerpMap, RelayNode};
use wire::stun;

use crate::alone::{Alone, plain};
use crate::world::{map_of, ms, node_key, relay_region, stun_region};

fn homes(outputs: &[Output]) -> Vec<u16> {
    let home = |output: &Output| match output {
        Output::Event(Event::Self_ { home, .. }) => Some(*home),
        _ => None,
    };
    outputs.iter().filter_map(home).collect()
}

fn endpoints(outputs: &[Output]) -> Option<Vec<String>> {
    outputs.iter().rev().find_map(|output| match output {
        Output::Event(Event::Self_ { endpoints, .. }) => {
            Some(endpoints.iter().map(SocketAddr::to_string).collect())
        }
        _ => None,
    })
}

fn report(outputs: &[Output]) -> Option<Report> {
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::Report(report)) => Some(report.clone()),
        _ => None,
    })
}

fn requests(outputs: &[Output]) -> Vec<(SocketAddr, Vec<u8>)> {
    let request = |output: &Output| match output {
        Output::Udp { to, bytes, .. } if stun::is_stun(bytes) => Some((*to, bytes.clone())),
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

#[test]
fn a_single_relay_is_home_at_once() {
    let mut alone = Alone::with_socket();
    let outputs = alone.set_map(map_of([relay_region(9)]));
    assert_eq!(outputs[..2], [Output::OpenRelay(9), Output::Prefer { region: 9, home: true }]);
    assert!(matches!(outputs[2], Output::Event(Event::Self_ { home: 9, .. })));
    assert!(outputs.contains(&Output::MeasureRelay(9)));
}

#[test]
fn of_several_relays_the_best_within_the_grace_is_home() {
    let mut alone = Alone::with_socket();
    let outputs = alone.set_map(map_of([relay_region(1), relay_region(2), relay_region(3)]));
    assert!(homes(&outputs).iter().all(|home| *home == 0));
    alone.pass(ms(200));
    alone.latency(1, 190);
    alone.pass(ms(50));
    alone.latency(2, 90);
    let outputs = alone.pass(ms(100));
    let opened = outputs.iter().find(|(_, output)| matches!(output, Output::OpenRelay(_)));
    assert_eq!(opened, Some(&(ms(300), Output::OpenRelay(2))));
}

#[test]
fn all_measured_needs_no_grace() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(1), relay_region(2)]));
    alone.latency(1, 50);
    let outputs = alone.latency(2, 20);
    assert!(outputs.contains(&Output::OpenRelay(2)));
    assert_eq!(homes(&outputs).last(), Some(&2));
    assert_eq!(report(&outputs).unwrap().preferred_derp, 2);
}

#[test]
fn an_unmeasured_home_is_chosen_within_a_second_and_refined() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(1), relay_region(2)]));
    let outputs = alone.pass(ms(1000));
    let (at, first) = outputs.iter().find(|(_, output)| matches!(output, Output::OpenRelay(_))).unwrap();
    assert_eq!(*at, ms(1000));
    let Output::OpenRelay(first) = *first else { unreachable!() };
    let other = 3 - first;
    alone.latency(first, 100);
    let outputs = alone.latency(other, 10);
    assert!(outputs.contains(&Output::Prefer { region: first, home: false }));
    assert!(outputs.contains(&Output::Prefer { region: other, home: true }));
    assert_eq!(homes(&outputs).last(), Some(&other));
}

#[test]
fn the_old_home_closes_when_idle_and_the_new_one_stays() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(1), relay_region(2)]));
    let outputs = plain(&alone.pass(ms(1000)));
    let first = if outputs.contains(&Output::OpenRelay(1)) { 1 } else { 2 };
    alone.paths.relay_up(alone.now, first);
    alone.latency(first, 100);
    alone.latency(3 - first, 10);
    let moved = alone.now - alone.start;
    let outputs = alone.pass(Duration::from_secs(200));
    let closed: Vec<_> = outputs.iter().filter(|(_, o)| matches!(o, Output::CloseRelay(_))).collect();
    assert_eq!(closed, [&(moved + Duration::from_secs(60), Output::CloseRelay(first))]);
}

#[test]
fn a_broken_home_is_redialled_ever_more_slowly() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9)]));
    let mut waits = Vec::new();
    for _ in 0..40 {
        let broke = alone.now;
        alone.paths.relay_down(broke, 9);
        alone.drain();
        loop {
            let at = alone.paths.next_timeout().unwrap();
            let outputs = plain(&alone.pass(at.saturating_duration_since(alone.now)));
            if outputs.contains(&Output::OpenRelay(9)) {
                break;
            }
        }
        waits.push(alone.now - broke);
    }
    assert!(waits[0] <= ms(15) && waits[0] >= ms(5));
    assert!(waits[39] >= ms(2500) && waits[39] <= ms(7500));
}

#[test]
fn a_changed_region_is_closed_and_chosen_again() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9)]));
    alone.paths.relay_up(alone.now, 9);
    alone.drain();
    assert_eq!(alone.set_map(map_of([relay_region(9)])), []);
    let mut other = relay_region(9);
    other.nodes[0].derp_port = 8443;
    let outputs = alone.set_map(map_of([other]));
    assert_eq!(outputs[..2], [Output::CloseRelay(9), Output::OpenRelay(9)]);
    let outputs = alone.set_map(DerpMap::default());
    assert_eq!(outputs[0], Output::CloseRelay(9));
    assert_eq!(homes(&outputs), [0]);
}

#[test]
fn stun_tells_our_address_and_the_nat_kind() {
    for (second, varies) in [("203.0.113.7:5000", false), ("203.0.113.7:5001", true)] {
        let mut alone = Alone::with_socket();
        let servers = ["192.0.2.1:3478", "192.0.2.2:3478"].map(|server| server.parse().unwrap());
        let map = map_of([relay_region(9), stun_region(10, servers[0]), stun_region(11, servers[1])]);
        let asked = requests(&alone.set_map(map));
        assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), servers);
        let first = alone.answer(&asked[0].1, "203.0.113.7:5000");
        assert_eq!(endpoints(&first).unwrap(), ["203.0.113.7:5000", "10.0.0.2:41641"]);
        let mut outputs = alone.answer(&asked[1].1, second);
        outputs.extend(alone.latency(9, 12));
        outputs.extend(plain(&alone.pass(ms(100))));
        let report = report(&outputs).unwrap();
        assert_eq!(report.mapping_varies_by_dest_ip, Some(varies));
        assert_eq!(report.global_v4, Some("203.0.113.7:5000".parse().unwrap()));
        assert!(report.udp && report.ipv4 && report.ipv4_can_send && !report.ipv6 && !report.ipv6_can_send);
        assert_eq!(report.region_v4_latency.get(&9), Some(&ms(12)));
        assert_eq!((report.preferred_derp, report.icmpv4, report.hair_pinning), (9, false, Some(false)));
    }
}

#[test]
fn a_fixed_port_is_advertised_behind_a_symmetric_nat() {
    let mut alone = Alone::with_socket();
    alone.paths.set_fixed_port(alone.now, true);
    let map = map_of([
        stun_region(10, "192.0.2.1:3478".parse().unwrap()),
        stun_region(11, "192.0.2.2:3478".parse().unwrap()),
    ]);
    let asked = requests(&alone.set_map(map));
    alone.answer(&asked[0].1, "203.0.113.7:5000");
    let outputs = alone.answer(&asked[1].1, "203.0.113.7:5001");
    let expected = ["203.0.113.7:5000", "203.0.113.7:41641", "203.0.113.7:5001", "10.0.0.2:41641"];
    assert_eq!(endpoints(&outputs).unwrap(), expected);
}

#[test]
fn a_silent_server_is_asked_three_times_and_given_up() {
    let mut alone = Alone::with_socket();
    let map = map_of([relay_region(9), stun_region(10, "192.0.2.1:3478".parse().unwrap())]);
    assert_eq!(requests(&alone.set_map(map)).len(), 1);
    alone.latency(9, 12);
    let outputs = alone.pass(Duration::from_secs(10));
    let tries: Vec<_> =
        outputs.iter().filter(|(_, o)| matches!(o, Output::Udp { .. })).map(|(at, _)| *at).collect();
    assert_eq!(tries, [ms(200), ms(600)]);
    let ended = outputs.iter().find(|(_, o)| matches!(o, Output::Event(Event::Report(_)))).unwrap();
    assert_eq!(ended.0, ms(1600));
    let report = report(&plain(&outputs)).unwrap();
    assert!(!report.udp && report.ipv4_can_send);
}

#[test]
fn both_ports_of_the_embedded_server_are_asked_by_name() {
    let mut alone = Alone::with_socket();
    let mut region = relay_region(999);
    region.nodes[0].stun_port = 3478;
    region.nodes.push(RelayNode {
        host: "relay.test".into(),
        stun_port: 3479,
        stun_only: true,
        ..<_>::default()
    });
    let outputs = alone.set_map(map_of([region]));
    let asks: Vec<_> = outputs.iter().filter(|o| matches!(o, Output::ResolveStun { .. })).collect();
    let ask = |port| Output::ResolveStun { region: 999, host: "relay.test".into(), port };
    assert_eq!(asks, [&ask(3478), &ask(3479)]);
    for port in [3478, 3479] {
        let found =
            vec![SocketAddr::new("192.0.2.9".parse().unwrap(), port), "[2001:db8::9]:3478".parse().unwrap()];
        alone.paths.stun_resolved(alone.now, 999, found);
        let asked = requests(&alone.drain());
        assert_eq!(asked.len(), 1, "IPv6 has no socket");
        assert_eq!(asked[0].0.port(), port);
    }
}

#[test]
fn a_stray_stun_answer_changes_nothing() {
    let mut alone = Alone::with_socket();
    let map = map_of([stun_region(10, "192.0.2.1:3478".parse().unwrap())]);
    let asked = requests(&alone.set_map(map));
    let forged = stun::response(stun::TxId([9; 12]), "198.51.100.1:1".parse().unwrap());
    alone.paths.handle_udp(alone.now, asked[0].0, &forged);
    assert_eq!(alone.drain(), []);
    assert_eq!(alone.paths.refusals().stray_stun, 1);
}

#[test]
fn nothing_is_checked_without_peers() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9), stun_region(10, "192.0.2.1:3478".parse().unwrap())]));
    alone.pass(Duration::from_secs(10));
    assert_eq!(alone.pass(Duration::from_secs(3600)), []);
}

#[test]
fn interface_addresses_are_ordered_and_filtered() {
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &[
                "2001:db8::5",
                "192.168.1.9",
                "10.0.0.2",
                "fe80::1",
                "127.0.0.1",
                "169.254.1.1",
                "fd60:627a:a42b::7",
                "fd00::1",
            ],
            &["10.0.0.2:41641", "192.168.1.9:41641", "[2001:db8::5]:41642"],
        ),
        (&["169.254.1.1", "fd00::1", "127.0.0.1"], &["169.254.1.1:41641", "[fd00::1]:41642"]),
        (&["127.0.0.1", "::1", "fe80::1"], &["127.0.0.1:41641", "[::1]:41642"]),
        (&["fd60:627a:a42b::7"], &[]),
    ];
    for (addresses, expected) in cases {
        let mut alone = Alone::new();
        alone.set_map(map_of([relay_region(9)]));
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        alone.paths.set_local(alone.now, Local { addresses, port_v4: Some(41641), port_v6: Some(41642) });
        let outputs = alone.drain();
        assert_eq!(endpoints(&outputs).unwrap_or_default(), *expected);
    }
}

#[test]
fn a_stranger_has_no_route() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(9)]));
    assert_eq!(alone.paths.route(alone.now, &node_key(5)), Route::default());
    alone.paths.ping(alone.now, &node_key(5), 77);
    assert_eq!(alone.drain(), [Output::Event(Event::PingTimeout { id: 77 })]);
}

#[test]
fn a_region_to_be_avoided_is_home_only_where_there_is_no_other() {
    let avoided = |id| wire::derpmap::Region { avoid: true, ..relay_region(id) };
    let mut alone = Alone::with_socket();
    let outputs = alone.set_map(map_of([avoided(1), relay_region(2)]));
    assert!(outputs.contains(&Output::OpenRelay(2)), "the only one left needs no choosing");
    alone.latency(1, 5);
    let outputs = alone.latency(2, 90);
    assert_eq!(report(&outputs).unwrap().preferred_derp, 2);
    let mut alone = Alone::with_socket();
    assert!(alone.set_map(map_of([avoided(1)])).contains(&Output::OpenRelay(1)));
}

#[test]
fn a_region_may_forbid_to_be_measured_and_chosen() {
    let closed = wire::derpmap::Region { no_measure_no_home: true, ..relay_region(1) };
    let mut alone = Alone::with_socket();
    let outputs = alone.set_map(map_of([closed.clone(), relay_region(2)]));
    assert!(!outputs.contains(&Output::MeasureRelay(1)) && outputs.contains(&Output::MeasureRelay(2)));
    assert_eq!(homes(&outputs).last(), Some(&2));
    let mut alone = Alone::with_socket();
    let outputs = alone.set_map(map_of([closed]));
    assert!(homes(&outputs).iter().all(|home| *home == 0), "{outputs:?}");
}

#[test]
fn one_replaced_relay_is_a_portal() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(1), relay_region(2)]));
    alone.paths.captive_portal(true);
    alone.paths.relay_latency(alone.now, 1, None, false);
    alone.paths.captive_portal(false);
    alone.paths.relay_latency(alone.now, 2, None, false);
    assert_eq!(report(&alone.drain()).unwrap().captive_portal, Some(true));
    alone.paths.check(alone.now);
    alone.latency(1, 10);
    assert_eq!(report(&alone.latency(2, 10)).unwrap().captive_portal, None, "nothing was amiss");
}

#[test]
fn latencies_are_told_by_the_family_they_were_measured_over() {
    let mut alone = Alone::with_socket();
    alone.set_map(map_of([relay_region(1), relay_region(2)]));
    alone.paths.relay_latency(alone.now, 1, Some(ms(10)), true);
    alone.drain();
    let outputs = alone.latency(2, 50);
    let told = outputs.iter().rev().find_map(|output| match output {
        Output::Event(Event::Self_ { latencies, .. }) => Some(latencies.keys().cloned().collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(told.unwrap(), ["1-v6", "2-v4"]);
    let report = report(&outputs).unwrap();
    assert_eq!(report.region_v6_latency.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(report.region_v4_latency.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_stirred_network_is_looked_at_again() {
    let mut alone = Alone::with_socket();
    let map = map_of([relay_region(9), stun_region(10, "192.0.2.1:3478".parse().unwrap())]);
    let asked = requests(&alone.set_map(map));
    alone.latency(9, 12);
    alone.answer(&asked[0].1, "203.0.113.7:5000");
    let peer = crate::alone::Puppet::new(2);
    alone.paths.set_peers(alone.now, &[peer.record(9, &["192.0.2.20:7000"])]);
    alone.paths.route(alone.now, &peer.node);
    alone.drain();
    alone.pass(ms(6000));
    alone.paths.network_stirred(alone.now);
    assert_eq!(requests(&plain(&alone.pass(ms(1)))).len(), 1);
}
