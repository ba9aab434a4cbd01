//! Files made to harm whoever reads them, and what the process that reads them cannot do.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::enrich::symbols::{
    channel::{self, Ask, Place},
    child::Child,
    debug_files::{self, Home},
    dwarf,
    elf::{self, Program},
    helper::Names,
    question::{Address, Task, Work},
    resolve::DEADLINE,
    told::Stamp,
    *,
};

use crate::made::{self, Section};

/// A folder of ours, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        let path = temporary.join(format!("vmaudit-hostile-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn held(path: &Path) -> OwnedFd {
    std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap().into()
}

fn modules(files: &[&Path]) -> Vec<Module> {
    let module = |path: &&Path| {
        let name = path.to_str().unwrap().to_owned();
        let key = Key { name, inode: path.metadata().unwrap().ino(), by: By::Device(0, 0) };
        Module { key, handle: Handle::Held(held(path), None) }
    };
    files.iter().map(module).collect()
}

fn address(module: usize, in_file: u64) -> Address {
    Address { at: in_file, in_file, module: Some(module), generation: 1, jitted: false }
}

/// Names of the byte at 0x100 of each file.
fn read(files: &[&Path]) -> Names {
    let addresses: Vec<Address> = (0..files.len()).map(|module| address(module, 0x100)).collect();
    helper::names(&modules(files), &HashMap::new(), &addresses, DEADLINE)
}

/// A function that holds 0x100.
fn one_symbol(name: &str) -> Vec<Section> {
    made::symbols(&[(name, 0x80, 0x100, 2)]).to_vec()
}

fn found(names: &Names, index: usize) -> (Option<&str>, Option<&str>, Option<u32>) {
    let name = names.names.get(&index);
    let file = name.and_then(|name| name.file.as_deref());
    (name.map(|name| &*name.symbol), file, name.and_then(|name| name.line))
}

#[test]
fn the_nearest_symbol_that_reaches_an_address_names_it() {
    let symbols = made::symbols(&[
        ("whole", 0x100, 0x100, 2),
        ("__inner", 0x140, 0x10, 2),
        ("inner", 0x140, 0x10, 2),
        ("a_longer_alias", 0x140, 0x10, 2),
        ("label", 0x300, 0, 0),
        ("$x", 0x310, 0, 0),
        ("end", 0x400, 0x10, 2),
        ("data", 0x408, 8, 1),
        ("huge", 0x500, u64::MAX, 2),
    ]);
    let folder = Folder::new("nearest");
    let file = std::fs::File::open(folder.file("f", &made::file(&symbols))).unwrap();
    let program = Program::new(&file).unwrap();
    let object = program.object().unwrap();
    let wanted = [0xff, 0x100, 0x13f, 0x145, 0x150, 0x200, 0x300, 0x3ff, 0x409, 0x410, 0x600, 0x100];
    let names = elf::names(&object, &wanted.map(Some));
    let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
    let [whole, inner, label] = ["whole", "inner", "label"].map(Some);
    let expected =
        [None, whole, whole, inner, whole, None, label, label, Some("end"), None, Some("huge"), whole];
    assert_eq!(names, expected);
    assert_eq!(elf::address(&object, 0xfff), Some(0xfff));
    assert_eq!(elf::address(&object, 0x1000), None, "not loaded");
}

#[test]
fn lines_are_those_of_the_file_itself_or_of_the_one_that_it_asks_for() {
    let folder = Folder::new("lines");
    let with = |more: Vec<Section>| made::file(&[one_symbol("in_the_program"), more].concat());
    let own = folder.file("own", &with(made::lines(0x1000, 7).to_vec()));
    let apart = made::file(&[one_symbol("in_the_debug_file"), made::lines(0x1000, 9).to_vec()].concat());
    folder.file("apart.debug", &apart);
    let link = |sum| vec![made::debug_link(b"apart.debug", sum)];
    let linked = folder.file("linked", &with(link(made::sum(&apart))));
    let wrong = folder.file("wrong", &with(link(made::sum(&apart) ^ 1)));
    let nowhere = folder.file("nowhere", &with(vec![made::debug_link(b"none", 0)]));
    let names = read(&[&own, &linked, &wrong, &nowhere]);
    assert!(names.given_up.is_empty(), "{names:?}");
    assert_eq!(found(&names, 0), (Some("in_the_program"), Some("made.c"), Some(7)));
    assert_eq!(found(&names, 1), (Some("in_the_debug_file"), Some("made.c"), Some(9)));
    assert_eq!(found(&names, 2), (Some("in_the_program"), None, None), "a wrong sum");
    assert_eq!(found(&names, 3), (Some("in_the_program"), None, None));
    // The same below `.debug`, and gone.
    std::fs::create_dir(folder.0.join(".debug")).unwrap();
    std::fs::rename(folder.0.join("apart.debug"), folder.0.join(".debug/apart.debug")).unwrap();
    assert_eq!(found(&read(&[&linked]), 0).2, Some(9));
    std::fs::remove_dir_all(folder.0.join(".debug")).unwrap();
    assert_eq!(found(&read(&[&linked]), 0).2, None);
}

fn home(program: &Path) -> Home {
    let root = held(Path::new("/"));
    let stat = rustix::fs::stat(program).unwrap();
    debug_files::home(&root, program.to_str().unwrap(), &stat).unwrap()
}

/// The opener believes nothing that the reader asks, which may have been taken over.
#[test]
fn a_name_leads_to_no_other_folder_no_link_no_device_and_no_secret() {
    let folder = Folder::new("names");
    let program = folder.file("program", b"");
    folder.file("good", b"x");
    folder.file("secret", b"x");
    std::fs::set_permissions(folder.0.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("good", folder.0.join("link")).unwrap();
    std::fs::create_dir(folder.0.join("folder")).unwrap();
    folder.file("folder/inner", b"x");
    nix::unistd::mkfifo(&folder.0.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let home_of = home(&program);
    let opens = |home: &Home, name: &str| debug_files::by_name(home, name, Place::Beside).is_some();
    assert!(opens(&home_of, "good"));
    let hostile =
        ["/etc/passwd", "../etc/passwd", "folder/inner", "folder", "link", "fifo", ".", "..", "", "none"];
    for name in hostile {
        for place in [Place::Beside, Place::Below, Place::Global] {
            assert!(debug_files::by_name(&home_of, name, place).is_none(), "{name} {place:?}");
        }
    }
    if nix::unistd::geteuid().is_root() {
        let owners = [(0, 0, false), (1, 0, false), (0, 1, false), (1, 1, true), (1, 2, false)];
        for (of_program, of_secret, lent) in owners {
            std::os::unix::fs::chown(&program, Some(of_program), None).unwrap();
            std::os::unix::fs::chown(folder.0.join("secret"), Some(of_secret), None).unwrap();
            assert_eq!(opens(&home(&program), "secret"), lent, "{of_program} {of_secret}");
            assert!(opens(&home(&program), "good"), "everybody may read it");
        }
    } else {
        assert!(opens(&home_of, "secret"), "the program's owner's");
    }
    for id in [&[][..], &[1], &[0; 65]] {
        assert!(debug_files::by_build_id(&home_of, id).is_none());
    }
    let other = held(&folder.0.join("good"));
    let stat = rustix::fs::fstat(&other).unwrap();
    let root = held(Path::new("/"));
    assert!(
        debug_files::home(&root, program.to_str().unwrap(), &stat).is_none(),
        "another file stands there"
    );
}

#[test]
fn what_is_held_is_opened_only_if_it_is_a_regular_file() {
    let folder = Folder::new("held");
    let fifo = folder.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let names =
        read(&[&fifo, Path::new("/dev/null"), &folder.0, &folder.file("f", &made::file(&one_symbol("f")))]);
    assert!(names.given_up.is_empty(), "{names:?}");
    assert_eq!(names.names.len(), 1);
    assert_eq!(found(&names, 3).0, Some("f"));
}

fn build_id(id: u8) -> Section {
    let note = [&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[id; 20]].concat();
    Section { kind: 7, ..Section::new(".note.gnu.build-id", note) }
}

/// DWARF 4 of a function over all of the first page, whose name is the first of another file's (DW_FORM_GNU_strp_alt).
fn function_named_elsewhere() -> Vec<Section> {
    let abbreviations = [
        &[1, 0x11, 1, 0x11, 1, 0x12, 7, 0, 0][..],
        &[2, 0x2e, 0, 0x03, 0xa1, 0x3e, 0x11, 1, 0x12, 7, 0, 0, 0],
    ];
    let range = [[0; 8], 0x1000u64.to_le_bytes()].concat();
    let unit = [&[4, 0, 0, 0, 0, 0, 8, 1][..], &range, &[2, 0, 0, 0, 0], &range, &[0]].concat();
    let sized = [&(unit.len() as u32).to_le_bytes()[..], &unit].concat();
    vec![Section::new(".debug_abbrev", abbreviations.concat()), Section::new(".debug_info", sized)]
}

/// Another root directory, as a container has it: what stands there, and names of the byte at 0x100 of `/bin/program`
/// and of generated code at 0x2000.
struct Root(Folder);

impl Root {
    fn new(name: &str, program: &[Section]) -> Self {
        let folder = Folder::new(name);
        for path in
            ["bin", "tmp", "usr/lib/debug/.build-id/07", "usr/lib/debug/.build-id/08", "usr/lib/debug/real"]
        {
            std::fs::create_dir_all(folder.0.join(path)).unwrap();
        }
        folder.file("bin/program", &made::file(&[one_symbol("own"), program.to_vec()].concat()));
        Self(folder)
    }

    /// Path of the debug file of a build id.
    fn by_id(&self, id: u8) -> PathBuf {
        let rest = format!("{id:02x}").repeat(19);
        self.0.0.join(format!("usr/lib/debug/.build-id/{id:02x}/{rest}.debug"))
    }

    fn read(&self) -> Names {
        let mut modules = modules(&[&self.0.0.join("bin/program")]);
        modules[0].key.name = "/bin/program".into();
        let area = Area { start: 0, end: 0x1000, offset: 0, name: "/bin/program".into(), module: Some(0) };
        let root = Some((Rc::new(held(&self.0.0)), 7));
        let image = Image { areas: vec![area], root, ..Image::default() };
        let generated = Address { at: 0x2000, in_file: 0, module: None, generation: 1, jitted: true };
        let names =
            helper::names(&modules, &HashMap::from([(1, image)]), &[address(0, 0x100), generated], DEADLINE);
        assert!(names.given_up.is_empty(), "{names:?}");
        names
    }
}

#[test]
fn a_build_id_leads_below_usr_lib_debug_of_the_same_root() {
    let root = Root::new("build-id", &[build_id(7)]);
    assert_eq!(found(&root.read(), 0), (Some("own"), None, None));
    let debug = |id| made::file(&[made::lines(0x1000, 8).to_vec(), vec![build_id(id)]].concat());
    std::fs::write(root.by_id(7), debug(8)).unwrap();
    assert_eq!(found(&root.read(), 0).2, None, "of another build");
    std::fs::write(root.by_id(7), debug(7)).unwrap();
    assert_eq!(found(&root.read(), 0), (Some("own"), Some("made.c"), Some(8)));
    // As some distributions have it: a link inside. None leads out.
    let link = |to: &str| {
        std::fs::remove_file(root.by_id(7)).unwrap();
        std::os::unix::fs::symlink(to, root.by_id(7)).unwrap();
        found(&root.read(), 0).2
    };
    root.0.file("usr/lib/debug/real/program.debug", &debug(7));
    root.0.file("usr/outside", &debug(7));
    assert_eq!(link("../../real/program.debug"), Some(8));
    assert_eq!(link("../../../../outside"), None);
    assert_eq!(link("/usr/outside"), None);
    assert_eq!(link(root.0.0.join("usr/outside").to_str().unwrap()), None);
}

#[test]
fn what_programs_share_is_found_by_its_build_id_and_not_by_its_name() {
    let strings = Section::new(".debug_str", b"in_the_supplement\0".to_vec());
    let supplement = |id| made::file(&[strings.clone(), build_id(id)]);
    let link = made::debug_altlink(b"../supplement", &[8; 20]);
    let root = Root::new("supplement", &[function_named_elsewhere(), vec![link]].concat());
    root.0.file("supplement", &supplement(8));
    assert_eq!(found(&root.read(), 0).0, Some("own"));
    std::fs::write(root.by_id(8), supplement(7)).unwrap();
    assert_eq!(found(&root.read(), 0).0, Some("own"), "of another build");
    std::fs::write(root.by_id(8), supplement(8)).unwrap();
    assert_eq!(found(&root.read(), 0).0, Some("in_the_supplement"));
}

#[test]
fn a_perf_map_is_a_regular_file_below_the_root_of_its_process() {
    let root = Root::new("perf-map", &[]);
    let map = root.0.file("tmp/perf-7.map", b"2000 10 generated\n");
    assert_eq!(found(&root.read(), 1).0, Some("generated"));
    std::fs::set_permissions(&map, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(found(&root.read(), 1).0, Some("generated"));
    std::fs::hard_link(&map, root.0.0.join("another name")).unwrap();
    assert_eq!(found(&root.read(), 1).0, None, "whose is it?");
    std::fs::set_permissions(&map, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(found(&root.read(), 1).0, Some("generated"));
    std::fs::rename(&map, root.0.0.join("elsewhere")).unwrap();
    assert_eq!(found(&root.read(), 1).0, None);
    std::os::unix::fs::symlink("../elsewhere", &map).unwrap();
    assert_eq!(found(&root.read(), 1).0, None, "no link");
    std::fs::remove_file(&map).unwrap();
    nix::unistd::mkfifo(&map, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    assert_eq!(found(&root.read(), 1).0, None, "nothing that waits");
}

/// Found by its path and by what a file system of the process's own can say of any file.
#[test]
fn a_secret_is_not_opened_because_it_looks_like_the_mapped_file() {
    let folder = Folder::new("looks-like");
    let path = folder.file("f", &made::file(&one_symbol("f")));
    let stamp = || Stamp::of(&held(&path).as_fd()).unwrap();
    let changed = || (path.metadata().unwrap().ctime(), path.metadata().unwrap().ctime_nsec() as u32);
    for (mode, opened) in [(0o600, false), (0o640, false), (0o700, true), (0o644, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let handles = [
            (Handle::Held(held(&path), None), true),
            (Handle::Held(held(&path), Some(stamp())), opened),
            (Handle::Named, opened),
            (Handle::Below(Rc::new(held(Path::new("/"))), path.metadata().unwrap().ino()), opened),
        ];
        for (handle, opened) in handles {
            let said = format!("{mode:o} {handle:?}");
            let mut module = modules(&[&path]);
            module[0].handle = handle;
            module[0].key.by = By::Change(changed().0, changed().1);
            let names = helper::names(&module, &HashMap::new(), &[address(0, 0x100)], DEADLINE);
            assert_eq!(found(&names, 0).0.is_some(), opened, "{said}");
        }
    }
}

/// A zlib stream of this many MiB of zeros, without an end: a block that repeats what stands before it can be repeated.
fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let mut lengths = Vec::new();
    for _ in 0..2 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        encoder.flush().unwrap();
        lengths.push(encoder.get_ref().len());
    }
    let bytes = encoder.finish().unwrap();
    [&bytes[..lengths[0]], &bytes[lengths[0]..lengths[1]].repeat(mebibytes - 1)].concat()
}

/// Resident memory that `work` takes at most beyond what is there before, in KiB, in a process of its own.
fn memory_of(work: impl Fn()) -> i64 {
    let peak = || {
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| usage.max_rss())
    };
    let (mut from, mut to) = std::io::pipe().unwrap();
    let child = Child::start(&[to.as_raw_fd()], || {
        let before = peak();
        work();
        let _ = to.write_all(&(peak() - before).to_le_bytes());
    });
    drop(to);
    let mut answer = [0; 8];
    from.read_exact(&mut answer).unwrap();
    assert!(child.unwrap().end());
    i64::from_le_bytes(answer)
}

#[test]
fn sections_that_say_or_become_gigabytes_cost_megabytes() {
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    let folder = Folder::new("bombs");
    let stream = zeros(3 << 10);
    assert!((2 << 20..4 << 20).contains(&stream.len()), "{}", stream.len());
    let bombs = [
        // Three megabytes that become three gigabytes and say so, or say less.
        vec![Section::compressed(".debug_info", 3 * GIB, &stream)],
        vec![Section::compressed(".debug_info", 48 * MIB, &stream)],
        vec![Section::compressed(".debug_info", 30 * MIB, &stream)],
        // Nothing that says a lot.
        vec![Section::compressed(".debug_info", u64::MAX, &[])],
        vec![Section::compressed(".debug_info", 64 * MIB, &zeros(64))],
        // As much as a small section may, in each.
        [".debug_info", ".debug_abbrev", ".debug_str", ".debug_line", ".debug_ranges", ".debug_addr"]
            .map(|name| Section::compressed(name, MIB, &zeros(1)))
            .to_vec(),
    ];
    for (n, bomb) in bombs.into_iter().enumerate() {
        let path = folder.file(&n.to_string(), &made::file(&[one_symbol("f"), bomb].concat()));
        let taken = memory_of(|| {
            let file = std::fs::File::open(&path).unwrap();
            let program = Program::new(&file).unwrap();
            let object = program.object().unwrap();
            assert!(dwarf::has(&object));
            std::hint::black_box(dwarf::find(&object, None, &[Some(0x100)]));
        });
        assert!((0..64 << 10).contains(&taken), "bomb {n}: {taken} KiB");
        let names = read(&[&path]);
        assert_eq!(found(&names, 0), (Some("f"), None, None), "bomb {n}");
    }
}

/// Compressed sections that keep to the bounds are read.
#[test]
fn compressed_lines_are_read() {
    let folder = Folder::new("compressed");
    let compressed = made::lines(0x1000, 5).map(|section| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&section.data).unwrap();
        Section::compressed(section.name, section.data.len() as u64, &encoder.finish().unwrap())
    });
    let path = folder.file("f", &made::file(&[one_symbol("f"), compressed.to_vec()].concat()));
    assert_eq!(found(&read(&[&path]), 0), (Some("f"), Some("made.c"), Some(5)));
}

/// 30,000 units that all want the same megabyte of abbreviations: a minute of work in two megabytes.
#[test]
fn work_without_an_end_costs_its_file_and_no_other() {
    let folder = Folder::new("loop");
    let mut abbreviations = Vec::new();
    for code in 0..100_000u32 {
        let mut rest = code + 1;
        while rest > 0x7f {
            abbreviations.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        abbreviations.extend_from_slice(&[rest as u8, 0x11, 0, 0x11, 1, 0, 0]);
    }
    abbreviations.push(0);
    let unit = [16, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let units = Section::new(".debug_info", unit.repeat(30_000));
    let endless = [one_symbol("endless"), vec![Section::new(".debug_abbrev", abbreviations), units]].concat();
    let endless = folder.file("endless", &made::file(&endless));
    let good = made::file(&[one_symbol("good"), made::lines(0x1000, 3).to_vec()].concat());
    let good = folder.file("good", &good);
    let names = read(&[&endless, &good]);
    assert_eq!(names.given_up, [endless.to_str().unwrap()]);
    assert_eq!(names.left_behind, 0);
    assert_eq!(found(&names, 0), (Some("endless"), None, None));
    assert_eq!(found(&names, 1), (Some("good"), Some("made.c"), Some(3)));
}

/// What a process is while it reads.
fn status_while_it_reads() -> String {
    let (questions, files) = channel::pair().unwrap();
    let (_answers, mut out) = std::io::pipe().unwrap();
    let reader = Child::start(&[out.as_raw_fd(), questions.as_raw_fd()], || {
        if locked::give_up().is_some() {
            let work = Work { addresses: &[address(0, 1)], stacks: &[], images: &HashMap::new() };
            let _ = parser::work(&work, &[Task::Elf(0)], &questions, &mut out);
        }
    });
    let reader = reader.unwrap();
    drop(questions);
    let mut status = String::new();
    channel::serve(&files, |ask| {
        assert_eq!(ask, Ask::Module(0));
        // It waits for the answer.
        status = std::fs::read_to_string(format!("/proc/{}/status", reader.id())).unwrap();
        None
    });
    reader.end();
    status
}

#[test]
fn the_reader_has_no_rights() {
    let status = status_while_it_reads();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_ascii_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(value(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(value("NoNewPrivs"), ["1"]);
    assert_eq!(value("Seccomp"), ["2"]);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(value("CapBnd"), ["0000000000000000"]);
        assert_eq!(value("Uid"), ["65534"; 4]);
        assert_eq!(value("Gid"), ["65534"; 4]);
        assert!(value("Groups").is_empty(), "{status}");
    }
}

#[test]
fn the_reader_can_open_start_and_send_nothing() {
    let (mut from, mut to) = std::io::pipe().unwrap();
    let child = Child::start(&[to.as_raw_fd()], || {
        if locked::give_up().is_none() {
            return;
        }
        let mut say = |answer: i64| {
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let _ = writeln!(to, "{}", if answer < 0 { error } else { 0 });
        };
        let null = c"/dev/null".as_ptr();
        // SAFETY: system calls with valid strings and numbers, which are expected to be refused.
        unsafe {
            say(libc::open(null, libc::O_RDONLY).into());
            say(libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, null, 0, 0));
            say(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).into());
            say(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0));
            say(libc::execv(null, std::ptr::null()).into());
            say(libc::kill(libc::getppid(), 0).into());
            say(libc::ptrace(libc::PTRACE_TRACEME));
            say(libc::dup(0).into());
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            say(libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) as i64);
            say(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0) as i64);
        }
    });
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    assert!(child.unwrap().end());
    let eperm = libc::EPERM.to_string();
    let expected: Vec<&str> = [eperm.as_str(); 9].into_iter().chain(["0"]).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// The signal that a reader dies of when it does this.
fn death(work: impl FnOnce()) -> i32 {
    let reader = Child::start(&[], || {
        if locked::give_up().is_some() {
            work();
        }
    });
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let ended = unsafe { libc::waitpid(reader.as_ref().unwrap().id(), &raw mut status, 0) };
    assert_eq!(ended, reader.unwrap().id());
    if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 }
}

/// And does not fault again and again until its time is over.
#[test]
fn a_reader_dies_of_the_first_fault() {
    let folder = Folder::new("fault");
    let path = folder.file("shrinks", &[1; 8192]);
    let program = Program::new(&std::fs::File::open(&path).unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    assert_eq!(death(|| assert!(program.object().is_none())), libc::SIGBUS);
    #[expect(unconditional_recursion, reason = "it ends the stack")]
    fn deep(n: u64) -> u64 {
        std::hint::black_box(deep(n + 1) + n)
    }
    assert_eq!(death(|| assert_eq!(deep(0), 0)), libc::SIGSEGV);
    // abort() sends itself a signal, which is refused, and then executes what it may not.
    assert!([libc::SIGSEGV, libc::SIGILL, libc::SIGTRAP].contains(&death(|| std::process::abort())));
    let most = || while std::hint::black_box(true) {};
    assert_eq!(death(|| (parser::allow(0), most()).1), libc::SIGPROF);
    assert_eq!(death(|| ()), 0);
}

/// The opener hangs over a file: nobody waits for it longer than the piece of work has.
#[test]
fn an_opener_that_never_answers_costs_the_file_that_it_opens() {
    let (mut answers, mut out) = std::io::pipe().unwrap();
    let (questions, files) = channel::pair().unwrap();
    let tasks = [Task::Elf(0), Task::Elf(1)];
    let addresses = [address(0, 1), address(1, 1)];
    let work = Work { addresses: &addresses, stacks: &[], images: &HashMap::new() };
    let reader = Child::start(&[out.as_raw_fd(), questions.as_raw_fd()], || {
        let _ = parser::work(&work, &tasks, &questions, &mut out);
    });
    let opener = Child::start(&[files.as_raw_fd()], || {
        channel::serve(&files, |ask| {
            while ask == Ask::Module(1) {
                std::thread::park();
            }
            None
        });
    });
    drop((out, questions, files));
    let mut todo = VecDeque::from(tasks);
    let deadline = Instant::now() + DEADLINE;
    // Long enough to answer for the first, whatever else the machine does.
    let share = Duration::from_secs(5);
    helper::take(&mut answers, &mut todo, &mut Names::default(), deadline, (share, share));
    assert_eq!(todo, [Task::Elf(1)]);
    assert!(Instant::now() < deadline, "its share is not all of the time");
    assert!(reader.unwrap().end() && opener.unwrap().end());
}
