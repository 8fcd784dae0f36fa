//! The side that asks for a test and measures it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::line::{LineReader, LineWriter};
use crate::message::{Request, decode_answer};
use crate::meter::{Meter, Report, Row};
use crate::payload::Sender;
use crate::{Direction, Error, GREETING_TIMEOUT, fill, transfer_deadline};

/// What happened in a test, in order; the last one is [`Event::Finished`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server agreed; payload flows from now on.
    Started,
    /// An interval is over.
    Interval(Row),
    /// The test is over.
    Finished(Result<Report, Error>),
}

/// One test, as its client. The crate's documentation says which calls feed it.
#[derive(Debug)]
pub struct Client {
    request: Request,
    line: LineWriter,
    phase: Phase,
    events: VecDeque<Event>,
}

#[derive(Debug)]
enum Phase {
    Greeting { answer: LineReader, deadline: Instant },
    Running { meter: Meter, sender: Option<Sender>, deadline: Instant },
    Done,
}

impl Client {
    /// Asks for a test of `duration`, at most [`MAX_DURATION`](crate::MAX_DURATION).
    pub fn new(direction: Direction, duration: Duration, now: Instant) -> Self {
        let request = Request::new(direction, duration);
        let phase = Phase::Greeting { answer: LineReader::default(), deadline: now + GREETING_TIMEOUT };
        Self { request, line: LineWriter::new(request.encode()), phase, events: VecDeque::new() }
    }

    /// Fills `buffer` with what is to be sent next. Returns how many bytes; 0 when there is nothing to send now.
    pub fn outgoing(&mut self, now: Instant, buffer: &mut [u8]) -> usize {
        if !self.line.is_empty() {
            let line = self.line.take(buffer.len());
            buffer[..line.len()].copy_from_slice(line);
            return line.len();
        }
        fill(buffer, |max| self.payload(now, max))
    }

    /// The next at most `max` bytes to send, without a copy. They count as sent.
    pub fn next_chunk(&mut self, now: Instant, max: usize) -> &[u8] {
        if self.line.is_empty() { self.payload(now, max) } else { self.line.take(max) }
    }

    /// Takes bytes that arrived.
    pub fn incoming(&mut self, now: Instant, bytes: &[u8]) {
        let payload = match &mut self.phase {
            Phase::Greeting { answer, .. } => match answer.push(bytes) {
                Ok(None) => return,
                Ok(Some(line)) => match decode_answer(&line.text) {
                    Ok(()) => {
                        self.start(now);
                        line.rest
                    }
                    Err(error) => return self.fail(error),
                },
                Err(_) => return self.fail(Error::BadAnswer),
            },
            Phase::Running { .. } | Phase::Done => bytes,
        };
        self.receive(now, payload.len());
    }

    /// The other side sends no more. This is how a download ends.
    pub fn end_of_stream(&mut self) {
        match &self.phase {
            Phase::Running { sender: None, .. } => self.finish(),
            Phase::Running { sender: Some(_), .. } | Phase::Greeting { .. } => self.fail(Error::Closed),
            Phase::Done => {}
        }
    }

    /// The connection broke.
    pub fn lost(&mut self) {
        self.fail(Error::Lost);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None` once finished.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Greeting { deadline, .. } | Phase::Running { deadline, .. } => Some(deadline),
            Phase::Done => None,
        }
    }

    /// Gives the test up if it is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|deadline| deadline <= now) {
            self.fail(Error::TimedOut);
        }
    }

    /// Whether the test is over: nothing more will be sent, the last event is waiting or was taken.
    pub fn finished(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn start(&mut self, now: Instant) {
        let duration = self.request.duration;
        let sender = match self.request.direction {
            Direction::Up => Some(Sender::new(now, duration)),
            Direction::Down => None,
        };
        self.phase =
            Phase::Running { meter: Meter::new(now), sender, deadline: transfer_deadline(now, duration) };
        self.events.push_back(Event::Started);
    }

    fn payload(&mut self, now: Instant, max: usize) -> &'static [u8] {
        let Phase::Running { meter, sender: Some(sender), .. } = &mut self.phase else { return &[] };
        let chunk = sender.next_chunk(now, max);
        self.events.extend(meter.count(now, chunk.len()).map(Event::Interval));
        if sender.done() {
            self.finish();
        }
        chunk
    }

    fn receive(&mut self, now: Instant, bytes: usize) {
        if let Phase::Running { meter, sender: None, .. } = &mut self.phase
            && bytes > 0
        {
            self.events.extend(meter.count(now, bytes).map(Event::Interval));
        }
    }

    fn finish(&mut self) {
        if let Phase::Running { meter, .. } = std::mem::replace(&mut self.phase, Phase::Done) {
            let (last, report) = meter.finish();
            self.events.extend(last.map(Event::Interval));
            self.events.push_back(Event::Finished(report));
        }
    }

    fn fail(&mut self, error: Error) {
        if !self.finished() {
            self.phase = Phase::Done;
            self.events.push_back(Event::Finished(Err(error)));
        }
    }
}
