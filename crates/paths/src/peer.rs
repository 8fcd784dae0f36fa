//! What is known of one peer, and how its sends are routed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::disco::TxId;
use wire::keys::{DiscoPublic, NodePublic, SharedBox};

use crate::birthday::{Birthday, LOOK_FOR};
use crate::choice::{Candidate, better};
use crate::config::{
    DISCOVERY_GAP, HEARTBEAT, LEARNED_KEPT, MAX_ENDPOINTS, PING_TIMEOUT, PeerRecord, SESSION_ACTIVE, SILENCE,
    TRUST,
};
use crate::endpoints::{Endpoints, acceptable, canonical};
use crate::facts::{Proof, Track, Why};
use crate::netcheck::Netcheck;
use crate::output::{Event, Output, Path, Route, Socket};
use crate::relay_routes::Relays;
use crate::sockets::Sockets;
use crate::suspicion::Suspicion;
use crate::voice::Voice;

/// What a peer's machines use of the node around them.
pub(crate) struct Around<'a> {
    pub(crate) now: Instant,
    pub(crate) voice: &'a mut Voice,
    pub(crate) relays: &'a mut Relays,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) netcheck: &'a mut Netcheck,
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) block_direct: bool,
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) key: NodePublic,
    pub(crate) disco: DiscoPublic,
    /// Home region; 0 for none.
    pub(crate) home: u16,
    /// Computed when first needed.
    shared: Option<SharedBox>,
    /// Endpoints of the record, also while direct paths are forbidden.
    pub(crate) record: Vec<SocketAddr>,
    pub(crate) endpoints: BTreeMap<SocketAddr, Endpoint>,
    pub(crate) best: Option<Candidate>,
    /// `best` is proved before this.
    pub(crate) trust_until: Option<Instant>,
    pub(crate) last_send: Option<Instant>,
    pub(crate) last_discovery: Option<Instant>,
    /// Discovery by sending is not tried again before this.
    pub(crate) discover_after: Option<Instant>,
    pub(crate) sent: BTreeMap<TxId, Sent>,
    pub(crate) heartbeat_at: Option<Instant>,
    pub(crate) suspicion: Suspicion,
    /// Pings of users: id, and when they give up.
    pub(crate) user_pings: Vec<(u64, Instant)>,
    /// A call-me-maybe waits for our endpoints, at most until then.
    pub(crate) call_by: Option<Instant>,
    /// Last ping by relay.
    pub(crate) relay_ping: Option<TxId>,
    pub(crate) relay_pongs: Allowance,
    pub(crate) calls: Allowance,
    pub(crate) track: Track,
    /// A packet of the peer's session last authenticated then.
    pub(crate) authenticated: Option<Instant>,
    pub(crate) birthday: Birthday,
    told: Option<Path>,
    /// As it stands in the index of deadlines.
    pub(crate) deadline: Option<Instant>,
}

/// An address a peer may be reached at. It lives as long as one of its reasons does.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    pub(crate) in_record: bool,
    pub(crate) called: bool,
    /// The last ping from there.
    pub(crate) pinged_us: Option<(Instant, TxId)>,
    pub(crate) last_ping: Option<Instant>,
    pub(crate) proof: Option<Proof>,
    /// Which of our sockets reaches it.
    pub(crate) socket: Socket,
    /// A guess hit it: nothing else names it, so its pongs keep it.
    pub(crate) guessed: bool,
    pub(crate) pongs: Allowance,
}

/// A ping on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) path: Path,
    pub(crate) socket: Socket,
    pub(crate) at: Instant,
    pub(crate) purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Discovery,
    Heartbeat,
    Suspicion,
    User(u64),
}

/// What a sender may still draw from us: a bucket that refills.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    used: u32,
    since: Option<Instant>,
}

impl Allowance {
    /// One more, of `burst` at once and then one `every` so often.
    pub(crate) fn take(&mut self, now: Instant, burst: u32, every: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let refills = now.saturating_duration_since(since).as_nanos() / every.as_nanos().max(1);
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        if refills > 0 {
            self.used = self.used.saturating_sub(refills);
            self.since = Some(now);
        }
        let granted = self.used < burst;
        self.used += u32::from(granted);
        granted
    }
}

impl Endpoint {
    fn learned_until(&self) -> Option<Instant> {
        let pong = self.proof.as_ref().filter(|_| self.guessed).map(Proof::at);
        let heard = self.pinged_us.map(|(at, _)| at).max(pong);
        heard.map(|at| at + LEARNED_KEPT)
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.in_record || self.called || self.learned_until().is_some_and(|until| now < until)
    }
}

impl Peer {
    pub(crate) fn new(record: &PeerRecord) -> Self {
        Self {
            key: record.key,
            disco: record.disco,
            home: record.home,
            shared: None,
            record: Vec::new(),
            endpoints: BTreeMap::new(),
            best: None,
            trust_until: None,
            last_send: None,
            last_discovery: None,
            discover_after: None,
            sent: BTreeMap::new(),
            heartbeat_at: None,
            suspicion: Suspicion::default(),
            user_pings: Vec::new(),
            call_by: None,
            relay_ping: None,
            relay_pongs: Allowance::default(),
            calls: Allowance::default(),
            track: Track::default(),
            authenticated: None,
            birthday: Birthday::default(),
            told: None,
            deadline: None,
        }
    }

    /// Takes a new record. A new disco key means a new process: nothing learned of the old one holds.
    pub(crate) fn update(&mut self, record: &PeerRecord, around: &mut Around<'_>) {
        if self.disco != record.disco {
            self.birthday_reset(around);
            for (id, _) in std::mem::take(&mut self.user_pings) {
                around.voice.out.push_back(Output::Event(Event::PingTimeout { id }));
            }
            let (last_send, told, deadline) = (self.last_send, self.told, self.deadline);
            let track = std::mem::take(&mut self.track);
            let heartbeat_at = self.heartbeat_at;
            *self = Self { last_send, told, deadline, heartbeat_at, track, ..Self::new(record) };
            self.track.note(Why::Restarted);
        }
        self.home = record.home;
        self.record =
            record.endpoints.iter().copied().map(canonical).filter(acceptable).take(MAX_ENDPOINTS).collect();
        let before = self.endpoints.len();
        self.apply_record(around);
        let hurry = self.endpoints.len() > before && self.is_active(around.now);
        if hurry && self.trusted(around.now).is_none() {
            self.discover(around, false);
        }
    }

    /// Makes the candidates agree with the record; none while direct paths are forbidden.
    pub(crate) fn apply_record(&mut self, around: &mut Around<'_>) {
        if around.block_direct {
            self.birthday_reset(around);
            self.endpoints.clear();
            self.forget_best(Why::Forbidden);
            return;
        }
        for (addr, endpoint) in &mut self.endpoints {
            endpoint.in_record = self.record.contains(addr);
        }
        self.drop_dead(around.now);
        for addr in self.record.clone() {
            if let Some(endpoint) = self.candidate(addr) {
                endpoint.in_record = true;
            }
        }
        self.discover_after = None;
    }

    /// Adds an address or gives the one there; `None` if too many others are as good.
    pub(crate) fn candidate(&mut self, addr: SocketAddr) -> Option<&mut Endpoint> {
        if !self.endpoints.contains_key(&addr) && self.endpoints.len() >= MAX_ENDPOINTS {
            let best = self.best.map(|best| best.addr);
            let learned =
                self.endpoints.iter().filter(|(a, e)| !e.in_record && !e.called && Some(**a) != best);
            let oldest = learned.min_by_key(|(_, e)| e.pinged_us.map(|(at, _)| at)).map(|(a, _)| *a)?;
            self.endpoints.remove(&oldest);
        }
        Some(self.endpoints.entry(addr).or_default())
    }

    /// Deletes endpoints without a reason to live, and the best path with its endpoint.
    pub(crate) fn drop_dead(&mut self, now: Instant) {
        self.endpoints.retain(|_, endpoint| endpoint.is_alive(now));
        if self.best.is_some_and(|best| !self.endpoints.contains_key(&best.addr)) {
            self.forget_best(Why::Withdrawn);
        }
    }

    pub(crate) fn forget_best(&mut self, why: Why) {
        self.best = None;
        self.distrust(why);
    }

    pub(crate) fn distrust(&mut self, why: Why) {
        self.track.note(why);
        self.trust_until = None;
        self.suspicion.clear();
        self.discover_after = None;
    }

    /// The network is another one: prove everything again.
    pub(crate) fn start_over(&mut self, around: &mut Around<'_>) {
        self.forget_best(Why::Network);
        self.birthday_reset(around);
        self.sent.retain(|_, sent| matches!(sent.purpose, Purpose::User(_)));
        self.endpoints.values_mut().for_each(|endpoint| endpoint.last_ping = None);
        if self.is_active(around.now) {
            self.birthday.watch(around.now, LOOK_FOR);
            self.discover(around, false);
        }
    }

    /// The proved direct path.
    #[inline]
    pub(crate) fn trusted(&self, now: Instant) -> Option<SocketAddr> {
        match (&self.best, self.trust_until) {
            (Some(best), Some(until)) if now < until => Some(best.addr),
            _ => None,
        }
    }

    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.last_send.is_some_and(|at| now < at + SESSION_ACTIVE)
    }

    /// Something is sent to the peer; the session is awake.
    #[inline]
    pub(crate) fn note_activity(&mut self, now: Instant) {
        if !self.is_active(now) {
            self.track.began(now);
            self.birthday.watch(now, LOOK_FOR);
        }
        self.last_send = Some(now);
    }

    /// Routes a batch that is about to be sent. Returns whether deadlines may have changed.
    pub(crate) fn route(&mut self, around: &mut Around<'_>) -> (Route, bool) {
        let now = around.now;
        self.note_activity(now);
        let mut changed = self.suspicion.note_send(now);
        if self.heartbeat_at.is_none() {
            self.heartbeat_at = Some(now + HEARTBEAT);
            changed = true;
        }
        if let Some(addr) = self.trusted(now) {
            if self.suspicion.is_raised() {
                let relay = self.relay_for_sending(around);
                return (Route { udp: Some(addr), socket: self.best_socket(), relay }, changed);
            }
            return (Route { udp: Some(addr), socket: self.best_socket(), relay: None }, changed);
        }
        let relay = self.relay_for_sending(around);
        if self.discover_after.is_none_or(|after| now >= after) {
            self.discover_after = Some(now + DISCOVERY_GAP);
            self.discover(around, false);
            changed = true;
        }
        (Route { udp: self.best.map(|best| best.addr), socket: self.best_socket(), relay }, changed)
    }

    fn relay_for_sending(&self, around: &mut Around<'_>) -> Option<u16> {
        let relay = around.relays.route(&self.key, self.home)?;
        around.relays.used(around.now, relay, &mut around.voice.out);
        Some(relay)
    }

    /// A pong proved `candidate`.
    pub(crate) fn proved(&mut self, now: Instant, candidate: Candidate) {
        let fresh = self.trusted(now).is_none();
        let replace = fresh || better(&candidate, self.best.as_ref());
        if replace {
            self.track.note(if fresh { Why::Proved } else { Why::Better });
        }
        self.track.direct(now);
        if replace || self.best.is_some_and(|best| best.addr == candidate.addr) {
            if self.best.is_none_or(|best| best.addr != candidate.addr) {
                self.suspicion.clear();
            }
            self.best = Some(candidate);
            self.trust_until = Some(now + TRUST);
            self.suspicion.note_pong();
        }
    }

    /// The box with the peer's key.
    pub(crate) fn shared(&mut self, voice: &Voice) -> &SharedBox {
        let disco = self.disco;
        self.shared.get_or_insert_with(|| voice.share(&disco))
    }

    /// The way packets go now, and news of it if it is another than before.
    pub(crate) fn tell_path(&mut self, around: &mut Around<'_>) {
        let direct = self.trusted(around.now).map(Path::Direct);
        let path = direct.or_else(|| around.relays.route(&self.key, self.home).map(Path::Relay));
        if let Some(path) = path
            && self.told != Some(path)
        {
            self.track.moved(around.now, self.told, path);
            self.told = Some(path);
            around.voice.out.push_back(Output::Event(Event::PathChanged { peer: self.key, path }));
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let pings = self.sent.values().map(|sent| sent.at + PING_TIMEOUT).min();
        let users = self.user_pings.iter().map(|(_, until)| *until).min();
        let learned = self.endpoints.values().filter(|e| !e.in_record && !e.called);
        let learned = learned.filter_map(Endpoint::learned_until).min();
        let trust = self.trust_until.filter(|_| self.best.is_some());
        let silence = self.suspicion.next_timeout();
        let own = [self.heartbeat_at, self.call_by, self.birthday.at];
        [pings, users, learned, trust, silence].into_iter().chain(own).flatten().min()
    }

    /// Does everything that is due.
    pub(crate) fn handle_timeout(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        self.expire_pings(around);
        self.drop_dead(now);
        if self.trust_until.is_some_and(|until| now >= until) {
            self.distrust(Why::Expired);
        }
        self.check_silence(around);
        if self.heartbeat_at.is_some_and(|at| now >= at) {
            self.heartbeat(around);
        }
        if self.call_by.is_some_and(|by| now >= by) {
            self.call(around);
        }
        self.birthday_step(around);
    }

    fn expire_pings(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let trusted = self.trusted(now).is_some();
        let best = self.best.map(|best| Path::Direct(best.addr));
        let mut best_lost = false;
        self.sent.retain(|_, sent| {
            let lost = now >= sent.at + PING_TIMEOUT;
            best_lost |= lost && Some(sent.path) == best;
            !lost
        });
        if best_lost && !trusted {
            self.forget_best(Why::Lost);
        }
        let mut given_up = Vec::new();
        self.user_pings.retain(|(id, until)| {
            let over = now >= *until;
            given_up.extend(over.then_some(*id));
            !over
        });
        for id in given_up {
            around.voice.out.push_back(Output::Event(Event::PingTimeout { id }));
        }
    }

    /// The longest a round trip of the best path may take before its silence means something.
    pub(crate) fn patience(&self) -> Duration {
        let latency = self.best.map_or(Duration::ZERO, |best| best.latency);
        latency.saturating_mul(2).max(SILENCE)
    }
}
