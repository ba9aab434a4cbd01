//! Which files set vm.max_map_count at boot, and which of them wins. Reads files below a root and nothing else.
//!
//! systemd-sysctl and procps `sysctl --system` agree on most of it (sysctl.d(5), sysctl(8)): one list of `*.conf` from
//! four or five folders, sorted by file name; of files with the same name only that of the first folder counts; the
//! last assignment wins, and one that names the key beats one with a pattern. They differ in one thing: procps reads
//! /etc/sysctl.conf at the end, systemd-sysctl does not read it (Debian links it into /etc/sysctl.d).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::model::limit::{Applier, Boot, Fate, Setting, Unread};
use crate::text::grouped;

/// The key, as systemd-sysctl normalises it.
const KEY: &str = "vm/max_map_count";

/// Folders, the one with precedence first.
const FOLDERS: [&str; 5] =
    ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"];

/// Read at the end by procps only.
const CLASSIC: &str = "etc/sysctl.conf";

/// Bytes of a file that are looked at.
const MAX_FILE: u64 = 1 << 20;

/// Who applies the files when this machine boots.
pub fn applier(root: &Path) -> Applier {
    if root.join("run/systemd/system").is_dir() { Applier::SystemdSysctl } else { Applier::Procps }
}

/// A file that is to be looked at as if it had this content.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Path below the root, without a leading slash.
    pub path: &'a str,
    /// Content; `None` = as if it did not exist.
    pub content: Option<&'a str>,
}

/// Reads the files below `root` as `applier` does.
pub fn read(root: &Path, applier: Applier, overlay: Option<Overlay<'_>>) -> Boot {
    let mut chosen: BTreeMap<String, String> = BTreeMap::new();
    let mut hidden: Vec<(String, String)> = Vec::new();
    let usr_merged = std::fs::symlink_metadata(root.join("lib")).is_ok_and(|meta| meta.is_symlink());
    for folder in FOLDERS {
        // With /lib a link to /usr/lib the last folder is the one before it.
        if folder == "lib/sysctl.d" && usr_merged {
            continue;
        }
        let mut names = list(&root.join(folder));
        if let Some(Overlay { path, content }) = overlay
            && let Some(name) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'))
        {
            names.retain(|known| known != name);
            names.extend(content.map(|_| name.to_owned()));
        }
        for name in names {
            let path = format!("{folder}/{name}");
            match chosen.get(&name) {
                Some(first) => hidden.push((path, first.clone())),
                None => {
                    chosen.insert(name, path);
                }
            }
        }
    }
    let mut unread: Vec<Unread> = Vec::new();
    let mut content = |path: &str| match overlay {
        Some(overlay) if overlay.path == path => overlay.content.unwrap_or_default().to_owned(),
        _ => load(root, path).unwrap_or_else(|(text, why)| {
            unread.push(Unread { file: Path::new("/").join(path), why });
            text
        }),
    };

    let mut settings = Vec::new();
    let mut excluded = false;
    let mut order: Vec<String> = chosen.into_values().collect();
    if applier == Applier::Procps {
        order.push(CLASSIC.to_owned());
    }
    for path in &order {
        excluded |= parse(path, &content(path), Fate::Replaced, &mut settings);
    }
    decide(&mut settings, excluded);
    for (path, by) in hidden {
        parse(&path, &content(&path), Fate::Hidden { by: Path::new("/").join(by) }, &mut settings);
    }
    if applier == Applier::SystemdSysctl && !settings_from_classic(root, &order) {
        parse(CLASSIC, &content(CLASSIC), Fate::NotRead, &mut settings);
    }
    let value = settings.iter().find(|setting| setting.fate == Fate::Wins).and_then(|setting| setting.value);
    Boot { applier, settings, value, command_line: command_line(root), unread }
}

/// Whether a file that is read is a link to /etc/sysctl.conf.
fn settings_from_classic(root: &Path, order: &[String]) -> bool {
    let Ok(classic) = std::fs::canonicalize(root.join(CLASSIC)) else { return false };
    order.iter().any(|path| std::fs::canonicalize(resolve(root, path)).is_ok_and(|real| real == classic))
}

fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".conf"))
        .collect();
    names.sort_unstable();
    names
}

/// Follows links as they would be followed if `root` were `/`.
fn resolve(root: &Path, path: &str) -> PathBuf {
    let mut path = PathBuf::from(path);
    for _ in 0..16 {
        let Ok(target) = std::fs::read_link(root.join(&path)) else { break };
        let joined =
            if target.is_absolute() { target } else { path.parent().unwrap_or(Path::new("")).join(target) };
        path = PathBuf::new();
        for part in joined.components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => {
                    path.pop();
                }
                _ => {}
            }
        }
    }
    root.join(path)
}

/// A regular file's text; anything else (`/dev/null` as a mask, a folder, a pipe, nothing) is empty. Error: what could be
/// read of it, and why that is not all.
fn load(root: &Path, path: &str) -> Result<String, (String, String)> {
    let mut bytes = Vec::new();
    // Opened before it is looked at, so that nobody puts another one there in between; O_NONBLOCK waits for no FIFO.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let read =
        std::fs::File::options().read(true).custom_flags(flags).open(resolve(root, path)).and_then(|file| {
            let regular = file.metadata()?.is_file();
            if regular { file.take(MAX_FILE + 1).read_to_end(&mut bytes) } else { Ok(0) }
        });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match read {
        Err(e) if [ErrorKind::NotFound, ErrorKind::IsADirectory].contains(&e.kind()) => Ok(String::new()),
        // What no driver is behind (a socket, a device).
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(String::new()),
        Err(e) => Err((String::new(), format!("cannot be read ({e})"))),
        Ok(_) if bytes.len() as u64 > MAX_FILE => {
            // No half of a line.
            let most = bytes.iter().take(MAX_FILE as usize).rposition(|&b| b == b'\n').unwrap_or(0);
            let read = text(bytes.get(..most).unwrap_or_default());
            Err((read, format!("is larger than {} bytes and was read only so far", grouped(MAX_FILE))))
        }
        Ok(_) => Ok(text(&bytes)),
    }
}

/// Adds the lines of one file that set the limit; true when it takes the key out of every pattern.
pub(crate) fn parse(path: &str, text: &str, fate: Fate, settings: &mut Vec<Setting>) -> bool {
    let mut excluded = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            excluded |= line.strip_prefix('-').is_some_and(|key| normal(key.trim()) == KEY);
            continue;
        };
        // A dash means that a failure is no error.
        let key = key.trim();
        let key = normal(key.strip_prefix('-').unwrap_or(key));
        let pattern = key.contains(['*', '?', '[']);
        if if pattern { matches(key.as_bytes(), KEY.as_bytes()) } else { key == KEY } {
            let value = value.trim();
            settings.push(Setting {
                file: Path::new("/").join(path),
                line: number,
                text: value.to_owned(),
                value: kernel_number(value),
                pattern,
                fate: fate.clone(),
                lowers: false,
            });
        }
    }
    excluded
}

/// `vm.max_map_count` and `vm/max_map_count` → `vm/max_map_count` (sysctl.d(5): the first separator decides).
fn normal(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.get(at..).is_some_and(|rest| rest.starts_with('.')) => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.trim_start_matches('/').to_owned(),
    }
}

/// Shell pattern, in which `*` and `?` do not match a slash; classes are taken to match any one character. Goes
/// through the pattern once with the set of places that the text can have reached, so no pattern is expensive.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    let mut rest = pattern;
    while let Some((&b, following)) = rest.split_first() {
        rest = following;
        let mut next = vec![false; reached.len()];
        if b == b'*' {
            let mut on = false;
            for (place, slot) in next.iter_mut().enumerate() {
                let passed_slash = place > 0 && text.get(place - 1) == Some(&b'/');
                on = reached.get(place) == Some(&true) || (on && !passed_slash);
                *slot = on;
            }
        } else {
            if b == b'[' {
                let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            for (place, &have) in text.iter().enumerate() {
                let fits = if matches!(b, b'?' | b'[') { have != b'/' } else { have == b };
                if fits
                    && reached.get(place) == Some(&true)
                    && let Some(slot) = next.get_mut(place + 1)
                {
                    *slot = true;
                }
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

/// A number as the kernel's integer sysctls read it: decimal, 0x..., 0...; from 0 to the largest int. What follows a
/// blank is ignored (measured on 6.18: `65530 # x` is taken, `65530#x` is EINVAL).
pub fn kernel_number(text: &str) -> Option<u64> {
    let text = text.split_ascii_whitespace().next()?;
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok()?,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        None => return None,
    };
    Some(value).filter(|&value| value <= i32::MAX as u64)
}

pub(crate) fn decide(settings: &mut [Setting], excluded: bool) {
    let winner = settings
        .iter()
        .rposition(|setting| !setting.pattern)
        .or_else(|| settings.iter().rposition(|_| !excluded));
    if let Some(setting) = winner.and_then(|place| settings.get_mut(place)) {
        setting.fate = Fate::Wins;
    }
    let mut highest = 0;
    for setting in settings {
        if let Some(value) = setting.value {
            setting.lowers = value < highest;
            highest = highest.max(value);
        }
    }
}

/// `sysctl.vm.max_map_count=` on the kernel's command line, which the kernel applies before init (5.8 and later).
fn command_line(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/cmdline")).ok()?;
    text.split_ascii_whitespace().rev().find_map(|word| {
        let (key, value) =
            word.strip_prefix("sysctl.").or_else(|| word.strip_prefix("sysctl/"))?.split_once('=')?;
        (normal(key) == KEY).then(|| kernel_number(value)).flatten()
    })
}

/// Files of other programs that set the limit after boot: (file, line, value as written).
pub fn others(root: &Path) -> Vec<(PathBuf, u64, String)> {
    let mut files = vec!["etc/ufw/sysctl.conf".to_owned()];
    let mut profiles: Vec<String> = load(root, "etc/tuned/active_profile")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let mut seen = 0;
    // A profile includes others; a chain longer than this is a loop.
    while let Some(profile) = profiles.get(seen).filter(|_| seen < 16).cloned() {
        seen += 1;
        if profile.contains('/') {
            continue;
        }
        for folder in ["etc/tuned/profiles", "etc/tuned", "usr/lib/tuned/profiles", "usr/lib/tuned"] {
            let path = format!("{folder}/{profile}/tuned.conf");
            let text = load(root, &path).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            for line in text.lines() {
                if let Some((key, value)) = line.split_once('=')
                    && key.trim() == "include"
                {
                    profiles.extend(value.split([',', ' ']).map(|name| name.trim().to_owned()));
                }
            }
            files.push(path);
            break;
        }
    }
    let mut settings = Vec::new();
    for path in files {
        parse(&path, &load(root, &path).unwrap_or_default(), Fate::NotRead, &mut settings);
    }
    settings.into_iter().map(|setting| (setting.file, setting.line, setting.text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);
    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("vmaudit-sysctl-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    fn fates(boot: &Boot) -> Vec<(String, Option<u64>, bool)> {
        let name = |s: &Setting| s.file.to_string_lossy().into_owned();
        boot.settings.iter().map(|s| (name(s), s.value, s.fate == Fate::Wins)).collect()
    }

    #[test]
    fn the_last_name_wins_whatever_its_folder() {
        let root = Root::new(
            "order",
            &[
                ("etc/sysctl.d/10-es.conf", "# x\nvm.max_map_count = 1048576\n"),
                ("usr/lib/sysctl.d/60-distro.conf", "vm/max_map_count=262144\n"),
                ("run/sysctl.d/60-distro.conf", "; run comes before usr\n-vm.max_map_count = 0x10000"),
                ("etc/sysctl.conf", "vm.max_map_count=70000\n"),
                ("etc/sysctl.d/99-off.conf.bak", "vm.max_map_count=1\n"),
            ],
        );
        let boot = read(&root.0, Applier::SystemdSysctl, None);
        assert_eq!(
            fates(&boot),
            [
                ("/etc/sysctl.d/10-es.conf".to_owned(), Some(1_048_576), false),
                ("/run/sysctl.d/60-distro.conf".to_owned(), Some(65536), true),
                ("/usr/lib/sysctl.d/60-distro.conf".to_owned(), Some(262_144), false),
                ("/etc/sysctl.conf".to_owned(), Some(70000), false),
            ]
        );
        assert_eq!(boot.value, Some(65536));
        assert!(boot.settings[1].lowers && !boot.settings[0].lowers);
        assert_eq!(boot.settings[2].fate, Fate::Hidden { by: "/run/sysctl.d/60-distro.conf".into() });
        assert_eq!(boot.settings[3].fate, Fate::NotRead);
        let boot = read(&root.0, Applier::Procps, None);
        assert_eq!(
            (boot.value, boot.winner().unwrap().file.as_path()),
            (Some(70000), Path::new("/etc/sysctl.conf"))
        );
    }

    #[test]
    fn masks_and_links() {
        let root = Root::new(
            "links",
            &[
                ("usr/lib/sysctl.d/50-a.conf", "vm.max_map_count=262144\n"),
                ("etc/sysctl.conf", "vm.max_map_count=70000\n"),
                ("etc/sysctl.d/x", ""),
            ],
        );
        std::os::unix::fs::symlink("/dev/null", root.0.join("etc/sysctl.d/50-a.conf")).unwrap();
        std::os::unix::fs::symlink("../sysctl.conf", root.0.join("etc/sysctl.d/99-sysctl.conf")).unwrap();
        let boot = read(&root.0, Applier::SystemdSysctl, None);
        assert_eq!(
            fates(&boot),
            [
                ("/etc/sysctl.d/99-sysctl.conf".to_owned(), Some(70000), true),
                ("/usr/lib/sysctl.d/50-a.conf".to_owned(), Some(262_144), false),
            ]
        );
    }

    #[test]
    fn patterns_give_way_to_the_name() {
        let root = Root::new(
            "glob",
            &[
                ("etc/sysctl.d/10-a.conf", "vm.max_map_count=262144\n"),
                ("etc/sysctl.d/20-b.conf", "vm.max_*=100000\n"),
            ],
        );
        assert_eq!(read(&root.0, Applier::SystemdSysctl, None).value, Some(262_144));
        let root = Root::new("glob2", &[("etc/sysctl.d/20-b.conf", "vm.max_*=100000\nnet.*=1\n")]);
        assert_eq!(read(&root.0, Applier::SystemdSysctl, None).value, Some(100_000));
        let root = Root::new("glob3", &[("etc/sysctl.d/20-b.conf", "vm.max_*=100000\n-vm.max_map_count\n")]);
        assert_eq!(read(&root.0, Applier::SystemdSysctl, None).value, None);
    }

    #[test]
    fn shell_patterns() {
        for yes in [
            "vm/max_map_count",
            "vm/*",
            "*/max*count",
            "vm/max?map[_x]count",
            "**m/***",
            "?m/max_map_coun[s-u]",
        ] {
            assert!(matches(yes.as_bytes(), KEY.as_bytes()), "{yes}");
        }
        for no in ["vm", "*", "vm/*x", "vm?max_map_count", "vm/max_map_count?", "vm/[", ""] {
            assert!(!matches(no.as_bytes(), KEY.as_bytes()), "{no}");
        }
        assert!(!matches("*x".repeat(100_000).as_bytes(), KEY.as_bytes()));
    }

    #[test]
    fn an_overlay_is_seen_as_a_file() {
        let root = Root::new("overlay", &[("etc/sysctl.d/zz.conf", "vm.max_map_count=1000\n")]);
        let with = |path| {
            let overlay = Overlay { path, content: Some("vm.max_map_count = 5\n") };
            read(&root.0, Applier::Procps, Some(overlay)).value
        };
        assert_eq!(with("etc/sysctl.d/99-vmaudit.conf"), Some(1000));
        assert_eq!(with("etc/sysctl.d/zzz.conf"), Some(5));
        let without = Overlay { path: "etc/sysctl.d/zz.conf", content: None };
        assert_eq!(read(&root.0, Applier::Procps, Some(without)).value, None);
    }

    #[test]
    fn numbers_are_read_as_the_kernel_does() {
        assert_eq!(kernel_number("65530"), Some(65530));
        assert_eq!(kernel_number("0x10000"), Some(65536));
        assert_eq!(kernel_number("010"), Some(8));
        assert_eq!(kernel_number("262144 # why"), Some(262_144));
        for bad in ["", "-1", "2147483648", "1e6", "262144#x", "+5", "99999999999999999999"] {
            assert_eq!(kernel_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_command_line_and_tuned_are_found() {
        let root = Root::new(
            "other",
            &[
                ("proc/cmdline", "ro sysctl.vm.max_map_count=80000 quiet"),
                ("etc/tuned/active_profile", "db\n"),
                ("etc/tuned/db/tuned.conf", "[main]\ninclude=base\n"),
                ("usr/lib/tuned/base/tuned.conf", "[sysctl]\nvm.max_map_count = 2147483647\n"),
            ],
        );
        assert_eq!(read(&root.0, Applier::Procps, None).command_line, Some(80000));
        assert_eq!(others(&root.0), [("/usr/lib/tuned/base/tuned.conf".into(), 2, "2147483647".to_owned())]);
    }
}
