//! What the network says to a node: datagrams, relays that come and go, answers of other threads.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use paths::{Class, Socket};
use tunnel::PeerId;
use wire::keys::NodePublic;

use super::{Node, Scratch};
use crate::events::Event;
use crate::link::News;
use crate::reactor::{Interest, Reactor};
use crate::udp::Port;

/// Receives from one socket for one readiness.
const RECEIVES: usize = 4;

impl Node {
    pub(crate) fn dialled(
        &mut self,
        now: Instant,
        reactor: &Reactor,
        region: u16,
        generation: u64,
        result: Result<dial::Connected, dial::DialError>,
    ) {
        match self.outlet.relays.dialled(now, region, generation, result, reactor) {
            None => {}
            Some(Ok(websocket)) => {
                if let Some(reason) = websocket {
                    self.tell(Event::ForcedWebsocket { region, reason });
                }
                self.outlet.paths.relay_up(now, region);
                if self.troubled.remove(&region) {
                    self.tell(Event::RelayProblem { region, text: String::new() });
                }
                self.stack.kick(now);
            }
            Some(Err(text)) => self.relay_lost(now, region, text),
        }
    }

    pub(super) fn relay_lost(&mut self, now: Instant, region: u16, text: String) {
        self.outlet.paths.relay_down(now, region);
        self.troubled.insert(region);
        self.tell(Event::RelayProblem { region, text });
    }

    pub(crate) fn measured(&mut self, now: Instant, region: u16, measured: Option<dial::Measured>) {
        let v6 = measured.is_some_and(|measured| measured.peer.is_ipv6());
        self.outlet.paths.relay_latency(now, region, measured.map(|measured| measured.latency), v6);
    }

    pub(crate) fn portal(&mut self, found: bool) {
        self.outlet.paths.captive_portal(found);
    }

    pub(crate) fn resolved(&mut self, now: Instant, region: u16, addresses: Vec<SocketAddr>) {
        self.outlet.paths.stun_resolved(now, region, addresses);
    }

    pub(crate) fn udp_ready(&mut self, now: Instant, port: Port, interest: Interest, scratch: &mut Scratch) {
        if interest.write {
            self.outlet.writable(now);
        }
        if !interest.read {
            return;
        }
        for _ in 0..RECEIVES {
            let Some(udp) = self.outlet.socket(port) else { return };
            match udp.receive(&mut scratch.udp) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The error of an earlier send; it says nothing about what can be received.
                Err(_) => continue,
            }
            let mut proven: Option<(PeerId, SocketAddr)> = None;
            let socket = port.socket();
            scratch.udp.drain(|from, datagram| self.datagram(now, socket, from, datagram, &mut proven));
            if let Some((peer, from)) = proven
                && let Some(key) = self.tunnel.key(peer)
            {
                self.outlet.paths.note_received(now, &key, from);
                self.outlet.paths.note_session(now, &key);
            }
        }
    }

    fn datagram(
        &mut self,
        now: Instant,
        socket: Socket,
        from: SocketAddr,
        datagram: BytesMut,
        proven: &mut Option<(PeerId, SocketAddr)>,
    ) {
        match self.outlet.paths.handle_udp_by(now, socket, from, &datagram) {
            Class::Consumed => {}
            Class::Drop => self.refused += 1,
            Class::WireGuard(key) => {
                let peer = key.and_then(|key| self.tunnel.peer(&key));
                if let Some(sender) = self.decrypt(now, peer, datagram) {
                    *proven = Some((sender, from));
                }
            }
        }
    }

    /// Decrypts a datagram into the stack; answers its sender.
    fn decrypt(&mut self, now: Instant, from: Option<PeerId>, datagram: BytesMut) -> Option<PeerId> {
        self.received_packets += 1;
        self.received_bytes += datagram.len() as u64;
        let outlet = &mut self.outlet;
        let outcome =
            self.tunnel.handle(now, from, datagram, &mut |peer, reply| outlet.push(now, peer, reply));
        let mut decrypted = outcome.ok().flatten()?;
        self.stack.inject(now, decrypted.bytes_mut());
        Some(decrypted.peer)
    }

    pub(crate) fn relay_ready(&mut self, now: Instant, region: u16, scratch: &mut Scratch) {
        let mut packets: Vec<(NodePublic, BytesMut)> = Vec::new();
        let mut news: Vec<News> = Vec::new();
        let outcome = self.outlet.relays.receive(
            now,
            region,
            &mut scratch.relay,
            &mut |from, payload| packets.push((from, BytesMut::from(&*payload))),
            &mut |item| news.push(item),
        );
        let mut proven: Option<NodePublic> = None;
        for (from, packet) in packets {
            if self.relayed(now, region, from, packet) && proven.replace(from) != Some(from) {
                self.outlet.paths.note_session(now, &from);
            }
        }
        for item in news {
            match item {
                News::PeerGone(peer) => self.outlet.paths.relay_peer_gone(now, region, peer),
                News::Restarting(after) => {
                    self.outlet.paths.relay_restarting(now, region, after);
                    let text = format!("the relay restarts and is back in {:.1} s", after.as_secs_f64());
                    self.tell(Event::RelayProblem { region, text });
                }
                News::Health(text) => self.tell(Event::RelayProblem { region, text }),
            }
        }
        if let Err(text) = outcome {
            self.relay_lost(now, region, text);
        }
    }

    /// Answers whether it was a packet of the peer's session.
    fn relayed(&mut self, now: Instant, region: u16, from: NodePublic, packet: BytesMut) -> bool {
        match self.outlet.paths.handle_relayed(now, region, from, &packet) {
            Class::Consumed => false,
            Class::Drop => {
                self.refused += 1;
                false
            }
            Class::WireGuard(key) => {
                let peer = key.and_then(|key| self.tunnel.peer(&key));
                self.decrypt(now, peer, packet).is_some()
            }
        }
    }

    pub(crate) fn stream_ready(&mut self, now: Instant, reactor: &Reactor, token: u32, hung_up: bool) {
        self.with_streams(now, reactor, |streams, cx| streams.ready(cx, token, hung_up));
    }

    pub(crate) fn service_ready(&mut self, now: Instant, reactor: &Reactor, index: u32) {
        self.with_streams(now, reactor, |streams, cx| streams.service_ready(cx, index));
    }

    pub(crate) fn datagrams_ready(&mut self, now: Instant, index: u32) {
        self.datagrams.ready(now, index, &mut self.stack);
    }

    pub(crate) fn callers_ready(&mut self, now: Instant, index: u32) {
        self.callers.ready(now, index, &mut self.stack);
    }
}
