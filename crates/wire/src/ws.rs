//! WebSocket framing (RFC 6455, section 5) for DERP: binary messages as one byte stream, message bounds meaningless.
//!
//! The decoder works inside the caller's read buffer: it unmasks payload in place and tells where it lies, never waits
//! for a whole message, and reserves nothing for a declared length. Only control frames (125 bytes at most) have to be
//! complete.

use std::ops::Range;

/// Most bytes of a frame's header.
pub const MAX_HEADER: usize = 14;
/// Most payload bytes of a control frame.
pub const MAX_CONTROL: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// Why the peer breaks the protocol; answer with a close frame of [`WsError::close_code`] and hang up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// Text was sent; DERP is binary.
    #[error("WebSocket text message in a binary stream")]
    Text,
    /// Reserved bits or an opcode without meaning.
    #[error("WebSocket frame uses undefined bits")]
    Undefined,
    /// A client must mask, a server must not.
    #[error("WebSocket frame masked by the wrong side")]
    Mask,
    /// A length not in its shortest form, or above 2^63.
    #[error("WebSocket length malformed")]
    Length,
    /// A continuation of nothing, or a new message inside another.
    #[error("WebSocket fragments out of order")]
    Fragments,
    /// A control frame that is fragmented or too long, or a close code cut short.
    #[error("WebSocket control frame malformed")]
    Control,
}

impl WsError {
    /// The close code to answer with.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            _ => 1002,
        }
    }
}

/// Which side this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Masks what it sends, takes unmasked frames.
    Client,
    /// Takes masked frames.
    Server,
}

/// What a frame to be sent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A whole binary message.
    Binary,
    /// Ends the stream; payload: close code (2 bytes), reason.
    Close,
    /// To be answered with a pong of the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// What was decoded. Ranges lie within the slice given to [`Decoder::decode`], already unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next bytes of the stream.
    Data(Range<usize>),
    /// To be answered with a pong of this payload.
    Ping(Range<usize>),
    /// Answers a ping.
    Pong(Range<usize>),
    /// The peer is done; code 1000 or 1001, or none, is an ordinary end.
    Close(Option<u16>),
}

/// Outcome of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes at the front of the buffer that are done with, an event's range included. Zero: more bytes are needed.
    pub consumed: usize,
    /// What they were; `None` for a data frame's header alone.
    pub event: Option<Event>,
}

impl Step {
    const MORE: Self = Self { consumed: 0, event: None };
}

/// Splits what is received into payload and control frames.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    /// Payload bytes of the current data frame still to come.
    remaining: u64,
    /// Mask of the current data frame, rotated so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
    /// Inside a message whose last fragment has not begun.
    fragmented: bool,
}

struct FrameHeader {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    header_len: usize,
    payload_len: u64,
}

impl Decoder {
    /// For the receiving side `role`.
    pub const fn new(role: Role) -> Self {
        Self { role, remaining: 0, mask: [0; 4], fragmented: false }
    }

    /// Takes one step at the front of `buf`; call again with what is behind `consumed` until that is zero.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Step, WsError> {
        if self.remaining > 0 {
            return Ok(self.payload(buf, 0));
        }
        let Some(header) = parse_header(buf, self.role)? else { return Ok(Step::MORE) };
        if header.opcode >= 8 {
            return control(buf, &header);
        }
        match (header.opcode, self.fragmented) {
            (0, true) | (2, false) => {}
            (0, false) | (1 | 2, true) => return Err(WsError::Fragments),
            (1, false) => return Err(WsError::Text),
            _ => return Err(WsError::Undefined),
        }
        self.fragmented = !header.fin;
        self.remaining = header.payload_len;
        self.mask = header.mask;
        Ok(self.payload(buf, header.header_len))
    }

    /// Unmasks what is there of the current frame's payload, from `start` on.
    fn payload(&mut self, buf: &mut [u8], start: usize) -> Step {
        let there = buf.len() - start;
        let len = usize::try_from(self.remaining).map_or(there, |remaining| remaining.min(there));
        if len == 0 {
            return Step { consumed: start, event: None };
        }
        let range = start..start + len;
        apply_mask(&mut buf[range.clone()], self.mask);
        self.mask.rotate_left(len % 4);
        self.remaining -= len as u64;
        Step { consumed: range.end, event: Some(Event::Data(range)) }
    }
}

/// The header of a frame to be sent; on the wire [`Self::as_bytes`] goes in front of the payload.
#[derive(Clone, Copy, Debug)]
pub struct OutHeader {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl OutHeader {
    /// Header of an unfragmented frame. A client gives a fresh unpredictable `mask` and applies it to the payload
    /// (see [`apply_mask`]), a server gives none.
    pub fn new(opcode: Opcode, payload_len: usize, mask: Option<[u8; 4]>) -> Self {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = FIN | opcode.to_u8();
        let mut len = match payload_len {
            0..126 => {
                bytes[1] = payload_len as u8;
                2
            }
            126..0x1_0000 => {
                bytes[1] = LEN_16;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = LEN_64;
                bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
                10
            }
        };
        if let Some(mask) = mask {
            bytes[1] |= MASKED;
            bytes[len..len + 4].copy_from_slice(&mask);
            len += 4;
        }
        Self { bytes, len: len as u8 }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends a whole frame. Payload of control frames is cut to [`MAX_CONTROL`]; masks as in [`OutHeader::new`].
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let limit = if opcode == Opcode::Binary { payload.len() } else { MAX_CONTROL };
    let payload = &payload[..payload.len().min(limit)];
    out.extend_from_slice(OutHeader::new(opcode, payload.len(), mask).as_bytes());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Masks or unmasks in place; the first byte of `mask` belongs to the first byte.
#[inline]
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return;
    }
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// `None` while the header is incomplete.
fn parse_header(buf: &[u8], role: Role) -> Result<Option<FrameHeader>, WsError> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    if first & RESERVED != 0 {
        return Err(WsError::Undefined);
    }
    if (second & MASKED != 0) != (role == Role::Server) {
        return Err(WsError::Mask);
    }
    let opcode = first & 0x0f;
    let short = second & !MASKED;
    if opcode >= 8 && (short > MAX_CONTROL as u8 || first & FIN == 0) {
        return Err(WsError::Control);
    }
    let Some((payload_len, rest)) = parse_len(short, rest)? else { return Ok(None) };
    let (mask, rest) = match role {
        Role::Client => ([0; 4], rest),
        Role::Server => match rest.split_first_chunk::<4>() {
            Some((mask, rest)) => (*mask, rest),
            None => return Ok(None),
        },
    };
    let header_len = buf.len() - rest.len();
    Ok(Some(FrameHeader { fin: first & FIN != 0, opcode, mask, header_len, payload_len }))
}

/// The length that starts with `short`, and what follows it; `None` while it is incomplete.
fn parse_len(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, WsError> {
    let (len, rest, least) = match short {
        LEN_16 => match bytes.split_first_chunk() {
            Some((len, rest)) => (u16::from_be_bytes(*len).into(), rest, u64::from(LEN_16)),
            None => return Ok(None),
        },
        LEN_64 => match bytes.split_first_chunk() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest, 0x1_0000),
            None => return Ok(None),
        },
        short => (short.into(), bytes, 0),
    };
    if len < least || len > i64::MAX as u64 { Err(WsError::Length) } else { Ok(Some((len, rest))) }
}

/// A control frame, once it is complete.
fn control(buf: &mut [u8], header: &FrameHeader) -> Result<Step, WsError> {
    // At most MAX_CONTROL, checked with the header.
    let range = header.header_len..header.header_len + header.payload_len as usize;
    let Some(payload) = buf.get_mut(range.clone()) else { return Ok(Step::MORE) };
    let event = match header.opcode {
        8 => {
            apply_mask(payload, header.mask);
            match payload {
                [] => Event::Close(None),
                [_] => return Err(WsError::Control),
                [high, low, ..] => Event::Close(Some(u16::from_be_bytes([*high, *low]))),
            }
        }
        9 | 10 => {
            apply_mask(payload, header.mask);
            if header.opcode == 9 { Event::Ping(range.clone()) } else { Event::Pong(range.clone()) }
        }
        _ => return Err(WsError::Undefined),
    };
    Ok(Step { consumed: range.end, event: Some(event) })
}
