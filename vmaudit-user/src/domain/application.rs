//! Which application a process belongs to, told from its executable and its command line; and names in paths made
//! anonymous. Pure text: nothing here reads a file.

use std::borrow::Cow;

use crate::model::event::{Event, Within};
use crate::model::report::{Failure, Frame, Process};

/// Turns the bytes of /proc/PID/cmdline into arguments.
///
/// Arguments end in NUL. A process may overwrite them with one string (Wine, Chromium, sandboxes, setproctitle); then
/// nothing marks where the command ends. Best guess: after `.exe` when it begins with a drive letter, else before the
/// first ` -x`, because paths hold spaces more often than they hold a space and a dash.
pub fn arguments(cmdline: &[u8]) -> Vec<String> {
    let parts: Vec<String> = cmdline
        .split(|&b| b == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).trim().to_owned())
        .collect();
    match parts.as_slice() {
        [single] => split_single(single),
        _ => parts,
    }
}

fn split_single(text: &str) -> Vec<String> {
    let (command, rest) = if has_drive(text) { after_exe(text) } else { None }
        .or_else(|| before_option(text))
        .unwrap_or((text, ""));
    let mut arguments = vec![command.to_owned()];
    arguments.extend(words(rest));
    arguments
}

fn has_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic())
}

/// `C:\My Game\game.exe -x` → (`C:\My Game\game.exe`, `-x`).
fn after_exe(text: &str) -> Option<(&str, &str)> {
    let lower = text.to_ascii_lowercase();
    let end = lower.match_indices(".exe").map(|(at, found)| at + found.len()).find(|&end| {
        // `.exec` or `.exe_old` is another name.
        !lower.get(end..).is_some_and(|s| s.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })?;
    Some((text.get(..end)?, text.get(end..)?.trim_start()))
}

/// Splits before the first blank that is followed by a dash and a character that is no blank.
fn before_option(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find(char::is_whitespace).map(|at| from + at) {
        let rest = text.get(at..)?.trim_start();
        let mut following = rest.chars();
        if following.next() == Some('-') && following.next().is_some_and(|c| !c.is_whitespace()) {
            return Some((text.get(..at)?, rest));
        }
        from = text.len() - rest.len();
    }
    None
}

/// Words as a shell would see them, but a backslash stays what it is: these are Windows paths more often than escapes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Name of the application that a process is an instance of.
///
/// Looks through the wrappers of Flatpak (`bwrap`, `zypak-helper`) and through the Python interpreter; knows Electron
/// packages and helpers and Wine programs. Falls back to the executable and to the kernel's name of the process.
pub fn application(exe: Option<&str>, arguments: &[String], comm: &str) -> String {
    let mut rest = arguments;
    if base(rest).is_some_and(|name| name == "bwrap" || name == "flatpak-bwrap") {
        rest = after(rest, "--");
    }
    if base(rest) == Some("zypak-helper") {
        rest = after(rest, "-");
    }
    if base(rest).is_some_and(is_python) {
        match python(rest) {
            Python::Code(code) => {
                let first = code.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
                return format!("[Python Code \"{first}\"...]");
            }
            Python::Script(script) => rest = script,
            Python::Interpreter => {}
        }
    }
    let Some(first) = rest.first().filter(|first| !first.is_empty()) else {
        return exe.map_or_else(|| comm.to_owned(), str::to_owned);
    };
    if let Some(label) = electron(rest) {
        return label;
    }
    if ends_in_exe(first) {
        return format!("[Wine App \"{first}\"]");
    }
    // `postgres: checkpointer`, `sshd: root@pts/0`: a title that changes with what the process does. All of them are
    // one application, the one whose executable bears the name before the colon.
    if let (Some((title, _)), Some(exe)) = (first.split_once(": "), exe)
        && !title.contains('/')
        && file_name(exe) == title
    {
        return exe.to_owned();
    }
    // `bash`, `-bash` and `/bin/bash` are one: the executable of that name.
    match exe.map(still_there) {
        Some(exe) if file_name(exe) == file_name(plain(first)) => exe.to_owned(),
        _ => plain(first).to_owned(),
    }
}

/// A path of the kernel's, without the mark of a file that was removed since (fs/d_path.c:d_path).
fn still_there(exe: &str) -> &str {
    exe.strip_suffix(" (deleted)").unwrap_or(exe)
}

/// A name without the dash of a login shell.
fn plain(first: &str) -> &str {
    first.strip_prefix('-').filter(|name| !name.is_empty()).unwrap_or(first)
}

/// What tells that processes whose names differ by the path alone are one application: their executable and the last part of
/// the name, where the name is the command itself (`sh` and `/bin/sh`, both /usr/bin/dash). A script or a game is told by
/// its path.
pub fn same_application<'a>(
    app: &'a str,
    exe: Option<&'a str>,
    arguments: &[String],
) -> Option<(&'a str, &'a str)> {
    let command = arguments.first().map(|first| plain(first));
    let exe = exe.map(still_there).filter(|_| command == Some(app))?;
    Some((exe, file_name(app)))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn base(arguments: &[String]) -> Option<&str> {
    arguments.first().map(|first| file_name(first))
}

/// What follows the separator; everything when it is missing or last.
fn after<'a>(arguments: &'a [String], separator: &str) -> &'a [String] {
    arguments
        .iter()
        .position(|argument| argument == separator)
        .and_then(|at| arguments.get(at + 1..))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(arguments)
}

fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

enum Python<'a> {
    Code(&'a str),
    Script(&'a [String]),
    Interpreter,
}

/// Reads Python's own options: which of them take a value decides what the script is.
fn python(arguments: &[String]) -> Python<'_> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        let script = arguments.get(at..).unwrap_or_default();
        let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            // No process is started with a newline in its script's name; code lost its -c on the way here.
            return if argument.contains('\n') { Python::Code(argument) } else { Python::Script(script) };
        };
        if letters.starts_with('-') {
            at += if letters == "-check-hash-based-pycs" { 2 } else { 1 };
            continue;
        }
        // Letters may be bundled: `-Ic code`, `-um module`.
        let Some((place, letter)) = letters.char_indices().find(|(_, c)| matches!(c, 'c' | 'm' | 'W' | 'X'))
        else {
            at += 1;
            continue;
        };
        let glued = letters.get(place + 1..).filter(|value| !value.is_empty());
        match letter {
            'c' => {
                return glued
                    .or_else(|| arguments.get(at + 1).map(String::as_str))
                    .map_or(Python::Interpreter, Python::Code);
            }
            'm' if glued.is_none() => {
                return match arguments.get(at + 1..) {
                    Some(module) if !module.is_empty() => Python::Script(module),
                    _ => Python::Interpreter,
                };
            }
            'm' => return Python::Script(script),
            _ => at += if glued.is_some() { 1 } else { 2 },
        }
    }
    Python::Interpreter
}

fn electron(arguments: &[String]) -> Option<String> {
    let helper = arguments.first().is_some_and(|first| first == "/proc/self/exe");
    arguments.iter().find_map(|argument| {
        if argument.contains(".asar") {
            // `--app-path=/opt/x/app.asar`
            let value = argument
                .strip_prefix("--")
                .and_then(|option| option.split_once('='))
                .map(|(_, value)| value)
                .filter(|value| value.contains(".asar"));
            return Some(format!("[Electron App \"{}\"]", value.unwrap_or(argument)));
        }
        let directory = argument.strip_prefix("--user-data-dir=").filter(|_| helper)?;
        Some(format!("[Electron Helper for \"{directory}\"]"))
    })
}

fn ends_in_exe(path: &str) -> bool {
    path.len() >= 4 && path.get(path.len() - 4..).is_some_and(|end| end.eq_ignore_ascii_case(".exe"))
}

/// Replaces users' names in texts by `<user>`.
#[derive(Clone, Debug, Default)]
pub struct Anonymizer {
    names: Vec<String>,
    active: bool,
}

/// Folders whose sub-folders are named after users.
const HOMES: [&str; 6] = ["/home/", "/users/", "\\users\\", "/var/home/", "/media/", "/run/media/"];

/// What stands in a user's place.
const PLACEHOLDER: &str = "<user>";

impl Anonymizer {
    /// Replaces the given names wherever they stand as a whole word, and every name that follows `/home/` and the
    /// like, whoever it is. Names of the system (`root`) tell nothing about a person and stay.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().filter(|name| !name.is_empty() && name != "root").collect();
        Self { names, active: true }
    }

    /// Changes nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// The text without names.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.active {
            return Cow::Borrowed(text);
        }
        let mut result = Cow::Borrowed(text);
        for home in HOMES.into_iter().filter(|home| holds(text, home)) {
            if let Some(changed) = replace_component(&result, home) {
                result = Cow::Owned(changed);
            }
        }
        for name in &self.names {
            if let Some(changed) = replace_word(&result, name) {
                result = Cow::Owned(changed);
            }
        }
        result
    }

    /// Names of a person in everything that a process is called by: the one rule for all reports.
    pub fn process(&self, process: &mut Process) {
        let paths = [&mut process.exe, &mut process.app, &mut process.cgroup, &mut process.unit]
            .into_iter()
            .flatten();
        let names = process.images.iter_mut().map(|image| &mut image.comm).chain([&mut process.comm]);
        self.texts(paths.chain(names));
    }

    /// The same for a group of failures. Symbols of generated code hold paths of scripts.
    pub fn failure(&self, failure: &mut Failure) {
        if let Some(example) = &mut failure.example {
            self.texts(&mut example.stack_notes);
        }
        let frames = failure.example.iter_mut().flat_map(|example| &mut example.stack);
        let paths =
            frames.flat_map(|frame| [&mut frame.symbol, &mut frame.module, &mut frame.file]).flatten();
        self.texts(paths.chain([&mut failure.comm]));
    }

    /// The same in an event, before it is kept or written down anywhere.
    pub fn event(&self, event: &mut Event) {
        match event {
            Event::Mm(state) => {
                let tasks = state.tasks.iter_mut().flat_map(|tasks| &mut tasks.names);
                self.texts([&mut state.comm].into_iter().chain(tasks.map(|task| &mut task.name)));
            }
            Event::Sample(sample) => self.texts([&mut sample.comm]),
            Event::Change(change) => self.texts([&mut change.comm]),
            Event::Refused(refused) => {
                let cgroup = refused.tasks.as_mut().and_then(|tasks| tasks.cgroup_path.as_mut());
                self.texts([&mut refused.comm].into_iter().chain(cgroup));
            }
            Event::Process(facts) => {
                let Within { unit, container, pod } = &mut facts.within;
                self.texts([&mut facts.exe, &mut facts.cgroup, unit, container, pod].into_iter().flatten());
            }
            Event::CommandLine(line) => self.texts(&mut line.arguments),
            Event::Test(it) => self.texts([&mut it.test]),
            Event::User(user) => self.texts([&mut user.name]),
            Event::Mapped(mapped) => {
                self.texts(mapped.file.as_mut().map(|file| &mut file.path));
            }
            Event::Ended(ended) => {
                let by = ended.signal.as_mut().map(|signal| &mut signal.by.comm);
                self.texts([Some(&mut ended.comm), by].into_iter().flatten());
            }
            Event::OomCgroups(cgroups) => {
                self.texts(cgroups.levels.iter_mut().map(|level| &mut level.path));
            }
            Event::Owners(owners) => self.texts([&mut owners.holders.sentence]),
            Event::Frame(named) => {
                for Frame { symbol, module, file, .. } in named.inlined.iter_mut().chain([&mut named.frame]) {
                    self.texts([symbol, module, file].into_iter().flatten());
                }
            }
            Event::Stack(stack) => self.texts(&mut stack.notes),
            Event::Note(note) => self.texts([note]),
            Event::Mark(set) => self.texts([&mut set.name]),
            Event::Limits(_)
            | Event::Interval(_)
            | Event::Rlimits(_)
            | Event::LimitSeen(_)
            | Event::Lost(_)
            | Event::CgroupExhausted(_)
            | Event::Laid(_)
            | Event::OomVictim(_)
            | Event::StackEnds(_)
            | Event::StackPiece(_)
            | Event::Credit(_)
            | Event::Place(_)
            | Event::Hooks(_)
            | Event::Conditions(_)
            | Event::Gone(_)
            | Event::AddressesHidden(_)
            | Event::VmaBytes(_)
            | Event::FiguresEnd
            | Event::End(_)
            | Event::Cut(_) => {}
        }
    }

    /// The same for texts one by one.
    pub fn texts<'t>(&self, texts: impl IntoIterator<Item = &'t mut String>) {
        for text in texts {
            if let Cow::Owned(changed) = self.apply(text) {
                *text = changed;
            }
        }
    }
}

/// `home` is in there, in whatever case. Most texts are told by their separators.
fn holds(text: &str, home: &str) -> bool {
    let (text, home) = (text.as_bytes(), home.as_bytes());
    let begins = |at: usize| text.get(at..at + home.len()).is_some_and(|it| it.eq_ignore_ascii_case(home));
    (0..text.len()).any(|at| home.first() == text.get(at) && begins(at))
}

/// Replaces what follows each `home` up to the next separator; `None` when there is none.
fn replace_component(text: &str, home: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    while let Some(at) = lower.get(done..)?.find(home).map(|at| done + at + home.len()) {
        out.push_str(text.get(done..at)?);
        let rest = text.get(at..)?;
        let length = rest.find(['/', '\\', '"', '\'', ' ', ':', ']']).unwrap_or(rest.len());
        // Shared folders are nobody's name.
        let name = rest.get(..length)?;
        if matches!(name, "" | "Public" | "public" | "shared" | "Shared") || name.starts_with('<') {
            out.push_str(name);
        } else {
            out.push_str(PLACEHOLDER);
        }
        done = at + length;
    }
    if done == 0 {
        return None;
    }
    out.push_str(text.get(done..)?);
    Some(out)
}

fn replace_word(text: &str, name: &str) -> Option<String> {
    let (lower, wanted) = (text.to_ascii_lowercase(), name.to_ascii_lowercase());
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in lower.match_indices(&wanted) {
        let end = at + wanted.len();
        let (before, after) = (text.get(..at)?, text.get(end..)?);
        let alone = !part_of_word(before.chars().next_back()) && !part_of_word(after.chars().next());
        // One may be called `user`: what stands in a name's place is no name.
        let placeholder = before.ends_with('<') && after.starts_with('>');
        if at >= done && alone && !placeholder {
            out.push_str(text.get(done..at)?);
            out.push_str(PLACEHOLDER);
            done = end;
        }
    }
    if done == 0 {
        return None;
    }
    out.push_str(text.get(done..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(line: &[&str]) -> String {
        let line: Vec<String> = line.iter().map(|&s| s.to_owned()).collect();
        application(Some("/usr/bin/exe"), &line, "comm")
    }

    #[test]
    fn wrappers_are_looked_through() {
        assert_eq!(
            app(&["/usr/bin/bwrap", "--args", "40", "--", "/app/bin/spotify", "-x"]),
            "/app/bin/spotify"
        );
        assert_eq!(
            app(&["/usr/bin/bwrap", "--", "/app/bin/zypak-helper", "child", "-", "/app/chrome"]),
            "/app/chrome"
        );
        assert_eq!(app(&["/usr/bin/bwrap", "--args", "40"]), "/usr/bin/bwrap");
        assert_eq!(app(&["/app/bin/zypak-helper", "exec-latest", "-", "/app/x/slack"]), "/app/x/slack");
    }

    #[test]
    fn python_scripts_modules_and_code() {
        assert_eq!(app(&["/usr/bin/python3", "-u", "/srv/run.py", "-v"]), "/srv/run.py");
        assert_eq!(app(&["python3.11", "-X", "dev", "-W", "ignore", "run.py"]), "run.py");
        assert_eq!(app(&["python3.11", "-Xdev", "--check-hash-based-pycs", "never", "run.py"]), "run.py");
        assert_eq!(app(&["python", "-m", "http.server", "80"]), "http.server");
        assert_eq!(app(&["python3", "-c", "\n import os\nos.x()"]), "[Python Code \"import os\"...]");
        assert_eq!(app(&["python3", "-Ic", "print(1)"]), "[Python Code \"print(1)\"...]");
        assert_eq!(app(&["python3"]), "python3");
        assert_eq!(app(&["python3", "-c"]), "python3");
        assert_eq!(app(&["pythonista", "a.py"]), "pythonista");
    }

    #[test]
    fn electron_and_wine() {
        assert_eq!(app(&["/opt/a/a", "--app-path=/opt/a/app.asar"]), "[Electron App \"/opt/a/app.asar\"]");
        assert_eq!(app(&["electron", "/opt/b.asar"]), "[Electron App \"/opt/b.asar\"]");
        assert_eq!(
            app(&["/proc/self/exe", "--type=gpu", "--user-data-dir=/home/u/.config/Code"]),
            "[Electron Helper for \"/home/u/.config/Code\"]"
        );
        assert_eq!(app(&["C:\\My Game\\Game.EXE", "-dx12"]), "[Wine App \"C:\\My Game\\Game.EXE\"]");
    }

    #[test]
    fn one_string_command_lines() {
        assert_eq!(
            arguments(b"C:\\My Game\\game.exe -path \"C:\\Other Dir\\x\" y\0"),
            ["C:\\My Game\\game.exe", "-path", "C:\\Other Dir\\x", "y"]
        );
        assert_eq!(arguments(b"C:\\a.executable\\b.exe"), ["C:\\a.executable\\b.exe"]);
        assert_eq!(arguments(b"/opt/My App/run --type=gpu a"), ["/opt/My App/run", "--type=gpu", "a"]);
        assert_eq!(arguments(b"/opt/a - b/run"), ["/opt/a - b/run"]);
        assert_eq!(arguments(b""), Vec::<String>::new());
        assert_eq!(arguments(b"\0\0"), Vec::<String>::new());
        assert_eq!(arguments(b"a\0b\0"), ["a", "b"]);
        assert_eq!(arguments(b"a 'unclosed -x"), ["a 'unclosed", "-x"]);
    }

    #[test]
    fn titles_and_nameless_processes() {
        let path = "/usr/lib/postgresql/16/bin/postgres";
        assert_eq!(application(Some(path), &["postgres: checkpointer".to_owned()], "postgres"), path);
        assert_eq!(application(None, &["postgres: checkpointer".to_owned()], "x"), "postgres: checkpointer");
        assert_eq!(application(None, &[], "comm"), "comm");
        assert_eq!(application(Some("/bin/x"), &[String::new()], "comm"), "/bin/x");
    }

    #[test]
    fn an_application_is_its_executable() {
        let named = |exe: &str, first: &str| application(Some(exe), &[first.to_owned()], "comm");
        for first in ["bash", "-bash", "/bin/bash", "/usr/bin/bash"] {
            assert_eq!(named("/usr/bin/bash", first), "/usr/bin/bash");
            assert_eq!(named("/usr/bin/bash (deleted)", first), "/usr/bin/bash");
        }
        assert_eq!(
            named("/usr/lib/firefox-esr/firefox-esr", "firefox-esr"),
            "/usr/lib/firefox-esr/firefox-esr"
        );
        assert_eq!(named("/usr/bin/busybox", "/bin/ls"), "/bin/ls");
        assert_eq!(named("/usr/bin/dash", "-sh"), "sh");
        assert_eq!(named("/usr/bin/x", "-"), "-");
        let same = |app, exe, first: &str| same_application(app, Some(exe), &[first.to_owned()]);
        assert_eq!(same("sh", "/usr/bin/dash", "sh"), same("/bin/sh", "/usr/bin/dash (deleted)", "/bin/sh"));
        assert_eq!(same("/srv/run.py", "/usr/bin/python3", "python3"), None);
        assert_eq!(same_application("sh", None, &["sh".to_owned()]), None);
    }

    #[test]
    fn users_become_nobody() {
        let a = Anonymizer::new(["ann".to_owned(), "root".to_owned()]);
        assert_eq!(a.apply("/home/bob/x /home/ann/y"), "/home/<user>/x /home/<user>/y");
        assert_eq!(a.apply("/root/x banner ANN@host"), "/root/x banner <user>@host");
        assert_eq!(a.apply("C:\\users\\Bob\\game.exe"), "C:\\users\\<user>\\game.exe");
        assert_eq!(a.apply("drive_c/users/Public/x"), "drive_c/users/Public/x");
        assert_eq!(a.apply("/data/ann"), "/data/<user>");
        let common = Anonymizer::new(["user".to_owned()]);
        assert_eq!(common.apply("/home/user/x user"), "/home/<user>/x <user>");
        assert_eq!(a.apply("/home/"), "/home/");
        assert_eq!(Anonymizer::off().apply("/home/ann"), "/home/ann");
        assert_eq!(a.apply("/home/änn/ü"), "/home/<user>/ü");
    }
}
