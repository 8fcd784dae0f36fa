//! The SSH server's handle.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::ssh::client::{self, Display, Ended, Gpg, Options, Place};
use ::ssh::{Notice, Policy, Server};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

/// A session's first process begins.
#[pyclass(frozen, get_all)]
pub struct SshBegan {
    session: u64,
    kind: &'static str,
}

/// A session is over.
#[pyclass(frozen, get_all)]
pub struct SshEnded {
    session: u64,
    status: Option<u32>,
    reason: String,
}

/// What waits for Python, and the descriptor that says so.
struct Notices {
    waiting: Mutex<Vec<Notice>>,
    readable: OwnedFd,
}

impl Notices {
    fn push(&self, notice: Notice) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        let _ = rustix::io::write(&self.readable, &1_u64.to_ne_bytes());
    }
}

/// The SSH server of a workspace.
#[pyclass(frozen)]
pub struct SshServer {
    server: Server,
    notices: Arc<Notices>,
}

#[pymethods]
impl SshServer {
    /// `seed` makes the host key; a client may be silent for so many seconds, `None`: for ever.
    #[new]
    #[pyo3(signature = (seed, silence=None))]
    fn new(seed: &[u8], silence: Option<f64>) -> PyResult<Self> {
        let seed: &[u8; 32] = seed.try_into().map_err(|_| PyValueError::new_err("a seed has 32 bytes"))?;
        let failed = |error: std::io::Error| PyOSError::new_err(error.to_string());
        let readable = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let notices = Arc::new(Notices { waiting: Mutex::default(), readable });
        let told = Arc::clone(&notices);
        let silence = silence
            .map(Duration::try_from_secs_f64)
            .transpose()
            .map_err(|_| PyValueError::new_err("that is no length of time"))?;
        let tell = move |notice| told.push(notice);
        let server = Server::start(seed, Policy::default(), silence, tell).map_err(failed)?;
        Ok(Self { server, notices })
    }

    /// Readable while `notices` has something.
    fn fileno(&self) -> i32 {
        self.notices.readable.as_raw_fd()
    }

    /// Takes everything that happened.
    fn notices(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let _ = rustix::io::read(&self.notices.readable, &mut [0; 8]);
        let waiting =
            std::mem::take(&mut *self.notices.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting
            .into_iter()
            .map(|notice| {
                Ok(match notice {
                    Notice::Began { session, kind } => {
                        Py::new(py, SshBegan { session, kind: kind.name() })?.into_any()
                    }
                    Notice::Ended { session, status, reason } => {
                        Py::new(py, SshEnded { session, status, reason })?.into_any()
                    }
                })
            })
            .collect()
    }

    /// Replaces what processes that start from now on find.
    #[pyo3(signature = (*, shell, home, directory, defaults, overrides, banners, motd, open_files, block_file_transfer))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python side")]
    fn set_policy(
        &self,
        shell: PathBuf,
        home: PathBuf,
        directory: PathBuf,
        defaults: Vec<(OsString, OsString)>,
        overrides: Vec<(OsString, OsString)>,
        banners: Vec<String>,
        motd: Option<PathBuf>,
        open_files: Option<u64>,
        block_file_transfer: bool,
    ) {
        self.server.set_policy(Policy {
            shell,
            home,
            directory,
            defaults,
            overrides,
            banners,
            motd,
            open_files,
            block_file_transfer,
        });
    }

    /// Serves a client; takes the descriptor over.
    fn serve(&self, fd: i32, session: u64) {
        // SAFETY: Python hands over a descriptor it has detached from its socket; nobody else closes it.
        let stream = unsafe { OwnedFd::from_raw_fd(fd) };
        self.server.serve(stream, session);
    }

    /// Sessions that are open.
    fn sessions(&self) -> usize {
        self.server.sessions()
    }

    /// Ends all sessions and the thread.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.server.stop());
    }
}

/// A screen as Python has it: its server's socket, or else its host and port; its number, and the server's cookie.
type Screen = (Option<PathBuf>, String, u16, u32, Vec<u8>);

/// Runs a session on standard input and output; takes the descriptor over, answers the exit code, how it ended, and the
/// signal that ended the process, if one did.
#[pyfunction]
#[pyo3(signature = (fd, *, command, terminal, variables, agent, display=None, gpg=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python side")]
pub fn ssh_session(
    py: Python<'_>,
    fd: i32,
    command: Option<String>,
    terminal: Option<String>,
    variables: Vec<(String, String)>,
    agent: Option<PathBuf>,
    display: Option<Screen>,
    gpg: Option<(PathBuf, Vec<u8>, Vec<u8>)>,
) -> PyResult<(u32, &'static str, String)> {
    // SAFETY: as for `serve`.
    let stream = unsafe { OwnedFd::from_raw_fd(fd) };
    let options = Options {
        command,
        terminal,
        variables,
        agent,
        display: display.map(|(path, host, port, screen, cookie)| Display {
            place: path.map_or(Place::Host(host, port), Place::Path),
            screen,
            cookie,
        }),
        gpg: gpg.map(|(socket, keys, trust)| Gpg { socket, keys, trust }),
    };
    let ended =
        py.detach(|| client::run(stream, &options)).map_err(|error| PyOSError::new_err(error.to_string()))?;
    let how = match &ended {
        Ended::Status(_) => "status",
        Ended::Signal(_) => "signal",
        Ended::Disconnected => "disconnected",
        Ended::Unread => "unread",
        Ended::Lost => "lost",
    };
    let code = ended.code();
    let signal = if let Ended::Signal(name) = ended { name } else { String::new() };
    Ok((code, how, signal))
}

/// Carries bytes between the descriptor and standard input and output until the stream ends; takes the descriptor over.
#[pyfunction]
pub fn join_stdio(py: Python<'_>, fd: i32) -> PyResult<()> {
    // SAFETY: as for `serve`.
    let stream = unsafe { OwnedFd::from_raw_fd(fd) };
    py.detach(|| ::ssh::stdio::join(stream)).map_err(|error| PyOSError::new_err(error.to_string()))
}
