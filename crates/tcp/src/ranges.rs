//! Disjoint ranges of stream positions, in order.

use std::collections::VecDeque;

/// First position and one past the last.
pub(crate) type Range = (u64, u64);

/// A set of positions, held as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(crate) struct Ranges(VecDeque<Range>);

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn last(&self) -> Option<Range> {
        self.0.back().copied()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range> {
        self.0.iter().copied()
    }

    /// The range that holds `position`.
    pub fn around(&self, position: u64) -> Option<Range> {
        let at = self.0.partition_point(|range| range.1 <= position);
        self.0.get(at).copied().filter(|range| range.0 <= position)
    }

    /// Whether `range` would join one that is there.
    pub fn touches(&self, range: Range) -> bool {
        let at = self.0.partition_point(|other| other.1 < range.0);
        self.0.get(at).is_some_and(|other| other.0 <= range.1)
    }

    /// Adds a range; `fresh` gets each part of it that was not there yet.
    pub fn insert(&mut self, (start, end): Range, mut fresh: impl FnMut(Range)) {
        if start >= end {
            return;
        }
        let from = self.0.partition_point(|range| range.1 < start);
        let (mut merged, mut reached, mut to) = ((start, end), start, from);
        while let Some(&range) = self.0.get(to)
            && range.0 <= end
        {
            if reached < range.0 {
                fresh((reached, range.0));
            }
            reached = reached.max(range.1);
            merged = (merged.0.min(range.0), merged.1.max(range.1));
            to += 1;
        }
        if reached < end {
            fresh((reached, end));
        }
        match self.0.get_mut(from).filter(|_| to > from) {
            Some(first) => {
                *first = merged;
                if to > from + 1 {
                    self.0.drain(from + 1..to);
                }
            }
            None => self.0.insert(from, merged),
        }
    }

    /// Removes everything below `position`.
    pub fn remove_below(&mut self, position: u64) {
        while let Some(first) = self.0.front_mut()
            && first.0 < position
        {
            if first.1 > position {
                first.0 = position;
                return;
            }
            self.0.pop_front();
        }
    }

    /// Takes the first range if it begins at or below `position`.
    pub fn take_reached(&mut self, position: u64) -> Option<Range> {
        self.0.pop_front_if(|range| range.0 <= position)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    proptest::proptest! {
        #[test]
        fn it_is_the_set_of_its_positions(steps in proptest::collection::vec((0..200u64, 0..30u64), 1..60), cut in 0..200u64) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (start, len) in steps {
                let mut fresh = BTreeSet::new();
                ranges.insert((start, start + len), |(from, to)| fresh.extend(from..to));
                let expected: BTreeSet<u64> = (start..start + len).filter(|at| !model.contains(at)).collect();
                proptest::prop_assert_eq!(fresh, expected);
                model.extend(start..start + len);
            }
            ranges.remove_below(cut);
            model.retain(|&at| at >= cut);
            let all: Vec<u64> = ranges.iter().flat_map(|(from, to)| from..to).collect();
            proptest::prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
            let touching = ranges.iter().zip(ranges.iter().skip(1)).any(|(one, two)| one.1 >= two.0);
            proptest::prop_assert!(!touching);
            for at in 0..240 {
                proptest::prop_assert_eq!(ranges.around(at).is_some(), model.contains(&at));
            }
        }
    }
}
