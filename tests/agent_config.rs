//! The configuration while the agent runs, and when it starts.

mod common;

use common::SOON;
use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::Peer;
use serde_json::{Value, json};

/// A mistake in line 4 of [`Device::config`].
fn broken(device: &Device) -> String {
    device.config().replace("limits.viewers = 20", "limits.viewers = 0")
}

fn says_where(error: &Value) -> bool {
    error
        .as_str()
        .is_some_and(|error| error.contains("peercam.toml:4:18") && error.contains("found 0"))
}

#[test]
fn a_bad_file_changes_nothing_but_is_told_until_it_is_mended() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let before = device.live(&broker);
    assert!(before.get("config_error").is_none(), "{before}");
    let mut watcher = Peer::watcher(broker.address);
    let mut alice = device.peer(broker.address, "alice");

    device.configure(&broken(&device));
    let (_, bad) = watcher.status("the status tells the mistake", SOON, |status| !status["config_error"].is_null());
    assert!(says_where(&bad["config_error"]), "{bad}");
    assert_eq!(
        (&bad["boot"], &bad["online"]),
        (&before["boot"], &json!(true)),
        "it goes on as before"
    );
    assert_eq!(bad["streams"][0]["state"], "live");
    assert_eq!(alice.hello()["limits"]["viewers"], 20, "the last good configuration is in force");
    let info = alice.call("system.info", &json!({})).expect("system.info is answered");
    assert!(says_where(&info["config_error"]), "{info}");
    let log = device.process().log();
    assert!(
        log.contains("limits.viewers = 0") && log.lines().any(|line| line.trim_matches([' ', '|']).starts_with('^')),
        "the log shows the place:\n{log}"
    );

    device.configure(&device.config());
    let (_, mended) = watcher.status("the mended file is taken", SOON, |status| status.get("config_error").is_none());
    assert_eq!(
        mended["boot"], before["boot"],
        "mended to what is in force it is no reason to start anew"
    );
    assert!(
        alice
            .call("system.info", &json!({}))
            .expect("system.info is answered")
            .get("config_error")
            .is_none()
    );
}

#[test]
fn a_file_that_is_empty_for_a_while_takes_nothing_away() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let before = device.live(&broker);
    let mut watcher = Peer::watcher(broker.address);
    device.configure("");
    let (id, status) = watcher.status("the status tells that it is empty", SOON, |status| {
        status["config_error"].as_str().is_some_and(|error| error.contains("is empty"))
    });
    assert_eq!(
        (&id[..], &status["boot"]),
        (device.id(), &before["boot"]),
        "the device stays who it is"
    );
    device.configure(&device.config());
    watcher.status("it is written again", SOON, |status| {
        status.get("config_error").is_none() && status["boot"] == before["boot"]
    });
}

#[test]
fn a_good_change_is_taken_without_a_restart_of_the_process() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let mut watcher = Peer::watcher(broker.address);
    device.settings = Settings {
        name: "garden",
        viewers: 3,
        broker: broker.url(),
        ..Settings::default()
    };
    device.configure(&device.config());
    let (id, status) = watcher.status("the new name is shown", SOON, |status| {
        status["name"] == "garden" && status["streams"][0]["state"] == "live"
    });
    assert_eq!((&id[..], &status["online"]), (device.id(), &json!(true)));
    assert!(device.process().is_alive());
    let hello = device.peer(broker.address, "alice").hello();
    assert_eq!(
        (&hello["device"]["name"], &hello["limits"]["viewers"]),
        (&json!("garden"), &json!(3))
    );
}

#[test]
fn a_start_with_a_bad_file_runs_the_last_good_one_and_says_so() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    device.take_process().kill();
    device.configure(&broken(&device));
    device.start();
    let mut watcher = Peer::watcher(broker.address);
    let (_, status) = watcher.status("the status tells the mistake", SOON, |status| {
        status["online"] == true && status["streams"][0]["state"] == "live" && !status["config_error"].is_null()
    });
    assert!(says_where(&status["config_error"]), "{status}");
    assert_eq!(device.peer(broker.address, "alice").hello()["limits"]["viewers"], 20);
}

#[test]
fn a_first_start_with_a_bad_file_ends_with_the_place_and_the_reason() {
    let mut device = Device::with(Settings {
        broker: "tcp://127.0.0.1:1".to_owned(),
        ..Settings::default()
    });
    device.configure(&broken(&device));
    device.start();
    let ended = device.take_process().end_within(SOON);
    assert_eq!(ended.status.code(), Some(1));
    assert!(says_where(&json!(ended.log)), "{}", ended.log);
}

#[test]
fn a_configuration_that_can_not_run_is_not_kept_and_the_last_one_that_ran_starts_again() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let bad = device
        .config()
        .replace("http.listen = \"off\"", &format!("http.listen = \"127.0.0.1:{port}\""));
    assert_ne!(bad, device.config());
    device.configure(&bad);
    device.process().signal("HUP");
    let mut watcher = Peer::watcher(broker.address);
    let why = |status: &Value| {
        status["config_error"]
            .as_str()
            .is_some_and(|why| why.contains("is the port taken?"))
    };
    let (_, first) = watcher.status("the status tells why", SOON, |status| {
        why(status) && status["streams"][0]["state"] == "live"
    });
    // A power cut.
    device.take_process().kill();
    device.start();
    watcher.status("it runs again, and tells why", SOON, |status| {
        status["boot"] != first["boot"] && status["streams"][0]["state"] == "live" && why(status)
    });
}
