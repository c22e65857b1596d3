//! HTSAT, the sound tower of CLAP: a transformer over shifted windows of a spectrogram.
//!
//! Source: Chen et al. 2022 (arXiv 2202.00874) on Liu et al. 2021 (arXiv 2103.14030), in the form
//! of LAION's CLAP (Wu et al. 2023, arXiv 2211.06687) without feature fusion.

use burn::{
    module::{Module, Param},
    nn::{Embedding, LayerNorm, LayerNormConfig, Linear},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use cart_retrieval::{
    Error, Result,
    expert::{Activation, Attention, AttentionConfig, FeedForward, FeedForwardConfig, WeightInit},
    members::{apply, check_sizes, count, layer_params},
};
use serde::{Deserialize, Serialize};

/// What keeps the division by a band's deviation, and those of the norms between stages, from zero.
const EPSILON: f64 = 1e-5;
/// What is added to the score of a place of another region: that of the published model.
const APART: f32 = -100.0;

/// Shape of HTSAT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HtsatConfig {
    /// Bands of the spectrogram.
    pub mels: usize,
    /// Side of the square that the spectrogram is folded into.
    pub side: usize,
    /// Side of a patch.
    pub patch: usize,
    /// Width of the first stage; every further one is twice as wide.
    pub d_model: usize,
    /// Layers of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub n_heads: Vec<usize>,
    /// Side of a window in patches.
    pub window: usize,
    /// Inner width of the feed-forward blocks, in widths of their stage.
    pub ff_ratio: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// What keeps the divisions of the layers' norms from zero.
    pub norm_epsilon: f64,
}

/// Gain, bias, mean and variance of each band, as a batch norm has learnt them.
#[derive(Module, Debug)]
struct Bands<B: Backend> {
    gain: Param<Tensor<B, 1>>,
    bias: Param<Tensor<B, 1>>,
    mean: Param<Tensor<B, 1>>,
    variance: Param<Tensor<B, 1>>,
}

/// A pre-norm layer whose attention stays within windows.
#[derive(Module, Debug)]
struct WindowLayer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    /// Scores by distance within a window, `[(2 window - 1)^2, heads]`.
    distances: Embedding<B>,
    feed_forward: FeedForward<B>,
    feed_forward_norm: LayerNorm<B>,
}

/// Makes one place of two times two, twice as wide.
#[derive(Module, Debug)]
struct Merge<B: Backend> {
    norm: LayerNorm<B>,
    reduction: Linear<B>,
}

#[derive(Module, Debug)]
struct Stage<B: Backend> {
    layers: Vec<WindowLayer<B>>,
    /// Behind all stages but the last.
    merge: Option<Merge<B>>,
}

/// A transformer over shifted windows of a log-mel spectrogram; the mean of its last places stands
/// for the sound.
#[derive(Module, Debug)]
pub struct HtsatEncoder<B: Backend> {
    bands: Bands<B>,
    patches: Linear<B>,
    patch_norm: LayerNorm<B>,
    stages: Vec<Stage<B>>,
    norm: LayerNorm<B>,
    #[module(skip)]
    side: usize,
    #[module(skip)]
    patch: usize,
    #[module(skip)]
    window: usize,
}

impl HtsatConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, expected: String, found: String| {
            Err(Error::config(name)
                .expected(expected)
                .found(found)
                .fix("take the settings of a published model"))
        };
        if self.depths.is_empty()
            || self.depths.len() > 8
            || self.depths.len() != self.n_heads.len()
        {
            return wrong(
                "depths",
                "1 to 8 stages, each with its number of heads".into(),
                format!("{:?} layers, {:?} heads", self.depths, self.n_heads),
            );
        }
        check_sizes(
            &[
                ("mels", self.mels),
                ("side", self.side),
                ("patch", self.patch),
                ("d_model", self.d_model),
                ("window", self.window),
                ("ff_ratio", self.ff_ratio),
            ],
            None,
            &[],
        )?;
        for (stage, (&layers, &heads)) in self.depths.iter().zip(&self.n_heads).enumerate() {
            let width = self.width(stage);
            check_sizes(&[("depths", layers), ("n_heads", heads)], Some((width, heads)), &[])?;
        }
        if !self.side.is_multiple_of(self.mels) || !self.side.is_multiple_of(self.patch) {
            return wrong(
                "side",
                format!("a multiple of {} bands and of patches of {}", self.mels, self.patch),
                self.side.to_string(),
            );
        }
        let grid = self.side / self.patch;
        let last = 1 << (self.depths.len() - 1);
        let fits = |stage: usize| (grid >> stage).is_multiple_of(self.window);
        if !grid.is_multiple_of(last) || !(0..self.depths.len()).all(fits) {
            return wrong(
                "window",
                format!(
                    "a divisor of {grid} patches a side, halved {} times",
                    self.depths.len() - 1
                ),
                self.window.to_string(),
            );
        }
        Ok(())
    }

    /// Width of a stage.
    fn width(&self, stage: usize) -> usize {
        self.d_model << stage
    }

    /// Width of what stands for a sound.
    pub fn d_output(&self) -> usize {
        self.width(self.depths.len().saturating_sub(1))
    }

    /// Most frames of a spectrogram; shorter ones are stretched to it.
    pub fn frames(&self) -> usize {
        self.side * (self.side / self.mels)
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> HtsatEncoder<B> {
        let filled = |value: f32| {
            let values = TensorData::new(vec![value; self.mels], [self.mels]);
            Param::from_tensor(Tensor::from_data(values, device))
        };
        let norm =
            |width, epsilon| LayerNormConfig::new(width).with_epsilon(epsilon).init::<B>(device);
        let last = self.depths.len() - 1;
        let mut stage = |at: usize| {
            let (width, heads) = (self.width(at), self.n_heads[at]);
            let distances = (2 * self.window - 1).pow(2);
            let layers = (0..self.depths[at])
                .map(|_| WindowLayer {
                    attention: AttentionConfig::new(width, heads, 0.0).init(init, device),
                    attention_norm: norm(width, self.norm_epsilon),
                    distances: init.embedding(distances, heads, device),
                    feed_forward: FeedForwardConfig {
                        activation: self.activation,
                        ..FeedForwardConfig::new(width, self.ff_ratio * width)
                    }
                    .init(init, device),
                    feed_forward_norm: norm(width, self.norm_epsilon),
                })
                .collect();
            let merge = (at < last).then(|| Merge {
                norm: norm(4 * width, EPSILON),
                reduction: init.linear_without_bias(4 * width, 2 * width, device),
            });
            Stage { layers, merge }
        };
        let stages = (0..=last).map(&mut stage).collect();
        HtsatEncoder {
            bands: Bands {
                gain: filled(1.0),
                bias: filled(0.0),
                mean: filled(0.0),
                variance: filled(1.0),
            },
            patches: init.linear(self.patch * self.patch, self.d_model, device),
            patch_norm: norm(self.d_model, EPSILON),
            stages,
            norm: norm(self.d_output(), EPSILON),
            side: self.side,
            patch: self.patch,
            window: self.window,
        }
    }

    /// Number of parameters, mean and variance of the bands included.
    pub fn num_params(&self) -> usize {
        let stage = |(at, (&layers, &heads)): (usize, (&usize, &usize))| {
            let (d, span) = (self.width(at), 2 * self.window - 1);
            let layer = layer_params(d, count(&[&[self.ff_ratio, d]]));
            let merges = usize::from(at + 1 < self.depths.len());
            count(&[
                &[layers, layer],
                &[layers, span, span, heads],
                &[8, merges, d],
                &[8, merges, d, d],
            ])
        };
        let stages = self.depths.iter().zip(&self.n_heads).enumerate().map(stage);
        let stages = stages.fold(0, usize::saturating_add);
        let patches = count(&[&[self.patch, self.patch, self.d_model], &[3, self.d_model]]);
        count(&[&[4, self.mels], &[patches], &[stages], &[2, self.d_output()]])
    }
}

impl<B: Backend> HtsatEncoder<B> {
    /// One vector of every spectrogram.
    ///
    /// # Shapes
    /// - `mel`, log-mel spectrograms: `[batch, frames, mels]`
    /// - returns: `[batch, d_output]`
    ///
    /// # Panics
    /// When there are more frames than [`HtsatConfig::frames`], or another number of bands.
    pub fn forward(&self, mel: Tensor<B, 3>) -> Tensor<B, 2> {
        let mut states = self.hidden_states(mel);
        let last = states.pop().expect("there is a state before the first stage");
        let [batch, _, width] = last.dims();
        self.norm.forward(last).mean_dim(1).reshape([batch, width])
    }

    /// The hidden states that the reference implementation (`transformers`, with
    /// `output_hidden_states`) shows: of the patches, and behind each stage.
    ///
    /// # Shapes
    /// As [`HtsatEncoder::forward`]; returns `[batch, places, width]` each.
    ///
    /// # Panics
    /// As [`HtsatEncoder::forward`].
    pub fn hidden_states(&self, mel: Tensor<B, 3>) -> Vec<Tensor<B, 3>> {
        let mut states = vec![self.embed(mel)];
        for (at, stage) in self.stages.iter().enumerate() {
            let side = (self.side / self.patch) >> at;
            states.push(stage.forward(states[at].clone(), side, self.window));
        }
        states
    }

    /// Patches of the folded spectrogram.
    fn embed(&self, mel: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, frames, mels] = mel.dims();
        let folds = self.side / mels;
        let length = self.side * folds;
        assert!(
            frames <= length && mels == self.bands.gain.dims()[0],
            "{frames} frames of {mels} bands, of at most {length} and exactly {}",
            self.bands.gain.dims()[0]
        );
        let row = |values: &Param<Tensor<B, 1>>| values.val().reshape([1, 1, mels]);
        let deviation = row(&self.bands.variance).add_scalar(EPSILON).sqrt();
        let standard = (mel - row(&self.bands.mean)) / deviation * row(&self.bands.gain)
            + row(&self.bands.bias);
        // Times last, stretched, in so many stretches one above the other.
        let by_band = standard.swap_dims(1, 2);
        let stretched = match frames == length {
            true => by_band,
            false => {
                let matrix = Tensor::from_data(
                    TensorData::new(cubic(frames, length), [frames, length]),
                    &by_band.device(),
                );
                by_band
                    .reshape([batch * mels, frames])
                    .matmul(matrix)
                    .reshape([batch, mels, length])
            }
        };
        let picture = stretched.reshape([batch, mels, folds, self.side]).swap_dims(1, 2);
        let (size, places) = (self.patch, self.side / self.patch);
        let patches = picture
            .reshape([batch, places, size, places, size])
            .permute([0, 1, 3, 2, 4])
            .reshape([batch, places * places, size * size]);
        self.patch_norm.forward(apply(&self.patches, patches))
    }
}

impl<B: Backend> Stage<B> {
    /// # Shapes
    /// - `hidden`: `[batch, side * side, width]`
    fn forward(&self, hidden: Tensor<B, 3>, side: usize, window: usize) -> Tensor<B, 3> {
        let mut hidden = hidden;
        for (at, layer) in self.layers.iter().enumerate() {
            // A window over everything has nowhere to be shifted to.
            let shift = if at % 2 == 1 && side > window { window / 2 } else { 0 };
            hidden = layer.forward(hidden, side, window, shift);
        }
        match &self.merge {
            Some(merge) => merge.forward(hidden, side),
            None => hidden,
        }
    }
}

impl<B: Backend> WindowLayer<B> {
    fn forward(
        &self,
        hidden: Tensor<B, 3>,
        side: usize,
        window: usize,
        shift: usize,
    ) -> Tensor<B, 3> {
        let [batch, places, width] = hidden.dims();
        let (across, size) = (side / window, window * window);
        let square = |x: Tensor<B, 3>| x.reshape([batch, side, side, width]);
        let normed = rolled(square(self.attention_norm.forward(hidden.clone())), shift);
        let windows = normed
            .reshape([batch, across, window, across, window, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([batch * across * across, size, width]);
        let bias = self.bias(side, window, shift, batch);
        let context = self.attention.key_value(windows.clone());
        let attended = self
            .attention
            .forward(windows, &context, Some(&bias))
            .reshape([batch, across, across, window, window, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([batch, side, side, width]);
        let back = if shift == 0 { 0 } else { side - shift };
        let hidden = hidden + rolled(attended, back).reshape([batch, places, width]);
        let normed = self.feed_forward_norm.forward(hidden.clone());
        hidden + self.feed_forward.forward(normed)
    }

    /// What is added to the scores: by distance, and between regions that shifting has put side by
    /// side. Laid out for every window, `[batch * windows, heads, size, size]`.
    fn bias(&self, side: usize, window: usize, shift: usize, batch: usize) -> Tensor<B, 4> {
        let device = self.distances.weight.device();
        let [_, heads] = self.distances.weight.dims();
        let size = window * window;
        let index = Tensor::<B, 1, Int>::from_data(
            TensorData::new(distances(window), [size * size]),
            &device,
        );
        let scores = self.distances.weight.val().select(0, index).swap_dims(0, 1);
        let scores = scores.reshape([1, heads, size, size]);
        let windows = (side / window).pow(2);
        let scores = scores.repeat_dim(0, windows);
        let scores = match shift {
            0 => scores,
            _ => {
                let apart = TensorData::new(apart(side, window, shift), [windows, 1, size, size]);
                scores + Tensor::<B, 4>::from_data(apart, &device).repeat_dim(1, heads)
            }
        };
        scores.repeat_dim(0, batch)
    }
}

impl<B: Backend> Merge<B> {
    fn forward(&self, hidden: Tensor<B, 3>, side: usize) -> Tensor<B, 3> {
        let [batch, places, width] = hidden.dims();
        let half = side / 2;
        // Columns change slower than rows among the four.
        let joined = hidden
            .reshape([batch, half, 2, half, 2, width])
            .permute([0, 1, 3, 4, 2, 5])
            .reshape([batch, places / 4, 4 * width]);
        apply(&self.reduction, self.norm.forward(joined))
    }
}

/// Moves everything up and to the left by so many places, what falls out coming in again on the
/// other side.
fn rolled<B: Backend>(x: Tensor<B, 4>, by: usize) -> Tensor<B, 4> {
    if by == 0 {
        return x;
    }
    [1, 2].into_iter().fold(x, |x, dim| {
        let length = x.dims()[dim];
        let (first, rest) = (x.clone().narrow(dim, 0, by), x.narrow(dim, by, length - by));
        Tensor::cat(vec![rest, first], dim)
    })
}

/// Row of the table of distances for each pair of places of a window, `[size, size]`.
fn distances(window: usize) -> Vec<i64> {
    let places = || (0..window * window).map(|at| (at / window, at % window));
    let span = 2 * window - 1;
    let pairs = places().flat_map(|to| places().map(move |from| (to, from)));
    pairs
        .map(|(to, from)| (to.0 + window - 1 - from.0) * span + (to.1 + window - 1 - from.1))
        .map(|row| row as i64)
        .collect()
}

/// Of each window, where two places were neighbours before the shift and where they were not,
/// `[windows, size, size]`.
fn apart(side: usize, window: usize, shift: usize) -> Vec<f32> {
    // The last window holds what was shifted out of the picture beside what was there before.
    let region = |at: usize| usize::from(at >= side - window) + usize::from(at >= side - shift);
    let across = side / window;
    let mut values = Vec::with_capacity(across * across * window.pow(4));
    for number in 0..across * across {
        let (top, left) = (number / across * window, number % across * window);
        let places: Vec<(usize, usize)> = (0..window * window)
            .map(|at| (region(top + at / window), region(left + at % window)))
            .collect();
        for to in &places {
            values.extend(places.iter().map(|from| if from == to { 0.0 } else { APART }));
        }
    }
    values
}

/// What stretches a row of `from` numbers to `to` of them by cubic convolution (a = -0.75), first
/// on first and last on last, `[from, to]`.
fn cubic(from: usize, to: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let weight = |distance: f64| {
        let x = distance.abs();
        match x {
            x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            x if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
            _ => 0.0,
        }
    };
    let mut matrix = vec![0.0; from * to];
    let scale = if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    for target in 0..to {
        let place = target as f64 * scale;
        let floor = place.floor();
        for step in -1..=2 {
            let at = floor + f64::from(step);
            let source = at.clamp(0.0, (from - 1) as f64) as usize;
            matrix[source * to + target] += weight(place - at) as f32;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn config() -> HtsatConfig {
        HtsatConfig {
            mels: 8,
            side: 16,
            patch: 2,
            d_model: 4,
            depths: vec![2, 1],
            n_heads: vec![2, 2],
            window: 4,
            ff_ratio: 2,
            activation: Activation::Gelu,
            norm_epsilon: 1e-5,
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_by_name() {
        config().validate().unwrap();
        type Edit = fn(&mut HtsatConfig);
        let edits: [(Edit, &str); 6] = [
            (|c| c.depths = vec![2], "depths"),
            (|c| c.n_heads = vec![3, 2], "heads"),
            (|c| c.mels = 7, "side"),
            (|c| c.window = 3, "window"),
            (|c| c.patch = 0, "patch"),
            (|c| c.side = 24, "window"),
        ];
        for (edit, name) in edits {
            let mut config = config();
            edit(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_roll_and_its_counterpart_leave_everything_in_place() {
        let values: Vec<f32> = (0..32).map(|at| at as f32).collect();
        let x = Tensor::<Flex, 4>::from_data(
            TensorData::new(values.clone(), [1, 4, 4, 2]),
            &Default::default(),
        );
        let moved = rolled(x.clone(), 1);
        let first: Vec<f32> = moved.clone().into_data().to_vec().unwrap();
        // Place (1, 1) has come to the first.
        assert_eq!(first[..2], [10.0, 11.0]);
        assert_eq!(rolled(moved, 3).into_data().to_vec::<f32>().unwrap(), values);
    }

    #[test]
    fn stretching_keeps_both_ends_and_straight_lines() {
        let matrix = cubic(5, 9);
        let out: Vec<f32> =
            (0..9).map(|to| (0..5).map(|from| from as f32 * matrix[from * 9 + to]).sum()).collect();
        assert_eq!((out[0], out[8]), (0.0, 4.0));
        // Away from the ends, where the row goes on as it was.
        for (at, value) in out.iter().enumerate().take(7).skip(2) {
            assert!((value - at as f32 / 2.0).abs() < 1e-5, "{at}: {value}");
        }
    }

    #[test]
    fn a_longer_spectrogram_is_a_broken_contract() {
        let encoder = config().init::<Flex>(&mut WeightInit::new(1), &Default::default());
        let mel = |frames| Tensor::<Flex, 3>::ones([1, frames, 8], &Default::default());
        assert_eq!(encoder.forward(mel(32)).dims(), [1, 8]);
        assert_eq!(encoder.forward(mel(20)).dims(), [1, 8]);
        let longer = std::panic::AssertUnwindSafe(|| encoder.forward(mel(33)));
        assert!(std::panic::catch_unwind(longer).is_err());
    }
}
