//! Learning rates by depth: lower for a pretrained encoder, and lower still towards its embeddings.
//!
//! Source: Howard and Ruder 2018 (arXiv 1801.06146), section 3.2.

/// Learning rates of the layers of a text encoder, relative to that of the other parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderRates {
    /// Rate of the highest layer.
    pub encoder_lr: f64,
    /// Rate of a layer relative to that of the layer above it.
    pub layer_decay: f64,
    /// Number of layers.
    pub layers: usize,
}

/// Parameters that share a learning rate: number 0 is everything outside of the encoder, number 1
/// the embeddings, and number i + 2 layer i.
pub(crate) type Group = usize;

impl EncoderRates {
    /// Relative rates by group; one where all are the same.
    pub(crate) fn factors(&self) -> Vec<f64> {
        if self.encoder_lr == 1.0 && self.layer_decay == 1.0 {
            return vec![1.0];
        }
        let below_the_top = (0..=self.layers).rev();
        let encoder = below_the_top.map(|n| self.encoder_lr * self.layer_decay.powi(n as i32));
        std::iter::once(1.0).chain(encoder).collect()
    }

    /// The group of a parameter by its path, in which names of enum variants may stand.
    pub(crate) fn group(&self, path: &[String]) -> Group {
        let Some(encoder) = path.iter().position(|part| part == "encoder") else {
            return 0;
        };
        let inside = &path[encoder + 1..];
        if inside.iter().any(|part| part == "final_norm") {
            return self.layers + 1;
        }
        // Every layer has its parts under its number: `layers.3`, `norms.3`.
        let list = inside.iter().position(|part| part == "layers" || part == "norms");
        let number = list.and_then(|list| inside.get(list + 1)?.parse::<usize>().ok());
        number.map_or(1, |number| (number + 2).min(self.layers + 1))
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        module::{Module, ModuleVisitor, Param},
        optim::{GradientsParams, Optimizer},
        tensor::Tensor,
    };
    use burn_store::{ModuleSnapshot, TensorSnapshot};

    use super::*;
    use crate::{
        identifier::LevelSizes,
        model::{Cart, CartConfig},
        nn::families,
        optim::CartOptimizer,
    };

    type A = Autodiff<Flex>;

    #[test]
    fn rates_fall_from_the_top_to_the_embeddings() {
        let rates = EncoderRates { encoder_lr: 0.1, layer_decay: 0.5, layers: 3 };
        let factors = rates.factors();
        let factor = |path: &str| {
            factors[rates.group(&path.split('.').map(String::from).collect::<Vec<_>>())]
        };
        for (path, expected) in [
            ("cart.decoder.layers.0.self_attention.query.weight", 1.0),
            ("cart.encoder.Bert.layers.2.attention.query.weight", 0.1),
            ("cart.encoder.Scratch.norms.2.gamma", 0.1),
            ("cart.encoder.T5.final_norm.gamma", 0.1),
            ("cart.encoder.T5.layers.1.attention_norm.gamma", 0.05),
            ("encoder.layers.0.feed_forward.inner.bias", 0.025),
            ("cart.encoder.Bert.norm.beta", 0.0125),
            ("cart.encoder.Clip.tokens.weight", 0.0125),
            ("cart.encoder.T5.distances.weight", 0.0125),
        ] {
            approx::assert_relative_eq!(factor(path), expected, max_relative = 1e-12);
        }
        let same = EncoderRates { encoder_lr: 1.0, layer_decay: 1.0, layers: 3 };
        assert_eq!(same.factors(), [1.0]);
    }

    /// A first step of AdamW moves every number by its learning rate, whatever the gradient.
    #[test]
    fn layers_move_by_their_rates_and_frozen_ones_not_at_all() {
        let device = Default::default();
        let rates = EncoderRates { encoder_lr: 0.5, layer_decay: 0.8, layers: 3 };
        for config in families() {
            let config = CartConfig::for_encoder(config, LevelSizes::new(vec![3, 2]).unwrap())
                .with_decoder_layers(1);
            let cart = config.init::<A>(&device).unwrap();
            let cart = cart.map_encoder(|encoder| encoder.freeze_layers(1));
            let before = cart.clone();
            let mut optimizer =
                CartOptimizer::<Cart<A>, A>::new(0.0, 0.0).with_encoder_rates(rates);
            // Gradients of 1 for everything that has any.
            let tokens = Tensor::from_ints([[1, 2, 3, 4]], &device);
            let padding = Tensor::from_data([[false; 4]], &device);
            let ids = Tensor::from_ints([[1, 0]], &device);
            let logits = cart.forward(tokens, padding, ids);
            let loss = logits.into_iter().map(|l| l.square().sum()).reduce(|a, b| a + b).unwrap();
            let found = GradientsParams::from_grads(loss.backward(), &cart);
            let mut ones = Ones { found, grads: GradientsParams::new() };
            cart.visit(&mut ones);
            let after = optimizer.step(0.01, cart, ones.grads);
            let record = optimizer.to_record();
            let mut seen = [0; 3];
            let pairs = before.collect(None, None, true);
            for (before, after) in pairs.iter().zip(after.collect(None, None, true)) {
                let path = before.full_path();
                let part: Vec<&str> = path.split('.').collect();
                let expected = match part.as_slice() {
                    ["decoder", ..] => 0.01,
                    ["encoder", "final_norm", ..] => 0.0,
                    ["encoder", "layers" | "norms", "2", ..] => 0.005,
                    ["encoder", "layers" | "norms", "1", ..] => 0.004,
                    _ => 0.0,
                };
                let values = |snapshot: &TensorSnapshot| -> Vec<f32> {
                    snapshot.to_data().unwrap().to_vec().unwrap()
                };
                let (old, new) = (values(before), values(&after));
                let id = before.tensor_id.unwrap();
                if expected == 0.0 {
                    assert_eq!(old, new, "{path}");
                    assert!(!record.contains_key(&id), "{path} has moments");
                    seen[0] += 1;
                } else if record.contains_key(&id) {
                    for (old, new) in old.iter().zip(&new) {
                        let moved = f64::from(old - new);
                        assert!((moved - expected).abs() < 1e-5, "{path}: {moved}");
                    }
                    seen[if expected == 0.01 { 1 } else { 2 }] += 1;
                }
            }
            assert!(seen.iter().all(|&count| count > 4), "{seen:?}");
        }
    }

    /// Puts a 1 in the place of every number of the gradients.
    struct Ones {
        found: GradientsParams,
        grads: GradientsParams,
    }

    impl ModuleVisitor<A> for Ones {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if let Some(grad) = self.found.remove::<Flex, D>(param.id) {
                self.grads.register(param.id, grad.ones_like());
            }
        }
    }
}
