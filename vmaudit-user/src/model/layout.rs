//! Where in an address space VMAs lie.

use serde::{Deserialize, Serialize};

use crate::model::vma_layout::Cluster;

/// Where the VMAs of a process lay when somebody looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Layout {
    /// When the look began, seconds since the session's start.
    pub at_s: f64,
    /// What made vmaudit look.
    pub moment: Moment,
    /// VMAs that the look found.
    pub vmas_read: u64,
    /// All were read; else those at the lowest addresses.
    pub complete: bool,
    /// Stretches of addresses with wide empty space between them, the lowest first; addresses are null where they are not
    /// the caller's to know.
    pub rows: Vec<Cluster>,
}

/// What a look at an address space followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A call that was refused for want of VMAs or of addresses.
    Refusal,
    /// The session was over, and the process lived.
    SessionEnd,
}

impl Layout {
    /// Takes out all addresses.
    pub fn hide_addresses(&mut self) {
        self.rows.iter_mut().for_each(Cluster::hide_addresses);
    }
}

/// Where the VMAs of an address space lay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Laid {
    /// Address space.
    pub generation: u64,
    /// What was found.
    pub layout: Layout,
}
