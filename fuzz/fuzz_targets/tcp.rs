//! TCP: a connection that is sent anything at all stays consistent, and always comes to rest.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use tcp::{Config, Connection, Segment};

/// A connection writes this often without hearing anything only if it never stops.
const ENOUGH: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut now = Instant::now();
    let mut connection = Connection::connect(&Config::default(), 1, 2, 7, now);
    let mut room = [0; 1240];
    for piece in bytes.chunks(48) {
        if let Some(segment) = Segment::parse(piece) {
            connection.arrives(now, &segment);
        }
        connection.send(now, |room| room.len().min(100));
        connection.recv(|data| data.len());
        let written = std::iter::from_fn(|| connection.poll(now, &mut room)).take(ENOUGH).count();
        assert!(written < ENOUGH && connection.is_consistent());
        now += Duration::from_millis(u64::from(piece[0]));
    }
});
