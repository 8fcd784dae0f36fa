//! What to dial, and how.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// Who we are, for servers that ask for a certificate.
    pub identity: Option<Identity>,
    /// Which relays are reached through an HTTP proxy.
    pub proxies: ProxyRules,
    /// IPv6 is known to work: give it a head start.
    pub prefer_v6: bool,
    /// Whoever takes the connection can start at once where the relay's key is told by its certificate.
    pub fast_start: bool,
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
            .field("identity", &self.identity)
            .field("proxies", &self.proxies)
            .field("prefer_v6", &self.prefer_v6)
            .field("fast_start", &self.fast_start)
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
            identity: None,
            proxies: ProxyRules::default(),
            prefer_v6: false,
            fast_start: false,
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
#[derive(Clone, Default, PartialEq, Eq)]
pub enum TrustRoots {
    /// The operating system's. Read once per process, when first needed.
    #[default]
    System,
    /// Those, and the certificates of a PEM file, which is read at each attempt.
    SystemAnd(PathBuf),
    /// Only these: PEM text with at least one certificate.
    Pem(Vec<u8>),
}

impl fmt::Debug for TrustRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::SystemAnd(path) => f.debug_tuple("SystemAnd").field(path).finish(),
            Self::Pem(pem) => write!(f, "Pem({} bytes)", pem.len()),
        }
    }
}

/// A client certificate: PEM files, read at each attempt, so that a renewed one is used at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then the others of its chain.
    pub certificates: PathBuf,
    /// Its private key. May be the same file.
    pub key: PathBuf,
}

/// An HTTP proxy that understands CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Name or address of the proxy.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// TLS is spoken with the proxy itself, whatever goes through its tunnels.
    pub tls: bool,
    /// User name and password for basic authentication.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "<redacted>");
        let Self { host, port, tls, .. } = self;
        f.debug_struct("ProxySettings")
            .field("host", host)
            .field("port", port)
            .field("tls", tls)
            .field("credentials", &credentials)
            .finish()
    }
}

/// Which proxy is used for which host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRules {
    /// For relays with TLS.
    pub https: Option<ProxySettings>,
    /// For relays without.
    pub http: Option<ProxySettings>,
    /// Hosts that are reached directly: a name stands for all below it too, `name:port` for that port only,
    /// `10.0.0.0/8` for addresses, `*` for all.
    pub bypass: Vec<String>,
}

impl ProxyRules {
    /// The same proxy for every relay.
    pub fn always(proxy: ProxySettings) -> Self {
        Self { https: Some(proxy.clone()), http: Some(proxy), bypass: Vec::new() }
    }

    /// The proxy for a host, if it is not to be reached directly. `host` may be an address, IPv6 without brackets.
    pub(crate) fn proxy(&self, host: &str, port: u16, tls: bool) -> Option<&ProxySettings> {
        let proxy = if tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let direct = self.bypass.iter().any(|entry| covers(entry, host, port));
        (!direct).then_some(proxy)
    }
}

/// Whether an entry of the list of directly reached hosts means this one.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.trim();
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        return within(network.trim_matches(['[', ']']), length.trim_end_matches(']'), host) == Some(true);
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let (name, wanted) = match entry.rsplit_once(':') {
        // More than one colon without brackets is an IPv6 address.
        Some((name, number)) if name.ends_with(']') || !name.contains(':') => (name, number.parse().ok()),
        _ => (bare, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches(['*', '.']);
    let below = || {
        let cut = host.len().checked_sub(name.len() + 1)?;
        Some(host.as_bytes().get(cut)? == &b'.' && host.get(cut + 1..)?.eq_ignore_ascii_case(name))
    };
    !name.is_empty()
        && wanted.is_none_or(|wanted: u16| wanted == port)
        && (host.eq_ignore_ascii_case(name) || below() == Some(true))
}

/// Whether a host, given as an address, begins as the network does; names are not looked up for it.
fn within(network: &str, length: &str, host: &str) -> Option<bool> {
    let length: u32 = length.parse().ok()?;
    let differing = match (network.parse().ok()?, host.parse().ok()?) {
        (IpAddr::V4(network), IpAddr::V4(host)) if length <= 32 => {
            u128::from(network.to_bits() ^ host.to_bits()) << 96
        }
        (IpAddr::V6(network), IpAddr::V6(host)) if length <= 128 => network.to_bits() ^ host.to_bits(),
        _ => return None,
    };
    Some(differing.leading_zeros() >= length)
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
    fn proxies_are_chosen_by_scheme_and_spared_hosts() {
        let proxy =
            |host: &str| ProxySettings { host: host.into(), port: 3128, tls: false, credentials: None };
        let list = "localhost, .corp.example ,10.0.0.1,relay.example:8443,[2001:db8::1],2001:db8::2,*.wild.example,:,.,\
                    192.168.5.9/16,2001:db8:1::/48,/8,1.2.3.4/33,::/x";
        let rules = ProxyRules {
            https: Some(proxy("secure")),
            http: None,
            bypass: list.split(',').map(str::to_owned).collect(),
        };
        let chosen = |host: &str, port| rules.proxy(host, port, true).map(|proxy| proxy.host.as_str());
        for direct in ["localhost", "LOCALHOST", "corp.example", "a.b.Corp.example", "10.0.0.1"] {
            assert_eq!(chosen(direct, 443), None, "{direct}");
        }
        for direct in ["2001:db8::1", "2001:db8::2", "x.wild.example", "192.168.0.1", "2001:db8:1:ffff::1"] {
            assert_eq!(chosen(direct, 443), None, "{direct}");
        }
        for proxied in [
            "notcorp.example",
            "corp.example.org",
            "10.0.0.11",
            "2001:db8::3",
            "host",
            "",
            "192.169.0.1",
            "1.2.3.4",
        ] {
            assert_eq!(chosen(proxied, 443), Some("secure"), "{proxied}");
        }
        assert_eq!(chosen("relay.example", 8443), None);
        assert_eq!(chosen("relay.example", 443), Some("secure"));
        assert_eq!(rules.proxy("host", 80, false), None);
        let all = ProxyRules { bypass: vec!["*".into()], ..ProxyRules::always(proxy("any")) };
        assert_eq!(all.proxy("host", 443, true), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut target = Target::new(Region::default());
        target.headers = vec![("Authorization".into(), "hunter2".into())];
        let credentials = Some(("user".into(), "hunter2".into()));
        let proxy = ProxySettings { host: "proxy".into(), port: 3128, tls: true, credentials };
        target.proxies = ProxyRules::always(proxy);
        let printed = format!("{target:?}");
        assert!(printed.contains("Authorization") && printed.contains("3128"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
