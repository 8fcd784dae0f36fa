//! The one line each side sends before the payload.

use crate::LINE_LIMIT;

/// Collects a line that arrives in pieces. Never holds more than [`LINE_LIMIT`] bytes.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    partial: Vec<u8>,
}

/// A whole line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Without its newline.
    pub(crate) text: Vec<u8>,
    /// What followed the newline in the last piece.
    pub(crate) rest: &'a [u8],
}

/// The line was longer than [`LINE_LIMIT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl LineReader {
    /// Takes the next bytes. Returns the line once it is whole.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Line<'a>>, TooLong> {
        let room = LINE_LIMIT - self.partial.len();
        let window = &bytes[..bytes.len().min(room)];
        let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
            self.partial.extend_from_slice(window);
            return if window.len() == room { Err(TooLong) } else { Ok(None) };
        };
        self.partial.extend_from_slice(&window[..end]);
        Ok(Some(Line { text: std::mem::take(&mut self.partial), rest: &bytes[end + 1..] }))
    }
}

/// A line on its way out.
#[derive(Debug)]
pub(crate) struct LineWriter {
    line: Vec<u8>,
    sent: usize,
}

impl LineWriter {
    pub(crate) fn new(line: Vec<u8>) -> Self {
        Self { line, sent: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.line.len()
    }

    /// The next at most `max` bytes, which count as sent.
    pub(crate) fn take(&mut self, max: usize) -> &[u8] {
        let from = self.sent;
        self.sent = self.line.len().min(from.saturating_add(max));
        &self.line[from..self.sent]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keeps_what_follows_the_line() {
        let mut reader = LineReader::default();
        assert_eq!(reader.push(b"{\"a"), Ok(None));
        let line = reader.push(b"\":1}\npayload\n").unwrap().unwrap();
        assert_eq!((line.text.as_slice(), line.rest), (&b"{\"a\":1}"[..], &b"payload\n"[..]));
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_more_does_not() {
        let mut longest = vec![b' '; LINE_LIMIT - 1];
        longest.push(b'\n');
        assert_eq!(LineReader::default().push(&longest).unwrap().unwrap().text.len(), LINE_LIMIT - 1);
        longest.insert(0, b' ');
        assert_eq!(LineReader::default().push(&longest), Err(TooLong));
        let mut reader = LineReader::default();
        let last = (0..LINE_LIMIT).map(|_| reader.push(b" ")).find(Result::is_err);
        assert_eq!(last, Some(Err(TooLong)));
    }

    #[test]
    fn writer_hands_out_every_byte_once() {
        let mut writer = LineWriter::new(b"abc".to_vec());
        assert_eq!(writer.take(0), b"");
        assert_eq!(writer.take(2), b"ab");
        assert!(!writer.is_empty());
        assert_eq!(writer.take(usize::MAX), b"c");
        assert!(writer.is_empty());
        assert_eq!(writer.take(9), b"");
    }
}
