//! A day of one camera with viewers that come and go, in virtual time: the real hub, real sessions, and a str0m client for each
//! viewer. One viewer stays all day and gets every picture; nothing accumulates.
//!
//! Device and viewers are one process here, so its memory is that of all together. The bit-rate policy belongs in here too, once
//! there is one.

mod session {
    #![allow(dead_code, reason = "the tests of single sessions use the rest of it")]

    pub mod film;
    pub mod pair;
    pub mod setup;
    pub mod wire;
}

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peercam::media::MediaTime;
use peercam::session::{Ending, WallClock};
use session::film::{Camera, recognise};
use session::pair::{Beginning, Pair};
use session::setup::{Kind, certificate, clock};
use session::wire::{Dice, Weather};
use str0m::config::DtlsCert;
use str0m::media::MediaData;

const HOUR: Duration = Duration::from_secs(3_600);

/// By how many bytes memory may grow in an hour, once it has settled.
const SLOPE: f64 = 1024.0 * 1024.0;

/// Hours until it has.
const SETTLED: u32 = 1;

/// Small pictures, so that a day is over in seconds: a key frame of four packets, others of one.
const SIZES: (usize, usize) = (3_000, 400);

/// Pictures from one key frame to the next.
const GOP: u32 = 4;

/// How a viewer ends.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    /// It closes its connection.
    Closes,
    /// It tells the device, by whichever carrier.
    SaysSo,
    /// Its battery is empty.
    Vanishes,
}

/// One that comes and goes.
struct Guest {
    pair: Pair,
    leaves_at: Instant,
    how: Leaving,
    gone: bool,
}

/// The one that stays.
struct Resident {
    pair: Pair,
    seen: u64,
    next: Option<u32>,
    first: Option<(MediaTime, u64)>,
    reports: u64,
    /// Sequence numbers, counted on where the 16 bits of RTP begin anew.
    sequence: u64,
}

/// The device, its viewers, and the one clock.
struct Day {
    start: Instant,
    clock: WallClock,
    /// The stack tells NTP time by the real clock, as it was when the day began.
    wall: SystemTime,
    camera: Camera,
    certificate: DtlsCert,
    dice: Dice,
    resident: Resident,
    guests: Vec<Guest>,
    joined: u64,
    connected: u64,
    endings: [u64; Ending::ALL.len()],
    most: usize,
}

impl Day {
    fn begin(viewer: Kind, seed: u64) -> Self {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let camera = Camera::new(start, GOP, SIZES);
        let (clock, certificate) = (clock(start), certificate());
        let pair = Pair::watching(
            &camera.hub,
            viewer,
            &Beginning {
                now: start,
                clock,
                certificate: &certificate,
                id: "resident",
                weather: Weather {
                    delay: Duration::from_millis(20),
                    ..Weather::default()
                },
                seed,
            },
        );
        Self {
            start,
            clock,
            wall,
            camera,
            certificate,
            dice: Dice(seed),
            resident: Resident {
                pair,
                seen: 0,
                next: None,
                first: None,
                reports: 0,
                sequence: 0,
            },
            guests: Vec::new(),
            joined: 0,
            connected: 0,
            endings: [0; Ending::ALL.len()],
            most: 0,
        }
    }

    /// Somebody joins at `at`, over a network of their own.
    fn join(&mut self, at: Instant) {
        self.joined += 1;
        let dice = &mut self.dice;
        let weather = Weather {
            delay: Duration::from_millis(1 + dice.next() % 100),
            loss: dice.share() * 0.03,
            reorder: dice.share() * 0.1,
            bottleneck: None,
        };
        let stays = Duration::from_millis(500 + dice.next() % 30_000);
        let how = match dice.next() % 8 {
            0..4 => Leaving::Closes,
            4..7 => Leaving::SaysSo,
            _ => Leaving::Vanishes,
        };
        let pair = Pair::watching(
            &self.camera.hub,
            Kind::Browser,
            &Beginning {
                now: at,
                clock: self.clock,
                certificate: &self.certificate,
                id: &format!("guest {}", self.joined),
                weather,
                seed: self.joined,
            },
        );
        self.guests.push(Guest {
            pair,
            leaves_at: at + stays,
            how,
            gone: false,
        });
    }

    /// Takes a picture, then lets everybody live until `until`.
    fn go_on(&mut self, until: Instant) {
        let now = self.resident.pair.now;
        self.camera.shoot(now);
        let pair = &mut self.resident.pair;
        pair.take_pictures();
        pair.run(until - now);
        assert!(!pair.device.is_closed(), "the one that stays was sent away: {:?}", pair.events);
        for picture in std::mem::take(&mut pair.pictures) {
            self.resident.check(&picture, self.start, self.wall);
        }
        self.resident.pair.forget();
        for guest in &mut self.guests {
            guest.pair.take_pictures();
            guest.go_on(until);
        }
        self.most = self.most.max(self.guests.len());
        let over: Vec<Guest> = self.guests.extract_if(.., |guest| guest.pair.device.is_closed()).collect();
        for guest in over {
            let ending = guest.pair.device.ending().expect("a session that is over");
            let place = Ending::ALL.iter().position(|known| *known == ending).expect("a place");
            self.endings[place] += 1;
            self.connected += u64::from(guest.pair.was_connected);
        }
        // The camera's own, and for each viewer the pair's and the subscription's.
        let watching = self.guests.iter().filter(|guest| guest.pair.device.is_connected()).count();
        let resident = 1 + usize::from(self.resident.pair.device.is_connected());
        assert_eq!(
            Arc::strong_count(&self.camera.hub),
            1 + resident + self.guests.len() + watching,
            "a subscription outlives its session"
        );
    }

    /// So many hours with one picture every `interval`, while so many come and go. Returns the memory at the end of each hour, in bytes.
    fn live(&mut self, hours: u32, interval: Duration, joins: u64) -> Vec<u64> {
        let end = self.start + hours * HOUR;
        let mut moments: Vec<Duration> = (0..joins).map(|_| (hours * HOUR).mul_f64(self.dice.share())).collect();
        moments.sort_unstable();
        let mut moments = moments.into_iter().peekable();
        let mut memory = Vec::new();
        let mut now = self.start;
        while now < end {
            now += interval;
            while let Some(moment) = moments.next_if(|moment| self.start + *moment < now) {
                self.join(self.start + moment);
            }
            self.go_on(now);
            if now >= self.start + HOUR * (memory.len() as u32 + 1) {
                memory.push(resident_bytes());
            }
        }
        // Who vanished is missed after a while.
        while !self.guests.is_empty() {
            now += interval;
            self.go_on(now);
        }
        memory
    }
}

impl Guest {
    fn go_on(&mut self, until: Instant) {
        if !self.gone && self.leaves_at < until {
            self.gone = true;
            self.pair.run(self.leaves_at.saturating_duration_since(self.pair.now));
            match self.how {
                Leaving::Closes => self.pair.close(),
                Leaving::SaysSo => self.pair.send_away(Ending::ViewerLeft),
                Leaving::Vanishes => self.pair.cut(),
            }
        }
        self.pair.run(until.saturating_duration_since(self.pair.now));
        let numbers: Vec<u32> = self
            .pair
            .pictures
            .iter()
            .filter_map(|picture| recognise(&picture.data))
            .map(|(number, _)| number)
            .collect();
        assert!(numbers.is_sorted(), "a viewer gets pictures in their order: {numbers:?}");
        self.pair.forget();
    }
}

impl Resident {
    fn check(&mut self, picture: &MediaData, start: Instant, wall: SystemTime) {
        let (number, key) = recognise(&picture.data).expect("every picture arrives whole");
        let expected = *self.next.get_or_insert(number);
        assert_eq!(number, expected, "every picture arrives, in its order");
        assert!(key || self.seen > 0, "the first one is a key frame");
        assert!(picture.contiguous, "nothing is missing before picture {number}");
        self.next = Some(number + 1);
        self.seen += 1;
        self.sequence = **picture.seq_range.end();
        let stamp = picture.ext_vals.abs_capture_time.expect("the picture tells when it was captured");
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let captured = stamp.capture_time.duration_since(epoch).expect("after the day has begun");
        let media = MediaTime::since(start, start + captured);
        // The viewer counts on where the 32 bits of RTP begin anew.
        let (first, told) = *self.first.get_or_insert((media, picture.time.numer()));
        let difference = (picture.time.numer() - told).abs_diff(media.ticks() - first.ticks());
        assert!(
            difference < MediaTime::HZ / 1_000,
            "picture {number} is {difference} ticks off after {captured:?}"
        );
        // A sender report tells which NTP time an RTP time is, to players that put sound and picture together.
        if let Some(report) = picture.last_sender_info {
            let ntp = report.ntp_time.duration_since(wall).expect("after the day has begun");
            let expected = MediaTime::since(start, start + ntp).rtp();
            let told = report.rtp_time.numer() as u32;
            let difference = expected.wrapping_sub(told).min(told.wrapping_sub(expected));
            assert!(
                u64::from(difference) < MediaTime::HZ / 10,
                "the sender report is {difference} ticks off after {ntp:?}"
            );
            self.reports += 1;
        }
    }
}

/// What this process has of the machine's memory, in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line for it");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1_024
}

fn nothing_accumulates(viewer: Kind, hours: u32, interval: Duration, joins: u64) {
    let began = Instant::now();
    let mut day = Day::begin(viewer, 1);
    let memory = day.live(hours, interval, joins);
    let settled = memory[SETTLED as usize - 1];
    let end = *memory.last().expect("an hour at least");
    let slope = (end as f64 - settled as f64) / f64::from(hours - SETTLED);
    let mib: Vec<String> = memory
        .iter()
        .map(|bytes| format!("{:.1}", *bytes as f64 / 1024.0 / 1024.0))
        .collect();
    println!(
        "{hours} h, a picture every {interval:?}, {joins} joins, in {:.1} s: {} pictures to the one that stayed, at most {} others at \
         once, {} of them connected, endings {:?}, memory at the end of each hour {} MiB, {:.0} kB an hour after the first",
        began.elapsed().as_secs_f64(),
        day.resident.seen,
        day.most,
        day.connected,
        Ending::ALL
            .iter()
            .map(|ending| ending.name())
            .zip(day.endings)
            .filter(|(_, count)| *count > 0)
            .collect::<Vec<_>>(),
        mib.join(", "),
        slope / 1_000.0
    );
    let taken = u64::from(hours) * HOUR.as_secs() * 1_000 / interval.as_millis() as u64;
    assert!(
        day.resident.seen + 5 > taken,
        "{} of {taken} pictures reached the one that stayed",
        day.resident.seen
    );
    assert!(day.resident.reports > 0, "sender reports arrive");
    assert!(day.resident.sequence > 1 << 16, "sequence numbers began anew");
    assert!(
        MediaTime::since(day.start, day.resident.pair.now).ticks() > 1 << 32,
        "RTP time began anew"
    );
    assert_eq!(day.endings.iter().sum::<u64>(), joins, "everybody who came has gone");
    assert!(day.connected * 100 >= joins * 95, "{} of {joins} were connected", day.connected);
    assert!(slope < SLOPE, "memory grows by {slope:.0} bytes an hour: {mib:?} MiB");
}

/// RTP timestamps begin anew after 13 hours, sequence numbers before that. The viewer that stays is one for whom the stack neither
/// probes nor pads, and without a data channel: these would take most of the test's time.
#[test]
fn a_viewer_that_stays_all_day_gets_every_picture_while_others_come_and_go() {
    nothing_accumulates(Kind::Player, 24, Duration::from_secs(2), 100);
}

/// The same for `./dev soak`, with a browser that stays; sequence numbers begin anew nine times.
#[test]
#[ignore = "takes minutes: ./dev soak"]
fn ten_thousand_viewers_a_day_leave_nothing_behind() {
    nothing_accumulates(Kind::Browser, 24, Duration::from_millis(250), 10_000);
}
