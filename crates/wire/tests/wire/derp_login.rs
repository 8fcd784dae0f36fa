use proptest::prelude::*;
use wire::derp::login::*;
use wire::derp::{DerpError, FrameType, HEADER_LEN, Header, VERSION};
use wire::keys::{NONCE_LEN, NodePrivate, NodePublic, SharedBox};

use crate::vectors::{Value, array, bit_flips, bytes, list, load, text};

const SESSIONS: [&str; 2] = ["derp_session_coder", "derp_session_tailscale"];
const DECODES: [&str; 2] = ["derp_decode_coder", "derp_decode_tailscale"];

fn private(vectors: &Value, who: &str) -> NodePrivate {
    // The second connection of B uses B's key.
    NodePrivate::from_bytes(array(&vectors["keys"][who.trim_end_matches('2')]["private"]))
}

/// A client and a server key, and the client's box.
fn pair() -> (NodePrivate, NodePrivate, SharedBox) {
    let (client, server) = (NodePrivate::from_bytes([1; 32]), NodePrivate::from_bytes([2; 32]));
    let shared = SharedBox::new(&client, &server.public());
    (client, server, shared)
}

/// A ClientInfo payload around any JSON.
fn sealed_text(json: &str) -> Vec<u8> {
    let (client, _, shared) = pair();
    [client.public().as_bytes().as_slice(), &[3; NONCE_LEN], &shared.seal([3; NONCE_LEN], json.as_bytes())]
        .concat()
}

fn read(json: &str) -> Result<ClientInfo, LoginError> {
    let (client, server, _) = pair();
    open_client_info(&server, &sealed_text(json)).map(|(key, info, _)| {
        assert_eq!(key, client.public());
        info
    })
}

#[test]
fn recorded_logins_are_opened_and_sealed_again() {
    for file in SESSIONS {
        let session = load(file);
        let server = private(&session, "server");
        for sample in list(&session["frames"]) {
            let (recorded, decoded) = (bytes(&sample["frame_hex"]), &sample["decoded"]);
            let (payload, mut again) = (&recorded[HEADER_LEN..], Vec::new());
            let client = private(&session, text(&sample["conn"]));
            let shared = SharedBox::new(&client, &server.public());
            match text(&sample["name"]) {
                "ServerKey" => {
                    assert_eq!(open_greeting(FrameType::ServerKey, payload), Ok(server.public()));
                    continue;
                }
                "ClientInfo" => {
                    let (key, info, _) = open_client_info(&server, payload).unwrap();
                    assert_eq!(key, client.public());
                    check_client_info(&info, text(&decoded["json"]));
                    // One of the two implementations puts the mesh key first, which nobody can mind.
                    if text(&decoded["json"]).starts_with(r#"{"meshKey""#) {
                        continue;
                    }
                    seal_client_info(&mut again, &key, &shared, array(&decoded["nonce"]), &info);
                }
                "ServerInfo" => {
                    let info = open_server_info(&shared, payload).unwrap();
                    assert_eq!(info.version, VERSION);
                    let shared = SharedBox::new(&server, &client.public());
                    seal_server_info(&mut again, &shared, array(&decoded["nonce"]), &info);
                }
                _ => continue,
            }
            assert_eq!(again, recorded);
        }
    }
}

fn check_client_info(info: &ClientInfo, json: &str) {
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(Some(info.version), json["version"].as_i64());
    assert_eq!(info.mesh_key.as_ref().map(|key| key.as_str()), json["meshKey"].as_str());
    assert_eq!(Some(info.can_ack_pings), json["CanAckPings"].as_bool());
    assert_eq!(info.is_prober, json["IsProber"].as_bool().unwrap_or(false));
    assert_eq!(info.app_name, json["AppName"].as_str().unwrap_or(""));
}

#[test]
fn greetings_are_judged_as_recorded() {
    for file in DECODES {
        let vectors = load(file);
        let server = NodePublic::from_bytes(array(&vectors["server_public"]));
        for sample in list(&vectors["client_reads_greeting"]) {
            let recorded = bytes(&sample["greeting"]);
            let (kind, len) = Header::parse(&recorded).unwrap();
            let read = match recorded.get(HEADER_LEN..HEADER_LEN + len) {
                Some(payload) => open_greeting(kind, payload),
                // Refused by its header, before the rest has arrived.
                None => Err(LoginError::Frame(DerpError::Greeting)),
            };
            assert_eq!(read.is_ok(), sample["ok"].as_bool().unwrap(), "{sample}");
            assert!(read.is_err() || read == Ok(server));
        }
    }
}

#[test]
fn client_infos_are_judged_as_recorded() {
    for file in DECODES {
        let vectors = load(file);
        let server = NodePrivate::from_bytes(array(&vectors["server_private"]));
        for sample in list(&vectors["server_reads_client"]) {
            let Some(recorded) = sample["client_bytes"].as_str().map(|hex| hex::decode(hex).unwrap()) else {
                continue;
            };
            let (kind, len) = Header::parse(&recorded).unwrap();
            // Only one of the two implementations wants mesh keys of a certain form; here any text is one.
            if kind != FrameType::ClientInfo || text(&sample["name"]).starts_with("mesh key") {
                continue;
            }
            let Some(payload) = recorded.get(HEADER_LEN..HEADER_LEN + len) else {
                assert!(len > 262_144, "{sample}");
                continue;
            };
            let accepted = list(&sample["answers"]).iter().any(|answer| answer["name"] == "ServerInfo");
            let log = sample["server_log"].to_string();
            let expected = match open_client_info(&server, payload) {
                Ok(_) => accepted,
                Err(LoginError::Sealed) => log.contains("cannot open"),
                Err(LoginError::Json) => log.contains("invalid character"),
                Err(LoginError::Frame(DerpError::Short(_))) => log.contains("short client info"),
                Err(other) => panic!("{other} for {sample}"),
            };
            assert!(expected, "{sample}");
        }
    }
}

#[test]
fn mesh_keys_of_any_form_are_read() {
    let vectors = load("derp_decode_coder");
    let server = NodePrivate::from_bytes(array(&vectors["server_private"]));
    let samples = list(&vectors["server_reads_client"]);
    let found = |start: &str| {
        let sample = samples.iter().find(|sample| text(&sample["name"]).starts_with(start)).unwrap();
        let recorded = bytes(&sample["client_bytes"]);
        let (_, len) = Header::parse(&recorded).unwrap();
        open_client_info(&server, &recorded[HEADER_LEN..HEADER_LEN + len]).unwrap().1.mesh_key
    };
    assert_eq!(found("mesh key as 64 hex digits, server has it").unwrap().as_str(), "ab".repeat(32));
    assert_eq!(found("mesh key of 32 letters").unwrap().len(), 32);
    assert_eq!(found("mesh key empty string"), None);
}

#[test]
fn server_infos_are_judged_as_recorded() {
    for file in DECODES {
        let vectors = load(file);
        let client = NodePrivate::from_bytes(array(&vectors["client_private"]));
        let shared = SharedBox::new(&client, &NodePublic::from_bytes(array(&vectors["server_public"])));
        let samples = list(&vectors["client_receives"]);
        for sample in samples.iter().filter(|sample| text(&sample["name"]).starts_with("server info")) {
            let read = open_server_info(&shared, &bytes(&sample["frames"])[HEADER_LEN..]);
            match (&sample["messages"][0], read) {
                (Value::Null, Err(_)) => {}
                (message, Ok(info)) => {
                    assert_eq!(Some(info.bytes_per_second), message["TokenBucketBytesPerSecond"].as_i64());
                    assert_eq!(Some(info.bytes_burst), message["TokenBucketBytesBurst"].as_i64());
                }
                (_, other) => panic!("{other:?} for {sample}"),
            }
        }
    }
}

#[test]
fn keys_of_any_case_and_nulls_are_read() {
    let info =
        read(r#"{"VERSION":7,"MESHkey":"k","canackpings":true,"isProber":true,"appname":"x","x":[{"y":1}]}"#)
            .unwrap();
    assert_eq!(
        (info.version, info.can_ack_pings, info.is_prober, info.app_name.as_str()),
        (7, true, true, "x")
    );
    assert_eq!(info.mesh_key.unwrap().as_str(), "k");
    for nothing in
        ["{}", "null", " null ", r#"{"version":null,"meshKey":null,"CanAckPings":null}"#, r#"{"meshKey":""}"#]
    {
        assert_eq!(read(nothing), Ok(ClientInfo::default()), "{nothing}");
    }
    // The last of several wins.
    assert_eq!(read(r#"{"version":1,"Version":2,"version":null}"#).unwrap().version, 2);
}

#[test]
fn anything_but_an_object_of_the_right_types_is_refused() {
    for json in [
        "",
        "[]",
        "1",
        "\"x\"",
        "{",
        "{}x",
        r#"{"version":"2"}"#,
        r#"{"version":1.5}"#,
        r#"{"CanAckPings":1}"#,
    ] {
        assert_eq!(read(json), Err(LoginError::Json), "{json}");
    }
    // Deep nesting ends in an error, not in a full stack.
    let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    assert_eq!(read(&deep), Err(LoginError::Json));
}

#[test]
fn a_changed_or_cut_login_is_refused() {
    let (_, server, shared) = pair();
    let payload = sealed_text(r#"{"version":2,"CanAckPings":true}"#);
    assert!(open_client_info(&server, &payload).is_ok());
    for len in 0..payload.len() {
        assert!(open_client_info(&server, &payload[..len]).is_err());
    }
    for (bit, changed) in bit_flips(&payload).enumerate() {
        // X25519 ignores the top bit of a public key; that is then the key the client is known by.
        assert!(bit == 255 || open_client_info(&server, &changed).is_err(), "bit {bit}");
    }
    let mut frame = Vec::new();
    seal_server_info(
        &mut frame,
        &shared,
        [5; NONCE_LEN],
        &ServerInfo { version: VERSION, ..ServerInfo::default() },
    );
    let payload = &frame[HEADER_LEN..];
    for len in 0..payload.len() {
        assert!(open_server_info(&shared, &payload[..len]).is_err());
    }
    for changed in bit_flips(payload) {
        assert_eq!(open_server_info(&shared, &changed), Err(LoginError::Sealed));
    }
}

#[test]
fn a_login_with_a_key_anyone_could_hold_is_refused() {
    let server = NodePrivate::from_bytes([2; 32]);
    let shared = SharedBox::new(&NodePrivate::generate(), &NodePublic::ZERO);
    let mut frame = Vec::new();
    seal_client_info(&mut frame, &NodePublic::ZERO, &shared, [0; NONCE_LEN], &ClientInfo::default());
    let outcome = open_client_info(&server, &frame[HEADER_LEN..]).map(|_| ());
    assert_eq!(outcome, Err(LoginError::WeakKey));
}

#[test]
fn sizes_are_limited() {
    let server = NodePrivate::from_bytes([2; 32]);
    let long = open_client_info(&server, &vec![0; 262_145]).map(|_| ());
    assert_eq!(long, Err(DerpError::Long(FrameType::ClientInfo).into()));
    let greeting = |len: usize| {
        let mut payload = wire::derp::MAGIC.to_vec();
        payload.resize(len, 9);
        open_greeting(FrameType::ServerKey, &payload).is_ok()
    };
    assert!(!greeting(39) && greeting(40) && greeting(1024) && !greeting(1025));
}

#[test]
fn a_mesh_key_does_not_show() {
    let info = read(r#"{"meshKey":"not to be seen"}"#).unwrap();
    assert!(!format!("{info:?}").contains("not to be seen"));
}

proptest! {
    #[test]
    fn any_info_round_trips(version: i64, mesh in "[a-zA-Z0-9]{1,64}", ack: bool, prober: bool, name: String, rate: i64) {
        let (client, server, shared) = pair();
        let info = ClientInfo {
            version,
            mesh_key: Some(mesh.into()),
            can_ack_pings: ack,
            is_prober: prober,
            app_name: name,
        };
        let mut frame = Vec::new();
        seal_client_info(&mut frame, &client.public(), &shared, [1; NONCE_LEN], &info);
        let (_, read, back) = open_client_info(&server, &frame[HEADER_LEN..]).unwrap();
        prop_assert_eq!(read, info);
        let info = ServerInfo { version, bytes_per_second: rate, bytes_burst: rate };
        let mut frame = Vec::new();
        seal_server_info(&mut frame, &back, [2; NONCE_LEN], &info);
        prop_assert_eq!(open_server_info(&shared, &frame[HEADER_LEN..]), Ok(info));
    }

    #[test]
    fn any_text_is_an_info_or_an_error(json: String) {
        let _ = read(&json);
        let _ = read(&format!("{{{json}}}"));
    }

    #[test]
    fn any_payload_is_refused(payload: Vec<u8>) {
        let (_, server, shared) = pair();
        prop_assert!(open_client_info(&server, &payload).is_err());
        prop_assert!(open_server_info(&shared, &payload).is_err());
        prop_assert!(open_greeting(FrameType::ServerKey, &payload).is_err());
    }
}
