//! Acknowledging, reassembling, offering windows, and staying alive.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use tcp::{ACK, End, State};

#[test]
fn a_single_segment_is_acknowledged_after_40_ms_and_two_at_once() {
    let mut script = Script::open();
    assert!(script.ask(say(1, 1).data(1000)).is_empty());
    let out = script.pass(ms(50));
    assert_eq!((out.len(), out[0].0, out[0].1.ack), (1, ms(50), 1001));
    assert!(script.ask(say(1001, 1).data(1000)).is_empty());
    assert_eq!(script.ask(say(2001, 1).data(1000))[0].ack, 3001);
}

#[test]
fn a_batch_is_acknowledged_once() {
    let mut script = Script::open();
    (0..64).for_each(|index| script.tell(say(segment(index).0, 1).data(1000)));
    let out = script.hear();
    assert_eq!((out.len(), out[0].ack), (1, segment(64).0));
}

#[test]
fn data_on_its_way_out_carries_the_acknowledgement() {
    let mut script = Script::open();
    script.tell(say(1, 1).data(10));
    script.send(10);
    let out = script.hear();
    assert_eq!((out.len(), out[0].ack, out[0].data.len()), (1, 11, 10));
    assert!(script.pass(ms(39)).is_empty());
}

#[test]
fn gaps_are_reported_at_once_the_latest_first_and_so_is_their_end() {
    let mut script = Script::open();
    for (index, expected) in [
        (2, vec![segment(2)]),
        (4, vec![segment(4), segment(2)]),
        (6, vec![segment(6), segment(4), segment(2)]),
        (8, vec![segment(8), segment(6), segment(4), segment(2)]),
        (10, vec![segment(10), segment(8), segment(6), segment(4)]),
        (5, vec![(segment(4).0, segment(6).1), segment(10), segment(8), segment(2)]),
    ] {
        let out = script.ask(say(segment(index).0, 1).data(1000));
        assert_eq!((out.len(), out[0].ack, out[0].sack.clone()), (1, 1, expected));
    }
    let out = script.ask(say(1, 1).data(2000));
    assert_eq!((out[0].ack, out[0].sack.len()), (segment(2).1, 3));
    for index in [3, 7, 9] {
        script.tell(say(segment(index).0, 1).data(1000));
    }
    let out = script.hear();
    assert_eq!((out.len(), out[0].ack, out[0].sack.clone()), (1, segment(10).1, vec![]));
    let data = script.recv();
    assert!(
        data.iter().enumerate().all(|(at, &byte)| byte == pattern(1 + at as u32)) && data.len() == 11_000
    );
}

#[test]
fn a_batch_with_many_gaps_reports_all_of_them() {
    let mut script = Script::open();
    (0..20).for_each(|index| script.tell(say(segment(2 * index + 1).0, 1).data(1000)));
    let out = script.hear();
    let mut told: Vec<_> = out.iter().flat_map(|out| out.sack.clone()).collect();
    told.sort_unstable();
    assert_eq!(told, (0..20).map(|index| segment(2 * index + 1)).collect::<Vec<_>>());
    assert_eq!(out.len(), 5);
}

#[test]
fn what_comes_twice_is_reported_once() {
    let mut script = Script::open();
    script.tell(say(segment(1).0, 1).data(1000));
    script.tell(say(segment(3).0, 1).data(1000));
    script.hear();
    let out = script.ask(say(segment(1).0, 1).data(1000));
    assert_eq!(out[0].sack, [segment(1), segment(1), segment(3)]);
    script.tell(say(1, 1).data(1000));
    let out = script.ask(say(1, 1).data(2000));
    assert_eq!((out[0].ack, out[0].sack.clone()), (segment(1).1, vec![(1, segment(1).1), segment(3)]));
    assert_eq!(script.ask(say(segment(2).0, 1).data(1000))[0].sack, []);
}

#[test]
fn overlapping_data_is_taken_once() {
    let mut script = Script::open();
    script.tell(say(501, 1).data(1000));
    script.tell(say(1, 1).data(800));
    script.tell(say(701, 1).data(2000));
    let data = script.recv();
    assert!(data.len() == 2700 && data.iter().enumerate().all(|(at, &byte)| byte == pattern(1 + at as u32)));
}

#[test]
fn data_beyond_the_window_is_refused() {
    let mut script = Script::open();
    let edge = 1 + 65_535;
    script.tell(say(edge - 100, 1).data(1000));
    assert_eq!(script.hear()[0].sack, [(edge - 100, edge)]);
    assert!(script.ask(say(edge + 300_000, 1).data(1000)).iter().all(|out| out.ack == 1));
}

/// How far the peer may send.
fn edge(out: &Out) -> u32 {
    out.ack + (u32::from(out.window) << 10)
}

#[test]
fn the_window_closes_without_shrinking_and_opens_when_data_is_taken() {
    let mut script = Script::open();
    let (mut seq, mut right) = (1, 0);
    loop {
        let out = script.ask(say(seq, 1).data(1000));
        seq += 1000;
        if let Some(out) = out.last() {
            assert!(edge(out) + 1024 > right, "by no more than its own unit");
            right = right.max(edge(out));
            if out.window == 0 {
                break;
            }
        }
    }
    assert!((262_000 - 2048..=263_169).contains(&(seq - 1)), "{seq}");
    assert!(script.ask(say(seq, 1).data(1000))[0].window == 0);
    // A little room is not worth telling, a quarter is.
    script.conn.recv(|_| 5000);
    assert!(script.pass(ms(100)).is_empty());
    let mut taken = 5000;
    while taken < 70_000 {
        taken += script.conn.recv(|data| data.len().min(5000));
    }
    let out = script.hear();
    assert_eq!((out.len(), out[0].flags), (1, ACK));
    assert!(u32::from(out[0].window) << 10 >= 64_000);
}

#[test]
fn the_buffer_grows_with_the_application_s_appetite_and_not_without() {
    let config = tcp::Config { receive_buffer: 4 << 20, ..config() };
    let mut script = Script::open_with(&config, &OFFER);
    let mut seq = 1;
    for _ in 0..40 {
        for _ in 0..script.conn.stats().receive_buffer / 2000 {
            script.tell(say(seq, 1).data(1000));
            seq += 1000;
            script.recv();
            script.hear();
        }
        script.wait(ms(8));
    }
    assert!(script.conn.stats().receive_buffer >= 4 << 20);
    let mut script = Script::open_with(&config, &OFFER);
    let mut seq = 1;
    for _ in 0..4000 {
        script.tell(say(seq, 1).data(1000));
        seq += 1000;
        script.recv();
        script.wait(ms(10));
        script.hear();
    }
    assert_eq!(script.conn.stats().receive_buffer, 256 << 10);
}

#[test]
fn an_idle_connection_holds_no_memory() {
    let mut script = Script::open();
    for index in 0..60 {
        script.tell(say(segment(index).0, 1).data(1000));
    }
    script.flight(50);
    assert!(script.conn.stats().memory > 100_000);
    script.recv();
    script.tell(say(segment(60).0, segment(50).0));
    script.pass(ms(1000));
    assert_eq!(script.conn.stats().memory, 0);
    assert_eq!(script.conn.poll_at(), None);
}

#[test]
fn a_closed_window_is_probed_for_as_long_as_the_peer_answers() {
    let mut script = Script::open();
    script.tell(say(1, 1).window(0));
    script.send(500);
    let mut probes = 0;
    for _ in 0..1000 {
        for (_, out) in script.pass(ms(4000)) {
            assert_eq!((out.seq, out.data.len()), (0, 0));
            probes += 1;
            script.tell(say(1, 1).window(0));
        }
    }
    assert!((990..1020).contains(&probes), "{probes}");
    assert_eq!(script.conn.state(), State::Established);
    script.tell(say(1, 1).window(100));
    assert_eq!(script.hear()[0].data.len(), 500);
}

#[test]
fn a_silly_window_is_used_only_when_nothing_else_happens() {
    let mut script = Script::open();
    script.tell(say(1, 1).window(100));
    script.send(50_000);
    assert_eq!(script.hear().len(), 12, "twelve whole segments into 12,800 bytes");
    script.wait(ms(10));
    assert!(script.ask(say(1, segment(12).0).window(1)).is_empty());
    let out = script.pass(ms(300));
    assert_eq!(out[0].1.data.len(), 128);
}

#[test]
fn silence_ends_a_connection_that_waits_for_an_answer() {
    let mut script = Script::open();
    script.pass(ms(3_600_000));
    script.send(1);
    script.pass(ms(899_000));
    assert_eq!(script.conn.state(), State::Established);
    script.pass(ms(2000));
    assert_eq!(script.conn.end(), Some(End::TimedOut));
}

#[test]
fn a_quiet_peer_is_probed_nine_times() {
    let mut script = Script::open();
    script.conn.set_keepalive(Some(ms(60_000)));
    let probes = script.pass(ms(60_000));
    assert_eq!((probes.len(), probes[0].1.seq, probes[0].1.data.len()), (1, 0, 0));
    script.tell(say(1, 1));
    let probes = script.pass(ms(60_000 + 9 * 75_000 - 1));
    assert_eq!((probes.len(), script.conn.state()), (9, State::Established));
    script.pass(ms(2));
    assert_eq!(script.conn.end(), Some(End::TimedOut));
}

#[test]
fn the_peer_s_probes_are_answered() {
    let mut script = Script::open();
    let out = script.ask(say(0, 1));
    assert_eq!((out.len(), out[0].ack), (1, 1));
}

#[test]
fn a_paced_sender_spreads_its_segments() {
    let mut script = Script::open();
    script.window(1_000_000, Some(1_000_000));
    script.send(200_000);
    let out = script.pass(ms(99));
    let sent: usize = out.iter().map(|(_, out)| out.data.len()).sum();
    assert!((95_000..106_000).contains(&sent), "{sent}");
    let mut times: Vec<_> = out.iter().map(|(at, _)| *at).collect();
    times.dedup();
    assert!((45..=52).contains(&times.len()), "bursts of two: {}", times.len());
}

#[test]
fn the_send_buffer_grows_with_the_congestion_window() {
    let mut script = Script::open();
    assert_eq!(script.conn.send_room(), 256 << 10);
    script.window(1_000_000, None);
    assert_eq!(script.conn.send_room(), 2_000_000);
    script.send(300_000);
    script.window(10_000, None);
    assert!(script.conn.send_room() > 0, "it does not shrink under what is queued");
}
