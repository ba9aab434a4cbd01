//! The rows of who made the VMAs of a process's peak, and whose stacks are followed and named for them.

use std::collections::{HashMap, HashSet};

use vmaudit_common::call::Call;
use vmaudit_common::{MAKERS_COPIES, MAKERS_START};

use super::Seen;
use crate::domain::audit::{Audit, Process};
use crate::model::cause::name_of;
use crate::model::event::{MmState, ProcessId};
use crate::model::makers::{MIXED, Maker, Nobody, UNCOPIED};
use crate::model::report::Frame;

/// Rows of one process that name a place.
const ROWS: usize = 40;
/// Address spaces whose stacks are followed beside those that the report shows, those with the largest peaks.
const MORE_FOLLOWED: usize = 5;
/// Address spaces whose stacks are followed at all.
const FOLLOWED: usize = 32;
/// Of addresses alone.
const UNNAMED: &str =
    "These addresses have no names: nobody could look at the mappings of the process while it lived.";
/// The same of address spaces beyond those.
const NOT_LOOKED_UP: &str = "These addresses have no names: names were looked up in some address spaces only, first in \
                             those of processes that were refused calls or stood above a tenth of the limit, then in \
                             those with the largest peaks.";

impl Audit {
    /// Address spaces whose credited stacks are to be followed: of processes that were refused calls or stood above a tenth
    /// of the limit, then those with a ledger, and of some others with large peaks.
    pub fn makers_followed(&self) -> HashSet<u64> {
        let limit = self.limits.max_map_count.unwrap_or(u64::MAX);
        let with_ledger: HashSet<u64> = self.ledgers().map(|mm| mm.generation).collect();
        let mut all: Vec<(bool, bool, u32, u64)> = self
            .processes
            .values()
            .filter_map(|process| Some((process, top(process)?)))
            .filter(|(_, mm)| mm.peak >= MAKERS_COPIES && self.makers.of(mm.generation).is_some())
            .map(|(process, mm)| {
                let shown = process.refused() > 0 || u64::from(mm.peak) >= limit / 10;
                let generation = self.makers.shown_for(mm.generation);
                (shown, with_ledger.contains(&generation), mm.peak, generation)
            })
            .collect();
        let known: HashSet<u64> = all.iter().map(|(.., generation)| *generation).collect();
        let others = self.ledgers().filter(|mm| !known.contains(&mm.generation));
        all.extend(others.map(|mm| (false, true, mm.peak, mm.generation)));
        all.sort_unstable_by(|a, b| b.cmp(a));
        let shown = all.iter().filter(|(shown, ledger, ..)| *shown || *ledger).count();
        all.truncate((shown + MORE_FOLLOWED).min(FOLLOWED));
        all.into_iter().map(|(.., generation)| generation).collect()
    }

    /// From here on it is known where.
    pub(in crate::domain::audit) fn looks_names_up(&mut self) {
        self.makers.looked_up = (!self.makers.names_in_all).then(|| self.stacks_of());
    }

    /// The address space that this process's makers are of.
    pub fn makers_in(&self, pid: u32) -> Option<u64> {
        let of = |start_ns| ProcessId { tgid: pid, start_ns };
        let (_, process) = self.processes.range(of(0)..=of(u64::MAX)).next_back()?;
        Some(top(process)?.generation)
    }

    /// Rows of a process: they add up to its peak. Empty where nobody looked.
    pub(in crate::domain::audit) fn makers_of(&self, process: &Process) -> Vec<Maker> {
        // Who made a peak of before a stretch is not in it.
        let seen = |mm: &&MmState| self.stretch_ns.is_none_or(|from_ns| mm.peak_ns >= from_ns);
        let Some(mm) = top(process).filter(seen) else { return Vec::new() };
        let Some(pile) = self.makers.of(mm.generation) else { return Vec::new() };
        let generation = self.makers.shown_for(mm.generation);
        let peak = u64::from(mm.peak);
        let first = pile.first.unwrap_or(mm.first).max(MAKERS_START - 1).min(mm.peak);
        let (sums, not_sampled) = pile.sums(first, mm.peak);
        let mut rows: Vec<Maker> = Vec::new();
        let mut known: HashMap<(Call, Vec<Frame>), usize> = HashMap::new();
        for ((call, place), count) in sums {
            let Stack { frames, notes, cut } = self.stack_of_place(generation, place);
            let key = (call, frames.iter().map(alike).collect());
            match known.get(&key).and_then(|&at| rows.get_mut(at)) {
                Some(row) => {
                    row.count += count;
                    let mixed = |notes: &[String]| notes.iter().any(|note| note == MIXED);
                    let either = mixed(&row.stack_notes) || mixed(&notes);
                    // The same functions up to the first one: what one copy shows, the other need not.
                    if row.cut && !cut {
                        (row.cut, row.stack_notes) = (cut, notes);
                    }
                    if either && !mixed(&row.stack_notes) {
                        row.stack_notes.push(MIXED.to_owned());
                    }
                }
                None => {
                    known.insert(key, rows.len());
                    rows.push(Maker {
                        count,
                        share: 0.0,
                        syscall: Some(name_of(call).to_owned()),
                        stack: frames,
                        stack_notes: notes,
                        cut,
                        nobody: None,
                    });
                }
            }
        }
        rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.syscall.cmp(&b.syscall)));
        let others = rows.drain(ROWS.min(rows.len())..).fold(0u64, |sum, row| sum.saturating_add(row.count));
        let credited = rows.iter().fold(others, |sum, row| sum.saturating_add(row.count));
        let before = peak.saturating_sub(credited).saturating_sub(not_sampled);
        let nobody =
            [(Nobody::OtherPlaces, others), (Nobody::Before, before), (Nobody::NotSampled, not_sampled)];
        rows.extend(nobody.into_iter().filter(|(_, count)| *count > 0).map(|(why, count)| Maker {
            count,
            share: 0.0,
            syscall: None,
            stack: Vec::new(),
            stack_notes: Vec::new(),
            cut: false,
            nobody: Some(why),
        }));
        // What people read is in the counts; more digits say no more.
        rows.iter_mut().for_each(|row| row.share = (row.count as f64 * 1e6 / peak as f64).round() / 1e6);
        rows
    }

    pub(in crate::domain::audit) fn stack_of_place(&self, generation: u64, place: u32) -> Stack {
        let Some(Seen { place, followed }) = self.makers.places.get(&(generation, place)) else {
            return Stack::default();
        };
        let addresses: Vec<u64> = match followed {
            Some(it) if !it.addresses.is_empty() => it.addresses.clone(),
            _ => self.callers(generation, place.caller, &place.stack).collect(),
        };
        let (frames, more) = self.frames_at(generation, &addresses);
        let cut = more.is_some() || followed.as_ref().is_none_or(|it| it.cut);
        let mut notes = followed.as_ref().map(|it| it.notes.clone()).unwrap_or_default();
        notes.extend(more);
        let named = |ip: &u64| self.frames.contains_key(&(generation, *ip));
        if !addresses.is_empty() && !addresses.iter().any(named) && notes.is_empty() {
            let looked_up = self.makers.looked_up.as_ref().is_none_or(|them| them.contains(&generation));
            notes.push(if looked_up { UNNAMED } else { NOT_LOOKED_UP }.to_owned());
        }
        if followed.is_none() && !addresses.is_empty() {
            notes.push(UNCOPIED.to_owned());
        }
        Stack { frames, notes, cut }
    }
}

/// A stack as the report has it.
#[derive(Default)]
pub(in crate::domain::audit) struct Stack {
    pub(in crate::domain::audit) frames: Vec<Frame>,
    pub(in crate::domain::audit) notes: Vec<String>,
    pub(in crate::domain::audit) cut: bool,
}

/// The image that the process's peak is of.
fn top(process: &Process) -> Option<&MmState> {
    process.own().max_by(|a, b| a.peak.cmp(&b.peak).then(b.generation.cmp(&a.generation)))
}

/// What two frames of the same line have in common.
pub(in crate::domain::audit) fn alike(frame: &Frame) -> Frame {
    match frame.symbol {
        Some(_) => Frame { ip: None, offset: None, ..frame.clone() },
        None => frame.clone(),
    }
}
