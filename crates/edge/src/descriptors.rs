//! How many connections the limit of open files (RLIMIT_NOFILE) leaves room for.

use rustix::process::{Resource, getrlimit};

/// A proxied connection holds the client's socket and both ends of one to the application, which is in this process.
const PROXIED: u64 = 3;
/// More are not served however many files may be open: each costs memory too.
const MOST_CONNECTIONS: u64 = 20_000;
/// Kept for everything else: database, logs, listening sockets; an eighth of the limit if that is more.
const HEADROOM: u64 = 64;

/// Most connections at once that this process has descriptors for.
pub(crate) fn connections(proxied: bool) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    room(limit, if proxied { PROXIED } else { 1 })
}

fn room(limit: u64, each: u64) -> usize {
    let free = limit.saturating_sub(HEADROOM.max(limit / 8));
    usize::try_from((free / each).clamp(1, MOST_CONNECTIONS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(room(1024, PROXIED), 298);
        assert_eq!(room(4096, PROXIED), 1194);
        assert_eq!(room(1024, 1), 896);
        assert_eq!(room(u64::MAX, PROXIED), 20_000);
        assert_eq!(room(256, PROXIED), 64);
        assert_eq!(room(10, PROXIED), 1);
    }
}
