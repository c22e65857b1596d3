//! The retriever: network, tokenizer, quantizer and candidates.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::live::{ChangeStats, DriftReport, DriftThresholds};
use crate::{
    align::{TextEmbedder, TextSpaceMap, TextVectors, TokenReducer},
    data::{ItemCaption, TextTokenizer},
    decode::{BeamConfig, Engine, Filter, SearchPrecision},
    error::{Error, Result},
    eval::{Metrics, TruncatedTies, evaluate},
    features::advice,
    index::{CandidateIndex, ItemTokens, TokenSpace, TokenStates},
    metadata::ItemMetadata,
    model::{Cart, CartConfig},
    nn::QueryProjection,
    quantizer::{CoarseToFine, Quantizer},
};

/// Answers text queries with candidates.
///
/// It is immutable, any number of threads may search it at once, and clones share all data.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_retrieval::retrieve::Retriever;
/// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
/// for hit in retriever.query("two dogs play in the snow").top(10).run()? {
///     println!("{}  {:.3}  {}", hit.id, hit.score, hit.identifier);
/// }
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Retriever<B: Backend> {
    pub(super) engine: Engine<B>,
    pub(super) config: CartConfig,
    pub(super) tokenizer: Arc<TextTokenizer>,
    pub(super) quantizer: Arc<CoarseToFine<B>>,
    pub(super) index: Arc<CandidateIndex>,
    pub(super) beam: BeamConfig,
    pub(super) space: Option<Arc<TextSpaceMap>>,
    pub(super) projection: Option<QueryProjection<B>>,
    /// Statistics of the changes since the quantizer was fitted.
    pub(super) stats: ChangeStats,
}

/// What an index is made of.
#[derive(Debug, Clone)]
pub struct RetrieverParts<B: Backend> {
    /// The trained network.
    pub model: Cart<B>,
    /// Its shape.
    pub config: CartConfig,
    /// The text tokenizer that it was trained with.
    pub tokenizer: TextTokenizer,
    /// The quantizer that made the identifiers.
    pub quantizer: CoarseToFine<B>,
    /// The candidates.
    pub index: CandidateIndex,
}

/// Settings of a search, and what they find.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamScore {
    /// The settings.
    pub beam: BeamConfig,
    /// What a beam with them finds.
    pub metrics: Metrics,
}

/// What makes the tokens of queries, if the candidates have token states.
fn token_space(index: &CandidateIndex) -> Option<Arc<TokenSpace>> {
    index.token_states().map(|states| states.space().clone())
}

impl<B: Backend> Retriever<B> {
    /// Builds an index from its trained parts. Searches run on the device of the network.
    ///
    /// # Errors
    /// [`Error::Model`] when network, tokenizer, quantizer and candidates do not fit each other.
    pub fn new(parts: RetrieverParts<B>) -> Result<Self> {
        let RetrieverParts { model, config, tokenizer, quantizer, index } = parts;
        let made = Self {
            engine: Engine::new(model).with_token_space(token_space(&index)),
            config,
            tokenizer: Arc::new(tokenizer),
            quantizer: Arc::new(quantizer),
            index: Arc::new(index),
            beam: BeamConfig::default(),
            space: None,
            projection: None,
            stats: ChangeStats::default(),
        };
        made.check()?;
        Ok(made)
    }

    /// Whether the parts fit each other.
    fn check(&self) -> Result<()> {
        let check = |subject: &str, expected: String, found: String, wrong: bool| {
            let problem = Error::model(subject).expected(expected).found(found);
            problem.fix_if(wrong, "combine parts of one training")
        };
        let (expected, found) = (&self.config.vocabulary, self.index.vocabulary());
        check(
            "identifier levels of the candidates",
            format!("{:?}", expected.sizes()),
            format!("{:?}", found.sizes()),
            expected != found,
        )?;
        let (vocabulary, max_tokens) = (self.config.text_vocabulary, self.config.max_tokens);
        let tokenizer = &self.tokenizer;
        check(
            "text tokenizer",
            format!("at most {vocabulary} tokens and texts of at most {max_tokens}"),
            format!("{} and {}", tokenizer.vocabulary(), tokenizer.max_tokens()),
            tokenizer.token_limit() > vocabulary || tokenizer.max_tokens() > max_tokens,
        )?;
        let sizes = self.index.vocabulary().sizes();
        let semantic = &sizes[self.index.leading_levels()..sizes.len() - 1];
        let found = self.quantizer.level_sizes();
        let wrong = found != semantic;
        check("quantizer", format!("levels {semantic:?}"), format!("{found:?}"), wrong)?;
        if let Some(states) = self.index.token_states() {
            let (wanted, found) = (self.model().encoder().d_model(), states.space().d_model());
            let width = |width: usize| format!("of a text encoder of width {width}");
            check("token states of the candidates", width(wanted), width(found), wanted != found)?;
        }
        let wanted = self.config.alignment.as_ref().filter(|alignment| alignment.guided);
        let found = self.index.prefix_stats().map(|geometry| geometry.dim());
        wanted.map_or(Ok(()), |wanted| {
            check(
                "candidates of a guided network",
                format!("vectors of width {}", wanted.dim),
                found.map_or("none".into(), |dim| format!("width {dim}")),
                found != Some(wanted.dim),
            )
        })
    }

    /// Sets the default beam of searches. Its scope should be that of the training;
    /// [`Retriever::compare_beams`] helps to choose its weights.
    pub fn with_beam(self, beam: BeamConfig) -> Self {
        Self { beam, ..self }
    }

    /// Searches in another precision ([`SearchPrecision`]).
    ///
    /// # Errors
    /// As [`Engine::with_precision`].
    pub fn with_precision(self, precision: SearchPrecision) -> Result<Self> {
        Ok(Self { engine: self.engine.with_precision(precision)?, ..self })
    }

    /// Replaces the candidates by others with identifiers of the same quantizer, which the network
    /// need not have been trained on. Without token states of theirs, late interaction is turned
    /// off.
    ///
    /// # Errors
    /// [`Error::Identifier`] for identifiers of another quantizer, or when more candidates share
    /// their semantic tokens than the network has unique tokens; [`Error::Model`] when the network
    /// is guided and the candidates have no vectors.
    pub fn with_candidates(self, index: CandidateIndex) -> Result<Self> {
        if index.groups() != self.index.groups() {
            let shown = |groups: Option<&[String]>| groups.map_or("none".into(), |g| g.join(", "));
            return Err(Error::identifier("groups of the candidates").expected(shown(self.index.groups())).found(shown(index.groups())).fix("make them with Groups::new and the names of the network's groups, in their order"));
        }
        let index = index.within(&self.config.vocabulary)?;
        let mut made = Self { stats: ChangeStats::default(), ..self.with_index(index) };
        if made.index.token_states().is_none() {
            made.beam.late_interaction = 0.0;
        }
        made.check()?;
        Ok(made)
    }

    /// The same, without checking the candidates.
    pub(super) fn with_index(self, index: CandidateIndex) -> Self {
        let engine = self.engine.with_token_space(token_space(&index));
        Self { engine, index: Arc::new(index), ..self }
    }

    /// Replaces the network by another one of the same shape, for example after fine-tuning.
    ///
    /// # Errors
    /// [`Error::Model`] for a network with other levels.
    pub fn with_model(self, model: Cart<B>) -> Result<Self> {
        let (found, expected) = (model.decoder().level_sizes(), self.config.vocabulary.sizes());
        Error::model("network")
            .expected(format!("levels {expected:?}"))
            .found(format!("{found:?}"))
            .fix_if(found != expected, "train the network of this index")?;
        let precision = self.engine.precision();
        let engine = Engine::new(model).with_precision(precision)?;
        let engine = engine.with_token_space(token_space(&self.index));
        Ok(Self { engine, ..self })
    }

    /// Attaches metadata for filtering and display.
    ///
    /// # Errors
    /// As [`CandidateIndex::with_metadata`].
    pub fn with_metadata(self, metadata: ItemMetadata) -> Result<Self> {
        let index = self.index.as_ref().clone().with_metadata(metadata)?;
        Ok(self.with_index(index))
    }

    /// Attaches token states of the candidates' texts, and sets the weight of late interaction in
    /// the default beam.
    ///
    /// # Errors
    /// As [`CandidateIndex::with_token_states`]; [`Error::Model`] for states of another text
    /// encoder.
    pub fn with_token_states(self, states: TokenStates, weight: f32) -> Result<Self> {
        let index = self.index.as_ref().clone().with_token_states(states)?;
        let beam = BeamConfig { late_interaction: weight, ..self.beam.clone() };
        let made = self.with_index(index).with_beam(beam);
        made.check()?;
        Ok(made)
    }

    /// Keeps the map from features to the candidates' vectors, which new candidates need.
    pub fn with_space(self, space: TextSpaceMap) -> Self {
        Self { space: Some(Arc::new(space)), ..self }
    }

    /// The map from features to the candidates' vectors, if it is kept.
    pub fn space(&self) -> Option<&TextSpaceMap> {
        self.space.as_deref()
    }

    /// Sets the projection from embeddings to the words of a query, which queries by embeddings
    /// need unless the network is guided.
    ///
    /// # Errors
    /// [`Error::Model`] for words of another width, or more of them than the text encoder has positions for.
    pub fn with_projection(self, projection: QueryProjection<B>) -> Result<Self> {
        let encoder = self.model().encoder();
        let most = encoder.max_tokens().unwrap_or(usize::MAX);
        let (d_model, tokens) = (projection.d_model(), projection.tokens());
        Error::model("query projection")
            .expected(format!("at most {most} words of width {}", encoder.d_model()))
            .found(format!("{tokens} of width {d_model}"))
            .fix_if(
                d_model != encoder.d_model() || tokens > most,
                "fit the projection to the network of this index (retrieve::ProjectionConfig)",
            )?;
        Ok(Self { projection: Some(projection), ..self })
    }

    /// The map from embeddings to words, if there is one.
    pub fn projection(&self) -> Option<&QueryProjection<B>> {
        self.projection.as_ref()
    }

    pub(super) fn embed_here(&self, captions: &[ItemCaption]) -> Result<TextVectors> {
        let lexical_head = self.model().alignment().and_then(|head| head.lexical_head().cloned());
        let (encoder, tokenizer) = (self.model().encoder(), &self.tokenizer);
        TextEmbedder { encoder, tokenizer, lexical_head }.embed(captions, self.engine.device())
    }

    /// Token states of `items` new candidates with captions; empty where the index keeps none.
    pub(super) fn tokens_of(
        &self,
        captions: &[ItemCaption],
        items: usize,
    ) -> Result<Vec<ItemTokens>> {
        let Some(states) = self.index.token_states() else { return Ok(Vec::new()) };
        let (encoder, tokenizer) = (self.model().encoder(), &self.tokenizer);
        let reducer = TokenReducer { encoder, tokenizer, space: states.space() };
        reducer.items(captions, items, states.most(), self.engine.device())
    }

    /// Whether added candidates still fit the quantizer.
    ///
    /// # Errors
    /// [`Error::Config`] for thresholds that are not numbers of at least 0.
    pub fn drift(&self, thresholds: &DriftThresholds) -> Result<DriftReport> {
        DriftReport::new(self.index().health(), self.index().ids().len(), self.stats, thresholds)
    }

    /// Statistics of the changes since the quantizer was fitted.
    pub fn change_stats(&self) -> &ChangeStats {
        &self.stats
    }

    /// The candidates.
    pub fn index(&self) -> &CandidateIndex {
        &self.index
    }

    /// The quantizer that made the identifiers.
    pub fn quantizer(&self) -> &CoarseToFine<B> {
        &self.quantizer
    }

    /// Shape of the network.
    pub fn config(&self) -> &CartConfig {
        &self.config
    }

    /// The network.
    pub fn model(&self) -> &Cart<B> {
        self.engine.model()
    }

    /// The device of the searches.
    pub fn device(&self) -> &B::Device {
        self.engine.device()
    }

    /// The text tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The default beam of searches.
    pub fn beam(&self) -> &BeamConfig {
        &self.beam
    }

    /// A filter that allows only the candidates with these ids.
    ///
    /// # Errors
    /// [`Error::Query`] naming an id that is not in the index.
    pub fn allow<S: AsRef<str>>(&self, ids: &[S]) -> Result<Filter> {
        Filter::allow(self.index.trie(), self.index.identifier_map().rows_of(&self.items_of(ids)?))
    }

    /// A filter that allows all candidates but those with these ids.
    ///
    /// # Errors
    /// As [`Retriever::allow`].
    pub fn deny<S: AsRef<str>>(&self, ids: &[S]) -> Result<Filter> {
        Filter::deny(self.index.trie(), self.index.identifier_map().rows_of(&self.items_of(ids)?))
    }

    pub(super) fn items_of<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<u32>> {
        let known = self.index.ids();
        let item = |id: &S| {
            known.index_of(id.as_ref()).map(|item| item as u32).ok_or_else(|| {
                let near = known.near(id.as_ref()).map(|near| advice(id.as_ref(), near));
                Error::query("candidate")
                    .expected("ids of candidates of this index")
                    .found(format!("{:?}", id.as_ref()))
                    .fix(near.unwrap_or("take ids from the index, or leave this one out".into()))
            })
        };
        ids.iter().map(item).collect()
    }

    /// Measures search settings on validation queries, best first by MRR@10 (of equal ones the
    /// first given): how far to trust the decoder, how much the rerank should weigh (ours).
    ///
    /// # Errors
    /// As [`Query::run`](super::Query::run) and [`evaluate`]; [`Error::Config`] for no settings
    /// at all, or settings out of range.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> cart_retrieval::Result<()> {
    /// use burn::backend::Flex;
    /// use cart_retrieval::{decode::BeamConfig, retrieve::Retriever};
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let mut beams = Vec::new();
    /// for decoder_weight in [0.0, 0.25, 0.5, 1.0] {
    ///     for rerank in [0.0, 10.0, 20.0] {
    ///         beams.push(BeamConfig { decoder_weight, rerank, ..retriever.beam().clone() });
    ///     }
    /// }
    /// let (queries, relevant) = (["two dogs in the snow"], [[17]]);
    /// let scores = retriever.compare_beams(&queries, &relevant, &beams)?;
    /// let best = &scores[0];
    /// println!("{:?}: {}", best.beam, best.metrics);
    /// let retriever = retriever.with_beam(best.beam.clone());
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_beams<S: AsRef<str>, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[S],
        relevant: &[R],
        beams: &[BeamConfig],
    ) -> Result<Vec<BeamScore>> {
        Error::config("search settings to compare")
            .expected("at least one")
            .found("none")
            .fix_if(beams.is_empty(), "give the retriever's own settings and others to compare")?;
        beams.iter().try_for_each(BeamConfig::validate)?;
        let candidates = self.index.ids().len();
        let mut scores = Vec::with_capacity(beams.len());
        for beam in beams {
            let retriever = self.clone().with_beam(beam.clone());
            let found = retriever.query(queries).top(beam.width.min(candidates)).rankings()?;
            let metrics = evaluate(&found, relevant, candidates, TruncatedTies::Listed)?.metrics();
            scores.push(BeamScore { beam: beam.clone(), metrics });
        }
        scores.sort_by(|a, b| b.metrics.mrr_at_10.total_cmp(&a.metrics.mrr_at_10));
        Ok(scores)
    }
}
