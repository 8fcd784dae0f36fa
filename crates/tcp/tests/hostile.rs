//! Whatever arrives, the connection goes on, in bounded memory and with its books in order.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::*;
use proptest::prelude::*;
use tcp::congestion::Congestion;
use tcp::{ACK, Config, Connection, Segment};

#[derive(Clone, Debug)]
enum Step {
    Tell {
        seq: i32,
        ack: i32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
        blocks: Vec<(i32, i32)>,
        data: usize,
    },
    Send(usize),
    Recv(usize),
    Wait(u64),
    Shutdown,
    Detach,
    Kick,
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -3..3i32, 3 => -5000..5000i32, 2 => 0..400_000i32, 1 => any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![10 => Just(ACK), 2 => Just(17u8), 1 => Just(20), 1 => Just(18), 1 => any::<u8>()];
    let options = prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 0..40)];
    let blocks = proptest::collection::vec((near(), near()), 0..5);
    let window = prop_oneof![1 => Just(0u16), 1 => Just(1), 3 => Just(60_000), 1 => any::<u16>()];
    let data = prop_oneof![3 => Just(0usize), 2 => 1..1001usize, 1 => 1001..9000usize];
    let tell = (near(), near(), flags, window, options, blocks, data);
    prop_oneof![
        10 => tell.prop_map(|(seq, ack, flags, window, options, blocks, data)| {
            Step::Tell { seq, ack, flags, window, options, blocks, data }
        }),
        3 => (1..200_000usize).prop_map(Step::Send),
        2 => (1..100_000usize).prop_map(Step::Recv),
        3 => (0..5000u64).prop_map(Step::Wait),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Detach),
        1 => Just(Step::Kick),
    ]
}

fn act(script: &mut Script, step: Step, heard: &mut (u32, u32)) {
    match step {
        Step::Tell { seq, ack, flags, window, options, blocks, data } => {
            // Relative to what would be right.
            let (at, on) = (heard.0.wrapping_add_signed(seq), heard.1.wrapping_add_signed(ack));
            let block = |(start, len): &(i32, i32)| {
                let start = heard.1.wrapping_add_signed(*start / 1000 * 1000);
                (start, start.wrapping_add_signed(*len / 1000 * 1000))
            };
            let blocks: Vec<_> = blocks.iter().map(block).collect();
            let mut say = say(at, on).flags(flags).window(window).data(data);
            say = if options.is_empty() && !blocks.is_empty() {
                say.sack(&blocks)
            } else {
                say.options(&options)
            };
            script.tell(say);
        }
        Step::Send(len) => _ = script.conn.send(script.now, |room| room.len().min(len)),
        Step::Recv(len) => _ = script.conn.recv(|data| data.len().min(len)),
        Step::Wait(time) => _ = script.pass(ms(time)),
        Step::Shutdown => script.conn.shutdown(),
        Step::Detach => script.conn.detach(script.now),
        Step::Kick => script.conn.kick(script.now, ms(200)),
    }
    for out in script.hear() {
        if out.flags & tcp::RST == 0 {
            *heard = (out.ack, heard.1.max(out.seq.wrapping_add(out.data.len() as u32)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_peer_is_survived(
        steps in proptest::collection::vec(step(), 1..80),
        real in prop_oneof![Just(None), Just(Some(Congestion::Cubic)), Just(Some(Congestion::Bbr))],
    ) {
        let mut script = Script::open();
        if let Some(real) = real {
            let controller = real.build(u64::from(MSS), script.now);
            let spare = Connection::connect(&config(), 1, 1, 0, script.now);
            script.conn = std::mem::replace(&mut script.conn, spare).with_controller(controller);
        }
        let mut heard = (1, 1);
        for step in steps {
            act(&mut script, step, &mut heard);
            let stats = script.conn.stats();
            prop_assert!(stats.memory as u64 <= stats.receive_buffer + stats.send_buffer + (5 << 18));
        }
        script.conn.detach(script.now);
        script.pass(Duration::from_secs(3600));
        prop_assert!(script.conn.is_over(), "{:?}", script.conn.state());
    }

    #[test]
    fn any_first_answer_is_survived(steps in proptest::collection::vec(step(), 1..20)) {
        let mut script = Script::connecting(&config());
        script.hear();
        let mut heard = (0, 1);
        for step in steps {
            act(&mut script, step, &mut heard);
        }
        script.conn.detach(script.now);
        script.pass(Duration::from_secs(3600));
        prop_assert!(script.conn.is_over());
    }
}

/// Two connections on a bad network.
struct Pair {
    now: Instant,
    ends: [Connection; 2],
    queue: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    random: u64,
}

impl Pair {
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Lets everything leave that wants to, then moves on.
    fn step(&mut self, loss: f64) {
        let mut room = vec![0; 1500];
        for end in 0..2 {
            while let Some(len) = self.ends[end].poll(self.now, &mut room) {
                if self.chance() < loss {
                    continue;
                }
                let copies = if self.chance() < loss { 2 } else { 1 };
                for _ in 0..copies {
                    let late = if self.chance() < 0.1 { ms(4) } else { ms(0) };
                    self.count += 1;
                    self.queue
                        .insert((self.now + ms(10) + late, self.count), (1 - end, room[..len].to_vec()));
                }
            }
        }
        let arrival = self.queue.keys().next().map(|key| key.0);
        let next = self.ends.iter().filter_map(Connection::poll_at).chain(arrival).min();
        self.now = self.now.max(next.expect("nothing will ever happen again"));
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now
        {
            let (end, bytes) = entry.remove();
            self.ends[end].arrives(self.now, &Segment::parse(&bytes).unwrap());
            assert!(self.ends[end].is_consistent());
        }
    }
}

#[test]
fn data_survives_any_network_both_ways() {
    for (seed, loss, congestion) in (1..=8)
        .zip([0.0, 0.01, 0.1, 0.3].into_iter().cycle())
        .map(|(seed, loss)| (seed, loss, if seed % 2 == 0 { Congestion::Cubic } else { Congestion::Bbr }))
    {
        let now = Instant::now();
        let config = Config { congestion, ..config() };
        let mut first = Connection::connect(&config, 1, 2, u32::MAX - 70_000, now);
        let mut room = vec![0; 1500];
        let len = first.poll(now, &mut room).unwrap();
        let syn = Segment::parse(&room[..len]).unwrap();
        let second = Connection::accept(&config, u32::MAX - 70_000, &syn, now).unwrap();
        let mut pair = Pair { now, ends: [first, second], queue: BTreeMap::new(), count: 0, random: seed };
        let total = if loss > 0.2 { 20_000 } else { 150_000 };
        let (mut sent, mut got) = ([0u32; 2], [0u32; 2]);
        for _ in 0..400_000 {
            for end in 0..2 {
                let at = sent[end];
                sent[end] += pair.ends[end].send(pair.now, |room| {
                    let len = room.len().min((total - at) as usize).min(3000);
                    room[..len]
                        .iter_mut()
                        .enumerate()
                        .for_each(|(index, byte)| *byte = pattern(at + index as u32));
                    len
                }) as u32;
                if sent[end] == total {
                    pair.ends[end].shutdown();
                }
                let from = &mut got[end];
                pair.ends[end].recv(|data| {
                    assert!(
                        data.iter().enumerate().all(|(index, &byte)| byte == pattern(*from + index as u32))
                    );
                    *from += data.len() as u32;
                    data.len()
                });
            }
            if got == [total; 2] {
                break;
            }
            pair.step(loss);
        }
        assert_eq!(got, [total; 2], "seed {seed}, loss {loss}");
    }
}

#[test]
fn a_window_that_stays_shut_costs_bounded_memory_and_few_packets() {
    let mut script = Script::open();
    script.tell(say(1, 1).window(0));
    while script.conn.send(script.now, |room| room.len()) > 0 {}
    let out = script.pass(Duration::from_secs(800));
    assert!(out.len() < 220, "{}", out.len());
    assert!(script.conn.stats().memory <= (256 << 10) + (64 << 10));
}

#[test]
fn tiny_segments_asked_for_do_not_fill_the_memory() {
    let mut script = Script::open_with(&config(), &[2, 4, 0, 1, 1, 3, 3, 14, 4, 2, 0, 0]);
    script.window(u64::MAX / 4, None);
    let mut segments = 0;
    while script.conn.send(script.now, |room| room.len()) > 0 {
        segments += script.hear().len();
    }
    assert!(segments <= 1 << 16, "{segments}");
}

#[test]
fn many_gaps_are_bounded() {
    let mut script = Script::open();
    (0..30_000).for_each(|index| script.tell(say(3 + 2 * index, 1).data(1)));
    script.hear();
    assert!(script.conn.stats().memory <= 256 << 10);
    script.tell(say(1, 1).data(2));
    assert_eq!(script.recv().len(), 3);
}
