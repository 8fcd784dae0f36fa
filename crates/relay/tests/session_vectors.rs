//! Recorded sessions of real relays with seven connections, replayed: what each connection is sent must be the same.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Relay, frames, private, unhex, vectors};
use relay::ConnId;
use relay::server::Transport;
use wire::derp::{FrameType, HEADER_LEN};

/// Bytes of a PeerPresent frame as far as all relays agree: without address and flags.
const SHORT_PRESENT: usize = HEADER_LEN + 32;

struct Replay {
    relay: Relay,
    connections: BTreeMap<String, ConnId>,
    expected: BTreeMap<String, Vec<Vec<u8>>>,
    remotes: serde_json::Value,
}

impl Replay {
    fn run(name: &str) {
        let session = vectors(name);
        let relay = Relay::new(private(&session["keys"]["server"]["private"]), session["mesh_key"].as_str());
        let mut replay = Self {
            relay,
            connections: BTreeMap::new(),
            expected: BTreeMap::new(),
            remotes: session["remote_addr"].clone(),
        };
        for frame in session["frames"].as_array().unwrap() {
            if frame["name"] == "ServerInfo" {
                let nonce = unhex(&frame["frame_hex"])[HEADER_LEN..HEADER_LEN + 24].try_into().unwrap();
                replay.relay.nonces.lock().unwrap().push_back(nonce);
            }
        }
        let mut step = String::new();
        for frame in session["frames"].as_array().unwrap() {
            if frame["step"] != *step {
                replay.check(&step);
                step = frame["step"].as_str().unwrap().to_owned();
                replay.unrecorded(&step);
            }
            replay.frame(frame["conn"].as_str().unwrap(), frame["dir"] == "c2s", unhex(&frame["frame_hex"]));
        }
        replay.check(&step);
        assert!(replay.relay.closed(replay.connections["P"]), "a client without mesh right may not watch");
    }

    /// What the recording does not show: connections that end, and time that passes.
    fn unrecorded(&mut self, step: &str) {
        match &step[..2] {
            "17" => {
                self.relay.disconnect(self.connections["B"]);
                self.relay.disconnect(self.connections["B2"]);
            }
            "20" => self.relay.advance(Duration::from_secs(65)),
            _ => {}
        }
    }

    fn frame(&mut self, conn: &str, from_client: bool, bytes: Vec<u8>) {
        let remotes = &self.remotes;
        let relay = &mut self.relay;
        let id = *self
            .connections
            .entry(conn.to_owned())
            .or_insert_with(|| relay.accept_as(remotes[conn].as_str().unwrap(), Transport::Plain));
        if from_client {
            self.relay.feed(id, &bytes);
        } else {
            self.expected.entry(conn.to_owned()).or_default().push(bytes);
        }
    }

    /// Everything expected so far was sent, in order, except that the first list of peers has no order.
    fn check(&mut self, step: &str) {
        for (conn, id) in &self.connections {
            let sent = frames(&self.relay.take(*id));
            let expected = self.expected.remove(conn).unwrap_or_default();
            let sent: Vec<_> = sent
                .into_iter()
                .zip(expected.iter().map(Some).chain(std::iter::repeat(None)))
                .map(|(frame, like)| cut(frame, like))
                .collect();
            if step.starts_with("05") {
                assert_eq!(sent.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "{step}, {conn}");
            } else {
                assert_eq!(sent, expected, "{step}, {conn}");
            }
        }
    }
}

/// Cuts a PeerPresent frame to the short form if the recorded relay sends that one.
fn cut(mut frame: Vec<u8>, like: Option<&Vec<u8>>) -> Vec<u8> {
    let present = FrameType::PeerPresent.to_u8();
    if frame[0] == present && like.is_some_and(|like| like[0] == present && like.len() == SHORT_PRESENT) {
        frame.truncate(SHORT_PRESENT);
        frame[4] = 32;
    }
    frame
}

#[test]
fn a_session_with_a_tailscale_relay() {
    Replay::run("derp_session_tailscale.json");
}

#[test]
fn a_session_with_a_coder_relay() {
    Replay::run("derp_session_coder.json");
}
