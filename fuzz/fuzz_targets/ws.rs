//! WebSocket framing: however a stream is cut, the same payload and control frames come out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ws::{Decoder, Event, Role, Step, WsError};

#[derive(Debug, Default, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    controls: Vec<Vec<u8>>,
    error: Option<WsError>,
}

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else { return };
    for role in [Role::Client, Role::Server] {
        assert_eq!(decode(role, stream, usize::from(*step) + 1), decode(role, stream, usize::MAX));
    }
});

fn decode(role: Role, stream: &[u8], step: usize) -> Decoded {
    let (mut decoder, mut out, mut buf) = (Decoder::new(role), Decoded::default(), Vec::new());
    for piece in stream.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            let Step { consumed, event } = match decoder.decode(&mut buf) {
                Ok(step) => step,
                Err(error) => return Decoded { error: Some(error), ..out },
            };
            match event {
                Some(Event::Data(range)) => out.data.extend_from_slice(&buf[range]),
                Some(Event::Ping(range) | Event::Pong(range)) => out.controls.push(buf[range].to_vec()),
                Some(Event::Close(_)) | None => {}
            }
            buf.drain(..consumed);
            if consumed == 0 {
                break;
            }
        }
    }
    out
}
