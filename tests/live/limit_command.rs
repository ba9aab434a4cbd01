//! `vmaudit limit` on a system of files below a folder of the test: nothing here touches the machine's own settings.

use serde_json::Value;
use vmaudit_tests::{Done, Scratch, Session, max_map_count};

/// nobody.
const NOBODY: u32 = 65534;

/// A machine of which three packages want something else.
struct Machine(Scratch);

impl Machine {
    fn new() -> Self {
        let machine = Self(Scratch::new());
        machine.put("proc/sys/vm/max_map_count", "65530\n");
        machine.put("run/systemd/system/x", "");
        machine
            .put("usr/lib/sysctl.d/10-distribution.conf", "# room for games\nvm.max_map_count = 1048576\n");
        machine.put("etc/sysctl.d/50-database.conf", "vm.max_map_count=262144\n");
        machine.put("etc/sysctl.d/90-game.conf", "vm/max_map_count = 70000\n");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn limit(&self, options: &[&str]) -> Done {
        Session::vmaudit(&["limit", "--root"]).words(&[self.0.folder()]).words(options).go()
    }

    fn json(&self, options: &[&str]) -> Value {
        let done = self.limit(&[&["--format", "json"], options].concat()).succeeded();
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.said()))
    }

    fn running(&self) -> String {
        std::fs::read_to_string(self.0.path("proc/sys/vm/max_map_count")).unwrap().trim().to_owned()
    }

    fn files(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.0.path("etc/sysctl.d")).unwrap();
        let mut names: Vec<_> =
            folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

const BEFORE: [&str; 2] = ["50-database.conf", "90-game.conf"];

fn out(done: &Done) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

#[test]
fn of_three_files_the_winner_and_the_lowering_ones_are_named() {
    let machine = Machine::new();
    let text = out(&machine.limit(&[]).succeeded());
    for part in [
        "vm.max_map_count = 65,530 (kernel default)",
        "not namespaced",
        "At boot: 70,000",
        "1,048,576  /usr/lib/sysctl.d/10-distribution.conf:2  replaced by a later line",
        "262,144  /etc/sysctl.d/50-database.conf:1  replaced by a later line, lowers an earlier value",
        "70,000  /etc/sysctl.d/90-game.conf:1  wins, lowers an earlier value",
        "of kernel memory per VMA",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    let json = machine.json(&[]);
    assert_eq!((&json["schema"], &json["running"]), (&"vmaudit.limit".into(), &65530.into()));
    assert_eq!(json["after_boot"], 70000);
    // A file of the same name in /etc hides the distribution's.
    machine.put("etc/sysctl.d/10-distribution.conf", "");
    let text = out(&machine.limit(&[]).succeeded());
    assert!(text.contains("hidden by /etc/sysctl.d/10-distribution.conf"), "{text}");
    let csv = out(&machine.limit(&["--format", "csv"]).succeeded());
    assert_eq!(csv.lines().count(), 4, "{csv}");
}

#[test]
fn apply_is_shown_first_then_done_then_taken_back() {
    let machine = Machine::new();
    let shown = out(&machine.limit(&["--apply", "300000", "--dry-run"]).succeeded());
    assert!(shown.contains("Would write /etc/sysctl.d/") && shown.contains("to 300,000"), "{shown}");
    assert_eq!((machine.running().as_str(), machine.files()), ("65530", BEFORE.map(str::to_owned).into()));

    machine.limit(&["--apply", "300000"]).succeeded();
    assert_eq!((machine.running().as_str(), machine.files().len()), ("300000", 3));
    assert_eq!(machine.json(&[])["after_boot"], 300_000);

    let shown = out(&machine.limit(&["--undo", "--dry-run"]).succeeded());
    assert!(shown.contains("Would remove"), "{shown}");
    assert_eq!(machine.files().len(), 3);
    let undone = out(&machine.limit(&["--undo"]).succeeded());
    assert!(undone.contains("At the next boot /etc/sysctl.d/90-game.conf:1 sets 70000"), "{undone}");
    assert_eq!((machine.running().as_str(), machine.files()), ("65530", BEFORE.map(str::to_owned).into()));
    let again = machine.limit(&["--undo"]).ended_with(1);
    assert!(again.stderr_text().contains("nothing to undo"), "{}", again.said());
}

#[test]
fn apply_that_would_not_last_or_would_harm_is_refused() {
    let machine = Machine::new();
    machine.put("etc/sysctl.d/zz-last.conf", "vm.max_map_count = 66000\n");
    let refused = machine.limit(&["--apply", "300000"]).ended_with(1);
    assert!(refused.stderr_text().contains("/etc/sysctl.d/zz-last.conf:1 sets 66000"), "{}", refused.said());
    for value in ["1000", "2147483648"] {
        machine.limit(&["--apply", value]).ended_with(1);
    }
    machine.limit(&["--apply", "x"]).ended_with(2);
    machine.limit(&["--apply", "70000", "--undo"]).ended_with(2);
    assert_eq!((machine.running().as_str(), machine.files().len()), ("65530", 3));
}

#[test]
fn hostile_files_steer_no_terminal_and_break_no_csv() {
    let machine = Machine::new();
    machine.put("etc/sysctl.d/95-=x,\"y\x1b[2J.conf", "vm.max_map_count = =1+1\x1b]0;x\x07,\n");
    machine.put("etc/sysctl.d/96-binary.conf", "\0\u{1}\n\nvm.max_map_count\n=5\n");
    for form in ["text", "json", "csv"] {
        let text = out(&machine.limit(&["--format", form]).succeeded());
        assert!(!text.contains(['\x1b', '\x07']), "{form}: {text}");
    }
}

#[test]
fn named_software_has_a_number_and_its_source() {
    let machine = Machine::new();
    let text = out(&machine.limit(&["--for", "elasticsearch", "--for", "zgc", "--heap", "64g"]).succeeded());
    // 65,536 MiB / 2 MiB x 3 x 1.2
    for part in ["262,144", "117,964", "https://"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let unknown = machine.limit(&["--for", "nosuchsoftware"]).ended_with(1);
    assert!(unknown.stderr_text().contains("nosuchsoftware"), "{}", unknown.said());
}

#[test]
fn the_machines_own_limit_is_shown_and_needs_root_to_change() {
    let done = Session::vmaudit(&["limit", "--format", "json"]).go().succeeded();
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["running"], max_map_count());
    let refused = Session::vmaudit(&["limit", "--apply", "262144"]).as_user(NOBODY).go().ended_with(1);
    assert!(refused.stderr_text().contains("needs root"), "{}", refused.said());
}
