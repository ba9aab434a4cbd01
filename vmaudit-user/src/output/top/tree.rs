//! Processes below their parents.

use std::collections::{HashMap, HashSet};

use super::look::{Row, Which};

/// Children below their parents, with the steps down to each.
pub fn in_tree(rows: Vec<&Row>) -> Vec<(&Row, usize)> {
    const DEEPEST: usize = 32;
    fn below<'r>(
        rows: &[&'r Row],
        parent: Option<u32>,
        depth: usize,
        taken: &mut HashSet<Which>,
        out: &mut Vec<(&'r Row, usize)>,
    ) {
        let there = |pid: u32| rows.iter().any(|row| row.which.pid == pid);
        for row in rows {
            let its = row.ppid.filter(|ppid| *ppid != row.which.pid && there(*ppid));
            if its == parent && depth < DEEPEST && taken.insert(row.which) {
                out.push((row, depth));
                below(rows, Some(row.which.pid), depth + 1, taken, out);
            }
        }
    }
    // Every level looks at all rows: a machine with very many keeps their order.
    const MOST: usize = 1000;
    if rows.len() > MOST {
        return rows.into_iter().map(|row| (row, 0)).collect();
    }
    let (mut taken, mut out) = (HashSet::new(), Vec::new());
    below(&rows, None, 0, &mut taken, &mut out);
    // Whoever stands in a circle, or too deep.
    out.extend(rows.into_iter().filter(|row| !taken.contains(&row.which)).map(|row| (row, 0)));
    out
}

/// The steps down to each of these.
pub fn depths(rows: &[&Row]) -> Vec<usize> {
    let by_which: HashMap<Which, usize> =
        in_tree(rows.to_vec()).into_iter().map(|(row, depth)| (row.which, depth)).collect();
    rows.iter().map(|row| by_which.get(&row.which).copied().unwrap_or(0)).collect()
}
