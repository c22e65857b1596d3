//! Texts as vectors: what the text encoder makes of captions, pooled.

use burn::tensor::{Tensor, backend::Backend};

use crate::{
    data::{ItemCaption, QueryBatch, TextTokenizer},
    error::{Error, Result},
    kernels::normalise,
    nn::{LexicalHead, TextEncoder},
};

/// Texts encoded at once.
const BATCH: usize = 32;

/// Vectors of texts, each of length 1, and the items that the texts describe.
#[derive(Debug, Clone, PartialEq)]
pub struct TextVectors {
    pub(super) dim: usize,
    pub(super) values: Vec<f32>,
    pub(super) items: Vec<u32>,
    /// One a text; empty where all weigh the same.
    pub(super) weights: Vec<f32>,
}

impl TextVectors {
    /// Scales vectors to length 1.
    ///
    /// # Shapes
    /// - `values`: `[texts, dim]`, `items`: `[texts]`
    ///
    /// # Errors
    /// [`Error::Captions`] when the shapes disagree or a number is not finite.
    pub fn new(dim: usize, mut values: Vec<f32>, items: Vec<u32>) -> Result<Self> {
        let remedy = "pass a vector and an item for every text";
        Error::captions("vectors of texts")
            .expected(format!("{} rows of {dim} numbers, at least one", items.len()))
            .found(format!("{} numbers", values.len()))
            .fix_if(dim == 0 || values.len() != items.len() * dim, remedy)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::captions(format!("vector of text {}", at / dim))
                .expected("finite numbers")
                .found(values[at].to_string())
                .fix("check the weights of the text encoder"));
        }
        values.chunks_exact_mut(dim).for_each(normalise);
        Ok(Self { dim, values, items, weights: Vec::new() })
    }

    /// Gives texts weights, relative to each other: 0 leaves a text out. Without any, all weigh the
    /// same.
    ///
    /// # Shapes
    /// - `weights`: `[texts]`
    ///
    /// # Errors
    /// [`Error::Captions`] when there is not one weight a text, or one is below 0 or not finite.
    pub fn with_weights(self, weights: Vec<f32>) -> Result<Self> {
        let wrong = weights.iter().position(|weight| !(*weight >= 0.0 && weight.is_finite()));
        let remedy = "pass a weight for every text";
        Error::captions("weights of texts")
            .expected(format!("{} finite numbers of at least 0", self.len()))
            .found(match wrong {
                Some(at) => format!("{} for text {at}", weights[at]),
                None => weights.len().to_string(),
            })
            .fix_if(weights.len() != self.len() || wrong.is_some(), remedy)?;
        // Only their proportions count.
        let most = weights.iter().copied().fold(0.0, f32::max);
        let alike = weights.iter().all(|&weight| weight == most);
        let weights = match alike && most > 0.0 {
            true => Vec::new(),
            false => weights.iter().map(|weight| weight / most.max(f32::MIN_POSITIVE)).collect(),
        };
        Ok(Self { weights, ..self })
    }

    /// The weight of a text, relative to the largest.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn weight(&self, text: usize) -> f32 {
        if self.weights.is_empty() { 1.0 } else { self.weights[text] }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vector of a text, of length 1.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn row(&self, text: usize) -> &[f32] {
        &self.values[text * self.dim..(text + 1) * self.dim]
    }

    /// Puts another vector of length 1 in a text's place.
    pub(super) fn set(&mut self, text: usize, row: &[f32]) {
        self.values[text * self.dim..(text + 1) * self.dim].copy_from_slice(row);
    }

    /// The item that every text describes.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// All vectors, `[texts, dim]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }
}

/// A text encoder with its tokenizer: makes vectors of texts.
///
/// # Example
/// ```no_run
/// # use burn::backend::Flex;
/// # use cart_retrieval::{expert::{TextEmbedder, IdfWeights}, data::{ItemCaption, TextTokenizer},
/// #     nn::TextEncoder};
/// # fn f(
/// #     encoder: TextEncoder<Flex>, tokenizer: TextTokenizer, weights: IdfWeights, captions: Vec<ItemCaption>,
/// # ) -> cart_retrieval::Result<()> {
/// let device = Default::default();
/// let lexical_head = Some(weights.head::<Flex>(&device));
/// let embedder = TextEmbedder { encoder: &encoder, tokenizer: &tokenizer, lexical_head };
/// let vectors = embedder.embed(&captions, &device)?;
/// assert_eq!(vectors.dim(), embedder.dim());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TextEmbedder<'a, B: Backend> {
    /// The encoder.
    pub encoder: &'a TextEncoder<B>,
    /// The encoder's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Appends the weighted sum of the token embeddings, which makes vectors twice as wide; `None`
    /// gives the pooled output alone.
    pub lexical_head: Option<LexicalHead<B>>,
}

impl<B: Backend> TextEmbedder<'_, B> {
    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.encoder.d_model() * if self.lexical_head.is_some() { 2 } else { 1 }
    }

    /// Vectors of captions, without dropout, in batches of similar length. Texts have the weights
    /// of their captions.
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`] for a blank caption, naming it.
    pub fn embed(&self, captions: &[ItemCaption], device: &B::Device) -> Result<TextVectors> {
        let tokens = captions
            .iter()
            .map(|caption| self.tokenizer.encode(&caption.text))
            .collect::<Result<Vec<Vec<u32>>>>()?;
        let dim = self.dim();
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&text| tokens[text].len());
        let mut values = vec![0f32; tokens.len() * dim];
        for chunk in order.chunks(BATCH) {
            let rows: Vec<&[u32]> = chunk.iter().map(|&text| tokens[text].as_slice()).collect();
            let batch = QueryBatch::<B>::new(&rows, self.tokenizer.padding(), device)?;
            let rows: Vec<f32> = self.forward(batch).into_data().iter::<f32>().collect();
            for (&text, row) in chunk.iter().zip(rows.chunks_exact(dim)) {
                values[text * dim..(text + 1) * dim].copy_from_slice(row);
            }
        }
        let items = captions.iter().map(|caption| caption.item).collect();
        TextVectors::new(dim, values, items)?
            .with_weights(captions.iter().map(|caption| caption.weight).collect())
    }

    /// Vectors of a batch of texts, not scaled.
    ///
    /// # Shapes
    /// - returns: `[batch, dim]`
    pub(super) fn forward(&self, batch: QueryBatch<B>) -> Tensor<B, 2> {
        let encoded = self.encoder.forward(batch.tokens.clone(), batch.padding.clone());
        let pooled = encoded.pooled();
        match &self.lexical_head {
            Some(head) => {
                head.append(pooled, self.encoder.token_embeddings(), batch.tokens, batch.padding)
            }
            None => pooled,
        }
    }
}
