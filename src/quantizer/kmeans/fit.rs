//! Lloyd's iteration: assign every row, move every centre to the mean of its rows.

use std::collections::HashSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{HostSearch, KMeans, KMeansConfig, NearestCentre, init::first_centres};
use crate::{
    cancel::Monitor,
    error::{Error, Result},
    quantizer::rows::{
        RowSource, add_rows, check_rows, find_distinct, for_blocks, read_checked, row_bits,
    },
};

/// Events of a fit.
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
        /// Centres that had lost all their rows and were relocated before this assignment.
        reseeded: usize,
    },
}

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
        self.fit_with_progress(rows, dim, &Monitor::new())
    }

    /// Fits centres and reports every step; see [`Monitor`] for an example.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit`], and [`Error::Interrupted`] after a stop.
    pub fn fit_with_progress(
        &self,
        rows: &[f32],
        dim: usize,
        monitor: &Monitor<'_, KMeansEvent>,
    ) -> Result<KMeans> {
        self.fit_with_engine(&(rows, dim), &HostSearch, monitor)
    }

    /// Fits centres to rows that are read block by block, once for each iteration.
    ///
    /// The result is that of [`KMeansConfig::fit`] on the same rows, bit for bit. In memory are one
    /// block of `batch_rows` rows, the rows that seeding looks at (the field `seeding_rows`) and
    /// 8 bytes a row. [`KMeansConfig::fit_minibatch`] needs fewer passes.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit`], and whatever the source returns.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::KMeansConfig;
    /// let rows = [0.0, 1.0, 10.0, 11.0];
    /// let source = (rows.as_slice(), 1); // or a `ShardedFeatures`
    /// let config = KMeansConfig::new(2);
    /// assert_eq!(config.fit_source(&source)?, config.fit(&rows, 1)?);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_source(&self, source: &dyn RowSource) -> Result<KMeans> {
        self.fit_with_engine(source, &HostSearch, &Monitor::new())
    }

    /// Fits centres to rows of any source, with another engine for the assignment, such as a GPU's.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit_source`], [`Error::Interrupted`] after a stop, and whatever the
    /// engine returns.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::{cancel::Monitor, expert::HostSearch, quantizer::KMeansConfig};
    /// let rows = [0.0_f32, 1.0, 10.0, 11.0];
    /// let (config, source) = (KMeansConfig::new(2), (rows.as_slice(), 1));
    /// let fitted = config.fit_with_engine(&source, &HostSearch, &Monitor::new())?;
    /// assert_eq!(fitted, config.fit(&rows, 1)?);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_with_engine(
        &self,
        source: &dyn RowSource,
        engine: &dyn NearestCentre,
        monitor: &Monitor<'_, KMeansEvent>,
    ) -> Result<KMeans> {
        self.validate()?;
        if let Some(rows) = source.as_slice() {
            check_rows(rows, source.dim(), 0)?;
        }
        check_enough(self.k, source)?;
        let mut best: Option<KMeans> = None;
        for restart in 0..self.restarts {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(restart as u64);
            let centres = first_centres(self, source, &mut rng)?;
            tell(monitor, KMeansEvent::Started { restart, restarts: self.restarts })?;
            let fitted = lloyd(self, source, centres, restart, engine, monitor)?;
            if best.as_ref().is_none_or(|best| fitted.inertia < best.inertia) {
                best = Some(fitted);
            }
        }
        best.ok_or_else(|| {
            Error::config("restarts").expected("at least 1").found("0").fix("raise it")
        })
    }
}

/// Checks that there are k distinct rows to make centres of.
fn check_enough(k: usize, source: &dyn RowSource) -> Result<()> {
    let found = find_distinct(source, Vec::new(), k)?.len() / source.dim();
    if found >= k {
        return Ok(());
    }
    let remedy = match found {
        0 | 1 => "pass rows that differ: equal rows cannot be told apart".to_string(),
        _ => format!("set k to {found} or less, or pass more data"),
    };
    Err(Error::quantizer(format!("K-Means, k = {k}"))
        .expected(format!("at least {k} distinct rows, one for each cluster"))
        .found(format!("{found} distinct rows"))
        .fix(remedy))
}

/// Reports an event; an error if the fit should stop.
pub(super) fn tell(monitor: &Monitor<'_, KMeansEvent>, event: KMeansEvent) -> Result<()> {
    monitor.report(event);
    Error::interrupted("K-Means")
        .expected("to run until it converges")
        .found("a request to stop")
        .fix_if(monitor.is_stopped(), "start it again; an unfinished fit keeps nothing")
}

/// Lloyd's iteration from given centres, one pass over the rows for each update.
fn lloyd(
    config: &KMeansConfig,
    source: &dyn RowSource,
    mut centres: Vec<f32>,
    restart: usize,
    engine: &dyn NearestCentre,
    monitor: &Monitor<'_, KMeansEvent>,
) -> Result<KMeans> {
    let (n, dim, max_iterations) = (source.len(), source.dim(), config.max_iterations);
    let (mut index, mut distance) = (vec![0; n], vec![0.0; n]);
    let mut sums = Sums::new(config.k, dim);
    let mut buffer = Vec::new();
    let mut previous = f64::INFINITY;
    let mut reseeded = 0;
    let mut iteration = 0;
    loop {
        sums.clear();
        for_blocks(source, config.batch_rows, &mut buffer, |range, rows| {
            let (index, distance) = (&mut index[range.clone()], &mut distance[range]);
            engine.nearest(rows, dim, &centres, index, distance)?;
            // The last pass only measures.
            if iteration < max_iterations {
                sums.add(rows, index);
            }
            Ok(())
        })?;
        // One fixed order, whatever the number of threads.
        let inertia: f64 = distance.iter().map(|&d| f64::from(d)).sum();
        let event =
            KMeansEvent::Iteration { restart, iteration, max_iterations, inertia, reseeded };
        tell(monitor, event)?;
        let settled = reseeded == 0 && previous - inertia <= config.tolerance * previous;
        if iteration == max_iterations || (iteration > 0 && settled) {
            return Ok(KMeans { centres, dim, inertia, iterations: iteration });
        }
        reseeded = fill_empty(source, &sums.counts, &mut index, &distance)?;
        if reseeded > 0 {
            sums.clear();
            for_blocks(source, config.batch_rows, &mut buffer, |range, rows| {
                sums.add(rows, &index[range]);
                Ok(())
            })?;
        }
        sums.means(&mut centres);
        previous = inertia;
        iteration += 1;
    }
}

/// Gives each empty cluster the row farthest from its centre; returns how many were filled.
///
/// Rows are taken from clusters that keep another one, and no two alike.
fn fill_empty(
    source: &dyn RowSource,
    counts: &[usize],
    index: &mut [u32],
    distance: &[f32],
) -> Result<usize> {
    let empty: Vec<usize> = (0..counts.len()).filter(|&cluster| counts[cluster] == 0).collect();
    if empty.is_empty() {
        return Ok(0);
    }
    let mut counts = counts.to_vec();
    let mut order: Vec<usize> = (0..index.len()).filter(|&row| distance[row] > 0.0).collect();
    order.sort_unstable_by(|&a, &b| distance[b].total_cmp(&distance[a]).then(a.cmp(&b)));
    let mut taken = HashSet::new();
    let mut row = Vec::new();
    let mut empty = empty.into_iter().peekable();
    let mut filled = 0;
    for item in order {
        let Some(&cluster) = empty.peek() else { break };
        let donor = index[item] as usize;
        if counts[donor] <= 1 {
            continue;
        }
        read_checked(source, item..item + 1, &mut row)?;
        if taken.insert(row_bits(&row)) {
            counts[donor] -= 1;
            index[item] = cluster as u32;
            empty.next();
            filled += 1;
        }
    }
    Ok(filled)
}

/// Sums and numbers of the rows of each cluster.
///
/// Each sum runs through its rows in their order, on one thread at a time: the result depends
/// neither on the threads nor on how rows come in blocks.
struct Sums {
    /// `[k, dim]`
    sums: Vec<f64>,
    counts: Vec<usize>,
    dim: usize,
}

impl Sums {
    fn new(k: usize, dim: usize) -> Self {
        Self { sums: vec![0.0; k * dim], counts: vec![0; k], dim }
    }

    fn clear(&mut self) {
        self.sums.fill(0.0);
        self.counts.fill(0);
    }

    /// Adds rows to the clusters that `index` names.
    fn add(&mut self, rows: &[f32], index: &[u32]) {
        let dim = self.dim;
        let (order, starts) = group(index, self.counts.len());
        self.sums.par_chunks_exact_mut(dim).zip(&mut self.counts).enumerate().for_each(
            |(cluster, (sums, count))| {
                let members = &order[starts[cluster]..starts[cluster + 1]];
                *count += members.len();
                add_rows(sums, rows, members);
            },
        );
    }

    /// Moves each centre to the mean of its rows; a centre without rows stays.
    fn means(&self, centres: &mut [f32]) {
        let sums = self.sums.chunks_exact(self.dim).zip(&self.counts);
        for (centre, (sums, &count)) in centres.chunks_exact_mut(self.dim).zip(sums) {
            if count > 0 {
                for (centre, sum) in centre.iter_mut().zip(sums) {
                    *centre = (sum / count as f64) as f32;
                }
            }
        }
    }
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
