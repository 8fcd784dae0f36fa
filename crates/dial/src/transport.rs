//! A connected, non-blocking byte stream: plain, TLS, or TLS within a proxy's TLS.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;
use rustls::{ClientConnection, ProtocolVersion};
use socket2::Socket;
use wire::keys::NodePublic;

use crate::deadline::{Deadline, wait};

/// Ciphertext taken from the socket in one call.
const RECEIVE_SIZE: usize = 64 * 1024;

/// Plaintext a TLS stream takes while its socket takes nothing.
const SEND_LIMIT: usize = 128 * 1024;

/// Buffers one send call takes (IOV_MAX).
const MOST_BUFFERS: usize = 1024;

/// What a read may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// What is there, in the socket too.
    All,
    /// Only what was taken from the socket before.
    Held,
}

#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Socket),
    Tls(Box<Tls>),
}

impl Transport {
    pub(crate) fn read(&mut self, buffer: &mut [u8], take: Take) -> io::Result<usize> {
        match self {
            Self::Plain(_) if take == Take::Held => Err(io::ErrorKind::WouldBlock.into()),
            Self::Plain(socket) => retry(|| (&*socket).read(buffer)),
            Self::Tls(tls) => tls.read(buffer, take),
        }
    }

    /// Takes as many bytes as it can; [`io::ErrorKind::WouldBlock`] when that is none.
    pub(crate) fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => send(socket, buffers),
            Self::Tls(tls) => tls.write_vectored(buffers),
        }
    }

    /// Sends what was taken but not sent yet, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// The relay's key, if its certificates told it.
    pub(crate) fn relay_key(&self) -> Option<NodePublic> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.relay_key(),
        }
    }

    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.wants_write(),
        }
    }

    /// Tells the peer that nothing follows, where the transport can.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => {
                tls.session.send_close_notify();
                tls.flush()?;
                tls.below.close()
            }
        }
    }

    /// Reads at least one byte unless the stream ended, waiting for it.
    pub(crate) fn read_by(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        loop {
            match self.read(buffer, Take::All) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self, readable(self.wants_write()), deadline)?;
                    self.flush()?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes and sends all of `bytes`, waiting as long as it takes.
    pub(crate) fn write_all_by(&mut self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() || self.wants_write() {
            let written = match self.write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                outcome => outcome?,
            };
            bytes = &bytes[written..];
            self.flush()?;
            if written == 0 || self.wants_write() {
                wait(self, PollFlags::OUT, deadline)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(tls) => tls.below.as_fd(),
        }
    }
}

/// A TLS session joined to what is below it. What it holds back is bounded in both directions.
#[derive(Debug)]
pub(crate) struct Tls {
    below: Transport,
    session: ClientConnection,
    /// Ciphertext read from below; the session takes only 4 KiB at a time.
    received: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Tls {
    pub(crate) fn new(below: Transport, mut session: ClientConnection) -> Self {
        session.set_buffer_limit(Some(SEND_LIMIT));
        Self { below, session, received: vec![0; RECEIVE_SIZE].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The session's own errors come as [`io::ErrorKind::InvalidData`] around a [`rustls::Error`].
    pub(crate) fn handshake(&mut self, deadline: Deadline) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.flush()?;
            match self.receive(Take::All) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.below, readable(self.wants_write()), deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    fn wants_write(&self) -> bool {
        self.session.wants_write() || self.below.wants_write()
    }

    /// Only TLS 1.3 hides certificates from those in between.
    fn relay_key(&self) -> Option<NodePublic> {
        if self.session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        self.session.peer_certificates()?.iter().find_map(|certificate| told_by(certificate))
    }

    fn read(&mut self, buffer: &mut [u8], take: Take) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The layers above know by themselves whether something was cut off.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
            self.receive(take)?;
            self.flush()?;
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.session.writer().write_vectored(buffers)?;
        self.flush()?;
        if taken == 0 && buffers.iter().any(|buffer| !buffer.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Below(&mut self.below)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.below.flush()
    }

    /// Feeds the session what arrived. Returns how many bytes it took; 0 at the end of the stream.
    fn receive(&mut self, take: Take) -> io::Result<usize> {
        if self.start == self.end {
            self.end = self.below.read(&mut self.received, take)?;
            self.start = 0;
        }
        let mut unread = &self.received[self.start..self.end];
        let taken = self.session.read_tls(&mut unread)?;
        self.start += taken;
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says why; the error itself matters more than whether it gets through.
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(taken)
    }
}

/// The relay's key that a certificate is there to tell: its subject is `derpkey<hex>`, its serial number the version of the
/// protocol (X.509: version 3, then the serial number; a name is tag, length, text).
fn told_by(certificate: &[u8]) -> Option<NodePublic> {
    const NAME: &[u8] = b"derpkey";
    const LENGTH: u8 = 7 + 64;
    let serial = [0xa0, 3, 2, 1, 2, 2, 1, u8::try_from(wire::derp::VERSION).ok()?];
    certificate.windows(serial.len()).take(16).find(|bytes| *bytes == serial)?;
    let at =
        certificate.windows(NAME.len() + 1).position(|bytes| bytes[0] == LENGTH && bytes[1..] == *NAME)?;
    let hex = certificate.get(at + 1 + NAME.len()..)?.get(..64)?;
    NodePublic::from_hex(std::str::from_utf8(hex).ok()?).ok()
}

/// Where ciphertext goes.
struct Below<'a>(&'a mut Transport);

impl Write for Below<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes without ever raising a signal.
fn send(socket: &Socket, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let buffers = &buffers[..buffers.len().min(MOST_BUFFERS)];
    retry(|| socket.send_vectored_with_flags(buffers, libc::MSG_NOSIGNAL))
}

/// What a reader waits for; also to get rid of bytes when there are some to send.
fn readable(wants_write: bool) -> PollFlags {
    if wants_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
}

/// Repeats a call that a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests;
