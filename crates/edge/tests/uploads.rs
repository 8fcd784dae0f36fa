//! Bodies of requests that are too large, too slow or broken, and how many connections there may be.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{application, config, connect, exchange, parse, read_head, wait_until};
use edge::{Config, Edge};

/// Reads to the end and answers nothing; counts the bytes behind the heads.
fn sink(bodies: Arc<AtomicU64>) -> impl Fn(UnixStream) + Send + Sync {
    move |mut stream| {
        read_head(&mut stream);
        let mut body = Vec::new();
        // The edge may reset the connection; what came before counts.
        let _ = stream.read_to_end(&mut body);
        bodies.fetch_add(body.len() as u64, Ordering::Relaxed);
    }
}

/// Answers 204 when all of a body of that length is there.
fn takes(len: usize) -> impl Fn(UnixStream) + Send + Sync {
    move |mut stream| {
        read_head(&mut stream);
        stream.read_exact(&mut vec![0; len]).unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    }
}

fn start(config: Config, serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Edge {
    application(config.upstream.as_ref().unwrap(), serve);
    Edge::start(config).unwrap()
}

fn small_bodies() -> Config {
    let mut config = config();
    config.body.most = 1000;
    config
}

fn post(framing: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes(), body].concat()
}

/// An exchange after which the client sends no more, so that nobody waits for that.
fn last_exchange(edge: &Edge, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(edge);
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// The answer is in the application's form and the last one.
fn assert_refused(answer: &[u8], first: &str) {
    let (status, headers, body) = parse(answer);
    assert_eq!(status, first);
    assert!(headers.contains(&("connection".to_owned(), "close".to_owned())));
    assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["message"].is_string());
}

#[test]
fn a_body_may_be_as_long_as_allowed() {
    let edge = start(small_bodies(), takes(1000));
    let mut stream = connect(&edge);
    stream.write_all(&post("Content-Length: 1000", &[7; 1000])).unwrap();
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 204 "));
}

#[test]
fn a_body_that_says_that_it_is_too_long_does_not_reach_the_application() {
    let edge = start(small_bodies(), |_| panic!("asked"));
    for (framing, body) in [
        ("Content-Length: 1001", &[7; 1001][..]),
        ("Content-Length: 1001\r\nExpect: 100-continue", &[]),
        ("Content-Length: 18446744073709551613", &[]),
    ] {
        assert_refused(&last_exchange(&edge, &post(framing, body)), "HTTP/1.1 413 Payload Too Large");
    }
    wait_until(|| edge.counters().malformed == 3);
}

#[test]
fn a_chunked_body_is_cut_where_it_becomes_too_long() {
    let bodies = Arc::new(AtomicU64::new(0));
    let edge = start(small_bodies(), sink(Arc::clone(&bodies)));
    let chunk = [b"190\r\n", &[7; 400][..], b"\r\n"].concat();
    let answer = last_exchange(&edge, &post("Transfer-Encoding: chunked", &chunk.repeat(5)));
    assert_refused(&answer, "HTTP/1.1 413 Payload Too Large");
    // However its chunks are cut on the way, framing included.
    wait_until(|| bodies.load(Ordering::Relaxed) > 0 && bodies.load(Ordering::Relaxed) < 1100);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let mut config = config();
    config.body.first = Duration::from_millis(50);
    let edge = start(config, sink(Arc::default()));
    for (framing, body) in [("Content-Length: 9", &b"a"[..]), ("Transfer-Encoding: chunked", b"1\r\na\r\n")] {
        assert_refused(&exchange(&edge, &post(framing, body)), "HTTP/1.1 408 Request Timeout");
    }
    wait_until(|| edge.counters().connections == 0);
    assert_eq!(edge.counters().malformed, 2);
    assert_eq!(edge.counters().upstream_errors, 0);
}

#[test]
fn a_broken_body_is_the_clients_fault() {
    let edge = start(config(), sink(Arc::default()));
    for body in [&b"zz\r\nhello\r\n"[..], b"2\r\nhello\r\n", b"ffffffffffffffffff\r\n", b"5\r\nhello\r\n\r\n"]
    {
        let answer = exchange(&edge, &post("Transfer-Encoding: chunked", body));
        assert_refused(&answer, "HTTP/1.1 400 Bad Request");
    }
    assert_eq!(edge.counters().malformed, 4);
    assert_eq!(edge.counters().upstream_errors, 0);
}

#[test]
fn what_flows_after_an_upgrade_is_no_body() {
    let mut config = small_bodies();
    (config.body.first, config.body.window) = (Duration::ZERO, Duration::ZERO);
    let edge = start(config, |mut stream| {
        read_head(&mut stream);
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .unwrap();
        let mut bytes = vec![0; 5000];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut stream = connect(&edge);
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 101 "));
    stream.write_all(&[7; 5000]).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [7; 5000]);
}

#[test]
fn an_answer_that_asks_for_an_upgrade_says_to_what() {
    let edge = start(config(), |mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let mut stream = connect(&edge);
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (first, headers, _) = parse(&read_head(&mut stream));
    assert_eq!(first, "HTTP/1.1 426 Upgrade Required");
    assert!(headers.contains(&("upgrade".to_owned(), "websocket".to_owned())));
    assert!(headers.contains(&("connection".to_owned(), "upgrade".to_owned())));
}

#[test]
fn one_source_cannot_take_all_connections_unless_it_is_a_trusted_proxy() {
    for (trusted, refused) in [(vec![], 1), (vec!["127.0.0.1".parse().unwrap()], 0)] {
        let mut config = config();
        config.max_connections_per_source = 2;
        config.trusted_proxies = trusted;
        let edge = Edge::start(config).unwrap();
        let held: Vec<_> = (0..3).map(|_| connect(&edge)).collect();
        wait_until(|| edge.counters().accepted + edge.counters().refused == 3);
        assert_eq!(edge.counters().refused, refused);
        drop(held);
        wait_until(|| edge.counters().connections == 0);
        assert!(
            exchange(&edge, b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .starts_with(b"HTTP/1.1 200 ")
        );
    }
}
