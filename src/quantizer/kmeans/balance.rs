//! Clusters of more even sizes: a penalty that grows with a cluster's size while centres are fitted.

use super::NearestCentre;
use crate::error::Result;

/// What an assignment makes up of the sizes that count.
const SHARE: f64 = 0.1;
/// Changes of an average size, relative to an even one, that are none.
const SETTLED: f64 = 0.01;

/// What being assigned to each cluster costs beyond the distance.
///
/// The penalty of a cluster is `weight * v * size / even`, with `v` the mean squared distance of the rows to their centres,
/// `size` an average of the cluster's rows over the assignments so far that begins even and of which each assignment makes up a
/// tenth, and `even` the rows of a cluster if all had as many. (Where sizes count at once, whole crowds move to and fro.) Ours, a soft form of balanced K-Means (Banerjee and Ghosh 2006 penalise sizes likewise).
///
/// Squared distance and penalty together are a squared distance in one dimension more, where rows have a 0 and a centre the
/// root of its penalty. So any [`NearestCentre`] finds the cheapest cluster, as exactly as it finds nearest centres.
pub(super) struct Balance {
    weight: f64,
    /// Sizes relative to even ones.
    sizes: Vec<f64>,
    /// The largest change of one of them at the last assignment.
    moved: f64,
    penalties: Vec<f32>,
    rows: Vec<f32>,
    centres: Vec<f32>,
}

impl Balance {
    /// Absent for a weight of 0.
    pub(super) fn new(weight: f32, k: usize) -> Option<Self> {
        (weight > 0.0).then(|| Self {
            weight: f64::from(weight),
            sizes: vec![1.0; k],
            moved: f64::INFINITY,
            penalties: vec![0.0; k],
            rows: Vec::new(),
            centres: Vec::new(),
        })
    }

    /// Writes the cheapest cluster of each row, and its squared distance to the centre without the penalty.
    pub(super) fn nearest(
        &mut self,
        engine: &dyn NearestCentre,
        (rows, dim): (&[f32], usize),
        centres: &[f32],
        index: &mut [u32],
        distance: &mut [f32],
    ) -> Result<()> {
        let Self { penalties, rows: wide_rows, centres: wide_centres, .. } = self;
        let penalty = |cluster: usize| penalties[cluster].sqrt();
        widen(rows, dim, |_| 0.0, wide_rows);
        widen(centres, dim, penalty, wide_centres);
        engine.nearest(wide_rows, dim + 1, wide_centres, index, distance)?;
        for (distance, &cluster) in distance.iter_mut().zip(&*index) {
            *distance = (*distance - penalties[cluster as usize]).max(0.0);
        }
        Ok(())
    }

    /// Whether the sizes that count are about those of the last assignment: until then a fit goes on.
    pub(super) fn is_settled(&self) -> bool {
        self.moved < SETTLED
    }

    /// Sets the penalties of the next assignment by the sizes of this one.
    pub(super) fn learn(&mut self, counts: &[usize], inertia: f64) {
        let n: usize = counts.iter().sum();
        let even = n as f64 / counts.len() as f64;
        self.moved = 0.0;
        for (size, &count) in self.sizes.iter_mut().zip(counts) {
            let change = SHARE * (count as f64 / even - *size);
            *size += change;
            self.moved = self.moved.max(change.abs());
        }
        let unit = self.weight * inertia / n as f64;
        // The smallest costs nothing: what all pay decides nothing.
        let least = self.sizes.iter().copied().fold(f64::INFINITY, f64::min);
        for (penalty, size) in self.penalties.iter_mut().zip(&self.sizes) {
            *penalty = (unit * (size - least)) as f32;
        }
    }
}

/// Rows with one more number each.
fn widen(rows: &[f32], dim: usize, last: impl Fn(usize) -> f32, out: &mut Vec<f32>) {
    out.clear();
    for (number, row) in rows.chunks_exact(dim).enumerate() {
        out.extend_from_slice(row);
        out.push(last(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::squared_distance,
        quantizer::{HostSearch, KMeansConfig},
    };

    /// Most rows in one crowd, the others spread out.
    fn crowded() -> Vec<f32> {
        let noise = |i: usize| ((i * 7919 + i * i % 613) % 1009) as f32 / 1009.0;
        let row = |i: usize| -> Vec<f32> {
            let spread = if i.is_multiple_of(4) { 3.0 } else { 1.0 };
            (0..4).map(|d| spread * (noise(i * 4 + d) - 0.5)).collect()
        };
        (0..1000).flat_map(row).collect()
    }

    #[test]
    fn larger_penalties_give_more_even_clusters() {
        let rows = crowded();
        // Sum of squared shares, 1/k where all are even, by nearest centres; mean over seeds.
        let uneven = |balance: f32| -> f64 {
            let config = KMeansConfig { restarts: 1, balance, ..KMeansConfig::new(10) };
            let of = |seed: u64| -> f64 {
                let kmeans = KMeansConfig { seed, ..config.clone() }.fit(&rows, 4).unwrap();
                let mut shares = [0.0; 10];
                kmeans.predict(&rows).unwrap().iter().for_each(|&c| shares[c as usize] += 1e-3);
                shares.iter().map(|share| share * share).sum()
            };
            (0..6).map(of).sum::<f64>() / 6.0
        };
        let found = [0.0, 0.2, 0.7].map(uneven);
        assert!(found[1] < 0.95 * found[0] && found[2] < 0.95 * found[1], "{found:?}");
    }

    /// Twin: every row with every cluster, distance and penalty added up.
    #[test]
    fn rows_go_where_distance_and_penalty_are_least() {
        let rows = crowded();
        let mut balance = Balance::new(1.0, 5).unwrap();
        for inertia in [900.0, 800.0, 750.0, 700.0] {
            balance.learn(&[10, 400, 90, 300, 200], inertia);
        }
        let penalties = balance.penalties.clone();
        assert!(penalties.iter().any(|&p| p > 0.3) && penalties.contains(&0.0), "{penalties:?}");
        let centres = &rows[..20];
        let (mut index, mut distance) = (vec![0; 1000], vec![0.0; 1000]);
        balance.nearest(&HostSearch, (&rows, 4), centres, &mut index, &mut distance).unwrap();
        let mut moved = 0;
        for (number, row) in rows.chunks(4).enumerate() {
            let far: Vec<f32> = centres.chunks(4).map(|c| squared_distance(row, c)).collect();
            let cost = |cluster: usize| far[cluster] + penalties[cluster];
            let best = (0..5).map(cost).fold(f32::INFINITY, f32::min);
            let found = index[number] as usize;
            assert!(cost(found) - best < 1e-4);
            assert!((distance[number] - far[found]).abs() < 1e-4);
            moved += usize::from(far.iter().any(|&other| other < far[found]));
        }
        assert!(moved > 20, "{moved}");
    }

    #[test]
    fn none_changes_nothing_and_inertia_is_that_of_nearest_centres() {
        let rows = crowded();
        let config = KMeansConfig { seed: 1, ..KMeansConfig::new(10) };
        assert_eq!(
            KMeansConfig { balance: 0.0, ..config.clone() }.fit(&rows, 4).unwrap(),
            config.clone().fit(&rows, 4).unwrap()
        );
        let balanced = KMeansConfig { balance: 1.0, ..config.clone() }.fit(&rows, 4).unwrap();
        let distances = balanced.predict_with_distances(&rows).unwrap().1;
        let inertia: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        assert_eq!(balanced.inertia(), inertia);
        let source = (rows.as_slice(), 4);
        assert_eq!(
            KMeansConfig { balance: 1.0, ..config.clone() }.fit_source(&source).unwrap(),
            balanced
        );
        // Sizes count gradually, so that it takes some assignments until they do.
        assert!(balanced.iterations() > 10, "{}", balanced.iterations());
        let error =
            KMeansConfig { balance: 1.0, ..config }.fit_minibatch(&source).unwrap_err().to_string();
        assert!(error.contains("balance"), "{error}");
    }
}
