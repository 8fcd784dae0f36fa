//! ClientInfo in, ServerInfo out, and the watchers of the mesh.

use std::time::{Duration, Instant};

use wire::derp::login::{ServerInfo, open_client_info, seal_server_info};
use wire::derp::{Flags, VERSION, encode};

use super::limits::Bucket;
use super::session::Peer;
use super::timers::Timer;
use super::{CloseReason, ConnId, KEEPALIVE, KEEPALIVE_SPREAD, LOST_ANSWERS, Router, link};

impl Router {
    /// Judges a ClientInfo payload and lets the client in.
    pub(super) fn login(&mut self, now: Instant, id: ConnId, payload: &[u8]) -> Result<(), CloseReason> {
        let (key, info, shared) = open_client_info(&self.key, payload).map_err(CloseReason::Refused)?;
        let presented = info.mesh_key.as_deref().map(String::as_str);
        let mesh = match (&self.mesh_key, presented) {
            (Some(ours), Some(theirs)) => ours.matches(theirs),
            _ => false,
        };
        let nonce = (self.nonces)();
        let keepalive = KEEPALIVE + spread(nonce[0], nonce[1]);
        let rate_limit = self.rate_limit;
        let Some(session) = self.session_mut(id) else { return Ok(()) };
        session.peer = Some(Peer {
            key,
            mesh,
            prober: info.is_prober,
            watching: false,
            preferred: false,
            last_heard_by: None,
            keepalive,
            gone_limit: Bucket::new(LOST_ANSWERS, now),
            rate: rate_limit.filter(|_| !mesh).map(|limit| Bucket::new(limit, now)),
            unannounced: None,
        });
        let mut frame = Vec::with_capacity(64);
        let answer = ServerInfo { version: VERSION, ..ServerInfo::default() };
        seal_server_info(&mut frame, &shared, nonce, &answer);
        self.control(id, &frame);
        self.timers.set(now + keepalive, id, Timer::KeepAlive);
        self.directory.add(key, id);
        self.admit(now, id);
        self.counters.logins += 1;
        self.counters.clients += 1;
        if let Some(frame) = self.presence(id) {
            for watcher in self.watchers.clone() {
                self.control(watcher, &frame);
            }
        }
        Ok(())
    }

    pub(super) fn login_due(&mut self, id: ConnId) {
        let done = link::is_ready(&self.sessions, id)
            .unwrap_or_else(|| self.session(id).is_none_or(|session| session.peer.is_some()));
        if !done {
            self.close(id, CloseReason::LoginTimeout);
        }
    }

    /// Tells a mesh peer of every client, itself included, and from now on of each that comes or goes.
    pub(super) fn watch(&mut self, id: ConnId) {
        let own = self.public;
        let Some(peer) = self.session_mut(id).and_then(|session| session.peer.as_mut()) else { return };
        // A relay that reached itself has nothing to learn.
        if peer.watching || peer.key == own {
            return;
        }
        peer.watching = true;
        self.watchers.insert(id);
        let everyone: Vec<ConnId> = self
            .sessions
            .iter()
            .map(|(slot, session)| ConnId { slot: slot as u32, generation: session.generation })
            .collect();
        for client in everyone {
            let active = self.session(client).and_then(|s| s.peer.as_ref()).map(|peer| peer.key);
            // One frame for each key, however many connections it has.
            if active.and_then(|key| self.directory.active(&key)) != Some(client) {
                continue;
            }
            if let Some(frame) = self.presence(client) {
                self.control(id, &frame);
            }
        }
    }

    /// The PeerPresent frame about a client.
    fn presence(&self, id: ConnId) -> Option<Vec<u8>> {
        let session = self.session(id)?;
        let peer = session.peer.as_ref()?;
        let flags = match (peer.mesh, peer.prober) {
            (false, false) => Flags::REGULAR.0,
            (true, false) => Flags::MESH.0,
            (false, true) => Flags::PROBER.0,
            (true, true) => Flags::MESH.0 | Flags::PROBER.0,
        };
        let mut frame = Vec::with_capacity(64);
        encode::peer_present(&mut frame, &peer.key, Some((session.remote, Flags(flags))));
        Some(frame)
    }
}

/// A part of [`KEEPALIVE_SPREAD`]. Nonces are random and public; nothing secret depends on this.
fn spread(high: u8, low: u8) -> Duration {
    KEEPALIVE_SPREAD * u32::from(u16::from_be_bytes([high, low])) / (1 << 16)
}
