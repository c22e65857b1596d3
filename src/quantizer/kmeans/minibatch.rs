//! K-Means over rows that do not fit in memory.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    HostSearch, KMeans, KMeansConfig, KMeansEvent, NearestCentre,
    fit::{group, tell},
};
use crate::{
    cancel::Monitor,
    error::Result,
    quantizer::rows::{RowSource, add_rows, draw_rows, read_checked},
};

impl KMeansConfig {
    /// Fits centres to rows that are read batch by batch.
    ///
    /// First centres come from a whole fit, restarts included, of a large even sample (the field
    /// `sample_rows`). Then all rows are read again and again in batches in random order; each
    /// batch draws its centres towards its means with a weight that falls as rows are counted
    /// (Sculley 2010). A last pass measures the inertia. At most the sample and one batch are in
    /// memory. When all rows fit into the sample, this is
    /// [`KMeansConfig::fit`].
    ///
    /// # Errors
    /// As [`KMeansConfig::fit`], with the distinct rows counted in the sample, and whatever the
    /// source returns.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::KMeansConfig;
    /// let rows: Vec<f32> = (0..1000).map(|i| (i % 2) as f32 * 10.0 + i as f32 * 1e-3).collect();
    /// let config = KMeansConfig { sample_rows: Some(100), batch_rows: 64, ..KMeansConfig::new(2) };
    /// let kmeans = config.fit_minibatch(&(rows.as_slice(), 1))?;
    /// assert!((kmeans.centres()[0] - kmeans.centres()[1]).abs() > 9.0);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_minibatch(&self, source: &dyn RowSource) -> Result<KMeans> {
        self.fit_minibatch_with_engine(source, &HostSearch, &Monitor::new())
    }

    /// Fits centres batch by batch with another engine, and reports every pass.
    ///
    /// # Errors
    /// As [`KMeansConfig::fit_minibatch`], and
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a stop.
    pub fn fit_minibatch_with_engine(
        &self,
        source: &dyn RowSource,
        engine: &dyn NearestCentre,
        monitor: &Monitor<'_, KMeansEvent>,
    ) -> Result<KMeans> {
        self.validate()?;
        let (n, dim) = (source.len(), source.dim());
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // The restarts of the sample's fit use the streams from 0.
        rng.set_stream(u64::MAX);
        let sample = draw_rows(source, self.sample_rows(), &mut rng)?;
        let start = self.fit_with_engine(&(&*sample, dim), engine, monitor)?;
        if n <= self.sample_rows() {
            return Ok(start);
        }
        let mut counts = vec![0_u64; self.k];
        let (mut index, mut distance) =
            (vec![0; sample.len() / dim], vec![0.0; sample.len() / dim]);
        engine.nearest(&sample, dim, &start.centres, &mut index, &mut distance)?;
        index.iter().for_each(|&i| counts[i as usize] += 1);
        drop(sample);
        MiniBatch {
            config: self,
            source,
            engine,
            counts,
            centres: start.centres,
            farthest: Vec::new(),
        }
        .run(&mut rng, monitor)
    }
}

/// The state of the passes.
struct MiniBatch<'a> {
    config: &'a KMeansConfig,
    source: &'a dyn RowSource,
    engine: &'a dyn NearestCentre,
    /// Rows each centre has been averaged over.
    counts: Vec<u64>,
    centres: Vec<f32>,
    /// Of each batch of this pass, the row farthest from its centre.
    farthest: Vec<(f32, Vec<f32>)>,
}

impl MiniBatch<'_> {
    fn run(mut self, rng: &mut ChaCha8Rng, monitor: &Monitor<'_, KMeansEvent>) -> Result<KMeans> {
        let max_iterations = self.config.max_iterations;
        let mut batches: Vec<usize> =
            (0..self.source.len().div_ceil(self.config.batch_rows)).collect();
        let mut previous = f64::INFINITY;
        let mut iteration = 0;
        loop {
            batches.shuffle(rng);
            let seen = self.counts.clone();
            let inertia = self.pass(&batches, true)?;
            let reseeded = self.replace_unused(&seen);
            iteration += 1;
            let restart = self.config.restarts - 1;
            let event =
                KMeansEvent::Iteration { restart, iteration, max_iterations, inertia, reseeded };
            tell(monitor, event)?;
            let settled = reseeded == 0 && previous - inertia <= self.config.tolerance * previous;
            if settled || iteration == max_iterations {
                break;
            }
            previous = inertia;
        }
        batches.sort_unstable();
        let inertia = self.pass(&batches, false)?;
        let dim = self.source.dim();
        Ok(KMeans { centres: self.centres, dim, inertia, iterations: iteration })
    }

    /// Reads all rows once; returns the sum of the distances as they were met.
    fn pass(&mut self, batches: &[usize], learn: bool) -> Result<f64> {
        let (n, dim, size) = (self.source.len(), self.source.dim(), self.config.batch_rows);
        let (mut rows, mut index, mut distance) = (Vec::new(), Vec::new(), Vec::new());
        let mut inertia = 0.0;
        self.farthest.clear();
        for &batch in batches {
            let range = batch * size..n.min((batch + 1) * size);
            read_checked(self.source, range.clone(), &mut rows)?;
            index.resize(range.len(), 0);
            distance.resize(range.len(), 0.0);
            self.engine.nearest(&rows, dim, &self.centres, &mut index, &mut distance)?;
            inertia += distance.iter().map(|&d| f64::from(d)).sum::<f64>();
            if learn {
                self.learn(&rows, dim, &index);
                let far = (0..range.len()).max_by(|&a, &b| distance[a].total_cmp(&distance[b]));
                if let Some(far) = far.filter(|&far| distance[far] > 0.0) {
                    self.farthest.push((distance[far], rows[far * dim..][..dim].to_vec()));
                }
            }
        }
        Ok(inertia)
    }

    /// Draws each centre towards the mean of its rows of one batch.
    fn learn(&mut self, rows: &[f32], dim: usize, index: &[u32]) {
        let (order, starts) = group(index, self.counts.len());
        let mut sums = vec![0.0_f64; dim];
        for (cluster, centre) in self.centres.chunks_exact_mut(dim).enumerate() {
            let members = &order[starts[cluster]..starts[cluster + 1]];
            if members.is_empty() {
                continue;
            }
            sums.fill(0.0);
            add_rows(&mut sums, rows, members);
            self.counts[cluster] += members.len() as u64;
            let (new, all) = (members.len() as f64, self.counts[cluster] as f64);
            for (centre, sum) in centre.iter_mut().zip(&sums) {
                *centre = (f64::from(*centre) + (sum - new * f64::from(*centre)) / all) as f32;
            }
        }
    }

    /// Places centres that no row chose in the last pass onto far rows of it.
    fn replace_unused(&mut self, seen: &[u64]) -> usize {
        let dim = self.source.dim();
        self.farthest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut far: Vec<Vec<f32>> = Vec::new();
        for (_, row) in self.farthest.drain(..) {
            if !far.contains(&row) {
                far.push(row);
            }
        }
        let mut far = far.into_iter();
        let mut replaced = 0;
        for (cluster, centre) in self.centres.chunks_exact_mut(dim).enumerate() {
            if self.counts[cluster] != seen[cluster] {
                continue;
            }
            let Some(row) = far.next() else { break };
            centre.copy_from_slice(&row);
            self.counts[cluster] = 1;
            replaced += 1;
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::cancel::StopFlag;
    use crate::error::Error;
    use crate::quantizer::kmeans::fit::tests::planted;

    fn config(k: usize) -> KMeansConfig {
        KMeansConfig { sample_rows: Some(200), batch_rows: 128, seed: 5, ..KMeansConfig::new(k) }
    }

    #[test]
    fn comes_close_to_the_fit_in_memory() {
        let rows = planted(3000, 8, 4, 3);
        let whole = KMeansConfig::new(8).fit(&rows, 4).unwrap();
        let pieces = config(8).fit_minibatch(&(rows.as_slice(), 4)).unwrap();
        assert!(
            pieces.inertia() < whole.inertia() * 1.02,
            "{} {}",
            pieces.inertia(),
            whole.inertia()
        );
        let (_, distances) = pieces.predict_with_distances(&rows).unwrap();
        let inertia: f64 = distances.iter().map(|&d| f64::from(d)).sum();
        approx::assert_relative_eq!(pieces.inertia(), inertia, max_relative = 1e-9);
    }

    #[test]
    fn small_data_are_fitted_whole() {
        let rows = planted(150, 8, 4, 3);
        let whole = config(8).fit(&rows, 4).unwrap();
        assert_eq!(config(8).fit_minibatch(&(rows.as_slice(), 4)).unwrap(), whole);
    }

    #[test]
    fn does_not_depend_on_the_number_of_threads() {
        let rows = planted(2000, 8, 4, 3);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| config(10).fit_minibatch(&(rows.as_slice(), 4)).unwrap())
        };
        assert_eq!(fit(1), fit(2));
    }

    #[test]
    fn unused_centres_move_to_far_rows() {
        let rows: Vec<f32> = (0..64).map(|i| if i < 60 { 0.0 } else { 10.0 }).collect();
        let source = (rows.as_slice(), 1);
        let config = KMeansConfig { batch_rows: 16, ..KMeansConfig::new(2) };
        let mut state = MiniBatch {
            config: &config,
            source: &source,
            engine: &HostSearch,
            counts: vec![1, 1],
            centres: vec![0.0, 99.0],
            farthest: Vec::new(),
        };
        let seen = state.counts.clone();
        state.pass(&[0, 1, 2, 3], true).unwrap();
        assert_eq!(state.replace_unused(&seen), 1);
        assert_eq!(state.centres[1], 10.0);
    }

    #[test]
    fn faulty_sources_are_refused() {
        struct Short;
        impl RowSource for Short {
            fn len(&self) -> usize {
                100
            }
            fn dim(&self) -> usize {
                1
            }
            fn read(&self, _: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
                *into = vec![1.0];
                Ok(())
            }
        }
        let message = config(2).fit_minibatch(&Short).unwrap_err().to_string();
        assert!(message.contains("row source"), "{message}");

        let mut rows = planted(1000, 4, 1, 0);
        rows[777] = f32::NAN;
        let message = config(4).fit_minibatch(&(rows.as_slice(), 1)).unwrap_err().to_string();
        assert!(message.contains("row 777"), "{message}");
    }

    #[test]
    fn a_stop_interrupts_the_passes() {
        let rows = planted(1000, 4, 2, 0);
        let mut batch_passes = 0;
        let mut restarts_done = 0;
        let stop = StopFlag::new();
        let monitor = Monitor::new().with_stop(&stop).with_progress(|event| {
            match event {
                KMeansEvent::Started { .. } => restarts_done += 1,
                KMeansEvent::Iteration { iteration: 1, .. } => batch_passes += 1,
                KMeansEvent::Iteration { .. } => {}
            }
            if batch_passes > restarts_done {
                stop.raise();
            }
        });
        let result =
            config(4).fit_minibatch_with_engine(&(rows.as_slice(), 2), &HostSearch, &monitor);
        assert!(matches!(result, Err(Error::Interrupted(_))));
    }
}
