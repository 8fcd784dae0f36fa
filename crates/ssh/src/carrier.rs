//! A stream whose writer does not wait for its reader.
//!
//! The library's loop does not read while it writes. With the same loop at the other end, both would wait for each other
//! as soon as both sides' buffers are full. Here writing takes a copy and returns; what is left over leaves whenever the
//! stream is read from, which the loop does whenever it has nothing else to do.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait to leave; the windows of channels keep a connection far below.
const LIMIT: usize = 16 << 20;

/// Wraps a stream; see the module.
#[derive(Debug)]
pub(crate) struct Carrier<S> {
    stream: S,
    waiting: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, waiting: BytesMut::new() }
    }

    /// Writes what waits until the stream takes no more; ready when nothing waits.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => self.waiting.advance(length),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Carrier<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_leave(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Carrier<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_leave(cx) {
            return Poll::Ready(Err(error));
        }
        let taken = if self.waiting.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Ready(outcome) => return Poll::Ready(outcome),
                Poll::Pending => bytes.len(),
            }
        } else {
            bytes.len().min(LIMIT.saturating_sub(self.waiting.len()))
        };
        if taken == 0 {
            return Poll::Pending;
        }
        self.waiting.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Does not wait either: reading goes on with it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_leave(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_leave(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_shutdown(cx),
            other => other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_ends_write_more_than_fits_and_then_read() {
        let (left, right) = tokio::io::duplex(1000);
        let (mut left, mut right) = (Carrier::new(left), Carrier::new(right));
        let (a, b) = (vec![1; 100_000], vec![2; 100_000]);
        left.write_all(&a).await.unwrap();
        left.flush().await.unwrap();
        right.write_all(&b).await.unwrap();
        let (mut got_a, mut got_b) = (vec![0; a.len()], vec![0; b.len()]);
        let (first, second) = tokio::join!(left.read_exact(&mut got_b), right.read_exact(&mut got_a));
        first.and(second).unwrap();
        assert!(got_a == a && got_b == b);
    }
}
