//! Relays of one region over real sockets, and what only a relay of its own answers.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::dialled::{Dialled, target};
use common::{PATIENCE, config, wait_until};
use edge::{Config, Edge, MeshPeer, MeshTrust, Unannounced};
use relay::MeshKey;
use wire::keys::NodePrivate;

fn alone() -> Config {
    let mut config = config();
    config.upstream = None;
    config.relay_key = None;
    config.mesh_key = MeshKey::new("a secret of this region");
    config
}

fn peer(edge: &Edge) -> MeshPeer {
    format!("http://{}/derp", edge.addresses()[0]).parse().unwrap()
}

#[test]
fn clients_of_two_relays_reach_each_other_and_hear_of_their_end() {
    let one = Edge::start(alone()).unwrap();
    let mut config = alone();
    config.mesh = vec![peer(&one)];
    let two = Edge::start(config).unwrap();
    // One of them is told of itself too, as happens when all get the same list.
    one.set_mesh([peer(&one), peer(&two)]);
    wait_until(|| one.counters().relay.links == 1 && two.counters().relay.links == 1);
    wait_until(|| one.mesh_problems().is_empty());
    let (key_a, key_b) = (NodePrivate::generate(), NodePrivate::generate());
    let mut a = Dialled::connect(&target(one.addresses()[0], None), &key_a);
    let mut b = Dialled::connect(&target(two.addresses()[0], None), &key_b);
    // Until both relays have heard of both.
    let mut number = 0u32;
    let first = loop {
        number += 1;
        a.send(&key_b.public(), &number.to_be_bytes());
        if two.counters().relay.packets > 0 {
            break b.next_packet();
        }
    };
    assert_eq!(first.0, key_a.public());
    b.send(&key_a.public(), b"welcome");
    assert_eq!(a.next_packet(), (key_b.public(), b"welcome".to_vec()));
    drop(b);
    assert_eq!(a.next_gone(), key_b.public());
}

#[test]
fn a_link_is_made_again_and_one_that_is_not_wanted_ends() {
    let one = Edge::start(alone()).unwrap();
    let mut config = alone();
    // A relay that is not there yet, or no more.
    config.mesh = vec![peer(&one), "http://127.0.0.1:1".parse().unwrap()];
    let two = Edge::start(config).unwrap();
    wait_until(|| two.counters().relay.links == 1 && two.counters().link_failures > 1);
    let address = one.addresses()[0];
    one.stop();
    wait_until(|| two.counters().relay.links == 0);
    let mut config = alone();
    config.listen = vec![address];
    let one = Edge::start(config).unwrap();
    wait_until(|| two.counters().relay.links == 1);
    two.set_mesh([]);
    wait_until(|| two.counters().relay.links == 0 && one.counters().relay.clients == 0);
}

#[test]
fn links_use_tls_with_a_pin_or_an_authority() {
    let directory = std::env::temp_dir().join(format!("edge-mesh-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let files = edge::TlsFiles { certificates: directory.join("cert.pem"), key: directory.join("key.pem") };
    let (certificate, key) = edge::self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(&files.certificates, &certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    let mut config = alone();
    config.listen_tls = vec!["127.0.0.1:0".parse().unwrap()];
    config.tls = vec![files];
    let one = Edge::start(config).unwrap();
    let secure = format!("https://{}", one.addresses()[1]);
    let pinned = MeshTrust { name: Some(edge::pin(certificate.as_bytes()).unwrap()), ..MeshTrust::default() };
    let known = MeshTrust { roots: Some(certificate.into_bytes()), ..MeshTrust::default() };
    for (trust, links) in [(pinned, 1), (known, 1), (MeshTrust::default(), 0)] {
        let mut config = alone();
        config.mesh = vec![secure.parse().unwrap()];
        config.mesh_trust = trust;
        let two = Edge::start(config).unwrap();
        wait_until(|| {
            let counters = two.counters();
            counters.relay.links == links && (links == 1 || counters.link_failures > 0)
        });
        wait_until(|| {
            let problems = two.mesh_problems();
            let told = problems.get(&secure).is_some_and(|told| told.contains("--ca-file"));
            if links == 1 { problems.is_empty() } else { told }
        });
    }
}

#[test]
fn a_link_that_the_other_relay_does_not_want_is_told() {
    let one = Edge::start(alone()).unwrap();
    let mut config = alone();
    config.mesh_key = MeshKey::new("a secret of another region");
    config.mesh = vec![peer(&one)];
    let two = Edge::start(config).unwrap();
    let url = format!("http://{}", one.addresses()[0]);
    wait_until(|| two.mesh_problems().get(&url).is_some_and(|told| told.contains("the same mesh key")));
    two.set_mesh([]);
    assert!(two.mesh_problems().is_empty());
}

#[test]
fn unknown_clients_are_reported_and_announced_ones_stay() {
    let mut config = alone();
    config.require_announced = true;
    let edge = Edge::start(config).unwrap();
    let target = target(edge.addresses()[0], None);
    let key = NodePrivate::generate();
    let mut client = Dialled::connect(&target, &key);
    let Unannounced { key: seen, remote } = edge.next_unannounced(PATIENCE).unwrap();
    assert_eq!((seen, remote.ip()), (key.public(), "127.0.0.1".parse().unwrap()));
    assert_eq!(edge.next_unannounced(Duration::ZERO), None);
    let own = key.public();
    for _ in 0..200 {
        client.send(&own, b"flood");
    }
    wait_until(|| edge.counters().relay.dropped.unannounced > 0);
    edge.announce(vec![own]);
    edge.require_announced(true);
    let known = Dialled::connect(&target, &key);
    assert_eq!(edge.next_unannounced(Duration::ZERO), None);
    drop(known);
    edge.withdraw(vec![own]);
    assert_eq!(edge.next_unannounced(PATIENCE).map(|found| found.key), Some(own));
}

#[test]
fn a_problem_and_the_end_are_told_to_clients() {
    let edge = Edge::start(alone()).unwrap();
    let mut client = Dialled::connect(&target(edge.addresses()[0], None), &NodePrivate::generate());
    edge.set_health("no disk left");
    assert_eq!(client.next_problem(), "no disk left");
    edge.stop();
    assert!(client.next_restart() >= Duration::from_millis(250));
    client.closed();
}

#[test]
fn health_and_metrics_have_an_address_of_their_own() {
    let mut config = alone();
    config.listen_metrics = vec!["127.0.0.1:0".parse().unwrap()];
    let edge = Edge::start(config).unwrap();
    let get = |address, path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (public, private) = (edge.addresses()[0], edge.metrics_addresses()[0]);
    assert!(get(public, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(public, "/metrics").starts_with("HTTP/1.1 404 "));
    assert!(get(public, "/anything").contains("This is a relay."));
    assert!(get(private, "/healthz").ends_with("OK\n"));
    assert!(get(private, "/derp").starts_with("HTTP/1.1 404 "));
    let metrics = get(private, "/metrics");
    assert!(
        metrics.contains("# TYPE coder_edge_relay_clients gauge\ncoder_edge_relay_clients 0\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\n# TYPE coder_edge_requests_total counter\ncoder_edge_requests_total 6\n"),
        "{metrics}"
    );
}
