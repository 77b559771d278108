//! What the broker retains about a device, through its whole life.

mod common;

use std::process::Command;
use std::time::Duration;

use common::broker::Broker;
use common::device::{Device, PEERCAM};
use common::peer::Peer;
use common::probe::Probe;
use common::{SOON, sdp, until};
use rumqttc::PublishOptions;
use serde_json::{Value, json};

/// The promise is two seconds; a loaded machine may take twice as long.
const STOP_TIME: Duration = Duration::from_secs(4);

#[test]
fn the_retained_status_says_online_with_a_boot_id_and_a_rising_number() {
    let broker = Broker::start();
    let mut watcher = Peer::watcher(broker.address);
    let mut device = Device::new(&broker);
    device.start();
    let mut numbers = Vec::new();
    let mut number = |status: &Value| numbers.push(status["seq"].as_u64().expect("a status has a number"));
    let (id, live) = watcher.status("the device goes live", SOON, |status| {
        number(status);
        status["streams"][0]["state"] == "live"
    });
    // Something to tell: a mistake in the configuration, and its end.
    device.configure("nonsense");
    let (_, bad) = watcher.status("the mistake is told", SOON, |status| !status["config_error"].is_null());
    number(&bad);
    device.configure(&device.config());
    let (_, last) = watcher.status("the end of the mistake is told", SOON, |status| status["config_error"].is_null());
    number(&last);
    assert!(
        numbers.len() >= 3 && numbers.is_sorted_by(|a, b| a < b),
        "statuses of one boot are numbered upwards: {numbers:?}"
    );
    assert_eq!((&bad["boot"], &last["boot"]), (&live["boot"], &live["boot"]));
    assert_eq!(live["online"], true);
    assert!(live["boot"].as_str().is_some_and(|boot| boot.len() >= 8), "{live}");
    assert_eq!((&live["version"], &live["name"]), (&json!(1), &json!("porch")));
    assert_eq!(live["streams"][0]["name"], "card");
    assert_eq!(live["software"], env!("CARGO_PKG_VERSION"));

    let mut late = Peer::watcher(broker.address);
    let retained = late
        .hear(SOON, |heard| heard.topic.ends_with("/status").then(|| heard.clone()))
        .expect("the status is retained");
    assert!(retained.retained, "who comes later gets the status from the broker's memory");
    assert_eq!(retained.message, last);
    assert_eq!(retained.topic, format!("peercam/v1/{id}/status"));
}

#[test]
fn a_killed_agent_is_offline_by_its_last_will_and_comes_back_as_another_boot() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let before = device.live(&broker);
    let mut watcher = Peer::watcher(broker.address);
    device.take_process().kill();
    let (id, offline) = watcher.status("the last will says offline", SOON, |status| status["online"] == false);
    assert_eq!(id, device.id());
    assert_eq!(offline["boot"], before["boot"], "the will is of the boot that ended");

    device.start();
    let (id, online) = watcher.status("the restarted agent is online", SOON, |status| status["online"] == true);
    assert_eq!(id, device.id(), "a restart changes no device's id");
    assert_ne!(online["boot"], before["boot"], "a restart is another boot");
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let broker = Broker::start();
    let mut device = Device::new(&broker);
    // Standard error is a pipe whose reader ends at once.
    let mut command = Command::new("bash");
    command
        .args(["-c", r#"exec "$0" run --config "$1" 2> >(:)"#, PEERCAM])
        .arg(device.config_file());
    device.start_as(&mut command);
    device.live(&broker);
    let mut watcher = Peer::watcher(broker.address);
    device.configure("nonsense");
    watcher.status("the mistake is told, and logged", SOON, |status| !status["config_error"].is_null());
    device.process().signal("TERM");
    let ended = device.take_process().end_within(STOP_TIME);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_status_that_the_device_did_not_say_is_contradicted_by_it() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut watcher = Peer::watcher(broker.address);
    let (id, status) = watcher.status("the status is retained", SOON, |status| status["online"] == true);
    let (mut stale, mut other) = (status.clone(), status.clone());
    stale["online"] = json!(false);
    other["name"] = json!("another name");
    for lie in [
        stale.to_string(),
        other.to_string(),
        json!({ "online": false }).to_string(),
        "null".to_owned(),
    ] {
        watcher.publish(
            &format!("peercam/v1/{id}/status"),
            lie.clone(),
            PublishOptions::at_least_once().retained(),
        );
        let lie: Value = serde_json::from_str(&lie).expect("JSON");
        watcher.status("the lie is seen", SOON, |said| *said == lie);
        watcher.status("the device says how it is", SOON, |said| *said == status);
        let (_, retained) = Peer::watcher(broker.address).status("the status is retained", SOON, |_| true);
        assert_eq!(retained, status);
    }
    drop(device);
}

#[test]
fn sigterm_tells_the_viewers_leaves_an_offline_status_and_ends_in_time() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let before = device.live(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let answer = alice
        .call("session.offer", &sdp::offer_params(&hello, &sdp::offer()))
        .expect("the offer is answered");
    let mut watcher = Peer::watcher(broker.address);

    let process = device.take_process();
    process.signal("TERM");
    let ended = process.end_within(SOON);
    println!("SIGTERM to exit: {} ms", ended.took.as_millis());
    assert_eq!(ended.status.code(), Some(0), "an orderly end is no failure");
    assert!(ended.took < STOP_TIME, "it took {:?}", ended.took);
    let close = alice.notification("session.close", SOON).expect("the viewer is told");
    assert_eq!(close["session"], answer["session"]);
    assert!(
        close["reason"].as_str().is_some_and(|reason| reason.contains("shutting down")),
        "{close}"
    );
    let (_, offline) = watcher.status("the status says offline", SOON, |status| status["online"] == false);
    assert_eq!(offline["boot"], before["boot"]);
    assert!(offline["seq"].as_u64() > before["seq"].as_u64(), "{offline} after {before}");
    let (_, retained) = Peer::watcher(broker.address).status("the status is retained", SOON, |_| true);
    assert_eq!(retained["online"], false);
}

#[test]
fn sigterm_tells_a_watching_viewer_over_the_data_channel_even_if_the_broker_hangs() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let probe = Probe::start(broker.address, device.id(), &["--seconds", "30"]);
    until("the viewer is connected", SOON, || {
        device.process().log().contains("viewer connected").then_some(())
    });
    // Its data channel opens a moment later, which can't be seen from outside: the device's own clock says when that is long ago.
    let mut alice = device.peer(broker.address, "alice");
    let mut uptime = || alice.call("system.info", &json!({})).expect("system.info is answered")["uptime_secs"].as_u64();
    let connected = uptime();
    until("the device's clock goes on", SOON, || {
        (uptime() > connected.map(|secs| secs + 1)).then_some(())
    });
    broker.freeze();

    let process = device.take_process();
    process.signal("TERM");
    let ended = process.end_within(SOON);
    println!("SIGTERM to exit with a broker that hangs: {} ms", ended.took.as_millis());
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.took < STOP_TIME, "it took {:?}", ended.took);
    let report = probe.report(SOON);
    let failed = report["per_viewer"][0]["failed"].as_str().unwrap_or_default();
    assert!(
        failed.contains("closed the session") && failed.contains("shutting down"),
        "the viewer learnt: {failed:?}"
    );
    assert_ne!(report["per_viewer"][0]["frames_shown"], Value::from(0));
}
