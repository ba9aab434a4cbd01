//! What known software is said to need. The rules are data (`requirements.json`), each with the address it comes from.

use crate::model::limit::{Known, Rule};
use anyhow::{Context, bail};

/// The rules as shipped.
const DATA: &str = include_str!("requirements.json");

/// What a rule may need to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Maximum heap, bytes.
    pub heap_bytes: Option<u64>,
    /// Number of things.
    pub items: Option<u64>,
    /// Memory of the machine, bytes.
    pub memory_bytes: Option<u64>,
}

impl Known {
    /// VMAs by its rule; `None` when a fact is missing or nothing is published.
    pub fn vmas(&self, facts: &Facts) -> Option<u64> {
        let by_rule = match &self.rule {
            Rule::Fixed { vmas } => Some(*vmas),
            // As `(heap / granule) * 3 * 1.2` in integers and then floats, cut: the JVM's own arithmetic.
            Rule::PerHeap { granule_bytes, factor } => {
                facts.heap_bytes.map(|heap| ((heap / (*granule_bytes).max(1)) as f64 * factor) as u64)
            }
            Rule::PerItem { factor, .. } => facts.items.map(|items| items.saturating_mul(*factor)),
            Rule::MemoryDivided { bytes, least } => {
                facts.memory_bytes.map(|memory| (memory / (*bytes).max(1)).max(*least))
            }
            Rule::Unknown => None,
        };
        by_rule.or(self.otherwise)
    }

    /// What is missing to apply the rule, as the option that would give it.
    pub fn missing(&self, facts: &Facts) -> Option<String> {
        match &self.rule {
            Rule::PerHeap { .. } if facts.heap_bytes.is_none() => Some("give --heap SIZE".to_owned()),
            Rule::PerItem { item, .. } if facts.items.is_none() => {
                Some(format!("give --items N, the number of {item}"))
            }
            _ => None,
        }
    }

    /// A process of that name and with those arguments is one.
    pub fn matches(&self, comm: &str, arguments: &[String]) -> bool {
        self.comm.iter().any(|name| name == comm)
            || arguments.iter().any(|argument| {
                self.arguments.iter().any(|wanted| {
                    argument == wanted || (wanted.ends_with(".exe") && argument.ends_with(wanted.as_str()))
                })
            })
    }
}

/// All rules.
pub fn known() -> anyhow::Result<Vec<Known>> {
    serde_json::from_str(DATA).context("the list of known needs is damaged")
}

/// The rule of that name, or of the only name that is like it. Errors: nothing is like it, or several are; the sentence says
/// which.
pub fn named<'a>(all: &'a [Known], name: &str) -> anyhow::Result<&'a Known> {
    let wanted = bare(name);
    let names = |known: &Known| -> Vec<String> {
        let all = [&known.name, &known.title].into_iter().chain(&known.comm);
        all.map(|name| bare(name)).collect()
    };
    if let Some(known) = all.iter().find(|known| !wanted.is_empty() && names(known).contains(&wanted)) {
        return Ok(known);
    }
    let shown = crate::text::clean(name);
    // Part of a name, a name with something about it (elasticsearch-8), or one that is mistyped.
    let like = |fits: &dyn Fn(&str) -> bool| -> Vec<&'a Known> {
        all.iter().filter(|known| names(known).iter().any(|name| fits(name))).collect()
    };
    let long = wanted.len() >= LEAST_LIKENESS;
    let part = like(&|name| {
        long && (name.contains(&wanted) || (name.len() > LEAST_LIKENESS && wanted.contains(name)))
    });
    let found = if part.is_empty() { like(&|name| long && one_slip(name, &wanted)) } else { part };
    match found.as_slice() {
        [known] => Ok(known),
        [] => bail!("nothing is known about {shown}; all that is known is listed by: vmaudit limit --known"),
        several => {
            let mut names: Vec<&str> = several.iter().map(|known| known.name.as_str()).collect();
            names.sort_unstable();
            bail!("{shown} may be {}: say which", names.join(" or "))
        }
    }
}

/// Letters that a likeness takes at least.
const LEAST_LIKENESS: usize = 3;

/// A name without what people write in several ways.
fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// One letter is missing, too much or another one, or two neighbours changed places.
fn one_slip(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same_start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (rest_a, rest_b) = (a.get(same_start..).unwrap_or_default(), b.get(same_start..).unwrap_or_default());
    match (rest_a, rest_b) {
        ([_, tail @ ..], other) | (other, [_, tail @ ..]) if tail == other => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([x, y, a @ ..], [p, q, b @ ..]) => (x, y, a) == (q, p, b),
        (other, [_, tail @ ..]) => tail == other,
        _ => false,
    }
}

/// `64g`, `512MiB`, `1.5T`, or bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text} is no size; examples: 64g, 512m, 2TiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    let value = number.parse::<f64>().map_err(|_| bad())? * (1u64 << shift) as f64;
    if value.is_finite() && value < u64::MAX as f64 { Ok(value as u64) } else { Err(bad()) }
}

/// Maximum heap that a JVM was told, bytes; the last option wins, as in the JVM.
pub fn java_heap(arguments: &[String]) -> Option<u64> {
    arguments.iter().rev().find_map(|argument| {
        let size = argument.strip_prefix("-Xmx").or_else(|| argument.strip_prefix("-XX:MaxHeapSize="))?;
        parse_size(size).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_whole() {
        let all = known().unwrap();
        assert!(all.len() > 15);
        for known in &all {
            assert!(known.source.starts_with("https://"), "{}", known.name);
            assert!(!known.note.is_empty() && known.name == known.name.to_ascii_lowercase());
            assert!(
                known.comm.iter().all(|comm| comm.len() <= 15),
                "{}: the kernel cuts names at 15",
                known.name
            );
            let facts = Facts { heap_bytes: Some(1 << 36), items: Some(7), memory_bytes: Some(1 << 36) };
            assert!(known.vmas(&facts).is_some() || known.rule == Rule::Unknown, "{}", known.name);
        }
    }

    #[test]
    fn published_figures_come_out() {
        let all = known().unwrap();
        // The JVM's own warning for 120,832 MiB, hiero-ledger/solo#2875.
        let facts = Facts { heap_bytes: Some(120_832 << 20), ..Facts::default() };
        assert_eq!(named(&all, "zgc").unwrap().vmas(&facts), Some(217_497));
        let facts = Facts { items: Some(838_860), ..Facts::default() };
        assert_eq!(named(&all, "mongodb").unwrap().vmas(&facts), Some(1_677_720));
        assert_eq!(named(&all, "MongoDB").unwrap().vmas(&Facts::default()), Some(128_000));
        assert!(named(&all, "nosuch").unwrap_err().to_string().contains("limit --known"));
    }

    #[test]
    fn names_are_known_by_likeness() {
        let all = known().unwrap();
        for (typed, name) in [
            ("elastic", "elasticsearch"),
            ("Elasticsearch-8.18", "elasticsearch"),
            ("elasticsaerch", "elasticsearch"),
            ("opensearc", "opensearch"),
            ("postgres-redis", "redis"),
            ("rediss", "redis"),
            ("reds", "redis"),
            ("star citizen", "star-citizen"),
            ("mongo", "mongodb"),
            ("Wine", "wine"),
            ("google-chrome", "chromium"),
            ("firefox-esr", "firefox"),
        ] {
            assert_eq!(named(&all, typed).map(|known| known.name.as_str()).unwrap_or("?"), name, "{typed}");
        }
        for (typed, part) in [
            ("java", "java may be java-threads or zgc: say which"),
            ("search", "elasticsearch or manticore or opensearch"),
            ("", "nothing is known"),
            ("x", "nothing is known"),
            ("\u{1b}[2J", "\\x1b"),
        ] {
            let said = named(&all, typed).unwrap_err().to_string();
            assert!(said.contains(part) && !said.contains('\u{1b}'), "{typed}: {said}");
        }
    }

    #[test]
    fn sizes_and_heaps() {
        assert_eq!(parse_size("64g"), Ok(64 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1.5k"), Ok(1536));
        for bad in ["", "g", "1x", "-1", "99999999999999t", "1.2.3"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        let arguments = ["java", "-Xmx1g", "-Xmx2g"].map(str::to_owned);
        assert_eq!(java_heap(&arguments), Some(2 << 30));
    }

    #[test]
    fn matching_needs_a_whole_argument() {
        let all = known().unwrap();
        let kafka = named(&all, "kafka").unwrap();
        assert!(kafka.matches("java", &["java".to_owned(), "kafka.Kafka".to_owned()]));
        assert!(!kafka.matches("java", &["notkafka.KafkaX".to_owned()]));
        let game = named(&all, "star-citizen").unwrap();
        assert!(game.matches("x", &["C:\\Games\\StarCitizen.exe".to_owned()]));
    }
}
