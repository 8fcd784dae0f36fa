//! The edge's handle.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::edge::{AppSettings, Config, Dial, DialError, DialReply, EdgeError, MeshTrust, TlsFiles};
use ::node::{Answer, Failure, Identity, NodeId, Request};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use relay::server::RateLimit;
use wire::keys::NodePublic;

use crate::engine::{Engine, Proxy, parse, proxy_rules};

/// The HTTP front.
#[pyclass(frozen)]
pub struct Edge {
    addresses: Vec<String>,
    metrics_addresses: Vec<String>,
    stun_addresses: Vec<String>,
    relay_key: String,
    edge: Mutex<Option<Arc<::edge::Edge>>>,
}

#[pymethods]
impl Edge {
    #[new]
    #[pyo3(signature = (
        *, listen, listen_tls, listen_metrics, certificates, upstream, derp, stun, trusted_proxies, mesh_key,
        mesh, mesh_roots, mesh_name, rate_limit, require_announced, tls_13_only, proxies, direct, ca_file, identity
    ))]
    // One argument for each setting; the other side has them as fields.
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        listen: Vec<String>,
        listen_tls: Vec<String>,
        listen_metrics: Vec<String>,
        certificates: Vec<(PathBuf, PathBuf)>,
        upstream: Option<PathBuf>,
        derp: bool,
        stun: Vec<String>,
        trusted_proxies: Vec<String>,
        mesh_key: Option<String>,
        mesh: Vec<String>,
        mesh_roots: Option<Vec<u8>>,
        mesh_name: Option<String>,
        rate_limit: Option<(u64, u64)>,
        require_announced: bool,
        tls_13_only: bool,
        proxies: Vec<Proxy>,
        direct: Vec<String>,
        ca_file: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> PyResult<Self> {
        let mut config = Config::new(all(&listen, "address and port")?, upstream);
        config.listen_tls = all(&listen_tls, "address and port")?;
        config.listen_metrics = all(&listen_metrics, "address and port")?;
        config.tls =
            certificates.into_iter().map(|(certificates, key)| TlsFiles { certificates, key }).collect();
        config.tls_13_only = tls_13_only;
        config.derp = derp;
        config.stun = all(&stun, "address and port")?;
        config.trusted_proxies = all(&trusted_proxies, "network")?;
        if let Some(text) = mesh_key {
            let key = relay::MeshKey::new(text).ok_or_else(|| PyValueError::new_err("not a mesh key"))?;
            config.mesh_key = Some(key);
        }
        config.mesh = all(&mesh, "relay's URL")?;
        config.mesh_trust = MeshTrust {
            roots: mesh_roots,
            name: mesh_name,
            ca_file,
            identity: identity.map(|(certificates, key)| Identity { certificates, key }),
            proxies: proxy_rules(proxies, direct),
        };
        config.rate_limit = rate_limit.map(|(per_second, burst)| RateLimit { per_second, burst });
        config.require_announced = require_announced;
        let edge = py.detach(|| ::edge::Edge::start(config)).map_err(failed)?;
        let texts = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        Ok(Self {
            addresses: texts(edge.addresses()),
            metrics_addresses: texts(edge.metrics_addresses()),
            stun_addresses: texts(edge.stun_addresses()),
            relay_key: edge.relay_public_key().to_text(),
            edge: Mutex::new(Some(Arc::new(edge))),
        })
    }

    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    #[getter]
    fn metrics_addresses(&self) -> Vec<String> {
        self.metrics_addresses.clone()
    }

    #[getter]
    fn stun_addresses(&self) -> Vec<String> {
        self.stun_addresses.clone()
    }

    /// The key that relay clients see.
    #[getter]
    fn relay_key(&self) -> String {
        self.relay_key.clone()
    }

    /// Why changed files of a certificate are not in use.
    #[getter]
    fn certificate_problem(&self) -> Option<String> {
        self.get()?.certificate_problem()
    }

    /// Why links to other relays are not there, by their URLs.
    fn mesh_problems(&self) -> BTreeMap<String, String> {
        self.get().map(|edge| edge.mesh_problems()).unwrap_or_default()
    }

    /// What it has done so far; empty once it is closed.
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.get().map(|edge| edge.counters().named().into_iter().collect()).unwrap_or_default()
    }

    /// Keeps links to exactly these relays of the region.
    fn set_mesh(&self, urls: Vec<String>) -> PyResult<()> {
        let peers: Vec<::edge::MeshPeer> = all(&urls, "relay's URL")?;
        if let Some(edge) = self.get() {
            edge.set_mesh(peers);
        }
        Ok(())
    }

    /// Serves apps of workspaces.
    #[pyo3(signature = (*, wildcard, dashboard, secret, keys))]
    fn set_apps(&self, wildcard: String, dashboard: String, secret: String, keys: BTreeMap<String, Vec<u8>>) {
        if let Some(edge) = self.get() {
            edge.set_apps(AppSettings { wildcard, dashboard, secret, keys });
        }
    }

    /// Reaches workspaces through the tunnels of this node; without one, no more.
    #[pyo3(signature = (engine, node))]
    fn set_dial(&self, engine: Option<PyRef<'_, Engine>>, node: NodeId) {
        let dial = engine.map(|engine| Arc::new(Tunnels { engine: engine.shared(), node }) as Arc<dyn Dial>);
        if let Some(edge) = self.get() {
            edge.set_dial(dial);
        }
    }

    /// These clients are known.
    fn announce(&self, keys: Vec<String>) -> PyResult<()> {
        let keys: Vec<NodePublic> = all(&keys, "node key")?;
        if let Some(edge) = self.get() {
            edge.announce(keys);
        }
        Ok(())
    }

    /// These clients are known no more.
    fn withdraw(&self, keys: Vec<String>) -> PyResult<()> {
        let keys: Vec<NodePublic> = all(&keys, "node key")?;
        if let Some(edge) = self.get() {
            edge.withdraw(keys);
        }
        Ok(())
    }

    /// Clients must be announced, or need not be.
    fn require_announced(&self, required: bool) {
        if let Some(edge) = self.get() {
            edge.require_announced(required);
        }
    }

    /// Waits for somebody whose key is not announced: key and address, or nothing after `seconds`.
    fn next_unannounced(&self, py: Python<'_>, seconds: f64) -> Option<(String, String)> {
        let edge = self.get()?;
        let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let found = py.detach(move || edge.next_unannounced(patience))?;
        Some((found.key.to_text(), found.remote.to_string()))
    }

    /// Tells relay clients of a problem; an empty text ends it.
    fn set_health(&self, problem: &str) {
        if let Some(edge) = self.get() {
            edge.set_health(problem);
        }
    }

    /// Stops and waits for its threads.
    fn close(&self, py: Python<'_>) {
        let edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A call that still waits for something holds on to it; then that call's end stops it.
        py.detach(move || drop(edge));
    }
}

impl Edge {
    fn get(&self) -> Option<Arc<::edge::Edge>> {
        self.edge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The tunnels of a node, as the edge uses them.
struct Tunnels {
    engine: Arc<::node::Engine>,
    node: NodeId,
}

impl Dial for Tunnels {
    fn open(&self, to: SocketAddrV6, reply: DialReply) -> u64 {
        let answered = move |answer| match answer {
            Answer::Stream(stream) => reply(Ok(stream)),
            Answer::Failed(failure) => reply(Err(dial_error(failure))),
            other => reply(Err(DialError::Other(format!("{other:?}")))),
        };
        self.engine.request_from(self.node, Request::Connect(to), Box::new(answered))
    }

    fn cancel(&self, name: u64) {
        self.engine.cancel(self.node, name);
    }
}

fn dial_error(failure: Failure) -> DialError {
    match failure {
        Failure::NoPeer | Failure::Closed => DialError::NoTunnel,
        Failure::Timeout => DialError::Timeout,
        Failure::Refused | Failure::Reset => DialError::Refused,
        Failure::Protocol(text) | Failure::System(text) => DialError::Other(text),
    }
}

/// A certificate that vouches for itself, and its key, as PEM texts.
#[pyfunction]
pub fn self_signed(names: Vec<String>) -> PyResult<(String, String)> {
    ::edge::self_signed(names).map_err(failed)
}

/// What makes clients trust exactly the first certificate of a PEM text.
#[pyfunction]
pub fn certificate_pin(pem: &[u8]) -> PyResult<String> {
    ::edge::pin(pem).map_err(failed)
}

fn failed(error: EdgeError) -> PyErr {
    PyOSError::new_err(error.to_string())
}

fn all<T: std::str::FromStr>(texts: &[String], what: &str) -> PyResult<Vec<T>> {
    texts.iter().map(|text| parse(text, what)).collect()
}
