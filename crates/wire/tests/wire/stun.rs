use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use wire::stun::*;

use crate::vectors::{Value, array, bit_flips, bytes, list, load, text};

fn error(sample: &Value) -> Option<StunError> {
    sample["error"].as_str().map(|error| match error {
        "response is not a STUN packet" => StunError::NotStun,
        "STUN packet is not a response" => StunError::NotResponse,
        "STUN request not a binding request" => StunError::NotRequest,
        "STUN response has malformed attributes" => StunError::Malformed,
        "STUN request had bogus fingerprint" => StunError::Fingerprint,
        other => panic!("unknown verdict {other}"),
    })
}

#[test]
fn requests_are_the_recorded_ones() {
    let vectors = &load("stun")["stun"];
    assert_eq!(request(TxId(array(&vectors["txid"]))).as_slice(), bytes(&vectors["request"]));
    for sample in list(&load("derp_http_tailscale")["stun_server"]) {
        if let Some(recorded) = sample["request"].as_str() {
            let recorded = hex::decode(recorded).unwrap();
            assert_eq!(request(parse_request(&recorded).unwrap()).as_slice(), recorded);
        }
    }
}

#[test]
fn requests_are_judged_as_recorded_but_for_foreign_software() {
    for sample in list(&load("stun")["stun"]["requests"]) {
        let packet = bytes(&sample["request"]);
        let tx = TxId(packet[8..20].try_into().unwrap());
        let expected = match text(&sample["name"]) {
            // Any RFC 5389 client may ask, so these two are answered here.
            "without attributes" | "software only, no fingerprint" => Ok(tx),
            "other software name, fingerprint not recomputed" => Err(StunError::Fingerprint),
            _ => error(sample).map_or(Ok(tx), Err),
        };
        assert_eq!(parse_request(&packet), expected, "{sample}");
        assert_eq!(is_stun(&packet), sample["is_stun"].as_bool().unwrap(), "{sample}");
    }
}

#[test]
fn responses_are_the_recorded_ones_in_both_directions() {
    for sample in list(&load("stun")["stun"]["responses"]) {
        let (packet, tx) = (bytes(&sample["response"]), TxId(array(&sample["parsed_txid"])));
        let addr: SocketAddr = text(&sample["addr"]).parse().unwrap();
        let parsed = text(&sample["parsed_addr"]).parse().unwrap();
        assert_eq!(parse_response(&packet), Ok((tx, parsed)), "{sample}");
        if !matches!(addr.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
            assert_eq!(response(tx, addr), packet, "{sample}");
        }
    }
}

#[test]
fn responses_are_judged_as_recorded() {
    for sample in list(&load("stun")["stun"]["response_parsing"]) {
        let expected = match error(sample) {
            Some(error) => Err(error),
            None => Ok((TxId(array(&sample["txid"])), text(&sample["addr"]).parse().unwrap())),
        };
        assert_eq!(parse_response(&bytes(&sample["response"])), expected, "{sample}");
    }
}

#[test]
fn a_real_servers_answers_are_understood() {
    let answered = load("derp_http_tailscale")["stun_server"].clone();
    let answered: Vec<_> = list(&answered).iter().filter(|sample| sample["response"].is_string()).collect();
    assert!(!answered.is_empty());
    for sample in answered {
        let (_, addr) = parse_response(&bytes(&sample["response"])).unwrap();
        assert_eq!(addr, text(&sample["parsed"]).parse().unwrap(), "{sample}");
    }
}

#[test]
fn a_v4_mapped_client_is_told_its_ipv4_address() {
    let packet = response(TxId([9; 12]), "[::ffff:192.0.2.7]:4242".parse().unwrap());
    assert_eq!(packet.len(), 32);
    assert_eq!(parse_response(&packet), Ok((TxId([9; 12]), "192.0.2.7:4242".parse().unwrap())));
}

#[test]
fn cut_packets_are_refused() {
    let whole = request(TxId([1; 12]));
    for len in 0..whole.len() {
        assert!(parse_request(&whole[..len]).is_err(), "{len}");
    }
    for addr in ["192.0.2.1:1", "[2001:db8::1]:1"] {
        let whole = response(TxId([1; 12]), addr.parse().unwrap());
        for len in 0..whole.len() {
            assert!(parse_response(&whole[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn a_fingerprint_protects_every_bit_but_its_own_kind() {
    let whole = request(TxId([1; 12]));
    for (bit, changed) in bit_flips(&whole).enumerate() {
        // A changed attribute type may leave no FINGERPRINT to check.
        let is_type = (32..34).contains(&(bit / 8));
        assert!(is_type || parse_request(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn something_behind_the_fingerprint_is_refused() {
    let mut packet = request(TxId([1; 12])).to_vec();
    packet.extend_from_slice(&[0x80, 0x22, 0, 0]);
    packet[3] += 4;
    // Right for the changed header, so that only the order is wrong.
    let mut crc = !0u32;
    for byte in &packet[..32] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    packet[36..40].copy_from_slice(&(!crc ^ 0x5354_554e).to_be_bytes());
    assert_eq!(parse_request(&packet), Err(StunError::Fingerprint));
}

proptest! {
    #[test]
    fn any_address_round_trips(tx: [u8; 12], ip: IpAddr, port: u16) {
        let packet = response(TxId(tx), SocketAddr::new(ip, port));
        prop_assert!(is_stun(&packet));
        prop_assert_eq!(parse_response(&packet), Ok((TxId(tx), SocketAddr::new(ip.to_canonical(), port))));
    }

    #[test]
    fn any_request_round_trips(tx: [u8; 12]) {
        prop_assert_eq!(parse_request(&request(TxId(tx))), Ok(TxId(tx)));
    }

    #[test]
    fn any_bytes_are_a_packet_or_an_error(kind in 0u8..4, rest: Vec<u8>) {
        let mut packet = vec![0, kind, 0, rest.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        packet.extend_from_slice(&[0; 12]);
        packet.extend_from_slice(&rest);
        for bytes in [&packet[..], &rest[..]] {
            let _ = (is_stun(bytes), parse_request(bytes), parse_response(bytes));
        }
    }
}
