//! A relay without sockets: what it would write is collected per connection.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relay::server::{READ_BUFFER, Request, Sink, Transport, Written};
use relay::{ConnId, MeshKey, Router};
use wire::derp::login::{ClientInfo, seal_client_info};
use wire::derp::{FrameType, HEADER_LEN, Header, encode};
use wire::keys::{NodePrivate, NodePublic, SharedBox};

/// Sockets that take `room` bytes (everything, unless a test says otherwise).
#[derive(Default)]
pub struct Sockets {
    pub written: BTreeMap<ConnId, Vec<u8>>,
    pub room: BTreeMap<ConnId, usize>,
    pub broken: Vec<ConnId>,
    pub writes: usize,
}

impl Sink for Sockets {
    fn write(&mut self, to: ConnId, parts: &[IoSlice<'_>]) -> Written {
        if self.broken.contains(&to) {
            return Written::Broken;
        }
        self.writes += 1;
        let room = self.room.entry(to).or_insert(usize::MAX);
        let mut taken = 0;
        for part in parts {
            let count = part.len().min(*room);
            self.written.entry(to).or_default().extend_from_slice(&part[..count]);
            *room -= if *room == usize::MAX { 0 } else { count };
            taken += count;
        }
        Written::Taken(taken)
    }
}

pub struct Relay {
    pub router: Router,
    pub sockets: Sockets,
    pub now: Instant,
    pub nonces: Arc<Mutex<VecDeque<[u8; 24]>>>,
    pub requests: Vec<Request>,
    pub buffer: Vec<u8>,
    pub server: NodePublic,
}

pub fn server_key() -> NodePrivate {
    NodePrivate::from_bytes([0x11; 32])
}

/// A client's key.
pub fn key(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

pub fn disco_packet() -> Vec<u8> {
    [&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac][..], &[0; 56]].concat()
}

impl Relay {
    pub fn new(key: NodePrivate, mesh_key: Option<&str>) -> Self {
        let nonces = Arc::new(Mutex::new(VecDeque::new()));
        let queue = Arc::clone(&nonces);
        let next = move || queue.lock().unwrap().pop_front().unwrap_or([7; 24]);
        let server = key.public();
        let router = Router::new(key, mesh_key.and_then(MeshKey::new), next);
        Self {
            router,
            sockets: Sockets::default(),
            now: Instant::now(),
            nonces,
            requests: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            server,
        }
    }

    pub fn accept_as(&mut self, remote: &str, transport: Transport) -> ConnId {
        let remote: SocketAddr = remote.parse().unwrap();
        let id = self.router.accept(self.now, remote, transport, b"");
        self.feed(id, b"");
        self.drain();
        id
    }

    pub fn accept(&mut self) -> ConnId {
        self.accept_as("192.0.2.1:1", Transport::Plain)
    }

    /// A logged-in client; its greeting and ServerInfo are taken off.
    pub fn client(&mut self, private: &NodePrivate) -> ConnId {
        self.client_with(private, &ClientInfo { version: 2, ..ClientInfo::default() })
    }

    pub fn client_with(&mut self, private: &NodePrivate, info: &ClientInfo) -> ConnId {
        let id = self.accept();
        let login = client_info(private, &self.server, info);
        self.feed(id, &login);
        assert_eq!(kinds(&self.take(id)), [FrameType::ServerKey, FrameType::ServerInfo]);
        id
    }

    pub fn feed(&mut self, id: ConnId, bytes: &[u8]) {
        let parts: Vec<&[u8]> = match bytes {
            [] => vec![bytes],
            _ => bytes.chunks(relay::server::READ_AT_ONCE).collect(),
        };
        for bytes in parts {
            let kept = self.router.kept(id);
            self.buffer[kept..kept + bytes.len()].copy_from_slice(bytes);
            self.router.feed(self.now, id, &mut self.buffer, bytes.len(), &mut self.sockets);
        }
        self.drain();
    }

    pub fn writable(&mut self, id: ConnId) {
        self.router.writable(self.now, id, &mut self.sockets);
        self.drain();
    }

    pub fn disconnect(&mut self, id: ConnId) {
        self.router.disconnected(self.now, id, &mut self.sockets);
        self.drain();
    }

    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.router.handle_timeout(self.now, &mut self.sockets);
        self.drain();
    }

    pub fn take(&mut self, id: ConnId) -> Vec<u8> {
        self.sockets.written.remove(&id).unwrap_or_default()
    }

    pub fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    pub fn closed(&self, id: ConnId) -> bool {
        self.requests
            .iter()
            .any(|request| matches!(request, Request::Close { id: closed, .. } if *closed == id))
    }

    fn drain(&mut self) {
        while let Some(request) = self.router.poll() {
            self.requests.push(request);
        }
    }
}

pub fn client_info(private: &NodePrivate, server: &NodePublic, info: &ClientInfo) -> Vec<u8> {
    let mut out = Vec::new();
    seal_client_info(&mut out, &private.public(), &SharedBox::new(private, server), [9; 24], info);
    out
}

pub fn send(to: &NodePublic, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::send_packet(&mut out, to, packet);
    out
}

pub fn recv(from: &NodePublic, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::recv_packet(&mut out, from, packet);
    out
}

/// Splits a stream into whole frames.
pub fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((_, len)) = Header::parse(bytes) {
        let (frame, rest) = bytes.split_at(HEADER_LEN + len);
        frames.push(frame.to_vec());
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a partial frame was written");
    frames
}

pub fn kinds(bytes: &[u8]) -> Vec<FrameType> {
    frames(bytes).iter().map(|frame| FrameType::from_u8(frame[0])).collect()
}

pub fn vectors(name: &str) -> serde_json::Value {
    let path = format!("{}/../../vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

pub fn unhex(value: &serde_json::Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

pub fn private(value: &serde_json::Value) -> NodePrivate {
    NodePrivate::from_bytes(unhex(value).try_into().unwrap())
}
