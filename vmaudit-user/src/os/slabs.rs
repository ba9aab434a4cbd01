//! Figures of the kernel's slab caches, which root alone may read.
//!
//! SLUB shows each cache in a folder of its own below /sys/kernel/slab. /proc/slabinfo has them all in one table, which
//! takes some milliseconds: the kernel walks the lists of every cache for it.

use std::path::Path;

use crate::model::scan::{NoSlab, ObjectSize, Slab};

/// The folder below that of sysfs.
const SLAB: &str = "kernel/slab";
/// Slabs that the kernel may walk, with interrupts off, to say how many objects of a cache are in use
/// (mm/slub.c:count_partial); it does for the table, too. From 6.10 on that stops there (mm/slub.c:MAX_PARTIAL_TO_SCAN), and
/// its figure is no count any more.
const MOST_WALKED: u64 = 10_000;

/// What an object of each of the named caches takes; `None` without root, or where there is no such cache. `proc` and
/// `sys`: where those are mounted.
pub fn sizes(proc: &Path, sys: &Path, caches: &[&str]) -> Vec<Option<ObjectSize>> {
    let size = |cache: &&str| size_of(&sys.join(SLAB).join(cache));
    if let Some((first, others)) = caches.split_first()
        && let Some(first) = size(first)
    {
        return [Some(first)].into_iter().chain(others.iter().map(size)).collect();
    }
    let table = table(proc);
    caches.iter().map(|cache| table.lines().find_map(|line| row(line, cache)).map(|slab| slab.size)).collect()
}

/// Objects of a cache. Errors: see [`NoSlab`].
pub fn counted(proc: &Path, sys: &Path, cache: &str) -> Result<Slab, NoSlab> {
    let folder = sys.join(SLAB).join(cache);
    // A row of the table has the sum of all that are kept together.
    match (number(&folder, "aliases"), number(&folder, "partial")) {
        (Some(1..), _) => return Err(NoSlab::Merged),
        (_, Some(partial)) if partial > MOST_WALKED => return Err(NoSlab::Long(partial)),
        _ => {}
    }
    let own = counts_of(&folder);
    own.or_else(|| table(proc).lines().find_map(|line| row(line, cache))).ok_or(NoSlab::Hidden)
}

/// The cache may be merged with others: their objects are of one size.
fn size_of(folder: &Path) -> Option<ObjectSize> {
    Some(ObjectSize {
        object_bytes: number(folder, "slab_size")?,
        objects_per_slab: number(folder, "objs_per_slab")?,
        pages_per_slab: 1_u64.checked_shl(u32::try_from(number(folder, "order")?).ok()?)?,
    })
}

fn counts_of(folder: &Path) -> Option<Slab> {
    let size = size_of(folder)?;
    Some(Slab { active: number(folder, "objects")?, total: number(folder, "total_objects")?, size })
}

/// The figure of a file, which may go on with those of each node (`1200 N0=800 N1=400`).
fn number(folder: &Path, file: &str) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn table(proc: &Path) -> String {
    std::fs::read_to_string(proc.join("slabinfo")).unwrap_or_default()
}

/// A row of /proc/slabinfo.
pub(crate) fn row(line: &str, cache: &str) -> Option<Slab> {
    let mut fields = line.split_ascii_whitespace();
    if fields.next()? != cache {
        return None;
    }
    let mut next = || fields.next()?.parse().ok();
    Some(Slab {
        active: next()?,
        total: next()?,
        size: ObjectSize { object_bytes: next()?, objects_per_slab: next()?, pages_per_slab: next()? },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const TABLE: &str = "slabinfo - version: 2.1\nvm_area_struct 7 21 200 20 1 : tunables 0 0 0 : slabdata 1 1 0\n\
                         maple_node 5 16 256 16 1 : tunables 0 0 0 : slabdata 1 1 0\n";

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("vmaudit-slabs-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
            fs::write(root.join("slabinfo"), TABLE).unwrap();
            Self(root)
        }

        fn cache(&self, name: &str, aliases: u64, partial: u64) {
            let folder = self.0.join("kernel/slab").join(name);
            fs::create_dir_all(&folder).unwrap();
            let (aliases, partial) = (format!("{aliases}\n"), format!("{partial} N0={partial}\n"));
            for (file, text) in [
                ("aliases", aliases.as_str()),
                ("partial", &partial),
                ("objects", "1200 N0=800 N1=400\n"),
                ("total_objects", "1344 N0=900 N1=444\n"),
                ("slab_size", "192\n"),
                ("objs_per_slab", "42\n"),
                ("order", "1\n"),
            ] {
                fs::write(folder.join(file), text).unwrap();
            }
        }

        fn active(&self) -> Result<u64, NoSlab> {
            counted(&self.0, &self.0, "vm_area_struct").map(|slab| slab.active)
        }

        fn bytes(&self) -> Vec<Option<u64>> {
            let sizes = sizes(&self.0, &self.0, &["vm_area_struct", "maple_node", "vma_lock"]);
            sizes.iter().map(|size| size.map(|size| size.object_bytes)).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_cache_is_read_from_its_own_files() {
        let root = Root::new("own");
        root.cache("vm_area_struct", 0, 36);
        let size = ObjectSize { object_bytes: 192, objects_per_slab: 42, pages_per_slab: 2 };
        assert_eq!(counted(&root.0, &root.0, "vm_area_struct"), Ok(Slab { active: 1200, total: 1344, size }));
        root.cache("maple_node", 3, 36);
        assert_eq!(root.bytes(), [Some(192), Some(192), None], "merged ones have one size");
    }

    #[test]
    fn the_table_is_asked_where_there_is_no_folder() {
        let root = Root::new("none");
        assert_eq!((root.active(), root.bytes()), (Ok(7), vec![Some(200), Some(256), None]));
        fs::remove_file(root.0.join("slabinfo")).unwrap();
        assert_eq!((root.active(), root.bytes()), (Err(NoSlab::Hidden), vec![None; 3]), "nor a table");
    }

    /// The table counts them with others, or walks the same lists.
    #[test]
    fn where_the_folder_tells_why_not_the_table_is_not_asked() {
        let root = Root::new("merged");
        for (aliases, partial, active) in [
            (1, 0, Err(NoSlab::Merged)),
            (0, MOST_WALKED + 1, Err(NoSlab::Long(MOST_WALKED + 1))),
            (0, MOST_WALKED, Ok(1200)),
        ] {
            root.cache("vm_area_struct", aliases, partial);
            assert_eq!(root.active(), active, "{aliases} {partial}");
        }
    }

    /// Both are root's alone.
    #[test]
    fn sizes_of_the_kernel_are_those_of_its_table() {
        let of = |sys: &str| sizes(Path::new("/proc"), Path::new(sys), &["vm_area_struct", "maple_node"]);
        let (own, table) = (of("/sys"), of("/nowhere"));
        // Of merged ones the table has one name alone.
        let both: Vec<_> = own.iter().zip(&table).filter(|(_, table)| table.is_some()).collect();
        assert!(both.iter().all(|(own, table)| own == table), "{both:?}");
        let folder = Path::new("/sys/kernel/slab/vm_area_struct");
        if nix::unistd::geteuid().is_root() && folder.exists() && Path::new("/proc/slabinfo").exists() {
            assert!(own[0].is_some() && !both.is_empty(), "nothing was compared: {own:?} {table:?}");
        }
    }
}
