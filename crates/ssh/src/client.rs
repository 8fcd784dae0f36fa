//! The client of the command line: one session over a stream that leads to a workspace's SSH server.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;

use russh::client::{ChannelOpenHandle, Config, Handler, Msg, Session, connect_stream};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, ChannelWriteHalf, Disconnect, Error};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::carrier::Carrier;
use crate::escape::{Escapes, Typed};
use crate::signals;

mod display;
mod gpg;

use display::Lent;
pub use display::{Display, Place};
pub use gpg::Gpg;

/// How much the server may send ahead.
const WINDOW: u32 = 4 << 20;
/// How much is read from standard input at once.
const CHUNK: usize = 64 << 10;
/// The exit code of a session that ended without one, as OpenSSH has it.
const NO_STATUS: u32 = 255;
/// That of a program which writes to somebody who has left: a shell's number for death by SIGPIPE.
const UNREAD: u32 = 128 + 13;
const HELP: &str =
    "\r\nAt the start of a line:\r\n ~.  ends the connection\r\n ~~  types a tilde\r\n ~?  shows this\r\n";

/// What to ask the server for.
#[derive(Clone, Default)]
pub struct Options {
    /// What to run; none: the login shell.
    pub command: Option<String>,
    /// The terminal's type (`TERM`), to have one at the other end.
    pub terminal: Option<String>,
    /// Variables to set there.
    pub variables: Vec<(String, String)>,
    /// Socket of the key agent that the other side may use.
    pub agent: Option<PathBuf>,
    /// The screen it may draw on.
    pub display: Option<Display>,
    /// The GnuPG agent it may use.
    pub gpg: Option<Gpg>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the process's exit code.
    Status(u32),
    /// With a signal that ended the process, by its name.
    Signal(String),
    /// The user typed `~.`.
    Disconnected,
    /// Nobody reads our output any more.
    Unread,
    /// The connection was lost.
    Lost,
}

impl Ended {
    /// The exit code for it.
    pub fn code(&self) -> u32 {
        match self {
            Self::Status(status) => *status,
            Self::Unread => UNREAD,
            Self::Signal(_) | Self::Disconnected | Self::Lost => NO_STATUS,
        }
    }
}

/// Runs a session on standard input and output until it ends. Blocks.
///
/// # Errors
/// When the other side is no SSH server that accepts us, or the system has no thread or descriptor to give.
pub fn run(stream: OwnedFd, options: &Options) -> io::Result<Ended> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(converse(stream, options));
    // The thread that reads standard input may sit there for ever.
    runtime.shutdown_background();
    ended.map_err(io::Error::other)
}

/// Trusts the host key, since the tunnel has proved who is there; carries the key agent's connections.
struct Client {
    agent: Option<PathBuf>,
    display: Option<Lent>,
    gpg: Option<PathBuf>,
}

impl Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        // Only who was asked to forward it has an agent here.
        tokio::spawn(to_socket(self.agent.clone(), channel, reply));
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        tokio::spawn(to_socket(self.gpg.clone(), channel, reply));
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if let Some(lent) = self.display.clone() {
            tokio::spawn(lent.carry(channel, reply));
        }
        Ok(())
    }
}

/// Joins a channel the server opens to a socket here; only what was asked for has one.
async fn to_socket(path: Option<PathBuf>, channel: Channel<Msg>, reply: ChannelOpenHandle) {
    let Some(path) = path else { return };
    if let Ok(mut socket) = UnixStream::connect(path).await {
        reply.accept().await;
        let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut socket).await;
    }
}

async fn converse(stream: OwnedFd, options: &Options) -> Result<Ended, Error> {
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    let stream = Carrier::new(UnixStream::from_std(stream)?);
    let config = Config { window_size: WINDOW, maximum_packet_size: 64 << 10, ..Config::default() };
    let display = options.display.clone().map(Lent::new).transpose()?;
    let gpg = options.gpg.as_ref().map(|gpg| gpg.socket.clone());
    let client = Client { agent: options.agent.clone(), display: display.clone(), gpg };
    let mut handle = connect_stream(Arc::new(config), stream, client).await?;
    if !handle.authenticate_none("coder").await?.success() {
        return Err(Error::NotAuthenticated);
    }
    let channel = handle.channel_open_session().await?;
    if let Some(gpg) = &options.gpg
        && let Some(problem) = gpg::lend(&mut handle, &options.variables, gpg).await?
    {
        show(&mut io::stderr(), format!("GnuPG is not forwarded: {problem}.\n").as_bytes())?;
    }
    if let Some(lent) = &display {
        channel.request_x11(false, false, display::PROTOCOL, lent.cookie_text(), lent.display.screen).await?;
    }
    let raw = prepare(&channel, options).await?;
    let ended = exchange(channel, options.terminal.is_some()).await;
    drop(raw);
    let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
    ended
}

/// Asks for everything the session needs; answers what puts the terminal back as it was.
async fn prepare(channel: &Channel<Msg>, options: &Options) -> Result<Option<Raw>, Error> {
    for (name, value) in &options.variables {
        channel.set_env(false, name.as_str(), value.as_str()).await?;
    }
    if options.agent.is_some() {
        channel.agent_forward(false).await?;
    }
    let mut raw = None;
    if let Some(term) = &options.terminal {
        let [columns, rows, width, height] = size();
        channel.request_pty(false, term, columns, rows, width, height, &[]).await?;
        raw = Raw::enter().ok();
    }
    match &options.command {
        Some(command) => channel.exec(true, command.as_str()).await?,
        None => channel.request_shell(true).await?,
    }
    Ok(raw)
}

async fn exchange(channel: Channel<Msg>, terminal: bool) -> Result<Ended, Error> {
    let (mut incoming, outgoing) = channel.split();
    let mut typed = keyboard();
    let mut resized = signal(SignalKind::window_change())?;
    let mut escapes = Escapes::default();
    let (mut open, mut status) = (true, None);
    loop {
        tokio::select! {
            message = incoming.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if show(&mut io::stdout(), &data).is_err() {
                        return Ok(Ended::Unread);
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let _ = show(&mut io::stderr(), &data);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(Ended::Status(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    status = Some(Ended::Signal(signals::word(&signal_name)));
                }
                Some(ChannelMsg::Failure) => return Err(Error::RequestDenied),
                Some(ChannelMsg::Close) | None => return Ok(status.unwrap_or(Ended::Lost)),
                Some(_) => {}
            },
            bytes = typed.recv(), if open => match bytes {
                Some(bytes) if terminal => {
                    if type_in(&outgoing, escapes.sort(&bytes)).await? {
                        return Ok(Ended::Disconnected);
                    }
                }
                Some(bytes) => outgoing.data_bytes(bytes).await?,
                None => {
                    open = false;
                    outgoing.eof().await?;
                }
            },
            Some(()) = resized.recv(), if terminal => {
                let [columns, rows, width, height] = size();
                outgoing.window_change(columns, rows, width, height).await?;
            }
        }
    }
}

/// Sends what was typed; whether the user wants to leave.
async fn type_in(outgoing: &ChannelWriteHalf<Msg>, typed: Vec<Typed>) -> Result<bool, Error> {
    for item in typed {
        match item {
            Typed::Data(bytes) => outgoing.data_bytes(bytes).await?,
            Typed::Help => show(&mut io::stderr(), HELP.as_bytes())?,
            Typed::Disconnect => return Ok(true),
        }
    }
    Ok(false)
}

fn show(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Reads standard input on a thread of its own: it may be a file or a terminal shared with others, which must not be made
/// non-blocking.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, typed) = mpsc::channel(4);
    let _ = std::thread::Builder::new().name("coder-stdin".into()).spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length) = io::stdin().lock().read(&mut buffer) {
            if length == 0 || sender.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

/// Columns, rows and pixels of our terminal.
fn size() -> [u32; 4] {
    tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).map_or([80, 24, 0, 0], |size| {
        [size.ws_col, size.ws_row, size.ws_xpixel, size.ws_ypixel].map(u32::from)
    })
}

/// Our terminal while the other side's stands for it.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
