//! Where the workspace accepts connections for the client: forwarded ports and sockets, and the client's key agent.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use russh::ChannelId;
use russh::server::Handle;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::forward::join;
use crate::inlet::Backlog;
use crate::places::Places;
use crate::x11;

/// Listeners one client may have.
const MAX_LISTENERS: usize = 256;

/// A task that accepts; ends when dropped, and its socket file with it.
struct Accepting {
    tasks: Vec<JoinHandle<()>>,
    file: Option<PathBuf>,
    directory: Option<PathBuf>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// All that listens for one session; gone with it.
#[derive(Default)]
pub(crate) struct Listeners {
    backlog: Backlog,
    places: Places,
    tcp: HashMap<(String, u32), Accepting>,
    unix: HashMap<String, Accepting>,
    agent: Option<Accepting>,
    /// By the channel whose programs draw on them.
    displays: HashMap<ChannelId, Accepting>,
}

impl Listeners {
    pub(crate) fn new(backlog: Backlog, places: Places) -> Self {
        Self { backlog, places, ..Self::default() }
    }

    fn room(&self) -> io::Result<()> {
        if self.tcp.len() + self.unix.len() + self.displays.len() < MAX_LISTENERS {
            Ok(())
        } else {
            Err(io::ErrorKind::QuotaExceeded.into())
        }
    }

    /// Listens on an address for the client; answers the port, which it chooses if `port` is 0 (RFC 4254 section 7.1).
    ///
    /// No address at all means this machine only, as with OpenSSH's servers, where the text of the RFC means every
    /// address: others are let in by a client that names one.
    pub(crate) async fn tcp(&mut self, address: &str, port: u32, handle: Handle) -> io::Result<u32> {
        self.room()?;
        let wanted = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidInput)?;
        let hosts: &[&str] = match address {
            "*" => &["0.0.0.0", "::"],
            "" | "localhost" => &["127.0.0.1", "::1"],
            other => &[other],
        };
        let (mut listeners, mut bound, mut failure) = (Vec::new(), wanted, None);
        for host in hosts {
            match listen(host, bound).await {
                Ok(listener) => {
                    bound = listener.local_addr()?.port();
                    listeners.push(listener);
                }
                Err(error) => failure = Some(error),
            }
        }
        if listeners.is_empty() {
            return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        let tasks = listeners
            .into_iter()
            .map(|listener| {
                tokio::spawn(accept_tcp(
                    listener,
                    address.to_owned(),
                    u32::from(bound),
                    handle.clone(),
                    (self.backlog.clone(), self.places.clone()),
                ))
            })
            .collect();
        self.tcp
            .insert((address.to_owned(), u32::from(bound)), Accepting { tasks, file: None, directory: None });
        Ok(u32::from(bound))
    }

    /// Stops listening; whether there was such a listener.
    pub(crate) async fn cancel_tcp(&mut self, address: &str, port: u32) -> bool {
        end(self.tcp.remove(&(address.to_owned(), port))).await
    }

    /// Listens on a Unix socket for the client. An old socket there gives way; asking twice is asking once.
    pub(crate) fn unix(&mut self, path: &str, handle: Handle) -> io::Result<()> {
        if self.unix.contains_key(path) {
            return Ok(());
        }
        self.room()?;
        let place = Path::new(path);
        if let Some(parent) = place.parent().filter(|parent| !parent.exists()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        if fs::symlink_metadata(place).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(place)?;
        }
        let listener = UnixListener::bind(place)?;
        let task = tokio::spawn(accept_unix(
            listener,
            path.to_owned(),
            handle,
            (self.backlog.clone(), self.places.clone()),
        ));
        let file = Some(place.to_owned());
        self.unix.insert(path.to_owned(), Accepting { tasks: vec![task], file, directory: None });
        Ok(())
    }

    /// Stops listening; whether there was such a listener.
    pub(crate) async fn cancel_unix(&mut self, path: &str) -> bool {
        end(self.unix.remove(path)).await
    }

    /// A socket that reaches the client's key agent; answers its path, for `SSH_AUTH_SOCK`.
    pub(crate) fn agent(&mut self, handle: Handle) -> io::Result<PathBuf> {
        if let Some(file) = self.agent.as_ref().and_then(|agent| agent.file.clone()) {
            return Ok(file);
        }
        let directory = private("agent")?;
        let file = directory.join("agent.sock");
        let listener = UnixListener::bind(&file)?;
        let task = tokio::spawn(accept_agent(listener, handle, (self.backlog.clone(), self.places.clone())));
        self.agent =
            Some(Accepting { tasks: vec![task], file: Some(file.clone()), directory: Some(directory) });
        Ok(file)
    }

    /// A display for the programs of a channel that is the client's screen; answers what they call it, and the file with
    /// its cookie.
    pub(crate) fn display(
        &mut self,
        channel: ChannelId,
        request: x11::Request,
        handle: Handle,
    ) -> io::Result<(String, PathBuf)> {
        self.room()?;
        let (listener, display) = free_display()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let directory = private("display")?;
        let file = directory.join("Xauthority");
        let name = format!("localhost:{display}.{}", request.screen);
        let single = request.single;
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&file)?
            .write_all(&request.entry(display))?;
        let room = (self.backlog.clone(), self.places.clone());
        let task = tokio::spawn(accept_display(listener, single, handle, room));
        let accepting = Accepting { tasks: vec![task], file: Some(file.clone()), directory: Some(directory) };
        self.displays.insert(channel, accepting);
        Ok((name, file))
    }

    /// Ends the displays of channels that are over.
    pub(crate) fn keep_displays(&mut self, is_open: impl Fn(&ChannelId) -> bool) {
        self.displays.retain(|channel, _| is_open(channel));
    }
}

/// A directory of our own.
fn private(purpose: &str) -> io::Result<PathBuf> {
    let mut name = [0; 8];
    rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty())?;
    let directory = std::env::temp_dir().join(format!("coder-{purpose}-{:016x}", u64::from_ne_bytes(name)));
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

/// A port for a display that nobody has, and the display's number.
fn free_display() -> io::Result<(std::net::TcpListener, u16)> {
    for display in x11::FIRST_DISPLAY..x11::FIRST_DISPLAY + x11::DISPLAYS {
        match std::net::TcpListener::bind(("127.0.0.1", x11::FIRST_PORT + display)) {
            Ok(listener) => return Ok((listener, display)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Ends a listener, if there is one, and waits until it is gone: whether there was one.
async fn end(accepting: Option<Accepting>) -> bool {
    let Some(mut accepting) = accepting else { return false };
    for task in accepting.tasks.drain(..) {
        task.abort();
        let _ = task.await;
    }
    true
}

async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let address =
        tokio::net::lookup_host((host, port)).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let v6 = address.is_ipv6();
    let socket = if v6 { tokio::net::TcpSocket::new_v6() } else { tokio::net::TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    if v6 {
        // The IPv4 half has a socket of its own.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(128)
}

async fn accept_tcp(
    listener: TcpListener,
    address: String,
    port: u32,
    handle: Handle,
    room: (Backlog, Places),
) {
    while let Ok((stream, from)) = accept(|| listener.accept()).await {
        let Some(place) = room.1.take() else { continue };
        let (handle, address, backlog) = (handle.clone(), address.clone(), room.0.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let origin = (from.ip().to_string(), u32::from(from.port()));
            if let Ok(channel) = handle.channel_open_forwarded_tcpip(address, port, origin.0, origin.1).await
            {
                join(channel, &backlog, stream).await;
            }
            drop(place);
        });
    }
}

async fn accept_unix(listener: UnixListener, path: String, handle: Handle, room: (Backlog, Places)) {
    while let Ok((stream, _)) = accept(|| listener.accept()).await {
        let Some(place) = room.1.take() else { continue };
        let (handle, path, backlog) = (handle.clone(), path.clone(), room.0.clone());
        tokio::spawn(async move {
            if let Ok(channel) = handle.channel_open_forwarded_streamlocal(path).await {
                join(channel, &backlog, stream).await;
            }
            drop(place);
        });
    }
}

async fn accept_agent(listener: UnixListener, handle: Handle, room: (Backlog, Places)) {
    while let Ok((stream, _)) = accept(|| listener.accept()).await {
        let Some(place) = room.1.take() else { continue };
        let (handle, backlog) = (handle.clone(), room.0.clone());
        tokio::spawn(async move {
            if let Ok(channel) = handle.channel_open_agent().await {
                join(channel, &backlog, stream).await;
            }
            drop(place);
        });
    }
}

async fn accept_display(listener: TcpListener, single: bool, handle: Handle, room: (Backlog, Places)) {
    while let Ok((stream, from)) = accept(|| listener.accept()).await {
        let Some(place) = room.1.take() else { continue };
        let (handle, backlog) = (handle.clone(), room.0.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(channel) = handle.channel_open_x11(from.ip().to_string(), u32::from(from.port())).await
            {
                join(channel, &backlog, stream).await;
            }
            drop(place);
        });
        if single {
            return;
        }
    }
}

/// Accepts, over whatever a single connection may have died of; a lack of descriptors is waited out.
async fn accept<T, F: Future<Output = io::Result<T>>>(mut next: impl FnMut() -> F) -> io::Result<T> {
    loop {
        match next().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}
