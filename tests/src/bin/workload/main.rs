//! `workload`: makes VMAs in exactly known ways, and says on stdout what it did, one JSON line per process.
//!
//! Its own figures come from arithmetic and are checked against /proc/self/maps; between two measurements nothing but
//! the calls under test is made. Status 2: called wrongly; 97: stdout is gone; 98: its own count contradicts its
//! arithmetic; 99: the kernel did something that a case does not expect.

mod bench;
mod callers;
mod causes;
mod credits;
mod dies;
mod ends;
mod hostile;
mod intervals;
mod job_shell;
mod layouts;
mod left;
mod limit;
mod lodgers;
mod makers;
mod marked;
mod memory;
mod mixed;
mod more_calls;
mod named;
mod near;
mod neighbours;
mod outcomes;
mod own;
mod plain;
mod processes;
mod recordings;
mod sizes;
mod strangers;
mod stuck;
mod tasks;

use crate::memory::die;
use crate::processes::End;

const USAGE: &str = "\
workload [--look] [--linger MS] CASE [ARGUMENTS]   (--look: count at the peaks too; --linger: stay before ending;
                WORKLOAD_WORDS: CASE and ARGUMENTS from there)
  one process   burst N [after-exec] | holes N | shrink N | brk-shrink N | stackoverflow [LIMIT] | retries N | threads T N
                sizes CASE | needs LIMIT BYTES
                leader-exits N | attach N | around N | setname BYTES N | below-stack N | deep-stack KIB | mremap-all N
                bursts MS | leak PER_SECOND MS
                credits random|more|few|few-more|bursts|period-20|period-16|saw-tooth|shift|regrow|swings | credits threads N
                hostile | marked N | rude N|on | named threads|together|renames|many T N
  families      children N [exit|killed|exec|exec-at-once|exec-missing|exec-garbage] | reuse-pid N | generations N | vfork N
                each CASE ARGUMENTS -- CASE ARGUMENTS ... | exec-self N K | exec-by-thread N K | daemon N MS | flood N
                orphans N MS STAY
                crowd N VMAS | beside-standing N M | one-by-one N | exec-chain N | strangers N | needy N
                lodger beside|vfork|exec|outlives N M
  refusals      limit CALL [REPEAT] | causes KIND [N] | near NAME [N] | over-as N | full-cgroup FOLDER N
                full-of-tasks user MOST N [STOP...]|cgroup FOLDER N|machine N|numbers N | dead-namespace N | too-large-to-copy N | exec-without-room | stacks N
                mixed THREADS N [SIGNAL EVERY US] | mixed-stack N | mixed-full THREADS N | outcomes CASE | sites HERE THERE
                left CASE | more-calls CASE N | unmap-everything
                ends stack|stack-no-room|stack-no-space|thread-stack|null|abort|file-cut FOLDER|tmpfs FOLDER|huge-page
                     |cpu-soft|cpu-hard|kill-child SIGNAL|child WORDS...|exec PROGRAM WORDS...|handled N|cgroup FOLDER
                dies abort|kill|exit [libc|without PROGRAM OTHER] | callers DEPTH [thread]
                (names: workload list)
  layouts       layout NAME before|after N   (what explain is told of, and the same after its advice; until stdin ends)
                shared-until-refused
  neighbours    busy N | map-calls N   (until stdin ends) | beside-thief CASE [ARGUMENTS]
  terminal      job-shell PROGRAM ARGUMENTS... | type-ahead
  stuck         stuck FOLDER | stuck-refused FOLDER | stuck-exec FOLDER WORDS...   (root, /dev/fuse)
  plain         cat | exit STATUS | kill-self SIGNAL | stop-self | sleep SECONDS | signals COUNT | facts | bytes | exec-loop N
  bench         bench pair|pair-anywhere|threads|getppid|fault|toggle|births|growth [SECONDS]
                stretch RECORDING changes|figures|states|refusals|all EVENTS TO";

fn main() {
    let args: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // A command line that is only for show.
    let instead = std::env::var("WORKLOAD_WORDS").ok();
    let words: Vec<&str> = match &instead {
        Some(words) => words.split(' ').collect(),
        None => args.iter().skip(1).map(String::as_str).collect(),
    };
    let words = match words.as_slice() {
        ["--look", rest @ ..] => {
            own::look();
            rest
        }
        all => all,
    };
    let words = match words {
        ["--linger", ms, rest @ ..] => {
            memory::LINGER.store(number(ms), std::sync::atomic::Ordering::Relaxed);
            rest
        }
        all => all,
    };
    dispatch(words)
}

/// Cases about sizes, about what stays mapped, about who made it, about time and about stretches that have names.
fn sizes(words: &[&str]) -> ! {
    match *words {
        ["unmap-everything"] => more_calls::unmap_everything(),
        ["left", name] => left::run(name),
        ["bursts", ms] => intervals::bursts(number(ms)),
        ["leak", per_s, ms] => intervals::leak(number(per_s), number(ms)),
        ["sizes", name] => sizes::run(name),
        ["credits", "threads", n] => credits::threads(number(n)),
        ["credits", name] => credits::run(name),
        ["needs", limit, bytes] => sizes::needs(limit, bytes),
        ["marked", n] => marked::marked(number(n)),
        ["rude", "on"] => marked::rude_on(),
        ["rude", "sender"] => marked::rude_sender(),
        ["rude", n] => marked::rude(number(n)),
        _ => die(2, format_args!("{USAGE}")),
    }
}

/// Those that are refused something on purpose.
fn refused(words: &[&str]) -> ! {
    match *words {
        ["limit", call] => limit::run(call, 3),
        ["limit", call, repeat] => limit::run(call, number(repeat)),
        ["causes", kind] => causes::run(kind, 5),
        ["causes", kind, n] => causes::run(kind, number(n)),
        ["over-as", n] => causes::over_as(number(n)),
        ["full-cgroup", folder, n] => near::full_cgroup(folder, n),
        ["full-of-tasks", "user", most, n, ref stops @ ..] => {
            let stops: Vec<usize> = stops.iter().map(|stop| number(stop)).collect();
            tasks::full_user(number(most), number(n), &stops)
        }
        ["full-of-tasks", "cgroup", folder, n] => tasks::full(Some(folder), "pids_max", number(n)),
        ["full-of-tasks", "machine", n] => tasks::full(None, "threads_max", number(n)),
        ["full-of-tasks", "numbers", n] => tasks::full(None, "pid_max", number(n)),
        ["too-large-to-copy", n] => tasks::too_large_to_copy(number(n)),
        ["dead-namespace", n] => tasks::dead_namespace(number(n)),
        _ => die(2, format_args!("{USAGE}")),
    }
}

fn dispatch(words: &[&str]) -> ! {
    match *words {
        ["burst", n] => makers::burst("burst", number(n)),
        ["burst", n, "after-exec"] => makers::burst("after-exec", number(n)),
        ["deep-stack", kib] => makers::deep_stack(number(kib)),
        ["holes", n] => makers::holes(number(n)),
        ["shrink", n] => makers::shrink(number(n)),
        ["brk-shrink", n] => makers::brk_shrink(number(n)),
        ["stackoverflow"] => makers::stackoverflow(None),
        ["stackoverflow", limit] => makers::stackoverflow(Some(number(limit))),
        ["retries", n] => makers::retries(number(n)),
        ["below-stack", n] => makers::below_stack(number(n)),
        ["mremap-all", n] => makers::mremap_all(number(n)),
        ["threads", t, n] => makers::threads(number(t), number(n)),
        ["mixed", t, n] => mixed::mixed(number(t), number(n), None),
        ["mixed", t, n, us] => mixed::mixed(number(t), number(n), Some(number(us))),
        ["mixed-stack", n] => mixed::mixed_stack(number(n)),
        ["mixed-full", t, n] => mixed::mixed_full(number(t), number(n)),
        ["leader-exits", n] => makers::leader_exits(number(n)),
        ["attach", n] => makers::attach(number(n)),
        ["around", n] => makers::around(number(n)),
        ["named", how @ ("threads" | "together" | "renames" | "many"), t, n] => {
            let how = ["threads", "together", "renames", "many"].into_iter().find(|it| *it == how);
            named::named(how.unwrap_or("threads"), number(t), number(n))
        }
        ["hostile"] => hostile::hostile(),
        ["setname", name, n] => makers::setname(name.as_bytes(), number(n)),
        ["children", n] => processes::children(number(n), End::Exit),
        ["children", n, end] => processes::children(number(n), end_named(end)),
        ["reuse-pid", n] => processes::reuse_pid(number(n)),
        ["generations", n] => processes::generations(number(n)),
        ["vfork", n] => processes::vfork(number(n)),
        ["lodger", how, n, m] => lodgers::lodger(how, number(n), number(m)),
        ["exec-self", n, k] => processes::exec_self(number(n), number(k)),
        ["each", ref lines @ ..] => processes::each(&lines.split(|word| *word == "--").collect::<Vec<_>>()),
        ["exec-by-thread", n, k] => processes::exec_by_thread(number(n), number(k)),
        ["daemon", n, ms] => processes::daemon(number(n), number(ms)),
        ["orphans", n, ms, stay] => processes::orphans(number(n), number(ms), number(stay)),
        ["flood", n] => processes::flood(number(n)),
        ["beside-standing", n, m] => processes::beside_standing(number(n), number(m)),
        ["one-by-one", n] => processes::one_by_one(number(n)),
        ["exec-chain", n] => processes::exec_chain(number(n)),
        ["crowd", n, vmas] => processes::crowd(number(n), number(vmas)),
        ["needy", n] => strangers::needy(number(n)),
        ["strangers", n] => strangers::strangers(number(n)),
        [
            "limit" | "causes" | "over-as" | "full-cgroup" | "full-of-tasks" | "too-large-to-copy"
            | "dead-namespace",
            ..,
        ] => refused(words),
        ["exec-without-room"] => near::exec_without_room(),
        ["fill-cgroup", n] => near::fill_cgroup(number(n)),
        ["more-calls", name, n] => more_calls::run(name, number(n)),
        ["outcomes", name] => outcomes::run(name),
        ["sites", here, there] => outcomes::sites(number(here), number(there)),
        [
            "left" | "sizes" | "needs" | "unmap-everything" | "credits" | "bursts" | "leak" | "marked"
            | "rude",
            ..,
        ] => sizes(words),
        ["near", name] => near::run(name, 3),
        ["near", name, n] => near::run(name, number(n)),
        ["callers", depth] => callers::run(number(depth), false),
        ["callers", depth, "thread"] => callers::run(number(depth), true),
        ["ends", how, ref more @ ..] => ends::run(how, more),
        ["fill"] => ends::fill(),
        ["dies", how] => dies::run(how, false),
        ["dies", how, "libc"] => dies::run(how, true),
        ["dies", how, "without", program, other] => dies::without(how, program, other),
        ["stuck", folder] => stuck::lock(folder),
        ["stuck-refused", folder] => stuck::refused(folder),
        ["stuck-exec", folder, ref words @ ..] => stuck::exec(folder, words),
        ["layout", name, "before", n] => layouts::run(name, false, number(n)),
        ["layout", name, "after", n] => layouts::run(name, true, number(n)),
        ["shared-until-refused"] => layouts::shared_until_refused(),
        ["stacks", n] => near::stacks(number(n)),
        ["busy", n] => neighbours::busy(number(n)),
        ["beside-thief", ref rest @ ..] => {
            neighbours::start_thief();
            dispatch(rest)
        }
        ["map-calls", n] => neighbours::map_calls(number(n)),
        ["list"] => {
            plain::lines(limit::names().map(|n| ("limit", n)).chain(causes::names().map(|n| ("causes", n))))
        }
        ["cat"] => makers::cat(),
        ["exit", status] => memory::leave(number(status)),
        ["kill-self", signal] => plain::kill_self(number(signal)),
        ["stop-self"] => plain::stop_self(),
        ["sleep", seconds] => plain::sleep(number(seconds)),
        ["signals", count] => plain::signals(number(count)),
        ["job-shell", program, ref arguments @ ..] => job_shell::run(program, arguments),
        ["type-ahead"] => plain::type_ahead(),
        ["facts"] => plain::facts(),
        ["exec-loop", n] => plain::exec_loop(number(n)),
        ["bytes"] => plain::bytes(),
        ["stretch", from, kind, events, to] => recordings::stretch(from, kind, number(events), to),
        ["bench", name] => bench::run(name, 1.0),
        ["bench", name, seconds] => bench::run(name, number(seconds)),
        _ => die(2, format_args!("{USAGE}")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| die(2, format_args!("not a number: {word}\n{USAGE}")))
}

fn end_named(word: &str) -> End {
    match word {
        "exit" => End::Exit,
        "killed" => End::Killed,
        "exec" => End::Exec,
        "exec-at-once" => End::ExecAtOnce,
        "exec-missing" => End::ExecMissing,
        "exec-garbage" => End::ExecGarbage,
        _ => die(2, format_args!("no such end: {word}\n{USAGE}")),
    }
}
