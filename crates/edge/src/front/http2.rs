//! HTTP/2, which is spoken on hosts of apps only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;

use super::takeover::TakeoverStream;
use super::{Front, MAX_HEAD, Peer, answer};
use crate::counters::Tally;

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 128;
/// Bytes on their way up, of one request and of all.
const WINDOW: u32 = 1 << 20;
/// Time between signs of life.
const PING: Duration = Duration::from_secs(30);

/// Serves one connection. One that asks nothing in the time that a head may take is closed.
pub(super) async fn connection(
    front: Arc<Front>,
    stream: TakeoverStream,
    peer: Peer,
    mut stop: watch::Receiver<bool>,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (front, asked) = (Arc::clone(&front), Arc::clone(&asked));
        service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            answer(Arc::clone(&front), peer.clone(), request)
        })
    };
    let connection = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let mut patience = std::pin::pin!(tokio::time::sleep(front.head_timeout));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            // Looked at only now: the condition of a branch is from before the connection was last polled.
            () = patience.as_mut(), if !patience.is_elapsed() => {
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            _ = stop.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if ended.is_err() {
        Tally::add(&front.tally.malformed);
    }
}
