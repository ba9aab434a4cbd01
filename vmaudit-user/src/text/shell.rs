//! Words as a shell reads them.

/// Arguments as they could be typed into a shell.
pub fn quoted(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    let words: Vec<String> = arguments
        .iter()
        .map(|word| {
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', "'\"'\"'"))
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        let words = ["a b", "it's", "--x=1", ""].map(str::to_owned);
        assert_eq!(quoted(&words), "'a b' 'it'\"'\"'s' --x=1 ''");
    }
}
