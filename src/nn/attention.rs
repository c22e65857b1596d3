//! Multi-head attention, with keys and values that outlive the call.
//!
//! burn's own attention drops raw scores before the softmax and hides its cache; this one drops
//! probabilities, as every paper does, and its caches can be reordered by beam.

use burn::{
    module::Module,
    nn::Linear,
    tensor::{Bool, Int, Tensor, activation::softmax, backend::Backend},
};

use super::{
    Dropout, WeightInit,
    init::{apply, as_dtype, widened},
};

/// What is added to the score of a key that must not be seen: far below any score, within f16.
const HIDDEN: f64 = -3e4;

/// Shape of an attention block.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Width of queries and output.
    pub d_model: usize,
    /// Width of the sequence that keys and values come from.
    pub d_context: usize,
    /// Number of heads; divides `d_model`.
    pub n_heads: usize,
    /// Dropout of the attention probabilities.
    pub dropout: f64,
}

/// Keys and values of a sequence, ready for any number of queries.
#[derive(Debug, Clone)]
pub struct KeyValue<B: Backend> {
    /// `[batch, heads, d_head, tokens]`
    key: Tensor<B, 4>,
    /// `[batch, heads, tokens, d_head]`
    value: Tensor<B, 4>,
}

impl<B: Backend> KeyValue<B> {
    /// Keys and values of some sequences of the batch.
    ///
    /// # Shapes
    /// - `indices`: `[selected]`
    pub fn select(&self, indices: Tensor<B, 1, Int>) -> Self {
        Self {
            key: self.key.clone().select(0, indices.clone()),
            value: self.value.clone().select(0, indices),
        }
    }

    /// One more key and value behind those of every sequence, the same for all.
    ///
    /// # Shapes
    /// - `key`, `value`: `[1, d_model]`
    pub fn with_extra(self, key: Tensor<B, 2>, value: Tensor<B, 2>) -> Self {
        let [batch, heads, d_head, _] = self.key.dims();
        let key = key.reshape([1, heads, d_head, 1]).repeat_dim(0, batch);
        let value = value.reshape([1, heads, 1, d_head]).repeat_dim(0, batch);
        Self {
            key: Tensor::cat(vec![self.key, key], 3),
            value: Tensor::cat(vec![self.value, value], 2),
        }
    }
}

/// Keys and values of the tokens generated so far, one row a beam.
#[derive(Debug, Clone)]
pub struct SelfCache<B: Backend> {
    state: Option<KeyValue<B>>,
}

impl<B: Backend> Default for SelfCache<B> {
    fn default() -> Self {
        Self { state: None }
    }
}

impl<B: Backend> SelfCache<B> {
    /// Makes row i what row `parents[i]` was. The number of rows becomes that of `parents`.
    ///
    /// # Shapes
    /// - `parents`: `[rows]`
    pub fn reorder(&mut self, parents: &Tensor<B, 1, Int>) {
        if let Some(state) = &mut self.state {
            *state = state.select(parents.clone());
        }
    }

    fn append(&mut self, new: KeyValue<B>) -> KeyValue<B> {
        let state = match self.state.take() {
            None => new,
            Some(old) => KeyValue {
                key: Tensor::cat(vec![old.key, new.key], 3),
                value: Tensor::cat(vec![old.value, new.value], 2),
            },
        };
        self.state = Some(state.clone());
        state
    }
}

/// Multi-head attention (Vaswani et al. 2017), probabilities dropped after the softmax.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    pub(super) query: Linear<B>,
    pub(super) key: Linear<B>,
    pub(super) value: Linear<B>,
    pub(super) output: Linear<B>,
    pub(super) dropout: Dropout,
    pub(super) n_heads: usize,
}

impl AttentionConfig {
    /// An attention block over its own sequence.
    pub fn new(d_model: usize, n_heads: usize, dropout: f64) -> Self {
        Self { d_model, d_context: d_model, n_heads, dropout }
    }

    /// Initialises the block.
    ///
    /// # Panics
    /// When `n_heads` does not divide `d_model`.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> Attention<B> {
        assert!(
            self.n_heads > 0 && self.d_model.is_multiple_of(self.n_heads),
            "{} heads must divide a width of {}",
            self.n_heads,
            self.d_model
        );
        Attention {
            query: init.linear(self.d_model, self.d_model, device),
            key: init.linear(self.d_context, self.d_model, device),
            value: init.linear(self.d_context, self.d_model, device),
            output: init.linear(self.d_model, self.d_model, device),
            dropout: Dropout::new(self.dropout),
            n_heads: self.n_heads,
        }
    }
}

impl<B: Backend> Attention<B> {
    /// Keys and values of a sequence.
    ///
    /// # Shapes
    /// - `context`: `[batch, tokens, d_context]`
    pub fn key_value(&self, context: Tensor<B, 3>) -> KeyValue<B> {
        KeyValue {
            key: self.split(apply(&self.key, context.clone())).swap_dims(2, 3),
            value: self.split(apply(&self.value, context)),
        }
    }

    /// Attends from queries to prepared keys and values.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n, d_model]`
    /// - `bias`, added to the scores: `[batch or 1, heads or 1, n or 1, tokens]`
    /// - returns: `[batch, n, d_model]`
    pub fn forward(
        &self,
        queries: Tensor<B, 3>,
        context: &KeyValue<B>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Tensor<B, 3> {
        let dtype = queries.dtype();
        as_dtype(self.attend_joined(self.queries(queries), context, bias), dtype)
    }

    /// The same without the division of scores by the root of a head's width, which may have any
    /// width (T5).
    pub(super) fn forward_unscaled(
        &self,
        queries: Tensor<B, 3>,
        context: &KeyValue<B>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Tensor<B, 3> {
        let dtype = queries.dtype();
        let queries = self.split(apply(&self.query, queries));
        as_dtype(self.attend_joined(queries, context, bias), dtype)
    }

    fn attend_joined(
        &self,
        queries: Tensor<B, 4>,
        context: &KeyValue<B>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Tensor<B, 3> {
        let attended = self.attend(queries, context, bias);
        let [batch, heads, n, d_head] = attended.dims();
        self.project(attended.swap_dims(1, 2).reshape([batch, n, heads * d_head]))
    }

    /// Attends within a sequence whose earlier tokens are in `cache`, which grows by this one.
    ///
    /// # Shapes
    /// - `token`: `[rows, 1, d_model]`
    /// - returns: `[rows, 1, d_model]`
    pub fn forward_cached(&self, token: Tensor<B, 3>, cache: &mut SelfCache<B>) -> Tensor<B, 3> {
        let context = cache.append(self.key_value(token.clone()));
        self.forward(token, &context, None)
    }

    /// Scaled queries split by head: `[batch, n, d_model]` to `[batch, heads, n, d_head]`.
    pub(super) fn queries(&self, queries: Tensor<B, 3>) -> Tensor<B, 4> {
        let [_, _, d_model] = queries.dims();
        let scale = ((d_model / self.n_heads) as f64).sqrt().recip();
        self.split(apply(&self.query, queries).mul_scalar(scale))
    }

    /// Softmax attention of `[batch, heads, n, d_head]` queries.
    pub(super) fn attend(
        &self,
        queries: Tensor<B, 4>,
        context: &KeyValue<B>,
        bias: Option<&Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        let dtype = queries.dtype();
        let mut scores = widened(queries.matmul(context.key.clone()));
        if let Some(bias) = bias {
            scores = scores + bias.clone();
        }
        let weights = self.dropout.forward(softmax(scores, 3));
        as_dtype(weights, dtype).matmul(context.value.clone())
    }

    /// The output projection, `[batch, n, d_model]` to the same.
    pub(super) fn project(&self, joined: Tensor<B, 3>) -> Tensor<B, 3> {
        apply(&self.output, joined)
    }

    /// Number of heads.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    fn split(&self, joined: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, n, d_model] = joined.dims();
        joined.reshape([batch, n, self.n_heads, d_model / self.n_heads]).swap_dims(1, 2)
    }
}

/// Scores to add so that position i sees positions `0..=i` only: `[1, 1, n, n]`.
pub fn causal_bias<B: Backend>(n: usize, device: &B::Device) -> Tensor<B, 4> {
    let visible = Tensor::<B, 2, Bool>::tril_mask([n, n], 0, device);
    Tensor::<B, 2>::zeros([n, n], device).mask_fill(visible, HIDDEN).reshape([1, 1, n, n])
}

/// Scores to add so that padding is not seen.
///
/// # Shapes
/// - `padding`, true where there is no token: `[batch, tokens]`
/// - returns: `[batch, 1, 1, tokens]`
pub fn padding_bias<B: Backend>(padding: Tensor<B, 2, Bool>) -> Tensor<B, 4> {
    let [batch, tokens] = padding.dims();
    padding.float().mul_scalar(HIDDEN).reshape([batch, 1, 1, tokens])
}

/// A bias for all heads and queries, laid out in full: adding a broadcast one costs several times
/// as much on `flex`, once per layer.
///
/// # Shapes
/// - `bias`: `[batch, 1, 1, tokens]`
/// - returns: `[batch, heads, n, tokens]`
pub(super) fn laid_out<B: Backend>(bias: &Tensor<B, 4>, heads: usize, n: usize) -> Tensor<B, 4> {
    let [batch, _, _, tokens] = bias.dims();
    bias.clone().repeat_dim(2, heads * n).reshape([batch, heads, n, tokens])
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::Tolerance};

    use super::*;

    type B = Flex;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
        WeightInit::new(shape.iter().sum::<usize>() as u64)
            .normal(shape, 1.0, &Default::default())
            .val()
    }

    fn values<const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
        tensor.to_data().to_vec().unwrap()
    }

    /// Twin: the textbook formula with loops over batch, head, query and key.
    fn naive(
        attention: &Attention<B>,
        x: &Tensor<B, 3>,
        ctx: &Tensor<B, 3>,
        hidden: &[bool],
    ) -> Vec<f32> {
        let ([b, n, d], [_, t, _]) = (x.dims(), ctx.dims());
        let h = attention.n_heads;
        let dk = d / h;
        let q = values(&attention.query.forward(x.clone()));
        let k = values(&attention.key.forward(ctx.clone()));
        let v = values(&attention.value.forward(ctx.clone()));
        let mut joined = vec![0.0f32; b * n * d];
        for (batch, head, i) in
            (0..b).flat_map(|b| (0..h).flat_map(move |h| (0..n).map(move |i| (b, h, i))))
        {
            let mut scores = vec![f32::NEG_INFINITY; t];
            for j in (0..t).filter(|j| !hidden[batch * t + j]) {
                scores[j] = (0..dk)
                    .map(|c| {
                        q[(batch * n + i) * d + head * dk + c]
                            * k[(batch * t + j) * d + head * dk + c]
                    })
                    .sum::<f32>()
                    / (dk as f32).sqrt();
            }
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f32 = weights.iter().sum();
            for c in 0..dk {
                joined[(batch * n + i) * d + head * dk + c] = (0..t)
                    .map(|j| weights[j] / total * v[(batch * t + j) * d + head * dk + c])
                    .sum();
            }
        }
        let joined = Tensor::<B, 1>::from_floats(joined.as_slice(), &Default::default());
        values(&attention.output.forward(joined.reshape([b, n, d])))
    }

    #[test]
    fn equals_the_textbook_formula_with_padding() {
        let device = Default::default();
        let attention: Attention<B> =
            AttentionConfig { d_model: 8, d_context: 6, n_heads: 2, dropout: 0.5 }
                .init(&mut WeightInit::new(1), &device);
        let (x, ctx) = (random([2, 3, 8]), random([2, 4, 6]));
        let hidden = [false, false, true, false, false, false, false, true];
        let padding = Tensor::<B, 2, Bool>::from_data(
            burn::tensor::TensorData::new(hidden.to_vec(), [2, 4]),
            &device,
        );
        let got = attention.forward(
            x.clone(),
            &attention.key_value(ctx.clone()),
            Some(&padding_bias(padding)),
        );
        let expected = naive(&attention, &x, &ctx, &hidden);
        for (a, b) in values(&got).iter().zip(&expected) {
            approx::assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
    }

    #[test]
    fn a_causal_position_does_not_see_the_future() {
        let device = Default::default();
        let attention: Attention<B> =
            AttentionConfig::new(8, 2, 0.0).init(&mut WeightInit::new(2), &device);
        let x = random([1, 5, 8]);
        let run = |x: Tensor<B, 3>| {
            attention.forward(x.clone(), &attention.key_value(x), Some(&causal_bias(5, &device)))
        };
        let full = run(x.clone());
        let changed = run(x.clone().slice_assign([0..1, 4..5, 0..8], random([1, 1, 8])));
        let head = |t: &Tensor<B, 3>| t.clone().slice([0..1, 0..4, 0..8]).into_data();
        head(&full).assert_approx_eq::<f32>(&head(&changed), Tolerance::absolute(1e-6));
        assert_ne!(full.to_data(), changed.to_data());
    }

    #[test]
    fn the_cache_gives_what_the_whole_sequence_gives_and_follows_its_beams() {
        let device = Default::default();
        let attention: Attention<B> =
            AttentionConfig::new(8, 4, 0.0).init(&mut WeightInit::new(3), &device);
        let x = random([2, 4, 8]);
        let order = Tensor::<B, 1, Int>::from_ints([1, 0, 1], &device);
        let mut cache = SelfCache::default();
        for step in 0..3 {
            attention.forward_cached(x.clone().narrow(1, step, 1), &mut cache);
        }
        cache.reorder(&order);
        let reordered = x.select(0, order);
        let last = attention.forward_cached(reordered.clone().narrow(1, 3, 1), &mut cache);
        let whole = attention.forward(
            reordered.clone(),
            &attention.key_value(reordered),
            Some(&causal_bias(4, &device)),
        );
        last.into_data()
            .assert_approx_eq::<f32>(&whole.narrow(1, 3, 1).into_data(), Tolerance::absolute(1e-5));
    }
}
