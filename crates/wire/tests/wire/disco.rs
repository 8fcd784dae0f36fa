use std::net::SocketAddr;

use proptest::prelude::*;
use wire::disco::*;
use wire::keys::{DiscoPrivate, DiscoPublic, NodePublic, SharedBox};

use crate::vectors::{Value, array, bit_flips, bytes, list, load, text};

const FILES: [&str; 2] = ["disco_coder", "disco_tailscale"];

fn boxes(vectors: &Value) -> (DiscoPublic, SharedBox, SharedBox) {
    let keys = &vectors["keys"];
    let sender = DiscoPrivate::from_bytes(array(&keys["sender_disco_private"]));
    let recipient = DiscoPrivate::from_bytes(array(&keys["recipient_disco_private"]));
    let there = SharedBox::new(&sender, &recipient.public());
    (sender.public(), there, SharedBox::new(&recipient, &sender.public()))
}

/// Compares with the fields the reference reported; padding has to account for the rest of the payload.
fn check(message: &Message, parsed: &Value, payload_len: usize) {
    let addr = |value: &Value| text(value).parse::<SocketAddr>().unwrap();
    match message {
        Message::Ping { tx, node_key, padding } => {
            assert_eq!(text(&parsed["type"]), "*disco.Ping");
            assert_eq!(*tx, array(&parsed["txid"]));
            assert_eq!(node_key.unwrap_or(NodePublic::ZERO).as_bytes(), &array::<32>(&parsed["node_key"]));
            assert_eq!(14 + node_key.map_or(0, |_| 32) + padding, payload_len);
        }
        Message::Pong { tx, source, padding } => {
            assert_eq!(text(&parsed["type"]), "*disco.Pong");
            assert_eq!(*tx, array(&parsed["txid"]));
            assert_eq!(*source, addr(&parsed["src"]));
            assert_eq!(32 + padding, payload_len);
        }
        Message::CallMeMaybe { endpoints } => {
            assert_eq!(text(&parsed["type"]), "*disco.CallMeMaybe");
            assert_eq!(*endpoints, list(&parsed["my_number"]).iter().map(addr).collect::<Vec<_>>());
        }
    }
}

#[test]
fn messages_are_the_recorded_ones_in_both_directions() {
    for file in FILES {
        let vectors = load(file);
        let (public, there, back) = boxes(&vectors);
        for sample in list(&vectors["messages"]) {
            let (packet, payload) = (bytes(&sample["packet"]), bytes(&sample["payload"]));
            assert!(is_disco(&packet));
            assert_eq!(sender(&packet), Some(public));
            if text(&sample["name"]).starts_with("OPTIONAL") {
                assert_eq!(open(&back, &packet), Err(DiscoError::UnknownType(payload[0])));
                continue;
            }
            let message = open(&back, &packet).unwrap();
            check(&message, &sample["parsed"], payload.len());
            assert_eq!(message.encode(), payload, "{}", sample["name"]);
            assert_eq!(
                seal(&public, &there, array(&sample["nonce"]), &message),
                packet,
                "{}",
                sample["name"]
            );
        }
    }
}

#[test]
fn payloads_are_judged_as_recorded() {
    for file in FILES {
        for sample in list(&load(file)["payload_parsing"]) {
            let payload = bytes(&sample["payload"]);
            match (Message::decode(&payload), sample["parsed"]["error"].as_str()) {
                (Ok(message), None) => check(&message, &sample["parsed"], payload.len()),
                (Err(DiscoError::Short), Some("short message")) => {}
                (Err(DiscoError::UnknownType(kind)), Some(error)) => {
                    assert_eq!(error, format!("unknown message type {kind:#04x}"));
                }
                (got, _) => panic!("{got:?} for {sample}"),
            }
        }
    }
}

#[test]
fn what_looks_like_disco_is_as_recorded() {
    for file in FILES {
        for sample in list(&load(file)["wrapper_check"]) {
            let mut packet = MAGIC.to_vec();
            packet.resize(sample["len"].as_u64().unwrap() as usize, 0);
            if text(&sample["name"]).contains("wrong magic") {
                packet[0] ^= 1;
            }
            assert_eq!(is_disco(&packet), sample["looks_like_disco_wrapper"].as_bool().unwrap(), "{sample}");
            assert_eq!(wire::derp::looks_like_disco(&packet), is_disco(&packet));
        }
    }
}

#[test]
fn padded_messages_fill_a_packet() {
    let (public, there, back) = boxes(&load("disco_coder"));
    let source = "192.0.2.1:41641".parse().unwrap();
    for message in [Message::ping([3; 12], NodePublic::from_bytes([5; 32])), Message::pong([4; 12], source)] {
        let packet = seal(&public, &there, [6; 24], &message);
        assert_eq!((message.encode().len(), packet.len(), PADDED_PACKET), (PADDED_PAYLOAD, 1310, 1310));
        assert_eq!(open(&back, &packet), Ok(message));
    }
}

#[test]
fn a_changed_or_cut_packet_is_refused() {
    let (public, there, back) = boxes(&load("disco_coder"));
    let message = Message::Ping { tx: [1; 12], node_key: None, padding: 0 };
    let packet = seal(&public, &there, [2; 24], &message);
    for len in 0..packet.len() {
        let expected = if len < 62 { DiscoError::NotDisco } else { DiscoError::Sealed };
        assert_eq!(open(&back, &packet[..len]), Err(expected));
    }
    for (bit, changed) in bit_flips(&packet).enumerate() {
        match bit / 8 {
            0..6 => assert_eq!(open(&back, &changed), Err(DiscoError::NotDisco)),
            // Another sender: the receiver would not use this box for it.
            6..38 => assert_ne!(sender(&changed), Some(public)),
            _ => assert_eq!(open(&back, &changed), Err(DiscoError::Sealed)),
        }
    }
}

#[test]
fn payloads_cut_anywhere_are_judged_by_their_fixed_part() {
    let ping =
        Message::Ping { tx: [1; 12], node_key: Some(NodePublic::from_bytes([2; 32])), padding: 3 }.encode();
    let pong = Message::Pong { tx: [1; 12], source: "192.0.2.1:9".parse().unwrap(), padding: 3 }.encode();
    for (payload, fixed) in [(ping, 14), (pong, 32)] {
        for len in 0..=payload.len() {
            assert_eq!(Message::decode(&payload[..len]).err(), (len < fixed).then_some(DiscoError::Short));
        }
    }
}

fn message() -> impl Strategy<Value = Message> {
    let addr = || any::<SocketAddr>().prop_map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    prop_oneof![
        (any::<[u8; 12]>(), proptest::option::of(any::<[u8; 32]>()), 0usize..1300).prop_map(
            |(tx, key, padding)| {
                // Without a key the padding would be taken for one, unless it is zero, which it is.
                let node_key = key.map(NodePublic::from_bytes).filter(|key| !key.is_zero());
                Message::Ping { tx, node_key, padding }
            }
        ),
        (any::<[u8; 12]>(), addr(), 0usize..1300).prop_map(|(tx, source, padding)| Message::Pong {
            tx,
            source,
            padding
        }),
        proptest::collection::vec(addr(), 0..20).prop_map(|endpoints| Message::CallMeMaybe { endpoints }),
    ]
}

/// IPv6 scope and flow do not travel.
fn without_scope(message: Message) -> Message {
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port());
    match message {
        Message::Pong { tx, source, padding } => Message::Pong { tx, source: plain(source), padding },
        Message::CallMeMaybe { endpoints } => {
            Message::CallMeMaybe { endpoints: endpoints.into_iter().map(plain).collect() }
        }
        ping => ping,
    }
}

proptest! {
    #[test]
    fn any_message_round_trips(message in message()) {
        let message = without_scope(message);
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_payload_is_a_message_or_an_error(kind in 0u8..10, rest: Vec<u8>) {
        let payload = [&[kind][..], &rest].concat();
        let _ = (Message::decode(&payload), Message::decode(&rest));
    }

    #[test]
    fn any_packet_is_a_message_or_an_error(rest: Vec<u8>) {
        let shared = SharedBox::new(&DiscoPrivate::from_bytes([1; 32]), &DiscoPublic::from_bytes([9; 32]));
        for packet in [[&MAGIC[..], &rest].concat(), rest] {
            prop_assert!(open(&shared, &packet).is_err());
            prop_assert_eq!(sender(&packet).is_some(), is_disco(&packet));
        }
    }
}
