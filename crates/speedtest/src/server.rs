//! The side that does as it is asked.

use std::time::Instant;

use crate::line::{LineReader, LineWriter};
use crate::message::{Request, encode_answer};
use crate::payload::Sender;
use crate::{Direction, Error, GREETING_TIMEOUT, fill, transfer_deadline};

/// One test, as its server. The crate's documentation says which calls feed it.
#[derive(Debug)]
pub struct Server {
    line: LineWriter,
    phase: Phase,
    received: u64,
}

#[derive(Debug)]
enum Phase {
    Greeting { request: LineReader, deadline: Instant },
    Sending { sender: Sender, deadline: Instant },
    Receiving { deadline: Instant },
    Done(Result<(), Error>),
}

impl Server {
    /// For a connection that was accepted at `now`.
    pub fn new(now: Instant) -> Self {
        let phase = Phase::Greeting { request: LineReader::default(), deadline: now + GREETING_TIMEOUT };
        Self { line: LineWriter::new(Vec::new()), phase, received: 0 }
    }

    /// Fills `buffer` with what is to be sent next. Returns how many bytes; 0 when there is nothing to send now.
    pub fn outgoing(&mut self, now: Instant, buffer: &mut [u8]) -> usize {
        let line = self.line.take(buffer.len());
        let (head, room) = buffer.split_at_mut(line.len());
        head.copy_from_slice(line);
        line.len() + fill(room, |max| self.payload(now, max))
    }

    /// The next at most `max` bytes to send, without a copy. They count as sent.
    pub fn next_chunk(&mut self, now: Instant, max: usize) -> &[u8] {
        if self.line.is_empty() { self.payload(now, max) } else { self.line.take(max) }
    }

    /// Takes bytes that arrived.
    pub fn incoming(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.phase {
            Phase::Greeting { request, .. } => match request.push(bytes) {
                Ok(None) => {}
                Ok(Some(line)) => match Request::decode(&line.text) {
                    Ok(request) => {
                        self.start(now, request);
                        self.incoming(now, line.rest);
                    }
                    Err(why) => self.refuse(why),
                },
                Err(_) => self.refuse("invalid request: line too long".to_owned()),
            },
            Phase::Receiving { .. } => self.received += bytes.len() as u64,
            Phase::Sending { .. } | Phase::Done(_) => {}
        }
    }

    /// The other side sends no more. This is how an upload ends; a download goes on.
    pub fn end_of_stream(&mut self) {
        match self.phase {
            Phase::Greeting { .. } => self.end(Err(Error::Closed)),
            Phase::Receiving { .. } => self.end(Ok(())),
            Phase::Sending { .. } | Phase::Done(_) => {}
        }
    }

    /// The connection broke.
    pub fn lost(&mut self) {
        self.line = LineWriter::new(Vec::new());
        self.end(Err(Error::Lost));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None` once the test is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Greeting { deadline, .. }
            | Phase::Sending { deadline, .. }
            | Phase::Receiving { deadline } => Some(deadline),
            Phase::Done(_) => None,
        }
    }

    /// Gives the test up if it is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|deadline| deadline <= now) {
            self.end(Err(Error::TimedOut));
        }
    }

    /// Whether the test is over and everything was handed out: shut the stream down.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Done(_)) && self.line.is_empty()
    }

    /// How the test ended, once it did.
    pub fn outcome(&self) -> Option<&Result<(), Error>> {
        if let Phase::Done(outcome) = &self.phase { Some(outcome) } else { None }
    }

    /// Payload bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    fn start(&mut self, now: Instant, request: Request) {
        let deadline = transfer_deadline(now, request.duration);
        self.line = LineWriter::new(encode_answer(Ok(())));
        self.phase = match request.direction {
            Direction::Down => Phase::Sending { sender: Sender::new(now, request.duration), deadline },
            Direction::Up => Phase::Receiving { deadline },
        };
    }

    fn refuse(&mut self, why: String) {
        self.line = LineWriter::new(encode_answer(Err(&why)));
        self.end(Err(Error::BadRequest(why)));
    }

    fn payload(&mut self, now: Instant, max: usize) -> &'static [u8] {
        let Phase::Sending { sender, .. } = &mut self.phase else { return &[] };
        let chunk = sender.next_chunk(now, max);
        if sender.done() {
            self.end(Ok(()));
        }
        chunk
    }

    fn end(&mut self, outcome: Result<(), Error>) {
        if !matches!(self.phase, Phase::Done(_)) {
            self.phase = Phase::Done(outcome);
        }
    }
}
