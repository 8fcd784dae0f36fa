use std::net::Ipv6Addr;

use proptest::prelude::*;
use wire::ip::icmpv6::{self, Echo, Kind};
use wire::ip::tsmp::{self, Tsmp};
use wire::ip::*;

use crate::vectors::{Value, array, bit_flips, bytes, list, load, text};

fn vectors() -> Value {
    load("tsmp")["tsmp"].clone()
}

/// The recorded echo request with the checksum of RFC 4443: the recorded one sums the message byte-swapped.
fn echo_packet() -> Vec<u8> {
    let mut packet = bytes(&vectors()["icmp6_echo_request_packet"]);
    packet[42..44].copy_from_slice(&[0x4f, 0xa4]);
    packet
}

fn addr(value: &Value) -> Ipv6Addr {
    text(value).parse().unwrap()
}

#[test]
fn tsmp_is_as_recorded_in_both_directions() {
    let vectors = vectors();
    let (client, agent, data) = (addr(&vectors["client"]), addr(&vectors["agent"]), array(&vectors["data"]));
    let ping = bytes(&vectors["ping_packet"]);
    let view = Ipv6::parse(&ping).unwrap();
    assert_eq!((view.src(), view.dst(), view.next_header(), view.hop_limit()), (client, agent, TSMP, 64));
    assert_eq!(tsmp::parse(&view), Some(Tsmp::Ping(data)));
    assert_eq!(tsmp::ping(client, agent, data).as_slice(), ping);
    let pong = bytes(&vectors["pong_packet"]);
    assert_eq!(tsmp::parse(&Ipv6::parse(&pong).unwrap()), Some(Tsmp::Pong { data, port: 0 }));
    assert_eq!(tsmp::pong(agent, client, data, 0).as_slice(), pong);
    let reject = bytes(&vectors["tsmp_reject_packet"]);
    assert_eq!(tsmp::parse(&Ipv6::parse(&reject).unwrap()), Some(Tsmp::Other(b'!')));
}

#[test]
fn echo_is_as_recorded_in_both_directions() {
    let vectors = vectors();
    let packet = echo_packet();
    let view = Ipv6::parse(&packet).unwrap();
    let echo = icmpv6::parse(&view).unwrap();
    assert_eq!((echo.kind, echo.data), (Kind::Request, &b"hello"[..]));
    // Recorded as one little-endian number.
    let id_seq = u32::from_str_radix(text(&vectors["icmp6_echo_id_seq"]), 16).unwrap().to_le_bytes();
    assert_eq!([echo.id.to_be_bytes(), echo.seq.to_be_bytes()].concat(), id_seq);
    assert_eq!(icmpv6::build(view.src(), view.dst(), &echo), packet);
    let recorded = bytes(&vectors["icmp6_echo_request_packet"]);
    assert_eq!(icmpv6::parse(&Ipv6::parse(&recorded).unwrap()), None);
}

#[test]
fn packets_inside_recorded_tunnels_are_read_without_their_padding() {
    let wireguard = load("wireguard");
    let plain: Vec<_> = list(&wireguard["packets"])
        .iter()
        .filter_map(|packet| packet["plaintext"].as_str())
        .filter_map(|hex| hex::decode(hex).ok())
        .filter(|plain| !plain.is_empty())
        .collect();
    assert!(plain.len() >= 2);
    let read: Vec<_> =
        plain.iter().filter_map(|plain| Ipv6::parse(plain)).map(|view| view.packet_len()).collect();
    assert_eq!(read[..2], [49, 51]);
    assert!(plain[0].len() > 49);
}

#[test]
fn an_echo_with_any_bit_changed_is_refused_or_not_one() {
    let packet = echo_packet();
    for (bit, changed) in bit_flips(&packet).enumerate() {
        // Not covered by the checksum: traffic class, flow label, hop limit.
        let uncovered = (0..4).contains(&bit) || (8..32).contains(&bit) || (56..64).contains(&bit);
        let echo = Ipv6::parse(&changed).and_then(|view| icmpv6::parse(&view));
        assert_eq!(echo.is_some(), uncovered, "bit {bit}");
    }
}

#[test]
fn packets_cut_anywhere_are_refused() {
    let ping = tsmp::ping(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, [1; 8]);
    for len in 0..ping.len() {
        assert_eq!(Ipv6::parse(&ping[..len]), None);
    }
    // Whole packets around a message cut short.
    for len in 0..9u16 {
        let head = header(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, TSMP, len);
        let packet = [&head[..], &ping[HEADER_LEN..HEADER_LEN + usize::from(len)]].concat();
        assert_eq!(tsmp::parse(&Ipv6::parse(&packet).unwrap()), None);
    }
}

#[test]
fn other_versions_are_refused() {
    let mut packet = header(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, TCP, 0);
    assert!(Ipv6::parse(&packet).is_some());
    packet[0] = 0x45;
    assert_eq!(Ipv6::parse(&packet), None);
}

#[test]
fn too_much_echo_data_is_cut() {
    let data = vec![7; 70_000];
    let echo = Echo { kind: Kind::Reply, id: 1, seq: 2, data: &data };
    let packet = icmpv6::build(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, &echo);
    let view = Ipv6::parse(&packet).unwrap();
    assert_eq!(view.packet_len(), packet.len());
    assert_eq!(icmpv6::parse(&view).unwrap().data.len(), icmpv6::MAX_DATA);
}

/// RFC 1071 as it is written there.
fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[test]
fn checksums_survive_many_carries() {
    for len in [0, 1, 7, 8, 9, 1280, 65_535] {
        let ones = vec![0xff; len];
        let mut sum = Checksum::new();
        sum.add(&ones);
        assert_eq!(sum.finish(), plain_checksum(&ones), "{len}");
    }
}

proptest! {
    #[test]
    fn the_fast_checksum_is_the_plain_one(bytes: Vec<u8>, cut: usize) {
        let cut = if bytes.is_empty() { 0 } else { (cut % bytes.len()) & !1 };
        let mut sum = Checksum::new();
        sum.add(&bytes[..cut]);
        sum.add(&bytes[cut..]);
        prop_assert_eq!(sum.finish(), plain_checksum(&bytes));
    }

    #[test]
    fn echoes_round_trip(src: Ipv6Addr, dst: Ipv6Addr, id: u16, seq: u16, data: Vec<u8>, request: bool) {
        let kind = if request { Kind::Request } else { Kind::Reply };
        let echo = Echo { kind, id, seq, data: &data };
        let packet = icmpv6::build(src, dst, &echo);
        prop_assert_eq!(icmpv6::parse(&Ipv6::parse(&packet).unwrap()), Some(echo));
    }

    #[test]
    fn tsmp_round_trips(src: Ipv6Addr, dst: Ipv6Addr, data: [u8; 8], port: u16) {
        let ping = tsmp::ping(src, dst, data);
        prop_assert_eq!(tsmp::parse(&Ipv6::parse(&ping).unwrap()), Some(Tsmp::Ping(data)));
        let pong = tsmp::pong(src, dst, data, port);
        prop_assert_eq!(tsmp::parse(&Ipv6::parse(&pong).unwrap()), Some(Tsmp::Pong { data, port }));
    }

    #[test]
    fn any_bytes_are_a_packet_or_not(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), next in 58u8..100) {
        if let [first, _, _, _, high, low, protocol, ..] = bytes.as_mut_slice() {
            (*first, *high, *low, *protocol) = (0x60 | *first & 15, 0, *low & 63, next);
        }
        if let Some(view) = Ipv6::parse(&bytes) {
            let _ = (tsmp::parse(&view), icmpv6::parse(&view));
            prop_assert!(view.packet_len() <= bytes.len());
        }
    }
}
