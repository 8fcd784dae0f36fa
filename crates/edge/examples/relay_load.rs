//! Loads any DERP relay that listens on plain HTTP: pairs of clients that send 1200-byte packets, or many that only wait.
//!
//!     cargo run --release -p edge --example relay_load -- ADDRESS pairs COUNT WINDOW SECONDS [websocket]
//!     cargo run --release -p edge --example relay_load -- ADDRESS idle COUNT
//!
//! ADDRESS may be two with a comma between: senders use the first, receivers the second, another relay of the region.
//! WINDOW is the number of packets a pair has in flight; 0 is as many as TCP takes. `pairs` prints `begin`, later `end`
//! and what was sent and received in between; `idle` prints `begin` and waits for the end of its input.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use wire::derp::login::{ClientInfo, open_greeting, seal_client_info};
use wire::derp::{FrameType, HEADER_LEN, Header, encode};
use wire::keys::{NodePrivate, SharedBox, random_nonce};
use wire::ws;

const PACKET: usize = 1200;
/// Packets a sender writes at once, at most. About 64 KiB, as a receiver reads: larger buffers of twenty clients would be
/// what is measured.
const BATCH: usize = 50;
/// Bytes a receiver reads at once, at most.
const READ: usize = 64 << 10;
/// Time until all pairs are at their pace.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).map_or(0, |text| text.parse::<u64>().unwrap());
    let address = arguments.first().expect("which relay?").as_str();
    match arguments.get(1).map(String::as_str) {
        Some("pairs") => {
            let websocket = arguments.get(5).is_some_and(|how| how == "websocket");
            pairs(address, number(2), number(3) as usize, Duration::from_secs(number(4)), websocket);
        }
        Some("idle") => {
            let held: Vec<TcpStream> =
                (0..number(2)).map(|_| connect(address, &NodePrivate::generate(), false)).collect();
            println!("begin {}", held.len());
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        _ => panic!("pairs or idle?"),
    }
    std::process::exit(0);
}

#[derive(Default)]
struct Totals {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

fn pairs(address: &str, count: u64, window: usize, time: Duration, websocket: bool) {
    let totals = Arc::new(Totals::default());
    for _ in 0..count {
        pair(address, window, websocket, &totals);
    }
    std::thread::sleep(WARM_UP);
    let read = || (totals.sent.load(Ordering::Relaxed), totals.received.load(Ordering::Relaxed));
    let (start, before) = (Instant::now(), read());
    println!("begin");
    std::thread::sleep(time);
    let (elapsed, after) = (start.elapsed().as_secs_f64(), read());
    println!("end {elapsed} {} {}", after.0 - before.0, after.1 - before.1);
    totals.stop.store(true, Ordering::Relaxed);
}

/// One sender and one receiver, a thread each. The window is kept between them, outside the relay.
fn pair(address: &str, window: usize, websocket: bool, totals: &Arc<Totals>) {
    let (sender_key, receiver_key) = (NodePrivate::generate(), NodePrivate::generate());
    let (first, second) = address.split_once(',').unwrap_or((address, address));
    let mut receiver = connect(second, &receiver_key, websocket);
    let mut sender = connect(first, &sender_key, websocket);
    let credit = Arc::new((Mutex::new(if window == 0 { usize::MAX } else { window }), Condvar::new()));
    let (returned, sending, totals) = (Arc::clone(&credit), Arc::clone(totals), Arc::clone(totals));
    std::thread::spawn(move || {
        let mut frame = Vec::new();
        encode::send_packet(&mut frame, &receiver_key.public(), &[0; PACKET]);
        let (batch, one) = (frame.repeat(BATCH), frame.len());
        while !sending.stop.load(Ordering::Relaxed) {
            let mut credit = returned.0.lock().unwrap();
            while *credit == 0 {
                credit = returned.1.wait(credit).unwrap();
            }
            let count = BATCH.min(*credit);
            *credit -= if *credit > usize::MAX / 2 { 0 } else { count };
            drop(credit);
            let batch = &batch[..count * one];
            let mut out = Vec::new();
            let out = match websocket {
                true => {
                    ws::encode(&mut out, ws::Opcode::Binary, batch, Some([1, 2, 3, 4]));
                    &out
                }
                false => batch,
            };
            if sender.write_all(out).is_err() {
                return;
            }
            sending.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ];
        let (mut bytes, frame) = (0, HEADER_LEN + 32 + PACKET);
        while let Ok(len @ 1..) = receiver.read(&mut buffer) {
            // WebSocket headers are a few bytes per message and do not matter here.
            bytes += len;
            let count = bytes / frame;
            bytes %= frame;
            totals.received.fetch_add(count as u64, Ordering::Relaxed);
            if window > 0 {
                *credit.0.lock().unwrap() += count;
                credit.1.notify_one();
            }
        }
    });
}

/// Connects, upgrades and logs in; the relay's key is that of its greeting.
fn connect(address: &str, key: &NodePrivate, websocket: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let upgrade = match websocket {
        true => {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: derp\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        false => "Upgrade: DERP\r\n",
    };
    write!(stream, "GET /derp HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n{upgrade}\r\n").unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let greeting = frame(&mut stream, websocket);
    let server = open_greeting(FrameType::ServerKey, &greeting).unwrap();
    let mut login = Vec::new();
    let info = ClientInfo { version: 2, ..ClientInfo::default() };
    seal_client_info(&mut login, &key.public(), &SharedBox::new(key, &server), random_nonce(), &info);
    if websocket {
        let frames = std::mem::take(&mut login);
        ws::encode(&mut login, ws::Opcode::Binary, &frames, Some([1, 2, 3, 4]));
    }
    stream.write_all(&login).unwrap();
    frame(&mut stream, websocket);
    stream
}

/// The payload of the next frame; on a WebSocket it is alone in a short message.
fn frame(stream: &mut TcpStream, websocket: bool) -> Vec<u8> {
    let mut header = [0; HEADER_LEN + 2];
    let header = if websocket { &mut header[..] } else { &mut header[2..] };
    stream.read_exact(header).unwrap();
    let (_, len) = Header::parse(&header[header.len() - HEADER_LEN..]).unwrap();
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).unwrap();
    payload
}
