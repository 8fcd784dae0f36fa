//! What can go wrong when an edge starts.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an edge did not start. Each text is one line that names the address and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listening address cannot be used.
    #[error("cannot listen on {address} ({protocol}): {}", remedy(.source))]
    Bind {
        /// Which one.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or its key cannot be used.
    #[error("cannot use {} for TLS: {reason}", path.display())]
    Tls {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate can be made for a name, or none was found.
    #[error("cannot make or read the certificate: {0}")]
    Name(String),
    /// No thread, poller or event loop could be made.
    #[error("cannot start the edge: {0}; raise the limits on open files and threads")]
    Start(#[from] io::Error),
}

fn remedy(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that uses it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "choose a port above 1023, or grant the program CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine, or 0.0.0.0 for all",
        _ => return format!("{error}; choose another address"),
    };
    format!("{error}; {remedy}")
}
