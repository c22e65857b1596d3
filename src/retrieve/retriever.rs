//! The retriever: network, tokenizer, quantizer and candidates.

use burn::tensor::backend::Backend;

use super::{Search, SearchAll};
use crate::{
    align::CandidateSpace,
    data::TextTokenizer,
    decode::{
        Answer, BeamConfig, Engine, Exact, Explanation, Filter, Filters, SearchPrecision,
        SearchSpace, score_all,
    },
    error::{Error, Result},
    model::{Cart, CartConfig, EncodedQueries},
    quantizer::{CandidateIndex, CoarseToFine, Quantizer},
};

/// Answers text queries with candidates.
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
    pub(super) tokenizer: TextTokenizer,
    pub(super) quantizer: CoarseToFine<B>,
    pub(super) index: CandidateIndex,
    pub(super) beam: BeamConfig,
    pub(super) space: Option<CandidateSpace>,
}

impl<B: Backend> Retriever<B> {
    /// Puts a trained index together.
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
        let problem = |subject: &str, expected: String, found: String| {
            Error::model(subject, expected, found, "put together parts of one training")
        };
        if &config.vocabulary != index.vocabulary() {
            return Err(problem(
                "identifier levels of the candidates",
                format!("{:?}", config.vocabulary.sizes()),
                format!("{:?}", index.vocabulary().sizes()),
            ));
        }
        if tokenizer.token_limit() > config.text_vocabulary
            || tokenizer.max_tokens() > config.max_tokens
        {
            return Err(problem(
                "text tokenizer",
                format!(
                    "at most {} tokens and texts of at most {}",
                    config.text_vocabulary, config.max_tokens
                ),
                format!("{} and {}", tokenizer.vocabulary(), tokenizer.max_tokens()),
            ));
        }
        let sizes = index.vocabulary().sizes();
        let semantic = &sizes[index.leading_levels()..sizes.len() - 1];
        if quantizer.level_sizes() != semantic {
            return Err(problem(
                "quantizer",
                format!("levels {semantic:?}"),
                format!("{:?}", quantizer.level_sizes()),
            ));
        }
        let wanted = config.alignment.as_ref().filter(|alignment| alignment.guided);
        let found = index.geometry().map(|geometry| geometry.dim());
        if let Some(wanted) = wanted.filter(|wanted| found != Some(wanted.dim)) {
            return Err(problem(
                "candidates of a network that their vectors guide",
                format!("vectors of width {}", wanted.dim),
                found.map_or("none".into(), |dim| format!("width {dim}")),
            ));
        }
        let beam = BeamConfig::default();
        let engine = Engine::new(model, device);
        Ok(Self { engine, config, tokenizer, quantizer, index, beam, space: None })
    }

    /// Sets the beam that searches use unless told otherwise. Its scope should be the training's, its
    /// weights are best chosen by [`Retriever::compare_beams`].
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

    /// Searches other candidates from now on, with identifiers of the same quantizer: candidates that
    /// the network was not trained on.
    ///
    /// # Errors
    /// [`Error::Identifier`] for identifiers of another quantizer, or when more candidates share
    /// their semantic tokens than the network has unique tokens; [`Error::Model`] when the network
    /// is guided and the candidates have no vectors.
    pub fn with_candidates(self, index: CandidateIndex) -> Result<Self> {
        if index.groups() != self.index.groups() {
            let shown = |groups: Option<&[String]>| groups.map_or("none".into(), |g| g.join(", "));
            return Err(Error::identifier(
                "groups of the candidates",
                shown(self.index.groups()),
                shown(index.groups()),
                "make them with Groups::new and the names of the network's groups, in their order",
            ));
        }
        let index = index.within(&self.config.vocabulary)?;
        let Self { engine, config, tokenizer, quantizer, .. } = self;
        let (model, device) = (engine.model().clone(), engine.device().clone());
        let made = Self::new(model, config, tokenizer, quantizer, index, device)?;
        Ok(Self { engine, beam: self.beam, space: self.space, ..made })
    }

    /// Keeps the map that made the candidates' vectors, for candidates to come.
    pub fn with_space(self, space: CandidateSpace) -> Self {
        Self { space: Some(space), ..self }
    }

    /// The map that made the candidates' vectors, if it is kept.
    pub fn space(&self) -> Option<&CandidateSpace> {
        self.space.as_ref()
    }

    /// The candidates with where they lie.
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

    /// The text tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The beam that searches use unless told otherwise.
    pub fn beam(&self) -> &BeamConfig {
        &self.beam
    }

    /// Starts a search.
    pub fn search<'a>(&'a self, query: &'a str) -> Search<'a, B> {
        Search::new(self, query)
    }

    /// Starts a search for many queries, which are decoded in batches.
    pub fn search_all<'a, S: AsRef<str>>(&'a self, queries: &'a [S]) -> SearchAll<'a, B, S> {
        SearchAll::new(self, queries)
    }

    /// Scores of all candidates for a query, best first, weighted as the retriever's beam says, at a cost
    /// that grows with the collection; the yardstick for a beam.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query; otherwise as a search with that beam.
    pub fn score_all(&self, query: &str) -> Result<Vec<Answer>> {
        let (encoded, space) = (self.encode(query)?, self.search_space());
        Ok(self.candidates(score_all(self.model(), &encoded, space, &self.beam)?))
    }

    /// The best candidates under the model for a query, with whether that is proven
    /// ([`exact_search`](crate::decode::exact_search)); at most `budget` prefixes are looked at in a level.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query, a `top` of 0 or a budget below it; otherwise as a search with the
    /// retriever's beam.
    pub fn search_exact(&self, query: &str, top: usize, budget: usize) -> Result<Exact> {
        let (tokens, padding) = (self.tokenizer.encode(query)?, self.tokenizer.padding());
        let space = self.search_space();
        let search =
            |top| self.engine.exact_search(&tokens, padding, space, &self.beam, top, budget);
        self.exact_candidates(top, budget, search)
    }

    /// Why a candidate scores what it scores for a query: the log-probability of every token of its
    /// identifier (the most probable of several), and the most probable others at each level.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query or an id that is not in the index; otherwise as a search with the
    /// retriever's beam.
    pub fn explain(&self, query: &str, id: &str, runners_up: usize) -> Result<Explanation> {
        let (encoded, item) = (self.encode(query)?, self.items_of(&[id])?[0]);
        self.explain_best(&encoded, item, runners_up)
    }

    /// A filter that allows the candidates with these ids and no others.
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
                Error::query(
                    "candidate",
                    "ids of candidates of this index",
                    format!("{:?}", id.as_ref()),
                    "take ids from the index, or leave this one out",
                )
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
        if !self.index.owners().are_single() {
            filters.check(self.index.trie().len(), queries.len())?;
            return self.distinct(queries, beam, filters);
        }
        let space = self.search_space().with_filters(filters);
        self.engine.search(queries, self.tokenizer.padding(), space, beam)
    }
}
