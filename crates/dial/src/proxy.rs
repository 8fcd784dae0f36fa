//! A tunnel through an HTTP proxy (RFC 9110 section 9.3.6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wire::derpmap::RelayNode;

use crate::deadline::Deadline;
use crate::error::{Failure, Stage};
use crate::http::{Answer, bracketed, head};
use crate::target::{ProxySettings, Target};
use crate::tls;
use crate::transport::Transport;

/// Speaks TLS with a proxy that wants it, by the rules for relays: whom to trust, and who we are.
pub(crate) fn secured(
    below: Transport,
    proxy: &ProxySettings,
    target: &Target,
    deadline: Deadline,
) -> Result<Transport, Failure> {
    if !proxy.tls {
        return Ok(below);
    }
    let itself = RelayNode { host: proxy.host.clone(), ..RelayNode::default() };
    tls::open(below, &itself, target, false, deadline).map_err(|failure| match failure {
        Failure::Tls(reason) => Failure::Tls(format!("with the proxy: {reason}")),
        Failure::TimedOut(_) => Failure::TimedOut(Stage::Proxy),
        Failure::Lost { source, .. } => Failure::Lost { stage: Stage::Proxy, source },
        other => other,
    })
}

/// Asks the proxy at the other end of `transport` for a tunnel, and returns the transport as that tunnel.
pub(crate) fn tunnel(
    mut transport: Transport,
    proxy: &ProxySettings,
    host: &str,
    port: u16,
    deadline: Deadline,
) -> Result<Transport, Failure> {
    let to = format!("{}:{port}", bracketed(host));
    let mut lines = vec![("Host", to.as_str())];
    let authorization = proxy
        .credentials
        .as_ref()
        .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    if let Some(authorization) = &authorization {
        lines.push(("Proxy-Authorization", authorization));
    }
    let request = head(&format!("CONNECT {to} HTTP/1.1"), &lines)?;
    transport.write_all_by(&request, deadline).map_err(Failure::io(Stage::Proxy))?;
    let answer = Answer::read(&mut transport, Stage::Proxy, deadline)?.answer;
    match answer.status {
        // In a relay's protocols the client speaks first: early bytes are not the relay's.
        200 if answer.rest.is_empty() => Ok(transport),
        200 => Err(Failure::BadAnswer("bytes came through the proxy too early")),
        status => Err(Failure::Proxy(status)),
    }
}
