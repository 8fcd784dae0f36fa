//! What an edge is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use relay::MeshKey;
use relay::server::RateLimit;
use wire::keys::NodePrivate;

use crate::descriptors;
use crate::mesh::{MeshPeer, MeshTrust};
use crate::tls::TlsFiles;

/// Many users behind one NAT still get in where descriptors are few.
const MIN_PER_SOURCE: usize = 256;

/// All settings of an edge.
#[derive(Debug)]
pub struct Config {
    /// Addresses for HTTP. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Addresses for HTTPS; needs [`Config::tls`].
    pub listen_tls: Vec<SocketAddr>,
    /// Refuse TLS below 1.3.
    pub tls_13_only: bool,
    /// Addresses for health and metrics over HTTP, which nobody else should reach.
    pub listen_metrics: Vec<SocketAddr>,
    /// The certificates. Each name gets the one that has it, else the first.
    pub tls: Vec<TlsFiles>,
    /// The application's Unix socket. Without one this is a relay and nothing else.
    pub upstream: Option<PathBuf>,
    /// Serve the relay. If not, its paths go to the application like all others.
    pub derp: bool,
    /// The relay's key; a fresh one if `None`.
    pub relay_key: Option<NodePrivate>,
    /// What makes a relay client a mesh peer. Without one there are none.
    pub mesh_key: Option<MeshKey>,
    /// The other relays of the region.
    pub mesh: Vec<MeshPeer>,
    /// How those are proved.
    pub mesh_trust: MeshTrust,
    /// Bytes per second of each relay client.
    pub rate_limit: Option<RateLimit>,
    /// Relay clients must be announced with [`crate::Edge::announce`].
    pub require_announced: bool,
    /// UDP addresses that answer STUN.
    pub stun: Vec<SocketAddr>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Most connections at once, HTTP and relay together; more are closed as they come.
    pub max_connections: usize,
    /// Most of those from one address (IPv6: one /64); trusted proxies may have more.
    pub max_connections_per_source: usize,
    /// What the body of a request to the application may be like.
    pub body: BodyLimits,
    /// Time a request's head may take, and an idle connection may stay open.
    pub head_timeout: Duration,
    /// Time that requests in flight get when the edge stops.
    pub drain: Duration,
}

impl Config {
    /// Defaults for everything that has one: relay on, no STUN, no trusted proxies, as many connections as there are
    /// descriptors for.
    pub fn new(listen: Vec<SocketAddr>, upstream: Option<PathBuf>) -> Self {
        let max_connections = descriptors::connections(upstream.is_some());
        Self {
            listen,
            listen_tls: Vec::new(),
            listen_metrics: Vec::new(),
            tls: Vec::new(),
            tls_13_only: false,
            upstream,
            derp: true,
            relay_key: None,
            mesh_key: None,
            mesh: Vec::new(),
            mesh_trust: MeshTrust::default(),
            rate_limit: None,
            require_announced: false,
            stun: Vec::new(),
            trusted_proxies: Vec::new(),
            max_connections,
            max_connections_per_source: (max_connections / 4).max(MIN_PER_SOURCE),
            body: BodyLimits::default(),
            head_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(3),
        }
    }
}

/// How large and how slow a request's body may be. What flows after an upgrade is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Most bytes; more are answered with 413.
    pub most: u64,
    /// Bytes that must come in each window, or the answer is 408. Time that the application lets the client wait does
    /// not count.
    pub share: u64,
    /// Time for the first share. A body that is smaller must have ended by then.
    pub first: Duration,
    /// Time for each further share.
    pub window: Duration,
}

impl Default for BodyLimits {
    /// 32 MiB, at 1 KiB/s on average over 20 s, after 30 s for the start.
    fn default() -> Self {
        Self {
            most: 32 * 1024 * 1024,
            share: 20 * 1024,
            first: Duration::from_secs(30),
            window: Duration::from_secs(20),
        }
    }
}

/// An IP network, written `10.0.0.0/8`; an address alone is the network of just that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the network holds an address. IPv4 addresses in IPv6 form count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = u32::from(ours) ^ u32::from(theirs);
                self.prefix == 0 || differing >> (32 - self.prefix) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = u128::from(ours) ^ u128::from(theirs);
                self.prefix == 0 || differing >> (128 - self.prefix) == 0
            }
            _ => false,
        }
    }
}

/// A text that is no IP network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP network; write for instance 10.0.0.0/8 or fd00::/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || NetworkError(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |prefix| prefix.parse().map_err(|_| error()))?;
        if prefix > most { Err(error()) } else { Ok(Self { address, prefix }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "fd00::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (network, address, holds) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), holds, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "a/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
