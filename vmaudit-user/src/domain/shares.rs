//! Who has passed which share of vm.max_map_count.

use std::collections::HashMap;

use crate::model::event::{Event, ProcessId};

/// Processes that are remembered.
const REMEMBERED: usize = 100_000;

/// Watches for shares of the limit.
#[derive(Debug)]
pub struct Shares {
    /// Percent, ascending.
    at: Vec<f64>,
    limit: Option<u64>,
    /// How many of `at` each process has passed.
    passed: HashMap<ProcessId, usize>,
}

/// A process that has just passed one.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The process.
    pub process: ProcessId,
    /// Its name.
    pub comm: String,
    /// VMAs at its peak.
    pub peak: u64,
    /// vm.max_map_count.
    pub limit: u64,
    /// What the peak is of it, percent.
    pub percent: f64,
    /// The share that was passed, percent.
    pub at: f64,
    /// It is the first that this process passes.
    pub first: bool,
}

impl Shares {
    /// `at`: percent. `None`: nothing is asked for.
    pub fn new(at: &[f64]) -> Option<Self> {
        let mut at = at.to_vec();
        at.sort_by(f64::total_cmp);
        at.dedup();
        (!at.is_empty()).then_some(Self { at, limit: None, passed: HashMap::new() })
    }

    /// Takes an event; tells whoever passes a share with it, the largest if several.
    pub fn take(&mut self, event: &Event) -> Option<Passed> {
        match event {
            Event::Limits(limits) => self.limit = limits.max_map_count.or(self.limit),
            Event::LimitSeen(seen) => self.limit = Some(seen.max_map_count.into()),
            Event::Mm(state) if state.host.is_none() => {
                return self.look(state.process, &state.comm, state.peak.into());
            }
            Event::Sample(sample) => {
                return self.look(sample.process, &sample.comm, sample.map_count?.into());
            }
            _ => {}
        }
        None
    }

    fn look(&mut self, process: ProcessId, comm: &str, peak: u64) -> Option<Passed> {
        let limit = self.limit.filter(|limit| *limit > 0)?;
        let percent = peak as f64 * 100.0 / limit as f64;
        let now = self.at.iter().filter(|at| percent >= **at).count();
        let before = self.passed.get(&process).copied().unwrap_or(0);
        if now <= before {
            return None;
        }
        if self.passed.len() >= REMEMBERED {
            self.passed.clear();
        }
        self.passed.insert(process, now);
        let at = *self.at.get(now - 1)?;
        Some(Passed { process, comm: comm.to_owned(), peak, limit, percent, at, first: before == 0 })
    }
}
