//! Lines of /proc/PID/cgroup.

pub(crate) fn parse_cgroup(text: &str) -> Option<String> {
    let mut unified = None;
    let mut memory = None;
    // Not `lines()`: a carriage return at the end is the name's.
    for line in text.split('\n') {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if id == "0" && controllers.is_empty() {
            unified = Some(path);
        } else if controllers.split(',').any(|name| name == "memory") {
            memory = Some(path);
        }
    }
    match (unified, memory) {
        (Some("/") | None, Some(path)) => Some(path.to_owned()),
        (path, _) => path.map(str::to_owned),
    }
}

pub(crate) fn parse_cgroup_of(text: &str, controller: &str) -> Option<String> {
    let lines = || text.split('\n').filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let own = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
    own.or_else(|| lines().find(|(controllers, _)| controllers.is_empty())).map(|(_, path)| path.to_owned())
}
