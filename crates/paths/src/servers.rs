//! The DERP map as path choice sees it: which regions have a relay, which STUN servers there are.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use wire::derpmap::{DerpMap, Family, Region, RelayNode};

use crate::config::{MAX_STUN_SERVERS, STUN_PER_REGION};
use crate::endpoints::canonical;

/// One STUN server of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) region: u16,
    pub(crate) place: Place,
    pub(crate) port: u16,
    /// Families its node allows.
    v4: bool,
    v6: bool,
}

/// How a server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Known(Vec<SocketAddr>),
    Name(String),
}

impl Server {
    /// Whether an address that its name resolved to may be used.
    pub(crate) fn allows(&self, addr: SocketAddr) -> bool {
        addr.port() == self.port && if addr.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Regions with at least one relay.
pub(crate) fn relay_regions(map: &DerpMap) -> BTreeSet<u16> {
    let has_relay = |region: &Region| region.nodes.iter().any(|node| !node.stun_only);
    map.regions.iter().filter(|(id, region)| **id != 0 && has_relay(region)).map(|(id, _)| *id).collect()
}

/// Regions that may be home: avoided ones only where there is no other.
pub(crate) fn home_regions(map: &DerpMap) -> BTreeSet<u16> {
    let measured = measured_regions(map);
    let avoided = |id: &u16| map.regions.get(id).is_some_and(|region| region.avoid);
    let good: BTreeSet<u16> = measured.iter().copied().filter(|id| !avoided(id)).collect();
    if good.is_empty() { measured } else { good }
}

/// Regions whose relays are measured.
pub(crate) fn measured_regions(map: &DerpMap) -> BTreeSet<u16> {
    let unmeasured = |id: &u16| map.regions.get(id).is_some_and(|region| region.no_measure_no_home);
    relay_regions(map).into_iter().filter(|id| !unmeasured(id)).collect()
}

/// The STUN servers to ask, bounded. Two per region do: the first answer tells the address, the second whether it differs
/// by destination. Of the embedded region every port is asked, because it may be the only one.
pub(crate) fn stun_servers(map: &DerpMap) -> Vec<Server> {
    let mut servers = Vec::new();
    for (&id, region) in map.regions.iter().filter(|(_, region)| !region.no_measure_no_home) {
        let limit = if region.embedded { MAX_STUN_SERVERS } else { STUN_PER_REGION };
        let mut of_region: Vec<Server> = Vec::new();
        for server in region.nodes.iter().filter_map(|node| server(id, node)) {
            if of_region.len() < limit && !of_region.contains(&server) {
                of_region.push(server);
            }
        }
        servers.append(&mut of_region);
    }
    servers.truncate(MAX_STUN_SERVERS);
    servers
}

fn server(region: u16, node: &RelayNode) -> Option<Server> {
    let port = node.stun()?;
    let (v4, v6) = (node.v4(), node.v6());
    let mut known: Vec<IpAddr> = Vec::new();
    if let Ok(test) = node.stun_test_ip.parse() {
        known.push(test);
    } else {
        known.extend(fixed(v4).map(IpAddr::V4).into_iter().chain(fixed(v6).map(IpAddr::V6)));
    }
    let (v4, v6) = (v4 != Family::Off, v6 != Family::Off);
    let place = if !known.is_empty() {
        Place::Known(known.into_iter().map(|ip| canonical(SocketAddr::new(ip, port))).collect())
    } else if v4 || v6 {
        Place::Name(node.host.clone())
    } else {
        return None;
    };
    Some(Server { region, place, port, v4, v6 })
}

fn fixed<T>(family: Family<T>) -> Option<T> {
    if let Family::Fixed(address) = family { Some(address) } else { None }
}
