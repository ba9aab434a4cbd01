//! `vmaudit top`: a watch that is looked at while it goes on.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Stdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use jiff::Zoned;
use nix::sys::signal::{SigSet, Signal};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEventKind, KeyModifiers, read};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use tokio::sync::Notify;

use vmaudit_user::domain::application::Anonymizer;
use vmaudit_user::domain::audit::{Audit, Standing};
use vmaudit_user::enrich::Enrichment;
use vmaudit_user::model::event::Event;
use vmaudit_user::os::apart::Patience;
use vmaudit_user::os::clock::now_ns;
use vmaudit_user::os::kernel::Facts;
use vmaudit_user::os::{own_threads, rights, users};
use vmaudit_user::output::format::{self, Document, Format};
use vmaudit_user::output::text::page::Style;
use vmaudit_user::output::top::{History, Key, Look, Makers, Row, Top, Which, Wish};
use vmaudit_user::session::opening::{AskedOf, give_up_rights, open_running};
use vmaudit_user::session::{Ends, Session, Sink, Unfollowed};
use vmaudit_user::source::vma_layout::{self, Details, ExplainOptions};
use vmaudit_user::text::{clean, grouped, total};

use crate::cli::top::TopArgs;
use crate::command::filters;
use crate::command::options;

/// `vmaudit top`. Returns vmaudit's exit status.
pub fn top(args: &TopArgs) -> anyhow::Result<i32> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "top needs a terminal on standard input and output; without one there are `vmaudit scan` and `vmaudit watch -d \
             10s`"
        );
    }
    let whom = filters::whom(&args.filters, false)?;
    if whom.filter.is_some() && whom.now().is_empty() {
        return Err(filters::nobody(&args.filters));
    }
    let facts = Facts::gather();
    let mut options = options::of_running(&args.common, &whom, !args.no_follow);
    options.makers = true;
    let patience = Patience::default();
    let mut opened = open_running(args.common.source.into(), &facts, &options, &whom, &patience)?;
    opened.events.extend(give_up_rights(None, &[]));
    let anonymizer = || users::anonymizer(args.no_anonymize);
    let header = opened.header(Vec::new(), &anonymizer(), AskedOf::default());
    let enrichment = Enrichment::for_a_screen(true, &patience);
    let mut source = opened.source;
    let mut events = opened.events;
    source.begin(&mut |event| events.push(event));
    let asks = Arc::new(Notify::new());
    let (send, keys) = channel();
    let mut screen = Screen::open(args.every_s(), header.start_ns, keys, anonymizer())?;
    let sinks: Vec<&mut dyn Sink> = vec![&mut screen];
    let mut session = Session::new(&header, source, Some(enrichment), anonymizer(), sinks, patience);
    events.into_iter().for_each(|event| session.take(event));
    listen(send, Arc::clone(&asks))?;
    session.beside(Box::pin(std::future::pending()), asks);
    let outcome = session.run(None, &Ends::default());
    drop(session);
    drop(screen);
    match outcome {
        Ok(_) => Ok(0),
        Err(Unfollowed::NotBegun(e) | Unfollowed::Lost(e)) => Err(e),
        Err(Unfollowed::Refused(_, why)) => Err(anyhow!(why)),
    }
}

/// Keys and other sizes of the terminal, from a thread that has no rights: reading waits.
fn listen(send: Sender<Input>, asks: Arc<Notify>) -> anyhow::Result<()> {
    let work = move || {
        // They are the session's, which takes them in its own thread; but for the terminal's other size, which the reader takes.
        let mut others = SigSet::all();
        others.remove(Signal::SIGWINCH);
        if others.thread_set_mask().is_err() {
            return;
        }
        if rights::keep_in_thread(&[]).is_err() {
            return;
        }
        // Ends with the terminal; then nobody can ask for an end any more.
        while let Ok(input) = read() {
            if send.send(input).is_err() {
                return;
            }
            asks.notify_one();
        }
    };
    own_threads::deaf("vmaudit-keys", work).context("cannot read keys")?;
    Ok(())
}

/// The terminal while it is ours.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    top: Top,
    history: History,
    /// Users' names by number, as far as they were asked for.
    users: std::collections::HashMap<u32, String>,
    keys: Receiver<Input>,
    anonymizer: Anonymizer,
    start_ns: u64,
    since: String,
    every: Duration,
    looked: Option<Instant>,
    /// The process whose makers are to be named.
    naming: Option<Which>,
    /// The same as an address space.
    unnamed: Option<u64>,
    /// How often names may be asked for once more: what the files of symbols tell may take longer than a screen waits.
    again: u32,
    /// Processes that have ended, the last one at the end.
    gone: VecDeque<(Instant, Row)>,
    over: bool,
    /// What went wrong with the terminal.
    broken: Option<io::Error>,
}

/// VMAs that are looked at to say who owns them: more than nearly every limit allows.
const EXPLAINED: u64 = 1_000_000;
/// Names are asked for so often once more.
const AGAIN: u32 = 2;
/// For so long a process that has ended is shown, and so many of them.
const GONE: (Duration, usize) = (Duration::from_secs(300), 20);
/// One that ended is shown from this percentage of the limit on.
const NEAR: f64 = 50.0;
/// Most names of users that are kept.
const USERS: usize = 10_000;

impl Screen {
    fn open(
        every_s: u32,
        start_ns: u64,
        keys: Receiver<Input>,
        anonymizer: Anonymizer,
    ) -> anyhow::Result<Self> {
        log::set_max_level(log::LevelFilter::Off);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| give_back())?;
        Ok(Self {
            terminal,
            top: Top::new(every_s),
            history: History::default(),
            users: std::collections::HashMap::new(),
            keys,
            anonymizer,
            start_ns,
            since: clock(),
            every: Duration::from_secs(every_s.into()),
            looked: None,
            naming: None,
            unnamed: None,
            again: 0,
            gone: VecDeque::new(),
            over: false,
            broken: None,
        })
    }

    fn look(&mut self, audit: &Audit) {
        self.looked = Some(Instant::now());
        let seen = audit.seen_so_far();
        let at_s = now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
        let mut rows = Vec::new();
        for standing in audit.standings_with_series().filter(|standing| standing.row.ended_s.is_none()) {
            let mut row = self.history.row(&standing.row, &standing.refused, at_s);
            row.user = self.user(standing.row.uid).or(row.user);
            if self.top.looked_at() == Some(row.which) {
                row.makers = Some(Makers::of(&standing.row));
                let mut frames = standing.row.makers.iter().flat_map(|maker| &maker.stack);
                if self.again > 0 && frames.any(|frame| frame.module.is_some() && frame.file.is_none()) {
                    self.again -= 1;
                    self.naming = Some(row.which);
                }
            }
            rows.push(row);
        }
        self.history.keep(&rows);
        self.gone.retain(|(at, _)| at.elapsed() < GONE.0);
        rows.extend(self.gone.iter().map(|(_, row)| row.clone()));
        let lost = total(seen.lost.values().copied());
        let rests_on = match (seen.sight.changes, lost) {
            (false, _) => "samples of /proc, not exact".to_owned(),
            // Where counts are read when calls return, some may have been higher in between.
            (true, 0) if seen.all_peaks_doubtful || !rows.iter().all(|row| row.exact) => {
                format!("since {} · nothing lost · peaks with ~ may be low", self.since)
            }
            (true, 0) => format!("exact since {} · nothing lost", self.since),
            (true, lost) => format!("since {} · {} events lost", self.since, grouped(lost)),
        };
        self.top.looked(Look {
            clock: clock(),
            limit: seen.limit,
            sees_refusals: seen.sight.calls(),
            rests_on,
            rows,
        });
    }

    fn user(&mut self, uid: Option<u32>) -> Option<String> {
        let uid = uid?;
        if self.users.len() < USERS && !self.users.contains_key(&uid) {
            self.users.insert(uid, users::user_name(uid));
        }
        self.users.get(&uid).cloned()
    }

    fn draw(&mut self) {
        let top = &self.top;
        let drawn = self.terminal.draw(|frame| top.draw(frame.area(), frame.buffer_mut()));
        self.broken = self.broken.take().or(drawn.err());
    }

    fn input(&mut self, input: &Input) {
        let Input::Key(key) = input else { return };
        if key.kind == KeyEventKind::Release {
            return;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c' | 'd') => self.over = true,
                KeyCode::Char('z') => self.stop(),
                KeyCode::Char('l') => self.broken = self.broken.take().or(self.terminal.clear().err()),
                _ => {}
            }
            return;
        }
        let Some(key) = known(key.code) else { return };
        match self.top.key(key) {
            Wish::Draw => {}
            Wish::Quit => self.over = true,
            Wish::Every(seconds) => self.every = Duration::from_secs(seconds.into()),
            Wish::Makers(which) => {
                self.naming = Some(which);
                self.again = AGAIN;
                self.looked = None;
            }
            Wish::Explain(which) => {
                let lines = self.explain(which);
                self.top.explained(which, lines);
            }
        }
    }

    /// Who owns its VMAs, in lines.
    fn explain(&self, which: Which) -> Vec<String> {
        let options = ExplainOptions { details: Details::Auto, max_vmas: EXPLAINED };
        let said =
            vma_layout::live(which.pid, &options, &self.anonymizer, &Patience::default()).and_then(|it| {
                let width = self.terminal.size().map_or(80, |size| usize::from(size.width)).max(20);
                let style = Style { width, ..Style::default() };
                let mut text = Vec::new();
                format::write(&Document::Explanation(&it, false), Format::Text, &style, &mut text)?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            });
        match said {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(e) => vec![clean(&format!("{e:#}"))],
        }
    }

    /// Ctrl-Z, which the terminal does not turn into a signal now.
    fn stop(&mut self) {
        give_back();
        // SAFETY: no preconditions; it stops this process alone.
        unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
        let back = take().and_then(|()| self.terminal.clear());
        self.broken = self.broken.take().or(back.err());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        log::set_max_level(log::LevelFilter::Info);
    }
}

impl Sink for Screen {
    fn event(&mut self, _: &Event, _: &Audit) {}

    fn turn(&mut self, audit: &Audit, over: bool) {
        if !over && self.looked.is_none_or(|looked| looked.elapsed() >= self.every) {
            self.look(audit);
            self.draw();
        }
    }

    fn checkpoints(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn wants_interim(&self) -> bool {
        true
    }

    fn interim(&mut self, audit: &Audit) {
        while let Ok(input) = self.keys.try_recv() {
            self.input(&input);
        }
        self.unnamed = self.naming.take().and_then(|which| audit.makers_in(which.pid));
        self.draw();
    }

    fn wants_places(&mut self) -> Option<u64> {
        self.unnamed.take()
    }

    fn wants_ended(&self) -> bool {
        true
    }

    fn ended(&mut self, processes: Vec<Standing>, _: &Audit) {
        let at_s = now_ns().saturating_sub(self.start_ns) as f64 / 1e9;
        for standing in processes {
            let near = standing.row.map_count.percent_of_limit.is_some_and(|share| share >= NEAR);
            let mut row = self.history.row(&standing.row, &standing.refused, at_s);
            if row.refused == 0 && !near {
                continue;
            }
            let how = standing.row.end.as_ref().map(|end| format!(": {}", clean(&end.sentence)));
            row.ended = Some(format!("ended by {}{}", clock(), how.unwrap_or_default()));
            row.makers = Some(Makers::of(&standing.row));
            row.user = self.user(standing.row.uid).or(row.user);
            (row.now, row.per_s, row.full_in_s) = (None, None, None);
            if self.gone.len() >= GONE.1 {
                self.gone.pop_front();
            }
            self.gone.push_back((Instant::now(), row));
        }
    }

    fn is_closed(&self) -> bool {
        self.over || self.broken.is_some()
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, cursor::Hide).inspect_err(|_| give_back())
}

/// As it was. What does not work is nothing that anybody could be told.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

fn clock() -> String {
    Zoned::now().strftime("%H:%M:%S").to_string()
}

fn known(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Char(c) => Key::Char(c),
        _ => return None,
    })
}
