//! What was measured: rows of at least a second, and the total.

use std::time::{Duration, Instant};

use crate::{BLOCK_SIZE, Error};

/// An interval is closed by the first bytes that arrive this long after it began.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shorter spans at the end of a test make no row.
const SHORTEST: Duration = Duration::from_millis(10);

/// Bytes within a span of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Payload bytes.
    pub bytes: u64,
    /// Since the start of the test.
    pub start: Duration,
    /// Since the start of the test.
    pub end: Duration,
}

impl Row {
    /// Millions of bits moved in this span.
    pub fn megabits(&self) -> f64 {
        self.bytes as f64 / 1_000_000.0 * 8.0
    }

    /// Millions of bits per second; 0 for an empty span.
    pub fn megabits_per_second(&self) -> f64 {
        let seconds = (self.end.saturating_sub(self.start)).as_secs_f64();
        if seconds > 0.0 { self.megabits() / seconds } else { 0.0 }
    }
}

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In order and without gaps; each at least one second, but for the last.
    pub intervals: Vec<Row>,
    /// From the start to the last byte.
    pub total: Row,
}

/// Counts bytes into rows.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    /// Since `start`: where the open interval began, and when bytes were last counted.
    opened: Duration,
    last: Duration,
    /// Bytes of the open interval, and of all.
    pending: u64,
    total: u64,
    intervals: Vec<Row>,
}

impl Meter {
    pub(crate) fn new(start: Instant) -> Self {
        let zero = Duration::ZERO;
        Self { start, opened: zero, last: zero, pending: 0, total: 0, intervals: Vec::new() }
    }

    /// Counts bytes. Returns the interval they closed, if they did.
    pub(crate) fn count(&mut self, now: Instant, bytes: usize) -> Option<Row> {
        self.pending += bytes as u64;
        self.total += bytes as u64;
        self.last = now.saturating_duration_since(self.start).max(self.last);
        if self.last - self.opened < INTERVAL { None } else { Some(self.close()) }
    }

    /// Ends the test at the last counted byte. Returns the interval that was still open, if it makes a row.
    pub(crate) fn finish(mut self) -> (Option<Row>, Result<Report, Error>) {
        let last = if self.last - self.opened > SHORTEST { Some(self.close()) } else { None };
        let total = Row { bytes: self.total, start: Duration::ZERO, end: self.last };
        let report = if self.total < BLOCK_SIZE as u64 {
            Err(Error::NoWholeBlock)
        } else if total.end <= SHORTEST {
            Err(Error::TooShort)
        } else {
            Ok(Report { intervals: self.intervals, total })
        };
        (last, report)
    }

    fn close(&mut self) -> Row {
        let row = Row { bytes: self.pending, start: self.opened, end: self.last };
        self.intervals.push(row);
        self.opened = self.last;
        self.pending = 0;
        row
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn row(bytes: u64, start_ms: u64, end_ms: u64) -> Row {
        Row { bytes, start: Duration::from_millis(start_ms), end: Duration::from_millis(end_ms) }
    }

    /// The rows reported on the way and the result, for bytes counted at these times.
    fn measure(counted: &[(u64, usize)]) -> (Vec<Row>, Result<Report, Error>) {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let mut rows: Vec<Row> =
            counted.iter().filter_map(|&(ms, n)| meter.count(start + Duration::from_millis(ms), n)).collect();
        let (last, report) = meter.finish();
        rows.extend(last);
        (rows, report)
    }

    #[test]
    fn an_interval_closes_at_the_first_bytes_after_a_second() {
        let (rows, report) = measure(&[(999, BLOCK_SIZE), (1000, 1), (1500, 2), (2300, 4), (2310, 8)]);
        let expected = vec![row(BLOCK_SIZE as u64 + 1, 0, 1000), row(6, 1000, 2300)];
        assert_eq!(rows, expected, "the last 10 ms make no row");
        assert_eq!(report, Ok(Report { intervals: expected, total: row(BLOCK_SIZE as u64 + 15, 0, 2310) }));
    }

    #[test]
    fn the_rest_is_a_row_of_its_own() {
        let (rows, report) = measure(&[(11, BLOCK_SIZE)]);
        assert_eq!(rows, vec![row(BLOCK_SIZE as u64, 0, 11)]);
        assert_eq!(report.map(|report| report.total), Ok(rows[0]));
    }

    #[test]
    fn no_result_without_a_block_or_without_time() {
        assert_eq!(measure(&[(5000, BLOCK_SIZE - 1)]).1, Err(Error::NoWholeBlock));
        assert_eq!(measure(&[]).1, Err(Error::NoWholeBlock));
        assert_eq!(measure(&[(10, BLOCK_SIZE)]).1, Err(Error::TooShort));
    }

    #[test]
    fn time_that_goes_backwards_is_taken_for_standing_still() {
        let (rows, _) = measure(&[(500, 1), (100, 2), (1000, 4)]);
        assert_eq!(rows, vec![row(7, 0, 1000)]);
    }

    #[test]
    fn speeds() {
        assert_eq!(row(1_250_000, 500, 1000).megabits(), 10.0);
        assert_eq!(row(1_250_000, 500, 1000).megabits_per_second(), 20.0);
        assert_eq!(row(1, 5, 5).megabits_per_second(), 0.0);
    }
}
