//! Tests, as those who run them call them.

use serde::{Deserialize, Serialize};

use super::process_id::ProcessId;

/// The test that a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOf {
    /// Process.
    pub process: ProcessId,
    /// What its runner calls the test.
    pub test: String,
    /// The process belongs to none (`test` is empty), or nobody knows to which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<WithoutTest>,
}

/// Why no test is told of a process that began while a runner of tests was at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutTest {
    /// It belongs to none.
    None,
    /// It was over before it could be asked, or nobody could ask.
    Unknown,
}

impl TestOf {
    /// This test.
    pub fn named(process: ProcessId, test: String) -> Self {
        Self { process, test, without: None }
    }

    /// No test.
    pub fn without(process: ProcessId, why: WithoutTest) -> Self {
        Self { process, test: String::new(), without: Some(why) }
    }
}
