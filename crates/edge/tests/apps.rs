//! Requests for apps of workspaces: tickets, what is carried, what is kept back, and the end of a leave.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use common::site::{HOST, Site, cookie, site, site_with, ticket, values};
use common::{PATIENCE, config, connect, exchange, parse, read_head, wait_until};
use edge::DialError;

/// Answers each request with its own head and body (of a stated length), and headers that apps have no say in.
fn echo(mut stream: UnixStream) {
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|len| len == 1) {
        let mut request = [&byte[..], &read_head(&mut stream)].concat();
        let (_, headers, _) = parse(&request);
        if let Some((_, len)) = headers.iter().find(|(name, _)| name == "content-length") {
            let mut body = vec![0; len.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            request.extend(body);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: coder_session_token=evil\r\nSet-Cookie: app=1\r\n\
             Access-Control-Allow-Origin: *\r\nKeep-Alive: timeout=5\r\n\r\n",
            request.len()
        );
        stream.write_all(&[head.as_bytes(), &request].concat()).unwrap();
    }
}

fn get(site: &Site, host: &str, path: &str, headers: &str) -> (String, Vec<(String, String)>, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    parse(&exchange(&site.edge, request.as_bytes()))
}

#[test]
fn a_ticket_opens_its_app_and_nobody_is_asked() {
    let site = site(echo);
    let own = "Cookie: a=1; coder_session_token=s; coder_signed_app_token=";
    let headers = format!(
        "{own}{}; b=2\r\nCoder-Session-Token: s\r\nAuthorization: Bearer theirs\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X-Forwarded-Host: evil.test\r\nCoder-Edge-Secret: x\r\nX-CamelCase: y\r\n",
        ticket(HOST, 60)
    );
    let (first, headers, body) = get(&site, &format!("{HOST}:3000"), "/x%20y?a=b", &headers);
    assert_eq!(first, "HTTP/1.1 200 OK");
    assert_eq!(values(&headers, "set-cookie"), ["app=1"]);
    assert!(values(&headers, "access-control-allow-origin").is_empty());
    assert!(values(&headers, "keep-alive").is_empty());
    assert!(String::from_utf8_lossy(&body).contains("X-CamelCase: y"));
    let (first, headers, _) = parse(&body);
    assert_eq!(first, "GET /base/x%20y?a=b HTTP/1.1");
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let host = format!("{HOST}:3000");
    let expected = [
        ("authorization", "Bearer theirs"),
        ("cookie", "a=1; b=2"),
        ("host", &host),
        ("x-camelcase", "y"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", &host),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(site.judge.asked(), 0);
    assert_eq!(site.edge.counters().app_requests, 1);
}

#[test]
fn without_a_ticket_the_application_decides() {
    let site = site(echo);
    let (first, headers, body) = get(&site, HOST, "/x?q", "Cookie: s=1\r\nCoder-Edge-At: forged\r\n");
    assert_eq!(first, "HTTP/1.1 200 OK");
    assert!(values(&headers, "set-cookie")[1].starts_with("coder_signed_app_token=ey"));
    assert_eq!(parse(&body).0, "GET /base/x?q HTTP/1.1");
    let questions = site.judge.questions.lock().unwrap().clone();
    let (first, headers) = &questions[0];
    assert_eq!(first, "GET /-/edge/app HTTP/1.1");
    let expected = [
        ("coder-edge-at", HOST),
        ("coder-edge-host", HOST),
        ("coder-edge-method", "GET"),
        ("coder-edge-secret", "the-secret"),
        ("coder-edge-target", "/x?q"),
        ("cookie", "s=1"),
        ("host", "coder.test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-proto", "http"),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, expected);
    site.judge.refuses.store(true, Ordering::Relaxed);
    let (first, headers, body) = get(&site, HOST, "/", "");
    assert_eq!((first.as_str(), &body[..]), ("HTTP/1.1 404 Not Found", &b"page"[..]));
    assert_eq!(values(&headers, "set-cookie"), ["kept=1"]);
    assert_eq!(site.dialled.load(Ordering::Relaxed), 1);
}

#[test]
fn a_ticket_is_worth_nothing_elsewhere_or_later_or_changed() {
    let site = site(echo);
    site.judge.refuses.store(true, Ordering::Relaxed);
    let changed = cookie(HOST).replace("coder_signed_app_token=ey", "coder_signed_app_token=eY");
    let late = format!("Cookie: coder_signed_app_token={}\r\n", ticket(HOST, 0));
    let tries = [
        ("8081--main--dev--alice.apps.test", "/", cookie(HOST)),
        ("coder.test", "/@alice/dev/apps/code/", cookie(HOST)),
        ("coder.test", "/@alice/dev/apps/code/", cookie("/@alice/dev/apps/other/")),
        ("coder.test", "/@alice/dev/apps/code", cookie("/@alice/dev/apps/code/")),
        (HOST, "/", changed),
        (HOST, "/", late),
        (HOST, "/", format!("{}Origin: https://evil.test\r\n", cookie(HOST))),
        (HOST, "/", format!("{}Origin: null\r\n", cookie(HOST))),
        (HOST, "/?coder_application_connect_api_key_35e783=x", cookie(HOST)),
    ];
    for (number, (host, path, headers)) in tries.iter().enumerate() {
        assert_eq!(get(&site, host, path, headers).0, "HTTP/1.1 404 Not Found", "{host}{path}");
        assert_eq!(site.judge.asked(), number + 1);
    }
    assert_eq!(site.dialled.load(Ordering::Relaxed), 0);
}

#[test]
fn where_a_request_goes_is_decided_by_its_host_and_nothing_else() {
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let site = site_with(config, Arc::default(), echo);
    let forwarded = format!("X-Forwarded-Host: {HOST}\r\n{}", cookie(HOST));
    let (_, _, body) = get(&site, "coder.test", "/x", &forwarded);
    assert_eq!(body, b"home");
    let absolute = format!(
        "GET http://{HOST}/x HTTP/1.1\r\nHost: coder.test\r\n{}Connection: close\r\n\r\n",
        cookie(HOST)
    );
    let (first, _, body) = parse(&exchange(&site.edge, absolute.as_bytes()));
    assert_eq!(first, "HTTP/1.1 200 OK");
    assert_eq!(values(&parse(&body).1, "host"), [HOST]);
    // On an app's host every path is the app's, the relay's and the interface's too.
    for path in ["/derp", "/api/v2/users/me", "/-/edge/app", "/healthz"] {
        assert_eq!(parse(&get(&site, HOST, path, &cookie(HOST)).2).0, format!("GET /base{path} HTTP/1.1"));
    }
}

#[test]
fn nobody_asks_in_the_edges_name() {
    let site = site(echo);
    let (_, _, body) =
        get(&site, "coder.test", "/-/edge/app", "Coder-Edge-Secret: the-secret\r\nCoder-Edge-At: x\r\n");
    assert_eq!(body, b"home");
    let headers = site.judge.questions.lock().unwrap()[0].1.clone();
    assert!(!headers.iter().any(|(name, _)| name.starts_with("coder-edge-")));
}

#[test]
fn path_apps_lose_their_prefix_and_cannot_rule_the_dashboard() {
    let site = site(|mut stream| {
        let request = read_head(&mut stream);
        let head = format!(
            "HTTP/1.1 200 OK\r\nClear-Site-Data: \"*\"\r\nService-Worker-Allowed: /\r\nContent-Length: {}\r\n\r\n",
            request.len()
        );
        stream.write_all(&[head.as_bytes(), &request].concat()).unwrap();
    });
    let at = "/@alice/dev.main/apps/code/";
    let (_, headers, body) = get(&site, "coder.test", "/%40alice/dev.main/apps/code/s/?x", &cookie(at));
    assert_eq!(parse(&body).0, "GET /base/s/?x HTTP/1.1");
    assert!(values(&headers, "clear-site-data").is_empty());
    assert!(values(&headers, "service-worker-allowed").is_empty());
}

#[test]
fn connections_to_an_app_are_used_again() {
    let site = site(echo);
    for _ in 0..3 {
        let mut stream = connect(&site.edge);
        for _ in 0..3 {
            stream
                .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", cookie(HOST)).as_bytes())
                .unwrap();
            let (_, headers, _) = parse(&read_head(&mut stream));
            let len = values(&headers, "content-length")[0].parse().unwrap();
            stream.read_exact(&mut vec![0; len]).unwrap();
        }
    }
    assert_eq!(site.dialled.load(Ordering::Relaxed), 1);
}

#[test]
fn a_request_that_meets_a_closing_connection_is_sent_again() {
    // Answers one request, then closes as soon as a second one comes.
    let site = site(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let mut stream = connect(&site.edge);
    for _ in 0..3 {
        stream
            .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", cookie(HOST)).as_bytes())
            .unwrap();
        assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 200 "));
        stream.read_exact(&mut [0; 2]).unwrap();
    }
    let body = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{}Content-Length: 1\r\n\r\n1", cookie(HOST));
    stream.write_all(body.as_bytes()).unwrap();
    assert!(
        read_head(&mut stream).starts_with(b"HTTP/1.1 404 "),
        "what may have had an effect is not repeated"
    );
}

#[test]
fn an_app_that_is_down_has_a_page() {
    for (error, text) in [(DialError::Refused, "refused"), (DialError::Other("TLS: x".to_owned()), "TLS: x")]
    {
        let site = site_with(config(), Arc::new(Mutex::new(Some(error))), echo);
        assert_eq!(get(&site, HOST, "/", &cookie(HOST)).2, b"page");
        let headers = site.judge.questions.lock().unwrap()[0].1.clone();
        assert_eq!(values(&headers, "coder-edge-failure"), [text]);
        assert_eq!(site.edge.counters().app_failures, 1);
    }
}

#[test]
fn a_tunnel_that_was_taken_down_is_asked_for_again() {
    let site = site_with(config(), Arc::new(Mutex::new(Some(DialError::NoTunnel))), echo);
    assert_eq!(get(&site, HOST, "/", &cookie(HOST)).0, "HTTP/1.1 200 OK");
    assert_eq!(site.judge.asked(), 1);
}

/// Upgrades to a protocol that sends back what it gets.
fn parrot(mut stream: UnixStream) {
    read_head(&mut stream);
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: parrot\r\nConnection: Upgrade\r\n\r\n")
        .unwrap();
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..len]).unwrap();
    }
}

fn upgrade(site: &Site, headers: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = connect(&site.edge);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: parrot\r\nConnection: Upgrade\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    (stream, head)
}

#[test]
fn any_protocol_can_be_upgraded_to() {
    let site = site(parrot);
    let (mut stream, head) = upgrade(&site, &cookie(HOST));
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    for text in [&b"hello"[..], b"again"] {
        stream.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_upgrade_from_another_page_is_the_applications_decision() {
    let site = site(parrot);
    site.judge.refuses.store(true, Ordering::Relaxed);
    for origin in ["https://evil.test", "null", "http://9--main--dev--eve.apps.test"] {
        let (_, head) = upgrade(&site, &format!("{}Origin: {origin}\r\n", cookie(HOST)));
        assert!(head.starts_with(b"HTTP/1.1 404 "), "{origin}");
    }
    let questions = site.judge.questions.lock().unwrap();
    assert!(questions.iter().all(|(_, headers)| values(headers, "coder-edge-upgrade") == ["1"]));
    assert_eq!(site.dialled.load(Ordering::Relaxed), 0);
}

#[test]
fn what_lasts_ends_with_the_leave() {
    let upgraded = site(parrot);
    let events = site(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let upload = site(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for site in [&upgraded, &events, &upload] {
        site.judge.life.store(1, Ordering::Relaxed);
    }
    let (mut cut, _) = upgrade(&upgraded, "");
    let mut stopped = connect(&events.edge);
    stopped.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
    read_head(&mut stopped);
    let mut refused = connect(&upload.edge);
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n1");
    refused.write_all(head.as_bytes()).unwrap();
    // Each leave is renewed once, and then refused.
    wait_until(|| [&upgraded, &events, &upload].iter().all(|site| site.judge.asked() >= 2));
    for site in [&upgraded, &events, &upload] {
        site.judge.refuses.store(true, Ordering::Relaxed);
    }
    assert_eq!(cut.read(&mut [0]).unwrap_or(0), 0);
    let mut rest = Vec::new();
    let _ = stopped.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "broken off, not ended");
    assert!(read_head(&mut refused).starts_with(b"HTTP/1.1 403 "));
}

#[test]
fn bodies_pass_as_they_come_both_ways() {
    // Answers each byte with the next letter, before the body has ended.
    let site = site(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let mut chunk = [0; 6];
        while stream.read_exact(&mut chunk).is_ok() && chunk[0] == b'1' {
            chunk[3] += 1;
            stream.write_all(&chunk).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let mut stream = connect(&site.edge);
    let head =
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{}Transfer-Encoding: chunked\r\n\r\n", cookie(HOST));
    stream.write_all(head.as_bytes()).unwrap();
    read_head(&mut stream);
    for (letter, next) in [(b'a', b'b'), (b'k', b'l'), (b'y', b'z')] {
        stream.write_all(&[b'1', b'\r', b'\n', letter, b'\r', b'\n']).unwrap();
        let mut chunk = [0; 6];
        stream.read_exact(&mut chunk).unwrap();
        assert_eq!(chunk, [b'1', b'\r', b'\n', next, b'\r', b'\n']);
    }
}

#[test]
fn an_expectation_is_met_when_the_app_is_there() {
    let site = site(echo);
    let mut stream = connect(&site.edge);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\n{}Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        cookie(HOST)
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_head(&mut stream), b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"hi"));
    site.judge.refuses.store(true, Ordering::Relaxed);
    let mut stream = connect(&site.edge);
    stream.write_all(head.replace("coder_signed", "x").as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with(b"HTTP/1.1 404 "), "nothing is asked for that goes nowhere");
}

#[test]
fn a_body_of_many_megabytes_passes_through_little_memory() {
    const SIZE: usize = 64 << 20;
    let site = site(|mut stream| {
        let (_, headers, _) = parse(&read_head(&mut stream));
        let len: usize = values(&headers, "content-length")[0].parse().unwrap();
        let (mut left, mut sum, mut buffer) = (len, 0_u64, vec![0; 1 << 16]);
        while left > 0 {
            let got = stream.read(&mut buffer).unwrap();
            sum += buffer[..got].iter().map(|byte| u64::from(*byte)).sum::<u64>();
            left -= got;
        }
        let sum = sum.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sum}", sum.len());
        stream.write_all(head.as_bytes()).unwrap();
    });
    let mut stream = connect(&site.edge);
    let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{}Content-Length: {SIZE}\r\n\r\n", cookie(HOST));
    stream.write_all(head.as_bytes()).unwrap();
    let piece: Vec<u8> = (0..1 << 16).map(|i| (i % 251) as u8).collect();
    for _ in 0..SIZE / piece.len() {
        stream.write_all(&piece).unwrap();
    }
    let (_, headers, _) = parse(&read_head(&mut stream));
    let mut body = vec![0; values(&headers, "content-length")[0].parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let sum = piece.iter().map(|byte| u64::from(*byte)).sum::<u64>() * (SIZE / piece.len()) as u64;
    assert_eq!(body, sum.to_string().as_bytes());
}

#[test]
fn two_lengths_are_one_chunked_body_and_the_last_request() {
    let site = site(|mut stream| {
        let head = read_head(&mut stream);
        let mut body = [0; 15];
        stream.read_exact(&mut body).unwrap();
        let mut more = [0];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let len = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len() + body.len());
        let answer = [len.as_bytes(), &head, &body].concat();
        stream.write_all(&answer).unwrap();
        drop(stream.shutdown(std::net::Shutdown::Write));
        assert_eq!(stream.read(&mut more).unwrap_or(0), 0, "a second request came");
    });
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\n{}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        cookie(HOST)
    );
    let answer =
        exchange(&site.edge, &[head.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let (_, _, seen) = parse(&answer);
    let (first, headers, body) = parse(&seen);
    assert_eq!(first, "POST /base/ HTTP/1.1");
    assert!(values(&headers, "content-length").is_empty());
    assert_eq!(body, b"5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn an_origin_that_the_application_allows_may_read() {
    let site = site(echo);
    site.judge.allow_origin.store(true, Ordering::Relaxed);
    let (_, headers, _) = get(&site, HOST, "/", "Origin: http://o\r\n");
    assert_eq!(values(&headers, "access-control-allow-origin"), ["http://o"]);
    assert_eq!(values(&headers, "access-control-allow-credentials"), ["true"]);
}
