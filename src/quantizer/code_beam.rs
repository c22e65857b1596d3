//! The code sequences of least error, found with a beam over the levels of residual codebooks.

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    identifier::Codes,
    kernels::squared_distance,
};

/// Codebooks of residual quantization, searched with a beam.
///
/// The greedy choice takes the nearest code at each level, after which the levels below may have
/// nothing near for what is left. A beam keeps the `width` best sequences at each level (Babenko
/// and Lempitsky 2014 encode additive codes so).
pub(super) struct CodeBeam<'a> {
    /// Per level `[size, dim]`.
    pub codebooks: &'a [Vec<f32>],
    pub dim: usize,
    pub width: usize,
}

/// A sequence so far: its error, what it leaves, its codes.
type Sequence = (f32, Vec<f32>, Vec<u16>);

impl CodeBeam<'_> {
    /// The `count` best sequences of each row, those of least error first, `known` ones among them;
    /// the known ones in front of all if `known_first`. A known sequence is thus never replaced by
    /// a worse one.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, `known`: `[n, levels]`
    /// - returns: `[n * count, levels]`
    ///
    /// # Errors
    /// [`Error::Quantizer`] when there are fewer sequences than that.
    pub fn best(
        &self,
        rows: &[f32],
        known: &Codes,
        count: usize,
        known_first: bool,
    ) -> Result<Codes> {
        let sizes = self.codebooks.iter().map(|codebook| codebook.len() / self.dim);
        let there = sizes.fold(1usize, usize::saturating_mul);
        Error::quantizer("code sequences of a row")
            .expected(format!("1 to {there}, the number of sequences"))
            .found(count.to_string())
            .fix_if(count == 0 || count > there, "ask for fewer, or use more codes")?;
        let width = self.width.max(count);
        let found: Vec<Vec<u16>> = rows
            .par_chunks(self.dim)
            .enumerate()
            .flat_map_iter(|(at, row)| {
                let known = known.row(at);
                let mut all = self.search(row, width);
                if !all.iter().any(|(_, codes)| codes == known) {
                    all.push((self.error(row, known), known.to_vec()));
                }
                let order = |codes: &[u16]| known_first && codes != known;
                all.sort_by(|a, b| {
                    let first = order(&a.1).cmp(&order(&b.1));
                    first.then(a.0.total_cmp(&b.0)).then_with(|| a.1.cmp(&b.1))
                });
                all.truncate(count);
                all.into_iter().map(|(_, codes)| codes)
            })
            .collect();
        Codes::from_flat(self.codebooks.len(), found.concat())
    }

    /// The sequences that a beam ends with.
    fn search(&self, row: &[f32], width: usize) -> Vec<(f32, Vec<u16>)> {
        let mut kept: Vec<Sequence> = vec![(0.0, row.to_vec(), Vec::new())];
        let mut next: Vec<(f32, usize, u16)> = Vec::new();
        for codebook in self.codebooks {
            next.clear();
            for (from, (_, left, _)) in kept.iter().enumerate() {
                let codes = codebook.chunks_exact(self.dim).enumerate();
                next.extend(codes.map(|(code, e)| (squared_distance(left, e), from, code as u16)));
            }
            let order = |a: &(f32, usize, u16), b: &(f32, usize, u16)| {
                a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
            };
            if next.len() > width {
                next.select_nth_unstable_by(width - 1, order);
                next.truncate(width);
            }
            next.sort_unstable_by(order);
            let longer = |&(error, from, code): &(f32, usize, u16)| -> Sequence {
                let (_, left, codes) = &kept[from];
                let left = self.minus(left, codebook, code);
                (error, left, codes.iter().copied().chain([code]).collect())
            };
            kept = next.iter().map(longer).collect();
        }
        kept.into_iter().map(|(error, _, codes)| (error, codes)).collect()
    }

    /// Squared distance of a row to what a sequence stands for.
    fn error(&self, row: &[f32], codes: &[u16]) -> f32 {
        let (last, before) = codes.split_last().expect("at least one level");
        let mut left = row.to_vec();
        for (codebook, &code) in self.codebooks.iter().zip(before) {
            left = self.minus(&left, codebook, code);
        }
        squared_distance(&left, self.code(&self.codebooks[before.len()], *last))
    }

    fn minus(&self, row: &[f32], codebook: &[f32], code: u16) -> Vec<f32> {
        row.iter().zip(self.code(codebook, code)).map(|(value, code)| value - code).collect()
    }

    fn code<'b>(&self, codebook: &'b [f32], code: u16) -> &'b [f32] {
        &codebook[usize::from(code) * self.dim..][..self.dim]
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random::<f32>() - 0.5).collect()
    }

    /// Twin: the errors of all sequences, summed up one by one.
    fn all(codebooks: &[Vec<f32>], dim: usize, row: &[f32]) -> Vec<(f32, Vec<u16>)> {
        let mut all = vec![(row.to_vec(), Vec::new())];
        for codebook in codebooks {
            let mut next = Vec::new();
            for (left, codes) in &all {
                for (code, e) in codebook.chunks(dim).enumerate() {
                    let left: Vec<f32> = left.iter().zip(e).map(|(v, e)| v - e).collect();
                    next.push((left, [codes.as_slice(), &[code as u16]].concat()));
                }
            }
            all = next;
        }
        let mut errors: Vec<(f32, Vec<u16>)> = all
            .into_iter()
            .map(|(left, codes)| (left.iter().map(|v| v * v).sum(), codes))
            .collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        errors
    }

    #[test]
    fn a_beam_as_wide_as_all_sequences_finds_the_best_of_all() {
        let codebooks = vec![random(4 * 3, 1), random(5 * 3, 2), random(3 * 3, 3)];
        let rows = random(3 * 40, 4);
        let known = Codes::from_rows(3, &[[0u16, 0, 0]; 40]).unwrap();
        let beam = CodeBeam { codebooks: &codebooks, dim: 3, width: 20 };
        let found = beam.best(&rows, &known, 4, false).unwrap();
        for (at, row) in rows.chunks(3).enumerate() {
            let expected = all(&codebooks, 3, row);
            for (number, (_, codes)) in expected[..4].iter().enumerate() {
                assert_eq!(found.row(at * 4 + number), codes);
            }
        }
        // A narrow one errs somewhere, but not below what is known.
        let best: Vec<Vec<u16>> =
            rows.chunks(3).map(|row| all(&codebooks, 3, row)[0].1.clone()).collect();
        let narrow = CodeBeam { width: 1, ..beam };
        let greedy = narrow.best(&rows, &known, 1, false).unwrap();
        assert!(greedy.rows().zip(&best).any(|(found, best)| found != best));
        let best = Codes::from_rows(3, &best).unwrap();
        assert_eq!(narrow.best(&rows, &best, 1, false).unwrap(), best);
    }

    #[test]
    fn known_sequences_come_first_where_asked_and_once() {
        let codebooks = vec![random(4 * 2, 5), random(4 * 2, 6)];
        let rows = random(2 * 30, 7);
        let known = Codes::from_rows(2, &[[3u16, 3]; 30]).unwrap();
        let beam = CodeBeam { codebooks: &codebooks, dim: 2, width: 2 };
        let found = beam.best(&rows, &known, 16, true).unwrap();
        for row in found.as_flat().chunks(32) {
            assert_eq!(row[..2], [3, 3]);
            let distinct: std::collections::HashSet<&[u16]> = row.chunks(2).collect();
            assert_eq!(distinct.len(), 16);
        }
        assert!(beam.best(&rows, &known, 17, true).unwrap_err().to_string().contains("1 to 16"));
    }
}
