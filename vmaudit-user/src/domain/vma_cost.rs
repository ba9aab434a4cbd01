//! What a VMA costs in kernel memory, from the running kernel's own slab sizes. Pure.

use crate::model::limit::Price;
use crate::model::scan::ObjectSize;

/// Slab caches that a VMA takes objects from. The first holds the VMA itself.
pub const CACHES: [&str; 5] = ["vm_area_struct", "vma_lock", "maple_node", "anon_vma", "anon_vma_chain"];

/// Entries of a full leaf of the maple tree on 64-bit kernels (include/linux/maple_tree.h, MAPLE_RANGE64_SLOTS).
const LEAF_SLOTS: f64 = 16.0;

/// Price from the sizes of objects of [`CACHES`], in that order, and the bytes of a page; `None` when the kernel does not
/// show its VMA cache (no root, or merged into another cache).
pub fn price(sizes: &[Option<ObjectSize>], page_size: u64) -> Option<Price> {
    let bytes = |place: usize| sizes.get(place).copied().flatten().map(|size| slab_bytes(size, page_size));
    let own = bytes(0)? + bytes(1).unwrap_or(0.0);
    // Before 6.1 VMAs hang in a tree whose nodes are part of them: no maple_node, nothing to add.
    let leaf = bytes(2).unwrap_or(0.0);
    let faulted = bytes(3).unwrap_or(104.0) + bytes(4).unwrap_or(64.0);
    Some(Price {
        least: own + leaf / LEAF_SLOTS,
        usual: own + leaf / (LEAF_SLOTS * 0.75) + faulted / 2.0,
        most: own + leaf / (LEAF_SLOTS * 0.5) + faulted,
    })
}

/// Bytes that one object takes, its share of the slab's waste included.
fn slab_bytes(slab: ObjectSize, page_size: u64) -> f64 {
    let pages = slab.pages_per_slab as f64 * page_size as f64;
    match slab.objects_per_slab {
        0 => slab.object_bytes as f64,
        objects => pages / objects as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(object_bytes: u64, objects_per_slab: u64) -> Option<ObjectSize> {
        Some(ObjectSize { object_bytes, objects_per_slab, pages_per_slab: 1 })
    }

    #[test]
    fn it_covers_what_was_measured_on_6_18() {
        // kernel.md 6.1: 238 contiguous and untouched, 215 file, 312 half touched.
        let price = price(&[slab(192, 21), None, slab(256, 16), slab(104, 39), slab(64, 64)], 4096).unwrap();
        assert!(price.least > 205.0 && price.least < 238.0, "{price:?}");
        assert!(price.usual > 281.0 && price.usual < 330.0, "{price:?}");
        assert!(price.most > 312.0, "{price:?}");
    }

    #[test]
    fn without_slab_figures_there_is_no_price() {
        assert_eq!(price(&[None, None], 4096), None);
        assert_eq!(price(&[], 4096), None);
    }

    /// As a kernel with pages of 64 KiB shows the same objects: 341 to a slab of one page.
    #[test]
    fn larger_pages_hold_more_objects_and_change_no_price() {
        let price = price(&[slab(192, 341)], 65536).unwrap();
        assert!((192.0..193.0).contains(&price.least), "{price:?}");
    }
}
