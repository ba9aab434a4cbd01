//! What follows from the limit, the files that set it and what software is said to need.

use crate::domain::recommend::Margin;
use crate::model::limit::{Boot, Distribution, Fate, Found, Known, Need, OtherFile, Setting};
use crate::text::grouped;

/// What is asked of the survey.
#[derive(Clone, Debug, Default)]
pub struct LimitOptions {
    /// Names of software whose needs are shown, running or not.
    pub software: Vec<String>,
    /// Maximum heap for rules that go by it, bytes.
    pub heap: Option<u64>,
    /// Number of what a rule counts.
    pub items: Option<u64>,
}

/// The value that would satisfy all of it, where the running one does not, and the commands that carry it out. `measured`:
/// VMAs of the largest process. `root`: whoever reads it is.
pub fn advice(
    needs: &[Need],
    measured: Option<u64>,
    running: Option<u64>,
    after_boot: u64,
    root: bool,
) -> (Option<u64>, Vec<String>) {
    // What a program checks is needed; what is merely said about it is shown and weighed by people.
    let measured = measured.map(|vmas| Margin::default().limit_for(vmas));
    let demanded = needs.iter().filter_map(|need| match need.found {
        Found::Named => need.vmas,
        _ => need.known.enforced,
    });
    let wanted = demanded.chain(measured).max().filter(|&wanted| running.is_some_and(|limit| wanted > limit));
    match wanted {
        Some(value) => (Some(value), commands(value, root).into()),
        // The running value is enough and does not outlive a boot.
        None => match running.filter(|&limit| limit > after_boot) {
            Some(limit) => {
                let [apply, _, file] = commands(limit, root);
                (None, vec![apply, file])
            }
            None => (None, Vec::new()),
        },
    }
}

fn commands(value: u64, root: bool) -> [String; 3] {
    let sudo = if root { "" } else { "sudo " };
    [
        format!("{sudo}vmaudit limit --apply {value}"),
        format!("{sudo}sysctl -w vm.max_map_count={value}"),
        // Not the name of our own drop-in: `--apply` takes that for its own only if it wrote it.
        format!("echo 'vm.max_map_count = {value}' | {sudo}tee /etc/sysctl.d/99-max-map-count.conf"),
    ]
}

/// Sentences about values that clash. `otherwise`: what another program than that of this machine's boot would make of the
/// same files.
pub fn warnings(
    boot: &Boot,
    otherwise: &Boot,
    running: Option<u64>,
    after_boot: u64,
    others: &[OtherFile],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let place = |setting: &Setting| format!("{}:{}", setting.file.display(), setting.line);
    if let Some(running) = running
        && running != after_boot
    {
        let source = match boot.winner() {
            Some(winner) => format!("{} sets it", place(winner)),
            None if boot.command_line.is_some() => "the kernel's command line sets it".to_owned(),
            None => "no file sets it, so it is the kernel's default".to_owned(),
        };
        let direction = if after_boot < running { "fall to" } else { "rise to" };
        warnings.push(format!(
            "The next boot will let the limit {direction} {}: {source}, and the running value {} was set in another way.",
            grouped(after_boot),
            grouped(running)
        ));
    }
    if let Some(winner) = boot.winner() {
        if winner.lowers
            && let Some(highest) = boot
                .settings
                .iter()
                .take_while(|setting| *setting != winner)
                .filter(|setting| setting.fate == Fate::Replaced)
                .max_by_key(|setting| setting.value)
        {
            warnings.push(format!(
                "{} lowers the limit: it sets {} after {} set {}.",
                place(winner),
                winner.text,
                place(highest),
                highest.text
            ));
        }
        if winner.value.is_none() {
            warnings.push(format!(
                "{} decides, and the kernel refuses its value {:?}.",
                place(winner),
                winner.text
            ));
        }
    }
    if otherwise.winner().map(|winner| &winner.text) != boot.winner().map(|winner| &winner.text) {
        let says = otherwise.winner().map_or_else(
            || "nothing would set it".to_owned(),
            |winner| format!("{} would win with {}", place(winner), winner.text),
        );
        warnings.push(format!(
            "The boot of this machine uses {}; somebody who runs {} gets another value: {says}.",
            boot.applier.name(),
            otherwise.applier.name()
        ));
    }
    for other in others {
        warnings.push(format!(
            "{}:{} sets {} when its service starts, after the files above.",
            other.file.display(),
            other.line,
            other.text
        ));
    }
    warnings
}

/// What is published about software, against the limit and what is measured: a need only where it is checked or measured.
pub fn sentence(known: &Known, vmas: Option<u64>, measured: Option<u64>, limit: Option<u64>) -> String {
    let mut text = match (known.enforced, limit) {
        (Some(enforced), Some(limit)) if limit < enforced => {
            format!("refuses to work below {}, and the limit is {}", grouped(enforced), grouped(limit))
        }
        _ => match (vmas, limit) {
            (Some(vmas), Some(limit)) if limit >= vmas => {
                format!(
                    "is given {} by those who publish a number; the limit {} is enough",
                    grouped(vmas),
                    grouped(limit)
                )
            }
            (Some(vmas), _) => format!("is given {} by those who publish a number", grouped(vmas)),
            (None, _) => "has no published number that could be applied".to_owned(),
        },
    };
    match (measured, limit) {
        (Some(measured), limit) => {
            text.push_str(&format!("; measured now: {}", grouped(measured)));
            if let Some(vmas) = vmas.filter(|&vmas| measured > 0 && vmas / measured >= 10) {
                text.push_str(&format!(", 1/{} of that", grouped(vmas / measured)));
            }
            match limit {
                Some(limit) if Margin::default().limit_for(measured) > limit => {
                    text.push_str(", too near to the limit");
                }
                Some(_) => text.push_str(", which leaves room"),
                None => {}
            }
        }
        (None, _) => text.push_str("; not measured, because none runs that may be read"),
    }
    text.push('.');
    text
}

/// What distributions ship, as far as somebody has published it: `ID` of /etc/os-release, from which `VERSION_ID` on, name,
/// value, where it is said.
pub const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        id: "fedora",
        from: Some(39),
        name: "Fedora 39",
        ships: 1_048_576,
        source: "https://fedoraproject.org/wiki/Changes/IncreaseVmMaxMapCount",
    },
    Distribution {
        id: "arch",
        from: None,
        name: "Arch (April 2024)",
        ships: 1_048_576,
        source: "https://www.phoronix.com/news/Arch-Linux-vm.max_map_count",
    },
    Distribution {
        id: "debian",
        from: Some(13),
        name: "Debian 13",
        ships: 1_048_576,
        source: "https://github.com/opensearch-project/OpenSearch/issues/21604",
    },
    Distribution {
        id: "nixos",
        from: None,
        name: "NixOS",
        ships: 1_048_576,
        source: "https://github.com/NixOS/nixpkgs/issues/238459",
    },
    Distribution {
        id: "chimera",
        from: None,
        name: "Chimera Linux",
        ships: 1_048_576,
        source: "https://github.com/chimera-linux/cports/issues/2258",
    },
    Distribution {
        id: "steamos",
        from: None,
        name: "SteamOS",
        ships: 2_147_483_642,
        source: "https://github.com/NixOS/nixpkgs/pull/238412",
    },
    Distribution {
        id: "pop",
        from: None,
        name: "Pop!_OS",
        ships: 2_147_483_642,
        source: "https://github.com/pop-os/default-settings/pull/172",
    },
    Distribution {
        id: "batocera",
        from: None,
        name: "Batocera",
        ships: 2_147_483_642,
        source: "https://github.com/batocera-linux/batocera.linux/issues/8649",
    },
];

/// What the distribution of this os-release ships; `None` where nobody has published it.
pub fn shipped(os_release: &str) -> Option<&'static Distribution> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches(['"', '\'']))
    };
    let (id, version) =
        (value("ID")?, value("VERSION_ID").and_then(|it| it.split('.').next()?.parse::<u32>().ok()));
    DISTRIBUTIONS
        .iter()
        .find(|it| it.id == id && it.from.is_none_or(|from| version.is_some_and(|version| version >= from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::requirements;

    #[test]
    fn what_is_said_is_no_need_and_what_is_checked_is_one() {
        let all = requirements::known().unwrap();
        let need = |name: &str, found, measured| {
            let known = requirements::named(&all, name).unwrap();
            let vmas = known.vmas(&requirements::Facts::default());
            let sentence = sentence(known, vmas, measured, Some(65_530));
            Need { known: known.clone(), found, vmas, missing: None, measured, sentence }
        };
        let running = |pid| Found::Running(vec![pid]);
        let redis = need("redis", running(7), Some(122));
        assert_eq!(
            redis.sentence,
            "is given 1,048,576 by those who publish a number; measured now: 122, 1/8,594 of that, which leaves room."
        );
        assert_eq!(advice(&[redis], Some(122), Some(65_530), 65_530, true), (None, Vec::new()));
        let near = need("redis", running(7), Some(60_000));
        assert!(near.sentence.ends_with("1/17 of that, too near to the limit."), "{}", near.sentence);
        let (value, commands) = advice(&[near], Some(60_000), Some(65_530), 65_530, false);
        assert_eq!(value, Some(90_000));
        assert_eq!(commands[0], "sudo vmaudit limit --apply 90000");
        let checked = need("elasticsearch", Found::Installed("/x".into()), None);
        assert!(checked.sentence.starts_with("refuses to work below 262,144"), "{}", checked.sentence);
        assert_eq!(advice(&[checked], None, Some(65_530), 65_530, true).0, Some(262_144));
        let wine = need("wine", Found::Named, None);
        assert!(wine.sentence.starts_with("has no published number"), "{}", wine.sentence);
        assert_eq!(advice(&[wine], None, Some(65_530), 65_530, true).0, None);
        let kept = advice(&[], Some(122), Some(262_144), 65_530, true).1;
        assert_eq!(kept[0], "vmaudit limit --apply 262144");
    }

    #[test]
    fn distributions_are_known_from_a_version_on() {
        for (text, ships) in [
            ("ID=fedora\nVERSION_ID=40\n", Some(1_048_576)),
            ("ID=fedora\nVERSION_ID=38\n", None),
            ("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13.1\"\nID=debian\n", Some(1_048_576)),
            ("VERSION_ID=\"12\"\nID=debian\n", None),
            ("ID=arch\n", Some(1_048_576)),
            ("ID=ubuntu\nVERSION_ID=\"24.04\"\n", None),
            ("ID='steamos'\n", Some(2_147_483_642)),
            ("", None),
        ] {
            assert_eq!(shipped(text).map(|it| it.ships), ships, "{text}");
        }
        assert!(DISTRIBUTIONS.iter().all(|it| it.source.starts_with("https://")));
    }
}
