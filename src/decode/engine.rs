//! Many queries through one network.

use std::{
    borrow::Cow,
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use burn::tensor::backend::Backend;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Answer, BeamConfig, Exact, Explanation, SearchSpace, SearchTimes, Trace,
    beam::Prepared,
    clock::Clock,
    exact::exact,
    exhaustive::score_all,
    explain::explain,
    queries::{Place, Queries},
    trace::trace,
};
use crate::{
    data::QueryBatch,
    error::{Error, Result},
    kernels::bf16_products,
    kernels::on_host,
    model::{Aligned, Cart, EncodedQueries},
    nn::HostDecoder,
    trie::{Filter, Filters},
};

/// Queries decoded at once.
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
    precision: SearchPrecision,
    ops: Ops<B>,
}

/// The parts of a search that compute with tensors, as pointers.
///
/// They are compiled for a backend where an engine is made. A program that is handed an engine only
/// links them.
#[derive(Debug, Clone)]
struct Ops<B: Backend> {
    search: SearchOp<B>,
    search_encoded: EncodedOp<B>,
    exact: ExactOp<B>,
    encode: EncodeOp<B>,
    score_all: ScoreOp<B>,
    explain: ExplainOp<B>,
    trace: TraceOp<B>,
}

type Answers = Vec<Vec<Answer>>;
type SearchOp<B> =
    fn(&Engine<B>, &[&[u32]], u32, SearchSpace<'_>, &BeamConfig) -> Result<(Answers, SearchTimes)>;
type EncodedOp<B> =
    fn(&Engine<B>, &EncodedQueries<B>, SearchSpace<'_>, &BeamConfig) -> Result<Answers>;
type ExactOp<B> =
    fn(&Engine<B>, &[u32], u32, SearchSpace<'_>, &BeamConfig, usize, usize) -> Result<Exact>;
type EncodeOp<B> = fn(&Engine<B>, &[&[u32]], u32) -> Result<EncodedQueries<B>>;
type ScoreOp<B> =
    fn(&Engine<B>, &EncodedQueries<B>, SearchSpace<'_>, &BeamConfig) -> Result<Vec<Answer>>;
type ExplainOp<B> = fn(
    &Engine<B>,
    &EncodedQueries<B>,
    SearchSpace<'_>,
    &BeamConfig,
    u32,
    usize,
) -> Result<Explanation>;
type TraceOp<B> =
    fn(&Engine<B>, &EncodedQueries<B>, SearchSpace<'_>, &BeamConfig, u32) -> Result<Trace>;

impl<B: Backend> Ops<B> {
    fn new() -> Self {
        Self {
            search: Engine::search_rows,
            search_encoded: Engine::search_queries,
            exact: Engine::search_exactly,
            encode: Engine::encode_rows,
            score_all: |engine, encoded, space, config| {
                score_all(&engine.model, encoded, space, config)
            },
            explain: |engine, encoded, space, config, item, runners_up| {
                explain(&engine.model, encoded, space, config, item, runners_up)
            },
            trace: |engine, encoded, space, config, item| {
                trace(&engine.model, encoded, space, config, item)
            },
        }
    }
}

/// Precision of the decoder's products in a search; `f32` or `bf16` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchPrecision {
    /// Numbers of 32 bits.
    #[default]
    F32,
    /// Weights and what they multiply rounded to bf16, sums of 32 bits. 1.5 to 1.7 times as fast where the
    /// processor multiplies such numbers itself; the order of near-ties may change (docs/performance.md).
    Bf16,
}

impl FromStr for SearchPrecision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::config("precision of the search")
                .expected("f32 or bf16")
                .found(format!("{text:?}"))
                .fix("use one of those")),
        }
    }
}

impl fmt::Display for SearchPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl<B: Backend> Engine<B> {
    /// An engine around a network on a device.
    pub fn new(model: Cart<B>, device: B::Device) -> Self {
        let precision = SearchPrecision::F32;
        Self { model, device, host: OnceLock::new(), precision, ops: Ops::new() }
    }

    /// Searches in another precision.
    ///
    /// # Errors
    /// [`Error::Config`] for bf16 on a backend outside of the host's memory, or on a processor that does not
    /// multiply such numbers (it needs AVX-512 BF16).
    pub fn with_precision(self, precision: SearchPrecision) -> Result<Self> {
        if precision == SearchPrecision::Bf16 {
            let problem = |expected: &str, found: String| {
                let remedy = "search with f32";
                Err(Error::config("precision of the search")
                    .expected(expected)
                    .found(found)
                    .fix(remedy))
            };
            if !on_host::<B>(&self.device) {
                let expected = "f32, or a CPU backend for bf16";
                return problem(expected, format!("bf16 on {}", B::name(&self.device)));
            }
            if !bf16_products() {
                let expected = "f32, or a processor with AVX-512 BF16 for bf16";
                return problem(expected, "bf16 on a processor without it".into());
            }
        }
        Ok(Self { precision, host: OnceLock::new(), ..self })
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

    /// Answers tokenised queries, in their order: queries of like length are encoded together, and every
    /// thread is given a batch until none is left.
    ///
    /// On `flex`, answers are batch-invariant, bit for bit. Exceptions are text encoders of
    /// width up to 64 with feed-forward blocks above 512, because `gemm` splits their sums by the
    /// number of rows.
    ///
    /// # Shapes
    /// - `queries`: token rows of any lengths, padded with `padding` where they have to be
    /// - returns: per query `min(width, allowed)` answers, best first
    ///
    /// # Errors
    /// As [`beam_search`](super::beam_search), and as [`Engine::encode`].
    pub fn search<'a, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[R],
        padding: u32,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<Answer>>> {
        self.search_timed(queries, padding, space, config).map(|(answers, _)| answers)
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
    ) -> Result<(Vec<Vec<Answer>>, SearchTimes)> {
        let rows: Vec<&[u32]> = queries.iter().map(AsRef::as_ref).collect();
        (self.ops.search)(self, &rows, padding, space.into(), config)
    }

    fn search_rows(
        &self,
        queries: &[&[u32]],
        padding: u32,
        space: SearchSpace<'_>,
        config: &BeamConfig,
    ) -> Result<(Vec<Vec<Answer>>, SearchTimes)> {
        let clock = Clock::default();
        space.filters.check(space.trie.len(), queries.len())?;
        let threads = rayon::current_num_threads();
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&query| queries[query].len());
        let rows = |chunk: &[usize]| -> Vec<&[u32]> {
            chunk.iter().map(|&query| queries[query]).collect()
        };
        let each = |chunk: &[usize]| -> Vec<Option<&Filter>> {
            chunk.iter().map(|&query| space.filters.of(query)).collect()
        };
        let host = self.host_decoder();
        // On the host a batch for every thread, where there are queries enough.
        let size = match host {
            Some(_) => queries.len().div_ceil(threads).clamp(1, BATCH),
            None => BATCH,
        };
        let own = match host {
            Some(_) => (threads / order.len().div_ceil(size).max(1)).max(1),
            None => threads,
        };
        let batch = |chunk: &[usize]| {
            let each = each(chunk);
            let space = space.with_filters(Filters::Each(&each));
            let started = Instant::now();
            let queries = self.queries(&rows(chunk), padding)?;
            clock.encoded(started.elapsed());
            let prepared = Prepared::of(&self.model, queries, space, config)?;
            prepared.with_threads(own).with_clock(clock.clone()).beam()
        };
        let found: Vec<Vec<Vec<Answer>>> = match host {
            // Within rayon's pool: from outside of it, every product would wake a thread to wait for.
            Some(_) => rayon::scope(|_| order.par_chunks(size).map(batch).collect::<Result<_>>())?,
            None => order.chunks(size).map(batch).collect::<Result<_>>()?,
        };
        let mut answers = vec![Vec::new(); queries.len()];
        for (&query, found) in order.iter().zip(found.into_iter().flatten()) {
            answers[query] = found;
        }
        Ok((answers, clock.times()))
    }

    /// Answers queries that are encoded already.
    ///
    /// # Errors
    /// As [`beam_search`](super::beam_search).
    pub fn search_encoded<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<Answer>>> {
        (self.ops.search_encoded)(self, encoded, space.into(), config)
    }

    fn search_queries(
        &self,
        encoded: &EncodedQueries<B>,
        space: SearchSpace<'_>,
        config: &BeamConfig,
    ) -> Result<Vec<Vec<Answer>>> {
        let queries = Queries::new(Cow::Borrowed(encoded), self.host_decoder());
        Prepared::of(&self.model, queries, space, config)?.beam()
    }

    /// Scores of all candidates for one query ([`score_all`](super::score_all)).
    ///
    /// # Errors
    /// As [`score_all`](super::score_all).
    pub fn score_all<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
    ) -> Result<Vec<Answer>> {
        (self.ops.score_all)(self, encoded, space.into(), config)
    }

    /// Why a candidate scores what it scores ([`explain`](super::explain)).
    ///
    /// # Errors
    /// As [`explain`](super::explain).
    pub fn explain<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        item: u32,
        runners_up: usize,
    ) -> Result<Explanation> {
        (self.ops.explain)(self, encoded, space.into(), config, item, runners_up)
    }

    /// The way of a candidate through a beam search ([`trace`](super::trace)).
    ///
    /// # Errors
    /// As [`trace`](super::trace).
    pub fn trace<'a>(
        &self,
        encoded: &EncodedQueries<B>,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        item: u32,
    ) -> Result<Trace> {
        (self.ops.trace)(self, encoded, space.into(), config, item)
    }

    /// The best candidates for one tokenised query, with whether that is proven
    /// ([`exact_search`](super::exact_search)).
    ///
    /// # Errors
    /// As [`exact_search`](super::exact_search).
    pub fn exact_search<'a>(
        &self,
        query: &[u32],
        padding: u32,
        space: impl Into<SearchSpace<'a>>,
        config: &BeamConfig,
        top: usize,
        budget: usize,
    ) -> Result<Exact> {
        (self.ops.exact)(self, query, padding, space.into(), config, top, budget)
    }

    fn search_exactly(
        &self,
        query: &[u32],
        padding: u32,
        space: SearchSpace<'_>,
        config: &BeamConfig,
        top: usize,
        budget: usize,
    ) -> Result<Exact> {
        let queries = self.queries(&[query], padding)?;
        exact(&Prepared::of(&self.model, queries, space, config)?, config, top, budget)
    }

    /// Tokenised queries ready to be decoded.
    fn queries(&self, rows: &[&[u32]], padding: u32) -> Result<Queries<'_, B>> {
        match self.host_decoder() {
            Some(decoder) => self.encode_on_host(rows, decoder),
            None => Ok(Queries::new(Cow::Owned(self.encode_rows(rows, padding)?), None)),
        }
    }

    /// Encodes queries as one batch.
    ///
    /// # Errors
    /// [`Error::Query`] without queries, for one without tokens or with more than the text encoder takes, and
    /// for a token that it does not have.
    pub fn encode<R: AsRef<[u32]>>(&self, rows: &[R], padding: u32) -> Result<EncodedQueries<B>> {
        let rows: Vec<&[u32]> = rows.iter().map(AsRef::as_ref).collect();
        (self.ops.encode)(self, &rows, padding)
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
        let batch = QueryBatch::new(rows, padding, &self.device)?;
        Ok(self.model.encode(batch.tokens, batch.padding))
    }

    /// Queries in the order of their lengths, encoded without any padding: in a batch of one length, what
    /// becomes of a query does not depend on the others.
    fn encode_on_host(&self, rows: &[&[u32]], decoder: Arc<HostDecoder>) -> Result<Queries<'_, B>> {
        let mut memories = Vec::with_capacity(rows.len());
        let mut aligned: Option<Aligned> = None;
        for run in rows.chunk_by(|a, b| a.len() == b.len()) {
            // A product with one row is computed in another way than one with several: that of one
            // token, or the map of a query's vector.
            let mapped = self.model.alignment().is_some();
            let twice = run.len() == 1 && (mapped || run[0].len() == 1);
            let encoded = match twice {
                true => self.encode_rows(&[run[0], run[0]], 0)?,
                false => self.encode_rows(run, 0)?,
            };
            memories.extend(decoder.memories(encoded.output()).into_iter().take(run.len()));
            if let Some(Aligned { mut queries, scales }) = encoded.host_aligned() {
                queries.truncate(queries.len() / encoded.len() * run.len());
                let all = aligned.get_or_insert_with(|| Aligned { queries: Vec::new(), scales });
                all.queries.append(&mut queries);
            }
        }
        Ok(Queries { place: Place::Host { decoder, memories }, aligned })
    }

    fn host_decoder(&self) -> Option<Arc<HostDecoder>> {
        on_host::<B>(&self.device).then(|| {
            let half = self.precision == SearchPrecision::Bf16;
            let made = || Arc::new(HostDecoder::new(self.model.decoder(), half));
            self.host.get_or_init(made).clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::beam_search,
        identifier::{Codes, Vocabulary},
        model::CartConfig,
        trie::Trie,
    };

    fn trie(n: usize) -> Trie {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let rows: std::collections::BTreeSet<[u16; 4]> =
            (0..n).map(|_| std::array::from_fn(|_| rng.random_range(0..12))).collect();
        let codes = Codes::from_rows(4, &rows.into_iter().collect::<Vec<_>>()).unwrap();
        Trie::build(&codes, &Vocabulary::new(vec![12; 4]).unwrap()).unwrap()
    }

    fn queries(count: usize, longest: usize, seed: u64) -> Vec<Vec<u32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|_| {
                let length = rng.random_range(1..=longest);
                (0..length).map(|_| rng.random_range(1..50)).collect()
            })
            .collect()
    }

    /// With candidates' vectors, whose likeness to the query is added to the scores.
    fn aligned(trie: &Trie) -> (Engine<Flex>, crate::align::Geometry) {
        use crate::{geometry::Geometry, nn::AlignmentConfig};
        let config = CartConfig::new(50, trie.vocabulary().clone());
        let config = config.with_width(96, 192, 2).with_layers(3, 2).with_max_tokens(40);
        let config = config.with_alignment(AlignmentConfig::new(5));
        let vectors = (0..5 * trie.len()).map(|at| ((at * 7919 % 101) as f32).sin()).collect();
        let vectors = crate::features::Features::from_rows(vectors, 5).unwrap();
        let model = config.init(&Default::default()).unwrap();
        (Engine::new(model, Default::default()), Geometry::new(vectors, trie).unwrap())
    }

    #[test]
    fn so_does_a_query_whose_vector_counts() {
        let trie = trie(200);
        let (engine, geometry) = aligned(&trie);
        let space = SearchSpace::from(&trie).with_geometry(Some(&geometry));
        let config = BeamConfig { width: 6, rerank: 5.0, ..BeamConfig::default() };
        let queries = queries(40, 20, 8);
        let together = engine.search(&queries, 0, space, &config).unwrap();
        for (query, expected) in queries.iter().zip(&together) {
            let alone = engine.search(std::slice::from_ref(query), 0, space, &config).unwrap();
            assert_eq!(&alone[0], expected);
        }
    }

    fn engine(trie: &Trie, width: usize) -> Engine<Flex> {
        let config = CartConfig::new(50, trie.vocabulary().clone());
        let config = config.with_width(width, 4 * width, 2).with_layers(3, 2).with_max_tokens(40);
        Engine::new(config.init(&Default::default()).unwrap(), Default::default())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn a_query_gets_the_same_bits_in_any_company(
            count in 1usize..70, longest in 1usize..40, seed in 0u64..99, wide in any::<bool>(),
        ) {
            let trie = trie(500);
            let engine = engine(&trie, if wide { 96 } else { 24 });
            let queries = queries(count, longest, seed);
            let config = BeamConfig { width: 6, ..BeamConfig::default() };
            let together = engine.search(&queries, 0, &trie, &config).unwrap();
            prop_assert_eq!(together.len(), queries.len());
            for (query, expected) in queries.iter().zip(&together).step_by(1 + count / 8) {
                let alone = engine.search(std::slice::from_ref(query), 0, &trie, &config).unwrap();
                prop_assert_eq!(&alone[0], expected);
            }
        }
    }

    #[test]
    fn what_the_network_cannot_read_is_refused() {
        let trie = trie(300);
        let engine = engine(&trie, 24);
        let config = BeamConfig::default();
        let refused = |query: Vec<u32>, words: &str| {
            let error = engine.search(&[vec![1], query], 0, &trie, &config).unwrap_err();
            assert!(matches!(error, Error::Query { .. }) && error.to_string().contains(words));
        };
        refused(vec![1; 41], "at most 40 tokens");
        refused(vec![3, 50], "token 50");
        // Another number of unique tokens than the network has.
        let mut sizes = trie.vocabulary().sizes().to_vec();
        sizes[3] += 1;
        let wider = trie.clone().within(&Vocabulary::new(sizes).unwrap()).unwrap();
        let error = engine.search(&[vec![1]], 0, &wider, &config).unwrap_err();
        assert!(error.to_string().contains("levels of the candidates"), "{error}");
    }

    /// Near the scores of 32 bits, where the processor can.
    #[test]
    fn half_precision_stays_near() {
        let trie = trie(400);
        let full = engine(&trie, 96);
        let half = match full.clone().with_precision(SearchPrecision::Bf16) {
            Ok(half) => half,
            Err(error) => {
                assert!(!bf16_products(), "{error}");
                assert!(error.to_string().contains("AVX-512 BF16"), "{error}");
                return;
            }
        };
        let queries = queries(40, 20, 5);
        // All of them, so that no candidate is missing from either.
        let config = BeamConfig { width: 400, ..BeamConfig::default() };
        let run = |engine: &Engine<Flex>| engine.search(&queries, 0, &trie, &config).unwrap();
        let (full, half) = (run(&full), run(&half));
        assert_ne!(full, half);
        for (full, half) in full.iter().zip(&half) {
            let half: std::collections::HashMap<u32, f32> =
                half.iter().map(|answer| (answer.item, answer.score)).collect();
            for answer in full {
                assert!((half[&answer.item] - answer.score).abs() < 0.15, "{answer:?}");
            }
        }
    }

    /// Twin: the search of one batch. Every query keeps its own filter through batches and parts.
    #[test]
    fn answers_and_filters_belong_to_their_queries() {
        let trie = trie(300);
        let engine = engine(&trie, 24);
        let queries = queries(75, 9, 1);
        let odd = Filter::by_item(&trie, |item| item % 2 == 1);
        let each: Vec<Option<&Filter>> =
            (0..queries.len()).map(|query| (query % 3 == 0).then_some(&odd)).collect();
        let space = SearchSpace::from(&trie).with_filters(Filters::Each(&each));
        let config = BeamConfig { width: 5, ..BeamConfig::default() };
        let found = engine.search(&queries, 0, space, &config).unwrap();
        let batch = QueryBatch::new(&queries, 0, &Default::default()).unwrap();
        let encoded = engine.model().encode(batch.tokens, batch.padding);
        let expected = beam_search(engine.model(), &encoded, space, &config).unwrap();
        for (query, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), 5);
            assert!(query % 3 != 0 || found.iter().all(|answer| answer.item % 2 == 1));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found.score - expected.score).abs() < 1e-4);
            }
        }
        assert!(engine.search::<Vec<u32>>(&[], 0, &trie, &config).unwrap().is_empty());
        let blank = engine.search(&[vec![3], vec![]], 0, &trie, &config);
        assert!(matches!(blank, Err(Error::Query { .. })));
        let few = SearchSpace::from(&trie).with_filters(Filters::Each(&each[..9]));
        assert!(engine.search(&queries, 0, few, &config).is_err());
    }
}
