//! The first centres.

use std::{borrow::Cow, collections::HashSet};

use rand::{RngExt, seq::index};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::config::{Init, KMeansConfig};
#[cfg(target_arch = "x86_64")]
use crate::kernels::Screen;
use crate::{
    error::Result,
    kernels::{Layout, dots, squared_distance, squared_norm},
    quantizer::rows::{
        RowKey, RowSource, distinct_rows, draw_rows, find_distinct, read_checked, row_bits,
    },
};

/// Rows handled together; fixed, so that sums do not depend on the number of threads. Whole panels
/// of the screen.
const PIECE: usize = 1024;

/// Chooses `config.k` distinct rows as centres, `[k, dim]`.
///
/// At least k of the rows must be distinct.
pub(super) fn first_centres(
    config: &KMeansConfig,
    source: &dyn RowSource,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<f32>> {
    match config.init {
        Init::Random => random(config.k, source, rng),
        Init::PlusPlus => {
            let dim = source.dim();
            let mut sample = draw_rows(source, config.seeding_rows(), rng)?;
            if distinct_rows(&sample, dim, config.k) < config.k {
                // A sample of data with many duplicates may hold too few distinct rows.
                sample = Cow::Owned(find_distinct(source, sample.into_owned(), config.k)?);
            }
            Ok(plus_plus(config.k, &sample, dim, rng))
        }
    }
}

/// Distinct rows drawn evenly.
fn random(k: usize, source: &dyn RowSource, rng: &mut ChaCha8Rng) -> Result<Vec<f32>> {
    let (n, dim) = (source.len(), source.dim());
    let mut seen = HashSet::with_capacity(k);
    let mut centres = Vec::with_capacity(k * dim);
    let mut row = Vec::new();
    for i in index::sample(rng, n, n) {
        read_checked(source, i..i + 1, &mut row)?;
        if seen.insert(row_bits(&row)) {
            centres.extend_from_slice(&row);
            if seen.len() == k {
                break;
            }
        }
    }
    Ok(centres)
}

/// Greedy k-means++: of several rows drawn by squared distance to the centres so far, the one that
/// lowers the sum of these distances most.
fn plus_plus(k: usize, rows: &[f32], dim: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let n = rows.len() / dim;
    // The number of tries that Arthur and Vassilvitskii's own program uses.
    let tries = 2 + (k as f64).ln() as usize;
    let row = |i: usize| &rows[i * dim..][..dim];

    let first = rng.random_range(0..n);
    let mut centres = row(first).to_vec();
    let mut closest: Vec<f32> =
        rows.par_chunks_exact(dim).map(|other| squared_distance(other, row(first))).collect();
    // Whole pieces; nothing is nearer than 0.
    closest.resize(n.next_multiple_of(PIECE), 0.0);
    let nearer = Nearer::new(rows, dim);
    let mut sums = vec![0.0_f64; n];
    while centres.len() < k * dim {
        let mut total = 0.0;
        for (sum, &distance) in sums.iter_mut().zip(&closest) {
            total += f64::from(distance);
            *sum = total;
        }
        if total <= 0.0 {
            // All that is left differs from the centres by less than f32 can square.
            take_distinct(k, rows, dim, &mut centres);
            break;
        }
        let drawn: Vec<usize> = (0..tries)
            .map(|_| {
                let mark = rng.random::<f64>() * total;
                let at = sums.partition_point(|&sum| sum <= mark).min(n - 1);
                // Rounding may put the mark at the very end, on a row that is a centre already.
                if closest[at] > 0.0 { at } else { last_positive(&closest[..n], at) }
            })
            .collect();
        let (best, lowered) = nearer.best(&closest, &drawn);
        centres.extend_from_slice(row(drawn[best]));
        for (i, distance) in lowered {
            closest[i] = distance;
        }
    }
    centres
}

/// The last row at or before `at`, else the first after it, that is away from all centres.
fn last_positive(closest: &[f32], at: usize) -> usize {
    let away = |distance: &f32| *distance > 0.0;
    closest[..at].iter().rposition(away).or_else(|| closest.iter().position(away)).unwrap_or(at)
}

/// Rows made ready to find those that a new centre would be nearer to.
struct Nearer<'a> {
    rows: &'a [f32],
    dim: usize,
    norms: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    screen: Option<Screen>,
}

/// A row and its distance to a new centre.
type Lowered = Vec<(usize, f32)>;

impl<'a> Nearer<'a> {
    fn new(rows: &'a [f32], dim: usize) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            screen: Screen::new(rows, dim),
            ..Self::plain(rows, dim)
        }
    }

    /// As [`Nearer::new`], for products in 32 bits only.
    fn plain(rows: &'a [f32], dim: usize) -> Self {
        Self {
            rows,
            dim,
            norms: rows.par_chunks_exact(dim).map(squared_norm).collect(),
            #[cfg(target_arch = "x86_64")]
            screen: None,
        }
    }

    /// The drawn row that lowers the sum of `closest` most, and what it lowers.
    ///
    /// # Shapes
    /// - `closest`: `[n, padded to pieces]`, squared distances to the centres so far
    fn best(&self, closest: &[f32], drawn: &[usize]) -> (usize, Lowered) {
        let dim = self.dim;
        let candidates: Vec<f32> =
            drawn.iter().flat_map(|&i| &self.rows[i * dim..][..dim]).copied().collect();
        #[cfg(target_arch = "x86_64")]
        let queries = self.screen.as_ref().map(|screen| (screen, screen.queries(&candidates)));
        let pieces: Vec<Vec<(f64, Lowered)>> = closest
            .par_chunks_exact(PIECE)
            .enumerate()
            .map(|(piece, closest)| {
                let start = piece * PIECE;
                let mut of = vec![(0.0, Lowered::new()); drawn.len()];
                // Bounds leave a few rows; the distances of these are exact.
                let found = |t: usize, i: usize| {
                    let row = &self.rows[i * dim..][..dim];
                    let distance = squared_distance(row, &candidates[t * dim..][..dim]);
                    let gain = closest[i - start] - distance;
                    if gain > 0.0 {
                        of[t].0 += f64::from(gain);
                        of[t].1.push((i, distance));
                    }
                };
                #[cfg(target_arch = "x86_64")]
                if let Some((screen, queries)) = &queries {
                    screen.nearer(queries, start, closest, found);
                    return of;
                }
                self.nearer(&candidates, drawn, start, closest, found);
                of
            })
            .collect();
        let gain = |t: usize| pieces.iter().map(|piece| piece[t].0).sum::<f64>();
        let gains: Vec<f64> = (0..drawn.len()).map(gain).collect();
        // The first of the best.
        let best = (0..drawn.len()).rev().max_by(|&a, &b| gains[a].total_cmp(&gains[b]));
        let best = best.unwrap_or(0);
        (best, pieces.into_iter().flat_map(|mut piece| piece.swap_remove(best).1).collect())
    }

    /// Calls `found` for rows of a piece that may be nearer to a candidate than `closest` says.
    fn nearer(
        &self,
        candidates: &[f32],
        drawn: &[usize],
        start: usize,
        closest: &[f32],
        mut found: impl FnMut(usize, usize),
    ) {
        let (dim, tries) = (self.dim, drawn.len());
        let count = closest.len().min(self.norms.len() - start);
        let mut products = vec![0.0; count * tries];
        let rows = &self.rows[start * dim..][..count * dim];
        dots((count, tries, dim), rows, candidates, Layout::Rows, &mut products);
        let slack = f32::EPSILON * (8.0 + (dim as f32).sqrt()) * 2.0;
        for (offset, products) in products.chunks_exact(tries).enumerate() {
            let i = start + offset;
            for (t, product) in products.iter().enumerate() {
                let scale = self.norms[i] + self.norms[drawn[t]];
                if scale - 2.0 * product - slack * scale < closest[offset] {
                    found(t, i);
                }
            }
        }
    }
}

/// Fills up `centres` with rows that are not yet among them.
fn take_distinct(k: usize, rows: &[f32], dim: usize, centres: &mut Vec<f32>) {
    let taken = centres.clone();
    let mut seen: HashSet<_> = taken.chunks_exact(dim).map(RowKey).collect();
    for row in rows.chunks_exact(dim) {
        if centres.len() == k * dim {
            break;
        }
        if seen.insert(RowKey(row)) {
            centres.extend_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    fn choose(config: &KMeansConfig, rows: &[f32], dim: usize) -> Vec<f32> {
        first_centres(config, &(rows, dim), &mut ChaCha8Rng::seed_from_u64(config.seed)).unwrap()
    }

    #[test]
    fn far_groups_each_get_a_centre() {
        let rows: Vec<f32> =
            (0..400).map(|i| (i % 8) as f32 * 100.0 + (i / 8) as f32 * 0.01).collect();
        for seed in 0..20 {
            let centres = choose(&KMeansConfig { seed, ..KMeansConfig::new(8) }, &rows, 1);
            let groups: HashSet<i32> = centres.iter().map(|c| (c / 100.0) as i32).collect();
            assert_eq!(groups.len(), 8);
        }
    }

    #[test]
    fn rare_distinct_rows_are_found_behind_a_small_sample() {
        let mut rows = vec![1.0_f32; 5000];
        rows[4000] = 2.0;
        rows[77] = 3.0;
        let config = KMeansConfig { seeding_rows: Some(3), ..KMeansConfig::new(3) };
        let mut centres = choose(&config, &rows, 1);
        centres.sort_by(f32::total_cmp);
        assert_eq!(centres, [1.0, 2.0, 3.0]);
    }

    #[test]
    fn differences_too_small_to_square_are_still_told_apart() {
        let rows: Vec<f32> = (0..6).map(|i| i as f32 * 1e-30).collect();
        assert_eq!(distinct_rows(&choose(&KMeansConfig::new(6), &rows, 1), 1, 9), 6);
    }

    #[test]
    fn lowered_distances_agree_with_the_plain_loop() {
        for (n, dim, limit) in [(3000, 5, 40.0), (3000, 40, 300.0), (100, 64, 600.0)] {
            let rows: Vec<f32> = (0..n * dim).map(|i| ((i * 37) % 101) as f32 * 0.1).collect();
            let mut closest = vec![limit; n];
            closest.resize(n.next_multiple_of(PIECE), 0.0);
            // The first draw twice: the earlier one wins a tie.
            let drawn = [3, 50, n - 1, 3];
            let mut expected = vec![(0.0_f64, Vec::new()); drawn.len()];
            for (t, &j) in drawn.iter().enumerate() {
                for i in 0..n {
                    let plain = squared_distance(&rows[i * dim..][..dim], &rows[j * dim..][..dim]);
                    if plain < limit {
                        expected[t].0 += f64::from(limit - plain);
                        expected[t].1.push((i, plain));
                    }
                }
            }
            for nearer in [Nearer::new(&rows, dim), Nearer::plain(&rows, dim)] {
                let (best, lowered) = nearer.best(&closest, &drawn);
                assert_eq!(lowered, expected[best].1);
                assert!(!lowered.is_empty());
                assert!(best != 3);
                let gain = expected[best].0;
                assert!(expected.iter().all(|other| other.0 <= gain * (1.0 + 1e-9)));
            }
        }
    }

    proptest! {
        #[test]
        fn centres_are_distinct_rows(
            values in prop::collection::vec(-2_i8..=2, 2..120),
            dim in 1_usize..4,
            seed in 0_u64..100,
            k in 2_usize..9,
            random in any::<bool>(),
        ) {
            let whole = values.len() / dim * dim;
            let rows: Vec<f32> = values[..whole].iter().map(|&v| f32::from(v) * 0.1).collect();
            prop_assume!(distinct_rows(&rows, dim, k) == k);
            let init = if random { Init::Random } else { Init::PlusPlus };
            let centres = choose(&KMeansConfig { seed, init, ..KMeansConfig::new(k) }, &rows, dim);
            prop_assert_eq!(centres.len(), k * dim);
            prop_assert_eq!(distinct_rows(&centres, dim, k), k);
            for centre in centres.chunks_exact(dim) {
                prop_assert!(rows.chunks_exact(dim).any(|row| row == centre));
            }
        }
    }
}
