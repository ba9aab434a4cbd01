//! A profile as `go tool pprof` and whatever else knows its files read it: refused calls, the bytes that refused calls left
//! mapped, and the VMAs that processes had at their peaks, by place. The format: github.com/google/pprof, proto/profile.proto.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::{Compression, GzBuilder};

use super::protobuf::Message;
use crate::model::memory::Accuracy;
use crate::model::report::{Failure, Frame, Process, Report};
use crate::output::document::Document;
use crate::output::makers::above;
use crate::output::places::{Place, UNKNOWN, function, named, of_kind, places};
use crate::output::text::page::Style;
use crate::output::text::verdict;
use crate::text::{clean, time};

/// Values of each sample, with their units.
const TYPES: [(&str, &str); 3] = [("refusals", "count"), ("unmap_leaked", "bytes"), ("vmas", "count")];
/// Calls that leave something mapped when they are refused.
const UNMAPPING: [&str; 3] = ["munmap", "mremap", "brk"];

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    // The same report is the same file: no time and no name in its head.
    let mut packed = GzBuilder::new().write(out, Compression::default());
    packed.write_all(&profile(report))?;
    packed.finish().map(|_| ())
}

fn profile(report: &Report) -> Vec<u8> {
    let mut tables = Tables::default();
    tables.strings.number(String::new(), |_| None);
    let mut message = Message::default();
    for (what, unit) in TYPES {
        let value_type = tables.value_type(what, unit);
        message = message.message(1, &value_type);
    }
    for sample in places(report).map(|place| tables.refusals(&place)) {
        message = message.message(2, &sample);
    }
    for sample in tables.leaks(report) {
        message = message.message(2, &sample);
    }
    for sample in tables.makers(report) {
        message = message.message(2, &sample);
    }
    let comments = [
        clean(&verdict(report)),
        format!(
            "vmaudit {}: refused calls, bytes that refused calls left mapped, VMAs at the peaks by who made them",
            clean(&report.vmaudit)
        ),
    ];
    let comments: Vec<u64> = comments.into_iter().map(|comment| tables.string(&comment)).collect();
    let usual = if report.failures.is_empty() { TYPES[2].0 } else { TYPES[0].0 };
    let usual = tables.string(usual);
    let Tables { strings, mappings, functions, locations } = tables;
    for (field, table) in [(3, mappings.written), (4, locations.written), (5, functions.written)] {
        message = table.iter().fold(message, |message, entry| message.message(field, entry));
    }
    message = strings.written_in_order.iter().fold(message, |message, text| message.text(6, text));
    if let Some(at) = time::unix_ns(&report.session.started) {
        message = message.number(9, at);
    }
    message
        .number(10, (report.session.duration_s * 1e9) as u64)
        .packed(13, comments)
        .number(14, usual)
        .into_bytes()
}

/// Whatever is told once and then named by its number.
struct Numbered<K> {
    numbers: HashMap<K, u64>,
    written: Vec<Message>,
    written_in_order: Vec<K>,
}

impl<K> Default for Numbered<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), written: Vec::new(), written_in_order: Vec::new() }
    }
}

impl<K: Hash + Eq + Clone> Numbered<K> {
    /// Its number, from 0; a new one is written as `message` says.
    fn number(&mut self, key: K, message: impl FnOnce(u64) -> Option<Message>) -> u64 {
        let next = self.numbers.len() as u64;
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        self.numbers.insert(key.clone(), next);
        match message(next) {
            Some(message) => self.written.push(message),
            None => self.written_in_order.push(key),
        }
        next
    }
}

/// A function by its name and file, and a line in it.
type Line = (u64, u64);

/// What samples name by number.
#[derive(Default)]
struct Tables {
    strings: Numbered<String>,
    /// By file.
    mappings: Numbered<u64>,
    /// By name and file.
    functions: Numbered<(u64, u64)>,
    /// By mapping, address and lines.
    locations: Numbered<(u64, u64, Vec<Line>)>,
}

impl Tables {
    fn string(&mut self, text: &str) -> u64 {
        self.strings.number(text.to_owned(), |_| None)
    }

    fn value_type(&mut self, what: &str, unit: &str) -> Message {
        let (what, unit) = (self.string(what), self.string(unit));
        Message::default().number(1, what).number(2, unit)
    }

    /// A file that code is mapped from. Addresses are offsets in it: where it was mapped tells nobody anything, and its
    /// functions are named already.
    fn mapping(&mut self, module: &str) -> u64 {
        let file = self.string(module);
        let told = |number: u64| {
            let all_of_it = Message::default().number(1, number + 1).number(3, i64::MAX as u64);
            let known = all_of_it.number(5, file).number(7, 1).number(8, 1).number(9, 1).number(10, 1);
            Some(known)
        };
        self.mappings.number(file, told) + 1
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, file) = (self.string(name), self.string(file));
        let told = |number: u64| {
            let names = Message::default().number(1, number + 1).number(2, name).number(3, name);
            Some(names.number(4, file))
        };
        self.functions.number((name, file), told) + 1
    }

    fn location(&mut self, mapping: u64, address: u64, lines: Vec<Line>) -> u64 {
        let told = |number: u64| {
            let place = Message::default().number(1, number + 1).number(2, mapping).number(3, address);
            Some(lines.iter().fold(place, |place, (function, line)| {
                place.message(4, &Message::default().number(1, *function).number(2, *line))
            }))
        };
        self.locations.number((mapping, address, lines.clone()), told) + 1
    }

    /// Code of the kernel, or none that is known: a name alone.
    fn named_location(&mut self, name: &str) -> u64 {
        let function = self.function(name, "");
        self.location(0, 0, vec![(function, 0)])
    }

    /// A stack as locations, innermost first; functions that were inlined share the location of the one that they are in.
    fn stack(&mut self, stack: &[Frame]) -> Vec<u64> {
        let mut all = Vec::new();
        let mut lines = Vec::new();
        for frame in stack {
            let file = frame.file.as_deref().map(named).unwrap_or_default();
            let function = self.function(&function(frame), &file);
            lines.push((function, frame.line.map_or(0, u64::from)));
            if frame.inlined {
                continue;
            }
            let mapping = frame.module.as_deref().map_or(0, |module| self.mapping(&named(module)));
            let address = frame.offset.or_else(|| address(frame)).unwrap_or(0);
            all.push(self.location(mapping, address, std::mem::take(&mut lines)));
        }
        if !lines.is_empty() {
            all.push(self.location(0, 0, lines));
        }
        all
    }

    fn label(&mut self, key: &str, value: &str) -> Message {
        let (key, value) = (self.string(key), self.string(value));
        Message::default().number(1, key).number(2, value)
    }

    fn number_label(&mut self, key: &str, value: u64) -> Message {
        let key = self.string(key);
        Message::default().number(1, key).number(3, value)
    }

    fn refusals(&mut self, place: &Place<'_>) -> Message {
        let failure = place.failure;
        let mut locations = vec![self.named_location(&named(&failure.syscall))];
        locations.extend(self.stack(place.stack));
        if place.unknown {
            locations.push(self.named_location(UNKNOWN));
        }
        let outcome = failure.outcome.name();
        let told = [
            ("call", named(&failure.syscall)),
            ("errno", named(&failure.errno)),
            ("cause", failure.cause.name().to_owned()),
            ("certain", failure.certain.to_string()),
            ("outcome", outcome.to_owned()),
        ];
        let mut labels: Vec<Message> = told.iter().map(|(key, value)| self.label(key, value)).collect();
        labels.extend(self.whose(failure));
        sample(locations, [place.count, 0, 0], &labels)
    }

    /// Of which process, or of how many.
    fn whose(&mut self, failure: &Failure) -> Vec<Message> {
        match failure.processes {
            0 | 1 => {
                vec![
                    self.label("process", &named(&failure.comm)),
                    self.number_label("pid", failure.pid.into()),
                ]
            }
            n if failure.various => vec![self.number_label("processes", n)],
            n => vec![self.label("process", &named(&failure.comm)), self.number_label("processes", n)],
        }
    }

    fn leaks(&mut self, report: &Report) -> Vec<Message> {
        let mut samples = Vec::new();
        for process in &report.processes {
            let Some(bytes) = process.unmap_leaked_bytes.filter(|bytes| *bytes > 0) else { continue };
            let locations = match only_place(report, process) {
                Some(place) => {
                    let call = self.named_location(&named(&place.failure.syscall));
                    [call].into_iter().chain(self.stack(place.stack)).collect()
                }
                None => vec![self.named_location(UNKNOWN)],
            };
            let bound = bound(process.unmap_leaked_bound);
            let labels = [
                self.label("process", &named(&process.comm)),
                self.number_label("pid", process.pid.into()),
                self.label("figure", bound),
            ];
            samples.push(sample(locations, [0, bytes, 0], &labels));
        }
        for sum in &report.folded {
            let Some(bytes) = sum.unmap_leaked_bytes.filter(|bytes| *bytes > 0) else { continue };
            let mut labels = vec![self.number_label("processes", sum.processes)];
            if !sum.various {
                labels.push(self.label("process", &named(&sum.comm)));
            }
            labels.push(self.label("figure", bound(sum.unmap_leaked_bound)));
            samples.push(sample(vec![self.named_location(UNKNOWN)], [0, bytes, 0], &labels));
        }
        samples
    }

    fn makers(&mut self, report: &Report) -> Vec<Message> {
        let mut samples = Vec::new();
        for process in &report.processes {
            for maker in &process.makers {
                let mut locations: Vec<u64> = Vec::new();
                locations.extend(maker.syscall.as_deref().map(|call| self.named_location(&named(call))));
                locations.extend(self.stack(&maker.stack));
                locations.extend(above(maker).map(|why| self.named_location(why)));
                let labels = [
                    self.label("process", &named(process.peak_comm())),
                    self.number_label("pid", process.pid.into()),
                ];
                samples.push(sample(locations, [0, 0, maker.count], &labels));
            }
        }
        samples
    }
}

/// How a figure relates to the true one.
fn bound(accuracy: Option<Accuracy>) -> &'static str {
    match accuracy {
        Some(Accuracy::Exact) => "exact",
        Some(Accuracy::AtLeast) => "at least",
        Some(Accuracy::AtMost) => "at most",
        Some(Accuracy::About) | None => "about",
    }
}

/// The place of all refusals of this process that left something mapped, if there is but one.
fn only_place<'a>(report: &'a Report, process: &Process) -> Option<Place<'a>> {
    let all = report.failures.iter().chain(&report.ordinary_answers);
    let left = all.filter(|it| it.is_of(process) && UNMAPPING.contains(&it.syscall.as_str()));
    let mut places = left.flat_map(of_kind);
    places.next().filter(|it| !it.unknown && places.next().is_none())
}

fn sample(locations: Vec<u64>, values: [u64; TYPES.len()], labels: &[Message]) -> Message {
    // Values are signed there.
    let values = values.map(|value| value.min(i64::MAX as u64));
    let sample = Message::default().packed(1, locations).packed(2, values);
    labels.iter().fold(sample, |sample, label| sample.message(3, label))
}

fn address(frame: &Frame) -> Option<u64> {
    u64::from_str_radix(frame.ip.as_deref()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::output::text::tests::{clean_run, clipped_run};

    fn written(report: &Report) -> Vec<u8> {
        let mut out = Vec::new();
        write(&Document::Report(report), &Style::default(), &mut out).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(out.as_slice()).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn names_are_strangers_and_each_is_written_once() {
        let mut report = clipped_run();
        report.failures[0].comm = "x\u{1b}[2J\u{202e}".into();
        let bytes = written(&report);
        let times = |name: &[u8]| bytes.windows(name.len()).filter(|window| *window == name).count();
        // Once as a name, however often it is used, and once in the verdict.
        assert_eq!((times(b"\x1b[2J"), times(b"x\\x1b[2J\\u{202e}")), (0, 2));
        assert_eq!(written(&report), bytes);
        assert!(!written(&clean_run()).is_empty());
    }

    #[test]
    fn what_was_left_mapped_has_a_place_only_where_there_is_but_one() {
        let mut report = clipped_run();
        let process = report.processes[0].clone();
        let failure = report.failures[0].clone();
        assert!(only_place(&report, &process).is_some(), "{failure:?}");
        report.failures.push(Failure { syscall: "mmap".into(), ..failure.clone() });
        assert!(only_place(&report, &process).is_some());
        report.ordinary_answers.push(Failure { syscall: "brk".into(), ..failure });
        assert!(only_place(&report, &process).is_none());
    }
}
