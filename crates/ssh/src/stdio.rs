//! A stream joined to standard input and output, for `ProxyCommand`.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

const CHUNK: usize = 128 << 10;

/// Carries bytes both ways until the stream ends; what comes after that on standard input is nobody's. Blocks.
///
/// # Errors
/// When the stream breaks or standard output is closed.
pub fn join(stream: OwnedFd) -> io::Result<()> {
    let mut stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    let mut outward = stream.try_clone()?;
    std::thread::Builder::new().name("coder-stdin".into()).spawn(move || {
        let mut input = io::stdin().lock();
        let _ = carry(&mut input, &mut outward);
        let _ = outward.shutdown(Shutdown::Write);
    })?;
    carry(&mut stream, &mut io::stdout().lock())
}

fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}
