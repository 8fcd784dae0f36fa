//! What is believed of what arrives (RFC 5961).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use tcp::{ACK, End, RST, SYN, State};

fn is_challenge(out: &[Out]) -> bool {
    out.len() == 1 && out[0].flags == ACK && (out[0].seq, out[0].ack) == (1, 1)
}

#[test]
fn a_reset_counts_only_with_the_exact_number() {
    let mut script = Script::open();
    assert!(is_challenge(&script.ask(say(2, 1).flags(RST))));
    assert!(script.ask(say(0, 1).flags(RST)).is_empty());
    assert!(script.ask(say(40_000_000, 1).flags(RST)).is_empty());
    assert_eq!(script.conn.state(), State::Established);
    script.tell(say(1, 1).flags(RST));
    assert_eq!((script.conn.state(), script.conn.end()), (State::Closed, Some(End::Reset)));
}

#[test]
fn a_syn_is_challenged_wherever_it_lies() {
    let mut script = Script::open();
    for seq in [0, 1, 500, 90_000_000] {
        assert!(is_challenge(&script.ask(say(seq, 1).flags(SYN))));
    }
    assert_eq!(script.conn.state(), State::Established);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_or_long_ago_is_challenged() {
    let mut script = Script::open();
    assert!(is_challenge(&script.ask(say(1, 2).data(10))));
    assert!(is_challenge(&script.ask(say(1, 0u32.wrapping_sub(20_000_000)).data(10))));
    assert_eq!(script.conn.recv_queue(), 0);
    script.send(10);
    script.hear();
    script.tell(say(1, 1).data(10));
    assert_eq!((script.conn.recv_queue(), script.conn.send_queue()), (10, 10));
}

#[test]
fn challenges_are_rationed() {
    let mut script = Script::open();
    let answers: usize = (0..100).map(|_| script.ask(say(2, 1).flags(RST)).len()).sum();
    assert_eq!(answers, 10);
    script.wait(ms(1000));
    assert_eq!(script.ask(say(2, 1).flags(RST)).len(), 1);
}

#[test]
fn what_has_no_acknowledgement_is_no_segment() {
    let mut script = Script::open();
    assert!(script.ask(say(1, 1).flags(0).data(10)).is_empty());
    assert_eq!(script.conn.recv_queue(), 0);
}

#[test]
fn old_data_is_acknowledged_at_once() {
    let mut script = Script::open();
    script.tell(say(1, 1).data(100));
    script.hear();
    script.wait(ms(50));
    script.hear();
    let out = script.ask(say(1, 1).data(100));
    assert_eq!((out.len(), out[0].ack, out[0].sack.clone()), (1, 101, vec![(1, 101)]));
}
