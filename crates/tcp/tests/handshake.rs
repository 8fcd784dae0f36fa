//! How connections begin (RFC 9293 section 3.5).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use tcp::{ACK, End, RST, SYN, State};

const SYN_ACK: u8 = SYN | ACK;

#[test]
fn a_call_offers_everything_and_is_completed() {
    let mut script = Script::connecting(&config());
    let syn = &script.hear()[0];
    assert_eq!((syn.seq, syn.flags, syn.window), (0, SYN, 65535));
    assert_eq!(syn.options, [2, 4, 3, 232, 1, 1, 4, 2, 1, 3, 3, 10]);
    script.wait(ms(30));
    let answer = script.ask(say(0, 1).flags(SYN_ACK).options(&OFFER));
    assert_eq!((answer.len(), answer[0].flags, answer[0].seq, answer[0].ack), (1, ACK, 1, 1));
    assert_eq!(script.conn.state(), State::Established);
    assert_eq!(script.conn.stats().smoothed_rtt, Some(ms(30)));
}

#[test]
fn a_call_is_repeated_at_growing_intervals_and_given_up() {
    let mut script = Script::connecting(&config());
    let times: Vec<u64> = script.pass(ms(59_999)).iter().map(|(at, _)| at.as_millis() as u64).collect();
    assert_eq!(times[..6], [0, 1000, 3000, 7000, 11_000, 15_000]);
    assert!(script.pass(ms(10)).is_empty());
    assert_eq!((script.conn.state(), script.conn.end()), (State::Closed, Some(End::TimedOut)));
}

#[test]
fn a_reset_in_answer_is_a_refusal_if_it_acknowledges_the_call() {
    let mut script = Script::connecting(&config());
    script.hear();
    assert!(script.ask(say(0, 0).flags(RST)).is_empty());
    assert!(script.ask(say(0, 7).flags(RST | ACK)).is_empty());
    assert_eq!(script.conn.state(), State::SynSent);
    script.tell(say(0, 1).flags(RST | ACK));
    assert_eq!(script.conn.end(), Some(End::Refused));
}

#[test]
fn an_answer_to_another_call_is_answered_with_a_reset() {
    let mut script = Script::connecting(&config());
    script.hear();
    let answer = script.ask(say(0, 99).flags(SYN_ACK));
    assert_eq!((answer.len(), answer[0].flags, answer[0].seq), (1, RST, 99));
    assert_eq!(script.conn.state(), State::SynSent);
}

#[test]
fn both_sides_may_call_at_the_same_time() {
    let mut script = Script::connecting(&config());
    script.hear();
    let answer = script.ask(say(0, 0).flags(SYN).options(&OFFER));
    assert_eq!((answer[0].flags, answer[0].seq, answer[0].ack), (SYN_ACK, 0, 1));
    let answer = script.ask(say(0, 1).flags(SYN_ACK).options(&OFFER));
    assert_eq!((answer.len(), answer[0].flags, answer[0].seq, answer[0].ack), (1, ACK, 1, 1));
    assert_eq!(script.conn.state(), State::Established);
}

#[test]
fn a_lost_answer_is_repeated_when_asked_again_and_by_itself() {
    let mut script = Script::accepting(&config(), &say(0, 0).flags(SYN).options(&OFFER));
    assert_eq!(script.hear()[0].flags, SYN_ACK);
    assert_eq!(script.ask(say(0, 0).flags(SYN).options(&OFFER))[0].flags, SYN_ACK);
    let again = script.pass(ms(2100));
    assert_eq!((again.len(), again[0].1.flags, again[0].0), (1, SYN_ACK, ms(2000)));
    script.tell(say(1, 1));
    assert_eq!(script.conn.state(), State::Established);
}

#[test]
fn a_wrong_acknowledgement_of_our_answer_is_answered_with_a_reset() {
    let mut script = Script::accepting(&config(), &say(0, 0).flags(SYN).options(&OFFER));
    script.hear();
    let answer = script.ask(say(1, 500));
    assert_eq!((answer.len(), answer[0].flags, answer[0].seq), (1, RST, 500));
    assert_eq!(script.conn.state(), State::SynReceived);
    script.tell(say(1, 1).flags(RST));
    assert_eq!(script.conn.end(), Some(End::Reset));
}

#[test]
fn a_peer_without_options_gets_small_segments_and_plain_windows() {
    let mut script = Script::open_with(&config(), &[]);
    script.tell(say(1, 1).window(5000));
    script.send(5000);
    let out = script.hear();
    assert_eq!(out[0].data.len(), 536);
    assert_eq!(out.iter().map(|out| out.data.len()).sum::<usize>(), 5000);
    assert!(out[0].window > 60_000 && out[0].window as usize <= 65535);
    let mut script = Script::accepting(&config(), &say(0, 0).flags(SYN));
    assert_eq!(script.hear()[0].options, [2, 4, 3, 232]);
}

#[test]
fn data_and_end_may_come_with_the_acknowledgement_of_our_answer() {
    let mut script = Script::accepting(&config(), &say(0, 0).flags(SYN).options(&OFFER));
    script.hear();
    let answer = script.ask(say(1, 1).flags(ACK | tcp::FIN).data(10));
    assert_eq!(answer.last().unwrap().ack, 12);
    assert_eq!((script.conn.state(), script.recv().len()), (State::CloseWait, 10));
}

#[test]
fn queued_data_follows_the_handshake() {
    let mut script = Script::connecting(&config());
    script.send(100);
    script.conn.shutdown();
    assert_eq!(script.hear().len(), 1);
    let out = script.ask(say(0, 1).flags(SYN_ACK).options(&OFFER));
    assert_eq!((out.len(), out[0].flags & tcp::FIN, out[0].range()), (1, tcp::FIN, (1, 101)));
    assert_eq!(script.conn.state(), State::FinWait1);
}

#[test]
fn only_a_plain_syn_is_accepted() {
    for flags in [0, ACK, SYN_ACK, SYN | RST, SYN | tcp::FIN] {
        let bytes = say(0, 0).flags(flags).bytes();
        let segment = tcp::Segment::parse(&bytes).unwrap();
        assert!(tcp::Connection::accept(&config(), 1, &segment, std::time::Instant::now()).is_none());
    }
}
