//! A relay connection that is being made. A lost first packet would cost the system's own second before it is sent again, so
//! an attempt that takes its time gets company; the first that succeeds is taken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wire::keys::NodePublic;

/// When further attempts begin, counted from the first one's beginning.
const COMPANY: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1200)];

/// The attempts at one connection.
pub(crate) struct Dialling {
    since: Instant,
    begun: usize,
    running: Vec<u64>,
    /// Packets that will go once it is up.
    pub(crate) waiting: VecDeque<(NodePublic, Vec<u8>)>,
}

impl Dialling {
    pub(crate) fn new(now: Instant, waiting: VecDeque<(NodePublic, Vec<u8>)>) -> Self {
        Self { since: now, begun: 0, running: Vec::new(), waiting }
    }

    /// An attempt of this number runs; `None` if the system had no thread for it.
    pub(crate) fn begun(&mut self, attempt: Option<u64>) {
        self.begun += 1;
        self.running.extend(attempt);
    }

    /// An attempt ended. Answers whether it was one of these.
    pub(crate) fn ended(&mut self, attempt: u64) -> bool {
        let before = self.running.len();
        self.running.retain(|running| *running != attempt);
        self.running.len() < before
    }

    /// Whether nothing runs any more.
    pub(crate) fn is_over(&self) -> bool {
        self.running.is_empty()
    }

    /// When the next attempt should begin.
    pub(crate) fn next(&self) -> Option<Instant> {
        COMPANY.get(self.begun.checked_sub(1)?).map(|after| self.since + *after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_attempt_gets_company_twice() {
        let now = Instant::now();
        let mut dialling = Dialling::new(now, VecDeque::new());
        dialling.begun(Some(7));
        assert_eq!(dialling.next(), Some(now + COMPANY[0]));
        dialling.begun(Some(8));
        assert_eq!(dialling.next(), Some(now + COMPANY[1]));
        dialling.begun(None);
        assert_eq!(dialling.next(), None);
    }

    #[test]
    fn it_fails_with_the_last_attempt() {
        let mut dialling = Dialling::new(Instant::now(), VecDeque::new());
        dialling.begun(Some(7));
        dialling.begun(Some(8));
        assert!(dialling.ended(7) && !dialling.is_over());
        assert!(!dialling.ended(6), "of an earlier connection");
        assert!(dialling.ended(8) && dialling.is_over());
    }
}
