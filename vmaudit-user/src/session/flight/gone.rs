//! Processes that have no rows in a stretch: how many, and how many of their calls were refused.

use std::collections::VecDeque;

use crate::model::session::Gone;

/// Those without room that ended within this time are one entry, ns.
const TOGETHER: u64 = 5_000_000_000;
/// Entries.
const MOST: usize = 10_000;

/// See the module.
#[derive(Default)]
pub struct Ended {
    /// Those that ended before the stretch began.
    before: Gone,
    /// Those that ended in it and found no room: when the first and the last of an entry did, CLOCK_MONOTONIC ns.
    no_room: VecDeque<(u64, u64, Gone)>,
}

impl Ended {
    /// One that ended before the stretch.
    pub fn before(&mut self, refused: u64) {
        self.before.add(Gone { processes: 1, refused });
    }

    /// One that ended in it. In the order of their ends, but for those that are told late.
    pub fn without_room(&mut self, at_ns: u64, refused: u64) {
        let one = Gone { processes: 1, refused };
        match self.no_room.back_mut() {
            Some((first_ns, last_ns, sum)) if at_ns.saturating_sub(*first_ns) < TOGETHER => {
                *last_ns = at_ns.max(*last_ns);
                sum.add(one);
            }
            _ => self.no_room.push_back((at_ns, at_ns, one)),
        }
        if self.no_room.len() > MOST
            && let Some((_, _, oldest)) = self.no_room.pop_front()
            && let Some((_, _, next)) = self.no_room.front_mut()
        {
            next.add(oldest);
        }
    }

    /// The stretch begins here now.
    pub fn begins(&mut self, from_ns: u64) {
        while self.no_room.front().is_some_and(|(_, last_ns, _)| *last_ns < from_ns)
            && let Some((_, _, sum)) = self.no_room.pop_front()
        {
            self.before.add(sum);
        }
    }

    /// Those that ended before it.
    pub fn before_it(&self) -> Gone {
        self.before
    }

    /// Those that ended in it and have no rows.
    pub fn no_room(&self) -> Gone {
        let mut all = Gone::default();
        self.no_room.iter().for_each(|(_, _, sum)| all.add(*sum));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_found_no_room_is_counted_until_the_stretch_is_past_it() {
        let mut ended = Ended::default();
        ended.before(3);
        for n in 0..100 {
            ended.without_room(n * 1_000_000_000, 2);
        }
        assert_eq!(ended.no_room(), Gone { processes: 100, refused: 200 });
        ended.begins(50_000_000_000);
        assert_eq!(ended.no_room(), Gone { processes: 50, refused: 100 });
        assert_eq!(ended.before_it(), Gone { processes: 51, refused: 103 });
        ended.begins(1 << 60);
        assert_eq!((ended.no_room(), ended.before_it().processes), (Gone::default(), 101));
    }

    #[test]
    fn entries_are_bounded_and_none_is_lost() {
        let mut ended = Ended::default();
        for n in 0..3 * MOST as u64 {
            ended.without_room(n * TOGETHER, 1);
        }
        assert!(ended.no_room.len() <= MOST);
        assert_eq!(ended.no_room().processes, 3 * MOST as u64);
    }
}
