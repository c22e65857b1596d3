//! The autoencoder, its codebooks and its loss.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Int, Tensor, backend::Backend},
};

use super::{Codebooks, RqVaeConfig, nearest_codes};
use crate::nn::{WeightInit, gelu};

/// Linear layers with a GELU between them.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    layers: Vec<Linear<B>>,
}

impl<B: Backend> Mlp<B> {
    fn init(widths: &[usize], init: &mut WeightInit, device: &B::Device) -> Self {
        let layers = widths.windows(2).map(|w| init.linear(w[0], w[1], device)).collect();
        Self { layers }
    }

    /// Applies the layers.
    ///
    /// # Shapes
    /// - input: `[n, first width]`
    /// - output: `[n, last width]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(input, |x, (index, layer)| {
            let x = layer.forward(x);
            if index == last { x } else { gelu(x) }
        })
    }
}

/// Encoder, codebooks and decoder.
#[derive(Module, Debug)]
pub struct RqVaeNetwork<B: Backend> {
    /// From inputs to latents.
    pub encoder: Mlp<B>,
    /// From quantised latents to inputs.
    pub decoder: Mlp<B>,
    /// Per level, `[size, latent]`.
    pub codebooks: Vec<Param<Tensor<B, 2>>>,
}

/// Latents and what quantisation makes of them.
#[derive(Debug, Clone)]
pub struct Quantised<B: Backend> {
    /// Code of each row per level, `[n]` each.
    pub codes: Vec<Tensor<B, 1, Int>>,
    /// What each level quantised, detached: `r_0, .., r_{M-1}`, `[n, latent]` each.
    pub residuals: Vec<Tensor<B, 2>>,
    /// Input of the decoder: the value of the summed codes with the gradient of the latents.
    pub straight_through: Tensor<B, 2>,
    /// `sum_m |sg(r_{m-1}) - e_m|^2`, `[1]`; zero where codebooks do not learn by gradient.
    pub codebook_loss: Tensor<B, 1>,
    /// `sum_m |r_{m-1} - sg(e_m)|^2`, `[1]`.
    pub commitment_loss: Tensor<B, 1>,
}

/// The terms of the loss, each per embedding and input dimension.
#[derive(Debug, Clone)]
pub struct RqVaeParts<B: Backend> {
    /// What to minimise, `[1]`.
    pub total: Tensor<B, 1>,
    /// Reconstruction error, `[1]`.
    pub reconstruction: Tensor<B, 1>,
    /// How the batch was quantised.
    pub quantised: Quantised<B>,
}

impl RqVaeConfig {
    /// Initialises a network for inputs of width `dim`; codebooks start small and random.
    pub fn init_network<B: Backend>(&self, dim: usize, device: &B::Device) -> RqVaeNetwork<B> {
        let mut init = WeightInit::new(self.seed);
        let mut widths = vec![dim];
        widths.extend(&self.hidden);
        widths.push(self.latent);
        let encoder = Mlp::init(&widths, &mut init, device);
        widths.reverse();
        let network = RqVaeNetwork {
            encoder,
            decoder: Mlp::init(&widths, &mut init, device),
            codebooks: self
                .sizes
                .iter()
                .map(|&size| init.normal([size, self.latent], 0.1, device))
                .collect(),
        };
        network.num_params();
        network
    }
}

impl<B: Backend> RqVaeNetwork<B> {
    /// Quantises latents level by level.
    ///
    /// Residuals are taken from detached codes, so the commitment term trains the encoder only and
    /// the codebook term the codebooks only.
    ///
    /// # Shapes
    /// - `latents`: `[n, latent]`
    pub fn quantise(&self, latents: Tensor<B, 2>, codebooks: Codebooks) -> Quantised<B> {
        let device = latents.device();
        let [n, _] = latents.dims();
        let by_gradient = codebooks == Codebooks::Gradient;
        let mut codebook_loss = Tensor::zeros([1], &device);
        let mut commitment_loss = Tensor::zeros([1], &device);
        let mut residual = latents.clone();
        let mut codes = Vec::with_capacity(self.codebooks.len());
        let mut residuals = Vec::with_capacity(self.codebooks.len());
        for codebook in &self.codebooks {
            let codebook = codebook.val();
            let fixed = residual.clone().detach();
            let nearest = nearest_codes(fixed.clone(), codebook.clone().detach());
            let chosen = codebook.select(0, nearest.clone());
            if by_gradient {
                let gap = (fixed.clone() - chosen.clone()).square().sum();
                codebook_loss = codebook_loss + gap.div_scalar(n as f64);
            }
            residual = residual - chosen.detach();
            commitment_loss =
                commitment_loss + residual.clone().square().sum().div_scalar(n as f64);
            codes.push(nearest);
            residuals.push(fixed);
        }
        let straight_through = latents - residual.detach();
        Quantised { codes, residuals, straight_through, codebook_loss, commitment_loss }
    }

    /// The loss of a batch of scaled inputs (method, section 1):
    /// `|x - x'|^2 + codebook terms + beta * commitment terms`, divided by the input width.
    ///
    /// # Shapes
    /// - `inputs`: `[n, dim]`
    pub fn loss(&self, inputs: Tensor<B, 2>, config: &RqVaeConfig) -> RqVaeParts<B> {
        let [n, dim] = inputs.dims();
        let quantised = self.quantise(self.encoder.forward(inputs.clone()), config.codebooks);
        let output = self.decoder.forward(quantised.straight_through.clone());
        let reconstruction = (inputs - output).square().sum().div_scalar((n * dim) as f64);
        let terms = quantised.codebook_loss.clone()
            + quantised.commitment_loss.clone().mul_scalar(config.commitment);
        let total = reconstruction.clone() + terms.div_scalar(dim as f64);
        RqVaeParts { total, reconstruction, quantised }
    }
}

#[cfg(test)]
mod tests {
    use approx::{assert_abs_diff_eq, assert_relative_eq};
    use burn::backend::{Autodiff, Flex};

    use super::*;

    type A = Autodiff<Flex>;

    fn config() -> RqVaeConfig {
        RqVaeConfig { latent: 3, hidden: vec![6], seed: 5, ..RqVaeConfig::new(vec![4, 3]) }
    }

    fn inputs<B: Backend>() -> Tensor<B, 2> {
        WeightInit::new(11).normal([7, 5], 1.0, &Default::default()).val()
    }

    fn host<B: Backend, const D: usize>(t: Tensor<B, D>) -> Vec<f64> {
        t.into_data().iter::<f64>().collect()
    }

    /// Twin: distances to every code by subtraction, one embedding at a time.
    #[test]
    fn codes_losses_and_straight_through_values_follow_the_formulas() {
        let network = config().init_network::<Flex>(5, &Default::default());
        let latents = network.encoder.forward(inputs());
        let q = network.quantise(latents.clone(), Codebooks::Gradient);
        let z = host(latents);
        let (mut codebook, mut sums) = (0.0, vec![0.0; 21]);
        for row in 0..7 {
            let mut r: Vec<f64> = z[row * 3..row * 3 + 3].to_vec();
            for (level, book) in network.codebooks.iter().enumerate() {
                let book = host(book.val());
                let distance = |code: usize| -> f64 {
                    (0..3).map(|d| (r[d] - book[code * 3 + d]).powi(2)).sum()
                };
                let best = (0..book.len() / 3)
                    .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
                    .unwrap();
                assert_eq!(host(q.codes[level].clone().float())[row] as usize, best);
                codebook += distance(best) / 7.0;
                for d in 0..3 {
                    r[d] -= book[best * 3 + d];
                    sums[row * 3 + d] += book[best * 3 + d];
                }
            }
        }
        assert_relative_eq!(host(q.codebook_loss)[0], codebook, max_relative = 1e-5);
        assert_relative_eq!(host(q.commitment_loss)[0], codebook, max_relative = 1e-5);
        for (got, expected) in host(q.straight_through).iter().zip(&sums) {
            assert_abs_diff_eq!(got, expected, epsilon = 1e-5);
        }
    }

    /// The gradient for encoder, decoder and codebook weights against central differences of the
    /// loss that the stop-gradients define: with codes, detached residuals and the straight-through
    /// offset held as they were at the point.
    #[test]
    fn gradients_agree_with_finite_differences() {
        let device = Default::default();
        let config = RqVaeConfig { codebooks: Codebooks::Gradient, commitment: 0.4, ..config() };
        let network = config.init_network::<A>(5, &device);
        let parts = network.loss(inputs(), &config);
        let grads = parts.total.backward();
        let frozen = parts.quantised;
        let latents0 = network.encoder.forward(inputs()).detach();
        let offset = frozen.straight_through.clone().detach() - latents0;

        let surrogate = |network: &RqVaeNetwork<A>| -> f64 {
            let z = network.encoder.forward(inputs());
            let x = network.decoder.forward(z.clone() + offset.clone());
            let mut total = host((inputs::<A>() - x).square().sum().div_scalar(35.0))[0];
            let mut r = z;
            for (level, codes) in frozen.codes.iter().enumerate() {
                let moving = network.codebooks[level].val().select(0, codes.clone());
                let gap = frozen.residuals[level].clone() - moving;
                total += host(gap.square().sum())[0] / 35.0;
                let fixed = self::codebook(&config, level).select(0, codes.clone());
                r = r - fixed;
                total += 0.4 * host(r.clone().square().sum())[0] / 35.0;
            }
            total
        };
        let step = 1e-2f32;
        let check = |name: &str, by_grad: f64, plus: f64, minus: f64| {
            let numeric = (plus - minus) / (2.0 * f64::from(step));
            assert!(by_grad.abs() > 1e-3, "{name}: a gradient of {by_grad} shows nothing");
            assert_relative_eq!(by_grad, numeric, max_relative = 2e-2);
        };
        let shifted = |param: &Param<Tensor<A, 2>>, direction: &Tensor<A, 2>, sign: f32| {
            Param::from_tensor((param.val() + direction.clone().mul_scalar(sign * step)).detach())
        };
        let direction = |shape: [usize; 2]| {
            WeightInit::new(3).normal::<A, 2>(shape, 1.0, &device).val().detach()
        };

        let weight = &network.encoder.layers[0].weight;
        let v = direction([5, 6]);
        let dot = host((weight.grad(&grads).unwrap() * v.clone().inner()).sum())[0];
        let moved = |sign| {
            let mut other = network.clone();
            other.encoder.layers[0].weight = shifted(weight, &v, sign);
            surrogate(&other)
        };
        check("encoder", dot, moved(1.0), moved(-1.0));

        let weight = &network.decoder.layers[1].weight;
        let v = direction([6, 5]);
        let dot = host((weight.grad(&grads).unwrap() * v.clone().inner()).sum())[0];
        let moved = |sign| {
            let mut other = network.clone();
            other.decoder.layers[1].weight = shifted(weight, &v, sign);
            surrogate(&other)
        };
        check("decoder", dot, moved(1.0), moved(-1.0));

        let book = &network.codebooks[1];
        let v = direction([3, 3]);
        let dot = host((book.grad(&grads).unwrap() * v.clone().inner()).sum())[0];
        let moved = |sign| {
            let mut other = network.clone();
            other.codebooks[1] = shifted(book, &v, sign);
            surrogate(&other)
        };
        check("codebook", dot, moved(1.0), moved(-1.0));
    }

    /// The codebook of a level as initialised.
    fn codebook(config: &RqVaeConfig, level: usize) -> Tensor<A, 2> {
        let network = config.init_network::<A>(5, &Default::default());
        network.codebooks[level].val().detach()
    }

    #[test]
    fn ema_codebooks_get_no_gradient() {
        let network = config().init_network::<A>(5, &Default::default());
        let config = RqVaeConfig { codebooks: Codebooks::Ema { decay: 0.9 }, ..config() };
        let grads = network.loss(inputs(), &config).total.backward();
        assert!(network.codebooks[0].grad(&grads).is_none());
        assert!(network.encoder.layers[0].weight.grad(&grads).is_some());
    }
}
