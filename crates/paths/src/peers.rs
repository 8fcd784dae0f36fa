//! The peers as a set: what has to be kept in step when one changes or leaves.

use std::time::Instant;

use wire::keys::{DiscoPublic, NodePublic};

use crate::Paths;
use crate::output::{Event, Output};
use crate::peer::{Around, Peer};

impl Paths {
    pub(crate) fn remove_peer(&mut self, key: &NodePublic) {
        let Some(mut peer) = self.peers.remove(key) else { return };
        peer.birthday.reset(&mut self.sockets, &mut self.voice);
        self.unindex_disco(key, Some(peer.disco));
        self.sources.forget_node(key);
        self.relays.forget(key);
        if let Some(at) = peer.deadline {
            self.deadlines.remove(&(at, *key));
        }
        let waiting = peer.user_pings.into_iter();
        self.voice.out.extend(waiting.map(|(id, _)| Output::Event(Event::PingTimeout { id })));
    }

    pub(crate) fn unindex_disco(&mut self, key: &NodePublic, disco: Option<DiscoPublic>) {
        if let Some(disco) = disco
            && let Some(nodes) = self.by_disco.get_mut(&disco)
        {
            nodes.remove(key);
            if nodes.is_empty() {
                self.by_disco.remove(&disco);
            }
        }
    }

    /// Runs `act` on a peer, then sees to what follows from it. `None` if there is no such peer.
    pub(crate) fn with_peer<R>(
        &mut self,
        now: Instant,
        key: &NodePublic,
        act: impl FnOnce(&mut Peer, &mut Around<'_>) -> R,
    ) -> Option<R> {
        let peer = self.peers.get_mut(key)?;
        let mut around = Around {
            now,
            voice: &mut self.voice,
            relays: &mut self.relays,
            endpoints: &self.endpoints,
            netcheck: &mut self.netcheck,
            sockets: &mut self.sockets,
            block_direct: self.block_direct,
        };
        let result = act(peer, &mut around);
        self.settle(now, key);
        Some(result)
    }

    pub(crate) fn each_peer(&mut self, now: Instant, mut act: impl FnMut(&mut Peer, &mut Around<'_>)) {
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.with_peer(now, &key, &mut act);
        }
    }

    pub(crate) fn settle_all(&mut self, now: Instant) {
        self.each_peer(now, |_, _| {});
    }

    /// After a peer changed: tells its path, notes its deadline, has the network checked if it waits for that.
    pub(crate) fn settle(&mut self, now: Instant, key: &NodePublic) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut around = Around {
            now,
            voice: &mut self.voice,
            relays: &mut self.relays,
            endpoints: &self.endpoints,
            netcheck: &mut self.netcheck,
            sockets: &mut self.sockets,
            block_direct: self.block_direct,
        };
        peer.tell_path(&mut around);
        let next = peer.next_timeout();
        let waits = peer.call_by.is_some();
        if peer.deadline != next {
            if let Some(at) = std::mem::replace(&mut peer.deadline, next) {
                self.deadlines.remove(&(at, *key));
            }
            self.deadlines.extend(next.map(|at| (at, *key)));
        }
        if waits {
            self.check_soon(now, false);
        }
    }
}
