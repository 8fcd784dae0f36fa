//! The network device `smoltcp` sees: at most one packet in or one packet out.
//!
//! Packets are not handed over in large segments to be cut up here: writing each one straight to its final place costs
//! less than the second copy would.

use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::ip;
use crate::output::Outbox;

/// Where TCP's checksum lies in its header.
const CHECKSUM: usize = 16;

/// Describes the device. It leaves checksums to us: WireGuard has authenticated what comes in, and what goes out is
/// summed once it is whole.
fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum.tcp = Checksum::None;
    capabilities
}

/// The device while one packet is taken in; what is answered at once goes to the outbox.
pub struct Ingress<'a> {
    pub packet: Option<&'a [u8]>,
    pub outbox: &'a mut Outbox,
    pub overflow: &'a mut u64,
    pub mtu: usize,
}

impl phy::Device for Ingress<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Answer<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Answer<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Answer { outbox: self.outbox, overflow: self.overflow }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Answer<'_>> {
        Some(Answer { outbox: self.outbox, overflow: self.overflow })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// A packet being taken in.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// An answer to the packet being taken in: never carries data, so it is always small.
pub struct Answer<'a> {
    outbox: &'a mut Outbox,
    overflow: &'a mut u64,
}

impl phy::TxToken for Answer<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        ip::write_checksum(&mut packet, CHECKSUM);
        if !self.outbox.push(packet) {
            *self.overflow += 1;
        }
        result
    }
}

/// The device while a connection sends one packet.
pub struct Egress<'a> {
    /// Where the packet goes; empty when none may be sent.
    pub room: &'a mut [u8],
    /// How long it became; 0 when there was nothing to send.
    pub written: usize,
    pub mtu: usize,
}

impl phy::Device for Egress<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Segment<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Segment<'_>)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Segment<'_>> {
        (self.room.len() >= self.mtu).then_some(Segment { room: self.room, written: &mut self.written })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// A packet being written; never longer than the MTU.
pub struct Segment<'a> {
    room: &'a mut [u8],
    written: &'a mut usize,
}

impl phy::TxToken for Segment<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let packet = &mut self.room[..len];
        let result = f(packet);
        ip::write_checksum(packet, CHECKSUM);
        *self.written = len;
        result
    }
}
