//! IPv6 packets, TSMP and ICMPv6 echo: what parses is built again to something that parses the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ip::{Ipv6, icmpv6, tsmp};

fuzz_target!(|input: &[u8]| {
    let Some(packet) = Ipv6::parse(input) else { return };
    assert!(packet.packet_len() <= input.len());
    let (src, dst) = (packet.src(), packet.dst());
    if let Some(echo) = icmpv6::parse(&packet) {
        let again = icmpv6::build(src, dst, &echo);
        assert_eq!(Ipv6::parse(&again).and_then(|packet| icmpv6::parse(&packet)), Some(echo));
    }
    let again = match tsmp::parse(&packet) {
        Some(tsmp::Tsmp::Ping(data)) => tsmp::ping(src, dst, data).to_vec(),
        Some(tsmp::Tsmp::Pong { data, port }) => tsmp::pong(src, dst, data, port).to_vec(),
        _ => return,
    };
    assert_eq!(Ipv6::parse(&again).and_then(|packet| tsmp::parse(&packet)), tsmp::parse(&packet));
});
