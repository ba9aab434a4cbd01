//! The C library in a stack. Its functions are known by name to all who program; where in its sources they stand, and what
//! was inlined there, says nothing of the program that called them.

/// Beginnings of the names of its files: glibc and musl, and what they are split into.
const FILES: [&str; 12] = [
    "libc.so",
    "libc-2.",
    "libpthread",
    "ld-linux",
    "ld-2.",
    "ld.so",
    "ld64.so",
    "ld-musl",
    "libc.musl",
    "libm.so",
    "librt.so",
    "libdl.so",
];

/// This mapped file is of the C library.
pub fn is(module: &str) -> bool {
    let name = module.rsplit('/').next().unwrap_or(module);
    FILES.iter().any(|start| name.starts_with(start))
}

/// This source is of the C library, which may be linked into a program.
pub fn is_source(file: &str) -> bool {
    ["/sysdeps/", "/nptl/", "/csu/"].iter().any(|folder| file.contains(folder))
        || file.ends_with("syscall-template.S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_c_library_are_known_by_their_names() {
        for name in
            ["/usr/lib/x86_64-linux-gnu/libc.so.6", "/lib/libc-2.31.so", "/lib64/ld-linux-x86-64.so.2"]
        {
            assert!(is(name), "{name}");
        }
        for name in ["/usr/bin/libcat", "/lib/libcurl.so.4", "/lib/libc.so/program", "", "[vdso]"] {
            assert!(!is(name), "{name}");
        }
        assert!(
            is_source("./misc/../sysdeps/unix/syscall-template.S")
                && is_source("./nptl/./nptl/pthread_create.c")
        );
        assert!(!is_source("src/misc.c"));
    }
}
