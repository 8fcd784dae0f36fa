//! What an edge has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Numbers that only grow, except `connections` and the first of the relay's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Open connections now, HTTP and relay together.
    pub connections: u64,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many, in all or from their source.
    pub refused: u64,
    /// HTTP requests of all kinds.
    pub requests: u64,
    /// Connections ended because what they sent is no HTTP, came too slowly, is too much, or is ambiguous.
    pub malformed: u64,
    /// Requests the application could not be asked.
    pub upstream_errors: u64,
    /// Requests for apps of workspaces.
    pub app_requests: u64,
    /// How often the application was asked about one of those.
    pub app_questions: u64,
    /// Requests that an app did not answer.
    pub app_failures: u64,
    /// Connections that became DERP streams.
    pub upgraded: u64,
    /// STUN requests answered.
    pub stun_answered: u64,
    /// UDP packets that were no STUN request.
    pub stun_dropped: u64,
    /// TLS handshakes that failed or took too long.
    pub tls_failures: u64,
    /// How often a changed certificate was taken into use.
    pub tls_reloads: u64,
    /// How often a changed certificate could not be used.
    pub tls_reload_failures: u64,
    /// Attempts to reach another relay of the region that failed.
    pub link_failures: u64,
    /// The relay's own counters.
    pub relay: relay::server::Counters,
    /// CPU time the relay's thread has used, at most a tenth of a second old while it works.
    pub relay_cpu: Duration,
}

/// The front's part of the counters, shared by its tasks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) upstream_errors: AtomicU64,
    pub(crate) app_requests: AtomicU64,
    pub(crate) app_questions: AtomicU64,
    pub(crate) app_failures: AtomicU64,
    pub(crate) upgraded: AtomicU64,
    pub(crate) stun_answered: AtomicU64,
    pub(crate) stun_dropped: AtomicU64,
    pub(crate) tls_failures: AtomicU64,
    pub(crate) tls_reloads: AtomicU64,
    pub(crate) tls_reload_failures: AtomicU64,
    pub(crate) link_failures: AtomicU64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: get(&self.connections),
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            requests: get(&self.requests),
            malformed: get(&self.malformed),
            upstream_errors: get(&self.upstream_errors),
            app_requests: get(&self.app_requests),
            app_questions: get(&self.app_questions),
            app_failures: get(&self.app_failures),
            upgraded: get(&self.upgraded),
            stun_answered: get(&self.stun_answered),
            stun_dropped: get(&self.stun_dropped),
            tls_failures: get(&self.tls_failures),
            tls_reloads: get(&self.tls_reloads),
            tls_reload_failures: get(&self.tls_reload_failures),
            link_failures: get(&self.link_failures),
            ..Counters::default()
        }
    }
}

impl Counters {
    /// Each number with its name, as metrics and the other language have it.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let relay = &self.relay;
        vec![
            ("connections", self.connections),
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("requests", self.requests),
            ("malformed", self.malformed),
            ("upstream_errors", self.upstream_errors),
            ("app_requests", self.app_requests),
            ("app_questions", self.app_questions),
            ("app_failures", self.app_failures),
            ("upgraded", self.upgraded),
            ("stun_answered", self.stun_answered),
            ("stun_dropped", self.stun_dropped),
            ("tls_failures", self.tls_failures),
            ("tls_reloads", self.tls_reloads),
            ("tls_reload_failures", self.tls_reload_failures),
            ("relay_clients", relay.clients),
            ("relay_at_home", relay.at_home),
            ("relay_queued_bytes", relay.queued_bytes),
            ("relay_links", relay.links),
            ("relay_link_failures", self.link_failures),
            ("relay_logins", relay.logins),
            ("relay_packets", relay.packets),
            ("relay_bytes", relay.bytes),
            ("relay_forwarded", relay.forwarded),
            ("relay_dropped_unknown", relay.dropped.unknown),
            ("relay_dropped_queue_full", relay.dropped.queue_full),
            ("relay_dropped_gone", relay.dropped.gone),
            ("relay_dropped_unannounced", relay.dropped.unannounced),
            ("relay_refused", relay.refused),
            ("relay_malformed", relay.malformed),
            ("relay_stalled", relay.stalled),
            ("relay_unannounced", relay.unannounced),
            ("relay_pauses", relay.pauses),
            ("relay_throttled", relay.throttled),
            ("relay_cpu_microseconds", u64::try_from(self.relay_cpu.as_micros()).unwrap_or(u64::MAX)),
        ]
    }
}
