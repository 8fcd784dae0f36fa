//! Which of two addresses is the better way to a peer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address of a peer and the round trip to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub addr: SocketAddr,
    /// Round trip of the last ping.
    pub latency: Duration,
}

/// Whether `a` should replace `b`.
///
/// The faster side gets a point per percent it is faster, and addresses of nearer kinds get a bonus. A lead of one point
/// does not count, so that two equal paths do not take turns.
pub fn better(a: &Candidate, b: Option<&Candidate>) -> bool {
    let Some(b) = b else { return true };
    if a.addr == b.addr {
        return false;
    }
    let points_a = percent_faster(a.latency, b.latency) + bonus(a.addr.ip());
    let points_b = percent_faster(b.latency, a.latency) + bonus(b.addr.ip());
    if points_a <= 1 && points_b == 0 { false } else { points_a > points_b }
}

fn percent_faster(fast: Duration, slow: Duration) -> u32 {
    if fast >= slow {
        return 0;
    }
    let ratio = fast.as_nanos() * 100 / slow.as_nanos();
    100 - u32::try_from(ratio).unwrap_or(100)
}

fn bonus(ip: IpAddr) -> u32 {
    let kind = match ip {
        _ if ip.is_loopback() => 50,
        IpAddr::V4(v4) if v4.is_link_local() => 30,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => 30,
        IpAddr::V4(v4) if v4.is_private() => 20,
        IpAddr::V6(v6) if v6.is_unique_local() => 20,
        _ => 0,
    };
    if ip.is_ipv6() { kind + 10 } else { kind }
}
