//! Extra UDP sockets over IPv4, for probes that must not come from the node's own port.

use std::collections::{BTreeSet, VecDeque};

use crate::output::{Output, Socket};

/// Extra sockets that may be open at once.
const MAX_SOCKETS: usize = 288;
/// The node's own socket of the address's family; extra ones count from here.
pub const OWN: Socket = 0;

/// The extra sockets that are open.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: BTreeSet<Socket>,
    last: Socket,
}

impl Sockets {
    /// Whether so many more may be opened.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.open.len() + count <= MAX_SOCKETS
    }

    pub(crate) fn is_open(&self, socket: Socket) -> bool {
        socket == OWN || self.open.contains(&socket)
    }

    /// Opens one; `None` if there are too many.
    pub(crate) fn open(&mut self, out: &mut VecDeque<Output>) -> Option<Socket> {
        if !self.has_room(1) {
            return None;
        }
        loop {
            self.last = self.last.checked_add(1).unwrap_or(OWN + 1);
            if self.open.insert(self.last) {
                out.push_back(Output::OpenSocket(self.last));
                return Some(self.last);
            }
        }
    }

    pub(crate) fn close(&mut self, socket: Socket, out: &mut VecDeque<Output>) {
        if self.open.remove(&socket) {
            out.push_back(Output::CloseSocket(socket));
        }
    }
}
