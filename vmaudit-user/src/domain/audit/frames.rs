//! Addresses of stacks as functions.

use crate::domain::audit::Audit;
use crate::model::report::Frame;

/// Bytes of the names of one stack: an address tells its names once, and a stack may be of it alone.
const TEXT: usize = 256 << 10;
/// Of one with more.
const TOO_LONG: &str = "The stack goes on: no more names of this length are kept.";

impl Audit {
    /// Addresses of the stack that the kernel followed by frame pointers, as far as they are callers.
    pub(super) fn callers<'a>(
        &'a self,
        generation: u64,
        caller: Option<u64>,
        stack: &'a [u64],
    ) -> impl Iterator<Item = u64> {
        let mut walked = stack.iter().copied().take_while(move |ip| !self.ends.contains(&(generation, *ip)));
        let innermost = walked.next();
        let caller = caller
            .into_iter()
            .filter(move |ip| self.frames.contains_key(&(generation, *ip)) && stack.get(1) != Some(ip));
        innermost.into_iter().chain(caller).chain(walked)
    }

    /// The functions at these addresses of a stack, innermost first; and what there is to say where there is no room for all.
    pub(super) fn frames_at(&self, generation: u64, addresses: &[u64]) -> (Vec<Frame>, Option<String>) {
        let mut frames = Vec::new();
        let mut room = TEXT;
        for frame in addresses.iter().flat_map(|&ip| self.functions_at(generation, ip)) {
            let Some(left) = room.checked_sub(text_of(&frame)) else {
                return (frames, Some(TOO_LONG.to_owned()));
            };
            room = left;
            frames.push(frame);
        }
        (frames, None)
    }

    fn functions_at(&self, generation: u64, ip: u64) -> Vec<Frame> {
        match self.frames.get(&(generation, ip)) {
            Some((frame, inlined)) => inlined.iter().chain([frame]).cloned().collect(),
            None => vec![Frame::bare(ip)],
        }
    }
}

fn text_of(Frame { ip, symbol, module, file, .. }: &Frame) -> usize {
    [ip, symbol, module, file].into_iter().flatten().map(String::len).sum()
}
