//! Names of generated code, which a program writes into /tmp/perf-PID.map.

use std::io::{BufRead as _, BufReader, Read};

use super::demangle::{NAME, cut};

/// Bytes read of one.
pub const SIZE: u64 = 256 << 20;

/// Names of `wanted` by a perf map: lines of start and length in hexadecimal and a name; later lines win.
pub fn names(map: impl Read, wanted: &[u64]) -> Vec<Option<String>> {
    let mut names = vec![None; wanted.len()];
    let mut sorted: Vec<(u64, usize)> = wanted.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    let mut reader = BufReader::with_capacity(1 << 16, map.take(SIZE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let Ok(read) = reader.by_ref().take(4 * NAME as u64).read_until(b'\n', &mut line) else {
            return names;
        };
        if read == 0 {
            return names;
        }
        let mut parts = line.trim_ascii_end().splitn(3, |&byte| byte == b' ');
        let mut number = || {
            let text = std::str::from_utf8(parts.next()?).ok()?;
            u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        };
        let (Some(start), Some(length)) = (number(), number()) else { continue };
        let Some(name) = parts.next() else { continue };
        let first = sorted.partition_point(|&(at, _)| at < start);
        let inside = sorted.iter().skip(first).take_while(|&&(at, _)| at - start < length);
        for &(_, index) in inside {
            if let Some(slot) = names.get_mut(index) {
                *slot = Some(cut(&String::from_utf8_lossy(name)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_win_and_damaged_ones_are_passed_over() {
        let map = b"1000 10 old\n\xff\xfe\nzz 10 bad\n2000 ffffffffffffffff everything behind\n1008 4 a new one\n1000\n";
        let names = names(&map[..], &[0x1000, 0x1008, 0x1010, 0x2001, 0xfff]);
        let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
        assert_eq!(names, [Some("old"), Some("a new one"), None, Some("everything behind"), None]);
    }

    #[test]
    fn one_endless_line_and_more_than_the_bound_are_no_harm() {
        let endless = std::io::repeat(b'1');
        assert_eq!(names(endless.take(1 << 20), &[1]), [None]);
    }
}
