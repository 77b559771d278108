//! The device's own way through a TURN server, which is here the only one that it has.

mod common;

use std::time::{Duration, Instant};

use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::probe::Probe;
use common::scrape::Scrape;
use common::{SOON, free_port, soak, until};
use serde_json::Value;

const FPS: f64 = 15.0;

/// A device that is seen through `coturn` only, by these transports.
fn device(broker: &Broker, coturn: &Coturn, transports: &[&str], password: &str) -> (Device, std::net::SocketAddr) {
    let http = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut device = Device::with(Settings {
        broker: broker.url(),
        http: http.to_string(),
        more: "http.signaling = false\nnetwork.transport_policy = \"relay\"",
        ..Settings::default()
    });
    device.configure(&format!("{}{}", device.config(), coturn.config(transports, password)));
    device.start();
    device.live(broker);
    (device, http)
}

fn number(viewer: &Value, what: &str) -> f64 {
    let value = viewer.pointer(&format!("/{what}")).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {what}: {viewer}"))
}

/// Ten seconds of one viewer.
fn watch(transport: &str) {
    let (broker, coturn) = (Broker::start(), Coturn::start());
    let (device, http) = device(&broker, &coturn, &[transport], PASSWORD);
    let report = Probe::start(broker.address, device.id(), &["--seconds", "10"]).report(Duration::from_secs(100));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    assert!(
        number(viewer, "frames_shown") > 8.0 * FPS,
        "pictures flow for ten seconds: {viewer}"
    );
    assert_eq!(number(viewer, "frames_undecodable"), 0.0, "in order: {viewer}");
    println!(
        "{transport}: {} pictures, {} lost, {}",
        viewer["frames_shown"], viewer["frames_lost"], viewer["path"]
    );
    let told = Scrape::of(http);
    let of = |name: &str| told.value(&format!("{name}{{server=\"{}\"}}", coturn.url(transport)));
    assert_eq!((of("peercam_relay_up"), of("peercam_relay_allocations_total")), (1.0, 1.0));
    assert!(of("peercam_relay_datagrams_sent_total") > 8.0 * FPS);
    assert!(of("peercam_relay_datagrams_received_total") > 10.0);
}

#[test]
fn pictures_flow_through_a_relay_over_udp() {
    watch("udp");
}

#[test]
fn pictures_flow_through_a_relay_over_tcp() {
    watch("tcp");
}

#[test]
fn pictures_flow_through_a_relay_over_tls() {
    watch("tls");
}

/// What a server forgets is asked for in time: coturn wants every request signed with a new nonce every few seconds, and with `soak` it
/// forgets all else within a minute.
#[test]
fn nonces_permissions_channels_and_allocations_are_renewed() {
    let (seconds, forgetful) = if soak() {
        let lifetimes = [
            "--stale-nonce=60",
            "--permission-lifetime=60",
            "--channel-lifetime=60",
            "--max-allocate-lifetime=60",
        ];
        (180, lifetimes.to_vec())
    } else {
        (12, vec!["--stale-nonce=3"])
    };
    let (broker, coturn) = (Broker::start(), Coturn::with(&forgetful));
    let (device, http) = device(&broker, &coturn, &["udp"], PASSWORD);
    let arguments = ["--seconds", &seconds.to_string()];
    let report = Probe::start(broker.address, device.id(), &arguments).report(Duration::from_secs(400));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    let shown = number(viewer, "frames_shown") / f64::from(seconds) / FPS;
    println!(
        "{seconds} s: {:.1} % of the pictures, {} lost",
        shown * 100.0,
        viewer["frames_lost"]
    );
    assert!(shown > 0.9, "pictures flow all the time: {viewer}");
    let allocations = format!("peercam_relay_allocations_total{{server=\"{}\"}}", coturn.url("udp"));
    assert_eq!(Scrape::of(http).value(&allocations), 1.0, "by one allocation");
    let log = coturn.log();
    assert!(
        log.contains("stale nonce") || log.contains("Stale nonce") || log.contains("438"),
        "nonces were changed: {log}"
    );
}

/// coturn knows no users, only the secret; viewers get passwords made from it, as the device makes its own.
#[test]
fn passwords_are_made_from_a_shared_secret() {
    let (broker, coturn) = (Broker::start(), Coturn::with(&["--use-auth-secret", "--static-auth-secret=north"]));
    let (mut device, _) = device(&broker, &coturn, &["udp"], PASSWORD);
    device.take_process().kill();
    let more = coturn.config_with(&["udp"], "secret_file", "north");
    device.configure(&format!("{}{more}", device.config()));
    device.start();
    device.live(&broker);
    let server = device.peer(broker.address, "page").hello()["ice_servers"][0].clone();
    let (expires, name) = server["username"]
        .as_str()
        .and_then(|name| name.split_once(':'))
        .unwrap_or_else(|| panic!("a time and a name: {server}"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let left = expires.parse::<u64>().expect("a time").saturating_sub(now);
    assert!(name == "peercam" && (86_000..=86_400).contains(&left), "good for a day: {server}");
    let report = Probe::start(broker.address, device.id(), &["--seconds", "3"]).report(Duration::from_secs(100));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null() && number(viewer, "frames_shown") > 2.0 * FPS, "{viewer}");
}

#[test]
fn a_wrong_password_is_told_to_the_viewer_and_in_the_log() {
    let (broker, coturn) = (Broker::start(), Coturn::start());
    let (mut device, http) = device(&broker, &coturn, &["udp", "tcp"], "wrong");
    let report = Probe::start(broker.address, device.id(), &["--seconds", "30"]).report(Duration::from_secs(200));
    let failed = report["per_viewer"][0]["failed"].to_string();
    let words = "it does not take our name and password";
    assert!(
        failed.contains(words) && failed.contains("turn:127.0.0.1"),
        "the viewer learns why: {report}"
    );
    let log = device.process().log();
    assert!(log.contains(words), "{log}");
    let said = log.matches(words).count();
    assert!(
        said <= 4,
        "once for each transport, and with the session's end: {said} times in {log}"
    );
    let told = Scrape::of(http);
    let of = |name: &str| told.value(&format!("{name}{{server=\"{}\"}}", coturn.url("udp")));
    assert!(of("peercam_relay_failures_total") >= 1.0 && of("peercam_relay_up") == 0.0);
}

/// How soon a viewer sees pictures again after coturn is back.
fn restart(transport: &str) {
    let (broker, mut coturn) = (Broker::start(), Coturn::start());
    let (device, http) = device(&broker, &coturn, &[transport], PASSWORD);
    let viewer = Probe::start(broker.address, device.id(), &["--seconds", "60"]);
    let server = coturn.url(transport);
    let seen = |scrape: &Scrape| scrape.value(&format!("peercam_relay_datagrams_sent_total{{server=\"{server}\"}}"));
    until("pictures go through the relay", SOON, || {
        (seen(&Scrape::of(http)) > 2.0 * FPS).then_some(())
    });
    coturn.kill();
    std::thread::sleep(Duration::from_secs(1));
    coturn.run();
    let back = Instant::now();
    until("a new allocation", Duration::from_secs(5), || {
        (Scrape::of(http).value(&format!("peercam_relay_allocations_total{{server=\"{server}\"}}")) == 2.0).then_some(())
    });
    println!("{transport}: a new allocation {:?} after coturn is back", back.elapsed());
    let before = seen(&Scrape::of(http));
    until("pictures come again", Duration::from_secs(5).saturating_sub(back.elapsed()), || {
        (seen(&Scrape::of(http)) > before + 2.0 * FPS).then_some(())
    });
    println!(
        "{transport}: two seconds of pictures were there {:?} after coturn was back",
        back.elapsed()
    );
    std::thread::sleep(Duration::from_secs(8));
    let report = viewer.stop(Duration::from_secs(30));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "the session survives: {viewer}");
    assert!(number(viewer, "frames_shown") > 8.0 * FPS, "the viewer shows them: {viewer}");
}

#[test]
fn a_relay_that_restarts_is_asked_again_over_udp() {
    restart("udp");
}

#[test]
fn a_relay_that_restarts_is_asked_again_over_tcp() {
    restart("tcp");
}
