//! Refused calls that are told as one.

use vmaudit_common::call::Call;

use crate::model::report::{Failure, Outcome};

/// Where an example is: its address space, call, errno and class, and the place that it came from (0: none is kept).
pub type Place = (u64, Call, u8, u64, u64);

/// Refused calls of one process that are alike.
#[derive(Clone, Debug)]
pub struct Group {
    pub call: Call,
    /// Of the failure's example.
    pub example: Option<Place>,
    /// What became of the need.
    pub outcome: Outcome,
    /// vm.max_map_count had no part.
    pub limit_excluded: bool,
    pub failure: Failure,
}
