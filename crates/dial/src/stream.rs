//! The connected stream that dialling returns.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::Socket;

use crate::transport::{Take, Transport};
use crate::websocket::Websocket;

/// A non-blocking byte stream to a relay: plain or TLS, and either with WebSocket framing.
///
/// With level-triggered polling, read until [`io::ErrorKind::WouldBlock`]: bytes may wait inside the stream while its
/// socket has none. Poll for writing while [`Stream::wants_write`], or after a write that would block, and then call
/// [`Stream::flush_pending`].
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
}

enum Kind {
    Direct(Transport),
    Websocket(Box<Websocket>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct(Transport::Plain(_)) => "plain",
            Self::Direct(Transport::Tls(_)) => "TLS",
            Self::Websocket(websocket) => match websocket.transport() {
                Transport::Plain(_) => "WebSocket",
                Transport::Tls(_) => "WebSocket over TLS",
            },
        })
    }
}

impl Stream {
    /// A stream over a socket that is connected already, without TLS and HTTP: a relay in this very process.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Self::direct(Transport::Plain(socket)))
    }

    pub(crate) fn direct(transport: Transport) -> Self {
        Self { kind: Kind::Direct(transport) }
    }

    pub(crate) fn websocket(transport: Transport, rest: &[u8]) -> Self {
        Self { kind: Kind::Websocket(Box::new(Websocket::new(transport, rest))) }
    }

    /// Reads what is there. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; any other ends the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Direct(transport) => transport.read(buffer, Take::All),
            Kind::Websocket(websocket) => websocket.read(buffer, Take::All),
        }
    }

    /// Reads what the stream took from its socket before, and leaves the socket alone.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when only the socket could have more; any other ends the stream.
    pub fn read_held(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Direct(transport) => transport.read(buffer, Take::Held),
            Kind::Websocket(websocket) => websocket.read(buffer, Take::Held),
        }
    }

    /// Takes bytes to send, and returns how many. They need not have left yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes none now; any other ends the stream.
    pub fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Direct(transport) => transport.write_vectored(buffers),
            Kind::Websocket(websocket) => websocket.write_vectored(buffers),
        }
    }

    /// Sends what was taken before, as far as the socket takes it.
    ///
    /// # Errors
    /// Any ends the stream; a full socket is none.
    pub fn flush_pending(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Direct(transport) => transport.flush(),
            Kind::Websocket(websocket) => websocket.flush(),
        }
    }

    /// Whether bytes that were taken wait for the socket.
    pub fn wants_write(&self) -> bool {
        match &self.kind {
            Kind::Direct(transport) => transport.wants_write(),
            Kind::Websocket(websocket) => websocket.wants_write(),
        }
    }

    /// Tells the peer that nothing follows, as far as the protocols have words for it. Best effort: drop it next.
    pub fn close(&mut self) {
        let _ = match &mut self.kind {
            Kind::Direct(transport) => transport.close(),
            Kind::Websocket(websocket) => websocket.close(),
        };
    }

    /// Whether it uses WebSocket framing.
    pub fn is_websocket(&self) -> bool {
        matches!(self.kind, Kind::Websocket(_))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Direct(transport) => transport.as_fd(),
            Kind::Websocket(websocket) => websocket.transport().as_fd(),
        }
    }
}
