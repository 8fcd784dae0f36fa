//! What happens with a TCP segment that came in.

use std::time::Instant;

use tcp::{RST, Segment};
use wire::ip::Ipv6;

use crate::connection::Key;
use crate::event::Event;
use crate::format;
use crate::held::Outcome;
use crate::stack::Stack;

impl Stack {
    /// Takes in a TCP segment addressed to us.
    pub(crate) fn inject_tcp(&mut self, now: Instant, packet: &Ipv6<'_>) {
        let Some(segment) = Segment::parse(packet.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        let key = Key::new(packet.dst(), segment.destination, packet.src(), segment.source);
        let found = self.find(&key);
        let connection = found.and_then(|index| self.connections.get(index as usize));
        let gone = connection.is_none_or(|connection| connection.tcp.is_over());
        if segment.opens() && (gone || connection.is_some_and(|connection| connection.replaceable())) {
            match found.filter(|_| connection.is_some_and(|connection| connection.released)) {
                Some(index) => self.remove(index),
                None if found.is_some() => return self.stray(&key, &segment),
                None => {}
            }
            return self.hold(now, key, packet, &segment);
        }
        match found.filter(|_| !gone) {
            Some(index) => self.segment(now, index, &segment),
            None => self.stray(&key, &segment),
        }
    }

    /// A segment of a connection we have.
    #[inline]
    fn segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let events = &mut self.events;
        if let Some(connection) = self.connections.get_mut(index as usize) {
            connection.tcp.arrives(now, segment);
            connection.notice(&mut |event| events.push_back(event));
        }
        self.touch(index);
    }

    /// A SYN to a port: held until the shell decides.
    fn hold(&mut self, now: Instant, key: Key, packet: &Ipv6<'_>, segment: &Segment<'_>) {
        let header = packet.payload().len() - segment.payload.len();
        let header = packet.payload().get(..header).unwrap_or_default();
        let (limit, keep) = (self.config.held_limit, self.config.held_timeout);
        match self.waiting.syn(now, key, header, limit, keep) {
            Outcome::New(id) => {
                self.events.push_back(Event::Incoming { id, from: key.remote, to: key.local })
            }
            Outcome::Known => {}
            Outcome::Full => self.counters.held_overflow += 1,
        }
    }

    /// A segment that belongs to nothing.
    fn stray(&mut self, key: &Key, segment: &Segment<'_>) {
        self.counters.stray += 1;
        if segment.has(RST) {
            self.waiting.withdraw(key);
        } else {
            self.queue(format::reset(key, segment));
        }
    }
}
