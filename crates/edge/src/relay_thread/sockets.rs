//! The open connections of the relay's thread, and what the poller watches them for.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use relay::ConnId;
use relay::server::{CloseReason, Sink, Written};
use rustix::event::epoll;

use super::stream::{Got, Stream};
use crate::seats::Seat;

/// One connection.
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) stream: Stream,
    /// What the router wants to know of.
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// What the poller was told.
    watched: epoll::EventFlags,
    /// Told when a link ends, and why.
    ended: Option<Sender<CloseReason>>,
    _seat: Option<Arc<Seat>>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnId,
        stream: Stream,
        seat: Option<Arc<Seat>>,
        ended: Option<Sender<CloseReason>>,
    ) -> Self {
        let watched = epoll::EventFlags::empty();
        Self { id, stream, read: true, write: false, watched, ended, _seat: seat }
    }
}

/// The open connections, by slot.
pub(crate) struct Sockets {
    poller: OwnedFd,
    open: Vec<Option<Connection>>,
}

impl Sockets {
    pub(crate) fn new(poller: OwnedFd) -> Self {
        Self { poller, open: Vec::new() }
    }

    pub(crate) fn poller(&self) -> &OwnedFd {
        &self.poller
    }

    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.open.get_mut(id.slot())?.as_mut().filter(|connection| connection.id == id)
    }

    /// Adds a connection, and watches it for reading.
    pub(crate) fn insert(&mut self, mut connection: Connection) -> io::Result<()> {
        connection.watched = epoll::EventFlags::IN;
        let data = epoll::EventData::new_u64(connection.id.to_u64());
        let watched = epoll::add(&self.poller, connection.stream.as_fd(), data, connection.watched);
        let slot = connection.id.slot();
        if self.open.len() <= slot {
            self.open.resize_with(slot + 1, || None);
        }
        self.open[slot] = Some(connection);
        Ok(watched?)
    }

    /// Closes a connection.
    pub(crate) fn remove(&mut self, id: ConnId, reason: CloseReason) {
        let Some(connection) = self.get(id) else { return };
        connection.stream.close();
        if let Some(ended) = &connection.ended {
            // Nobody listens if the link is not wanted any more.
            let _ = ended.send(reason);
        }
        self.open[id.slot()] = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.iter().all(Option::is_none)
    }

    /// Ends all streams towards their clients, and watches only for what those still send.
    pub(crate) fn finish(&mut self) {
        let ids: Vec<ConnId> = self.open.iter().flatten().map(|connection| connection.id).collect();
        for id in ids {
            if let Some(connection) = self.get(id) {
                connection.stream.close();
                // One that is broken is found when it is read.
                let _ = rustix::net::shutdown(connection.stream.as_fd(), rustix::net::Shutdown::Write);
            }
            self.set_interest(id, true, false);
        }
    }

    /// Reads once and forgets it; forgets the connection at its end.
    pub(crate) fn discard(&mut self, id: ConnId, buffer: &mut [u8], scratch: &mut [u8]) {
        let Some(connection) = self.get(id) else { return };
        match connection.stream.read(buffer, scratch) {
            Ok(Got::Bytes(_) | Got::More(_)) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(Got::End) | Err(_) => self.remove(id, CloseReason::Disconnected),
        }
    }

    /// Watches for what the router wants.
    pub(crate) fn set_interest(&mut self, id: ConnId, read: bool, write: bool) {
        if let Some(connection) = self.get(id) {
            (connection.read, connection.write) = (read, write);
        }
        self.watch(id);
    }

    /// Sends what the stream itself holds back. `false` if it is broken.
    pub(crate) fn flush(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.get(id) else { return true };
        let unbroken = connection.stream.flush().is_ok();
        self.watch(id);
        unbroken
    }

    /// Tells the poller, if anything has changed.
    fn watch(&mut self, id: ConnId) {
        let Some(connection) = self.open.get_mut(id.slot()).and_then(Option::as_mut) else { return };
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, connection.read);
        flags.set(epoll::EventFlags::OUT, connection.write || connection.stream.wants_write());
        if flags != connection.watched {
            connection.watched = flags;
            let data = epoll::EventData::new_u64(id.to_u64());
            // It was added before and is open, so this cannot fail.
            let _ = epoll::modify(&self.poller, connection.stream.as_fd(), data, flags);
        }
    }
}

impl Sink for Sockets {
    fn write(&mut self, to: ConnId, parts: &[IoSlice<'_>]) -> Written {
        let Some(connection) = self.get(to) else { return Written::Broken };
        let written = loop {
            break match connection.stream.write(parts) {
                Ok(taken) => Written::Taken(taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Written::Taken(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Written::Broken,
            };
        };
        if connection.stream.wants_write() {
            self.watch(to);
        }
        written
    }
}
