//! Larger values that people look at, as JSON. Times are seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use paths::facts::Source;
use paths::{EndpointFacts, Path, PeerFacts, Report};
use serde_json::{Value, json};

/// The way to a peer.
pub fn peer(facts: &PeerFacts) -> Value {
    json!({
        "endpoints": facts.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "endpoint": match facts.path { Some(Path::Direct(addr)) => Some(addr.to_string()), _ => None },
        "relay": facts.relay,
        "changed_ago": facts.changed.map(|(ago, _)| ago.as_secs_f64()),
        "reason": facts.changed.map(|(_, why)| why.to_string()),
        "active_for": facts.active.map(|age| age.as_secs_f64()),
        "first_direct": facts.first_direct.map(|after| after.as_secs_f64()),
        "block_direct": facts.block_direct,
    })
}

fn endpoint(facts: &EndpointFacts) -> Value {
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
    let source = match facts.source {
        Source::Advertised => "advertised",
        Source::CallMeMaybe => "call_me_maybe",
        Source::Learned => "learned",
    };
    json!({
        "address": facts.addr.to_string(),
        "source": source,
        "last_ping": seconds(facts.last_ping),
        "last_pong": seconds(facts.last_pong),
        "last_heard": seconds(facts.last_heard),
        "latency": seconds(facts.latency),
        "best": facts.best,
        "trusted": facts.trusted,
        "mtu": facts.mtu,
    })
}

/// What a check of the network found.
pub fn report(report: &Report) -> Value {
    json!({
        "udp": report.udp,
        "ipv4": report.ipv4,
        "ipv6": report.ipv6,
        "ipv4_can_send": report.ipv4_can_send,
        "ipv6_can_send": report.ipv6_can_send,
        "os_has_ipv6": report.os_has_ipv6,
        "icmpv4": report.icmpv4,
        "mapping_varies_by_dest_ip": report.mapping_varies_by_dest_ip,
        "hair_pinning": report.hair_pinning,
        "captive_portal": report.captive_portal,
        "preferred_derp": report.preferred_derp,
        "region_latency": latencies(&report.region_latency),
        "region_v4_latency": latencies(&report.region_v4_latency),
        "region_v6_latency": latencies(&report.region_v6_latency),
        "global_v4": report.global_v4.map(|addr| addr.to_string()),
        "global_v6": report.global_v6.map(|addr| addr.to_string()),
    })
}

fn latencies(of: &BTreeMap<u16, Duration>) -> BTreeMap<String, f64> {
    of.iter().map(|(region, latency)| (region.to_string(), latency.as_secs_f64())).collect()
}
