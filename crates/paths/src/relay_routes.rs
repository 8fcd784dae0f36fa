//! Relay connections and which of them leads to a peer.
//!
//! One connection per region, dialled on first use. Home's is kept open; another closes when nothing was written to it for a
//! minute. A peer is reached through the open connection to its home region, else through the connection its last
//! packet came by (its *reverse route*), else by dialling its home.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

use crate::chance::Chance;
use crate::config::{REDIAL_MAX, REDIAL_UNIT, RELAY_IDLE};
use crate::output::Output;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Dialling,
    Up,
    /// To be dialled again then, if still wanted.
    Down {
        retry: Instant,
    },
}

#[derive(Debug)]
struct Connection {
    state: State,
    written: Instant,
    failures: u32,
    /// The relay said that it will not be back before.
    back: Option<Instant>,
}

/// All relay connections of a node.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// Regions that have a relay.
    known: BTreeSet<u16>,
    connections: BTreeMap<u16, Connection>,
    reverse: BTreeMap<NodePublic, u16>,
    home: u16,
}

impl Relays {
    pub(crate) fn home(&self) -> u16 {
        self.home
    }

    /// Takes the regions of a new map that have a relay; `changed` are those not the same as before. Home is forgotten if it
    /// is gone or changed.
    pub(crate) fn set_known(
        &mut self,
        known: BTreeSet<u16>,
        changed: &BTreeSet<u16>,
        out: &mut VecDeque<Output>,
    ) {
        self.known = known;
        let stale = |region: &u16| !self.known.contains(region) || changed.contains(region);
        let closing: Vec<u16> = self.connections.keys().copied().filter(stale).collect();
        if stale(&self.home) {
            self.home = 0;
        }
        for region in closing {
            self.close(region, out);
        }
    }

    /// Moves home to `region` (0: nowhere) and tells the relays concerned.
    pub(crate) fn set_home(&mut self, now: Instant, region: u16, out: &mut VecDeque<Output>) {
        let old = std::mem::replace(&mut self.home, region);
        if old == region {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&old) {
            connection.written = now;
            out.push_back(Output::Prefer { region: old, home: false });
        }
        if region != 0 {
            self.used(now, region, out);
            out.push_back(Output::Prefer { region, home: true });
        }
    }

    /// The way to a peer whose home is `home`, by what is open now. `None` if there is none even by dialling.
    pub(crate) fn route(&self, peer: &NodePublic, home: u16) -> Option<u16> {
        if self.is_up(home) {
            return Some(home);
        }
        let reverse = self.reverse.get(peer).copied();
        reverse.or_else(|| self.known.contains(&home).then_some(home))
    }

    /// Something is about to be written to a region's connection; dials it if there is none.
    pub(crate) fn used(&mut self, now: Instant, region: u16, out: &mut VecDeque<Output>) {
        match self.connections.get_mut(&region) {
            Some(connection) => connection.written = now,
            None if self.known.contains(&region) => {
                let connection = Connection { state: State::Dialling, written: now, failures: 0, back: None };
                self.connections.insert(region, connection);
                out.push_back(Output::OpenRelay(region));
            }
            None => {}
        }
    }

    /// A peer's packet came by this region's connection. Returns whether that is news.
    pub(crate) fn heard(&mut self, region: u16, peer: NodePublic) -> bool {
        self.is_up(region) && self.reverse.insert(peer, region) != Some(region)
    }

    /// A connection is up. Returns whether it had been lost: what was sent by it meanwhile is, too.
    pub(crate) fn up(&mut self, now: Instant, region: u16, out: &mut VecDeque<Output>) -> bool {
        let Some(connection) = self.connections.get_mut(&region) else { return false };
        let returned = connection.failures > 0;
        *connection = Connection { state: State::Up, written: now, failures: 0, back: None };
        if region == self.home {
            out.push_back(Output::Prefer { region, home: true });
        }
        returned
    }

    /// A connection broke or could not be made. Returns whether there was one.
    pub(crate) fn down(&mut self, now: Instant, region: u16, chance: &mut Chance) -> bool {
        let Some(connection) = self.connections.get_mut(&region) else { return false };
        connection.failures = connection.failures.saturating_add(1);
        let wait = REDIAL_UNIT.saturating_mul(connection.failures.saturating_pow(2)).min(REDIAL_MAX);
        let retry = now + chance.between(wait / 2, wait + wait / 2);
        connection.state =
            State::Down { retry: connection.back.take().map_or(retry, |back| back.max(retry)) };
        self.reverse.retain(|_, &mut by| by != region);
        true
    }

    /// The relay is about to restart, and wants to be left alone for a while.
    pub(crate) fn restarting(&mut self, now: Instant, region: u16, wait: Duration) {
        if let Some(connection) = self.connections.get_mut(&region) {
            connection.back = Some(now + wait.min(REDIAL_MAX));
        }
    }

    /// The network is another one: what could not be reached is tried again at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            if matches!(connection.state, State::Down { .. }) {
                connection.state = State::Down { retry: now };
                connection.failures = connection.failures.min(1);
            }
        }
    }

    /// The relay says a peer is not there.
    pub(crate) fn peer_gone(&mut self, region: u16, peer: &NodePublic) {
        if self.reverse.get(peer) == Some(&region) {
            self.reverse.remove(peer);
        }
    }

    pub(crate) fn forget(&mut self, peer: &NodePublic) {
        self.reverse.remove(peer);
    }

    /// Redials what is due and closes what is idle.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        let due: Vec<u16> = self
            .connections
            .keys()
            .copied()
            .filter(|&r| self.deadline(r).is_some_and(|at| at <= now))
            .collect();
        for region in due {
            let idle = self.is_idle(now, region);
            match self.connections.get_mut(&region) {
                Some(connection) if !idle => {
                    connection.state = State::Dialling;
                    out.push_back(Output::OpenRelay(region));
                }
                _ => self.close(region, out),
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.connections.keys().filter_map(|&region| self.deadline(region)).min()
    }

    fn deadline(&self, region: u16) -> Option<Instant> {
        let connection = self.connections.get(&region)?;
        let idle = (region != self.home).then(|| connection.written + RELAY_IDLE);
        match connection.state {
            State::Down { retry } => Some(idle.map_or(retry, |idle| idle.min(retry))),
            State::Up | State::Dialling => idle,
        }
    }

    fn is_idle(&self, now: Instant, region: u16) -> bool {
        region != self.home && self.connections.get(&region).is_some_and(|c| now >= c.written + RELAY_IDLE)
    }

    fn is_up(&self, region: u16) -> bool {
        self.connections.get(&region).is_some_and(|connection| connection.state == State::Up)
    }

    fn close(&mut self, region: u16, out: &mut VecDeque<Output>) {
        if self.connections.remove(&region).is_some() {
            out.push_back(Output::CloseRelay(region));
        }
        self.reverse.retain(|_, &mut by| by != region);
    }
}
