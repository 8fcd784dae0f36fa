//! The scoreboard: what was sent, in order, and what is known of each segment (RFC 6675).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use crate::ranges::{Range, Ranges};
use crate::rate::Snapshot;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On its way, as far as we know.
    Flying,
    /// Acknowledged selectively.
    Sacked,
    /// Taken for lost, to be sent again.
    Lost,
}

/// A segment that takes part in the sequence space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub start: u64,
    /// How much of the sequence space it takes: its bytes, and one more with a FIN.
    pub len: u32,
    pub fate: Fate,
    /// It was sent more than once.
    pub resent: bool,
    /// When it was sent last.
    pub sent_at: Instant,
    pub snapshot: Snapshot,
}

impl Sent {
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    /// RFC 8985 section 5.2: what was sent in one go counts as sent in order.
    pub fn order(&self) -> (Instant, u64) {
        (self.sent_at, self.end())
    }
}

/// What one acknowledgement is the first to confirm.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub bytes: u64,
    /// The segment sent last of those it confirms.
    pub newest: Option<Sent>,
    /// Bytes that had been taken for lost and were never sent again: a mistake.
    pub mistaken: u64,
    /// A segment sent once arrived after one sent later.
    pub reordered: bool,
    /// The highest end of a segment sent only once.
    pub original_end: u64,
    /// The highest position known to have arrived before.
    highest: u64,
}

impl Delivery {
    #[inline]
    fn add(&mut self, sent: &Sent, highest: &mut u64) {
        self.bytes += u64::from(sent.len);
        if self.newest.is_none_or(|newest| newest.order() < sent.order()) {
            self.newest = Some(*sent);
        }
        if !sent.resent {
            self.original_end = self.original_end.max(sent.end());
            self.reordered |= sent.end() < self.highest;
            if sent.fate == Fate::Lost {
                self.mistaken += u64::from(sent.len);
            }
        }
        *highest = (*highest).max(sent.end());
    }
}

/// All segments that are not acknowledged cumulatively.
#[derive(Debug, Default)]
pub(crate) struct Board {
    sent: VecDeque<Sent>,
    sacked: Ranges,
    sacked_segments: usize,
    /// Starts of lost segments, lowest first; those that no longer are lost are passed over.
    lost: BinaryHeap<Reverse<u64>>,
    /// Segments sent again, in the order of sending; what has become of them is in `sent`.
    again: VecDeque<(u64, Instant)>,
    /// Below this, every segment sent once has been judged.
    judged: u64,
    /// The highest position known to have arrived.
    highest: u64,
    flying: u64,
}

impl Board {
    /// An acknowledgement is about to be processed.
    pub fn begin(&self) -> Delivery {
        Delivery { highest: self.highest, ..Delivery::default() }
    }

    /// Bytes on their way (RFC 6675 calls it the pipe).
    pub fn in_flight(&self) -> u64 {
        self.flying
    }

    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub fn len(&self) -> usize {
        self.sent.len()
    }

    pub fn sacked_segments(&self) -> usize {
        self.sacked_segments
    }

    pub fn get(&self, index: usize) -> Option<&Sent> {
        self.sent.get(index)
    }

    /// Adds a segment behind all others.
    pub fn push(&mut self, sent: Sent) {
        self.flying += u64::from(sent.len);
        self.sent.push_back(sent);
    }

    fn find(&self, start: u64) -> Option<usize> {
        let index = self.sent.partition_point(|sent| sent.start < start);
        self.sent.get(index).filter(|sent| sent.start == start).map(|_| index)
    }

    /// Everything below `ack` has arrived.
    pub fn acknowledge(&mut self, ack: u64, delivery: &mut Delivery) {
        while let Some(first) = self.sent.front_mut()
            && first.start < ack
        {
            let whole = first.end() <= ack;
            let mut part = *first;
            if !whole {
                part.len = (ack - first.start) as u32;
                first.len -= part.len;
                first.start = ack;
                if first.fate == Fate::Lost {
                    self.lost.push(Reverse(ack));
                }
            }
            match part.fate {
                Fate::Flying => self.flying -= u64::from(part.len),
                Fate::Sacked if whole => self.sacked_segments -= 1,
                Fate::Sacked | Fate::Lost => {}
            }
            if part.fate != Fate::Sacked {
                delivery.add(&part, &mut self.highest);
            }
            if !whole {
                break;
            }
            self.sent.pop_front();
        }
        self.sacked.remove_below(ack);
        if self.sent.is_empty() {
            self.lost.clear();
            self.again.clear();
        }
    }

    /// The receiver holds `block`. Only whole segments count, so that the work and the memory for a block are bounded by
    /// what was sent.
    pub fn sack(&mut self, block: Range, delivery: &mut Delivery) {
        let Self { sent, sacked, sacked_segments, highest, flying, .. } = self;
        let from = sent.partition_point(|sent| sent.start < block.0);
        let to = sent.partition_point(|sent| sent.end() <= block.1);
        let (Some(first), Some(last)) = (sent.get(from), to.checked_sub(1).and_then(|last| sent.get(last)))
        else {
            return;
        };
        sacked.insert((first.start, last.end()), |(start, end)| {
            let mut index = sent.partition_point(|sent| sent.start < start);
            while let Some(one) = sent.get_mut(index)
                && one.start < end
            {
                if one.fate == Fate::Flying {
                    *flying -= u64::from(one.len);
                }
                delivery.add(one, highest);
                one.fate = Fate::Sacked;
                *sacked_segments += 1;
                index += 1;
            }
        });
    }

    /// Marks what is older than the newest delivered segment by more than `patience` as lost (RFC 8985 section 6.2,
    /// step 5): how many bytes that were, and when to look again.
    pub fn judge(
        &mut self,
        now: Instant,
        newest: (Instant, u64),
        patience: std::time::Duration,
    ) -> (u64, Option<Instant>) {
        let (mut lost, mut again_at) = (0, None::<Instant>);
        while let Some(&(start, sent_at)) = self.again.front() {
            let index = self.find(start);
            let current = index.and_then(|index| self.sent.get(index)).copied();
            let (Some(index), Some(sent)) = (index, current) else {
                self.again.pop_front();
                continue;
            };
            if sent.fate == Fate::Flying && sent.sent_at == sent_at {
                if sent.order() >= newest {
                    break;
                }
                if sent_at + patience > now {
                    again_at = Some(sent_at + patience);
                    break;
                }
                lost += self.lose(index);
            }
            self.again.pop_front();
        }
        let mut index = self.sent.partition_point(|sent| sent.start < self.judged);
        while let Some(sent) = self.sent.get(index).copied() {
            if sent.fate == Fate::Flying && !sent.resent {
                if sent.order() >= newest {
                    break;
                }
                if sent.sent_at + patience > now {
                    let due = sent.sent_at + patience;
                    again_at = Some(again_at.map_or(due, |at| at.min(due)));
                    break;
                }
                lost += self.lose(index);
            }
            index += 1;
            self.judged = sent.end();
        }
        (lost, again_at)
    }

    /// The timer fired: the first segment and everything sent before `before` is taken for lost. How many bytes.
    pub fn lose_sent_before(&mut self, before: Instant) -> u64 {
        if self.sent.front().is_some_and(|first| first.fate == Fate::Sacked) {
            self.forget_sacks();
        }
        let mut lost = 0;
        let mut again = std::mem::take(&mut self.again);
        for index in 0..self.sent.len() {
            if self
                .sent
                .get(index)
                .is_some_and(|s| s.fate == Fate::Flying && (index == 0 || s.sent_at <= before))
            {
                lost += self.lose(index);
            }
        }
        again.retain(|&(start, sent_at)| {
            let sent = self.find(start).and_then(|index| self.sent.get(index));
            sent.is_some_and(|sent| sent.fate == Fate::Flying && sent.sent_at == sent_at)
        });
        self.again = again;
        lost
    }

    /// Takes the first segment for lost. How many bytes.
    pub fn lose_first(&mut self) -> u64 {
        if self.sent.front().is_some_and(|first| first.fate == Fate::Flying) { self.lose(0) } else { 0 }
    }

    fn lose(&mut self, index: usize) -> u64 {
        let Some(sent) = self.sent.get_mut(index) else { return 0 };
        sent.fate = Fate::Lost;
        self.flying -= u64::from(sent.len);
        self.lost.push(Reverse(sent.start));
        u64::from(sent.len)
    }

    /// The receiver has dropped what it had acknowledged selectively, as it may (RFC 2018 section 8).
    fn forget_sacks(&mut self) {
        self.sacked.clear();
        self.sacked_segments = 0;
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Sacked) {
            sent.fate = Fate::Flying;
            self.flying += u64::from(sent.len);
        }
        self.judged = 0;
    }

    /// The first lost segment.
    pub fn first_lost(&mut self) -> Option<usize> {
        while let Some(&Reverse(start)) = self.lost.peek() {
            match self.find(start) {
                Some(index) if self.sent.get(index).is_some_and(|sent| sent.fate == Fate::Lost) => {
                    return Some(index);
                }
                _ => self.lost.pop(),
            };
        }
        None
    }

    /// The segment with the highest numbers, if it is on its way.
    pub fn last_flying(&self) -> Option<usize> {
        let last = self.sent.len().checked_sub(1)?;
        self.sent.get(last).filter(|sent| sent.fate == Fate::Flying).map(|_| last)
    }

    /// A segment is sent again; what it is then.
    pub fn resend(&mut self, index: usize, now: Instant, snapshot: Snapshot) -> Option<Sent> {
        let sent = self.sent.get_mut(index)?;
        if sent.fate == Fate::Lost {
            sent.fate = Fate::Flying;
            self.flying += u64::from(sent.len);
        }
        sent.resent = true;
        sent.sent_at = now;
        sent.snapshot = snapshot;
        self.again.push_back((sent.start, now));
        Some(*sent)
    }

    /// Nothing was lost after all.
    pub fn revive(&mut self) {
        self.lost.clear();
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Lost) {
            sent.fate = Fate::Flying;
            self.flying += u64::from(sent.len);
            if sent.resent {
                self.again.push_back((sent.start, sent.sent_at));
            } else {
                self.judged = self.judged.min(sent.start);
            }
        }
    }

    /// What must always be true; for tests.
    pub fn is_consistent(&self) -> bool {
        let flying =
            self.sent.iter().filter(|sent| sent.fate == Fate::Flying).map(|sent| u64::from(sent.len)).sum();
        let sacked: u64 =
            self.sent.iter().filter(|s| s.fate == Fate::Sacked).map(|sent| u64::from(sent.len)).sum();
        let ordered = self.sent.iter().zip(self.sent.iter().skip(1)).all(|(one, two)| one.end() == two.start);
        self.flying == flying
            && ordered
            && self.sacked.iter().map(|(start, end)| end - start).sum::<u64>() == sacked
            && self.sacked_segments == self.sent.iter().filter(|sent| sent.fate == Fate::Sacked).count()
            && self.again.len() <= 4 * self.sent.len() + 64
    }
}
