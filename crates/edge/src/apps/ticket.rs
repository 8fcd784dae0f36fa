//! The ticket that opens one app for a minute: a JWS in compact form (RFC 7515) with HMAC-SHA-512, signed by the
//! application, sent along by browsers as a cookie. `vectors/app_tickets.json` has examples.

use std::collections::BTreeMap;
use std::net::SocketAddrV6;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

const MAX_LEN: usize = 4096;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// What a valid ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Ticket {
    /// Seconds since 1970 from which on it is worth nothing.
    pub(super) exp: u64,
    /// The app it opens: [`super::Scope::at`].
    pub(super) at: String,
    /// Address and port inside the tunnel.
    pub(super) to: SocketAddrV6,
    /// The app speaks TLS.
    pub(super) tls: bool,
    /// Path of the app's URL, in front of that of each request.
    pub(super) path: String,
    /// Query of the app's URL, where a bare request for the app starts.
    pub(super) query: String,
    /// The app answers other origins by itself.
    pub(super) cors: bool,
}

/// Reads a ticket; `None` unless it is whole, signed with one of the keys, for that app, and valid at `now` (seconds
/// since 1970). The signature is compared in constant time.
pub(super) fn verify(keys: &BTreeMap<String, hmac::Key>, text: &str, at: &str, now: u64) -> Option<Ticket> {
    if text.len() > MAX_LEN {
        return None;
    }
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let key = keys.get(&header.kid).filter(|_| header.alg == "HS512")?;
    hmac::verify(key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    let ticket: Ticket = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    (ticket.exp > now && ticket.at == at).then_some(ticket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    fn vectors() -> (BTreeMap<String, hmac::Key>, Vec<Value>) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/app_tickets.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let keys = file["keys"].as_object().unwrap().iter();
        let key = |secret: &Value| {
            hmac::Key::new(hmac::HMAC_SHA512, &hex::decode(secret.as_str().unwrap()).unwrap())
        };
        (
            keys.map(|(id, secret)| (id.clone(), key(secret))).collect(),
            file["tickets"].as_array().unwrap().clone(),
        )
    }

    #[test]
    fn tickets_of_the_application_are_read() {
        let (keys, tickets) = vectors();
        for case in tickets {
            let claims: Option<Ticket> = serde_json::from_value(case["claims"].clone()).unwrap();
            let (now, at) = (case["now"].as_u64().unwrap(), case["at"].as_str().unwrap());
            assert_eq!(verify(&keys, case["text"].as_str().unwrap(), at, now), claims, "{}", case["name"]);
        }
    }

    #[test]
    fn no_part_of_a_ticket_can_be_changed() {
        let (keys, tickets) = vectors();
        let case = &tickets[0];
        let (text, now, at) =
            (case["text"].as_str().unwrap(), case["now"].as_u64().unwrap(), case["at"].as_str().unwrap());
        assert!(verify(&keys, text, at, now).is_some());
        for place in 0..text.len() {
            assert_eq!(verify(&keys, &text[..place], at, now), None, "cut at {place}");
            let mut bytes = text.as_bytes().to_vec();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                verify(&keys, std::str::from_utf8(&bytes).unwrap(), at, now),
                None,
                "other at {place}"
            );
        }
    }
}
