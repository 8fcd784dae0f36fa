//! The relay's thread: sockets for the router, read one after the other into one buffer.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay::server::{Counters, READ_AT_ONCE, READ_BUFFER, Request, Sink, Transport, Written};
use relay::{ConnId, MeshKey, Router};
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};
use wire::keys::{NodePrivate, NodePublic, random_nonce};

use crate::counters::Seat;

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

/// A connection that HTTP has done with.
pub(crate) struct Handover {
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
    pub(crate) transport: Transport,
    /// The HTTP answer that is still to be written, in front of the greeting.
    pub(crate) preface: Vec<u8>,
    /// What was read behind the request.
    pub(crate) early: Vec<u8>,
    pub(crate) seat: Arc<Seat>,
}

enum Message {
    Accept(Handover),
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
        let state = Loop {
            router: Router::new(key, mesh_key, random_nonce),
            sockets: Sockets::default(),
            poller,
            woken,
            inbox,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            published: Arc::clone(&published),
            cpu_read: None,
        };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || state.run())?;
        Ok((Arc::new(Self { messages, waker, published, public_key }), thread))
    }

    pub(crate) fn public_key(&self) -> NodePublic {
        self.public_key
    }

    pub(crate) fn take_over(&self, handover: Handover) {
        self.tell(Message::Accept(handover));
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

struct Connection {
    id: ConnId,
    stream: TcpStream,
    read: bool,
    _seat: Arc<Seat>,
}

/// The open connections, by slot.
#[derive(Default)]
struct Sockets(Vec<Option<Connection>>);

impl Sockets {
    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.0.get_mut(id.slot())?.as_mut().filter(|connection| connection.id == id)
    }

    fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot();
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(connection);
    }

    /// Closes a connection.
    fn remove(&mut self, id: ConnId) {
        if self.get(id).is_some() {
            self.0[id.slot()] = None;
        }
    }
}

impl Sink for Sockets {
    fn write(&mut self, to: ConnId, parts: &[IoSlice<'_>]) -> Written {
        let Some(connection) = self.get(to) else { return Written::Broken };
        loop {
            return match connection.stream.write_vectored(parts) {
                Ok(taken) => Written::Taken(taken),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Written::Taken(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Written::Broken,
            };
        }
    }
}

struct Loop {
    router: Router,
    sockets: Sockets,
    poller: OwnedFd,
    woken: UnixStream,
    inbox: Receiver<Message>,
    buffer: Box<[u8]>,
    published: Arc<Mutex<Published>>,
    cpu_read: Option<Instant>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.timeout(Instant::now());
            match epoll::wait(&self.poller, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Only a bad descriptor is left, which cannot be: without it nothing can be served.
                Err(_) => return,
            }
            let now = Instant::now();
            for event in &events {
                let (flags, data) = (event.flags, event.data.u64());
                if data == WAKE {
                    if !self.messages(now) {
                        return;
                    }
                } else {
                    self.socket_event(now, ConnId::from_u64(data), flags);
                }
            }
            if self.router.next_timeout().is_some_and(|due| due <= now) {
                self.router.handle_timeout(now, &mut self.sockets);
                self.obey();
            }
            self.publish(now);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let wait = self.router.next_timeout()?.saturating_duration_since(now);
        Some(Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) })
    }

    /// Takes what the front sent. `false` if it is time to end.
    fn messages(&mut self, now: Instant) -> bool {
        while matches!((&self.woken).read(&mut self.buffer[..64]), Ok(64)) {}
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Accept(handover) => self.accept(now, handover),
                Message::Stop => return false,
            }
        }
        true
    }

    fn accept(&mut self, now: Instant, handover: Handover) {
        let Handover { stream, remote, transport, preface, early, seat } = handover;
        let socket = socket2::SockRef::from(&stream);
        // Without these the connection still works; only a dead peer is found later.
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE));
        let id = self.router.accept(now, remote, transport, &preface);
        let data = epoll::EventData::new_u64(id.to_u64());
        let watched = epoll::add(&self.poller, stream.as_fd(), data, epoll::EventFlags::IN).is_ok();
        self.sockets.insert(Connection { id, stream, read: true, _seat: seat });
        if watched {
            self.feed_early(now, id, &early);
        } else {
            self.router.disconnected(now, id, &mut self.sockets);
        }
        self.obey();
    }

    fn feed_early(&mut self, now: Instant, id: ConnId, early: &[u8]) {
        // Without any bytes it still makes the greeting leave.
        self.router.feed(now, id, &mut self.buffer, 0, &mut self.sockets);
        for part in early.chunks(READ_AT_ONCE) {
            let kept = self.router.kept(id);
            self.buffer[kept..kept + part.len()].copy_from_slice(part);
            self.router.feed(now, id, &mut self.buffer, part.len(), &mut self.sockets);
        }
    }

    fn socket_event(&mut self, now: Instant, id: ConnId, flags: epoll::EventFlags) {
        let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        if flags.contains(epoll::EventFlags::OUT) {
            self.router.writable(now, id, &mut self.sockets);
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
        let Some(connection) = self.sockets.get(id) else { return };
        match connection.stream.read(&mut self.buffer[kept..kept + READ_AT_ONCE]) {
            Ok(0) => self.router.disconnected(now, id, &mut self.sockets),
            Ok(fresh) => self.router.feed(now, id, &mut self.buffer, fresh, &mut self.sockets),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.router.disconnected(now, id, &mut self.sockets),
        }
    }

    /// Does what the router asks for.
    fn obey(&mut self) {
        while let Some(request) = self.router.poll() {
            match request {
                Request::Close { id, .. } => self.sockets.remove(id),
                Request::Unannounced { .. } => {}
                Request::Interest { id, read, write } => {
                    let Some(connection) = self.sockets.get(id) else { continue };
                    connection.read = read;
                    let mut flags = epoll::EventFlags::empty();
                    flags.set(epoll::EventFlags::IN, read);
                    flags.set(epoll::EventFlags::OUT, write);
                    let data = epoll::EventData::new_u64(id.to_u64());
                    // It was added before and is open, so this cannot fail.
                    let _ = epoll::modify(&self.poller, connection.stream.as_fd(), data, flags);
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
