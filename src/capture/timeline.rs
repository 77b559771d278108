//! Media time of captured pictures.

use std::time::Instant;

use crate::media::MediaTime;

/// Turns moments of capture into media time that always rises.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    epoch: Option<Instant>,
    last: Option<MediaTime>,
}

impl Timeline {
    /// Media time that is 0 at `epoch`: what has the same epoch gives a picture the same time. Without one it is 0 with the first picture.
    pub fn since(epoch: Instant) -> Self {
        Self {
            epoch: Some(epoch),
            last: None,
        }
    }

    /// The media time of a picture captured at `captured`: at least one tick after that of the picture before.
    pub fn stamp(&mut self, captured: Instant) -> MediaTime {
        let epoch = *self.epoch.get_or_insert(captured);
        let time = MediaTime::since(epoch, captured);
        let time = self.last.map_or(time, |last| time.max(MediaTime::from_ticks(last.ticks() + 1)));
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn media_time_rises_even_when_capture_times_do_not() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        let ticks: Vec<_> = [0, 40, 40, 30, 80]
            .map(|ms| timeline.stamp(start + Duration::from_millis(ms)).ticks())
            .to_vec();
        assert_eq!(ticks, [0, 3600, 3601, 3602, 7200]);
    }
}
