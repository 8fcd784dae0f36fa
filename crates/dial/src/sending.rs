//! How much a relay's connection may have under way.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::time::Duration;

/// Bytes of a send buffer, which the kernel doubles for its own overhead: 1 Gbit/s over a round trip of about 100 ms.
/// By itself it stops at `tcp_wmem`, commonly 4 MB of its own counting, which is 700 Mbit/s over 29 ms.
const SEND_BUFFER: usize = 8 << 20;
/// Bytes that may wait in the kernel without having been sent: more would only make disco packets wait.
const NOT_SENT: u32 = 256 * 1024;
/// A round trip within one machine. More than 10 Gbit/s fit into [`SHORT_BUFFER`] of it.
const SHORT_PATH: Duration = Duration::from_micros(100);
/// Bytes of each buffer of a short path, which the kernel doubles. What stands in longer ones has left the processor's
/// caches when it is copied on, and would be no faster for it.
const SHORT_BUFFER: usize = 128 * 1024;

/// Lets one TCP connection fill a fast and long path, without a queue in front of a slow one. Best effort.
pub fn fill_long_paths(stream: &impl AsFd) {
    let socket = socket2::SockRef::from(stream);
    if socket.set_tcp_notsent_lowat(NOT_SENT).is_ok() && !forced(stream) && wider_than_automatic() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
}

/// Keeps no more under way on a path within this machine than it needs, in both directions. Best effort.
pub fn keep_short_paths_short(stream: &impl AsFd) {
    if least_round_trip(stream).is_some_and(|round_trip| round_trip < SHORT_PATH) {
        let socket = socket2::SockRef::from(stream);
        let _ = socket.set_send_buffer_size(SHORT_BUFFER);
        let _ = socket.set_recv_buffer_size(SHORT_BUFFER);
    }
}

/// The shortest round trip that the kernel has seen on this connection, its handshake's included.
#[allow(unsafe_code)]
fn least_round_trip(stream: &impl AsFd) -> Option<Duration> {
    // SAFETY: the structure is made of numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the call, and the kernel writes at most the length it is told.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let told = length as usize >= std::mem::offset_of!(libc::tcp_info, tcpi_min_rtt) + size_of::<u32>();
    let known = result == 0 && told && info.tcpi_min_rtt != u32::MAX;
    known.then(|| Duration::from_micros(u64::from(info.tcpi_min_rtt)))
}

/// A process with the right gets past the system's limit.
#[allow(unsafe_code)]
fn forced(stream: &impl AsFd) -> bool {
    let bytes = SEND_BUFFER as libc::c_int;
    // SAFETY: the descriptor is open for the call and the option's value is a c_int of that size.
    unsafe {
        libc::setsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        ) == 0
    }
}

/// A size once asked for ends the kernel's own growing; so it must be worth it.
fn wider_than_automatic() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let last =
            |path| std::fs::read_to_string(path).ok()?.split_whitespace().next_back()?.parse::<usize>().ok();
        match (last("/proc/sys/net/core/wmem_max"), last("/proc/sys/net/ipv4/tcp_wmem")) {
            (Some(most), Some(automatic)) => most.min(SEND_BUFFER).saturating_mul(2) > automatic,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_connection_never_gets_less_than_before() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = socket2::SockRef::from(&stream);
        let before = socket.send_buffer_size().unwrap();
        fill_long_paths(&stream);
        assert!(socket.send_buffer_size().unwrap() >= before);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT);
    }

    #[test]
    fn a_round_trip_is_known_once_connected() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let round_trip = least_round_trip(&stream).unwrap();
        let before = socket2::SockRef::from(&stream).send_buffer_size().unwrap();
        keep_short_paths_short(&stream);
        let after = socket2::SockRef::from(&stream).send_buffer_size().unwrap();
        let expected = if round_trip < SHORT_PATH { 2 * SHORT_BUFFER } else { before };
        assert_eq!(after, expected);
        assert_eq!(least_round_trip(&std::fs::File::open("/dev/null").unwrap()), None);
    }
}
