//! How much may be on its way, and how fast it is sent.
//!
//! The connection finds out what was delivered and what was lost; a [`Controller`] turns that into a window and a pace.

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use bbr::Bbr;
pub use cubic::Cubic;

mod bbr;
mod cubic;

/// What may leave before the first acknowledgement (RFC 6928).
const INITIAL_SEGMENTS: u64 = 10;

/// Which controller a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// Loss is congestion; fair to most of the Internet's senders.
    Cubic,
    /// A model of the path out of delivery rate and round trip; loss alone is not congestion.
    Bbr,
}

impl Congestion {
    /// A controller of this kind for segments of `mss` payload bytes.
    pub fn build(self, mss: u64, now: Instant) -> Box<dyn Controller> {
        match self {
            Self::Cubic => Box::new(Cubic::new(mss)),
            Self::Bbr => Box::new(Bbr::new(mss, now)),
        }
    }
}

/// Decides the congestion window and the pacing rate of one connection. Amounts are bytes of payload.
pub trait Controller: Debug + Send {
    /// How many bytes may be on their way.
    fn window(&self) -> u64;

    /// How fast they may leave, in bytes per second; `None`: as fast as the window allows.
    fn pacing_rate(&self) -> Option<u64>;

    /// Bytes left, first time or again; `in_flight` includes them. `idle` when nothing was on its way before.
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64, idle: bool);

    /// An acknowledgement that delivered something, or showed a loss, was processed; `on_congestion` and `on_recovered`
    /// that follow from it come first.
    fn on_ack(&mut self, ack: &Ack);

    /// A recovery episode begins: the first loss since everything outstanding at the last episode's begin was delivered.
    fn on_congestion(&mut self, now: Instant, in_flight: u64);

    /// The recovery episode is over: everything outstanding at its begin was delivered.
    fn on_recovered(&mut self, now: Instant);

    /// The retransmission timer fired: everything outstanding is taken for lost.
    fn on_timeout(&mut self, now: Instant, in_flight: u64);

    /// The last reduction was a mistake: what was taken for lost had arrived.
    fn on_spurious(&mut self, now: Instant);

    /// Its name, as other tools print it: `cubic`, `bbr`.
    fn name(&self) -> &'static str;
}

/// What one acknowledgement said.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// When it came.
    pub now: Instant,
    /// Bytes it is the first to confirm, cumulatively or selectively.
    pub acked: u64,
    /// Bytes newly taken for lost on its evidence.
    pub lost: u64,
    /// Bytes on their way before it.
    pub in_flight_before: u64,
    /// Bytes on their way after it.
    pub in_flight: u64,
    /// Round trip of the newest segment it confirms, unless that segment was sent twice and timestamps do not tell.
    pub rtt: Option<Duration>,
    /// Smoothed round trip, after this sample.
    pub smoothed_rtt: Duration,
    /// Total delivered over the connection, this acknowledgement included.
    pub delivered: u64,
    /// Total lost over the connection.
    pub total_lost: u64,
    /// What the newest confirmed segment's flight says about the path's capacity.
    pub rate: Option<RateSample>,
    /// A recovery episode is under way.
    pub recovering: bool,
    /// The connection had less to send than it was allowed to.
    pub app_limited: bool,
}

/// Delivery rate over the flight of one segment (IETF draft-ietf-ccwg-bbr, delivery rate sampling).
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// Bytes delivered while it was on its way.
    pub delivered: u64,
    /// Over this time: the longer of the send and the acknowledgement phase. Never zero.
    pub interval: Duration,
    /// The connection's total delivered when the segment was sent; a round has passed when this reaches the total at the
    /// round's begin.
    pub prior_delivered: u64,
    /// Bytes on their way just after the segment was sent.
    pub sent_in_flight: u64,
    /// Bytes taken for lost while it was on its way.
    pub lost: u64,
    /// The segment was sent when the application had nothing more to send: the rate may be too low.
    pub app_limited: bool,
}

/// Counts round trips: one has passed when something sent after the last one's end is delivered.
#[derive(Clone, Debug, Default)]
struct Round {
    /// How many have passed.
    count: u64,
    /// Whether one passed with the last acknowledgement.
    passed: bool,
    end: u64,
}

impl Round {
    /// Takes note of an acknowledgement; whether a round trip has passed with it.
    fn on_ack(&mut self, ack: &Ack) -> bool {
        self.passed = ack.rate.is_some_and(|rate| rate.prior_delivered >= self.end);
        if self.passed {
            self.count += 1;
            self.end = ack.delivered;
        }
        self.passed
    }

    /// Begins a new one here.
    fn restart(&mut self, delivered: u64) {
        self.end = delivered;
        self.passed = false;
    }
}

/// `bytes` over `time`, per second.
fn bytes_per_second(bytes: f64, time: Duration) -> u64 {
    (bytes / time.as_secs_f64().max(1e-6)) as u64
}
