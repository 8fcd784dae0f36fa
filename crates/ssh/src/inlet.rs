//! What a client sends on a channel, taken off the connection at once.
//!
//! The connection's loop waits for whoever reads a channel, and whoever writes to the client waits for the loop: a reader
//! that paused until its process has read would stop them all. So nothing pauses here; instead, while much waits to be
//! read, the client is allowed to send hardly anything.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};

/// How much a client may send ahead on one channel.
pub(crate) const WINDOW: u32 = 2 << 20;
/// Bytes that may wait to be read, over all channels of a connection, before the windows shut.
const PLENTY: usize = 4 << 20;
/// The smallest window the library opens again by itself once it is used up.
const SHUT: u32 = 2;

/// Bytes of one connection that wait to be read.
#[derive(Clone, Default)]
pub(crate) struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// The window a channel gets now.
    pub(crate) fn window(&self) -> u32 {
        if self.0.load(Ordering::Relaxed) < PLENTY { WINDOW } else { SHUT }
    }
}

/// The readable side of a channel.
pub(crate) struct Inlet {
    queue: mpsc::UnboundedReceiver<Bytes>,
    current: Bytes,
    backlog: Backlog,
    gone: watch::Receiver<bool>,
}

/// Splits a channel into what comes and what goes.
pub(crate) fn open(channel: Channel<Msg>, backlog: &Backlog) -> (Inlet, ChannelWriteHalf<Msg>) {
    let (incoming, outgoing) = channel.split();
    let (sender, queue) = mpsc::unbounded_channel();
    let (leave, gone) = watch::channel(false);
    tokio::spawn(take(incoming, sender, backlog.clone(), leave));
    (Inlet { queue, current: Bytes::new(), backlog: backlog.clone(), gone }, outgoing)
}

async fn take(
    mut incoming: ChannelReadHalf,
    sender: mpsc::UnboundedSender<Bytes>,
    backlog: Backlog,
    leave: watch::Sender<bool>,
) {
    let mut sender = Some(sender);
    loop {
        match incoming.wait().await {
            Some(ChannelMsg::Data { data }) => {
                let length = data.len();
                if sender.as_ref().is_some_and(|sender| sender.send(data).is_ok()) {
                    backlog.0.fetch_add(length, Ordering::Relaxed);
                }
            }
            Some(ChannelMsg::Eof) => sender = None,
            Some(ChannelMsg::Close) | None => break,
            Some(_) => {}
        }
    }
    let _ = leave.send(true);
}

impl Inlet {
    /// Resolves when the client has closed the channel, or is gone.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut gone = self.gone.clone();
        async move {
            let _ = gone.wait_for(|gone| *gone).await;
        }
    }

    fn count_off(&self, length: usize) {
        self.backlog.0.fetch_sub(length, Ordering::Relaxed);
    }
}

impl AsyncRead for Inlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.current.is_empty() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(next) => self.current = next,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = into.remaining().min(self.current.len());
        into.put_slice(&self.current.split_to(length));
        self.count_off(length);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.queue.close();
        self.count_off(self.current.len());
        while let Ok(data) = self.queue.try_recv() {
            self.count_off(data.len());
        }
    }
}
