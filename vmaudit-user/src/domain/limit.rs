//! What follows from the limit, the files that set it and what software is said to need.

use crate::domain::recommend::Margin;
use crate::model::limit::{Boot, Fate, Found, Known, Need, OtherFile, Setting};
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
/// VMAs of the largest process.
pub fn advice(
    needs: &[Need],
    measured: Option<u64>,
    running: Option<u64>,
    after_boot: u64,
) -> (Option<u64>, Vec<String>) {
    // What a program checks is needed; what is merely said about it is shown and weighed by people.
    let measured = measured.map(|vmas| Margin::default().limit_for(vmas));
    let demanded = needs.iter().filter_map(|need| match need.found {
        Found::Named => need.vmas,
        _ => need.known.enforced,
    });
    let wanted = demanded.chain(measured).max().filter(|&wanted| running.is_some_and(|limit| wanted > limit));
    match wanted {
        Some(value) => (Some(value), commands(value)),
        // The running value is enough and does not outlive a boot.
        None => match running.filter(|&limit| limit > after_boot) {
            Some(limit) => (None, commands(limit).split_off(1)),
            None => (None, Vec::new()),
        },
    }
}

fn commands(value: u64) -> Vec<String> {
    vec![
        format!("sysctl -w vm.max_map_count={value}"),
        // Not the name of our own drop-in: `--apply` takes that for its own only if it wrote it.
        format!("echo 'vm.max_map_count = {value}' > /etc/sysctl.d/99-max-map-count.conf"),
        format!("vmaudit limit --apply {value}   # both, checked and with a way back"),
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

/// What software is said to need, against the limit and what is measured.
pub fn sentence(known: &Known, vmas: Option<u64>, measured: Option<u64>, limit: Option<u64>) -> String {
    let mut text = match (vmas, limit) {
        (Some(vmas), Some(limit)) if limit >= vmas => {
            format!("is said to need {}; the limit {} is enough", grouped(vmas), grouped(limit))
        }
        (Some(vmas), Some(limit)) => {
            format!("is said to need {}; the limit {} is lower", grouped(vmas), grouped(limit))
        }
        (Some(vmas), None) => format!("is said to need {}", grouped(vmas)),
        (None, _) => "has no published number that could be applied".to_owned(),
    };
    if let (Some(enforced), Some(limit)) = (known.enforced, limit)
        && limit < enforced
    {
        text.push_str(&format!(", and it refuses to work below {}", grouped(enforced)));
    }
    if let Some(measured) = measured {
        text.push_str(&format!("; measured now: {}", grouped(measured)));
        if let Some(vmas) = vmas.filter(|&vmas| measured > 0 && vmas / measured >= 10) {
            text.push_str(&format!(", 1/{} of that", grouped(vmas / measured)));
        }
    }
    text.push('.');
    text
}
