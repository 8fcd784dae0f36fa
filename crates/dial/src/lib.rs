//! Shell: reaches a relay over TCP, TLS, HTTP upgrade or WebSocket.
//!
//! [`relay`] turns a region's definition into a connected byte stream, on which the DERP greeting comes next;
//! [`latency`] measures how far away the region is. Both block until their deadline at most, so they run on a thread
//! of their own; the [`Stream`] that comes out never blocks. Which region to dial and when is for others to decide.
#![deny(unsafe_code)]

mod connect;
mod deadline;
mod error;
mod http;
mod proxy;
mod sending;
mod stream;
mod target;
mod tls;
mod transport;
mod websocket;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::derpmap::RelayNode;
use wire::keys::NodePublic;

pub use deadline::Deadline;
pub use error::{DialError, Failure, Stage};
pub use sending::{fill_long_paths, keep_short_paths_short};
pub use stream::Stream;
pub use target::{Identity, ProxyRules, ProxySettings, Target, TrustRoots};

use connect::Destination;
use http::{Answer, Received};
use transport::Transport;

/// How long one node may take to accept a TCP connection, lookup included.
const NODE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where plain HTTP is served.
const HTTP_PORT: u16 = 80;

/// A connection to a relay.
#[derive(Debug)]
pub struct Connected {
    /// Carries DERP frames.
    pub stream: Stream,
    /// The first bytes the relay sent, to be read before the stream's.
    pub leftover: Vec<u8>,
    /// The relay's key, where its certificate told it and [`Target::fast_start`] was asked for: the relay waits for the
    /// login, and its greeting comes when it comes.
    pub server_key: Option<NodePublic>,
    /// Why WebSocket was used although nobody asked for it. Worth remembering: the next attempt had better
    /// force it.
    pub websocket: Option<String>,
    /// The address that was connected to; a proxy's if there is one.
    pub peer: SocketAddr,
}

/// A measured region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// From a written request to the first byte of its answer.
    pub latency: Duration,
    /// The address that was connected to; a proxy's if there is one.
    pub peer: SocketAddr,
}

/// Connects to the first node of a region that can be reached, in the map's order.
///
/// # Errors
/// Those of the last node that was tried.
pub fn relay(target: &Target, deadline: Deadline) -> Result<Connected, DialError> {
    first_of(target, deadline, |node| node.relay())
}

/// Measures a region by HTTP: from a written request to the first byte of its answer, over a new connection to the
/// first node that can be reached.
///
/// # Errors
/// Those of the last node that was tried; a status above 299 is one.
pub fn latency(target: &Target, deadline: Deadline) -> Result<Measured, DialError> {
    first_of(target, deadline, |node| node.latency())
}

/// Whether something in between answers in a region's place, as portals do until one has signed in; `None` if no node
/// speaks plain HTTP or none answered. A relay answers `/generate_204` with a proof that it read the question.
pub fn captive_portal(target: &Target, deadline: Deadline) -> Option<bool> {
    for (node, port) in target.nodes().ok()? {
        let port = match node {
            RelayNode { force_http: true, .. } => port,
            RelayNode { can_port_80: true, .. } => HTTP_PORT,
            _ => continue,
        };
        let plain = RelayNode { force_http: true, ..node.clone() };
        let attempt = Attempt { target, node: &plain, port, deadline };
        if let Ok(portal) = attempt.captive_portal() {
            return Some(portal);
        }
    }
    None
}

fn first_of<T>(
    target: &Target,
    deadline: Deadline,
    reach: impl Fn(&Attempt<'_>) -> Result<T, Failure>,
) -> Result<T, DialError> {
    let mut last = target.error(None, Failure::TimedOut(Stage::Tcp));
    for (node, port) in target.nodes()? {
        match reach(&Attempt { target, node, port, deadline }) {
            Ok(reached) => return Ok(reached),
            Err(failure) => last = target.error(Some(node), failure),
        }
        if deadline.passed() {
            break;
        }
    }
    Err(last)
}

/// One node, about to be reached.
struct Attempt<'a> {
    target: &'a Target,
    node: &'a RelayNode,
    port: u16,
    deadline: Deadline,
}

impl Attempt<'_> {
    fn relay(&self) -> Result<Connected, Failure> {
        if self.target.force_websocket {
            return self.websocket(None);
        }
        let reason = match self.upgrade() {
            Err(Failure::Status { status, body }) if (400..500).contains(&status) => format!(
                "GET failed with status code {status} (a proxy could be disallowing the use of 'Upgrade: derp'): {body}"
            ),
            Err(Failure::WantsHttp2) => {
                "The server wanted us to use HTTP/2, but DERP requires Upgrade which needs HTTP/1.1"
                    .to_owned()
            }
            outcome => return outcome,
        };
        self.websocket(Some(reason))
    }

    /// DERP right behind the HTTP answer.
    fn upgrade(&self) -> Result<Connected, Failure> {
        let mut own = vec![("Connection", "Upgrade"), ("Upgrade", "DERP")];
        let first = self.target.region.nodes.first().map_or("", |first| &first.name);
        if first != self.node.name {
            own.push(("Ideal-Node", first));
        }
        let mut request = self.get("/derp", &own)?;
        let (mut transport, peer) = self.connect(true)?;
        // Without TLS of its own, certificates would be a proxy's.
        let told = self.target.fast_start && !self.node.force_http;
        let server_key = if told { transport.relay_key() } else { None };
        if server_key.is_some() {
            own.push(("Derp-Fast-Start", "1"));
            request = self.get("/derp", &own)?;
        }
        let leftover = if server_key.is_some() {
            transport.write_all_by(&request, self.deadline).map_err(Failure::io(Stage::Http))?;
            Vec::new()
        } else {
            self.ask(&mut transport, &request)?.rest
        };
        Ok(Connected { stream: Stream::direct(transport), leftover, server_key, websocket: None, peer })
    }

    /// DERP inside WebSocket messages. No ALPN is offered: a server that would pick HTTP/2 then has no choice.
    fn websocket(&self, reason: Option<String>) -> Result<Connected, Failure> {
        let key = websocket::new_key().map_err(Failure::io(Stage::Http))?;
        let own = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", &key),
            ("Sec-WebSocket-Protocol", websocket::SUBPROTOCOL),
        ];
        let request = self.get("/derp", &own)?;
        let (mut transport, peer) = self.connect(false)?;
        let answer = self.ask(&mut transport, &request)?;
        websocket::check_answer(&answer, &key)?;
        let stream = Stream::websocket(transport, &answer.rest);
        Ok(Connected { stream, leftover: Vec::new(), server_key: None, websocket: reason, peer })
    }

    fn latency(&self) -> Result<Measured, Failure> {
        let request = self.get("/derp/latency-check", &[("Connection", "close")])?;
        let (mut transport, peer) = self.connect(true)?;
        transport.write_all_by(&request, self.deadline).map_err(Failure::io(Stage::Http))?;
        let written = Instant::now();
        let Received { answer, begun } = Answer::read(&mut transport, Stage::Http, self.deadline)?;
        if answer.status > 299 {
            return Err(answer.refusal(&mut transport, self.deadline));
        }
        Ok(Measured { latency: begun - written, peer })
    }

    fn captive_portal(&self) -> Result<bool, Failure> {
        let challenge = format!("ts_{}", self.node.host);
        let own = [("X-Tailscale-Challenge", challenge.as_str()), ("Connection", "close")];
        // Without the configured headers: they may hold secrets, and whoever answers is not known.
        let request =
            http::get("/generate_204", &http::authority(&self.node.host, self.port, false), &own, &[])?;
        let (mut transport, _) = self.connect(true)?;
        transport.write_all_by(&request, self.deadline).map_err(Failure::io(Stage::Http))?;
        let answer = Answer::read(&mut transport, Stage::Http, self.deadline)?.answer;
        let proved = answer.header("x-tailscale-response") == Some(&format!("response {challenge}"));
        Ok(answer.status != 204 || !proved)
    }

    fn get(&self, path: &str, own: &[(&str, &str)]) -> Result<Vec<u8>, Failure> {
        let authority = http::authority(&self.node.host, self.port, !self.node.force_http);
        http::get(path, &authority, own, &self.target.headers)
    }

    /// TCP, the proxy's tunnel if there is one, and TLS.
    fn connect(&self, alpn: bool) -> Result<(Transport, SocketAddr), Failure> {
        let proxy = self.target.proxies.proxy(&self.node.host, self.port, !self.node.force_http);
        let to = match proxy {
            Some(proxy) => Destination::host(&proxy.host, proxy.port),
            None => Destination::node(self.node, self.port),
        };
        let limit = self.deadline.within(NODE_TIMEOUT);
        let (socket, peer) = connect::connect(&to, self.target.prefer_v6, limit)?;
        let mut transport = Transport::Plain(socket);
        if let Some(proxy) = proxy {
            transport = proxy::secured(transport, proxy, self.target, self.deadline)?;
            transport = proxy::tunnel(transport, proxy, &self.node.host, self.port, self.deadline)?;
        }
        if !self.node.force_http {
            transport = tls::open(transport, self.node, self.target, alpn, self.deadline)?;
        }
        Ok((transport, peer))
    }

    /// Sends an upgrade request. Any answer but 101 is a failure.
    fn ask(&self, transport: &mut Transport, request: &[u8]) -> Result<Answer, Failure> {
        transport.write_all_by(request, self.deadline).map_err(Failure::io(Stage::Http))?;
        let answer = Answer::read(transport, Stage::Http, self.deadline)?.answer;
        if answer.status == 101 { Ok(answer) } else { Err(answer.refusal(transport, self.deadline)) }
    }
}
