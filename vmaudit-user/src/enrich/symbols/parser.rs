//! Reads strangers' files, in a process that has no rights: it asks for descriptors and gives back names.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    os::fd::OwnedFd,
};

use super::{
    channel::{Ask, ask},
    debug_files::Wanted,
    demangle::{cut, demangle},
    dwarf::{self, Found},
    elf::{self, Program},
    perf_map,
    question::{Address, Answer, Name, Task, Work},
    unwind::{self, Followed},
};

/// Processor time for a piece of work, in milliseconds: for any file, and for each MiB of it. Files of compilers need a
/// tenth.
const TIME: u64 = 500;
const TIME_PER_MIB: u64 = 10;

/// The tasks one after the other; after each, `out` is told that it is done. An error: nobody answers or listens.
pub fn work(work: &Work<'_>, tasks: &[Task], opener: &OwnedFd, out: &mut dyn Write) -> io::Result<()> {
    let addresses = work.addresses;
    for &task in tasks {
        let mut lines = Vec::new();
        let of_this: Vec<(usize, &Address)> =
            addresses.iter().enumerate().filter(|(_, address)| task.concerns(address)).collect();
        let names = match task {
            Task::Stack(index, generation) => {
                if let Some(followed) = followed(work, index, generation, opener)? {
                    serde_json::to_writer(&mut lines, &Answer::Stack(index, followed))?;
                    lines.push(b'\n');
                }
                Vec::new()
            }
            Task::Elf(module) | Task::Dwarf(module) => {
                let offsets: Vec<u64> = of_this.iter().map(|(_, address)| address.in_file).collect();
                let lines = matches!(task, Task::Dwarf(_));
                match ask(opener, &Ask::Module(module))? {
                    Some(file) => of_program(opener, module, &file, &offsets, lines)?,
                    None => Vec::new(),
                }
            }
            Task::PerfMap(generation) => {
                let wanted: Vec<u64> = of_this.iter().map(|(_, address)| address.at).collect();
                match ask(opener, &Ask::PerfMap(generation))? {
                    Some(map) => of_generated_code(map, &wanted),
                    None => Vec::new(),
                }
            }
        };
        for ((index, _), name) in of_this.iter().zip(names) {
            if let Some(name) = name {
                serde_json::to_writer(&mut lines, &Answer::Name(*index, name))?;
                lines.push(b'\n');
            }
        }
        serde_json::to_writer(&mut lines, &Answer::Done)?;
        lines.push(b'\n');
        out.write_all(&lines)?;
    }
    Ok(())
}

fn followed(
    work: &Work<'_>,
    index: usize,
    generation: u64,
    opener: &OwnedFd,
) -> io::Result<Option<Followed>> {
    let (Some(stack), Some(image)) = (work.stacks.get(index), work.images.get(&generation)) else {
        return Ok(None);
    };
    let mut size = 0;
    allow(size);
    let mut load = |module| {
        let Some(file) = ask(opener, &Ask::Module(module))? else { return Ok(None) };
        let Some(program) = Program::new(&file) else { return Ok(None) };
        size += program.size();
        allow(size);
        Ok(Some(program))
    };
    unwind::follow(stack, image, &mut load).map(Some)
}

fn of_generated_code(mut map: File, wanted: &[u64]) -> Vec<Option<Name>> {
    allow(map.seek(SeekFrom::End(0)).map_or(0, |size| size.min(perf_map::SIZE)));
    if map.seek(SeekFrom::Start(0)).is_err() {
        return Vec::new();
    }
    perf_map::names(map, wanted).into_iter().map(|symbol| symbol.map(Name::bare)).collect()
}

fn of_program(
    opener: &OwnedFd,
    module: usize,
    file: &File,
    offsets: &[u64],
    lines: bool,
) -> io::Result<Vec<Option<Name>>> {
    let Some(program) = Program::new(file) else { return Ok(Vec::new()) };
    allow(program.size());
    let Some(object) = program.object() else { return Ok(Vec::new()) };
    let addresses: Vec<Option<u64>> = offsets.iter().map(|&at| elf::address(&object, at)).collect();
    let mut names = elf::names(&object, &addresses);
    if !lines {
        return Ok(names.into_iter().map(|raw| raw.map(|raw| Name::bare(demangle(&raw)))).collect());
    }
    // Debug information is in the program, or in a file of its own, which may have more symbols, too.
    let apart = if dwarf::has(&object) {
        None
    } else {
        apart(opener, &elf::wanted(&object), module, program.size())?
    };
    let apart = apart.as_ref().and_then(Program::object);
    let holder = apart.as_ref().unwrap_or(&object);
    let supplement = supplement(opener, holder, module)?;
    let supplement = supplement.as_ref().and_then(Program::object);
    let found = dwarf::find(holder, supplement.as_ref(), &addresses);
    if let Some(apart) = &apart {
        for (better, slot) in elf::names(apart, &addresses).into_iter().zip(&mut names) {
            *slot = better.or(slot.take());
        }
    }
    let found = found.into_iter().chain(std::iter::repeat_with(Vec::new));
    Ok(names.into_iter().zip(found).map(|(raw, found)| of_both(raw, found)).collect())
}

/// By symbol and by debug information.
fn of_both(raw: Option<String>, mut found: Vec<Found>) -> Option<Name> {
    let own = found.pop().unwrap_or_default();
    let symbol = match (own.function, raw) {
        // Sources of C libraries call by inner names what they export by others.
        (Some(inner), Some(exported)) if inner.starts_with("__") && is_plainer(&exported, &inner) => exported,
        // Debug information of lines only has names without their modules and types.
        (Some(short), Some(whole)) if is_mangled(&whole) && !is_mangled(&short) => whole,
        (Some(function), _) => function,
        (None, raw) => raw?,
    };
    let inlined = found.into_iter().filter_map(|it| Some((it.function?, it.file, it.line)));
    Some(Name {
        inlined: inlined.map(|(symbol, file, line)| name(&symbol, file, line)).collect(),
        ..name(&symbol, own.file, own.line)
    })
}

fn is_plainer(name: &str, than: &str) -> bool {
    let name = elf::without_version(name);
    !name.starts_with('_') || (than.starts_with(name) && name.len() < than.len())
}

fn is_mangled(name: &str) -> bool {
    name.starts_with("_Z") || name.starts_with("_R")
}

fn name(raw: &str, file: Option<String>, line: Option<u32>) -> Name {
    Name { file: file.as_deref().map(cut), line, ..Name::bare(demangle(raw)) }
}

/// The file with a program's debug information.
fn apart(opener: &OwnedFd, wanted: &Wanted, module: usize, size: u64) -> io::Result<Option<Program>> {
    for question in wanted.questions(module) {
        let Some(file) = ask(opener, &question)? else { continue };
        let Some(program) = Program::new(&file) else { continue };
        allow(size + program.size());
        let Some(build_id) = program.object().map(|object| elf::build_id(&object)) else { continue };
        if wanted.is(&file, build_id.as_deref(), &question) {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// What dwz moved into a file that several programs share: by build id alone, whatever its name.
fn supplement(opener: &OwnedFd, holder: &object::File<'_>, module: usize) -> io::Result<Option<Program>> {
    use object::Object as _;
    let Some((_, id)) = holder.gnu_debugaltlink().ok().flatten() else { return Ok(None) };
    let question = Ask::BuildId { module, id: id.to_vec() };
    let Some(program) = ask(opener, &question)?.as_ref().and_then(Program::new) else { return Ok(None) };
    let same = program.object().is_some_and(|object| elf::build_id(&object).as_deref() == Some(id));
    Ok(same.then_some(program))
}

/// Processor time from now on, for a file of this many bytes. Then this process ends, and the next goes on behind the
/// file: nothing else stops a file that is an endless loop.
pub(super) fn allow(size: u64) {
    let milliseconds = TIME + size / (1 << 20) * TIME_PER_MIB;
    let value =
        libc::timeval { tv_sec: (milliseconds / 1000) as i64, tv_usec: (milliseconds % 1000 * 1000) as i64 };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: `timer` lives through the call, nothing is written.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
}
