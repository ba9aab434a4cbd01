//! What can be written.

use crate::model::difference::Difference;
use crate::model::doctor::Doctor;
use crate::model::fleet::Fleet;
use crate::model::limit::{Known, LimitReport, Plan};
use crate::model::report::Report;
use crate::model::scan::Scan;
use crate::model::vma_layout::Explanation;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// Of a session.
    Report(&'a Report),
    /// Of `scan`.
    Scan(&'a Scan),
    /// Of `explain`.
    Explanation(&'a Explanation, bool),
    /// Of `limit`.
    Limit(&'a LimitReport),
    /// What `limit` did; or, when nothing was done, would do.
    Plan(&'a Plan, Done),
    /// Known needs of software.
    Known(&'a [Known]),
    /// Of `doctor`.
    Doctor(&'a Doctor),
    /// Of `diff`.
    Difference(&'a Difference),
    /// Of `report` of several files.
    Fleet(&'a Fleet),
}

/// Whether a plan was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was.
    Yes,
    /// It was only asked for.
    Not,
}

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a session.
    Report,
    /// The lines of `trace`.
    Stream,
    /// Of `scan`.
    Scan,
    /// Of `explain`.
    Explanation,
    /// Of `limit`.
    Limit,
    /// Of `limit --apply` and `--undo`.
    Plan,
    /// Of `limit --known`.
    Known,
    /// Of `doctor`.
    Doctor,
    /// Of `diff`.
    Difference,
    /// Of `report` of several files.
    Fleet,
}
