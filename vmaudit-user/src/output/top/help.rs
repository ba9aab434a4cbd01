//! The page of keys and marks.

use ratatui::style::Style;

use super::Canvas;

/// What the keys and marks mean.
const HELP: &[&str] = &[
    "vmaudit top: which process nears the limit on memory areas (VMAs), and why",
    "",
    "A memory area (VMA) is one stretch of a process's addresses with one source",
    "and one set of rights. Linux allows each process vm.max_map_count of them,",
    "whatever the free RAM. At the limit, memory calls are refused.",
    "",
    "MOVE                                LOOK",
    "↑ ↓  j k    choose a process        Enter  details: curve, makers, refused calls",
    "g  G        first, last             e      explain: who holds the VMAs now",
    "PgUp PgDn   a page                  m      who made the VMAs, by now",
    "Esc         back, or no filter      t      tree of processes",
    "",
    "ORDER AND FILTER                    OTHER",
    "s ← →       another column          space  pause; the session goes on",
    "r           turn the order round    + -    look less, more often",
    "/           filter                  ? q    this help, quit",
    "",
    "MARKS",
    "65,531+  stopped by the limit: it wanted more    ~512  sampled, not exact",
    "-        not known                               GROWTH per second, over 10 s",
    "red      at 90 % or refused at the limit         yellow at 50 %",
    "× name   has ended: it was refused a call, or stood at half of the limit",
    "",
    "No key here ends or changes a process.            Esc closes this help",
];

pub(super) fn draw(mut page: Canvas<'_>) {
    for (y, line) in HELP.iter().enumerate() {
        page.line(y as u16, line, Style::new());
    }
}
