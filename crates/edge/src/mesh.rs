//! Dials the other relays of the region, and again whenever a link ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dial::{Deadline, Identity, ProxyRules, Target, TrustRoots};
use hyper::Uri;
use relay::server::CloseReason;
use wire::derpmap::{Region, RelayNode};
use wire::keys::random_nonce;

use crate::counters::Tally;
use crate::relay_thread::{LinkUp, RelayThread};

/// DNS, TCP, TLS and HTTP together.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A link that holds this long is wanted at the other end.
const PROVED: Duration = Duration::from_secs(2);
/// A link that held this long starts with short waits again.
const HELD: Duration = Duration::from_secs(10);

/// Another relay of the region: `https://host[:port]`, or `http://` for one without TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeshPeer {
    host: String,
    port: u16,
    plain: bool,
}

impl fmt::Display for MeshPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain { "http" } else { "https" };
        let host = &self.host;
        let port = self.port;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// A text that is no relay's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no relay's URL; write for instance https://relay2.example.com")]
pub struct MeshPeerError(String);

impl FromStr for MeshPeer {
    type Err = MeshPeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MeshPeerError(text.to_owned());
        let uri: Uri = text.trim().parse().map_err(|_| error())?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(error()),
        };
        let host = uri.host().ok_or_else(error)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(error());
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(if plain { 80 } else { 443 }), plain })
    }
}

/// How the other relays are reached, and proved to be the right ones.
#[derive(Clone, Debug, Default)]
pub struct MeshTrust {
    /// PEM text of the only authorities that are trusted; else the system's and those of [`MeshTrust::ca_file`].
    pub roots: Option<Vec<u8>>,
    /// PEM file of further authorities.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for relays that ask for one.
    pub identity: Option<Identity>,
    /// Which relays are reached through a proxy.
    pub proxies: ProxyRules,
    /// What their certificates are checked against instead of the host: a name, or `sha256-raw:<hex>`.
    pub name: Option<String>,
}

impl MeshPeer {
    fn target(&self, trust: &MeshTrust) -> Target {
        let node = RelayNode {
            name: self.host.clone(),
            host: self.host.clone(),
            derp_port: i64::from(self.port),
            force_http: self.plain,
            cert_name: trust.name.clone().unwrap_or_default(),
            ..RelayNode::default()
        };
        let mut target =
            Target::new(Region { code: "mesh".to_owned(), nodes: vec![node], ..Region::default() });
        target.roots = match (&trust.roots, &trust.ca_file) {
            (Some(pem), _) => TrustRoots::Pem(pem.clone()),
            (None, Some(path)) => TrustRoots::SystemAnd(path.clone()),
            (None, None) => TrustRoots::System,
        };
        target.identity = trust.identity.clone();
        target.proxies = trust.proxies.clone();
        target
    }
}

/// The links that are wanted, each with a thread that keeps it.
pub(crate) struct Mesh {
    relay: Arc<RelayThread>,
    tally: Arc<Tally>,
    trust: MeshTrust,
    keepers: Mutex<BTreeMap<MeshPeer, Wanted>>,
}

/// How a link is, for those who ask.
#[derive(Default)]
struct State {
    /// Why it was not there last, in one line.
    problem: Option<String>,
    /// Since when it is there.
    up: Option<Instant>,
}

impl State {
    /// Why it is not there. One that has just begun proves nothing: a relay ends those that it does not want at once.
    fn problem(&self) -> Option<String> {
        self.problem.clone().filter(|_| self.up.is_none_or(|since| since.elapsed() < PROVED))
    }
}

/// Ends its keeper when it is dropped.
struct Wanted {
    relay: Arc<RelayThread>,
    gone: Arc<AtomicBool>,
    token: u64,
    state: Arc<Mutex<State>>,
    /// Dropping it wakes the keeper.
    _wake: Sender<()>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        self.relay.unlink(self.token);
    }
}

impl Mesh {
    pub(crate) fn new(relay: Arc<RelayThread>, tally: Arc<Tally>, trust: MeshTrust) -> Self {
        Self { relay, tally, trust, keepers: Mutex::default() }
    }

    /// Keeps links to exactly these from now on.
    pub(crate) fn set(&self, peers: impl IntoIterator<Item = MeshPeer>) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *keepers);
        for peer in peers {
            let wanted = before.remove(&peer).or_else(|| self.keep(&peer));
            if let Some(wanted) = wanted {
                keepers.insert(peer, wanted);
            }
        }
    }

    /// Why links are not there, by the relays' URLs.
    pub(crate) fn problems(&self) -> BTreeMap<String, String> {
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = |wanted: &Wanted| wanted.state.lock().unwrap_or_else(PoisonError::into_inner).problem();
        keepers.iter().filter_map(|(peer, wanted)| Some((peer.to_string(), problem(wanted)?))).collect()
    }

    /// Starts a keeper. `None` if there is no thread for it: the next [`Mesh::set`] tries again.
    fn keep(&self, peer: &MeshPeer) -> Option<Wanted> {
        static TOKENS: AtomicU64 = AtomicU64::new(0);
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let (wake, woken) = channel();
        let gone = Arc::new(AtomicBool::new(false));
        let state = Arc::<Mutex<State>>::default();
        let keeper = Keeper {
            target: peer.target(&self.trust),
            relay: Arc::clone(&self.relay),
            tally: Arc::clone(&self.tally),
            token,
            gone: Arc::clone(&gone),
            state: Arc::clone(&state),
            woken,
        };
        std::thread::Builder::new().name("mesh".to_owned()).spawn(move || keeper.run()).ok()?;
        Some(Wanted { relay: Arc::clone(&self.relay), gone, token, state, _wake: wake })
    }
}

struct Keeper {
    target: Target,
    relay: Arc<RelayThread>,
    tally: Arc<Tally>,
    token: u64,
    gone: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
    woken: Receiver<()>,
}

/// What is said of a link that the other relay ends at once, as it does where the secrets differ.
const REFUSED: &str = "the other relay ended the link; have both the same mesh key?";

impl Keeper {
    fn run(mut self) {
        let mut wait = FIRST_WAIT;
        while !self.gone.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if self.link() == Some(CloseReason::Itself) {
                return;
            }
            wait = if begun.elapsed() >= HELD { FIRST_WAIT } else { (2 * wait).min(LONGEST_WAIT) };
            // Half of it to all of it: relays that lost each other do not meet again all at once.
            let part = u32::from(random_nonce()[0]);
            if self.woken.recv_timeout(wait / 2 + wait / 2 * part / 255) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Notes why there is no link.
    fn tell(&self, problem: String) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            State { problem: Some(problem), up: None };
    }

    /// Makes one link and waits for its end. Returns why it ended.
    fn link(&mut self) -> Option<CloseReason> {
        let connected = match dial::relay(&self.target, Deadline::after(DIAL_LIMIT)) {
            Ok(connected) => connected,
            Err(error) => {
                Tally::add(&self.tally.link_failures);
                self.tell(error.failure.to_string());
                return None;
            }
        };
        self.target.force_websocket |= connected.websocket.is_some();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).up = Some(Instant::now());
        let (ended, end) = channel();
        self.relay.link(LinkUp {
            token: self.token,
            stream: connected.stream,
            remote: connected.peer,
            early: connected.leftover,
            ended,
        });
        if self.gone.load(Ordering::Relaxed) {
            // The wish to end it may have come before it was there.
            self.relay.unlink(self.token);
        }
        // An error means that the relay's thread has ended.
        let since = Instant::now();
        let reason = end.recv().ok();
        match reason {
            // All relays of a region may have the same list, with themselves in it.
            Some(CloseReason::Itself) => {}
            _ if since.elapsed() >= PROVED => self.tell("the other relay ended the link".to_owned()),
            _ => self.tell(REFUSED.to_owned()),
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_host_port_and_scheme() {
        let parse = |text: &str| text.parse::<MeshPeer>().map(|p| (p.host, p.port, p.plain)).ok();
        assert_eq!(parse("https://a.example"), Some(("a.example".into(), 443, false)));
        assert_eq!(parse("http://192.0.2.1/derp"), Some(("192.0.2.1".into(), 80, true)));
        assert_eq!(parse("https://[2001:db8::1]:8443/derp"), Some(("2001:db8::1".into(), 8443, false)));
        for wrong in ["", "a.example", "ftp://a.example", "https://", "https://user@a.example", "https://a b"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
