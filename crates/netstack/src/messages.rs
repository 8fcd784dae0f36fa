//! Datagrams, echo and TSMP: what needs no connection.

use std::net::{Ipv6Addr, SocketAddrV6};

use wire::ip::icmpv6::{self, Echo, Kind};
use wire::ip::tsmp::{self, Tsmp};
use wire::ip::{HEADER_LEN, Ipv6};

use crate::event::{Event, SendError};
use crate::format::{self, UDP_HEADER};
use crate::stack::Stack;

impl Stack {
    /// Sends a UDP datagram. `from`'s address must be ours; unspecified stands for the best one.
    ///
    /// # Errors
    /// When it cannot leave in one packet, from that address, to that destination, or now.
    pub fn send_datagram(
        &mut self,
        from: SocketAddrV6,
        to: SocketAddrV6,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if payload.len() > self.config.mtu - HEADER_LEN - UDP_HEADER {
            return Err(SendError::TooLarge);
        }
        if to.port() == 0 {
            return Err(SendError::BadDestination);
        }
        let source = if from.ip().is_unspecified() { self.source(to.ip())? } else { *from.ip() };
        if !self.config.addresses.contains(&source) {
            return Err(SendError::NoSource);
        }
        self.queue_or_fail(format::datagram(&SocketAddrV6::new(source, from.port(), 0, 0), &to, payload))
    }

    /// Sends an ICMPv6 echo request; [`Event::EchoReply`] is the answer.
    ///
    /// # Errors
    /// When there is no address to send from, or too many packets wait.
    pub fn echo(&mut self, to: Ipv6Addr, id: u16, seq: u16) -> Result<(), SendError> {
        let source = self.source(&to)?;
        self.queue_or_fail(icmpv6::build(source, to, &Echo { kind: Kind::Request, id, seq, data: &[] }))
    }

    /// Sends a TSMP ping; [`Event::TsmpPong`] is the answer.
    ///
    /// # Errors
    /// When there is no address to send from, or too many packets wait.
    pub fn tsmp_ping(&mut self, to: Ipv6Addr, data: [u8; 8]) -> Result<(), SendError> {
        let source = self.source(&to)?;
        self.queue_or_fail(tsmp::ping(source, to, data).to_vec())
    }

    pub(crate) fn inject_datagram(&mut self, packet: &Ipv6<'_>) {
        let Some((source, destination, payload)) = format::parse_datagram(packet.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        if self.datagrams >= self.config.datagram_limit {
            self.counters.datagram_overflow += 1;
            return;
        }
        self.datagrams += 1;
        self.events.push_back(Event::Datagram {
            from: SocketAddrV6::new(packet.src(), source, 0, 0),
            to: SocketAddrV6::new(packet.dst(), destination, 0, 0),
            bytes: payload.to_vec(),
        });
    }

    /// Takes in an ICMPv6 message. Its checksum is not looked at: WireGuard has vouched for the bytes, and the reference
    /// implementation sends echo requests with a wrong one.
    pub(crate) fn inject_echo(&mut self, packet: &Ipv6<'_>) {
        match *packet.payload() {
            [format::ECHO_REQUEST, 0, _, _, i, d, s, q, ref data @ ..] => {
                let (id, seq) = (u16::from_be_bytes([i, d]), u16::from_be_bytes([s, q]));
                self.queue(icmpv6::build(
                    packet.dst(),
                    packet.src(),
                    &Echo { kind: Kind::Reply, id, seq, data },
                ));
            }
            [format::ECHO_REPLY, 0, _, _, i, d, s, q, ..] => {
                let (id, seq) = (u16::from_be_bytes([i, d]), u16::from_be_bytes([s, q]));
                self.events.push_back(Event::EchoReply { from: packet.src(), id, seq });
            }
            [format::ECHO_REQUEST | format::ECHO_REPLY, ..] | [] => self.counters.malformed += 1,
            _ => self.counters.unsupported += 1,
        }
    }

    pub(crate) fn inject_tsmp(&mut self, packet: &Ipv6<'_>) {
        match tsmp::parse(packet) {
            Some(Tsmp::Ping(data)) => self.queue(tsmp::pong(packet.dst(), packet.src(), data, 0).to_vec()),
            Some(Tsmp::Pong { data, .. }) => {
                self.events.push_back(Event::TsmpPong { from: packet.src(), data })
            }
            Some(Tsmp::Other(_)) | None => self.counters.unsupported += 1,
        }
    }
}
