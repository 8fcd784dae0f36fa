//! One pass over a node: what is due is done, and all is moved that can be.

use std::net::{Ipv6Addr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use paths::Output;

use super::Node;
use crate::command::{Command, PortUse};
use crate::events::{Answer, Event, Failure};
use crate::outlet::Exit;
use crate::reactor::Reactor;
use crate::streams::Streams;

/// Rounds of moving data in one pass; work that is left makes the next pass start at once.
const ROUNDS: usize = 8;
/// While a socket is full, timers of flows that do not wait for it are looked at this often.
const STALL: Duration = Duration::from_millis(5);

impl Node {
    /// Serves everything that is due and moves all that can be moved.
    pub(crate) fn run(&mut self, now: Instant, reactor: &Reactor) {
        self.outlet.begin();
        self.timers(now, reactor);
        if self.stalled_until.is_some() {
            self.flush_relays(now, reactor);
        }
        for _ in 0..ROUNDS {
            self.drain_paths(now, reactor);
            let mut exit = Exit::new(now, &mut self.tunnel, &mut self.outlet);
            self.stack.poll(now, &mut exit);
            self.stalled_until = exit.refused().then(|| now + STALL);
            if !self.drain_stack(now, reactor) {
                break;
            }
        }
        self.outlet.flush(now, reactor);
        self.flush_relays(now, reactor);
        self.drain_paths(now, reactor);
        self.outlet.flush(now, reactor);
    }

    fn flush_relays(&mut self, now: Instant, reactor: &Reactor) {
        for (region, text) in self.outlet.relays.flush(reactor) {
            self.relay_lost(now, region, text);
        }
    }

    fn timers(&mut self, now: Instant, reactor: &Reactor) {
        if self.outlet.paths.next_timeout().is_some_and(|at| at <= now) {
            self.outlet.paths.handle_timeout(now);
        }
        if self.tunnel.next_tick().is_some_and(|at| at <= now) {
            let outlet = &mut self.outlet;
            self.tunnel.tick(now, &mut |peer, datagram| outlet.push(now, peer, datagram));
        }
        for (region, text) in self.outlet.relays.handle_timeout(now) {
            self.relay_lost(now, region, text);
        }
        let (id, events) = (self.id, &self.events);
        self.pings
            .poll(now, &mut self.stack, |request, answer| events.push(id, Event::Done { request, answer }));
        if self.datagrams.next_timeout().is_some_and(|at| at <= now) {
            self.datagrams.handle_timeout(now);
        }
        if self.callers.next_timeout().is_some_and(|at| at <= now) {
            self.callers.handle_timeout(now);
        }
        if self.streams.next_timeout().is_some_and(|at| at <= now) {
            self.with_streams(now, reactor, Streams::handle_timeout);
        }
    }

    /// When the node wants to run again, should nothing happen before.
    pub(crate) fn next_timeout(&mut self, now: Instant) -> Option<Instant> {
        [
            self.outlet.paths.next_timeout(),
            self.tunnel.next_tick(),
            self.outlet.relays.next_timeout(),
            self.pings.next(),
            self.datagrams.next_timeout(),
            self.callers.next_timeout(),
            self.streams.next_timeout(),
            self.stack_due(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The stack asks for a turn at once while packets wait. If they wait for a full socket, its readiness brings the turn.
    fn stack_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.stack.poll_at(now)?;
        Some(self.stalled_until.map_or(due, |until| due.max(until)))
    }

    fn drain_paths(&mut self, now: Instant, reactor: &Reactor) {
        while let Some(output) = self.outlet.paths.poll() {
            match output {
                Output::Udp { to, bytes, socket } => self.outlet.send(now, socket, to, bytes),
                Output::OpenSocket(socket) => self.outlet.open_socket(socket, reactor),
                Output::CloseSocket(socket) => self.outlet.close_socket(socket),
                Output::Relay { region, to, bytes } => self.outlet.relays.send(now, region, &to, &bytes),
                Output::OpenRelay(region) => self.outlet.relays.open(now, region),
                Output::CloseRelay(region) => self.outlet.relays.close(region),
                Output::Prefer { region, home } => self.outlet.relays.prefer(region, home),
                Output::MeasureRelay(region) => self.outlet.relays.measure(region),
                Output::ResolveStun { region, host, port } => self.resolve(region, host, port),
                Output::Event(event) => self.path_event(now, event),
            }
        }
    }

    fn path_event(&mut self, now: Instant, event: paths::Event) {
        match event {
            paths::Event::Self_ { home, latencies, endpoints } => {
                self.tell(Event::SelfChanged { home, latencies, endpoints });
            }
            paths::Event::PathChanged { peer, path } => {
                let outlet = &mut self.outlet;
                self.tunnel.retry(now, &peer, &mut |id, datagram| outlet.push(now, id, datagram));
                self.stack.kick(now);
                self.tell(Event::PathChanged { peer, path });
            }
            paths::Event::Pong { id, latency, path, .. } => self.answer(id, Answer::Pong { latency, path }),
            paths::Event::PingTimeout { id } => self.answer(id, Answer::Failed(Failure::Timeout)),
            paths::Event::Report(report) => {
                self.tell(Event::Report(Box::new(report)));
                for request in std::mem::take(&mut self.checks) {
                    self.answer(request, Answer::Checked);
                }
            }
        }
    }

    fn resolve(&self, region: u16, host: String, port: u16) {
        let (node, mailbox) = (self.id, self.mailbox.clone());
        let _ = thread::Builder::new().name("coder-resolve".into()).spawn(move || {
            let addresses =
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            mailbox.send(Command::Resolved(node, region, addresses));
        });
    }

    /// Acts on the stack's events; answers whether there were any.
    fn drain_stack(&mut self, now: Instant, reactor: &Reactor) -> bool {
        let mut any = false;
        while let Some(event) = self.stack.next_event() {
            any = true;
            self.stack_event(now, reactor, event);
        }
        any
    }

    fn stack_event(&mut self, now: Instant, reactor: &Reactor, event: netstack::Event) {
        use netstack::Event as Happened;
        match event {
            Happened::Incoming { id, from, to } => {
                let port_use = self.settings.ports.get(&to.port()).copied().unwrap_or(self.settings.default);
                self.with_streams(now, reactor, |streams, cx| {
                    streams.incoming(cx, id, from, to.port(), port_use)
                });
            }
            Happened::Connected(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.connected(cx, flow))
            }
            Happened::Readable(flow) | Happened::Writable(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.pump(cx, flow));
            }
            Happened::Finished(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.finished(cx, flow))
            }
            Happened::Refused(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Refused));
            }
            Happened::Reset(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Reset));
            }
            Happened::TimedOut(flow) => {
                self.with_streams(now, reactor, |streams, cx| streams.lost(cx, flow, Failure::Timeout));
            }
            Happened::Datagram { from, to, bytes } => {
                if !self.callers.arrived(now, from, to, &bytes) && self.settings.default == PortUse::Splice {
                    self.datagrams.forward(now, self.id, reactor, from, to, &bytes);
                }
            }
            Happened::EchoReply { id, .. } => {
                let (node, events) = (self.id, &self.events);
                self.pings.echo_reply(now, id, |request, answer| {
                    events.push(node, Event::Done { request, answer })
                });
            }
            Happened::TsmpPong { from, data } => self.tsmp_pong(now, from, data),
        }
    }

    fn tsmp_pong(&mut self, now: Instant, from: Ipv6Addr, data: [u8; 8]) {
        let (node, events) = (self.id, &self.events);
        let done = |request, answer| events.push(node, Event::Done { request, answer });
        self.pings.tsmp_pong(now, from, data, done);
    }
}
