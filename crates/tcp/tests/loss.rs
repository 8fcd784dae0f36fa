//! Loss, and what only looks like it (RFC 6675, RFC 8985, RFC 6298, RFC 5682, RFC 2883). The round trip is 10 ms.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;

/// The blocks of segments from one to before the other.
fn block(from: u32, to: u32) -> (u32, u32) {
    (segment(from).0, segment(to).0)
}

#[test]
fn one_lost_segment_is_sent_again_when_three_that_followed_arrived() {
    let mut script = Script::open();
    script.flight(10);
    script.wait(ms(10));
    assert!(script.ask(say(1, 1).sack(&[block(1, 2)])).is_empty());
    assert!(script.ask(say(1, 1).sack(&[block(1, 3)])).is_empty());
    let out = script.ask(say(1, 1).sack(&[block(1, 4)]));
    assert_eq!(ranges(&out), [segment(0)]);
    assert_eq!(script.told(), [Told::Congestion]);
    script.wait(ms(10));
    assert!(script.ask(say(1, segment(10).0)).is_empty());
    assert_eq!(script.told(), [Told::Recovered]);
    let stats = script.conn.stats();
    assert_eq!(
        (stats.retransmitted_segments, stats.lost, stats.delivered, stats.in_flight),
        (1, 1000, 10_000, 0)
    );
}

#[test]
fn a_burst_of_losses_is_one_episode() {
    let mut script = Script::open();
    script.flight(20);
    script.wait(ms(10));
    let out = script.ask(say(1, segment(2).0).sack(&[block(7, 9), block(10, 20)]));
    let expected: Vec<_> = [2, 3, 4, 5, 6, 9].map(segment).into();
    let mut seen = ranges(&out);
    script.wait(ms(10));
    seen.extend(ranges(&script.ask(say(1, segment(4).0).sack(&[block(7, 9), block(10, 20)]))));
    seen.extend(ranges(&script.ask(say(1, segment(6).0).sack(&[block(7, 9), block(10, 20)]))));
    assert_eq!(seen, expected);
    script.tell(say(1, segment(20).0));
    assert_eq!(script.told(), [Told::Congestion, Told::Recovered]);
}

#[test]
fn a_late_segment_is_given_a_quarter_of_a_round_trip() {
    let mut script = Script::open();
    script.flight(3);
    script.wait(ms(10));
    assert!(script.ask(say(1, 1).sack(&[block(1, 3)])).is_empty());
    let again = script.pass(ms(5));
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].0, again[0].1.range()), (ms(10 + 10) + ms(10) / 4, segment(0)));
}

#[test]
fn a_lost_tail_is_probed_and_then_repaired() {
    let mut script = Script::open();
    script.flight(5);
    script.wait(ms(10));
    script.tell(say(1, segment(2).0));
    let probe = script.pass(ms(30));
    assert_eq!((probe.len(), probe[0].1.range()), (1, segment(4)));
    assert_eq!(probe[0].0, ms(10 + 10 + 20));
    // The probe's acknowledgement shows the rest to be missing.
    let out = script.ask(say(1, segment(2).0).sack(&[block(4, 5)]));
    assert_eq!(ranges(&out), [segment(2)], "one for the one that was delivered");
    assert_eq!(script.told(), [Told::Congestion]);
    script.wait(ms(10));
    assert_eq!(ranges(&script.ask(say(1, segment(3).0).sack(&[block(4, 5)]))), [segment(3)]);
}

#[test]
fn a_tail_that_the_probe_repaired_counts_as_loss() {
    let mut script = Script::open();
    script.flight(2);
    script.wait(ms(10));
    script.tell(say(1, segment(1).0));
    // A single segment may wait for its receiver's delayed acknowledgement.
    let probe = script.pass(ms(230));
    assert_eq!((probe.len(), probe[0].1.range(), probe[0].0), (1, segment(1), ms(10 + 10 + 210)));
    script.tell(say(1, segment(2).0));
    assert_eq!(script.told(), []);
    script.flight(1);
    script.wait(ms(10));
    script.tell(say(1, segment(3).0));
    assert_eq!(script.told(), [Told::Congestion, Told::Recovered]);
}

#[test]
fn a_needless_probe_is_no_loss() {
    let mut script = Script::open();
    script.flight(2);
    script.wait(ms(25));
    assert_eq!(ranges(&script.hear()), [segment(1)]);
    script.tell(say(1, segment(2).0));
    script.tell(say(1, segment(2).0).sack(&[segment(1)]));
    script.flight(1);
    script.tell(say(1, segment(3).0));
    assert_eq!(script.told(), []);
}

#[test]
fn a_probe_carries_new_data_if_there_is_any() {
    let mut script = Script::open();
    script.window(3000, None);
    script.send(10_000);
    assert_eq!(script.hear().len(), 3);
    script.wait(ms(20));
    assert_eq!(ranges(&script.hear()), [segment(3)]);
}

#[test]
fn a_lost_retransmission_is_noticed_without_a_timeout() {
    let mut script = Script::open();
    script.flight(10);
    script.wait(ms(10));
    assert_eq!(ranges(&script.ask(say(1, 1).sack(&[block(1, 4)]))), [segment(0)]);
    script.wait(ms(1));
    script.send(10_000);
    assert!(!script.hear().is_empty());
    script.wait(ms(10));
    // What was sent after the retransmission arrives, the retransmission does not.
    let out = script.ask(say(1, 1).sack(&[block(1, 11)]));
    assert_eq!(ranges(&out).first(), Some(&segment(0)));
    assert_eq!(script.told(), [Told::Congestion]);
    assert_eq!(script.conn.stats().retransmitted_segments, 2);
}

#[test]
fn lost_acknowledgements_cost_nothing() {
    let mut script = Script::open();
    script.flight(20);
    script.wait(ms(10));
    assert!(script.ask(say(1, segment(20).0)).is_empty());
    assert_eq!((script.told(), script.conn.stats().retransmitted_segments), (vec![], 0));
}

#[test]
fn reordering_is_waited_for_once_it_was_seen() {
    let mut script = Script::open();
    script.flight(10);
    script.wait(ms(10));
    script.tell(say(1, 1).sack(&[block(1, 3)]));
    script.tell(say(1, segment(3).0));
    // Now more than three segments may overtake another.
    assert!(script.ask(say(1, segment(3).0).sack(&[block(4, 9)])).is_empty());
    script.wait(ms(1));
    assert!(script.ask(say(1, segment(10).0)).is_empty());
    assert_eq!(script.told(), []);
}

#[test]
fn a_duplicate_report_takes_the_reduction_back_and_widens_the_patience() {
    let mut script = Script::open();
    script.flight(10);
    script.wait(ms(10));
    assert_eq!(ranges(&script.ask(say(1, 1).sack(&[block(1, 4)]))), [segment(0)]);
    script.wait(ms(2));
    // The original arrives late, then the retransmission.
    script.tell(say(1, segment(10).0));
    script.tell(say(1, segment(10).0).sack(&[segment(0)]));
    assert_eq!(script.told(), [Told::Congestion, Told::Recovered, Told::Spurious]);
    assert_eq!(script.conn.stats().spurious, 1);
    // One duplicate: half a round trip.
    script.flight(3);
    script.wait(ms(10));
    script.tell(say(1, segment(10).0).sack(&[block(11, 13)]));
    assert!(script.pass(ms(4)).is_empty());
    assert_eq!(script.pass(ms(2)).len(), 1);
}

#[test]
fn timeouts_back_off_to_their_limit() {
    let mut script = Script::open();
    script.send(1000);
    let times: Vec<u64> = script.pass(ms(20_000)).iter().map(|(at, _)| at.as_millis() as u64).collect();
    // Round trip 10, timeout 210: first a probe, then the timeouts.
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [210, 210, 420, 840, 1680, 3360, 4000, 4000, 4000]);
    assert_eq!(script.told(), [Told::Timeout]);
    assert_eq!(script.conn.send_queue(), 1000);
}

#[test]
fn after_a_timeout_everything_is_sent_again() {
    let mut script = Script::open();
    script.flight(5);
    let out = script.pass(ms(300));
    assert_eq!(out.len(), 2, "a probe, then the first segment: {out:?}");
    assert_eq!((out[0].1.range(), out[1].1.range()), (segment(4), segment(0)));
    let out = script.ask(say(1, segment(1).0));
    assert_eq!(ranges(&out), [1, 2, 3, 4].map(segment));
    script.tell(say(1, segment(5).0));
    assert_eq!(script.told(), [Told::Timeout, Told::Recovered]);
}

#[test]
fn a_timeout_that_was_only_a_delay_is_taken_back() {
    let mut script = Script::open();
    script.flight(5);
    script.pass(ms(300));
    // The acknowledgement of the originals comes at last: for more than what was sent again.
    assert!(script.ask(say(1, segment(3).0)).is_empty());
    assert_eq!(script.told(), [Told::Timeout, Told::Spurious]);
    assert_eq!(script.conn.stats().retransmitted_segments, 2);
}

#[test]
fn a_timeout_is_judged_by_new_data_when_acknowledgements_come_one_by_one() {
    let mut script = Script::open();
    script.flight(5);
    script.pass(ms(300));
    script.send(5000);
    let out = script.ask(say(1, segment(1).0));
    assert_eq!(ranges(&out)[0], segment(5), "new data first");
    script.tell(say(1, segment(2).0));
    assert_eq!(script.told(), [Told::Timeout, Told::Spurious]);
}

#[test]
fn without_sack_three_repetitions_mean_loss_and_each_partial_step_the_next() {
    let mut script = Script::open_with(&config(), &[2, 4, 3, 232, 3, 3, 7, 0]);
    script.flight(10);
    script.wait(ms(10));
    assert!(script.ask(say(1, 1)).is_empty());
    assert!(script.ask(say(1, 1)).is_empty());
    assert_eq!(ranges(&script.ask(say(1, 1))), [segment(0)]);
    script.wait(ms(10));
    assert_eq!(ranges(&script.ask(say(1, segment(5).0))), [segment(5)]);
    script.tell(say(1, segment(10).0));
    assert_eq!(script.told(), [Told::Congestion, Told::Recovered]);
}

#[test]
fn forged_blocks_are_ignored() {
    let mut script = Script::open();
    script.flight(4);
    script.wait(ms(10));
    for blocks in [[(4001, 9001)], [(3001, 2001)], [(0, 5)], [(2_000_000_000, 2_000_001_000)]] {
        script.tell(say(1, 1).sack(&blocks));
    }
    script.tell(say(1, 1).sack(&[(1500, 2500), (2600, 2700)]));
    assert_eq!((script.conn.stats().delivered, script.conn.stats().in_flight), (0, 4000));
}

#[test]
fn a_receiver_that_takes_its_word_back_gets_everything_again() {
    let mut script = Script::open();
    script.flight(4);
    script.wait(ms(10));
    script.tell(say(1, 1).sack(&[block(1, 4)]));
    script.hear();
    // The first segment is acknowledged, and not the rest that was there.
    script.tell(say(1, segment(1).0));
    let out = script.pass(ms(1000));
    assert_eq!(out[0].1.range(), segment(1));
    let out = script.ask(say(1, segment(2).0));
    assert_eq!(ranges(&out), [2, 3].map(segment));
}

#[test]
fn a_kick_repeats_at_once() {
    let mut script = Script::open();
    script.flight(2);
    script.pass(ms(30_000));
    script.conn.kick(script.now, ms(200));
    assert_eq!(ranges(&script.hear()), [segment(0)]);
    script.tell(say(1, segment(1).0));
    script.conn.kick(script.now, ms(200));
    assert!(ranges(&script.hear()) == [segment(1)]);
}

#[test]
fn an_acknowledgement_inside_a_segment_counts_for_its_part() {
    let mut script = Script::open();
    script.flight(3);
    script.wait(ms(10));
    script.tell(say(1, 501));
    let stats = script.conn.stats();
    assert_eq!((stats.in_flight, stats.delivered, script.conn.send_queue()), (2500, 500, 2500));
    script.pass(ms(300));
    script.tell(say(1, segment(3).0));
    assert_eq!(script.conn.stats().in_flight, 0);
}

#[test]
fn delivery_rates_are_measured() {
    let mut script = Script::open();
    script.window(10_000, None);
    script.send(100_000);
    for round in 0..5 {
        script.hear();
        script.wait(ms(10));
        script.tell(say(1, segment(10 * (round + 1)).0));
    }
    let acks = script.acks.lock().unwrap();
    let rate = acks.last().unwrap().rate.unwrap();
    assert_eq!((rate.delivered, rate.interval, rate.sent_in_flight), (10_000, ms(10), 10_000));
    assert!(!rate.app_limited && !acks.last().unwrap().app_limited);
    assert_eq!((rate.prior_delivered, acks.last().unwrap().delivered), (40_000, 50_000));
}

#[test]
fn a_sender_with_nothing_to_send_says_so() {
    let mut script = Script::open();
    script.flight(2);
    script.wait(ms(10));
    script.tell(say(1, segment(2).0));
    script.flight(2);
    script.wait(ms(10));
    script.tell(say(1, segment(4).0));
    let acks = script.acks.lock().unwrap();
    assert!(acks.iter().all(|ack| ack.app_limited) && acks[1].rate.unwrap().app_limited);
}

/// Everything is acknowledged selectively before the cumulative acknowledgement comes.
#[test]
fn an_episode_ends_although_its_last_step_delivers_nothing() {
    let mut script = Script::open();
    script.flight(4);
    script.wait(ms(10));
    assert_eq!(ranges(&script.ask(say(1, 1).sack(&[block(1, 4)]))), [segment(0)]);
    script.wait(ms(10));
    script.tell(say(1, 1).sack(&[block(0, 4)]));
    assert_eq!(script.told(), [Told::Congestion]);
    script.tell(say(1, segment(4).0));
    assert_eq!(script.told(), [Told::Recovered]);
}
