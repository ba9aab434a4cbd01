//! Images of one process that became one.

use serde::{Deserialize, Serialize};

/// Later images whose figures are in those of an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// How many.
    pub images: u64,
    /// The generations of some of them, in which calls were refused: of these examples may have been told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<u64>,
    /// One of them had the peak: what is known of who made the VMAs of the older one says nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outgrown: bool,
}

impl Joined {
    /// These as well, which had no larger peak.
    pub fn add(&mut self, more: Self) {
        self.images = self.images.saturating_add(more.images);
        self.generations.extend(more.generations);
    }
}
