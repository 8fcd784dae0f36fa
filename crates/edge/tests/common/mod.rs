//! An edge on loopback, relay clients that speak to it in plain blocking sockets, and a small application.
#![allow(dead_code, clippy::unwrap_used)]

pub mod dialled;
pub mod site;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use edge::{Config, Edge};
use wire::derp::login::{ClientInfo, seal_client_info};
use wire::derp::{FrameType, HEADER_LEN, Header, encode};
use wire::keys::{NodePrivate, NodePublic, SharedBox, random_nonce};
use wire::ws;

/// Nothing here takes long; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn server_key() -> NodePrivate {
    NodePrivate::from_bytes(std::array::from_fn(|i| 0x10 + i as u8))
}

/// A path for a Unix socket that no other test uses.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("edge-{}-{number}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

pub fn config() -> Config {
    let mut config = Config::new(vec!["127.0.0.1:0".parse().unwrap()], Some(socket_path()));
    config.relay_key = Some(server_key());
    config.drain = Duration::from_millis(200);
    config
}

pub fn edge() -> Edge {
    Edge::start(config()).unwrap()
}

pub fn connect(edge: &Edge) -> TcpStream {
    let stream = TcpStream::connect(edge.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads until the other side closes.
pub fn exchange(edge: &Edge, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(edge);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// An HTTP message: first line, headers with lower-case names (sorted, without Date), and what follows them.
pub fn parse(message: &[u8]) -> (String, Vec<(String, String)>, Vec<u8>) {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n").expect("no end of head");
    let head = std::str::from_utf8(&message[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let mut headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| name != "date")
        .collect();
    headers.sort();
    (first, headers, message[end + 4..].to_vec())
}

/// Reads one HTTP head, and nothing of what follows.
pub fn read_head(stream: &mut impl Read) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Plain,
    FastStart,
    WebSocket,
}

/// A relay client.
pub struct Derp {
    pub stream: TcpStream,
    pub key: NodePrivate,
    websocket: Option<ws::Decoder>,
    raw: Vec<u8>,
    bytes: Vec<u8>,
}

impl Derp {
    /// Connects and logs in.
    pub fn connect(edge: &Edge, key: NodePrivate, how: How) -> Self {
        let mut client = Self::upgrade(edge, key, how);
        if how != How::FastStart {
            assert_eq!(client.next().0, FrameType::ServerKey);
        }
        let info = client.login(edge);
        client.send(&info);
        if how == How::FastStart {
            assert_eq!(client.next().0, FrameType::ServerKey);
        }
        assert_eq!(client.next().0, FrameType::ServerInfo);
        client
    }

    /// Only the HTTP part.
    pub fn upgrade(edge: &Edge, key: NodePrivate, how: How) -> Self {
        let mut stream = connect(edge);
        let request = match how {
            How::Plain => "Upgrade: DERP\r\nConnection: Upgrade\r\n",
            How::FastStart => "Upgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n",
            How::WebSocket => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n"
            }
        };
        stream.write_all(format!("GET /derp HTTP/1.1\r\nHost: x\r\n{request}\r\n").as_bytes()).unwrap();
        if how != How::FastStart {
            assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 101 "));
        }
        let websocket = (how == How::WebSocket).then(|| ws::Decoder::new(ws::Role::Client));
        Self { stream, key, websocket, raw: Vec::new(), bytes: Vec::new() }
    }

    pub fn login(&self, edge: &Edge) -> Vec<u8> {
        let server = edge.relay_public_key();
        let (mut out, info) = (Vec::new(), ClientInfo { version: 2, ..ClientInfo::default() });
        let shared = SharedBox::new(&self.key, &server);
        seal_client_info(&mut out, &self.key.public(), &shared, random_nonce(), &info);
        out
    }

    pub fn send(&mut self, frames: &[u8]) {
        self.stream.write_all(&self.framed(frames)).unwrap();
    }

    pub fn framed(&self, frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self.websocket {
            Some(_) => ws::encode(&mut out, ws::Opcode::Binary, frames, Some([1, 2, 3, 4])),
            None => out.extend_from_slice(frames),
        }
        out
    }

    pub fn send_packet(&mut self, to: &NodePublic, packet: &[u8]) {
        let mut out = Vec::new();
        encode::send_packet(&mut out, to, packet);
        self.send(&out);
    }

    /// The next frame; panics if the relay closes instead.
    pub fn next(&mut self) -> (FrameType, Vec<u8>) {
        self.try_next().expect("the relay closed the connection")
    }

    /// The next frame, or `None` if the relay has closed the connection.
    pub fn try_next(&mut self) -> Option<(FrameType, Vec<u8>)> {
        loop {
            if let Some((kind, len)) = Header::parse(&self.bytes)
                && self.bytes.len() >= HEADER_LEN + len
            {
                let rest = self.bytes.split_off(HEADER_LEN + len);
                let frame = std::mem::replace(&mut self.bytes, rest);
                return Some((kind, frame[HEADER_LEN..].to_vec()));
            }
            let mut chunk = vec![0; 64 * 1024];
            let len = match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame came: {error}"),
            };
            self.take(&chunk[..len]);
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        let Some(decoder) = &mut self.websocket else { return self.bytes.extend_from_slice(chunk) };
        self.raw.extend_from_slice(chunk);
        loop {
            let step = decoder.decode(&mut self.raw).unwrap();
            if let Some(ws::Event::Data(range)) = step.event {
                self.bytes.extend_from_slice(&self.raw[range]);
            } else if step.consumed == 0 {
                return;
            }
            self.raw.drain(..step.consumed);
        }
    }

    /// Proves that everything sent before has been handled.
    pub fn ping(&mut self) {
        let mut ping = Vec::new();
        encode::ping(&mut ping, b"are you?");
        self.send(&ping);
        assert_eq!(self.next(), (FrameType::Pong, b"are you?".to_vec()));
    }
}

/// Payload of a RecvPacket frame.
pub fn received(from: &NodePublic, packet: &[u8]) -> (FrameType, Vec<u8>) {
    (FrameType::RecvPacket, [from.as_bytes(), packet].concat())
}

/// An application that answers each connection with `serve`, in threads.
pub fn application(path: &PathBuf, serve: impl Fn(UnixStream) + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = std::sync::Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// For numbers that are counted just after what they count can be seen.
pub fn wait_until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never happens");
        std::thread::yield_now();
    }
}
