//! The documented file against the parser, and each mistake against what is said about it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::{Environment, parse_in};
use super::*;

const DOCUMENTED: &str = include_str!("../../config/peercam.toml");

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with every file that the documented configuration names.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for name in [
            "broker-password",
            "turn-credential",
            "turn-secret",
            "turn-ca.pem",
            "broker-ca.pem",
            "client.pem",
            "client-key.pem",
            "recording.h264",
        ] {
            folder.write(name, "hunter2\n", 0o600);
        }
        folder
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        self.parse_in(text, &Environment::default())
    }

    fn parse_in(&self, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
        parse_in(text, &self.0.path().join("peercam.toml"), environment)
    }
}

/// The documented file with every `#key = value` and `#[section]` switched on.
fn switched_on() -> String {
    let setting = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    DOCUMENTED
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| setting(rest)).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The keys that the parser knows below `section`, as it tells them itself when it meets one that it doesn't know.
fn known_keys(section: &str, found: &mut BTreeSet<String>) -> bool {
    for (open, close) in [("[", "]"), ("[[", "]]")] {
        let header = if section.is_empty() {
            String::new()
        } else {
            format!("{open}{section}{close}\n")
        };
        let Err(ConfigError::Invalid(invalid)) = Folder::new().parse(&format!("{header}no-such-key = 1\n")) else {
            continue;
        };
        if invalid.allowed_keys.is_empty() {
            continue;
        }
        for key in &invalid.allowed_keys {
            let path = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            if !known_keys(&path, found) {
                found.insert(path);
            }
        }
        return true;
    }
    false
}

fn keys_of(value: &toml::de::DeValue<'_>, path: &str, found: &mut BTreeSet<String>) {
    match value {
        toml::de::DeValue::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.get_ref().to_string()
                } else {
                    format!("{path}.{}", key.get_ref())
                };
                keys_of(value.get_ref(), &path, found);
            }
        }
        toml::de::DeValue::Array(list) if list.iter().any(|value| value.get_ref().is_table()) => {
            list.iter().for_each(|value| keys_of(value.get_ref(), path, found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_key_is_in_the_documented_file_and_every_documented_key_is_known() {
    let mut known = BTreeSet::new();
    assert!(known_keys("", &mut known));
    assert!(
        known.contains("network.ice_server.credential_file") && known.contains("camera.gop_secs") && known.len() > 25,
        "{known:?}"
    );
    let text = switched_on();
    let document = toml::de::DeTable::parse(&text).expect("TOML with all settings on");
    let mut documented = BTreeSet::new();
    keys_of(&toml::de::DeValue::Table(document.into_inner()), "", &mut documented);
    assert_eq!(documented, known, "left: config/peercam.toml, right: what the parser knows");
}

#[test]
fn the_file_as_shipped_says_the_defaults() {
    let folder = Folder::new();
    assert_eq!(
        folder.parse(DOCUMENTED).expect("the shipped file"),
        folder.parse("").expect("no settings")
    );
}

#[test]
fn the_documented_file_with_everything_switched_on_is_good() {
    let config = Folder::new().parse(&switched_on()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.cameras.len(), 4);
    assert_eq!(config.broker.password.expect("a password").reveal(), "hunter2");
    assert_eq!(
        config.network.ice_servers[0].credential.as_ref().expect("a credential").reveal(),
        "hunter2"
    );
}

#[test]
fn the_defaults_are_those_that_the_documentation_promises() {
    let config = Folder::new().parse("").expect("no settings");
    assert_eq!(config.device.name, "peercam");
    assert_eq!(config.device.state_dir, Path::new("/var/lib/peercam"));
    assert_eq!(config.cameras.len(), 1);
    assert_eq!(config.cameras[0].name, "camera");
    assert_eq!(config.cameras[0].bitrate, crate::media::Bitrate::kbps(2500));
    assert_eq!(config.cameras[0].low, Some(crate::media::Bitrate::kbps(500)));
    assert_eq!(config.broker.url.expect("a broker").to_string(), "tcp://127.0.0.1:1883");
    assert_eq!(
        (config.broker.keep_alive, config.broker.reconnect_max),
        (Duration::from_secs(15), Duration::from_secs(4))
    );
    assert_eq!((config.network.listen, config.network.udp_port), (Listen::Loopback, 8555));
    assert_eq!(config.network.transport_policy, TransportPolicy::All);
    assert_eq!(config.http.listen, Some(([127, 0, 0, 1], 8080).into()));
    assert!(config.http.signaling, "the page is told of no broker");
    assert!(!config.http.whep && config.http.hosts.is_empty());
    assert_eq!((config.limits.viewers.get(), config.log.filter.as_str()), (20, "info"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_low_rung_has_a_fifth_of_the_bit_rate_unless_somebody_says_otherwise() {
    let low = |text: &str| {
        let config = parse(&format!("[[camera]]\n{text}"), Path::new("peercam.toml")).unwrap_or_else(|error| panic!("{error}"));
        config.cameras[0].low.map(|rate| rate.as_bps() / 1000)
    };
    assert_eq!(
        (low(""), low("bitrate_kbps = 4000\n"), low("bitrate_kbps = 300\n")),
        (Some(500), Some(800), Some(150))
    );
    assert_eq!((low("low_kbps = 300\n"), low("low = false\n")), (Some(300), None));
}

/// Text, line, column, and what the message has to say.
const MISTAKES: &[(&str, usize, usize, &str)] = &[
    ("[brokr]\n", 1, 2, "unknown key `brokr`; did you mean `broker`?"),
    ("[broker]\nurll = \"x\"\n", 2, 1, "unknown key `urll`; did you mean `url`?"),
    (
        "[broker]\npassword = \"hunter2\"\n",
        2,
        1,
        "unknown key `password`; did you mean `password_file`?",
    ),
    (
        "[[camera]]\nbitrate = 800\n",
        2,
        1,
        "unknown key `bitrate`; did you mean `bitrate_kbps`?",
    ),
    (
        "horse = 1\n",
        1,
        1,
        "unknown key `horse`; it is misspelt, or it belongs in another section",
    ),
    ("[camera]\nname = \"a\"\n", 1, 1, "double brackets"),
    ("[[device]]\nname = \"a\"\n", 1, 3, "single brackets: [device]"),
    ("device = 5\n", 1, 10, "expected a section that begins with [device], found 5"),
    (
        "[limits]\nviewers = \"20\"\n",
        2,
        11,
        "expected a whole number from 1 to 1000, found the text \"20\"",
    ),
    ("[limits]\nviewers = 0\n", 2, 11, "found 0"),
    ("[limits]\nviewers = 2.5\n", 2, 11, "found 2.5"),
    ("[limits]\nviewers = -1\n", 2, 11, "found -1"),
    ("[limits]\nviewers = 1\nviewers = 2\n", 3, 1, "a second time"),
    ("[log]\nfilter = info\n", 2, 10, "double quotes"),
    ("[log]\nfilter = \"inof\"\n", 2, 10, "\"inof\" is not a level"),
    ("[log\n", 1, 5, "this is not TOML"),
    ("[log]\nfilter = \"info\n", 2, 15, "this is not TOML"),
    ("[[camera]]\nfps = 0\n", 2, 7, "expected a whole number from 1 to 240, found 0"),
    (
        "[[camera]]\nsize = \"1281x720\"\n",
        2,
        8,
        "both numbers must be even, such as \"1282x720\"",
    ),
    ("[[camera]]\nsize = \"720p\"\n", 2, 8, "write width and height in pixels"),
    ("[[camera]]\nsize = \"16x16\"\n", 2, 8, "from 32 to 4096"),
    (
        "[[camera]]\nsource = \"rtsp\"\n",
        2,
        10,
        "write \"v4l2\", \"rpicam\", \"file\" or \"pattern\"",
    ),
    ("[[camera]]\nname = \"Front Door\"\n", 2, 8, "a-z 0-9 - _"),
    (
        "[[camera]]\npath = \"a\"\n",
        2,
        8,
        "belongs to source = \"file\"; this camera has source = \"v4l2\"",
    ),
    ("[[camera]]\nsource = \"file\"\n", 1, 1, "needs the key `path`"),
    ("[[camera]]\nsource = \"pattern\"\ngop_secs = 0\n", 3, 12, "from 0.1 to 60"),
    ("[[camera]]\ndevice = \"video0\"\n", 2, 10, "such as \"/dev/video0\""),
    ("[[camera]]\nencoder = \"x264\"\n", 2, 11, "write \"auto\", \"m2m\" or \"software\""),
    (
        "[[camera]]\nsource = \"pattern\"\noverlay = true\n",
        3,
        11,
        "belongs to source = \"v4l2\" or \"rpicam\"",
    ),
    (
        "[[camera]]\nformat = \"h264\"\noverlay = true\n",
        3,
        11,
        "pictures that come as H.264",
    ),
    ("[[camera]]\nlow = \"no\"\n", 2, 7, "true or false"),
    ("[[camera]]\nlow = false\nlow_kbps = 300\n", 3, 12, "leave one of the two out"),
    (
        "[[camera]]\nbitrate_kbps = 400\nlow_kbps = 400\n",
        3,
        12,
        "less than `bitrate_kbps`, which is 400",
    ),
    (
        "[[camera]]\nsource = \"file\"\npath = \"x\"\nlow = true\n",
        4,
        7,
        "belongs to source",
    ),
    ("[[camera]]\nrotation = 180\n", 2, 12, "belongs to source = \"rpicam\""),
    ("[[camera]]\nsource = \"rpicam\"\nrotation = 90\n", 3, 12, "0 or 180"),
    (
        "[[camera]]\nsource = \"rpicam\"\nsize = \"854x480\"\n",
        3,
        8,
        "multiple of 64; choose one that is, such as 832",
    ),
    ("[[camera]]\nsource = \"rpicam\"\nformat = \"nv12\"\n", 3, 10, "\"yuv420\""),
    (
        "[[camera]]\nsource = \"rpicam\"\ncommand = \"rpicam-vid\"\n",
        3,
        11,
        "with its whole path",
    ),
    (
        "[[camera]]\nsource = \"rpicam\"\nextra = [\"--awb\", \"auto\", \"--wid=640\"]\n",
        3,
        27,
        "--width is set by camera.size; write that",
    ),
    (
        "[[camera]]\nsource = \"rpicam\"\nextra = [\"-t5\"]\n",
        3,
        10,
        "peercam sets --timeout itself",
    ),
    (
        "[[camera]]\nsource = \"rpicam\"\nextra = [\"--list-cameras\"]\n",
        3,
        10,
        "something else",
    ),
    ("camera = []\n", 1, 10, "the list is empty"),
    (
        "[[camera]]\nsource = \"pattern\"\nname = \"a\"\n\n[[camera]]\nname = \"a\"\n",
        6,
        8,
        "two cameras are named `a`, the other one at line 1",
    ),
    (
        "[[camera]]\nname = \"a\"\n[[camera]]\nname = \"b\"\n",
        3,
        1,
        "each needs its own `device`",
    ),
    (
        "[[camera]]\nname = \"a\"\ndevice = \"/dev/video0\"\n[[camera]]\nname = \"b\"\ndevice = \"/dev/video0\"\n",
        6,
        10,
        "has this device already",
    ),
    ("[broker]\nurl = \"localhost\"\n", 2, 7, "write tcp://, tls://, ws:// or wss://"),
    ("[broker]\nurl = \"tcp://me:hunter2@b\"\n", 2, 7, "username and password_file"),
    (
        "[broker]\npassword_file = \"broker-password\"\n",
        2,
        17,
        "a password without a user name",
    ),
    ("[broker]\nusername = \"a\"\npassword_file = \"no\"\n", 3, 17, "there is no file"),
    ("[broker]\nusername = \"a\"\npassword_file = \".\"\n", 3, 17, "is not a file"),
    ("[broker]\nclient_cert_file = \"client.pem\"\n", 2, 20, "add `client_key_file`"),
    ("[broker]\npage_url = \"tcp://b\"\n", 2, 12, "a browser speaks WebSocket only"),
    ("[broker]\nkeep_alive_secs = 1\n", 2, 19, "from 5 to 3600"),
    (
        "[network]\nlisten = \"everything\"\n",
        2,
        10,
        "expected \"loopback\", \"all\" or a list of addresses",
    ),
    ("[network]\nlisten = [\"192.168.1\"]\n", 2, 11, "\"192.168.1\" is not an address"),
    ("[network]\nlisten = [\"0.0.0.0\"]\n", 2, 11, "listen = \"all\""),
    ("[network]\nlisten = []\n", 2, 10, "the list is empty"),
    ("[network]\nudp_port = 70000\n", 2, 12, "from 0 to 65535"),
    ("[network]\nudp_port = 65534\nthreads = 3\n", 3, 11, "there are not 3 from 65534 on"),
    ("network.threads = 17\n", 1, 19, "from 1 to 16"),
    ("[network]\ntcp_port = 65535\nthreads = 2\n", 2, 12, "there are not 2 from 65535 on"),
    ("network.tcp_port = 0\n", 1, 20, "from 1 to 65535"),
    ("network.interfaces = []\n", 1, 22, "the list is empty"),
    ("network.interfaces = \"eth0\"\n", 1, 22, "a list in square brackets"),
    ("network.exclude_interfaces = [\"wg 0\"]\n", 1, 31, "is no interface's name; write"),
    ("network.advertise = []\n", 1, 21, "the list is empty"),
    (
        "network.advertise = [\"home.example.org\"]\n",
        1,
        22,
        "\"home.example.org\" is not an address; write",
    ),
    (
        "network.advertise = [\"127.0.0.1\"]\n",
        1,
        22,
        "no address that leads here from outside",
    ),
    ("network.advertise = [\"203.0.113.7:0\"]\n", 1, 22, "no port that can be reached"),
    (
        "[network]\nadvertise = [\"203.0.113.7\"]\nudp_port = 0\n",
        2,
        13,
        "write one for `udp_port`",
    ),
    (
        "[network]\nadvertise = [\"203.0.113.7:65535\"]\nthreads = 2\n",
        2,
        13,
        "there are not 2 from this one on",
    ),
    ("[network]\ntransport_policy = \"relay\"\n", 2, 20, "add a [[network.ice_server]]"),
    ("[network]\ntransport_policy = \"turn\"\n", 2, 20, "write \"all\" or \"relay\""),
    ("[[network.ice_server]]\nusername = \"a\"\n", 1, 1, "needs the key `urls`"),
    (
        "[[network.ice_server]]\nurls = [\"http://x\"]\n",
        2,
        9,
        "is not a STUN or TURN server",
    ),
    (
        "[[network.ice_server]]\nurls = [\"turn:x\"]\n",
        1,
        1,
        "needs `username` and `credential_file`, or `secret_file`",
    ),
    (
        "[[network.ice_server]]\nurls = [\"turn:x\"]\nusername = \"a\"\ncredential_file = \"turn-credential\"\nsecret_file = \"turn-secret\"\n",
        5,
        15,
        "either a secret or a password",
    ),
    (
        "[network]\ntransport_policy = \"relay\"\n[[network.ice_server]]\nurls = [\"turns:x?transport=udp\"]\n",
        2,
        20,
        "not turns:…?transport=udp",
    ),
    (
        "[[network.ice_server]]\nurls = [\"turn:x\"]\ncredential_file = \"turn-credential\"\n",
        3,
        19,
        "add `username`",
    ),
    (
        "[[network.ice_server]]\nurls = \"stun:x\"\n",
        2,
        8,
        "expected a list in square brackets",
    ),
    ("[network.ice_server]\nurls = [\"stun:x\"]\n", 1, 1, "double brackets"),
    ("[http]\nlisten = \"8080\"\n", 2, 10, "such as \"127.0.0.1:8080\""),
    ("[http]\nwhep = \"yes\"\n", 2, 8, "true or false"),
    (
        "[http]\nhosts = [\"https://cam.example.org\"]\n",
        2,
        10,
        "such as \"cam.example.org\"",
    ),
    ("[http]\nmetrics = true\n", 2, 11, "\"loopback\", \"all\" or \"off\""),
    ("[http]\nmetrics = \"yes\"\n", 2, 11, "write \"loopback\", \"all\" or \"off\""),
    ("[device]\nname = \"\"\n", 2, 8, "a name of 1 to 64 characters"),
    ("[device]\nstate_dir = \"state\"\n", 2, 13, "its whole path"),
];

#[test]
fn every_mistake_is_shown_where_it_is_with_what_is_allowed() {
    let folder = Folder::new();
    for (text, line, column, says) in MISTAKES {
        let error = folder.parse(text).expect_err(text);
        println!("{error}\n");
        let shown = error.to_string();
        let ConfigError::Invalid(invalid) = error else {
            panic!("{text}: {shown}")
        };
        assert_eq!((invalid.line, invalid.column), (*line, *column), "{text}\n{shown}");
        assert!(invalid.message.contains(says), "{text}: says {:?}, not {says:?}", invalid.message);
        assert!(shown.contains('^') && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn arguments_of_rpicam_vid_that_are_not_ours_are_passed_on() {
    let text = "[[camera]]\nsource = \"rpicam\"\nextra = [\"--awb\", \"custom\", \"--ev\", \"-0.5\", \"--camera\", \"1\"]\ngop_secs = 1\n";
    let config = Folder::new().parse(text).unwrap_or_else(|error| panic!("{error}"));
    let Source::Rpicam(rpicam) = &config.cameras[0].source else {
        panic!("{:?}", config.cameras)
    };
    assert_eq!(rpicam.extra, ["--awb", "custom", "--ev", "-0.5", "--camera", "1"]);
    assert_eq!(rpicam.encoding.gop, Duration::from_secs(1));
    assert!(!rpicam.own_h264 && rpicam.command.is_none());
}

#[test]
fn what_may_surprise_is_a_warning() {
    let folder = Folder::new();
    folder.write("open-password", "hunter2", 0o644);
    for (text, says) in [
        ("network.listen = \"all\"", "everybody on your network"),
        ("network.listen = [\"127.0.0.1\", \"192.168.1.2\"]", "everybody on your network"),
        ("http.listen = \"0.0.0.0:80\"", "served unencrypted"),
        ("http.listen = \"0.0.0.0:80\"\nbroker.url = \"off\"", "can watch, without a broker"),
        ("http.listen = \"0.0.0.0:80\"\nhttp.metrics = \"all\"", "when somebody watches"),
        ("broker.url = \"tcp://broker.example\"", "not encrypted"),
        ("[network]\ninterfaces = [\"eth0\"]", "line 2: network.interfaces is not used"),
        (
            "[network]\nexclude_interfaces = [\"eth0\"]",
            "network.exclude_interfaces is not used",
        ),
        (
            "[network]\nadvertise = [\"203.0.113.7\"]",
            "line 2: network.advertise is not used, because network.listen",
        ),
        (
            "[[network.ice_server]]\nusername = \"u\"\ncredential_file = \"turn-credential\"\n\
             urls = [\"turn:a\", \"turn:b\", \"turn:c\", \"turn:d\", \"turn:e\", \"turn:f\", \"turn:g\", \"turn:h\", \"turn:i\"]",
            "there are 9 URLs of TURN servers; viewers are told of all, this device itself uses the first 8",
        ),
        ("[broker]\nca_file = \"broker-ca.pem\"", "line 2: broker.ca_file is not used"),
        (
            "[broker]\nusername = \"a\"\npassword_file = \"open-password\"",
            "line 3: every user of this machine can read",
        ),
    ] {
        let config = folder.parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings.len(), 1, "{text}: {:?}", config.warnings);
        assert!(config.warnings[0].contains(says), "{text}: {:?}", config.warnings);
    }
    let open = folder.parse("http.listen = \"[::]:80\"\nhttp.whep = true").expect("it is allowed");
    let loud = open
        .warnings
        .iter()
        .any(|warning| warning.contains("http.whep = true on [::]:80: everybody"));
    assert!(loud, "{:?}", open.warnings);
    for text in [
        "http.whep = true",
        "network.listen = [\"::1\"]",
        "broker.url = \"tls://broker.example\"",
        "broker.url = \"tcp://localhost\"",
    ] {
        let config = folder.parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn http_is_no_way_around_a_broker_that_the_page_has() {
    let folder = Folder::new();
    for (text, signaling) in [
        ("", true),
        ("http.listen = \"0.0.0.0:80\"", false),
        ("http.listen = \"0.0.0.0:80\"\nbroker.url = \"off\"", true),
        ("broker.page_url = \"ws://127.0.0.1:9001\"", false),
        ("broker.page_url = \"ws://127.0.0.1:9001\"\nbroker.url = \"off\"", true),
        ("broker.page_url = \"ws://127.0.0.1:9001\"\nhttp.signaling = true", true),
        ("broker.url = \"off\"\nhttp.signaling = false", false),
    ] {
        assert_eq!(folder.parse(text).expect(text).http.signaling, signaling, "{text}");
    }
}

#[test]
fn secrets_come_from_systemd_credentials_where_no_file_is_named() {
    let folder = Folder::new();
    folder.write("broker-password", "from-systemd\r\n", 0o400);
    let environment = Environment {
        host_name: Some("front-door.lan\n".to_owned()),
        state_directory: Some("/run/a:/run/b".into()),
        credentials_dir: Some(folder.0.path().to_owned()),
    };
    let config = folder.parse_in("broker.username = \"cam\"", &environment).expect("good");
    assert_eq!(config.broker.password.expect("a password").reveal(), "from-systemd");
    assert_eq!(
        (config.device.name.as_str(), config.device.state_dir.as_path()),
        ("front-door", Path::new("/run/a"))
    );

    let turn = "[[network.ice_server]]\nurls = [\"turn:t\"]\nusername = \"u\"\n";
    let config = folder.parse_in(turn, &environment).expect("good");
    assert_eq!(
        config.network.ice_servers[0].credential.as_ref().expect("a credential").reveal(),
        "hunter2"
    );
    assert!(
        config.warnings[0].contains("`broker-password` is not used"),
        "{:?}",
        config.warnings
    );
    assert!(!format!("{config:?}").contains("hunter2"), "a secret shows in debug output");
}

#[test]
fn files_that_are_no_password_are_refused() {
    let folder = Folder::new();
    for (content, says) in [("", "is empty"), ("\n", "is empty"), ("a\nb\n", "more than one line")] {
        folder.write("pw", content, 0o600);
        let error = folder
            .parse("[broker]\nusername = \"a\"\npassword_file = \"pw\"")
            .expect_err(content);
        assert!(error.summary().contains(says), "{error}");
    }
    folder.write("pw", &"x".repeat(70_000), 0o600);
    let error = folder
        .parse("[broker]\nusername = \"a\"\npassword_file = \"pw\"")
        .expect_err("a large file");
    assert!(error.summary().contains("larger than 64 KiB"), "{error}");
}

#[test]
fn what_is_no_configuration_file_is_refused_with_advice() {
    let folder = Folder::new();
    let path = folder.0.path().join("no-such.toml");
    assert!(
        load(&path)
            .expect_err("no file")
            .to_string()
            .contains("copy config/peercam.toml there")
    );
    let path = folder.write("large", &"#".repeat(MAX_BYTES as usize + 1), 0o600);
    assert!(matches!(load(&path), Err(ConfigError::TooLarge { .. })));
    fs::write(&path, [0xff, 0xfe]).expect("a file");
    assert!(matches!(load(&path), Err(ConfigError::NotText { .. })));
    assert!(
        load(folder.0.path())
            .expect_err("a folder")
            .to_string()
            .contains("name the file in it")
    );
}

#[test]
fn check_tells_what_will_run_and_what_may_surprise() {
    let folder = Folder::new();
    let path = folder.write("a.toml", "network.listen = \"all\"\n[[camera]]\nsource = \"pattern\"\n", 0o600);
    let (text, good) = check_report(&path);
    println!("{text}");
    assert!(good);
    for says in [
        "a test card, 1280x720, 30 pictures a second, a key frame every 4 s",
        "tcp://127.0.0.1:1883",
        "UDP port 8555 on all addresses",
        "http://127.0.0.1:8080/",
        "Warning: network.listen = \"all\"",
    ] {
        assert!(text.contains(says), "{says} is missing in:\n{text}");
    }
    let network = "[network]\nlisten = \"all\"\ninterfaces = [\"eth*\"]\nexclude_interfaces = [\"eth1\"]\ntcp_port = 8555\nthreads = 2\n\
                   advertise = [\"203.0.113.7\", \"[2001:db8::7]:5000\"]\n";
    let (text, good) = check_report(&folder.write("n.toml", network, 0o600));
    assert!(good, "{text}");
    for says in [
        "UDP ports 8555 to 8556 on the addresses of eth* but those of eth1",
        "TCP ports 8555 to 8556, where a viewer's network lets no UDP through",
        "by a router, from UDP 203.0.113.7:8555, [2001:db8::7]:5000",
    ] {
        assert!(text.contains(says), "{says} is missing in:\n{text}");
    }
    let path = folder.write("b.toml", "[brokr]\n", 0o600);
    let (text, good) = check_report(&path);
    assert!(
        !good && text.contains("b.toml:1:2: unknown key `brokr`; did you mean `broker`?"),
        "{text}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[{1,2}(device|camera|broker|network|x)\\]{1,2}|(url|fps|name|listen|ü) = (\"[^\n]{0,9}|1e9|\\[|\\{)|\n|\r|.){0,12}") {
        if let Err(error) = Folder(tempfile::tempdir().expect("a folder")).parse(&text) {
            proptest::prop_assert!(error.to_string().contains('^'));
        }
    }
}
