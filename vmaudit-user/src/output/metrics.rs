//! The page of an exporter.

use crate::model::cause::Cause;
use crate::model::exposed::{END_NOT_SEEN, EXITED, EXITED_WITH_ERROR, Exposed, GroupFigures, RefusalKind};
use crate::model::loss::LossReason;
use crate::model::report::SourceKind;
pub use crate::output::exposition::Exposition;
use crate::output::exposition::{Kind, Page};

/// Calls that the limit refuses most often, and their errno: 0 from the start, because a rule on an increase needs a
/// beginning.
const REFUSED_MOST: [&str; 3] = ["mmap", "munmap", "mprotect"];
/// Ends that are 0 from the start, likewise.
const ENDS: [&str; 7] =
    [EXITED, EXITED_WITH_ERROR, "killed_by", "oom_cgroup", "oom_global", "unknown", END_NOT_SEEN];

/// Renders it.
pub fn page(exposed: &Exposed<'_>, exposition: Exposition) -> String {
    let mut page = Page::new(exposition);
    if let Some(limit) = exposed.limit {
        let help = "vm.max_map_count: VMAs that a process may have.";
        page.family("vmaudit_memory_map_areas_limit", Kind::Gauge, help);
        page.sample(&[], limit);
    }
    counts(&mut page, exposed);
    exactness(&mut page, exposed);
    if exposed.sight.calls() {
        refusals(&mut page, exposed);
    }
    if exposed.sight.ends {
        ends(&mut page, exposed);
    }
    let help = "What was not seen, by reason.";
    page.family("vmaudit_events_lost_total", Kind::Counter, help);
    for reason in LossReason::ALL {
        page.sample(&[("reason", reason.name())], exposed.lost.get(&reason).copied().unwrap_or(0));
    }
    session(&mut page, exposed);
    page.finish()
}

fn counts(page: &mut Page, exposed: &Exposed<'_>) {
    let (now, peak) = match exposed.source {
        SourceKind::Ebpf => (
            "VMAs of the process of the group that has most now.",
            "Largest number of VMAs that a process of the group had since vmaudit began; also of processes that ended.",
        ),
        SourceKind::Proc => (
            "VMAs of the process of the group that has most now; a sample from /proc.",
            "Largest number of VMAs seen of a process of the group: samples from /proc, the true peak may be higher.",
        ),
    };
    page.family("vmaudit_process_memory_map_areas", Kind::Gauge, now);
    for (group, figures) in &exposed.groups {
        if let Some(count) = figures.now {
            page.sample(&[("group", group)], count);
        }
    }
    page.family("vmaudit_process_memory_map_areas_peak", Kind::Gauge, peak);
    for (group, figures) in &exposed.groups {
        if let Some(count) = figures.peak {
            page.sample(&[("group", group)], count);
        }
    }
    if exposed.source == SourceKind::Ebpf {
        let help = "Largest number of VMAs that a process of the group had in the last whole minute; also of processes that ended.";
        page.family("vmaudit_process_memory_map_areas_minute_peak", Kind::Gauge, help);
        for (group, figures) in &exposed.groups {
            if let Some(count) = figures.minute {
                page.sample(&[("group", group)], count);
            }
        }
    }
    let help = "VMAs a second by which a process of the group grows steadily, the fastest; 0: none does.";
    page.family("vmaudit_process_memory_map_areas_growth", Kind::Gauge, help);
    for (group, figures) in &exposed.groups {
        if let Some(rate) = figures.growth {
            page.sample(&[("group", group)], rate);
        }
    }
}

/// "Exact or labelled", group by group.
fn exactness(page: &mut Page, exposed: &Exposed<'_>) {
    let help = "1: the group's peak is the true one; 0: it may have been higher.";
    page.family("vmaudit_process_memory_map_areas_peak_exact", Kind::Gauge, help);
    for (group, figures) in exposed.groups.iter().filter(|(_, figures)| figures.peak.is_some()) {
        page.sample(&[("group", group)], u8::from(!figures.peak_doubtful));
    }
}

fn refusals(page: &mut Page, exposed: &Exposed<'_>) {
    let sample = |page: &mut Page, group: &str, kind: &RefusalKind, count: u64| {
        let RefusalKind { syscall, errno, cause } = kind;
        let labels = [("group", group), ("syscall", syscall), ("errno", errno), ("cause", cause.name())];
        page.sample(&labels, count);
    };
    let help = "Memory calls that were refused, and the caller did not get the like in its next calls.";
    page.family("vmaudit_memory_syscall_failures_total", Kind::Counter, help);
    for (group, GroupFigures { refused, .. }) in &exposed.groups {
        for syscall in REFUSED_MOST {
            let kind = RefusalKind {
                syscall: syscall.to_owned(),
                errno: "ENOMEM".to_owned(),
                cause: Cause::MaxMapCount,
            };
            if !refused.contains_key(&kind) {
                sample(page, group, &kind, 0);
            }
        }
        refused.iter().for_each(|(kind, count)| sample(page, group, kind, *count));
    }
    let help = "Memory calls that were refused, and the caller got the like in its next calls.";
    page.family("vmaudit_memory_syscall_failures_recovered_total", Kind::Counter, help);
    for (group, GroupFigures { recovered, .. }) in &exposed.groups {
        recovered.iter().for_each(|(kind, count)| sample(page, group, kind, *count));
    }
}

fn ends(page: &mut Page, exposed: &Exposed<'_>) {
    page.family("vmaudit_process_ends_total", Kind::Counter, "Processes that ended, by cause.");
    for (group, GroupFigures { ends, .. }) in &exposed.groups {
        for cause in ENDS {
            page.sample(&[("group", group), ("cause", cause)], ends.get(cause).copied().unwrap_or(0));
        }
        for (cause, count) in ends.iter().filter(|(cause, _)| !ENDS.contains(cause)) {
            page.sample(&[("group", group), ("cause", cause)], count);
        }
    }
}

fn session(page: &mut Page, exposed: &Exposed<'_>) {
    let mut one = |name, kind, help: &str, value: i64| {
        page.family(name, kind, help);
        page.sample(&[], value);
    };
    let bounded = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    one(
        "vmaudit_processes_without_group_total",
        Kind::Counter,
        "Processes that are counted in the group other, because there were too many groups.",
        bounded(exposed.processes_in_other),
    );
    one(
        "vmaudit_groups_retired_total",
        Kind::Counter,
        "Groups whose processes had ended long ago and that were added to the group other to make room.",
        bounded(exposed.groups_retired),
    );
    one(
        "vmaudit_session_start_time_seconds",
        Kind::Gauge,
        "When vmaudit began to watch, seconds since 1970.",
        exposed.started_s,
    );
    one(
        "vmaudit_session_peaks_exact",
        Kind::Gauge,
        "1: every peak since vmaudit began is the true one, and no process is missing; 0: else.",
        exposed.exact_peaks.into(),
    );
    if let Some(since) = exposed.peaks_exact_since_s {
        one(
            "vmaudit_session_peaks_exact_since_time_seconds",
            Kind::Gauge,
            "Since when nothing is missing that a peak rests on, seconds since 1970: the time of the look that found something missing, or of the start.",
            since,
        );
    }
    one(
        "vmaudit_session_refusals_by_limit_exact",
        Kind::Gauge,
        "1: every call that vm.max_map_count refused since vmaudit began was seen; 0: else.",
        exposed.exact_limit_calls.into(),
    );
    if let Some(since) = exposed.limit_calls_exact_since_s {
        one(
            "vmaudit_session_refusals_by_limit_exact_since_time_seconds",
            Kind::Gauge,
            "Since when every call that vm.max_map_count refused was seen, seconds since 1970: the time of the look that found something missing, or of the start.",
            since,
        );
    }
    page.family("vmaudit_source_info", Kind::Gauge, "Where the figures come from.");
    let source = match exposed.source {
        SourceKind::Ebpf => "ebpf",
        SourceKind::Proc => "proc",
    };
    page.sample(&[("source", source)], 1);
    page.family("vmaudit_build_info", Kind::Gauge, "The vmaudit that measures.");
    page.sample(&[("version", exposed.version)], 1);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::end::EndCause;
    use crate::model::session::Sight;

    fn figures() -> (GroupFigures, BTreeMap<LossReason, u64>) {
        let kind = RefusalKind { syscall: "brk".into(), errno: "ENOMEM".into(), cause: Cause::RlimitData };
        let figures = GroupFigures {
            now: Some(7),
            peak: Some(9),
            minute: Some(8),
            growth: Some(2.5),
            ended_in: BTreeMap::new(),
            peak_doubtful: true,
            refused: BTreeMap::from([(kind.clone(), 3)]),
            recovered: BTreeMap::from([(kind, 1)]),
            ends: BTreeMap::from([(EXITED, 2), (EndCause::CpuLimit.name(), 1)]),
        };
        (figures, BTreeMap::from([(LossReason::RingFull, 4)]))
    }

    fn exposed<'a>(
        groups: Vec<(&'a str, &'a GroupFigures)>,
        lost: &'a BTreeMap<LossReason, u64>,
        source: SourceKind,
    ) -> Exposed<'a> {
        let all = source == SourceKind::Ebpf;
        Exposed {
            version: "1.2.3",
            source,
            sight: Sight { changes: all, exits: all, locking: false, ends: all },
            started_s: 1_800_000_000,
            limit: Some(65_530),
            groups,
            processes_in_other: 5,
            groups_retired: 6,
            exact_peaks: all,
            peaks_exact_since_s: all.then_some(1_800_000_060),
            exact_limit_calls: all,
            limit_calls_exact_since_s: all.then_some(1_800_000_000),
            lost,
        }
    }

    #[test]
    fn pages() {
        let (one, lost) = figures();
        let none = GroupFigures::default();
        let hostile = "x\"} 1\n# TYPE y counter\\";
        let groups = vec![("a.service", &one), (hostile, &none)];
        let ebpf = exposed(groups, &lost, SourceKind::Ebpf);
        insta::assert_snapshot!("page as text", page(&ebpf, Exposition::Text));
        insta::assert_snapshot!("page as OpenMetrics", page(&ebpf, Exposition::OpenMetrics));
        let proc = exposed(vec![("a", &one)], &lost, SourceKind::Proc);
        insta::assert_snapshot!("page of samples", page(&proc, Exposition::Text));
    }

    #[test]
    fn ends_that_begin_at_0_are_ends() {
        let causes = [EndCause::KilledBy, EndCause::OomCgroup, EndCause::OomGlobal, EndCause::Unknown];
        let names: BTreeSet<&str> = causes
            .iter()
            .map(|cause| cause.name())
            .chain([EXITED, EXITED_WITH_ERROR, END_NOT_SEEN])
            .collect();
        assert_eq!(names, ENDS.into_iter().collect());
    }

    /// Whatever begins with vmaudit_ in what is shipped beside is a name of the page.
    #[test]
    fn rules_and_dashboard_name_only_what_exists() {
        let (one, lost) = figures();
        let text = page(&exposed(vec![("a", &one)], &lost, SourceKind::Ebpf), Exposition::Text);
        let known: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for (file, text) in [
            ("vmaudit.rules.yml", include_str!("../../packaging/prometheus/vmaudit.rules.yml")),
            ("vmaudit.rules.test.yml", include_str!("../../packaging/prometheus/vmaudit.rules.test.yml")),
            ("vmaudit.dashboard.json", include_str!("../../packaging/grafana/vmaudit.dashboard.json")),
        ] {
            let named: BTreeSet<&str> =
                text.split(|c| !is_part(c)).filter(|word| word.starts_with("vmaudit_")).collect();
            assert!(named.len() > 4, "{file}: {named:?}");
            let strange: Vec<_> = named.difference(&known).collect();
            assert!(strange.is_empty(), "{file}: {strange:?}");
            for name in
                ["minute_peak", "growth"].map(|what| format!("vmaudit_process_memory_map_areas_{what}"))
            {
                assert!(named.contains(name.as_str()), "{file} has no use for {name}");
            }
        }
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../packaging/grafana/vmaudit.dashboard.json"))
                .expect("a dashboard in JSON");
        assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() >= 6), "panels");
    }

    /// Whoever is woken by an alert finds what to do behind its link.
    #[test]
    fn each_alert_leads_to_its_place_in_the_readme() {
        let rules = include_str!("../../packaging/prometheus/vmaudit.rules.yml");
        let readme = include_str!("../../../README.md");
        let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
        assert!(alerts.len() >= 7, "{}", alerts.len());
        for alert in alerts {
            let name = alert.lines().next().unwrap_or_default();
            let links = alert.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: "));
            let [link] = links.collect::<Vec<_>>()[..] else { panic!("{name} has not one runbook_url") };
            let (page, anchor) = link.trim_matches('"').split_once('#').expect("a place in a page");
            assert_eq!(page, env!("CARGO_PKG_REPOSITORY"), "{name}");
            assert!(
                readme.contains(&format!("<a id=\"{anchor}\"></a>")),
                "{name}: no {anchor} in the README"
            );
        }
    }
}
