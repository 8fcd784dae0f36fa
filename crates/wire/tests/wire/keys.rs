use std::collections::HashSet;

use proptest::prelude::*;
use wire::keys::*;

use crate::vectors::{array, bytes, list, load, text};

#[test]
fn node_keys_have_the_recorded_forms() {
    for sample in list(&load("keys")["keys"]["node_keys"]) {
        let private = NodePrivate::from_bytes(array(&sample["private_raw"]));
        let public = private.public();
        assert_eq!(private.as_bytes(), &array::<32>(&sample["private_raw"]));
        assert_eq!(private.to_text().as_str(), text(&sample["private_text"]));
        assert_eq!(private, text(&sample["private_text"]).parse().unwrap());
        assert_eq!(public.as_bytes(), &array::<32>(&sample["public_raw"]));
        assert_eq!(public.to_text(), text(&sample["public_text"]));
        assert_eq!(public.to_string(), public.to_text());
        assert_eq!(public, text(&sample["public_text"]).parse().unwrap());
        assert_eq!(public.to_short(), text(&sample["public_short"]));
        assert_eq!(public.to_binary().as_slice(), bytes(&sample["public_binary"]));
        assert_eq!(Ok(public), NodePublic::from_binary(&bytes(&sample["public_binary"])));
        assert_eq!(public.to_hex(), text(&sample["public_untyped"]));
        assert_eq!(Ok(public), NodePublic::from_hex(text(&sample["public_untyped"])));
    }
}

#[test]
fn disco_keys_have_the_recorded_forms() {
    for sample in list(&load("keys")["keys"]["disco_keys"]) {
        let public = DiscoPrivate::from_bytes(array(&sample["private_raw"])).public();
        assert_eq!(public.as_bytes(), &array::<32>(&sample["public_raw"]));
        assert_eq!(public.to_text(), text(&sample["public_text"]));
        assert_eq!(public, text(&sample["public_text"]).parse().unwrap());
        assert_eq!(public.to_short(), text(&sample["public_short"]));
    }
}

#[test]
fn the_zero_key_means_absent() {
    let zero = &load("keys")["keys"]["zero_key"];
    assert!(NodePublic::ZERO.is_zero() && DiscoPublic::ZERO.is_zero());
    assert_eq!(NodePublic::ZERO.to_short(), text(&zero["public_short"]));
    assert_eq!(NodePublic::ZERO.to_text(), text(&zero["public_text"]));
    assert_eq!(DiscoPublic::ZERO.to_short(), text(&zero["disco_short"]));
    assert_eq!(DiscoPublic::ZERO.to_text(), text(&zero["disco_text"]));
}

#[test]
fn texts_are_accepted_and_refused_as_recorded() {
    for sample in list(&load("keys")["keys"]["parse"]) {
        let outcome = match text(&sample["kind"]) {
            "NodePublic" => text(&sample["text"]).parse::<NodePublic>().err(),
            "DiscoPublic" => text(&sample["text"]).parse::<DiscoPublic>().err(),
            "NodePrivate" => text(&sample["text"]).parse::<NodePrivate>().err(),
            "NodePublic binary" => NodePublic::from_binary(&bytes(&sample["hex"])).err(),
            other => panic!("unknown kind {other}"),
        };
        let expected = sample["error"].as_str().map(|error| {
            if error.contains("prefix") {
                "prefix"
            } else if error.contains("size") || error.contains("len") {
                "length"
            } else {
                "hex"
            }
        });
        let got = outcome.map(|error| match error {
            KeyError::Prefix(_) => "prefix",
            KeyError::Length => "length",
            KeyError::NotHex => "hex",
        });
        assert_eq!(got, expected, "{sample}");
    }
}

#[test]
fn boxes_are_the_recorded_ones_in_both_directions() {
    for sample in list(&load("keys")["box"]) {
        let sender = NodePrivate::from_bytes(array(&sample["sender_private"]));
        let recipient = NodePrivate::from_bytes(array(&sample["recipient_private"]));
        let nonce = array::<NONCE_LEN>(&sample["nonce"]);
        let sealed = bytes(&sample["nonce_then_box"])[NONCE_LEN..].to_vec();
        let cleartext = text(&sample["cleartext"]).as_bytes();
        let (there, back) =
            (SharedBox::new(&sender, &recipient.public()), SharedBox::new(&recipient, &sender.public()));
        let opened = back.open(nonce, &sealed).unwrap();
        // Long cleartexts are recorded in hex.
        assert!(opened == cleartext || hex::decode(cleartext).is_ok_and(|raw| raw == opened), "{sample}");
        assert_eq!(there.seal(nonce, &opened), sealed);
    }
}

#[test]
fn a_changed_or_cut_box_does_not_open() {
    let (a, b) = (NodePrivate::generate(), NodePrivate::generate());
    let shared = SharedBox::new(&a, &b.public());
    let nonce = random_nonce();
    let sealed = shared.seal(nonce, b"sixteen bytes and more");
    for len in 0..sealed.len() {
        assert_eq!(shared.open(nonce, &sealed[..len]), None);
    }
    for changed in crate::vectors::bit_flips(&sealed) {
        assert_eq!(shared.open(nonce, &changed), None);
    }
    for other in crate::vectors::bit_flips(&nonce) {
        assert_eq!(shared.open(other.try_into().unwrap(), &sealed), None);
    }
}

#[test]
fn a_box_with_a_key_of_low_order_is_weak() {
    let weak = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        // The top bit is not part of the number.
        "0000000000000000000000000000000000000000000000000000000000000080",
    ];
    for digits in weak {
        let key = NodePublic::from_hex(digits).unwrap();
        let (one, other) =
            (SharedBox::new(&NodePrivate::generate(), &key), SharedBox::new(&NodePrivate::generate(), &key));
        let sealed = one.seal([7; NONCE_LEN], b"anyone");
        assert!(one.is_weak() && other.is_weak(), "{digits}");
        assert_eq!(other.open([7; NONCE_LEN], &sealed).as_deref(), Some(&b"anyone"[..]), "{digits}");
    }
    let ordinary = SharedBox::new(&NodePrivate::generate(), &NodePrivate::generate().public());
    assert!(!ordinary.is_weak());
}

#[test]
fn private_keys_do_not_show() {
    let key = NodePrivate::from_bytes([0x41; 32]);
    let shared = SharedBox::new(&key, &key.public());
    assert_eq!(
        format!("{key:?} {:?}", DiscoPrivate::generate()),
        "NodePrivate(redacted) DiscoPrivate(redacted)"
    );
    assert_eq!(format!("{shared:?}"), "SharedBox(redacted)");
}

#[test]
fn generated_keys_are_clamped_and_differ() {
    let keys: Vec<_> = (0..32).map(|_| NodePrivate::generate()).collect();
    assert!(keys.iter().all(|key| key.as_bytes()[0] & 7 == 0 && key.as_bytes()[31] >> 6 == 1));
    assert_eq!(keys.iter().map(NodePrivate::public).collect::<HashSet<_>>().len(), 32);
    assert!(keys[0] != keys[1] && keys[0] == keys[0].clone());
}

proptest! {
    #[test]
    fn texts_round_trip(raw: [u8; 32]) {
        let (node, disco) = (NodePublic::from_bytes(raw), DiscoPublic::from_bytes(raw));
        prop_assert_eq!(Ok(node), node.to_text().parse());
        prop_assert_eq!(Ok(disco), disco.to_text().parse());
        prop_assert_eq!(Ok(node), NodePublic::from_binary(&node.to_binary()));
        prop_assert_eq!(Some(node), NodePublic::from_prefix(&raw));
    }

    #[test]
    fn any_text_is_a_key_or_an_error(text: String, raw: Vec<u8>) {
        let _ = text.parse::<NodePublic>();
        let _ = format!("nodekey:{text}").parse::<NodePublic>();
        let _ = format!("privkey:{text}").parse::<NodePrivate>();
        let _ = NodePublic::from_binary(&raw);
    }

    #[test]
    fn constant_time_equality_is_equality(a: Vec<u8>, b: Vec<u8>) {
        prop_assert_eq!(constant_time_eq(&a, &b), a == b);
        prop_assert!(constant_time_eq(&a, &a.clone()));
    }

    #[test]
    fn what_is_sealed_opens(cleartext: Vec<u8>, nonce: [u8; 24]) {
        let (a, b) = (DiscoPrivate::from_bytes([1; 32]), DiscoPrivate::from_bytes([2; 32]));
        let sealed = SharedBox::new(&a, &b.public()).seal(nonce, &cleartext);
        prop_assert_eq!(sealed.len(), cleartext.len() + BOX_OVERHEAD);
        prop_assert_eq!(SharedBox::new(&b, &a.public()).open(nonce, &sealed), Some(cleartext));
    }
}
