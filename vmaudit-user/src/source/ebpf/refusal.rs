//! What a refusal of the loader or the kernel means to people.

use crate::os::rights;

/// Turns a loader's or the kernel's refusal into what is missing and how to get it.
pub(super) fn refusal(error: &anyhow::Error) -> String {
    let errno =
        error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).and_then(|e| e.raw_os_error());
    let first = error.chain().last().map(ToString::to_string).unwrap_or_default();
    let first = first.lines().next().unwrap_or_default().to_owned();
    match errno {
        Some(libc::EPERM | libc::EACCES) if rights::missing().is_some() => {
            "eBPF needs root, or CAP_BPF and CAP_PERFMON: run it with sudo".into()
        }
        Some(libc::EPERM) => {
            format!(
                "the kernel refuses eBPF even to root here ({first}); lockdown or a container's policy does that"
            )
        }
        _ => first,
    }
}
