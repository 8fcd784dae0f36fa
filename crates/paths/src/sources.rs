//! Which peer is behind a UDP source, as proved by disco. WireGuard packets are classified by it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use wire::keys::NodePublic;

use crate::config::MAX_SOURCES;

/// Bounded; the source remembered longest goes first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Looked up for every packet; never walked in an order that matters.
    nodes: HashMap<SocketAddr, NodePublic>,
    order: VecDeque<SocketAddr>,
}

impl Sources {
    pub(crate) fn get(&self, from: &SocketAddr) -> Option<NodePublic> {
        self.nodes.get(from).copied()
    }

    pub(crate) fn remember(&mut self, from: SocketAddr, node: NodePublic) {
        if self.nodes.insert(from, node).is_some() {
            return;
        }
        self.order.push_back(from);
        if self.order.len() > MAX_SOURCES
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    pub(crate) fn forget_node(&mut self, node: &NodePublic) {
        let nodes = &mut self.nodes;
        nodes.retain(|_, behind| behind != node);
        self.order.retain(|from| nodes.contains_key(from));
    }
}
