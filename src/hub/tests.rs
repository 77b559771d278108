use super::*;
use crate::media::MediaTime;

const FRAME: Duration = Duration::from_millis(33);
const FORMAT: StreamFormat = StreamFormat {
    width: 640,
    height: 360,
    profile_level_id: [0x42, 0xe0, 0x1f],
};

/// A camera at 30 frames a second in virtual time; the picture's number is its content.
struct Camera {
    hub: Arc<Hub>,
    now: Instant,
    number: u32,
}

impl Camera {
    fn new(forces_key_frames: bool) -> Self {
        let hub = Hub::new("test");
        hub.set_format(FORMAT, forces_key_frames);
        Self {
            hub,
            now: Instant::now(),
            number: 0,
        }
    }

    /// One picture, then the time to the next one. A key frame that was asked for is made.
    fn frame(&mut self, key: bool) {
        let asked = self.hub.target().take(self.now).is_some_and(|target| target.keyframe) && self.hub.lock().forces_key_frames;
        let key = key || asked;
        if key {
            self.hub.target().key_frame_made(self.now);
        }
        let data: Arc<[u8]> = [&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }][..], &self.number.to_be_bytes()]
            .concat()
            .into();
        let time = MediaTime::from_ticks(u64::from(self.number) * 3_000);
        self.hub.publish(
            AccessUnit {
                data,
                time,
                captured: self.now,
                key,
            },
            self.now,
        );
        self.number += 1;
        self.now += FRAME;
    }

    fn frames(&mut self, count: u32) {
        for _ in 0..count {
            self.frame(false);
        }
    }
}

/// The numbers of all pictures that wait; panics if any were dropped.
fn take(subscription: &mut Subscription, now: Instant) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        match subscription.next(now) {
            Next::Picture { picture, .. } => numbers.push((picture.unit.time.ticks() / 3_000) as u32),
            Next::Nothing => return numbers,
            Next::Lagged { dropped } => panic!("{dropped} pictures were dropped after {numbers:?}"),
        }
    }
}

#[test]
fn a_joiner_begins_with_a_fresh_key_frame_at_once() {
    let mut camera = Camera::new(true);
    camera.frame(true);
    camera.frames(5);
    let mut viewer = camera.hub.subscribe(camera.now);
    assert_eq!(take(&mut viewer, camera.now), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_joiner_never_begins_with_a_stale_key_frame_where_a_new_one_can_be_had() {
    let mut camera = Camera::new(true);
    camera.frame(true);
    camera.frames(60);
    let mut viewer = camera.hub.subscribe(camera.now);
    assert!(take(&mut viewer, camera.now).is_empty(), "the key frame is two seconds old");
    camera.frames(2);
    assert_eq!(
        take(&mut viewer, camera.now),
        [61, 62],
        "the key frame that was asked for, and what follows"
    );
}

#[test]
fn where_no_key_frame_can_be_forced_a_joiner_gets_the_newest_with_all_that_follows() {
    let mut camera = Camera::new(false);
    camera.frame(true);
    camera.frames(60);
    let mut viewer = camera.hub.subscribe(camera.now);
    assert_eq!(take(&mut viewer, camera.now), (0..=60).collect::<Vec<_>>());
    camera.frames(1);
    assert_eq!(take(&mut viewer, camera.now), [61], "caught up, it goes on live");
}

#[test]
fn a_joiner_may_catch_up_while_live_pictures_wait_but_not_for_ever() {
    let mut camera = Camera::new(false);
    camera.frame(true);
    camera.frames(60);
    let [mut quick, mut stuck] = [(); 2].map(|()| camera.hub.subscribe(camera.now));
    assert!(
        matches!(stuck.next(camera.now), Next::Picture { .. }),
        "it begins, and takes no more"
    );
    let mut seen = Vec::new();
    // Five pictures of the past in the time of one live one, as the session's pace allows.
    for _ in 0..20 {
        for _ in 0..5 {
            match quick.next(camera.now) {
                Next::Picture { picture, .. } => seen.push((picture.unit.time.ticks() / 3_000) as u32),
                Next::Nothing => {}
                Next::Lagged { dropped } => panic!("{dropped} pictures were dropped after {seen:?}"),
            }
        }
        camera.frame(false);
    }
    seen.extend(take(&mut quick, camera.now));
    assert_eq!(seen, (0..=80).collect::<Vec<_>>());

    camera.frames(60);
    assert!(matches!(stuck.next(camera.now), Next::Lagged { .. }), "2.6 s later it is cleared");
}

#[test]
fn a_slow_viewer_loses_what_is_late_and_goes_on_at_a_key_frame_while_others_lose_nothing() {
    let mut camera = Camera::new(true);
    camera.frame(true);
    let (mut slow, mut quick) = (camera.hub.subscribe(camera.now), camera.hub.subscribe(camera.now));
    assert_eq!(take(&mut slow, camera.now), [0]);
    let mut seen = Vec::new();
    for _ in 0..20 {
        camera.frame(false);
        seen.extend(take(&mut quick, camera.now));
    }
    let Next::Lagged { dropped } = slow.next(camera.now) else {
        panic!("pictures 660 ms old were delivered")
    };
    assert_eq!(dropped, 20);
    let figures = camera.hub.figures();
    assert_eq!((figures.dropped, figures.overflows), (20, 1), "and that is counted");
    camera.frames(2);
    seen.extend(take(&mut quick, camera.now));
    assert_eq!(take(&mut slow, camera.now), [21, 22]);
    assert_eq!(seen, (0..=22).collect::<Vec<_>>());
}

#[test]
fn after_the_camera_was_away_nobody_is_shown_what_was_before() {
    let mut camera = Camera::new(false);
    camera.frame(true);
    camera.frames(10);
    let mut viewer = camera.hub.subscribe(camera.now);
    assert_eq!(take(&mut viewer, camera.now).len(), 11);
    camera.hub.camera_away("the cable is out");
    assert_eq!(camera.hub.trouble().as_deref(), Some("the cable is out"));
    let mut joiner = camera.hub.subscribe(camera.now);
    assert!(take(&mut joiner, camera.now).is_empty());
    camera.hub.set_format(FORMAT, false);
    assert_eq!(camera.hub.trouble(), None);
    camera.frame(true);
    assert_eq!(take(&mut joiner, camera.now), [11]);
    assert_eq!(take(&mut viewer, camera.now), [11]);
}

#[test]
fn a_day_without_key_frames_or_viewers_takes_no_memory() {
    let mut camera = Camera::new(true);
    camera.frame(true);
    camera.frames(100_000);
    assert!(camera.hub.lock().ring.len() < 20);
    let mut endless = Camera::new(false);
    endless.frame(true);
    for _ in 0..40 {
        let data: Arc<[u8]> = vec![1; 1 << 20].into();
        endless.hub.publish(
            AccessUnit {
                data,
                time: MediaTime::default(),
                captured: endless.now,
                key: false,
            },
            endless.now,
        );
        endless.now += FRAME;
    }
    assert!(endless.hub.lock().bytes <= MAX_RING_BYTES);
    assert!(endless.hub.figures().evicted > 0, "what does not fit is counted");
    assert_eq!(camera.hub.figures().evicted, 0, "what is only old is no loss");
    let figures = camera.hub.figures();
    assert_eq!((figures.pictures, figures.key_frames, figures.bytes), (100_001, 1, 9 * 100_001));
    let mut joiner = endless.hub.subscribe(endless.now);
    assert!(
        take(&mut joiner, endless.now).is_empty(),
        "its key frame is gone, so it can't be joined"
    );
}

#[test]
fn a_picture_is_packetized_once_for_all() {
    let mut camera = Camera::new(true);
    let (mut one, mut two) = (camera.hub.subscribe(camera.now), camera.hub.subscribe(camera.now));
    camera.frame(true);
    let [first, second] = [&mut one, &mut two].map(|viewer| match viewer.next(camera.now) {
        Next::Picture { picture, .. } => picture,
        other => panic!("{other:?} instead of a picture"),
    });
    assert!(Arc::ptr_eq(first.payloads(), second.payloads()));
}
