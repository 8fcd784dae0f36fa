//! The network device `smoltcp` sees: at most one packet in, at most one large segment out.

use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;

use crate::output::{Outbox, Scratch};

/// Describes the device: no checksums, WireGuard has authenticated what comes in and packets are summed when they are
/// cut; segmentation left to us.
fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum.tcp = Checksum::None;
    capabilities.segmentation.tcpv6 = NonZeroUsize::new(Scratch::capacity(mtu));
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
        crate::ip::write_checksum(&mut packet, 16);
        if !self.outbox.push(packet) {
            *self.overflow += 1;
        }
        result
    }
}

/// The device while a connection sends.
pub struct Egress<'a> {
    pub scratch: &'a mut Scratch,
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
        self.scratch.is_empty().then_some(Segment { scratch: self.scratch, size: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// A large segment being written.
pub struct Segment<'a> {
    scratch: &'a mut Scratch,
    size: Option<NonZeroU16>,
}

impl phy::TxToken for Segment<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(self.scratch.fill(len, self.size.map(|size| usize::from(size.get()))))
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.size = meta.segmentation_offload_size;
    }
}
