//! A session's process, on a terminal or on pipes, and the way of its bytes.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pty_process::Size;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelWriteHalf, Pty, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::inlet::{self, Backlog, Inlet};
use crate::policy::Policy;
use crate::signals;

/// Exit code for a process that a signal ended.
const SIGNALLED: u32 = 255;
/// Exit code for what could not be started.
const NOT_STARTED: u32 = 229;
/// How much of a process's output is taken at once.
const CHUNK: usize = 64 << 10;
/// A process has ended, but others it left behind hold its output open: how long these may be silent.
const AFTERLIFE: Duration = Duration::from_millis(200);
/// Shown text longer than this is cut.
const MAX_MOTD: u64 = 256 << 10;

/// A terminal a client asked for.
pub(crate) struct Terminal {
    pub(crate) term: String,
    /// Rows, columns, and the same in pixels (width, height).
    pub(crate) size: [u32; 4],
    pub(crate) modes: Vec<(Pty, u32)>,
}

/// What to run.
pub(crate) struct Plan {
    pub(crate) policy: Arc<Policy>,
    /// None: the login shell.
    pub(crate) command: Option<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) terminal: Option<Terminal>,
    /// Path of the socket to the client's key agent.
    pub(crate) agent: Option<PathBuf>,
    /// The client's screen (`DISPLAY`), and the file with what it wants to see.
    pub(crate) display: Option<(String, PathBuf)>,
}

/// What the client says besides data.
pub(crate) enum Control {
    Resize([u32; 4]),
    Signal(Sig),
}

/// Runs a process for a channel until both are done; answers the exit code that the client was told.
pub(crate) async fn run(
    channel: Channel<Msg>,
    session: Handle,
    backlog: Backlog,
    plan: Plan,
    mut orders: mpsc::Receiver<Control>,
) -> u32 {
    let id = channel.id();
    let (mut input, output) = inlet::open(channel, &backlog);
    let started = match &plan.terminal {
        Some(terminal) => on_terminal(&plan, terminal, &mut input, &output, &mut orders).await,
        None => on_pipes(&plan, &mut input, &output, &mut orders).await,
    };
    let mut killed = None;
    let code = match started {
        Ok(status) => {
            killed = status.signal().and_then(signals::named);
            exit_code(status)
        }
        Err(error) => {
            let end = if plan.terminal.is_some() { "\r\n" } else { "\n" };
            let text = format!("coder agent: cannot start {}: {error}{end}", plan.policy.shell.display());
            let _ = output.extended_data_bytes(1, text.into_bytes()).await;
            NOT_STARTED
        }
    };
    let _ = match killed {
        Some(signal) => session.exit_signal_request(id, signal, false, String::new(), String::new()).await,
        None => output.exit_status(code).await.map_err(drop),
    };
    let _ = output.eof().await;
    let _ = output.close().await;
    code
}

fn exit_code(status: ExitStatus) -> u32 {
    match status.code() {
        Some(code) => code.unsigned_abs(),
        None => SIGNALLED,
    }
}

/// Gives a process that has just started the limit of open files that this program was itself started with.
fn limit_files(group: Option<Pid>, limit: Option<u64>) {
    #[cfg(target_os = "linux")]
    if let (Some(pid), Some(limit)) = (group, limit) {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (group, limit);
}

fn environment(plan: &Plan, tty: Option<OsString>) -> Vec<(OsString, OsString)> {
    let mut session: Vec<(&str, OsString)> = Vec::new();
    if let Some(terminal) = &plan.terminal {
        session.push(("TERM", terminal.term.clone().into()));
    }
    if let Some(tty) = tty {
        session.push(("SSH_TTY", tty));
    }
    if let Some(agent) = &plan.agent {
        session.push(("SSH_AUTH_SOCK", agent.clone().into()));
    }
    if let Some((display, cookies)) = &plan.display {
        session.push(("DISPLAY", display.clone().into()));
        session.push(("XAUTHORITY", cookies.clone().into()));
    }
    plan.policy.environment(&plan.variables, &session)
}

async fn on_pipes(
    plan: &Plan,
    input: &mut Inlet,
    output: &ChannelWriteHalf<Msg>,
    orders: &mut mpsc::Receiver<Control>,
) -> io::Result<ExitStatus> {
    let words = plan.policy.command_line(plan.command.as_deref());
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment(plan, None))
        .current_dir(&plan.policy.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = group_of(&child);
    limit_files(group, plan.policy.open_files);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (ended, over) = tokio::sync::watch::channel(false);
    let out = drain(stdout, output, None, over.clone());
    let err = drain(stderr, output, Some(1), over);
    let mut work = std::pin::pin!(async { tokio::join!(out, err) });
    let mut gone = std::pin::pin!(input.gone());
    let mut feeding = std::pin::pin!(async {
        let _ = tokio::io::copy(input, &mut stdin).await;
        drop(stdin);
    });
    let (mut fed, mut drained, mut status) = (false, false, None);
    loop {
        tokio::select! {
            () = &mut feeding, if !fed => fed = true,
            // Nobody listens any more: the process loses its pipes and lives on if it can.
            () = &mut gone => return Ok(status.unwrap_or_else(|| ExitStatus::from_raw(0))),
            Some(order) = orders.recv() => signal(group, order),
            outcome = child.wait(), if status.is_none() => {
                status = Some(outcome?);
                let _ = ended.send(true);
            }
            _ = &mut work, if !drained => drained = true,
        }
        if let (Some(status), true) = (status, drained) {
            return Ok(status);
        }
    }
}

async fn on_terminal(
    plan: &Plan,
    terminal: &Terminal,
    input: &mut Inlet,
    output: &ChannelWriteHalf<Msg>,
    orders: &mut mpsc::Receiver<Control>,
) -> io::Result<ExitStatus> {
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(size(terminal.size)).map_err(io::Error::other)?;
    let name = rustix::pty::ptsname(&pty, Vec::new())?;
    let tty = OsString::from(String::from_utf8_lossy(name.to_bytes()).into_owned());
    crate::modes::apply(&pty, &terminal.modes)?;
    if plan.command.is_none() {
        greet(&plan.policy, output).await;
    }
    let words = plan.policy.command_line(plan.command.as_deref());
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = pty_process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment(plan, Some(tty)))
        .current_dir(&plan.policy.directory)
        .spawn(pts)
        .map_err(io::Error::other)?;
    let group = group_of(&child);
    limit_files(group, plan.policy.open_files);
    let (reader, writer) = pty.into_split();
    let (ended, over) = tokio::sync::watch::channel(false);
    let (resize, sizes) = mpsc::channel(8);
    let mut draining = std::pin::pin!(drain(reader, output, None, over));
    let mut gone = std::pin::pin!(input.gone());
    let mut feeding = std::pin::pin!(type_in(input, writer, sizes));
    let (mut drained, mut status) = (false, None);
    loop {
        tokio::select! {
            () = &mut feeding => {}
            () = &mut gone => {
                if let Some(status) = status {
                    return Ok(status);
                }
                // What runs on the client's terminal is told that it is gone.
                let _ = group.map(|group| kill_process_group(group, Signal::HUP));
                return child.wait().await;
            }
            Some(order) = orders.recv() => match order {
                Control::Resize(size) => { let _ = resize.try_send(size); }
                other => signal(group, other),
            },
            outcome = child.wait(), if status.is_none() => {
                status = Some(outcome?);
                let _ = ended.send(true);
            }
            () = &mut draining, if !drained => drained = true,
        }
        if let (Some(status), true) = (status, drained) {
            return Ok(status);
        }
    }
}

fn size([rows, columns, width, height]: [u32; 4]) -> Size {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Size::new_with_pixel(short(rows), short(columns), short(width), short(height))
}

fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn signal(group: Option<Pid>, order: Control) {
    let Control::Signal(signal) = order else { return };
    let Some(signal) = signals::meant(&signal) else { return };
    let _ = group.map(|group| kill_process_group(group, signal));
}

/// Sends what a process writes, to its end or, once the process is over, until nothing more comes.
async fn drain(
    mut from: impl AsyncRead + Unpin,
    output: &ChannelWriteHalf<Msg>,
    kind: Option<u32>,
    mut over: tokio::sync::watch::Receiver<bool>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let silent = async {
            let _ = over.wait_for(|over| *over).await;
            tokio::time::sleep(AFTERLIFE).await;
        };
        let length = tokio::select! {
            biased;
            read = from.read_buf(&mut buffer) => read.unwrap_or(0),
            () = silent => 0,
        };
        if length == 0 {
            return;
        }
        let bytes = buffer.split().freeze();
        let sent = match kind {
            None => output.data_bytes(bytes).await,
            Some(kind) => output.extended_data_bytes(kind, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The end of input that a terminal understands.
const END_OF_TRANSMISSION: u8 = 4;

/// Gives a terminal what the client types, and its size; never ends by itself, since the size may still change.
async fn type_in(
    input: &mut Inlet,
    mut pty: pty_process::OwnedWritePty,
    mut sizes: mpsc::Receiver<[u32; 4]>,
) {
    let mut typed = BytesMut::new();
    let mut open = true;
    loop {
        typed.clear();
        typed.reserve(CHUNK);
        tokio::select! {
            Some(new) = sizes.recv() => { let _ = pty.resize(size(new)); }
            read = input.read_buf(&mut typed), if open => {
                open = read.is_ok_and(|length| length > 0);
                if !open {
                    typed.extend_from_slice(&[END_OF_TRANSMISSION]);
                }
                let _ = pty.write_all(&typed).await;
            }
            else => std::future::pending().await,
        }
    }
}

/// What a login shell's user reads first.
async fn greet(policy: &Policy, output: &ChannelWriteHalf<Msg>) {
    let mut text = String::new();
    for banner in policy.banners.iter().map(|banner| banner.trim()).filter(|banner| !banner.is_empty()) {
        text.push_str(banner);
        text.push_str("\n\n");
    }
    if let Some(motd) = &policy.motd
        && let Ok(file) = tokio::fs::File::open(motd).await
    {
        let mut bytes = Vec::new();
        let _ = file.take(MAX_MOTD).read_to_end(&mut bytes).await;
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    if !text.is_empty() {
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let _ = output.data_bytes(text.into_bytes()).await;
    }
}
