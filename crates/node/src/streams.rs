//! The ends of a node's TCP streams: a local descriptor, or the speed test in either role.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use netstack::{Flow, Stack};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect, recv, send, shutdown,
    socket_with, socketpair, sockopt,
};
use slab::Slab;
use speedtest::Direction;

use crate::command::PortUse;
use crate::events::{Answer, Event, Events, Failure, NodeId, RequestId};
use crate::reactor::{Interest, Reactor, Source};

/// Bytes moved for one stream before others get their turn.
const BUDGET: usize = 1 << 20;
/// Connections to local services that may be under way.
const SERVICES: usize = 1024;

/// What the streams work with.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) node: NodeId,
    pub(crate) stack: &'a mut Stack,
    pub(crate) reactor: &'a Reactor,
    pub(crate) events: &'a Events,
}

impl Context<'_> {
    fn answer(&self, request: RequestId, answer: Answer) {
        self.events.push(self.node, Event::Done { request, answer });
    }

    fn fail(&self, request: RequestId, failure: Failure) {
        self.answer(request, Answer::Failed(failure));
    }
}

/// What a stream that is being opened becomes.
pub(crate) enum Purpose {
    /// A descriptor for Python.
    Descriptor,
    /// Joined to this socket.
    Splice(OwnedFd),
    /// A speed test.
    Speedtest(Direction, Duration),
}

enum End {
    /// Our handshake is under way.
    Opening(RequestId, Purpose),
    /// A peer's handshake is under way; Python gets this end when it is done.
    Arriving {
        ours: OwnedFd,
        theirs: OwnedFd,
        from: SocketAddrV6,
        port: u16,
    },
    Pipe(Pipe),
    Server(Box<speedtest::Server>),
    Client(RequestId, Box<speedtest::Client>),
}

/// A local descriptor joined to a stream.
struct Pipe {
    fd: OwnedFd,
    token: u32,
    interest: Interest,
    registered: bool,
    /// The local side is closed, not only finished: nobody is left to read what the peer may still send.
    hung_up: bool,
    /// The local side may still send.
    local_open: bool,
    /// The peer may still send.
    tunnel_open: bool,
    /// The peer has finished and all of it was received by us.
    peer_finished: bool,
    request: Option<RequestId>,
}

/// A connection to a local service that is being made for a peer.
struct Service {
    held: u64,
    port: u16,
    fd: OwnedFd,
    v6: bool,
}

/// Whether a stream goes on.
enum Verdict {
    Keep,
    Finished,
    Broken(Failure),
}

/// All streams of a node.
#[derive(Default)]
pub(crate) struct Streams {
    ends: BTreeMap<Flow, End>,
    tokens: Slab<Flow>,
    services: Slab<Service>,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Starts a stream to a peer; the answer is an event.
    pub(crate) fn open(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestId,
        to: SocketAddrV6,
        purpose: Purpose,
    ) {
        match cx.stack.connect(cx.now, to) {
            Ok(flow) => {
                self.ends.insert(flow, End::Opening(request, purpose));
            }
            Err(error) => cx.fail(request, Failure::System(error.to_string())),
        }
    }

    /// Gives up the stream of a request.
    pub(crate) fn cancel(&mut self, cx: &mut Context<'_>, request: RequestId) {
        let found = self.ends.iter().find(|(_, end)| request_of(end) == Some(request)).map(|(flow, _)| *flow);
        if let Some(flow) = found {
            self.drop_end(cx, flow);
            cx.stack.abort(flow);
        }
    }

    /// Cuts every stream.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>) {
        for flow in self.ends.keys().copied().collect::<Vec<_>>() {
            self.drop_end(cx, flow);
            cx.stack.abort(flow);
        }
    }

    /// Cuts the streams to these addresses: their peer was removed.
    pub(crate) fn abort_to(&mut self, cx: &mut Context<'_>, gone: &[Ipv6Addr]) {
        let leads_there = |flow: &Flow| cx.stack.remote(*flow).is_some_and(|remote| gone.contains(&remote));
        let cut: Vec<Flow> = self.ends.keys().copied().filter(leads_there).collect();
        for flow in cut {
            if let Some(request) = self.drop_end(cx, flow) {
                cx.fail(request, Failure::Reset);
            }
            cx.stack.abort(flow);
        }
    }

    /// Requests that wait for something here, for a node that closes.
    pub(crate) fn requests(&self) -> Vec<RequestId> {
        self.ends.values().filter_map(request_of).collect()
    }

    /// A peer wants to connect.
    pub(crate) fn incoming(
        &mut self,
        cx: &mut Context<'_>,
        held: u64,
        from: SocketAddrV6,
        port: u16,
        port_use: PortUse,
    ) {
        match port_use {
            PortUse::Refuse => cx.stack.refuse(held),
            PortUse::Speedtest => {
                if let Some(flow) = cx.stack.accept(cx.now, held) {
                    self.ends.insert(flow, End::Server(Box::new(speedtest::Server::new(cx.now))));
                }
            }
            PortUse::Python => match pair() {
                Ok((ours, theirs)) => {
                    if let Some(flow) = cx.stack.accept(cx.now, held) {
                        self.ends.insert(flow, End::Arriving { ours, theirs, from, port });
                    }
                }
                Err(_) => cx.stack.refuse(held),
            },
            PortUse::Splice => self.call_service(cx, held, port, false),
        }
    }

    fn call_service(&mut self, cx: &mut Context<'_>, held: u64, port: u16, v6: bool) {
        if self.services.len() >= SERVICES {
            return cx.stack.refuse(held);
        }
        let entry = self.services.vacant_entry();
        let source = Source::Service(cx.node, entry.key() as u32);
        let started = dial_local(port, v6).and_then(|fd| {
            cx.reactor.add(&fd, source, Interest::WRITE).map_err(|_| Errno::NOMEM)?;
            Ok(fd)
        });
        match started {
            Ok(fd) => {
                entry.insert(Service { held, port, fd, v6 });
            }
            Err(_) if !v6 => self.call_service(cx, held, port, true),
            Err(_) => cx.stack.refuse(held),
        }
    }

    /// The connection to a local service was made, or was not.
    pub(crate) fn service_ready(&mut self, cx: &mut Context<'_>, index: u32) {
        let Some(service) = self.services.try_remove(index as usize) else { return };
        cx.reactor.remove(&service.fd);
        let connected = matches!(sockopt::socket_error(&service.fd), Ok(Ok(())));
        if !connected {
            if service.v6 {
                cx.stack.refuse(service.held);
            } else {
                self.call_service(cx, service.held, service.port, true);
            }
            return;
        }
        let _ = sockopt::set_tcp_nodelay(&service.fd, true);
        if let Some(flow) = cx.stack.accept(cx.now, service.held) {
            self.join(cx, flow, service.fd, None);
        }
    }

    /// Joins a descriptor to a stream.
    fn join(&mut self, cx: &mut Context<'_>, flow: Flow, fd: OwnedFd, request: Option<RequestId>) {
        let token = self.tokens.insert(flow) as u32;
        let registered = cx.reactor.add(&fd, Source::Stream(cx.node, token), Interest::READ).is_ok();
        let pipe = Pipe {
            fd,
            token,
            interest: Interest::READ,
            registered,
            hung_up: false,
            local_open: true,
            tunnel_open: true,
            peer_finished: false,
            request,
        };
        self.ends.insert(flow, End::Pipe(pipe));
        self.pump(cx, flow);
    }

    /// A handshake is complete.
    pub(crate) fn connected(&mut self, cx: &mut Context<'_>, flow: Flow) {
        match self.ends.remove(&flow) {
            Some(End::Opening(request, Purpose::Descriptor)) => match pair() {
                Ok((ours, theirs)) => {
                    self.join(cx, flow, ours, None);
                    cx.answer(request, Answer::Stream(theirs));
                }
                Err(error) => {
                    cx.stack.abort(flow);
                    cx.fail(request, Failure::System(error.to_string()));
                }
            },
            Some(End::Opening(request, Purpose::Splice(fd))) => self.join(cx, flow, fd, Some(request)),
            Some(End::Opening(request, Purpose::Speedtest(direction, duration))) => {
                let client = speedtest::Client::new(direction, duration, cx.now);
                self.ends.insert(flow, End::Client(request, Box::new(client)));
                self.pump(cx, flow);
            }
            Some(End::Arriving { ours, theirs, from, port }) => {
                self.join(cx, flow, ours, None);
                cx.events.push(cx.node, Event::Incoming { port, from, stream: theirs });
            }
            Some(end) => {
                self.ends.insert(flow, end);
                self.pump(cx, flow);
            }
            None => {}
        }
    }

    /// The peer has finished sending and everything was received.
    pub(crate) fn finished(&mut self, cx: &mut Context<'_>, flow: Flow) {
        match self.ends.get_mut(&flow) {
            Some(End::Pipe(pipe)) => pipe.peer_finished = true,
            Some(End::Server(server)) => server.end_of_stream(),
            Some(End::Client(_, client)) => client.end_of_stream(),
            Some(End::Opening(..) | End::Arriving { .. }) | None => {}
        }
        self.pump(cx, flow);
    }

    /// The stream is over, not by agreement.
    pub(crate) fn lost(&mut self, cx: &mut Context<'_>, flow: Flow, failure: Failure) {
        if let Some(End::Client(_, client)) = self.ends.get_mut(&flow) {
            client.lost();
            self.pump(cx, flow);
        }
        if let Some(request) = self.drop_end(cx, flow) {
            cx.fail(request, failure);
        }
        cx.stack.close(cx.now, flow);
    }

    /// A local descriptor is ready.
    pub(crate) fn ready(&mut self, cx: &mut Context<'_>, token: u32, hung_up: bool) {
        let Some(flow) = self.tokens.get(token as usize).copied() else { return };
        // A descriptor that hung up stays ready for ever; what is left to do with it needs no readiness.
        if hung_up
            && let Some(End::Pipe(pipe)) = self.ends.get_mut(&flow)
            && !pipe.hung_up
        {
            pipe.hung_up = true;
            if pipe.registered {
                cx.reactor.remove(&pipe.fd);
                pipe.registered = false;
            }
        }
        self.pump(cx, flow);
    }

    /// Ends a stream by agreement: what was taken is delivered, then it is gone.
    fn finish(&mut self, cx: &mut Context<'_>, flow: Flow) {
        if let Some(End::Pipe(Pipe { request: Some(request), .. })) = self.ends.get(&flow) {
            cx.answer(*request, Answer::Spliced);
        }
        self.drop_end(cx, flow);
        cx.stack.close(cx.now, flow);
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>, flow: Flow) {
        let Some(end) = self.ends.get_mut(&flow) else { return };
        let verdict = match end {
            End::Opening(..) | End::Arriving { .. } => Verdict::Keep,
            End::Pipe(pipe) => pipe.pump(cx, flow),
            End::Server(server) => pump_server(cx, flow, server),
            End::Client(request, client) => pump_client(cx, flow, *request, client),
        };
        match verdict {
            Verdict::Keep => {}
            Verdict::Finished => self.finish(cx, flow),
            Verdict::Broken(failure) => {
                if let Some(request) = self.drop_end(cx, flow) {
                    cx.fail(request, failure);
                }
                cx.stack.abort(flow);
            }
        }
    }

    /// When a speed test wants attention.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.ends
            .values()
            .filter_map(|end| match end {
                End::Server(server) => server.next_timeout(),
                End::Client(_, client) => client.next_timeout(),
                End::Opening(..) | End::Arriving { .. } | End::Pipe(_) => None,
            })
            .min()
    }

    /// Lets due speed tests act.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let due: Vec<Flow> = self
            .ends
            .iter_mut()
            .filter_map(|(flow, end)| match end {
                End::Server(server) if server.next_timeout().is_some_and(|at| at <= now) => {
                    server.handle_timeout(now);
                    Some(*flow)
                }
                End::Client(_, client) if client.next_timeout().is_some_and(|at| at <= now) => {
                    client.handle_timeout(now);
                    Some(*flow)
                }
                _ => None,
            })
            .collect();
        for flow in due {
            self.pump(cx, flow);
        }
    }

    /// Removes an end; answers the request that still waits for it.
    fn drop_end(&mut self, cx: &mut Context<'_>, flow: Flow) -> Option<RequestId> {
        let end = self.ends.remove(&flow)?;
        if let End::Pipe(pipe) = &end {
            if pipe.registered {
                cx.reactor.remove(&pipe.fd);
            }
            self.tokens.try_remove(pipe.token as usize);
            if pipe.local_open || pipe.tunnel_open {
                // The local service sees a reset, as the peer meant it. A socket pair has no such thing.
                let _ = sockopt::set_socket_linger(&pipe.fd, Some(Duration::ZERO));
            }
        }
        request_of(&end)
    }
}

fn request_of(end: &End) -> Option<RequestId> {
    match end {
        End::Opening(request, _) | End::Client(request, _) => Some(*request),
        End::Pipe(pipe) => pipe.request,
        End::Arriving { .. } | End::Server(_) => None,
    }
}

impl Pipe {
    fn pump(&mut self, cx: &mut Context<'_>, flow: Flow) -> Verdict {
        let blocked = match self.fill_local(cx, flow) {
            Ok(blocked) => blocked,
            Err(error) => return Verdict::Broken(Failure::System(error.to_string())),
        };
        let full = match self.fill_tunnel(cx, flow) {
            Ok(full) => full,
            Err(error) => return Verdict::Broken(Failure::System(error.to_string())),
        };
        if !self.local_open && (!self.tunnel_open || self.hung_up) {
            return Verdict::Finished;
        }
        let interest = Interest { read: self.local_open && !full, write: blocked };
        if interest != self.interest && self.registered {
            self.interest = interest;
            cx.reactor.set(&self.fd, Source::Stream(cx.node, self.token), interest);
        }
        Verdict::Keep
    }

    /// Whether more may be moved now. What is left of a local side that is closed has an end, and no readiness brings it
    /// another turn.
    fn may_move(&self, moved: usize) -> bool {
        self.hung_up || moved < BUDGET
    }

    /// Answers whether the local side takes no more for now.
    fn fill_local(&mut self, cx: &mut Context<'_>, flow: Flow) -> Result<bool, Errno> {
        let (mut moved, mut blocked, mut broken) = (0, false, None);
        while self.tunnel_open && self.may_move(moved) {
            let (fd, gone) = (&self.fd, self.hung_up);
            let length = cx.stack.recv(flow, |bytes| {
                if gone {
                    return bytes.len();
                }
                if bytes.is_empty() {
                    return 0; // sending nothing to a local side that has gone would count as an error
                }
                match send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(length) => length,
                    Err(Errno::AGAIN) => {
                        blocked = true;
                        0
                    }
                    Err(Errno::INTR) => 0,
                    Err(error) => {
                        broken = Some(error);
                        0
                    }
                }
            });
            if let Some(error) = broken {
                return Err(error);
            }
            if length == 0 {
                break;
            }
            moved += length;
        }
        if self.tunnel_open && self.peer_finished && !blocked && cx.stack.recv_queue(flow) == 0 {
            self.tunnel_open = false;
            let _ = shutdown(&self.fd, Shutdown::Write);
        }
        // Out of budget: the descriptor is writable, so the next pass of the loop comes back here.
        Ok(blocked || moved >= BUDGET)
    }

    /// Answers whether the stream takes no more for now.
    fn fill_tunnel(&mut self, cx: &mut Context<'_>, flow: Flow) -> Result<bool, Errno> {
        let mut moved = 0;
        while self.local_open && self.may_move(moved) {
            if cx.stack.send_capacity(flow) == 0 {
                return Ok(true);
            }
            let (mut outcome, fd) = (Ok(1), &self.fd);
            let length = cx.stack.send(cx.now, flow, |room| {
                if room.is_empty() {
                    return 0;
                }
                outcome = recv(fd, room, RecvFlags::DONTWAIT).map(|(length, _)| length);
                outcome.unwrap_or(0)
            });
            match outcome {
                Ok(0) => {
                    self.local_open = false;
                    cx.stack.shutdown(flow);
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
                Ok(_) if length == 0 => return Ok(true),
                Ok(_) => moved += length,
            }
        }
        Ok(false)
    }
}

fn pump_server(cx: &mut Context<'_>, flow: Flow, server: &mut speedtest::Server) -> Verdict {
    let now = cx.now;
    while cx.stack.recv(flow, |bytes| {
        server.incoming(now, bytes);
        bytes.len()
    }) > 0
    {}
    while cx.stack.send(cx.now, flow, |room| server.outgoing(now, room)) > 0 {}
    if server.finished() {
        cx.stack.shutdown(flow);
        return Verdict::Finished;
    }
    Verdict::Keep
}

fn pump_client(
    cx: &mut Context<'_>,
    flow: Flow,
    request: RequestId,
    client: &mut speedtest::Client,
) -> Verdict {
    let now = cx.now;
    while cx.stack.recv(flow, |bytes| {
        client.incoming(now, bytes);
        bytes.len()
    }) > 0
    {}
    while cx.stack.send(cx.now, flow, |room| client.outgoing(now, room)) > 0 {}
    let mut verdict = Verdict::Keep;
    while let Some(event) = client.poll_event() {
        match event {
            speedtest::Event::Started => {}
            speedtest::Event::Interval(interval) => {
                cx.events.push(cx.node, Event::Progress { request, interval })
            }
            speedtest::Event::Finished(Ok(report)) => {
                let retransmits = cx.stack.flow_stats(flow).map_or(0, |stats| stats.retransmitted_segments);
                let speedtest::Report { intervals, total } = report;
                cx.answer(request, Answer::Speedtest { intervals, total, retransmits });
                cx.stack.shutdown(flow);
                verdict = Verdict::Finished;
            }
            speedtest::Event::Finished(Err(error)) => {
                cx.fail(request, Failure::Protocol(error.to_string()));
                cx.stack.shutdown(flow);
                verdict = Verdict::Finished;
            }
        }
    }
    verdict
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn dial_local(port: u16, v6: bool) -> Result<OwnedFd, Errno> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let to: SocketAddr =
        if v6 { (Ipv6Addr::LOCALHOST, port).into() } else { (Ipv4Addr::LOCALHOST, port).into() };
    match connect(fd.as_fd(), &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error),
    }
}
