//! The edge's handle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ::edge::{Config, Counters};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::engine::parse;

/// The HTTP front.
#[pyclass(frozen)]
pub struct Edge {
    addresses: Vec<String>,
    stun_addresses: Vec<String>,
    edge: Mutex<Option<::edge::Edge>>,
}

#[pymethods]
impl Edge {
    #[new]
    #[pyo3(signature = (*, listen, upstream, derp, stun, trusted_proxies, mesh_key))]
    fn new(
        py: Python<'_>,
        listen: Vec<String>,
        upstream: PathBuf,
        derp: bool,
        stun: Vec<String>,
        trusted_proxies: Vec<String>,
        mesh_key: Option<String>,
    ) -> PyResult<Self> {
        let sockets = |texts: &[String]| -> PyResult<Vec<SocketAddr>> {
            texts.iter().map(|text| parse(text, "address and port")).collect()
        };
        let mut config = Config::new(sockets(&listen)?, upstream);
        config.derp = derp;
        config.stun = sockets(&stun)?;
        config.trusted_proxies =
            trusted_proxies.iter().map(|text| parse(text, "network")).collect::<PyResult<_>>()?;
        if let Some(text) = mesh_key {
            let key = relay::MeshKey::new(text).ok_or_else(|| PyValueError::new_err("not a mesh key"))?;
            config.mesh_key = Some(key);
        }
        let edge = py
            .detach(|| ::edge::Edge::start(config))
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let texts = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        Ok(Self {
            addresses: texts(edge.addresses()),
            stun_addresses: texts(edge.stun_addresses()),
            edge: Mutex::new(Some(edge)),
        })
    }

    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    #[getter]
    fn stun_addresses(&self) -> Vec<String> {
        self.stun_addresses.clone()
    }

    /// What it has done so far; empty once it is closed.
    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner);
        edge.as_ref().map(|edge| named(&edge.counters())).unwrap_or_default()
    }

    /// Stops and waits for its threads.
    fn close(&self, py: Python<'_>) {
        let edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(edge) = edge {
            py.detach(|| edge.stop());
        }
    }
}

fn named(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let relay = &counters.relay;
    BTreeMap::from([
        ("connections", counters.connections),
        ("accepted", counters.accepted),
        ("refused", counters.refused),
        ("requests", counters.requests),
        ("malformed", counters.malformed),
        ("upstream_errors", counters.upstream_errors),
        ("upgraded", counters.upgraded),
        ("stun_answered", counters.stun_answered),
        ("stun_dropped", counters.stun_dropped),
        ("relay_clients", relay.clients),
        ("relay_logins", relay.logins),
        ("relay_packets", relay.packets),
        ("relay_bytes", relay.bytes),
        ("relay_dropped_unknown", relay.dropped.unknown),
        ("relay_dropped_queue_full", relay.dropped.queue_full),
        ("relay_dropped_gone", relay.dropped.gone),
        ("relay_refused", relay.refused),
        ("relay_malformed", relay.malformed),
        ("relay_stalled", relay.stalled),
        ("relay_pauses", relay.pauses),
        ("relay_cpu_microseconds", counters.relay_cpu.as_micros() as u64),
    ])
}
