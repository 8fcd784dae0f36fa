//! A WebSocket peer at the other end of a socket pair.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use socket2::Socket;

use super::*;

const WOULD_BLOCK: io::ErrorKind = io::ErrorKind::WouldBlock;

fn pair(rest: &[u8]) -> (Websocket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Websocket::new(Transport::Plain(Socket::from(OwnedFd::from(ours))), rest), theirs)
}

fn read_all(websocket: &mut Websocket, into: &mut Vec<u8>, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        match websocket.read(&mut buffer, Take::All) {
            Ok(0) => return Ok(()),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == WOULD_BLOCK => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The peer's view of what was sent.
#[derive(Default)]
struct Heard {
    raw: Vec<u8>,
    data: Vec<u8>,
    pongs: Vec<Vec<u8>>,
    close: Option<u16>,
}

impl Heard {
    fn listen(&mut self, peer: &mut UnixStream, decoder: &mut Decoder) {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = peer.read(&mut buffer) {
            self.raw.extend_from_slice(&buffer[..count]);
        }
        loop {
            let step = decoder.decode(&mut self.raw).unwrap();
            match step.event {
                Some(Event::Data(range)) => self.data.extend_from_slice(&self.raw[range]),
                Some(Event::Ping(_)) => panic!("nobody pings"),
                Some(Event::Pong(range)) => self.pongs.push(self.raw[range].to_vec()),
                Some(Event::Close(code)) => self.close = code,
                None => {}
            }
            self.raw.drain(..step.consumed);
            if step.consumed == 0 {
                return;
            }
        }
    }
}

fn heard(peer: &mut UnixStream) -> Heard {
    let mut heard = Heard::default();
    heard.listen(peer, &mut Decoder::new(Role::Server));
    heard
}

#[test]
fn answers_pings_between_fragments() {
    let (mut websocket, mut peer) = pair(&[0x02, 2, b'a', b'b', 0x89, 1, b'p']);
    peer.write_all(&[0x80, 1, b'c', 0x8a, 0]).unwrap();
    let mut data = Vec::new();
    read_all(&mut websocket, &mut data, 100).unwrap();
    assert_eq!(data, b"abc");
    assert_eq!(heard(&mut peer).pongs, [b"p"]);
}

#[test]
fn one_message_per_write() {
    let (mut websocket, mut peer) = pair(b"");
    let parts = [IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b" message")];
    assert_eq!(websocket.write_vectored(&parts).unwrap(), 11);
    assert_eq!(websocket.write_vectored(&[IoSlice::new(b"")]).unwrap(), 0, "no empty message");
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    assert_eq!(head, [0x82, 0x80 | 11]);
}

#[test]
fn the_ordinary_ends_and_the_others() {
    for code in [1000u16, 1001] {
        let (mut websocket, mut peer) = pair(b"");
        peer.write_all(&[&[0x82, 1, b'x', 0x88, 2], code.to_be_bytes().as_slice()].concat()).unwrap();
        let mut data = Vec::new();
        read_all(&mut websocket, &mut data, 10).unwrap();
        assert_eq!(data, b"x");
        assert_eq!(websocket.read(&mut [0; 10], Take::All).unwrap(), 0, "and it stays at its end");
        assert_eq!(heard(&mut peer).close, Some(code));
        let refused = websocket.write_vectored(&[IoSlice::new(b"late")]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    }
    let (mut websocket, mut peer) = pair(b"");
    peer.write_all(&[0x88, 2, 0x03, 0xf0]).unwrap();
    let error = websocket.read(&mut [0; 10], Take::All).unwrap_err();
    assert_eq!(error.to_string(), "WebSocket closed with code 1008");
    let (mut websocket, peer) = pair(b"");
    drop(peer);
    assert_eq!(websocket.read(&mut [0; 10], Take::All).unwrap(), 0);
}

#[test]
fn broken_frames_are_told_so() {
    for (frame, code) in
        [(&[0x81u8, 0][..], 1003), (&[0x82, 0x80, 0, 0, 0, 0][..], 1002), (&[0xf2, 0][..], 1002)]
    {
        let (mut websocket, mut peer) = pair(frame);
        assert_eq!(websocket.read(&mut [0; 9], Take::All).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(heard(&mut peer).close, Some(code));
    }
}

#[test]
fn saying_goodbye() {
    let (mut websocket, mut peer) = pair(b"");
    websocket.close().unwrap();
    websocket.close().unwrap();
    let heard = heard(&mut peer);
    assert_eq!((heard.close, heard.raw.len()), (Some(1000), 0));
}

#[test]
fn a_peer_that_does_not_read_gets_bounded_memory() {
    let (mut websocket, mut peer) = pair(b"");
    let block = vec![7; 1 << 20];
    let mut written = 0;
    let blocked = loop {
        match websocket.write_vectored(&[IoSlice::new(&block)]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(blocked.kind(), WOULD_BLOCK);
    assert!(websocket.wants_write());
    for _ in 0..10_000 {
        peer.write_all(&[0x89, 0]).unwrap();
        let _ = websocket.read(&mut [0; 10], Take::All);
    }
    assert!(websocket.outgoing.len() - websocket.sent < MESSAGE_LIMIT + 2 * PONGS_LIMIT);

    let (mut heard, mut decoder) = (Heard::default(), Decoder::new(Role::Server));
    while websocket.wants_write() {
        heard.listen(&mut peer, &mut decoder);
        websocket.flush().unwrap();
    }
    heard.listen(&mut peer, &mut decoder);
    assert_eq!(heard.data.len(), written);
    assert!(!heard.pongs.is_empty());
}

proptest! {
    #[test]
    fn whatever_the_chunks_the_stream_is_the_same(
        messages in prop::collection::vec((0usize..70_000, any::<bool>()), 1..6),
        cuts in prop::collection::vec(1usize..30_000, 1..20),
        size in 1usize..5000,
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (place, &(length, ping)) in messages.iter().enumerate() {
            let payload: Vec<u8> = (0..length).map(|byte| (byte * 31 + place) as u8).collect();
            encode(&mut stream, Opcode::Binary, &payload, None);
            expected.extend_from_slice(&payload);
            if ping {
                encode(&mut stream, Opcode::Ping, &[place as u8], None);
            }
        }
        let rest = stream.len().min(cuts[0] % 16_000);
        let (mut websocket, mut peer) = pair(&stream[..rest]);
        let mut data = Vec::new();
        let mut left = &stream[rest..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = left.split_at(left.len().min(*cut));
            peer.write_all(piece).unwrap();
            left = after;
            read_all(&mut websocket, &mut data, size).unwrap();
            if left.is_empty() {
                break;
            }
        }
        prop_assert!(data == expected);
        let pinged: Vec<_> = messages.iter().enumerate().filter(|(_, m)| m.1).map(|(place, _)| vec![place as u8]).collect();
        prop_assert_eq!(heard(&mut peer).pongs, pinged);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..500), size in 1usize..600) {
        let (mut websocket, mut peer) = pair(&noise[..noise.len() / 3]);
        peer.write_all(&noise[noise.len() / 3..]).unwrap();
        drop(peer);
        let _ = read_all(&mut websocket, &mut Vec::new(), size);
    }
}

#[test]
fn what_came_with_the_answer_is_read_without_the_socket() {
    let mut rest = Vec::new();
    encode(&mut rest, Opcode::Binary, b"greeting", None);
    encode(&mut rest, Opcode::Binary, b"more", None);
    let (mut websocket, mut peer) = pair(&rest);
    let mut later = Vec::new();
    encode(&mut later, Opcode::Binary, b"later", None);
    peer.write_all(&later).unwrap();
    let mut buffer = [0; 64];
    for expected in [&b"greeting"[..], b"more"] {
        let count = websocket.read(&mut buffer, Take::Held).unwrap();
        assert_eq!(&buffer[..count], expected);
    }
    assert_eq!(websocket.read(&mut buffer, Take::Held).unwrap_err().kind(), WOULD_BLOCK);
    let count = websocket.read(&mut buffer, Take::All).unwrap();
    assert_eq!(&buffer[..count], b"later");
}
