//! Scores of the children of a batch's prefixes at one level.

use std::ops::Range;

use burn::tensor::{BasicOps, IndexingUpdateOp, Int, Tensor, TensorData, backend::Backend};

use crate::{
    index::PrefixStats,
    trie::{Node, Trie},
};

/// ln of the number of candidates where there is no node.
const NONE: f32 = -1e4;

/// What scores the children of every target's prefix at one level: those children, or where the
/// geometry looks ahead, theirs. Packed to the most there are.
#[derive(Debug, Clone)]
pub(super) struct GuideLevel<B: Backend> {
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

impl<B: Backend> GuideLevel<B> {
    /// Scores of all tokens, `[batch, size]`; tokens that are no children get some number.
    pub(super) fn scores(
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

    /// The level of some rows of the batch, or of the batch twice.
    pub(super) fn taken(&self, taken: Taken) -> Self {
        Self {
            means: match &self.means {
                Means::Shared(means) => Means::Shared(means.clone()),
                Means::Own(means) => Means::Own(taken.of(means)),
            },
            log_count: taken.of_shared(&self.log_count),
            spread: taken.of_shared(&self.spread),
            covariance: self.covariance.clone(),
            owners: self.owners.as_ref().map(|owners| taken.of_shared(owners)),
            children: self.children,
            share: taken.of(&self.share),
            slots: taken.of(&self.slots),
        }
    }
}

/// Which rows of a batch to take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    /// As many rows from the first of them on.
    Rows(usize, usize),
    /// All rows, twice.
    Twice,
}

impl Taken {
    /// From a tensor with a row for each of the batch.
    pub(super) fn of<B: Backend, const D: usize, K: BasicOps<B>>(
        self,
        tensor: &Tensor<B, D, K>,
    ) -> Tensor<B, D, K> {
        match self {
            Self::Rows(start, length) => tensor.clone().narrow(0, start, length),
            Self::Twice => Tensor::cat(vec![tensor.clone(); 2], 0),
        }
    }

    /// From a tensor that may have one row for all of the batch.
    fn of_shared<B: Backend, K: BasicOps<B>>(self, tensor: &Tensor<B, 2, K>) -> Tensor<B, 2, K> {
        if tensor.dims()[0] == 1 { tensor.clone() } else { self.of(tensor) }
    }
}

impl<B: Backend> GuideLevel<B> {
    /// Gathers what scores the children of `nodes`, and moves those on to the first tokens of
    /// `rest`, the targets' tokens from here on.
    pub(super) fn new(
        level: usize,
        nodes: &mut [Node],
        rest: &[&[u16]],
        trie: &Trie,
        geometry: &PrefixStats,
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
            means: if shared {
                Means::Shared(matrix(means, [most, dim]))
            } else {
                Means::Own(Tensor::from_data(TensorData::new(means, [rows, most, dim]), device))
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
    fn new(
        level: usize,
        node: &mut Node,
        rest: &[u16],
        trie: &Trie,
        geometry: &PrefixStats,
    ) -> Self {
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
