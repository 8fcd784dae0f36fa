//! X11's way of showing who may draw: cookies, in the files of `Xauthority` and at the beginning of each connection.

/// The port of display 0.
pub(crate) const FIRST_PORT: u16 = 6000;
/// Displays below are for screens of the machine itself, as with OpenSSH.
pub(crate) const FIRST_DISPLAY: u16 = 10;
/// Displays that are tried.
pub(crate) const DISPLAYS: u16 = 990;
/// Longest name of a protocol and longest cookie, in bytes.
const LONGEST: usize = 256;
/// The family in an `Xauthority` entry that stands for every address.
const EVERY_ADDRESS: u16 = 65535;

/// What a client asks for with `x11-req` (RFC 4254 section 6.3.1).
#[derive(Clone)]
pub(crate) struct Request {
    /// Only the first connection is carried.
    pub(crate) single: bool,
    pub(crate) protocol: String,
    pub(crate) cookie: Vec<u8>,
    pub(crate) screen: u32,
}

impl Request {
    /// None when it makes no sense.
    pub(crate) fn new(single: bool, protocol: &str, cookie: &str, screen: u32) -> Option<Self> {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if protocol.is_empty() || protocol.len() > LONGEST || !protocol.bytes().all(sound) {
            return None;
        }
        Some(Self { single, protocol: protocol.to_owned(), cookie: unhex(cookie)?, screen })
    }

    /// The entry of an `Xauthority` file that lets its readers use this display.
    pub(crate) fn entry(&self, display: u16) -> Vec<u8> {
        let number = display.to_string();
        let mut entry = EVERY_ADDRESS.to_be_bytes().to_vec();
        for part in [&[][..], number.as_bytes(), self.protocol.as_bytes(), &self.cookie] {
            entry.extend_from_slice(&(part.len() as u16).to_be_bytes());
            entry.extend_from_slice(part);
        }
        entry
    }
}

/// Bytes of the text of an even number of hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|n| n as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let sound = rest.is_empty() && !pairs.is_empty() && pairs.len() <= LONGEST;
    sound.then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// What to do with the beginning of a connection to the display.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// It is longer than this.
    More,
    /// It does not show the cookie that was given out.
    Refused,
    /// It does: what the display gets instead of so many bytes.
    Known { bytes: Vec<u8>, consumed: usize },
}

/// Looks at the beginning of a connection, and replaces the cookie we gave out by the display's own. `real` is the name of
/// its protocol and its cookie; both are empty where the display asks for none.
pub(crate) fn admit(begin: &[u8], protocol: &str, ours: &[u8], real: (&str, &[u8])) -> Setup {
    let Some(head) = begin.first_chunk::<12>() else { return Setup::More };
    let number = |high: u8, low: u8| usize::from(u16::from_be_bytes([high, low]));
    let [order, _, m0, m1, n0, n1, p0, p1, c0, c1, ..] = *head;
    let big = match order {
        b'B' => true,
        b'l' => false,
        _ => return Setup::Refused,
    };
    let length = |first: u8, second: u8| if big { number(first, second) } else { number(second, first) };
    let (name, data) = (length(p0, p1), length(c0, c1));
    if name > LONGEST || data > LONGEST {
        return Setup::Refused;
    }
    let data_start = 12 + padded(name);
    let consumed = data_start + padded(data);
    let (Some(told), Some(cookie), true) =
        (begin.get(12..12 + name), begin.get(data_start..data_start + data), begin.len() >= consumed)
    else {
        return Setup::More;
    };
    if told != protocol.as_bytes() || !wire_eq(cookie, ours) {
        return Setup::Refused;
    }
    let (name, data) = (real.0.as_bytes(), real.1);
    let mut bytes = vec![order, 0, m0, m1, n0, n1];
    for part in [name, data] {
        let length = part.len() as u16;
        bytes.extend_from_slice(&if big { length.to_be_bytes() } else { length.to_le_bytes() });
    }
    bytes.extend_from_slice(&[0, 0]);
    for part in [name, data] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Setup::Known { bytes, consumed }
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Compares secrets in a time that does not depend on where they differ.
fn wire_eq(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const NAME: &str = "MIT-MAGIC-COOKIE-1";

    fn setup(big: bool, name: &[u8], cookie: &[u8]) -> Vec<u8> {
        let number = |n: usize| if big { (n as u16).to_be_bytes() } else { (n as u16).to_le_bytes() };
        let mut bytes = vec![if big { b'B' } else { b'l' }, 0];
        for part in [number(11), number(0), number(name.len()), number(cookie.len()), [0, 0]] {
            bytes.extend_from_slice(&part);
        }
        for part in [name, cookie] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_cookie_that_was_given_out_becomes_the_displays_own() {
        for big in [true, false] {
            let mut begin = setup(big, NAME.as_bytes(), &[7; 16]);
            let whole = begin.len();
            begin.extend_from_slice(b"rest");
            let real = setup(big, NAME.as_bytes(), &[9; 16]);
            let known = Setup::Known { bytes: real, consumed: whole };
            assert_eq!(admit(&begin, NAME, &[7; 16], (NAME, &[9; 16])), known);
            let bare = Setup::Known { bytes: setup(big, b"", b""), consumed: whole };
            assert_eq!(admit(&begin, NAME, &[7; 16], ("", &[])), bare);
            for end in 0..whole {
                assert_eq!(admit(&begin[..end], NAME, &[7; 16], ("", &[])), Setup::More);
            }
        }
    }

    #[test]
    fn other_cookies_protocols_and_nonsense_are_refused() {
        let real = (NAME, &[9; 16][..]);
        for begin in [
            setup(true, NAME.as_bytes(), &[8; 16]),
            setup(true, NAME.as_bytes(), &[7; 15]),
            setup(true, b"XDM-AUTHORIZATION-1", &[7; 16]),
            setup(true, b"", b""),
            setup(true, &[b'x'; 300], b""),
            b"GET / HTTP/1.1\r\n".to_vec(),
        ] {
            assert_eq!(admit(&begin, NAME, &[7; 16], real), Setup::Refused);
        }
    }

    #[test]
    fn a_request_becomes_an_entry_of_the_file() {
        let request = Request::new(false, NAME, "00ff", 0).unwrap();
        let entry = [&[255, 255, 0, 0, 0, 2][..], b"10", &[0, 18], NAME.as_bytes(), &[0, 2, 0, 255]].concat();
        assert_eq!(request.entry(10), entry);
    }

    #[test]
    fn requests_that_make_no_sense_are_none() {
        for (protocol, cookie) in
            [("", "00"), ("a b", "00"), (NAME, ""), (NAME, "0"), (NAME, "0g"), (NAME, "é0")]
        {
            assert!(Request::new(false, protocol, cookie, 0).is_none());
        }
        assert!(Request::new(false, NAME, &"00".repeat(257), 0).is_none());
    }
}
