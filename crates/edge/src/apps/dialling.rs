//! Streams into workspaces, from whoever has the tunnels.

use std::net::SocketAddrV6;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// How long a stream may take to open.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// There is no tunnel to that address.
    #[error("no tunnel")]
    NoTunnel,
    /// Nothing listens on that port.
    #[error("refused")]
    Refused,
    /// No answer.
    #[error("no answer in time")]
    Timeout,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// Takes the outcome: one end of a socket pair. Called once, from any thread.
pub type DialReply = Box<dyn FnOnce(Result<OwnedFd, DialError>) + Send>;

/// Opens streams to addresses inside the tunnel. Neither call waits.
pub trait Dial: Send + Sync {
    /// Starts to open a stream; returns a name for [`Dial::cancel`].
    fn open(&self, to: SocketAddrV6, reply: DialReply) -> u64;
    /// Gives one up.
    fn cancel(&self, name: u64);
}

/// Cancels when it is dropped in time.
struct Pending {
    dial: Arc<dyn Dial>,
    name: u64,
    answered: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            self.dial.cancel(self.name);
        }
    }
}

/// Opens a stream.
pub(super) async fn open(dial: Arc<dyn Dial>, to: SocketAddrV6) -> Result<UnixStream, DialError> {
    let (reply, answer) = oneshot::channel();
    let name = dial.open(to, Box::new(move |outcome| drop(reply.send(outcome))));
    let mut pending = Pending { dial, name, answered: false };
    let outcome = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| DialError::Timeout)?;
    pending.answered = true;
    let fd = outcome.map_err(|_| DialError::NoTunnel)??;
    let failed = |error: std::io::Error| DialError::Other(error.to_string());
    let stream = StdUnixStream::from(fd);
    stream.set_nonblocking(true).map_err(failed)?;
    UnixStream::from_std(stream).map_err(failed)
}
