//! From a host to a connected TCP socket: names, two address families, a race.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use wire::derpmap::{Family, RelayNode};

use crate::deadline::{Deadline, wait_any};
use crate::error::{Failure, Stage};
use crate::sending::fill_long_paths;

/// Head start of IPv6 when it is known to work.
const V6_HEAD_START: Duration = Duration::from_millis(200);

/// Wait before the next address of a family joins the race (RFC 8305 section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Addresses that take part at most, per family.
const MOST_ADDRESSES: usize = 4;

/// A TCP destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Name or address literal (IPv6 without brackets).
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) v4: Family<Ipv4Addr>,
    pub(crate) v6: Family<Ipv6Addr>,
}

impl Destination {
    /// A node of the map, by its address fields.
    pub(crate) fn node(node: &RelayNode, port: u16) -> Self {
        Self { host: node.host.clone(), port, v4: node.v4(), v6: node.v6() }
    }

    /// A host without address fields of its own.
    pub(crate) fn host(host: &str, port: u16) -> Self {
        Self::node(&RelayNode { host: host.to_owned(), ..RelayNode::default() }, port)
    }

    /// The addresses that need no lookup, per family.
    fn fixed(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let v4 = if let Family::Fixed(address) = self.v4 { vec![address.into()] } else { Vec::new() };
        let v6 = if let Family::Fixed(address) = self.v6 { vec![address.into()] } else { Vec::new() };
        (v4, v6)
    }
}

/// Connects to whichever address answers first. The socket is non-blocking, with Nagle's algorithm off.
///
/// Known addresses are tried first; the lookup of the other family happens only if none of them answers.
pub(crate) fn connect(
    to: &Destination,
    prefer_v6: bool,
    deadline: Deadline,
) -> Result<(Socket, SocketAddr), Failure> {
    let (v4, v6) = to.fixed();
    let mut outcome = Err(Failure::NoFamily);
    if !v4.is_empty() || !v6.is_empty() {
        outcome = race(&schedule(&v4, &v6, to.port, prefer_v6), deadline);
    }
    let (by_v4, by_v6) = (to.v4 == Family::Resolve, to.v6 == Family::Resolve);
    if outcome.is_ok() || !(by_v4 || by_v6) || deadline.passed() {
        return outcome;
    }
    let (v4, v6): (Vec<_>, Vec<_>) = lookup(&to.host, to.port, deadline)?
        .into_iter()
        .filter(|address| if address.is_ipv4() { by_v4 } else { by_v6 })
        .partition(IpAddr::is_ipv4);
    if v4.is_empty() && v6.is_empty() {
        let reason = "it has no address of a usable family".to_owned();
        return Err(Failure::Dns { host: to.host.clone(), reason });
    }
    race(&schedule(&v4, &v6, to.port, prefer_v6), deadline)
}

/// Asks the system's resolver, on a thread of its own because the call cannot be interrupted.
fn lookup(host: &str, port: u16, deadline: Deadline) -> Result<Vec<IpAddr>, Failure> {
    let left = deadline.remaining().ok_or(Failure::TimedOut(Stage::Dns))?;
    let (tell, told) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let ask = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Nobody listens any more once the deadline has passed.
        let _ = tell.send(found.map(|found| found.map(|address| address.ip()).collect()));
    };
    let failed = |reason: String| Failure::Dns { host: host.to_owned(), reason };
    thread::Builder::new().name("lookup".into()).spawn(ask).map_err(|error| failed(error.to_string()))?;
    match told.recv_timeout(left) {
        Ok(found) => found.map_err(|error| failed(error.to_string())),
        Err(_) => Err(Failure::TimedOut(Stage::Dns)),
    }
}

/// When each address joins the race: both families at once, or IPv4 a little later when IPv6 is preferred.
fn schedule(v4: &[IpAddr], v6: &[IpAddr], port: u16, prefer_v6: bool) -> Vec<(Duration, SocketAddr)> {
    let v4_start = if prefer_v6 && !v6.is_empty() { V6_HEAD_START } else { Duration::ZERO };
    let family = |addresses: &[IpAddr], start: Duration| {
        let delays = (0u32..).map(move |place| start + NEXT_ADDRESS * place);
        let addresses: Vec<_> = addresses.iter().take(MOST_ADDRESSES).copied().collect();
        delays.zip(addresses).map(move |(delay, address)| (delay, SocketAddr::new(address, port)))
    };
    let mut schedule: Vec<_> = family(v6, Duration::ZERO).chain(family(v4, v4_start)).collect();
    schedule.sort_by_key(|(delay, _)| *delay);
    schedule
}

/// Runs the race. An address also joins early when no other is left in it.
fn race(schedule: &[(Duration, SocketAddr)], deadline: Deadline) -> Result<(Socket, SocketAddr), Failure> {
    let begun = Instant::now();
    let mut waiting = schedule.iter().peekable();
    let mut running: Vec<(Socket, SocketAddr)> = Vec::new();
    let mut last = Failure::TimedOut(Stage::Tcp);
    while !deadline.passed() {
        let due = |&&(delay, _): &&(Duration, SocketAddr)| begun.elapsed() >= delay;
        let next = if running.is_empty() { waiting.next() } else { waiting.next_if(due) };
        if let Some(&(_, address)) = next {
            match begin(address) {
                Ok(socket) => running.push((socket, address)),
                Err(error) => last = Failure::Tcp(error),
            }
            continue;
        }
        if running.is_empty() {
            return Err(last);
        }
        let pause = waiting.peek().map_or(deadline, |(delay, _)| deadline.min(Deadline::at(begun + *delay)));
        match first_connected(&mut running, pause) {
            Ok(Some(winner)) => return Ok(winner),
            Ok(None) => {}
            Err(error) => last = Failure::Tcp(error),
        }
    }
    Err(Failure::TimedOut(Stage::Tcp))
}

fn begin(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // A tunnel inside must not suffer twice from a path that loses packets; a system without it has its own default.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_congestion(b"bbr");
    fill_long_paths(&socket);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

/// Waits for any running attempt to end. Takes the failed ones out; their last error is returned if none has won.
fn first_connected(
    running: &mut Vec<(Socket, SocketAddr)>,
    pause: Deadline,
) -> io::Result<Option<(Socket, SocketAddr)>> {
    let mut polled: Vec<_> = running.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::OUT)).collect();
    wait_any(&mut polled, pause)?;
    let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
    let mut failed = None;
    for place in (0..ready.len()).rev().filter(|&place| ready[place]) {
        let (socket, address) = running.remove(place);
        match socket.take_error()? {
            None => return Ok(Some((socket, address))),
            Some(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn to(host: &str, port: u16, ipv4: &str, ipv6: &str) -> Destination {
        let node =
            RelayNode { host: host.into(), ipv4: ipv4.into(), ipv6: ipv6.into(), ..RelayNode::default() };
        Destination::node(&node, port)
    }

    #[test]
    fn both_families_start_together_unless_one_is_preferred() {
        let (four, six) = ([ip("192.0.2.1"), ip("192.0.2.2")], [ip("2001:db8::1")]);
        let order = |prefer_v6| {
            let schedule = schedule(&four, &six, 1, prefer_v6);
            schedule.iter().map(|(at, to)| (at.as_millis(), to.ip())).collect::<Vec<_>>()
        };
        assert_eq!(order(false), [(0, six[0]), (0, four[0]), (250, four[1])]);
        assert_eq!(order(true), [(0, six[0]), (200, four[0]), (450, four[1])]);
        assert_eq!(schedule(&four, &[], 1, true)[0].0, Duration::ZERO, "nothing to wait for");
        assert_eq!(schedule(&[four[0]; 50], &[six[0]; 50], 1, true).len(), 2 * MOST_ADDRESSES);
    }

    #[test]
    fn a_refusal_hands_over_to_the_next_address() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let never = Duration::from_secs(3600);
        let (_, peer) = race(&[(Duration::ZERO, closed), (never, open)], soon()).unwrap();
        assert_eq!(peer, open);
        let refused = race(&[(Duration::ZERO, closed)], soon()).unwrap_err();
        assert!(matches!(refused, Failure::Tcp(error) if error.kind() == io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn looks_names_up_and_respects_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let to_v4 = to("localhost", port, "", "none");
        assert_eq!(connect(&to_v4, true, soon()).unwrap().1, listener.local_addr().unwrap());
        let over = Deadline::at(Instant::now());
        assert!(matches!(lookup("localhost", 1, over), Err(Failure::TimedOut(Stage::Dns))));
        assert!(matches!(race(&[], soon()), Err(Failure::TimedOut(Stage::Tcp))));
        let off = to("localhost", port, "none", "none");
        assert!(matches!(connect(&off, false, soon()), Err(Failure::NoFamily)));
        let impossible = Destination::host("no\0name", port);
        assert!(matches!(connect(&impossible, false, soon()), Err(Failure::Dns { .. })));
    }

    #[test]
    fn a_fixed_address_that_refuses_falls_back_to_the_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let by_name = to("localhost", port, "", "::1");
        assert_eq!(connect(&by_name, false, soon()).unwrap().1.port(), port);
    }
}
