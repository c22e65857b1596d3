//! A network that answers queries.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use super::{
    BeamConfig, EncodedQueries, ExactLimits, ExactResult, Explanation, Filter, Filters, ScoredItem,
    SearchPrecision, SearchSpace, SearchTimes, Trace,
    beam::{Clock, Prepared},
    exact::exact,
    exhaustive::score_all,
    explain::explain,
    trace::trace,
};
use crate::{
    data::QueryBatch,
    error::{Error, Result},
    features::Features,
    index::TokenSpace,
    kernels::{bf16_products, on_cpu},
    model::Cart,
    nn::{CpuDecoder, QueryProjection},
};

/// Queries decoded at once.
const BATCH: usize = 32;

/// A network made ready to answer many queries.
///
/// [`Engine::search`] answers tokenised queries. [`Engine::encode`] encodes some of them once, for
/// any number of the other searches.
///
/// On backends whose tensors lie in main memory (`flex`, `ndarray`) it keeps a copy of the
/// decoder's weights in the order in which a search reads them, made at the first search.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{decode::BeamConfig, expert::{Engine, Codes, Trie},
///     identifier::LevelSizes, model::CartConfig};
/// let codes = Codes::from_rows(2, &[[0, 1], [1, 0], [1, 2]])?;
/// let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 3])?)?;
/// let model = CartConfig::new(50, trie.vocabulary().clone()).init::<Flex>(&Default::default())?;
/// let engine = Engine::new(model);
/// let found = engine.search(&[vec![7, 8], vec![9]], 0, &trie, &BeamConfig::default())?;
/// assert_eq!((found.len(), found[0].len()), (2, 3));
/// let encoded = engine.encode(&[[7, 8]], 0)?;
/// let all = engine.score_all(&encoded, &trie, &BeamConfig::default())?;
/// assert_eq!(all[0].item, found[0][0].item);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Engine<B: Backend> {
    model: Cart<B>,
    device: B::Device,
    /// Whether tensors lie in main memory.
    on_cpu: bool,
    cpu: OnceLock<Arc<CpuDecoder>>,
    precision: SearchPrecision,
    /// What makes the tokens of queries, where candidates have token states.
    token_space: Option<Arc<TokenSpace>>,
    ops: Ops<B>,
}

/// The parts of a search that compute with tensors, as pointers.
///
/// They are compiled for a backend where an engine is made. A program that is handed an engine only
/// links them.
#[derive(Debug, Clone)]
struct Ops<B: Backend> {
    search: SearchOp<B>,
    encode: EncodeOp<B>,
    encode_batch: fn(&Engine<B>, QueryBatch<B>) -> EncodedQueries<B>,
    encode_embeddings: EmbeddingsOp<B>,
    beam: BeamOp<B>,
    exact: fn(Prepared<'_, B>, ExactLimits) -> Result<ExactResult>,
    score_all: fn(Prepared<'_, B>) -> Result<Vec<ScoredItem>>,
    explain: fn(Prepared<'_, B>, u32) -> Result<Explanation>,
    trace: fn(Prepared<'_, B>, u32) -> Result<Trace>,
}

type EncodeOp<B> = fn(&Engine<B>, &[&[u32]], u32) -> Result<EncodedQueries<B>>;
type BeamOp<B> = fn(Prepared<'_, B>) -> Result<Vec<Vec<ScoredItem>>>;
type SearchOp<B> = fn(
    &Engine<B>,
    &[&[u32]],
    u32,
    SearchSpace<'_>,
    &BeamConfig,
) -> Result<(Vec<Vec<ScoredItem>>, SearchTimes)>;
type EmbeddingsOp<B> =
    fn(&Engine<B>, &Features, Option<&QueryProjection<B>>, Option<&Features>) -> EncodedQueries<B>;

impl<B: Backend> Ops<B> {
    fn new() -> Self {
        Self {
            search: Engine::search_rows,
            encode: Engine::encode_rows,
            encode_batch: Engine::encode_together,
            encode_embeddings: Engine::encode_vectors,
            beam: |prepared| prepared.beam(),
            exact: |prepared, limits| exact(&prepared, limits),
            score_all: |prepared| score_all(&prepared),
            explain: |prepared, item| explain(&prepared, item),
            trace: |prepared, item| trace(prepared, item),
        }
    }
}

impl<B: Backend> Engine<B> {
    /// An engine around a network, on its device.
    pub fn new(model: Cart<B>) -> Self {
        let device = model.device();
        let on_cpu = on_cpu::<B>(&device);
        let (cpu, precision, ops) = (OnceLock::new(), SearchPrecision::F32, Ops::new());
        Self { model, device, on_cpu, cpu, precision, token_space: None, ops }
    }

    /// Searches in another precision.
    ///
    /// # Errors
    /// [`Error::Config`] for bf16 on a backend whose tensors lie elsewhere than in main memory, or on
    /// a processor that does not multiply such numbers (it needs AVX-512 BF16).
    pub fn with_precision(self, precision: SearchPrecision) -> Result<Self> {
        if precision == SearchPrecision::Bf16 {
            let remedy = "search with f32";
            Error::config("precision of the search")
                .expected("f32, or a CPU backend for bf16")
                .found(format!("bf16 on {}", B::name(&self.device)))
                .fix_if(!self.on_cpu, remedy)?;
            Error::config("precision of the search")
                .expected("f32, or a processor with AVX-512 BF16 for bf16")
                .found("bf16 on a processor without it")
                .fix_if(!bf16_products(), remedy)?;
        }
        Ok(Self { precision, cpu: OnceLock::new(), ..self })
    }

    /// The same by the network's own modules, as on a device.
    #[cfg(test)]
    pub(super) fn by_modules(self) -> Self {
        Self { on_cpu: false, ..self }
    }

    /// Also prepares the tokens of queries for late interaction.
    pub(crate) fn with_token_space(self, token_space: Option<Arc<TokenSpace>>) -> Self {
        Self { token_space, ..self }
    }

    /// The precision that it searches in.
    pub fn precision(&self) -> SearchPrecision {
        self.precision
    }

    /// The network.
    pub fn model(&self) -> &Cart<B> {
        &self.model
    }

    /// The device.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// Finds candidates for tokenised queries, in their order: queries of like length are encoded
    /// together, and every thread is given a batch until none is left.
    ///
    /// The `width` best prefixes are kept at every level, down to whole identifiers. Every
    /// candidate found is one that the query's filter allows, all are distinct, and there are
    /// `min(width, allowed)` of them: a level is cut only if it has more than `width` prefixes,
    /// each of which leads to such a candidate. Ties go to the smaller identifier while searching
    /// and to the smaller item in the result.
    ///
    /// With [`Scope::Legal`](crate::model::Scope::Legal) a prefix with one candidate left is
    /// finished at once: all its remaining tokens are forced and have log-probability 0 exactly.
    /// With
    /// [`Scope::All`](crate::model::Scope::All) forced tokens cost probability and are scored by the
    /// decoder like any other.
    ///
    /// On `flex`, results are batch-invariant, bit for bit. Exceptions are text encoders of
    /// width up to 64 with feed-forward blocks above 512, because `gemm` splits their sums by the
    /// number of rows.
    ///
    /// # Shapes
    /// - `queries`: token rows of any lengths, padded with `padding` where they have to be
    /// - returns: per query `min(width, allowed)` candidates, best first
    ///
    /// # Errors
    /// As [`Engine::beam_search`], and as [`Engine::encode`].
    pub fn search<'a, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[R],
        padding: u32,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<ScoredItem>>> {
        self.search_timed(queries, padding, space, config).map(|(found, _)| found)
    }

    /// The same, with where the time went.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn search_timed<'a, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[R],
        padding: u32,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<(Vec<Vec<ScoredItem>>, SearchTimes)> {
        let rows: Vec<&[u32]> = queries.iter().map(AsRef::as_ref).collect();
        (self.ops.search)(self, &rows, padding, space.into(), config)
    }

    /// Encodes tokenised queries. On backends whose tensors lie in main memory those of one length
    /// are encoded together, so that nothing is padded and the result for a query does not depend
    /// on the others.
    ///
    /// # Errors
    /// [`Error::Query`] without queries, for one without tokens or with more than the text encoder takes, and
    /// for a token that it does not have.
    pub fn encode<R: AsRef<[u32]>>(&self, rows: &[R], padding: u32) -> Result<EncodedQueries<B>> {
        let rows: Vec<&[u32]> = rows.iter().map(AsRef::as_ref).collect();
        (self.ops.encode)(self, &rows, padding)
    }

    /// Encodes queries that are on the device already, as one batch.
    pub fn encode_batch(&self, batch: QueryBatch<B>) -> EncodedQueries<B> {
        (self.ops.encode_batch)(self, batch)
    }

    /// Encodes embeddings in place of texts: the decoder reads the words that a projection makes of
    /// them, or nothing without a projection.
    ///
    /// # Shapes
    /// - `rows`: `[queries, D]`, as the projection takes them
    /// - `vectors`: `[queries, dim]`, of length 1 in the space of the candidates, for a network with an
    ///   alignment
    pub fn encode_embeddings(
        &self,
        rows: &Features,
        projection: Option<&QueryProjection<B>>,
        vectors: Option<&Features>,
    ) -> EncodedQueries<B> {
        (self.ops.encode_embeddings)(self, rows, projection, vectors)
    }

    /// Finds candidates for encoded queries, as [`Engine::search`] does.
    ///
    /// # Errors
    /// [`Error::Query`] for filters of another trie, or of another number of queries;
    /// [`Error::Config`] for a width of zero, weights out of range, a rerank without an alignment, and a
    /// guided network that is searched over all tokens; [`Error::Model`] when the candidates'
    /// identifiers have other levels than the network, when logits are not finite, or the
    /// candidates have no vectors and the network needs them.
    pub fn beam_search<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<ScoredItem>>> {
        (self.ops.beam)(Prepared::new(&self.model, encoded, space.into(), config)?)
    }

    /// The best candidates under the model for one encoded query, and whether that is proven.
    ///
    /// The score of a prefix only falls as it grows, so a prefix that scores less than the last
    /// candidate at hand leads to none that is better. A first beam (`config.width`, at least
    /// `top`) gives such candidates. If it pruned a prefix that scores as much, the search runs
    /// once more, level by level, with every prefix that may still lead to a better candidate, at
    /// most `budget` at a level. (Best-first expansion would look at no more prefixes, but one at a
    /// time; levels keep the decoder's batches full.)
    ///
    /// A rerank and a late interaction add at most their weights to a score, so that prefixes
    /// within that of the last candidate are looked at: with large weights few results can be
    /// proven.
    ///
    /// # Errors
    /// [`Error::Query`] unless there is exactly one query, for a `top` of 0, and for a budget below `top`;
    /// otherwise as [`Engine::beam_search`].
    pub fn exact_search<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        limits: ExactLimits,
    ) -> Result<ExactResult> {
        let prepared = Prepared::new(&self.model, encoded, space.into(), config)?;
        (self.ops.exact)(prepared.single("exact search")?, limits)
    }

    /// Scores of all candidates for one encoded query, best first, by running the decoder over
    /// every identifier: what [`Engine::beam_search`] gives with a beam that holds them all; the
    /// width is not read. The cost grows with the collection: use it to measure the beam, or below
    /// a few thousand candidates.
    ///
    /// # Shapes
    /// - returns: `[allowed]`
    ///
    /// # Errors
    /// [`Error::Query`] unless there is exactly one query; otherwise as [`Engine::beam_search`].
    pub fn score_all<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<ScoredItem>> {
        let prepared = Prepared::new(&self.model, encoded, space.into(), config)?;
        (self.ops.score_all)(prepared.single("exhaustive scoring")?)
    }

    /// Scores one candidate for one encoded query, with the other choices at every level, best
    /// first.
    ///
    /// # Errors
    /// [`Error::Query`] unless there is exactly one query; [`Error::Identifier`] when there is no such item;
    /// otherwise as [`Engine::beam_search`].
    pub fn explain<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        item: u32,
    ) -> Result<Explanation> {
        let prepared = Prepared::new(&self.model, encoded, space.into(), config)?;
        (self.ops.explain)(prepared.single("explanation")?, item)
    }

    /// Follows a candidate through a beam search for one encoded query: the score and the rank of
    /// its identifier's prefixes at every level, and where the beam prunes them (ours).
    ///
    /// What is found is that of [`Engine::beam_search`]. A rerank comes after the beam: it changes
    /// the final ranks, and not where a candidate is lost.
    ///
    /// # Errors
    /// [`Error::Query`] unless there is exactly one query; [`Error::Identifier`] when there is no
    /// such item; otherwise as [`Engine::beam_search`].
    ///
    /// # Example
    /// ```
    /// use burn::backend::Flex;
    /// use cart_retrieval::{decode::BeamConfig, expert::{Engine, Codes, Trie},
    ///     identifier::LevelSizes, model::CartConfig};
    /// let codes = Codes::from_rows(2, &[[0, 1], [1, 0], [1, 2]])?;
    /// let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 3])?)?;
    /// let model = CartConfig::new(50, trie.vocabulary().clone()).init::<Flex>(&Default::default())?;
    /// let engine = Engine::new(model);
    /// let encoded = engine.encode(&[[7, 8]], 0)?;
    /// let narrow = BeamConfig { width: 1, ..BeamConfig::default() };
    /// let traces = (0..3).map(|item| engine.trace(&encoded, &trie, &narrow, item));
    /// let traces = traces.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(traces.iter().filter(|trace| trace.lost_at.is_some()).count(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn trace<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        item: u32,
    ) -> Result<Trace> {
        let prepared = Prepared::new(&self.model, encoded, space.into(), config)?;
        (self.ops.trace)(prepared.single("trace")?, item)
    }

    fn search_rows(
        &self,
        queries: &[&[u32]],
        padding: u32,
        space: SearchSpace<'_>,
        config: &BeamConfig,
    ) -> Result<(Vec<Vec<ScoredItem>>, SearchTimes)> {
        let clock = Clock::default();
        space.filters.check(space.trie.len(), queries.len())?;
        let threads = rayon::current_num_threads();
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&query| queries[query].len());
        // On the CPU a batch for every thread, where there are queries enough.
        let (size, own) = if self.on_cpu {
            let size = queries.len().div_ceil(threads).clamp(1, BATCH);
            (size, (threads / order.len().div_ceil(size).max(1)).max(1))
        } else {
            (BATCH, threads)
        };
        let batch = |chunk: &[usize]| {
            let rows: Vec<&[u32]> = chunk.iter().map(|&query| queries[query]).collect();
            let each: Vec<Option<&Filter>> =
                chunk.iter().map(|&query| space.filters.of(query)).collect();
            let space = space.with_filters(Filters::Each(&each));
            let started = Instant::now();
            let encoded = self.encode_rows(&rows, padding)?;
            clock.add(Clock::ENCODING, started.elapsed());
            let mut prepared = Prepared::new(&self.model, &encoded, space, config)?;
            (prepared.threads, prepared.clock) = (own, clock.clone());
            prepared.beam()
        };
        let found: Vec<Vec<Vec<ScoredItem>>> = if self.on_cpu {
            // Within rayon's pool: from outside of it, every product would wake a thread to wait
            // for.
            rayon::scope(|_| order.par_chunks(size).map(batch).collect::<Result<_>>())?
        } else {
            order.chunks(size).map(batch).collect::<Result<_>>()?
        };
        let mut all = vec![Vec::new(); queries.len()];
        for (&query, found) in order.iter().zip(found.into_iter().flatten()) {
            all[query] = found;
        }
        Ok((all, clock.times()))
    }

    fn encode_rows(&self, rows: &[&[u32]], padding: u32) -> Result<EncodedQueries<B>> {
        let encoder = self.model.encoder();
        let limit = encoder.max_tokens();
        for row in rows {
            let wrong = row.iter().find(|&&token| token as usize >= encoder.vocabulary());
            if limit.is_some_and(|limit| row.len() > limit) || wrong.is_some() {
                let most = limit.map_or("tokens".into(), |limit| format!("at most {limit} tokens"));
                return Err(Error::query("tokens of a query")
                    .expected(format!("{most}, each below {}", encoder.vocabulary()))
                    .found(match wrong {
                        Some(token) => format!("token {token}"),
                        None => format!("{} tokens", row.len()),
                    })
                    .fix("use the tokenizer of the network, which cuts longer texts"));
            }
        }
        let batch = |rows: &[&[u32]]| QueryBatch::new(rows, padding, &self.device);
        let decoder = self.cpu_decoder().filter(|_| !rows.is_empty());
        let Some(decoder) = decoder else {
            return Ok(self.encode_together(batch(rows)?));
        };
        // In a batch of one length nothing is padded, so no query depends on the others.
        let mut all = EncodedQueries::none(decoder);
        for run in rows.chunk_by(|a, b| a.len() == b.len()) {
            // A product with one row is computed in another way than one with several: that of one
            // token, or the map of a query's vector.
            let mapped = self.model.alignment().is_some();
            let twice = run.len() == 1 && (mapped || run[0].len() == 1);
            let pair = [run[0], run[0]];
            let batch = batch(if twice { &pair } else { run })?;
            all.append(self.encode_together(batch), run.len());
        }
        Ok(all)
    }

    fn encode_together(&self, batch: QueryBatch<B>) -> EncodedQueries<B> {
        let QueryBatch { tokens, padding } = batch;
        let output = self.model.encode_layers(tokens.clone(), padding.clone());
        let vectors = self.model.aligned(&output, tokens.clone(), padding);
        let encoded = EncodedQueries::new(&self.model, &output, vectors, self.cpu_decoder());
        match &self.token_space {
            Some(space) => encoded.with_tokens(space, tokens, &output),
            None => encoded,
        }
    }

    fn encode_vectors(
        &self,
        rows: &Features,
        projection: Option<&QueryProjection<B>>,
        vectors: Option<&Features>,
    ) -> EncodedQueries<B> {
        let tensor = |rows: &Features| {
            let data = TensorData::new(rows.as_slice().to_vec(), [rows.len(), rows.dim()]);
            Tensor::<B, 2>::from_data(data, &self.device)
        };
        let encoder = self.model.encoder();
        let words = match projection {
            Some(projection) => projection.forward(tensor(rows)),
            None => Tensor::zeros([rows.len(), 1, encoder.d_model()], &self.device),
        };
        let output = encoder.forward_words(words);
        let vectors = vectors.map(tensor);
        EncodedQueries::new(&self.model, &output, vectors, self.cpu_decoder())
    }

    fn cpu_decoder(&self) -> Option<Arc<CpuDecoder>> {
        self.on_cpu.then(|| {
            let half = self.precision == SearchPrecision::Bf16;
            let made = || Arc::new(CpuDecoder::new(self.model.decoder(), half));
            self.cpu.get_or_init(made).clone()
        })
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
