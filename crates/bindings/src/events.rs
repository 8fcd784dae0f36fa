//! What happened, as frozen Python objects. Times are seconds; descriptors belong to whoever takes the event.

use std::collections::BTreeMap;
use std::os::fd::IntoRawFd;

use node::{Answer, Event, Failure, NodeId};
use paths::Path;
use pyo3::prelude::*;
use speedtest::Row;

use crate::facts;

/// `(start, end, bytes)` of a span of a speed test.
type Interval = (f64, f64, u64);

/// The node's own facts changed.
#[pyclass(frozen, get_all)]
pub struct SelfChanged {
    node: NodeId,
    home: u16,
    latencies: BTreeMap<String, f64>,
    endpoints: Vec<String>,
}

/// A peer is reached another way; `endpoint` is set for a direct path, `region` for a relayed one.
#[pyclass(frozen, get_all)]
pub struct PathChanged {
    node: NodeId,
    peer: String,
    endpoint: Option<String>,
    region: Option<u16>,
}

/// A peer connected to a port that Python answers.
#[pyclass(frozen, get_all)]
pub struct Incoming {
    node: NodeId,
    port: u16,
    source: String,
    fd: i32,
}

/// A relay could not be reached or was lost.
#[pyclass(frozen, get_all)]
pub struct RelayProblem {
    node: NodeId,
    region: u16,
    text: String,
}

/// A region is reached over WebSocket, and why.
#[pyclass(frozen, get_all)]
pub struct ForcedWebsocket {
    node: NodeId,
    region: u16,
    reason: String,
}

/// The machine moved to another network, or slept.
#[pyclass(frozen, get_all)]
pub struct NetworkChanged {
    node: NodeId,
}

/// A check of the network ended; its report is JSON.
#[pyclass(frozen, get_all)]
pub struct Report {
    node: NodeId,
    json: String,
}

/// A request has its answer. `kind` says which fields are set.
#[pyclass(frozen, get_all)]
#[derive(Default)]
pub struct Done {
    node: NodeId,
    request: u64,
    kind: &'static str,
    latency: f64,
    endpoint: Option<String>,
    region: Option<u16>,
    fd: i32,
    intervals: Vec<Interval>,
    total: Interval,
    retransmits: u64,
    text: String,
}

/// A speed test finished an interval.
#[pyclass(frozen, get_all)]
pub struct Progress {
    node: NodeId,
    request: u64,
    interval: Interval,
}

/// The data thread ended by itself.
#[pyclass(frozen, get_all)]
pub struct Failed {
    text: String,
}

/// Makes the Python object of an event.
pub fn to_python(py: Python<'_>, node: NodeId, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::SelfChanged { home, latencies, endpoints } => {
            let endpoints = endpoints.iter().map(ToString::to_string).collect();
            Py::new(py, SelfChanged { node, home, latencies, endpoints })?.into_any()
        }
        Event::PathChanged { peer, path } => {
            let (endpoint, region) = path_fields(path);
            Py::new(py, PathChanged { node, peer: peer.to_text(), endpoint, region })?.into_any()
        }
        Event::Incoming { port, from, stream } => {
            let incoming = Incoming { node, port, source: from.ip().to_string(), fd: stream.into_raw_fd() };
            Py::new(py, incoming)?.into_any()
        }
        Event::RelayProblem { region, text } => Py::new(py, RelayProblem { node, region, text })?.into_any(),
        Event::ForcedWebsocket { region, reason } => {
            Py::new(py, ForcedWebsocket { node, region, reason })?.into_any()
        }
        Event::NetworkChanged => Py::new(py, NetworkChanged { node })?.into_any(),
        Event::Report(report) => {
            Py::new(py, Report { node, json: facts::report(&report).to_string() })?.into_any()
        }
        Event::Done { request, answer } => Py::new(py, done(node, request, answer))?.into_any(),
        Event::Progress { request, interval } => {
            Py::new(py, Progress { node, request, interval: span(&interval) })?.into_any()
        }
        Event::Failed { text } => Py::new(py, Failed { text })?.into_any(),
    })
}

fn done(node: NodeId, request: u64, answer: Answer) -> Done {
    let blank = Done { node, request, fd: -1, ..Done::default() };
    match answer {
        Answer::Pong { latency, path } => {
            let (endpoint, region) = path_fields(path);
            Done { kind: "pong", latency: latency.as_secs_f64(), endpoint, region, ..blank }
        }
        Answer::Reached(latency) => Done { kind: "reached", latency: latency.as_secs_f64(), ..blank },
        Answer::Checked => Done { kind: "checked", ..blank },
        Answer::Stream(fd) => Done { kind: "stream", fd: fd.into_raw_fd(), ..blank },
        Answer::Spliced => Done { kind: "spliced", ..blank },
        Answer::Speedtest { intervals, total, retransmits } => {
            let intervals = intervals.iter().map(span).collect();
            Done { kind: "speedtest", intervals, total: span(&total), retransmits, ..blank }
        }
        Answer::Failed(failure) => {
            let kind = match failure {
                Failure::NoPeer => "no_peer",
                Failure::Timeout => "timeout",
                Failure::Refused => "refused",
                Failure::Reset => "reset",
                Failure::Protocol(_) => "protocol",
                Failure::System(_) => "system",
                Failure::Closed => "closed",
            };
            Done { kind, text: failure.to_string(), ..blank }
        }
    }
}

fn path_fields(path: Path) -> (Option<String>, Option<u16>) {
    match path {
        Path::Direct(address) => (Some(address.to_string()), None),
        Path::Relay(region) => (None, Some(region)),
    }
}

fn span(row: &Row) -> Interval {
    (row.start.as_secs_f64(), row.end.as_secs_f64(), row.bytes)
}
