//! Several cameras in one process: each is a stream of its own, and one that fails takes no other with it.

mod common;

use std::net::SocketAddr;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::Peer;
use common::probe::Probe;
use common::scrape::{Scrape, get};
use common::{SOON, free_port, until};
use serde_json::Value;

#[test]
fn a_viewer_picks_a_camera_by_name_and_one_that_fails_takes_no_other_with_it() {
    let broker = Broker::start();
    let page = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut device = Device::with(Settings {
        broker: broker.url(),
        http: page.to_string(),
        ..Settings::default()
    });
    let film = device.file("yard.h264");
    device.configure(&format!(
        "{}\n[[camera]]\nname = \"yard\"\nsource = \"file\"\npath = \"{}\"\n[[camera]]\nname = \"small\"\nsource = \"pattern\"\nsize = \"160x120\"\nfps = 15\n",
        device.config(),
        film.display()
    ));
    device.start();
    device.live(&broker);
    let mut watcher = Peer::watcher(broker.address);
    let says = |status: &Value| status["streams"][1]["reason"].to_string();
    watcher.status("a recording that is not there is its own camera's fault", SOON, |status| {
        status["streams"][1]["state"] == "lost" && says(status).contains("yard.h264") && status["streams"][2]["state"] == "live"
    });
    std::fs::write(&film, b"").expect("a file");
    let (_, status) = watcher.status("each camera has its state", SOON, |status| {
        status["streams"][1]["state"] == "unsupported" && status["streams"][2]["state"] == "live"
    });
    assert!(
        status["streams"][1]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("yard.h264")),
        "{status}"
    );
    until("the device is well enough: two of three show pictures", SOON, || {
        get(page, "/healthz", "").filter(|health| health.status == 200)
    });

    // Two watch, each another camera; who leaves the name out gets the first.
    let watch = |more: &[&str]| Probe::start(broker.address, device.id(), &[&["--seconds", "4"], more].concat());
    let probes = [watch(&["--stream", "small"]), watch(&[])];
    until("both cameras have their viewer", SOON, || {
        let scrape = Scrape::of(page);
        let viewers =
            ["card", "yard", "small"].map(|stream| scrape.value(&format!("peercam_viewers{{stream=\"{stream}\",quality=\"high\"}}")));
        (viewers == [1.0, 0.0, 1.0]).then_some(())
    });
    for probe in probes {
        let report = probe.report(SOON);
        let viewer = &report["per_viewer"][0];
        assert!(viewer["failed"].is_null() && viewer["frames_lost"] == 0, "{report}");
        assert!(viewer["frames_shown"].as_u64().is_some_and(|frames| frames > 20), "{report}");
    }
    for (stream, why) in [("yard", "yard.h264"), ("cellar", "card, yard, small")] {
        let report = watch(&["--stream", stream]).report(SOON * 2);
        let failed = report["per_viewer"][0]["failed"].to_string();
        assert!(failed.contains(why), "{stream}: {failed}");
    }
    std::fs::write(&film, common::film::film(500_000, 30)).expect("a file");
    watcher.status("a recording that has come is played", SOON, |status| {
        status["streams"][1]["state"] == "live" && status["streams"].as_array().map(Vec::len) == Some(3)
    });
}
