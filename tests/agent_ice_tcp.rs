//! The port where viewers may connect by TCP, as strangers find it.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use common::device::{Device, Settings};
use common::scrape::Scrape;
use common::{SOON, free_port, until};

/// As `src/net/ice_tcp.rs` has it.
const MAX_STRANGERS: usize = 32;

/// A device on loopback: the address of its port for viewers, and of its figures.
fn device() -> (Device, SocketAddr, SocketAddr) {
    let port = free_port();
    let more: &'static str = Box::leak(format!("network.tcp_port = {port}").into_boxed_str());
    let (device, http) = Device::by_http(Settings {
        more,
        ..Settings::default()
    });
    (device, SocketAddr::from(([127, 0, 0, 1], port)), http)
}

/// Whether the device has closed the connection.
fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => panic!("the device speaks to a stranger"),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

fn refused(http: SocketAddr) -> f64 {
    Scrape::of(http).value("peercam_tcp_connections_refused_total")
}

#[test]
fn whoever_speaks_something_else_is_hung_up_on() {
    let (_device, port, http) = device();
    let mut stranger = TcpStream::connect(port).expect("a connection");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: camera\r\n\r\n").expect("it is taken");
    until("the device hangs up", SOON, || is_over(&mut stranger).then_some(()));
    until("that is counted", SOON, || (refused(http) == 1.0).then_some(()));
}

#[test]
fn strangers_have_few_connections_and_not_for_long() {
    let (_device, port, http) = device();
    let connect = |_| TcpStream::connect(port).expect("a connection");
    let mut strangers: Vec<TcpStream> = (0..MAX_STRANGERS + 8).map(connect).collect();
    until("the first ones make room", SOON, || (refused(http) >= 8.0).then_some(()));
    let over: Vec<bool> = strangers.iter_mut().map(is_over).collect();
    assert_eq!(over.iter().filter(|over| **over).count(), 8, "{over:?}");
    assert!(over[..8].iter().all(|over| *over), "the oldest go: {over:?}");
    until("nobody stays who proves nothing", SOON * 2, || {
        strangers.iter_mut().all(is_over).then_some(())
    });
    until("all are counted", SOON, || {
        (refused(http) == (MAX_STRANGERS + 8) as f64).then_some(())
    });
}
