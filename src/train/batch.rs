//! What the learner is given: the rows of a step, and queries to validate with.

use burn::tensor::backend::Backend;

use crate::{
    data::{QueryBatch, TargetBatch},
    nn::GuideBatch,
};

/// A device's rows of a step: queries with the identifiers they should give.
#[derive(Debug, Clone)]
pub struct TrainBatch<B: Backend> {
    /// Tokenised captions.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// Where those items lie, if that is known.
    pub guide: Option<GuideBatch<B>>,
    /// Seed of the dropout.
    pub seed: u64,
    /// Numbers of the training captions, one a row; `u32::MAX` where there is none.
    pub texts: Vec<u32>,
    /// Rows of the step on all devices together.
    pub of: usize,
    /// Number of the step, from 0.
    pub step: usize,
    /// Number of the device, from 0.
    pub rank: usize,
}

/// Validation queries with the items they should find.
#[derive(Debug, Clone)]
pub struct ValidBatch<B: Backend> {
    /// Tokenised queries.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// Where those items lie, if that is known.
    pub guide: Option<GuideBatch<B>>,
    /// The items they describe.
    pub items: Vec<u32>,
}

impl<B: Backend> TrainBatch<B> {
    /// A whole step of one device.
    pub fn new(queries: QueryBatch<B>, targets: TargetBatch<B>, seed: u64) -> Self {
        let [of, _] = queries.tokens.dims();
        Self {
            queries,
            targets,
            guide: None,
            seed,
            texts: vec![u32::MAX; of],
            of,
            step: 0,
            rank: 0,
        }
    }
}
