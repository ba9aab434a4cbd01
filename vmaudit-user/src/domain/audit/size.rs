//! How much memory an audit takes, for who makes one of a file that anybody may have written: a session bounds itself by
//! what the kernel side holds at a time, and by adding up processes that are over.

use std::mem::size_of;

use crate::domain::audit::minutes::Minutes;
use crate::domain::audit::{Audit, Process, group};
use crate::domain::series::Series;
use crate::model::end::{CgroupLevel, Ended};
use crate::model::event::{
    CallStat, FollowedStack, MemoryCgroup, MmState, ProcessId, RefusalGroup, RefusalSite, Refused, Untold,
};
use crate::model::makers::Entered;
use crate::model::report::{Frame, Holders};
use crate::model::task_names::TaskName;

/// Bytes of a map of so many entries, what is free in it included.
pub(super) fn of_map<K, V>(entries: usize) -> usize {
    entries.saturating_mul(size_of::<(K, V)>() * 3 / 2 + 8)
}

/// Bytes of what lies in such a list.
pub(super) fn of_list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

impl Audit {
    /// Bytes that it takes, about; texts whose sum a reader bounds are left out.
    pub fn bytes(&self) -> usize {
        let inlined = |(_, inlined): &(Frame, Vec<Frame>)| of_list(inlined);
        [
            self.processes.values().map(|process| of_process(process)).sum(),
            self.makers.bytes(),
            self.marks.bytes(),
            of_map::<group::Place, Refused>(self.examples.len()),
            self.examples.values().map(of_example).sum(),
            of_map::<(u64, u64), (Frame, Vec<Frame>)>(self.frames.len()),
            self.frames.values().map(inlined).sum(),
            of_map::<(u64, u32, u64), FollowedStack>(self.stacks.len()),
            self.stacks.values().map(|it| of_list(&it.addresses) + of_list(&it.notes)).sum(),
            of_map::<(u64, u64), ()>(self.ends.len()),
            of_map::<u64, Holders>(self.holders.len()),
            of_map::<u64, MemoryCgroup>(self.cgroups.len()),
            of_map::<u64, Series>(self.series.len()),
            self.series.values().map(|series| series.bytes()).sum(),
            of_map::<u64, Minutes>(self.minutes.len()),
            of_map::<u32, ()>(self.hidden.len()),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

fn of_example(it: &Refused) -> usize {
    let path = it.tasks.iter().filter_map(|tasks| tasks.cgroup_path.as_ref()).map(String::capacity);
    it.comm.capacity() + of_list(&it.stack) + path.sum::<usize>()
}

fn of_process(process: &Process) -> usize {
    let looks = process.looks.iter().map(|looks| size_of::<Series>() + looks.bytes()).sum::<usize>();
    let ended = if process.ended.is_some() { size_of::<Ended>() } else { 0 };
    let oom = process.oom.iter().map(|it| of_list::<CgroupLevel>(&it.levels)).sum::<usize>();
    let arguments = process.arguments.iter().map(of_list).sum::<usize>();
    let mms = process.mms.iter().map(of_state).sum::<usize>();
    of_map::<ProcessId, Process>(1)
        + process.comm.capacity()
        + of_list(&process.mms)
        + mms
        + looks
        + ended
        + oom
        + arguments
}

/// What hangs on it.
fn of_state(mm: &MmState) -> usize {
    let sites = mm.refusals.iter().map(|it| of_list::<RefusalSite>(&it.sites)).sum::<usize>();
    let ledger = mm.ledger.iter().map(of_list::<Entered>).sum::<usize>();
    let joined = mm.joined.iter().map(|it| of_list(&it.generations)).sum::<usize>();
    let names = mm.tasks.iter().flat_map(|it| &it.names).map(|it| it.name.capacity()).sum::<usize>();
    let tasks = mm.tasks.iter().map(|it| of_list::<TaskName>(&it.names)).sum::<usize>();
    mm.comm.capacity()
        + names
        + of_list::<(_, CallStat)>(&mm.calls)
        + of_list::<RefusalGroup>(&mm.refusals)
        + of_list::<Untold>(&mm.untold)
        + sites
        + ledger
        + joined
        + tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Event, Interval, Joined, Reached, Sample, TaskNames};
    use crate::model::makers::{Credit, Place};
    use crate::model::session::Header;
    use crate::model::shortage::Tasks;
    use crate::strangers::recordings;

    /// What an audit takes of it.
    fn grown(events: impl IntoIterator<Item = Event>) -> usize {
        let header = Header { stretch: None, ..recordings::header() };
        let mut audit = Audit::of(&header);
        let before = audit.bytes();
        events.into_iter().for_each(|event| audit.apply(event));
        audit.bytes() - before
    }

    fn state(n: u64) -> MmState {
        let mm = recordings::events().into_iter().find_map(|event| match event {
            Event::Mm(mm) => Some(*mm),
            _ => None,
        });
        let mm = mm.expect("a state");
        MmState { generation: n, process: ProcessId { tgid: n as u32, start_ns: n }, ..mm }
    }

    /// Lists of every kind that hangs on an event, and events of every kind that is kept.
    #[test]
    fn lists_that_a_recording_can_tell_without_end_are_counted() {
        const MANY: u64 = 5_000;
        let entry = Entered { key: 1, call: 0, added: 1, removed: 1 };
        let ledger = MmState { ledger: Some(vec![entry; MANY as usize]), ..state(1) };
        let images = Joined { images: MANY, generations: (0..MANY).collect(), ..Joined::default() };
        let joined = MmState { joined: Some(Box::new(images)), ..state(1) };
        let one = |mm: MmState| grown([Event::Mm(Box::new(mm))]);
        let many = |least: u64, bytes: usize| {
            assert!((least * MANY..100 * least * MANY).contains(&(bytes as u64)), "{bytes} of {least} each");
        };
        many(32, one(ledger));
        many(8, one(joined));
        many(300, grown((0..MANY).map(|n| Event::Mm(Box::new(state(n))))));
        many(300, grown((0..MANY).map(|n| Event::Sample(recordings::sample(n as u32, 1)))));
        let reached = (0..MANY).map(|n| Reached(n, 1, 1)).collect();
        many(100, grown([Event::Interval(Box::new(Interval { of: reached, ..recordings::interval(4, 9) }))]));
        let credit = |n: u64| Credit {
            at_ns: 1,
            generation: 1,
            tgid: 1,
            tid: 1,
            base: n as u32,
            level: n as u32 + 1,
            call: 0,
            place: 1,
            caller: None,
            stack: Vec::new(),
            key: 0,
        };
        many(20, grown((0..MANY).map(|n| Event::Credit(Box::new(credit(n))))));
        many(16, grown((0..MANY).map(|key| Event::Credit(Box::new(Credit { key: key + 1, ..credit(1) })))));
        let place = |n: u64| Place { generation: 1, place: n as u32, caller: None, stack: vec![1; 10] };
        many(100, grown((0..MANY).map(|n| Event::Place(Box::new(place(n))))));
        many(4, grown((0..MANY).map(|n| Event::AddressesHidden(n as u32))));
    }

    /// A frame tells a name once for any number of events, and each keeps its own.
    #[test]
    fn names_of_tasks_are_cut_and_counted() {
        const MANY: u64 = 500;
        const LONG: usize = 10_000;
        let long = || "n".repeat(LONG);
        let tasks = TaskNames {
            names: vec![TaskName { name: long(), ..TaskName::default() }; MANY as usize],
            ..TaskNames::default()
        };
        let refused = |n: u64| {
            let tasks = Tasks { cgroup_path: Some("c".repeat(10 * LONG)), ..Tasks::default() };
            Refused { generation: n, comm: long(), tasks: Some(Box::new(tasks)), ..Refused::example() }
        };
        let of = [
            ("states", grown((0..MANY).map(|n| Event::Mm(Box::new(MmState { comm: long(), ..state(n) }))))),
            (
                "samples",
                grown(
                    (0..MANY)
                        .map(|n| Event::Sample(Sample { comm: long(), ..recordings::sample(n as u32, 1) })),
                ),
            ),
            ("tasks", grown([Event::Mm(Box::new(MmState { tasks: Some(Box::new(tasks)), ..state(1) }))])),
        ];
        for (what, bytes) in of {
            let each = bytes / MANY as usize;
            assert!((255..LONG / 2).contains(&each), "{what}: {each}");
        }
        let each = grown((0..MANY).map(|n| Event::Refused(Box::new(refused(n))))) / MANY as usize;
        assert!((255 + 3 * 4096..2 * LONG).contains(&each), "{each}");
    }

    /// A later state replaces an earlier one.
    #[test]
    fn what_is_told_again_is_counted_once() {
        let again = |times: u64| grown((0..times).map(|_| Event::Mm(Box::new(state(1)))));
        assert_eq!(again(1000), again(1));
    }
}
