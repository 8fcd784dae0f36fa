//! Both controllers over a simulated path with perfect loss detection, in virtual time: tables for people.
//!
//! `cargo run --release -p tcp --example congestion [grid|rough|changes|fairness]`
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../tests/model/mod.rs"]
mod model;

use std::time::Duration;

use model::{MSS, Measured, Run, mbit, shape};
use sim::Shape;
use tcp::congestion::Congestion::{self, Bbr, Cubic};

const LOSSES: [u32; 4] = [0, 1000, 10_000, 30_000];
const RTTS_MS: [u64; 3] = [1, 30, 100];
const QUEUES: [f64; 3] = [0.1, 1.0, 4.0];

fn main() {
    let wanted = std::env::args().nth(1);
    let runs = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    if runs("grid") {
        grid();
    }
    if runs("rough") {
        rough();
    }
    if runs("changes") {
        changes();
    }
    if runs("fairness") {
        fairness();
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Seconds of a run: long enough for several probing cycles.
fn settle(rtt: u64) -> Duration {
    millis(2000 + rtt * 30)
}

fn grid() {
    println!(
        "Steady Mbit/s (of the link), mean queueing in ms, loss beyond the path's in %, seconds to 90 % of the link"
    );
    println!("rate rtt queue loss |  cubic  expected queued  lost  full |    bbr queued  lost  full");
    for rate in [500, 1000] {
        for rtt in RTTS_MS {
            for queue in QUEUES {
                for loss in LOSSES {
                    let path = Shape { loss, ..shape(rate, millis(rtt), queue) };
                    let (cubic, cubic_full) = cell(Cubic, path, rtt, rate);
                    let (bbr, bbr_full) = cell(Bbr, path, rtt, rate);
                    let own = f64::from(loss) / 1e6;
                    let expected = expected_cubic(own, rtt, rate);
                    println!(
                        "{rate:4} {rtt:3} {queue:5.1} {:4.1} | {:6.1} {expected:9.1} {:6.1} {:5.2} {cubic_full:>5} | {:6.1} {:6.1} {:5.2} {bbr_full:>5}",
                        own * 100.0,
                        cubic.mbit,
                        cubic.queueing_ms,
                        (cubic.loss - own) * 100.0,
                        bbr.mbit,
                        bbr.queueing_ms,
                        (bbr.loss - own) * 100.0,
                    );
                }
            }
        }
    }
}

/// The larger of RFC 9438's response functions, for CUBIC (section 5.1) and Reno, within the link.
fn expected_cubic(loss: f64, rtt_ms: u64, rate: u64) -> f64 {
    let link = rate as f64 * (1.0 - loss);
    if loss == 0.0 {
        return link;
    }
    let rtt = rtt_ms as f64 / 1e3;
    let window = (1.054 * (rtt / loss).powf(0.75)).max((1.5 / loss).sqrt());
    link.min(window * (MSS + 60) as f64 * 8.0 / rtt / 1e6)
}

fn cell(kind: Congestion, path: Shape, rtt: u64, rate: u64) -> (Measured, String) {
    let mut run = Run::new(path, &[kind]);
    let mut full = String::from("-");
    let step = millis((rtt * 2).max(10));
    let (mut waited, settle) = (Duration::ZERO, settle(rtt));
    while waited < settle {
        let measured = run.run(step)[0];
        waited += step;
        if full == "-" && measured.mbit >= 0.9 * rate as f64 * (1.0 - f64::from(path.loss) / 1e6) {
            full = format!("{:.2}", waited.as_secs_f64());
        }
    }
    let measured = run.run(settle * 2)[0];
    (measured, full)
}

fn rough() {
    println!("\n500 Mbit/s, 30 ms, a queue of 1 BDP: Mbit/s, queueing in ms, loss in %");
    let plain = shape(500, millis(30), 1.0);
    let none = Duration::ZERO;
    let cases = [
        ("5 % lost", Shape { loss: 50_000, ..plain }, none),
        ("10 % lost", Shape { loss: 100_000, ..plain }, none),
        ("15 % lost", Shape { loss: 150_000, ..plain }, none),
        ("3 % lost behind the queue", Shape { loss_behind: 30_000, ..plain }, none),
        ("jitter of 5 ms", Shape { jitter: millis(5), ..plain }, none),
        ("jitter of 5 ms, 1 % lost", Shape { jitter: millis(5), loss: 10_000, ..plain }, none),
        ("bunches each 5 ms, 1 % lost", Shape { slot: millis(5), loss: 10_000, ..plain }, none),
        ("acknowledgements each 10 ms, 1 % lost", Shape { loss: 10_000, ..plain }, millis(10)),
        ("policer of 100 Mbit/s, 1 MB", Shape { policer: Some((mbit(100), 1_000_000)), ..plain }, none),
        ("policer of 100 Mbit/s, 100 kB", Shape { policer: Some((mbit(100), 100_000)), ..plain }, none),
    ];
    for (name, path, ack_slot) in cases {
        print!("{name:38}");
        for kind in [Cubic, Bbr] {
            let mut run = Run::new(path, &[kind]);
            run.ack_slot = ack_slot;
            run.run(millis(6000));
            let measured = run.run(millis(12_000))[0];
            let Measured { mbit, queueing_ms, loss } = measured;
            print!("  {kind:?} {mbit:5.1} {queueing_ms:5.1} {:5.2}", loss * 100.0);
        }
        println!();
    }
}

fn changes() {
    println!(
        "\n500 -> 50 -> 500 Mbit/s at 30 ms, 1 BDP of 500 Mbit/s; then 3 s of silence: Mbit/s each 0.5 s"
    );
    for kind in [Cubic, Bbr] {
        let wide = shape(500, millis(30), 1.0);
        let mut run = Run::new(wide, &[kind]);
        let mut line = String::new();
        let mut phase = |run: &mut Run, halves| {
            let rates: Vec<String> =
                (0..halves).map(|_| format!("{:.0}", run.run(millis(500))[0].mbit)).collect();
            line += &format!("[{}] ", rates.join(" "));
        };
        phase(&mut run, 8);
        run.path.reshape(run.now, Shape { rate: mbit(50), ..wide });
        phase(&mut run, 12);
        run.path.reshape(run.now, wide);
        phase(&mut run, 12);
        run.path.reshape(run.now, Shape { blocked: true, ..wide });
        phase(&mut run, 6);
        run.path.reshape(run.now, wide);
        phase(&mut run, 8);
        println!("{kind:?}: {line}");
    }
}

fn fairness() {
    println!(
        "\nTwo flows at 100 Mbit/s and 30 ms for 40 s, the second from 2 s on: Mbit/s and loss % of each over the last 30 s"
    );
    for queue in [0.5, 1.0, 2.0, 4.0] {
        for kinds in [[Cubic, Cubic], [Bbr, Bbr], [Bbr, Cubic], [Cubic, Bbr]] {
            let mut run = Run::new(shape(100, millis(30), queue), &kinds);
            run.delay_start(1, millis(2000));
            run.run(Duration::from_secs(10));
            let [a, b] = run.run(Duration::from_secs(30))[..] else { return };
            println!(
                "queue {queue:3.1}  {:?} {:5.1} ({:.2})  {:?} {:5.1} ({:.2})  queueing {:.1} ms",
                kinds[0],
                a.mbit,
                a.loss * 100.0,
                kinds[1],
                b.mbit,
                b.loss * 100.0,
                a.queueing_ms
            );
        }
    }
}
