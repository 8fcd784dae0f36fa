//! What the data thread tells Python: one bounded queue, one descriptor that is readable while it holds something.
//! Facts about the same thing merge instead of queueing; answers to requests are bounded by the requests themselves.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paths::{Path, Report};
use rustix::event::{EventfdFlags, eventfd};
use speedtest::Row;
use wire::keys::NodePublic;

/// Names a node of an engine.
pub type NodeId = u32;
/// Names a request; chosen by the engine, unique for its life.
pub type RequestId = u64;

/// Connections that wait for Python to take them; more are refused.
const INCOMING_LIMIT: usize = 256;

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// The node's own facts changed: what it must tell its peers.
    SelfChanged {
        /// Home region, 0 while there is none.
        home: u16,
        /// Seconds to each region, keys as in the node record (`999-v4`).
        latencies: BTreeMap<String, f64>,
        /// Where the node may be reached directly.
        endpoints: Vec<SocketAddr>,
    },
    /// A peer is reached another way than before.
    PathChanged {
        /// The peer.
        peer: NodePublic,
        /// The way.
        path: Path,
    },
    /// A stream for a port that Python answers.
    Incoming {
        /// The port that was asked for.
        port: u16,
        /// Who asks, an address inside the tunnel.
        from: SocketAddrV6,
        /// Our end of the stream.
        stream: OwnedFd,
    },
    /// A relay could not be reached or was lost, and is tried again; without a text it is well again.
    RelayProblem {
        /// Its region.
        region: u16,
        /// What went wrong, one line; empty when it is over.
        text: String,
    },
    /// A region is reached over WebSocket because the plain upgrade was refused.
    ForcedWebsocket {
        /// The region.
        region: u16,
        /// Why.
        reason: String,
    },
    /// The machine moved to another network, or slept: connections made before may be dead.
    NetworkChanged,
    /// A check of the network ended.
    Report(Box<Report>),
    /// A request is done.
    Done {
        /// The request.
        request: RequestId,
        /// Its answer.
        answer: Answer,
    },
    /// A speed test finished an interval.
    Progress {
        /// The test's request.
        request: RequestId,
        /// The interval.
        interval: Row,
    },
    /// The data thread ended by itself: nothing works any more.
    Failed {
        /// Why.
        text: String,
    },
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// A disco ping came back.
    Pong {
        /// Round trip.
        latency: Duration,
        /// Over which path.
        path: Path,
    },
    /// A TSMP ping or an ICMP echo came back.
    Reached(Duration),
    /// The check of the network that was asked for ended; an earlier event has its report.
    Checked,
    /// A stream is open.
    Stream(OwnedFd),
    /// A splice ended, both directions finished.
    Spliced,
    /// A speed test's result.
    Speedtest {
        /// The finished intervals.
        intervals: Vec<Row>,
        /// From the first to the last byte.
        total: Row,
        /// Segments this end sent again.
        retransmits: u64,
    },
    /// It failed.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No peer has that address.
    #[error("no peer has this address")]
    NoPeer,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The other end refused the connection.
    #[error("connection refused")]
    Refused,
    /// The other end reset the connection.
    #[error("connection reset")]
    Reset,
    /// The peer's answer made no sense, or said no.
    #[error("{0}")]
    Protocol(String),
    /// The operating system said no.
    #[error("{0}")]
    System(String),
    /// The node was closed.
    #[error("the node is closed")]
    Closed,
}

/// Whoever asked from Rust and is told directly, in the data thread: it must not wait for anything.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// The queue between the data thread and Python.
pub struct Events {
    queue: Mutex<Queue>,
    replies: Mutex<BTreeMap<RequestId, Reply>>,
    readable: OwnedFd,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<(NodeId, Event)>,
    incoming: usize,
}

impl Events {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            queue: Mutex::new(Queue::default()),
            replies: Mutex::default(),
            readable: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Takes everything that waits.
    pub fn take(&self) -> Vec<(NodeId, Event)> {
        let mut buffer = [0; 8];
        let _ = rustix::io::read(&self.readable, &mut buffer);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.incoming = 0;
        queue.items.drain(..).collect()
    }

    /// Has the answer to a request go to `reply` instead of the queue.
    pub(crate) fn expect(&self, request: RequestId, reply: Reply) {
        self.replies().insert(request, reply);
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&self, request: RequestId) {
        self.replies().remove(&request);
    }

    fn replies(&self) -> MutexGuard<'_, BTreeMap<RequestId, Reply>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. One that waits about the same thing is replaced; a stream nobody takes is closed.
    pub(crate) fn push(&self, node: NodeId, event: Event) {
        let event = match event {
            Event::Done { request, answer } => {
                let reply = self.replies().remove(&request);
                match reply {
                    Some(reply) => return reply(answer),
                    None => Event::Done { request, answer },
                }
            }
            other => other,
        };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(event, Event::Incoming { .. }) {
            if queue.incoming >= INCOMING_LIMIT {
                return;
            }
            queue.incoming += 1;
        }
        let place = queue.items.iter_mut().find(|(of, waiting)| *of == node && supersedes(&event, waiting));
        match place {
            Some(place) => place.1 = event,
            None => queue.items.push_back((node, event)),
        }
        drop(queue);
        let _ = rustix::io::write(&self.readable, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

fn supersedes(new: &Event, old: &Event) -> bool {
    match (new, old) {
        (Event::SelfChanged { .. }, Event::SelfChanged { .. })
        | (Event::NetworkChanged, Event::NetworkChanged)
        | (Event::Report(_), Event::Report(_)) => true,
        (Event::PathChanged { peer: new, .. }, Event::PathChanged { peer: old, .. }) => new == old,
        (Event::RelayProblem { region: new, .. }, Event::RelayProblem { region: old, .. }) => new == old,
        (Event::ForcedWebsocket { region: new, .. }, Event::ForcedWebsocket { region: old, .. }) => {
            new == old
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_goes_to_who_asked_and_else_into_the_queue() {
        let events = Events::new().unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        for request in [1, 2] {
            let told = told.clone();
            events.expect(request, Box::new(move |answer| told.send((request, answer)).unwrap()));
        }
        events.forget(2);
        for request in [1, 2, 1] {
            events.push(7, Event::Done { request, answer: Answer::Checked });
        }
        assert!(matches!(heard.try_recv().unwrap(), (1, Answer::Checked)));
        assert!(heard.try_recv().is_err());
        assert_eq!(events.take().len(), 2);
    }
}
