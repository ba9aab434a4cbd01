//! Mappings stream through once and leave tallies, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Read};

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::address_map::Picture;
use crate::domain::vma_layout::classify::{Below, GUARDED, MAX_GUARD, MIB, Told, told};
use crate::domain::vma_layout::guards::{Pairs, Role, Sums};
use crate::domain::vma_layout::maps_parser::{Flag, Mapping, Parser};
use crate::domain::vma_layout::merge_blockers::{same_object, why};
use crate::domain::vma_layout::names::{MAX_OWNERS, Names, sorted};
use crate::domain::vma_layout::regions::{MAX_REGIONS, Over, Run};
use crate::model::vma_layout::{BoundaryRow, Damage, Explanation, Heads, Kind, Origin, Reason, Row, Tally};
use crate::text::{count, grouped};

/// Policies other than the default that are remembered.
const MAX_POLICIES: usize = 100_000;
/// Holes up to this many bytes belong to a region.
const REGION_HOLE: u64 = 256 << 10;
/// Segments of a program; a region of more of them was split by something else.
const MAX_SEGMENTS: u64 = 16;
/// A reservation from this size on is large, bytes, ...
const LARGE: u64 = 64 * MIB;
/// ... and its accessible part small when it is at least so many times smaller.
const SMALL_HEAD: u64 = 4;
/// MAP_STACK is kept as VM_NOHUGEPAGE (include/linux/mman.h:calc_vm_flag_bits, since 6.7).
const NO_HUGE_PAGE: Flag = Flag(*b"nh");

/// Where mappings come from.
pub(crate) trait Mappings {
    /// The next one; `None` at the end.
    fn next_mapping(&mut self) -> std::io::Result<Option<Mapping>>;

    /// What was wrong so far.
    fn damage(&self) -> Damage;
}

impl<R: BufRead> Mappings for Parser<R> {
    fn next_mapping(&mut self) -> std::io::Result<Option<Mapping>> {
        Parser::next_mapping(self)
    }

    fn damage(&self) -> Damage {
        Parser::damage(self)
    }
}

/// What is known beside the mappings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    /// Stop after this many VMAs.
    pub(crate) max_vmas: u64,
    /// Policies other than the default, by first address.
    pub(crate) policies: HashMap<u64, String>,
    /// Users' names are replaced.
    pub(crate) anonymizer: Anonymizer,
}

/// Collects while mappings stream by.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    total: Tally,
    sums: Settled,
    pub(crate) names: Names,
    permissions: BTreeMap<String, Tally>,
    sizes: [Tally; SIZES.len()],
    regions: Vec<Over>,
    run: Option<Run>,
    /// Pairs of all regions that are over.
    pairs: Pairs,
    heads: Heads,
    picture: Picture,
    flags_seen: bool,
    /// The mapping whose successor is not known yet, and what touches it from below.
    last: Option<(Mapping, Option<Below>)>,
    policies: HashMap<u64, String>,
}

/// What is told for good.
#[derive(Debug, Default)]
struct Settled {
    kinds: BTreeMap<Kind, Tally>,
    boundaries: HashMap<Reason, (u64, u64)>,
}

impl Sums for Settled {
    fn kind(&mut self, kind: Kind, tally: Tally) {
        if tally.vmas > 0 {
            self.kinds.entry(kind).or_default().join(&tally);
        }
    }

    fn boundaries(&mut self, reason: Reason, boundaries: u64, example: u64) {
        if boundaries == 0 {
            return;
        }
        // Flags of a made-up file could give reasons without end.
        let room = self.boundaries.len() < MAX_OWNERS || self.boundaries.contains_key(&reason);
        let reason = if room { reason } else { Reason::Flags { flags: "others".to_owned() } };
        self.boundaries.entry(reason).or_insert((0, example)).0 += boundaries;
    }
}

/// Upper ends of the size classes, bytes.
const SIZES: [(u64, &str); 8] = [
    (4 << 10, "up to 4 KiB"),
    (16 << 10, "up to 16 KiB"),
    (64 << 10, "up to 64 KiB"),
    (1 << 20, "up to 1 MiB"),
    (16 << 20, "up to 16 MiB"),
    (256 << 20, "up to 256 MiB"),
    (4 << 30, "up to 4 GiB"),
    (u64::MAX, "larger"),
];

/// Policies other than the default, by first address.
pub(crate) fn policies(reader: impl BufRead) -> HashMap<u64, String> {
    /// Bytes of a line held at a time. A line of numa_maps is short but for the file's name, which stands behind the
    /// policy.
    const LINE: u64 = 4096;
    let mut found = HashMap::new();
    let mut reader = reader.take(1 << 30);
    let mut line = Vec::new();
    let mut at_start = true;
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {}
            _ => break,
        }
        if !std::mem::replace(&mut at_start, line.ends_with(b"\n")) {
            continue;
        }
        let text = String::from_utf8_lossy(line.get(..line.len().min(256)).unwrap_or_default());
        let mut words = text.trim_end().split(' ');
        if let (Some(address), Some(policy)) = (words.next(), words.next())
            && policy != "default"
            && !policy.is_empty()
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            if found.len() >= MAX_POLICIES {
                break;
            }
            found.insert(address, policy.to_owned());
        }
    }
    found
}

/// Reads all mappings. `threads` is asked when they have been read: a log tells it behind them.
pub(crate) fn stream<M: Mappings>(
    mappings: &mut M,
    beside: Beside,
    threads: impl FnOnce(&M) -> Option<u64>,
    notes: &mut Vec<String>,
) -> std::io::Result<Explanation> {
    let Beside { max_vmas, policies, anonymizer } = beside;
    let mut complete = true;
    let mut analysis = Analysis { policies, ..Analysis::default() };
    loop {
        match mappings.next_mapping() {
            Ok(Some(_)) if analysis.total_seen() >= max_vmas => {
                notes.push(format!("Only the first {} VMAs were read (--max-vmas).", grouped(max_vmas)));
                complete = false;
                break;
            }
            Ok(Some(mapping)) => analysis.push(mapping),
            Ok(None) => break,
            // A process that dies meanwhile: what was read stands.
            Err(error) if analysis.total_seen() > 0 => {
                notes.push(format!("Reading ended early: {error}."));
                complete = false;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let damage = mappings.damage();
    if damage.lines > 0 {
        notes.push(format!(
            "{} could not be understood, the first is line {}.",
            count(damage.lines, "line", "lines"),
            grouped(damage.first.unwrap_or(0))
        ));
    }
    if damage.truncated {
        notes.push("The last line is not complete: the file was cut.".to_owned());
    }
    let mut explanation = analysis.finish(threads(mappings), &anonymizer);
    explanation.damage = damage;
    explanation.complete = complete && !damage.truncated;
    Ok(explanation)
}

/// The same of a text, when the number of threads is known.
pub(crate) fn read(
    text: impl BufRead,
    beside: Beside,
    threads: Option<u64>,
    notes: &mut Vec<String>,
) -> std::io::Result<Explanation> {
    stream(&mut Parser::new(text), beside, |_| threads, notes)
}

impl Analysis {
    fn total_seen(&self) -> u64 {
        self.total.vmas + u64::from(self.last.is_some())
    }

    pub(crate) fn push(&mut self, next: Mapping) {
        let mut below = None;
        if let Some((last, before)) = self.last.take() {
            let told = told(before, &last, Some(&next));
            self.settle(&last, told);
            let reason = self.boundary(&last, told, &next);
            self.extend_run(&last, Some((&next, reason)));
            below = (next.start == last.end).then(|| Below { told, bytes: last.bytes() });
        }
        self.last = Some((next, below));
    }

    /// Why the two are two; `None`: that will be known with what the pairs of `a` are.
    fn boundary(&mut self, a: &Mapping, told: Told, b: &Mapping) -> Option<Reason> {
        let policy = |mapping: &Mapping| self.policies.get(&mapping.start).map(String::as_str);
        let segments = self.run.as_ref().is_none_or(|run| run.vmas <= MAX_SEGMENTS);
        let mut reason = why(a, b, (policy(a), policy(b)), segments);
        // Permissions differ for many ends; memory beside a range without access has a well-known one.
        if matches!(reason, Reason::Permissions { .. })
            && !a.has_file()
            && (a.inaccessible() || b.inaccessible())
        {
            let shape = match told {
                Told::Below(block) => Some((a.bytes(), block)),
                Told::Above(guard) if b.inaccessible() && b.bytes() <= MAX_GUARD => Some((guard, a.bytes())),
                _ => None,
            };
            if let Some(shape) = shape
                && let Some(run) = &mut self.run
            {
                run.pairs.boundary(shape, b.start);
                return None;
            }
            reason = self.beside_a_reservation(a, told, b);
        }
        self.sums.boundaries(reason.clone(), 1, b.start);
        Some(reason)
    }

    fn beside_a_reservation(&mut self, a: &Mapping, told: Told, b: &Mapping) -> Reason {
        let (reserved, used) = if a.inaccessible() { (a, b) } else { (b, a) };
        if told == Told::Kind(Kind::Arena) {
            Reason::Arena
        } else if told == Told::Kind(Kind::Guard)
            || b.inaccessible() && b.bytes() <= MAX_GUARD && a.bytes() / GUARDED >= b.bytes()
        {
            Reason::Guard
        } else if reserved.bytes() >= LARGE && used.bytes() <= reserved.bytes() / SMALL_HEAD {
            if b.inaccessible() {
                self.heads.reservations += 1;
                self.heads.bytes = self.heads.bytes.saturating_add(a.bytes().saturating_add(b.bytes()));
            }
            Reason::Head
        } else {
            Reason::Commit
        }
    }

    fn settle(&mut self, mapping: &Mapping, told: Told) {
        let bytes = mapping.bytes();
        let details = mapping.details.as_ref();
        let resident = details.map_or(0, |details| details.rss_bytes);
        self.total.add(bytes, resident);
        let run = self.run.get_or_insert_with(|| Run::new(mapping));
        match told {
            Told::Kind(kind) => self.sums.kind(kind, Tally { vmas: 1, bytes, resident_bytes: resident }),
            Told::Below(block) => run.pairs.guard((bytes, block), bytes, resident),
            Told::Above(guard) => {
                let marked = details.is_some_and(|details| details.flags.contains(&NO_HUGE_PAGE));
                run.pairs.block((guard, bytes), marked, bytes, resident);
            }
        }
        self.flags_seen |= details.is_some_and(|details| details.has_flags);
        self.permissions.entry(mapping.permissions.to_string()).or_default().add(bytes, resident);
        let class = SIZES.iter().position(|&(end, _)| mapping.bytes() <= end).unwrap_or(0);
        if let Some(tally) = self.sizes.get_mut(class) {
            tally.add(bytes, resident);
        }
        self.picture.add(mapping.start, mapping.end);
        self.names.add(mapping, resident);
    }

    /// Takes `mapping` into its region; `next` with the reason between them decides whether the region goes on.
    fn extend_run(&mut self, mapping: &Mapping, next: Option<(&Mapping, Option<Reason>)>) {
        let run = self.run.get_or_insert_with(|| Run::new(mapping));
        run.take(mapping);
        if let Some((next, reason)) = next
            && same_object(mapping, next)
            && next.start.checked_sub(mapping.end).is_some_and(|hole| hole <= REGION_HOLE)
        {
            if let Some(reason) = reason {
                run.note(reason);
            }
            return;
        }
        let Some(run) = self.run.take() else { return };
        let holes = run.pairs.of_many_sizes();
        if holes {
            run.pairs.settle_as(Role::Piece, &mut self.sums);
        } else if !run.pairs.is_empty() {
            self.pairs.add(&run.pairs);
        }
        if run.vmas > 1 {
            self.regions.push(run.finish(holes));
            if self.regions.len() > MAX_REGIONS {
                self.regions.sort_by_key(|over| std::cmp::Reverse(over.region.vmas));
                self.regions.truncate(MAX_REGIONS / 2);
            }
        }
    }

    pub(crate) fn finish(mut self, threads: Option<u64>, anonymizer: &Anonymizer) -> Explanation {
        if let Some((last, before)) = self.last.take() {
            self.settle(&last, told(before, &last, None));
            self.extend_run(&last, None);
        }
        let (roles, stacks) = self.pairs.roles(threads);
        self.pairs.settle(&roles, &mut self.sums);
        let mut kinds: Vec<(Kind, Tally)> = self.sums.kinds.into_iter().collect();
        kinds.sort_by_key(|&(kind, tally)| (std::cmp::Reverse(tally.vmas), kind));
        let mut regions: Vec<_> =
            self.regions.into_iter().map(|over| over.finish(&roles, anonymizer)).collect();
        regions.sort_by_key(|region| std::cmp::Reverse(region.vmas));
        regions.truncate(MAX_REGIONS / 2);
        let names = self.names.finish(anonymizer);
        let row = |(name, tally): (String, Tally)| Row { name, tally, objects: None };
        Explanation {
            schema: "vmaudit.explain".to_owned(),
            version: 1,
            pid: None,
            subject: String::new(),
            vmas: self.total.vmas,
            complete: true,
            origin: Origin::Copy,
            max_map_count: None,
            threads,
            flags_seen: self.flags_seen,
            notes: Vec::new(),
            damage: Damage::default(),
            total: self.total,
            kinds,
            owners: names.owners,
            extensions: names.extensions,
            patterns: names.patterns,
            permissions: sorted(self.permissions.into_iter().map(row).collect()),
            sizes: SIZES
                .iter()
                .zip(self.sizes)
                .filter(|(_, tally)| tally.vmas > 0)
                .map(|(&(_, name), tally)| row((name.to_owned(), tally)))
                .collect(),
            boundaries: boundaries(self.sums.boundaries),
            regions,
            stacks,
            shared: names.shared,
            heads: self.heads,
            picture: self.picture.finish(),
            verdict: Vec::new(),
            advice: Vec::new(),
        }
    }
}

fn boundaries(found: HashMap<Reason, (u64, u64)>) -> Vec<BoundaryRow> {
    let mut rows: Vec<BoundaryRow> = found
        .into_iter()
        .map(|(reason, (boundaries, example))| BoundaryRow {
            title: reason.title(),
            boundaries,
            example: Some(format!("{example:#x}")),
            cure: reason.cure(),
            reason,
        })
        .collect();
    rows.sort_by(|a, b| b.boundaries.cmp(&a.boundaries).then_with(|| a.reason.cmp(&b.reason)));
    rows.truncate(1000);
    rows
}
