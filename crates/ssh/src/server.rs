//! The server: one thread, any number of sessions.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::server::Config;
use russh::{Error, MethodKind, MethodSet, SshId};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::carrier::Carrier;
use crate::inlet::WINDOW;
use crate::policy::{Kind, Policy};
use crate::session::Session;

/// Sessions open at once; more are turned away.
const MAX_SESSIONS: usize = 1024;
/// Parts of the time that a client may be silent: after each but the last it is asked whether it is there.
const PARTS: u32 = 3;
/// How long sessions have to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Something the owner should know. `session` is the number given to [`Server::serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A process or a file transfer begins; reported once a session.
    Began {
        /// Which.
        session: u64,
        /// What kind of client.
        kind: Kind,
    },
    /// The session is over.
    Ended {
        /// Which.
        session: u64,
        /// Exit code of its last process, if it had one.
        status: Option<u32>,
        /// Why it ended, where that was not by agreement.
        reason: String,
    },
}

/// What all sessions share.
pub(crate) struct Shared {
    policy: RwLock<Arc<Policy>>,
    tell: Box<dyn Fn(Notice) + Send + Sync>,
    sessions: AtomicUsize,
}

impl Shared {
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tell(&self, notice: Notice) {
        (self.tell)(notice);
    }
}

/// An SSH server for streams it is handed.
pub struct Server {
    shared: Arc<Shared>,
    config: Arc<Config>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the server's thread. The host key is an Ed25519 key made from `seed`. A client that is not heard of for
    /// `silence`, though asked whether it is there, is given up; with `None` it never is. `tell` is called from that
    /// thread and must not block.
    ///
    /// # Errors
    /// When the system has no thread or descriptor to give.
    pub fn start(
        seed: &[u8; 32],
        policy: Policy,
        silence: Option<Duration>,
        tell: impl Fn(Notice) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(seed));
        let key = PrivateKey::new(pair, "").map_err(io::Error::other)?;
        let config = Config {
            server_id: SshId::Standard("SSH-2.0-coder".into()),
            methods: MethodSet::from(&[MethodKind::None][..]),
            keys: vec![key],
            window_size: WINDOW,
            maximum_packet_size: 64 << 10,
            inactivity_timeout: None,
            keepalive_interval: silence.map(|silence| silence / PARTS),
            keepalive_max: PARTS as usize - 1,
            ..Config::default()
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, mut stopping) = watch::channel(false);
        let thread = std::thread::Builder::new().name("coder-ssh".into()).spawn(move || {
            runtime.block_on(async {
                let _ = stopping.wait_for(|stop| *stop).await;
            });
            runtime.shutdown_timeout(GRACE);
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                policy: RwLock::new(Arc::new(policy)),
                tell: Box::new(tell),
                sessions: AtomicUsize::new(0),
            }),
            config: Arc::new(config),
            runtime: handle,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Replaces the policy for processes that start from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.shared.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Serves a client on its stream, a Unix stream socket; `session` names it in notices.
    pub fn serve(&self, stream: OwnedFd, session: u64) {
        let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
        let mut stop = self.stop.subscribe();
        self.runtime.spawn(async move {
            if shared.sessions.fetch_add(1, Ordering::Relaxed) < MAX_SESSIONS {
                tokio::select! {
                    () = converse(&shared, config, stream, session) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            shared.sessions.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Ends all sessions and the thread.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn converse(shared: &Arc<Shared>, config: Arc<Config>, stream: OwnedFd, number: u64) {
    let stream = StdStream::from(stream);
    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    let status = Arc::new(Mutex::new(None));
    let mut reason = match stream {
        Ok(stream) => {
            let session = Session::new(Arc::clone(shared), number, Arc::clone(&status));
            match russh::server::run_stream(config, Carrier::new(stream), session).await {
                Ok(running) => running.await.err(),
                Err(error) => Some(error),
            }
        }
        Err(error) => Some(error.into()),
    };
    let status = *status.lock().unwrap_or_else(PoisonError::into_inner);
    // A client whose process has ended may go without a word.
    if status.is_some()
        && matches!(&reason, Some(Error::IO(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
    {
        reason = None;
    }
    let reason = reason.map(|error| error.to_string()).unwrap_or_default();
    shared.tell(Notice::Ended { session: number, status, reason });
}
