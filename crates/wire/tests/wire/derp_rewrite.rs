use proptest::prelude::*;
use wire::derp::rewrite::{FORWARD_PREFIX_LEN, PREFIX_LEN, forward_to_recv, send_to_recv};
use wire::derp::{FrameType, encode};
use wire::keys::NodePublic;

use crate::vectors::{array, bytes, list, load, text};

#[test]
fn what_a_client_sends_becomes_what_its_peer_got() {
    for file in ["derp_session_coder", "derp_session_tailscale"] {
        let session = load(file);
        let recorded = list(&session["frames"]);
        let sent = |step: &str, name: &str| {
            let found = recorded
                .iter()
                .find(|frame| text(&frame["step"]).starts_with(step) && text(&frame["name"]) == name);
            bytes(&found.unwrap()["frame_hex"])
        };
        let public = |who: &str| NodePublic::from_bytes(array(&session["keys"][who]["public"]));
        let mut frame = sent("07", "SendPacket");
        assert_eq!(send_to_recv(&mut frame, &public("A")), Some(public("B")));
        assert_eq!(frame, sent("07", "RecvPacket"));
        let mut frame = sent("12", "ForwardPacket");
        let (to, start) = forward_to_recv(&mut frame).unwrap();
        assert_eq!((to, &frame[start..]), (public("B"), &sent("12", "RecvPacket")[..]));
    }
}

#[test]
fn rewriting_needs_the_prefix_only_and_leaves_other_frames_alone() {
    let (a, b) = (NodePublic::from_bytes([1; 32]), NodePublic::from_bytes([2; 32]));
    let mut whole = Vec::new();
    encode::send_packet(&mut whole, &b, b"packet");
    for len in 0..=whole.len() {
        let mut cut = whole[..len].to_vec();
        let done = send_to_recv(&mut cut, &a);
        assert_eq!(done, (len >= PREFIX_LEN).then_some(b));
        assert!(done.is_some() || cut == whole[..len]);
    }
    let mut whole = Vec::new();
    encode::forward_packet(&mut whole, &a, &b, b"packet");
    assert_eq!(send_to_recv(&mut whole.clone(), &a), None);
    for len in 0..=whole.len() {
        let mut cut = whole[..len].to_vec();
        let done = forward_to_recv(&mut cut);
        assert_eq!(done, (len >= FORWARD_PREFIX_LEN).then_some((b, 32)));
        assert!(done.is_some() || cut == whole[..len]);
    }
    // Headers that declare too little for their keys.
    assert_eq!(send_to_recv(&mut [&[4, 0, 0, 0, 31][..], &[0; 64]].concat(), &a), None);
    assert_eq!(forward_to_recv(&mut [&[10, 0, 0, 0, 63][..], &[0; 64]].concat()), None);
}

#[test]
fn a_prefix_is_the_start_of_the_frame() {
    let to = NodePublic::from_bytes([3; 32]);
    let mut frame = Vec::new();
    encode::send_packet(&mut frame, &to, b"packet");
    assert_eq!(encode::packet_prefix(FrameType::SendPacket, &to, 6), frame[..PREFIX_LEN]);
}

proptest! {
    #[test]
    fn any_frame_is_rewritten_or_left_alone(mut frame: Vec<u8>, kind in 3u8..11) {
        if let Some(first) = frame.first_mut() {
            *first = kind;
        }
        let before = frame.clone();
        if send_to_recv(&mut frame, &NodePublic::ZERO).is_none() && forward_to_recv(&mut frame).is_none() {
            prop_assert_eq!(frame, before);
        }
    }
}
