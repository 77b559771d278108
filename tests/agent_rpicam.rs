//! A camera that `rpicam-vid` runs, as its viewers see it: a stand-in (tests/rpicam-vid-stand-in) takes the program's place.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::Device;
use common::film::noise;
use common::peer::Peer;
use common::probe::Probe;
use common::rpicam::stand_in;
use common::scrape::Scrape;
use common::{SOON, free_port, until};
use peercam::encode::{Colour, Settings, SoftwareEncoder};
use peercam::media::{Bitrate, MediaTime, RawFrame};
use serde_json::{Value, json};

/// A device whose camera is a stand-in of its own, in a mode of `rpicam-vid-stand-in`.
struct Camera {
    device: Device,
    program: PathBuf,
}

impl Camera {
    /// The agent does not run yet.
    fn new(broker: &Broker, mode: &str, more: &str) -> Self {
        let device = Device::new(broker);
        let program = stand_in(device.file("rpicam-vid-stand-in"));
        let source = format!(
            "source = \"rpicam\"\ncommand = \"{}\"\nencoder = \"software\"\nidle = \"run\"",
            program.display()
        );
        let config = device.config().replace("source = \"pattern\"", &source);
        device.configure(&format!("{config}{more}"));
        let camera = Self { device, program };
        camera.mode(mode);
        camera
    }

    /// From its next start on.
    fn mode(&self, mode: &str) {
        // Whole at once: it may be starting just now.
        let (new, file) = (self.beside("new"), self.beside("mode"));
        fs::write(&new, mode).and_then(|()| fs::rename(new, file)).expect("a file");
    }

    fn beside(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{}.{ending}", self.program.display()))
    }

    /// Process id and arguments of each start.
    fn runs(&self) -> Vec<(u32, String)> {
        let text = fs::read_to_string(self.beside("runs")).unwrap_or_default();
        let runs = text.lines().filter_map(|line| line.split_once(' '));
        runs.map(|(id, arguments)| (id.parse().expect("a process id"), arguments.to_owned()))
            .collect()
    }

    /// Processes of every start that live, or are zombies; also what the stand-in has started itself, which is in its group.
    fn left_over(&self) -> Vec<String> {
        let groups: Vec<String> = self.runs().iter().map(|(id, _)| id.to_string()).collect();
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
        // "ID (NAME) STATE PARENT GROUP …"
        stats
            .filter(|stat| {
                let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                let [state, parent, group] = rest.splitn(4, ' ').take(3).collect::<Vec<_>>()[..] else {
                    return false;
                };
                // What a shell that was killed has left dead is for init to bury.
                groups.iter().any(|known| known == group) && (state, parent) != ("Z", "1")
            })
            .collect()
    }

    /// What was killed needs a moment to be gone.
    fn leaves_nothing(&self) {
        until("no program is left behind", SOON, || self.left_over().is_empty().then_some(()));
    }

    /// SIGTERM to the agent, which has to end in time.
    fn stop(&mut self) {
        let agent = self.device.take_process();
        agent.signal("TERM");
        let ended = agent.end_within(SOON);
        println!("the agent has ended after {:?}", ended.took);
        assert!(ended.status.success(), "{ended:?}");
    }

    fn status(&self, broker: &Broker, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let mut watcher = Peer::watcher(broker.address);
        watcher
            .status(what, SOON, |status| status["online"] == true && test(&status["streams"][0]))
            .1
    }
}

/// A viewer watched for some seconds: the report.
fn watch(broker: &Broker, device: &str, seconds: &str) -> Value {
    let report = Probe::start(broker.address, device, &["--seconds", seconds]).report(SOON * 3);
    let viewer = report["per_viewer"][0].clone();
    assert!(viewer["failed"].is_null(), "{viewer}");
    viewer
}

fn shown(viewer: &Value) -> u64 {
    viewer["frames_shown"].as_u64().expect("a number")
}

#[test]
fn its_raw_pictures_are_seen_and_it_ends_with_the_agent() {
    let broker = Broker::start();
    let mut camera = Camera::new(
        &broker,
        "good",
        "rotation = 180\nhflip = true\noverlay = true\nextra = [\"--awb\", \"daylight\"]\n",
    );
    camera.device.start();
    camera.device.live(&broker);
    let viewer = watch(&broker, camera.device.id(), "3");
    assert!(shown(&viewer) > 10, "{viewer}");
    assert_eq!(viewer["frames_undecodable"], 0, "{viewer}");
    let runs = camera.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    for argument in [
        "--width 320 --height 240 --framerate 15 --timeout 0",
        "--codec yuv420",
        "--rotation 180",
        "--hflip",
        "--output - --awb daylight",
    ] {
        assert!(runs[0].1.contains(argument), "{argument} is not in {}", runs[0].1);
    }
    assert!(!camera.left_over().is_empty(), "it runs");
    camera.stop();
    camera.leaves_nothing();
}

#[test]
fn what_it_complains_of_is_what_the_user_reads_and_the_picture_comes_when_there_is_a_camera() {
    let broker = Broker::start();
    let mut camera = Camera::new(&broker, "none", "");
    camera.device.start();
    let status = camera.status(&broker, "the camera is lost", |stream| stream["state"] == "lost");
    let reason = status["streams"][0]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("ERROR: *** no cameras available ***"), "{reason}");
    assert!(reason.contains("rpicam-vid-stand-in") && reason.contains("255"), "{reason}");
    until("it is started again and again", SOON, || (camera.runs().len() > 2).then_some(()));
    let encoders = |log: &str| log.matches("software encoder started").count();
    assert_eq!(encoders(&camera.device.process().log()), 0, "an encoder was opened for no camera");
    camera.mode("slow");
    camera.device.live(&broker);
    assert_eq!(encoders(&camera.device.process().log()), 1, "one encoder, with the first picture");
    assert!(shown(&watch(&broker, camera.device.id(), "2")) > 5);
    // No zombies of the many that have failed.
    assert!(camera.runs().len() > 1);
    let last = camera.runs().last().expect("a run").0.to_string();
    let others: Vec<_> = camera.left_over().into_iter().filter(|stat| !stat.contains(&last)).collect();
    assert_eq!(others, [""; 0], "only the last run is left");
}

#[test]
fn a_viewer_keeps_the_picture_when_it_ends_in_the_middle_of_one_and_when_it_stalls() {
    let broker = Broker::start();
    let mut camera = Camera::new(&broker, "good", "");
    camera.device.start();
    camera.device.live(&broker);
    let id = camera.device.id().to_owned();
    let first = camera.runs()[0].0;
    camera.mode("half");
    let probe = Probe::start(broker.address, &id, &["--seconds", "14"]);
    camera.device.seated();
    kill(first);
    until("it has ended in the middle of a picture, and was started again", SOON, || {
        let lost = camera
            .device
            .process()
            .log()
            .contains("ended in the middle of a picture (57600 of 115200 bytes)");
        lost.then_some(())
    });
    camera.mode("stall");
    until("it has stalled", SOON, || {
        let lost = camera
            .device
            .process()
            .log()
            .contains("delivers no picture for 3 s; it is started anew");
        lost.then_some(())
    });
    camera.mode("good");
    let viewer = &probe.report(SOON * 3)["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    // Two runs of nineteen pictures at the least, and what came before and after.
    assert!(shown(viewer) > 40, "{viewer}");
    camera.device.live(&broker);
    assert!(camera.runs().len() >= 4, "{:?}", camera.runs());
}

#[test]
fn one_that_does_not_listen_to_sigterm_is_killed_and_the_agent_ends_in_time() {
    let broker = Broker::start();
    let mut camera = Camera::new(&broker, "stubborn", "");
    camera.device.start();
    camera.device.live(&broker);
    camera.stop();
    camera.leaves_nothing();
}

#[test]
fn an_agent_that_is_killed_leaves_no_camera_program_behind_even_one_that_is_silent() {
    let broker = Broker::start();
    for mode in ["good", "stall"] {
        let mut camera = Camera::new(&broker, mode, "");
        camera.device.start();
        camera.device.live(&broker);
        // The other one is silent by then, and not given up yet.
        std::thread::sleep(Duration::from_millis(1_500));
        camera.device.take_process().kill();
        until("it has ended", SOON, || camera.left_over().is_empty().then_some(()));
    }
}

#[test]
fn its_own_h264_is_seen() {
    let broker = Broker::start();
    let mut camera = Camera::new(&broker, "good", "format = \"h264\"\n");
    fs::write(camera.beside("film"), film()).expect("a file");
    camera.device.start();
    camera.device.live(&broker);
    let viewer = watch(&broker, camera.device.id(), "3");
    assert!(shown(&viewer) > 10, "{viewer}");
    assert_eq!(viewer["frames_undecodable"], 0, "{viewer}");
    let arguments = &camera.runs()[0].1;
    for argument in ["--codec h264", "--bitrate 500000", "--intra 60", "--inline"] {
        assert!(arguments.contains(argument), "{argument} is not in {arguments}");
    }
}

fn kill(process: u32) {
    let sent = std::process::Command::new("kill").args(["-9", &process.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "killing {process}");
}

/// Two seconds at 15 pictures a second, with two key frames.
fn film() -> Vec<u8> {
    let settings = Settings {
        width: 320,
        height: 240,
        fps: 15,
        bitrate: Bitrate::kbps(300),
        gop: 15,
        colour: Colour::Bt709,
    };
    let mut encoder = SoftwareEncoder::new(settings).expect("an encoder");
    let mut film = Vec::new();
    let mut noise = 1u32;
    for n in 0..30u32 {
        let mut i420 = vec![128; 320 * 240 * 3 / 2];
        for sample in &mut i420[..320 * 240] {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = 100 + (noise >> 27) as u8;
        }
        let frame = RawFrame {
            i420,
            width: 320,
            height: 240,
            time: MediaTime::from_ticks(u64::from(n) * 6000),
            captured: Instant::now() + Duration::from_millis(u64::from(n) * 66),
        };
        film.extend(encoder.encode(&frame).expect("encoded").expect("not skipped"));
    }
    film
}

/// Of the stream itself, in kilobits a second, over a group of pictures.
fn kbps(page: SocketAddr) -> f64 {
    let bytes = || Scrape::of(page).value("peercam_picture_bytes_total{stream=\"card\",quality=\"high\"}");
    let (before, began) = (bytes(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    (bytes() - before) * 8.0 / 1000.0 / began.elapsed().as_secs_f64()
}

#[test]
fn the_encoder_follows_the_bit_rate_that_is_set_while_three_watch() {
    let broker = Broker::start();
    let page = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut camera = Camera::new(&broker, "good", "");
    let config = std::fs::read_to_string(camera.device.config_file()).expect("the configuration");
    let listen = format!("http.listen = \"{page}\"\nunsigned.methods = [\"camera.set\"]");
    camera.device.configure(&config.replace("http.listen = \"off\"", &listen));
    fs::write(camera.beside("raw"), noise(320, 240, 8)).expect("pictures");
    camera.device.start();
    camera.device.live(&broker);
    let probe = Probe::start(broker.address, camera.device.id(), &["--viewers", "3", "--seconds", "25"]);
    until("three watch", SOON, || {
        (Scrape::of(page).value("peercam_viewers{stream=\"card\",quality=\"high\"}") == 3.0).then_some(())
    });
    let mut operator = camera.device.peer(broker.address, "operator");
    let mut rates = Vec::new();
    for bps in [2_000_000, 300_000, 2_000_000] {
        let state = operator.call("camera.set", &json!({ "bitrate_bps": bps })).expect("it is set");
        assert_eq!(state["bitrate_bps"], bps);
        rates.push(kbps(page));
    }
    println!("2000, 300 and 2000 kbit/s asked for: {rates:.0?}");
    assert!(
        rates[1] < 450.0 && rates[0] > 2.0 * rates[1] && rates[2] > 2.0 * rates[1],
        "{rates:?}"
    );
    let report = probe.report(SOON * 3);
    for viewer in report["per_viewer"].as_array().expect("a list") {
        assert!(viewer["failed"].is_null(), "a session ended: {}", viewer["failed"]);
        assert_eq!(viewer["frames_lost"], 0, "{viewer}");
    }
    // Size and rate are the program's: it is started anew, and stays one.
    let state = operator
        .call("camera.set", &json!({ "width": 640, "height": 480, "fps": 10 }))
        .expect("it is set");
    assert_eq!((&state["width"], &state["height"]), (&json!(640), &json!(480)), "{state}");
    assert_eq!(state["fps"], 10.0, "{state}");
    let runs = camera.runs();
    let (_, arguments) = runs.last().expect("it runs");
    assert!(arguments.contains("--width 640 --height 480 --framerate 10"), "{arguments}");
    let refused = operator
        .call("camera.set", &json!({ "width": 650, "height": 480 }))
        .expect_err("no multiple of 64");
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("multiple of 64")),
        "{refused}"
    );
}

#[test]
fn the_programs_controls_are_set_by_name_while_somebody_watches() {
    let broker = Broker::start();
    let mut camera = Camera::new(
        &broker,
        "good",
        "extra = [\"--awb\", \"indoor\"]\n[unsigned]\nmethods = [\"camera.set\"]\n",
    );
    camera.device.start();
    camera.device.live(&broker);
    let probe = Probe::start(broker.address, camera.device.id(), &["--seconds", "20"]);
    let mut operator = camera.device.peer(broker.address, "operator");
    let value = |state: &Value, name: &str| state["controls"][name]["value"].as_i64();
    let state = operator.call("camera.get", &json!({})).expect("it tells");
    assert_eq!(
        (value(&state, "awb"), value(&state, "horizontal_flip")),
        (Some(4), Some(0)),
        "{state}"
    );

    let wish = json!({ "controls": { "horizontal_flip": true, "brightness": -10, "awb": "cloudy" } });
    let state = operator.call("camera.set", &wish).expect("it is set");
    let told = ["horizontal_flip", "brightness", "awb"].map(|name| value(&state, name));
    assert_eq!(told, [Some(1), Some(-10), Some(6)], "{state}");
    let runs = camera.runs();
    let (_, arguments) = runs.last().expect("it runs");
    for argument in [" --hflip ", " --brightness=-0.10", " --awb=cloudy"] {
        assert!(arguments.contains(argument), "{argument}: {arguments}");
    }
    assert!(!arguments.contains("indoor"), "{arguments}");

    // What can't be leaves the picture alone; what the program refuses is taken back.
    for (wish, words) in [
        (json!({ "zoom": 1 }), "no control `zoom`, but horizontal_flip, "),
        (json!({ "brightness": 101 }), "from -100 to 100"),
        (json!({ "awb": "candle" }), "takes one of 0 \"auto\""),
    ] {
        let refused = operator.call("camera.set", &json!({ "controls": wish })).expect_err("it can't");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(words)), "{refused}");
    }
    assert_eq!(camera.runs().len(), runs.len(), "the program was left alone");
    let refused = operator
        .call("camera.set", &json!({ "controls": { "metering": "spot" } }))
        .expect_err("this program has no such option");
    let words = refused["message"].as_str().unwrap_or_default();
    assert!(
        words.contains("unrecognised option") && words.contains("old settings are kept"),
        "{words}"
    );
    let state = operator
        .call("camera.set", &json!({ "controls": { "brightness": 0 } }))
        .expect("it is set");
    assert_eq!((value(&state, "metering"), value(&state, "awb")), (Some(0), Some(6)), "{state}");
    let report = probe.report(SOON * 3);
    assert!(report["per_viewer"][0]["failed"].is_null(), "the session goes on: {report}");
}
