//! Inside a pid namespace: the programs know processes by the machine's own numbers, people here by other ones.
//!
//! Iterators walk the namespace of whoever opens them (kernel/bpf/task_iter.c:init_seq_pidns), the hooks see every task of
//! the machine. So the programs are told which namespace is meant, keep who has a number in it, and tell that number.

use std::collections::HashMap;

use anyhow::anyhow;
use vmaudit_common::{MmSlot, RecordHeader};

use super::Live;
use super::decode::Decoded;
use super::task_iter::Census;
use crate::model::event::{Event, MmState, ProcessFacts};
use crate::os::kernel::in_first_pid_namespace;

/// Where vmaudit runs, if not in the machine's first pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidNamespace {
    /// How far below the first one.
    pub level: u32,
    /// Its address in the kernel.
    pub at: u64,
    /// vmaudit's own process number, as the kernel has it.
    pub own: u32,
}

impl PidNamespace {
    /// The one that this process runs in; `None`: the first one. Error, as a sentence: it cannot be told.
    pub fn find() -> Result<Option<Self>, String> {
        if in_first_pid_namespace() {
            return Ok(None);
        }
        let (census, tasks) = Census::inside()?;
        let (level, at) = census.namespace();
        let own = std::process::id();
        let own = tasks.iter().find(|task| task.pid == own).map(|task| task.kernels_pid);
        let own = own.ok_or("vmaudit does not find itself among the tasks of its pid namespace")?;
        Ok(Some(Self { level, at, own }))
    }
}

/// Numbers of processes here by those of the kernel.
#[derive(Debug, Default)]
pub struct Numbers {
    shown: HashMap<u32, u32>,
    /// The other way around, as of the last look.
    kernels: HashMap<u32, u32>,
}

/// The head of a record.
pub fn head(bytes: &[u8]) -> Option<RecordHeader> {
    bytemuck::try_pod_read_unaligned(bytes.get(..size_of::<RecordHeader>())?).ok()
}

impl Live {
    /// The kernel's number of this process. Error: there is no such process any more.
    pub(super) fn kernels_number(&mut self, tgid: u32) -> anyhow::Result<u32> {
        let Some(numbers) = &mut self.numbers else { return Ok(tgid) };
        let gone = || anyhow!("there is no process {tgid}");
        if !numbers.kernels.contains_key(&tgid) {
            let (_, tasks) = Census::inside().map_err(|e| anyhow!(e))?;
            numbers.kernels = tasks.iter().map(|task| (task.pid, task.kernels_pid)).collect();
        }
        numbers.kernels.get(&tgid).copied().ok_or_else(gone)
    }

    /// The number here of a process of which the kernel has told this one; 0: nobody's who is followed.
    fn shown(&mut self, tgid: u32) -> u32 {
        let Some(numbers) = &self.numbers else { return tgid };
        if let Some(shown) = numbers.shown.get(&tgid) {
            return *shown;
        }
        let slot = (0..self.used()).map(|index| self.slots.read(index)).find(|slot| slot.tgid == tgid);
        let shown = slot.map_or(0, |slot| slot.shown_tgid);
        self.keep_number(tgid, shown);
        shown
    }

    fn keep_number(&mut self, tgid: u32, shown: u32) {
        if let Some(numbers) = &mut self.numbers
            && shown != 0
            && tgid != 0
        {
            numbers.shown.insert(tgid, shown);
        }
    }

    /// Puts numbers of here in the place of the kernel's. `head`: of the record that it was made of.
    pub(super) fn number(&mut self, decoded: &mut Decoded, head: Option<RecordHeader>) {
        let Some(head) = head.filter(|_| self.numbers.is_some()) else { return };
        // The number of a first thread is that of its process, and whoever execs is the first one.
        if head.tid == head.tgid
            || matches!(decoded, Decoded::PartOfPath(_) | Decoded::Event(Event::Process(_)))
        {
            self.keep_number(head.tgid, head.shown_tid);
        }
        match decoded {
            Decoded::PartOfPath(ProcessFacts { process, .. })
            | Decoded::Event(Event::Process(ProcessFacts { process, .. })) => {
                process.tgid = self.shown(process.tgid);
            }
            Decoded::Event(Event::Change(it)) => {
                (it.tgid, it.tid) = (self.shown(it.tgid), head.shown_tid);
            }
            Decoded::Event(Event::Refused(it)) => {
                (it.tgid, it.tid) = (self.shown(it.tgid), head.shown_tid);
            }
            Decoded::Event(Event::Credit(it)) => {
                (it.tgid, it.tid) = (self.shown(it.tgid), head.shown_tid);
            }
            Decoded::Event(Event::StackPiece(it)) => it.tid = head.shown_tid,
            Decoded::Event(Event::Ended(it)) => {
                let kernels = it.process.tgid;
                it.process.tgid = self.shown(kernels);
                it.ppid = self.shown(it.ppid);
                if let Some(signal) = &mut it.signal {
                    signal.tid = if signal.tid == kernels { it.process.tgid } else { 0 };
                    signal.by.tid =
                        if signal.by.tid == signal.by.tgid { self.shown(signal.by.tgid) } else { 0 };
                    signal.by.tgid = self.shown(signal.by.tgid);
                }
            }
            Decoded::Event(Event::Test(it)) => it.process.tgid = self.shown(it.process.tgid),
            Decoded::Event(Event::OomVictim(it)) => it.process.tgid = self.shown(it.process.tgid),
            _ => {}
        }
    }

    /// The same for the state of an address space.
    pub(super) fn number_state(&self, state: &mut MmState, slot: &MmSlot) {
        let Some(numbers) = &self.numbers else { return };
        state.process.tgid = slot.shown_tgid;
        state.ppid = slot.shown_ppid;
        if let Some(host) = &mut state.host {
            host.tgid = numbers.shown.get(&host.tgid).copied().unwrap_or(0);
        }
    }
}
