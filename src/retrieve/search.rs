//! Search requests and their hits.

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::Retriever;
use crate::{
    decode::{Answer, BeamConfig},
    error::{Error, Result},
    eval::Ranking,
    features::Features,
    identifier::Identifier,
    metadata::Fields,
    trie::{Filter, Filters},
};

/// A candidate that answers a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Id of the candidate.
    pub id: String,
    /// Row of the candidate.
    pub item: u32,
    /// Log-probability of its identifier, at most 0, with the level weights of the beam; a rerank
    /// adds the weighted cosine.
    pub score: f32,
    /// Its identifier; if it has several, the one that was found.
    pub identifier: Identifier,
    /// Its metadata; absent in an index without metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Fields>,
}

impl<B: Backend> Retriever<B> {
    /// Starts a search.
    pub fn search<'a>(&'a self, query: &'a str) -> Search<'a, B> {
        Search::new(self, query)
    }

    /// Starts a search for many queries, decoded in batches.
    pub fn search_all<'a, S: AsRef<str>>(&'a self, queries: &'a [S]) -> SearchAll<'a, B, S> {
        SearchAll::new(self, queries)
    }
}

/// A search for one query, made by [`Retriever::search`].
#[derive(Debug)]
pub struct Search<'a, B: Backend> {
    retriever: &'a Retriever<B>,
    query: &'a str,
    top: usize,
    beam: BeamConfig,
    filter: Option<&'a Filter>,
    least: f32,
    per_cluster: usize,
}

impl<'a, B: Backend> Search<'a, B> {
    pub(super) fn new(retriever: &'a Retriever<B>, query: &'a str) -> Self {
        Self {
            retriever,
            query,
            top: 10,
            beam: retriever.beam().clone(),
            filter: None,
            least: f32::NEG_INFINITY,
            per_cluster: usize::MAX,
        }
    }

    /// Sets the number of candidates to return (default 10).
    pub fn top(self, top: usize) -> Self {
        Self { top, ..self }
    }

    /// Sets the width of the beam; at least `top` is used.
    pub fn beam(mut self, width: usize) -> Self {
        self.beam.width = width;
        self
    }

    /// Restricts the answers to candidates that the filter allows.
    pub fn filter(self, filter: &'a Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Sets the minimum score of an answer.
    pub fn min_score(self, least: f32) -> Self {
        Self { least, ..self }
    }

    /// Limits the answers per coarse token, as [`SearchAll::per_cluster`].
    pub fn per_cluster(self, per_cluster: usize) -> Self {
        Self { per_cluster, ..self }
    }

    /// Runs the search: `min(top, allowed)` distinct candidates, best first; fewer if a minimum
    /// score or a limit per cluster removes some.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query, a `top` of zero, or a filter of another index.
    pub fn run(self) -> Result<Vec<Hit>> {
        let queries = [self.query];
        let filters = self.filter.map_or(Filters::None, Filters::Same);
        let Self { top, beam, least, per_cluster, .. } = self;
        let all = self.retriever.search_all(&queries);
        let all = SearchAll { top, beam, filters, least, per_cluster, ..all };
        Ok(all.run()?.swap_remove(0))
    }
}

/// The query.
#[derive(Debug)]
enum Queries<'a, S> {
    Texts(&'a [S]),
    Embeddings(&'a Features),
}

/// A search for many queries, made by [`Retriever::search_all`] or [`Retriever::search_embeddings`].
#[derive(Debug)]
pub struct SearchAll<'a, B: Backend, S> {
    retriever: &'a Retriever<B>,
    queries: Queries<'a, S>,
    top: usize,
    beam: BeamConfig,
    filters: Filters<'a>,
    least: f32,
    per_cluster: usize,
}

impl<'a, B: Backend, S: AsRef<str>> SearchAll<'a, B, S> {
    pub(super) fn new(retriever: &'a Retriever<B>, queries: &'a [S]) -> Self {
        Self::of(retriever, Queries::Texts(queries))
    }

    pub(super) fn of_embeddings(retriever: &'a Retriever<B>, rows: &'a Features) -> Self {
        Self::of(retriever, Queries::Embeddings(rows))
    }

    fn of(retriever: &'a Retriever<B>, queries: Queries<'a, S>) -> Self {
        Self {
            retriever,
            queries,
            top: 10,
            beam: retriever.beam().clone(),
            filters: Filters::None,
            least: f32::NEG_INFINITY,
            per_cluster: usize::MAX,
        }
    }

    /// Sets the number of candidates to return per query (default 10).
    pub fn top(self, top: usize) -> Self {
        Self { top, ..self }
    }

    /// Sets the width of the beam; at least `top` is used.
    pub fn beam(mut self, width: usize) -> Self {
        self.beam.width = width;
        self
    }

    /// Restricts the answers to candidates that the filters allow.
    pub fn filters(self, filters: Filters<'a>) -> Self {
        Self { filters, ..self }
    }

    /// Sets the minimum score of an answer.
    pub fn min_score(self, least: f32) -> Self {
        Self { least, ..self }
    }

    /// Limits the answers per coarse token to the best ones. The beam finds at most as many
    /// candidates as it is wide, so use a wide one if few clusters hold most of the answers.
    pub fn per_cluster(self, per_cluster: usize) -> Self {
        Self { per_cluster, ..self }
    }

    /// Runs the search: per query `min(top, allowed)` distinct candidates, best first; fewer if a
    /// minimum score or a limit per cluster removes some.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query (named), a `top` of zero, filters of another index or of another
    /// number of queries.
    pub fn run(self) -> Result<Vec<Vec<Hit>>> {
        let retriever = self.retriever;
        let (metadata, owners) = (retriever.index().metadata(), retriever.index().owners());
        let item = |answer: &Answer| owners.of(answer.item);
        let hit = |answer: Answer| -> Result<Hit> {
            Ok(Hit {
                id: retriever.index().ids().get(item(&answer) as usize).to_string(),
                item: item(&answer),
                score: answer.score,
                identifier: retriever.index().trie().identifier_of(answer.item)?,
                metadata: metadata.map(|known| known.get(item(&answer) as usize)).transpose()?,
            })
        };
        self.answers()?.into_iter().map(|answers| answers.into_iter().map(hit).collect()).collect()
    }

    /// Runs the search and returns rankings for [`evaluate`](crate::eval::evaluate).
    ///
    /// # Errors
    /// As [`SearchAll::run`].
    pub fn rankings(self) -> Result<Vec<Ranking>> {
        let owners = self.retriever.index().owners().clone();
        self.answers()?
            .into_iter()
            .map(|answers| {
                let items = answers.iter().map(|answer| owners.of(answer.item)).collect();
                Ranking::new(items, answers.iter().map(|answer| answer.score).collect())
            })
            .collect()
    }

    /// The best entry of each candidate found.
    fn answers(self) -> Result<Vec<Vec<Answer>>> {
        for (name, count) in [("top", self.top), ("answers per cluster", self.per_cluster)] {
            if count == 0 {
                let remedy = "ask for at least one candidate";
                return Err(Error::query(name).expected("at least 1").found("0").fix(remedy));
            }
        }
        if self.least.is_nan() {
            return Err(Error::query("minimum score")
                .expected("a number")
                .found("NaN")
                .fix("leave it out for no minimum"));
        }
        let beam = BeamConfig { width: self.beam.width.max(self.top), ..self.beam.clone() };
        let mut answers = match self.queries {
            Queries::Texts(texts) => {
                let tokenizer = self.retriever.tokenizer();
                let tokens = texts.iter().map(|text| tokenizer.encode(text.as_ref()));
                let tokens = tokens.collect::<Result<Vec<_>>>()?;
                self.retriever.answer(&tokens, &beam, self.filters)?
            }
            Queries::Embeddings(rows) => {
                self.retriever.answer_embeddings(rows, &beam, self.filters)?
            }
        };
        for answers in &mut answers {
            answers.retain(|answer| answer.score >= self.least);
            if self.per_cluster < self.top {
                let index = self.retriever.index();
                let (trie, leading) = (index.trie(), index.leading_levels());
                let mut taken = std::collections::HashMap::new();
                let mut kept = Vec::with_capacity(self.top);
                for &answer in &*answers {
                    let identifier = trie.identifier_of(answer.item)?;
                    let cluster = identifier.tokens()[..=leading].to_vec();
                    let count = taken.entry(cluster).or_insert(0usize);
                    if *count < self.per_cluster {
                        *count += 1;
                        kept.push(answer);
                    }
                }
                *answers = kept;
            }
            answers.truncate(self.top);
        }
        Ok(answers)
    }
}
