//! What an app answers, for as long as the browser may see it.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Ends when the leave does. Waits for nothing else, so it must be polled along.
pub(super) type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that breaks off when its leave ends.
pub(crate) struct Watched {
    body: Incoming,
    watch: Watch,
}

impl Watched {
    pub(super) fn new(body: Incoming, watch: Watch) -> Self {
        Self { body, watch }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.watch.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the leave to see this has ended".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
