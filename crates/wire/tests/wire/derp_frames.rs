use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use wire::derp::{Flags, FromClient, FromServer, *};
use wire::keys::NodePublic;

use crate::vectors::{Value, array, bytes, list, load, text};

const SESSIONS: [&str; 2] = ["derp_session_coder", "derp_session_tailscale"];
const DECODES: [&str; 2] = ["derp_decode_coder", "derp_decode_tailscale"];
/// Every type that carries something after the login.
const STEADY: [FrameType; 14] = [
    FrameType::SendPacket,
    FrameType::RecvPacket,
    FrameType::KeepAlive,
    FrameType::NotePreferred,
    FrameType::PeerGone,
    FrameType::PeerPresent,
    FrameType::ForwardPacket,
    FrameType::WatchConns,
    FrameType::ClosePeer,
    FrameType::Ping,
    FrameType::Pong,
    FrameType::Health,
    FrameType::Restarting,
    FrameType::Unknown(0x7f),
];

fn key(value: &Value) -> NodePublic {
    NodePublic::from_bytes(array(value))
}

/// The complete frames at the front of `stream`.
fn frames(mut stream: &[u8]) -> Vec<(FrameType, &[u8])> {
    let mut out = Vec::new();
    while let Some((frame, len)) = Header::parse(stream) {
        let Some(payload) = stream.get(HEADER_LEN..HEADER_LEN + len) else { break };
        out.push((frame, payload));
        stream = &stream[HEADER_LEN + len..];
    }
    out
}

fn encode_from_server(frame: &FromServer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        FromServer::ServerKey(key) => encode::server_key(&mut out, key),
        FromServer::ServerInfo(sealed) => encode::frame(&mut out, FrameType::ServerInfo, &[sealed]),
        FromServer::Packet { from, packet } => encode::recv_packet(&mut out, from, packet),
        FromServer::KeepAlive => encode::keep_alive(&mut out),
        FromServer::PeerGone(key, reason) => encode::peer_gone(&mut out, key, *reason),
        FromServer::PeerPresent { key, addr, flags } => {
            encode::peer_present(&mut out, key, addr.map(|addr| (addr, *flags)));
        }
        FromServer::Ping(data) => encode::ping(&mut out, data),
        FromServer::Pong(data) => encode::pong(&mut out, data),
        FromServer::Health(problem) => encode::health(&mut out, std::str::from_utf8(problem).unwrap()),
        FromServer::Restarting { reconnect_in, try_for } => {
            encode::restarting(&mut out, *reconnect_in, *try_for);
        }
        FromServer::Unknown(kind) => panic!("unknown frame {kind:#x}"),
    }
    out
}

fn encode_from_client(frame: &FromClient<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        FromClient::Packet { to, packet } => encode::send_packet(&mut out, to, packet),
        FromClient::Forward { from, to, packet } => encode::forward_packet(&mut out, from, to, packet),
        FromClient::NotePreferred(home) => encode::note_preferred(&mut out, *home),
        FromClient::WatchConns => encode::watch_conns(&mut out),
        FromClient::ClosePeer(key) => encode::close_peer(&mut out, key),
        FromClient::Ping(data) => encode::ping(&mut out, data),
        FromClient::Unknown(kind) => panic!("unknown frame {kind:#x}"),
    }
    out
}

fn check_from_server(frame: &FromServer<'_>, decoded: &Value) {
    match frame {
        FromServer::ServerKey(server) => assert_eq!(*server, key(&decoded["server_public"])),
        FromServer::Packet { from, packet } => {
            assert_eq!((*from, *packet), (key(&decoded["src"]), bytes(&decoded["packet"]).as_slice()));
        }
        FromServer::PeerGone(peer, reason) => {
            assert_eq!(*peer, key(&decoded["peer"]));
            assert_eq!(u64::from(reason.to_u8()), decoded["reason"].as_u64().unwrap());
        }
        FromServer::PeerPresent { key: peer, addr, flags } => {
            assert_eq!(*peer, key(&decoded["peer"]));
            let ip =
                decoded["ip16"].as_str().map(|_| std::net::Ipv6Addr::from(array::<16>(&decoded["ip16"])));
            assert_eq!(addr.map(|addr| addr.ip()), ip.map(|ip| ip.to_canonical()));
            assert_eq!(addr.map(|addr| addr.port().into()), decoded["port"].as_u64());
            assert_eq!(u64::from(flags.0), decoded["flags"].as_u64().unwrap_or(0));
        }
        FromServer::Pong(data) => assert_eq!(*data, array(&decoded["data"])),
        FromServer::KeepAlive | FromServer::ServerInfo(_) => {}
        other => panic!("{other:?} is in no session"),
    }
}

fn check_from_client(frame: &FromClient<'_>, decoded: &Value) {
    match frame {
        FromClient::Packet { to, packet } => {
            assert_eq!((*to, *packet), (key(&decoded["dst"]), bytes(&decoded["packet"]).as_slice()));
        }
        FromClient::Forward { from, to, packet } => {
            assert_eq!((*from, *to), (key(&decoded["src"]), key(&decoded["dst"])));
            assert_eq!(*packet, bytes(&decoded["packet"]));
        }
        FromClient::NotePreferred(home) => assert_eq!(Some(*home), decoded["preferred"].as_bool()),
        FromClient::ClosePeer(peer) => assert_eq!(*peer, key(&decoded["peer"])),
        FromClient::Ping(data) => assert_eq!(*data, array(&decoded["data"])),
        FromClient::WatchConns => {}
        other => panic!("{other:?} is in no session"),
    }
}

#[test]
fn whole_sessions_are_read_and_written_as_recorded() {
    for file in SESSIONS {
        let session = load(file);
        for sample in list(&session["frames"]) {
            let recorded = bytes(&sample["frame_hex"]);
            let (kind, payload) = frames(&recorded)[0];
            assert_eq!(u64::from(kind.to_u8()), sample["type"].as_u64().unwrap());
            assert_eq!(format!("{kind:?}"), text(&sample["name"]));
            assert_eq!(payload.len() as u64, sample["payload_len"].as_u64().unwrap());
            match (text(&sample["dir"]), kind) {
                // Sealed; see the login's tests.
                (_, FrameType::ClientInfo) => {}
                ("s2c", _) => {
                    let frame = FromServer::parse(kind, payload).unwrap();
                    check_from_server(&frame, &sample["decoded"]);
                    assert_eq!(encode_from_server(&frame), recorded);
                }
                _ => {
                    assert!(payload.len() <= FromClient::max_payload(kind).unwrap());
                    let frame = FromClient::parse(kind, payload).unwrap();
                    check_from_client(&frame, &sample["decoded"]);
                    assert_eq!(encode_from_client(&frame), recorded);
                }
            }
        }
    }
}

#[test]
fn clients_read_what_servers_send_as_recorded() {
    for file in DECODES {
        for sample in list(&load(file)["client_receives"]) {
            let recorded = bytes(&sample["frames"]);
            // Too long to be recorded whole; the limits have their own test.
            if sample.get("frames_truncated_to_64_of").is_some() {
                continue;
            }
            let messages: Vec<_> = frames(&recorded)
                .into_iter()
                .filter_map(|(kind, payload)| FromServer::parse(kind, payload).ok())
                .filter(|frame| !matches!(frame, FromServer::Unknown(_) | FromServer::ServerKey(_)))
                .collect();
            let expected = sample["messages"].as_array().map_or(&[][..], Vec::as_slice);
            // Of a ServerInfo only the login module knows whether it is good.
            let sealed = matches!(messages[..], [FromServer::ServerInfo(_)]);
            assert!(sealed || messages.len() == expected.len(), "{sample}");
            for (message, expected) in messages.iter().zip(expected) {
                check_message(message, expected);
            }
        }
    }
}

fn check_message(message: &FromServer<'_>, expected: &Value) {
    let name = match message {
        FromServer::ServerInfo(_) => "ServerInfoMessage",
        FromServer::KeepAlive => "KeepAliveMessage",
        FromServer::Packet { from, packet } => {
            assert_eq!((*from, *packet), (key(&expected["src"]), bytes(&expected["data"]).as_slice()));
            "ReceivedPacket"
        }
        FromServer::PeerGone(peer, reason) => {
            assert_eq!(*peer, key(&expected["peer"]));
            assert_eq!(u64::from(reason.to_u8()), expected["reason"].as_u64().unwrap());
            "PeerGoneMessage"
        }
        FromServer::PeerPresent { key: peer, addr, flags } => {
            assert_eq!(*peer, key(&expected["peer"]));
            // One of the two implementations reports the key alone.
            if let Some(reported) = expected["flags"].as_u64() {
                assert_eq!(u64::from(flags.0), reported);
                assert_eq!(
                    *addr,
                    expected["ip_port"].as_str().map(|addr| addr.parse::<SocketAddr>().unwrap())
                );
            }
            "PeerPresentMessage"
        }
        FromServer::Ping(data) => {
            assert_eq!(*data, array(&expected["data"]));
            "PingMessage"
        }
        FromServer::Pong(data) => {
            assert_eq!(*data, array(&expected["data"]));
            "PongMessage"
        }
        FromServer::Health(problem) => {
            assert_eq!(*problem, text(&expected["problem"]).as_bytes());
            "HealthMessage"
        }
        FromServer::Restarting { reconnect_in, try_for } => {
            let millis = |name: &str| Duration::from_millis(expected[name].as_u64().unwrap());
            assert_eq!((*reconnect_in, *try_for), (millis("reconnect_in_ms"), millis("try_for_ms")));
            "ServerRestartingMessage"
        }
        other => panic!("{other:?} is reported to nobody"),
    };
    assert_eq!(name, text(&expected["message"]));
}

#[test]
fn servers_refuse_what_clients_send_as_recorded() {
    for file in DECODES {
        let vectors = load(file);
        let samples = list(&vectors["server_reads_client"]);
        for sample in samples.iter().filter(|sample| sample["client_bytes"].is_string()) {
            let recorded = bytes(&sample["client_bytes"]);
            let refused = frames(&recorded)
                .into_iter()
                .skip(1)
                .any(|(kind, payload)| FromClient::parse(kind, payload).is_err());
            let expected = ["wrong size", "short ping", "short send packet"];
            let log = sample["server_log"].to_string();
            assert_eq!(refused, expected.iter().any(|verdict| log.contains(verdict)), "{sample}");
        }
    }
}

#[test]
fn limits_lie_where_recorded() {
    let sized = |len| vec![0; len];
    let ok = |kind, len| FromClient::parse(kind, &sized(len)).is_ok();
    assert!(ok(FrameType::Ping, 1000) && !ok(FrameType::Ping, 1001) && !ok(FrameType::Ping, 7));
    assert!(ok(FrameType::SendPacket, 32 + 65536) && !ok(FrameType::SendPacket, 32 + 65537));
    assert!(ok(FrameType::ForwardPacket, 64 + 65536) && !ok(FrameType::ForwardPacket, 64 + 65537));
    for kind in STEADY {
        if let Some(max) = FromClient::max_payload(kind) {
            assert!(ok(kind, max) && !ok(kind, max + 1), "{kind:?}");
        } else {
            assert_eq!(FromClient::parse(kind, &sized(40)), Ok(FromClient::Unknown(kind.to_u8())));
        }
    }
    // A client takes packets longer than any client may send.
    assert!(FromServer::parse(FrameType::RecvPacket, &sized(MAX_CLIENT_PAYLOAD)).is_ok());
}

#[test]
fn frames_shorter_than_their_fixed_part_are_refused() {
    for (kind, fixed) in [
        (FrameType::RecvPacket, 32),
        (FrameType::PeerGone, 32),
        (FrameType::PeerPresent, 32),
        (FrameType::Ping, 8),
        (FrameType::Pong, 8),
        (FrameType::Restarting, 8),
    ] {
        for len in 0..60 {
            let expected = (len < fixed).then_some(DerpError::Short(kind));
            assert_eq!(FromServer::parse(kind, &vec![0; len]).err(), expected);
        }
    }
    for (kind, fixed) in [
        (FrameType::SendPacket, 32),
        (FrameType::ForwardPacket, 64),
        (FrameType::ClosePeer, 32),
        (FrameType::NotePreferred, 1),
        (FrameType::Ping, 8),
    ] {
        for len in 0..fixed {
            assert_eq!(FromClient::parse(kind, &vec![0; len]), Err(DerpError::Short(kind)));
        }
    }
}

#[test]
fn every_byte_is_a_frame_type() {
    for byte in 0..=255 {
        assert_eq!(FrameType::from_u8(byte).to_u8(), byte);
        assert_eq!(PeerGoneReason::from_u8(byte).to_u8(), byte);
    }
}

#[test]
fn a_header_needs_five_bytes() {
    let head = Header::bytes(FrameType::Health, 0x0102_0304);
    assert_eq!(head, [0x14, 1, 2, 3, 4]);
    assert_eq!(Header::parse(&head), Some((FrameType::Health, 0x0102_0304)));
    assert!((0..5).all(|len| Header::parse(&head[..len]).is_none()));
}

#[test]
fn long_restart_times_are_cut() {
    let mut out = Vec::new();
    encode::restarting(&mut out, Duration::MAX, Duration::from_millis(5));
    let expected = FromServer::Restarting {
        reconnect_in: Duration::from_millis(u32::MAX.into()),
        try_for: Duration::from_millis(5),
    };
    assert_eq!(FromServer::parse(FrameType::Restarting, &out[HEADER_LEN..]), Ok(expected));
}

proptest! {
    #[test]
    fn packets_round_trip(from: [u8; 32], to: [u8; 32], packet: Vec<u8>) {
        let (from, to) = (NodePublic::from_bytes(from), NodePublic::from_bytes(to));
        for frame in [FromClient::Packet { to, packet: &packet }, FromClient::Forward { from, to, packet: &packet }] {
            let encoded = encode_from_client(&frame);
            let (kind, payload) = frames(&encoded)[0];
            prop_assert_eq!(FromClient::parse(kind, payload), Ok(frame));
        }
    }

    #[test]
    fn peers_round_trip(raw: [u8; 32], ip: std::net::IpAddr, port: u16, flags: u8, reason: u8) {
        let key = NodePublic::from_bytes(raw);
        let addr = Some(SocketAddr::new(ip.to_canonical(), port));
        for frame in [
            FromServer::PeerPresent { key, addr, flags: Flags(flags) },
            FromServer::PeerPresent { key, addr: None, flags: Flags(0) },
            FromServer::PeerGone(key, PeerGoneReason::from_u8(reason)),
        ] {
            let encoded = encode_from_server(&frame);
            let (kind, payload) = frames(&encoded)[0];
            prop_assert_eq!(FromServer::parse(kind, payload), Ok(frame));
        }
    }

    #[test]
    fn any_payload_is_a_frame_or_an_error(payload: Vec<u8>, kind: u8) {
        for kind in STEADY.into_iter().chain([FrameType::from_u8(kind), FrameType::ServerKey]) {
            let _ = FromServer::parse(kind, &payload);
            let _ = FromClient::parse(kind, &payload);
        }
        let _ = Header::parse(&payload);
    }
}
