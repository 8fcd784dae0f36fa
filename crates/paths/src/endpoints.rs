//! Where we can be reached, and which addresses a peer may name.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use crate::config::{EXTERNAL_KEPT, Local, MAX_ENDPOINTS, MAX_EXTERNAL, MAX_MAPPED};

/// Our own endpoints.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    local: Local,
    /// The port was chosen by the user, who may have forwarded it on a router.
    fixed_port: bool,
    global_v4: Option<SocketAddr>,
    global_v6: Option<SocketAddr>,
    mapping_varies: bool,
    /// Granted by a router on request; known to whoever asked it.
    mapped: Vec<SocketAddr>,
    /// Addresses STUN servers saw, with the time of the last sight; newest last.
    external: VecDeque<(SocketAddr, Instant)>,
}

impl Endpoints {
    /// Returns whether anything changed.
    pub(crate) fn set_local(&mut self, mut local: Local) -> bool {
        local.addresses.sort_unstable();
        local.addresses.dedup();
        let changed = self.local != local;
        self.local = local;
        changed
    }

    /// Our outside address, as the first IPv4 STUN server saw it.
    pub(crate) fn global_v4(&self) -> Option<SocketAddr> {
        self.global_v4
    }

    /// Whether our NAT gives every destination another port.
    pub(crate) fn is_hard(&self) -> bool {
        self.mapping_varies
    }

    pub(crate) fn set_fixed_port(&mut self, fixed: bool) {
        self.fixed_port = fixed;
    }

    pub(crate) fn set_mapped(&mut self, mapped: &[SocketAddr]) {
        self.mapped = mapped.iter().copied().map(canonical).filter(acceptable).take(MAX_MAPPED).collect();
    }

    pub(crate) fn local(&self) -> &Local {
        &self.local
    }

    /// Whether there is a socket for the family of `to`.
    pub(crate) fn can_send(&self, to: SocketAddr) -> bool {
        if to.is_ipv4() { self.local.port_v4.is_some() } else { self.local.port_v6.is_some() }
    }

    /// A STUN server saw us at `addr`.
    pub(crate) fn seen(&mut self, now: Instant, addr: SocketAddr) {
        self.external.retain(|(known, _)| *known != addr);
        self.external.push_back((addr, now));
        if self.external.len() > MAX_EXTERNAL {
            self.external.pop_front();
        }
    }

    /// What the present check knows so far; the result of the last one stays until a new one has its own.
    pub(crate) fn set_global(
        &mut self,
        v4: Option<SocketAddr>,
        v6: Option<SocketAddr>,
        varies: Option<bool>,
    ) {
        self.global_v4 = v4.or(self.global_v4);
        self.global_v6 = v6.or(self.global_v6);
        self.mapping_varies = varies.unwrap_or(self.mapping_varies);
    }

    /// The network is another one: what others saw no longer holds.
    pub(crate) fn forget_external(&mut self) {
        self.external.clear();
        self.global_v4 = None;
        self.global_v6 = None;
        self.mapping_varies = false;
    }

    /// Everything we advertise, in order, each once.
    pub(crate) fn list(&self, now: Instant) -> Vec<SocketAddr> {
        let fresh =
            |addr: &SocketAddr| self.external.iter().any(|(a, at)| a == addr && now < *at + EXTERNAL_KEPT);
        let mut list = Vec::new();
        list.extend(&self.mapped);
        list.extend(self.global_v4);
        if self.mapping_varies && self.fixed_port {
            let forwarded = self.global_v4.zip(self.local.port_v4);
            list.extend(forwarded.map(|(global, port)| SocketAddr::new(global.ip(), port)));
        }
        list.extend(self.global_v6);
        list.extend(self.external.iter().rev().map(|(addr, _)| *addr).filter(fresh));
        list.extend(self.interfaces());
        let mut unique = Vec::with_capacity(list.len());
        for addr in list {
            if !unique.contains(&addr) && unique.len() < MAX_ENDPOINTS && self.can_send(addr) {
                unique.push(addr);
            }
        }
        unique
    }

    /// When the list next loses an address by time alone.
    pub(crate) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        self.external.iter().map(|(_, at)| *at + EXTERNAL_KEPT).filter(|at| *at > now).min()
    }

    fn interfaces(&self) -> Vec<SocketAddr> {
        let pick = |wanted: fn(&IpAddr) -> bool| -> Vec<SocketAddr> {
            let addresses = self.local.addresses.iter().filter(|ip| wanted(ip) && !is_tailnet(ip));
            addresses
                .filter_map(|ip| Some(SocketAddr::new(*ip, self.port_for(ip)?)))
                .take(MAX_ENDPOINTS)
                .collect()
        };
        let mut found = pick(is_ordinary);
        if found.is_empty() {
            found = pick(is_last_resort);
        }
        if found.is_empty() {
            found = pick(IpAddr::is_loopback);
        }
        found
    }

    fn port_for(&self, ip: &IpAddr) -> Option<u16> {
        if ip.is_ipv4() { self.local.port_v4 } else { self.local.port_v6 }
    }
}

/// An address as it is compared and stored: IPv4 never v4-mapped, no flow label or scope.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether a peer may name this address for itself. Refused: what no single host can have, what is only meaningful on
/// its own link, our own overlay, and the pseudo-address that stands for relays.
pub(crate) fn acceptable(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let usable = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && v4.octets()[0] != 0 && v4 != RELAY_PSEUDO_ADDRESS,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    usable && addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_tailnet(&ip)
}

/// Stands for "through the relay of region *port*" wherever a protocol wants a socket address.
pub(crate) const RELAY_PSEUDO_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

/// The overlay's own range, `fd60:627a:a42b::/48`: a path inside a tunnel is no path.
fn is_tailnet(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[..3] == [0xfd60, 0x627a, 0xa42b])
}

fn is_ordinary(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && is_host_v4(*v4),
        IpAddr::V6(v6) => !v6.is_unique_local() && is_host_v6(*v6),
    }
}

fn is_last_resort(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

fn is_host_v4(ip: Ipv4Addr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

fn is_host_v6(ip: Ipv6Addr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
}
