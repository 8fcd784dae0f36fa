//! HTTP: accepts connections and decides who answers a request.

mod answers;
mod headers;
mod proxy;
mod takeover;
mod upgrade;
mod upstream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::config::Network;
use crate::counters::{Seat, Tally};
use crate::relay_thread::RelayThread;
use takeover::{Takeover, TakeoverStream};
pub(crate) use upstream::Upstream;

/// What is sent to a client: our own answer, or the application's as it comes.
type Body = Either<Incoming, Full<Bytes>>;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed accept (too many open files), so that it is not retried at once for ever.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What all connections share.
pub(crate) struct Front {
    pub(crate) upstream: Arc<Upstream>,
    /// Set if this edge is a relay.
    pub(crate) relay: Option<Arc<RelayThread>>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) max_connections: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) tally: Arc<Tally>,
}

/// One connection, as its requests see it.
#[derive(Clone)]
struct Peer {
    address: SocketAddr,
    seat: Arc<Seat>,
    takeover: Takeover,
}

/// Accepts until `stop` changes. Every connection holds a clone of `alive`.
pub(crate) async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
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
        let Some(seat) = Seat::take(&front.tally, front.max_connections) else { continue };
        // Without it the connection is only slower.
        let _ = stream.set_nodelay(true);
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        tokio::spawn(connection(Arc::clone(&front), stream, address, seat, stop.clone(), alive.clone()));
    }
}

async fn connection(
    front: Arc<Front>,
    stream: TcpStream,
    address: SocketAddr,
    seat: Arc<Seat>,
    mut stop: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
) {
    let takeover = Takeover::default();
    let stream = TakeoverStream::new(stream, takeover.clone());
    let peer = Peer { address, seat, takeover };
    let service = {
        let front = Arc::clone(&front);
        service_fn(move |request| answer(Arc::clone(&front), peer.clone(), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.head_timeout)
        .max_buf_size(MAX_HEAD)
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
    if !is_unambiguous(&request) {
        Tally::add(&front.tally.malformed);
        return Ok(answers::problem(
            StatusCode::BAD_REQUEST,
            "The request must name one host and no tunnel.",
        ));
    }
    let Some(relay) = &front.relay else { return Ok(proxy::forward(&front, &peer, request).await) };
    Ok(match request.uri().path() {
        "/derp" | "/derp/" => upgrade::derp(&front, relay, &peer, request),
        "/derp/latency-check" | "/derp/probe" => answers::probe(request.method()),
        "/generate_204" => answers::generate_204(request.headers()),
        _ => proxy::forward(&front, &peer, request).await,
    })
}

/// One Host (RFC 9112, section 3.2), and nothing that would make us a proxy to elsewhere.
fn is_unambiguous(request: &Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    let enough = hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11);
    enough && request.method() != Method::CONNECT
}
