//! Two stacks in one thread, joined by a copy: what does TCP itself cost?
//!
//! `cargo run --release -p netstack --example stack_bench` prints Gbit/s and CPU-seconds per Gbit of each end, with
//! `flows 100` spread over that many connections; `idle` prints the memory of a thousand idle connections, `lossy` what
//! paths with loss and delay carry with each congestion controller, in virtual time.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use netstack::{Config, Congestion, Event, Flow, Sink, Stack};

const CLIENT: &str = "fd7a:115c:a1e0::1";
const SERVER: &str = "fd7a:115c:a1e0::2";
/// As many packets as one UDP message with segmentation offload carries, twice.
const BURST: usize = 2 * 48;
const STRIDE: usize = 1328;

/// A batch of packets on a link, each with room for what encryption adds.
struct Link {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Link {
    fn new() -> Self {
        Self { bytes: vec![0; BURST * STRIDE], lengths: Vec::new() }
    }

    fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.lengths.iter().enumerate().map(|(index, &len)| &self.bytes[index * STRIDE + 16..][..len])
    }
}

impl Sink for Link {
    fn buffer(&mut self, _: &Ipv6Addr) -> Option<&mut [u8]> {
        let at = self.lengths.len() * STRIDE + 16;
        self.bytes.get_mut(at..at + 1280)
    }

    fn commit(&mut self, len: usize) {
        self.lengths.push(len);
    }
}

fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

struct Pair {
    client: Stack,
    server: Stack,
    link: Link,
}

impl Pair {
    fn new() -> Self {
        Self::with(Config::new(Vec::new()).congestion)
    }

    fn with(congestion: Congestion) -> Self {
        let now = Instant::now();
        let stack = |address: &str, seed| {
            let mut config = Config::new(vec![address.parse().unwrap()]);
            config.congestion = congestion;
            Stack::new(config, seed, now)
        };
        Self { client: stack(CLIENT, 1), server: stack(SERVER, 2), link: Link::new() }
    }

    fn forward(&mut self, now: Instant) {
        self.link.lengths.clear();
        self.client.poll(now, &mut self.link);
        self.link.packets().for_each(|packet| self.server.inject(now, packet));
    }

    fn back(&mut self, now: Instant) {
        self.link.lengths.clear();
        self.server.poll(now, &mut self.link);
        self.link.packets().for_each(|packet| self.client.inject(now, packet));
    }

    fn connect(&mut self, port: u16) -> (Flow, Flow) {
        let flow =
            self.client.connect(Instant::now(), format!("[{SERVER}]:{port}").parse().unwrap()).unwrap();
        let mut accepted = None;
        for _ in 0..4 {
            let now = Instant::now();
            self.forward(now);
            while let Some(event) = self.server.next_event() {
                if let Event::Incoming { id, .. } = event {
                    accepted = self.server.accept(now, id);
                }
            }
            self.back(now);
        }
        while self.client.next_event().is_some() {}
        (flow, accepted.unwrap())
    }
}

fn idle() {
    let mut pair = Pair::new();
    let before = resident();
    for port in 1..=1000 {
        let (out, into) = pair.connect(port);
        pair.client.send(Instant::now(), out, |room| room.len().min(100));
        pair.forward(Instant::now());
        pair.server.recv(into, |data| data.len());
        pair.back(Instant::now());
    }
    let busy = resident();
    pair.back(Instant::now() + Duration::from_secs(1));
    pair.forward(Instant::now() + Duration::from_secs(1));
    let each = |after: usize| after.saturating_sub(before) / 2000;
    println!(
        "resident per connection end: {} bytes, {} when idle for a second",
        each(busy),
        each(resident())
    );
}

fn bulk(flows: u16) {
    let mut pair = Pair::new();
    let flows: Vec<_> = (1..=flows).map(|port| pair.connect(port)).collect();
    let data = vec![0x5a; 64 << 10];
    let backlog = ((1 << 20) / flows.len()).max(128 << 10);
    let (mut carried, mut sending, mut receiving) = (0usize, Duration::ZERO, Duration::ZERO);
    let start = Instant::now();
    for turn in 0.. {
        let now = Instant::now();
        if now - start > Duration::from_secs(2) {
            break;
        }
        let t0 = cpu();
        let (out, _) = flows[turn % flows.len()];
        while pair.client.send_queue(out) < backlog {
            let sent = pair.client.send(now, out, |room| {
                let len = room.len().min(data.len());
                room[..len].copy_from_slice(&data[..len]);
                len
            });
            if sent == 0 {
                break;
            }
        }
        pair.link.lengths.clear();
        pair.client.poll(now, &mut pair.link);
        let t1 = cpu();
        pair.link.packets().for_each(|packet| pair.server.inject(now, packet));
        while let Some(event) = pair.server.next_event() {
            if let Event::Readable(into) = event {
                carried += take(&mut pair.server, into);
            }
        }
        pair.link.lengths.clear();
        pair.server.poll(now, &mut pair.link);
        let t2 = cpu();
        pair.link.packets().for_each(|packet| pair.client.inject(now, packet));
        while pair.client.next_event().is_some() {}
        sending += t1 - t0 + (cpu() - t2);
        receiving += t2 - t1;
    }
    let gbit = carried as f64 * 8e-9;
    println!(
        "{:.2} Gbit/s, CPU-s per Gbit: sender {:.4}, receiver {:.4}",
        gbit / start.elapsed().as_secs_f64(),
        sending.as_secs_f64() / gbit,
        receiving.as_secs_f64() / gbit
    );
}

fn take(stack: &mut Stack, flow: Flow) -> usize {
    std::iter::from_fn(|| Some(stack.recv(flow, <[u8]>::len)).filter(|&taken| taken > 0)).sum()
}

/// One connection over a path, ten virtual seconds long.
struct Path {
    loss: f64,
    round_trip: Duration,
    /// Bytes per second at the bottleneck.
    rate: u64,
    /// Bytes that may wait there.
    queue: u64,
}

type Line = VecDeque<(Instant, Vec<u8>)>;

impl Path {
    fn new(loss: f64, round_trip: u64, mbits: u64) -> Self {
        let (round_trip, rate) = (Duration::from_millis(round_trip), mbits * 125_000);
        let queue = ((rate as f64 * round_trip.as_secs_f64()) as u64).max(256 << 10);
        Self { loss, round_trip, rate, queue }
    }

    /// Mbit/s carried, and the share of it that was sent again.
    fn carry(&self, congestion: Congestion) -> (f64, f64) {
        let mut pair = Pair::with(congestion);
        let (out, into) = pair.connect(3);
        let (start, half) = (Instant::now(), self.round_trip / 2);
        let (mut now, mut free, mut random, mut carried) = (start, start, 1u64, 0);
        let (mut there, mut back) = (Line::new(), Line::new());
        while now < start + Duration::from_secs(10) {
            while pair.client.send(now, out, |room| room.len()) > 0 {}
            pair.link.lengths.clear();
            pair.client.poll(now, &mut pair.link);
            for packet in pair.link.packets() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let lost = (random >> 11) as f64 / (1u64 << 53) as f64;
                free = free.max(now);
                let waiting = (free - now).as_secs_f64() * self.rate as f64;
                if lost >= self.loss && waiting + packet.len() as f64 <= self.queue as f64 {
                    free += Duration::from_nanos(packet.len() as u64 * 1_000_000_000 / self.rate);
                    there.push_back((free + half, packet.to_vec()));
                }
            }
            carried += take(&mut pair.server, into);
            pair.link.lengths.clear();
            pair.server.poll(now, &mut pair.link);
            back.extend(pair.link.packets().map(|packet| (now + half, packet.to_vec())));
            while pair.client.next_event().is_some() || pair.server.next_event().is_some() {}
            let timers = [pair.client.poll_at(now), pair.server.poll_at(now)].into_iter().flatten();
            let Some(next) = timers.chain(there.front().map(|x| x.0)).chain(back.front().map(|x| x.0)).min()
            else {
                break;
            };
            now = now.max(next);
            while let Some((_, packet)) = there.pop_front_if(|packet| packet.0 <= now) {
                pair.server.inject(now, &packet);
            }
            while let Some((_, packet)) = back.pop_front_if(|packet| packet.0 <= now) {
                pair.client.inject(now, &packet);
            }
        }
        let again = pair.client.flow_stats(out).map_or(0, |stats| stats.retransmitted_bytes);
        (carried as f64 * 8e-7, again as f64 / carried.max(1) as f64)
    }
}

/// The grid of losses and round trips for each controller: Mbit/s, and what was sent again of it in percent.
fn lossy() {
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        for mbits in [500, 1000] {
            println!(
                "{congestion:?}, {mbits} Mbit/s   0 %             0.1 %             1 %             3 % loss"
            );
            for round_trip in [1, 30, 100] {
                print!("{round_trip:>4} ms");
                for loss in [0.0, 0.001, 0.01, 0.03] {
                    let (carried, again) = Path::new(loss, round_trip, mbits).carry(congestion);
                    print!("  {carried:>7.1} ({:>4.1} %)", again * 100.0);
                }
                println!();
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["idle"] => idle(),
        ["flows", count] => bulk(count.parse().unwrap()),
        ["lossy"] => lossy(),
        _ => bulk(1),
    }
}
