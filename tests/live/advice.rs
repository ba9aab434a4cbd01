//! What `explain` advises, tried by doing it: each layout is made, explained, made again as the advice says, and counted.

use serde_json::Value;
use vmaudit_tests::{Running, Session};

/// Pieces of a layout.
const PIECES: u64 = 1000;

/// A layout that stands, and how many VMAs it added.
fn stands(session: Session) -> (Running, u64) {
    let scratch = session.file("");
    let mut running = session.env("TMPDIR", &scratch.display().to_string()).start_with_pipe();
    running.wait_for_stdout("standing ");
    let said = String::from_utf8(running.stdout_so_far()).unwrap();
    let added = said.lines().find_map(|line| line.strip_prefix("standing ")).unwrap().parse().unwrap();
    (running, added)
}

fn layout(name: &str, how: &str, pieces: u64) -> Session {
    Session::workload(&["layout", name, how, &pieces.to_string()])
}

fn explained(running: &Running) -> Value {
    let pid = running.pid().to_string();
    let done = Session::vmaudit(&["explain", &pid, "--format", "json"]).go().succeeded();
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The layout, what is said of it, and what was added before and after the advice.
struct Tried {
    it: Value,
    before: u64,
    after: u64,
}

fn tried(before: Session, after: Session) -> Tried {
    let (running, added) = stands(before);
    let it = explained(&running);
    running.wait().succeeded();
    let (running, after) = stands(after);
    running.wait().succeeded();
    Tried { it, before: added, after }
}

impl Tried {
    #[track_caller]
    fn says(&self, words: &[&str]) -> &Self {
        let said = format!("{} {}", self.it["verdict"], self.it["advice"]);
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {said}");
        }
        self
    }

    /// The first advice promises so many VMAs fewer, and so it is: `at_least`, or to the last one or two, which a
    /// neighbour may have merged with.
    #[track_caller]
    fn holds(&self, at_least: bool) {
        let promised =
            self.it["advice"][0]["fewer"].as_u64().unwrap_or_else(|| panic!("no figure: {}", self.it));
        let Self { before, after, .. } = *self;
        let fewer = before - after;
        let right = if at_least { fewer >= promised } else { fewer.abs_diff(promised) <= 2 };
        assert!(promised * 2 >= PIECES / 2 && right, "{before} before, {after} after, {promised} promised");
    }
}

/// Name, words, whether the promise is a least one.
const LAYOUTS: [(&str, &[&str]); 11] = [
    ("file-ascending", &["each placed below the last", "from the file's end to its beginning", ".bin"]),
    ("file-again", &["the same part of the file mapped again", "share one mapping"]),
    ("file-parts", &["file offset skips", "map the file as a whole"]),
    ("holes", &["a small hole between equal mappings", "MADV_DONTNEED"]),
    ("decommit", &["short ranges without access inside it", "one thread: these are no stacks", "jemalloc"]),
    ("every-second", &["permissions rw-p | r--p", "mprotect in larger units"]),
    ("shared", &["1,000 separate pieces of shared anonymous memory", "one larger shared mapping"]),
    ("memfd", &["1,000 separate pieces of memfd piece", "one larger shared mapping"]),
    ("deleted", &["*.dvd (deleted)", "unmap files that are done with"]),
    ("dontdump", &["MADV_DONTDUMP", "give the advice for larger ranges"]),
    ("account", &["VM_ACCOUNT", "give back by mmap(MAP_FIXED, PROT_NONE)"]),
];

#[test]
fn what_is_advised_gives_what_it_promises() {
    for (name, words) in LAYOUTS {
        eprintln!("{name}");
        let tried = tried(layout(name, "before", PIECES), layout(name, "after", PIECES));
        tried.says(words).holds(false);
    }
}

/// A range that was written to merges with one that never was since 6.16 (mm/vma.c:is_mergeable_anon_vma).
#[test]
fn a_reservation_without_account_helps_where_it_is_said_to() {
    let name = "account-reserved";
    let tried = tried(layout(name, "before", PIECES), layout(name, "after", PIECES));
    tried.says(&["reserve with MAP_NORESERVE (no help before Linux 6.16"]);
    if vmaudit_tests::kernel_version() >= (6, 16) {
        tried.holds(false);
    } else {
        assert!(tried.after >= PIECES / 2, "{} after: the bound that is named is wrong", tried.after);
    }
}

#[test]
fn memory_policies_are_named_as_the_difference() {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        // A kernel without NUMA has no policies to set, either.
        let done = layout("bind", "before", PIECES).go().ended_with(99);
        assert!(done.stderr_text().contains("mbind failed"), "{}", done.said());
        return;
    }
    let tried = tried(layout("bind", "before", PIECES), layout("bind", "after", PIECES));
    tried.says(&["memory policies (NUMA) differ", "bind larger ranges by one mbind"]).holds(false);
}

/// More than are looked at closely in any case: then maps alone must not be the last word.
#[test]
fn memory_policies_of_a_large_process_are_named_too() {
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        let (running, added) = stands(layout("bind", "before", 20_000));
        let it = explained(&running);
        assert!(added > 19_000, "{added}");
        assert!(it["verdict"].to_string().contains("memory policies (NUMA) differ"), "{}", it["verdict"]);
        running.wait().succeeded();
    }
}

#[test]
fn a_reservation_that_is_noreserve_is_not_told_to_become_one() {
    let tried = tried(layout("commit", "before", PIECES), layout("commit", "after", PIECES));
    tried.says(&["a reserved range beside its accessible part", "one beside the other"]);
    assert!(tried.before >= PIECES && tried.after <= 3, "{} {}", tried.before, tried.after);
    // A neighbour by chance may be without it, once.
    let of = |key: &str| tried.it[key][0].to_string();
    assert!(!(of("advice") + &of("boundaries")).contains("NORESERVE"), "{}", tried.it);
}

#[test]
fn reservations_with_a_small_beginning_get_advice_that_helps() {
    let tried = tried(layout("wasm", "before", PIECES), layout("wasm", "after", PIECES));
    tried.says(&[
        "1,000 reservations of 10 GiB",
        "128 TiB have room for 13,107",
        "a maximum alone changes nothing",
    ]);
    tried.holds(true);
}

#[test]
fn threads_of_rust_are_four_vmas_and_guards_can_be_had_without() {
    let threads = PIECES / 4;
    let (running, added) = stands(layout("threads", "before", threads));
    let it = explained(&running);
    running.wait().succeeded();
    assert_eq!(it["stacks"]["stacks"], threads, "{}", it["stacks"]);
    // The first thread has one, too.
    assert_eq!(it["stacks"]["signal_stacks"], threads + 1, "{}", it["stacks"]);
    let said = it["verdict"].to_string();
    assert!(said.contains("four for each of 250 threads, its stack, an alternate signal stack"), "{said}");
    assert!(added >= 4 * threads, "{added}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap(), numbers.next().unwrap()) < (6, 13) {
        layout("threads", "after", 1).go().ended_with(99);
        return;
    }
    let (running, after) = stands(layout("threads", "after", threads));
    running.wait().succeeded();
    Tried { it, before: added, after }.holds(true);
}

#[test]
fn arenas_are_fewer_with_the_variable_that_is_advised() {
    let arenas = |most: &str| layout("arenas", "before", 200).env("MALLOC_ARENA_MAX", most);
    let tried = tried(arenas("200"), arenas("1"));
    let arenas: u64 = tried.it["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row[0] == "arena")
        .map(|row| row[1]["vmas"].as_u64().unwrap())
        .sum();
    assert!(arenas >= 390, "{arenas}");
    assert!(tried.before - tried.after >= arenas - 4, "{} {} {arenas}", tried.before, tried.after);
}
