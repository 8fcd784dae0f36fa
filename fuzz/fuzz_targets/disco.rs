//! Disco: packets of strangers never open; a payload that parses is encoded to one that parses the same.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wire::disco::{Message, is_disco, open, sender};
use wire::keys::{DiscoPrivate, SharedBox};

static SHARED: LazyLock<SharedBox> = LazyLock::new(|| {
    SharedBox::new(&DiscoPrivate::from_bytes([1; 32]), &DiscoPrivate::from_bytes([2; 32]).public())
});

fuzz_target!(|input: &[u8]| {
    assert_eq!(sender(input).is_some(), is_disco(input));
    let _ = open(&SHARED, input);
    if let Ok(message) = Message::decode(input) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
});
