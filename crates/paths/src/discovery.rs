//! What we say to find and keep a direct path: pings, call-me-maybes, heartbeats.
//!
//! Discovery pings every endpoint of the peer and asks it, through the relay, to do the same. Our pings open our own NAT
//! for its pings, and the other way round; whichever arrives teaches its receiver an address that works.

use std::time::Duration;

use wire::disco::{Message, TxId};

use crate::config::{
    CALL_BURST, CALL_EVERY, CALL_PATIENCE, GOOD_ENOUGH, HEARTBEAT, MAX_PINGS, MAX_USER_PINGS, PING_GAP,
    PING_TIMEOUT, UPGRADE,
};
use crate::output::{Event, Output, Path, Socket};
use crate::peer::{Around, Peer, Purpose, Sent};
use crate::sockets::OWN;

impl Peer {
    /// Pings every endpoint that was not pinged of late, and if there was one, calls the peer. With `urge`, because a path just
    /// died, everything is pinged and the peer called in any case.
    pub(crate) fn discover(&mut self, around: &mut Around<'_>, urge: bool) {
        if around.block_direct {
            return;
        }
        self.last_discovery = Some(around.now);
        let pinged = self.ping_endpoints(around, if urge { Duration::ZERO } else { PING_GAP });
        if pinged || urge {
            self.call(around);
        }
    }

    /// A relay connection is back. A call-me-maybe it was to carry is lost; whoever looks for a path calls again.
    pub(crate) fn call_again(&mut self, around: &mut Around<'_>, region: u16) {
        let now = around.now;
        let looking = self.is_active(now) && self.trusted(now).is_none() && !self.endpoints.is_empty();
        if looking && around.relays.route(&self.key, self.home) == Some(region) {
            self.discover(around, true);
        }
    }

    /// Pings the best path, and looks for a better one if there is reason to. Ends itself with the session.
    pub(crate) fn heartbeat(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        if !self.is_active(now) {
            self.heartbeat_at = None;
            return;
        }
        self.heartbeat_at = Some(now + HEARTBEAT);
        if let Some(best) = self.best {
            self.ping(around, Path::Direct(best.addr), Purpose::Heartbeat);
            self.suspicion.note_heartbeat(now);
        }
        if self.trusted(now).is_none() {
            self.birthday.watch(now, Duration::ZERO);
        }
        let slow = self.best.is_some_and(|best| best.latency > GOOD_ENOUGH);
        let upgrade = match self.last_discovery {
            None => true,
            Some(last) => slow && now >= last + UPGRADE,
        };
        if upgrade || self.trusted(now).is_none() {
            self.discover(around, false);
        }
    }

    /// A call-me-maybe came: it already opened the peer's NAT, so ping everything and do not call back.
    pub(crate) fn called(&mut self, around: &mut Around<'_>) {
        if self.calls.take(around.now, CALL_BURST, CALL_EVERY) {
            self.ping_endpoints(around, Duration::ZERO);
            if self.trusted(around.now).is_some() {
                self.suspicion.raise(around.now);
            }
        }
    }

    /// A user asks: by the proved path, else by every path there is. The first pong answers. Counts as activity.
    pub(crate) fn user_ping(&mut self, around: &mut Around<'_>, id: u64) {
        self.note_activity(around.now);
        self.heartbeat_at.get_or_insert(around.now + HEARTBEAT);
        let sent_before = self.sent.len();
        if let Some(addr) = self.trusted(around.now) {
            self.ping(around, Path::Direct(addr), Purpose::User(id));
        } else {
            if let Some(region) = around.relays.route(&self.key, self.home) {
                self.ping(around, Path::Relay(region), Purpose::User(id));
            }
            let endpoints: Vec<_> = self.endpoints.keys().copied().collect();
            for addr in endpoints {
                self.ping(around, Path::Direct(addr), Purpose::User(id));
            }
            if !self.endpoints.is_empty() && !around.block_direct {
                self.call(around);
            }
        }
        if self.sent.len() > sent_before && self.user_pings.len() < MAX_USER_PINGS {
            self.user_pings.push((id, around.now + PING_TIMEOUT));
        } else {
            around.voice.out.push_back(Output::Event(Event::PingTimeout { id }));
        }
    }

    /// Sends a call-me-maybe, or has it wait until our endpoints are looked up again.
    pub(crate) fn call(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let waited = self.call_by.is_some_and(|by| now >= by);
        if !around.netcheck.is_fresh(now) && !waited {
            self.call_by.get_or_insert(now + CALL_PATIENCE);
            return;
        }
        self.call_by = None;
        let Some(region) = around.relays.route(&self.key, self.home) else { return };
        let endpoints = if around.block_direct { Vec::new() } else { around.endpoints.list(now) };
        around.relays.used(now, region, &mut around.voice.out);
        self.say(around, Path::Relay(region), &Message::CallMeMaybe { endpoints });
    }

    /// Sends one ping; none if there is no socket for it, or too many are on their way.
    pub(crate) fn ping(&mut self, around: &mut Around<'_>, path: Path, purpose: Purpose) {
        let now = around.now;
        if self.sent.len() >= MAX_PINGS {
            return;
        }
        match path {
            Path::Direct(to) if around.block_direct || !around.endpoints.can_send(to) => return,
            Path::Direct(to) => {
                if let Some(endpoint) = self.endpoints.get_mut(&to) {
                    endpoint.last_ping = Some(now);
                }
            }
            Path::Relay(region) => around.relays.used(now, region, &mut around.voice.out),
        }
        let tx: TxId = around.voice.chance.bytes();
        let socket = self.socket_for(path);
        self.sent.insert(tx, Sent { path, socket, at: now, purpose });
        let message = Message::ping(tx, around.voice.node);
        self.say(around, path, &message);
    }

    /// Seals and queues a message to the peer.
    pub(crate) fn say(&mut self, around: &mut Around<'_>, path: Path, message: &Message) {
        let socket = self.socket_for(path);
        self.say_by(around, path, socket, message);
    }

    /// The same, from a certain socket.
    pub(crate) fn say_by(&mut self, around: &mut Around<'_>, path: Path, socket: Socket, message: &Message) {
        let key = self.key;
        let shared = self.shared(around.voice);
        around.voice.say(shared, key, path, socket, message);
    }

    fn socket_for(&self, path: Path) -> Socket {
        match path {
            Path::Direct(to) => self.endpoints.get(&to).map_or(OWN, |endpoint| endpoint.socket),
            Path::Relay(_) => OWN,
        }
    }

    /// Returns whether there was one to ping.
    fn ping_endpoints(&mut self, around: &mut Around<'_>, gap: Duration) -> bool {
        let now = around.now;
        let due = self.endpoints.iter().filter(|(_, e)| e.last_ping.is_none_or(|last| now >= last + gap));
        let due: Vec<_> = due.map(|(addr, _)| *addr).collect();
        let before = self.sent.len();
        for addr in due {
            self.ping(around, Path::Direct(addr), Purpose::Discovery);
        }
        self.sent.len() > before
    }
}
