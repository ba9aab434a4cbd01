//! What found no room in a flight recorder, in words.

use crate::model::session::Gone;
use crate::text::count;

/// How much was dropped since the session began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropped {
    /// Names of functions and places.
    pub names: u64,
    /// Credits.
    pub credits: u64,
    /// Sentences.
    pub notes: u64,
    /// Users' names.
    pub users: u64,
    /// Some processes whose addresses are hidden: each may be told of many times.
    pub hidden: bool,
    /// Refused calls with details, from before the stretch, of kinds that have none now.
    pub examples: u64,
    /// Values of the limit.
    pub limits: u64,
}

impl Dropped {
    /// Of that, and of processes that ended in the stretch and found no room.
    pub fn remarks(&self, no_room: Gone) -> impl Iterator<Item = String> + use<> {
        let Gone { processes, refused } = no_room;
        let ended = (processes > 0).then(|| {
            format!(
                "The flight recorder had no room for {} that ended in this stretch, with {}: they have no rows",
                count(processes, "process", "processes"),
                count(refused, "refused call", "refused calls")
            )
        });
        let names = (self.names > 0).then(|| {
            format!(
                "The flight recorder had no room for all names of functions and places and dropped {}, the oldest, since the \
                 session began: what has no name here may have had one",
                count(self.names, "name", "names")
            )
        });
        let credits = (self.credits > 0).then(|| {
            format!(
                "The flight recorder had no room for all that is known of who made VMAs and dropped {}: some that were \
                 sampled are among those that were not",
                count(self.credits, "credit", "credits")
            )
        });
        let examples = (self.examples > 0).then(|| {
            format!(
                "The flight recorder had no room for the details of {} before this stretch: their kinds are counted, \
                 and may have no example",
                count(self.examples, "refused call", "refused calls")
            )
        });
        let rest = [
            (self.notes, "note", "notes"),
            (self.users, "name of a user", "names of users"),
            (self.limits, "look at vm.max_map_count", "looks at vm.max_map_count"),
        ];
        let hidden = self.hidden.then(|| "some processes whose addresses are hidden".to_owned());
        let rest = rest.into_iter().filter(|(n, ..)| *n > 0).map(|(n, one, more)| count(n, one, more));
        let rest: Vec<String> = rest.chain(hidden).collect();
        let rest = (!rest.is_empty()).then(|| {
            format!("The flight recorder had no room for {} since the session began", rest.join(" and "))
        });
        [ended, names, credits, examples, rest].into_iter().flatten()
    }
}
