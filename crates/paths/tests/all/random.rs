//! Whatever comes, in whatever order: no panic, no endless queue, no busy loop.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use paths::{Local, Output};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::disco::Message;
use wire::stun;

use crate::alone::{Alone, Puppet};
use crate::world::{map_of, ms, relay_region, stun_region};

/// Outputs one input may cause: a ping per endpoint of each of three peers, and some more.
const MAX_OUTPUTS: usize = 3 * 220 + 200;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Late(u64),
    Route(u8),
    Received(u8, SocketAddr),
    Ping(u8),
    Noise(SocketAddr, Vec<u8>),
    NoiseRelayed(u16, u8, Vec<u8>),
    Say(u8, SocketAddr, Say),
    SayRelayed(u8, u16, Say),
    AnswerAll,
    RelayUp(u16),
    RelayDown(u16),
    PeerGone(u16, u8),
    Latency(u16, Option<u64>),
    Resolved(u16, Vec<SocketAddr>),
    Map(Vec<u16>),
    Peers(Vec<(u8, u8, u16, Vec<SocketAddr>)>),
    Local(Vec<IpAddr>, Option<u16>, Option<u16>),
    Block(bool),
    Failed(SocketAddr),
    NetworkChanged,
}

#[derive(Clone, Debug)]
enum Say {
    Ping(u8),
    Pong(u8),
    Call(Vec<SocketAddr>),
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (0u8..4, 0u16..4).prop_map(|(host, port)| SocketAddr::new([192, 0, 2, host].into(), port));
    let any = any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port));
    prop_oneof![4 => v4, 1 => any]
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        any::<u8>().prop_map(Say::Ping),
        any::<u8>().prop_map(Say::Pong),
        vec(address(), 0..150).prop_map(Say::Call),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, region) = (2u8..6, 0u16..5);
    let record = (peer.clone(), 2u8..6, region.clone(), vec(address(), 0..6));
    prop_oneof![
        6 => (0u64..8000).prop_map(Step::Pass),
        1 => (0u64..400_000).prop_map(Step::Late),
        6 => peer.clone().prop_map(Step::Route),
        2 => (peer.clone(), address()).prop_map(|(p, a)| Step::Received(p, a)),
        2 => peer.clone().prop_map(Step::Ping),
        1 => (address(), vec(any::<u8>(), 0..200)).prop_map(|(a, b)| Step::Noise(a, b)),
        1 => (region.clone(), peer.clone(), vec(any::<u8>(), 0..200)).prop_map(|(r, p, b)| Step::NoiseRelayed(r, p, b)),
        6 => (peer.clone(), address(), say()).prop_map(|(p, a, s)| Step::Say(p, a, s)),
        4 => (peer.clone(), region.clone(), say()).prop_map(|(p, r, s)| Step::SayRelayed(p, r, s)),
        6 => Just(Step::AnswerAll),
        2 => region.clone().prop_map(Step::RelayUp),
        2 => region.clone().prop_map(Step::RelayDown),
        1 => (region.clone(), peer.clone()).prop_map(|(r, p)| Step::PeerGone(r, p)),
        2 => (region.clone(), proptest::option::of(0u64..3000)).prop_map(|(r, l)| Step::Latency(r, l)),
        1 => (region.clone(), vec(address(), 0..20)).prop_map(|(r, a)| Step::Resolved(r, a)),
        1 => vec(region, 0..5).prop_map(Step::Map),
        2 => vec(record, 0..4).prop_map(Step::Peers),
        1 => (vec(any::<IpAddr>(), 0..5), any::<Option<u16>>(), any::<Option<u16>>()).prop_map(|(a, p, q)| Step::Local(a, p, q)),
        1 => any::<bool>().prop_map(Step::Block),
        1 => address().prop_map(Step::Failed),
        1 => Just(Step::NetworkChanged),
    ]
}

struct Run {
    alone: Alone,
    puppets: Vec<Puppet>,
    last: Vec<Output>,
}

impl Run {
    fn drain(&mut self) {
        let outputs = self.alone.drain();
        assert!(outputs.len() <= MAX_OUTPUTS, "{} outputs", outputs.len());
        assert!(self.alone.paths.poll().is_none());
        self.last = outputs;
    }

    fn message(&self, peer: u8, say: &Say) -> Vec<u8> {
        let puppet = &self.puppets[usize::from(peer - 2)];
        match say {
            Say::Ping(tx) => puppet.ping(*tx),
            Say::Pong(tx) => puppet.pong([*tx; 12]),
            Say::Call(endpoints) => puppet.say(&Message::CallMeMaybe { endpoints: endpoints.clone() }),
        }
    }

    /// Answers every ping and STUN request of the last outputs, so that runs get into the states behind them.
    fn answer_all(&mut self) {
        let now = self.alone.now;
        for output in std::mem::take(&mut self.last) {
            for puppet in &self.puppets {
                let (Output::Udp { to, .. }, Some((_, Message::Ping { tx, .. }))) =
                    (&output, puppet.read(&output))
                else {
                    continue;
                };
                self.alone.paths.handle_udp(now, *to, &puppet.pong(tx));
            }
            if let Output::Udp { to, bytes, .. } = &output
                && let Ok(tx) = stun::parse_request(bytes)
            {
                self.alone.paths.handle_udp(
                    now,
                    *to,
                    &stun::response(tx, SocketAddr::new([9, 9, 9, 9].into(), to.port())),
                );
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let now = self.alone.now;
        let key = |number: &u8| crate::world::node_key(*number);
        match step {
            Step::Pass(millis) => {
                self.alone.pass(ms(*millis));
            }
            Step::Late(millis) => {
                self.alone.now += ms(*millis);
                let now = self.alone.now;
                self.alone.paths.handle_timeout(now);
                assert!(self.alone.paths.next_timeout().is_none_or(|next| next > now));
            }
            Step::Route(peer) => _ = self.alone.paths.route(now, &key(peer)),
            Step::Received(peer, from) => self.alone.paths.note_received(now, &key(peer), *from),
            Step::Ping(peer) => self.alone.paths.ping(now, &key(peer), u64::from(*peer)),
            Step::Noise(from, bytes) => _ = self.alone.paths.handle_udp(now, *from, bytes),
            Step::NoiseRelayed(region, peer, bytes) => {
                self.alone.paths.handle_relayed(now, *region, key(peer), bytes);
            }
            Step::Say(peer, from, say) => {
                let packet = self.message(*peer, say);
                self.alone.paths.handle_udp(now, *from, &packet);
            }
            Step::SayRelayed(peer, region, say) => {
                let packet = self.message(*peer, say);
                self.alone.paths.handle_relayed(now, *region, key(peer), &packet);
            }
            Step::AnswerAll => self.answer_all(),
            Step::RelayUp(region) => self.alone.paths.relay_up(now, *region),
            Step::RelayDown(region) => self.alone.paths.relay_down(now, *region),
            Step::PeerGone(region, peer) => self.alone.paths.relay_peer_gone(now, *region, key(peer)),
            Step::Latency(region, latency) => {
                self.alone.paths.relay_latency(now, *region, latency.map(ms), false)
            }
            Step::Resolved(region, addrs) => self.alone.paths.stun_resolved(now, *region, addrs.clone()),
            Step::Map(regions) => {
                let servers = regions
                    .iter()
                    .map(|id| stun_region(id + 10, SocketAddr::new([192, 0, 2, 50].into(), *id)));
                let map = map_of(regions.iter().map(|id| relay_region(*id)).chain(servers));
                self.alone.paths.set_map(now, map);
            }
            Step::Peers(records) => {
                let record = |(key, disco, home, endpoints): &(u8, u8, u16, Vec<SocketAddr>)| {
                    let mut record = self.puppets[usize::from(disco - 2)].record(*home, &[]);
                    record.key = crate::world::node_key(*key);
                    record.endpoints.clone_from(endpoints);
                    record
                };
                let records: Vec<_> = records.iter().map(record).collect();
                self.alone.paths.set_peers(now, &records);
            }
            Step::Local(addresses, port_v4, port_v6) => {
                let local = Local { addresses: addresses.clone(), port_v4: *port_v4, port_v6: *port_v6 };
                self.alone.paths.set_local(now, local);
            }
            Step::Block(block) => self.alone.paths.set_block_direct(now, *block),
            Step::Failed(to) => self.alone.paths.udp_failed(now, *to),
            Step::NetworkChanged => self.alone.paths.network_changed(now),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_input_is_survived(steps in vec(step(), 1..60)) {
        let mut alone = Alone::with_socket();
        alone.set_map(map_of([relay_region(1), relay_region(2)]));
        let puppets: Vec<Puppet> = (2..6).map(Puppet::new).collect();
        let records: Vec<_> = puppets.iter().take(3).map(|p| p.record(1, &["192.0.2.1:1", "192.0.2.2:2"])).collect();
        alone.paths.set_peers(alone.now, &records);
        let mut run = Run { alone, puppets, last: Vec::new() };
        for step in &steps {
            run.step(step);
            run.drain();
        }
        // Left alone it falls asleep: sessions end, pings time out, nothing wakes it again.
        run.alone.pass(Duration::from_secs(400));
        let wakes = (0..50).map_while(|_| {
            let at = run.alone.paths.next_timeout()?;
            run.alone.now = at;
            run.alone.paths.handle_timeout(at);
            run.alone.drain();
            Some(())
        });
        prop_assert_eq!(wakes.count(), 0);
    }
}
