//! `vmaudit serve`: the state of a watch, for Prometheus.

use std::collections::HashMap;

use anyhow::anyhow;
use tokio::sync::mpsc::Receiver;

use vmaudit_user::domain::audit::{Audit, Standing};
use vmaudit_user::domain::groups::{GroupBy, Groups};
use vmaudit_user::domain::whole_since::WholeSince;
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::model::event::Event;
use vmaudit_user::model::exposed::Exposed;
use vmaudit_user::model::report::SourceKind;
use vmaudit_user::model::session::Header;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::clock::now_ns;
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::listen::Listener;
use vmaudit_user::os::{service_manager, users};
use vmaudit_user::output::metrics::{Exposition, page};
use vmaudit_user::output::{Weight, say_as};
use vmaudit_user::session::flight::Flight;
use vmaudit_user::session::http::{self, Asked, Asks, Page};
use vmaudit_user::session::opening::{AskedOf, Whom, give_up_rights, open_running};
use vmaudit_user::session::{Ends, Root, Session, Sink, Unfollowed};
use vmaudit_user::source::{ebpf, pods};

use crate::cli::serve::ServeArgs;
use crate::cli::values::Source as SourceAsked;
use crate::command::options;
use crate::command::{filters, flight};

/// Names of users, and of pods, that are kept.
const NAMES: usize = 10_000;

/// `vmaudit serve`. Returns vmaudit's exit status.
pub fn serve(args: &ServeArgs) -> anyhow::Result<i32> {
    let whom = whom(args)?;
    // A number that nobody has was mistyped, or its process is gone.
    whom.pids.iter().try_for_each(|pid| Root::hold(*pid).map(drop))?;
    // With the caller's rights, and before anything is attached: most mistakes are here.
    let listener = Listener::open(&args.listen)?;
    let folder = flight::folder(&args.flight)?;
    let for_folder = folder.as_ref().map_or(&[][..], |it| it.rights());
    let facts = Facts::gather();
    let of_running = options::of_running(&args.common, &whom, !args.no_follow);
    // A flight file is the recording of a watch.
    let kept = folder.is_some();
    let options = ebpf::Options { stacks: kept, makers: kept, ..of_running };
    let patience = Patience::default();
    let mut opened = open_running(args.common.source.into(), &facts, &options, &whom, &patience)?;
    opened.events.extend(give_up_rights(None, for_folder));
    let words = filters::words(&args.filters).unwrap_or_else(|| match opened.instead {
        Some(_) if !nix::unistd::geteuid().is_root() => "the processes of this user".into(),
        _ => "every process".into(),
    });
    let anonymizer = || users::anonymizer(false);
    let header = opened.header(Vec::new(), &anonymizer(), AskedOf::default());
    let (asks, asked, notify) = Asks::new();
    let mut exporter = Exporter::new(&header, args.group_by, asked);
    let enrichment = match kept {
        true => Enrichment::for_flight(anonymizer(), header.start_ns, &patience),
        false => Enrichment::for_verdicts(&patience),
    };
    let mut source = opened.source;
    let mut events = opened.events;
    source.begin(&mut |event| events.push(event));
    let mut flight =
        args.flight.flight.zip(folder).map(|(length, it)| Flight::new(&header, length, &args.at, it));
    let mut sinks: Vec<&mut dyn Sink> = vec![&mut exporter];
    sinks.extend(flight.iter_mut().map(|it| it as &mut dyn Sink));
    let mut session = Session::new(&header, source, Some(enrichment), anonymizer(), sinks, patience);
    events.into_iter().for_each(|event| session.take(event));
    let why = match (opened.instead, args.common.source) {
        (None, _) => String::new(),
        (Some(_), SourceAsked::Proc) => "; figures are samples from /proc, without refused calls".to_owned(),
        (Some(why), _) => format!(
            "; figures are samples from /proc, without refused calls, because eBPF is not to be had ({why})"
        ),
    };
    let mut where_to = listener.words();
    if listener.is_open_to_others() {
        where_to.push_str(" to whoever reaches that address (no TLS, no password)");
    }
    let weight = if why.is_empty() { Weight::Note } else { Weight::Warning };
    // The journal's readers press no keys.
    let ends = if service_manager::is_there() { "" } else { "; Ctrl-C ends it" };
    let ready = move |opened: std::io::Result<()>| match opened {
        Ok(()) => {
            say_as(weight, &format!("serving {words} on {where_to}{why}{ends}"));
            service_manager::tell("READY=1");
        }
        Err(e) => say_as(Weight::Error, &format!("cannot serve: {e}")),
    };
    session.beside(http::server(listener, asks, ready), notify);
    let outcome = session.run(None, &Ends::default());
    service_manager::tell("STOPPING=1");
    match outcome {
        Ok(_) => {
            // The flight recorder has its last file to write, as at the end of a watch.
            session.finish(None);
            Ok(flight::status(flight.as_ref()))
        }
        Err(Unfollowed::NotBegun(e) | Unfollowed::Lost(e)) => Err(e),
        Err(Unfollowed::Refused(_, why)) => Err(anyhow!(why)),
    }
}

/// Whom to serve. A process by number must be there; all else may come later.
fn whom(args: &ServeArgs) -> anyhow::Result<Whom> {
    let by_number = !args.filters.pid.is_empty() && filters::whom(&args.filters, false)?.filter.is_none();
    filters::whom(&args.filters, !by_number)
}

/// Keeps the figures, and answers those who ask for them.
struct Exporter {
    version: String,
    source: SourceKind,
    started_s: i64,
    by: GroupBy,
    groups: Groups,
    since: WholeSince,
    /// Names by number, where users are groups.
    users: HashMap<u32, String>,
    /// Names by uid, where pods are groups; `None`: it has none.
    pods: HashMap<String, Option<String>>,
    asked: Receiver<Asked>,
}

impl Exporter {
    fn new(header: &Header, by: GroupBy, asked: Receiver<Asked>) -> Self {
        let started_s = header.started.parse::<jiff::Timestamp>().map_or(0, |started| started.as_second());
        Self {
            version: header.vmaudit.clone(),
            source: header.source,
            started_s,
            by,
            groups: Groups::default(),
            since: WholeSince::new(started_s),
            users: HashMap::new(),
            pods: HashMap::new(),
            asked,
        }
    }

    fn group(&mut self, standing: &Standing) -> String {
        let uid = standing.row.uid.filter(|_| self.by == GroupBy::User);
        let pod = standing.row.pod.as_ref().filter(|_| self.by == GroupBy::Pod);
        if let Some(pod) = pod {
            if self.pods.len() >= NAMES {
                self.pods.clear();
            }
            let name = self.pods.entry(pod.clone()).or_insert_with(|| pods::name_of(pod));
            return self.by.group(&standing.row, name.as_deref());
        }
        if let Some(uid) = uid.filter(|uid| self.users.len() < NAMES && !self.users.contains_key(uid)) {
            self.users.insert(uid, users::user_name(uid));
        }
        self.by.group(&standing.row, uid.and_then(|uid| self.users.get(&uid)).map(String::as_str))
    }

    fn look(&mut self, audit: &Audit) {
        let standings: Vec<(String, Standing)> =
            audit.standings().map(|standing| (self.group(&standing), standing)).collect();
        self.groups.minute(audit.minute());
        self.groups.stand(standings.into_iter(), now_ns());
        let seen = audit.seen_so_far();
        // Where all are doubtful, a row tells nothing of its own.
        let newly_doubtful = self.groups.newly_doubtful() && !seen.all_peaks_doubtful;
        self.since.look(&seen, newly_doubtful, jiff::Timestamp::now().as_second());
    }

    fn page(&self, audit: &Audit, exposition: Exposition) -> Page {
        let seen = audit.seen_so_far();
        let exposed = Exposed {
            version: &self.version,
            source: self.source,
            sight: seen.sight,
            started_s: self.started_s,
            limit: seen.limit,
            groups: self.groups.all(),
            processes_in_other: self.groups.processes_in_other(),
            groups_retired: self.groups.retired(),
            exact_peaks: seen.exact_peaks && seen.sight.changes && self.groups.exact_peaks(),
            peaks_exact_since_s: self.since.peaks_s(),
            exact_limit_calls: seen.exact_limit_calls,
            limit_calls_exact_since_s: self.since.refusals_s(),
            lost: &seen.lost,
        };
        let text = page(&exposed, exposition).into();
        Page { content_type: exposition.content_type(), text, packed: None }
    }
}

impl Sink for Exporter {
    fn event(&mut self, _: &Event, _: &Audit) {}

    fn turn(&mut self, _: &Audit, _: bool) {}

    fn wants_interim(&self) -> bool {
        true
    }

    fn interim(&mut self, audit: &Audit) {
        self.look(audit);
        let mut pages: [Option<Page>; 2] = [None, None];
        while let Ok(Asked { accept, gzip, answer }) = self.asked.try_recv() {
            let exposition = Exposition::accepted(&accept);
            let [text, open] = &mut pages;
            let kept = if exposition == Exposition::Text { text } else { open };
            let page = kept.get_or_insert_with(|| self.page(audit, exposition));
            if gzip {
                page.pack();
            }
            // Who asked and went away is nobody's loss.
            let _ = answer.send(page.clone());
        }
    }

    fn wants_ended(&self) -> bool {
        true
    }

    fn ended(&mut self, processes: Vec<Standing>, audit: &Audit) {
        let ends = audit.seen_so_far().sight.ends;
        for standing in processes {
            let group = self.group(&standing);
            self.groups.ended(&group, &standing, ends, now_ns());
        }
    }
}
