//! One stream of a real connection over a simulated path, in virtual time: what the whole sender reaches, recovery included.
//!
//! `cargo run --release -p tcp --example grid [MBIT] [QUEUE]`: the link's rate and its queue in bandwidth-delay products.
//! Both directions lose packets, acknowledgements too.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use sim::{Bottleneck, Shape};
use tcp::congestion::Congestion;
use tcp::{Config, Connection, Segment, State};

/// The IPv6 header in front of each segment.
const IP: u64 = 40;

struct End {
    connection: Option<Connection>,
    out: Bottleneck<Vec<u8>>,
}

/// A sender, the path in both directions, and a receiver that takes everything at once.
struct Talk {
    now: Instant,
    config: Config,
    ends: [End; 2],
    received: u64,
    segment: Vec<u8>,
}

impl Talk {
    fn new(shape: Shape, congestion: Congestion) -> Self {
        let now = Instant::now();
        let config = Config { congestion, ..Config::default() };
        let back = Shape { queue: 1 << 30, ..shape };
        let sender = Connection::connect(&config, 1000, 2000, 7, now);
        let ends = [
            End { connection: Some(sender), out: Bottleneck::new(shape, now, 11) },
            End { connection: None, out: Bottleneck::new(back, now, 12) },
        ];
        Self { now, config, ends, received: 0, segment: vec![0; 2048] }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.serve();
            let wakes = self.ends.iter().filter_map(|end| end.connection.as_ref()?.poll_at());
            let next = wakes.chain(self.ends.iter().filter_map(|end| end.out.next_at())).min();
            self.now = next.map_or(until, |next| next.clamp(self.now, until));
            for from in [0, 1] {
                self.deliver(from);
            }
        }
    }

    /// Applications write and read, and what may leave leaves.
    fn serve(&mut self) {
        if let Some(sender) = &mut self.ends[0].connection {
            while sender.send(self.now, |room| room.len()) > 0 {}
        }
        if let Some(receiver) = &mut self.ends[1].connection {
            loop {
                let taken = receiver.recv(<[u8]>::len);
                if taken == 0 {
                    break;
                }
                self.received += taken as u64;
            }
        }
        for end in &mut self.ends {
            let Some(connection) = &mut end.connection else { continue };
            while let Some(len) = connection.poll(self.now, &mut self.segment) {
                end.out.send(self.now, len as u64 + IP, self.segment[..len].to_vec());
            }
        }
    }

    fn deliver(&mut self, from: usize) {
        while let Some(bytes) = self.ends[from].out.arrived(self.now) {
            let Some(segment) = Segment::parse(&bytes) else { continue };
            match &mut self.ends[1 - from].connection {
                Some(connection) => connection.arrives(self.now, &segment),
                empty => *empty = Connection::accept(&self.config, 9, &segment, self.now),
            }
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let mbit = arguments.next().unwrap_or(500.0);
    let queue = arguments.next().unwrap_or(1.0);
    println!(
        "One stream over {mbit} Mbit/s, a queue of {queue} bandwidth-delay products, 1280-byte packets, loss both ways"
    );
    println!(" rtt loss%        cubic Mbit/s  again%  rtt ms   bbr Mbit/s  again%  rtt ms");
    for rtt_ms in [1, 30, 100] {
        for loss in [0, 1000, 10_000, 30_000] {
            print!("{rtt_ms:4} {:5.1}", f64::from(loss) / 1e4);
            for congestion in [Congestion::Cubic, Congestion::Bbr] {
                let rtt = Duration::from_millis(rtt_ms);
                let rate = mbit * 125_000.0;
                let held = ((rate * rtt.as_secs_f64() * queue) as u64).max(16_000);
                let mut talk =
                    Talk::new(Shape { loss, ..Shape::new(rate as u64, rtt / 2, held) }, congestion);
                let settle = Duration::from_secs(2) + rtt * 30;
                talk.run(settle);
                let before = (talk.received, talk.stats().retransmitted_bytes);
                talk.run(settle);
                let stats = talk.stats();
                let goodput = (talk.received - before.0) as f64 * (1280.0 / 1220.0);
                let again =
                    (stats.retransmitted_bytes - before.1) as f64 / (talk.received - before.0).max(1) as f64;
                print!(
                    "   {:16.1} {:7.2} {:7.1}",
                    goodput * 8.0 / 1e6 / settle.as_secs_f64(),
                    again * 100.0,
                    stats.smoothed_rtt.unwrap_or_default().as_secs_f64() * 1e3
                );
            }
            println!();
        }
    }
}

impl Talk {
    fn stats(&self) -> tcp::Stats {
        match &self.ends[0].connection {
            Some(connection) => {
                assert_eq!(connection.state(), State::Established);
                connection.stats()
            }
            None => unreachable!("the sender was there from the start"),
        }
    }
}
