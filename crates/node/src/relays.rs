//! The node's relay connections: one per region, dialled on threads of their own, driven by the data thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use dial::{Connected, Deadline, DialError, Identity, ProxyRules, Target, TrustRoots};
use relay::{ClientOptions, ClientSession};
use wire::derpmap::DerpMap;
use wire::keys::{NodePrivate, NodePublic};

use crate::command::Command;
use crate::dialling::Dialling;
use crate::engine::Mailbox;
use crate::events::NodeId;
use crate::link::{News, Up};
use crate::reactor::{Interest, Reactor, Source};

/// DNS, TCP, TLS, HTTP and the greeting together (DERP clients' usual limit).
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// One latency measurement.
const MEASURE_LIMIT: Duration = Duration::from_secs(3);
/// Asking whether something else answers in a relay's place.
const PORTAL_LIMIT: Duration = Duration::from_millis(1500);
/// Packets kept while a connection is being made; the first handshake must not be lost.
const WAITING_LIMIT: usize = 64;
/// Bytes that wait for the socket before the stack is asked to pause.
pub(crate) const CONGESTED: usize = 256 << 10;
/// Bytes that wait before packets are dropped.
const OVERFULL: usize = 2 << 20;
/// One receive.
pub(crate) const READ_SIZE: usize = 256 << 10;

/// How relays are reached.
#[derive(Clone, Default)]
pub(crate) struct How {
    pub(crate) force_websocket: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) proxies: ProxyRules,
    pub(crate) roots: TrustRoots,
    pub(crate) identity: Option<Identity>,
}

enum Link {
    Dialling(Dialling),
    Up(Box<Up>),
}

/// All connections of a node.
pub(crate) struct Relays {
    node: NodeId,
    private: NodePrivate,
    mailbox: Mailbox,
    how: How,
    map: DerpMap,
    links: BTreeMap<u16, Link>,
    homes: BTreeMap<u16, bool>,
    /// Regions that refused the plain upgrade: they are dialled by WebSocket from then on.
    websocket: BTreeSet<u16>,
    generation: u64,
    pub(crate) dropped: u64,
}

impl Relays {
    pub(crate) fn new(node: NodeId, private: NodePrivate, mailbox: Mailbox, how: How) -> Self {
        Self {
            node,
            private,
            mailbox,
            how,
            map: DerpMap::default(),
            links: BTreeMap::new(),
            homes: BTreeMap::new(),
            websocket: BTreeSet::new(),
            generation: 0,
            dropped: 0,
        }
    }

    pub(crate) fn set_map(&mut self, map: DerpMap) {
        self.map = map;
    }

    pub(crate) fn set_force_websocket(&mut self, force: bool) {
        self.how.force_websocket = force;
    }

    fn target(&self, region: u16) -> Option<Target> {
        let force_websocket = self.how.force_websocket || self.websocket.contains(&region);
        let region = self.map.regions.get(&region)?.clone();
        Some(Target {
            region,
            headers: self.how.headers.clone(),
            force_websocket,
            roots: self.how.roots.clone(),
            identity: self.how.identity.clone(),
            proxies: self.how.proxies.clone(),
            prefer_v6: false,
            fast_start: true,
        })
    }

    /// Dials a region; the answer arrives as [`Command::Dialled`].
    pub(crate) fn open(&mut self, now: Instant, region: u16) {
        if !self.links.contains_key(&region) {
            self.dial(region, Dialling::new(now, VecDeque::new()));
        }
    }

    /// Begins one attempt more.
    fn dial(&mut self, region: u16, mut dialling: Dialling) {
        let Some(target) = self.target(region) else { return };
        self.generation += 1;
        let (node, generation, mailbox) = (self.node, self.generation, self.mailbox.clone());
        let begun = thread::Builder::new().name("coder-dial".into()).spawn(move || {
            let result = dial::relay(&target, Deadline::after(DIAL_LIMIT));
            mailbox.send(Command::Dialled(node, region, generation, result));
        });
        dialling.begun(begun.is_ok().then_some(generation));
        if !dialling.is_over() {
            self.links.insert(region, Link::Dialling(dialling));
        }
    }

    /// Measures a region's latency; the answer arrives as [`Command::Measured`].
    pub(crate) fn measure(&self, region: u16) {
        let Some(target) = self.target(region) else { return };
        let (node, mailbox) = (self.node, self.mailbox.clone());
        let _ = thread::Builder::new().name("coder-measure".into()).spawn(move || {
            let measured = dial::latency(&target, Deadline::after(MEASURE_LIMIT)).ok();
            if measured.is_none()
                && let Some(portal) = dial::captive_portal(&target, Deadline::after(PORTAL_LIMIT))
            {
                mailbox.send(Command::Portal(node, portal));
            }
            mailbox.send(Command::Measured(node, region, measured));
        });
    }

    /// This machine's addresses are others now, or it slept. Connections whose own address is gone are closed and answered
    /// with the reason; attempts are begun anew; the rest must show that they live.
    pub(crate) fn network_changed(
        &mut self,
        now: Instant,
        addresses: &[IpAddr],
        removed: &[IpAddr],
    ) -> Vec<(u16, String)> {
        self.websocket.clear();
        let mut lost = Vec::new();
        let mut again = Vec::new();
        for (region, link) in &mut self.links {
            match link {
                Link::Dialling(dialling) => again.push((*region, std::mem::take(&mut dialling.waiting))),
                Link::Up(up) if up.is_stranded(addresses, removed) => {
                    lost.push((
                        *region,
                        "this machine no longer sends from the connection's address".to_owned(),
                    ));
                }
                Link::Up(up) => up.probe(now),
            }
        }
        for (region, waiting) in again {
            self.links.remove(&region);
            self.dial(region, Dialling::new(now, waiting));
        }
        for (region, _) in &lost {
            self.links.remove(region);
        }
        lost
    }

    /// Hangs up.
    pub(crate) fn close(&mut self, region: u16) {
        self.links.remove(&region);
    }

    /// Takes a dialled connection into service. Answers whether it was waited for, and why it needs WebSocket, if so.
    pub(crate) fn dialled(
        &mut self,
        now: Instant,
        region: u16,
        generation: u64,
        result: Result<Connected, DialError>,
        reactor: &Reactor,
    ) -> Option<Result<Option<String>, String>> {
        let waiting = match self.links.get_mut(&region) {
            Some(Link::Dialling(dialling)) => {
                if !dialling.ended(generation) {
                    return None;
                }
                if result.is_err() && !dialling.is_over() {
                    return None;
                }
                std::mem::take(&mut dialling.waiting)
            }
            _ => return None,
        };
        let connected = match result {
            Ok(connected) => connected,
            Err(error) => {
                self.links.remove(&region);
                return Some(Err(error.to_string()));
            }
        };
        let Connected { stream, mut leftover, server_key, websocket, .. } = connected;
        if websocket.is_some() {
            self.websocket.insert(region);
        }
        let home = self.homes.get(&region).copied().unwrap_or(false);
        let options = ClientOptions { home, mesh_key: None, watch: false, server_key };
        let session = ClientSession::new(now, self.private.clone(), options);
        let interest = Interest::READ;
        if let Err(error) = reactor.add(stream.as_fd(), Source::Relay(self.node, region), interest) {
            self.links.remove(&region);
            return Some(Err(error.to_string()));
        }
        let mut up = Up::new(stream, session, waiting, interest);
        up.session.start(&mut up.out);
        // The greeting may have come with the answer and be inside the stream already.
        let outcome = up
            .feed(now, &mut leftover, &mut |_, _| {}, &mut |_| {})
            .map_err(|error| error.to_string())
            .and_then(|()| up.receive(now, &mut [0; 4096], &mut |_, _| {}, &mut |_| {}));
        if let Err(reason) = outcome {
            self.links.remove(&region);
            return Some(Err(reason));
        }
        self.links.insert(region, Link::Up(Box::new(up)));
        Some(Ok(websocket))
    }

    /// Tells a relay whether it is home, now or as soon as it is connected.
    pub(crate) fn prefer(&mut self, region: u16, home: bool) {
        self.homes.insert(region, home);
        if let Some(Link::Up(up)) = self.links.get_mut(&region)
            && up.session.can_send()
        {
            up.session.note_preferred(home, &mut up.out);
        }
    }

    /// Appends a packet for the region's relay; it leaves with the next [`Relays::flush`].
    pub(crate) fn send(&mut self, now: Instant, region: u16, to: &NodePublic, packet: &[u8]) {
        match self.links.get_mut(&region) {
            Some(Link::Up(up)) if up.session.can_send() => {
                if up.unsent() > OVERFULL || up.session.send(to, packet, &mut up.out).is_err() {
                    self.dropped += 1;
                }
                up.note_send(now);
            }
            Some(Link::Up(up)) => keep(up.waiting(), to, packet, &mut self.dropped),
            Some(Link::Dialling(dialling)) => keep(&mut dialling.waiting, to, packet, &mut self.dropped),
            None => self.dropped += 1,
        }
    }

    /// Whether the stack should pause packets that go this way.
    pub(crate) fn congested(&self, region: u16) -> bool {
        match self.links.get(&region) {
            Some(Link::Up(up)) => up.unsent() > CONGESTED,
            Some(Link::Dialling(dialling)) => dialling.waiting.len() >= WAITING_LIMIT,
            None => false,
        }
    }

    /// Reads what came. `packet` gets each packet with its sender; the bytes may be changed in place.
    ///
    /// # Errors
    /// One line that says why the connection is over. It is closed then.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        region: u16,
        buffer: &mut [u8],
        packet: &mut impl FnMut(NodePublic, &mut [u8]),
        news: &mut impl FnMut(News),
    ) -> Result<(), String> {
        let Some(Link::Up(up)) = self.links.get_mut(&region) else { return Ok(()) };
        let outcome = up.receive(now, buffer, packet, news);
        if outcome.is_err() {
            self.links.remove(&region);
        }
        outcome
    }

    /// Writes what the sockets take. Answers the regions whose connection is over, with the reason.
    pub(crate) fn flush(&mut self, reactor: &Reactor) -> Vec<(u16, String)> {
        let mut lost = Vec::new();
        for (region, link) in &mut self.links {
            let Link::Up(up) = link else { continue };
            if let Err(error) = up.flush() {
                lost.push((*region, error.to_string()));
                continue;
            }
            let blocked = up.unsent() > 0 || up.stream.wants_write();
            let interest = Interest { read: true, write: blocked };
            if interest != up.interest {
                up.interest = interest;
                reactor.set(up.stream.as_fd(), Source::Relay(self.node, *region), interest);
            }
        }
        for (region, _) in &lost {
            self.links.remove(region);
        }
        lost
    }

    /// When a silent connection is given up, or a slow attempt gets company.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.links
            .values()
            .filter_map(|link| match link {
                Link::Up(up) => Some(up.next_timeout()),
                Link::Dialling(dialling) => dialling.next(),
            })
            .min()
    }

    /// Gives slow attempts company and closes connections that were silent for too long; answers their regions with the reason.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<(u16, String)> {
        let mut lost = Vec::new();
        let mut slow = Vec::new();
        for (region, link) in &mut self.links {
            match link {
                Link::Up(up) => lost.extend(up.handle_timeout(now).err().map(|reason| (*region, reason))),
                Link::Dialling(dialling) if dialling.next().is_some_and(|at| at <= now) => slow.push(*region),
                Link::Dialling(_) => {}
            }
        }
        for region in slow {
            if let Some(Link::Dialling(dialling)) = self.links.remove(&region) {
                self.dial(region, dialling);
            }
        }
        for (region, _) in &lost {
            self.links.remove(region);
        }
        lost
    }
}

fn keep(waiting: &mut VecDeque<(NodePublic, Vec<u8>)>, to: &NodePublic, packet: &[u8], dropped: &mut u64) {
    if waiting.len() < WAITING_LIMIT {
        waiting.push_back((*to, packet.to_vec()));
    } else {
        *dropped += 1;
    }
}
