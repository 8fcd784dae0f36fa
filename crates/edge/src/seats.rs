//! Open connections: how many there may be, in all and from one source.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::Tally;

/// The seats there are.
#[derive(Debug)]
pub(crate) struct Seats {
    tally: Arc<Tally>,
    most: usize,
    most_of_source: usize,
    sources: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One open connection's seat; given back when the last owner drops it.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    /// `None`: from somebody who may have any number.
    source: Option<IpAddr>,
}

impl Seats {
    pub(crate) fn new(tally: Arc<Tally>, most: usize, most_of_source: usize) -> Arc<Self> {
        Arc::new(Self { tally, most, most_of_source, sources: Mutex::default() })
    }

    /// `None` if all seats are taken, or all of this address. Addresses that speak for many count only in all.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, speaks_for_many: bool) -> Option<Arc<Seat>> {
        let taken = self.tally.connections.fetch_add(1, Ordering::Relaxed);
        let source = (!speaks_for_many).then(|| site(address));
        if taken >= self.most as u64 || !source.is_none_or(|source| self.count_in(source)) {
            self.tally.connections.fetch_sub(1, Ordering::Relaxed);
            Tally::add(&self.tally.refused);
            return None;
        }
        Tally::add(&self.tally.accepted);
        Some(Arc::new(Seat { seats: Arc::clone(self), source }))
    }

    fn count_in(&self, source: IpAddr) -> bool {
        let mut sources = self.sources();
        let count = sources.entry(source).or_default();
        let free = *count < self.most_of_source;
        *count += usize::from(free);
        free
    }

    fn count_out(&self, source: IpAddr) {
        let mut sources = self.sources();
        match sources.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(sources.remove(&source)),
        }
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.tally.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = self.source {
            self.seats.count_out(source);
        }
    }
}

/// What one customer of a network has at least: an IPv4 address, or an IPv6 /64.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seats(most: usize, most_of_source: usize) -> Arc<Seats> {
        Seats::new(Arc::default(), most, most_of_source)
    }

    fn take(seats: &Arc<Seats>, address: &str) -> Option<Arc<Seat>> {
        seats.take(address.parse().unwrap(), false)
    }

    #[test]
    fn a_source_gets_its_seats_and_no_more_until_one_is_free_again() {
        let seats = seats(10, 2);
        let held = [take(&seats, "192.0.2.1").unwrap(), take(&seats, "::ffff:192.0.2.1").unwrap()];
        assert!(take(&seats, "192.0.2.1").is_none());
        let other = take(&seats, "192.0.2.2").unwrap();
        drop(held);
        let again = [take(&seats, "192.0.2.1").unwrap(), take(&seats, "192.0.2.1").unwrap()];
        assert!(take(&seats, "192.0.2.1").is_none());
        assert_eq!(seats.tally.read().refused, 2);
        drop((again, other));
        assert_eq!(seats.tally.read().connections, 0);
        assert!(seats.sources().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_site_are_one_source() {
        let seats = seats(10, 1);
        let _held = take(&seats, "2001:db8:0:1::1").unwrap();
        assert!(take(&seats, "2001:db8:0:1:ffff::2").is_none());
        assert!(take(&seats, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn who_speaks_for_many_is_bound_by_all_seats_only() {
        let seats = seats(3, 1);
        let address = "10.0.0.1".parse().unwrap();
        let _held: Vec<_> = (0..3).map(|_| seats.take(address, true).unwrap()).collect();
        assert!(seats.take(address, true).is_none());
    }
}
