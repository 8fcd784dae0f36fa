//! The handle that the rest of the program holds: it owns the data thread and speaks to it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use paths::PeerFacts;
use rustix::event::{EventfdFlags, eventfd};
use wire::derpmap::DerpMap;
use wire::keys::{DiscoPublic, NodePublic};

use crate::command::{Command, DatagramCounts, NodeSettings, Peer, Request, Stats};
use crate::data_thread;
use crate::events::{Event, Events, NodeId, Reply, RequestId};
use crate::local::Node;

/// The data thread answers questions between two batches; longer than this it never takes while it lives.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Sends commands to the data thread and wakes it.
#[derive(Clone)]
pub(crate) struct Mailbox {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// A node's name and its public keys.
#[derive(Clone, Copy, Debug)]
pub struct NodeKeys {
    /// The node, for the engine's other calls.
    pub id: NodeId,
    /// WireGuard and relay key.
    pub node: NodePublic,
    /// Disco key.
    pub disco: DiscoPublic,
}

/// One process's data plane: one thread, any number of nodes.
pub struct Engine {
    mailbox: Mailbox,
    events: Arc<Events>,
    thread: Mutex<Option<JoinHandle<()>>>,
    next_node: AtomicU32,
    next_request: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the data thread.
    ///
    /// # Errors
    /// When the system has no descriptor or thread to give.
    pub fn start() -> io::Result<Self> {
        give_memory_back();
        let (commands, inbox) = mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mailbox = Mailbox { commands, wake: Arc::clone(&wake) };
        let events = Arc::new(Events::new()?);
        let thread = data_thread::spawn(inbox, wake, mailbox.clone(), Arc::clone(&events))?;
        Ok(Self {
            mailbox,
            events,
            thread: Mutex::new(Some(thread)),
            next_node: AtomicU32::new(1),
            next_request: AtomicU64::new(1),
        })
    }

    /// Readable while [`Engine::events`] has something.
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes everything that happened.
    pub fn events(&self) -> Vec<(NodeId, Event)> {
        self.events.take()
    }

    /// Makes a node with fresh keys and binds its sockets.
    ///
    /// # Errors
    /// When the configured UDP port is taken.
    pub fn add_node(&self, settings: NodeSettings) -> io::Result<NodeKeys> {
        let id = self.next_node.fetch_add(1, Ordering::Relaxed);
        let node = Node::new(id, settings, self.mailbox.clone(), Arc::clone(&self.events))?;
        let keys = NodeKeys { id, node: node.key(), disco: node.disco() };
        self.mailbox.send(Command::Add(Box::new(node)));
        Ok(keys)
    }

    /// Closes a node: its streams are reset, its requests fail, its sockets close.
    pub fn remove_node(&self, node: NodeId) {
        self.mailbox.send(Command::Remove(node));
    }

    /// Replaces the DERP map.
    pub fn set_map(&self, node: NodeId, map: DerpMap) {
        self.mailbox.send(Command::SetMap(node, map));
    }

    /// Replaces the set of peers. Unchanged peers keep their sessions.
    pub fn set_peers(&self, node: NodeId, peers: Vec<Peer>) {
        self.mailbox.send(Command::SetPeers(node, peers));
    }

    /// Switches to relay only, or back.
    pub fn set_block_direct(&self, node: NodeId, block: bool) {
        self.mailbox.send(Command::SetBlockDirect(node, block));
    }

    /// Reaches relays by WebSocket from their next connection on.
    pub fn set_force_websockets(&self, node: NodeId, force: bool) {
        self.mailbox.send(Command::SetForceWebsockets(node, force));
    }

    /// Replaces the endpoints that routers granted; they are advertised before all others.
    pub fn set_mapped(&self, node: NodeId, endpoints: Vec<SocketAddr>) {
        self.mailbox.send(Command::SetMapped(node, endpoints));
    }

    /// Ports of the node's IPv4 and IPv6 socket, 0 for none. Waits for the data thread.
    pub fn udp_ports(&self, node: NodeId) -> Option<(u16, u16)> {
        let (reply, answer) = sync_channel(1);
        self.mailbox.send(Command::UdpPorts(node, reply));
        answer.recv_timeout(ANSWER_LIMIT).ok()
    }

    /// What is known of the way to a peer; none if there is no such peer. Waits for the data thread.
    pub fn peer_paths(&self, node: NodeId, peer: NodePublic) -> Option<PeerFacts> {
        let (reply, answer) = sync_channel(1);
        self.mailbox.send(Command::PeerPaths(node, peer, reply));
        answer.recv_timeout(ANSWER_LIMIT).ok().flatten()
    }

    /// Starts a request; its answer is an [`Event::Done`] of that name.
    pub fn request(&self, node: NodeId, request: Request) -> RequestId {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        self.mailbox.send(Command::Request(node, id, request));
        id
    }

    /// Starts a request whose answer goes to `reply`, called in the data thread, instead of the events.
    pub fn request_from(&self, node: NodeId, request: Request, reply: Reply) -> RequestId {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        self.events.expect(id, reply);
        self.mailbox.send(Command::Request(node, id, request));
        id
    }

    /// Gives a request up; no answer follows, unless it is already waiting to be taken.
    pub fn cancel(&self, node: NodeId, request: RequestId) {
        self.events.forget(request);
        self.mailbox.send(Command::Cancel(node, request));
    }

    /// A node's figures; none when the node or the engine is closed. Waits for the data thread.
    pub fn stats(&self, node: NodeId) -> Option<Stats> {
        let (reply, answer) = sync_channel(1);
        self.mailbox.send(Command::Stats(node, reply));
        answer.recv_timeout(ANSWER_LIMIT).ok()
    }

    /// What came through the socket of a [`Request::Datagrams`]; none once it is over. Waits for the data thread.
    pub fn datagram_counts(&self, node: NodeId, request: RequestId) -> Option<DatagramCounts> {
        let (reply, answer) = sync_channel(1);
        self.mailbox.send(Command::DatagramCounts(node, request, reply));
        answer.recv_timeout(ANSWER_LIMIT).ok().flatten()
    }

    /// Time since the last completed handshake with a peer. Waits for the data thread.
    pub fn last_handshake(&self, node: NodeId, peer: NodePublic) -> Option<Duration> {
        let (reply, answer) = sync_channel(1);
        self.mailbox.send(Command::LastHandshake(node, peer, reply));
        answer.recv_timeout(ANSWER_LIMIT).ok().flatten()
    }

    /// Ends the data thread and waits for it. Nothing works afterwards.
    pub fn close(&self) {
        self.mailbox.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Has the allocator map large buffers apart, so that a stream's memory returns to the system when the stream ends.
/// Left alone, glibc raises its threshold with the first of them it frees and keeps all later ones.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number inside the allocator, which locks for it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
