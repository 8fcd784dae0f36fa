//! Why a relay was not reached.

use std::fmt;
use std::io;

/// The step at which an attempt stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the host's addresses.
    Dns,
    /// Connecting to one of them.
    Tcp,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The upgrade request and its answer.
    Http,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "name lookup",
            Self::Tcp => "TCP connect",
            Self::Proxy => "proxy",
            Self::Tls => "TLS handshake",
            Self::Http => "HTTP upgrade",
        })
    }
}

/// What went wrong with one node, or with all of a region.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The region has no node.
    #[error("no nodes for this region")]
    NoNodes,
    /// The region's nodes only answer STUN.
    #[error("no non-STUNOnly nodes for this region")]
    OnlyStun,
    /// The node's address fields switch both address families off.
    #[error("both IPv4 and IPv6 are disabled for this node")]
    NoFamily,
    /// A header to be sent cannot be written in HTTP. Names the header, never its value.
    #[error("header {0:?} has a name or value that HTTP does not allow")]
    Header(String),
    /// The trusted certificates, or the certificate name of the map, are unusable.
    #[error("cannot verify any certificate: {0}")]
    Trust(String),
    /// The file of further authorities, or of the client certificate, is unusable.
    #[error("cannot use the TLS file {0}")]
    Files(String),
    /// The deadline passed.
    #[error("no answer in time ({0})")]
    TimedOut(Stage),
    /// The host has no address, or the lookup failed.
    #[error("cannot look up {host}: {reason}")]
    Dns {
        /// The name that was looked up.
        host: String,
        /// The resolver's text.
        reason: String,
    },
    /// No address accepted a connection; this is the last one's error.
    #[error("cannot connect: {0}")]
    Tcp(#[source] io::Error),
    /// The handshake failed: an untrusted or misnamed certificate, or no TLS at the other end.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// The connection broke at this stage.
    #[error("connection lost ({stage}): {source}")]
    Lost {
        /// When.
        stage: Stage,
        /// How.
        source: io::Error,
    },
    /// The proxy refused to open a tunnel.
    #[error("the proxy answered status {0}")]
    Proxy(u16),
    /// Any answer but the one that was needed.
    #[error("status {status}: {body}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, one line, at most 200 bytes.
        body: String,
    },
    /// The answer was HTTP/2, which cannot be upgraded.
    #[error("the server insists on HTTP/2")]
    WantsHttp2,
    /// The answer was not HTTP, too long, or lacked what the upgrade needs.
    #[error("bad answer: {0}")]
    BadAnswer(&'static str),
}

impl Failure {
    /// The step at which the attempt stopped; `None` if it never began.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::NoNodes
            | Self::OnlyStun
            | Self::NoFamily
            | Self::Header(_)
            | Self::Trust(_)
            | Self::Files(_) => None,
            Self::TimedOut(stage) | Self::Lost { stage, .. } => Some(*stage),
            Self::Dns { .. } => Some(Stage::Dns),
            Self::Tcp(_) => Some(Stage::Tcp),
            Self::Proxy(_) => Some(Stage::Proxy),
            Self::Tls(_) => Some(Stage::Tls),
            Self::Status { .. } | Self::WantsHttp2 | Self::BadAnswer(_) => Some(Stage::Http),
        }
    }

    /// An I/O error of `stage`, with the deadline told apart.
    pub(crate) fn io(stage: Stage) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut(stage),
            _ if wants_certificate(&source) => Self::Tls(NO_IDENTITY.to_owned()),
            _ => Self::Lost { stage, source },
        }
    }
}

/// What is said where the server refuses us for our certificate, or for having none. In TLS 1.3 it does so after the
/// handshake.
const NO_IDENTITY: &str = "the relay lets nobody in without a certificate it trusts; --client-tls-cert-file and \
                           --client-tls-key-file name ours";

fn wants_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription::{BadCertificate, CertificateRequired, UnknownCA};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(CertificateRequired | BadCertificate | UnknownCA)))
}

/// A region could not be reached. Prints as one line.
#[derive(Debug, thiserror::Error)]
#[error("relay region {region} ({code}){}: {failure}", node_suffix(.node.as_deref()))]
pub struct DialError {
    /// The region's number.
    pub region: u16,
    /// The region's short name.
    pub code: String,
    /// The node that was tried last; `None` if none was.
    pub node: Option<String>,
    /// What happened there.
    #[source]
    pub failure: Failure,
}

fn node_suffix(node: Option<&str>) -> String {
    node.map(|node| format!(", node {node}")).unwrap_or_default()
}
