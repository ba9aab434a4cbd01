//! Processes by name, for whoever does not know their number.

use crate::domain::application::{Anonymizer, application, arguments};
use crate::domain::cgroup::Groups;
use crate::domain::unit::unit;
use crate::os::apart::{self, Patience};
use crate::os::procfs::{CountBuffer, Handle, Proc};
use crate::os::rights;

/// A process of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its number.
    pub pid: u32,
    /// What it is called: its application.
    pub app: String,
    /// The systemd unit, or the last part of its cgroup; `None` when it has none.
    pub unit: Option<String>,
    /// VMAs; `None` when they may not be counted.
    pub vmas: Option<u64>,
}

/// Names of one process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Named {
    comm: String,
    app: String,
    exe: Option<String>,
    unit: Option<String>,
    kernel_thread: bool,
}

/// Processes that are called `name`: by the kernel's name, the executable or the application, whole and without its
/// folder; if none is, those whose names or unit contain it. Most VMAs first. Errors: /proc cannot be read.
pub fn find(name: &str, anonymizer: &Anonymizer) -> anyhow::Result<Vec<Match>> {
    let proc = &Proc::new("/proc");
    let own = std::process::id();
    let _rights = rights::raised(&rights::PROCESSES);
    let pids: Vec<u32> = proc.pids()?.into_iter().filter(|&pid| pid != own).collect();
    // A command line may block, see `apart`.
    let look = |&pid: &u32, (): &mut (), _: &apart::Beat| {
        let handle = proc.open(pid).ok()?;
        let stat = handle.stat().ok()?;
        let exe = handle.exe();
        let arguments = arguments(&handle.cmdline().unwrap_or_default());
        Some(Named {
            app: application(exe.as_deref(), &arguments, &stat.comm),
            unit: unit_of(&handle),
            kernel_thread: stat.kernel_thread,
            comm: stat.comm,
            exe,
        })
    };
    let patience = Patience::default();
    let answers = apart::each(&pids, &patience, || (), look);
    let named = pids.iter().zip(answers).filter_map(|(&pid, answer)| {
        let names = answer.unwrap_or_else(|_| by_stat(proc, pid))?;
        (!names.kernel_thread).then_some((pid, names))
    });
    let named: Vec<(u32, Named)> = named.collect();
    let mut found: Vec<&(u32, Named)> = named.iter().filter(|(_, it)| it.is(name)).collect();
    if found.is_empty() {
        found = named.iter().filter(|(_, it)| it.contains(name)).collect();
    }
    let count = |(pid, _): &&(u32, Named), buffer: &mut CountBuffer, _: &apart::Beat| {
        let handle = proc.open(*pid).ok()?;
        handle.count(&handle.stat().ok()?, buffer).ok()
    };
    let counts = apart::each(&found, &patience, CountBuffer::default, count);
    let mut matches: Vec<Match> = found
        .iter()
        .zip(counts)
        .map(|((pid, names), count)| Match {
            pid: *pid,
            app: anonymizer.apply(&names.app).into_owned(),
            unit: names.unit.as_deref().map(|unit| anonymizer.apply(unit).into_owned()),
            vmas: count.ok().flatten(),
        })
        .collect();
    matches.sort_by_key(|it| (std::cmp::Reverse(it.vmas), it.pid));
    Ok(matches)
}

/// One that did not answer: what never blocks.
fn by_stat(proc: &Proc, pid: u32) -> Option<Named> {
    let handle = proc.open(pid).ok()?;
    let stat = handle.stat().ok()?;
    let unit = unit_of(&handle);
    let (comm, kernel_thread) = (stat.comm, stat.kernel_thread);
    Some(Named { app: comm.clone(), comm, exe: None, unit, kernel_thread })
}

fn unit_of(handle: &Handle) -> Option<String> {
    unit(&Groups::parse(&handle.cgroups()?).shown?)
}

impl Named {
    fn is(&self, name: &str) -> bool {
        let file = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        let exe = self.exe.as_deref().map(|exe| file(exe.strip_suffix(" (deleted)").unwrap_or(exe)));
        self.comm == name || file(&self.app) == name || exe.as_deref() == Some(name) || self.unit_is(name)
    }

    fn unit_is(&self, name: &str) -> bool {
        let unit = self.unit.as_deref();
        unit.is_some_and(|unit| unit == name || unit.strip_suffix(".service") == Some(name))
    }

    fn contains(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        [Some(self.comm.as_str()), Some(&self.app), self.unit.as_deref()]
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase().contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_and_parts() {
        let it = Named {
            comm: "java".into(),
            app: "/usr/lib/jvm/bin/java".into(),
            exe: Some("/usr/lib/jvm/bin/java-17 (deleted)".into()),
            unit: Some("searchnode.service".into()),
            kernel_thread: false,
        };
        for name in ["java", "java-17", "searchnode.service", "searchnode"] {
            assert!(it.is(name), "{name}");
        }
        for name in ["jav", "JAVA", "bin", "search"] {
            assert!(!it.is(name), "{name}");
        }
        assert!(it.contains("Search") && it.contains("JVM") && !it.contains("python"));
    }

    #[test]
    fn this_test_is_found_by_its_own_name_when_it_is_another_process() {
        // The process itself is left out, so a child has to stand.
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let found = find("sleep", &Anonymizer::off()).unwrap();
        let _ = child.kill();
        let _ = child.wait();
        let own = found.iter().find(|it| it.pid == child.id()).unwrap();
        assert!(own.vmas.is_some_and(|vmas| vmas > 5), "{own:?}");
        assert!(find("no process is called so: \u{1}", &Anonymizer::off()).unwrap().is_empty());
    }
}
