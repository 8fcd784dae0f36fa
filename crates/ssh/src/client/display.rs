//! The user's screen, for programs in the workspace (RFC 4254 section 6.3).

use std::fmt;
use std::io;
use std::path::PathBuf;

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::x11::{Setup, admit};

/// The only protocol that is in use.
pub(crate) const PROTOCOL: &str = "MIT-MAGIC-COOKIE-1";
/// The beginning of a connection that shows its cookie is never longer.
const LONGEST_SETUP: usize = 1 << 10;

/// Where an X server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a Unix socket.
    Path(PathBuf),
    /// On a TCP port.
    Host(String, u16),
}

/// A screen the workspace may draw on.
#[derive(Clone, PartialEq, Eq)]
pub struct Display {
    /// Where its server listens.
    pub place: Place,
    /// Its screen.
    pub screen: u32,
    /// What it wants to see: its cookie; empty for none.
    pub cookie: Vec<u8>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A screen, and the cookie that the workspace was given instead of the real one.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) display: Display,
    pub(crate) cookie: [u8; 16],
}

impl Lent {
    pub(crate) fn new(display: Display) -> io::Result<Self> {
        let mut cookie = [0; 16];
        rustix::rand::getrandom(&mut cookie, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self { display, cookie })
    }

    /// The cookie's text.
    pub(crate) fn cookie_text(&self) -> String {
        self.cookie.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Carries a program's connection to the screen, if it shows the cookie.
    pub(crate) async fn carry(self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        reply.accept().await;
        let mut channel = channel.into_stream();
        let Ok(begin) = self.begin(&mut channel).await else { return };
        match &self.display.place {
            Place::Path(path) => join(channel, UnixStream::connect(path).await, &begin).await,
            Place::Host(host, port) => {
                join(channel, TcpStream::connect((host.as_str(), *port)).await, &begin).await
            }
        }
    }

    /// What the screen is to read first.
    async fn begin(&self, channel: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
        let cookie = &self.display.cookie;
        let real = (if cookie.is_empty() { "" } else { PROTOCOL }, cookie.as_slice());
        let mut read = Vec::new();
        loop {
            match admit(&read, PROTOCOL, &self.cookie, real) {
                Setup::Known { mut bytes, consumed } => {
                    bytes.extend_from_slice(read.get(consumed..).unwrap_or_default());
                    return Ok(bytes);
                }
                Setup::More if read.len() < LONGEST_SETUP => {
                    if channel.read_buf(&mut read).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Setup::More | Setup::Refused => return Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
    }
}

async fn join(
    mut channel: impl AsyncRead + AsyncWrite + Unpin,
    screen: io::Result<impl AsyncRead + AsyncWrite + Unpin>,
    begin: &[u8],
) {
    let Ok(mut screen) = screen else { return };
    if screen.write_all(begin).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut channel, &mut screen).await;
    }
}
