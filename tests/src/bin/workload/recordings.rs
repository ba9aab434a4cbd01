//! Recordings as long as anybody likes, made of a short one: what `report` takes for them is measured.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use vmaudit_user::model::event::Event;
use vmaudit_user::source::recording::{Reader, Writer};

use crate::memory::die;

/// Writes `events` events to `to`: those of the recording `from` of this `kind` again and again (`changes`, `figures`, `states`,
/// `refusals`, `all`: whatever it holds), later each time, and around them what it begins and ends with.
#[expect(clippy::print_stdout, reason = "what it did is for the test that started it")]
pub fn stretch(from: &str, kind: &str, events: usize, to: &str) -> ! {
    let wrong = |e: &dyn std::fmt::Display| -> ! { die(99, format_args!("{from}: {e}")) };
    let file = File::open(Path::new(from)).unwrap_or_else(|e| wrong(&e));
    let mut reader = Reader::new(BufReader::new(file)).unwrap_or_else(|e| wrong(&e));
    let header = reader.header().clone();
    let mut all = Vec::new();
    while reader.next_frame(&mut |event| all.push(event)).unwrap_or_else(|e| wrong(&e)) {}
    let wanted = |event: &Event| match kind {
        "changes" => matches!(event, Event::Change(_)),
        "figures" => matches!(event, Event::Mm(_) | Event::Interval(_) | Event::Credit(_)),
        "states" => matches!(event, Event::Mm(_)),
        "refusals" => matches!(event, Event::Refused(_)),
        _ => !matches!(event, Event::FiguresEnd | Event::End(_) | Event::Gone(_)),
    };
    let again: Vec<Event> = all.iter().filter(|event| wanted(event)).cloned().collect();
    if again.is_empty() {
        die(99, format_args!("{from} holds no {kind}"));
    }
    let end = all.iter().position(|event| matches!(event, Event::FiguresEnd)).unwrap_or(all.len());
    let out = File::create(to).unwrap_or_else(|e| wrong(&e));
    let mut writer = Writer::new(BufWriter::new(out), &header, None).unwrap_or_else(|e| wrong(&e));
    let mut write = |event: &Event| writer.event(event).unwrap_or_else(|e| wrong(&e));
    let (before, after) = all.split_at(end);
    before.iter().for_each(&mut write);
    for n in 0..events {
        let (round, at) = ((n / again.len()) as u64, n % again.len());
        write(&later(again[at].clone(), round));
    }
    after.iter().for_each(&mut write);
    writer.flush().unwrap_or_else(|e| wrong(&e));
    writer.into_inner().flush().unwrap_or_else(|e| wrong(&e));
    println!("{{\"events\":{events},\"of\":{}}}", again.len());
    std::process::exit(0)
}

/// The same, so many seconds later, and with other figures.
fn later(mut event: Event, seconds: u64) -> Event {
    let ns = seconds * 1_000_000_000 + seconds % 997;
    match &mut event {
        Event::Mm(it) => {
            it.peak_ns += ns;
            it.last = it.last.wrapping_add((seconds % 512) as u32);
            it.peak = it.peak.max(it.last);
            for (_, stat) in &mut it.calls {
                stat.calls += seconds;
            }
        }
        Event::Interval(it) => {
            it.from_ns += ns;
            it.to_ns += ns;
        }
        Event::Credit(it) => it.at_ns += ns,
        Event::Change(it) => it.at_ns += ns,
        Event::Refused(it) => it.at_ns += ns,
        Event::LimitSeen(it) => it.at_ns += ns,
        _ => {}
    }
    event
}
