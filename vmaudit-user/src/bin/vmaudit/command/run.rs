//! `vmaudit run`: starts the command, follows it, reports.

use std::path::Path;

use anyhow::{Context as _, anyhow};

use vmaudit_user::domain::recommend::Margin;
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::launch::child::{self, Child};
use vmaudit_user::launch::exit_status;
use vmaudit_user::launch::user::User;
use vmaudit_user::model::report::Exit;
use vmaudit_user::model::session::Header;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::mark_socket::MarkSocket;
use vmaudit_user::os::rights;
use vmaudit_user::os::status_line;
use vmaudit_user::os::users;
use vmaudit_user::output::format::Kind;
use vmaudit_user::output::{Weight, say_as};
use vmaudit_user::session::opening::{AskedOf, give_up_rights, open_source};
use vmaudit_user::session::recorder::Recorder;
use vmaudit_user::session::{Ends, Session, Sink, Unfollowed};
use vmaudit_user::source::ebpf;

use crate::cli::run::RunArgs;
use crate::command::reporting::{Outcome, budget, conclude, wants_all_calls};
use crate::command::status::Status;
use crate::outputs::{Asked, Outputs};

/// `vmaudit run`. Returns vmaudit's exit status; does not return when the command died of a signal.
pub fn run(args: RunArgs) -> anyhow::Result<i32> {
    let margin = Margin::new(args.report.headroom, args.report.round).map_err(|e| anyhow!("{e}"))?;
    let budget = budget(&args.report)?;
    let asked = Asked { named: &args.report.output, screen: args.report.format, kind: Kind::Report };
    let outputs = Outputs::open_or(&asked, Writing::Whole, Destination::Stderr)?;
    let recording = args.report.record.as_deref().map(open_recording).transpose()?;
    let mut status = if args.report.quiet { None } else { Status::new() };
    let mut for_outputs = outputs.rights();
    for_outputs.extend(status.as_ref().and_then(|_| status_line::right()));
    let user = args.run_as.as_deref().map(User::find).transpose()?;
    let marks = args.marks.then(|| MarkSocket::open(user.as_ref().map(User::ids))).transpose()?;
    marks.iter().for_each(MarkSocket::tell);
    let mut child = match Child::prepare(&args.command, user.as_ref(), args.keep_caps) {
        Ok(child) => child,
        Err(e) => return Ok(unwatched(&args, user.as_ref(), &e)),
    };
    let facts = Facts::gather();
    let options = ebpf::Options {
        watch_all: false,
        follow_children: !args.no_follow,
        stream_changes: false,
        stream_failures: false,
        attach: false,
        calls: !args.report.peaks_only,
        exits: wants_all_calls(&args.report, &budget),
        stacks: true,
        makers: !args.report.peaks_only,
        ledger: args.report.stacks,
        ring_bytes: args.common.ring_bytes.unwrap_or(1 << 20),
        slots: args.common.slots,
        debug: args.common.debug_bpf,
        interval: args.common.interval,
        namespace: None,
    };
    let patience = Patience::default();
    let pid = child.pid.as_raw() as u32;
    let mut opened = open_source(args.common.source.into(), &facts, &options, pid, &patience)?;
    opened.events.extend(give_up_rights(Some(&child), &for_outputs));
    let anonymizer = || users::anonymizer(args.report.no_anonymize);
    let asked = AskedOf { margin, budget, all_rows: args.report.all_rows, watched: None };
    let header = opened.header(shown_command(&args), &anonymizer(), asked);
    let (mut recorder, not_recorded) = begin_recording(recording, &header, None);
    let mut sinks: Vec<&mut dyn Sink> = recorder.iter_mut().map(|it| it as &mut dyn Sink).collect();
    sinks.extend(status.iter_mut().map(|it| it as &mut dyn Sink));
    let mut enrichment = Enrichment::new(!args.report.no_symbols, anonymizer(), header.start_ns, &patience);
    if args.report.show_args {
        enrichment = enrichment.with_command_lines(&patience);
    }
    let mut session = Session::new(&header, opened.source, Some(enrichment), anonymizer(), sinks, patience);
    marks.into_iter().for_each(|socket| session.with_marks(socket));
    opened.events.into_iter().for_each(|event| session.take(event));
    // No error, and the report's coverage says it too.
    if let Some(why) = opened.instead.filter(|_| !args.report.quiet) {
        session.announce(format!("looking at /proc instead of eBPF ({why})"));
    }
    let ends = Ends { linger: args.linger, ..Ends::default() };
    // A command that cannot be run has nothing to report: its message and status are the answer.
    let exit = match session.run(Some(&mut child), &ends) {
        Ok(exit) => exit.unwrap_or(Exit { code: None, signal: None }),
        Err(Unfollowed::Refused(status, why)) => return Ok(cannot_run(&args, status, &why)),
        Err(Unfollowed::NotBegun(e)) => {
            drop(session);
            return only_wait(&args, &mut child, &e);
        }
        Err(Unfollowed::Lost(e)) => return Err(e),
    };
    drop(child);
    let echoed = session.interrupted();
    let audit = session.finish(Some(exit));
    // The line is gone, and the terminal's time as it was, before anything is written.
    drop(status);
    // Nothing of others is read any more; what was read is rendered without rights.
    rights::finish(&for_outputs);
    let succeeded = exit.code == Some(0);
    let Outcome { breached, lost } =
        conclude(&args.report, (&header, &audit), outputs, recorder, echoed, succeeded)?;
    if succeeded && breached {
        return Ok(args.report.breach_exit_code.into());
    }
    // Never instead of the command's own failure.
    if succeeded && (lost || not_recorded) {
        return Ok(exit_status::EXIT_OWN_FAILURE);
    }
    Ok(exit_status::end_like(exit))
}

fn cannot_run(args: &RunArgs, status: i32, why: &str) -> i32 {
    let name = args.command.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
    say_as(Weight::Error, &format!("cannot run {name}: {why}"));
    status
}

/// Never refuses to run the workload because of itself. Its status is its own, and 125 in place of 0, because there is no
/// report.
fn unwatched(args: &RunArgs, user: Option<&User>, e: &anyhow::Error) -> i32 {
    say_as(Weight::Error, &format!("{e:#}: the command runs without being watched, and there is no report"));
    match child::run_instead(&args.command, user, args.keep_caps) {
        Ok(exit) if exit.code == Some(0) => exit_status::EXIT_OWN_FAILURE,
        Ok(exit) => exit_status::end_like(exit),
        Err((status, why)) => cannot_run(args, status, &why),
    }
}

/// The same for a command that waits already.
fn only_wait(args: &RunArgs, child: &mut Child, e: &anyhow::Error) -> anyhow::Result<i32> {
    say_as(Weight::Error, &format!("{e:#}: the command runs without being watched, and there is no report"));
    child.go().map_err(|e| anyhow!("the command's process is gone: {e}"))?;
    let exit = child.wait();
    if let Some((status, why)) = child.refusal() {
        return Ok(cannot_run(args, status, &why));
    }
    Ok(if exit.code == Some(0) { exit_status::EXIT_OWN_FAILURE } else { exit_status::end_like(exit) })
}

/// Opens the file of a recording. It holds addresses of the processes, so nobody writes one with rights that its caller
/// lacks.
pub fn open_recording(path: &Path) -> anyhow::Result<Destination> {
    if rights::lent() {
        return Err(anyhow!(
            "--record is refused: a recording holds addresses, and this vmaudit has rights that you lack; use sudo"
        ));
    }
    Destination::open(path, Writing::Recording)
        .with_context(|| format!("cannot write the recording to {}", path.display()))
}

/// Begins a recording, and says whether one was asked for that cannot be: a full disk keeps no command from running.
pub fn begin_recording(
    file: Option<Destination>,
    header: &Header,
    most: Option<u64>,
) -> (Option<Recorder>, bool) {
    match file.map(|file| Recorder::new(Box::new(file), header, most)).transpose() {
        Ok(recorder) => (recorder, false),
        Err(e) => {
            say_as(
                Weight::Error,
                &format!("there will be no recording, because not even its beginning could be written: {e}"),
            );
            (None, true)
        }
    }
}

fn shown_command(args: &RunArgs) -> Vec<String> {
    if args.report.show_args {
        return args.command.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    }
    args.command.first().map(|file| child::short_name(file)).into_iter().collect()
}
