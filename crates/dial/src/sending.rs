//! How much a relay's connection may have under way.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

/// Bytes of a send buffer, which the kernel doubles for its own overhead: 1 Gbit/s over a round trip of about 100 ms.
/// By itself it stops at `tcp_wmem`, commonly 4 MB of its own counting, which is 700 Mbit/s over 29 ms.
const SEND_BUFFER: usize = 8 << 20;
/// Bytes that may wait in the kernel without having been sent: more would only make disco packets wait.
const NOT_SENT: u32 = 256 * 1024;

/// Lets one TCP connection fill a fast and long path, without a queue in front of a slow one. Best effort.
pub fn fill_long_paths(stream: &impl AsFd) {
    let socket = socket2::SockRef::from(stream);
    if socket.set_tcp_notsent_lowat(NOT_SENT).is_ok() && !forced(stream) && wider_than_automatic() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
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
}
