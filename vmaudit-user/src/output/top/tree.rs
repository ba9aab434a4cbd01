//! Processes below their parents.

use std::collections::{HashMap, HashSet};

use super::look::{Row, Which};

/// Children below their parents, with the steps down to each.
pub fn in_tree(rows: Vec<&Row>) -> Vec<(&Row, usize)> {
    const DEEPEST: usize = 32;
    let there: HashSet<u32> = rows.iter().map(|row| row.which.pid).collect();
    let mut children: HashMap<Option<u32>, Vec<&Row>> = HashMap::new();
    for row in &rows {
        let parent = row.ppid.filter(|ppid| *ppid != row.which.pid && there.contains(ppid));
        children.entry(parent).or_default().push(row);
    }
    let (mut taken, mut out): (HashSet<Which>, Vec<(&Row, usize)>) = (HashSet::new(), Vec::new());
    // Those that are next, the first one at the end.
    let mut next: Vec<(&Row, usize)> = Vec::new();
    let mut put = |next: &mut Vec<_>, parent, depth| {
        next.extend(children.remove(&parent).into_iter().flatten().rev().map(|row| (row, depth)));
    };
    put(&mut next, None, 0);
    while let Some((row, depth)) = next.pop() {
        taken.insert(row.which);
        out.push((row, depth));
        if depth + 1 < DEEPEST {
            put(&mut next, Some(row.which.pid), depth + 1);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The session's only thread draws it.
    #[test]
    fn a_machine_with_very_many_has_a_tree_too_and_at_once() {
        let row = |pid: u32, ppid: u32| Row { ppid: Some(ppid), ..super::super::tests::row(pid, "x", 1) };
        // Groups of ten below each tenth, these below the first.
        let mut rows: Vec<Row> =
            (1..=20_000).map(|pid| row(pid, if pid % 10 == 1 { 1 } else { pid / 10 * 10 + 1 })).collect();
        for row in rows.iter_mut().filter(|row| row.which.pid % 10 == 0) {
            row.ppid = Some(row.which.pid - 9);
        }
        rows.reverse();
        let began = std::time::Instant::now();
        let tree = in_tree(rows.iter().collect());
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        assert_eq!(tree.len(), rows.len());
        assert_eq!((tree[0].0.which.pid, tree[0].1, tree[1].1, tree[2].1), (1, 0, 1, 2));
        let deep = |depth: usize| tree.iter().filter(|(_, it)| *it == depth).count();
        assert_eq!((deep(0), deep(1), deep(2)), (1, 1_999 + 9, 1_999 * 9));
    }
}
