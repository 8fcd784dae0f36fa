//! The relay's thread: sockets for the router, read one after the other into one buffer.

mod sockets;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::server::{CloseReason, Counters, READ_AT_ONCE, READ_BUFFER, RateLimit, Request, Transport};
use relay::{ConnId, MeshKey, Router};
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};
use wire::keys::{NodePrivate, NodePublic, random_nonce};

use crate::seats::Seat;
use sockets::{Connection, Sockets};
use stream::{Got, SCRATCH};
pub(crate) use stream::{Stream, Tls};

/// Marks the waking socket among the poller's events; no connection gets this name.
const WAKE: u64 = u64::MAX;
/// Events taken from the poller at once.
const EVENTS: usize = 256;
/// How old the published CPU time may be.
const CPU_TIME_AGE: Duration = Duration::from_millis(100);
/// Unacknowledged data for this long ends a connection to a dead peer.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// An idle connection is probed after this long, so that dead ones end even if nothing is sent.
const TCP_KEEPALIVE: Duration = Duration::from_secs(600);
/// The same for links: the clients of a dead relay would be missed.
const LINK_KEEPALIVE: Duration = Duration::from_secs(10);
/// Logins with keys that are not announced, which wait to be asked for; more are forgotten, and their clients cut off.
const UNANNOUNCED_LIMIT: usize = 1024;
/// How clients are told of the end: when to come back at the earliest, over how long they are spread, and how long to try.
const RESTART: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(30)];
/// Time that the last frames get to leave, and then the same for clients to hang up.
const FAREWELL: Duration = Duration::from_millis(200);

/// A connection that HTTP has done with.
pub(crate) struct Handover {
    pub(crate) stream: Stream,
    pub(crate) remote: SocketAddr,
    pub(crate) transport: Transport,
    /// The HTTP answer that is still to be written, in front of the greeting.
    pub(crate) preface: Vec<u8>,
    /// What was read behind the request.
    pub(crate) early: Vec<u8>,
    pub(crate) seat: Arc<Seat>,
}

/// A connection to another relay of the region.
pub(crate) struct LinkUp {
    /// Names it for [`RelayThread::unlink`].
    pub(crate) token: u64,
    pub(crate) stream: dial::Stream,
    pub(crate) remote: SocketAddr,
    /// What was read already.
    pub(crate) early: Vec<u8>,
    /// Told of its end.
    pub(crate) ended: Sender<CloseReason>,
}

/// Somebody logged in whose key is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unannounced {
    /// The key.
    pub key: NodePublic,
    /// Where the connection comes from.
    pub remote: SocketAddr,
}

enum Message {
    Accept(Box<Handover>),
    Link(Box<LinkUp>),
    Unlink(u64),
    RequireAnnounced(bool),
    Announce(Vec<NodePublic>),
    Withdraw(Vec<NodePublic>),
    RateLimit(Option<RateLimit>),
    Health(String),
    Stop,
}

/// The counters as the thread last published them.
#[derive(Default)]
struct Published {
    counters: Counters,
    cpu: Duration,
}

/// The front's end of the relay's thread.
pub(crate) struct RelayThread {
    messages: Sender<Message>,
    waker: UnixStream,
    published: Arc<Mutex<Published>>,
    public_key: NodePublic,
    unannounced: Mutex<Receiver<Unannounced>>,
}

impl RelayThread {
    /// Starts the thread.
    pub(crate) fn start(
        key: NodePrivate,
        mesh_key: Option<MeshKey>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (messages, inbox) = channel();
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poller, &woken, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let published = Arc::new(Mutex::new(Published::default()));
        let public_key = key.public();
        let (tell_unannounced, unannounced) = sync_channel(UNANNOUNCED_LIMIT);
        let state = Loop {
            router: Router::new(key, mesh_key, random_nonce),
            sockets: Sockets::new(poller),
            woken,
            inbox,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            unread: VecDeque::new(),
            links: BTreeMap::new(),
            unannounced: tell_unannounced,
            published: Arc::clone(&published),
            cpu_read: None,
        };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || state.run())?;
        let unannounced = Mutex::new(unannounced);
        Ok((Arc::new(Self { messages, waker, published, public_key, unannounced }), thread))
    }

    pub(crate) fn public_key(&self) -> NodePublic {
        self.public_key
    }

    pub(crate) fn take_over(&self, handover: Handover) {
        self.tell(Message::Accept(Box::new(handover)));
    }

    pub(crate) fn link(&self, link: LinkUp) {
        self.tell(Message::Link(Box::new(link)));
    }

    pub(crate) fn unlink(&self, token: u64) {
        self.tell(Message::Unlink(token));
    }

    pub(crate) fn require_announced(&self, required: bool) {
        self.tell(Message::RequireAnnounced(required));
    }

    pub(crate) fn announce(&self, keys: Vec<NodePublic>) {
        self.tell(Message::Announce(keys));
    }

    pub(crate) fn withdraw(&self, keys: Vec<NodePublic>) {
        self.tell(Message::Withdraw(keys));
    }

    pub(crate) fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.tell(Message::RateLimit(limit));
    }

    pub(crate) fn set_health(&self, problem: String) {
        self.tell(Message::Health(problem));
    }

    /// Waits for the next login whose key is not announced; `None` after `patience`, or when the thread has ended.
    pub(crate) fn next_unannounced(&self, patience: Duration) -> Option<Unannounced> {
        let unannounced = self.unannounced.lock().unwrap_or_else(PoisonError::into_inner);
        unannounced.recv_timeout(patience).ok()
    }

    /// Ends the thread and all its connections.
    pub(crate) fn stop(&self) {
        self.tell(Message::Stop);
    }

    pub(crate) fn counters(&self) -> (Counters, Duration) {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        (published.counters, published.cpu)
    }

    fn tell(&self, message: Message) {
        if self.messages.send(message).is_ok() {
            // A full socket means that the thread has enough reasons to wake up.
            let _ = (&self.waker).write(&[1]);
        }
    }
}

struct Loop {
    router: Router,
    sockets: Sockets,
    woken: UnixStream,
    inbox: Receiver<Message>,
    buffer: Box<[u8]>,
    /// Ciphertext, on its way through one connection's TLS.
    scratch: Box<[u8]>,
    /// Connections with bytes inside that the poller does not know of.
    unread: VecDeque<ConnId>,
    links: BTreeMap<u64, ConnId>,
    unannounced: SyncSender<Unannounced>,
    published: Arc<Mutex<Published>>,
    cpu_read: Option<Instant>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut end = None;
        loop {
            events.clear();
            let now = Instant::now();
            if end.is_some_and(|end| now >= end || self.router.counters().queued_bytes == 0) {
                return self.farewell(now + FAREWELL);
            }
            let timeout = self.timeout(now, end);
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(self.sockets.poller(), space, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Only a bad descriptor is left, which cannot be: without it nothing can be served.
                Err(_) => return,
            }
            let now = Instant::now();
            for event in &events {
                let (flags, data) = (event.flags, event.data.u64());
                if data == WAKE {
                    if !self.messages(now) {
                        end = Some(now + FAREWELL);
                    }
                } else {
                    self.socket_event(now, ConnId::from_u64(data), flags);
                }
            }
            for _ in 0..self.unread.len() {
                let Some(id) = self.unread.pop_front() else { break };
                self.read(now, id);
                self.obey();
            }
            if self.router.next_timeout().is_some_and(|due| due <= now) {
                self.router.handle_timeout(now, &mut self.sockets);
                self.obey();
            }
            self.publish(now);
        }
    }

    /// All is said. Waits until the clients have hung up, and reads what they still send: a socket that is closed with
    /// unread bytes in it resets the connection, and the client never reads the last frames.
    fn farewell(mut self, end: Instant) {
        let mut events = Vec::with_capacity(EVENTS);
        self.sockets.finish();
        while !self.sockets.is_empty() {
            events.clear();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            let space = rustix::buffer::spare_capacity(&mut events);
            if !matches!(
                epoll::wait(self.sockets.poller(), space, Some(&timeout)),
                Ok(_) | Err(rustix::io::Errno::INTR)
            ) {
                return;
            }
            for event in events.iter().filter(|event| event.data.u64() != WAKE) {
                self.sockets.discard(ConnId::from_u64(event.data.u64()), &mut self.buffer, &mut self.scratch);
            }
        }
    }

    fn timeout(&self, now: Instant, end: Option<Instant>) -> Option<Timespec> {
        let due = [self.router.next_timeout(), end, (!self.unread.is_empty()).then_some(now)];
        let wait = due.into_iter().flatten().min()?.saturating_duration_since(now);
        Some(Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) })
    }

    /// Takes what the front sent. `false` if it is time to end.
    fn messages(&mut self, now: Instant) -> bool {
        while matches!((&self.woken).read(&mut self.buffer[..64]), Ok(64)) {}
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Accept(handover) => self.accept(now, *handover),
                Message::Link(link) => self.link(now, *link),
                Message::Unlink(token) => {
                    if let Some(id) = self.links.remove(&token) {
                        self.router.disconnected(now, id, &mut self.sockets);
                    }
                }
                Message::RequireAnnounced(required) => self.router.require_announced(now, required),
                Message::Announce(keys) => keys.into_iter().for_each(|key| self.router.announce(key)),
                Message::Withdraw(keys) => keys.iter().for_each(|key| self.router.withdraw(now, key)),
                Message::RateLimit(limit) => self.router.set_rate_limit(limit),
                Message::Health(problem) => self.router.health(now, &problem, &mut self.sockets),
                Message::Stop => {
                    self.router.restart(now, RESTART, &mut self.sockets);
                    self.obey();
                    return false;
                }
            }
            self.obey();
        }
        true
    }

    fn accept(&mut self, now: Instant, handover: Handover) {
        let Handover { stream, remote, transport, preface, early, seat } = handover;
        tune(&stream, TCP_KEEPALIVE);
        let id = self.router.accept(now, remote, transport, &preface);
        let watched = self.sockets.insert(Connection::new(id, stream, Some(seat), None)).is_ok();
        if watched {
            // Without any bytes it still makes the greeting leave.
            self.router.feed(now, id, &mut self.buffer, 0, &mut self.sockets);
            self.feed_early(now, id, &early);
            // TLS may have decrypted more than HTTP has read.
            self.unread.push_back(id);
        } else {
            self.router.disconnected(now, id, &mut self.sockets);
        }
    }

    fn link(&mut self, now: Instant, link: LinkUp) {
        let LinkUp { token, stream, remote, early, ended } = link;
        let stream = Stream::Link(Box::new(stream));
        tune(&stream, LINK_KEEPALIVE);
        let id = self.router.link(now, remote);
        self.links.insert(token, id);
        if self.sockets.insert(Connection::new(id, stream, None, Some(ended))).is_ok() {
            self.feed_early(now, id, &early);
            self.unread.push_back(id);
        } else {
            self.router.disconnected(now, id, &mut self.sockets);
        }
    }

    fn feed_early(&mut self, now: Instant, id: ConnId, early: &[u8]) {
        for part in early.chunks(READ_AT_ONCE) {
            let kept = self.router.kept(id);
            self.buffer[kept..kept + part.len()].copy_from_slice(part);
            self.router.feed(now, id, &mut self.buffer, part.len(), &mut self.sockets);
        }
    }

    fn socket_event(&mut self, now: Instant, id: ConnId, flags: epoll::EventFlags) {
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        if flags.contains(epoll::EventFlags::OUT) {
            match self.sockets.flush(id) {
                true => self.router.writable(now, id, &mut self.sockets),
                false => self.router.disconnected(now, id, &mut self.sockets),
            }
        }
        match self.sockets.get(id).map(|connection| connection.read) {
            Some(true) if broken || flags.contains(epoll::EventFlags::IN) => self.read(now, id),
            // Nobody is going to read it, and the poller would report it for ever.
            Some(false) if broken => self.router.disconnected(now, id, &mut self.sockets),
            _ => {}
        }
        self.obey();
    }

    fn read(&mut self, now: Instant, id: ConnId) {
        let kept = self.router.kept(id);
        let Some(connection) = self.sockets.get(id).filter(|connection| connection.read) else { return };
        match connection.stream.read(&mut self.buffer[kept..], &mut self.scratch) {
            Ok(Got::End) => self.router.disconnected(now, id, &mut self.sockets),
            Ok(Got::Bytes(fresh)) => self.router.feed(now, id, &mut self.buffer, fresh, &mut self.sockets),
            Ok(Got::More(fresh)) => {
                self.unread.push_back(id);
                self.router.feed(now, id, &mut self.buffer, fresh, &mut self.sockets);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.router.disconnected(now, id, &mut self.sockets),
        }
    }

    /// Does what the router asks for.
    fn obey(&mut self) {
        while let Some(request) = self.router.poll() {
            match request {
                Request::Close { id, reason } => {
                    self.links.retain(|_, link| *link != id);
                    self.sockets.remove(id, reason);
                }
                Request::Interest { id, read, write } => self.sockets.set_interest(id, read, write),
                Request::Unannounced { key, remote } => {
                    match self.unannounced.try_send(Unannounced { key, remote }) {
                        // Nobody asks fast enough, or at all: the client is cut off in time.
                        Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
                    }
                }
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.counters = self.router.counters();
        if self.cpu_read.is_none_or(|read| now.saturating_duration_since(read) >= CPU_TIME_AGE) {
            self.cpu_read = Some(now);
            let time = clock_gettime(ClockId::ThreadCPUTime);
            published.cpu = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        }
    }
}

/// Without these the connection still works; only a dead peer is found later.
fn tune(stream: &Stream, keepalive: Duration) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(keepalive));
    dial::fill_long_paths(stream);
    dial::keep_short_paths_short(stream);
}
