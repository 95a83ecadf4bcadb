//! Makes a failing schedule small: the faults that are needed, and no others.

use std::collections::BTreeSet;

/// A subset of `all` that still fails and of which nothing can be left out alone: Zeller and Hildebrandt's `ddmin`
/// (Simplifying and Isolating Failure-Inducing Input, 2002). `fails` says whether a subset does; all of it does.
pub fn minimal(all: &BTreeSet<u32>, mut fails: impl FnMut(&BTreeSet<u32>) -> bool) -> BTreeSet<u32> {
    let mut kept: Vec<u32> = all.iter().copied().collect();
    let mut pieces = 2;
    while !kept.is_empty() {
        let size = kept.len().div_ceil(pieces);
        let without: Vec<Vec<u32>> = (0..kept.len().div_ceil(size))
            .map(|piece| {
                let range = piece * size..((piece + 1) * size).min(kept.len());
                kept.iter().enumerate().filter(|(at, _)| !range.contains(at)).map(|(_, fault)| *fault).collect()
            })
            .collect();
        match without.into_iter().find(|rest: &Vec<u32>| fails(&rest.iter().copied().collect())) {
            Some(rest) => {
                kept = rest;
                pieces = 2.max(pieces - 1);
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(kept.len()),
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::minimal;
    use std::collections::BTreeSet;

    fn shrunk(all: u32, needed: &[u32]) -> (Vec<u32>, usize) {
        let mut tries = 0;
        let kept = minimal(&(0..all).collect(), |kept: &BTreeSet<u32>| {
            tries += 1;
            needed.iter().all(|fault| kept.contains(fault))
        });
        (kept.into_iter().collect(), tries)
    }

    #[test]
    fn only_what_is_needed_stays() {
        assert_eq!(shrunk(20, &[3, 17]).0, [3, 17]);
        assert_eq!(shrunk(1, &[0]).0, [0]);
        assert!(shrunk(20, &[]).0.is_empty(), "it fails without any fault");
        assert_eq!(shrunk(7, &[0, 1, 2, 3, 4, 5, 6]).0.len(), 7, "all are needed");
        assert!(shrunk(64, &[9]).1 < 20, "one of many is found by halving");
    }
}
