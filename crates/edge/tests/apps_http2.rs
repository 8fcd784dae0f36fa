//! HTTP/2 with apps: gRPC all the way, everything else as HTTP/1.1 to the app, and nothing but apps.
#![allow(clippy::unwrap_used)]

mod common;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::site::{HOST, Site, site_with, ticket};
use common::{config, parse, read_head};
use edge::TlsFiles;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// A site that speaks TLS as `*.apps.test`, and what trusts it.
fn secure(
    name: &str,
    serve: impl Fn(std::os::unix::net::UnixStream) + Send + Sync + 'static,
) -> (Site, ClientConfig) {
    secure_with(name, config(), serve)
}

/// The same with these settings.
fn secure_with(
    name: &str,
    mut config: edge::Config,
    serve: impl Fn(std::os::unix::net::UnixStream) + Send + Sync + 'static,
) -> (Site, ClientConfig) {
    let directory = std::env::temp_dir().join(format!("edge-http2-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let files = TlsFiles { certificates: directory.join("cert.pem"), key: directory.join("key.pem") };
    let (certificate, key) = edge::self_signed(vec!["*.apps.test".into(), "coder.test".into()]).unwrap();
    std::fs::write(&files.certificates, &certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.listen.clear();
    config.listen_tls = vec!["127.0.0.1:0".parse().unwrap()];
    config.tls = vec![files];
    (site_with(config, Arc::default(), serve), client)
}

/// Serves one connection of an app in HTTP/2: an echo of the body, and what it saw of the request as trailers.
fn grpc(stream: std::os::unix::net::UnixStream) {
    runtime().block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            for name in ["te", "cookie"] {
                let value = request.headers().get(name).cloned();
                trailers.insert(name, value.unwrap_or(HeaderValue::from_static("none")));
            }
            trailers.insert("x-uri", request.uri().to_string().parse().unwrap());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = Full::new(body).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
            Ok::<_, Infallible>(Response::new(body))
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = http2.serve_connection(TokioIo::new(stream), service).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A connection to that name, in whichever protocol is agreed upon.
async fn dial(
    site: &Site,
    client: ClientConfig,
    name: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(site.edge.addresses()[0]).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
}

async fn http2(site: &Site, client: ClientConfig) -> SendRequest<Full<Bytes>> {
    let stream = dial(site, client, HOST).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (connection, driver) = made.unwrap();
    tokio::spawn(driver);
    connection
}

fn request(host: &str, path: &str, kind: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    Request::post(format!("https://{host}{path}"))
        .version(Version::HTTP_2)
        .header("content-type", kind)
        .header("cookie", "a=1")
        .header("cookie", format!("coder_signed_app_token={}", ticket(HOST, 60)))
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from_static(body)))
        .unwrap()
}

#[test]
fn calls_pass_with_their_trailers_over_one_connection_to_the_app() {
    let (site, client) = secure("grpc", grpc);
    runtime().block_on(async {
        let mut connection = http2(&site, client).await;
        for _ in 0..3 {
            let call = request(HOST, "/x.Y/Z", "application/grpc+proto", b"message");
            let answer = connection.send_request(call).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
            let answer = answer.into_body().collect().await.unwrap();
            let trailers = answer.trailers().unwrap().clone();
            assert_eq!(answer.to_bytes(), "message");
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["te"], "trailers");
            assert_eq!(trailers["cookie"], "a=1; b=2");
            assert_eq!(trailers["x-uri"], format!("http://{HOST}/base/x.Y/Z"));
        }
    });
    assert_eq!(site.dialled.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(site.judge.asked(), 0);
}

#[test]
fn other_requests_reach_the_app_in_its_own_protocol() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let (site, client) = secure("plain", move |mut stream| {
        use std::io::{Read, Write};
        let head = read_head(&mut stream);
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        seeing.lock().unwrap().extend([&head[..], &body].concat());
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    runtime().block_on(async {
        let mut connection = http2(&site, client).await;
        let answer = connection.send_request(request(HOST, "/x", "text/plain", b"body")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        let astray =
            connection.send_request(request("coder.test", "/api/v2/users/me", "text/plain", b"")).await;
        assert_eq!(astray.unwrap().status().as_u16(), 421);
    });
    let (first, headers, body) = parse(&seen.lock().unwrap());
    assert_eq!(first, "POST /base/x HTTP/1.1");
    assert_eq!(body, b"body");
    let found = |name: &str| {
        headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("cookie"), ["a=1; b=2"]);
    assert_eq!(found("host"), [HOST]);
    assert_eq!(found("x-forwarded-proto"), ["https"]);
}

#[test]
fn only_a_connection_that_asks_nothing_is_closed() {
    let settings = edge::Config { head_timeout: Duration::from_secs(1), ..config() };
    let (site, client) = secure_with("silent", settings, grpc);
    runtime().block_on(async {
        let mut asking = http2(&site, client.clone()).await;
        let call = || request(HOST, "/x.Y/Z", "application/grpc", b"message");
        assert_eq!(asking.send_request(call()).await.unwrap().status().as_u16(), 200);
        // It began later, so the other's time is over as well when it is closed.
        let mut silent = dial(&site, client, HOST).await;
        let mut greeting = Vec::new();
        let _ = silent.read_to_end(&mut greeting).await;
        assert_eq!(asking.send_request(call()).await.unwrap().status().as_u16(), 200);
    });
}

#[test]
fn pages_of_the_server_itself_stay_with_http_1() {
    let (site, client) = secure("pages", grpc);
    runtime().block_on(async {
        for named in [true, false] {
            let mut client = client.clone();
            client.enable_sni = named;
            let stream = dial(&site, client, "coder.test").await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "{named}");
        }
    });
}

/// What begins a connection: the preface and no settings of our own.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// One frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of `GET https://HOST/` (RFC 7541: three indexed fields and one by its name's index).
fn head() -> Vec<u8> {
    [&[0x82, 0x87, 0x84, 0x01, HOST.len() as u8], HOST.as_bytes()].concat()
}

/// Sends frames after the greeting and returns the error that the connection is ended with, if it is.
async fn ended_with(site: &Site, client: ClientConfig, frames: &[u8]) -> Option<u32> {
    let mut stream = dial(site, client, HOST).await;
    // The edge may end it before it has all of them.
    let _ = stream.write_all(&[GREETING, frames].concat()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(common::PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    let mut rest = &answer[..];
    while let Some((start, after)) = rest.split_at_checked(9) {
        let len = usize::from(start[0]) << 16 | usize::from(start[1]) << 8 | usize::from(start[2]);
        let (payload, next) = after.split_at_checked(len)?;
        if start[3] == 7 {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = next;
    }
    None
}

/// A connection beside those still works, and nothing of them is left.
async fn goes_on(site: &Site, client: ClientConfig) {
    let mut fine = http2(site, client).await;
    let call = fine.send_request(request(HOST, "/x.Y/Z", "application/grpc", b"message")).await;
    assert_eq!(call.unwrap().status().as_u16(), 200);
    common::wait_until(|| site.edge.counters().connections == 1);
}

#[test]
fn requests_taken_back_at_once_end_the_connection_and_reach_no_app() {
    const CALM: u32 = 11;
    let (site, client) = secure("reset", grpc);
    let begin_and_end = |number: u32| {
        [frame(1, 5, 2 * number + 1, &head()), frame(3, 0, 2 * number + 1, &8u32.to_be_bytes())].concat()
    };
    let flood: Vec<u8> = (0..2000).flat_map(begin_and_end).collect();
    runtime().block_on(async {
        assert_eq!(ended_with(&site, client.clone(), &flood).await, Some(CALM));
        assert!(site.dialled.load(std::sync::atomic::Ordering::Relaxed) < 200);
        goes_on(&site, client).await;
    });
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let (site, client) = secure("continued", grpc);
    // A field that is not to be remembered, name and value as they are; then always more of them.
    let field = [&[0, 1, b'x', 0x7f, 0xe1, 0x06][..], &[b'a'; 992]].concat();
    let more = field.repeat(16);
    let mut flood = frame(1, 1, 1, &head());
    for _ in 0..100 {
        flood.extend(frame(9, 0, 1, &more));
    }
    runtime().block_on(async {
        assert!(ended_with(&site, client.clone(), &flood).await.is_some());
        assert_eq!(site.dialled.load(std::sync::atomic::Ordering::Relaxed), 0);
        goes_on(&site, client).await;
    });
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let (site, client) = secure("large", grpc);
    runtime().block_on(async {
        let mut connection = http2(&site, client).await;
        let mut large = request(HOST, "/", "text/plain", b"");
        for _ in 0..7 {
            large.headers_mut().append("x-long", HeaderValue::from_bytes(&[b'a'; 10_000]).unwrap());
        }
        assert_eq!(connection.send_request(large).await.unwrap().status().as_u16(), 431);
        let call = connection.send_request(request(HOST, "/x.Y/Z", "application/grpc", b"message")).await;
        assert_eq!(call.unwrap().status().as_u16(), 200);
    });
}
