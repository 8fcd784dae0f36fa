//! The states of a connection and how it ends.

/// RFC 9293 section 3.3.2; LISTEN belongs to whoever owns the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our SYN is unanswered.
    SynSent,
    /// Both SYNs are known, ours is not acknowledged.
    SynReceived,
    /// Both sides may send.
    Established,
    /// We have finished; neither an acknowledgement of that nor the peer's FIN has come.
    FinWait1,
    /// We have finished, and the peer knows.
    FinWait2,
    /// The peer has finished; we may send.
    CloseWait,
    /// Both have finished at the same time; the peer does not know of ours yet.
    Closing,
    /// The peer has finished first, then we; the peer does not know yet.
    LastAck,
    /// All is said and known; repetitions are answered for a while.
    TimeWait,
    /// It is over.
    Closed,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides finished.
    Finished,
    /// The peer answered our SYN with a reset.
    Refused,
    /// The peer cut it.
    Reset,
    /// We cut it.
    Aborted,
    /// The peer was silent for too long.
    TimedOut,
}

/// Figures of a connection. Bytes are of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Smoothed round trip; `None` before the first measurement.
    pub smoothed_rtt: Option<std::time::Duration>,
    /// Variation of the round trip.
    pub rtt_variation: std::time::Duration,
    /// Least round trip of the last ten seconds or more.
    pub min_rtt: Option<std::time::Duration>,
    /// Congestion window.
    pub congestion_window: u64,
    /// Pacing rate in bytes per second, if the controller paces.
    pub pacing_rate: Option<u64>,
    /// Bytes on their way.
    pub in_flight: u64,
    /// Segments sent again.
    pub retransmitted_segments: u64,
    /// Bytes sent again.
    pub retransmitted_bytes: u64,
    /// Bytes taken for lost.
    pub lost: u64,
    /// Bytes delivered.
    pub delivered: u64,
    /// Reductions that were taken back.
    pub spurious: u64,
    /// The receive buffer's size now.
    pub receive_buffer: u64,
    /// The send buffer's size now.
    pub send_buffer: u64,
    /// Memory held for data that is queued or not taken yet.
    pub memory: usize,
    /// The congestion controller: `cubic`, `bbr`.
    pub congestion: &'static str,
}
