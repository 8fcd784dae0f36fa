//! Who is reachable by which key.

use std::collections::{BTreeSet, HashMap};

use wire::keys::NodePublic;

use super::ConnId;

/// Below this many listeners nobody looks whether they are still connected.
const PRUNE_FROM: usize = 32;

/// Keys and their connections. The last connection that spoke is the active one; only it is sent packets.
#[derive(Default)]
pub(super) struct Directory {
    entries: HashMap<NodePublic, Entry>,
}

struct Entry {
    /// In the order they last spoke: the active one is last. Never empty.
    connections: Vec<ConnId>,
    /// Connections that were sent a packet from this key and must hear of its end.
    heard_by: BTreeSet<ConnId>,
    prune_at: usize,
}

impl Directory {
    /// The connection that is sent packets for `key`.
    pub(super) fn active(&self, key: &NodePublic) -> Option<ConnId> {
        self.entries.get(key)?.connections.last().copied()
    }

    /// All connections of `key`.
    pub(super) fn all(&self, key: &NodePublic) -> &[ConnId] {
        self.entries.get(key).map_or(&[], |entry| &entry.connections)
    }

    /// Adds a connection; it becomes the active one.
    pub(super) fn add(&mut self, key: NodePublic, id: ConnId) {
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            connections: Vec::with_capacity(1),
            heard_by: BTreeSet::new(),
            prune_at: PRUNE_FROM,
        });
        entry.connections.push(id);
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

    /// Removes a connection. If it was the key's last, returns who had heard from it.
    pub(super) fn remove(&mut self, key: &NodePublic, id: ConnId) -> Option<BTreeSet<ConnId>> {
        let entry = self.entries.get_mut(key)?;
        entry.connections.retain(|other| *other != id);
        if !entry.connections.is_empty() {
            return None;
        }
        self.entries.remove(key).map(|entry| entry.heard_by)
    }
}
