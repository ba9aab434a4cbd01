//! What is made of events and figures: the audit, verdicts, advice, budgets. Pure: no file, no clock, no environment.

pub mod application;
pub mod arguments;
pub mod audit;
pub mod budget;
pub(crate) mod c_library;
pub mod cgroup;
pub mod compare;
pub mod diagnosis;
mod elsewhere;
pub mod end;
pub(crate) mod exactness;
pub mod groups;
pub(crate) mod growth;
pub mod limit;
pub mod notation;
pub mod process_filter;
pub mod recommend;
pub mod repeats;
pub mod report;
pub mod requirements;
pub mod scan;
pub(crate) mod series;
mod task_names;
pub mod unit;
pub(crate) mod vma_cost;
pub(crate) mod vma_layout;
pub mod whole_since;
