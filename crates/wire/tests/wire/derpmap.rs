use proptest::prelude::*;
use wire::derpmap::*;

use crate::vectors::{Value, list, load, text};

fn read(value: &Value) -> DerpMap {
    DerpMap::from_json(value.to_string().as_bytes()).unwrap()
}

#[test]
fn recorded_maps_are_read_and_written_again() {
    let vectors = load("derpmap");
    let maps: Vec<_> =
        list(&vectors["new_derp_map"]).iter().filter(|sample| sample["derp_map"].is_object()).collect();
    assert!(maps.len() > 10);
    for sample in maps {
        let mut recorded = sample["derp_map"].clone();
        // A hint of another control plane, acted on by nobody here.
        recorded.as_object_mut().unwrap().remove("omitDefaultRegions");
        for region in recorded["Regions"].as_object_mut().unwrap().values_mut() {
            if region["Nodes"].is_null() {
                region["Nodes"] = Value::Array(Vec::new());
            }
        }
        if let Some(scores) = recorded.pointer_mut("/HomeParams/RegionScore").and_then(Value::as_object_mut) {
            scores.values_mut().for_each(|score| *score = score.as_f64().unwrap().into());
        }
        let again: Value = serde_json::from_str(&read(&recorded).to_json().unwrap()).unwrap();
        assert_eq!(again, recorded, "{}", sample["name"]);
    }
}

#[test]
fn documents_the_reference_cannot_decode_are_refused() {
    for sample in list(&load("derpmap")["new_derp_map"]) {
        let undecodable = sample["error"].as_str().is_some_and(|error| error.starts_with("unmarshal"));
        if let (true, Some(document)) = (undecodable, sample["config_file"].as_str()) {
            assert!(DerpMap::from_json(document.as_bytes()).is_err(), "{document}");
        }
    }
}

#[test]
fn rewritten_regions_are_read() {
    for sample in list(&load("derpmap")["rewrite_default_relay"]) {
        let region: Region = serde_json::from_value(sample["region_999"].clone()).unwrap();
        assert!(region.embedded);
        assert!(text(&sample["access_url"]).contains(&region.nodes[0].host));
        assert_eq!(region.nodes[0].force_http, text(&sample["access_url"]).starts_with("http:"));
    }
}

#[test]
fn a_bare_node_has_the_defaults() {
    let node: RelayNode = serde_json::from_str(r#"{"Name":"1a","RegionID":1,"HostName":"h"}"#).unwrap();
    assert_eq!((node.derp(), node.stun()), (Some(443), Some(3478)));
    assert_eq!((node.v4(), node.v6()), (Family::Resolve, Family::Resolve));
    assert!(!node.insecure && !node.force_http && !node.stun_only);
}

#[test]
fn ports_out_of_range_are_none() {
    let node = |stun_port, derp_port| RelayNode { stun_port, derp_port, ..RelayNode::default() };
    assert_eq!((node(-1, -1).stun(), node(-1, -1).derp()), (None, None));
    assert_eq!((node(65_536, 99_999).stun(), node(65_536, 99_999).derp()), (None, None));
    assert_eq!((node(65_535, 1).stun(), node(65_535, 1).derp()), (Some(65_535), Some(1)));
    assert_eq!(RelayNode { stun_only: true, ..node(0, 0) }.derp(), None);
}

#[test]
fn families_are_resolved_fixed_or_off() {
    let node = |host: &str, ipv4: &str, ipv6: &str| {
        let node =
            RelayNode { host: host.into(), ipv4: ipv4.into(), ipv6: ipv6.into(), ..RelayNode::default() };
        (node.v4(), node.v6())
    };
    let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert_eq!(node("h", "192.0.2.1", "none"), (Family::Fixed(v4), Family::Off));
    assert_eq!(node("h", "none", "2001:db8::1"), (Family::Off, Family::Fixed(v6)));
    // An address of the other family is no address of this one.
    assert_eq!(node("h", "2001:db8::1", "192.0.2.1"), (Family::Off, Family::Off));
    assert_eq!(node("192.0.2.1", "", ""), (Family::Fixed(v4), Family::Off));
    assert_eq!(node("2001:db8::1", "", ""), (Family::Off, Family::Fixed(v6)));
    assert_eq!(node("2001:db8::1", "192.0.2.1", ""), (Family::Fixed(v4), Family::Fixed(v6)));
}

#[test]
fn nulls_and_absent_members_are_empty() {
    for document in ["{}", r#"{"Regions":null}"#, r#"{"HomeParams":null,"Regions":{}}"#] {
        assert_eq!(DerpMap::from_json(document.as_bytes()).unwrap(), DerpMap::default());
    }
    let map = DerpMap::from_json(br#"{"Regions":{"7":{"Nodes":null}}}"#).unwrap();
    assert_eq!(map.regions[&7], Region::default());
}

#[test]
fn region_ids_that_do_not_fit_are_refused() {
    assert!(DerpMap::from_json(br#"{"Regions":{"65536":{}}}"#).is_err());
    assert!(DerpMap::from_json(br#"{"Regions":{"1":{"RegionID":-1}}}"#).is_err());
}

proptest! {
    #[test]
    fn maps_round_trip(id: u16, code: String, host: String, stun_port: i64, derp_port: i64, flags: [bool; 6], eighths in 1u8..80) {
        let [embedded, avoid, stun_only, insecure, force_http, can_port_80] = flags;
        let node = RelayNode {
            name: code.clone(), region_id: id, host, stun_port, derp_port, stun_only, insecure, force_http, can_port_80,
            ..RelayNode::default()
        };
        let region =
            Region { embedded, id, code: code.clone(), name: code, avoid, nodes: vec![node], ..<_>::default() };
        let home_params = Some(HomeParams { region_score: [(id, f64::from(eighths) / 8.0)].into() });
        let map = DerpMap { home_params, regions: [(id, region)].into() };
        prop_assert_eq!(DerpMap::from_json(map.to_json().unwrap().as_bytes()).unwrap(), map);
    }

    #[test]
    fn any_text_is_a_map_or_an_error(text: String) {
        let _ = DerpMap::from_json(text.as_bytes());
    }
}
