//! WHEP as a player meets it: what each request gets, and what it does to the session.

mod common;

use std::net::{SocketAddr, TcpStream};

use common::device::{Device, Settings};
use common::http::{Answer, call, connect, read, request};
use common::probe::Probe;
use common::{SOON, free_port, sdp, until};
use serde_json::json;

const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");
const CANDIDATE: &str = "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\na=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";
const NEW_ICE: &str = "a=ice-ufrag:nEw1\r\na=ice-pwd:0123456789abcdefghijklmn\r\n";

fn device(more: &'static str) -> (Device, SocketAddr) {
    Device::by_http(Settings {
        more,
        ..Settings::default()
    })
}

fn viewers(address: SocketAddr) -> u64 {
    static ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let id = ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let info = call(address, "counter", id, "system.info", &json!({})).expect("system.info is answered");
    info["viewers"].as_u64().expect("a number")
}

/// Opens a session; its path and its tag.
fn open(address: SocketAddr) -> (String, String) {
    let answer = request(address, "POST", "/whep", &[SDP], &sdp::offer_of_a_player());
    assert_eq!(answer.status, 201, "{answer:?}");
    let header = |name| answer.header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned();
    (header("location"), header("etag"))
}

/// The error's sentence, which is told as a problem.
fn sentence(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status);
    problem["detail"].as_str().expect("a sentence").to_owned()
}

#[test]
fn the_door_is_shut_unless_it_is_opened() {
    let (_device, address) = device("");
    let answer = request(address, "POST", "/whep", &[SDP], &sdp::offer());
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(viewers(address), 0);
}

#[test]
fn a_door_that_is_open_to_others_is_said_aloud() {
    let mut device = Device::with(Settings {
        broker: "off".into(),
        http: format!("0.0.0.0:{}", free_port()),
        more: "http.whep = true",
        ..Settings::default()
    });
    device.start();
    until("the log warns of it", SOON, || {
        let log = device.process().log();
        let loud = |words: &str| log.lines().any(|line| line.contains("WARN") && line.contains(words));
        (loud("http.whep = true on 0.0.0.0") && loud("without a broker and without a password")).then_some(())
    });
}

#[test]
fn an_offer_is_answered_and_the_session_ended_by_delete() {
    let (_device, address) = device("http.whep = true");
    for (path, offer) in [("/whep", sdp::offer()), ("/whep/card", sdp::offer_of_a_player())] {
        let answer = request(address, "POST", path, &[SDP, ("Origin", "https://player.example")], &offer);
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/sdp"));
        assert_eq!(answer.header("accept-patch"), Some("application/trickle-ice-sdpfrag"));
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("*"),
            "players live on other sites"
        );
        assert!(
            answer
                .header("access-control-expose-headers")
                .is_some_and(|told| told.contains("Location"))
        );
        let video = answer
            .body
            .split("m=")
            .find(|section| section.starts_with("video 9"))
            .expect("video");
        assert!(video.contains("a=sendonly") && video.contains("H264/90000"), "{video}");
        assert!(
            video.contains("a=candidate:") && video.contains("a=end-of-candidates"),
            "all candidates are told where the picture is: {}",
            answer.body
        );
        assert!(!answer.body.contains("m=audio 9"), "there is no sound: {}", answer.body);
        let session = answer.header("location").expect("a session's address").to_owned();
        assert!(
            session.starts_with("/whep/card/") && session.len() >= "/whep/card/".len() + 32,
            "{session}"
        );
        assert_eq!(viewers(address), 1);
        assert_eq!(
            request(address, "DELETE", &session, &[("If-Match", "\"nonsense\"")], "").status,
            200
        );
        until("the session is over", SOON, || (viewers(address) == 0).then_some(()));
        assert_eq!(request(address, "DELETE", &session, &[], "").status, 404);
        assert_eq!(
            request(address, "PATCH", &session, &[FRAGMENT, ("If-Match", "*")], CANDIDATE).status,
            404
        );
    }
}

#[test]
fn viewers_by_whep_get_every_picture() {
    let (_device, address) = device("http.whep = true");
    let probe = Probe::by(&["--whep", &format!("http://{address}/whep"), "--viewers", "3", "--seconds", "3"]);
    let report = probe.report(3 * SOON);
    let viewers_of_it = report["per_viewer"].as_array().expect("a list");
    assert_eq!(viewers_of_it.len(), 3);
    for viewer in viewers_of_it {
        assert!(viewer["failed"].is_null(), "{}", viewer["failed"]);
        assert!(viewer["frames_shown"].as_u64() > Some(20) && viewer["frames_lost"] == 0, "{viewer}");
    }
    until("their sessions are ended", SOON, || (viewers(address) == 0).then_some(()));
}

#[test]
fn candidates_trickle_and_ice_restarts_under_the_sessions_tag() {
    let (_device, address) = device("http.whep = true");
    let (session, tag) = open(address);
    let patch = |headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [FRAGMENT].iter().chain(headers).copied().collect();
        request(address, "PATCH", &session, &headers, body)
    };
    let trickled = patch(&[("If-Match", &tag)], CANDIDATE);
    assert_eq!((trickled.status, trickled.body.as_str(), trickled.header("etag")), (204, "", None));
    assert_eq!(patch(&[], CANDIDATE).status, 428);
    for (wrong, word) in [("\"other\"", "now"), ("W/\"other\"", "weak"), (tag.trim_matches('"'), "quotes")] {
        let answer = patch(&[("If-Match", wrong)], CANDIDATE);
        assert_eq!(answer.status, 412, "{wrong}");
        let said = sentence(&answer);
        assert!(said.contains(word) && !said.contains("was restarted"), "{wrong}: {said}");
    }
    assert_eq!(patch(&[("If-Match", &tag)], "hello").status, 400);
    assert_eq!(
        request(address, "PATCH", &session, &[SDP, ("If-Match", &tag)], CANDIDATE).status,
        415
    );

    let restarted = patch(&[("If-Match", "*")], &format!("{NEW_ICE}{CANDIDATE}"));
    assert_eq!(restarted.status, 200, "{restarted:?}");
    assert_eq!(restarted.header("content-type"), Some("application/trickle-ice-sdpfrag"));
    let new_tag = restarted.header("etag").expect("a new tag").to_owned();
    assert_ne!(new_tag, tag);
    for line in ["a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates", "m=video"] {
        assert!(restarted.body.contains(line), "{line} is missing: {}", restarted.body);
    }
    assert!(!restarted.body.contains("rtpmap"), "ICE only: {}", restarted.body);
    assert_eq!(patch(&[("If-Match", &tag)], CANDIDATE).status, 412, "the old ICE session is over");
    let of_the_new = format!("{NEW_ICE}{CANDIDATE}");
    assert_eq!(
        patch(&[("If-Match", &new_tag)], &of_the_new).status,
        204,
        "the same credentials restart nothing"
    );
    let newer = NEW_ICE.replace("nEw1", "nEw2");
    assert_eq!(
        patch(&[("If-Match", &new_tag)], &newer).status,
        200,
        "the session's own tag restarts ICE as * does"
    );
    assert_eq!(viewers(address), 1, "it is still the one session");
}

/// Path, headers and body of a request; status and a word of the reply.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[test]
fn what_is_no_offer_is_refused_with_the_right_number_and_a_sentence() {
    let (_device, address) = device("http.whep = true");
    let offer = sdp::offer();
    let huge = "v=0\r\n".repeat(14_000);
    let without_h264 = sdp::offer_without_h264();
    let no_picture = offer.replace("a=recvonly", "a=inactive");
    let only_sound = sdp::offer_of_a_player().replace("m=video ", "m=audio ");
    let cases: [Case<'_>; 10] = [
        ("/whep", &[SDP], "no SDP at all", 400, "no SDP offer"),
        ("/whep", &[SDP], "v=0\r\nm=video\r\n", 400, "ice-ufrag"),
        ("/whep", &[SDP], &no_picture, 400, "video"),
        ("/whep", &[SDP], &only_sound, 400, "video"),
        ("/whep", &[SDP], &without_h264, 422, "H.264"),
        ("/whep", &[SDP], &huge, 413, "65536"),
        ("/whep", &[("Content-Type", "application/json")], &offer, 415, "application/sdp"),
        ("/whep", &[SDP, ("Accept", "text/html")], &offer, 406, "application/sdp"),
        ("/whep/garden", &[SDP], &offer, 404, "card"),
        ("/whep/card/0/0", &[SDP], &offer, 404, "/whep/<stream>"),
    ];
    for (path, headers, body, status, word) in cases {
        let answer = request(address, "POST", path, headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}: {answer:?}");
        let said = sentence(&answer);
        assert!(said.contains(word), "{said}");
        assert!(
            !said.contains("browser") && !said.contains("Chrome"),
            "these are words for players: {said}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "the player may read why");
    }
    assert_eq!(viewers(address), 0);
}

#[test]
fn methods_are_told_apart() {
    let (_device, address) = device("http.whep = true");
    let (session, _) = open(address);
    let asked = [
        ("Origin", "https://player.example"),
        ("Access-Control-Request-Method", "PATCH"),
        ("Access-Control-Request-Headers", "content-type,if-match,authorization"),
    ];
    for path in ["/whep", "/whep/card", &session] {
        let preflight = request(address, "OPTIONS", path, &asked, "");
        assert_eq!(preflight.status, 200);
        assert_eq!(preflight.header("accept-post"), Some("application/sdp"));
        let methods = preflight.header("access-control-allow-methods").expect("methods");
        assert!(
            ["POST", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)),
            "{methods}"
        );
        let headers = preflight
            .header("access-control-allow-headers")
            .expect("headers")
            .to_ascii_lowercase();
        assert!(
            ["content-type", "if-match", "authorization"]
                .iter()
                .all(|name| headers.contains(name)),
            "{headers}"
        );
        assert_eq!(request(address, "GET", path, &[], "").status, 204);
    }
    assert_eq!(
        request(address, "HEAD", "/whep", &[], "").header("content-type"),
        Some("application/sdp")
    );
    for method in ["GET", "HEAD"] {
        let answer = request(address, method, "/whep/garden", &[], "");
        assert_eq!(answer.status, 404, "{method}: there is no such stream");
    }
    assert!(sentence(&request(address, "GET", "/whep/garden", &[], "")).contains("card"));
    for (method, path) in [
        ("PUT", "/whep"),
        ("DELETE", "/whep"),
        ("PATCH", "/whep/card"),
        ("POST", &session),
        ("PUT", &session),
    ] {
        let answer = request(address, method, path, &[SDP], "");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(
            answer
                .header("allow")
                .is_some_and(|allowed| !allowed.split(", ").any(|known| known == method))
        );
    }
}

#[test]
fn one_viewer_too_many_is_told_when_to_come_back() {
    let (mut device, address) = Device::by_http(Settings {
        more: "http.whep = true",
        viewers: 1,
        ..Settings::default()
    });
    let probe = Probe::by(&["--whep", &format!("http://{address}/whep"), "--seconds", "600"]);
    device.seated();
    let refused = request(address, "POST", "/whep", &[SDP], &sdp::offer());
    assert_eq!(refused.status, 503);
    assert!(
        refused.header("retry-after").is_some_and(|secs| secs.parse::<u32>().is_ok()),
        "{refused:?}"
    );
    assert!(sentence(&refused).contains("viewers"));
    probe.stop(SOON);
    until("there is room again", SOON, || {
        (request(address, "POST", "/whep", &[SDP], &sdp::offer()).status == 201).then_some(())
    });
}

#[test]
fn a_camera_that_is_away_is_a_conflict_for_now() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut device = Device::with(Settings {
        broker: "off".into(),
        http: address.to_string(),
        more: "http.whep = true",
        ..Settings::default()
    });
    let config = device.config();
    let (rest, _) = config.split_once("[[camera]]").expect("a camera");
    device.configure(&format!("{rest}[[camera]]\nname = \"card\"\ndevice = \"/dev/video-none\"\n"));
    device.start();
    until("the device serves HTTP", SOON, || TcpStream::connect(address).ok());
    let answer = until("the camera is known to be away", SOON, || {
        let answer = request(address, "POST", "/whep", &[SDP], &sdp::offer());
        answer.body.contains("/dev/video-none").then_some(answer)
    });
    // The draft's number for a stream that is not being published.
    assert_eq!(answer.status, 409);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(sentence(&answer).contains("card"));
}

#[test]
fn ice_servers_are_told_with_their_credentials() {
    let (_device, address) =
        device("http.whep = true\nnetwork.ice_server = [{ urls = [\"stun:stun.example:3478\", \"stun:other.example\"] }]");
    let answer = request(address, "POST", "/whep", &[SDP], &sdp::offer());
    let links: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "link")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(
        links,
        [
            "<stun:stun.example:3478>; rel=\"ice-server\"",
            "<stun:other.example>; rel=\"ice-server\""
        ]
    );
}

#[test]
fn an_address_that_asks_without_end_is_held_back() {
    let (_device, address) = device("http.whep = true");
    let statuses: Vec<u16> = (0..60).map(|_| request(address, "POST", "/whep", &[SDP], "v=0").status).collect();
    assert_eq!(statuses[0], 400);
    assert!(statuses.contains(&429), "{statuses:?}");
    // As Retry-After asks; who goes on without a pause is held back for as long.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    assert_eq!(request(address, "POST", "/whep", &[SDP], "v=0").status, 400, "it may go on");
    let mut silent = connect(address);
    std::io::Write::write_all(&mut silent, b"GET /whep HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    assert_eq!(
        read(&mut std::io::BufReader::new(silent), false).status,
        204,
        "what costs nothing is not counted"
    );
}
