//! Forward and backward of a step: in micro-batches, and on host backends on several threads.
//!
//! The loss is a mean over rows, so each piece of a step weighs as many rows of the step as it has:
//! the sum over all pieces, on whatever threads and devices, is the gradient of the whole batch.

use std::ops::Range;

use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Tensor, backend::AutodiffBackend},
};

use super::{
    batch::TrainBatch,
    config::TrainConfig,
    learner::{CartLearner, Context},
};
use crate::{
    data::{QueryBatch, TargetBatch},
    kernels::on_cpu,
    model::Supervised,
    nn::{EncoderPrefix, GuideBatch, fork, on_forks, with_noise},
    optim::Gate,
};

/// Fewest rows of a thread.
const LEAST: usize = 8;

/// Weighted loss (`[1]`) and gradients of some rows of a step; the gradients are multiplied by the
/// scale of the loss.
pub(super) type Part<B> = (Tensor<<B as AutodiffBackend>::InnerBackend, 1>, GradientsParams);

/// Some rows of a step.
struct Piece<B: AutodiffBackend> {
    queries: QueryBatch<B>,
    targets: TargetBatch<B>,
    guide: Option<GuideBatch<B>>,
    texts: Vec<u32>,
    seed: u64,
    /// Share of the rows of the step.
    weight: f64,
}

/// Splits rows into runs of `size`, the last of which may be shorter; a size of 0 splits nothing.
fn micro_batches(rows: usize, size: usize) -> Vec<Range<usize>> {
    let size = if size == 0 { rows } else { size };
    (0..rows).step_by(size.max(1)).map(|start| start..(start + size).min(rows)).collect()
}

/// Splits rows over up to `threads` threads, none of fewer than 8 rows.
fn split(rows: &Range<usize>, threads: usize) -> Vec<Range<usize>> {
    let parts = threads.min(rows.len() / LEAST).max(1);
    let bound = |part: usize| rows.start + rows.len() * part / parts;
    (0..parts).map(|part| bound(part)..bound(part + 1)).collect()
}

impl<B: AutodiffBackend> CartLearner<B> {
    /// Forward and backward of a device's rows of a step.
    pub(super) fn gradients(&self, batch: &TrainBatch<B>, device: &B::Device) -> Part<B> {
        let [rows, _] = batch.queries.tokens.dims();
        // Backends in the host's memory leave a core idle outside of large products: there, every
        // core takes a part of the batch through a copy of the network with a graph of its own.
        let threads = if on_cpu::<B>(device) {
            (rayon::current_num_threads() / self.context.together.devices).max(1)
        } else {
            1
        };
        let mut sum = GradientsAccumulator::new();
        let mut total = Tensor::zeros([1], device);
        let mut number = 0;
        for micro in micro_batches(rows, self.context.config.micro_batch) {
            let pieces: Vec<Piece<B>> = split(&micro, threads)
                .into_iter()
                .map(|rows| {
                    number += 1;
                    Piece {
                        weight: rows.len() as f64 / batch.of as f64,
                        seed: batch.seed.wrapping_add(number - 1),
                        queries: batch.queries.rows(rows.clone()),
                        targets: batch.targets.rows(rows.clone()),
                        guide: batch.guide.as_ref().map(|guide| guide.rows(rows.clone())),
                        texts: batch.texts[rows].to_vec(),
                    }
                })
                .collect();
            for (loss, grads) in self.pieces(pieces, device) {
                total = total + loss;
                sum.accumulate(self, grads);
            }
        }
        (total, sum.grads())
    }

    /// The parts of a micro-batch, in order; a thread for each if there are several.
    ///
    /// Each works on a fork of the network: in burn 0.21 a second backward pass from the same
    /// parameters can lose gradients while another thread does one of its own.
    fn pieces(&self, mut pieces: Vec<Piece<B>>, device: &B::Device) -> Vec<Part<B>> {
        if pieces.len() <= 1 {
            let part = |piece| fork(self.clone(), device).piece(piece);
            return pieces.pop().map(part).into_iter().collect();
        }
        on_forks::<B, _, _, _>(self, device, pieces, |learner, piece| learner.piece(piece))
    }

    /// Forward and backward.
    fn piece(&self, piece: Piece<B>) -> Part<B> {
        let Piece { queries, targets, guide, texts, seed, weight } = piece;
        let Context { config: TrainConfig { loss: config, precision, .. }, frozen, shared, .. } =
            &*self.context;
        let prefix = frozen.as_ref().map(|frozen| frozen.prefix(&self.cart, &queries, &texts));
        let cart = precision.apply(self.cart.clone());
        // Both passes of R-Drop are one batch: every query twice, with dropouts of their own.
        let passes = if config.r_drop > 0.0 { 2 } else { 1 };
        let (queries, prefix, targets, guide) = match passes {
            2 => (
                queries.repeated(),
                prefix.map(EncoderPrefix::repeated),
                targets.repeated(),
                guide.as_ref().map(GuideBatch::repeated),
            ),
            _ => (queries, prefix, targets, guide),
        };
        let loss = with_noise(seed, || {
            let encoded = match prefix {
                Some(prefix) => cart.encoder().finish(prefix, queries.padding.clone()),
                None => cart.encode_layers(queries.tokens.clone(), queries.padding.clone()),
            };
            config.of(&cart, &encoded, Supervised { queries, targets, guide }, passes, seed)
        });
        let loss = loss.mul_scalar(weight);
        let scaled = loss.clone().mul_scalar(shared.guard.scale());
        let grads = GradientsParams::from_grads(scaled.backward(), self);
        (loss.inner(), grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_and_threads_cover_all_rows_in_order() {
        for (rows, size, threads) in [(32, 8, 1), (33, 8, 2), (7, 100, 4), (64, 0, 3), (1, 1, 1)] {
            let micro = micro_batches(rows, size);
            let all: Vec<usize> = micro
                .iter()
                .flat_map(|micro| split(micro, threads).into_iter().flatten())
                .collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
            assert!(size == 0 || micro.iter().all(|micro| micro.len() <= size));
        }
        assert_eq!(micro_batches(20, 8).last(), Some(&(16..20)));
        assert_eq!(split(&(0..15), 4).len(), 1);
        assert_eq!(split(&(0..64), 4).len(), 4);
    }
}
