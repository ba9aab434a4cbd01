//! From addresses to frames, at the session's end.

use std::collections::HashSet;

use super::question::{Address, Name};
use super::{Area, DEADLINE, Symbols, c_library, helper, inside};
use crate::model::event::StackName;
use crate::model::report::Frame;

/// Names found.
#[derive(Debug, Default)]
pub struct Resolved {
    pub frames: Vec<StackName>,
    /// Generation and address of words that are no return address: the stack ends before them.
    pub ends: Vec<(u64, u64)>,
}

impl Symbols {
    /// Names for all stacks taken. Lasts up to [`DEADLINE`], usually a few milliseconds.
    pub fn resolve(&mut self) -> Resolved {
        let mut resolved = Resolved::default();
        let mut addresses = Vec::new();
        let mut seen = HashSet::new();
        for (&generation, image) in &self.images {
            for stack in &image.stacks {
                for (n, &ip) in stack.iter().enumerate() {
                    let at = inside(ip);
                    // The first is the task's own program counter, whatever it points at; the others are what a walk
                    // over frame pointers took for return addresses.
                    if n > 0 && image.holes.contains(&at) {
                        resolved.ends.push((generation, ip));
                        break;
                    }
                    let Some(area) = image.area(at) else { continue };
                    if !seen.insert((generation, ip)) {
                        continue;
                    }
                    let frame = without_name(ip, area);
                    resolved.frames.push(StackName { generation, ip, frame, inlined: Vec::new() });
                    addresses.push(Address {
                        at,
                        in_file: at - area.start + area.offset,
                        module: area.module,
                        generation,
                        jitted: helper::may_be_jitted(&area.name),
                    });
                }
            }
        }
        if !addresses.is_empty() {
            let read = helper::names(&self.modules, &self.images, &addresses, DEADLINE);
            self.unreadable = read.given_up;
            self.left_behind = read.left_behind;
            for (index, name) in read.names {
                if let Some(it) = resolved.frames.get_mut(index) {
                    put(name, it);
                }
            }
        }
        resolved
    }
}

fn without_name(ip: u64, area: &Area) -> Frame {
    let offset = ip - area.start + area.offset;
    let named = !area.name.is_empty();
    Frame { module: named.then(|| area.name.clone()), offset: named.then_some(offset), ..Frame::bare(ip) }
}

/// The name, and the functions inlined there.
fn put(name: Name, it: &mut StackName) {
    let of_c_library = it.frame.module.as_deref().is_some_and(c_library::is)
        || name.file.as_deref().is_some_and(c_library::is_source);
    let set = |frame: &mut Frame, name: Name| {
        frame.symbol = Some(name.symbol);
        frame.file = name.file.filter(|_| !of_c_library);
        frame.line = name.line.filter(|_| !of_c_library);
    };
    if !of_c_library {
        for inner in &name.inlined {
            let mut frame = Frame { inlined: true, ..it.frame.clone() };
            set(&mut frame, inner.clone());
            it.inlined.push(frame);
        }
    }
    set(&mut it.frame, name);
}
