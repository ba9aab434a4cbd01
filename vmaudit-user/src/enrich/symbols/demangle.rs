//! Symbol names as their language writes them. A name of a few bytes can stand for one of gigabytes, so what is written
//! is bounded.

use std::fmt::{self, Write};

use super::elf::without_version;

/// Characters kept of a name or a path.
pub const NAME: usize = 1024;
/// Bytes of a name that is looked into.
const MANGLED: usize = 1 << 16;

/// By Rust's rules, by those of C++, or as it is.
pub fn demangle(name: &str) -> String {
    // glibc's debug information names its functions by their inner aliases.
    let name = name.strip_prefix("__GI_").unwrap_or(name);
    let name = without_version(name);
    if name.len() > MANGLED {
        return cut(name);
    }
    let mut text = Bounded(String::new());
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        let _ = write!(text, "{symbol:#}");
    } else if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(name)
    {
        // What does not fit is cut; what cannot be written at all is left as it was.
        let whole = symbol.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::default());
        if whole.is_err() && text.0.len() < NAME {
            text.0.clear();
        }
    }
    cut(if text.0.is_empty() { name } else { &text.0 })
}

/// The first characters.
pub fn cut(text: &str) -> String {
    text.chars().take(NAME).collect()
}

/// Refuses more than four bytes for each character kept.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (4 * NAME).saturating_sub(self.0.len());
        let fits = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= room).last();
        self.0.push_str(text.get(..fits.unwrap_or(0)).unwrap_or_default());
        if fits.unwrap_or(0) == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_language() {
        for (name, wanted) in [
            ("mmap", "mmap"),
            ("__GI_mmap", "mmap"),
            ("pthread_create@@GLIBC_2.34", "pthread_create"),
            ("@", "@"),
            ("_ZN4core9panicking9panic_fmt17h5f1a6fd39197ad62E", "core::panicking::panic_fmt"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("_Znot a name", "_Znot a name"),
            ("", ""),
        ] {
            assert_eq!(demangle(name), wanted);
        }
    }

    /// Each S_ doubles what stands before it: 40 of them are a terabyte.
    #[test]
    fn a_name_that_doubles_itself_is_cut() {
        let mut name = String::from("_Z1fSt4pairI1aS_E");
        let mut last = String::from("S0_");
        for n in 0..40u32 {
            name.push_str(&format!("St4pairI{last}{last}E"));
            last = match n {
                0..=34 => format!("S{}_", char::from_digit(n + 1, 36).unwrap().to_ascii_uppercase()),
                _ => format!("S1{}_", char::from_digit(n - 35, 36).unwrap()),
            };
        }
        assert!(demangle(&name).chars().count() <= NAME);
        // Rust's back references do the same.
        let mut name = String::from("_RNvC1a");
        name.push_str(&"TB_B_E".repeat(100));
        assert!(demangle(&name).chars().count() <= NAME);
        assert_eq!(demangle(&"x".repeat(MANGLED + 1)).len(), NAME);
    }
}
