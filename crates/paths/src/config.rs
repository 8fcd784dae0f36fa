//! What a caller says, and every constant of path choice in one place.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wire::keys::{DiscoPrivate, DiscoPublic, NodePublic};

/// Who we are; fixed for the life of a [`Paths`](crate::Paths).
#[derive(Debug)]
pub struct Config {
    /// Our disco key, fresh in every process.
    pub disco: DiscoPrivate,
    /// Our node key; pings carry it.
    pub node: NodePublic,
    /// Seeds every random choice: transaction ids, nonces, jitter. Must be unpredictable outside of tests.
    pub seed: u64,
    /// Start with direct paths forbidden, as after [`set_block_direct`](crate::Paths::set_block_direct).
    pub block_direct: bool,
}

/// A peer, as the coordinator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its node key.
    pub key: NodePublic,
    /// Its disco key, of its present process.
    pub disco: DiscoPublic,
    /// The region it can always be reached at; 0 if it has none yet.
    pub home: u16,
    /// Addresses it says it can be reached at.
    pub endpoints: Vec<SocketAddr>,
}

/// Our own sockets and interfaces. Without a port for a family nothing is sent to addresses of that family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Addresses of interfaces that are up, in any order; or the one address the sockets are bound to.
    pub addresses: Vec<IpAddr>,
    /// Port of the IPv4 socket.
    pub port_v4: Option<u16>,
    /// Port of the IPv6 socket.
    pub port_v6: Option<u16>,
}

/// Between heartbeat pings to the best address.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long a pong proves a path.
pub const TRUST: Duration = Duration::from_millis(6500);
/// After this a ping is lost.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between discovery pings to one endpoint.
pub const PING_GAP: Duration = Duration::from_secs(5);
/// Without a send for this long a session sleeps: no heartbeats, no checks.
pub const SESSION_ACTIVE: Duration = Duration::from_secs(45);
/// Between attempts to find something faster than a slow best path.
pub const UPGRADE: Duration = Duration::from_secs(60);
/// A path this fast needs no upgrade.
pub const GOOD_ENOUGH: Duration = Duration::from_millis(5);
/// How long our own endpoint list is current enough for a call-me-maybe.
pub const ENDPOINTS_FRESH: Duration = Duration::from_secs(27);
/// How long an external address of ours is still advertised after it was last seen.
pub const EXTERNAL_KEPT: Duration = Duration::from_secs(310);
/// How long an endpoint learned from a ping lives without another.
pub const LEARNED_KEPT: Duration = Duration::from_secs(45);
/// Endpoints kept per peer, and read from a record or a call-me-maybe.
pub const MAX_ENDPOINTS: usize = 100;
/// Addresses of ours seen by STUN servers that are still advertised, the newest.
pub const MAX_EXTERNAL: usize = 6;
/// Addresses granted by port mapping that are advertised.
pub const MAX_MAPPED: usize = 8;

/// A direct path that is used but silent for this long is suspect.
pub const SILENCE: Duration = Duration::from_secs(1);
/// Between pings to a suspect path.
pub const SUSPECT_SPACING: Duration = Duration::from_millis(300);
/// Pings a suspect path may miss before it is no longer trusted.
pub const SUSPECT_PINGS: u8 = 3;
/// The same while packets of the peer still arrive.
pub const STUCK_PINGS: u8 = 5;
/// Bytes from which on a datagram may be too long for a path that carries shorter ones: IPv6's least MTU without headers.
pub const LONG: usize = 1232;
/// The longest a slow path is waited for after the last of these pings.
pub const SUSPECT_PATIENCE: Duration = Duration::from_secs(1);

/// Least time between discoveries that sending sets off.
pub const DISCOVERY_GAP: Duration = Duration::from_millis(250);
/// Call-me-maybes of one peer that are answered by pings in a burst.
pub const CALL_BURST: u32 = 4;
/// After a burst one call-me-maybe is answered this often.
pub const CALL_EVERY: Duration = Duration::from_secs(1);
/// A ping from an address silent for this long is answered by one of ours, if we are looking for a path.
pub const PING_BACK_GAP: Duration = Duration::from_secs(1);
/// How long a call-me-maybe waits for our endpoints to be looked up again.
pub const CALL_PATIENCE: Duration = Duration::from_millis(500);
/// Pings that may be on their way to one peer.
pub const MAX_PINGS: usize = 512;
/// Pings of users that may wait on one peer.
pub const MAX_USER_PINGS: usize = 16;
/// Pongs one source may draw in a burst.
pub const PONG_BURST: u32 = 20;
/// After a burst one source draws a pong this often.
pub const PONG_EVERY: Duration = Duration::from_millis(50);
/// UDP sources remembered in all.
pub const MAX_SOURCES: usize = 4096;

/// Bounds of the random time between checks of a node in use.
pub const RECHECK: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(26));
/// A check is a full one if the last of these is older.
pub const FULL_CHECK_EVERY: Duration = Duration::from_secs(300);
/// The whole of a check.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the first tries of one STUN request; doubles.
pub const STUN_RETRY: Duration = Duration::from_millis(200);
/// Times a STUN request is sent.
pub const STUN_TRIES: u8 = 3;
/// How long after its last try, or for its name to resolve, a STUN server is waited for.
pub const STUN_PATIENCE: Duration = Duration::from_secs(1);
/// STUN servers asked in one check.
pub const MAX_STUN_SERVERS: usize = 64;
/// STUN servers asked per region, unless it is the embedded one, whose every port is asked.
pub const STUN_PER_REGION: usize = 2;
/// Addresses taken from one answer of the resolver.
pub const MAX_RESOLVED: usize = 8;

/// With several relays: how long after the first measurement the others may still win.
pub const HOME_GRACE: Duration = Duration::from_millis(100);
/// With several relays: a home is chosen by then, measured or not.
pub const HOME_PATIENCE: Duration = Duration::from_secs(1);
/// Latency reports that count for the choice of a home.
pub const HISTORY: Duration = Duration::from_secs(300);
/// A region must be this much faster to replace the home.
pub const HOME_MARGIN: Duration = Duration::from_millis(10);

/// A relay connection other than home's closes when nothing was written for this long.
pub const RELAY_IDLE: Duration = Duration::from_secs(60);
/// The n-th redial waits n² times this, at most [`REDIAL_MAX`], times a random 0.5 to 1.5.
pub const REDIAL_UNIT: Duration = Duration::from_millis(10);
/// See [`REDIAL_UNIT`].
pub const REDIAL_MAX: Duration = Duration::from_secs(5);
