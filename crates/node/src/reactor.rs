//! Readiness of descriptors, level-triggered: what is not wanted is not registered, so nothing spins.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::events::NodeId;
use crate::udp::Port;

/// Ready descriptors taken at once.
const READY: usize = 256;

/// What a ready descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A command waits.
    Wake,
    /// The machine's addresses changed.
    Interfaces,
    /// One of a node's UDP sockets.
    Udp(NodeId, Port),
    /// The relay connection to a region.
    Relay(NodeId, u16),
    /// The local end of a stream.
    Stream(NodeId, u32),
    /// A connection to a local service that is being made.
    Service(NodeId, u32),
    /// The local socket of a UDP flow.
    Datagrams(NodeId, u32),
    /// A local socket whose datagrams go to a peer.
    Callers(NodeId, u32),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, node, index) = match self {
            Self::Wake => (0, 0, 0),
            Self::Interfaces => (1, 0, 0),
            Self::Udp(node, port) => (2, node, port.encode()),
            Self::Relay(node, region) => (3, node, u32::from(region)),
            Self::Stream(node, index) => (4, node, index),
            Self::Service(node, index) => (5, node, index),
            Self::Datagrams(node, index) => (6, node, index),
            Self::Callers(node, index) => (7, node, index),
        };
        kind << 61 | u64::from(node & 0x1fff_ffff) << 32 | u64::from(index)
    }

    fn decode(token: u64) -> Self {
        let node = (token >> 32) as u32 & 0x1fff_ffff;
        let index = token as u32;
        match token >> 61 {
            0 => Self::Wake,
            1 => Self::Interfaces,
            2 => Self::Udp(node, Port::decode(index)),
            3 => Self::Relay(node, index as u16),
            4 => Self::Stream(node, index),
            5 => Self::Service(node, index),
            6 => Self::Datagrams(node, index),
            _ => Self::Callers(node, index),
        }
    }
}

/// What a descriptor is watched for, or is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const READ: Self = Self { read: true, write: false };
    pub(crate) const WRITE: Self = Self { read: false, write: true };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// One ready descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) interest: Interest,
    /// Both directions are over, or there is an error to collect. Reported even where nothing was asked for.
    pub(crate) hung_up: bool,
}

pub(crate) struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(source.encode()), interest.flags())?)
    }

    /// Watches for something else. Fails only when the descriptor is not registered, which is harmless.
    pub(crate) fn set(&self, fd: impl AsFd, source: Source, interest: Interest) {
        let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(source.encode()), interest.flags());
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or the time is over; `None` waits for ever.
    pub(crate) fn wait(&self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(3600) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = [const { MaybeUninit::uninit() }; READY];
        let events = match epoll::wait(&self.epoll, &mut events, limit.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ready.extend(events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                source: Source::decode(event.data.u64()),
                interest: Interest {
                    read: flags.contains(epoll::EventFlags::IN),
                    write: flags.contains(epoll::EventFlags::OUT),
                },
                hung_up: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            }
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_token() {
        for source in [
            Source::Wake,
            Source::Interfaces,
            Source::Udp(7, Port::V4),
            Source::Udp(7, Port::V6),
            Source::Udp(7, Port::Extra(65_535)),
            Source::Relay(0x1fff_ffff, 65_535),
            Source::Stream(1, u32::MAX),
            Source::Service(2, 3),
            Source::Datagrams(9, 0),
            Source::Callers(9, 1),
        ] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }
}
