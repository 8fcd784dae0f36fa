//! Starting and stopping the edge.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use wire::keys::{NodePrivate, NodePublic};

use crate::apps::{AppSettings, Apps, Dial};
use crate::certificates::Certificates;
use crate::config::Config;
use crate::counters::{Counters, Tally};
use crate::error::EdgeError;
use crate::front::{self, Front, Purpose, Tls, Upstream};
use crate::mesh::{Mesh, MeshPeer};
use crate::relay_thread::{RelayThread, Unannounced};
use crate::seats::Seats;
use crate::stun;

/// A running edge. Dropping it stops it as [`Edge::stop`] does.
pub struct Edge {
    addresses: Vec<SocketAddr>,
    metrics_addresses: Vec<SocketAddr>,
    stun_addresses: Vec<SocketAddr>,
    relay: Arc<RelayThread>,
    mesh: Mesh,
    tally: Arc<Tally>,
    front: Arc<Front>,
    certificates: Option<Arc<Certificates>>,
    stop: watch::Sender<bool>,
    front_thread: Option<JoinHandle<()>>,
    relay_thread: Option<JoinHandle<()>>,
}

/// Sockets that are bound already.
struct Sockets {
    listeners: Vec<(TcpListener, Purpose)>,
    stun: Vec<UdpSocket>,
    certificates: Option<Arc<Certificates>>,
}

impl Edge {
    /// Binds all addresses, then starts serving.
    ///
    /// # Errors
    /// [`EdgeError::Bind`] names the first address that cannot be used; nothing runs then.
    pub fn start(config: Config) -> Result<Self, EdgeError> {
        let key = config.relay_key.clone().unwrap_or_else(NodePrivate::generate);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sockets = runtime.block_on(bind(&config, &key))?;
        let of = |metrics: bool| {
            let these = sockets.listeners.iter().filter(|(_, p)| matches!(p, Purpose::Metrics) == metrics);
            these.map(|(listener, _)| listener.local_addr()).collect::<io::Result<_>>()
        };
        let (addresses, metrics_addresses) = (of(false)?, of(true)?);
        let stun_addresses = sockets.stun.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let tally = Arc::new(Tally::default());
        let (relay, relay_thread) = RelayThread::start(key, config.mesh_key)?;
        relay.set_rate_limit(config.rate_limit);
        relay.require_announced(config.require_announced);
        let mesh = Mesh::new(Arc::clone(&relay), Arc::clone(&tally), config.mesh_trust);
        let front = Arc::new(Front {
            upstream: config.upstream.map(Upstream::new),
            relay: config.derp.then(|| Arc::clone(&relay)),
            trusted_proxies: config.trusted_proxies,
            seats: Seats::new(Arc::clone(&tally), config.max_connections, config.max_connections_per_source),
            body: config.body,
            head_timeout: config.head_timeout,
            tally: Arc::clone(&tally),
            apps: Apps::default(),
        });
        let (carrying, certificates) = (Arc::clone(&front), sockets.certificates.clone());
        let (stop, stopped) = watch::channel(false);
        let front_thread = std::thread::Builder::new()
            .name("edge".to_owned())
            .spawn(move || run(runtime, carrying, sockets, stopped, config.drain))
            .inspect_err(|_| relay.stop())?;
        mesh.set(config.mesh);
        Ok(Self {
            addresses,
            metrics_addresses,
            stun_addresses,
            relay,
            mesh,
            tally,
            front,
            certificates,
            stop,
            front_thread: Some(front_thread),
            relay_thread: Some(relay_thread),
        })
    }

    /// Where HTTP is served, in the order of the configuration, and behind those where HTTPS is.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where health and metrics are told, in the order of the configuration.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics_addresses
    }

    /// Keeps links to exactly these relays from now on.
    pub fn set_mesh(&self, peers: impl IntoIterator<Item = MeshPeer>) {
        self.mesh.set(peers);
    }

    /// Why links to other relays are not there, by these relays' URLs.
    pub fn mesh_problems(&self) -> BTreeMap<String, String> {
        self.mesh.problems()
    }

    /// Serves apps of workspaces by these settings from now on.
    pub fn set_apps(&self, settings: AppSettings) {
        self.front.apps.configure(settings);
    }

    /// Reaches workspaces through this from now on, or no more.
    pub fn set_dial(&self, dial: Option<Arc<dyn Dial>>) {
        self.front.apps.dial_with(dial);
    }

    /// These keys belong to known clients. Only matters where that is required.
    pub fn announce(&self, keys: Vec<NodePublic>) {
        self.relay.announce(keys);
    }

    /// These keys belong to nobody any more.
    pub fn withdraw(&self, keys: Vec<NodePublic>) {
        self.relay.withdraw(keys);
    }

    /// From now on clients must be announced, or need not be.
    pub fn require_announced(&self, required: bool) {
        self.relay.require_announced(required);
    }

    /// Waits for the next login of a client whose key is not announced; `None` after `patience`.
    pub fn next_unannounced(&self, patience: Duration) -> Option<Unannounced> {
        self.relay.next_unannounced(patience)
    }

    /// Tells the relay's clients of a problem; with an empty text, that it is over.
    pub fn set_health(&self, problem: &str) {
        self.relay.set_health(problem.to_owned());
    }

    /// Where STUN is answered, in the order of the configuration.
    pub fn stun_addresses(&self) -> &[SocketAddr] {
        &self.stun_addresses
    }

    /// Why changed files of a certificate are not in use, in one line; `None` once they are.
    pub fn certificate_problem(&self) -> Option<String> {
        self.certificates.as_ref()?.problem()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        let (relay, relay_cpu) = self.relay.counters();
        Counters { relay, relay_cpu, ..self.tally.read() }
    }

    /// The key that relay clients see.
    pub fn relay_public_key(&self) -> NodePublic {
        self.relay.public_key()
    }

    /// Stops listening, gives requests in flight a moment, tells the relay's clients of the restart, closes their
    /// connections, and waits for the threads.
    pub fn stop(self) {
        drop(self);
    }

    fn shut_down(&mut self) {
        // The front cannot be gone yet: it ends only because of this.
        let _ = self.stop.send(true);
        // A thread that panicked has nothing left to wait for.
        if let Some(thread) = self.front_thread.take() {
            let _ = thread.join();
        }
        self.mesh.set([]);
        self.relay.stop();
        if let Some(thread) = self.relay_thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shut_down();
    }
}

async fn bind(config: &Config, key: &NodePrivate) -> Result<Sockets, EdgeError> {
    let told = config.derp.then(|| key.public());
    let certificates = Certificates::load(&config.tls, told)?;
    let mut sockets = Sockets { listeners: Vec::new(), stun: Vec::new(), certificates };
    let plain = config.listen.iter().map(|address| (*address, Purpose::Plain));
    let mut wanted: Vec<_> = plain.collect();
    if let Some(certificates) = &sockets.certificates {
        let tls = Tls {
            pages: certificates.config(config.tls_13_only, false)?,
            apps: certificates.config(config.tls_13_only, true)?,
        };
        wanted.extend(config.listen_tls.iter().map(|address| (*address, Purpose::Tls(tls.clone()))));
    }
    wanted.extend(config.listen_metrics.iter().map(|address| (*address, Purpose::Metrics)));
    for (address, purpose) in wanted {
        let error = |source| EdgeError::Bind { address, protocol: "TCP", source };
        sockets.listeners.push((TcpListener::bind(address).await.map_err(error)?, purpose));
    }
    for &address in &config.stun {
        let error = |source| EdgeError::Bind { address, protocol: "UDP", source };
        sockets.stun.push(UdpSocket::bind(address).await.map_err(error)?);
    }
    Ok(sockets)
}

/// The front's thread.
fn run(
    runtime: Runtime,
    front: Arc<Front>,
    sockets: Sockets,
    mut stopped: watch::Receiver<bool>,
    drain: Duration,
) {
    runtime.block_on(async {
        let (alive, mut all_gone) = mpsc::channel(1);
        for (listener, purpose) in sockets.listeners {
            tokio::spawn(front::serve(Arc::clone(&front), listener, purpose, stopped.clone(), alive.clone()));
        }
        if let Some(certificates) = sockets.certificates {
            tokio::spawn(certificates.watch(Arc::clone(&front.tally)));
        }
        for socket in sockets.stun {
            tokio::spawn(stun::serve(socket, Arc::clone(&front.tally)));
        }
        drop(alive);
        // Either the signal, or the handle is gone; both mean the end.
        let _ = stopped.changed().await;
        // Nothing is ever sent: this waits until the last connection has dropped its end.
        let _ = tokio::time::timeout(drain, all_gone.recv()).await;
    });
    // What is still open (spliced WebSockets, slow requests) ends with the runtime.
}
