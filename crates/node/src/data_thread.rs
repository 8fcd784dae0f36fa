//! The one thread that moves bytes: it waits for readiness or a timer, and lets every node that is concerned run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::engine::Mailbox;
use crate::events::{Event, Events, NodeId};
use crate::interfaces::{self, Network};
use crate::local::{Node, Scratch};
use crate::reactor::{Interest, Reactor, Ready, Source};
use crate::relays::READ_SIZE;
use crate::sleep::Sleep;
use crate::udp::Batch;

/// Addresses come and go in bursts; they are read once the burst is over.
const SETTLE: Duration = Duration::from_millis(100);

/// Starts the thread.
pub(crate) fn spawn(
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    mailbox: Mailbox,
    events: Arc<Events>,
) -> io::Result<JoinHandle<()>> {
    let reactor = Reactor::new()?;
    reactor.add(&*wake, Source::Wake, Interest::READ)?;
    let interfaces = interfaces::watch().ok();
    if let Some(socket) = &interfaces {
        reactor.add(socket, Source::Interfaces, Interest::READ)?;
    }
    let data_thread = DataThread {
        inbox,
        wake,
        _mailbox: mailbox,
        reactor,
        interfaces,
        network: Network::now(),
        network_due: None,
        removed: Vec::new(),
        sleep: Sleep::new(),
        nodes: BTreeMap::new(),
        scratch: Scratch { udp: Batch::new(), relay: vec![0; READ_SIZE] },
    };
    thread::Builder::new().name("coder-data".into()).spawn(move || {
        let mut data_thread = data_thread;
        let outcome = catch_unwind(AssertUnwindSafe(|| data_thread.run()));
        let text = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the data thread met a defect of its own".into(),
        };
        events.push(0, Event::Failed { text });
    })
}

struct DataThread {
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    /// Keeps the inbox open for the threads that dial.
    _mailbox: Mailbox,
    reactor: Reactor,
    interfaces: Option<OwnedFd>,
    network: Network,
    /// When to look at the network again.
    network_due: Option<Instant>,
    /// Addresses taken away since then, some perhaps only for a moment.
    removed: Vec<IpAddr>,
    sleep: Sleep,
    nodes: BTreeMap<NodeId, Node>,
    scratch: Scratch,
}

impl DataThread {
    fn run(&mut self) -> io::Result<()> {
        let mut ready: Vec<Ready> = Vec::new();
        let mut active: BTreeSet<NodeId> = BTreeSet::new();
        loop {
            let before = Instant::now();
            let limit = self.limit(before);
            ready.clear();
            self.reactor.wait(limit, &mut ready)?;
            let now = Instant::now();
            let slept = self.sleep.happened(before, limit, now);
            for item in &ready {
                match item.source {
                    Source::Wake => {
                        if !self.commands(now, &mut active) {
                            return Ok(());
                        }
                    }
                    Source::Interfaces => {
                        self.removed.extend(self.interfaces.iter().flat_map(interfaces::removed));
                        self.network_due.get_or_insert(now + SETTLE);
                    }
                    _ => self.dispatch(now, item, &mut active),
                }
            }
            if slept || self.network_due.is_some_and(|at| at <= now) {
                self.look_at_network(now, slept);
                active.extend(self.nodes.keys());
            }
            for (id, node) in &mut self.nodes {
                if active.contains(id) || node.next_timeout(now).is_some_and(|at| at <= now) {
                    node.run(now, &self.reactor);
                }
            }
            active.clear();
        }
    }

    /// Tells the nodes whether the network is another one; it counts as one after a sleep.
    fn look_at_network(&mut self, now: Instant, slept: bool) {
        self.network_due = None;
        let network = Network::now();
        let removed = std::mem::take(&mut self.removed);
        let changed = slept || !removed.is_empty() || network != self.network;
        self.network = network;
        for node in self.nodes.values_mut() {
            if changed {
                node.network_changed(now, &self.network, &removed);
            } else {
                node.network_stirred(now);
            }
        }
    }

    fn limit(&mut self, now: Instant) -> Option<Duration> {
        let nodes = self.nodes.values_mut().filter_map(|node| node.next_timeout(now));
        nodes.chain(self.network_due).min().map(|at| at.saturating_duration_since(now))
    }

    fn dispatch(&mut self, now: Instant, item: &Ready, active: &mut BTreeSet<NodeId>) {
        let id = match item.source {
            Source::Udp(node, _)
            | Source::Relay(node, _)
            | Source::Stream(node, _)
            | Source::Service(node, _)
            | Source::Datagrams(node, _)
            | Source::Callers(node, _) => node,
            Source::Wake | Source::Interfaces => return,
        };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        active.insert(id);
        match item.source {
            Source::Udp(_, port) => {
                let interest = Interest { read: item.interest.read || item.hung_up, ..item.interest };
                node.udp_ready(now, port, interest, &mut self.scratch);
            }
            Source::Relay(_, region) => {
                if item.interest.read || item.hung_up {
                    node.relay_ready(now, region, &mut self.scratch);
                }
            }
            Source::Stream(_, token) => node.stream_ready(now, &self.reactor, token, item.hung_up),
            Source::Service(_, index) => node.service_ready(now, &self.reactor, index),
            Source::Datagrams(_, index) => node.datagrams_ready(now, index),
            Source::Callers(_, index) => node.callers_ready(now, index),
            Source::Wake | Source::Interfaces => {}
        }
    }

    /// Carries out what was asked; false when it was to stop.
    fn commands(&mut self, now: Instant, active: &mut BTreeSet<NodeId>) -> bool {
        let mut buffer = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut buffer);
        loop {
            let command = match self.inbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            if matches!(command, Command::Stop) {
                for node in std::mem::take(&mut self.nodes).into_values() {
                    node.close(now, &self.reactor);
                }
                return false;
            }
            if let Some(id) = self.carry_out(now, command) {
                active.insert(id);
            }
        }
    }

    fn carry_out(&mut self, now: Instant, command: Command) -> Option<NodeId> {
        let reactor = &self.reactor;
        let mut on = |id: NodeId, act: &mut dyn FnMut(&mut Node)| {
            let node = self.nodes.get_mut(&id)?;
            act(node);
            Some(id)
        };
        match command {
            Command::Add(mut node) => {
                let id = node.id();
                node.enter(now, reactor, &self.network);
                self.nodes.insert(id, *node);
                Some(id)
            }
            Command::Remove(id) => {
                self.nodes.remove(&id)?.close(now, reactor);
                None
            }
            Command::SetMap(id, map) => on(id, &mut |node| node.set_map(now, map.clone())),
            Command::SetPeers(id, peers) => on(id, &mut |node| node.set_peers(now, reactor, peers.clone())),
            Command::SetBlockDirect(id, block) => on(id, &mut |node| node.set_block_direct(now, block)),
            Command::SetForceWebsockets(id, force) => on(id, &mut |node| node.set_force_websockets(force)),
            Command::SetMapped(id, mapped) => on(id, &mut |node| node.set_mapped(now, &mapped)),
            Command::Request(id, request, what) => {
                let node = self.nodes.get_mut(&id)?;
                node.request(now, reactor, request, what);
                Some(id)
            }
            Command::Cancel(id, request) => on(id, &mut |node| node.cancel(now, reactor, request)),
            Command::DatagramCounts(id, request, reply) => {
                on(id, &mut |node| node.datagram_counts(request, &reply))
            }
            Command::Stats(id, reply) => on(id, &mut |node| node.stats(&reply)),
            Command::LastHandshake(id, peer, reply) => on(id, &mut |node| node.last_handshake(&peer, &reply)),
            Command::UdpPorts(id, reply) => on(id, &mut |node| node.udp_ports(&reply)),
            Command::PeerPaths(id, peer, reply) => on(id, &mut |node| node.peer_paths(now, &peer, &reply)),
            Command::Dialled(id, region, generation, result) => {
                let node = self.nodes.get_mut(&id)?;
                node.dialled(now, reactor, region, generation, result);
                Some(id)
            }
            Command::Measured(id, region, latency) => on(id, &mut |node| node.measured(now, region, latency)),
            Command::Portal(id, found) => on(id, &mut |node| node.portal(found)),
            Command::Resolved(id, region, addresses) => {
                on(id, &mut |node| node.resolved(now, region, addresses.clone()))
            }
            Command::Stop => None,
        }
    }
}
