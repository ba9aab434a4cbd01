//! `vmaudit man`: a page for each command, from the definition of the command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::rights;

use crate::cli;
use crate::cli::man::ManArgs;

/// Runs the command.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    rights::finish(&[]);
    for (name, page) in pages()? {
        let path = args.folder.join(format!("{name}.1"));
        let cannot = || format!("cannot write {}", path.display());
        let mut file = Destination::open(&path, Writing::Whole).with_context(cannot)?;
        file.write_all(&page).and_then(|()| file.flush()).with_context(cannot)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Name and text of each page.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut whole = cli::definition().disable_help_subcommand(true);
    whole.build();
    let names: Vec<&str> = whole.get_subcommands().map(clap::Command::get_name).collect();
    let others = names.iter().map(|name| format!("vmaudit-{name}(1)")).collect::<Vec<_>>().join(", ");
    let mut pages = vec![("vmaudit".to_owned(), page(&whole, &others)?)];
    for command in whole.get_subcommands() {
        let name = format!("vmaudit-{}", command.get_name());
        // Of all pages the same, so that each says what it is a part of.
        pages.push((name.clone(), page(command, "vmaudit(1)")?));
    }
    Ok(pages)
}

fn page(command: &clap::Command, others: &str) -> io::Result<Vec<u8>> {
    let (examples, notes) = split(command.get_after_help().map(ToString::to_string).unwrap_or_default());
    let version = concat!("vmaudit ", env!("CARGO_PKG_VERSION"));
    // The same bytes whenever it is made: no date.
    let man = Man::new(command.clone()).date("").source(version).manual("vmaudit");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    if !notes.is_empty() {
        rest.control("SH", ["NOTES"]).text([roman(notes)]);
    }
    rest.control("SH", ["SEE ALSO"]).text([roman(others)]);
    rest.to_writer(&mut text)?;
    Ok(text)
}

/// The examples, a line each, and what follows them.
fn split(after_help: String) -> (Vec<String>, String) {
    let (examples, notes) = after_help.split_once("\n\n").unwrap_or((&after_help, ""));
    let Some(examples) = examples.strip_prefix("Examples:\n") else { return (Vec::new(), after_help) };
    (examples.lines().map(|line| line.trim().to_owned()).collect(), notes.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_options_and_examples() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(other, _)| other == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("no page {name}")).1.clone()).unwrap()
        };
        assert_eq!(pages.len(), cli::definition().get_subcommands().count() + 1);
        let run = page("vmaudit-run");
        for part in
            [".TH vmaudit-run 1", "\\-\\-record", ".SH EXAMPLES", "sudo vmaudit run", ".SH \"SEE ALSO\""]
        {
            assert!(run.contains(part), "no {part:?} in {run}");
        }
        assert!(page("vmaudit").contains("vmaudit\\-scan(1)"), "{}", page("vmaudit"));
        for (name, text) in &pages {
            assert!(text.is_ascii(), "{name} has letters that man may not show");
            assert!(!String::from_utf8_lossy(text).contains("EXTRA"), "{name}");
        }
    }
}
