//! CUBIC (RFC 9438) with HyStart++ (RFC 9406).
//!
//! The window grows along a cubic of the time since the last loss, so it does not depend on the round trip; on short paths
//! it grows at least as fast as Reno would. Slow start ends when the round trip rises, before the queue overflows. The
//! sender paces at a little more than a window a round trip, so that a burst never has to fit the bottleneck's queue.

use std::time::{Duration, Instant};

use super::{Ack, Controller, INITIAL_SEGMENTS, bytes_per_second};
use hystart::HyStart;

mod hystart;

/// The cubic's steepness, segments per second cubed (RFC 9438, section 4.1).
const C: f64 = 0.4;
/// What a loss leaves of the window (section 4.6).
const BETA: f64 = 0.7;
/// How much of the Reno-friendly growth a segment a round trip makes (section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
const MIN_SEGMENTS: u64 = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Cubic {
    mss: u64,
    state: State,
    hystart: HyStart,
    /// As it was before the last reduction, until that is known to be right.
    before: Option<State>,
    smoothed_rtt: Option<Duration>,
    last_sent: Option<Instant>,
}

/// What a reduction changes and its undoing restores.
#[derive(Clone, Debug)]
struct State {
    window: f64,
    threshold: f64,
    /// The window at the last reduction, or a little less to make room for a newcomer.
    w_max: f64,
    /// The window just before the last reduction.
    prior: f64,
    epoch: Option<Epoch>,
}

/// One stretch of congestion avoidance.
#[derive(Clone, Debug)]
struct Epoch {
    start: Instant,
    /// The cubic's plateau: where the window was at the last reduction, or where the epoch began if that is more.
    origin: f64,
    /// Seconds until the window is there.
    k: f64,
    /// What Reno's window would be.
    reno: f64,
}

impl Cubic {
    /// A controller for segments of `mss` bytes.
    pub fn new(mss: u64) -> Self {
        let window = (INITIAL_SEGMENTS * mss) as f64;
        let state = State { window, threshold: f64::INFINITY, w_max: 0.0, prior: window, epoch: None };
        Self { mss, state, hystart: HyStart::default(), before: None, smoothed_rtt: None, last_sent: None }
    }

    fn in_slow_start(&self) -> bool {
        self.state.window < self.state.threshold
    }

    /// Whether the window, not the application, held the sender back.
    fn is_limited(&self, in_flight: u64) -> bool {
        let window = self.state.window as u64;
        if self.in_slow_start() {
            return in_flight * 2 >= window;
        }
        in_flight + (window / 8).max(3 * self.mss) >= window
    }

    fn slow_start(&mut self, ack: &Ack) {
        if self.state.threshold.is_finite() {
            // A loss has said where to stop; what goes beyond belongs to congestion avoidance.
            self.state.window = (self.state.window + ack.acked as f64).min(self.state.threshold);
            return;
        }
        self.state.window += ack.acked as f64 / self.hystart.on_ack(ack);
        if self.hystart.is_done() {
            self.state.threshold = self.state.window;
        }
    }

    fn avoid_congestion(&mut self, ack: &Ack) {
        let (mss, window) = (self.mss as f64, self.state.window);
        let (w_max, prior) = (self.state.w_max, self.state.prior);
        let epoch = self.state.epoch.get_or_insert_with(|| {
            let origin = w_max.max(window);
            Epoch { start: ack.now, origin, k: ((origin - window) / mss / C).cbrt(), reno: window }
        });
        let (origin, k) = (epoch.origin, epoch.k);
        let cubic = |t: f64| origin + C * (t - k).powi(3) * mss;
        let elapsed = ack.now.saturating_duration_since(epoch.start).as_secs_f64();

        let alpha = if epoch.reno < prior { ALPHA } else { 1.0 };
        epoch.reno += alpha * mss * ack.acked as f64 / window;
        let target = cubic(elapsed + ack.smoothed_rtt.as_secs_f64()).clamp(window, 1.5 * window);
        let next = if cubic(elapsed) < epoch.reno {
            window.max(epoch.reno)
        } else {
            window + (target - window) / window * ack.acked as f64
        };
        self.state.window = next;
    }

    fn reduce(&mut self) {
        self.before = Some(self.state.clone());
        let window = self.state.window;
        // Fast convergence (section 4.7): a window that did not reach the last one gives way.
        self.state.w_max = if window < self.state.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.state.prior = window;
        self.state.threshold = (window * BETA).max(self.minimum());
        self.state.epoch = None;
    }

    fn minimum(&self) -> f64 {
        (MIN_SEGMENTS * self.mss) as f64
    }

    /// After a pause the path may have changed: half the window for each timeout's time it lasted, as RFC 2861 has it.
    fn restart_after(&mut self, pause: Duration) {
        let timeout = self.smoothed_rtt.map_or(Duration::from_secs(1), |rtt| rtt * 2).max(MIN_TIMEOUT);
        let floor = ((INITIAL_SEGMENTS * self.mss) as f64).min(self.state.window);
        let halvings = (pause.as_secs_f64() / timeout.as_secs_f64()).min(30.0) as i32;
        if halvings > 0 {
            self.state.threshold = self.state.threshold.max(self.state.window * 0.75);
            self.state.window = (self.state.window / 2f64.powi(halvings)).max(floor);
        }
        // The cubic's clock stood still (section 4.2 counts time in congestion avoidance, not in silence).
        if let Some(epoch) = &mut self.state.epoch {
            epoch.start += pause;
        }
    }
}

const MIN_TIMEOUT: Duration = Duration::from_millis(200);

impl Controller for Cubic {
    fn window(&self) -> u64 {
        self.state.window as u64
    }

    fn pacing_rate(&self) -> Option<u64> {
        let rtt = self.smoothed_rtt?;
        // As fast as slow start grows, or the window could not double; then a fifth more than the window asks for.
        let gain = if self.state.window < self.state.threshold / 2.0 { 2.0 } else { 1.2 };
        Some(bytes_per_second(gain * self.state.window, rtt))
    }

    fn on_sent(&mut self, now: Instant, _bytes: u64, _in_flight: u64, idle: bool) {
        if let (true, Some(last)) = (idle, self.last_sent) {
            self.restart_after(now.saturating_duration_since(last));
        }
        self.last_sent = Some(now);
    }

    fn on_ack(&mut self, ack: &Ack) {
        self.smoothed_rtt = Some(ack.smoothed_rtt);
        if ack.recovering || ack.acked == 0 || !self.is_limited(ack.in_flight_before) {
            return;
        }
        if self.in_slow_start() {
            self.slow_start(ack);
        } else {
            self.avoid_congestion(ack);
        }
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.reduce();
        self.state.window = self.state.threshold;
    }

    fn on_recovered(&mut self, _now: Instant) {}

    fn on_timeout(&mut self, _now: Instant, _in_flight: u64) {
        // A second timeout in a row says nothing new about the path's capacity.
        if self.state.window > self.minimum() {
            self.reduce();
            self.state.window = self.minimum();
        }
    }

    fn on_spurious(&mut self, _now: Instant) {
        if let Some(before) = self.before.take() {
            self.state = before;
        }
    }

    fn name(&self) -> &'static str {
        "cubic"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1000;

    fn ack(now: Instant, acked: u64, in_flight: u64) -> Ack {
        let rtt = Duration::from_millis(100);
        Ack {
            now,
            acked,
            lost: 0,
            in_flight_before: in_flight,
            in_flight: in_flight.saturating_sub(acked),
            rtt: Some(rtt),
            smoothed_rtt: rtt,
            delivered: 0,
            total_lost: 0,
            rate: None,
            recovering: false,
            app_limited: false,
        }
    }

    /// A round trip's acknowledgements, segment by segment.
    fn round(cubic: &mut Cubic, now: Instant) {
        let window = cubic.window();
        (0..window / MSS).for_each(|_| cubic.on_ack(&ack(now, MSS, window)));
    }

    #[test]
    fn slow_start_doubles_the_window() {
        let mut cubic = Cubic::new(MSS);
        assert_eq!(cubic.window(), 10 * MSS);
        round(&mut cubic, Instant::now());
        assert_eq!(cubic.window(), 20 * MSS);
    }

    #[test]
    fn an_idle_window_does_not_grow() {
        let mut cubic = Cubic::new(MSS);
        cubic.on_ack(&ack(Instant::now(), MSS, MSS));
        assert_eq!(cubic.window(), 10 * MSS);
    }

    #[test]
    fn a_loss_leaves_seven_tenths_and_the_cubic_leads_back() {
        let mut cubic = Cubic::new(MSS);
        let start = Instant::now();
        (0..6).for_each(|_| round(&mut cubic, start));
        let before = cubic.window();
        cubic.on_congestion(start, before);
        assert_eq!(cubic.window(), before * 7 / 10);
        // K = cbrt(640 * 0.3 / 0.4) = 7.8 s: a little before it the window is close to the old one, and never above it.
        let mut window = 0;
        for tenth in 0..78 {
            round(&mut cubic, start + Duration::from_millis(tenth * 100));
            assert!(cubic.window() >= window);
            window = cubic.window();
        }
        assert!(window > before * 99 / 100 && window <= before + MSS, "{window} of {before}");
        (78..130).for_each(|tenth| round(&mut cubic, start + Duration::from_millis(tenth * 100)));
        assert!(cubic.window() > before * 105 / 100, "then it probes beyond");
    }

    #[test]
    fn a_mistaken_reduction_is_undone() {
        let mut cubic = Cubic::new(MSS);
        let now = Instant::now();
        round(&mut cubic, now);
        cubic.on_timeout(now, 0);
        assert_eq!(cubic.window(), 2 * MSS);
        cubic.on_spurious(now);
        assert_eq!(cubic.window(), 20 * MSS);
        round(&mut cubic, now);
        assert_eq!(cubic.window(), 40 * MSS, "in slow start as before");
    }

    #[test]
    fn repeated_timeouts_keep_the_threshold() {
        let mut cubic = Cubic::new(MSS);
        let now = Instant::now();
        round(&mut cubic, now);
        (0..5).for_each(|_| cubic.on_timeout(now, 0));
        (0..3).for_each(|_| round(&mut cubic, now));
        assert_eq!(cubic.window(), 14 * MSS);
    }

    #[test]
    fn a_small_window_grows_as_reno_does() {
        let mut cubic = Cubic::new(MSS);
        let now = Instant::now();
        cubic.on_congestion(now, 10 * MSS);
        // No time passes, so the cubic stands still; Reno's rule adds half a segment a round.
        (0..4).for_each(|_| round(&mut cubic, now));
        assert!((8 * MSS + 900..9 * MSS + 300).contains(&cubic.window()), "{}", cubic.window());
    }

    #[test]
    fn a_pause_halves_the_window_down_to_the_initial_one() {
        let mut cubic = Cubic::new(MSS);
        let start = Instant::now();
        (0..3).for_each(|_| round(&mut cubic, start));
        cubic.on_sent(start, MSS, MSS, false);
        cubic.on_sent(start + Duration::from_millis(250), MSS, MSS, true);
        assert_eq!(cubic.window(), 40 * MSS);
        cubic.on_sent(start + Duration::from_secs(60), MSS, MSS, true);
        assert_eq!(cubic.window(), 10 * MSS);
    }
}
