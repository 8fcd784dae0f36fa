//! What the controllers reach over paths of many kinds, in virtual time: outcomes with room to spare, no exact figures.
#![allow(missing_docs)]

mod model;

use std::time::Duration;

use model::{MSS, Measured, Run, mbit, shape};
use sim::Shape;
use tcp::congestion::Congestion::{self, Bbr, Cubic};

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What one flow does once settled.
fn steady(kind: Congestion, path: Shape) -> Measured {
    let rtt = path.delay * 2;
    let mut run = Run::new(path, &[kind]);
    run.run(millis(2000) + rtt * 20);
    run.run(millis(1500) + rtt * 30)[0]
}

/// Every combination of round trip in ms, queue in bandwidth-delay products and random loss per million.
fn cells() -> impl Iterator<Item = (u64, f64, u32)> {
    let of_rtt = |rtt| [0.1, 1.0, 4.0].into_iter().map(move |queue| (rtt, queue));
    let all = [1, 30, 100].into_iter().flat_map(of_rtt);
    all.flat_map(|(rtt, queue)| [0, 1000, 10_000, 30_000].into_iter().map(move |loss| (rtt, queue, loss)))
}

#[test]
fn bbr_fills_the_link_whatever_it_loses() {
    for (rtt, queue, loss) in cells() {
        let measured = steady(Bbr, Shape { loss, ..shape(200, millis(rtt), queue) });
        let cell = format!("{rtt} ms, queue {queue}, loss {loss}: {measured:?}");
        assert!(measured.mbit >= 0.9 * 200.0 * (1.0 - f64::from(loss) / 1e6), "{cell}");
        assert!(measured.loss <= f64::from(loss) / 1e6 + 0.02, "{cell}");
        assert!(measured.queueing_ms <= rtt as f64 * 0.2 + 1.0, "{cell}");
    }
}

#[test]
fn cubic_reaches_what_its_response_function_allows() {
    for (rtt, queue, loss) in cells() {
        let rate = if rtt < 100 { 200 } else { 100 };
        let mut run = Run::new(Shape { loss, ..shape(rate, millis(rtt), queue) }, &[Cubic]);
        // After slow start has overflown a short queue, the cubic takes some ten seconds to lead back.
        run.run(millis(if loss == 0 { 4000 + rtt * 200 } else { 4000 }));
        let reached = run.run(millis(if loss == 0 || rtt == 1 { 4000 } else { 20_000 }))[0].mbit;
        let share = f64::from(loss) / 1e6;
        // RFC 9438, section 5.1, and Reno's; without random loss nothing but the link bounds it.
        let seconds = rtt as f64 / 1e3;
        let window = (1.054 * (seconds / share).powf(0.75)).max((1.5 / share).sqrt());
        let expected = (rate as f64 * (1.0 - share)).min(window * (MSS * 8) as f64 / seconds / 1e6);
        assert!(reached >= 0.8 * expected, "{rtt} ms, queue {queue}, loss {loss}: {reached} of {expected}");
    }
}

#[test]
fn start_up_fills_a_long_path_within_two_seconds() {
    for kind in [Cubic, Bbr] {
        let mut run = Run::new(shape(500, millis(100), 1.0), &[kind]);
        run.run(millis(2000));
        let reached = run.run(millis(500))[0];
        assert!(reached.mbit > 450.0, "{kind:?}: {reached:?}");
    }
}

#[test]
fn slow_start_does_not_flood_a_long_queue() {
    let mut run = Run::new(shape(200, millis(100), 2.0), &[Cubic]);
    let start = run.run(millis(3000))[0];
    assert!(start.loss < 0.1, "{start:?}");
}

#[test]
fn both_follow_the_link_down_and_up() {
    for kind in [Cubic, Bbr] {
        let wide = shape(500, millis(30), 1.0);
        let mut run = Run::new(wide, &[kind]);
        run.run(millis(3000));
        run.path.reshape(run.now, Shape { rate: mbit(50), ..wide });
        run.run(millis(1000));
        let narrow = run.run(millis(4000))[0];
        assert!(narrow.mbit > 47.0 && narrow.loss < 0.05, "{kind:?}: {narrow:?}");
        run.path.reshape(run.now, wide);
        run.run(millis(4000));
        let again = run.run(millis(1000))[0];
        assert!(again.mbit > 450.0, "{kind:?}: {again:?}");
    }
}

#[test]
fn both_return_after_an_outage() {
    for (kind, least) in [(Cubic, 300.0), (Bbr, 450.0)] {
        let open = shape(500, millis(30), 1.0);
        let mut run = Run::new(open, &[kind]);
        run.run(millis(3000));
        run.path.reshape(run.now, Shape { blocked: true, ..open });
        run.run(millis(5000));
        run.path.reshape(run.now, open);
        // The retransmission timer has backed off to some seconds by now.
        run.run(millis(8000));
        let again = run.run(millis(1000))[0];
        assert!(again.mbit > least, "{kind:?}: {again:?}");
    }
}

#[test]
fn two_bbr_flows_both_get_a_share() {
    for queue in [0.5, 1.0, 2.0, 4.0] {
        let mut run = Run::new(shape(50, millis(30), queue), &[Bbr, Bbr]);
        run.run(Duration::from_secs(40));
        let both = run.run(Duration::from_secs(20));
        let least = both.iter().map(|flow| flow.mbit).fold(f64::INFINITY, f64::min);
        assert!(least > 50.0 * 0.25, "queue {queue}: {both:?}");
        assert!(both.iter().map(|flow| flow.mbit).sum::<f64>() > 45.0, "queue {queue}: {both:?}");
    }
}

#[test]
fn bbr_leaves_cubic_a_share_and_hardly_any_loss() {
    for (queue, share) in [(0.5, 0.1), (1.0, 0.15), (2.0, 0.25), (4.0, 0.25)] {
        for bbr in [0, 1] {
            let kinds = if bbr == 0 { [Bbr, Cubic] } else { [Cubic, Bbr] };
            let mut run = Run::new(shape(50, millis(30), queue), &kinds);
            run.delay_start(1, millis(2000));
            run.run(Duration::from_secs(10));
            let both = run.run(Duration::from_secs(30));
            let (bbr, cubic) = (both[bbr], both[1 - bbr]);
            assert!(cubic.mbit > 50.0 * share && cubic.loss < 0.01, "queue {queue}: {both:?}");
            assert!(bbr.mbit > 50.0 * 0.15, "queue {queue}: {both:?}");
        }
    }
}

#[test]
fn an_app_limited_flow_keeps_its_estimate() {
    let mut run = Run::new(shape(200, millis(30), 1.0), &[Bbr]);
    run.run(millis(3000));
    run.flows[0].app = Some(mbit(2));
    run.flows[0].reset_app(run.now);
    run.run(Duration::from_secs(20));
    run.flows[0].app = None;
    run.run(millis(100));
    let again = run.run(millis(300))[0];
    assert!(again.mbit > 170.0, "{again:?}");
}

#[test]
fn bunched_acknowledgements_and_arrivals_do_not_starve_bbr() {
    let plain = Shape { loss: 10_000, ..shape(200, millis(30), 1.0) };
    for (slot, ack_slot) in [(5, 0), (0, 10)] {
        let mut run = Run::new(Shape { slot: millis(slot), ..plain }, &[Bbr]);
        run.ack_slot = millis(ack_slot);
        run.run(millis(3000));
        let measured = run.run(millis(6000))[0];
        assert!(measured.mbit > 180.0, "{slot} {ack_slot}: {measured:?}");
    }
}

#[test]
fn a_policer_is_found_out() {
    for burst in [100_000, 1_000_000] {
        let path = Shape { policer: Some((mbit(50), burst)), ..shape(500, millis(30), 1.0) };
        let mut run = Run::new(path, &[Bbr]);
        run.run(millis(6000));
        let measured = run.run(Duration::from_secs(12))[0];
        assert!(measured.mbit > 42.0 && measured.loss < 0.1, "{burst}: {measured:?}");
    }
}
