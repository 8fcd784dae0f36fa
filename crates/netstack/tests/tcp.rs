//! TCP between two stacks: data arrives whole, ends are told apart, nobody waits for ever.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use netstack::Event;

/// Sends `data` from a to b, closes both ways, and returns what arrived.
fn transfer(net: &mut Net, data: &[u8]) -> Vec<u8> {
    let (out, into) = net.connect(3);
    let (mut sent, mut got, mut finished, mut shut) = (0, Vec::new(), false, false);
    net.run(|net| {
        sent += send(&mut net.a, net.now, out, &data[sent..]);
        if sent == data.len() && !shut {
            net.a.shutdown(out);
            shut = true;
        }
        recv(&mut net.b, into, &mut got);
        finished |= events(&mut net.b).contains(&Event::Finished(into));
        finished
    });
    net.b.close(net.now, into);
    net.run(|net| events(&mut net.a).contains(&Event::Finished(out)));
    net.a.close(net.now, out);
    net.pass(Duration::from_secs(60));
    assert_eq!((net.a.flows(), net.b.flows()), (0, 0));
    got
}

#[test]
fn bulk_data_arrives_whole_and_nothing_is_left() {
    let mut net = Net::new(1);
    let data = pattern(20 << 20);
    assert!(transfer(&mut net, &data) == data);
    assert_eq!((net.a.poll_at(net.now), net.b.poll_at(net.now)), (None, None));
}

#[test]
fn loss_reordering_and_duplication_do_not_change_the_data() {
    for seed in 1..=5 {
        let mut net = Net::new(seed);
        net.weather = Weather { loss: 0.01, duplicate: 0.01, reorder: 0.05, down: false };
        let data = pattern(1 << 20);
        assert!(transfer(&mut net, &data) == data);
    }
}

#[test]
fn the_same_seed_sends_the_same_packets() {
    let run = || {
        let mut net = Net::new(9);
        net.weather.loss = 0.02;
        transfer(&mut net, &pattern(300_000));
        net.sent
    };
    assert_eq!(run(), run());
}

/// The window opens although the receiver acknowledges whole batches.
#[test]
fn a_long_path_is_soon_filled() {
    let mut net = Net::new(1);
    net.delay = Duration::from_millis(15);
    let (out, into) = net.connect(3);
    let (data, start, mut got) = (pattern(1 << 20), net.now, 0);
    let mut sink = Vec::new();
    net.run(|net| {
        while send(&mut net.a, net.now, out, &data) > 0 {}
        sink.clear();
        got += recv(&mut net.b, into, &mut sink);
        net.now >= start + Duration::from_secs(2)
    });
    // 4 MiB in flight over 30 ms are 140 MB/s; two seconds with a slow start of one of them.
    assert!(got > 140_000_000, "{got}");
}

#[test]
fn each_direction_ends_by_itself() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(22);
    send(&mut net.a, net.now, out, b"request");
    net.a.shutdown(out);
    let mut request = Vec::new();
    net.run(|net| {
        recv(&mut net.b, into, &mut request);
        events(&mut net.b).contains(&Event::Finished(into))
    });
    assert_eq!(request, b"request");
    assert!(!net.a.may_send(out) && net.b.may_send(into));
    net.pass(Duration::from_secs(600));
    assert_eq!(send(&mut net.b, net.now, into, b"response"), 8);
    net.b.shutdown(into);
    let mut response = Vec::new();
    net.run(|net| {
        recv(&mut net.a, out, &mut response);
        events(&mut net.a).contains(&Event::Finished(out))
    });
    assert_eq!(response, b"response");
}

#[test]
fn a_refusal_is_a_refusal() {
    let mut net = Net::new(1);
    let out = net.a.connect(net.now, at(B, 9)).unwrap();
    net.run(|net| {
        for event in events(&mut net.b) {
            assert!(matches!(event, Event::Incoming { .. }));
            let Event::Incoming { id, from, to } = event else { return false };
            assert_eq!((*from.ip(), to), (address(A), at(B, 9)));
            net.b.refuse(id);
        }
        events(&mut net.a) == [Event::Refused(out)]
    });
    net.a.close(net.now, out);
    net.pass(Duration::from_secs(1));
    assert_eq!((net.a.flows(), net.b.flows()), (0, 0));
}

#[test]
fn an_abort_is_a_reset_for_the_other() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    net.a.abort(out);
    net.run(|net| events(&mut net.b) == [Event::Reset(into)]);
    assert_eq!(net.a.flows(), 0);
    assert_eq!(net.b.send(net.now, into, |room| room.len()), 0);
    net.b.close(net.now, into);
    net.pass(Duration::from_secs(1));
    assert_eq!(net.b.flows(), 0);
}

#[test]
fn closing_with_unread_data_tells_the_sender() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    send(&mut net.a, net.now, out, b"nobody reads this");
    net.run(|net| events(&mut net.b).contains(&Event::Readable(into)));
    net.b.close(net.now, into);
    net.run(|net| events(&mut net.a).contains(&Event::Reset(out)));
}

#[test]
fn a_full_receiver_stops_the_sender_and_lets_it_go_on() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    let data = pattern(20 << 20);
    let mut sent = send(&mut net.a, net.now, out, &data);
    net.run(|net| {
        sent += send(&mut net.a, net.now, out, &data[sent..]);
        net.b.recv_queue(into) >= 250 << 10 && net.a.send_capacity(out) == 0
    });
    net.pass(Duration::from_secs(300));
    let (mut got, mut writable) = (Vec::new(), 0);
    net.run(|net| {
        recv(&mut net.b, into, &mut got);
        writable += events(&mut net.a).iter().filter(|event| **event == Event::Writable(out)).count();
        sent += send(&mut net.a, net.now, out, &data[sent..]);
        got.len() == data.len()
    });
    assert!(got == data && writable > 0);
}

#[test]
fn readable_comes_again_only_after_the_buffer_was_emptied() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    for _ in 0..3 {
        send(&mut net.a, net.now, out, b"x");
        net.pass(Duration::from_secs(1));
    }
    assert_eq!(events(&mut net.b), [Event::Readable(into)]);
    assert_eq!(recv(&mut net.b, into, &mut Vec::new()), 3);
    send(&mut net.a, net.now, out, b"x");
    net.pass(Duration::from_secs(1));
    assert_eq!(events(&mut net.b), [Event::Readable(into)]);
}

#[test]
fn data_outlives_time_wait() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    send(&mut net.b, net.now, into, b"last words");
    net.b.shutdown(into);
    net.a.shutdown(out);
    net.pass(Duration::from_secs(3600));
    let mut got = Vec::new();
    recv(&mut net.a, out, &mut got);
    assert_eq!(got, b"last words");
    assert!(events(&mut net.a).contains(&Event::Finished(out)));
}

#[test]
fn a_slow_sink_loses_nothing() {
    let mut net = Net::new(1);
    let (out, into) = net.connect(3);
    let data = pattern(200_000);
    let (mut sent, mut got) = (0, Vec::new());
    for _ in 0..10_000 {
        sent += send(&mut net.a, net.now, out, &data[sent..]);
        let mut sink = Collect { packets: Vec::new(), limit: 3 };
        net.a.poll(net.now, &mut sink);
        for packet in sink.packets.iter().filter(|packet| packet[0] != 0) {
            net.b.inject(net.now, packet);
        }
        recv(&mut net.b, into, &mut got);
        for packet in drain(&mut net.b, net.now) {
            net.a.inject(net.now, &packet);
        }
        net.now += Duration::from_millis(1);
    }
    assert!(got == data);
}

#[test]
fn thousands_of_connections_carry_their_own_data() {
    let small = |text| {
        let mut config = config(text);
        (config.receive_buffer, config.send_buffer, config.held_limit) = (1, 4096, 4000);
        config
    };
    let mut net = Net::with(1, small(A), small(B));
    let outs: Vec<_> = (0..3000).map(|_| net.a.connect(net.now, at(B, 80)).unwrap()).collect();
    let (mut got, mut connected) = (0, 0);
    net.run(|net| {
        for event in events(&mut net.a) {
            if let Event::Connected(flow) = event {
                connected += 1;
                let number = outs.iter().position(|&out| out == flow).unwrap() as u32;
                send(&mut net.a, net.now, flow, &number.to_be_bytes());
                net.a.shutdown(flow);
            }
        }
        for event in events(&mut net.b) {
            match event {
                Event::Incoming { id, .. } => assert!(net.b.accept(net.now, id).is_some()),
                Event::Readable(flow) => {
                    let mut number = Vec::new();
                    recv(&mut net.b, flow, &mut number);
                    got += u64::from(u32::from_be_bytes(number.try_into().unwrap()));
                }
                _ => {}
            }
        }
        connected == 3000 && got == 2999 * 3000 / 2
    });
}

#[test]
fn a_stack_that_ends_cuts_what_it_has_not_sent_and_only_that() {
    let mut net = Net::new(4);
    let (long, long_end) = net.connect(3);
    let (short, short_end) = net.connect(4);
    // The long one fills its window; the short one's only bytes are on their way at once.
    send(&mut net.a, net.now, long, &pattern(4 << 20));
    send(&mut net.a, net.now, short, b"all of it");
    net.pass(Duration::from_millis(1));
    send(&mut net.a, net.now, long, &pattern(4 << 20));
    for flow in [long, short] {
        net.a.close(net.now, flow);
    }
    net.a.give_up();
    let mut seen = Vec::new();
    net.run(|net| {
        seen.extend(events(&mut net.b));
        seen.contains(&Event::Reset(long_end))
    });
    net.pass(Duration::from_secs(1));
    seen.extend(events(&mut net.b));
    assert!(!seen.contains(&Event::Reset(short_end)));
}
