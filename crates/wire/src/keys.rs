//! Curve25519 keys of nodes and of disco, their text forms, and the NaCl box between two of them.
//!
//! Source: NaCl `crypto_box` (X25519, XSalsa20, Poly1305) and the text forms of the Tailscale key types.

use std::fmt;
use std::str::FromStr;

use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Kdf, KeyInit, Tag, XSalsa20Poly1305};
use curve25519_dalek::MontgomeryPoint;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of any key.
pub const KEY_LEN: usize = 32;
/// Bytes of a box's nonce.
pub const NONCE_LEN: usize = 24;
/// Bytes a box is longer than its cleartext: the Poly1305 tag, which comes first.
pub const BOX_OVERHEAD: usize = 16;
/// Bytes of [`NodePublic::to_binary`].
pub const BINARY_LEN: usize = KEY_LEN + BINARY_PREFIX.len();

const BINARY_PREFIX: &[u8; 2] = b"np";

/// Why a text or a byte string is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The type prefix (for example `nodekey:`) is missing or another one.
    #[error("key does not start with {0:?}")]
    Prefix(&'static str),
    /// The part behind the prefix has another length.
    #[error("key has the wrong length")]
    Length,
    /// The part behind the prefix is not hexadecimal.
    #[error("key is not hexadecimal")]
    NotHex,
}

/// A private key and its public half, one kind of key.
pub trait Private {
    /// The public half.
    type Public: Public;
    /// The clamped scalar. Secret: do not log, do not keep.
    fn as_bytes(&self) -> &[u8; KEY_LEN];
}

/// The public half of a kind of key.
pub trait Public: Copy {
    /// The 32 bytes as they travel.
    fn as_bytes(&self) -> &[u8; KEY_LEN];
}

macro_rules! key_pair {
    ($private:ident, $public:ident, $what:literal, $prefix:literal) => {
        #[doc = concat!("Public ", $what, " key: 32 bytes of X25519.")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $public([u8; KEY_LEN]);

        impl $public {
            /// The key that means "absent".
            pub const ZERO: Self = Self([0; KEY_LEN]);

            /// Takes the bytes as they are.
            #[inline]
            pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// Takes the first 32 bytes of a slice, if it has that many.
            #[inline]
            pub fn from_prefix(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|key| Self(*key))
            }

            /// The 32 bytes as they travel.
            #[inline]
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// Whether this is the key that means "absent".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; KEY_LEN]
            }

            #[doc = concat!("`", $prefix, "` and 64 lower-case hex digits.")]
            pub fn to_text(&self) -> String {
                format!("{}{}", $prefix, hex::encode(self.0))
            }
        }

        impl FromStr for $public {
            type Err = KeyError;

            #[doc = concat!("Reads `", $prefix, "` and 64 hex digits of either case.")]
            fn from_str(text: &str) -> Result<Self, KeyError> {
                parse_text(text, $prefix).map(Self)
            }
        }

        impl fmt::Display for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_text())
            }
        }

        impl fmt::Debug for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_short())
            }
        }

        impl Public for $public {
            fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        #[doc = concat!("Private ", $what, " key: clamped, wiped when dropped, compared in constant time, never printed.")]
        #[derive(Clone)]
        pub struct $private([u8; KEY_LEN]);

        impl $private {
            /// Takes the bytes and clamps them.
            pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
                clamp(&mut bytes);
                let key = Self(bytes);
                bytes.zeroize();
                key
            }

            /// Makes a new key.
            ///
            /// # Panics
            /// If the operating system has no randomness to give; nothing safe could follow.
            pub fn generate() -> Self {
                let mut bytes = Zeroizing::new([0; KEY_LEN]);
                fill_random(&mut *bytes);
                Self::from_bytes(*bytes)
            }

            /// The clamped scalar. Secret: do not log, do not keep.
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }

            /// The public half; one scalar multiplication.
            pub fn public(&self) -> $public {
                $public(MontgomeryPoint::mul_base_clamped(self.0).0)
            }
        }

        impl Private for $private {
            type Public = $public;

            fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        impl Drop for $private {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl PartialEq for $private {
            fn eq(&self, other: &Self) -> bool {
                constant_time_eq(&self.0, &other.0)
            }
        }

        impl Eq for $private {}

        impl fmt::Debug for $private {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($private), "(redacted)"))
            }
        }
    };
}

key_pair!(NodePrivate, NodePublic, "node", "nodekey:");
key_pair!(DiscoPrivate, DiscoPublic, "disco", "discokey:");

const PRIVATE_PREFIX: &str = "privkey:";

impl NodePrivate {
    /// `privkey:` and 64 lower-case hex digits, wiped when dropped. Secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(self.0));
        let mut text = Zeroizing::new(String::with_capacity(PRIVATE_PREFIX.len() + digits.len()));
        text.push_str(PRIVATE_PREFIX);
        text.push_str(&digits);
        text
    }
}

impl FromStr for NodePrivate {
    type Err = KeyError;

    /// Reads `privkey:` and 64 hex digits of either case.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_text(text, PRIVATE_PREFIX).map(Self::from_bytes)
    }
}

impl NodePublic {
    /// The form for log lines: `[` and the first five characters of base64 and `]`; empty for the zero key.
    pub fn to_short(&self) -> String {
        if self.is_zero() {
            return String::new();
        }
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        let digits: String =
            (0..5).map(|i| char::from(ALPHABET[(bits >> (26 - 6 * i)) as usize & 63])).collect();
        format!("[{digits}]")
    }

    /// The form protobuf messages carry: `np` and the 32 bytes.
    pub fn to_binary(&self) -> [u8; BINARY_LEN] {
        let mut out = [0; BINARY_LEN];
        out[..2].copy_from_slice(BINARY_PREFIX);
        out[2..].copy_from_slice(&self.0);
        out
    }

    /// Reads the form protobuf messages carry.
    pub fn from_binary(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = bytes.strip_prefix(BINARY_PREFIX).ok_or(KeyError::Prefix("np"))?;
        key.try_into().map(Self).map_err(|_| KeyError::Length)
    }

    /// 64 lower-case hex digits without a prefix, as in HTTP headers and certificates.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads 64 hex digits without a prefix.
    pub fn from_hex(digits: &str) -> Result<Self, KeyError> {
        parse_text(digits, "").map(Self)
    }
}

impl DiscoPublic {
    /// The form for log lines: `d:` and the first 16 hex digits; empty for the zero key.
    pub fn to_short(&self) -> String {
        if self.is_zero() { String::new() } else { format!("d:{}", hex::encode(&self.0[..8])) }
    }
}

/// The NaCl box between a private key and a peer's public key, with the costly half computed once.
///
/// The wire form is the tag (16 bytes), then the ciphertext; the nonce travels separately. Wiped when dropped.
pub struct SharedBox {
    cipher: XSalsa20Poly1305,
    weak: bool,
}

impl SharedBox {
    /// Computes the shared key; one scalar multiplication.
    pub fn new<K: Private>(private: &K, public: &K::Public) -> Self {
        let mut shared = MontgomeryPoint(*public.as_bytes()).mul_clamped(*private.as_bytes());
        let key = Zeroizing::new(XSalsa20Poly1305::kdf(&shared.0.into(), &[0; 16].into()));
        let weak = constant_time_eq(&shared.0, &[0; KEY_LEN]);
        shared.zeroize();
        Self { cipher: XSalsa20Poly1305::new(&key), weak }
    }

    /// Whether the public key is a point of low order, the zero key included: then every private key gives the same
    /// secret, and a box that opens proves nothing about its sender.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// Encrypts and authenticates `cleartext`. A nonce must not be used twice; see [`random_nonce`].
    pub fn seal(&self, nonce: [u8; NONCE_LEN], cleartext: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BOX_OVERHEAD + cleartext.len());
        self.seal_into(nonce, cleartext, &mut out);
        out
    }

    /// [`Self::seal`], appended to `out`.
    pub fn seal_into(&self, nonce: [u8; NONCE_LEN], cleartext: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; BOX_OVERHEAD]);
        out.extend_from_slice(cleartext);
        let (tag, body) = out[start..].split_at_mut(BOX_OVERHEAD);
        // The cipher refuses only associated data, and there is none.
        if let Ok(computed) = self.cipher.encrypt_in_place_detached(&nonce.into(), &[], body) {
            tag.copy_from_slice(&computed);
        } else {
            out.truncate(start);
        }
    }

    /// Checks and decrypts a box; `None` if it was not made with this shared key and nonce.
    pub fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let (tag, body) = sealed.split_first_chunk::<BOX_OVERHEAD>()?;
        let mut out = body.to_vec();
        self.cipher.decrypt_in_place_detached(&nonce.into(), &[], &mut out, &Tag::from(*tag)).ok()?;
        Some(out)
    }
}

impl fmt::Debug for SharedBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedBox(redacted)")
    }
}

/// A fresh nonce for [`SharedBox::seal`].
///
/// # Panics
/// If the operating system has no randomness to give; nothing safe could follow.
pub fn random_nonce() -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce);
    nonce
}

/// Compares two secrets; the time taken depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    // Kept opaque so that the loop cannot be turned into an early exit.
    std::hint::black_box(difference) == 0
}

fn fill_random(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the operating system has no randomness: {error}");
    }
}

fn clamp(scalar: &mut [u8; KEY_LEN]) {
    scalar[0] &= 248;
    scalar[31] = scalar[31] & 127 | 64;
}

fn parse_text(text: &str, prefix: &'static str) -> Result<[u8; KEY_LEN], KeyError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyError::Prefix(prefix))?;
    if digits.len() != 2 * KEY_LEN {
        return Err(KeyError::Length);
    }
    let mut bytes = [0; KEY_LEN];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyError::NotHex)?;
    Ok(bytes)
}
