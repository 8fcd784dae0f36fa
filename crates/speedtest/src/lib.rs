//! The measuring protocol of port 3, both roles. Sans-IO.
//!
//! One test per connection. The client sends one line of JSON (version, duration, direction), the server answers with
//! one line, and from then on one side writes blocks of noise until the time is up and closes. The stream belongs to
//! the caller:
//!
//! * bytes that arrived go into `incoming`, the end of the stream into `end_of_stream`, a broken one into `lost`;
//! * whenever the stream takes bytes, fill it from `outgoing` (copies) or `next_chunk` (lends);
//! * `next_timeout` says when to call `handle_timeout`;
//! * once `finished` is true there is nothing left to send: shut the stream down.
//!
//! Payload is counted, never looked at, and sent from one shared buffer, so a byte costs one copy into the stream.
#![forbid(unsafe_code)]

mod client;
mod line;
mod message;
mod meter;
mod payload;
mod server;

use std::time::{Duration, Instant};

pub use client::{Client, Event};
pub use meter::{Report, Row};
pub use payload::BLOCK_SIZE;
pub use server::Server;

/// The version both sides must state; compared for equality.
pub const VERSION: i64 = 2;

/// Length limit of the request and of the answer, newline included.
pub const LINE_LIMIT: usize = 4096;

/// Longest test either role runs; longer requests are cut to it.
pub const MAX_DURATION: Duration = Duration::from_secs(3600);

/// How long the request, and the answer to it, may take.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Which way the payload flows, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Download: the server sends. 0 on the wire.
    Down,
    /// Upload: the client sends. 1 on the wire.
    Up,
}

/// Why a test ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server answered the request with this text (control characters replaced).
    #[error("the other side refused the test: {0}")]
    Refused(String),
    /// The client's request was refused, with the text it was told.
    #[error("refused a request: {0}")]
    BadRequest(String),
    /// The answer was not the JSON object it has to be.
    #[error("the other side does not speak the speed test protocol")]
    BadAnswer,
    /// The stream ended before the test did.
    #[error("the connection ended before the test did")]
    Closed,
    /// The stream broke.
    #[error("the connection was lost during the test")]
    Lost,
    /// The greeting or the transfer did not end in time.
    #[error("the test did not end in time")]
    TimedOut,
    /// The sender stopped before one whole block got through, so there is nothing to compute a speed from.
    #[error("the test ended before one block of {BLOCK_SIZE} bytes got through")]
    NoWholeBlock,
    /// All blocks got through in less than the shortest time that is measured.
    #[error("the test was too short to be measured")]
    TooShort,
}

/// When a transfer of `duration` that began at `start` is given up: four times its duration, at least 5 s over it.
fn transfer_deadline(start: Instant, duration: Duration) -> Instant {
    start + (duration * 4).max(duration + Duration::from_secs(5))
}

/// Copies chunks from `next` (which is told how many bytes still fit) into `buffer` until either runs out.
fn fill<'a>(buffer: &mut [u8], mut next: impl FnMut(usize) -> &'a [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        let chunk = next(buffer.len() - filled);
        if chunk.is_empty() {
            break;
        }
        buffer[filled..filled + chunk.len()].copy_from_slice(chunk);
        filled += chunk.len();
    }
    filled
}
