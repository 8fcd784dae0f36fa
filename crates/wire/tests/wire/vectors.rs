//! Access to the recorded vectors.

pub use serde_json::Value;

/// The vector file `name`, without its extension.
pub fn load(name: &str) -> Value {
    let path = format!("{}/../../vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// The elements of a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// A text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Bytes written in hex.
pub fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

/// Exactly `N` bytes written in hex.
pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// Every copy of `bytes` with one bit changed.
pub fn bit_flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut copy = bytes.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        copy
    })
}
