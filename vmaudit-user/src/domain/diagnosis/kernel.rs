//! What the verdicts must know about the running kernel. The only place where a version decides about a cause.

use crate::model::session::{KernelRules, MremapRule};

impl KernelRules {
    /// Rules for a kernel by its release string (`uname -r`). What the source captures is for the caller to set.
    pub fn for_release(release: &str) -> Self {
        let version = version(release);
        let since = |major, minor| version.map(|version| version >= (major, minor));
        Self {
            madvise_eagain: since(5, 17),
            brk_memlock_first: since(6, 1),
            mremap: version.map(|version| match version {
                (7, 1) => MremapRule::Split71,
                version if version >= (7, 2) => MremapRule::Split72,
                _ => MremapRule::Old,
            }),
            mremap_checks_unlocked: version.and_then(|version| match version {
                // Not verified for the two releases between.
                (6, 15 | 16) => None,
                version => Some(((6, 17)..(7, 1)).contains(&version)),
            }),
            fixed_unmaps_first: since(6, 12).map(|since| !since),
            page_size: 4096,
            // x86-64 with four levels, arch/x86/include/asm/page_64_types.h:TASK_SIZE_MAX.
            task_size: (1 << 47) - 4096,
            address_end: None,
            ram_and_swap_pages: None,
            ignore_rlimit_data: false,
            vm_counters_captured: false,
            sections_seen: false,
            searches_seen: false,
            memlock_bit_knows_capability: false,
            future_locks_captured: false,
        }
    }
}

/// Major and minor version; `None` when the string does not say what the code does.
fn version(release: &str) -> Option<(u32, u32)> {
    // Enterprise kernels keep an old number and take mm changes from much newer releases.
    let enterprise = release.contains("-default")
        || release.split(".el").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if enterprise {
        return None;
    }
    let mut numbers = release.split('.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part.get(..digits).and_then(|digits| digits.parse().ok())
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use crate::domain::diagnosis::kernel::*;

    #[test]
    fn release_strings() {
        for (release, expected) in [
            ("6.18.44", Some((6, 18))),
            ("7.3-rc7+deb14-amd64", Some((7, 3))),
            ("5.10.0-32-amd64", Some((5, 10))),
            ("6.8.0-45-generic", Some((6, 8))),
            ("5.14.0-427.13.1.el9_4.x86_64", None),
            ("6.4.0-150600.21-default", None),
            ("", None),
            ("linux", None),
            ("6", None),
            (".", None),
            ("6.x", None),
            ("99999999999.1", None),
            ("6.elf", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn rules_change_where_the_kernel_did() {
        assert_eq!(KernelRules::for_release("5.15.0").madvise_eagain, Some(false));
        assert_eq!(KernelRules::for_release("5.17.0").madvise_eagain, Some(true));
        assert_eq!(KernelRules::for_release("7.0.13").mremap, Some(MremapRule::Old));
        assert_eq!(KernelRules::for_release("7.1.0").mremap, Some(MremapRule::Split71));
        assert_eq!(KernelRules::for_release("8.0.0").mremap, Some(MremapRule::Split72));
        assert_eq!(KernelRules::for_release("6.12.1").mremap_checks_unlocked, Some(false));
        assert_eq!(KernelRules::for_release("6.16.1").mremap_checks_unlocked, None);
        assert_eq!(KernelRules::for_release("6.18.1").mremap_checks_unlocked, Some(true));
        assert_eq!(KernelRules::for_release("6.1.9").fixed_unmaps_first, Some(true));
        assert_eq!(KernelRules::for_release("6.12.9").fixed_unmaps_first, Some(false));
        assert_eq!(KernelRules::for_release("odd").mremap, None);
    }
}
