//! Connections from the client to something the workspace can reach.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::inlet::{self, Backlog};
use crate::places::Place;

/// How much is taken from a connection at once.
const CHUNK: usize = 64 << 10;
/// How long a destination may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Joins a channel to a TCP destination.
pub(crate) fn to_host(
    channel: Channel<Msg>,
    (backlog, place): (Backlog, Place),
    host: String,
    port: u32,
    reply: ChannelOpenHandle,
) {
    tokio::spawn(async move {
        let connect = async {
            let port = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidInput)?;
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        answer(channel, backlog, reply, connect).await;
        drop(place);
    });
}

/// Joins a channel to a Unix socket.
pub(crate) fn to_path(
    channel: Channel<Msg>,
    (backlog, place): (Backlog, Place),
    path: String,
    reply: ChannelOpenHandle,
) {
    tokio::spawn(async move {
        answer(channel, backlog, reply, UnixStream::connect(path)).await;
        drop(place);
    });
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    channel: Channel<Msg>,
    backlog: Backlog,
    reply: ChannelOpenHandle,
    connect: impl Future<Output = io::Result<S>>,
) {
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => {
            reply.accept().await;
            join(channel, &backlog, stream).await;
        }
        Ok(Err(_)) | Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
    }
}

/// Carries bytes both ways until both have finished.
pub(crate) async fn join(channel: Channel<Msg>, backlog: &Backlog, stream: impl AsyncRead + AsyncWrite) {
    let (mut inlet, outlet) = inlet::open(channel, backlog);
    let (mut from, mut to) = tokio::io::split(stream);
    let gone = inlet.gone();
    let mut inward = std::pin::pin!(async {
        let copied = tokio::io::copy(&mut inlet, &mut to).await;
        let _ = to.shutdown().await;
        copied.map(drop)
    });
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            if from.read_buf(&mut buffer).await? == 0 {
                break;
            }
            outlet.data_bytes(buffer.split().freeze()).await.map_err(io::Error::other)?;
        }
        outlet.eof().await.map_err(io::Error::other)
    };
    // What goes wrong on one side ends the other; there is nobody else to tell.
    tokio::select! {
        _ = async { tokio::try_join!(&mut inward, outward) } => {}
        // What the client sent before it closed the channel still arrives.
        () = gone => { let _ = inward.await; }
    }
    let _ = outlet.close().await;
}
