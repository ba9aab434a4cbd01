//! The systemd unit that a cgroup belongs to, told from its path. Pure text.

/// The innermost service or scope of a cgroup's path, as systemctl names it; without one the last part of the path;
/// `None` of the root.
pub fn unit(path: &str) -> Option<String> {
    let parts = || path.split('/').filter(|part| !part.is_empty());
    let unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    parts().rfind(unit).or_else(|| parts().next_back()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_other_groups() {
        for (path, name) in [
            ("/system.slice/searchnode.service", Some("searchnode.service")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope", Some("app-x.scope")),
            ("/system.slice/db.service/inner", Some("db.service")),
            ("/kubepods/besteffort/pod7/3f2a", Some("3f2a")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(unit(path).as_deref(), name, "{path}");
        }
    }
}
