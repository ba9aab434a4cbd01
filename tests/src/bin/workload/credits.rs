//! One process whose VMAs come from four places, with a book of who holds how many at its peak.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Mutex;

use crate::memory::{Holes, Line, die, leave, write_all};
use crate::own::count;

/// Places.
const SITES: usize = 4;
type Site = fn(Holes, usize);

#[inline(never)]
fn site_a(holes: Holes, page: usize) {
    holes.map(page);
    black_box('a');
}

#[inline(never)]
fn site_b(holes: Holes, page: usize) {
    holes.map(page);
    black_box("b");
}

#[inline(never)]
fn site_c(holes: Holes, page: usize) {
    holes.map(page);
    black_box(3_u64);
}

#[inline(never)]
fn site_d(holes: Holes, page: usize) {
    holes.map(page);
    black_box(4.0_f64);
}

const PLACES: [Site; SITES] = [site_a, site_b, site_c, site_d];

/// Which places hold which pages. Its memory is there before the first page is mapped.
struct Book {
    holes: Holes,
    /// Pages that are free, and those that are mapped with their places.
    free: Vec<usize>,
    mapped: Vec<(usize, usize)>,
    random: u64,
    most: usize,
    /// Pages mapped from each place, and unmapped, in all.
    made: [u64; SITES],
    unmapped: u64,
}

impl Book {
    fn new(pages: usize) -> Self {
        let (mut free, mut mapped) = (Vec::with_capacity(pages), Vec::with_capacity(pages));
        free.extend((0..pages).rev());
        mapped.extend((0..pages).map(|page| (page, 0)));
        mapped.clear();
        Self {
            holes: Holes::find(pages),
            free,
            mapped,
            random: 0x9e37_79b9_7f4a_7c15,
            most: 0,
            made: [0; SITES],
            unmapped: 0,
        }
    }

    fn next(&mut self, below: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    fn map(&mut self, site: usize) {
        let page = self.free.pop().unwrap_or_else(|| die(99, format_args!("no page is free")));
        PLACES[site](self.holes, page);
        self.made[site] += 1;
        self.mapped.push((page, site));
        self.most = self.most.max(self.mapped.len());
    }

    fn unmap(&mut self, at: usize) {
        let (page, _) = self.mapped.swap_remove(at);
        self.holes.unmap(page);
        self.unmapped += 1;
        self.free.push(page);
    }

    fn unmap_last(&mut self) {
        self.unmap(self.mapped.len() - 1);
    }

    /// 50, 30, 15 and 5 %.
    fn any(&mut self) -> usize {
        share(self.next(100))
    }

    fn say(&self, base: u64) -> ! {
        // What is told of the peak is of now.
        if self.mapped.len() != self.most {
            die(98, format_args!("{} pages are mapped, {} were", self.mapped.len(), self.most));
        }
        let mut held = [0; SITES];
        self.mapped.iter().for_each(|(_, site)| held[*site] += 1);
        say(base, held, (self.made, self.unmapped))
    }
}

fn share(of_100: usize) -> usize {
    match of_100 {
        0..50 => 0,
        50..80 => 1,
        80..95 => 2,
        _ => 3,
    }
}

fn say(base: u64, held: [u64; SITES], (made, unmapped): ([u64; SITES], u64)) -> ! {
    let peak = base + held.iter().sum::<u64>();
    if count() != peak {
        die(98, format_args!("expected {peak} VMAs, there are {}", count()));
    }
    let mut line = Line::new();
    let _ = write!(line, r#"{{"peak":{peak},"unmapped":{unmapped}"#);
    for (name, [a, b, c, d]) in [("held", held), ("made", made)] {
        let _ = write!(line, r#","{name}":{{"site_a":{a},"site_b":{b},"site_c":{c},"site_d":{d}}}"#);
    }
    let _ = line.write_str("}\n");
    write_all(1, line.bytes());
    leave(0)
}

/// Runs one history.
pub fn run(name: &str) -> ! {
    const MANY: usize = 57_000;
    let pages = match name {
        "few" | "swings" => 400,
        "few-more" => 500,
        _ => MANY + 3000,
    };
    let mut book = Book::new(pages);
    let base = count();
    match name {
        "random" => (0..MANY).for_each(|_| {
            let site = book.any();
            book.map(site);
        }),
        // As random, and more from one place.
        "more" => {
            (0..MANY).for_each(|_| {
                let site = book.any();
                book.map(site);
            });
            (0..3000).for_each(|_| book.map(3));
        }
        "few-more" => {
            (0..400).for_each(|_| {
                let site = book.any();
                book.map(site);
            });
            (0..100).for_each(|_| book.map(3));
        }
        "few" => (0..400).for_each(|_| {
            let site = book.any();
            book.map(site);
        }),
        "bursts" => (0..MANY).for_each(|n| book.map(share(n / 1000 * 37 % 100))),
        "period-20" => (0..MANY).for_each(|n| book.map(share(n % 20 * 5))),
        "period-16" => (0..MANY).for_each(|n| book.map(share(n % 16 * 6))),
        "saw-tooth" => {
            while book.mapped.len() + 3000 < MANY {
                climb(&mut book, 3000);
                for _ in 0..2000 {
                    let at = book.next(book.mapped.len());
                    book.unmap(at);
                }
            }
            climb(&mut book, 5000);
        }
        "shift" => {
            (0..20_000).for_each(|_| book.map(0));
            (0..20_000).for_each(|_| book.unmap_last());
            (0..20_200).for_each(|_| book.map(1));
        }
        "regrow" => {
            climb(&mut book, 20_000);
            (0..15_000).for_each(|_| book.unmap_last());
            (0..15_500).for_each(|_| book.map(3));
        }
        "swings" => {
            (0..300).for_each(|_| book.map(0));
            for _ in 0..2000 {
                (0..60).for_each(|_| book.unmap_last());
                (0..60).for_each(|_| book.map(0));
            }
            (0..100).for_each(|_| book.map(1));
        }
        _ => die(2, format_args!("no such history: {name}")),
    }
    book.say(base)
}

fn climb(book: &mut Book, pages: usize) {
    for _ in 0..pages {
        let site = book.any();
        book.map(site);
    }
}

/// The same of `threads` threads at once.
pub fn threads(threads: usize) -> ! {
    const EACH: usize = 14_000;
    let holes = Holes::reserve(threads * EACH);
    let held = Mutex::new([0_u64; SITES]);
    let begun = std::sync::Barrier::new(threads + 1);
    let mapped = std::sync::Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (held, begun, mapped) = (&held, &begun, &mapped);
            scope.spawn(move || {
                let mut mine = [0; SITES];
                let mut random = Book {
                    holes,
                    free: Vec::new(),
                    mapped: Vec::new(),
                    random: thread as u64,
                    most: 0,
                    made: [0; SITES],
                    unmapped: 0,
                };
                begun.wait();
                begun.wait();
                for page in thread * EACH..(thread + 1) * EACH {
                    let site = random.any();
                    PLACES[site](holes, page);
                    mine[site] += 1;
                }
                held.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .iter_mut()
                    .zip(mine)
                    .for_each(|(all, mine)| *all += mine);
                mapped.wait();
                // Its stack stays.
                loop {
                    std::thread::park();
                }
            });
        }
        begun.wait();
        // No stack is to lie there.
        holes.release();
        let base = count();
        begun.wait();
        mapped.wait();
        let held = *held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        say(base, held, (held, 0))
    })
}
