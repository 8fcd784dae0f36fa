//! DERP frames of both directions, one after the other, and the rewriting in place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::derp::rewrite::{forward_to_recv, send_to_recv};
use wire::derp::{FromClient, FromServer, HEADER_LEN, Header};
use wire::keys::NodePublic;

fuzz_target!(|input: &[u8]| {
    let mut stream = input;
    while let Some((kind, len)) = Header::parse(stream) {
        assert_eq!(Header::bytes(kind, len), stream[..HEADER_LEN]);
        let Some(payload) = stream[HEADER_LEN..].get(..len) else { break };
        let _ = FromServer::parse(kind, payload);
        let client = FromClient::parse(kind, payload);
        rewrite(&stream[..HEADER_LEN + len], client.ok());
        stream = &stream[HEADER_LEN + len..];
    }
    rewrite(stream, None);
});

/// What the rewritten frame says must agree with what the client's frame said.
fn rewrite(frame: &[u8], client: Option<FromClient<'_>>) {
    let source = NodePublic::from_bytes([7; 32]);
    let (mut copy, mut start) = (frame.to_vec(), 0);
    let destination = send_to_recv(&mut copy, &source).or_else(|| {
        let (destination, at) = forward_to_recv(&mut copy)?;
        start = at;
        Some(destination)
    });
    if destination.is_none() {
        assert_eq!(copy, frame);
    }
    let (to, from, packet) = match client {
        Some(FromClient::Packet { to, packet }) => (to, source, packet),
        Some(FromClient::Forward { from, to, packet }) => (to, from, packet),
        _ => return,
    };
    assert_eq!(destination, Some(to));
    let (kind, len) = Header::parse(&copy[start..]).expect("a whole frame");
    assert_eq!(copy.len() - start, HEADER_LEN + len);
    assert_eq!(FromServer::parse(kind, &copy[start + HEADER_LEN..]), Ok(FromServer::Packet { from, packet }));
}
