//! Requests that are the application's.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{application, config, connect, exchange, parse, read_head, wait_until};
use edge::Edge;

/// Answers every request on a connection with the request itself, head and body, as one body.
fn echo(connections: Arc<AtomicUsize>) -> impl Fn(std::os::unix::net::UnixStream) + Send + Sync {
    move |mut stream| {
        connections.fetch_add(1, Ordering::Relaxed);
        while let Some(request) = read_request(&mut stream) {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-App: yes\r\nKeep-Alive: timeout=5\r\n\r\n",
                request.len()
            );
            stream.write_all(&[head.as_bytes(), &request].concat()).unwrap();
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut byte = [0];
    if stream.read(&mut byte).ok()? == 0 {
        return None;
    }
    let head = [&byte[..], &read_head(stream)].concat();
    let (_, headers, _) = parse(&head);
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if let Some(len) = header("content-length") {
        body.resize(len.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    } else if header("transfer-encoding") == Some("chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            body.push(byte[0]);
        }
    }
    Some([head, body].concat())
}

fn edge_with_echo() -> (Edge, Arc<AtomicUsize>) {
    let (config, connections) = (config(), Arc::new(AtomicUsize::new(0)));
    application(config.upstream.as_ref().unwrap(), echo(Arc::clone(&connections)));
    (Edge::start(config).unwrap(), connections)
}

#[test]
fn the_application_sees_the_request_and_who_asks() {
    let (edge, _) = edge_with_echo();
    let answer = exchange(
        &edge,
        b"POST /api/v2/x?a=b%20c HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
          Forwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nTE: trailers\r\nX-Hop: 1\r\n\
          Connection: close, x-hop\r\nContent-Length: 5\r\n\r\nhello",
    );
    let (first, headers, body) = parse(&answer);
    assert_eq!(first, "HTTP/1.1 200 OK");
    assert!(headers.contains(&("x-app".to_owned(), "yes".to_owned())));
    assert!(!headers.iter().any(|(name, _)| name == "keep-alive"));
    let (first, headers, body) = parse(&body);
    assert_eq!(first, "POST /api/v2/x?a=b%20c HTTP/1.1");
    let expected = [
        ("content-length", "5"),
        ("host", "example.com"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "example.com"),
        ("x-forwarded-proto", "http"),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, expected);
    assert_eq!(body, b"hello");
}

#[test]
fn of_a_trusted_proxys_chain_the_application_sees_the_client_alone() {
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    application(config.upstream.as_ref().unwrap(), echo(Arc::default()));
    let edge = Edge::start(config).unwrap();
    let answer = exchange(
        &edge,
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.5\r\nX-Forwarded-For: 127.0.0.9\r\n\
          X-Forwarded-Proto: http, https, http\r\nX-Real-IP: 6.6.6.6\r\nConnection: close\r\n\r\n",
    );
    let (_, headers, _) = parse(&parse(&answer).2);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("host", "a"),
        ("x-forwarded-for", "203.0.113.5"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(headers, expected);
}

#[test]
fn requests_share_a_connection_to_the_application() {
    let (edge, connections) = edge_with_echo();
    let mut stream = connect(&edge);
    for _ in 0..5 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (_, headers, _) = parse(&read_head(&mut stream));
        let len = headers.iter().find(|(name, _)| name == "content-length").unwrap().1.parse().unwrap();
        stream.read_exact(&mut vec![0; len]).unwrap();
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_request_with_two_lengths_is_one_chunked_request_and_the_last() {
    let (edge, _) = edge_with_echo();
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let head = format!("POST /one HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let answer = exchange(&edge, &[head.as_bytes(), smuggled].concat());
        let (_, headers, seen) = parse(&answer);
        assert!(headers.contains(&("connection".to_owned(), "close".to_owned())));
        let (first, headers, body) = parse(&seen);
        assert_eq!(first, "POST /one HTTP/1.1");
        assert!(!headers.iter().any(|(name, _)| name == "content-length"));
        assert_eq!(body, b"5\r\nhello\r\n0\r\n\r\n");
    }
}

#[test]
fn ambiguous_requests_are_refused_and_counted() {
    let (edge, connections) = edge_with_echo();
    let bad = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\nConnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    for (number, request) in bad.iter().enumerate() {
        let mut stream = connect(&edge);
        stream.write_all(request.as_bytes()).unwrap();
        assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 400 "), "{request}");
        drop(stream);
        wait_until(|| edge.counters().malformed == number as u64 + 1);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let mut config = config();
    config.head_timeout = Duration::from_millis(50);
    let edge = Edge::start(config).unwrap();
    let mut stream = connect(&edge);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    wait_until(|| edge.counters().malformed == 1);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let edge = common::edge();
    let line = |len: usize| format!("X-Long: {}\r\n", "a".repeat(len));
    for (number, (target, lines)) in [
        ("/", line(40_000).repeat(2)),
        ("/", line(300_000)),
        (&format!("/{}", "a".repeat(65_500)), line(100)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = connect(&edge);
        // The edge may answer and close before it has all of it.
        let _ = stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 431", "{number}");
        drop(stream);
        wait_until(|| edge.counters().malformed == number as u64 + 1);
    }
}

#[test]
fn without_an_application_the_answer_is_502_in_its_form() {
    let edge = common::edge();
    let answer = exchange(&edge, b"GET /api/v2/buildinfo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let (first, headers, body) = parse(&answer);
    assert_eq!(first, "HTTP/1.1 502 Bad Gateway");
    assert!(headers.contains(&("content-type".to_owned(), "application/json; charset=utf-8".to_owned())));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(body["message"].as_str().unwrap().contains("does not answer"));
    assert_eq!(edge.counters().upstream_errors, 1);
}

#[test]
fn without_a_relay_its_paths_are_the_applications() {
    let mut config = config();
    config.derp = false;
    application(config.upstream.as_ref().unwrap(), echo(Arc::default()));
    let edge = Edge::start(config).unwrap();
    for path in ["/derp", "/derp/latency-check", "/generate_204"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: DERP\r\nConnection: close\r\n\r\n");
        let (first, ..) = parse(&parse(&exchange(&edge, request.as_bytes())).2);
        assert_eq!(first, format!("GET {path} HTTP/1.1"));
    }
}

#[test]
fn a_websocket_passes_as_bytes_both_ways() {
    let config = config();
    application(config.upstream.as_ref().unwrap(), |mut stream| {
        let (_, headers, _) = parse(&read_head(&mut stream));
        assert!(headers.contains(&("upgrade".to_owned(), "websocket".to_owned())));
        assert!(headers.contains(&("connection".to_owned(), "upgrade".to_owned())));
        assert!(headers.contains(&("sec-websocket-key".to_owned(), "abc".to_owned())));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: def\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&[b"echo ", &bytes[..]].concat()).unwrap();
    });
    let edge = Edge::start(config).unwrap();
    let mut stream = connect(&edge);
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: abc\r\n\r\n",
        )
        .unwrap();
    let (first, headers, _) = parse(&read_head(&mut stream));
    assert_eq!(first, "HTTP/1.1 101 Switching Protocols");
    assert!(headers.contains(&("sec-websocket-accept".to_owned(), "def".to_owned())));
    assert!(headers.contains(&("upgrade".to_owned(), "websocket".to_owned())));
    stream.write_all(b"\x00\xffab").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"firstecho \x00\xffab");
}

#[test]
fn a_large_body_streams_through() {
    let (edge, _) = edge_with_echo();
    let mut stream = connect(&edge);
    let body: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let head = format!(
        "PUT /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(parse(&parse(&answer).2).2 == body);
}

#[test]
fn a_second_request_on_a_connection_can_upgrade_too() {
    let edge = common::edge();
    let mut stream = connect(&edge);
    stream
        .write_all(
            b"GET /derp/latency-check HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
        )
        .unwrap();
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n"));
    let mut greeting = [0; 45];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[..5], [1, 0, 0, 0, 40]);
}

#[test]
fn the_front_goes_on_whatever_it_is_sent() {
    use proptest::test_runner::{Config, TestRunner};
    const START: &[u8] = b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade";
    let edge = common::edge();
    let head = proptest::collection::vec(proptest::num::u8::ANY, 0..300);
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(0usize..40, head), |(keep, garbage)| {
        let start = &START[..keep.min(START.len())];
        let mut stream = connect(&edge);
        // It may be refused before all of it is written, and the refusal may be cut off by a reset.
        let _ = stream.write_all(&[start, &garbage].concat());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        let answer = exchange(&edge, b"GET /derp/probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        proptest::prop_assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        Ok(())
    });
    outcome.unwrap();
    wait_until(|| edge.counters().connections == 0);
}
