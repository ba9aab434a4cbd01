//! Names of functions, shorter: without types.

/// `void pool::Arena<std::vector<int> >::guard(long) const` becomes `pool::Arena<…>::guard`, and
/// `long sun.nio.ch.FileChannelImpl.map0(int, long)` becomes `FileChannelImpl.map0`. What is not understood stays as it is.
pub(crate) fn without_types(name: &str) -> String {
    let Some(plain) = without_arguments(name) else { return name.to_owned() };
    // What is returned comes before it, whether it is const behind it.
    let plain = plain.trim_end_matches("\nconst");
    let last = plain.rsplit(BLANK).next().unwrap_or(plain);
    let conversion = plain.find("operator\n").map(|at| plain.get(..at).unwrap_or_default());
    let function = match conversion {
        Some(before) => plain.get(before.rfind(BLANK).map_or(0, |at| at + 1)..).unwrap_or(plain),
        None => last,
    };
    let function = function.replace(BLANK, " ");
    // Java: only with arguments, so that no file's name is taken for one.
    let java = name.ends_with(')') && !name.contains("::") && !function.contains('(');
    let parts: Vec<&str> = function.split('.').collect();
    match parts.as_slice() {
        [_, .., class, method] if java => format!("{class}.{method}"),
        _ if function.is_empty() => name.to_owned(),
        _ => function,
    }
}

/// A blank outside of all brackets.
const BLANK: char = '\n';

/// Without what is in brackets behind a name; `None` where brackets do not fit.
fn without_arguments(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut open: Vec<char> = Vec::new();
    // Brackets up to this depth are shown.
    let mut shown = 0;
    // Behind the sign of an operator there are only arguments.
    let mut operator = false;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let visible = open.len() == shown;
        if visible && !operator && out.ends_with("operator") && SIGNS.contains(&c) {
            out.push(c);
            while let Some(next) = rest.next_if(|next| SIGNS.contains(next) && *next != '(' || *next == ')') {
                out.push(next);
            }
            rest.next_if_eq(&' ');
            operator = true;
            continue;
        }
        match c {
            '<' | '(' => {
                let behind = |last: char| last.is_alphanumeric() || matches!(last, '_' | '>' | '}' | ')');
                open.push(if c == '<' { '>' } else { ')' });
                if visible && !operator && !out.ends_with(behind) {
                    out.push(c);
                    shown += 1;
                } else if visible && !operator && c == '<' {
                    out.push_str("<…>");
                }
                continue;
            }
            '>' | ')' => {
                if open.pop()? != c {
                    return None;
                }
                if visible {
                    shown -= 1;
                    out.push(c);
                }
                continue;
            }
            ' ' if open.is_empty() => out.push(BLANK),
            _ if visible => out.push(c),
            _ => continue,
        }
        operator = false;
    }
    open.is_empty().then_some(out)
}

/// What operators are made of that is a bracket, or stands beside one.
const SIGNS: [char; 5] = ['<', '>', '(', '-', '='];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_types_and_nothing_else() {
        for (name, short) in [
            ("main", "main"),
            ("void pool::Arena<std::vector<int> >::guard(long) const", "pool::Arena<…>::guard"),
            (
                "pool::Arena<std::vector<int, std::allocator<int> > >::guard()::{lambda(long)#1}::operator()(long) const",
                "pool::Arena<…>::guard::{lambda#1}::operator()",
            ),
            ("std::ostream& operator<< <char>(std::ostream&, char)", "operator<<"),
            ("a::operator->()", "a::operator->"),
            ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
            ("a::operator bool() const", "a::operator bool"),
            ("long sun.nio.ch.FileChannelImpl.map0(int, long, long, boolean)", "FileChannelImpl.map0"),
            ("void EverySecond.openSegment(java.nio.channels.FileChannel, long)", "EverySecond.openSegment"),
            ("main.(*Pool).grow", "main.(*Pool).grow"),
            ("main.handleRequest", "main.handleRequest"),
            (
                "<alloc::vec::Vec<T> as core::ops::Drop>::drop",
                "<alloc::vec::Vec<…> as core::ops::Drop>::drop",
            ),
            ("workload::credits::site_a", "workload::credits::site_a"),
            ("Interpreter", "Interpreter"),
            ("broken<(a>)", "broken<(a>)"),
            ("", ""),
            (")", ")"),
            ("f(", "f("),
        ] {
            assert_eq!(without_types(name), short, "{name}");
        }
    }
}
