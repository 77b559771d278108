//! Fan-out: one publisher, any number of viewers, and no viewer that the camera ever waits for.
//!
//! The hub keeps one ring of pictures, from the newest key frame on. A [`Subscription`] is a place in that ring, so a
//! picture costs the publisher the same for one viewer as for a hundred. A subscription that falls more than
//! [`MAX_LAG`] behind is cleared and goes on at the next key frame.

mod stream;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::media::{AccessUnit, Quality, StreamFormat, TargetCell, rtp};

pub use stream::Stream;

/// How far a viewer may fall behind: what is older would only be shown late.
pub const MAX_LAG: Duration = Duration::from_millis(250);

/// A key frame up to this age is worth starting with; an older one is replaced by a forced one, where that can be had.
/// As long as [`crate::media::KeyFrameGate::INTERVAL`], so that a join never waits for the gate.
pub const FRESH: Duration = Duration::from_millis(300);

/// How long a viewer who begins behind may take to catch up. A group of pictures of 10 s at 2.5 Mbit/s takes 1.25 s at the
/// session's pace; meanwhile the pictures that come live wait their turn.
const CATCH_UP_TIME: Duration = Duration::from_secs(2);

/// What the ring holds at most. A group of pictures that is larger can't be joined in its middle.
const MAX_RING_BYTES: usize = 16 * 1024 * 1024;

/// One picture as viewers get it.
#[derive(Debug)]
pub struct Picture {
    /// The access unit it was made of.
    pub unit: AccessUnit,
    payloads: OnceLock<Arc<[Arc<[u8]>]>>,
}

impl Picture {
    /// A picture that is packetized when the first viewer asks.
    #[must_use]
    pub fn new(unit: AccessUnit) -> Self {
        Self {
            unit,
            payloads: OnceLock::new(),
        }
    }

    /// Its RTP payloads, made once and shared by all viewers.
    pub fn payloads(&self) -> &Arc<[Arc<[u8]>]> {
        self.payloads.get_or_init(|| rtp::packetize(&self.unit.data).into())
    }
}

/// Tells a driver that there is something new. Must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The meeting point of one encoder of a camera, and its viewers.
pub struct Hub {
    name: String,
    quality: Quality,
    /// What this rung is made of: who watches it keeps the camera going.
    source: Option<Arc<Hub>>,
    target: TargetCell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ring: VecDeque<Entry>,
    /// The ring's first entry's place in the stream.
    first: u64,
    bytes: usize,
    newest_key: Option<u64>,
    format: Option<StreamFormat>,
    size: Option<(u32, u32)>,
    forces_key_frames: bool,
    trouble: Option<String>,
    subscribers: usize,
    wakes: Vec<Wake>,
    figures: Figures,
}

/// What a stream has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Pictures published, key frames among them.
    pub pictures: u64,
    pub key_frames: u64,
    /// Of H.264, as the camera delivered it.
    pub bytes: u64,
    /// Pictures that the camera made and that were lost or damaged before the agent had them.
    pub skipped: u64,
    /// Pictures not sent to a viewer who was more than [`MAX_LAG`] behind; one picture counts once for each viewer.
    pub dropped: u64,
    /// How often a viewer was that far behind.
    pub overflows: u64,
    /// Pictures forgotten because a group of pictures was larger than the ring.
    pub evicted: u64,
    /// When the newest picture came.
    pub newest: Option<Instant>,
    /// Whether no pictures are made because nobody watches.
    pub resting: bool,
}

struct Entry {
    picture: Arc<Picture>,
    published: Instant,
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn get(&self, place: u64) -> Option<&Entry> {
        self.ring.get(usize::try_from(place.checked_sub(self.first)?).ok()?)
    }

    /// Forgets what nobody can need: what is too old for a running viewer, and no joiner will start with.
    fn trim(&mut self, now: Instant) {
        while let Some(entry) = self.ring.front() {
            let joinable = !self.forces_key_frames && self.newest_key.is_some_and(|key| self.first >= key);
            let stale = now.saturating_duration_since(entry.published) > MAX_LAG.max(FRESH);
            if (joinable || !stale) && self.bytes <= MAX_RING_BYTES {
                return;
            }
            self.figures.evicted += u64::from(joinable || !stale);
            self.bytes -= entry.picture.unit.data.len();
            if self.newest_key == Some(self.first) {
                self.newest_key = None;
            }
            self.ring.pop_front();
            self.first += 1;
        }
    }
}

impl Hub {
    /// A hub for the stream called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            quality: Quality::High,
            source: None,
            target: TargetCell::default(),
            state: Mutex::default(),
        })
    }

    /// A hub for the low rung of what `high` shows.
    fn low(high: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            name: high.name.clone(),
            quality: Quality::Low,
            source: Some(Arc::clone(high)),
            target: TargetCell::default(),
            state: Mutex::default(),
        })
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of the camera's rungs this is.
    #[must_use]
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// Where viewers leave what they want of the encoder.
    #[must_use]
    pub fn target(&self) -> &TargetCell {
        &self.target
    }

    /// Wakes are called after each picture.
    pub fn add_wake(&self, wake: Wake) {
        self.lock().wakes.push(wake);
    }

    /// What the stream is, once the camera has shown it.
    #[must_use]
    pub fn format(&self) -> Option<StreamFormat> {
        self.lock().format
    }

    /// How large its pictures are, in pixels, or would be if somebody watched. `None`: not known yet, or there can be none.
    #[must_use]
    pub fn size(&self) -> Option<(u32, u32)> {
        self.lock().size
    }

    /// Pictures of this size can be had here from now on; `None`: none at all. What was shown before is not shown any more.
    pub fn offer(&self, size: Option<(u32, u32)>) {
        self.forget_pictures();
        let mut state = self.lock();
        state.size = size;
        state.trouble = None;
    }

    /// The camera is live with this format; pictures of an earlier opening are forgotten, since nothing may follow them.
    pub fn set_format(&self, format: StreamFormat, forces_key_frames: bool) {
        self.offer(Some((format.width, format.height)));
        let mut state = self.lock();
        state.format = Some(format);
        state.forces_key_frames = forces_key_frames;
    }

    /// The camera is away, for a reason that people understand. Viewers stay, and wait.
    pub fn camera_away(&self, reason: &str) {
        self.forget_pictures();
        self.lock().trouble = Some(reason.to_owned());
    }

    /// Nobody watches, so no pictures are made until somebody comes; what was shown before is not shown to them.
    pub fn rest(&self, resting: bool) {
        if resting {
            self.forget_pictures();
        }
        self.lock().figures.resting = resting;
    }

    /// Why the camera is away, if it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// What was shown before must not be shown to anybody as now.
    fn forget_pictures(&self) {
        let mut state = self.lock();
        state.first = state.end();
        state.ring.clear();
        state.bytes = 0;
        state.newest_key = None;
    }

    /// Hands one picture to all viewers. Never waits for any of them.
    pub fn publish(&self, unit: AccessUnit, now: Instant) {
        let picture = Arc::new(Picture::new(unit));
        if self.lock().subscribers > 0 {
            picture.payloads();
        }
        let mut state = self.lock();
        if picture.unit.key {
            state.newest_key = Some(state.end());
        }
        state.figures.pictures += 1;
        state.figures.key_frames += u64::from(picture.unit.key);
        state.figures.bytes += picture.unit.data.len() as u64;
        state.figures.newest = Some(now);
        state.bytes += picture.unit.data.len();
        state.ring.push_back(Entry { picture, published: now });
        state.trim(now);
        let wakes = state.wakes.clone();
        drop(state);
        for wake in wakes {
            wake();
        }
    }

    /// Notes pictures that the camera made and that were lost before they got here.
    pub fn note_skipped(&self, pictures: u64) {
        self.lock().figures.skipped += pictures;
    }

    /// What the stream has counted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.lock().figures
    }

    /// A new viewer's place: the newest key frame where that is fresh, or all there is since it where the source can't
    /// force one; else a forced key frame, which is asked for here.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, now: Instant) -> Subscription {
        self.lock().subscribers += 1;
        self.target.come();
        if let Some(source) = &self.source {
            source.target.come();
        }
        let mut subscription = Subscription {
            hub: Arc::clone(self),
            place: Place::Key { from: 0 },
        };
        subscription.wait_for_key(0, now);
        subscription
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One viewer's place in the stream.
pub struct Subscription {
    hub: Arc<Hub>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// Waits for a key frame at this place or later.
    Key { from: u64 },
    /// The next picture to deliver. Up to `grace`, or until it has caught up with the newest, it may be late.
    At { next: u64, grace: Option<Instant> },
}

/// What [`Subscription::next`] found.
#[derive(Debug)]
pub enum Next {
    /// The next picture. `backlog` pictures wait behind it.
    Picture { picture: Arc<Picture>, backlog: u64 },
    /// Nothing yet; the hub's wake tells when.
    Nothing,
    /// The viewer was too slow: so many pictures were dropped, and it goes on at the next key frame.
    Lagged { dropped: u64 },
}

impl Subscription {
    /// The stream this is a place in.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Whether the viewer has caught up with what is live; what it was sent before may be old by intention.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.place, Place::At { grace: None, .. })
    }

    /// The next picture for this viewer.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut state = self.hub.lock();
        if let Place::Key { from } = self.place {
            match state.newest_key {
                Some(key) if key >= from => {
                    self.place = Place::At {
                        next: key,
                        grace: Some(now + CATCH_UP_TIME),
                    }
                }
                Some(_) | None => {
                    if state.end() > from {
                        // Asked again with each picture: the key frame may have been made and dropped while nobody looked.
                        self.hub.target.request_key_frame();
                    }
                    return Next::Nothing;
                }
            }
        }
        let Place::At { next, grace } = self.place else {
            return Next::Nothing;
        };
        if next == state.end() {
            self.place = Place::At { next, grace: None };
            return Next::Nothing;
        }
        let in_grace = grace.is_some_and(|until| now <= until);
        // Whoever is still catching up when a new group of pictures begins has caught up with it.
        let next = match state.newest_key {
            Some(key) if in_grace && key > next => key,
            Some(_) | None => next,
        };
        let entry = state.get(next);
        let late = entry.is_none_or(|entry| !in_grace && now.saturating_duration_since(entry.published) > MAX_LAG);
        match entry {
            Some(entry) if !late => {
                let picture = Arc::clone(&entry.picture);
                self.place = Place::At { next: next + 1, grace };
                Next::Picture {
                    picture,
                    backlog: state.end() - next - 1,
                }
            }
            Some(_) | None => {
                let end = state.end();
                state.figures.dropped += end - next;
                state.figures.overflows += 1;
                drop(state);
                self.wait_for_key(next + 1, now);
                Next::Lagged { dropped: end - next }
            }
        }
    }

    /// The viewer can't go on without a key frame (PLI, FIR, loss). Pictures go on flowing meanwhile.
    pub fn request_key_frame(&self) {
        self.hub.target.request_key_frame();
    }

    /// Goes on at a key frame at `earliest` or later: the newest one if that will do, else one that is asked for.
    fn wait_for_key(&mut self, earliest: u64, now: Instant) {
        let state = self.hub.lock();
        let usable = state.newest_key.filter(|key| {
            let fresh = state
                .get(*key)
                .is_some_and(|entry| now.saturating_duration_since(entry.published) <= FRESH);
            *key >= earliest && (fresh || !state.forces_key_frames)
        });
        let from = usable.unwrap_or_else(|| state.end());
        drop(state);
        self.place = Place::Key { from };
        if usable.is_none() {
            self.hub.target.request_key_frame();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.target.leave();
        if let Some(source) = &self.hub.source {
            source.target.leave();
        }
        let mut state = self.hub.lock();
        state.subscribers = state.subscribers.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
