//! Whatever arrives, the stack goes on.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use netstack::Event;
use proptest::prelude::*;

/// A TCP packet from `a`'s address to `b`'s.
fn segment(
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    data: usize,
) -> Vec<u8> {
    let header = 20 + options.len().next_multiple_of(4);
    let mut packet = vec![0; 40 + header + data];
    let length = (packet.len() - 40) as u16;
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    (packet[6], packet[7]) = (6, 64);
    packet[8..24].copy_from_slice(&address(A).octets());
    packet[24..40].copy_from_slice(&address(B).octets());
    packet[40..42].copy_from_slice(&ports.0.to_be_bytes());
    packet[42..44].copy_from_slice(&ports.1.to_be_bytes());
    packet[44..48].copy_from_slice(&seq.to_be_bytes());
    packet[48..52].copy_from_slice(&ack.to_be_bytes());
    packet[52] = ((header / 4) << 4) as u8;
    packet[53] = flags;
    packet[54..56].copy_from_slice(&window.to_be_bytes());
    packet[60..60 + options.len()].copy_from_slice(options);
    packet
}

/// A connection of `b` whose other end is played by the test: sequence numbers `(ours, b's)` after the handshake.
fn half_played(net: &mut Net) -> (netstack::Flow, u32, u32) {
    let options = [2, 4, 4, 196, 3, 3, 7, 4, 2, 0, 0, 0];
    net.b.inject(net.now, &segment((5000, 3), 999, 0, 2, 65535, &options, 0));
    let [Event::Incoming { id, .. }] = events(&mut net.b)[..] else { panic!("no attempt") };
    let flow = net.b.accept(net.now, id).unwrap();
    let answer = &drain(&mut net.b, net.now)[0];
    let theirs = u32::from_be_bytes(answer[44..48].try_into().unwrap()).wrapping_add(1);
    net.b.inject(net.now, &segment((5000, 3), 1000, theirs, 16, 65535, &[], 0));
    assert_eq!(events(&mut net.b), [Event::Connected(flow)]);
    (flow, 1000, theirs)
}

#[derive(Clone, Debug)]
enum Step {
    Segment { seq: i32, ack: i32, flags: u8, window: u16, options: Vec<u8>, data: usize },
    Send(usize),
    Recv(usize),
    Shutdown,
    Wait(u64),
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -3..3i32, 3 => -3000..3000i32, 2 => 0..9_000_000i32, 1 => any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![6 => Just(16u8), 2 => Just(17), 1 => Just(20), 1 => Just(18), 1 => Just(2), 2 => any::<u8>()];
    let options = prop_oneof![3 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 0..40)];
    let window = prop_oneof![Just(0u16), Just(65535), any::<u16>()];
    let data = prop_oneof![2 => Just(0usize), 3 => 1..1221usize, 1 => 1221..60_000usize];
    prop_oneof![
        8 => (near(), near(), flags, window, options, data).prop_map(|(seq, ack, flags, window, options, data)| {
            Step::Segment { seq, ack, flags, window, options, data }
        }),
        2 => (0..100_000usize).prop_map(Step::Send),
        2 => (0..100_000usize).prop_map(Step::Recv),
        1 => Just(Step::Shutdown),
        2 => (0..100_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_peer_is_survived(steps in proptest::collection::vec(step(), 1..60)) {
        let mut net = Net::new(1);
        let (flow, mut seq, ack) = half_played(&mut net);
        let mut data = Vec::new();
        for step in steps {
            match step {
                Step::Segment { seq: by, ack: on, flags, window, options, data } => {
                    let at = seq.wrapping_add(by as u32);
                    let packet = segment((5000, 3), at, ack.wrapping_add(on as u32), flags, window, &options, data);
                    net.b.inject(net.now, &packet);
                    if by == 0 {
                        seq = seq.wrapping_add(data as u32);
                    }
                }
                Step::Send(len) => _ = send(&mut net.b, net.now, flow, &vec![1; len]),
                Step::Recv(len) => _ = net.b.recv(flow, |data| data.len().min(len)),
                Step::Shutdown => net.b.shutdown(flow),
                Step::Wait(millis) => net.now += std::time::Duration::from_millis(millis),
            }
            drain(&mut net.b, net.now);
            prop_assert!(net.b.poll_at(net.now).is_none_or(|at| at > net.now));
            events(&mut net.b);
        }
        recv(&mut net.b, flow, &mut data);
        net.b.close(net.now, flow);
        net.pass(std::time::Duration::from_secs(3600));
        prop_assert_eq!(net.b.flows(), 0);
    }

    #[test]
    fn any_answer_to_a_connection_attempt_is_survived(steps in proptest::collection::vec(step(), 1..20)) {
        let mut net = Net::new(1);
        let flow = net.b.connect(net.now, at(A, 3)).unwrap();
        let syn = &drain(&mut net.b, net.now)[0];
        let port = u16::from_be_bytes(syn[40..42].try_into().unwrap());
        let ack = u32::from_be_bytes(syn[44..48].try_into().unwrap()).wrapping_add(1);
        for step in steps {
            match step {
                Step::Segment { seq, ack: on, flags, window, options, data } => {
                    let ack = ack.wrapping_add(on as u32);
                    net.b.inject(net.now, &segment((3, port), seq as u32, ack, flags, window, &options, data));
                }
                Step::Send(len) => _ = send(&mut net.b, net.now, flow, &vec![1; len]),
                Step::Recv(len) => _ = net.b.recv(flow, |data| data.len().min(len)),
                Step::Shutdown => net.b.shutdown(flow),
                Step::Wait(millis) => net.now += std::time::Duration::from_millis(millis),
            }
            drain(&mut net.b, net.now);
            events(&mut net.b);
        }
        net.b.close(net.now, flow);
        net.pass(std::time::Duration::from_secs(3600));
        prop_assert_eq!(net.b.flows(), 0);
    }

    #[test]
    fn any_syn_is_survived(options in proptest::collection::vec(any::<u8>(), 0..40), flags in any::<u8>(), data in 0..1200usize) {
        let mut net = Net::new(1);
        net.b.inject(net.now, &segment((5000, 3), 7, 0, flags | 2, 1, &options, data));
        for event in events(&mut net.b) {
            if let Event::Incoming { id, .. } = event {
                net.b.accept(net.now, id);
            }
        }
        net.pass(std::time::Duration::from_secs(3600));
        prop_assert!(net.b.flows() <= 1);
    }

    #[test]
    fn any_bytes_are_survived(next in prop_oneof![Just(6u8), Just(17), Just(58), Just(99), any::<u8>()],
                              mut body in proptest::collection::vec(any::<u8>(), 0..120), cut in 0..160usize) {
        let mut net = Net::new(1);
        let mut packet = segment((1, 1), 0, 0, 0, 0, &[], 0);
        packet.truncate(40);
        packet[6] = next;
        packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
        packet.append(&mut body);
        packet.truncate(cut);
        net.b.inject(net.now, &packet);
        drain(&mut net.b, net.now);
    }
}

/// The window field of a SYN is not scaled: data beyond the receive buffer must not be taken for being inside.
#[test]
fn data_beyond_the_receive_buffer_is_refused() {
    let mut net = Net::new(1);
    let (flow, seq, ack) = half_played(&mut net);
    for (from, to) in [(8_380_000, 8_500_000u32), (1, 8_390_000)] {
        for at in (from..to).step_by(60_000) {
            net.b.inject(net.now, &segment((5000, 3), seq + at, ack, 16, 65535, &[], 60_000));
        }
    }
    net.b.inject(net.now, &segment((5000, 3), seq, ack, 16, 65535, &[], 60_000));
    assert!(net.b.recv_queue(flow) >= 60_000);
    drain(&mut net.b, net.now);
}

#[test]
fn what_is_not_for_us_is_counted() {
    let mut net = Net::new(1);
    let good = segment((5000, 3), 1, 1, 16, 1, &[], 10);
    let altered = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let packets =
        [good[..39].to_vec(), good[..69].to_vec(), altered(0, 0x45), altered(8, 0xff), altered(39, 1)];
    for packet in
        packets.iter().chain([&altered(6, 44), &altered(6, 0), &altered(52, 0x40), &altered(52, 0xf0)])
    {
        net.b.inject(net.now, packet);
    }
    let counters = net.b.counters();
    assert_eq!((counters.malformed, counters.foreign, counters.unsupported, counters.stray), (6, 1, 2, 0));
    assert!(drain(&mut net.b, net.now).is_empty());
    net.b.inject(net.now, &good);
    let reset = &drain(&mut net.b, net.now)[0];
    assert_eq!((reset[53], &reset[44..48], net.b.counters().stray), (4, &[0, 0, 0, 1][..], 1));
}
