//! The systemd unit that a process belongs to, told from its cgroup's path.

/// The last part of the path that is a service or a scope: systemd names cgroups after units, and what lies below a unit's
/// (a delegated tree) is still the unit. `None` outside of any unit, also where the path is hidden by a cgroup namespace.
pub fn unit_of(cgroup: &str) -> Option<&str> {
    let is_unit = |part: &&str| {
        let stem = part.strip_suffix(".service").or_else(|| part.strip_suffix(".scope"));
        stem.is_some_and(|stem| !stem.is_empty())
    };
    cgroup.rsplit('/').find(is_unit)
}

/// The unit, or, outside of any, the last part of the path: what people call the group. `None` of the root.
pub fn unit(cgroup: &str) -> Option<String> {
    unit_of(cgroup).or_else(|| cgroup.rsplit('/').find(|part| !part.is_empty())).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_outside_of_units_have_their_own_name() {
        for (path, name) in [
            ("/system.slice/db.service/inner", Some("db.service")),
            ("/kubepods/besteffort/pod7/3f2a", Some("3f2a")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(unit(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn units_are_the_last_service_or_scope() {
        for (path, unit) in [
            ("/system.slice/postgresql.service", Some("postgresql.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/firefox-7.scope",
                Some("firefox-7.scope"),
            ),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/system.slice/docker-3f2a.scope/inner/deeper", Some("docker-3f2a.scope")),
            ("/init.scope", Some("init.scope")),
            ("/system.slice", None),
            ("/user.slice/.service", None),
            ("/docker/3f2a", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }
}
