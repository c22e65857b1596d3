//! Training of the RQ-VAE.

use std::ops::Range;

use burn::{
    backend::Autodiff,
    module::AutodiffModule,
    optim::{GradientsAccumulator, GradientsParams, Optimizer, adaptor::OptimizerAdaptor},
    tensor::{
        IndexingUpdateOp, Int, Tensor, TensorData, backend::AutodiffBackend, backend::Backend,
    },
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Codebooks, RqVae, RqVaeConfig, RqVaeNetwork, Scaling, assign_nearest};
use crate::{
    cancel::Monitor,
    error::{Error, Result},
    kernels::on_cpu,
    nn::on_forks,
    optim::GroupedAdamW,
    quantizer::{
        KMeansConfig,
        rows::{check_level, check_rows},
    },
};

/// Fewest embeddings of a thread.
const LEAST: usize = 64;
/// Decay of the optimizer's second moment.
const BETA_2: f32 = 0.999;

/// Progress of an epoch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RqVaeEvent {
    /// Epochs done, from 1.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Mean loss of the epoch, per input dimension.
    pub loss: f64,
    /// Mean reconstruction error of the epoch, relative to the variance of the inputs where these
    /// are scaled globally.
    pub reconstruction: f64,
    /// Codes restarted after the epoch, all levels together.
    pub restarted: usize,
}

/// Of a level and some rows: how often each code was chosen, and what for. Also their moving
/// averages.
struct Totals<B: Backend> {
    /// `[size]`
    counts: Tensor<B, 1>,
    /// Sums of the residuals of each code, `[size, latent]`; zero if not requested.
    sums: Tensor<B, 2>,
}

impl<B: Backend> Totals<B> {
    /// # Shapes
    /// - `codes`: `[n]`, `residuals`: `[n, latent]`
    fn new(codes: Tensor<B, 1, Int>, residuals: Tensor<B, 2>, size: usize, averaged: bool) -> Self {
        let device = residuals.device();
        let [_, latent] = residuals.dims();
        if on_cpu::<B>(&device) {
            let codes: Vec<usize> = codes.into_data().iter::<i64>().map(|c| c as usize).collect();
            let mut counts = vec![0f32; size];
            codes.iter().for_each(|&code| counts[code] += 1.0);
            let mut sums = vec![0f32; size * latent];
            if averaged {
                let rows: Vec<f32> = residuals.into_data().iter::<f32>().collect();
                for (&code, row) in codes.iter().zip(rows.chunks_exact(latent)) {
                    let sum = &mut sums[code * latent..(code + 1) * latent];
                    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            }
            return Self {
                counts: Tensor::from_data(TensorData::new(counts, [size]), &device),
                sums: Tensor::from_data(TensorData::new(sums, [size, latent]), &device),
            };
        }
        let mut sums = Tensor::zeros([size, latent], &device);
        if averaged {
            sums = sums.select_assign(0, codes.clone(), residuals, IndexingUpdateOp::Add);
        }
        Self { counts: uses(codes, size), sums }
    }
}

/// What a batch, or a part of it, gives.
struct Step<B: AutodiffBackend> {
    grads: GradientsParams,
    /// Loss and reconstruction error.
    losses: [Tensor<B::InnerBackend, 1>; 2],
    /// Per level.
    totals: Vec<Totals<B::InnerBackend>>,
}

impl RqVaeConfig {
    /// Fits an RQ-VAE to embeddings. The same rows, seed, backend and (on backends in the host's
    /// memory) number of rayon threads give the same network.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    ///
    /// # Errors
    /// - [`Error::Config`] as [`RqVaeConfig::validate`].
    /// - [`Error::Quantizer`] for rows of another width, NaN or infinite values, with more codes
    ///   at a level than distinct
    ///   residuals, or when the loss is no number.
    pub fn fit<B: Backend>(
        &self,
        rows: &[f32],
        dim: usize,
        device: &B::Device,
    ) -> Result<RqVae<B>> {
        self.fit_with_progress(rows, dim, device, &Monitor::new())
    }

    /// Fits an RQ-VAE and reports every epoch.
    ///
    /// # Errors
    /// As [`RqVaeConfig::fit`], and [`Error::Interrupted`] after a stop.
    pub fn fit_with_progress<B: Backend>(
        &self,
        rows: &[f32],
        dim: usize,
        device: &B::Device,
        monitor: &Monitor<'_, RqVaeEvent>,
    ) -> Result<RqVae<B>> {
        self.validate()?;
        check_rows(rows, dim, 0)?;
        for (level, &size) in self.sizes.iter().enumerate() {
            // Equal rows stay equal at every level.
            check_level(rows, dim, level, size)?;
        }
        let scaling = Scaling::fit(rows, dim, self.standardise);
        let mut fit = Fit::<Autodiff<B>> {
            config: self,
            rows,
            dim,
            device: device.clone(),
            network: self.init_network(dim, device),
            averages: Vec::new(),
            usage: self.sizes.iter().map(|&k| Tensor::zeros([k], device)).collect(),
            rng: ChaCha8Rng::seed_from_u64(self.seed ^ 0x5EED_C0DE),
            scaling,
        };
        fit.initialise_codebooks()?;
        fit.run(monitor)?;
        RqVae::from_parts(self.clone(), fit.scaling, fit.network.valid(), device.clone())
    }
}

struct Fit<'a, B: AutodiffBackend> {
    config: &'a RqVaeConfig,
    rows: &'a [f32],
    dim: usize,
    device: B::Device,
    network: RqVaeNetwork<B>,
    averages: Vec<Totals<B::InnerBackend>>,
    /// How often each code was chosen since the last restart, per level.
    usage: Vec<Tensor<B::InnerBackend, 1>>,
    rng: ChaCha8Rng,
    scaling: Scaling,
}

impl<B: AutodiffBackend> Fit<'_, B> {
    fn run(&mut self, monitor: &Monitor<'_, RqVaeEvent>) -> Result<()> {
        let config = self.config;
        let n = self.rows.len() / self.dim;
        let batch = config.batch.min(n);
        let steps = config.epochs * n.div_ceil(batch);
        let warmup = (steps / 20).max(1);
        let mut optimizer = OptimizerAdaptor::<GroupedAdamW, RqVaeNetwork<B>, B>::from(
            GroupedAdamW::new(config.weight_decay as f32, BETA_2),
        );
        let mut order: Vec<u32> = (0..n as u32).collect();
        let mut step = 0;
        for epoch in 1..=config.epochs {
            order.shuffle(&mut self.rng);
            let mut sums = [
                Tensor::<B::InnerBackend, 1>::zeros([1], &self.device),
                Tensor::zeros([1], &self.device),
            ];
            for indices in order.chunks(batch) {
                let rate = config.learning_rate * schedule(step, warmup, steps);
                let Step { grads, losses, totals } = self.gradients(indices);
                self.network = optimizer.step(rate, self.network.clone(), grads);
                let share = indices.len() as f64 / n as f64;
                for (sum, loss) in sums.iter_mut().zip(losses) {
                    *sum = sum.clone() + loss.mul_scalar(share);
                }
                self.count(totals);
                step += 1;
            }
            let [loss, reconstruction] =
                sums.map(|sum| sum.into_data().iter::<f64>().next().unwrap_or(f64::NAN));
            Error::quantizer(format!("RQ-VAE, epoch {epoch}"))
                .expected("a finite loss")
                .found(loss.to_string())
                .fix_if(!loss.is_finite(), "lower the learning rate")?;
            let due = config.restart_every > 0 && epoch % config.restart_every == 0;
            // The last tenth is left alone, so that restarted codes settle.
            let restarted =
                if due && epoch * 10 <= config.epochs * 9 { self.restart()? } else { 0 };
            let event =
                RqVaeEvent { epoch, epochs: config.epochs, loss, reconstruction, restarted };
            monitor.report(event);
            Error::interrupted("RQ-VAE")
                .expected(format!("{} epochs", config.epochs))
                .found(format!("a stop after {epoch}"))
                .fix_if(monitor.is_stopped(), "start it again; nothing was written")?;
        }
        Ok(())
    }

    /// Forward and backward of a batch: on host backends every core takes a part of it, through a
    /// copy of the network with a graph of its own.
    fn gradients(&self, indices: &[u32]) -> Step<B> {
        let threads = if on_cpu::<B>(&self.device) { rayon::current_num_threads() } else { 1 };
        let parts = threads.min(indices.len() / LEAST).max(1);
        if parts == 1 {
            return self.part(&self.network, indices, 1.0);
        }
        let bound = |part: usize| indices.len() * part / parts;
        let ranges = (0..parts).map(|part| bound(part)..bound(part + 1)).collect();
        let part = |network, range: Range<usize>| {
            let weight = range.len() as f64 / indices.len() as f64;
            self.part(&network, &indices[range], weight)
        };
        let mut steps =
            on_forks::<B, _, _, _>(&self.network, &self.device, ranges, part).into_iter();
        let first = steps.next().expect("there are parts");
        let mut grads = GradientsAccumulator::new();
        grads.accumulate(&self.network, first.grads);
        let (mut losses, mut totals) = (first.losses, first.totals);
        for step in steps {
            grads.accumulate(&self.network, step.grads);
            for (sum, loss) in losses.iter_mut().zip(step.losses) {
                *sum = sum.clone() + loss;
            }
            for (sum, more) in totals.iter_mut().zip(step.totals) {
                *sum = Totals {
                    counts: sum.counts.clone() + more.counts,
                    sums: sum.sums.clone() + more.sums,
                };
            }
        }
        Step { grads: grads.grads(), losses, totals }
    }

    /// Forward and backward of some rows of a batch, whose mean losses count by `weight`.
    fn part(&self, network: &RqVaeNetwork<B>, indices: &[u32], weight: f64) -> Step<B> {
        let parts = network.loss(Tensor::from_inner(self.batch(indices)), self.config);
        let losses = [&parts.total, &parts.reconstruction]
            .map(|loss| loss.clone().inner().mul_scalar(weight));
        let loss = if weight == 1.0 { parts.total } else { parts.total.mul_scalar(weight) };
        let grads = GradientsParams::from_grads(loss.backward(), network);
        let codes = parts.quantised.codes.into_iter().map(Tensor::inner);
        let residuals = parts.quantised.residuals.into_iter().map(Tensor::inner);
        let averaged = matches!(self.config.codebooks, Codebooks::Ema { .. });
        let totals = codes.zip(residuals).zip(&self.config.sizes);
        let totals = totals
            .map(|((codes, residuals), &size)| Totals::new(codes, residuals, size, averaged))
            .collect();
        Step { grads, losses, totals }
    }

    /// Codebooks from k-means of each level's residuals over a large sample.
    fn initialise_codebooks(&mut self) -> Result<()> {
        let latent = self.config.latent;
        let mut residual = self.sample_latents(self.config.init_sample);
        for (level, &size) in self.config.sizes.iter().enumerate() {
            let host: Vec<f32> = residual.clone().into_data().iter::<f32>().collect();
            check_level(&host, latent, level, size)?;
            let centres = KMeansConfig {
                seed: self.config.seed.wrapping_add(level as u64),
                restarts: 1,
                max_iterations: 25,
                ..KMeansConfig::new(size)
            }
            .fit(&host, latent)?
            .centres()
            .to_vec();
            let book = Tensor::from_data(TensorData::new(centres, [size, latent]), &self.device);
            let (codes, rest) = assign_nearest(residual, std::slice::from_ref(&book));
            let counts = uses::<B::InnerBackend>(codes[0].clone(), size);
            let sums = book.clone() * counts.clone().unsqueeze_dim(1);
            self.averages.push(Totals { counts, sums });
            self.set_codebook(level, book);
            residual = rest;
        }
        Ok(())
    }

    /// Scaled embeddings of a batch, `[batch, dim]`.
    fn batch(&self, indices: &[u32]) -> Tensor<B::InnerBackend, 2> {
        let mut scaled = Vec::with_capacity(indices.len() * self.dim);
        for &index in indices {
            let start = index as usize * self.dim;
            self.scaling.apply(&self.rows[start..start + self.dim], &mut scaled);
        }
        Tensor::from_data(TensorData::new(scaled, [indices.len(), self.dim]), &self.device)
    }

    /// Latents of up to `limit` embeddings, spread evenly.
    fn sample_latents(&self, limit: usize) -> Tensor<B::InnerBackend, 2> {
        let n = self.rows.len() / self.dim;
        let count = n.min(limit.max(self.config.sizes.iter().copied().max().unwrap_or(1)));
        let indices: Vec<u32> = (0..count).map(|i| (i * n / count) as u32).collect();
        let network = self.network.valid();
        let parts =
            indices.chunks(4096).map(|chunk| network.encoder.forward(self.batch(chunk))).collect();
        Tensor::cat(parts, 0)
    }

    /// Counts the codes of a step, and moves EMA codebooks.
    fn count(&mut self, totals: Vec<Totals<B::InnerBackend>>) {
        for (level, Totals { counts, sums }) in totals.into_iter().enumerate() {
            self.usage[level] = self.usage[level].clone() + counts.clone();
            if let Codebooks::Ema { decay } = self.config.codebooks {
                let average = &mut self.averages[level];
                let fresh = 1.0 - decay;
                average.counts =
                    average.counts.clone().mul_scalar(decay) + counts.mul_scalar(fresh);
                average.sums = average.sums.clone().mul_scalar(decay) + sums.mul_scalar(fresh);
                let book =
                    average.sums.clone() / average.counts.clone().clamp_min(1e-6).unsqueeze_dim(1);
                self.set_codebook(level, book);
            }
        }
    }

    /// Gives every unused code the place of a random residual of its level, with the EMA statistics
    /// of a code that was chosen once. Returns how many.
    fn restart(&mut self) -> Result<usize> {
        let mut residual = self.sample_latents(4096);
        let mut restarted = 0;
        for level in 0..self.config.sizes.len() {
            let size = self.config.sizes[level];
            let latent = self.config.latent;
            let usage: Vec<f32> = self.usage[level].clone().into_data().iter::<f32>().collect();
            self.usage[level] = Tensor::zeros([size], &self.device);
            let dead: Vec<usize> = (0..size).filter(|&code| usage[code] == 0.0).collect();
            let mut book = self.network.codebooks[level].val().inner();
            if !dead.is_empty() {
                let candidates: Vec<f32> = residual.clone().into_data().iter::<f32>().collect();
                let count = candidates.len() / latent;
                let mut host: Vec<f32> = book.clone().into_data().iter::<f32>().collect();
                let average = &mut self.averages[level];
                let mut counts: Vec<f32> =
                    average.counts.clone().into_data().iter::<f32>().collect();
                let mut sums: Vec<f32> = average.sums.clone().into_data().iter::<f32>().collect();
                for &code in &dead {
                    let from = self.rng.random_range(0..count) * latent;
                    let place = &candidates[from..from + latent];
                    let to = code * latent..(code + 1) * latent;
                    host[to.clone()].copy_from_slice(place);
                    sums[to].copy_from_slice(place);
                    counts[code] = 1.0;
                }
                let table =
                    |data| Tensor::from_data(TensorData::new(data, [size, latent]), &self.device);
                book = table(host);
                average.sums = table(sums);
                average.counts = Tensor::from_data(TensorData::new(counts, [size]), &self.device);
                self.set_codebook(level, book.clone());
                restarted += dead.len();
            }
            residual = assign_nearest(residual, &[book]).1;
        }
        Ok(restarted)
    }

    fn set_codebook(&mut self, level: usize, book: Tensor<B::InnerBackend, 2>) {
        let param = self.network.codebooks[level].clone();
        self.network.codebooks[level] = param.map(|_| Tensor::from_inner(book).require_grad());
    }
}

/// How often each of so many codes was chosen, `[n]` to `[size]`.
fn uses<B: Backend>(codes: Tensor<B, 1, Int>, size: usize) -> Tensor<B, 1> {
    let (device, [n]) = (codes.device(), codes.dims());
    let ones = Tensor::ones([n], &device);
    Tensor::zeros([size], &device).select_assign(0, codes, ones, IndexingUpdateOp::Add)
}

/// Warm-up, then half a cosine down to a hundredth.
fn schedule(step: usize, warmup: usize, steps: usize) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        module::{Module, ModuleVisitor, Param},
        tensor::Tolerance,
    };

    use super::*;
    use crate::{cancel::StopFlag, identifier::Codes, quantizer::Quantizer};

    type A = Autodiff<Flex>;

    /// Points around 24 directions in 12 dimensions.
    fn clusters(n: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let centres: Vec<f32> = (0..24 * 12).map(|_| rng.random::<f32>() * 4.0 - 2.0).collect();
        (0..n)
            .flat_map(|i| {
                let centre = &centres[(i % 24) * 12..(i % 24) * 12 + 12];
                centre.iter().map(|c| c + rng.random::<f32>() * 0.4 - 0.2).collect::<Vec<_>>()
            })
            .collect()
    }

    fn config() -> RqVaeConfig {
        RqVaeConfig {
            latent: 6,
            hidden: vec![24],
            epochs: 60,
            batch: 64,
            learning_rate: 5e-3,
            seed: 1,
            ..RqVaeConfig::new(vec![8, 8])
        }
    }

    fn relative_error(q: &dyn Quantizer, rows: &[f32]) -> f64 {
        let decoded = q.decode(&q.encode(rows).unwrap()).unwrap();
        let error: f64 = rows.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let scaling = Scaling::fit(rows, q.dim(), super::super::Standardise::Global);
        error / (f64::from(scaling.deviation[0]).powi(2) * rows.len() as f64)
    }

    #[test]
    fn both_kinds_of_codebook_learn_to_reconstruct_and_use_their_codes() {
        let rows = clusters(480);
        for codebooks in [Codebooks::Gradient, Codebooks::Ema { decay: 0.95 }] {
            let mut losses = Vec::new();
            let config = RqVaeConfig { codebooks, ..config() };
            let monitor =
                Monitor::new().with_progress(|event: RqVaeEvent| losses.push(event.reconstruction));
            let fitted: RqVae<Flex> =
                config.fit_with_progress(&rows, 12, &Default::default(), &monitor).unwrap();
            drop(monitor);
            assert!(losses[59] < 0.3 * losses[0], "{codebooks:?} {losses:?}");
            assert!(relative_error(&fitted, &rows) < 0.3, "{codebooks:?}");
            let codes = fitted.encode(&rows).unwrap();
            for level in 0..2 {
                let used: std::collections::BTreeSet<u16> =
                    codes.rows().map(|row| row[level]).collect();
                assert!(used.len() >= 7, "{codebooks:?} level {level}: {}", used.len());
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_codes() {
        let rows = clusters(200);
        let codes = |seed| -> Codes {
            let config = RqVaeConfig { epochs: 4, seed, ..config() };
            config.fit::<Flex>(&rows, 12, &Default::default()).unwrap().encode(&rows).unwrap()
        };
        assert_eq!(codes(3), codes(3));
        assert_ne!(codes(3), codes(4));
    }

    /// A fit before its first step.
    fn started<'a>(config: &'a RqVaeConfig, rows: &'a [f32]) -> Fit<'a, A> {
        let device = Default::default();
        let mut fit = Fit::<A> {
            config,
            rows,
            dim: 12,
            device,
            network: config.init_network::<A>(12, &device),
            averages: Vec::new(),
            usage: vec![Tensor::ones([8], &device); 2],
            rng: ChaCha8Rng::seed_from_u64(0),
            scaling: Scaling::fit(rows, 12, config.standardise),
        };
        fit.initialise_codebooks().unwrap();
        fit
    }

    /// Twin: the whole batch through one graph.
    #[test]
    fn a_batch_split_over_threads_is_the_whole_batch() {
        let rows = clusters(300);
        let config = RqVaeConfig { codebooks: Codebooks::Ema { decay: 0.9 }, ..config() };
        let fit = started(&config, &rows);
        let indices: Vec<u32> = (0..299).collect();
        let whole = fit.part(&fit.network, &indices, 1.0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let split = pool.install(|| fit.gradients(&indices));
        let near = Tolerance::absolute(1e-5);
        struct Compare<'a>(&'a GradientsParams, &'a GradientsParams, usize);
        impl ModuleVisitor<A> for Compare<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                let grad = |grads: &GradientsParams| grads.get::<Flex, D>(param.id);
                match (grad(self.0), grad(self.1)) {
                    (Some(a), Some(b)) => {
                        let near = Tolerance::absolute(1e-5);
                        a.into_data().assert_approx_eq::<f32>(&b.into_data(), near);
                        self.2 += 1;
                    }
                    (a, b) => assert!(a.is_none() && b.is_none()),
                }
            }
        }
        let mut compare = Compare(&split.grads, &whole.grads, 0);
        fit.network.visit(&mut compare);
        // Two layers of encoder and decoder each, with biases.
        assert_eq!(compare.2, 8);
        for (a, b) in split.losses.into_iter().zip(whole.losses) {
            a.into_data().assert_approx_eq::<f32>(&b.into_data(), near);
        }
        for (a, b) in split.totals.into_iter().zip(whole.totals) {
            assert_eq!(a.counts.into_data(), b.counts.into_data());
            a.sums
                .into_data()
                .assert_approx_eq::<f32>(&b.sums.into_data(), Tolerance::absolute(1e-3));
        }
    }

    #[test]
    fn dead_codes_come_back_with_fresh_statistics() {
        let rows = clusters(240);
        let config = config();
        let device = Default::default();
        let mut fit = started(&config, &rows);
        fit.usage[1] = Tensor::from_floats([1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 1.0, 0.0], &device);
        let before: Vec<f32> = fit.network.codebooks[1].val().into_data().to_vec().unwrap();
        assert_eq!(fit.restart().unwrap(), 2);
        let after: Vec<f32> = fit.network.codebooks[1].val().into_data().to_vec().unwrap();
        let counts: Vec<f32> = fit.averages[1].counts.to_data().to_vec().unwrap();
        let sums: Vec<f32> = fit.averages[1].sums.to_data().to_vec().unwrap();
        for (code, &count) in counts.iter().enumerate() {
            let span = code * 6..code * 6 + 6;
            let moved = before[span.clone()] != after[span.clone()];
            assert_eq!(moved, code == 1 || code == 7, "code {code}");
            if moved {
                assert_eq!((count, &sums[span.clone()]), (1.0, &after[span]));
            }
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let rows = clusters(6);
        let device = Default::default();
        assert!(matches!(
            config().fit::<Flex>(&rows, 12, &device).unwrap_err(),
            Error::Quantizer(_)
        ));
        assert!(RqVaeConfig::new(vec![]).fit::<Flex>(&rows, 12, &device).is_err());
        assert!(RqVaeConfig::new(vec![1]).fit::<Flex>(&rows, 12, &device).is_err());
        let mut bad = clusters(240);
        bad[17] = f32::NAN;
        assert!(config().fit::<Flex>(&bad, 12, &device).is_err());
        let stop = StopFlag::new();
        stop.raise();
        let monitor = Monitor::new().with_stop(&stop);
        let stopped = config().fit_with_progress::<Flex>(&clusters(240), 12, &device, &monitor);
        assert!(matches!(stopped.unwrap_err(), Error::Interrupted(_)));
    }
}
