//! DERP's byte stream inside WebSocket messages (RFC 6455), as a client.

use std::io::{self, IoSlice};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wire::ws::{Decoder, Event, Opcode, OutHeader, Role, apply_mask, encode};

use crate::error::Failure;
use crate::http::Answer;
use crate::transport::{Take, Transport};

/// The subprotocol both sides have to name.
pub(crate) const SUBPROTOCOL: &str = "derp";

/// Payload of one message at most; also what is held back while the transport takes nothing.
const MESSAGE_LIMIT: usize = 128 * 1024;

/// Bytes read at once.
const RECEIVE_SIZE: usize = 64 * 1024;

/// Answers to pings that may wait; more are dropped, the peer gets its next one.
const PONGS_LIMIT: usize = 1024;

/// A fresh `Sec-WebSocket-Key`.
pub(crate) fn new_key() -> io::Result<String> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(STANDARD.encode(nonce))
}

/// Whether the answer agrees to speak DERP over WebSocket with the sender of `key` (RFC 6455 section 4.1).
pub(crate) fn check_answer(answer: &Answer, key: &str) -> Result<(), Failure> {
    let accept =
        digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    if !answer.header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err(Failure::BadAnswer("it does not upgrade to WebSocket"));
    }
    if answer.header("sec-websocket-accept") != Some(&STANDARD.encode(accept)) {
        return Err(Failure::BadAnswer("its Sec-WebSocket-Accept is wrong"));
    }
    if answer.header("sec-websocket-protocol") != Some(SUBPROTOCOL) {
        return Err(Failure::BadAnswer("it does not agree to the derp subprotocol"));
    }
    if answer.header("sec-websocket-extensions").is_some() {
        return Err(Failure::BadAnswer("it uses an extension nobody asked for"));
    }
    Ok(())
}

/// The stream. What it holds back is bounded in both directions.
#[derive(Debug)]
pub(crate) struct Websocket {
    transport: Transport,
    decoder: Decoder,
    received: Box<[u8]>,
    /// Payload in `received` that was decoded and not read yet.
    ready_start: usize,
    ready_end: usize,
    /// What follows it and was not decoded yet.
    start: usize,
    end: usize,
    /// Frames on their way out, and how much of them went.
    outgoing: Vec<u8>,
    sent: usize,
    masks: Masks,
    closed: bool,
}

impl Websocket {
    /// Goes on where the HTTP answer ended; `rest` followed it and is at most 16 KiB.
    pub(crate) fn new(transport: Transport, rest: &[u8]) -> Self {
        let mut received = vec![0; RECEIVE_SIZE.max(rest.len())].into_boxed_slice();
        received[..rest.len()].copy_from_slice(rest);
        Self {
            transport,
            decoder: Decoder::new(Role::Client),
            received,
            ready_start: 0,
            ready_end: 0,
            start: 0,
            end: rest.len(),
            outgoing: Vec::new(),
            sent: 0,
            masks: Masks::default(),
            closed: false,
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8], take: Take) -> io::Result<usize> {
        while !buffer.is_empty() {
            if self.ready_start < self.ready_end {
                let count = buffer.len().min(self.ready_end - self.ready_start);
                buffer[..count].copy_from_slice(&self.received[self.ready_start..][..count]);
                self.ready_start += count;
                return Ok(count);
            }
            if self.closed {
                return Ok(0);
            }
            if !self.decode()? && self.receive(take)? == 0 {
                return Ok(0);
            }
        }
        Ok(0)
    }

    /// Sends one message. [`io::ErrorKind::WouldBlock`] while an earlier one is not out yet.
    pub(crate) fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = buffers.iter().map(|buffer| buffer.len()).sum::<usize>().min(MESSAGE_LIMIT);
        if count == 0 {
            return Ok(0);
        }
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.flush()?;
        if !self.outgoing.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mask = self.masks.next()?;
        self.outgoing.extend_from_slice(OutHeader::new(Opcode::Binary, count, Some(mask)).as_bytes());
        let start = self.outgoing.len();
        for buffer in buffers {
            let room = start + count - self.outgoing.len();
            self.outgoing.extend_from_slice(&buffer[..buffer.len().min(room)]);
        }
        apply_mask(&mut self.outgoing[start..], mask);
        self.flush()?;
        Ok(count)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match self.transport.write_vectored(&[IoSlice::new(&self.outgoing[self.sent..])]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.transport.flush(),
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        self.transport.flush()
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() || self.transport.wants_write()
    }

    /// Says goodbye with code 1000.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.say_goodbye(1000)?;
        self.transport.close()
    }

    /// Takes one step in what was received. Returns false if that needs more bytes.
    fn decode(&mut self) -> io::Result<bool> {
        let step = match self.decoder.decode(&mut self.received[self.start..self.end]) {
            Ok(step) => step,
            Err(error) => {
                self.say_goodbye(error.close_code())?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        let base = self.start;
        self.start += step.consumed;
        match step.event {
            Some(Event::Data(range)) => {
                (self.ready_start, self.ready_end) = (base + range.start, base + range.end);
            }
            Some(Event::Ping(range)) => self.pong(base + range.start, base + range.end)?,
            Some(Event::Close(code)) => self.closed_by_peer(code)?,
            Some(Event::Pong(_)) | None => {}
        }
        Ok(step.consumed > 0)
    }

    /// Reads from the transport; only the beginning of a header or of a control frame is left over by then.
    fn receive(&mut self, take: Take) -> io::Result<usize> {
        self.received.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.transport.read(&mut self.received[self.end..], take)?;
        self.end += count;
        Ok(count)
    }

    fn pong(&mut self, start: usize, end: usize) -> io::Result<()> {
        let waiting = self.outgoing.len() - self.sent;
        if waiting < MESSAGE_LIMIT + PONGS_LIMIT {
            let mask = self.masks.next()?;
            encode(&mut self.outgoing, Opcode::Pong, &self.received[start..end], Some(mask));
        }
        self.flush()
    }

    fn closed_by_peer(&mut self, code: Option<u16>) -> io::Result<()> {
        let ordinary = matches!(code, None | Some(1000 | 1001));
        self.say_goodbye(code.unwrap_or(1000))?;
        if ordinary {
            return Ok(());
        }
        let text = format!("WebSocket closed with code {}", code.unwrap_or_default());
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, text))
    }

    /// Sends a close frame, once, as far as the transport takes it; whether it does is not worth an error.
    fn say_goodbye(&mut self, code: u16) -> io::Result<()> {
        if !self.closed {
            self.closed = true;
            let mask = self.masks.next()?;
            encode(&mut self.outgoing, Opcode::Close, &code.to_be_bytes(), Some(mask));
            let _ = self.flush();
        }
        Ok(())
    }
}

/// Unpredictable masking keys, drawn from the system in batches.
#[derive(Debug)]
struct Masks {
    batch: [[u8; 4]; 64],
    used: usize,
}

impl Default for Masks {
    fn default() -> Self {
        Self { batch: [[0; 4]; 64], used: 64 }
    }
}

impl Masks {
    fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.used == self.batch.len() {
            getrandom::fill(self.batch.as_flattened_mut()).map_err(io::Error::other)?;
            self.used = 0;
        }
        self.used += 1;
        Ok(self.batch[self.used - 1])
    }
}

#[cfg(test)]
mod tests;
