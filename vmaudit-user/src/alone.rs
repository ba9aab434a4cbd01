//! Tests that change what belongs to a whole process (limits, signals), or that fork, in a process of their own.

use std::process::Command;

/// Set for that process.
const ALONE: &str = "VMAUDIT_TEST_ALONE";

/// Runs `body` in another process of this program, in which no other test runs: its one other thread is the harness's, which
/// waits and holds nothing. `name` is that of the test that
/// calls this: `concat!(module_path!(), "::name")`.
#[track_caller]
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        assert!((1..=2).contains(&threads), "{threads} threads: somebody else runs");
        return body();
    }
    let (_, name) = name.split_once("::").expect("a path in this crate");
    let program = std::env::current_exe().expect("this program has a file");
    let output = Command::new(program)
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("this program can be started");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("test result: ok. 1 passed"), "{name}: {said}");
}
