//! A relay client as nodes have it: reached by dialling, over whatever that brings.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dial::{Deadline, Stream, Target};
use relay::{ClientOptions, ClientSession, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::derpmap::{Region, RelayNode};
use wire::keys::{NodePrivate, NodePublic};

use super::PATIENCE;

pub struct Dialled {
    pub stream: Stream,
    pub session: ClientSession,
    out: Vec<u8>,
    packets: Vec<(NodePublic, Vec<u8>)>,
    gone: Vec<NodePublic>,
    restarting: Vec<Duration>,
    problems: Vec<String>,
    ready: bool,
}

/// The region of one node at `address`; TLS, proved by `pin`, if there is one.
pub fn target(address: SocketAddr, pin: Option<&str>) -> Target {
    let node = RelayNode {
        name: "one".into(),
        host: address.ip().to_string(),
        derp_port: address.port().into(),
        force_http: pin.is_none(),
        cert_name: pin.unwrap_or_default().into(),
        ..RelayNode::default()
    };
    Target::new(Region { nodes: vec![node], ..Region::default() })
}

impl Dialled {
    /// Connects and logs in.
    pub fn connect(target: &Target, key: &NodePrivate) -> Self {
        let connected = dial::relay(target, Deadline::after(PATIENCE)).unwrap();
        let options = ClientOptions { server_key: connected.server_key, ..ClientOptions::default() };
        let session = ClientSession::new(Instant::now(), key.clone(), options);
        let mut client = Self {
            stream: connected.stream,
            session,
            out: Vec::new(),
            packets: Vec::new(),
            gone: Vec::new(),
            restarting: Vec::new(),
            problems: Vec::new(),
            ready: false,
        };
        client.session.start(&mut client.out);
        client.flush();
        let mut early = connected.leftover;
        client.take(&mut early);
        client.wait(|client| client.ready.then_some(()));
        client
    }

    pub fn send(&mut self, to: &NodePublic, packet: &[u8]) {
        self.session.send(to, packet, &mut self.out).unwrap();
        self.flush();
    }

    pub fn next_packet(&mut self) -> (NodePublic, Vec<u8>) {
        self.wait(|client| (!client.packets.is_empty()).then(|| client.packets.remove(0)))
    }

    pub fn next_gone(&mut self) -> NodePublic {
        self.wait(|client| (!client.gone.is_empty()).then(|| client.gone.remove(0)))
    }

    pub fn next_restart(&mut self) -> Duration {
        self.wait(|client| client.restarting.pop())
    }

    pub fn next_problem(&mut self) -> String {
        self.wait(|client| client.problems.pop())
    }

    /// Waits for the end of the stream.
    pub fn closed(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.take(&mut buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.sleep(PollFlags::IN),
                Err(_) => return,
            }
        }
    }

    fn wait<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let mut buffer = vec![0; 1 << 17];
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the relay closed the connection"),
                Ok(count) => {
                    self.take(&mut buffer[..count]);
                    self.flush();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.sleep(PollFlags::IN),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let Self { session, out, packets, gone, restarting, problems, ready, .. } = self;
        session
            .feed(Instant::now(), bytes, out, &mut |event| match event {
                Event::Ready(_) => *ready = true,
                Event::Packet { from, payload } => packets.push((from, payload.to_vec())),
                Event::PeerGone { peer, .. } => gone.push(peer),
                Event::Restarting { reconnect_in, .. } => restarting.push(reconnect_in),
                Event::Health(text) => problems.push(text.to_owned()),
                Event::PeerPresent { .. } | Event::KeepAlive | Event::Pong(_) => {}
            })
            .unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        while !self.out.is_empty() || self.stream.wants_write() {
            match self.stream.write_vectored(&[IoSlice::new(&self.out)]) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.sleep(PollFlags::OUT),
                Err(error) => panic!("{error}"),
            }
            self.stream.flush_pending().unwrap();
        }
    }

    fn sleep(&self, flags: PollFlags) {
        let fd = self.stream.as_fd();
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        assert!(poll(&mut [PollFd::new(&fd, flags)], Some(&limit)).unwrap() > 0, "nothing came");
    }
}
