//! Requests and answers of HTTP/1.1, as far as an upgrade needs them.

use std::io;
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::error::{Failure, Stage};
use crate::transport::Transport;

/// Length limit of an answer's head.
const HEAD_LIMIT: usize = 16 * 1024;

/// Header lines an answer may have.
const MOST_HEADERS: usize = 96;

/// Body bytes kept of a refusal.
const BODY_KEPT: usize = 200;

/// How long to wait for the body of a refusal.
const BODY_PATIENCE: Duration = Duration::from_millis(500);

/// Headers that belong to the upgrade itself.
const RESERVED: [&str; 9] = [
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// `host[:port]` as the `Host` header has it: no port if it is the scheme's own.
pub(crate) fn authority(host: &str, port: u16, tls: bool) -> String {
    let host = bracketed(host);
    if port == if tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
}

/// An IPv6 literal in brackets, anything else as it is.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Builds the head of a GET request: the lines of `own`, then those of `extra` that are not reserved.
///
/// # Errors
/// [`Failure::Header`] if one of them cannot be written.
pub(crate) fn get(
    path: &str,
    authority: &str,
    own: &[(&str, &str)],
    extra: &[(String, String)],
) -> Result<Vec<u8>, Failure> {
    let mut lines = vec![("Host", authority)];
    if !extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        lines.push(("User-Agent", concat!("coder/", env!("CARGO_PKG_VERSION"))));
    }
    lines.extend_from_slice(own);
    let allowed = |name: &str| !RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    lines.extend(extra.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| allowed(name)));
    head(&format!("GET {path} HTTP/1.1"), &lines)
}

/// Builds a request's head.
///
/// # Errors
/// [`Failure::Header`] if a line cannot be written.
pub(crate) fn head(first: &str, lines: &[(&str, &str)]) -> Result<Vec<u8>, Failure> {
    let mut head = format!("{first}\r\n");
    for &(name, value) in lines {
        if !is_token(name) || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Failure::Header(name.to_owned()));
        }
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Values with anything but visible ASCII are left out; nothing here is asked for such a value.
    headers: Vec<(String, String)>,
    /// Bytes that followed the head.
    pub(crate) rest: Vec<u8>,
}

/// An answer's head as it was received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) answer: Answer,
    /// When its first byte came.
    pub(crate) begun: Instant,
}

impl Answer {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// Takes an answer from the front of `received`; `None` while it is incomplete.
    fn parse(received: &[u8]) -> Result<Option<Self>, Failure> {
        if starts_http2(received) {
            return Err(Failure::WantsHttp2);
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(received) {
            Ok(httparse::Status::Complete(length)) => Ok(Some(Self {
                status: answer.code.unwrap_or_default(),
                headers: answer.headers.iter().filter_map(own_header).collect(),
                rest: received[length..].to_vec(),
            })),
            Ok(httparse::Status::Partial) if received.len() < HEAD_LIMIT => Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                Err(Failure::BadAnswer("its head is too long"))
            }
            Err(_) => Err(Failure::BadAnswer("it is not HTTP/1.1")),
        }
    }

    /// Reads an answer.
    pub(crate) fn read(
        transport: &mut Transport,
        stage: Stage,
        deadline: Deadline,
    ) -> Result<Received, Failure> {
        let mut received = vec![0; HEAD_LIMIT];
        let mut length = 0;
        let mut begun = None;
        loop {
            let count = transport.read_by(&mut received[length..], deadline).map_err(Failure::io(stage))?;
            let begun = *begun.get_or_insert_with(Instant::now);
            length += count;
            if let Some(answer) = Self::parse(&received[..length])? {
                return Ok(Received { answer, begun });
            }
            if count == 0 {
                return Err(Failure::io(stage)(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The failure that an unwanted answer is, with the beginning of its body.
    pub(crate) fn refusal(mut self, transport: &mut Transport, deadline: Deadline) -> Failure {
        let deadline = deadline.within(BODY_PATIENCE);
        let chunked =
            self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let announced = self.header("content-length").and_then(|value| value.parse().ok());
        // A chunk's size line comes on top.
        let wanted = announced.unwrap_or(2 * BODY_KEPT).min(2 * BODY_KEPT);
        let mut piece = [0; 2 * BODY_KEPT];
        while self.rest.len() < wanted && !(chunked && self.rest.ends_with(b"0\r\n\r\n")) {
            match transport.read_by(&mut piece, deadline) {
                Ok(count) if count > 0 => self.rest.extend_from_slice(&piece[..count]),
                // Half a body explains more than a failure to get the rest of it.
                Ok(_) | Err(_) => break,
            }
        }
        Failure::Status {
            status: self.status,
            body: excerpt(if chunked { first_chunk(&self.rest) } else { &self.rest }),
        }
    }
}

fn own_header(header: &httparse::Header<'_>) -> Option<(String, String)> {
    Some((header.name.to_owned(), std::str::from_utf8(header.value).ok()?.to_owned()))
}

/// A SETTINGS frame of stream 0, with which every HTTP/2 server begins (RFC 9113 section 3.4).
fn starts_http2(received: &[u8]) -> bool {
    matches!(received, [0, _, _, 4, 0, 0, 0, 0, 0, ..])
}

fn first_chunk(body: &[u8]) -> &[u8] {
    match httparse::parse_chunk_size(body) {
        Ok(httparse::Status::Complete((start, size))) => {
            let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(body.len());
            &body[start..end]
        }
        _ => body,
    }
}

/// One printable line of at most [`BODY_KEPT`] bytes.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(BODY_KEPT)]);
    text.trim().replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn authorities() {
        assert_eq!(authority("relay.example", 443, true), "relay.example");
        assert_eq!(authority("relay.example", 443, false), "relay.example:443");
        assert_eq!(authority("2001:db8::1", 80, false), "[2001:db8::1]");
        assert_eq!(authority("2001:db8::1", 8443, true), "[2001:db8::1]:8443");
    }

    #[test]
    fn extra_headers_are_added_but_reserved_ones_are_not() {
        let extra = [("X-A", "b c"), ("hOST", "evil"), ("User-Agent", "mine")];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let head = get("/derp", "h:1", &[("Upgrade", "DERP")], &extra).unwrap();
        let expected =
            "GET /derp HTTP/1.1\r\nHost: h:1\r\nUpgrade: DERP\r\nX-A: b c\r\nUser-Agent: mine\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }

    #[test]
    fn headers_cannot_smuggle_lines() {
        for (name, value) in [("X", "a\r\nb: c"), ("X\r\n", "a"), ("", "a"), ("a b", "c"), ("X", "\0")] {
            let extra = [(name.to_owned(), value.to_owned())];
            let refused = get("/", "h", &[], &extra).unwrap_err();
            assert!(matches!(refused, Failure::Header(ref told) if told == name), "{refused}");
        }
    }

    #[test]
    fn oversized_heads_are_refused() {
        let long = |value: usize| [b"HTTP/1.1 101 ok\r\nA: ".as_slice(), &vec![b'x'; value]].concat();
        assert!(matches!(Answer::parse(&long(100)), Ok(None)));
        assert!(matches!(Answer::parse(&long(HEAD_LIMIT)), Err(Failure::BadAnswer(_))));
        let many = [b"HTTP/1.1 101 ok\r\n".as_slice(), &b"A: b\r\n".repeat(MOST_HEADERS + 1)].concat();
        assert!(matches!(Answer::parse(&many), Err(Failure::BadAnswer(_))));
    }

    #[test]
    fn http2_is_recognised() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3];
        assert!(matches!(Answer::parse(&settings), Err(Failure::WantsHttp2)));
        assert!(matches!(Answer::parse(b"\x16\x03\x03"), Err(Failure::BadAnswer(_))));
    }

    #[test]
    fn bodies_become_one_line() {
        assert_eq!(excerpt(b" proxy\nsays \x1b[1mno\n"), "proxy says  [1mno");
        assert_eq!(excerpt(&[b'a'; 999]).len(), BODY_KEPT);
        assert_eq!(first_chunk(b"5\r\nhello\r\n0\r\n\r\n"), b"hello");
        assert_eq!(first_chunk(b"ffffffff\r\nhel"), b"hel");
        assert_eq!(first_chunk(b"no chunk"), b"no chunk");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_what_follows(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Answer::parse(&noise);
            let answer = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n".as_slice(), &noise].concat();
            let parsed = Answer::parse(&answer).unwrap().unwrap();
            prop_assert_eq!(parsed.rest, noise);
            prop_assert_eq!((parsed.status, parsed.headers.len()), (101, 1));
        }
    }
}
