//! `vmaudit limit` where the settings are files of the test, mounted over the machine's own in a namespace of the session.

use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

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
        for folder in ["usr/local/lib/sysctl.d", "lib/sysctl.d"] {
            std::fs::create_dir_all(machine.0.path(folder)).unwrap();
        }
        machine.put("etc/sysctl.conf", "");
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
        let session = Session::vmaudit(&["limit"]).words(options);
        let mut command = session.command();
        let mounts = self.mounts();
        // SAFETY: system calls only, on strings made before the fork.
        unsafe { command.pre_exec(move || mount_all(&mounts)) };
        session.start_as(&mut command).wait()
    }

    /// What goes where. The two folders of which every machine must have one are made if need be (a bare VM has none).
    fn mounts(&self) -> Vec<(CString, CString)> {
        for folder in ["/etc/sysctl.d", "/usr/lib/sysctl.d", "/run"] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let usr_merged = Path::new("/lib").is_symlink();
        let places = [
            "etc/sysctl.d",
            "etc/sysctl.conf",
            "run",
            "usr/local/lib/sysctl.d",
            "usr/lib/sysctl.d",
            "lib/sysctl.d",
            "proc/sys/vm/max_map_count",
        ];
        let there = places.into_iter().filter(|place| Path::new("/").join(place).exists());
        let there = there.filter(|place| !(usr_merged && place.starts_with("lib/")));
        let name = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        there.map(|place| (name(&self.0.path(place)), name(&Path::new("/").join(place)))).collect()
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

/// In a mount namespace of this process's own. Only system calls: it runs between fork and exec.
fn mount_all(mounts: &[(CString, CString)]) -> std::io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: all strings end in NUL and live through the calls.
    let private = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
    };
    let mount = |(from, to): &(CString, CString)| {
        // SAFETY: as above.
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) == 0 }
    };
    if private && mounts.iter().all(mount) { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

const BEFORE: [&str; 2] = ["50-database.conf", "90-game.conf"];

fn out(done: &Done) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

/// As it would stand on one endless line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
        "of kernel memory for each VMA",
    ] {
        assert!(text.contains(part) || flat(&text).contains(part), "{part:?} is missing: {text}");
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
    assert!(flat(&undone).contains("At the next boot /etc/sysctl.d/90-game.conf:1 sets 70000"), "{undone}");
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

/// Puts something in the file's place; the first path is that of a victim.
type Plant = fn(&Path, &Path);

#[test]
fn what_is_planted_in_the_files_place_is_left_alone() {
    use std::os::unix::fs::symlink;
    let machine = Machine::new();
    let drop_in = machine.0.path("etc/sysctl.d/99-vmaudit.conf");
    let victim = machine.0.path("victim");
    std::fs::write(&victim, "# Written by vmaudit, or so it says\n").unwrap();
    let plants: [(&str, Plant); 3] = [
        ("symbolic link", |victim, at| symlink(victim, at).unwrap()),
        ("no regular file", |_, at| {
            let at = CString::new(at.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: a string that lives through the call.
            assert_eq!(unsafe { libc::mkfifo(at.as_ptr(), 0o666) }, 0);
        }),
        ("another user", |victim, at| {
            std::fs::copy(victim, at).unwrap();
            std::os::unix::fs::chown(at, Some(NOBODY), None).unwrap();
        }),
    ];
    for (what, plant) in plants {
        plant(&victim, &drop_in);
        for options in [&["--apply", "300000"][..], &["--undo"], &["--apply", "300000", "--dry-run"]] {
            let refused = machine.limit(options).ended_with(1);
            let said = refused.stderr_text();
            assert!(said.contains(what) && said.contains("left alone"), "{}", refused.said());
            assert_eq!(said.lines().count(), 1, "{}", refused.said());
        }
        std::fs::remove_file(&drop_in).unwrap();
    }
    assert_eq!(machine.running(), "65530");
    assert_eq!(std::fs::read_to_string(&victim).unwrap().lines().count(), 1);
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

/// An admin put lines of his own into vmaudit's file.
#[test]
fn lines_of_others_in_the_file_survive_undo_and_a_second_apply() {
    let machine = Machine::new();
    let text = || std::fs::read_to_string(machine.0.path("etc/sysctl.d/99-vmaudit.conf")).unwrap();
    machine.limit(&["--apply", "262144"]).succeeded();
    machine.put("etc/sysctl.d/99-vmaudit.conf", &(text() + "vm.swappiness = 10\n"));
    for words in [&["--apply", "300000"][..], &["--undo"], &["--apply", "262144"]] {
        let done = machine.limit(words).succeeded();
        assert!(text().ends_with("\nvm.swappiness = 10\n"), "{words:?} left {}", text());
        assert!(
            flat(&out(&done)).contains("lines that are not vmaudit's; they are kept: vm.swappiness = 10"),
            "{}",
            done.said()
        );
        assert_eq!(text().contains("vm.max_map_count"), words[0] == "--apply", "{}", text());
    }
}

#[test]
fn a_file_too_large_to_be_read_is_named() {
    let machine = Machine::new();
    machine.put("etc/sysctl.d/95-huge.conf", &("#\n".repeat(600 << 10) + "vm.max_map_count = 100000\n"));
    let text = out(&machine.limit(&[]).succeeded());
    assert!(text.contains("/etc/sysctl.d/95-huge.conf is larger than 1,048,576 bytes"), "{text}");
    let report = machine.json(&[]);
    assert_eq!(report["boot"]["unread"][0]["file"], "/etc/sysctl.d/95-huge.conf");
    let done = machine.limit(&["--apply", "262144"]).succeeded();
    assert!(out(&done).contains("95-huge.conf"), "{}", done.said());
}
