//! Senders with perfect loss detection over a simulated path, in virtual time: what a controller does when nothing else errs.
//!
//! Each packet is acknowledged by itself; since the path keeps the order, whatever was sent before an acknowledged packet
//! and is not acknowledged is lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sim::{Bottleneck, Shape};
use tcp::congestion::{Ack, Congestion, Controller, RateSample};

pub const MSS: u64 = 1220;
/// What a packet weighs on the link.
const PACKET: u64 = 1280;

/// Bytes per second of so many Mbit/s.
pub fn mbit(mbit: u64) -> u64 {
    mbit * 125_000
}

/// A clean path; the queue holds so many bandwidth-delay products.
pub fn shape(rate_mbit: u64, rtt: Duration, queue_bdp: f64) -> Shape {
    let rate = mbit(rate_mbit);
    let queue = rate as f64 * rtt.as_secs_f64() * queue_bdp;
    Shape::new(rate, rtt / 2, queue as u64)
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u64,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    in_flight: u64,
    lost: u64,
    app_limited: bool,
}

/// What a flow did over a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub mbit: f64,
    /// Part of what was sent.
    pub loss: f64,
    /// Mean of the time spent in the queue, by samples of the round trip.
    pub queueing_ms: f64,
}

/// One flow.
pub struct Flow {
    pub controller: Box<dyn Controller>,
    /// Bytes per second the application has to send; `None`: always more.
    pub app: Option<u64>,
    start: Instant,
    next_id: u64,
    outstanding: VecDeque<Sent>,
    in_flight: u64,
    pub delivered: u64,
    pub lost: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    app_sent: u64,
    app_limited_until: u64,
    next_send: Instant,
    smoothed_rtt: Option<Duration>,
    shortest_rtt: Duration,
    timeout_at: Option<Instant>,
    backoff: u32,
    recovery_until: Option<u64>,
    mark: (u64, u64, f64, u64),
    rtt_sum: f64,
    rtt_count: u64,
}

impl Flow {
    pub fn new(kind: Congestion, start: Instant) -> Self {
        Self {
            controller: kind.build(MSS, start),
            app: None,
            start,
            next_id: 0,
            outstanding: VecDeque::new(),
            in_flight: 0,
            delivered: 0,
            lost: 0,
            delivered_at: start,
            first_sent_at: start,
            app_sent: 0,
            app_limited_until: 0,
            next_send: start,
            smoothed_rtt: None,
            shortest_rtt: Duration::MAX,
            timeout_at: None,
            backoff: 0,
            recovery_until: None,
            mark: (0, 0, 0.0, 0),
            rtt_sum: 0.0,
            rtt_count: 0,
        }
    }

    /// The application's budget begins anew.
    pub fn reset_app(&mut self, now: Instant) {
        self.start = now;
        self.app_sent = 0;
    }

    fn app_has_more(&self, now: Instant) -> bool {
        let earned = |rate: u64| (rate as f64 * (now - self.start).as_secs_f64()) as u64;
        now >= self.start && self.app.is_none_or(|rate| self.app_sent + MSS <= earned(rate))
    }

    /// When it next wants to act by itself.
    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let room = self.in_flight + MSS <= self.controller.window();
        let app = match self.app {
            None => self.start,
            Some(rate) => {
                self.start + Duration::from_secs_f64((self.app_sent + MSS) as f64 / rate as f64 + 1e-6)
            }
        };
        let sends = room.then(|| self.next_send.max(app).max(now));
        [sends, self.timeout_at].into_iter().flatten().min()
    }

    fn act(&mut self, now: Instant, index: usize, path: &mut Bottleneck<(usize, u64)>) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.time_out(now);
        }
        while self.in_flight + MSS <= self.controller.window() && self.next_send <= now {
            if !self.app_has_more(now) {
                self.app_limited_until = (self.delivered + self.in_flight).max(1);
                break;
            }
            self.send(now, index, path);
        }
    }

    fn send(&mut self, now: Instant, index: usize, path: &mut Bottleneck<(usize, u64)>) {
        let idle = self.in_flight == 0;
        if idle {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.in_flight += MSS;
        self.app_sent += MSS;
        self.outstanding.push_back(Sent {
            id: self.next_id,
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight: self.in_flight,
            lost: self.lost,
            app_limited: self.app_limited_until > self.delivered,
        });
        path.send(now, PACKET, (index, self.next_id));
        self.next_id += 1;
        self.controller.on_sent(now, MSS, self.in_flight, idle);
        if let Some(rate) = self.controller.pacing_rate() {
            let gap = Duration::from_secs_f64(MSS as f64 / rate.max(1000) as f64);
            self.next_send = self.next_send.max(now) + gap;
        }
        if self.timeout_at.is_none() {
            self.arm(now);
        }
    }

    fn arm(&mut self, now: Instant) {
        let rtt = self.smoothed_rtt.unwrap_or(Duration::from_secs(1));
        let timeout = (rtt * 2).max(Duration::from_millis(200)) * (1 << self.backoff.min(6));
        self.timeout_at = (!self.outstanding.is_empty()).then(|| now + timeout);
    }

    fn time_out(&mut self, now: Instant) {
        self.controller.on_timeout(now, 0);
        self.lost += self.in_flight;
        self.in_flight = 0;
        self.outstanding.clear();
        self.backoff += 1;
        self.recovery_until = Some(self.next_id);
        self.timeout_at = None;
        self.next_send = now;
    }

    /// The packets `ids` are acknowledged, in order, at once.
    fn on_acks(&mut self, now: Instant, ids: &[u64]) {
        let (before, lost_before) = (self.in_flight, self.lost);
        let mut newest = None;
        let mut acked = 0;
        for &id in ids {
            while let Some(sent) = self.outstanding.pop_front_if(|sent| sent.id <= id) {
                self.in_flight -= MSS;
                if sent.id == id {
                    acked += MSS;
                    newest = Some(sent);
                } else {
                    self.lost += MSS;
                }
            }
        }
        let Some(sent) = newest else { return };
        self.backoff = 0;
        self.delivered += acked;
        self.delivered_at = now;
        let rtt = now - sent.at;
        let smoothed = self.smoothed_rtt.map_or(rtt, |smoothed| smoothed * 7 / 8 + rtt / 8);
        self.smoothed_rtt = Some(smoothed);
        self.shortest_rtt = self.shortest_rtt.min(rtt);
        self.rtt_sum += rtt.as_secs_f64();
        self.rtt_count += 1;
        if self.recovery_until.is_some_and(|until| sent.id >= until) {
            self.recovery_until = None;
            self.controller.on_recovered(now);
        }
        if self.lost > lost_before && self.recovery_until.is_none() {
            self.recovery_until = Some(self.next_id);
            self.controller.on_congestion(now, before);
        }
        let rate = self.sample(now, &sent);
        self.controller.on_ack(&Ack {
            now,
            acked,
            lost: self.lost - lost_before,
            in_flight_before: before,
            in_flight: self.in_flight,
            rtt: Some(rtt),
            smoothed_rtt: smoothed,
            delivered: self.delivered,
            total_lost: self.lost,
            rate,
            recovering: self.recovery_until.is_some(),
            app_limited: self.app_limited_until > self.delivered,
        });
        self.arm(now);
    }

    fn sample(&mut self, now: Instant, sent: &Sent) -> Option<RateSample> {
        let interval = (sent.at - sent.first_sent_at).max(now - sent.delivered_at);
        self.first_sent_at = sent.at;
        (interval >= self.shortest_rtt).then(|| RateSample {
            delivered: self.delivered - sent.delivered,
            interval,
            prior_delivered: sent.delivered,
            sent_in_flight: sent.in_flight,
            lost: self.lost - sent.lost,
            app_limited: sent.app_limited,
        })
    }

    /// What happened since the last call, which was `over` ago.
    fn measure(&mut self, over: Duration) -> Measured {
        let (delivered, lost, rtt_sum, rtt_count) = self.mark;
        self.mark = (self.delivered, self.lost, self.rtt_sum, self.rtt_count);
        let (delivered, lost) = (self.delivered - delivered, self.lost - lost);
        let mean = (self.rtt_sum - rtt_sum) / ((self.rtt_count - rtt_count).max(1) as f64);
        Measured {
            mbit: delivered as f64 * PACKET as f64 / MSS as f64 * 8.0 / 1e6 / over.as_secs_f64(),
            loss: lost as f64 / ((lost + delivered).max(1) as f64),
            queueing_ms: (mean - self.shortest_rtt.as_secs_f64()).max(0.0) * 1e3,
        }
    }
}

/// Flows over one bottleneck; acknowledgements return after the same delay and are never lost.
pub struct Run {
    pub now: Instant,
    pub path: Bottleneck<(usize, u64)>,
    pub flows: Vec<Flow>,
    /// By time of arrival: flow and packet.
    acks: VecDeque<(Instant, usize, u64)>,
    /// Acknowledgements come in bunches this far apart.
    pub ack_slot: Duration,
    start: Instant,
}

impl Run {
    pub fn new(shape: Shape, kinds: &[Congestion]) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            path: Bottleneck::new(shape, start, 7),
            flows: kinds.iter().map(|kind| Flow::new(*kind, start)).collect(),
            acks: VecDeque::new(),
            ack_slot: Duration::ZERO,
            start,
        }
    }

    /// Lets a flow begin later.
    pub fn delay_start(&mut self, flow: usize, by: Duration) {
        let flow = &mut self.flows[flow];
        flow.start = self.start + by;
        flow.next_send = flow.start;
    }

    /// Runs on for `time`; what each flow did meanwhile.
    pub fn run(&mut self, time: Duration) -> Vec<Measured> {
        let until = self.now + time;
        let mut ids = Vec::new();
        loop {
            for (index, flow) in self.flows.iter_mut().enumerate() {
                flow.act(self.now, index, &mut self.path);
            }
            let wakes = self.flows.iter().filter_map(|flow| flow.wakes_at(self.now));
            let ack = self.acks.front().map(|(at, ..)| *at);
            let next = wakes.chain(ack).chain(self.path.next_at()).min();
            let Some(next) = next.filter(|next| *next < until) else { break };
            self.now = self.now.max(next);
            while let Some((flow, id)) = self.path.arrived(self.now) {
                let at = self.ack_time();
                self.acks.push_back((at, flow, id));
            }
            while let Some((_, flow, id)) = self.acks.pop_front_if(|(at, ..)| *at <= self.now) {
                ids.clear();
                ids.push(id);
                let same = |ack: &mut (Instant, usize, u64)| ack.0 <= self.now && ack.1 == flow;
                while let Some((_, _, id)) = self.acks.pop_front_if(same) {
                    ids.push(id);
                }
                self.flows[flow].on_acks(self.now, &ids);
            }
        }
        self.now = until;
        self.flows.iter_mut().map(|flow| flow.measure(time)).collect()
    }

    fn ack_time(&self) -> Instant {
        let at = self.now + self.path.shape().delay;
        let slot = self.ack_slot.as_nanos();
        if slot == 0 {
            return at;
        }
        let slots = (at - self.start).as_nanos().div_ceil(slot);
        self.start + Duration::from_nanos((slots * slot) as u64)
    }
}
