//! Request and answer: one JSON object each, ended by a newline.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Direction, Error, MAX_DURATION, VERSION};

/// The request's wire form. Members that are missing count as zero, unknown ones are ignored.
#[derive(Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RequestJson {
    version: i64,
    /// Nanoseconds.
    time: i64,
    direction: i64,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct AnswerJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

/// What the client asks for, already within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) direction: Direction,
    pub(crate) duration: Duration,
}

impl Request {
    /// Cuts `duration` to [`MAX_DURATION`].
    pub(crate) fn new(direction: Direction, duration: Duration) -> Self {
        Self { direction, duration: duration.min(MAX_DURATION) }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let direction = match self.direction {
            Direction::Down => 0,
            Direction::Up => 1,
        };
        // At most an hour, so the nanoseconds fit.
        let time = self.duration.as_nanos() as i64;
        encode_line(&RequestJson { version: VERSION, time, direction })
    }

    /// # Errors
    /// The text to answer with.
    pub(crate) fn decode(line: &[u8]) -> Result<Self, String> {
        let request: RequestJson =
            serde_json::from_slice(line).map_err(|error| format!("invalid request: {error}"))?;
        if request.version != VERSION {
            let theirs = request.version;
            return Err(format!("version mismatch! Server is version {VERSION}, client is version {theirs}"));
        }
        let direction = match request.direction {
            0 => Direction::Down,
            1 => Direction::Up,
            other => return Err(format!("invalid direction {other}: 0 is download, 1 is upload")),
        };
        let time = u64::try_from(request.time).map_err(|_| "invalid time: it is negative".to_owned())?;
        Ok(Self::new(direction, Duration::from_nanos(time)))
    }
}

/// The server's answer: `Ok` lets the test begin, `Err` is why not.
pub(crate) fn encode_answer(answer: Result<(), &str>) -> Vec<u8> {
    encode_line(&AnswerJson { error: answer.err().unwrap_or_default().to_owned() })
}

/// # Errors
/// [`Error::Refused`] with the server's text, [`Error::BadAnswer`] when it is no answer.
pub(crate) fn decode_answer(line: &[u8]) -> Result<(), Error> {
    let answer: AnswerJson = serde_json::from_slice(line).map_err(|_| Error::BadAnswer)?;
    if answer.error.is_empty() {
        return Ok(());
    }
    // The text ends up on a terminal.
    Err(Error::Refused(answer.error.replace(|c: char| c.is_control(), " ")))
}

fn encode_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for direction in [Direction::Down, Direction::Up] {
            let request = Request::new(direction, Duration::from_nanos(2_500_000_001));
            let line = request.encode();
            assert_eq!(Request::decode(&line[..line.len() - 1]), Ok(request));
        }
    }

    #[test]
    fn durations_are_cut_at_both_ends_of_the_wire() {
        assert_eq!(Request::new(Direction::Up, Duration::MAX).duration, MAX_DURATION);
        let request = Request::decode(br#"{"version":2,"time":9223372036854775807,"direction":1}"#);
        assert_eq!(request, Ok(Request { direction: Direction::Up, duration: MAX_DURATION }));
    }

    #[test]
    fn bad_requests_are_told_why() {
        let told = |line: &str| Request::decode(line.as_bytes()).map_err(|text| text[..12].to_owned());
        assert_eq!(told(r#"{"version":2,"time":-1,"direction":0}"#), Err("invalid time".into()));
        assert_eq!(told(r#"{"version":2,"time":1,"direction":7}"#), Err("invalid dire".into()));
        assert_eq!(told(r#"{"version":2,"time":"5s","direction":0}"#), Err("invalid requ".into()));
        assert_eq!(told(r#"{"version":2,"time":99999999999999999999}"#), Err("invalid requ".into()));
        assert_eq!(told("{}"), Err("version mism".into()));
        assert_eq!(told(""), Err("invalid requ".into()));
    }

    #[test]
    fn answers() {
        assert_eq!(encode_answer(Ok(())), b"{}\n");
        assert_eq!(encode_answer(Err("no \"x\"")), b"{\"error\":\"no \\\"x\\\"\"}\n");
        assert_eq!(decode_answer(b"{}"), Ok(()));
        assert_eq!(decode_answer(b"{\"error\":\"\",\"later\":1}"), Ok(()));
        assert_eq!(decode_answer(br#"{"error":"no\u001b[2J"}"#), Err(Error::Refused("no [2J".into())));
        assert_eq!(decode_answer(b"220 hello"), Err(Error::BadAnswer));
    }
}
