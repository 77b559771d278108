//! The broker goes and comes back, where it was or elsewhere.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::{Device, PEERCAM, Settings};
use common::peer::Peer;
use common::probe::Probe;
use common::{SOON, soak, until};
use serde_json::json;

/// The promise is five seconds; a loaded machine may take twice as long.
const BACK: Duration = Duration::from_secs(10);

/// How long the broker is away.
fn away() -> Duration {
    Duration::from_secs(if soak() { 60 } else { 5 })
}

/// Waits until the device is back at `broker` and answers; prints and checks how long that took.
fn comes_back(device: &Device, broker: SocketAddr, what: &str) {
    let began = Instant::now();
    Peer::watcher(broker).status("the device publishes its status again", SOON, |status| status["online"] == true);
    let online = began.elapsed();
    let mut alice = device.peer(broker, "alice");
    // Until the device has subscribed again nobody hears a request.
    let hello = until("hello is answered", SOON, || {
        alice.call_within("session.hello", &json!({ "version": 1 }), Duration::from_millis(250))
    });
    let took = began.elapsed();
    hello.expect("hello succeeds");
    println!(
        "{what}: online after {} ms, hello answered after {} ms",
        online.as_millis(),
        took.as_millis()
    );
    assert!(took < BACK, "{what}: it took {took:?}");
}

#[test]
fn a_running_session_does_not_notice_that_the_broker_is_away_and_the_agent_is_back_at_once() {
    let mut broker = Broker::start();
    let mut device = Device::online(&broker);
    let watched = away() + Duration::from_secs(8);
    let probe = Probe::start(broker.address, device.id(), &["--seconds", &watched.as_secs().to_string()]);
    until("the viewer is connected", SOON, || {
        device.process().log().contains("viewer connected").then_some(())
    });

    broker.kill();
    // The outage itself: so long the session has to do without.
    std::thread::sleep(away());
    broker.run();
    comes_back(&device, broker.address, "broker back");

    let report = probe.report(watched + SOON);
    let viewer = &report["per_viewer"][0];
    println!(
        "watched meanwhile: {} pictures, {} skipped by the device",
        viewer["frames_shown"], viewer["frames_skipped"]
    );
    assert!(viewer["failed"].is_null(), "the session ended: {}", viewer["failed"]);
    assert_eq!(
        (&viewer["frames_lost"], &viewer["frames_undecodable"]),
        (&json!(0), &json!(0)),
        "pictures were lost"
    );
    // A session that had stalled while the broker was away would have shown at most half of this.
    let expected = watched.as_secs() * u64::from(device.settings.fps);
    assert!(
        viewer["frames_shown"].as_u64() > Some(expected * 7 / 10),
        "of {expected} pictures came {}",
        viewer["frames_shown"]
    );
}

#[test]
fn a_broker_that_comes_back_at_another_address_is_found_by_its_name() {
    let hosts = "127.0.0.1 localhost broker.test\n";
    if !in_own_mount_namespace()
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        println!("SKIPPED: a hosts file of its own for the agent needs root (unshare -m)");
        return;
    }
    let mut first = Broker::start();
    let port = first.address.port();
    let mut device = Device::with(Settings {
        broker: format!("tcp://broker.test:{port}"),
        ..Settings::default()
    });
    let file = device.file("hosts");
    fs::write(&file, hosts).expect("a file");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut command = in_own_mount_namespace();
    command
        .args(["sh", "-c", script])
        .arg(&file)
        .args([PEERCAM, "run", "--config"])
        .arg(device.config_file());
    device.start_as(&mut command);
    device.live(&first);

    first.kill();
    // In place, as the mount is one of this very file.
    fs::write(&file, hosts.replace("127.0.0.1", "127.0.0.2")).expect("a file");
    until("the device has lost its broker", SOON, || {
        device.process().log().contains("no connection to the broker").then_some(())
    });
    let mut second = Broker::at(SocketAddr::from(([127, 0, 0, 2], port)));
    second.run();
    comes_back(&device, second.address, "broker back at another address");
}

/// A command whose mounts nobody else sees.
fn in_own_mount_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    command
}
