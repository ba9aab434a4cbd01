//! Where in a picture of counts over time a moment and a count lie.

/// Where things lie in a picture.
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) seconds: f64,
    pub(super) most: f64,
    pub(super) narrow: bool,
}

impl Frame {
    pub(super) fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.seconds).clamp(0.0, 1.0);
        self.left + share * (self.right - self.left)
    }

    pub(super) fn y(&self, count: f64) -> f64 {
        self.bottom - (count / self.most).clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}
