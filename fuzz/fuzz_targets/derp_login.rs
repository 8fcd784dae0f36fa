//! The DERP login: strangers' boxes never open; any text in a good box is an info or an error.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire::derp::FrameType;
use wire::derp::login::{open_client_info, open_greeting, open_server_info};
use wire::keys::{NodePrivate, NodePublic, SharedBox};

const NONCE: [u8; 24] = [3; 24];

struct Pair {
    server: NodePrivate,
    client: NodePublic,
    shared: SharedBox,
}

static PAIR: LazyLock<Pair> = LazyLock::new(|| {
    let (client, server) = (NodePrivate::from_bytes([1; 32]), NodePrivate::from_bytes([2; 32]));
    let shared = SharedBox::new(&client, &server.public());
    Pair { server, client: client.public(), shared }
});

fuzz_target!(|input: &[u8]| {
    let Pair { server, client, shared } = &*PAIR;
    let _ = (open_greeting(FrameType::ServerKey, input), open_server_info(shared, input));
    let _ = open_client_info(server, input);
    let sealed = [&NONCE[..], &shared.seal(NONCE, input)].concat();
    let _ = open_server_info(shared, &sealed);
    let _ = open_client_info(server, &[client.as_bytes(), sealed.as_slice()].concat());
});
