//! Two nodes, each with its own data thread, joined by UDP over loopback: Gbit/s and CPU-seconds per Gbit of a speed test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use node::{Answer, Engine, Event, NodeKeys, NodeSettings, Peer, PortUse, Request};
use speedtest::Direction;
use wire::derpmap::DerpMap;

struct End {
    engine: Engine,
    keys: NodeKeys,
    address: Ipv6Addr,
    endpoints: Vec<SocketAddr>,
}

impl End {
    fn new(last: u16) -> Self {
        let engine = Engine::start().unwrap();
        let address = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, last);
        let settings = NodeSettings {
            addresses: vec![address],
            ports: BTreeMap::from([(3, PortUse::Speedtest)]),
            default: PortUse::Refuse,
            listen_port: 0,
            block_direct: false,
            force_websockets: false,
            headers: Vec::new(),
            proxies: node::ProxyRules::default(),
            roots: node::TrustRoots::default(),
            identity: None,
        };
        let keys = engine.add_node(settings).unwrap();
        // A region nobody serves: the node has a home, and no relay.
        let map = r#"{"Regions":{"1":{"EmbeddedRelay":false,"RegionID":1,"RegionCode":"x","RegionName":"x","Nodes":[
            {"Name":"1a","RegionID":1,"HostName":"127.0.0.1","DERPPort":1,"STUNPort":-1,"ForceHTTP":true}]}}}"#;
        let map: DerpMap = serde_json::from_str(map).unwrap();
        engine.set_map(keys.id, map);
        let mut end = Self { engine, keys, address, endpoints: Vec::new() };
        while end.endpoints.is_empty() {
            for (_, event) in end.engine.events() {
                if let Event::SelfChanged { endpoints, .. } = event {
                    end.endpoints = endpoints;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        end
    }

    fn meet(&self, other: &End) {
        let peer = Peer {
            key: other.keys.node,
            disco: other.keys.disco,
            home: 1,
            endpoints: other.endpoints.clone(),
            addresses: vec![other.address],
            keepalive: true,
        };
        self.engine.set_peers(self.keys.id, vec![peer]);
    }

    fn wait(&self, request: u64) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            for (_, event) in self.engine.events() {
                match event {
                    Event::Done { request: of, answer } if of == request => return answer,
                    Event::PathChanged { path, .. } => println!("path {path:?}"),
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("no answer");
    }
}

fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn main() {
    let (a, b) = (End::new(1), End::new(2));
    println!("endpoints {:?}", b.endpoints);
    b.meet(&a);
    a.meet(&b);
    let started = Instant::now();
    println!(
        "reach {:?} after {:?}",
        a.wait(a.engine.request(a.keys.id, Request::Reach(b.address))),
        started.elapsed()
    );
    println!("ping {:?}", a.wait(a.engine.request(a.keys.id, Request::Ping(b.address))));
    for direction in [Direction::Down, Direction::Up, Direction::Down, Direction::Up] {
        let before = cpu();
        let request = Request::Speedtest {
            peer: SocketAddrV6::new(b.address, 3, 0, 0),
            duration: Duration::from_secs(4),
            direction,
        };
        match a.wait(a.engine.request(a.keys.id, request)) {
            Answer::Speedtest { total, .. } => {
                let gbit = total.megabits() / 1000.0;
                println!(
                    "{direction:?}: {:.2} Gbit/s, {:.3} CPU-s per Gbit, {:?}",
                    total.megabits_per_second() / 1000.0,
                    (cpu() - before) / gbit,
                    a.engine.stats(a.keys.id),
                );
            }
            other => println!("{direction:?}: {other:?}"),
        }
    }
}
