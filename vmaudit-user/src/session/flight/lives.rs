//! What is kept of one process, and of one address space.

use std::collections::BTreeMap;

use super::names::Names;
use crate::domain::images;
use crate::model::event::{Credit, Event, Interval, MmState, Sample};
use crate::model::makers::Cut;
use crate::os::clock::now_ns;

/// Kinds of refusal kept apart in images that were put together: more than the kernel knows.
const KINDS: usize = 1024;
/// Images that are put together and whose examples are found again.
const GENERATIONS: usize = 64;

pub struct Process {
    /// When it was met.
    pub met_ns: u64,
    pub mms: BTreeMap<u64, Event>,
    /// When its last address space ended; `None`: one lives.
    pub dead_ns: Option<u64>,
    pub facts: BTreeMap<&'static str, Event>,
    /// Looks before the stretch: the first, the largest and the last.
    pub looks: Vec<Sample>,
    pub gone_ns: Option<u64>,
}

impl Process {
    pub fn met_now() -> Self {
        let (mms, facts) = (BTreeMap::new(), BTreeMap::new());
        Self { met_ns: now_ns(), mms, dead_ns: None, facts, looks: Vec::new(), gone_ns: None }
    }

    /// Nobody knows whether it lives.
    pub fn is_unknown(&self) -> bool {
        self.mms.is_empty() && self.looks.is_empty() && self.gone_ns.is_none()
    }

    pub fn ended_ns(&self) -> Option<u64> {
        self.dead_ns.or(self.gone_ns.filter(|_| self.mms.is_empty()))
    }

    /// Puts images together until there are so many.
    pub fn fold(&mut self, most: usize) -> Folded {
        let Folded { mut forgotten, mut outgrown } = Folded::default();
        while self.mms.len() > most
            && let Some((older, newer)) = self.least()
            && let Some(Event::Mm(newer)) = self.mms.remove(&newer)
            && let Some(Event::Mm(older)) = self.mms.get_mut(&older)
        {
            let (generation, refused) = (newer.generation, !newer.refusals.is_empty());
            let outgrows = newer.peak > older.peak;
            images::join(older, *newer, KINDS);
            let joined = older.joined.get_or_insert_default();
            joined.images = joined.images.saturating_add(1);
            joined.outgrown |= outgrows;
            if outgrows {
                outgrown.push(older.generation);
            }
            match refused {
                true => joined.generations.push(generation),
                false => forgotten.push(generation),
            }
            let surplus = joined.generations.len().saturating_sub(GENERATIONS);
            forgotten.extend(joined.generations.drain(..surplus));
        }
        Folded { forgotten, outgrown }
    }

    /// Two images, one behind the other, to become one: the newer is the least remarkable, and has no larger peak than the
    /// older one, whose makers are shown. Where there is none such, the oldest.
    fn least(&self) -> Option<(u64, u64)> {
        let all: Vec<&MmState> = self.mms.values().filter_map(state).collect();
        // The last one may go on; what was refused in the address space of another stays apart.
        let pairs = all.windows(2).take(all.len().saturating_sub(2)).filter_map(|pair| match pair {
            [older, newer] if older.host.is_none() && newer.host.is_none() => Some((older, newer)),
            _ => None,
        });
        let over = |(older, newer): &(&&MmState, &&MmState)| older.dead_ns.and(newer.dead_ns).is_none();
        let least = pairs.min_by_key(|it| (over(it), it.1.peak > it.0.peak, it.1.peak, it.1.generation));
        least.map(|(older, newer)| (older.generation, newer.generation))
    }

    /// Its address spaces, and those whose figures theirs have, too.
    pub fn generations(&self) -> impl Iterator<Item = u64> {
        let joined = self.mms.values().filter_map(state).filter_map(|mm| mm.joined.as_ref());
        self.mms.keys().copied().chain(joined.flat_map(|it| it.generations.iter().copied()))
    }

    /// Calls that were refused.
    pub fn refused(&self) -> u64 {
        let of = |event: &Event| match event {
            Event::Mm(state) => state.refusals.iter().map(|group| group.count).sum(),
            _ => 0,
        };
        self.mms.values().map(of).fold(0, u64::saturating_add)
    }
}

/// What putting images together leaves.
#[derive(Default)]
pub struct Folded {
    /// Address spaces of which nothing is needed any more.
    pub forgotten: Vec<u64>,
    /// Those that have a peak of another image now, which their own makers did not make.
    pub outgrown: Vec<u64>,
}

pub struct Space {
    pub met_ns: u64,
    /// Its figures were told.
    pub known: bool,
    /// The last interval before the stretch in which it changed.
    pub level: Option<Interval>,
    /// Who was credited with what it had then: see `domain::audit::makers`.
    pub credits: Vec<Credit>,
    pub facts: BTreeMap<&'static str, Event>,
    pub places: Names,
    pub names: Names,
}

impl Space {
    pub fn met_now() -> Self {
        let (credits, facts, names) = (Vec::new(), BTreeMap::new(), Names::default());
        let places = Names::default();
        Self { met_ns: now_ns(), known: false, level: None, credits, facts, places, names }
    }

    pub fn all_names(&self) -> usize {
        self.names.len() + self.places.len()
    }

    pub fn credit(&mut self, credit: Credit) {
        if credit.level <= credit.base {
            return;
        }
        while let Some(top) = self.credits.last_mut() {
            match Cut::of((top.base, top.level), credit.base) {
                Cut::Stays => break,
                Cut::To(level) => top.level = level,
                Cut::Goes => drop(self.credits.pop()),
            }
        }
        self.credits.push(credit);
    }
}

fn state(event: &Event) -> Option<&MmState> {
    match event {
        Event::Mm(state) => Some(state),
        _ => None,
    }
}
