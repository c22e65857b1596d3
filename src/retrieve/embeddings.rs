//! Queries that are embeddings: more like this, or of another kind than text (ours).

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{Retriever, SearchAll};
use crate::{
    decode::{Answer, BeamConfig},
    error::{Error, Result},
    features::Features,
    nn::QueryProjection,
    trie::Filters,
};

/// Embeddings encoded at once.
const BATCH: usize = 32;

impl<B: Backend> Retriever<B> {
    /// Searches with embeddings from now on through a projection to the words of a query.
    ///
    /// # Errors
    /// [`Error::Model`] for words of another width, or more of them than the text encoder has positions for.
    pub fn with_projection(self, projection: QueryProjection<B>) -> Result<Self> {
        let encoder = self.model().encoder();
        let most = encoder.max_tokens().unwrap_or(usize::MAX);
        let (d_model, tokens) = (projection.d_model(), projection.tokens());
        if d_model != encoder.d_model() || tokens > most {
            return Err(Error::model("query projection")
                .expected(format!("at most {most} words of width {}", encoder.d_model()))
                .found(format!("{tokens} of width {d_model}"))
                .fix(
                    "fit the projection to the network of this index (retrieve::ProjectionConfig)",
                ));
        }
        Ok(Self { projection: Some(projection), ..self })
    }

    /// The map from embeddings to words, if there is one.
    pub fn projection(&self) -> Option<&QueryProjection<B>> {
        self.projection.as_ref()
    }

    /// Starts a search for candidates by embeddings in place of texts.
    ///
    /// A network that is guided by its candidates' geometry needs nothing else: embeddings are of the encoder of the
    /// candidates, the space of the index, if it has one, maps them to the vectors that guide the search, and the decoder
    /// has no say. Any other network needs a projection ([`Retriever::with_projection`]), and embeddings like those that
    /// it was fitted on, which may be of another kind than the candidates'.
    ///
    /// # Shapes
    /// - `rows`: `[queries, D]`
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> cart_retrieval::Result<()> {
    /// use burn::backend::Flex;
    /// use cart_retrieval::{features::Features, retrieve::Retriever};
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let photo = Features::open("photo.npy")?;
    /// for hit in &retriever.search_embeddings(&photo).top(10).run()?[0] {
    ///     println!("{}  {:.3}", hit.id, hit.score);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn search_embeddings<'a>(&'a self, rows: &'a Features) -> SearchAll<'a, B, String> {
        SearchAll::of_embeddings(self, rows)
    }

    /// Answers of embeddings, in their order.
    pub(super) fn answer_embeddings(
        &self,
        rows: &Features,
        beam: &BeamConfig,
        filters: Filters<'_>,
    ) -> Result<Vec<Vec<Answer>>> {
        rows.check()?;
        let device = self.device();
        let guided = self.model().alignment().is_some_and(|head| head.is_guided());
        let vectors = match self.model().alignment() {
            Some(_) => Some(self.vectors_of(rows)?),
            None => None,
        };
        let projection = self.projection.as_ref();
        match projection {
            Some(projection) if projection.dim() != rows.dim() => {
                return Err(wrong_width(projection.dim(), rows.dim()));
            }
            None if !guided => {
                return Err(Error::query("embeddings").expected("an index with a projection to the words of a query, or a guided network").found("neither").fix("fit one (retrieve::ProjectionConfig) and add it (Retriever::with_projection)"));
            }
            _ => {}
        }
        // Without words there is nothing for the decoder to read.
        let deaf = BeamConfig { decoder_weight: 0.0, ..beam.clone() };
        let beam = if projection.is_none() { &deaf } else { beam };
        self.distinct(rows.len(), beam, filters, |asked, space, beam| {
            let mut answers = Vec::with_capacity(asked.len());
            for (number, some) in asked.chunks(BATCH).enumerate() {
                let tensor = |rows: &Features| {
                    let values: Vec<f32> =
                        some.iter().flat_map(|&query| rows.row(query)).copied().collect();
                    let data = TensorData::new(values, [some.len(), rows.dim()]);
                    Tensor::<B, 2>::from_data(data, device)
                };
                let words = match projection {
                    Some(projection) => projection.forward(tensor(rows)),
                    None => {
                        Tensor::zeros([some.len(), 1, self.model().encoder().d_model()], device)
                    }
                };
                let encoded = self.model().encode_words(words, vectors.as_ref().map(tensor));
                let first = number * BATCH;
                let each: Vec<_> =
                    (first..first + some.len()).map(|at| space.filters.of(at)).collect();
                let space = space.with_filters(Filters::Each(&each));
                answers.extend(self.engine.search_encoded(&encoded, space, beam)?);
            }
            Ok(answers)
        })
    }

    /// Embeddings where the candidates lie, each of length 1.
    fn vectors_of(&self, rows: &Features) -> Result<Features> {
        let vectors = match self.space() {
            Some(space) => space.embed(rows, None)?,
            None => rows.clone(),
        };
        match self.index().geometry().map(|geometry| geometry.dim()) {
            Some(dim) if dim != vectors.dim() => Err(wrong_width(dim, vectors.dim())),
            _ => Ok(vectors.normalised()),
        }
    }
}

fn wrong_width(expected: usize, found: usize) -> Error {
    Error::features("embeddings to search with")
        .expected(format!("{expected} numbers each"))
        .found(found.to_string())
        .fix("use the encoder that the index, or its projection, was made with")
}
