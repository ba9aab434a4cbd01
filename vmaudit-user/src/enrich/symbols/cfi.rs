//! Unwind information: from a function's registers to its caller's, by `.eh_frame` or `.debug_frame` of an ELF file. It
//! comes from a stranger: expressions end after [`STEPS`] operations, and what does not fit is an error.

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EhFrameHdr, Encoding, EndianSlice, EvaluationResult,
    Expression, FrameDescriptionEntry, LittleEndian, Location, ParsedEhFrameHdr, Register, RegisterRule,
    UnwindContext, UnwindSection, UnwindTableRow, Value,
};
use object::{Object as _, ObjectSection as _};

use super::registers::{RETURN, Registers, SP};
use super::stack_copy::StackCopy;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Row<'c> = &'c UnwindTableRow<usize>;

/// Operations of one expression. Compilers need a dozen.
const STEPS: u32 = 1000;
/// Bytes of code at a program's first instruction that have no caller.
const ENTRY: u64 = 0x40;

/// What stands above a function.
#[derive(Debug, PartialEq, Eq)]
pub enum Above {
    /// Its caller; `signal`: a signal interrupted it there, so its `ip` follows no call.
    Caller { registers: Box<Registers>, signal: bool },
    /// Nothing: a thread's first function.
    Nothing,
}

/// Why the caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The file says nothing of the address.
    NoInformation,
    /// What it says needs this address, of which nothing was copied.
    NotCopied(u64),
    /// What it says makes no sense, or needs a register that is not known.
    Contradiction,
}

/// The unwind information of one file.
pub struct Cfi<'a> {
    eh_frame: Option<EhFrame<Bytes<'a>>>,
    index: Option<ParsedEhFrameHdr<Bytes<'a>>>,
    debug_frame: Option<DebugFrame<Bytes<'a>>>,
    bases: BaseAddresses,
    entry: u64,
    by_frame_pointers: bool,
}

impl<'a> Cfi<'a> {
    pub fn of(object: &object::File<'a>) -> Self {
        let section = |name| object.section_by_name(name);
        let bytes = |name| {
            let section = section(name)?;
            let plain = section.compressed_file_range().ok()?.format == object::CompressionFormat::None;
            Some(EndianSlice::new(
                section.data().ok().filter(|bytes| plain && !bytes.is_empty())?,
                LittleEndian,
            ))
        };
        let address = |name| section(name).map_or(0, |section| section.address());
        let bases = BaseAddresses::default()
            .set_eh_frame(address(".eh_frame"))
            .set_eh_frame_hdr(address(".eh_frame_hdr"))
            .set_text(address(".text"))
            .set_got(address(".got"));
        let vendor = match object.architecture() {
            object::Architecture::Aarch64 => gimli::Vendor::AArch64,
            _ => gimli::Vendor::Default,
        };
        let eh_frame = bytes(".eh_frame").map(|bytes| {
            let mut section = EhFrame::from(bytes);
            section.set_address_size(8);
            section.set_vendor(vendor);
            section
        });
        let debug_frame = bytes(".debug_frame").map(|bytes| {
            let mut section = DebugFrame::from(bytes);
            section.set_address_size(8);
            section.set_vendor(vendor);
            section
        });
        let index = bytes(".eh_frame_hdr").and_then(|bytes| EhFrameHdr::from(bytes).parse(&bases, 8).ok());
        Self {
            eh_frame,
            index,
            debug_frame,
            bases,
            entry: object.entry(),
            by_frame_pointers: section(".gopclntab").is_some() || section(".note.go.buildid").is_some(),
        }
    }

    /// The functions of this file keep frame pointers, and some of them change stacks: Go.
    pub fn keeps_frame_pointers(&self) -> bool {
        self.by_frame_pointers
    }

    /// What stands above the function with these registers, of which `at` is the current instruction as the file counts
    /// addresses.
    pub fn above(&self, at: u64, registers: &Registers, stack: &StackCopy) -> Result<Above, Unknown> {
        let mut context = UnwindContext::new();
        let frame = Frame { at, registers, stack, bases: &self.bases };
        let by_index = || {
            let (index, section) = (self.index.as_ref()?, self.eh_frame.as_ref()?);
            Some((
                index.table()?.fde_for_address(section, &self.bases, at, EhFrame::cie_from_offset),
                section,
            ))
        };
        if let Some((Ok(entry), section)) = by_index() {
            return frame.above(section, &entry, &mut context);
        }
        // Without an index, all of it is gone through; the time for that is bounded from outside.
        if let Some(section) = self.eh_frame.as_ref().filter(|_| self.index.is_none())
            && let Ok(entry) = section.fde_for_address(&self.bases, at, EhFrame::cie_from_offset)
        {
            return frame.above(section, &entry, &mut context);
        }
        if let Some(section) = &self.debug_frame
            && let Ok(entry) = section.fde_for_address(&self.bases, at, DebugFrame::cie_from_offset)
        {
            return frame.above(section, &entry, &mut context);
        }
        // The first function of a program and of a loader is written by hand and often without.
        let first = at.checked_sub(self.entry).is_some_and(|behind| self.entry != 0 && behind < ENTRY);
        if first { Ok(Above::Nothing) } else { Err(Unknown::NoInformation) }
    }
}

/// One function on the stack.
struct Frame<'f> {
    at: u64,
    registers: &'f Registers,
    stack: &'f StackCopy,
    bases: &'f BaseAddresses,
}

impl Frame<'_> {
    fn above<'a, S: UnwindSection<Bytes<'a>>>(
        &self,
        section: &S,
        entry: &FrameDescriptionEntry<Bytes<'a>>,
        context: &mut UnwindContext<usize>,
    ) -> Result<Above, Unknown> {
        let encoding = entry.cie().encoding();
        let row = entry
            .unwind_info_for_address(section, self.bases, context, self.at)
            .map_err(|_| Unknown::Contradiction)?;
        let cfa = self.cfa(section, row, encoding)?;
        let mut above = self.registers.clone();
        // That is where it was before the call, whatever it is called by.
        above.set(SP, Some(cfa));
        for (Register(number), rule) in row.registers() {
            if *rule != RegisterRule::SameValue {
                above.set(*number, self.value(section, rule, encoding, cfa)?);
            }
        }
        let column = entry.cie().return_address_register();
        let returns_to = match row.register(column) {
            // How the first function of a thread says that nobody called it.
            Some(RegisterRule::Undefined) => return Ok(Above::Nothing),
            None if column.0 != RETURN => return Err(Unknown::Contradiction),
            _ => above.get(column.0).ok_or(Unknown::Contradiction)?,
        };
        if returns_to == 0 {
            return Ok(Above::Nothing);
        }
        above.ip = returns_to;
        Ok(Above::Caller { registers: Box::new(above), signal: entry.is_signal_trampoline() })
    }

    /// The stack pointer before the call.
    fn cfa<'a, S: UnwindSection<Bytes<'a>>>(
        &self,
        section: &S,
        row: Row<'_>,
        encoding: Encoding,
    ) -> Result<u64, Unknown> {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.get(register.0).and_then(|base| base.checked_add_signed(*offset))
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(section).map_err(|_| Unknown::Contradiction)?;
                return self.evaluated(expression, encoding, None);
            }
        }
        .ok_or(Unknown::Contradiction)
    }

    /// A register of the caller.
    fn value<'a, S: UnwindSection<Bytes<'a>>>(
        &self,
        section: &S,
        rule: &RegisterRule<usize>,
        encoding: Encoding,
        cfa: u64,
    ) -> Result<Option<u64>, Unknown> {
        let evaluated = |expression: &gimli::UnwindExpression<usize>| {
            let expression = expression.get(section).map_err(|_| Unknown::Contradiction)?;
            self.evaluated(expression, encoding, Some(cfa))
        };
        Ok(match rule {
            RegisterRule::Offset(offset) => self.word(cfa.wrapping_add_signed(*offset))?,
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(register) => self.registers.get(register.0),
            RegisterRule::Expression(expression) => self.word(evaluated(expression)?)?,
            RegisterRule::ValExpression(expression) => Some(evaluated(expression)?),
            RegisterRule::Constant(value) => Some(*value),
            _ => None,
        })
    }

    /// A word of the stack. Below the stack pointer nothing is copied, and what was there may be overwritten: an unknown
    /// register, which few ask for.
    fn word(&self, at: u64) -> Result<Option<u64>, Unknown> {
        match self.stack.read(at, 8) {
            Some(word) => Ok(Some(word)),
            None if at < self.stack.sp => Ok(None),
            None => Err(Unknown::NotCopied(at)),
        }
    }

    fn evaluated(
        &self,
        expression: Expression<Bytes<'_>>,
        encoding: Encoding,
        initial: Option<u64>,
    ) -> Result<u64, Unknown> {
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(STEPS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut result = evaluation.evaluate().map_err(|_| Unknown::Contradiction)?;
        for _ in 0..STEPS {
            result = match result {
                EvaluationResult::Complete => {
                    let [piece] = evaluation.as_result() else { break };
                    return match piece.location {
                        Location::Address { address } => Ok(address),
                        _ => Err(Unknown::Contradiction),
                    };
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let Some(value) = self.registers.get(register.0) else { break };
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory { address, size, .. } if size <= 8 => {
                    let value = self.stack.read(address, size.into()).ok_or(Unknown::NotCopied(address))?;
                    evaluation.resume_with_memory(Value::Generic(value))
                }
                _ => break,
            }
            .map_err(|_| Unknown::Contradiction)?;
        }
        Err(Unknown::Contradiction)
    }
}
