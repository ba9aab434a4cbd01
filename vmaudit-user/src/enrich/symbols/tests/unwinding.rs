//! Stacks followed by unwind information that is made for it, and by such that lies.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use crate::enrich::symbols::{
    Area, By, Handle, Image, Key, Module, helper,
    registers::{RETURN, SP},
    resolve::FOLLOWING,
    stack_copy::StackCopy,
    unwind::{End, FUNCTIONS, Followed, Stack},
};
use crate::made::{self, Section};

const DEF_CFA: u8 = 0x0c;
const DEF_CFA_EXPRESSION: u8 = 0x0f;
const UNDEFINED: u8 = 0x07;
const OFFSET: u8 = 0x80;
/// Where the stack of these tests is.
const STACK: u64 = 0x7000_0000;

/// `.eh_frame`: functions with the instructions that say how each keeps its caller.
fn frames(functions: &[(u64, u64, Vec<u8>)]) -> Section {
    let entry = |id: u32, body: &[u8]| {
        let mut bytes = [&id.to_le_bytes(), body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        [(bytes.len() as u32).to_le_bytes().to_vec(), bytes].concat()
    };
    // Version 1, no augmentation, factors 1 and -8; addresses are words.
    let mut all = entry(0, &[1, 0, 1, 0x78, RETURN as u8]);
    for (start, length, instructions) in functions {
        let body = [&start.to_le_bytes()[..], &length.to_le_bytes(), instructions].concat();
        // How far back the entry above lies.
        all.extend(entry(all.len() as u32 + 4, &body));
    }
    all.extend([0; 4]);
    Section::new(".eh_frame", all)
}

/// The frame is `size` bytes, with the return address in its last word.
fn keeps(size: u8) -> Vec<u8> {
    vec![DEF_CFA, SP as u8, size, OFFSET | RETURN as u8, 1]
}

/// Nobody called it.
fn first() -> Vec<u8> {
    vec![DEF_CFA, SP as u8, 8, UNDEFINED, RETURN as u8]
}

/// Follows a stack of these words in a program with this unwind information, which lies at its own addresses; it begins at
/// 0x101.
fn follow(sections: &[Section], words: &[u64], by_frame_pointers: &[u64]) -> Option<Followed> {
    follow_file(&made::file(sections), words, by_frame_pointers)
}

fn follow_file(program: &[u8], words: &[u64], by_frame_pointers: &[u64]) -> Option<Followed> {
    follow_called(program, "program", words, by_frame_pointers)
}

/// The file is mapped under this name.
fn follow_called(program: &[u8], called: &str, words: &[u64], by_frame_pointers: &[u64]) -> Option<Followed> {
    let name = format!("vmaudit-unwinding-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::File::create(&path).unwrap().write_all(program).unwrap();
    let held = std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    let key = Key { name: "program".into(), inode: held.metadata().unwrap().ino(), by: By::Device(0, 0) };
    let modules = [Module { key, handle: Handle::Held(held.into(), None) }];
    let area = |start, end, name: &str, module| Area { start, end, offset: start, name: name.into(), module };
    let areas = vec![area(0x1, 0x1000, called, Some(0)), area(0x2000, 0x3000, "", None)];
    let image = Image { areas, ..Image::default() };
    let mut registers = vec![0; 34];
    let (ip, sp) = if cfg!(target_arch = "aarch64") { (32, 31) } else { (16, 19) };
    (registers[ip], registers[sp]) = (0x101, STACK);
    // The frame pointer.
    registers[if cfg!(target_arch = "aarch64") { 29 } else { 4 }] = STACK + 0x20;
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let copy = StackCopy::new(STACK, registers, bytes);
    let stack = Stack { generation: 1, copy, by_frame_pointers: by_frame_pointers.to_vec() };
    let mut found = helper::follow(&modules, &[(1, image)].into(), &[stack], FOLLOWING);
    std::fs::remove_file(&path).unwrap();
    assert_eq!((found.left_behind, found.given_up.len()), (0, 0));
    found.stacks.remove(&0)
}

fn ended(addresses: &[u64], end: End) -> Option<Followed> {
    Some(Followed { addresses: addresses.to_vec(), end, by_frame_pointer: None, by_python: None })
}

#[test]
fn from_function_to_function_up_to_the_one_that_nobody_called() {
    let program = [frames(&[(0x100, 0x10, keeps(16)), (0x200, 0x10, keeps(24)), (0x300, 0x10, first())])];
    let words = [9, 0x205, 9, 9, 0x305];
    assert_eq!(follow(&program, &words, &[]), ended(&[0x101, 0x205, 0x305], End::First));
    assert_eq!(follow(&program, &words[..4], &[]), ended(&[0x101, 0x205], End::NotCopied(32)));
    assert_eq!(follow(&program, &[9, 0x5555], &[]), ended(&[0x101], End::NoCode), "no code is mapped there");
    assert_eq!(follow(&program, &[9, 0], &[]), ended(&[0x101], End::First));
}

#[test]
fn a_program_s_first_instructions_have_no_caller() {
    let mut file = made::file(&[frames(&[(0x100, 0x10, keeps(16))])]);
    // e_entry; 0 is none.
    assert_eq!(follow_file(&file, &[9, 0x21], &[]), ended(&[0x101, 0x21], End::NoFramePointer));
    file[24] = 0x20;
    assert_eq!(follow_file(&file, &[9, 0x21], &[]), ended(&[0x101, 0x21], End::First));
    assert_eq!(follow_file(&file, &[9, 0x81], &[]), ended(&[0x101, 0x81], End::NoFramePointer));
}

#[test]
fn code_without_information_is_passed_by_its_frame_pointer() {
    let program = [frames(&[(0x100, 0x10, keeps(16)), (0x300, 0x10, first())])];
    let words = [9, 0x2005, 9, 9, STACK, 0x305];
    let followed = follow(&program, &words, &[]).unwrap();
    assert_eq!((followed.addresses.as_slice(), followed.end), (&[0x101, 0x2005, 0x305][..], End::First));
    assert_eq!(followed.by_frame_pointer, Some(1));
    assert_eq!(follow(&program, &words[..5], &[]), ended(&[0x101, 0x2005], End::NoFramePointer));
    // The kernel came further, on another stack.
    let kernels = [0x101, 0x2005, 0x305, 0x5555];
    let rest = End::FramePointers { from: 1, certain: false };
    assert_eq!(follow(&program, &words[..5], &kernels), ended(&[0x101, 0x2005, 0x305], rest));
}

/// As clone3 is, which says nothing of its caller; on arm64 that is in a register.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_function_of_the_c_library_that_says_nothing_has_no_frame() {
    let library = made::file(&[frames(&[(0x200, 0x10, keeps(16)), (0x300, 0x10, first())])]);
    let (words, whole) = ([0x205, 9, 0x305], ended(&[0x101, 0x205, 0x305], End::First));
    assert_eq!(follow_called(&library, "/lib/libc.so.6", &words, &[]), whole);
    assert_ne!(follow_called(&library, "/lib/libcurl.so.4", &words, &[]), whole);
    let none = follow_called(&library, "/lib/libc.so.6", &[0x5555, 9, 0x305], &[]);
    assert_eq!(none, ended(&[0x101], End::NoFramePointer));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn python_s_generated_entries_are_two_words_of_stack() {
    let program = [frames(&[(0x100, 0x10, keeps(16)), (0x200, 0x10, keeps(24)), (0x300, 0x10, first())])];
    let program = made::file(&program);
    let words = [9, 0x2105, 9, 0x205, 9, 9, 0x305];
    let followed = follow_called(&program, "/usr/lib/libpython3.12.so.1.0", &words, &[]).unwrap();
    assert_eq!(followed.addresses, [0x101, 0x2105, 0x205, 0x305]);
    assert_eq!((followed.by_python, followed.end), (Some(1), End::First));
    // Others' generated code is not, and what does not return into Python is none.
    let other = follow_called(&program, "/usr/bin/other", &words, &[]).unwrap();
    assert!(other.by_python.is_none() && !other.addresses.contains(&0x205), "{other:?}");
    let words = [9, 0x2105, 9, 0x2205, 0x305, 9];
    let lost = follow_called(&program, "/usr/bin/python3.13", &words, &[]).unwrap();
    assert!(lost.by_python.is_none() && lost.is_cut(), "{lost:?}");
}

#[test]
fn go_is_followed_by_frame_pointers() {
    let go = [Section::new(".gopclntab", vec![0; 8])];
    let rest = End::FramePointers { from: 0, certain: true };
    assert_eq!(follow(&go, &[9; 9], &[0x101, 0x205]), ended(&[0x101, 0x205], rest));
}

#[test]
fn information_that_lies_ends_the_stack_and_nothing_else() {
    let lies = |instructions: Vec<u8>| follow(&[frames(&[(0x100, 0x10, instructions)])], &[0x105; 64], &[]);
    let contradiction = || ended(&[0x101], End::Contradiction);
    // Downwards; a register that nobody knows; unknown instructions; more kept states than there is room for.
    assert_eq!(lies(vec![0x12, SP as u8, 1, OFFSET | RETURN as u8, 1]), contradiction());
    assert_eq!(lies(vec![DEF_CFA, 77, 8, OFFSET | RETURN as u8, 1]), contradiction());
    assert_eq!(lies(vec![0x3f; 9]), contradiction());
    assert_eq!(lies(vec![0x0a; 5000]), contradiction());
    // An expression that jumps to itself, and one that reads where nothing is.
    assert_eq!(lies(vec![DEF_CFA_EXPRESSION, 3, 0x2f, 0xfd, 0xff]), contradiction());
    assert_eq!(lies(vec![DEF_CFA_EXPRESSION, 2, 0x30, 0x06]), ended(&[0x101], End::NotCopied(512)));
    // A frame of no size would be passed for ever.
    let endless = follow(&[frames(&[(0x100, 0x10, keeps(8))])], &[0x105; 4000], &[]).unwrap();
    assert_eq!((endless.addresses.len(), endless.end), (FUNCTIONS, End::Deep));
}

#[test]
fn damaged_information_does_no_harm() {
    let whole = frames(&[(0x100, 0x10, keeps(16)), (0x200, 0x10, keeps(24)), (0x300, 0x10, first())]);
    for at in 0..whole.data.len() {
        let mut damaged = whole.clone();
        damaged.data[at] ^= 0xff;
        assert!(follow(&[damaged], &[9, 0x205, 9, 9, 0x305], &[]).is_some(), "byte {at}");
    }
    assert!(follow(&[Section::new(".eh_frame", vec![0xff; 999])], &[9], &[]).is_some());
    assert!(follow(&[Section::new(".eh_frame_hdr", vec![1; 99]), whole], &[9], &[]).is_some());
}

/// All entries are looked at where there is no index: a large file takes its time, up to a bound.
#[test]
fn a_program_of_nothing_but_unwind_information_is_left_in_time() {
    let began = std::time::Instant::now();
    let many: Vec<(u64, u64, Vec<u8>)> = (0..200_000).map(|n| (0x1000 + n, 1, keeps(16))).collect();
    let section = frames(&many);
    let _ = follow(&[section], &[9], &[]);
    assert!(began.elapsed() < 2 * FOLLOWING);
}
