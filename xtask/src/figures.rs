//! What the benchmarks of guests have told, as ratios to the untraced program.

/// One benchmark's figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Name of the benchmark.
    pub work: String,
    /// What it ran under, see [`UNTRACED`].
    pub under: String,
    /// An operation; the guest's ns.
    pub ns: f64,
}

/// [`Figure::under`] of the program alone.
const UNTRACED: &str = "untraced";

/// Kernels and arrangements by benchmarks, in Markdown. Takes each kernel's name, version and figures.
pub fn table<'a>(kernels: impl Iterator<Item = (&'a str, &'a str, &'a [Figure])>) -> String {
    let mut works: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for (kernel, version, figures) in kernels {
        let mut unders: Vec<&str> = Vec::new();
        for figure in figures {
            if !works.contains(&figure.work.as_str()) {
                works.push(&figure.work);
            }
            if figure.under != UNTRACED && !unders.contains(&figure.under.as_str()) {
                unders.push(&figure.under);
            }
        }
        rows.extend(unders.into_iter().map(|under| (kernel, version, under, figures)));
    }
    let mut lines = vec![
        format!("| kernel | under | {} |", works.join(" | ")),
        format!("|--|--|{}", "--|".repeat(works.len())),
    ];
    for (kernel, version, under, figures) in rows {
        let cells: Vec<String> = works.iter().map(|work| ratio(figures, work, under)).collect();
        lines.push(format!("| {kernel} ({version}) | {under} | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

fn ratio(figures: &[Figure], work: &str, under: &str) -> String {
    let of = |under: &str| figures.iter().find(|figure| figure.work == work && figure.under == under);
    match (of(UNTRACED), of(under)) {
        (Some(plain), Some(traced)) if plain.ns > 0.0 => format!("{:.3}x", traced.ns / plain.ns),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_untraced_program() {
        let figure = |work: &str, under: &str, ns| Figure { work: work.into(), under: under.into(), ns };
        let figures =
            [figure("pair", UNTRACED, 200.0), figure("pair", "run", 220.0), figure("fault", "run", 1.0)];
        assert_eq!(
            table([("6.1", "6.1.2-3", &figures[..])].into_iter()),
            "| kernel | under | pair | fault |\n|--|--|--|--|\n| 6.1 (6.1.2-3) | run | 1.100x | - |"
        );
    }
}
