//! The broker that deploy/mosquitto sets up: agent, viewers and probe work with it, and nobody hears what is not theirs.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::{Peer, request};
use common::probe::Probe;
use common::{SOON, free_port, until};
use rumqttc::PublishOptions;
use serde_json::json;
use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery staple";

/// The files of deploy/mosquitto in a folder of the test's own, with other ports and its own accounts.
struct Deployed {
    folder: TempDir,
    broker: Broker,
    web_port: u16,
}

impl Deployed {
    fn with_accounts(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mosquitto");
        fs::copy(source.join("peercam.acl"), folder.path().join("peercam.acl")).expect("the access list");
        for (number, name) in names.iter().enumerate() {
            let mut command = Command::new("mosquitto_passwd");
            command.arg("-b").args((number == 0).then_some("-c"));
            command.arg(folder.path().join("peercam.passwd")).args([name, PASSWORD]);
            assert!(
                command.status().is_ok_and(|status| status.success()),
                "mosquitto_passwd makes an account"
            );
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let web_port = free_port();
        let mut config = fs::read_to_string(source.join("peercam.conf")).expect("the broker's configuration");
        for (shipped, here) in [
            ("\nlistener 1883 127.0.0.1\n", format!("\nlistener {} 127.0.0.1\n", address.port())),
            ("\nlistener 9001\n", format!("\nlistener {web_port} 127.0.0.1\n")),
            (" /etc/mosquitto/peercam.", format!(" {}/peercam.", folder.path().display())),
        ] {
            assert!(config.contains(shipped), "deploy/mosquitto/peercam.conf has no {shipped:?}");
            config = config.replace(shipped, &here);
        }
        let mut broker = Broker::with(address, &format!("user root\n{config}"));
        broker.run();
        Self { folder, broker, web_port }
    }

    fn password_file(&self) -> PathBuf {
        let file = self.folder.path().join("password");
        fs::write(&file, PASSWORD).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&file, mode).expect("a file's mode");
        file
    }

    /// Lets the device come by `url`, as the user `name`.
    fn admit(&self, device: &mut Device, url: String, name: &str) {
        device.settings.broker = url;
        let account = format!(
            "broker.username = \"{name}\"\nbroker.password_file = \"{}\"\n",
            self.password_file().display()
        );
        device.configure(&(account + &device.config()));
        device.start();
    }

    /// A viewer who has logged in.
    fn viewer(&self, device: &str, peer: &str, user: &str) -> Peer {
        Peer::log_in(self.broker.address, device, peer, (user, PASSWORD))
    }
}

/// Waits, as a viewer, for a live picture.
fn is_live(viewer: &mut Peer) {
    viewer.status("the device is online with a live picture", SOON, |status| {
        status["online"] == true && status["streams"][0]["state"] == "live"
    });
}

/// The id that a device shows at its first start, before it has an account anywhere.
fn first_start() -> (Device, String) {
    let mut device = Device::with(Settings {
        broker: "off".to_owned(),
        ..Settings::default()
    });
    device.start();
    let id = until("the log shows the device's id", SOON, || {
        let log = device.process().log();
        let line = log.lines().find(|line| line.contains("peercam runs"))?;
        let id = line.split_once("device=")?.1;
        Some(id.split_whitespace().next().unwrap_or_default().to_owned())
    });
    device.take_process().kill();
    (device, id)
}

#[test]
fn agent_viewers_and_probe_work_and_nobody_hears_or_says_what_is_not_theirs() {
    let (mut device, id) = first_start();
    let deployed = Deployed::with_accounts(&[&id, "ada", "mallory"]);
    deployed.admit(&mut device, deployed.broker.url(), &id);
    let mut alice = deployed.viewer(&id, "alice", "ada");
    alice.subscribe("peercam/v1/+/status");
    is_live(&mut alice);
    alice.hello();

    let password = deployed.password_file();
    let arguments = [
        "--seconds",
        "2",
        "--username",
        "ada",
        "--password-file",
        &password.to_string_lossy(),
    ];
    let report = Probe::start(deployed.broker.address, &id, &arguments).report(SOON);
    let viewer = &report["per_viewer"][0];
    assert!(
        viewer["failed"].is_null() && viewer["frames_shown"].as_u64() > Some(10),
        "the probe sees the picture: {viewer}"
    );

    // Mallory may log in too, and tries to read along; so does one who comes with a wildcard for a name.
    let mut mallory = deployed.viewer(&id, "mallory", "mallory");
    let mut wildcard = deployed.viewer(&id, "+", "mallory");
    for spy in [&mut mallory, &mut wildcard] {
        for filter in ["#", "peercam/v1/+/to/#", "peercam/v1/+/from/+"] {
            spy.subscribe(filter);
        }
        spy.subscribe(&alice.to_topic());
    }
    alice.hello();
    mallory.hello();

    // And to speak for others: for Alice, and for the device.
    let forged = request(&json!("forged"), "session.hello", &json!({ "version": 1 }));
    mallory.publish(&alice.request_topic(), forged.to_string(), PublishOptions::at_least_once());
    mallory.publish(&alice.to_topic(), forged.to_string(), PublishOptions::at_least_once());
    let status = format!("peercam/v1/{id}/status");
    mallory.publish(&status, r#"{"forged":true}"#, PublishOptions::at_least_once().retained());
    // Once this is answered the broker has dealt with what was before it.
    mallory.hello();
    alice.hello();
    let heard = alice.hear(std::time::Duration::ZERO, |heard| {
        let forged = heard.message["id"] == "forged" || heard.message["forged"] == true;
        forged.then(|| heard.clone())
    });
    assert!(heard.is_none(), "Mallory spoke for somebody else: {heard:?}");

    for (name, spy, own) in [
        ("mallory", &mut mallory, format!("peercam/v1/{id}/to/mallory")),
        ("+", &mut wildcard, String::new()),
    ] {
        // The grant of a subscription comes behind all that the broker had for this client before.
        spy.subscribe("done");
        let heard = spy.hear(std::time::Duration::ZERO, |heard| {
            (heard.topic != own && heard.topic != status).then(|| heard.topic.clone())
        });
        assert!(heard.is_none(), "the client {name:?} reads along: {heard:?}");
    }

    device.take_process().kill();
    alice.status("the device is gone", SOON, |status| status["online"] == false);
    deployed.admit(&mut device, format!("ws://127.0.0.1:{}", deployed.web_port), &id);
    is_live(&mut alice);
    alice.hello();
}

#[test]
fn without_a_name_nobody_is_let_in() {
    let deployed = Deployed::with_accounts(&["ada"]);
    let mut device = Device::new(&deployed.broker);
    device.start();
    until("the log says what is missing", SOON, || {
        let log = device.process().log();
        log.contains("set broker.username and broker.password_file").then_some(())
    });
}
