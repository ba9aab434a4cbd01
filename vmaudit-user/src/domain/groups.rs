//! Figures of processes by group, as an exporter shows them: counts that only grow, in bounded memory, for months.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;

use crate::domain::audit::Standing;
use crate::model::event::ProcessId;
use crate::model::exposed::{GroupFigures, OTHER, RefusalKind, end_name};
use crate::model::report::{Failure, Outcome, Process};
use crate::text::shorten;

/// Groups with a name of their own; further processes are [`OTHER`].
pub const GROUPS: usize = 1000;
/// A group that has had no process for so long may give its place to another: whoever asks every few minutes has seen its
/// last figures.
const RETIRES_AFTER_NS: u64 = 10 * 60 * 1_000_000_000;
/// Bytes of a group's name.
const LONGEST_NAME: usize = 256;

/// What makes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The systemd unit, else the container, else the application.
    Unit,
    /// The container, else as above.
    Container,
    /// The Kubernetes pod, else as the unit.
    Pod,
    /// The application: the executable's name.
    App,
    /// The executable's path.
    Exe,
    /// The owner.
    User,
    /// Each process by itself.
    Pid,
}

impl GroupBy {
    /// Names that can be asked for.
    pub const NAMES: [&str; 7] = ["unit", "container", "pod", "app", "exe", "user", "pid"];

    /// The group of a process; `name`: of its owner, or of its pod, where these are groups.
    pub fn group(self, row: &Process, name: Option<&str>) -> String {
        let named =
            |name: &Option<String>| name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned);
        let app = || named(&row.app).unwrap_or_else(|| row.comm.clone());
        let unit = || named(&row.unit).or_else(|| named(&row.container)).unwrap_or_else(app);
        let mut name = match self {
            Self::Unit => unit(),
            Self::Pod => named(&row.pod).map_or_else(unit, |uid| name.map_or(uid, str::to_owned)),
            Self::Container => named(&row.container).or_else(|| named(&row.unit)).unwrap_or_else(app),
            Self::App => app(),
            Self::Exe => named(&row.exe).unwrap_or_else(|| row.comm.clone()),
            Self::User => {
                let number = || row.uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
                name.map_or_else(number, str::to_owned)
            }
            Self::Pid => format!("{} {}", row.comm, row.pid),
        };
        shorten(&mut name, LONGEST_NAME);
        name
    }
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "unit" => Self::Unit,
            "container" => Self::Container,
            "pod" => Self::Pod,
            "app" => Self::App,
            "exe" => Self::Exe,
            "user" => Self::User,
            "pid" => Self::Pid,
            _ => return Err(format!("write one of {}", Self::NAMES.join(", "))),
        })
    }
}

/// What has been counted of the refused calls of a process that lives.
#[derive(Debug, Default)]
struct Counted {
    /// As they were at the last look, by kind and what became of it.
    seen: BTreeMap<(Outcome, RefusalKind), u64>,
    /// Counted of each call.
    all: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Group {
    figures: GroupFigures,
    /// When somebody of it was last there, CLOCK_MONOTONIC ns.
    last_ns: u64,
}

/// All groups.
#[derive(Debug)]
pub struct Groups {
    most: usize,
    named: BTreeMap<String, Group>,
    other: Option<GroupFigures>,
    counted: HashMap<ProcessId, Counted>,
    /// Living processes that are in `other` for want of room.
    without: HashSet<ProcessId>,
    processes_in_other: u64,
    retired: u64,
    /// Of those that are there, and of those that have ended.
    exact_peaks: [bool; 2],
    /// See [`Groups::minute`].
    minute: u64,
    /// Living processes whose peak is not exact.
    doubtful: HashSet<ProcessId>,
    newly_doubtful: bool,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new(GROUPS)
    }
}

impl Groups {
    /// None yet; at most `most` with a name.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            named: BTreeMap::new(),
            other: None,
            counted: HashMap::new(),
            without: HashSet::new(),
            processes_in_other: 0,
            retired: 0,
            exact_peaks: [true; 2],
            minute: 0,
            doubtful: HashSet::new(),
            newly_doubtful: false,
        }
    }

    /// The minute that runs is the one with this number: its predecessor's peaks are shown.
    pub fn minute(&mut self, number: u64) {
        self.minute = number;
        let groups = self.named.values_mut().map(|group| &mut group.figures).chain(self.other.as_mut());
        for figures in groups {
            figures.ended_in.retain(|minute, _| minute + 1 >= number);
            figures.minute = number.checked_sub(1).and_then(|minute| figures.ended_in.get(&minute)).copied();
        }
    }

    /// The processes that are known now, each with its group, as of `now_ns` (CLOCK_MONOTONIC).
    pub fn stand(&mut self, processes: impl Iterator<Item = (String, Standing)>, now_ns: u64) {
        let groups = self.named.values_mut().map(|group| &mut group.figures).chain(self.other.as_mut());
        groups.for_each(|figures| (figures.now, figures.growth) = (None, None));
        self.exact_peaks[0] = true;
        for (name, standing) in processes {
            self.take(&name, &standing, false, now_ns);
        }
    }

    /// A process is over, and nothing more will come of it.
    pub fn ended(&mut self, name: &str, standing: &Standing, ends: bool, now_ns: u64) {
        self.take(name, standing, true, now_ns);
        if ends {
            let figures = self.figures(name, standing.id, now_ns);
            *figures.ends.entry(end_name(standing.row.end.as_ref())).or_default() += 1;
        }
        self.counted.remove(&standing.id);
        self.doubtful.remove(&standing.id);
        self.without.remove(&standing.id);
    }

    fn take(&mut self, name: &str, standing: &Standing, ended: bool, now_ns: u64) {
        let count = &standing.row.map_count;
        let grown = self.grown(standing);
        let exact = count.exact || count.peak.is_none();
        let minute = self.minute;
        self.exact_peaks[usize::from(ended)] &= exact;
        if !exact {
            self.newly_doubtful |= self.doubtful.insert(standing.id);
        }
        let figures = self.figures(name, standing.id, now_ns);
        figures.peak = figures.peak.max(count.peak);
        figures.peak_doubtful |= !exact;
        if !ended && standing.row.ended_s.is_none() {
            figures.now = figures.now.max(count.last);
            let steady = standing.row.growth.map(|growth| if growth.goes_on() { growth.per_s } else { 0.0 });
            figures.growth = figures.growth.into_iter().chain(steady).reduce(f64::max);
        }
        for (number, peak) in standing.minutes {
            if number + 1 == minute {
                figures.minute = figures.minute.max(peak);
            }
            if let Some(peak) = peak.filter(|_| ended) {
                let most = figures.ended_in.entry(number).or_default();
                *most = peak.max(*most);
            }
        }
        for ((outcome, kind), more) in grown {
            let into = match outcome {
                Outcome::Unrecovered => &mut figures.refused,
                Outcome::Recovered => &mut figures.recovered,
                Outcome::Ordinary => continue,
            };
            let sum = into.entry(kind).or_default();
            *sum = sum.saturating_add(more);
        }
    }

    /// Refused calls since the last time. What is made of one can change later, when more is known; then it stays where it
    /// was counted: a count that falls would be a restart to whoever reads it, and none may count twice.
    fn grown(&mut self, standing: &Standing) -> Vec<((Outcome, RefusalKind), u64)> {
        if standing.refused.is_empty() {
            return Vec::new();
        }
        let counted = self.counted.entry(standing.id).or_default();
        let mut now: BTreeMap<(Outcome, RefusalKind), u64> = BTreeMap::new();
        // By call: errno and cause of one may become known later.
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (outcome, Failure { syscall, errno, cause, count, .. }) in &standing.refused {
            let kind = RefusalKind { syscall: syscall.clone(), errno: errno.clone(), cause: *cause };
            let sum = now.entry((*outcome, kind)).or_default();
            *sum = sum.saturating_add(*count);
            let sum = all.entry(syscall.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        let mut grown = Vec::new();
        for (key, count) in &now {
            let before = counted.seen.get(key).copied().unwrap_or(0);
            let sum = counted.all.entry(key.1.syscall.clone()).or_default();
            let room = all.get(&key.1.syscall).map_or(0, |all| all.saturating_sub(*sum));
            let more = count.saturating_sub(before).min(room);
            *sum += more;
            if more > 0 {
                grown.push((key.clone(), more));
            }
        }
        counted.seen = now;
        grown
    }

    fn figures(&mut self, name: &str, id: ProcessId, now_ns: u64) -> &mut GroupFigures {
        let known = self.named.contains_key(name);
        let has_room = known || name != OTHER && !self.without.contains(&id) && self.make_room(now_ns);
        if has_room {
            let group = self.named.entry(name.to_owned()).or_default();
            group.last_ns = now_ns;
            return &mut group.figures;
        }
        if name != OTHER && self.without.insert(id) {
            self.processes_in_other += 1;
        }
        self.other.get_or_insert_default()
    }

    /// There is room for one more, perhaps because the group that ended longest ago has gone.
    fn make_room(&mut self, now_ns: u64) -> bool {
        if self.named.len() < self.most {
            return true;
        }
        let oldest = self.named.iter().min_by_key(|(_, group)| group.last_ns);
        let oldest = oldest.filter(|(_, group)| group.last_ns.saturating_add(RETIRES_AFTER_NS) <= now_ns);
        let Some((name, _)) = oldest else { return false };
        let name = name.clone();
        let Some(Group { figures, .. }) = self.named.remove(&name) else { return false };
        self.retired += 1;
        let other = self.other.get_or_insert_default();
        other.peak = other.peak.max(figures.peak);
        other.minute = other.minute.max(figures.minute);
        for (minute, peak) in figures.ended_in {
            let most = other.ended_in.entry(minute).or_default();
            *most = peak.max(*most);
        }
        other.peak_doubtful |= figures.peak_doubtful;
        let pairs = [(&mut other.refused, figures.refused), (&mut other.recovered, figures.recovered)];
        for (sums, its) in pairs {
            for (kind, count) in its {
                let sum = sums.entry(kind).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        for (end, count) in figures.ends {
            *other.ends.entry(end).or_default() += count;
        }
        true
    }

    /// All, by name.
    pub fn all(&self) -> Vec<(&str, &GroupFigures)> {
        let named = self.named.iter().map(|(name, group)| (name.as_str(), &group.figures));
        named.chain(self.other.as_ref().map(|figures| (OTHER, figures))).collect()
    }

    /// Processes that were counted in [`OTHER`] for want of room.
    pub fn processes_in_other(&self) -> u64 {
        self.processes_in_other
    }

    /// Groups that were added to [`OTHER`] to make room.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// The peak of a process has become doubtful since this was last asked.
    pub fn newly_doubtful(&mut self) -> bool {
        std::mem::take(&mut self.newly_doubtful)
    }

    /// Every peak that was told is the true one, of those that ended too.
    pub fn exact_peaks(&self) -> bool {
        self.exact_peaks == [true; 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{Cause, MapCount};

    fn row(pid: u32) -> Process {
        Process {
            pid,
            ppid: None,
            comm: "x".into(),
            exe: None,
            app: None,
            cgroup: None,
            uid: None,
            user: None,
            args: None,
            test: None,
            unit: None,
            container: None,
            pod: None,
            since: None,
            started_s: None,
            ended_s: None,
            map_count: MapCount::default(),
            images: Vec::new(),
            images_folded: 0,
            calls: BTreeMap::new(),
            unmap_leaked_bytes: None,
            unmap_leaked_bound: None,
            series: None,
            growth: None,
            memory: None,
            end: None,
            makers: Vec::new(),
            layout: None,
            changes: Vec::new(),
            unreadable: None,
            shares_address_space_of: None,
            tasks: Vec::new(),
        }
    }

    fn failure(cause: Cause, count: u64) -> Failure {
        Failure {
            outcome: Outcome::Unrecovered,
            sites: Vec::new(),
            elsewhere: 0,
            pid: 1,
            started_s: None,
            comm: "x".into(),
            syscall: "mmap".into(),
            errno: "ENOMEM".into(),
            cause,
            certain: true,
            count,
            processes: 1,
            various: false,
            first_at_s: None,
            last_at_s: None,
            example: None,
            evidence: BTreeMap::new(),
            sentence: String::new(),
            cure: None,
            holders: None,
            address_space_of: None,
        }
    }

    fn standing(pid: u32, peak: u64, refused: &[(Outcome, Cause, u64)]) -> Standing {
        let mut row = row(pid);
        (row.map_count.last, row.map_count.peak, row.map_count.exact) = (Some(peak - 1), Some(peak), true);
        let refused = refused.iter().map(|(outcome, cause, count)| (*outcome, failure(*cause, *count)));
        let (id, refused) = (ProcessId { tgid: pid, start_ns: 1 }, refused.collect());
        Standing { id, row, refused, minutes: [(6, Some(peak / 2)), (7, Some(peak))] }
    }

    fn refused(groups: &Groups, group: &str) -> Vec<(Cause, u64)> {
        let all = groups.all();
        let (_, figures) = all.iter().find(|(name, _)| *name == group).expect("the group");
        figures.refused.iter().map(|(kind, count)| (kind.cause, *count)).collect()
    }

    fn at(minutes: u64) -> u64 {
        minutes * 60_000_000_000
    }

    #[test]
    fn who_came_and_went_stays_in_the_peak_and_not_in_the_count() {
        let mut groups = Groups::default();
        groups.stand([("a".to_owned(), standing(1, 100, &[]))].into_iter(), 1);
        let mut gone = standing(2, 900, &[]);
        gone.row.ended_s = Some(1.0);
        groups.ended("a", &gone, true, 2);
        groups.stand([("a".to_owned(), standing(1, 100, &[]))].into_iter(), 3);
        let all = groups.all();
        assert_eq!((all[0].1.now, all[0].1.peak), (Some(99), Some(900)));
        assert_eq!(all[0].1.ends, BTreeMap::from([("not_seen", 1)]));
        groups.stand(std::iter::empty(), 4);
        assert_eq!((groups.all()[0].1.now, groups.all()[0].1.peak), (None, Some(900)));
    }

    #[test]
    fn peaks_of_a_minute_are_shown_for_a_minute_also_of_those_that_ended() {
        let mut groups = Groups::default();
        let look = |groups: &mut Groups, minute: u64, living: Option<Standing>| {
            groups.minute(minute);
            groups.stand(living.map(|it| ("a".to_owned(), it)).into_iter(), 1);
            groups.all().first().and_then(|(_, figures)| figures.minute)
        };
        groups.ended("a", &standing(1, 900, &[]), true, 1);
        assert_eq!(look(&mut groups, 7, None), Some(450));
        assert_eq!(look(&mut groups, 7, Some(standing(2, 980, &[]))), Some(490), "whoever asks");
        assert_eq!(look(&mut groups, 7, Some(standing(2, 980, &[]))), Some(490), "whoever else asks");
        assert_eq!(look(&mut groups, 8, None), Some(900));
        assert_eq!(look(&mut groups, 9, None), None);
    }

    #[test]
    fn growth_is_that_of_the_one_that_grows_fastest() {
        use crate::model::report::Growth;
        let mut groups = Groups::default();
        let grows = |pid, steady, per_s| {
            let mut standing = standing(pid, 100, &[]);
            let growth = Growth { per_s, steady, over_s: None, reaches_limit_in_s: None };
            standing.row.growth = Some(growth);
            ("a".to_owned(), standing)
        };
        groups.stand([grows(1, true, 3.0), grows(2, true, 7.0), grows(3, false, 99.0)].into_iter(), 1);
        assert_eq!(groups.all()[0].1.growth, Some(7.0));
        groups.stand([grows(3, false, 99.0)].into_iter(), 2);
        assert_eq!(groups.all()[0].1.growth, Some(0.0));
        let (name, mut stopped) = grows(4, true, 8870.0);
        stopped.row.growth.as_mut().unwrap().reaches_limit_in_s = Some(0.0);
        groups.stand([(name, stopped)].into_iter(), 2);
        assert_eq!(groups.all()[0].1.growth, Some(0.0), "the limit has ended it");
        groups.stand(std::iter::empty(), 3);
        assert_eq!(groups.all()[0].1.growth, None);
    }

    #[test]
    fn a_pod_has_its_name_where_somebody_knows_it() {
        let mut row = row(1);
        row.unit = Some("cri-1.scope".into());
        assert_eq!(GroupBy::Pod.group(&row, Some("web/nginx")), "cri-1.scope");
        row.pod = Some("12345678".into());
        assert_eq!(GroupBy::Pod.group(&row, Some("web/nginx")), "web/nginx");
        assert_eq!(GroupBy::Pod.group(&row, None), "12345678");
    }

    #[test]
    fn a_refusal_counts_once_whatever_is_made_of_it_later() {
        use Outcome::{Ordinary, Recovered, Unrecovered};
        let mut groups = Groups::default();
        let mut look = |refused: &[(Outcome, Cause, u64)]| {
            groups.stand([("a".to_owned(), standing(1, 9, refused))].into_iter(), 1);
        };
        look(&[(Unrecovered, Cause::Unknown, 3)]);
        // Its details came later.
        look(&[(Unrecovered, Cause::MaxMapCount, 3)]);
        look(&[(Unrecovered, Cause::MaxMapCount, 5)]);
        look(&[(Unrecovered, Cause::MaxMapCount, 5), (Recovered, Cause::MaxMapCount, 2)]);
        look(&[(Recovered, Cause::MaxMapCount, 7)]);
        look(&[(Recovered, Cause::MaxMapCount, 7), (Ordinary, Cause::RlimitAs, 9)]);
        assert_eq!(refused(&groups, "a"), [(Cause::MaxMapCount, 2), (Cause::Unknown, 3)]);
        let recovered: u64 = groups.all()[0].1.recovered.values().sum();
        assert_eq!(recovered, 2);
        // A new process begins anew.
        groups.ended("a", &standing(1, 9, &[(Recovered, Cause::MaxMapCount, 7)]), true, 1);
        let other = Standing {
            id: ProcessId { tgid: 1, start_ns: 2 },
            ..standing(1, 9, &[(Unrecovered, Cause::Unknown, 1)])
        };
        groups.stand([("a".to_owned(), other)].into_iter(), 2);
        assert_eq!(refused(&groups, "a"), [(Cause::MaxMapCount, 2), (Cause::Unknown, 4)]);
    }

    #[test]
    fn groups_are_bounded_and_no_count_is_lost() {
        let mut groups = Groups::new(2);
        let one = |pid, count| {
            standing(pid, u64::from(pid) + 10, &[(Outcome::Unrecovered, Cause::MaxMapCount, count)])
        };
        groups.ended("a", &one(1, 1), true, at(0));
        groups.stand([("b".to_owned(), one(2, 2))].into_iter(), at(1));
        groups.stand([("b".to_owned(), one(2, 2)), ("c".to_owned(), one(3, 4))].into_iter(), at(9));
        // No room, and its place does not change while it lives.
        assert_eq!(refused(&groups, "other"), [(Cause::MaxMapCount, 4)]);
        groups.stand([("b".to_owned(), one(2, 2)), ("c".to_owned(), one(3, 8))].into_iter(), at(20));
        assert_eq!(
            (refused(&groups, "other"), groups.processes_in_other()),
            (vec![(Cause::MaxMapCount, 8)], 1)
        );
        // `a` is long gone, `b` is not.
        groups.stand([("b".to_owned(), one(2, 2)), ("d".to_owned(), one(4, 16))].into_iter(), at(20));
        let names: Vec<&str> = groups.all().iter().map(|(name, _)| *name).collect();
        assert_eq!((names, groups.retired()), (vec!["b", "d", "other"], 1));
        assert_eq!(refused(&groups, "other"), [(Cause::MaxMapCount, 9)]);
        // A stranger that calls itself so has no group of its own.
        groups.ended("other", &one(5, 1), true, at(60));
        assert_eq!(
            (refused(&groups, "other"), groups.processes_in_other()),
            (vec![(Cause::MaxMapCount, 10)], 1)
        );
    }

    #[test]
    fn a_group_is_the_unit_else_the_container_else_the_application() {
        let mut row = Process { comm: "c".into(), uid: Some(5), ..row(7) };
        assert_eq!(GroupBy::Unit.group(&row, None), "c");
        row.app = Some("app".into());
        row.exe = Some("/bin/app".into());
        assert_eq!(GroupBy::Unit.group(&row, None), "app");
        row.container = Some("3f2a".into());
        assert_eq!(GroupBy::Unit.group(&row, None), "3f2a");
        row.unit = Some("a.service".into());
        assert_eq!(GroupBy::Unit.group(&row, None), "a.service");
        assert_eq!(GroupBy::Container.group(&row, None), "3f2a");
        assert_eq!(GroupBy::Exe.group(&row, None), "/bin/app");
        assert_eq!(
            (GroupBy::User.group(&row, Some("u")), GroupBy::User.group(&row, None)),
            ("u".into(), "5".into())
        );
        assert_eq!(GroupBy::Pid.group(&row, None), "c 7");
        row.comm = "é".repeat(300);
        assert_eq!(GroupBy::Pid.group(&row, None).len(), LONGEST_NAME);
        for name in GroupBy::NAMES {
            assert!(name.parse::<GroupBy>().is_ok(), "{name}");
        }
    }
}
