//! What the programs write, as events: records of the ring buffer and slots of the table.

use std::mem::{offset_of, size_of};

use bytemuck::Pod;
use vmaudit_common::{
    CLASS_GAP, CLASS_LOOKED, CLASS_SEARCHED, CLASS_SECTION, ChangeRecord, DeadRecord, ENVIRONMENT_BYTES,
    EndRecord, EnvironmentRecord, ExecRecord, FailureRecord, GroupKey, KilledRecord, LedgerEntry, LeftRecord,
    MAPPING_EXECUTABLE, MAPPING_FILE, MAPPING_WHOLE_PATH, MM_FROM_BIRTH, MM_FROM_EXEC, MM_FROM_SNAPSHOT,
    MM_SHARED, MakerRecord, MappingRecord, MmSlot, OOM_INSIDE, OOM_LEVELS, OOM_SAYS, OOM_WHOLE, OomRecord,
    RECORD_CHANGE, RECORD_DEAD, RECORD_END, RECORD_ENVIRONMENT, RECORD_EXEC, RECORD_FAILURE, RECORD_LEDGER,
    RECORD_LEFT, RECORD_LIMIT_NEAR, RECORD_MAKER, RECORD_MAPPING, RECORD_OOM, RECORD_STACK, REGISTERS,
    RecordHeader, SIGNAL_BLOCKS, SIGNAL_FAULT, SIGNAL_FILE, SIGNAL_IN_EXEC, SIGNAL_LOOKED, SIGNAL_MAPPED,
    SIGNAL_OOM, SIGNAL_OWN, SIGNAL_STACK, SignalSeen, Site, StackRecord, TaskName,
};

use crate::domain::test_name::{test_of, variable};
use crate::model::end::{
    Ended, Fault, FaultFile, FaultMapping, OomFigures, OomSeen, OomVictim, OwnState, Raised, Sender,
};
use crate::model::event::{
    CallStat, Change, Credit, Event, Host, Mapped, MappedFile, MmState, Needed, ProcessFacts, ProcessId,
    RefusalGroup, RefusalSite, Refused, Section, Sizes, StackPiece, Within,
};
use crate::model::shortage::Tasks;
use crate::model::test::{TestOf, WithoutTest};
use crate::source::ebpf::intervals::Intervals;
use crate::source::ebpf::ledger;
use crate::source::ebpf::left_ranges::LeftRanges;
use crate::source::ebpf::page_size;
use crate::source::ebpf::task_names::task_names;
use crate::text::until_zero;

/// A look at the range has found a gap.
const CLASS_LOOKED_GAP: u64 = CLASS_LOOKED | CLASS_GAP;

pub enum Decoded {
    Event(Event),
    /// [`Event::Process`] with a part of a path: its beginning, or, if it does not begin with `/`, its end.
    PartOfPath(ProcessFacts),
    Dead(u64),
    /// See [`vmaudit_common::LIMIT_NEAR`].
    LimitNear,
    Left(LeftRecord),
}

/// Reads one record; `None` for one that is too short or of an unknown kind (the kernel side of the same build never
/// writes such).
pub fn decode(bytes: &[u8]) -> Option<Decoded> {
    let head: RecordHeader = read_record(bytes)?;
    Some(match head.kind {
        RECORD_CHANGE => {
            let r: ChangeRecord = read_record(bytes)?;
            Decoded::Event(Event::Change(Change {
                at_ns: head.at_ns,
                generation: head.generation,
                tgid: head.tgid,
                tid: head.tid,
                comm: until_zero(&r.comm),
                before: r.before,
                after: r.after,
                call: r.call as u8,
            }))
        }
        RECORD_FAILURE => Decoded::Event(Event::Refused(Box::new(refused(&read_record(bytes)?)))),
        RECORD_MAKER => Decoded::Event(Event::Credit(Box::new(credit(bytes)?))),
        RECORD_LEDGER => Decoded::Event(Event::Credit(Box::new(place_of_entry(bytes)?))),
        RECORD_MAPPING => Decoded::Event(Event::Mapped(Box::new(mapped(bytes)?))),
        RECORD_STACK => Decoded::Event(Event::StackPiece(Box::new(stack_piece(bytes)?))),
        RECORD_EXEC => {
            let r: ExecRecord = read_record(bytes)?;
            let path = until_zero(&r.filename);
            let named = ProcessFacts {
                process: ProcessId { tgid: head.tgid, start_ns: r.start_boottime_ns },
                at_ns: head.at_ns,
                exe: Some(path).filter(|path| !path.is_empty()),
                cgroup: None,
                within: Within::default(),
            };
            // The last byte is the `\0`, and the one before it is used only by what just fits or does not.
            let full = r.filename.iter().rev().nth(1).is_some_and(|&byte| byte != 0);
            match named.exe.as_deref().map(|path| path.starts_with('/')) {
                Some(true) if full => Decoded::PartOfPath(named),
                Some(false) if full => Decoded::Event(Event::Process(ProcessFacts { exe: None, ..named })),
                Some(false) => Decoded::PartOfPath(named),
                _ => Decoded::Event(Event::Process(named)),
            }
        }
        RECORD_ENVIRONMENT => Decoded::Event(Event::Test(Box::new(test(bytes)?))),
        RECORD_END => Decoded::Event(Event::Ended(Box::new(ended(bytes)?))),
        RECORD_OOM => {
            let r: OomRecord = read_cut(bytes, offset_of!(OomRecord, path))?;
            let process = ProcessId { tgid: head.tgid, start_ns: r.start_boottime_ns };
            let memory = oom_seen(&r).map(Box::new);
            Decoded::Event(Event::OomVictim(Box::new(OomVictim { process, at_ns: head.at_ns, memory })))
        }
        RECORD_LIMIT_NEAR => Decoded::LimitNear,
        RECORD_LEFT => Decoded::Left(read_record(bytes)?),
        RECORD_DEAD => Decoded::Dead(read_record::<DeadRecord>(bytes)?.slot),
        _ => return None,
    })
}

fn read_record<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// Which test a process belongs to, if to any.
fn test(bytes: &[u8]) -> Option<TestOf> {
    const HEAD: usize = offset_of!(EnvironmentRecord<ENVIRONMENT_BYTES>, data);
    let head: RecordHeader = read_record(bytes)?;
    let words = |at, n| bytes.get(at..at + n);
    let number = |at| Some(u64::from_ne_bytes(words(at, 8)?.try_into().ok()?));
    let length = usize::try_from(number(offset_of!(EnvironmentRecord<ENVIRONMENT_BYTES>, bytes))?).ok()?;
    let environment = bytes.get(HEAD..HEAD.checked_add(length.min(ENVIRONMENT_BYTES))?)?;
    let path = until_zero(words(offset_of!(EnvironmentRecord<ENVIRONMENT_BYTES>, filename), 128)?);
    // The runner sets it where it runs a test somewhere else.
    let folder = variable(environment, "PWD");
    let start_ns = number(offset_of!(EnvironmentRecord<ENVIRONMENT_BYTES>, start_boottime_ns))?;
    let process = ProcessId { tgid: head.tgid, start_ns };
    Some(match test_of(environment, &path, folder.as_deref()) {
        Some(test) => TestOf::named(process, test),
        None => TestOf::without(process, WithoutTest::None),
    })
}

fn ended(bytes: &[u8]) -> Option<Ended> {
    let r: EndRecord = read_record(bytes)?;
    // The longer record ends behind the signal; the ring buffer gives no more bytes than were written.
    let signal = read_record::<KilledRecord>(bytes).map(|killed| Box::new(raised(&killed.signal)));
    Some(Ended {
        process: ProcessId { tgid: r.head.tgid, start_ns: r.start_boottime_ns },
        at_ns: r.head.at_ns,
        ppid: r.ppid,
        comm: until_zero(&r.comm),
        status: r.status & 0xffff,
        signal,
    })
}

fn raised(s: &SignalSeen) -> Raised {
    let has = |bit| s.flags & bit != 0;
    let file = FaultFile {
        offset: s.file_offset,
        size: s.file_size,
        magic: s.file_magic,
        blocks: has(SIGNAL_BLOCKS).then_some(s.blocks),
    };
    let mapping =
        FaultMapping { start: s.vma_start, flags: s.vma_flags, file: has(SIGNAL_FILE).then_some(file) };
    let fault = Fault {
        address: s.address,
        looked: has(SIGNAL_LOOKED),
        mapping: has(SIGNAL_MAPPED).then_some(mapping),
    };
    let [rlimit_stack, rlimit_as] = s.rlimits;
    let own = OwnState {
        sp: s.sp,
        total_vm: s.total_vm,
        stack_vm: s.stack_vm,
        env_end: s.env_end,
        rlimit_stack,
        rlimit_as,
        rlimit_cpu: s.rlimit_cpu,
        cpu_ns: s.cpu_ns,
        stack: has(SIGNAL_STACK).then_some([s.stack_start, s.stack_end]),
    };
    Raised {
        at_ns: s.at_ns,
        code: s.code,
        tid: s.tid,
        by: Sender { tgid: s.sender_tgid, tid: s.sender_tid, comm: until_zero(&s.sender_comm) },
        oom: has(SIGNAL_OOM),
        in_exec: has(SIGNAL_IN_EXEC),
        own: has(SIGNAL_OWN).then_some(own),
        fault: has(SIGNAL_FAULT).then_some(fault),
    }
}

fn refused(r: &FailureRecord) -> Refused {
    let frames = usize::try_from(r.stack_bytes).unwrap_or(0) / 8;
    Refused {
        at_ns: r.head.at_ns,
        generation: r.head.generation,
        tgid: r.head.tgid,
        tid: r.head.tid,
        comm: until_zero(&r.comm),
        call: r.call as u8,
        errno: r.errno as u8,
        class: r.class,
        ret: r.ret,
        args: r.args,
        section: (r.class & CLASS_SECTION != 0).then_some(Section {
            mc0: r.section.mc0,
            mc1: r.section.mc1,
            total_vm: r.section.total_vm,
            locked_vm: r.section.locked_vm,
            data_vm: r.section.data_vm,
            searched: (r.class & CLASS_SEARCHED != 0).then_some(r.section.searched as i64),
        }),
        max_map_count: r.max_map_count,
        rlimits: r.rlimits,
        start_brk: r.start_brk,
        hole: (r.class & CLASS_LOOKED_GAP == CLASS_LOOKED_GAP).then_some(r.hole),
        tasks: Tasks::of(&r.tasks).map(Box::new),
        commit: None,
        caller: Some(r.caller).filter(|&ip| ip != 0),
        site: r.site,
        stack: callers(r.stack.iter().take(frames).copied().filter(|&ip| ip != 0)),
    }
}

/// Code without frame pointers may leave a frame that points to itself (clone3 does): the walk then repeats its address
/// until the room is full. Deep recursion looks the same and fills it too; one of the calls is enough to tell.
fn callers(walked: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut stack: Vec<u64> = walked.collect();
    while let [.., before, last] = stack.as_slice()
        && before == last
    {
        stack.pop();
    }
    stack
}

fn credit(bytes: &[u8]) -> Option<Credit> {
    let r: MakerRecord = read_cut(bytes, offset_of!(MakerRecord, words))?;
    let used = (r.used as usize).min((bytes.len() - offset_of!(MakerRecord, words)) / 8);
    let words = r.words.get(..used).unwrap_or_default();
    Some(Credit {
        at_ns: r.head.at_ns,
        generation: r.head.generation,
        tgid: r.head.tgid,
        tid: r.head.tid,
        base: r.base,
        level: r.level,
        call: r.call as u8,
        place: 0,
        caller: words.first().copied().filter(|&ip| ip != 0),
        stack: callers(words.iter().skip(1).copied().filter(|&ip| ip != 0)),
        key: 0,
    })
}

/// The same, of an entry of the ledger: its key is where a credit has levels.
fn place_of_entry(bytes: &[u8]) -> Option<Credit> {
    let it = credit(bytes)?;
    Some(Credit { key: u64::from(it.level) << 32 | u64::from(it.base), base: 0, level: 0, ..it })
}

fn stack_piece(bytes: &[u8]) -> Option<StackPiece> {
    // The record ends behind its data.
    let whole = offset_of!(StackRecord, data);
    let (head, data) = (bytes.get(..whole)?, bytes.get(whole..)?);
    let word = |at: usize| head.get(at..at + 8).map(bytemuck::pod_read_unaligned::<u64>);
    let registers = head.get(offset_of!(StackRecord, registers)..)?.chunks_exact(8).take(REGISTERS);
    let record: RecordHeader = read_record(bytes)?;
    Some(StackPiece {
        generation: record.generation,
        tid: record.tid,
        at_ns: record.at_ns,
        sp: word(offset_of!(StackRecord, sp))?,
        start: word(offset_of!(StackRecord, start))?,
        registers: registers.map(bytemuck::pod_read_unaligned::<u64>).collect(),
        bytes: data.get(..usize::try_from(word(offset_of!(StackRecord, bytes))?).ok()?)?.to_vec(),
    })
}

/// Reads a record that ends behind its path, which begins at `path`.
fn read_cut<T: Pod>(bytes: &[u8], path: usize) -> Option<T> {
    let mut whole = T::zeroed();
    let room = bytemuck::bytes_of_mut(&mut whole);
    let length = bytes.len().min(room.len());
    if length < path {
        return None;
    }
    room.get_mut(..length)?.copy_from_slice(bytes.get(..length)?);
    Some(whole)
}

/// The memory cgroups of a victim; `None` where they could not be read.
fn oom_seen(r: &OomRecord) -> Option<OomSeen> {
    let page = page_size();
    let whole = r.flags & OOM_WHOLE != 0;
    let count = (r.levels as usize).min(OOM_LEVELS);
    let names = r.path.get(..r.path_bytes as usize)?;
    let figures = r.level.iter().take(count).enumerate().map(|(n, level)| OomFigures {
        limit_bytes: level.limit.saturating_mul(page),
        used_bytes: level.used.saturating_mul(page),
        acting: (r.flags & OOM_SAYS != 0).then_some(r.acting >> n & 1 == 1),
    });
    let seen = OomSeen {
        inode: r.cgroup,
        names: names.split_inclusive(|&b| b == 0).take(count).map(until_zero).collect(),
        figures: figures.collect(),
        whole,
        inside: r.flags & OOM_INSIDE != 0,
    };
    // The root has no level.
    (whole || count > 0).then_some(seen).filter(|seen| seen.names.len() == count)
}

fn mapped(bytes: &[u8]) -> Option<Mapped> {
    let r: MappingRecord = read_cut(bytes, offset_of!(MappingRecord, path))?;
    let path = r.path.get(..r.path_bytes as usize)?;
    Some(Mapped {
        generation: r.head.generation,
        start: r.start,
        end: r.end,
        offset: r.offset,
        executable: r.flags & MAPPING_EXECUTABLE != 0,
        file: (r.flags & MAPPING_FILE != 0).then(|| MappedFile {
            path: path_from(path, r.flags & MAPPING_WHOLE_PATH != 0),
            inode: r.inode,
            changed: (r.changed_s, r.changed_ns & ((1 << 30) - 1)),
        }),
    })
}

/// Names from the file's upwards, each with its `\0`, as a path.
fn path_from(names: &[u8], whole: bool) -> String {
    let mut names: Vec<&[u8]> = names.strip_suffix(b"\0").unwrap_or(names).split(|&b| b == 0).collect();
    if !whole {
        names.push(b"...");
    }
    let path = names.iter().rev().fold(Vec::new(), |path, name| [&path, &b"/"[..], name].concat());
    let path = String::from_utf8_lossy(&path);
    if whole { path.into_owned() } else { path.trim_start_matches('/').to_owned() }
}

fn site_of(site: &Site) -> RefusalSite {
    RefusalSite {
        site: site.key,
        count: site.count,
        recovered: site.recovered.min(site.count),
        first_ns: site.first_ns,
        last_ns: site.last_ns,
        smallest_bytes: !site.smallest_inverted,
        largest_bytes: site.largest,
    }
}

/// What is known of an address space beside its slot.
pub struct Beside<'a> {
    /// Places at which calls were refused.
    pub sites: &'a [Site],
    /// What its tasks did, by name.
    pub names: &'a [TaskName],
    /// Its entries in the ledger, where there is one.
    pub ledger: Option<&'a [LedgerEntry]>,
    /// The kernel numbers write sections, and gaps were looked for.
    pub numbered: bool,
    /// The sizes were read whenever they can have grown, and what refused calls leave mapped was told.
    pub all_seen: bool,
    /// What they have left mapped.
    pub left: &'a LeftRanges,
    /// When the intervals of its cells began.
    pub intervals: &'a Intervals,
}

pub fn mm_state(slot: &MmSlot, beside: &Beside<'_>) -> MmState {
    let Beside { sites, names, numbered, all_seen, left, .. } = *beside;
    let kept_bytes = left.bytes(slot.generation);
    let mut state = MmState {
        generation: slot.generation,
        process: ProcessId { tgid: slot.tgid, start_ns: slot.start_boottime_ns },
        ppid: slot.ppid,
        uid: slot.uid,
        comm: until_zero(&slot.comm),
        first: slot.first,
        last: slot.last,
        peak: slot.peak,
        born_ns: slot.born_ns,
        peak_ns: slot.peak_ns,
        dead_ns: (slot.dead_ns != 0).then_some(slot.dead_ns),
        from_birth: slot.flags & MM_FROM_BIRTH != 0,
        from_snapshot: slot.flags & MM_FROM_SNAPSHOT != 0,
        from_exec: slot.flags & MM_FROM_EXEC != 0,
        shared: slot.flags & MM_SHARED != 0,
        gaps: numbered.then_some(slot.gaps),
        most: all_seen.then_some(Sizes {
            total: slot.most.total,
            data: slot.most.data,
            locked: slot.most.locked,
            stack: slot.most.stack,
            all_seen: true,
        }),
        kept: all_seen.then(|| left.of(slot)),
        open_end: false,
        joined: None,
        calls: slot
            .calls
            .iter()
            .enumerate()
            .filter(|(_, stat)| **stat != vmaudit_common::CallStat::default())
            .map(|(id, s)| {
                (id as u8, CallStat { calls: s.calls, added: s.added, removed: s.removed, failed: s.failed })
            })
            .collect(),
        refusals: slot
            .failures
            .iter()
            .enumerate()
            .filter_map(|(n, group)| {
                let key = GroupKey::unpack(group.key)?;
                Some(RefusalGroup {
                    call: key.call,
                    errno: key.errno,
                    class: key.class,
                    count: group.count,
                    first_ns: group.first_ns,
                    last_ns: group.last_ns,
                    kept_bytes: if all_seen {
                        kept_bytes.get(n).copied().unwrap_or(0)
                    } else {
                        group.leaked_bytes
                    },
                    recovered: group.recovered.min(group.count),
                    needed: Needed {
                        total: group.needed.total,
                        data: group.needed.data,
                        locked: group.needed.locked,
                    },
                    sites: sites.iter().filter(|site| site.group == n as u64).map(site_of).collect(),
                })
            })
            .collect(),
        untold: beside.intervals.untold(slot),
        host: (slot.host != 0).then_some(Host { generation: slot.host, tgid: slot.host_tgid }),
        tasks: task_names(slot, names.iter()),
        ledger: beside.ledger.map(|entries| entries.iter().map(ledger::entered).collect()),
    };
    // Thousands of them are kept for a while.
    state.calls.shrink_to_fit();
    state.refusals.shrink_to_fit();
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::call;

    #[test]
    fn short_and_unknown_records_are_dropped_not_trusted() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[1, 0, 0, 0]).is_none());
        let mut head = [0u8; size_of::<RecordHeader>()];
        for kind in 0..=255 {
            head[0] = kind;
            let whole = u32::from(kind) == RECORD_LIMIT_NEAR;
            assert_eq!(decode(&head).is_some(), whole, "kind {kind}");
        }
    }

    #[test]
    fn a_failure_record_keeps_its_figures() {
        let mut r: FailureRecord = bytemuck::Zeroable::zeroed();
        r.head.kind = RECORD_FAILURE;
        r.head.tgid = 7;
        r.call = call::MUNMAP.into();
        r.errno = 12;
        r.class = CLASS_SECTION | 7;
        r.section.mc0 = 65530;
        r.stack[0] = 0x1234;
        r.stack_bytes = 8;
        let Some(Decoded::Event(Event::Refused(refused))) = decode(bytemuck::bytes_of(&r)) else { panic!() };
        assert_eq!((refused.tgid, refused.call, refused.section.unwrap().mc0), (7, call::MUNMAP, 65530));
        assert_eq!(refused.stack, [0x1234]);
    }

    #[test]
    fn a_walk_that_does_not_get_on_ends_where_it_began_to_repeat() {
        let walk = |stack: &[u64]| callers(stack.iter().copied());
        assert_eq!(walk(&[1, 2, 3, 3, 3, 3]), [1, 2, 3]);
        assert_eq!(walk(&[1, 2, 2, 2, 3]), [1, 2, 2, 2, 3], "recursion with a caller stays");
        assert!(walk(&[]).is_empty());
    }

    #[test]
    fn the_path_of_a_mapped_file_is_put_together_from_its_names() {
        let mut r: MappingRecord = bytemuck::Zeroable::zeroed();
        r.head.kind = RECORD_MAPPING;
        (r.start, r.end, r.offset, r.inode, r.changed_s) = (0x1000, 0x3000, 0x2000, 7, 5);
        r.changed_ns = 9 | 1 << 31;
        r.flags = MAPPING_EXECUTABLE | MAPPING_FILE | MAPPING_WHOLE_PATH;
        let names = b"libc.so.6\0lib\0usr\0";
        r.path[..names.len()].copy_from_slice(names);
        r.path_bytes = names.len() as u32;
        let bytes = &bytemuck::bytes_of(&r)[..offset_of!(MappingRecord, path) + names.len()];
        let Some(Decoded::Event(Event::Mapped(mapped))) = decode(bytes) else { panic!() };
        assert_eq!(
            (mapped.start, mapped.end, mapped.offset, mapped.executable),
            (0x1000, 0x3000, 0x2000, true)
        );
        let file = mapped.file.unwrap();
        assert_eq!((file.path.as_str(), file.inode, file.changed), ("/usr/lib/libc.so.6", 7, (5, 9)));
        for cut in 0..offset_of!(MappingRecord, path) {
            assert!(decode(&bytes[..cut]).is_none(), "{cut}");
        }
        r.path_bytes = u32::MAX;
        assert!(decode(bytemuck::bytes_of(&r)).is_none());
    }

    #[test]
    fn a_path_that_is_not_whole_says_so() {
        assert_eq!(path_from(b"b\0a\0", true), "/a/b");
        assert_eq!(path_from(b"b\0a\0", false), ".../a/b");
        assert_eq!(path_from(b"memfd:x\0", true), "/memfd:x");
        assert_eq!(path_from(b"\xff\0", true), "/\u{fffd}");
        assert_eq!(path_from(b"", true), "/");
    }

    #[test]
    fn a_part_of_a_path_is_told_apart() {
        let mut r: ExecRecord = bytemuck::Zeroable::zeroed();
        r.head.kind = RECORD_EXEC;
        let mut decoded = |length: usize, first: u8| {
            r.filename = [0; 128];
            r.filename[..length].fill(b'x');
            r.filename[0] = first;
            decode(bytemuck::bytes_of(&r)).unwrap()
        };
        let Decoded::Event(Event::Process(whole)) = decoded(126, b'/') else { panic!("126 bytes are whole") };
        assert_eq!(whole.exe.unwrap().len(), 126);
        let Decoded::PartOfPath(cut) = decoded(127, b'/') else { panic!("127 bytes may be more") };
        assert_eq!(cut.exe.unwrap().len(), 127);
        let Decoded::Event(Event::Process(nothing)) = decoded(127, b'.') else { panic!("neither end") };
        assert_eq!(nothing.exe, None);
        let Decoded::PartOfPath(relative) = decoded(10, b'.') else { panic!("its end") };
        assert_eq!(relative.exe.unwrap().len(), 10);
    }

    #[test]
    fn names_end_at_their_zero_and_bad_bytes_are_marked() {
        assert_eq!(until_zero(b"abc\0def"), "abc");
        assert_eq!(until_zero(b"\xff\0"), "\u{fffd}");
    }
}
