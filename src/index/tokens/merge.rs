//! Fewer rows that say nearly the same.

use crate::kernels::{dot, normalise};

/// Cosine from which two token states count as one.
const SAME: f32 = 0.9;
/// Rows that are kept before the most similar ones are merged, as a multiple of those at the end.
const SLACK: usize = 4;

/// Merges rows of length 1 that are nearly alike, then the most similar ones until at most `most`
/// are left. A merged row is the mean direction of the rows in it.
///
/// # Shapes
/// - `rows`: `[n, dim]`
/// - returns: `[at most "most", dim]`
pub(super) fn merged(rows: &[f32], dim: usize, most: usize) -> Vec<f32> {
    if most == 0 || rows.is_empty() {
        return Vec::new();
    }
    let mut kept = Merged { dim, sums: Vec::new(), units: Vec::new() };
    for row in rows.chunks_exact(dim) {
        match kept.nearest(row) {
            Some((at, cosine)) if cosine >= SAME => kept.add(at, row),
            _ => kept.push(row),
        }
        if kept.len() > SLACK * most {
            kept.reduce(most);
        }
    }
    kept.reduce(most);
    kept.units
}

/// Sums of rows, and their directions.
struct Merged {
    dim: usize,
    sums: Vec<f32>,
    units: Vec<f32>,
}

impl Merged {
    fn len(&self) -> usize {
        self.units.len() / self.dim
    }

    fn unit(&self, at: usize) -> &[f32] {
        &self.units[at * self.dim..(at + 1) * self.dim]
    }

    fn nearest(&self, row: &[f32]) -> Option<(usize, f32)> {
        let cosines = self.units.chunks_exact(self.dim).map(|unit| dot(unit, row)).enumerate();
        cosines.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    fn push(&mut self, row: &[f32]) {
        self.sums.extend_from_slice(row);
        self.units.extend_from_slice(row);
    }

    fn add(&mut self, at: usize, sum: &[f32]) {
        let place = at * self.dim..(at + 1) * self.dim;
        self.sums[place.clone()].iter_mut().zip(sum).for_each(|(a, b)| *a += b);
        self.units[place.clone()].copy_from_slice(&self.sums[place.clone()]);
        normalise(&mut self.units[place]);
    }

    /// Merges the most similar two until there are no more than `most`.
    fn reduce(&mut self, most: usize) {
        if self.len() <= most {
            return;
        }
        // For each row the most similar one before it.
        let n = self.len();
        let mut near: Vec<(usize, f32)> = (0..n).map(|at| self.before(at)).collect();
        while self.len() > most {
            let pairs = near.iter().enumerate().skip(1);
            let best = pairs.max_by(|a, b| a.1.1.total_cmp(&b.1.1).then(b.0.cmp(&a.0)));
            let (second, &(first, _)) = best.expect("more rows than one");
            let place = second * self.dim..(second + 1) * self.dim;
            let sum: Vec<f32> = self.sums.drain(place.clone()).collect();
            self.units.drain(place);
            near.remove(second);
            self.add(first, &sum);
            for (at, near) in near.iter_mut().enumerate().skip(first) {
                if at == first || near.0 == first || near.0 == second {
                    *near = self.before(at);
                    continue;
                }
                if near.0 > second {
                    near.0 -= 1;
                }
                let cosine = dot(self.unit(at), self.unit(first));
                if cosine > near.1 {
                    *near = (first, cosine);
                }
            }
        }
    }

    /// The most similar row before another one.
    fn before(&self, at: usize) -> (usize, f32) {
        let cosine = |other: usize| (other, dot(self.unit(other), self.unit(at)));
        let all = (0..at).map(cosine);
        let best = all.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.unwrap_or((0, f32::NEG_INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, dim: usize) -> Vec<f32> {
        let mut rows: Vec<f32> =
            (0..n * dim).map(|i| ((i * i % 971) as f32 * 0.37).sin()).collect();
        rows.chunks_exact_mut(dim).for_each(normalise);
        rows
    }

    /// Twin: all pairs looked at before every merge.
    fn slow(rows: &[f32], dim: usize, most: usize) -> Vec<f32> {
        let mut sums: Vec<Vec<f32>> = rows.chunks_exact(dim).map(<[f32]>::to_vec).collect();
        let unit = |row: &[f32]| {
            let mut row = row.to_vec();
            normalise(&mut row);
            row
        };
        while sums.len() > most {
            let mut best = (f32::NEG_INFINITY, 0, 0);
            for second in 1..sums.len() {
                for first in 0..second {
                    let cosine = dot(&unit(&sums[first]), &unit(&sums[second]));
                    if cosine > best.0 {
                        best = (cosine, first, second);
                    }
                }
            }
            let gone = sums.remove(best.2);
            sums[best.1].iter_mut().zip(&gone).for_each(|(a, b)| *a += b);
        }
        sums.iter().flat_map(|row| unit(row)).collect()
    }

    #[test]
    fn the_most_similar_are_merged_first() {
        for (n, most) in [(12, 5), (30, 8), (7, 7), (9, 1)] {
            let rows = rows(n, 16);
            let (fast, slow) = (merged(&rows, 16, most), slow(&rows, 16, most));
            assert_eq!(fast.len(), most * 16);
            for (a, b) in fast.iter().zip(&slow) {
                approx::assert_abs_diff_eq!(a, b, epsilon = 1e-5);
            }
        }
    }

    #[test]
    fn rows_that_are_alike_become_one_and_few_stay_as_they_are() {
        let few = rows(3, 8);
        assert_eq!(merged(&few, 8, 32), few);
        let twice = [few.clone(), few.clone()].concat();
        let found = merged(&twice, 8, 32);
        assert_eq!(found.len(), few.len());
        for (a, b) in found.iter().zip(&few) {
            approx::assert_abs_diff_eq!(a, b, epsilon = 1e-6);
        }
        // Ten thousand tokens of one candidate.
        assert_eq!(merged(&rows(10_000, 8), 8, 32).len(), 32 * 8);
        assert!(merged(&few, 8, 0).is_empty() && merged(&[], 8, 4).is_empty());
    }
}
