//! A client's side of the protocol, from the greeting on.

use std::time::{Duration, Instant};

use wire::derp::login::{
    ClientInfo, LoginError, ServerInfo, open_greeting, open_server_info, seal_client_info,
};
use wire::derp::{
    DerpError, FrameType, FromServer, GREETING_PAYLOAD, HEADER_LEN, Header, MAX_CLIENT_PAYLOAD, MAX_PACKET,
    PeerGoneReason, VERSION, encode,
};
use wire::keys::{NodePrivate, NodePublic, SharedBox, random_nonce};
use zeroize::Zeroizing;

use crate::MeshKey;

/// A relay that sends nothing for this long is taken for dead; it sends a KeepAlive every minute.
pub const SILENCE: Duration = Duration::from_secs(120);

/// How a client presents itself.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// This relay is the client's home.
    pub home: bool,
    /// Proves another relay of the same region.
    pub mesh_key: Option<MeshKey>,
    /// Ask to be told of all clients; needs the mesh key.
    pub watch: bool,
    /// The relay's key if it is known before the greeting (fast start); call [`ClientSession::start`] then.
    pub server_key: Option<NodePublic>,
}

/// What the relay said. Payloads lie in the buffer that was fed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The relay has accepted the login.
    Ready(ServerInfo),
    /// A packet from a peer.
    Packet {
        /// Who sent it, as proved to the relay.
        from: NodePublic,
        /// Its bytes; the receiver may decrypt in place.
        payload: &'a mut [u8],
    },
    /// Nothing sent to this peer over this relay arrives any more.
    PeerGone {
        /// Which peer.
        peer: NodePublic,
        /// Why.
        reason: PeerGoneReason,
    },
    /// A peer is connected to this relay. Only watchers are told.
    PeerPresent {
        /// Which peer.
        peer: NodePublic,
    },
    /// The relay is alive.
    KeepAlive,
    /// The answer to [`ClientSession::ping`].
    Pong([u8; 8]),
    /// A problem the relay tells of, empty when it is over. Not trusted: shorten and clean before showing it.
    Health(&'a str),
    /// The relay will restart.
    Restarting {
        /// Wait this long before connecting again.
        reconnect_in: Duration,
        /// Then try for at most this long before looking for another relay.
        try_for: Duration,
    },
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The greeting or ServerInfo is wrong: not a relay, or not the one it says.
    #[error("the relay's login is wrong: {0}")]
    Login(#[from] LoginError),
    /// A frame above the limit of 1 MiB.
    #[error("the relay sent a frame of {0} bytes")]
    FrameTooLarge(usize),
    /// Nothing arrived for [`SILENCE`].
    #[error("the relay has been silent for two minutes")]
    Silent,
    /// The caller's packet is above the limit of 64 KiB.
    #[error("a packet of {0} bytes is too large for a relay")]
    PacketTooLarge(usize),
}

/// One connection to a relay. Feed it what arrives, write what it appends to `out`.
pub struct ClientSession {
    private: NodePrivate,
    public: NodePublic,
    options: ClientOptions,
    shared: Option<SharedBox>,
    server: Option<NodePublic>,
    ready: bool,
    /// A frame that is not complete yet.
    partial: Vec<u8>,
    /// Bytes of a skipped frame still to come.
    skip: usize,
    last_frame: Instant,
}

impl ClientSession {
    /// A session that has seen nothing yet.
    pub fn new(now: Instant, private: NodePrivate, options: ClientOptions) -> Self {
        let public = private.public();
        Self {
            private,
            public,
            options,
            shared: None,
            server: None,
            ready: false,
            partial: Vec::new(),
            skip: 0,
            last_frame: now,
        }
    }

    /// Appends the login if the relay's key is known already. Otherwise it follows the greeting by itself.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if let (Some(server), None) = (self.options.server_key, &self.shared) {
            self.log_in(&server, out);
        }
    }

    /// Takes what arrived, appends what must be answered, and reports events in order.
    ///
    /// An error ends the session; events before it have been reported.
    pub fn feed(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &mut bytes[skipped..];
            } else if self.partial.is_empty() {
                bytes = self.take_in_place(now, bytes, out, on_event)?;
            } else {
                bytes = self.complete(now, bytes, out, on_event)?;
            }
        }
        Ok(())
    }

    /// Whether packets may be sent: the login is written. The relay's answer need not be awaited.
    pub fn can_send(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether the relay has answered the login.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The relay's key, once it is known.
    pub fn server_key(&self) -> Option<NodePublic> {
        self.server
    }

    /// Appends a packet for `to`.
    pub fn send(&mut self, to: &NodePublic, packet: &[u8], out: &mut Vec<u8>) -> Result<(), ClientError> {
        if packet.len() > MAX_PACKET {
            return Err(ClientError::PacketTooLarge(packet.len()));
        }
        encode::send_packet(out, to, packet);
        Ok(())
    }

    /// Tells the relay whether it is this client's home, at once or with the login.
    pub fn note_preferred(&mut self, home: bool, out: &mut Vec<u8>) {
        if self.options.home != home && self.can_send() {
            encode::note_preferred(out, home);
        }
        self.options.home = home;
    }

    /// Asks for an [`Event::Pong`] with the same bytes.
    pub fn ping(&mut self, data: [u8; 8], out: &mut Vec<u8>) {
        encode::ping(out, &data);
    }

    /// When [`ClientSession::handle_timeout`] must be called.
    pub fn next_timeout(&self) -> Instant {
        self.last_frame + SILENCE
    }

    /// An error if the relay has been silent too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ClientError> {
        if now >= self.next_timeout() { Err(ClientError::Silent) } else { Ok(()) }
    }

    /// Handles one frame, or keeps its beginning. Returns what is behind it.
    fn take_in_place<'a>(
        &mut self,
        now: Instant,
        bytes: &'a mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<&'a mut [u8], ClientError> {
        let Some((kind, len)) = Header::parse(bytes) else {
            self.partial.extend_from_slice(bytes);
            return Ok(&mut []);
        };
        self.check(kind, len)?;
        if bytes.len() < HEADER_LEN + len {
            if self.wanted(kind) {
                self.partial.extend_from_slice(bytes);
            } else {
                self.skip = HEADER_LEN + len - bytes.len();
            }
            return Ok(&mut []);
        }
        let (frame, rest) = bytes.split_at_mut(HEADER_LEN + len);
        self.handle(now, kind, &mut frame[HEADER_LEN..], out, on_event)?;
        Ok(rest)
    }

    /// Adds to the partial frame what it lacks. Returns what is behind it.
    fn complete<'a>(
        &mut self,
        now: Instant,
        bytes: &'a mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<&'a mut [u8], ClientError> {
        let needs = Header::parse(&self.partial).map_or(HEADER_LEN, |(_, len)| HEADER_LEN + len);
        let lacks = needs.saturating_sub(self.partial.len()).min(bytes.len());
        let (more, rest) = bytes.split_at_mut(lacks);
        self.partial.extend_from_slice(more);
        if self.partial.len() < needs {
            return Ok(rest);
        }
        let mut whole = std::mem::take(&mut self.partial);
        if needs == HEADER_LEN {
            // Only the header is whole now, unless the frame has no payload.
            self.take_in_place(now, &mut whole, out, on_event)?;
        } else if let Some((kind, _)) = Header::parse(&whole) {
            self.handle(now, kind, &mut whole[HEADER_LEN..], out, on_event)?;
        }
        Ok(rest)
    }

    /// Limits that are known before the payload is there.
    fn check(&self, kind: FrameType, len: usize) -> Result<(), ClientError> {
        if self.shared.is_none() {
            return match kind {
                FrameType::ServerKey if len > *GREETING_PAYLOAD.end() => Err(DerpError::Long(kind)),
                FrameType::ServerKey if len < *GREETING_PAYLOAD.start() => Err(DerpError::Short(kind)),
                FrameType::ServerKey => Ok(()),
                _ => Err(DerpError::Unexpected(kind)),
            }
            .map_err(|error| ClientError::Login(error.into()));
        }
        if len > MAX_CLIENT_PAYLOAD { Err(ClientError::FrameTooLarge(len)) } else { Ok(()) }
    }

    /// Whether a frame has to be whole to be understood.
    fn wanted(&self, kind: FrameType) -> bool {
        self.shared.is_none() || !matches!(kind, FrameType::Unknown(_) | FrameType::ServerKey)
    }

    fn handle(
        &mut self,
        now: Instant,
        kind: FrameType,
        payload: &mut [u8],
        out: &mut Vec<u8>,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        self.last_frame = now;
        if self.shared.is_none() {
            let server = open_greeting(kind, payload)?;
            self.log_in(&server, out);
            return Ok(());
        }
        if kind == FrameType::RecvPacket {
            // Too short for a key: skipped, as any such frame is.
            if let Some((key, payload)) = payload.split_first_chunk_mut() {
                on_event(Event::Packet { from: NodePublic::from_bytes(*key), payload });
            }
            return Ok(());
        }
        let Ok(frame) = FromServer::parse(kind, payload) else { return Ok(()) };
        match frame {
            FromServer::ServerInfo(sealed) => {
                if let Some(shared) = &self.shared {
                    let info = open_server_info(shared, sealed)?;
                    self.ready = true;
                    on_event(Event::Ready(info));
                }
            }
            FromServer::KeepAlive => on_event(Event::KeepAlive),
            FromServer::PeerGone(peer, reason) => on_event(Event::PeerGone { peer, reason }),
            FromServer::PeerPresent { key: peer, .. } => on_event(Event::PeerPresent { peer }),
            FromServer::Ping(data) => encode::pong(out, &data),
            FromServer::Pong(data) => on_event(Event::Pong(data)),
            FromServer::Health(text) => {
                on_event(Event::Health(std::str::from_utf8(text).unwrap_or("a problem it cannot spell")));
            }
            FromServer::Restarting { reconnect_in, try_for } => {
                on_event(Event::Restarting { reconnect_in, try_for });
            }
            FromServer::Packet { .. } | FromServer::ServerKey(_) | FromServer::Unknown(_) => {}
        }
        Ok(())
    }

    fn log_in(&mut self, server: &NodePublic, out: &mut Vec<u8>) {
        let shared = SharedBox::new(&self.private, server);
        let mesh_key = self.options.mesh_key.as_ref().map(|key| Zeroizing::new(key.expose().to_owned()));
        let info = ClientInfo { version: VERSION, mesh_key, can_ack_pings: true, ..ClientInfo::default() };
        seal_client_info(out, &self.public, &shared, random_nonce(), &info);
        if self.options.home {
            encode::note_preferred(out, true);
        }
        if self.options.watch {
            encode::watch_conns(out);
        }
        self.shared = Some(shared);
        self.server = Some(*server);
    }
}
