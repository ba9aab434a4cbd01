//! Mappings stream through once and leave tallies, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Read};

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::address_map::Picture;
use crate::domain::vma_layout::classify::{Below, GUARDED, MAX_GUARD, extension, kind};
use crate::domain::vma_layout::maps_parser::{Mapping, Parser};
use crate::domain::vma_layout::merge_blockers::{same_object, why};
use crate::model::vma_layout::{BoundaryRow, Damage, Explanation, Kind, Reason, Region, Row, Tally};
use crate::text::{count, grouped};

/// Distinct owners, sizes and reasons that are told apart; what comes later is put together as the rest.
pub(crate) const MAX_OWNERS: usize = 20_000;
/// Regions kept while the file streams by.
pub(crate) const MAX_REGIONS: usize = 16;
/// Reasons or sizes told apart within one region.
const MAX_IN_REGION: usize = 64;
/// Bytes of all owners' names together.
pub(crate) const MAX_OWNER_BYTES: usize = 8 << 20;
/// Policies other than the default that are remembered.
const MAX_POLICIES: usize = 100_000;
/// Holes up to this many bytes belong to a region.
const REGION_HOLE: u64 = 256 << 10;
/// Segments of a program; a region of more of them was split by something else.
const MAX_SEGMENTS: u64 = 16;

/// Collects while mappings stream by.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    total: Tally,
    kinds: BTreeMap<Kind, Tally>,
    pub(crate) owners: HashMap<String, Tally>,
    owner_bytes: usize,
    pub(crate) extensions: HashMap<String, Tally>,
    permissions: BTreeMap<String, Tally>,
    sizes: [Tally; SIZES.len()],
    boundaries: HashMap<Reason, (u64, u64)>,
    regions: Vec<Region>,
    run: Option<Run>,
    picture: Picture,
    flags_seen: bool,
    /// The mapping whose successor is not known yet, and what touches it from below.
    last: Option<(Mapping, Option<Below>)>,
    policies: HashMap<u64, String>,
}

#[derive(Debug)]
struct Run {
    start: u64,
    end: u64,
    vmas: u64,
    stacks: u64,
    name: String,
    sizes: HashMap<u64, u64>,
    reasons: HashMap<Reason, u64>,
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

pub(crate) fn stream(
    reader: impl BufRead,
    max_vmas: u64,
    policies: HashMap<u64, String>,
    anonymizer: &Anonymizer,
    notes: &mut Vec<String>,
) -> std::io::Result<Explanation> {
    let mut parser = Parser::new(reader);
    let mut complete = true;
    let mut analysis = Analysis { policies, ..Analysis::default() };
    loop {
        match parser.next_mapping() {
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
    let damage = parser.damage();
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
    let mut explanation = analysis.finish(anonymizer);
    explanation.damage = damage;
    explanation.complete = complete && !damage.truncated;
    Ok(explanation)
}

impl Analysis {
    fn total_seen(&self) -> u64 {
        self.total.vmas + u64::from(self.last.is_some())
    }

    pub(crate) fn push(&mut self, next: Mapping) {
        let mut kind_before = None;
        if let Some((last, before)) = self.last.take() {
            let kind = kind(before, &last, Some(&next));
            self.settle(&last, kind);
            let reason = self.boundary(&last, kind, &next);
            self.extend_run(&last, kind, Some((&next, reason)));
            kind_before = (next.start == last.end).then(|| Below { kind, bytes: last.bytes() });
        }
        self.last = Some((next, kind_before));
    }

    fn boundary(&mut self, a: &Mapping, kind: Kind, b: &Mapping) -> Reason {
        let policy = |mapping: &Mapping| self.policies.get(&mapping.start).map(String::as_str);
        let segments = self.run.as_ref().is_none_or(|run| run.vmas <= MAX_SEGMENTS);
        let mut reason = why(a, b, (policy(a), policy(b)), segments);
        // Permissions differ for many ends; memory beside a range without access has a well-known one.
        if matches!(reason, Reason::Permissions { .. })
            && !a.has_file()
            && (a.inaccessible() || b.inaccessible())
        {
            reason = match kind {
                Kind::Arena => Reason::Arena,
                Kind::Guard | Kind::Stack => Reason::Guard,
                _ if b.inaccessible() && b.bytes() <= MAX_GUARD && a.bytes() / GUARDED >= b.bytes() => {
                    Reason::Guard
                }
                _ => Reason::Commit,
            };
        }
        // Flags of a made-up file could give reasons without end.
        if self.boundaries.len() < MAX_OWNERS || self.boundaries.contains_key(&reason) {
            self.boundaries.entry(reason.clone()).or_insert((0, b.start)).0 += 1;
        } else {
            self.boundaries.entry(Reason::Flags { flags: "others".to_owned() }).or_insert((0, b.start)).0 +=
                1;
        }
        reason
    }

    fn settle(&mut self, mapping: &Mapping, kind: Kind) {
        let bytes = mapping.bytes();
        let resident = mapping.details.as_ref().map_or(0, |details| details.rss_bytes);
        self.total.add(bytes, resident);
        self.kinds.entry(kind).or_default().add(bytes, resident);
        self.flags_seen |= mapping.details.as_ref().is_some_and(|details| details.has_flags);
        self.permissions.entry(mapping.permissions.to_string()).or_default().add(bytes, resident);
        let class = SIZES.iter().position(|&(end, _)| mapping.bytes() <= end).unwrap_or(0);
        if let Some(tally) = self.sizes.get_mut(class) {
            tally.add(bytes, resident);
        }
        self.picture.add(mapping.start, mapping.end);
        if !mapping.name.is_empty() {
            let room = self.owners.len() < MAX_OWNERS && self.owner_bytes < MAX_OWNER_BYTES;
            let name = if room || self.owners.contains_key(&mapping.name) { &mapping.name } else { REST };
            if !self.owners.contains_key(name) {
                self.owner_bytes += name.len();
            }
            self.owners.entry(name.to_owned()).or_default().add(bytes, resident);
        }
        if let Some(extension) = extension(mapping) {
            let room = self.extensions.len() < MAX_OWNERS || self.extensions.contains_key(&extension);
            self.extensions
                .entry(if room { extension } else { REST.to_owned() })
                .or_default()
                .add(bytes, resident);
        }
    }

    /// Takes `mapping` into its region; `next` with the reason between them decides whether the region goes on.
    fn extend_run(&mut self, mapping: &Mapping, kind: Kind, next: Option<(&Mapping, Reason)>) {
        let run = self.run.get_or_insert_with(|| Run {
            start: mapping.start,
            end: mapping.end,
            vmas: 0,
            stacks: 0,
            name: mapping.name.clone(),
            sizes: HashMap::new(),
            reasons: HashMap::new(),
        });
        run.vmas += 1;
        run.end = run.end.max(mapping.end);
        run.stacks += u64::from(matches!(kind, Kind::Stack | Kind::Guard));
        if run.sizes.len() < MAX_IN_REGION || run.sizes.contains_key(&mapping.bytes()) {
            *run.sizes.entry(mapping.bytes()).or_default() += 1;
        }
        if let Some((next, reason)) = next
            && same_object(mapping, next)
            && next.start.checked_sub(mapping.end).is_some_and(|hole| hole <= REGION_HOLE)
        {
            if run.reasons.len() < MAX_IN_REGION || run.reasons.contains_key(&reason) {
                *run.reasons.entry(reason).or_default() += 1;
            }
            return;
        }
        if let Some(run) = self.run.take().filter(|run| run.vmas > 1) {
            self.regions.push(run.finish());
            if self.regions.len() > MAX_REGIONS {
                self.regions.sort_by_key(|region| std::cmp::Reverse(region.vmas));
                self.regions.truncate(MAX_REGIONS / 2);
            }
        }
    }

    pub(crate) fn finish(mut self, anonymizer: &Anonymizer) -> Explanation {
        if let Some((last, before)) = self.last.take() {
            let kind = kind(before, &last, None);
            self.settle(&last, kind);
            self.extend_run(&last, kind, None);
        }
        let named = |map: HashMap<String, Tally>| {
            let mut rows: Vec<Row> = map
                .into_iter()
                .map(|(name, tally)| Row { name: anonymizer.apply(&name).into_owned(), tally })
                .collect();
            rows.sort_by(|a, b| b.tally.vmas.cmp(&a.tally.vmas).then_with(|| a.name.cmp(&b.name)));
            rows.truncate(1000);
            rows
        };
        let mut kinds: Vec<(Kind, Tally)> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|&(kind, tally)| (std::cmp::Reverse(tally.vmas), kind));
        let mut boundaries: Vec<BoundaryRow> = self
            .boundaries
            .into_iter()
            .map(|(reason, (boundaries, example))| BoundaryRow {
                title: reason.title(),
                boundaries,
                example: Some(format!("{example:#x}")),
                cure: reason.cure(),
                reason,
            })
            .collect();
        boundaries.sort_by(|a, b| b.boundaries.cmp(&a.boundaries).then_with(|| a.reason.cmp(&b.reason)));
        boundaries.truncate(1000);
        let mut regions = self.regions;
        regions.sort_by_key(|region| std::cmp::Reverse(region.vmas));
        regions.truncate(MAX_REGIONS / 2);
        for region in &mut regions {
            region.name = anonymizer.apply(&region.name).into_owned();
        }
        Explanation {
            schema: "vmaudit.explain".to_owned(),
            version: 1,
            pid: None,
            subject: String::new(),
            vmas: self.total.vmas,
            complete: true,
            max_map_count: None,
            flags_seen: self.flags_seen,
            notes: Vec::new(),
            damage: Damage::default(),
            total: self.total,
            kinds,
            owners: named(self.owners),
            extensions: named(self.extensions),
            permissions: named(self.permissions.into_iter().collect()),
            sizes: SIZES
                .iter()
                .zip(self.sizes)
                .filter(|(_, tally)| tally.vmas > 0)
                .map(|(&(_, name), tally)| Row { name: name.to_owned(), tally })
                .collect(),
            boundaries,
            regions,
            picture: self.picture.finish(),
            verdict: Vec::new(),
        }
    }
}

/// Name of the row of all that had no room of their own.
const REST: &str = "(others)";

impl Run {
    fn finish(self) -> Region {
        let (piece_bytes, pieces) =
            self.sizes.into_iter().max_by_key(|&(size, n)| (n, size)).unwrap_or((0, 0));
        let mut reasons: Vec<(Reason, u64)> = self.reasons.into_iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reasons.truncate(3);
        Region {
            start: Some(format!("{:#x}", self.start)),
            bytes: self.end.saturating_sub(self.start),
            vmas: self.vmas,
            name: self.name,
            piece_bytes,
            pieces,
            reasons,
            stacks: self.stacks,
        }
    }
}
