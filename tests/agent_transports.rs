//! Every way to a broker: TLS, client certificates, WebSocket, accounts. And what the log says while the way is barred.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::broker::Broker;
use common::certificates::Certificates;
use common::device::{Device, Settings};
use common::{SOON, free_port, until};

/// Where the agent is meant to come in. Viewers have a listener of their own at the same broker.
struct Door {
    broker: Broker,
    port: u16,
}

impl Door {
    /// A broker that lets the agent in as `listener` says: lines of mosquitto's configuration.
    fn open(listener: &str) -> Self {
        Self::at("127.0.0.1", listener)
    }

    fn at(host: &str, listener: &str) -> Self {
        let viewers = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let port = free_port();
        let config = format!(
            "per_listener_settings true\npersistence false\nuser root\n\
             listener {port} {host}\n{listener}\n\
             listener {} {}\nallow_anonymous true\n",
            viewers.port(),
            viewers.ip()
        );
        let mut broker = Broker::with(viewers, &config);
        broker.run();
        Self { broker, port }
    }

    /// A device that comes by `scheme` to `host`, with `keys` of the section `[broker]`.
    fn device(&self, scheme: &str, host: &str, keys: &[(&str, &Path)]) -> Device {
        let mut device = Device::with(Settings {
            broker: format!("{scheme}://{host}:{}", self.port),
            ..Settings::default()
        });
        let keys: String = keys
            .iter()
            .map(|(key, value)| format!("broker.{key} = \"{}\"\n", value.display()))
            .collect();
        device.configure(&(keys + &device.config()));
        device.start();
        device
    }

    /// The device is there, and a viewer's request reaches it.
    fn is_passed_by(&self, device: &mut Device) {
        device.live(&self.broker);
        device.peer(self.broker.address, "alice").hello();
    }
}

/// The lines of the log that tell of trouble with the broker.
fn complaints(device: &mut Device) -> Vec<String> {
    let log = device.process().log();
    log.lines()
        .filter(|line| line.contains("no connection to the broker"))
        .map(str::to_owned)
        .collect()
}

/// The log names the broker and the reason.
fn complains(device: &mut Device, reason: &str) {
    let complaint = until(&format!("the log says: {reason}"), SOON, || {
        complaints(device).into_iter().find(|line| line.contains(reason))
    });
    let broker = device.settings.broker.clone();
    assert!(complaint.contains(&broker), "{broker} is not named: {complaint}");
}

/// SIGTERM ends it at once and well, barred as it is.
fn ends(mut device: Device) {
    device.process().signal("TERM");
    let ended = device.take_process().end_within(SOON);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert!(ended.took < Duration::from_secs(2), "it took {:?}", ended.took);
}

fn tls_listener(certificates: &Certificates) -> String {
    let [authority, certificate, key] = ["authority.pem", "server.pem", "server.key"].map(|name| certificates.file(name));
    format!(
        "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}",
        authority.display(),
        certificate.display(),
        key.display()
    )
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let certificates = Certificates::new();
    let door = Door::open(&tls_listener(&certificates));
    for host in ["127.0.0.1", "localhost"] {
        let mut device = door.device("tls", host, &[("ca_file", &certificates.file("authority.pem"))]);
        door.is_passed_by(&mut device);
        ends(device);
    }
}

#[test]
fn tls_with_a_client_certificate_and_a_sentence_where_it_is_missing() {
    let certificates = Certificates::new();
    let door = Door::open(&(tls_listener(&certificates) + "\nrequire_certificate true"));
    let authority = certificates.file("authority.pem");
    let ours = [
        ("ca_file", &*authority),
        ("client_cert_file", &certificates.file("client.pem")),
        ("client_key_file", &certificates.file("client.key")),
    ];
    let mut device = door.device("tls", "127.0.0.1", &ours);
    door.is_passed_by(&mut device);
    ends(device);

    let mut barred = door.device("tls", "127.0.0.1", &ours[..1]);
    complains(&mut barred, "client certificate");
    ends(barred);
}

#[test]
fn websocket() {
    let door = Door::open("protocol websockets\nallow_anonymous true");
    let mut device = door.device("ws", "127.0.0.1", &[]);
    door.is_passed_by(&mut device);
    ends(device);
}

#[test]
fn websocket_within_tls() {
    let certificates = Certificates::new();
    let door = Door::open(&("protocol websockets\n".to_owned() + &tls_listener(&certificates)));
    let mut device = door.device("wss", "localhost", &[("ca_file", &certificates.file("authority.pem"))]);
    door.is_passed_by(&mut device);
    ends(device);

    let stranger = Certificates::new();
    let mut barred = door.device("wss", "localhost", &[("ca_file", &stranger.file("authority.pem"))]);
    complains(&mut barred, "certificate is not trusted");
    ends(barred);
}

#[test]
fn a_certificate_of_another_authority_is_refused_until_the_broker_has_the_right_one() {
    let (right, wrong) = (Certificates::new(), Certificates::new());
    let mut door = Door::open(&tls_listener(&wrong));
    let mut device = door.device("tls", "127.0.0.1", &[("ca_file", &right.file("authority.pem"))]);
    complains(&mut device, "certificate is not trusted");
    complains(&mut device, &right.file("authority.pem").to_string_lossy());
    for name in ["authority.pem", "server.pem", "server.key"] {
        fs::copy(right.file(name), wrong.file(name)).expect("a file");
    }
    door.broker.kill();
    door.broker.run();
    door.is_passed_by(&mut device);
    ends(device);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let certificates = Certificates::new();
    let door = Door::at("127.0.0.2", &tls_listener(&certificates));
    let mut device = door.device("tls", "127.0.0.2", &[("ca_file", &certificates.file("authority.pem"))]);
    complains(&mut device, "certificate is not for 127.0.0.2");
    ends(device);
}

#[test]
fn a_wrong_scheme_is_told_for_what_it_is() {
    let certificates = Certificates::new();
    let authority = certificates.file("authority.pem");
    let plain = Door::open("allow_anonymous true");
    let encrypted = Door::open(&tls_listener(&certificates));
    let web = Door::open("protocol websockets\nallow_anonymous true");
    for (door, scheme, reason) in [
        (&plain, "ws", "broker.url"),
        (&encrypted, "tcp", "scheme of broker.url"),
        (&web, "tls", "TLS at this port"),
        (&web, "tcp", "scheme of broker.url"),
    ] {
        let keys = [("ca_file", &*authority)];
        let mut device = door.device(scheme, "127.0.0.1", if scheme == "tls" { &keys } else { &[] });
        complains(&mut device, reason);
        ends(device);
    }
}

#[test]
fn a_wrong_password_is_told_once_and_the_right_one_lets_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let (accounts, password) = (folder.path().join("accounts"), folder.path().join("password"));
    let account = |password: &str| {
        let mut command = Command::new("mosquitto_passwd");
        let command = command.args(["-b", "-c"]).arg(&accounts).args(["porch", password]);
        assert!(
            command.status().is_ok_and(|status| status.success()),
            "mosquitto_passwd makes an account"
        );
    };
    account("another");
    fs::write(&password, "the-right-one\n").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&password, mode).expect("a file's mode");
    let door = Door::open(&format!("allow_anonymous false\npassword_file {}", accounts.display()));

    let mut nobody = door.device("tcp", "127.0.0.1", &[]);
    complains(&mut nobody, "set broker.username and broker.password_file");
    ends(nobody);

    let keys = [("username", Path::new("porch")), ("password_file", &password)];
    let mut device = door.device("tcp", "127.0.0.1", &keys);
    complains(&mut device, "wrong user name or password");
    until("mosquitto saw the third try", SOON, || {
        // The first was of the one without a name.
        (door.broker.log().matches("not authorised").count() >= 4).then_some(())
    });
    assert_eq!(
        complaints(&mut device).len(),
        1,
        "the same trouble is told once:\n{}",
        device.process().log()
    );
    let log = device.process().log();
    assert!(!log.contains("the-right-one"), "the password is in the log:\n{log}");
    account("the-right-one");
    door.broker.reload();
    door.is_passed_by(&mut device);
    ends(device);
}
