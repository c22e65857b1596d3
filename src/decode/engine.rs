//! Many queries through one network.

use std::sync::{Arc, OnceLock};

use burn::tensor::backend::Backend;
use rayon::prelude::*;

use super::{
    Answer, BeamConfig, Filter, Filters, SearchSpace, beam::Prepared, steps::host_decoder,
};
use crate::{
    data::QueryBatch,
    error::Result,
    model::{Cart, EncodedQueries},
    nn::{HostDecoder, on_host},
};

/// Queries encoded and decoded at once.
const BATCH: usize = 32;

/// A network made ready to answer many queries.
///
/// On backends whose tensors lie in the host's memory (`flex`, `ndarray`) it keeps a copy of the decoder's
/// weights in the order in which a search reads them, made at the first search; [`beam_search`](super::beam_search)
/// makes that copy each time.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{
///     decode::{BeamConfig, Engine}, identifier::{Codes, Vocabulary}, model::CartConfig, trie::Trie,
/// };
/// let codes = Codes::from_rows(2, &[[0, 1], [1, 0], [1, 2]])?;
/// let trie = Trie::build(&codes, &Vocabulary::new(vec![2, 3])?)?;
/// let model = CartConfig::new(50, trie.vocabulary().clone()).init::<Flex>(&Default::default())?;
/// let engine = Engine::new(model, Default::default());
/// let answers = engine.search(&[vec![7, 8], vec![9]], 0, &trie, &BeamConfig::default())?;
/// assert_eq!((answers.len(), answers[0].len()), (2, 3));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Engine<B: Backend> {
    model: Cart<B>,
    device: B::Device,
    host: OnceLock<Arc<HostDecoder>>,
}

impl<B: Backend> Engine<B> {
    /// An engine around a network on a device.
    pub fn new(model: Cart<B>, device: B::Device) -> Self {
        Self { model, device, host: OnceLock::new() }
    }

    /// The network.
    pub fn model(&self) -> &Cart<B> {
        &self.model
    }

    /// The device.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// Answers tokenised queries, in their order: queries of like length are encoded together, and every
    /// thread is given a batch until none is left.
    ///
    /// On `flex`, a query's answers are the same to the last bit whatever queries are asked beside it.
    ///
    /// # Shapes
    /// - `queries`: token rows of any lengths, padded with `padding` where they have to be
    /// - returns: per query `min(width, allowed)` answers, best first
    ///
    /// # Errors
    /// As [`beam_search`](super::beam_search); [`Error::Query`](crate::Error::Query) for a query without tokens.
    pub fn search<'a, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[R],
        padding: u32,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<Answer>>> {
        let space = space.into();
        space.filters.check(space.trie.len(), queries.len())?;
        let threads = rayon::current_num_threads();
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&query| queries[query].as_ref().len());
        let batch = |chunk: &[usize], threads: usize| -> Result<Vec<Vec<Answer>>> {
            let rows: Vec<&[u32]> = chunk.iter().map(|&query| queries[query].as_ref()).collect();
            let each: Vec<Option<&Filter>> =
                chunk.iter().map(|&query| space.filters.of(query)).collect();
            let space = space.with_filters(Filters::Each(&each));
            let encoded = self.encode(&rows, padding)?;
            let host = self.host_decoder();
            let prepared = Prepared::with_host(&self.model, host, &encoded, space, config)?;
            prepared.with_threads(threads).beam()
        };
        let found: Vec<Vec<Vec<Answer>>> = match self.host_decoder() {
            // A batch for every thread, where there are queries enough.
            Some(_) => {
                let size = queries.len().div_ceil(threads).clamp(1, BATCH);
                let own = (threads / order.len().div_ceil(size).max(1)).max(1);
                // Within rayon's pool: from outside of it, every product would wake a thread to wait for.
                rayon::scope(|_| {
                    order.par_chunks(size).map(|chunk| batch(chunk, own)).collect::<Result<_>>()
                })?
            }
            None => order.chunks(BATCH).map(|chunk| batch(chunk, threads)).collect::<Result<_>>()?,
        };
        let mut answers = vec![Vec::new(); queries.len()];
        for (&query, found) in order.iter().zip(found.into_iter().flatten()) {
            answers[query] = found;
        }
        Ok(answers)
    }

    /// Encodes queries as one batch.
    ///
    /// # Errors
    /// [`Error::Query`](crate::Error::Query) without queries, or for one without tokens.
    pub fn encode<R: AsRef<[u32]>>(&self, rows: &[R], padding: u32) -> Result<EncodedQueries<B>> {
        let batch = QueryBatch::new(rows, padding, &self.device)?;
        Ok(self.model.encode(batch.tokens, batch.padding))
    }

    fn host_decoder(&self) -> Option<Arc<HostDecoder>> {
        on_host::<B>(&self.device).then(|| {
            let made = || host_decoder(&self.model, &self.device).expect("on the host");
            self.host.get_or_init(made).clone()
        })
    }
}
