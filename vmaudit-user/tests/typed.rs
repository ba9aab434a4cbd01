//! What people type, and what comes of it. A row is a command line, its exit status and the first thing that is said.
//! Nothing here needs a right: what does is in `tests/live`.

use std::process::{Command, Output, Stdio};

/// Words in one string, so that the table reads as it is typed.
fn typed(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmaudit"))
        .args(line.split(' ').filter(|word| !word.is_empty()))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// Wrong calls: exactly one line, on stderr, with the right command in it.
const MISTAKES: &[(&str, i32, &str)] = &[
    ("run -p 28868", 125, "vmaudit watch -p 28868"),
    ("run --pid=28868", 125, "vmaudit watch -p 28868"),
    ("run --all", 125, "vmaudit watch"),
    ("watch -f -p 1", 2, "--no-follow"),
    ("watch -Z", 2, "vmaudit trace -Z -p PID"),
    ("watch -p no-such-name", 1, "no process is named no-such-name"),
    ("watch --unit no-such-unit", 1, "nothing fits: no process that runs now is meant by unit no-such-unit"),
    ("run --user postgres true", 125, "vmaudit run --as USER CMD"),
    ("trace --user postgres -- true", 2, "vmaudit trace --as USER CMD"),
    ("trace --user postgres true", 2, "vmaudit trace --as USER CMD"),
    ("run -f true", 125, "--no-follow"),
    ("trace -f -p 1", 2, "--no-follow"),
    ("run -d 10s true", 125, "vmaudit run timeout 60 CMD"),
    ("run -Z true", 125, "vmaudit trace -Z CMD"),
    ("trace -e mmap -p 1", 2, "vmaudit trace --call mmap,munmap"),
    ("run", 125, "vmaudit run CMD"),
    ("run 28868", 125, "vmaudit trace -p 28868"),
    ("trace", 2, "vmaudit trace --all"),
    ("trace 28868", 2, "vmaudit trace -p 28868"),
    ("28868", 2, "vmaudit explain 28868"),
    ("java", 2, "vmaudit run java"),
    ("java", 2, "vmaudit scan -p java"),
    ("make -j8", 2, "vmaudit run make"),
    ("--all", 2, "vmaudit scan -n 1000"),
    ("scan java", 2, "vmaudit scan -p java"),
    ("scan 28868", 2, "vmaudit scan -p 28868"),
    ("explain -p 28868", 2, "vmaudit explain 28868"),
    ("limit --set 262144", 2, "vmaudit limit --apply N"),
    ("limit elasticsearch", 2, "vmaudit limit --for elasticsearch"),
    ("trace -p no-such-name", 1, "no process is named no-such-name"),
    ("scan -p no-such-name", 1, "no process is named no-such-name"),
];

#[test]
fn a_mistake_is_answered_by_one_sentence_with_the_right_command() {
    for (line, status, right) in MISTAKES {
        let done = typed(line);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(*status), "{line}: {said}");
        assert!(done.stdout.is_empty(), "{line}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
        assert!(said.starts_with("vmaudit: ") && said.contains(right), "{line}: {said}");
    }
}

/// Values that are refused with a sentence about them.
const REFUSED: &[(&str, i32, &str)] = &[
    ("run --max-percent 200 true", 125, "the limit stops every process at 100 %"),
    ("run --max-peak ten true", 125, "10000, 10,000, 10k or 1m"),
    ("limit --apply 1,0", 2, "10000, 10,000, 10k or 1m"),
    ("limit 262144x", 2, "10000, 10,000, 10k or 1m"),
    ("scan --vma 0", 2, "at least 1"),
    ("scan -o now.lgo", 2, "no format has the ending .lgo"),
    ("run -o now.lgo true", 125, "no format has the ending .lgo"),
    ("trace --as root", 2, "vmaudit trace CMD"),
];

#[test]
fn a_wrong_value_is_refused_with_a_sentence() {
    for (line, status, part) in REFUSED {
        let done = typed(line);
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(*status), "{line}: {said}");
        assert!(done.stdout.is_empty() && said.contains(part), "{line}: {said}");
    }
}

/// Right calls in the forms that hands know: status 0, and this on standard output.
const TAKEN: &[(&str, &str)] = &[
    ("scan --json", "\"schema\": \"vmaudit.report\""),
    ("--json -n 1", "\"schema\": \"vmaudit.report\""),
    ("scan --format text --json", "\"schema\": \"vmaudit.report\""),
    ("scan --json --format csv", "pid,ppid,uid,user,"),
    ("limit --json", "\"schema\": \"vmaudit.limit\""),
    ("limit 262144 --json", "\"running\": 262144"),
    ("limit 1,048,576", "vm.max_map_count = 1048576"),
    ("limit --apply 10m --dry-run", "vm.max_map_count = 10000000"),
    ("limit --apply 1,048,576 --dry-run", "vm.max_map_count = 1048576"),
    ("run -q echo -n 5 -- b", "5 -- b"),
    ("run -q -- echo -p 7", "-p 7"),
    ("run -q --max-peak 10m --top 1k echo --json", "--json"),
];

#[test]
fn what_hands_type_is_taken() {
    for (line, part) in TAKEN {
        let done = typed(line);
        let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(out.contains(part), "{line}: {out}{said}");
        // Where a machine lets nobody see that a budget holds, that is status 86.
        assert!(matches!(done.status.code(), Some(0 | 86)), "{line}: {:?} {said}", done.status);
    }
}

#[test]
fn a_format_for_the_screen_changes_no_file() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("typed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("now.json");
    let done = typed(&format!("scan -o {} -o - --format csv", file.display()));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read_to_string(&file).unwrap().starts_with('{'));
    assert!(done.stdout.starts_with(b"pid,"));
    std::fs::remove_dir_all(folder).unwrap();
}
