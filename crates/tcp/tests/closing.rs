//! How connections end (RFC 9293 section 3.6).
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use tcp::{ACK, End, FIN, RST, State};

#[test]
fn we_finish_first() {
    let mut script = Script::open();
    script.send(100);
    script.conn.shutdown();
    let out = script.hear();
    assert_eq!((out.len(), out[0].flags & FIN, out[0].range()), (1, FIN, (1, 101)));
    assert_eq!(script.conn.state(), State::FinWait1);
    assert!(script.ask(say(1, 102)).is_empty());
    assert_eq!(script.conn.state(), State::FinWait2);
    script.tell(say(1, 102).data(50));
    assert_eq!(script.recv().len(), 50);
    let out = script.ask(say(51, 102).flags(FIN | ACK));
    assert_eq!((out[0].ack, script.conn.state()), (52, State::TimeWait));
    // The acknowledgement was lost: the FIN comes again and is answered again, and the wait begins anew.
    script.wait(ms(9000));
    assert_eq!(script.ask(say(51, 102).flags(FIN | ACK))[0].ack, 52);
    assert!(script.pass(ms(9900)).is_empty());
    assert_eq!(script.conn.state(), State::TimeWait);
    script.pass(ms(200));
    assert_eq!((script.conn.state(), script.conn.end()), (State::Closed, Some(End::Finished)));
    assert_eq!(script.conn.poll_at(), None);
}

#[test]
fn the_peer_finishes_first() {
    let mut script = Script::open();
    let out = script.ask(say(1, 1).flags(FIN | ACK).data(10));
    assert_eq!((out[0].ack, script.conn.state()), (12, State::CloseWait));
    assert!(script.conn.peer_finished() && script.conn.may_send());
    script.send(100);
    assert_eq!(script.hear()[0].data.len(), 100);
    script.conn.shutdown();
    let out = script.hear();
    assert_eq!((out[0].flags & FIN, out[0].seq, script.conn.state()), (FIN, 101, State::LastAck));
    script.tell(say(12, 102));
    assert_eq!((script.conn.state(), script.conn.end()), (State::Closed, Some(End::Finished)));
    assert_eq!(script.recv().len(), 10);
}

#[test]
fn both_finish_at_the_same_time() {
    let mut script = Script::open();
    script.conn.shutdown();
    script.hear();
    let out = script.ask(say(1, 1).flags(FIN | ACK));
    assert_eq!((out[0].ack, script.conn.state()), (2, State::Closing));
    script.tell(say(2, 2));
    assert_eq!(script.conn.state(), State::TimeWait);
}

#[test]
fn an_end_may_acknowledge_ours() {
    let mut script = Script::open();
    script.conn.shutdown();
    script.hear();
    script.tell(say(1, 2).flags(FIN | ACK));
    assert_eq!(script.conn.state(), State::TimeWait);
}

#[test]
fn a_lost_end_is_sent_again() {
    let mut script = Script::open();
    script.conn.shutdown();
    let again = script.pass(ms(3000));
    assert!(again.len() >= 4, "{again:?}");
    assert!(again.iter().all(|(_, out)| out.flags & FIN == FIN && out.seq == 1));
}

#[test]
fn an_end_that_overtook_data_counts_when_the_data_is_there() {
    let mut script = Script::open();
    let out = script.ask(say(101, 1).flags(FIN | ACK).data(100));
    assert_eq!(
        (out[0].ack, out[0].sack.clone(), script.conn.state()),
        (1, vec![(101, 201)], State::Established)
    );
    let out = script.ask(say(1, 1).data(100));
    assert_eq!((out[0].ack, script.conn.state()), (202, State::CloseWait));
}

#[test]
fn nothing_comes_after_the_end() {
    let mut script = Script::open();
    script.tell(say(1, 1).flags(FIN | ACK).data(10));
    script.tell(say(12, 1).data(10));
    script.tell(say(1, 1).flags(FIN | ACK).data(30));
    assert_eq!((script.recv().len(), script.conn.state()), (10, State::CloseWait));
    assert_eq!(script.hear().last().unwrap().ack, 12);
}

#[test]
fn an_end_before_data_that_is_there_is_no_end() {
    let mut script = Script::open();
    script.tell(say(501, 1).data(100));
    script.tell(say(101, 1).flags(FIN | ACK).data(100));
    script.tell(say(1, 1).data(100));
    assert_eq!((script.conn.state(), script.recv().len()), (State::Established, 200));
}

#[test]
fn an_abort_resets_and_forgets() {
    let mut script = Script::open();
    script.flight(2);
    script.conn.abort();
    let out = script.hear();
    assert_eq!((out.len(), out[0].flags, out[0].seq, out[0].ack), (1, RST | ACK, 2001, 1));
    assert!(script.conn.is_over());
    assert_eq!(script.conn.poll_at(), None);
    assert!(script.ask(say(1, 1).data(10)).is_empty());
}

#[test]
fn data_for_nobody_is_answered_with_a_reset() {
    let mut script = Script::open();
    script.tell(say(1, 1).data(10));
    script.conn.detach(script.now);
    assert_eq!(script.hear()[0].flags, RST | ACK);
    let mut script = Script::open();
    script.conn.detach(script.now);
    assert_eq!(script.hear()[0].flags & FIN, FIN);
    script.tell(say(1, 2));
    assert_eq!(script.ask(say(1, 2).data(10))[0].flags & RST, RST);
}

#[test]
fn a_detached_connection_does_not_wait_for_ever() {
    let mut script = Script::open();
    script.conn.detach(script.now);
    script.hear();
    script.tell(say(1, 2));
    script.pass(ms(59_000));
    assert_eq!(script.conn.state(), State::FinWait2);
    script.pass(ms(2000));
    assert_eq!(script.conn.state(), State::Closed);
}
