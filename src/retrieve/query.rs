//! Queries: what can be asked of an index, the options, and what comes back.

use std::{collections::HashMap, marker::PhantomData};

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::Retriever;
use crate::{
    decode::{BeamConfig, EncodedQueries, Filter, Filters, ScoredItem, SearchSpace},
    error::{Error, Result},
    eval::Ranking,
    features::Features,
    identifier::Identifier,
    metadata::Fields,
};

/// Embeddings encoded at once.
const BATCH: usize = 32;

/// A candidate found for a query.
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

/// A query for one text: its ends give one result.
#[derive(Debug, Clone, Copy)]
pub struct One;

/// A query for several texts or embeddings: its ends give a result for each, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Many;

/// Whether a query gives one result or several: [`One`] or [`Many`].
pub trait Arity: private::Sealed {
    /// One `T`, or a vector of them.
    type Of<T>;

    #[doc(hidden)]
    fn of<T>(results: Vec<T>) -> Self::Of<T>;
}

impl Arity for One {
    type Of<T> = T;

    fn of<T>(mut results: Vec<T>) -> T {
        results.swap_remove(0)
    }
}

impl Arity for Many {
    type Of<T> = Vec<T>;

    fn of<T>(results: Vec<T>) -> Vec<T> {
        results
    }
}

/// What can be asked: a text (`&str`, `&String`), texts (a slice, array or vector of them), or the
/// rows of [`Features`].
pub trait IntoQuery<'a>: private::Sealed {
    /// [`One`] for a text, [`Many`] for texts and rows.
    type Arity: Arity;

    #[doc(hidden)]
    fn into_asked(self) -> private::Asked<'a>;
}

mod private {
    use super::{Many, One};
    use crate::features::Features;

    pub trait Sealed {}

    impl Sealed for One {}
    impl Sealed for Many {}

    #[derive(Debug)]
    pub enum Asked<'a> {
        Texts(Vec<&'a str>),
        Embeddings(&'a Features),
    }
}
use private::Asked;

/// Implements [`IntoQuery`] for kinds of texts and embeddings.
macro_rules! asked {
    ($([$($generic:tt)*] $kind:ty => $arity:ty, |$asked:ident| $made:expr;)*) => {
        $(
            impl<'a, $($generic)*> private::Sealed for $kind {}
            impl<'a, $($generic)*> IntoQuery<'a> for $kind {
                type Arity = $arity;

                fn into_asked(self) -> Asked<'a> {
                    let $asked = self;
                    $made
                }
            }
        )*
    };
}
asked! {
    [] &'a str => One, |text| Asked::Texts(vec![text]);
    ['b: 'a] &'a &'b str => One, |text| Asked::Texts(vec![*text]);
    [] &'a String => One, |text| Asked::Texts(vec![text.as_str()]);
    [S: AsRef<str>] &'a [S] => Many, |texts| texts_of(texts);
    [S: AsRef<str>] &'a Vec<S> => Many, |texts| texts_of(texts);
    [S: AsRef<str>, const N: usize] &'a [S; N] => Many, |texts| texts_of(texts);
    [] &'a Features => Many, |rows| Asked::Embeddings(rows);
}

fn texts_of<S: AsRef<str>>(texts: &[S]) -> Asked<'_> {
    Asked::Texts(texts.iter().map(AsRef::as_ref).collect())
}

impl<B: Backend> Retriever<B> {
    /// Starts a query: for a text, for texts, which are decoded in batches, or for embeddings.
    ///
    /// Options follow, then one of the ends: [`run`](Query::run), [`rankings`](Query::rankings),
    /// [`exact`](Query::exact), [`scores`](Query::scores), [`explain`](Query::explain),
    /// [`trace`](Query::trace). For one text an end gives one result, otherwise a vector of them.
    ///
    /// # Embeddings
    /// A guided network needs nothing else: embeddings are of the encoder of the candidates, the
    /// space of the index, if it has one, maps them to the vectors that guide the search, and the
    /// decoder has no say. Any other network needs a projection ([`Retriever::with_projection`]),
    /// and embeddings like those that it was fitted on, which may be of another kind than the
    /// candidates'.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> cart_retrieval::Result<()> {
    /// use burn::backend::Flex;
    /// use cart_retrieval::{features::Features, retrieve::Retriever};
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let hits = retriever.query("two dogs in the snow").top(5).run()?;
    /// println!("{}", hits[0].id);
    /// let per_text = retriever.query(&["two dogs", "a red car"]).top(5).beam(50).run()?;
    /// println!("{}", per_text[1][0].id);
    /// let photo = Features::open("photo.npy")?;
    /// let more_like_it = &retriever.query(&photo).run()?[0];
    /// let why = retriever.query("two dogs in the snow").explain(&more_like_it[0].id, 3)?;
    /// println!("{:.3}", why.score);
    /// # Ok(())
    /// # }
    /// ```
    pub fn query<'a, Q: IntoQuery<'a>>(&'a self, query: Q) -> Query<'a, B, Q::Arity> {
        Query {
            retriever: self,
            asked: query.into_asked(),
            top: 10,
            beam: self.beam.clone(),
            filters: Filters::None,
            min_score: f32::NEG_INFINITY,
            per_cluster: usize::MAX,
            arity: PhantomData,
        }
    }
}

/// A query with its options, made by [`Retriever::query`].
#[derive(Debug)]
#[must_use = "a query does nothing until one of its ends is called"]
pub struct Query<'a, B: Backend, A: Arity> {
    pub(super) retriever: &'a Retriever<B>,
    asked: Asked<'a>,
    pub(super) top: usize,
    beam: BeamConfig,
    pub(super) filters: Filters<'a>,
    pub(super) min_score: f32,
    pub(super) per_cluster: usize,
    arity: PhantomData<A>,
}

/// Queries that are ready to be encoded.
pub(super) enum Ready<'a> {
    Tokens(Vec<Vec<u32>>),
    /// With the vectors of the rows in the space of the candidates, if the network has an
    /// alignment.
    Embeddings(&'a Features, Option<Features>),
}

impl<'a, B: Backend> Query<'a, B, Many> {
    /// Restricts what each query may find to the candidates that its own filter allows.
    pub fn filters(self, filters: Filters<'a>) -> Self {
        Self { filters, ..self }
    }
}

impl<'a, B: Backend, A: Arity> Query<'a, B, A> {
    /// Sets the number of candidates to return (default 10).
    pub fn top(self, top: usize) -> Self {
        Self { top, ..self }
    }

    /// Sets the width of the beam; at least `top` is used.
    pub fn beam(mut self, width: usize) -> Self {
        self.beam.width = width;
        self
    }

    /// Restricts what is found to the candidates that a filter allows.
    pub fn filter(self, filter: &'a Filter) -> Self {
        Self { filters: Filters::Same(filter), ..self }
    }

    /// Sets the minimum score of a candidate.
    pub fn min_score(self, min_score: f32) -> Self {
        Self { min_score, ..self }
    }

    /// Limits the candidates per coarse token to the best ones. The beam finds at most as many
    /// candidates as it is wide, so use a wide one if few clusters hold most of them.
    pub fn per_cluster(self, per_cluster: usize) -> Self {
        Self { per_cluster, ..self }
    }

    /// Runs the search: `min(top, allowed)` distinct candidates, best first; fewer if a minimum
    /// score or a limit per cluster removes some.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank text (named), a `top` of zero, filters of another index or of
    /// another number of queries; [`Error::Features`] for embeddings of another width or NaN.
    pub fn run(self) -> Result<A::Of<Vec<Hit>>> {
        let hits = self.found()?.into_iter().map(|found| self.hits(found));
        Ok(A::of(hits.collect::<Result<_>>()?))
    }

    /// Runs the search and returns rankings for [`evaluate`](crate::eval::evaluate).
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn rankings(self) -> Result<A::Of<Ranking>> {
        let map = self.retriever.index.identifier_map();
        let ranking = |found: Vec<ScoredItem>| {
            let items = found.iter().map(|scored| map.of(scored.item)).collect();
            Ranking::new(items, found.iter().map(|scored| scored.score).collect())
        };
        Ok(A::of(self.found()?.into_iter().map(ranking).collect::<Result<_>>()?))
    }

    /// Checks options.
    pub(super) fn check(&self) -> Result<()> {
        for (name, count) in [("top", self.top), ("answers per cluster", self.per_cluster)] {
            let remedy = "ask for at least one candidate";
            Error::query(name).expected("at least 1").found("0").fix_if(count == 0, remedy)?;
        }
        Error::query("minimum score")
            .expected("a number")
            .found("NaN")
            .fix_if(self.min_score.is_nan(), "leave it out for no minimum")
    }

    /// The queries, checked, and the settings of their search.
    pub(super) fn ready(&self) -> Result<(Ready<'a>, BeamConfig)> {
        let mut beam = BeamConfig { width: self.beam.width.max(self.top), ..self.beam.clone() };
        let retriever = self.retriever;
        let rows = match &self.asked {
            Asked::Texts(texts) => {
                let tokens = texts.iter().map(|text| retriever.tokenizer.encode(text));
                return Ok((Ready::Tokens(tokens.collect::<Result<_>>()?), beam));
            }
            Asked::Embeddings(rows) => *rows,
        };
        rows.check()?;
        let head = retriever.model().alignment();
        let vectors = head.map(|_| self.vectors_of(rows)).transpose()?;
        match &retriever.projection {
            Some(projection) if projection.dim() != rows.dim() => {
                return Err(wrong_width(projection.dim(), rows.dim()));
            }
            None if !head.is_some_and(|head| head.is_guided()) => {
                return Err(Error::query("embeddings")
                    .expected(
                        "an index with a projection to the words of a query, or a guided network",
                    )
                    .found("neither")
                    .fix(
                        "fit one (retrieve::ProjectionConfig) and add it \
                         (Retriever::with_projection)",
                    ));
            }
            // Without words there is nothing for the decoder to read.
            None => beam.decoder_weight = 0.0,
            Some(_) => {}
        }
        Ok((Ready::Embeddings(rows, vectors), beam))
    }

    /// Embeddings in the space of the candidates, each of length 1.
    fn vectors_of(&self, rows: &Features) -> Result<Features> {
        let vectors = match self.retriever.space() {
            Some(space) => space.embed(rows, None)?,
            None => rows.clone(),
        };
        match self.retriever.index.prefix_stats().map(|stats| stats.dim()) {
            Some(dim) if dim != vectors.dim() => Err(wrong_width(dim, vectors.dim())),
            _ => Ok(vectors.normalised()),
        }
    }

    /// Encodes some of the queries.
    pub(super) fn encode(&self, ready: &Ready<'_>, some: &[usize]) -> Result<EncodedQueries<B>> {
        let Retriever { engine, tokenizer, projection, .. } = self.retriever;
        match ready {
            Ready::Tokens(all) => {
                let rows: Vec<&[u32]> = some.iter().map(|&query| all[query].as_slice()).collect();
                engine.encode(&rows, tokenizer.padding())
            }
            Ready::Embeddings(rows, vectors) => {
                let vectors = vectors.as_ref().map(|vectors| vectors.select(some));
                let rows = rows.select(some);
                Ok(engine.encode_embeddings(&rows, projection.as_ref(), vectors.as_ref()))
            }
        }
    }

    /// The best identifier row of every candidate found, best first, after all options.
    fn found(&self) -> Result<Vec<Vec<ScoredItem>>> {
        self.check()?;
        let (ready, beam) = self.ready()?;
        let mut all = self.distinct(&ready, &beam)?;
        for found in &mut all {
            found.retain(|scored| scored.score >= self.min_score);
            if self.per_cluster < self.top {
                self.thin_out(found)?;
            }
            found.truncate(self.top);
        }
        Ok(all)
    }

    /// The best identifier row of every candidate that a beam finds, best first. Where several
    /// identifiers of the same candidates fill a query's beam, it is decoded again with one twice
    /// as wide, until there are as many candidates as the beam has places or no more are allowed.
    fn distinct(&self, ready: &Ready<'_>, beam: &BeamConfig) -> Result<Vec<Vec<ScoredItem>>> {
        let map = self.retriever.index.identifier_map();
        self.filters.check(self.retriever.index.trie().len(), ready.len())?;
        let mut all = vec![Vec::new(); ready.len()];
        let mut open: Vec<usize> = (0..ready.len()).collect();
        let mut wider = beam.clone();
        loop {
            let mut again = Vec::new();
            for (&query, mut found) in open.iter().zip(self.search(ready, &open, &wider)?) {
                let exhausted = found.len() < wider.width;
                map.distinct(&mut found, |scored| scored.item);
                if found.len() < beam.width && !exhausted && !map.are_single() {
                    again.push(query);
                }
                found.truncate(beam.width);
                all[query] = found;
            }
            if again.is_empty() {
                return Ok(all);
            }
            (open, wider.width) = (again, 2 * wider.width);
        }
    }

    /// A beam search for some of the queries.
    fn search(
        &self,
        ready: &Ready<'_>,
        some: &[usize],
        beam: &BeamConfig,
    ) -> Result<Vec<Vec<ScoredItem>>> {
        let Retriever { engine, tokenizer, index, .. } = self.retriever;
        let space = SearchSpace::from(&**index);
        let each: Vec<Option<&Filter>> = some.iter().map(|&query| self.filters.of(query)).collect();
        if let Ready::Tokens(all) = ready {
            let rows: Vec<&[u32]> = some.iter().map(|&query| all[query].as_slice()).collect();
            let space = space.with_filters(Filters::Each(&each));
            return engine.search(&rows, tokenizer.padding(), space, beam);
        }
        let mut all = Vec::with_capacity(some.len());
        for (some, each) in some.chunks(BATCH).zip(each.chunks(BATCH)) {
            let space = space.with_filters(Filters::Each(each));
            all.extend(engine.beam_search(&self.encode(ready, some)?, space, beam)?);
        }
        Ok(all)
    }

    /// Keeps the best of every cluster.
    fn thin_out(&self, found: &mut Vec<ScoredItem>) -> Result<()> {
        let index = &self.retriever.index;
        let mut taken = HashMap::new();
        let mut kept = Vec::with_capacity(self.top);
        for &scored in &*found {
            let identifier = index.trie().identifier_of(scored.item)?;
            let cluster = identifier.tokens()[..=index.leading_levels()].to_vec();
            let count = taken.entry(cluster).or_insert(0usize);
            if *count < self.per_cluster {
                *count += 1;
                kept.push(scored);
            }
        }
        *found = kept;
        Ok(())
    }

    /// Hits of scored identifier rows.
    pub(super) fn hits(&self, found: Vec<ScoredItem>) -> Result<Vec<Hit>> {
        let index = &self.retriever.index;
        let hit = |scored: ScoredItem| {
            let item = index.identifier_map().of(scored.item);
            Ok(Hit {
                id: index.ids().get(item as usize).to_string(),
                item,
                score: scored.score,
                identifier: index.trie().identifier_of(scored.item)?,
                metadata: index.metadata().map(|all| all.get(item as usize)).transpose()?,
            })
        };
        found.into_iter().map(hit).collect()
    }
}

impl Ready<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tokens(all) => all.len(),
            Self::Embeddings(rows, _) => rows.len(),
        }
    }
}

fn wrong_width(expected: usize, found: usize) -> Error {
    Error::features("embeddings to search with")
        .expected(format!("{expected} numbers each"))
        .found(found.to_string())
        .fix("use the encoder that the index, or its projection, was made with")
}
