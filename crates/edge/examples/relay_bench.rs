//! Measures the relay on loopback: pairs of clients that send 1200-byte packets through one edge.
//!
//!     cargo run --release -p edge --example relay_bench -- [PAIRS] [WINDOW] [SECONDS] [plain|websocket]
//!
//! WINDOW is the number of packets a pair has in flight; 0 is as many as TCP takes. Prints packets and Gbit per second,
//! loss, and the CPU time of the relay's thread for each Gbit of packets.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use edge::{Config, Edge};
use wire::derp::login::{ClientInfo, seal_client_info};
use wire::derp::{HEADER_LEN, Header, encode};
use wire::keys::{NodePrivate, NodePublic, SharedBox, random_nonce};
use wire::ws;

const PACKET: usize = 1200;
/// Packets a sender writes at once, at most.
const BATCH: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default| arguments.get(index).map_or(default, |text| text.parse().unwrap());
    let (pairs, window, seconds) = (number(0, 1), number(1, 24), number(2, 3));
    let websocket = arguments.get(3).is_some_and(|how| how == "websocket");
    let edge = Edge::start(Config::new(vec!["127.0.0.1:0".parse().unwrap()], None)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    for _ in 0..pairs {
        pair(edge.addresses()[0], edge.relay_public_key(), window as usize, websocket, &stop, &received);
    }
    std::thread::sleep(Duration::from_millis(300));
    let (start, before, packets) = (Instant::now(), edge.counters(), received.load(Ordering::Relaxed));
    std::thread::sleep(Duration::from_secs(seconds));
    let (elapsed, after) = (start.elapsed().as_secs_f64(), edge.counters());
    let packets = (received.load(Ordering::Relaxed) - packets) as f64;
    stop.store(true, Ordering::Relaxed);
    let gbit = packets * PACKET as f64 * 8.0 / 1e9;
    let cpu = (after.relay_cpu - before.relay_cpu).as_secs_f64();
    let lost = after.relay.dropped.queue_full - before.relay.dropped.queue_full;
    println!(
        "{pairs} pairs, window {window}: {:.0} packets/s, {:.2} Gbit/s, {:.3} CPU-s per Gbit ({:.2} per GB), \
         relay busy {:.0} %, lost {:.2} %, pauses {}",
        packets / elapsed,
        gbit / elapsed,
        cpu / gbit,
        cpu / gbit * 8.0,
        100.0 * cpu / elapsed,
        100.0 * lost as f64 / (packets + lost as f64),
        after.relay.pauses - before.relay.pauses,
    );
    std::process::exit(0);
}

/// One sender and one receiver, a thread each. The window is kept between them, outside the relay.
fn pair(
    relay: SocketAddr,
    server: NodePublic,
    window: usize,
    websocket: bool,
    stop: &Arc<AtomicBool>,
    received: &Arc<AtomicU64>,
) {
    let (sender_key, receiver_key) = (NodePrivate::generate(), NodePrivate::generate());
    let mut sender = connect(relay, &server, &sender_key, websocket);
    let mut receiver = connect(relay, &server, &receiver_key, websocket);
    let credit = Arc::new((Mutex::new(if window == 0 { usize::MAX } else { window }), Condvar::new()));
    let (returned, stop_sending, received) = (Arc::clone(&credit), Arc::clone(stop), Arc::clone(received));
    std::thread::spawn(move || {
        let mut frame = Vec::new();
        encode::send_packet(&mut frame, &receiver_key.public(), &[0; PACKET]);
        while !stop_sending.load(Ordering::Relaxed) {
            let mut credit = returned.0.lock().unwrap();
            while *credit == 0 {
                credit = returned.1.wait(credit).unwrap();
            }
            let count = BATCH.min(*credit);
            *credit -= if *credit > usize::MAX / 2 { 0 } else { count };
            drop(credit);
            let batch = frame.repeat(count);
            let mut out = Vec::new();
            match websocket {
                true => ws::encode(&mut out, ws::Opcode::Binary, &batch, Some([1, 2, 3, 4])),
                false => out = batch,
            }
            if sender.write_all(&out).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let (mut bytes, frame) = (0, HEADER_LEN + 32 + PACKET);
        while let Ok(len @ 1..) = receiver.read(&mut buffer) {
            // WebSocket headers are a few bytes per message and do not matter here.
            bytes += len;
            let count = bytes / frame;
            bytes %= frame;
            received.fetch_add(count as u64, Ordering::Relaxed);
            if window > 0 {
                *credit.0.lock().unwrap() += count;
                credit.1.notify_one();
            }
        }
    });
}

fn connect(relay: SocketAddr, server: &NodePublic, key: &NodePrivate, websocket: bool) -> TcpStream {
    let mut stream = TcpStream::connect(relay).unwrap();
    stream.set_nodelay(true).unwrap();
    let upgrade = match websocket {
        true => {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: derp\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        false => "Upgrade: DERP\r\nDerp-Fast-Start: 1\r\n",
    };
    write!(stream, "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{upgrade}\r\n").unwrap();
    let (mut login, mut byte) = (Vec::new(), [0]);
    if websocket {
        while !login.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            login.push(byte[0]);
        }
        login.clear();
    }
    let shared = SharedBox::new(key, server);
    seal_client_info(&mut login, &key.public(), &shared, random_nonce(), &ClientInfo::default());
    if websocket {
        let frames = std::mem::take(&mut login);
        ws::encode(&mut login, ws::Opcode::Binary, &frames, Some([1, 2, 3, 4]));
    }
    stream.write_all(&login).unwrap();
    for _ in 0..2 {
        // ServerKey and ServerInfo; on a WebSocket each in a message with a header of two bytes.
        let mut header = [0; HEADER_LEN + 2];
        let header = if websocket { &mut header[..] } else { &mut header[2..] };
        stream.read_exact(header).unwrap();
        let (_, len) = Header::parse(&header[header.len() - HEADER_LEN..]).unwrap();
        stream.read_exact(&mut vec![0; len]).unwrap();
    }
    stream
}
