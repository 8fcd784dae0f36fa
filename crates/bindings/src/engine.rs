//! The engine's handle.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::node::{Identity, NodeId, NodeSettings, PortUse, ProxyRules, ProxySettings, Request, TrustRoots};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use wire::derpmap::DerpMap;
use wire::keys::{DiscoPublic, NodePublic};

use crate::{events, facts};

/// One process's data plane.
#[pyclass(frozen)]
pub struct Engine {
    engine: Arc<::node::Engine>,
}

impl Engine {
    /// The engine itself, for who opens streams without Python.
    pub fn shared(&self) -> Arc<::node::Engine> {
        Arc::clone(&self.engine)
    }
}

/// A peer to be configured.
#[pyclass(frozen)]
pub struct Peer {
    peer: ::node::Peer,
}

#[pymethods]
impl Peer {
    #[new]
    #[pyo3(signature = (*, key, disco, home, endpoints, addresses, keepalive))]
    fn new(
        key: &str,
        disco: &str,
        home: u16,
        endpoints: Vec<String>,
        addresses: Vec<String>,
        keepalive: bool,
    ) -> PyResult<Self> {
        let key: NodePublic = parse(key, "node key")?;
        let disco: DiscoPublic = parse(disco, "disco key")?;
        // An endpoint a newer peer writes in a way we don't know is one we can't use; the others still serve.
        let endpoints: Vec<SocketAddr> = endpoints.iter().filter_map(|text| text.parse().ok()).collect();
        let addresses = addresses.iter().map(|text| parse(text, "address")).collect::<PyResult<_>>()?;
        Ok(Self { peer: ::node::Peer { key, disco, home, endpoints, addresses, keepalive } })
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { engine: Arc::new(::node::Engine::start().map_err(os_error)?) })
    }

    /// Readable while `events` has something.
    fn fileno(&self) -> i32 {
        self.engine.readable().as_raw_fd()
    }

    /// Takes everything that happened.
    fn events(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let events = py.detach(|| self.engine.events());
        events.into_iter().map(|(node, event)| events::to_python(py, node, event)).collect()
    }

    /// Makes a node; answers `(id, node key, disco key)`.
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python side")]
    #[pyo3(signature = (
        *, addresses, ports, default, listen_port, block_direct, force_websockets, headers, proxies, direct,
        ca_file=None, identity=None
    ))]
    fn add_node(
        &self,
        py: Python<'_>,
        addresses: Vec<String>,
        ports: BTreeMap<u16, String>,
        default: &str,
        listen_port: u16,
        block_direct: bool,
        force_websockets: bool,
        headers: Vec<(String, String)>,
        proxies: Vec<Proxy>,
        direct: Vec<String>,
        ca_file: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> PyResult<(NodeId, String, String)> {
        let settings = NodeSettings {
            addresses: addresses.iter().map(|text| parse(text, "address")).collect::<PyResult<_>>()?,
            ports: ports.iter().map(|(port, of)| Ok((*port, port_use(of)?))).collect::<PyResult<_>>()?,
            default: port_use(default)?,
            listen_port,
            block_direct,
            force_websockets,
            headers,
            proxies: proxy_rules(proxies, direct),
            roots: ca_file.map_or(TrustRoots::System, TrustRoots::SystemAnd),
            identity: identity.map(|(certificates, key)| Identity { certificates, key }),
        };
        let keys = py.detach(|| self.engine.add_node(settings)).map_err(os_error)?;
        Ok((keys.id, keys.node.to_text(), keys.disco.to_text()))
    }

    fn remove_node(&self, node: NodeId) {
        self.engine.remove_node(node);
    }

    /// Replaces the DERP map, given as its JSON.
    fn set_map(&self, node: NodeId, json: &str) -> PyResult<()> {
        let map: DerpMap =
            serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.engine.set_map(node, map);
        Ok(())
    }

    fn set_peers(&self, node: NodeId, peers: Vec<PyRef<'_, Peer>>) {
        self.engine.set_peers(node, peers.iter().map(|peer| peer.peer.clone()).collect());
    }

    fn set_block_direct(&self, node: NodeId, block: bool) {
        self.engine.set_block_direct(node, block);
    }

    fn set_force_websockets(&self, node: NodeId, force: bool) {
        self.engine.set_force_websockets(node, force);
    }

    /// Replaces the endpoints that routers granted.
    fn set_mapped(&self, node: NodeId, endpoints: Vec<String>) -> PyResult<()> {
        let endpoints =
            endpoints.iter().map(|text| parse(text, "socket address")).collect::<PyResult<_>>()?;
        self.engine.set_mapped(node, endpoints);
        Ok(())
    }

    /// Ports of the IPv4 and the IPv6 socket; 0 for none.
    fn udp_ports(&self, py: Python<'_>, node: NodeId) -> (u16, u16) {
        py.detach(|| self.engine.udp_ports(node)).unwrap_or_default()
    }

    /// What is known of the way to a peer, as JSON; none if there is no such peer.
    fn peer_paths(&self, py: Python<'_>, node: NodeId, peer: &str) -> PyResult<Option<String>> {
        let peer: NodePublic = parse(peer, "node key")?;
        let facts = py.detach(|| self.engine.peer_paths(node, peer));
        Ok(facts.map(|facts| facts::peer(&facts).to_string()))
    }

    /// Has the network checked now.
    fn check(&self, node: NodeId) -> u64 {
        self.engine.request(node, Request::Check)
    }

    fn ping(&self, node: NodeId, address: &str) -> PyResult<u64> {
        Ok(self.engine.request(node, Request::Ping(parse(address, "address")?)))
    }

    fn reach(&self, node: NodeId, address: &str) -> PyResult<u64> {
        Ok(self.engine.request(node, Request::Reach(parse(address, "address")?)))
    }

    fn echo(&self, node: NodeId, address: &str) -> PyResult<u64> {
        Ok(self.engine.request(node, Request::Echo(parse(address, "address")?)))
    }

    fn connect(&self, node: NodeId, address: &str, port: u16) -> PyResult<u64> {
        Ok(self.engine.request(node, Request::Connect(endpoint(address, port)?)))
    }

    /// Joins a local socket to a stream. Takes the descriptor over.
    fn splice(&self, node: NodeId, fd: i32, address: &str, port: u16) -> PyResult<u64> {
        if fd < 0 {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the caller gives the descriptor away (`socket.detach()`), so nobody else closes it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(self.engine.request(node, Request::Splice(endpoint(address, port)?, fd)))
    }

    /// Forwards what comes to a UDP socket. Takes the descriptor over.
    fn datagrams(&self, node: NodeId, fd: i32, address: &str, port: u16) -> PyResult<u64> {
        if fd < 0 {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the caller gives the descriptor away (`socket.detach()`), so nobody else closes it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(self.engine.request(node, Request::Datagrams(endpoint(address, port)?, fd)))
    }

    /// `(open, opened, lost, sent bytes, received bytes)` of such a request; none once it is over.
    fn datagram_counts(
        &self,
        py: Python<'_>,
        node: NodeId,
        request: u64,
    ) -> Option<(u64, u64, u64, u64, u64)> {
        let counts = py.detach(|| self.engine.datagram_counts(node, request))?;
        Some((counts.open, counts.opened, counts.lost, counts.sent, counts.received))
    }

    fn speedtest(
        &self,
        node: NodeId,
        address: &str,
        port: u16,
        seconds: f64,
        download: bool,
    ) -> PyResult<u64> {
        let duration =
            Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let direction = if download { speedtest::Direction::Down } else { speedtest::Direction::Up };
        let peer = endpoint(address, port)?;
        Ok(self.engine.request(node, Request::Speedtest { peer, duration, direction }))
    }

    fn cancel(&self, node: NodeId, request: u64) {
        self.engine.cancel(node, request);
    }

    /// `(received bytes, sent bytes, received packets, sent packets, refused, streams)`.
    fn stats(&self, py: Python<'_>, node: NodeId) -> Option<(u64, u64, u64, u64, u64, u64)> {
        let stats = py.detach(|| self.engine.stats(node))?;
        Some((
            stats.received_bytes,
            stats.sent_bytes,
            stats.received_packets,
            stats.sent_packets,
            stats.refused,
            stats.streams,
        ))
    }

    /// Seconds since the last handshake with a peer.
    fn last_handshake(&self, py: Python<'_>, node: NodeId, peer: &str) -> PyResult<Option<f64>> {
        let peer: NodePublic = parse(peer, "node key")?;
        Ok(py.detach(|| self.engine.last_handshake(node, peer)).map(|age| age.as_secs_f64()))
    }

    /// Ends the data thread and waits for it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}

/// A proxy as Python has it: for which scheme, its host and port, whether it speaks TLS, its user and password.
pub type Proxy = (String, String, u16, bool, Option<(String, String)>);

/// Which proxies lead where.
pub fn proxy_rules(proxies: Vec<Proxy>, bypass: Vec<String>) -> ProxyRules {
    let mut rules = ProxyRules { bypass, ..ProxyRules::default() };
    for (scheme, host, port, tls, credentials) in proxies {
        let proxy = Some(ProxySettings { host, port, tls, credentials });
        match scheme.as_str() {
            "https" => rules.https = proxy,
            "http" => rules.http = proxy,
            _ => {}
        }
    }
    rules
}

/// Reads a text argument; a `ValueError` says what it should have been.
pub fn parse<T: std::str::FromStr>(text: &str, what: &str) -> PyResult<T> {
    text.parse().map_err(|_| PyValueError::new_err(format!("not a {what}: {text:?}")))
}

fn endpoint(address: &str, port: u16) -> PyResult<SocketAddrV6> {
    let address: Ipv6Addr = parse(address, "address")?;
    Ok(SocketAddrV6::new(address, port, 0, 0))
}

fn port_use(text: &str) -> PyResult<PortUse> {
    match text {
        "python" => Ok(PortUse::Python),
        "speedtest" => Ok(PortUse::Speedtest),
        "splice" => Ok(PortUse::Splice),
        "refuse" => Ok(PortUse::Refuse),
        _ => Err(PyValueError::new_err(format!("not a use of a port: {text:?}"))),
    }
}

/// An `OSError` of the matching subclass, with the system's number where there is one.
pub fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyErr::from(error),
    }
}
