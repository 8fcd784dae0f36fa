//! One client's session: its channels and its requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session as Wire};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Pty, Sig};
use tokio::sync::mpsc;

use crate::forward;
use crate::inlet::Backlog;
use crate::listeners::Listeners;
use crate::places::{Place, Places};
use crate::policy::{Kind, sort_out};
use crate::process::{self, Control, Plan, Terminal};
use crate::server::{Notice, Shared};
use crate::sftp::{self, Files};
use crate::x11;

/// Variables a client may set on one channel.
const MAX_VARIABLES: usize = 256;
/// Their size together.
const MAX_VARIABLE_BYTES: usize = 128 << 10;
/// What a client that may not move files is told.
const NO_TRANSFER: &str = "\u{2}File transfer has been disabled.\n";
/// The exit code that goes with it.
const NO_TRANSFER_STATUS: u32 = 65;

/// A session channel before its process starts.
struct Opening {
    channel: Channel<Msg>,
    place: Place,
    variables: Vec<(String, String)>,
    terminal: Option<Terminal>,
    agent: bool,
    display: Option<x11::Request>,
}

enum State {
    Opening(Box<Opening>),
    Running(mpsc::Sender<Control>),
}

/// The handler of one connection.
pub(crate) struct Session {
    shared: Arc<Shared>,
    number: u64,
    channels: HashMap<ChannelId, State>,
    listeners: Listeners,
    backlog: Backlog,
    places: Places,
    told: bool,
    status: Arc<Mutex<Option<u32>>>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, status: Arc<Mutex<Option<u32>>>) -> Self {
        let (backlog, places) = (Backlog::default(), Places::default());
        let listeners = Listeners::new(backlog.clone(), places.clone());
        Self { shared, number, channels: HashMap::new(), listeners, backlog, places, told: false, status }
    }

    fn opening(&mut self, id: ChannelId) -> Option<&mut Opening> {
        match self.channels.get_mut(&id) {
            Some(State::Opening(opening)) => Some(opening),
            Some(State::Running(_)) | None => None,
        }
    }

    fn control(&self, id: ChannelId, control: Control) {
        if let Some(State::Running(to)) = self.channels.get(&id) {
            // A process that takes no orders for so long has missed this one.
            let _ = to.try_send(control);
        }
    }

    /// Starts what the client asked for on a channel: a command, or the login shell.
    fn start(&mut self, id: ChannelId, command: Option<String>, wire: &mut Wire) -> Result<(), Error> {
        let Some(State::Opening(opening)) = self.channels.remove(&id) else {
            return wire.channel_failure(id);
        };
        let opening = *opening;
        let policy = self.shared.policy();
        let (kind, variables) = sort_out(opening.variables);
        self.begin(kind);
        wire.channel_success(id)?;
        if command.as_ref().is_some_and(|command| policy.forbids(command)) {
            return refuse_transfer(id, wire);
        }
        let agent = if opening.agent { self.listeners.agent(wire.handle()).ok() } else { None };
        let wanted = opening.display;
        let display = wanted.and_then(|request| self.listeners.display(id, request, wire.handle()).ok());
        let plan = Plan { policy, command, variables, terminal: opening.terminal, agent, display };
        let (to, orders) = mpsc::channel(32);
        self.channels.insert(id, State::Running(to));
        let (status, backlog, handle) = (Arc::clone(&self.status), self.backlog.clone(), wire.handle());
        tokio::spawn(async move {
            let code = process::run(opening.channel, handle, backlog, plan, orders).await;
            *status.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            drop(opening.place);
        });
        Ok(())
    }

    /// Starts a file transfer on a channel.
    fn transfer(&mut self, id: ChannelId, wire: &mut Wire) -> Result<(), Error> {
        let Some(State::Opening(opening)) = self.channels.remove(&id) else {
            return wire.channel_failure(id);
        };
        let opening = *opening;
        let policy = self.shared.policy();
        let Opening { channel, place, variables, .. } = opening;
        self.begin(sort_out(variables).0);
        wire.channel_success(id)?;
        if policy.block_file_transfer {
            return refuse_transfer(id, wire);
        }
        let files = Files::new(policy.home.clone());
        let backlog = self.backlog.clone();
        tokio::spawn(async move {
            sftp::serve(channel, backlog, files).await;
            drop(place);
        });
        Ok(())
    }

    /// Reports the session's first work.
    fn begin(&mut self, kind: Kind) {
        if !std::mem::replace(&mut self.told, true) {
            self.shared.tell(Notice::Began { session: self.number, kind });
        }
    }

    /// Forgets channels whose process has ended: nobody tells of those that were closed from here.
    fn tidy(&mut self) {
        self.channels.retain(|_, state| !matches!(state, State::Running(to) if to.is_closed()));
        self.listeners.keep_displays(|id| self.channels.contains_key(id));
    }
}

/// Says on a channel that files may not be moved, and ends it.
fn refuse_transfer(id: ChannelId, wire: &mut Wire) -> Result<(), Error> {
    wire.extended_data(id, 1, NO_TRANSFER.as_bytes().to_vec())?;
    wire.exit_status_request(id, NO_TRANSFER_STATUS)?;
    wire.eof(id)?;
    wire.close(id)
}

impl Handler for Session {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Wire,
    ) -> Result<(), Error> {
        let Some(place) = self.places.take() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        self.tidy();
        let id = channel.id();
        reply.accept().await;
        let opening =
            Opening { channel, place, variables: Vec::new(), terminal: None, agent: false, display: None };
        self.channels.insert(id, State::Opening(Box::new(opening)));
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Wire,
    ) -> Result<(), Error> {
        match self.places.take() {
            Some(place) => {
                forward::to_host(channel, (self.backlog.clone(), place), host.to_owned(), port, reply);
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Wire,
    ) -> Result<(), Error> {
        match self.places.take() {
            Some(place) => forward::to_path(channel, (self.backlog.clone(), place), path.to_owned(), reply),
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, wire: &mut Wire) -> Result<bool, Error> {
        Ok(match self.listeners.tcp(address, *port, wire.handle()).await {
            Ok(bound) => {
                *port = bound;
                true
            }
            Err(_) => false,
        })
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Wire) -> Result<bool, Error> {
        Ok(self.listeners.cancel_tcp(address, port).await)
    }

    async fn streamlocal_forward(&mut self, path: &str, wire: &mut Wire) -> Result<bool, Error> {
        Ok(self.listeners.unix(path, wire.handle()).is_ok())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Wire) -> Result<bool, Error> {
        Ok(self.listeners.cancel_unix(path).await)
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.backlog.window()
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        wire: &mut Wire,
    ) -> Result<(), Error> {
        let Some(opening) = self.opening(id) else { return wire.channel_failure(id) };
        opening.terminal = Some(Terminal {
            term: term.to_owned(),
            size: [rows, columns, width, height],
            modes: modes.to_vec(),
        });
        wire.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Wire,
    ) -> Result<(), Error> {
        self.control(id, Control::Resize([rows, columns, width, height]));
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        wire: &mut Wire,
    ) -> Result<(), Error> {
        let Some(opening) = self.opening(id) else { return wire.channel_failure(id) };
        let used: usize = opening.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits =
            opening.variables.len() < MAX_VARIABLES && used + name.len() + value.len() <= MAX_VARIABLE_BYTES;
        let sound = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if !fits || !sound {
            return wire.channel_failure(id);
        }
        opening.variables.push((name.to_owned(), value.to_owned()));
        wire.channel_success(id)
    }

    async fn agent_request(&mut self, id: ChannelId, _: &mut Wire) -> Result<bool, Error> {
        let Some(opening) = self.opening(id) else { return Ok(false) };
        opening.agent = true;
        Ok(true)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        single: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        wire: &mut Wire,
    ) -> Result<(), Error> {
        let request = x11::Request::new(single, protocol, cookie, screen);
        match (self.opening(id), request) {
            (Some(opening), Some(request)) => {
                opening.display = Some(request);
                wire.channel_success(id)
            }
            _ => wire.channel_failure(id),
        }
    }

    async fn shell_request(&mut self, id: ChannelId, wire: &mut Wire) -> Result<(), Error> {
        self.start(id, None, wire)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], wire: &mut Wire) -> Result<(), Error> {
        match std::str::from_utf8(command) {
            Ok(command) if !command.contains('\0') => self.start(id, Some(command.to_owned()), wire),
            _ => wire.channel_failure(id),
        }
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, wire: &mut Wire) -> Result<(), Error> {
        if name == "sftp" { self.transfer(id, wire) } else { wire.channel_failure(id) }
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Wire) -> Result<(), Error> {
        self.control(id, Control::Signal(signal));
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Wire) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }
}
