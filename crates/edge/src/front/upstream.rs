//! Connections to the application, kept for the next request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::upload::{Upload, UploadError};

/// Idle connections are used again for this long; applications close theirs after about 5 s.
const IDLE: Duration = Duration::from_secs(3);
const MAX_IDLE: usize = 64;

/// Why the application could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Its socket cannot be reached.
    #[error("cannot connect to the application: {0}")]
    Connect(#[from] std::io::Error),
    /// It ended the connection, or its answer is no HTTP.
    #[error("the application did not answer: {0}")]
    Answer(#[from] hyper::Error),
}

impl UpstreamError {
    /// What was wrong with the request's body, if that is why.
    pub(crate) fn upload(&self) -> Option<&UploadError> {
        UploadError::behind(self)
    }
}

/// The application behind its Unix socket.
pub(crate) struct Upstream {
    path: PathBuf,
    idle: Mutex<Vec<(Instant, SendRequest<Upload>)>>,
}

impl Upstream {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default() })
    }

    /// Sends a request over an idle connection, or a new one.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        while let Some(mut connection) = self.take_idle() {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok(self.answered(connection, response)),
                // The application closed the connection before it saw anything of the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let stream = UnixStream::connect(&self.path).await?;
        let (mut connection, driver) = handshake(TokioIo::new(stream)).await?;
        // Its errors reach the request that is being answered.
        tokio::spawn(async move { driver.with_upgrades().await.ok() });
        let response = connection.send_request(request).await?;
        Ok(self.answered(connection, response))
    }

    fn take_idle(&self) -> Option<SendRequest<Upload>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (since, connection) = idle.pop()?;
            if since.elapsed() < IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps the connection for later, once the answer's body has passed.
    fn answered(
        self: &Arc<Self>,
        mut connection: SendRequest<Upload>,
        response: Response<Incoming>,
    ) -> Response<Incoming> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let upstream = Arc::clone(self);
            tokio::spawn(async move {
                if connection.ready().await.is_ok() {
                    let mut idle = upstream.idle.lock().unwrap_or_else(PoisonError::into_inner);
                    idle.retain(|(since, _)| since.elapsed() < IDLE);
                    if idle.len() < MAX_IDLE {
                        idle.push((Instant::now(), connection));
                    }
                }
            });
        }
        response
    }
}
