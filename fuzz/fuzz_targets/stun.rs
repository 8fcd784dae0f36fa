//! STUN: what parses as a request or response is encoded to something that parses the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::stun::{is_stun, parse_request, parse_response, request, response};

fuzz_target!(|packet: &[u8]| {
    if let Ok(tx) = parse_request(packet) {
        assert!(is_stun(packet));
        assert_eq!(parse_request(&request(tx)), Ok(tx));
    }
    if let Ok((tx, addr)) = parse_response(packet) {
        assert!(is_stun(packet));
        assert_eq!(parse_response(&response(tx, addr)), Ok((tx, addr)));
    }
});
