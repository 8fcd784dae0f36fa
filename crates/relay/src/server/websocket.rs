//! Takes WebSocket framing away where the bytes lie.

use wire::ws;

use super::CloseReason;

/// Most bytes of answers of the WebSocket layer (pongs) that may wait; more are not sent.
pub(super) const MAX_ANSWERS: usize = 16 * 1024;

/// The receiving side of a WebSocket.
pub(super) struct WebSocket {
    pub(super) decoder: ws::Decoder,
    /// The beginning of a header or control frame that is not complete yet.
    pub(super) tail: Vec<u8>,
}

impl WebSocket {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { decoder: ws::Decoder::new(ws::Role::Server), tail: Vec::new() })
    }
}

/// The outcome of taking WebSocket framing away.
#[derive(Default)]
pub(super) struct Unwrapped {
    /// End of the stream's bytes, moved together behind the partial DERP frame.
    pub(super) end: usize,
    /// What the WebSocket layer itself must answer.
    pub(super) answers: Vec<u8>,
}

impl Unwrapped {
    /// `buf` is the partial DERP frame (up to `self.end`), room for the partial WebSocket frame, and what was read.
    pub(super) fn run(&mut self, websocket: &mut WebSocket, buf: &mut [u8]) -> Result<(), CloseReason> {
        let mut at = self.end;
        buf[at..at + websocket.tail.len()].copy_from_slice(&websocket.tail);
        websocket.tail.clear();
        loop {
            let step = match websocket.decoder.decode(&mut buf[at..]) {
                Ok(step) => step,
                Err(error) => {
                    self.say_close(error.close_code());
                    return Err(CloseReason::WebSocket(error));
                }
            };
            match step.event {
                Some(ws::Event::Data(range)) => {
                    let len = range.len();
                    buf.copy_within(at + range.start..at + range.end, self.end);
                    self.end += len;
                }
                Some(ws::Event::Ping(range)) if self.answers.len() < MAX_ANSWERS => {
                    let payload = &buf[at + range.start..at + range.end];
                    ws::encode(&mut self.answers, ws::Opcode::Pong, payload, None);
                }
                Some(ws::Event::Ping(_) | ws::Event::Pong(_)) => {}
                Some(ws::Event::Close(_)) => {
                    self.say_close(1000);
                    return Err(CloseReason::Disconnected);
                }
                None if step.consumed == 0 => break,
                None => {}
            }
            at += step.consumed;
        }
        websocket.tail.extend_from_slice(&buf[at..]);
        Ok(())
    }

    fn say_close(&mut self, code: u16) {
        ws::encode(&mut self.answers, ws::Opcode::Close, &code.to_be_bytes(), None);
    }
}
