//! Who is reachable by which key.

use std::collections::{BTreeSet, HashMap};

use wire::keys::NodePublic;

use super::ConnId;

/// Below this many listeners nobody looks whether they are still connected.
const PRUNE_FROM: usize = 32;

/// Keys and their connections. The last connection that spoke is the active one; only it is sent packets. A key that is
/// not connected here may be so at another relay of the region.
#[derive(Default)]
pub(super) struct Directory {
    entries: HashMap<NodePublic, Entry>,
}

/// Where packets for a key go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this client.
    Here(ConnId),
    /// To the relay at the other end of this link.
    By(ConnId),
}

/// What the end of a connection means to others.
#[derive(Default)]
pub(super) struct Gone {
    /// The key has no connection here any more.
    pub(super) from_here: bool,
    /// Who must be told that the key is not reachable at all any more.
    pub(super) heard_by: BTreeSet<ConnId>,
}

#[derive(Default)]
struct Entry {
    /// In the order they last spoke: the active one is last.
    connections: Vec<ConnId>,
    /// Links to relays that say they have this key: the first is used.
    forwarders: Vec<ConnId>,
    /// Connections that were sent a packet from this key and must hear of its end.
    heard_by: BTreeSet<ConnId>,
    prune_at: usize,
}

impl Directory {
    /// Where packets for `key` go.
    pub(super) fn way(&self, key: &NodePublic) -> Option<Way> {
        let entry = self.entries.get(key)?;
        let here = entry.connections.last().copied().map(Way::Here);
        here.or_else(|| entry.forwarders.first().copied().map(Way::By))
    }

    /// The client that is sent packets for `key`.
    pub(super) fn active(&self, key: &NodePublic) -> Option<ConnId> {
        self.entries.get(key)?.connections.last().copied()
    }

    /// All connections of `key`.
    pub(super) fn all(&self, key: &NodePublic) -> &[ConnId] {
        self.entries.get(key).map_or(&[], |entry| &entry.connections)
    }

    /// Adds a connection; it becomes the active one.
    pub(super) fn add(&mut self, key: NodePublic, id: ConnId) {
        self.entry(key).connections.push(id);
    }

    /// Another relay says it has `key`.
    pub(super) fn add_forwarder(&mut self, key: NodePublic, id: ConnId) {
        self.entry(key).forwarders.push(id);
    }

    /// A frame came over this connection, so it is the active one.
    pub(super) fn spoke(&mut self, key: &NodePublic, id: ConnId) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.connections.last() != Some(&id) {
            entry.connections.retain(|other| *other != id);
            entry.connections.push(id);
        }
    }

    /// A packet from `key` went out on `by`.
    pub(super) fn heard(&mut self, key: &NodePublic, by: ConnId, alive: impl Fn(ConnId) -> bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.heard_by.insert(by) && entry.heard_by.len() >= entry.prune_at {
            entry.heard_by.retain(|id| alive(*id));
            entry.prune_at = PRUNE_FROM.max(2 * entry.heard_by.len());
        }
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, key: &NodePublic, id: ConnId) -> Gone {
        let Some(entry) = self.entries.get_mut(key) else { return Gone::default() };
        entry.connections.retain(|other| *other != id);
        let from_here = entry.connections.is_empty();
        Gone { from_here, heard_by: self.end(key).unwrap_or_default() }
    }

    /// Another relay has `key` no more. Returns who must be told, if that was the last way.
    pub(super) fn remove_forwarder(&mut self, key: &NodePublic, id: ConnId) -> Option<BTreeSet<ConnId>> {
        self.entries.get_mut(key)?.forwarders.retain(|other| *other != id);
        self.end(key)
    }

    fn entry(&mut self, key: NodePublic) -> &mut Entry {
        self.entries.entry(key).or_insert_with(|| Entry { prune_at: PRUNE_FROM, ..Entry::default() })
    }

    /// Forgets a key without any way, and returns who had heard from it.
    fn end(&mut self, key: &NodePublic) -> Option<BTreeSet<ConnId>> {
        let entry = self.entries.get(key)?;
        if !entry.connections.is_empty() || !entry.forwarders.is_empty() {
            return None;
        }
        self.entries.remove(key).map(|entry| entry.heard_by)
    }
}
