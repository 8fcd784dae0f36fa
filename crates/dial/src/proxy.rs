//! A tunnel through an HTTP proxy (RFC 9110 section 9.3.6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socket2::Socket;

use crate::deadline::Deadline;
use crate::error::{Failure, Stage};
use crate::http::{Answer, bracketed, head};
use crate::target::ProxySettings;
use crate::transport::Transport;

/// Asks the proxy at the other end of `socket` for a tunnel, and returns the socket as that tunnel.
pub(crate) fn tunnel(
    socket: Socket,
    proxy: &ProxySettings,
    host: &str,
    port: u16,
    deadline: Deadline,
) -> Result<Socket, Failure> {
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
    let mut transport = Transport::Plain(socket);
    transport.write_all_by(&request, deadline).map_err(Failure::io(Stage::Proxy))?;
    let answer = Answer::read(&mut transport, Stage::Proxy, deadline)?.answer;
    match (answer.status, transport) {
        // In a relay's protocols the client speaks first: early bytes are not the relay's.
        (200, Transport::Plain(socket)) if answer.rest.is_empty() => Ok(socket),
        (200, _) => Err(Failure::BadAnswer("bytes came through the proxy too early")),
        (status, _) => Err(Failure::Proxy(status)),
    }
}
