//! The DERP map: a document that is read is written to one that is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::derpmap::DerpMap;

fuzz_target!(|document: &[u8]| {
    let Ok(map) = DerpMap::from_json(document) else { return };
    for node in map.regions.values().flat_map(|region| &region.nodes) {
        let _ = (node.stun(), node.derp(), node.v4(), node.v6());
    }
    let written = map.to_json().expect("a map can be written");
    let read = DerpMap::from_json(written.as_bytes()).expect("what was written can be read");
    // Scores may lose their last bit in text.
    assert_eq!(read.regions, map.regions);
});
