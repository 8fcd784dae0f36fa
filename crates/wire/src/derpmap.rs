//! The DERP map: which regions there are, which relays are in them, how to reach each.
//!
//! The JSON names are those of the map's document; emptiness rules are kept, so a map written here reads the same
//! everywhere. Documents of foreign origin in other letter case are normalised before they come here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize};

/// STUN's usual UDP port.
pub const STUN_PORT: u16 = 3478;
/// The TCP port of a relay that names none: HTTPS.
pub const DERP_PORT: u16 = 443;

/// All regions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DerpMap {
    /// Weights for choosing a home.
    #[serde(rename = "HomeParams", default, skip_serializing_if = "Option::is_none")]
    pub home_params: Option<HomeParams>,
    /// By region id.
    #[serde(rename = "Regions", default, deserialize_with = "null_is_default")]
    pub regions: BTreeMap<u16, Region>,
}

/// Weights for choosing a home.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HomeParams {
    /// Factor on a region's latency; only values above zero count, and one that is missing counts as 1.
    #[serde(
        rename = "RegionScore",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub region_score: BTreeMap<u16, f64>,
}

/// Relays near each other, meshed: being connected to one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Whether this region is the coder server itself; its nodes are then reached where the API is.
    #[serde(rename = "EmbeddedRelay", default)]
    pub embedded: bool,
    /// Above zero.
    #[serde(rename = "RegionID", default)]
    pub id: u16,
    /// Short name for logs.
    #[serde(rename = "RegionCode", default)]
    pub code: String,
    /// Name for users, and the key of latency tables.
    #[serde(rename = "RegionName", default)]
    pub name: String,
    /// Not to be measured by incremental checks.
    #[serde(rename = "Avoid", default, skip_serializing_if = "is_default")]
    pub avoid: bool,
    /// Neither to be measured nor to be anyone's home; peers that are there nevertheless can be reached.
    #[serde(rename = "NoMeasureNoHome", default, skip_serializing_if = "is_default")]
    pub no_measure_no_home: bool,
    /// In order of preference.
    #[serde(rename = "Nodes", default, deserialize_with = "null_is_default")]
    pub nodes: Vec<RelayNode>,
}

/// One server: a relay, a STUN server, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayNode {
    /// Unique in the map.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// The region it is in.
    #[serde(rename = "RegionID", default)]
    pub region_id: u16,
    /// DNS name or address (IPv6 without brackets), dialled and used for TLS.
    #[serde(rename = "HostName", default)]
    pub host: String,
    /// Name, or `sha256-raw:<hex>`, the certificate is checked against instead of `host`; empty for none.
    #[serde(rename = "CertName", default, skip_serializing_if = "is_default")]
    pub cert_name: String,
    /// Empty: ask DNS. An address: use it. Anything else: no IPv4. See [`Self::v4`].
    #[serde(rename = "IPv4", default, skip_serializing_if = "is_default")]
    pub ipv4: String,
    /// The same for IPv6. See [`Self::v6`].
    #[serde(rename = "IPv6", default, skip_serializing_if = "is_default")]
    pub ipv6: String,
    /// UDP port of STUN as the map has it: 0 is the usual one, negative is none. See [`Self::stun`].
    #[serde(rename = "STUNPort", default, skip_serializing_if = "is_default")]
    pub stun_port: i64,
    /// No relay here.
    #[serde(rename = "STUNOnly", default, skip_serializing_if = "is_default")]
    pub stun_only: bool,
    /// TCP port of the relay as the map has it: 0 is the usual one. See [`Self::derp`].
    #[serde(rename = "DERPPort", default, skip_serializing_if = "is_default")]
    pub derp_port: i64,
    /// Certificates are not checked.
    #[serde(rename = "InsecureForTests", default, skip_serializing_if = "is_default")]
    pub insecure: bool,
    /// Plain HTTP in place of HTTPS.
    #[serde(rename = "ForceHTTP", default, skip_serializing_if = "is_default")]
    pub force_http: bool,
    /// Address to ask by STUN instead of any other; empty for none.
    #[serde(rename = "STUNTestIP", default, skip_serializing_if = "is_default")]
    pub stun_test_ip: String,
    /// Whether plain HTTP on port 80 answers captive-portal checks.
    #[serde(rename = "CanPort80", default, skip_serializing_if = "is_default")]
    pub can_port_80: bool,
}

/// What a map says about one address family of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family<T> {
    /// Ask DNS.
    Resolve,
    /// Use this address.
    Fixed(T),
    /// Not reachable by this family.
    Off,
}

impl RelayNode {
    /// The UDP port to ask by STUN; `None` if this node has no STUN, or an impossible port.
    pub fn stun(&self) -> Option<u16> {
        match self.stun_port {
            0 => Some(STUN_PORT),
            port => u16::try_from(port).ok(),
        }
    }

    /// The TCP port of the relay; `None` if there is no relay, or an impossible port.
    pub fn derp(&self) -> Option<u16> {
        match self.derp_port {
            _ if self.stun_only => None,
            0 => Some(DERP_PORT),
            port => u16::try_from(port).ok(),
        }
    }

    /// How to reach this node by IPv4. A `host` that is an IPv6 address switches it off.
    pub fn v4(&self) -> Family<Ipv4Addr> {
        match (self.ipv4.as_str(), self.host.parse()) {
            ("", Ok(IpAddr::V4(host))) => Family::Fixed(host),
            ("", Ok(IpAddr::V6(_))) => Family::Off,
            ("", Err(_)) => Family::Resolve,
            (text, _) => text.parse().map_or(Family::Off, Family::Fixed),
        }
    }

    /// How to reach this node by IPv6. A `host` that is an IPv4 address switches it off.
    pub fn v6(&self) -> Family<Ipv6Addr> {
        match (self.ipv6.as_str(), self.host.parse()) {
            ("", Ok(IpAddr::V6(host))) => Family::Fixed(host),
            ("", Ok(IpAddr::V4(_))) => Family::Off,
            ("", Err(_)) => Family::Resolve,
            (text, _) => text.parse().map_or(Family::Off, Family::Fixed),
        }
    }
}

impl DerpMap {
    /// Reads the JSON document.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Writes the JSON document.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
