//! Absolute time limits, and waiting for sockets within them.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The moment by which a blocking call returns, done or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// At this moment.
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// This long from now.
    pub fn after(span: Duration) -> Self {
        Self(Instant::now() + span)
    }

    /// The earlier of this and `span` from now.
    pub(crate) fn within(self, span: Duration) -> Self {
        self.min(Self::after(span))
    }

    /// Time left; `None` when there is none.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    pub(crate) fn passed(self) -> bool {
        self.remaining().is_none()
    }
}

/// Waits until one of `sockets` is ready. Returns how many are; 0 at the deadline.
pub(crate) fn wait_any(sockets: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<usize> {
    while let Some(left) = deadline.remaining() {
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(sockets, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(ready) => return Ok(ready),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

/// Waits until `socket` is ready for one of these.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline.
pub(crate) fn wait(socket: &impl AsFd, interest: PollFlags, deadline: Deadline) -> io::Result<()> {
    match wait_any(&mut [PollFd::new(socket, interest)], deadline)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
