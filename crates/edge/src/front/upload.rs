//! The body of a request on its way to the application: only so much, and not too slowly.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::config::BodyLimits;

/// How long a body that is refused is still read, so that the refusal is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Why a body is not passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It comes too slowly.
    #[error("the body comes too slowly")]
    TooSlow,
    /// It is not framed as it should be, or ends early.
    #[error("the body is broken: {0}")]
    Broken(#[source] hyper::Error),
}

impl UploadError {
    /// Finds it among the causes of another error.
    pub(crate) fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

/// A body with its limits.
pub(crate) struct Upload {
    /// `None` once it is refused, and where there is none.
    body: Option<Incoming>,
    room: u64,
    pace: Pace,
    /// Made when the client first keeps us waiting; most bodies are there at once.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// Refuses at once what announces that it is too large. `eager` clients send without asking whether they may.
    pub(crate) fn new(body: Incoming, limits: BodyLimits, eager: bool) -> Result<Self, UploadError> {
        if body.size_hint().lower() > limits.most {
            // A client that asks first has sent nothing; to read would tell it to go on.
            if eager {
                linger(body);
            }
            return Err(UploadError::TooLarge);
        }
        Ok(Self { body: Some(body), room: limits.most, pace: Pace::new(limits), alarm: None })
    }

    /// No body at all.
    pub(crate) fn empty() -> Self {
        let limits = BodyLimits::default();
        Self { body: None, room: 0, pace: Pace::new(limits), alarm: None }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.pace.wait(Instant::now()).into();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            ready!(this.poll_alarm(cx));
            this.body = None;
            return Poll::Ready(Some(Err(UploadError::TooSlow)));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(UploadError::Broken(error)))),
            None => return Poll::Ready(None),
        };
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        this.pace.deliver(Instant::now(), len);
        let Some(room) = this.room.checked_sub(len) else {
            if let Some(rest) = this.body.take() {
                linger(rest);
            }
            return Poll::Ready(Some(Err(UploadError::TooLarge)));
        };
        this.room = room;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn linger(mut body: Incoming) {
    tokio::spawn(tokio::time::timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
}

/// Whether a body keeps coming. Only time that we wait for the client counts: an application may read slowly.
struct Pace {
    limits: BodyLimits,
    /// What is left of the time for the current share.
    left: Duration,
    /// What is left of the current share, bytes.
    share: u64,
    waiting_since: Option<Instant>,
}

impl Pace {
    fn new(limits: BodyLimits) -> Self {
        Self { limits, left: limits.first, share: limits.share, waiting_since: None }
    }

    /// Nothing is there. Returns until when something must be.
    fn wait(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.left
    }

    /// Something has come.
    fn deliver(&mut self, now: Instant, len: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
        match self.share.checked_sub(len) {
            Some(share) if share > 0 => self.share = share,
            _ => (self.share, self.left) = (self.limits.share, self.limits.window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When a body is given up of which `len` bytes come every `every`, if it is within the hour.
    fn given_up(every: Duration, len: u64) -> Option<Duration> {
        let (start, mut pace) = (Instant::now(), Pace::new(BodyLimits::default()));
        let mut now = start;
        while now < start + 3600 * SECOND {
            let deadline = pace.wait(now);
            if deadline < now + every {
                return Some(deadline - start);
            }
            now += every;
            pace.deliver(now, len);
        }
        None
    }

    #[test]
    fn a_body_that_keeps_coming_may_take_its_time() {
        assert_eq!(given_up(SECOND, 1100), None);
        assert_eq!(given_up(15 * SECOND, 20 * 1024), None);
        assert_eq!(given_up(Duration::from_millis(10), 1024), None);
    }

    #[test]
    fn a_trickle_is_given_up_after_the_time_for_small_bodies() {
        assert_eq!(given_up(6 * SECOND, 1), Some(30 * SECOND));
        assert_eq!(given_up(SECOND, 600), Some(30 * SECOND));
        assert_eq!(given_up(60 * SECOND, 1_000_000), Some(30 * SECOND));
    }

    #[test]
    fn a_body_that_stalls_later_is_given_up_a_window_later() {
        assert_eq!(given_up(25 * SECOND, 100_000), Some(45 * SECOND));
    }

    #[test]
    fn time_that_the_application_takes_is_not_the_clients() {
        let (start, mut pace) = (Instant::now(), Pace::new(BodyLimits::default()));
        assert_eq!(pace.wait(start), start + 30 * SECOND);
        pace.deliver(start + SECOND, 1);
        assert_eq!(pace.wait(start + 500 * SECOND), start + 529 * SECOND);
    }
}
