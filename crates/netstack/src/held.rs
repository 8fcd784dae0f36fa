//! Incoming connections that wait for the word of the shell.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::connection::Key;

/// A connection attempt.
pub struct Held {
    pub key: Key,
    /// The SYN without any data, which comes again after the handshake.
    pub syn: Vec<u8>,
    expires: Instant,
}

/// What became of a SYN.
pub enum Outcome {
    /// A new attempt, with its name.
    New(u64),
    /// A repetition of a waiting one.
    Known,
    /// No room.
    Full,
}

/// All attempts, oldest first.
#[derive(Default)]
pub struct Waiting {
    by_id: BTreeMap<u64, Held>,
    by_key: HashMap<Key, u64>,
    next_id: u64,
}

impl Waiting {
    /// Takes in a SYN, of which `header` is the TCP header.
    pub fn syn(&mut self, now: Instant, key: Key, header: &[u8], limit: usize, keep: Duration) -> Outcome {
        let syn = header.to_vec();
        if let Some(held) = self.by_key.get(&key).and_then(|id| self.by_id.get_mut(id)) {
            // A restarted peer may come from the same port with another sequence number; the last one is the valid one.
            held.syn = syn;
            return Outcome::Known;
        }
        if self.by_id.len() >= limit {
            return Outcome::Full;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_id.insert(id, Held { key, syn, expires: now + keep });
        self.by_key.insert(key, id);
        Outcome::New(id)
    }

    /// Removes an attempt, to be answered.
    pub fn take(&mut self, id: u64) -> Option<Held> {
        let held = self.by_id.remove(&id)?;
        self.by_key.remove(&held.key);
        Some(held)
    }

    /// Forgets an attempt its peer has given up.
    pub fn withdraw(&mut self, key: &Key) {
        if let Some(id) = self.by_key.remove(key) {
            self.by_id.remove(&id);
        }
    }

    /// Forgets what has waited too long; how many that were.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while let Some((&id, held)) = self.by_id.first_key_value()
            && held.expires <= now
        {
            self.take(id);
            expired += 1;
        }
        expired
    }

    /// When the oldest attempt has waited too long.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.by_id.first_key_value().map(|(_, held)| held.expires)
    }
}
