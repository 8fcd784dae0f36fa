//! Whether our router leads packets for its own outside address back in. Two hosts behind it that know each other by that
//! address only depend on it.
//!
//! An extra socket sends a STUN request to our outside address; if it arrives at our own socket, the answer is yes. A router that
//! filters what it leads back in counts as one that does not.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use wire::stun;

use crate::Paths;
use crate::output::{Output, Socket};

/// How long the packet is waited for: it goes to the router and back.
const PATIENCE: Duration = Duration::from_millis(100);

/// A test under way.
#[derive(Debug)]
pub(crate) struct Hairpin {
    socket: Socket,
    tx: stun::TxId,
    pub(crate) until: Instant,
}

impl Paths {
    /// Begins the test of the running check as soon as our outside address is known, if it is not one of this machine.
    pub(crate) fn test_hairpin(&mut self, now: Instant) {
        if self.block_direct || self.hairpin.is_some() {
            return;
        }
        let Some(outside) = self.netcheck.hairpin_wanted() else { return };
        let own = self.endpoints.local().addresses.contains(&IpAddr::V4(*outside.ip()));
        let socket = if own { None } else { self.sockets.open(&mut self.voice.out) };
        let Some(socket) = socket else { return self.netcheck.note_hairpin(None) };
        let tx = stun::TxId(self.voice.chance.bytes());
        let to = SocketAddr::V4(outside);
        self.voice.out.push_back(Output::Udp { to, bytes: stun::request(tx).to_vec(), socket });
        self.hairpin = Some(Hairpin { socket, tx, until: now + PATIENCE });
    }

    /// A STUN packet came that was no answer. Returns whether it was our own request, led back in.
    pub(crate) fn hairpin_arrived(&mut self, packet: &[u8]) -> bool {
        let ours = self.hairpin.as_ref().is_some_and(|test| stun::parse_request(packet) == Ok(test.tx));
        if ours {
            self.end_hairpin(Some(true));
        }
        ours
    }

    /// Ends a test whose packet did not come.
    pub(crate) fn expire_hairpin(&mut self, now: Instant) {
        if self.hairpin.as_ref().is_some_and(|test| now >= test.until) {
            self.end_hairpin(Some(false));
        }
    }

    /// Ends the test, if there is one.
    pub(crate) fn end_hairpin(&mut self, outcome: Option<bool>) {
        if let Some(test) = self.hairpin.take() {
            self.sockets.close(test.socket, &mut self.voice.out);
            self.netcheck.note_hairpin(outcome);
        }
    }
}
