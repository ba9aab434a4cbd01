//! Refused calls of a process as rows of the report: grouped, each with its cause.

use std::collections::BTreeMap;
use std::rc::Rc;

use vmaudit_common::{
    CLASS_LIMIT_POLLED,
    call::{self, Call},
};

use crate::domain::audit::folded::{Alike, shorten};
use crate::domain::audit::group::{Group, Place};
use crate::domain::audit::rows::kept_bound;
use crate::domain::audit::{Audit, Process, places};
use crate::domain::diagnosis::{Question, Verdict};
use crate::domain::{arguments, c_library, diagnosis};
use crate::model::cause::name_of;
use crate::model::event::{MmState, Needed, ProcessId, RefusalGroup, RefusalSite, Refused};
use crate::model::report::{Accuracy, Cause, Example, Failure, Frame, Outcome, Site};
use crate::model::stack::FollowedStack;
use crate::text::total;

/// The GNU C library asks for a heap in twice its size or just so, aligned or not, with 8-byte and with 4-byte words
/// (malloc/arena.c:alloc_new_heap).
const MALLOC_HEAPS: [u64; 4] = [128 << 20, 64 << 20, 2 << 20, 1 << 20];
/// So: MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE.
const RESERVED: u64 = 0x4022;
/// Places told of one row.
const SITES: usize = 6;
const LIMIT_DOUBTFUL: &str = " vm.max_map_count changed about that time, and this kernel does not let vmaudit read it \
                              at the moment of a failure.";
const PARTLY_SEEN: &str = " The kernel skipped programs of vmaudit (program_skipped), so what this call did may have \
                           been seen only in part.";

/// What the refused calls of one row have in common: call, errno, cause, what became of the need, and in whose address space
/// they were made if not in the process's own.
type Key = (Call, u8, Cause, Outcome, Option<u32>);

/// Refusals of one kind with the same outcome.
#[derive(Clone)]
struct Part<'a> {
    mm: &'a MmState,
    refusals: &'a RefusalGroup,
    /// Of the kind, those with this outcome.
    count: u64,
    recovered: bool,
    /// Places whose refusals are all counted as recovered, see [`Audit::of_malloc`].
    of_malloc: Rc<[u64]>,
}

/// What kinds of one row have together.
struct Sums {
    count: u64,
    kept_bytes: u64,
    needed: Needed,
}

/// The most that one of these refused calls would have needed of each limit; 0 where that is not known of all.
fn needed(alike: &[Part<'_>]) -> Needed {
    let most = |of: fn(&Needed) -> u64| {
        let all = || alike.iter().map(|part| of(&part.refusals.needed));
        if all().any(|needed| needed == 0) { 0 } else { all().max().unwrap_or(0) }
    };
    Needed { total: most(|n| n.total), data: most(|n| n.data), locked: most(|n| n.locked) }
}

impl Part<'_> {
    /// Refusals at a place that have its outcome.
    fn of_site(&self, site: &RefusalSite) -> u64 {
        let recovered = if self.of_malloc.contains(&site.site) { site.count } else { site.recovered };
        if self.recovered { recovered } else { site.count.saturating_sub(recovered) }
    }

    /// Bytes that are put down to this part: a call that left something mapped did not get the like.
    fn kept_bytes(&self) -> u64 {
        if self.recovered { 0 } else { self.refusals.kept_bytes }
    }
}

impl Audit {
    /// The limit that these refusals were judged by may not be the one they met.
    fn limit_doubtful(&self, refusals: &RefusalGroup) -> bool {
        refusals.class & CLASS_LIMIT_POLLED != 0
            && self.limit.changed_within(refusals.first_ns, refusals.last_ns)
    }

    /// Failures of one process, grouped by (call, errno, cause, outcome).
    pub(super) fn failures_of(&self, id: ProcessId, process: &Process) -> Vec<Group> {
        let started_s = Some(self.seconds(process.started_ns));
        // What a row says, it says of all its kinds: so their sums come first.
        let mut kinds: BTreeMap<Key, Vec<Part<'_>>> = BTreeMap::new();
        for mm in &process.mms {
            for refusals in &mm.refusals {
                let example = self.example_of(mm, refusals).map(|(_, example)| example);
                let sums =
                    Sums { count: refusals.count, kept_bytes: refusals.kept_bytes, needed: refusals.needed };
                let verdict = self.verdict((mm, refusals), example, &sums);
                let of_malloc: Rc<[u64]> = self.of_malloc(mm, refusals).map(|site| site.site).collect();
                let without = |site: &&RefusalSite| of_malloc.contains(&site.site);
                let left = refusals
                    .sites
                    .iter()
                    .filter(without)
                    .map(|site| site.count.saturating_sub(site.recovered));
                let recovered = refusals.recovered.saturating_add(total(left)).min(refusals.count);
                let left = refusals.count - recovered;
                for (count, recovered) in [(recovered, true), (left, false)] {
                    let outcome = match recovered {
                        _ if verdict.ordinary => Outcome::Ordinary,
                        true => Outcome::Recovered,
                        false if verdict.probe && self.went_on(id, process, refusals.last_ns) => {
                            Outcome::Ordinary
                        }
                        false => Outcome::Unrecovered,
                    };
                    if count > 0 {
                        let key = (refusals.call, refusals.errno, verdict.cause, outcome, host_of(mm));
                        kinds.entry(key).or_default().push(Part {
                            mm,
                            refusals,
                            count,
                            recovered,
                            of_malloc: Rc::clone(&of_malloc),
                        });
                    }
                }
            }
        }
        let mut groups: BTreeMap<Key, Group> = kinds
            .into_iter()
            .filter_map(|(key, alike)| Some((key, self.group((id, process), key, &alike)?)))
            .collect();
        for mm in &process.mms {
            // Kinds that found no place in the kernel's table are known by number only.
            for (call, stat) in &mm.calls {
                let explained = total(mm.refusals.iter().filter(|r| r.call == *call).map(|r| r.count));
                let unexplained = stat.failed.saturating_sub(explained);
                if unexplained > 0 {
                    let key = (*call, 0, Cause::Unknown, Outcome::Unrecovered, host_of(mm));
                    let group =
                        groups.entry(key).or_insert_with(|| unexplained_group(id, started_s, mm, *call));
                    group.failure.count = group.failure.count.saturating_add(unexplained);
                }
            }
        }
        groups.into_values().collect()
    }

    /// Places at which the C library's malloc asked for a heap of a thread's own, by their sizes and by the stack: without
    /// one it goes on, and what it is refused then is told for itself.
    fn of_malloc<'a>(
        &'a self,
        mm: &'a MmState,
        kind: &'a RefusalGroup,
    ) -> impl Iterator<Item = &'a RefusalSite> {
        kind.sites.iter().filter(move |site| {
            let place = (mm.generation, kind.call, kind.errno, kind.class, site.site);
            let sizes = [site.smallest_bytes, site.largest_bytes];
            kind.call == call::MMAP
                && sizes.iter().all(|bytes| MALLOC_HEAPS.contains(bytes))
                && self.examples.get(&place).is_some_and(|refused| {
                    let [_, _, access, flags, ..] = refused.args;
                    access == 0 && flags == RESERVED && self.called_by_c_library(refused)
                })
        })
    }

    /// The function that made the call, and its caller, are of the C library, be it that it was linked into the program.
    fn called_by_c_library(&self, refused: &Refused) -> bool {
        // The function's name since 2.35, which is nobody else's.
        const MALLOCS: Option<&str> = Some("alloc_new_heap");
        let of = |frame: &Frame| frame.module.as_deref().is_some_and(c_library::is);
        match self.stack_of(refused).0.as_slice() {
            [first, second, ..] => of(first) && of(second) || second.symbol.as_deref() == MALLOCS,
            _ => false,
        }
    }

    /// Failures of processes without a row of their own, as far as the end of the session lets them be told.
    pub(super) fn alike(&self, alike: &Alike) -> Group {
        let mut group = alike.group.clone();
        group.failure.example = alike.refused.as_ref().map(|refused| self.example(refused));
        shorten(&mut group.failure);
        if self.losses.doubt.causes {
            group.limit_excluded = false;
            if std::mem::replace(&mut group.failure.certain, false) {
                group.failure.sentence.push_str(PARTLY_SEEN);
            }
        }
        group
    }

    fn example_of(&self, mm: &MmState, refusals: &RefusalGroup) -> Option<(Place, &Refused)> {
        places(mm.generation, refusals).find_map(|place| Some((place, self.examples.get(&place)?)))
    }

    /// An example of this part: from the place that had most of its outcome.
    fn example_in(&self, part: &Part<'_>) -> Option<(Place, &Refused)> {
        let (generation, kind) = (part.mm.generation, part.refusals);
        let mut sites: Vec<_> =
            kind.sites.iter().map(|site| (part.of_site(site), site.last_ns, site.site)).collect();
        sites.retain(|(count, ..)| *count > 0);
        sites.sort_unstable_by_key(|site| std::cmp::Reverse(*site));
        let places =
            sites.into_iter().map(|(.., site)| (generation, kind.call, kind.errno, kind.class, site));
        let found = places.into_iter().find_map(|place| Some((place, self.examples.get(&place)?)));
        found.or_else(|| self.example_of(part.mm, kind))
    }

    /// The address space that the kind's example is of: images that were put together have examples of all of them.
    fn generation_of(&self, mm: &MmState, refusals: &RefusalGroup) -> u64 {
        self.example_of(mm, refusals).map_or(mm.generation, |(_, example)| example.generation)
    }

    /// Why the refusals of a kind were; `sums`: of all that the sentence speaks of.
    fn verdict(
        &self,
        (mm, refusals): (&MmState, &RefusalGroup),
        example: Option<&Refused>,
        sums: &Sums,
    ) -> Verdict {
        let question = Question {
            call: refusals.call,
            errno: refusals.errno,
            class: refusals.class,
            count: sums.count,
            kept_bytes: sums.kept_bytes,
            kept_bound: kept_bound(mm),
            needed: sums.needed,
            example,
            cgroup: self.cgroups.get(&self.generation_of(mm, refusals)),
            limits: &self.limits,
            kernel: &self.rules,
        };
        self.judge(&question, refusals)
    }

    /// Why this call was refused, by what is known so far: the same as a report would say now.
    pub fn verdict_of(&self, refused: &Refused) -> Verdict {
        let question = Question {
            call: refused.call,
            errno: refused.errno,
            class: refused.class,
            count: 1,
            kept_bytes: 0,
            kept_bound: Accuracy::Exact,
            needed: Needed::default(),
            example: Some(refused),
            cgroup: self.cgroups.get(&refused.generation),
            limits: &self.limits,
            kernel: &self.rules,
        };
        let alone = RefusalGroup {
            call: refused.call,
            errno: refused.errno,
            class: refused.class,
            count: 1,
            first_ns: refused.at_ns,
            last_ns: refused.at_ns,
            kept_bytes: 0,
            recovered: 0,
            needed: Needed::default(),
            sites: Vec::new(),
        };
        self.judge(&question, &alone)
    }

    /// The one place where what was not seen takes certainty from a verdict.
    fn judge(&self, question: &Question<'_>, refusals: &RefusalGroup) -> Verdict {
        let mut verdict = diagnosis::why(question);
        if self.losses.doubt.causes {
            verdict.limit_excluded = false;
            if std::mem::replace(&mut verdict.certain, false) {
                verdict.sentence.push_str(PARTLY_SEEN);
            }
        }
        if self.limit_doubtful(refusals) {
            verdict.certain = false;
            verdict.limit_excluded = false;
            verdict.sentence.push_str(LIMIT_DOUBTFUL);
        }
        verdict
    }

    /// The process went on without what it was refused: it lived on for a second, or ended with status 0.
    fn went_on(&self, id: ProcessId, process: &Process, refused_ns: u64) -> bool {
        const WENT_ON_NS: u64 = 1_000_000_000;
        let Some(ended_ns) = process.ended_ns else { return true };
        let exit = self.end.and_then(|end| end.exit).filter(|_| self.root == Some(id));
        let well = process.ended.as_ref().is_some_and(|ended| ended.status == 0);
        well || exit.is_some_and(|exit| exit.code == Some(0))
            || ended_ns.saturating_sub(refused_ns) >= WENT_ON_NS
    }

    /// One row of kinds that have their key in common.
    fn group(&self, (id, process): (ProcessId, &Process), key: Key, alike: &[Part<'_>]) -> Option<Group> {
        let (call, errno, cause, outcome, address_space_of) = key;
        let count = total(alike.iter().map(|part| part.count));
        let sums = Sums {
            count,
            kept_bytes: alike.iter().fold(0u64, |sum, part| sum.saturating_add(part.kept_bytes())),
            needed: needed(alike),
        };
        let examples = || alike.iter().map(|part| self.example_in(part));
        let verdict = |(part, example): (&Part<'_>, Option<(Place, &Refused)>)| {
            let refused = example.map(|(_, refused)| refused);
            self.verdict((part.mm, part.refusals), refused, &sums)
        };
        let verdicts: Vec<Verdict> = alike.iter().zip(examples()).map(verdict).collect();
        let limit_excluded = verdicts.iter().all(|verdict| verdict.limit_excluded);
        // The least certain speaks for all, because it names the other causes; of several one with an example, and of these
        // the most frequent.
        let (_, example, verdict) = alike
            .iter()
            .zip(examples())
            .zip(verdicts)
            .map(|((part, example), verdict)| (part.count, example, verdict))
            .min_by_key(|(count, example, verdict)| {
                (verdict.certain, example.is_none(), std::cmp::Reverse(*count))
            })?;
        let example = example.or_else(|| examples().flatten().next());
        let holders =
            || alike.iter().find_map(|part| self.holders.get(&self.generation_of(part.mm, part.refusals)));
        let (sites, elsewhere) = self.sites(alike, count);
        let failure = Failure {
            pid: id.tgid,
            started_s: Some(self.seconds(process.started_ns)),
            comm: alike.first()?.mm.comm.clone(),
            address_space_of,
            syscall: name_of(call).into(),
            errno: errno_name(errno),
            cause,
            outcome,
            certain: verdict.certain,
            count,
            processes: 1,
            various: false,
            first_at_s: alike.iter().map(|part| part.refusals.first_ns).min().map(|ns| self.seconds(ns)),
            last_at_s: alike.iter().map(|part| part.refusals.last_ns).max().map(|ns| self.seconds(ns)),
            example: example.map(|(_, example)| self.example(example)),
            sites,
            elsewhere,
            evidence: verdict.evidence,
            sentence: verdict.sentence,
            cure: verdict.cure,
            holders: holders()
                .filter(|look| match cause {
                    Cause::MaxMapCount => !look.by_size,
                    Cause::NoAddressRange => look.by_size,
                    _ => false,
                })
                .cloned(),
        };
        Some(Group { call, example: example.map(|(place, _)| place), outcome, limit_excluded, failure })
    }

    /// Where `count` calls were refused, the most frequent places and the last one, and how many were elsewhere. Places
    /// whose stacks have come out alike are one.
    fn sites(&self, alike: &[Part<'_>], count: u64) -> (Vec<Site>, u64) {
        let mut sites: Vec<Site> = Vec::new();
        for part in alike {
            let (generation, kind) = (part.mm.generation, part.refusals);
            for site in &kind.sites {
                let count = part.of_site(site);
                if count == 0 {
                    continue;
                }
                let place = (generation, kind.call, kind.errno, kind.class, site.site);
                let example = self.examples.get(&place);
                let sizes = site.largest_bytes > 0;
                let (stack, stack_notes) = example.map(|refused| self.stack_of(refused)).unwrap_or_default();
                let one = Site {
                    count,
                    first_at_s: self.seconds(site.first_ns),
                    last_at_s: self.seconds(site.last_ns),
                    smallest_bytes: sizes.then_some(site.smallest_bytes),
                    largest_bytes: sizes.then_some(site.largest_bytes),
                    stack,
                    stack_notes,
                };
                match sites.iter_mut().find(|known| known.stack == one.stack) {
                    Some(known) => known.add(&one),
                    None => sites.push(one),
                }
            }
        }
        sites.sort_by(|a, b| b.count.cmp(&a.count).then(a.first_at_s.total_cmp(&b.first_at_s)));
        let last = (0..sites.len()).max_by(|a, b| sites[*a].last_at_s.total_cmp(&sites[*b].last_at_s));
        if let Some(last) = last.filter(|last| *last >= SITES) {
            sites.swap(SITES - 1, last);
        }
        sites.truncate(SITES);
        let elsewhere = count.saturating_sub(total(sites.iter().map(|site| site.count)));
        (sites, elsewhere)
    }

    fn example(&self, refused: &Refused) -> Example {
        let (stack, stack_notes) = self.stack_of(refused);
        Example {
            tid: refused.tid,
            args: arguments::by_name(refused.call, &refused.args),
            stack,
            stack_notes,
        }
    }

    /// With what there is to say of it.
    fn stack_of(&self, refused: &Refused) -> (Vec<Frame>, Vec<String>) {
        let followed = self.followed(refused);
        let addresses: Vec<u64> = match followed {
            Some(it) if !it.addresses.is_empty() => it.addresses.clone(),
            _ => self.callers(refused.generation, refused.caller, &refused.stack).collect(),
        };
        let (frames, more) = self.frames_at(refused.generation, &addresses);
        let mut notes = followed.map(|it| it.notes.clone()).unwrap_or_default();
        notes.extend(more);
        (frames, notes)
    }

    fn followed(&self, refused: &Refused) -> Option<&FollowedStack> {
        self.stacks.get(&(refused.generation, refused.tid, refused.at_ns))
    }
}

impl Site {
    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first_at_s = self.first_at_s.min(other.first_at_s);
        self.last_at_s = self.last_at_s.max(other.last_at_s);
        self.smallest_bytes = self.smallest_bytes.into_iter().chain(other.smallest_bytes).min();
        self.largest_bytes = self.largest_bytes.into_iter().chain(other.largest_bytes).max();
    }
}

fn unexplained_group(id: ProcessId, started_s: Option<f64>, mm: &MmState, call: Call) -> Group {
    let failure = Failure {
        pid: id.tgid,
        started_s,
        comm: mm.comm.clone(),
        address_space_of: host_of(mm),
        syscall: name_of(call).into(),
        errno: "ENOMEM".into(),
        cause: Cause::Unknown,
        outcome: Outcome::Unrecovered,
        certain: false,
        count: 0,
        processes: 1,
        various: false,
        first_at_s: None,
        last_at_s: None,
        example: None,
        sites: Vec::new(),
        elsewhere: 0,
        evidence: BTreeMap::new(),
        sentence: "More kinds of failure occurred in this process than are kept apart; these are counted, their cause \
                   is unknown."
            .into(),
        cure: None,
        holders: None,
    };
    Group { call, example: None, outcome: Outcome::Unrecovered, limit_excluded: false, failure }
}

/// Whose address space it is, if it is another's.
fn host_of(mm: &MmState) -> Option<u32> {
    mm.host.map(|host| host.tgid)
}

/// Symbolic name of the errnos that count as failures.
fn errno_name(errno: u8) -> String {
    match i32::from(errno) {
        libc::ENOMEM => "ENOMEM".into(),
        libc::EAGAIN => "EAGAIN".into(),
        libc::EPERM => "EPERM".into(),
        libc::ENOSPC => "ENOSPC".into(),
        other => format!("errno {other}"),
    }
}
