//! Ranges that refused calls leave mapped, and what becomes of them.

use libc::{MAP_FIXED, MAP_NORESERVE, MREMAP_MAYMOVE, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::makers::max_map_count;
use crate::memory::{Holes, PAGE, PRIVATE, brk, call, die, leave, mmap, mmap_at, mremap, munmap, must};
use crate::own::{Own, count};

type Maker = fn(&mut Place);

const CASES: &[(&str, Maker)] = &[
    ("retried", retried),
    ("overlapping", overlapping),
    ("granted-later", granted_later),
    ("with-all-around", with_all_around),
    ("an-edge", an_edge),
    ("replaced", replaced),
    ("moved", moved),
    ("shrunk-later", shrunk_later),
    ("refused-again", refused_again),
    ("many", many),
    ("beside-a-loop", beside_a_loop),
    ("heap", heap),
];

/// Pages of the region.
const PAGES: usize = 4096;

/// A region in one VMA, and as many VMAs beside it as bring the count to the limit.
struct Place {
    region: usize,
    holes: Holes,
    used: usize,
    own: Own,
    /// Pages that are left at the end.
    left: usize,
}

/// Runs one case.
pub fn run(name: &str) -> ! {
    let Some((_, maker)) = CASES.iter().find(|(known, _)| *known == name) else {
        die(2, format_args!("no such case: {name}"));
    };
    let max = max_map_count();
    let region = must(mmap(PAGES * PAGE, PROT_NONE, MAP_NORESERVE), "mmap of the region");
    let holes = Holes::find(max as usize);
    if name == "heap" {
        heap_with_a_neighbour();
    }
    let base = count();
    let mut place = Place { region, holes, used: 0, own: Own::new("left", base, max), left: 0 };
    place.fill((max - base) as usize);
    maker(&mut place);
    let mut own = place.own;
    own.leaked_bytes = (place.left * PAGE) as u64;
    own.print();
    leave(0)
}

impl Place {
    /// Makes `n` VMAs more.
    fn fill(&mut self, n: usize) {
        for _ in 0..n {
            self.holes.map(self.used);
            self.used += 1;
        }
    }

    /// Gives `n` of them back.
    fn make_room(&mut self, n: usize) {
        for _ in 0..n {
            self.used -= 1;
            self.holes.unmap(self.used);
        }
    }

    fn page(&self, n: usize) -> usize {
        self.region + n * PAGE
    }

    /// munmap of this range is refused.
    fn refuse(&mut self, page: usize, pages: usize) {
        match munmap(self.page(page), pages * PAGE) {
            Err(errno) => self.own.refuse("munmap", errno, "max_map_count"),
            Ok(_) => die(99, format_args!("munmap of page {page} was not refused")),
        }
    }

    fn unmap(&self, page: usize, pages: usize) {
        must(munmap(self.page(page), pages * PAGE), "munmap");
    }

    /// Maps a page of the region again as it was: it becomes one with its neighbours.
    fn map_again(&self, page: usize) {
        let flags = (PRIVATE | MAP_NORESERVE | MAP_FIXED) as usize;
        let arguments = [self.page(page), PAGE, PROT_NONE as usize, flags, usize::MAX, 0];
        must(call(libc::SYS_mmap, arguments), "mmap of a page of the region");
    }
}

fn retried(place: &mut Place) {
    for _ in 0..50 {
        place.refuse(10, 1);
        place.refuse(20, 1);
    }
    place.left = 2;
}

fn overlapping(place: &mut Place) {
    place.refuse(10, 2);
    place.refuse(11, 2);
    place.refuse(100, 50);
    place.refuse(120, 3);
    place.left = 53;
}

fn granted_later(place: &mut Place) {
    place.refuse(10, 1);
    place.refuse(20, 1);
    place.make_room(1);
    place.unmap(10, 1);
    place.left = 1;
}

fn with_all_around(place: &mut Place) {
    place.refuse(10, 1);
    place.refuse(50, 7);
    place.unmap(0, PAGES);
}

fn an_edge(place: &mut Place) {
    place.refuse(10, 4);
    place.unmap(0, 12);
    place.left = 2;
}

fn replaced(place: &mut Place) {
    place.refuse(10, 2);
    place.make_room(4);
    must(mmap_at(place.page(10), 2 * PAGE, PROT_READ), "mmap in its place");
}

fn moved(place: &mut Place) {
    place.refuse(10, 2);
    place.make_room(8);
    must(mremap(place.region, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE), "mremap of the region");
}

fn shrunk_later(place: &mut Place) {
    place.refuse(10, 2);
    place.refuse(100, 3);
    place.make_room(8);
    must(mremap(place.region, PAGES * PAGE, 50 * PAGE, 0), "mremap of the region");
    place.left = 2;
}

fn refused_again(place: &mut Place) {
    place.refuse(10, 1);
    place.make_room(1);
    place.unmap(10, 1);
    place.map_again(10);
    place.fill(1);
    place.refuse(10, 1);
    place.left = 1;
}

fn many(place: &mut Place) {
    for i in (0..1000).chain((0..1000).rev()) {
        place.refuse(2 * i + 1, 1);
    }
    place.left = 1000;
}

/// A page is left, and others close by come and go.
fn beside_a_loop(place: &mut Place) {
    place.refuse(10, 1);
    place.make_room(4);
    for _ in 0..3000 {
        place.unmap(4, 1);
        place.map_again(4);
    }
    place.left = 1;
}

/// Pages of the heap, and of a mapping above it that is one with it.
const HEAP: usize = 16;

fn heap_with_a_neighbour() {
    let start = brk(0);
    let end = start + HEAP * PAGE;
    if brk(end) != end {
        die(99, format_args!("brk was refused"));
    }
    // As the heap is: counted by overcommit accounting.
    let (protection, flags) = ((PROT_READ | PROT_WRITE) as usize, (PRIVATE | MAP_FIXED) as usize);
    let arguments = [end, HEAP * PAGE, protection, flags, usize::MAX, 0];
    must(call(libc::SYS_mmap, arguments), "mmap above the heap");
}

fn heap(place: &mut Place) {
    let end = brk(0);
    for _ in 0..3 {
        if brk(end - HEAP / 2 * PAGE) == end {
            place.own.refuse("brk", libc::ENOMEM, "max_map_count");
        } else {
            die(99, format_args!("brk was not refused"));
        }
    }
    place.left = HEAP / 2;
}
