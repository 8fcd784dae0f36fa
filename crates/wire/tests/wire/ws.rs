use proptest::prelude::*;
use wire::derp::{FrameType, FromServer, HEADER_LEN, Header};
use wire::ws::*;

use crate::vectors::{bytes, list, load, text};

/// What a decoder made of a stream.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    controls: Vec<(&'static str, Vec<u8>)>,
    closed: Option<Option<u16>>,
}

/// Feeds `stream` in pieces of `step` bytes, keeping what was not consumed, as a shell would.
fn decode(role: Role, stream: &[u8], step: usize) -> Result<Decoded, WsError> {
    let (mut decoder, mut out, mut buf) = (Decoder::new(role), Decoded::default(), Vec::new());
    for piece in stream.chunks(step.max(1)) {
        buf.extend_from_slice(piece);
        loop {
            let Step { consumed, event } = decoder.decode(&mut buf)?;
            match event {
                Some(Event::Data(range)) => out.data.extend_from_slice(&buf[range]),
                Some(Event::Ping(range)) => out.controls.push(("ping", buf[range].to_vec())),
                Some(Event::Pong(range)) => out.controls.push(("pong", buf[range].to_vec())),
                Some(Event::Close(code)) => out.closed = Some(code),
                None => {}
            }
            buf.drain(..consumed);
            if consumed == 0 {
                break;
            }
        }
    }
    // Whatever waits for more is shorter than a control frame.
    assert!(buf.len() < MAX_HEADER + MAX_CONTROL);
    Ok(out)
}

fn encoded(frames: &[(Opcode, &[u8])], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|(opcode, payload)| encode(&mut out, *opcode, payload, mask));
    out
}

#[test]
fn recorded_exchanges_carry_derp() {
    let mut exchanges = 0;
    for file in ["derp_http_coder", "derp_http_tailscale"] {
        for exchange in list(&load(file)["exchanges"]) {
            let Some(chunks) = exchange["chunks"].as_array() else { continue };
            let switch = chunks.iter().rposition(|chunk| {
                let said = String::from_utf8_lossy(&bytes(&chunk["hex"])).to_lowercase();
                text(&chunk["dir"]) == "s2c"
                    && said.starts_with("http/1.1 101")
                    && said.contains("upgrade: websocket")
            });
            let Some(switch) = switch else { continue };
            for (dir, role) in [("c2s", Role::Server), ("s2c", Role::Client)] {
                let mut stream: Vec<u8> = chunks[switch..]
                    .iter()
                    .filter(|chunk| text(&chunk["dir"]) == dir)
                    .flat_map(|chunk| bytes(&chunk["hex"]))
                    .collect();
                if let Some(end) =
                    stream.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| dir == "s2c")
                {
                    stream.drain(..end + 4);
                }
                let decoded = decode(role, &stream, usize::MAX).unwrap();
                assert_eq!(decode(role, &stream, 1).as_ref(), Ok(&decoded));
                check_derp(&decoded.data, role);
                exchanges += 1;
            }
        }
    }
    assert!(exchanges >= 4, "{exchanges}");
}

/// The stream must be whole DERP frames, the first of them the login's.
fn check_derp(mut stream: &[u8], role: Role) {
    let first = Header::parse(stream).map(|(kind, _)| kind);
    let expected = if role == Role::Server { FrameType::ClientInfo } else { FrameType::ServerKey };
    assert!(first.is_none() || first == Some(expected), "{first:?}");
    while let Some((kind, len)) = Header::parse(stream) {
        let payload = &stream[HEADER_LEN..HEADER_LEN + len];
        assert!(role == Role::Server || FromServer::parse(kind, payload).is_ok());
        stream = &stream[HEADER_LEN + len..];
    }
    assert!(stream.is_empty());
}

#[test]
fn frames_of_the_specification_are_read() {
    // RFC 6455, section 5.7, as binary where that is text.
    let masked = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(Role::Server, &masked, 1).unwrap().data, b"Hello");
    let fragments = [0x02, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(decode(Role::Client, &fragments, 2).unwrap().data, b"Hello");
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(decode(Role::Client, &ping, 3).unwrap().controls, [("ping", b"Hello".to_vec())]);
    let mut again = Vec::new();
    encode(&mut again, Opcode::Ping, b"Hello", None);
    assert_eq!(again, ping);
    encode(&mut again, Opcode::Binary, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
    assert_eq!(again[ping.len()..], masked);
}

#[test]
fn headers_have_the_shortest_length_form() {
    let header = |len| OutHeader::new(Opcode::Binary, len, None).as_bytes().to_vec();
    assert_eq!(header(125), [0x82, 125]);
    assert_eq!(header(126), [0x82, 126, 0, 126]);
    assert_eq!(header(65_535), [0x82, 126, 255, 255]);
    assert_eq!(header(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(OutHeader::new(Opcode::Binary, 65_536, Some([9; 4])).as_bytes().len(), MAX_HEADER);
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let stream =
        [&[0x02, 1, b'a'][..], &[0x89, 0], &[0x00, 1, b'b'], &[0x8a, 1, 7], &[0x80, 0], &[0x82, 1, b'c']]
            .concat();
    for step in 1..stream.len() {
        let decoded = decode(Role::Client, &stream, step).unwrap();
        assert_eq!(decoded.data, b"abc");
        assert_eq!(decoded.controls, [("ping", vec![]), ("pong", vec![7])]);
    }
}

#[test]
fn closes_carry_their_code() {
    for (payload, code) in [(&[][..], None), (&[0x03, 0xe8], Some(1000)), (&[0x03, 0xf0, b'w'], Some(1008))] {
        for (role, mask) in [(Role::Client, None), (Role::Server, Some([1, 2, 3, 4]))] {
            let stream = encoded(&[(Opcode::Close, payload)], mask);
            assert_eq!(decode(role, &stream, 1).unwrap().closed, Some(code));
        }
    }
}

#[test]
fn violations_are_refused() {
    let cases: [(&[u8], WsError); 16] = [
        (&[0x81, 0], WsError::Text),
        (&[0xc2, 0], WsError::Undefined),
        (&[0xa2, 0], WsError::Undefined),
        (&[0x83, 0], WsError::Undefined),
        (&[0x87, 0], WsError::Undefined),
        (&[0x8b, 0], WsError::Undefined),
        (&[0x8f, 0], WsError::Undefined),
        (&[0x82, 0x80, 0, 0, 0, 0], WsError::Mask),
        (&[0x82, 126, 0, 125], WsError::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], WsError::Length),
        (&[0x82, 127, 128, 0, 0, 0, 0, 0, 0, 0], WsError::Length),
        (&[0x80, 0], WsError::Fragments),
        (&[0x02, 0, 0x82, 0], WsError::Fragments),
        (&[0x09, 0], WsError::Control),
        (&[0x89, 126, 0, 126], WsError::Control),
        (&[0x88, 1, 3], WsError::Control),
    ];
    for (stream, error) in cases {
        assert_eq!(decode(Role::Client, stream, usize::MAX), Err(error), "{stream:x?}");
        assert_eq!(error.close_code(), if error == WsError::Text { 1003 } else { 1002 });
    }
    assert_eq!(decode(Role::Server, &[0x82, 0], 1), Err(WsError::Mask));
}

#[test]
fn a_claimed_length_costs_nothing_and_what_arrives_is_passed_on() {
    let mut decoder = Decoder::new(Role::Client);
    let mut buf = [&[0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255][..], b"first"].concat();
    assert_eq!(decoder.decode(&mut buf), Ok(Step { consumed: 15, event: Some(Event::Data(10..15)) }));
    let mut buf = b"second".to_vec();
    assert_eq!(decoder.decode(&mut buf), Ok(Step { consumed: 6, event: Some(Event::Data(0..6)) }));
    assert_eq!(decoder.decode(&mut []), Ok(Step { consumed: 0, event: None }));
}

#[test]
fn too_long_control_payload_is_cut() {
    let stream = encoded(&[(Opcode::Ping, &[5; 200])], None);
    assert_eq!(decode(Role::Client, &stream, 7).unwrap().controls, [("ping", vec![5; 125])]);
}

proptest! {
    #[test]
    fn streams_round_trip(messages: Vec<Vec<u8>>, mask: [u8; 4], step in 1usize..40) {
        let frames: Vec<_> = messages.iter().map(|message| (Opcode::Binary, message.as_slice())).collect();
        for (role, mask) in [(Role::Server, Some(mask)), (Role::Client, None)] {
            let decoded = decode(role, &encoded(&frames, mask), step).unwrap();
            prop_assert_eq!(decoded.data, messages.concat());
        }
    }

    #[test]
    fn masking_is_the_plain_xor(mut bytes: Vec<u8>, mask: [u8; 4]) {
        let expected: Vec<_> = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        apply_mask(&mut bytes, mask);
        prop_assert_eq!(bytes, expected);
    }

    #[test]
    fn any_stream_is_the_same_however_it_is_cut(stream: Vec<u8>, step in 1usize..9, first in 0x80u8..0x8b) {
        let stream = [&[first][..], &stream].concat();
        for role in [Role::Client, Role::Server] {
            prop_assert_eq!(decode(role, &stream, step), decode(role, &stream, usize::MAX));
        }
    }
}
