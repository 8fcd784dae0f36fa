//! What a relay has done so far, as plain numbers.

/// Packets that were not delivered, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// No connection has the destination's key.
    pub unknown: u64,
    /// The destination's queue was full, or all queues together were.
    pub queue_full: u64,
    /// The destination's connection broke before the packet was written.
    pub gone: u64,
    /// The sender's key was not announced, and it sent more than a trickle.
    pub unannounced: u64,
}

/// All counters of a router. They only grow, except the first four, which tell what is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that are logged in now.
    pub clients: u64,
    /// Those of them that call this relay their home.
    pub at_home: u64,
    /// Bytes waiting for a socket now.
    pub queued_bytes: u64,
    /// Links to other relays of the region that are logged in now.
    pub links: u64,
    /// Connections that ever logged in.
    pub logins: u64,
    /// Packets handed to their destination's socket or queue.
    pub packets: u64,
    /// Bytes of those packets with their frames.
    pub bytes: u64,
    /// Those of them that went on to another relay.
    pub forwarded: u64,
    /// Packets lost here.
    pub dropped: Dropped,
    /// Connections ended because their login was not acceptable or came too late.
    pub refused: u64,
    /// Connections ended because a frame broke the protocol or lacked the right.
    pub malformed: u64,
    /// Connections ended because nothing could be written to them for too long.
    pub stalled: u64,
    /// Frames of unknown type that were skipped.
    pub skipped: u64,
    /// How often a sender was made to wait for its destination.
    pub pauses: u64,
    /// How often a sender was made to wait because it was too fast.
    pub throttled: u64,
    /// Connections ended because their key was not announced in time.
    pub unannounced: u64,
}
