//! The secret relays of one region share.

use std::fmt;

use wire::keys::constant_time_eq;
use zeroize::Zeroizing;

/// What makes a client a mesh peer: it may watch, forward and close. Any non-empty text, compared byte for byte.
///
/// Stock relays insist on 64 hexadecimal digits; the text is passed on as it is, so such a key works with them too.
#[derive(Clone)]
pub struct MeshKey(Zeroizing<String>);

impl MeshKey {
    /// `None` if the text is empty: an empty key would admit everyone who sends none.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = Zeroizing::new(text.into());
        (!text.is_empty()).then_some(Self(text))
    }

    /// The text that goes into ClientInfo.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a peer presented this key. The time it takes tells only the length.
    pub fn matches(&self, presented: &str) -> bool {
        constant_time_eq(self.0.as_bytes(), presented.as_bytes())
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_matches_and_none_is_printed() {
        let key = MeshKey::new("aBcDeF").expect("not empty");
        assert!(key.matches("aBcDeF"));
        assert!(!key.matches("aBcDeG"));
        assert!(!key.matches("aBcDe"));
        assert!(!key.matches(""));
        assert_eq!(format!("{key:?}"), "MeshKey(redacted)");
        assert!(MeshKey::new("").is_none());
    }
}
