//! Lines of /proc/PID/cgroup.

/// The hierarchies of version 1, of which there are some, are all at their root.
pub(crate) fn all_at_root(text: &str) -> bool {
    let mut of_controllers = text.split('\n').filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (!controllers.is_empty()).then_some(path)
    });
    of_controllers.next() == Some("/") && of_controllers.all(|path| path == "/")
}

pub(crate) fn parse_cgroup_of(text: &str, controller: &str) -> Option<String> {
    let lines = || text.split('\n').filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let own = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
    own.or_else(|| lines().find(|(controllers, _)| controllers.is_empty())).map(|(_, path)| path.to_owned())
}
