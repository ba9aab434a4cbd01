//! How much is kept of one event: a file that anybody may have written can tell names and stacks of any length. No session
//! tells more than this, so that its report is the same.

use vmaudit_common::call::Call;
use vmaudit_common::{MAKER_FRAMES, STACK_FRAMES};

use crate::model::event::{Event, FollowedStack, MmState, StackName};
use crate::model::report::Frame;
use crate::model::stack::{FUNCTIONS, INLINED, STACK_NOTES};
use crate::text::shorten;

/// Bytes of a name of a task: the kernel's have 15, and some change when they are made anonymous.
const NAME: usize = 255;
/// Bytes of another text: paths have 4096, and a byte that is no UTF-8 becomes three.
const TEXT: usize = 3 * 4096;

/// Cuts what is longer than any session tells.
pub(super) fn bound(event: &mut Event) {
    match event {
        Event::Mm(state) => {
            names_of(state);
            // Each once.
            state.calls.truncate(usize::from(Call::MAX) + 1);
        }
        Event::Sample(it) => shorten(&mut it.comm, NAME),
        Event::Refused(it) => {
            shorten(&mut it.comm, NAME);
            it.stack.truncate(STACK_FRAMES);
            let path = it.tasks.iter_mut().filter_map(|tasks| tasks.cgroup_path.as_mut());
            path.for_each(|path| shorten(path, TEXT));
        }
        Event::Ended(it) => {
            shorten(&mut it.comm, NAME);
            it.signal.iter_mut().for_each(|signal| shorten(&mut signal.by.comm, NAME));
        }
        Event::Process(it) => {
            [&mut it.exe, &mut it.cgroup].into_iter().flatten().for_each(|path| shorten(path, TEXT));
        }
        Event::Place(it) => it.stack.truncate(MAKER_FRAMES),
        Event::Stack(it) => stack(it),
        Event::Frame(it) => {
            let StackName { frame, inlined, .. } = it.as_mut();
            inlined.truncate(INLINED);
            inlined.iter_mut().chain([frame]).for_each(texts_of);
        }
        _ => {}
    }
}

fn names_of(state: &mut MmState) {
    shorten(&mut state.comm, NAME);
    let tasks = state.tasks.iter_mut().flat_map(|tasks| &mut tasks.names);
    tasks.for_each(|task| shorten(&mut task.name, NAME));
}

fn stack(FollowedStack { addresses, notes, .. }: &mut FollowedStack) {
    addresses.truncate(FUNCTIONS);
    notes.truncate(STACK_NOTES);
    notes.iter_mut().for_each(|note| shorten(note, TEXT));
}

fn texts_of(Frame { ip, symbol, module, file, .. }: &mut Frame) {
    [ip, symbol, module, file].into_iter().flatten().for_each(|text| shorten(text, TEXT));
}
