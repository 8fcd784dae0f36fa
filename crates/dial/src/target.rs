//! What to dial, and how.

use std::fmt;

use wire::derpmap::{Region, RelayNode};

use crate::error::{DialError, Failure};

/// A relay region and the settings that apply to reaching it.
#[derive(Clone)]
pub struct Target {
    /// The region. An embedded relay's node already has the address to dial.
    pub region: Region,
    /// Sent with each request. Names that the upgrade itself needs (`Host`, `Connection`, ...) are left out.
    pub headers: Vec<(String, String)>,
    /// Use WebSocket at once instead of trying `Upgrade: DERP` first.
    pub force_websocket: bool,
    /// Whose certificates to trust.
    pub roots: TrustRoots,
    /// Reach the relay through this HTTP proxy.
    pub proxy: Option<ProxySettings>,
    /// IPv6 is known to work: give it a head start.
    pub prefer_v6: bool,
}

/// Header values may be credentials: only their names are printed.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Target")
            .field("region", &self.region)
            .field("headers", &names)
            .field("force_websocket", &self.force_websocket)
            .field("roots", &self.roots)
            .field("proxy", &self.proxy)
            .field("prefer_v6", &self.prefer_v6)
            .finish()
    }
}

impl Target {
    /// For a region, with the system's roots and nothing else.
    pub fn new(region: Region) -> Self {
        Self {
            region,
            headers: Vec::new(),
            force_websocket: false,
            roots: TrustRoots::System,
            proxy: None,
            prefer_v6: false,
        }
    }

    /// The nodes that relay, with their ports, in the map's order.
    pub(crate) fn nodes(&self) -> Result<Vec<(&RelayNode, u16)>, DialError> {
        let nodes: Vec<_> = self.region.nodes.iter().filter_map(|node| Some((node, node.derp()?))).collect();
        match (nodes.is_empty(), self.region.nodes.is_empty()) {
            (false, _) => Ok(nodes),
            (true, true) => Err(self.error(None, Failure::NoNodes)),
            (true, false) => Err(self.error(None, Failure::OnlyStun)),
        }
    }

    pub(crate) fn error(&self, node: Option<&RelayNode>, failure: Failure) -> DialError {
        DialError {
            region: self.region.id,
            code: self.region.code.clone(),
            node: node.map(|node| node.name.clone()),
            failure,
        }
    }
}

/// Which certificate authorities are trusted.
#[derive(Clone, PartialEq, Eq)]
pub enum TrustRoots {
    /// The operating system's. Read once per process, when first needed.
    System,
    /// Only these: PEM text with at least one certificate.
    Pem(Vec<u8>),
}

impl fmt::Debug for TrustRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::Pem(pem) => write!(f, "Pem({} bytes)", pem.len()),
        }
    }
}

/// An HTTP proxy that understands CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Name or address of the proxy.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// User name and password for basic authentication.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "<redacted>");
        let Self { host, port, .. } = self;
        f.debug_struct("ProxySettings")
            .field("host", host)
            .field("port", port)
            .field("credentials", &credentials)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_relay_are_skipped() {
        let node = |name: &str, stun_only, derp_port| RelayNode {
            name: name.into(),
            stun_only,
            derp_port,
            ..RelayNode::default()
        };
        let mut target = Target::new(Region { id: 7, code: "test".into(), ..Region::default() });
        let failed = |target: &Target| target.nodes().map(|nodes| nodes.len()).map_err(|e| e.to_string());
        assert_eq!(failed(&target), Err("relay region 7 (test): no nodes for this region".into()));
        target.region.nodes = vec![node("s", true, 0), node("x", false, 70_000)];
        let only_stun = "relay region 7 (test): no non-STUNOnly nodes for this region";
        assert_eq!(failed(&target), Err(only_stun.into()));
        target.region.nodes.extend([node("a", false, 0), node("b", false, 3340)]);
        let found: Vec<_> =
            target.nodes().into_iter().flatten().map(|(n, port)| (n.name.as_str(), port)).collect();
        assert_eq!(found, [("a", 443), ("b", 3340)]);
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut target = Target::new(Region::default());
        target.headers = vec![("Authorization".into(), "hunter2".into())];
        let credentials = Some(("user".into(), "hunter2".into()));
        target.proxy = Some(ProxySettings { host: "proxy".into(), port: 3128, credentials });
        let printed = format!("{target:?}");
        assert!(printed.contains("Authorization") && printed.contains("3128"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
