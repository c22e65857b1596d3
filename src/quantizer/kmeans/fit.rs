//! Lloyd's iteration: assign every row, move every centre to the mean of its rows.

use std::{collections::HashSet, ops::ControlFlow};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{HostSearch, KMeans, KMeansConfig, NearestCentre, init::first_centres};
use crate::{
    error::{Error, Result},
    quantizer::rows::{RowKey, check_rows, distinct_rows},
};

/// News from a running fit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum KMeansEvent {
    /// The first centres of a restart are chosen.
    Started {
        /// Which restart, from 0.
        restart: usize,
        /// How many there are.
        restarts: usize,
    },
    /// All rows have been assigned once more.
    Iteration {
        /// Which restart, from 0.
        restart: usize,
        /// Updates of the centres so far; 0 right after the first assignment.
        iteration: usize,
        /// Most updates that will be made.
        max_iterations: usize,
        /// Sum of squared distances of the rows to their centres.
        inertia: f64,
        /// Centres that had lost all their rows and were placed anew before this assignment.
        reseeded: usize,
    },
}

/// Where events go; answering `Break` cancels the fit.
pub(super) type Progress<'a> = &'a mut dyn FnMut(KMeansEvent) -> ControlFlow<()>;

impl KMeansConfig {
    /// Fits centres to rows in memory.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range; [`Error::Quantizer`] for a wrong shape, a value
    /// that is not finite (naming its row), fewer rows than k, or fewer distinct rows than k.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::KMeansConfig;
    /// let kmeans = KMeansConfig::new(2).fit(&[0.0, 1.0, 10.0, 11.0], 1)?;
    /// assert_eq!(kmeans.inertia(), 1.0);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit(&self, rows: &[f32], dim: usize) -> Result<KMeans> {
        self.fit_with_progress(rows, dim, &mut |_| ControlFlow::Continue(()))
    }

    /// Fits centres and reports every step.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit`], and [`Error::Interrupted`] when `progress` answers `Break`.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::{KMeansConfig, KMeansEvent};
    /// use std::ops::ControlFlow;
    /// let mut seen = 0;
    /// KMeansConfig::new(2).fit_with_progress(&[0.0, 1.0, 9.0], 1, &mut |event| {
    ///     if let KMeansEvent::Iteration { .. } = event {
    ///         seen += 1;
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(seen > 0);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_with_progress(
        &self,
        rows: &[f32],
        dim: usize,
        progress: &mut dyn FnMut(KMeansEvent) -> ControlFlow<()>,
    ) -> Result<KMeans> {
        self.fit_with_engine(rows, dim, &HostSearch, progress)
    }

    /// Fits centres with the assignment done by another engine, such as a GPU's.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit_with_progress`], and whatever the engine returns.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::{HostSearch, KMeansConfig};
    /// use std::ops::ControlFlow;
    /// let rows = [0.0, 1.0, 10.0, 11.0];
    /// let config = KMeansConfig::new(2);
    /// let go_on = &mut |_| ControlFlow::Continue(());
    /// assert_eq!(config.fit_with_engine(&rows, 1, &HostSearch, go_on)?, config.fit(&rows, 1)?);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_with_engine(
        &self,
        rows: &[f32],
        dim: usize,
        engine: &dyn NearestCentre,
        progress: &mut dyn FnMut(KMeansEvent) -> ControlFlow<()>,
    ) -> Result<KMeans> {
        self.validate()?;
        check_rows(rows, dim, 0)?;
        check_enough(self.k, rows, dim)?;
        let mut best: Option<KMeans> = None;
        for restart in 0..self.restarts {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(restart as u64);
            let centres = first_centres(self, rows, dim, &mut rng);
            tell(progress, KMeansEvent::Started { restart, restarts: self.restarts })?;
            let fitted = lloyd(self, rows, dim, centres, restart, engine, progress)?;
            if best.as_ref().is_none_or(|best| fitted.inertia < best.inertia) {
                best = Some(fitted);
            }
        }
        best.ok_or_else(|| Error::config("restarts", "at least 1", "0", "raise it"))
    }
}

/// Checks that there are k distinct rows to make centres of.
pub(super) fn check_enough(k: usize, rows: &[f32], dim: usize) -> Result<()> {
    let n = rows.len() / dim;
    let (what, found) = if n < k {
        ("rows", n)
    } else {
        match distinct_rows(rows, dim, k) {
            distinct if distinct < k => ("distinct rows", distinct),
            _ => return Ok(()),
        }
    };
    Err(Error::quantizer(
        "rows to cluster",
        format!("at least {k} {what}, one for each cluster"),
        format!("{found} {what}"),
        format!("use at most {found} clusters, or pass more data"),
    ))
}

/// Passes an event on, turning the wish to stop into an error.
pub(super) fn tell(progress: Progress<'_>, event: KMeansEvent) -> Result<()> {
    match progress(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::interrupted(
            "K-Means",
            "to run until it converges",
            "a wish to stop",
            "start it again; an unfinished fit keeps nothing",
        )),
    }
}

/// Lloyd's iteration from given centres.
fn lloyd(
    config: &KMeansConfig,
    rows: &[f32],
    dim: usize,
    mut centres: Vec<f32>,
    restart: usize,
    engine: &dyn NearestCentre,
    progress: Progress<'_>,
) -> Result<KMeans> {
    let n = rows.len() / dim;
    let (mut index, mut distance) = (vec![0; n], vec![0.0; n]);
    let mut previous = f64::INFINITY;
    let mut reseeded = 0;
    let mut iteration = 0;
    loop {
        engine.nearest(rows, dim, &centres, &mut index, &mut distance)?;
        // One fixed order, whatever the number of threads.
        let inertia: f64 = distance.iter().map(|&d| f64::from(d)).sum();
        let max_iterations = config.max_iterations;
        let event =
            KMeansEvent::Iteration { restart, iteration, max_iterations, inertia, reseeded };
        tell(progress, event)?;
        let settled = reseeded == 0 && previous - inertia <= config.tolerance * previous;
        if iteration == max_iterations || (iteration > 0 && settled) {
            return Ok(KMeans { centres, dim, inertia, iterations: iteration });
        }
        reseeded = fill_empty(rows, dim, centres.len() / dim, &mut index, &distance);
        move_centres(rows, dim, &index, &mut centres);
        previous = inertia;
        iteration += 1;
    }
}

/// Gives each empty cluster the row farthest from its centre; returns how many were filled.
///
/// Rows are taken from clusters that keep another one, and no two alike.
fn fill_empty(rows: &[f32], dim: usize, k: usize, index: &mut [u32], distance: &[f32]) -> usize {
    let mut counts = vec![0_usize; k];
    for &i in &*index {
        counts[i as usize] += 1;
    }
    let empty: Vec<usize> = (0..k).filter(|&cluster| counts[cluster] == 0).collect();
    if empty.is_empty() {
        return 0;
    }
    let mut order: Vec<usize> = (0..index.len()).filter(|&row| distance[row] > 0.0).collect();
    order.sort_unstable_by(|&a, &b| distance[b].total_cmp(&distance[a]).then(a.cmp(&b)));
    let mut taken = HashSet::new();
    let mut empty = empty.into_iter().peekable();
    let mut filled = 0;
    for row in order {
        let Some(&cluster) = empty.peek() else { break };
        let donor = index[row] as usize;
        if counts[donor] > 1 && taken.insert(RowKey(&rows[row * dim..][..dim])) {
            counts[donor] -= 1;
            index[row] = cluster as u32;
            empty.next();
            filled += 1;
        }
    }
    filled
}

/// Moves each centre to the mean of its rows; a centre without rows stays.
fn move_centres(rows: &[f32], dim: usize, index: &[u32], centres: &mut [f32]) {
    // Rows sorted by centre: each mean is summed in the order of the rows, on one thread.
    let (order, starts) = group(index, centres.len() / dim);
    centres.par_chunks_exact_mut(dim).enumerate().for_each_init(
        || vec![0.0_f64; dim],
        |sums, (cluster, centre)| {
            let members = &order[starts[cluster]..starts[cluster + 1]];
            if members.is_empty() {
                return;
            }
            sums.fill(0.0);
            for &row in members {
                for (sum, &value) in sums.iter_mut().zip(&rows[row as usize * dim..][..dim]) {
                    *sum += f64::from(value);
                }
            }
            let count = members.len() as f64;
            for (centre, sum) in centre.iter_mut().zip(&*sums) {
                *centre = (sum / count) as f32;
            }
        },
    );
}

/// Rows in the order of their cluster, and where each cluster starts (one more than k).
pub(crate) fn group(index: &[u32], k: usize) -> (Vec<u32>, Vec<usize>) {
    let mut starts = vec![0; k + 1];
    for &i in index {
        starts[i as usize + 1] += 1;
    }
    for cluster in 0..k {
        starts[cluster + 1] += starts[cluster];
    }
    let mut next = starts.clone();
    let mut order = vec![0; index.len()];
    for (row, &i) in index.iter().enumerate() {
        order[next[i as usize]] = row as u32;
        next[i as usize] += 1;
    }
    (order, starts)
}

#[cfg(test)]
#[path = "fit_tests.rs"]
pub(super) mod tests;
