//! What the numbers of an event are called where events are written down: a call by the kernel's name, a class by the
//! facts that its bits stand for. The names are frozen (a test holds them); the numbers may change with any version.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use vmaudit_common::call::{CALLS, Call};
use vmaudit_common::{
    CLASS_ASKED, CLASS_BEYOND, CLASS_CHARGED, CLASS_COUNTS, CLASS_CUT_END, CLASS_CUT_START, CLASS_DONE,
    CLASS_DRIVER, CLASS_FILE, CLASS_FIRST, CLASS_FIXED, CLASS_GAP, CLASS_GROWS, CLASS_HEAP_REACHED,
    CLASS_HUGE, CLASS_LIMIT_POLLED, CLASS_LOCKS, CLASS_LOOKED, CLASS_LOW, CLASS_MAYMOVE, CLASS_MC0_MASK,
    CLASS_MC1_SHIFT, CLASS_NO_ACCESS, CLASS_NO_HOLE, CLASS_NONE_LOCKED, CLASS_NORESERVE, CLASS_ONE,
    CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_OVER_RAM, CLASS_OVERCOMMIT_REFUSED,
    CLASS_SEARCH_LOST, CLASS_SEARCHED, CLASS_SECOND, CLASS_SECTION, CLASS_SECTION_LOST, CLASS_SURELY_OVER_AS,
    CLASS_SURELY_OVER_DATA, CLASS_TARGETED, CLASS_TOO_LONG, CLASS_VAST,
};

/// Each fact of a class with its bit. Where calls share a bit, its name is that of the first meaning.
const FACTS: [(&str, u64); 40] = [
    ("lock_section", CLASS_SECTION),
    ("fixed", CLASS_FIXED),
    ("may_move", CLASS_MAYMOVE),
    ("grows", CLASS_GROWS),
    ("over_rlimit_as", CLASS_OVER_AS),
    ("over_rlimit_data", CLASS_OVER_DATA),
    ("over_rlimit_memlock", CLASS_OVER_MEMLOCK),
    ("no_free_range", CLASS_NO_HOLE),
    ("searched", CLASS_SEARCHED),
    ("lock_section_lost", CLASS_SECTION_LOST),
    ("search_lost", CLASS_SEARCH_LOST),
    ("limit_polled", CLASS_LIMIT_POLLED),
    ("range_has_gap", CLASS_GAP),
    ("starts_inside_mapping", CLASS_CUT_START),
    ("ends_inside_mapping", CLASS_CUT_END),
    ("single_mapping", CLASS_ONE),
    ("counts_as_data", CLASS_COUNTS),
    ("charged", CLASS_CHARGED),
    ("already_so", CLASS_DONE),
    ("overcommit_refused", CLASS_OVERCOMMIT_REFUSED),
    ("heap_reached", CLASS_HEAP_REACHED),
    ("range_looked_at", CLASS_LOOKED),
    ("targeted", CLASS_TARGETED),
    // mmap: MAP_HUGETLB; mremap: MREMAP_DONTUNMAP.
    ("huge_or_dontunmap", CLASS_HUGE),
    ("no_access", CLASS_NO_ACCESS),
    ("vast", CLASS_VAST),
    ("of_a_file", CLASS_FILE),
    ("noreserve", CLASS_NORESERVE),
    ("below_4_gib", CLASS_LOW),
    ("beyond_last_address", CLASS_BEYOND),
    ("too_long", CLASS_TOO_LONG),
    ("more_than_ram_and_swap", CLASS_OVER_RAM),
    ("nothing_locked", CLASS_NONE_LOCKED),
    ("locks", CLASS_LOCKS),
    // By call: see vmaudit_common::CLASS_FIRST and CLASS_SECOND.
    ("first_of_call", CLASS_FIRST),
    ("second_of_call", CLASS_SECOND),
    ("arguments_told", CLASS_ASKED),
    ("surely_over_rlimit_as", CLASS_SURELY_OVER_AS),
    ("surely_over_rlimit_data", CLASS_SURELY_OVER_DATA),
    ("of_a_driver", CLASS_DRIVER),
];

/// The number of a call by its name. Error: no call of this version is called so.
fn call_by_name(name: &str) -> Option<Call> {
    CALLS.iter().position(|info| info.name == name).and_then(|at| Call::try_from(at).ok())
}

/// Takes the name of a call.
struct ByName;

impl Visitor<'_> for ByName {
    type Value = Call;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a call")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Call, E> {
        call_by_name(name).ok_or_else(|| E::custom("a call of another version"))
    }
}

impl<'de> DeserializeSeed<'de> for ByName {
    type Value = Call;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Call, D::Error> {
        from.deserialize_str(self)
    }
}

/// `#[serde(with)]` of a call.
pub mod call {
    use serde::{Deserializer, Serializer};

    use super::{ByName, Call};
    use crate::model::cause::name_of;

    /// Writes the name.
    pub fn serialize<S: Serializer>(call: &Call, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(name_of(*call))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Call, D::Error> {
        from.deserialize_str(ByName)
    }
}

/// `#[serde(with)]` of figures by call.
pub mod calls {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{MapAccess, Visitor},
    };

    use super::{ByName, Call};
    use crate::model::{call_stat::CallStat, cause::name_of};

    /// Writes a map from names.
    pub fn serialize<S: Serializer>(calls: &[(Call, CallStat)], out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(calls.iter().map(|(call, stat)| (name_of(*call), stat)))
    }

    /// Reads it; of a call that comes twice, what came last.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Call, CallStat)>, D::Error> {
        struct Figures;

        impl<'de> Visitor<'de> for Figures {
            type Value = Vec<(Call, CallStat)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("figures by call")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // Most processes use few calls.
                let mut read: Self::Value = Vec::with_capacity(map.size_hint().unwrap_or(0).min(16));
                while let Some(call) = map.next_key_seed(ByName)? {
                    let stat = map.next_value()?;
                    match read.binary_search_by_key(&call, |(call, _)| *call) {
                        Ok(at) => drop(read.get_mut(at).map(|known| known.1 = stat)),
                        Err(at) => read.insert(at, (call, stat)),
                    }
                }
                Ok(read)
            }
        }
        from.deserialize_map(Figures)
    }
}

/// `#[serde(with)]` of a class.
pub mod class {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error};

    use super::{CLASS_MC0_MASK, CLASS_MC1_SHIFT, FACTS};

    #[derive(serde::Serialize, Deserialize)]
    struct Named<'a> {
        /// Where map_count stood when the lock was taken, see `vmaudit_common::relative_to_max`.
        #[serde(default, skip_serializing_if = "is_zero")]
        before: u64,
        /// Where it stood when the lock was let go.
        #[serde(default, skip_serializing_if = "is_zero")]
        after: u64,
        #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
        facts: Vec<std::borrow::Cow<'a, str>>,
    }

    fn is_zero(number: &u64) -> bool {
        *number == 0
    }

    /// Writes the facts.
    pub fn serialize<S: Serializer>(class: &u64, out: S) -> Result<S::Ok, S::Error> {
        let facts =
            FACTS.iter().filter(|(_, bit)| class & bit != 0).map(|(name, _)| (*name).into()).collect();
        Named { before: class & CLASS_MC0_MASK, after: class >> CLASS_MC1_SHIFT & CLASS_MC0_MASK, facts }
            .serialize(out)
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let Named { before, after, facts } = Named::deserialize(from)?;
        if before > CLASS_MC0_MASK || after > CLASS_MC0_MASK {
            return Err(D::Error::custom("a class out of range"));
        }
        let mut class = before | after << CLASS_MC1_SHIFT;
        for fact in &facts {
            let (_, bit) = FACTS
                .iter()
                .find(|(name, _)| name == fact)
                .ok_or_else(|| D::Error::custom("a fact of another version"))?;
            class |= bit;
        }
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Needed, RefusalGroup};

    fn group(call: Call, class: u64) -> RefusalGroup {
        RefusalGroup {
            call,
            errno: 12,
            class,
            count: 1,
            first_ns: 2,
            last_ns: 3,
            kept_bytes: 4,
            recovered: 0,
            needed: Needed::default(),
            sites: Vec::new(),
        }
    }

    #[test]
    fn every_bit_of_a_class_has_one_name() {
        let all = FACTS.iter().fold(CLASS_MC0_MASK | CLASS_MC0_MASK << CLASS_MC1_SHIFT, |all, (_, bit)| {
            assert_eq!(all & bit, 0, "twice");
            all | bit
        });
        assert_eq!(all, (1 << (FACTS.len() + 8)) - 1);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for class in [0, (1 << 48) - 1, 7 | 8 << CLASS_MC1_SHIFT | CLASS_SECTION, CLASS_HUGE | CLASS_GAP] {
            for call in 0..CALLS.len() {
                let group = group(call as Call, class);
                let text = serde_json::to_string(&group).unwrap();
                assert_eq!(serde_json::from_str::<RefusalGroup>(&text).unwrap(), group, "{text}");
            }
        }
    }

    /// Recordings of every version must be read for ever: a change here is a new version of the format.
    #[test]
    fn the_names_are_frozen() {
        let text = serde_json::to_string(&group(vmaudit_common::call::MUNMAP, u64::MAX)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"call":"munmap","errno":12,"class":{"before":15,"after":15,"facts":["lock_section","fixed","may_move","#,
                r#""grows","over_rlimit_as","over_rlimit_data","over_rlimit_memlock","no_free_range","searched","#,
                r#""lock_section_lost","search_lost","limit_polled","range_has_gap","starts_inside_mapping","#,
                r#""ends_inside_mapping","single_mapping","counts_as_data","charged","already_so","overcommit_refused","#,
                r#""heap_reached","range_looked_at","targeted","huge_or_dontunmap","no_access","vast","of_a_file","noreserve","#,
                r#""below_4_gib","beyond_last_address","too_long","more_than_ram_and_swap","nothing_locked","locks","#,
                r#""first_of_call","second_of_call","arguments_told","surely_over_rlimit_as","#,
                r#""surely_over_rlimit_data","of_a_driver"]},"count":1,"first_ns":2,"last_ns":3,"#,
                r#""kept_bytes":4}"#
            )
        );
    }

    #[test]
    fn what_another_version_wrote_is_an_error() {
        for text in [
            r#"{"call":"nonsense","errno":12,"class":{},"count":1,"first_ns":2,"last_ns":3,"kept_bytes":4}"#,
            r#"{"call":"mmap","errno":12,"class":{"facts":["new"]},"count":1,"first_ns":2,"last_ns":3,"kept_bytes":4}"#,
            r#"{"call":"mmap","errno":12,"class":{"before":16},"count":1,"first_ns":2,"last_ns":3,"kept_bytes":4}"#,
        ] {
            assert!(serde_json::from_str::<RefusalGroup>(text).is_err(), "{text}");
        }
    }
}
