//! The byte streams of the relay's thread: plain, TLS that HTTP has begun, and links this relay has dialled.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use relay::server::READ_AT_ONCE;
use rustls::ServerConnection;

/// Ciphertext taken from a socket in one call, into a buffer that all connections share.
pub(crate) const SCRATCH: usize = 64 * 1024;
/// Plaintext that one piece of ciphertext can bring at most: its own length, and a record that was begun before.
const MOST_PLAINTEXT: usize = SCRATCH + 20 * 1024;

/// A connected, non-blocking stream.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
    Link(Box<dial::Stream>),
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// This many bytes, and nothing waits inside the stream.
    Bytes(usize),
    /// This many bytes, and more may wait inside the stream while its socket has none.
    More(usize),
    /// The end.
    End,
}

impl Stream {
    /// Reads up to [`READ_AT_ONCE`] bytes; [`ErrorKind::WouldBlock`] if there is none.
    pub(crate) fn read(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<Got> {
        let most = buffer.len().min(READ_AT_ONCE);
        let buffer = &mut buffer[..most];
        match self {
            Self::Plain(stream) => Ok(match stream.read(buffer)? {
                0 => Got::End,
                count => Got::Bytes(count),
            }),
            Self::Tls(tls) => tls.read(buffer, scratch),
            Self::Link(stream) => read_link(stream, buffer),
        }
    }

    /// Takes what it can; [`ErrorKind::WouldBlock`] when that is nothing.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write_vectored(parts),
            Self::Tls(tls) => tls.write(parts),
            Self::Link(stream) => {
                let taken = stream.write_vectored(parts)?;
                stream.flush_pending()?;
                Ok(taken)
            }
        }
    }

    /// Sends what was taken before, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
            Self::Link(stream) => stream.flush_pending(),
        }
    }

    /// Whether bytes that were taken wait for the socket.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.wants_write(),
            Self::Link(stream) => stream.wants_write(),
        }
    }

    /// Says goodbye where the protocol has words for it.
    pub(crate) fn close(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Tls(tls) => {
                tls.session.send_close_notify();
                // Best effort: the other side will notice anyway.
                let _ = tls.flush();
            }
            Self::Link(stream) => stream.close(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(tls) => tls.socket.as_fd(),
            Self::Link(stream) => stream.as_fd(),
        }
    }
}

fn read_link(stream: &mut dial::Stream, buffer: &mut [u8]) -> io::Result<Got> {
    let mut count = 0;
    while count < buffer.len() {
        match stream.read(&mut buffer[count..]) {
            Ok(0) if count == 0 => return Ok(Got::End),
            // The end is reported again, next time.
            Ok(0) => return Ok(Got::More(count)),
            Ok(fresh) => count += fresh,
            Err(error) if error.kind() == ErrorKind::WouldBlock && count > 0 => return Ok(Got::Bytes(count)),
            Err(error) => return Err(error),
        }
    }
    Ok(Got::More(count))
}

/// The server's side of TLS. Between calls it holds no plaintext and, of ciphertext, only a record's beginning.
pub(crate) struct Tls {
    socket: TcpStream,
    session: ServerConnection,
}

impl Tls {
    pub(crate) fn new(socket: TcpStream, mut session: ServerConnection) -> Self {
        // What is offered at once is bounded already; a limit would only make more records and calls.
        session.set_buffer_limit(None);
        Self { socket, session }
    }

    fn read(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<Got> {
        // The first call finds what was decrypted while HTTP had the connection.
        let mut count = self.drain(buffer, 0)?;
        while buffer.len() - count >= MOST_PLAINTEXT {
            let fresh = match self.socket.read(scratch) {
                Ok(0) if count == 0 => return Ok(Got::End),
                Ok(0) => return Ok(Got::More(count)),
                Ok(fresh) => fresh,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock && count > 0 => break,
                Err(error) => return Err(error),
            };
            let mut unread = &scratch[..fresh];
            while !unread.is_empty() {
                if self.session.read_tls(&mut unread)? == 0 {
                    return Err(ErrorKind::InvalidData.into());
                }
                if let Err(error) = self.session.process_new_packets() {
                    // The alert that says why; the error itself matters more than whether it gets through.
                    let _ = self.flush();
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
                let before = count;
                count = self.drain(buffer, count)?;
                if count == before && self.session.wants_write() {
                    self.flush()?;
                }
            }
            if fresh < scratch.len() && count > 0 {
                break;
            }
        }
        Ok(Got::Bytes(count))
    }

    /// Moves plaintext to `buffer[at..]`. Returns where it ends.
    fn drain(&mut self, buffer: &mut [u8], mut at: usize) -> io::Result<usize> {
        while at < buffer.len() {
            match self.session.reader().read(&mut buffer[at..]) {
                // A clean end; the socket's own end follows.
                Ok(0) => break,
                Ok(fresh) => at += fresh,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        if self.session.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write_vectored(parts)?;
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
