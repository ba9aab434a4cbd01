//! What is kept of one process, and of one address space.

use std::collections::BTreeMap;

use super::names::Names;
use crate::model::event::{Credit, Event, Interval, Sample};
use crate::model::makers::Cut;
use crate::os::clock::now_ns;

pub struct Process {
    /// When it was met.
    pub met_ns: u64,
    pub mms: BTreeMap<u64, Event>,
    /// When its last address space ended; `None`: one lives.
    pub dead_ns: Option<u64>,
    pub facts: BTreeMap<&'static str, Event>,
    /// Looks before the stretch: the first, the largest and the last.
    pub looks: Vec<Sample>,
    pub gone_ns: Option<u64>,
}

impl Process {
    pub fn met_now() -> Self {
        let (mms, facts) = (BTreeMap::new(), BTreeMap::new());
        Self { met_ns: now_ns(), mms, dead_ns: None, facts, looks: Vec::new(), gone_ns: None }
    }

    /// Nobody knows whether it lives.
    pub fn is_unknown(&self) -> bool {
        self.mms.is_empty() && self.looks.is_empty() && self.gone_ns.is_none()
    }

    pub fn ended_ns(&self) -> Option<u64> {
        self.dead_ns.or(self.gone_ns.filter(|_| self.mms.is_empty()))
    }

    /// Calls that were refused.
    pub fn refused(&self) -> u64 {
        let of = |event: &Event| match event {
            Event::Mm(state) => state.refusals.iter().map(|group| group.count).sum(),
            _ => 0,
        };
        self.mms.values().map(of).fold(0, u64::saturating_add)
    }
}

pub struct Space {
    pub met_ns: u64,
    /// Its figures were told.
    pub known: bool,
    /// The last interval before the stretch in which it changed.
    pub level: Option<Interval>,
    /// Who was credited with what it had then: see `domain::audit::makers`.
    pub credits: Vec<Credit>,
    pub facts: BTreeMap<&'static str, Event>,
    pub places: Names,
    pub names: Names,
}

impl Space {
    pub fn met_now() -> Self {
        let (credits, facts, names) = (Vec::new(), BTreeMap::new(), Names::default());
        let places = Names::default();
        Self { met_ns: now_ns(), known: false, level: None, credits, facts, places, names }
    }

    pub fn all_names(&self) -> usize {
        self.names.len() + self.places.len()
    }

    pub fn credit(&mut self, credit: Credit) {
        if credit.level <= credit.base {
            return;
        }
        while let Some(top) = self.credits.last_mut() {
            match Cut::of((top.base, top.level), credit.base) {
                Cut::Stays => break,
                Cut::To(level) => top.level = level,
                Cut::Goes => drop(self.credits.pop()),
            }
        }
        self.credits.push(credit);
    }
}

pub fn peak(event: &Event) -> u32 {
    match event {
        Event::Mm(state) => state.peak,
        _ => 0,
    }
}
