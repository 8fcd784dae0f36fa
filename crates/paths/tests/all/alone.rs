//! One node alone, its timers always on time, and peers made by hand.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use paths::{Config, Local, Output, Path, Paths, PeerRecord};
use wire::derpmap::DerpMap;
use wire::disco::{self, Message, TxId};
use wire::keys::{DiscoPublic, NodePublic, SharedBox};
use wire::stun;

use crate::world::{disco_private, ms, node_key};

/// The node under test, and its clock.
pub struct Alone {
    pub paths: Paths,
    pub start: Instant,
    pub now: Instant,
}

impl Alone {
    pub fn new() -> Self {
        let start = Instant::now();
        let config = Config { disco: disco_private(1), node: node_key(1), seed: 3, block_direct: false };
        Self { paths: Paths::new(config, start), start, now: start }
    }

    pub fn with_socket() -> Self {
        let mut alone = Self::new();
        let addresses = vec!["10.0.0.2".parse().unwrap()];
        alone.paths.set_local(alone.now, Local { addresses, port_v4: Some(41641), port_v6: None });
        alone.drain();
        alone
    }

    pub fn set_map(&mut self, map: DerpMap) -> Vec<Output> {
        self.paths.set_map(self.now, map);
        self.drain()
    }

    pub fn latency(&mut self, region: u16, millis: u64) -> Vec<Output> {
        self.paths.relay_latency(self.now, region, Some(ms(millis)), false);
        self.drain()
    }

    pub fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.paths.poll()).collect()
    }

    /// Lets `time` pass with every timer on time; what came out, and when.
    pub fn pass(&mut self, time: Duration) -> Vec<(Duration, Output)> {
        let until = self.now + time;
        let mut all = Vec::new();
        while let Some(at) = self.paths.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.paths.handle_timeout(self.now);
            assert!(self.paths.next_timeout().is_none_or(|next| next > self.now));
            let at = self.now - self.start;
            all.extend(self.drain().into_iter().map(|output| (at, output)));
        }
        self.now = until;
        all
    }

    pub fn answer(&mut self, request: &[u8], seen: &str) -> Vec<Output> {
        let response = stun::response(stun::parse_request(request).unwrap(), seen.parse().unwrap());
        self.paths.handle_udp(self.now, "192.0.2.1:3478".parse().unwrap(), &response);
        self.drain()
    }
}

/// A peer whose packets are made by hand.
pub struct Puppet {
    pub node: NodePublic,
    pub disco: DiscoPublic,
    shared: SharedBox,
    nonce: Cell<u64>,
}

impl Puppet {
    pub fn new(number: u8) -> Self {
        let private = disco_private(number);
        let disco = private.public();
        let shared = SharedBox::new(&private, &disco_private(1).public());
        Self { node: node_key(number), disco, shared, nonce: Cell::new(0) }
    }

    pub fn record(&self, home: u16, endpoints: &[&str]) -> PeerRecord {
        let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
        PeerRecord { key: self.node, disco: self.disco, home, endpoints }
    }

    pub fn say(&self, message: &Message) -> Vec<u8> {
        self.nonce.set(self.nonce.get() + 1);
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&self.nonce.get().to_le_bytes());
        disco::seal(&self.disco, &self.shared, nonce, message)
    }

    pub fn ping(&self, tx: u8) -> Vec<u8> {
        self.say(&Message::ping([tx; 12], self.node))
    }

    pub fn pong(&self, tx: TxId) -> Vec<u8> {
        self.say(&Message::pong(tx, "203.0.113.1:1".parse().unwrap()))
    }

    /// What the node said to us in this output.
    pub fn read(&self, output: &Output) -> Option<(Path, Message)> {
        match output {
            Output::Udp { to, bytes, .. } => {
                Some((Path::Direct(*to), disco::open(&self.shared, bytes).ok()?))
            }
            Output::Relay { region, to, bytes } if *to == self.node => {
                Some((Path::Relay(*region), disco::open(&self.shared, bytes).ok()?))
            }
            _ => None,
        }
    }

    /// Pings in these outputs: by which way, with which transaction.
    pub fn pings(&self, outputs: &[Output]) -> Vec<(Path, TxId)> {
        let said = outputs.iter().filter_map(|output| self.read(output));
        said.filter_map(|(path, message)| match message {
            Message::Ping { tx, .. } => Some((path, tx)),
            _ => None,
        })
        .collect()
    }

    pub fn pongs(&self, outputs: &[Output]) -> Vec<(Path, TxId, SocketAddr)> {
        let said = outputs.iter().filter_map(|output| self.read(output));
        said.filter_map(|(path, message)| match message {
            Message::Pong { tx, source, .. } => Some((path, tx, source)),
            _ => None,
        })
        .collect()
    }

    pub fn calls(&self, outputs: &[Output]) -> Vec<Vec<SocketAddr>> {
        let said = outputs.iter().filter_map(|output| self.read(output));
        said.filter_map(|(_, message)| match message {
            Message::CallMeMaybe { endpoints } => Some(endpoints),
            _ => None,
        })
        .collect()
    }
}

/// Every output without its time.
pub fn plain(timed: &[(Duration, Output)]) -> Vec<Output> {
    timed.iter().map(|(_, output)| output.clone()).collect()
}
