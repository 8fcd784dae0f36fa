//! Tables computed by other implementations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use paths::choice::{Candidate, better};
use paths::home::{History, Latencies};
use serde_json::Value;

fn load(name: &str) -> Value {
    let file = format!("{}/../../vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn candidate(value: &Value) -> Option<Candidate> {
    let addr: SocketAddr = value["addr"].as_str().unwrap().parse().ok()?;
    let latency = Duration::from_secs_f64(value["latency_ms"].as_f64().unwrap() / 1000.0);
    Some(Candidate { addr, latency })
}

fn is_better(a: Option<&Candidate>, b: Option<&Candidate>) -> bool {
    a.is_some_and(|a| better(a, b))
}

/// The two tables differ where an address is link-local: one implementation knows no bonus for these, we follow the other.
#[test]
fn better_addresses() {
    for (name, all) in [("betteraddr_tailscale.json", true), ("betteraddr_coder.json", false)] {
        let table = load(name);
        let rows = table.as_array().unwrap();
        assert_eq!(rows.len(), 36);
        for row in rows {
            let (a, b) = (candidate(&row["a"]), candidate(&row["b"]));
            let text = row.to_string();
            if !all && (text.contains("169.254") || text.contains("fe80")) {
                continue;
            }
            assert_eq!(is_better(a.as_ref(), b.as_ref()), row["a_is_better"].as_bool().unwrap(), "{row}");
            assert_eq!(is_better(b.as_ref(), a.as_ref()), row["b_is_better"].as_bool().unwrap(), "{row}");
        }
    }
}

/// The two differ in two scenarios: one implementation skips regions without a relay and forgets after exactly five
/// minutes, as we do.
#[test]
fn homes() {
    for (name, all) in [("homederp_coder.json", true), ("homederp_tailscale.json", false)] {
        let table = load(name);
        let scenarios = table.as_array().unwrap();
        assert_eq!(scenarios.len(), 14);
        for scenario in scenarios {
            let stun_only = ids(&scenario["stun_only_regions"]);
            if all
                || (stun_only.is_empty() && !scenario["name"].as_str().unwrap().starts_with("history older"))
            {
                play(scenario, &stun_only);
            }
        }
    }
}

fn play(scenario: &Value, stun_only: &BTreeSet<u16>) {
    let start = Instant::now();
    let scores = scenario["region_score"].as_object().into_iter().flatten();
    let scores: BTreeMap<u16, f64> =
        scores.map(|(id, v)| (id.parse().unwrap(), v.as_f64().unwrap())).collect();
    let relays = (1..10).filter(|id| !stun_only.contains(id)).collect();
    let (mut history, mut home) = (History::default(), 0);
    for step in scenario["steps"].as_array().unwrap() {
        let now = start + Duration::from_secs(step["at_s"].as_u64().unwrap());
        let report: Latencies = step["latency_ms"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(id, v)| (id.parse().unwrap(), Duration::from_millis(v.as_u64().unwrap())))
            .collect();
        home = history.choose(now, report, home, &relays, &scores);
        assert_eq!(u64::from(home), step["preferred_derp"].as_u64().unwrap(), "{}", scenario["name"]);
    }
}

fn ids(value: &Value) -> BTreeSet<u16> {
    value.as_array().into_iter().flatten().map(|id| u16::try_from(id.as_u64().unwrap()).unwrap()).collect()
}
