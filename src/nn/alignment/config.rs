//! Settings of the alignment.

use burn::{
    module::Param,
    nn::Linear,
    tensor::{Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{AlignmentHead, GAIN};
use crate::{
    error::{Error, Result, ensure_in},
    nn::{LexicalHead, WeightInit},
    storage::count,
};

/// The network around an alignment head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlignmentInput {
    /// Width of pooled queries.
    pub d_model: usize,
    /// Tokens of the text vocabulary.
    pub vocabulary: usize,
    /// Tokens of an identifier.
    pub levels: usize,
}

/// Settings of the alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "AlignmentConfig::without_dim", deny_unknown_fields)]
pub struct AlignmentConfig {
    /// Width of the candidates' vectors.
    pub dim: usize,
    /// Factor of the cosine in the logits, one a level and one for the contrast, or one for all.
    ///
    /// With one factor for all levels, scores of prefixes add up to those of a search over all
    /// candidates. Large factors fit the training texts better and rank worse: for them a Gaussian
    /// says little about the candidates below a node.
    pub scales: Vec<f32>,
    /// Whether the geometry of the candidates guides the decoder; without that, the aligned query
    /// serves the alignment loss and reranking only.
    pub guided: bool,
    /// Whether the factors are trained.
    pub learn_scales: bool,
    /// Whether the map of the query is trained where it starts as the identity. Trained on the few
    /// captions of a small set, it loses more than it gains; a map between spaces of different
    /// width is always trained.
    pub learn_map: bool,
    /// Weight of the cosine of the lexical part of a query's vector ([`LexicalHead`]); `None`
    /// without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<f32>,
}

impl AlignmentConfig {
    /// What a file that leaves settings out starts from; [`validate`](Self::validate) misses the
    /// width.
    fn without_dim() -> Self {
        Self::new(0)
    }

    /// Candidates of this width, with guidance.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            scales: vec![10.0],
            guided: true,
            learn_scales: false,
            learn_map: false,
            words: None,
        }
    }

    /// Checks ranges for identifiers of `levels` tokens.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self, levels: usize) -> Result<()> {
        ensure_in("alignment dim", self.dim as f64, "[1, inf)", "use the width of the vectors")?;
        let usable = self.scales.iter().all(|scale| *scale > 0.0 && scale.is_finite());
        Error::config("alignment scales")
            .expected(format!("one number above 0, or {} of them", levels + 1))
            .found(format!("{:?}", self.scales))
            .fix_if(!usable || ![1, levels + 1].contains(&self.scales.len()), "10 is usual")
    }

    /// Initialises the head.
    pub fn init<B: Backend>(
        &self,
        input: AlignmentInput,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> AlignmentHead<B> {
        let AlignmentInput { vocabulary, levels, .. } = input;
        let d_model = self.d_query(input.d_model);
        let projection = match d_model == self.dim {
            // Added to the query, so it starts as no change.
            true => Linear {
                weight: Param::from_tensor(Tensor::zeros([d_model, self.dim], device)),
                bias: Some(Param::from_tensor(Tensor::zeros([self.dim], device))),
            },
            false => init.linear(d_model, self.dim, device),
        };
        let scale = |level: usize| self.scales[level.min(self.scales.len() - 1)].ln() / GAIN;
        let scales: Vec<f32> = (0..=levels).map(scale).collect();
        let scales = Tensor::from_data(TensorData::new(scales, [levels + 1]), device);
        AlignmentHead {
            projection,
            log_scales: Param::from_tensor(scales),
            guided: self.guided,
            learn_scales: self.learn_scales,
            learn_map: self.learn_map,
            words: self
                .words
                .map(|weight| LexicalHead::new(&vec![0.0; vocabulary], weight, device)),
        }
    }

    /// Width of a query's vector before it is mapped, of pooled queries of width `d_model`.
    fn d_query(&self, d_model: usize) -> usize {
        if self.words.is_some() { d_model.saturating_mul(2) } else { d_model }
    }

    /// Number of parameters.
    pub fn num_params(&self, input: AlignmentInput) -> usize {
        let AlignmentInput { d_model, vocabulary, levels } = input;
        let factors = if self.words.is_some() { vocabulary } else { 0 };
        count(&[&[self.d_query(d_model), self.dim], &[self.dim], &[levels], &[1], &[factors]])
    }
}
