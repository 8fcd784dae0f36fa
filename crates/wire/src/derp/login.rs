//! The login: greeting, ClientInfo, ServerInfo.
//!
//! The two infos are JSON in a NaCl box. That the box opens is the proof that the client holds its key; that the right
//! server is asked is proved by TLS. Keys of the JSON are read in any letter case, unknown ones are ignored, `{}` and
//! `null` are valid and say nothing.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serialize;
use zeroize::Zeroizing;

use super::{CLIENT_INFO_PAYLOAD, FrameType, FromServer, GREETING_PAYLOAD, SERVER_INFO_PAYLOAD, encode};
use crate::derp::DerpError;
use crate::keys::{KEY_LEN, NONCE_LEN, NodePrivate, NodePublic, SharedBox};

/// Why a login fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// A payload is too short or too long, or the greeting is none.
    #[error(transparent)]
    Frame(#[from] DerpError),
    /// The box was not made by the holder of the claimed key for us.
    #[error("login box does not open")]
    Sealed,
    /// The client claims a key that anybody can seal for.
    #[error("login with a weak key")]
    WeakKey,
    /// The box holds no JSON object of the expected types.
    #[error("login holds no valid JSON")]
    Json,
}

/// What a client says of itself.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ClientInfo {
    /// Protocol version; [`super::VERSION`] today.
    #[serde(skip_serializing_if = "is_default")]
    pub version: i64,
    /// Proves a server of the same region. Secret.
    #[serde(rename = "meshKey", skip_serializing_if = "Option::is_none")]
    pub mesh_key: Option<Zeroizing<String>>,
    /// Whether it answers pings.
    #[serde(rename = "CanAckPings")]
    pub can_ack_pings: bool,
    /// Whether it only measures.
    #[serde(rename = "IsProber", skip_serializing_if = "is_default")]
    pub is_prober: bool,
    /// Name of the program; statistics.
    #[serde(rename = "AppName", skip_serializing_if = "String::is_empty")]
    pub app_name: String,
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("version", &self.version)
            .field("mesh_key", &self.mesh_key.as_ref().map(|_| "redacted"))
            .field("can_ack_pings", &self.can_ack_pings)
            .field("is_prober", &self.is_prober)
            .field("app_name", &self.app_name)
            .finish()
    }
}

/// What a server says of itself. The rates are zero when it sets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServerInfo {
    /// Protocol version; [`super::VERSION`] today.
    #[serde(skip_serializing_if = "is_default")]
    pub version: i64,
    /// Bytes per second the client may send.
    #[serde(rename = "TokenBucketBytesPerSecond", skip_serializing_if = "is_default")]
    pub bytes_per_second: i64,
    /// Bytes the client may send at once.
    #[serde(rename = "TokenBucketBytesBurst", skip_serializing_if = "is_default")]
    pub bytes_burst: i64,
}

/// Reads the server's key out of the first frame's type and payload.
pub fn open_greeting(frame: FrameType, payload: &[u8]) -> Result<NodePublic, LoginError> {
    if frame != FrameType::ServerKey {
        return Err(DerpError::Unexpected(frame).into());
    }
    check(frame, payload, GREETING_PAYLOAD)?;
    match FromServer::parse(frame, payload)? {
        FromServer::ServerKey(key) => Ok(key),
        _ => Err(DerpError::Greeting.into()),
    }
}

/// Appends the ClientInfo frame of the client whose key is `public`; `shared` is its box with the server's key.
pub fn seal_client_info(
    out: &mut Vec<u8>,
    public: &NodePublic,
    shared: &SharedBox,
    nonce: [u8; NONCE_LEN],
    info: &ClientInfo,
) {
    let sealed = shared.seal(nonce, &to_json(info));
    encode::frame(out, FrameType::ClientInfo, &[public.as_bytes(), &nonce, &sealed]);
}

/// Opens a ClientInfo payload: whose it is, what it says, and the box to seal the answer with.
pub fn open_client_info(
    server: &NodePrivate,
    payload: &[u8],
) -> Result<(NodePublic, ClientInfo, SharedBox), LoginError> {
    check(FrameType::ClientInfo, payload, CLIENT_INFO_PAYLOAD)?;
    let (key, rest) =
        payload.split_first_chunk::<KEY_LEN>().ok_or(DerpError::Short(FrameType::ClientInfo))?;
    let key = NodePublic::from_bytes(*key);
    let shared = SharedBox::new(server, &key);
    if shared.is_weak() {
        return Err(LoginError::WeakKey);
    }
    let info = open_json(&shared, FrameType::ClientInfo, rest)?;
    Ok((key, info, shared))
}

/// Appends the ServerInfo frame.
pub fn seal_server_info(out: &mut Vec<u8>, shared: &SharedBox, nonce: [u8; NONCE_LEN], info: &ServerInfo) {
    let sealed = shared.seal(nonce, &to_json(info));
    encode::frame(out, FrameType::ServerInfo, &[&nonce, &sealed]);
}

/// Opens a ServerInfo payload.
pub fn open_server_info(shared: &SharedBox, payload: &[u8]) -> Result<ServerInfo, LoginError> {
    check(FrameType::ServerInfo, payload, SERVER_INFO_PAYLOAD)?;
    open_json(shared, FrameType::ServerInfo, payload)
}

fn check(
    frame: FrameType,
    payload: &[u8],
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<(), DerpError> {
    if payload.len() < *allowed.start() {
        Err(DerpError::Short(frame))
    } else if payload.len() > *allowed.end() {
        Err(DerpError::Long(frame))
    } else {
        Ok(())
    }
}

fn to_json(info: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Writing plain structs of numbers and text into memory cannot fail.
    Zeroizing::new(serde_json::to_vec(info).unwrap_or_default())
}

fn open_json<T: Fields>(shared: &SharedBox, frame: FrameType, nonce_and_box: &[u8]) -> Result<T, LoginError> {
    let (nonce, sealed) = nonce_and_box.split_first_chunk::<NONCE_LEN>().ok_or(DerpError::Short(frame))?;
    let json = Zeroizing::new(shared.open(*nonce, sealed).ok_or(LoginError::Sealed)?);
    let AnyCase(info) = serde_json::from_slice(&json).map_err(|_| LoginError::Json)?;
    Ok(info)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Sets fields from JSON keys of any letter case.
trait Fields: Default {
    /// Takes the value of `key` out of `map`, known or not.
    fn take<'de, M: MapAccess<'de>>(&mut self, key: &str, map: &mut M) -> Result<(), M::Error>;
}

impl Fields for ClientInfo {
    fn take<'de, M: MapAccess<'de>>(&mut self, key: &str, map: &mut M) -> Result<(), M::Error> {
        if key.eq_ignore_ascii_case("version") {
            set(&mut self.version, map)
        } else if key.eq_ignore_ascii_case("meshKey") {
            let key: Option<String> = map.next_value()?;
            // An empty key is how a client without one may say so.
            self.mesh_key = key.filter(|key| !key.is_empty()).map(Zeroizing::new);
            Ok(())
        } else if key.eq_ignore_ascii_case("CanAckPings") {
            set(&mut self.can_ack_pings, map)
        } else if key.eq_ignore_ascii_case("IsProber") {
            set(&mut self.is_prober, map)
        } else if key.eq_ignore_ascii_case("AppName") {
            set(&mut self.app_name, map)
        } else {
            map.next_value::<IgnoredAny>().map(|_| ())
        }
    }
}

impl Fields for ServerInfo {
    fn take<'de, M: MapAccess<'de>>(&mut self, key: &str, map: &mut M) -> Result<(), M::Error> {
        if key.eq_ignore_ascii_case("version") {
            set(&mut self.version, map)
        } else if key.eq_ignore_ascii_case("TokenBucketBytesPerSecond") {
            set(&mut self.bytes_per_second, map)
        } else if key.eq_ignore_ascii_case("TokenBucketBytesBurst") {
            set(&mut self.bytes_burst, map)
        } else {
            map.next_value::<IgnoredAny>().map(|_| ())
        }
    }
}

/// A `null` leaves the field as it is.
fn set<'de, M: MapAccess<'de>, T: Deserialize<'de>>(field: &mut T, map: &mut M) -> Result<(), M::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

struct AnyCase<T>(T);

impl<'de, T: Fields> Deserialize<'de> for AnyCase<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectOrNull<T>(std::marker::PhantomData<T>);

        impl<'de, T: Fields> Visitor<'de> for ObjectOrNull<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }

            fn visit_unit<E>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
                let mut value = T::default();
                while let Some(key) = map.next_key::<String>()? {
                    value.take(&key, &mut map)?;
                }
                Ok(value)
            }
        }

        deserializer.deserialize_any(ObjectOrNull(std::marker::PhantomData)).map(AnyCase)
    }
}
