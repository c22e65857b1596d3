//! The query as a vector in the space of the candidates.

use std::ops::Range;

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    WeightInit, WordView,
    init::{linear_2d, widened},
    words::unit,
};
use crate::{
    align::{Geometry, HeldOut},
    error::{Error, Result},
    identifier::Codes,
    trie::{Node, Trie},
};

/// What the parameters of the scales are multiplied by, so that the learning rate of a matrix moves
/// them as far as they need.
const GAIN: f32 = 20.0;
/// ln of the number of candidates where there is no node.
const NONE: f32 = -1e4;

/// Settings of the alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignmentConfig {
    /// Width of the candidates' vectors.
    pub dim: usize,
    /// Factor of the cosine in the logits, one a level and one for the contrast, or one for all.
    ///
    /// With one factor for all levels, scores of prefixes add up to those of a search over all
    /// candidates. Large factors fit the training texts better and rank worse: for them a Gaussian
    /// says little about the candidates below a node.
    #[serde(default = "ten")]
    pub scales: Vec<f32>,
    /// Whether the geometry of the candidates guides the decoder; without that, the aligned query
    /// serves the alignment loss and reranking only.
    #[serde(default = "yes")]
    pub guided: bool,
    /// Whether the factors are trained.
    #[serde(default)]
    pub learn_scales: bool,
    /// Whether the map of the query is trained where it starts as the identity. Trained on the few
    /// captions of a small set, it loses more than it gains; a map between spaces of different width
    /// is always trained.
    #[serde(default)]
    pub learn_map: bool,
    /// Weight of the cosine of the words, where a query's vector also says what its words are
    /// ([`WordView`]); absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<f32>,
}

fn ten() -> Vec<f32> {
    vec![10.0]
}

fn yes() -> bool {
    true
}

impl AlignmentConfig {
    /// Candidates of this width, with guidance.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            scales: ten(),
            guided: true,
            learn_scales: false,
            learn_map: false,
            words: None,
        }
    }

    /// Sets the factors of the cosine: one for all levels, or as many as there are levels and one for
    /// the contrast.
    pub fn with_scales(self, scales: Vec<f32>) -> Self {
        Self { scales, ..self }
    }

    /// Checks ranges for identifiers of `levels` tokens.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self, levels: usize) -> Result<()> {
        if self.dim == 0 {
            return Err(Error::config(
                "alignment dim",
                "at least 1",
                "0",
                "use that of the vectors",
            ));
        }
        let usable = self.scales.iter().all(|scale| *scale > 0.0 && scale.is_finite());
        if !usable || ![1, levels + 1].contains(&self.scales.len()) {
            return Err(Error::config(
                "alignment scales",
                format!("one number above 0, or {} of them", levels + 1),
                format!("{:?}", self.scales),
                "10 is usual",
            ));
        }
        Ok(())
    }

    /// Initialises the head for pooled queries of width `d_model`, a text vocabulary of `words` tokens
    /// and identifiers of `levels` tokens.
    pub fn init<B: Backend>(
        &self,
        d_model: usize,
        words: usize,
        levels: usize,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> AlignmentHead<B> {
        let d_model = self.d_query(d_model);
        let projection = match d_model == self.dim {
            // Added to the query, so it starts as no change.
            true => Linear {
                weight: Param::from_tensor(Tensor::zeros([d_model, self.dim], device)),
                bias: Some(Param::from_tensor(Tensor::zeros([self.dim], device))),
            },
            false => init.linear(d_model, self.dim, device),
        };
        let scale = |level: usize| self.scales[level.min(self.scales.len() - 1)].ln() / GAIN;
        let scales: Vec<f32> = (0..=levels).map(scale).collect();
        let scales = Tensor::from_data(TensorData::new(scales, [levels + 1]), device);
        AlignmentHead {
            projection,
            log_scales: Param::from_tensor(scales),
            guided: self.guided,
            learn_scales: self.learn_scales,
            learn_map: self.learn_map,
            words: self.words.map(|weight| WordView::new(&vec![0.0; words], weight, device)),
        }
    }

    /// Width of a query's vector before it is mapped, of pooled queries of width `d_model`.
    fn d_query(&self, d_model: usize) -> usize {
        if self.words.is_some() { 2 * d_model } else { d_model }
    }

    /// Number of parameters.
    pub fn num_params(&self, d_model: usize, words: usize, levels: usize) -> usize {
        let words = if self.words.is_some() { words } else { 0 };
        (self.d_query(d_model) + 1) * self.dim + levels + 1 + words
    }
}

/// Maps pooled queries to the space of the candidates, and turns the geometry there into logits.
///
/// Where the space is the text encoder's own, the map starts as the identity: an untrained network
/// then searches like the text encoder, quantised.
#[derive(Module, Debug)]
pub struct AlignmentHead<B: Backend> {
    projection: Linear<B>,
    /// Logarithms of the cosine's factors over [`GAIN`]: one a level, and the contrast's.
    log_scales: Param<Tensor<B, 1>>,
    #[module(skip)]
    guided: bool,
    #[module(skip)]
    learn_scales: bool,
    #[module(skip)]
    learn_map: bool,
    words: Option<WordView<B>>,
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

/// What scores the children of every target's prefix at one level: those children, or where the
/// geometry looks ahead, theirs. Packed to the most there are.
#[derive(Debug, Clone)]
struct GuideLevel<B: Backend> {
    /// Means: `[nodes, D]` where all targets share the prefix, else `[batch, nodes, D]`.
    means: Means<B>,
    /// ln of their number of candidates, `[batch or 1, nodes]`.
    log_count: Tensor<B, 2>,
    /// Their spread, `[batch or 1, nodes]`.
    spread: Tensor<B, 2>,
    /// Covariance of their level, `[D, D]`.
    covariance: Tensor<B, 2>,
    /// One over the number of candidates at the target's node, there, `[batch, nodes]`.
    share: Tensor<B, 2>,
    /// Which child every node is below, `[batch or 1, nodes]`, where nodes are children's children.
    owners: Option<Tensor<B, 2, Int>>,
    /// Most children of a prefix.
    children: usize,
    /// Which child every token is; 0 where it is none, `[batch, size]`.
    slots: Tensor<B, 2, Int>,
}

#[derive(Debug, Clone)]
enum Means<B: Backend> {
    Shared(Tensor<B, 2>),
    Own(Tensor<B, 3>),
}

impl<B: Backend> AlignmentHead<B> {
    /// Queries as vectors of length 1.
    ///
    /// # Shapes
    /// - `pooled`: `[batch, d_model]`, with words behind them ([`WordView::append`]) twice as wide
    /// - returns: `[batch, D]`
    pub fn forward(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let [d_model, dim] = self.projection.weight.dims();
        let mapped = match d_model == dim {
            true => {
                let unit = unit(pooled);
                let change = linear_2d(&self.projection, unit.clone());
                unit + if self.learn_map { change } else { change.detach() }
            }
            false => linear_2d(&self.projection, pooled),
        };
        widened(unit(mapped))
    }

    /// Width of the candidates' vectors.
    pub fn dim(&self) -> usize {
        self.projection.weight.dims()[1]
    }

    /// What makes vectors of the words, where they are part of a query's vector.
    pub fn words(&self) -> Option<&WordView<B>> {
        self.words.as_ref()
    }

    /// Puts another view of the words in the place of the one there is.
    pub(crate) fn with_words(self, words: WordView<B>) -> Self {
        Self { words: Some(words), ..self }
    }

    /// Whether the geometry of the candidates guides the decoder.
    pub fn is_guided(&self) -> bool {
        self.guided
    }

    /// All factors, `[levels + 1]`.
    fn factors(&self) -> Tensor<B, 1> {
        let scales = widened(self.log_scales.val()).mul_scalar(GAIN).exp();
        if self.learn_scales { scales } else { scales.detach() }
    }

    /// Factors of the cosine, one a level, `[levels]`.
    pub fn scales(&self) -> Tensor<B, 1> {
        let [count] = self.log_scales.dims();
        self.factors().narrow(0, 0, count - 1)
    }

    /// Adds what the geometry says to teacher-forced logits.
    ///
    /// # Shapes
    /// - `aligned`: `[batch, D]`
    /// - `factors` of what the geometry says, `[batch, 1]`; absent where all are 1
    /// - `logits`, output: per level `[batch, size]`
    pub fn guide(
        &self,
        aligned: &Tensor<B, 2>,
        batch: &GuideBatch<B>,
        factors: Option<&Tensor<B, 2>>,
        logits: Vec<Tensor<B, 2>>,
    ) -> Vec<Tensor<B, 2>> {
        if !self.guided {
            return logits;
        }
        let scales = self.factors();
        logits
            .into_iter()
            .zip(&batch.levels)
            .enumerate()
            .map(|(level, (logits, guide))| match guide {
                Some(guide) => {
                    let scale = scales.clone().narrow(0, level, 1).reshape([1, 1]);
                    let scores = guide.scores(aligned, &batch.change, scale);
                    logits + factors.map_or(scores.clone(), |factors| scores * factors.clone())
                }
                None => logits,
            })
            .collect()
    }

    /// How near tokens are to the targets: logits of a query that lies where the target's candidate
    /// does, without the text at hand.
    ///
    /// # Shapes
    /// - returns: per level `[batch, size]`; absent where no target has a choice
    pub fn near(&self, batch: &GuideBatch<B>) -> Vec<Option<Tensor<B, 2>>> {
        let scales = self.factors().detach();
        let scores = |(level, guide): (usize, &Option<GuideLevel<B>>)| {
            let scale = scales.clone().narrow(0, level, 1).reshape([1, 1]);
            guide.as_ref().map(|guide| guide.scores(&batch.own, &batch.change, scale))
        };
        batch.levels.iter().enumerate().map(scores).collect()
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
        let scale = self.factors().narrow(0, count - 1, 1).reshape([1, 1]);
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
                let [_, nodes, _] = means.dims();
                let column = aligned.clone().reshape([batch, dim, 1]);
                means.clone().matmul(column).reshape([batch, nodes])
            }
        };
        // The target's node, without the text at hand.
        let moved = (aligned.clone() * change.clone()).sum_dim(1);
        let cosines = cosines + moved * self.share.clone();
        let along = (aligned.clone().matmul(self.covariance.clone()) * aligned.clone()).sum_dim(1);
        let along = along * scale.clone().powi_scalar(2).mul_scalar(0.5);
        let nodes = cosines * scale + self.log_count.clone() + along * self.spread.clone();
        self.summed(nodes).gather(1, self.slots.clone())
    }

    /// From scores of nodes to scores of children: logarithms of sums, `[batch, children]`.
    fn summed(&self, nodes: Tensor<B, 2>) -> Tensor<B, 2> {
        let Some(owners) = &self.owners else {
            return nodes;
        };
        let [batch, count] = nodes.dims();
        let top = nodes.clone().detach().max_dim(1);
        let parts = (nodes - top.clone()).exp();
        let sums = Tensor::zeros([batch, self.children], &parts.device());
        let owners = owners.clone().expand([batch, count]);
        sums.scatter(1, owners, parts, IndexingUpdateOp::Add).add_scalar(1e-30).log() + top
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
            owners: self.owners.as_ref().map(|owners| match owners.dims()[0] {
                1 => owners.clone(),
                _ => owners.clone().narrow(0, start, length),
            }),
            children: self.children,
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
            owners: self.owners.as_ref().map(|owners| match owners.dims()[0] {
                1 => owners.clone(),
                _ => Tensor::cat(vec![owners.clone(); 2], 0),
            }),
            children: self.children,
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
                let rest: Vec<&[u16]> =
                    items.iter().map(|&item| &identifiers.row(item as usize)[level..]).collect();
                GuideLevel::new(level, &mut nodes, &rest, trie, geometry, device)
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
    /// Gathers what scores the children of `nodes`, and moves those on to the first tokens of
    /// `rest`, the targets' tokens from here on.
    fn new(
        level: usize,
        nodes: &mut [Node],
        rest: &[&[u16]],
        trie: &Trie,
        geometry: &Geometry,
        device: &B::Device,
    ) -> Option<Self> {
        let (rows, dim) = (nodes.len(), geometry.dim());
        let size = trie.vocabulary().size(level);
        let shared = level == 0;
        let scored: Vec<Scored> = nodes
            .iter_mut()
            .zip(rest)
            .map(|(node, rest)| Scored::new(level, node, rest, trie, geometry))
            .collect();
        let children = scored.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        // A single child has probability 1, whatever its logit.
        if children < 2 {
            return None;
        }
        let at_level = level + usize::from(geometry.looks_ahead(level));
        let most = scored.iter().map(|row| row.nodes.len()).max().unwrap_or(0);
        let tables = if shared { 1 } else { rows };
        let mut means = vec![0f32; tables * most * dim];
        let mut log_count = vec![NONE; tables * most];
        let mut spread = vec![0f32; tables * most];
        let mut owners = vec![0i64; tables * most];
        let mut share = vec![0f32; rows * most];
        let mut slots = vec![0i64; rows * size];
        for (row, scored) in scored.iter().enumerate() {
            for (at, &token) in scored.tokens.iter().enumerate() {
                slots[row * size + usize::from(token)] = at as i64;
            }
            share[row * most + scored.target] = 1.0 / scored.count as f32;
            if shared && row > 0 {
                continue;
            }
            for (at, (node, &owner)) in scored.nodes.clone().zip(&scored.owners).enumerate() {
                let to = row * most + at;
                means[to * dim..(to + 1) * dim].copy_from_slice(geometry.mean(at_level, node));
                log_count[to] = geometry.log_count(at_level, node);
                spread[to] = geometry.spread(at_level, node);
                owners[to] = owner;
            }
        }
        let matrix = |values, shape: [usize; 2]| {
            Tensor::<B, 2>::from_data(TensorData::new(values, shape), device)
        };
        let numbers = |values, shape: [usize; 2]| {
            Tensor::<B, 2, Int>::from_data(TensorData::new(values, shape), device)
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
            covariance: matrix(geometry.covariance(at_level).to_vec(), [dim, dim]),
            owners: geometry.looks_ahead(level).then(|| numbers(owners, [tables, most])),
            children,
            share: matrix(share, [rows, most]),
            slots: numbers(slots, [rows, size]),
        })
    }
}

/// The nodes that score the children of one target's prefix.
struct Scored {
    /// Tokens of the children.
    tokens: Vec<u16>,
    /// The nodes, by their numbers at their level.
    nodes: Range<usize>,
    /// Which child every node is, or is below.
    owners: Vec<i64>,
    /// Which of the nodes is the target's.
    target: usize,
    /// How many candidates that has.
    count: usize,
}

impl Scored {
    /// Moves `node` on to the first token of `rest`.
    fn new(level: usize, node: &mut Node, rest: &[u16], trie: &Trie, geometry: &Geometry) -> Self {
        let children = geometry.children(*node);
        let tokens: Vec<u16> = trie.children(*node).map(|(token, _)| token).collect();
        let of = |node: Node, token: u16| {
            let mut children = trie.children(node).enumerate();
            let found = children.find(|(_, (other, _))| *other == token);
            let (at, (_, child)) = found.expect("targets are in the trie");
            (at, child)
        };
        let (own, next) = of(*node, rest[0]);
        *node = next;
        if !geometry.looks_ahead(level) {
            let owners = (0..tokens.len() as i64).collect();
            return Self { tokens, nodes: children, owners, target: own, count: next.count() };
        }
        let below = |child: usize| geometry.below(level, child);
        let nodes = below(children.start).start..below(children.end - 1).end;
        let owners = children
            .clone()
            .enumerate()
            .flat_map(|(at, child)| std::iter::repeat_n(at as i64, below(child).len()));
        let (step, last) = of(next, rest[1]);
        let target = below(children.start + own).start - nodes.start + step;
        Self { tokens, owners: owners.collect(), target, count: last.count(), nodes }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use burn::backend::{Autodiff, Flex};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        align::Guide, decode::Scorer, features::Features, identifier::Vocabulary, model::Scope,
    };

    const DIM: usize = 6;
    const ITEMS: usize = 40;

    struct Fixture {
        trie: Trie,
        codes: Codes,
        geometry: Geometry,
        queries: Vec<f32>,
    }

    fn fixture() -> Fixture {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let rows: Vec<[u16; 3]> = (0..ITEMS as u16)
            .map(|i| [rng.random_range(0..3), rng.random_range(0..4), i])
            .collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![4, 5, ITEMS]).unwrap()).unwrap();
        let mut unit = |count: usize| -> Vec<f32> {
            let mut rows: Vec<f32> = (0..count * DIM).map(|_| rng.random::<f32>() - 0.5).collect();
            rows.chunks_exact_mut(DIM).for_each(crate::align::normalise);
            rows
        };
        let vectors = Features::from_rows(unit(ITEMS), DIM).unwrap();
        let geometry = Geometry::new(vectors, &trie).unwrap();
        Fixture { trie, codes, geometry, queries: unit(8) }
    }

    fn head(scale: f32) -> AlignmentHead<Flex> {
        let config = AlignmentConfig::new(DIM).with_scales(vec![scale]);
        config.init(DIM, 9, 3, &mut WeightInit::new(1), &Default::default())
    }

    fn rows(values: &[f32]) -> Tensor<Flex, 2> {
        let shape = [values.len() / DIM, DIM];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Default::default())
    }

    /// Log-probabilities of targets from the tensors of the training are those of the search.
    #[test]
    fn training_and_search_see_the_same_geometry() {
        let Fixture { trie, codes, geometry, queries } = fixture();
        let head = head(7.0);
        let aligned = head.forward(rows(&queries).mul_scalar(3.0));
        let items = [0u32, 7, 39, 12, 7, 20, 3, 3];
        let device = Default::default();
        let batch = GuideBatch::new(&items, None, &codes, &trie, &geometry, &device);
        let nothing = |batch: usize| -> Vec<Tensor<Flex, 2>> {
            [4, 5, ITEMS].iter().map(|&size| Tensor::zeros([batch, size], &device)).collect()
        };
        let whole = head.guide(&aligned, &batch, None, nothing(8));
        let host: Vec<f32> = aligned.to_data().to_vec().unwrap();
        let scales: Vec<f32> = head.scales().to_data().to_vec().unwrap();
        let guide = Guide::new(&geometry, host, scales).unwrap();
        let scorer = Scorer::new(&trie, Scope::Legal).with_guide(Some(&guide));
        let halves = [batch.rows(0..4), batch.rows(4..8)];
        let twice = head.guide(
            &Tensor::cat(vec![aligned.clone(); 2], 0),
            &batch.doubled(),
            None,
            nothing(16),
        );
        let mut children = Vec::new();
        for (row, &item) in items.iter().enumerate() {
            let mut node = trie.root();
            for level in 0..3 {
                let values = |logits: &Tensor<Flex, 2>, row: usize| -> Vec<f32> {
                    logits.clone().narrow(0, row, 1).into_data().to_vec().unwrap()
                };
                let part = aligned.clone().narrow(0, row / 4 * 4, 4);
                let half = head.guide(&part, &halves[row / 4], None, nothing(4));
                let logits = values(&whole[level], row);
                assert_eq!(logits, values(&half[level], row % 4));
                assert_eq!(logits, values(&twice[level], row + 8));
                let zeros = vec![0.0; logits.len()];
                scorer.children(row, node, &zeros, &mut children);
                let total: f32 = children.iter().map(|c| logits[usize::from(c.0)].exp()).sum();
                for &(token, log_p, _) in &children {
                    let found = logits[usize::from(token)] - total.ln();
                    let found = if children.len() == 1 { 0.0 } else { found };
                    assert_abs_diff_eq!(found, log_p, epsilon = 2e-5);
                }
                node = trie.child(node, codes.row(item as usize)[level]).unwrap();
            }
        }
    }

    /// A held-out vector changes the target's nodes as if the item itself had moved.
    #[test]
    fn held_out_vectors_move_the_means_above_them() {
        let Fixture { trie, codes, geometry, queries } = fixture();
        let item = 7u32;
        let moved: Vec<f32> = queries[..DIM].to_vec();
        let held_out = HeldOut::new(DIM, moved.clone()).unwrap();
        let device = Default::default();
        let batch = GuideBatch::<Flex>::new(
            &[item],
            Some((&[0], &held_out)),
            &codes,
            &trie,
            &geometry,
            &device,
        );
        let mut values = geometry.vectors().as_slice().to_vec();
        values[item as usize * DIM..(item as usize + 1) * DIM].copy_from_slice(&moved);
        let there = Geometry::new(Features::from_rows(values, DIM).unwrap(), &trie).unwrap();
        let expected = GuideBatch::<Flex>::new(&[item], None, &codes, &trie, &there, &device);
        // With a small scale, spreads, which stay what they are, count for nothing.
        let head = head(1e-3);
        let aligned = head.forward(rows(&queries[DIM..2 * DIM]));
        let zeros = || [4, 5, ITEMS].map(|size| Tensor::zeros([1, size], &device)).to_vec();
        let logits = |batch: &GuideBatch<Flex>, level: usize, token: u16| -> f32 {
            let logits = head.guide(&aligned, batch, None, zeros());
            let values: Vec<f32> = logits[level].to_data().to_vec().unwrap();
            values[usize::from(token)]
        };
        for (level, &token) in codes.row(item as usize).iter().enumerate() {
            let change = logits(&expected, level, token) - logits(&batch, level, token);
            assert_abs_diff_eq!(change, 0.0, epsilon = 2e-6);
        }
        let own: Vec<f32> = batch.own.to_data().to_vec().unwrap();
        assert_eq!(own, moved);
    }

    #[test]
    fn the_contrast_knows_which_candidate_is_meant() {
        let Fixture { trie, codes, geometry, .. } = fixture();
        let items = [1u32, 2, 3, 1];
        let device = Default::default();
        let batch = GuideBatch::<Flex>::new(&items, None, &codes, &trie, &geometry, &device);
        let head = head(20.0);
        let loss = |turn: usize| -> f32 {
            let of = |at: usize| geometry.vectors().row(items[(at + turn) % 4] as usize);
            let values: Vec<f32> = (0..4).flat_map(|at| of(at).to_vec()).collect();
            head.contrast(&head.forward(rows(&values)), &batch).into_scalar()
        };
        assert!(loss(0) < 0.1 && loss(0) < loss(1) && loss(0) < loss(2), "{}", loss(0));
    }

    #[test]
    fn starts_as_the_identity_and_learns() {
        type A = Autodiff<Flex>;
        let Fixture { trie, codes, geometry, queries } = fixture();
        let device = Default::default();
        let config =
            AlignmentConfig { learn_scales: true, learn_map: true, ..AlignmentConfig::new(DIM) };
        let head: AlignmentHead<A> = config.init(DIM, 9, 3, &mut WeightInit::new(1), &device);
        let x = Tensor::<A, 2>::from_data(TensorData::new(queries.clone(), [8, DIM]), &device);
        let aligned = head.forward(x);
        let found: Vec<f32> = aligned.clone().into_data().to_vec().unwrap();
        for (a, b) in found.iter().zip(&queries) {
            assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
        let items = [0u32, 1, 2, 3, 4, 5, 6, 7];
        let batch = GuideBatch::<A>::new(&items, None, &codes, &trie, &geometry, &device);
        let zeros = [4, 5, ITEMS].map(|size| Tensor::<A, 2>::zeros([8, size], &device));
        let logits = head.guide(&aligned, &batch, None, zeros.to_vec());
        let grads = logits[0].clone().powi_scalar(2).sum().backward();
        let weight = head.projection.weight.val().grad(&grads).unwrap();
        let scale = head.log_scales.val().grad(&grads).unwrap();
        assert!(weight.abs().sum().into_scalar() > 1e-3);
        let scale: Vec<f32> = scale.into_data().to_vec().unwrap();
        assert!(scale[0].abs() > 1e-3 && scale[1] == 0.0, "{scale:?}");
        assert_eq!(head.num_params(), config.num_params(DIM, 9, 3));
    }
}
