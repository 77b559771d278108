//! What the fuzz targets do, for a moment with every test run: each seed, and what chance makes of it.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The seeds of a fuzz target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// One change to a byte string. Places are fractions of its length.
#[derive(Clone, Debug)]
enum Edit {
    Flip { at: f64, mask: u8 },
    Insert { at: f64, bytes: Vec<u8> },
    Remove { at: f64, count: usize },
    Repeat { at: f64, count: usize, times: usize },
    CutOff { at: f64 },
    GoOnAs { at: f64, other: prop::sample::Index, from: f64 },
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        let at = || 0.0..1.0f64;
        // Bytes that mean something somewhere, and any others.
        let byte = || prop_oneof![prop::sample::select(&b"\0\x01\x03\xff\r\n\"{}[]:=/+#0aZ-."[..]), any::<u8>()];
        prop_oneof![
            (at(), 1..=255u8).prop_map(|(at, mask)| Self::Flip { at, mask }),
            (at(), prop::collection::vec(byte(), 1..8)).prop_map(|(at, bytes)| Self::Insert { at, bytes }),
            (at(), 1..40usize).prop_map(|(at, count)| Self::Remove { at, count }),
            (at(), 1..80usize, 1..40usize).prop_map(|(at, count, times)| Self::Repeat { at, count, times }),
            at().prop_map(|at| Self::CutOff { at }),
            (at(), any::<prop::sample::Index>(), at()).prop_map(|(at, other, from)| Self::GoOnAs { at, other, from }),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let place = |at: f64, length: usize| (at * length as f64) as usize;
        match self {
            Self::Flip { at, mask } => {
                let place = place(*at, bytes.len());
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= mask;
                }
            }
            Self::Insert { at, bytes: new } => {
                let place = place(*at, bytes.len());
                bytes.splice(place..place, new.iter().copied());
            }
            Self::Remove { at, count } => {
                let place = place(*at, bytes.len());
                bytes.drain(place..(place + count).min(bytes.len()));
            }
            Self::Repeat { at, count, times } => {
                let place = place(*at, bytes.len());
                let piece = bytes[place..(place + count).min(bytes.len())].repeat(*times);
                bytes.splice(place..place, piece);
            }
            Self::CutOff { at } => bytes.truncate(place(*at, bytes.len())),
            Self::GoOnAs { at, other, from } => {
                let other = other.get(seeds);
                bytes.truncate(place(*at, bytes.len()));
                bytes.extend_from_slice(&other[place(*from, other.len())..]);
            }
        }
    }
}

fn survives(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "no seeds for {target}");
    seeds.iter().for_each(|seed| run(seed));
    let config = Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    };
    let inputs = (any::<prop::sample::Index>(), prop::collection::vec(Edit::any(), 1..6));
    let result = TestRunner::new(config).run(&inputs, |(seed, edits)| {
        let mut bytes = seed.get(&seeds).clone();
        edits.iter().for_each(|edit| edit.apply(&mut bytes, &seeds));
        run(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{target}: {error}");
    }
}

#[test]
fn a_cameras_stream() {
    survives("annexb", targets::annexb);
}

#[test]
fn a_sequence_parameter_set() {
    survives("sps", targets::sps);
}

#[test]
fn a_camera_s_jpeg() {
    survives("mjpeg", targets::mjpeg);
}

#[test]
fn a_message() {
    survives("message", targets::message);
}

#[test]
fn a_topic() {
    survives("topic", targets::topic);
}

#[test]
fn an_offer() {
    survives("offer", targets::offer);
}

#[test]
fn datagrams() {
    survives("datagram", targets::datagram);
}

#[test]
fn relays() {
    survives("relay", targets::relay);
}

#[test]
fn a_configuration() {
    survives("config", targets::config);
}

#[test]
fn a_start() {
    survives("start", targets::start);
}

#[test]
fn an_address() {
    survives("url", targets::url);
}

#[test]
fn an_identity() {
    survives("identity", targets::identity);
}

#[test]
fn another_sites_headers() {
    survives("guard", targets::guard);
}

#[test]
fn an_http_connection() {
    survives("http", targets::http);
}

#[test]
fn a_whep_session() {
    survives("whep", targets::whep);
}

#[test]
fn a_brokers_packets() {
    survives("mqtt", targets::mqtt);
}

#[test]
fn every_target_is_tried_here_and_told_of_in_the_readme() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let (here, readme) = (include_str!("hostile_bytes.rs"), include_str!("../fuzz/README.md"));
    let files = fs::read_dir(folder.join("fuzz_targets")).expect("the targets");
    let mut count = 0;
    for file in files {
        let path = file.expect("a target").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        assert!(
            here.contains(&format!("survives(\"{name}\", targets::{name})")),
            "{name} is not tried here"
        );
        assert!(
            readme.contains(&format!("\n| `{name}` | ")),
            "fuzz/README.md does not tell of {name}"
        );
        count += 1;
    }
    assert!(count >= 14, "only {count} targets");
}

#[test]
fn the_seeds_are_what_they_are_meant_to_be() {
    let accepted = seeds("offer").iter().filter(|seed| targets::is_accepted(seed)).count();
    assert!(accepted >= 2, "only {accepted} seeds are offers that are accepted");
    let playable = seeds("annexb").iter().filter(|seed| targets::is_playable(seed)).count();
    assert!(playable >= 2, "only {playable} seeds are streams that can be shown");
    let kept = seeds("identity").iter().filter(|seed| targets::is_kept(seed)).count();
    assert!(kept >= 1, "no seed is an identity that is kept");
    let restarted = seeds("whep").iter().filter(|seed| targets::restarts(seed)).count();
    assert!(restarted >= 2, "only {restarted} seeds restart ICE");
    let answered = seeds("mqtt").iter().filter(|seed| targets::replies(seed) > 0).count();
    assert!(answered >= 3, "only {answered} seeds are answered over MQTT");
}
