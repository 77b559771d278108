//! One camera as viewers ask for it.

use std::sync::Arc;

use super::Hub;
use crate::media::Quality;

/// A camera as viewers ask for it: its rungs.
#[derive(Clone)]
pub struct Stream {
    pub high: Arc<Hub>,
    /// Absent where it is switched off, or can never be.
    low: Option<Arc<Hub>>,
}

impl Stream {
    /// A camera called `name`; with a low rung if that is wanted.
    #[must_use]
    pub fn new(name: &str, with_low: bool) -> Self {
        let high = Hub::new(name);
        let low = with_low.then(|| Hub::low(&high));
        Self { high, low }
    }

    /// The camera's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.high.name()
    }

    /// All rungs, the high one first.
    pub fn rungs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        std::iter::once(&self.high).chain(&self.low)
    }

    /// The low rung, whether or not it can be had now.
    #[must_use]
    pub fn low(&self) -> Option<&Arc<Hub>> {
        self.low.as_ref()
    }

    /// The rung for who wishes for `quality`: the high one where no other can be had.
    #[must_use]
    pub fn rung(&self, quality: Quality) -> &Arc<Hub> {
        let low = self.low().filter(|hub| quality == Quality::Low && hub.size().is_some());
        low.unwrap_or(&self.high)
    }
}
