//! What the kernel names like a file and is none.

/// Shared memory that is no file, though the kernel prints a name that looks like a deleted one: MAP_SHARED |
/// MAP_ANONYMOUS (mm/shmem.c:shmem_zero_setup), memfd_create, shmget (ipc/shm.c:newseg), the same in huge pages.
pub(crate) fn shared_memory(name: &str) -> Option<String> {
    let bare = name.strip_suffix(" (deleted)").unwrap_or(name);
    match bare {
        "/dev/zero" => Some("shared anonymous memory (MAP_SHARED | MAP_ANONYMOUS)".to_owned()),
        "/anon_hugepage" => Some("shared anonymous huge pages".to_owned()),
        _ => {
            if let Some(name) = bare.strip_prefix("/memfd:") {
                Some(format!("memfd {name}"))
            } else if let Some(key) = bare.strip_prefix("/SYSV") {
                Some(format!("System V shared memory (key 0x{key})"))
            } else {
                let name = bare.strip_prefix("[anon_shmem:")?;
                Some(format!("shared anonymous memory named {}", name.trim_end_matches(']')))
            }
        }
    }
}
