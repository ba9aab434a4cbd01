//! What the options that choose processes mean.

use anyhow::{Error, anyhow};
use vmaudit_user::domain::cgroup::GroupWanted;
use vmaudit_user::domain::process_filter::{Called, FilePattern, NamePattern, ProcessFilter};
use vmaudit_user::os::users;
use vmaudit_user::session::opening::Whom;
use vmaudit_user::source::process_names::{self, ProcessNamed};
use vmaudit_user::text::clean;

use crate::cli::filters::Filters;

/// All but the processes that are meant by number or name. Errors, as a sentence: no such user, no such pod.
pub fn beside_pids(asked: &Filters) -> anyhow::Result<ProcessFilter> {
    let mut pods = Vec::new();
    for pod in &asked.pod {
        pods.extend(pod.find().map_err(Error::msg)?);
    }
    Ok(ProcessFilter {
        uids: asked.user.iter().map(|name| users::resolve_user(name)).collect::<anyhow::Result<_>>()?,
        comm: asked.comm.iter().map(|name| NamePattern::new(name)).collect(),
        exe: asked.exe.iter().map(|path| FilePattern::new(path)).collect(),
        cgroups: asked.cgroup.clone(),
        units: asked.unit.clone(),
        containers: asked.container.clone(),
        pods,
        ..ProcessFilter::default()
    })
}

/// Whom to watch. Processes by number or name alone are told to the kernel, all else is decided as processes come.
/// Errors, as a sentence: nobody bears the name, and what [`beside_pids`] says.
pub fn whom(asked: &Filters, waits: bool) -> anyhow::Result<Whom> {
    let filter = beside_pids(asked)?;
    if !filter.asks() && !waits {
        let pids = process_names::pids_of(&asked.pid).map_err(Error::msg)?;
        return Ok(Whom { pids, filter: None, waits });
    }
    let mut filter = filter;
    for one in &asked.pid {
        match one {
            ProcessNamed::Pid(pid) => filter.pids.push(*pid),
            ProcessNamed::Name(name) => filter.called.push(Called::new(name)),
        }
    }
    Ok(Whom { pids: Vec::new(), filter: filter.asks().then_some(filter), waits })
}

/// In words, for people: `unit db.service of user postgres`; `None`: all.
pub fn words(asked: &Filters) -> Option<String> {
    let one = |one: &ProcessNamed| match one {
        ProcessNamed::Pid(pid) => format!("process {pid}"),
        ProcessNamed::Name(name) => clean(name),
    };
    let groups = |wanted: &[GroupWanted]| wanted.iter().map(|one| clean(&one.to_string())).collect();
    let each: [Vec<String>; 8] = [
        asked.pid.iter().map(one).collect(),
        asked.comm.iter().map(|name| format!("processes called {}", clean(name))).collect(),
        asked.exe.iter().map(|path| format!("processes that run {}", clean(path))).collect(),
        asked.user.iter().map(|name| format!("processes of user {}", clean(name))).collect(),
        groups(&asked.cgroup),
        groups(&asked.unit),
        groups(&asked.container),
        asked.pod.iter().map(|pod| clean(&pod.words())).collect(),
    ];
    let kinds: Vec<String> =
        each.iter().filter(|kind| !kind.is_empty()).map(|kind| kind.join(" or ")).collect();
    (!kinds.is_empty()).then(|| kinds.join(", of these "))
}

/// Nobody fits.
pub fn nobody(asked: &Filters) -> Error {
    let words = words(asked).unwrap_or_else(|| "anything".into());
    let names = asked
        .container
        .iter()
        .any(|one| matches!(one, GroupWanted::Container(id) if !id.bytes().all(|b| b.is_ascii_hexdigit())));
    let hint = match names {
        true => "; containers of Docker, containerd, CRI-O and Podman go by their ids, not by their names",
        false => "",
    };
    anyhow!("nothing fits: no process that runs now is meant by {words}{hint}; --wait waits for the first")
}
