//! The STUN server on real sockets.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;

use common::{PATIENCE, config};
use edge::{Edge, EdgeError};
use wire::stun::{TxId, parse_response, request};

fn client(bind: &str) -> UdpSocket {
    let socket = UdpSocket::bind(bind).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn both_ports_tell_the_client_its_address_and_ignore_garbage() {
    let mut config = config();
    config.stun = vec!["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let edge = Edge::start(config).unwrap();
    let socket = client("127.0.0.1:0");
    let mut wrong = request(TxId([9; 12]));
    wrong[39] ^= 1;
    let mut bare = request(TxId([3; 12]))[..20].to_vec();
    bare[3] = 0;
    for (server, id) in edge.stun_addresses().iter().zip([1, 2]) {
        let whole = request(TxId([id; 12]));
        for cut in 0..whole.len() {
            socket.send_to(&whole[..cut], server).unwrap();
        }
        socket.send_to(&wrong, server).unwrap();
        for (request, id) in [(&whole[..], id), (&bare[..], 3)] {
            socket.send_to(request, server).unwrap();
            let mut answer = [0; 100];
            let (len, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(from, *server);
            assert_eq!(
                parse_response(&answer[..len]).unwrap(),
                (TxId([id; 12]), socket.local_addr().unwrap())
            );
        }
    }
    common::wait_until(|| edge.counters().stun_answered == 4);
    assert_eq!(edge.counters().stun_dropped, 2 * 41);
}

#[test]
fn an_ipv4_client_of_a_dual_stack_socket_gets_an_ipv4_answer() {
    let mut config = config();
    config.stun = vec!["[::]:0".parse().unwrap()];
    let edge = Edge::start(config).unwrap();
    let socket = client("127.0.0.1:0");
    let port = edge.stun_addresses()[0].port();
    socket.send_to(&request(TxId([7; 12])), ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 100];
    let (len, _) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((len, answer[25]), (32, 1));
}

#[test]
fn an_address_in_use_is_named_with_a_remedy() {
    let edge = common::edge();
    let mut second = config();
    second.listen = edge.addresses().to_vec();
    let error = Edge::start(second).err().unwrap();
    assert!(matches!(error, EdgeError::Bind { protocol: "TCP", .. }));
    let text = error.to_string();
    assert!(text.contains(&edge.addresses()[0].to_string()), "{text}");
    assert!(text.contains("choose another port") && !text.contains('\n'), "{text}");
}
