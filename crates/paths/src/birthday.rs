//! Birthday probing: a direct path between a hard NAT and a port-restricted easy one (docs/decisions/0007).
//!
//! The hard side's NAT gives every destination another port, which the easy side's NAT lets in only if it sent there
//! before; so neither can name the port that would work. But if the hard side opens 256 of them (256 sockets, each sending
//! one ping to the easy side's outside address) and the easy side pings 1,024 random ports of the hard side's outside
//! address, one of the guesses hits with a chance of 98 %.
//!
//! The hard side begins: by its own check its mapping varies by destination, and the peer names one port for its outside
//! address. When its pings are out it *announces*: a call-me-maybe that names its outside address once more at the end, which
//! any other receiver takes for an ordinary one. Only that makes the easy side guess. Pings of both are small; whatever they
//! hit has to be proved by a padded ping like every other path.
//!
//! Bounds: one attempt for each network of both sides (after a success another one a minute later), only while packets flow
//! both ways through an authenticated session, 512 small packets from the hard side, 1,024 from the easy one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use wire::disco::{Message, TxId};

use crate::endpoints::{acceptable, canonical};
use crate::output::{Path, Socket};
use crate::peer::{Allowance, Around, Peer};
use crate::sockets::{OWN, Sockets};
use crate::voice::Voice;

/// Sockets of the hard side.
pub const SOCKETS: usize = 256;
/// Ports the easy side guesses.
pub const GUESSES: usize = 1024;

/// After the first packet of a session ordinary discovery has this long.
const HEAD_START: Duration = Duration::from_millis(400);
/// A session that may yet turn out to need probing is looked at so often …
const LOOK: Duration = Duration::from_millis(500);
/// … for this long.
pub(crate) const LOOK_FOR: Duration = Duration::from_secs(20);
/// The hard side opens so many sockets at once …
const OPEN_BURST: usize = 64;
/// … so often.
const OPEN_EVERY: Duration = Duration::from_millis(25);
/// Then it pings once more, against loss.
const REPEAT: Duration = Duration::from_millis(1200);
/// Sockets nothing came to close this long after that.
const LAST_CHANCE: Duration = Duration::from_millis(1500);
/// Of those something came to, the ones the peer does not use close; looked at so often.
const SWEEP: Duration = Duration::from_secs(15);
/// The easy side guesses so many ports at once …
const GUESS_BURST: usize = 64;
/// … so often.
const GUESS_EVERY: Duration = Duration::from_millis(50);
/// Answers to guesses count this long after the last.
const FADE: Duration = Duration::from_secs(3);
/// After a success the next attempt may come so much later.
const AGAIN: Duration = Duration::from_secs(60);
/// Towards networks that change, so many attempts at once and then one per [`AGAIN`].
const ATTEMPTS: u32 = 3;
/// A session is alive if a packet of it authenticated so recently.
const ALIVE: Duration = Duration::from_secs(15);
/// Ports are guessed from here on.
const FIRST_PORT: u16 = 1024;

/// One peer's probing.
#[derive(Debug, Default)]
pub(crate) struct Birthday {
    pub(crate) at: Option<Instant>,
    stage: Stage,
    /// Small pings that may still be answered.
    sent: BTreeMap<TxId, (SocketAddr, Socket)>,
    /// Open sockets of the hard side, with the last time a message of the peer came by each.
    sockets: BTreeMap<Socket, Option<Instant>>,
    tried: Option<Tried>,
    attempts: Allowance,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// Whether the session needs probing is not known yet.
    Looking {
        until: Instant,
    },
    /// Hard side.
    Opening(SocketAddr),
    Repeating(SocketAddr),
    Closing,
    Sweeping,
    /// Easy side.
    Guessing {
        ip: IpAddr,
        left: usize,
    },
    Fading,
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    target: SocketAddr,
    at: Instant,
    won: bool,
}

impl Birthday {
    /// The session woke, or has no path: look whether it needs probing, for a while.
    pub(crate) fn watch(&mut self, now: Instant, patience: Duration) {
        if matches!(self.stage, Stage::Idle) {
            self.stage = Stage::Looking { until: now + patience };
            self.at = Some(now + HEAD_START);
        }
    }

    /// Whether an attempt towards `target` may begin: the first, one towards another network, or one after a success that was
    /// at least `pause` ago.
    fn may_try(&self, now: Instant, target: SocketAddr, pause: Duration) -> bool {
        self.tried.is_none_or(|tried| tried.target != target || (tried.won && now >= tried.at + pause))
    }

    /// Begins an attempt, if there were not too many of late.
    fn try_now(&mut self, now: Instant, target: SocketAddr) -> bool {
        let granted = self.attempts.take(now, ATTEMPTS, AGAIN);
        if granted {
            self.tried = Some(Tried { target, at: now, won: false });
        }
        granted
    }

    /// A path that probing found was proved.
    pub(crate) fn won(&mut self) {
        if let Some(tried) = &mut self.tried {
            tried.won = true;
        }
    }

    /// A message of the peer came by an extra socket.
    pub(crate) fn heard(&mut self, now: Instant, socket: Socket) {
        if let Some(last) = self.sockets.get_mut(&socket) {
            *last = Some(now);
        }
    }

    /// Where the small ping with this number went, if it is one. It is answered only once.
    pub(crate) fn answered(&mut self, tx: &TxId) -> Option<(SocketAddr, Socket)> {
        self.sent.remove(tx)
    }

    pub(crate) fn knows(&self, tx: &TxId) -> bool {
        self.sent.contains_key(tx)
    }

    /// Forgets everything; another network may be tried again.
    pub(crate) fn reset(&mut self, sockets: &mut Sockets, voice: &mut Voice) {
        for socket in std::mem::take(self).sockets.into_keys() {
            sockets.close(socket, &mut voice.out);
        }
    }

    /// Closes the sockets that nothing came to since `since` (ever, if `None`), but for `kept`.
    fn close_unused(&mut self, around: &mut Around<'_>, since: Option<Instant>, kept: Socket) {
        let used = |last: &Option<Instant>| last.is_some_and(|last| since.is_none_or(|since| last >= since));
        let unused = self.sockets.iter().filter(|(socket, last)| **socket != kept && !used(last));
        for socket in unused.map(|(socket, _)| *socket).collect::<Vec<_>>() {
            self.sockets.remove(&socket);
            around.sockets.close(socket, &mut around.voice.out);
        }
    }
}

impl Peer {
    /// Whether packets of the peer's session authenticated of late and ours are on their way.
    fn has_live_session(&self, now: Instant) -> bool {
        self.is_active(now) && self.authenticated.is_some_and(|at| now < at + ALIVE)
    }

    /// Gives the extra sockets up; another network may be tried again.
    pub(crate) fn birthday_reset(&mut self, around: &mut Around<'_>) {
        self.birthday.reset(around.sockets, around.voice);
        self.endpoints.values_mut().for_each(|endpoint| endpoint.socket = OWN);
    }

    /// Does what is due.
    pub(crate) fn birthday_step(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        if self.birthday.at.is_none_or(|at| now < at) {
            return;
        }
        let (stage, at) = match self.birthday.stage {
            Stage::Idle | Stage::Fading => {
                self.birthday.sent.clear();
                (Stage::Idle, None)
            }
            Stage::Looking { until } => self.look(around, until),
            Stage::Opening(to) => self.open_sockets(around, to),
            Stage::Repeating(to) => {
                let sockets: Vec<Socket> = self.birthday.sockets.keys().copied().collect();
                sockets.into_iter().for_each(|socket| self.small_ping(around, to, socket));
                (Stage::Closing, Some(now + LAST_CHANCE))
            }
            Stage::Closing => {
                let kept = self.best_socket();
                self.birthday.close_unused(around, None, kept);
                self.birthday.sent.clear();
                self.sweep_later(now)
            }
            Stage::Sweeping => {
                let kept = self.best_socket();
                self.birthday.close_unused(around, now.checked_sub(SWEEP), kept);
                self.sweep_later(now)
            }
            Stage::Guessing { ip, left } => self.guess(around, ip, left),
        };
        self.birthday.stage = stage;
        self.birthday.at = at;
    }

    fn sweep_later(&self, now: Instant) -> (Stage, Option<Instant>) {
        if self.birthday.sockets.len() > 1 {
            (Stage::Sweeping, Some(now + SWEEP))
        } else {
            (Stage::Idle, None)
        }
    }

    fn look(&mut self, around: &mut Around<'_>, until: Instant) -> (Stage, Option<Instant>) {
        let now = around.now;
        if self.trusted(now).is_some() {
            return (Stage::Idle, None);
        }
        let target = self.easy_target(around).filter(|target| self.birthday.may_try(now, *target, AGAIN));
        let ready = self.has_live_session(now) && around.sockets.has_room(SOCKETS);
        match target {
            Some(to) if ready && self.birthday.try_now(now, to) => {
                let old = std::mem::take(&mut self.birthday.sockets);
                old.into_keys().for_each(|socket| around.sockets.close(socket, &mut around.voice.out));
                self.endpoints.values_mut().for_each(|endpoint| endpoint.socket = OWN);
                self.open_sockets(around, to)
            }
            _ if now >= until => (Stage::Idle, None),
            _ => (Stage::Looking { until }, Some(now + LOOK)),
        }
    }

    /// The peer's outside address, if we are behind a hard NAT and it looks as if the peer were behind an easy one: it names
    /// one port for it. It must be as public as our own.
    fn easy_target(&self, around: &Around<'_>) -> Option<SocketAddr> {
        if around.block_direct || !around.endpoints.is_hard() {
            return None;
        }
        let own = around.endpoints.global_v4()?;
        let called = self.endpoints.iter().filter(|(_, endpoint)| endpoint.called).map(|(addr, _)| addr);
        let named: BTreeSet<SocketAddr> = self.record.iter().chain(called).copied().collect();
        let ports = |ip: IpAddr| named.iter().filter(|addr| addr.ip() == ip).count();
        let outside = |addr: &&SocketAddr| addr.ip() != own.ip() && as_public(addr.ip(), own.ip());
        let hard = named.iter().filter(outside).any(|addr| ports(addr.ip()) > 1);
        let first = self.record.iter().find(outside).or_else(|| named.iter().find(outside));
        first.filter(|_| !hard).copied()
    }

    fn open_sockets(&mut self, around: &mut Around<'_>, to: SocketAddr) -> (Stage, Option<Instant>) {
        for _ in 0..OPEN_BURST {
            let Some(socket) = around.sockets.open(&mut around.voice.out) else { break };
            self.birthday.sockets.insert(socket, None);
            self.small_ping(around, to, socket);
        }
        if self.birthday.sockets.len() < SOCKETS && around.sockets.has_room(1) {
            return (Stage::Opening(to), Some(around.now + OPEN_EVERY));
        }
        self.announce(around);
        (Stage::Repeating(to), Some(around.now + REPEAT))
    }

    /// Says by relay that the sockets wait: a call-me-maybe with our outside address once more at its end.
    fn announce(&mut self, around: &mut Around<'_>) {
        let Some(region) = around.relays.route(&self.key, self.home) else { return };
        let Some(own) = around.endpoints.global_v4() else { return };
        let mut endpoints = around.endpoints.list(around.now);
        if !endpoints.contains(&own) {
            endpoints.push(own);
        }
        endpoints.push(own);
        around.relays.used(around.now, region, &mut around.voice.out);
        self.say(around, Path::Relay(region), &Message::CallMeMaybe { endpoints });
    }

    /// A call-me-maybe came; if it announces open sockets, guess their ports.
    pub(crate) fn announced(&mut self, around: &mut Around<'_>, offered: &[SocketAddr]) {
        let now = around.now;
        let Some((own, target)) = around.endpoints.global_v4().zip(announced_address(offered)) else {
            return;
        };
        let target = SocketAddr::new(target, 0);
        // Whoever announces has no path; one we still trust is dead, or will be.
        let usable = !around.block_direct && !around.endpoints.is_hard();
        let idle = matches!(self.birthday.stage, Stage::Idle | Stage::Looking { .. } | Stage::Fading);
        let outside = as_public(target.ip(), own.ip()) && target.ip() != own.ip();
        // The hard side keeps to the pause; ours only must not be the longer one.
        let due = self.has_live_session(now) && self.birthday.may_try(now, target, AGAIN / 2);
        if usable && idle && outside && due && self.birthday.try_now(now, target) {
            self.birthday.stage = Stage::Guessing { ip: target.ip(), left: GUESSES };
            self.birthday.at = Some(now);
            self.birthday_step(around);
        }
    }

    fn guess(&mut self, around: &mut Around<'_>, ip: IpAddr, left: usize) -> (Stage, Option<Instant>) {
        let now = around.now;
        let won = self.birthday.tried.is_some_and(|tried| tried.won);
        if left == 0 || (won && self.trusted(now).is_some()) {
            return (Stage::Fading, Some(now + FADE));
        }
        for _ in 0..GUESS_BURST.min(left) {
            let to = SocketAddr::new(ip, around.voice.chance.port_from(FIRST_PORT));
            self.small_ping(around, to, OWN);
        }
        (Stage::Guessing { ip, left: left.saturating_sub(GUESS_BURST) }, Some(now + GUESS_EVERY))
    }

    /// A ping without padding: it looks for a hole, the padded one that follows proves the path.
    fn small_ping(&mut self, around: &mut Around<'_>, to: SocketAddr, socket: Socket) {
        let tx: TxId = around.voice.chance.bytes();
        self.birthday.sent.insert(tx, (to, socket));
        let message = Message::Ping { tx, node_key: Some(around.voice.node), padding: 0 };
        self.say_by(around, Path::Direct(to), socket, &message);
    }

    /// The socket that reaches the best path.
    #[inline]
    pub(crate) fn best_socket(&self) -> Socket {
        self.best.and_then(|best| self.endpoints.get(&best.addr)).map_or(OWN, |endpoint| endpoint.socket)
    }
}

/// The address at which an announcement's sockets wait: named last, and before.
fn announced_address(offered: &[SocketAddr]) -> Option<IpAddr> {
    let (last, before) = offered.split_last()?;
    let named = before.contains(last) && last.is_ipv4() && acceptable(&canonical(*last));
    named.then(|| last.ip())
}

/// Whether an address can be an outside one where ours is `own`: public, or private too in a private network of its own.
fn as_public(ip: IpAddr, own: IpAddr) -> bool {
    let (IpAddr::V4(ip), IpAddr::V4(own)) = (ip, own) else { return false };
    !ip.is_loopback() && !ip.is_link_local() && (!is_private(ip) || is_private(own))
}

fn is_private(ip: Ipv4Addr) -> bool {
    // RFC 1918, and RFC 6598: shared by a carrier's customers.
    ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
}
