//! The live screen: what the last look found, what the person has chosen, and how that is drawn. It is given looks and keys and
//! draws into a buffer; who gives them, and where the buffer goes, is the command's.

mod details;
mod filter;
mod help;
mod list;
mod look;
mod tree;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::output::text::page::shortened;
use crate::text::{clean, count, grouped};
pub use filter::Filter;
use list::{Column, lines};
pub use look::{History, Look, Makers, Row, Which};
use tree::{depths, in_tree};

/// A key, as far as the screen knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// The column to the left.
    Left,
    /// The column to the right.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// The first line.
    First,
    /// The last line.
    Last,
    /// Into it.
    Enter,
    /// Out of it.
    Esc,
    /// The last character goes.
    Backspace,
    /// A character.
    Char(char),
}

/// What the command has to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing but drawing.
    Draw,
    /// The places that this process's VMAs came from are to be named, for [`Row::makers`].
    Makers(Which),
    /// Who owns the VMAs of this process is to be looked up: [`Top::explained`].
    Explain(Which),
    /// The looks are to come so often, seconds.
    Every(u32),
    /// The person has seen enough.
    Quit,
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq)]
enum Page {
    List,
    /// One process, and from which line on what is below its curve is shown.
    Details(Which, usize),
    /// Lines about one process, and from which on.
    Explained(Which, Vec<String>, usize),
    Help,
}

/// The screen.
pub struct Top {
    look: Look,
    /// What is shown stays as it is while the session goes on.
    paused: bool,
    page: Page,
    sort: Column,
    reversed: bool,
    tree: bool,
    chosen: Option<Which>,
    filter: Filter,
    /// A filter being typed.
    typed: Option<String>,
    every_s: u32,
}

/// Between two looks, seconds: as the person may choose.
const EVERY: [u32; 5] = [1, 2, 5, 10, 60];
/// Most characters of a filter.
const TYPED: usize = 200;
/// Lines above the list: the answer in two lines, what it rests on, an empty one.
const HEAD: u16 = 4;

impl Top {
    /// An empty screen; looks come every so many seconds.
    pub fn new(every_s: u32) -> Self {
        Self {
            look: Look::default(),
            paused: false,
            page: Page::List,
            sort: Column::Vmas,
            reversed: false,
            tree: false,
            chosen: None,
            filter: Filter::default(),
            typed: None,
            every_s,
        }
    }

    /// Takes what was found now.
    pub fn looked(&mut self, look: Look) {
        if !self.paused {
            self.look = look;
        }
    }

    /// The answer to [`Wish::Explain`], in lines.
    pub fn explained(&mut self, which: Which, lines: Vec<String>) {
        self.page = Page::Explained(which, lines, 0);
    }

    /// The process that is looked at.
    pub fn looked_at(&self) -> Option<Which> {
        match self.page {
            Page::Details(which, _) => Some(which),
            _ => None,
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Wish {
        if let Some(typed) = &mut self.typed {
            match key {
                Key::Enter => {
                    self.filter = Filter::of(typed);
                    self.typed = None;
                }
                Key::Esc => self.typed = None,
                Key::Backspace => _ = typed.pop(),
                Key::Char(c) if typed.len() < TYPED && !c.is_control() => typed.push(c),
                _ => {}
            }
            return Wish::Draw;
        }
        match key {
            Key::Char('q') => return Wish::Quit,
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('?') => self.page = if self.page == Page::Help { Page::List } else { Page::Help },
            Key::Char(sign @ ('+' | '-')) => return self.other_pace(sign == '+'),
            _ => {}
        }
        match &mut self.page {
            Page::List => return self.key_in_list(key),
            Page::Help => {
                if key == Key::Esc {
                    self.page = Page::List;
                }
            }
            Page::Details(which, from) => {
                let which = *which;
                match key {
                    Key::Esc => self.page = Page::List,
                    // Its number may be another's by now.
                    Key::Char('e') if self.look.has_ended(which) => {}
                    Key::Char('e') => return Wish::Explain(which),
                    Key::Char('m') => {
                        *from = 0;
                        return Wish::Makers(which);
                    }
                    key => scroll(from, key),
                }
            }
            Page::Explained(which, lines, from) => match key {
                Key::Esc => self.page = Page::Details(*which, 0),
                key => {
                    scroll(from, key);
                    *from = (*from).min(lines.len().saturating_sub(1));
                }
            },
        }
        Wish::Draw
    }

    fn other_pace(&mut self, slower: bool) -> Wish {
        let next = match slower {
            true => EVERY.into_iter().find(|every| *every > self.every_s),
            false => EVERY.into_iter().rev().find(|every| *every < self.every_s),
        };
        self.every_s = next.unwrap_or(self.every_s);
        Wish::Every(self.every_s)
    }

    fn key_in_list(&mut self, key: Key) -> Wish {
        let rows = self.shown();
        let at = self.chosen.and_then(|chosen| rows.iter().position(|row| row.which == chosen)).unwrap_or(0);
        let last = rows.len().saturating_sub(1);
        const PAGE: usize = 10;
        let to = match key {
            Key::Up | Key::Char('k') => Some(at.saturating_sub(1)),
            Key::Down | Key::Char('j') => Some((at + 1).min(last)),
            Key::PageUp => Some(at.saturating_sub(PAGE)),
            Key::PageDown => Some((at + PAGE).min(last)),
            Key::First | Key::Char('g') => Some(0),
            Key::Last | Key::Char('G') => Some(last),
            _ => None,
        };
        let which = rows.get(to.unwrap_or(at)).map(|row| row.which);
        match key {
            _ if to.is_some() => self.chosen = which,
            Key::Enter | Key::Char('f' | 'm') => {
                if let Some(which) = which {
                    (self.chosen, self.page) = (Some(which), Page::Details(which, 0));
                    return Wish::Makers(which);
                }
            }
            Key::Char('e') => {
                if let Some(which) = which {
                    self.chosen = Some(which);
                    if !self.look.has_ended(which) {
                        return Wish::Explain(which);
                    }
                }
            }
            Key::Char('s') | Key::Right => self.sort = self.sort.next(),
            Key::Left => self.sort = self.sort.before(),
            Key::Char('r') => self.reversed = !self.reversed,
            Key::Char('t') => self.tree = !self.tree,
            Key::Char('/') => self.typed = Some(self.filter.text().to_owned()),
            Key::Esc => self.filter = Filter::default(),
            _ => {}
        }
        Wish::Draw
    }

    /// The rows that are shown, in their order.
    fn shown(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.look.rows.iter().filter(|row| self.filter.fits(row)).collect();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(a, b).then(a.which.pid.cmp(&b.which.pid));
            if self.reversed { order.reverse() } else { order }
        });
        if self.tree { in_tree(rows).into_iter().map(|(row, _)| row).collect() } else { rows }
    }

    /// Draws it all.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let page = Canvas { area, buffer };
        match &self.page {
            Page::List => self.draw_list(page),
            Page::Help => help::draw(page),
            Page::Details(which, from) => match self.look.rows.iter().find(|row| row.which == *which) {
                Some(row) => details::draw(row, &self.look, *from, page),
                None => gone(*which, page),
            },
            Page::Explained(which, lines, from) => draw_lines(*which, lines, *from, page),
        }
    }

    fn draw_list(&self, mut page: Canvas<'_>) {
        let rows = self.shown();
        let (answer, alarm) = self.answer(&rows);
        page.first(&answer, &self.look.clock, alarm.style());
        page.line(1, &self.second(), Style::new());
        page.line(2, &self.rests_on(rows.len()), Style::new().add_modifier(Modifier::DIM));
        let bottom = if self.typed.is_some() { 3 } else { 1 };
        let room = usize::from(page.area.height.saturating_sub(HEAD + 1 + bottom + 1));
        let columns = Column::that_fit(page.area.width);
        page.line(
            HEAD,
            &list::titles(&columns, self.sort, self.reversed),
            Style::new().add_modifier(Modifier::BOLD),
        );
        let depths = if self.tree { depths(&rows) } else { vec![0; rows.len()] };
        let at = self.chosen.and_then(|chosen| rows.iter().position(|row| row.which == chosen)).unwrap_or(0);
        let first = at.saturating_sub(room.saturating_sub(1));
        let shown = rows.iter().zip(depths).enumerate().skip(first).take(room);
        for (line, (index, (row, depth))) in shown.enumerate() {
            let text = lines(row, depth, &columns, index == at, self.look.limit);
            page.line(HEAD + 1 + line as u16, &text, list::style(row, self.look.limit));
        }
        let below = rows.len().saturating_sub(first + room);
        if below > 0 {
            let largest = rows.iter().skip(first + room).filter_map(|row| row.now).max().unwrap_or(0);
            let more = format!("and {} more, none above {}", grouped(below as u64), grouped(largest));
            page.line(HEAD + 1 + room as u16, &more, Style::new().add_modifier(Modifier::DIM));
        }
        let height = page.area.height;
        match &self.typed {
            Some(typed) => {
                let said = Filter::of(typed).complaint().unwrap_or_default();
                page.line(height.saturating_sub(3), Filter::HELP, Style::new());
                page.line(height.saturating_sub(2), &said, Style::new().fg(Color::Yellow));
                page.line(
                    height.saturating_sub(1),
                    &format!("/{}_   Enter keeps it  Esc drops it", clean(typed)),
                    Style::new(),
                );
            }
            None => page.line(
                height.saturating_sub(1),
                "Enter details  e explain  / filter  s sort  t tree  space pause  ? help  q quit",
                Style::new().add_modifier(Modifier::DIM),
            ),
        }
    }

    /// The answer, and how bad it is.
    fn answer(&self, rows: &[&Row]) -> (String, Alarm) {
        let Some(limit) = self.look.limit.filter(|limit| *limit > 0) else {
            return ("vm.max_map_count cannot be read here".into(), Alarm::Some);
        };
        let shown = grouped(limit);
        if self.look.rows.is_empty() {
            return (format!("No process yet; the limit is {shown} VMAs"), Alarm::None);
        }
        let Some(worst) = rows.iter().max_by_key(|row| (row.refused_at_limit, row.now)) else {
            return (
                format!("No process matches; {} do not", grouped(self.look.rows.len() as u64)),
                Alarm::None,
            );
        };
        let name = clean(&worst.comm);
        if worst.refused_at_limit > 0 {
            let calls = grouped(worst.refused_at_limit);
            let ended = if worst.ended.is_some() { "; it has ended" } else { "" };
            return (
                format!("{name} hit the limit of {shown} VMAs: {calls} calls refused{ended}"),
                Alarm::Much,
            );
        }
        let share = worst.now.unwrap_or(0) as f64 * 100.0 / limit as f64;
        let refused: u64 = rows.iter().map(|row| row.refused).sum();
        let nearest = format!("{name} is nearest, {share:.1} % of the limit");
        let alarm = Alarm::of(share);
        match refused {
            0 if self.look.sees_refusals => (format!("No memory call refused; {nearest}"), alarm),
            0 => (nearest, alarm),
            calls => (
                format!("{} calls refused, none by this limit; {nearest}", grouped(calls)),
                alarm.max(Alarm::Some),
            ),
        }
    }

    /// Who fills up, soonest first.
    fn second(&self) -> String {
        // Who is full already is in the answer.
        let growing =
            self.look.rows.iter().filter_map(|row| Some((row.full_in_s.filter(|s| *s > 0.0)?, row)));
        match growing.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((seconds, row)) => format!(
                "{} reaches it in {} at its present growth.",
                clean(&row.comm),
                look::duration(seconds.max(1.0))
            ),
            None => String::new(),
        }
    }

    fn rests_on(&self, shown: usize) -> String {
        let ended = self.look.rows.iter().filter(|row| row.ended.is_some()).count();
        let all = self.look.rows.len() - ended;
        let shown = shown.min(all);
        let processes = match shown {
            n if n == all => count(all as u64, "process", "processes"),
            n => format!("{} of {} processes", grouped(n as u64), grouped(all as u64)),
        };
        let pace = if self.paused { "PAUSED".to_owned() } else { format!("every {} s", self.every_s) };
        let limit = self.look.limit.map_or_else(|| "not known".to_owned(), grouped);
        let ended = if ended > 0 { format!(" · {} ended", grouped(ended as u64)) } else { String::new() };
        format!("{processes} · limit {limit} · {} · {pace}{ended}", self.look.rests_on)
    }
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    None,
    Some,
    Much,
}

impl Alarm {
    fn of(share: f64) -> Self {
        match share {
            share if share >= 90.0 => Self::Much,
            share if share >= 50.0 => Self::Some,
            _ => Self::None,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::None => Style::new().add_modifier(Modifier::BOLD),
            Self::Some => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Self::Much => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

/// A buffer that is drawn on line by line; what does not fit is cut.
struct Canvas<'b> {
    area: Rect,
    buffer: &'b mut Buffer,
}

impl Canvas<'_> {
    fn line(&mut self, y: u16, text: &str, style: Style) {
        if y < self.area.height {
            let width = usize::from(self.area.width);
            self.buffer.set_stringn(self.area.x, self.area.y + y, text, width, style);
        }
    }

    /// The first line, with the time of day at the right end where there is room.
    fn first(&mut self, text: &str, clock: &str, style: Style) {
        let columns = u16::try_from(clock.chars().count()).unwrap_or(u16::MAX);
        let left = self.area.width.saturating_sub(columns.saturating_add(2));
        if left < 50 || self.area.height == 0 {
            return self.line(0, text, style);
        }
        self.line(0, &shortened(text, usize::from(left)), style);
        self.buffer.set_stringn(
            self.area.x + left + 2,
            self.area.y,
            clock,
            usize::from(columns),
            Style::new(),
        );
    }
}

fn scroll(from: &mut usize, key: Key) {
    *from = match key {
        Key::Up | Key::Char('k') => from.saturating_sub(1),
        Key::Down | Key::Char('j') => *from + 1,
        Key::PageUp => from.saturating_sub(10),
        Key::PageDown => *from + 10,
        Key::First | Key::Char('g') => 0,
        _ => *from,
    }
}

fn gone(which: Which, mut page: Canvas<'_>) {
    page.line(0, &format!("process {} has ended", which.pid), Style::new().add_modifier(Modifier::BOLD));
    page.line(2, "Esc back", Style::new().add_modifier(Modifier::DIM));
}

fn draw_lines(which: Which, lines: &[String], from: usize, mut page: Canvas<'_>) {
    let room = usize::from(page.area.height.saturating_sub(2));
    page.line(
        0,
        &format!("explain {}: who holds its VMAs now", which.pid),
        Style::new().add_modifier(Modifier::BOLD),
    );
    for (y, line) in lines.iter().skip(from).take(room).enumerate() {
        page.line(y as u16 + 1, line, Style::new());
    }
    let height = page.area.height;
    page.line(
        height.saturating_sub(1),
        "↑↓ scroll  Esc back  q quit",
        Style::new().add_modifier(Modifier::DIM),
    );
}

#[cfg(test)]
mod tests;
