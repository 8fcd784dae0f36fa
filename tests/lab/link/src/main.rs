//! The imperfect link of the lab: `lab-link NAMESPACE:DEVICE NAMESPACE:DEVICE [COMMAND …]`.
//!
//! Makes a TUN device in each of two network namespaces (given by path) and carries packets between them, as the
//! commands (see `command`) say. The same commands come as lines on standard input, each answered by a line: `ok`,
//! the counters as JSON, or what is wrong. Its end ends the link. `seed=N` among the arguments seeds the chance.

mod command;
mod lane;
mod tun;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use command::{Change, Command, Ways};
use lane::{Lane, Packet, Settings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const BUFFER: usize = 9216;
const BATCH: usize = 64;
/// Nanoseconds by which the kernel may wake us late; its default of 50,000 is five packets at 1 Gbit/s.
const TIMER_SLACK: u64 = 1;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "lab-link: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), String> {
    let mut arguments = arguments.into_iter();
    let first = end(arguments.next())?;
    let second = end(arguments.next())?;
    let mut link = Link::new(first, second);
    for argument in arguments {
        if let Some(seed) = argument.strip_prefix("seed=") {
            link.seed(seed.parse().map_err(|_| format!("{argument}: not a number"))?);
        } else {
            link.obey(&argument)?;
        }
    }
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(TIMER_SLACK));
    link.carry().map_err(|error| error.to_string())
}

/// Opens what `NAMESPACE:DEVICE` names.
fn end(argument: Option<String>) -> Result<File, String> {
    let argument = argument.ok_or("usage: lab-link NAMESPACE:DEVICE NAMESPACE:DEVICE [COMMAND …]")?;
    let (namespace, device) =
        argument.rsplit_once(':').ok_or_else(|| format!("{argument}: not NAMESPACE:DEVICE"))?;
    tun::open(Path::new(namespace), device).map_err(|error| format!("{argument}: {error}"))
}

/// Both directions with their devices.
struct Link {
    ends: [File; 2],
    lanes: [Lane; 2],
    spare: Vec<Box<[u8]>>,
    line: Vec<u8>,
}

impl Link {
    fn new(first: File, second: File) -> Self {
        let now = Instant::now();
        let lanes = [1, 2].map(|seed| Lane::new(Settings::default(), seed, now));
        Self { ends: [first, second], lanes, spare: Vec::new(), line: Vec::new() }
    }

    fn seed(&mut self, seed: u64) {
        let now = Instant::now();
        for (lane, seed) in self.lanes.iter_mut().zip([seed, seed ^ u64::MAX]) {
            *lane = Lane::new(lane.settings().clone(), seed, now);
        }
    }

    /// Carries packets until standard input ends.
    fn carry(&mut self) -> io::Result<()> {
        say("ready")?;
        loop {
            let readable = self.wait()?;
            if readable[2] && !self.listen()? {
                return Ok(());
            }
            for from in [0, 1] {
                if readable[from] {
                    self.take(from)?;
                }
                self.give(from);
            }
        }
    }

    /// Waits for a packet, a line or a departure; says which of the ends and standard input have something.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let stdin = io::stdin();
        let mut waited = [
            PollFd::new(&self.ends[0], PollFlags::IN),
            PollFd::new(&self.ends[1], PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        let next = self.lanes.iter().filter_map(Lane::next_departure).min();
        let timeout = next.map(|next| timespec(next.saturating_duration_since(Instant::now())));
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(waited.map(|one| !one.revents().is_empty())),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a batch from one end into the direction that leads away from it.
    fn take(&mut self, from: usize) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..BATCH {
            let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; BUFFER].into());
            match (&self.ends[from]).read(&mut buffer) {
                Ok(len) => {
                    let refused = self.lanes[from].arrive(now, Packet { buffer, len });
                    self.spare.extend(refused.map(|packet| packet.buffer));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.spare.push(buffer);
                    break;
                }
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Err(error),
                // A device that is not up says so at each read; it may come up.
                Err(_) => {
                    self.spare.push(buffer);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes what has come through from one end into the other.
    fn give(&mut self, from: usize) {
        let now = Instant::now();
        while let Some(packet) = self.lanes[from].depart(now) {
            // A device refuses what its own host would not take (down, wrong family): lost, like on any wire.
            let _ = (&self.ends[1 - from]).write(packet.bytes());
            self.spare.push(packet.buffer);
        }
    }

    /// Obeys the lines on standard input; false when it has ended.
    fn listen(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let len = rustix::io::read(io::stdin().as_fd(), &mut piece)?;
        self.line.extend_from_slice(&piece[..len]);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let answer = self.obey(&String::from_utf8_lossy(&line));
            say(&answer.unwrap_or_else(|problem| format!("error: {problem}")))?;
        }
        Ok(len > 0)
    }

    fn obey(&mut self, line: &str) -> Result<String, String> {
        match command::parse(line)? {
            Command::Stats => Ok(self.stats()),
            Command::Change(ways, change) => {
                self.change(ways, change);
                Ok("ok".to_owned())
            }
        }
    }

    fn change(&mut self, ways: Ways, change: Change) {
        let lanes = match ways {
            Ways::Both => &mut self.lanes[..],
            Ways::Forth => &mut self.lanes[..1],
            Ways::Back => &mut self.lanes[1..],
        };
        for lane in lanes {
            change.apply(lane.settings());
        }
    }

    fn stats(&self) -> String {
        let [forth, back] = &self.lanes;
        serde_json::json!({"ab": forth.counters(), "ba": back.counters()}).to_string()
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}
