//! The retriever: network, tokenizer, quantizer and candidates.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::growth::Growth;
use crate::{
    align::{TextEmbedder, TextSpaceMap, TextVectors},
    data::{ItemCaption, TextTokenizer},
    decode::{Answer, BeamConfig, Engine, Exact, Explanation, SearchPrecision, SearchSpace},
    error::{Error, Result},
    features::advice,
    index::CandidateIndex,
    metadata::ItemMetadata,
    model::{Cart, CartConfig, EncodedQueries},
    nn::QueryProjection,
    quantizer::{CoarseToFine, Quantizer},
    trie::{Filter, Filters},
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
/// for hit in retriever.search("two dogs play in the snow").top(10).run()? {
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
    pub(super) growth: Growth,
}

impl<B: Backend> Retriever<B> {
    /// Builds an index from its trained parts.
    ///
    /// # Errors
    /// [`Error::Model`] when network, tokenizer, quantizer and candidates do not fit each other.
    pub fn new(
        model: Cart<B>,
        config: CartConfig,
        tokenizer: TextTokenizer,
        quantizer: CoarseToFine<B>,
        index: CandidateIndex,
        device: B::Device,
    ) -> Result<Self> {
        let made = Self {
            engine: Engine::new(model, device),
            config,
            tokenizer: Arc::new(tokenizer),
            quantizer: Arc::new(quantizer),
            index: Arc::new(index),
            beam: BeamConfig::default(),
            space: None,
            projection: None,
            growth: Growth::default(),
        };
        made.check()?;
        Ok(made)
    }

    /// Whether the parts fit each other.
    fn check(&self) -> Result<()> {
        let problem = |subject: &str, expected: String, found: String| {
            Error::model(subject)
                .expected(expected)
                .found(found)
                .fix("combine parts of one training")
        };
        if &self.config.vocabulary != self.index.vocabulary() {
            return Err(problem(
                "identifier levels of the candidates",
                format!("{:?}", self.config.vocabulary.sizes()),
                format!("{:?}", self.index.vocabulary().sizes()),
            ));
        }
        if self.tokenizer.token_limit() > self.config.text_vocabulary
            || self.tokenizer.max_tokens() > self.config.max_tokens
        {
            return Err(problem(
                "text tokenizer",
                format!(
                    "at most {} tokens and texts of at most {}",
                    self.config.text_vocabulary, self.config.max_tokens
                ),
                format!("{} and {}", self.tokenizer.vocabulary(), self.tokenizer.max_tokens()),
            ));
        }
        let sizes = self.index.vocabulary().sizes();
        let semantic = &sizes[self.index.leading_levels()..sizes.len() - 1];
        if self.quantizer.level_sizes() != semantic {
            return Err(problem(
                "quantizer",
                format!("levels {semantic:?}"),
                format!("{:?}", self.quantizer.level_sizes()),
            ));
        }
        let wanted = self.config.alignment.as_ref().filter(|alignment| alignment.guided);
        let found = self.index.geometry().map(|geometry| geometry.dim());
        if let Some(wanted) = wanted.filter(|wanted| found != Some(wanted.dim)) {
            return Err(problem(
                "candidates of a guided network",
                format!("vectors of width {}", wanted.dim),
                found.map_or("none".into(), |dim| format!("width {dim}")),
            ));
        }
        Ok(())
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
    /// need not have been trained on.
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
        let made = Self { growth: Growth::default(), ..self.with_index(index) };
        made.check()?;
        Ok(made)
    }

    /// The same, without checking the candidates.
    pub(super) fn with_index(self, index: CandidateIndex) -> Self {
        Self { index: Arc::new(index), ..self }
    }

    /// Replaces the network by another one of the same shape, for example after fine-tuning.
    ///
    /// # Errors
    /// [`Error::Model`] for a network with other levels.
    pub fn with_model(self, model: Cart<B>) -> Result<Self> {
        let (found, expected) = (model.decoder().level_sizes(), self.config.vocabulary.sizes());
        if found != expected {
            return Err(Error::model("network")
                .expected(format!("levels {expected:?}"))
                .found(format!("{found:?}"))
                .fix("train the network of this index"));
        }
        let precision = self.engine.precision();
        let engine = Engine::new(model, self.engine.device().clone()).with_precision(precision)?;
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

    /// Keeps the map from features to the candidates' vectors, which new candidates need.
    pub fn with_space(self, space: TextSpaceMap) -> Self {
        Self { space: Some(Arc::new(space)), ..self }
    }

    /// The map from features to the candidates' vectors, if it is kept.
    pub fn space(&self) -> Option<&TextSpaceMap> {
        self.space.as_deref()
    }

    pub(super) fn embed_here(&self, captions: &[ItemCaption]) -> Result<TextVectors> {
        let lexical_head = self.model().alignment().and_then(|head| head.lexical_head().cloned());
        let (encoder, tokenizer) = (self.model().encoder(), &self.tokenizer);
        TextEmbedder { encoder, tokenizer, lexical_head }.embed(captions, self.engine.device())
    }

    /// The candidates with their geometry.
    pub(super) fn search_space(&self) -> SearchSpace<'_> {
        let geometry = self.index.geometry().map(|geometry| &**geometry);
        SearchSpace::from(self.index.trie()).with_geometry(geometry)
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

    /// Exhaustive scores of all candidates for a query, best first, with the weights of the
    /// retriever's beam. The cost grows with the collection; use it as a reference for a beam.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query; otherwise as a search with that beam.
    pub fn score_all(&self, query: &str) -> Result<Vec<Answer>> {
        let (encoded, space) = (self.encode(query)?, self.search_space());
        Ok(self.candidates(self.engine.score_all(&encoded, space, &self.beam)?))
    }

    /// The best candidates under the model for a query, and whether that is proven
    /// ([`exact_search`](crate::decode::exact_search)). At most `budget` prefixes are examined per
    /// level.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query, a `top` of 0 or a budget below it; otherwise as a search
    /// with the retriever's beam.
    pub fn search_exact(&self, query: &str, top: usize, budget: usize) -> Result<Exact> {
        let (tokens, padding) = (self.tokenizer.encode(query)?, self.tokenizer.padding());
        let space = self.search_space();
        let search =
            |top| self.engine.exact_search(&tokens, padding, space, &self.beam, top, budget);
        self.exact_candidates(top, budget, search)
    }

    /// Explains the score of a candidate: the log-probability of every token of its identifier (the
    /// most probable one of several), and the most probable alternatives at each level.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query or an id that is not in the index; otherwise as a search
    /// with the retriever's beam.
    pub fn explain(&self, query: &str, id: &str, runners_up: usize) -> Result<Explanation> {
        let (encoded, item) = (self.encode(query)?, self.items_of(&[id])?[0]);
        self.explain_best(&encoded, item, runners_up)
    }

    /// A filter that allows only the candidates with these ids.
    ///
    /// # Errors
    /// [`Error::Query`] naming an id that is not in the index.
    pub fn allow<S: AsRef<str>>(&self, ids: &[S]) -> Result<Filter> {
        Filter::allow(self.index.trie(), self.index.owners().entries_of(&self.items_of(ids)?))
    }

    /// A filter that allows all candidates but those with these ids.
    ///
    /// # Errors
    /// As [`Retriever::allow`].
    pub fn deny<S: AsRef<str>>(&self, ids: &[S]) -> Result<Filter> {
        Filter::deny(self.index.trie(), self.index.owners().entries_of(&self.items_of(ids)?))
    }

    fn items_of<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<u32>> {
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

    /// One query, encoded.
    fn encode(&self, query: &str) -> Result<EncodedQueries<B>> {
        self.engine.encode(&[self.tokenizer.encode(query)?], self.tokenizer.padding())
    }

    /// Answers of tokenised queries, in their order: the best entry of each candidate.
    pub(super) fn answer(
        &self,
        queries: &[Vec<u32>],
        beam: &BeamConfig,
        filters: Filters<'_>,
    ) -> Result<Vec<Vec<Answer>>> {
        self.distinct(queries.len(), beam, filters, |asked, space, beam| {
            let rows: Vec<&[u32]> = asked.iter().map(|&query| queries[query].as_slice()).collect();
            self.engine.search(&rows, self.tokenizer.padding(), space, beam)
        })
    }
}
