//! HTTP: accepts connections and decides who answers a request.

pub(crate) mod answers;
pub(crate) mod forwarded;
pub(crate) mod headers;
mod http2;
mod proxy;
mod socket;
mod takeover;
mod upgrade;
mod upload;
mod upstream;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;

use crate::apps::{self, Apps, Asked, Scope, Watched};
use crate::config::{BodyLimits, Network};
use crate::counters::{Counters, Tally};
use crate::relay_thread::RelayThread;
use crate::seats::{Seat, Seats};
use socket::Socket;
use takeover::{Takeover, TakeoverStream};
pub(crate) use upload::Upload;
pub(crate) use upstream::{Upstream, UpstreamError};

/// What is sent to a client: the application's answer as it comes, our own, or an app's.
pub(crate) type Body = Either<Incoming, Either<Full<Bytes>, Watched>>;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;
/// Most bytes read at once. Uploads cost a fifth less of this thread's time than with pieces as large as a head may be.
const READ: usize = 256 * 1024;
/// Pause after a failed accept (too many open files), so that it is not retried at once for ever.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What all connections share.
pub(crate) struct Front {
    /// The application; without one this is a relay and nothing else.
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// Set if this edge is a relay.
    pub(crate) relay: Option<Arc<RelayThread>>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) body: BodyLimits,
    pub(crate) head_timeout: Duration,
    pub(crate) tally: Arc<Tally>,
    pub(crate) apps: Apps,
}

impl Front {
    /// Whether an address is a proxy that we believe.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// What has happened so far, the relay's part included.
    fn counters(&self) -> Counters {
        let (relay, relay_cpu) = self.relay.as_ref().map(|relay| relay.counters()).unwrap_or_default();
        Counters { relay, relay_cpu, ..self.tally.read() }
    }
}

/// How TLS is spoken: HTTP/2 only with apps, whose clients may need it (gRPC).
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) pages: Arc<ServerConfig>,
    pub(crate) apps: Arc<ServerConfig>,
}

/// What a listening address is for.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// HTTP for all.
    Plain,
    /// HTTPS for all.
    Tls(Tls),
    /// Health and metrics only.
    Metrics,
}

/// One connection, as its requests see it.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) seat: Arc<Seat>,
    takeover: Takeover,
    /// It speaks TLS with us.
    pub(crate) secure: bool,
    /// Health and metrics only.
    metrics: bool,
}

/// Accepts until `stop` changes. Every connection holds a clone of `alive`.
pub(crate) async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    purpose: Purpose,
    mut stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Some(seat) = front.seats.take(address.ip(), front.trusts(address.ip())) else { continue };
        // Without these the connection is only slower. The second is for tunnels over paths that lose packets.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"bbr");
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let (front, stop, alive) = (Arc::clone(&front), stop.clone(), alive.clone());
        let purpose = purpose.clone();
        tokio::spawn(async move {
            let takeover = Takeover::default();
            let metrics = matches!(purpose, Purpose::Metrics);
            let encrypted = matches!(purpose, Purpose::Tls(_));
            let peer = Peer { address, seat, takeover, secure: encrypted, metrics };
            if let Some(socket) = secure(&front, stream, purpose).await {
                connection(front, socket, peer, stop, alive).await;
            }
        });
    }
}

/// TLS, where it is wanted. `None` if that did not come about.
async fn secure(front: &Front, stream: TcpStream, purpose: Purpose) -> Option<Socket> {
    let Purpose::Tls(tls) = purpose else { return Some(Socket::Plain(stream)) };
    let handshake = async {
        let started = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let app = started.client_hello().server_name().is_some_and(|name| front.apps.has_host(name));
        started.into_stream(if app { tls.apps } else { tls.pages }).await
    };
    match tokio::time::timeout(front.head_timeout, handshake).await {
        Ok(Ok(stream)) => Some(Socket::Tls(Box::new(stream))),
        Ok(Err(_)) | Err(_) => {
            Tally::add(&front.tally.tls_failures);
            None
        }
    }
}

async fn connection(
    front: Arc<Front>,
    socket: Socket,
    peer: Peer,
    mut stop: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
) {
    let http2 = socket.is_http2();
    let stream = TakeoverStream::new(socket, peer.takeover.clone());
    if http2 {
        return http2::connection(front, stream, peer, stop).await;
    }
    let service = {
        let front = Arc::clone(&front);
        service_fn(move |request| answer(Arc::clone(&front), peer.clone(), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.head_timeout)
        .max_buf_size(READ)
        .preserve_header_case(true)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended
        && (error.is_parse() || error.is_timeout() || error.is_incomplete_message())
    {
        Tally::add(&front.tally.malformed);
    }
}

async fn answer(
    front: Arc<Front>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Tally::add(&front.tally.requests);
    if head_size(&request) > MAX_HEAD {
        Tally::add(&front.tally.malformed);
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let mut response = answers::problem(status, "The head of the request is too large.");
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    }
    if !is_unambiguous(&request) {
        Tally::add(&front.tally.malformed);
        return Ok(answers::problem(
            StatusCode::BAD_REQUEST,
            "The request must name one host and no tunnel.",
        ));
    }
    if peer.metrics {
        return Ok(match request.uri().path() {
            "/healthz" => answers::healthy(),
            "/metrics" => answers::metrics(&front.counters()),
            _ => answers::text(StatusCode::NOT_FOUND, "Only /healthz and /metrics are here.\n"),
        });
    }
    if let Some(rules) = front.apps.rules()
        && let Some(scope) = Scope::find(&rules, host(&request), request.uri().path())
    {
        return Ok(apps::serve(&front, &peer, Asked { rules, scope, request }).await);
    }
    if request.version() == Version::HTTP_2 {
        return Ok(answers::text(StatusCode::MISDIRECTED_REQUEST, "Only apps are here.\n"));
    }
    let Some(relay) = &front.relay else { return Ok(proxy::forward(&front, &peer, request).await) };
    Ok(match request.uri().path() {
        "/derp" | "/derp/" => upgrade::derp(&front, relay, &peer, request),
        "/derp/latency-check" | "/derp/probe" => answers::probe(request.method()),
        "/generate_204" => answers::generate_204(request.headers()),
        "/healthz" if front.upstream.is_none() => answers::healthy(),
        _ => proxy::forward(&front, &peer, request).await,
    })
}

/// The host that a request is for. What proxies claim about it counts for nothing.
fn host(request: &Request<Incoming>) -> &str {
    let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(Authority::as_str).or_else(header).unwrap_or_default()
}

/// Bytes of names and values, and of the target.
fn head_size(request: &Request<Incoming>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
        + target
}

/// One host (RFC 9112, section 3.2; RFC 9113, section 8.3.1), and nothing that would make us a proxy to elsewhere.
fn is_unambiguous(request: &Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    let enough = match request.version() {
        Version::HTTP_2 => hosts == 0 && request.uri().authority().is_some(),
        Version::HTTP_11 => hosts == 1,
        _ => hosts <= 1,
    };
    enough && request.method() != Method::CONNECT
}
