//! Changes the limit: now, and at every boot by a file of its own. A plan is made first and can be shown without
//! being carried out; nothing is written when the plan would not have the effect it promises.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};

use crate::model::limit::{Applier, Fate, KERNEL_DEFAULT, KERNEL_LARGEST, Plan, Unread};
use crate::os::sysctl_conf;
use crate::os::sysctl_conf::Overlay;
use crate::text::grouped;

/// The file, below the root. 99 is late; whether it is late enough is checked.
pub const DROP_IN: &str = "etc/sysctl.d/99-vmaudit.conf";

/// The running value, below the root.
const RUNNING: &str = "proc/sys/vm/max_map_count";

/// First words of the file: what tells it from somebody else's of the same name.
const MARK: &str = "# Written by vmaudit";

/// Line that remembers the value to go back to.
const BEFORE: &str = "# Running value before: ";

/// In the first line, before the value that was applied.
const APPLY: &str = "`vmaudit limit --apply ";

/// The line that sets it, before the value.
const KEY: &str = "vm.max_map_count = ";

/// Largest file that is changed, bytes.
const LARGEST: u64 = 64 * 1024;

/// Plans `--apply value`. `largest` is the process with most VMAs now: (name, pid, VMAs).
pub fn plan_apply(
    root: &Path,
    applier: Applier,
    value: u64,
    largest: Option<&(String, u32, u64)>,
    version: &str,
) -> anyhow::Result<Plan> {
    if !(KERNEL_DEFAULT..=KERNEL_LARGEST).contains(&value) {
        bail!(
            "{} is refused: the value must lie between the kernel's default {} and its largest {}",
            grouped(value),
            grouped(KERNEL_DEFAULT),
            grouped(KERNEL_LARGEST)
        );
    }
    if let Some((name, pid, vmas)) = largest
        && *vmas >= value
    {
        bail!(
            "{name} (pid {pid}) holds {} VMAs now: under a limit of {} its next mapping would fail",
            grouped(*vmas),
            grouped(value)
        );
    }
    let current = running(root)?;
    let old = existing(root)?;
    // The value to go back to is the one before the first change, not before this one.
    let before = old.as_deref().and_then(remembered).unwrap_or(current);
    let others = old.as_deref().map(of_others).unwrap_or_default();
    let mut content = format!(
        "{MARK} {version}: {APPLY}{value}`. To take it back: `vmaudit limit --undo`.\n{BEFORE}{before}\n{KEY}{value}\n"
    );
    others.iter().for_each(|(_, line)| content.extend([line, "\n"]));
    let overlay = Overlay { path: DROP_IN, content: Some(&content) };
    let file = Path::new("/").join(DROP_IN);
    let wins = |applier| {
        let boot = sysctl_conf::read(root, applier, Some(overlay));
        match boot.winner() {
            // The third line is ours.
            Some(winner) if winner.file == file && winner.line == 3 => Ok(()),
            Some(winner) if winner.file == file => Err(format!("another line of it sets {}", winner.text)),
            Some(winner) => Err(format!(
                "{}:{} sets {} and is applied later",
                winner.file.display(),
                winner.line,
                winner.text
            )),
            None => {
                let hidden =
                    boot.settings.iter().any(|s| s.file == file && matches!(s.fate, Fate::Hidden { .. }));
                Err(if hidden {
                    "another file of the same name hides it".to_owned()
                } else {
                    "it would not be read".to_owned()
                })
            }
        }
    };
    if let Err(why) = wins(applier) {
        bail!(
            "nothing was changed: at boot {} would not win, because {why}; change or remove that line first",
            file.display()
        );
    }
    let mut notes = Vec::new();
    notes.extend(kept_sentence(&file, &others));
    let other = if applier == Applier::Procps { Applier::SystemdSysctl } else { Applier::Procps };
    if let Err(why) = wins(other) {
        notes.push(format!(
            "With {} it would not win: {why}. This machine's boot uses {}.",
            other.name(),
            applier.name()
        ));
    }
    notes.extend(sysctl_conf::read(root, applier, Some(overlay)).unread.iter().map(Unread::sentence));
    for (path, line, text) in sysctl_conf::others(root) {
        notes.push(format!(
            "{}:{line} sets {text} when its service starts and may replace this value.",
            path.display()
        ));
    }
    if value < current {
        notes.push(format!("This lowers the running value {}.", grouped(current)));
    }
    Ok(Plan { file, content: Some(content), running: (value != current).then_some(value), notes })
}

/// Plans `--undo`.
pub fn plan_undo(root: &Path, applier: Applier) -> anyhow::Result<Plan> {
    let file = Path::new("/").join(DROP_IN);
    let Some(old) = existing(root)? else {
        bail!("there is nothing to undo: {} does not exist", file.display())
    };
    let Some(applied) = applied(&old) else {
        bail!("there is nothing to undo: {} holds only lines of others", file.display())
    };
    let others = of_others(&old);
    let content = (!others.is_empty()).then(|| {
        let mut content = format!("{MARK}, which took its own line back; the lines below are of others.\n");
        others.iter().for_each(|(_, line)| content.extend([line, "\n"]));
        content
    });
    let overlay = Overlay { path: DROP_IN, content: content.as_deref() };
    let boot_without = sysctl_conf::read(root, applier, Some(overlay));
    let current = running(root)?;
    let ours = Some(applied);
    let before = remembered(&old);
    let mut notes = Vec::new();
    notes.extend(kept_sentence(&file, &others));
    let running = match before {
        Some(before) if ours == Some(current) && before != current => Some(before),
        Some(_) if ours != Some(current) => {
            notes.push(format!(
                "The running value {} is not the one that was applied: somebody changed it since, so it stays.",
                grouped(current)
            ));
            None
        }
        _ => None,
    };
    notes.push(match boot_without.winner() {
        Some(winner) => {
            format!("At the next boot {}:{} sets {}.", winner.file.display(), winner.line, winner.text)
        }
        None => {
            format!("At the next boot no file sets it: the kernel's default, {}.", grouped(KERNEL_DEFAULT))
        }
    });
    notes.extend(boot_without.unread.iter().map(Unread::sentence));
    Ok(Plan { file, content, running, notes })
}

/// Carries a plan out. The file comes first; if the running value is refused then, the file is put back as it was.
pub fn carry_out(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    let path = root.join(DROP_IN);
    let old = existing(root)?;
    replace(&path, plan.content.as_deref())?;
    if let Some(value) = plan.running
        && let Err(error) = set_running(root, value)
    {
        return match replace(&path, old.as_deref()) {
            Ok(()) => Err(error.context(format!("{} was put back as it was", plan.file.display()))),
            Err(second) => {
                Err(error.context(format!("{} could not be put back: {second:#}", plan.file.display())))
            }
        };
    }
    Ok(())
}

fn running(root: &Path) -> anyhow::Result<u64> {
    let path = root.join(RUNNING);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no number", path.display()))
}

fn set_running(root: &Path, value: u64) -> anyhow::Result<()> {
    let path = root.join(RUNNING);
    let write = || {
        OpenOptions::new().write(true).truncate(true).open(&path)?.write_all(format!("{value}\n").as_bytes())
    };
    write().with_context(|| format!("cannot set the running value through {}", path.display()))?;
    match running(root)? {
        now if now == value => Ok(()),
        now => bail!("the kernel took {} and shows {}", grouped(value), grouped(now)),
    }
}

/// The drop-in's text; an error when it is not ours. What somebody planted in its place is neither followed nor waited
/// for.
fn existing(root: &Path) -> anyhow::Result<Option<String>> {
    let path = root.join(DROP_IN);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            bail!("{} is a symbolic link; it is left alone", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let meta = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    if !meta.is_file() {
        bail!("{} is no regular file; it is left alone", path.display());
    }
    if ![0, nix::unistd::geteuid().as_raw()].contains(&meta.uid()) || meta.nlink() > 1 {
        bail!(
            "{} belongs to another user or has several names (hard links); it is left alone",
            path.display()
        );
    }
    let mut text = String::new();
    // Ours has three lines; of what others added every byte must be kept.
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > LARGEST {
        bail!("{} is larger than {} bytes; it is left alone", path.display(), grouped(LARGEST));
    }
    if !text.starts_with(MARK) {
        bail!("{} was not written by vmaudit; it is left alone", path.display());
    }
    Ok(Some(text))
}

/// The value that the file's first line says was applied; `None` when that was taken back.
fn applied(text: &str) -> Option<u64> {
    let (_, rest) = text.lines().next()?.split_once(APPLY)?;
    rest.split_once('`')?.0.parse().ok()
}

/// The lines that are not ours, with their numbers in the file. Ours are the first one, the one that remembers, and the
/// one that sets what was applied, as it was written.
fn of_others(text: &str) -> Vec<(usize, &str)> {
    let set = applied(text).map(|value| format!("{KEY}{value}"));
    let (mut remembers, mut sets) = (false, false);
    let is_other = |(number, line): &(usize, &str)| {
        let (before, ours) = (line.starts_with(BEFORE), Some(*line) == set.as_deref());
        let own = *number == 1 || before && !remembers || ours && !sets;
        remembers |= before;
        sets |= ours;
        !own
    };
    (1..).zip(text.lines()).filter(is_other).collect()
}

/// What is said of them; `None` when there is nothing but blank lines.
fn kept_sentence(file: &Path, others: &[(usize, &str)]) -> Option<String> {
    let mut lines = others.iter().map(|(_, line)| line.trim()).filter(|line| !line.is_empty());
    let first = lines.next()?;
    let more = lines.count();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("{} holds lines that are not vmaudit's; they are kept: {first}{rest}", file.display()))
}

fn remembered(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(BEFORE)?.trim().parse().ok())
}

/// Puts `content` in the place of a file in one step: readers see the old or the new one, also after a crash.
fn replace(path: &Path, content: Option<&str>) -> anyhow::Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    match content {
        Some(content) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            // Does not end in .conf, so a boot in between does not read it.
            let temporary = folder.join(format!(".99-vmaudit.{}.new", std::process::id()));
            let written = (|| {
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
                file.write_all(content.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&temporary, path)
            })();
            if let Err(error) = written {
                let _ = std::fs::remove_file(&temporary);
                return Err(error).with_context(|| format!("cannot write {}", path.display()));
            }
        }
        None => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        },
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Root(PathBuf);
    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    impl Root {
        fn new(name: &str, running: u64) -> Self {
            let root =
                Self(std::env::temp_dir().join(format!("vmaudit-apply-{name}-{}", std::process::id())));
            root.put(RUNNING, &format!("{running}\n"));
            root
        }
        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        fn apply(&self, value: u64) -> anyhow::Result<Plan> {
            let plan = plan_apply(&self.0, Applier::SystemdSysctl, value, None, "0")?;
            carry_out(&self.0, &plan)?;
            Ok(plan)
        }
        fn undo(&self) -> anyhow::Result<Plan> {
            let plan = plan_undo(&self.0, Applier::SystemdSysctl)?;
            carry_out(&self.0, &plan)?;
            Ok(plan)
        }
        fn boot(&self) -> Option<u64> {
            sysctl_conf::read(&self.0, Applier::SystemdSysctl, None).value
        }
    }

    #[test]
    fn apply_twice_and_undo_goes_back_to_the_start() {
        let root = Root::new("twice", 65530);
        root.apply(262_144).unwrap();
        assert_eq!((running(&root.0).unwrap(), root.boot()), (262_144, Some(262_144)));
        root.apply(300_000).unwrap();
        assert_eq!((running(&root.0).unwrap(), root.boot()), (300_000, Some(300_000)));
        root.undo().unwrap();
        assert_eq!((running(&root.0).unwrap(), root.boot()), (65530, None));
        assert!(root.undo().unwrap_err().to_string().contains("nothing to undo"));
        let left: Vec<_> = std::fs::read_dir(root.0.join("etc/sysctl.d")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn lines_of_others_are_kept_and_named() {
        let root = Root::new("others", 65530);
        root.apply(262_144).unwrap();
        let add = |text: &str| {
            let now = std::fs::read_to_string(root.0.join(DROP_IN)).unwrap();
            root.put(DROP_IN, &(now + text));
        };
        let others = "# the admin's\nvm.swappiness = 10\n\nnet.core.somaxconn=1024";
        add(others);
        let kept = |plan: &Plan| {
            let text = std::fs::read_to_string(root.0.join(DROP_IN)).unwrap();
            assert!(text.ends_with(&format!("\n{others}\n")), "{text}");
            assert!(
                plan.notes.iter().any(|note| note.ends_with("kept: # the admin's and 2 more")),
                "{plan:?}"
            );
        };
        kept(&root.apply(300_000).unwrap());
        assert_eq!((running(&root.0).unwrap(), root.boot()), (300_000, Some(300_000)));
        kept(&root.undo().unwrap());
        assert_eq!((running(&root.0).unwrap(), root.boot()), (65530, None));
        assert!(root.undo().unwrap_err().to_string().contains("only lines of others"));
        kept(&root.apply(270_000).unwrap());
        assert_eq!(root.boot(), Some(270_000));
        // A line of another's that would win.
        add("vm.max_map_count = 80000\n");
        let error = root.apply(310_000).unwrap_err().to_string();
        assert!(error.contains("another line of it sets 80000"), "{error}");
        root.undo().unwrap();
        assert_eq!(root.boot(), Some(80_000));
    }

    #[test]
    fn a_line_that_somebody_changed_is_not_ours_any_more() {
        let root = Root::new("changed", 65530);
        root.apply(262_144).unwrap();
        let text = std::fs::read_to_string(root.0.join(DROP_IN)).unwrap();
        root.put(DROP_IN, &text.replace("count = 262144", "count = 400000"));
        let plan = root.undo().unwrap();
        assert_eq!((running(&root.0).unwrap(), root.boot()), (65530, Some(400_000)));
        assert!(plan.notes.iter().any(|note| note.ends_with("kept: vm.max_map_count = 400000")), "{plan:?}");
    }

    #[test]
    fn a_file_too_large_to_keep_is_left_alone() {
        let root = Root::new("large", 65530);
        root.apply(262_144).unwrap();
        let text = std::fs::read_to_string(root.0.join(DROP_IN)).unwrap() + &"#\n".repeat(40_000);
        root.put(DROP_IN, &text);
        for answer in [root.apply(300_000), root.undo()] {
            assert!(answer.unwrap_err().to_string().contains("left alone"));
        }
        assert_eq!(std::fs::read_to_string(root.0.join(DROP_IN)).unwrap(), text);
    }

    #[test]
    fn a_later_file_is_named_and_nothing_is_written() {
        let root = Root::new("later", 65530);
        root.put("usr/lib/sysctl.d/zz-game.conf", "\nvm.max_map_count = 1000\n");
        let error = root.apply(262_144).unwrap_err().to_string();
        assert!(error.contains("/usr/lib/sysctl.d/zz-game.conf:2 sets 1000"), "{error}");
        assert!(!root.0.join(DROP_IN).exists());
        assert_eq!(running(&root.0).unwrap(), 65530);
    }

    #[test]
    fn somebody_elses_file_and_value_are_left_alone() {
        let root = Root::new("else", 65530);
        root.put(DROP_IN, "vm.max_map_count = 70000\n");
        assert!(root.apply(262_144).unwrap_err().to_string().contains("not written by vmaudit"));
        assert!(root.undo().unwrap_err().to_string().contains("not written by vmaudit"));
        std::fs::remove_file(root.0.join(DROP_IN)).unwrap();
        root.apply(262_144).unwrap();
        root.put(RUNNING, "90000\n");
        assert_eq!(root.undo().unwrap().running, None);
        assert_eq!(running(&root.0).unwrap(), 90000);
    }

    #[test]
    fn what_is_planted_in_its_place_is_left_alone() {
        use std::os::unix::fs::symlink;
        let root = Root::new("planted", 65530);
        root.apply(262_144).unwrap();
        let (drop_in, victim) = (root.0.join(DROP_IN), root.0.join("victim"));
        // As a copy of ours, so that its content is no reason.
        std::fs::copy(&drop_in, &victim).unwrap();
        let left_alone = |what: &str| {
            for answer in [root.apply(300_000), root.undo()] {
                let error = format!("{:#}", answer.unwrap_err());
                assert!(error.contains("left alone") && error.contains(what), "{error}");
            }
            assert_eq!(std::fs::read_to_string(&victim).unwrap().matches("262144").count(), 2);
            std::fs::remove_file(&drop_in).unwrap();
        };
        std::fs::remove_file(&drop_in).unwrap();
        symlink(&victim, &drop_in).unwrap();
        left_alone("symbolic link");
        std::fs::hard_link(&victim, &drop_in).unwrap();
        left_alone("several names");
        nix::unistd::mkfifo(&drop_in, nix::sys::stat::Mode::S_IRWXU).unwrap();
        left_alone("no regular file");
        // Only root can make another user's file.
        std::fs::copy(&victim, &drop_in).unwrap();
        if std::os::unix::fs::chown(&drop_in, Some(65534), None).is_ok() {
            left_alone("another user");
        }
    }

    #[test]
    fn harmful_values_are_refused() {
        let root = Root::new("harm", 65530);
        assert!(root.apply(1000).is_err() && root.apply(1 << 31).is_err());
        let held = ("java".to_owned(), 7, 100_000);
        let error = plan_apply(&root.0, Applier::Procps, 90_000, Some(&held), "0").unwrap_err().to_string();
        assert!(error.contains("java (pid 7) holds 100,000"), "{error}");
    }

    #[test]
    fn a_refused_running_value_takes_the_file_back() {
        let root = Root::new("back", 65530);
        let plan = plan_apply(&root.0, Applier::Procps, 90_000, None, "0").unwrap();
        std::fs::remove_file(root.0.join(RUNNING)).unwrap();
        let error = format!("{:#}", carry_out(&root.0, &plan).unwrap_err());
        assert!(error.contains("put back as it was"), "{error}");
        assert!(!root.0.join(DROP_IN).exists());
    }
}
