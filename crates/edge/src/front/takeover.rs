//! A stream that can be taken away from the HTTP server together with the answer to its upgrade.
//!
//! A DERP client is answered with exact bytes, in one write with the greeting, or (fast start) with no HTTP at all. The
//! HTTP server would write its own idea of a 101. So once a request is taken over, that answer is swallowed here and
//! whoever gets the stream writes what is due.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::socket::Socket;
use crate::relay_thread::Stream;

/// How the answer to be swallowed starts. Answers to earlier requests may still be on their way in front of it.
const ANSWER: &[u8] = b"HTTP/1.1 101 ";

/// Announces that a stream is about to be taken over.
#[derive(Clone, Default)]
pub(super) struct Takeover(Arc<AtomicBool>);

impl Takeover {
    /// From here on, the HTTP server's 101 is not written.
    pub(super) fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_announced(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stream given to the HTTP server.
pub(super) struct TakeoverStream {
    inner: TokioIo<Socket>,
    takeover: Takeover,
}

impl TakeoverStream {
    pub(super) fn new(socket: Socket, takeover: Takeover) -> Self {
        Self { inner: TokioIo::new(socket), takeover }
    }

    /// The bare stream, non-blocking, no longer known to the event loop.
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        self.inner.into_inner().into_stream()
    }
}

impl Read for TakeoverStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for TakeoverStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.takeover.is_announced() {
            match find(buf, ANSWER) {
                Some(0) => return Poll::Ready(Ok(buf.len())),
                Some(before) => return Pin::new(&mut self.inner).poll_write(cx, &buf[..before]),
                None => {}
            }
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.takeover.is_announced() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
