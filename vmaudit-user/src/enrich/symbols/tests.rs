mod hostile;
mod unwinding;

use std::io::Write as _;

use crate::enrich::symbols::mappings::Lookup;
use crate::enrich::symbols::resolve::Resolved;
use crate::enrich::symbols::*;
use crate::model::event::{Credit, StackName};
use crate::model::report::Frame;
use crate::os::apart::Patience;

pub(super) fn refused(generation: u64, tgid: u32, stack: &[u64]) -> Refused {
    Refused { generation, tgid, tid: tgid, stack: stack.to_vec(), ..Refused::example() }
}

#[inline(never)]
fn a_function_with_a_name() -> u64 {
    std::hint::black_box(7)
}

/// Behind the first instruction of [`a_function_with_a_name`], as a return address is.
pub(super) fn known() -> u64 {
    a_function_with_a_name as fn() -> u64 as usize as u64 + 1
}

/// Waits long for whoever works, as many do on a busy machine.
pub(super) fn symbols() -> Symbols {
    Symbols::new(false, &Patience::for_one())
}

pub(super) fn remember_all(symbols: &mut Symbols, lives: bool) {
    while !symbols.queue.is_empty() {
        symbols.remember(9, &|_| lives);
        symbols.wait(&|_| lives);
    }
}

fn of_this_process(stack: &[u64]) -> Resolved {
    let mut symbols = symbols();
    symbols.notice(&refused(5, std::process::id(), stack));
    remember_all(&mut symbols, true);
    let resolved = symbols.resolve();
    assert!(symbols.notes().is_empty(), "{:?}", symbols.notes());
    resolved
}

#[test]
fn a_function_of_this_program_has_its_name_module_file_and_line() {
    a_function_with_a_name();
    let resolved = of_this_process(&[known()]);
    let StackName { generation, ip, frame, .. } = &resolved.frames[0];
    assert_eq!((*generation, *ip), (5, known()));
    assert_eq!(frame.ip, Some(format!("{:#x}", known())));
    let symbol = frame.symbol.as_deref().unwrap_or_default();
    assert!(symbol.contains("a_function_with_a_name"), "{frame:?}");
    assert_eq!(frame.module, std::env::current_exe().unwrap().to_str().map(str::to_owned));
    if let Some(file) = &frame.file {
        assert!(file.ends_with("symbols/tests.rs"), "{frame:?}");
        assert!(frame.line > Some(0));
    }
}

#[test]
fn the_stack_ends_at_a_word_that_is_not_executable() {
    let on_the_heap = Box::new(1u64);
    let garbage = &raw const *on_the_heap as u64;
    let resolved = of_this_process(&[known(), garbage, known() + 1]);
    assert_eq!(resolved.ends, [(5, garbage)]);
    assert_eq!(resolved.frames.len(), 1, "{:?}", resolved.frames);
}

#[test]
fn the_innermost_frame_stays_whatever_it_is() {
    let resolved = of_this_process(&[8]);
    assert!(resolved.ends.is_empty() && resolved.frames.is_empty(), "{resolved:?}");
}

/// Maps a file of ours executable, as a loader does, and resolves the address at `inside`.
fn in_a_file(bytes: &[u8], inside: u64) -> Frame {
    use std::os::fd::AsRawFd as _;
    let path = std::env::temp_dir().join(format!("vmaudit-symbols-{}-{}", std::process::id(), bytes.len()));
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(address, libc::MAP_FAILED);
    let resolved = of_this_process(&[address as u64 + inside]);
    std::fs::remove_file(&path).unwrap();
    // SAFETY: the mapping made above.
    unsafe { libc::munmap(address, 8192) };
    resolved.frames[0].frame.clone()
}

#[test]
fn a_file_without_symbols_gives_module_and_offset() {
    for bytes in [&b"no ELF file at all"[..], &[0; 8192], b"\x7fELF\x02\x01\x01", &[0xff; 777], b""] {
        let frame = in_a_file(bytes, 0x123);
        assert!(frame.module.as_deref().unwrap().contains("vmaudit-symbols-"), "{frame:?}");
        assert_eq!((frame.offset, frame.symbol), (Some(0x123), None));
    }
}

/// A broken ELF file of each kind that one bad byte makes: no name, and no harm.
#[test]
fn a_damaged_file_does_no_harm() {
    let mut elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    elf.truncate(100_000);
    for (at, byte) in (0..64).step_by(4).map(|at| (at, 0xff)) {
        let mut bytes = elf.clone();
        bytes[at] = byte;
        bytes.push(at as u8);
        assert_eq!(in_a_file(&bytes, 0x123).offset, Some(0x123));
    }
}

#[test]
fn reading_the_text_finds_what_the_query_finds() {
    let heap = Box::new(0u8);
    let addresses = [known(), &raw const *heap as u64, libc::getpid as *const () as u64, 8];
    let lookup = Lookup::open(std::process::id()).unwrap();
    let by_text = lookup.read(&addresses, &[]).unwrap();
    assert!(
        by_text.found.iter().map(|(_, mapping)| mapping.is_some()).eq([true, false, true, false]),
        "{by_text:?}"
    );
    let by_query = Lookup::open(std::process::id()).unwrap().find(&addresses, &[], true).unwrap();
    assert_eq!(by_text, by_query);
}

#[test]
fn all_code_is_told_or_that_there_is_more() {
    let own = || Lookup::open(std::process::id()).unwrap();
    let ways: [fn(&Lookup, usize) -> Option<Looked>; 2] =
        [|it, most| it.find_code(&[known()], most), |it, most| it.read_all(&[known()], most)];
    for way in ways {
        let all = way(&own(), 1000).unwrap();
        assert!(!all.cut && all.more.len() > 2, "{all:?}");
        let some = way(&own(), 2).unwrap();
        assert!(some.cut && some.more.len() == 2, "{some:?}");
    }
}

fn credit(level: u32) -> Credit {
    Credit {
        key: 0,
        at_ns: 1,
        generation: 5,
        tgid: std::process::id(),
        tid: 7,
        base: level - 1,
        level,
        call: vmaudit_common::call::MMAP,
        place: 0,
        caller: None,
        stack: vec![known()],
    }
}

#[test]
fn looks_for_credited_calls_leave_refused_ones_theirs() {
    let mut symbols = symbols();
    let mut level = vmaudit_common::MAKERS_COPIES;
    for _ in 0..LOOKS_PER_IMAGE + 3 {
        let mut credit = credit(level);
        level *= 2;
        let copy = StackCopy::new(0x7ffd_0000, vec![0; 34], known().to_le_bytes().to_vec());
        symbols.places.notice(&mut credit, Some(copy), symbols.images.get(&5));
        symbols.remember(1, &|_| true);
        symbols.wait(&|_| true);
        // Not what is tested here.
        symbols.second = None;
    }
    assert_eq!((symbols.code_looks, symbols.looks), (LOOKS_PER_IMAGE, 0));
    // No mapping at all: it has to be asked for.
    symbols.notice(&refused(5, std::process::id(), &[known(), 0x1009]));
    remember_all(&mut symbols, true);
    assert_eq!((symbols.looks, symbols.skipped), (1, 0));
    symbols.second = None;
    let granted = |symbols: &mut Symbols, most| (0..100).filter(|_| symbols.may_look(most)).count();
    assert_eq!(granted(&mut symbols, LOOKS_PER_SECOND.1), 25);
    assert_eq!(granted(&mut symbols, LOOKS_PER_SECOND.0), 25, "the other half is for them alone");
    symbols.code_looks = LOOKS;
    symbols.renew();
    assert_eq!((symbols.looks, symbols.code_looks), (0, 0));
}

#[test]
fn mappings_that_were_too_many_a_moment_ago_are_not_read_again_for_credited_calls() {
    let looks = |unread: Option<Instant>| {
        let mut symbols = symbols();
        symbols.images.entry(5).or_default().unread = unread;
        let mut credit = credit(vmaudit_common::MAKERS_COPIES);
        let copy = StackCopy::new(0x7ffd_0000, vec![0; 34], known().to_le_bytes().to_vec());
        symbols.places.notice(&mut credit, Some(copy), symbols.images.get(&5));
        symbols.remember(1, &|_| true);
        symbols.wait(&|_| true);
        symbols.code_looks
    };
    assert_eq!((looks(None), looks(Some(Instant::now()))), (1, 0));
}

#[test]
fn a_process_that_is_gone_is_counted_and_looked_at_no_more() {
    let mut symbols = symbols();
    symbols.notice(&refused(5, std::process::id(), &[known()]));
    remember_all(&mut symbols, false);
    assert!(symbols.resolve().frames.is_empty());
    assert_eq!(symbols.notes().len(), 1, "{:?}", symbols.notes());
    assert_eq!(symbols.looks, 0);
}

#[test]
fn what_was_remembered_names_stacks_after_the_end() {
    let mut symbols = symbols();
    symbols.notice(&refused(5, std::process::id(), &[known()]));
    remember_all(&mut symbols, true);
    symbols.notice(&Refused { errno: 11, ..refused(5, std::process::id(), &[known() + 1]) });
    remember_all(&mut symbols, false);
    assert_eq!(symbols.resolve().frames.len(), 2);
    assert!(symbols.notes().is_empty());
}

#[test]
fn one_image_is_looked_at_a_bounded_number_of_times() {
    let mut symbols = symbols();
    for n in 0..100u64 {
        let refused = Refused { class: n, ..refused(5, std::process::id(), &[0x1000 * n + 9]) };
        symbols.notice(&refused);
        symbols.notice(&refused);
    }
    remember_all(&mut symbols, true);
    assert_eq!(symbols.looks, LOOKS_PER_IMAGE);
    assert_eq!(symbols.skipped, u64::from(100 - LOOKS_PER_IMAGE));
}

/// As at the end of a session: what the kernel told of a mapping names a stack that no look was had for.
#[test]
fn a_stack_that_was_not_looked_at_in_time_has_what_the_kernel_told() {
    let mut symbols = symbols();
    symbols.told(&Mapped {
        generation: 5,
        start: known() & !0xfff,
        end: (known() & !0xfff) + 4096,
        offset: 0,
        executable: true,
        file: None,
    });
    symbols.notice(&refused(5, std::process::id(), &[known()]));
    symbols.notice(&Refused { errno: 11, ..refused(5, std::process::id(), &[8]) });
    symbols.settle(&|_| true);
    assert_eq!((symbols.resolve().frames.len(), symbols.skipped, symbols.looks), (1, 1, 0));
}

#[test]
fn a_caller_is_named_if_executable_and_left_out_if_not() {
    let mut symbols = symbols();
    let on_the_heap = Box::new(1u64);
    let word = &raw const *on_the_heap as u64;
    symbols.notice(&Refused { caller: Some(word), ..refused(5, std::process::id(), &[known()]) });
    symbols.notice(&Refused {
        caller: Some(known() + 1),
        errno: 11,
        ..refused(5, std::process::id(), &[known()])
    });
    remember_all(&mut symbols, true);
    let resolved = symbols.resolve();
    let ips: Vec<u64> = resolved.frames.iter().map(|it| it.ip).collect();
    assert_eq!(ips, [known(), known() + 1]);
    assert!(resolved.ends.is_empty());
}

#[test]
fn switched_off_it_takes_nothing() {
    let mut symbols = Symbols::new(true, &Patience::default());
    symbols.notice(&refused(5, std::process::id(), &[known()]));
    assert!(symbols.queue.is_empty());
}

/// One file, and no descriptor for the pipe to a child.
#[test]
fn a_child_that_cannot_be_started_is_noted() {
    let name = concat!(module_path!(), "::a_child_that_cannot_be_started_is_noted");
    // The limit is that of a whole process.
    crate::alone::alone(name, without_descriptors);
}

fn without_descriptors() {
    let address = question::Address { at: 1, in_file: 1, module: Some(0), generation: 1, jitted: false };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
    let read = helper::names(&[], &HashMap::new(), &[address], resolve::DEADLINE);
    assert!(read.names.is_empty());
    assert_eq!(read.given_up.len(), 1);
}
