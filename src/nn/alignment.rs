//! The query as a vector in the space of the candidates.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    WeightInit,
    init::{linear_2d, widened},
};
use crate::{
    align::{Geometry, HeldOut},
    error::{Error, Result},
    identifier::Codes,
    trie::Trie,
};

/// Settings of the alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignmentConfig {
    /// Width of the candidates' vectors.
    pub dim: usize,
    /// Factor of the cosine in the logits, before training.
    #[serde(default = "ten")]
    pub scale: f64,
    /// Whether the geometry of the candidates guides the decoder; without that, the aligned query
    /// serves the alignment loss and reranking only.
    #[serde(default = "yes")]
    pub guided: bool,
}

fn ten() -> f64 {
    10.0
}

fn yes() -> bool {
    true
}

impl AlignmentConfig {
    /// Candidates of this width, with guidance.
    pub fn new(dim: usize) -> Self {
        Self { dim, scale: ten(), guided: true }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        if self.dim == 0 {
            return Err(Error::config(
                "alignment dim",
                "at least 1",
                "0",
                "use that of the vectors",
            ));
        }
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Error::config(
                "alignment scale",
                "a number above 0",
                self.scale.to_string(),
                "10 is usual",
            ));
        }
        Ok(())
    }

    /// Initialises the head for queries of width `d_model` and identifiers of `levels` tokens.
    pub fn init<B: Backend>(
        &self,
        d_model: usize,
        levels: usize,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> AlignmentHead<B> {
        let projection = match d_model == self.dim {
            // Added to the query, so it starts as no change.
            true => Linear {
                weight: Param::from_tensor(Tensor::zeros([d_model, self.dim], device)),
                bias: Some(Param::from_tensor(Tensor::zeros([self.dim], device))),
            },
            false => init.linear(d_model, self.dim, device),
        };
        let scales = vec![self.scale.ln() as f32; levels + 1];
        let scales = Tensor::from_data(TensorData::new(scales, [levels + 1]), device);
        AlignmentHead { projection, log_scales: Param::from_tensor(scales), guided: self.guided }
    }

    /// Number of parameters.
    pub fn num_params(&self, d_model: usize, levels: usize) -> usize {
        (d_model + 1) * self.dim + levels + 1
    }
}

/// Maps pooled queries to the space of the candidates, and turns the geometry there into logits.
///
/// Where the space is the text encoder's own, the map starts as the identity: an untrained network
/// then searches like the text encoder, quantised.
#[derive(Module, Debug)]
pub struct AlignmentHead<B: Backend> {
    projection: Linear<B>,
    /// Logarithms of the cosine's factors: one a level, and the alignment loss's.
    log_scales: Param<Tensor<B, 1>>,
    #[module(skip)]
    guided: bool,
}

/// What the candidates' geometry knows about the targets of a batch.
#[derive(Debug, Clone)]
pub struct GuideBatch<B: Backend> {
    /// Per level; absent where no target has a choice.
    levels: Vec<Option<GuideLevel<B>>>,
    /// The targets' vectors as they would be without the text at hand, `[batch, D]`.
    own: Tensor<B, 2>,
    /// The same less the vectors they have, `[batch, D]`.
    change: Tensor<B, 2>,
    /// The targets' items.
    items: Vec<u32>,
}

/// The children of every target's prefix at one level, packed to the most there are.
#[derive(Debug, Clone)]
struct GuideLevel<B: Backend> {
    /// Means: `[children, D]` where all targets share the prefix, else `[batch, children, D]`.
    means: Means<B>,
    /// ln of their number of candidates, `[batch or 1, children]`.
    log_count: Tensor<B, 2>,
    /// Their spread, `[batch or 1, children]`.
    spread: Tensor<B, 2>,
    /// Covariance of the level, `[D, D]`.
    covariance: Tensor<B, 2>,
    /// One over the number of candidates at the target's child, there, `[batch, children]`.
    share: Tensor<B, 2>,
    /// Which child every token is; 0 where it is none, `[batch, size]`.
    slots: Tensor<B, 2, Int>,
}

#[derive(Debug, Clone)]
enum Means<B: Backend> {
    Shared(Tensor<B, 2>),
    Own(Tensor<B, 3>),
}

impl<B: Backend> AlignmentHead<B> {
    /// Pooled queries as vectors of length 1.
    ///
    /// # Shapes
    /// - `pooled`: `[batch, d_model]`
    /// - returns: `[batch, D]`
    pub fn forward(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let [d_model, dim] = self.projection.weight.dims();
        let mapped = match d_model == dim {
            true => {
                let unit = unit(pooled);
                unit.clone() + linear_2d(&self.projection, unit)
            }
            false => linear_2d(&self.projection, pooled),
        };
        widened(unit(mapped))
    }

    /// Whether the geometry of the candidates guides the decoder.
    pub fn is_guided(&self) -> bool {
        self.guided
    }

    /// Factors of the cosine, one a level, `[levels]`.
    pub fn scales(&self) -> Tensor<B, 1> {
        let [count] = self.log_scales.dims();
        widened(self.log_scales.val()).narrow(0, 0, count - 1).exp()
    }

    /// Adds what the geometry says to teacher-forced logits.
    ///
    /// # Shapes
    /// - `aligned`: `[batch, D]`
    /// - `logits`, output: per level `[batch, size]`
    pub fn guide(
        &self,
        aligned: &Tensor<B, 2>,
        batch: &GuideBatch<B>,
        logits: Vec<Tensor<B, 2>>,
    ) -> Vec<Tensor<B, 2>> {
        if !self.guided {
            return logits;
        }
        let scales = widened(self.log_scales.val()).exp();
        logits
            .into_iter()
            .zip(&batch.levels)
            .enumerate()
            .map(|(level, (logits, guide))| match guide {
                Some(guide) => {
                    let scale = scales.clone().narrow(0, level, 1).reshape([1, 1]);
                    logits + guide.scores(aligned, &batch.change, scale)
                }
                None => logits,
            })
            .collect()
    }

    /// InfoNCE between the queries of a batch and the vectors of their candidates, `[1]`; other
    /// queries of the same candidate are no negatives.
    ///
    /// # Shapes
    /// - `aligned`: `[batch, D]`
    pub fn contrast(&self, aligned: &Tensor<B, 2>, batch: &GuideBatch<B>) -> Tensor<B, 1> {
        let rows = batch.items.len();
        let device = aligned.device();
        let [count] = self.log_scales.dims();
        let scale = widened(self.log_scales.val()).narrow(0, count - 1, 1);
        let scale = scale.exp().reshape([1, 1]);
        let same: Vec<bool> = (0..rows * rows)
            .map(|at| at / rows != at % rows && batch.items[at / rows] == batch.items[at % rows])
            .collect();
        let same = Tensor::from_data(TensorData::new(same, [rows, rows]), &device);
        let logits = aligned.clone().matmul(batch.own.clone().transpose()).mul(scale);
        let log_p = burn::tensor::activation::log_softmax(logits.mask_fill(same, -3e4), 1);
        let own = Tensor::<B, 1, Int>::arange(0..rows as i64, &device).reshape([rows, 1]);
        log_p.gather(1, own).neg().mean()
    }
}

impl<B: Backend> GuideLevel<B> {
    /// Scores of all tokens, `[batch, size]`; tokens that are no children get some number.
    fn scores(
        &self,
        aligned: &Tensor<B, 2>,
        change: &Tensor<B, 2>,
        scale: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let [batch, dim] = aligned.dims();
        let cosines = match &self.means {
            Means::Shared(means) => aligned.clone().matmul(means.clone().transpose()),
            Means::Own(means) => {
                let [_, children, _] = means.dims();
                let column = aligned.clone().reshape([batch, dim, 1]);
                means.clone().matmul(column).reshape([batch, children])
            }
        };
        // The target's child, without the text at hand.
        let moved = (aligned.clone() * change.clone()).sum_dim(1);
        let cosines = cosines + moved * self.share.clone();
        let along = (aligned.clone().matmul(self.covariance.clone()) * aligned.clone()).sum_dim(1);
        let along = along * scale.clone().powi_scalar(2).mul_scalar(0.5);
        let packed = cosines * scale + self.log_count.clone() + along * self.spread.clone();
        packed.gather(1, self.slots.clone())
    }

    fn rows(&self, start: usize, length: usize) -> Self {
        let some = |tensor: &Tensor<B, 2>| match tensor.dims()[0] {
            1 => tensor.clone(),
            _ => tensor.clone().narrow(0, start, length),
        };
        Self {
            means: match &self.means {
                Means::Shared(means) => Means::Shared(means.clone()),
                Means::Own(means) => Means::Own(means.clone().narrow(0, start, length)),
            },
            log_count: some(&self.log_count),
            spread: some(&self.spread),
            covariance: self.covariance.clone(),
            share: self.share.clone().narrow(0, start, length),
            slots: self.slots.clone().narrow(0, start, length),
        }
    }

    fn doubled(&self) -> Self {
        let twice = |tensor: &Tensor<B, 2>| match tensor.dims()[0] {
            1 => tensor.clone(),
            _ => Tensor::cat(vec![tensor.clone(); 2], 0),
        };
        Self {
            means: match &self.means {
                Means::Shared(means) => Means::Shared(means.clone()),
                Means::Own(means) => Means::Own(Tensor::cat(vec![means.clone(); 2], 0)),
            },
            log_count: twice(&self.log_count),
            spread: twice(&self.spread),
            covariance: self.covariance.clone(),
            share: Tensor::cat(vec![self.share.clone(); 2], 0),
            slots: Tensor::cat(vec![self.slots.clone(); 2], 0),
        }
    }
}

impl<B: Backend> GuideBatch<B> {
    /// Gathers what the geometry knows about items.
    ///
    /// # Shapes
    /// - `texts`: for each item, the training text that describes it here, if it is one; its
    ///   held-out vector then stands for the item's
    ///
    /// # Panics
    /// When an item is not in the table or a text has no held-out vector.
    pub fn new(
        items: &[u32],
        texts: Option<(&[u32], &HeldOut)>,
        identifiers: &Codes,
        trie: &Trie,
        geometry: &Geometry,
        device: &B::Device,
    ) -> Self {
        let (rows, dim) = (items.len(), geometry.dim());
        let mut own = Vec::with_capacity(rows * dim);
        let mut change = Vec::with_capacity(rows * dim);
        for (at, &item) in items.iter().enumerate() {
            let vector = geometry.vectors().row(item as usize);
            let held_out = texts.map_or(vector, |(texts, held)| held.row(texts[at] as usize));
            own.extend_from_slice(held_out);
            change.extend(held_out.iter().zip(vector).map(|(held, v)| held - v));
        }
        let matrix = |values| Tensor::from_data(TensorData::new(values, [rows, dim]), device);
        let mut nodes = vec![trie.root(); rows];
        let levels = (0..trie.levels())
            .map(|level| {
                let tokens: Vec<u16> =
                    items.iter().map(|&item| identifiers.row(item as usize)[level]).collect();
                GuideLevel::new(level, &mut nodes, &tokens, trie, geometry, device)
            })
            .collect();
        Self { levels, own: matrix(own), change: matrix(change), items: items.to_vec() }
    }

    /// Some rows of the batch.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let (start, length) = (rows.start, rows.len());
        let level = |level: &GuideLevel<B>| level.rows(start, length);
        Self {
            levels: self.levels.iter().map(|guide| guide.as_ref().map(level)).collect(),
            own: self.own.clone().narrow(0, start, length),
            change: self.change.clone().narrow(0, start, length),
            items: self.items[rows].to_vec(),
        }
    }

    /// The batch twice, for two passes of different dropout.
    pub fn doubled(&self) -> Self {
        Self {
            levels: self.levels.iter().map(|g| g.as_ref().map(GuideLevel::doubled)).collect(),
            own: Tensor::cat(vec![self.own.clone(); 2], 0),
            change: Tensor::cat(vec![self.change.clone(); 2], 0),
            items: self.items.repeat(2),
        }
    }
}

impl<B: Backend> GuideLevel<B> {
    /// Gathers the children of `nodes`, and moves those on to the children of `tokens`.
    fn new(
        level: usize,
        nodes: &mut [crate::trie::Node],
        tokens: &[u16],
        trie: &Trie,
        geometry: &Geometry,
        device: &B::Device,
    ) -> Option<Self> {
        let (rows, dim) = (nodes.len(), geometry.dim());
        let size = trie.vocabulary().size(level);
        let shared = level == 0;
        let most = nodes.iter().map(|&node| geometry.children(node).len()).max().unwrap_or(0);
        let tables = if shared { 1 } else { rows };
        let mut means = vec![0f32; if most > 1 { tables * most * dim } else { 0 }];
        let mut log_count = vec![0f32; tables * most];
        let mut spread = vec![0f32; tables * most];
        let mut share = vec![0f32; rows * most];
        let mut slots = vec![0i64; rows * size];
        for (row, node) in nodes.iter_mut().enumerate() {
            let numbers = geometry.children(*node);
            let mut next = *node;
            for ((at, (token, child)), number) in trie.children(*node).enumerate().zip(numbers) {
                slots[row * size + usize::from(token)] = at as i64;
                if token == tokens[row] {
                    share[row * most + at] = 1.0 / child.count() as f32;
                    next = child;
                }
                if most > 1 && (row == 0 || !shared) {
                    let to = if shared { at } else { row * most + at };
                    means[to * dim..(to + 1) * dim].copy_from_slice(geometry.mean(level, number));
                    log_count[to] = geometry.log_count(level, number);
                    spread[to] = geometry.spread(level, number);
                }
            }
            *node = next;
        }
        // A single child has probability 1, whatever its logit.
        if most < 2 {
            return None;
        }
        let matrix = |values, shape: [usize; 2]| {
            Tensor::<B, 2>::from_data(TensorData::new(values, shape), device)
        };
        Some(Self {
            means: match shared {
                true => Means::Shared(matrix(means, [most, dim])),
                false => {
                    Means::Own(Tensor::from_data(TensorData::new(means, [rows, most, dim]), device))
                }
            },
            log_count: matrix(log_count, [tables, most]),
            spread: matrix(spread, [tables, most]),
            covariance: matrix(geometry.covariance(level).to_vec(), [dim, dim]),
            share: matrix(share, [rows, most]),
            slots: Tensor::from_data(TensorData::new(slots, [rows, size]), device),
        })
    }
}

/// Rows scaled to length 1.
fn unit<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let norm = rows.clone().powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
    rows / norm
}
