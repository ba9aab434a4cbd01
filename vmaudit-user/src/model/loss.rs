//! Why something is not in a report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reasons that are counted, in the order of their names: a report lists them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Calls whose answer could not be asked for, or came too late.
    AnswersLost,
    /// A process whose birth nobody saw was met later.
    BirthMissed,
    /// Changes of map_count between two that were seen.
    ChangesMissed,
    /// Samples of who raises a count that found the ring buffer full: that part is nobody's.
    CreditsLost,
    /// An end of an address space that nobody saw.
    DeathMissed,
    /// Examples of refused calls beyond what the audit keeps.
    ExamplesFull,
    /// Kinds of failure beyond the room of an address space.
    GroupsFull,
    /// Changes whose place was not found because another task took the processor meanwhile.
    LedgerDisturbed,
    /// Changes whose place found no room: they are counted, and are nobody's.
    LedgerFull,
    /// Processes of which samples say nothing: they ended too soon, or could not be read.
    ProcessUnseen,
    /// Events that the kernel did not show to a program.
    ProgramSkipped,
    /// The kernel's memory could not be read.
    ReadFailed,
    /// The recording is damaged or ends before its session did.
    RecordingCut,
    /// Records that found the ring buffer full.
    RingFull,
    /// State of a call that found no room, or was overwritten by another's.
    SectionLost,
    /// Signals of which nothing could be kept: who sent them is not known.
    SignalsFull,
    /// Programs whose counter of skipped events cannot be read.
    SkipsUnreadable,
    /// Copies of stacks that gave way to other records: these stacks are followed by frame pointers alone, but for those of
    /// `--stacks` whose copy a later change brought.
    StackCopyMissing,
    /// Stacks that could not be taken.
    StackMissing,
    /// Address spaces that found no slot.
    TableFull,
    /// Processes that began once a runner of tests had been seen and were over before anybody could tell whether, and to
    /// which test, they belong.
    TestUnknown,
    /// Processes that found no room among those that are followed.
    TreeFull,
}

impl LossReason {
    /// All, in order.
    pub const ALL: [Self; 22] = [
        Self::AnswersLost,
        Self::BirthMissed,
        Self::ChangesMissed,
        Self::CreditsLost,
        Self::DeathMissed,
        Self::ExamplesFull,
        Self::GroupsFull,
        Self::LedgerDisturbed,
        Self::LedgerFull,
        Self::ProcessUnseen,
        Self::ProgramSkipped,
        Self::ReadFailed,
        Self::RecordingCut,
        Self::RingFull,
        Self::SectionLost,
        Self::SignalsFull,
        Self::SkipsUnreadable,
        Self::StackCopyMissing,
        Self::StackMissing,
        Self::TableFull,
        Self::TestUnknown,
        Self::TreeFull,
    ];

    /// What was lost, for people: each time one of these.
    pub fn words(self) -> &'static str {
        match self {
            Self::AnswersLost => "a call whose answer was not seen",
            Self::BirthMissed => "a process whose start was not seen",
            Self::ChangesMissed => "a change of a VMA count",
            Self::CreditsLost => "a sample of who made VMAs",
            Self::DeathMissed => "a process whose end was not seen",
            Self::ExamplesFull => "details of a refused call, for lack of room",
            Self::GroupsFull => "a kind of refusal, for lack of room",
            Self::LedgerDisturbed => "the place of a change",
            Self::LedgerFull => "the place of a change, for lack of room",
            Self::ProcessUnseen => "a process that was not measured",
            Self::ProgramSkipped => "an event that the kernel did not show",
            Self::ReadFailed => "a count that could not be read",
            Self::RecordingCut => "the rest of the recording",
            Self::RingFull => "details that found the ring buffer full",
            Self::SectionLost => "what a call had done so far",
            Self::SignalsFull => "who sent a signal, for lack of room",
            Self::SkipsUnreadable => "a count of skipped events",
            Self::StackCopyMissing => "a copy of a stack",
            Self::StackMissing => "a stack",
            Self::TableFull => "an address space, for lack of room",
            Self::TestUnknown => "the name of a process's test",
            Self::TreeFull => "a process to follow, for lack of room",
        }
    }

    /// Of it no count and no refused call is less sure: it tells less of where from, or whose.
    pub fn is_of_names_alone(self) -> bool {
        matches!(
            self,
            Self::CreditsLost
                | Self::LedgerDisturbed
                | Self::LedgerFull
                | Self::StackCopyMissing
                | Self::TestUnknown
        )
    }

    /// The one that is called so; `None` for one of another version.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// As reports and recordings bear it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswersLost => "answers_lost",
            Self::BirthMissed => "birth_missed",
            Self::ChangesMissed => "changes_missed",
            Self::CreditsLost => "credits_lost",
            Self::DeathMissed => "death_missed",
            Self::ExamplesFull => "examples_full",
            Self::GroupsFull => "groups_full",
            Self::LedgerDisturbed => "ledger_disturbed",
            Self::LedgerFull => "ledger_full",
            Self::ProcessUnseen => "process_unseen",
            Self::ProgramSkipped => "program_skipped",
            Self::ReadFailed => "read_failed",
            Self::RecordingCut => "recording_cut",
            Self::RingFull => "ring_full",
            Self::SectionLost => "section_lost",
            Self::SignalsFull => "signals_full",
            Self::SkipsUnreadable => "skips_unreadable",
            Self::StackCopyMissing => "stack_copy_missing",
            Self::StackMissing => "stack_missing",
            Self::TableFull => "table_full",
            Self::TestUnknown => "test_unknown",
            Self::TreeFull => "tree_full",
        }
    }
}

/// What was not seen, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// When this was so, CLOCK_MONOTONIC ns; 0 in recordings of versions that did not tell.
    #[serde(default)]
    pub at_ns: u64,
    /// Totals by reason.
    pub counters: BTreeMap<LossReason, u64>,
    /// What events that were shown to none of the programs may have changed.
    pub doubt: Doubt,
    /// Whose the losses are that come of a user having had his share.
    #[serde(default)]
    pub shares: Vec<UsedShare>,
}

/// A user of whom something was left out, because he had as much of the table of address spaces, or of the ring buffer,
/// as was free while others were there too. (`table_full` and `ring_full` count it as well.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedShare {
    /// Real user id; `None`: several users who are counted together.
    pub uid: Option<u32>,
    /// How often an address space was not followed; one that changes tries again, so there may be fewer of them.
    pub address_spaces: u64,
    /// Records that were dropped.
    pub records: u64,
}

impl UsedShare {
    /// One sentence for people.
    pub fn sentence(&self) -> String {
        let whose = match self.uid {
            Some(uid) => format!("uid {uid} used its share"),
            None => "several users, counted together, used their share".to_owned(),
        };
        let mut left_out = Vec::new();
        if self.address_spaces > 0 {
            left_out.push(format!("an address space not followed {} times", self.address_spaces));
        }
        if self.records > 0 {
            left_out.push(format!("{} details dropped", self.records));
        }
        format!("{whose}: {}", left_out.join(", "))
    }
}

/// What can be wrong because the kernel skipped programs, and no row tells by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Any peak.
    pub peaks: bool,
    /// The list of processes: one can be missing, or bear an old name.
    pub processes: bool,
    /// Counts of calls and of refusals: they can be too low.
    pub calls: bool,
    /// Why a call was refused: what it did may have been seen in part, or be taken for what an earlier one did.
    pub causes: bool,
    /// Refusals by vm.max_map_count that show nowhere else (mremap, 6.17 to 7.0): some can be missing.
    #[serde(default)]
    pub at_limit: bool,
}

impl Doubt {
    /// Either's.
    pub fn or(self, other: Self) -> Self {
        Self {
            peaks: self.peaks || other.peaks,
            processes: self.processes || other.processes,
            calls: self.calls || other.calls,
            causes: self.causes || other.causes,
            at_limit: self.at_limit || other.at_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LossReason;

    #[test]
    fn a_recording_bears_the_names_of_a_report_in_their_order() {
        let names = LossReason::ALL.map(LossReason::name);
        assert!(names.is_sorted());
        assert!(LossReason::ALL.is_sorted());
        for reason in LossReason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }
}
