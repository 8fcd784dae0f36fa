//! The node's UDP sockets, one per family: don't-fragment, large buffers, whole batches a call (GSO and GRO).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use paths::{OWN_SOCKET, Socket as PathSocket};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// Kernel buffer asked for in each direction; the kernel grants what its limits allow.
const KERNEL_BUFFER: usize = 7 << 20;
/// One receive takes up to this many coalesced messages …
const MESSAGES: usize = 4;
/// … of at most this size each (the largest UDP payload).
const MESSAGE_SIZE: usize = 65_536;
/// Below this a copy is cheaper than giving the buffer away.
const SMALL: usize = 4096;
/// Most bytes of one segmented send: a whole number of datagrams below the largest UDP payload.
pub(crate) const MAX_BATCH: usize = 65_000;

/// Which of a node's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    V4,
    V6,
    /// One that `paths` asked for, by its name there.
    Extra(PathSocket),
}

impl Port {
    /// The one that sends to an address on behalf of a socket of `paths`.
    pub(crate) fn of(socket: PathSocket, to: SocketAddr) -> Self {
        match socket {
            OWN_SOCKET if to.is_ipv4() => Self::V4,
            OWN_SOCKET => Self::V6,
            extra => Self::Extra(extra),
        }
    }

    /// Its name in `paths`.
    pub(crate) fn socket(self) -> PathSocket {
        match self {
            Self::V4 | Self::V6 => OWN_SOCKET,
            Self::Extra(socket) => socket,
        }
    }

    pub(crate) fn encode(self) -> u32 {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
            Self::Extra(socket) => 2 + u32::from(socket),
        }
    }

    pub(crate) fn decode(number: u32) -> Self {
        match number {
            0 => Self::V4,
            1 => Self::V6,
            extra => Self::Extra(PathSocket::try_from(extra - 2).unwrap_or_default()),
        }
    }
}

/// One bound socket.
pub(crate) struct Udp {
    socket: Socket,
    state: UdpSocketState,
    port: u16,
    /// The kernel's buffer is full; the loop waits until the socket is writable.
    pub(crate) blocked: bool,
}

impl Udp {
    /// Binds the family's wildcard address. Port 0 takes any free port.
    pub(crate) fn bind(v6: bool, port: u16) -> io::Result<Self> {
        let udp = Self::bind_small(v6, port)?;
        udp.grow();
        Ok(udp)
    }

    /// The same with buffers as the system gives them, for probes.
    pub(crate) fn bind_small(v6: bool, port: u16) -> io::Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if v6 {
            socket.set_only_v6(true)?;
        }
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, port).into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self { socket, state, port, blocked: false })
    }

    /// Gives it buffers that traffic needs.
    pub(crate) fn grow(&self) {
        grow(&self.socket);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter), all or none.
    pub(crate) fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let socket = UdpSockRef::from(&self.socket);
        let segment_size = (segment < contents.len()).then_some(segment);
        if segment_size.is_some() && self.max_segments() == 1 {
            return contents.chunks(segment).try_for_each(|datagram| self.send(to, datagram, datagram.len()));
        }
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        self.state.try_send(socket, &transmit)
    }

    /// Receives a batch into `batch`. An error other than `WouldBlock` belongs to an earlier send and is skipped.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.prepare();
        let (first, rest) = batch.buffers.split_at_mut(1);
        let (second, rest) = rest.split_at_mut(1);
        let (third, fourth) = rest.split_at_mut(1);
        let mut slices = [
            IoSliceMut::new(&mut first[0]),
            IoSliceMut::new(&mut second[0]),
            IoSliceMut::new(&mut third[0]),
            IoSliceMut::new(&mut fourth[0]),
        ];
        batch.filled = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut batch.metas)?;
        Ok(())
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for large kernel buffers; a process with the right gets them past the system's limit.
fn grow(socket: &Socket) {
    let bytes = KERNEL_BUFFER as libc::c_int;
    let forced = |option| {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for the call and the option's value is a c_int of that size.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            ) == 0
        }
    };
    if !forced(libc::SO_RCVBUFFORCE) {
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    }
    if !forced(libc::SO_SNDBUFFORCE) {
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    }
}

/// Receive buffers of the thread, borrowed by one socket at a time.
///
/// A received message is split into datagrams without copying; once those are dropped the memory is used again.
pub(crate) struct Batch {
    buffers: [BytesMut; MESSAGES],
    metas: [RecvMeta; MESSAGES],
    filled: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { buffers: Default::default(), metas: Default::default(), filled: 0 }
    }

    fn prepare(&mut self) {
        self.filled = 0;
        for buffer in &mut self.buffers {
            if buffer.len() < MESSAGE_SIZE {
                buffer.clear();
                buffer.reserve(MESSAGE_SIZE);
                buffer.resize(MESSAGE_SIZE, 0);
            }
        }
    }

    /// The datagrams of the last receive, in order.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(SocketAddr, BytesMut)) {
        for (buffer, meta) in self.buffers.iter_mut().zip(&self.metas).take(self.filled) {
            let length = meta.len.min(MESSAGE_SIZE);
            let stride = meta.stride.max(1);
            let mut rest =
                if length <= SMALL { BytesMut::from(&buffer[..length]) } else { buffer.split_to(length) };
            while !rest.is_empty() {
                let datagram = rest.split_to(stride.min(rest.len()));
                each(unmap(meta.addr), datagram);
            }
        }
        self.filled = 0;
    }
}

/// IPv4 addresses never travel as v4-mapped IPv6 inside the program.
fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One receive of `datagrams` datagrams of 1000 bytes, each filled with its number.
    fn receive(batch: &mut Batch, datagrams: u8) -> Vec<BytesMut> {
        batch.prepare();
        for (number, datagram) in batch.buffers[0].chunks_mut(1000).take(datagrams.into()).enumerate() {
            datagram.fill(number as u8);
        }
        (batch.metas[0].len, batch.metas[0].stride, batch.filled) = (1000 * usize::from(datagrams), 1000, 1);
        let mut all = Vec::new();
        batch.drain(|_, datagram| all.push(datagram));
        all
    }

    #[test]
    fn memory_is_used_again_once_its_datagrams_are_gone_and_not_before() {
        let mut batch = Batch::new();
        let kept = receive(&mut batch, 40);
        let place = kept[0].as_ptr();
        let other = receive(&mut batch, 20);
        assert_ne!(other[0].as_ptr(), place);
        assert!(kept.iter().enumerate().all(|(number, datagram)| datagram[..] == [number as u8; 1000]));
        let place = other[0].as_ptr();
        drop(other);
        let taken = BytesMut::zeroed(MESSAGE_SIZE); // would have what was given back
        assert_eq!(receive(&mut batch, 40)[0].as_ptr(), place);
        drop(taken);
    }
}
