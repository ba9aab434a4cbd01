//! Each input on random bytes and on good samples with damage: [`CASES`] of each, the same ones every time.
//!
//! `PROPTEST_CASES=100000 PROPTEST_RNG_SEED=$RANDOM cargo test strangers` looks further; so does `fuzz/`.

use std::mem::size_of;

use bytemuck::Zeroable as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use vmaudit_common::{
    ChangeRecord, DeadRecord, ExecRecord, FailureRecord, MappingRecord, RECORD_CHANGE, RECORD_DEAD,
    RECORD_EXEC, RECORD_FAILURE, RECORD_MAPPING,
};

use super::recordings::{FEW, events, lines};
use super::*;
use crate::made;
use crate::model::event::Event;
use crate::source::recording::Writer;
use crate::source::recording::format::Changes;
use crate::source::vma_layout::core::tests::sample as core_sample;

/// Random inputs of each kind, and as many damaged samples.
const CASES: u32 = 256;

fn config() -> Config {
    let asked = |name: &str| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    if !asked("PROPTEST_CASES") {
        config.cases = CASES;
    }
    if !asked("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(0x766d_6175);
    }
    config
}

/// One kind of damage; places are parts of the length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Word(prop::sample::Index, prop::sample::Index),
    /// The next number becomes another one; where there is none, bytes become the largest.
    Number(prop::sample::Index, prop::sample::Index),
}

/// What parsers stumble over.
const WORDS: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\x1b[31m",
    "\u{202e}".as_bytes(),
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b" ",
    b")",
    b"(",
    b"-",
    b":",
    b"=",
    b"=1+1",
    b"\"",
    b",",
    b"\\u0000",
    b"/home/ann/",
    b"null",
    b"18446744073709551615",
    b"ffffffffffffffff",
    b"-1",
    b"1e308",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];

const NUMBERS: [&str; 6] = ["0", "1", "-1", "4294967295", "18446744073709551615", "9223372036854775808"];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, with)| Damage::Flip(at, with)),
        at().prop_map(Damage::Cut),
        (at(), any::<u8>()).prop_map(|(at, n)| Damage::Remove(at, n)),
        (at(), any::<u8>()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(at, word)| Damage::Word(at, word)),
        (at(), at()).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for one in all {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        let range = |at: &prop::sample::Index, n: u8| {
            let from = at.index(length);
            from..length.min(from + usize::from(n))
        };
        match one {
            Damage::Flip(at, with) => bytes[at.index(length)] ^= with,
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Remove(at, n) => drop(bytes.drain(range(at, *n))),
            Damage::Repeat(at, n) => {
                let range = range(at, *n);
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, again);
            }
            Damage::Insert(at, new) => drop(bytes.splice(at.index(length)..at.index(length), new.clone())),
            Damage::Word(at, word) => {
                let (at, word) = (at.index(length), WORDS[word.index(WORDS.len())]);
                bytes.splice(at..at, word.iter().copied());
            }
            Damage::Number(at, number) => {
                let (at, number) = (at.index(length), NUMBERS[number.index(NUMBERS.len())]);
                match bytes[at..].iter().position(u8::is_ascii_digit).map(|n| at + n) {
                    Some(digit) => {
                        let end = bytes[digit..].iter().take_while(|b| b.is_ascii_digit()).count();
                        bytes.splice(digit..digit + end, number.bytes());
                    }
                    None => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                }
            }
        }
    }
    bytes
}

const MAPS: &[u8] = b"\
00400000-00401000 r-xp 00001000 fe:01 1234                               /bin/a b (deleted)\n\
00600000-00800000 rw-p 00000000 00:00 0                                  [heap]\n\
7f0000000000-7f0000001000 rw-s 00000000 00:01 77 /dev/zero (deleted)\n\
7f0000001000-7f0000002000 ---p 00000000 00:00 0 \n\
7f0000002000-7f0000003000 rw-p 00000000 00:00 0                          [anon:x y]\n\
7f0000003000-7f0000004000 rw-p 00000000 00:00 0\n\
7ffe00000000-7ffe00100000 rw-p 00000000 00:00 0                          [stack]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

const SMAPS: &[u8] = b"\
1000-2000 rw-p 00000000 00:00 0 \nSize:                  4 kB\nRss:                   4 kB\n\
Anonymous:             4 kB\nSwap: 8 kB\nProtectionKey:         3\nVmFlags: wr rd mr ?? ac \n\
2000-3000 rw-p 00000000 00:00 0 \nRss: 0 kB\nVmFlags: rd\n";

fn samples(name: &str) -> Vec<Vec<u8>> {
    let texts = |all: &[&[u8]]| all.iter().map(|text| text.to_vec()).collect();
    match name {
        "maps" | "explained" => texts(&[MAPS, SMAPS]),
        "numa_maps" => texts(&[
            b"00400000 default file=/bin/a mapped=1\n7f0000001000 bind:0-1 anon=3 dirty=3 N0=3\n\
              7f0000003000 interleave:0 heap\n",
        ]),
        "jvm_log" => texts(&[
            b"# There is insufficient memory for the Java Runtime Environment to continue.\n#  pid=24064, tid=1\n\
              Time: Wed Nov 25 22:16:16 2026 UTC elapsed time: 12\nDynamic libraries:\n\
              1000-2000 r--s 00000000 08:01 7 /srv/a b.bin\n2000-3000 rw-p 00000000 00:00 0 \n\n\
              /proc/sys/vm/max_map_count (maximum number): 65530\n",
        ]),
        "core_file" => vec![core_sample(false), core_sample(true)],
        "stat" => texts(&[
            b"42 (a) b (\nc) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 998877 1 2 3",
            b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 6 0 0\n",
        ]),
        "cgroup" => texts(&[b"9:name=systemd:/\n4:cpu,memory:/box:1\n0::/user.slice/x\n", b"0::/\n"]),
        "cmdline" => texts(&[
            b"C:\\My Game\\game.exe -path \"C:\\users\\ann\\x\" y\0",
            b"/usr/bin/python3\0-Ic\0\nimport os\0",
            b"/usr/bin/bwrap\0--\0/app/bin/zypak-helper\0child\0-\0/home/ann/app.asar\0",
            b"/proc/self/exe\0--user-data-dir=/home/user/x\0",
        ]),
        "slabinfo" => texts(&[
            b"slabinfo - version: 2.1\nmaple_node 1200 1344 256 16 1 : tunables 0 0 0 : slabdata 84 84 0\n\
              vm_area_struct 9800 9900 200 20 1\n",
        ]),
        "sysctl_file" => texts(&[
            b"# x\nvm.max_map_count = 1048576\n-vm/max_map_count=0x10000\nvm.max_* = 010\n-vm.max_map_count\n",
            b"v?/m*[ab]c=vm/mxxac",
        ]),
        "perf_map" => texts(&[b"1000 10 old\n1008 4 a new one\n2000 ffffffffffffffff LazyCompile:~f /x.js:1\n"]),
        "program" => {
            let sections = [
                &made::symbols(&[("main", 0x80, 0x100, 2), ("_ZN3foo3barEv", 0x1000, 0x10, 2)])[..],
                &made::lines(0x1000, 7),
                &[made::debug_link(b"x.debug", 7), made::debug_altlink(b"/a/b", b"12345678")],
            ]
            .concat();
            vec![made::file(&sections), b"_ZNSt3mapIiSt4pairIiS_EEC1Ev".to_vec()]
        }
        "btf" => vec![type_information()],
        "ring_record" => records(),
        "recording" => vec![recorded()],
        "recorded_header" => vec![serde_json::to_vec(&recordings::header()).unwrap()],
        "recorded_events" => events().chunks(FEW).map(lines).collect(),
        "recorded_packed" => events().chunks(FEW).map(recordings::packed).collect(),
        "recorded_changes" => {
            let mut frame = Changes::default();
            for event in events() {
                if let Event::Change(change) = event {
                    frame.push(&change);
                }
            }
            vec![frame.take()]
        }
        "json_report" => vec![recordings::sample_report()],
        "budgets" => texts(&[
            b"[[budget]]\nprocess = \"java*\"\nmax_peak = \"20k\"\nmax_growth = \"30/min\"\nexpires = 2027-01-31\n\
              [[budget]]\nprocess = \"b\"\nmax_percent = 9.5\nmax_failures = 0\nreason = 'x'\noptional = true\n",
            b"budget = [{process = \"a\", max_peak = 1_000}]\n",
        ]),
        "pattern" => texts(&[b"*a?b*\0xxazbyy", b"a*a*a*a*b\0aaaaaaaaaaaaaaaa"]),
        "environment" => {
            texts(&[b"A=1\0NEXTEST_TEST_NAME=mod::leaks\0NEXTEST_BINARY_ID=pkg::it\0", b"/x/a.test"])
        }
        "wish" => texts(&[b"begin tests/a.py::b c\n", b"end x\0\0"]),
        "request" => texts(&[
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br;q=1.0, gzip;q=0.5\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\nUpgrade: h2c\r\n\r\n",
        ]),
        "symbol_answers" => vec![symbol_answers()],
        "flight" => events().chunks(FEW).map(recordings::packed).collect(),
        other => panic!("{other} has no samples"),
    }
}

fn symbol_answers() -> Vec<u8> {
    let name = r#"{"symbol":"f","file":"a.c","line":7,"inlined":[]}"#;
    let of = |inlined: &str| name.replace("[]", &format!("[{}]", [inlined; 20].join(",")));
    let stack = r#"{"Stack":[1,{"addresses":[1,2,3],"end":"First","by_frame_pointer":null}]}"#;
    let done = "\"Done\"";
    format!("{{\"Name\":[0,{}]}}\n{done}\n{stack}\n{done}\n", of(&of(name))).into_bytes()
}

/// `struct s { int a; struct { int b; struct in c; }; }`, `struct in { int x; int y; }`,
/// `typedef void (*t)(void *, int, int)`, a function `f`.
fn type_information() -> Vec<u8> {
    let strings = b"\0int\0s\0a\0b\0c\0in\0x\0y\0t\0f\0";
    let name = |n: &str| {
        let needle = [b"\0", n.as_bytes(), b"\0"].concat();
        strings.windows(needle.len()).position(|w| w == needle).unwrap() as u32 + 1
    };
    let info = |kind: u32, count: u32| kind << 24 | count;
    let types: Vec<u32> = [
        vec![name("int"), info(1, 0), 4, 32],
        vec![name("in"), info(4, 2), 8, name("x"), 1, 0, name("y"), 1, 32],
        vec![0, info(4, 2), 12, name("b"), 1, 0, name("c"), 2, 32],
        vec![name("s"), info(4, 2), 16, name("a"), 1, 0, 0, 3, 32],
        vec![0, info(13, 3), 0, 0, 0, 0, 1, 0, 1],
        vec![0, info(2, 0), 5],
        vec![name("t"), info(8, 0), 6],
        vec![name("f"), info(12, 0), 5],
    ]
    .concat();
    let body: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (types, strings_length) = (body.len() as u32, strings.len() as u32);
    let header: Vec<u8> =
        [24, 0, types, types, strings_length].iter().flat_map(|word| word.to_le_bytes()).collect();
    [&0xeb9fu16.to_le_bytes()[..], &[1, 0], &header, &body, strings].concat()
}

/// One of each kind.
fn records() -> Vec<Vec<u8>> {
    let mut change = ChangeRecord::zeroed();
    change.head.kind = RECORD_CHANGE;
    change.comm[..4].copy_from_slice(b"java");
    let mut failure = FailureRecord::zeroed();
    failure.head.kind = RECORD_FAILURE;
    failure.stack[..4].copy_from_slice(&[1, 2, 2, 2]);
    (failure.stack_bytes, failure.errno, failure.class) = (32, 12, u64::MAX);
    let mut mapping = MappingRecord::zeroed();
    mapping.head.kind = RECORD_MAPPING;
    mapping.flags = u32::MAX;
    let names = b"libc.so.6\0lib\0usr\0";
    mapping.path[..names.len()].copy_from_slice(names);
    mapping.path_bytes = names.len() as u32;
    let mut exec = ExecRecord::zeroed();
    exec.head.kind = RECORD_EXEC;
    exec.filename[..6].copy_from_slice(b"/bin/a");
    let mut long = exec;
    long.filename[..127].fill(b'/');
    let mut dead = DeadRecord::zeroed();
    dead.head.kind = RECORD_DEAD;
    assert!(size_of::<DeadRecord>() > 0);
    [
        bytemuck::bytes_of(&change),
        bytemuck::bytes_of(&failure),
        bytemuck::bytes_of(&mapping),
        bytemuck::bytes_of(&exec),
        bytemuck::bytes_of(&long),
        bytemuck::bytes_of(&dead),
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

fn recorded() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &recordings::header(), None).unwrap();
    for event in events().into_iter().take(FEW) {
        writer.event(&event).unwrap();
        writer.flush().unwrap();
    }
    writer.into_inner()
}

fn input(name: &str) -> fn(&[u8]) {
    INPUTS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// A panic shows the bytes as they could be written into a test.
fn check(name: &str, bytes: impl Strategy<Value = Vec<u8>>) {
    let run = input(name);
    let mut runner = TestRunner::new(config());
    let holds = |bytes: Vec<u8>| -> Result<(), TestCaseError> {
        run(&bytes);
        Ok(())
    };
    if let Err(why) = runner.run(&bytes, holds) {
        panic!("{name}: {why}");
    }
}

fn both(name: &str) {
    let run = input(name);
    let samples = samples(name);
    samples.iter().for_each(|sample| run(sample));
    check(name, vec(any::<u8>(), 0..600));
    let mutated = (prop::sample::select(samples), vec(damage(), 1..6));
    check(name, mutated.prop_map(|(sample, all)| damaged(sample, &all)));
}

macro_rules! inputs {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            both(stringify!($name));
        })*

        #[test]
        fn every_input_is_tried() {
            assert_eq!(INPUTS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

mod tried {
    use super::*;

    inputs!(
        maps,
        explained,
        numa_maps,
        jvm_log,
        core_file,
        stat,
        cgroup,
        cmdline,
        slabinfo,
        sysctl_file,
        perf_map,
        program,
        btf,
        ring_record,
        recording,
        recorded_header,
        recorded_events,
        recorded_packed,
        recorded_changes,
        json_report,
        budgets,
        pattern,
        environment,
        wish,
        request,
        symbol_answers,
        flight
    );
}

/// `VMAUDIT_SEEDS=FOLDER cargo test seeds` writes the samples for the fuzzer to begin with.
#[test]
fn seeds() {
    for (name, _) in INPUTS {
        let all = samples(name);
        assert!(!all.is_empty());
        if let Some(folder) = std::env::var_os("VMAUDIT_SEEDS") {
            let folder = std::path::Path::new(&folder).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for (n, sample) in all.iter().enumerate() {
                std::fs::write(folder.join(format!("sample{n}")), sample).unwrap();
            }
        }
    }
}

/// As they lie in the tree, one of each older version.
#[test]
fn recordings_of_older_versions_are_shown_in_every_format() {
    let old = include_bytes!("../source/recording/reader/version-1.vma");
    assert!(crate::source::recording::Reader::new(&old[..]).is_ok());
    recording(old);
}

/// Their report is made, whatever they are, and as soon.
#[test]
fn times_of_a_recording_may_be_any() {
    let times = [0, 3, 1 << 40, 1 << 58, u64::MAX - 1, u64::MAX];
    let pairs = times.into_iter().flat_map(|one| times.map(|other| (one, other)));
    for (one, other) in pairs {
        let looks = [one, other].map(|at_ns| Event::Sample(recordings::sample(12, at_ns)));
        let told = [(one, other), (other, one)]
            .map(|(from_ns, to_ns)| Event::Interval(Box::new(recordings::interval(from_ns, to_ns))));
        let lives = events().into_iter().filter_map(|event| match event {
            Event::Mm(mut mm) => {
                (mm.born_ns, mm.peak_ns, mm.dead_ns) = (one, other, Some(other));
                Some(Event::Mm(mm))
            }
            _ => None,
        });
        let mut all: Vec<Event> = lives.take(2).chain(looks).chain(told).collect();
        recorded_events(&lines(&all));
        all.retain(|event| !matches!(event, Event::Mm(_)));
        recorded_events(&lines(&all));
    }
}
